"""Tokens and vocabulary."""

import json
import unicodedata

import numpy as np
import pytest

from core.common.errors import InputError
from core.data.vocabulary import (
    END,
    NULL,
    SPECIALS,
    START,
    TOKENS,
    UNK,
    Vocabulary,
    tokenize,
    tokenize_raw,
    tokenize_raw_lower,
)


@pytest.mark.parametrize(('caption', 'tokens'), [
    ("A man's red T-shirt .", 'a mans red t shirt'),
    ('The dog’s and the cat`s ball', 'the dogs and the cats ball'),
    ('man´s man＇s', 'mans mans'),
    ('Two "dogs", (running); 3 cats!', 'two dogs running 3 cats'),
    ('a_b/c|d\te\rf\x00g\u2028h\u200bi\nj', 'a b c d e f g h i j'),
    ('dog😀cat 👩‍🚀 1️⃣', 'dog cat 1'),
    ('Ｆｕｌｌ ﬁsh №5', 'full fish no5'),
    ('cafe\u0301 CAFÉ', 'café café'),
    ('ÉCOLE İstanbul', 'école i̇stanbul'),
    ('एक हिन्दी वाक्य', 'एक हिन्दी वाक्य'),
    ('क्\u200dष foot\u00adball', 'क्ष football'),
    ('q\u0308 - \u0308x', 'q\u0308 x'),
    ('<START> <UNK>', 'start unk'),
    ('\ud800 lone', 'lone'),
])
def test_tokenize(caption, tokens):
    assert tokenize(caption) == tokens.split(' ')


@pytest.mark.parametrize('caption', ['', ' \t\n', '...', "'", '🙂', '\u0301', '--'])
def test_caption_without_words_has_no_tokens(caption):
    assert tokenize(caption) == []


def test_tokens_are_stable():
    """A caption made of tokens has those tokens, so that text can go back and forth."""
    for text in ("It's a Straße, ½ of ﷺ", 'हिन्दी é q\u0308 ΣΑΣ'):
        assert tokenize(' '.join(tokenize(text))) == tokenize(text)


@pytest.mark.parametrize(('caption', 'tokens'), [
    ("A man's  red T-shirt .", ['A', "man's", 'red', 'T-shirt', '.']),
    ('Two "dogs",\t(running)... ', ['Two', '"dogs",', '(running)...']),
    ('a\u2028b\u2029c\x85d\xa0e\u3000f\x1cg\rh\ni', list('abcdefghi')),
    ('a\x00b\x07c\x7fd\x9fe\u200bf\ufeff', list('abcdef')),
    ('\ud800 lone\udfff', ['lone']),
    ('Cafe\u0301 CAFÉ', ['Café', 'CAFÉ']),
    ('Ｆｕｌｌ ﬁsh', ['Ｆｕｌｌ', 'ﬁsh']),          # NFKC would make them others
    ('👩‍🚀 1️⃣ <UNK> <b>', ['👩‍🚀', '1️⃣', '<UNK>', '<b>']),
    ('.', ['.']), (' \t', []), ('', []),
])
def test_raw_tokens_are_what_stands_between_blanks(caption, tokens):
    assert tokenize_raw(caption) == tokens
    assert tokenize_raw(' '.join(tokens)) == tokens


def test_raw_tokens_in_lower_case():
    assert tokenize_raw_lower("A man's RED T-shirt .") == ['a', "man's", 'red', 't-shirt', '.']
    assert tokenize_raw_lower('E\u0301COLE ÉCOLE') == ['école', 'école']
    for text in ('İstanbul ΣΑΣ, Straße', 'Ǆ A\u030a.'):
        tokens = tokenize_raw_lower(text)
        assert tokenize_raw_lower(' '.join(tokens)) == tokens
        assert all(unicodedata.is_normalized('NFC', token) for token in tokens)


def test_the_names_of_the_ways_to_cut():
    assert {name: cut('A Dog .') for name, cut in TOKENS.items()} == {
        'words': ['a', 'dog'], 'raw': ['A', 'Dog', '.'], 'raw_lower': ['a', 'dog', '.']}


CAPTIONS = ['b a', 'b c', 'b a d d', 'e']


def build(**options):
    return Vocabulary.build([caption.split() for caption in CAPTIONS], **options)


def test_build_orders_by_frequency_then_alphabet():
    vocabulary = build()
    assert (NULL, START, END, UNK) == (0, 1, 2, 3)
    assert vocabulary.idx_to_word == ['<NULL>', '<START>', '<END>', '<UNK>', 'b', 'a', 'd', 'c',
                                      'e']
    assert vocabulary.word_to_idx == {word: i for i, word in enumerate(vocabulary.idx_to_word)}
    assert len(vocabulary) == 9
    assert vocabulary.counts == [0, 0, 4, 0, 3, 2, 2, 1, 1]


def test_build_limits():
    assert build(vocab_size=2).idx_to_word[4:] == ['b', 'a']
    assert build(min_count=2).idx_to_word[4:] == ['b', 'a', 'd']
    assert build(vocab_size=2, min_count=3).idx_to_word[4:] == ['b']
    assert build(vocab_size=100).idx_to_word[4:] == ['b', 'a', 'd', 'c', 'e']


def test_counts_hold_every_word_of_the_captions():
    vocabulary = build(vocab_size=2)
    assert vocabulary.counts == [0, 0, 4, 4, 3, 2]
    assert sum(vocabulary.counts) == sum(len(caption.split()) + 1 for caption in CAPTIONS)


@pytest.mark.parametrize(
    'options', [{'vocab_size': 0}, {'vocab_size': -1}, {'vocab_size': 2.5}, {'vocab_size': True},
                {'min_count': 0}, {'min_count': None}, {'min_count': '2'}, {'min_count': 9}])
