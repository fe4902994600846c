"""Fine-tuning of the encoder: pictures instead of stored features go into the training graph.

    spec = run.encoder()
    data = ImageData(data_dir.split('train'), spec, Augmentation(seed, captions, word_to_idx))
    model = make_finetuned(options, word_to_idx, spec, max_length, first='conv5_1')

`ImageData` has the interface of `data_dir.CaptionData`, with pixels where that has features, and
`make_finetuned` gives a CaptionGenerator that is fed them (`model.inputs`), so batches, training
and decoding are those of stored features. (The paper's results are without fine-tuning, section
4.3.)
"""

import collections
import concurrent.futures
import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from core.common.errors import InputError
from core.data.data_dir import CaptionData
from core.encoders.preprocessing import load

if TYPE_CHECKING:
    from core.encoders.augmentation import Augmentation
    from core.encoders.encoder import EncoderSpec

_Shaped = collections.namedtuple('_Shaped', 'shape')


class ImageData:
    """A `Split` whose images are read from their files: pixels in the place of features.

    Args:
        data: CaptionData that knows its `paths`.
        spec: EncoderSpec of the encoder in the graph; it decides preprocessing and grid, not the
            data's own.
        augmentation: Augmentation, used by `read_batch` alone; None: every picture as prepro.py saw
            it.

    Attributes:
        features: its `shape` (I, L, D) is that of what the encoder will give.
        captions, image_idxs, image_ids, references, tokens, paths: as of the data.
        encoder: dict of `spec`.
        boxes: as of the data; None where the data's own preprocessing shows another part of the
            photos than the encoder's: the boxes would lie elsewhere.

    Raises:
        InputError: image files are gone; says how many and names one.
    """

    stored = False

    def __init__(self, data: 'CaptionData', spec: 'EncoderSpec',
                 augmentation: 'Augmentation | None' = None) -> None:
        self.spec, self.augmentation = spec, augmentation
        self.captions, self.image_idxs = data.captions, data.image_idxs
        self.image_ids, self.references = data.image_ids, data.references
        self.tokens = data.tokens
        self.paths, self.encoder = _checked(data.paths), spec.to_dict()
        same = data.encoder is not None and (
            (data.encoder['resize'], data.encoder['size']) == (spec.resize, spec.size))
        self.boxes = data.boxes if same else None
        self.features = _Shaped((len(data), spec.grid[0] * spec.grid[1], spec.dim))
        self._pool = concurrent.futures.ThreadPoolExecutor(os.cpu_count() or 1, 'decode')

    def __len__(self) -> int:
        """Return the number of images."""
        return len(self.image_ids)

    def read_features(self, images: Sequence[int] | np.ndarray) -> np.ndarray:
        """Return the pixels (n, size, size, 3) uint8 of images numbered 0 to I - 1, as they are."""
        return self._load([(image, {}) for image in images])

    def read_batch(self, captions: np.ndarray, images: np.ndarray, epoch: int) -> np.ndarray:
        """Return the pixels (N, size, size, 3) uint8 of a training batch, augmented.

        Args:
            captions: (R,) numbers of the batch's captions.
            images: (N,) numbers of its images; R is N, or C times N with the C captions of one
                image in a row.
            epoch: int.
        """
        if self.augmentation is None:
            return self.read_features(images)
        served = np.reshape(captions, (len(images), -1))
        return self._load([(image, self.augmentation.draw(numbers, epoch))
                           for image, numbers in zip(images, served, strict=True)])

    def _load(self, items: Sequence[tuple[int, dict[str, Any]]]) -> np.ndarray:
        """Return the pixels of (image, options of `load`), read by several threads."""
        preprocessing = self.spec.preprocessing
        pictures = self._pool.map(lambda item: load(self.paths[item[0]], preprocessing, **item[1]),
                                  items)
        if not items:
            return np.empty((0, self.spec.size, self.spec.size, 3), np.uint8)
        return np.stack(list(pictures))


def _checked(paths: list[str] | None) -> list[str]:
    """Return the paths; raise InputError if there are none, or files are gone."""
    if paths is None:
        raise InputError('fine-tuning reads the image files, but these data name none')
    missing = [path for path in paths if not os.path.isfile(path)]
    if missing:
        raise InputError(f'{len(missing)} of {len(paths)} image files are gone, for example '
                         f'{missing[0]}; a fine-tuned encoder reads them: put them back, or make '
                         'the data again with prepro.py')
    return paths
