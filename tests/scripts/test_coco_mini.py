"""Real photos: 80 of COCO train2017 at their own sizes, through reader, encoder and DATA DIR."""

import json
import shutil

import numpy as np
import pytest
from PIL import Image

from core import datasets
from core.common.errors import InputError
from core.data import prepare
from core.data.data_dir import DataDir
from core.data.feature_file import FeatureFile
from core.datasets.records import SPLITS
from core.encoders import preprocessing
from core.encoders.encoder import Encoder, describe
from tests.support.files import assert_same_data

GREY, CUT = 7, 50  # which of the photos are made greyscale and truncated


@pytest.fixture
def coco(shared, tmp_path):
    """Return a copy of the photos, one saved in greyscale and one cut, and their captions file."""
    source = shared / 'data' / 'coco-mini'
    shutil.copytree(source / 'train2017', tmp_path / 'coco' / 'train2017',
                    copy_function=shutil.copyfile)
    names = [entry['file_name'] for entry in json.loads(
        (source / 'annotations' / 'captions_train2017.json').read_text())['images']]
    grey, cut = (tmp_path / 'coco' / 'train2017' / names[number] for number in (GREY, CUT))
    Image.open(grey).convert('L').save(grey)
    cut.write_bytes(cut.read_bytes()[:cut.stat().st_size // 2])
    return tmp_path / 'coco', source / 'annotations' / 'captions_train2017.json'


def make(coco, spec, out, lines=None, limit=None, **options):
    records = datasets.select(datasets.read('coco2017', *coco), limit)
    say = (lambda line: None) if lines is None else lines.append
    return records, prepare.prepare(records, spec, out, 'coco2017', say=say, **options)


def test_eighty_photos_one_grey_one_truncated(coco, tmp_path):
    spec, out, lines = describe('vgg19', 'conv3_1', 64, seed=1), tmp_path / 'data', []
    published = datasets.read('coco2017', *coco)
    with pytest.raises(InputError) as caught:
        make(coco, spec, out)
    assert '1 image cannot be read: ' in str(caught.value)
    assert str(published[CUT].path) in str(caught.value)
    assert np.flatnonzero(~FeatureFile(out / 'features.h5').done()).tolist() == [CUT]
    with pytest.raises(InputError, match='has not finished here'):
        DataDir(out)

    records, manifest = make(coco, spec, out, lines, skip_unreadable=True)
    assert records == published and len(records) == 80
    assert list(manifest['unreadable']) == [str(records[CUT].path)]
    assert sum(counts['images'] for counts in manifest['splits'].values()) == 79
    assert sum(counts['captions'] + counts['too_long']
               for counts in manifest['splits'].values()) == 395
    assert '79 images were encoded before and are kept' in lines
    assert any(line.startswith('left out: ') and records[CUT].path.name in line for line in lines)

    data, seen = DataDir(out), 0
    with Encoder(spec) as encoder:
        for split in data.splits:
            part = data.split(split)
            kept = [record for row, record in enumerate(records) if record.split == split
                    and row != CUT]
            assert part.image_ids == [record.image_id for record in kept]
            assert part.references == [list(record.captions) for record in kept]
            pixels = np.stack(
                [preprocessing.load(record.path, spec.preprocessing) for record in kept])
            features = part.read_features(range(len(part)))
            assert features.shape == (len(kept), 256, 256)
            np.testing.assert_allclose(features, encoder.encode(pixels), rtol=2e-3, atol=1e-4)
            seen += len(part)
            if records[GREY] in kept:
                grey = pixels[kept.index(records[GREY])]
                assert (grey == grey[..., :1]).all() and np.ptp(grey) > 50
                assert np.ptp(features[kept.index(records[GREY])]) > 0.1
    assert seen == 79


def test_a_repaired_photo_is_picked_up(coco, shared, tmp_path):
    spec, out, lines = describe('vgg19', 'conv2_1', 32, seed=1), tmp_path / 'data', []
    with pytest.raises(InputError, match='1 image cannot be read'):
        make(coco, spec, out)
    name = datasets.read('coco2017', *coco)[CUT].path.name
    shutil.copyfile(shared / 'data' / 'coco-mini' / 'train2017' / name,
                    coco[0] / 'train2017' / name)
    _, manifest = make(coco, spec, out, lines)
    assert manifest['unreadable'] == {} and '79 images were encoded before and are kept' in lines
    make(coco, spec, tmp_path / 'whole')
    assert_same_data(out, tmp_path / 'whole')


def test_the_papers_features_of_a_few_photos(coco, tmp_path):
    records, manifest = make(coco, describe('vgg19', seed=1), tmp_path / 'data', limit=2,
                             skip_unreadable=True)
    assert [manifest['splits'][split]['images'] for split in SPLITS] == [2, 2, 2]
    features = DataDir(tmp_path / 'data').split('train').read_features([0, 1])
    assert features.shape == (2, 196, 512) and (features >= 0).all()
    assert np.abs(features[0] - features[1]).mean() > 0.05  # two photos, two features
