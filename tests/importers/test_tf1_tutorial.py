"""Checkpoints of the TF1 code: they decode here as there, and what does not fit is named."""

import json

import numpy as np
import pytest

from core.common.errors import InputError
from core.config.config import Config
from core.importers import imported
from core.importers import tf1_tutorial as tf1_code
from core.importers.make_run import make_run
from core.reference.equations import teacher_forcing
from core.runs import run_dir
from core.runtime.backend import tf, tf1
from tests.support import tiny_model
from tests.support.tf1_checkpoint import (
    BIAS,
    ENCODER,
    KERNEL,
    NAMES,
    WORD_TO_IDX,
    D,
    H,
    M,
    V,
    decode,
    draw,
    features,
    write,
    write_words,
)


def test_an_imported_model_decodes_like_the_old_code(tf1_run):
    a, values = features(), draw()
    captions = np.array([[1, 4, 3, 5, 2, 0, 0], [1, 8, 8, 7, 6, 4, 2], [1, 2, 0, 0, 0, 0, 0]])
    with tf.Graph().as_default() as graph:
        model = tf1_run.make_model()
        sampled = tiny_model.sampler(model, max_len=8)
        model.build_model(training=False)
        with tf1.Session(graph=graph) as session:
            tf1_run.restore(session, model)
            ours = session.run(sampled, {model.features: a})
            # <UNK> is 3 here, so that every ordinary word has the next number.
            nll = session.run(
                model.nll, {model.features: a[:3], model.captions: captions + (captions > 2)})
    words, alphas, betas = decode(values, a)
    there = {index: word for word, index in WORD_TO_IDX.items()}
    lengths = []
    for n in range(len(a)):
        end = [*np.flatnonzero(words[n] == 2), 8][0]
        lengths.append(end)
        our_words = tf1_run.vocabulary.idx_to_word
        assert [there[i] for i in words[n][:end]] == [our_words[i] for i in ours.captions[n][:end]]
        assert (ours.captions[n][end:] == 2).all()
        np.testing.assert_allclose(ours.alphas[n][:end], alphas[n][:end], atol=1e-5)
        np.testing.assert_allclose(ours.betas[n][:end], betas[n][:end], atol=1e-5)
    # ... which says something only if captions of several words and lengths were written, with
    # attention that moves
    assert len(set(words.ravel().tolist())) > 4 and len(set(lengths)) > 1 and max(lengths) > 4
    assert np.abs(np.diff(alphas, axis=1)).max() > 0.01
    # and the probability of every word is that of the old code, which knows no <UNK>
    assert nll == pytest.approx(teacher_forcing(values, a[:3], captions, training=False).nll,
                                rel=1e-5)


def test_what_travels_in_the_run(tf1_checkpoint, tf1_run):
    assert tf1_run.max_length == 5 and tf1_run.imported
    assert tf1_run.vocabulary.idx_to_word[3:] == ['<UNK>', 'red', 'a', 'dog', 'runs', 'over',
                                                  'grass']
    assert tf1_run.config == Config().override([f'dim_embed={M}', f'dim_hidden={H}'])
    spec = tf1_run.spec
    assert (spec.encoder, spec.layer, spec.size, spec.resize) == tuple(ENCODER.values())
    assert tf1_run.spec.weights == tf1_run.spec.weights_sha256 == 'unknown'
    entry = json.loads((tf1_run.path / 'config.json').read_text())['data']
    assert entry['path'] is None
    assert entry['records_sha256'] is None
    assert entry['dataset'] == 'imported'
    assert tf1_run.best().info()['step'] == 0
    assert sorted(path.name for path in tf1_run.path.iterdir()) == [
        'best', 'config.json', 'vocabulary.json']
    assert [path.name for path in tf1_checkpoint.iterdir() if path.name.startswith('.')] == []
    assert (tf1_run.path.stat().st_mode & 0o777) == 0o777 & ~_umask()


def _umask():
    import os

    mask = os.umask(0)
    os.umask(mask)
    return mask


def test_defaults_are_those_of_the_tutorial(tf1_checkpoint):
    model = tf1_code.read(str(tf1_checkpoint / 'model-7'), tf1_checkpoint / 'words.pkl')
    assert model.max_length == 15
    assert model.encoder == {'name': 'vgg19', 'layer': 'conv5_4', 'size': 224, 'resize': 'squash'}
    assert model.options == {'dim_embed': M, 'dim_hidden': H, 'selector': True, 'ctx2out': True,
                             'batch_norm': True}
    assert any('prev2out' in note for note in model.notes)
    assert any('<UNK>' in note for note in model.notes)
    assert all(value.dtype == np.float32 for value in model.values.values())


