"""What all tests share: real material, a graph for each test that wants one, directories."""

import os
import pathlib
import shutil

import pytest

from tests.support import java_log
from tests.support.sample_dirs import SampleDirs
from tests.support.scripts import ROOT

SHARED = pathlib.Path(os.environ.get('SAT_SHARED', ROOT.parent / 'shared'))


@pytest.fixture
def shared():
    """Return the folder of real photos and weights; skip the test if it is missing."""
    if not (SHARED / 'data').is_dir():
        pytest.skip(f'needs the real photos and weights in {SHARED} (set SAT_SHARED to name '
                    'another folder)')
    return SHARED


@pytest.fixture
def graph():
    """Yield a fresh graph, the default one during the test."""
    from core.runtime.backend import tf

    with tf.Graph().as_default() as fresh:
        yield fresh


# ---- directories that are made once a session; tests that change one make a copy

@pytest.fixture(scope='session')
def sample_dirs(tmp_path_factory):
    """Make the directories below, and others of their kind: `sample_dirs.data('conv1_2')`."""
    folder = tmp_path_factory.getbasetemp()
    if 'PYTEST_XDIST_WORKER' in os.environ:
        folder = folder.parent  # the workers' own folders lie in it
    directories = SampleDirs(folder / 'samples')
    yield directories
    directories.assert_unchanged()


@pytest.fixture(scope='session')
def scenes(sample_dirs):
    """Return a drawn dataset: see SampleDirs.scenes."""
    return sample_dirs.scenes()


@pytest.fixture(scope='session')
def scene_photos(scenes):
    """Return the files of its 13 images, of all splits, in the order of their names."""
    return sorted((scenes / 'images').rglob('*.png'))


@pytest.fixture(scope='session')
def sample_data(sample_dirs):
    """Return a DATA DIR of those scenes."""
    return sample_dirs.data()


@pytest.fixture(scope='session')
def sample_run(sample_dirs):
    """Return a RUN DIR that train.py made of that."""
    return sample_dirs.run()


@pytest.fixture
def run_copy(sample_run, tmp_path):
    """Return a copy of `sample_run`, `tmp_path / 'run'`, for a test to change."""
    return pathlib.Path(shutil.copytree(sample_run, tmp_path / 'run'))


@pytest.fixture
def data_copy(sample_data, tmp_path):
    """Return a copy of `sample_data`, `tmp_path / 'data'`, for a test to change."""
    return pathlib.Path(shutil.copytree(sample_data, tmp_path / 'data'))


# ---- what takes long and is not what is tested

@pytest.fixture
def quick_meteor(tmp_path_factory, monkeypatch):
    """Replace METEOR, here and in scripts, by one that finds 0.5 for every sentence at once."""
    java_log.meteor_stand_in(tmp_path_factory.mktemp('java'), monkeypatch)


@pytest.fixture
def quick_sessions(monkeypatch):
    """Run graphs as they are built in this process; scripts do so anyhow."""
    from tests.support import quick_sessions

    quick_sessions.install(monkeypatch)
