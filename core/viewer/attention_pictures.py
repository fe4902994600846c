"""Attention pictures: the photo, then a panel a word, lit where the model looked (fig. 2-5)."""

import io
import math
import warnings
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

import imageio.v3 as imageio
import numpy as np
from matplotlib import font_manager
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from PIL import Image, ImageDraw, ImageFont
from scipy import ndimage

from core.common.aliases import Grid
from core.common.errors import InputError
from core.encoders.photos import Photo, decode
from core.encoders.preprocessing import Preprocessing, square

if TYPE_CHECKING:
    from core.data.split import Split
    from core.decoding.captions import Caption

PANEL, GAP = 2.0, 0.1  # inches
COLUMNS = 5
# of an animation: a word, and the frames from one to the next
WORD_MS, GLIDES, GLIDE_MS = 700, 2, 80
DARKEST = 0.2  # brightness of a place without attention


def smooth(alpha: np.ndarray, grid: Grid, shape: tuple[int, int]) -> np.ndarray:
    """Spread attention over a grid into a smooth map over pixels.

    Args:
        alpha: (L,) weights, L = rows * cols, row by row.
        grid: (rows, cols).
        shape: (height, width) of the map.

    Returns:
        (height, width) float in 0..1, 1 at the strongest place; each cell's weight is spread with
        the width of half a cell, like the Gaussian upsampling of the paper's pictures (section
        5.4).
    """
    rows, cols = grid
    cells = np.asarray(alpha, float).reshape(rows, cols)
    height, width = shape
    blocks = cells[np.arange(height) * rows // height][:, np.arange(width) * cols // width]
    spread = ndimage.gaussian_filter(blocks, (0.5 * height / rows, 0.5 * width / cols),
                                     mode='nearest')
    return spread / max(spread.max(), 1e-12)


def light(picture: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Return the picture (h, w, 3) uint8 lit by weights (h, w) in 0..1, dark where they are 0."""
    lit = picture * (DARKEST + (1 - DARKEST) * weights[:, :, np.newaxis])
    return lit.round().astype(np.uint8)


def attention_picture(picture: np.ndarray, caption: 'Caption', grid: Grid,
                      references: Sequence[str] = (),
                      boxes: Iterable[tuple[Iterable[int], Sequence[float]]] = (),
                      name: str = '') -> np.ndarray:
    """Return the whole picture for one image.

    Args:
        picture: (h, w, 3) uint8, the part of the photo that the encoder sees, of any aspect ratio.
        caption: core.decoding.captions.Caption.
        grid: (rows, cols) of the attention.
        references: texts shown below.
        boxes: pairs of (words, (x0, y0, x1, y1)): drawn on the panels of the words that name them,
            `words` being the places of these words in the caption.
        name: shown above.

    Returns:
        (H, W, 3) uint8.
    """
    n_panels = len(caption.words) + 1
    rows = math.ceil(n_panels / COLUMNS)
    cols = min(n_panels, COLUMNS)
    height, width = picture.shape[:2]
    panel_height = PANEL * height / width
    notes = [f'reference: {text}' for text in references[:5]]
    foot, head = 0.18 * len(notes) + 0.1, 0.55
    size = (max(cols * PANEL, 7.0), rows * (panel_height + 0.3) + foot + head)
    figure = Figure(figsize=size, dpi=100, facecolor='white')
    canvas = FigureCanvasAgg(figure)
    figure.text(0.5, 1 - 0.12 / size[1], _short(' '.join(caption.words) or '(no word)', 95),
                ha='center', va='top', fontsize=11, weight='bold', parse_math=False)
    figure.text(0.5, 1 - 0.36 / size[1], _short(name, 110), ha='center', va='top', fontsize=7,
                color='0.4', parse_math=False)
    for i, note in enumerate(notes):
        figure.text(0.01, (foot - 0.15 - 0.18 * i) / size[1], _short(note, 135), fontsize=7,
                    color='0.2', parse_math=False)
    gated = np.any(caption.betas != 1)  # a model without the gate has ones
    for panel in range(n_panels):
        row, col = divmod(panel, COLUMNS)
        bottom = size[1] - head - (row + 1) * (panel_height + 0.3)
        axes = figure.add_axes(((col * PANEL + 0.5 * GAP) / size[0], (bottom + 0.5 * GAP) / size[1],
                                (PANEL - GAP) / size[0], (PANEL - GAP) * height / width / size[1]))
        axes.set_axis_off()
        if panel == 0:
            axes.imshow(picture, aspect='auto')
            continue
        axes.imshow(light(picture, smooth(caption.alphas[panel - 1], grid, (height, width))),
                    aspect='auto')
        gate = f'  β {caption.betas[panel - 1]:.2f}' if gated else ''
        axes.set_title(_short(caption.words[panel - 1], 18) + gate, fontsize=8, pad=2,
                       parse_math=False)
        for places, (x0, y0, x1, y1) in boxes:
            if panel - 1 in places:
                axes.add_patch(
                    Rectangle((x0 * width - 0.5, y0 * height - 0.5), (x1 - x0) * width,
                              (y1 - y0) * height, fill=False, edgecolor='#ffd400', linewidth=1.2))
    with warnings.catch_warnings():
        # an emoji that the font lacks is drawn as a box
        warnings.filterwarnings('ignore', 'Glyph', UserWarning)
        canvas.draw()
    return np.asarray(canvas.buffer_rgba())[:, :, :3].copy()


def view(photo: Photo, preprocessing: Preprocessing, side: int = 320) -> np.ndarray:
    """Return what the encoder sees of a photo, large enough to look at: (h, w, 3) uint8.

    With resize 'squash' the photo's own aspect ratio is given back, as the attention covers all of
    it.

    Args:
        photo: path, bytes or pixels, see `core.encoders.photos.decode`.
        preprocessing: `Preprocessing`.
        side: pixels of the longer side.

    Raises:
        InputError: the file is gone or unreadable.
    """
    image = decode(photo)
    if preprocessing.resize != 'squash':
        return square(image, Preprocessing(side, preprocessing.resize))
    scale = side / max(image.size)
    width, height = (max(1, round(length * scale)) for length in image.size)
    return np.asarray(image.resize((width, height), Image.Resampling.BILINEAR))


def picture_of(data: 'Split', image: int, caption: 'Caption',
               boxes: Iterable[tuple[Iterable[int], Sequence[float]]] = ()) -> np.ndarray:
    """Return `attention_picture` of image number `image` of a Split that came from a DATA DIR."""
    assert data.encoder and data.paths
    preprocessing = Preprocessing(data.encoder['size'], data.encoder['resize'])
    photo = view(data.paths[image], preprocessing)
    return attention_picture(photo, caption, tuple(data.encoder['grid']), data.references[image],
                             boxes, str(data.image_ids[image]))


def safe_picture(data: 'Split', image: int, caption: 'Caption') -> np.ndarray | None:
    """Return `picture_of`, or None where the data have no photos or the photo is gone."""
    if data.encoder is None or data.paths is None:
        return None
    try:
        return picture_of(data, image, caption)
    except InputError:
        return None


def png(picture: np.ndarray) -> bytes:
    """Return the bytes of a PNG file of (h, w, 3) uint8."""
    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, 'PNG')
    return buffer.getvalue()


def animation(picture: np.ndarray, caption: 'Caption', grid: Grid) -> bytes:
    """Return the attention moving over the photo, word by word, as a GIF that repeats.

    Args:
        picture, caption, grid: as of `attention_picture`.

    Returns:
        bytes of the GIF: each word is shown for WORD_MS with the caption below, in which it stands
        out, and the light glides to the next word's place.
    """
    height, width = picture.shape[:2]
    maps = [smooth(alpha, grid, (height, width)) for alpha in caption.alphas]
    frames, durations = [_frame(picture, caption.words, None)], [WORD_MS]
    for place, weights in enumerate(maps):
        before = maps[place - 1] if place else np.ones_like(weights)
        for share in (np.arange(GLIDES) + 1) / (GLIDES + 1):
            frames.append(_frame(
                light(picture, (1 - share) * before + share * weights), caption.words, place))
            durations.append(GLIDE_MS)
        frames.append(_frame(light(picture, weights), caption.words, place))
        durations.append(WORD_MS)
    # Of a single frame, that of a caption without words, Pillow wants one number.
    return imageio.imwrite('<bytes>', np.stack(frames), extension='.gif', loop=0,
                           duration=durations if len(durations) > 1 else WORD_MS)


def _frame(picture: np.ndarray, words: Sequence[str], place: int | None) -> np.ndarray:
    """Return the picture with the words below, the one at `place` bright: (H, W, 3) uint8."""
    font = ImageFont.truetype(font_manager.findfont('DejaVu Sans'), 15)
    width, margin, leading = picture.shape[1], 8, 21
    lines: list[list[tuple[float, int, str]]] = [[]]
    x: float = margin
    for number, word in enumerate(words or ['(no word)']):
        length = font.getlength(f'{word} ')
        if x + length > width - margin and lines[-1]:
            lines.append([])
            x = margin
        lines[-1].append((x, number, word))
        x += length
    image = Image.new('RGB', (width, picture.shape[0] + 2 * margin + leading * len(lines)), 'black')
    image.paste(Image.fromarray(picture))
    draw = ImageDraw.Draw(image)
    for row, line in enumerate(lines):
        for x, number, word in line:
            color = 'white' if place is None else 'white' if number == place else '#8a8a8a'
            draw.text((x, picture.shape[0] + margin + row * leading), word, color, font)
    return np.asarray(image)


def _short(text: str, length: int) -> str:
    # file names and captions may hold what no font can draw
    text = text.encode('utf8', 'replace').decode()
    return text if len(text) <= length else text[: length - 1] + '…'
