"""The gradient of hard attention (paper 4.1) against exact enumeration.

Three links make the proof. The estimator's mean over all sequences of locations is the gradient of
the objective (NumPy alone, `core.reference.location_paths`). In every run the model's gradient is
that estimator for the locations it drew. And it draws sequences with their probabilities.
tests/benchmarks/test_hard_gradient.py closes the chain once more as a whole;
benchmarks/hard_gradient.py does so with more draws and all options.
"""

import contextlib
import functools

import numpy as np
import pytest

from core.reference import sample_model
from core.reference.location_paths import PLAIN, moved
from core.reference.sample_model import NULL, L, N, T, exact
from tests.support.drawn_gradients import drawn_gradients


@pytest.fixture(scope='module')
def opened():
    """Return a function of options that gives DrawnGradients of the sample's variables.

    One for equal options: building is most of a test's time.
    """
    with contextlib.ExitStack() as stack:
        @functools.cache
        def opened(**options):
            return stack.enter_context(drawn_gradients(exact().v, **options))

        yield opened


# ---- first link: NumPy alone

@pytest.mark.parametrize('options', [
    {},
    {'lambda_r': 0.3, 'lambda_e': 0.2, 'semi_sampling_p': 0.5},
])
def test_the_estimator_has_the_gradient_of_the_objective_as_mean(options):
    enumerated = exact(alpha_c=0.5)
    np.testing.assert_allclose(enumerated.at.probability.sum(axis=1), 1, rtol=1e-12)
    expected = enumerated.gradient(**options)
    for reward in ('sequence', 'to_go'):
        for baseline in ('none', 'moving', 'self_critical'):
            mean, _ = enumerated.moments(**options, reward=reward, baseline=baseline)
            np.testing.assert_allclose(mean, expected, rtol=0, atol=1e-8 * np.linalg.norm(expected))


def test_lambda_r_of_one_is_the_gradient_of_the_expected_likelihood():
    enumerated = exact()
    total = enumerated.total_gradient()
    scale = np.linalg.norm(total)
    np.testing.assert_allclose(enumerated.gradient(lambda_r=1.0), total, rtol=0, atol=1e-8 * scale)
    np.testing.assert_allclose(enumerated.total_gradient(step=4e-5), total, rtol=0,
                               atol=1e-7 * scale)
    assert np.linalg.norm(enumerated.gradient(lambda_r=0.0) - total) > 0.1 * scale


# ---- second link: the model, run by run

@pytest.mark.parametrize('options', [
    {},
    {'lambda_r': 0.3, 'lambda_e': 0.25, 'alpha_c': 0.5},
    {'baseline': 'moving', 'semi_sampling_p': 0.5, 'lambda_e': 0.25},
    {'reward': 'to_go', 'baseline': 'moving', 'semi_sampling_p': 0.5, 'n_samples': 3,
     'alpha_c': 0.5},
    {'baseline': 'leave_one_out', 'n_samples': 4},
    {'reward': 'to_go', 'baseline': 'leave_one_out', 'n_samples': 2, 'semi_sampling_p': 0.5,
     'lambda_e': 0.25},
    {'baseline': 'self_critical', 'temperature': 0.5, 'n_samples': 2},
    {'reward': 'to_go', 'baseline': 'self_critical', 'batch_norm': True,
     'attention_activation': 'tanh'},
], ids=lambda options: '-'.join(map(str, options.values())) or 'plain')
def test_every_run_is_the_estimator_for_its_draws(options):
    names = ('alpha_c', 'temperature', 'batch_norm', 'attention_activation')
    enumerated = exact(**{name: options[name] for name in names if name in options})
    drawn = {name: options.get(name, value) for name, value in PLAIN.items()}
    n_samples, repeats, p = drawn['n_samples'], 6, drawn.pop('semi_sampling_p')
    with drawn_gradients(enumerated.v, **options) as gradients:
        model = gradients.model
        outputs = model.outputs._asdict()
        moving = None if model.baseline is None else np.full(model.baseline.shape, 0.0)
        for seed in range(3):
            gradient, out = gradients.run((seed, 4), repeats, outputs)
            rows = N * repeats * n_samples
            captions = np.repeat(np.arange(N), repeats * n_samples)
            paths = exact().number(out['locations'])
            assert out['locations'].shape == out['log_probs'].shape == (rows, T)
            soft = enumerated.soft_at.words[captions]
            sampled = abs(out['log_probs'] - soft).max(axis=1) > 1e-9
            coins = sampled.reshape(-1, n_samples)
            assert (coins == coins[:, :1]).all()
            assert sampled.all() if p == 1 else 0 < sampled.mean() < 1

            def walked(name, sampled=sampled, captions=captions, paths=paths):
                drawn_at, soft_at = (getattr(at, name)
                                     for at in (enumerated.at, enumerated.soft_at))
                where = sampled.reshape([-1] + [1] * (drawn_at.ndim - 2))
                return np.where(where, drawn_at[captions, paths], soft_at[captions])

            mask = (enumerated.captions[captions, 1:] != NULL) * 1.0
            np.testing.assert_array_equal(out['mask'], mask)
            np.testing.assert_allclose(out['log_probs'], walked('words'), atol=1e-9)
            # The last word of a caption is followed by draws that nothing sees: they are compared
            # where they count.
            np.testing.assert_allclose(out['alphas'] * mask[:, :, None],
                                       walked('alphas') * mask[:, :, None], atol=1e-9)
            np.testing.assert_allclose(out['nll'], -walked('words').sum() / rows)
            np.testing.assert_allclose(out['regularizer'], walked('penalty').sum() / rows)
            np.testing.assert_allclose(out['entropy'], walked('entropy').sum() / mask.sum())
            assert out['n_words'] == (2 * T - 1) * repeats

            expected, rewards = enumerated.of_draws(out['locations'], sampled, moving, **drawn)
            scale = np.linalg.norm(expected)
            np.testing.assert_allclose(gradient, expected, rtol=0, atol=1e-7 * scale)
            if moving is not None:
                counted = mask * sampled[:, None]
                moving = moved(moving, rewards, counted)
                np.testing.assert_allclose(gradients.session.run(model.baseline), moving, rtol=1e-9)


