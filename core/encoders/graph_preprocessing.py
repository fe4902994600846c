"""Pixels in the graph, for a SavedModel: `preprocessing.load` in TensorFlow's operations.

    pixels = load(tf1.placeholder(tf.string, [None]), Preprocessing(224, 'crop'))

JPEG and PNG. The pixels equal those of `preprocessing.load`, which says what is done, with these
exceptions:

- a JPEG of four inks is at most one level off, as TensorFlow rounds otherwise; without Adobe's
  marker it is refused;
- a PNG of another depth than 8 bits with one colour that is transparent is refused: Pillow compares
  that colour with pixels that it has scaled;
- other formats, a JPEG without its end and more pixels than Pillow reads are refused, by the number
  of the image;
- damage that only the decoder notices is TensorFlow's own error, which does not name the image. A
  PNG that lacks no more than its end is one of these, though Pillow reads it.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import PIL

from core.common.aliases import Tensor
from core.runtime.backend import tf, tf1

if TYPE_CHECKING:
    from core.encoders.preprocessing import Preprocessing

# whose resizing is done: the one that the run's features were made with
PILLOW = int(PIL.__version__.split('.')[0])
# twice PIL.Image.MAX_IMAGE_PIXELS, where Pillow refuses
MOST_PIXELS = 2 * (1024 * 1024 * 1024 // 4 // 3)
BEYOND = 32  # zeros after the bytes of a file, for looks past its end
AT_ONCE = 8  # images decoded side by side
PRECISION = 22  # bits after the point of a weight: of 32, eight are the pixel's, and two are spare
FRAMES = [marker for marker in range(0xC0, 0xD0) if marker not in (0xC4, 0xC8, 0xCC)]  # of a JPEG
XMP = 'http://ns.adobe.com/xap/1.0/'


class Header(NamedTuple):
    """What a file says before its pixels; scalars.

    Attributes:
        reason: string, why it is refused; '' where it is not.
        exif: string, the TIFF structure of the EXIF metadata, or ''.
        xmp: string, the XMP metadata, or ''.
        width, height: int64, as stored.
        grey16: bool, a PNG of 16-bit grey without alpha.
        alpha: bool, a PNG with transparency.
    """

    reason: Tensor
    exif: Tensor
    xmp: Tensor
    width: Tensor
    height: Tensor
    grey16: Tensor
    alpha: Tensor


def load(files: Tensor, preprocessing: 'Preprocessing') -> Tensor:
    """Decode images and bring them to the size of the network's input.

    Args:
        files: string tensor (N,), bytes of JPEG and PNG files.
        preprocessing: Preprocessing.

    Returns:
        uint8 tensor (N, size, size, 3), RGB, upright. Evaluating it raises InvalidArgumentError
        where an image is refused: 'image 3: the JPEG is truncated (no end of image)', the first
        being image 0.
    """
    size = preprocessing.size

    @tf.autograph.experimental.do_not_convert
    def one(item: Tensor) -> Tensor:
        number, data = item
        raw = tf.pad(tf.io.decode_raw(data, tf.uint8), [[0, BEYOND]])
        is_jpeg = tf.logical_and(tf.equal(raw[0], 0xFF), tf.equal(raw[1], 0xD8))
        header = tf.cond(is_jpeg, lambda: _jpeg_header(data, raw), lambda: _png_header(data, raw))
        whole = tf.debugging.Assert(tf.equal(header.reason, ''), [tf.strings.join(
            ['image ', tf.strings.as_string(number), ': ', header.reason])])
        with tf.control_dependencies([whole]):
            data = tf.identity(data)
        kinds = tf.stack([is_jpeg, header.grey16, header.alpha, True])
        image = tf.switch_case(tf.argmax(kinds, output_type=tf.int32), [
            lambda: tf.io.decode_jpeg(data, 3, dct_method='INTEGER_ACCURATE', fancy_upscaling=True),
            lambda: _grey16(data),
            lambda: _on_white(tf.io.decode_png(data, 4)),
            lambda: tf.io.decode_png(data, 3)])
        return _square(image, orientation(header.exif, header.xmp), preprocessing)

    with tf1.device('/cpu:0'):  # where the decoders are, and where sums round as Pillow's do
        return tf.map_fn(one, (tf.range(tf.shape(files)[0]), files), parallel_iterations=AT_ONCE,
                         fn_output_signature=tf.TensorSpec([size, size, 3], tf.uint8))


# ---- headers


def _number(raw: Tensor, at: Tensor, n_bytes: int, little: bool = False) -> Tensor:
    """Return the int64 scalar that `n_bytes` bytes from place `at` on stand for.

    Args:
        raw: (B,) uint8. at: int scalar. n_bytes: int.
        little: bool scalar, whether the little end comes first.
    """
    at = tf.convert_to_tensor(at)
    digits = tf.cast(tf.gather(raw, at + tf.range(n_bytes, dtype=at.dtype)), tf.int64)
    digits = tf.where(little, digits, digits[::-1])
    return tf.reduce_sum(tf.bitwise.left_shift(digits, tf.range(0, 8 * n_bytes, 8, tf.int64)))


def _first(*cases: tuple[Tensor, str]) -> Tensor:
    """Return the text of the first (condition, text) that holds, or ''."""
    text = tf.constant('')
    for condition, case in reversed(cases):
        text = tf.where(condition, case, text)
    return text


def _jpeg_header(data: Tensor, raw: Tensor) -> Header:
    """Return the Header of a JPEG, from its markers before the first scan."""
    end = tf.strings.length(data)

    def body(at: Tensor, _: Tensor, exif: Tensor, xmp: Tensor, frame: Tensor,
             adobe: Tensor) -> tuple:
        marker, length = tf.cast(raw[at + 1], tf.int32), tf.cast(_number(raw, at + 2, 2), tf.int32)
        junk = tf.logical_or(tf.not_equal(raw[at], 0xFF), tf.equal(marker, 0xFF))
        alone = _among(marker, [0, 1, *range(0xD0, 0xDA)])  # no length follows
        segment = tf.logical_not(tf.logical_or(junk, alone))
        app = tf.where(tf.logical_and(segment, _among(marker, [0xE1, 0xEE])),
                       # `at` is before the end
                       tf.strings.substr(data, at + 4, tf.maximum(length - 2, 0)), '')
        exif = tf.where(tf.logical_and(_starts(app, 'Exif\0\0'), tf.equal(exif, '')), app, exif)
        xmp = tf.where(_starts(app, XMP + '\0'), _after(app, len(XMP) + 1), xmp)
        adobe = tf.logical_or(adobe, tf.logical_and(tf.equal(marker, 0xEE), _starts(app, 'Adobe')))
        size = tf.stack(
            [_number(raw, at + 5, 2), _number(raw, at + 7, 2), tf.cast(raw[at + 9], tf.int64)])
        is_frame = tf.logical_and(segment, _among(marker, FRAMES))
        frame = tf.where(is_frame, size, frame)
        scan = tf.logical_and(segment, tf.equal(marker, 0xDA))
        after = at + tf.where(junk, 1, tf.where(alone, 2, 2 + length))
        return tf.where(scan, at, after), scan, exif, xmp, frame, adobe

    # An absurd length ends beyond the file, and so does the loop.
    at, scan, exif, xmp, frame, adobe = tf.while_loop(
        lambda at, scan, *_: tf.logical_and(at + 4 <= end, tf.logical_not(scan)), body,
        (tf.constant(2), tf.constant(False), tf.constant(''), tf.constant(''),
         tf.zeros([3], tf.int64), tf.constant(False)), parallel_iterations=1)
    height, width, n_inks = tf.unstack(frame)
    # In the coded data after the start of a scan FF never stands before D9.
    rest = raw[tf.minimum(at, end):end]
    ends = tf.reduce_any(tf.logical_and(tf.equal(rest[:-1], 0xFF), tf.equal(rest[1:], 0xD9)))
    reason = _first(
        (tf.logical_not(tf.logical_and(scan, ends)), 'the JPEG is truncated (no end of image)'),
        (width * height > MOST_PIXELS,
         'far more pixels than an image may have (decompression bomb)'),
        (tf.logical_and(tf.equal(n_inks, 4), tf.logical_not(adobe)),
         'a JPEG of four inks without the marker of Adobe; save it as RGB'))
    return Header(reason, _after(exif, 6), xmp, width, height,
                  tf.constant(False), tf.constant(False))


def _png_header(data: Tensor, raw: Tensor) -> Header:
    """Return the Header of a PNG, from all its chunks; of what is no PNG, the reason."""
    end = tf.strings.length(data)
    is_png = _starts(data, b'\x89PNG\r\n\x1a\n')
    width, height = _number(raw, 16, 4), _number(raw, 20, 4)
    depth, kind = tf.cast(raw[24], tf.int32), tf.cast(raw[25], tf.int32)

    def body(at: Tensor, exif: Tensor, xmp: Tensor, transparency: Tensor) -> tuple:
        length, name = _number(raw, at, 4), tf.strings.substr(data, at + 4, 4)
        is_metadata = _among(name, ['eXIf', 'iTXt'])
        # Metadata are far smaller than the bound that makes this an int32.
        n_bytes = tf.cast(tf.minimum(length, 2**31 - 1), tf.int32)
        part = tf.where(is_metadata, tf.strings.substr(data, at + 8, n_bytes), '')
        exif = tf.where(tf.equal(name, 'eXIf'), part, exif)
        xmp = tf.where(_starts(part, 'XML:com.adobe.xmp\0\0'), part, xmp)
        transparency = tf.logical_or(transparency, tf.equal(name, 'tRNS'))
        after = tf.cast(at, tf.int64) + 12 + length
        after = tf.where(tf.equal(name, 'IEND'), tf.cast(end, tf.int64), after)
        return tf.cast(tf.minimum(after, tf.cast(end, tf.int64)), tf.int32), exif, xmp, transparency

    _, exif, xmp, transparency = tf.while_loop(
        lambda at, *_: tf.logical_and(is_png, at + 12 <= end), body,
        (tf.constant(8), tf.constant(''), tf.constant(''), tf.constant(False)),
        parallel_iterations=1)
    reason = _first(
        (tf.equal(end, 0), 'the file is empty'),
        (tf.logical_not(is_png), 'neither a JPEG nor a PNG'),
        (width * height > MOST_PIXELS,
         'far more pixels than an image may have (decompression bomb)'),
        (tf.logical_and(transparency, tf.logical_and(_among(kind, [0, 2]), tf.not_equal(depth, 8))),
         'a PNG with a transparent colour in another depth than 8 bits; save it with 8 bits or '
         'with alpha'))
    grey16 = tf.logical_and(tf.equal(depth, 16), tf.equal(kind, 0))
    return Header(reason, exif, xmp, width, height, grey16,
                  tf.logical_or(transparency, _among(kind, [4, 6])))


def _among(x: Tensor, values: Sequence[int] | Sequence[str]) -> Tensor:
    return tf.reduce_any(tf.equal(x, tf.constant(values)))


def _starts(text: Tensor, prefix: str | bytes) -> Tensor:
    return tf.equal(tf.strings.substr(text, 0, len(prefix)), prefix)


def _after(text: Tensor, n: int) -> Tensor:
    """Return the text without its first n bytes, or ''."""
    length = tf.strings.length(text)
    return tf.strings.substr(text, tf.minimum(n, length), length)


def orientation(exif: Tensor, xmp: Tensor) -> Tensor:
    """Return how the stored picture is to be turned, 1 to 8: int32 scalar.

    As EXIF's tag 274 says, else XMP, else 1.

    Args:
        exif: string scalar, a TIFF structure of either byte order, or ''.
        xmp: string scalar, or ''.
    """
    # some programs write that twice
    exif = tf.where(_starts(exif, 'Exif\0\0'), _after(exif, 6), exif)
    raw = tf.pad(tf.io.decode_raw(exif, tf.uint8), [[0, BEYOND]])
    end = tf.cast(tf.strings.length(exif), tf.int64)
    little = _starts(exif, 'II')
    is_tiff = tf.logical_and(
        _among(tf.strings.substr(exif, 0, 4), ['II*\0', 'MM\0*', 'II\0*', 'MM*\0']), end >= 8)
    table = tf.where(is_tiff, _number(raw, 4, 4, little), end)
    n = tf.where(table + 2 <= end, _number(raw, tf.minimum(table, end), 2, little), 0)
    n = tf.clip_by_value((end - table - 2) // 12, 0, n)  # entries that are there
    at = tf.range(n)[:, tf.newaxis] * 12 + table + 2 + tf.range(12, dtype=tf.int64)
    entries = tf.cast(tf.gather(raw, at), tf.int64)

    def field(begin: Tensor, n_bytes: Tensor) -> Tensor:
        digits = entries[:, begin:begin + n_bytes]
        digits = tf.where(little, digits, digits[:, ::-1])
        return tf.reduce_sum(tf.bitwise.left_shift(digits, tf.range(0, 8 * n_bytes, 8, tf.int64)),
                             axis=1)

    kinds, count = field(2, 2), field(4, 4)
    # Shorts that lie in the entry itself, or a long; of two the first.
    short = tf.logical_and(tf.reduce_any(tf.equal(kinds[:, tf.newaxis], [3, 8]), axis=1),
                           count <= 2)
    long = tf.logical_and(tf.reduce_any(tf.equal(kinds[:, tf.newaxis], [4, 9]), axis=1),
                          tf.equal(count, 1))
    value = tf.where(short, field(8, 2), tf.where(long, field(8, 4), 1))
    usable = tf.logical_or(tf.logical_and(kinds >= 1, kinds <= 13), tf.equal(kinds, 16))
    tagged = tf.boolean_mask(value, tf.logical_and(usable, tf.equal(field(0, 2), 274)))[:1]
    # XMP is asked where EXIF is fine and does not say.
    digit = tf.strings.regex_replace(xmp, '(?s).*?tiff:Orientation(?:="|>)([0-9]).*', r'\1',
                                     replace_global=False)
    in_xmp = tf.logical_and(tf.equal(tf.strings.length(digit), 1),
                            tf.logical_or(is_tiff, tf.equal(end, 0)))
    otherwise = tf.strings.to_number(tf.where(in_xmp, digit, '1'), tf.int64)
    chosen = tf.concat([tagged, [otherwise]], axis=0)[0]
    return tf.cast(tf.where(tf.logical_and(chosen >= 1, chosen <= 8), chosen, 1), tf.int32)


# ---- pixels


def _grey16(data: Tensor) -> Tensor:
    """Return 16-bit greyscale in 8 bits, (H, W, 3) uint8."""
    grey = tf.cast(tf.io.decode_png(data, 1, tf.uint16), tf.int32)
    # to the nearest; there are no ties
    return tf.repeat(tf.cast((grey + 128) // 257, tf.uint8), 3, axis=2)


def _on_white(image: Tensor) -> Tensor:
    """Lay RGBA (H, W, 4) uint8 on white: (H, W, 3) uint8, with Pillow's rounding."""
    def composite() -> Tensor:
        colour, alpha = tf.cast(image[..., :3], tf.int32), tf.cast(image[..., 3:], tf.int32)
        share = alpha * 128
        mixed = colour * share + 255 * (255 * 128 - share) + 128 * 128
        mixed = tf.bitwise.right_shift(tf.bitwise.right_shift(mixed, 8) + mixed, 8 + 7)
        return tf.cast(mixed, tf.uint8)

    return tf.cond(tf.reduce_all(tf.equal(image[..., 3], 255)), lambda: image[..., :3], composite)


