"""From records to a complete DATA DIR: features, captions, unreadable images, full disks."""

import collections
import json
import os
import resource
import shutil

import h5py
import numpy as np
import pytest
from PIL import Image

from core.common.errors import InputError
from core.data import feature_file, prepare
from core.data.data_dir import DataDir
from core.data.vocabulary import TOKENS, Vocabulary
from core.datasets.records import Box, Record
from core.encoders.encoder import Encoder, describe
from core.encoders.preprocessing import load
from tests.support.files import assert_same_data, data_contents
from tests.support.prepared import CAPTIONS, make, records_in
from tests.support.sample_photos import photo
from tests.support.tolerances import assert_same_features


@pytest.fixture(scope='module')
def spec():
    return describe('vgg19', 'conv1_2', 32, seed=3)


@pytest.fixture
def lines():
    return []


@pytest.fixture
def decoded(monkeypatch):
    """Counts the real decodings by file name."""
    counts = collections.Counter()

    def counting(path, preprocessing):
        counts[path.name] += 1
        return load(path, preprocessing)

    monkeypatch.setattr(prepare, 'load', counting)
    return counts


def test_features_are_the_encoders_own_in_the_order_of_the_records(tmp_path, spec, lines):
    records = records_in(tmp_path / 'photos', 70)  # more than two batches
    manifest = make(records, spec, tmp_path / 'data', lines)
    with Encoder(spec) as encoder:
        expected = encoder.encode(
            np.stack([load(record.path, spec.preprocessing) for record in records]))
    with h5py.File(tmp_path / 'data' / 'features.h5') as file:
        features, done = file['features'][:], file['done'][:]
    assert features.dtype == np.float16 and done.tolist() == [1] * 70
    np.testing.assert_allclose(features.astype(np.float32), expected, rtol=2e-3, atol=1e-4)
    assert np.ptp(expected, axis=0).max() > 0.1  # the pictures do differ
    data = DataDir(tmp_path / 'data')
    for split in data.splits:
        of_split = data.split(split)
        rows = [row for row, record in enumerate(records) if record.split == split]
        np.testing.assert_array_equal(of_split.read_features(range(len(rows))), features[rows])
        assert of_split.image_ids == [records[row].image_id for row in rows]
        assert of_split.paths == [str(records[row].path) for row in rows]
        assert of_split.references == [list(CAPTIONS)] * len(rows)
    assert data.manifest == manifest and manifest['encoder'] == spec.to_dict()
    # before anything else
    assert '70 images x 32x32 locations x 64 float16 from vgg19 conv1_2: 9.18 MB' in lines[0]
    assert '36 train images with 72 captions' in lines[-1]


def test_a_complete_directory_is_left_alone(tmp_path, spec, lines, decoded):
    records = records_in(tmp_path / 'photos', 6)
    manifest = make(records, spec, tmp_path / 'data')
    before = {path.name: (path.stat().st_mtime_ns, path.stat().st_ino)
              for path in (tmp_path / 'data').iterdir()}
    decoded.clear()
    assert make(records, spec, tmp_path / 'data', lines) == manifest
    assert not decoded and len(lines) == 1 and 'is complete' in lines[0]
    after = {path.name: (path.stat().st_mtime_ns, path.stat().st_ino)
             for path in (tmp_path / 'data').iterdir()}
    assert before == after


@pytest.mark.parametrize('change, named', [
    ({'max_length': 5}, 'max_length was 6, now 5'), ({'vocab_size': 9}, 'vocab_size'),
    ({'min_count': 2}, 'min_count'), ({'spec': describe('vgg19', 'conv2_2', 32, seed=3)},
                                      "layer was 'conv1_2', now 'conv2_2'"),
    ({'spec': describe('vgg19', 'conv1_2', 32, seed=4)}, 'weights_sha256'),
    ({'spec': describe('vgg19', 'conv1_2', 32, 'squash', seed=3)}, 'resize'),
    ({'vocabulary': Vocabulary(['dog'])}, 'vocabulary_sha256'),
    ({'tokens': 'raw'}, "tokens was 'words', now 'raw'"),
    ({'captions': ('A cat',)}, 'records_sha256'), ({'fewer': True}, 'images was 8, now 7')])
def test_other_options_are_refused_and_change_nothing(made_once, change, named):
    records, spec, out = made_once
    before = data_contents(out)
    change = dict(change)
    if change.pop('fewer', False):
        records = records[:-1]
    if captions := change.pop('captions', None):
        records = [Record(r.image_id, r.path, captions, r.split) for r in records]
    with pytest.raises(InputError, match='made with other options') as caught:
        make(records, change.pop('spec', spec), out, **change)
    assert named in str(caught.value)
    assert data_contents(out) == before


@pytest.fixture(scope='module')
def made_once(tmp_path_factory, spec):
    folder = tmp_path_factory.mktemp('made')
    records = records_in(folder / 'photos', 8)
    make(records, spec, folder / 'data')
    return records, spec, folder / 'data'


