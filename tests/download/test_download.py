"""Published files from a server on 127.0.0.1 in the place of their publishers."""

import hashlib
import importlib.util
import json
import os
import pathlib
import re
import signal
import subprocess
import sys
import threading
import time

import pytest

from core.common.errors import InputError
from core.datasets.formats import DATASETS
from core.download import catalogue, download
from core.download.catalogue import Remote, Source
from core.encoders.encoder import ENCODERS
from tests.support import http_server
from tests.support.scripts import ROOT

WEIGHTS = b'\x89HDF weights ' * 5000
PHOTOS = http_server.archive([(f'photos/{number}.jpg', bytes([number]) * 5000) for number in range(9)], 0)
CAPTIONS = http_server.archive([('annotations/captions.json', b'{"images": []}')])
NAME = 'no-such-host.invalid'


class Site:
    """The pages of a server, a table of sources that points to them, and what a download said."""

    def __init__(self, to, address, pages):
        self.to, self.address, self.pages, self.said = to, address, pages, []
        self.sources = {
            'weights': Source((Remote('w.h5', (f'{address}/w.h5',), http_server.md5(WEIGHTS)),),
                              'prepro.py --weights {to}/w.h5'),
            'data': Source((Remote('captions.zip', (f'{address}/captions.zip',), unpack=True),
                            Remote('photos.zip', (f'{address}/photos.zip',), unpack=True)),
                           'prepro.py --images {to}', 'read the terms'),
            'copied': Source((Remote('c.zip', (f'http://{NAME}/c.zip', f'{address}/gone.zip',
                                               f'{address}/captions.zip'), unpack=True),), 'prepro.py'),
        }

    def get(self, *names, **options):
        """Download; returns the lines that were said."""
        before = len(self.said)
        download.download(names, self.to, self.sources, self.said.append,
                          **{'timeout': (2, 2), 'sleep': lambda seconds: None, **options})
        return self.said[before:]

    def refuses(self, *names, **options):
        """The one line of a download that fails."""
        with pytest.raises(InputError) as error:
            self.get(*names, **options)
        return str(error.value)

    def asked(self):
        """Numbers of GETs by address."""
        return {path: len(page.requests) for path, page in self.pages.items() if page.requests}

    def manifest(self):
        return json.loads((self.to / 'downloads.json').read_text())


@pytest.fixture
def site(tmp_path):
    pages = {path: http_server.Page(content)
             for path, content in (('/w.h5', WEIGHTS), ('/photos.zip', PHOTOS), ('/captions.zip', CAPTIONS))}
    with http_server.serve(pages) as address:
        yield Site(tmp_path / 'to', address, pages)


def test_one_file(site):
    said = site.get('weights')
    assert (site.to / 'w.h5').read_bytes() == WEIGHTS
    assert sorted(os.listdir(site.to)) == ['.lock', 'downloads.json', 'w.h5']
    entry = site.manifest()['w.h5']
    assert entry['sha256'] == hashlib.sha256(WEIGHTS).hexdigest() and entry['bytes'] == len(WEIGHTS)
    assert entry['url'] == f'{site.address}/w.h5' and entry['checked'] == 'MD5 published'
    assert said[-2:] == [f'weights: complete in {site.to}', f'next: python prepro.py --weights {site.to}/w.h5 ...']
    assert not any('plain http' in line for line in said)  # its checksum is known


def test_archives_are_unpacked(site):
    said = site.get('data')
    assert {path.name for path in (site.to / 'photos').iterdir()} == {f'{number}.jpg' for number in range(9)}
    assert (site.to / 'annotations' / 'captions.json').exists()
    assert site.manifest()['photos.zip']['unpacked'] == {'files': 9, 'bytes': 45000}
    assert sum('plain http' in line for line in said) == 2 and 'note: read the terms' in said


