"""The DATA DIR on disk: written by prepro.py (resumable, atomic), read by index by train.py and evaluate.py.

    DATA/manifest.json      written last: what the directory holds; its presence means that it is complete
    DATA/features.h5        'features' (images, L, D) float16 and 'done' (images,) uint8
    DATA/captions.h5        a group a split: 'captions' (C, max_length + 2) int32, 'image_idxs' (C,) int32
    DATA/annotations.json   a list of images in the order of the features: id, file, split, raw captions, boxes
    DATA/vocabulary.json    words of the training split
    DATA/plan.json          what prepro.py was asked to do: a later run goes on only if it is asked the same

`features.h5` is HDF5 for every reader, but is laid out so that it survives a kill at any moment: both datasets are
contiguous and allocated at creation, so HDF5's own structures are written once and an image's features are plain
bytes at a known offset.
"""

import difflib
import fcntl
import json
import os
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any, TextIO

import h5py
import numpy as np

from core.common.aliases import Boxes, PathLike
from core.common.errors import InputError
from core.common.files import replacing, write_json
from core.data.vocabulary import Vocabulary

FORMAT = 1
FILES = ('manifest.json', 'features.h5', 'captions.h5', 'annotations.json', 'vocabulary.json', 'plan.json')


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


class CaptionData:
    """One split: what training, validation and evaluation read.

    Args:
        features: FeatureFile or ArrayFeatures.
        rows: (I,) int, the row of each image in `features`.
        captions: (C, T + 1) int32, encoded captions.
        image_idxs: (C,) int32, the image (0 to I - 1) of each caption.
        image_ids: list of I ids.
        references: list of I lists of raw captions.
        paths: list of I paths of image files, or None.
        boxes: list of I lists of (names, (x0, y0, x1, y1) in fractions of the network's input), or None.
        encoder: dict of the EncoderSpec that made the features, or None.
    """

    def __init__(self, features: FeatureFile | ArrayFeatures, rows: Sequence[int] | np.ndarray, captions: Any,
                 image_idxs: Any, image_ids: list, references: list[list[str]], paths: list[str] | None = None,
                 boxes: Boxes | None = None, encoder: dict[str, Any] | None = None) -> None:
        self.features, self.rows = features, np.asarray(rows, np.int64)
        self.captions, self.image_idxs = np.asarray(captions, np.int32), np.asarray(image_idxs, np.int32)
        self.image_ids, self.references, self.boxes = image_ids, references, boxes
        self.paths: Any = paths  # of a DATA DIR never None, and neither is `encoder`
        self.encoder: Any = encoder

    def __len__(self) -> int:
        """The number of images."""
        return len(self.rows)

    def read_features(self, images: Sequence[int] | np.ndarray) -> np.ndarray:
        """(n, L, D) features of images numbered 0 to I - 1."""
        return self.features.read(self.rows[np.asarray(images, np.int64)])

    @classmethod
    def from_arrays(cls, data: Mapping[str, Any], idx_to_word: Mapping[int, str] | Sequence[str]) -> 'CaptionData':
        """From the TF1 code's dict: 'features' (I, L, D), 'captions' (C, T + 1), 'image_idxs' (C,).

        References are the captions themselves, written out, unless 'references' holds a list of lists of texts.
        """
        for key in ('features', 'captions', 'image_idxs'):
            if key not in data:
                raise InputError(f"data lacks {key!r}: give 'features' (I, L, D), 'captions' (C, T + 1), 'image_idxs'")
        n_images = len(data['features'])
        references = data.get('references')
        if references is None:
            references = [[] for _ in range(n_images)]
            for caption, image in zip(data['captions'], data['image_idxs'], strict=True):
                words = [idx_to_word[int(index)] for index in caption]
                references[image].append(' '.join(w for w in words if not (w.startswith('<') and w.endswith('>'))))
        return cls(ArrayFeatures(data['features']), np.arange(n_images), data['captions'], data['image_idxs'],
                   list(data.get('image_ids', range(n_images))), references, data.get('file_names'))


