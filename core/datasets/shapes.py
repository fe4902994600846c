"""The `shapes` dataset: drawn scenes of coloured shapes, in the format of COCO.

    draw('data/shapes', n_train=3000, n_dev=200, n_test=200, seed=1, size=112)
    records = read('data/shapes')

What lies in a scene and what is said about it is decided in `scenes`; here it becomes pixels and
files:

    <dir>/images/000000000001.png ...
    <dir>/annotations/captions_{train,val,test}.json, instances_{train,val,test}.json
    <dir>/shapes.json               the parameters, and the sign that the directory is complete
"""

import json
import math
import os
import pathlib
import shutil
from collections.abc import Callable, Collection, Sequence
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image, ImageDraw

from core.common.aliases import Json, PathLike, Paths
from core.common.errors import InputError
from core.datasets import coco, scenes
from core.datasets.published_files import as_paths, directory, read_listing

if TYPE_CHECKING:
    from core.datasets.records import Record
    from core.datasets.scenes import Thing

_VERSION = 1
_FILES = ('train', 'val', 'test')  # val is read as dev
_FIRST_ID = {'train': 1, 'val': 10_000_001, 'test': 20_000_001}
_FINE = 8  # shapes are drawn so many times larger and averaged, for smooth edges
_COLOUR_JITTER = 12
_SMALLEST, _LARGEST = 32, 1024


def draw(out_dir: PathLike, n_train: int, n_dev: int, n_test: int, seed: int,
         size: int = 112) -> pathlib.Path:
    """Draw the dataset, unless it is drawn already with the same parameters.

    The same arguments give the same bytes (of the PNG files: with the same Pillow). No scene of one
    split has the objects and cells (`scenes.key`) of a scene in another. dev and test do not depend
    on `n_train`. The directory appears only when it is complete; a run that was killed leaves
    `.<name>.part` beside it, which the next removes.

    Args:
        out_dir: str or Path of the directory to make.
        n_train: int, number of training images.
        n_dev: int, number of images for validation.
        n_test: int, number of images for the final scores; not all three may be 0.
        seed: int of at least 0.
        size: int, side of the square images in pixels.

    Returns:
        pathlib.Path of the directory.

    Raises:
        InputError: a bad number, or the directory holds something else.
    """
    out_dir = pathlib.Path(out_dir)
    counts = {'train': n_train, 'val': n_dev, 'test': n_test}
    parameters = {'dataset': 'shapes', 'version': _VERSION, 'seed': seed, 'size': size,
                  'n_train': n_train, 'n_dev': n_dev, 'n_test': n_test}
    for name in ('seed', 'size', 'n_train', 'n_dev', 'n_test'):
        value = parameters[name]
        if isinstance(value, bool) or not isinstance(value, int) or value < 0:
            raise InputError(f'shapes: {name} is {value!r}; give a whole number of at least 0')
    if not _SMALLEST <= size <= _LARGEST:
        raise InputError(f'shapes: size is {size}; give {_SMALLEST} to {_LARGEST} pixels')
    if not 0 < sum(counts.values()) < _FIRST_ID['val']:
        raise InputError(f'shapes: {sum(counts.values())} images asked for; give 1 to '
                         f'{_FIRST_ID["val"] - 1}')
    if out_dir.exists() and not (out_dir.is_dir() and not any(out_dir.iterdir())):
        _check_same(out_dir, parameters)
        return out_dir

    out_dir.parent.mkdir(parents=True, exist_ok=True)
    part = out_dir.parent / f'.{out_dir.name}.part'
    shutil.rmtree(part, ignore_errors=True)
    try:
        (part / 'images').mkdir(parents=True)
        (part / 'annotations').mkdir()
        drawn: set[tuple] = set()
        for number, name in reversed(list(enumerate(_FILES))):
            rng = np.random.Generator(np.random.PCG64(np.random.SeedSequence([seed, number])))
            drawn |= _draw_split(part, name, counts[name], size, rng, drawn)
        _write_json(part / 'shapes.json', parameters)
        os.replace(part, out_dir)
    finally:
        shutil.rmtree(part, ignore_errors=True)
    return out_dir


