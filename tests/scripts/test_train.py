"""train.py as a user runs it: refusals in one line, and a run that survives kill -9."""

import functools
import json
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from core.config import presets
from core.config.config import options
from core.runtime.backend import tf
from tests.support import scripts
from tests.support.files import snapshot
from tests.support.sample_dirs import TINY_RUN
from tests.support.scripts import ROOT
from tests.support.solvers import assert_same_run, entries, saved


@pytest.fixture
def refused(tmp_path):
    """Return a function that sees train.py refuse and change nothing.

    It is `refused(*arguments, parts=[...])`.
    """
    return functools.partial(scripts.assert_refuses, 'train.py', cwd=tmp_path)


@pytest.mark.parametrize(('arguments', 'parts'), [
    ([], ['train.py DATA --out RUN']), (['nowhere', '--out', 'run-x'],
                                        ['nowhere', 'no such data directory', 'prepro.py']),
    (['nowhere', '--out', 'run-x', '--resume', 'run-x'],
     ['--resume RUN takes data and options from the run']),
    (['--resume', 'nowhere'], ['nowhere', 'not a run']),
    (['nowhere', '--out', 'run-x', '--config', 'none.json'], ['none.json: cannot be read']),
    (['nowhere', '--out', 'run-x', '--preset', 'tf3'], ["no preset 'tf3'", 'tf2']),
    (['--resume', 'run-x', '--preset', 'tf2'], ['leave DATA, --out, --preset and --config out']),
    (['nowhere', '--out', 'run-x', '--word-vectors', 'a', '--pretrained-model', 'b'],
     ['exclude each other'])])
def test_wrong_arguments(refused, arguments, parts):
    refused(*arguments, parts=parts)


@pytest.mark.parametrize(('assignment', 'part'), [
    ('dim_hiden=5', "did you mean dim_hidden"), ('dim_hidden=much', 'must be a whole number'),
    ('n_epochs=0', 'at least 1'), ('dropout', 'expected name=value'),
])
def test_wrong_options(refused, sample_data, assignment, part):
    refused(sample_data, '--out', 'run-x', '--set', assignment, parts=['--set', part])


def test_incomplete_and_foreign_directories(refused, sample_data, data_copy, tmp_path):
    (data_copy / 'manifest.json').unlink()
    refused(data_copy, '--out', tmp_path / 'run', parts=['prepro.py has not finished here'])
    refused(tmp_path, '--out', tmp_path / 'run', parts=['not a data directory'])
    (tmp_path / 'other').mkdir()
    (tmp_path / 'other' / 'thesis.tex').write_text('years')
    refused(sample_data, '--out', tmp_path / 'other', parts=['not empty and not a run'])


def test_a_run_does_not_go_on_with_other_options_or_data(refused, sample_dirs, sample_data,
                                                         sample_run):
    options = scripts.settings(*TINY_RUN)
    refused(sample_data, '--out', sample_run, *options, '--set', 'dim_hidden=13',
            parts=['started with dim_hidden=12, now it is 13'])
    refused('--resume', sample_run, '--set', 'batch_size=3',
            parts=['started with batch_size=8, now it is 3'])
    refused(sample_dirs.data(seed=2), '--out', sample_run, *options,
            parts=['not what the run', 'was trained on', 'weights_sha256'])


@pytest.mark.parametrize(
    ('text', 'part'), [('{"model": ', 'is not JSON'), ('{}', 'lacks the entry data')])
def test_damaged_run(refused, run_copy, text, part):
    (run_copy / 'config.json').write_text(text)
    refused('--resume', run_copy, parts=[run_copy / 'config.json', part])


def listed(*arguments):
    """Return what --options prints: presets, rows of options, the line about hidden ones.

    A row is the words of a line: section, name, kind, value, ...; the last part is '' if none is
    hidden.
    """
    done = scripts.run('train.py', '--options', *arguments)
    assert done.returncode == 0 and done.stderr == '', done.stderr
    first, *lines = done.stdout.splitlines()
    hidden = lines.pop() if 'hidden' in lines[-1] else ''
    return first, [line.split() for line in lines], hidden


def shown(*arguments):
    """Return --options as a dict of name -> value."""
    return {name: value for _, name, _, value, *_ in listed(*arguments)[1]}


def test_options_are_listed():
    """Each with its section, kind, default and meaning; with --all, all of them."""
    def words(rows):
        return [f'{row.section} {row.name} {row.type_name} {row.default} {row.help}'.split()
                for row in rows]

    def starts(lines, expected):
        return [line[:len(row)] for line, row in zip(lines, expected, strict=True)]

    everything = words(options())
    line, lines, hidden = listed('--all')
    assert len(everything) > 80 and starts(lines, everything) == everything and hidden == ''
    assert line == 'presets: ' + ', '.join(presets.names())
    usual = words(row for row in options() if not row.compatibility)
    line, lines, hidden = listed()
    assert starts(lines, usual) == usual and line == 'presets: ' + ', '.join(presets.names())
    assert hidden.startswith(f'{len(everything) - len(usual)} more') and '--all' in hidden


