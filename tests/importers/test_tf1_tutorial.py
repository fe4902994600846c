"""Checkpoints of the TF1 code: they decode here as they did there, go back, and what does not fit is named."""

import dataclasses
import json
import pickle
import shutil

import numpy as np
import pytest

from core.__main__ import main
from core.common.errors import InputError
from core.config.config import Config
from core.config.model import ModelConfig
from core.importers import imported
from core.importers import tf1_tutorial as tf1_code
from core.importers.make_run import make_run
from core.reference.equations import teacher_forcing
from core.runs import run_dir
from core.runtime.backend import tf, tf1
from tests.support import scripts
from tests.support.files import snapshot
from tests.support.scripts import ROOT, assert_refused

# Features as in sample_data: vgg19 conv2_2 of 32x32 pixels. The tutorial's vocabulary has no <UNK>.
D, H, M, L = 128, 11, 6, 256
WORD_TO_IDX = {'<NULL>': 0, '<START>': 1, '<END>': 2, 'red': 3, 'a': 4, 'dog': 5, 'runs': 6, 'over': 7, 'grass': 8}
V = len(WORD_TO_IDX)
ENCODER = {'name': 'vgg19', 'layer': 'conv2_2', 'size': 32, 'resize': 'crop'}
# Written out, so that a change of our names or shapes is seen here.
NAMES = {
    'conv_featuresbatch_norm/beta': (D,), 'conv_featuresbatch_norm/gamma': (D,),
    'conv_featuresbatch_norm/moving_mean': (D,), 'conv_featuresbatch_norm/moving_variance': (D,),
    'initial_lstm/w_h': (D, H), 'initial_lstm/b_h': (H,), 'initial_lstm/w_c': (D, H), 'initial_lstm/b_c': (H,),
    'word_embedding/w': (V, M), 'project_features/w': (D, D), 'attention_layer/w': (H, D),
    'attention_layer/b': (D,), 'attention_layer/w_att': (D, 1), 'selector/w': (H, 1), 'selector/b': (1,),
    'lstm/basic_lstm_cell/kernel': (M + D + H, 4 * H), 'lstm/basic_lstm_cell/bias': (4 * H,),
    'logits/w_h': (H, M), 'logits/b_h': (M,), 'logits/w_out': (M, V), 'logits/b_out': (V,),
    'logits/w_ctx2out': (D, M),
}
KERNEL, BIAS = 'lstm/basic_lstm_cell/kernel', 'lstm/basic_lstm_cell/bias'


def draw(seed=46):
    """Values of a TF1 model, float32, with which captions of several words and lengths are written."""
    random = np.random.default_rng(seed)
    values = {name: random.normal(0, 0.3, shape).astype(np.float32) for name, shape in NAMES.items()}
    values['conv_featuresbatch_norm/moving_variance'] = random.uniform(0.5, 2, D).astype(np.float32)
    values['word_embedding/w'] *= 5
    values['logits/w_out'] *= 5
    values['logits/w_h'] *= 4
    values['logits/w_ctx2out'] *= 0.5
    values[KERNEL] *= 2
    values['logits/b_out'][:3] = [-20, -20, 0]  # never <NULL> or <START>, as a trained model; <END> now and then
    return values


def features(n=6):
    return np.random.default_rng(1).normal(0, 1, (n, L, D)).astype(np.float32)