def _square(image: Tensor, turn: Tensor, preprocessing: 'Preprocessing') -> Tensor:
    """Return the encoder's input (size, size, 3) uint8 of a stored image (H, W, 3) uint8."""
    size = preprocessing.size
    turned = turn >= 5
    mirrored, upside_down = _among(turn, [2, 3, 6, 7]), _among(turn, [3, 4, 7, 8])  # after the turn
    rows, columns = tf.shape(image)[0], tf.shape(image)[1]
    width, height = tf.where(turned, rows, columns), tf.where(turned, columns, rows)
    (left, right), (top, bottom) = _window(width, height, preprocessing)
    across = _Pass(*_weights(width, left, right, size), width, mirrored)
    down = _Pass(*_weights(height, top, bottom, size), height, upside_down)
    rows_first = tf.logical_and(height > size, height - size > 2 * (width - size))
    if PILLOW < 13:
        rows_first = tf.zeros_like(rows_first)
    # Only what the window shows is resized; a turned or mirrored picture is never made, only read
    # in another order.
    (x, n_x), (y, n_y) = across.span(), down.span()
    begin, length = tf.where(turned, [x, y], [y, x]), tf.where(turned, [n_x, n_y], [n_y, n_x])
    image = tf.slice(image, [*tf.unstack(begin), 0], [*tf.unstack(length), 3])
    image = tf.cond(tf.equal(turned, rows_first), lambda: _turn(image), lambda: image)
    first, second = tf.cond(rows_first, lambda: (down, across), lambda: (across, down))
    image = second.run(_turn(first.run(image)))
    return tf.ensure_shape(tf.cond(rows_first, lambda: _turn(image), lambda: image),
                           [size, size, 3])


