"""The reader of a folder of photos."""

import pytest

from core.common.errors import InputError
from core.datasets import read


def test_every_image_file_by_name(tmp_path):
    for name in ('b.JPG', 'a.webp', 'c.Jpeg', 'd.png', 'e.bmp', 'notes.txt', '._a.jpg', 'jpg',
                 'f.jpg.part'):
        (tmp_path / name).touch()
    (tmp_path / 'album.jpg').mkdir()
    records = read('folder', str(tmp_path))
    assert [r.image_id for r in records] == ['a.webp', 'b.JPG', 'c.Jpeg', 'd.png', 'e.bmp']
    assert all(r.split == 'test' and r.captions == () and r.boxes is None for r in records)
    assert records[0].path == tmp_path / 'a.webp'


def test_nothing_to_read(tmp_path):
    with pytest.raises(InputError, match='holds no image file'):
        read('folder', tmp_path)
    with pytest.raises(InputError, match='is not a directory'):
        read('folder', tmp_path / 'gone')
    with pytest.raises(InputError, match='takes no captions'):
        read('folder', tmp_path, 'captions.json')