# ---- third link: how locations are drawn

def draws_of_one_run(gradients, repeats):
    """Return locations (N * repeats * n_samples, T) of a single run, and log_probs likewise."""
    outputs = gradients.model.outputs
    return gradients.run((3, 4), repeats, (outputs.locations, outputs.log_probs))[1]


def test_sequences_are_drawn_with_their_probabilities(opened):
    repeats = 20000
    locations, _ = draws_of_one_run(opened(), repeats)
    for caption, drawn in enumerate(exact().number(locations).reshape(N, -1)):
        expected = exact().at.probability[caption] * repeats
        counted = expected >= 5
        difference = np.bincount(drawn, minlength=L**T) - expected
        chi_square = (difference[counted]**2 / expected[counted]).sum()
        freedom = counted.sum() - 1
        assert freedom > 8
        assert chi_square < freedom + 4 * np.sqrt(2 * freedom)


def test_each_caption_tosses_its_own_coin(opened):
    repeats, p = 4000, 0.3
    _, log_probs = draws_of_one_run(opened(semi_sampling_p=p), repeats)
    soft = np.repeat(exact().soft_at.words, repeats, axis=0)
    sampled = (abs(log_probs - soft).max(axis=1) > 1e-9).reshape(N, repeats)
    np.testing.assert_allclose(sampled.mean(axis=1), p, atol=4 * np.sqrt(p * (1 - p) / repeats))
    # Neighbours do not follow one another, neither in one caption's rows nor across captions.
    for one, other in ((sampled[0, 1:], sampled[0, :-1]), (sampled[0], sampled[1])):
        assert abs(np.corrcoef(one, other)[0, 1]) < 4 / np.sqrt(repeats)


def test_each_row_and_each_sample_draws_its_own(opened):
    locations, _ = draws_of_one_run(opened(n_samples=4, alpha_c=0.5), 500)
    paths = exact().number(locations).reshape(N, 500, 4)
    for caption in range(N):
        p = exact().at.probability[caption]
        alike = (p**2).sum()  # how often two independent draws fall together
        for one, other in ((paths[caption, :-1], paths[caption, 1:]),
                           (paths[caption, :, :2], paths[caption, :, 2:])):
            share = (one == other).mean()
            assert abs(share - alike) < 5 * np.sqrt(alike * (1 - alike) / one.size)


