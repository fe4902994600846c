"""The programs of README's "From Python", run with fewer epochs and on tiny directories."""

import re
import shutil

import pytest

from tests.support.scripts import ROOT


def programs():
    """Return the Python blocks of the section, in their order."""
    readme = (ROOT / 'README.md').read_text(encoding='utf8')
    section = readme.partition('\n## From Python\n')[2].partition('\n## ')[0]
    return re.findall(r'^```python\n(.*?)^```', section, re.MULTILINE | re.DOTALL)


@pytest.fixture
def place(tmp_path, monkeypatch):
    """Return the working directory of a program."""
    monkeypatch.chdir(tmp_path)
    for name in ('runs', 'data'):
        (tmp_path / name).mkdir()
    return tmp_path


def test_captions_of_photos(place, sample_run, scene_photos, capsys):
    (place / 'runs' / 'flickr8k').symlink_to(sample_run)
    for name, photo in zip(('dog.jpg', 'beach.png'), scene_photos, strict=False):
        shutil.copy(photo, place / name)  # what a file is, its contents tell
    exec(compile(programs()[0], 'README.md', 'exec'), {})
    names = [line.split()[0] for line in capsys.readouterr().out.splitlines()]
    assert names == ['dog.jpg', 'beach.png']


def test_training(place, sample_data, quick_sessions):
    (place / 'data' / 'flickr8k').symlink_to(sample_data)
    program = programs()[1]
    assert program.count('n_epochs=20') == 1
    names = {}
    exec(compile(program.replace('n_epochs=20', 'n_epochs=1'), 'README.md', 'exec'), names)
    assert len(names['captions']) == 3
    assert all(isinstance(caption.text, str) for caption in names['captions'])
    assert list((place / 'runs' / 'mine' / 'checkpoints').glob('step-*.index'))
    assert list((place / 'runs' / 'mine' / 'tensorboard').rglob('events.*'))
