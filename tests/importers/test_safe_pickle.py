"""Other people's pickles: plain data of every protocol is read, programs never run."""

import collections
import json
import os
import pathlib
import pickle

import numpy as np
import pytest

from core.common.errors import InputError
from core.data.vocabulary import Vocabulary
from core.importers import safe_pickle

WORDS = {'<NULL>': 0, '<START>': 1, '<END>': 2, 'café': 3, '犬': 4}


def write(path, data):
    path.write_bytes(data)
    return path


@pytest.mark.parametrize('protocol', range(pickle.HIGHEST_PROTOCOL + 1))
def test_plain_data_of_every_protocol(tmp_path, protocol):
    value = {
        'words': WORDS, 'ordered': collections.OrderedDict([('a', 1),
                                                            ('b', [2.5, -3, 2**70, 300, 70000])]),
        'empty': [{}, [], (), '', collections.OrderedDict()], 'flags': (True, False, None),
        'tuples': [(1,), (1, 2), (1, 2, 3), (1, 2, 3, 4)], 'long': 'x' * 300, 3: b'bytes'}
    if protocol < 3:
        del value[3]  # these protocols write bytes as a call of a codec
    path = write(tmp_path / 'data.pkl', pickle.dumps(value, protocol))
    content = safe_pickle.load(path)
    assert content == value and isinstance(content['ordered'], collections.OrderedDict)
    shared = safe_pickle.load(write(path, pickle.dumps([WORDS, WORDS], protocol)))
    assert shared[0] is shared[1] and shared[0] == WORDS


@pytest.mark.parametrize('data', [
    # {'a': 0, 'caf\xc3\xa9': 1L, u'\u72ac': 2} of Python 2, protocols 0, 1 and 2
    b"(dp0\nS'a'\np1\nI0\nsS'caf\\xc3\\xa9'\np2\nL1L\nsV\\u72ac\np3\nI2\ns.",
    b'}q\x00(U\x01aq\x01K\x00U\x05caf\xc3\xa9q\x02L1L\nX\x03\x00\x00\x00\xe7\x8a\xacq\x03K\x02u.',
    b'\x80\x02}q\x00(U\x01aq\x01K\x00U\x05caf\xc3\xa9q\x02\x8a\x01\x01X\x03\x00\x00\x00\xe7\x8a\xacq\x03K\x02u.',
    # the same as an OrderedDict, protocol 0
    b"ccollections\nOrderedDict\np0\n((lp1\n(lp2\nS'a'\np3\naI0\naa(lp4\nS'caf\\xc3\\xa9'\naI1\naa(lp5\nV\\u72ac\naI2"
    b'\naatp6\nRp7\n.',
])
def test_python_2(tmp_path, data):
    assert safe_pickle.word_to_idx(write(tmp_path / 'w.pkl', data)) == {'a': 0, 'café': 1, '犬': 2}


def test_python_2_texts_that_are_not_utf8_are_latin_1(tmp_path):
    assert safe_pickle.load(write(tmp_path / 'w.pkl',
                                  b'\x80\x02}U\x04caf\xe9K\x00s.')) == {'café': 0}


class Call:
    """An object that pickles as a call of `function` with `arguments`."""

    def __init__(self, function, *arguments):
        self.parts = function, arguments

    def __reduce__(self):
        return self.parts


@pytest.mark.parametrize('protocol', range(pickle.HIGHEST_PROTOCOL + 1))
@pytest.mark.parametrize(
    'wrap', [lambda x: x, lambda x: {'<NULL>': x}, lambda x: collections.OrderedDict(a=[x])])
def test_payloads_do_not_run(tmp_path, protocol, wrap):
    mark = tmp_path / 'it-ran'
    path = write(tmp_path / 'w.pkl', pickle.dumps(wrap(Call(os.system, f'touch {mark}')), protocol))
    with pytest.raises(InputError, match=rf'w.pkl: .*the class or function {os.name}\.system'):
        safe_pickle.word_to_idx(path)
    assert not mark.exists()
    pickle.loads(path.read_bytes())  # the payload is a real one
    assert mark.exists()


