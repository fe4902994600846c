"""Hard attention (paper 4.1) with nothing drawn: all sequences of locations are walked.

    exact = Enumeration(v, features, captions, alpha_c=0.5)
    exact.gradient(lambda_r=1.0)                     # of the objective, by central differences
    exact.estimates(lambda_r=1.0, reward='to_go')    # what each sequence adds to the model's

Two routes lead to the expected gradient and must agree. `gradient` differentiates the objective
itself, where the probability p(s) of a sequence is a function of the variables like any other: no
score function, no baseline, no reward to go. `estimates` gives the estimator's value for every
sequence, which the model must reproduce when its locations are given; its mean under p(s) must be
`gradient`, and `moments` has its variance too.

Letters in shapes as in `equations`; S = L^T sequences, P numbers in all variables.
"""

import functools
import itertools
from collections.abc import Mapping
from typing import Any

import numpy as np

from core.reference.equations import NULL, Told, Weights, teacher_forcing
from core.reference.finite_differences import STEP, differentiate

# The estimator without anything: the defaults of the functions below, under the names of
# CaptionGenerator's options.
PLAIN: dict[str, Any] = {'lambda_r': 1.0, 'lambda_e': 0.0, 'semi_sampling_p': 1.0, 'n_samples': 1,
                         'reward': 'sequence', 'baseline': 'none'}


def sequences(n_locations: int, n_steps: int) -> np.ndarray:
    """Return all sequences of locations, (L^T, T), in the order of `number`."""
    return np.array(list(itertools.product(range(n_locations), repeat=n_steps)))


def number(locations: np.ndarray, n_locations: int) -> np.ndarray:
    """Return the number (...,) in `sequences` of the sequences locations (..., T)."""
    return locations @ n_locations**np.arange(locations.shape[-1])[::-1]


def tails(x: np.ndarray) -> np.ndarray:
    """Sum x (N, S, T) over the steps from t on, t included."""
    return np.cumsum(x[..., ::-1], axis=-1)[..., ::-1]


def moved(before: np.ndarray, rewards: np.ndarray, counted: np.ndarray) -> np.ndarray:
    """Return the moving baseline after a run.

    Args:
        before: () for the reward of the sequence, or (T,) for the reward to go, by the number of
            words left.
        rewards: (rows, T). counted: (rows, T), 1 where there was a draw.
    """
    if before.shape == ():
        return 0.9 * before + 0.1 * rewards[counted[:, 0] > 0, 0].mean()
    after, left = before.copy(), tails(counted)
    for words in range(1, len(before) + 1):
        chosen = (left == words) & (counted > 0)
        if chosen.any():
            after[words - 1] = 0.9 * before[words - 1] + 0.1 * rewards[chosen].mean()
    return after


