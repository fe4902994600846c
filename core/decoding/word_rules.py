"""Which words a search may write.

Letters in shapes: R rows (captions of one step), V words.
"""

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
        """Give words that may not be written log-probability -inf, and leave the others alone.

        Args:
            log_probs: (R, V).
            written: (R, max_len) int32, of which the first t words count.
            t: int scalar tensor.

        Returns:
            (R, V).
        """
        masked = mask_words(log_probs, self.never)
        if self.min_length <= 1 and not self.no_repeat_ngram:
            return masked
        size, minus_infinity = log_probs.shape[-1], tf.constant(float('-inf'), log_probs.dtype)
        is_end = tf.equal(tf.range(size), self.end)                                 # (V,)
        too_short = tf.logical_and(is_end, t + 1 < self.min_length)
        allowed = tf.where(too_short, minus_infinity, masked)                       # (R, V)
        if self.no_repeat_ngram:
            allowed = self._without_repeats(allowed, written, t)
        stuck = tf.equal(tf.reduce_max(allowed, axis=1, keepdims=True), minus_infinity)
        return tf.where(stuck, tf.where(is_end, masked, minus_infinity), allowed)

    def _without_repeats(self, log_probs: Tensor, written: Tensor, t: Tensor) -> Tensor:
        """Return -inf for words that would complete an n-gram a second time."""
        n, max_len = self.no_repeat_ngram, written.shape[1]
        spans = max_len - n + 1  # places where an n-gram can begin
        if spans < 1:
            return log_probs
        last = tf.gather(written, tf.maximum(t - n + 1 + tf.range(n - 1), 0), axis=1)   # (R, n-1)
        again = tf.tile((tf.range(spans) + n - 1 < t)[tf.newaxis],                  # (R, spans)
                        [tf.shape(written)[0], 1])
        for j in range(n - 1):
            again = tf.logical_and(again, tf.equal(written[:, j:j + spans], last[:, j:j + 1]))
        # The word that followed the same n - 1 words before must not follow them again.
        where = tf.where(again)                                                     # (hits, 2)
        words = tf.gather_nd(written[:, n - 1:], where)                             # (hits,)
        banned = tf.stack([tf.cast(where[:, 0], tf.int32), words], axis=1)          # (hits, 2)
        minus_infinity = tf.constant(float('-inf'), log_probs.dtype)
        return tf.tensor_scatter_nd_update(
            log_probs, banned, tf.fill(tf.shape(banned)[:1], minus_infinity))


def mask_words(log_probs: Tensor, never: Sequence[int]) -> Tensor:
    """Give words log-probability -inf, and leave the others alone.

    Args:
        log_probs: (R, V). never: numbers of the words.
    """
    words = tf.constant(list(never), tf.int32)
    is_banned = tf.equal(tf.range(log_probs.shape[-1])[:, tf.newaxis], words)       # (V, never)
    return tf.where(tf.reduce_any(is_banned, axis=1),
                    tf.constant(float('-inf'), log_probs.dtype), log_probs)
