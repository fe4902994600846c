"""An operation with a gradient of its own, in any graph."""

import functools
from collections.abc import Callable

from core.common.aliases import Operation, Tensor
from core.runtime.backend import tf, tf1

_GRADIENT = 'ShowAttendTell'


def with_gradient(function: Callable[..., tuple], *inputs: Tensor) -> Tensor:
    """Return function(*inputs) in the default graph, with a gradient of its own.

    As `tf.custom_gradient`, which keeps every graph that it was used in alive as long as the
    program runs.

    Args:
        function: of tensors; returns (tensor or tuple of tensors, function from their gradients to
            a gradient, or None, for each input).
        inputs: tensors.

    Returns:
        The tensor or tuple of tensors that the function returned first.
    """
    outputs, gradient = function(*[tf.convert_to_tensor(x) for x in inputs])
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
    """Register the gradient of what `with_gradient` ties; once, and not at import."""
    @tf.RegisterGradient(_GRADIENT)
    def gradient_of(op: Operation, *gradients: Tensor) -> list[Tensor]:
        gradient, n_outputs = op.graph._show_attend_tell[op.name]
        of_inputs = gradient(*gradients[:n_outputs])
        of_inputs = of_inputs if isinstance(of_inputs, tuple) else (of_inputs,)
        return [None] * n_outputs + list(of_inputs)
