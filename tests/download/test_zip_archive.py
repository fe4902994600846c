"""Zip archives: whole, interrupted, damaged and malicious."""

import contextlib
import os
import stat
import struct
import zipfile

import pytest

from core.common.errors import InputError
from core.download import zip_archive
from tests.support import http_server

FILES = [('photos/', b''), ('photos/a.jpg', b'first' * 9001), ('photos/b.jpg', b'second'),
         ('list.txt', b''), ('deep/er/c.txt', b'third')]
CONTENTS = {name: len(content) for name, content in FILES if not name.endswith('/')}


def written(folder, content):
    path = folder / 'x.zip'
    path.write_bytes(content)
    return path


def tree(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob('*')
            if path.is_file()}


@pytest.fixture
def to(tmp_path):
    (tmp_path / 'to').mkdir()
    return tmp_path / 'to'


def entry(name, mode=None, **fields):
    info = zipfile.ZipInfo(name)
    if mode is not None:
        info.create_system, info.external_attr = 3, mode << 16
    for field, value in fields.items():
        setattr(info, field, value)
    return info


@pytest.mark.parametrize(
    'method', [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_unpack(tmp_path, to, method):
    path = written(tmp_path, http_server.archive(FILES, method))
    assert zip_archive.unpack(path, to) == CONTENTS
    assert tree(to) == {name: content for name, content in FILES if name in CONTENTS}
    assert zip_archive.missing(path, to) is None


def test_what_is_there_is_kept_and_the_rest_completed(tmp_path, to, capsys):
    path = written(tmp_path, http_server.archive(FILES))
    zip_archive.unpack(path, to)
    kept = to / 'photos' / 'a.jpg'
    before = kept.stat().st_ino
    (to / 'photos' / 'b.jpg').unlink()
    left = to / f'{zip_archive.ASIDE}of-a-run-that-was-killed' / 'photos'
    left.mkdir(parents=True)
    (left / 'b.jpg').write_bytes(b'half')
    capsys.readouterr()
    assert zip_archive.unpack(path, to) == CONTENTS
    assert kept.stat().st_ino == before and (to / 'photos' / 'b.jpg').read_bytes() == b'second'
    assert tree(to) == {name: content for name, content in FILES if name in CONTENTS}
    assert not list(to.glob(f'{zip_archive.ASIDE}*'))
    said = capsys.readouterr().err.splitlines()
    assert said[0].startswith('unpacking x.zip: 3/4')
    assert said[-1].startswith('unpacking x.zip: 4/4')


@pytest.mark.parametrize('there', [b'SECOND', b'longer than before'])
def test_a_file_of_another_content_is_not_replaced(tmp_path, to, there):
    (to / 'photos').mkdir()
    (to / 'photos' / 'b.jpg').write_bytes(there)
    with pytest.raises(
        InputError,
        match=r'b.jpg: is there with another content than in x.zip, and is not replaced'):
        zip_archive.unpack(written(tmp_path, http_server.archive(FILES)), to)
    assert tree(to) == {'photos/b.jpg': there}


def test_a_file_where_a_folder_must_be(tmp_path, to):
    (to / 'photos').write_text('notes')
    with pytest.raises(InputError, match='photos: is in the way of a folder of x.zip'):
        zip_archive.unpack(written(tmp_path, http_server.archive(FILES)), to)
    assert tree(to) == {'photos': b'notes'}


SYMLINK, DEVICE, PIPE = stat.S_IFLNK | 0o777, stat.S_IFCHR | 0o666, stat.S_IFIFO | 0o666
BAD = {
    'above': (entry('../evil'), 'leads elsewhere'),
    'above, inside': (entry('photos/../../evil'), 'leads elsewhere'),
    'here': (entry('./evil'), 'leads elsewhere'),
    'empty part': (entry('photos//evil'), 'leads elsewhere'),
    'absolute': (entry('/tmp/evil'), 'leads elsewhere'),
    'drive': (entry('C:/evil'), 'leads elsewhere'),
    'backslash': (entry('..\\evil'), 'leads elsewhere'),
    'symbolic link': (entry('link', SYMLINK), 'is a link or a device'),
    'device': (entry('null', DEVICE), 'is a link or a device'),
    'pipe': (entry('pipe', PIPE), 'is a link or a device'),
}


@pytest.mark.parametrize('case', BAD)
def test_malicious_entries(tmp_path, to, case):
    info, why = BAD[case]
    path = written(tmp_path, http_server.archive([*FILES, (info, b'../../outside')]))
    with pytest.raises(InputError,
                       match=f'in the archive {why}; nothing was unpacked, do not trust') as error:
        zip_archive.unpack(path, to)
    assert '\n' not in str(error.value)
    assert tree(tmp_path) == {'x.zip': path.read_bytes()} and not list(to.iterdir())


def test_files_of_this_program_are_not_replaced_by_an_archive(tmp_path, to):
    (to / 'downloads.json').write_text('{}')
    with pytest.raises(InputError, match='downloads.json: is there with another content'):
        zip_archive.unpack(
            written(tmp_path, http_server.archive([('downloads.json', b'{"evil": {}}')])), to)
    assert tree(to) == {'downloads.json': b'{}'}


@pytest.mark.filterwarnings('ignore:Duplicate name')
@pytest.mark.parametrize(('files', 'error'), [
    ([('a', b'x'), ('a/b', b'y')], 'to/a/b: cannot be written'),
    ([('a/b', b'y'), ('a', b'x')], 'to/a: cannot be written'),
    ([('a', b'first'), ('a', b'second')], None)])
def test_an_archive_in_conflict_with_itself_harms_only_its_own_files(tmp_path, to, files, error):
    path = written(tmp_path, http_server.archive(files))
    with pytest.raises(InputError, match=error) if error else contextlib.nullcontext():
        zip_archive.unpack(path, to)
    assert {path.name for path in tmp_path.iterdir()} - {'.x.zip.contents.json'} == {'to', 'x.zip'}
    assert set(tree(to)) <= {'a', 'a/b'}


def test_encrypted_and_unknown_methods(tmp_path, to):
    whole = http_server.archive([('list.txt', b'abc')])
    place = whole.index(b'PK\1\2')
    for offset, value, why in ((8, 1, 'is encrypted'), (8, 64, 'strong encryption'),
                               (10, 97, 'not a whole zip archive .*compression')):
        path = written(tmp_path, whole[: place + offset] + struct.pack('<H', value)
                       + whole[place + offset + 2 :])
        with pytest.raises(InputError, match=why):
            zip_archive.unpack(path, to)
    assert not list(to.iterdir())


def test_not_through_links(tmp_path, to):
    (tmp_path / 'outside').mkdir()
    (to / 'photos').symlink_to(tmp_path / 'outside')
    with pytest.raises(
        InputError, match='a.jpg: a link is in the way, and x.zip is not unpacked through links'):
        zip_archive.unpack(written(tmp_path, http_server.archive(FILES)), to)
    assert not list((tmp_path / 'outside').iterdir())
    (to / 'photos').unlink()
    (to / 'list.txt').symlink_to(tmp_path / 'victim')  # leads nowhere yet
    with pytest.raises(InputError, match='list.txt: a link is in the way'):
        zip_archive.unpack(tmp_path / 'x.zip', to)
    assert not (tmp_path / 'victim').exists()


def test_a_link_in_the_place_of_what_a_kill_left(tmp_path, to):
    (tmp_path / 'outside').mkdir()
    (tmp_path / 'outside' / 'victim').write_text('precious')
    (to / f'{zip_archive.ASIDE}x').symlink_to(tmp_path / 'outside')
    zip_archive.unpack(written(tmp_path, http_server.archive(FILES)), to)
    assert tree(tmp_path / 'outside') == {'victim': b'precious'}


def test_damaged_content_appears_under_no_name(tmp_path, to):
    content = bytearray(http_server.archive(
        [('first', b'1'), ('second', os.urandom(5000)), ('third', b'3')], zipfile.ZIP_STORED))
    content[2000] ^= 1
    path = written(tmp_path, bytes(content))
    with pytest.raises(InputError, match='x.zip: not a whole zip archive .*second.*; delete it'):
        zip_archive.unpack(path, to)
    assert tree(to) == {'first': b'1'}


@pytest.mark.parametrize('content', [b'', b'<html>gone</html>', http_server.archive(FILES)[:-30],
                                     http_server.archive(FILES)[40:]])
def test_no_archive(tmp_path, to, content):
    with pytest.raises(InputError, match='not a whole zip archive'):
        zip_archive.unpack(written(tmp_path, content), to)
    assert not list(to.rglob('*.jpg'))


@pytest.mark.parametrize('name', [b'\xff\xfe', b'\0\0'])
def test_names_that_are_none(tmp_path, to, name):
    """Not UTF-8 though so marked; empty, as `zipfile` ends a name at its first zero."""
    content = http_server.archive([('\u00e4', b'1')])
    path = written(tmp_path, content.replace('\u00e4'.encode(), name))
    with pytest.raises(InputError, match='not a whole zip archive'):
        zip_archive.unpack(path, to)
    assert not list(to.iterdir())


def announced(content, size):
    """The archive with another uncompressed size in its directory and in the entry's header."""
    place = content.index(b'PK\1\2') + 24
    content = content[:place] + struct.pack('<I', size) + content[place + 4 :]
    return content[:22] + struct.pack('<I', size) + content[26:]


@pytest.mark.parametrize('size', [5, 2_000_000])
def test_a_directory_that_lies_about_sizes(tmp_path, to, size):
    """A bomb writes no more than it announces."""
    path = written(tmp_path, announced(http_server.archive([('bomb', bytes(1_000_000))]), size))
    with pytest.raises(InputError, match='not a whole zip archive'):
        zip_archive.unpack(path, to)
    assert not list(to.iterdir())


def test_a_bomb_that_tells_its_size(tmp_path, to):
    path = written(
        tmp_path, http_server.archive([(f'bomb{number}', bytes(1_000_000)) for number in range(4)]))
    assert path.stat().st_size < 10_000
    with pytest.raises(InputError, match='unpacking x.zip needs 4 MB, 3.9 MB are free; make room'):
        zip_archive.unpack(path, to, free=3_900_000)
    assert not list(to.iterdir())
    (to / 'bomb0').write_bytes(bytes(1_000_000))  # needs no room any more
    assert len(zip_archive.unpack(path, to, free=3_900_000)) == 4


def test_what_macos_adds_is_left_out(tmp_path, to):
    path = written(tmp_path, http_server.archive([('__MACOSX/._a', b'junk'), ('a', b'x')]))
    assert zip_archive.unpack(path, to) == {'a': 1}


def test_missing(tmp_path, to):
    path = written(tmp_path, http_server.archive(FILES))
    assert zip_archive.missing(path, to) == '.x.zip.contents.json'
    zip_archive.unpack(path, to)
    assert zip_archive.missing(path, to) is None
    (to / 'photos' / 'b.jpg').write_bytes(b'shorter'[:3])
    assert zip_archive.missing(path, to) == 'photos/b.jpg'
    (to / 'photos' / 'a.jpg').unlink()
    assert zip_archive.missing(path, to) == 'photos/a.jpg'
