"""Models of the authors' code: imported ones compute what its NumPy transcription computes."""

import pickle

import numpy as np
import pytest

from core.config.model import ModelConfig
from core.data.vocabulary import END, NULL, SPECIALS, START, UNK, Vocabulary
from core.importers import authors_theano
from core.importers.make_run import make_run
from core.runs import run_dir
from core.runtime.backend import tf
from tests.support import authors_model, tiny_model
from tests.support.authors_files import (
    LOCATIONS,
    N_WORDS,
    OURS,
    VARIANTS,
    WORDS,
    D,
    H,
    M,
    N,
    T,
    build,
    context,
    save,
)


@pytest.mark.parametrize('name', VARIANTS)
def test_probabilities_and_alphas_are_the_authors(tmp_path, graph, name):
    path, parameters, options = save(tmp_path, VARIANTS[name])
    imported = authors_theano.read(path, None)
    model = build(imported)
    draws = [None, LOCATIONS] if options['attn_type'] == 'stochastic' else [None]
    fetches = []
    for locations in draws:
        places = None if locations is None else tf.constant(locations.T, tf.int32)
        model.build_model(training=False, locations=places)
        fetches.append((locations, model.outputs.log_probs, model.outputs.alphas))
    with tiny_model.session(model, imported.values) as session:
        for locations, log_probs, alphas in fetches:
            got, got_alphas = session.run([log_probs, alphas],
                                          {model.features: context(), model.captions: OURS})
            expected, expected_alphas = authors_model.run(parameters, options, context(), WORDS,
                                                          locations)
            for row in range(N):
                length = list(OURS[row]).index(END)
                for t in range(length):
                    assert got[row, t] == pytest.approx(expected[t, row, WORDS[t, row]], abs=1e-4)
                np.testing.assert_allclose(got_alphas[row, :length], expected_alphas[:length, row],
                                           atol=1e-4)


@pytest.mark.parametrize('changes', [{}, {'n_layers_out': 2, 'attn_type': 'stochastic',
                                          'temperature': 0.5}], ids=['soft', 'hard'])
def test_greedy_captions_are_the_authors(tmp_path, graph, changes):
    path, parameters, options = save(tmp_path, changes)
    imported = authors_theano.read(path, None)
    model = build(imported)
    sampled = tiny_model.sampler(model, max_len=T)
    with tiny_model.session(model, imported.values) as session:
        captions, alphas = session.run([sampled.captions, sampled.alphas],
                                       {model.features: context()})

    words = np.zeros((0, N), int)
    for _ in range(T):
        expected, expected_alphas = authors_model.run(parameters, options, context(),
                                                np.concatenate([words, np.zeros((1, N), int)]))
        last = expected[-1]
        last[:, 1] = -np.inf  # the unknown word, which we never write
        words = np.concatenate([words, last.argmax(axis=1)[None]])
    # else this test says little
    assert len(set(words.ravel())) > 2 and len(set(map(tuple, words.T))) > 1
    for row in range(N):
        ended = list(words[:, row]).index(0) + 1 if 0 in words[:, row] else T
        expected = [END if word == 0 else word + 2 for word in words[:ended, row]]
        assert expected == captions[row, :ended].tolist()
        np.testing.assert_allclose(alphas[row, :ended], expected_alphas[:ended, row], atol=1e-4)


def test_null_and_start_are_next_to_impossible(tmp_path):
    path, parameters, _ = save(tmp_path)
    values = authors_theano.read(path, None).values
    assert values['logits/b_out'][[NULL, START]].tolist() == [-30.0, -30.0]
    assert not values['logits/w_out'][:, [NULL, START]].any()
    assert not values['word_embedding/w'][[NULL, START]].any()
    np.testing.assert_array_equal(values['word_embedding/w'][[END, UNK]], parameters['Wemb'][:2])
    np.testing.assert_array_equal(values['logits/b_out'][2:], parameters['ff_logit_b'])
    assert all(value.dtype == np.float32 for value in values.values())


def test_words_and_rows_without_a_word(tmp_path):
    path, *_ = save(tmp_path)
    imported = authors_theano.read(path, None)
    assert imported.words == ['a', 'dog', '.', 'Red', 'runs', '<unused-7>', 'on', 'grass',
                              '<unused-10>', '<unused-11>', '<unused-12>']
    assert any('4 rows of the model have no word' in note and '7, 10, 11, 12' in note
               for note in imported.notes)


def test_options(tmp_path):
    path, *_ = save(
        tmp_path, {'alpha_c': 0.5, 'maxlen': 30, 'use_dropout': False, 'prev2out': False})
    imported = authors_theano.read(path, None)
    options = ModelConfig(**imported.options)
    assert (options.dim_embed, options.dim_hidden, options.alpha_c, options.dropout) == (
        M, H, 0.5, False)
    assert (options.prev2out, options.ctx2out, options.selector, options.batch_norm) == (
        False, True, True, False)
    assert (options.initial_layers, options.attention_layers, options.output_layers) == (2, 2, 1)
    assert (options.regularizer_target, options.regularizer_reduction) == ('one', 'locations')
    assert (options.attention, options.first_word, options.forget_bias) == ('soft', 'zero', 0.0)
    assert imported.max_length == 29
    assert imported.encoder == {'name': 'vgg19', 'layer': 'conv5_4', 'size': 224, 'resize': 'crop'}


