"""Pretrained word vectors of a vocabulary, from the files of GloVe, word2vec and fastText.

    indices, matrix = read_word_vectors('glove.6B.300d.txt', vocabulary.idx_to_word, dim=300)
    Solver(model, data, word_vectors=(indices, matrix))
"""

import pathlib
from collections.abc import Iterator, Sequence
from typing import BinaryIO

import numpy as np

from core.common.aliases import PathLike, Session, Variable
from core.common.errors import InputError

# more than any vector needs; a file without line ends must not fill the memory
_LONGEST_LINE = 1 << 20


def read_word_vectors(path: PathLike, words: Sequence[str],
                      dim: int) -> tuple[np.ndarray, np.ndarray]:
    """Read the vectors of `words`.

    A line of the file holds a word and its numbers, with blanks between, in UTF-8; a first line
    'COUNT DIM', as word2vec and fastText write it, is skipped. The file is read line by line. A
    word takes the vector of the same spelling; without one, the first that is the same in lower
    case.

    Args:
        path: of the file.
        words: list of str, the vocabulary.
        dim: int, numbers of a vector (`dim_embed`).

    Returns:
        (indices (n,) int, matrix (n, dim) float32): places in `words`, rising, and the vectors of
        those n words.

    Raises:
        InputError: no such file, not text, vectors of another size, damaged numbers (with the
            line's number), or none of the words is there.
    """
    path = pathlib.Path(path)
    exact = {word.encode('utf8', 'surrogatepass'): index for index, word in enumerate(words)}
    lowered: dict[str, list[int]] = {}
    for index, spelling in enumerate(words):
        lowered.setdefault(spelling.lower(), []).append(index)
    vectors, same_spelling = {}, set()
    try:
        with open(path, 'rb') as file:
            for number, word, fields in _lines(file, path, dim):
                own = exact.get(word)
                if own is not None and own not in same_spelling:  # the first counts
                    same_spelling.add(own)
                    vectors[own] = _parsed(fields, path, number)
                for index in lowered.get(word.decode('utf8', 'replace').lower(), ()):
                    if index not in vectors:
                        vectors[index] = _parsed(fields, path, number)
    except OSError as error:
        raise InputError(f'{path}: cannot be read ({error.strerror}); give a text file of word '
                         'vectors') from None
    if not vectors:
        raise InputError(f'{path}: has a vector for none of the {len(words)} words of the '
                         'vocabulary; give one of their language')
    indices = np.array(sorted(vectors))
    return indices, np.stack([vectors[index] for index in indices.tolist()])


def assign_word_vectors(session: Session, embedding: Variable, indices: np.ndarray,
                        matrix: np.ndarray) -> None:
    """Set rows `indices` (n,) of the variable `embedding` (V, M) to `matrix` (n, M) in a session.

    Raises:
        InputError: indices or matrix do not fit the variable.
    """
    indices, matrix = np.asarray(indices), np.asarray(matrix)
    n_words, dim = embedding.shape.as_list()
    if (indices.ndim != 1 or matrix.shape != (len(indices), dim)
        or not np.isin(indices, np.arange(n_words)).all()):
        raise InputError(f'word_vectors: {matrix.shape} numbers for words {indices.shape} do not '
                         f'fit the {n_words} words of {dim} numbers of the model; set dim_embed to '
                         'the size of the vectors')
    vectors = session.run(embedding)
    vectors[indices] = matrix
    # By the variable's own assignment, as one made here would change a graph that a session runs.
    session.run(embedding.initializer, {embedding.initializer.inputs[1]: vectors})


def _lines(file: BinaryIO, path: PathLike, dim: int) -> Iterator[tuple[int, bytes, list[bytes]]]:
    """Yield (line number, word, its numbers as bytes) of a binary file.

    Raises:
        InputError: a line of another size.
    """
    number = 0
    while line := file.readline(_LONGEST_LINE):
        number += 1
        if b'\0' in line or len(line) == _LONGEST_LINE:
            raise InputError(f'{path}: line {number} is no text in UTF-8; give a text file of word '
                             'vectors, unpacked, not in the binary format')
        if number == 1:
            line = line.removeprefix(b'\xef\xbb\xbf')
            fields = line.split()
            if len(fields) == 2 and fields[0].isdigit() and fields[1].isdigit():
                _check_size(int(fields[1]), path, dim)
                continue
            _check_size(len(fields) - 1, path, dim)
        # From the right, as a few words of the published files have blanks inside, or are nothing
        # but a blank.
        fields = line.rsplit(None, dim)
        if not fields or len(fields) == dim and line[:1].isspace():
            continue
        if len(fields) <= dim:
            raise InputError(f'{path}: line {number} has {len(fields) - 1} numbers instead of '
                             f'{dim}; the file is damaged or incomplete, get it again')
        yield number, fields[0].strip(), fields[1:]


def _check_size(size: int, path: PathLike, dim: int) -> None:
    if size != dim:
        difference = (
            f'its vectors have {size} numbers, the model\'s words have {dim}; set dim_embed={size}'
            if size > 0
            else 'its first line is no word vector; give a text file of word vectors, unpacked')
        raise InputError(f'{path}: {difference}')


def _parsed(fields: list[bytes], path: PathLike, number: int) -> np.ndarray:
    try:
        with np.errstate(over='ignore'):
            vector = np.array([float(field) for field in fields]).astype(np.float32)
    except ValueError:
        vector = np.array([np.nan])
    if not np.isfinite(vector).all():
        raise InputError(f'{path}: line {number} has numbers that are damaged or not finite; get '
                         'the file again')
    return vector
