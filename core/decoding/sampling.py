"""Sampling captions: temperature, top-k and nucleus (top-p), with a seed.

Nucleus sampling is Holtzman et al. 2020, arXiv 1904.09751. What is drawn for an image depends on
the seed, on the image's number and on the step, on nothing else: one uniform number a word goes
through the inverse of the cumulated probabilities.

Letters in shapes: N images, R rows (captions of one step), V words.
"""

from core.common.aliases import DType, Tensor
from core.decoding.search_loop import Decoding, Hypotheses, single_search
from core.decoding.word_rules import Rules
from core.runtime.backend import tf


def uniforms(seed: Tensor, stream: int, numbers: Tensor, n_steps: Tensor,
             dtype: DType = tf.float32) -> Tensor:
    """Return uniform numbers of images, (N, n_steps) in [0, 1).

    A row is a function of seed, stream and the image's number, and begins alike for every
    `n_steps`.

    Args:
        seed: (2,) int32. stream: int, the use, see `RandomStream`: each has numbers of its own.
        numbers: (N,) int32, of the images. n_steps: scalar.
    """
    fold_in = tf.random.experimental.stateless_fold_in
    seed = fold_in(seed, stream)

    def of_image(number: Tensor) -> Tensor:
        return tf.random.stateless_uniform([n_steps], fold_in(seed, number), dtype=dtype)

    drawn = tf.map_fn(of_image, numbers, fn_output_signature=tf.TensorSpec([n_steps], dtype))
    return tf.ensure_shape(drawn, [None, n_steps])                                  # (N, n_steps)


def sample(decoding: Decoding, rules: Rules, max_len: int, uniform: Tensor,
           temperature: float = 1.0, top_k: int = 0, top_p: float = 1.0) -> Hypotheses:
    """Draw every word from softmax(log p / temperature), cut to the likeliest words.

    Args:
        decoding: Decoding. rules: Rules.
        max_len: int, words written at most, the end word included.
        uniform: (N, max_len) in [0, 1), decides each word.
        temperature: above 0; below 1 sharpens.
        top_k: only the k likeliest words; 0: all.
        top_p: only the fewest words, likeliest first, whose probabilities (after `temperature` and
            `top_k`) add up to at least p; 1: all.

    Returns:
        Hypotheses, one an image; scores are the model's own log-probabilities, whatever the three
        options are.
    """
    if temperature <= 0:
        raise ValueError(f'temperature must be above 0, not {temperature}')
    if top_k < 0:
        raise ValueError(f'top_k must be at least 0, not {top_k}')
    if not 0 < top_p <= 1:
        raise ValueError(f'top_p must be above 0 and at most 1, not {top_p}')

    def choose(log_probs: Tensor, t: Tensor, uniform: Tensor) -> Tensor:
        return draw(log_probs / temperature, uniform[:, t], top_k, top_p)

    return single_search(decoding, rules, max_len, choose, uniform)


def draw(logits: Tensor, uniform: Tensor, top_k: int = 0, top_p: float = 1.0) -> Tensor:
    """Draw words (R,) int32 from softmax(logits (R, V)), cut as `sample` says.

    Args:
        logits: (R, V). uniform: (R,) in [0, 1), decides the words. top_k, top_p: as of `sample`.
    """
    size = logits.shape[-1]
    n_candidates = min(top_k, size) if top_k else size
    words = None
    if n_candidates < size or top_p < 1:
        logits, words = tf.math.top_k(logits, n_candidates)                         # (R, k) each
    probabilities = tf.nn.softmax(logits)                                           # (R, k)
    if top_p < 1:  # a word stays where those before it do not reach p
        before = tf.cumsum(probabilities, axis=1, exclusive=True)
        probabilities = tf.where(before < top_p, probabilities, tf.zeros_like(probabilities))
    cumulated = tf.cumsum(probabilities, axis=1)                                    # (R, k)
    # Below the total in spite of rounding, so that a word of probability 0 is never reached.
    share = tf.minimum(tf.cast(uniform, logits.dtype), 1 - 1e-6)                    # (R,)
    passed = cumulated <= share[:, tf.newaxis] * cumulated[:, -1:]                  # (R, k)
    places = tf.reduce_sum(tf.cast(passed, tf.int32), axis=1)                       # (R,)
    return places if words is None else tf.gather(words, places, batch_dims=1)