def test_hidden_options_have_their_values_too():
    def values(*arguments):
        return {name: value for _, name, _, value, *_ in listed(*arguments)[1]}

    assert 'carry_state' not in values('--preset', 'tf2', '--set', 'carry_state=true')
    assert values('--all', '--preset', 'tf2')['carry_state'] == 'False'
    assert values('--all', '--preset', 'tf2', '--set', 'carry_state=true')['carry_state'] == 'True'


def test_all_belongs_to_options(refused):
    refused('data', '--out', 'run', '--all', parts=['--all belongs to --options'])


def test_options_are_those_of_preset_then_file_then_set(tmp_path):
    plain = shown()
    assert (plain['cell'], plain['dim_hidden'], plain['alpha_c']) == ('lstm', '1024', '1.0')
    preset = shown('--preset', 'tf2')
    assert (preset['cell'], preset['dim_hidden'], preset['dim_embed']) == ('gru', '512', '256')
    (tmp_path / 'mine.json').write_text('{"model": {"dim_hidden": 77, "alpha_c": 0.25}}')
    layers = shown('--preset', 'tf2', '--config', tmp_path / 'mine.json', '--set', 'alpha_c=0.5',
                   '--finetune-from', 'mixed9')
    assert layers == {**preset, 'dim_hidden': '77', 'alpha_c': '0.5', 'finetune_from': 'mixed9'}


@pytest.mark.parametrize(('text', 'part'), [
    ('[]', 'expected a JSON object'), ('{"model": 3}', "section 'model' must be a JSON object"),
    ('{"modle": {}}', "did you mean model"), ('{"model": {"dim_hiden": 3}}',
                                              "did you mean dim_hidden")])
def test_wrong_files_of_options(refused, tmp_path, text, part):
    (tmp_path / 'mine.json').write_text(text)
    refused('nowhere', '--out', tmp_path / 'run', '--preset', 'tf2', '--config',
            tmp_path / 'mine.json', parts=['mine.json', part])


@pytest.mark.parametrize(('arguments', 'part'), [
    (['--finetune-from', 'conv2_11'],
     "no layer 'conv2_11' before its map conv2_2; near it: conv2_1"),
    (['--finetune-from', 'conv3_1'], "no layer 'conv3_1' before its map conv2_2"),
    (['--finetune-from', 'conv2_1', '--weights', 'none.h5'], 'no weights file none.h5'),
    (['--weights', 'none.h5'], '--weights belongs to --finetune-from'),
    (['--word-vectors', 'none.txt'], 'none.txt'),
    (['--pretrained-model', 'none'], 'none: neither a run directory nor a TensorFlow checkpoint')])
def test_what_training_starts_from_is_checked_first(refused, sample_data, arguments, part):
    refused(sample_data, '--out', 'run-y', *arguments, parts=[part])


def test_missing_images_are_missed_before_anything_is_made(refused, data_copy, scenes, tmp_path):
    place = data_copy / 'annotations.json'
    place.write_text(place.read_text().replace(str(scenes), str(tmp_path / 'moved')))
    refused(data_copy, '--out', tmp_path / 'run', '--finetune-from', 'conv2_2',
            parts=['8 of 8 image files are gone', 'moved'])


@pytest.mark.slow
def test_from_a_run_to_its_fine_tuning_and_on(refused, sample_dirs, sample_data, sample_run,
                                              quick_meteor, tmp_path):
    """A run gives variables and options; --resume goes on, evaluate.py follows."""
    tuned, options = tmp_path / 'tuned', scripts.settings('batch_size=8', 'batch_by=image')
    command = [sample_data, '--out', tuned, '--pretrained-model', sample_run, '--finetune-from',
               'conv2_2', *options, '--set']
    done = scripts.run('train.py', *command, 'n_epochs=1')
    assert (done.returncode == 0
            and 'the encoder from conv2_2 on among them' in done.stdout), done.stderr
    config = json.loads((tuned / 'config.json').read_text())
    assert config['model']['dim_hidden'] == 12 and config['training']['finetune_from'] == 'conv2_2'
    done = scripts.run('train.py', '--resume', tuned, '--set', 'n_epochs=2')
    assert done.returncode == 0 and 'going on from step' in done.stdout, done.stderr
    done = scripts.run('train.py', *command, 'n_epochs=2')
    assert done.returncode == 0 and 'training is complete' in done.stdout, done.stderr
    assert len([entry for entry in entries(tuned) if entry['kind'] == 'validation']) == 2
    refused('--resume', tuned, '--finetune-from', 'conv2_1',
            parts=["started with finetune_from='conv2_2'"])
    other = sample_dirs.data('conv1_2')
    done = scripts.run('evaluate.py', tuned, '--data', other, '--pictures', '1')
    assert done.returncode == 0, done.stderr
    place = tuned / 'evaluation' / f'{other.name}-test'
    assert len(list((place / 'pictures').iterdir())) == 1
    assert 'CIDEr' in (place / 'scores.json').read_text()


