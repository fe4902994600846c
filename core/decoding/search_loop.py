"""Writing captions in the graph, given a step function; nothing here knows what the step computes.

    decoding = model.decoding(max_len=20)
    decoded = greedy(decoding, Rules(end=model.end, never=model.never), max_len=20)

What all searches share is here, and greedy search; `sampling` draws words and `beam_search` keeps
several hypotheses. docs/decoding.md has the mathematics. Images whose caption is complete leave the
computation, see `compact`. Letters in shapes: N images of the batch, n of them still computed, R
rows (a multiple of n), V words.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from core.common.aliases import Tensor
from core.decoding.word_rules import Rules
from core.runtime.backend import tf

# Images whose search is over are thrown out where the others are at most this share. That costs one
# pass over the features of those that stay.
COMPACT_BELOW = 0.75
# 1, 2, 3, 4, 6, 8 ...
SIZES = np.sort([size * 2**i for size in (2, 3) for i in range(29)] + [1]).astype(np.int32)


class Step(NamedTuple):
    """What a step function returns.

    Attributes:
        log_probs: (R, V), log-probabilities of the next word.
        state: nest of (R, ...), the state after the step.
        trace: nest of (R, ...) numbers to be recorded beside each word (attention, gates).
    """

    log_probs: Tensor
    state: Tensor
    trace: Tensor


class Decoding(NamedTuple):
    """What a search starts from.

    Attributes:
        step: the step function, of `images` (nest of (n, ...), one row an image), the last `words`
            (R,) int32 and the `state` (nest of (R, ...)); it returns a Step. R is a multiple of n,
            and row r belongs to image r // (R / n). It must not mix rows of different images.
        images: nest of (N, ...), what the step needs of each image.
        state: nest of (N, ...), before the first word.
        start: (N,) int32, the first words fed.
    """

    step: Callable[..., Step]
    images: Tensor
    state: Tensor
    start: Tensor


class Decoded(NamedTuple):
    """Captions of a search that writes one caption an image.

    Attributes:
        words: (N, max_len) int32; after a caption's end its end word repeats.
        scores: (N,), sum of the log-probabilities of the words up to and including the end word.
        trace: nest of (N, max_len, ...), the steps' traces; after a caption's end the last one
            repeats.
        lengths: (N,) int32, words with the end word; max_len where a caption was cut.
        word_log_probs: (N, max_len), what each word adds to the score; 0 after the end.
    """

    words: Tensor
    scores: Tensor
    trace: Tensor
    lengths: Tensor
    word_log_probs: Tensor


def greedy(decoding: Decoding, rules: Rules, max_len: int) -> Decoded:
    """The most probable word at every step, until every caption has ended or `max_len` words are
    written.

    What is returned for an image does not depend on the others of its batch.

    Args:
        decoding: Decoding. rules: Rules.
        max_len: int, words written at most, the end word included.

    Returns:
        Decoded.
    """
    return write(decoding, rules, max_len, lambda log_probs, t, more: tf.argmax(
        log_probs, 1, output_type=tf.int32))


def write(decoding: Decoding, rules: Rules, max_len: int, choose: Callable[..., Tensor],
          more: Tensor = ()) -> Decoded:
    """Write one caption an image, word by word.

    Args:
        decoding: Decoding. rules: Rules. max_len: int, words written at most, the end word
            included.
        choose: function from the log-probabilities (n, V), -inf where a word is not allowed, the
            step t and the rows (n, ...) of `more` to the words (n,) int32.
        more: nest of (N, ...), what `choose` needs of each image.

    Returns:
        Decoded.
    """
    check_length(max_len, rules)
    n_images = tf.shape(decoding.start)[0]

    def advance(t: Tensor, live: '_Live') -> 'tuple[_Live, Tensor]':
        result = decoding.step(live.images, live.words, live.state)
        words = choose(rules.apply(result.log_probs, live.written, t), t, live.more)
        gained = tf.gather(result.log_probs, words, batch_dims=1)
        scores, lengths = live.kept if live.kept else (tf.zeros_like(gained), tf.zeros_like(words))
        kept = (tf.where(live.over, scores, scores + gained), tf.where(live.over, lengths, t + 1))
        over = tf.logical_or(live.over, tf.equal(words, rules.end))
        live = live._replace(over=over, words=words, state=result.state,
                             written=put(live.written, t, words), kept=kept)
        return live, (words, result.trace, gained)

    live = _Live(tf.range(n_images), tf.zeros([n_images], tf.bool), (), decoding.images, more,
                 decoding.start, decoding.state, tf.zeros([n_images, max_len], tf.int32))
    (scores, lengths), recorded = run_steps(advance, live, n_images, max_len)
    # After its end nothing counts that was recorded for an image: its last step repeats.
    steps = tf.minimum(tf.range(max_len), lengths[:, tf.newaxis] - 1)
    index = tf.stack([steps, tf.tile(tf.range(n_images)[:, tf.newaxis], [1, max_len])], axis=2)
    words, trace, gained = tf.nest.map_structure(lambda x: tf.gather_nd(x, index), recorded)
    gained = tf.where(tf.range(max_len) < lengths[:, tf.newaxis], gained, tf.zeros_like(gained))
    return Decoded(words, scores, trace, lengths, gained)


class _Live(NamedTuple):
    """The images that `write` still computes, see `run_steps`; kept: (scores (n,), lengths (n,))."""

    numbers: Tensor
    over: Tensor
    kept: Tensor
    images: Tensor
    more: Tensor
    words: Tensor
    state: Tensor
    written: Tensor


def check_length(max_len: int, rules: Rules) -> None:
    """Refuse lengths that no caption can have."""
    if max_len < 1:
        raise ValueError(f'max_len must be at least 1, not {max_len}')
    if rules.min_length > max_len:
        raise ValueError(f'min_length must be at most max_len, {max_len}, not {rules.min_length}')


def run_steps(advance: Callable[..., tuple], live: Tensor, n_images: Tensor,
              max_len: int) -> tuple[Tensor, Tensor]:
    """Run steps until every image's search is over or `max_len` steps are done; the loop of all
    searches.

    Args:
        advance: function from (step t, live) to (live after it, nest of (n, ...) to be recorded).
            The first step may give other shapes of `live` than it takes.
        live: named tuple of nests whose first dimension is a multiple of n, among them `numbers`
            (n,) int32, the images' places in the batch, `over` (n,) bool, and `kept`, a nest of (n,
            ...) that no longer changes when an image's search is over.
        n_images: scalar tensor, N. max_len: int.

    Returns:
        (`kept` of all images, nest of (N, ...); what was recorded, nest of (steps, N, ...), with
        anything at steps of an image after its search was over).
    """
    # The first step stands before the loop: it tells structure, shapes and types, and may have
    # fewer rows.
    live, recorded = advance(tf.constant(0), live)
    arrays = tf.nest.map_structure(
        lambda x: tf.TensorArray(x.dtype, max_len, element_shape=[None, *x.shape[1:]]).write(0, x),
        recorded)

    def body(t: Tensor, live: Tensor, kept: Tensor, arrays: Tensor) -> Tensor:
        live, recorded = advance(t, compact(live))
        places = live.numbers[:, tf.newaxis]

        def record(array: Tensor, x: Tensor) -> Tensor:
            shape = tf.concat([[n_images], tf.shape(x)[1:]], axis=0)
            return array.write(
                t, tf.ensure_shape(tf.scatter_nd(places, x, shape), [None, *x.shape[1:]]))

        kept = tf.nest.map_structure(lambda all, x: tf.tensor_scatter_nd_update(all, places, x),
                                     kept, live.kept)
        return t + 1, live, kept, tf.nest.map_structure(record, arrays, recorded)

    def some_rows(nest: Tensor) -> Tensor:
        return tf.nest.map_structure(lambda x: tf.TensorShape([None, *x.shape[1:]]), nest)

    n_steps, _, kept, arrays = tf.while_loop(
        lambda t, live, *_: tf.logical_and(t < max_len, tf.logical_not(tf.reduce_all(live.over))),
        body, (tf.constant(1), live, live.kept, arrays),
        shape_invariants=(tf.TensorShape([]), some_rows(live), some_rows(live.kept),
                          tf.nest.map_structure(lambda _: tf.TensorShape(None), arrays)))
    return kept, tf.nest.map_structure(lambda array: array.gather(tf.range(n_steps)), arrays)


def compact(live: Tensor) -> Tensor:
    """Leave images whose search is over out of the computation, once there are enough of them.

    Args:
        live: see `run_steps`; at least one of its images is not over.

    Returns:
        The same, with fewer rows or with all. Only the numbers of images in SIZES are left, so that
        what is compiled for a size is used again; images that are over fill them up.
    """
    n = tf.shape(live.over)[0]
    n_live = tf.reduce_sum(tf.cast(tf.logical_not(live.over), tf.int32))
    size = tf.reduce_min(tf.boolean_mask(SIZES, n_live <= SIZES))

    def shrink() -> Tensor:
        keep = tf.argsort(tf.cast(live.over, tf.int32), stable=True)[:size]

        def take(x: Tensor) -> Tensor:
            """Rows of the kept images; each has as many as x has for an image."""
            rest = tf.shape(x)[1:]
            grouped = tf.reshape(x, tf.concat([[n, tf.shape(x)[0] // n], rest], axis=0))
            taken = tf.reshape(tf.gather(grouped, keep), tf.concat([[-1], rest], axis=0))
            return tf.ensure_shape(taken, [None, *x.shape[1:]])

        return tf.nest.map_structure(take, live)

    few = tf.cast(size, tf.float32) <= COMPACT_BELOW * tf.cast(n, tf.float32)
    return tf.cond(few, shrink, lambda: tf.nest.map_structure(tf.identity, live))


def put(written: Tensor, t: Tensor, words: Tensor) -> Tensor:
    """`written` (..., max_len) int32 with `words` (...) at place t."""
    return tf.where(tf.equal(tf.range(written.shape[-1]), t), words[..., tf.newaxis], written)
