"""The encoders' ImageNet weights, from a server on 127.0.0.1 in the place of Keras'."""

import errno
import hashlib
import os
import pathlib
import re
import subprocess
import sys
import threading
import time

import pytest

from core.common import terminal
from core.common.errors import InputError
from core.download import imagenet_weights
from core.download.catalogue import Weights
from tests.support import http_server

CONTENT = b'\x89HDF weights ' * 250_000
NAME = 'no-such-host.invalid'
ROOT = pathlib.Path(__file__).parents[2]


class Keras:
    """A server with a file, as encoder `known` with its checksum, as `unknown` without."""

    def __init__(self, to, address, page):
        self.to, self.address, self.page, self.said = to, address, page, []
        self.weights = {
            'known': Weights(f'{address}/w.h5', http_server.md5(CONTENT)),
            'unknown': Weights(f'{address}/w.h5', None),
            'offline': Weights(f'https://{NAME}/w.h5', http_server.md5(CONTENT))}

    def fetch(self, encoder):
        return imagenet_weights.fetch(encoder, self.to, self.weights, self.said.append, (2, 2))

    def refuses(self, encoder):
        """The one line of a fetch that fails."""
        with pytest.raises(InputError) as error:
            self.fetch(encoder)
        return str(error.value)

    def files(self):
        return sorted(os.listdir(self.to)) if self.to.exists() else []


@pytest.fixture
def keras(tmp_path, monkeypatch):
    monkeypatch.setattr(imagenet_weights, 'RETRIES', 1)
    page = http_server.Page(CONTENT, ranges=False)
    with http_server.serve({'/w.h5': page}) as address:
        yield Keras(tmp_path / 'to', address, page)


def test_fetched_once_then_only_checked(keras, capfd):
    assert keras.fetch('known') == keras.to / 'w.h5'
    assert (keras.to / 'w.h5').read_bytes() == CONTENT and keras.files() == ['w.h5']
    assert (keras.to / 'w.h5').stat().st_mode & 0o777 == 0o644  # for all who share the cache
    said = capfd.readouterr().err
    assert f"w.h5' from '{keras.address}/w.h5' to '{keras.to}'" in said
    bars = [line for line in said.splitlines() if line.startswith('w.h5: ')]
    # where it began and where it ended
    assert re.match(r'w.h5: 3/3 \[.*MB/s\]$', bars[-1]) and len(bars) == 2
    keras.fetch('known')
    assert len(keras.page.requests) == 1 and capfd.readouterr() == ('', '') and keras.said == []


def test_quiet(keras, capfd):
    terminal.set_level(terminal.QUIET)
    try:
        keras.fetch('known')
    finally:
        terminal.set_level(terminal.NORMAL)
    assert capfd.readouterr() == ('', '')


def test_put_there_by_hand(keras):
    keras.to.mkdir()
    (keras.to / 'w.h5').write_bytes(CONTENT)
    keras.fetch('known')
    assert keras.said == [] and keras.files() == ['w.h5']
    keras.fetch('unknown')
    assert keras.said == [f'w.h5: found in {keras.to}, unchecked: its publisher gives no checksum']
    keras.fetch('unknown')
    assert len(keras.said) == 1 and not keras.page.requests


def test_a_wrong_file_is_named_and_left_alone(keras):
    keras.to.mkdir()
    (keras.to / 'w.h5').write_bytes(b'something else')
    assert keras.refuses('known') == (
        f'{keras.to}/w.h5: not the published file (MD5 {http_server.md5(b"something else")}, '
        f'published {http_server.md5(CONTENT)}); delete it and run the same command again')
    assert (keras.to / 'w.h5').read_bytes() == b'something else' and not keras.page.requests


def test_where_no_checksum_is_published_a_changed_file_is_noticed(keras):
    keras.fetch('unknown')
    sha256 = hashlib.sha256(CONTENT).hexdigest()
    assert (keras.to / 'w.h5.sha256').read_text() == f'{sha256}  w.h5\n'
    keras.fetch('unknown')
    (keras.to / 'w.h5').write_bytes(CONTENT[:-1])
    assert keras.refuses('unknown') == (f'{keras.to}/w.h5: has changed since it was recorded in '
                                        'w.h5.sha256; delete both and run the same command again')
    (keras.to / 'w.h5').unlink()  # the record alone refuses nothing that has come anew
    keras.page.content = CONTENT + b'of a later version'
    keras.fetch('unknown')
    keras.fetch('unknown')
    assert len(keras.page.requests) == 2


