"""Saving and restoring: training checkpoints with all that a resumed run needs, and the best model.

    python -m core.training.checkpoints import ...      other people's models, see --help and core.importers
    python -m core.training.checkpoints export-tf1 RUN PREFIX

    RUN/checkpoints/step-120.{index,data-...}  every variable, the optimizer's too
    RUN/checkpoints/step-120.json              step, epoch, position, best score, patience ...
    RUN/best/step-100.{index,data-...}         the model's variables alone
    RUN/best/best.json                         which step that is and its scores

A file is only named by another once it is complete, so a kill at any moment leaves the previous state readable.
"""

import os
import pathlib
import re
from collections.abc import Sequence
from typing import Any

from core.common.aliases import PathLike, Session, Variable

if __name__ == '__main__':  # its start-up lines; core.common.terminal says so too, but here TensorFlow is imported before
    os.environ.setdefault('TF_CPP_MIN_LOG_LEVEL', '3')

from core.common import command_line, terminal
from core.common.errors import InputError
from core.common.files import write_json
from core.data.data_dir import read_json
from core.runtime.backend import tf, tf1

_NAME = re.compile(r'step-\d+')
# What TensorFlow raises where it reads a damaged checkpoint: IndexError for a data file that is too short.
UNREADABLE = (tf.errors.OpError, ValueError, RuntimeError, IndexError)


NO_SCORE = 1e-6  # BLEU-4 without any four words in a row is some 1e-11, which orders nothing


def replaces(score: float, best: float | None) -> tuple[bool, bool]:
    """Whether a validation's model takes the best one's place, and whether its score is better.

    Where no score is above nothing yet, the later model takes the place without being better.
    """
    better = best is None or max(score, NO_SCORE) > max(best, NO_SCORE)
    return better or max(score, best or 0.0) <= NO_SCORE, better


class Checkpoints:
    """The training checkpoints of a run, in `directory`, over `variables`, the last `keep` of them."""

    def __init__(self, directory: PathLike, variables: Sequence[Variable], keep: int = 2) -> None:
        self.directory, self.keep, self._variables = pathlib.Path(directory), keep, list(variables)
        self._saver = tf1.train.Saver(self._variables, max_to_keep=None)

    def save(self, session: Session, state: dict[str, Any]) -> None:
        """Write the variables, then `state` (a JSON-able dict with 'step'), then delete what is older than kept."""
        name = f'step-{state["step"]}'
        _save(self._saver, session, self.directory / name, self.directory / f'{name}.json', state)
        kept = _complete(self.directory)[-self.keep :]
        # What has no JSON was left by a run that was killed while it wrote or deleted.
        for path in [*self.directory.glob('step-*.json'), *self.directory.glob('step-*.index')]:
            if path.stem not in kept and _NAME.fullmatch(path.stem):
                _delete(self.directory, path.stem)

    def restore(self, session: Session, state: dict[str, Any]) -> None:
        """Read the variables that belong to `state`."""
        _restore(self._saver, session, self.directory / f'step-{state["step"]}', self._variables)


def latest_state(directory: PathLike) -> dict[str, Any] | None:
    """The state of the newest complete training checkpoint in `directory`, or None; needs no graph."""
    names = _complete(pathlib.Path(directory))
    return read_json(pathlib.Path(directory) / f'{names[-1]}.json') if names else None


def _complete(directory: pathlib.Path) -> list[str]:
    """Names of complete checkpoints, oldest first: the JSON is written after the variables, deleted before."""
    found = (path.stem for path in directory.glob('step-*.json') if _NAME.fullmatch(path.stem))
    return sorted(found, key=lambda name: int(name.split('-')[1]))


class BestModel:
    """The best model of a run so far, in `directory`, over `variables`."""

    def __init__(self, directory: PathLike, variables: Sequence[Variable] | None = None) -> None:
        self.directory, self._variables = pathlib.Path(directory), variables or ()
        self._saver = tf1.train.Saver(variables, max_to_keep=None) if variables else None

    def save(self, session: Session, info: dict[str, Any]) -> None:
        """Write the variables, then best.json = `info` (a JSON-able dict with 'step'), then delete the previous."""
        name = f'step-{info["step"]}'
        _save(self._saver, session, self.directory / name, self.directory / 'best.json', info)
        for path in self.directory.glob('step-*.index'):
            if path.stem != name:
                _delete(self.directory, path.stem)

    def info(self) -> dict[str, Any] | None:
        """What `save` was told, or None where nothing was saved."""
        path = self.directory / 'best.json'
        return read_json(path) if path.exists() else None

    def restore(self, session: Session) -> None:
        """Read the best model's variables."""
        _restore(self._saver, session, self.prefix(), self._variables)

    def prefix(self) -> pathlib.Path:
        """The checkpoint's path as TensorFlow wants it."""
        info = self.info()
        if info is None:
            raise InputError(f'{self.directory.parent}: no trained model here yet; train.py writes one at its first '
                             f'validation')
        return self.directory / f'step-{info["step"]}'


