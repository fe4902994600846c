"""The COCO reader: captions, the division of val, boxes."""

import collections
import hashlib
import json
import random

import pytest

from core.common.errors import InputError
from core.datasets import read
from core.datasets.coco import split_of
from core.datasets.records import Box


def image(image_id, **more):
    return {'id': image_id, 'file_name': f'{image_id:012d}.jpg', 'width': 64, 'height': 48, **more}


def captions(*ids):
    return [{'id': 100 + 2 * i + k, 'image_id': image_id, 'caption': f'Caption {k} of {image_id}.'}
            for i, image_id in enumerate(ids) for k in range(2)]


def write(path, **content):
    path.write_text(json.dumps(content), encoding='utf8')
    return path


def published(path, *ids):
    return write(path, images=[image(i) for i in ids], annotations=captions(*ids))


@pytest.fixture
def pair(tmp_path):
    return [published(tmp_path / 'captions_train2014.json', 7, 3),
            published(tmp_path / 'captions_val2014.json', *range(1000, 1400))]


def test_train_is_train_and_val_is_divided(tmp_path, pair):
    records = read('coco2014', tmp_path, pair)
    assert [r.image_id for r in records] == [7, 3, *range(1000, 1400)]
    assert [r.split for r in records[:2]] == ['train', 'train']
    assert records[0].captions == ('Caption 0 of 7.', 'Caption 1 of 7.')
    assert records[0].path == tmp_path / '000000000007.jpg'
    assert records[0].size == (64, 48)
    assert records[0].boxes is None
    split = {r.image_id: r.split for r in records}
    for image_id in range(1000, 1400):
        odd_half = int(hashlib.sha1(str(image_id).encode()).hexdigest()[:12], 16) >= 2**47
        assert split[image_id] == ('test' if odd_half else 'dev')
    assert 160 < collections.Counter(split.values())['dev'] < 240
    assert {image_id: split[image_id] for image_id in split} == {
        r.image_id: r.split for r in read('coco2014', tmp_path, pair[::-1])}


def test_division_does_not_depend_on_the_order_in_the_file(tmp_path):
    ids = list(range(300))
    first = read('coco2017', tmp_path, published(tmp_path / 'captions_val2017.json', *ids))
    random.Random(1).shuffle(ids)
    second = read('coco2017', tmp_path, published(tmp_path / 'captions_val2017.json', *ids))
    assert {(r.image_id, r.split) for r in first} == {(r.image_id, r.split) for r in second}


def test_split_of_is_even():
    """Also among neighbours and among even or odd ids."""
    for ids in (range(20000), range(0, 40000, 2), range(100000, 120000)):
        val = collections.Counter(split_of(i, 'val') for i in ids)
        assert abs(val['dev'] - 10000) < 300
        pool = collections.Counter(split_of(i, 'all') for i in ids)
        assert abs(pool['train'] - 16000) < 250
        assert abs(pool['dev'] - 2000) < 200
    assert {split_of(i, 'train') for i in range(99)} == {'train'}


def test_a_train_file_alone_is_divided(tmp_path):
    path = published(tmp_path / 'captions_train2017.json', *range(1000))
    split = collections.Counter(r.split for r in read('coco2017', tmp_path, path))
    assert split['train'] > 750
    assert split['dev'] > 60
    assert split['test'] > 60
    other = published(tmp_path / 'mine.json', *range(1000))
    assert collections.Counter(r.split for r in read('coco2017', tmp_path, [str(other)])) == split


def test_captions_by_mapping(tmp_path):
    files = {'val': published(tmp_path / 'b.json', *range(50)),
             'train': published(tmp_path / 'a.json', 77)}
    records = read('coco2014', tmp_path, files)
    assert {r.split for r in records if r.image_id == 77} == {'train'}
    assert {r.split for r in records if r.image_id < 50} == {'dev', 'test'}
    with pytest.raises(InputError, match='dev'):
        read('coco2014', tmp_path, {'dev': files['val']})


