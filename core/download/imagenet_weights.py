"""The ImageNet weights of the encoders, as Keras publishes them, fetched once by pooch.

    ~/.cache/show-attend-tell/FILE          as published; below XDG_CACHE_HOME, where that is set
    ~/.cache/show-attend-tell/FILE.sha256   of the file when it came, if no checksum is published

So for `--weights imagenet`; `prepro.py --download ENCODER --to DIR` puts them into DIR.

Any number of programs may work here at once: a file has its name only when it is whole and checked.
"""

import logging
import os
import pathlib
from collections.abc import Mapping

from core.common import progress, terminal
from core.common.aliases import PathLike, Say
from core.common.errors import InputError
from core.common.files import replacing
from core.download import http_file
from core.download.catalogue import WEIGHTS, Weights

RETRIES = 3  # each from the first byte: the largest file has 95 MB


def cache() -> pathlib.Path:
    """Return the directory of the weights: ~/.cache/show-attend-tell, or below XDG_CACHE_HOME."""
    base = os.environ.get('XDG_CACHE_HOME', '')
    return (pathlib.Path(base) if os.path.isabs(base)
            else pathlib.Path.home() / '.cache') / 'show-attend-tell'


def fetch(encoder: str, to: PathLike | None = None, weights: Mapping[str, Weights] = WEIGHTS,
          say: Say = print, timeout: tuple[float, float] = http_file.TIMEOUT) -> pathlib.Path:
    """Return the path of the published ImageNet weights of an encoder, fetched where missing.

    Args:
        encoder: str, a name in `core.encoders.known_encoders.ENCODERS`.
        to: directory of the file; None: that of `cache`.
        weights: dict encoder -> Weights.
        say: function that prints a line.
        timeout: (seconds to connect, seconds without a byte).

    Raises:
        InputError: the file cannot be fetched, or is not the one that was published or that came.
    """
    import pooch  # slow to import

    published = weights[encoder]
    path = pathlib.Path(to or cache()) / published.name
    record = path.with_name(f'{path.name}.sha256')
    came = not path.exists()
    if came:
        _download(published, path, timeout)
    if published.md5:
        if not came and (md5 := pooch.file_hash(path, 'md5')) != published.md5:
            raise InputError(f'{path}: not the published file (MD5 {md5}, published '
                             f'{published.md5}); delete it and run the same command again')
        return path
    sha256 = pooch.file_hash(path)
    if came or not record.exists():
        with replacing(record) as file:
            file.write(f'{sha256}  {path.name}\n')  # as sha256sum reads it
        if not came:
            say(f'{path.name}: found in {path.parent}, unchecked: its publisher gives no checksum')
    elif record.read_text(encoding='utf8').split()[:1] != [sha256]:
        raise InputError(f'{path}: has changed since it was recorded in {record.name}; delete both '
                         'and run the same command again')
    return path


def _download(published: Weights, path: pathlib.Path, timeout: tuple[float, float]) -> None:
    """Fetch weights to `path`; errors as of `fetch`."""
    import pooch
    import requests

    pooch.get_logger().handlers = [_Lines()]
    url, name = published.url, path.name
    try:
        with http_file.session() as web, http_file.Meter(name) as meter:
            # Asked before pooch, which would try again where nobody is there.
            _, announced = http_file.announced(web, url, timeout)
            md5 = published.md5 or announced
            store = pooch.create(path.parent, base_url='', urls={name: url},
                                 retry_if_failed=RETRIES,
                                 registry={name: f'md5:{md5}' if md5 else None})
            store.fetch(name, downloader=pooch.HTTPDownloader(
                progressbar=_Bar(meter), chunk_size=http_file.BLOCK, timeout=timeout,
                headers=web.headers))
        path.chmod(0o644)  # pooch makes it unreadable for others
        return
    except http_file.Unavailable as error:
        why = f'no network, or the server is down: {error}'
    except requests.RequestException as error:
        why = http_file.reason(error)
    except ValueError as error:  # of pooch, which names both checksums
        why = str(error)
    except OSError as error:
        why = f'{path} cannot be written: {error.strerror or error}'
    raise InputError(f'{name} cannot be fetched ({why}); run the same command again later, or put '
                     f'{name} ({url}), got elsewhere, into {path.parent}')


class _Lines(logging.Handler):
    """The log of pooch, above the bar; nothing with --quiet."""

    def emit(self, record: logging.LogRecord) -> None:
        """Print a line: what is fetched from where to where, or that it is tried again."""
        if not terminal.quiet():
            progress.complain(record.getMessage())


class _Bar:
    """A progress bar for pooch, drawn as those of the data sets are."""

    def __init__(self, meter: http_file.Meter) -> None:
        self._meter, self.update = meter, meter.add

    def _begin(self, total: int) -> None:
        """Begin an attempt; 0 where the bytes are unknown."""
        self._meter.start(total or None, 0)

    total = property(fset=_begin)  # set when an attempt begins

    def reset(self) -> None:
        """Do nothing: pooch calls it before an update by the total, which fills the bar."""

    close = reset
