"""Models of the authors' code: imported ones compute what the NumPy transcription of that code computes."""

import os
import pickle
import zipfile

import numpy as np
import pytest

from core.common.errors import InputError
from core.config.model import ModelConfig
from core.data.vocabulary import END, NULL, SPECIALS, START, UNK, Vocabulary
from core.importers import authors_theano
from core.importers.make_run import make_run
from core.model.caption_generator import CaptionGenerator
from core.runs import run_dir
from core.runtime.backend import tf
from tests.support import authors_model, tiny_model

N, L, D, H, M, T, N_WORDS = 3, 5, 7, 11, 6, 4, 13
DICTIONARY = {'<eos>': 0, 'UNK': 1, 'a': 2, 'dog': 3, '.': 4, 'Red': 5, 'runs': 6, 'on': 8, 'grass': 9, 'rare': 13}
# Their captions, a column each: words, 0, padding. Ours follow word by word: theirs 0 ends, theirs w from 2 is w + 2.
WORDS = np.array([[2, 5, 12], [3, 0, 1], [9, 0, 6], [0, 0, 0]])
OURS = np.array([[START, 4, 5, 11, END], [START, 7, END, NULL, NULL], [START, 14, UNK, 8, END]], np.int32)
LOCATIONS = np.array([[0, 4, 2], [3, 3, 1], [1, 0, 4], [2, 2, 0]])

VARIANTS = {
    'the options of evaluate_coco.py': {},
    'no options': authors_model.PLAIN,
    'three layers everywhere': {'n_layers_att': 3, 'n_layers_init': 3, 'n_layers_out': 3, 'selector': False},
    'dropout on the gates': {'use_dropout_lstm': True, 'ctx2out': False},
    'hard attention': {'attn_type': 'stochastic', 'temperature': 2.0, 'semi_sampling_p': 0.25, 'alpha_entropy_c': 0.5},
}


def save(directory, changes=(), drop=(), ctx_dim=D, **more):
    """Write model.npz with its pickles; returns (path, parameters, options). `drop` and `more` are entries."""
    options = {**authors_model.OPTIONS, 'n_words': N_WORDS, 'dim_word': M, 'dim': H, 'ctx_dim': ctx_dim, **dict(changes)}
    parameters = authors_model.draw(options, N_WORDS, M, H, ctx_dim)
    entries = {name: value for name, value in {**parameters, **more}.items() if name not in drop}
    path = directory / 'model.npz'
    np.savez(path, history_errs=[[3.0, 4.0]], train_err=1.0, valid_err=np.zeros(3), test_err=2.0, **entries)
    (directory / 'model.npz.pkl').write_bytes(pickle.dumps(options, protocol=0))
    (directory / 'dictionary.pkl').write_bytes(pickle.dumps(DICTIONARY, protocol=2))
    return path, parameters, options


def build(imported):
    """The CaptionGenerator of an import, in the default graph."""
    vocabulary = Vocabulary(imported.words)
    config = ModelConfig(**imported.options)
    config.check()
    model = CaptionGenerator(vocabulary.word_to_idx, (L, D), n_time_step=T, **vars(config))
    assert {v.op.name: tuple(v.shape) for v in model.variables} == {
        name: value.shape for name, value in imported.values.items()}
    return model


def context():
    return np.random.default_rng(4).normal(0.5, 1.0, (N, L, D)).astype(np.float32)


@pytest.mark.parametrize('name', VARIANTS)
def test_probabilities_and_alphas_are_the_authors(tmp_path, graph, name):
    path, parameters, options = save(tmp_path, VARIANTS[name])
    imported = authors_theano.read(path, None)
    model = build(imported)
    draws = [None, LOCATIONS] if options['attn_type'] == 'stochastic' else [None]
    fetches = []
    for locations in draws:
        given = None if locations is None else tf.constant(locations.T, tf.int32)
        model.build_model(training=False, locations=given)
        fetches.append((locations, model.outputs.log_probs, model.outputs.alphas))
    with tiny_model.session(model, imported.values) as session:
        for locations, log_probs, alphas in fetches:
            got, got_alphas = session.run([log_probs, alphas], {model.features: context(), model.captions: OURS})
            expected, expected_alphas = authors_model.run(parameters, options, context(), WORDS, locations)
            for row in range(N):
                length = list(OURS[row]).index(END)
                for t in range(length):
                    assert got[row, t] == pytest.approx(expected[t, row, WORDS[t, row]], abs=1e-4)
                np.testing.assert_allclose(got_alphas[row, :length], expected_alphas[:length, row], atol=1e-4)


