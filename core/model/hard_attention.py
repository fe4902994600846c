"""Stochastic hard attention (paper section 4.1): drawing locations, and the gradient of the bound.

At every step a location s_t is drawn from Multinoulli(alpha_t) and the context is the annotation
there. The bound E_s[log p(y | s, a)] <= log p(y | a) (eq. 10) has the gradient

    E_s[ d log p(y|s,a) + (log p(y|s,a) - b) d log p(s|a) ]                     eq. 11, there b = 0

for every baseline b that does not depend on the draw (REINFORCE). `surrogate` is the scalar whose
ordinary gradient is the second part: the draw itself passes no gradient.

While decoding, a hard model takes the expected context unless `decode_context` says otherwise, as
the authors' code does.

Letters in shapes: R captions (or draws of captions), L locations, T' steps, T of them at most.
"""

from collections.abc import Callable
from typing import NamedTuple

from core.common.aliases import DType, Operation, Tensor
from core.runtime.backend import tf, tf1
from core.runtime.random_streams import RandomStream

BASELINE_DECAY = 0.9
# keeps logarithms of weights that underflow finite; their gradient is zero through the softmax
LOG_FLOOR = 1e-20

# What the annotations are summed with: function from the step t and alpha (R, L) to the weights
# (R, L) of the locations in the context, which must sum to 1 (`Annotations.affine`), and the
# locations (R,) int32 that they single out. Only `expected` may give () for these: the training
# loop asks whether it is that very function.
ContextWeights = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]


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
    """Draw for n_captions * n_samples rows; a caption's samples share its coin.

    Args:
        seed: (2,) int32. n_steps, n_captions: scalars. n_samples: rows of a caption.
        probability: of using the drawn locations, `semi_sampling_p`. dtype: of the numbers.
    """
    fold_in = tf.random.experimental.stateless_fold_in
    uniform = tf.random.stateless_uniform([n_steps, n_captions * n_samples],
                                          fold_in(seed, RandomStream.LOCATIONS), dtype=dtype)
    coin = tf.random.stateless_uniform([n_captions], fold_in(seed, RandomStream.SEMI_SAMPLING),
                                       dtype=dtype) < probability                   # (captions,)
    return Draws(uniform, tf.repeat(coin, n_samples))


# ---- the weights of the locations in the context: soft attention has `expected`, hard the others


def expected(t: Tensor, alpha: Tensor) -> tuple[Tensor, Tensor]:
    """Return ContextWeights of soft attention, alpha (R, L) itself: z = sum_i alpha_i a_i (eq. 13).

    Args:
        t: the step, which does not matter. alpha: (R, L).
    """
    return alpha, ()


def likeliest(t: Tensor, alpha: Tensor) -> tuple[Tensor, Tensor]:
    """Return ContextWeights that look at the place of the largest alpha (R, L), at any step t."""
    location = tf.argmax(alpha, axis=1, output_type=tf.int32)                       # (R,)
    return one_hot(alpha, location), location


def at(locations: Tensor) -> ContextWeights:
    """Return ContextWeights that look where they are told: locations (R, T) int32."""
    by_step = tf.transpose(locations)                                               # (T, R)
    return lambda t, alpha: (one_hot(alpha, by_step[t]), by_step[t])


def drawn(uniform: Tensor, sampled: Tensor = None) -> ContextWeights:
    """Return ContextWeights of a location drawn from alpha: s ~ Multinoulli(alpha) (eq. 8, 9).

    A drawn location passes no gradient to alpha; alpha in the place of a draw its ordinary one.

    Args:
        uniform: (T', R) in [0, 1), decides each location.
        sampled: (R,) bool, False where alpha takes the draw's place (semi-sampling); None: nowhere.
    """
    def draw(t: Tensor, alpha: Tensor) -> tuple[Tensor, Tensor]:
        location = locate(alpha, uniform[t])                                        # (R,)
        weights = one_hot(alpha, location)                                          # (R, L)
        if sampled is not None:
            weights = tf.where(sampled[:, tf.newaxis], weights, alpha)
        return weights, location

    return draw


def drawn_of_images(uniform: Tensor) -> ContextWeights:
    """Return ContextWeights of a location drawn from alpha, for any number of rows an image.

    The rows of an image share its numbers, so that a caption's score is a function of its words.

    Args:
        uniform: (n, T') in [0, 1), decides each location; rows r of R belong to image r // (R / n).
    """
    def draw(t: Tensor, alpha: Tensor) -> tuple[Tensor, Tensor]:
        n_rows = tf.shape(alpha)[0] // tf.shape(uniform)[0]
        location = locate(alpha, tf.repeat(uniform[:, t], n_rows))                  # (R,)
        return one_hot(alpha, location), location

    return draw


def locate(alpha: Tensor, uniform: Tensor) -> Tensor:
    """Draw locations (R,) int32: where the cumulated alpha (R, L) passes uniform (R,)."""
    cumulated = tf.cumsum(alpha, axis=1)                                            # (R, L)
    # Of the sum, not of one, which rounding may keep it from reaching.
    threshold = uniform[:, tf.newaxis] * cumulated[:, -1:]                          # (R, 1)
    location = tf.reduce_sum(tf.cast(cumulated <= threshold, tf.int32), axis=1)     # (R,)
    return tf.minimum(location, alpha.shape[1] - 1)


