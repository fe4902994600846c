"""Whether two sets of runs differ: mean and deviation over runs, a paired bootstrap over images.

    first = [statistics_of(scorer.score_images(results)) for results in runs_with_soft_attention]
    second = [statistics_of(scorer.score_images(results)) for results in runs_with_hard_attention]
    compare(first, second)['CIDEr']     # Difference(difference=0.031, low=0.012, high=0.049, p=...)

The bootstrap (Koehn, 2004, "Statistical significance tests for machine translation evaluation")
draws as many images as there are, with repetition, again and again. It asks whether these very runs
would differ on other images of the kind; how far other seeds would lead, the deviation over runs
tells.
"""

import dataclasses
import statistics
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np
from pycocoevalcap.bleu.bleu_scorer import cook_refs, cook_test

from core.common.aliases import ImageId
from core.common.errors import InputError
from core.metrics.scorer import Scores

BLEU = ('Bleu_1', 'Bleu_2', 'Bleu_3', 'Bleu_4')
SEGMENTS = ('METEOR', 'ROUGE_L', 'CIDEr')
N_RESAMPLES, LEVEL = 1000, 0.95
CHUNK = 64  # resamples at a time: 64 rows of as many weights as there are images
# Differences of means that are equal but for the order of their sums count as none.
ROUNDING = 1e-12


@dataclasses.dataclass(frozen=True)
class ImageStatistics:
    """What the scores of a run are made of, image by image.

    Attributes:
        bleu: (N, 10) int64: matches of 1- to 4-grams, clipped at their number in one reference;
            1- to 4-grams of the caption; its length; the length of the closest reference.
        segments: dict from 'METEOR', 'ROUGE_L', 'CIDEr' to (N,) float64, scores of the single
            images. CIDEr's have the document frequencies of all N images' references.
    """

    bleu: np.ndarray
    segments: dict[str, np.ndarray]


class Difference(NamedTuple):
    """How much better the first set of runs is in one score.

    Attributes:
        difference: float, mean over the first set's runs minus that over the second's.
        low, high: floats, the interval that holds 95 % of the resampled differences.
        p: float, two-sided: twice the share of resamples on the rarer side of 0.
    """

    difference: float
    low: float
    high: float
    p: float


def statistics_of(scores: Scores) -> ImageStatistics:
    """Return the ImageStatistics of captions that `core.metrics.scorer.Scorer.score_images` scored.

    Args:
        scores: with the scores of single images in METEOR, ROUGE-L and CIDEr, as far as these are
            to be compared.
    """
    return ImageStatistics(bleu_counts(scores.references, scores.hypotheses),
                           {name: np.array(list(scores.images[name].values()))
                            for name in SEGMENTS if name in scores.images})


def bleu_counts(references: Mapping[ImageId, Sequence[str]],
                hypotheses: Mapping[ImageId, Sequence[str]]) -> np.ndarray:
    """Count what BLEU is computed from, with pycocoevalcap's own functions.

    Args:
        references: dict from image id to tokenized captions, words separated by blanks.
        hypotheses: dict from the same ids to a list of one.

    Returns:
        (N, 10) int64, see `ImageStatistics`; in the order of `references`.
    """
    counts = np.zeros((len(references), 10), np.int64)
    for row, (image, captions) in zip(counts, references.items(), strict=True):
        cooked = cook_test(hypotheses[image][0], cook_refs(captions), 'closest')
        row[:] = [*cooked['correct'], *cooked['guess'], cooked['testlen'], cooked['reflen']]
    return counts


def corpus_bleu(sums: np.ndarray) -> np.ndarray:
    """Return BLEU-1 to BLEU-4 of summed counts, as pycocoevalcap's Bleu computes them.

    Args:
        sums: (..., 10), sums of rows of `bleu_counts`.

    Returns:
        (..., 4) float64.
    """
    # pycocoevalcap's constants: no match is a score of nearly 0, and nothing is divided by 0
    precisions = (sums[..., :4] + 1e-15) / (sums[..., 4:8] + 1e-9)
    bleu = np.cumprod(precisions, axis=-1) ** (1 / np.arange(1, 5))
    ratio = (sums[..., 8:9] + 1e-15) / (sums[..., 9:10] + 1e-9)
    return bleu * np.exp(np.minimum(0, 1 - 1 / ratio))