def test_the_second_time_nothing_is_done(site, monkeypatch):
    site.get('weights', 'data')
    before = {path: path.stat().st_mtime_ns for path in site.to.rglob('*') if path.is_file() and path.name != '.lock'}
    asked = site.asked()
    site.sources = {name: offline(source) for name, source in site.sources.items()}
    said = site.get('weights', 'data', 'data')
    assert {path: path.stat().st_mtime_ns for path in before} == before and site.asked() == asked
    assert [line for line in said if ': ' in line and not line.startswith(('next', 'note'))] == [
        f'weights: already there in {site.to}', f'data: already there in {site.to}']


def offline(source, host=NAME):
    """The same source at a host that is not there."""
    files = tuple(Remote(one.name, (f'https://{host}/{one.name}',), one.md5, one.unpack) for one in source.files)
    return Source(files, source.next, source.note)


def test_an_archive_may_be_deleted_once_unpacked(site):
    site.get('data')
    (site.to / 'photos.zip').unlink()
    assert any('already there' in line for line in site.get('data')) and site.asked()['/photos.zip'] == 1
    (site.to / 'photos' / '3.jpg').unlink()
    assert any('complete' in line for line in site.get('data')) and site.asked()['/photos.zip'] == 2
    assert (site.to / 'photos' / '3.jpg').exists()


def test_a_lost_file_is_unpacked_again(site):
    site.get('data')
    (site.to / 'photos' / '3.jpg').unlink()
    site.get('data')
    assert (site.to / 'photos' / '3.jpg').exists() and site.asked()['/photos.zip'] == 1


def test_wrong_bytes(site):
    site.pages['/w.h5'].content = WEIGHTS[:-1] + b'x'
    line = site.refuses('weights')
    assert line.startswith(f'{site.to}/w.h5.bad: came with wrong bytes (MD5 ')
    assert f', published: {http_server.md5(WEIGHTS)}); run the same command again' in line
    assert not (site.to / 'w.h5').exists() and (site.to / 'w.h5.bad').exists()
    site.pages['/w.h5'].content = WEIGHTS
    site.get('weights')
    assert (site.to / 'w.h5').read_bytes() == WEIGHTS


def test_the_server_s_own_md5_counts_where_none_is_published(site):
    site.pages['/captions.zip'].headers['x-goog-hash'] = 'md5=AAAAAAAAAAAAAAAAAAAAAA=='
    assert f'announced by the server: {"0" * 32}' in site.refuses('data')


def test_fewer_bytes_than_the_archive_has(site):
    """The length is announced too small: the archive's own directory is missing."""
    site.pages['/photos.zip'].announce = len(PHOTOS) - 500
    assert 'photos.zip: not a whole zip archive' in site.refuses('data')
    assert not (site.to / 'photos').exists()


def test_a_file_that_changed_later(site):
    site.get('weights')
    (site.to / 'w.h5').write_bytes(WEIGHTS[:-1] + b'x')
    assert 'w.h5: has changed since it was recorded in downloads.json' in site.refuses('weights')
    (site.to / 'w.h5').unlink()
    site.get('weights')
    assert (site.to / 'w.h5').read_bytes() == WEIGHTS


def test_files_put_there_by_hand(site):
    site.to.mkdir()
    for name, content in (('w.h5', WEIGHTS), ('captions.zip', CAPTIONS), ('photos.zip', PHOTOS)):
        (site.to / name).write_bytes(content)
    said = site.get('weights', 'data')
    assert site.asked() == {} and (site.to / 'photos' / '8.jpg').exists()
    assert f'w.h5: found in {site.to}, as published' in said
    assert f'photos.zip: found in {site.to}, unchecked: its publisher gives no checksum' in said


def test_a_wrong_file_put_there_by_hand_is_left_alone(site):
    site.to.mkdir()
    (site.to / 'w.h5').write_bytes(b'something else')
    assert f'published {http_server.md5(WEIGHTS)}); delete it' in site.refuses('weights')
    assert (site.to / 'w.h5').read_bytes() == b'something else'


