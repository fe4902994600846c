"""Greedy decoding over hand-made tables of probabilities, and the rules of a search.

The best sentences of the tables are known.
"""

import numpy as np
import pytest

from core.decoding import search_loop, word_rules
from core.decoding.word_rules import Rules
from core.runtime.backend import tf, tf1
from tests.support import table_decoder
from tests.support.tolerances import assert_same_but_rounding

# Words: 0 never written, 1 start, 2 end, 3 to 6 ordinary.
# TABLE[k][w]: what follows word w in caption k.
END = 2
TABLE = np.full((3, 7, 7), 0.01)
for caption, chain in enumerate([(1, 3, 4, 2), (1, 2), (1, 5, 6, 5)]):
    for word, following in zip(chain, chain[1:], strict=False):
        TABLE[caption, word, following] = 0.94
TABLE[0, 2, 6] = TABLE[1, 2, 3] = 0.94  # what would follow an end: must not be seen


def decode(max_len, captions=(0, 1, 2), table=None, **rules):
    """Return (Hypotheses, the one of each image; steps, rows) for `captions` of TABLE."""
    rules, table = Rules(**{'end': END, **rules}), TABLE if table is None else table
    return table_decoder.single(table, lambda begin: search_loop.greedy(begin, rules, max_len),
                                captions)


def test_known_sentences_and_scores():
    found, *_ = decode(5)
    assert found.captions.tolist() == [[3, 4, 2, 2, 2], [2, 2, 2, 2, 2], [5, 6, 5, 6, 5]]
    assert found.captions.dtype == np.int32
    assert found.lengths.tolist() == [3, 1, 5]
    np.testing.assert_allclose(found.scores, np.array([3, 1, 5]) * np.log(0.94), rtol=1e-12)


def test_attention_and_gates_are_frozen_after_the_end():
    found, *_ = decode(5)
    assert found.betas.tolist() == [[1, 13, 134, 134, 134],
                                    [1, 1, 1, 1, 1],
                                    [1, 15, 156, 1565, 15656]]
    assert found.alphas.tolist() == [[[image]] * 5 for image in range(3)]


def test_the_search_ends_when_all_captions_have():
    found, steps, _ = decode(9, captions=(0, 1))
    assert found.captions.tolist() == [[3, 4] + [2] * 7, [2] * 9]
    assert found.betas.tolist() == [[1, 13] + [134] * 7, [1] * 9]
    np.testing.assert_allclose(found.scores, np.array([3, 1]) * np.log(0.94), rtol=1e-12)
    assert steps == 3


def test_images_whose_caption_is_complete_leave_the_computation(monkeypatch):
    _, steps, rows = decode(5)
    assert (steps, rows) == (5, 3 + 2 + 2 + 1 + 1)  # 2 of 3, then 1 of 2
    monkeypatch.setattr(search_loop, 'COMPACT_BELOW', 0.5)
    assert decode(5)[1:] == (5, 3 + 3 + 3 + 1 + 1)
    monkeypatch.setattr(search_loop, 'COMPACT_BELOW', 0.0)
    whole, *counts = decode(5)
    assert counts == [5, 15]
    monkeypatch.undo()
    tf.nest.map_structure(lambda a, b: assert_same_but_rounding(a, b, 10), whole, decode(5)[0])


@pytest.mark.parametrize('max_len', [1, 2, 3])
def test_cut_at_max_len(max_len):
    found, whole = decode(max_len)[0], decode(5)[0]
    np.testing.assert_array_equal(found.captions, whole.captions[:, :max_len])
    np.testing.assert_allclose(found.scores, np.minimum([3, 1, 5], max_len) * np.log(0.94),
                               rtol=1e-12)
    np.testing.assert_array_equal(found.betas, whole.betas[:, :max_len])


@pytest.mark.parametrize('rules', [{}, {'no_repeat_ngram': 2, 'min_length': 3}],
                         ids=['plain', 'rules'])
def test_result_does_not_depend_on_batch_mates(rules):
    table = table_decoder.random_table(12, 7, seed=4, sharpness=1.0)
    rules = {'never': (0, 1), **rules}
    together, *_ = decode(9, range(12), table, **rules)
    assert len(set(together.lengths.tolist())) > 3  # early and late ends
    for caption in range(0, 12, 2):
        alone, steps, rows = decode(9, (caption,), table, **rules)
        assert steps == rows == alone.lengths[0]
        tf.nest.map_structure(lambda a, b, c=caption: assert_same_but_rounding(a[0], b[c], 10),
                              alone, together)


