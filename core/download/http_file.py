"""One file over HTTP: resumed by ranges, tried again, never mixed from two versions of a file.

What has come lies in NAME.part; NAME.part.json says what it is a part of (address, validator,
announced length).
"""

import base64
import pathlib
import re
import time
import urllib.parse
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, TypedDict

from core.common import progress, terminal
from core.common.aliases import Bar, PathLike
from core.common.errors import InputError
from core.common.files import read_json, write_json

if TYPE_CHECKING:
    import requests

TIMEOUT = (10, 30)  # seconds to connect, and without a byte
ATTEMPTS = 8  # in a row without any byte beyond what had come
LONGEST_WAIT = 60  # seconds between them; before that 1, 2, 4, ...
BLOCK = 1 << 14  # bytes; what had come of a block is lost when the line is cut
REDIRECTS = 5
PASSING = (408, 425, 429, 500, 502, 503, 504)  # answers that may be others a little later


class Unavailable(Exception):
    """An address that does not give the file; the message says why.

    Attributes:
        unreachable: bool, whether nobody answered at all.
    """

    def __init__(self, message: str, unreachable: bool = False) -> None:
        super().__init__(message)
        self.unreachable = unreachable


class PartState(TypedDict):
    """What an unfinished file is a part of."""

    url: str
    validator: str | None  # for If-Range
    length: int | None  # bytes of the whole, where the server announces them


class _Again(Exception):
    """A cut line or a busy server: another attempt may do.

    Attributes:
        wait: seconds that the server asks to wait, or None.
        unreachable: bool, whether nobody answered at all.
    """

    def __init__(self, message: str, wait: float | None = None, unreachable: bool = False) -> None:
        super().__init__(message)
        self.wait, self.unreachable = wait, unreachable


def session() -> 'requests.Session':
    """Return an HTTP session that checks certificates; a context."""
    import requests  # slow to import

    opened = requests.Session()
    opened.headers.update({'User-Agent': 'show-attend-tell', 'Accept-Encoding': 'identity'})
    return opened


def announced(web: 'requests.Session', url: str,
              timeout: tuple[float, float] = TIMEOUT) -> tuple[int | None, str | None]:
    """Return the (bytes, MD5) that the server announces of a file; None for what it does not say.

    Nothing is fetched. Arguments as of `fetch`.

    Raises:
        Unavailable: nobody answers at all.
    """
    try:
        with _request(web, 'HEAD', url, {}, timeout) as response:
            if response.status_code == 200:
                return _content_length(response), _md5(response)
    except (_Again, Unavailable) as error:
        if error.unreachable:
            raise Unavailable(str(error), unreachable=True) from None
    return None, None


def fetch(web: 'requests.Session', url: str, part: pathlib.Path, name: str,
          timeout: tuple[float, float] = TIMEOUT,
          sleep: Callable[[float], object] = time.sleep) -> PartState:
    """Fetch a file, going on with what is there of it.

    Args:
        web: of `session`.
        url: str, http or https.
        part: pathlib.Path of the unfinished file; stays for a later call where this one fails or is
            interrupted.
        name: str, for people.
        timeout: (seconds to connect, seconds without a byte).
        sleep: function of seconds, to wait with.

    Returns:
        The PartState of `part`, which is complete; `finish` it.

    Raises:
        Unavailable: after several attempts, or at once where more of them are useless.
        InputError: the disk is full.
    """
    failures, furthest, answered = 0, _size(part), False
    with Meter(name) as meter:
        while True:
            try:
                return _attempt(web, url, part, timeout, meter)
            except _Again as cut:
                if cut.unreachable and not answered:  # no network: waiting would be in vain
                    raise Unavailable(str(cut), unreachable=True) from None
                answered = True
                n_bytes = _size(part)
                failures = 1 if n_bytes > furthest else failures + 1
                furthest = max(furthest, n_bytes)
                if failures >= ATTEMPTS:
                    rest = f', {terminal.size_text(n_bytes)} are kept' if n_bytes else ''
                    raise Unavailable(f'{cut} (after {failures} attempts{rest})') from None
                wait = min(LONGEST_WAIT, 2 ** (failures - 1) if cut.wait is None else cut.wait)
                meter.say(f'{name}: {cut}; again in {wait:g} s')
                sleep(wait)


def finish(part: pathlib.Path, path: PathLike) -> None:
    """Give a complete file its name."""
    part.replace(path)
    forget(part, keep_part=True)


