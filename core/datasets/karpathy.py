"""Karpathy's splits: `dataset_coco.json`, `dataset_flickr8k.json` and `dataset_flickr30k.json`."""

from core.common.aliases import PathLike, Paths
from core.common.errors import InputError
from core.datasets import coco
from core.datasets.published_files import directory, is_id, one_path, read_listing
from core.datasets.records import Record

EXPECTED = 'Karpathy\'s dataset JSON (a list "images" with filename, split and sentences)'
SPLIT_OF = {'train': 'train', 'restval': 'train', 'val': 'dev', 'test': 'test'}


def read(images: PathLike, captions: Paths, splits: None = None,
         instances: Paths = None) -> list[Record]:
    """Read one of the three files, in their order; restval counts as train, val is dev.

    Args:
        images: directory. An image lies in its folder `filepath` (COCO: train2014, val2014) where
            that folder exists, otherwise in the directory itself.
        captions: path of the JSON file.
        splits: must be None.
        instances: COCO instances files for boxes, only with `dataset_coco.json`.

    Returns:
        list of Record. The image id is `cocoid` where present, otherwise the file's name. A caption
        is the sentence's `raw` text, or its tokens with blanks between where there is none.

    Raises:
        InputError: see `core.datasets.read`.
    """
    root, path = directory(images), one_path(captions, EXPECTED)
    folders, records = {}, []
    for number, image in enumerate(read_listing(path, EXPECTED, 'images')['images']):
        name = image.get('filename')
        if not isinstance(name, str) or not name:
            raise InputError(f'{path}: image number {number} has no filename; expected {EXPECTED}')
        split = image.get('split')
        if not isinstance(split, str) or split not in SPLIT_OF:
            raise InputError(f'{path}: image {name!r} has the split {split!r}; expected one of '
                             f'{", ".join(SPLIT_OF)}')
        image_id = image.get('cocoid', name)
        if not is_id(image_id):
            raise InputError(f'{path}: image {name!r} has the cocoid {image_id!r}; expected a '
                             'number')
        folder = image.get('filepath') or ''
        if not isinstance(folder, str):
            raise InputError(f'{path}: image {name!r} has the filepath {folder!r}; expected the '
                             'name of a folder')
        if folder not in folders:
            folders[folder] = root / folder if (root / folder).is_dir() else root
        texts = tuple(_caption(path, name, sentence) for sentence in _sentences(path, name, image))
        records.append(Record(image_id, folders[folder] / name, texts, SPLIT_OF[split]))
    if instances is not None and not any(isinstance(record.image_id, int) for record in records):
        raise InputError(f'{path}: its images have no cocoid, so instances files of COCO cannot '
                         'give them boxes; leave the instances out')
    return coco.with_boxes(records, instances)


def _sentences(path: PathLike, name: str, image: dict) -> list[dict]:
    """Return the sentences of an image's entry."""
    rows = image.get('sentences')
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise InputError(f'{path}: image {name!r} has no list of sentences; expected {EXPECTED}')
    return rows


def _caption(path: PathLike, name: str, sentence: dict) -> str:
    """Return the text of a sentence's entry."""
    raw, tokens = sentence.get('raw'), sentence.get('tokens')
    if isinstance(raw, str):
        return raw
    if raw is None and isinstance(tokens, list) and all(isinstance(token, str) for token in tokens):
        return ' '.join(tokens)
    raise InputError(f'{path}: sentence {sentence.get("sentid")!r} of image {name!r} has neither '
                     f'raw text nor tokens; expected {EXPECTED}')
