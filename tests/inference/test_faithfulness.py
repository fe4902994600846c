"""The faithfulness test: exact falls, what it says of known attention, and of a run."""

import dataclasses

import numpy as np
import pytest

from core.common.errors import InputError
from core.decoding.captions import Caption
from core.inference import evaluation, faithfulness
from core.reference import equations, variants
from core.runs.run_dir import Run
from core.runtime.backend import tf
from tests.support import quick_sessions, tiny_model
from tests.support.model_cases import HARD, TF2, sized
from tests.support.tiny_model import START, L, N

MAX_LEN = 6
N_PLACES = [1, 3, L]
WORDS = [['a', 'dog'], ['red', 'circle', 'runs'], ['grass']]
CASES = {
    'default': {},
    'sentinel': {'sentinel': True, 'selector': False, 'attention_activation': 'tanh'},
    'gru': {'cell': 'gru'},
    'feature layer': {'feature_layer': 9, 'attention_activation': 'tanh'},
    'narrow attention': {'attention_size': 4, 'attention_layers': 3, 'attention_bias': 'both',
                         'score_bias': True, 'temperature': 1.75},
    'context first': {'cell_input': 'context_word', 'first_word': 'zero', 'initial_layers': 2},
    'tf2': sized(TF2),
    'expected': HARD,
    'argmax': {**HARD, 'decode_context': 'argmax'},
    'sample': {**HARD, 'decode_context': 'sample'},
}


@pytest.fixture(scope='module', autouse=True)
def quick():
    """Grappler takes longer than these small graphs run."""
    with pytest.MonkeyPatch.context() as patch:
        quick_sessions.install(patch)
        yield


def computed(model, assigned, features, captions, n_places, seed=1):
    """Return the FaithfulnessGraph's values, and the numbers that decide drawn locations."""
    test = faithfulness.build(model, n_places, MAX_LEN)
    results = test._replace(n_variants=tf.constant(test.n_variants))
    draws = model.location_draws(MAX_LEN)
    with tiny_model.session(model, assigned) as session:
        return session.run((results, draws), {
            test.words: faithfulness.encoded(captions, model), model.features: features,
            model.dropout_seed: (seed, 0)})


class PlainModel:
    """One word at a time in NumPy, on whatever features one image has."""

    def __init__(self, v, options):
        self.v, self.options = dict(v), options
        if options.first_word == 'zero':
            self.v['word_embedding/w'] = v['word_embedding/w'].copy()
            self.v['word_embedding/w'][START] = 0

    def annotations(self, features):
        a = np.asarray(features, np.float64)[np.newaxis]
        if self.options.batch_norm:
            a = equations.normalised(self.v, a, training=False)
        if self.options.feature_layer:
            a = equations.relu(a @ self.v['feature_layer/w'] + self.v['feature_layer/b'])
        return a

    def first_state(self, features):
        return variants.first_state(self.v, self.annotations(features), self.options)

    def step(self, features, word, state, uniform):
        """Return the Step after `word`; `uniform` decides a drawn location."""
        a, vector = self.annotations(features), self.v['word_embedding/w'][[word]]
        options = self.options
        if not (options.sentinel or options.attention == 'hard'):
            return variants.step(self.v, a, vector, *state, options=options)
        more = {'attention_activation': options.attention_activation,
                'selector': options.selector, 'sentinel': options.sentinel}
        one = equations.step(self.v, a, vector, *state, **more)
        if options.decode_context == 'expected':
            return one
        alpha = np.exp(one.log_alpha[0])
        location = (alpha.argmax() if options.decode_context == 'argmax'
                    else np.searchsorted(alpha.cumsum(), uniform))
        return equations.step(self.v, a, vector, *state, np.array([location]), **more)


