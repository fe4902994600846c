"""Files are replaced whole or not at all."""

import json
import os
import stat

import pytest

from core.common.files import replacing, write_json


def test_the_old_contents_stand_until_the_block_ends(tmp_path):
    path = tmp_path / 'file.txt'
    path.write_text('old')
    with replacing(path) as file:
        file.write('new')
        file.flush()
        assert path.read_text() == 'old'
    assert path.read_text() == 'new'
    assert os.listdir(tmp_path) == ['file.txt']


@pytest.mark.parametrize('error', [ValueError, KeyboardInterrupt])
def test_an_exception_keeps_the_old_contents_and_leaves_nothing(tmp_path, error):
    path = tmp_path / 'file.txt'
    path.write_text('old')
    with pytest.raises(error), replacing(path) as file:
        file.write('half')
        raise error
    assert path.read_text() == 'old'
    assert os.listdir(tmp_path) == ['file.txt']


def test_others_may_read_it(tmp_path):
    with replacing(tmp_path / 'file', 'wb') as file:
        file.write(b'\r\n\x00')
    assert (tmp_path / 'file').read_bytes() == b'\r\n\x00'
    assert stat.S_IMODE((tmp_path / 'file').stat().st_mode) == 0o644


def test_json_keeps_text_as_it_is(tmp_path):
    value = {'caption': 'ein Hündchen \u2028 「犬」 \ud83d\n', 'n': [1, 2.5, None]}  # half an emoji
    write_json(tmp_path / 'a.json', value)
    data = (tmp_path / 'a.json').read_bytes()
    assert json.loads(data) == value
    assert data.isascii() and data.endswith(b'}\n')


def test_json_that_cannot_be_written_leaves_the_old_file(tmp_path):
    write_json(tmp_path / 'a.json', {'a': 1})
    with pytest.raises(TypeError):
        write_json(tmp_path / 'a.json', {'a': object()})
    assert json.loads((tmp_path / 'a.json').read_text()) == {'a': 1}
    assert os.listdir(tmp_path) == ['a.json']
