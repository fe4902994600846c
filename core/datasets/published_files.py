"""Published files, opened for all readers: errors name the file and what was expected in it."""

import os
import pathlib

from core.common.aliases import Json, PathLike, Paths
from core.common.errors import InputError
from core.common.files import read_json


def as_paths(value: Paths) -> list[pathlib.Path]:
    """Return the list of pathlib.Path for one path, a list of paths, or None (an empty list)."""
    if value is None:
        return []
    if isinstance(value, (str, os.PathLike)):
        return [pathlib.Path(value)]
    return [pathlib.Path(path) for path in value]


def one_path(value: Paths, what: str) -> pathlib.Path:
    """Return the single path in `value`; InputError if it has none or more."""
    paths = as_paths(value)
    if len(paths) != 1:
        raise InputError(f'{len(paths)} captions files given: this dataset needs exactly one, '
                         f'{what}')
    return paths[0]


def directory(path: PathLike) -> pathlib.Path:
    """Return `path` as pathlib.Path; InputError if it is no existing directory."""
    if path is None:
        raise InputError('no directory of images given: name the one that holds the image files')
    path = pathlib.Path(path)
    if not path.is_dir():
        raise InputError(f'{path}: is not a directory; name the one that holds the image files')
    return path


def read_text(path: PathLike, expected: str) -> str:
    """Return a whole UTF-8 file, without a byte order mark and with line ends as they are.

    Args:
        path: of the file. expected: what it should be, for messages.

    Raises:
        InputError: it cannot be read, or is not UTF-8.
    """
    try:
        return pathlib.Path(path).read_bytes().decode('utf-8-sig')
    except OSError as error:
        raise InputError(
            f'{path}: cannot be read ({error.strerror}); expected {expected}') from error
    except UnicodeDecodeError as error:
        line = error.object.count(b'\n', 0, error.start) + 1
        raise InputError(f'{path}, line {line}: is not UTF-8 text; expected {expected}') from error


def read_lines(path: PathLike, expected: str) -> list[tuple[int, str]]:
    r"""Return [(line number from 1, line)] of the lines that are not blank.

    Only '\n' and '\r\n' end a line: U+2028, '\r' or form feeds inside a caption do not cut it in
    two. Arguments and errors as of `read_text`.
    """
    lines = read_text(path, expected).split('\n')
    return [(number, line.removesuffix('\r')) for number, line in enumerate(lines, 1)
            if line.strip()]


def read_listing(path: PathLike, expected: str, *keys: str) -> Json:
    """Return the JSON object in `path`, whose values under `keys` are lists of objects.

    Raises:
        InputError: it cannot be read, is not JSON, or is another object; says what was `expected`.
    """
    content = read_json(path, f'expected {expected}')
    for key in keys:
        rows = content.get(key) if isinstance(content, dict) else None
        if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
            raise InputError(f'{path}: has no list of objects {key!r}; expected {expected}')
    return content


def is_id(value: object) -> bool:
    """Return whether a value can identify an image: an integer, or a string that is not empty."""
    if isinstance(value, int):
        return not isinstance(value, bool)
    return isinstance(value, str) and value != ''
