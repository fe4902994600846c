"""All options of a run, their JSON form, and --set.

    config = Config()
    config = config.override(['dim_hidden=512', 'learning_rate=4e-4'])
    config.save('run/config.json')

A name belongs to one section only, so `--set dim_hidden=512` needs no prefix. Unknown names and
values of the wrong type are errors (InputError), with the nearest known name proposed.
"""

import dataclasses
import json
from collections.abc import Collection, Iterable, Iterator

from core.common.aliases import Json, PathLike
from core.common.errors import InputError
from core.common.files import read_json, write_json
from core.common.suggestions import nearest_or_all
from core.config.decoding import DecodingConfig
from core.config.model import ModelConfig
from core.config.options import OptionInfo, Value, checked, describe
from core.config.training import TrainingConfig

SECTIONS = {'model': ModelConfig, 'training': TrainingConfig, 'decoding': DecodingConfig}


@dataclasses.dataclass(frozen=True)
class Config:
    """All options: `config.model`, `config.training`, `config.decoding`."""

    model: ModelConfig = ModelConfig()
    training: TrainingConfig = TrainingConfig()
    decoding: DecodingConfig = DecodingConfig()

    def to_dict(self) -> dict[str, dict[str, Value]]:
        """Return plain dicts of section name -> option name -> value."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, sections: Json, where: str = 'configuration') -> 'Config':
        """Return the Config of such dicts; options that are left out keep their defaults.

        Args:
            sections: as `to_dict` returns them, or anything else that a JSON file held.
            where: for messages.

        Raises:
            InputError: an unknown section or option, or a value of the wrong type; names `where`
                and the nearest name.
        """
        if not isinstance(sections, dict):
            raise InputError(f'{where}: expected a JSON object with the sections '
                             f'{", ".join(SECTIONS)}')
        for name in sections:
            if name not in SECTIONS:
                raise InputError(f'{where}: unknown section '
                                 f'{name!r}{nearest_or_all(name, SECTIONS)}')
        built = {}
        for section, kind in SECTIONS.items():
            values = sections.get(section, {})
            if not isinstance(values, dict):
                raise InputError(f'{where}: section {section!r} must be a JSON object')
            fields = {field.name: field for field in dataclasses.fields(kind)}
            for name in values:
                if name not in fields:
                    raise InputError(f'{where}: unknown option {name!r} in '
                                     f'{section!r}{nearest_or_all(name, fields)}')
            built[section] = kind(
                **{name: checked(fields[name], v, where) for name, v in values.items()})
        built['model'].check_combination(where)
        built['decoding'].check_combination(where)
        return cls(**built)

    def override(self, assignments: Iterable[str], where: str = '--set',
                 only: Collection[str] = tuple(SECTIONS)) -> 'Config':
        """Return a copy with `name=value` texts applied, as --set gives them.

        Args:
            assignments: the texts; a value is read as JSON, where it is none as text.
            where: for messages.
            only: names of the sections that may be changed.

        Raises:
            InputError: no such option, or a value that it does not admit.
        """
        sections = self.to_dict()
        owner = {name: section for section, values in sections.items() for name in values
                 if section in only}
        for text in assignments:
            name, equals, value = text.partition('=')
            name = name.strip()
            if not equals:
                raise InputError(f'{where} {text}: expected name=value, for example {where} '
                                 'dim_hidden=512')
            if name not in owner:
                raise InputError(f'{where} {text}: unknown option '
                                 f'{name!r}{nearest_or_all(name, owner)}')
            try:
                parsed = json.loads(value)
            except ValueError:
                parsed = {'True': True, 'False': False}.get(value, value)
            sections[owner[name]][name] = parsed
        return Config.from_dict(sections, where=where)

    def idle(self) -> list[str]:
        """Return the options that were changed without effect: list of 'name (needs what)'."""
        model, training = self.model, self.training
        drawing = model.attention == 'hard' and model.semi_sampling_p > 0
        needs = (
            ('attention=hard', model.attention == 'hard', ('lambda_e', 'semi_sampling_p')),
            ('attention=hard, semi_sampling_p > 0 and lambda_r > 0',
             drawing and model.lambda_r > 0, ('reward', 'baseline')),
            ('attention=hard and semi_sampling_p > 0', drawing, ('lambda_r', 'n_samples')),
            ('alpha_c > 0', model.alpha_c > 0, ('regularizer_target', 'regularizer_reduction')),
            ('self_critical=true', model.self_critical,
             ('bleu_reward', 'draw_temperature', 'sentence_baseline')),
            ('dropout=true', model.dropout, ('dropout_rate',)),
            ('update_rule=momentum', training.update_rule == 'momentum', ('momentum',)),
            ('batch_by=bucket', training.batch_by == 'bucket', ('bucket_width',)),
            ('batch_by=image', training.batch_by == 'image', ('captions_per_image',)),
            ('learning_rate_schedule=plateau', training.learning_rate_schedule == 'plateau',
             ('plateau_patience',)),
            ('learning_rate_schedule=exponential or plateau',
             training.learning_rate_schedule in ('exponential', 'plateau'),
             ('learning_rate_decay',)),
            ('finetune_from', bool(training.finetune_from), ('finetune_rate', 'augment')))
        defaults = Config()
        return [f'{name} (needs {what})' for what, met, names in needs if not met for name in names
                for section, default in ((model, defaults.model), (training, defaults.training))
                if hasattr(section, name) and getattr(section, name) != getattr(default, name)]

    def save(self, path: PathLike, **more: Json) -> None:
        """Write as JSON, atomically.

        Args:
            path: of the file.
            more: top-level entries beside the sections, such as the features' identity.
        """
        write_json(path, {**self.to_dict(), **more})

    @classmethod
    def load(cls, path: PathLike) -> 'Config':
        """Read a file that a user wrote, or `save` without more entries.

        Raises:
            InputError: no such file, not JSON, or options that `from_dict` refuses.
        """
        return cls.from_dict(read_json(path, 'see data/recipes for examples'), where=str(path))


def options() -> Iterator[OptionInfo]:
    """Yield every option, in the order of the tables."""
    for section, kind in SECTIONS.items():
        for field in dataclasses.fields(kind):
            yield describe(section, field)
