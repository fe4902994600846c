"""Typed, documented options of the model, of training and of decoding, and their JSON form.

    config = Config()
    config = config.override(['dim_hidden=512', 'learning_rate=4e-4'])
    config.save('run/config.json')

A name belongs to one section only, so `--set dim_hidden=512` needs no prefix. Unknown names and values of the wrong
type are errors (InputError), with the nearest known name proposed.
"""

import dataclasses
import difflib
import json
import math
import pathlib

from core.errors import InputError
from core.files import write_json


def option(default, help, choices=None, minimum=None, maximum=None):
    """A dataclass field that documents itself: `help` in one line, and what values it admits."""
    return dataclasses.field(
        default=default, metadata={'help': help, 'choices': choices, 'minimum': minimum, 'maximum': maximum}
    )


@dataclasses.dataclass(frozen=True)
class ModelConfig:
    """The architecture; the defaults are those of the TF1 model (`docs/model.md` maps each to its equation)."""

    dim_embed: int = option(512, 'size M of a word vector', minimum=1)
    dim_hidden: int = option(1024, 'size H of the LSTM state', minimum=1)
    prev2out: bool = option(True, 'the previous word feeds the output layer (eq. 7)')
    ctx2out: bool = option(True, 'the context feeds the output layer (eq. 7)')
    alpha_c: float = option(1.0, 'weight of the doubly stochastic regulariser (4.2.1)', minimum=0)
    selector: bool = option(True, 'gate beta scales the context (4.2.1)')
    dropout: bool = option(True, 'dropout on h and on the output layer while training')
    dropout_rate: float = option(0.5, 'share of units that dropout sets to zero', minimum=0, maximum=0.95)
    attention_activation: str = option('relu', 'non-linearity of the attention', choices=('relu', 'tanh'))
    mask_padding: bool = option(True, 'padding steps do not count in the regulariser (the TF1 code counts them)')


@dataclasses.dataclass(frozen=True)
class TrainingConfig:
    """How the model is trained; names as in the TF1 code where the meaning is the same."""

    n_epochs: int = option(20, 'passes over every caption of every training image', minimum=1)
    batch_size: int = option(64, 'captions in a batch', minimum=1)
    update_rule: str = option('adam', 'optimizer', choices=('adam', 'rmsprop', 'momentum', 'sgd'))
    learning_rate: float = option(1e-3, 'at the start', minimum=0)
    learning_rate_schedule: str = option(
        'constant', 'how the rate falls', choices=('constant', 'exponential', 'cosine')
    )
    learning_rate_decay: float = option(0.8, 'factor an epoch of the exponential schedule', minimum=0, maximum=1)
    momentum: float = option(0.9, 'of update rule momentum', minimum=0, maximum=1)
    clip_norm: float = option(5.0, 'global norm that gradients are clipped to; 0: no clipping', minimum=0)
    validate_every: int = option(1, 'epochs between validations on dev by free-running decoding', minimum=1)
    validation_metric: str = option(
        'Bleu_4', 'score that picks the best model', choices=('Bleu_4', 'METEOR', 'CIDEr', 'ROUGE_L')
    )
    validation_limit: int = option(0, 'dev images that a validation decodes; 0: all', minimum=0)
    patience: int = option(5, 'validations without a better score before training stops; 0: never', minimum=0)
    print_every: int = option(100, 'steps between lines of progress', minimum=1)
    save_every: int = option(1, 'epochs between checkpoints', minimum=1)
    save_minutes: float = option(5.0, 'minutes between checkpoints inside an epoch; 0: none', minimum=0)
    keep_checkpoints: int = option(2, 'checkpoints kept besides the best model', minimum=1)
    seed: int = option(1, 'of initial weights, order of batches and dropout', minimum=0)
    tensorboard_images: int = option(3, 'dev images whose attention TensorBoard shows; 0: none', minimum=0)


@dataclasses.dataclass(frozen=True)
class DecodingConfig:
    """How captions are written at validation and evaluation."""

    max_len: int = option(20, 'words of a decoded caption at most, <END> included', minimum=1)
    decode_batch: int = option(64, 'images decoded together', minimum=1)


SECTIONS = {'model': ModelConfig, 'training': TrainingConfig, 'decoding': DecodingConfig}