@pytest.mark.parametrize('changes', [{}, {'n_layers_out': 2, 'attn_type': 'stochastic', 'temperature': 0.5}],
                         ids=['soft', 'hard'])
def test_greedy_captions_are_the_authors(tmp_path, graph, changes):
    path, parameters, options = save(tmp_path, changes)
    imported = authors_theano.read(path, None)
    model = build(imported)
    sampled = model.build_sampler(max_len=T)
    with tiny_model.session(model, imported.values) as session:
        captions, alphas = session.run([sampled.captions, sampled.alphas], {model.features: context()})

    words = np.zeros((0, N), int)
    for _ in range(T):
        expected, expected_alphas = authors_model.run(parameters, options, context(),
                                                np.concatenate([words, np.zeros((1, N), int)]))
        last = expected[-1]
        last[:, 1] = -np.inf  # the unknown word, which we never write
        words = np.concatenate([words, last.argmax(axis=1)[None]])
    assert len(set(words.ravel())) > 2 and len(set(map(tuple, words.T))) > 1  # else this test says little
    for row in range(N):
        ended = list(words[:, row]).index(0) + 1 if 0 in words[:, row] else T
        assert [END if word == 0 else word + 2 for word in words[:ended, row]] == captions[row, :ended].tolist()
        np.testing.assert_allclose(alphas[row, :ended], expected_alphas[:ended, row], atol=1e-4)


def test_null_and_start_are_next_to_impossible(tmp_path):
    path, parameters, _ = save(tmp_path)
    values = authors_theano.read(path, None).values
    assert values['logits/b_out'][[NULL, START]].tolist() == [-30.0, -30.0]
    assert not values['logits/w_out'][:, [NULL, START]].any() and not values['word_embedding/w'][[NULL, START]].any()
    np.testing.assert_array_equal(values['word_embedding/w'][[END, UNK]], parameters['Wemb'][:2])
    np.testing.assert_array_equal(values['logits/b_out'][2:], parameters['ff_logit_b'])
    assert all(value.dtype == np.float32 for value in values.values())


def test_words_and_rows_without_a_word(tmp_path):
    path, *_ = save(tmp_path)
    imported = authors_theano.read(path, None)
    assert imported.words == ['a', 'dog', '.', 'Red', 'runs', '<unused-7>', 'on', 'grass', '<unused-10>',
                              '<unused-11>', '<unused-12>']
    assert any('4 rows of the model have no word' in note and '7, 10, 11, 12' in note for note in imported.notes)


def test_options(tmp_path):
    path, *_ = save(tmp_path, {'alpha_c': 0.5, 'maxlen': 30, 'use_dropout': False, 'prev2out': False})
    imported = authors_theano.read(path, None)
    options = ModelConfig(**imported.options)
    assert (options.dim_embed, options.dim_hidden, options.alpha_c, options.dropout) == (M, H, 0.5, False)
    assert (options.prev2out, options.ctx2out, options.selector, options.batch_norm) == (False, True, True, False)
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


class Trap:
    """Unpickling it makes a directory."""

    def __init__(self, path):
        self.path = str(path)

    def __reduce__(self):
        return os.mkdir, (self.path,)


def test_pickles_inside_are_never_read(tmp_path):
    trap = np.array([Trap(tmp_path / 'sprung')], object)
    path, *_ = save(tmp_path, zipped_params=trap)
    authors_theano.read(path, None)
    path, *_ = save(tmp_path, drop=['decoder_b'], decoder_b=trap)
    with pytest.raises(InputError, match='missing: decoder_b'):
        authors_theano.read(path, None)
    path, *_ = save(tmp_path, extra=trap)
    with pytest.raises(InputError, match='surplus: extra'):
        authors_theano.read(path, None)
    entries = dict(np.load(save(tmp_path)[0]))
    np.savez(path, **{**entries, 'decoder_b': trap})
    with pytest.raises(InputError, match='decoder_b cannot be read'):
        authors_theano.read(path, None)
    assert not (tmp_path / 'sprung').exists()


