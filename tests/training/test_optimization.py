"""What a training step does to the variables, in numbers, on a loss whose gradients are known."""

import types

import numpy as np
import pytest

from core.config.model import ModelConfig
from core.config.training import TrainingConfig
from core.runtime.backend import tf, tf1
from core.training import optimization
from core.training.optimization import Optimization


def options(**values):
    return TrainingConfig(
        **{'update_rule': 'sgd', 'learning_rate': 0.5, 'clip_norm': 0.0, **values})


SHAPES = {'cell/kernel': (2, 3), 'cell/b': (3,), 'gru/bias': (2, 3), 'word_embedding/w': (4, 2),
          'unused/w': (2, 2), 'norm/moving_mean': (3,), 'encoder/conv': (1, 1, 2, 2),
          'encoder/bias': (2,)}
MATRICES = {'cell/kernel', 'word_embedding/w', 'unused/w', 'encoder/conv'}
ENCODER = {'encoder/conv', 'encoder/bias'}
random = np.random.default_rng(0)
START, GRADIENTS = ({name: random.normal(size=shape).astype(np.float32)
                     for name, shape in SHAPES.items()} for _ in range(2))
GRADIENTS['unused/w'][:], GRADIENTS['norm/moving_mean'][:] = 0, 0
GRADIENTS['word_embedding/w'][:2] = 0  # words that do not occur


class Made:
    """A model with a loss that is linear in its variables, and a session.

    With `encoder` it has encoder variables.
    """

    def __init__(self, encoder=False, **values):
        with tf.Graph().as_default() as self.graph:
            made = {name: tf1.get_variable(name, initializer=value, trainable='moving' not in name,
                                           use_resource=True)
                    for name, value in START.items() if encoder or name not in ENCODER}
            self.variables = made
            # 2 twice: its halves add up
            rows = tf.nn.embedding_lookup(made['word_embedding/w'], [2, 3, 2])
            shares = np.array([[0.5], [1], [0.5]], np.float32)
            loss = tf.reduce_sum(rows * (shares * GRADIENTS['word_embedding/w'][[2, 3, 2]]))
            loss += tf.add_n([
                tf.reduce_sum(variable * GRADIENTS[name]) for name, variable in made.items()
                if name not in ('word_embedding/w', 'unused/w', 'norm/moving_mean')])
            moving, before = made['norm/moving_mean'], {}
            # as the model does it: the loss moves a statistic
            if values.get('precision') == 'float16':
                before = {moving.ref(): moving.read_value()}
                with tf.control_dependencies(list(before.values())):
                    moved = moving.assign_add(tf.ones([3]), read_value=False)
                with tf.control_dependencies([moved]):
                    loss = tf.identity(loss)
            model = types.SimpleNamespace(
                variables=[v for name, v in made.items() if name not in ENCODER],
                embedding=made['word_embedding/w'], annealed={}, outputs=(loss, ()),
                options=ModelConfig(), before=before, encoder=None)
            if encoder:
                model.encoder = types.SimpleNamespace(trained=[made[name] for name in ENCODER])
            self.options = options(**values)
            self.optimization = Optimization(model, loss, self.options, 3)
            self.session = tf1.Session()
            self.session.run(tf1.global_variables_initializer())
            self.slots = sorted(v.op.name for v in tf1.global_variables() if v.op.name not in made)
        if self.optimization.averages:
            self.optimization.averages.begin(self.session)

    def step(self, number=0, fetch=()):
        return self.session.run([self.optimization.train_op, fetch],
                                self.optimization.feeds(number))[1]

    def values(self):
        return {name: self.session.run(variable) for name, variable in self.variables.items()}

    def __enter__(self):
        return self

    def __exit__(self, *unused):
        self.session.close()


def assert_values(found, expected, **tolerance):
    for name, value in found.items():
        np.testing.assert_allclose(value, expected[name], err_msg=name,
                                   **{'rtol': 1e-5, 'atol': 1e-6, **tolerance})


def norm_of(names):
    return np.sqrt(sum((GRADIENTS[name]**2).sum() for name in names))


@pytest.mark.parametrize('encoder', [False, True])
@pytest.mark.parametrize('clip', [0.0, 0.7])
def test_gradient_step_with_weight_decay_clipping_and_an_encoder(encoder, clip):
    with Made(encoder, weight_decay=0.1, clip_norm=clip, finetune_rate=0.2) as made:
        norm = made.step(fetch=made.optimization.gradient_norm)
        found = made.values()
    assert norm == pytest.approx(norm_of(found), rel=1e-5)
    scale = clip / norm if clip else 1.0
    expected = {}
    for name, value in START.items():
        rate = 0.5 * 0.2 if name in ENCODER else 0.5
        decay = 0.1 if name in MATRICES else 0.0
        expected[name] = value - rate * (scale * GRADIENTS[name] + decay * value)
    assert_values(found, expected)
    np.testing.assert_array_equal(found['norm/moving_mean'], START['norm/moving_mean'])