def test_folders_of_the_official_archives(tmp_path, pair):
    (tmp_path / 'train2014').mkdir()
    records = read('coco2014', tmp_path, pair)
    assert records[0].path == tmp_path / 'train2014' / '000000000007.jpg'
    assert records[2].path == tmp_path / '000000001000.jpg'
    assert read('coco2017', tmp_path, pair)[0].path == tmp_path / '000000000007.jpg'


def test_unclear_file_names(tmp_path):
    both = [published(tmp_path / 'one.json', 1), published(tmp_path / 'two.json', 2)]
    with pytest.raises(InputError, match=r'one\.json.*train or val'):
        read('coco2014', tmp_path, both)
    with pytest.raises(InputError, match='trainval'):
        read('coco2014', tmp_path, published(tmp_path / 'captions_trainval.json', 1))
    latest = published(tmp_path / 'latest.json', *range(40))
    assert {r.split for r in read('coco2014', tmp_path, latest)} > {'test'}


def test_image_in_two_splits(tmp_path):
    inside = next(i for i in range(99) if split_of(i, 'val') == 'dev')
    files = [published(tmp_path / 'captions_train2014.json', 500, inside),
             published(tmp_path / 'captions_val2014.json', inside)]
    with pytest.raises(InputError, match=rf"image '{inside}' is in two splits, train and dev"):
        read('coco2014', tmp_path, files)


def test_one_image_file_under_two_ids(tmp_path):
    write(tmp_path / 'captions_train.json', images=[image(1),
                                                    image(2, file_name=image(1)['file_name'])],
          annotations=captions(1, 2))
    with pytest.raises(InputError, match=r'000000000001\.jpg.*ids 1 and 2'):
        read('coco2014', tmp_path, {'train': tmp_path / 'captions_train.json'})


@pytest.mark.parametrize(('change', 'said'), [
    ({'images': [image(1), image(1)]}, 'image id 1 is listed twice'),
    ({'images': [{'file_name': 'a.jpg'}]}, 'id None'), ({'images': [image(1, id=1.5)]}, 'id 1.5'),
    ({'images': [image(1, id=[1])]}, r'id \[1\]'),
    ({'images': [image(1, file_name=None)]}, 'image 1 has no file_name'),
    ({'images': 'x'}, "list of objects 'images'"), ({'images': [1]}, "list of objects 'images'"),
    ({'annotations': [{'id': 31, 'image_id': 99, 'caption': 'x'}]}, 'annotation 31 belongs to '
     'image 99'), ({'annotations': [{'id': 31, 'image_id': [1], 'caption': 'x'}]},
                   r'annotation 31 belongs to image \[1\]'),
    ({'annotations': [{'id': 32, 'image_id': 1, 'caption': 5}]}, 'annotation 32 has the caption 5'),
    ({'annotations': [{'id': 33, 'image_id': 1}]}, 'annotation 33'),
    ({'annotations': None}, "list of objects 'annotations'")])
def test_damaged_captions(tmp_path, change, said):
    content = {'images': [image(1)], 'annotations': captions(1), **change}
    write(tmp_path / 'captions_val2014.json', **content)
    with pytest.raises(InputError, match=said) as caught:
        read('coco2014', tmp_path, tmp_path / 'captions_val2014.json')
    assert 'captions_val2014.json' in str(caught.value)
    assert '\n' not in str(caught.value)


@pytest.mark.parametrize('text', [b'', b'{"images": [', b'\xff', b'[]', b'7', b'[' * 100000])
def test_not_the_format(tmp_path, text):
    (tmp_path / 'val.json').write_bytes(text)
    with pytest.raises(InputError, match=r'val\.json.*expected COCO captions JSON'):
        read('coco2014', tmp_path, tmp_path / 'val.json')