class Enumeration:
    """Exact moments of the gradient of hard attention for one set of variables and one batch.

    Args:
        v: variables by name. features: (N, L, D). captions: (N, T + 1).
        options: of `equations.teacher_forcing`.

    Attributes:
        paths: (S, T), the sequences. real: (N, 1, T), where captions have words.
        at: Told (N, S, ...) on every sequence. soft_at: Told (N, ...) with soft attention.
    """

    def __init__(self, v: Weights, features: np.ndarray, captions: np.ndarray,
                 **options: Any) -> None:
        self.v, self.captions, self.n_locations = v, captions, features.shape[1]
        self._features, self._options = features, options
        self.paths = sequences(self.n_locations, captions.shape[1] - 1)
        self.at, self.soft_at = self._told(v, self.paths), self._told(v)
        self.real = (captions[:, 1:] != NULL)[:, np.newaxis]

    def _told(self, v: Weights, locations: np.ndarray | None = None) -> Told:
        return teacher_forcing(v, self._features, self.captions, locations, **self._options)

    def number(self, locations: np.ndarray) -> np.ndarray:
        """Return the number (...,) in `paths` of the sequences locations (..., T)."""
        return number(locations, self.n_locations)

    @functools.cached_property
    def slopes(self) -> dict[str, np.ndarray]:
        """Derivatives by every number: of words, penalty, entropy (N, S, P), draws (N, S, T, P)."""
        return self._slopes(self.paths)

    @functools.cached_property
    def soft_slopes(self) -> dict[str, np.ndarray]:
        """The same of soft attention, (N, P)."""
        return self._slopes(None)

    def _slopes(self, locations: np.ndarray | None) -> dict[str, np.ndarray]:
        def numbers(v: Weights) -> np.ndarray:
            at = self._told(v, locations)
            return np.concatenate(
                [at.words.sum(axis=-1, keepdims=True), at.penalty[..., np.newaxis],
                 at.entropy.sum(axis=-1, keepdims=True), at.draws], axis=-1)

        slopes = differentiate(numbers, self.v)
        return {'words': slopes[..., 0, :], 'penalty': slopes[..., 1, :],
                'entropy': slopes[..., 2, :], 'draws': slopes[..., 3:, :]}

    def named(self, flat: np.ndarray) -> dict[str, np.ndarray]:
        """Return a gradient (P,) as a dict of arrays by variable."""
        ends = np.cumsum([value.size for value in self.v.values()])[:-1]
        return {name: part.reshape(self.v[name].shape)
                for name, part in zip(self.v, np.split(flat, ends), strict=True)}

    # ---- the first route: the objective

    def gradient(self, lambda_r: float = 1.0, lambda_e: float = 0.0,
                 semi_sampling_p: float = 1.0) -> np.ndarray:
        """Return the expected training gradient (P,), by central differences of the objective.

        In the likelihood, the variables inside log p(y|s) and those inside p(s) are two copies:
        lambda_r weights the second one's derivative. Entropy and regulariser are differentiated on
        the path that was drawn.
        """
        p, log_p = self.at.probability, self.at.words.sum(axis=2)  # (N, S), both held fixed

        def loss(v: Weights) -> float:
            at = self._told(v, self.paths)
            sampled = (-p * at.words.sum(axis=2) - lambda_r * at.probability * log_p
                       + p * at.penalty - lambda_e * p * at.entropy.sum(axis=2)).sum()
            if semi_sampling_p == 1:
                return sampled / len(p)
            at = self._told(v)
            soft = (-at.words.sum(axis=1) + at.penalty - lambda_e * at.entropy.sum(axis=1)).sum()
            return (semi_sampling_p * sampled + (1 - semi_sampling_p) * soft) / len(p)

        return differentiate(loss, self.v)

    def total_gradient(self, step: float = STEP) -> np.ndarray:
        """Return the gradient (P,) of -sum_s p(s) log p(y|s), minus eq. 11: lambda_r = 1."""
        def loss(v: Weights) -> float:
            at = self._told(v, self.paths)
            return -(at.probability * at.words.sum(axis=2)).sum() / len(self.captions)

        return differentiate(loss, self.v, step)

    # ---- the second route: the estimator

    def rewards(self, reward: str = 'sequence') -> np.ndarray:
        """Return the reward (N, S, T) of each draw of each sequence; 0 at padding."""
        words = self.at.words
        if reward == 'to_go':
            return tails(words)
        return words.sum(axis=2, keepdims=True) * self.real

    def baseline(self, reward: str = 'sequence', baseline: str = 'none') -> np.ndarray:
        """Return the baseline (N, 1, T).

        'none': zeros. 'moving': its stationary value, the mean over captions of the expected
        reward. 'self_critical': that of the sequence that always takes the likeliest location.
        """
        rewards, p = self.rewards(reward), self.at.probability[:, :, np.newaxis]
        if baseline == 'none':
            return np.zeros_like(rewards[:, :1])
        if baseline == 'self_critical':
            best = [self.likeliest(k) for k in range(len(rewards))]
            return rewards[np.arange(len(best)), best][:, np.newaxis]
        mean, left = (p * rewards).sum(axis=1), tails(self.real)[:, 0]  # (N, T): reward, words left
        if reward == 'sequence':
            return np.where(self.real, mean[:, 0].mean(), 0.0)
        by_left = {k: mean[left == k].mean() for k in np.unique(left) if k}
        return np.vectorize(lambda k: by_left.get(k, 0.0))(left)[:, np.newaxis]

    def likeliest(self, k: int) -> int:
        """Return the number of caption k's sequence that always takes the likeliest location."""
        for s, path in enumerate(self.paths):
            if (self.at.alphas[k, s].argmax(axis=1) == path).all():
                return s
        raise AssertionError('one sequence follows the likeliest locations')

    def estimates(self, lambda_r: float = 1.0, lambda_e: float = 0.0, reward: str = 'sequence',
                  baseline: np.ndarray | float = 0.0) -> np.ndarray:
        """Return the gradient (N, S, P) of a caption's loss for each sequence that may be drawn.

        Args:
            baseline: (N, 1, T). lambda_r, lambda_e, reward: the model's options.
        """
        advantage = (self.rewards(reward) - baseline) * self.real
        score = np.einsum('nst,nstp->nsp', advantage, self.slopes['draws'])
        return self._pathwise(self.slopes, lambda_e) - lambda_r * score

    def soft(self, lambda_e: float = 0.0) -> np.ndarray:
        """Return the same for soft attention, (N, P)."""
        return self._pathwise(self.soft_slopes, lambda_e)

    @staticmethod
    def _pathwise(slopes: Mapping[str, np.ndarray], lambda_e: float) -> np.ndarray:
        """Return what the drawn sequence itself gives: (..., P)."""
        return -slopes['words'] + slopes['penalty'] - lambda_e * slopes['entropy']

    def of_draws(self, locations: np.ndarray, sampled: np.ndarray, moving: np.ndarray | None = None,
                 lambda_r: float = 1.0, lambda_e: float = 0.0, reward: str = 'sequence',
                 baseline: str = 'none', n_samples: int = 1) -> tuple[np.ndarray, np.ndarray]:
        """Return what a run's gradient must be, given what it drew.

        Args:
            locations: (rows, T), rows of equal captions together. sampled: (rows,) bool, the coins.
            moving: the moving baseline before the run, (), or (T,) by the number of words left;
                where there is one.
            lambda_r, lambda_e, reward, baseline, n_samples: the model's options.

        Returns:
            (gradient (P,), rewards (rows, T)).
        """
        captions = np.arange(len(locations)) * len(self.captions) // len(locations)
        paths = self.number(locations)
        rewards = self.rewards(reward)[captions, paths]
        subtracted = np.zeros_like(rewards)
        if moving is not None and reward == 'sequence':
            subtracted += moving
        elif moving is not None:
            left = tails(self.real)[captions, 0]
            subtracted = np.where(left > 0, moving[left - 1], 0.0)
        elif baseline == 'self_critical':
            subtracted = self.baseline(reward, baseline)[captions, 0]
        elif baseline == 'leave_one_out':
            for row in range(len(rewards)):
                first = row - row % n_samples
                subtracted[row] = np.mean(
                    [rewards[i] for i in range(first, first + n_samples) if i != row], axis=0)
        score = np.einsum('rt,rtp->rp', (rewards - subtracted) * self.real[captions, 0],
                          self.slopes['draws'][captions, paths])
        drawn = self._pathwise(self.slopes, lambda_e)[captions, paths] - lambda_r * score
        return np.where(sampled[:, np.newaxis], drawn,
                        self.soft(lambda_e)[captions]).mean(axis=0), rewards

    def moments(self, lambda_r: float = 1.0, lambda_e: float = 0.0, reward: str = 'sequence',
                baseline: str = 'none', n_samples: int = 1,
                semi_sampling_p: float = 1.0) -> tuple[np.ndarray, np.ndarray]:
        """Return mean (P,) and variance (P,) of the gradient of a row, averaged over captions."""
        p = self.at.probability[:, :, np.newaxis]
        chosen = 0.0 if baseline == 'leave_one_out' else self.baseline(reward, baseline)
        each = self.estimates(lambda_r, lambda_e, reward, chosen)
        mean = (p * each).sum(axis=1)
        if baseline == 'leave_one_out':
            variance = self._pairs_variance(lambda_r, lambda_e, reward, n_samples)
        else:
            variance = ((p * each**2).sum(axis=1) - mean**2) / n_samples
        soft = self.soft(lambda_e)
        mixed = semi_sampling_p * mean + (1 - semi_sampling_p) * soft
        second = semi_sampling_p * (variance + mean**2) + (1 - semi_sampling_p) * soft**2
        return mixed.mean(axis=0), (second - mixed**2).mean(axis=0)

    def _pairs_variance(self, lambda_r: float, lambda_e: float, reward: str,
                        n_samples: int) -> np.ndarray:
        """Compute that of the leave-one-out estimator, a U-statistic: a mean over pairs."""
        rewards, draws, pathwise = self.rewards(reward), self.slopes['draws'], self._pathwise(
            self.slopes, lambda_e)
        variances = []
        for k, p in enumerate(self.at.probability):
            gap = rewards[k, :, np.newaxis] - rewards[k, np.newaxis]
            score = draws[k, :, np.newaxis] - draws[k, np.newaxis]
            kernel = (pathwise[k, :, np.newaxis] + pathwise[k, np.newaxis]
                      - lambda_r * np.einsum('abt,abtp->abp', gap, score)) / 2
            one = np.einsum('b,abp->ap', p, kernel)
            mean = p @ one
            zeta1 = p @ one**2 - mean**2
            zeta2 = np.einsum('a,b,abp->p', p, p, kernel**2) - mean**2
            variances.append(
                2 / (n_samples * (n_samples - 1)) * (2 * (n_samples - 2) * zeta1 + zeta2))
        return np.array(variances)
