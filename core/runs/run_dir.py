"""The RUN DIR: what train.py writes and evaluate.py reads, so that no option need be given twice.

    RUN/config.json      every option; where the features lay and what made them
    RUN/vocabulary.json  words of the model
    RUN/checkpoints/, RUN/best/, RUN/metrics.jsonl, RUN/tensorboard/   see core.training

A packed run, RUN.zip (core.runs.packed_run), is read in its place.

Nothing here imports TensorFlow before a model is asked for.
"""

import dataclasses
import pathlib
import re
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TextIO

from core.common.aliases import PathLike, Session, Tensor, Variable
from core.common.errors import InputError
from core.common.files import lock, read_json
from core.common.suggestions import near
from core.config.config import Config
from core.data import image_data
from core.data.data_dir import DataDir, tokens_of
from core.data.vocabulary import TOKENS, Vocabulary
from core.encoders.augmentation import Augmentation
from core.encoders.encoder import EncoderSpec, describe
from core.runs import packed_run

if TYPE_CHECKING:
    from core.data.split import Split
    from core.model.caption_generator import CaptionGenerator
    from core.training.checkpoints import BestModel

UNKNOWN = 'unknown'  # the encoder's weights, in an imported run


def create(path: PathLike, config: Config, data: DataDir) -> TextIO:
    """Make the RUN DIR `path`, or check that the one there is of the same options and data.

    Returns:
        The lock on the directory, an open file: close it when training ends.

    Raises:
        InputError: the directory holds a run of other options or data, with the difference; or is
            in use.
    """
    from core.training.checkpoints import latest_state

    path = pathlib.Path(path)
    entry = {'path': str(data.path.absolute()), 'encoder': data.encoder,
             'max_length': data.max_length, 'tokens': data.tokens, 'dataset': data.dataset,
             'records_sha256': data.records}
    exists = (path / 'config.json').exists()
    if exists:
        run = Run(path)
        if run.imported:
            raise InputError(f'{path}: imported from elsewhere, and there is no training to go on '
                             f'with; start another run from its variables: train.py {data.path} '
                             f'--out NEW --pretrained-model {path}')
        run.check_features(data)
        if run.data_entry.get('records_sha256') != data.records:
            raise InputError(f'{path}: was trained on other images or captions than those of '
                             f'{data.path}; choose another --out')
        if (run.vocabulary != data.vocabulary or run.max_length != data.max_length
            or run.tokens != data.tokens):
            raise InputError(f'{path}: this run has another vocabulary, caption length or way to '
                             f'cut captions than {data.path}; choose another --out')
        # Before anything is trained, a mistaken option can still be corrected.
        if latest_state(path / 'checkpoints') or run.best().info():
            check_options(path, run.config, config)
    elif path.exists() and (not path.is_dir() or any(
            # These two: killed in its making
            p.name not in ('.lock', 'vocabulary.json') for p in path.iterdir())):
        raise InputError(f'{path}: not empty and not a run of train.py; choose another --out')
    path.mkdir(parents=True, exist_ok=True)
    directory_lock = lock(path, 'train.py')
    if not exists:
        data.vocabulary.save(path / 'vocabulary.json')
    config.save(path / 'config.json', data=entry)
    return directory_lock


# Options that may change when a run goes on: they say how long and how loudly, not what is
# computed. (The schedule cosine is computed from n_epochs, see check_options.)
FREE = {'n_epochs', 'print_every', 'save_every', 'save_minutes', 'keep_checkpoints', 'patience',
        'tensorboard_images', 'decode_batch'}


