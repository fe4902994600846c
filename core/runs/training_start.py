"""What a training starts from: a run to go on with, a trained model, data, word vectors.

Each is checked before anything is built; core.commands.train calls these.
"""

import pathlib

import numpy as np

from core.common import terminal
from core.common.aliases import PathLike
from core.common.errors import InputError
from core.config.config import Config
from core.data import word_vectors
from core.data.data_dir import DataDir
from core.data.image_data import ImageData
from core.data.vocabulary import Vocabulary
from core.encoders.encoder import EncoderSpec, check_trainable
from core.runs.packed_run import is_packed
from core.runs.run_dir import Run


def resumable_run(path: PathLike) -> Run:
    """Return the Run at --resume.

    Raises:
        InputError: not a run, or an imported one.
    """
    run = Run(path)
    if run.imported:
        raise InputError(f'{path}: imported from elsewhere, and there is no training to '
                         'go on with; start another run from its variables: train.py DATA '
                         f'--out NEW --pretrained-model {path}')
    return run


def pretrained_run(path: PathLike, data: DataDir, needed: bool) -> Run | None:
    """Return the Run at --pretrained-model, or None if that is the name of a checkpoint.

    Raises:
        InputError: `needed` and neither; or a run of other words than those of the DataDir: its
            word vectors would stand for other words.
    """
    if not is_packed(path) and not (pathlib.Path(path) / 'config.json').exists():
        if needed and not (pathlib.Path(f'{path}.index').exists() or pathlib.Path(path).is_file()):
            raise InputError(f'--pretrained-model {path}: neither a run directory nor a TensorFlow '
                             'checkpoint (its path without .index)')
        return None
    run = Run(path)
    if needed:
        run.best().prefix()  # refuses a run without a model
    if run.vocabulary != data.vocabulary:
        raise InputError(f'--pretrained-model {path}: has another vocabulary than {data.path}; '
                         f'make the data with prepro.py --like {path}')
    return run


def check_pretrained(path: PathLike, pretrained: Run, config: Config, data: DataDir) -> None:
    """Raise InputError if a part of a fine-tuned encoder would be left behind.

    Features that the model was not trained on are allowed, with a note.
    """
    if not pretrained.finetuned:
        try:
            pretrained.check_features(data)
        except InputError as error:
            # Allowed, as the model may learn to read them, but not in silence
            terminal.say(f'note: {error}')
        return
    pretrained.check_features(data)
    now, before = config.training.finetune_from, pretrained.config.training.finetune_from
    if not now:
        raise InputError(f'--pretrained-model {path}: its encoder was fine-tuned, and stored '
                         f'features are those of the encoder before; add --finetune-from {before}, '
                         'and --set finetune_rate=0 to keep the encoder as it is')
    if not set(check_trainable(pretrained.spec, before)) <= set(
        check_trainable(pretrained.spec, now)):
        raise InputError(f'--pretrained-model {path}: its encoder was fine-tuned from {before} on, '
                         f'and only what --finetune-from names is taken over; name {before} or a '
                         'layer before it')


def check_data(path: PathLike, data: DataDir, config: Config, weights: PathLike | None) -> None:
    """Raise InputError if training lacks captions, or fine-tuning a layer, weights or images.

    Args:
        path: the data directory as the user names it. data: that, opened. config: Config.
        weights: path of the encoder's weights, where they moved; only for fine-tuning.
    """
    from core.runs.make_model import check_finetuning

    first = config.training.finetune_from
    if weights and not first:
        raise InputError('--weights belongs to --finetune-from LAYER; without it the stored '
                         'features are used')
    if first:
        spec = EncoderSpec.from_dict(data.encoder)
        check_finetuning(spec, first, weights)
        for split in ('train', 'dev'):
            if split in data.splits:
                ImageData(data.split(split), spec)
    if not len(data.split('train').captions):
        raise InputError(f'{path}: no training caption; make the data with a larger '
                         '--max-length')


def read_word_vectors(path: PathLike, vocabulary: Vocabulary,
                      size: int) -> tuple[np.ndarray, np.ndarray]:
    """Return (numbers of words, their vectors) of the file of --word-vectors; print how many."""
    indices, matrix = word_vectors.read_word_vectors(path, vocabulary.idx_to_word, size)
    terminal.say(f'{path}: vectors of {len(indices)} of the {len(vocabulary)} words')
    return indices, matrix
