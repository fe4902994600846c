"""The server of `caption.py RUN --serve`: a page for photos, and a JSON endpoint.

docs/captioning.md has examples.

    GET  /          the page
    POST /caption   one photo as the body, or several in a form -> {"results": [record, ...]}
    GET  /about     what is served

werkzeug reads requests, waitress serves them in threads, and one thread (`Batcher`) decodes: what
comes while a batch is computed is the next batch, so many browsers share the session without
waiting for each other's single photos.
"""

import base64
import concurrent.futures
import contextlib
import functools
import io
import ipaddress
import json
import logging
import os
import pathlib
import queue
import socket
import threading
import time
from collections.abc import Callable, Collection, Iterable, Iterator
from typing import Any

import numpy as np
import waitress
from PIL import Image
from werkzeug.exceptions import HTTPException, RequestEntityTooLarge
from werkzeug.wrappers import Request, Response

from core.common.aliases import Say
from core.common.errors import InputError
from core.common.version import __version__
from core.encoders import photos
from core.inference import captioner
from core.viewer import attention_pictures

MAX_BYTES = 25 * 10**6  # of a request
MAX_PIXELS = 60 * 10**6  # of a photo: more take seconds and hundreds of megabytes to decode
MAX_PHOTOS = 16  # of a request
MAX_WAITING = 128  # photos that may wait to be decoded; more are turned away
# seconds that a batch waits at most for photos that are being read: together they are quicker
PATIENCE = 0.04
THREADS = 12  # requests that are read and answered at a time
VIEW_SIDE = 640  # pixels of the picture that goes back
FORM = 'multipart/form-data'
VIEWER = pathlib.Path(__file__).parents[1] / 'viewer' / 'static'
PAGES = {'/': ('serve.html', 'text/html'), '/viewer.js': ('viewer.js', 'text/javascript'),
         '/serve.js': ('serve.js', 'text/javascript'), '/viewer.css': ('viewer.css', 'text/css'),
         '/serve.css': ('serve.css', 'text/css')}
HEADERS = {'X-Content-Type-Options': 'nosniff', 'Cache-Control': 'no-store',
           'Referrer-Policy': 'no-referrer',
           'Content-Security-Policy': "default-src 'self'; img-src 'self' data:; frame-ancestors "
           "'none'"}


class Refused(Exception):
    """A request that is not answered; `status` is its HTTP status, the text its reason."""

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(reason)
        self.status = status


class Batcher:
    """A thread that decodes the photos of many threads together.

    Args:
        decode: function from (N, size, size, 3) uint8 to a list of N results. batch_size: N at
            most.
        max_waiting: photos that may wait.
    """

    def __init__(self, decode: Callable[[np.ndarray], list], batch_size: int = captioner.BATCH,
                 max_waiting: int = MAX_WAITING) -> None:
        self._decode, self._batch_size = decode, batch_size
        self._coming, self._lock = 0, threading.Lock()
        self._waiting: queue.Queue[Any] = queue.Queue(max_waiting)
        self._thread = threading.Thread(target=self._work, name='batcher', daemon=True)
        self._thread.start()

    @contextlib.contextmanager
    def coming(self) -> Iterator[None]:
        """Announce a photo that is being read; a batch that begins now waits a moment for it."""
        with self._lock:
            self._coming += 1
        try:
            yield
        finally:
            with self._lock:
                self._coming -= 1

    def submit(self, pixels: np.ndarray) -> concurrent.futures.Future:
        """Return a Future of the result for pixels (size, size, 3).

        Raises:
            Refused: too many wait.
        """
        future: concurrent.futures.Future = concurrent.futures.Future()
        try:
            self._waiting.put_nowait((pixels, future))
        except queue.Full:
            raise Refused(503, f'{self._waiting.maxsize} photos are waiting already; try again in '
                          'a moment') from None
        return future

    def close(self) -> None:
        """End when all waiting photos are decoded."""
        self._waiting.put(None)
        self._thread.join()

    def _work(self) -> None:
        open_ = True
        while open_:
            taken = [self._waiting.get()]
            begun = time.monotonic()
            while len(taken) < self._batch_size and None not in taken:
                try:
                    taken.append(self._waiting.get(timeout=0.002))
                except queue.Empty:
                    if not self._coming or time.monotonic() - begun > PATIENCE:
                        break
            open_ = None not in taken
            batch = [item for item in taken if item is not None
                     and item[1].set_running_or_notify_cancel()]
            if not batch:
                continue
            try:
                for (_, future), result in zip(
                    batch, self._decode(np.stack([pixels for pixels, _ in batch])), strict=True):
                    future.set_result(result)
            except Exception as error:  # whatever it is, those who wait must hear of it
                for _, future in batch:
                    if not future.done():
                        future.set_exception(error)


