"""Photos: from an image file to upright 8-bit RGB at its own size.

- greyscale of 1, 8 and 16 bits is scaled to 0..255 and repeated in three channels;
- CMYK (in JPEG with Adobe's inversion), YCbCr, LAB and palettes are converted by Pillow without
  colour profiles;
- transparent pixels are composited on white, as a browser's page would show them;
- the EXIF orientation is applied;
- of an animation the first frame is taken.

JPEG's draft mode, which decodes at reduced size with other pixels, is not used.
"""

import io
import os
import re
import threading
import warnings
from collections.abc import Callable
from typing import TypeVar

import numpy as np
from PIL import (
    BmpImagePlugin,
    ExifTags,
    GifImagePlugin,
    Image,
    ImageFile,
    JpegImagePlugin,
    PngImagePlugin,
    PpmImagePlugin,
    TiffImagePlugin,
    WebPImagePlugin,
)

from core.common.aliases import PathLike
from core.common.errors import InputError

# What is taken for an image: a path, a file's bytes, an array, or a PIL image.
Buffer = bytes | bytearray | memoryview
Photo = PathLike | Buffer | np.ndarray | Image.Image
T = TypeVar('T')
# Importing a plugin registers its format; Image.init() would import all of Pillow's, among them
# some that start other programs.
_PLUGINS = (
    JpegImagePlugin.JpegImageFile,  # also MPO, which many phones call JPEG
    PngImagePlugin.PngImageFile,
    BmpImagePlugin.BmpImageFile,
    WebPImagePlugin.WebPImageFile,
    GifImagePlugin.GifImageFile,
    TiffImagePlugin.TiffImageFile,
    PpmImagePlugin.PpmImageFile,
)
FORMATS = tuple(plugin.format for plugin in _PLUGINS)
_TRANSPOSE = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


class UnreadableImage(InputError):
    """An image file that cannot be decoded whole; the message names the file and the reason.

    Attributes:
        source: the file's name, or 'N bytes in memory'.
        reason: str, why.
    """

    def __init__(self, source: str, reason: str) -> None:
        self.source, self.reason = source, reason
        super().__init__(f'cannot read image {source}: {reason}')


def decode(photo: Photo) -> Image.Image:
    """Decode an image at its own size.

    Args:
        photo: str, path or bytes of an image file; or pixels: an array, uint8 (h, w, 3) RGB, (h, w,
            4) RGBA or (h, w) grey, or a PIL image.

    Returns:
        PIL image of mode 'RGB', upright.

    Raises:
        UnreadableImage: no image, a damaged one, or a file that cannot be read.
        ValueError: an array of another shape or type.
    """
    if isinstance(photo, np.ndarray):
        if (photo.dtype != np.uint8 or photo.ndim not in (2, 3)
            or photo.shape[2:] not in ((), (3,), (4,))):
            raise ValueError('pixels must be uint8 of shape (h, w, 3), (h, w, 4) or (h, w), not '
                             f'{photo.dtype} {photo.shape}')
        if not photo.size:
            raise ValueError(f'an array {photo.shape} has no pixels')
        return _to_rgb(Image.fromarray(photo))
    if isinstance(photo, Image.Image):
        return _upright(photo, _to_rgb)
    return _read(photo, lambda image: _upright(image, _to_rgb))


def pixel_count(path_or_bytes: PathLike | Buffer) -> int:
    """Return width times height, from the header alone.

    Raises:
        UnreadableImage: if the header cannot be read.
    """
    return _read(path_or_bytes, lambda image: image.width * image.height)


