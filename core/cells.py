"""Recurrent cells: the state they carry and one step of them (eq. 1 to 3 of the paper for the LSTM).

    cell = LSTMCell(variables, n_inputs=M + D, dim_hidden=H)
    state = cell.step(inputs, state)
"""

from typing import NamedTuple

from core.backend import tf


class LSTMState(NamedTuple):
    """Memory cell c and hidden state h, both (R, H)."""

    c: object
    h: object


class GRUState(NamedTuple):
    """Hidden state h, (R, H)."""

    h: object


class LSTMCell:
    """LSTM with gate order i, j, f, o; variables `lstm/basic_lstm_cell/{kernel, bias}` (I + H, 4H), (4H).

    Args:
        variables: Variables. n_inputs: I. dim_hidden: H.
        forget_bias: added to the forget gate.
    """

    State = LSTMState

    def __init__(self, variables, n_inputs, dim_hidden, forget_bias=1.0):
        self.forget_bias = forget_bias
        self.weights = variables.create(
            'lstm/basic_lstm_cell', kernel=([n_inputs + dim_hidden, 4 * dim_hidden], 'recurrent'),
            bias=([4 * dim_hidden], 'zeros'))

    def step(self, inputs, state):
        """Inputs (R, I), LSTMState -> LSTMState."""
        gates = tf.matmul(tf.concat([inputs, state.h], axis=1), self.weights['kernel']) + self.weights['bias']
        i, j, f, o = tf.split(gates, 4, axis=1)
        c = state.c * tf.sigmoid(f + self.forget_bias) + tf.sigmoid(i) * tf.tanh(j)
        return LSTMState(c, tf.tanh(c) * tf.sigmoid(o))


class GRUCell:
    """GRU as Keras computes it with `reset_after`: the reset gate acts on the product of state and kernel.

    Variables `gru/{kernel, recurrent_kernel, bias}` (I, 3H), (H, 3H), (2, 3H), columns z, r, h.

    Args:
        variables: Variables. n_inputs: I. dim_hidden: H.
    """

    State = GRUState

    def __init__(self, variables, n_inputs, dim_hidden):
        self.weights = variables.create(
            'gru', kernel=([n_inputs, 3 * dim_hidden], 'matrix'),
            recurrent_kernel=([dim_hidden, 3 * dim_hidden], 'matrix'), bias=([2, 3 * dim_hidden], 'zeros'))

    def step(self, inputs, state):
        """Inputs (R, I), GRUState -> GRUState."""
        from_inputs = tf.matmul(inputs, self.weights['kernel']) + self.weights['bias'][0]
        from_state = tf.matmul(state.h, self.weights['recurrent_kernel']) + self.weights['bias'][1]
        (x_z, x_r, x_h), (h_z, h_r, h_h) = (tf.split(x, 3, axis=1) for x in (from_inputs, from_state))
        z = tf.sigmoid(x_z + h_z)
        candidate = tf.tanh(x_h + tf.sigmoid(x_r + h_r) * h_h)
        return GRUState(z * state.h + (1 - z) * candidate)
