"""The training graph's options: what each changes in the loss."""

import numpy as np
import pytest

from core.model.caption_generator import CaptionGenerator
from core.reference.equations import teacher_forcing
from core.runtime.backend import tf, tf1
from tests.support import tiny_model
from tests.support.model_cases import PAPER, TF2, sized
from tests.support.tiny_model import END, NULL, START, UNK, D, H, L, M, N, T, V


def outputs(model, assigned, features=None, captions=None, feeds=(), fetch=None, **build):
    """Return the TrainingOutputs (or `fetch`) of one batch."""
    if model.outputs is None:
        model.build_model(**build)
    own = tiny_model.batch()
    feeds = {model.features: own[0] if features is None else features,
             model.captions: own[1] if captions is None else captions, **dict(feeds)}
    with tiny_model.session(model, assigned) as session:
        return session.run(model.outputs if fetch is None else fetch, feeds)


def test_label_smoothing(graph):
    """(1 - e) cross entropy + e the mean cross entropy over all words; nll stays the plain one."""
    plain = tiny_model.build(dropout=False, dtype=tf.float64)
    assigned = tiny_model.values(plain)
    expected = teacher_forcing(assigned, *tiny_model.batch())
    real = tiny_model.batch()[1][:, 1:] != NULL
    even = -expected.log_probs.mean(axis=2)[real].sum() / N
    model = tiny_model.build(dropout=False, dtype=tf.float64, label_smoothing=0.3)
    loss = model.build_model()
    found_loss, found_nll = outputs(model, assigned, fetch=(loss, model.nll))
    assert found_nll == pytest.approx(expected.nll, rel=1e-9)
    assert found_loss == pytest.approx(0.7 * expected.nll + 0.3 * even, rel=1e-9)
    evaluated = model.build_model(training=False)
    assert outputs(model, assigned, fetch=evaluated) == pytest.approx(
        teacher_forcing(assigned, *tiny_model.batch(), training=False).nll, rel=1e-9)


@pytest.mark.parametrize('place', [UNK, 5])
def test_word_dropout_replaces_the_share_asked_for_and_never_start(graph, place):
    """Of the caption `a <END>` only the input `a` can be replaced.

    So its loss has exactly two values. By <UNK>, wherever that stands in the vocabulary.
    """
    words = [word for word in tiny_model.WORDS if word != '<UNK>']
    words.insert(place, '<UNK>')
    words = {word: index for index, word in enumerate(words)}
    options = {'dropout': False, 'dtype': tf.float64, 'batch_norm': False, 'jit': False}
    model, plain = (CaptionGenerator(words, (L, D), M, H, T, word_dropout=share, **options)
                    for share in (0.3, 0.0))
    assigned = tiny_model.values(model)
    one, n = tiny_model.batch()[0][:1], 2000
    a, end = words['a'], words['<END>']
    found = outputs(model, assigned, np.repeat(one, n, axis=0),
                    np.repeat([[START, a, end, NULL, NULL]], n, axis=0))
    both = np.array([[START, a, end, NULL, NULL], [START, place, end, NULL, NULL]])
    told = outputs(plain, assigned, np.repeat(one, 2, axis=0), both).log_probs
    first, second = found.log_probs[:, 0], found.log_probs[:, 1]
    np.testing.assert_allclose(first, told[0, 0], rtol=1e-12)
    kept, replaced = (np.isclose(second, log_prob, rtol=1e-9) for log_prob in told[:, 1])
    assert (kept != replaced).all()  # each is one of the two, and the two differ
    assert replaced.mean() == pytest.approx(0.3, abs=0.04)  # four standard errors


def test_word_dropout_needs_the_unknown_word(graph):
    with pytest.raises(ValueError, match='<UNK>'):
        CaptionGenerator({'<NULL>': 0, '<START>': 1, '<END>': 2, 'a': 3}, (L, 7), word_dropout=0.1)


def test_scheduled_sampling_feeds_the_models_own_words(graph):
    """A model that is sure of word 7 sees 7 in the place of every true input but <START>."""
    model = tiny_model.build(dropout=False, dtype=tf.float64, scheduled_sampling=1.0)
    model.build_model()
    assigned = tiny_model.values(model)
    assigned['logits/b_out'][7] += 60.0
    features, captions = tiny_model.batch()
    own = captions.copy()
    own[:, 1:][captions[:, 1:] != NULL] = 7
    expected = teacher_forcing(assigned, features, own).log_probs
    targets = captions[:, 1:]
    found = outputs(model, assigned)
    for n, t in zip(*np.nonzero(targets), strict=True):
        assert found.log_probs[n, t] == pytest.approx(expected[n, t, targets[n, t]], rel=1e-9)
    off = outputs(model, assigned, feeds={model.annealed['scheduled_sampling']: 0.0})
    assert off.nll == pytest.approx(teacher_forcing(assigned, features, captions).nll, rel=1e-9)
    assert abs(off.nll - found.nll) > 1e-3


