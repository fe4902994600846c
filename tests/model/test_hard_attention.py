"""Hard attention (paper 4.1) but for its gradient.

Baseline, given locations, decoding, and the single functions.
"""

import numpy as np
import pytest

from core.model import hard_attention
from core.reference import sample_model
from core.reference.equations import Told
from core.reference.sample_model import L, N, T, exact
from core.runtime.backend import tf, tf1
from tests.support import drawn_gradients, tiny_model
from tests.support.quick_sessions import as_built


def test_the_baseline_is_no_weight():
    for reward, shape in (('sequence', []), ('to_go', [tiny_model.T])):
        with tiny_model.tf_graph():
            model = tiny_model.build(attention='hard', baseline='moving', reward=reward)
            loss = model.build_model()
            assert model.baseline.op.name == 'hard_attention/baseline'
            assert model.baseline.shape.as_list() == shape
            assert all(model.baseline is not variable for variable in model.variables)
            assert all(model.baseline is not variable for variable in tf1.trainable_variables())
            assert any(model.baseline is variable for variable in tf1.global_variables())
            assert tf1.gradients(loss, [model.baseline]) == [None]
    for baseline in ('none', 'self_critical'):
        with tiny_model.tf_graph():
            assert tiny_model.build(attention='hard', baseline=baseline).baseline is None


def test_the_baseline_moves_only_by_drawn_rows_of_training(graph):
    features, captions = tiny_model.batch()
    model = tiny_model.build(attention='hard', baseline='moving', semi_sampling_p=0.0)
    loss, validation = model.build_model(), model.build_model(training=False)
    with tiny_model.session(model) as session:
        session.run(model.baseline.assign(-3.0))
        session.run([loss, validation], {model.features: features, model.captions: captions})
        assert session.run(model.baseline) == -3.0
    with tiny_model.tf_graph():
        model = tiny_model.build(attention='hard', baseline='moving', semi_sampling_p=1.0)
        loss, log_probs = model.build_model(), model.outputs.log_probs
        validation = model.build_model(training=False)
        with tiny_model.session(model) as session:
            session.run(model.baseline.assign(-3.0))
            feed = {model.features: features, model.captions: captions}
            session.run(validation, feed)
            assert session.run(model.baseline) == -3.0
            _, words = session.run([loss, log_probs], feed)
            np.testing.assert_allclose(session.run(model.baseline),
                                       -2.7 + 0.1 * words.sum(axis=1).mean(), rtol=1e-5)


def test_given_locations():
    v, (features, captions) = exact().v, sample_model.batch()
    enumerated = exact(alpha_c=0.5)
    with tf.Graph().as_default():
        model = drawn_gradients.build(alpha_c=0.5, n_samples=3, lambda_e=0.1)
        given = tf1.placeholder(tf.int32, [None, T])
        loss = model.build_model(locations=given)
        with tiny_model.session(model, v) as session:
            for one, other in ((0, 26), (5, 13), (17, 2)):
                feed = {model.features: features, model.captions: captions,
                        given: enumerated.paths[[one, other]]}
                total, nll, alphas = session.run([loss, model.nll, model.outputs.alphas], feed)
                at = Told(*(np.stack([x[0, one], x[1, other]]) for x in enumerated.at))
                np.testing.assert_allclose(nll, at.nll)
                np.testing.assert_allclose(total, at.loss)
                np.testing.assert_allclose(alphas, at.alphas, rtol=1e-9)
    with tf.Graph().as_default(), pytest.raises(ValueError, match='attention=hard'):
        tiny_model.build().build_model(locations=tf.zeros([tiny_model.N, tiny_model.T], tf.int32))


# ---- decoding