def test_wrong_bytes_leave_nothing(keras):
    keras.page.content = CONTENT[:-1] + b'x'
    line = keras.refuses('known')
    assert line.startswith('w.h5 cannot be fetched (MD5 hash of downloaded file (w.h5) does not '
                           'match')
    assert http_server.md5(CONTENT) in line and http_server.md5(keras.page.content) in line
    assert keras.files() == [] and len(keras.page.requests) == 2


def test_the_server_s_own_checksum_counts_where_none_is_published(keras):
    keras.page.headers['x-goog-hash'] = 'md5=AAAAAAAAAAAAAAAAAAAAAA=='
    assert f'expected md5:{"0" * 32}' in keras.refuses('unknown')
    assert keras.files() == []


def test_fewer_bytes_than_announced(keras):
    keras.page.announce = len(CONTENT) + 5
    message = keras.refuses('unknown')
    assert 'w.h5 cannot be fetched (the server hung up); run the same command again' in message
    assert keras.files() == []


def test_a_line_that_is_cut_once(keras, capfd):
    keras.page.cuts = [1_000_000]
    keras.fetch('known')
    assert (keras.to / 'w.h5').read_bytes() == CONTENT
    said = capfd.readouterr().err
    assert "Failed to download 'w.h5'. Will attempt the download again 1 more time." in said
    assert re.match(r'w.h5: 3/3 \[', said.splitlines()[-1])


def test_without_network_one_line_says_which_file_to_put_where(keras, capfd):
    began = time.monotonic()
    line = keras.refuses('offline')
    assert time.monotonic() - began < 10
    assert line.startswith(f'w.h5 cannot be fetched (no network, or the server is down: {NAME}: ')
    assert line.endswith(f'run the same command again later, or put w.h5 (https://{NAME}/w.h5), '
                         f'got elsewhere, into {keras.to}')
    assert not keras.to.exists() and capfd.readouterr() == ('', '')


def test_gone(keras):
    keras.page.answers = [(404, {})] * 9
    line = keras.refuses('known')
    assert line.startswith('w.h5 cannot be fetched (404 Client Error') and 'no network' not in line


def test_a_disk_that_is_full(keras, monkeypatch):
    def full(*arguments):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr('pooch.HTTPDownloader.__call__', full)
    assert f'{keras.to}/w.h5 cannot be written: No space left on device' in keras.refuses('known')
    assert keras.files() == []


def test_the_directory_is_a_file(keras):
    keras.to.write_text('mine')
    assert f'{keras.to}/w.h5 cannot be written: ' in keras.refuses('known')


CHILD = '''
import sys
from core.download import imagenet_weights
from core.download.catalogue import Weights
name, to, url, md5 = sys.argv
imagenet_weights.fetch('x', to, {'x': Weights(url, md5)})
'''


def test_several_programs_at_once(keras):
    """The second fetches the whole file while the first is in the middle; both end well."""
    keras.page.hold, keras.page.cuts = threading.Event(), [1_000_000]
    command = [sys.executable, '-c', CHILD, keras.to, f'{keras.address}/w.h5',
               http_server.md5(CONTENT)]
    first = subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE)
    try:
        deadline = time.monotonic() + 60
        while not keras.page.requests and time.monotonic() < deadline:
            time.sleep(0.01)
        keras.fetch('known')
        assert first.poll() is None
    finally:
        keras.page.hold.set()
        _, errors = first.communicate(timeout=60)
    assert first.returncode == 0, errors
    assert (keras.to / 'w.h5').read_bytes() == CONTENT and keras.files() == ['w.h5']


def test_the_cache(monkeypatch, tmp_path):
    monkeypatch.delenv('XDG_CACHE_HOME', raising=False)
    monkeypatch.setenv('HOME', str(tmp_path))
    assert imagenet_weights.cache() == tmp_path / '.cache' / 'show-attend-tell'
    monkeypatch.setenv('XDG_CACHE_HOME', '/elsewhere')
    assert imagenet_weights.cache() == pathlib.Path('/elsewhere/show-attend-tell')
    monkeypatch.setenv('XDG_CACHE_HOME', 'relative')  # to be ignored, says the standard
    assert imagenet_weights.cache() == tmp_path / '.cache' / 'show-attend-tell'
