"""`Split`: what training, decoding and evaluation need of the images and captions of one split.

`data_dir.CaptionData` reads stored features, `image_data.ImageData` the images themselves.
"""

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np

from core.common.aliases import Boxes


class Shaped(Protocol):
    """Something of which the shape is known, whether its numbers are or not.

    Attributes:
        shape: of all of it.
    """

    @property
    def shape(self) -> tuple[int, ...]:
        """Sizes of all axes."""


class Batchable(Protocol):
    """What `batches.Batches` needs of its data.

    Attributes:
        captions: (C, T + 1) int32, encoded captions.
        image_idxs: (C,) int32, the image (0 to I - 1) of each caption.
    """

    captions: np.ndarray
    image_idxs: np.ndarray

    def read_batch(self, captions: np.ndarray, images: np.ndarray, epoch: int) -> np.ndarray:
        """Return what a model is fed in training, (N, ...).

        Args:
            captions: (R,) numbers of the batch's captions.
            images: (N,) numbers of its images; R is N, or C times N with the C captions of one
                image in a row.
            epoch: int.
        """


class Split(Batchable, Protocol):
    """Images and captions of one split.

    Attributes:
        stored: whether `read_features` gives features; else pixels, of which a model's encoder
            makes them.
        image_ids: list of I ids. references: list of I lists of raw captions.
        paths: list of I paths of image files, or None.
        boxes: list of I lists of (names, rectangle in fractions of the encoder's input), or None.
        encoder: dict of the EncoderSpec that made the features, or None.
    """

    stored: bool
    image_ids: list[Any]
    references: list[list[str]]
    paths: Any  # of a DATA DIR never None, and neither is `encoder`
    boxes: Boxes | None
    encoder: Any

    @property
    def features(self) -> Shaped:
        """Something of shape (I, L, D)."""

    def __len__(self) -> int:
        """Return the number of images."""

    def read_features(self, images: Sequence[int] | np.ndarray) -> np.ndarray:
        """Return what a model is fed in decoding, (n, ...), of images numbered 0 to I - 1."""
