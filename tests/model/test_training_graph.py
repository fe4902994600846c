"""The training graph's options: what each changes in the loss, and that decoding follows."""

import numpy as np
import pytest

from core.decoding import search_loop, word_rules
from core.model.caption_generator import CaptionGenerator
from core.model.cells import GRUState, LSTMState
from core.model.output_layer import Dropout
from core.reference.equations import teacher_forcing
from core.runtime.backend import tf, tf1
from tests.support import tiny_model
from tests.support.model_cases import PAPER, TF2, sized
from tests.support.tiny_model import END, NULL, START, UNK, H, L, M, N, T, V


def outputs(model, assigned, features=None, captions=None, feeds=(), fetch=None, **build):
    """TrainingOutputs (or `fetch`) of one batch."""
    if model.outputs is None:
        model.build_model(**build)
    own = tiny_model.batch()
    with tiny_model.session(model, assigned) as session:
        return session.run(fetch if fetch is not None else model.outputs, {
            model.features: own[0] if features is None else features,
            model.captions: own[1] if captions is None else captions, **dict(feeds)})


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


def test_word_dropout_replaces_the_share_asked_for_and_never_start(graph):
    """Of the caption `a <END>` only the input `a` can be replaced, so its loss has exactly two values."""
    model = tiny_model.build(dropout=False, dtype=tf.float64, word_dropout=0.3, batch_norm=False)
    assigned = tiny_model.values(model)
    features, captions = tiny_model.batch()[0][:1], np.array([[START, 4, END, NULL, NULL]])
    n = 2000
    found = outputs(model, assigned, np.repeat(features, n, axis=0), np.repeat(captions, n, axis=0))
    first, second = found.log_probs[:, 0], found.log_probs[:, 1]
    np.testing.assert_allclose(first, first[0], rtol=1e-12)
    values, counts = np.unique(second.round(9), return_counts=True)
    assert len(values) == 2
    plain = outputs(tiny_model.build(dropout=False, dtype=tf.float64, batch_norm=False), assigned, features, captions)
    unknown = outputs(tiny_model.build(dropout=False, dtype=tf.float64, batch_norm=False), assigned, features,
                      np.array([[START, UNK, END, NULL, NULL]]))
    shares = dict(zip(values, counts / n, strict=True))
    assert shares[plain.log_probs[0, 1].round(9)] == pytest.approx(0.7, abs=0.04)
    assert shares[unknown.log_probs[0, 1].round(9)] == pytest.approx(0.3, abs=0.04)
    with pytest.raises(ValueError, match='<UNK>'):
        CaptionGenerator({'<NULL>': 0, '<START>': 1, '<END>': 2, 'a': 3}, (L, 7), word_dropout=0.1)


def test_word_dropout_finds_unknown_wherever_it_is(graph):
    words = {word: index for index, word in enumerate(['<NULL>', '<START>', '<END>', 'a', 'b', '<UNK>'])}
    model = CaptionGenerator(words, (L, 7), M, H, T, dropout=False, word_dropout=0.9)
    model.build_model()
    features, captions = tiny_model.batch()[0], np.array([[1, 3, 4, 2, 0]] * N)
    with tiny_model.session(model) as session:
        losses = {session.run(model.nll, {model.features: features, model.captions: captions}) for _ in range(12)}
    assert len(losses) > 1


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
    model = tiny_model.build(dropout=False, dtype=tf.float64, scheduled_sampling=0.4, batch_norm=False)
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
            found_word = session.run((loss, plain.outputs), {plain.features: features, plain.captions: np.array(
                [[START, word, END, NULL, NULL]])})[1].log_probs[0]
            if word != NULL:
                expected[found_word[1].round(9)] = word
    values, counts = np.unique(found.log_probs[:, 1].round(9), return_counts=True)
    seen = {expected[value]: count / n for value, count in zip(values, counts, strict=True) if value in expected}
    written = probabilities[[END, *range(4, V)]].sum()  # <NULL>, <START> and <UNK> are never written, nor fed
    for word in range(1, V):
        share = 0.4 * probabilities[word] / written * (word not in (START, UNK)) + (0.6 if word == 4 else 0)
        assert seen.get(word, 0) == pytest.approx(share, abs=4 * (share / n)**0.5 + 2e-3), word