# What two steps along the same gradient g take away, in units of the rate, by hand.
TWO_STEPS = {
    'sgd': lambda g: 2 * g,
    'momentum': lambda g: g + (0.7 * g + g),  # the velocity is g, then 0.7 g + g
    # The mean square is 1 at first, then 0.9 of itself and 0.1 of the square of the gradient.
    'rmsprop': lambda g: g / np.sqrt(0.9 + 0.1 * g**2) + g / np.sqrt(0.81 + 0.19 * g**2),
    # Both moments, their bias undone, are those of the one gradient there was
    'adam': lambda g: 2 * np.sign(g),
}


@pytest.mark.parametrize('rule', TWO_STEPS)
def test_what_two_steps_of_every_update_rule_do(rule):
    with Made(update_rule=rule, momentum=0.7, learning_rate=0.01) as made:
        made.step(0)
        made.step(1)
        found = made.values()
    for name in ('cell/kernel', 'cell/b', 'gru/bias'):
        expected = START[name] - 0.01 * TWO_STEPS[rule](GRADIENTS[name].astype(np.float64))
        np.testing.assert_allclose(found[name], expected, rtol=1e-5, atol=1e-6, err_msg=name)


def test_weight_decay_is_apart_from_the_gradient():
    """Under Adam the first step is the rate with the gradient's sign.

    Decay in the gradient would change nothing.
    """
    with Made(encoder=True, update_rule='adam', weight_decay=0.1, finetune_rate=0.2) as made:
        made.step()
        found = made.values()
    for name, value in found.items():
        rate = 0.5 * 0.2 if name in ENCODER else 0.5
        decay = 0.1 if name in MATRICES else 0.0
        expected = START[name] - rate * (np.sign(GRADIENTS[name]) + decay * START[name])
        np.testing.assert_allclose(value, expected, rtol=1e-3, atol=1e-4, err_msg=name)


@pytest.mark.parametrize('rule', ['adam', 'rmsprop', 'momentum', 'sgd'])
def test_word_vectors_that_are_not_trained_stay(rule):
    with Made(update_rule=rule, train_embedding=False, weight_decay=0.1,
              weight_averaging=0.9) as made:
        norm = made.step(fetch=made.optimization.gradient_norm)
        found = made.values()
        assert not any('word_embedding' in name for name in made.slots)
        assert norm == pytest.approx(norm_of(set(found) - {'word_embedding/w'}), rel=1e-5)
    np.testing.assert_array_equal(found['word_embedding/w'], START['word_embedding/w'])
    assert np.abs(found['cell/b'] - START['cell/b']).min() > 1e-4


@pytest.mark.parametrize('rule', ['adam', 'rmsprop', 'momentum', 'sgd'])
def test_a_variable_that_the_loss_does_not_reach_stays(rule):
    with Made(update_rule=rule) as made:
        made.step()
        np.testing.assert_array_equal(made.values()['unused/w'], START['unused/w'])


def test_an_encoder_leaves_the_names_of_the_optimizer_alone():
    with Made(update_rule='adam') as plain, Made(encoder=True, update_rule='adam') as tuned:
        assert set(plain.slots) < set(tuned.slots)
        assert {'beta1_power', 'cell/kernel/Adam'} <= set(plain.slots)
        assert {'encoder/conv/Adam', 'encoder/conv/Adam_1'} <= set(tuned.slots) - set(plain.slots)


def test_the_rate_follows_the_step():
    with Made(warmup_steps=4) as made:
        before = made.values()['cell/b']
        for step in range(3):
            made.step(step)
            after = made.values()['cell/b']
            np.testing.assert_allclose(after - before, -0.5 * (step + 1) / 4 * GRADIENTS['cell/b'],
                                       rtol=1e-4)
            before = after


def test_averages():
    trained = set(SHAPES) - {'norm/moving_mean'}
    with Made(encoder=True, weight_averaging=0.3, finetune_rate=0.2) as made:
        averages, expected = made.optimization.averages, dict(START)
        for step in range(6):
            made.step(step)
            raw, decay = made.values(), min(0.3, (1 + step) / (10 + step))
            expected = {name: decay * expected[name] + (1 - decay) * raw[name] for name in trained}
        raw = made.values()
        with averages.used(made.session):
            used = made.values()
        assert_values({name: used[name] for name in trained}, expected)
        np.testing.assert_array_equal(used['norm/moving_mean'], START['norm/moving_mean'])
        assert np.abs(used['cell/b'] - raw['cell/b']).min() > 1e-3
        for name, value in made.values().items():
            np.testing.assert_array_equal(value, raw[name])
        with pytest.raises(KeyboardInterrupt), averages.used(made.session):
            raise KeyboardInterrupt
        for name, value in made.values().items():
            np.testing.assert_array_equal(value, raw[name])
        assert 'weight_averaging/encoder/conv' in made.slots
        assert 'weight_averaging/norm/moving_mean' not in made.slots


