"""Checkpoints of the TF2 tutorial: imported ones have the tutorial's loss and gradients."""

import json

import numpy as np
import pytest

from core.config.model import ModelConfig
from core.data.vocabulary import END, SPECIALS, UNK, Vocabulary
from core.importers import tf2_tutorial
from core.importers.make_run import make_run
from core.runs import run_dir
from core.runtime.backend import tf
from tests.support import tiny_model
from tests.support.tf2_tutorial_model import (
    ORDINARY,
    OURS,
    WORD_INDEX,
    H,
    K,
    M,
    N,
    T,
    V,
    build,
    features,
    in_our_names,
    save,
    save_words,
    tf_keras,
    tutorial,
    tutorial_loss,
)


@pytest.mark.parametrize('carry_state', [False, True])
def test_loss_and_gradients_are_the_tutorials(tmp_path, carry_state):
    encoder, decoder = tutorial(tf_keras, carry_state)
    expected, gradients = tutorial_loss(encoder, decoder)
    gradients = in_our_names(encoder, decoder, gradients)
    imported = tf2_tutorial.read(save(tmp_path, encoder, decoder), save_words(tmp_path))
    with tiny_model.tf_graph():
        model = build(imported, carry_state=carry_state)
        loss = model.build_model()
        computed = tf.gradients(loss, model.variables)
        with tiny_model.session(model, imported.values) as session:
            fetches = [loss, dict(zip([v.op.name for v in model.variables],
                                      map(tf.convert_to_tensor, computed), strict=True))]
            got, got_gradients = session.run(fetches,
                                             {model.features: features(), model.captions: OURS})
    assert got == pytest.approx(expected, abs=1e-4)
    assert got_gradients.keys() == gradients.keys()
    for name, gradient in gradients.items():
        assert (np.abs(gradient).max() > 1e-6 or name == 'attention_layer/b_att'
                or not carry_state), name
        np.testing.assert_allclose(got_gradients[name], gradient, atol=1e-4, err_msg=name)


def test_the_state_does_not_reach_the_cell(tf2_checkpoint):
    """Without carry_state the recurrent kernel has no influence, as in the tutorial."""
    _, encoder, decoder = tf2_checkpoint
    gradients = in_our_names(encoder, decoder, tutorial_loss(encoder, decoder)[1])
    assert not gradients['gru/recurrent_kernel'].any()


def test_greedy_captions_are_the_tutorials(tmp_path, tf2_checkpoint):
    prefix, encoder, decoder = tf2_checkpoint
    imported = tf2_tutorial.read(prefix, save_words(tmp_path))
    with tiny_model.tf_graph():
        model = build(imported)
        sampled = tiny_model.sampler(model, max_len=T)
        with tiny_model.session(model, imported.values) as session:
            captions = session.run(sampled.captions, {model.features: features()})
    ours = {theirs: Vocabulary(imported.words).word_to_idx.get(word)
            for word, theirs in WORD_INDEX.items()} | {4: END}
    words, hidden, expected = np.full((N, 1), 3), tf.zeros([N, H]), []
    for _ in range(T):
        logits, hidden = decoder(words, encoder(features()), hidden)
        logits = logits.numpy()
        # padding, the unknown word and the start, which we never write
        logits[:, [0, 1, 3]] = -np.inf
        words = logits.argmax(axis=1)[:, None]
        expected.append([ours[word] for word in words[:, 0]])
    assert len({word for step in expected for word in step}) > 2  # else this test says little
    for row, caption in enumerate(np.array(expected).T):
        ended = list(caption).index(END) + 1 if END in caption else T
        assert captions[row, :ended].tolist() == caption[:ended].tolist()


@pytest.mark.parametrize('package', ['tf_keras', 'keras'])
def test_both_generations_of_keras(tmp_path, package):
    k = pytest.importorskip(package)
    encoder, decoder = tutorial(k)
    prefix = save(tmp_path, encoder, decoder, k)
    variables = encoder.trainable_variables + decoder.trainable_variables
    expected = in_our_names(encoder, decoder, [variable.numpy() for variable in variables])
    for source in (prefix, f'{prefix}.index', tmp_path / 'train'):
        values = tf2_tutorial.read(source, save_words(tmp_path)).values
        assert values.keys() == expected.keys()
        for name, value in expected.items():
            np.testing.assert_array_equal(values[name], value)
            assert values[name].dtype == np.float32


@pytest.mark.parametrize('package', ['tf_keras', 'keras'])
def test_what_is_no_parameter_does_not_matter(tmp_path, package):
    """Dropout has no parameters, and an optimizer is a second path to all of them."""
    k = pytest.importorskip(package)
    encoder, decoder = tutorial(k)
    expected = tf2_tutorial.read(save(tmp_path, encoder, decoder, k), save_words(tmp_path))
    encoder, decoder = tutorial(k, dropout=0.5, recurrent_dropout=0.5)
    decoder.dropout(tf.ones([2, 2]), training=True)
    decoder.compile('adam', 'mse', metrics=['mae'])
    decoder.optimizer.build(decoder.trainable_variables)
    imported = tf2_tutorial.read(save(tmp_path, encoder, decoder, k), save_words(tmp_path))
    for name, value in expected.values.items():
        np.testing.assert_array_equal(imported.values[name], value)