def test_dropout_of_a_sequence_keeps_its_masks_over_the_steps(graph):
    x, rows = tf.ones([6, 40]), tf.constant([0, 1, 0, 1, 0, 1])
    seed = tf.constant([1, 2])
    kept, changing = Dropout(seed, 0.5, 2, per_sequence=True)(x, 0, rows), Dropout(seed, 0.5, 2)(x, 0, rows)
    with tf1.Session() as session:
        kept, changing = session.run((kept, changing))
    np.testing.assert_array_equal(kept[[0, 2]], kept[[2, 4]])
    np.testing.assert_array_equal(kept[[1, 3]], kept[[3, 5]])
    assert (kept[0] != kept[1]).any() and (changing[0] != changing[2]).any()
    assert set(np.unique(kept)) == {0.0, 2.0} and kept.mean() == pytest.approx(1, abs=0.4)


def test_variational_dropout_reaches_the_loss(graph):
    model = tiny_model.build(dropout_mask='sequence')
    model.build_model()
    features, captions = tiny_model.batch()
    with tiny_model.session(model, tiny_model.values(model)) as session:
        losses = [session.run(model.loss, {model.features: features, model.captions: captions,
                                           model.dropout_seed: seed}) for seed in ((1, 2), (1, 2), (1, 3))]
    assert losses[0] == losses[1] != losses[2]


@pytest.mark.parametrize(('options', 'target', 'divisor'), [
    ({'regularizer_target': 'one'}, 1, N), ({}, T / L, N), ({'regularizer_reduction': 'locations'}, T / L, L),
])
def test_targets_and_reductions_of_the_regularizer(graph, options, target, divisor):
    model = tiny_model.build(dropout=False, dtype=tf.float64, alpha_c=0.7, **options)
    found = outputs(model, tiny_model.values(model))
    totals = (found.alphas * found.mask[:, :, None]).sum(axis=1)
    assert found.regularizer == pytest.approx(0.7 * ((target - totals)**2).sum() / divisor, rel=1e-9)


@pytest.mark.parametrize('options', [
    {}, sized(PAPER, dropout=False), sized(TF2), {'attention': 'hard', 'semi_sampling_p': 0.0, 'dropout': False}],
    ids=['tf1', 'paper', 'tf2', 'hard'])
def test_captions_of_one_image_share_its_projection(graph, options):
    """Features given once for two captions each, against features repeated: same loss and gradients."""
    model = tiny_model.build(dtype=tf.float64, **{'dropout': False, **options})
    loss = model.build_model()
    trained = [v for v in model.variables if v.trainable]
    gradients = tf1.gradients(loss, trained, unconnected_gradients=tf.UnconnectedGradients.ZERO)
    fetch = [loss, model.outputs.alphas] + [tf.convert_to_tensor(g) for g in gradients]
    captions = np.concatenate([tiny_model.batch()[1], tiny_model.batch()[1][::-1]])
    assigned = tiny_model.values(model)
    once = outputs(model, assigned, captions=captions, fetch=fetch)
    twice = outputs(model, assigned, np.repeat(tiny_model.batch()[0], 2, axis=0), captions, fetch=fetch)
    for a, b in zip(once, twice, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-8, atol=1e-12)


@pytest.mark.parametrize('options', [
    sized(PAPER), sized(TF2, carry_state=True), sized(PAPER, output_layers=2, initial_state='linear'),
    {'initial_state': 'relu', 'cell': 'gru'}, {'attention': 'hard', 'baseline': 'leave_one_out', 'n_samples': 2},
    {'attention': 'hard', 'semi_sampling_p': 1.0}], ids=['paper', 'tf2', 'deep', 'gru', 'hard', 'sampled'])
def test_gradient_reaches_every_variable(graph, options):
    model = tiny_model.build(**{'dropout': False, **options})
    variables = [v for v in tf1.trainable_variables() if not v.op.name.endswith('b_att')]  # the softmax cancels it
    gradients = [tf.convert_to_tensor(g) for g in tf1.gradients(model.build_model(), variables)]
    for variable, gradient in zip(variables, outputs(model, tiny_model.values(model), fetch=gradients), strict=True):
        assert np.abs(gradient).max() > 0, variable.op.name


@pytest.mark.parametrize('options', [sized(PAPER), sized(TF2), {'cell': 'gru', 'first_word': 'zero'},
                                     {'attention': 'hard', 'decode_context': 'argmax'}, {'temperature': 0.5}],
                         ids=['paper', 'tf2', 'gru', 'argmax', 'temperature'])