@pytest.mark.parametrize(('changes', 'message'), [
    ({'lstm_encoder': True}, 'lstm_encoder'),
    ({'n_layers_lstm': 2}, 'n_layers_lstm=2'),
    ({'attn_type': 'dreamt'}, "attn_type='dreamt'"),
    ({'attn_type': 'stochastic', 'temperature': 0.0}, 'temperature=0.0'),
    ({'n_layers_att': 0}, 'n_layers_att=0: must be from 1'),
    ({'n_layers_init': 10**12}, 'n_layers_init=1000000000000: must be from 1'),
    ({'alpha_c': float('inf')}, 'alpha_c is inf, not a finite number'),
    ({'maxlen': float('inf')}, 'maxlen is inf, not a whole number'),
    ({'maxlen': 'many'}, "maxlen is 'many'"),
    ({'maxlen': 2.7}, 'maxlen is 2.7, not a whole number'),
    ({'maxlen': 1001}, 'maxlen=1001: must be at most 1000'),
    ({'maxlen': 1 << 20000}, 'maxlen is a value of type int, not a whole number'),
    ({'selector': 'no'}, "selector is 'no', not true or false"),
    ({'selector': 2}, 'selector is 2, not true or false'),
    ({'selector': []}, 'selector is a value of type list, not true or false'),
    ({'attn_type': [['deterministic']]}, 'attn_type is a value of type list, not a text'),
    ({'attn_type': 'x' * 10**6}, r"attn_type='x{5,20}\.\.\.x{5,20}': known are"),
])
def test_options_that_are_refused(tmp_path, changes, message):
    path, *_ = save(tmp_path)
    options = {**authors_model.OPTIONS, 'n_words': N_WORDS, 'dim_word': M, 'dim': H, 'ctx_dim': D, **changes}
    (tmp_path / 'model.npz.pkl').write_bytes(pickle.dumps(options))
    with pytest.raises(InputError, match=message):
        authors_theano.read(path, None)


@pytest.mark.parametrize(('value', 'expected'), [
    (True, True), (False, False), (1, True), (0, False), ('True', True), ('False', False), (b'False', False)])
def test_truth_values_of_the_options(tmp_path, value, expected):
    path, *_ = save(tmp_path, {'prev2out': value})
    options = {**authors_model.OPTIONS, 'n_words': N_WORDS, 'dim_word': M, 'dim': H, 'ctx_dim': D, 'prev2out': value}
    (tmp_path / 'model.npz.pkl').write_bytes(pickle.dumps(options, protocol=4))
    assert authors_theano.read(path, None).options['prev2out'] is expected


@pytest.mark.parametrize(('changes', 'message'), [
    ({'semi_sampling_p': 1.5}, 'semi_sampling_p must be at most 1, not 1.5'),
    ({'alpha_entropy_c': -1.0}, 'lambda_e must be at least 0'),
    ({'alpha_c': -1.0}, 'alpha_c must be at least 0'),
])
def test_options_out_of_their_range(tmp_path, changes, message):
    path, *_ = save(tmp_path, {'attn_type': 'stochastic', **changes})
    with pytest.raises(InputError, match=f'model.npz: {message}'):
        make_run(path, None, tmp_path / 'run')
    assert not (tmp_path / 'run').exists()


@pytest.mark.parametrize(('entry', 'message'), [('encoder_W', 'lstm_encoder'), ('decoder_1_U', 'n_layers_lstm=2')])
def test_layers_that_are_refused_without_options_file(tmp_path, entry, message):
    path, *_ = save(tmp_path, **{entry: np.zeros((2, 2))})
    (tmp_path / 'model.npz.pkl').unlink()
    with pytest.raises(InputError, match=message):
        authors_theano.read(path, None)


def test_missing_surplus_and_wrong_entries_are_named(tmp_path):
    path, *_ = save(tmp_path, drop=['ff_state_b', 'decoder_W_att_1'], spare=np.zeros(2),
                    decoder_U_att=np.zeros((D, 2)))
    with pytest.raises(InputError) as error:
        authors_theano.read(path, None)
    message = str(error.value)
    missing = message.split('missing: ')[1].split(';')[0]
    assert 'ff_state_b [11]' in missing and 'decoder_W_att_1 [7, 7]' in missing
    assert 'surplus: spare' in message and 'decoder_U_att [7, 2] instead of [7, 1]' in message


