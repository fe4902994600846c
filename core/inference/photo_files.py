"""A user's own photos: the files that a command line names, and places of their pictures."""

import glob
import os
import pathlib
import re
import sys
from collections.abc import Callable, Iterable, Iterator

from core.common.aliases import PathLike
from core.common.errors import InputError
from core.common.files import replacing

# By which photos in a folder are known; a file that is named is read whatever it is called.
EXTENSIONS = ('.jpg', '.jpeg', '.png', '.bmp', '.webp', '.gif', '.tif', '.tiff')
STANDARD_INPUT = '-'


def find(arguments: Iterable[str]) -> Iterator[tuple[str, pathlib.Path | bytes]]:
    """Yield the photos that arguments name, in their order, each once.

    Args:
        arguments: texts: a file, a folder (its photos and those in folders below it, by name;
            hidden ones are left out), a pattern such as 'a/*.png', or '-' for the bytes of an image
            on standard input.

    Yields:
        (name, path or bytes), for `Captioner.stream`. A file that is not there is yielded too: the
        others are captioned, and it is named.

    Raises:
        InputError: a folder without photos, a pattern that nothing matches, or nothing on standard
            input.
    """
    seen = set()
    for argument in arguments:
        if argument == STANDARD_INPUT:
            if argument not in seen:
                yield 'standard input', _standard_input()
            seen.add(argument)
            continue
        if not argument:
            raise InputError('an empty name of a photo was given: an unset variable?')
        for path in _paths(argument):
            key = os.path.realpath(path)
            if key not in seen:
                seen.add(key)
                yield str(path), path


def _standard_input() -> bytes:
    if sys.stdin is None or sys.stdin.isatty():
        raise InputError('- reads an image from standard input, which is a terminal: pipe a file '
                         'into it')
    data = sys.stdin.buffer.read()
    if not data:
        raise InputError('- reads an image from standard input, which is empty')
    return data


def _paths(argument: str) -> list[pathlib.Path]:
    path = pathlib.Path(argument)
    if path.is_dir():
        photos = sorted(
            each for each in path.rglob('*') if each.suffix.lower() in EXTENSIONS and each.is_file()
            and not any(part.startswith('.') for part in each.relative_to(path).parts))
        if not photos:
            raise InputError(f'{path}: holds no photo ({", ".join(EXTENSIONS)})')
        return photos
    if not os.path.lexists(path) and glob.has_magic(argument):
        photos = sorted(pathlib.Path(each) for each in glob.glob(argument, recursive=True)
                        if os.path.isfile(each))
        if not photos:
            raise InputError(f'{argument}: no file matches this pattern')
        return photos
    return [path]


class Targets:
    """The places of the photos' pictures: one file, or files of a folder named after them.

    Args:
        out: path of a file that ends in `suffix`, or of a folder, which is made; None: nothing is
            written.
        suffix: '.png'. n_photos: int. option: text, for messages.

    Raises:
        InputError: a file for several photos, or a name that is neither.
    """

    def __init__(self, out: PathLike | None, suffix: str, n_photos: int, option: str) -> None:
        self._out, self._suffix = None if out is None else pathlib.Path(out), suffix
        self._used: set[str] = set()
        self._single = False
        if self._out is None:
            return
        if not str(out):
            raise InputError(f'{option} was given an empty name')
        named_file = self._out.suffix.lower() == suffix and not self._out.is_dir()
        if not named_file and self._out.suffix and not self._out.is_dir():
            raise InputError(f'{option} {out}: must end in {suffix}, or be a folder')
        if named_file and n_photos > 1:
            raise InputError(f'{option} {out}: one file for {n_photos} photos; name a folder')
        self._single = named_file
        folder = self._out.parent if named_file else self._out
        if named_file and not folder.is_dir():
            raise InputError(f'{option} {out}: no folder {folder}; make it first')
        if folder.exists() and not folder.is_dir():
            raise InputError(f'{option} {out}: is a file; name a folder')

    def write(self, name: str, make: Callable[[], bytes]) -> pathlib.Path | None:
        """Write the bytes that `make()` returns for the photo `name`.

        Returns the path, None where no pictures are asked for.
        """
        if self._out is None:
            return None
        path = self._out if self._single else self._out / self._file_name(name)
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path, 'wb') as file:
            file.write(make())
        return path

    def _file_name(self, name: str) -> str:
        """Return the photo's own name with the suffix, numbered where two photos share it."""
        stem = re.sub(r'[^\w.-]', '_', pathlib.Path(name).stem)or 'photo'
        # file systems count bytes
        stem = stem.encode('utf8', 'replace')[:150].decode('utf8', 'ignore')
        number, unique = 1, stem
        while unique.lower() in self._used:
            number += 1
            unique = f'{stem}-{number}'
        self._used.add(unique.lower())
        return unique + self._suffix