def _turn(image: Tensor) -> Tensor:
    return tf.transpose(image, [1, 0, 2])


def _window(width: Tensor, height: Tensor,
            preprocessing: 'Preprocessing') -> tuple[tuple[Tensor, ...], ...]:
    """Return ((left, right), (top, bottom)), float32: `preprocessing.load`'s window, no offset."""
    width, height = tf.cast(width, tf.float64), tf.cast(height, tf.float64)
    sides: tuple[tuple[Tensor, Tensor], ...]
    if preprocessing.resize == 'squash':
        nothing = tf.zeros([], tf.float64)
        sides = (nothing, width), (nothing, height)
    else:
        share = preprocessing.size / round(preprocessing.size * 256 / 224)
        side = tf.minimum(width, height) * share
        sides = tuple(((length - side) / 2, tf.minimum((length - side) / 2 + side, length))
                      for length in (width, height))
    # Pillow takes the corners as single precision.
    return tuple(tuple(tf.cast(x, tf.float32) for x in side) for side in sides)


def _weights(length: Tensor, low: Tensor, high: Tensor, size: int) -> tuple[Tensor, Tensor, Tensor]:
    """Return what a pass reads, with an antialiasing triangle filter, in Pillow's order.

    Args:
        length: int32 scalar, pixels that there are.
        low, high: float32 scalars, the window in them.
        size: int, pixels that come out.

    Returns:
        first, count and weights of a `_Pass`.
    """
    # TensorFlow turns a division by a constant into a product, which rounds otherwise; this it
    # cannot know for one.
    divisor = tf.cast(tf.minimum(size, length + size), tf.float64)
    low, scale = tf.cast(low, tf.float64), tf.cast(high - low, tf.float64) / divisor
    support = tf.maximum(scale, 1.0)
    centre = low + (tf.range(size, dtype=tf.float64) + 0.5) * scale
    first = tf.maximum(tf.cast(centre - support + 0.5, tf.int32), 0)
    count = tf.minimum(tf.cast(centre + support + 0.5, tf.int32), length) - first
    places = tf.range(tf.cast(tf.math.ceil(support), tf.int32) * 2 + 1)
    distance = (tf.cast(places + first[:, tf.newaxis], tf.float64) - centre[:, tf.newaxis]
                + 0.5) * (1.0 / support)
    weights = tf.maximum(1.0 - tf.abs(distance), 0.0)
    weights = tf.where(places < count[:, tf.newaxis], weights, tf.zeros_like(weights))
    weights /= tf.cumsum(weights, axis=1)[:, -1:]  # one after the other, as rounding depends on it
    return first, count, tf.cast(0.5 + weights * 2**PRECISION, tf.int32)


