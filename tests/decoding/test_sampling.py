"""Drawn words: their distribution, the cuts, and what a draw depends on."""

import numpy as np
import pytest

from core.decoding.sampling import draw, sample, uniforms
from core.decoding.word_rules import Rules
from core.runtime.backend import tf, tf1
from tests.support import table_decoder, tiny_model
from tests.support.tolerances import assert_same_but_rounding

END, NEVER = 2, (0, 1)


def run(fetch, feeds=None):
    with tf1.Session() as session:
        return session.run(fetch, feeds)


# ---- uniform numbers

def test_uniform_numbers_follow_seed_use_image_and_step(graph):
    seed, numbers = tf1.placeholder(tf.int32, [2]), tf1.placeholder(tf.int32, [None])
    few = uniforms(seed, 7, numbers, 5, tf.float64)
    many = uniforms(seed, 7, numbers, 11, tf.float64)
    other = uniforms(seed, 8, numbers, 5, tf.float64)
    whole = run(few, {seed: (1, 2), numbers: np.arange(40)})
    assert whole.shape == (40, 5) and len(np.unique(whole)) == 200
    assert abs(whole.mean() - 0.5) < 0.07 and whole.min() >= 0 and whole.max() < 1
    np.testing.assert_array_equal(run(few, {seed: (1, 2), numbers: [39, 3, 3]}), whole[[39, 3, 3]])
    np.testing.assert_array_equal(run(many, {seed: (1, 2), numbers: [4]})[:, :5], whole[[4]])
    for fetch, fed in ((few, (1, 3)), (few, (2, 2)), (other, (1, 2))):
        assert not np.isin(run(fetch, {seed: fed, numbers: np.arange(40)}), whole).any()


# ---- one word

P = np.array([0.05, 0.4, 0.1, 0.3, 0.15])
N = 20000


def shares(logits=None, **options):
    """Return how often each word is drawn when the uniform numbers are even."""
    logits = np.log(P) if logits is None else logits
    with tf.Graph().as_default():
        uniform = tf.constant((np.arange(N) + 0.5) / N)
        words = run(draw(tf.constant(np.tile(logits, (N, 1))), uniform, **options))
    assert words.dtype == np.int32
    return np.bincount(words, minlength=len(logits)) / N


@pytest.mark.parametrize(('options', 'kept'), [
    ({}, [0, 1, 2, 3, 4]),
    ({'top_k': 2}, [1, 3]),
    ({'top_k': 1}, [1]),
    ({'top_k': 99}, [0, 1, 2, 3, 4]),
    ({'top_p': 0.4}, [1]),
    ({'top_p': 0.41}, [1, 3]),
    ({'top_p': 0.69}, [1, 3]),
    ({'top_p': 0.71}, [1, 3, 4]),
    ({'top_p': 0.01}, [1]),
    ({'top_p': 0.9999}, [0, 1, 2, 3, 4]),
    ({'top_k': 3, 'top_p': 0.5}, [1, 3]),  # of .4, .3, .15 over .85: .47 does not reach .5
    ({'top_k': 3, 'top_p': 0.45}, [1]),
])
def test_words_are_drawn_by_their_shares(options, kept):
    expected = np.zeros(5)
    expected[kept] = P[kept] / P[kept].sum()
    np.testing.assert_allclose(shares(**options), expected, atol=1.01 / N)


def test_words_of_probability_zero_are_never_drawn(graph):
    logits = np.array([[-np.inf, 0.0, -np.inf, 0.0, -np.inf]])
    uniform = np.array([0.0, 0.5, 1 - 1e-16, 1.0])
    words = run(draw(tf.constant(np.tile(logits, (4, 1))), tf.constant(uniform)))
    assert words.tolist() == [1, 3, 3, 3]
    single = run(draw(tf.constant(np.tile(logits, (4, 1)), tf.float32),
                      tf.constant(uniform, tf.float32)))
    assert single.tolist() == [1, 3, 3, 3]


# ---- captions

def drawn(probabilities, uniform, images=None, max_len=6, rules=None, **options):
    """Return (Hypotheses, the one of each image; steps, rows)."""
    rules = Rules(END, NEVER, **(rules or {}))

    def hypotheses(begin):
        return sample(begin, rules, max_len, tf.constant(uniform), **options)

    return table_decoder.single(probabilities, hypotheses, images)


