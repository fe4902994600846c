"""Which words a search may write."""

from collections.abc import Sequence
from typing import NamedTuple

from core.common.aliases import Tensor
from core.runtime.backend import tf


class Rules(NamedTuple):
    """Which words may be written. Where the rules leave no word, the end word is allowed.

    Attributes:
        end: int, index of the end word.
        never: indices of words that are never written; `end` must not be among them.
        min_length: words of a caption at least, the end word included.
        no_repeat_ngram: n, no n words in a row occur twice in a caption; 0: they may.
    """

    end: int
    never: Sequence[int] = ()
    min_length: int = 0
    no_repeat_ngram: int = 0

    def apply(self, log_probs: Tensor, written: Tensor, t: Tensor) -> Tensor:
        """Give words that may not be written log-probability -inf; the others keep the model's own
        values.

        Args:
            log_probs: (R, V). written: (R, max_len) int32, of which the first t words count. t: int
                scalar tensor.

        Returns:
            (R, V).
        """
        masked = mask_words(log_probs, self.never)
        if self.min_length <= 1 and not self.no_repeat_ngram:
            return masked
        size, minus_infinity = log_probs.shape[-1], tf.constant(float('-inf'), log_probs.dtype)
        is_end = tf.equal(tf.range(size), self.end)
        allowed = tf.where(tf.logical_and(is_end, t + 1 < self.min_length), minus_infinity, masked)
        if self.no_repeat_ngram:
            allowed = self._without_repeats(allowed, written, t)
        stuck = tf.equal(tf.reduce_max(allowed, axis=1, keepdims=True), minus_infinity)
        return tf.where(stuck, tf.where(is_end, masked, minus_infinity), allowed)

    def _without_repeats(self, log_probs: Tensor, written: Tensor, t: Tensor) -> Tensor:
        """-inf for words that would complete an n-gram a second time."""
        n, max_len = self.no_repeat_ngram, written.shape[1]
        spans = max_len - n + 1  # places where an n-gram can begin
        if spans < 1:
            return log_probs
        last = tf.gather(written, tf.maximum(t - n + 1 + tf.range(n - 1), 0), axis=1)
        again = tf.tile((tf.range(spans) + n - 1 < t)[tf.newaxis], [tf.shape(written)[0], 1])
        for j in range(n - 1):
            again = tf.logical_and(again, tf.equal(written[:, j : j + spans], last[:, j : j + 1]))
        where = tf.where(again)
        banned = tf.stack(
            [tf.cast(where[:, 0], tf.int32), tf.gather_nd(written[:, n - 1 :], where)], axis=1)
        return tf.tensor_scatter_nd_update(log_probs, banned, tf.fill(
            tf.shape(banned)[:1], tf.constant(float('-inf'), log_probs.dtype)))


def mask_words(log_probs: Tensor, never: Sequence[int]) -> Tensor:
    """Give the word indices in `never` log-probability -inf; the others keep the model's own
    values.
    """
    size = log_probs.shape[-1]
    banned = tf.reduce_any(
        tf.equal(tf.range(size)[:, tf.newaxis], tf.constant(list(never), tf.int32)), axis=1)
    return tf.where(banned, tf.constant(float('-inf'), log_probs.dtype), log_probs)
