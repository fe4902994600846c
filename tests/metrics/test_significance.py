"""Statistics of images against pycocoevalcap and by hand; the paired bootstrap."""

import math
import random

import numpy as np
import pytest
from pycocoevalcap.bleu.bleu import Bleu

from core.common.errors import InputError
from core.metrics import significance
from core.metrics.scorer import Scorer
from core.metrics.significance import (
    BLEU,
    Difference,
    ImageStatistics,
    bleu_counts,
    compare,
    corpus_bleu,
    mean_and_deviation,
    resampled_scores,
    statistics_of,
)

WORDS = ['a', 'dog', 'cat', 'runs', 'on', 'the', 'grass', 'and']


def sentences(seed, n_images=23):
    """Return tokenized references and hypotheses of random words, some of them empty or short."""
    drawn = random.Random(seed)

    def sentence(shortest):
        return ' '.join(drawn.choices(WORDS, k=drawn.randrange(shortest, 12)))

    references = {n: [sentence(1) for _ in range(drawn.randrange(1, 6))] for n in range(n_images)}
    return references, {n: [sentence(0)] for n in range(n_images)}


def of_images(values, bleu=None):
    """Return the ImageStatistics of given scores of images, of one name."""
    values = np.array(values, np.float64)
    if bleu is None:
        bleu = np.tile([4, 3, 2, 1, 5, 4, 3, 2, 5, 5], (len(values), 1))
    return ImageStatistics(bleu, {'CIDEr': values})


def test_counts_of_bleu_by_hand():
    references = {7: ['the cat is on the mat', 'there is a cat on the mat'], 'x': ['a dog', 'dog']}
    hypotheses = {7: ['the the the cat on'], 'x': ['']}
    # 'the' counts twice; the bigrams 'the cat' and 'cat on'; of 6 and 7 words 6 is closer
    assert bleu_counts(references, hypotheses).tolist() == [[4, 2, 0, 0, 5, 4, 3, 2, 5, 6],
                                                            [0, 0, 0, 0, 0, 0, 0, 0, 0, 1]]


@pytest.mark.parametrize('seed', range(5))
def test_bleu_of_any_sample_is_that_of_pycocoevalcap(seed):
    """Of all images once, and of images drawn with repetition."""
    references, hypotheses = sentences(seed)
    runs = [ImageStatistics(bleu_counts(references, hypotheses), {})]
    everything = np.arange(len(references))
    drawn = np.random.default_rng(seed)
    samples = [everything, *(drawn.choice(everything, n) for n in (1, 5, 23, 23, 60))]
    weights = np.array([np.bincount(sample, minlength=23) for sample in samples], np.float64)
    scores = resampled_scores(runs, weights)
    for row, sample in enumerate(samples):
        expected, _ = Bleu(4).compute_score({n: references[i] for n, i in enumerate(sample)},
                                            {n: hypotheses[i] for n, i in enumerate(sample)},
                                            verbose=0)
        found = [scores[name][row, 0] for name in BLEU]
        np.testing.assert_allclose(found, expected, rtol=1e-12, atol=1e-15)


def test_no_word_and_no_match_are_scores_too():
    sums = np.array([[0, 0, 0, 0, 0, 0, 0, 0, 0, 4], [0, 0, 0, 0, 9, 8, 7, 6, 9, 4]], np.float64)
    scores = corpus_bleu(sums)
    assert np.isfinite(scores).all() and (scores < 1e-3).all()


def test_scores_of_all_images_are_those_of_the_scorer(quick_meteor):
    references = {1: ['A dog runs on the grass.', 'The brown dog is running.'],
                  'two.jpg': ['Two men riding bikes'], 3: ['The cat sleeps on a sofa.', 'A cat']}
    results = {3: 'a cat on the sofa', 1: 'a dog runs on the grass', 'two.jpg': 'two men on bikes'}
    with Scorer(references) as scorer:
        scores = scorer.score_images(results)
    statistics = statistics_of(scores)
    found = resampled_scores([statistics], np.ones((1, 3)))
    assert found.keys() == scores.corpus.keys()
    for name, value in scores.corpus.items():
        assert found[name][0, 0] == pytest.approx(value, rel=1e-12), name
    # in the order of the references, whatever the order of the results
    assert list(statistics.segments['CIDEr']) == [scores.images['CIDEr'][i] for i in references]
    assert statistics.bleu[:, 8].tolist() == [6, 4, 5]


def test_identical_sets_do_not_differ():
    references, hypotheses = sentences(1)
    runs = [ImageStatistics(bleu_counts(references, {n: hypotheses[(n + shift) % 23] for n in
                                                     references}),
                            {'CIDEr': np.random.default_rng(shift).random(23)})
            for shift in range(3)]
    for second in (runs, runs[::-1]):  # also where the sums round otherwise
        assert set(compare(runs, second).values()) == {Difference(0.0, 0.0, 0.0, 1.0)}


