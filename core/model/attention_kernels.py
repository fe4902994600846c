"""The attention's large products as plain functions, and `compiled`, which has XLA compile one.

A score of step t is e = w . act(p + q_t) with p (N, L, A) the same at every step. Kept as usual,
p + q_t and its activation would be T' times the size of p. `deferred_gradients` keeps q_t (N, C, A)
and de_t (N, C, L) only: `query_gradient` recomputes the activation, and `projection_gradient` makes
the gradients of p and w once, after the loop, from all steps together.

On the CPU, XLA compiles these few functions (a fraction of a second for every new size of a batch):
each reads its (N, L, A) input once and writes no tensor of that size but the gradient of p.

In mixed precision p and the features are of 16 bits, and so is what is multiplied with them; all
that is small, and sums over steps or images, are of 32.

Letters in shapes: N images, L locations, A hidden units of the attention, K numbers of an
annotation, C captions of an image in the batch (row r of R = C N rows is of image r // C), S steps
(a step of C captions counts C times).
"""

import functools
from collections.abc import Callable

from core.common.aliases import Tensor
from core.runtime.backend import cast, tf

BLOCK = 4  # steps whose share of the gradient of p is added in one pass over p
ACTIVATIONS = {'relu': tf.nn.relu, 'tanh': tf.tanh}


def compiled(function: Callable[..., Tensor], jit: bool, least: int = 0) -> Callable[..., Tensor]:
    """Return `function`, compiled by XLA where `jit` is true.

    Args:
        function: of tensors, without Python control flow over their values.
        jit: False: `function` itself.
        least: rows that the first argument must have; fewer take `function` as it is.
    """
    if not jit:
        return function
    fast = tf.function(function, jit_compile=True, autograph=False)
    if not least:
        return fast
    return lambda *inputs: tf.cond(tf.shape(inputs[0])[0] >= least, lambda: fast(*inputs),
                                   lambda: function(*inputs))


def scores(activation: str, p: Tensor, q: Tensor, w: Tensor) -> Tensor:
    """Compute eq. 4, e = w . act(p + q): p (N, L, A), q (N, C, A), w (A,) -> (N, C, L)."""
    hidden = _hidden(activation, p, q)                                              # (N, C, L, A)
    flat = tf.reshape(hidden, [-1, tf.shape(p)[2]])                                 # (N C L, A)
    e = tf.matmul(flat, cast(w, p.dtype)[:, tf.newaxis])                            # (N C L, 1)
    return cast(tf.reshape(e, [-1, tf.shape(q)[1], tf.shape(p)[1]]), q.dtype)


def query_gradient(activation: str, p: Tensor, q: Tensor, w: Tensor,
                   d_scores: Tensor) -> tuple[Tensor, Tensor]:
    """Compute a step's gradient of q, and its share of the gradient of w.

    Args:
        p: (N, L, A). q: (N, C, A). w: (A,). d_scores: (N, C, L), the gradient of `scores`.

    Returns:
        (N, C, A) twice. With ReLU the share lacks the part of p, which `projection_gradient` adds
        for all steps at once.
    """
    hidden = _hidden(activation, p, q)                                              # (N, C, L, A)
    summed = _weighted(d_scores, _slope(activation, hidden))                        # (N, C, A)
    # The share is the sum of d_scores * hidden. With ReLU, hidden = slope * (p + q).
    share = q * summed if activation == 'relu' else _weighted(d_scores, hidden)     # (N, C, A)
    return w * summed, share


