"""COCO captions: `captions_{train,val}{2014,2017}.json`, and boxes from `instances_*.json`.

The official test images have no published captions, so the images of val are divided into dev and
test, see `split_of`. Readers of other formats that number images as COCO does take their boxes from
here too.
"""

import hashlib
import math
import pathlib
import re
from collections.abc import Collection, Mapping

from core.common.aliases import Json, PathLike, Paths
from core.common.errors import InputError
from core.datasets.published_files import as_paths, directory, is_id, read_listing
from core.datasets.records import Box, Record

CAPTIONS = 'COCO captions JSON (lists "images" and "annotations" with image_id and caption)'
INSTANCES = 'COCO instances JSON (lists "images", "annotations" with bbox, and "categories")'
Captions = Paths | Mapping[str, PathLike]  # files, or a file of each split


def fraction_of(image_id: int | str, salt: str = '') -> float:
    """Return a share in [0, 1) of an image's id: its SHA-1, evenly spread.

    Args:
        image_id: int or str. salt: for a share that has nothing to do with that of another salt.
    """
    digest = hashlib.sha1(f'{salt}{image_id}'.encode('utf8', 'surrogatepass')).digest()
    return int.from_bytes(digest[:6], 'big') / 2**48


def split_of(image_id: int | str, source: str) -> str:
    """Return the split of an image, from its id and the file that lists it.

    With u = the first 48 bits of SHA-1 of the id written in decimal, divided by 2**48: `source`
    'train' is train and 'test' is test; 'val' is dev where u < 0.5 and test elsewhere; 'all' (the
    only file there is, for instance a sample of train2017) is train where u < 0.8, dev where u <
    0.9, test elsewhere. The order of files and images plays no part, and images next to each other
    are not treated alike.

    Args:
        image_id: int or str.
        source: 'train', 'val', 'test' or 'all'.

    Returns:
        'train', 'dev' or 'test'.
    """
    if source in ('train', 'test'):
        return source
    u = fraction_of(image_id)
    if source == 'val':
        return 'dev' if u < 0.5 else 'test'
    return 'train' if u < 0.8 else 'dev' if u < 0.9 else 'test'


def read(images: PathLike, captions: Captions, splits: None = None, instances: Paths = None, *,
         year: str, divide: bool = True) -> list[Record]:
    """Read COCO captions, in the order in which the files and their "images" lists name them.

    A file belongs to 'train' or 'val' by what its name contains. Where no val or test file is
    given, the images of the train file, or of one file whose name says nothing, are divided
    80/10/10 (`split_of` with source 'all').

    Args:
        images: directory. An image lies in its folder `train<year>` or `val<year>` where that
            folder exists, otherwise in the directory itself.
        captions: path or list of paths of captions JSON files, or a dict from 'train', 'val',
            'test' to a path.
        splits: must be None.
        instances: path or list of paths of instances JSON files, or None. Images that these list
            have `boxes` (without crowds and boxes without area), empty where nothing is annotated;
            all others have None.
        year: '2014' or '2017', part of the folders' names.
        divide: False reads val as dev and train as train, whole.

    Returns:
        list of Record. An image without annotations has no captions.

    Raises:
        InputError: see `core.datasets.read`.
    """
    root = directory(images)
    sources = _sources(captions)
    pooled = divide and not any(source in ('val', 'test') for source, _ in sources)
    records = []
    for source, path in sources:
        folder = root / f'{source}{year}'
        if source == 'all' or not folder.is_dir():
            folder = root
        listed, texts = _captions(path)
        for image_id, image in listed.items():
            if divide:
                split = split_of(image_id, 'all' if pooled else source)
            else:
                split = {'val': 'dev'}.get(source, source)
            records.append(Record(image_id, folder / image['file_name'], tuple(texts[image_id]),
                                  split, size=_size(image)))
    return with_boxes(records, instances)


def with_boxes(records: list[Record], instances: Paths) -> list[Record]:
    """Return the records with `boxes`, and `size` where it is missing, from COCO instances files.

    Args:
        records: list of Record whose ids are COCO's.
        instances: path, list of paths, or None (the records are returned as they are).

    Raises:
        InputError: not an instances file, an annotation of an unlisted image or category, a bbox
            that is none.
    """
    wanted = {record.image_id for record in records}
    boxes: dict[int | str, list[Box]] = {}
    sizes: dict[int | str, tuple[int, int]] = {}
    for path in as_paths(instances):
        _read_boxes(path, wanted, boxes, sizes)
    if instances is None:
        return records
    return [Record(r.image_id, r.path, r.captions, r.split, tuple(boxes[r.image_id])
                   if r.image_id in boxes else r.boxes, r.size or sizes.get(r.image_id))
            for r in records]