def test_averages_do_not_change_training():
    with (Made(update_rule='adam', weight_averaging=0.9) as averaged,
          Made(update_rule='adam') as plain):
        for step in range(3):
            averaged.step(step)
            plain.step(step)
        for name, value in averaged.values().items():
            np.testing.assert_array_equal(value, plain.values()[name])


@pytest.mark.parametrize('name', ['cell/kernel', 'encoder/conv'])
def test_health(name):
    with Made(encoder=True) as made:
        assert made.session.run(made.optimization.healthy)
        initializer = made.variables[name].initializer
        made.session.run(initializer, {initializer.inputs[1]: np.full(SHAPES[name], np.nan)})
        assert not made.session.run(made.optimization.healthy)


# ---- float16

FULL = {'precision': 'float16', 'weight_decay': 0.1, 'weight_averaging': 0.9, 'clip_norm': 0.7}


def set_factor(made, value):
    initializer = made.optimization.loss_scale._scale.initializer
    made.session.run(initializer, {initializer.inputs[1]: value})


def everything(made):
    """Return all variables by name, the optimizer's too."""
    with made.graph.as_default():
        variables = tf1.global_variables()
    values = made.session.run(variables)
    return {v.op.name: value for v, value in zip(variables, values, strict=True)}


def test_a_scale_that_fits_changes_nothing():
    """Powers of two are exact.

    The variables are those of the same training without a scale, bit for bit.
    """
    for rule in ('adam', 'rmsprop'):
        values = {**FULL, 'update_rule': rule, 'encoder': True}
        with Made(**values) as scaled, Made(**{**values, 'precision': 'float32'}) as plain:
            for step in range(3):
                norms = [made.step(step, made.optimization.gradient_norm)
                         for made in (scaled, plain)]
                assert norms[0] == norms[1]
            found, expected = everything(scaled), everything(plain)
        assert {'loss_scale/factor', 'loss_scale/good_steps'} == found.keys() - expected.keys()
        assert found.pop('loss_scale/factor') == 2.0**15 and found.pop('loss_scale/good_steps') == 3
        moved = found.pop('norm/moving_mean')  # by the loss itself
        np.testing.assert_allclose(moved, START['norm/moving_mean'] + 3, rtol=1e-6)
        for name, value in found.items():
            np.testing.assert_array_equal(value, expected[name], err_msg=name)


@pytest.mark.parametrize('rule', ['adam', 'rmsprop', 'momentum', 'sgd'])
def test_an_overflow_is_skipped_and_halves_the_scale(rule):
    with Made(encoder=True, update_rule=rule, **FULL) as made:
        made.step()
        set_factor(made, 2.0**127)
        before = everything(made)
        norm, factor = made.step(1, [made.optimization.gradient_norm,
                                     made.optimization.loss_scale.value])
        after = everything(made)
        assert not np.isfinite(norm) and factor == 2.0**127
        assert [part.pop('loss_scale/factor') for part in (before, after)] == [2.0**127, 2.0**126]
        assert [part.pop('loss_scale/good_steps') for part in (before, after)] == [1, 0]
        assert after.keys() == before.keys()
        for name, value in after.items():
            np.testing.assert_array_equal(value, before[name], err_msg=name)
        set_factor(made, 1.0)
        made.step(2)
        assert not any(np.array_equal(value, before[name])
                       for name, value in everything(made).items()
                       if name in before and 'unused' not in name)


def test_the_scale_grows_after_so_many_good_steps_in_a_row(monkeypatch):
    assert (optimization.FIRST_SCALE, optimization.GROWTH_STEPS) == (2.0**15, 2000)
    monkeypatch.setattr(optimization, 'GROWTH_STEPS', 3)
    with Made(encoder=True, **FULL) as made:
        scale = made.optimization.loss_scale

        def run(n):
            for _ in range(n):
                made.step()
            return tuple(made.session.run([scale._scale, scale._good]))

        assert [run(1) for _ in range(4)] == [(2.0**15, 1), (2.0**15, 2), (2.0**16, 0),
                                              (2.0**16, 1)]
        set_factor(made, 2.0**127)
        assert run(1) == (2.0**126, 0)  # the count begins anew
        set_factor(made, 2.0**10)
        assert run(2) == (2.0**10, 2) and run(1) == (2.0**11, 0)


@pytest.mark.parametrize(('nll', 'norm', 'scale', 'expected'), [
    (1.0, 1.0, None, False),
    (1.0, np.nan, None, True),
    (np.inf, 1.0, None, True),
    (1.0, np.inf, 2.0**15, False),
    (1.0, np.nan, 4.0, False),
    (1.0, np.nan, 2.0, True),
    (1.0, np.nan, 1.0, True),
    (np.nan, 1.0, 2.0**15, True),
    (1.0, 1.0, 1.0, False),
])
def test_what_counts_as_diverged(nll, norm, scale, expected):
    assert optimization.diverged(nll, norm, scale) == expected