def forget(part: pathlib.Path, keep_part: bool = False) -> None:
    """Remove an unfinished file and its state, with `keep_part` the state alone."""
    _state_path(part).unlink(missing_ok=True)
    if not keep_part:
        part.unlink(missing_ok=True)


def _attempt(web: 'requests.Session', url: str, part: pathlib.Path, timeout: tuple[float, float],
             meter: 'Meter') -> PartState:
    """Make one request; arguments, result and errors as of `fetch`.

    Raises:
        _Again: another attempt may do.
    """
    import requests

    state = _read_state(part, url)
    offset = _size(part) if state else 0
    if state and offset == state['length']:  # killed between the last byte and the new name
        return state
    headers = {}
    if state and state['validator'] and offset:
        headers = {'Range': f'bytes={offset}-', 'If-Range': state['validator']}
    with _request(web, 'GET', url, headers, timeout) as response:
        status = response.status_code
        if status in PASSING:
            raise _Again(f'the server answered {status} {response.reason}', _retry_after(response))
        if status == 206 and state and offset:
            _check_range(response, state, offset, part)
        elif status == 200:
            offset, state = 0, _new_state(response, url)
        elif status == 416 and offset:
            forget(part)
            raise _Again('the server has no more of this file than came; beginning anew')
        else:
            raise Unavailable(f'{url}: the server answered {status} {response.reason}')
        if response.headers.get('Content-Encoding', 'identity') != 'identity':
            raise Unavailable(f'{url}: sent as {response.headers["Content-Encoding"]}, which was '
                              'not asked for')
        meter.start(state['length'], offset)
        try:
            with open(part, 'ab' if offset else 'wb') as file:
                if not offset:  # only now is nothing there of another file
                    write_json(_state_path(part), state)
                for block in response.iter_content(BLOCK):
                    file.write(block)
                    meter.add(len(block))
        except requests.RequestException as error:
            raise _Again(f'the line was cut after {terminal.size_text(_size(part))} '
                         f'({reason(error)})') from None
        except OSError as error:
            raise InputError(f'{part}: cannot write ({error.strerror}); make room and run the same '
                             'command again, what has come is kept') from None
    if state['length'] is not None and _size(part) != state['length']:
        n_bytes = _size(part)
        if n_bytes > state['length']:
            forget(part)
        raise _Again(f'{n_bytes} bytes came, {state["length"]} were announced')
    return state


def _request(web: 'requests.Session', method: str, url: str, headers: Mapping[str, str],
             timeout: tuple[float, float]) -> 'requests.Response':
    """Return an opened response, after redirects.

    Redirects must stay with http and https, and never leave https.

    Raises:
        Unavailable: the address does not give the file. _Again: another attempt may do.
    """
    import requests

    for _ in range(REDIRECTS + 1):
        try:
            response = web.request(method, url, headers=headers, timeout=timeout, stream=True,
                                   allow_redirects=False)
        except requests.exceptions.SSLError as error:
            if 'CERTIFICATE' in str(error).upper():
                raise Unavailable(
                    f'{_host(url)}: its certificate is not accepted ({reason(error)})') from None
            raise _Again(f'{_host(url)}: {reason(error)}') from None
        except requests.exceptions.ReadTimeout:
            raise _Again(f'{_host(url)}: no answer within {timeout[1]:g} s') from None
        except requests.exceptions.ConnectionError as error:
            raise _Again(f'{_host(url)}: {reason(error)}',
                         unreachable=_no_connection(error)) from None
        except requests.RequestException as error:
            raise Unavailable(f'{url}: {reason(error)}') from None
        if response.status_code not in (301, 302, 303, 307, 308):
            return response
        response.close()
        target = urllib.parse.urljoin(url, response.headers.get('Location', ''))
        scheme = urllib.parse.urlsplit(target).scheme
        if scheme not in ('http', 'https') or (scheme == 'http' and url.startswith('https:')):
            raise Unavailable(f'{url}: sends on to {target[:200]!r}, which is not followed')
        url = target
    raise Unavailable(f'{url}: sends on and on')


def _check_range(response: 'requests.Response', state: PartState, offset: int,
                 part: pathlib.Path) -> None:
    """Raise `_Again` if a response does not continue `part`: other bytes, or another version."""
    span = re.fullmatch(r'bytes (\d+)-\d+/(\d+|\*)', response.headers.get('Content-Range', ''))
    same_version = _validator(response) in (None, state['validator'])
    if not span or int(span[1]) != offset or not same_version or (
            state['length'] is not None and span[2] not in ('*', str(state['length']))):
        forget(part)
        raise _Again('the file has changed at the server; beginning anew')


