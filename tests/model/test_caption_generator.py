"""The model against its equations written out in NumPy, and the contract of names, shapes, masks and dropout."""

import numpy as np
import pytest

from core.decoding import search_loop, word_rules
from core.model.caption_generator import CaptionGenerator
from core.model.output_layer import Dropout
from core.reference.equations import teacher_forcing
from core.runtime.backend import tf, tf1
from core.training.checkpoints import initialize_from
from tests.support import tiny_model
from tests.support.tiny_model import END, NULL, START, UNK, D, H, L, M, N, T, V

NAMES = {
    'conv_featuresbatch_norm/beta': [D], 'conv_featuresbatch_norm/gamma': [D],
    'conv_featuresbatch_norm/moving_mean': [D], 'conv_featuresbatch_norm/moving_variance': [D],
    'initial_lstm/w_h': [D, H], 'initial_lstm/b_h': [H], 'initial_lstm/w_c': [D, H], 'initial_lstm/b_c': [H],
    'word_embedding/w': [V, M], 'project_features/w': [D, D],
    'attention_layer/w': [H, D], 'attention_layer/b': [D], 'attention_layer/w_att': [D, 1],
    'selector/w': [H, 1], 'selector/b': [1],
    'lstm/basic_lstm_cell/kernel': [M + D + H, 4 * H], 'lstm/basic_lstm_cell/bias': [4 * H],
    'logits/w_h': [H, M], 'logits/b_h': [M], 'logits/w_out': [M, V], 'logits/b_out': [V], 'logits/w_ctx2out': [D, M],
}
VARIANTS = [
    {}, {'alpha_c': 0.7}, {'alpha_c': 0.7, 'mask_padding': False}, {'attention_activation': 'tanh'},
    {'selector': False}, {'prev2out': False}, {'ctx2out': False},
    {'attention_activation': 'tanh', 'selector': False, 'prev2out': False, 'ctx2out': False, 'alpha_c': 0.3},
]


def run_once(model, fetches, assigned=None, **feeds):
    features, captions = tiny_model.batch()
    with tiny_model.session(model, assigned) as session:
        return session.run(fetches, {model.features: feeds.get('features', features),
                                     model.captions: feeds.get('captions', captions)})


def transcribed(options, assigned, training=True, captions=None):
    options = {('activation' if name == 'attention_activation' else name): value for name, value in options.items()}
    features, own = tiny_model.batch()
    return teacher_forcing(assigned, features, own if captions is None else captions, training=training,
                                    **options)


@pytest.mark.parametrize('options', VARIANTS, ids=str)
@pytest.mark.parametrize(('dtype', 'tolerance'), [(tf.float32, 1e-4), (tf.float64, 1e-9)], ids=['f32', 'f64'])
def test_graph_equals_transcription(graph, options, dtype, tolerance):
    model = tiny_model.build(dropout=False, dtype=dtype, **options)
    loss = model.build_model()
    assigned = tiny_model.values(model)
    expected = transcribed(options, assigned)
    features, captions = tiny_model.batch()
    with tiny_model.session(model, assigned) as session:
        found_loss, found = session.run((loss, model.outputs), {model.features: features, model.captions: captions})
        after = tiny_model.fetch(session, model)
    np.testing.assert_allclose(found_loss, expected.loss, rtol=tolerance)
    np.testing.assert_allclose(found.nll, expected.nll, rtol=tolerance)
    np.testing.assert_allclose(found.regularizer, expected.regularizer, rtol=tolerance)
    np.testing.assert_allclose(found.alphas, expected.alphas, rtol=tolerance, atol=tolerance)
    np.testing.assert_allclose(found.betas, expected.betas, rtol=tolerance)
    assert found.n_words == 3 + 4 + 2
    for name in ('moving_mean', 'moving_variance'):
        np.testing.assert_allclose(after[f'conv_featuresbatch_norm/{name}'], expected[name], rtol=tolerance,
                                   atol=tolerance)