def test_sizes_of_the_options_are_checked_against_the_entries(tmp_path):
    path, *_ = save(tmp_path)
    options = {**authors_model.OPTIONS, 'n_words': N_WORDS + 1, 'dim_word': M, 'dim': H, 'ctx_dim': D}
    (tmp_path / 'model.npz.pkl').write_bytes(pickle.dumps(options))
    with pytest.raises(InputError, match=r'Wemb \[13, 6\] instead of \[14, 6\]'):
        authors_theano.read(path, None)


def test_values_that_are_not_finite_are_refused(tmp_path):
    path, *_ = save(tmp_path, ff_logit_b=np.full(N_WORDS, np.nan, np.float32))
    with pytest.raises(InputError, match='ff_logit_b is not made of finite numbers'):
        authors_theano.read(path, None)


def test_values_that_float32_cannot_hold_are_refused(tmp_path):
    path, *_ = save(tmp_path, ff_logit_b=np.full(N_WORDS, 1e300))
    with pytest.raises(InputError, match='ff_logit_b is not made of finite numbers'):
        authors_theano.read(path, None)


def with_header(path, name, shape, dtype='<f4', version=1):
    """Give an entry the header of another array."""
    with zipfile.ZipFile(path) as archive:
        members = {member: archive.read(member) for member in archive.namelist()}
    header = f"{{'descr': {dtype!r}, 'fortran_order': False, 'shape': {shape}}}\n".encode()
    size = len(header).to_bytes(2 if version == 1 else 4, 'little')
    members[f'{name}.npy'] = b'\x93NUMPY' + bytes([version, 0]) + size + header
    with zipfile.ZipFile(path, 'w') as archive:
        for member, data in members.items():
            archive.writestr(member, data)


@pytest.mark.parametrize(('shape', 'message'), [
    ((2**20, 2**12), 'calls for 17179869184 bytes'),
    ((2**40, 1), 'a size that no model has'),
    ((2**70, 1), 'a size that no model has'),
    ((10**7, 0), 'a size that no model has'),
    ((-1, 6), 'a size that no model has'),
    ((N_WORDS, M), 'calls for 312 bytes'),
    ((1, 1, 1), '3 dimensions'),
])
@pytest.mark.parametrize('version', [1, 2])
def test_shapes_that_are_refused_before_anything_is_read(tmp_path, shape, message, version):
    path, *_ = save(tmp_path)
    with_header(path, 'Wemb', shape, version=version)
    with pytest.raises(InputError, match=f'Wemb .*{message}'):
        authors_theano.read(path, None)


def test_entries_that_are_no_arrays_of_numbers(tmp_path):
    path, *_ = save(tmp_path, decoder_b=np.array(['text']))
    with pytest.raises(InputError, match='decoder_b cannot be read, it is not made of numbers'):
        authors_theano.read(path, None)
    with zipfile.ZipFile(path) as archive:
        members = {member: archive.read(member) for member in archive.namelist()}
    with zipfile.ZipFile(path, 'w') as archive:
        for member, data in members.items():
            archive.writestr(member, b'no array' if member == 'decoder_b.npy' else data)
    with pytest.raises(InputError, match='decoder_b cannot be read'):
        authors_theano.read(path, None)


@pytest.mark.parametrize(('offset', 'byte'), [(10, 97), (8, 1)], ids=['unknown method', 'cipher'])
def test_members_that_zipfile_cannot_read(tmp_path, offset, byte):
    path, *_ = save(tmp_path)
    data = bytearray(path.read_bytes())
    for signature, more in ((b'PK\x01\x02', 0), (b'PK\x03\x04', -2)):  # in the directory and before each member
        place = data.find(signature)
        while place >= 0:
            data[place + offset + more] = byte
            place = data.find(signature, place + 1)
    path.write_bytes(data)
    with pytest.raises(InputError, match='Wemb cannot be read'):
        authors_theano.read(path, None)


@pytest.mark.parametrize('error', [NotImplementedError, RuntimeError, MemoryError])
def test_errors_without_a_text_are_named(tmp_path, monkeypatch, error):
    def fail(self, name):
        raise error

    path, *_ = save(tmp_path)
    monkeypatch.setattr(np.lib.npyio.NpzFile, '__getitem__', fail)
    with pytest.raises(InputError, match=rf'cannot be read \({error.__name__}\)'):
        authors_theano.read(path, None)


