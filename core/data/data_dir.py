"""The DATA DIR on disk: written by prepro.py (resumable, atomic), read by index.

    DATA/manifest.json      written last: what the directory holds; where it is, all is complete
    DATA/features.h5        'features' (images, L, D) float16 and 'done' (images,) uint8
    DATA/captions.h5        a group a split: 'captions' (C, max_length + 2), 'image_idxs' (C,) int32
    DATA/annotations.json   images in the order of the features: id, file, split, captions, boxes
    DATA/vocabulary.json    words of the training split
    DATA/plan.json          what prepro.py was asked to do: a later run must be asked the same
"""

import json
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import h5py
import numpy as np
from numpy.typing import ArrayLike

from core.common.aliases import Boxes, ImageId, PathLike
from core.common.errors import InputError
from core.common.files import read_json, replacing, write_json
from core.data.feature_file import ArrayFeatures, FeatureFile
from core.data.vocabulary import TOKENS, Vocabulary

FORMAT = 1
FILES = ('manifest.json', 'features.h5', 'captions.h5', 'annotations.json', 'vocabulary.json',
         'plan.json')


class CaptionData:
    """A `Split` of stored features.

    Args:
        features: FeatureFile or ArrayFeatures.
        rows: (I,) int, the row of each image in `features`.
        captions: (C, T + 1) int32, encoded captions.
        image_idxs: (C,) int32, the image (0 to I - 1) of each caption.
        image_ids: list of I ids.
        references: list of I lists of raw captions.
        paths: list of I paths of image files, or None.
        boxes: list of I lists of (names, (x0, y0, x1, y1) in fractions of the network's input), or
            None.
        encoder: dict of the EncoderSpec that made the features, or None.
        tokens: str, how captions are cut into words, a name in `core.data.vocabulary.TOKENS`.
    """

    stored = True

    def __init__(self, features: FeatureFile | ArrayFeatures, rows: Sequence[int] | np.ndarray,
                 captions: ArrayLike, image_idxs: ArrayLike, image_ids: list[ImageId],
                 references: list[list[str]], paths: list[str] | None = None,
                 boxes: Boxes | None = None,
                 encoder: dict[str, Any] | None = None, tokens: str = 'words') -> None:
        self.features, self.rows = features, np.asarray(rows, np.int64)
        self.captions = np.asarray(captions, np.int32)
        self.image_idxs = np.asarray(image_idxs, np.int32)
        self.image_ids, self.references, self.boxes = image_ids, references, boxes
        self.paths, self.encoder, self.tokens = paths, encoder, tokens

    def __len__(self) -> int:
        """Return the number of images."""
        return len(self.rows)

    def read_features(self, images: Sequence[int] | np.ndarray) -> np.ndarray:
        """Return the features (n, L, D) of images numbered 0 to I - 1."""
        return self.features.read(self.rows[np.asarray(images, np.int64)])

    def read_batch(self, captions: np.ndarray, images: np.ndarray, epoch: int) -> np.ndarray:
        """Return the features (N, L, D) of a training batch, see `split.Batchable`."""
        return self.read_features(images)

    @classmethod
    def from_arrays(cls, data: Mapping[str, Any],
                    idx_to_word: Mapping[int, str] | Sequence[str]) -> 'CaptionData':
        """Return the CaptionData of the TF1 code's dict.

        It holds 'features' (I, L, D), 'captions' (C, T + 1) and 'image_idxs' (C,). References
        are the captions themselves, written out, unless 'references' holds a list of lists of
        texts.
        """
        for key in ('features', 'captions', 'image_idxs'):
            if key not in data:
                raise InputError(f"data lacks {key!r}: give 'features' (I, L, D), 'captions' (C, T "
                                 "+ 1), 'image_idxs'")
        n_images = len(data['features'])
        references = data.get('references')
        if references is None:
            references = [[] for _ in range(n_images)]
            for caption, image in zip(data['captions'], data['image_idxs'], strict=True):
                words = [idx_to_word[int(index)] for index in caption]
                references[image].append(
                    ' '.join(w for w in words if not (w.startswith('<') and w.endswith('>'))))
        return cls(ArrayFeatures(data['features']), np.arange(n_images), data['captions'],
                   data['image_idxs'], list(data.get('image_ids', range(n_images))), references,
                   data.get('file_names'))


