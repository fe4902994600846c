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
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any

from core.common.aliases import PathLike
from core.common.errors import InputError
from core.common.files import write_json

BASELINES = ('none', 'moving', 'leave_one_out', 'self_critical')


def option(default: Any, help: str, choices: Sequence[str] | None = None, minimum: float | None = None,
           maximum: float | None = None) -> Any:
    """A dataclass field that documents itself: `help` in one line, and what values it admits."""
    return dataclasses.field(
        default=default, metadata={'help': help, 'choices': choices, 'minimum': minimum, 'maximum': maximum}
    )


@dataclasses.dataclass(frozen=True)
class ModelConfig:
    """The model and its loss; the defaults are those of the TF1 model (`docs/model.md` maps each to its equation)."""

    dim_embed: int = option(512, 'size M of a word vector', minimum=1)
    dim_hidden: int = option(1024, 'size H of the decoder state', minimum=1)
    prev2out: bool = option(True, 'the previous word feeds the output layer (eq. 7)')
    ctx2out: bool = option(True, 'the context feeds the output layer (eq. 7)')
    alpha_c: float = option(1.0, 'weight of the doubly stochastic regulariser (4.2.1)', minimum=0)
    selector: bool = option(True, 'gate beta scales the context (4.2.1)')
    dropout: bool = option(True, 'dropout on h, the output layer and extra initial layers while training')
    # features
    batch_norm: bool = option(True, 'features are batch-normalised')
    feature_layer: int = option(0, 'size of a Dense+ReLU layer over the features before all else; 0: none', minimum=0)
    # initial state
    initial_state: str = option('tanh', 'c_0 and h_0 from the mean feature',
                                choices=('tanh', 'linear', 'relu', 'zero'))
    initial_layers: int = option(1, 'layers of the initial state; all but the last are ReLU with dropout', minimum=1)
    # attention
    attention: str = option('soft', 'expected context (4.2) or drawn locations (4.1)', choices=('soft', 'hard'))
    attention_activation: str = option('relu', 'non-linearity of the attention', choices=('relu', 'tanh'))
    attention_size: int = option(0, 'hidden units of the attention; 0: as many as the features have', minimum=0)
    attention_layers: int = option(1, 'projections of the features; each after the first adds a tanh layer', minimum=1)
    attention_bias: str = option('query', 'what has a bias inside the attention',
                                 choices=('query', 'features', 'both'))
    score_bias: bool = option(False, 'a bias on the score (the softmax cancels it)')
    # cell
    cell: str = option('lstm', 'recurrent cell', choices=('lstm', 'gru'))
    forget_bias: float = option(1.0, 'added to the forget gate of the LSTM')
    cell_input: str = option('word_context', 'order of the input of the cell',
                             choices=('word_context', 'context_word'))
    carry_state: bool = option(True, 'the cell starts from the last state; false: from zeros, as the TF2 tutorial')
    first_word: str = option('start', 'word vector at the first step: that of <START>, or zeros',
                             choices=('start', 'zero'))
    # output
    output_size: int = option(0, 'hidden units of the output layer; 0: dim_embed', minimum=0)
    output_activation: str = option('tanh', 'of the output layer (eq. 7: tanh)', choices=('tanh', 'linear'))
    output_layers: int = option(1, 'hidden layers of the output; each after the first is ReLU with dropout', minimum=1)
    initializer: str = option('tf1', 'how variables begin', choices=('tf1', 'authors', 'keras'))
    # loss
    mask_padding: bool = option(True, 'padding steps do not count in the regulariser (the TF1 code counts them)')
    regularizer_target: str = option('length', 'what sum_t alpha of a location should be: n_time_step / L, or one',
                                     choices=('length', 'one'))
    regularizer_reduction: str = option('examples', "sum over locations, mean over examples; locations: the other "
                                        "way round, as the authors' code", choices=('examples', 'locations'))
    dropout_rate: float = option(0.5, 'share of units that dropout sets to zero', minimum=0, maximum=0.95)
    dropout_mask: str = option('step', 'a new mask at every step, or one for the whole sequence (variational)',
                               choices=('step', 'sequence'))
    word_dropout: float = option(0.0, 'share of input words that become <UNK> while training', minimum=0, maximum=0.9)
    label_smoothing: float = option(0.0, 'share of the target spread over all words', minimum=0, maximum=0.9)
    scheduled_sampling: float = option(0.0, "share of input words drawn from the model's own distribution",
                                       minimum=0, maximum=1)
    # hard attention (4.1)
    lambda_r: float = option(1.0, 'weight of the REINFORCE term', minimum=0)
    lambda_e: float = option(0.002, 'weight of the entropy of alpha', minimum=0)
    semi_sampling_p: float = option(0.5, 'probability, a caption, of using the drawn locations', minimum=0, maximum=1)
    n_samples: int = option(1, 'Monte Carlo samples a caption', minimum=1)
    reward: str = option('sequence', 'of a draw: log p of the whole caption, or of what follows the draw',
                         choices=('sequence', 'to_go'))
    baseline: str = option('moving', 'subtracted from the reward', choices=BASELINES)
    temperature: float = option(1.0, 'alpha = softmax(e / temperature)', minimum=0.01)
    decode_context: str = option('expected', 'context while decoding: expected, the likeliest location, or drawn',
                                 choices=('expected', 'argmax', 'sample'))

    def check(self, where: str = 'configuration') -> None:
        """Refuse options that do not fit together.

        Raises:
            InputError: names the options and the way out.
        """
        for wrong, message in (
            (self.prev2out and self.output_size not in (0, self.dim_embed),
             'prev2out adds the word vector to the output layer, so output_size must be 0 or dim_embed; or set '
             'prev2out=false'),
            (self.initial_state == 'zero' and self.initial_layers > 1,
             'initial_state=zero has no layers; set initial_layers=1'),
            (not self.carry_state and (self.cell != 'gru' or self.initial_state != 'zero'),
             'carry_state=false needs cell=gru and initial_state=zero'),
            (self.cell == 'gru' and self.forget_bias != 1.0, 'forget_bias belongs to cell=lstm; with cell=gru it must '
             'stay 1.0'),
            (self.attention == 'soft' and self.n_samples > 1,
             'n_samples needs attention=hard; soft attention draws nothing'),
            (self.attention == 'soft' and self.decode_context != 'expected',
             'decode_context needs attention=hard; soft attention has the expected context only'),
            (self.baseline == 'leave_one_out' and self.n_samples < 2, 'baseline=leave_one_out needs n_samples of 2 '
             'or more'),
            (self.attention == 'hard' and self.scheduled_sampling > 0,
             'scheduled_sampling and attention=hard exclude each other: words drawn inside the caption would bias '
             'the gradient of the locations'),
            (not self.dropout and self.dropout_mask == 'sequence', 'dropout_mask=sequence needs dropout=true'),
        ):
            if wrong:
                raise InputError(f'{where}: {message}')