class DataDir:
    """A complete DATA DIR.

    Attributes:
        manifest: dict, see `core.data.prepare`.
        vocabulary: Vocabulary of the training split.
        max_length: int, words of a training caption at most.

    Raises:
        InputError: missing, incomplete, or not of this program's format.
    """

    def __init__(self, path: PathLike) -> None:
        self.path = pathlib.Path(path)
        manifest = self.path / 'manifest.json'
        if not self.path.is_dir():
            raise InputError(f'{self.path}: there is no such data directory; make it with prepro.py --out {self.path}')
        if not manifest.exists():
            begun = (self.path / 'plan.json').exists()
            raise InputError(f'{self.path}: ' + (
                'prepro.py has not finished here; run the same prepro.py command again' if begun else
                'not a data directory (no manifest.json); make one with prepro.py'))
        self.manifest = read_json(manifest)
        if not isinstance(self.manifest, dict):
            raise InputError(f'{manifest}: not a manifest of this program; make the data again')
        if self.manifest.get('format') != FORMAT:
            raise InputError(f'{manifest}: format {self.manifest.get("format")!r} is not {FORMAT}; make the data '
                             f'again')
        self.vocabulary = Vocabulary.load(self.path / 'vocabulary.json')
        try:
            self.max_length, self.encoder = self.manifest['max_length'], self.manifest['encoder']
            self.dataset, self.records = self.manifest['dataset'], self.manifest['records_sha256']
            self.manifest['splits'].items()
        except (KeyError, AttributeError) as error:
            raise InputError(f'{manifest}: lacks or has damaged {error}; make the data again') from None
        self._features = FeatureFile(self.path / 'features.h5')
        self._images = read_json(self.path / 'annotations.json')
        if len(self._images) != self._features.shape[0]:
            raise InputError(f'{self.path}: annotations.json has {len(self._images)} images, features.h5 '
                             f'{self._features.shape[0]}; they are not of one making, make the data again')

    @property
    def splits(self) -> list[str]:
        """Names of the splits that have images."""
        return [split for split, counts in self.manifest['splits'].items() if counts['images']]

    def split(self, name: str) -> CaptionData:
        """The CaptionData of a split.

        Raises:
            InputError: the directory has no image of that split.
        """
        if name not in self.splits:
            raise InputError(f'{self.path}: no image of split {name!r} here; there is {", ".join(self.splits)}')
        rows = [row for row, image in enumerate(self._images)
                if image['split'] == name and not image.get('unreadable')]
        images = [self._images[row] for row in rows]
        path = self.path / 'captions.h5'
        try:
            with h5py.File(path, 'r') as file:
                captions, image_idxs = file[name]['captions'][:], file[name]['image_idxs'][:]
        except (OSError, KeyError) as error:
            raise InputError(f'{path}: cannot be read ({error}); it was damaged or copied incompletely') from None
        boxes = None
        if any(image['boxes'] is not None for image in images):
            boxes = [[(tuple(box['names']), tuple(box['box'])) for box in image['boxes'] or ()] for image in images]
        return CaptionData(self._features, rows, captions, image_idxs, [image['id'] for image in images],
                           [image['captions'] for image in images], [image['file'] for image in images], boxes,
                           self.encoder)


def check_run(path: PathLike) -> None:
    """Raises InputError unless `path` is a run; `core.runs.run_dir.Run` looks closer, but imports TensorFlow first."""
    path = pathlib.Path(path)
    if (path / 'config.json').exists():
        return
    if (path / 'manifest.json').exists():
        raise InputError(f'{path}: not a run but a data directory of prepro.py; train.py {path} --out RUN makes a run')
    if not path.exists():
        there = sorted(run.parent.name for run in path.parent.glob('*/config.json')) if path.parent.is_dir() else []
        near = difflib.get_close_matches(path.name, there, 1)
        raise InputError(f'{path}: not a run, there is no such directory' + (
            f'; did you mean {path.parent / near[0]}?' if near else f'; train.py DATA --out {path} makes one'))
    raise InputError(f'{path}: not a run (no config.json); train.py DATA --out RUN makes one')


def read_json(path: PathLike) -> Any:
    """Read a JSON file that this program wrote."""
    try:
        return json.loads(pathlib.Path(path).read_text(encoding='utf8'))
    except (OSError, ValueError) as error:
        raise InputError(f'{path}: cannot be read ({error}); it was damaged or copied incompletely') from None


def write_captions(path: PathLike, splits: Mapping[str, tuple]) -> None:
    """Write `captions.h5` atomically: `splits` is a dict of split -> (captions, image_idxs)."""
    with replacing(path, 'w+b') as temporary, h5py.File(temporary, 'w') as file:
        for split, (captions, image_idxs) in splits.items():
            group = file.create_group(split)
            group.create_dataset('captions', data=np.asarray(captions, np.int32))
            group.create_dataset('image_idxs', data=np.asarray(image_idxs, np.int32))


def lock(directory: PathLike, what: str) -> TextIO:
    """Hold `directory` for this process until the returned file is closed; InputError where another holds it."""
    file = open(pathlib.Path(directory) / '.lock', 'w')  # noqa: SIM115 - held open on purpose
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        file.close()
        raise InputError(f'{directory}: another {what} is at work here; wait for it or stop it') from None
    return file


def remove_leftovers(directory: PathLike) -> None:
    """Remove the temporary files of a writer that was killed; only for the holder of the lock."""
    for path in _leftovers(directory):
        path.unlink()


def _leftovers(directory: PathLike) -> list[pathlib.Path]:
    return [path for name in FILES for path in pathlib.Path(directory).glob(f'.{name}.*')]


def check_plan(directory: PathLike, plan: Mapping[str, Any]) -> None:
    """Check that `directory` is free, or was begun with the same plan; changes nothing.

    Raises:
        InputError: the directory belongs to another plan, or holds something else; names the first difference.
    """
    path = pathlib.Path(directory) / 'plan.json'
    plan = json.loads(json.dumps(plan))
    if path.parent.exists() and not path.parent.is_dir():
        raise InputError(f'{directory}: is a file, not a directory; choose another --out')
    if not path.exists():
        own = {'.lock', *(leftover.name for leftover in _leftovers(directory))}
        strangers = sorted(p.name for p in path.parent.iterdir() if p.name not in own) if path.parent.is_dir() else []
        if strangers:
            raise InputError(f'{directory}: not empty and not made by prepro.py ({strangers[0]} is there); '
                             f'choose another --out')
        return
    there = read_json(path)
    different = [key for key in {**plan, **there} if plan.get(key) != there.get(key)]
    if different:
        key = different[0]
        raise InputError(f'{directory}: made with other options ({key} was {there.get(key)!r}, now '
                         f'{plan.get(key)!r}); choose another --out')


def write_plan(directory: PathLike, plan: Mapping[str, Any]) -> None:
    """Write plan.json, or check that the one there is the same; raises as `check_plan`."""
    check_plan(directory, plan)
    path = pathlib.Path(directory) / 'plan.json'
    if not path.exists():
        write_json(path, plan)
