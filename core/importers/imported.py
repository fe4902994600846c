"""What every importer shares: its result, comparison of variables, renumbering of words.

An importer is a module with `read(source, vocab, ...)` -> Imported. It knows one foreign format and
the arithmetic that turns its variables into those of a CaptionGenerator; files, sessions and the
RUN DIR are the business of `make_run`.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from core.common.aliases import PathLike
from core.common.errors import InputError, first_line
from core.data.vocabulary import SPECIALS, Vocabulary
from core.runtime.backend import tf
from core.training.checkpoints import UNREADABLE

# What optimizers, step counters and debiased averages of TF1 leave in a checkpoint beside the
# model.
BESIDES = re.compile(
    r'.*/(Adam|Momentum|RMSProp|Adagrad|Adadelta|Ftrl|GradientDescent|biased|local_step)(_\d+)?'
    r'|(.*/)?(beta[12]_power(_\d+)?|global_step|learning_rate|_CHECKPOINTABLE_OBJECT_GRAPH)'
    r'|save_counter/.*|(.*/)?_?optimizer/.*|.*/\.OPTIMIZER_SLOT/.*'
)
# The score of a word that the foreign model does not have. Its probability, about 1e-13, is too
# small to change those of the other words in float32; where it is a target in later training, its
# loss is that of a rare word.
NEVER = -30.0
CheckpointReader = Any  # what tf.train.load_checkpoint returns
MOST_LENGTH = 1000  # words of a caption: the decoder is unrolled over them


class Imported(NamedTuple):
    """A foreign model in our terms.

    Attributes:
        options: dict of ModelConfig option -> value; what is left out has its default.
        words: list of str, the ordinary words, in the order of our vocabulary after the four
            specials.
        max_length: int, words of a caption at most, without <START> and <END>.
        values: dict of our variable's name -> float32 array.
        encoder: dict with name, layer, size, resize: the features that such models are usually made
            for.
        notes: list of str, lines for the user: what was assumed.
    """

    options: dict[str, Any]
    words: list[str]
    max_length: int
    values: dict[str, np.ndarray]
    encoder: dict[str, Any]
    notes: list[str]


def check_shapes(expected: Mapping[str, Sequence[int | None]],
                 shapes: Mapping[str, Sequence[int | None]], where: PathLike,
                 besides: re.Pattern[str] = BESIDES) -> None:
    """Compare two dicts of variable name -> shape.

    Args:
        expected: shapes that the model needs; None in a shape admits any size there.
        shapes: shapes in the file.
        where: str, the file, for the message.
        besides: pattern of names that `shapes` may have in addition.

    Raises:
        InputError: lists every missing, surplus and wrongly shaped variable by name.
    """
    missing = [f'{name} {_text(expected[name])}' for name in expected if name not in shapes]
    surplus = [f'{name} {_text(shapes[name])}' for name in shapes
               if name not in expected and not besides.fullmatch(name)]
    wrong = [f'{name} {_text(shapes[name])} instead of {_text(expected[name])}' for name in expected
             if name in shapes and not _fits(expected[name], shapes[name])]
    parts = [
        f'{what}: {", ".join(names)}' for what, names in (('missing', missing),
                                                          ('surplus', surplus),
                                                          ('wrongly shaped', wrong)) if names]
    if parts:
        raise InputError(f'{where}: its variables are not those of the model; {"; ".join(parts)}')


def _fits(expected: Sequence[int | None], shape: Sequence[int | None]) -> bool:
    return (len(expected) == len(shape) and all(
        e in (None, f) for e, f in zip(expected, shape, strict=True)))


def _text(shape: Sequence[int | None]) -> str:
    return f'[{", ".join("?" if size is None else str(size) for size in shape)}]'


def renumber(values: dict[str, np.ndarray], rows: Sequence[int | None]) -> None:
    """Put the words of three variables into the order of our vocabulary.

    They are `word_embedding/w`, `logits/w_out` and `logits/b_out`.

    Args:
        values: dict of our variable's name -> array, words numbered as in the source; the three are
            replaced.
        rows: list with the source's number of every entry of our vocabulary, specials first; None
            for an entry that the source lacks: it gets zeros and the score `NEVER`, so that the
            probabilities of all other words are untouched as far as float32 goes.
    """
    inserted = np.array([row is None for row in rows])
    numbers = np.array([row or 0 for row in rows])
    for name, axis, blank in (('word_embedding/w', 0, 0), ('logits/w_out', 1, 0),
                              ('logits/b_out', 0, NEVER)):
        array = np.take(values[name], numbers, axis=axis)
        array[(slice(None),) * axis + (inserted,)] = blank
        values[name] = array


def check_words(words: Sequence[str], where: PathLike) -> None:
    """Raise InputError if `words`, without the four specials, cannot be a vocabulary of ours.

    Raises:
        InputError: an empty word, one that occurs twice, or one that is spelt like a special.
    """
    for word in SPECIALS:
        if word in words:
            raise InputError(f'{where}: the word {word!r} is one of the special words of this '
                             'program; rename it')
    try:
        Vocabulary(words)
    except ValueError as error:
        raise InputError(
            f'{where}: {error}; give the vocabulary that the model was trained with') from None


def open_checkpoint(prefix: PathLike) -> CheckpointReader:
    """Return the reader of a TensorFlow checkpoint.

    Raises:
        InputError: `prefix` names no checkpoint, or a damaged one.
    """
    try:
        return tf.train.load_checkpoint(str(prefix))
    except UNREADABLE as error:
        raise InputError(f'{prefix}: not a TensorFlow checkpoint ({first_line(error)}); give the '
                         'path of its .index file without the ending') from None


def tensors(reader: CheckpointReader, names: Iterable[str],
            where: PathLike) -> dict[str, np.ndarray]:
    """Return the tensors `names` of an open checkpoint: dict of name -> float32 array.

    Raises:
        InputError: a tensor that cannot be read, is not made of numbers, or is not finite.
    """
    values = {}
    for name in names:
        try:
            value = np.asarray(reader.get_tensor(name))
        except UNREADABLE as error:
            raise InputError(f'{where}: {name} cannot be read, the checkpoint is damaged '
                             f'({first_line(error)})') from None
        values[name] = checked(value, name, where)
    return values


def checked(value: Any, name: str, where: PathLike) -> np.ndarray:
    """Return an array as float32.

    Raises:
        InputError: it is not made of finite numbers.
    """
    value = np.asarray(value)
    numbers = value.dtype.kind in 'fiu'
    with np.errstate(over='ignore'):
        value = np.ascontiguousarray(value, np.float32) if numbers else value
    # After the cast: what float32 cannot hold is infinite now.
    if not numbers or not np.isfinite(value).all():
        raise InputError(f'{where}: {name} is not made of finite numbers; the model is broken')
    return value
