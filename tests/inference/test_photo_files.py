"""Which photos a command line names, and where pictures of them go."""

import io
import sys

import pytest

from core.common.errors import InputError
from core.inference import photo_files


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ('b.JPG', 'a.png', 'notes.txt', 'sub/c.webp', '.hidden/d.png', '.e.png',
                 'odd[1].png'):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b'x')
    return tmp_path


def names(*arguments):
    return [name for name, _ in photo_files.find(arguments)]


def test_files_folders_and_patterns_each_once(folder):
    assert names('.') == ['a.png', 'b.JPG', 'odd[1].png', 'sub/c.webp']
    assert names('sub', '*.png', 'a.png', './a.png') == ['sub/c.webp', 'a.png', 'odd[1].png']
    assert names('**/*.webp') == ['sub/c.webp']
    # a name that is there is no pattern
    assert names('odd[1].png', 'notes.txt') == ['odd[1].png', 'notes.txt']
    assert names('gone.png') == ['gone.png']  # named when it is read; the others go on


def test_nothing_to_caption_is_said(folder):
    (folder / 'empty').mkdir()
    for argument, part in (('empty', 'empty: holds no photo'), ('*.gif', 'no file matches')):
        with pytest.raises(InputError, match=part):
            names(argument)


def test_standard_input_is_one_photo(monkeypatch):
    monkeypatch.setattr(sys, 'stdin', io.TextIOWrapper(io.BytesIO(b'\x89PNG\xff')))
    assert list(photo_files.find(['-', '-'])) == [('standard input', b'\x89PNG\xff')]
    monkeypatch.setattr(sys, 'stdin', io.TextIOWrapper(io.BytesIO(b'')))
    with pytest.raises(InputError, match='empty'):
        names('-')


def targets(out, n_photos=1):
    return photo_files.Targets(out, '.png', n_photos, '--picture')


def test_one_file_or_files_named_after_the_photos(folder):
    assert targets(None).write('a.png', lambda: 1 / 0) is None
    assert targets('one.PNG').write('a.jpg', lambda: b'1').read_bytes() == b'1'
    several = targets('made/deep', 4)
    written = [several.write(name, lambda: b'2').name
               for name in ('x/A.jpg', 'y/a.png', 'b*?.jpg', 'standard input')]
    assert written == ['A.png', 'a-2.png', 'b__.png', 'standard_input.png']
    assert targets('made', 1).write('z.jpg',
                                    lambda: b'3') == folder.relative_to(folder) / 'made' / 'z.png'


@pytest.mark.parametrize(('out', 'n_photos', 'part'), [
    ('one.png', 2, 'one file for 2 photos'), ('one.jpg', 1, r'must end in \.png'),
    ('gone/one.png', 1, 'no folder'), ('notes.txt', 1, r'must end in \.png')])
def test_targets_that_cannot_be_are_refused_before_any_work(folder, out, n_photos, part):
    with pytest.raises(InputError, match=part):
        targets(out, n_photos)