@pytest.mark.parametrize('options', [VARIANTS[2], VARIANTS[7]], ids=['tf1', 'tanh_plain'])
def test_loss_without_training_uses_moving_statistics_and_leaves_them(graph, options):
    model = tiny_model.build(dtype=tf.float64, **options)
    loss = model.build_model(training=False)
    assigned = tiny_model.values(model)
    features, captions = tiny_model.batch()
    with tiny_model.session(model, assigned) as session:
        found = session.run(loss, {model.features: features, model.captions: captions})
        after = tiny_model.fetch(session, model)
    np.testing.assert_allclose(found, transcribed(options, assigned, training=False).loss, rtol=1e-9)
    for name, value in assigned.items():
        np.testing.assert_array_equal(after[name], value, err_msg=name)


@pytest.mark.parametrize('options', [VARIANTS[1], VARIANTS[2], VARIANTS[7]], ids=['masked', 'tf1', 'tanh_plain'])
def test_gradients_equal_finite_differences_of_the_transcription(graph, options):
    model = tiny_model.build(dropout=False, dtype=tf.float64, **options)
    loss = model.build_model()
    variables = tf1.trainable_variables()
    gradients = [tf.convert_to_tensor(gradient) for gradient in tf1.gradients(loss, variables)]
    assigned = tiny_model.values(model)
    found = run_once(model, gradients, assigned)
    random, step = np.random.default_rng(0), 1e-5
    for variable, gradient in zip(variables, found, strict=True):
        name = variable.op.name
        value = assigned[name]
        assert gradient.shape == value.shape
        for place in random.permutation(value.size)[:40]:
            index = np.unravel_index(place, value.shape)
            kept, losses = value[index], []
            for shift in (step, -step):
                value[index] = kept + shift
                losses.append(transcribed(options, assigned).loss)
            value[index] = kept
            numeric = (losses[0] - losses[1]) / (2 * step)
            assert gradient[index] == pytest.approx(numeric, rel=1e-4, abs=1e-8), f'{name}{index}'


def test_variables_have_the_names_and_shapes_of_the_tf1_code(graph):
    model = tiny_model.build()
    model.build_model()
    model.build_sampler()
    assert {v.op.name: v.shape.as_list() for v in tf1.global_variables()} == NAMES
    assert {v.op.name for v in model.variables} == set(NAMES) and len(model.variables) == len(NAMES)
    trainable = {v.op.name for v in tf1.trainable_variables()}
    assert trainable == {name for name in NAMES if '/moving_' not in name}


@pytest.mark.parametrize(('option', 'gone'), [
    ('selector', {'selector/w', 'selector/b'}), ('ctx2out', {'logits/w_ctx2out'}), ('prev2out', set()),
])
def test_options_leave_their_variables_out(graph, option, gone):
    model = tiny_model.build(**{option: False})
    assert {v.op.name for v in model.variables} == set(NAMES) - gone


def test_initial_values(graph):
    model = tiny_model.build(dim_embed=50)
    with tiny_model.session(model) as session:
        found = tiny_model.fetch(session, model)
    for name, value in found.items():
        place = name.split('/')[-1]
        if place in ('gamma', 'moving_variance'):
            assert (value == 1).all(), name
        elif place in ('beta', 'moving_mean', 'bias') or place.startswith('b'):
            assert (value == 0).all(), name
        else:
            bound = 1.0 if name == 'word_embedding/w' else np.sqrt(6 / sum(value.shape))
            assert 0.5 * bound < np.abs(value).max() <= bound, name


def test_parameter_count_of_the_paper_sizes(graph):
    words = {word: index for index, word in enumerate(tiny_model.WORDS[:4] + [f'w{i}' for i in range(9996)])}
    model = CaptionGenerator(words, dim_feature=(196, 512))
    assert (model.H, model.M, model.T) == (1024, 512, 16)
    model.build_model()
    sampled = model.build_sampler()
    assert sum(v.shape.num_elements() for v in model.variables) == 21_270_801
    assert sum(v.shape.num_elements() for v in tf1.trainable_variables()) == 21_269_777
    assert model.features.shape.as_list() == [None, 196, 512] and model.features.dtype == tf.float32
    assert model.captions.shape.as_list() == [None, 17] and model.captions.dtype == tf.int32
    assert [x.shape.as_list() for x in sampled] == [[None, 20, 196], [None, 20], [None, 20]]
    assert model.loss.shape.as_list() == []


