"""train.py --seeds: the runs of a recipe over seeds, bit for bit those of train.py --set seed=N."""

import functools
import json
import os
import shutil
import signal
import subprocess
import sys
import time

import pytest

from tests.support import scripts
from tests.support.files import edited_json, snapshot
from tests.support.sample_dirs import TINY_RUN
from tests.support.scripts import ROOT
from tests.support.solvers import assert_same_run, entries, saved


@pytest.fixture
def refused(tmp_path):
    """Return a function that sees train.py refuse and change nothing."""
    return functools.partial(scripts.assert_refuses, 'train.py', cwd=tmp_path)


@pytest.fixture(scope='module')
def pair(sample_data, tmp_path_factory):
    """Return a directory of the runs seed2 and seed1, made by one command."""
    out = tmp_path_factory.mktemp('pair') / 'runs'
    done = scripts.run('train.py', sample_data, '--out', out, *scripts.settings(*TINY_RUN),
                       '--seeds', '2,1')
    assert done.returncode == 0, done.stderr
    assert f'seed 2, 1 of 2: {out}/seed2' in done.stdout
    assert f'seed 1, 2 of 2: {out}/seed1' in done.stdout and '--compare-scores' in done.stdout
    return out


@pytest.mark.parametrize(('seeds', 'parts'), [
    ('', ["'' is no seed", '--seeds 1,2,3']), ('1,,2', ["'' is no seed"]),
    ('1,-2', ["'-2' is no seed"]), ('1,x', ["'x' is no seed"]), ('1.5', ["'1.5' is no seed"]),
    ('2147483648', ['0 to 2147483647']), ('3,1,03', ['3 is there twice'])])
def test_what_is_no_list_of_seeds(refused, seeds, parts):
    refused('nowhere', '--out', 'runs', f'--seeds={seeds}', parts=parts)


@pytest.mark.parametrize(('arguments', 'part'), [
    (['nowhere', '--out', 'runs', '--set', 'seed=3'], 'leave --seed and --set seed=... out'),
    (['nowhere', '--out', 'runs', '--seed', '3'], 'leave --seed and --set seed=... out'),
    (['--resume', 'run'], 'goes on with one run, without --seeds'),
    (['--compare', 'run'], 'stands alone, without --seeds'),
    (['nowhere'], 'train.py DATA --out RUN')])
def test_arguments_that_seeds_exclude(refused, arguments, part):
    refused(*arguments, '--seeds', '1,2', parts=[part])


def test_mistakes_are_told_once_and_leave_nothing(refused, sample_data, run_copy):
    refused('nowhere', '--out', 'runs', '--seeds', '1,2', '-q', parts=['no such data directory'])
    refused(sample_data, '--out', 'runs', '--seeds', '1,2', '-q', '--set', 'dim_hiden=5',
            parts=['did you mean dim_hidden'])
    refused(sample_data, '--out', run_copy, '--seeds', '1,2', parts=['is itself a run'])


def test_each_is_the_run_of_its_seed(pair, sample_data, sample_run, tmp_path):
    """The second of two seeds has the numbers of a training alone."""
    assert sorted(path.name for path in pair.iterdir()) == ['seed1', 'seed2']
    assert_same_run(sample_run, pair / 'seed1', 5)  # seed 1 is the default
    assert ((sample_run / 'config.json').read_bytes()
            == (pair / 'seed1' / 'config.json').read_bytes())
    done = scripts.run('train.py', sample_data, '--out', tmp_path / 'alone',
                       *scripts.settings(*TINY_RUN, 'seed=2'))
    assert done.returncode == 0, done.stderr
    assert_same_run(tmp_path / 'alone', pair / 'seed2', 5)
    first, second = (saved(pair / name, 5)['word_embedding/w'] for name in ('seed1', 'seed2'))
    assert (first != second).any()


def test_finished_runs_stay_and_a_new_seed_is_added(pair, sample_data, tmp_path):
    runs = tmp_path / 'runs'
    shutil.copytree(pair, runs)
    before = snapshot(*(runs / name / 'checkpoints' for name in ('seed1', 'seed2')))
    done = scripts.run('train.py', sample_data, '--out', runs, *scripts.settings(*TINY_RUN),
                       '--seeds', '1,2,0')
    assert done.returncode == 0, done.stderr
    assert done.stdout.count('training is complete: all epochs are done') == 3
    assert done.stdout.index('seed 2, 2 of 3') < done.stdout.index('seed 0, 3 of 3')
    assert snapshot(*(runs / name / 'checkpoints' for name in ('seed1', 'seed2'))) == before
    assert json.loads((runs / 'seed0' / 'config.json').read_text())['training']['seed'] == 0


def test_a_run_of_other_options_is_found_before_any_training(refused, pair, sample_data):
    refused(sample_data, '--out', pair, *scripts.settings(*TINY_RUN, 'dim_hidden=13'), '--seeds',
            '3,2', parts=['seed2', 'started with dim_hidden=12, now it is 13'])


def test_a_training_that_fails_ends_the_command(pair, sample_data, tmp_path):
    runs = tmp_path / 'runs'
    shutil.copytree(pair, runs)
    (runs / 'seed2' / 'vocabulary.json').write_text('[')
    done = scripts.run('train.py', sample_data, '--out', runs, *scripts.settings(*TINY_RUN),
                       '--seeds', '2,5', '-q')
    assert done.returncode == 2 and 'vocabulary.json' in done.stderr
    assert len(done.stderr.splitlines()) == 1 and not (runs / 'seed5').exists()


