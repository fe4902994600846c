"""Gradients of the weights made once for all steps, after the loop over them: faster, not other.

A loop over T' steps computes y_t = x_t W with one W. Differentiated as it stands, every step adds
x_t' dy_t to a gradient as large as W. `DeferredGradients` has the loop record x_t, and
dy_t carried out of it, so that dW = sum_t x_t' dy_t is one product after the loop:

    functions = decoder.step_functions(annotations)            # y = f(x; constants) each
    deferred = DeferredGradients(functions, n_steps, n_rows)

    def body(t, h, records):
        here = deferred.at(t)                                  # the same functions, of step t
        h = tf.tanh(here.from_h(h))                            # notes x_t; W gets no gradient here
        return t + 1, h, deferred.write(t, records)            # keeps x_t

    _, h, records = tf.while_loop(condition, body, (0, h_0, deferred.records()))
    deferred.finish(records)                                   # now tf.gradients(loss(h), W) works

How dy_t leaves the loop: `at(t)` hands the function a slice of zeros (T', R, O) that it ignores,
and declares dy_t as the slice's gradient. The gradient of all the zeros, which is that of a tensor
outside the loop, is then dy of all steps, and `StepFunction.constants_gradients` makes dW of it.

The constants are hidden inside these functions alone, so that a step can go wrong in no silent way:
one that reads `functions.from_h.constants`, the annotations or a variable directly, or that calls a
function twice, gets the ordinary gradient of a loop for that, right and slower. `PlainGradients`
gives all of it so. One rule is for who writes a StepFunction: all that its `value` reads and that
has a gradient is among its `constants`; `core.training.check_gradients` finds what was forgotten.

Letters in shapes: N images, R captions (rows; row r belongs to image r // (R / N)), T' steps, I and
O units into and out of a function, M numbers of a word vector, V words, G gate units.
"""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Protocol

from core.common.aliases import DType, Tensor
from core.runtime.backend import cast, matmul, tf, tf1
from core.runtime.custom_gradient import with_gradient