def write(path, values, slots=True, version=tf1.train.SaverDef.V2):
    """A TF1 checkpoint: ref variables, and with `slots` what Adam and a step counter add."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tf.Graph().as_default():
        variables = [tf1.get_variable(name, initializer=value, use_resource=False) for name, value in values.items()]
        if slots:
            step = tf1.train.get_or_create_global_step()
            some = [v for v in variables if v.dtype.base_dtype == tf.float32][:3]
            loss = tf.add_n([tf.reduce_sum(tf.square(v)) for v in some])
            tf1.train.AdamOptimizer(0.0).minimize(loss, global_step=step, var_list=some)
        with tf1.Session() as session:
            session.run(tf1.global_variables_initializer())
            return tf1.train.Saver(write_version=version).save(session, str(path))


def write_words(path, word_to_idx=None):
    path.write_bytes(pickle.dumps(word_to_idx or WORD_TO_IDX, 0))
    return path


def decode(values, a, max_len=8):
    """The TF1 code's greedy decoder in float64: words, alphas, betas. The equations: tests/support/tiny_model.py."""
    captions = np.full((len(a), max_len + 1), WORD_TO_IDX['<START>'])
    for t in range(max_len):
        found = teacher_forcing(values, a, captions[:, :t + 2], training=False)
        captions[:, t + 1] = found.log_probs[:, t].argmax(axis=1)
    return captions[:, 1:], found.alphas, found.betas


@pytest.fixture(scope='module')
def place(tmp_path_factory):
    """A directory with the checkpoint `model-7` and its vocabulary `words.pkl`."""
    made = tmp_path_factory.mktemp('tf1')
    write(made / 'model-7', draw())
    write_words(made / 'words.pkl')
    return made


@pytest.fixture(scope='module')
def run(place):
    """The same, imported. Do not change it."""
    make_run(place / 'model-7', place / 'words.pkl', place / 'run', encoder=ENCODER, max_length=5,
                       say=lambda line: None)
    return run_dir.Run(place / 'run')


def variables_of(prefix):
    reader = tf.train.load_checkpoint(str(prefix))
    return {name: reader.get_tensor(name) for name in reader.get_variable_to_shape_map()}


# ---- in

def test_an_imported_model_decodes_like_the_old_code(run):
    a, values = features(), draw()
    captions = np.array([[1, 4, 3, 5, 2, 0, 0], [1, 8, 8, 7, 6, 4, 2], [1, 2, 0, 0, 0, 0, 0]])
    with tf.Graph().as_default() as graph:
        model = run.build_model()
        sampled = model.build_sampler(max_len=8)
        model.build_model(training=False)
        with tf1.Session(graph=graph) as session:
            run.restore(session, model)
            ours = session.run(sampled, {model.features: a})
            # <UNK> is 3 here, so that every ordinary word has the next number.
            nll = session.run(model.nll, {model.features: a[:3], model.captions: captions + (captions > 2)})
    words, alphas, betas = decode(values, a)
    there = {index: word for word, index in WORD_TO_IDX.items()}
    lengths = []
    for n in range(len(a)):
        end = [*np.flatnonzero(words[n] == 2), 8][0]
        lengths.append(end)
        assert ([there[i] for i in words[n][:end]] == [run.vocabulary.idx_to_word[i] for i in ours.captions[n][:end]])
        assert (ours.captions[n][end:] == 2).all()
        np.testing.assert_allclose(ours.alphas[n][:end], alphas[n][:end], atol=1e-5)
        np.testing.assert_allclose(ours.betas[n][:end], betas[n][:end], atol=1e-5)
    # ... which says something only if captions of several words and lengths were written, with attention that moves
    assert len(set(words.ravel().tolist())) > 4 and len(set(lengths)) > 1 and max(lengths) > 4
    assert np.abs(np.diff(alphas, axis=1)).max() > 0.01
    # and the probability of every word is that of the old code, which knows no <UNK>
    assert nll == pytest.approx(teacher_forcing(values, a[:3], captions, training=False).nll, rel=1e-5)


def test_what_travels_in_the_run(place, run):
    assert run.max_length == 5 and run.imported
    assert run.vocabulary.idx_to_word[3:] == ['<UNK>', 'red', 'a', 'dog', 'runs', 'over', 'grass']
    assert run.config == Config().override([f'dim_embed={M}', f'dim_hidden={H}'])
    assert (run.spec.encoder, run.spec.layer, run.spec.size, run.spec.resize) == tuple(ENCODER.values())
    assert run.spec.weights == run.spec.weights_sha256 == 'unknown'
    entry = json.loads((run.path / 'config.json').read_text())['data']
    assert entry['path'] is None and entry['records_sha256'] is None and entry['dataset'] == 'imported'
    assert run.best().info()['step'] == 0
    assert sorted(path.name for path in run.path.iterdir()) == ['best', 'config.json', 'vocabulary.json']
    assert [path.name for path in place.iterdir() if path.name.startswith('.')] == []
    assert (run.path.stat().st_mode & 0o777) == 0o777 & ~_umask()