class _Pass(NamedTuple):
    """One pass of the resizing, to S pixels.

    Attributes:
        first: (S,) int32, the first pixel that each result reads.
        count: (S,) int32, how many it reads.
        weights: (S, places) int32, with `PRECISION` bits after the point.
        length: int32, pixels that are stored.
        backwards: bool, whether they are stored the other way round.
    """

    first: Tensor
    count: Tensor
    weights: Tensor
    length: Tensor
    backwards: Tensor

    def span(self) -> tuple[Tensor, Tensor]:
        """Return (begin, length) of the stored pixels that are read."""
        begin, end = self.first[0], self.first[-1] + self.count[-1]
        return tf.where(self.backwards, self.length - end, begin), end - begin

    def run(self, image: Tensor) -> Tensor:
        """Resize those pixels, (pixels, M, 3) uint8, to (S, M, 3) uint8."""
        begin, n = self.span()

        def body(i: Tensor, total: Tensor) -> tuple:
            places = self.first + i
            places = tf.where(self.backwards, self.length - 1 - places, places) - begin
            # Beyond its count a result's weights are zero.
            pixels = tf.cast(tf.gather(image, tf.clip_by_value(places, 0, n - 1)), tf.int32)
            return i + 1, total + pixels * self.weights[:, i][:, tf.newaxis, tf.newaxis]

        total = tf.fill([self.first.shape[0], tf.shape(image)[1], 3], 2**(PRECISION - 1))
        _, total = tf.while_loop(lambda i, _: i < tf.reduce_max(self.count), body,
                                 (tf.constant(0), total))
        return tf.cast(tf.minimum(tf.bitwise.right_shift(total, PRECISION), 255), tf.uint8)
