"""Stochastic hard attention (paper section 4.1): drawing locations, and the gradient of the bound.

At every step a location s_t is drawn from Multinoulli(alpha_t) and the context is the annotation
there. The bound E_s[log p(y | s, a)] <= log p(y | a) has the gradient

    E_s[ d log p(y|s,a) + (log p(y|s,a) - b) d log p(s|a) ]

for every baseline b that does not depend on the draw (REINFORCE). `surrogate` is the scalar whose
ordinary gradient is the second part: the draw itself passes no gradient.
"""

from typing import NamedTuple

from core.common.aliases import DType, Operation, Tensor
from core.runtime.backend import tf, tf1

BASELINE_DECAY = 0.9
# keeps logarithms of shares that underflow finite; their gradient is zero through the softmax
TINY = 1e-20


class Draws(NamedTuple):
    """The randomness of one training graph, drawn before its steps.

    Attributes:
        uniform: (T', R), in [0, 1): decides each location.
        sampled: (R,) bool, the coin of semi-sampling: True where the drawn location is used, False
            where the expectation alpha takes its place for the whole caption.
    """

    uniform: Tensor
    sampled: Tensor


def draws(seed: Tensor, n_steps: Tensor, n_captions: Tensor, n_samples: int, probability: float,
          dtype: DType) -> Draws:
    """Draws for n_captions * n_samples rows; a caption's samples share its coin. Seed (2,) int32."""
    fold_in = tf.random.experimental.stateless_fold_in
    uniform = tf.random.stateless_uniform([n_steps, n_captions * n_samples], fold_in(seed, 101),
                                          dtype=dtype)
    coin = tf.random.stateless_uniform([n_captions], fold_in(seed, 102), dtype=dtype) < probability
    return Draws(uniform, tf.repeat(coin, n_samples))


def locate(alpha: Tensor, uniform: Tensor) -> Tensor:
    """Locations (R,) int32 drawn from alpha (R, L): where the cumulated alpha passes the uniform
    numbers (R,).
    """
    cumulated = tf.cumsum(alpha, axis=1)
    threshold = uniform[:, tf.newaxis] * cumulated[:, -1:]
    location = tf.reduce_sum(tf.cast(cumulated <= threshold, tf.int32), axis=1)
    return tf.minimum(location, alpha.shape[1] - 1)


def weights(alpha: Tensor, location: Tensor, sampled: Tensor = None) -> Tensor:
    """Weights (R, L) of the locations in the context: one at the drawn one, or alpha where
    `sampled` (R,) is False.

    A drawn location passes no gradient to alpha; alpha in the place of a draw passes its ordinary
    one.
    """
    drawn = tf.one_hot(location, alpha.shape[1], dtype=alpha.dtype)
    return drawn if sampled is None else tf.where(sampled[:, tf.newaxis], drawn, alpha)


def likeliest(t: Tensor, alpha: Tensor) -> tuple[Tensor, Tensor]:
    """The location of the largest weight in alpha (R, L), at any step: (weights (R, L), locations
    (R,)).
    """
    location = tf.argmax(alpha, axis=1, output_type=tf.int32)
    return weights(alpha, location), location


def entropies(alphas: Tensor) -> Tensor:
    """Entropy in nats of alphas (..., L) -> (...)."""
    return -tf.reduce_sum(alphas * tf.math.log(alphas + TINY), axis=-1)


def rewards(log_probs: Tensor, kind: str) -> Tensor:
    """What each draw is credited with: log_probs (R, T') of the words, zero at padding -> (R, T').

    'sequence': log p of the whole caption, as the paper. 'to_go': log p of the words from this step
    on. Words before a draw do not depend on it, so their share has expectation zero and is left
    out.
    """
    if kind == 'to_go':
        return tf.cumsum(log_probs, axis=1, reverse=True)
    return tf.reduce_sum(log_probs, axis=1, keepdims=True) + tf.zeros_like(log_probs)


class MovingBaseline:
    """b_k = 0.9 b_{k-1} + 0.1 mean reward (4.1), kept in the variable `hard_attention/baseline`.

    For rewards of the whole caption one number, as the paper; for rewards to go one for every
    number of words that are left (n_time_step of them), as a draw late in a caption has less to be
    credited with.

    Args:
        kind: 'sequence' or 'to_go'. n_time_step: words of a caption at most. dtype: of the
            variable.

    Attributes:
        variable: () or (n_time_step,), not trained.
    """

    def __init__(self, kind: str, n_time_step: int, dtype: DType) -> None:
        self.kind = kind
        with tf1.variable_scope('hard_attention', reuse=tf1.AUTO_REUSE, use_resource=True):
            self.variable = tf1.get_variable('baseline', [] if kind == 'sequence'
                                             else [n_time_step], dtype,
                                             initializer=tf1.zeros_initializer(), trainable=False)

    def __call__(self, reward: Tensor, mask: Tensor, sampled: Tensor) -> tuple[Tensor, Operation]:
        """The baseline before this step, and its update.

        Args:
            reward: (R, T'). mask: (R, T') 1 for real words. sampled: (R,) bool, rows whose
                locations were drawn; the others do not count.

        Returns:
            (baseline (R, T') or (), update): `update` is an operation that runs after the baseline
            was read.
        """
        counted = mask * tf.cast(sampled, mask.dtype)[:, tf.newaxis]
        before = self.variable.read_value()
        if self.kind == 'sequence':
            total, count = tf.reduce_sum(reward[:, 0] * counted[:, 0]), tf.reduce_sum(counted[:, 0])
            baseline = before
        else:
            left = tf.cast(tf.cumsum(mask, axis=1, reverse=True), tf.int32)
            place = tf.maximum(left - 1, 0)
            size = self.variable.shape[0]
            total, count = (
                tf.math.unsorted_segment_sum(tf.reshape(x, [-1]), tf.reshape(place, [-1]), size)
                for x in (reward * counted, counted))
            baseline = tf.gather(before, place)
        mean = total / tf.maximum(count, 1)
        after = tf.where(count > 0, BASELINE_DECAY * before + (1 - BASELINE_DECAY) * mean, before)
        with tf.control_dependencies([baseline]):
            update = self.variable.assign(after)
        return baseline, update


def leave_one_out(reward: Tensor, n_samples: int) -> Tensor:
    """For each row the mean reward of the other draws of its caption: (C n_samples, T') -> the same
    shape.
    """
    grouped = tf.reshape(reward, [-1, n_samples, tf.shape(reward)[1]])
    others = (tf.reduce_sum(grouped, axis=1, keepdims=True) - grouped) / (n_samples - 1)
    return tf.reshape(others, tf.shape(reward))


def surrogate(alphas: Tensor, locations: Tensor, advantage: Tensor, counted: Tensor) -> Tensor:
    """sum over rows and steps of advantage * log p(s_t | s_<t, a), whose gradient is the second
    part of the bound's.

    Args:
        alphas: (R, T', L). locations: (R, T') int32. advantage: (R, T'), passes no gradient.
        counted: (R, T') 1 where a location was drawn for a real word, else 0.

    Returns:
        Scalar.
    """
    drawn = tf.gather(alphas, locations, batch_dims=2)
    return tf.reduce_sum(tf.stop_gradient(advantage) * tf.math.log(drawn + TINY) * counted)
