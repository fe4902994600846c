"""Flickr8k and Flickr30k: a file of captions by image name, and lists of the images of a split."""

import re
from collections.abc import Mapping

from core.common.aliases import PathLike, Paths
from core.common.errors import InputError
from core.datasets.published_files import directory, one_path, read_lines
from core.datasets.records import SPLITS, Record

TOKENS = 'lines "name.jpg#0<TAB>caption" (Flickr8k.token.txt, results_20130124.token) ' \
         'or "name.jpg| 0| caption" below the head line of results.csv'
LIST = 'one image name a line'

_TOKEN_KEY = re.compile(r'(?P<name>.+)#(?P<number>\d+)\s*')
# One line of the published results.csv lacks its second '|' (2199200615.jpg), so blanks may stand
# for it.
_CSV_LINE = re.compile(r'(?P<name>[^|]+)\|\s*(?P<number>\d+)(?:\s*\||\s+)(?P<caption>.*)',
                       re.DOTALL)


def read_flickr8k(images: PathLike, captions: Paths, splits: Mapping[str, PathLike] | None = None,
                  instances: None = None) -> list[Record]:
    """Read Flickr8k; arguments, result and errors as of `core.datasets.read`.

    Without `splits`, the lists are the official `Flickr_8k.*Images.txt` beside the captions file.
    """
    path = one_path(captions, TOKENS)
    texts = _captions(path)
    if splits is None:
        beside = {split: path.parent / f'Flickr_8k.{split}Images.txt' for split in SPLITS}
        splits = {split: file for split, file in beside.items() if file.exists()}
        if 'train' not in splits:
            raise InputError(f'{beside["train"]}: is missing; put the split lists beside the '
                             'captions file or name them as splits')
    return _read(images, path, texts, splits)


def read_flickr30k(images: PathLike, captions: Paths, splits: Mapping[str, PathLike] | None = None,
                   instances: None = None) -> list[Record]:
    """Read Flickr30k; arguments, result and errors as of `core.datasets.read`.

    Captions are in a token file or in `results.csv`. Split lists are published apart and must be
    named.
    """
    path = one_path(captions, TOKENS)
    texts = _captions(path)
    if not splits:
        raise InputError(f'{path}: comes without split lists; name them as splits train, dev and '
                         f'test (files of {LIST})')
    return _read(images, path, texts, splits)


def _read(images: PathLike, path: PathLike, texts: Mapping[str, Mapping[int, str]],
          splits: Mapping[str, PathLike]) -> list[Record]:
    """Read the images named in the split lists, in the order of these lists: train, dev, test.

    Args:
        images: directory of the image files.
        path: file of captions, for messages.
        texts: its content, see `_captions`.
        splits: dict from 'train', 'dev', 'test' (any of them) to the path of a list, one image name
            a line, with or without '.jpg'. Images in no list are left out.

    Returns:
        list of Record; the image id is the file's name.
    """
    root = directory(images)
    if not splits or set(splits) - set(SPLITS):
        raise InputError(f'split lists of {sorted(map(str, splits))}: name lists of '
                         f'{", ".join(SPLITS)} only')
    records: list[Record] = []
    seen: dict[str, tuple[str, str]] = {}
    for split in SPLITS:
        if split not in splits:
            continue
        for number, line in read_lines(splits[split], LIST):
            where, name = f'{splits[split]}, line {number}', line.strip()
            if name not in texts and f'{name}.jpg' in texts:
                name = f'{name}.jpg'
            if name not in texts:
                raise InputError(f'{where}: image {name!r} has no captions in {path}; '
                                 'take it out of the list or give the captions file that has it')
            if name in seen:
                other, first = seen[name]
                problem = ('is listed twice' if other == split
                           else f'is in two splits, {other} and {split}')
                raise InputError(f'{where}: image {name!r} {problem} (also {first}); take it out '
                                 'of one')
            seen[name] = (split, where)
            records.append(Record(name, root / name, tuple(texts[name].values()), split))
    return records


def _captions(path: PathLike) -> dict[str, dict[int, str]]:
    """Return dict image name -> dict caption number -> caption."""
    lines = read_lines(path, TOKENS)
    parse = _parse_token
    if lines and lines[0][1].replace(' ', '').lower().startswith('image_name|'):
        parse, lines = _parse_csv, lines[1:]
    texts: dict[str, dict[int, str]] = {}
    for number, line in lines:
        parsed = parse(line)
        if parsed is None:
            raise InputError(f'{path}, line {number}: cannot be read: {line[:60]!r}; expected '
                             f'{TOKENS}')
        name, index, caption = parsed
        of_image = texts.setdefault(name, {})
        if index in of_image:
            raise InputError(f'{path}, line {number}: caption {index} of image {name!r} is there '
                             'twice; take one of the lines out')
        of_image[index] = caption
    return texts


def _parse_token(line: str) -> tuple[str, int, str] | None:
    """Return (image name, caption number, caption) of a line of a token file, or None."""
    key, tab, caption = line.partition('\t')
    match = _TOKEN_KEY.fullmatch(key)
    return (match['name'].strip(), int(match['number']), caption) if tab and match else None


def _parse_csv(line: str) -> tuple[str, int, str] | None:
    """Return (image name, caption number, caption) of a line of `results.csv`, or None."""
    match = _CSV_LINE.fullmatch(line)
    if not match:
        return None
    return match['name'].strip(), int(match['number']), match['caption'].strip()
