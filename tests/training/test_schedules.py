"""What changes in the course of training, as functions of the step."""

import types

import numpy as np
import pytest

from core.common.errors import InputError
from core.config.model import ModelConfig
from core.config.training import TrainingConfig
from core.training.optimization import check_training_options
from core.training.schedules import (
    annealed_at,
    averaging_decay_at,
    learning_rate_at,
    plateau_factor,
)


def options(**values):
    return TrainingConfig(**{'learning_rate': 0.5, **values})


def rates(steps, factor=1.0, **values):
    made = options(learning_rate=0.8, learning_rate_decay=0.5, n_epochs=2, **values)
    return [learning_rate_at(made, step, 3, factor) for step in steps]


def test_schedules():
    steps = (0, 2, 3, 5, 6, 9)  # 3 steps an epoch
    assert rates(steps) == [0.8] * 6
    assert rates(steps, learning_rate_schedule='exponential') == pytest.approx(
        [0.8, 0.8, 0.4, 0.4, 0.2, 0.1])
    assert rates(steps, learning_rate_schedule='cosine') == pytest.approx(
        [0.8, 0.4 * (1 + np.cos(np.pi / 3)), 0.4, 0.4 * (1 + np.cos(np.pi * 5 / 6)), 0, 0])
    assert rates(steps, 0.25, learning_rate_schedule='plateau') == pytest.approx([0.2] * 6)
    assert rates(steps, 0.25) == [0.8] * 6  # the factor is that schedule's alone


@pytest.mark.parametrize('schedule', ['constant', 'exponential', 'cosine', 'plateau'])
def test_warm_up_of_every_schedule(schedule):
    plain = np.array(rates(range(8), 0.5, learning_rate_schedule=schedule))
    warm = rates(range(8), 0.5, learning_rate_schedule=schedule, warmup_steps=4)
    assert warm == pytest.approx(plain * [0.25, 0.5, 0.75, 1, 1, 1, 1, 1])


def test_plateau_lowers_the_rate_after_every_so_many_validations():
    factors, factor = [], 1.0
    # the best score, 5 worse ones, a better one, 2 worse ones
    for waited in (0, 1, 2, 3, 4, 5, 0, 1, 2):
        factor = plateau_factor(options(learning_rate_schedule='plateau', plateau_patience=2,
                                        learning_rate_decay=0.5), factor, waited)
        factors.append(factor)
    assert factors == [1, 1, 0.5, 0.5, 0.25, 0.25, 0.25, 0.25, 0.125]
    assert plateau_factor(options(plateau_patience=1), 1.0, 3) == 1.0


def annealing(model_options=None, annealed=('temperature', 'lambda_e'), **values):
    model = types.SimpleNamespace(options=ModelConfig(**(model_options or {})),
                                  annealed=dict.fromkeys(annealed))
    return options(**values), model


def test_annealing_is_linear_in_the_step():
    made = annealing({'temperature': 1.0, 'lambda_e': 0.25}, anneal_epochs=2.5,
                     temperature_start=3.0, lambda_e_start=1.25)
    values = [annealed_at(*made, step, 4) for step in (0, 5, 10, 11, 100)]  # 10 steps long
    assert [v['temperature'] for v in values] == pytest.approx([3, 2, 1, 1, 1])
    assert [v['lambda_e'] for v in values] == pytest.approx([1.25, 0.75, 0.25, 0.25, 0.25])


def test_only_what_is_asked_for_is_annealed():
    names = ('temperature', 'lambda_e', 'scheduled_sampling')
    assert annealed_at(*annealing(annealed=names), 3, 4) == {}
    one = annealing(anneal_epochs=1.0, temperature_start=2.0)
    assert annealed_at(*one, 0, 4) == {'temperature': 2.0}
    other = annealing({'scheduled_sampling': 0.4}, annealed=names, anneal_epochs=1.0)
    assert annealed_at(*other, 1, 4) == {'scheduled_sampling': pytest.approx(0.1)}


@pytest.mark.parametrize(('values', 'annealed', 'said'), [
    ({'lambda_e_start': 0.1}, ('temperature', 'lambda_e'), 'lambda_e_start needs anneal_epochs'),
    ({'temperature_start': 2.0}, ('temperature',), 'temperature_start needs anneal_epochs'),
    ({'lambda_e_start': 0.1, 'anneal_epochs': 1.0}, ('temperature',),
     'lambda_e_start needs attention=hard'),
    ({'anneal_epochs': 1.0}, ('temperature', 'lambda_e'), 'anneal_epochs has nothing to anneal'),
])
def test_options_without_effect_are_refused(values, annealed, said):
    with pytest.raises(InputError, match=said):
        check_training_options(*annealing(annealed=annealed, **values))


def test_options_with_effect_are_not_refused():
    for allowed in (annealing(), annealing(anneal_epochs=1.0, lambda_e_start=0.1),
                    annealing({'scheduled_sampling': 0.2}, ('temperature', 'scheduled_sampling'),
                              anneal_epochs=0.5)):
        assert check_training_options(*allowed) is None  # raises otherwise


def test_averaging_decay_rises_to_the_option():
    decays = [averaging_decay_at(options(weight_averaging=0.9), step) for step in (0, 10, 1000)]
    assert decays == pytest.approx([1 / 10, 11 / 20, 0.9])