@pytest.mark.parametrize('options', [{}, {'alpha_c': 1.0, 'mask_padding': False}], ids=['default', 'regularised'])
def test_gradient_reaches_every_variable(graph, options):
    model = tiny_model.build(**options)
    variables = tf1.trainable_variables()
    gradients = [tf.convert_to_tensor(g) for g in tf1.gradients(model.build_model(), variables)]
    for variable, gradient in zip(variables, run_once(model, gradients, tiny_model.values(model)), strict=True):
        assert np.abs(gradient).max() > 0, variable.op.name


def test_alphas_sum_to_one_and_betas_are_gates(graph):
    model = tiny_model.build()
    model.build_model()
    sampled = model.build_sampler(6)
    found, sample = run_once(model, (model.outputs, sampled), tiny_model.values(model))
    for alphas, betas in ((found.alphas, found.betas), (sample.alphas, sample.betas)):
        np.testing.assert_allclose(alphas.sum(axis=2), 1, rtol=1e-6)
        assert (alphas > 0).all() and ((betas > 0) & (betas < 1)).all()
    assert found.mask.tolist() == [[1, 1, 1, 0], [1, 1, 1, 1], [1, 1, 0, 0]]


@pytest.mark.parametrize('first', ['build_model', 'build_sampler'])
def test_either_order_of_building_shares_the_variables(graph, first):
    model = tiny_model.build(dropout=False)
    getattr(model, first)()
    getattr(model, 'build_sampler' if first == 'build_model' else 'build_model')()
    assert len(tf1.global_variables()) == len(NAMES)
    assert run_once(model, model.loss, tiny_model.values(model)) == pytest.approx(
        transcribed({}, tiny_model.values(model)).loss, rel=1e-4)


def test_two_models_in_one_graph_share_the_variables(graph):
    models = [tiny_model.build(dropout=False), tiny_model.build(dropout=False)]
    assert len(tf1.global_variables()) == len(NAMES)
    losses = [model.build_model(training=False) for model in models]
    features, captions = tiny_model.batch()
    feeds = {m.features: features for m in models} | {m.captions: captions for m in models}
    with tiny_model.session(models[0], tiny_model.values(models[0])) as session:
        first, second = session.run(losses, feeds)
    assert first == second


def test_works_beside_eager_code_and_other_graphs():
    assert float(tf.constant(2.0) + 1) == 3.0
    with tf.Graph().as_default() as other:
        tf1.get_variable('word_embedding/w', [2])
        before = len(other.get_operations())
        with tf.Graph().as_default() as own:
            model = tiny_model.build(dropout=False)
            model.build_model()
            model.build_sampler()
        assert model.graph is own
        assert len(other.get_operations()) == before
    assigned = tiny_model.values(model)
    assert run_once(model, model.nll, assigned) == pytest.approx(transcribed({}, assigned).nll, rel=1e-4)
    assert tf.executing_eagerly() and float(tf.constant(2.0) * 2) == 4.0


@pytest.mark.parametrize('mask_padding', [True, False])
def test_padding_carries_no_loss(graph, mask_padding):
    features, captions = tiny_model.batch()
    losses = []
    for more in (0, 5):
        model = tiny_model.build(dropout=False, n_time_step=T + more, mask_padding=mask_padding)
        model.build_model()
        padded = np.pad(captions, ((0, 0), (0, more)))
        losses.append(run_once(model, model.nll, tiny_model.values(model), captions=padded))
    assert losses[0] == pytest.approx(losses[1], rel=1e-6)


