"""Attention correctness from COCO's files to scores.json, by the three scripts.

prepro.py --instances, train.py, evaluate.py --synonyms.
"""

import json

import numpy as np
import pytest
from PIL import Image

from core.datasets.coco import split_of
from tests.support import scripts
from tests.support.sample_dirs import TINY_RUN
from tests.support.scripts import assert_refused

SENTENCE = 'A woman walks two puppies near a hot dog.'
CATEGORIES = [{'id': 1, 'name': 'person'}, {'id': 18, 'name': 'dog'}, {'id': 58, 'name': 'hot dog'}]
# the left half, the upper right quarter; no hot dog is there
BOXES = {1: [0, 0, 8, 16], 18: [8, 0, 8, 8]}


@pytest.fixture(scope='module')
def coco_run(tmp_path_factory):
    """Return a run that writes SENTENCE for every photo; its val images have boxes."""
    root = tmp_path_factory.mktemp('coco')
    random = np.random.default_rng(1)
    for split, ids in (('train', range(1, 9)), ('val', range(11, 17))):
        (root / f'{split}2017').mkdir()
        images = [{'id': i, 'file_name': f'{i}.png', 'width': 16, 'height': 16} for i in ids]
        for image in images:
            pixels = random.integers(0, 256, (16, 16, 3), np.uint8)
            Image.fromarray(pixels).save(root / f'{split}2017' / image['file_name'])
        # None for the test images: nothing is scored, which would take longer than all the rest.
        captions = [{'id': i, 'image_id': i, 'caption': SENTENCE} for i in ids
                    if split_of(i, split) != 'test']
        (root / f'captions_{split}2017.json').write_text(
            json.dumps({'images': images, 'annotations': captions}))
        things = [{'id': 10 * i + category, 'image_id': i, 'category_id': category, 'bbox': box,
                   'iscrowd': 0} for i in ids for category, box in BOXES.items()]
        (root / f'instances_{split}2017.json').write_text(json.dumps(
            {'images': images, 'annotations': things, 'categories': CATEGORIES}))
    captions = [root / f'captions_{split}2017.json' for split in ('train', 'val')]
    done = scripts.run('prepro.py', '--dataset', 'coco2017', '--images', root, '--captions',
                       *captions, '--instances', root / 'instances_val2017.json', '--encoder',
                       'vgg19', '--weights', 'random', '--layer', 'conv2_2', '--image-size', 32,
                       '--resize', 'squash', '--out', root / 'data')
    assert done.returncode == 0, done.stderr
    done = scripts.run('train.py', root / 'data', '--out', root / 'run', *scripts.settings(
        *TINY_RUN, 'n_epochs=40', 'validate_every=40', 'dropout=false'))
    assert done.returncode == 0, done.stderr
    return root / 'run'


def evaluated(run, out, *arguments):
    done = scripts.run('evaluate.py', run, '--split', 'test', '--pictures', 0, '--out', out,
                       *arguments)
    assert done.returncode == 0, done.stderr
    captions = json.loads((out / 'captions.json').read_text())
    assert captions and {row['caption'] for row in captions} == {SENTENCE.lower()[:-1]}
    return len(captions), json.loads((out / 'scores.json').read_text())['attention'], done.stdout


def test_words_of_captions_are_measured_on_the_boxes_of_their_categories(coco_run, tmp_path):
    n_images, attention, output = evaluated(coco_run, tmp_path / 'out')
    # 'woman' is a person, 'puppies' are dogs, and a 'hot dog' is no dog.
    assert {name: row['n_words'] for name, row in attention['by_class'].items()} == {
        'dog': n_images, 'person': n_images}
    assert list(attention['by_name']) == ['puppy', 'woman'] and attention['n_words'] == 2 * n_images
    person, dog = attention['by_class']['person'], attention['by_class']['dog']
    for row, share, middle in ((person, 0.5, 0.5), (dog, 0.25, 0.25)):
        # The boxes lie on the edges of cells and have the picture's centre for a corner or on a
        # side.
        assert row['uniform_mass'] == row['uniform_pointing'] == pytest.approx(share)
        assert row['centre_mass'] == pytest.approx(share) and row['centre_pointing'] == middle
        assert 0 < row['mass'] < 1 and row['mass_ratio'] == pytest.approx(row['mass'] / share)
    assert f'over {2 * n_images} words that name an object' in output
    assert [line.split()[:2] for line in output.splitlines()
            if line.startswith(('dog ', 'person '))] == [['dog', str(n_images)],
                                                         ['person', str(n_images)]]


def test_a_list_of_synonyms_of_ones_own(coco_run, tmp_path):
    path = tmp_path / 'synonyms.txt'
    path.write_text('person, man\ndog, puppy\n')
    n_images, attention, _ = evaluated(coco_run, tmp_path / 'out', '--synonyms', path)
    # No 'woman' in this list; and a 'hot dog' is no dog, though neither list nor data have that
    # category.
    assert {name: row['n_words']
            for name, row in attention['by_name'].items()} == {'puppy': n_images}


def test_lists_that_do_not_fit_are_refused(coco_run, tmp_path):
    path, out = tmp_path / 'synonyms.txt', tmp_path / 'out'
    path.write_text('zebra, pony\n')
    for arguments, part in (
        ([coco_run, '--synonyms', path], 'none of the categories of these data (dog, person'),
        ([coco_run, '--split', 'train', '--synonyms', path], 'the train images have no boxes'),
        ([coco_run, '--synonyms', tmp_path / 'gone.txt'], 'gone.txt: cannot be read')):
        assert_refused(scripts.run('evaluate.py', *arguments, '--out', out), part)
    assert not out.exists()
