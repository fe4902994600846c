"""One file over HTTP, from a server on 127.0.0.1 that cuts, changes, lies and refuses."""

import base64
import io
import json
import random
import re
import resource
import shutil
import signal
import socket
import ssl
import subprocess
import threading
import time

import pytest
import requests

from core.common.errors import InputError
from core.download import http_file
from tests.support import http_server

CONTENT = random.Random(7).randbytes(700_001)
CUT, FURTHER = 18 * http_file.BLOCK, 31 * http_file.BLOCK
OTHER = random.Random(8).randbytes(700_001)


class Fetched:
    """What `http_file.fetch` did: the state it returned, the bytes that came, the seconds it would
    have waited.
    """

    def __init__(self, tmp_path, page, path='/file', timeout=(2, 2), pages=None, url=None):
        self.page, self.waits, self.part = page, [], tmp_path / 'file.part'
        with http_server.serve({'/file': page,
                                **(pages or {})}) as address, http_file.session() as session:
            self.address = address
            self.state = http_file.fetch(session, url or address + path, self.part, 'file', timeout,
                                         self.waits.append)

    @property
    def content(self):
        return self.part.read_bytes()


def begun(tmp_path, content, **state):
    """An unfinished file, as a killed process leaves it."""
    (tmp_path / 'file.part').write_bytes(content)
    state = {'validator': '"one"', 'length': len(CONTENT), **state}
    (tmp_path / 'file.part.json').write_text(json.dumps(state))


def fetch_begun(tmp_path, page, content, **state):
    """`fetch` where `content` had come before."""
    with http_server.serve({'/file': page}) as address, http_file.session() as session:
        begun(tmp_path, content, **{'url': f'{address}/file', **state})
        http_file.fetch(session, f'{address}/file', tmp_path / 'file.part', 'file', (2, 2),
                        lambda seconds: None)
    return (tmp_path / 'file.part').read_bytes()


def test_whole(tmp_path):
    fetched = Fetched(tmp_path, http_server.Page(CONTENT))
    assert fetched.content == CONTENT and fetched.waits == []
    assert fetched.state['length'] == len(CONTENT)
    http_file.finish(fetched.part, tmp_path / 'file')
    assert [path.name for path in tmp_path.iterdir()] == ['file']


def test_a_cut_line_is_taken_up_where_it_broke(tmp_path, capsys):
    fetched = Fetched(tmp_path, http_server.Page(CONTENT, cuts=[CUT, FURTHER]))
    assert fetched.content == CONTENT
    assert [request.get('Range') for request in fetched.page.requests] == [
        None, f'bytes={CUT}-', f'bytes={FURTHER}-']
    assert {request.get('If-Range') for request in fetched.page.requests[1:]} == {'"one"'}
    assert fetched.waits == [1, 1]  # each attempt got further
    said = capsys.readouterr().err
    assert 'file: the line was cut after 295 kB (the server hung up); again in 1 s\n' in said
    assert '\r' not in said


def test_a_server_that_gives_less_than_the_range_asked_for(tmp_path):
    fetched = Fetched(tmp_path, http_server.Page(CONTENT, cuts=[CUT], most=250_000))
    assert fetched.content == CONTENT and len(fetched.page.requests) == 3


def test_a_server_without_ranges_begins_anew(tmp_path):
    fetched = Fetched(tmp_path, http_server.Page(CONTENT, ranges=False, cuts=[CUT, 500_000]))
    assert fetched.content == CONTENT and len(fetched.page.requests) == 3


def test_a_server_that_always_cuts_is_given_up(tmp_path):
    page = http_server.Page(CONTENT, ranges=False, cuts=[CUT] * 50)
    with pytest.raises(http_file.Unavailable,
                       match=rf'after {http_file.ATTEMPTS} attempts, 295 kB are kept') as error:
        Fetched(tmp_path, page)
    assert not error.value.unreachable and len(page.requests) == http_file.ATTEMPTS


def test_waits_grow_and_end(tmp_path):
    waits, page = [], http_server.Page(answers=[(503, {})] * 20)
    with http_server.serve({'/file': page}) as address, http_file.session() as session, \
            pytest.raises(http_file.Unavailable, match='the server answered 503'):
        http_file.fetch(session, f'{address}/file', tmp_path / 'part', 'file', (2, 2), waits.append)
    assert waits == [1, 2, 4, 8, 16, 32, 60]


def test_a_busy_server_says_when_to_come_back(tmp_path):
    answers = [(503, {'Retry-After': '5'}), (429, {'Retry-After': '999'})]
    fetched = Fetched(tmp_path, http_server.Page(CONTENT, answers=answers))
    assert fetched.content == CONTENT and fetched.waits == [5, http_file.LONGEST_WAIT]


