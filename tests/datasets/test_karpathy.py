"""The reader of Karpathy's dataset files."""

import json

import pytest

from core.common.errors import InputError
from core.datasets import read
from core.datasets.records import Box


def entry(name, split, **more):
    return {'filename': name, 'split': split, 'imgid': 0,
            'sentences': [{'raw': 'A Dog.', 'tokens': ['a', 'dog'], 'sentid': 5}], **more}


def write(tmp_path, *images, name='dataset_coco.json'):
    (tmp_path / name).write_text(json.dumps({'dataset': 'x', 'images': list(images)}),
                                 encoding='utf8')
    return tmp_path / name


def test_splits_ids_paths_and_captions(tmp_path):
    (tmp_path / 'val2014').mkdir()
    path = write(tmp_path, entry('a.jpg', 'test', cocoid=9, filepath='val2014'),
                 entry('b.jpg', 'restval', cocoid=4),
                 entry('c.jpg', 'val', cocoid=5, filepath='train2014'),
                 entry('d.jpg', 'train', cocoid=6, sentences=[
        {'tokens': ['two', 'cats']}, {'raw': 'x\u2028y|', 'tokens': []}]))
    records = read('karpathy', tmp_path, [path])
    assert [(r.image_id, r.split) for r in records] == [(9, 'test'), (4, 'train'), (5, 'dev'),
                                                        (6, 'train')]
    assert records[0].path == tmp_path / 'val2014' / 'a.jpg'
    assert records[2].path == tmp_path / 'c.jpg'  # no folder train2014 there
    assert records[0].captions == ('A Dog.',)
    assert records[3].captions == ('two cats', 'x\u2028y|')
    assert records[0].boxes is None


def test_flickr_images_are_known_by_their_name(tmp_path):
    path = write(tmp_path, entry('a.jpg', 'train'), entry('b.jpg', 'val'),
                 name='dataset_flickr8k.json')
    assert [r.image_id for r in read('karpathy', tmp_path, path)] == ['a.jpg', 'b.jpg']
    with pytest.raises(InputError, match='no cocoid'):
        read('karpathy', tmp_path, path, instances=tmp_path / 'instances.json')


def test_boxes_by_cocoid(tmp_path):
    path = write(tmp_path, entry('a.jpg', 'train', cocoid=4), entry('b.jpg', 'val', cocoid=5))
    instances = tmp_path / 'instances.json'
    instances.write_text(json.dumps({
        'images': [{'id': 4, 'width': 20, 'height': 10}], 'categories': [{'id': 1, 'name': 'dog'}],
        'annotations': [{'id': 1, 'image_id': 4, 'category_id': 1, 'bbox': [1, 2, 3, 4]}]}))
    records = read('karpathy', tmp_path, path, instances=instances)
    assert records[0].boxes == (Box(('dog',), 1., 2., 3., 4.),)
    assert records[0].size == (20, 10)
    assert records[1].boxes is None


@pytest.mark.parametrize(('images', 'said'), [
    ([entry('a.jpg', 'train', cocoid=1), entry('b.jpg', 'val', cocoid=1)],
     "'1' is in two splits, train and dev"), ([entry('a.jpg', 'train'), entry('a.jpg', 'restval')],
                                              "image 'a.jpg' is there twice"),
    ([entry('a.jpg', 'dev')], "'a.jpg' has the split 'dev'"),
    ([entry('a.jpg', ['val'])], 'has the split'),
    ([entry(None, 'val')], 'image number 0 has no filename'),
    ([entry('a.jpg', 'val', cocoid=None)], 'cocoid None'),
    ([entry('a.jpg', 'val', filepath=3)], 'filepath 3'),
    ([entry('a.jpg', 'val', sentences=None)], "'a.jpg' has no list of sentences"),
    ([entry('a.jpg', 'val', sentences=['x'])], "'a.jpg' has no list of sentences"),
    ([entry('a.jpg', 'val', sentences=[{'sentid': 7, 'raw': 3}])], 'sentence 7'),
    ([entry('a.jpg', 'val', sentences=[{'sentid': 8, 'tokens': [1]}])], 'sentence 8'),
    ([], 'no image')])
def test_damaged(tmp_path, images, said):
    with pytest.raises(InputError, match=said):
        read('karpathy', tmp_path, write(tmp_path, *images))


def test_wrong_files(tmp_path):
    (tmp_path / 'x.json').write_text('{"annotations": []}')
    with pytest.raises(InputError, match=r"x\.json.*'images'.*Karpathy"):
        read('karpathy', tmp_path, tmp_path / 'x.json')
    with pytest.raises(InputError, match=r'gone\.json'):
        read('karpathy', tmp_path, tmp_path / 'gone.json')
    with pytest.raises(InputError, match='exactly one'):
        read('karpathy', tmp_path, None)
    with pytest.raises(InputError, match='exactly one'):
        read('karpathy', tmp_path, ['a.json', 'b.json'])
