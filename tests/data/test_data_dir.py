"""The DATA DIR on disk: features by row, whole or refused."""

import json
import os
import resource
import shutil
import threading

import h5py
import numpy as np
import pytest

from core.common import files
from core.common.errors import InputError
from core.data import data_dir
from core.data.data_dir import DataDir
from core.data.feature_file import FeatureFile
from core.runs.run_dir import check_run

SHAPE = (7, 5, 3)


@pytest.fixture
def path(tmp_path):
    path = tmp_path / 'features.h5'
    FeatureFile.create(path, SHAPE)
    return path


@pytest.fixture
def values():
    return np.random.default_rng(0).normal(0, 3, SHAPE).astype(np.float32)


def test_written_rows_are_read_at_float16_precision(path, values):
    file = FeatureFile(path)
    assert file.shape == SHAPE and not file.done().any() and file.done().shape == (7,)
    file.write([4, 0], values[[4, 0]])
    assert np.flatnonzero(file.done()).tolist() == [0, 4]
    file.write([1, 2, 3, 5, 6], values[[1, 2, 3, 5, 6]])
    assert file.done().all()
    read = file.read(range(7))
    assert read.dtype == np.float16 and read.shape == SHAPE
    np.testing.assert_array_equal(read, values.astype(np.float16))


def test_h5py_alone_sees_the_same(path, values):
    file = FeatureFile(path)
    file.write([6, 2], values[[6, 2]])
    with h5py.File(path) as plain:
        assert plain['features'].shape == SHAPE and plain['features'].dtype == np.float16
        np.testing.assert_array_equal(plain['features'][6], values[6].astype(np.float16))
        np.testing.assert_array_equal(plain['features'][2], values[2].astype(np.float16))
        assert plain['done'][:].tolist() == [0, 0, 1, 0, 0, 0, 1]


def test_rows_in_any_order_and_repetition(path, values):
    file = FeatureFile(path)
    file.write(range(7), values)
    order = [6, 0, 0, 3, 6, 6, 1]
    np.testing.assert_array_equal(file.read(order), values.astype(np.float16)[order])
    np.testing.assert_array_equal(file.read(np.array([2])), values.astype(np.float16)[[2]])
    assert file.read([]).shape == (0, 5, 3)
    for row in (7, -1):
        with pytest.raises(IndexError):
            file.read([0, row])


