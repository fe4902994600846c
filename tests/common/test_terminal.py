"""What the scripts share on the terminal, in processes of their own where it matters."""

import fcntl
import os
import pty
import re
import signal
import struct
import subprocess
import sys
import termios
import time

import pytest

from core import __version__
from core.common import progress
from core.common.command_line import Parser
from core.common.errors import InputError
from core.common.terminal import duration, size_text, table
from tests.support.scripts import ROOT, python


def run_main(body):
    return python('import sys\nsys.argv[0] = "dir/tool.py"\nfrom core.common import progress, '
                  'terminal\nfrom core.common.errors import *\ndef main():\n    '
                  f'{body}\nterminal.run(main)')


def test_bad_input_is_one_line_and_status_2():
    result = run_main(r'raise InputError("no file\n  x:\tlook   again")')
    assert (result.returncode, result.stdout) == (2, '')
    assert result.stderr == 'tool.py: error: no file x: look again\n'


def test_status_is_what_main_returns():
    assert run_main('return None').returncode == 0
    assert run_main('return 7').returncode == 7


def test_a_mistake_of_the_program_keeps_its_traceback():
    result = run_main('raise ValueError("ours")')
    assert result.returncode == 1
    assert 'Traceback' in result.stderr and 'ValueError: ours' in result.stderr


def test_ctrl_c_is_status_130():
    # A test run started in the background has SIGINT ignored, and so would the child.
    code = ('import signal, time\nfrom core.common import progress, terminal\n'
            'signal.signal(signal.SIGINT, signal.default_int_handler)\n'
            'def main():\n    print("ready", flush=True)\n    time.sleep(60)\nterminal.run(main)')
    process = subprocess.Popen([sys.executable, '-c', code], cwd=ROOT, stdout=subprocess.PIPE,
                               stderr=subprocess.PIPE, text=True)
    try:
        assert process.stdout.readline() == 'ready\n'
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=120)
    finally:
        process.kill()
    assert process.returncode == 130
    assert errors == 'interrupted\n'


def test_a_reader_that_goes_away_is_no_traceback():
    code = ('from core.common import terminal\ndef main():\n    while True:\n        print("x" * '
            '1000)\nterminal.run(main)')
    process = subprocess.Popen([sys.executable, '-c', code], cwd=ROOT, stdout=subprocess.PIPE,
                               stderr=subprocess.PIPE)
    process.stdout.close()
    errors = process.stderr.read()
    process.stderr.close()
    assert process.wait(30) == 1
    assert errors == b''