@pytest.mark.parametrize('temperature', [1.0, 0.5, 3.0])
def test_temperature_and_scores(temperature):
    """The first word follows p**(1 / temperature).

    Scores are sums of the table's own log-probabilities.
    """
    probabilities = table_decoder.random_table(1, 6, seed=5, sharpness=1.0)
    uniform = np.random.default_rng(1).uniform(size=(4000, 6))
    found, *_ = drawn(probabilities, uniform, [0] * 4000, temperature=temperature)
    expected = probabilities[0, 1]**(1 / temperature) * ~np.isin(np.arange(6), NEVER)
    expected /= expected.sum()
    counted = np.bincount(found.captions[:, 0], minlength=6) / 4000
    np.testing.assert_allclose(counted, expected, atol=4 * 0.5 / 4000**0.5)
    assert not np.isin(found.captions, NEVER).any()
    for words, length, score in zip(found.captions[:200], found.lengths, found.scores,
                                    strict=False):
        chain = [1, *words[:length]]
        own = sum(np.log(probabilities[0, a, b]) for a, b in zip(chain, chain[1:], strict=False))
        assert score == pytest.approx(own, rel=1e-12)
        assert (words[length - 1] == END or length == 6) and END not in words[:length - 1]


def test_result_does_not_depend_on_batch_mates():
    probabilities = table_decoder.random_table(8, 6, seed=6, sharpness=1.0)
    uniform = np.random.default_rng(2).uniform(size=(8, 9))
    options = {'max_len': 9, 'temperature': 0.8, 'top_k': 3,
               'rules': {'no_repeat_ngram': 2, 'min_length': 2}}
    together, steps, rows = drawn(probabilities, uniform, **options)
    assert len(set(together.lengths.tolist())) > 2 and rows < 8 * steps
    for image in (0, 3, 7):
        alone, *_ = drawn(probabilities, uniform[[image]], [image], **options)
        tf.nest.map_structure(lambda a, b, i=image: assert_same_but_rounding(a[0], b[i], 10), alone,
                              together)


def test_cold_draws_are_greedy_and_rules_hold():
    probabilities = table_decoder.random_table(5, 6, seed=7)
    uniform = np.random.default_rng(3).uniform(size=(5, 6))
    for options in ({'temperature': 1e-3}, {'top_k': 1}, {'top_p': 1e-6}):
        found, *_ = drawn(probabilities, uniform, **options)
        for image in range(5):
            log_table = np.log(probabilities[image])
            expected = table_decoder.beam_search(
                lambda sentence, log_table=log_table: log_table[[1, *sentence][-1]], 6,
                Rules(END, NEVER), 6, 1, 0.0)[0]
            assert found.captions[image, :found.lengths[image]].tolist() == list(expected[2])
    ruled, *_ = drawn(probabilities, uniform, temperature=5.0,
                      rules={'min_length': 4, 'no_repeat_ngram': 1})
    assert (ruled.lengths >= 4).all()
    for words, length in zip(ruled.captions, ruled.lengths, strict=True):
        assert len(set(words[:length])) == length


@pytest.mark.parametrize(('options', 'message'), [
    ({'temperature': 0.0}, 'temperature'),
    ({'top_k': -1}, 'top_k'),
    ({'top_p': 0.0}, 'top_p'),
    ({'top_p': 1.1}, 'top_p'),
])
def test_options_out_of_range(options, message):
    with pytest.raises(ValueError, match=message):
        drawn(table_decoder.random_table(1, 4, seed=0), np.zeros((1, 6)), **options)


def test_model_draws_follow_seed_and_image_number(graph):
    model = tiny_model.build(attention='hard', decode_context='sample')
    captions = tiny_model.sampler(model, 8, sample=True, temperature=1.5)
    features = np.repeat(tiny_model.batch()[0][:1], 60, axis=0)
    with tiny_model.session(model, tiny_model.values(model)) as session:
        def run(seed=(1, 2), **more):
            return session.run(captions, {model.features: features, model.dropout_seed: seed,
                                          **more})

        first, again, other = run(), run(), run((1, 3))
        moved = session.run(captions, {model.features: features[:4], model.dropout_seed: (1, 2),
                                       model.image_numbers: [9, 59, 0, 9]})
        unseeded = [session.run(captions, {model.features: features}).captions for _ in range(2)]
    assert len(np.unique(first.captions, axis=0)) > 30  # images alike but in their number
    np.testing.assert_array_equal(first.captions, again.captions)
    assert (first.captions != other.captions).any() and (unseeded[0] != unseeded[1]).any()
    # 4 rows and 60; 8 steps of sums of tens of terms
    for part, whole in zip(moved, first, strict=True):
        assert_same_but_rounding(part, whole[[9, 59, 0, 9]], 8 * 50)
