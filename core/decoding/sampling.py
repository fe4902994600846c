"""Sampling captions: temperature, top-k and nucleus (top-p, Holtzman et al. 2020, arXiv
1904.09751), with a seed.

What is drawn for an image depends on the seed, on the image's number and on the step, on nothing
else: one uniform number a word goes through the inverse of the cumulated probabilities.
"""

from core.common.aliases import DType, Tensor
from core.decoding.search_loop import Decoded, Decoding, write
from core.decoding.word_rules import Rules
from core.runtime.backend import tf


def uniforms(seed: Tensor, which: int, numbers: Tensor, n_steps: Tensor,
             dtype: DType = tf.float32) -> Tensor:
    """Uniform numbers of images.

    Args:
        seed: (2,) int32. which: int, the use: each has numbers of its own.
        numbers: (N,) int32, of the images. n_steps: int.

    Returns:
        (N, n_steps) in [0, 1); a row is a function of seed, use and number, and begins alike for
        every `n_steps`.
    """
    fold_in = tf.random.experimental.stateless_fold_in
    seed = fold_in(seed, which)
    drawn = tf.map_fn(
        lambda number: tf.random.stateless_uniform([n_steps], fold_in(seed, number), dtype=dtype),
        numbers, fn_output_signature=tf.TensorSpec([n_steps], dtype))
    return tf.ensure_shape(drawn, [None, n_steps])


def sample(decoding: Decoding, rules: Rules, max_len: int, uniform: Tensor,
           temperature: float = 1.0, top_k: int = 0, top_p: float = 1.0) -> Decoded:
    """Draw every word from softmax(log p / temperature), cut to the likeliest words.

    Args:
        decoding: Decoding. rules: Rules. max_len: int, words written at most, the end word
            included.
        uniform: (N, max_len) in [0, 1), decides each word.
        temperature: above 0; below 1 sharpens.
        top_k: only the k likeliest words; 0: all.
        top_p: only the fewest words, likeliest first, whose probabilities (after `temperature` and
            `top_k`) add up to at least p; 1: all.

    Returns:
        Decoded; its scores are the model's own log-probabilities, whatever the three options are.
    """
    if temperature <= 0:
        raise ValueError(f'temperature must be above 0, not {temperature}')
    if top_k < 0:
        raise ValueError(f'top_k must be at least 0, not {top_k}')
    if not 0 < top_p <= 1:
        raise ValueError(f'top_p must be above 0 and at most 1, not {top_p}')

    def choose(log_probs: Tensor, t: Tensor, uniform: Tensor) -> Tensor:
        return draw(log_probs / temperature, uniform[:, t], top_k, top_p)

    return write(decoding, rules, max_len, choose, uniform)


def draw(logits: Tensor, uniform: Tensor, top_k: int = 0, top_p: float = 1.0) -> Tensor:
    """Words (R,) int32 drawn from softmax(logits (R, V)), cut as `sample` says, by the uniform
    numbers (R,).
    """
    size = logits.shape[-1]
    n_kept = min(top_k, size) if top_k else size
    words = None
    if n_kept < size or top_p < 1:
        logits, words = tf.math.top_k(logits, n_kept)
    probabilities = tf.nn.softmax(logits)
    if top_p < 1:  # a word stays where those before it do not reach p
        before = tf.cumsum(probabilities, axis=1, exclusive=True)
        probabilities = tf.where(before < top_p, probabilities, tf.zeros_like(probabilities))
    cumulated = tf.cumsum(probabilities, axis=1)
    # Below the total in spite of rounding, so that a word of probability 0 is never reached.
    share = tf.minimum(tf.cast(uniform, logits.dtype), 1 - 1e-6)
    places = tf.reduce_sum(tf.cast(cumulated <= share[:, tf.newaxis] * cumulated[:, -1:], tf.int32),
                           axis=1)
    return places if words is None else tf.gather(words, places, batch_dims=1)