@dataclasses.dataclass(frozen=True)
class TrainingConfig:
    """How the model is trained; names as in the TF1 code where the meaning is the same."""

    n_epochs: int = option(20, 'passes over every caption of every training image', minimum=1)
    batch_size: int = option(64, 'captions in a batch', minimum=1)
    batch_by: str = option(
        'sorted', 'captions of a batch: sorted by length, exactly one length (the paper), of one length bucket, or '
        'several captions of each image, whose features are then projected once',
        choices=('sorted', 'one_length', 'bucket', 'image'))
    bucket_width: int = option(4, 'lengths in a bucket of batch_by=bucket', minimum=1)
    captions_per_image: int = option(5, 'captions of an image in a batch of batch_by=image', minimum=1)
    update_rule: str = option('adam', 'optimizer', choices=('adam', 'rmsprop', 'momentum', 'sgd'))
    learning_rate: float = option(1e-3, 'at the start, after the warm-up', minimum=0)
    learning_rate_schedule: str = option(
        'constant', 'how the rate falls', choices=('constant', 'exponential', 'cosine', 'plateau')
    )
    learning_rate_decay: float = option(0.8, 'factor of the schedules exponential (an epoch) and plateau', minimum=0,
                                        maximum=1)
    plateau_patience: int = option(1, 'validations without a better score before schedule plateau lowers the rate',
                                   minimum=1)
    warmup_steps: int = option(0, 'steps over which the rate rises to learning_rate', minimum=0)
    momentum: float = option(0.9, 'of update rule momentum', minimum=0, maximum=1)
    clip_norm: float = option(5.0, 'global norm that gradients are clipped to; 0: no clipping', minimum=0)
    weight_decay: float = option(0.0, 'share of every matrix taken away a step, times the rate (decoupled)', minimum=0)
    precision: str = option(
        'float32', 'type of the products of a training step; the 16-bit ones are for GPUs, float16 with a scaled loss',
        choices=('float32', 'bfloat16', 'float16'))
    weight_averaging: float = option(
        0.0, 'decay a step of the moving average of the variables that is validated and kept; 0: none', minimum=0,
        maximum=0.99999)
    train_embedding: bool = option(True, 'word vectors are trained; false keeps them, for pretrained ones')
    anneal_epochs: float = option(0.0, 'epochs over which lambda_e and temperature go from their start to their '
                                  'value, and scheduled_sampling from 0; 0: no annealing', minimum=0)
    lambda_e_start: float = option(0.0, 'lambda_e at the start of the annealing; 0: as lambda_e', minimum=0)
    temperature_start: float = option(0.0, 'temperature at the start of the annealing; 0: as temperature', minimum=0)
    finetune_from: str = option('', 'first layer of the encoder that is trained too; empty: none')
    finetune_rate: float = option(0.1, "the encoder's share of the learning rate", minimum=0)
    augment: bool = option(True, 'fine-tuning sees images flipped and cropped at random')
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
    seed: int = option(1, 'of initial weights, order of batches, dropout and draws', minimum=0)
    tensorboard_images: int = option(3, 'dev images whose attention TensorBoard shows; 0: none', minimum=0)