def one_hot(alpha: Tensor, location: Tensor) -> Tensor:
    """Return weights (R, L), one at the location (R,), of the type of alpha (R, L)."""
    return tf.one_hot(location, alpha.shape[1], dtype=alpha.dtype)


# ---- the terms of the loss


def entropies(alphas: Tensor) -> Tensor:
    """Compute the entropy H[s] in nats of alphas (..., L) -> (...)."""
    return -tf.reduce_sum(alphas * tf.math.log(alphas + LOG_FLOOR), axis=-1)


def rewards(log_probs: Tensor, kind: str) -> Tensor:
    """Return what each draw is credited with, (R, T').

    Args:
        log_probs: (R, T') of the words, zero at padding.
        kind: 'sequence', log p of the whole caption, as the paper; or 'to_go', log p of the words
            from this step on. Words before a draw do not depend on it, so what they give has
            expectation zero and is left out.
    """
    if kind == 'to_go':
        return tf.cumsum(log_probs, axis=1, reverse=True)
    return tf.reduce_sum(log_probs, axis=1, keepdims=True) + tf.zeros_like(log_probs)


class MovingBaseline:
    """b_k = 0.9 b_{k-1} + 0.1 mean reward (4.1), kept in the variable `hard_attention/baseline`.

    For rewards of the whole caption one number, as the paper; for rewards to go one for every
    number of words that are left (T of them), as a draw late in a caption has less to be credited
    with.

    Args:
        kind: 'sequence' or 'to_go'. n_time_step: T, words of a caption at most.
        dtype: of the variable.

    Attributes:
        variable: () or (T,), not trained.
    """

    def __init__(self, kind: str, n_time_step: int, dtype: DType) -> None:
        self.kind = kind
        shape = [] if kind == 'sequence' else [n_time_step]
        with tf1.variable_scope('hard_attention', reuse=tf1.AUTO_REUSE, use_resource=True):
            self.variable = tf1.get_variable('baseline', shape, dtype, tf1.zeros_initializer(),
                                             trainable=False)

    def __call__(self, reward: Tensor, mask: Tensor, sampled: Tensor) -> tuple[Tensor, Operation]:
        """Return the baseline before this step, and its update.

        Args:
            reward: (R, T'). mask: (R, T') 1 for real words.
            sampled: (R,) bool, rows whose locations were drawn; the others do not count.

        Returns:
            (baseline (R, T') or (), update): `update` is an operation that runs after the baseline
            was read.
        """
        counted = mask * tf.cast(sampled, mask.dtype)[:, tf.newaxis]                # (R, T')
        before = self.variable.read_value()                                         # () or (T,)
        if self.kind == 'sequence':
            total, count = tf.reduce_sum(reward[:, 0] * counted[:, 0]), tf.reduce_sum(counted[:, 0])
            baseline = before
        else:
            left = tf.cast(tf.cumsum(mask, axis=1, reverse=True), tf.int32)         # (R, T')
            place = tf.maximum(left - 1, 0)                                         # (R, T')
            size = self.variable.shape[0]
            total, count = (                                                        # (T,) each
                tf.math.unsorted_segment_sum(tf.reshape(x, [-1]), tf.reshape(place, [-1]), size)
                for x in (reward * counted, counted))
            baseline = tf.gather(before, place)                                     # (R, T')
        mean = total / tf.maximum(count, 1)
        # A place that no draw of the batch has reached keeps what it knew.
        after = tf.where(count > 0, BASELINE_DECAY * before + (1 - BASELINE_DECAY) * mean, before)
        with tf.control_dependencies([baseline]):
            update = self.variable.assign(after)
        return baseline, update


def leave_one_out(reward: Tensor, n_samples: int) -> Tensor:
    """Return for each row the mean reward of its caption's other draws.

    Args:
        reward: (R, T'), the draws of a caption one after the other. n_samples: draws of a caption.
    """
    grouped = tf.reshape(reward, [-1, n_samples, tf.shape(reward)[1]])  # (captions, n_samples, T')
    others = (tf.reduce_sum(grouped, axis=1, keepdims=True) - grouped) / (n_samples - 1)
    return tf.reshape(others, tf.shape(reward))                                     # (R, T')


def surrogate(alphas: Tensor, locations: Tensor, advantage: Tensor, counted: Tensor) -> Tensor:
    """Return the scalar whose gradient is the second part of the bound's.

    It is the sum over rows and steps of advantage * log p(s_t | s_<t, a).

    Args:
        alphas: (R, T', L). locations: (R, T') int32. advantage: (R, T'), passes no gradient.
        counted: (R, T') 1 where a location was drawn for a real word, else 0.
    """
    probability = tf.gather(alphas, locations, batch_dims=2)                        # (R, T')
    log_probability = tf.math.log(probability + LOG_FLOOR)
    return tf.reduce_sum(tf.stop_gradient(advantage) * log_probability * counted)
