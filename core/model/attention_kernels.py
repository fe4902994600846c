"""The attention's large products, every word's: scores (eq. 4) and the weighted sum (eq. 13).

`Scores` and `WeightedSum` are the StepFunctions (`deferred_gradients`) that the decoder's step
calls; below them are the plain functions that they consist of, which XLA compiles.

A score of step t is e = w . act(p + q_t) with p (N, L, A) the same at every step. Kept as usual,
p + q_t and its activation would be T' times the size of p. Here the loop over the steps keeps q_t
(N, C, A) and de_t (N, C, L) only: `query_gradient` recomputes the activation, and
`projection_gradient` makes the gradients of p and w once, after the loop, from all steps together.

On the CPU, XLA compiles these few functions (a fraction of a second for every new size of a batch):
each reads its (N, L, A) input once and writes no tensor of that size but the gradient of p.

In mixed precision p and the features are of 16 bits, and so is what is multiplied with them; all
that is small, and sums over steps or images, are of 32.

Letters in shapes: N images, L locations, A hidden units of the attention, K numbers of an
annotation, R = C N captions, C of an image in the batch (row r is of image r // C), T' steps.
"""

import functools
from collections.abc import Callable, Sequence

from core.common.aliases import DType, Tensor
from core.model.deferred_gradients import gradients_of
from core.runtime.backend import cast, matmul, tf

BLOCK = 4  # steps whose part of the gradient of p is added in one pass over p
ACTIVATIONS = {'relu': tf.nn.relu, 'tanh': tf.tanh}


