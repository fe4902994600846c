"""Saving and restoring: training checkpoints with all that a resumed run needs, and the best model.

    RUN/checkpoints/step-120.{index,data-...}  every variable, the optimizer's too
    RUN/checkpoints/step-120.json              step, epoch, position, best score, patience ...
    RUN/best/step-100.{index,data-...}         the model's variables alone
    RUN/best/best.json                         which step that is and its scores

A file is only named by another once it is complete, so a kill at any moment leaves the previous state readable.
"""

import pathlib

from core.backend import tf, tf1
from core.errors import InputError
from core.files import write_json
from core.store import read_json


class Checkpoints:
    """The training checkpoints of a run, in `directory`, over `variables`, the last `keep` of them."""

    def __init__(self, directory, variables, keep=2):
        self.directory, self.keep = pathlib.Path(directory), keep
        self._saver = tf1.train.Saver(variables, max_to_keep=None)

    def save(self, session, state):
        """Write the variables, then `state` (a JSON-able dict with 'step'), then delete what is older than kept."""
        self.directory.mkdir(parents=True, exist_ok=True)
        name = f'step-{state["step"]}'
        try:
            self._saver.save(session, str(self.directory / name), write_meta_graph=False, write_state=False)
            write_json(self.directory / f'{name}.json', state)
        except (OSError, tf.errors.OpError) as error:
            raise InputError(f'{self.directory}: cannot write a checkpoint ({str(error).splitlines()[0]}); make room '
                             f'and run the same command again') from None
        names = self._complete()
        for old in names[: -self.keep]:
            _delete(self.directory, old)

    def latest(self):
        """The state of the newest complete checkpoint, or None."""
        names = self._complete()
        return read_json(self.directory / f'{names[-1]}.json') if names else None

    def restore(self, session, state):
        """Read the variables that belong to `state`."""
        prefix = self.directory / f'step-{state["step"]}'
        _restore(self._saver, session, prefix)

    def _complete(self):
        """Names of complete checkpoints, oldest first: the JSON is written after the variables, deleted before."""
        found = (path.stem for path in self.directory.glob('step-*.json'))
        return sorted(found, key=lambda name: int(name.split('-')[1]))


class BestModel:
    """The best model of a run so far, in `directory`, over `variables`."""

    def __init__(self, directory, variables=None):
        self.directory = pathlib.Path(directory)
        self._saver = tf1.train.Saver(variables, max_to_keep=None) if variables else None

    def save(self, session, info):
        """Write the variables, then best.json = `info` (a JSON-able dict with 'step'), then delete the previous."""
        self.directory.mkdir(parents=True, exist_ok=True)
        name = f'step-{info["step"]}'
        self._saver.save(session, str(self.directory / name), write_meta_graph=False, write_state=False)
        write_json(self.directory / 'best.json', info)
        for path in self.directory.glob('step-*.index'):
            if path.stem != name:
                _delete(self.directory, path.stem)

    def info(self):
        """What `save` was told, or None where nothing was saved."""
        path = self.directory / 'best.json'
        return read_json(path) if path.exists() else None

    def restore(self, session):
        """Read the best model's variables."""
        _restore(self._saver, session, self.prefix())

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
    try:
        reader = tf.train.load_checkpoint(str(prefix))
    except (tf.errors.OpError, ValueError) as error:
        raise InputError(f'{prefix}: not a TensorFlow checkpoint ({str(error).splitlines()[0]})') from None
    shapes = reader.get_variable_to_shape_map()
    wrong = [
        f'{v.op.name} {v.shape.as_list()} (there: {shapes.get(v.op.name, "missing")})'
        for v in variables if shapes.get(v.op.name) != v.shape.as_list()
    ]
    if wrong:
        raise InputError(f'{prefix}: does not fit this model: {"; ".join(wrong)}')
    tf1.train.Saver(variables).restore(session, str(prefix))


def _restore(saver, session, prefix):
    try:
        saver.restore(session, str(prefix))
    except (tf.errors.OpError, ValueError) as error:
        raise InputError(f'{prefix}: cannot be restored ({str(error).splitlines()[0]}); it is damaged or belongs to '
                         f'another model') from None


def _delete(directory, name):
    """Delete a checkpoint; its JSON first, as that is what calls it complete."""
    (directory / f'{name}.json').unlink(missing_ok=True)
    for path in directory.glob(f'{name}.*'):
        path.unlink(missing_ok=True)