def test_decoding_and_training_compute_the_same(graph, options):
    model = tiny_model.build(dtype=tf.float64, **options)
    model.build_model(training=False)
    decoded = search_loop.greedy(model.decoding(T), word_rules.Rules(END, model.never), T)
    with tiny_model.session(model, tiny_model.values(model)) as session:
        found = session.run(decoded, {model.features: tiny_model.batch()[0]})
        after = np.cumsum(found.words == END, axis=1) - (found.words == END) > 0
        captions = np.concatenate([np.full((N, 1), START), np.where(after, NULL, found.words)], axis=1)
        forced = session.run(model.outputs, {model.features: tiny_model.batch()[0], model.captions: captions})
    np.testing.assert_allclose(forced.log_probs.sum(axis=1), found.scores, rtol=1e-9)


def test_first_word_zero_leaves_start_out(graph):
    model = tiny_model.build(dropout=False, dtype=tf.float64, first_word='zero')
    assigned = tiny_model.values(model)
    zeroed = {**assigned, 'word_embedding/w': assigned['word_embedding/w'].copy()}
    zeroed['word_embedding/w'][START] = 0
    found = outputs(model, assigned)
    assert found.nll == pytest.approx(teacher_forcing(zeroed, *tiny_model.batch()).nll, rel=1e-9)


@pytest.mark.parametrize(('options', 'expected'), [
    ({'initial_state': 'zero'}, 0), ({'initial_state': 'relu'}, 'relu'), ({'initial_state': 'linear'}, 'linear')])
def test_initial_states(graph, options, expected):
    model = tiny_model.build(dtype=tf.float64, batch_norm=False, **options)
    assigned, features = tiny_model.values(model), tiny_model.batch()[0]
    state, _ = model.decoding().state
    with tiny_model.session(model, assigned) as session:
        found = session.run(state, {model.features: features})
    assert isinstance(found, LSTMState)
    for part, value in found._asdict().items():
        if expected == 0:
            assert value.shape == (N, H) and (value == 0).all()
        else:
            mean = features.astype(float).mean(axis=1)
            affine = mean @ assigned[f'initial_lstm/w_{part}'] + assigned[f'initial_lstm/b_{part}']
            np.testing.assert_allclose(value, np.maximum(affine, 0) if expected == 'relu' else affine, rtol=1e-6)


def test_a_gru_has_one_state_and_no_names_of_the_lstm(graph):
    model = tiny_model.build(cell='gru')
    assert isinstance(model.decoding().state[0], GRUState)
    names = {v.op.name: v.shape.as_list() for v in model.variables}
    assert names['gru/kernel'] == [M + 7, 3 * H] and names['gru/bias'] == [2, 3 * H]
    assert not {'lstm/basic_lstm_cell/kernel', 'initial_lstm/w_c'} & set(names)


@pytest.mark.parametrize('initializer', ['authors', 'keras'])
def test_other_initial_values(graph, initializer):
    model = tiny_model.build(initializer=initializer, batch_norm=False, dim_hidden=40, dim_embed=30)
    with tiny_model.session(model) as session:
        found = tiny_model.fetch(session, model)
    words, kernel = found['word_embedding/w'], found['lstm/basic_lstm_cell/kernel']
    if initializer == 'keras':
        assert 0.03 < np.abs(words).max() <= 0.05
        return
    assert words.std() == pytest.approx(0.01, rel=0.15) and kernel[:-40].std() == pytest.approx(0.01, rel=0.1)
    for gate in np.split(kernel[-40:], 4, axis=1):
        np.testing.assert_allclose(gate @ gate.T, np.eye(40), atol=1e-5)


@pytest.mark.parametrize(('options', 'names'), [
    ({'output_size': 9}, ('prev2out', 'output_size')), ({'initial_state': 'zero', 'initial_layers': 2},
                                                       ('initial_state', 'initial_layers')),
    ({'carry_state': False}, ('carry_state', 'gru')), ({'n_samples': 2}, ('n_samples', 'hard')),
    ({'attention': 'hard', 'baseline': 'leave_one_out'}, ('leave_one_out', 'n_samples')),
    ({'attention': 'hard', 'scheduled_sampling': 0.2}, ('scheduled_sampling', 'hard')),
    ({'cell': 'gru', 'forget_bias': 0.0}, ('forget_bias', 'lstm')),
    ({'decode_context': 'argmax'}, ('decode_context',)),
    ({'dropout': False, 'dropout_mask': 'sequence'}, ('dropout_mask',)), ({'n_smaples': 2}, ('n_samples',)),
])
def test_options_that_do_not_fit_are_refused_by_name(graph, options, names):
    with pytest.raises(ValueError) as refused:
        tiny_model.build(**options)
    assert all(name in str(refused.value) for name in names)
