"""The deep output layer of eq. 7, and dropout whose masks are functions of a seed.

Letters in shapes: P rows (real words of all captions, or captions of one step), R captions, H
hidden units, K numbers of an annotation, M numbers of a word vector, S hidden units of this layer
(M unless `output_size` changes it), V words.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING

from core.common.aliases import DType, Tensor
from core.runtime.backend import cast, matmul, tf
from core.runtime.custom_gradient import with_gradient
from core.runtime.random_streams import RandomStream

if TYPE_CHECKING:
    from core.config.model import ModelConfig
    from core.runtime.variables import Variables

ACTIVATIONS = {'tanh': tf.tanh, 'linear': tf.identity}


class Dropout:
    """Dropout with masks that depend on a seed and on the place of use, on nothing else.

    Args:
        seed: (2,) int32 tensor. rate: share of units set to zero. n_rows: scalar tensor, R.
        per_sequence: one mask for all steps of a caption (variational dropout) instead of one for
            every step.
    """

    def __init__(self, seed: Tensor, rate: float, n_rows: Tensor,
                 per_sequence: bool = False) -> None:
        self.seed, self.rate, self.n_rows, self.per_sequence = seed, rate, n_rows, per_sequence

    def __call__(self, x: Tensor, stream: int, rows: Tensor = None) -> Tensor:
        """Drop units of x (P, S).

        Args:
            x: (P, S). stream: the place of use, see `RandomStream`: each has masks of its own.
            rows: (P,) int, the caption of each row of x, where masks are shared along captions.
        """
        if not self.rate:
            return x
        seed = tf.random.experimental.stateless_fold_in(self.seed, stream)
        if not self.per_sequence or rows is None:
            return tf.nn.experimental.stateless_dropout(x, self.rate, seed)         # (P, S)
        ones = tf.ones([self.n_rows, x.shape[1]], x.dtype)
        mask = tf.nn.experimental.stateless_dropout(ones, self.rate, seed)          # (R, S)
        return x * tf.gather(mask, rows)                                            # (P, S)


class OutputLayer:
    """Eq. 7: w_out . act(h w_h + b_h [+ z w_ctx2out] [+ E y]) + b_out.

    With `output_layers` above 1, ReLU layers follow act(...). Variables
    `logits/{w_h, b_h, w_ctx2out, w_1, b_1 ..., w_out, b_out}`.

    Args:
        variables: Variables. dim_hidden: H. dim_annotation: K. n_words: V.
        options: ModelConfig, of which prev2out, ctx2out, dim_embed and the output_ options are
            read.
    """

    def __init__(self, variables: 'Variables', dim_hidden: int, dim_annotation: int, n_words: int,
                 options: 'ModelConfig') -> None:
        size = options.output_size or options.dim_embed
        self.prev2out, self.ctx2out = options.prev2out, options.ctx2out
        self.n_layers = options.output_layers
        self.activation = ACTIVATIONS[options.output_activation]
        extra = {'w_ctx2out': ([dim_annotation, size], 'matrix')} if self.ctx2out else {}
        for layer in range(1, self.n_layers):
            extra |= {f'w_{layer}': ([size, size], 'matrix'), f'b_{layer}': ([size], 'zeros')}
        self.variables = variables.create(
            'logits', w_h=([dim_hidden, size], 'matrix'), b_h=([size], 'zeros'),
            w_out=([size, n_words], 'matrix'), b_out=([n_words], 'zeros'), **extra)

    def __call__(self, h: Tensor, context: Tensor, word_vectors: Tensor,
                 dropout: Dropout | None = None, rows: Tensor = None,
                 compute_dtype: DType = None) -> Tensor:
        """Compute the logits (P, V), of the variables' type.

        Args:
            h: (P, H). context: (P, K). word_vectors: (P, M), of the words that were fed.
            dropout: Dropout, while training. rows: (P,) int, see `Dropout`.
            compute_dtype: of the products; None: the variables'.
        """
        hidden = self.hidden(h, context, word_vectors, dropout, rows, compute_dtype)    # (P, S)
        v = self._of_type(compute_dtype)
        return matmul(hidden, v['w_out']) + v['b_out']                              # (P, V)

    def cross_entropy(self, hidden: Tensor, targets: Tensor, compute_dtype: DType = None) -> Tensor:
        """Compute -log p of the targets (P,).

        The gradient of the logits, as large as they are, is never scaled by that of the loss: the
        two products of which it is a factor are scaled, which have fewer numbers.

        Args:
            hidden: (P, S), of `hidden`. targets: (P,) int32. compute_dtype: of the products.
        """
        def function(hidden: Tensor, w: Tensor, b: Tensor) -> tuple[Tensor, Callable[..., tuple]]:
            losses, slope = tf.raw_ops.SparseSoftmaxCrossEntropyWithLogits(         # (P,), (P, V)
                features=matmul(hidden, w) + b, labels=targets)

            def gradient(d: Tensor) -> tuple:
                d_hidden = matmul(slope, w, transpose_b=True) * d[:, tf.newaxis]    # (P, S)
                scaled = cast(hidden * d[:, tf.newaxis], w.dtype)                   # (P, S)
                d_w = tf.matmul(scaled, cast(slope, w.dtype), transpose_a=True)     # (S, V)
                return d_hidden, d_w, tf.linalg.matvec(slope, d, transpose_a=True)

            return losses, gradient

        v = self._of_type(compute_dtype)
        return with_gradient(function, hidden, v['w_out'], v['b_out'])

    def hidden(self, h: Tensor, context: Tensor, word_vectors: Tensor,
               dropout: Dropout | None = None, rows: Tensor = None,
               compute_dtype: DType = None) -> Tensor:
        """Compute what the last product takes (P, S).

        Args:
            h: (P, H). context: (P, K). word_vectors: (P, M). dropout: Dropout, while training.
            rows: (P,) int. compute_dtype: of the products.
        """
        v = self._of_type(compute_dtype)

        def dropped(x: Tensor, stream: int) -> Tensor:
            return dropout(x, stream, rows) if dropout else x

        # Eq. 7: E y_{t-1} + L_h h_t + L_z z_t, and the tanh of the authors' code
        hidden = matmul(dropped(h, RandomStream.DROPOUT_STATE), v['w_h']) + v['b_h']    # (P, S)
        if self.ctx2out:
            hidden += matmul(context, v['w_ctx2out'])
        if self.prev2out:
            hidden += word_vectors
        hidden = dropped(self.activation(hidden), RandomStream.DROPOUT_OUTPUT)
        for layer in range(1, self.n_layers):
            hidden = tf.nn.relu(matmul(hidden, v[f'w_{layer}']) + v[f'b_{layer}'])
            hidden = dropped(hidden, RandomStream.OUTPUT_LAYERS + layer)
        return hidden

    def _of_type(self, compute_dtype: DType) -> dict[str, Tensor]:
        """Return the variables by name, matrices in another type; biases keep theirs."""
        if not compute_dtype:
            return self.variables
        return {name: cast(value, compute_dtype) if name.startswith('w') else value
                for name, value in self.variables.items()}
