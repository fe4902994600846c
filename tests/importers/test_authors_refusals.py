"""Files of the authors' code that are damaged, odd or hostile: one line says what and where."""

import os
import pickle
import zipfile

import numpy as np
import pytest

from core.common.errors import InputError
from core.importers import authors_theano
from core.importers.make_run import make_run
from tests.support import authors_model
from tests.support.authors_files import N_WORDS, D, H, M, save


class Trap:
    """An object that makes a directory when it is unpickled."""

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
    options = {**authors_model.OPTIONS, 'n_words': N_WORDS, 'dim_word': M, 'dim': H, 'ctx_dim': D,
               **changes}
    (tmp_path / 'model.npz.pkl').write_bytes(pickle.dumps(options))
    with pytest.raises(InputError, match=message):
        authors_theano.read(path, None)


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


@pytest.mark.parametrize(('entry', 'message'),
                         [('encoder_W', 'lstm_encoder'), ('decoder_1_U', 'n_layers_lstm=2')])
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
    options = {**authors_model.OPTIONS, 'n_words': N_WORDS + 1, 'dim_word': M, 'dim': H,
               'ctx_dim': D}
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
    # in the directory and before each member
    for signature, more in ((b'PK\x01\x02', 0), (b'PK\x03\x04', -2)):
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
