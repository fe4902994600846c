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
from core.download.catalogue import Archive, Source, Weights
from core.encoders.known_encoders import ENCODERS
from tests.support import http_server
from tests.support.scripts import ROOT

SINGLE = http_server.archive([('w.bin', b'\x89any bytes ' * 6000)], 0)
PHOTOS = http_server.archive(
    [(f'photos/{number}.jpg', bytes([number]) * 5000) for number in range(9)], 0)
CAPTIONS = http_server.archive([('annotations/captions.json', b'{"images": []}')])
NAME = 'no-such-host.invalid'


class Site:
    """The pages of a server, a table of sources that points to them, and what a download said."""

    def __init__(self, to, address, pages):
        self.to, self.address, self.pages, self.said = to, address, pages, []
        self.sources = {'single': Source((Archive('w.zip', (f'{address}/w.zip',)),),
                                         'prepro.py --captions {to}/w.bin'),
                        'data': Source((Archive('captions.zip', (f'{address}/captions.zip',)),
                                        Archive('photos.zip', (f'{address}/photos.zip',))),
                                       'prepro.py --images {to}', 'read the terms'),
                        'copied': Source((Archive('c.zip',
                                                  (f'http://{NAME}/c.zip', f'{address}/gone.zip',
                                                   f'{address}/captions.zip')),), 'prepro.py')}
        self.weights = {'vgg91': Weights(f'{address}/w.h5', http_server.md5(SINGLE))}

    def get(self, *names, **options):
        """Download; returns the lines that were said."""
        before = len(self.said)
        download.download(names, self.to, self.sources, self.weights, self.said.append,
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
    pages = {path: http_server.Page(content) for path, content in (
        ('/w.zip', SINGLE), ('/photos.zip', PHOTOS), ('/captions.zip', CAPTIONS))}
    with http_server.serve(pages) as address:
        yield Site(tmp_path / 'to', address, pages)


def test_one_file(site):
    said = site.get('single')
    assert (site.to / 'w.zip').read_bytes() == SINGLE
    assert sorted(os.listdir(site.to)) == ['.lock', '.w.zip.contents.json', 'downloads.json',
                                           'w.bin', 'w.zip']
    entry = site.manifest()['w.zip']
    assert entry['sha256'] == hashlib.sha256(SINGLE).hexdigest() and entry['bytes'] == len(SINGLE)
    assert entry['url'] == f'{site.address}/w.zip' and entry['checked'] == 'announced size'
    assert said[-2:] == [f'single: complete in {site.to}', 'next: python prepro.py --captions '
                         f'{site.to}/w.bin ...']


def test_archives_are_unpacked(site):
    said = site.get('data')
    assert {path.name for path in (site.to / 'photos').iterdir()} == {
        f'{number}.jpg' for number in range(9)}
    assert (site.to / 'annotations' / 'captions.json').exists()
    assert site.manifest()['photos.zip']['unpacked'] == {'files': 9, 'bytes': 45000}
    assert sum('plain http' in line for line in said) == 2 and 'note: read the terms' in said


def test_the_second_time_nothing_is_done(site, monkeypatch):
    site.get('single', 'data')
    before = {path: path.stat().st_mtime_ns for path in site.to.rglob('*') if path.is_file()
              and path.name != '.lock'}
    asked = site.asked()
    site.sources = {name: offline(source) for name, source in site.sources.items()}
    said = site.get('single', 'data', 'data')
    assert {path: path.stat().st_mtime_ns for path in before} == before and site.asked() == asked
    assert [line for line in said if ': ' in line and not line.startswith(('next', 'note'))] == [
        f'single: already there in {site.to}', f'data: already there in {site.to}']


def offline(source, host=NAME):
    """The same source at a host that is not there."""
    files = tuple(Archive(one.name, (f'https://{host}/{one.name}',)) for one in source.files)
    return Source(files, source.next, source.note)


def test_weights_of_an_encoder(site):
    """By the way of `--weights imagenet`, into another directory."""
    site.pages['/w.h5'] = http_server.Page(SINGLE)
    command = f'next: python prepro.py --encoder vgg91 --weights {site.to}/w.h5 ...'
    assert site.get('vgg91') == [f'vgg91: complete in {site.to}', command]
    assert site.get('vgg91') == [f'vgg91: already there in {site.to}', command]
    assert sorted(os.listdir(site.to)) == ['.lock', 'w.h5'] and site.asked() == {'/w.h5': 1}
    (site.to / 'w.h5').write_bytes(b'x')
    assert 'w.h5: not the published file' in site.refuses('vgg91')


def test_an_archive_may_be_deleted_once_unpacked(site):
    site.get('data')
    (site.to / 'photos.zip').unlink()
    assert any('already there' in line for line in site.get('data'))
    assert site.asked()['/photos.zip'] == 1
    (site.to / 'photos' / '3.jpg').unlink()
    assert any('complete' in line for line in site.get('data')) and site.asked()['/photos.zip'] == 2
    assert (site.to / 'photos' / '3.jpg').exists()


def test_a_lost_file_is_unpacked_again(site):
    site.get('data')
    (site.to / 'photos' / '3.jpg').unlink()
    site.get('data')
    assert (site.to / 'photos' / '3.jpg').exists() and site.asked()['/photos.zip'] == 1


def test_fewer_bytes_than_the_archive_has(site):
    """The length is announced too small: the archive's own directory is missing."""
    site.pages['/photos.zip'].announce = len(PHOTOS) - 500
    assert 'photos.zip: not a whole zip archive' in site.refuses('data')
    assert not (site.to / 'photos').exists()


def test_a_file_that_changed_later(site):
    site.get('single')
    (site.to / 'w.zip').write_bytes(SINGLE[:-1] + b'x')
    assert 'w.zip: has changed since it was recorded in downloads.json' in site.refuses('single')
    (site.to / 'w.zip').unlink()
    (site.to / 'w.bin').unlink()
    site.get('single')
    assert (site.to / 'w.zip').read_bytes() == SINGLE


def test_files_put_there_by_hand(site):
    site.to.mkdir()
    for name, content in (('captions.zip', CAPTIONS), ('photos.zip', PHOTOS)):
        (site.to / name).write_bytes(content)
    said = site.get('data')
    assert site.asked() == {} and (site.to / 'photos' / '8.jpg').exists()
    assert f'photos.zip: found in {site.to}, unchecked: its publisher gives no checksum' in said


def test_the_next_address_where_one_has_it_no_more(site):
    said = site.get('copied')
    assert (site.to / 'annotations' / 'captions.json').exists()
    assert any(line.startswith(f'{NAME}: ') and line.endswith('; trying 127.0.0.1')
               for line in said)
    assert any('the server answered 404' in line and line.endswith('; trying 127.0.0.1')
               for line in said)
    assert site.manifest()['c.zip']['url'] == f'{site.address}/captions.zip'


def test_without_network_one_line_says_which_files_to_put_where(site):
    site.sources['data'] = offline(site.sources['data'])
    began = time.monotonic()
    line = site.refuses('data')
    assert time.monotonic() - began < 10
    assert line.startswith('captions.zip cannot be fetched (no network, or the server is down: '
                           f'{NAME}: ')
    assert line.endswith(f'put captions.zip (https://{NAME}/captions.zip), photos.zip '
                         f'(https://{NAME}/photos.zip), got elsewhere, into {site.to}')
    assert sorted(os.listdir(site.to)) == ['.lock']


def test_gone(site):
    del site.pages['/w.zip']
    line = site.refuses('single')
    assert 'w.zip cannot be fetched' in line and 'answered 404' in line and 'no network' not in line


@pytest.mark.parametrize(('free', 'refused'), [(0.5, True), (1.9, True), (2.5, False)])
def test_the_disk_is_asked_before_the_first_byte(site, free, refused):
    """Archives need their size twice: packed and unpacked (photos hardly shrink)."""
    free = int(free * (len(PHOTOS) + len(CAPTIONS)))
    if refused:
        assert re.match(rf'{site.to}: data needs 9\d.\d kB or more, unpacked files included, '
                        'and .* free; make room', site.refuses('data', free=free))
        assert site.asked() == {} and os.listdir(site.to) == ['.lock']
    else:
        site.get('data', free=free)


def test_what_came_already_needs_no_room(site):
    site.pages['/w.zip'].cuts = [3 * 16384] + [0] * 20
    site.refuses('single')
    assert site.refuses('single', free=1000).startswith(f'{site.to}: single needs')
    there = (site.to / 'w.zip.part').stat().st_size
    site.pages['/w.zip'].cuts = []
    site.get('single', free=int((2 * len(SINGLE) - there) * 1.03))
    assert site.pages['/w.zip'].requests[-1]['Range'] == f'bytes={there}-'


def test_a_server_that_does_not_tell_sizes(site):
    site.pages['/w.zip'].head = False
    assert any('do not say how large w.zip will be' in line for line in site.get('single'))


def test_what_came_is_kept_when_the_line_stays_cut(site):
    site.pages['/w.zip'].cuts = [16384] + [0] * 20
    assert 'what has come is kept: run the same command again' in site.refuses('single')
    assert not (site.to / 'w.zip').exists()


def test_unknown_names(site):
    line = site.refuses('singel')
    assert line == ('--download singel: not known; did you mean single? There is single, data, '
                    'copied, vgg91')
    assert not site.to.exists()


def test_a_damaged_record(site):
    site.to.mkdir()
    for text, why in (('{"w.zip', 'is not JSON'), ('[]', 'not a record'),
                      ('{"w.zip": 5}', 'not a record')):
        (site.to / 'downloads.json').write_text(text)
        assert f'downloads.json: {why}' in site.refuses('single')


def test_to_is_a_file(site):
    site.to.write_text('mine')
    assert site.refuses('single') == f'{site.to}: is a file, not a directory; choose another --to'


def test_two_at_once(site):
    """The second is refused while the first is in the middle, and the first ends well."""
    hold = threading.Event()
    site.pages['/w.zip'].hold, site.pages['/w.zip'].cuts = hold, [2 * 16384]
    first = threading.Thread(target=site.get, args=('single',))
    first.start()
    try:
        deadline = time.monotonic() + 20
        while not (site.to / 'w.zip.part').exists() and time.monotonic() < deadline:
            time.sleep(0.01)
        assert site.refuses('single') == (f'{site.to}: another prepro.py is at work here; wait for '
                                          'it or stop it')
    finally:
        hold.set()
        first.join(30)
    assert (site.to / 'w.zip').read_bytes() == SINGLE and site.asked() == {'/w.zip': 1}


CHILD = '''
import signal, sys
from core.common import terminal
from core.download import download
from core.download.catalogue import Archive, Source
# a test run in the background ignores it, and so would we
signal.signal(signal.SIGINT, signal.default_int_handler)
def main():
    files = Archive('photos.zip', (sys.argv[2] + '/photos.zip',)),
    download.download(['data'], sys.argv[1], {'data': Source(files, 'x')})
terminal.run(main)
'''


@pytest.mark.parametrize('number', [signal.SIGINT, signal.SIGKILL])
def test_stopped_in_the_middle_and_gone_on_with(site, number):
    hold = threading.Event()
    page = site.pages['/photos.zip']
    page.hold, page.cuts = hold, [2 * 16384 + 10]
    command = [sys.executable, '-c', CHILD, site.to, site.address]
    first = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                             text=True)
    try:
        part, deadline = site.to / 'photos.zip.part', time.monotonic() + 60
        while not part.exists() or part.stat().st_size < 2 * 16384:
            assert time.monotonic() < deadline
            time.sleep(0.01)
        first.send_signal(number)
        _, errors = first.communicate(timeout=60)
    finally:
        first.kill()
        hold.set()
    if number == signal.SIGINT:
        assert first.returncode == 130 and errors.splitlines()[-1] == 'interrupted'
        assert 'Traceback' not in errors
    n_bytes = part.stat().st_size
    again = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert again.returncode == 0, again.stderr
    assert n_bytes >= 16384 and page.requests[1]['Range'] == f'bytes={n_bytes}-'
    assert (site.to / 'photos.zip').read_bytes() == PHOTOS
    assert (site.to / 'photos' / '8.jpg').exists()
    assert all(re.match(r'(unpacking )?photos.zip: \d+/\d+ \[', line)
               for line in again.stderr.splitlines())


