"""What an option is: a field of a dataclass that documents itself and knows which values it admits.

    @dataclasses.dataclass(frozen=True)
    class ModelConfig:
        dim_embed: int = option(512, 'size M of a word vector', minimum=1)
"""

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

from core.common.errors import InputError


def option(default: Any, help: str, choices: Sequence[str] | None = None,
           minimum: float | None = None, maximum: float | None = None) -> Any:
    """A dataclass field that documents itself: `help` in one line, and what values it admits."""
    return dataclasses.field(default=default, metadata={
        'help': help, 'choices': choices, 'minimum': minimum, 'maximum': maximum})


def checked(field: Any, value: Any, where: str) -> Any:
    """The value of a field made by `option`, a whole number as float where it takes one.

    Raises:
        InputError: another type, or a value that the option does not admit; after `where`.
    """
    kind, limits = field.type, field.metadata
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        value = float(value) if abs(value) < 1e308 else math.inf
    if not isinstance(value, kind) or (kind is not bool and isinstance(value, bool)):
        raise InputError(f'{where}: {field.name} must be {_article(kind)}, not {value!r}')
    if limits['choices'] and value not in limits['choices']:
        raise InputError(f'{where}: {field.name} must be one of {", ".join(limits["choices"])}, '
                         f'not {value!r}')
    if kind is float and not math.isfinite(value):
        raise InputError(f'{where}: {field.name} must be a finite number, not {value!r}')
    if limits['minimum'] is not None and value < limits['minimum']:
        raise InputError(f'{where}: {field.name} must be at least {limits["minimum"]}, not '
                         f'{value!r}')
    if limits['maximum'] is not None and value > limits['maximum']:
        raise InputError(
            f'{where}: {field.name} must be at most {limits["maximum"]}, not {value!r}')
    return value


def _article(kind: type) -> str:
    return {int: 'a whole number', float: 'a number', bool: 'true or false', str: 'a text'}[kind]