@pytest.mark.parametrize('status', [404, 403, 410, 206, 304])
def test_final_answers_are_not_asked_twice(tmp_path, status):
    page = http_server.Page(answers=[(status, {})] * 3)
    with pytest.raises(http_file.Unavailable, match=f'the server answered {status}') as error:
        Fetched(tmp_path, page)
    assert len(page.requests) == 1 and not error.value.unreachable and not list(tmp_path.iterdir())


def test_a_file_that_changes_between_two_parts(tmp_path):
    page = http_server.Page(CONTENT, cuts=[CUT])

    def change(number):
        if number == 1:
            page.content, page.tag = OTHER, '"two"'

    page.before = change
    assert Fetched(tmp_path, page).content == OTHER


def test_a_changed_file_whose_server_ignores_if_range(tmp_path):
    """Answers 206 with the new file's rest: the ETag gives it away."""
    class Ignoring(http_server.Page):
        tag = property(lambda self: Tag(self.now), lambda self, value: setattr(self, 'now', value))

    class Tag(str):
        def __eq__(self, other):
            return True

        __hash__ = str.__hash__

    page = Ignoring(CONTENT, tag='"one"', cuts=[CUT])

    def change(number):
        if number == 1:
            page.content, page.tag = OTHER, '"two"'

    page.before = change
    assert Fetched(tmp_path, page).content == OTHER
    assert [request.get('Range') for request in page.requests] == [None, f'bytes={CUT}-', None]


@pytest.mark.parametrize('found', ['bytes 5-9/700001', f'bytes {CUT}-9/5', 'nonsense', ''])
def test_a_part_from_elsewhere_is_not_appended(tmp_path, found):
    page = http_server.Page(CONTENT, answers=[(206, {'Content-Range': found, 'ETag': '"one"'})])
    assert fetch_begun(tmp_path, page, CONTENT[:CUT]) == CONTENT
    assert [request.get('Range') for request in page.requests] == [f'bytes={CUT}-', None]


def test_last_modified_where_there_is_no_strong_tag(tmp_path):
    date = 'Sat, 01 Nov 2025 10:00:00 GMT'
    fetched = Fetched(tmp_path, http_server.Page(CONTENT, tag=None, modified=date, cuts=[CUT]))
    assert fetched.content == CONTENT and fetched.page.requests[1]['If-Range'] == date
    (tmp_path / 'weak').mkdir()
    weak = Fetched(tmp_path / 'weak', http_server.Page(CONTENT, tag='W/"x"', cuts=[CUT]))
    assert weak.content == CONTENT and 'Range' not in weak.page.requests[1]


def test_what_another_process_left_is_taken_up(tmp_path):
    page = http_server.Page(CONTENT)
    assert fetch_begun(tmp_path, page, CONTENT[:FURTHER]) == CONTENT
    assert page.requests[0]['Range'] == f'bytes={FURTHER}-'


@pytest.mark.parametrize(
    'state', [{'url': 'http://elsewhere/file'}, {'validator': None}, {'validator': '"zero"'}])
def test_what_is_not_surely_of_this_file_is_not(tmp_path, state):
    assert fetch_begun(tmp_path, http_server.Page(CONTENT), OTHER[:FURTHER], **state) == CONTENT


def test_a_part_without_or_with_a_damaged_record_begins_anew(tmp_path):
    for record in (None, '{"url": ', '[]', '{}'):
        (tmp_path / 'file.part').write_bytes(OTHER[:1000])
        if record:
            (tmp_path / 'file.part.json').write_text(record)
        assert Fetched(tmp_path, http_server.Page(CONTENT)).content == CONTENT


def test_complete_but_not_yet_named(tmp_path):
    page = http_server.Page(CONTENT)
    assert fetch_begun(tmp_path, page, CONTENT) == CONTENT and not page.requests


def test_longer_than_the_server_has_begins_anew(tmp_path):
    page = http_server.Page(CONTENT)
    assert fetch_begun(tmp_path, page, OTHER + b'x') == CONTENT and len(page.requests) == 2


def test_fewer_bytes_than_announced(tmp_path):
    page = http_server.Page(CONTENT, announce=len(CONTENT) + 50, ranges=False)
    with pytest.raises(http_file.Unavailable, match=f'after {http_file.ATTEMPTS} attempts'):
        Fetched(tmp_path, page)


def test_compressed_though_not_asked_for(tmp_path):
    with pytest.raises(http_file.Unavailable, match='sent as gzip'):
        Fetched(tmp_path, http_server.Page(CONTENT, headers={'Content-Encoding': 'gzip'}))


def test_redirects(tmp_path):
    hop = http_server.Page(answers=[(302, {'Location': '/other'})] * 9)
    other = http_server.Page(answers=[(308, {'Location': '/file'})] * 9)
    page = http_server.Page(CONTENT, cuts=[CUT])
    fetched = Fetched(tmp_path, page, '/hop', pages={'/hop': hop, '/other': other})
    assert fetched.content == CONTENT and page.requests[1]['Range'] == f'bytes={CUT}-'
    assert fetched.state['url'].endswith('/hop')


