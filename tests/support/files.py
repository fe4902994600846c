"""What lies in a folder, to compare it with what lies there later."""

import contextlib
import hashlib
import json
import pathlib

import h5py
import numpy as np

from tests.support.tolerances import assert_same_features


def snapshot(*directories):
    """Return every file below `directories` with a hash of its contents."""
    return {str(path): hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else ''
            for directory in directories for path in sorted(pathlib.Path(directory).rglob('*'))}


def data_contents(directory):
    """Return the contents of all files of a DATA DIR but for what measures speed and time."""
    contents = {}
    for path in sorted(pathlib.Path(directory).iterdir()):
        if path.name == 'captions.h5':
            with h5py.File(path) as file:
                contents[path.name] = {f'{split}/{name}': file[split][name][:].tolist()
                                       for split in file for name in file[split]}
        elif path.name == 'manifest.json':
            contents[path.name] = json.loads(path.read_text())
            del contents[path.name]['images_per_second']
        else:
            contents[path.name] = path.read_bytes()
    return contents


def assert_same_data(first, second, n_terms=9 * 128):
    """Assert that two DATA DIRs are of the same photos, encoded in other batches.

    Features are equal but for rounding, all else is equal.

    n_terms: most that one channel of the encoder sums, of 3 x 3 places.
    """
    contents, features = [], []
    for directory in (first, second):
        contents.append(data_contents(directory))
        contents[-1]['features.h5'] = None
        with h5py.File(pathlib.Path(directory) / 'features.h5') as file:
            contents[-1]['done'] = file['done'][:].tolist()
            features.append(file['features'][:])
    assert contents[0] == contents[1]
    assert features[0].dtype == features[1].dtype == np.float16
    assert_same_features(*features, n_terms)


@contextlib.contextmanager
def edited_json(path):
    """Give the value in a JSON file; what the block changes in it is written back."""
    value = json.loads(path.read_text())
    yield value
    path.write_text(json.dumps(value))
