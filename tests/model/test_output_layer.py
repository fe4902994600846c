"""The output layer (eq. 7) and its dropout by themselves.

Also a cross entropy with a gradient by hand.
"""

import numpy as np
import pytest

from core.config.model import ModelConfig
from core.model.output_layer import Dropout, OutputLayer
from core.runtime.backend import tf, tf1
from core.runtime.variables import Variables
from tests.support.quick_sessions import as_built
from tests.support.tiny_model import H, M, V

P, K = 4, 5  # words, numbers of a context


def layer(**options):
    """Return an OutputLayer in float64, its Variables and values for them."""
    variables = Variables(tf.float64)
    made = OutputLayer(variables, H, K, V, ModelConfig(dim_embed=M, **options))
    random = np.random.default_rng(1)
    values = {v.op.name: random.normal(size=v.shape.as_list()) for v in variables.created}
    return made, variables, values


def run(variables, assigned, *tensors):
    with tf1.Session(config=as_built()) as session:
        for variable in variables.created:
            session.run(variable.initializer,
                        {variable.initializer.inputs[1]: assigned[variable.op.name]})
        return session.run(tensors)


@pytest.fixture
def inputs():
    random = np.random.default_rng(2)
    return random.normal(size=(P, H)), random.normal(size=(P, K)), random.normal(size=(P, M))


@pytest.mark.parametrize('options', [
    {},
    {'ctx2out': False},
    {'prev2out': False},
    {'output_activation': 'linear'},
    {'output_layers': 3},
    {'prev2out': False, 'output_size': 9},
], ids=str)
def test_logits_by_the_equation(graph, inputs, options):
    made, variables, v = layer(**options)
    found, = run(variables, v, made(*map(tf.constant, inputs)))
    h, z, word = inputs
    hidden = h @ v['logits/w_h'] + v['logits/b_h']
    if options.get('ctx2out', True):
        hidden = hidden + z @ v['logits/w_ctx2out']
    if options.get('prev2out', True):
        hidden = hidden + word
    hidden = hidden if options.get('output_activation') == 'linear' else np.tanh(hidden)
    for number in range(1, options.get('output_layers', 1)):
        hidden = np.maximum(hidden @ v[f'logits/w_{number}'] + v[f'logits/b_{number}'], 0)
    np.testing.assert_allclose(found, hidden @ v['logits/w_out'] + v['logits/b_out'], rtol=1e-9,
                               atol=1e-12)
    assert ('logits/w_ctx2out' in v) == options.get('ctx2out', True)


def test_cross_entropy_and_its_gradients_are_tensorflows(graph, inputs):
    made, variables, v = layer()
    hidden, targets = tf.constant(inputs[2]), tf.constant([3, 0, V - 1, 3])
    weights = tf.constant([1.0, 0.5, 2.0, -1.0], tf.float64)  # gradients that come from outside
    logits = tf.matmul(hidden, made.variables['w_out']) + made.variables['b_out']
    plain = tf.nn.sparse_softmax_cross_entropy_with_logits(targets, logits)
    ours = made.cross_entropy(hidden, targets)
    sources = [hidden, made.variables['w_out'], made.variables['b_out']]
    found, expected = ([losses, *map(tf.convert_to_tensor, tf1.gradients(losses, sources, weights))]
                       for losses in (ours, plain))
    for one, other in zip(*run(variables, v, found, expected), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-9, atol=1e-12)


def test_dropout_acts_on_h_and_on_the_tanh(graph):
    made, variables, v = layer(prev2out=False, ctx2out=False)
    v = {name: np.zeros_like(value) for name, value in v.items()}
    v['logits/w_h'], v['logits/w_out'] = np.eye(H, M), np.eye(M, V)
    ones = tf.ones([500, H], tf.float64)
    dropout = Dropout(tf.constant([1, 2]), 0.5, 500)
    found, without = run(variables, v, made(ones, None, None, dropout)[:, :M],
                         made(ones, None, None)[:, :M])
    np.testing.assert_allclose(without, np.tanh(1.0), rtol=1e-6)
    kept = found[found != 0]
    # kept twice; one dropped is enough for 0
    np.testing.assert_allclose(kept, 2 * np.tanh(2.0), rtol=1e-6)
    assert kept.size / found.size == pytest.approx(0.25, abs=0.03)


def test_dropout_of_a_sequence_keeps_its_masks_over_the_steps(graph):
    x, rows = tf.ones([6, 500]), tf.constant([0, 1, 0, 1, 0, 1])
    seed = tf.constant([1, 2])
    kept = Dropout(seed, 0.2, 2, per_sequence=True)(x, 0, rows)
    changing = Dropout(seed, 0.2, 2)(x, 0, rows)
    elsewhere = Dropout(seed, 0.2, 2, per_sequence=True)(x, 1, rows)
    with tf1.Session(config=as_built()) as session:
        kept, changing, elsewhere = session.run((kept, changing, elsewhere))
    np.testing.assert_array_equal(kept[[0, 2]], kept[[2, 4]])
    np.testing.assert_array_equal(kept[[1, 3]], kept[[3, 5]])
    assert (kept[0] != kept[1]).any()
    assert (changing[0] != changing[2]).any()
    assert (kept[0] != elsewhere[0]).any()
    for masked, independent in ((kept[:2], 1000), (changing, 3000)):
        assert set(np.unique(masked)) == {0.0, 1.25}  # what is kept makes up for what is dropped
        assert (masked == 0).mean() == pytest.approx(0.2, abs=4 * (0.2 * 0.8 / independent) ** 0.5)


def test_no_rate_no_dropout(graph):
    x = tf.ones([2, 3])
    assert Dropout(tf.constant([1, 2]), 0.0, 2)(x, 0) is x
