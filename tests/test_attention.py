"""Soft attention by itself: eq. 4 to 6 in NumPy, and the limits that its formula promises."""

import numpy as np
import pytest
from tiny import D, H, L, N

from core.attention import SoftAttention
from core.backend import tf, tf1


def attend(weights, features, h, activation='relu'):
    """alpha and context of a float64 SoftAttention with `weights` (w_project, w, b, w_att)."""
    attention = SoftAttention(D, H, activation, tf.float64)
    memory = attention.memory(tf.constant(features))
    outputs = attention.attend(memory, tf.constant(h))
    with tf1.Session() as session:
        session.run(tf1.global_variables_initializer())
        for name, value in weights.items():
            initializer = getattr(attention, name).initializer
            session.run(initializer, {initializer.inputs[1]: value})
        return session.run(outputs)


@pytest.fixture
def inputs():
    random = np.random.default_rng(0)
    weights = {'w_project': random.normal(size=(D, D)), 'w': random.normal(size=(H, D)), 'b': random.normal(size=D),
               'w_att': random.normal(size=(D, 1))}
    return weights, random.normal(size=(N, L, D)), random.normal(size=(N, H))


@pytest.mark.parametrize('activation', ['relu', 'tanh'])
def test_equations(graph, inputs, activation):
    weights, features, h = inputs
    alpha, context = attend(weights, features, h, activation)
    function = np.tanh if activation == 'tanh' else lambda x: np.maximum(x, 0)
    for n in range(N):
        scores = [weights['w_att'][:, 0] @ function(a @ weights['w_project'] + h[n] @ weights['w'] + weights['b'])
                  for a in features[n]]
        expected = np.exp(scores) / np.exp(scores).sum()
        np.testing.assert_allclose(alpha[n], expected, rtol=1e-9)
        np.testing.assert_allclose(context[n], sum(w * a for w, a in zip(expected, features[n], strict=True)),
                                   rtol=1e-9, atol=1e-12)


def test_without_score_attention_is_uniform(graph, inputs):
    weights, features, h = inputs
    alpha, context = attend({**weights, 'w_att': np.zeros((D, 1))}, features, h)
    np.testing.assert_allclose(alpha, 1 / L, rtol=1e-12)
    np.testing.assert_allclose(context, features.mean(axis=1), rtol=1e-9)


def test_locations_are_a_set(graph, inputs):
    weights, features, h = inputs
    order = np.random.default_rng(1).permutation(L)
    alpha, context = attend(weights, features, h)
    shuffled_alpha, shuffled_context = attend(weights, features[:, order], h)
    np.testing.assert_allclose(shuffled_alpha, alpha[:, order], rtol=1e-9)
    np.testing.assert_allclose(shuffled_context, context, rtol=1e-9)


def test_enormous_scores_give_no_nan(graph, inputs):
    weights, features, h = inputs
    alpha, context = attend({**weights, 'w_att': 1e6 * weights['w_att']}, features, h)
    np.testing.assert_allclose(alpha.sum(axis=1), 1)
    assert np.isfinite(context).all()


def test_unknown_activation(graph):
    with pytest.raises(ValueError, match="relu, tanh, not 'gelu'"):
        SoftAttention(D, H, 'gelu')