@pytest.mark.parametrize(('kernel', 'bias'), [
    ('lstm/basic_lstm_cell/weights', 'lstm/basic_lstm_cell/biases'),
    ('lstm/BasicLSTMCell/Linear/Matrix', 'lstm/BasicLSTMCell/Linear/Bias'),
    ('lstm/lstm_cell/kernel', 'lstm/lstm_cell/bias'),
    ('lstm/lstm_cell/weights', 'lstm/lstm_cell/biases'), ('lstm/LSTMCell/W_0', 'lstm/LSTMCell/B'),
    ('rnn/basic_lstm_cell/kernel', 'rnn/basic_lstm_cell/bias'),
    ('rnn/lstm_cell/weights', 'rnn/lstm_cell/biases'),
    ('RNN/BasicLSTMCell/Linear/Matrix', 'RNN/BasicLSTMCell/Linear/Bias'),
    ('RNN/LSTMCell/W_0', 'RNN/LSTMCell/B'),
    ('lstm/rnn/multi_rnn_cell/cell_0/basic_lstm_cell/kernel',
     'lstm/rnn/multi_rnn_cell/cell_0/basic_lstm_cell/bias'), ('lstm/weights', 'lstm/biases')])
def test_every_older_name_of_the_cell(tf1_checkpoint, tmp_path, kernel, bias):
    values = draw()
    values[kernel], values[bias] = values.pop(KERNEL), values.pop(BIAS)
    model = tf1_code.read(write(tmp_path / 'm', values), tf1_checkpoint / 'words.pkl')
    np.testing.assert_array_equal(model.values[KERNEL], values[kernel])
    np.testing.assert_array_equal(model.values[BIAS], values[bias])
    assert set(model.values) == set(NAMES) and any(kernel in note for note in model.notes)


@pytest.mark.parametrize(
    'scope', ['conv_featuresbatch_norm/batch_norm', 'conv_featuresbatch_norm/BatchNorm',
              'batch_normalization', 'conv_features_batch_norm'])
def test_other_names_of_the_batch_normalisation(tf1_checkpoint, tmp_path, scope):
    values = {name.replace('conv_featuresbatch_norm', scope): value
              for name, value in draw().items()}
    model = tf1_code.read(write(tmp_path / 'm', values), tf1_checkpoint / 'words.pkl')
    assert set(model.values) == set(NAMES)
    np.testing.assert_array_equal(model.values['conv_featuresbatch_norm/gamma'],
                                  values[f'{scope}/gamma'])


@pytest.mark.parametrize(('option', 'prefix'),
                         [('selector', 'selector/'), ('ctx2out', 'logits/w_ctx2out'), (
    'batch_norm', 'conv_featuresbatch_norm/')])
def test_parts_that_are_not_there_are_options(tf1_checkpoint, tmp_path, option, prefix):
    values = {name: value for name, value in draw().items() if not name.startswith(prefix)}
    model = tf1_code.read(write(tmp_path / 'm', values), tf1_checkpoint / 'words.pkl')
    assert model.options[option] is False and set(model.values) == set(values)
    if option == 'selector':  # once through to the run: the model has just these variables
        make_run(tmp_path / 'm', tf1_checkpoint / 'words.pkl', tmp_path / 'run', encoder=ENCODER,
                           assignments=['prev2out=false'], say=lambda line: None)
        config = run_dir.Run(tmp_path / 'run').config.model
        assert (config.selector, config.prev2out, config.ctx2out) == (False, False, True)


def test_all_that_does_not_fit_is_named_at_once(tf1_checkpoint, tmp_path):
    values = draw()
    del values['logits/w_h'], values['selector/b']
    values |= {'decoder/more': np.zeros((2, 3), np.float32),
               'lstm/lstm_cell/w_f_diag': np.zeros(H, np.float32),
               'word_embedding/w': np.zeros((V, M + 1), np.float32),
               'attention_layer/b': np.zeros((D, 1), np.float32)}
    with pytest.raises(InputError) as caught:
        make_run(write(tmp_path / 'm', values), tf1_checkpoint / 'words.pkl', tmp_path / 'run',
                 encoder=ENCODER)
    message = str(caught.value)
    assert message.startswith(f'{tmp_path / "m"}: ')
    assert f'missing: selector/b [1], logits/w_h [{H}, {M}];' in message
    assert f'surplus: decoder/more [2, 3], lstm/lstm_cell/w_f_diag [{H}];' in message
    assert message.endswith(f'wrongly shaped: word_embedding/w [{V}, {M + 1}] instead of [{V}, '
                            f'{M}], attention_layer/b [{D}, 1] instead of [{D}]')
    assert not (tmp_path / 'run').exists()