def _sources(captions: Captions) -> list[tuple[str, pathlib.Path]]:
    """Return [(source, path)]; a source is 'train', 'val', 'test', of a lone file also 'all'."""
    if isinstance(captions, Mapping):
        if not captions or set(captions) - {'train', 'val', 'test'}:
            raise InputError(f'captions of {sorted(map(str, captions))}: name files of train, val '
                             'and test only')
        return [(source, as_paths(path)[0]) for source, path in captions.items()]
    sources, paths = [], as_paths(captions)
    for path in paths:
        name = path.name.lower()
        # At the beginning of a word, as in captions_val2014.json: 'festival' and 'latest' say
        # nothing of a split.
        said = ''.join(re.findall(r'(?<![a-z])(?:train|val|test)+', name))
        named = [source for source in ('train', 'val', 'test') if source in said]
        if len(named) > 1 or (not named and len(paths) > 1):
            raise InputError(f'{path}: its name does not say whether it is train or val; '
                             'rename it as in captions_train2014.json and captions_val2014.json')
        sources.append((named[0] if named else 'all', path))
    if not sources:
        raise InputError(f'no captions file given: name the {CAPTIONS}')
    return sources


def _captions(path: PathLike) -> tuple[dict[int | str, dict], dict[int | str, list[str]]]:
    """Return (dict image id -> image entry, dict image id -> list of captions) of one file."""
    content = read_listing(path, CAPTIONS, 'images', 'annotations')
    listed = _images(path, content['images'], CAPTIONS)
    for image_id, image in listed.items():
        if not isinstance(image.get('file_name'), str) or not image['file_name']:
            raise InputError(f'{path}: image {image_id!r} has no file_name; expected {CAPTIONS}')
    texts: dict[int | str, list[str]] = {image_id: [] for image_id in listed}
    for number, annotation in enumerate(content['annotations']):
        where = f'{path}: annotation {annotation.get("id", f"number {number}")!r}'
        _check_listed(where, annotation, listed)
        if not isinstance(annotation.get('caption'), str):
            raise InputError(f'{where} has the caption {annotation.get("caption")!r}, which is no '
                             'text; correct it or take the annotation out')
        texts[annotation['image_id']].append(annotation['caption'])
    return listed, texts


def _images(path: PathLike, rows: list[dict], expected: str) -> dict[int | str, dict]:
    """Return the image entries of one file by their ids.

    Raises:
        InputError: no id, or one that stands twice; `expected` says of which kind the file is.
    """
    listed: dict[int | str, dict] = {}
    for number, image in enumerate(rows):
        image_id: Json = image.get('id')
        if not is_id(image_id):
            raise InputError(f'{path}: image number {number} has the id {image_id!r}; expected '
                             f'{expected}')
        if image_id in listed:
            raise InputError(f'{path}: image id {image_id!r} is listed twice; take one entry out')
        listed[image_id] = image
    return listed


def _size(image: dict) -> tuple[int, int] | None:
    """Return the (width, height) that an entry names; None where it names none."""
    width, height = image.get('width'), image.get('height')
    if isinstance(width, int) and isinstance(height, int) and width > 0 and height > 0:
        return width, height
    return None


def _check_listed(where: str, annotation: dict, listed: Collection[int | str]) -> None:
    """Raise InputError if an annotation belongs to no listed image."""
    image_id = annotation.get('image_id')
    if not is_id(image_id) or image_id not in listed:
        raise InputError(f'{where} belongs to image {image_id!r}, which the file does not list; '
                         'list the image or take the annotation out')


def _read_boxes(path: PathLike, wanted: Collection[int | str], boxes: dict[int | str, list[Box]],
                sizes: dict[int | str, tuple[int, int]]) -> None:
    """Add the objects of one instances file to `boxes`, image sizes to `sizes`.

    Args:
        path: of the file. wanted: ids of the images whose boxes are wanted.
        boxes: image id -> list of Box. sizes: image id -> (width, height).
    """
    content = read_listing(path, INSTANCES, 'images', 'annotations', 'categories')
    listed = _images(path, content['images'], INSTANCES)
    for image_id in wanted & listed.keys():
        if image_id in boxes:
            raise InputError(f'{path}: image id {image_id!r} is listed in two instances files; '
                             'give each file once')
        boxes[image_id] = []
        size = _size(listed[image_id])
        if size is not None:
            sizes[image_id] = size
    names = {}
    for category in content['categories']:
        synonyms = category.get('synonyms') or ()
        words = ((category.get('name'), *synonyms) if isinstance(synonyms, (list, tuple))
                 else (None,))
        if not is_id(category.get('id')) or not all(isinstance(word, str) for word in words):
            raise InputError(f'{path}: category {category.get("id")!r} has no proper name or '
                             f'synonyms; expected {INSTANCES}')
        names[category['id']] = tuple(word.lower() for word in words)
    for number, annotation in enumerate(content['annotations']):
        where = f'{path}: annotation {annotation.get("id", f"number {number}")!r}'
        _check_listed(where, annotation, listed)
        if annotation.get('iscrowd') or annotation['image_id'] not in wanted:
            continue
        category = annotation.get('category_id')
        if not is_id(category) or category not in names:
            raise InputError(f'{where} has category {category!r}, which the file does not list; '
                             f'expected {INSTANCES}')
        bbox = annotation.get('bbox')
        if not isinstance(bbox, list) or len(bbox) != 4 or not all(
                isinstance(v, (int, float)) and math.isfinite(v) for v in bbox):
            raise InputError(f'{where} has the bbox {bbox!r}; expected four numbers: x, y, width, '
                             'height')
        # The published files hold a few boxes without area: nothing can lie inside one.
        if bbox[2] > 0 and bbox[3] > 0:
            boxes[annotation['image_id']].append(Box(names[category], *map(float, bbox)))