@pytest.mark.parametrize('kind', ['expected', 'argmax', 'sample'])
def test_context_while_decoding(kind):
    features, captions = sample_model.batch()
    repeats = 400
    with tf.Graph().as_default():
        model = drawn_gradients.build(decode_context=kind)
        sampler = tiny_model.sampler(model, max_len=T)
        model.build_model(training=False)
        with tiny_model.session(model, exact().v) as session:
            feed = {model.features: np.repeat(features, repeats, axis=0),
                    model.dropout_seed: (1, 2),
                    model.captions: np.repeat(captions, repeats, axis=0)}
            decoded, again = (session.run(sampler, feed) for _ in range(2))
            other = session.run(sampler, {**feed, model.dropout_seed: (5, 2)})
            log_probs = session.run(model.outputs.log_probs, feed).reshape(N, repeats, T)
    np.testing.assert_array_equal(decoded.alphas, again.alphas)
    first = decoded.alphas[:, 0].reshape(N, repeats, L)
    alpha = exact().at.alphas[:, 0, 0]  # before any draw
    if kind == 'expected':
        np.testing.assert_allclose(first, np.broadcast_to(alpha[:, None], first.shape), rtol=1e-9)
        np.testing.assert_allclose(log_probs[:, 0], exact().soft_at.words, rtol=1e-9)
        return
    assert set(np.unique(decoded.alphas)) == {0, 1} and (decoded.alphas.sum(axis=2) == 1).all()
    if kind == 'argmax':
        assert (first.argmax(axis=2) == alpha.argmax(axis=1)[:, None]).all()
        best = [exact().likeliest(k) for k in range(N)]
        np.testing.assert_allclose(log_probs[:, 0], exact().at.words[np.arange(N), best], rtol=1e-9)
    else:
        np.testing.assert_allclose(first.mean(axis=1), alpha, atol=4 * np.sqrt(0.25 / repeats))
        assert (decoded.alphas != other.alphas).any()
        assert len(np.unique(log_probs[0].round(9), axis=0)) > 10


# ---- the pieces of core.model.hard_attention

def run(*tensors):
    with tf1.Session(config=as_built()) as session:
        return session.run(tensors)


def test_rewards(graph):
    log_probs = tf.constant([[-1.0, -2.0, -4.0], [-3.0, -5.0, 0.0]])
    sequence, to_go = run(hard_attention.rewards(log_probs, 'sequence'),
                          hard_attention.rewards(log_probs, 'to_go'))
    np.testing.assert_array_equal(sequence, [[-7] * 3, [-8] * 3])
    np.testing.assert_array_equal(to_go, [[-7, -6, -4], [-8, -5, 0]])


def test_leave_one_out(graph):
    found, = run(hard_attention.leave_one_out(
        tf.constant([[1.0, 2.0], [4.0, 6.0], [7.0, 1.0], [0.0, 0.0], [3.0, 0.0], [6.0, 9.0]]), 3))
    np.testing.assert_array_equal(
        found, [[5.5, 3.5], [4, 1.5], [2.5, 4], [4.5, 4.5], [3, 4.5], [1.5, 0]])


def test_locations_without_weight_are_never_drawn(graph):
    alpha = tf.constant([[0.0, 0.25, 0.0, 0.75, 0.0]] * 5)
    uniform = tf.constant([0.0, 0.2499, 0.25, 0.5, np.nextafter(np.float32(1), np.float32(0))])
    found, = run(hard_attention.locate(alpha, uniform))
    np.testing.assert_array_equal(found, [1, 1, 3, 3, 3])


def test_certain_attention_has_no_entropy_and_finite_gradients(graph):
    scores = tf.constant([[0.0, 0.0], [200.0, -200.0]])
    alpha = tf.nn.softmax(scores)
    entropy = hard_attention.entropies(alpha)
    score = hard_attention.surrogate(alpha[tf.newaxis], tf.constant([[0, 1]]), tf.ones([1, 2]),
                                     tf.ones([1, 2]))
    found, slope, of_score = run(entropy, *tf1.gradients(entropy, scores),
                                 *tf1.gradients(score, scores))
    np.testing.assert_allclose(found, [np.log(2), 0], atol=1e-6)
    assert np.isfinite(slope).all() and np.isfinite(of_score).all()