@pytest.mark.parametrize('case', CASES)
def test_falls_are_those_of_the_model_on_images_that_were_altered(graph, case):
    model = tiny_model.build(dtype=tf.float64, **CASES[case])
    v, features = tiny_model.values(model), tiny_model.batch()[0]
    found, draws = computed(model, v, features, WORDS, N_PLACES)
    assert found.altered.shape == (N, 3, found.n_variants)
    plain, n_changed = PlainModel(v, model.options), 0
    for image, words in enumerate(WORDS):
        state, fed = plain.first_state(features[image]), START
        mean = features[image].astype(np.float64).mean(axis=0)
        for t, word in enumerate(map(model.word_to_idx.get, words)):
            one = plain.step(features[image], fed, state, draws[image, t])
            np.testing.assert_allclose(found.alphas[image, t], np.exp(one.log_alpha[0]), rtol=1e-9)
            assert found.log_probs[image, t] == pytest.approx(one.log_probs[0, word], rel=1e-9)
            for variant, replaced in enumerate(found.replaced[image, t]):
                altered = np.where(replaced[:, np.newaxis], mean, features[image])
                log_prob = plain.step(altered, fed, state, draws[image, t]).log_probs[0, word]
                assert found.altered[image, t, variant] == pytest.approx(log_prob, rel=1e-9)
                n_changed += abs(log_prob - one.log_probs[0, word]) > 1e-4
            state, fed = (one.h, one.c), word
    assert n_changed > 50  # of 6 words in 21 variants; with drawn locations many change nothing


def test_places_are_the_most_and_least_attended_and_random_ones(graph):
    model = tiny_model.build(dtype=tf.float64)
    found, _ = computed(model, tiny_model.values(model), tiny_model.batch()[0], WORDS, N_PLACES)
    replaced = found.replaced.reshape(N, 3, 2 + faithfulness.DRAWS, len(N_PLACES), L)
    assert (replaced.sum(axis=-1) == N_PLACES).all()
    order = found.alphas.argsort(axis=-1)
    for column, k in enumerate(N_PLACES):
        for image, t in np.ndindex(N, 3):
            most, least = (set(np.flatnonzero(replaced[image, t, i, column])) for i in (0, 1))
            assert most == set(order[image, t, L - k:]) and least == set(order[image, t, :k])
    drawn = replaced[:, :, 2:]
    assert (drawn[..., 0, :] <= drawn[..., 1, :]).all()  # one draw's places are nested
    assert (drawn[..., 0, :].sum(axis=(0, 1, 2)) > 0).all()  # every place has its turn
    assert (drawn[0] != drawn[1]).any() and (drawn[:, 0] != drawn[:, 1]).any()


def zeros(model, **others):
    """Return zeros for every variable by name, but for (index, value) of the others."""
    values = {name: np.zeros_like(value) for name, value in tiny_model.values(model).items()}
    for name, entries in others.items():
        for index, value in entries.items():
            values[name.replace('__', '/')][index] = value
    return values


def test_a_word_of_one_place_falls_with_that_place_alone(graph):
    n_all, place, word = 41, 17, 9
    model = tiny_model.build(dim_feature=(n_all, 7), dtype=tf.float64, batch_norm=False,
                             selector=False, prev2out=False)
    # Feature 0 draws the attention, feature 1 tells the word; no state, no other word counts.
    v = zeros(model, project_features__w={(0, 0): 1.0}, attention_layer__w_att={(0, 0): 60.0},
              logits__w_ctx2out={(1, 0): 1.0}, logits__w_out={(0, word): 10.0})
    features = np.zeros((2, n_all, 7), np.float32)
    features[:, place, 0], features[:, place, 1] = 1, 5
    found, _ = computed(model, v, features, [[model.idx_to_word[word]] * 4] * 2, [1, 4])

    def log_prob(context):
        return equations.log_softmax(10 * np.tanh(context) * np.eye(model.V)[word])[word]

    scores = np.zeros(n_all)
    scores[0] = 60 / n_all  # of the one place that has the mean feature
    alpha = np.exp(equations.log_softmax(scores))
    intact, without = log_prob(5), log_prob(alpha[0] * 5 / n_all)
    assert intact - without > 2
    np.testing.assert_allclose(found.log_probs, intact, atol=1e-9)
    np.testing.assert_allclose(found.alphas[..., place], 1, rtol=1e-9)
    altered = found.altered.reshape(2, 4, 2 + faithfulness.DRAWS, 2)
    hit = found.replaced.reshape(2, 4, 2 + faithfulness.DRAWS, 2, n_all)[..., place]
    np.testing.assert_allclose(altered[:, :, :, 0], np.where(hit[..., 0], without, intact),
                               atol=1e-9)
    assert hit[:, :, 0].all() and not hit[:, :, 1].any()
    np.testing.assert_allclose(altered[:, :, 1], intact, atol=1e-9)  # 4 of the least, too
    assert hit[:, :, 2:].mean() < 0.2  # of random places few are that one