class Scores:
    """Queries q (R, A) -> scores e (R, L) = w . act(p + q) (eq. 4).

    Args:
        projected: p (N, L, A), whose type is that of the products. w_att: w (A,).
        activation: 'relu' or 'tanh'. jit: XLA compiles the large products.
        least: images from which on it does, see `attention_kernels.compiled`.
    """

    def __init__(self, projected: Tensor, w_att: Tensor, activation: str, jit: bool,
                 least: int = 0) -> None:
        self.constants, self.dtype = (projected, w_att), w_att.dtype.base_dtype
        _, self._n_locations, self.input_size = projected.shape.as_list()
        self.carried_sizes: tuple[int, ...] = (self._n_locations, self.input_size)
        self._activation, self._jit, self._least = activation, jit, least
        self._scores, self._query_gradient = (
            compiled(functools.partial(kernel, activation), jit, least)
            for kernel in (additive_scores, query_gradient))

    def __call__(self, query: Tensor) -> Tensor:
        """Compute e (R, L) of query (R, A)."""
        return self.value(query, *self.constants)

    def of_images(self, projected: Tensor) -> 'Scores':
        """Return the same function of other images, p (n, L, A)."""
        return Scores(projected, self.constants[1], self._activation, self._jit, self._least)

    def loop_constants(self) -> tuple[Tensor, ...]:
        """Return the constants themselves."""
        return self.constants

    def value(self, query: Tensor, projected: Tensor, w_att: Tensor) -> Tensor:
        """Compute e (R, L) of query (R, A)."""
        e = self._scores(projected, by_image(query, projected), w_att)             # (N, C, L)
        return tf.reshape(e, [-1, self._n_locations])

    def gradient(self, query: Tensor, d_scores: Tensor, projected: Tensor,
                 w_att: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
        """Compute the gradient of query (R, A); carry out d_scores (R, L) and a part of dw."""
        d_query, d_w = self._query_gradient(
            projected, by_image(query, projected), w_att, by_image(d_scores, projected))
        d_query, d_w = (tf.reshape(x, [-1, self.input_size]) for x in (d_query, d_w))
        return d_query, (d_scores, d_w)

    def constants_gradients(self, query: Tensor, carried: Sequence[Tensor]) -> Sequence[Tensor]:
        """Compute dp (N, L, A) and dw (A,) of query (T', R, A) in one pass over p."""
        projected, w_att = self.constants
        steps = (_steps_of_images(x, projected) for x in (query, *carried))     # (T' C, N, ...)
        return projection_gradient(self._activation, self._jit, projected, w_att, *steps)


class WeightedSum:
    """Weights of the locations (R, L) -> sum_l weights_l features_l (R, K) (eq. 13).

    Args:
        features: (N, L, K), whose type is that of the products. dtype: of weights and sums.
        jit, least: as of `Scores`.
    """

    def __init__(self, features: Tensor, dtype: DType, jit: bool, least: int = 0) -> None:
        self.constants, self.dtype = (features,), dtype
        _, self.input_size, size = features.shape.as_list()
        self.carried_sizes: tuple[int, ...] = (size,)
        self._jit, self._least = jit, least
        self._sum, self._gradient = (
            compiled(kernel, jit, least) for kernel in (weighted_sum, weighted_sum_gradient))

    def __call__(self, weights: Tensor) -> Tensor:
        """Compute weights (R, L) -> (R, K)."""
        return self.value(weights, *self.constants)

    def of_images(self, features: Tensor) -> 'WeightedSum':
        """Return the same function of other images, features (n, L, K)."""
        return WeightedSum(features, self.dtype, self._jit, self._least)

    def loop_constants(self) -> tuple[Tensor, ...]:
        """Return the constants themselves."""
        return self.constants

    def value(self, weights: Tensor, features: Tensor) -> Tensor:
        """Compute weights (R, L) -> (R, K)."""
        return tf.reshape(self._sum(by_image(weights, features), features),
                          [-1, self.carried_sizes[0]])

    def gradient(self, weights: Tensor, d_sum: Tensor,
                 features: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
        """Compute the gradient of weights (R, L), and carry d_sum (R, K) out."""
        d_weights = self._gradient(by_image(d_sum, features), features)            # (N, C, L)
        return tf.reshape(d_weights, [-1, self.input_size]), (d_sum,)

    def constants_gradients(self, weights: Tensor, carried: Sequence[Tensor]) -> Sequence[Tensor]:
        """Compute the features' gradient (N, L, K) of weights (T', R, L), one product an image."""
        features = self.constants[0]
        weights, d_sum = (_images_of_steps(x, features) for x in (weights, carried[0]))
        return gradients_of(matmul(weights, features), self.constants, d_sum)


# ---- the plain functions


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


def additive_scores(activation: str, p: Tensor, q: Tensor, w: Tensor) -> Tensor:
    """Compute eq. 4, e = w . act(p + q): p (N, L, A), q (N, C, A), w (A,) -> (N, C, L)."""
    hidden = _hidden(activation, p, q)                                              # (N, C, L, A)
    flat = tf.reshape(hidden, [-1, tf.shape(p)[2]])                                 # (N C L, A)
    e = tf.matmul(flat, cast(w, p.dtype)[:, tf.newaxis])                            # (N C L, 1)
    return cast(tf.reshape(e, [-1, tf.shape(q)[1], tf.shape(p)[1]]), q.dtype)


def query_gradient(activation: str, p: Tensor, q: Tensor, w: Tensor,
                   d_scores: Tensor) -> tuple[Tensor, Tensor]:
    """Compute a step's gradient of q, and its part of the gradient of w.

    Args:
        p: (N, L, A). q: (N, C, A). w: (A,). d_scores: (N, C, L), the gradient of `scores`.

    Returns:
        (N, C, A) twice. With ReLU the second lacks what p gives, which `projection_gradient` adds
        for all steps at once.
    """
    hidden = _hidden(activation, p, q)                                              # (N, C, L, A)
    summed = _weighted(d_scores, _slope(activation, hidden))                        # (N, C, A)
    # The part is the sum of d_scores * hidden. With ReLU, hidden = slope * (p + q).
    d_w = q * summed if activation == 'relu' else _weighted(d_scores, hidden)       # (N, C, A)
    return w * summed, d_w


def projection_gradient(activation: str, jit: bool, p: Tensor, w: Tensor, queries: Tensor,
                        d_scores: Tensor, d_w_parts: Tensor) -> tuple[Tensor, Tensor]:
    """Compute the gradients of p and w from all steps.

    Args:
        jit: XLA compiles what is computed of p.
        p: (N, L, A). w: (A,). queries: (T' C, N, A), q of the steps. d_scores: (T' C, N, L).
        d_w_parts: (T' C, N, A), of the gradient of w, see `query_gradient`.

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
    d_w = tf.reduce_sum(d_w_parts, axis=[0, 1])                                     # (A,)
    if activation == 'relu':
        d_w += compiled(_summed_product, jit)(p, total)
    return cast(w * total, p.dtype), d_w


def weighted_sum(weights: Tensor, x: Tensor) -> Tensor:
    """Compute sum_l weights_l x_l: weights (N, C, L), x (N, L, K) -> (N, C, K)."""
    return cast(tf.matmul(cast(weights, x.dtype), x), weights.dtype)


def weighted_sum_gradient(d_sum: Tensor, x: Tensor) -> Tensor:
    """Compute the weights' gradient (N, C, L) of `weighted_sum`: d_sum (N, C, K), x (N, L, K)."""
    return cast(tf.matmul(cast(d_sum, x.dtype), x, transpose_b=True), d_sum.dtype)


def variance(x: Tensor, mean: Tensor) -> Tensor:
    """Compute the mean (K,) over images and locations of (x - mean)^2: x (N, L, K), mean (K,)."""
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

    Several steps in one pass, as reading and writing `total` takes longer than computing a part.
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


def by_image(x: Tensor, images: Tensor) -> Tensor:
    """Group rows by image: x (R, I), images (N, ...), of which only N counts -> (N, C, I)."""
    return tf.reshape(x, [tf.shape(images)[0], -1, x.shape[1]])


def _steps_of_images(x: Tensor, images: Tensor) -> Tensor:
    """Count a step of C captions C times: x (T', R, I), images (N, ...) -> (T' C, N, I)."""
    n, size = tf.shape(images)[0], x.shape[2]
    x = tf.reshape(x, [tf.shape(x)[0], n, -1, size])                                # (T', N, C, I)
    return tf.reshape(tf.transpose(x, [0, 2, 1, 3]), [-1, n, size])


def _images_of_steps(x: Tensor, images: Tensor) -> Tensor:
    """Put all steps of an image side by side: x (T', R, I), images (N, ...) -> (N, T' C, I)."""
    n, size = tf.shape(images)[0], x.shape[2]
    x = tf.reshape(x, [tf.shape(x)[0], n, -1, size])                                # (T', N, C, I)
    return tf.reshape(tf.transpose(x, [1, 0, 2, 3]), [n, -1, size])
