"""The attention's products by themselves: values, and gradients written by hand.

Both against TensorFlow's own.
"""

import functools

import numpy as np
import pytest

from core.model import attention_kernels
from core.model.attention_kernels import (
    BLOCK,
    additive_scores,
    compiled,
    projection_gradient,
    query_gradient,
)
from core.runtime.backend import tf, tf1
from tests.support.quick_sessions import as_built

# images, captions of each, locations, hidden units of the attention, numbers
N, C, L, A, K = 2, 3, 5, 4, 6
ACTIVATIONS = {'relu': tf.nn.relu, 'tanh': tf.tanh}
KINDS = pytest.mark.parametrize(('activation', 'jit'),
                                [('relu', False), ('tanh', False), ('relu', True), ('tanh', True)])


def drawn(*shape, seed=0):
    return tf.constant(np.random.default_rng([seed, *shape]).normal(size=shape))


def plain_scores(activation, p, q, w):
    """Return w . act(p + q) (N, C, L) by broadcasting, with TensorFlow's gradients."""
    hidden = ACTIVATIONS[activation](p[:, tf.newaxis] + q[:, :, tf.newaxis])
    return tf.einsum('ncla,a->ncl', hidden, w)


def assert_equal(found, expected):
    with tf1.Session(config=as_built()) as session:
        found, expected = session.run((found, expected))
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-9, atol=1e-12)


@KINDS
@pytest.mark.parametrize('n_steps', [1, BLOCK, 2 * BLOCK + 1])
def test_scores_and_their_gradients_from_all_steps(graph, activation, jit, n_steps):
    """That of the query in its step; those of p and w afterwards, from what the steps kept."""
    score, step_gradient = (compiled(functools.partial(kernel, activation), jit)
                            for kernel in (additive_scores, query_gradient))
    p, w = drawn(N, L, A), drawn(A)
    queries = [drawn(N, 1, A, seed=t) for t in range(n_steps)]
    # gradients that come from outside
    d_scores = [drawn(N, 1, L, seed=100 + t) for t in range(n_steps)]
    d_queries, shares = zip(*(step_gradient(p, q, w, d)
                              for q, d in zip(queries, d_scores, strict=True)), strict=True)
    stacks = (tf.stack([x[:, 0] for x in steps]) for steps in (queries, d_scores, shares))
    d_p, d_w = projection_gradient(activation, jit, p, w, *stacks)
    plain = [plain_scores(activation, p, q, w) for q in queries]
    assert_equal([*(score(p, q, w) for q in queries), *d_queries, d_p, d_w],
                 [*plain, *tf1.gradients(plain, [*queries, p, w], d_scores)])


@KINDS
def test_scores_of_several_captions_of_an_image(graph, activation, jit):
    p, q, w = drawn(N, L, A), drawn(N, C, A), drawn(A)
    assert_equal([compiled(functools.partial(additive_scores, activation), jit)(p, q, w)],
                 [plain_scores(activation, p, q, w)])


@pytest.mark.parametrize('jit', [False, True])
def test_weighted_sums_and_the_gradient_of_their_weights(graph, jit):
    weights, x, d = drawn(N, C, L), drawn(N, L, K), drawn(N, C, K)
    plain = tf.einsum('ncl,nlk->nck', weights, x)
    assert_equal([compiled(attention_kernels.weighted_sum, jit)(weights, x),
                  compiled(attention_kernels.weighted_sum_gradient, jit)(d, x)],
                 [plain, *tf1.gradients(plain, weights, d)])


@pytest.mark.parametrize('jit', [False, True])
def test_variance_over_images_and_locations(graph, jit):
    x = drawn(N, L, K)
    mean, variance = tf.nn.moments(x, [0, 1])
    assert_equal([compiled(attention_kernels.variance, jit)(x, mean)], [variance])


def test_small_batches_are_not_compiled(graph):
    """With `least`, which of two ways is taken depends on the images of a batch.

    What comes out does not.
    """
    score, w = compiled(functools.partial(additive_scores, 'tanh'), True, least=2), drawn(A)
    for n in (1, 2):
        p, q = drawn(n, L, A), drawn(n, C, A)
        assert_equal([score(p, q, w)], [plain_scores('tanh', p, q, w)])
