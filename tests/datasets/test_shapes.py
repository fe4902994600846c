"""The drawn scenes: the same every time, in the COCO format, and described truly.

What captions say is checked against the boxes in the files and the pixels of the pictures, with
rules of its own.
"""

import collections
import colorsys
import hashlib
import json
import re

import numpy as np
import pytest
from PIL import Image

from core.common.errors import InputError
from core.data.vocabulary import tokenize
from core.datasets import read, select, shapes

COUNTS = {'n_train': 120, 'n_dev': 40, 'n_test': 40, 'seed': 3}
SHAPES = {'circle': 'circle', 'disc': 'circle', 'square': 'square', 'triangle': 'triangle',
          'star': 'star', 'cross': 'cross', 'plus': 'cross', 'heart': 'heart', 'diamond': 'diamond',
          'rhombus': 'diamond'}
SIZES = {'large': 'large', 'big': 'large', 'small': 'small', 'little': 'small', 'tiny': 'small'}
COLOURS = ('red', 'orange', 'yellow', 'green', 'blue', 'purple')
# Hue in degrees from which a colour begins, up to the next.
HUES = ((335, 'red'), (250, 'purple'), (190, 'blue'), (80, 'green'), (41, 'yellow'), (13, 'orange'),
        (0, 'red'))
RELATIONS = {'left of': 'left', 'right of': 'right', 'above': 'above', 'below': 'below',
             'under': 'below'}
NOUN = (rf'(?:(?P<size>{"|".join(SIZES)}) )?(?P<colour>{"|".join(COLOURS)}) '
        rf'(?P<shape>{"|".join(SHAPES)})')


@pytest.fixture(scope='module', params=[96, 224])
def drawn(request, tmp_path_factory):
    path = tmp_path_factory.mktemp('drawn') / 'scenes'
    return shapes.draw(path, **COUNTS, size=request.param)


def contents(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob('*'))
            if path.is_file()}


def colour_at(pixels, box):
    r, g, b = pixels[round(box.y + box.height / 2), round(box.x + box.width / 2)] / 255
    hue = 360 * colorsys.rgb_to_hsv(r, g, b)[0]
    return next(name for start, name in HUES if hue >= start)


def test_same_seed_same_bytes(tmp_path):
    arguments = {'n_train': 6, 'n_dev': 3, 'n_test': 3, 'seed': 5, 'size': 64}
    first = contents(shapes.draw(tmp_path / 'a', **arguments))
    assert contents(shapes.draw(tmp_path / 'deep' / 'b', **arguments)) == first
    assert len(first) == 12 + 6 + 1
    other = contents(shapes.draw(tmp_path / 'c', **{**arguments, 'seed': 6}))
    assert other['images/000000000001.png'] != first['images/000000000001.png']
    more = contents(shapes.draw(tmp_path / 'd', **{**arguments, 'n_train': 9}))
    assert {k: v for k, v in more.items() if 'val' in k} == {k: v for k, v in first.items()
                                                             if 'val' in k}


def test_pixels_are_pinned(tmp_path):
    """A change of what is drawn must come with a new version number in shapes.json."""
    folder = shapes.draw(tmp_path / 'a', 3, 0, 0, seed=0, size=64)
    pixels = np.stack([np.array(Image.open(path)) for path in sorted(folder.glob('images/*.png'))])
    assert pixels.shape == (3, 64, 64, 3)
    assert json.loads((folder / 'shapes.json').read_text())['version'] == 1
    assert hashlib.sha1(pixels.tobytes()).hexdigest() == '3a26416d4053fe13a9c91fccee62c69545afd5fc'
    assert [r.captions[0] for r in read('shapes',
                                        folder)] == [
        'A tiny yellow circle above a small red square.', 'A big purple circle in the bottom left '
        'corner.', 'A large orange circle, a small orange star and a small blue heart.']


