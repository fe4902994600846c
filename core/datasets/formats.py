"""The datasets: one reader for each published format, all yielding the same records.

    records = read('flickr8k', 'Flickr8k/images', 'Flickr8k/Flickr8k.token.txt')
    few = select(records, limit=100, splits=('train', 'dev'))

A new format is a reader in a module of this package and one row in `DATASETS`.
"""

import collections
import dataclasses
import functools
from collections.abc import Callable, Iterable, Mapping, Sequence

from core.common.aliases import PathLike, Paths
from core.common.errors import InputError
from core.common.suggestions import did_you_mean
from core.datasets import coco, flickr, folder, karpathy, shapes
from core.datasets.records import SPLITS, Box, Record

__all__ = ['DATASETS', 'SPLITS', 'Box', 'Dataset', 'Record', 'read', 'select']


@dataclasses.dataclass(frozen=True)
class Dataset:
    """One published format.

    Attributes:
        read: function (images, captions, splits, instances) -> list of Record.
        files: str, what the captions argument names; '' for datasets without captions.
        takes_splits: whether files that list the images of a split can be given.
        takes_instances: whether files of boxes can be given.
    """

    read: Callable[..., list[Record]]
    files: str
    takes_splits: bool = False
    takes_instances: bool = False


DATASETS = {'coco2014': Dataset(functools.partial(coco.read, year='2014'),
                                'captions_{train,val}2014.json', takes_instances=True),
            'coco2017': Dataset(functools.partial(coco.read, year='2017'),
                                'captions_{train,val}2017.json', takes_instances=True),
            'karpathy': Dataset(karpathy.read, 'dataset_{coco,flickr8k,flickr30k}.json',
                                takes_instances=True),
            'flickr8k': Dataset(flickr.read_flickr8k, 'Flickr8k.token.txt', takes_splits=True),
            'flickr30k': Dataset(flickr.read_flickr30k, 'results_20130124.token or results.csv',
                                 takes_splits=True),
            'shapes': Dataset(shapes.read, 'captions_{train,val,test}.json, found by themselves',
                              takes_instances=True),
            'folder': Dataset(folder.read, '')}


def check_dataset_name(name: str) -> None:
    """Raise InputError if `name` is none of `DATASETS`."""
    if name not in DATASETS:
        raise InputError(f'there is no dataset {name!r}: choose one of {", ".join(DATASETS)}'
                         f'{did_you_mean(name, DATASETS)}')


def read(name: str, images: PathLike | None, captions: Paths = None,
         splits: Mapping[str, PathLike] | None = None, instances: Paths = None) -> list[Record]:
    """Read a dataset.

    Args:
        name: one of `DATASETS`.
        images: str or Path, the directory of the images; `shapes`: the directory that `shapes.draw`
            wrote.
        captions: str or Path or a list of these, see `Dataset.files`; `folder` has none, `shapes`
            needs none.
        splits: dict from 'train', 'dev', 'test' to the path of a list of image names (Flickr only),
            or None.
        instances: path or list of paths of COCO instances JSON files (COCO only), or None.

    Returns:
        list of Record, at least one, in the order of the published files; the same files give the
        same list.

    Raises:
        InputError: a file is missing or not of its format, an image is listed twice or in two
            splits, nothing is found, or an argument does not suit the dataset.
    """
    check_dataset_name(name)
    row = DATASETS[name]
    for value, is_taken, what in ((captions, row.files, 'captions'),
                                  (splits, row.takes_splits, 'split lists'),
                                  (instances, row.takes_instances, 'instances files')):
        if value is not None and not is_taken:
            raise InputError(f'the dataset {name!r} takes no {what}: leave them out')
    records = row.read(images, captions, splits, instances)
    if not records:
        raise InputError(f'the dataset {name!r} has no image in {captions or images}: '
                         f'check that the files are whole{row.files and f" ({row.files})"}')
    _check_distinct(records)
    return records


def _check_distinct(records: Sequence[Record]) -> None:
    """Raise InputError if one id or one image file stands in two records."""
    for attribute, what in (('image_id', 'image'), ('path', 'image file')):
        first: dict[object, Record] = {}
        for record in records:
            key = getattr(record, attribute)
            other = first.setdefault(key, record)
            if other is not record:
                ids = ('' if attribute == 'image_id'
                       else f' (ids {other.image_id!r} and {record.image_id!r})')
                problem = ('is there twice' if other.split == record.split
                           else f'is in two splits, {other.split} and {record.split}')
                raise InputError(f'{what} {str(key)!r}{ids} {problem}: take it out of one of the '
                                 'files')


def select(records: Sequence[Record], limit: int | None = None,
           splits: str | Iterable[str] | None = None) -> list[Record]:
    """Keep some splits and, of each, a number of images: for small runs.

    Which images are kept depends on their ids alone (those whose SHA-1, salted, comes first), so
    that they are spread over the dataset rather than its beginning, and a larger limit keeps all
    that a smaller one kept.

    Args:
        records: list of Record.
        limit: int, at most so many images of each split; None keeps all.
        splits: one of 'train', 'dev', 'test' or an iterable of them; None keeps all.

    Returns:
        list of Record in the order of `records`.

    Raises:
        InputError: an unknown split, a limit below 1, or nothing is left.
    """
    wanted = SPLITS if splits is None else (splits,) if isinstance(splits, str) else tuple(splits)
    for split in wanted:
        if split not in SPLITS:
            raise InputError(f'there is no split {split!r}: choose among {", ".join(SPLITS)}')
    if limit is not None and (isinstance(limit, bool) or not isinstance(limit, int) or limit < 1):
        raise InputError(f'the limit is {limit!r}: give a whole number of at least 1')
    of_splits = [record for record in records if record.split in wanted]
    if not of_splits:
        known = sorted({record.split for record in records}, key=SPLITS.index)
        raise InputError(f'no image is in the split {" or ".join(wanted)}: '
                         f'the dataset has images in {", ".join(known) or "none"}')
    if limit is None:
        return of_splits
    by_split = collections.defaultdict(list)
    for record in of_splits:
        by_split[record.split].append(
            (coco.fraction_of(record.image_id, 'select '), str(record.image_id)))
    chosen = {(split, image) for split, images in by_split.items()
              for _, image in sorted(images)[:limit]}
    return [record for record in of_splits if (record.split, str(record.image_id)) in chosen]
