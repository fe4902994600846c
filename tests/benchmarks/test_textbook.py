"""The baselines: the textbook graph, and PyTorch if installed, compute what the project does."""

import importlib.util

import numpy as np
import pytest

from benchmarks.cases import Sizes
from benchmarks.measure import Worker
from benchmarks.textbook import Textbook, until_end
from core.data.vocabulary import END, NULL
from core.reference.equations import teacher_forcing
from core.runtime.backend import tf, tf1
from tests.support import tiny_model

SIZES = Sizes(**{name: getattr(tiny_model, name) for name in 'NLDHMTV'})


def textbook(**options):
    return Textbook(tiny_model.V, **SIZES.model(), **options)


def textbook_session(model, values):
    session = tf1.Session(graph=model.features.graph)
    with model.features.graph.as_default():
        session.run(tf1.global_variables_initializer())
    session.run([variable.initializer for variable in model.variables.values()],
                {variable.initializer.inputs[1]: values[name]
                 for name, variable in model.variables.items()})
    return session


def feeds(model):
    features, captions = tiny_model.batch()
    return {model.features: features, model.captions: captions}


def ours(alpha_c, training=True):
    """Return loss, gradients and moving statistics of CaptionGenerator, and its values."""
    with tiny_model.tf_graph():
        model = tiny_model.build(dropout=False, alpha_c=alpha_c, dtype=tf.float64)
        loss, values = model.build_model(training), tiny_model.values(model)
        trained = [variable for variable in model.variables if variable.trainable]
        gradients = [tf.convert_to_tensor(gradient) for gradient in tf1.gradients(loss, trained)]
        with tiny_model.session(model, values) as session:
            found = session.run((loss, gradients), feeds(model))
            after = tiny_model.fetch(session, model)
    return found[0], dict(zip((v.op.name for v in trained), found[1], strict=True)), after, values


# ---- the textbook graph

def test_the_textbook_has_the_loss_and_every_gradient_of_the_model():
    loss, gradients, after, values = ours(alpha_c=0.7)
    with tiny_model.tf_graph():
        model = textbook(dropout=False, alpha_c=0.7, dtype=tf.float64)
        built = model.build_model()
        sources = [model.variables[name] for name in gradients]
        found = [tf.convert_to_tensor(g) for g in tf1.gradients(built, sources)]
    assert {name: v.shape.as_list() for name, v in model.variables.items()} == {
        name: list(value.shape) for name, value in values.items()}
    with textbook_session(model, values) as session:
        its_loss, its_gradients = session.run((built, found), feeds(model))
        statistics = session.run({name: v for name, v in model.variables.items()
                                  if 'moving' in name})
    np.testing.assert_allclose(its_loss, loss, rtol=1e-12)
    for (name, gradient), other in zip(gradients.items(), its_gradients, strict=True):
        np.testing.assert_allclose(other, gradient, rtol=1e-9, err_msg=name,
                                   atol=1e-12 + 1e-9 * abs(gradient).max())
    for name, value in statistics.items():
        np.testing.assert_allclose(value, after[name], rtol=1e-12, err_msg=name)


def test_the_textbook_writes_the_captions_of_the_sampler():
    with tiny_model.tf_graph():
        model = tiny_model.build(dtype=tf.float64)
        sampled, values = tiny_model.sampler(model, 9), tiny_model.values(model, seed=10)
        with tiny_model.session(model, values) as session:
            alphas, _, captions = session.run(sampled, {model.features: tiny_model.batch()[0]})
    with tiny_model.tf_graph():
        model = textbook(dtype=tf.float64)
        its = model.build_sampler(9)
    with textbook_session(model, values) as session:
        its_alphas, _, its_captions = session.run(its, {model.features: tiny_model.batch()[0]})
    assert [len(until_end(caption)) for caption in captions] == [9, 2, 6]
    for k in range(tiny_model.N):
        assert until_end(its_captions[k]) == until_end(captions[k])
        n = len(until_end(captions[k]))
        np.testing.assert_allclose(its_alphas[k, :n], alphas[k, :n], rtol=1e-9, atol=1e-12)