def test_reuse_and_refusal(tmp_path):
    arguments = {'n_train': 3, 'n_dev': 1, 'n_test': 1, 'seed': 5, 'size': 64}
    out = tmp_path / 'a'
    out.mkdir()
    (tmp_path / '.a.part').mkdir()
    (tmp_path / '.a.part' / 'left by a kill').touch()
    assert shapes.draw(str(out), **arguments) == out
    before = {path: path.stat().st_mtime_ns for path in out.rglob('*')}
    shapes.draw(out, **arguments)
    assert {path: path.stat().st_mtime_ns for path in out.rglob('*')} == before
    assert [path.name for path in tmp_path.iterdir()] == ['a']
    with pytest.raises(InputError, match='seed 5, not 6'):
        shapes.draw(out, **{**arguments, 'seed': 6})
    next(out.glob('images/*')).unlink()
    with pytest.raises(InputError, match='missing'):
        shapes.draw(out, **arguments)
    (tmp_path / 'mine').mkdir()
    (tmp_path / 'mine' / 'thesis.txt').touch()
    with pytest.raises(InputError, match='no drawn dataset'):
        shapes.draw(tmp_path / 'mine', **arguments)


def test_interrupted_drawing_leaves_nothing(tmp_path, monkeypatch):
    def interrupt(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(shapes, '_paint', interrupt)
    with pytest.raises(KeyboardInterrupt):
        shapes.draw(tmp_path / 'a', 3, 1, 1, seed=5)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize('bad', [{'n_train': -1}, {'n_dev': 1.5}, {'seed': -3}, {'seed': None},
                                 {'size': 8}, {'n_train': 0, 'n_dev': 0, 'n_test': 0}])
def test_bad_numbers(tmp_path, bad):
    with pytest.raises(InputError, match='shapes: '):
        shapes.draw(tmp_path / 'a', **{**COUNTS, 'size': 64, **bad})
    assert list(tmp_path.iterdir()) == []


def test_coco_format(drawn):
    for name, n_images in (('train', 120), ('val', 40), ('test', 40)):
        captions = json.loads((drawn / 'annotations' / f'captions_{name}.json').read_text())
        instances = json.loads((drawn / 'annotations' / f'instances_{name}.json').read_text())
        assert set(captions) == {'info', 'licenses', 'images', 'annotations'}
        assert set(instances) == {'info', 'licenses', 'images', 'annotations', 'categories'}
        assert captions['images'] == instances['images']
        assert len(captions['images']) == n_images
        assert set(captions['images'][0]) >= {'id', 'file_name', 'width', 'height', 'license'}
        assert len(captions['annotations']) == 5 * n_images
        assert set(captions['annotations'][0]) == {'id', 'image_id', 'caption'}
        assert set(instances['annotations'][0]) == {'id', 'image_id', 'category_id', 'bbox', 'area',
                                                    'iscrowd'}
        assert set(instances['categories'][0]) == {'id', 'name', 'supercategory', 'synonyms'}
        for part in (captions['images'], captions['annotations'], instances['annotations']):
            assert len({row['id'] for row in part}) == len(part)
        for row in instances['annotations']:
            assert row['area'] == row['bbox'][2] * row['bbox'][3]
            assert row['iscrowd'] == 0


def test_read_finds_its_files(drawn):
    records = read('shapes', drawn)
    assert [r.split for r in records] == ['train'] * 120 + ['dev'] * 40 + ['test'] * 40
    assert all(r.path.is_file() and r.boxes for r in records)
    assert read('shapes', drawn / 'images') == records
    annotations = sorted((drawn / 'annotations').glob('captions_*.json'))
    assert {r.image_id for r in read('shapes', None, annotations)} == {r.image_id for r in records}
    assert read('shapes', drawn, drawn / 'annotations' / 'captions_train.json') == select(
        records, splits=['train'])
    with pytest.raises(InputError, match='shapes.json'):
        read('shapes', None)


def test_pictures_and_boxes_agree(drawn):
    """Strong colour lies inside the boxes only, and touches each of their edges; each box holds one
    colour.
    """
    for record in read('shapes', drawn):
        pixels = np.array(Image.open(record.path)).astype(int)
        assert record.size == pixels.shape[1::-1]
        vivid = pixels.max(axis=2) - pixels.min(axis=2) > 30
        covered = np.zeros_like(vivid)
        for box in record.boxes:
            left, right = int(np.floor(box.x)), int(np.ceil(box.x + box.width))
            top, bottom = int(np.floor(box.y)), int(np.ceil(box.y + box.height))
            assert left >= 0
            assert top >= 0
            assert right <= record.size[0]
            assert bottom <= record.size[1]
            assert not covered[top:bottom, left:right].any()
            covered[top:bottom, left:right] = True
            rows, columns = np.nonzero(vivid[top:bottom, left:right])
            assert rows.min() <= 2
            assert columns.min() <= 2
            assert rows.max() >= bottom - top - 3
            assert columns.max() >= right - left - 3
        assert not (vivid & ~covered).any()


def test_captions_are_true(drawn):
    relations = set()
    for record in read('shapes', drawn):
        pixels = np.array(Image.open(record.path))
        side = record.size[0]
        boxes = {box.names[0]: box for box in record.boxes}
        assert len(boxes) == len(record.boxes) <= 3
        assert len(set(record.captions)) == 5
        for caption in record.captions:
            assert 5 <= len(tokenize(caption)) <= 14
            text = ' '.join(tokenize(caption))
            nouns = list(re.finditer(NOUN, text))
            assert len(nouns) == sum(text.split().count(word) for word in SHAPES)
            named = []
            for noun in nouns:
                box = boxes[SHAPES[noun['shape']]]
                assert noun['shape'] in box.names
                assert colour_at(pixels, box) == noun['colour'], (record.path, caption)
                if noun['size']:
                    extent = max(box.width, box.height) / side
                    assert extent > 0.26 if SIZES[noun['size']] == 'large' else extent < 0.22
                named.append(box)
            assert len(set(named)) == len(named)
            assert ('three' in text) <= (len(boxes) == 3)
            if ' and ' in text:
                assert len(named) == len(boxes)
            found = [RELATIONS[words] for words in RELATIONS if f' {words} ' in text]
            relations.update(found)
            if found:
                assert related(found[0], *named, 0.03 * side - 0.5), (record.path, caption)
            elif len(boxes) == 1:
                check_place(text, named[0], side)
            assert not re.search(r'\ba [aeiou]|\ban [^aeiou]', text)
    assert relations == {'left', 'right', 'above', 'below'}


def related(relation, a, b, margin):
    """Whether box a lies so from box b: apart in that direction, and less far across it."""
    across = abs(a.x + a.width / 2 - b.x - b.width / 2)
    down = abs(a.y + a.height / 2 - b.y - b.height / 2)
    if relation in ('left', 'right'):
        first, second = (a, b) if relation == 'left' else (b, a)
        return first.x + first.width + margin <= second.x and across > down
    first, second = (a, b) if relation == 'above' else (b, a)
    return first.y + first.height + margin <= second.y and down > across


def check_place(text, box, side):
    x, y = (box.x + box.width / 2) / side, (box.y + box.height / 2) / side
    for word, inside in (('left', x < 0.34), ('right', x > 0.66), ('top', y < 0.34),
                         ('bottom', y > 0.66)):
        assert (word in text.split()) == inside, text
    assert ('middle' in text or 'center' in text) == (0.34 < x < 0.66 and 0.34 < y < 0.66)


def test_splits_share_no_scene(tmp_path):
    """Not even with the objects moved about within the nine parts of the picture.

    There are but 756 scenes of one object: drawn without regard to each other, these splits would
    share a dozen.
    """
    folder = shapes.draw(tmp_path / 'a', n_train=800, n_dev=150, n_test=150, seed=2, size=48)
    scenes = {'train': set(), 'dev': set(), 'test': set()}
    sizes = collections.Counter()
    for record in read('shapes', folder):
        pixels, side = np.array(Image.open(record.path)), record.size[0]
        scenes[record.split].add(tuple(sorted(
            (box.names[0], colour_at(pixels, box), max(box.width, box.height) > 0.24 * side,
             int(3 * (box.x + box.width / 2) / side), int(3 * (box.y + box.height / 2) / side))
            for box in record.boxes)))
        sizes[record.split, len(record.boxes)] += 1
    assert not scenes['train'] & (scenes['dev'] | scenes['test'])
    assert not scenes['dev'] & scenes['test']
    assert 0.13 < sizes['train', 1] / 800 < 0.27
    assert 0.43 < sizes['train', 2] / 800 < 0.57


def test_colours_and_sizes_and_shapes_all_occur(drawn):
    words = {word for record in read('shapes', drawn) for caption in record.captions
             for word in tokenize(caption)}
    assert words >= {*SHAPES, *SIZES, *COLOURS, 'left', 'right', 'above', 'below', 'under',
                     'corner', 'middle'}