def test_no_part_of_a_fine_tuned_encoder_is_left_behind(sample_dirs, sample_data, tmp_path):
    from core.common.errors import InputError
    from core.config.config import Config
    from core.data.data_dir import DataDir
    from core.runs import run_dir, training_start

    data, config = DataDir(sample_data), Config()
    run_dir.create(tmp_path / 'run', config.override(['finetune_from=conv2_1']), data).close()
    pretrained = run_dir.Run(tmp_path / 'run')
    for layer in ('conv2_1', 'conv1_2'):
        training_start.check_pretrained('run', pretrained,
                                        config.override([f'finetune_from={layer}']), data)
    for layer, part in (('', 'add --finetune-from conv2_1'),
                        ('conv2_2', 'fine-tuned from conv2_1 on')):
        with pytest.raises(InputError, match=part):
            training_start.check_pretrained('run', pretrained,
                                            config.override([f'finetune_from={layer}']), data)
    with pytest.raises(InputError, match='conv1_2'):
        training_start.check_pretrained('run', pretrained,
                                        config.override(['finetune_from=conv1_1']),
                                        DataDir(sample_dirs.data('conv1_2')))
    with pytest.raises(InputError, match='no trained model here yet'):
        training_start.pretrained_run(tmp_path / 'run', data, True)


def test_a_run_of_other_words_is_no_start(refused, sample_data, run_copy, tmp_path):
    place = run_copy / 'vocabulary.json'
    place.write_text(place.read_text().replace('"circle"', '"ellipse"'))
    refused(sample_data, '--out', tmp_path / 'new', '--pretrained-model', run_copy,
            parts=['another vocabulary'])


def test_word_vectors_are_counted_once_and_used_at_the_start(sample_data, tmp_path):
    (tmp_path / 'vectors.txt').write_text(f'circle{" 0.5" * 8}\nzebra{" 0.1" * 8}\n')
    command = [sample_data, '--out', tmp_path / 'run', '--word-vectors', tmp_path / 'vectors.txt',
               *scripts.settings(*TINY_RUN, 'train_embedding=false')]
    done = scripts.run('train.py', *command)
    assert done.returncode == 0 and 'vectors of 1 of the ' in done.stdout, done.stderr
    (tmp_path / 'vectors.txt').unlink()  # going on needs it no more
    done = scripts.run('train.py', *command)
    assert done.returncode == 0 and 'training is complete' in done.stdout, done.stderr
    words = json.loads((tmp_path / 'run' / 'vocabulary.json').read_text())['words']
    checkpoint = tf.train.load_checkpoint(
        str(next((tmp_path / 'run' / 'best').glob('*.index')).with_suffix('')))
    vector = checkpoint.get_tensor('word_embedding/w')[words.index('circle')]
    np.testing.assert_array_equal(vector, np.full(8, 0.5, np.float32))


def test_finished_run_stays_as_it_is(run_copy):
    before = snapshot(run_copy / 'best', run_copy / 'checkpoints')
    done = scripts.run('train.py', '--resume', run_copy)
    assert (done.returncode == 0
            and 'training is complete: all epochs are done; step 5' in done.stdout), done.stderr
    assert snapshot(run_copy / 'best', run_copy / 'checkpoints') == before


@pytest.mark.slow
def test_killed_training_goes_on_bit_for_bit(sample_data, tmp_path):
    """By kill -9, in processes, with graphs as users have them.

    How exactly is in tests/training/test_resume.py.
    """
    # 5 steps and a validation an epoch
    options = scripts.settings(*TINY_RUN, 'n_epochs=4', 'print_every=1')
    done = scripts.run('train.py', sample_data, '--out', tmp_path / 'whole', *options, fresh=True)
    assert done.returncode == 0, done.stderr
    command = [sample_data, '--out', tmp_path / 'cut', *options]
    process = subprocess.Popen([sys.executable, ROOT / 'train.py', *command],
                               stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + 300
        while not any(entry['step'] > 6 for entry in entries(tmp_path / 'cut')):
            assert process.poll() is None and time.monotonic() < deadline
            time.sleep(0.005)
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    kept = max(int(path.stem[5:])
               for path in (tmp_path / 'cut' / 'checkpoints').glob('step-*.json'))
    assert 5 <= kept < 20
    done = scripts.run('train.py', *command, fresh=True)
    assert done.returncode == 0 and f'going on from step {kept}' in done.stdout, done.stderr
    assert_same_run(tmp_path / 'whole', tmp_path / 'cut', 20)
    assert 'word_embedding/w/Adam_1' in saved(tmp_path / 'cut', 20)
    cut, whole = ((tmp_path / name / 'config.json').read_bytes() for name in ('cut', 'whole'))
    assert cut == whole