def _umask():
    import os

    mask = os.umask(0)
    os.umask(mask)
    return mask


def test_defaults_are_those_of_the_tutorial(place):
    found = tf1_code.read(str(place / 'model-7'), place / 'words.pkl')
    assert found.max_length == 15
    assert found.encoder == {'name': 'vgg19', 'layer': 'conv5_4', 'size': 224, 'resize': 'squash'}
    assert found.options == {'dim_embed': M, 'dim_hidden': H, 'selector': True, 'ctx2out': True, 'batch_norm': True}
    assert any('prev2out' in note for note in found.notes) and any('<UNK>' in note for note in found.notes)
    assert all(value.dtype == np.float32 for value in found.values.values())


@pytest.mark.parametrize(('kernel', 'bias'), [
    ('lstm/basic_lstm_cell/weights', 'lstm/basic_lstm_cell/biases'),
    ('lstm/BasicLSTMCell/Linear/Matrix', 'lstm/BasicLSTMCell/Linear/Bias'),
    ('lstm/lstm_cell/kernel', 'lstm/lstm_cell/bias'),
    ('lstm/lstm_cell/weights', 'lstm/lstm_cell/biases'),
    ('lstm/LSTMCell/W_0', 'lstm/LSTMCell/B'),
    ('rnn/basic_lstm_cell/kernel', 'rnn/basic_lstm_cell/bias'),
    ('rnn/lstm_cell/weights', 'rnn/lstm_cell/biases'),
    ('RNN/BasicLSTMCell/Linear/Matrix', 'RNN/BasicLSTMCell/Linear/Bias'),
    ('RNN/LSTMCell/W_0', 'RNN/LSTMCell/B'),
    ('lstm/rnn/multi_rnn_cell/cell_0/basic_lstm_cell/kernel', 'lstm/rnn/multi_rnn_cell/cell_0/basic_lstm_cell/bias'),
    ('lstm/weights', 'lstm/biases'),
])
def test_every_older_name_of_the_cell(place, tmp_path, kernel, bias):
    values = draw()
    values[kernel], values[bias] = values.pop(KERNEL), values.pop(BIAS)
    found = tf1_code.read(write(tmp_path / 'm', values), place / 'words.pkl')
    np.testing.assert_array_equal(found.values[KERNEL], values[kernel])
    np.testing.assert_array_equal(found.values[BIAS], values[bias])
    assert set(found.values) == set(NAMES) and any(kernel in note for note in found.notes)


@pytest.mark.parametrize('scope', ['conv_featuresbatch_norm/batch_norm', 'conv_featuresbatch_norm/BatchNorm',
                                   'batch_normalization', 'conv_features_batch_norm'])
def test_other_names_of_the_batch_normalisation(place, tmp_path, scope):
    values = {name.replace('conv_featuresbatch_norm', scope): value for name, value in draw().items()}
    found = tf1_code.read(write(tmp_path / 'm', values), place / 'words.pkl')
    assert set(found.values) == set(NAMES)
    np.testing.assert_array_equal(found.values['conv_featuresbatch_norm/gamma'], values[f'{scope}/gamma'])


@pytest.mark.parametrize(('option', 'prefix'), [('selector', 'selector/'), ('ctx2out', 'logits/w_ctx2out'),
                                                ('batch_norm', 'conv_featuresbatch_norm/')])
