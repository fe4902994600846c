"""Self-critical sequence training: what drawn captions earn (Rennie et al. 2017, arXiv 1612.00563).

A caption w is drawn from the model and earns the reward r(w). The gradient of the expected reward

    d E[r(w)] = E[ (r(w) - b) d log p(w) ]                          their eq. 5, 6

holds for every b that does not depend on w: what greedy decoding earns (their eq. 8), or the mean
reward of the other captions drawn for the image (leave one out: Kool et al. 2019).

Letters in shapes: N images, R captions drawn for them (caption r belongs to image r // (R / N)), T
words of a caption at most.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from core.common.aliases import DType, Tensor
from core.runtime.backend import tf

# Function from captions (R, T) int32, <NULL> behind the end, and the numbers (N,) int32 of their
# images to rewards (R,) float32; in NumPy.
Rewards = Callable[[np.ndarray, np.ndarray], np.ndarray]


class Earned(NamedTuple):
    """What drawn captions earn; neither passes a gradient.

    Attributes:
        reward: (R,), r(w).
        advantage: (R,), r(w) - b.
    """

    reward: Tensor
    advantage: Tensor


class SelfCritic:
    """Rewards of drawn captions, against a baseline.

    Args:
        rewards: Rewards. images: (N,) int32, numbers of the images.
        greedy: (N, T) int32, the captions that greedy decoding writes, the end word repeated
            behind the end; None: the baseline is the mean of the image's other captions.
        end, null: numbers of the words.
    """

    def __init__(self, rewards: Rewards, images: Tensor, greedy: Tensor, end: int,
                 null: int) -> None:
        self._rewards, self._images, self._greedy = rewards, images, greedy
        self._end, self._null = end, null

    def captions(self, words: Tensor) -> Tensor:
        """Return words (R, T) int32 with <NULL> in the place of all behind the first <END>."""
        is_end = tf.cast(tf.equal(words, self._end), tf.int32)
        ended = tf.cumsum(is_end, axis=1, exclusive=True) > 0                       # (R, T)
        return tf.where(ended, self._null, words)

    def __call__(self, captions: Tensor, dtype: DType) -> Earned:
        """Return Earned, of type `dtype`, of captions (R, T) int32 as `captions` returns them."""
        reward = self._reward(captions, dtype)                                      # (R,)
        of_image = tf.reshape(reward, [tf.shape(self._images)[0], -1])              # (N, R / N)
        if self._greedy is not None:
            baseline = self._reward(self.captions(self._greedy), dtype)[:, tf.newaxis]
            return Earned(reward, tf.reshape(of_image - baseline, [-1]))
        # r - mean of the others = (n r - sum) / (n - 1); a caption alone has none to be better than
        n = tf.shape(of_image)[1]
        difference = tf.cast(n, dtype) * of_image - tf.reduce_sum(of_image, axis=1, keepdims=True)
        advantage = difference / tf.cast(tf.maximum(n - 1, 1), dtype)               # (N, R / N)
        return Earned(reward, tf.reshape(advantage, [-1]))

    def _reward(self, captions: Tensor, dtype: DType) -> Tensor:
        reward = tf.numpy_function(self._rewards, [captions, self._images], tf.float32)
        return tf.cast(tf.ensure_shape(reward, [None]), dtype)                      # (R,)
