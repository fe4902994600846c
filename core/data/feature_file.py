"""`features.h5`: the features of all images, written and read by row.

It is laid out so that it survives a kill at any moment: both datasets are contiguous and allocated
at creation, so HDF5's own structures are written once, and an image's features are then plain bytes
inside the file.
"""

import os
import pathlib
import re
from collections.abc import Sequence

import h5py
import numpy as np
from numpy.typing import ArrayLike

from core.common.aliases import PathLike
from core.common.errors import InputError, first_line
from core.common.files import replacing


class FeatureFile:
    """`features.h5`, read and written by row; reading is safe from several threads.

    Args:
        path: of the file, which must exist (`create` makes it).

    Attributes:
        shape: (images, L, D).

    Raises:
        InputError: missing, not HDF5, not of this layout, or shorter than it says.
    """

    def __init__(self, path: PathLike) -> None:
        self.path = pathlib.Path(path)
        try:
            # Not kept open: HDF5 would not let this process write to what it has open for reading.
            with h5py.File(self.path, 'r', locking=False) as file:
                features, done = file['features'], file['done']
                self.shape, offsets = features.shape, (features.id.get_offset(),
                                                       done.id.get_offset())
                if features.dtype != np.float16 or len(self.shape) != 3 or None in offsets:
                    raise KeyError('features')
            self._features = np.memmap(self.path, np.float16, 'r', offsets[0], self.shape)
            self._done = np.memmap(self.path, np.uint8, 'r', offsets[1], self.shape[:1])
        except (OSError, KeyError, ValueError) as error:
            raise InputError(
                f'{self.path}: not a features file of this program, or cut off ({error}); delete '
                'it and run prepro.py again, or copy it again') from None

    @staticmethod
    def create(path: PathLike, shape: tuple[int, int, int]) -> None:
        """Make the file for `shape` = (images, L, D) features, none of them done, atomically."""
        with replacing(path, 'w+b') as temporary, h5py.File(temporary, 'w') as file:
            for name, dims, kind in ((b'features', shape, np.dtype('<f2')),
                                     (b'done', shape[:1], np.dtype('u1'))):
                plist = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
                plist.set_layout(h5py.h5d.CONTIGUOUS)
                plist.set_alloc_time(h5py.h5d.ALLOC_TIME_EARLY)
                plist.set_obj_track_times(False)  # the same features are the same bytes
                if name == b'features':  # zeros now would write the whole file twice
                    plist.set_fill_time(h5py.h5d.FILL_TIME_NEVER)
                h5py.h5d.create(file.id, name, h5py.h5t.py_create(kind),
                                h5py.h5s.create_simple(dims), plist)

    def done(self) -> np.ndarray:
        """Return (images,) bool: which rows are written."""
        return np.asarray(self._done) == 1

    def write(self, rows: Sequence[int] | np.ndarray, features: np.ndarray) -> None:
        """Write features (n, L, D), any float type, at `rows`.

        Each is marked done only once it is on the disk.

        Raises:
            ValueError: another shape.
            InputError: numbers that float16 cannot hold, or the disk is full.
        """
        features = np.asarray(features)
        if features.shape != (len(rows), *self.shape[1:]):
            raise ValueError(f'features of shape {features.shape} for {len(rows)} rows of '
                             f'{self.shape[1:]}')
        with np.errstate(over='ignore'):
            features = np.ascontiguousarray(features, np.float16)
        # All bits of the exponent are set in infinities and NaN; integers are compared far faster
        # than float16.
        if features.size and (features.view(np.uint16) & 0x7FFF).max() >= 0x7C00:
            raise InputError(f'{self.path}: the encoder gives numbers that are not finite or '
                             'beyond float16 (65504); check its weights, or choose another layer')
        # Neighbouring rows in one call.
        runs = (np.split(np.arange(len(rows)), np.flatnonzero(np.diff(rows) != 1) + 1) if len(rows)
                else [])
        try:
            with self._open_for_writing() as file:
                for run in runs:
                    first = int(rows[run[0]])
                    file['features'][first : first + len(run)] = features[run[0] : run[-1] + 1]
                self._sync(file)
                for run in runs:
                    first = int(rows[run[0]])
                    file['done'][first : first + len(run)] = 1
                self._sync(file)
        except (OSError, RuntimeError) as error:
            # HDF5 raises either, the system's number in its text
            number = re.search(r'errno = (\d+)', str(error))
            why = os.strerror(int(number[1])) if number else first_line(error)
            raise InputError(f'{self.path}: cannot write ({why}); make room and run the same '
                             'command again, finished images are kept') from None

    def _open_for_writing(self) -> h5py.File:
        """Open the file without HDF5's own buffer.

        What that keeps back on a full disk fails at the file's end.
        """
        access = h5py.h5p.create(h5py.h5p.FILE_ACCESS)
        access.set_fclose_degree(h5py.h5f.CLOSE_STRONG)
        access.set_file_locking(False, True)
        access.set_sieve_buf_size(0)
        return h5py.File(h5py.h5f.open(os.fsencode(self.path), h5py.h5f.ACC_RDWR, access))

    def _sync(self, file: h5py.File) -> None:
        """Bring what was written to the disk."""
        file.flush()
        descriptor = os.open(self.path, os.O_RDONLY)
        try:
            getattr(os, 'fdatasync', os.fsync)(descriptor)  # macOS has fsync only
        finally:
            os.close(descriptor)

    def read(self, rows: Sequence[int] | np.ndarray) -> np.ndarray:
        """Return features of `rows`, any order and repetition, as (n, L, D) float16."""
        rows = np.asarray(rows, np.intp)
        for row in rows[(rows < 0) | (rows >= self.shape[0])]:
            raise IndexError(f'row {row} of {self.shape[0]}')
        return np.asarray(self._features[rows])


class ArrayFeatures:
    """Features that lie in memory, (images, L, D) of any float type, behind the same `read`."""

    def __init__(self, array: ArrayLike) -> None:
        self.array, self.shape = np.asarray(array), np.shape(array)

    def read(self, rows: Sequence[int] | np.ndarray) -> np.ndarray:
        """Return the features (n, L, D) of `rows`."""
        return self.array[np.asarray(rows, np.intp)]