@dataclasses.dataclass(frozen=True)
class Config:
    """All options: `config.model`, `config.training`, `config.decoding`."""

    model: ModelConfig = ModelConfig()
    training: TrainingConfig = TrainingConfig()
    decoding: DecodingConfig = DecodingConfig()

    def to_dict(self):
        """Plain dicts of section name -> option name -> value."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, sections, where='configuration'):
        """The inverse of `to_dict`; options that are left out keep their defaults.

        Raises:
            InputError: an unknown section or option, or a value of the wrong type; names `where` and the nearest name.
        """
        if not isinstance(sections, dict):
            raise InputError(f'{where}: expected a JSON object with the sections {", ".join(SECTIONS)}')
        for name in sections:
            if name not in SECTIONS:
                raise InputError(f'{where}: unknown section {name!r}{nearest(name, SECTIONS)}')
        built = {}
        for section, kind in SECTIONS.items():
            values = sections.get(section, {})
            if not isinstance(values, dict):
                raise InputError(f'{where}: section {section!r} must be a JSON object')
            fields = {field.name: field for field in dataclasses.fields(kind)}
            for name in values:
                if name not in fields:
                    raise InputError(f'{where}: unknown option {name!r} in {section!r}{nearest(name, fields)}')
            built[section] = kind(**{name: _checked(fields[name], v, where) for name, v in values.items()})
        return cls(**built)

    def override(self, assignments, where='--set'):
        """A copy with `name=value` texts applied, as `--set` gives them; values are read as JSON, else as text."""
        sections = self.to_dict()
        owner = {name: section for section, values in sections.items() for name in values}
        for text in assignments:
            name, equals, value = text.partition('=')
            name = name.strip()
            if not equals:
                raise InputError(f'{where} {text}: expected name=value, for example {where} dim_hidden=512')
            if name not in owner:
                raise InputError(f'{where} {text}: unknown option {name!r}{nearest(name, owner)}')
            try:
                parsed = json.loads(value)
            except ValueError:
                parsed = {'True': True, 'False': False}.get(value, value)
            sections[owner[name]][name] = parsed
        return Config.from_dict(sections, where=where)

    def save(self, path, **more):
        """Write as JSON, atomically; `more` adds top-level entries such as the features' identity."""
        write_json(path, {**self.to_dict(), **more})

    @classmethod
    def load(cls, path):
        """Read what a user wrote or `save` wrote without more entries."""
        path = pathlib.Path(path)
        try:
            sections = json.loads(path.read_text(encoding='utf8'))
        except (OSError, ValueError) as error:
            raise InputError(f'{path}: not a readable JSON configuration ({error}); see data/recipes for examples'
                             ) from None
        return cls.from_dict(sections, where=str(path))


def options():
    """Yields (section, name, type name, default, help, choices) of every option: what --help and the docs list."""
    for section, kind in SECTIONS.items():
        for field in dataclasses.fields(kind):
            yield section, field.name, field.type.__name__, field.default, field.metadata['help'], field.metadata[
                'choices'
            ]


def nearest(name, known):
    """'; did you mean X?' for a misspelt name, or the list of known names where nothing is near."""
    close = difflib.get_close_matches(str(name), list(known), n=1)
    return f'; did you mean {close[0]!r}?' if close else f'; known: {", ".join(known)}'


def _checked(field, value, where):
    kind, limits = field.type, field.metadata
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        value = float(value) if abs(value) < 1e308 else math.inf
    if not isinstance(value, kind) or (kind is not bool and isinstance(value, bool)):
        raise InputError(f'{where}: {field.name} must be {_article(kind)}, not {value!r}')
    if limits['choices'] and value not in limits['choices']:
        raise InputError(f'{where}: {field.name} must be one of {", ".join(limits["choices"])}, not {value!r}')
    if kind is float and not math.isfinite(value):
        raise InputError(f'{where}: {field.name} must be a finite number, not {value!r}')
    if limits['minimum'] is not None and value < limits['minimum']:
        raise InputError(f'{where}: {field.name} must be at least {limits["minimum"]}, not {value!r}')
    if limits['maximum'] is not None and value > limits['maximum']:
        raise InputError(f'{where}: {field.name} must be at most {limits["maximum"]}, not {value!r}')
    return value


def _article(kind):
    return {int: 'a whole number', float: 'a number', bool: 'true or false', str: 'a text'}[kind]
