"""The attention's large products, and gradients that recompute instead of keeping (N, L, A) tensors
of every step.

A score of step t is e = w . act(p + q_t) with p (N, L, A) the same at every step. Kept as usual, p
+ q_t and its activation would be T times the size of p. Here the loop over the steps keeps q_t (N,
C, A) and de_t (N, C, L) only; the gradient of q_t recomputes the activation, and the gradients of p
and w are made once, after the loop, from all steps together.

On the CPU, XLA compiles these few functions (a fraction of a second for every new size of a batch):
each reads its (N, L, A) input once and writes no tensor of that size but the gradient of p. C is
the number of captions of an image in the batch; row r of R = C N rows belongs to image r // C.

In mixed precision p and the features are of 16 bits, and so is what is multiplied with them; all
that is small, and sums over steps or images, are of 32.
"""

import dataclasses
from collections.abc import Callable

from core.common.aliases import DType, Say, Tensor
from core.runtime.backend import cast, tf, tf1
from core.runtime.custom_gradient import with_gradient
from core.runtime.devices import Machine, session_config

BLOCK = 4  # steps whose share of the gradient of p is added in one pass
ACTIVATIONS = {'relu': tf.nn.relu, 'tanh': tf.tanh}


class Kernels:
    """The functions, compiled or not.

    Args:
        activation: 'relu' or 'tanh'.
        jit: compile by XLA.
        least: images that a batch must have for the compiled functions; smaller ones take the
            others.
    """

    def __init__(self, activation: str, jit: bool, least: int = 0) -> None:
        self.activation = activation
        act = ACTIVATIONS[activation]

        def compiled(function: Callable[..., Tensor]) -> Callable[..., Tensor]:
            if not jit:
                return function
            # nothing here that it would rewrite
            made = tf.function(function, jit_compile=True, autograph=False)
            if not least:
                return made
            return lambda *inputs: tf.cond(tf.shape(inputs[0])[0] >= least, lambda: made(*inputs),
                                           lambda: function(*inputs))

        @compiled
        def scores(p: Tensor, q: Tensor, w: Tensor) -> Tensor:
            hidden = act(p[:, tf.newaxis] + cast(q, p.dtype)[:, :, tf.newaxis])
            product = tf.matmul(tf.reshape(hidden, [-1, tf.shape(p)[2]]),
                                cast(w, p.dtype)[:, tf.newaxis])
            return cast(tf.reshape(product, [-1, tf.shape(q)[1], tf.shape(p)[1]]), q.dtype)

        @compiled
        def query_gradient(p: Tensor, q: Tensor, w: Tensor,
                           d_scores: Tensor) -> tuple[Tensor, Tensor]:
            slope, hidden = _slope(act(p[:, tf.newaxis] + cast(q, p.dtype)[:, :, tf.newaxis]))
            summed = _weighted(d_scores, slope)
            # The step's share of the gradient of w is the sum of d_scores * hidden. For ReLU,
            # hidden = slope * (p + q) and the share of p is added after the loop.
            return w * summed, q * summed if activation == 'relu' else _weighted(d_scores, hidden)

        def _slope(hidden: Tensor) -> tuple[Tensor, Tensor]:
            """Derivative of the activation, from its value."""
            return (tf.cast(hidden > 0, hidden.dtype) if activation == 'relu'
                    else 1 - tf.square(hidden)), hidden

        def _weighted(weights: Tensor, x: Tensor) -> Tensor:
            """(N, C, L), (N, C, L, A) -> (N, C, A)."""
            return cast(tf.matmul(cast(weights, x.dtype)[:, :, tf.newaxis], x)[:, :, 0],
                        weights.dtype)

        @compiled
        def add_block(p: Tensor, q: Tensor, d_scores: Tensor, total: Tensor) -> Tensor:
            q = cast(q, p.dtype)
            for i in range(BLOCK):
                if activation == 'relu':
                    share = tf.where(p > -q[i][:, tf.newaxis], d_scores[i][:, :, tf.newaxis],
                                     tf.zeros([], d_scores.dtype))
                else:
                    slope = 1 - tf.square(tf.tanh(p + q[i][:, tf.newaxis]))
                    share = d_scores[i][:, :, tf.newaxis] * cast(slope, d_scores.dtype)
                total += share
            return total

        @compiled
        def weighted_sum(weights: Tensor, x: Tensor) -> Tensor:
            return cast(tf.matmul(cast(weights, x.dtype), x), weights.dtype)

        @compiled
        def weighted_sum_gradient(d_sum: Tensor, x: Tensor) -> Tensor:
            return cast(tf.matmul(cast(d_sum, x.dtype), x, transpose_b=True), d_sum.dtype)

        def mean_rows(x: Tensor) -> Tensor:
            """(N, L, A) -> (A,), as a product, which is several times faster than the reduction."""
            rows, size = tf.shape(x)[0] * tf.shape(x)[1], x.shape[2]
            share = tf.fill([rows], 1 / tf.cast(rows, x.dtype))
            return tf.linalg.matvec(tf.reshape(x, [rows, size]), share, transpose_a=True)

        @compiled
        def variance(x: Tensor, mean: Tensor) -> Tensor:
            return mean_rows(tf.square(x - mean))

        @compiled
        def summed_product(x: Tensor, y: Tensor) -> Tensor:
            return mean_rows(cast(x, y.dtype) * y) * tf.cast(tf.shape(x)[0] * tf.shape(x)[1],
                                                             y.dtype)

        self._scores, self._query_gradient, self._add_block = scores, query_gradient, add_block
        self._weighted_sum, self._weighted_sum_gradient = weighted_sum, weighted_sum_gradient
        self.variance, self._summed_product = variance, summed_product

    def scores(self, p: Tensor, q: Tensor, w: Tensor, tap: Tensor = None) -> Tensor:
        """Eq. 4: e = w . act(p + q), with a gradient for q only (and for `tap`).

        Args:
            p: (N, L, A), whose type is that of the products. q: (N, C, A). w: (A,). tap: (N, C, A)
                zeros, whose gradient is what `score_gradients` is given as `taps`; None where no
                gradient of w is wanted.

        Returns:
            (N, C, L) of q's type.
        """
        def scores(p: Tensor, q: Tensor, w: Tensor,
                   tap: Tensor) -> tuple[Tensor, Callable[..., tuple]]:
            def gradient(d_scores: Tensor) -> tuple:
                d_q, d_tap = self._query_gradient(p, q, w, d_scores)
                return None, d_q, None, d_tap

            return self._scores(p, q, w), gradient

        return self._scores(p, q, w) if tap is None else with_gradient(scores, p, q, w, tap)

    def score_gradients(self, p: Tensor, w: Tensor, queries: Tensor, d_scores: Tensor,
                        taps: Tensor) -> tuple[Tensor, Tensor]:
        """Gradients of p and w from all steps.

        Args:
            p: (N, L, A). w: (A,). queries: (S, N, A), q of S steps (a step of C captions counts C
                times).
            d_scores: (S, N, L). taps: (S, N, A), gradients of `tap`.

        Returns:
            gradients of p (N, L, A) and of w (A,).
        """
        n_steps = tf.shape(queries)[0]
        n_blocks = -(-n_steps // BLOCK)
        padding = [[0, n_blocks * BLOCK - n_steps], [0, 0], [0, 0]]
        queries, d_scores = (tf.pad(x, padding) for x in (queries, d_scores))

        def body(i: Tensor, total: Tensor) -> tuple[Tensor, Tensor]:
            block = slice(i * BLOCK, (i + 1) * BLOCK)
            return i + 1, self._add_block(p, _block(queries[block]), _block(d_scores[block]), total)

        # else it is made first of all, and kept for the whole step
        with tf.control_dependencies([d_scores]):
            total = tf.zeros_like(p, None if p.dtype == w.dtype else w.dtype)
        _, total = tf.while_loop(lambda i, _: i < n_blocks, body, (tf.constant(0), total))
        d_w = tf.reduce_sum(taps, axis=[0, 1])
        if self.activation == 'relu':
            d_w += self._summed_product(p, total)
        return cast(w * total, p.dtype), d_w

    def weighted_sum(self, weights: Tensor, x: Tensor) -> Tensor:
        """sum over l of weights (N, C, L) * x (N, L, K) -> (N, C, K), with a gradient for the
        weights only.
        """
        def weighted_sum(weights: Tensor, x: Tensor) -> tuple[Tensor, Callable[..., tuple]]:
            return self._weighted_sum(weights, x), lambda d_sum: (
                self._weighted_sum_gradient(d_sum, x), None)

        return with_gradient(weighted_sum, weights, x)


def _block(x: Tensor) -> Tensor:
    return tf.ensure_shape(x, [BLOCK, *x.shape[1:]])


def with_working_xla(machine: Machine, dtype: DType = None, say: Say = print) -> Machine:
    """The Machine, or where XLA does not work the same without it, after a line that says so.

    Args:
        machine: Machine. dtype: of the products, see `compile_failure`. say: function that prints a
            line.
    """
    failure = machine.xla != 'off' and compile_failure(machine, dtype)
    if not failure:
        return machine
    say(f'going on without XLA, which does not compile here: {failure}')
    return dataclasses.replace(machine, xla='off')


# (device, dtype name) -> what XLA said, '' where it compiles
_failures: dict[tuple[str, str], str] = {}


def compile_failure(machine: Machine | None = None, dtype: DType = None) -> str:
    """Why XLA cannot compile the attention's products on this machine, in one line; '' where it
    can.

    Args:
        machine: Machine. dtype: of the products; None: float32.
    """
    machine, dtype = machine or Machine(), dtype or tf.float32
    machine = dataclasses.replace(machine, xla='kernels')
    if (machine.device, dtype.name) not in _failures:
        with tf.Graph().as_default() as graph:
            p, q, w = (tf1.placeholder_with_default(tf.ones(shape, dtype), shape)
                       for shape in ((1, 2, 3), (1, 1, 3), (3,)))
            scores = Kernels('tanh', jit=True).scores(p, q, w)
            with tf1.Session(graph=graph, config=session_config(machine)) as session:
                try:
                    session.run(scores)
                    failure = ''
                except tf.errors.OpError as error:
                    failure = next(iter(error.message.splitlines()), '') or type(error).__name__
        _failures[machine.device, dtype.name] = failure[:200]
    return _failures[machine.device, dtype.name]