def test_missing_material(tmp_path, pair):
    with pytest.raises(InputError, match=r'gone\.json.*expected COCO captions'):
        read('coco2014', tmp_path, tmp_path / 'gone.json')
    with pytest.raises(InputError, match='gone.*directory'):
        read('coco2014', tmp_path / 'gone', pair)
    with pytest.raises(InputError, match='no directory'):
        read('coco2014', None, pair)
    with pytest.raises(InputError, match='no captions file'):
        read('coco2014', tmp_path, [])
    with pytest.raises(InputError, match='no image'):
        read('coco2014', tmp_path, write(tmp_path / 'val.json', images=[], annotations=[]))
    with pytest.raises(InputError, match='takes no split lists'):
        read('coco2014', tmp_path, pair, splits={'train': 'x'})


def thing(image_id, bbox, category=18, **more):
    return {'id': 9, 'image_id': image_id, 'category_id': category, 'bbox': bbox, 'iscrowd': 0,
            **more}


CATEGORIES = [{'id': 18, 'name': 'Dog', 'synonyms': ['puppy', 'Hound']},
              {'id': 1, 'name': 'person'}]


def test_boxes(tmp_path, pair):
    instances = write(tmp_path / 'instances_train2014.json', images=[image(7), image(3), image(88)],
                      categories=CATEGORIES, annotations=[
        thing(7, [1, 2.5, 3, 4]), thing(7, [0, 0, 9, 9], iscrowd=1), thing(7, [5, 5, 1, 1], 1),
        thing(7, [5, 5, 0, 1]), thing(88, [0, 0, 1, 1])])
    records = read('coco2014', tmp_path, pair, instances=instances)
    assert records[0].boxes == (Box(('dog', 'puppy', 'hound'), 1.0, 2.5, 3.0, 4.0),
                                Box(('person',), 5., 5., 1., 1.))
    assert records[1].boxes == ()
    assert records[2].boxes is None  # val: nobody said what is in it
    with pytest.raises(InputError, match='two instances files'):
        read('coco2014', tmp_path, pair, instances=[instances, instances])


@pytest.mark.parametrize(('change', 'said'), [
    ({'annotations': [thing(99, [0, 0, 1, 1])]}, 'annotation 9 belongs to image 99'),
    ({'annotations': [thing(7, [0, 0, 1, 1], 5)]}, 'annotation 9 has category 5'),
    ({'annotations': [thing(7, [0, 0, 1])]}, 'annotation 9 has the bbox'),
    ({'annotations': [thing(7, [0, 0, 1, float('nan')])]}, 'annotation 9 has the bbox'),
    ({'annotations': [thing(7, None)]}, 'annotation 9 has the bbox None'),
    ({'categories': [{'id': 18}]}, 'category 18'),
    ({'categories': [{'id': 18, 'name': 'dog', 'synonyms': 'puppy'}]}, 'category 18'),
    ({'categories': None}, 'categories'),
])
def test_damaged_instances(tmp_path, pair, change, said):
    path = write(tmp_path / 'instances.json',
                 **{'images': [image(7)], 'annotations': [thing(7, [0, 0, 1, 1])],
                    'categories': CATEGORIES, **change})
    with pytest.raises(InputError, match=said) as caught:
        read('coco2014', tmp_path, pair, instances=path)
    assert 'instances.json' in str(caught.value)


def test_captions_are_left_as_published(tmp_path):
    odd = ' Two\tdogs |\u2028 \r\n"run" 😀 '
    path = write(tmp_path / 'captions_val2017.json', images=[image(1)],
                 annotations=[{'id': 1, 'image_id': 1, 'caption': odd}])
    assert read('coco2017', tmp_path, path)[0].captions == (odd,)


def test_real_sample(shared):
    folder = shared / 'data' / 'coco-mini'
    records = read('coco2017', folder, folder / 'annotations' / 'captions_train2017.json')
    assert len(records) == 80
    assert all(len(r.captions) == 5 and r.path.is_file() for r in records)
    assert {r.split for r in records} == {'train', 'dev', 'test'}
    direct = read('coco2017', folder / 'train2017',
                  folder / 'annotations' / 'captions_train2017.json')
    assert direct == records