def initialize_from(session: Session, prefix: PathLike, variables: Sequence[Variable]) -> None:
    """Set `variables` from a checkpoint of the same names and shapes (`pretrained_model`).

    Raises:
        InputError: no checkpoint there; or names of variables that it lacks or has in another shape.
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
        raise InputError(f'{prefix.parent}: cannot write a checkpoint ({str(error).splitlines()[0]}); make room and '
                         f'run the same command again') from None


def _restore(saver: Any, session: Session, prefix: PathLike, variables: Sequence[Variable]) -> None:
    """Restore `variables`, after a look at their shapes: the Saver itself would give a variable another shape."""
    try:
        shapes = tf.train.load_checkpoint(str(prefix)).get_variable_to_shape_map()
    except UNREADABLE as error:
        raise InputError(f'{prefix}: not a TensorFlow checkpoint ({first_line(error)})') from None
    wrong = [
        f'{v.op.name} {v.shape.as_list()} (there: {shapes.get(v.op.name, "missing")})'
        for v in variables if shapes.get(v.op.name) != v.shape.as_list()
    ]
    if wrong:
        raise InputError(f'{prefix}: does not fit this model: {"; ".join(wrong)}')
    try:
        saver.restore(session, str(prefix))
    except UNREADABLE as error:
        raise InputError(f'{prefix}: cannot be restored, it is damaged ({first_line(error)})') from None


def first_line(error: BaseException) -> str:
    """What an exception says, in one short line; its type where it says nothing."""
    return next((line.strip()[:200] for line in str(error).splitlines() if line.strip()), type(error).__name__)


def _delete(directory: pathlib.Path, name: str) -> None:
    """Delete a checkpoint; its JSON first, as that is what calls it complete."""
    (directory / f'{name}.json').unlink(missing_ok=True)
    for path in directory.glob(f'{name}.*'):
        path.unlink(missing_ok=True)


# ---- the command line

_EXAMPLES = """Other people's checkpoints, in and out.

examples:
  python -m core.training.checkpoints import model/lstm/model-20 --vocab word_to_idx.pkl --out runs/tf1
  python -m core.training.checkpoints import coco.npz --vocab dictionary.pkl --options coco.npz.pkl --out runs/authors
  python -m core.training.checkpoints import checkpoints/train --vocab tokenizer.json --out runs/tf2
  python -m core.training.checkpoints export-tf1 runs/flickr8k old/model-1

What is imported becomes a run that evaluate.py uses. Pickles are read without being executed.
"""


def _parser() -> command_line.Parser:
    parser = command_line.Parser(_EXAMPLES, 'COMMAND ...', prog='python -m core.training.checkpoints')
    commands = parser.add_subparsers(dest='command', metavar='COMMAND', parser_class=command_line.OneLineParser)
    run = commands.add_parser('import', help='make a RUN DIR from a model of other code')
    run.add_argument('source', metavar='SOURCE', help="checkpoint without endings or its directory, or the authors' "
                                                      '.npz file')
    run.add_argument('--vocab', metavar='FILE', help='its vocabulary: dict of word -> index, pickle or JSON; tf2 also '
                                                     "the tokenizer's JSON; authors: default dictionary.pkl beside it")
    run.add_argument('--out', metavar='RUN', required=True, help='run directory to make')
    run.add_argument('--kind', choices=('tf1', 'authors', 'tf2'), help='default: seen from SOURCE')
    run.add_argument('--options', metavar='FILE', help="the authors' pickled options; default: SOURCE.pkl")
    run.add_argument('--set', metavar='NAME=VALUE', action='append', default=[], dest='assignments',
                     help="an option that neither the variables nor the authors' options file tell, such as "
                          'prev2out=false; it changes no variable; may be repeated')
    run.add_argument('--data', metavar='DATA', help='data directory with the features that the model takes')
    run.add_argument('--encoder', metavar='NAME', help='or: their encoder (default: the usual one of the kind)')
    run.add_argument('--layer', metavar='NAME', help='and its layer')
    run.add_argument('--image-size', type=int, metavar='PIXELS', help='and the side of its input')
    run.add_argument('--resize', choices=('crop', 'squash'), help='and how images are brought to it')
    run.add_argument('--max-length', type=int, metavar='N', help="words of a caption at most (default: SOURCE's; "
                                                                 'tf1: 15; largest: 1000)')
    export = commands.add_parser('export-tf1', help="write a run's best model as a checkpoint for the TF1 code")
    export.add_argument('run', metavar='RUN', help='run directory')
    export.add_argument('prefix', metavar='PREFIX', help='path of the new files without endings')
    return parser


def main(arguments: Sequence[str] | None = None) -> None:
    """Parse and convert."""
    parser = _parser()
    args = parser.parse_args(arguments)
    if args.command is None:
        parser.print_help()
    elif args.command == 'import':
        from core import importers

        encoder = {'name': args.encoder, 'layer': args.layer, 'size': args.image_size, 'resize': args.resize}
        if args.data and any(value is not None for value in encoder.values()):
            raise InputError('--data says what the features are: leave --encoder, --layer, --image-size and --resize '
                             'out')
        importers.make_run(args.source, args.vocab, args.out, kind=args.kind, options=args.options, data=args.data,
                           encoder=encoder, assignments=args.assignments, max_length=args.max_length)
    else:
        from core.importers import tf1_tutorial as tf1_code
        from core.runs.run_dir import Run

        tf1_code.export(Run(args.run), args.prefix)


if __name__ == '__main__':
    terminal.run(main)
