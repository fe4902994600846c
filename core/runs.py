"""The RUN DIR: what train.py writes and evaluate.py reads, so that no option need be given twice.

    RUN/config.json      model, training and decoding options; data: where the features lay and what made them
    RUN/vocabulary.json  words of the model
    RUN/checkpoints/, RUN/best/, RUN/metrics.jsonl, RUN/tensorboard/   see core.checkpoints and core.journal
"""

import dataclasses
import pathlib

from core import store
from core.checkpoints import BestModel
from core.config import Config
from core.encoders import EncoderSpec, describe
from core.errors import InputError
from core.model import CaptionGenerator
from core.store import DataDir, read_json
from core.text import Vocabulary


def create(path, config, data):
    """Make the RUN DIR `path` for a Config and a DataDir, or check that the one there is of the same making.

    Returns:
        The lock on the directory, an open file: close it when training ends.

    Raises:
        InputError: the directory holds a run of other options or data, with the difference; or is in use.
    """
    path = pathlib.Path(path)
    entry = {'path': str(data.path.absolute()), 'encoder': data.encoder, 'max_length': data.max_length,
             'dataset': data.dataset, 'records_sha256': data.records}
    made = (path / 'config.json').exists()
    if made:
        run = Run(path)
        run.check_features(data)
        if run.data_entry.get('records_sha256') != data.records:
            raise InputError(f'{path}: was trained on other images or captions than those of {data.path}; choose '
                             f'another --out')
        if run.vocabulary != data.vocabulary or run.max_length != data.max_length:
            raise InputError(f'{path}: this run has another vocabulary or caption length than {data.path}; choose '
                             f'another --out')
        _check_options(path, run.config, config)
    elif path.exists() and (not path.is_dir() or any(p.name != '.lock' for p in path.iterdir())):
        raise InputError(f'{path}: not empty and not a run of train.py; choose another --out')
    path.mkdir(parents=True, exist_ok=True)
    lock = store.lock(path, 'train.py')
    if not made:
        data.vocabulary.save(path / 'vocabulary.json')
    config.save(path / 'config.json', data=entry)
    return lock


# Options that may change when a run goes on: they say how long and how loudly, not what is computed.
FREE = {'n_epochs', 'print_every', 'save_every', 'save_minutes', 'keep_checkpoints', 'patience', 'tensorboard_images',
        'decode_batch'}


def _check_options(path, there, now):
    for section, values in now.to_dict().items():
        for name, value in values.items():
            old = there.to_dict()[section][name]
            if old != value and name not in FREE:
                raise InputError(f'{path}: this run was started with {name}={old!r}, now it is {value!r}; give the '
                                 f'same options to go on, or choose another --out')


class Run:
    """A RUN DIR.

    Attributes:
        config: Config. vocabulary: Vocabulary. max_length: int, words of a training caption at most.
        spec: EncoderSpec of the features it was trained on.

    Raises:
        InputError: missing or damaged.
    """

    def __init__(self, path):
        self.path = pathlib.Path(path)
        if not (self.path / 'config.json').exists():
            raise InputError(f'{self.path}: not a run (no config.json); train.py DATA --out {self.path} makes one')
        entries = read_json(self.path / 'config.json')
        try:
            self.data_entry = entries.pop('data')
            self.spec = EncoderSpec.from_dict(self.data_entry['encoder'])
            self.max_length = self.data_entry['max_length']
        except (KeyError, TypeError, AttributeError):
            raise InputError(f'{self.path / "config.json"}: lacks the entry data; it was not written by train.py'
                             ) from None
        except InputError as error:
            raise InputError(f'{self.path / "config.json"}: {error}') from None
        self.config = Config.from_dict(entries, where=str(self.path / 'config.json'))
        self.vocabulary = Vocabulary.load(self.path / 'vocabulary.json')

    def encoder(self, weights=None):
        """EncoderSpec with the weights' present path.

        Raises:
            InputError: the weights are missing, or `weights` are others than those the run was trained with.
        """
        spec = self.spec
        found = describe(spec.encoder, spec.layer, spec.size, spec.resize, weights or spec.weights, spec.seed)
        self._check_identity(found.identity(), weights or spec.weights)
        return found

    def data(self, path=None):
        """The DataDir to evaluate on: `path`, or the one of the training; checked to have the same features."""
        if path is None and not pathlib.Path(self.data_entry['path']).is_dir():
            raise InputError(f'{self.data_entry["path"]}: the data of {self.path} are gone; if they moved: '
                             f'evaluate.py {self.path} --data NEW, or train.py NEW --out {self.path}')
        data = DataDir(path or self.data_entry['path'])
        self.check_features(data)
        return data

    def check_features(self, data):
        """Refuse features of another encoder, layer, preprocessing or weights."""
        self._check_identity(EncoderSpec.from_dict(data.encoder).identity(), data.path)

    def _check_identity(self, identity, where):
        mine = self.spec.identity()
        different = [f'{key} {identity[key]!r} instead of {mine[key]!r}' for key in mine if identity[key] != mine[key]]
        if different:
            raise InputError(f'{where}: not what the run {self.path} was trained on: {"; ".join(different)}')

    def build_model(self):
        """The CaptionGenerator, in the default graph."""
        return build_model(self.config, self.vocabulary, self.spec, self.max_length)

    def best(self, variables=None):
        """The BestModel of the run."""
        return BestModel(self.path / 'best', variables)


def build_model(config, vocabulary, spec, max_length):
    """A CaptionGenerator for features of `spec` and captions of at most `max_length` words, in the default graph."""
    rows, cols = spec.grid
    return CaptionGenerator(vocabulary.word_to_idx, (rows * cols, spec.dim), n_time_step=max_length + 1,
                            **dataclasses.asdict(config.model))