def test_even_attention_makes_all_places_alike(graph):
    """Though all is at the first place: the order of equal weights is random."""
    n_images, word = 2000, 9
    model = tiny_model.build(dtype=tf.float64, batch_norm=False, selector=False, prev2out=False)
    v = zeros(model, logits__w_ctx2out={(1, 0): 1.0}, logits__w_out={(0, word): 10.0})
    features = np.zeros((n_images, L, 7), np.float32)
    features[:, 0, 1] = 1
    found, _ = computed(model, v, features, [[model.idx_to_word[word]]] * n_images, [1, L])
    np.testing.assert_allclose(found.alphas, 1 / L, rtol=1e-12)
    falls = (found.log_probs[..., np.newaxis] - found.altered).reshape(n_images, -1, 2)
    np.testing.assert_allclose(falls[..., 1], 0, atol=1e-12)  # of all places the mean stays

    def log_prob(context):
        return equations.log_softmax(10 * np.tanh(context) * np.eye(model.V)[word])[word]

    hit = found.replaced.reshape(n_images, -1, 2, L)[:, :, 0, 0]
    with_mean = np.where(hit, 1 / L**2, 1 / L + 1 / L**2)
    np.testing.assert_allclose(falls[..., 0], log_prob(1 / L) - np.vectorize(log_prob)(with_mean),
                               atol=1e-9)
    for choice in hit.T:  # most, least and each random one
        assert abs(choice.mean() - 1 / L) < 3 * np.sqrt((1 - 1 / L) / L / n_images)


def test_standard_error_counts_images_and_not_words():
    values, images = np.array([1.0, 3, 3, 5]), np.array([7, 7, 2, 9])
    # mean 3; the images' sums of differences: -2, 0, 2
    assert faithfulness.mean_over_words(values, images) == {
        'mean': 3.0, 'standard_error': pytest.approx(np.sqrt(3 / 2 * 8) / 4)}
    repeated = faithfulness.mean_over_words(np.repeat(values, 5), np.repeat(images, 5))
    assert repeated['standard_error'] == pytest.approx(np.sqrt(3 / 2 * 8) / 4)
    assert faithfulness.mean_over_words(values[:2], images[:2]) == {'mean': 2.0,
                                                                   'standard_error': None}
    assert faithfulness.mean_over_words(values[:0], images[:0]) == {'mean': None,
                                                                   'standard_error': None}


# ---- of a run


def captions_of(run, n_images=3):
    data = run.data().split('dev')
    hypotheses = evaluation._caption([run], data, np.arange(n_images), 'dev', lambda line: None, 1,
                                     None, 1, None)
    return data, {image: captions[0] for image, captions in hypotheses.items()}


def quietly(run, data, captions, n_places, **options):
    return faithfulness.measure(run, data, captions, n_places, say=lambda line: None, **options)


@pytest.mark.parametrize('assignments', [[], ['beam_width=3'], ['sample=true', 'max_len=7']])
def test_the_captions_own_words_have_the_probabilities_of_decoding(sample_run, assignments):
    run = Run(sample_run)
    run.set_decoding(assignments=assignments)
    data, captions = captions_of(run)
    result = quietly(run, data, captions, [1])
    expected = np.log(np.concatenate([caption.probabilities for caption in captions.values()]))
    assert result['words']['n_words'] == len(expected) > 0
    assert result['words']['log_prob'] == pytest.approx(expected.mean(), rel=1e-5)
    assert 'object_words' not in result


