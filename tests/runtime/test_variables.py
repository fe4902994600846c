"""Variables: first values of every kind and initialiser, names that are shared, what is trained."""

import numpy as np
import pytest

from core.runtime.backend import tf, tf1
from core.runtime.variables import Variables
from tests.support.quick_sessions import as_built


def first_values(initializer, **specs):
    """Name -> value of variables of a scope."""
    tf1.set_random_seed(3)
    scope = Variables(tf.float64, initializer).create('some', **specs)
    with tf1.Session(config=as_built()) as session:
        session.run(tf1.global_variables_initializer())
        return session.run(scope)


def assert_normal(values, deviation=0.01):
    """Mean and deviation within four standard errors."""
    assert abs(values.mean()) < 4 * deviation / values.size**0.5
    assert values.std() == pytest.approx(deviation, rel=4 / (2 * values.size) ** 0.5)


def assert_orthogonal(matrix):
    np.testing.assert_allclose(matrix @ matrix.T, np.eye(len(matrix)), atol=1e-9)


@pytest.mark.parametrize(('initializer', 'bound'), [('tf1', 1.0), ('keras', 0.05)])
def test_glorot_and_uniform_words(graph, initializer, bound):
    values = first_values(initializer, words=([60, 50], 'words'), **{
        kind: ([40, 80], kind) for kind in ('matrix', 'projection', 'recurrent')})
    assert 0.99 * bound < np.abs(values['words']).max() <= bound
    for kind in ('matrix', 'projection', 'recurrent'):
        limit = (6 / (40 + 80)) ** 0.5
        assert 0.99 * limit < np.abs(values[kind]).max() <= limit
        assert abs(values[kind].mean()) < limit / 20


def test_those_of_the_authors(graph):
    H, n_inputs = 30, 20
    values = first_values('authors', square=([H, H], 'matrix'), oblong=([H, 70], 'matrix'),
                         projection=([H, H], 'projection'), words=([60, 50], 'words'),
                         kernel=([n_inputs + H, 4 * H], 'recurrent'))
    assert_orthogonal(values['square'])
    for name in ('oblong', 'projection', 'words'):  # the projection though it is square
        assert_normal(values[name])
    assert_normal(values['kernel'][:n_inputs])
    for gate in np.split(values['kernel'][n_inputs:], 4, axis=1):
        assert_orthogonal(gate)


@pytest.mark.parametrize('initializer', ['tf1', 'keras', 'authors'])
def test_zeros_and_ones(graph, initializer):
    values = first_values(initializer, b=([3], 'zeros'), gamma=([2], 'ones'))
    assert values['b'].tolist() == [0, 0, 0] and values['gamma'].tolist() == [1, 1]
    assert values['b'].dtype == np.float64


def test_one_name_is_one_variable_and_moving_ones_are_not_trained(graph):
    first, second = Variables(tf.float32), Variables(tf.float32)
    scopes = [variables.create('norm', gamma=([2], 'ones'), moving_mean=([2], 'zeros'))
            for variables in (first, second)]
    assert [v.op.name for v in tf1.global_variables()] == ['norm/gamma', 'norm/moving_mean']
    assert scopes[0]['gamma'] is scopes[1]['gamma'] and first.created == list(scopes[0].values())
    assert [v.op.name for v in tf1.trainable_variables()] == ['norm/gamma']