@pytest.mark.parametrize(
    'target', ['file:///etc/passwd', 'ftp://127.0.0.1/x', 'data:,x', 'javascript:1'])
def test_redirects_to_other_schemes_are_refused(tmp_path, target):
    with pytest.raises(http_file.Unavailable,
                       match=re.escape(f'sends on to {target!r}, which is not followed')):
        Fetched(tmp_path, http_server.Page(answers=[(302, {'Location': target})]))


def test_https_is_never_left(tmp_path):
    """No certificate of 127.0.0.1 would be accepted, so the answer stands in for the session."""
    class Session(requests.Session):
        def request(self, method, url, **options):
            assert url == 'https://safe.example/file'
            response = requests.Response()
            response.raw, response.status_code, response.headers = io.BytesIO(), 302, {
                'Location': 'http://safe.example/file'}
            return response

    with pytest.raises(http_file.Unavailable, match='which is not followed'):
        http_file.fetch(Session(), 'https://safe.example/file', tmp_path / 'part', 'file')


def test_redirects_in_a_circle(tmp_path):
    with pytest.raises(http_file.Unavailable, match='sends on and on'):
        Fetched(tmp_path, http_server.Page(answers=[(302, {'Location': '/file'})] * 20))


def free_port():
    with socket.socket() as one:
        one.bind(('127.0.0.1', 0))
        return one.getsockname()[1]


@pytest.mark.parametrize('url', ['http://no-such-host.invalid/file', None])
def test_nobody_there_is_known_at_once(tmp_path, url):
    waits, began = [], time.monotonic()
    with http_file.session() as session, pytest.raises(http_file.Unavailable) as error:
        http_file.fetch(session, url or f'http://127.0.0.1:{free_port()}/file', tmp_path / 'part',
                        'file', (2, 2), waits.append)
    assert error.value.unreachable and waits == [] and time.monotonic() - began < 10
    assert re.match(r'(no-such-host.invalid|127.0.0.1): \w', str(error.value))
    assert '0x' not in str(error.value)


def test_a_server_that_says_nothing_does_not_hang(tmp_path):
    hold = threading.Event()
    page = http_server.Page(CONTENT, cuts=[CUT] + [700_001] * 3, hold=hold)
    began = time.monotonic()
    try:
        fetched = Fetched(tmp_path, page, timeout=(2, 0.3))
    finally:
        hold.set()
    assert fetched.content == CONTENT and time.monotonic() - began < 10 and fetched.waits == [1]
    assert page.requests[1]['Range'] == f'bytes={CUT}-'


def test_a_wrong_certificate_is_final(tmp_path):
    """The server's key is its own: nobody vouches for it."""
    if not shutil.which('openssl'):
        pytest.skip('needs the program openssl to make a certificate')
    subprocess.run(['openssl', 'req', '-x509', '-newkey', 'rsa:2048', '-nodes', '-keyout',
                    tmp_path / 'key', '-out', tmp_path / 'cert', '-days', '2', '-subj',
                    '/CN=127.0.0.1'], capture_output=True, check=True)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / 'cert', tmp_path / 'key')
    with http_server.serve({'/file': http_server.Page(CONTENT)},
                           context) as address, http_file.session() as session, pytest.raises(
        http_file.Unavailable, match='its certificate is not accepted'):
        http_file.fetch(session, f'{address}/file', tmp_path / 'part', 'file', (2, 2),
                        lambda seconds: None)


def test_what_a_server_announces(tmp_path):
    pages = {'/file': http_server.Page(CONTENT), '/none': http_server.Page(CONTENT, head=False)}
    with http_server.serve(pages) as address, http_file.session() as session:
        assert http_file.announced(session, f'{address}/file', (2, 2)) == (len(CONTENT), None)
        assert http_file.announced(session, f'{address}/none', (2, 2)) == (None, None)
        assert http_file.announced(session, f'{address}/gone', (2, 2)) == (None, None)
        digest = base64.b64encode(bytes.fromhex(http_server.md5(CONTENT))).decode()
        pages['/file'].headers['x-goog-hash'] = f'crc32c=n03x6A==, md5={digest}'
        assert http_file.announced(session, f'{address}/file', (2, 2)) == (
            len(CONTENT), http_server.md5(CONTENT))
        with pytest.raises(http_file.Unavailable):
            http_file.announced(session, 'http://no-such-host.invalid/', (2, 2))


def test_a_disk_that_is_full_keeps_what_came(tmp_path):
    """A limit on the size of files stands for the full disk."""
    before, ignored = resource.getrlimit(resource.RLIMIT_FSIZE), signal.signal(
        signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (CUT, before[1]))
    try:
        with pytest.raises(InputError,
                           match='cannot write .* make room and run the same command again'):
            Fetched(tmp_path, http_server.Page(CONTENT))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, ignored)
    assert (tmp_path / 'file.part').read_bytes() == CONTENT[:CUT]