class DataDir:
    """A complete DATA DIR.

    Attributes:
        manifest: dict, see `core.data.prepare`.
        vocabulary: Vocabulary of the training split.
        max_length: int, words of a training caption at most.
        tokens: str, how captions are cut into words, a name in `core.data.vocabulary.TOKENS`.

    Raises:
        InputError: missing, incomplete, or not of this program's format.
    """

    def __init__(self, path: PathLike) -> None:
        self.path = pathlib.Path(path)
        manifest = self.path / 'manifest.json'
        if not self.path.is_dir():
            raise InputError(f'{self.path}: there is no such data directory; make it with '
                             f'prepro.py --out {self.path}')
        if not manifest.exists():
            has_plan = (self.path / 'plan.json').exists()
            raise InputError(
                f'{self.path}: '
                + ('prepro.py has not finished here; run the same prepro.py command again'
                   if has_plan
                   else 'not a data directory (no manifest.json); make one with prepro.py'))
        self.manifest = read_json(manifest)
        if not isinstance(self.manifest, dict):
            raise InputError(f'{manifest}: not a manifest of this program; make the data again')
        if self.manifest.get('format') != FORMAT:
            raise InputError(f'{manifest}: format {self.manifest.get("format")!r} is not {FORMAT}; '
                             'make the data again')
        self.vocabulary = Vocabulary.load(self.path / 'vocabulary.json')
        try:
            self.max_length, self.encoder = self.manifest['max_length'], self.manifest['encoder']
            self.dataset, self.records = self.manifest['dataset'], self.manifest['records_sha256']
            self.tokens = tokens_of(self.manifest)
            self.manifest['splits'].items()
        except (KeyError, AttributeError) as error:
            raise InputError(
                f'{manifest}: lacks or has damaged {error}; make the data again') from None
        if self.tokens not in [*TOKENS]:
            raise InputError(f'{manifest}: has captions cut in an unknown way, {self.tokens!r}; '
                             'make the data again')
        self._features = FeatureFile(self.path / 'features.h5')
        self._images = read_json(self.path / 'annotations.json')
        if len(self._images) != self._features.shape[0]:
            raise InputError(f'{self.path}: annotations.json has {len(self._images)} images, '
                             f'features.h5 {self._features.shape[0]}; they are not of one making, '
                             'make the data again')

    @property
    def splits(self) -> list[str]:
        """The names of the splits that have images."""
        return [split for split, counts in self.manifest['splits'].items() if counts['images']]

    def split(self, name: str) -> CaptionData:
        """Return the CaptionData of a split.

        Raises:
            InputError: the directory has no image of that split.
        """
        if name not in self.splits:
            raise InputError(f'{self.path}: no image of split {name!r} here; there is '
                             f'{", ".join(self.splits)}')
        rows = [row for row, image in enumerate(self._images)
                if image['split'] == name and not image.get('unreadable')]
        images = [self._images[row] for row in rows]
        path = self.path / 'captions.h5'
        try:
            with h5py.File(path, 'r') as file:
                captions, image_idxs = file[name]['captions'][:], file[name]['image_idxs'][:]
        except (OSError, KeyError) as error:
            raise InputError(f'{path}: cannot be read ({error}); it was damaged or copied '
                             'incompletely') from None
        boxes = None
        if any(image['boxes'] is not None for image in images):
            boxes = [[(tuple(box['names']), tuple(box['box'])) for box in image['boxes'] or ()]
                     for image in images]
        return CaptionData(self._features, rows, captions, image_idxs,
                           [image['id'] for image in images],
                           [image['captions'] for image in images],
                           [image['file'] for image in images], boxes, self.encoder, self.tokens)


def tokens_of(entries: Mapping[str, Any]) -> str:
    """Return how captions are cut, of a manifest, a plan or the entry data of a run.

    Those made before there was a choice do not say.
    """
    return entries.get('tokens', 'words')


def write_captions(path: PathLike, splits: Mapping[str, tuple]) -> None:
    """Write `captions.h5` atomically: `splits` is a dict of split -> (captions, image_idxs)."""
    with replacing(path, 'w+b') as temporary, h5py.File(temporary, 'w') as file:
        for split, (captions, image_idxs) in splits.items():
            group = file.create_group(split)
            group.create_dataset('captions', data=np.asarray(captions, np.int32))
            group.create_dataset('image_idxs', data=np.asarray(image_idxs, np.int32))


def remove_leftovers(directory: PathLike) -> None:
    """Remove the temporary files of a writer that was killed; only for the holder of the lock."""
    for path in _leftovers(directory):
        path.unlink()


def _leftovers(directory: PathLike) -> list[pathlib.Path]:
    return [path for name in FILES for path in pathlib.Path(directory).glob(f'.{name}.*')]


def check_plan(directory: PathLike, plan: Mapping[str, Any]) -> None:
    """Check that `directory` is free, or was begun with the same plan; changes nothing.

    Raises:
        InputError: the directory belongs to another plan, or holds something else; names the first
            difference.
    """
    path = pathlib.Path(directory) / 'plan.json'
    plan = json.loads(json.dumps(plan))
    if path.parent.exists() and not path.parent.is_dir():
        raise InputError(f'{directory}: is a file, not a directory; choose another --out')
    if not path.exists():
        own = {'.lock', *(leftover.name for leftover in _leftovers(directory))}
        strangers = (sorted(p.name for p in path.parent.iterdir() if p.name not in own)
                     if path.parent.is_dir() else [])
        if strangers:
            raise InputError(f'{directory}: not empty and not made by prepro.py ({strangers[0]} is '
                             'there); choose another --out')
        return
    earlier = read_json(path)
    plan, earlier = ({**entries, 'tokens': tokens_of(entries)} for entries in (plan, earlier))
    different = [key for key in {**plan, **earlier} if plan.get(key) != earlier.get(key)]
    if different:
        key = different[0]
        raise InputError(f'{directory}: made with other options ({key} was {earlier.get(key)!r}, '
                         f'now {plan.get(key)!r}); choose another --out')


def write_plan(directory: PathLike, plan: Mapping[str, Any]) -> None:
    """Write plan.json, or check that the one there is the same; raises as `check_plan`."""
    check_plan(directory, plan)
    path = pathlib.Path(directory) / 'plan.json'
    if not path.exists():
        write_json(path, plan)