def test_every_other_class_is_refused_by_name(tmp_path):
    for value, name in ((collections.Counter(a=1), 'collections.Counter'),
                        (np.float32(1), 'scalar'), (np.zeros(2), '_reconstruct'), ({1, 2}, 'set'),
                        (Call(eval, '1'), 'eval'), (Vocabulary(['a']), 'Vocabulary|_reconstructor'),
                        (len, 'len'), (pathlib.PurePosixPath('x'), 'pathlib.PurePosixPath')):
        for protocol in (0, 2):
            path = write(tmp_path / 'w.pkl', pickle.dumps([value], protocol))
            with pytest.raises(InputError, match=name):
                safe_pickle.load(path)


@pytest.mark.parametrize(('data', 'part'), [
    (b"(S'touch it-ran'\nios\nsystem\n.", 'INST'),
    (b"(cos\nsystem\nS'touch it-ran'\no.", 'os.system'),
    (b'(ccollections\nOrderedDict\no.', 'OBJ'),
    (b'ccollections\nOrderedDict\n)\x81.', 'NEWOBJ'),
    (b'Pmine\n.', 'PERSID'),
    (b'\x80\x02]Q.', 'BINPERSID'),
    (b'\x80\x02\x82\x01.', 'EXT1'),
    (b'\x80\x02}}b.', 'BUILD'),
    (b'\x80\x05\x97.', 'NEXT_BUFFER'),
    (b'\x80\x05\x96\xff\xff\xff\xff\xff\xff\xff\x0f.', 'BYTEARRAY8'),
    (b'\x80\x04\x8f.', 'EMPTY_SET'),
    (b"S'a'\n)R.", 'not callable'),
    (b'ccollections\nOrderedDict\n(K\x01K\x02tR.', 'arguments'),
    (b'}(K\x01tK\x02s.', 'a key of type tuple'),
    (b'}(K\x00K\x00(K\x01tK\x02u.', 'a key of type tuple'),
    (b'ccollections\nOrderedDict\n(((K\x01tK\x02tt\x85R.', 'a key of type tuple'),
    (b'ccollections\nOrderedDict\nK\x01K\x02s.', 'does not support item assignment'),
    (b'ccollections\nOrderedDict\nK\x01a.', "no attribute 'append'"),
])
def test_instructions_for_objects_do_not_exist(tmp_path, monkeypatch, data, part):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match=part):
        safe_pickle.load(write(tmp_path / 'w.pkl', data))
    assert not (tmp_path / 'it-ran').exists()


@pytest.mark.parametrize('data', [
    b'', b'\x80', b'\x80\x63.', b'nonsense', b'\x80\x04}', b'g7\n.', b'.', b'e.', b'R.', b's.',
    b'}K\x01s.', b'u.', b'\x80\x02]K\x01(e\x00.', b"S'a\n.", b'I1x\n.', b'}(K\x01u.',
    b'X\xff\xff\xff\x7fa.', b'\x80\x04\x95' + b'\xff' * 8,
    b'\x80\x04\x8d\xff\xff\xff\xff\xff\xff\xff\x0fa.', b'\x80\x04\x93.', b'\x80\x04K\x01K\x02\x93.',
    b'L' + b'9' * 9999 + b'L\n.', b'PK\x03\x04', b'\x93NUMPY', bytes(range(256))])
def test_damage_is_one_error(tmp_path, data):
    with pytest.raises(InputError, match=r'w\.pkl: '):
        safe_pickle.load(write(tmp_path / 'w.pkl', data))


def test_every_cut_and_every_changed_byte_ends_in_data_or_one_error(tmp_path):
    path = tmp_path / 'w.pkl'
    for protocol in (0, 4):
        good = pickle.dumps(collections.OrderedDict(WORDS), protocol)
        broken = [good[:length] for length in range(len(good))]
        broken += [good[:i] + bytes([byte]) + good[i + 1:] for i in range(len(good))
                   for byte in b'(\x85Rs\xff']
        for data in broken:
            try:
                safe_pickle.load(write(path, data))
            except InputError as error:
                assert str(path) in str(error)