def test_build_refuses_bad_limits(options):
    with pytest.raises(InputError, match=next(iter(options))):
        build(**options)


def test_build_refuses_no_captions():
    with pytest.raises(InputError, match='0 training captions'):
        Vocabulary.build([])


def test_text_spelt_like_a_special_is_unknown():
    vocabulary = Vocabulary.build([['<END>', 'a', '<NULL>']])
    assert vocabulary.idx_to_word == [*SPECIALS, 'a']
    assert vocabulary.counts[UNK] == 2
    assert vocabulary.encode(['<END>', 'a', '<START>'], 3).tolist() == [START, UNK, 4, UNK, END]


def test_raw_text_cannot_end_a_caption():
    tokens = tokenize_raw('A <END> dog <NULL> .')
    vocabulary = Vocabulary.build([tokens])
    assert sorted(vocabulary.idx_to_word[4:]) == ['.', 'A', 'dog']
    ids = vocabulary.encode(tokens, 5)
    assert (ids == END).nonzero()[0].tolist() == [6] and NULL not in ids
    assert vocabulary.decode(ids) == 'A <UNK> dog <UNK> .'


def test_encode():
    ids = build(vocab_size=2).encode(['a', 'never', 'b'], 5)
    assert ids.dtype == np.int32
    assert ids.tolist() == [START, 5, UNK, 4, END, NULL, NULL]
    assert build().encode(['a', 'b'], 2).tolist() == [START, 5, 4, END]
    assert build().encode([], 1).tolist() == [START, END, NULL]
    with pytest.raises(ValueError, match='3 words'):
        build().encode(['a', 'b', 'c'], 2)


def test_decode_stops_at_end_and_at_null():
    vocabulary = build()
    assert vocabulary.decode([START, 4, 5, END, 6, 7]) == 'b a'
    assert vocabulary.decode([4, NULL, 5]) == 'b'
    assert vocabulary.words(np.array([4, UNK, START, 5], np.int64)) == ['b', '<UNK>', 'a']
    assert vocabulary.decode([]) == ''
    assert vocabulary.decode(vocabulary.encode(['d', 'e'], 9)) == 'd e'
    for outside in (-1, 9):
        with pytest.raises(ValueError, match=str(outside)):
            vocabulary.words([4, outside])


@pytest.mark.parametrize(('words', 'counts'),
                         [(['a', 'a'], None), (['<END>'], None), ([''], None), ([1], None),
                          (['a'], [1]), (['a'], [0, 0, 0, 0, -1]), (['a'], [0, 0, 0, 0, 1.5])])
def test_constructor_refuses(words, counts):
    with pytest.raises(ValueError):
        Vocabulary(words, counts)


def test_save_and_load(tmp_path):
    path = tmp_path / 'vocabulary.json'
    vocabulary = Vocabulary(['हिन्दी', 'é', 'a'], [0, 0, 2, 1, 5, 4, 3])
    path.write_text('old')
    vocabulary.save(path)
    loaded = Vocabulary.load(path)
    assert loaded == vocabulary
    assert loaded.counts == vocabulary.counts
    assert 'version' in json.loads(path.read_text(encoding='utf8'))
    assert [file.name for file in tmp_path.iterdir()] == ['vocabulary.json']
    Vocabulary(['b']).save(path)
    assert Vocabulary.load(path) != vocabulary
    assert Vocabulary.load(path).counts is None


def test_failed_save_keeps_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / 'vocabulary.json'
    build().save(path)

    def fail(*_, **__):
        raise OSError('disk full')

    monkeypatch.setattr('core.common.files.json.dump', fail)
    with pytest.raises(OSError, match='disk full'):
        Vocabulary(['other']).save(path)
    monkeypatch.undo()
    assert Vocabulary.load(path) == build()
    assert len(list(tmp_path.iterdir())) == 1


def content(**changes):
    good = {'format': 'show-attend-tell vocabulary', 'version': 1, 'words': [*SPECIALS, 'a', 'b'],
            'counts': None}
    return json.dumps({**good, **changes})


@pytest.mark.parametrize(('text', 'said'), [
    ('not json', 'not JSON'),
    (b'\xff\xfe', 'not JSON'),
    ('[]', 'not a vocabulary'),
    ('{}', 'not a vocabulary'),
    (content(version=2), 'version 2'),
    (content(words=[*SPECIALS, 'a', 'a']), "'a' occurs twice"),
    (content(words=['a', 'b', 'c', 'd', 'e']), 'do not begin with <NULL>'),
    (content(words=['<NULL>', '<START>', '<UNK>', '<END>', 'a']), 'do not begin with <NULL>'),
    (content(words=list(SPECIALS[:3])), 'do not begin with <NULL>'),
    (content(words='<NULL>'), 'do not begin with <NULL>'),
    (content(words=[*SPECIALS, 3]), 'non-empty string'),
    (content(words=[*SPECIALS, ['a']]), 'non-empty string'),
    (content(counts=[1, 2]), '2 counts for 6 words'),
    (content(counts=7), 'vocabulary file'),
])
def test_load_refuses(tmp_path, text, said):
    path = tmp_path / 'words.json'
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(InputError, match=said) as caught:
        Vocabulary.load(path)
    assert 'words.json' in str(caught.value)


def test_load_refuses_a_missing_file(tmp_path):
    with pytest.raises(InputError, match='nowhere.json'):
        Vocabulary.load(tmp_path / 'nowhere.json')
    with pytest.raises(InputError, match=tmp_path.name):
        Vocabulary.load(tmp_path)