if TYPE_CHECKING:
    from core.model.decoder import StepFunctions


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
        """Compute y_t (R, ...) of x (R, I), differentiable in it and in the constants."""

    def loop_constants(self) -> tuple[Tensor, ...]:
        """Return the tensors that `value` and `gradient` read inside the loop."""

    def value(self, x: Tensor, *loop_constants: Tensor) -> Tensor:
        """Compute y_t (R, ...) of x (R, I) and the loop constants."""

    def gradient(self, x: Tensor, dy: Tensor,
                 *loop_constants: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
        """Compute the gradient of x (R, I), or None, and what is carried out of the loop.

        Args:
            x: (R, I). dy: (R, O), the gradient of y_t. loop_constants: of `loop_constants`.
        """

    def constants_gradients(self, x: Tensor, carried: Sequence[Tensor]) -> Sequence[Tensor]:
        """Compute the gradient of each constant from all steps' x (T', R, I) and `carried`."""


class Product:
    """x (R, I) -> x W + b (R, O).

    Args:
        matrix: (I, O), W, whose type is that of the product.
        bias: (O,), b, of the model's own type.
    """

    def __init__(self, matrix: Tensor, bias: Tensor) -> None:
        self.constants, self.dtype = (matrix, bias), bias.dtype.base_dtype
        self.input_size, size = matrix.shape.as_list()
        self.carried_sizes: tuple[int, ...] = (size,)

    def __call__(self, x: Tensor) -> Tensor:
        """Compute x W + b (R, O) of x (R, I)."""
        return self.value(x, *self.constants)

    def loop_constants(self) -> tuple[Tensor, ...]:
        """Return W, b and W transposed.

        To transpose at every step takes longer than the product itself of a batch's few rows.
        """
        matrix, bias = self.constants
        return matrix, bias, tf.transpose(matrix)

    def value(self, x: Tensor, matrix: Tensor, bias: Tensor, *_: Tensor) -> Tensor:
        """Compute x W + b (..., O): x (..., I), matrix (I, O), bias (O,)."""
        return all_rows(x, matrix) + bias

    def gradient(self, x: Tensor, dy: Tensor, matrix: Tensor, bias: Tensor,
                 transposed: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
        """Compute dx = dy W^T (R, I), and carry dy (R, O) out.

        Args:
            x: (R, I). dy: (R, O). matrix: (I, O). bias: (O,). transposed: (O, I).
        """
        return matmul(dy, transposed), (dy,)

    def constants_gradients(self, x: Tensor, carried: Sequence[Tensor]) -> Sequence[Tensor]:
        """Compute dW = sum_t x_t^T dy_t of x (T', R, I) as one product, and db = sum_t dy_t."""
        return gradients_of(self.value(x, *self.constants), self.constants, carried[0])


class WordProduct:
    """Words (R,) int32 -> E y W (R, G): what the words give the gates (eq. 1).

    Args:
        embedding: (V, M), E. matrix: (M, G), W, whose type is that of the product.
        zero: number of the word whose vector is zeros, or None.
    """

    input_size: int | None = None

    def __init__(self, embedding: Tensor, matrix: Tensor, zero: int | None = None) -> None:
        self.constants, self.dtype = (embedding, matrix), embedding.dtype.base_dtype
        self._zero = zero
        self.carried_sizes: tuple[int, ...] = (matrix.shape[1],)

    def __call__(self, words: Tensor) -> Tensor:
        """Compute words (R,) -> (R, G)."""
        return self.value(words, *self.constants)

    def of_all(self, words: Tensor) -> Tensor:
        """Compute words (T', R) -> (T', R, G), that of each different word once."""
        distinct, places = tf.unique(tf.reshape(words, [-1]))                       # (U,), (T' R,)
        products = tf.gather(self(distinct), places)                                # (T' R, G)
        return tf.reshape(products, tf.concat([tf.shape(words), [self.carried_sizes[0]]], 0))

    def loop_constants(self) -> tuple[Tensor, ...]:
        """Return the constants themselves."""
        return self.constants

    def value(self, words: Tensor, embedding: Tensor, matrix: Tensor) -> Tensor:
        """Compute E y W (..., G): words (...), embedding (V, M), matrix (M, G)."""
        return all_rows(look_up(embedding, words, self._zero), matrix)

    def gradient(self, words: Tensor, dy: Tensor,
                 *_: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
        """Carry dy (R, G) out; words (R,) have no gradient."""
        return None, (dy,)

    def constants_gradients(self, words: Tensor, carried: Sequence[Tensor]) -> Sequence[Tensor]:
        """Compute the gradients of embedding and matrix from all words (T', R) at once."""
        return gradients_of(self.value(words, *self.constants), self.constants, carried[0])


class PlainGradients:
    """The StepFunctions as they stand in a loop: TensorFlow's own gradients, slow and always right.

    Args:
        functions: StepFunctions. n_steps, n_rows: scalars, not needed here.
    """

    def __init__(self, functions: 'StepFunctions', n_steps: Tensor, n_rows: Tensor) -> None:
        self._functions = functions

    def records(self) -> tuple:
        """Return the loop variable with which `write` begins."""
        return ()

    def at(self, t: Tensor) -> 'StepFunctions':
        """Return the functions of step t, inside the loop."""
        return self._functions

    def write(self, t: Tensor, records: tuple) -> tuple:
        """Return `records` with what step t has to keep."""
        return records

    def finish(self, records: tuple) -> None:
        """Take the records after the loop, before gradients are asked for."""


class DeferredGradients(PlainGradients):
    """The StepFunctions in a loop, with the gradients of their constants made after it.

    Args:
        functions: StepFunctions. n_steps, n_rows: scalars, T' and R.
    """

    def __init__(self, functions: 'StepFunctions', n_steps: Tensor, n_rows: Tensor) -> None:
        self._deferred: list[_Deferred] = []

        def defer(function: StepFunction) -> '_Deferred':
            self._deferred.append(_Deferred(function, n_steps, n_rows))
            return self._deferred[-1]

        super().__init__(functions.replaced(defer), n_steps, n_rows)

    def records(self) -> tuple:
        """Return a TensorArray for each function, for its x_t."""
        return tuple(deferred.record for deferred in self._deferred)

    def at(self, t: Tensor) -> 'StepFunctions':
        """Return functions that note what they are called with and leave their constants alone.

        They are the same ones for every t: a loop's body is traced once, with one step.
        """
        for deferred in self._deferred:
            deferred.begin(t)
        return self._functions

    def write(self, t: Tensor, records: tuple) -> tuple:
        """Return the TensorArrays with each function's x_t."""
        return tuple(record if deferred.input is None else record.write(t, deferred.input)
                     for deferred, record in zip(self._deferred, records, strict=True))

    def finish(self, records: tuple) -> None:
        """Take the TensorArrays after the loop, before gradients are asked for."""
        for deferred, record in zip(self._deferred, records, strict=True):
            if deferred.input is not None:
                deferred.inputs = tf.stop_gradient(record.stack())                  # (T', R, I)


class _Deferred:
    """One function of `DeferredGradients`, which stands for it in the loop.

    Attributes:
        constants, dtype: of the function, in plain sight.
        input: x_t of the step being built; None before the function is called.
        inputs: x of all steps (T', R, I), once the loop is built.
        record: TensorArray that x_t is written to.
    """

    def __init__(self, function: StepFunction, n_steps: Tensor, n_rows: Tensor) -> None:
        self._function, self.constants, self.dtype = function, function.constants, function.dtype
        self.input: Tensor = None
        self.inputs: Tensor = None
        size, dtype = function.input_size, self.dtype
        self.record = tf.TensorArray(
            tf.int32 if size is None else dtype, n_steps,
            element_shape=[None] if size is None else [None, size])
        carriers = self._carriers_tied_to_constants(
            [tf.zeros([n_steps, n_rows, size], dtype) for size in function.carried_sizes])
        self._carriers = [tf.TensorArray(dtype, n_steps, element_shape=x.shape[1:]).unstack(x)
                          for x in carriers]
        for array in self._carriers:  # TensorFlow warns of those of a function that is not called
            array.mark_used()
        constants = function.loop_constants()
        self._bits = [_without_gradient(x) for x in constants]
        self._dtypes = [x.dtype.base_dtype for x in constants]

    def begin(self, t: Tensor) -> None:
        """Begin step t, inside the loop."""
        self._t, self.input = t, None

    def __call__(self, x: Tensor) -> Tensor:
        """Compute y_t of x_t; its gradient reaches x_t, and the constants after the loop."""
        if self.input is not None:  # there is one record a step: a second call takes the plain way
            return self._function(x)
        self.input = tf.stop_gradient(x)
        constants = [tf.bitcast(*pair) for pair in zip(self._bits, self._dtypes, strict=True)]

        def value(x: Tensor, *_: Tensor) -> tuple[Tensor, Callable[..., tuple]]:
            def gradient(dy: Tensor) -> tuple:
                dx, carried = self._function.gradient(x, dy, *constants)
                return dx, *carried

            return self._function.value(x, *constants), gradient

        return with_gradient(value, x, *[carrier.read(self._t) for carrier in self._carriers])

    def _carriers_tied_to_constants(self, zeros: Sequence[Tensor]) -> Sequence[Tensor]:
        """Return `zeros`, whose gradient becomes that of the constants."""
        def tied(*_: Tensor) -> tuple[tuple, Callable[..., tuple]]:
            def gradient(*carried: Tensor) -> tuple:
                return (*[None] * len(zeros),
                        *self._function.constants_gradients(self.inputs, carried))

            return tuple(zeros), gradient

        return with_gradient(tied, *zeros, *self.constants)


def _without_gradient(x: Tensor) -> Tensor:
    """Return the bits of a floating tensor as integers, for a loop to read.

    `tf.while_loop` makes a gradient of every floating tensor that its body reads, and where none
    arrives, zeros of the tensor's size, which are written and added up for nothing. Integers have
    no gradient. A bitcast moves no data.
    """
    return tf.bitcast(x, {2: tf.uint16, 4: tf.uint32, 8: tf.uint64}[x.dtype.size])


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
    """Compute the gradients of the constants of y (..., O), whose own is dy (..., O); dense."""
    return [tf.convert_to_tensor(gradient)
            for gradient in tf1.gradients(y, list(constants), grad_ys=cast(dy, y.dtype))]
