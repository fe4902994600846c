"""Saving and restoring: training checkpoints with all that a resumed run needs, and the best model.

    RUN/checkpoints/step-120.{index,data-...}  every variable, the optimizer's too
    RUN/checkpoints/step-120.json              step, epoch, position, best score, patience ...
    RUN/best/step-100.{index,data-...}         the model's variables alone
    RUN/best/best.json                         which step that is and its scores

A file is only named by another once it is complete, so a kill at any moment leaves the previous state readable.
"""

import pathlib
import re

from core.backend import tf, tf1
from core.errors import InputError
from core.files import write_json
from core.store import read_json

_NAME = re.compile(r'step-\d+')


class Checkpoints:
    """The training checkpoints of a run, in `directory`, over `variables`, the last `keep` of them."""

    def __init__(self, directory, variables, keep=2):
        self.directory, self.keep, self._variables = pathlib.Path(directory), keep, list(variables)
        self._saver = tf1.train.Saver(self._variables, max_to_keep=None)

    def save(self, session, state):
        """Write the variables, then `state` (a JSON-able dict with 'step'), then delete what is older than kept."""
        name = f'step-{state["step"]}'
        _save(self._saver, session, self.directory / name, self.directory / f'{name}.json', state)
        kept = _complete(self.directory)[-self.keep :]
        # What has no JSON was left by a run that was killed while it wrote or deleted.
        for path in [*self.directory.glob('step-*.json'), *self.directory.glob('step-*.index')]:
            if path.stem not in kept and _NAME.fullmatch(path.stem):
                _delete(self.directory, path.stem)

    def restore(self, session, state):
        """Read the variables that belong to `state`."""
        _restore(self._saver, session, self.directory / f'step-{state["step"]}', self._variables)


def latest_state(directory):
    """The state of the newest complete training checkpoint in `directory`, or None; needs no graph."""
    names = _complete(pathlib.Path(directory))
    return read_json(pathlib.Path(directory) / f'{names[-1]}.json') if names else None


def _complete(directory):
    """Names of complete checkpoints, oldest first: the JSON is written after the variables, deleted before."""
    found = (path.stem for path in directory.glob('step-*.json') if _NAME.fullmatch(path.stem))
    return sorted(found, key=lambda name: int(name.split('-')[1]))


class BestModel:
    """The best model of a run so far, in `directory`, over `variables`."""

    def __init__(self, directory, variables=None):
        self.directory, self._variables = pathlib.Path(directory), variables
        self._saver = tf1.train.Saver(variables, max_to_keep=None) if variables else None

    def save(self, session, info):
        """Write the variables, then best.json = `info` (a JSON-able dict with 'step'), then delete the previous."""
        name = f'step-{info["step"]}'
        _save(self._saver, session, self.directory / name, self.directory / 'best.json', info)
        for path in self.directory.glob('step-*.index'):
            if path.stem != name:
                _delete(self.directory, path.stem)

    def info(self):
        """What `save` was told, or None where nothing was saved."""
        path = self.directory / 'best.json'
        return read_json(path) if path.exists() else None

    def restore(self, session):
        """Read the best model's variables."""
        _restore(self._saver, session, self.prefix(), self._variables)

    def prefix(self):
        """The checkpoint's path as TensorFlow wants it."""
        info = self.info()
        if info is None:
            raise InputError(f'{self.directory.parent}: no trained model here yet; train.py writes one at its first '
                             f'validation')
        return self.directory / f'step-{info["step"]}'


def initialize_from(session, prefix, variables):
    """Set `variables` from a checkpoint of the same names and shapes (`pretrained_model`).

    Raises:
        InputError: no checkpoint there; or names of variables that it lacks or has in another shape.
    """
    _restore(tf1.train.Saver(variables), session, prefix, variables)


def _save(saver, session, prefix, json_path, info):
    """Write the variables, then the JSON that calls them complete."""
    try:
        prefix.parent.mkdir(parents=True, exist_ok=True)
        saver.save(session, str(prefix), write_meta_graph=False, write_state=False)
        write_json(json_path, info)
    except (OSError, tf.errors.OpError) as error:
        raise InputError(f'{prefix.parent}: cannot write a checkpoint ({str(error).splitlines()[0]}); make room and '
                         f'run the same command again') from None


def _restore(saver, session, prefix, variables):
    """Restore `variables`, after a look at their shapes: the Saver itself would give a variable another shape."""
    try:
        shapes = tf.train.load_checkpoint(str(prefix)).get_variable_to_shape_map()
    except (tf.errors.OpError, ValueError, RuntimeError) as error:
        raise InputError(f'{prefix}: not a TensorFlow checkpoint ({str(error).splitlines()[0]})') from None
    wrong = [
        f'{v.op.name} {v.shape.as_list()} (there: {shapes.get(v.op.name, "missing")})'
        for v in variables if shapes.get(v.op.name) != v.shape.as_list()
    ]
    if wrong:
        raise InputError(f'{prefix}: does not fit this model: {"; ".join(wrong)}')
    try:
        saver.restore(session, str(prefix))
    except (tf.errors.OpError, ValueError) as error:
        raise InputError(f'{prefix}: cannot be restored, it is damaged ({str(error).splitlines()[0]})') from None


def _delete(directory, name):
    """Delete a checkpoint; its JSON first, as that is what calls it complete."""
    (directory / f'{name}.json').unlink(missing_ok=True)
    for path in directory.glob(f'{name}.*'):
        path.unlink(missing_ok=True)