def test_each_starts_from_the_run_of_its_seed(refused, pair, sample_data, sample_run, tmp_path):
    options = scripts.settings('batch_size=8', 'n_epochs=1')
    done = scripts.run('train.py', sample_data, '--out', tmp_path / 'on', '--pretrained-model',
                       pair, *options, '--seeds', '2')
    assert done.returncode == 0, done.stderr
    done = scripts.run('train.py', sample_data, '--out', tmp_path / 'alone', '--pretrained-model',
                       pair / 'seed2', *options, '--set', 'seed=2')
    assert done.returncode == 0, done.stderr
    assert_same_run(tmp_path / 'alone', tmp_path / 'on' / 'seed2', 5)
    refused(sample_data, '--out', tmp_path / 'off', '--pretrained-model', pair, '--seeds', '2,4',
            parts=['holds seed1, seed2, but no seed4'])
    # one run is the start of all
    done = scripts.run('train.py', sample_data, '--out', tmp_path / 'one', '--pretrained-model',
                       sample_run, *options, '--seeds', '7')
    assert done.returncode == 0, done.stderr
    config = json.loads((tmp_path / 'one' / 'seed7' / 'config.json').read_text())
    assert config['model']['dim_hidden'] == 12


def test_a_started_run_of_other_data_is_no_surprise(pair, sample_data, tmp_path):
    """What only the training itself can see ends the command with its status."""
    runs = tmp_path / 'runs'
    shutil.copytree(pair, runs)
    with edited_json(runs / 'seed1' / 'config.json') as config:
        config['data']['records_sha256'] = '0'
    done = scripts.run('train.py', sample_data, '--out', runs, *scripts.settings(*TINY_RUN),
                       '--seeds', '1,2')
    assert done.returncode == 2 and 'other images or captions' in done.stderr


WRITING = """
import sys, time
from core.commands.train_seeds import _Training

training = _Training()
if training.process:
    print(training.wait(), training.interrupted)
    sys.exit()
with open(sys.argv[1], 'w') as file:
    while True:
        print(file=file, flush=True)
        time.sleep(0.01)
"""


@pytest.fixture
def writing(tmp_path):
    """Start a command whose training writes lines to a file; yield it and a function `grows`.

    That says whether the training goes on.
    """
    place = tmp_path / 'lines'
    process = subprocess.Popen([sys.executable, '-c', WRITING, place], cwd=ROOT, text=True,
                               stdout=subprocess.PIPE, stderr=subprocess.PIPE)

    def grows(expected):
        """Wait until the file grows, or until it does not for a second."""
        deadline, before = time.monotonic() + 60, 0
        while time.monotonic() < deadline:
            now = place.stat().st_size if place.exists() else 0
            if (now != before) == expected and now:
                return True
            before = now
            time.sleep(1)
        return False

    assert grows(True)
    yield process, grows
    process.kill()
    process.communicate()


@pytest.mark.parametrize(('number', 'status'), [(signal.SIGINT, -2), (signal.SIGTERM, -15)])
def test_signals_are_passed_on(writing, number, status):
    process, grows = writing
    process.send_signal(number)
    out, errors = process.communicate(timeout=60)
    assert out == f'{status} True\n' and process.returncode == 0
    assert ('KeyboardInterrupt' in errors) == (number == signal.SIGINT)  # of the training
    assert grows(False)


def test_a_halted_command_halts_its_training(writing):
    process, grows = writing
    process.send_signal(signal.SIGTSTP)
    assert os.WIFSTOPPED(os.waitpid(process.pid, os.WUNTRACED)[1]) and grows(False)
    process.send_signal(signal.SIGCONT)
    assert grows(True)


def test_no_training_outlives_a_command_that_is_killed(writing):
    process, grows = writing
    process.kill()
    assert process.wait() == -signal.SIGKILL and grows(False)


@pytest.mark.slow
def test_interrupted_and_killed_commands_go_on_bit_for_bit(sample_data, tmp_path):
    """In processes, with graphs as users have them: kill -9 in seed 1, Ctrl-C in seed 2."""
    options = scripts.settings(*TINY_RUN, 'n_epochs=6', 'print_every=1')
    done = scripts.run('train.py', sample_data, '--out', tmp_path / 'alone', *options, '--set',
                       'seed=2', fresh=True)
    assert done.returncode == 0, done.stderr
    runs = tmp_path / 'runs'
    command = [sys.executable, ROOT / 'train.py', sample_data, '--out', runs, *options, '--seeds',
               '1,2']

    def stopped_in(run, number):
        """Run until a training is at its step 7, then send a signal; return status and stderr."""
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
                                   text=True)
        try:
            deadline = time.monotonic() + 300
            while not any(entry['step'] > 6 for entry in entries(run)):
                assert process.poll() is None and time.monotonic() < deadline
                time.sleep(0.005)
            process.send_signal(number)
            # to its end: the training holds it too, and saves and ends by itself
            return process.wait(), process.stderr.read()
        finally:
            process.kill()

    status, errors = stopped_in(runs / 'seed1', signal.SIGKILL)
    assert status == -signal.SIGKILL and 'Traceback' not in errors, errors
    steps = [int(path.stem[5:]) for path in (runs / 'seed1' / 'checkpoints').glob('step-*.json')]
    assert 7 <= max(steps) < 30  # saved at once, not at the end of an epoch only
    status, errors = stopped_in(runs / 'seed2', signal.SIGINT)
    assert status == 130 and errors.splitlines()[-1] == 'interrupted', errors
    assert errors.count('interrupted') == 1 and 'Traceback' not in errors
    done = scripts.run('train.py', *command[2:], fresh=True)
    assert done.returncode == 0 and 'going on from step' in done.stdout, done.stderr
    assert_same_run(tmp_path / 'alone', runs / 'seed2', 30)