def test_the_next_address_where_one_has_it_no_more(site):
    said = site.get('copied')
    assert (site.to / 'annotations' / 'captions.json').exists()
    assert any(line.startswith(f'{NAME}: ') and line.endswith('; trying 127.0.0.1') for line in said)
    assert any('the server answered 404' in line and line.endswith('; trying 127.0.0.1') for line in said)
    assert site.manifest()['c.zip']['url'] == f'{site.address}/captions.zip'


def test_without_network_one_line_says_which_files_to_put_where(site):
    site.sources['data'] = offline(site.sources['data'])
    began = time.monotonic()
    line = site.refuses('data')
    assert time.monotonic() - began < 10
    assert line.startswith(f'captions.zip cannot be fetched (no network, or the server is down: {NAME}: ')
    assert line.endswith(f'put captions.zip (https://{NAME}/captions.zip), photos.zip (https://{NAME}/photos.zip), '
                         f'got elsewhere, into {site.to}')
    assert sorted(os.listdir(site.to)) == ['.lock']


def test_gone(site):
    del site.pages['/w.h5']
    line = site.refuses('weights')
    assert 'w.h5 cannot be fetched' in line and 'answered 404' in line and 'no network' not in line


@pytest.mark.parametrize(('free', 'refused'), [(0.5, True), (1.9, True), (2.5, False)])
def test_the_disk_is_asked_before_the_first_byte(site, free, refused):
    """Archives need their size twice: packed and unpacked (photos hardly shrink)."""
    free = int(free * (len(PHOTOS) + len(CAPTIONS)))
    if refused:
        assert re.match(rf'{site.to}: data needs 9\d.\d kB or more, unpacked files included, and .* free; make room',
                        site.refuses('data', free=free))
        assert site.asked() == {} and os.listdir(site.to) == ['.lock']
    else:
        site.get('data', free=free)


def test_what_came_already_needs_no_room(site):
    site.pages['/w.h5'].cuts = [3 * 16384] + [0] * 20
    site.refuses('weights')
    assert site.refuses('weights', free=1000).startswith(f'{site.to}: weights needs')
    there = (site.to / 'w.h5.part').stat().st_size
    site.pages['/w.h5'].cuts = []
    site.get('weights', free=int((len(WEIGHTS) - there) * 1.03))
    assert site.pages['/w.h5'].requests[-1]['Range'] == f'bytes={there}-'


def test_a_server_that_does_not_tell_sizes(site):
    site.pages['/w.h5'].head = False
    assert any('do not say how large w.h5 will be' in line for line in site.get('weights'))


def test_what_came_is_kept_when_the_line_stays_cut(site):
    site.pages['/w.h5'].cuts = [16384] + [0] * 20
    assert 'what has come is kept: run the same command again' in site.refuses('weights')
    assert not (site.to / 'w.h5').exists()


def test_unknown_names(site):
    line = site.refuses('weigths')
    assert line == "--download weigths: not known; did you mean weights? There is weights, data, copied"
    assert not site.to.exists()


def test_a_damaged_record(site):
    site.to.mkdir()
    for text in ('{"w.h5', '[]', '{"w.h5": 5}'):
        (site.to / 'downloads.json').write_text(text)
        assert 'downloads.json: not a record of this program' in site.refuses('weights')


def test_to_is_a_file(site):
    site.to.write_text('mine')
    assert site.refuses('weights') == f'{site.to}: is a file, not a directory; choose another --to'


def test_two_at_once(site):
    """The second is refused while the first is in the middle, and the first ends well."""
    hold = threading.Event()
    site.pages['/w.h5'].hold, site.pages['/w.h5'].cuts = hold, [2 * 16384]
    first = threading.Thread(target=site.get, args=('weights',))
    first.start()
    try:
        deadline = time.monotonic() + 20
        while not (site.to / 'w.h5.part').exists() and time.monotonic() < deadline:
            time.sleep(0.01)
        assert site.refuses('weights') == (f'{site.to}: another prepro.py is at work here; wait for it or stop it')
    finally:
        hold.set()
        first.join(30)
    assert (site.to / 'w.h5').read_bytes() == WEIGHTS and site.asked() == {'/w.h5': 1}