def test_short_batches_are_cut_and_empty_captions_are_harmless(graph):
    model = tiny_model.build(dropout=False, alpha_c=0.7)
    loss = model.build_model()
    assigned = tiny_model.values(model)
    captions = np.array([[START, 4, END, NULL, NULL], [START, NULL, NULL, NULL, NULL], [START, END, NULL, NULL, NULL]])
    found_loss, found = run_once(model, (loss, model.outputs), assigned, captions=captions)
    assert found.alphas.shape == (N, 2, L) and found.mask.tolist() == [[1, 1], [0, 0], [1, 0]]
    assert found_loss == pytest.approx(transcribed({'alpha_c': 0.7}, assigned, captions=captions).loss, rel=1e-4)
    empty = np.full((N, T + 1), NULL)
    found_loss, found = run_once(model, (model.nll, model.outputs), assigned, captions=empty)
    assert found_loss == 0 and found.n_words == 0


def test_dropout_follows_its_seed(graph):
    model = tiny_model.build(dropout=True)
    loss = model.build_model()
    evaluated = model.build_model(training=False)
    sampled = model.build_sampler()
    features, captions = tiny_model.batch()
    feeds = {model.features: features, model.captions: captions}
    with tiny_model.session(model, tiny_model.values(model)) as session:
        def losses(seed):
            return session.run(loss, {**feeds, model.dropout_seed: seed})

        assert losses((1, 2)) == losses((1, 2))
        assert len({losses((1, 2)), losses((1, 3)), losses((2, 2))}) == 3
        assert len({session.run(loss, feeds) for _ in range(4)}) == 4
        assert session.run(evaluated, feeds) == session.run(evaluated, feeds)
        for first, second in zip(session.run(sampled, feeds), session.run(sampled, feeds), strict=True):
            np.testing.assert_array_equal(first, second)
    for options in ({'dropout': False}, {'dropout_rate': 0.0}):
        model = tiny_model.build(**options)
        model.build_model()
        assert run_once(model, model.nll, tiny_model.values(model)) == pytest.approx(
            transcribed({}, tiny_model.values(model)).nll, rel=1e-4)


def test_dropout_acts_on_h_and_on_the_tanh(graph):
    model = tiny_model.build(prev2out=False, ctx2out=False)
    ones = tf.ones([500, H])
    dropout = Dropout(model.dropout_seed, 0.5, 500)
    logits = model.output(ones, None, None, dropout)[:, :M]
    plain = model.output(ones, None, None)[:, :M]
    assigned = {'logits/w_h': np.eye(H, M), 'logits/w_out': np.eye(M, V)}
    with tiny_model.session(model, assigned) as session:
        found, without = session.run((logits, plain))
    np.testing.assert_allclose(without, np.tanh(1.0), rtol=1e-6)
    kept = found[found != 0]
    np.testing.assert_allclose(kept, 2 * np.tanh(2.0), rtol=1e-6)  # kept twice; one dropped is enough for 0
    assert kept.size / found.size == pytest.approx(0.25, abs=0.03)


def own_words(words):
    """Decoded words (N, T) as captions (N, T + 1): <START> words <END> <NULL>..."""
    after = np.cumsum(words == END, axis=1) - (words == END) > 0
    return np.concatenate([np.full((len(words), 1), START), np.where(after, NULL, words)], axis=1).astype(np.int32)


@pytest.mark.parametrize('bias', [0.0, 8.0])
@pytest.mark.parametrize('options', [{}, {'attention_activation': 'tanh', 'selector': False}], ids=['default', 'tanh'])
def test_decoding_and_training_compute_the_same(graph, options, bias):
    """Also where <UNK> is likely: words are masked after the log-softmax, so scores are the model's own."""
    model = tiny_model.build(dtype=tf.float64, **options)
    loss = model.build_model(training=False)
    sampled = model.build_sampler(T)
    decoded = search_loop.greedy(model.decoding(T), word_rules.Rules(END, model.never), T)
    for seed in range(4):
        assigned = tiny_model.values(model, seed)
        assigned['logits/b_out'][UNK] += bias
        with tiny_model.session(model, assigned) as session:
            feeds = {model.features: tiny_model.batch()[0]}
            found, again = session.run((sampled, decoded), feeds)
            captions = own_words(found.captions)
            nll, forced = session.run((loss, model.outputs), {**feeds, model.captions: captions})
        np.testing.assert_array_equal(found.captions, again.words)
        expected = transcribed(options, assigned, training=False, captions=captions)
        assert nll * N == pytest.approx(-again.scores.sum(), rel=1e-9)
        masked = expected.log_probs.copy()
        masked[:, :, [NULL, START, UNK]] = -np.inf
        for n in range(N):
            for t in np.flatnonzero(captions[n, 1:]):
                assert found.captions[n, t] == masked[n, t].argmax()
                np.testing.assert_allclose(found.alphas[n, t], forced.alphas[n, t], rtol=1e-9)
                assert found.betas[n, t] == pytest.approx(forced.betas[n, t], rel=1e-9)


