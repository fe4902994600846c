"""Gradients without calculus: how much a function changes when one number moves a little.

    slopes = differentiate(lambda v: teacher_forcing(v, *batch).loss, v)    # (P,), of all of v
"""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np

STEP = 1e-5  # the error is about its square, or rounding (1e-16) divided by it

# Of variables by name; gives a number or an array.
Function = Callable[[dict[str, np.ndarray]], Any]


def derivative(function: Function, v: Mapping[str, np.ndarray], name: str, index: tuple[int, ...],
               step: float = STEP) -> Any:
    """Return the central difference of function(v) by the one number v[name][index]."""
    ends = []
    for sign in (1, -1):
        moved = v[name].copy()
        moved[index] += sign * step
        ends.append(function({**v, name: moved}))
    return (ends[0] - ends[1]) / (2 * step)


def differentiate(function: Function, v: Mapping[str, np.ndarray],
                  step: float = STEP) -> np.ndarray:
    """Differentiate by every number of v: the function's shape and one axis more, of P numbers."""
    return np.stack([derivative(function, v, name, index, step)
                     for name, value in v.items() for index in np.ndindex(value.shape)], axis=-1)


def some(function: Function, v: Mapping[str, np.ndarray], count: int, seed: int = 0,
         step: float = STEP) -> Iterator[tuple[str, tuple[int, ...], Any]]:
    """Yield (name, index, derivative) at up to `count` places of each variable, drawn by `seed`."""
    random = np.random.default_rng(seed)
    for name, value in v.items():
        for place in random.permutation(value.size)[:count]:
            index = tuple(int(i) for i in np.unravel_index(place, value.shape))
            yield name, index, derivative(function, v, name, index, step)
