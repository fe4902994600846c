"""The graph's pixels against core.encoders.preprocessing: every file, size, orientation."""

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image, PngImagePlugin

from core.encoders import graph_preprocessing, preprocessing
from core.encoders.preprocessing import Preprocessing
from core.runtime.backend import tf, tf1

CROP, SQUASH = Preprocessing(37, 'crop'), Preprocessing(24, 'squash')
RANDOM = np.random.default_rng(7)


def encode(image, fmt='PNG', **options):
    buffer = io.BytesIO()
    image.save(buffer, fmt, **options)
    return buffer.getvalue()


def noise(width=70, height=50, channels=3, seed=0):
    return Image.fromarray(
        np.random.default_rng(seed).integers(0, 256, (height, width, channels), np.uint8).squeeze())


def smooth(width=81, height=60):
    """A picture as photos are, so that JPEG keeps its colours."""
    slope = np.add.outer(np.arange(height), np.arange(width))[..., None] * [1.5, 0.7, 0.3]
    return Image.fromarray(
        np.clip(slope + RANDOM.normal(0, 9, slope.shape), 0, 255).astype(np.uint8))


def png(depth, kind, channels, *chunks, size=(31, 23)):
    """A PNG of random samples of a bit depth and colour type that Pillow could not write."""
    def chunk(name, data):
        return struct.pack('>I', len(data)) + name + data + struct.pack(
            '>I', zlib.crc32(name + data))

    width, height = size
    rows = b''.join(b'\0' + RANDOM.bytes((width * channels * depth + 7) // 8)
                    for _ in range(height))
    header = struct.pack('>IIBBBBB', width, height, depth, kind, 0, 0, 0)
    parts = [(b'IHDR', header), *chunks, (b'IDAT', zlib.compress(rows)), (b'IEND', b'')]
    return b'\x89PNG\r\n\x1a\n' + b''.join(chunk(*part) for part in parts)


@pytest.fixture(scope='module')
def load():
    """Function from files and a Preprocessing to uint8 (N, size, size, 3), by the graph."""
    with tf.Graph().as_default() as graph:
        files = tf1.placeholder(tf.string, [None])
        outputs = {setting: graph_preprocessing.load(files, setting) for setting in (
            CROP, SQUASH, Preprocessing(224, 'crop'), Preprocessing(224, 'squash'))}
    with tf1.Session(graph=graph) as session:
        yield lambda data, setting=CROP: session.run(outputs[setting], {files: data})


def assert_equal(load, data, *settings, most=0):
    """The same pixels as core.encoders.preprocessing, `most` levels off at most."""
    for setting in settings or (CROP, SQUASH):
        expected = np.stack([preprocessing.load(each, setting) for each in data]).astype(int)
        off = np.abs(load(data, setting) - expected).max(axis=(1, 2, 3))
        assert off.max() <= most, (setting, off)


def reason(load, *data):
    with pytest.raises(tf.errors.InvalidArgumentError) as caught:
        load(list(data))
    return caught.value.message


# --------------------------------------------------------------------------------------------------
# geometry


def test_every_size_is_resized_to_the_last_bit(load):
    sides = np.exp(RANDOM.uniform(0, np.log(700), (80, 2))).astype(int)
    assert_equal(
        load, [encode(noise(width, height, seed=width), 'PNG') for width, height in sides.tolist()])


@pytest.mark.parametrize(('width', 'height'), [
    (1, 1), (24, 24), (37, 37), (24, 37), (42, 42), (2000, 3), (3, 2000), (1, 500),
    # Pillow's order of the passes: rows first from a height of 24 + 2 (w - 24) + 1 on, if it is
    # reduced at all.
    (30, 36), (30, 37), (20, 24), (20, 25), (10, 25), (100, 176), (100, 177),
])
def test_odd_shapes(load, width, height):
    assert_equal(load, [encode(noise(width, height))])


def test_a_large_photo(load):
    photo = encode(smooth(2300, 1700), 'JPEG', quality=90)
    assert_equal(load, [photo], Preprocessing(224, 'crop'), Preprocessing(224, 'squash'))


def test_real_photos(load, shared):
    """All of COCO-mini, one of them greyscale."""
    paths = sorted((shared / 'data/coco-mini/train2017').glob('*.jpg'))
    assert len(paths) == 80
    assert_equal(load, [path.read_bytes() for path in paths], Preprocessing(224, 'crop'),
                 Preprocessing(224, 'squash'))


# --------------------------------------------------------------------------------------------------
# kinds of files

PALETTE = (b'PLTE', bytes(range(0, 240, 5)))  # of 16 colours
PNGS = {
    'grey': encode(noise(channels=1)), 'one bit': encode(noise().convert('1')),
    'two bits': png(2, 0, 1), 'four bits': png(4, 0, 1),
    'grey and alpha': encode(Image.merge('LA', noise(channels=3).split()[:2])),
    'alpha': encode(noise(channels=4)), 'opaque': encode(noise().convert('RGBA')),
    'palette': encode(noise().quantize(200)), 'palette of 16': encode(noise().quantize(16)),
    'palette of 4': png(2, 3, 1, (b'PLTE', bytes(range(0, 120, 10)))),
    'palette with a clear colour': encode(noise().quantize(16), transparency=3),
    'palette with alphas': encode(noise().quantize(16), transparency=bytes(range(0, 256, 16))),
    'a clear colour': encode(smooth().convert('P').convert('RGB'),
                             transparency=smooth().getpixel((0, 0))),
    'a clear grey': encode(noise(channels=1), transparency=77), '16 bits grey': png(16, 0, 1),
    '16 bits': png(16, 2, 3), '16 bits grey and alpha': png(16, 4, 2),
    '16 bits and alpha': png(16, 6, 4), 'gamma': png(8, 2, 3, (b'gAMA', struct.pack('>I', 100000))),
    'bytes after the end': encode(noise()) + b'more'}
JPEGS = {'grey': encode(smooth().convert('L'), 'JPEG'),
         'restarts': encode(smooth(), 'JPEG', restart_marker_blocks=3),
         'rgb': encode(smooth(), 'JPEG', keep_rgb=True),
         'bytes after the end': encode(smooth(), 'JPEG') + b'more',
         **{f'{quality} {sampling} {progressive}': encode(smooth(), 'JPEG', quality=quality,
                                                          subsampling=sampling,
                                                          progressive=progressive)
            for quality in (30, 95) for sampling in (0, 1, 2) for progressive in (False, True)}}


@pytest.mark.parametrize('kind', PNGS)
def test_kinds_of_png(load, kind):
    assert_equal(load, [PNGS[kind]])


def test_kinds_of_jpeg(load):
    assert_equal(load, list(JPEGS.values()))


def test_four_inks_are_a_level_off_at_most(load):
    inks = Image.merge('CMYK', [noise(channels=1, seed=seed) for seed in range(4)])
    assert_equal(load, [encode(inks, 'JPEG', quality=95)], most=1)
    without = encode(inks, 'JPEG').replace(b'Adobe', b'Other')
    assert 'image 1: a JPEG of four inks without the marker of Adobe' in reason(
        load, PNGS['grey'], without)


# --------------------------------------------------------------------------------------------------
# orientation


def tiff(order, *entries, table=8):
    """EXIF of (tag, type, count, the four bytes of the value)."""
    code = '<' if order == b'II' else '>'
    packed = b''.join(struct.pack(code + 'HHI', *entry[:3]) + entry[3] for entry in entries)
    return order + struct.pack(code + 'HI', 42, table) + struct.pack(code + 'H',
                                                                     len(entries)) + packed + bytes(
        4)


PREFIX = b'Exif\0\0'
MAKER = (271, 2, 4, b'abc\0')


@pytest.mark.parametrize('fmt', ['JPEG', 'PNG'])
def test_orientations_of_both_byte_orders(load, fmt):
    picture = smooth()
    for order, code in ((b'II', '<'), (b'MM', '>')):
        values = range(10)  # 0 and 9 mean nothing
        data = [encode(picture, fmt, exif=PREFIX
                       + tiff(order, MAKER, (274, 3, 1, struct.pack(code + 'HH', value, 0))))
                for value in values]
        assert_equal(load, data)
        pictures = load(data)
        # all differ, but for the two that mean nothing
        assert len({each.tobytes() for each in pictures}) == 8
        assert all(np.array_equal(pictures[0], pictures[value]) for value in (1, 9))


def test_odd_metadata_turn_nothing_that_pillow_does_not(load):
    six, six_long = (274, 3, 1, b'\0\6\0\0'), (274, 4, 1, b'\0\0\0\6')
    structures = [
        tiff(b'MM', six_long), tiff(b'MM', (274, 1, 1, b'\6\0\0\0')),
        tiff(b'MM', six, (274, 3, 1, b'\0\3\0\0')), tiff(b'MM', six)[:-6],
        tiff(b'MM', MAKER, six)[:-8], tiff(b'MM', (274, 3, 2, b'\0\6\0\3')),
        tiff(b'MM', (274, 8, 1, b'\0\6\0\0')), tiff(b'MM', (274, 77, 1, b'\0\6\0\0'), six),
        tiff(b'MM', MAKER), b'XX' + tiff(b'MM', six)[2:], tiff(b'MM', six, table=99),
        tiff(b'MM', six, table=2**32 - 1), b'MM', b'', PREFIX + tiff(b'MM', six), tiff(b'MM')]
    picture = smooth()
    for fmt in ('JPEG', 'PNG'):
        assert_equal(load, [encode(picture, fmt, exif=PREFIX + each) for each in structures])


def test_orientation_in_xmp_where_exif_has_none(load):
    text = b'<x:xmpmeta>\n<rdf:Description tiff:Orientation="6"/></x:xmpmeta>'
    info = PngImagePlugin.PngInfo()
    info.add_itxt('XML:com.adobe.xmp', text.decode())
    picture = smooth()
    three, maker = PREFIX + tiff(b'MM', (274, 3, 1, b'\0\3\0\0')), PREFIX + tiff(b'MM', MAKER)
    data = [encode(picture, 'JPEG'), encode(picture, 'JPEG', xmp=text),
            encode(picture, 'JPEG', xmp=text, exif=three),
            encode(picture, 'JPEG', xmp=text, exif=maker), encode(picture, 'PNG', pnginfo=info)]
    assert_equal(load, data)
    pictures = load(data)
    assert not np.array_equal(pictures[0], pictures[1]) and np.array_equal(pictures[1], pictures[3])


# -------------------------------------------------------------------------------------------------
# what is no picture

WHOLE = JPEGS['95 2 False']


@pytest.mark.parametrize(
    ('data', 'said'), [(b'', 'image 1: the file is empty'),
                       (b'<html>404 Not Found</html>', 'image 1: neither a JPEG nor a PNG'),
                       (encode(noise(), 'BMP'), 'image 1: neither a JPEG nor a PNG'),
                       (encode(noise(), 'GIF'), 'image 1: neither a JPEG nor a PNG'),
                       (WHOLE[: len(WHOLE) // 2], 'image 1: the JPEG is truncated'),
                       (WHOLE[: len(WHOLE) // 2] + bytes(len(WHOLE) // 2),
                        'image 1: the JPEG is truncated'),
                       (b'\xff\xd8', 'image 1: the JPEG is truncated'),
                       (PNGS['alpha'][:-600], 'Invalid PNG data'),
                       (b'\x89PNG\r\n\x1a\n', 'Invalid PNG'),
                       (png(8, 2, 3)[:16] + struct.pack('>II', 60000, 60000) + png(8, 2, 3)[24:],
                        'image 1: far more pixels'),
                       (png(16, 2, 3, (b'tRNS', bytes(6))), 'image 1: a PNG with a transparent '
                        'colour in another depth'),
                       (png(4, 0, 1, (b'tRNS', b'\0\1')), 'image 1: a PNG with a transparent '
                        'colour in another depth')], ids=lambda value: value
    if isinstance(value, str) else '')
def test_refused_by_number_and_reason(load, data, said):
    assert said in reason(load, PNGS['grey'], data, WHOLE)


def test_the_bound_of_pixels_is_pillows():
    assert graph_preprocessing.MOST_PIXELS == 2 * Image.MAX_IMAGE_PIXELS


def test_damaged_files_are_refused_or_read_as_pillow_reads_them(load):
    """Change, lose and put in bytes; where Pillow finds the pixels broken, expect none."""
    oriented = tiff(b'MM', MAKER, (274, 3, 1, b'\0\6\0\0'))
    whole = [encode(smooth(), 'JPEG', exif=PREFIX + oriented),
             encode(smooth(), 'JPEG', progressive=True), encode(smooth(), 'PNG'),
             encode(noise().quantize(16), 'PNG')]
    read = 0
    for trial in range(200):
        data = bytearray(whole[trial % len(whole)])
        at = RANDOM.integers(120 if RANDOM.random() < 0.6 else len(data))
        more, less = [(b'', 0), (RANDOM.bytes(1), 1), (b'', 3),
                      (RANDOM.bytes(5), 0)][RANDOM.integers(4)]
        data[at:at + less] = more
        if not more and not less:
            del data[at:]
        try:
            pixels = load([bytes(data)])[0]
        except tf.errors.InvalidArgumentError:
            continue
        assert np.array_equal(pixels, preprocessing.load(bytes(data), CROP)), trial
        read += 1
    assert 20 < read < 180


def test_no_image_at_all(load):
    assert load([]).shape == (0, 37, 37, 3)
