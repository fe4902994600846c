"""TensorFlow, imported without its start-up lines: `from core.runtime.backend import tf, tf1`.

Importing TensorFlow writes notices of its C++ core to file descriptor 2. They say nothing about the user's run
and would break the promise that importing `core` prints nothing, so descriptor 2 is pointed to a temporary file
during the import, and given back with its contents only if the import fails.
"""

import functools
import os
import sys
import tempfile
from collections.abc import Callable
from typing import Any

from core.common.aliases import DType, Operation, Tensor


def _import_tensorflow() -> Any:
    if 'tensorflow' in sys.modules:
        import tensorflow

        return tensorflow
    sys.stderr.flush()
    saved = os.dup(2)
    with tempfile.TemporaryFile() as chatter:
        os.dup2(chatter.fileno(), 2)
        try:
            import tensorflow
        except BaseException:
            chatter.seek(0)
            os.write(saved, chatter.read())
            raise
        finally:
            os.dup2(saved, 2)
            os.close(saved)
    return tensorflow


tf = _import_tensorflow()
tf1 = tf.compat.v1


def cast(x: Tensor, dtype: DType) -> Tensor:
    """x in another floating type; x itself, and no operation, where it has that type."""
    return x if x.dtype.base_dtype == dtype else tf.cast(x, dtype)


def matmul(x: Tensor, w: Tensor, **options: Any) -> Tensor:
    """`tf.matmul` in the type of the weights w, given back in the type of x: what mixed precision is made of."""
    return cast(tf.matmul(cast(x, w.dtype), w, **options), x.dtype)


_GRADIENT = 'ShowAttendTell'


def with_gradient(function: Callable[..., tuple], *inputs: Tensor) -> Any:
    """function(*inputs) in the default graph, with a gradient of its own.

    As `tf.custom_gradient`, which keeps every graph that it was used in alive as long as the program runs.

    Args:
        function: of tensors; returns (tensor or tuple of tensors, function from their gradients to a gradient, or
            None, for each input).
        inputs: tensors.

    Returns:
        What the function returned first.
    """
    given = [tf.convert_to_tensor(x) for x in inputs]
    outputs, gradient = function(*given)
    flat = list(outputs) if isinstance(outputs, tuple) else [outputs]
    graph = tf1.get_default_graph()
    _register()
    with graph.gradient_override_map({'IdentityN': _GRADIENT}):
        # The inputs too: it is to them that gradients flow.
        tied = tf.identity_n([*flat, *inputs])
    if not hasattr(graph, '_show_attend_tell'):
        graph._show_attend_tell = {}
    graph._show_attend_tell[tied[0].op.name] = gradient, len(flat)
    return tuple(tied[: len(flat)]) if isinstance(outputs, tuple) else tied[0]


@functools.cache
def _register() -> None:
    """Make TensorFlow know the gradient of what `with_gradient` ties; once, and not at import."""
    @tf.RegisterGradient(_GRADIENT)
    def gradient_of(op: Operation, *gradients: Tensor) -> list[Tensor]:
        gradient, n_outputs = op.graph._show_attend_tell[op.name]
        found = gradient(*gradients[:n_outputs])
        return [None] * n_outputs + list(found if isinstance(found, tuple) else [found])
