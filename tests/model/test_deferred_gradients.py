"""The fast training graph equals tests/support/reference_graph.py: loss and every gradient, in
float64.
"""

import gc
import weakref

import numpy as np
import pytest

from core.runtime.backend import tf, tf1
from tests.support import reference_graph, tiny_model
from tests.support.model_cases import CASES, HARD
from tests.support.tiny_model import D, L, N, T


def both(model, captions_per_image=1, training=True, more=()):
    """Loss and gradients of all trained variables and of `more`: of the fast graph and of the plain
    one.

    Returns:
        list of names, list of fast values, list of plain values.
    """
    trained = [variable for variable in model.variables if variable.trainable]
    losses = model.build_model(training=training), reference_graph.build(model, training)[0]
    features, captions = tiny_model.batch()
    captions = np.concatenate([np.roll(captions, k, axis=0) for k in range(captions_per_image)])
    fetches = [[loss, *[g if g is None else tf.convert_to_tensor(g)
                        for g in tf1.gradients(loss, [*trained, *more])]] for loss in losses]
    assert all(fast is None or slow is not None for fast, slow in zip(*fetches, strict=True))
    fetches = [[tf.zeros([]) if x is None else x for x in part] for part in fetches]
    feeds = {model.captions: captions, model.dropout_seed: (3, 4)}
    if not more:
        feeds[model.features] = features
    with tiny_model.session(model, tiny_model.values(model)) as session:
        # Apart, as evaluating a loss moves the baseline of hard attention.
        found = []
        for part in fetches:
            tiny_model.assign(session, model, tiny_model.values(model))
            if model.baseline is not None:
                session.run(model.baseline.initializer)
            found.append(session.run(part, feeds))
    return ['loss'] + [variable.op.name for variable in trained], *found


def assert_equal(names, fast, slow):
    scale = max(np.abs(value).max() for value in slow[1:])
    for name, a, b in zip(names, fast, slow, strict=False):
        # A gradient that is zero but for rounding is small beside all others.
        assert np.abs(a - b).max() <= 1e-9 * max(np.abs(b).max(), 1e-4 * scale), name
    assert scale > 1e-3


COMPILED = ['default', 'narrow attention', 'hard, samples']


@pytest.mark.parametrize(('name', 'jit'), [(name, False) for name in CASES]
                         + [(name, True) for name in COMPILED])
def test_loss_and_every_gradient(graph, name, jit):
    options = CASES[name]
    names, fast, slow = both(tiny_model.build(dtype=tf.float64, jit=jit, **options))
    assert_equal(names, fast, slow)
    reached = {name for name, value in zip(names, fast, strict=True) if np.abs(value).max() > 0}
    unused = {'gru/recurrent_kernel'} if options.get('carry_state') is False else set()
    assert set(names) - reached <= {'attention_layer/b_att'} | unused


@pytest.mark.parametrize('options', [{}, {'attention_activation': 'tanh', 'n_samples': 2, **HARD}],
                         ids=['', 'hard'])
def test_several_captions_of_an_image(graph, options):
    assert_equal(*both(tiny_model.build(dtype=tf.float64, **options), captions_per_image=3))


def test_without_dropout_and_draws(graph):
    model = tiny_model.build(dtype=tf.float64, attention='hard', batch_norm=False)
    assert_equal(*both(model, training=False))


@pytest.mark.parametrize(
    'options', [{}, {'feature_layer': 9}, {**HARD, 'attention_activation': 'tanh'}],
    ids=['', 'layer', 'hard'])
def test_gradient_of_the_features(graph, options):
    """What fine-tunes an encoder: through projection, contexts, first state and the statistics of
    the batch.
    """
    features = tf.constant(tiny_model.batch()[0].astype(np.float64))
    model = tiny_model.build(dtype=tf.float64, features=features, **options)
    names, fast, slow = both(model, more=[features])
    assert_equal([*names, 'features'], fast, slow)
    assert fast[-1].shape == (N, L, D) and np.abs(fast[-1]).max() > 0


def test_a_batch_of_shorter_captions_has_fewer_steps(graph):
    """The loop ends with the longest caption of the batch."""
    model = tiny_model.build(dtype=tf.float64)
    model.build_model()
    features, captions = tiny_model.batch()
    with tiny_model.session(model) as session:
        for longest in range(1, T + 1):
            short = captions.copy()
            short[:, longest + 1:] = 0
            alphas = session.run(model.outputs.alphas,
                                 {model.features: features, model.captions: short})
            assert alphas.shape[1] == longest


@pytest.mark.parametrize('jit', [False, True], ids=['', 'jit'])
def test_a_graph_is_freed_when_nobody_holds_it(jit):
    """As `tf.custom_gradient` would not: it keeps every graph that it was used in."""
    def built():
        with tf.Graph().as_default():
            model = tiny_model.build(jit=jit)
            tf1.gradients(model.build_model(), model.embedding)
            return weakref.ref(model)

    model = built()
    gc.collect()
    assert model() is None
