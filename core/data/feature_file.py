"""`features.h5`: the features of all images, written and read by row.

It is HDF5 for every reader, but is laid out so that it survives a kill at any moment: both datasets are contiguous and
allocated at creation, so HDF5's own structures are written once and an image's features are plain bytes at a known
offset.
"""

import os
import pathlib
from collections.abc import Sequence
from typing import Any

import h5py
import numpy as np

from core.common.aliases import PathLike
from core.common.errors import InputError
from core.common.files import replacing


class FeatureFile:
    """`features.h5`, read and written by row; safe from several threads, as nothing is shared but the descriptor.

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
        try:
            with h5py.File(self.path, 'r') as file:
                features, done = file['features'], file['done']
                self.shape, offsets = features.shape, (features.id.get_offset(), done.id.get_offset())
                if features.dtype != np.float16 or len(self.shape) != 3 or None in offsets:
                    raise KeyError('features')
        except (OSError, KeyError) as error:
            raise InputError(f'{self.path}: not a features file of this program ({error}); '
                             f'delete it and run prepro.py again') from None
        self._features, self._done = offsets
        self._row_bytes = 2 * self.shape[1] * self.shape[2]
        self._descriptor: Any = os.open(self.path, os.O_RDWR if writable else os.O_RDONLY)
        if os.fstat(self._descriptor).st_size < self._features + self.shape[0] * self._row_bytes:
            self.close()
            raise InputError(f'{self.path}: shorter than its {self.shape[0]} images need; copy or make it again')

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
        data = os.pread(self._descriptor, self.shape[0], self._done)
        return np.frombuffer(data, np.uint8) == 1

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
                self._write_at(self._features + int(rows[run[0]]) * self._row_bytes,
                               features[run[0] : run[-1] + 1].data.cast('B'))
            getattr(os, 'fdatasync', os.fsync)(self._descriptor)  # macOS has fsync only
            for run in runs:
                self._write_at(self._done + int(rows[run[0]]), b'\1' * len(run))
        except OSError as error:
            raise InputError(f'{self.path}: cannot write ({error.strerror}); make room and run the same command '
                             f'again, finished images are kept') from None

    def _write_at(self, offset: int, data: Any) -> None:
        while data:
            written = os.pwrite(self._descriptor, data, offset)
            data, offset = data[written:], offset + written

    def read(self, rows: Sequence[int] | np.ndarray) -> np.ndarray:
        """Features of `rows`, any order and repetition, as (n, L, D) float16."""
        features = np.empty((len(rows), *self.shape[1:]), np.float16)
        for row, values in zip(rows, features, strict=True):
            if not 0 <= row < self.shape[0]:
                raise IndexError(f'row {row} of {self.shape[0]}')
            target, offset = memoryview(values).cast('B'), self._features + int(row) * self._row_bytes
            while target:
                data = os.pread(self._descriptor, len(target), offset)
                if not data:
                    raise InputError(f'{self.path}: ends before image {row}; copy or make it again')
                target[: len(data)] = data
                target, offset = target[len(data) :], offset + len(data)
        return features

    def close(self) -> None:
        """Close the descriptor; reading and writing end."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    def __del__(self) -> None:
        if getattr(self, '_descriptor', None) is not None:
            self.close()


class ArrayFeatures:
    """Features that already lie in memory, behind the same `read`: array (images, L, D) of any float type."""

    def __init__(self, array: Any) -> None:
        self.array, self.shape = np.asarray(array), np.shape(array)

    def read(self, rows: Sequence[int] | np.ndarray) -> np.ndarray:
        """(n, L, D) features of `rows`."""
        return self.array[np.asarray(rows, np.intp)]
