"""Pretrained word vectors: the formats, which word gets which vector, and damaged files."""

import numpy as np
import pytest

from core.common.errors import InputError
from core.data.word_vectors import assign_word_vectors, read_word_vectors
from tests.support import tiny_model
from tests.support.tiny_model import M, V

WORDS = ['<NULL>', '<START>', '<END>', '<UNK>', 'dog', 'café', 'paris', 'never']
GLOVE = 'the 1 2 3\ndog 0.5 -1e-1 .25\ncafé 4 5 6\nParis 7 8 9\n'


def write(tmp_path, text):
    path = tmp_path / 'vectors.txt'
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


@pytest.mark.parametrize('text', [
    GLOVE,
    '4 3\n' + GLOVE,                        # word2vec and fastText
    GLOVE.replace('\n', ' \n'),             # word2vec ends its lines with a blank
    GLOVE.replace('\n', '\r\n'),
    GLOVE.replace(' ', '\t'),
    '\ufeff' + GLOVE,
    GLOVE.rstrip('\n'),
    GLOVE + '\n',
    # As in glove.840B
    GLOVE + '. . . 1 2 3\nat name@x.com 1 2 3\n\x85 1 2 3\n\u2028 1 2 3\n 4 5 6\n',
    GLOVE.encode() + b'd\xffg 1 2 3\n',     # one broken word does no harm
])
def test_formats(tmp_path, text):
    indices, matrix = read_word_vectors(write(tmp_path, text), WORDS, 3)
    assert indices.tolist() == [4, 5, 6] and matrix.dtype == np.float32
    np.testing.assert_array_equal(matrix, np.float32([[0.5, -0.1, 0.25], [4, 5, 6], [7, 8, 9]]))


@pytest.mark.parametrize(('lines', 'expected'), [
    ('DOG 1 1\ndog 2 2\nDog 3 3\n', 2),     # the same spelling wins, wherever it is
    ('dog 2 2\nDOG 1 1\n', 2),
    ('DOG 1 1\nDog 3 3\n', 1),              # else the first
    ('dog 2 2\ndog 4 4\n', 2),
])
def test_which_vector_a_word_gets(tmp_path, lines, expected):
    indices, matrix = read_word_vectors(write(tmp_path, 'cat 0 0\n' + lines), WORDS, 2)
    assert indices.tolist() == [4]
    np.testing.assert_array_equal(matrix, [[expected, expected]])


def test_raw_words_share_the_vector_of_another_case(tmp_path):
    words = [*WORDS[:4], 'Dog', 'dog', 'The', 'dog.', 'Cat']
    lines = 'the 1 1\ndog 2 2\nDOG 3 3\nCAT 4 4\nCat 5 5\ncat 6 6\n'
    indices, matrix = read_word_vectors(write(tmp_path, lines), words, 2)
    assert dict(zip(indices.tolist(), matrix[:, 0].tolist(), strict=True)) == {
        4: 2, 5: 2, 6: 1, 8: 5}


def test_a_header_is_no_word(tmp_path):
    indices, _ = read_word_vectors(write(tmp_path, '2 3\n' + GLOVE), [*WORDS, '2'], 3)
    assert 8 not in indices


@pytest.mark.parametrize(('text', 'said'), [
    ('dog 1 2\n', r'its vectors have 2 numbers, the model\'s words have 3; set dim_embed=2'),
    ('10 300\ndog 1 2 3\n', 'set dim_embed=300'),
    ('cat 1 2 3\ndog 1 2\n', 'line 2 has 2 numbers instead of 3'),
    ('2 3\ncat 1 2 3\n\ndog\n', 'line 4 has 0 numbers instead of 3'),
    ('cat 1 2 3\ndog 1 2 x\n', 'line 2 has numbers that are damaged'),
    ('cat 1 2 3\nDOG 1 nan 3\n', 'line 2 has numbers that are damaged or not finite'),
    ('dog 1 1e300 3\n', 'line 1 has numbers that are damaged or not finite'),
    ('cat 1 2 3\n', 'a vector for none of the 8 words'),
    ('', 'a vector for none of the 8 words'),
    ('hello\n', 'no word vector'),
    (b'2 3\ndog \x00\x00\x80\x3f', 'line 2 is no text'),
    (GLOVE.encode('utf-16'), 'line 1 is no text'),
    (b'dog 1 2 3\n' + b'7' * 2**21, 'line 2 is no text'),
])
def test_refused_with_file_and_line(tmp_path, text, said):
    with pytest.raises(InputError, match=said) as caught:
        read_word_vectors(write(tmp_path, text), WORDS, 3)
    assert 'vectors.txt' in str(caught.value)


def test_no_such_file(tmp_path):
    with pytest.raises(InputError, match='nowhere.txt: cannot be read'):
        read_word_vectors(tmp_path / 'nowhere.txt', WORDS, 3)
    with pytest.raises(InputError, match='cannot be read'):
        read_word_vectors(tmp_path, WORDS, 3)


def test_a_large_file_is_not_held_in_memory(tmp_path):
    import tracemalloc

    path = tmp_path / 'large.txt'
    with open(path, 'w') as file:
        for number in range(20000):
            file.write(f'word{number} ' + ' '.join(['0.123456'] * 50) + '\n')  # 9 MB
        file.write('dog ' + ' '.join(['1'] * 50) + '\n')
    tracemalloc.start()
    try:
        indices, _ = read_word_vectors(path, WORDS, 50)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert indices.tolist() == [4] and peak < 2e6


def test_assign(graph):
    model = tiny_model.build()
    with tiny_model.session(model) as session:
        before = session.run(model.embedding)
        matrix = np.arange(2 * M, dtype=np.float32).reshape(2, M)
        assign_word_vectors(session, model.embedding, np.array([5, 12]), matrix)
        after = session.run(model.embedding)
        np.testing.assert_array_equal(after[[5, 12]], matrix)
        others = np.delete(np.arange(V), [5, 12])
        np.testing.assert_array_equal(after[others], before[others])


@pytest.mark.parametrize(('indices', 'shape'), [
    ([1, 2], (2, M + 1)), ([1, 2], (3, M)), ([V], (1, M)), ([-1], (1, M)), (np.zeros((2, M)), (2,)),
])
def test_what_does_not_fit_is_refused(graph, indices, shape):
    model = tiny_model.build()
    with tiny_model.session(model) as session, pytest.raises(
        InputError, match='do not fit the 13 words of 6 numbers'):
        assign_word_vectors(session, model.embedding, np.array(indices), np.zeros(shape))
