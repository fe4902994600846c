"""train.py as a user runs it: refusals in one line, and a run that survives kill -9."""

import json
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import tiny

from core.backend import tf


def refused(*arguments, parts=()):
    """train.py refuses and changes neither the data nor anything beside it."""
    before = tiny.snapshot(tiny.workplace())
    tiny.assert_refused(tiny.script('train.py', *arguments), *parts)
    assert tiny.snapshot(tiny.workplace()) == before


@pytest.mark.parametrize(('arguments', 'parts'), [
    ([], ['train.py DATA --out RUN']),
    (['nowhere', '--out', 'run-x'], ['nowhere', 'no such data directory', 'prepro.py']),
    (['nowhere', '--out', 'run-x', '--resume', 'run-x'], ['--resume RUN takes data and options from the run']),
    (['--resume', 'nowhere'], ['nowhere', 'not a run']),
    (['nowhere', '--out', 'run-x', '--config', 'none.json'], ['none.json', 'not a readable JSON configuration']),
])
def test_wrong_arguments(arguments, parts):
    refused(*arguments, parts=parts)


@pytest.mark.parametrize(('assignment', 'part'), [
    ('dim_hiden=5', "did you mean 'dim_hidden'"), ('dim_hidden=much', 'must be a whole number'),
    ('n_epochs=0', 'at least 1'), ('dropout', 'expected name=value'),
])
def test_wrong_options(assignment, part):
    refused(tiny.data_dir(), '--out', tiny.workplace() / 'run-x', '--set', assignment, parts=['--set', part])


def test_incomplete_and_foreign_directories(tmp_path):
    data = tmp_path / 'data'
    shutil.copytree(tiny.data_dir(), data)
    (data / 'manifest.json').unlink()
    refused(data, '--out', tmp_path / 'run', parts=['prepro.py has not finished here'])
    refused(tmp_path, '--out', tmp_path / 'run', parts=['not a data directory'])
    (tmp_path / 'other').mkdir()
    (tmp_path / 'other' / 'thesis.tex').write_text('years')
    before = tiny.snapshot(tmp_path)
    refused(tiny.data_dir(), '--out', tmp_path / 'other', parts=['not empty and not a run'])
    assert tiny.snapshot(tmp_path) == before


def test_a_run_does_not_go_on_with_other_options_or_data(tmp_path):
    run = tiny.run_dir()
    options = tiny.settings(*tiny.TINY_RUN)
    refused(tiny.data_dir(), '--out', run, *options, '--set', 'dim_hidden=13',
            parts=['started with dim_hidden=12, now it is 13'])
    refused('--resume', run, '--set', 'batch_size=3', parts=['started with batch_size=8, now it is 3'])
    other = tiny.data_dir('conv2_2', 2)
    refused(other, '--out', run, *options, parts=['not what the run', 'was trained on', 'weights_sha256'])


@pytest.mark.parametrize(('text', 'part'), [('{"model": ', 'cannot be read'), ('{}', 'lacks the entry data')])
def test_damaged_run(tmp_path, text, part):
    run = tmp_path / 'run'
    shutil.copytree(tiny.run_dir(), run)
    (run / 'config.json').write_text(text)
    before = tiny.snapshot(run)
    refused('--resume', run, parts=[run / 'config.json', part])
    assert tiny.snapshot(run) == before


def test_options_are_listed():
    done = tiny.script('train.py', '--options')
    assert done.returncode == 0 and done.stderr == ''
    for name in ('dim_hidden', 'learning_rate_schedule', 'max_len', 'mask_padding'):
        assert name in done.stdout


def test_finished_run_stays_as_it_is(tmp_path):
    run = tmp_path / 'run'
    shutil.copytree(tiny.run_dir(), run)
    before = tiny.snapshot(run / 'best', run / 'checkpoints')
    done = tiny.script('train.py', '--resume', run)
    assert done.returncode == 0 and 'training is complete: all epochs are done; step 5' in done.stdout, done.stderr
    assert tiny.snapshot(run / 'best', run / 'checkpoints') == before


def metrics(run):
    path = run / 'metrics.jsonl'
    found = []
    for line in path.read_text().splitlines() if path.exists() else ():
        entry = json.loads(line) if line.endswith('}') else {'step': 0}
        found.append({key: value for key, value in entry.items() if key not in ('time', 'captions_per_second')})
    return found


@pytest.mark.slow
def test_killed_training_goes_on_bit_for_bit(tmp_path):
    options = tiny.settings(*tiny.TINY_RUN, 'batch_size=2', 'n_epochs=4', 'validate_every=2', 'print_every=1')
    data = tiny.data_dir()
    done = tiny.script('train.py', data, '--out', tmp_path / 'whole', *options)
    assert done.returncode == 0, done.stderr
    command = [sys.executable, tiny.ROOT / 'train.py', data, '--out', tmp_path / 'cut', *options]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + 120
        while not any(entry['step'] > 23 for entry in metrics(tmp_path / 'cut')):
            assert process.poll() is None and time.monotonic() < deadline
            time.sleep(0.005)
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    kept = [int(path.stem[5:]) for path in (tmp_path / 'cut' / 'checkpoints').glob('step-*.json')]
    assert 20 <= max(kept) < 80
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0 and f'going on from step {max(kept)}' in done.stdout, done.stderr
    readers = [tf.train.load_checkpoint(str(tmp_path / run / 'checkpoints' / 'step-80')) for run in ('whole', 'cut')]
    names = readers[0].get_variable_to_shape_map()
    assert names == readers[1].get_variable_to_shape_map() and 'word_embedding/w/Adam_1' in names
    for name in names:
        np.testing.assert_array_equal(readers[1].get_tensor(name), readers[0].get_tensor(name), err_msg=name)
    assert metrics(tmp_path / 'cut') == metrics(tmp_path / 'whole')
    for place in ('checkpoints/step-80.json', 'best/best.json', 'config.json'):
        assert (tmp_path / 'cut' / place).read_bytes() == (tmp_path / 'whole' / place).read_bytes()