def spoil(records):
    """Make three of the pictures unreadable; returns their rows."""
    whole = records[3].path.read_bytes()
    picture = Image.open(records[5].path)
    records[3].path.write_bytes(whole[:len(whole) // 2])
    records[5].path.write_bytes(b'')
    records[10].path.write_text('this is no picture')
    picture.save(records[11].path, 'JPEG')  # by its contents, whatever the name
    records[11].path.write_bytes(records[11].path.read_bytes()[:-60])
    return [3, 5, 10, 11]


def test_unreadable_images_are_all_named_and_the_others_finished(tmp_path, spec, lines, decoded):
    records, out = records_in(tmp_path / 'photos'), tmp_path / 'data'
    contents = {row: records[row].path.read_bytes() for row in (3, 5, 10, 11)}
    bad = spoil(records)
    with pytest.raises(InputError) as caught:
        make(records, spec, out)
    assert '4 images cannot be read' in str(caught.value)
    assert '--skip-unreadable' in str(caught.value)
    assert all(str(records[row].path) in str(caught.value) for row in bad)
    assert feature_file.FeatureFile(out / 'features.h5').done().tolist() == [
        row not in bad for row in range(40)]
    with pytest.raises(InputError, match='has not finished here'):
        DataDir(out)

    for row in bad[:2]:  # repaired: these are encoded, the rest is still refused
        records[row].path.write_bytes(contents[row])
    decoded.clear()
    with pytest.raises(InputError, match='2 images cannot be read'):
        make(records, spec, out, lines)
    assert sorted(decoded) == sorted(records[row].path.name for row in bad)
    assert any('36 images were encoded before and are kept' in line for line in lines)

    for row in bad[2:]:
        records[row].path.write_bytes(contents[row])
    assert make(records, spec, out)['unreadable'] == {}
    make(records, spec, tmp_path / 'whole')
    assert_same_data(out, tmp_path / 'whole')


def test_skipped_images_leave_the_rest_aligned(tmp_path, spec, lines):
    folder, out = tmp_path / 'photos', tmp_path / 'data'
    records = [Record(r.image_id, r.path, (f'picture number {row}',), r.split)
               for row, r in enumerate(records_in(folder))]
    bad = spoil(records)
    manifest = make(records, spec, out, lines, skip_unreadable=True)
    assert sorted(manifest['unreadable']) == sorted(str(records[row].path) for row in bad)
    assert sum(line.startswith('left out: ') for line in lines) == 4
    assert {split: c['images'] for split, c in manifest['splits'].items()} == {
        'train': 19, 'dev': 9, 'test': 8}
    data = DataDir(out)
    with Encoder(spec) as encoder:
        for split in data.splits:
            part = data.split(split)
            rows = [row for row, r in enumerate(records) if r.split == split and row not in bad]
            assert part.image_ids == [records[row].image_id for row in rows]
            assert part.references == [list(records[row].captions) for row in rows]
            pixels = np.stack([load(path, spec.preprocessing) for path in part.paths])
            np.testing.assert_allclose(part.read_features(range(len(part))), encoder.encode(pixels),
                                       rtol=2e-3, atol=1e-4)
            for caption, image in zip(part.captions, part.image_idxs, strict=True):
                if split == 'train':
                    assert data.vocabulary.decode(caption) == part.references[image][0]
    # A word of an image that was left out is not in the vocabulary.
    assert '5' not in data.vocabulary.word_to_idx and '4' in data.vocabulary.word_to_idx
    # Complete for who skips; who does not is told again.
    before = data_contents(out)
    make(records, spec, out, skip_unreadable=True)
    with pytest.raises(InputError, match='4 images cannot be read'):
        make(records, spec, out)
    assert data_contents(out) == before


def test_nothing_readable_at_all_is_an_error_even_when_skipping(tmp_path, spec):
    records = records_in(tmp_path / 'photos', 4)
    for record in records:
        record.path.unlink()
    with pytest.raises(InputError, match='4 images cannot be read'):
        make(records, spec, tmp_path / 'data', skip_unreadable=True, vocabulary=Vocabulary(['dog']))


def test_a_long_list_of_unreadable_images_is_cut(tmp_path, spec):
    records = [Record(i, tmp_path / f'gone{i}.jpg', ('dog',), 'train') for i in range(30)]
    with pytest.raises(InputError, match='30 images cannot be read.* and 10 more'):
        make(records, spec, tmp_path / 'data')


def test_too_little_room_is_said_first_and_leaves_nothing(tmp_path, spec, monkeypatch, decoded):
    records = records_in(tmp_path / 'photos', 8)  # 1.05 MB
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, 'disk_usage', lambda path: usage._replace(free=1_000_000))
    with pytest.raises(InputError, match=r'data: 1\.05 MB needed, 1 MB free; make room'):
        make(records, spec, tmp_path / 'data')
    assert os.listdir(tmp_path) == ['photos'] and not decoded
    monkeypatch.setattr(shutil, 'disk_usage', lambda path: usage._replace(free=1_100_000))
    make(records, spec, tmp_path / 'data')


def test_a_disk_that_fills_up_keeps_finished_images(tmp_path, spec, lines):
    records, out = records_in(tmp_path / 'photos'), tmp_path / 'data'
    last = records[-1].path.read_bytes()
    records[-1].path.write_bytes(b'')
    with pytest.raises(InputError):
        make(records, spec, out)
    records[-1].path.write_bytes(last)
    before = (out / 'features.h5').read_bytes()
    row = 2 * 32 * 32 * 64
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    # the last one fits half
    resource.setrlimit(resource.RLIMIT_FSIZE, (39 * row + row // 2, limits[1]))
    try:
        with pytest.raises(InputError,
                           match='cannot write .*run the same command again, finished images are '
                           'kept'):
            make(records, spec, out)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert feature_file.FeatureFile(out / 'features.h5').done().tolist() == [True] * 39 + [False]
    assert (out / 'features.h5').read_bytes()[:39 * row] == before[:39 * row]
    make(records, spec, out, lines)
    assert any('39 images were encoded before and are kept' in line for line in lines)
    make(records, spec, tmp_path / 'whole')
    assert_same_data(out, tmp_path / 'whole')


@pytest.mark.parametrize('limit', [0, 100, 1_000_000], ids=['plan', 'plan cut', 'features'])
def test_a_disk_that_is_full_from_the_start_is_one_line(tmp_path, spec, limit):
    records, out = records_in(tmp_path / 'photos', 8), tmp_path / 'data'
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limits[1]))
    try:
        with pytest.raises(InputError, match='cannot write'):
            make(records, spec, out)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert make(records, spec, out)['splits']['train']['images'] == 4


@pytest.mark.parametrize('options, said', [({'max_length': 0}, 'max-length must be at least 1'),
                                           ({'vocab_size': 0}, 'vocab-size must be at least 1'),
                                           ({'min_count': 0}, 'min-count must be at least 1'),
                                           ({'min_count': 1000}, 'no word occurs at least 1000 '
                                            'times')])
def test_bad_numbers_are_refused_before_the_first_image(tmp_path, spec, decoded, options, said):
    with pytest.raises(InputError, match=said):
        make(records_in(tmp_path / 'photos', 4), spec, tmp_path / 'data', **options)
    assert os.listdir(tmp_path) == ['photos'] and not decoded


@pytest.mark.parametrize('resize, expected', [
    # An input of 32 is cut from a short side of 37: of 37 x 74 pixels, those from (2.5, 21) to
    # (34.5, 53).
    ('crop', [(0.25, 0.25, 0.75, 0.75), (0, 0, 1, 0.1875)]),
    ('squash', [(10.5 / 37, 29 / 74, 26.5 / 37, 45 / 74), (0, 0, 1, 27 / 74)]),
])
def test_boxes_become_fractions_of_the_input(tmp_path, resize, expected):
    boxes = (Box(('dog', 'hound'), 10.5, 29, 16, 16), Box(('sky',), 0, 0, 37, 27))
    paths = [photo(tmp_path / f'{i}.png', i, (37, 74)) for i in range(3)]
    records = [Record(1, paths[0], CAPTIONS, 'train', boxes, (37, 74)),
               Record(2, paths[1], CAPTIONS, 'train'),
               Record(3, paths[2], CAPTIONS, 'train', (), (37, 74))]
    make(records, describe('vgg19', 'conv1_2', 32, resize), tmp_path / 'data')
    written = json.loads((tmp_path / 'data' / 'annotations.json').read_text())
    assert [image['boxes'] is None for image in written] == [False, True, False]
    assert written[2]['boxes'] == []
    data = DataDir(tmp_path / 'data').split('train')
    assert [names for names, _ in data.boxes[0]] == [('dog', 'hound'), ('sky',)]
    np.testing.assert_allclose([box for _, box in data.boxes[0]], expected)


def test_stored_features_are_the_encoders_bit_for_bit_around_unreadable_images(
    tmp_path, spec, monkeypatch):
    """Use memory for pixels five times over, with holes where images are unreadable."""
    monkeypatch.setattr(prepare, 'BATCH', 8)
    monkeypatch.setattr(prepare, 'PIECE', 3)
    records, bad = records_in(tmp_path / 'photos', 77), {0, 7, 8, *range(16, 24), 76}
    for row in bad:
        records[row].path.write_bytes(b'no image')
    make(records, spec, tmp_path / 'data', skip_unreadable=True)
    good = [row for row in range(77) if row not in bad]
    with Encoder(spec) as encoder:
        expected = encoder.encode(
            np.stack([load(records[row].path, spec.preprocessing) for row in good]))
    features = feature_file.FeatureFile(tmp_path / 'data' / 'features.h5')
    assert np.flatnonzero(features.done()).tolist() == good
    assert_same_features(features.read(good), expected, 9 * 64)


def test_captions_are_cut_once(tmp_path, spec, monkeypatch):
    counts, tokenize = collections.Counter(), TOKENS['words']

    def counting(caption):
        counts[caption] += 1
        return tokenize(caption)

    monkeypatch.setitem(TOKENS, 'words', counting)
    make(records_in(tmp_path / 'photos', 4), spec, tmp_path / 'data')
    assert counts == dict.fromkeys(CAPTIONS, 4)