BAR = '''
import sys
from core.common import progress
with progress.bar({total}, 'encoding', initial={initial}, unit='image') as bar:
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
    with progress.bar(20, 'encoding', unit='image') as bar:
        bar._time = lambda: now
        for _ in range(20):
            now += 3
            bar.update()
    counts = [int(re.match(r'encoding: (\d+)/20', line)[1])
              for line in capsys.readouterr().err.splitlines()]
    assert counts[0] == 0 and counts[-1] == 20 and len(set(counts)) == len(counts)
    assert 4 <= len(counts) <= 8


def test_on_a_terminal_the_bar_stays_on_its_line():
    master, slave = pty.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack('HHHH', 24, 80, 0, 0))
    code = ("from core.common import progress, terminal\nwith progress.bar(3, 'encoding') as bar:\n"
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
    result = python("from core.common import progress\nwith progress.epoch_bar(2, 'epoch', 0) as "
                    "bar:\n    bar.update()\n    bar.write('a line')\n")
    assert (result.stdout, result.stderr) == ('a line\n', '')


@pytest.mark.parametrize(
    'n_bytes, text', [(0, '0 B'), (999, '999 B'), (1000, '1 kB'), (201_000, '201 kB'),
                      (1_234_567_890, '1.23 GB'), (5e13, '50 TB')])
def test_sizes_for_people(n_bytes, text):
    assert size_text(n_bytes) == text


def test_table():
    assert table([['Bleu_4', '0.25'], ['METEOR', 1]], ['metric', 'coco']).split('\n') == [
        'metric  coco', '------------', 'Bleu_4  0.25', 'METEOR     1']


# ---- command lines

def parser():
    made = Parser('Does things.\n\nexamples:\n  tool.py x', 'PLACE [options]')
    made.add_argument('place', metavar='PLACE')
    made.add_argument('--width', type=int, metavar='N', help='how wide')
    made.more(made.add_argument('--depth', type=int, metavar='N', help='how deep'))
    group = made.add_argument_group('machine', 'not for everybody')
    group.add_argument('--threads', metavar='N', help='how many')
    made.more(group)
    return made


def test_help_shows_what_most_need_and_help_all_everything(capsys):
    for option, there, missing in (
        ('-h', ('PLACE [options]', 'tool.py x', 'how wide', '--help-all'),
         ('how deep', 'machine', 'not for everybody', '-q, --quiet')),
        ('--help-all', ('how wide', 'how deep', 'not for everybody', 'how many', '--quiet',
                        '--version', '--depth N'), ())):
        with pytest.raises(SystemExit) as stopped:
            parser().parse_args([option])
        text = capsys.readouterr().out
        assert stopped.value.code == 0 and all(part in text for part in there)
        assert not any(part in text for part in missing)
    assert parser().parse_args(['x', '--depth', '3']).depth == 3


@pytest.mark.parametrize(('arguments', 'message'), [
    ([], 'PLACE'), (['x', '--widht', '3'], r'--widht; did you mean --width\?'),
    (['x', '--width', 'y'], "'y'"), (['x', '--wid', '3'], 'did you mean --width'),
    (['x', 'y'], 'unknown argument y'), (['x', '--quiet', '--verbose'], 'exclude each other')])
def test_mistakes_of_the_command_line_are_one_line(arguments, message):
    with pytest.raises(InputError, match=message):
        parser().parse_args(arguments)


def test_options_may_stand_between_what_is_listed():
    made = Parser('', 'RUN PHOTO...')
    made.add_argument('run', nargs='?')
    made.add_argument('photos', nargs='*')
    made.add_argument('--width')
    parsed = made.parse_args(['run', '--width', '3', 'a.png', '--quiet', 'b.png'])
    assert (parsed.run, parsed.photos, parsed.width) == ('run', ['a.png', 'b.png'], '3')


def test_version(capsys):
    with pytest.raises(SystemExit):
        parser().parse_args(['--version'])
    assert capsys.readouterr().out == f'show-attend-tell {__version__}\n'


def test_quiet_and_verbose():
    body = ('terminal.set_level(terminal.%s)\n    terminal.say("a note")\n    print("a result")\n  '
            '  with progress.bar(2, "work") as bar:\n        bar.update()\n    '
            'terminal.complain("error: bad")\n    import os\n    return '
            'int(os.environ["TF_CPP_MIN_LOG_LEVEL"])')
    quiet, normal, verbose = (run_main(body % level) for level in ('QUIET', 'NORMAL', 'VERBOSE'))
    assert (quiet.stdout, quiet.stderr, quiet.returncode) == ('a result\n', 'tool.py: error: bad\n',
                                                              3)
    assert normal.stdout == 'a note\na result\n' and normal.returncode == 3
    assert 'work: 1/2' in normal.stderr
    assert re.match(r'show-attend-tell \S+, Python 3\S+, tensorflow 2\S+, ', verbose.stdout)
    assert 'a note' in verbose.stdout and verbose.returncode == 0


def test_colour_on_terminals_only(monkeypatch):
    code = ('import sys\nsys.argv[0] = "tool.py"\nfrom core.common import terminal\n'
            'terminal.complain("error: bad")')
    assert '\x1b' not in python(code).stderr
    for setting, colour in (({}, True), ({'NO_COLOR': '1'}, False), ({'TERM': 'dumb'}, False)):
        main, terminal = pty.openpty()
        subprocess.run([sys.executable, '-c', code], cwd=ROOT, stderr=terminal, timeout=60,
                       env={**os.environ, 'TERM': 'xterm', 'NO_COLOR': '', **setting})
        os.close(terminal)
        said = os.read(main, 1000).decode()
        os.close(main)
        assert 'tool.py: error: bad' in said and ('\x1b[31m' in said) == colour


def test_durations_for_people():
    assert [duration(seconds) for seconds in (0, 29, 30, 95, 3599, 3600, 5025, 90000)] == [
        '1 s', '29 s', '30 s', '2 min', '1 h 0 min', '1 h 0 min', '1 h 24 min', '25 h 0 min']
