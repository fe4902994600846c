"""Greedy decoding over hand-made tables of probabilities, whose best sentences are known."""

import numpy as np
import pytest

from core import decoding
from core.backend import tf, tf1

# Words: 0 never written, 1 start, 2 end, 3 to 6 ordinary. TABLE[k][w]: what follows word w in caption k.
END = 2
TABLE = np.full((3, 7, 7), 0.01)
for caption, chain in enumerate([(1, 3, 4, 2), (1, 2), (1, 5, 6, 5)]):
    for word, following in zip(chain, chain[1:], strict=False):
        TABLE[caption, word, following] = 0.94
TABLE[0, 2, 6] = TABLE[1, 2, 3] = 0.94  # what would follow an end: must not be seen


def decode(max_len, captions=(0, 1, 2), table=None, never=(), end=END):
    """Words, scores and trace for `captions` of the table; the state counts steps, the trace shows it."""
    log_table = np.log(TABLE if table is None else table).astype(np.float32)

    def step(words, state):
        rows = tf.gather_nd(log_table, tf.stack([state['caption'], words], axis=1))
        after = {'caption': state['caption'], 'count': state['count'] + 1}
        trace = {'count': after['count'], 'pair': tf.stack([after['count'] * 10, words], axis=1)}
        return decoding.Step(rows, after, trace)

    with tf.Graph().as_default(), tf1.Session() as session:
        state = {'caption': tf.constant(captions), 'count': tf.zeros([len(captions)], tf.int32)}
        start = tf.ones([len(captions)], tf.int32)
        decoded = decoding.greedy(step, state, start, end, max_len, never)
        assert decoded.words.shape[1] == max_len
        return session.run(decoded)


def test_known_sentences_and_scores():
    found = decode(5)
    assert found.words.tolist() == [[3, 4, 2, 2, 2], [2, 2, 2, 2, 2], [5, 6, 5, 6, 5]]
    assert found.words.dtype == np.int32
    np.testing.assert_allclose(found.scores, np.array([3, 1, 5]) * np.log(0.94), rtol=1e-6)


def test_trace_is_frozen_after_the_end():
    found = decode(5)
    assert found.trace['count'].tolist() == [[1, 2, 3, 3, 3], [1, 1, 1, 1, 1], [1, 2, 3, 4, 5]]
    assert found.trace['pair'][0].tolist() == [[10, 1], [20, 3], [30, 4], [30, 4], [30, 4]]


def test_all_captions_end_early():
    found = decode(9, captions=(0, 1))
    assert found.words.tolist() == [[3, 4] + [2] * 7, [2] * 9]
    assert found.trace['count'].tolist() == [[1, 2] + [3] * 7, [1] * 9]
    np.testing.assert_allclose(found.scores, np.array([3, 1]) * np.log(0.94), rtol=1e-6)


@pytest.mark.parametrize('max_len', [1, 2, 3])
def test_cut_at_max_len(max_len):
    found = decode(max_len)
    whole = decode(5)
    np.testing.assert_array_equal(found.words, whole.words[:, :max_len])
    np.testing.assert_allclose(found.scores, np.minimum([3, 1, 5], max_len) * np.log(0.94), rtol=1e-6)
    np.testing.assert_array_equal(found.trace['pair'], whole.trace['pair'][:, :max_len])


def test_result_does_not_depend_on_batch_mates():
    together = decode(5)
    for caption in range(3):
        alone = decode(5, captions=(caption,))
        np.testing.assert_array_equal(alone.words[0], together.words[caption])
        assert alone.scores[0] == together.scores[caption]
        np.testing.assert_array_equal(alone.trace['pair'][0], together.trace['pair'][caption])


def test_never_words_are_skipped_and_scores_stay_the_tables_own():
    table = TABLE.copy()
    table[2, 1, [5, 0, 6]] = 0.02, 0.9, 0.05
    found = decode(2, captions=(2,), table=table, never=(0, 1))
    assert found.words.tolist() == [[6, 5]] or found.words[0, 0] == 6
    table_only = decode(2, captions=(2,), table=table)
    assert table_only.words[0, 0] == 0
    np.testing.assert_allclose(decode(1, captions=(2,), table=table, never=(0, 1)).scores, [np.log(0.05)], rtol=1e-6)


def test_never_holds_at_every_step():
    found = decode(5, never=(4, 6))
    assert not np.isin(found.words, [4, 6]).any()


def test_end_need_not_be_word_two():
    found = decode(5, end=6)
    assert found.words[2].tolist() == [5, 6, 6, 6, 6]
    np.testing.assert_allclose(found.scores[2], 2 * np.log(0.94), rtol=1e-6)


def test_mask_words():
    with tf.Graph().as_default(), tf1.Session() as session:
        log_probs = np.log([[0.1, 0.2, 0.3, 0.4]]).astype(np.float32)
        masked, same = session.run((decoding.mask_words(tf.constant(log_probs), [3, 0]),
                                    decoding.mask_words(tf.constant(log_probs), [])))
    np.testing.assert_array_equal(masked, [[-np.inf, log_probs[0, 1], log_probs[0, 2], -np.inf]])
    np.testing.assert_array_equal(same, log_probs)


@pytest.mark.parametrize('max_len', [0, -3])
def test_max_len_must_be_positive(max_len):
    with pytest.raises(ValueError, match=f'not {max_len}'):
        decode(max_len)
