"""What a source is, in every form; what is refused leaves nothing behind; the command line."""

import json
import shutil

import numpy as np
import pytest

from core.__main__ import main
from core.common.errors import InputError
from core.importers import tf1_tutorial as tf1_code
from core.importers.make_run import _unknown_weights, detect, make_run
from core.runs import run_dir
from core.runtime.backend import tf, tf1
from tests.support import scripts
from tests.support.files import snapshot
from tests.support.scripts import ROOT, assert_refused
from tests.support.tf1_checkpoint import BIAS, ENCODER, KERNEL, draw, write


def test_a_data_file_that_was_cut(tf1_checkpoint, tmp_path):
    prefix = write(tmp_path / 'm', draw())
    data = tmp_path / 'm.data-00000-of-00001'
    data.write_bytes(data.read_bytes()[:100])
    with pytest.raises(InputError, match='cannot be read, the checkpoint is damaged'):
        tf1_code.read(str(prefix), tf1_checkpoint / 'words.pkl')


def test_a_source_is_found_in_every_form(tf1_checkpoint, tmp_path):
    prefix = str(tf1_checkpoint / 'model-7')
    for source in (prefix, prefix + '.index', prefix + '.meta', prefix + '.data-00000-of-00001',
                   tf1_checkpoint):
        assert detect(source) == ('tf1', prefix)
    moved = tmp_path / 'moved'
    shutil.copytree(tf1_checkpoint, moved)
    (moved / 'checkpoint').write_text('model_checkpoint_path: "/gone/model-7"\n')
    assert detect(moved) == ('tf1', str(moved / 'model-7'))
    (moved / 'checkpoint').unlink()
    assert detect(moved) == ('tf1', str(moved / 'model-7'))
    shutil.copy(moved / 'model-7.index', moved / 'model-8.index')
    with pytest.raises(InputError, match='name one: model-7, model-8'):
        detect(moved)


def test_the_oldest_files_without_an_index(tf1_checkpoint, tmp_path):
    values = draw()
    values['RNN/LSTMCell/W_0'], values['RNN/LSTMCell/B'] = values.pop(KERNEL), values.pop(BIAS)
    write(tmp_path / 'there' / 'model-3', values, version=tf1.train.SaverDef.V1)
    directory = (tmp_path / 'there').rename(tmp_path / 'here')
    for source in (directory, directory / 'model-3', directory / 'model-3.meta'):
        assert detect(source) == ('tf1', str(directory / 'model-3'))
    model = tf1_code.read(str(directory / 'model-3'), tf1_checkpoint / 'words.pkl')
    np.testing.assert_array_equal(model.values[KERNEL], values['RNN/LSTMCell/W_0'])


def test_sources_of_other_kinds(sample_dirs, tf1_checkpoint, tmp_path):
    (tmp_path / 'model.npz').write_bytes(b'PK')
    assert detect(tmp_path / 'model.npz') == ('authors', str(tmp_path / 'model.npz'))
    tf.train.Checkpoint(step=tf.Variable(1.0)).write(str(tmp_path / 'keras'))
    assert detect(tmp_path / 'keras') == ('tf2', str(tmp_path / 'keras'))
    assert detect(tmp_path / 'keras', 'tf1') == ('tf1', str(tmp_path / 'keras'))
    write(tmp_path / 'other', {'dense/kernel': np.zeros(3, np.float32)}, slots=False)
    with pytest.raises(InputError, match='neither .* dense/kernel'):
        detect(tmp_path / 'other')
    for source, kind, part in ((tmp_path / 'none', None, 'none: not a TensorFlow checkpoint'),
                               (tmp_path / 'model.npz', 'tf1', 'kind authors, not tf1'),
                               (tmp_path / 'none.npz', 'authors', 'no such .npz file'),
                               (tmp_path, 'tf3', "unknown kind 'tf3'"),
                               (sample_dirs.folder, None, 'no checkpoint')):
        with pytest.raises(InputError, match=part):
            detect(source, kind)


def test_an_existing_run_and_one_of_ours_are_refused(tf1_checkpoint, tf1_run):
    before = snapshot(tf1_run.path)
    with pytest.raises(InputError, match='exists already'):
        make_run(tf1_checkpoint / 'model-7', tf1_checkpoint / 'words.pkl', tf1_run.path,
                 encoder=ENCODER)
    with pytest.raises(InputError, match='is a run of this program already'):
        make_run(tf1_run.path, tf1_checkpoint / 'words.pkl', tf1_checkpoint / 'new')
    assert snapshot(tf1_run.path) == before


def test_the_usual_layer_belongs_to_the_usual_encoder():
    inception = {'name': 'inception_v3', 'layer': 'mixed10', 'size': 299, 'resize': 'squash'}
    spec = _unknown_weights(inception, {'name': 'vgg19', 'layer': None})
    assert (spec.layer, spec.size, spec.resize, spec.dim) == ('conv5_4', 224, 'squash', 512)
    spec = _unknown_weights(
        dict(ENCODER), {'name': 'vgg19', 'layer': 'conv1_1', 'resize': 'squash'})
    assert (spec.layer, spec.size, spec.resize, spec.dim) == ('conv1_1', 32, 'squash', 64)


