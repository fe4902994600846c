"""Zip archives from elsewhere, unpacked by `zipfile` so that they can harm nothing.

No file outside the directory, no link, no file replaced by another. Each file is unpacked aside and
appears under its name only when it is whole and its CRC is right, so that a kill leaves nothing to
repair. No more bytes are written than the archive's directory announces, and these fit on the disk.
"""

import errno
import lzma
import os
import pathlib
import re
import shutil
import stat
import tempfile
import zipfile
import zlib

from core.common import progress, terminal
from core.common.errors import InputError
from core.common.files import read_json, write_json

# first part of the name of the directory in which one file after the other becomes whole
ASIDE = '.unpacking-'


def unpack(path: pathlib.Path, to: pathlib.Path, free: int | None = None) -> dict[str, int]:
    """Unpack the archive `path` into the directory `to`.

    Files that are there already are checked and kept. What the archive held is noted beside it, for
    `missing`.

    Args:
        path, to: pathlib.Path; `to` is this process's alone.
        free: free bytes on the disk; None asks the system.

    Returns:
        dict name -> size in bytes, of all files of the archive.

    Raises:
        InputError: damaged, unsafe, too large for the disk, or a file of another content lies in
            the way. Nothing is written where the archive's directory alone tells.
    """
    for left in to.glob(f'{ASIDE}*'):  # by a run that was killed
        shutil.rmtree(left, ignore_errors=True)
    try:
        with zipfile.ZipFile(path) as archive, tempfile.TemporaryDirectory(prefix=ASIDE,
                                                                           dir=to) as aside:
            # Without what macOS adds of its own.
            members = [info for info in archive.infolist()
                       if not info.is_dir() and not info.filename.startswith('__MACOSX/')]
            for info in members:
                check_entry(path, info)
            todo = [info for info in members if not _is_there(path, info, to)]
            n_bytes = sum(info.file_size for info in todo)
            free = shutil.disk_usage(to).free if free is None else free
            if n_bytes > 0.98 * free:
                raise InputError(f'{to}: unpacking {path.name} needs '
                                 f'{terminal.size_text(n_bytes)}, {terminal.size_text(free)} are '
                                 'free; make room and run the same command again')
            with progress.bar(len(members), f'unpacking {path.name}', len(members) - len(todo),
                              'file') as bar:
                for info in todo:
                    _extract(archive, info, aside, to / info.filename)
                    bar.update()
    # ValueError and IndexError: names may be odd or empty
    except (zipfile.BadZipFile, NotImplementedError, ValueError, IndexError) as error:
        raise InputError(f'{path}: not a whole zip archive ({error}); delete it and run the same '
                         'command again') from None
    os.sync()  # before it is written down that all of it is there
    contents = {info.filename: info.file_size for info in members}
    write_json(contents_path(path), contents, indent=0)
    return contents


def check_entry(path: pathlib.Path, info: zipfile.ZipInfo) -> None:
    """Raise InputError for an entry that no honest data set has.

    `zipfile` would unpack it to another place, or as something else.
    """
    if any(part in ('', '.', '..') for part in re.split(r'[/\\:]', info.filename)):
        why = 'leads elsewhere'
    elif stat.S_IFMT(info.external_attr >> 16) not in (0, stat.S_IFREG):
        why = 'is a link or a device'
    elif info.flag_bits & 1:
        why = 'is encrypted'
    else:
        return
    raise InputError(f'{path}: {info.filename[:120]!r} in the archive {why}; nothing was unpacked, '
                     'do not trust this file')


def _is_there(path: pathlib.Path, info: zipfile.ZipInfo, to: pathlib.Path) -> bool:
    """Return whether the file is in place with the content of the archive.

    Raises:
        InputError: it has another content, or a link is on the way.
    """
    place = to / info.filename
    if os.path.realpath(place) != os.path.join(os.path.realpath(to), info.filename):
        raise InputError(f'{place}: a link is in the way, and {path.name} is not unpacked through '
                         'links; remove it or choose another --to')
    if not place.exists():
        folder = next(parent for parent in place.parents if parent.exists())
        if not folder.is_dir():
            raise InputError(f'{folder}: is in the way of a folder of {path.name}; move it away')
        return False
    crc = 0
    if place.is_file() and place.stat().st_size == info.file_size:
        with open(place, 'rb') as file:
            while block := file.read(1 << 18):
                crc = zlib.crc32(block, crc)
        if crc == info.CRC:
            return True
    raise InputError(f'{place}: is there with another content than in {path.name}, and is not '
                     'replaced; move it away and run the same command again')


def _extract(archive: zipfile.ZipFile, info: zipfile.ZipInfo, aside: str,
             place: pathlib.Path) -> None:
    """Unpack one file aside, then give it its name."""
    try:
        # checks the CRC, writes no more than announced
        unpacked = pathlib.Path(archive.extract(info, aside))
        if unpacked.stat().st_size != info.file_size:
            raise EOFError('shorter than announced')
        place.parent.mkdir(parents=True, exist_ok=True)
        unpacked.replace(place)
    except (zlib.error, lzma.LZMAError, EOFError, ValueError) as error:
        raise zipfile.BadZipFile(f'{info.filename!r}: {error}') from None
    except OSError as error:
        # of bz2, and where an entry begins before the file does
        if error.errno in (None, errno.EINVAL):
            raise zipfile.BadZipFile(f'{info.filename!r}: {error}') from None
        raise InputError(f'{place}: cannot be written ({error.strerror}); run the same command '
                         'again, what is unpacked is kept') from None


def missing(path: pathlib.Path, to: pathlib.Path) -> str | None:
    """Return the first file noted by `unpack` that `to` lacks in that size; None where none is."""
    try:
        contents = read_json(contents_path(path)).items()
    except (InputError, AttributeError):
        return contents_path(path).name
    return next((name for name, size in contents
                 if not (to / name).is_file() or (to / name).stat().st_size != size), None)


def contents_path(path: pathlib.Path) -> pathlib.Path:
    """Return where `unpack` notes what an archive held, so that the archive may be deleted."""
    return path.with_name(f'.{path.name}.contents.json')
