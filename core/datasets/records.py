"""The record of an image that every dataset reader gives, whatever the published format."""

import dataclasses
import pathlib

SPLITS = ('train', 'dev', 'test')


@dataclasses.dataclass(frozen=True)
class Box:
    """One object: the words that name it and its rectangle in pixels of the image file.

    Attributes:
        names: tuple of str, lower case: the category's name first, then its synonyms.
        x, y: float, left and top edge in pixels.
        width, height: float, in pixels.
    """

    names: tuple[str, ...]
    x: float
    y: float
    width: float
    height: float


@dataclasses.dataclass(frozen=True)
class Record:
    """One image with its captions.

    Attributes:
        image_id: int or str, unique in the dataset (COCO: the integer id; Flickr: the file's name).
        path: pathlib.Path of the image file (not checked to exist).
        captions: tuple of str, as published; empty for images that nobody has described.
        split: 'train', 'dev' or 'test'.
        boxes: tuple of Box, or None where the dataset has none.
        size: (width, height) in pixels of the image that the boxes refer to, or None where unknown.
    """

    image_id: int | str
    path: pathlib.Path
    captions: tuple[str, ...]
    split: str
    boxes: tuple[Box, ...] | None = None
    size: tuple[int, int] | None = None