@pytest.mark.parametrize('likely', [NULL, START, UNK])
def test_special_words_are_never_emitted(graph, likely):
    model = tiny_model.build()
    assigned = tiny_model.values(model)
    assigned['logits/b_out'][likely] = 1e4
    sampled = run_once(model, model.build_sampler(9), assigned)
    assert not np.isin(sampled.captions, [NULL, START, UNK]).any()
    assert sampled.captions.shape == (N, 9) and sampled.captions.dtype == np.int32


def test_one_batch_can_be_overfitted(graph):
    tf1.set_random_seed(2)
    model = tiny_model.build(dropout=False, alpha_c=0.1)
    loss = model.build_model()
    train = tf1.train.AdamOptimizer(0.01).minimize(loss)
    sampled = model.build_sampler(T)
    features, captions = tiny_model.batch()
    feeds = {model.features: features, model.captions: captions}
    with tiny_model.session(model) as session:
        begin = session.run(model.nll, feeds)
        for _ in range(250):
            session.run(train, feeds)
        end, found = session.run((model.nll, sampled), feeds)
    assert begin > 5 and end < 0.1
    np.testing.assert_array_equal(own_words(found.captions), captions)


def test_checkpoint_of_the_tf1_code_restores(graph, tmp_path):
    drawn = tiny_model.values(tiny_model.build())
    with tf.Graph().as_default(), tf1.Session() as session:
        for name, shape in NAMES.items():
            tf1.get_variable(name, shape, use_resource=False, initializer=tf1.constant_initializer(drawn[name]))
        session.run(tf1.global_variables_initializer())
        prefix = tf1.train.Saver().save(session, str(tmp_path / 'model'), global_step=10)
    model = tiny_model.build(dropout=False)
    model.build_model()
    features, captions = tiny_model.batch()
    with tiny_model.session(model) as session:
        initialize_from(session, prefix, model.variables)
        for name, value in tiny_model.fetch(session, model).items():
            np.testing.assert_array_equal(value, drawn[name].astype(np.float32), err_msg=name)
        found = session.run(model.nll, {model.features: features, model.captions: captions})
    assert found == pytest.approx(transcribed({}, drawn).nll, rel=1e-4)


@pytest.mark.parametrize(('options', 'message'), [
    ({'attention_activation': 'gelu'}, 'relu, tanh'), ({'dropout_rate': 1.0}, 'dropout_rate'),
    ({'dropout_rate': -0.1}, 'dropout_rate'),
])
def test_options_out_of_range(graph, options, message):
    with pytest.raises(ValueError, match=message):
        tiny_model.build(**options)


@pytest.mark.parametrize('words', [
    {'<NULL>': 0, '<START>': 1, 'a': 2}, {'<NULL>': 0, '<START>': 1, '<END>': 2, 'a': 4},
    {'<NULL>': 0, '<START>': 1, '<END>': 1, 'a': 2},
])
def test_unusable_vocabularies(graph, words):
    with pytest.raises(ValueError, match='word_to_idx'):
        CaptionGenerator(words, (L, D))


def test_vocabulary_without_unknown_word_and_bad_max_len(graph):
    model = CaptionGenerator({'<NULL>': 0, '<START>': 1, '<END>': 2, 'a': 3}, (L, D), M, H, T)
    assert not np.isin(run_once(model, model.build_sampler(3)).captions, [NULL, START]).any()
    with pytest.raises(ValueError, match='max_len'):
        model.build_sampler(0)
