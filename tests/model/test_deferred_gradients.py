"""Deferred gradients equal TensorFlow's own of the loop: loss and every gradient, in float64."""

import gc
import weakref

import numpy as np
import pytest

from core.model import decoder
from core.model.attention_kernels import by_image
from core.runtime.backend import tf, tf1
from tests.support import tiny_model
from tests.support.model_cases import CASES, HARD
from tests.support.tiny_model import L, N, T


def both(model, captions_per_image=1, training=True, more=()):
    """Return loss and gradients of all trained variables and of `more`: deferred, and plain.

    Returns:
        list of names, list of deferred values, list of plain values.
    """
    trained = [variable for variable in model.variables if variable.trainable]
    losses = [model.build_model(training=training, plain=plain) for plain in (False, True)]
    features, captions = tiny_model.batch()
    captions = np.concatenate([np.roll(captions, k, axis=0) for k in range(captions_per_image)])
    fetches = [[loss, *tf1.gradients(loss, [*trained, *more])] for loss in losses]
    assert all(fast is None or slow is not None for fast, slow in zip(*fetches, strict=True))
    fetches = [[tf.zeros([]) if x is None else tf.convert_to_tensor(x) for x in part]
               for part in fetches]
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


@pytest.mark.parametrize(('name', 'jit'), [*((name, False) for name in CASES),
                                           *((name, True) for name in COMPILED)])
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


@pytest.mark.parametrize('options', [
    {},
    {'feature_layer': 9},
    {**HARD, 'attention_activation': 'tanh'},
], ids=['', 'layer', 'hard'])
def test_gradient_of_the_features(graph, options):
    """What fine-tunes an encoder: through projection, contexts, first state and statistics."""
    features = tf.constant(tiny_model.batch()[0].astype(np.float64))
    model = tiny_model.build(dtype=tf.float64, features=features, **options)
    names, fast, slow = both(model, more=[features])
    assert_equal([*names, 'features'], fast, slow)
    assert fast[-1].shape == (N, L, model.D) and np.abs(fast[-1]).max() > 0


# ---- terms that somebody writes into the step, without a thought of how gradients are made

def reads_the_projection(functions, state, step):
    """That of docs/changing_the_model.md: what p says where alpha looks."""
    p = functions.projected()                                                       # (N, L, A)
    return tf.reshape(tf.einsum('ncl,nla->nc', by_image(step.alpha, p), p), [-1])


def reads_the_annotations(functions, state, step):
    a = functions.annotation_vectors()                                              # (N, L, K)
    return tf.reshape(tf.einsum('ncl,nlk->nc', by_image(step.alpha, a), a), [-1])


def reads_the_features(functions, state, step):
    features = functions.weighted_sum.constants[0]                                  # (N, L, K)
    return tf.reshape(tf.einsum('ncl,nlk->nc', by_image(step.alpha, features), features), [-1])


def reads_a_weight(functions, state, step):
    matrix = functions.from_h.constants[0]                                          # (H, S)
    return tf.reduce_sum(tf.sin(state.h @ matrix), axis=1)


def scores_twice(functions, state, step):
    size = functions.scores.constants[1].shape[0]                                   # A
    query = tf.cos(functions.from_h(state.h)[:, -size - 1:-1])
    return tf.reduce_sum(functions.scores(query) * step.alpha, axis=1)


def multiplies_twice(functions, state, step):
    return tf.reduce_sum(tf.tanh(functions.from_context(tf.square(step.context))), axis=1)


@pytest.mark.parametrize('term', [reads_the_projection, reads_the_annotations, reads_the_features,
                                  reads_a_weight, scores_twice, multiplies_twice])
def test_a_term_written_plainly_into_the_step_has_its_right_gradient(graph, monkeypatch, term):
    """It scales the context, so that all gradients pass through it."""
    plain_step = decoder.Decoder.step

    def step(self, functions, state, *arguments):
        after, step = plain_step(self, functions, state, *arguments)
        scale = 1 + 0.3 * tf.tanh(term(functions, state, step))[:, tf.newaxis]
        return after, step._replace(context=step.context * scale)

    monkeypatch.setattr(decoder.Decoder, 'step', step)
    features = tf.constant(tiny_model.batch()[0].astype(np.float64))
    model = tiny_model.build(dtype=tf.float64, features=features, alpha_c=0.7)
    with monkeypatch.context() as patch:
        patch.setattr(decoder.Decoder, 'step', plain_step)
        without = model.build_model()
    names, fast, slow = both(model, captions_per_image=2, more=[features])
    assert_equal([*names, 'features'], fast, slow)
    captions = tiny_model.batch()[1]
    captions = np.concatenate([captions, np.roll(captions, 1, axis=0)])
    with tiny_model.session(model, tiny_model.values(model)) as session:
        loss = session.run(without, {model.captions: captions, model.dropout_seed: (3, 4)})
    assert abs(loss - fast[0]) > 1e-4  # the term is there


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