def check_options(path: PathLike, before: Config, now: Config) -> None:
    """Raise InputError if the run at `path`, begun with `before`, cannot go on with `now`."""
    for section, values in now.to_dict().items():
        for name, value in values.items():
            old = before.to_dict()[section][name]
            fixed = (name not in FREE or (
                name == 'n_epochs' and now.training.learning_rate_schedule == 'cosine'))
            if old != value and fixed:
                longer = ((' (its schedule cosine depends on it; to train longer, start from its '
                           f'model: train.py DATA --out NEW --pretrained-model {path})')
                          if name == 'n_epochs' else '')
                raise InputError(f'{path}: this run was started with {name}={old!r}, now it is '
                                 f'{value!r}; give the same options to go on, or choose another '
                                 f'--out{longer}')


class Run:
    """A RUN DIR, or a packed one.

    Attributes:
        path: as it was named. folder: where its files lie; of a packed run a temporary directory,
            which is removed with this object.
        config: Config. vocabulary: Vocabulary. max_length: int, words of a training caption at
            most. tokens: str, how captions are cut, a name in `core.data.vocabulary.TOKENS`.
        spec: EncoderSpec of the features it was trained on, or of the encoder that fine-tuning
            began with.
        data_entry: dict of what it was trained on; 'path' is None in an imported or packed run,
            'records_sha256' in an imported one.

    Raises:
        InputError: missing or damaged, or an unsafe archive.
    """

    def __init__(self, path: PathLike) -> None:
        self.path = pathlib.Path(path)
        check_run(self.path)
        self.folder = self.path
        if packed_run.is_packed(self.path):
            self.folder = packed_run.unpack_for(self, self.path)
        entries = read_json(self.folder / 'config.json')
        try:
            self.data_entry = entries.pop('data')
            self.spec = self._beside(EncoderSpec.from_dict(self.data_entry['encoder']))
            self.max_length = self.data_entry['max_length']
            self.tokens = tokens_of(self.data_entry)
        except (KeyError, TypeError, AttributeError):
            raise InputError(f'{self.path / "config.json"}: lacks the entry data; it was not '
                             'written by train.py') from None
        except InputError as error:
            raise InputError(f'{self.path / "config.json"}: {error}') from None
        if self.tokens not in [*TOKENS]:
            raise InputError(f'{self.path / "config.json"}: has captions cut in an unknown way, '
                             f'{self.tokens!r}; its data need another version of this program')
        self.config = Config.from_dict(entries, where=str(self.path / 'config.json'))
        self.vocabulary = Vocabulary.load(self.folder / 'vocabulary.json')

    def _beside(self, spec: EncoderSpec) -> EncoderSpec:
        """Return an EncoderSpec whose weights, if it has but their name, lie beside the run."""
        if spec.weights in packed_run.NO_FILE or pathlib.Path(spec.weights).is_absolute():
            return spec
        return dataclasses.replace(spec, weights=str(self.path.parent / spec.weights))

    @property
    def imported(self) -> bool:
        """Return whether the model comes from elsewhere, without data of its own.

        Such a run was made by `python -m core import`, or packed by `python -m core pack`.
        """
        return self.data_entry.get('path') is None

    @property
    def finetuned(self) -> bool:
        """Return whether the encoder was trained too, so that images are read, not features."""
        return bool(self.config.training.finetune_from)

    def encoder(self, weights: PathLike | None = None) -> EncoderSpec:
        """Return the EncoderSpec with the weights' present path.

        Raises:
            InputError: the weights are missing, or `weights` are others than those the run was
                trained with.
        """
        spec = self.spec
        if spec.weights == UNKNOWN and not weights:
            raise InputError(f'{self.path}: does not know the weights of its {spec.encoder}; name '
                             'them: --weights FILE')
        if weights and weights != 'random' and not pathlib.Path(weights).is_file():
            raise InputError(f'no weights file {weights}; {self.path} was trained with '
                             f'{spec.weights}')
        if not weights and spec.weights != 'random' and not pathlib.Path(spec.weights).is_file():
            where = 'not at' if self.imported else 'gone from'
            raise InputError(f'{self.path}: the weights of its {spec.encoder} are {where} '
                             f'{spec.weights}; name the file where it lies now: --weights FILE')
        present = describe(spec.encoder, spec.layer, spec.size, spec.resize,
                           weights or spec.weights, spec.seed)
        self._check_identity(present.identity(), weights or spec.weights)
        return present

    def data(self, path: PathLike | None = None) -> DataDir:
        """Return the DataDir to evaluate on: `path`, or the one of the training.

        Raises:
            InputError: it is gone, or has other features than the run was trained on.
        """
        if path is None and self.imported:
            kind = 'a packed' if self.data_entry.get('records_sha256') else 'an imported'
            raise InputError(f'{self.path}: {kind} run has no data of its own; make some with '
                             f'prepro.py ... --like {self.path} --weights FILE --out DATA, then '
                             f'evaluate.py {self.path} --data DATA')
        if path is None and not pathlib.Path(self.data_entry['path']).is_dir():
            raise InputError(f'{self.data_entry["path"]}: the data of {self.path} are gone; if '
                             f'they moved: evaluate.py {self.path} --data NEW, or train.py NEW '
                             f'--out {self.path}')
        data = DataDir(path or self.data_entry['path'])
        # whose features are those of its own encoder, whatever the directory holds
        if not self.finetuned:
            self.check_features(data)
        return data

    def split(self, data: DataDir, name: str) -> 'Split':
        """Return what the model reads of a split of a DataDir.

        That is CaptionData, or ImageData for a fine-tuned run.
        """
        selected = data.split(name)
        return image_data.ImageData(selected, self.spec) if self.finetuned else selected

    def training_split(self, data: DataDir) -> 'Split':
        """Return the split 'train' as `split` does, with the augmentation of the run's options."""
        selected, options = data.split('train'), self.config.training
        if not self.finetuned:
            return selected
        augmentation = None
        if options.augment:
            augmentation = Augmentation(options.seed, selected.captions,
                                        self.vocabulary.word_to_idx)
        return image_data.ImageData(selected, self.spec, augmentation)

    def check_features(self, data: DataDir) -> None:
        """Raise InputError if the encoder, layer, preprocessing or weights are not the run's."""
        self._check_identity(EncoderSpec.from_dict(data.encoder).identity(), data.path)

    def _check_identity(self, identity: Mapping[str, Any], where: PathLike) -> None:
        mine = self.spec.identity()
        if mine['weights_sha256'] == UNKNOWN:
            del mine['weights_sha256']
        different = [f'{key} {identity[key]!r} instead of {mine[key]!r}' for key in mine
                     if identity[key] != mine[key]]
        if different:
            raise InputError(f'{where}: not what the run {self.path} was trained on: '
                             f'{"; ".join(different)}')

    def make_model(self, weights: PathLike | None = None) -> 'CaptionGenerator':
        """Make the CaptionGenerator in the default graph, on its encoder if that is fine-tuned.

        Args:
            weights: path of the encoder's weights file, where it moved; only for a fine-tuned run.
        """
        from core.runs.make_model import make_model

        spec = self.encoder(weights) if self.finetuned else self.spec
        return make_model(self.config, self.vocabulary, spec, self.max_length)

    def make_captioner(self, images: Tensor, weights: PathLike | None = None,
                        ) -> 'tuple[CaptionGenerator, Callable[[Session], dict[str, Any]]]':
        """Make encoder and model in one in the default graph, to decode from pixels.

        Features take the way over float16 that stored ones take, so the captions are those of
        evaluate.py.

        Args:
            images: uint8 tensor (N, size, size, 3), RGB, as `preprocessing.load` gives with
                `spec.preprocessing`.
            weights: path of the encoder's weights file, where it moved.

        Returns:
            (model, restore): CaptionGenerator whose `inputs` are `images`; function of a session
            that loads the encoder's weights and the best model, and returns what was saved with it.

        Raises:
            InputError: the weights are missing, or others than those the run was trained with.
        """
        from core.runs.make_model import make_captioner

        model, restore_encoder = make_captioner(self.config, self.vocabulary,
                                                 self.encoder(weights), self.max_length, images)

        def restore(session: Session) -> dict[str, Any]:
            restore_encoder(session)
            return self.restore(session, model)

        return model, restore

    def set_decoding(self, n_best: int = 1, assignments: Sequence[str] = (),
                     **given: float | None) -> None:
        """Set other options of decoding than the run's own, for this object alone.

        Args:
            n_best: captions an image that will be asked for: a beam that was asked for must be as
                wide.
            assignments: texts name=value. given: options by name; None: not given.

        Raises:
            InputError: an option that is none of decoding, a value that means nothing, or too
                narrow a beam.
        """
        own = self.config.decoding.beam_width
        texts = [f'{name}={value}' for name, value in given.items() if value is not None]
        self.config = self.config.override(texts, where='decoding', only=('decoding',))
        self.config = self.config.override(assignments, where='--set', only=('decoding',))
        width = self.config.decoding.beam_width
        if width != own and width < n_best:
            raise InputError(f'--n-best {n_best} needs a beam at least as wide, not {width}')

    def set_decode_context(self, context: str | None) -> None:
        """Set another context of a word than the option `decode_context`; None: the same.

        Only hard attention has that choice.

        Raises:
            InputError: the run has soft attention.
        """
        if context is None:
            return
        if self.config.model.attention != 'hard':
            raise InputError(f'--decode-context needs a run of hard attention; {self.path} is '
                             'soft, with the expected context only')
        model = dataclasses.replace(self.config.model, decode_context=context)
        self.config = dataclasses.replace(self.config, model=model)

    def best(self, variables: Sequence[Variable] | None = None) -> 'BestModel':
        """Return the BestModel of the run."""
        from core.training.checkpoints import BestModel

        return BestModel(self.folder / 'best', variables)

    def restore(self, session: Session, model: 'CaptionGenerator') -> dict[str, Any]:
        """Load the best model, its encoder too if that is fine-tuned.

        Returns what was saved with it, a dict.
        """
        if self.finetuned:
            assert model.encoder
            model.encoder.restore(session)
        best = self.best(model.saved)
        best.restore(session)
        return best.info() or {}


