"""Saving and restoring: training checkpoints with all that a resumed run needs, and the best model.

    RUN/checkpoints/step-120.{index,data-...}  every variable, the optimizer's too
    RUN/checkpoints/step-120.json              step, epoch, position, best score, patience ...
    RUN/best/step-100.{index,data-...}         the model's variables alone
    RUN/best/best.json                         which step that is and its scores

A file is only named by another once it is complete, so a kill at any moment leaves the previous
state readable.
"""

import pathlib
import re
from collections.abc import Sequence
from typing import Any

from core.common.aliases import PathLike, Session, Variable
from core.common.errors import InputError, first_line
from core.common.files import read_json, write_json
from core.runtime.backend import tf, tf1

_NAME = re.compile(r'step-\d+')
# What TensorFlow raises for a damaged checkpoint: IndexError where a data file is too short.
UNREADABLE = (tf.errors.OpError, ValueError, RuntimeError, IndexError)


class Checkpoints:
    """The last `keep` training checkpoints of a run, in `directory`, over `variables`."""

    def __init__(self, directory: PathLike, variables: Sequence[Variable], keep: int = 2) -> None:
        self.directory, self.keep, self._variables = pathlib.Path(directory), keep, list(variables)
        self._saver = tf1.train.Saver(self._variables, max_to_keep=None)

    def save(self, session: Session, state: dict[str, Any]) -> None:
        """Write the variables, then `state` (for JSON, with 'step'); delete what is older."""
        name = f'step-{state["step"]}'
        _save(self._saver, session, self.directory / name, self.directory / f'{name}.json', state)
        staying = _complete(self.directory)[-self.keep:]
        # What has no JSON was left by a run that was killed while it wrote or deleted.
        for path in [*self.directory.glob('step-*.json'), *self.directory.glob('step-*.index')]:
            if path.stem not in staying and _NAME.fullmatch(path.stem):
                _delete(self.directory, path.stem)

    def restore(self, session: Session, state: dict[str, Any]) -> None:
        """Read the variables that belong to `state`."""
        _restore(self._saver, session, self.directory / f'step-{state["step"]}', self._variables)


def latest_state(directory: PathLike) -> dict[str, Any] | None:
    """Return the state of the newest complete checkpoint, or None; needs no graph."""
    names = _complete(pathlib.Path(directory))
    return read_json(pathlib.Path(directory) / f'{names[-1]}.json') if names else None


def _complete(directory: pathlib.Path) -> list[str]:
    """Return the names of complete checkpoints, oldest first.

    The JSON calls a checkpoint complete: it is written after the variables and deleted before them.
    """
    names = (path.stem for path in directory.glob('step-*.json') if _NAME.fullmatch(path.stem))
    return sorted(names, key=lambda name: int(name.split('-')[1]))


class BestModel:
    """The best model of a run so far, in `directory`, over `variables`."""

    def __init__(self, directory: PathLike, variables: Sequence[Variable] | None = None) -> None:
        self.directory, self._variables = pathlib.Path(directory), variables or ()
        self._saver = tf1.train.Saver(variables, max_to_keep=None) if variables else None

    def save(self, session: Session, info: dict[str, Any]) -> None:
        """Write the variables, then `info` (for JSON, with 'step'); delete the previous."""
        name = f'step-{info["step"]}'
        _save(self._saver, session, self.directory / name, self.directory / 'best.json', info)
        for path in self.directory.glob('step-*.index'):
            if path.stem != name:
                _delete(self.directory, path.stem)

    def info(self) -> dict[str, Any] | None:
        """Return what `save` was told, or None where nothing was saved."""
        path = self.directory / 'best.json'
        return read_json(path) if path.exists() else None

    def restore(self, session: Session) -> None:
        """Read the best model's variables."""
        _restore(self._saver, session, self.prefix(), self._variables)

    def prefix(self) -> pathlib.Path:
        """Return the checkpoint's path as TensorFlow wants it; InputError where there is none."""
        info = self.info()
        if info is None:
            raise InputError(f'{self.directory.parent}: no trained model here yet; train.py writes '
                             'one at its first validation')
        return self.directory / f'step-{info["step"]}'


def initialize_from(session: Session, prefix: PathLike, variables: Sequence[Variable]) -> None:
    """Set `variables` from a checkpoint of the same names and shapes (`pretrained_model`).

    Raises:
        InputError: no checkpoint there; or names of variables that it lacks or has in another
            shape.
    """
    _restore(tf1.train.Saver(variables), session, prefix, variables)


def _save(saver: Any, session: Session, prefix: pathlib.Path, json_path: pathlib.Path,
          info: dict[str, Any]) -> None:
    """Write the variables, then the JSON that calls them complete."""
    try:
        prefix.parent.mkdir(parents=True, exist_ok=True)
        saver.save(session, str(prefix), write_meta_graph=False, write_state=False)
        write_json(json_path, info)
    except (OSError, tf.errors.OpError) as error:
        raise InputError(
            f'{prefix.parent}: cannot write a checkpoint ({str(error).splitlines()[0]}); make room '
            'and run the same command again') from None


def _restore(saver: Any, session: Session, prefix: PathLike, variables: Sequence[Variable]) -> None:
    """Restore `variables`; raise InputError for what does not fit or cannot be read."""
    try:
        shapes = tf.train.load_checkpoint(str(prefix)).get_variable_to_shape_map()
    except UNREADABLE as error:
        raise InputError(f'{prefix}: not a TensorFlow checkpoint ({first_line(error)})') from None
    # The Saver itself would give a variable another shape without a word.
    wrong = [
        f'{v.op.name} {v.shape.as_list()} (there: {shapes.get(v.op.name, "missing")})'
        for v in variables if shapes.get(v.op.name) != v.shape.as_list()
    ]
    if wrong:
        raise InputError(f'{prefix}: does not fit this model: {"; ".join(wrong)}')
    try:
        saver.restore(session, str(prefix))
    except UNREADABLE as error:
        raise InputError(
            f'{prefix}: cannot be restored, it is damaged ({first_line(error)})') from None


def _delete(directory: pathlib.Path, name: str) -> None:
    """Delete a checkpoint; its JSON first, as that is what calls it complete."""
    (directory / f'{name}.json').unlink(missing_ok=True)
    for path in directory.glob(f'{name}.*'):
        path.unlink(missing_ok=True)