def resampled_scores(runs: Sequence[ImageStatistics], weights: np.ndarray) -> dict[str, np.ndarray]:
    """Score samples of the images.

    BLEU is that of the whole sample, from its summed counts; the others are means of the images'
    scores. For ROUGE-L and CIDEr that is the score of all, with the document frequencies of all
    images; METEOR's score of all is not the mean of the images' scores, but near it.

    Args:
        runs: R ImageStatistics of the same N images.
        weights: (S, N) float64, how often each image is in each sample.

    Returns:
        dict from the score's name to (S, R) float64.
    """
    # Sums of whole numbers below 2**53, so that float64 holds them exactly.
    sums = np.stack([weights @ run.bleu.astype(np.float64) for run in runs], axis=1)
    bleu, sizes = corpus_bleu(sums), weights.sum(axis=1)[:, None]
    scores = {name: bleu[..., n] for n, name in enumerate(BLEU)}
    for name in runs[0].segments:
        images = np.stack([run.segments[name] for run in runs], axis=1)
        scores[name] = weights @ images / sizes
    return scores


def compare(first: Sequence[ImageStatistics], second: Sequence[ImageStatistics],
            n_resamples: int = N_RESAMPLES, seed: int = 1) -> dict[str, Difference]:
    """Compare two sets of runs by a paired bootstrap over images.

    Every resample has the same images for all runs of both sets.

    Args:
        first, second: ImageStatistics of runs, all of the same images in the same order.
        n_resamples: at least 100. seed: of the resamples, at least 0.

    Returns:
        dict from the score's name to its Difference; METEOR's is between means of image scores.

    Raises:
        InputError: too few resamples, a negative seed, or other numbers of images.
    """
    check_resamples(n_resamples, seed)
    runs = [*first, *second]
    n_images = {len(run.bleu) for run in runs}
    if not first or not second or len(n_images) > 1:
        raise InputError('a paired bootstrap needs two sets of runs on the same images, not '
                         f'{len(first)} and {len(second)} runs on {sorted(n_images)} images')
    [n] = n_images
    drawn = [_differences(runs, len(first), weights) for weights in _samples(n, n_resamples, seed)]
    found = {}
    for name, [difference] in _differences(runs, len(first), np.ones((1, n))).items():
        values = np.concatenate([chunk[name] for chunk in drawn])
        low, high = np.quantile(values, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
        rarer = int(min(np.count_nonzero(values <= 0), np.count_nonzero(values >= 0)))
        # The data themselves count as one more sample, so that p is never 0.
        found[name] = Difference(float(difference), float(low), float(high),
                                 min(1.0, 2 * (rarer + 1) / (n_resamples + 1)))
    return found


def check_resamples(n_resamples: int, seed: int) -> None:
    """Raise InputError for too few resamples, or a negative seed."""
    if n_resamples < 100:
        raise InputError(f'a bootstrap needs at least 100 resamples, not {n_resamples}')
    if seed < 0:
        raise InputError(f'the seed of a bootstrap must be at least 0, not {seed}')


def _differences(runs: Sequence[ImageStatistics], n_first: int,
                 weights: np.ndarray) -> dict[str, np.ndarray]:
    """Return dict name -> (S,): mean of the first `n_first` runs minus that of the others."""
    differences = {}
    for name, scores in resampled_scores(runs, weights).items():
        values = scores[:, :n_first].mean(axis=1) - scores[:, n_first:].mean(axis=1)
        differences[name] = np.where(abs(values) < ROUNDING, 0.0, values)
    return differences


def _samples(n_images: int, n_resamples: int, seed: int) -> Iterator[np.ndarray]:
    """Yield (at most CHUNK, n_images) float64: how often each image was drawn."""
    random = np.random.default_rng(seed)
    for begin in range(0, n_resamples, CHUNK):
        n = min(CHUNK, n_resamples - begin)
        places = random.integers(n_images, size=(n, n_images)) + np.arange(n)[:, None] * n_images
        counts = np.bincount(places.ravel(), minlength=n * n_images)
        yield counts.reshape(n, n_images).astype(np.float64)


def mean_and_deviation(values: Sequence[float]) -> tuple[float, float | None]:
    """Return mean and standard deviation (n - 1) of scores; None: of one score alone."""
    return statistics.fmean(values), statistics.stdev(values) if len(values) > 1 else None
