"""Searching captions in the graph, given a step function; nothing here knows what that computes.

    decoding = model.decoding(max_len=20)
    hypotheses = greedy(decoding, Rules(end=model.end, never=model.never), max_len=20)

What all searches share is here, and greedy search; `sampling` draws words and `beam_search` keeps
several hypotheses of an image. docs/decoding.md has the mathematics. Images whose caption is
complete leave the computation, see `compact`.

Letters in shapes: N images of the batch, n of them still computed, R rows (a multiple of n; row r
belongs to image r // (R / n)), P captions of an image, L locations, V words.
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
# 1, 2, 3, 4, 6, 8, 12 ...
SIZES = np.sort([size * 2**i for size in (2, 3) for i in range(29)] + [1]).astype(np.int32)


class NextWord(NamedTuple):
    """What a step function returns.

    Attributes:
        log_probs: (R, V), log-probabilities of the next word.
        state: nest of (R, ...), the state after the step.
        alpha: (R, L), where the step looked.
        beta: (R,), its gate.
    """

    log_probs: Tensor
    state: Tensor
    alpha: Tensor
    beta: Tensor


class Decoding(NamedTuple):
    """What a search starts from.

    Attributes:
        step: the step function, of `images` (nest of (n, ...), one row an image), the last `words`
            (R,) int32 and the `state` (nest of (R, ...)); it returns a NextWord. It must not mix
            rows of different images.
        images: nest of (N, ...), what the step needs of each image.
        state: nest of (N, ...), before the first word.
        start: (N,) int32, the first words fed.
    """

    step: Callable[[Tensor, Tensor, Tensor], NextWord]
    images: Tensor
    state: Tensor
    start: Tensor


class Hypotheses(NamedTuple):
    """What every search returns: captions of each image, best first.

    Slots that are not used, because there are fewer captions, have score -inf, length 0 and no word
    but the end word.

    Attributes:
        captions: (N, P, max_len) int32, words; the end word repeats after the end.
        scores: (N, P), what captions are ranked by: log_probs / lengths**length_penalty.
        alphas: (N, P, max_len, L), the attention at each word; after the end the last one repeats.
        betas: (N, P, max_len), the gates; after the end the last one repeats.
        log_probs: (N, P), the model's log-probability of the words, the end word included.
        lengths: (N, P) int32, words with the end word; max_len where a caption was cut.
        word_log_probs: (N, P, max_len), what each word adds to log_probs; 0 after the end.
    """

    captions: Tensor
    scores: Tensor
    alphas: Tensor
    betas: Tensor
    log_probs: Tensor
    lengths: Tensor
    word_log_probs: Tensor


def greedy(decoding: Decoding, rules: Rules, max_len: int) -> Hypotheses:
    """Write the likeliest word at every step, until every caption has ended.

    What is returned for an image does not depend on the others of its batch.

    Args:
        decoding: Decoding. rules: Rules.
        max_len: int, words written at most, the end word included.

    Returns:
        Hypotheses, one an image.
    """
    def likeliest(log_probs: Tensor, t: Tensor, _: Tensor) -> Tensor:
        return tf.argmax(log_probs, axis=1, output_type=tf.int32)

    return single_search(decoding, rules, max_len, likeliest)


def single_search(decoding: Decoding, rules: Rules, max_len: int, choose: Callable[..., Tensor],
                  draws: Tensor = ()) -> Hypotheses:
    """Write one caption an image, word by word.

    Args:
        decoding: Decoding. rules: Rules.
        max_len: int, words written at most, the end word included.
        choose: function from the log-probabilities (n, V), -inf where a word is not allowed, the
            step t and the rows (n, ...) of `draws` to the words (n,) int32.
        draws: nest of (N, ...), what `choose` needs of each image.

    Returns:
        Hypotheses, one an image, whose score is its log-probability.
    """
    check_length(max_len, rules)
    n_images = tf.shape(decoding.start)[0]

    def advance(t: Tensor, live: '_Single', first: bool) -> tuple['_Single', Tensor]:
        new = decoding.step(live.images, live.words, live.state)
        words = choose(rules.apply(new.log_probs, live.written, t), t, live.draws)  # (n,)
        gain = tf.gather(new.log_probs, words, batch_dims=1)                        # (n,)
        total, length = (tf.zeros_like(gain), tf.zeros_like(words)) if first else live.result
        result = (tf.where(live.over, total, total + gain), tf.where(live.over, length, t + 1))
        live = live._replace(
            over=tf.logical_or(live.over, tf.equal(words, rules.end)), words=words,
            state=new.state, written=with_word(live.written, t, words), result=result)
        return live, (words, new.alpha, new.beta, gain)

    live = _Single(
        numbers=tf.range(n_images), over=tf.zeros([n_images], tf.bool), result=(),
        images=decoding.images, draws=draws, words=decoding.start, state=decoding.state,
        written=tf.zeros([n_images, max_len], tf.int32))
    (total, length), recorded = run_steps(advance, live, n_images, max_len)         # (N,) each
    # After its end nothing counts that was recorded for an image: its last step repeats.
    steps = tf.minimum(tf.range(max_len), length[:, tf.newaxis] - 1)                # (N, max_len)
    image = tf.tile(tf.range(n_images)[:, tf.newaxis], [1, max_len])                # (N, max_len)
    words, alpha, beta, gain = tf.nest.map_structure(                               # (N, max_len..)
        lambda x: tf.gather_nd(x, tf.stack([steps, image], axis=2)), recorded)
    gain = tf.where(tf.range(max_len) < length[:, tf.newaxis], gain, tf.zeros_like(gain))
    single = Hypotheses(words, total, alpha, beta, total, length, gain)
    return tf.nest.map_structure(lambda x: x[:, tf.newaxis], single)                # (N, 1, ...)


class _Single(NamedTuple):
    """The images that `single_search` still computes, see `run_steps`.

    Attributes:
        numbers: (n,) int32. over: (n,) bool. result: (log-probability (n,), length (n,) int32).
        images: nest of (n, ...). draws: nest of (n, ...).
        words: (n,) int32, written last. state: nest of (n, ...). written: (n, max_len) int32.
    """

    numbers: Tensor
    over: Tensor
    result: Tensor
    images: Tensor
    draws: Tensor
    words: Tensor
    state: Tensor
    written: Tensor


def check_length(max_len: int, rules: Rules) -> None:
    """Raise ValueError for a length that no caption can have."""
    if max_len < 1:
        raise ValueError(f'max_len must be at least 1, not {max_len}')
    if rules.min_length > max_len:
        raise ValueError(f'min_length must be at most max_len, {max_len}, not {rules.min_length}')


def run_steps(advance: Callable[..., tuple], live: Tensor, n_images: Tensor,
              max_len: int) -> tuple[Tensor, Tensor]:
    """Run steps until every search is over or `max_len` steps are done: the loop of all searches.

    Args:
        advance: function from (step t, live, whether it is the first) to (live after it, nest of
            (n, ...) to be recorded). The first step may give other shapes of `live` than it takes.
        live: named tuple of nests whose first dimension is a multiple of n, among them `numbers`
            (n,) int32, the images' places in the batch, `over` (n,) bool, and `result`, a nest of
            (n, ...) that no longer changes when an image's search is over.
        n_images: scalar tensor, N. max_len: int.

    Returns:
        (`result` of all images, nest of (N, ...); what was recorded, nest of (steps, N, ...), with
        anything at steps of an image after its search was over).
    """
    # The first step stands before the loop: it tells structure, shapes and types, and may have
    # fewer rows.
    live, recorded = advance(tf.constant(0), live, True)

    def array(x: Tensor) -> Tensor:
        shape = [None, *x.shape[1:]]
        return tf.TensorArray(x.dtype, max_len, element_shape=shape).write(0, x)

    def body(t: Tensor, live: Tensor, result: Tensor, arrays: Tensor) -> Tensor:
        live, recorded = advance(t, compact(live), False)
        places = live.numbers[:, tf.newaxis]                                        # (n, 1)

        def record(array: Tensor, x: Tensor) -> Tensor:
            of_all = tf.scatter_nd(places, x, tf.concat([[n_images], tf.shape(x)[1:]], axis=0))
            return array.write(t, tf.ensure_shape(of_all, [None, *x.shape[1:]]))    # (N, ...)

        result = tf.nest.map_structure(
            lambda of_all, x: tf.tensor_scatter_nd_update(of_all, places, x), result, live.result)
        return t + 1, live, result, tf.nest.map_structure(record, arrays, recorded)

    def some_rows(nest: Tensor) -> Tensor:
        return tf.nest.map_structure(lambda x: tf.TensorShape([None, *x.shape[1:]]), nest)

    arrays = tf.nest.map_structure(array, recorded)
    n_steps, _, result, arrays = tf.while_loop(
        lambda t, live, *_: tf.logical_and(t < max_len, tf.logical_not(tf.reduce_all(live.over))),
        body, (tf.constant(1), live, live.result, arrays),
        shape_invariants=(tf.TensorShape([]), some_rows(live), some_rows(live.result),
                          tf.nest.map_structure(lambda _: tf.TensorShape(None), arrays)))
    return result, tf.nest.map_structure(lambda array: array.gather(tf.range(n_steps)), arrays)


def compact(live: Tensor) -> Tensor:
    """Leave images whose search is over out of the computation, once there are enough of them.

    Args:
        live: nest, see `run_steps`; at least one of its images is not over.

    Returns:
        The same, with fewer rows or with all. Only the numbers of images in SIZES are left, so that
        what is compiled for a size is used again; images that are over fill them up.
    """
    n = tf.shape(live.over)[0]
    n_live = tf.reduce_sum(tf.cast(tf.logical_not(live.over), tf.int32))
    size = tf.reduce_min(tf.boolean_mask(SIZES, n_live <= SIZES))

    def shrink() -> Tensor:
        staying = tf.argsort(tf.cast(live.over, tf.int32), stable=True)[:size]      # (size,)

        def take(x: Tensor) -> Tensor:
            """Take the rows of the images that stay; each has as many as x has for an image."""
            rest = tf.shape(x)[1:]
            grouped = tf.reshape(x, tf.concat([[n, tf.shape(x)[0] // n], rest], axis=0))
            rows = tf.reshape(tf.gather(grouped, staying), tf.concat([[-1], rest], axis=0))
            return tf.ensure_shape(rows, [None, *x.shape[1:]])

        return tf.nest.map_structure(take, live)

    few = tf.cast(size, tf.float32) <= COMPACT_BELOW * tf.cast(n, tf.float32)
    return tf.cond(few, shrink, lambda: tf.nest.map_structure(tf.identity, live))


def with_word(written: Tensor, t: Tensor, words: Tensor) -> Tensor:
    """Return `written` (..., max_len) int32 with `words` (...) at place t."""
    return tf.where(tf.equal(tf.range(written.shape[-1]), t), words[..., tf.newaxis], written)