@pytest.mark.parametrize(('dictionary', 'message'), [
    ({'a': 2, 'b': 2}, 'same index 2'),
    ({'a': 'two'}, "'a' has the index 'two'"),
    ({'a': float('inf')}, "'a' has the index inf, not a whole number"),
    ({'a': float('nan')}, "'a' has the index nan"),
    ({'a': 2.7}, "'a' has the index 2.7, not a whole number"),
    ({'a': True}, "'a' has the index True"),
    ({'a': [[2]]}, "'a' has the index a value of type list"),
    ({'a' * 10**6: None}, r"'a{5,20}\.\.\.a{5,20}' has the index nothing"),
    ({7: 2}, '7 is not a word'),
    ({1 << 20000: 2}, 'a value of type int is not a word'),
    ({'a': 1 << 20000}, 'no word with an index from 2 to 12'),
    ({'a': 40}, 'no word with an index from 2 to 12'),
    (['a', 'b'], 'holds list'),
])
def test_dictionaries_that_are_refused(tmp_path, dictionary, message):
    path, *_ = save(tmp_path)
    (tmp_path / 'dictionary.pkl').write_bytes(pickle.dumps(dictionary))
    with pytest.raises(InputError, match=message):
        authors_theano.read(path, None)


def test_files_that_are_refused(tmp_path):
    path, *_ = save(tmp_path)
    (tmp_path / 'dictionary.pkl').unlink()
    with pytest.raises(InputError, match='no dictionary.pkl beside it'):
        authors_theano.read(path, None)
    with pytest.raises(InputError, match='cannot be read'):
        authors_theano.read(tmp_path / 'none.npz', None)
    (tmp_path / 'text.npz').write_text('no archive')
    with pytest.raises(InputError, match='not a NumPy .npz file'):
        authors_theano.read(tmp_path / 'text.npz', None)
    np.save(tmp_path / 'one.npy', np.zeros(3))
    with pytest.raises(InputError, match='one array'):
        authors_theano.read(tmp_path / 'one.npy', None)
    np.savez(tmp_path / 'other.npz', weights=np.zeros(3))
    with pytest.raises(InputError, match='lacks the entry Wemb'):
        authors_theano.read(tmp_path / 'other.npz', None)
    cut = path.read_bytes()
    (tmp_path / 'cut.npz').write_bytes(cut[:len(cut) // 2])
    with pytest.raises(InputError, match='not a NumPy .npz file, or a damaged one'):
        authors_theano.read(tmp_path / 'cut.npz', None)


def test_special_spellings_in_the_dictionary(tmp_path):
    path, *_ = save(tmp_path)
    dictionary = {**{special: number + 2 for number, special in enumerate(SPECIALS)}, 'a': 6}
    (tmp_path / 'dictionary.pkl').write_bytes(pickle.dumps(dictionary))
    words = authors_theano.read(path, None).words
    assert words[:5] == ['<unused-2>', '<unused-3>', '<unused-4>', '<unused-5>', 'a']
    Vocabulary(words)


def test_a_run_of_it(tmp_path):
    """The whole way: files of the authors in, a RUN DIR out that gives the authors' probabilities."""
    path, parameters, options = save(tmp_path, ctx_dim=512)
    lines = []
    make_run(path, None, tmp_path / 'run', encoder={'size': 32}, max_length=T - 1, say=lines.append)
    assert any('kind authors' in line for line in lines)
    run = run_dir.Run(tmp_path / 'run')
    features = np.random.default_rng(4).normal(0.1, 0.2, (N, 4, 512)).astype(np.float32)
    with tiny_model.tf_graph():
        model = run.build_model()
        model.build_model(training=False)
        with tiny_model.session(model) as session:
            run.restore(session, model)
            got = session.run(model.outputs.log_probs, {model.features: features, model.captions: OURS})
    expected, _ = authors_model.run(parameters, options, features, WORDS)
    for row in range(N):
        for t in range(list(OURS[row]).index(END)):
            assert got[row, t] == pytest.approx(expected[t, row, WORDS[t, row]], abs=1e-4)
