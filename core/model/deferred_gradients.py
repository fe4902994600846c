"""Gradients of the weights made once for all steps, after the loop over them: faster, not other.

A loop over T' steps computes y_t = x_t W with one W. Differentiated as it stands, every step adds
its share x_t' dy_t to a gradient as large as W. `DeferredGradients` has the loop record x_t, and
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

Nothing can go wrong silently: the constants are hidden inside these functions alone. A step that
reads `functions.from_h.constants`, the annotations or a variable directly, or that calls a function
twice, gets the ordinary gradient of a loop for that, right and slower. `PlainGradients` gives all
of it so.

Letters in shapes as in `step_functions`.
"""

from collections.abc import Callable, Sequence

from core.common.aliases import Tensor
from core.model.step_functions import StepFunction, StepFunctions
from core.runtime.backend import tf
from core.runtime.custom_gradient import with_gradient


class PlainGradients:
    """The StepFunctions as they stand in a loop: TensorFlow's own gradients, slow and always right.

    Args:
        functions: StepFunctions. n_steps, n_rows: not needed here.
    """

    def __init__(self, functions: StepFunctions, n_steps: Tensor, n_rows: Tensor) -> None:
        self._functions = functions

    def records(self) -> tuple:
        """Return the loop variable with which `write` begins."""
        return ()

    def at(self, t: Tensor) -> StepFunctions:
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
        functions: StepFunctions. n_steps, n_rows: scalar tensors, T' and R.
    """

    def __init__(self, functions: StepFunctions, n_steps: Tensor, n_rows: Tensor) -> None:
        self._deferred: list[_Deferred] = []

        def defer(function: StepFunction) -> StepFunction:
            self._deferred.append(_Deferred(function, n_steps, n_rows))
            return self._deferred[-1]

        super().__init__(functions.replaced(defer), n_steps, n_rows)

    def records(self) -> tuple:
        """Return a TensorArray for each function, for its x_t."""
        return tuple(deferred.record for deferred in self._deferred)

    def at(self, t: Tensor) -> StepFunctions:
        """Return functions that note what they are called with and leave their constants alone."""
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
        constants: of the function, in plain sight.
        input: x_t of the step being built; None before the function is called.
        inputs: x of all steps (T', R, I), once the loop is built.
        record: TensorArray that x_t is written to.
    """

    def __init__(self, function: StepFunction, n_steps: Tensor, n_rows: Tensor) -> None:
        self._function, self.constants = function, function.constants
        self.input = self.inputs = None
        size, dtype = function.input_size, function.dtype
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
