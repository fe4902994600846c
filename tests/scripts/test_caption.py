"""caption.py as a user runs it."""

import json
import shutil
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image, ImageSequence

from core.viewer.attention_pictures import GLIDE_MS, GLIDES, WORD_MS
from tests.support import scripts, tolerances
from tests.support.scripts import ROOT

PHOTO = str(ROOT / 'docs' / 'attention.png')


@pytest.fixture(scope='module')
def photos(scene_photos):
    return scene_photos


def test_photos_of_every_kind_and_one_that_is_none(sample_run, photos, tmp_path):
    """Unreadable photos are named, the others go on, with status 1.

    Results are on stdout and nothing else is.
    """
    for path in photos[:3]:
        shutil.copy(path, tmp_path)
    photos = [tmp_path / path.name for path in photos[:3]]
    done = subprocess.run([sys.executable, ROOT / 'caption.py', sample_run, photos[1],
                           tmp_path / 'gone.jpg', tmp_path, '-', '--json', '--n-best', '2',
                           '--picture', tmp_path / 'pictures', '--gif', tmp_path / 'gifs'],
                          input=photos[0].read_bytes(), capture_output=True, timeout=300,
                          cwd=tmp_path)
    errors = done.stderr.decode()
    assert done.returncode == 1, errors
    records = [json.loads(line) for line in done.stdout.decode().splitlines()]
    others = [str(photos[0]), str(photos[2])]
    assert [record['image'] for record in records] == [str(photos[1]), str(tmp_path / 'gone.jpg'),
                                                       *others, 'standard input']
    assert [len(record.get('captions', ())) for record in records] == [2, 0, *[2] * len(others), 2]
    # One photo in two batches, the first of one photo alone.
    twice = (records[-1]['captions'], records[others.index(str(photos[0])) + 2]['captions'])
    for one, other in zip(*twice, strict=True):
        tolerances.assert_same_record(one, other)
    said = errors.splitlines()
    assert len(said) == 2 and 'gone.jpg: No such file' in said[0], errors
    assert f'1 of {len(records)} photos' in said[1]
    assert len(list((tmp_path / 'pictures').iterdir())) == len(records) - 1
    for path in (tmp_path / 'pictures').iterdir():
        assert_picture(path)
    lengths = [len(record['captions'][0]['words']) for record in records if 'captions' in record]
    assert sorted(map(milliseconds, (tmp_path / 'gifs').iterdir())) == sorted(
        WORD_MS * (1 + length) + GLIDE_MS * GLIDES * length for length in lengths)


def assert_picture(path):
    with Image.open(path) as picture:
        assert picture.format == 'PNG' and picture.mode == 'RGB' and min(picture.size) > 200
        assert np.asarray(picture).std() > 10


def milliseconds(path):
    """Return the durations of a GIF: the photo, then each word's way and itself."""
    with Image.open(path) as animation:
        assert animation.format == 'GIF' and min(animation.size) > 100
        frames = [(frame.info['duration'], np.asarray(frame.convert('RGB'), int)) for frame in
                  ImageSequence.Iterator(animation)]
    assert np.abs(frames[0][1] - frames[-1][1]).max() > 20
    return sum(duration for duration, _ in frames)


def test_one_photo_for_people(sample_run, photos, tmp_path):
    picture = tmp_path / 'a.png'
    done = scripts.run('caption.py', sample_run, photos[0], '--picture', picture, '--set',
                       'max_len=4')
    assert (done.returncode, done.stderr) == (0, '')
    name, _, caption = done.stdout.rstrip('\n').partition(': ')
    assert name == str(photos[0]) and 1 <= len(caption.split()) <= 4 and '\n' not in caption
    assert_picture(picture)


@pytest.mark.parametrize(('arguments', 'parts'), [
    ([], ['name photos']),
    (['x.png', '--serve'], ['--serve takes its photos from the browser']),
    (['x.png', '--n-best', '0'], ['--n-best']),
    ([''], ['an empty name']),
    (['x.png', '--seed', '2147483648'], ['--seed must be 0 to']),
    (['x.png', 'y.png'], ['no photo x.png, y.png']),
    ([PHOTO, '--beam-width', '0'], ['decoding: beam_width must be at least 1']),
    (['--serve', '--port', '70000'], ['--port']),
    ([PHOTO, str(ROOT / 'docs' / 'growth.png'), '--picture', 'a.png'], ['one file for 2 photos']),
    (['*.jpx'], ['no file matches']),
    ([PHOTO, '--set', 'n_epochs=3'], ["unknown option 'n_epochs'"]),
    ([PHOTO, '--n-best', '3', '--beam-width', '2'], ['--n-best 3 needs a beam']),
    ([PHOTO, '--weights', 'gone.h5'], ['gone.h5']),
])
def test_mistakes_are_one_line(sample_run, arguments, parts, monkeypatch, capsys):
    from core.commands import caption
    from core.common import terminal

    monkeypatch.setattr(sys, 'argv', ['caption.py', str(sample_run), *arguments])
    capsys.readouterr()  # what making the run said
    with pytest.raises(SystemExit) as stopped:
        terminal.run(caption.main)
    said = capsys.readouterr()
    assert stopped.value.code == 2 and said.out == '' and len(said.err.splitlines()) == 1
    for part in parts:
        assert part in said.err
