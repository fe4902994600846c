"""Soft attention by itself: eq. 4 to 6 in NumPy, and the limits that its formula promises."""

import numpy as np
import pytest

from core.config.model import ModelConfig
from core.model.attention import Annotations, Attention
from core.model.attention_kernels import Scores, WeightedSum
from core.runtime.backend import tf, tf1
from core.runtime.variables import Variables
from tests.support.tiny_model import D, H, L, N


def attend(weights, features, h, temperature=1.0, scale=None, shift=None, jit=False, **options):
    """Return alpha (R, L) and expected context (R, K) of an Attention in float64.

    `weights` are the values of its variables by name.
    """
    variables = Variables(tf.float64)
    attention = Attention(variables, D, H, ModelConfig(**options), temperature)
    annotations = Annotations(tf.constant(features), scale, shift)
    projected = attention.project(annotations)
    w, b = attention.query_weights(projected)
    scores = Scores(projected.annotations, attention.w_att(), attention.activation, jit)
    alpha = attention.alpha(scores(tf.matmul(tf.constant(h), w) + b))
    summed = WeightedSum(annotations.features, tf.float64, jit)(alpha)
    outputs = alpha, annotations.affine(summed)
    with tf1.Session() as session:
        assert {variable.op.name for variable in variables.created} == set(weights)
        for variable in variables.created:
            session.run(variable.initializer,
                        {variable.initializer.inputs[1]: weights[variable.op.name]})
        return session.run(outputs)


@pytest.fixture
def inputs():
    random = np.random.default_rng(0)
    weights = {'project_features/w': random.normal(size=(D, D)),
               'attention_layer/w': random.normal(size=(H, D)),
               'attention_layer/b': random.normal(size=D),
               'attention_layer/w_att': random.normal(size=(D, 1))}
    return weights, random.normal(size=(N, L, D)), random.normal(size=(N, H))


@pytest.mark.parametrize('jit', [False, True])
@pytest.mark.parametrize('activation', ['relu', 'tanh'])
def test_equations(graph, inputs, activation, jit):
    weights, features, h = inputs
    alpha, context = attend(weights, features, h, jit=jit, attention_activation=activation)
    function = np.tanh if activation == 'tanh' else lambda x: np.maximum(x, 0)
    for n in range(N):
        query = h[n] @ weights['attention_layer/w'] + weights['attention_layer/b']
        w_att = weights['attention_layer/w_att'][:, 0]
        scores = [w_att @ function(a @ weights['project_features/w'] + query)
                  for a in features[n]]
        expected = np.exp(scores) / np.exp(scores).sum()
        np.testing.assert_allclose(alpha[n], expected, rtol=1e-9)
        np.testing.assert_allclose(context[n],
                                   sum(w * a for w, a in zip(expected, features[n], strict=True)),
                                   rtol=1e-9, atol=1e-12)


def test_without_score_attention_is_uniform(graph, inputs):
    weights, features, h = inputs
    alpha, context = attend({**weights, 'attention_layer/w_att': np.zeros((D, 1))}, features, h)
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
    alpha, context = attend(
        {**weights, 'attention_layer/w_att': 1e6 * weights['attention_layer/w_att']}, features, h)
    np.testing.assert_allclose(alpha.sum(axis=1), 1)
    assert np.isfinite(context).all()


def test_two_layers_biases_size_and_temperature(graph, inputs):
    """The authors' form: another width, biases in both places.

    A tanh layer is over the projected features.
    """
    _, features, h = inputs
    A, random = 4, np.random.default_rng(2)
    shapes = {'project_features/w': (D, A), 'project_features/b': A,
              'project_features/w_1': (A, A), 'project_features/b_1': A,
              'attention_layer/w': (H, A), 'attention_layer/b': A,
              'attention_layer/w_att': (A, 1), 'attention_layer/b_att': 1}
    w = {name: random.normal(size=shape) for name, shape in shapes.items()}
    alpha, _ = attend(w, features, h, temperature=2.5, attention_activation='tanh',
                      attention_size=A, attention_layers=2, attention_bias='both', score_bias=True)
    p = features @ w['project_features/w'] + w['project_features/b']
    p = np.tanh(p @ w['project_features/w_1'] + w['project_features/b_1'])
    query = h @ w['attention_layer/w'] + w['attention_layer/b']
    scores = (np.tanh(p + query[:, None]) @ w['attention_layer/w_att'])[..., 0]
    scores = scores + w['attention_layer/b_att']
    expected = np.exp(scores / 2.5)
    np.testing.assert_allclose(alpha, expected / expected.sum(axis=1, keepdims=True), rtol=1e-9)


def test_captions_of_one_image_share_its_features(graph, inputs):
    """Rows n C to n C + C - 1 attend to image n."""
    weights, features, _ = inputs
    h = np.random.default_rng(4).normal(size=(2 * N, H))
    alpha, context = attend(weights, features, h)
    for row in range(2 * N):
        with tf.Graph().as_default():
            alone = attend(weights, features[row // 2 : row // 2 + 1], h[row : row + 1])
        np.testing.assert_allclose(alpha[row], alone[0][0], rtol=1e-9)
        np.testing.assert_allclose(context[row], alone[1][0], rtol=1e-9)