def _new_state(response: 'requests.Response', url: str) -> PartState:
    """Return the PartState of a file that a response begins."""
    return {'url': url, 'validator': _validator(response), 'length': _content_length(response)}


def _validator(response: 'requests.Response') -> str | None:
    """Return what If-Range takes: a strong ETag, else the date of the last change, else None."""
    tag = response.headers.get('ETag', '')
    return tag if tag.startswith('"') else response.headers.get('Last-Modified')


def _md5(response: 'requests.Response') -> str | None:
    """Return the MD5 that Google's storage announces, in hexadecimal, or None."""
    match = re.search(r'\bmd5=([A-Za-z0-9+/]{22}==)', response.headers.get('x-goog-hash', ''))
    return base64.b64decode(match[1]).hex() if match else None


def _content_length(response: 'requests.Response') -> int | None:
    """Return the bytes that a response announces, or None."""
    text = response.headers.get('Content-Length', '')
    return int(text) if text.isdecimal() else None


def _retry_after(response: 'requests.Response') -> int | None:
    """Return the seconds that a busy server asks to wait, or None."""
    text = response.headers.get('Retry-After', '')
    return int(text) if text.isdecimal() else None


def _state_path(part: pathlib.Path) -> pathlib.Path:
    """Return the path of the PartState of an unfinished file."""
    return part.with_name(part.name + '.json')


def _read_state(part: pathlib.Path, url: str) -> PartState | None:
    """Return the PartState of `part`; None where it is of another address or has no validator."""
    try:
        state = read_json(_state_path(part))
        return state if state['url'] == url and state['validator'] and 'length' in state else None
    except (InputError, TypeError, KeyError):
        return None


def _size(path: pathlib.Path) -> int:
    """Return the bytes of a file, 0 where it does not exist."""
    return path.stat().st_size if path.exists() else 0


def _host(url: str) -> str:
    """Return the host of an address; the address where it has none."""
    return urllib.parse.urlsplit(url).hostname or url


def _causes(error: BaseException) -> Iterator[BaseException]:
    """Yield an exception of requests and those that it wraps, outermost first."""
    cause: BaseException | None = error
    while cause is not None:
        yield cause
        inner = [getattr(cause, 'reason', None), *cause.args, cause.__context__]
        cause = next((item for item in inner if isinstance(item, Exception)), None)


def reason(error: BaseException) -> str:
    """Return why a request failed, in words: the innermost cause that has some."""
    for cause in reversed(list(_causes(error))):
        text = getattr(cause, 'strerror', None) or str(cause)
        if text.strip():
            break
    if text.startswith('IncompleteRead'):
        return 'the server hung up'
    return re.sub(r'^<?\w+\(.*?\)>?: ', '', text)[:160]


def _no_connection(error: BaseException) -> bool:
    """Return whether nobody answered: no such host, no way to it, nobody at its port."""
    from urllib3 import exceptions

    never = (exceptions.NewConnectionError, exceptions.ConnectTimeoutError, exceptions.ProxyError)
    return any(isinstance(cause, never) for cause in _causes(error))


class Meter:
    """Progress in megabytes, begun once the length is known; one bar over all attempts."""

    def __init__(self, name: str) -> None:
        self.name, self._bytes = name, 0
        self._bar: Bar = None  # made by the first attempt
        self._total: int | None = None

    def __enter__(self) -> 'Meter':
        return self

    def __exit__(self, *exception: object) -> None:
        if self._bar is not None:
            self._bar.close()

    def start(self, total: int | None, offset: int) -> None:
        """Begin an attempt.

        Args:
            total: bytes of the file, None where unknown. offset: bytes that have come.
        """
        if self._bar is None:
            self._total = None if total is None else max(1, round(total / 1e6))
            self._bar = progress.bar(self._total, self.name, offset // 10**6, 'MB')
        self._bytes = offset
        self._show()

    def add(self, n_bytes: int) -> None:
        """Count bytes that have come."""
        self._bytes += n_bytes
        self._show()

    def _show(self) -> None:
        """Bring the bar to the bytes that have come."""
        now = round(self._bytes / 1e6)
        now = now if self._total is None else min(self._total, now)
        if now > self._bar.n:
            self._bar.update(now - self._bar.n)
        elif now < self._bar.n:  # begun anew
            self._bar.n = now

    def say(self, line: str) -> None:
        """Print a line beside the bar."""
        progress.complain(line)
