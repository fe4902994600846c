"""Files of this project: replaced whole, read and written as JSON, directories locked.

A reader sees the old contents of a file or the new, never half of them.
"""

import contextlib
import fcntl
import json
import os
import pathlib
import tempfile
from collections.abc import Iterator
from typing import IO, Any, TextIO

from core.common.aliases import Json, PathLike
from core.common.errors import InputError


@contextlib.contextmanager
def replacing(path: PathLike, mode: str = 'w') -> Iterator[IO[Any]]:
    """Open a temporary file that takes the place of `path` when the block ends.

    It is removed, and `path` stays as it was, where the block ends by an exception.

    Args:
        path: of the file to write. mode: 'w' (UTF-8) or 'wb'.
    """
    path = pathlib.Path(path)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f'.{path.name}.')
    try:
        encoding, newline = (None, None) if 'b' in mode else ('utf8', '\n')
        with os.fdopen(handle, mode, encoding=encoding, newline=newline) as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        raise


def write_json(path: PathLike, value: Json, indent: int | None = 2) -> None:
    """Write `value` as JSON, atomically."""
    with replacing(path) as file:
        # In ASCII, so that lone surrogates of odd captions and file names survive.
        json.dump(value, file, indent=indent)
        file.write('\n')


def read_json(path: PathLike, advice: str = 'it was damaged or copied incompletely') -> Json:
    """Return what a JSON file holds; UTF-8, with or without a byte order mark.

    Raises:
        InputError: no such file, not UTF-8, or not JSON; ends with `advice`.
    """
    try:
        return json.loads(pathlib.Path(path).read_bytes().decode('utf-8-sig'))
    except OSError as error:
        raise InputError(f'{path}: cannot be read ({error.strerror}); {advice}') from None
    except (ValueError, RecursionError) as error:
        raise InputError(f'{path}: is not JSON ({error}); {advice}') from None


def lock(directory: PathLike, what: str) -> TextIO:
    """Lock a directory for this process until the returned file is closed.

    Args:
        directory: of the lock's file. what: the command that works there, for the message.

    Raises:
        InputError: another process holds it.
    """
    file = open(pathlib.Path(directory) / '.lock', 'w')  # noqa: SIM115 - held open on purpose
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        file.close()
        raise InputError(
            f'{directory}: another {what} is at work here; wait for it or stop it') from None
    return file
