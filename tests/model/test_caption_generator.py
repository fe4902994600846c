"""The model against the equations in NumPy.

Also: graphs share variables, padding, dropout, and decoding computes what training does.
"""

import numpy as np
import pytest

from core.decoding import search_loop, word_rules
from core.model.caption_generator import CaptionGenerator
from core.reference import finite_differences
from core.reference.equations import moving_statistics, teacher_forcing
from core.runtime.backend import tf, tf1
from core.training.checkpoints import initialize_from
from tests.support import scripts, tiny_model
from tests.support.model_cases import PAPER, TF2, VARIABLES, sized
from tests.support.tiny_model import END, NULL, START, UNK, D, H, L, M, N, T
from tests.support.tolerances import summed

VARIANTS = [
    {},
    {'alpha_c': 0.7},
    {'alpha_c': 0.7, 'mask_padding': False},
    {'attention_activation': 'tanh'},
    {'selector': False},
    {'prev2out': False},
    {'ctx2out': False},
    {'attention_activation': 'tanh', 'selector': False, 'prev2out': False, 'ctx2out': False,
     'alpha_c': 0.3},
    {'sentinel': True, 'selector': False, 'alpha_c': 0.5},
]


def run_once(model, fetches, assigned=None, **feeds):
    features, captions = tiny_model.batch()
    with tiny_model.session(model, assigned) as session:
        return session.run(fetches, {model.features: feeds.get('features', features),
                                     model.captions: feeds.get('captions', captions)})


