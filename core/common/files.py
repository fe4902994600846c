"""Writing files so that a reader sees the old contents or the new, never half of them."""

import contextlib
import json
import os
import pathlib
import tempfile
from collections.abc import Iterator
from typing import IO, Any

from core.common.aliases import PathLike


@contextlib.contextmanager
def replacing(path: PathLike, mode: str = 'w') -> Iterator[IO[Any]]:
    """Open a temporary file beside `path` that takes its place when the block ends without an exception."""
    path = pathlib.Path(path)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f'.{path.name}.')
    try:
        text: dict[str, Any] = {} if 'b' in mode else {'encoding': 'utf8', 'newline': '\n'}
        with os.fdopen(handle, mode, **text) as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        raise


def write_json(path: PathLike, value: Any, indent: int | None = 2) -> None:
    """Write `value` as JSON, atomically."""
    with replacing(path) as file:
        # In ASCII, so that lone surrogates of odd captions and file names survive.
        json.dump(value, file, indent=indent)
        file.write('\n')
