"""Words: how captions are cut into tokens, and the numbers that stand for them.

For example:
    tokens = tokenize("A man's red T-shirt.")             # ['a', 'mans', 'red', 't', 'shirt']
    vocabulary = Vocabulary.build([tokens], vocab_size=10000)
    ids = vocabulary.encode(tokens, max_length=16)  # int32 (18,): <START> a mans ... <END> <NULL>
    vocabulary.decode(ids)                                # 'a mans red t shirt'

`TOKENS` has the ways to cut a caption by the names that prepro.py --tokens takes.
"""

import collections
import unicodedata
from collections.abc import Callable, Iterable, Sequence

import numpy as np

from core.common.aliases import PathLike
from core.common.errors import InputError
from core.common.files import read_json, write_json

NULL, START, END, UNK = 0, 1, 2, 3
SPECIALS = ('<NULL>', '<START>', '<END>', '<UNK>')

_FORMAT, _VERSION = 'show-attend-tell vocabulary', 1
_APOSTROPHES = dict.fromkeys(map(ord, '\'’‘`´\u02bc'))
# What has no width of its own: soft hyphen, joiners inside Indic and Persian words, variation
# selectors.
_INVISIBLE = dict.fromkeys([0xAD, 0x200C, 0x200D, *range(0xFE00, 0xFE10), *range(0xE0100, 0xE01F0)])
# What ends a raw token without being a blank to Python: control characters, halves of surrogate
# pairs (no UTF-8), the zero-width space and the byte order mark.
_BREAKS = dict.fromkeys([*range(0x20), *range(0x7F, 0xA0), *range(0xD800, 0xE000), 0x200B, 0xFEFF],
                        ' ')


def tokenize(caption: str) -> list[str]:
    """Cut a caption into words.

    1. Unicode form NFKC (full-width letters, ligatures and decomposed accents become the usual
       letters), lower case.
    2. Apostrophes (' ’ ‘ ` ´ and the modifier letter) are deleted: "man's" is one word, 'mans'. So
       are characters without a width inside a word: soft hyphen, zero-width joiner and non-joiner,
       variation selectors.
    3. Letters and digits of any script stay, with the combining marks that follow a letter (Hindi
       vowel signs, accents without a composed form). Every other character ends a word: blanks,
       punctuation, '-', '_', symbols, emoji, control characters.

    Args:
        caption: str.

    Returns:
        list of str, empty when the caption has no letter or digit. No token can look like one of
        `SPECIALS`.
    """
    # The acute accent must go before NFKC, which would make it a blank and a combining mark.
    text = unicodedata.normalize('NFKC', caption.translate(_APOSTROPHES)).lower()
    text = unicodedata.normalize('NFKC', text).translate(_APOSTROPHES).translate(_INVISIBLE)
    if text.isascii():
        return ''.join(c if c.isalnum() else ' ' for c in text).split()
    characters, on_letter = [], False
    for character in text:
        kind = unicodedata.category(character)[0]
        on_letter = kind == 'L' or (kind == 'M' and on_letter)
        characters.append(character if on_letter or kind == 'N' else ' ')
    return ''.join(characters).split()


def tokenize_raw(caption: str) -> list[str]:
    """Cut a caption at blanks and leave the rest as it is: case, punctuation, symbols.

    Line ends and control characters count as blanks. The text is brought into Unicode form NFC, so
    that letters that look the same are the same; texts with the same tokens are the same text for
    the paper's scoring.

    Args:
        caption: str.

    Returns:
        list of str, empty when the caption is blank. A token may be spelt like one of `SPECIALS`;
        `Vocabulary` takes it for an unknown word.
    """
    return unicodedata.normalize('NFC', caption).translate(_BREAKS).split()


def tokenize_raw_lower(caption: str) -> list[str]:
    """Cut a caption as `tokenize_raw` does, in lower case."""
    return tokenize_raw(unicodedata.normalize('NFC', caption).lower())


TOKENS: dict[str, Callable[[str], list[str]]] = {
    'words': tokenize, 'raw': tokenize_raw, 'raw_lower': tokenize_raw_lower}