@dataclasses.dataclass(frozen=True)
class DecodingConfig:
    """How captions are written at validation and evaluation."""

    max_len: int = option(20, 'words of a decoded caption at most, <END> included', minimum=1)
    decode_batch: int = option(64, 'images decoded together', minimum=1)
    min_length: int = option(0, 'words of a decoded caption at least, <END> included', minimum=0)
    no_repeat_ngram: int = option(0, 'n: no n words in a row occur twice in a caption; 0: they may', minimum=0)
    # beam search
    beam_width: int = option(1, 'hypotheses kept of an image; 1: greedy', minimum=1, maximum=1000)
    length_penalty: float = option(0.0, 'A: beam search ranks captions by log-probability / length**A', minimum=0)
    beam_groups: int = option(1, 'groups of the beam that are kept diverse', minimum=1)
    diversity_penalty: float = option(0.0, 'taken off the log-probability of words that earlier groups wrote at the '
                                      'same step', minimum=0)
    # sampling
    sample: bool = option(False, 'words are drawn instead of searched for')
    sample_temperature: float = option(1.0, 'words are drawn from softmax(log p / temperature)', minimum=0.01)
    top_k: int = option(0, 'words are drawn from the k likeliest; 0: from all', minimum=0)
    top_p: float = option(1.0, 'words are drawn from the likeliest that together have probability p', minimum=0.001,
                          maximum=1)

    def check(self, where: str = 'configuration') -> None:
        """Refuse options that do not fit together.

        Raises:
            InputError: names the options and the way out.
        """
        diverse = self.beam_groups > 1
        drawing = self.sample_temperature != 1.0 or self.top_k > 0 or self.top_p < 1
        for wrong, message in (
            (self.min_length > self.max_len, f'min_length={self.min_length} is more than max_len={self.max_len}'),
            (self.sample and self.beam_width > 1, 'sample=true needs beam_width=1: words are drawn, or searched for'),
            (self.length_penalty > 0 and self.beam_width == 1,
             'length_penalty needs beam_width of 2 or more: there is nothing to rank'),
            (self.beam_width % self.beam_groups > 0,
             f'beam_groups={self.beam_groups} must divide beam_width={self.beam_width}'),
            (diverse and self.diversity_penalty == 0,
             'beam_groups needs diversity_penalty above 0: without it the groups are the same'),
            (not diverse and self.diversity_penalty > 0, 'diversity_penalty needs beam_groups of 2 or more'),
            (drawing and not self.sample, 'sample_temperature, top_k and top_p need sample=true'),
        ):
            if wrong:
                raise InputError(f'{where}: {message}')


SECTIONS = {'model': ModelConfig, 'training': TrainingConfig, 'decoding': DecodingConfig}


