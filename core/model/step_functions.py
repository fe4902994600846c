"""What a step computes with numbers that are the same at every step: products with weights, scores.

    functions = decoder.step_functions(decoder.annotations(features))
    gates = functions.from_h(h) + functions.from_context(context)

Each is a function y_t = f(x_t; constants) of one tensor of the step. Called as it stands, it is
differentiable in all it depends on. What else is here serves `deferred_gradients`, which has the
constants' gradients made once, after the loop over the steps: the same function with other
`constants` in the place of its own, its gradient by x_t alone, and the constants' gradients from
all steps together. docs/changing_the_model.md adds one.

Letters in shapes: N images, R captions (rows; row r belongs to image r // (R / N)), T' steps, L
locations, K numbers of an annotation, H hidden units, M numbers of a word vector, V words, G gate
units, A hidden units of the attention, S = G + A + 1 units that the hidden state feeds; I, O the
units into and out of a product.
"""

import functools
from collections.abc import Callable, Sequence
from typing import NamedTuple, Protocol

from core.common.aliases import DType, Tensor
from core.model import attention_kernels
from core.model.attention import Annotations
from core.model.attention_kernels import compiled
from core.runtime.backend import cast, matmul, tf, tf1


class StepFunction(Protocol):
    """y_t = f(x_t; constants), with what `deferred_gradients` needs to know of it.

    Attributes:
        constants: tuple of floating tensors, the same at every step.
        dtype: of x_t and y_t.
        input_size: units of x_t (R, input_size); None where x_t is (R,) int32.
        carried_sizes: units of what `gradient` carries out of the loop.
    """

    constants: tuple[Tensor, ...]
    dtype: DType
    input_size: int | None
    carried_sizes: tuple[int, ...]

    def __call__(self, x: Tensor) -> Tensor:
        """Compute y_t (R, ...), differentiable in x_t and in the constants."""

    def loop_constants(self) -> tuple[Tensor, ...]:
        """Return the tensors that `value` and `gradient` read inside the loop."""

    def value(self, x: Tensor, *loop_constants: Tensor) -> Tensor:
        """Compute y_t of x_t and the loop constants."""

    def gradient(self, x: Tensor, dy: Tensor,
                 *loop_constants: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
        """Compute (gradient of x_t or None, what is carried out (R, size) for each size)."""

    def constants_gradients(self, x: Tensor, carried: Sequence[Tensor]) -> Sequence[Tensor]:
        """Compute the gradient of each constant from x and `carried` of all steps (T', R, ...)."""


class Product:
    """x (R, I) -> x W + b (R, O).

    Args:
        matrix: W (I, O), whose type is that of the product. bias: b (O,), of the model's own type.
    """

    def __init__(self, matrix: Tensor, bias: Tensor) -> None:
        self.constants, self.dtype = (matrix, bias), bias.dtype.base_dtype
        self.input_size, size = matrix.shape.as_list()
        self.carried_sizes = (size,)

    def __call__(self, x: Tensor) -> Tensor:
        """Compute x (R, I) -> (R, O)."""
        return self.value(x, *self.constants)

    def loop_constants(self) -> tuple[Tensor, ...]:
        """Return W, b and W transposed.

        To transpose at every step takes longer than the product itself of a batch's few rows.
        """
        matrix, bias = self.constants
        return matrix, bias, tf.transpose(matrix)

    def value(self, x: Tensor, matrix: Tensor, bias: Tensor, *_: Tensor) -> Tensor:
        """Compute x (..., I) -> (..., O)."""
        return all_rows(x, matrix) + bias

    def gradient(self, x: Tensor, dy: Tensor, matrix: Tensor, bias: Tensor,
                 transposed: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
        """Compute dx = dy W^T (R, I), and carry dy (R, O) out."""
        return matmul(dy, transposed), (dy,)

    def constants_gradients(self, x: Tensor, carried: Sequence[Tensor]) -> Sequence[Tensor]:
        """Compute dW = sum_t x_t^T dy_t as one product, db = sum_t dy_t."""
        return gradients_of(self.value(x, *self.constants), self.constants, carried[0])


class WordShare:
    """Words (R,) int32 -> E y W (R, G): the words' share of the gates (eq. 1).

    Args:
        embedding: E (V, M). matrix: W (M, G), whose type is that of the product.
        zero: number of the word whose vector is zeros, or None.
    """

    input_size = None

    def __init__(self, embedding: Tensor, matrix: Tensor, zero: int | None = None) -> None:
        self.constants, self.dtype = (embedding, matrix), embedding.dtype.base_dtype
        self._zero = zero
        self.carried_sizes = (matrix.shape[1],)

    def __call__(self, words: Tensor) -> Tensor:
        """Compute words (R,) -> (R, G)."""
        return self.value(words, *self.constants)

    def of_all(self, words: Tensor) -> Tensor:
        """Compute words (T', R) -> (T', R, G), that of each different word once."""
        distinct, places = tf.unique(tf.reshape(words, [-1]))                       # (U,), (T' R,)
        shares = tf.gather(self(distinct), places)                                  # (T' R, G)
        return tf.reshape(shares, tf.concat([tf.shape(words), [self.carried_sizes[0]]], 0))

    def loop_constants(self) -> tuple[Tensor, ...]:
        """Return the constants themselves."""
        return self.constants

    def value(self, words: Tensor, embedding: Tensor, matrix: Tensor) -> Tensor:
        """Compute words (...) -> (..., G)."""
        return all_rows(look_up(embedding, words, self._zero), matrix)

    def gradient(self, words: Tensor, dy: Tensor,
                 *_: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
        """Carry dy (R, G) out; words have no gradient."""
        return None, (dy,)

    def constants_gradients(self, words: Tensor, carried: Sequence[Tensor]) -> Sequence[Tensor]:
        """Compute the gradients of embedding and matrix as of one product of all steps."""
        return gradients_of(self.value(words, *self.constants), self.constants, carried[0])


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
        self.carried_sizes = (self._n_locations, self.input_size)
        self._activation, self._jit, self._least = activation, jit, least
        self._scores, self._query_gradient = (
            compiled(functools.partial(kernel, activation), jit, least)
            for kernel in (attention_kernels.scores, attention_kernels.query_gradient))

    def __call__(self, query: Tensor) -> Tensor:
        """Compute q (R, A) -> e (R, L)."""
        return self.value(query, *self.constants)

    def of_images(self, projected: Tensor) -> 'Scores':
        """Return the same function of other images, p (n, L, A)."""
        return Scores(projected, self.constants[1], self._activation, self._jit, self._least)

    def loop_constants(self) -> tuple[Tensor, ...]:
        """Return the constants themselves."""
        return self.constants

    def value(self, query: Tensor, projected: Tensor, w_att: Tensor) -> Tensor:
        """Compute q (R, A) -> e (R, L)."""
        e = self._scores(projected, _by_image(query, projected), w_att)             # (N, C, L)
        return tf.reshape(e, [-1, self._n_locations])

    def gradient(self, query: Tensor, d_scores: Tensor, projected: Tensor,
                 w_att: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
        """Compute dq (R, A), and carry out de (R, L) and a share of dw (R, A)."""
        d_query, d_w = self._query_gradient(
            projected, _by_image(query, projected), w_att, _by_image(d_scores, projected))
        d_query, d_w = (tf.reshape(x, [-1, self.input_size]) for x in (d_query, d_w))
        return d_query, (d_scores, d_w)

    def constants_gradients(self, query: Tensor, carried: Sequence[Tensor]) -> Sequence[Tensor]:
        """Compute dp (N, L, A) and dw (A,) in one pass over p."""
        projected, w_att = self.constants
        steps = (_steps_of_images(x, projected) for x in (query, *carried))         # (S, N, ...)
        return attention_kernels.projection_gradient(self._activation, self._jit, projected, w_att,
                                                     *steps)


class WeightedSum:
    """Weights of the locations (R, L) -> sum_l weights_l features_l (R, K) (eq. 13).

    Args:
        features: (N, L, K), whose type is that of the products. dtype: of weights and sums.
        jit, least: as of `Scores`.
    """

    def __init__(self, features: Tensor, dtype: DType, jit: bool, least: int = 0) -> None:
        self.constants, self.dtype = (features,), dtype
        _, self.input_size, size = features.shape.as_list()
        self.carried_sizes = (size,)
        self._jit, self._least = jit, least
        self._sum, self._gradient = (
            compiled(kernel, jit, least) for kernel in (attention_kernels.weighted_sum,
                                                        attention_kernels.weighted_sum_gradient))

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
        return tf.reshape(self._sum(_by_image(weights, features), features),
                          [-1, self.carried_sizes[0]])

    def gradient(self, weights: Tensor, d_sum: Tensor,
                 features: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
        """Compute the gradient of the weights (R, L), and carry d_sum (R, K) out."""
        d_weights = self._gradient(_by_image(d_sum, features), features)            # (N, C, L)
        return tf.reshape(d_weights, [-1, self.input_size]), (d_sum,)

    def constants_gradients(self, weights: Tensor, carried: Sequence[Tensor]) -> Sequence[Tensor]:
        """Compute the features' gradient (N, L, K), one product an image for all steps."""
        features = self.constants[0]
        weights, d_sum = (_images_of_steps(x, features) for x in (weights, carried[0]))
        return gradients_of(matmul(weights, features), self.constants, d_sum)


class StepFunctions(NamedTuple):
    """All that `Decoder.step` computes with constants.

    Attributes:
        words: WordShare, words (R,) -> their share of the gates (R, G).
        from_h: Product, h (R, H) -> (R, S): share of the gates, query of the attention, gate beta.
        scores: Scores, query (R, A) -> (R, L).
        weighted_sum: WeightedSum, weights of the locations (R, L) -> (R, K).
        from_context: Product, context (R, K) -> its share of the gates (R, G), with their bias.
        annotations: Annotations of the images.
        others: dict of name -> StepFunction, what an extension of the step needs besides.
    """

    words: WordShare
    from_h: Product
    scores: Scores
    weighted_sum: WeightedSum
    from_context: Product
    annotations: Annotations
    others: dict[str, StepFunction]

    def replaced(self, replace: Callable[[StepFunction], StepFunction]) -> 'StepFunctions':
        """Return the same with `replace(function)` for each function."""
        fields = {name: replace(function) for name, function in self._asdict().items()
                  if name not in ('annotations', 'others')}
        others = {name: replace(function) for name, function in self.others.items()}
        return self._replace(**fields, others=others)

    @property
    def images(self) -> tuple[Tensor, Tensor]:
        """What is of the images here: projected annotations (N, L, A), features (N, L, K)."""
        return self.scores.constants[0], self.weighted_sum.constants[0]

    def of_images(self, images: tuple[Tensor, Tensor]) -> 'StepFunctions':
        """Return the same functions of other images, or of fewer: a tuple such as `images`."""
        projected, features = images
        return self._replace(scores=self.scores.of_images(projected),
                             weighted_sum=self.weighted_sum.of_images(features))


def look_up(embedding: Tensor, words: Tensor, zero: int | None = None) -> Tensor:
    """Return word vectors: embedding (V, M), words (...) int32 -> (..., M); `zero` has zeros."""
    vectors = tf.nn.embedding_lookup(embedding, words)
    if zero is not None:
        vectors *= tf.cast(tf.not_equal(words, zero), vectors.dtype)[..., tf.newaxis]
    return vectors


def all_rows(x: Tensor, w: Tensor) -> Tensor:
    """Multiply x (..., I) by w (I, O) as one product, so that the gradient of w is one too."""
    if x.shape.rank == 2:
        return matmul(x, w)
    flat = matmul(tf.reshape(x, [-1, w.shape[0]]), w)                               # (rows, O)
    return tf.reshape(flat, tf.concat([tf.shape(x)[:-1], [w.shape[1]]], 0))


def gradients_of(y: Tensor, constants: Sequence[Tensor], dy: Tensor) -> list[Tensor]:
    """Compute the gradients of the constants of y, whose own gradient is dy; dense tensors."""
    return [tf.convert_to_tensor(gradient)
            for gradient in tf1.gradients(y, list(constants), grad_ys=cast(dy, y.dtype))]


def _by_image(x: Tensor, images: Tensor) -> Tensor:
    """Group rows by image: x (R, I), images (N, ...) -> (N, C, I)."""
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