def test_the_textbook_trains_with_dropout():
    with tiny_model.tf_graph() as graph:
        model = textbook()
        loss = model.build_model()
        train = model.minimize(loss, learning_rate=0.0)
        before = sum('random_uniform' in op.name for op in graph.get_operations())
        initialize = tf1.global_variables_initializer()
    assert before >= 2 * tiny_model.T
    with tf1.Session(graph=graph) as session:
        session.run(initialize)
        losses = {float(session.run((train, loss), feeds(model))[1]) for _ in range(3)}
    assert len(losses) == 3


def test_until_end():
    assert until_end(np.array([5, 4, END, 7])) == [5, 4, END]
    assert until_end([5, 4]) == [5, 4]


# ---- PyTorch

needs_torch = pytest.mark.skipif(importlib.util.find_spec('torch') is None,
                                 reason='the benchmark extra is not installed')


def captioner(values, **options):
    """Return a PyTorch captioner in a process of its own."""
    return Worker('tests.support.torch_worker:Checked', n_words=tiny_model.V, values=values,
                  **SIZES.model(), **options)


@needs_torch
@pytest.mark.parametrize('hoisted', [False, True])
def test_pytorch_has_the_loss_and_every_gradient_of_the_model(hoisted):
    loss, gradients, _, values = ours(alpha_c=0.7)
    with captioner(values, alpha_c=0.7, dropout=0.0, hoist_projection=hoisted) as worker:
        its_loss, its_gradients = worker.call('gradients', *tiny_model.batch())
    for name in ('lstm/basic_lstm_cell/kernel', 'lstm/basic_lstm_cell/bias'):
        i, j, f, o = np.split(gradients[name], 4, axis=-1)
        gradients[name] = np.concatenate([i, f, j, o], axis=-1)
    np.testing.assert_allclose(its_loss, loss, rtol=1e-12)
    assert set(its_gradients) == set(gradients)
    for name, gradient in gradients.items():
        np.testing.assert_allclose(its_gradients[name], gradient, rtol=1e-9, err_msg=name,
                                   atol=1e-12 + 1e-9 * abs(gradient).max())


@needs_torch
@pytest.mark.parametrize('hoisted', [False, True])
def test_pytorch_beam_search_finds_sentences_by_their_log_probabilities(hoisted):
    with tiny_model.tf_graph():
        values = tiny_model.values(tiny_model.build(dtype=tf.float64))
    max_len, image = 3, tiny_model.batch()[0][1]
    # By brute force: every sentence of at most three words, scored by the equations in NumPy.
    real = [word for word in range(tiny_model.V)
            if word not in (NULL, tiny_model.START, tiny_model.UNK)]
    others = [word for word in real if word != END]
    sentences = [[END], *([a, END] for a in others),
                 *([a, b, c] for a in others for b in others for c in real)]
    captions = np.zeros((len(sentences), max_len + 1), np.int32)
    captions[:, 0] = tiny_model.START
    for row, sentence in zip(captions, sentences, strict=True):
        row[1 : len(sentence) + 1] = sentence
    told = teacher_forcing(values, np.repeat(image[np.newaxis], len(sentences), axis=0), captions,
                           training=False)
    scores = [told.log_probs[k, range(len(s)), s].sum() for k, s in enumerate(sentences)]
    best = int(np.argmax(scores))
    with captioner(values, hoist_projection=hoisted) as worker:
        words, score = worker.call('beam', image, len(sentences), max_len)
        assert words == sentences[best]
        np.testing.assert_allclose(score, scores[best], rtol=1e-9)
        words, score = worker.call('beam', image, 2, max_len)
        np.testing.assert_allclose(score, scores[sentences.index(words)], rtol=1e-9)


@needs_torch
def test_pytorch_trains_every_parameter():
    with Worker('tests.support.torch_worker:Trained', sizes=SIZES, lengths=(0, 3, 5, 2)) as worker:
        before = worker.call('parameters')
        assert worker.call('train', 0, 2)['items'] == 2 * tiny_model.N
        assert all((a != b).any() for a, b in zip(before, worker.call('parameters'), strict=True))
        assert worker.call('memory')['peak'] > worker.call('memory')['idle'] > 1e8
