"""The deep output layer of eq. 7, and dropout whose masks are functions of a seed."""

from collections.abc import Callable
from typing import TYPE_CHECKING

from core.common.aliases import DType, Tensor
from core.runtime.backend import cast, matmul, tf
from core.runtime.custom_gradient import with_gradient

if TYPE_CHECKING:
    from core.config.model import ModelConfig
    from core.runtime.variables import Variables

ACTIVATIONS = {'tanh': tf.tanh, 'linear': tf.identity}


class Dropout:
    """Dropout with masks that depend on a seed and on the place where it is applied, on nothing
    else.

    Args:
        seed: (2,) int32 tensor. rate: share of units set to zero. n_rows: scalar tensor, captions.
        per_sequence: one mask for all steps of a caption (variational dropout) instead of one for
            every step.
    """

    def __init__(self, seed: Tensor, rate: float, n_rows: Tensor,
                 per_sequence: bool = False) -> None:
        self.seed, self.rate, self.n_rows, self.per_sequence = seed, rate, n_rows, per_sequence

    def __call__(self, x: Tensor, which: int, rows: Tensor = None) -> Tensor:
        """Drop units of x (P, S).

        Args:
            x: (P, S). which: int, the place: each has masks of its own.
            rows: (P,) int, the caption of each row of x, where masks are shared along captions.
        """
        if not self.rate:
            return x
        seed = tf.random.experimental.stateless_fold_in(self.seed, which)
        if not self.per_sequence or rows is None:
            return tf.nn.experimental.stateless_dropout(x, self.rate, seed)
        ones = tf.ones([self.n_rows, x.shape[1]], x.dtype)
        return x * tf.gather(tf.nn.experimental.stateless_dropout(ones, self.rate, seed), rows)


class OutputLayer:
    """Eq. 7: w_out . act(h w_h + b_h [+ z w_ctx2out] [+ E y]) + b_out, with more ReLU layers where
    asked for.

    Variables `logits/{w_h, b_h, w_ctx2out, w_1, b_1 ..., w_out, b_out}`.

    Args:
        variables: Variables. dim_hidden: H. dim_annotation: K. n_words: V.
        options: ModelConfig, of which prev2out, ctx2out, dim_embed and the output_ options are
            read.
    """

    def __init__(self, variables: 'Variables', dim_hidden: int, dim_annotation: int, n_words: int,
                 options: 'ModelConfig') -> None:
        size = options.output_size or options.dim_embed
        self.prev2out, self.ctx2out, self.n_layers = options.prev2out, options.ctx2out, options.output_layers
        self.activation = ACTIVATIONS[options.output_activation]
        extra = {'w_ctx2out': ([dim_annotation, size], 'matrix')} if self.ctx2out else {}
        for layer in range(1, self.n_layers):
            extra |= {f'w_{layer}': ([size, size], 'matrix'), f'b_{layer}': ([size], 'zeros')}
        self.weights = variables.create('logits', w_h=([dim_hidden, size], 'matrix'),
                                        b_h=([size], 'zeros'), w_out=([size, n_words], 'matrix'),
                                        b_out=([n_words], 'zeros'), **extra)

    def __call__(self, h: Tensor, context: Tensor, word_vectors: Tensor,
                 dropout: Dropout | None = None, rows: Tensor = None,
                 compute_dtype: DType = None) -> Tensor:
        """h (P, H), context (P, K), word_vectors (P, M) -> logits (P, V), all of the variables'
        type.

        Args:
            dropout: Dropout, while training. rows: see there.
            compute_dtype: of the products; None: the variables'.
        """
        hidden = self.hidden(h, context, word_vectors, dropout, rows, compute_dtype)
        return matmul(hidden, self._of_type(compute_dtype)['w_out']) + self.weights['b_out']

    def cross_entropy(self, hidden: Tensor, targets: Tensor, compute_dtype: DType = None) -> Tensor:
        """-log p of the targets (P,) int32, from `hidden` (P, S) -> (P,).

        The gradient of the logits, as large as they are, is never scaled by that of the loss: its
        small neighbours in the products are.
        """
        def function(hidden: Tensor, w: Tensor, b: Tensor) -> tuple[Tensor, Callable[..., tuple]]:
            losses, slope = tf.raw_ops.SparseSoftmaxCrossEntropyWithLogits(
                features=matmul(hidden, w) + b, labels=targets)

            def gradient(d: Tensor) -> tuple:
                d_hidden = matmul(slope, w, transpose_b=True) * d[:, tf.newaxis]
                scaled = cast(hidden * d[:, tf.newaxis], w.dtype)
                return (d_hidden, tf.matmul(scaled, cast(slope, w.dtype), transpose_a=True),
                        tf.linalg.matvec(slope, d, transpose_a=True))

            return losses, gradient

        return with_gradient(function, hidden, self._of_type(compute_dtype)['w_out'],
                             self.weights['b_out'])

    def _of_type(self, compute_dtype: DType) -> dict[str, Tensor]:
        if not compute_dtype:
            return self.weights
        return {name: cast(w, compute_dtype) if name.startswith('w') else w
                for name, w in self.weights.items()}

    def hidden(self, h: Tensor, context: Tensor, word_vectors: Tensor,
               dropout: Dropout | None = None, rows: Tensor = None,
               compute_dtype: DType = None) -> Tensor:
        """What the last product takes, (P, S); arguments as of a call."""
        weights = self._of_type(compute_dtype)

        def dropped(x: Tensor, which: int) -> Tensor:
            return dropout(x, which, rows) if dropout else x

        hidden = matmul(dropped(h, 0), weights['w_h']) + weights['b_h']
        if self.ctx2out:
            hidden += matmul(context, weights['w_ctx2out'])
        if self.prev2out:
            hidden += word_vectors
        hidden = dropped(self.activation(hidden), 1)
        for layer in range(1, self.n_layers):
            hidden = tf.nn.relu(matmul(hidden, weights[f'w_{layer}']) + weights[f'b_{layer}'])
            hidden = dropped(hidden, 10 + layer)
        return hidden