class Application:
    """The WSGI application.

    Args:
        captioner: Captioner.
        hosts: names under which the page may be asked for, without port; None: any. A page of
            another site that has its name point to this machine is turned away so.
    """

    def __init__(self, captioner: captioner.Captioner,
                 hosts: Collection[str] | None = None) -> None:
        self.captioner, self.hosts, self._batcher = captioner, hosts, Batcher(captioner.decode)
        # Large photos take memory while they are read: as many at a time as there are processors to
        # read them.
        self._reading = threading.Semaphore(os.cpu_count() or 1)

    def close(self) -> None:
        """End decoding after the batch that has begun."""
        self._batcher.close()

    def __call__(self, environ: dict[str, Any],
                 start_response: Callable[..., Any]) -> Iterable[bytes]:
        """Answer a request, as WSGI has it."""
        request = Request(environ)
        request.max_content_length = MAX_BYTES
        try:
            response = self._answer(request)
        except Refused as refused:
            response = _json({'error': str(refused)}, refused.status)
        except RequestEntityTooLarge:
            response = _json({'error': _too_large()}, 413)
        except HTTPException as error:
            response = _json({'error': error.description}, error.code or 500)
        response.headers.extend(HEADERS)
        return response(environ, start_response)

    def _answer(self, request: Request) -> Response:
        if self.hosts is not None and _host(request.host) not in self.hosts:
            raise Refused(403, 'this server answers under the names '
                          f'{", ".join(sorted(self.hosts))} only')
        methods = {**dict.fromkeys((*PAGES, '/about'), ('GET', 'HEAD')),
                   '/caption': ('POST',)}.get(request.path)
        if methods is None:
            raise Refused(404, f'there is no {request.path}; there are /, /caption and /about')
        if request.method not in methods:
            raise Refused(405,
                          f'{request.path} takes {" and ".join(methods)}, not {request.method}')
        if request.path == '/caption':
            return self._caption(request)
        if request.path == '/about':
            return _json(self._about())
        name, kind = PAGES[request.path]
        return Response(_page(name), mimetype=kind)

    def _about(self) -> dict[str, Any]:
        spec, options = self.captioner.spec, self.captioner.config
        return {'version': __version__, 'run': self.captioner.run.path.absolute().name,
                'step': self.captioner.step, 'encoder': spec.encoder, 'grid': list(spec.grid),
                'beam_width': options.beam_width, 'n_best': self.captioner.n_best,
                'formats': list(photos.FORMATS), 'max_bytes': MAX_BYTES, 'max_pixels': MAX_PIXELS,
                'max_photos': MAX_PHOTOS}

    def _caption(self, request: Request) -> Response:
        origin = request.headers.get('Origin')
        crossing = request.headers.get('Sec-Fetch-Site') == 'cross-site'
        # in the user's browser
        if crossing or (origin and origin.partition('://')[2] != request.host):
            raise Refused(403, f'pages of {origin or "other sites"} may not use this server')
        photos = self._photos(request)
        with_view = request.args.get('photo', '1') != '0'
        waiting = [self._begin(name, data, with_view) for name, data in photos]
        results = [self._finish(*item) for item in waiting]
        # Of a form's photos each has its own answer.
        if request.mimetype != FORM and 'error' in results[0]:
            raise Refused(415, results[0]['error'])
        return _json({'results': results})

    def _photos(self, request: Request) -> list[tuple[str, bytes]]:
        """Return the photos of a request: [(name, bytes)]."""
        if (request.content_length or 0) > MAX_BYTES:
            raise Refused(413, _too_large())
        if request.mimetype == FORM:
            photos = [(file.filename or 'photo', file.read())
                      for file in request.files.getlist('photo')]
            if not photos:
                raise Refused(400, 'the form has no file in a field named photo, or cannot be '
                              'read: it must be whole, and names of files in UTF-8')
            if len(photos) > MAX_PHOTOS:
                raise Refused(413, f'{len(photos)} photos at once; at most {MAX_PHOTOS}')
            return photos
        data = request.get_data()
        if not data:
            raise Refused(400, 'no photo: send the bytes of an image file as the body, or a form '
                          'with files in a field named photo')
        return [(request.args.get('name', 'photo'), data)]

    def _begin(self, name: str, data: bytes, with_view: bool) -> tuple[str, str | None, Any]:
        """Return (name, what the encoder sees of it or None, Future of captions or the error)."""
        try:
            with self._batcher.coming():
                with self._reading:
                    n_pixels = photos.pixel_count(data)
                    if n_pixels > MAX_PIXELS:
                        raise photos.UnreadableImage(name, f'its {n_pixels:,} pixels are more than '
                                                     f'{MAX_PIXELS:,}; send it smaller')
                    image = photos.decode(data)
                    pixels = self.captioner.read(image, name)
                future = self._batcher.submit(pixels)
            # Made while the photo is captioned; the photo itself is not kept.
            return name, self._view(image) if with_view else None, future
        except photos.UnreadableImage as error:
            return name, None, photos.UnreadableImage(name, error.reason)

    def _finish(self, name: str, view: str | None, future: concurrent.futures.Future | InputError,
                ) -> dict[str, Any]:
        if isinstance(future, InputError):
            return self.captioner.result(name, [], None, future).to_dict()
        try:
            captions = future.result()
        except InputError as error:
            raise Refused(500, str(error)) from error
        record = self.captioner.result(name, captions, None).to_dict()
        return record if view is None else {**record, 'photo': view}

    def _view(self, image: Any) -> str:
        """Return a photo's view by the encoder as a data: address."""
        with self._reading:
            pixels = attention_pictures.view(image, self.captioner.spec.preprocessing, VIEW_SIDE)
        buffer = io.BytesIO()
        Image.fromarray(pixels).save(buffer, 'JPEG', quality=88)
        return 'data:image/jpeg;base64,' + base64.b64encode(buffer.getvalue()).decode()


