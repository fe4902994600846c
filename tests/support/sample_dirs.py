"""Drawn scenes, DATA DIRs and a RUN DIR, made once in a session.

However many processes share the tests. Tests get them from the fixtures of tests/conftest.py.
Nobody changes them: tests that change one make a copy, and the end of the session finds out.
"""

import contextlib
import fcntl
import json
import shutil

from tests.support import scripts
from tests.support.files import snapshot

TINY_RUN = ['dim_hidden=12', 'dim_embed=8', 'batch_size=8', 'n_epochs=1', 'learning_rate=0.01']


class SampleDirs:
    """The directories below `folder`, which all processes of the session name alike."""

    def __init__(self, folder):
        self.folder, self._given = folder, {}
        folder.mkdir(exist_ok=True)

    def scenes(self):
        """Return 13 drawn scenes of 32x32 pixels (8 train, 3 dev, 2 test).

        As prepro.py --draw leaves them.
        """
        from core.datasets import shapes

        return self._once('scenes', lambda out: shapes.draw(out, 8, 3, 2, seed=1, size=32))

    def data(self, layer='conv2_2', seed=1):
        """Return a DATA DIR of the scenes with features of a random vgg19."""
        from core import datasets
        from core.data import prepare
        from core.encoders import encoder

        def make(out):
            spec = encoder.describe('vgg19', layer, 32, 'crop', 'random', seed)
            prepare.prepare(datasets.read('shapes', scenes), spec, out, 'shapes',
                            say=lambda line: None)

        scenes = self.scenes()
        return self._once(f'data-{layer}-{seed}', make)

    def run(self, name='run', *assignments):
        """Return a RUN DIR that train.py made of `data()` with TINY_RUN and further options.

        `name` tells them apart.
        """
        def make(out):
            options = scripts.settings(*TINY_RUN, *assignments)
            done = scripts.run('train.py', data, '--out', out, *options)
            assert done.returncode == 0, done.stderr

        data = self.data()
        return self._once(name, make)

    def _once(self, name, make):
        """Return the directory `name`, made by the first process that asks; the others wait."""
        place = self.folder / name
        if name not in self._given:
            with locked(self.folder / f'{name}.lock'):
                # written last: without it the directory may be half made
                done = self.folder / f'{name}.json'
                if not done.exists():
                    shutil.rmtree(place, ignore_errors=True)
                    make(place)
                    done.write_text(json.dumps(snapshot(place)))
                self._given[name] = json.loads(done.read_text())
        return place

    def assert_unchanged(self):
        """Assert that no directory that this process was given has changed."""
        for name, contents in self._given.items():
            place = self.folder / name
            assert snapshot(place) == contents, f'a test has changed {place}'


@contextlib.contextmanager
def locked(path):
    """Let only one process at a time into this block."""
    with open(path, 'w') as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