def test_options_of_hard_attention(tmp_path):
    path, *_ = save(tmp_path, VARIANTS['hard attention'])
    imported = authors_theano.read(path, None)
    options = ModelConfig(**imported.options)
    assert (options.attention, options.temperature, options.semi_sampling_p) == ('hard', 0.5, 0.25)
    assert options.lambda_e == 0.5
    assert any('hard attention' in note for note in imported.notes)


def test_without_options_file_shapes_tell(tmp_path):
    path, *_ = save(tmp_path, {'n_layers_out': 2, 'selector': False})
    told = authors_theano.read(path, None)
    (tmp_path / 'model.npz.pkl').unlink()
    guessed = authors_theano.read(path, None)
    assert guessed.options == told.options and guessed.max_length == told.max_length
    for name, value in told.values.items():
        np.testing.assert_array_equal(guessed.values[name], value)
    assert any('no options file' in note and 'use_dropout=True' in note and 'prev2out=True' in note
               for note in guessed.notes)
    assert not any('no options file' in note for note in told.notes)


@pytest.mark.parametrize('name', ['model.npz_bestll.npz', 'model.npz_epoch_12.npz'])
def test_options_of_a_best_model_are_those_of_its_run(tmp_path, name):
    path, *_ = save(tmp_path, {'prev2out': False})
    path.rename(tmp_path / name)
    assert authors_theano.read(tmp_path / name, None).options['prev2out'] is False


def test_named_files(tmp_path):
    path, *_ = save(tmp_path, {'prev2out': False})
    (tmp_path / 'model.npz.pkl').rename(tmp_path / 'o.pkl')
    (tmp_path / 'dictionary.pkl').rename(tmp_path / 'd.pkl')
    imported = authors_theano.read(path, tmp_path / 'd.pkl', tmp_path / 'o.pkl')
    assert imported.options['prev2out'] is False and imported.words[0] == 'a'


@pytest.mark.parametrize(('value', 'expected'),
                         [(True, True), (False, False), (1, True), (0, False), ('True', True),
                          ('False', False), (b'False', False)])
def test_truth_values_of_the_options(tmp_path, value, expected):
    path, *_ = save(tmp_path, {'prev2out': value})
    options = {**authors_model.OPTIONS, 'n_words': N_WORDS, 'dim_word': M, 'dim': H, 'ctx_dim': D,
               'prev2out': value}
    (tmp_path / 'model.npz.pkl').write_bytes(pickle.dumps(options, protocol=4))
    assert authors_theano.read(path, None).options['prev2out'] is expected


def test_special_spellings_in_the_dictionary(tmp_path):
    path, *_ = save(tmp_path)
    dictionary = {**{special: number + 2 for number, special in enumerate(SPECIALS)}, 'a': 6}
    (tmp_path / 'dictionary.pkl').write_bytes(pickle.dumps(dictionary))
    words = authors_theano.read(path, None).words
    assert words[:5] == ['<unused-2>', '<unused-3>', '<unused-4>', '<unused-5>', 'a']
    Vocabulary(words)


@pytest.mark.parametrize(('words', 'tokens'), [
    ({'a': 2, 'dog': 3}, 'words'), ({'a': 2, 'dog': 3, '.': 4}, 'raw_lower'),
    ({'a': 2, 'Dog': 3}, 'raw')])
def test_its_words_tell_how_captions_were_cut(tmp_path, words, tokens):
    path, *_ = save(tmp_path, ctx_dim=512)
    (tmp_path / 'dictionary.pkl').write_bytes(pickle.dumps(words))
    make_run(path, None, tmp_path / 'run', encoder={'size': 32}, max_length=T - 1,
             say=lambda line: None)
    assert run_dir.Run(tmp_path / 'run').tokens == tokens


def test_a_run_of_it(tmp_path):
    """The whole way: files of the authors in, a RUN DIR out that has their probabilities."""
    path, parameters, options = save(tmp_path, ctx_dim=512)
    lines = []
    make_run(path, None, tmp_path / 'run', encoder={'size': 32}, max_length=T - 1, say=lines.append)
    assert any('kind authors' in line and 'tokens raw' in line for line in lines)
    run = run_dir.Run(tmp_path / 'run')
    assert run.tokens == 'raw'  # its words have a full stop and capitals
    features = np.random.default_rng(4).normal(0.1, 0.2, (N, 4, 512)).astype(np.float32)
    with tiny_model.tf_graph():
        model = run.make_model()
        model.build_model(training=False)
        with tiny_model.session(model) as session:
            run.restore(session, model)
            got = session.run(model.outputs.log_probs,
                              {model.features: features, model.captions: OURS})
    expected, _ = authors_model.run(parameters, options, features, WORDS)
    for row in range(N):
        for t in range(list(OURS[row]).index(END)):
            assert got[row, t] == pytest.approx(expected[t, row, WORDS[t, row]], abs=1e-4)
