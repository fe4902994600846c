"""Files of every kind to upright RGB, the network's input, and files that are no images."""

import concurrent.futures
import io
import subprocess
import sys
import warnings
import zlib

import numpy as np
import pytest
from PIL import Image, ImageFile

from core.common.errors import InputError
from core.encoders import photos, preprocessing
from core.encoders.preprocessing import Preprocessing

RED, GREEN, BLUE, WHITE = (255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255)


def encode(image, fmt='PNG', **options):
    buffer = io.BytesIO()
    image.save(buffer, fmt, **options)
    return buffer.getvalue()


def noise(width=70, height=50, seed=0):
    return Image.fromarray(
        np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8))


def quarters(width=48, height=32):
    """Red, green over blue, white: no two orientations look alike."""
    image = Image.new('RGB', (width, height))
    for colour, x, y in ((RED, 0, 0), (GREEN, 1, 0), (BLUE, 0, 1), (WHITE, 1, 1)):
        image.paste(
            colour, (x * width // 2, y * height // 2, (x + 1) * width // 2, (y + 1) * height // 2))
    return image


def pixel(data):
    return photos.decode(data).getpixel((0, 0))


# --------------------------------------------------------------------------------------------------
# kinds of files


@pytest.mark.parametrize('fmt', ['PNG', 'BMP', 'TIFF', 'PPM'])
def test_lossless_formats_keep_every_pixel(fmt):
    assert np.array_equal(photos.decode(encode(noise(), fmt)), noise())


def test_webp_keeps_every_pixel_when_lossless():
    assert np.array_equal(photos.decode(encode(noise(), 'WEBP', lossless=True)), noise())


def test_jpeg_decodes_to_what_pillow_decodes_at_full_size():
    data = encode(noise(500, 400), 'JPEG', quality=90)
    assert np.array_equal(photos.decode(data), Image.open(io.BytesIO(data)))


def test_name_does_not_matter_and_files_equal_bytes(tmp_path):
    path = tmp_path / 'photo.jpg'
    path.write_bytes(encode(quarters()))
    assert np.array_equal(photos.decode(path), quarters())
    assert np.array_equal(photos.decode(str(path)), photos.decode(path.read_bytes()))


def test_greyscale_is_repeated_in_three_channels():
    grey = Image.fromarray(np.arange(256, dtype=np.uint8).reshape(16, 16))
    assert np.array_equal(np.array(photos.decode(encode(grey)))[..., 1], grey)
    assert pixel(encode(Image.new('1', (4, 4), 1))) == WHITE


def test_sixteen_bit_greyscale_is_scaled_not_clipped():
    ramp = np.array([[0, 257, 128 * 257, 40000, 65535]], np.uint16)
    decoded = np.array(photos.decode(encode(Image.fromarray(ramp))))
    assert decoded[0, :, 0].tolist() == [0, 1, 128, 156, 255]


def test_floating_point_pixels_are_an_error():
    with pytest.raises(photos.UnreadableImage, match='16 bits'):
        photos.decode(encode(Image.new('F', (4, 4), 0.5), 'TIFF'))


@pytest.mark.parametrize(('ink', 'expected'), [
    ((0, 0, 0, 0), WHITE), ((0, 255, 255, 0), RED), ((0, 0, 0, 255), (0, 0, 0))])
def test_cmyk_jpeg_is_not_inverted(ink, expected):
    data = encode(Image.new('CMYK', (16, 16), ink), 'JPEG', quality=100)
    assert np.abs(np.subtract(pixel(data), expected)).max() <= 3


def test_transparency_shows_white():
    assert pixel(encode(Image.new('RGBA', (4, 4), (255, 0, 0, 0)))) == WHITE
    assert pixel(encode(Image.new('RGBA', (4, 4), (255, 0, 0, 255)))) == RED
    assert pixel(encode(Image.new('RGBA', (4, 4), (0, 0, 0, 51)))) == (204, 204, 204)
    assert pixel(encode(Image.new('LA', (4, 4), (0, 128)))) == (127, 127, 127)
    assert pixel(encode(Image.new('RGB', (4, 4), RED), transparency=RED)) == WHITE
    assert pixel(encode(Image.new('RGBA', (4, 4), (255, 0, 0, 0)), 'WEBP', lossless=True,
                        exact=True)) == WHITE


def test_palettes_with_and_without_transparency():
    image = Image.new('P', (4, 4), 1)
    image.putpalette([*BLUE, *RED, *GREEN])
    assert pixel(encode(image)) == RED
    assert pixel(encode(image, transparency=1)) == WHITE
    assert pixel(encode(image, transparency=b'\xff\xff\x00')) == RED
    assert pixel(encode(image, 'GIF')) == RED


@pytest.mark.parametrize('fmt', ['JPEG', 'PNG', 'WEBP', 'TIFF'])
@pytest.mark.parametrize('orientation', range(1, 9))
def test_exif_orientation_is_applied(fmt, orientation):
    upright = quarters()
    # The stored picture is the one that the orientation, as the standard words it, turns into the
    # upright one.
    array = np.array(upright)
    pixels = {
        1: array,
        2: array[:, ::-1],
        3: array[::-1, ::-1],
        4: array[::-1],
        5: array.transpose(1, 0, 2),
        6: np.rot90(array, 1),
        7: array[::-1, ::-1].transpose(1, 0, 2),
        8: np.rot90(array, -1),
    }[orientation]
    exif = Image.Exif()
    exif[0x0112] = orientation
    options = {'JPEG': {'quality': 100, 'subsampling': 0}, 'WEBP': {'lossless': True}}.get(fmt, {})
    data = encode(Image.fromarray(np.ascontiguousarray(pixels)), fmt, exif=exif, **options)
    decoded = np.array(photos.decode(data)).astype(int)
    assert decoded.shape == array.shape
    assert np.abs(decoded - array).max() <= 3
    assert photos.pixel_count(data) == 48 * 32


def test_a_greyscale_photo_of_coco(shared):
    grey = 0
    for path in sorted((shared / 'data/coco-mini/train2017').glob('*.jpg')):
        square = preprocessing.load(path, Preprocessing(224))
        assert square.shape == (224, 224, 3) and square.dtype == np.uint8 and square.std() > 5
        grey += bool(np.array_equal(square[..., 0], square[..., 2]))
    assert grey == 1


# --------------------------------------------------------------------------------------------------
# geometry


def test_crop_takes_the_central_seven_eighths_of_the_short_side():
    # At 256 on the short side nothing is resampled: the crop is the picture's centre itself.
    picture = noise(300, 256)
    square = preprocessing.load(encode(picture), Preprocessing(224, 'crop'))
    assert np.array_equal(square, np.array(picture)[16:240, 38:262])


def test_crop_of_a_gradient_is_exact():
    # Value = column, so that a pixel tells where it came from; 2 : 1 reduction around the centre.
    ramp = np.repeat(np.arange(640, dtype=np.float32)[None] / 4, 512, 0).astype(np.uint8)
    square = preprocessing.load(encode(Image.fromarray(ramp)), Preprocessing(224))[112, :,
                                                                                   0].astype(float)
    expected = (96 + 2 * np.arange(224) + 0.5) / 4
    assert np.abs(square - expected).max() < 1


def test_moved_windows_and_mirrors_of_a_crop():
    # At 256 on the short side nothing is resampled: 32 places either way inside the central square.
    picture = noise(300, 256)
    data, setting, array = encode(picture), Preprocessing(224, 'crop'), np.array(picture)
    for offset, (left, top) in (((0, 0), (22, 0)), ((1, 1), (54, 32)), ((0.25, 0.75), (30, 24))):
        expected = array[top:top + 224, left:left + 224]
        assert np.array_equal(preprocessing.load(data, setting, offset), expected), offset
        assert np.array_equal(preprocessing.load(data, setting, offset, flip=True),
                              expected[:, ::-1]), offset
    assert np.array_equal(preprocessing.load(data, setting, (0.5, 0.5)),
                          preprocessing.load(data, setting))


def test_moved_windows_of_a_squashed_picture_are_seven_eighths_of_it():
    ramp = np.repeat(np.arange(256, dtype=np.uint8)[None], 64, 0)
    data, setting = encode(Image.fromarray(ramp)), Preprocessing(224, 'squash')
    for offset, left in ((0, 0), (0.5, 16), (1, 32)):
        square = preprocessing.load(data, setting, (offset, 0.3))
        assert np.abs(square[5, :, 0].astype(float) - (left + np.arange(224))).max() <= 1
    assert preprocessing.load(data, setting)[5, :, 0].max() >= 254


@pytest.mark.parametrize('resize', preprocessing.RESIZES)
def test_windows_stay_inside_whatever_the_size(resize):
    for width, height in ((1, 1), (3, 7), (333, 77), (1021, 1021)):
        for size in (1, 3, 37):
            for offset in ((1, 1), (0.999999, 0)):
                square = preprocessing.load(encode(noise(width, height)),
                                            Preprocessing(size, resize), offset)
                assert square.shape == (size, size, 3)


def test_squash_uses_the_whole_picture():
    square = preprocessing.load(encode(quarters(400, 20)), Preprocessing(32, 'squash'))
    assert square[2, 2].tolist() == [*RED] and square[29, 29].tolist() == [*WHITE]
    assert square[2, 29].tolist() == [*GREEN] and square[29, 2].tolist() == [*BLUE]


def test_reduction_antialiases():
    stripes = Image.fromarray(np.tile(np.array([0, 255], np.uint8), (512, 256)))
    assert np.abs(preprocessing.load(encode(stripes),
                                     Preprocessing(64, 'squash')).astype(int) - 127).max() <= 6


@pytest.mark.parametrize('resize', preprocessing.RESIZES)
@pytest.mark.parametrize('size', [(1, 1), (20000, 2), (3, 9000), (1, 500)])
def test_any_shape_of_picture_works(resize, size):
    square = preprocessing.load(encode(Image.new('RGB', size, RED)), Preprocessing(224, resize))
    assert square.shape == (224, 224, 3)
    assert np.array_equal(square[[0, 112, 223], [0, 112, 223]], [RED] * 3)


def test_boxes_in_a_cropped_picture():
    crop = Preprocessing(224, 'crop')
    # 512 x 256 is already of the right height: the window is 144..368 by 16..240.
    assert preprocessing.box_to_input((144, 16, 224, 224), (512, 256), crop) == (0.0, 0.0, 1.0, 1.0)
    assert preprocessing.box_to_input((200, 72, 112, 56), (512, 256), crop) == (
        0.25, 0.25, 0.75, 0.5)
    assert preprocessing.box_to_input((0, 0, 256, 128), (512, 256), crop) == (0.0, 0.0, 0.5, 0.5)
    assert preprocessing.box_to_input((0, 0, 100, 256), (512, 256), crop) == (0.0, 0.0, 0.0, 1.0)
    # Twice as large: the same fractions.
    assert preprocessing.box_to_input((400, 144, 224, 112), (1024, 512), crop) == (
        0.25, 0.25, 0.75, 0.5)


def test_boxes_in_a_squashed_picture():
    squash = Preprocessing(224, 'squash')
    assert preprocessing.box_to_input((100, 50, 200, 25), (400, 100), squash) == (
        0.25, 0.5, 0.75, 0.75)
    assert preprocessing.box_to_input((-10, -10, 500, 500), (400, 100), squash) == (
        0.0, 0.0, 1.0, 1.0)


@pytest.mark.parametrize('resize', preprocessing.RESIZES)
def test_boxes_lie_where_the_pixels_are(resize):
    picture = Image.new('RGB', (500, 300))
    picture.paste(WHITE, (210, 90, 290, 210))
    setting = Preprocessing(224, resize)
    rows, columns = np.nonzero(preprocessing.load(encode(picture), setting)[..., 0] > 127)
    edges = np.array([columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]) / 224
    assert np.abs(edges - preprocessing.box_to_input((210, 90, 80, 120), (500, 300),
                                                        setting)).max() < 1 / 224


# --------------------------------------------------------------------------------------------------
# what is no image


def unreadable(path, reason):
    with pytest.raises(photos.UnreadableImage, match=reason) as caught:
        preprocessing.load(path, Preprocessing(32))
    assert str(path) in str(caught.value) and '\n' not in str(caught.value)
    with pytest.raises(photos.UnreadableImage):
        photos.decode(path)


@pytest.mark.parametrize('progressive', [False, True])
@pytest.mark.parametrize('share', [0.01, 0.3, 0.9, 0.999])
def test_truncated_jpeg(tmp_path, progressive, share):
    data = encode(noise(), 'JPEG', progressive=progressive)
    path = tmp_path / 'cut.jpg'
    path.write_bytes(data[: int(len(data) * share)])
    unreadable(path, 'cannot read image')


def test_jpeg_whose_tail_was_never_written(tmp_path):
    data = encode(noise(), 'JPEG')
    path = tmp_path / 'zeros.jpg'
    path.write_bytes(data[: len(data) // 2] + bytes(len(data) // 2))
    unreadable(path, 'truncated')


@pytest.mark.parametrize('fmt', ['PNG', 'BMP', 'WEBP', 'GIF', 'TIFF'])
def test_other_truncated_formats(tmp_path, fmt):
    data = encode(noise(), fmt)
    path = tmp_path / 'cut'
    path.write_bytes(data[: len(data) // 2])
    unreadable(path, 'cannot read image')


def test_files_that_are_no_images(tmp_path):
    path = tmp_path / 'photo.jpg'
    unreadable(path, 'No such file')
    path.write_bytes(b'')
    unreadable(path, 'empty')
    path.write_text('<html>404 Not Found</html>')
    unreadable(path, 'not an image')
    unreadable(tmp_path, 'directory')


def test_decompression_bombs(tmp_path):
    path = tmp_path / 'bomb.png'
    header = encode(Image.new('1', (8, 8)))
    for side in (20000, 60000):
        fields = header[12:16] + side.to_bytes(4, 'big') * 2 + header[24:29]
        path.write_bytes(header[:12] + fields + zlib.crc32(fields).to_bytes(4, 'big') + header[33:])
        unreadable(path, 'pixels')


def test_accepting_truncated_images_elsewhere_in_the_process_is_refused(monkeypatch):
    monkeypatch.setattr(ImageFile, 'LOAD_TRUNCATED_IMAGES', True)
    with pytest.raises(InputError, match='LOAD_TRUNCATED_IMAGES'):
        photos.decode(encode(noise()))


def test_damaged_metadata_does_not_hurt():
    exif = b'Exif\x00\x00MM\x00*\x00\x00\x00\x08\x00\x09\x01\x12\x00\x03\x00\x00'
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter('always')
        decoded = photos.decode(encode(quarters(), 'JPEG', exif=exif))
    assert decoded.size == (48, 32) and not caught


# --------------------------------------------------------------------------------------------------
# the settings


def test_preprocessing_goes_to_a_dict_and_back():
    setting = Preprocessing(299, 'squash')
    assert preprocessing.Preprocessing.from_dict(setting.to_dict()) == setting
    with pytest.raises(InputError, match='colour'):
        preprocessing.Preprocessing.from_dict({'size': 224, 'resize': 'crop', 'colour': 1})


@pytest.mark.parametrize('fields', [{'size': 0}, {'size': 2.5}, {'size': '224'}, {'resize': 'pad'}])
def test_wrong_preprocessing_is_refused(fields):
    with pytest.raises(InputError):
        Preprocessing(**fields)


def test_threads_give_the_same_pictures():
    files = [encode(noise(200 + seed, 150, seed), 'JPEG') for seed in range(12)]
    setting = Preprocessing(64)
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        together = list(pool.map(lambda data: preprocessing.load(data, setting), files * 3))
    assert all(np.array_equal(a, preprocessing.load(b, setting))
               for a, b in zip(together, files * 3, strict=True))


def test_images_needs_no_tensorflow():
    code = 'import sys, core.encoders.preprocessing; assert "tensorflow" not in sys.modules'
    process = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True)
    assert (process.returncode, process.stdout, process.stderr) == (0, '', '')


def test_an_image_of_the_right_size_and_kind_is_taken_as_it_is():
    picture = noise(64, 64)
    square = preprocessing.load(encode(picture), Preprocessing(64, 'squash'))
    assert np.array_equal(square, picture) and square.flags.writeable
    edge = (64 - 64 * 64 / 73) / 2  # the short side is scaled to 73 = round(64 * 256 / 224)
    expected = picture.resize((64, 64), Image.Resampling.BILINEAR,
                              box=(edge, edge, 64 - edge, 64 - edge))
    assert np.array_equal(preprocessing.load(encode(picture), Preprocessing(64, 'crop')), expected)


def test_pixels_in_memory_are_photos_too(tmp_path):
    pixels = np.random.default_rng(1).integers(0, 256, (31, 23, 4), dtype=np.uint8)
    for name, array in (('rgb', pixels[:, :, :3]), ('rgba', pixels), ('grey', pixels[:, :, 0])):
        Image.fromarray(array).save(tmp_path / f'{name}.png')
        expected = preprocessing.load(tmp_path / f'{name}.png', Preprocessing(16, 'crop'))
        np.testing.assert_array_equal(preprocessing.load(array, Preprocessing(16, 'crop')),
                                      expected)
        np.testing.assert_array_equal(
            preprocessing.load(Image.fromarray(array), Preprocessing(16, 'crop')), expected)
    for wrong in (pixels.astype(float), pixels[:, :, :2], pixels[np.newaxis], pixels[:0]):
        with pytest.raises(ValueError, match=r'pixels'):
            preprocessing.load(wrong, Preprocessing(16, 'crop'))


def test_a_decoded_picture_is_not_turned_again(tmp_path):
    picture = Image.fromarray(
        np.random.default_rng(1).integers(0, 256, (31, 23, 3), dtype=np.uint8))
    for orientation in range(1, 9):
        exif = Image.Exif()
        exif[0x0112] = orientation
        picture.save(tmp_path / 'a.png', exif=exif)
        once = photos.decode(tmp_path / 'a.png')
        np.testing.assert_array_equal(photos.decode(once), once)
        np.testing.assert_array_equal(photos.decode(Image.open(tmp_path / 'a.png')), once)


def test_pixels_are_counted_without_reading_them(tmp_path):
    Image.new('RGBA', (3000, 2000)).save(tmp_path / 'a.tif', compression='tiff_lzw')
    assert photos.pixel_count(tmp_path / 'a.tif') == 6_000_000
