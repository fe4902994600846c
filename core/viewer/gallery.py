"""The page to look at: index.html, photos and attention, opened from the disk.

    DIR/index.html, viewer.js, viewer.css, gallery.js, gallery.css   copied from core/viewer/static
    DIR/data/records.js          what the gallery shows of every image
    DIR/data/attention-0000.js   words, attention, gates of CHUNK images, loaded when one is opened
    DIR/photos/00000.jpg         what the encoder sees of each photo

Data are scripts and not JSON files, because a page of the disk may run the ones but not read the
others. Files are numbered in the order of the images, as ids may hold anything.
"""

import contextlib
import json
import os
import pathlib
import re
import shutil
import tempfile
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np
from PIL import Image

from core.common.aliases import PathLike, Say
from core.common.errors import InputError

ASSETS = pathlib.Path(__file__).parent / 'static'
FILES = ('viewer.js', 'viewer.css', 'gallery.js', 'gallery.css')
MARK = '<meta name="generator" content="show-attend-tell page">'
OURS = re.compile(r'index\.html|(viewer|gallery)\.(js|css)|photos|data|photos/\d{5,}\.jpg|'
                  r'data/(records|attention-\d{4,})\.js')
# of scores.json
INFO = ('step', 'split', 'decoding', 'decode_context', 'coco', 'paper', 'diversity', 'attention')
CHUNK = 32  # images in a file of attention
SIDE, QUALITY = 400, 85  # pixels and JPEG quality of a photo


def check_directory(directory: PathLike) -> pathlib.Path:
    """Return where a page would be written, if nothing is lost by it.

    Returns:
        Path, with links followed.

    Raises:
        InputError: there is something else in the directory than an earlier page.
    """
    path = pathlib.Path(directory)
    try:
        place = path.resolve()
        if not place.exists():
            return place
        if not place.is_dir():
            raise InputError(f'--html {path}: this is a file; name a directory')
        if any(place.iterdir()) and MARK not in _text(place / 'index.html'):
            raise InputError(f'--html {path}: not empty and not an earlier page; name another '
                             'directory')
        other = [entry for entry in sorted(p.relative_to(place).as_posix()
                                           for p in place.rglob('*')) if not OURS.fullmatch(entry)]
    except (OSError, RuntimeError) as error:
        raise InputError(
            f'--html {path}: cannot be read ({error}); name another directory') from None
    if other:
        raise InputError(f'--html {path}: holds {other[0]!r}, which is no part of an earlier page '
                         'and would be lost; move it away or name another directory')
    return place


def _text(path: pathlib.Path) -> str:
    return path.read_text(encoding='utf8', errors='replace') if path.is_file() else ''


def write(directory: PathLike, info: Mapping[str, Any], records: Iterable[dict[str, Any]],
          photo: Callable[[int], np.ndarray], say: Say = print) -> pathlib.Path:
    """Write the page beside the directory, then put it in its place: never half a page.

    Args:
        directory: str or Path, missing, empty or an earlier page.
        info: dict shown above the gallery: 'title' (str), and of the entries of scores.json what
            there is.
        records: iterable of dict, one an image: 'image' (its id, str), 'caption' (str),
            'references' (list of str), 'scores' (dict of metric -> float, may be empty), 'grid'
            ((rows, cols)) and 'captions' (list of `core.viewer.caption_record.page_record`, best
            first).
        photo: function of the image's place in `records` -> (h, w, 3) uint8, what the encoder sees.
            An InputError that it raises is noted on the page, and the other images go on.
        say: function that prints a line.

    Returns:
        Path of index.html.

    Raises:
        InputError: the directory holds something else, or cannot be replaced.
    """
    place = check_directory(directory)
    place.parent.mkdir(parents=True, exist_ok=True)
    new = pathlib.Path(tempfile.mkdtemp(dir=place.parent, prefix=f'.{place.name}.new-'))
    try:
        new.chmod(0o755)
        _fill(new, info, records, photo, say)
        check_directory(place)
        _swap(new, place)
    finally:
        shutil.rmtree(new, ignore_errors=True)
    return pathlib.Path(directory) / 'index.html'


def _fill(new: pathlib.Path, info: Mapping[str, Any], records: Iterable[dict[str, Any]],
          photo: Callable[[int], np.ndarray], say: Say) -> None:
    """Write everything into the directory `new`."""
    (new / 'photos').mkdir()
    (new / 'data').mkdir()
    cards, chunk, missing = [], [], []
    for number, record in enumerate(records):
        card = {name: record[name] for name in ('image', 'caption', 'references', 'grid')}
        card['scores'] = {name: round(value, 4) for name, value in record['scores'].items()}
        best = record['captions'][0] if record['captions'] else {}
        card['log_prob'] = best.get('log_prob')
        try:
            card['photo'] = f'photos/{number:05}.jpg'
            Image.fromarray(photo(number)).save(new / card['photo'], 'JPEG', quality=QUALITY,
                                                optimize=True)
        except InputError as error:
            card['photo'] = None
            missing.append(error)
        cards.append(card)
        chunk.append(record['captions'])
        if len(chunk) == CHUNK:
            _write_chunk(new, number // CHUNK, chunk)
            chunk = []
    if chunk:
        _write_chunk(new, len(cards) // CHUNK, chunk)
    if missing:
        say(f'{len(missing)} of {len(cards)} photos are not on the page, for example: {missing[0]}')
    _script(new / 'data' / 'records.js', f'PAGE.start({_json({**info, "chunk": CHUNK})}, '
            f'{_json(cards)});')
    for name in FILES:
        shutil.copyfile(ASSETS / name, new / name)
    shutil.copyfile(ASSETS / 'page.html', new / 'index.html')


def _write_chunk(new: pathlib.Path, number: int, captions: list) -> None:
    _script(new / 'data' / f'attention-{number:04}.js', f'PAGE.attention({number}, '
            f'{_json(captions)});')


def _script(path: pathlib.Path, text: str) -> None:
    path.write_text(text + '\n', encoding='ascii')


def _json(value: object) -> str:
    """Return JSON that is safe inside a script in HTML: ASCII, and no '<' that could end it."""
    return json.dumps(value, separators=(',', ':'), allow_nan=False).replace('<', '\\u003c')


def _swap(new: pathlib.Path, place: pathlib.Path) -> None:
    """Put the directory `new` in the place of `place`."""
    old = None
    try:
        if place.exists() and any(place.iterdir()):
            old = pathlib.Path(tempfile.mkdtemp(dir=place.parent, prefix=f'.{place.name}.old-'))
            os.replace(place, old)
        os.replace(new, place)
    except BaseException as error:
        if old is not None and not place.exists():
            os.replace(old, place)
        if isinstance(error, OSError):
            raise InputError(f'--html {place}: cannot be replaced ({error.strerror}); name another '
                             'directory') from None
        raise
    finally:
        if old is not None and place.exists():
            with contextlib.suppress(OSError):
                shutil.rmtree(old)
