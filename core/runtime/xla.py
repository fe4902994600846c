"""XLA on this machine: tried once, before a graph is built that needs it."""

import dataclasses

from core.common.aliases import DType, Say
from core.runtime.backend import tf, tf1
from core.runtime.devices import Machine, session_config

_failures: dict[tuple[str, str], str] = {}  # (device, dtype name) -> what XLA said, '' if it works


def with_working_xla(machine: Machine, dtype: DType = None, say: Say = print) -> Machine:
    """Return the Machine; where XLA does not work, the same without XLA, after a line on that.

    Args:
        machine: Machine. dtype: of the products, see `compile_failure`.
        say: function that prints a line.
    """
    failure = machine.xla != 'off' and compile_failure(machine, dtype)
    if not failure:
        return machine
    say(f'going on without XLA, which does not compile here: {failure}')
    return dataclasses.replace(machine, xla='off')


def compile_failure(machine: Machine | None = None, dtype: DType = None) -> str:
    """Return why XLA cannot compile a product on this machine, in one line; '' where it can.

    Args:
        machine: Machine. dtype: of the product; None: float32.
    """
    machine, dtype = machine or Machine(), dtype or tf.float32
    machine = dataclasses.replace(machine, xla='kernels')
    if (machine.device, dtype.name) not in _failures:
        _failures[machine.device, dtype.name] = _try(machine, dtype)[:200]
    return _failures[machine.device, dtype.name]


def _try(machine: Machine, dtype: DType) -> str:
    """Return what XLA says of a small product, in one line; '' where it compiles it."""
    with tf.Graph().as_default() as graph:
        x, w = (tf1.placeholder_with_default(tf.ones(shape, dtype), shape)
                for shape in ((2, 3), (3, 1)))
        product = tf.function(lambda x, w: tf.matmul(tf.tanh(x), w), jit_compile=True,
                              autograph=False)(x, w)
        with tf1.Session(graph=graph, config=session_config(machine)) as session:
            try:
                session.run(product)
            except tf.errors.OpError as error:
                return next(iter(error.message.splitlines()), '') or type(error).__name__
    return ''