def projection_gradient(activation: str, jit: bool, p: Tensor, w: Tensor, queries: Tensor,
                        d_scores: Tensor, shares: Tensor) -> tuple[Tensor, Tensor]:
    """Compute the gradients of p and w from all steps.

    Args:
        jit: XLA compiles what is computed of p.
        p: (N, L, A). w: (A,). queries: (S, N, A), q of the steps. d_scores: (S, N, L).
        shares: (S, N, A), of the gradient of w, see `query_gradient`.

    Returns:
        Gradients of p (N, L, A) and of w (A,).
    """
    add = compiled(functools.partial(_add_block, activation), jit)
    n_steps = tf.shape(queries)[0]
    n_blocks = -(-n_steps // BLOCK)
    padding = [[0, n_blocks * BLOCK - n_steps], [0, 0], [0, 0]]
    queries, d_scores = (tf.pad(x, padding) for x in (queries, d_scores))

    def body(i: Tensor, total: Tensor) -> tuple[Tensor, Tensor]:
        q, d = (tf.ensure_shape(x[i * BLOCK:(i + 1) * BLOCK], [BLOCK, *x.shape[1:]])
                for x in (queries, d_scores))
        return i + 1, add(p, q, d, total)

    # Without the dependency `total` is made first of all, and held during the whole step.
    with tf.control_dependencies([d_scores]):
        total = tf.zeros_like(p, None if p.dtype == w.dtype else w.dtype)           # (N, L, A)
    _, total = tf.while_loop(lambda i, _: i < n_blocks, body, (tf.constant(0), total))
    d_w = tf.reduce_sum(shares, axis=[0, 1])                                        # (A,)
    if activation == 'relu':
        d_w += compiled(_summed_product, jit)(p, total)
    return cast(w * total, p.dtype), d_w


def weighted_sum(weights: Tensor, x: Tensor) -> Tensor:
    """Compute sum_l weights_l x_l: weights (N, C, L), x (N, L, K) -> (N, C, K)."""
    return cast(tf.matmul(cast(weights, x.dtype), x), weights.dtype)


def weighted_sum_gradient(d_sum: Tensor, x: Tensor) -> Tensor:
    """Compute the gradient of the weights of `weighted_sum`: d_sum (N, C, K) -> (N, C, L)."""
    return cast(tf.matmul(cast(d_sum, x.dtype), x, transpose_b=True), d_sum.dtype)


def variance(x: Tensor, mean: Tensor) -> Tensor:
    """Compute the mean over images and locations of (x - mean)^2: (N, L, K), (K,) -> (K,)."""
    return _mean_rows(tf.square(x - mean))


def _hidden(activation: str, p: Tensor, q: Tensor) -> Tensor:
    """Compute act(p + q): p (N, L, A), q (N, C, A) -> (N, C, L, A)."""
    return ACTIVATIONS[activation](p[:, tf.newaxis] + cast(q, p.dtype)[:, :, tf.newaxis])


def _slope(activation: str, hidden: Tensor) -> Tensor:
    """Compute the derivative of the activation from its value."""
    if activation == 'relu':
        return tf.cast(hidden > 0, hidden.dtype)
    return 1 - tf.square(hidden)


def _weighted(weights: Tensor, x: Tensor) -> Tensor:
    """Compute sum_l weights_l x_l of each caption: (N, C, L), (N, C, L, A) -> (N, C, A)."""
    return cast(tf.matmul(cast(weights, x.dtype)[:, :, tf.newaxis], x)[:, :, 0], weights.dtype)


def _add_block(activation: str, p: Tensor, q: Tensor, d_scores: Tensor, total: Tensor) -> Tensor:
    """Add sum_s d_scores_s act'(p + q_s) of BLOCK steps to `total` (N, L, A).

    Several steps in one pass, as reading and writing `total` takes longer than computing a share.
    """
    q = cast(q, p.dtype)                                                            # (BLOCK, N, A)
    for i in range(BLOCK):
        d = d_scores[i][:, :, tf.newaxis]                                           # (N, L, 1)
        if activation == 'relu':
            total += tf.where(p > -q[i][:, tf.newaxis], d, tf.zeros([], d.dtype))
        else:
            total += d * cast(1 - tf.square(tf.tanh(p + q[i][:, tf.newaxis])), d.dtype)
    return total


def _summed_product(x: Tensor, y: Tensor) -> Tensor:
    """Compute sum over images and locations of x y: (N, L, A) twice -> (A,)."""
    n_rows = tf.cast(tf.shape(x)[0] * tf.shape(x)[1], y.dtype)
    return _mean_rows(cast(x, y.dtype) * y) * n_rows


def _mean_rows(x: Tensor) -> Tensor:
    """Compute the mean over images and locations: (N, L, K) -> (K,).

    As a product with equal shares, which is several times faster than the reduction.
    """
    n_rows, size = tf.shape(x)[0] * tf.shape(x)[1], x.shape[2]
    share = tf.fill([n_rows], 1 / tf.cast(n_rows, x.dtype))                         # (N L,)
    return tf.linalg.matvec(tf.reshape(x, [n_rows, size]), share, transpose_a=True)