# ---- the real table


def test_the_table_against_keras():
    """Addresses and MD5s of the weights are those in the source of the installed tf_keras."""
    package = pathlib.Path(importlib.util.find_spec('tf_keras').origin).parent
    folder = package / 'src' / 'applications'
    files = {'vgg19': 'vgg19', 'vgg16': 'vgg16', 'inception_v3': 'inception_v3',
             'resnet50': 'resnet', 'mobilenet_v2': 'mobilenet_v2'}
    text = {name: (folder / f'{file}.py').read_text().replace('"\n    "', '')
            for name, file in files.items()}
    for encoder, published in text.items():
        weights = catalogue.WEIGHTS[encoder]
        assert weights.name in ENCODERS[encoder].files
        base, _, file = weights.url.rpartition('/')
        assert file == weights.name and f'"{base}/' in published
        assert weights.md5 is None or f'"{weights.md5}"' in published
    assert 'file_hash' not in text['mobilenet_v2']
    resnet = text['resnet50'].split('"resnet50": (')[1].split(')')[0]
    assert resnet.split('"')[3] == catalogue.WEIGHTS['resnet50'].md5  # the second: without the top


def test_every_name_of_the_issue_and_its_reader():
    assert list(catalogue.SOURCES) == ['coco2014', 'coco2017', 'flickr8k-captions', 'karpathy']
    assert list(catalogue.WEIGHTS) == ['vgg19', 'vgg16', 'inception_v3', 'mobilenet_v2',
                                       'resnet50']
    for name, source in catalogue.SOURCES.items():
        words = source.next.format(to='DIR').split()
        options = dict(zip(words[1::2], words[2::2], strict=False))
        assert options['--dataset'] in DATASETS
        for archive in source.files:
            secure = [url.startswith('https://') for url in archive.urls]
            assert all(secure) or name in ('coco2014', 'coco2017', 'flickr8k-captions')
            assert archive.name.endswith('.zip')
