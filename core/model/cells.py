"""Recurrent cells: the state they carry and one step of them (eq. 1 to 3 for the LSTM).

    cell = LSTMCell(variables, n_inputs=M + K, dim_hidden=H)
    w = cell.weights()
    state = cell.step(x @ w.kernel + w.bias, state.h @ w.recurrent_kernel + w.recurrent_bias, state)

The products are the caller's, as a part of them does not depend on the recurrence.

Letters in shapes: R captions, H hidden units, I size of the input (M numbers of a word vector and K
of an annotation), G gate units: 4H for the LSTM, 3H for the GRU.
"""

from typing import TYPE_CHECKING, NamedTuple

from core.common.aliases import Tensor
from core.runtime.backend import tf

if TYPE_CHECKING:
    from core.runtime.variables import Variables


class LSTMState(NamedTuple):
    """What an LSTM carries from word to word.

    Attributes:
        c: (R, H), the memory cell.
        h: (R, H), the hidden state.
    """

    c: Tensor
    h: Tensor


class GRUState(NamedTuple):
    """What a GRU carries from word to word.

    Attributes:
        h: (R, H), the hidden state.
    """

    h: Tensor


class CellWeights(NamedTuple):
    """The cell's weights, apart for what they are multiplied with.

    Attributes:
        kernel: (I, G), of the input.
        recurrent_kernel: (H, G), of the hidden state.
        bias: (G,), added to the input's product.
        recurrent_bias: (G,), added to the hidden state's product.
    """

    kernel: Tensor
    recurrent_kernel: Tensor
    bias: Tensor
    recurrent_bias: Tensor


class LSTMCell:
    """LSTM with gate order i, j, f, o; variables `lstm/basic_lstm_cell/{kernel, bias}`.

    Their shapes are (I + H, 4H) and (4H).

    Args:
        variables: Variables. n_inputs: I. dim_hidden: H.
        forget_bias: added to the forget gate.

    Attributes:
        n_gates: G.
    """

    State = LSTMState

    def __init__(self, variables: 'Variables', n_inputs: int, dim_hidden: int,
                 forget_bias: float = 1.0) -> None:
        self.n_inputs, self.n_gates, self.forget_bias = n_inputs, 4 * dim_hidden, forget_bias
        self._variables = variables.create(
            'lstm/basic_lstm_cell', kernel=([n_inputs + dim_hidden, 4 * dim_hidden], 'recurrent'),
            bias=([4 * dim_hidden], 'zeros'))

    def weights(self) -> CellWeights:
        """Return CellWeights; the recurrent bias is zero, as one bias does for both products."""
        inputs, recurrent = tf.split(self._variables['kernel'], [self.n_inputs, -1])
        bias = tf.convert_to_tensor(self._variables['bias'])
        return CellWeights(inputs, recurrent, bias, tf.zeros_like(bias))

    def step(self, from_inputs: Tensor, from_h: Tensor, state: LSTMState) -> LSTMState:
        """Take one step.

        Args:
            from_inputs: (R, G), what the input gives the gates.
            from_h: (R, G), that of h_{t-1}.
            state: that before the step.
        """
        # Eq. 1: input gate i, candidate j (g in the paper), forget f, output o
        i, j, f, o = tf.split(from_inputs + from_h, 4, axis=1)                      # (R, H) each
        # Eq. 2: c_t = f c_{t-1} + i j; the forget bias lets the cell remember from the beginning
        c = tf.sigmoid(f + self.forget_bias) * state.c + tf.sigmoid(i) * tf.tanh(j)     # (R, H)
        # Eq. 3: h_t = o tanh(c_t)
        return LSTMState(c, tf.sigmoid(o) * tf.tanh(c))                             # (R, H) each


class GRUCell:
    """GRU as Keras computes it with `reset_after`.

    The reset gate acts on the product of state and kernel. Variables
    `gru/{kernel, recurrent_kernel, bias}` (I, 3H), (H, 3H), (2, 3H), columns z, r, h.

    Args:
        variables: Variables. n_inputs: I. dim_hidden: H.

    Attributes:
        n_gates: G.
    """

    State = GRUState

    def __init__(self, variables: 'Variables', n_inputs: int, dim_hidden: int) -> None:
        self.n_gates = 3 * dim_hidden
        self._variables = variables.create(
            'gru', kernel=([n_inputs, 3 * dim_hidden], 'matrix'),
            recurrent_kernel=([dim_hidden, 3 * dim_hidden], 'matrix'),
            bias=([2, 3 * dim_hidden], 'zeros'))

    def weights(self) -> CellWeights:
        """Return CellWeights."""
        kernel, recurrent_kernel = (tf.convert_to_tensor(self._variables[name])
                                    for name in ('kernel', 'recurrent_kernel'))
        return CellWeights(kernel, recurrent_kernel, *tf.unstack(self._variables['bias']))

    def step(self, from_inputs: Tensor, from_h: Tensor, state: GRUState) -> GRUState:
        """Take one step.

        Args:
            from_inputs: (R, G), what the input gives the gates.
            from_h: (R, G), that of h_{t-1}.
            state: that before the step.
        """
        x_z, x_r, x_h = tf.split(from_inputs, 3, axis=1)                            # (R, H) each
        h_z, h_r, h_h = tf.split(from_h, 3, axis=1)                                 # (R, H) each
        z = tf.sigmoid(x_z + h_z)                                                   # (R, H), update
        # The two are not just added: the reset gate scales what is of h alone.
        candidate = tf.tanh(x_h + tf.sigmoid(x_r + h_r) * h_h)                      # (R, H)
        return GRUState(z * state.h + (1 - z) * candidate)                          # (R, H)