def test_draws_follow_their_seed_and_only_it(opened):
    gradients = opened(semi_sampling_p=0.3)
    model = gradients.model
    outputs = (model.outputs.locations, model.outputs.log_probs, model.loss)
    (_, one), (_, again), (_, other) = (gradients.run(seed, 20, outputs)
                                        for seed in ((1, 2), (1, 2), (1, 3)))
    for x, y in zip(one, again, strict=True):
        np.testing.assert_array_equal(x, y)
    features, captions = sample_model.batch()
    feed = {model.features: features, model.captions: captions}
    unfed = [gradients.session.run(model.loss, feed) for _ in range(6)]
    assert (one[0] != other[0]).any() and len(set(unfed)) > 1


# ---- single rules

def test_a_drawn_location_passes_no_gradient_to_alpha(opened):
    without = exact().named(opened(lambda_r=0.0).run((1, 2), 20))
    soft = exact().named(opened(semi_sampling_p=0.0).run((1, 2), 20))
    for name in sample_model.SHAPES:
        if name.startswith(('attention_layer', 'project_features')):
            assert not without[name].any() and soft[name].any()
    assert without['logits/w_out'].any()


def test_padding_is_neither_credited_nor_blamed(opened):
    features, captions = sample_model.batch()
    enumerated = exact()
    gradients = opened(baseline='moving', reward='sequence', lambda_e=0.5)
    model = gradients.model
    set_baseline = model.baseline.initializer
    gradients.session.run(set_baseline, {set_baseline.inputs[1]: -2.0})
    # The shorter caption, whose last step is cut off, and a row without any word.
    alone = np.array([captions[1], np.full(T + 1, NULL)], np.int32)
    feed = {model.features: features[::-1], model.captions: alone}
    gradient, locations = gradients.run((1, 2), 1, model.outputs.locations, feed)
    assert locations.shape == (2, T - 1)
    path = exact().number(np.append(locations[0], 0))
    baseline = np.array([-2.0, -2.0, 99.0])
    expected = enumerated.estimates(lambda_e=0.5, baseline=baseline)[1, path] / 2
    np.testing.assert_allclose(gradient, expected, rtol=0, atol=1e-7 * np.linalg.norm(expected))
    reward = enumerated.at.words[1, path].sum()
    np.testing.assert_allclose(gradients.session.run(model.baseline), 0.9 * -2.0 + 0.1 * reward,
                               rtol=1e-9)


def test_captions_of_one_image_share_its_features(opened):
    features, captions = sample_model.batch()
    gradients = opened(n_samples=2, baseline='leave_one_out', semi_sampling_p=0.5)
    model, each = gradients.model, np.stack([captions[0], captions[1], captions[1]] * 2)
    (one, (loss, paths)), (other, (loss_apart, paths_apart)) = (
        gradients.run((1, 2), 1, (model.loss, model.outputs.locations),
                      {model.features: fed, model.captions: each})
        for fed in (features, np.repeat(features, 3, axis=0)))
    assert paths.shape == (12, T)
    np.testing.assert_array_equal(paths, paths_apart)
    np.testing.assert_allclose(loss, loss_apart)
    np.testing.assert_allclose(one, other, rtol=1e-9, atol=1e-12)


def test_the_regulariser_is_a_mean_over_samples_in_both_reductions(opened):
    for options, divisor in (({}, 2 * N), ({'regularizer_reduction': 'locations'}, L)):
        gradients = opened(n_samples=4, alpha_c=0.5, **options)
        outputs = gradients.model.outputs
        _, (regularizer, locations) = gradients.run((1, 2), 2,
                                                    (outputs.regularizer, outputs.locations))
        penalty = exact(alpha_c=0.5).at.penalty[np.repeat(np.arange(N), 8),
                                                exact().number(locations)]
        np.testing.assert_allclose(regularizer, penalty.sum() / 4 / divisor, rtol=1e-9)


def test_annealed_values_can_be_fed(opened):
    expected = opened(lambda_e=0.5, temperature=0.5).run((1, 2), 5)
    gradients = opened()
    annealed = gradients.model.annealed
    assert set(annealed) == {'lambda_e', 'temperature'}
    fed = gradients.run((1, 2), 5, feed={annealed['lambda_e']: 0.5, annealed['temperature']: 0.5})
    np.testing.assert_allclose(fed, expected, rtol=1e-9, atol=1e-12)
    assert abs(gradients.run((1, 2), 5) - expected).max() > 1e-3