def test_a_set_that_is_better_on_every_image_is_better():
    drawn = np.random.default_rng(3)
    worse = [of_images(drawn.random(50)) for _ in range(2)]
    better = [of_images(run.segments['CIDEr'] + drawn.uniform(0.1, 0.2, 50)) for run in worse]
    found = compare(better, worse, n_resamples=2000)['CIDEr']
    assert 0.1 < found.low < found.difference < found.high < 0.2
    assert found.p == pytest.approx(2 / 2001)
    back = compare(worse, better, n_resamples=2000)['CIDEr']
    assert back == pytest.approx((-found.difference, -found.high, -found.low, found.p))


def test_bleu_that_is_better_on_every_image_is_better():
    better = np.tile([5, 4, 3, 2, 5, 4, 3, 2, 5, 5], (20, 1))
    worse = better - np.array([1, 1, 1, 1, 0, 0, 0, 0, 0, 0])
    found = compare([of_images(np.zeros(20), better)], [of_images(np.zeros(20), worse)])
    # all images are alike, so every sample has the same score: 1 against 4/5, sqrt(4/5 3/4), ...
    products = [4 / 5, 3 / 5, 2 / 5, 1 / 5]
    for n, name in enumerate(BLEU):
        expected = 1 - products[n] ** (1 / (n + 1))
        assert found[name][:3] == pytest.approx([expected] * 3, rel=1e-6)
        assert found[name].p == 2 / 1001
    assert found['CIDEr'] == Difference(0.0, 0.0, 0.0, 1.0)


def test_two_images_by_hand():
    """The mean of two drawn of the differences 2 and -1: -1, 1/2, 2 by 1/4, 1/2, 1/4."""
    first, second = of_images([3, 0]), of_images([1, 1])
    found = compare([first], [second], n_resamples=20_000)['CIDEr']
    assert found[:3] == (0.5, -1, 2)
    assert found.p == pytest.approx(2 * 0.25, abs=0.02)  # six standard errors are 0.037


def test_runs_of_a_set_are_paired_by_images():
    """What varies over images alike in all runs is no difference."""
    drawn = np.random.default_rng(5)
    hard = drawn.normal(0, 10, 40)  # images differ a hundred times more than runs
    first = [of_images(hard + 0.1 + drawn.normal(0, 0.01, 40)) for _ in range(3)]
    second = [of_images(hard + drawn.normal(0, 0.01, 40)) for _ in range(2)]
    found = compare(first, second)['CIDEr']
    assert 0.08 < found.low < found.high < 0.12 and found.p < 0.01


def test_the_interval_is_as_wide_as_theory_has_it_and_follows_the_seed():
    differences = np.random.default_rng(8).normal(0.0, 1.0, 400)
    first, second = [of_images(differences)], [of_images(np.zeros(400))]
    found = compare(first, second, n_resamples=4000)['CIDEr']
    error = differences.std() / math.sqrt(400)
    assert found.difference == pytest.approx(differences.mean(), rel=1e-12)
    assert (found.high - found.low) / 2 == pytest.approx(1.96 * error, rel=0.06)
    assert compare(first, second, 4000) == compare(first, second, 4000, seed=1)
    assert compare(first, second, 4000)['CIDEr'] != compare(first, second, 4000, seed=2)['CIDEr']


def test_where_sets_do_not_differ_p_is_small_as_rarely_as_it_says():
    drawn = np.random.default_rng(11)
    p = [compare([of_images(drawn.normal(0, 1, 60))], [of_images(drawn.normal(0, 1, 60))],
                 n_resamples=200)['CIDEr'].p for _ in range(300)]
    assert 0.02 < np.mean(np.array(p) < 0.05) < 0.10
    assert 0.4 < np.mean(np.array(p) < 0.5) < 0.6


def test_samples_are_of_as_many_images_and_differ():
    samples = list(significance._samples(7, 130, seed=1))
    assert [len(chunk) for chunk in samples] == [64, 64, 2]
    weights = np.concatenate(samples)
    assert (weights.sum(axis=1) == 7).all() and len(np.unique(weights, axis=0)) > 100
    assert weights.mean(axis=0) == pytest.approx(np.ones(7), abs=0.35)


def test_mean_and_deviation_over_runs():
    assert mean_and_deviation([1.0, 2.0, 4.5]) == pytest.approx((2.5, math.sqrt(6.5 / 2)))
    assert mean_and_deviation([0.25]) == (0.25, None)


@pytest.mark.parametrize(('first', 'second', 'options', 'part'), [
    ([5], [5], {'n_resamples': 99}, 'at least 100 resamples, not 99'),
    ([5], [5], {'seed': -1}, 'at least 0, not -1'),
    ([5], [4], {}, 'the same images'), ([5], [], {}, '1 and 0 runs')])
def test_what_cannot_be_compared(first, second, options, part):
    sets = [[of_images(np.zeros(n)) for n in sizes] for sizes in (first, second)]
    with pytest.raises(InputError, match=part):
        compare(*sets, **options)