def test_parts_that_are_not_there_are_options(place, tmp_path, option, prefix):
    values = {name: value for name, value in draw().items() if not name.startswith(prefix)}
    found = tf1_code.read(write(tmp_path / 'm', values), place / 'words.pkl')
    assert found.options[option] is False and set(found.values) == set(values)
    if option == 'selector':  # once through to the run: the model has just these variables
        make_run(tmp_path / 'm', place / 'words.pkl', tmp_path / 'run', encoder=ENCODER,
                           assignments=['prev2out=false'], say=lambda line: None)
        config = run_dir.Run(tmp_path / 'run').config.model
        assert (config.selector, config.prev2out, config.ctx2out) == (False, False, True)


def test_all_that_does_not_fit_is_named_at_once(place, tmp_path):
    values = draw()
    del values['logits/w_h'], values['selector/b']
    values |= {'decoder/more': np.zeros((2, 3), np.float32), 'lstm/lstm_cell/w_f_diag': np.zeros(H, np.float32),
               'word_embedding/w': np.zeros((V, M + 1), np.float32), 'attention_layer/b': np.zeros((D, 1), np.float32)}
    with pytest.raises(InputError) as caught:
        make_run(write(tmp_path / 'm', values), place / 'words.pkl', tmp_path / 'run', encoder=ENCODER)
    message = str(caught.value)
    assert message.startswith(f'{tmp_path / "m"}: ')
    assert f'missing: selector/b [1], logits/w_h [{H}, {M}];' in message
    assert f'surplus: decoder/more [2, 3], lstm/lstm_cell/w_f_diag [{H}];' in message
    assert message.endswith(f'wrongly shaped: word_embedding/w [{V}, {M + 1}] instead of [{V}, {M}], '
                            f'attention_layer/b [{D}, 1] instead of [{D}]')
    assert not (tmp_path / 'run').exists()


def test_what_optimizers_leave_is_no_surplus(place, tmp_path):
    more = {name: np.zeros(2, np.float32) for name in (
        'beta1_power', 'beta2_power_1', 'optimizer/beta1_power', 'optimizer/logits/w_h/Adam', 'logits/w_h/Adam_1',
        'logits/w_h/RMSProp_1', 'logits/w_h/Momentum', 'global_step', 'conv_featuresbatch_norm/moving_mean/biased',
        'conv_featuresbatch_norm/moving_mean/local_step')}
    found = tf1_code.read(write(tmp_path / 'm', draw() | more, slots=False), place / 'words.pkl')
    assert set(found.values) == set(NAMES)


def test_two_cells_are_not_guessed_between(place, tmp_path):
    values = draw() | {'rnn/lstm_cell/kernel': draw()[KERNEL]}
    with pytest.raises(InputError, match='lstm/basic_lstm_cell/kernel and rnn/lstm_cell/kernel would be'):
        tf1_code.read(write(tmp_path / 'm', values), place / 'words.pkl')


def test_numbers_that_are_none(place, tmp_path):
    values = draw()
    values['logits/b_h'][2] = np.nan
    with pytest.raises(InputError, match='logits/b_h is not made of finite numbers'):
        tf1_code.read(write(tmp_path / 'm', values), place / 'words.pkl')


def test_words_keep_their_vectors_whatever_their_numbers(place, tmp_path):
    there = {'dog': 0, '<UNK>': 1, '<START>': 2, 'a': 3, '<NULL>': 4, '<END>': 5, 'red': 6, 'runs': 7, 'over': 8}
    vocab = tmp_path / 'words.json'
    vocab.write_text(json.dumps(there))
    found, values = tf1_code.read(str(place / 'model-7'), vocab), draw()
    assert found.words == ['dog', 'a', 'red', 'runs', 'over'] and len(found.values['logits/b_out']) == V
    for ours, word in enumerate(['<NULL>', '<START>', '<END>', '<UNK>', *found.words]):
        np.testing.assert_array_equal(found.values['word_embedding/w'][ours], values['word_embedding/w'][there[word]])
        np.testing.assert_array_equal(found.values['logits/w_out'][:, ours], values['logits/w_out'][:, there[word]])
        assert found.values['logits/b_out'][ours] == values['logits/b_out'][there[word]]