def _read(path_or_bytes: PathLike | Buffer, use: Callable[[Image.Image], T]) -> T:
    """Open an image, apply `use` to it, and turn whatever goes wrong into `UnreadableImage`."""
    if isinstance(path_or_bytes, (bytes, bytearray, memoryview)):
        data = bytes(path_or_bytes)
        source = f'{len(data)} bytes in memory'
    else:
        source = os.fspath(path_or_bytes)
        try:
            with open(source, 'rb') as file:
                data = file.read()
        except OSError as error:
            raise UnreadableImage(source, error.strerror or 'the file cannot be read') from error
        except MemoryError as error:
            raise UnreadableImage(source, 'the file is larger than the memory') from error
    if not data:
        raise UnreadableImage(source, 'the file is empty')
    if ImageFile.LOAD_TRUNCATED_IMAGES:
        raise InputError('PIL.ImageFile.LOAD_TRUNCATED_IMAGES is True in this process: '
                         'half-decoded pictures would go unnoticed; set it to False')
    if data.startswith(b'\xff\xd8') and not _jpeg_ends(data):
        raise UnreadableImage(source, 'the JPEG is truncated (no end of image)')
    _silence_pillow()
    try:
        with Image.open(io.BytesIO(data), formats=FORMATS) as image:
            return use(image)
    except Image.UnidentifiedImageError as error:
        formats = ', '.join(sorted(FORMATS))
        raise UnreadableImage(source, f'not an image ({formats} are understood)') from error
    except Image.DecompressionBombError as error:
        raise UnreadableImage(
            source, 'far more pixels than an image may have (decompression bomb)') from error
    except Exception as error:  # Pillow's decoders raise almost any type on damaged files
        raise UnreadableImage(source, str(error) or type(error).__name__) from error


def _jpeg_ends(data: bytes) -> bool:
    """Say whether the JPEG's scans are followed by its end: Pillow accepts a tail of zeros."""
    at = 2
    while at + 4 <= len(data) and data[at] == 0xFF:
        marker = data[at + 1]
        # start of scan: in the coded data that follows FF never stands before D9
        if marker == 0xDA:
            return data.find(b'\xff\xd9', at) >= 0
        at += 1 if marker == 0xFF else 2 + int.from_bytes(data[at + 2 : at + 4], 'big')
    return True  # odd headers are Pillow's to judge


_PILLOW = ('ignore', None, Warning, re.compile('PIL'), 0)
_lock = threading.Lock()


def _silence_pillow() -> None:
    """Ignore Pillow's warnings about odd metadata; what matters is raised instead.

    `warnings.catch_warnings` would be tidier, but it is not safe between threads.
    """
    if _PILLOW not in warnings.filters:
        with _lock:
            warnings.filterwarnings('ignore', module='PIL')


def _orientation(image: Image.Image) -> int:
    try:
        value = image.getexif().get(ExifTags.Base.Orientation, 1)
    except Exception:  # damaged metadata says nothing about the pixels
        return 1
    return value if value in _TRANSPOSE else 1


def _upright(image: Image.Image, convert: Callable[[Image.Image], Image.Image]) -> Image.Image:
    image.load()
    orientation = _orientation(image)
    image = convert(image)
    if orientation != 1:
        image = image.transpose(_TRANSPOSE[orientation])
        image.info = {}  # or it would be turned again where it is decoded again
    return image


def _to_rgb(image: Image.Image) -> Image.Image:
    """Return a loaded image of any mode as RGB; itself where it is that."""
    if image.mode.startswith('I') or image.mode == 'F':
        grey = np.asarray(image).astype(np.float64)
        if image.mode == 'F' or grey.min() < 0 or grey.max() > 65535:
            raise ValueError('pixels of more than 16 bits have no known brightness range; save it '
                             'with 8 or 16 bits')
        return Image.fromarray(np.rint(grey / 257).astype(np.uint8)).convert('RGB')
    if image.mode in ('LA', 'La', 'PA', 'RGBA', 'RGBa') or 'transparency' in image.info:
        if image.mode == 'La':  # premultiplied, and converted to its plain mode only
            image = image.convert('LA')
        image = image.convert('RGBA')
        white = Image.new('RGBA', image.size, 'white')
        return Image.alpha_composite(white, image).convert('RGB')
    return image if image.mode == 'RGB' else image.convert('RGB')