@pytest.mark.parametrize(('more', 'part'), [
    ({}, '128 numbers a location, vgg19 conv5_4 has 512; name theirs with --encoder and --layer, '
     'or --data'), ({'encoder': {'name': None, 'layer': 'conv1_2', 'size': 32}},
                    'vgg19 conv1_2 has 64'), ({'encoder': {'name': 'vgg18'}}, 'did you mean vgg19'),
    ({'encoder': ENCODER, 'assignments': ['dim_hidden=12']},
     r'initial_lstm/b_h \[11\] instead of \[12\]'),
    ({'encoder': ENCODER, 'assignments': ['prevout=false']}, 'did you mean'),
    ({'encoder': ENCODER, 'assignments': ['finetune_from=conv2_1']}, 'none of training'),
    ({'encoder': ENCODER, 'assignments': ['cell=gru']},
     r'missing: .*gru/kernel.*surplus: .*lstm/basic_lstm_cell'),
    ({'encoder': ENCODER, 'max_length': 0}, '--max-length must be at least 1'),
    ({'encoder': ENCODER, 'max_length': 1001}, '--max-length must be at most 1000, not 1001'),
    ({'encoder': ENCODER, 'options': 'o.pkl'}, 'leave --options out'),
    ({'vocab': None}, 'name its vocabulary with --vocab'), ({'data': 'nowhere'}, 'nowhere')])
def test_what_does_not_fit_leaves_nothing_behind(tf1_checkpoint, tmp_path, more, part):
    with pytest.raises(InputError, match=part):
        make_run(tf1_checkpoint / 'model-7', **{
            'vocab': tf1_checkpoint / 'words.pkl', 'out': tmp_path / 'run', **more})
    assert list(tmp_path.iterdir()) == []


def test_a_disk_that_fails_half_way_leaves_nothing_behind(tf1_checkpoint, tmp_path, monkeypatch):
    def fail(*unused):
        raise OSError(28, 'No space left on device')

    monkeypatch.setattr('core.importers.make_run.BestModel.save', fail)
    with pytest.raises(OSError, match='No space'):
        make_run(tf1_checkpoint / 'model-7', tf1_checkpoint / 'words.pkl', tmp_path / 'run',
                 encoder=ENCODER)
    assert list(tmp_path.iterdir()) == []


def command(*arguments, fresh=False):
    """Run python -m core, as scripts.run runs scripts."""
    return scripts.run('core', *arguments, cwd=ROOT, fresh=fresh)


def test_the_command_takes_what_the_variables_do_not_tell(tf1_checkpoint, tmp_path, capsys):
    main(['import', str(tf1_checkpoint), '--vocab', str(tf1_checkpoint / 'words.pkl'), '--out',
          str(tmp_path / 'run'), '--kind', 'tf1', '--layer', 'conv2_1', '--image-size', '48',
          '--resize', 'crop', '--max-length', '9', '--set', 'prev2out=false', '--set', 'max_len=7'])
    run = run_dir.Run(tmp_path / 'run')
    assert (run.spec.layer, run.spec.size, run.spec.resize, run.max_length) == (
        'conv2_1', 48, 'crop', 9)
    assert (run.config.model.prev2out, run.config.decoding.max_len) == (False, 7)
    printed = capsys.readouterr().out
    assert '6 words, dim_embed=6, dim_hidden=11' in printed
    assert f'evaluate.py {tmp_path / "run"} --data' in printed
    main(['export-tf1', str(tmp_path / 'run'), str(tmp_path / 'old')])
    assert 'prev2out=False' in capsys.readouterr().out and (tmp_path / 'old.index').exists()


@pytest.mark.slow
def test_from_a_foreign_checkpoint_to_scores_and_back(sample_data, tf1_checkpoint, tmp_path,
                                                      quick_meteor):
    data = sample_data
    done = command('import', tf1_checkpoint / 'model-7', '--vocab', tf1_checkpoint / 'words.pkl',
                   '--out', tmp_path / 'run', '--data', data, fresh=True)
    assert done.returncode == 0 and done.stderr == '', done.stderr
    assert f'evaluate.py {tmp_path / "run"} --data {data}' in done.stdout
    evaluated = scripts.run('evaluate.py', tmp_path / 'run', '--data', data, '--pictures', '0',
                            '--out', tmp_path / 'scores')
    assert evaluated.returncode == 0, evaluated.stderr
    assert len(json.loads((tmp_path / 'scores' / 'captions.json').read_text())) > 0
    done = command('export-tf1', tmp_path / 'run', tmp_path / 'old')
    assert done.returncode == 0 and done.stderr == '', done.stderr
    assert 'dim_embed=6' in done.stdout and (tmp_path / 'old.index').exists()
    before = snapshot(tmp_path)
    assert_refused(command('export-tf1', tmp_path / 'run', tmp_path / 'old'), 'exists already')
    assert snapshot(tmp_path) == before
