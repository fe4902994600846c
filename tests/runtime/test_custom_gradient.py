"""Operations with gradients of their own: in loops, with several inputs and outputs, in graphs that
are let go.
"""

import gc
import weakref

import numpy as np

from core.runtime.backend import tf, tf1
from core.runtime.custom_gradient import with_gradient
from tests.support.quick_sessions import as_built


def run(tensors):
    with tf1.Session(config=as_built()) as session:
        return session.run(tensors)


def tripled(x):
    """x squared, whose gradient is told to be three times what comes in."""
    return tf.square(x), lambda d: 3 * d


def test_the_gradient_is_the_one_that_is_given(graph):
    x = tf.constant([2.0, 5.0])
    y = with_gradient(tripled, x)
    value, gradient = run([y, *tf1.gradients(y, x, tf.constant([1.0, 10.0]))])
    assert value.tolist() == [4, 25] and gradient.tolist() == [3, 30]


def test_several_inputs_and_outputs_and_none_for_what_has_no_gradient(graph):
    def function(x, y, z):
        return (x + y, x * z), lambda d_sum, d_product: (d_sum + 10 * d_product, None,
                                                         7 * d_product)

    x, y, z = (tf.constant(value) for value in (2.0, 3.0, 4.0))
    total, product = with_gradient(function, x, y, z)
    d_x, d_y, d_z = tf1.gradients([total, product], [x, y, z])
    assert d_y is None
    assert run([total, product, d_x, d_z]) == [5, 8, 11, 7]


def test_variables_are_inputs_too(graph):
    w = tf1.get_variable('w', initializer=3.0, use_resource=True)
    y = with_gradient(tripled, w)
    with tf1.Session(config=as_built()) as session:
        session.run(w.initializer)
        assert session.run(tf1.gradients(y, w)) == [3]


def test_in_the_body_of_a_loop(graph):
    """Three times at each of four steps: 81."""
    x = tf.constant(1.0)
    _, y = tf.while_loop(lambda i, _: i < 4, lambda i, x: (i + 1, with_gradient(tripled, x)),
                         (tf.constant(0), x))
    np.testing.assert_allclose(run(tf1.gradients(y, x)), [81])


def test_a_graph_is_freed_when_nobody_holds_it():
    """As `tf.custom_gradient` would not: it keeps every graph that it was used in."""
    def built():
        with tf.Graph().as_default() as graph:
            x = tf.constant(1.0)
            tf1.gradients(with_gradient(tripled, x), x)
            return weakref.ref(graph)

    graph = built()
    gc.collect()
    assert graph() is None
