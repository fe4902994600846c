"""Variables: first values of every kind and initialiser, names that are shared, what is trained."""

import numpy as np
import pytest

from core.runtime.backend import tf, tf1
from core.runtime.variables import Variables
from tests.support.quick_sessions import as_built


def first_values(initializer, **specs):
    """Name -> value of variables of a scope."""
    tf1.set_random_seed(3)
    made = Variables(tf.float64, initializer).create('some', **specs)
    with tf1.Session(config=as_built()) as session:
        session.run(tf1.global_variables_initializer())
        return session.run(made)


def assert_normal(values, deviation=0.01):
    """Mean and deviation within four standard errors."""
    assert abs(values.mean()) < 4 * deviation / values.size**0.5
    assert values.std() == pytest.approx(deviation, rel=4 / (2 * values.size) ** 0.5)


def assert_orthogonal(matrix):
    np.testing.assert_allclose(matrix @ matrix.T, np.eye(len(matrix)), atol=1e-9)


@pytest.mark.parametrize(('initializer', 'bound'), [('tf1', 1.0), ('keras', 0.05)])
def test_glorot_and_uniform_words(graph, initializer, bound):
    found = first_values(initializer, words=([60, 50], 'words'), **{
        kind: ([40, 80], kind) for kind in ('matrix', 'projection', 'recurrent')})
    assert 0.99 * bound < np.abs(found['words']).max() <= bound
    for kind in ('matrix', 'projection', 'recurrent'):
        limit = (6 / (40 + 80)) ** 0.5
        assert 0.99 * limit < np.abs(found[kind]).max() <= limit and abs(found[kind].mean()) < limit / 20


def test_those_of_the_authors(graph):
    H, n_inputs = 30, 20
    found = first_values('authors', square=([H, H], 'matrix'), oblong=([H, 70], 'matrix'),
                         projection=([H, H], 'projection'), words=([60, 50], 'words'),
                         kernel=([n_inputs + H, 4 * H], 'recurrent'))
    assert_orthogonal(found['square'])
    for name in ('oblong', 'projection', 'words'):  # the projection though it is square
        assert_normal(found[name])
    assert_normal(found['kernel'][:n_inputs])
    for gate in np.split(found['kernel'][n_inputs:], 4, axis=1):
        assert_orthogonal(gate)


@pytest.mark.parametrize('initializer', ['tf1', 'keras', 'authors'])
def test_zeros_and_ones(graph, initializer):
    found = first_values(initializer, b=([3], 'zeros'), gamma=([2], 'ones'))
    assert found['b'].tolist() == [0, 0, 0] and found['gamma'].tolist() == [1, 1] and found['b'].dtype == np.float64


def test_one_name_is_one_variable_and_moving_ones_are_not_trained(graph):
    first, second = Variables(tf.float32), Variables(tf.float32)
    made = [variables.create('norm', gamma=([2], 'ones'), moving_mean=([2], 'zeros'))
            for variables in (first, second)]
    assert [v.op.name for v in tf1.global_variables()] == ['norm/gamma', 'norm/moving_mean']
    assert made[0]['gamma'] is made[1]['gamma'] and first.created == list(made[0].values())
    assert [v.op.name for v in tf1.trainable_variables()] == ['norm/gamma']