def test_what_optimizers_leave_is_no_surplus(tf1_checkpoint, tmp_path):
    more = {name: np.zeros(2, np.float32) for name in (
        'beta1_power', 'beta2_power_1', 'optimizer/beta1_power', 'optimizer/logits/w_h/Adam',
        'logits/w_h/Adam_1', 'logits/w_h/RMSProp_1', 'logits/w_h/Momentum', 'global_step',
        'conv_featuresbatch_norm/moving_mean/biased',
        'conv_featuresbatch_norm/moving_mean/local_step')}
    model = tf1_code.read(write(tmp_path / 'm', draw() | more, slots=False),
                          tf1_checkpoint / 'words.pkl')
    assert set(model.values) == set(NAMES)


def test_two_cells_are_not_guessed_between(tf1_checkpoint, tmp_path):
    values = draw() | {'rnn/lstm_cell/kernel': draw()[KERNEL]}
    with pytest.raises(InputError,
                       match='lstm/basic_lstm_cell/kernel and rnn/lstm_cell/kernel would be'):
        tf1_code.read(write(tmp_path / 'm', values), tf1_checkpoint / 'words.pkl')


def test_numbers_that_are_none(tf1_checkpoint, tmp_path):
    values = draw()
    values['logits/b_h'][2] = np.nan
    with pytest.raises(InputError, match='logits/b_h is not made of finite numbers'):
        tf1_code.read(write(tmp_path / 'm', values), tf1_checkpoint / 'words.pkl')


def test_words_keep_their_vectors_whatever_their_numbers(tf1_checkpoint, tmp_path):
    numbers = {'dog': 0, '<UNK>': 1, '<START>': 2, 'a': 3, '<NULL>': 4, '<END>': 5, 'red': 6,
               'runs': 7, 'over': 8}
    vocab = tmp_path / 'words.json'
    vocab.write_text(json.dumps(numbers))
    model, values = tf1_code.read(str(tf1_checkpoint / 'model-7'), vocab), draw()
    assert model.words == ['dog', 'a', 'red', 'runs', 'over']
    assert len(model.values['logits/b_out']) == V
    for ours, word in enumerate(['<NULL>', '<START>', '<END>', '<UNK>', *model.words]):
        np.testing.assert_array_equal(model.values['word_embedding/w'][ours],
                                      values['word_embedding/w'][numbers[word]])
        np.testing.assert_array_equal(model.values['logits/w_out'][:, ours],
                                      values['logits/w_out'][:, numbers[word]])
        assert model.values['logits/b_out'][ours] == values['logits/b_out'][numbers[word]]


def test_a_word_that_was_not_there_is_never_written(tf1_checkpoint):
    model = tf1_code.read(str(tf1_checkpoint / 'model-7'), tf1_checkpoint / 'words.pkl')
    assert model.values['word_embedding/w'].shape == (V + 1, M)
    assert model.values['logits/w_out'].shape == (M, V + 1)
    assert not model.values['word_embedding/w'][3].any()
    assert not model.values['logits/w_out'][:, 3].any()
    assert model.values['logits/b_out'][3] == -30.0


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


@pytest.mark.parametrize(('words', 'part'), [
    ({word: index for word, index in WORD_TO_IDX.items() if index < V - 1},
     f'{V - 1} words, but the model'), ({('<EOS>' if word == '<END>' else word): index
                                         for word, index in WORD_TO_IDX.items()},
                                        'lacks the word <END>'),
    ({('' if word == 'dog' else word): index for word, index in WORD_TO_IDX.items()}, 'non-empty'),
    ({**WORD_TO_IDX, 'dog': 6}, 'the same index 6')])
def test_vocabularies_that_do_not_belong(tf1_checkpoint, tmp_path, words, part):
    with pytest.raises(InputError, match=part):
        tf1_code.read(str(tf1_checkpoint / 'model-7'), write_words(tmp_path / 'w.pkl', words))
