"""`Split`: what training, decoding and evaluation need of the images and captions of one split.

`data_dir.CaptionData` reads stored features, `image_data.ImageData` the images themselves.
"""

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np

from core.common.aliases import Boxes, ImageId


class Shaped(Protocol):
    """An array whose shape is known, whether its numbers are or not.

    Attributes:
        shape: of all of it.
    """

    @property
    def shape(self) -> tuple[int, ...]:
        """The sizes of all axes."""


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
        image_ids: list of I ids.
        references: list of I lists of raw captions.
        tokens: str, how they are cut into words, a name in `core.data.vocabulary.TOKENS`.
        boxes: list of I lists of (names, rectangle in fractions of the encoder's input), or None.
    """

    stored: bool
    image_ids: list[ImageId]
    references: list[list[str]]
    tokens: str
    boxes: Boxes | None

    @property
    def paths(self) -> list[str] | None:
        """The paths of the I image files; None where not known, which is never of a DATA DIR."""

    @property
    def encoder(self) -> dict[str, Any] | None:
        """The EncoderSpec that makes the features, as a dict; None as of `paths`."""

    @property
    def features(self) -> Shaped:
        """The features, of shape (I, L, D), as far as they are there to be read."""

    def __len__(self) -> int:
        """Return the number of images."""

    def read_features(self, images: Sequence[int] | np.ndarray) -> np.ndarray:
        """Return what a model is fed in decoding, (n, ...), of images numbered 0 to I - 1."""