def read(images: PathLike | None, captions: Paths = None, splits: None = None,
         instances: Paths = None) -> 'list[Record]':
    """Read what `draw` wrote: train, val and test files as train, dev and test, boxes always.

    Args:
        images: directory that `draw` wrote, or its folder `images`; None takes it from the
            captions' place.
        captions: path or list of paths of captions files; None takes those in `annotations`.
        splits: must be None.
        instances: path or list of paths of instances files; None takes those in `annotations`.

    Returns:
        list of Record with `boxes`; image ids are integers.
    """
    paths = as_paths(captions)
    if images is None and not paths:
        raise InputError('shapes: no directory given; name the one that holds shapes.json')
    root = directory(paths[0].absolute().parent.parent if images is None else images)
    if not (root / 'images').is_dir() and (root.parent / 'annotations').is_dir():
        root = root.parent
    annotations = root / 'annotations'
    if not paths:
        captions = [annotations / f'captions_{name}.json' for name in _FILES]
    if instances is None:
        instances = [annotations / f'instances_{name}.json' for name in _FILES]
    return coco.read(root / 'images', captions, None, instances, year='', divide=False)


def _check_same(out_dir: pathlib.Path, parameters: dict[str, Json]) -> None:
    """Raise InputError unless `out_dir` holds the dataset of these parameters, whole."""
    marker = out_dir / 'shapes.json'
    if not marker.is_file():
        raise InputError(f'{out_dir}: exists and is no drawn dataset; name another directory')
    drawn = read_listing(marker, 'the parameters of a drawn dataset')
    drawn = drawn if isinstance(drawn, dict) else {}
    other = [f'{name} {drawn.get(name)!r}, not {value!r}' for name, value in parameters.items()
             if drawn.get(name) != value]
    if other:
        raise InputError(f'{marker}: was drawn with other parameters ({"; ".join(other)}): '
                         'name another directory or delete this one')
    n_images = sum(parameters[name] for name in ('n_train', 'n_dev', 'n_test'))
    files = [out_dir / 'annotations' / f'{kind}_{name}.json' for kind in ('captions', 'instances')
             for name in _FILES]
    n_drawn = len(list(out_dir.glob('images/*.png')))
    if n_drawn != n_images or not all(file.is_file() for file in files):
        raise InputError(f'{out_dir}: files are missing since it was drawn; delete the directory')


def _draw_split(root: pathlib.Path, name: str, n_images: int, size: int, rng: np.random.Generator,
                taken: Collection[tuple]) -> set[tuple]:
    """Write images and annotations of one split; return the keys of its scenes.

    Args:
        root: of the dataset. name: of the file's split. n_images, size: as of `draw`.
        rng: np.random.Generator.
        taken: keys of scenes that must not be drawn.
    """
    keys: set[tuple] = set()
    images: list[dict] = []
    captions: list[dict] = []
    objects: list[dict] = []
    while len(images) < n_images:
        scene = scenes.sample(rng)
        if scenes.key(scene) in taken:
            continue
        keys.add(scenes.key(scene))
        image_id = _FIRST_ID[name] + len(images)
        pixels, boxes = _paint(scene, size, rng)
        file_name = f'{image_id:012d}.png'
        Image.fromarray(pixels).save(root / 'images' / file_name)
        images.append(
            {'id': image_id, 'file_name': file_name, 'width': size, 'height': size, 'license': 1})
        for caption in scenes.captions(scene, rng):
            captions.append(
                {'id': _FIRST_ID[name] + len(captions), 'image_id': image_id, 'caption': caption})
        for thing, box in zip(scene, boxes, strict=True):
            objects.append({'id': _FIRST_ID[name] + len(objects), 'image_id': image_id,
                            'category_id': 1 + list(scenes.SHAPES).index(thing.shape), 'bbox': box,
                            'area': box[2] * box[3], 'iscrowd': 0})
    head = {'info': {'description': f'Drawn scenes of coloured shapes, {name}',
                     'version': str(_VERSION)},
            'licenses': [{'id': 1, 'name': 'MIT License',
                          'url': 'https://opensource.org/license/mit'}], 'images': images}
    categories = [
        {'id': number, 'name': shape, 'supercategory': 'shape', 'synonyms': list(synonyms)}
        for number, (shape, synonyms) in enumerate(scenes.SHAPES.items(), 1)]
    _write_json(root / 'annotations' / f'captions_{name}.json', {**head, 'annotations': captions})
    _write_json(root / 'annotations' / f'instances_{name}.json',
                {**head, 'annotations': objects, 'categories': categories})
    return keys


def _write_json(path: pathlib.Path, content: Json) -> None:
    """Write JSON as compact as the published files, always the same bytes."""
    path.write_text(json.dumps(content, separators=(',', ':')) + '\n', encoding='utf8')


