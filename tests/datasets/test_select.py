"""The table of datasets, and the choice of some of a dataset's images."""

import pathlib

import pytest

from core.common.errors import InputError
from core.datasets import read, select
from core.datasets.formats import DATASETS
from core.datasets.records import Record


def records(n=1000):
    return [Record(i, pathlib.Path(f'{i}.jpg'), ('x',), ('train', 'dev')[i % 4 == 0])
            for i in range(n)]


def test_names():
    assert list(DATASETS) == ['coco2014', 'coco2017', 'karpathy', 'flickr8k', 'flickr30k', 'shapes',
                              'folder']
    with pytest.raises(InputError, match="no dataset 'coco'.*coco2014"):
        read('coco', '.', 'x')


def test_select_splits():
    assert select(records()) == records()
    assert {r.split for r in select(records(), splits=['dev'])} == {'dev'}
    assert select(records(), splits='dev') == [r for r in records() if r.split == 'dev']
    with pytest.raises(InputError, match="no split 'val'"):
        select(records(), splits=['val'])
    with pytest.raises(InputError, match='no image is in the split test'):
        select(records(), splits=['test'])


def test_limit_counts_per_split_and_keeps_the_order():
    few = select(records(), limit=100)
    assert sum(r.split == 'train' for r in few) == sum(r.split == 'dev' for r in few) == 100
    assert [r.image_id for r in few] == sorted(r.image_id for r in few)
    assert select(records(), limit=10**6) == records()
    assert len(select(records(), limit=3, splits=['dev'])) == 3


def test_limit_is_spread_and_grows():
    few = select(records(), limit=100, splits=['train'])
    assert 350 < sum(r.image_id for r in few) / 100 < 650
    more = {r.image_id for r in select(records(), limit=200, splits=['train'])}
    assert {r.image_id for r in few} < more
    assert {r.image_id for r in select(records()[::-1], limit=100, splits=['train'])} == {
        r.image_id for r in few}


@pytest.mark.parametrize('limit', [0, -1, 1.5, True, '3'])
def test_bad_limit(limit):
    with pytest.raises(InputError, match='limit'):
        select(records(), limit=limit)