def test_many_threads_read_at_once(path, values):
    file = FeatureFile(path)
    file.write(range(7), values)
    expected, wrong = values.astype(np.float16), []

    def work(seed):
        for rows in np.random.default_rng(seed).integers(0, 7, (100, 4)):
            if not np.array_equal(file.read(rows), expected[rows]):
                wrong.append(rows)

    threads = [threading.Thread(target=work, args=[seed]) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_features_of_another_shape_are_refused(path, values):
    file = FeatureFile(path)
    for wrong in (values[:2, :4], values[:3], values[:2].reshape(2, 15)):
        with pytest.raises(ValueError, match='features of shape'):
            file.write([0, 1], wrong)
    assert not file.done().any()


def test_a_file_that_is_cut_off_is_refused(path):
    os.truncate(path, path.stat().st_size // 2)
    with pytest.raises(InputError, match='features.h5'):
        FeatureFile(path)
    FeatureFile.create(path, (1000, 5, 3))
    with open(path, 'r+b') as file:
        file.truncate(path.stat().st_size - 40)
    with pytest.raises(InputError, match='features.h5'):
        FeatureFile(path)


@pytest.mark.parametrize(
    'make', [lambda path: path.write_bytes(b''), lambda path: path.write_text('not HDF5'),
             lambda path: h5py.File(path, 'w').close(),
             lambda path: h5py.File(path, 'w').create_dataset('features',
                                                              data=np.zeros((2, 3))).file.close(),
             lambda path: h5py.File(path, 'w').create_dataset('features', (2, 3, 4), 'f2',
                                                              chunks=(1, 3, 4)).file.close(),
             lambda path: None], ids=['empty', 'text', 'no datasets', 'other shape', 'chunked',
                                      'missing'])
def test_other_files_are_refused(tmp_path, make):
    path = tmp_path / 'features.h5'
    make(path)
    with pytest.raises(InputError, match='features.h5: not a features file'):
        FeatureFile(path)


def test_a_write_that_fails_is_one_line_and_keeps_what_was_done(path, values):
    file = FeatureFile(path)
    file.write(range(4), values[:4])
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    room = file._features.offset + 5 * 2 * 15 + 4  # for 5 rows and a bit
    resource.setrlimit(resource.RLIMIT_FSIZE, (room, hard))
    try:
        with pytest.raises(InputError,
                           match='features.h5: cannot write .*finished images are kept'):
            # the system takes half of the last row before it refuses
            file.write([4, 5], values[4:6])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert file.done().tolist() == [True] * 4 + [False] * 3  # half a row is not marked as done
    file.write([4, 5, 6], values[4:])
    np.testing.assert_array_equal(file.read(range(7)), values.astype(np.float16))


def test_a_file_without_features_takes_no_room(tmp_path):
    FeatureFile.create(tmp_path / 'big.h5', (100_000, 196, 512))
    assert (tmp_path / 'big.h5').stat().st_size > 20e9
    assert (tmp_path / 'big.h5').stat().st_blocks * 512 < 1e6
    assert os.listdir(tmp_path) == ['big.h5']


def test_one_process_at_a_time(tmp_path):
    with files.lock(tmp_path, 'prepro.py'), pytest.raises(
        InputError, match='another prepro.py is at work here'):
        files.lock(tmp_path, 'prepro.py')
    files.lock(tmp_path, 'prepro.py').close()


def test_plans(tmp_path):
    plan = {'encoder': 'vgg19', 'grid': (2, 3), 'words': None}
    data_dir.check_plan(tmp_path / 'new', plan)
    assert not (tmp_path / 'new').exists()
    data_dir.check_plan(tmp_path, plan)
    assert not os.listdir(tmp_path)
    data_dir.write_plan(tmp_path, plan)
    data_dir.write_plan(tmp_path, plan)
    before = (tmp_path / 'plan.json').read_bytes()
    with pytest.raises(InputError,
                       match=r"made with other options \(encoder was 'vgg19', now 'resnet50'\)"):
        data_dir.write_plan(tmp_path, {**plan, 'encoder': 'resnet50'})
    with pytest.raises(InputError, match='more was None, now 1'):
        data_dir.write_plan(tmp_path, {**plan, 'more': 1})
    assert (tmp_path / 'plan.json').read_bytes() == before


def test_directories_of_others_are_refused(tmp_path):
    (tmp_path / 'photo.jpg').touch()
    with pytest.raises(InputError, match='photo.jpg is there'):
        data_dir.write_plan(tmp_path, {})
    with pytest.raises(InputError, match='is a file'):
        data_dir.check_plan(tmp_path / 'photo.jpg', {})
    assert os.listdir(tmp_path) == ['photo.jpg']


def test_what_a_killed_writer_left_is_no_obstacle(tmp_path):
    for name in ('.plan.json.abc', '.features.h5.k2', '.lock'):
        (tmp_path / name).touch()
    data_dir.write_plan(tmp_path, {})
    data_dir.remove_leftovers(tmp_path)
    assert sorted(os.listdir(tmp_path)) == ['.lock', 'plan.json']


def test_arrays_of_the_tf1_code():
    words = {0: '<NULL>', 1: '<START>', 2: '<END>', 4: 'a', 5: 'dog'}
    arrays = {'features': np.arange(24.).reshape(2, 4, 3),
              'captions': np.array([[1, 4, 5, 2, 0], [1, 5, 2, 0, 0]]),
              'image_idxs': np.array([1, 0])}
    data = data_dir.CaptionData.from_arrays(arrays, words)
    assert len(data) == 2 and data.references == [['dog'], ['a dog']] and data.image_ids == [0, 1]
    np.testing.assert_array_equal(data.read_features([1, 1]), arrays['features'][[1, 1]])
    del arrays['image_idxs']
    with pytest.raises(InputError, match="data lacks 'image_idxs'"):
        data_dir.CaptionData.from_arrays(arrays, words)


class TestDataDir:
    """Against a directory written by hand."""

    @pytest.fixture
    def directory(self, tmp_path, values):
        from core.data.vocabulary import Vocabulary

        FeatureFile.create(tmp_path / 'features.h5', SHAPE)
        FeatureFile(tmp_path / 'features.h5').write(range(7), values)
        Vocabulary(['a', 'dog']).save(tmp_path / 'vocabulary.json')
        splits = ['train', 'dev', 'train', 'train', 'dev', 'train', 'train']
        images = [{'id': f'i{row}', 'file': f'/photos/{row}.jpg', 'split': split,
                   'captions': [f'dog {row}'],
                   'boxes': [{'names': ['dog', 'hound'], 'box': [0, 0, 0.5, 1]}] if row == 4
                   else None} for row, split in enumerate(splits)]
        images[2]['unreadable'] = True
        data_dir.write_captions(tmp_path / 'captions.h5',
                                {'train': ([[1, 5, 2]] * 3, [0, 1, 3]), 'dev': ([[1, 4, 2]], [1]),
                                 'test': (np.zeros((0, 3)), [])})
        (tmp_path / 'annotations.json').write_text(json.dumps(images))
        (tmp_path / 'manifest.json').write_text(json.dumps(
            {'format': 1, 'dataset': 'd', 'records_sha256': 'r', 'max_length': 1,
             'encoder': {'encoder': 'e'}, 'splits': {'train': {'images': 4}, 'dev': {'images': 2},
                                                     'test': {'images': 0}}}))
        return tmp_path

    def test_splits(self, directory, values):
        data = DataDir(directory)
        assert data.splits == ['train', 'dev']
        assert data.max_length == 1
        assert len(data.vocabulary) == 6
        train, dev = data.split('train'), data.split('dev')
        assert train.image_ids == ['i0', 'i3', 'i5', 'i6'] and dev.image_ids == ['i1', 'i4']
        assert train.references[1] == ['dog 3'] and train.paths[1] == '/photos/3.jpg'
        np.testing.assert_array_equal(train.read_features([1, 3, 1]),
                                      values.astype(np.float16)[[3, 6, 3]])
        assert train.captions.tolist() == [[1, 5, 2]] * 3 and train.image_idxs.tolist() == [0, 1, 3]
        assert train.boxes is None
        assert dev.boxes == [[], [(('dog', 'hound'), (0, 0, 0.5, 1))]]
        assert dev.encoder == {'encoder': 'e'}

    def test_a_split_without_images(self, directory):
        with pytest.raises(InputError, match="no image of split 'test' here; there is train, dev"):
            DataDir(directory).split('test')

    def test_incomplete_missing_and_foreign(self, directory):
        with pytest.raises(InputError, match='there is no such data directory'):
            DataDir(directory / 'none')
        (directory / 'manifest.json').unlink()
        with pytest.raises(InputError, match='not a data directory'):
            DataDir(directory)
        (directory / 'plan.json').write_text('{}')
        with pytest.raises(InputError,
                           match='has not finished here; run the same prepro.py command again'):
            DataDir(directory)

    def test_another_format(self, directory):
        (directory / 'manifest.json').write_text('{"format": 2}')
        with pytest.raises(InputError, match='format 2 is not 1'):
            DataDir(directory)

    @pytest.mark.parametrize(
        'name', ['manifest.json', 'annotations.json', 'vocabulary.json', 'features.h5'])
    def test_damaged_files_name_themselves(self, directory, name):
        data = (directory / name).read_bytes()
        (directory / name).write_bytes(data[:len(data) // 2])
        with pytest.raises(InputError, match=name):
            DataDir(directory)
        (directory / name).unlink()
        with pytest.raises(InputError):
            DataDir(directory)

    def test_damaged_captions_name_themselves(self, directory):
        os.truncate(directory / 'captions.h5', 700)
        with pytest.raises(InputError, match='captions.h5: cannot be read'):
            DataDir(directory).split('dev')

    def test_it_may_be_moved_and_read_only(self, directory, tmp_path_factory, values):
        moved = shutil.copytree(directory, tmp_path_factory.mktemp('elsewhere') / 'data')
        for file in moved.iterdir():
            file.chmod(0o444)
        moved.chmod(0o555)
        features = DataDir(moved).split('dev').read_features([0])
        moved.chmod(0o755)
        np.testing.assert_array_equal(features, values.astype(np.float16)[[1]])


@pytest.mark.parametrize('bad', [np.nan, np.inf, 1e5])
def test_numbers_that_float16_cannot_hold_are_refused(path, values, bad):
    file = FeatureFile(path)
    values = values.copy()
    values[1, 0, 0] = bad
    with pytest.raises(InputError, match='not finite or beyond float16'):
        file.write([0, 1], values[:2])
    assert not file.done().any()


def test_neighbouring_rows_are_written_at_once_and_the_others_where_they_belong(
    path, values, monkeypatch):
    file, calls, write = FeatureFile(path), [], h5py.Dataset.__setitem__

    def counting(dataset, place, data):
        calls.append(np.size(data))
        write(dataset, place, data)

    monkeypatch.setattr(h5py.Dataset, '__setitem__', counting)
    rows = [4, 5, 6, 1, 0]
    file.write(rows, values[rows])
    # features of 4 to 6, 1 and 0, then their marks
    assert len(calls) == 6 and calls[0] == 3 * calls[1]
    np.testing.assert_array_equal(file.read(rows), values[rows].astype(np.float16))
    assert np.flatnonzero(file.done()).tolist() == sorted(rows)


def test_what_is_no_run_is_told_apart(tmp_path):
    for name, file in (('data', 'manifest.json'), ('more', 'config.json'), ('other', 'notes.txt')):
        (tmp_path / name).mkdir()
        (tmp_path / name / file).write_text('{}')
    check_run(tmp_path / 'more')
    for name, part in (('data', f'data directory of prepro.py; train.py {tmp_path}/data --out RUN'),
                       ('mroe', f'did you mean {tmp_path}/more'),
                       ('xyz', 'not a run, there is no such directory'),
                       ('other', 'no config.json')):
        with pytest.raises(InputError, match=part):
            check_run(tmp_path / name)
