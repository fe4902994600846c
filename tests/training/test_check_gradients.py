"""check_gradients: small errors of right models, and wrong gradients are found."""

import pytest

from core.model import attention_kernels, deferred_gradients
from core.runtime.backend import tf
from core.training.check_gradients import check_gradients
from tests.support import tiny_model
from tests.support.model_cases import CASES

KINDS = ['default', 'sentinel', 'gru', 'hard', 'feature layer']


@pytest.mark.parametrize('name', KINDS)
def test_right_models_have_small_errors(graph, name):
    model = tiny_model.build(dtype=tf.float64, **{**CASES[name], 'attention_activation': 'tanh'})
    worst = check_gradients(model)
    assert set(worst) == {v.op.name for v in model.variables if v.trainable}
    assert max(worst.values()) < 1e-5


def test_a_gradient_that_is_forgotten_is_found(graph, monkeypatch):
    """The bias of the product with h, whose deferred gradient somebody leaves out."""
    whole = deferred_gradients.Product.constants_gradients

    def forgetful(self, x, carried):
        d_matrix, d_bias = whole(self, x, carried)
        return d_matrix, 0 * d_bias

    monkeypatch.setattr(deferred_gradients.Product, 'constants_gradients', forgetful)
    worst = check_gradients(tiny_model.build(dtype=tf.float64, attention_activation='tanh'))
    wrong = {name for name, error in worst.items() if error > 1e-5}
    assert {'attention_layer/b', 'selector/b', 'lstm/basic_lstm_cell/bias'} <= wrong
    assert worst['attention_layer/w'] < 1e-5


def test_an_operation_with_a_wrong_gradient_of_its_own_is_found(graph, monkeypatch):
    def half(activation, p, q):
        hidden = tf.tanh(p[:, tf.newaxis] + q[:, :, tf.newaxis])
        return 0.5 * hidden + tf.stop_gradient(0.5 * hidden)

    monkeypatch.setattr(attention_kernels, '_hidden', half)
    worst = check_gradients(tiny_model.build(dtype=tf.float64, attention_activation='tanh'))
    assert worst['project_features/w'] > 1e-2


def test_float32_is_refused(graph):
    with pytest.raises(ValueError, match='float64'):
        check_gradients(tiny_model.build())