def check_run(path: PathLike, packed: bool = True) -> None:
    """Raise InputError unless `path` is a run; `Run` looks closer.

    Args:
        path: of a RUN DIR. packed: whether an archive will do, which has no record of its training.
    """
    path = pathlib.Path(path)
    if packed_run.is_packed(path):
        if packed:
            return
        raise InputError(f'{path}: a packed run has neither data nor a record of its training; '
                         'name a run directory')
    if (path / 'config.json').exists():
        return
    if (path / 'manifest.json').exists():
        raise InputError(f'{path}: not a run but a data directory of prepro.py; train.py {path} '
                         '--out RUN makes a run')
    if not path.exists():
        siblings = (sorted(run.parent.name for run in path.parent.glob('*/config.json'))
                    if path.parent.is_dir() else [])
        meant = [f'; did you mean {path.parent / name}?' for name in near(path.name, siblings)]
        raise InputError(f'{path}: not a run, there is no such directory'
                         + (meant or [f'; train.py DATA --out {path} makes one'])[0])
    raise InputError(f'{path}: not a run (no config.json); train.py DATA --out RUN makes one')


def seed_directories(path: PathLike) -> list[pathlib.Path]:
    """Return the runs seed1, seed2 ... in a directory, as `train.py --seeds` makes them.

    They are in the order of their numbers; [] where there are none.
    """
    runs = [run.parent for run in pathlib.Path(path).glob('seed*/config.json')
            if re.fullmatch(r'seed\d+', run.parent.name)]
    return sorted(runs, key=lambda run: int(run.name.removeprefix('seed')))
