"""Writing captions in the graph, given a step function; nothing here knows what the step computes.

A step function takes `words` (N,) int32, the words just written, and a `state` (any nest of tensors whose first
dimension is N), and returns a `Step`. Greedy search is here; other searches take the same step function.
"""

from typing import NamedTuple

from core.backend import tf


class Step(NamedTuple):
    """What a step function returns.

    Attributes:
        log_probs: (N, V), log-probabilities of the next word.
        state: nest of (N, ...), the state after the step.
        trace: nest of (N, ...), whatever should be recorded beside each word (attention, gates).
    """

    log_probs: object
    state: object
    trace: object


class Decoded(NamedTuple):
    """Captions of one search.

    Attributes:
        words: (N, max_len) int32; after a caption's end its end word repeats.
        scores: (N,), sum of the log-probabilities of the words up to and including the end word.
        trace: nest of (N, max_len, ...), the steps' traces; after a caption's end the last one repeats.
    """

    words: object
    scores: object
    trace: object


def mask_words(log_probs, never):
    """Give the word indices in `never` log-probability -inf; the others keep the model's own values."""
    size = log_probs.shape[-1]
    banned = tf.reduce_any(tf.equal(tf.range(size)[:, tf.newaxis], tf.constant(list(never), tf.int32)), axis=1)
    return tf.where(banned, tf.constant(float('-inf'), log_probs.dtype), log_probs)


def greedy(step, state, start, end, max_len, never=()):
    """The most probable word at every step, until every caption has ended or `max_len` words are written.

    A caption that has ended is frozen: its state, word and trace no longer change, whatever the others of its batch
    still do, so what is returned for an image does not depend on its batch mates.

    Args:
        step: the step function, see above.
        state: nest of (N, ...), the state before the first word.
        start: (N,) int32, the first words fed.
        end: int, index of the end word.
        max_len: int, words written at most, the end word included.
        never: indices of words that must not be written; `end` must not be among them.

    Returns:
        Decoded.
    """
    if max_len < 1:
        raise ValueError(f'max_len must be at least 1, not {max_len}')

    def advance(words, state):
        result = step(words, state)
        masked = mask_words(result.log_probs, never)
        chosen = tf.argmax(masked, axis=-1, output_type=tf.int32)
        return chosen, tf.reduce_max(masked, axis=-1), result.state, result.trace

    def frozen(ended, old, new):
        def pick(a, b):
            return tf.where(tf.reshape(ended, [-1] + [1] * (b.shape.rank - 1)), a, b)

        return tf.nest.map_structure(pick, old, new)

    def write(arrays, t, values):
        return tf.nest.map_structure(lambda array, value: array.write(t, value), arrays, values)

    # The first step stands before the loop: it tells the trace's structure, shapes and types.
    words, scores, state, trace = advance(start, state)
    arrays = tf.nest.map_structure(
        lambda tensor: tf.TensorArray(tensor.dtype, max_len, element_shape=tensor.shape), (words, trace)
    )
    arrays = write(arrays, 0, (words, trace))

    def unfinished(t, words, *_):
        return tf.logical_and(t < max_len, tf.reduce_any(tf.not_equal(words, end)))

    def body(t, words, scores, state, trace, arrays):
        ended = tf.equal(words, end)
        chosen, gained, new_state, new_trace = advance(words, state)
        words = tf.where(ended, words, chosen)
        scores += tf.where(ended, tf.zeros_like(gained), gained)
        state, trace = frozen(ended, (state, trace), (new_state, new_trace))
        return t + 1, words, scores, state, trace, write(arrays, t, (words, trace))

    written, _, scores, _, _, arrays = tf.while_loop(
        unfinished, body, (tf.constant(1), words, scores, state, trace, arrays)
    )
    # Steps after the last one written repeat it: every caption has ended by then.
    steps = tf.minimum(tf.range(max_len), written - 1)

    def batch_major(array):
        stacked = array.gather(steps)
        moved = tf.transpose(stacked, [1, 0] + list(range(2, stacked.shape.rank)))
        return tf.ensure_shape(moved, [moved.shape[0], max_len] + moved.shape[2:].as_list())

    words, trace = tf.nest.map_structure(batch_major, arrays)
    return Decoded(words, scores, trace)
