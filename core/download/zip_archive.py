"""Zip archives from elsewhere, unpacked so that they can harm nothing.

No file outside the directory, no link, no file replaced by another; each appears under its name only when it is whole
and its CRC is right, so that a kill leaves nothing to repair. No more bytes are written than the archive's directory
announces, and these fit on the disk.
"""

import json
import lzma
import os
import pathlib
import shutil
import stat
import zipfile
import zlib
from collections.abc import Collection, Mapping

from core.common import progress, terminal
from core.common.errors import InputError
from core.common.files import write_json

BLOCK = 1 << 18
TEMPORARY = '.unpacking'  # beside the file it becomes
METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA)


def unpack(path: pathlib.Path, to: pathlib.Path, reserved: Collection[str] = (),
           free: int | None = None) -> dict[str, int]:
    """Unpack the archive `path` into the directory `to`; files that are there already are checked and kept.

    Args:
        path, to: pathlib.Path.
        reserved: names in `to` that no archive may bring.
        free: free bytes on the disk; None asks the system.

    Returns:
        dict name -> size in bytes, of all files of the archive.

    Raises:
        InputError: damaged, unsafe, too large for the disk, or a file of another content lies in the way. Nothing is
            written where the archive's directory alone tells.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            members = _members(path, archive, reserved)
            todo = [info for info in members if not _there(path, info, to)]
            _check_room(path, sum(info.file_size for info in todo), to, free)
            done = len(members) - len(todo)
            with progress.bar(len(members), f'unpacking {path.name}', done, 'file') as bar:
                for info in todo:
                    _extract(path, archive, info, to)
                    bar.update()
    except zipfile.BadZipFile as error:
        raise InputError(f'{path}: not a whole zip archive ({error}); delete it and run the same command again'
                         ) from None
    os.sync()  # before anybody writes down that all of it is there
    return {info.filename: info.file_size for info in members}


def write_contents(path: pathlib.Path, contents: Mapping[str, int]) -> None:
    """Note beside the archive what it held, so that the archive may be deleted."""
    write_json(contents_path(path), contents, indent=0)


def missing(path: pathlib.Path, to: pathlib.Path) -> str | None:
    """The first file that `write_contents` noted and that is not in `to` with its size; None where all are."""
    try:
        contents = json.loads(contents_path(path).read_text(encoding='utf8'))
        for name, size in contents.items():
            place = pathlib.Path(to, name)
            if not place.is_file() or place.stat().st_size != size:
                return name
    except (OSError, ValueError, AttributeError):
        return contents_path(path).name
    return None


def contents_path(path: pathlib.Path) -> pathlib.Path:
    """Where `write_contents` writes."""
    return path.with_name(f'.{path.name}.contents.json')


def _members(path: pathlib.Path, archive: zipfile.ZipFile, reserved: Collection[str]) -> list[zipfile.ZipInfo]:
    """The ZipInfo of every file, in their order; refuses what must not be unpacked."""
    files: dict[str, zipfile.ZipInfo] = {}
    folders: set[str] = set()
    for info in archive.infolist():
        name, why = info.filename, None
        parts = name.rstrip('/').split('/')
        if parts[0] == '__MACOSX':  # what macOS adds of its own
            continue
        kind = stat.S_IFMT(info.external_attr >> 16)
        if name.startswith('/') or '\\' in name or '\0' in info.orig_filename or ':' in parts[0]:
            why = 'is no relative path'
        elif any(part in ('', '.', '..', TEMPORARY) for part in parts):
            why = 'leads elsewhere'
        elif kind not in (0, stat.S_IFREG, stat.S_IFDIR):
            why = 'is a link or a device'
        elif info.flag_bits & 1:
            why = 'is encrypted'
        elif info.compress_type not in METHODS:
            why = f'is packed by the unknown method {info.compress_type}'
        elif len(parts) == 1 and parts[0] in reserved:
            why = 'has a name that is taken here'
        elif name in files:
            why = 'is there twice'
        if why:
            raise InputError(f'{path}: {name[:120]!r} in the archive {why}; nothing was unpacked, do not trust this '
                             f'file')
        folders.update('/'.join(parts[:depth]) for depth in range(1, len(parts)))
        if not info.is_dir():
            files[name] = info
    both = sorted(folders & set(files))
    if both:
        raise InputError(f'{path}: {both[0][:120]!r} in the archive is a file and a folder; nothing was unpacked, do '
                         f'not trust this file')
    return list(files.values())


def _check_room(path: pathlib.Path, n_bytes: int, to: pathlib.Path, free: int | None) -> None:
    free = shutil.disk_usage(to).free if free is None else free
    if n_bytes > 0.98 * free:
        raise InputError(f'{to}: unpacking {path.name} needs {terminal.size_text(n_bytes)}, '
                         f'{terminal.size_text(free)} are free; make room and run the same command again')


def _there(path: pathlib.Path, info: zipfile.ZipInfo, to: pathlib.Path) -> bool:
    """Whether the file is there with the content of the archive; refuses another content, and links on the way."""
    place = to
    for part in info.filename.split('/'):
        place = place / part
        if place.is_symlink():
            raise InputError(f'{place}: is a link, and {path.name} is not unpacked through links; remove it or choose '
                             f'another --to')
    if not place.exists():
        folder = next(parent for parent in place.parents if parent.exists())
        if not folder.is_dir():
            raise InputError(f'{folder}: is in the way of a folder of {path.name}; move it away')
        return False
    crc = 0
    if place.is_file() and place.stat().st_size == info.file_size:
        with open(place, 'rb') as file:
            while block := file.read(BLOCK):
                crc = zlib.crc32(block, crc)
        if crc == info.CRC:
            return True
    raise InputError(f'{place}: is there with another content than in {path.name}, and is not replaced; move it away '
                     f'and run the same command again')


def _extract(path: pathlib.Path, archive: zipfile.ZipFile, info: zipfile.ZipInfo, to: pathlib.Path) -> None:
    """Write one file beside its place, then give it its name."""
    place = to / info.filename
    place.parent.mkdir(parents=True, exist_ok=True)
    temporary = place.parent / TEMPORARY
    temporary.unlink(missing_ok=True)  # of a run that was killed
    try:
        packed = archive.open(info)  # checks the CRC at its end
    except (OSError, NotImplementedError, ValueError) as error:  # OSError: it begins where no file can
        raise zipfile.BadZipFile(f'{info.filename!r}: {error}') from None
    try:
        with packed, open(temporary, 'xb') as file:
            left = info.file_size
            while block := packed.read(BLOCK):
                left -= len(block)
                if left < 0:
                    raise zipfile.BadZipFile(f'{info.filename!r} is longer than announced')
                file.write(block)
            if left:
                raise zipfile.BadZipFile(f'{info.filename!r} is shorter than announced')
        temporary.replace(place)
    except (zlib.error, lzma.LZMAError, EOFError, ValueError) as error:
        raise zipfile.BadZipFile(f'{info.filename!r}: {error}') from None
    except OSError as error:
        raise InputError(f'{place}: cannot be written ({error.strerror or error}); run the same command again, what '
                         f'is unpacked is kept') from None
    finally:
        temporary.unlink(missing_ok=True)
