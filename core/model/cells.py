"""Recurrent cells: the state they carry and one step of them (eq. 1 to 3 of the paper for the
LSTM).

    cell = LSTMCell(variables, n_inputs=M + D, dim_hidden=H)
    w = cell.weights()
    state = cell.step(x @ w.kernel + w.bias, state.h @ w.recurrent_kernel + w.recurrent_bias, state)

The products are the caller's, as a part of them does not depend on the recurrence. G is 4H for the
LSTM, 3H for the GRU; I is the size of the input.
"""

from typing import TYPE_CHECKING, NamedTuple

from core.common.aliases import Tensor
from core.runtime.backend import tf

if TYPE_CHECKING:
    from core.runtime.variables import Variables


class LSTMState(NamedTuple):
    """Memory cell c and hidden state h, both (R, H)."""

    c: Tensor
    h: Tensor


class GRUState(NamedTuple):
    """Hidden state h, (R, H)."""

    h: Tensor


class CellWeights(NamedTuple):
    """kernel (I, G) of the input, recurrent_kernel (H, G) of the state, and their biases (G,)."""

    kernel: Tensor
    recurrent_kernel: Tensor
    bias: Tensor
    recurrent_bias: Tensor


class LSTMCell:
    """LSTM with gate order i, j, f, o; variables `lstm/basic_lstm_cell/{kernel, bias}` (I + H, 4H),
    (4H).

    Args:
        variables: Variables. n_inputs: I. dim_hidden: H.
        forget_bias: added to the forget gate.

    Attributes:
        n_gates: G. adds: whether the shares of input and state are only added.
    """

    State, adds = LSTMState, True

    def __init__(self, variables: 'Variables', n_inputs: int, dim_hidden: int,
                 forget_bias: float = 1.0) -> None:
        self.n_inputs, self.n_gates, self.forget_bias = n_inputs, 4 * dim_hidden, forget_bias
        self._variables = variables.create(
            'lstm/basic_lstm_cell', kernel=([n_inputs + dim_hidden, 4 * dim_hidden], 'recurrent'),
            bias=([4 * dim_hidden], 'zeros'))

    def weights(self) -> CellWeights:
        """CellWeights; the recurrent bias is zero."""
        inputs, state = tf.split(self._variables['kernel'], [self.n_inputs, -1])
        bias = tf.convert_to_tensor(self._variables['bias'])
        return CellWeights(inputs, state, bias, tf.zeros_like(bias))

    def step(self, from_inputs: Tensor, from_state: Tensor, state: LSTMState) -> LSTMState:
        """Shares of the gates (R, G) from input and state, LSTMState -> LSTMState."""
        i, j, f, o = tf.split(from_inputs + from_state, 4, axis=1)
        c = state.c * tf.sigmoid(f + self.forget_bias) + tf.sigmoid(i) * tf.tanh(j)
        return LSTMState(c, tf.tanh(c) * tf.sigmoid(o))


class GRUCell:
    """GRU as Keras computes it with `reset_after`: the reset gate acts on the product of state and
    kernel.

    Variables `gru/{kernel, recurrent_kernel, bias}` (I, 3H), (H, 3H), (2, 3H), columns z, r, h.

    Args:
        variables: Variables. n_inputs: I. dim_hidden: H.

    Attributes:
        n_gates: G. adds: whether the shares of input and state are only added.
    """

    State, adds = GRUState, False

    def __init__(self, variables: 'Variables', n_inputs: int, dim_hidden: int) -> None:
        self.n_gates = 3 * dim_hidden
        self._variables = variables.create(
            'gru', kernel=([n_inputs, 3 * dim_hidden], 'matrix'),
            recurrent_kernel=([dim_hidden, 3 * dim_hidden], 'matrix'),
            bias=([2, 3 * dim_hidden], 'zeros'))

    def weights(self) -> CellWeights:
        """CellWeights."""
        kernel, recurrent_kernel = (tf.convert_to_tensor(self._variables[name])
                                    for name in ('kernel', 'recurrent_kernel'))
        return CellWeights(kernel, recurrent_kernel, *tf.unstack(self._variables['bias']))

    def step(self, from_inputs: Tensor, from_state: Tensor, state: GRUState) -> GRUState:
        """Shares of the gates (R, G) from input and state, GRUState -> GRUState."""
        (x_z, x_r, x_h), (h_z, h_r, h_h) = (tf.split(x, 3, axis=1)
                                            for x in (from_inputs, from_state))
        z = tf.sigmoid(x_z + h_z)
        candidate = tf.tanh(x_h + tf.sigmoid(x_r + h_r) * h_h)
        return GRUState(z * state.h + (1 - z) * candidate)
