"""A run as one file for other people: `python -m core pack RUN`, and the way back.

    CARD.md              what the model is, see core.runs.model_card
    config.json          every option and the encoder's identity, without a path of this machine
    vocabulary.json      words of the model
    best/                the best model, with its step and scores in best.json

The names are those of a RUN DIR: unpacked by any program it is one. Nothing of the data is inside,
nor of a training's state. Equal runs give equal bytes: files are in the order of their names, have
no time, and are stored as they are, so that no archive can unpack to more bytes than it has.
"""

import errno
import os
import pathlib
import re
import shutil
import stat
import tempfile
import weakref
import zipfile
from collections.abc import Collection
from typing import IO, TYPE_CHECKING, Any

import numpy as np

from core.common.aliases import Json, PathLike
from core.common.errors import InputError, first_line
from core.common.files import read_json, replacing, write_json
from core.data.vocabulary import Vocabulary
from core.download.zip_archive import check_entry
from core.runs import model_card

if TYPE_CHECKING:
    from core.runs.run_dir import Run

SUFFIX = '.zip'
NO_FILE = ('random', 'unknown')  # what stands for the encoder's weights where no file does
_FIXED = ('CARD.md', 'config.json', 'vocabulary.json', 'best/best.json')
_VARIABLES = re.compile(r'(best/step-\d+)\.(?:index|data-\d{5}-of-\d{5})')
_BLOCK = 1 << 20
_NO_TIME = (1980, 1, 1, 0, 0, 0)  # the first that a zip archive can hold
# what `zipfile` raises for archives that are none, or are damaged
_DAMAGED = (zipfile.BadZipFile, NotImplementedError, RuntimeError, EOFError, ValueError, IndexError)


def is_packed(path: PathLike) -> bool:
    """Return whether a path is that of a packed run, by its name; `unpack` looks into it."""
    return pathlib.Path(path).suffix.lower() == SUFFIX and os.path.isfile(path)


def default_out(path: PathLike) -> pathlib.Path:
    """Return where `python -m core pack` writes a run if not told: beside it."""
    path = pathlib.Path(path)
    if is_packed(path):
        return path
    path = path if path.name else path.absolute()
    return path.with_name(path.name + SUFFIX)


def check_out(path: PathLike) -> pathlib.Path:
    """Return the path of an archive to write; InputError if it is no name for one."""
    path = pathlib.Path(path)
    if path.suffix.lower() != SUFFIX or path.is_dir():
        raise InputError(f'{path}: name a file that ends in {SUFFIX}, as caption.py knows a packed '
                         'run by that')
    return path


def pack(run: 'Run', out: PathLike, data_licence: str | None = None) -> dict[str, Any]:
    """Write a run's best model, with all that captions need, as one archive.

    Args:
        run: Run.
        out: path of the archive, which appears when it is complete. One that is there stays, and
            must have the same bytes.
        data_licence: what the card says of the licence of the training data; None: that it is not
            stated.

    Returns:
        dict: 'step' of the model, 'bytes' of the archive, 'weights', the name of the encoder's
        weights file, which is not inside.

    Raises:
        InputError: the run has no model, a damaged or a diverged one; `out` is another file.
    """
    out = check_out(out)
    prefix = run.best().prefix()
    entry, best = _data_entry(run), _best_entry(run.best().info() or {})
    n_numbers = _count_numbers(prefix)
    card = model_card.card(run.config, entry, best, run.vocabulary, n_numbers, data_licence)
    with tempfile.TemporaryDirectory() as temporary:
        folder = pathlib.Path(temporary)
        (folder / 'best').mkdir()
        (folder / 'CARD.md').write_text(card, encoding='utf8', newline='\n')
        run.config.save(folder / 'config.json', data=entry)
        run.vocabulary.save(folder / 'vocabulary.json')
        write_json(folder / 'best' / 'best.json', best)
        sources = {name: folder / name for name in _FIXED}
        sources.update((f'best/{path.name}', path) for path in prefix.parent.iterdir()
                       if path.stem == prefix.name and _VARIABLES.fullmatch(f'best/{path.name}'))
        out.parent.mkdir(parents=True, exist_ok=True)
        with replacing(out, 'w+b') as file:
            _write(file, sources, run.path)
            if out.exists() and not _same(file, out):
                raise InputError(f'{out}: exists already, with another content; choose another '
                                 '--out, or remove it')
            n_bytes = file.seek(0, os.SEEK_END)
    return {'step': best['step'], 'bytes': n_bytes, 'weights': entry['encoder']['weights']}