def test_a_word_that_was_not_there_is_never_written(place):
    found = tf1_code.read(str(place / 'model-7'), place / 'words.pkl')
    assert found.values['word_embedding/w'].shape == (V + 1, M) and found.values['logits/w_out'].shape == (M, V + 1)
    assert not found.values['word_embedding/w'][3].any() and not found.values['logits/w_out'][:, 3].any()
    assert found.values['logits/b_out'][3] == -30.0


def test_a_word_that_was_not_there_changes_no_other_and_can_be_trained():
    values = {name: value.astype(np.float32) for name, value in draw().items()}
    hidden = np.random.default_rng(2).normal(0.0, 1.0, (50, M)).astype(np.float32)
    before = hidden @ values['logits/w_out'] + values['logits/b_out']
    imported.renumber(values, [0, 1, 2, None, *range(3, V)])
    after = hidden @ values['logits/w_out'] + values['logits/b_out']

    def log_probs(logits):
        shifted = logits - logits.max(axis=1, keepdims=True)
        return shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))

    np.testing.assert_allclose(np.delete(log_probs(after), 3, axis=1), log_probs(before), atol=1e-6)
    lost = -log_probs(after)[:, 3]
    assert lost.min() > 25 and lost.max() < 50  # as a target: never likely, and no loss of millions


def test_a_data_file_that_was_cut(place, tmp_path):
    prefix = write(tmp_path / 'm', draw())
    data = tmp_path / 'm.data-00000-of-00001'
    data.write_bytes(data.read_bytes()[:100])
    with pytest.raises(InputError, match='cannot be read, the checkpoint is damaged'):
        tf1_code.read(str(prefix), place / 'words.pkl')


@pytest.mark.parametrize(('words', 'part'), [
    ({word: index for word, index in WORD_TO_IDX.items() if index < V - 1}, f'{V - 1} words, but the model'),
    ({('<EOS>' if word == '<END>' else word): index for word, index in WORD_TO_IDX.items()}, 'lacks the word <END>'),
    ({('' if word == 'dog' else word): index for word, index in WORD_TO_IDX.items()}, 'non-empty'),
    ({**WORD_TO_IDX, 'dog': 6}, 'the same index 6'),
])
def test_vocabularies_that_do_not_belong(place, tmp_path, words, part):
    with pytest.raises(InputError, match=part):
        tf1_code.read(str(place / 'model-7'), write_words(tmp_path / 'w.pkl', words))


# ---- what a source is, and the run

def test_a_source_is_found_in_every_form(place, tmp_path):
    prefix = str(place / 'model-7')
    for source in (prefix, prefix + '.index', prefix + '.meta', prefix + '.data-00000-of-00001', place):
        assert make_run.detect(source) == ('tf1', prefix)
    moved = tmp_path / 'moved'
    shutil.copytree(place, moved)
    (moved / 'checkpoint').write_text('model_checkpoint_path: "/gone/model-7"\n')
    assert make_run.detect(moved) == ('tf1', str(moved / 'model-7'))
    (moved / 'checkpoint').unlink()
    assert make_run.detect(moved) == ('tf1', str(moved / 'model-7'))
    shutil.copy(moved / 'model-7.index', moved / 'model-8.index')
    with pytest.raises(InputError, match='name one: model-7, model-8'):
        make_run.detect(moved)


def test_the_oldest_files_without_an_index(place, tmp_path):
    values = draw()
    values['RNN/LSTMCell/W_0'], values['RNN/LSTMCell/B'] = values.pop(KERNEL), values.pop(BIAS)
    write(tmp_path / 'there' / 'model-3', values, version=tf1.train.SaverDef.V1)
    here = (tmp_path / 'there').rename(tmp_path / 'here')
    for source in (here, here / 'model-3', here / 'model-3.meta'):
        assert make_run.detect(source) == ('tf1', str(here / 'model-3'))
    found = tf1_code.read(str(here / 'model-3'), place / 'words.pkl')
    np.testing.assert_array_equal(found.values[KERNEL], values['RNN/LSTMCell/W_0'])


