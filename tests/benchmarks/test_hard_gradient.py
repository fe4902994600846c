"""The gradient of hard attention as a whole: Monte Carlo with fewer draws, and enumeration."""

import numpy as np
import pytest

from benchmarks.hard_gradient import measure
from core.reference.location_paths import PLAIN
from core.reference.sample_model import exact


@pytest.mark.parametrize('options', [
    {'baseline': 'moving', 'lambda_r': 0.5},
    {'baseline': 'moving', 'semi_sampling_p': 0.5, 'lambda_e': 0.1},
    {'reward': 'to_go', 'baseline': 'leave_one_out', 'n_samples': 4},
    {'reward': 'to_go', 'baseline': 'self_critical', 'semi_sampling_p': 0.5, 'n_samples': 2},
], ids=lambda options: '-'.join(map(str, options.values())))
def test_mean_and_variance_of_many_draws(options):
    draws = 20000
    result = measure(options, draws, np.inf, repeats=100)
    for name, (error, distance, _) in result['variables'].items():
        assert distance < 4, (name, error, distance)
    np.testing.assert_allclose(result['variance'], result['exact_variance'], rtol=0.3)
    # What the bound would see: a REINFORCE term of the wrong sign, absent, or of a wrong factor.
    drawn = {**PLAIN, **options}
    mean, variance = exact().moments(**drawn)
    one_error = np.sqrt(variance.sum() / draws)
    share = 1 / drawn['n_samples'] if drawn['n_samples'] > 1 else 1 / drawn['lambda_r']
    for factor in (-1, 0, share):
        if factor != 1:
            wrong, _ = exact().moments(**{**drawn, 'lambda_r': factor * drawn['lambda_r']})
            assert np.linalg.norm(wrong - mean) > 8 * one_error
