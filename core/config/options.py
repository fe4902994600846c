"""Options: fields of a dataclass that document themselves and know which values they admit.

    @dataclasses.dataclass(frozen=True)
    class ModelConfig:
        dim_embed: int = option(512, 'size M of a word vector', minimum=1)
"""

import dataclasses
import math
from collections.abc import Sequence
from typing import Any, NamedTuple, TypeVar, cast

from core.common.aliases import Json
from core.common.errors import InputError

Value = bool | int | float | str  # of an option
V = TypeVar('V', bool, int, float, str)


class OptionInfo(NamedTuple):
    """One option as --options lists it; the first three are names, `help` is one line."""

    section: str
    name: str
    type_name: str
    default: Value
    help: str
    choices: Sequence[str] | None
    compatibility: bool


def option(default: V, help: str, choices: Sequence[str] | None = None,
           minimum: float | None = None, maximum: float | None = None,
           compatibility: bool = False) -> V:
    """Return a dataclass field that documents itself and knows which values it admits.

    Args:
        default: of the type of the field. help: one line.
        choices: the texts it admits. minimum, maximum: of a number, both admitted. None: no limit.
        compatibility: needed by presets and importers of published checkpoints alone; listed on
            demand.
    """
    return dataclasses.field(default=default, metadata={
        'help': help, 'choices': choices, 'minimum': minimum, 'maximum': maximum,
        'compatibility': compatibility})


def describe(section: str, field: 'dataclasses.Field[Any]') -> OptionInfo:
    """Return what --options lists of a field made by `option`."""
    return OptionInfo(section, field.name, _type(field).__name__, cast(Value, field.default),
                      field.metadata['help'], field.metadata['choices'],
                      field.metadata['compatibility'])


def checked(field: 'dataclasses.Field[Any]', value: Json, where: str) -> Value:
    """Return the value of a field made by `option`, a whole number as float where it takes one.

    Raises:
        InputError: another type, or a value that the option does not admit; after `where`.
    """
    kind, limits = _type(field), field.metadata
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        value = float(value) if abs(value) < 1e308 else math.inf
    if not isinstance(value, kind) or (kind is not bool and isinstance(value, bool)):
        raise InputError(f'{where}: {field.name} must be {_article(kind)}, not {value!r}')
    if limits['choices'] and value not in limits['choices']:
        raise InputError(f'{where}: {field.name} must be one of {", ".join(limits["choices"])}, '
                         f'not {value!r}')
    if isinstance(value, float) and not math.isfinite(value):
        raise InputError(f'{where}: {field.name} must be a finite number, not {value!r}')
    if limits['minimum'] is not None and value < limits['minimum']:
        raise InputError(f'{where}: {field.name} must be at least {limits["minimum"]}, not '
                         f'{value!r}')
    if limits['maximum'] is not None and value > limits['maximum']:
        raise InputError(
            f'{where}: {field.name} must be at most {limits["maximum"]}, not {value!r}')
    return value


def _type(field: 'dataclasses.Field[Any]') -> type[Value]:
    """Return the type of the field's values."""
    assert isinstance(field.type, type), f'{field.name}: annotated with the name of a type'
    return field.type


def _article(kind: type[Value]) -> str:
    """Return what a value of the type is called in messages."""
    return {int: 'a whole number', float: 'a number', bool: 'true or false', str: 'a text'}[kind]
