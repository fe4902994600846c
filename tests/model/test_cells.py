"""Cells by themselves: an LSTM by the equations and by its limits, a GRU against Keras' own."""

import numpy as np
import pytest

from core.model.cells import GRUCell, GRUState, LSTMCell, LSTMState
from core.reference.equations import sigmoid
from core.runtime.backend import tf, tf1
from core.runtime.variables import Variables
from tests.support.quick_sessions import as_built

R, IN, H = 2, 5, 3  # rows, numbers of an input, hidden units


def stepped(cell, variables, assigned, x, state):
    """Return the state after one step, computed as the decoder does.

    The products are outside of the cell, which gets their shares of the gates.
    """
    w = cell.weights()
    x, state = tf.constant(x), type(state)(*map(tf.constant, state))
    from_state = tf.matmul(state.h, w.recurrent_kernel) + w.recurrent_bias
    after = cell.step(tf.matmul(x, w.kernel) + w.bias, from_state, state)
    with tf1.Session(config=as_built()) as session:
        for variable in variables.created:
            session.run(variable.initializer,
                        {variable.initializer.inputs[1]: assigned[variable.op.name]})
        return session.run(after)


@pytest.fixture
def random():
    return np.random.default_rng(0)


@pytest.mark.parametrize('forget_bias', [0.0, 1.0])
def test_an_lstm_by_its_equations(graph, random, forget_bias):
    variables = Variables(tf.float64)
    cell = LSTMCell(variables, IN, H, forget_bias)
    kernel, bias = random.normal(size=(IN + H, 4 * H)), random.normal(size=4 * H)
    x, c, h = random.normal(size=(R, IN)), random.normal(size=(R, H)), random.normal(size=(R, H))
    assigned = {'lstm/basic_lstm_cell/kernel': kernel, 'lstm/basic_lstm_cell/bias': bias}
    after = stepped(cell, variables, assigned, x, LSTMState(c, h))
    i, j, f, o = np.split(np.concatenate([x, h], axis=1) @ kernel + bias, 4, axis=1)
    expected = sigmoid(f + forget_bias) * c + sigmoid(i) * np.tanh(j)
    np.testing.assert_allclose(after.c, expected, rtol=1e-12)
    np.testing.assert_allclose(after.h, sigmoid(o) * np.tanh(expected), rtol=1e-12)


@pytest.mark.parametrize(('gates', 'c'), [((-50, 50), 'kept'), ((50, -50), 'replaced')])
def test_the_gates_of_an_lstm_keep_its_memory_or_replace_it(graph, random, gates, c):
    (i, f), before = gates, random.normal(size=(R, H))
    variables = Variables(tf.float64)
    assigned = {'lstm/basic_lstm_cell/kernel': np.zeros((IN + H, 4 * H)),
                'lstm/basic_lstm_cell/bias': np.repeat([float(i), 0.5, float(f), 0.0], H)}
    after = stepped(LSTMCell(variables, IN, H), variables, assigned, random.normal(size=(R, IN)),
                    LSTMState(before, before))
    expected = before if c == 'kept' else np.full((R, H), np.tanh(0.5))
    np.testing.assert_allclose(after.c, expected, rtol=1e-12)


def test_a_gru_is_that_of_keras(graph, random):
    import tf_keras

    variables = Variables(tf.float64)
    weights = {'gru/kernel': random.normal(size=(IN, 3 * H)),
               'gru/recurrent_kernel': random.normal(size=(H, 3 * H)),
               'gru/bias': random.normal(size=(2, 3 * H))}
    x, h = random.normal(size=(R, IN)), random.normal(size=(R, H))
    found = stepped(GRUCell(variables, IN, H), variables, weights, x, GRUState(h))
    with tf.Graph().as_default(), tf1.Session(config=as_built()) as session:
        theirs = tf_keras.layers.GRUCell(H, reset_after=True, dtype=tf.float64)
        output, _ = theirs(tf.constant(x), [tf.constant(h)])
        for variable, value in zip(theirs.weights, weights.values(), strict=True):
            variable.load(value, session)
        expected = session.run(output)
    np.testing.assert_allclose(found.h, expected, rtol=1e-9)
