"""The decoder: its variables, first state, one step, and the options that it refuses.

Variables have names, shapes and first values.
"""

import numpy as np
import pytest

from core.model.caption_generator import CaptionGenerator
from core.model.cells import GRUState, LSTMState
from core.reference import equations
from core.runtime.backend import tf, tf1
from tests.support import tiny_model
from tests.support.model_cases import VARIABLES
from tests.support.tiny_model import D, H, L, M, N, V


def test_variables_have_the_names_and_shapes_of_the_tf1_code(graph):
    model = tiny_model.build()
    model.build_model()
    model.build_sampler()
    assert {v.op.name: v.shape.as_list() for v in tf1.global_variables()} == VARIABLES
    assert {v.op.name for v in model.variables} == set(VARIABLES)
    assert len(model.variables) == len(VARIABLES)
    trainable = {v.op.name for v in tf1.trainable_variables()}
    assert trainable == {name for name in VARIABLES if '/moving_' not in name}


@pytest.mark.parametrize(('option', 'gone'), [
    ('selector', {'selector/w', 'selector/b'}),
    ('ctx2out', {'logits/w_ctx2out'}),
    ('prev2out', set()),
])
def test_options_leave_their_variables_out(graph, option, gone):
    model = tiny_model.build(**{option: False})
    assert {v.op.name for v in model.variables} == set(VARIABLES) - gone


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
    words = tiny_model.WORDS[:4] + [f'w{i}' for i in range(9996)]
    word_to_idx = {word: index for index, word in enumerate(words)}
    model = CaptionGenerator(word_to_idx, dim_feature=(196, 512))
    assert (model.H, model.M, model.T) == (1024, 512, 16)
    model.build_model()
    sampled = model.build_sampler()
    assert sum(v.shape.num_elements() for v in model.variables) == 21_270_801
    assert sum(v.shape.num_elements() for v in tf1.trainable_variables()) == 21_269_777
    assert model.features.shape.as_list() == [None, 196, 512] and model.features.dtype == tf.float32
    assert model.captions.shape.as_list() == [None, 17] and model.captions.dtype == tf.int32
    assert [x.shape.as_list() for x in sampled] == [[None, 20, 196], [None, 20], [None, 20]]
    assert model.loss.shape.as_list() == []


@pytest.mark.parametrize(('options', 'expected'), [
    ({'initial_state': 'zero'}, 0),
    ({'initial_state': 'relu'}, 'relu'),
    ({'initial_state': 'linear'}, 'linear'),
])
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
            first = np.maximum(affine, 0) if expected == 'relu' else affine
            np.testing.assert_allclose(value, first, rtol=1e-6)


def test_a_gru_has_one_state_and_no_names_of_the_lstm(graph):
    model = tiny_model.build(cell='gru')
    assert isinstance(model.decoding().state[0], GRUState)
    names = {v.op.name: v.shape.as_list() for v in model.variables}
    assert names['gru/kernel'] == [M + 7, 3 * H] and names['gru/bias'] == [2, 3 * H]
    assert not {'lstm/basic_lstm_cell/kernel', 'initial_lstm/w_c'} & set(names)


@pytest.mark.parametrize('options', [
    {},
    {'attention_activation': 'tanh', 'temperature': 0.5},
    {'selector': False},
    {'prev2out': False, 'ctx2out': False},
], ids=str)
def test_one_step_is_that_of_the_equations(graph, options):
    model = tiny_model.build(dtype=tf.float64, batch_norm=False, **options)
    v = tiny_model.values(model)
    random = np.random.default_rng(1)
    a, h, c = random.normal(size=(N, L, D)), random.normal(size=(N, H)), random.normal(size=(N, H))
    words = np.array([4, 9, 12])
    expected = equations.step(v, a, v['word_embedding/w'][words], h, c, **options)
    functions, words = model.step_functions(model.annotations(tf.constant(a))), tf.constant(words)
    after, step = model.step(functions, LSTMState(tf.constant(c), tf.constant(h)),
                             functions.from_words(words))
    logits = model.output(step.h, step.context, model.word_vectors(words))
    with tiny_model.session(model, v) as session:
        state, alpha, beta, log_probs = session.run(
            (after, step.alpha, step.beta, tf.nn.log_softmax(logits)))
    for found, told in ((state.h, expected.h), (state.c, expected.c),
                        (alpha, np.exp(expected.log_alpha)), (beta[:, 0], expected.beta),
                        (log_probs, expected.log_probs)):
        np.testing.assert_allclose(found, told, rtol=1e-9)


