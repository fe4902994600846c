"""What the scripts share on the terminal, in processes of their own where it matters."""

import fcntl
import os
import pathlib
import pty
import re
import signal
import struct
import subprocess
import sys
import termios
import time

import pytest

from core import console

ROOT = pathlib.Path(__file__).parents[1]


def python(code):
    return subprocess.run([sys.executable, '-c', code], cwd=ROOT, capture_output=True, text=True, timeout=60)


def run_main(body):
    return python(f'import sys\nsys.argv[0] = "dir/tool.py"\nfrom core import console\nfrom core.errors import *\n'
                  f'def main():\n    {body}\nconsole.run(main)')


def test_bad_input_is_one_line_and_status_2():
    result = run_main(r'raise InputError("no file\n  x:\tlook   again")')
    assert (result.returncode, result.stdout) == (2, '')
    assert result.stderr == 'tool.py: error: no file x: look again\n'


def test_status_is_what_main_returns():
    assert run_main('return None').returncode == 0
    assert run_main('return 7').returncode == 7


def test_a_mistake_of_the_program_keeps_its_traceback():
    result = run_main('raise ValueError("ours")')
    assert result.returncode == 1 and 'Traceback' in result.stderr and 'ValueError: ours' in result.stderr


def test_ctrl_c_is_status_130():
    # A test run started in the background has SIGINT ignored, and so would the child.
    code = ('import signal, time\nfrom core import console\n'
            'signal.signal(signal.SIGINT, signal.default_int_handler)\n'
            'def main():\n    print("ready", flush=True)\n    time.sleep(60)\nconsole.run(main)')
    process = subprocess.Popen([sys.executable, '-c', code], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                               text=True)
    try:
        assert process.stdout.readline() == 'ready\n'
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=30)
    finally:
        process.kill()
    assert process.returncode == 130
    assert errors == 'interrupted\n'


def test_a_reader_that_goes_away_is_no_traceback():
    code = 'from core import console\ndef main():\n    while True:\n        print("x" * 1000)\nconsole.run(main)'
    process = subprocess.Popen([sys.executable, '-c', code], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    process.stdout.close()
    errors = process.stderr.read()
    process.stderr.close()
    assert process.wait(30) == 1
    assert errors == b''


BAR = '''
import sys
from core import console
with console.progress({total}, 'encoding', initial={initial}, unit='image') as bar:
    for _ in range({steps}):
        bar.update(5)
        print('a line', file=sys.stderr)
print('after', file=sys.stderr)
'''
LINE = re.compile(r'encoding: (\d+)/20 \[\d\d:\d\d<[\d:?]+, +[\d.?]+ ?(s/image|image/s)\]')


@pytest.mark.parametrize('initial, steps, counts', [
    (0, 4, [0, 20]), (10, 2, [10, 20]), (0, 2, [0, 10]), (20, 0, [20]),
])
def test_without_a_terminal_progress_is_whole_lines(initial, steps, counts):
    result = python(BAR.format(total=20, initial=initial, steps=steps))
    assert result.returncode == 0 and result.stdout == ''
    assert '\r' not in result.stderr
    *lines, last = result.stderr.split('\n')
    assert last == '' and '' not in lines
    assert lines[-1] == 'after' and lines.count('a line') == steps
    bars = [line for line in lines if line not in ('after', 'a line')]
    assert all(LINE.fullmatch(line) for line in bars), bars
    assert [int(LINE.fullmatch(line)[1]) for line in bars] == counts


def test_without_a_terminal_a_line_every_few_seconds(monkeypatch, capsys):
    now = time.time()
    monkeypatch.setattr(time, 'time', lambda: now)
    with console.progress(20, 'encoding', unit='image') as bar:
        bar._time = lambda: now
        for _ in range(20):
            now += 3
            bar.update()
    counts = [int(re.match(r'encoding: (\d+)/20', line)[1]) for line in capsys.readouterr().err.splitlines()]
    assert counts[0] == 0 and counts[-1] == 20 and len(set(counts)) == len(counts)
    assert 4 <= len(counts) <= 8


def test_on_a_terminal_the_bar_stays_on_its_line():
    master, slave = pty.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack('HHHH', 24, 80, 0, 0))
    code = ("from core import console\nwith console.progress(3, 'encoding') as bar:\n"
            "    for _ in range(3):\n        bar.update()")
    try:
        subprocess.run([sys.executable, '-c', code], cwd=ROOT, stderr=slave, timeout=60, check=True)
        os.set_blocking(master, False)
        shown = os.read(master, 100_000).decode()
    finally:
        os.close(master)
        os.close(slave)
    assert shown.count('\r\n') == 1 and shown.endswith('\r\n')
    assert 'encoding' in shown and '100%' in shown and '3/3' in shown


def test_a_training_bar_is_silent_without_a_terminal():
    result = python("from core import console\nwith console.epoch_bar(2, 'epoch', 0) as bar:\n    bar.update()\n"
                    "    bar.write('a line')\n")
    assert (result.stdout, result.stderr) == ('a line\n', '')


@pytest.mark.parametrize('n_bytes, text', [
    (0, '0 B'), (999, '999 B'), (1000, '1 kB'), (201_000, '201 kB'), (1_234_567_890, '1.23 GB'), (5e13, '50 TB'),
])
def test_sizes_for_people(n_bytes, text):
    assert console.size_text(n_bytes) == text


def test_table():
    assert console.table([['Bleu_4', '0.25'], ['METEOR', 1]], ['metric', 'coco']).split('\n') == [
        'metric  coco', '------------', 'Bleu_4  0.25', 'METEOR     1']