def _data_entry(run: 'Run') -> dict[str, Any]:
    """Return what config.json says of the data and the encoder, without paths."""
    encoder = run.spec.to_dict()
    if encoder['weights'] not in NO_FILE:
        encoder['weights'] = os.path.basename(encoder['weights'])
    known = run.data_entry
    return {'path': None, 'encoder': encoder, 'max_length': run.max_length,
            'tokens': run.tokens, 'dataset': known.get('dataset'),
            'records_sha256': known.get('records_sha256'), 'splits': _counts(known)}


def _counts(entry: dict[str, Any]) -> dict[str, dict[str, int]]:
    """Return the images and captions of each split; empty where the run's data are gone."""
    splits = entry.get('splits')
    if entry.get('path') is not None:
        try:
            manifest = read_json(pathlib.Path(entry['path']) / 'manifest.json')
            if manifest['records_sha256'] == entry['records_sha256']:
                splits = manifest['splits']
        except (InputError, KeyError, TypeError):
            pass
    try:
        return {str(split): {what: int(counts[what]) for what in ('images', 'captions')}
                for split, counts in (splits or {}).items() if counts['images']}
    except (KeyError, TypeError, ValueError, AttributeError):
        return {}


def _best_entry(info: dict[str, Any]) -> dict[str, Any]:
    """Return what best.json says: step, epoch and scores; of an import its kind."""
    entry: dict[str, Any] = {name: info[name] for name in ('step', 'epoch') if name in info}
    entry['scores'] = {name: score for name, score in (info.get('scores') or {}).items()
                       if isinstance(score, int | float)}
    if 'imported' in info:
        entry['imported'] = {'kind': info['imported'].get('kind')}
    return entry


def _count_numbers(prefix: pathlib.Path) -> int:
    """Return how many numbers a checkpoint holds, each of which was read.

    Raises:
        InputError: it is damaged, or holds numbers that are not finite.
    """
    from core.runtime.backend import tf
    from core.training.checkpoints import UNREADABLE

    n_numbers = 0
    try:
        reader = tf.train.load_checkpoint(str(prefix))
        for name in reader.get_variable_to_shape_map():
            value = np.asarray(reader.get_tensor(name))
            if not np.isfinite(value).all():
                raise InputError(f'{prefix}: {name} is not finite: the model diverged in training')
            n_numbers += value.size
    except UNREADABLE as error:
        raise InputError(f'{prefix}: cannot be read, it is damaged or was replaced just now '
                         f'({first_line(error)})') from None
    return n_numbers


def _write(file: IO[bytes], sources: dict[str, pathlib.Path], run: PathLike) -> None:
    """Write the archive of `sources`, a dict of name -> file."""
    try:
        with zipfile.ZipFile(file, 'w', zipfile.ZIP_STORED) as archive:
            for name, source in sorted(sources.items()):
                info = zipfile.ZipInfo(name, _NO_TIME)
                info.create_system, info.external_attr = 3, (stat.S_IFREG | 0o644) << 16
                info.file_size = source.stat().st_size  # decides on the form for large files
                with open(source, 'rb') as content, archive.open(info, 'w') as entry:
                    shutil.copyfileobj(content, entry, _BLOCK)
    except FileNotFoundError:
        raise InputError(f'{run}: a better model took the place of the best one meanwhile; run the '
                         'same command again') from None


def _same(file: IO[bytes], path: pathlib.Path) -> bool:
    """Return whether an open file and the file at `path` have the same bytes."""
    if file.seek(0, os.SEEK_END) != path.stat().st_size:
        return False
    file.seek(0)
    with open(path, 'rb') as other:
        while block := file.read(_BLOCK):
            if block != other.read(_BLOCK):
                return False
    return True


# ---- the way back

