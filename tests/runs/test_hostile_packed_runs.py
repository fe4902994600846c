"""Archives that are no packed run or mean harm: refused in one line, nothing is left of them."""

import gc
import stat
import struct
import tempfile
import zipfile

import pytest

from core.common.errors import InputError
from core.runs.run_dir import Run
from tests.support import http_server


def rewritten(packed, place, change):
    """Write an archive as `change` makes it, a function of the list of [ZipInfo, bytes]."""
    files = []
    with zipfile.ZipFile(packed) as archive:
        for info in archive.infolist():
            files.append([info, archive.read(info)])
    change(files)
    place.write_bytes(http_server.archive(files, zipfile.ZIP_STORED))
    return place


def entry(name, mode=None):
    info = zipfile.ZipInfo(name)
    if mode is not None:
        info.create_system, info.external_attr = 3, mode << 16
    return info


def adding(name, mode=None, content=b'../../outside'):
    return lambda files: files.append([entry(name, mode), content])


def without(name):
    return lambda files: files.remove(next(each for each in files if each[0].filename == name))


def linked(files):
    files[0][0].external_attr = (stat.S_IFLNK | 0o777) << 16


def compressed(files):
    files[0][0].compress_type = zipfile.ZIP_DEFLATED


def edited(name, text, replacement):
    def change(files):
        file = next(each for each in files if each[0].filename == name)
        changed = file[1].replace(text.encode(), replacement.encode())
        assert changed != file[1]
        file[1] = changed

    return change


def no_index(files):
    files[:] = [each for each in files if not each[0].filename.endswith('.index')]


BAD = {
    'above': (adding('../evil'), "'../evil' in the archive leads elsewhere"),
    'above, inside': (adding('best/../../evil'), 'leads elsewhere'),
    'absolute': (adding('/tmp/evil'), 'leads elsewhere'),
    'backslash': (adding('..\\evil'), 'leads elsewhere'),
    'a link': (adding('link', stat.S_IFLNK | 0o777), 'is a link or a device'),
    'a device': (adding('null', stat.S_IFCHR | 0o666), 'is a link or a device'),
    'a link by a known name': (linked, 'is a link or a device'),
    'another file': (adding('run.py'), "holds 'run.py', which is no part of a packed run"),
    'a pickle': (adding('best/step-1.pkl'), 'no part of a packed run'),
    'compressed': (compressed, 'CARD.md is compressed'),
    'twice': (adding('CARD.md'), 'holds a file twice'),
    'two models': (adding('best/step-999.index'), 'does not name the model that is inside'),
    'no config': (without('config.json'), 'not a packed run, it lacks config.json'),
    'no vocabulary': (without('vocabulary.json'), 'lacks vocabulary.json'),
    'no index': (no_index, r'lacks best/step-\d+.index'),
    'a path for a step': (edited('best/best.json', '"step": ', '"step": "../../x", "was": '),
                          'does not name the model'),
    'weights elsewhere': (edited('config.json', '"random"', '"/etc/passwd"'),
                          'config.json names files of a machine'),
    'weights above': (edited('config.json', '"random"', '"../net.h5"'),
                      'config.json names files of a machine'),
    'data elsewhere': (edited('config.json', '"path": null', '"path": "/home/somebody"'),
                       'config.json names files of a machine'),
    'no JSON': (edited('config.json', '{', '('), 'x.zip/config.json: is not JSON'),
    'no words': (edited('vocabulary.json', '<START>', '<BEGIN>'), 'x.zip/vocabulary.json: its'),
    'no options': (edited('config.json', '"dim_hidden"', '"dim_hiden"'), 'dim_hiden'),
}


@pytest.fixture
def opened(tmp_path, monkeypatch):
    """Return a function that opens `x.zip` in vain, and sees that nothing is left of it."""
    (tmp_path / 'tmp').mkdir()
    monkeypatch.setattr(tempfile, 'tempdir', str(tmp_path / 'tmp'))

    def check(path, message):
        with pytest.raises(InputError, match=message) as caught:
            Run(path)
        assert '\n' not in str(caught.value) and str(path) in str(caught.value)
        assert str(tmp_path / 'tmp') not in str(caught.value)
        del caught
        gc.collect()
        assert sorted(each.name for each in tmp_path.rglob('*')) == ['tmp', 'x.zip']

    return check


@pytest.mark.filterwarnings('ignore:Duplicate name')
@pytest.mark.parametrize('case', BAD)
def test_hostile_and_incomplete_archives(packed, tmp_path, opened, case):
    change, message = BAD[case]
    opened(rewritten(packed, tmp_path / 'x.zip', change), message)


def test_a_bomb_by_its_announced_size(packed, tmp_path, opened):
    """Stored entries that announce more than the archive has, with sizes that agree."""
    content = packed.read_bytes()
    place = content.index(b'PK\1\2')
    bomb = content[:place + 20] + struct.pack('<II', 1 << 31, 1 << 31) + content[place + 28:]
    (tmp_path / 'x.zip').write_bytes(bomb)
    opened(tmp_path / 'x.zip', 'announces more bytes than it has; nothing was unpacked')


def test_truncated_and_damaged_archives(packed, tmp_path, opened):
    content = packed.read_bytes()
    name = b'best/step-'
    inside = content.index(name) + 200  # of the first file of the model
    for damaged in (b'', b'<html>gone</html>', content[:-30], content[:len(content) // 2],
                    content[300:], content[:inside] + bytes([content[inside] ^ 1])
                    + content[inside + 1:]):
        (tmp_path / 'x.zip').write_bytes(damaged)
        opened(tmp_path / 'x.zip', 'x.zip: not a whole zip archive')