def test_sources_of_other_kinds(sample_dirs, place, tmp_path):
    (tmp_path / 'model.npz').write_bytes(b'PK')
    assert make_run.detect(tmp_path / 'model.npz') == ('authors', str(tmp_path / 'model.npz'))
    tf.train.Checkpoint(step=tf.Variable(1.0)).write(str(tmp_path / 'keras'))
    assert make_run.detect(tmp_path / 'keras') == ('tf2', str(tmp_path / 'keras'))
    assert make_run.detect(tmp_path / 'keras', 'tf1') == ('tf1', str(tmp_path / 'keras'))
    write(tmp_path / 'other', {'dense/kernel': np.zeros(3, np.float32)}, slots=False)
    with pytest.raises(InputError, match='neither .* dense/kernel'):
        make_run.detect(tmp_path / 'other')
    for source, kind, part in ((tmp_path / 'none', None, 'none: not a TensorFlow checkpoint'),
                               (tmp_path / 'model.npz', 'tf1', 'kind authors, not tf1'),
                               (tmp_path / 'none.npz', 'authors', 'no such .npz file'),
                               (tmp_path, 'tf3', "unknown kind 'tf3'"),
                               (sample_dirs.folder, None, 'no checkpoint')):
        with pytest.raises(InputError, match=part):
            make_run.detect(source, kind)


def test_an_existing_run_and_one_of_ours_are_refused(place, run):
    before = snapshot(run.path)
    with pytest.raises(InputError, match='exists already'):
        make_run(place / 'model-7', place / 'words.pkl', run.path, encoder=ENCODER)
    with pytest.raises(InputError, match='is a run of this program already'):
        make_run(run.path, place / 'words.pkl', place / 'new')
    assert snapshot(run.path) == before


def test_the_usual_layer_belongs_to_the_usual_encoder():
    inception = {'name': 'inception_v3', 'layer': 'mixed10', 'size': 299, 'resize': 'squash'}
    spec = make_run._unknown_weights(inception, {'name': 'vgg19', 'layer': None})
    assert (spec.layer, spec.size, spec.resize, spec.dim) == ('conv5_4', 224, 'squash', 512)
    spec = make_run._unknown_weights(dict(ENCODER), {'name': 'vgg19', 'layer': 'conv1_1', 'resize': 'squash'})
    assert (spec.layer, spec.size, spec.resize, spec.dim) == ('conv1_1', 32, 'squash', 64)


@pytest.mark.parametrize(('more', 'part'), [
    ({}, '128 numbers a location, vgg19 conv5_4 has 512; name theirs with --encoder and --layer, or --data'),
    ({'encoder': {'name': None, 'layer': 'conv1_2', 'size': 32}}, 'vgg19 conv1_2 has 64'),
    ({'encoder': {'name': 'vgg18'}}, 'did you mean vgg19'),
    ({'encoder': ENCODER, 'assignments': ['dim_hidden=12']}, r'initial_lstm/b_h \[11\] instead of \[12\]'),
    ({'encoder': ENCODER, 'assignments': ['prevout=false']}, 'did you mean'),
    ({'encoder': ENCODER, 'assignments': ['finetune_from=conv2_1']}, 'none of training'),
    ({'encoder': ENCODER, 'assignments': ['cell=gru']}, r'missing: .*gru/kernel.*surplus: .*lstm/basic_lstm_cell'),
    ({'encoder': ENCODER, 'max_length': 0}, '--max-length must be at least 1'),
    ({'encoder': ENCODER, 'max_length': 1001}, '--max-length must be at most 1000, not 1001'),
    ({'encoder': ENCODER, 'options': 'o.pkl'}, 'leave --options out'),
    ({'vocab': None}, 'name its vocabulary with --vocab'),
    ({'data': 'nowhere'}, 'nowhere'),
])
def test_what_does_not_fit_leaves_nothing_behind(place, tmp_path, more, part):
    with pytest.raises(InputError, match=part):
        make_run(place / 'model-7', **{'vocab': place / 'words.pkl', 'out': tmp_path / 'run', **more})
    assert list(tmp_path.iterdir()) == []


