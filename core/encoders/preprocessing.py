"""Pixels: from an image file to the square of uint8 RGB that an encoder takes.

One function, `load`, serves feature extraction, training and inference, so that the three cannot
see different pictures. What it does is fixed by a `Preprocessing`, which travels with the features.

Every picture is decoded to upright 8-bit RGB first (`photos`). Then one filter makes the square:
Pillow's bilinear, whose support grows with the reduction (so it antialiases).
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from PIL import Image

from core.common.aliases import Rectangle
from core.common.errors import InputError
from core.encoders.photos import Photo, decode

RESIZES = ('crop', 'squash')


@dataclasses.dataclass(frozen=True)
class Preprocessing:
    """How an upright image becomes the encoder's input.

    Attributes:
        size: int, side in pixels of the square input (224 for VGG19).
        resize: 'crop' scales the short side to round(size * 256 / 224) and takes the central size x
            size square, as the paper does (section 4.3: 256 and 224). 'squash' scales both sides to
            `size`, whatever the shape.
    """

    size: int = 224
    resize: str = 'crop'

    def __post_init__(self) -> None:
        if isinstance(self.size, bool) or not isinstance(self.size, int) or self.size < 1:
            raise InputError(f'image size {self.size!r} is not a positive number of pixels')
        if self.resize not in RESIZES:
            raise InputError(f'resize {self.resize!r} is unknown; choose one of: '
                             f'{", ".join(RESIZES)}')

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as a dict ready for JSON."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, fields: Mapping[str, Any]) -> 'Preprocessing':
        """Return the inverse of `to_dict`; raises `InputError` for unknown fields."""
        unknown = sorted(set(fields) - {field.name for field in dataclasses.fields(cls)})
        if unknown:
            raise InputError(f'unknown preprocessing fields: {", ".join(unknown)}')
        return cls(**fields)


def load(photo: Photo, preprocessing: Preprocessing, offset: tuple[float, float] | None = None,
         flip: bool = False) -> np.ndarray:
    """Decode an image and bring it to the size of the network's input.

    Safe to call from many threads at once.

    Args:
        photo: str, path or bytes of an image file, or pixels as `decode` takes.
        preprocessing: `Preprocessing`.
        offset: (x, y) in 0..1 moves the window for augmentation, from the left and upper to the
            right and lower edge of a picture 256/224 as wide and high as the window: with 'crop'
            the central square of the short side, so (.5, .5) is the window that None gives; with
            'squash' the whole picture. None: as `Preprocessing` says.
        flip: mirror the result, left becomes right.

    Returns:
        uint8 array (size, size, 3), RGB, upright.

    Raises:
        UnreadableImage: if the file is missing, empty, truncated or not an image.
    """
    pixels = square(decode(photo), preprocessing, offset)
    return pixels[:, ::-1].copy() if flip else pixels


def square(image: Image.Image, preprocessing: Preprocessing,
           offset: tuple[float, float] | None = None) -> np.ndarray:
    """Bring a picture to the size of the network's input.

    Args:
        image: PIL image of mode 'RGB', upright, as `decode` gives.
        preprocessing, offset: as of `load`.

    Returns:
        uint8 array (size, size, 3), RGB.
    """
    size = preprocessing.size
    # The window is cut inside the resizing: the same as cutting afterwards, but very long images
    # stay cheap.
    window = _window(image.size, preprocessing, offset)
    if image.size != (size, size) or window != (0.0, 0.0, size, size):  # Pillow would copy it
        image = image.resize((size, size), Image.Resampling.BILINEAR, box=window)
    return np.array(image)


def box_to_input(box_xywh: Sequence[float], image_size: tuple[float, float],
                 preprocessing: Preprocessing) -> Rectangle:
    """Return where a rectangle of the image lies in the network's input.

    Args:
        box_xywh: (left, top, width, height) in pixels of the upright image.
        image_size: (width, height) of the upright image in pixels.
        preprocessing: `Preprocessing`.

    Returns:
        (x0, y0, x1, y1) floats in fractions 0..1 of the input's side, clipped to it; a box that the
        crop removes altogether has no area (x0 == x1 or y0 == y1).
    """
    left, top, right, bottom = _window(image_size, preprocessing)
    x, y, width, height = box_xywh

    def fraction(value: float, low: float, high: float) -> float:
        return min(max((value - low) / (high - low), 0.0), 1.0)

    return (
        fraction(x, left, right),
        fraction(y, top, bottom),
        fraction(x + width, left, right),
        fraction(y + height, top, bottom),
    )


def _window(image_size: tuple[float, float], preprocessing: Preprocessing,
            offset: tuple[float, float] | None = None) -> tuple[float, float, float, float]:
    """Return the part of the upright image that becomes the input: (left, top, right, bottom).

    `offset` as in `load`.
    """
    width, height = image_size
    share = preprocessing.size / round(preprocessing.size * 256 / 224)
    if preprocessing.resize == 'squash':
        if offset is None:
            return 0.0, 0.0, float(width), float(height)
        left, top = (place * (1 - share) * length
                     for place, length in zip(offset, image_size, strict=True))
        return left, top, min(left + share * width, width), min(top + share * height, height)
    short = min(width, height)
    side = short * share
    if offset is None:
        left, top = (width - side) / 2, (height - side) / 2
    else:
        left, top = ((length - short) / 2 + place * (short - side)
                     for place, length in zip(offset, image_size, strict=True))
    # Rounding must not carry the window over the edge.
    return left, top, min(left + side, width), min(top + side, height)


