"""The work of `prepro.py --download`: published files, fetched once, checked, unpacked.

    DIR/FILE                  as published; NAME.part and NAME.part.json while it comes
    DIR/downloads.json        of each file: address, bytes, SHA-256, how it was checked, how many
                              files were unpacked
    DIR/.FILE.contents.json   names and sizes of what an archive held
"""

import contextlib
import hashlib
import pathlib
import shlex
import shutil
import time
import urllib.parse
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from core.common import progress, terminal
from core.common.aliases import Json, PathLike, Say
from core.common.errors import InputError
from core.common.files import lock, read_json, write_json
from core.common.suggestions import did_you_mean
from core.download import http_file, imagenet_weights, zip_archive
from core.download.catalogue import SOURCES, WEIGHTS, Archive, Source, Weights

if TYPE_CHECKING:
    import requests

MANIFEST = 'downloads.json'
PLAIN = ('note: {name} comes over plain http and its publisher gives no checksum: nobody can tell '
         'whether it was altered on its way')


def download(names: Iterable[str], to: PathLike, sources: Mapping[str, Source] = SOURCES,
             weights: Mapping[str, Weights] = WEIGHTS, say: Say = print,
             timeout: tuple[float, float] = http_file.TIMEOUT,
             sleep: Callable[[float], object] = time.sleep, free: int | None = None) -> None:
    """Fetch, check and unpack what `names` stand for; what is there already is only checked.

    Args:
        names: iterable of keys of `sources` or `weights`.
        to: str or Path of the directory that takes the files; made where missing.
        sources: dict name -> Source, see `core.download.catalogue`.
        weights: dict encoder -> Weights, fetched by `core.download.imagenet_weights`.
        say: function that prints a line.
        timeout, sleep: see `core.download.http_file.fetch`.
        free: free bytes on the disk; None asks the system.

    Raises:
        InputError: an unknown name, no network, a wrong or unsafe file, a full disk, or another
            process at work here.
    """
    to, names = pathlib.Path(to), list(dict.fromkeys(names))
    check_names(names, sources, weights)
    with _directory(to), http_file.session() as web:
        for name in names:
            if name in sources:
                came = _Work(name, sources[name], to, web, say, timeout, sleep, free).run()
                note, command = sources[name].note, sources[name].next.format(
                    to=shlex.quote(str(to)))
            else:
                came = not (to / weights[name].name).exists()
                path = imagenet_weights.fetch(name, to, weights, say, timeout)
                note, command = '', f'prepro.py --encoder {name} --weights {shlex.quote(str(path))}'
            say(f'{name}: {"complete" if came else "already there"} in {to}')
            if note:
                say(f'note: {note}')
            say(f'next: python {command} ...')


def check_names(names: Iterable[str], sources: Mapping[str, Source] = SOURCES,
                weights: Mapping[str, Weights] = WEIGHTS) -> None:
    """Raise InputError if a name is not in the tables."""
    known = [*sources, *weights]
    for name in names:
        if name not in known:
            raise InputError(f'--download {name}: not known{did_you_mean(name, known)} There is '
                             f'{", ".join(known)}')


@contextlib.contextmanager
def _directory(to: pathlib.Path) -> Iterator[None]:
    """Make and lock the directory."""
    try:
        to.mkdir(parents=True, exist_ok=True)
    except FileExistsError:
        raise InputError(f'{to}: is a file, not a directory; choose another --to') from None
    with lock(to, 'prepro.py'):
        yield