def test_terms_of_ones_own_read_whole_tensors_in_mixed_precision_too(graph):
    """`projected()`, `annotation_vectors()`: normalised, with offset, of the model's own type."""
    model = tiny_model.build()
    a = np.random.default_rng(1).normal(size=(N, L, D)).astype(np.float32)
    v = tiny_model.values(model)
    tensors = []
    for compute_dtype in (None, tf.float16):
        functions = model.step_functions(model.annotations(tf.constant(a),
                                                           compute_dtype=compute_dtype))
        tensors.append((functions.annotation_vectors(), functions.projected()))
        assert all(tensor.dtype == tf.float32 for tensor in tensors[-1])
    vectors = equations.normalised(v, a, training=False)
    with tiny_model.session(model, v) as session:
        plain, mixed = session.run(tensors)
    expected = vectors, vectors @ v['project_features/w']
    for exact, rough, told in zip(plain, mixed, expected, strict=True):
        np.testing.assert_allclose(exact, told, rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(rough, told, rtol=2e-2, atol=2e-2)


def test_functions_of_fewer_images_have_nothing_of_the_others(graph):
    model = tiny_model.build(dtype=tf.float64)
    functions = model.step_functions(model.annotations(tf.zeros([N, L, D], tf.float64)))
    fewer = functions.of_images(tuple(x[:2] for x in functions.images))
    shapes = [fewer.projected(), fewer.annotation_vectors(), fewer.annotations.features]
    assert [tensor.shape[0] for tensor in shapes] == [2, 2, 2]


def test_initial_values_of_the_authors_by_the_part_of_each_variable(graph):
    """Square matrices and the state's part of the LSTM are orthogonal.

    The projection of the features is not.
    """
    tf1.set_random_seed(1)
    model = tiny_model.build(initializer='authors', batch_norm=False, dim_hidden=40, dim_embed=40,
                             dim_feature=(3, 50))
    with tiny_model.session(model) as session:
        found = tiny_model.fetch(session, model)
    kernel = found['lstm/basic_lstm_cell/kernel']
    for matrix in (found['logits/w_h'], *np.split(kernel[-40:], 4, axis=1)):
        np.testing.assert_allclose(matrix @ matrix.T, np.eye(40), atol=1e-5)
    for name, values in (('project_features/w', 2500), ('attention_layer/w', 2000),
                         ('word_embedding/w', V * 40)):
        # four standard errors
        assert found[name].std() == pytest.approx(0.01, rel=4 / np.sqrt(2 * values)), name
    assert kernel[:-40].std() == pytest.approx(0.01, rel=0.03)


def test_initial_values_of_keras(graph):
    model = tiny_model.build(initializer='keras', dim_embed=30)
    with tiny_model.session(model) as session:
        words = tiny_model.fetch(session, model)['word_embedding/w']
    assert 0.045 < np.abs(words).max() <= 0.05


@pytest.mark.parametrize(('options', 'message'), [
    ({'attention_activation': 'gelu'}, 'relu, tanh'),
    ({'dropout_rate': 1.0}, 'dropout_rate'),
    ({'dropout_rate': -0.1}, 'dropout_rate'),
])
def test_options_out_of_range(graph, options, message):
    with pytest.raises(ValueError, match=message):
        tiny_model.build(**options)


@pytest.mark.parametrize('words', [
    {'<NULL>': 0, '<START>': 1, 'a': 2},
    {'<NULL>': 0, '<START>': 1, '<END>': 2, 'a': 4},
    {'<NULL>': 0, '<START>': 1, '<END>': 1, 'a': 2},
])
def test_unusable_vocabularies(graph, words):
    with pytest.raises(ValueError, match='word_to_idx'):
        CaptionGenerator(words, (L, D))


@pytest.mark.parametrize(('options', 'names'), [
    ({'output_size': 9}, ('prev2out', 'output_size')),
    ({'initial_state': 'zero', 'initial_layers': 2}, ('initial_state', 'initial_layers')),
    ({'carry_state': False}, ('carry_state', 'gru')),
    ({'n_samples': 2}, ('n_samples', 'hard')),
    ({'attention': 'hard', 'baseline': 'leave_one_out'}, ('leave_one_out', 'n_samples')),
    ({'attention': 'hard', 'scheduled_sampling': 0.2}, ('scheduled_sampling', 'hard')),
    ({'cell': 'gru', 'forget_bias': 0.0}, ('forget_bias', 'lstm')),
    ({'decode_context': 'argmax'}, ('decode_context',)),
    ({'sentinel': True}, ('sentinel', 'selector=false')),
    ({'sentinel': True, 'selector': False, 'attention': 'hard'}, ('sentinel', 'attention=soft')),
    ({'sentinel': True, 'selector': False, 'cell': 'gru'}, ('sentinel', 'cell=lstm')),
    ({'dropout': False, 'dropout_mask': 'sequence'}, ('dropout_mask',)),
    ({'n_smaples': 2}, ('n_samples',)),
])
def test_options_that_do_not_fit_are_refused_by_name(graph, options, names):
    with pytest.raises(ValueError) as refused:
        tiny_model.build(**options)
    assert all(name in str(refused.value) for name in names)