def serve(opened: captioner.Captioner, host: str = '127.0.0.1', port: int = 8000,
          say: Say = print) -> None:
    """Serve until Ctrl-C.

    Args:
        opened: Captioner. host: address to listen at. port: 0: any that is free.
        say: function that prints a line.

    Raises:
        InputError: nobody can listen there.
    """
    shown = f'[{host}]' if ':' in host else host
    loopback = _is_loopback(host)
    application = Application(opened, {'127.0.0.1', 'localhost', '[::1]', shown} if loopback
                              else None)
    logging.getLogger('waitress').setLevel(logging.ERROR)  # that many wait is no fault
    size = opened.spec.size
    # TensorFlow plans the graph at its first run
    opened.decode(np.zeros((1, size, size, 3), np.uint8))
    try:
        server = waitress.create_server(application, host=host, port=port, threads=THREADS,
                                        ident=None, clear_untrusted_proxy_headers=True,
                                        max_request_body_size=MAX_BYTES + 2**16, channel_timeout=20,
                                        connection_limit=1000, asyncore_use_poll=True)
    except (OSError, socket.gaierror, ValueError) as error:
        application.close()
        raise InputError(f'--host {host} --port {port}: '
                         f'{getattr(error, "strerror", None) or error}; choose another, or --port '
                         '0 for any that is free') from None
    say(f'open http://{shown}:{server.effective_port}/ in a browser; Ctrl-C ends', flush=True)
    if not loopback:
        say('whoever reaches this machine can use it; there is no password', flush=True)
    try:
        server.run()
    except KeyboardInterrupt:
        pass
    finally:
        server.close()
        application.close()
    say('ended', flush=True)


@functools.cache
def _page(name: str) -> bytes:
    return (VIEWER / name).read_bytes()


def _json(value: Any, status: int = 200) -> Response:
    return Response(json.dumps(value), status, mimetype='application/json')


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == 'localhost'


def _host(text: str) -> str:
    """Return a host without its port: 'localhost:8000' -> 'localhost', '[::1]:8000' -> '[::1]'."""
    return (text[: text.index(']') + 1] if text.startswith('[') and ']' in text
            else text.partition(':')[0])


def _too_large() -> str:
    return f'more than {MAX_BYTES // 10**6} MB; send a smaller file'
