"""`features.h5`: the features of all images, written and read by row.

It is laid out so that it survives a kill at any moment: both datasets are contiguous and allocated at creation, so
HDF5's own structures are written once, and an image's features are then plain bytes inside the file.
"""

import os
import pathlib
import re
from collections.abc import Sequence
from typing import Any

import h5py
import numpy as np

from core.common.aliases import PathLike
from core.common.errors import InputError, first_line
from core.common.files import replacing


class FeatureFile:
    """`features.h5`, read and written by row; safe from several threads, as HDF5 lets one in at a time.

    Args:
        path: of the file, which must exist (`create` makes it).
        writable: open for writing.

    Attributes:
        shape: (images, L, D).

    Raises:
        InputError: missing, not HDF5, not of this layout, or shorter than it says.
    """

    def __init__(self, path: PathLike, writable: bool = False) -> None:
        self.path = pathlib.Path(path)
        self._file: Any = None
        try:
            # Nobody is locked out: what prepro.py writes may be looked at, and its own lock keeps a second one away.
            self._file = h5py.File(self.path, 'r+' if writable else 'r', locking=False)
            self._features, self._done = self._file['features'], self._file['done']
            self.shape = self._features.shape
            if self._features.dtype != np.float16 or len(self.shape) != 3 or self._features.chunks:
                raise KeyError('features')
        except (OSError, KeyError) as error:
            self.close()
            raise InputError(f'{self.path}: not a features file of this program, or cut off ({error}); delete it and '
                             f'run prepro.py again, or copy it again') from None
        self._space = self._features.id.get_space()
        self._row_space = h5py.h5s.create_simple((1, *self.shape[1:]))

    @staticmethod
    def create(path: PathLike, shape: tuple[int, int, int]) -> None:
        """Make the file for `shape` = (images, L, D) features, none of them done, atomically."""
        with replacing(path, 'w+b') as temporary, h5py.File(temporary, 'w') as file:
            for name, dims, kind in ((b'features', shape, np.dtype('<f2')), (b'done', shape[:1], np.dtype('u1'))):
                plist = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
                plist.set_layout(h5py.h5d.CONTIGUOUS)
                plist.set_alloc_time(h5py.h5d.ALLOC_TIME_EARLY)
                plist.set_obj_track_times(False)  # the same features are the same bytes
                if name == b'features':  # zeros now would write the whole file twice
                    plist.set_fill_time(h5py.h5d.FILL_TIME_NEVER)
                h5py.h5d.create(file.id, name, h5py.h5t.py_create(kind), h5py.h5s.create_simple(dims), plist)

    def done(self) -> np.ndarray:
        """(images,) bool: which rows are written."""
        return self._done[:] == 1

    def write(self, rows: Sequence[int] | np.ndarray, features: np.ndarray) -> None:
        """Write features (n, L, D), any float type, at `rows`; each is marked done only once it is on the disk.

        Raises:
            ValueError: another shape.
            InputError: numbers that float16 cannot hold, or the disk is full.
        """
        features = np.asarray(features)
        if features.shape != (len(rows), *self.shape[1:]):
            raise ValueError(f'features of shape {features.shape} for {len(rows)} rows of {self.shape[1:]}')
        with np.errstate(over='ignore'):
            features = np.ascontiguousarray(features, np.float16)
        # All bits of the exponent are set in infinities and NaN; integers are compared far faster than float16.
        if features.size and (features.view(np.uint16) & 0x7FFF).max() >= 0x7C00:
            raise InputError(f'{self.path}: the encoder gives numbers that are not finite or beyond float16 (65504); '
                             f'check its weights, or choose another layer')
        # Neighbouring rows in one call.
        runs = np.split(np.arange(len(rows)), np.flatnonzero(np.diff(rows) != 1) + 1) if len(rows) else []
        try:
            for run in runs:
                first = int(rows[run[0]])
                self._features[first : first + len(run)] = features[run[0] : run[-1] + 1]
            self._sync()
            for run in runs:
                first = int(rows[run[0]])
                self._done[first : first + len(run)] = 1
            self._sync()
        except (OSError, RuntimeError) as error:  # HDF5 raises either, the system's number in its text
            number = re.search(r'errno = (\d+)', str(error))
            why = os.strerror(int(number[1])) if number else first_line(error)
            raise InputError(f'{self.path}: cannot write ({why}); make room and run the same command again, finished '
                             f'images are kept') from None

    def _sync(self) -> None:
        """Bring what was written to the disk."""
        self._file.flush()
        descriptor = os.open(self.path, os.O_RDONLY)
        try:
            getattr(os, 'fdatasync', os.fsync)(descriptor)  # macOS has fsync only
        finally:
            os.close(descriptor)

    def read(self, rows: Sequence[int] | np.ndarray) -> np.ndarray:
        """Features of `rows`, any order and repetition, as (n, L, D) float16."""
        features = np.empty((len(rows), *self.shape[1:]), np.float16)
        space = self._space.copy()  # h5py's own indexing takes three times as long for a row
        for row, values in zip(rows, features, strict=True):
            if not 0 <= row < self.shape[0]:
                raise IndexError(f'row {row} of {self.shape[0]}')
            space.select_hyperslab((int(row), 0, 0), (1, *self.shape[1:]))
            try:
                self._features.id.read(self._row_space, space, values)
            except OSError as error:
                raise InputError(f'{self.path}: image {row} cannot be read ({first_line(error)}); copy or make it '
                                 f'again') from None
        return features

    def close(self) -> None:
        """End reading and writing."""
        if self._file is not None:
            self._file.close()
            self._file = None

    def __del__(self) -> None:
        if getattr(self, '_file', None) is not None:
            self.close()


class ArrayFeatures:
    """Features that already lie in memory, behind the same `read`: array (images, L, D) of any float type."""

    def __init__(self, array: Any) -> None:
        self.array, self.shape = np.asarray(array), np.shape(array)

    def read(self, rows: Sequence[int] | np.ndarray) -> np.ndarray:
        """(n, L, D) features of `rows`."""
        return self.array[np.asarray(rows, np.intp)]