def test_options(tmp_path, tf2_checkpoint):
    imported = tf2_tutorial.read(tf2_checkpoint[0], save_words(tmp_path))
    options = ModelConfig(**imported.options)
    assert (options.dim_embed, options.dim_hidden, options.feature_layer) == (M, H, K)
    assert (options.attention_size, options.output_size, options.carry_state) == (H, H, False)
    assert imported.encoder == {'name': 'inception_v3', 'layer': 'mixed10', 'size': 299,
                                'resize': 'squash'}
    assert any('carry_state' in note for note in imported.notes)


def test_options_are_those_of_the_preset(tmp_path, tf2_checkpoint):
    presets = pytest.importorskip('core.config.presets')
    ours = ModelConfig(**tf2_tutorial.read(tf2_checkpoint[0], save_words(tmp_path)).options)
    preset = vars(presets.config('tf2').model)
    sizes = {'dim_embed', 'dim_hidden', 'feature_layer', 'attention_size', 'output_size'}
    assert {name: value for name, value in vars(ours).items() if name not in sizes} == {
        name: value for name, value in preset.items() if name not in sizes}


LIST = ['', '[UNK]', 'a', '[START]', '[END]',
        *[word for word in WORD_INDEX if word in ORDINARY][1:]]


@pytest.mark.parametrize(
    'content', [WORD_INDEX, {str(number): word for word, number in WORD_INDEX.items()},
                json.dumps(json.dumps({'config': {'num_words': V,
                                                  'word_index': json.dumps(WORD_INDEX)}})),
                {'config': {'num_words': None, 'word_index': WORD_INDEX}},
                {word: number for word, number in WORD_INDEX.items() if number},
                {{'<start>': 'startseq', '<end>': 'endseq'}.get(word, word): number
                 for word, number in WORD_INDEX.items()}, LIST, LIST[1:], '\n'.join(LIST) + '\n',
                '\r\n'.join(LIST)], ids=['word_index', 'index_word', 'JSON in JSON',
                                         'tokenizer without limit', 'no padding', 'startseq',
                                         'list', 'list without padding', 'text', 'text of Windows'])
def test_forms_of_the_vocabulary(tmp_path, tf2_checkpoint, content):
    expected = tf2_tutorial.read(tf2_checkpoint[0], save_words(tmp_path))
    imported = tf2_tutorial.read(tf2_checkpoint[0], save_words(tmp_path, content, 'other'))
    assert imported.words == expected.words == ORDINARY
    for name, value in expected.values.items():
        np.testing.assert_array_equal(imported.values[name], value)


def test_rows_that_were_never_used_keep_their_share(tmp_path, tf2_checkpoint):
    """Rows from num_words on are never shown to the model.

    The embedding of Tokenizer(num_words=n) has n + 1 rows in the tutorial.
    """
    config = {'num_words': V - 1, 'word_index': json.dumps(WORD_INDEX)}
    imported = tf2_tutorial.read(tf2_checkpoint[0], save_words(tmp_path, {'config': config}))
    assert imported.words == [*ORDINARY[:-1], '<unused-12>']
    assert any('1 rows of the model have no word' in note and '12' in note
               for note in imported.notes)
    full = tf2_tutorial.read(tf2_checkpoint[0], save_words(tmp_path))
    np.testing.assert_array_equal(imported.values['logits/b_out'], full.values['logits/b_out'])


def test_without_a_word_for_unknown_ones(tmp_path, tf2_checkpoint):
    words = {'you' if word == '<unk>' else word: number for word, number in WORD_INDEX.items()}
    imported = tf2_tutorial.read(tf2_checkpoint[0], save_words(tmp_path, words))
    full = tf2_tutorial.read(tf2_checkpoint[0], save_words(tmp_path)).values
    assert imported.words == ['you', *ORDINARY]
    assert imported.values['logits/b_out'][UNK] == -30.0
    assert not imported.values['word_embedding/w'][UNK].any()
    np.testing.assert_array_equal(imported.values['logits/b_out'][len(SPECIALS):],
                                  full['logits/b_out'][[UNK, *range(len(SPECIALS), V)]])
    assert any('<UNK> gets a probability of about 1e-13' in note for note in imported.notes)


def test_a_run_of_it(tmp_path):
    """The whole way: the tutorial's files in, a RUN DIR out that gives the tutorial's loss.

    carry_state is as told.
    """
    images = np.random.default_rng(4).normal(0.1, 0.2, (N, 4, 512)).astype(np.float32)
    encoder, decoder = tutorial(tf_keras, carry_state=True, images=images)
    lines = []
    make_run(save(tmp_path, encoder, decoder), save_words(tmp_path), tmp_path / 'run',
             encoder={'name': 'vgg19', 'layer': 'conv5_4', 'size': 32},
             assignments=['carry_state=true'], max_length=T - 1, say=lines.append)
    assert any('kind tf2' in line for line in lines)
    run = run_dir.Run(tmp_path / 'run')
    with tiny_model.tf_graph():
        model = run.make_model()
        loss = model.build_model(training=False)
        with tiny_model.session(model) as session:
            run.restore(session, model)
            got = session.run(loss, {model.features: images, model.captions: OURS})
    assert got == pytest.approx(tutorial_loss(encoder, decoder, images)[0], abs=1e-4)