def test_never_words_are_skipped_and_scores_stay_the_tables_own():
    table = TABLE.copy()
    table[2, 1, [5, 0, 6]] = 0.02, 0.9, 0.05
    assert decode(2, captions=(2,), table=table, never=(0, 1))[0].captions[0, 0] == 6
    assert decode(2, captions=(2,), table=table)[0].captions[0, 0] == 0
    np.testing.assert_allclose(decode(1, captions=(2,), table=table, never=(0, 1))[0].scores,
                               [np.log(0.05)], rtol=1e-12)


def test_never_holds_at_every_step():
    assert not np.isin(decode(5, never=(4, 6))[0].captions, [4, 6]).any()


def test_end_need_not_be_word_two():
    found, *_ = decode(5, end=6)
    assert found.captions[2].tolist() == [5, 6, 6, 6, 6]
    np.testing.assert_allclose(found.scores[2], 2 * np.log(0.94), rtol=1e-12)
    table = TABLE.copy()
    table[1, 1, [0, 2]] = 0.94, 0.01  # word 0 ends, as in the authors' vocabulary
    assert decode(5, end=0, table=table)[0].captions[1].tolist() == [0] * 5


# ---- rules

def test_mask_words():
    with tf.Graph().as_default(), tf1.Session() as session:
        log_probs = np.log([[0.1, 0.2, 0.3, 0.4]]).astype(np.float32)
        masked, same = session.run((word_rules.mask_words(tf.constant(log_probs), [3, 0]),
                                    word_rules.mask_words(tf.constant(log_probs), [])))
    np.testing.assert_array_equal(masked, [[-np.inf, log_probs[0, 1], log_probs[0, 2], -np.inf]])
    np.testing.assert_array_equal(same, log_probs)


@pytest.mark.parametrize('min_length', [0, 1, 2, 3, 4])
def test_no_end_before_min_length(min_length):
    table = np.full((1, 7, 7), 0.01)
    table[:, :, END] = 0.94
    found, *_ = decode(6, captions=(0,), table=table, min_length=min_length)
    assert found.lengths.tolist() == [max(min_length, 1)]
    assert (found.captions[0, :max(min_length - 1, 0)] != END).all()


@pytest.mark.parametrize('n', [1, 2, 3, 4])
@pytest.mark.parametrize('end', [2, 0])
def test_rules_are_those_of_plain_reading(n, end):
    """Every continuation of random sentences of few words, against the definition."""
    size, max_len, random = 6, 8, np.random.default_rng(n)
    rules = Rules(end, (1,), min_length=4, no_repeat_ngram=n)
    log_probs = random.normal(size=(60, size))
    words = [word for word in range(size) if word not in (1, end)]
    with tf.Graph().as_default(), tf1.Session() as session:
        written, t = tf1.placeholder(tf.int32, [None, max_len]), tf1.placeholder(tf.int32, [])
        applied = rules.apply(tf.constant(log_probs), written, t)
        banned = 0
        for length in range(max_len):
            # what stands after `length` must not count
            sentences = random.choice(words[:2], (60, max_len))
            found = session.run(applied, {written: sentences, t: length})
            for row in range(60):
                for word in range(size):
                    ok = table_decoder.allowed(sentences[row, :length].tolist(), word, rules, size)
                    assert found[row, word] == (log_probs[row, word] if ok else -np.inf), (
                        row, length, word)
                    banned += not ok and word in words
    assert banned > 50


def test_where_no_word_is_left_the_caption_ends():
    found, *_ = decode(9, captions=(2,), never=(0, 1, 3, 4), no_repeat_ngram=1, min_length=9)
    assert found.captions[0, :3].tolist() == [5, 6, END] and found.lengths.tolist() == [3]
    assert found.scores[0] == pytest.approx(2 * np.log(0.94) + np.log(0.01))


@pytest.mark.parametrize('max_len', [0, -3])
def test_max_len_must_be_positive(max_len):
    with pytest.raises(ValueError, match=f'not {max_len}'):
        decode(max_len)


def test_min_length_beyond_max_len_is_refused():
    with pytest.raises(ValueError, match='min_length'):
        decode(3, min_length=4)
