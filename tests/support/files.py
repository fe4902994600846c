"""What lies in a folder, to compare it with what lies there later."""

import hashlib
import pathlib


def snapshot(*directories):
    """Every file below `directories` with a hash of its contents."""
    return {str(path): hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else ''
            for directory in directories for path in sorted(pathlib.Path(directory).rglob('*'))}