class _Work:
    """The work on one source in one directory, which is locked; arguments as of `download`."""

    def __init__(self, name: str, source: Source, to: pathlib.Path, web: 'requests.Session',
                 say: Say, timeout: tuple[float, float] = http_file.TIMEOUT,
                 sleep: Callable[[float], object] = time.sleep, free: int | None = None) -> None:
        self.name, self.files, self.to, self.web, self.say = name, source.files, to, web, say
        self.timeout, self.sleep, self.free = timeout, sleep, free
        self.manifest = _read_manifest(to)

    def run(self) -> bool:
        """Do what is left to do; return whether there was any."""
        wanted = [archive for archive in self.files if not self._is_there(archive)]
        if wanted:
            self._check_room(wanted)
        for archive in wanted:
            self._fetch(archive)
        unpacked = [self._unpack(archive) for archive in self.files]
        return bool(wanted) or any(unpacked)

    def _note(self, archive: Archive, **entries: Json) -> None:
        """Add entries to the record of an archive, and write the record."""
        self.manifest[archive.name] = {**self.manifest.get(archive.name, {}), **entries}
        write_json(self.to / MANIFEST, self.manifest)

    def _is_there(self, archive: Archive) -> bool:
        """Return whether the file is there, or was unpacked and deleted.

        Raises:
            InputError: it is another than that of the record.
        """
        path, entry = self.to / archive.name, self.manifest.get(archive.name, {})
        if not path.exists():
            return 'unpacked' in entry and zip_archive.missing(path, self.to) is None
        if not path.is_file():
            raise InputError(f'{path}: is not a file; move it away, or choose another directory')
        sha256 = _sha256(path)
        if 'sha256' in entry:
            if sha256 != entry['sha256']:
                raise InputError(f'{path}: has changed since it was recorded in {MANIFEST} (its '
                                 'SHA-256 is another); delete it and run the same command again')
            return True
        self.say(f'{archive.name}: found in {self.to}, unchecked: its publisher gives no checksum')
        self._note(archive, source=self.name, url=None, bytes=path.stat().st_size, sha256=sha256,
                   checked='nothing: put there by hand')
        return True

    def _check_room(self, wanted: Sequence[Archive]) -> None:
        """Raise InputError if the disk cannot hold the archives and, once more, their files.

        That is known before the first byte, from the sizes that the servers announce.
        """
        needed, unknown = 0, []
        for archive in wanted:
            size = self._ask(archive)
            if size is None:
                unknown.append(archive.name)
                continue
            part = self._part(archive)
            needed += max(0, size - (part.stat().st_size if part.exists() else 0)) + size
        free = shutil.disk_usage(self.to).free if self.free is None else self.free
        if needed > 0.98 * free:
            raise InputError(f'{self.to}: {self.name} needs {terminal.size_text(needed)} or more, '
                             f'unpacked files included, and {terminal.size_text(free)} are free; '
                             'make room or choose another --to')
        self.say(f'{self.name}: {len(wanted)} to fetch, ' + (
            f'the servers do not say how large {" and ".join(unknown)} will be' if unknown else
            f'{terminal.size_text(needed)} of disk needed') + f', {terminal.size_text(free)} free')

    def _ask(self, archive: Archive) -> int | None:
        """Return the size that the first address to be reached announces, None where none does.

        Raises:
            InputError: no address can be reached.
        """
        failures = []
        for url in archive.urls:
            try:
                size, _ = http_file.announced(self.web, url, self.timeout)
            except http_file.Unavailable as error:
                failures.append(error)
                continue
            if size is not None:
                return size
        if len(failures) == len(archive.urls):
            raise self._unavailable(archive, failures)
        return None

    def _part(self, archive: Archive) -> pathlib.Path:
        """Return the path of an archive while it comes."""
        return self.to / f'{archive.name}.part'

    def _fetch(self, archive: Archive) -> None:
        """Fetch a file from the first of its addresses that has it; check, name and record it."""
        path, part, failures = self.to / archive.name, self._part(archive), []
        for url in archive.urls:
            if url.startswith('http:'):
                self.say(PLAIN.format(name=archive.name))
            try:
                state = http_file.fetch(self.web, url, part, archive.name, self.timeout, self.sleep)
                break
            except http_file.Unavailable as error:
                failures.append(error)
                if len(failures) < len(archive.urls):
                    self.say(f'{error}; trying {_host(archive.urls[len(failures)])}')
        else:
            raise self._unavailable(archive, failures)
        size, sha256 = part.stat().st_size, _sha256(part)
        checked = 'announced size' if state['length'] is not None else 'nothing'
        http_file.finish(part, path)
        self.manifest.pop(archive.name, None)
        self._note(archive, source=self.name, url=url, bytes=size, sha256=sha256, checked=checked,
                   fetched=time.strftime('%Y-%m-%dT%H:%M:%SZ', time.gmtime()))
        self.say(f'{archive.name}: {terminal.size_text(size)}, checked by: {checked}')

    def _unpack(self, archive: Archive) -> bool:
        """Unpack an archive, unless that was done and no file is gone; return whether it did."""
        path, entry = self.to / archive.name, self.manifest[archive.name]
        if 'unpacked' in entry and zip_archive.missing(path, self.to) is None:
            return False
        contents = zip_archive.unpack(path, self.to, self.free)
        self._note(archive, unpacked={'files': len(contents), 'bytes': sum(contents.values())})
        self.say(f'{archive.name}: {len(contents)} files unpacked, '
                 f'{terminal.size_text(sum(contents.values()))}; the archive itself may be deleted '
                 'now')
        return True

    def _unavailable(self, archive: Archive, failures: Sequence) -> InputError:
        """Return the InputError for a file that no address gave: why, and what to put where."""
        wanted = [one for one in self.files if not (self.to / one.name).exists()]
        by_hand = ', '.join(f'{one.name} ({one.urls[-1]})' for one in wanted)
        reasons = '; '.join(dict.fromkeys(str(error) for error in failures))
        if all(error.unreachable for error in failures):
            reasons = f'no network, or the server is down: {reasons}'
        part = self._part(archive)
        advice = 'what has come is kept: ' if part.exists() and part.stat().st_size else ''
        return InputError(f'{archive.name} cannot be fetched ({reasons}); {advice}run the same '
                          f'command again later, or put {by_hand}, got elsewhere, into {self.to}')


def _host(url: str) -> str | None:
    """Return the host of an address."""
    return urllib.parse.urlsplit(url).hostname


def _read_manifest(to: pathlib.Path) -> dict[str, dict]:
    """Return the record in the directory, dict name -> dict; {} where it has none."""
    path = to / MANIFEST
    advice = 'move it away, and the files are checked anew'
    manifest = read_json(path, advice) if path.exists() else {}
    if not isinstance(manifest, dict) or not all(
            isinstance(entry, dict) for entry in manifest.values()):
        raise InputError(f'{path}: not a record of this program; {advice}')
    return manifest


def _sha256(path: pathlib.Path) -> str:
    """Return the SHA-256 of a file in hexadecimal."""
    digest, total, bar = hashlib.sha256(), path.stat().st_size, None
    if total > 10**9:  # below a gigabyte it takes seconds, and a bar would only be in the way
        bar = progress.bar(round(total / 1e6), f'checking {path.name}', 0, 'MB')
    with open(path, 'rb') as file, bar if bar is not None else contextlib.nullcontext():
        while block := file.read(1 << 22):
            digest.update(block)
            if bar is not None:
                bar.update(round(file.tell() / 1e6) - bar.n)
    return digest.hexdigest()