def _paint(scene: 'Sequence[Thing]', size: int,
           rng: np.random.Generator) -> tuple[np.ndarray, list[list[float]]]:
    """Draw one scene.

    Args:
        scene: tuple of Thing.
        size: int, side in pixels.
        rng: np.random.Generator, for the background and the shades.

    Returns:
        (uint8 array (size, size, 3), list of [x, y, width, height] in pixels, tight to an eighth of
        a pixel).
    """
    picture = _background(size, rng)
    boxes = []
    for thing in scene:
        jittered = [channel + (2 * rng.random() - 1) * _COLOUR_JITTER
                    for channel in scenes.COLOURS[thing.colour]]
        shade = np.clip(np.rint(jittered), 0, 255)
        mask, left, top = _mask(thing, size)
        rows, columns = np.nonzero(mask)
        boxes.append(
            [left + columns.min() / _FINE, top + rows.min() / _FINE,
             (columns.max() + 1 - columns.min()) / _FINE, (rows.max() + 1 - rows.min()) / _FINE])
        height, width = mask.shape[0] // _FINE, mask.shape[1] // _FINE
        cover = mask.reshape(height, _FINE, width, _FINE).sum(axis=(1, 3))[:, :, None] / _FINE**2
        patch = picture[top:top + height, left:left + width]
        patch[...] = np.floor(patch * (1 - cover) + shade * cover + 0.5)
    return picture.astype(np.uint8), boxes


def _background(size: int, rng: np.random.Generator) -> np.ndarray:
    """Return a background (size, size, 3) float64: a light colour, half of them with grey noise."""
    light = 205 + 35 * rng.random()
    tint = np.array([light + 12 * rng.random() for _ in range(3)])
    strength = 16 * rng.random() if rng.random() < 0.5 else 0.0
    side = 32
    noise = (2 * rng.random((side, side)) - 1) * strength
    nearest = np.arange(size) * side // size
    return np.rint(np.clip(tint + noise[np.ix_(nearest, nearest)][:, :, None], 0, 255))


def _mask(thing: 'Thing', size: int) -> tuple[np.ndarray, int, int]:
    """Return the mask of an object, and the left and top pixel of its place in the picture.

    The mask is a bool array of whole pixels around the object, `_FINE` times enlarged.
    """
    reach, (x, y) = thing.radius * size, (thing.x * size, thing.y * size)
    left, top = math.floor(x - reach), math.floor(y - reach)
    width, height = math.ceil(x + reach) - left, math.ceil(y + reach) - top
    mask = Image.new('1', (width * _FINE, height * _FINE))
    turn = math.radians(thing.angle)
    points = []
    for px, py in _outline(thing.shape):
        px, py = (px * math.cos(turn) - py * math.sin(turn),
                  px * math.sin(turn) + py * math.cos(turn))
        # Whole coordinates, so that the last bit of a sine on another machine changes no pixel.
        points.append(
            (round((x - left + reach * px) * _FINE), round((y - top + reach * py) * _FINE)))
    ImageDraw.Draw(mask).polygon(points, fill=1)
    return np.array(mask), left, top


def _outline(shape: str) -> list[tuple[float, float]]:
    """Return the corners of a shape, y downwards.

    They are inside the square [-1, 1], even when the shape is turned by 8 degrees.
    """
    if shape == 'circle':
        return _round(96, lambda t: (0.95 * math.cos(t), 0.95 * math.sin(t)))
    if shape == 'square':
        return [(-0.84, -0.84), (0.84, -0.84), (0.84, 0.84), (-0.84, 0.84)]
    if shape == 'triangle':
        return [(0, -0.86), (0.86, 0.78), (-0.86, 0.78)]
    if shape == 'star':
        return [(r * math.sin(math.pi * k / 5), -r * math.cos(math.pi * k / 5))
                for k in range(10) for r in [0.98 if k % 2 == 0 else 0.42]]
    if shape == 'cross':
        a, b = 0.3, 0.92
        return [(-a, -b), (a, -b), (a, -a), (b, -a), (b, a), (a, a),
                (a, b), (-a, b), (-a, a), (-b, a), (-b, -a), (-a, -a)]
    if shape == 'diamond':
        return [(0, -0.98), (0.66, 0), (0, 0.98), (-0.66, 0)]
    # a heart
    return _round(96, lambda t: (
        0.055 * 16 * math.sin(t)**3,
        -0.055 * (13 * math.cos(t) - 5 * math.cos(2 * t) - 2 * math.cos(3 * t) - math.cos(4 * t))
        - 0.13))


def _round(n: int, curve: Callable[[float], tuple[float, float]]) -> list[tuple[float, float]]:
    """Return n corners along a closed curve of an angle."""
    return [curve(2 * math.pi * k / n) for k in range(n)]