class Vocabulary:
    """The words that a model knows, numbered: the four specials 0 to 3, then the others.

    Attributes:
        idx_to_word: list of str, the specials first.
        word_to_idx: dict from each of these strings to its number.
        counts: list of int, how often each entry of `idx_to_word` occurred as a word to predict in
            the training captions, or None where unknown. `<UNK>` has the number of words that are
            not in the vocabulary, `<END>` the number of captions, `<NULL>` and `<START>` 0, as
            neither is ever predicted.
    """

    def __init__(self, words: Iterable[str], counts: Sequence[int] | None = None) -> None:
        """Number `words`: distinct non-empty str, without the specials; else ValueError."""
        self.idx_to_word = [*SPECIALS, *words]
        if not all(isinstance(word, str) and word for word in self.idx_to_word):
            raise ValueError('every word must be a non-empty string')
        self.word_to_idx = {word: index for index, word in enumerate(self.idx_to_word)}
        if len(self.word_to_idx) != len(self.idx_to_word):
            twice = next(word for word, n in collections.Counter(self.idx_to_word).items() if n > 1)
            raise ValueError(f'the word {twice!r} occurs twice')
        self.counts = None if counts is None else list(counts)
        if self.counts is not None:
            if len(self.counts) != len(self.idx_to_word):
                raise ValueError(f'{len(self.counts)} counts for {len(self.idx_to_word)} words')
            if not all(type(count) is int and count >= 0 for count in self.counts):
                raise ValueError('every count must be an integer of at least 0')

    def __len__(self) -> int:
        """Return the number of entries, the four specials included."""
        return len(self.idx_to_word)

    def __eq__(self, other: object) -> bool:
        """Say whether the same numbers stand for the same words."""
        return isinstance(other, Vocabulary) and self.idx_to_word == other.idx_to_word

    # The way to say 'not hashable', which typeshed does not know.
    __hash__ = None  # type: ignore[assignment]

    @classmethod
    def build(cls, token_lists: Iterable[Sequence[str]], vocab_size: int | None = None,
              min_count: int = 1) -> 'Vocabulary':
        """Make the vocabulary of the training captions: most frequent first, ties by alphabet.

        Args:
            token_lists: iterable of lists of str, one for each caption.
            vocab_size: keep at most so many words, the four specials not counted; None keeps all.
            min_count: keep only words that occur at least so often.

        Returns:
            Vocabulary with `counts`.

        Raises:
            InputError: a limit below 1, or no word is left.
        """
        for name, value in (('vocab_size', vocab_size), ('min_count', min_count)):
            if value is None and name == 'vocab_size':
                continue
            if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or value < 1:
                raise InputError(f'{name} is {value!r}: give a whole number of at least 1')
        frequency: collections.Counter[str] = collections.Counter()
        n_captions = 0
        for tokens in token_lists:
            frequency.update(tokens)
            n_captions += 1
        words = [word for word, count in frequency.items() if count >= min_count
                 and word not in SPECIALS]
        words = sorted(words, key=lambda word: (-frequency[word], word))[:vocab_size]
        if not words:
            raise InputError(f'no word occurs at least {min_count} times in the {n_captions} '
                             'training captions: check that the training split has captions, or '
                             'lower min_count')
        counts = [frequency[word] for word in words]
        unknown = sum(frequency.values()) - sum(counts)
        return cls(words, [0, 0, n_captions, unknown, *counts])

    def encode(self, tokens: Sequence[str], max_length: int) -> np.ndarray:
        """Number one caption: `<START>`, the words, `<END>`, then `<NULL>` up to the full length.

        Args:
            tokens: list of str, at most `max_length`; words that are not known become `<UNK>`.
            max_length: int.

        Returns:
            int32 array (max_length + 2,).

        Raises:
            ValueError: more tokens than `max_length`.
        """
        if len(tokens) > max_length:
            raise ValueError(f'{len(tokens)} words in a caption of at most {max_length}')
        ids = np.full(max_length + 2, NULL, np.int32)
        # max(): a token spelt like a special is text, and must not end or start the sentence.
        ids[:len(tokens) + 2] = [
            START, *(max(self.word_to_idx.get(token, UNK), UNK) for token in tokens), END]
        return ids

    def words(self, ids: Sequence[int] | np.ndarray) -> list[str]:
        """Read one caption back.

        Args:
            ids: 1-D sequence or array of integers.

        Returns:
            list of str: the words before the first `<END>` or `<NULL>`; `<START>` is skipped.

        Raises:
            ValueError: a number outside the vocabulary before that.
        """
        words = []
        for index in np.asarray(ids).reshape(-1).tolist():
            if index in (END, NULL):
                break
            if not 0 <= index < len(self.idx_to_word):
                raise ValueError(f'word number {index} in a vocabulary of {len(self.idx_to_word)}')
            if index != START:
                words.append(self.idx_to_word[index])
        return words

    def decode(self, ids: Sequence[int] | np.ndarray) -> str:
        """Return `words(ids)` as one str with blanks between."""
        return ' '.join(self.words(ids))

    def save(self, path: PathLike) -> None:
        """Write the vocabulary as JSON; the file appears whole or not at all."""
        write_json(path, {'format': _FORMAT, 'version': _VERSION, 'words': self.idx_to_word,
                          'counts': self.counts}, indent=0)

    @classmethod
    def load(cls, path: PathLike) -> 'Vocabulary':
        """Read what `save` wrote.

        Raises:
            InputError: no such file, or not a vocabulary of this version with its specials in
                place.
        """
        advice = 'give a vocabulary file written by prepro.py'
        content = read_json(path, advice)
        if not isinstance(content, dict) or content.get('format') != _FORMAT:
            raise InputError(f'{path}: is JSON but not a vocabulary; {advice}')
        if content.get('version') != _VERSION:
            raise InputError(f'{path}: is a vocabulary of version {content.get("version")!r}, '
                             f'this program reads version {_VERSION}; {advice}')
        words, counts = content.get('words'), content.get('counts')
        if not isinstance(words, list) or tuple(words[:len(SPECIALS)]) != SPECIALS:
            raise InputError(f'{path}: its words do not begin with {" ".join(SPECIALS)}; {advice}')
        try:
            return cls(words[len(SPECIALS):], counts)
        except (ValueError, TypeError) as error:
            raise InputError(f'{path}: {error}; {advice}') from error