def test_scheduled_sampling_mixes_by_row_and_draws_from_the_distribution(graph):
    model = tiny_model.build(dropout=False, dtype=tf.float64, scheduled_sampling=0.4,
                             batch_norm=False)
    assigned = tiny_model.values(model)
    n = 3000
    features, captions = tiny_model.batch()[0][:1], np.array([[START, 4, END, NULL, NULL]])
    found = outputs(model, assigned, np.repeat(features, n, axis=0), np.repeat(captions, n, axis=0))
    plain = tiny_model.build(dropout=False, dtype=tf.float64, batch_norm=False)
    loss = plain.build_model()
    expected = {}
    with tiny_model.session(plain, assigned) as session:
        begin = plain.decoding()
        first = begin.step(begin.images, begin.start, begin.state).log_probs
        probabilities = np.exp(session.run(first, {plain.features: features}))[0]
        for word in range(V):
            feeds = {plain.features: features,
                     plain.captions: np.array([[START, word, END, NULL, NULL]])}
            _, told = session.run((loss, plain.outputs), feeds)
            if word != NULL:
                expected[told.log_probs[0, 1].round(9)] = word
    values, counts = np.unique(found.log_probs[:, 1].round(9), return_counts=True)
    seen = {expected[value]: count / n for value, count in zip(values, counts, strict=True)
            if value in expected}
    # <NULL>, <START> and <UNK> are never written, nor fed
    written = probabilities[[END, *range(4, V)]].sum()
    for word in range(1, V):
        share = 0.4 * probabilities[word] / written * (word not in (START, UNK))
        share += 0.6 if word == 4 else 0
        assert seen.get(word, 0) == pytest.approx(share, abs=4 * (share / n)**0.5 + 2e-3), word


@pytest.mark.parametrize('kind', ['sequence', 'step'])
def test_dropout_masks_of_a_sequence_repeat_at_every_step(graph, kind):
    """An output that state, context and word cannot change.

    So equal words differ by their masks alone.
    """
    model = tiny_model.build(dropout_mask=kind, dtype=tf.float64, prev2out=False, ctx2out=False)
    assigned = tiny_model.values(model)
    assigned['logits/w_h'] = np.zeros_like(assigned['logits/w_h'])
    captions = np.full((N, T + 1), 7)
    captions[:, 0] = START
    model.build_model()
    with tiny_model.session(model, assigned) as session:
        one, again, other = (session.run(model.outputs.log_probs,
                                         {model.features: tiny_model.batch()[0],
                                          model.captions: captions, model.dropout_seed: seed})
                             for seed in ((1, 2), (1, 2), (1, 3)))
    np.testing.assert_array_equal(one, again)
    # each caption has masks of its own
    assert (one != other).any() and len(np.unique(one[:, 0].round(9))) == N
    if kind == 'sequence':
        np.testing.assert_allclose(one, np.repeat(one[:, :1], T, axis=1), rtol=1e-12)
    else:
        assert len(np.unique(one.round(9))) > N


@pytest.mark.parametrize(('options', 'target', 'divisor'), [
    ({'regularizer_target': 'one'}, 1, N),
    ({}, T / L, N),
    ({'regularizer_reduction': 'locations'}, T / L, L),
])
def test_targets_and_reductions_of_the_regularizer(graph, options, target, divisor):
    model = tiny_model.build(dropout=False, dtype=tf.float64, alpha_c=0.7, **options)
    found = outputs(model, tiny_model.values(model))
    totals = (found.alphas * found.mask[:, :, None]).sum(axis=1)
    assert found.regularizer == pytest.approx(0.7 * ((target - totals)**2).sum() / divisor,
                                              rel=1e-9)


@pytest.mark.parametrize('options', [
    {},
    sized(PAPER, dropout=False),
    sized(TF2),
    {'attention': 'hard', 'semi_sampling_p': 0.0, 'dropout': False},
], ids=['tf1', 'paper', 'tf2', 'hard'])
def test_captions_of_one_image_share_its_projection(graph, options):
    """Features given once for two captions each, against features repeated.

    Loss and gradients are the same.
    """
    model = tiny_model.build(dtype=tf.float64, **{'dropout': False, **options})
    loss = model.build_model()
    trained = [v for v in model.variables if v.trainable]
    gradients = tf1.gradients(loss, trained, unconnected_gradients=tf.UnconnectedGradients.ZERO)
    fetch = [loss, model.outputs.alphas] + [tf.convert_to_tensor(g) for g in gradients]
    captions = np.concatenate([tiny_model.batch()[1], tiny_model.batch()[1][::-1]])
    assigned = tiny_model.values(model)
    once = outputs(model, assigned, captions=captions, fetch=fetch)
    twice = outputs(model, assigned, np.repeat(tiny_model.batch()[0], 2, axis=0), captions,
                    fetch=fetch)
    for a, b in zip(once, twice, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-8, atol=1e-12)


@pytest.mark.parametrize('options', [
    sized(TF2, carry_state=True),
    sized(PAPER, output_layers=2, initial_state='linear'),
    {'initial_state': 'relu', 'cell': 'gru'},
], ids=['tf2', 'deep', 'gru'])
def test_gradient_reaches_every_variable(graph, options):
    """Of what is not among the cases of test_deferred_gradients, which sees to it too."""
    model = tiny_model.build(**{'dropout': False, **options})
    # the softmax cancels it
    variables = [v for v in tf1.trainable_variables() if not v.op.name.endswith('b_att')]
    gradients = [tf.convert_to_tensor(g) for g in tf1.gradients(model.build_model(), variables)]
    found = outputs(model, tiny_model.values(model), fetch=gradients)
    for variable, gradient in zip(variables, found, strict=True):
        assert np.abs(gradient).max() > 0, variable.op.name


def test_first_word_zero_leaves_start_out(graph):
    model = tiny_model.build(dropout=False, dtype=tf.float64, first_word='zero')
    assigned = tiny_model.values(model)
    zeroed = {**assigned, 'word_embedding/w': assigned['word_embedding/w'].copy()}
    zeroed['word_embedding/w'][START] = 0
    found = outputs(model, assigned)
    assert found.nll == pytest.approx(teacher_forcing(zeroed, *tiny_model.batch()).nll, rel=1e-9)
