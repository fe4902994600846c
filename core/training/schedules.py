"""What changes in the course of training, as functions of the step alone.

Learning rate, annealed quantities, decay of the weights' averages. Training that goes on from a
checkpoint does what it would have done, as nothing here is remembered.
"""

import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from core.config.training import TrainingConfig
    from core.model.caption_generator import CaptionGenerator


def learning_rate_at(options: 'TrainingConfig', step: int, steps_per_epoch: int,
                     factor: float = 1.0) -> float:
    """Return the learning rate of a step.

    Args:
        options: TrainingConfig. step: int, 0, 1, ... steps_per_epoch: int.
        factor: what schedule plateau has lowered the rate to so far, a share (see
            `plateau_factor`).

    Returns:
        float. `warmup_steps` raise it linearly from the first step on, whatever the schedule.
    """
    rate, epochs = options.learning_rate, step / steps_per_epoch
    if options.learning_rate_schedule == 'exponential':
        rate *= options.learning_rate_decay**int(epochs)
    elif options.learning_rate_schedule == 'cosine':
        rate *= 0.5 * (1 + math.cos(math.pi * min(epochs / options.n_epochs, 1)))
    elif options.learning_rate_schedule == 'plateau':
        rate *= factor
    return rate * min((step + 1) / options.warmup_steps, 1) if options.warmup_steps else rate


def plateau_factor(options: 'TrainingConfig', factor: float, waited: int) -> float:
    """Return the `factor` of schedule plateau after a validation.

    Args:
        options: TrainingConfig. factor: before the validation.
        waited: validations in a row without a better score; 0: this one was better.
    """
    if options.learning_rate_schedule != 'plateau' or not waited:
        return factor
    # Every `plateau_patience` validations anew, as long as nothing gets better.
    return factor if waited % options.plateau_patience else factor * options.learning_rate_decay


def annealed_at(options: 'TrainingConfig', model: 'CaptionGenerator', step: int,
                steps_per_epoch: int) -> dict[str, float]:
    """Return the model's annealed quantities at a step; only those that `anneal_epochs` is for.

    Returns:
        dict of name -> float: linear in the step from the start (for `scheduled_sampling` 0) to the
        model's option.
    """
    if not options.anneal_epochs:
        return {}
    share = min(step / (options.anneal_epochs * steps_per_epoch), 1)
    starts = {'lambda_e': options.lambda_e_start or None,
              'temperature': options.temperature_start or None, 'scheduled_sampling': 0.0}
    return {
        name: (1 - share) * start + share * getattr(model.options, name)
        for name in model.annealed if (start := starts[name]) is not None
    }


def averaging_decay_at(options: 'TrainingConfig', step: int) -> float:
    """Return the decay of the moving averages of a step."""
    # Small at first: an average of few steps should hold little of the start.
    return min(options.weight_averaging, (1 + step) / (10 + step))