def test_a_disk_that_fails_half_way_leaves_nothing_behind(place, tmp_path, monkeypatch):
    def fail(*unused):
        raise OSError(28, 'No space left on device')

    monkeypatch.setattr('core.importers.make_run.BestModel.save', fail)
    with pytest.raises(OSError, match='No space'):
        make_run(place / 'model-7', place / 'words.pkl', tmp_path / 'run', encoder=ENCODER)
    assert list(tmp_path.iterdir()) == []


# ---- out

def test_the_old_code_restores_what_is_exported(run, tmp_path):
    lines = []
    tf1_code.export(run, tmp_path / 'old' / 'model-1', say=lines.append)
    ours = variables_of(run.best().prefix())
    with tf.Graph().as_default():
        shapes = {name: tuple(V + 1 if size == V else size for size in shape) for name, shape in NAMES.items()}
        there = [tf1.get_variable(name, shape, use_resource=False) for name, shape in shapes.items()]
        with tf1.Session() as session:
            tf1.train.Saver().restore(session, tf1.train.latest_checkpoint(str(tmp_path / 'old')))
            for variable in there:
                np.testing.assert_array_equal(session.run(variable), ours[variable.op.name])
    assert set(ours) == set(NAMES)
    words = json.loads((tmp_path / 'old' / 'model-1-word_to_idx.json').read_text())
    assert words == run.vocabulary.word_to_idx
    assert sorted(path.name for path in (tmp_path / 'old').iterdir()) == [
        'checkpoint', 'model-1-word_to_idx.json', 'model-1.data-00000-of-00001', 'model-1.index']
    assert f'dim_feature=[{L}, {D}], dim_embed={M}, dim_hidden={H}, n_time_step=6, prev2out=True' in lines[0]

    # and what is imported again is equal
    make_run(tmp_path / 'old', tmp_path / 'old' / 'model-1-word_to_idx.json', tmp_path / 'again',
                       encoder=ENCODER, max_length=5, say=lines.append)
    again = run_dir.Run(tmp_path / 'again')
    assert again.config == run.config and again.vocabulary == run.vocabulary and again.spec == run.spec
    found = variables_of(again.best().prefix())
    assert set(found) == set(ours) and all((found[name] == ours[name]).all() for name in ours)

    # a second one beside it changes neither the first nor its state file; the same name is refused
    before = snapshot(tmp_path / 'old')
    tf1_code.export(run, tmp_path / 'old' / 'model-2', say=lines.append)
    assert before.items() <= snapshot(tmp_path / 'old').items()
    before = snapshot(tmp_path)
    for prefix, part in (('old/model-1', 'exists already'), ('old', 'is a directory')):
        with pytest.raises(InputError, match=part):
            tf1_code.export(run, tmp_path / prefix)
    assert snapshot(tmp_path) == before


def test_every_option_is_either_the_old_codes_or_refused():
    fixed = {
        'batch_norm', 'feature_layer', 'initial_state', 'initial_layers', 'attention_activation', 'attention_layers',
        'attention_bias', 'score_bias', 'cell', 'forget_bias', 'cell_input', 'carry_state', 'first_word',
        'output_activation', 'output_layers', 'temperature', 'decode_context',
    }
    assert fixed ^ tf1_code.FREE == {field.name for field in dataclasses.fields(ModelConfig)}


