"""A server on 127.0.0.1 that misbehaves as told, and zip archives, honest and not.

For the tests of downloading.
"""

import contextlib
import hashlib
import http.server
import io
import re
import threading
import zipfile


class Page:
    """What one address does.

    Args:
        content: bytes.
        ranges: whether ranges are served (and If-Range understood).
        tag: ETag, or None.
        modified: Last-Modified, or None.
        cuts: list, one item a GET: after how many bytes the line is cut; None, or the list's end:
            not at all.
        answers: list, one item a GET: (status, dict of headers) instead of the content; None: the
            content.
        announce: Content-Length to claim, if not the true one.
        head: whether HEAD is answered (else 405).
        headers: dict of further headers.
        before: function called with the number of the GET, before it is answered.
        most: bytes that one answer to a range has at most, or None.
        hold: threading.Event that a GET waits for after `cuts` bytes, instead of cutting the line.
    """

    def __init__(self, content=b'', ranges=True, tag='"one"', modified=None, cuts=(), answers=(),
                 announce=None, head=True, headers=None, before=None, hold=None, most=None):
        self.content, self.ranges, self.tag, self.modified = content, ranges, tag, modified
        self.cuts, self.answers = list(cuts), list(answers)
        self.announce, self.head = announce, head
        self.headers, self.before, self.hold, self.most = headers or {}, before, hold, most
        self.requests = []  # headers of every GET


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = 'HTTP/1.1'

    def log_message(self, *arguments):
        pass

    def do_HEAD(self):
        page = self.server.pages.get(self.path)
        answer = page.answers[0] if page and page.answers else None
        if page is None or not page.head or answer:
            self._empty(*(answer or (404 if page is None else 405, {})))
            return
        self.send_response(200)
        self._common(page, len(page.content) if page.announce is None else page.announce)

    def do_GET(self):
        page = self.server.pages.get(self.path)
        if page is None:
            self._empty(404, {})
            return
        number = len(page.requests)
        page.requests.append(dict(self.headers))
        if page.before:
            page.before(number)
        answer = page.answers[number] if number < len(page.answers) else None
        if answer:
            self._empty(*answer)
            return
        begin, body = 0, page.content
        wanted = re.fullmatch(r'bytes=(\d+)-', self.headers.get('Range', ''))
        unchanged = self.headers.get('If-Range') in (None, page.tag or page.modified)
        if wanted and page.ranges and unchanged:
            begin, whole = int(wanted[1]), len(body)
            if begin >= whole:
                self._empty(416, {'Content-Range': f'bytes */{whole}'})
                return
            body = body[: begin + page.most] if page.most else body
            self.send_response(206)
            self.send_header('Content-Range', f'bytes {begin}-{len(body) - 1}/{whole}')
        else:
            self.send_response(200)
        self._common(page, len(body) - begin if page.announce is None else page.announce)
        cut = page.cuts[number] if number < len(page.cuts) else None
        with contextlib.suppress(ConnectionError):
            self.wfile.write(body[begin:] if cut is None else body[begin:cut])
            self.wfile.flush()
            if page.hold and cut is not None:
                page.hold.wait(60)
                self.wfile.write(body[cut:])
                return
        if cut is not None or page.announce is not None:
            self.close_connection = True

    def _common(self, page, length):
        if page.tag:
            self.send_header('ETag', page.tag)
        if page.modified:
            self.send_header('Last-Modified', page.modified)
        for name, value in page.headers.items():
            self.send_header(name, value)
        self.send_header('Content-Length', str(length))
        self.end_headers()

    def _empty(self, status, headers):
        self.send_response(status)
        for name, value in {'Content-Length': '0', **headers}.items():
            self.send_header(name, value)
        self.end_headers()


@contextlib.contextmanager
def serve(pages, tls=None):
    """Serve a dict path -> Page, with an SSLContext over https.

    Gives the address, without a slash at its end.
    """
    server = http.server.ThreadingHTTPServer(('127.0.0.1', 0), _Handler)
    server.pages, server.daemon_threads = pages, True
    server.handle_error = lambda *arguments: None  # a client that went away
    if tls:
        server.socket = tls.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield f'http{"s" if tls else ""}://127.0.0.1:{server.server_port}'
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def md5(content):
    """Return the MD5 in hexadecimal."""
    return hashlib.md5(content).hexdigest()


def archive(files, method=zipfile.ZIP_DEFLATED):
    """Return the bytes of a zip archive of (name or ZipInfo, content) pairs."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, 'w', method) as file:
        for name, content in files:
            file.writestr(name, content)
    return buffer.getvalue()