def test_places_follow_the_seed_and_images_do_not_mix(sample_run, monkeypatch):
    run = Run(sample_run)
    data, captions = captions_of(run)
    first, again, other = (quietly(run, data, captions, [2, 9], seed=seed) for seed in (1, 1, 2))
    assert first == again
    for k, before, after in zip((2, 9), first['words']['falls'], other['words']['falls'],
                                strict=True):
        assert before['k'] == k and before['most'] == pytest.approx(after['most'], rel=1e-6)
        assert before['random'] != after['random']
        assert before['most_minus_random']['mean'] == pytest.approx(
            before['most']['mean'] - before['random']['mean'], abs=1e-9)
    monkeypatch.setattr(faithfulness, 'ROWS', 1)
    alone = quietly(run, data, captions, [2, 9])
    for one, row in zip(alone['words']['falls'], first['words']['falls'], strict=True):
        for choice in faithfulness.CHOICES:
            assert one[choice] == pytest.approx(row[choice], rel=1e-3, abs=1e-5)


def test_words_that_name_an_object_count_apart(sample_run):
    run = Run(sample_run)
    data, captions = captions_of(run)
    all_words = {image: set(range(len(caption.words))) for image, caption in captions.items()}
    result = quietly(run, data, captions, [3], object_words=all_words)
    assert result['object_words'] == result['words']
    one = quietly(run, data, captions, [3], object_words={0: {1}, 1: set(), 2: set()})
    assert one['object_words']['n_words'] == 1 and one['words'] == result['words']
    assert one['object_words']['log_prob'] == pytest.approx(
        np.log(captions[0].probabilities[1]), rel=1e-4)
    none = quietly(run, data, captions, [3], object_words=dict.fromkeys(captions, set()))
    assert none['object_words']['log_prob'] is None and 'naming an object, 3' in (
        faithfulness.table(none))


def test_captions_without_words_have_no_figures(sample_run):
    run = Run(sample_run)
    empty = Caption([], np.zeros((0, 256)), np.zeros(0), True, -1.0, -1.0, np.zeros(0))
    result = quietly(run, run.data().split('dev'), {0: empty}, [1, 2])
    assert result['words']['n_words'] == 0
    assert [row['most'] for row in result['words']['falls']] == [
        {'mean': None, 'standard_error': None}] * 2
    assert 'all, 2 places' in faithfulness.table(result)


@pytest.mark.slow
def test_a_fine_tuned_run_is_tested_on_its_own_encoders_features(sample_dirs):
    run = Run(sample_dirs.run('tuned', 'finetune_from=conv2_2', 'augment=false'))
    data = run.split(run.data(), 'dev')
    hypotheses = evaluation._caption([run], data, np.arange(2), 'dev', lambda line: None, 1, None,
                                     1, None)
    captions = {image: captions[0] for image, captions in hypotheses.items()}
    result = quietly(run, data, captions, [5])
    expected = np.log(np.concatenate([caption.probabilities for caption in captions.values()]))
    assert result['words']['log_prob'] == pytest.approx(expected.mean(), rel=1e-5)
    assert result['words']['falls'][0]['most']['mean'] != 0


def test_numbers_of_places(sample_run):
    run = Run(sample_run)
    assert faithfulness.check_places(run) == [3, 13, 26, 51]  # of 256
    assert faithfulness.check_places(run, [256, 1, 1]) == [1, 256]
    few = Run(sample_run)
    few.spec = dataclasses.replace(few.spec, grid=(2, 2))
    assert faithfulness.check_places(few) == [1]
    for k in (0, 257):
        with pytest.raises(InputError, match=f'--faithfulness-places must be 1 to the 256.*{k}'):
            faithfulness.check_places(run, [k])