def unpack_for(owner: object, path: PathLike) -> pathlib.Path:
    """Unpack into a temporary directory that is removed with `owner`, at exit at the latest.

    Returns:
        The directory, a RUN DIR.

    Raises:
        InputError: as of `unpack`.
    """
    folder = tempfile.mkdtemp(prefix='packed-run-')
    remove = weakref.finalize(owner, shutil.rmtree, folder, ignore_errors=True)
    try:
        unpack(path, folder)
    except BaseException:
        remove()
        raise
    return pathlib.Path(folder)


def unpack(path: PathLike, to: PathLike) -> None:
    """Unpack an archive that `pack` wrote into the empty directory `to`, which becomes a RUN DIR.

    Nothing outside of `to` is written, no link is made, and no more bytes than the archive has.

    Raises:
        InputError: damaged, unsafe, or not a packed run; names `path` and what is wrong there.
    """
    path, to = pathlib.Path(path), pathlib.Path(to)
    try:
        with zipfile.ZipFile(path) as archive:
            members = archive.infolist()
            _check_members(path, members)
            (to / 'best').mkdir()
            for info in members:
                with archive.open(info) as content, open(to / info.filename, 'xb') as file:
                    shutil.copyfileobj(content, file, _BLOCK)
                if (to / info.filename).stat().st_size != info.file_size:
                    raise EOFError(f'{info.filename} is shorter than announced')
    except _DAMAGED as error:
        raise InputError(f'{path}: not a whole zip archive ({first_line(error)}); fetch it '
                         'again') from None
    except OSError as error:
        if error.errno in (None, errno.EINVAL):  # an entry begins before the file does
            raise InputError(f'{path}: not a whole zip archive; fetch it again') from None
        raise InputError(f'{path}: cannot be unpacked into {to} ({error.strerror})') from None
    try:
        _check_contents(path, to, [info.filename for info in members])
    except InputError as error:  # in a directory that the user has not heard of
        raise InputError(str(error).replace(str(to), str(path))) from None


def _check_members(path: pathlib.Path, members: list[zipfile.ZipInfo]) -> None:
    """Raise InputError unless these are the entries that `pack` writes."""
    names = [info.filename for info in members]
    for info in members:
        check_entry(path, info)
        if info.filename not in _FIXED and not _VARIABLES.fullmatch(info.filename):
            raise InputError(f'{path}: holds {info.filename[:120]!r}, which is no part of a packed '
                             'run (python -m core pack writes one); nothing was unpacked')
        if info.compress_type != zipfile.ZIP_STORED or info.file_size != info.compress_size:
            raise InputError(f'{path}: {info.filename} is compressed, which python -m core pack '
                             'never does; nothing was unpacked')
    if len(set(names)) != len(names):
        raise InputError(f'{path}: holds a file twice; nothing was unpacked')
    if sum(info.file_size for info in members) > path.stat().st_size:
        raise InputError(f'{path}: announces more bytes than it has; nothing was unpacked')
    missing = [name for name in _FIXED if name not in names]
    if missing:
        raise InputError(f'{path}: not a packed run, it lacks {missing[0]}; python -m core pack '
                         'RUN makes one')


def _check_contents(path: pathlib.Path, folder: pathlib.Path, names: Collection[str]) -> None:
    """Raise InputError if the files of a packed run do not belong together or name others."""
    Vocabulary.load(folder / 'vocabulary.json')
    best = read_json(folder / 'best' / 'best.json')
    step = best.get('step') if isinstance(best, dict) else None
    prefixes = {match[1] for match in map(_VARIABLES.fullmatch, names) if match}
    if type(step) is not int or prefixes != {f'best/step-{step}'}:
        raise InputError(f'{path}: best/best.json does not name the model that is inside')
    if f'best/step-{step}.index' not in names:
        raise InputError(f'{path}: not a packed run, it lacks best/step-{step}.index')
    entries = read_json(folder / 'config.json')
    try:
        data_path, weights = entries['data']['path'], entries['data']['encoder']['weights']
    except (KeyError, TypeError):
        raise InputError(f'{path}: config.json lacks the entry data or its encoder') from None
    if data_path is not None or not _is_name(weights):
        raise InputError(f'{path}: config.json names files of a machine; do not trust this file')


def _is_name(text: Json) -> bool:
    """Return whether a value is the name of a file, without a folder."""
    return isinstance(text, str) and text not in ('', '.', '..') and not re.search(r'[/\\:\0]',
                                                                                  text)