@pytest.mark.parametrize(('assignments', 'parts'), [
    (['cell=gru'], ['cell=gru']),
    (['attention_activation=tanh', 'score_bias=true', 'initial_layers=2'],
     ['attention_activation=tanh', 'score_bias=true', 'initial_layers=2']),
    (['attention_size=64'], ['attention_size=64']),
    (['prev2out=false', 'output_size=9'], ['output_size=9']),
    (['attention=hard', 'decode_context=argmax'], ['decode_context=argmax']),
    (['finetune_from=conv2_1'], ['finetune_from=conv2_1']),
])
def test_models_that_the_old_code_has_not_are_refused_by_name(run, tmp_path, assignments, parts):
    shutil.copytree(run.path, tmp_path / 'run')
    entries = json.loads((run.path / 'config.json').read_text())
    data = entries.pop('data')
    Config.from_dict(entries).override(assignments).save(tmp_path / 'run' / 'config.json', data=data)
    before = snapshot(tmp_path)
    with pytest.raises(InputError) as caught:
        tf1_code.export(run_dir.Run(tmp_path / 'run'), tmp_path / 'old' / 'm')
    assert all(part in str(caught.value) for part in ['the TF1 code has no', *parts])
    assert 'dim_' not in str(caught.value)
    assert snapshot(tmp_path) == before


def test_options_that_do_not_reach_the_decoder_are_exported(run, tmp_path):
    shutil.copytree(run.path, tmp_path / 'run')
    entries = json.loads((run.path / 'config.json').read_text())
    data = entries.pop('data')
    config = Config.from_dict(entries).override(['attention=hard', f'attention_size={D}', f'output_size={M}',
                                                 'label_smoothing=0.1', 'mask_padding=false'])
    config.save(tmp_path / 'run' / 'config.json', data=data)
    tf1_code.export(run_dir.Run(tmp_path / 'run'), tmp_path / 'm', say=lambda line: None)
    assert set(variables_of(tmp_path / 'm')) == set(NAMES)


# ---- the command line

def command(*arguments, fresh=False):
    """python -m core, as scripts.run runs scripts."""
    return scripts.run('core', *arguments, cwd=ROOT, fresh=fresh)


def test_the_command_takes_what_the_variables_do_not_tell(place, tmp_path, capsys):
    main(['import', str(place), '--vocab', str(place / 'words.pkl'), '--out', str(tmp_path / 'run'),
                      '--kind', 'tf1', '--layer', 'conv2_1', '--image-size', '48', '--resize', 'crop',
                      '--max-length', '9', '--set', 'prev2out=false', '--set', 'max_len=7'])
    run = run_dir.Run(tmp_path / 'run')
    assert (run.spec.layer, run.spec.size, run.spec.resize, run.max_length) == ('conv2_1', 48, 'crop', 9)
    assert (run.config.model.prev2out, run.config.decoding.max_len) == (False, 7)
    printed = capsys.readouterr().out
    assert '6 words, dim_embed=6, dim_hidden=11' in printed and f'evaluate.py {tmp_path / "run"} --data' in printed
    main(['export-tf1', str(tmp_path / 'run'), str(tmp_path / 'old')])
    assert 'prev2out=False' in capsys.readouterr().out and (tmp_path / 'old.index').exists()


@pytest.mark.slow
def test_from_a_foreign_checkpoint_to_scores_and_back(sample_data, place, tmp_path):
    data = sample_data
    done = command('import', place / 'model-7', '--vocab', place / 'words.pkl', '--out', tmp_path / 'run', '--data',
                   data, fresh=True)
    assert done.returncode == 0 and done.stderr == '', done.stderr
    assert f'evaluate.py {tmp_path / "run"} --data {data}' in done.stdout
    evaluated = scripts.run('evaluate.py', tmp_path / 'run', '--data', data, '--pictures', '0', '--out',
                            tmp_path / 'scores')
    assert evaluated.returncode == 0, evaluated.stderr
    assert len(json.loads((tmp_path / 'scores' / 'captions.json').read_text())) > 0
    done = command('export-tf1', tmp_path / 'run', tmp_path / 'old')
    assert done.returncode == 0 and done.stderr == '', done.stderr
    assert 'dim_embed=6' in done.stdout and (tmp_path / 'old.index').exists()
    before = snapshot(tmp_path)
    assert_refused(command('export-tf1', tmp_path / 'run', tmp_path / 'old'), 'exists already')
    assert snapshot(tmp_path) == before