@pytest.mark.parametrize(('options', 'dtype', 'tolerance', 'jit'), [
    *((options, tf.float64, 1e-9, False) for options in VARIANTS),
    (VARIANTS[0], tf.float32, 1e-4, True),
    (VARIANTS[7], tf.float32, 1e-4, False),
], ids=str)
def test_the_graph_computes_the_equations(graph, options, dtype, tolerance, jit):
    model = tiny_model.build(dropout=False, dtype=dtype, jit=jit, **options)
    loss = model.build_model()
    assigned = tiny_model.values(model)
    features, captions = tiny_model.batch()
    expected = teacher_forcing(assigned, features, captions, **options)
    with tiny_model.session(model, assigned) as session:
        found_loss, found = session.run((loss, model.outputs),
                                        {model.features: features, model.captions: captions})
        after = tiny_model.fetch(session, model)
    np.testing.assert_allclose(found_loss, expected.loss, rtol=tolerance)
    np.testing.assert_allclose(found.nll, expected.nll, rtol=tolerance)
    np.testing.assert_allclose(found.regularizer, expected.regularizer, rtol=tolerance)
    np.testing.assert_allclose(found.alphas, expected.alphas, rtol=tolerance, atol=tolerance)
    np.testing.assert_allclose(found.betas, expected.betas, rtol=tolerance)
    assert found.n_words == 3 + 4 + 2
    for name, value in moving_statistics(assigned, features).items():
        np.testing.assert_allclose(after[f'conv_featuresbatch_norm/{name}'], value, rtol=tolerance,
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
    expected = teacher_forcing(assigned, features, captions, training=False, **options)
    np.testing.assert_allclose(found, expected.loss, rtol=1e-9)
    for name, value in assigned.items():
        np.testing.assert_array_equal(after[name], value, err_msg=name)


@pytest.mark.parametrize('options', [VARIANTS[1], VARIANTS[2], VARIANTS[7], VARIANTS[8]],
                         ids=['masked', 'tf1', 'tanh_plain', 'sentinel'])
def test_gradients_are_the_finite_differences_of_the_equations(graph, options):
    model = tiny_model.build(dropout=False, dtype=tf.float64, **options)
    loss = model.build_model()
    variables = tf1.trainable_variables()
    gradients = [tf.convert_to_tensor(gradient) for gradient in tf1.gradients(loss, variables)]
    assigned = tiny_model.values(model)
    names = [variable.op.name for variable in variables]
    found = dict(zip(names, run_once(model, gradients, assigned), strict=True))
    assert {name: gradient.shape for name, gradient in found.items()} == {
        name: assigned[name].shape for name in names}

    def told(v):
        return teacher_forcing({**assigned, **v}, *tiny_model.batch(), **options).loss

    trained = {name: assigned[name] for name in names}
    for name, index, slope in finite_differences.some(told, trained, 40):
        assert found[name][index] == pytest.approx(slope, rel=1e-4, abs=1e-8), f'{name}{index}'


def test_alphas_sum_to_one_and_betas_are_gates(graph):
    model = tiny_model.build()
    model.build_model()
    sampled = tiny_model.sampler(model, 6)
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
    assert len(tf1.global_variables()) == len(model.variables)
    assert run_once(model, model.loss, tiny_model.values(model)) == pytest.approx(
        teacher_forcing(tiny_model.values(model), *tiny_model.batch()).loss, rel=1e-4)


def test_two_models_in_one_graph_share_the_variables(graph):
    models = [tiny_model.build(dropout=False), tiny_model.build(dropout=False)]
    assert len(tf1.global_variables()) == len(models[0].variables)
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
            tiny_model.sampler(model)
        assert model.graph is own
        assert len(other.get_operations()) == before
    assigned = tiny_model.values(model)
    expected = teacher_forcing(assigned, *tiny_model.batch())
    assert run_once(model, model.nll, assigned) == pytest.approx(expected.nll, rel=1e-4)
    assert tf.executing_eagerly() and float(tf.constant(2.0) * 2) == 4.0


V1 = """
from core.runtime.backend import tf, tf1
tf1.disable_v2_behavior()
from tests.support import tiny_model
with tf.Graph().as_default():
    model = tiny_model.build(dtype=tf.float64, dropout=False)
    gradient, = tf1.gradients(model.build_model(), [model.cell._variables['kernel']])
    captions = model.build_sampler(4)[2]
    features, told = tiny_model.batch()
    feeds = {model.features: features, model.captions: told}
    with tiny_model.session(model, tiny_model.values(model)) as session:
        nll, gradient, captions = session.run((model.nll, gradient, captions), feeds)
print(nll, abs(gradient).sum(), captions.shape)
"""


def test_works_where_all_of_tensorflow_2_is_switched_off(graph):
    """`tf1.disable_v2_behavior()`, which people of TF1 type first: other loops, other variables."""
    done = scripts.python(V1)
    assert done.returncode == 0, done.stderr[-2000:]
    nll, gradient, *shape = done.stdout.split(maxsplit=2)
    model = tiny_model.build(dtype=tf.float64, dropout=False)
    slope, = tf1.gradients(model.build_model(), [model.cell._variables['kernel']])
    expected = run_once(model, (model.nll, slope), tiny_model.values(model))
    assert float(nll) == pytest.approx(expected[0], rel=1e-9)
    assert float(gradient) == pytest.approx(np.abs(expected[1]).sum(), rel=1e-9)
    assert shape == ['(3, 4)\n'] or shape == ['(3, 4)']


@pytest.mark.parametrize('mask_padding', [True, False])
def test_padding_carries_no_loss(graph, mask_padding):
    features, captions = tiny_model.batch()
    losses = []
    for more in (0, 5):
        model = tiny_model.build(dropout=False, n_time_step=T + more, mask_padding=mask_padding)
        model.build_model()
        padded = np.pad(captions, ((0, 0), (0, more)))
        losses.append(run_once(model, model.nll, tiny_model.values(model), captions=padded))
    assert losses[0] == pytest.approx(losses[1], rel=summed(N * (T + 5)))  # sums of so many words


def test_short_batches_are_cut_and_empty_captions_are_harmless(graph):
    model = tiny_model.build(dropout=False, alpha_c=0.7)
    loss = model.build_model()
    assigned = tiny_model.values(model)
    captions = np.array([[START, 4, END, NULL, NULL],
                         [START, NULL, NULL, NULL, NULL],
                         [START, END, NULL, NULL, NULL]])
    found_loss, found = run_once(model, (loss, model.outputs), assigned, captions=captions)
    assert found.alphas.shape == (N, 2, L) and found.mask.tolist() == [[1, 1], [0, 0], [1, 0]]
    expected = teacher_forcing(assigned, tiny_model.batch()[0], captions, alpha_c=0.7)
    assert found_loss == pytest.approx(expected.loss, rel=1e-4)
    empty = np.full((N, T + 1), NULL)
    found_loss, found = run_once(model, (model.nll, model.outputs), assigned, captions=empty)
    assert found_loss == 0 and found.n_words == 0


def test_dropout_follows_its_seed(graph):
    model = tiny_model.build(dropout=True)
    loss = model.build_model()
    evaluated = model.build_model(training=False)
    sampled = tiny_model.sampler(model)
    features, captions = tiny_model.batch()
    feeds = {model.features: features, model.captions: captions}
    with tiny_model.session(model, tiny_model.values(model)) as session:
        def losses(seed):
            return session.run(loss, {**feeds, model.dropout_seed: seed})

        assert losses((1, 2)) == losses((1, 2))
        assert len({losses((1, 2)), losses((1, 3)), losses((2, 2))}) == 3
        assert len({session.run(loss, feeds) for _ in range(4)}) == 4
        assert session.run(evaluated, feeds) == session.run(evaluated, feeds)
        once, again = (session.run(sampled, feeds) for _ in range(2))
        for first, second in zip(once, again, strict=True):
            np.testing.assert_array_equal(first, second)
    for options in ({'dropout': False}, {'dropout_rate': 0.0}):
        model = tiny_model.build(**options)
        model.build_model()
        assert run_once(model, model.nll, tiny_model.values(model)) == pytest.approx(
            teacher_forcing(tiny_model.values(model), *tiny_model.batch()).nll, rel=1e-4)


def own_words(words):
    """Return decoded words (N, T) as captions (N, T + 1): <START> words <END> <NULL>..."""
    after = np.cumsum(words == END, axis=1) - (words == END) > 0
    return np.concatenate([np.full((len(words), 1), START), np.where(after, NULL, words)],
                          axis=1).astype(np.int32)


@pytest.mark.parametrize('options', [
    {},
    {'attention_activation': 'tanh', 'selector': False},
    {'temperature': 0.5},
    sized(PAPER),
    sized(TF2),
    {'cell': 'gru', 'first_word': 'zero'},
    {'attention': 'hard', 'decode_context': 'argmax'},
    VARIANTS[8],
], ids=['default', 'tanh', 'temperature', 'paper', 'tf2', 'gru', 'argmax', 'sentinel'])
def test_decoding_and_training_compute_the_same(graph, options):
    """Also where <UNK> is likely: scores are the model's own.

    Words are masked after the log-softmax.
    """
    model = tiny_model.build(dtype=tf.float64, **options)
    model.build_model(training=False)
    sampled = tiny_model.sampler(model, T)
    decoded = search_loop.greedy(model.decoding(T), word_rules.Rules(END, model.never), T)
    features = tiny_model.batch()[0]
    with tiny_model.session(model) as session:
        for seed, bias in ((0, 0.0), (1, 0.0), (2, 8.0), (3, 8.0)):
            assigned = tiny_model.values(model, seed)
            assigned['logits/b_out'][UNK] += bias
            tiny_model.assign(session, model, assigned)
            found, again = session.run((sampled, decoded), {model.features: features})
            captions = own_words(found.captions)
            nll, forced = session.run((model.nll, model.outputs),
                                      {model.features: features, model.captions: captions})
            np.testing.assert_array_equal(found.captions, again.captions[:, 0])
            assert nll * N == pytest.approx(-again.scores[:, 0].sum(), rel=1e-9)
            np.testing.assert_allclose(forced.log_probs.sum(axis=1), again.scores[:, 0], rtol=1e-9)
            real = captions[:, 1:][:, : forced.mask.shape[1]] != NULL
            # What hard attention shows while decoding is where it looked, not alpha.
            for name in ('betas',) if model.hard else ('alphas', 'betas'):
                decoding, training = (getattr(outputs, name)[:, : real.shape[1]]
                                      for outputs in (found, forced))
                np.testing.assert_allclose(decoding[real], training[real], rtol=1e-9)
            # which the equations have
            if not options.keys() - {'attention_activation', 'selector', 'temperature'}:
                masked = teacher_forcing(assigned, features, captions, training=False,
                                         **options).log_probs
                masked[:, :, [NULL, START, UNK]] = -np.inf
                np.testing.assert_array_equal(masked.argmax(axis=2)[captions[:, 1:] != NULL],
                                              captions[:, 1:][captions[:, 1:] != NULL])


def test_special_words_are_never_emitted(graph):
    model = tiny_model.build()
    sampler = tiny_model.sampler(model, 9)
    for likely in (NULL, START, UNK):
        assigned = tiny_model.values(model)
        assigned['logits/b_out'][likely] = 1e4
        sampled = run_once(model, sampler, assigned)
        assert not np.isin(sampled.captions, [NULL, START, UNK]).any()
        assert sampled.captions.shape == (N, 9) and sampled.captions.dtype == np.int32


def test_one_batch_can_be_overfitted(graph):
    tf1.set_random_seed(2)
    model = tiny_model.build(dropout=False, alpha_c=0.1)
    loss = model.build_model()
    train = tf1.train.AdamOptimizer(0.01).minimize(loss)
    sampled = tiny_model.sampler(model, T)
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
        for name, shape in VARIABLES.items():
            tf1.get_variable(name, shape, use_resource=False,
                             initializer=tf1.constant_initializer(drawn[name]))
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
    assert found == pytest.approx(teacher_forcing(drawn, *tiny_model.batch()).nll, rel=1e-4)


def test_vocabulary_without_unknown_word_and_bad_max_len(graph):
    model = CaptionGenerator({'<NULL>': 0, '<START>': 1, '<END>': 2, 'a': 3}, (L, D), M, H, T)
    assert not np.isin(run_once(model, tiny_model.sampler(model, 3)).captions, [NULL, START]).any()
    with pytest.raises(ValueError, match='max_len'):
        tiny_model.sampler(model, 0)
