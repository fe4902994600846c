"""From a DATA DIR to a RUN DIR: the loop, optimizers, checkpoints, logs. Hands on `Solver`.

`solver` is the loop, `optimization` and `schedules` are what a step does to the variables,
`validation` chooses the best model, `training_state` and `checkpoints` are what a killed run goes
on from, `metrics_log` tells of it, `interrupts` end it in order; `check_gradients` is for who
changes the model.
"""

from typing import Any

__all__ = ['Solver']


def __getattr__(name: str) -> Any:
    """Import `Solver` when it is asked for, as what it needs is slow to import."""
    if name == 'Solver':
        from core.training.solver import Solver

        return Solver
    raise AttributeError(f'module {__name__!r} has no attribute {name!r}')