@dataclasses.dataclass(frozen=True)
class Config:
    """All options: `config.model`, `config.training`, `config.decoding`."""

    model: ModelConfig = ModelConfig()
    training: TrainingConfig = TrainingConfig()
    decoding: DecodingConfig = DecodingConfig()

    def to_dict(self) -> dict[str, dict[str, Any]]:
        """Plain dicts of section name -> option name -> value."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, sections: Mapping[str, Any], where: str = 'configuration') -> 'Config':
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
        built['model'].check(where)
        built['decoding'].check(where)
        return cls(**built)

    def override(self, assignments: Iterable[str], where: str = '--set',
                 only: Collection[str] = tuple(SECTIONS)) -> 'Config':
        """A copy with `name=value` texts applied, as `--set` gives them; values are read as JSON, else as text.

        Args:
            assignments: the texts. where: for messages. only: names of the sections that may be changed.
        """
        sections = self.to_dict()
        owner = {name: section for section, values in sections.items() for name in values if section in only}
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

    def idle(self) -> list[str]:
        """Options that were changed and do nothing beside the others: list of 'name (what they need)'."""
        model, training = self.model, self.training
        drawing = model.attention == 'hard' and model.semi_sampling_p > 0
        needs = (
            ('attention=hard', model.attention == 'hard', ('lambda_e', 'semi_sampling_p')),
            ('attention=hard, semi_sampling_p > 0 and lambda_r > 0', drawing and model.lambda_r > 0,
             ('reward', 'baseline')),
            ('attention=hard and semi_sampling_p > 0', drawing, ('lambda_r', 'n_samples')),
            ('alpha_c > 0', model.alpha_c > 0, ('regularizer_target', 'regularizer_reduction')),
            ('dropout=true', model.dropout, ('dropout_rate',)),
            ('update_rule=momentum', training.update_rule == 'momentum', ('momentum',)),
            ('batch_by=bucket', training.batch_by == 'bucket', ('bucket_width',)),
            ('batch_by=image', training.batch_by == 'image', ('captions_per_image',)),
            ('learning_rate_schedule=plateau', training.learning_rate_schedule == 'plateau', ('plateau_patience',)),
            ('learning_rate_schedule=exponential or plateau',
             training.learning_rate_schedule in ('exponential', 'plateau'), ('learning_rate_decay',)),
            ('finetune_from', bool(training.finetune_from), ('finetune_rate', 'augment')),
        )
        defaults = Config()
        return [f'{name} (needs {what})' for what, met, names in needs if not met for name in names
                for section, default in ((model, defaults.model), (training, defaults.training))
                if hasattr(section, name) and getattr(section, name) != getattr(default, name)]

    def save(self, path: PathLike, **more: Any) -> None:
        """Write as JSON, atomically; `more` adds top-level entries such as the features' identity."""
        write_json(path, {**self.to_dict(), **more})

    @classmethod
    def load(cls, path: PathLike) -> 'Config':
        """Read what a user wrote or `save` wrote without more entries."""
        path = pathlib.Path(path)
        try:
            sections = json.loads(path.read_text(encoding='utf8'))
        except (OSError, ValueError) as error:
            raise InputError(f'{path}: not a readable JSON configuration ({error}); see data/recipes for examples'
                             ) from None
        return cls.from_dict(sections, where=str(path))


def options() -> Iterator[tuple[str, str, str, Any, str, Sequence[str] | None]]:
    """Yields (section, name, type name, default, help, choices) of every option: what --help and the docs list."""
    for section, kind in SECTIONS.items():
        for field in dataclasses.fields(kind):
            type_: Any = field.type  # a class in this module, never the name of one
            yield (section, field.name, type_.__name__, field.default, field.metadata['help'],
                   field.metadata['choices'])


def nearest(name: str, known: Iterable[str]) -> str:
    """'; did you mean X?' for a misspelt name, or the list of known names where nothing is near."""
    close = difflib.get_close_matches(str(name), list(known), n=1)
    return f'; did you mean {close[0]!r}?' if close else f'; known: {", ".join(known)}'


def _checked(field: Any, value: Any, where: str) -> Any:
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


def _article(kind: type) -> str:
    return {int: 'a whole number', float: 'a number', bool: 'true or false', str: 'a text'}[kind]