def test_bombs_cost_no_time_and_no_memory(tmp_path):
    path = tmp_path / 'w.pkl'
    # a memo place of two thousand million
    assert safe_pickle.load(write(path, b'}r\xff\xff\xff\x7f.')) == {}
    # a key that takes 2**60 steps to hash
    with pytest.raises(InputError, match='a key of type tuple'):
        safe_pickle.load(write(path, b'}' + b')' + b'2\x86' * 60 + b'K\x01s.'))
    # one too deep for the C stack, by which hashes are computed; alone it is harmless
    deep = b')' + b'\x85' * 10**6
    with pytest.raises(InputError, match='a key of type tuple'):
        safe_pickle.load(write(path, b'}' + deep + b'K\x01s.'))
    with pytest.raises(InputError, match='a key of type tuple'):
        safe_pickle.load(write(path, b'(' + deep + b'K\x01d.'))
    # a list of a million items called for a hundred million times
    pairs = b'](' + b'](K\x00K\x00e' + b'2' * 70000 + b'e\x94'
    calls = b'ccollections\nOrderedDict\n\x94' + b'h\x01h\x00\x85R' * 9000
    with pytest.raises(InputError, match='too many items'):
        safe_pickle.load(write(path, b'\x80\x04' + pairs + calls))
    path.write_bytes(b'')
    os.truncate(path, safe_pickle.LARGEST + 1)
    with pytest.raises(InputError, match='too many'):
        safe_pickle.load(path)


def test_word_to_idx_from_pickle_json_and_our_own_vocabulary(tmp_path):
    assert safe_pickle.word_to_idx(write(tmp_path / 'w.pkl', pickle.dumps(WORDS))) == WORDS
    assert safe_pickle.word_to_idx(write(tmp_path / 'w', json.dumps(WORDS).encode())) == WORDS
    assert safe_pickle.word_to_idx(write(tmp_path / 'w', b'\xef\xbb\xbf\n'
                                         + json.dumps(WORDS).encode())) == WORDS
    vocabulary = Vocabulary(['dog', 'café'])
    vocabulary.save(tmp_path / 'vocabulary.json')
    assert safe_pickle.word_to_idx(tmp_path / 'vocabulary.json') == vocabulary.word_to_idx
    assert safe_pickle.word_to_idx(write(tmp_path / 'w', b'{"a": 2, "b": 3}'), first=2) == {
        'a': 2, 'b': 3}


@pytest.mark.parametrize(('content', 'part'), [
    ({'a': 0, 'b': 0}, "'a' and 'b' have the same index 0"),
    ({'a' * 10**6: 0, 'b': 0}, r"'a{5,20}\.\.\.a{5,20}' and 'b' have the same index 0"),
    ({'a': 0, 'b': 2}, 'no word has the index 1'),
    ({'a': 1, 'b': 2}, 'no word has the index 0'),
    ({'a': -1, 'b': 0}, 'no word has the index 1'),
    ({'a': 0, 'b': '1'}, 'type str'),
    ({'a': 0, 'b': 1.0}, 'type float'),
    ({'a': 0, 'b': True}, 'type bool'),
    ({'a': 0, 'b': None}, 'nothing'),
    ({0: 'a'}, 'type int'),
    ({}, 'type dict'),
    ([['a', 0]], 'type list'),
    (7, 'type int'),
])
def test_what_is_no_word_to_idx(tmp_path, content, part):
    with pytest.raises(InputError, match=part):
        safe_pickle.word_to_idx(write(tmp_path / 'w.pkl', pickle.dumps(content)))
    if not isinstance(content, int) and 0 not in content:
        with pytest.raises(InputError, match=part):
            safe_pickle.word_to_idx(write(tmp_path / 'w.json', json.dumps(content).encode()))


@pytest.mark.parametrize('data', [b'{', b'{"a": 0', b'[' * 100000, b'{"a": "\xff"}',
                                  b'{"format": 1, "words": [1]}', b'{"format": 1, "words": ["a", '
                                  b'"a"]}'])
def test_damaged_json_is_one_error(tmp_path, data):
    with pytest.raises(InputError, match=r'w\.json: '):
        safe_pickle.word_to_idx(write(tmp_path / 'w.json', data))


def test_what_messages_show_of_a_value_is_short():
    deep = []
    for _ in range(10**5):
        deep = [deep]
    assert [safe_pickle.shown(value) for value in ('a', b'a', 2.5, True, 7, None)] == [
        "'a'", "b'a'", '2.5', 'True', '7', 'nothing']
    for value in (deep, {'a': deep}, 1 << 20000, 'x' * 10**6):
        assert len(safe_pickle.shown(value)) < 50
    with pytest.raises(InputError, match='the same index a value of type int'):
        raise InputError(f'the same index {safe_pickle.shown(1 << 20000)}')


def test_no_file(tmp_path):
    for path in (tmp_path, tmp_path / 'none'):
        with pytest.raises(InputError, match='cannot be read'):
            safe_pickle.word_to_idx(path)
