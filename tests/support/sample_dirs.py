"""A DATA DIR and a RUN DIR for the tests, made once."""

import atexit
import functools
import pathlib
import shutil
import tempfile

from tests.support import scripts

TINY_RUN = ['dim_hidden=12', 'dim_embed=8', 'batch_size=8', 'n_epochs=1', 'learning_rate=0.01']


@functools.cache
def workplace():
    """A directory that is removed at the end of the tests."""
    made = pathlib.Path(tempfile.mkdtemp(prefix='sat-tests-'))
    atexit.register(shutil.rmtree, made, ignore_errors=True)
    return made


@functools.cache
def data_dir(layer='conv2_2', seed=1):
    """A DATA DIR of drawn scenes with features of a random vgg19. Do not change it."""
    from core import datasets
    from core.data import prepare
    from core.datasets import shapes
    from core.encoders import encoder

    drawn = shapes.draw(workplace() / 'shapes', 8, 3, 2, seed=1, size=32)
    out = workplace() / f'data-{layer}-{seed}'
    spec = encoder.describe('vgg19', layer, 32, 'crop', 'random', seed)
    prepare.prepare(datasets.read('shapes', drawn), spec, out, 'shapes', say=lambda line: None)
    return out


@functools.cache
def run_dir():
    """A RUN DIR trained on `data_dir()` by train.py. Do not change it; `shutil.copytree` it."""
    out = workplace() / 'run'
    done = scripts.run('train.py', data_dir(), '--out', out, *scripts.settings(*TINY_RUN), fresh=True)
    assert done.returncode == 0, done.stderr
    return out
