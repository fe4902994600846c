"""Attention pictures: light falls where the attention is."""

import io

import numpy as np
import pytest
from PIL import Image

from core.common.errors import InputError
from core.data.data_dir import CaptionData
from core.data.feature_file import ArrayFeatures
from core.decoding.captions import Caption
from core.encoders.preprocessing import Preprocessing
from core.viewer import attention_pictures

ROWS, COLS = 3, 4
GREY = np.full((60, 80, 3), 200, np.uint8)
YELLOW = np.array([255, 212, 0])


def peak(row, col):
    alpha = np.zeros((ROWS, COLS), np.float32)
    alpha[row, col] = 1
    return alpha.ravel()


def caption(n_words):
    alphas = np.array([peak(t % ROWS, t % COLS) for t in range(n_words)]).reshape(
        n_words, ROWS * COLS)
    return Caption([f'word{t}' for t in range(n_words)], alphas, np.full(n_words, 0.5), True, -1.0,
                   -1.0, np.ones(n_words))


@pytest.mark.parametrize(('row', 'col'), [(0, 0), (1, 2), (2, 3), (2, 0)])
@pytest.mark.parametrize('shape', [(60, 80), (61, 83), (224, 224)])
def test_smooth_peaks_in_its_cell(row, col, shape):
    weights = attention_pictures.smooth(peak(row, col), (ROWS, COLS), shape)
    assert weights.shape == shape and weights.max() == 1 and weights.min() >= 0
    y, x = np.unravel_index(weights.argmax(), shape)
    assert (y * ROWS // shape[0], x * COLS // shape[1]) == (row, col)
    far = weights[shape[0] - 1 if row == 0 else 0, 0 if col >= 2 else shape[1] - 1]
    assert far < 0.05


def test_smooth_of_even_and_of_no_attention():
    np.testing.assert_allclose(
        attention_pictures.smooth(np.full(12, 1 / 12), (ROWS, COLS), (30, 40)), 1)
    assert (attention_pictures.smooth(np.zeros(12), (ROWS, COLS), (30, 40)) == 0).all()


def test_smooth_keeps_the_order_of_weights():
    weights = attention_pictures.smooth(0.3 * peak(0, 0) + 0.7 * peak(2, 3), (ROWS, COLS), (60, 80))
    assert weights[5, 5] / weights[55, 75] == pytest.approx(3 / 7, abs=0.02)


def test_light_is_dark_outside():
    weights = np.zeros((60, 80))
    weights[:, 40:] = 1
    lit = attention_pictures.light(GREY, weights)
    assert lit.dtype == np.uint8 and (lit[:, 40:] == 200).all() and (lit[:, :40] == 40).all()


def lit_share(panel):
    return (panel.mean(axis=2) > 150).mean()


def test_picture_has_a_panel_a_word():
    heights = {n: attention_pictures.attention_picture(GREY, caption(n), (ROWS, COLS)).shape
               for n in (1, 4, 5, 9, 10)}
    assert heights[1][0] == heights[4][0] < heights[5][0] == heights[9][0] < heights[10][0]
    # never narrower than its title
    assert len({width for _, width, _ in heights.values() if width}) == 2


def test_panels_show_the_photo_then_the_attention():
    picture = attention_pictures.attention_picture(GREY, caption(9), (ROWS, COLS))
    assert picture.dtype == np.uint8
    side = int(attention_pictures.PANEL * 100)
    height = side * 60 // 80
    top = 55  # the head
    for panel in range(10):
        row, col = divmod(panel, attention_pictures.COLUMNS)
        y, x = top + row * (height + 30) + 30, col * side
        part = picture[y + 5:y + height - 5, x + 10:x + side - 10].astype(float)
        if panel == 0:
            assert np.abs(part - 200).max() <= 1
            continue
        word = panel - 1
        brightest = np.unravel_index(part.mean(axis=2).argmax(), part.shape[:2])
        assert brightest[0] * ROWS // part.shape[0] == word % ROWS
        assert brightest[1] * COLS // part.shape[1] == word % COLS
        assert part.min() < 60 < 180 < part.max()


def test_boxes_are_drawn_on_the_panels_of_their_words():
    plain = attention_pictures.attention_picture(GREY, caption(3), (ROWS, COLS))
    boxed = attention_pictures.attention_picture(GREY, caption(3), (ROWS, COLS),
                                                 boxes=[({1}, (0.25, 0.25, 0.75, 0.75))])
    yellow = np.abs(boxed.astype(int) - YELLOW).max(axis=2) < 40
    assert not (np.abs(plain.astype(int) - YELLOW).max(axis=2) < 40).any()
    columns = np.flatnonzero(yellow.any(axis=0))
    assert columns.min() >= 400 and columns.max() < 600  # the third panel shows the second word
    assert columns.min() == pytest.approx(450, abs=6) and columns.max() == pytest.approx(550, abs=6)


def test_no_word_and_odd_texts():
    assert attention_pictures.attention_picture(GREY, caption(0), (ROWS, COLS)).shape[2] == 3
    odd = Caption(['$x_{$', '🙂' * 40, '\\frac'], np.full((3, 12), 1 / 12), np.zeros(3), False,
                  -1.0, -1.0, np.ones(3))
    attention_pictures.attention_picture(GREY, odd, (ROWS, COLS), ['$$', 'a' * 900, 'ä'],
                                         name='$%_{')


@pytest.mark.parametrize(('resize', 'shape'), [('crop', (320, 320, 3)), ('squash', (160, 320, 3))])
def test_view_is_what_the_encoder_sees(tmp_path, resize, shape):
    photo = np.zeros((50, 100, 3), np.uint8)
    photo[:, 50:] = 255
    Image.fromarray(photo).save(tmp_path / 'a.png')
    view = attention_pictures.view(tmp_path / 'a.png', Preprocessing(224, resize))
    assert view.shape == shape and view.dtype == np.uint8
    assert view[:, :100].max() < 5 and view[:, -100:].min() > 250
    with pytest.raises(InputError, match='gone.png'):
        attention_pictures.view(tmp_path / 'gone.png', Preprocessing(224, resize))


def test_safe_picture_without_photos():
    data = CaptionData(ArrayFeatures(np.zeros((1, 12, 2))), [0], np.zeros((0, 3)), [], ['a'],
                       [['x']])
    assert attention_pictures.safe_picture(data, 0, caption(1)) is None


def test_png():
    picture = np.random.default_rng(0).integers(0, 255, (7, 5, 3), np.uint8)
    np.testing.assert_array_equal(
        np.asarray(Image.open(io.BytesIO(attention_pictures.png(picture)))), picture)


def test_an_animation_shows_each_word_and_moves_between():
    """Its frames follow the attention from cell to cell; the words stand below, one bright."""
    film = Image.open(io.BytesIO(attention_pictures.animation(GREY, caption(3), (ROWS, COLS))))
    assert film.format == 'GIF' and film.info['loop'] == 0
    frames, durations = [], []
    for number in range(film.n_frames):
        film.seek(number)
        frames.append(np.asarray(film.convert('L'), float))
        durations.append(film.info['duration'])
    assert len(frames) == 1 + 3 * (attention_pictures.GLIDES + 1)
    held = [number for number, duration in enumerate(durations)
            if duration == attention_pictures.WORD_MS]
    assert held == [
        0, *range(attention_pictures.GLIDES + 1, len(frames), attention_pictures.GLIDES + 1)]
    np.testing.assert_allclose(frames[0][:60], 200, atol=8)  # the photo as it is
    for t, number in enumerate(held[1:]):
        cells = frames[number][:60].reshape(ROWS, 20, COLS, 20).mean(axis=(1, 3))
        assert np.unravel_index(cells.argmax(), cells.shape) == (t % ROWS, t % COLS)
    between = frames[held[1] + 2][:60].reshape(ROWS, 20, COLS, 20).mean(axis=(1, 3))
    # on its way from the first word's cell to the second's
    assert between[0, 0] > between[2, 2] + 20 < between[1, 1]
    assert all((frames[number][62:] > 240).any() for number in held)
    assert any((frames[held[1]][62:] != frames[held[2]][62:]).ravel())


def test_an_animation_of_no_words_is_the_photo():
    film = Image.open(io.BytesIO(attention_pictures.animation(GREY, caption(0), (ROWS, COLS))))
    assert film.n_frames == 1 and np.asarray(film.convert('L'))[:60].mean() > 190


def test_a_view_of_pixels_is_that_of_their_file(tmp_path):
    pixels = np.random.default_rng(1).integers(0, 256, (30, 47, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / 'a.png')
    for resize in ('crop', 'squash'):
        seen = [attention_pictures.view(photo, Preprocessing(28, resize), 40) for photo in (
            tmp_path / 'a.png', (tmp_path / 'a.png').read_bytes(), pixels, Image.fromarray(pixels))]
        assert all((other == seen[0]).all() for other in seen)
        assert seen[0].shape == ((40, 40, 3) if resize == 'crop' else (26, 40, 3))


def test_names_that_are_no_text_can_be_drawn():
    drawn = attention_pictures.attention_picture(GREY, caption(2), (ROWS, COLS), ['a \ud83d dog'],
                                                 name='odd\udcff.jpg')
    assert drawn.ndim == 3
