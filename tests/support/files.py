"""What lies in a folder, to compare it with what lies there later."""

import contextlib
import hashlib
import json
import pathlib

import h5py


def snapshot(*directories):
    """Every file below `directories` with a hash of its contents."""
    return {str(path): hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else ''
            for directory in directories for path in sorted(pathlib.Path(directory).rglob('*'))}


def data_contents(directory):
    """Contents of every file of a DATA DIR but for what measures speed and time."""
    contents = {}
    for path in sorted(pathlib.Path(directory).iterdir()):
        if path.name == 'captions.h5':
            with h5py.File(path) as file:
                contents[path.name] = {
                    f'{split}/{name}': file[split][name][:].tolist() for split in file for name in file[split]}
        elif path.name == 'manifest.json':
            contents[path.name] = json.loads(path.read_text())
            del contents[path.name]['images_per_second']
        else:
            contents[path.name] = path.read_bytes()
    return contents


@contextlib.contextmanager
def edited_json(path):
    """The value in a JSON file, which is written back with what the block has changed in it."""
    value = json.loads(path.read_text())
    yield value
    path.write_text(json.dumps(value))