CHILD = '''
import signal, sys
from core.common import terminal
from core.download import download
from core.download.catalogue import Remote, Source
signal.signal(signal.SIGINT, signal.default_int_handler)  # a test run in the background ignores it, and so would we
def main():
    files = Remote('photos.zip', (sys.argv[2] + '/photos.zip',), unpack=True),
    download.download(['data'], sys.argv[1], {'data': Source(files, 'x')})
terminal.run(main)
'''


@pytest.mark.parametrize('number', [signal.SIGINT, signal.SIGKILL])
def test_stopped_in_the_middle_and_gone_on_with(site, number):
    hold = threading.Event()
    page = site.pages['/photos.zip']
    page.hold, page.cuts = hold, [2 * 16384 + 10]
    command = [sys.executable, '-c', CHILD, site.to, site.address]
    first = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        part, deadline = site.to / 'photos.zip.part', time.monotonic() + 60
        while (not part.exists() or part.stat().st_size < 2 * 16384) and time.monotonic() < deadline:
            time.sleep(0.01)
        first.send_signal(number)
        _, errors = first.communicate(timeout=60)
    finally:
        first.kill()
        hold.set()
    if number == signal.SIGINT:
        assert first.returncode == 130 and errors.splitlines()[-1] == 'interrupted' and 'Traceback' not in errors
    there = part.stat().st_size
    again = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert again.returncode == 0, again.stderr
    assert there >= 16384 and page.requests[1]['Range'] == f'bytes={there}-'
    assert (site.to / 'photos.zip').read_bytes() == PHOTOS and (site.to / 'photos' / '8.jpg').exists()
    assert all(re.match(r'(unpacking )?photos.zip: \d+/\d+ \[', line) for line in again.stderr.splitlines())


# ------------------------------------------------------------------------------------------------------ the real table


def test_the_table_against_keras():
    """Addresses and MD5s of the weights are those in the source of the installed tf_keras."""
    folder = pathlib.Path(importlib.util.find_spec('tf_keras').origin).parent / 'src' / 'applications'
    files = {'vgg19': 'vgg19', 'inception_v3': 'inception_v3', 'resnet50': 'resnet', 'mobilenet_v2': 'mobilenet_v2'}
    text = {name: (folder / f'{file}.py').read_text().replace('"\n    "', '') for name, file in files.items()}
    for encoder, published in text.items():
        remote, = catalogue.SOURCES[encoder].files
        assert remote.name in ENCODERS[encoder].files
        base, _, file = remote.urls[0].rpartition('/')
        assert file == remote.name and f'"{base}/' in published
        assert remote.md5 is None or f'"{remote.md5}"' in published
    assert 'file_hash' not in text['mobilenet_v2']
    resnet = text['resnet50'].split('"resnet50": (')[1].split(')')[0]
    assert resnet.split('"')[3] == catalogue.SOURCES['resnet50'].files[0].md5  # the second: without the top


def test_every_name_of_the_issue_and_its_reader():
    assert list(catalogue.SOURCES) == ['coco2014', 'coco2017', 'flickr8k-captions', 'karpathy', 'vgg19',
                                       'inception_v3', 'mobilenet_v2', 'resnet50']
    for name, source in catalogue.SOURCES.items():
        words = source.next.format(to='DIR').split()
        options = dict(zip(words[1::2], words[2::2], strict=False))
        assert options.get('--dataset') in DATASETS or options['--encoder'] in ENCODERS
        for remote in source.files:
            secure = [url.startswith('https://') for url in remote.urls]
            assert all(secure) or name in ('coco2014', 'coco2017', 'flickr8k-captions')
            assert remote.unpack == remote.name.endswith('.zip')
