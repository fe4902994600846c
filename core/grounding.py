"""Attention correctness: whether the model looks at an object while it writes the word that names it.

For a word that names an object of the image, two questions (Liu et al., "Attention Correctness in Neural Image
Captioning", 2017): which share of the attention lies on the object, and does the most attended place (the
"pointing game" of Zhang et al., 2016) hit it? Both are compared with attention spread evenly, which scores well on
large objects without looking anywhere.
"""

from typing import NamedTuple

import numpy as np

from core.text import tokenize


class Region(NamedTuple):
    """One object of an image.

    Attributes:
        names: tuple of str, lower case, one or more words each ('traffic light').
        rectangle: (x0, y0, x1, y1) as fractions from 0 to 1 of the network's square input, origin at the top left.
    """

    names: tuple
    rectangle: tuple


class Item(NamedTuple):
    """One captioned image.

    Attributes:
        words: sequence of T str, lower case.
        alphas: float array (T or more, L), the attention of each word over the L places; further rows are ignored.
        grid: (rows, columns) of the places, rows * columns = L, place l in row l // columns.
        regions: sequence of `Region`.
    """

    words: tuple
    alphas: np.ndarray
    grid: tuple
    regions: tuple


class Mention(NamedTuple):
    """A name found in a caption: words `start` to `stop` (exclusive) name the objects that have `name`."""

    name: str
    start: int
    stop: int


def attention_correctness(items):
    """Measures, over all words of all captions that name an object of their image, where the attention lay.

    What a word names is the union of the objects that have this name. A name of several words is one mention, with
    the mean of its words' attention. Objects of no area (outside the crop) are no objects.

    Args:
        items: iterable of `Item`.

    Returns:
        dict:
            'n_words': int, mentions measured.
            'mass': mean share of attention inside the objects; a cell partly covered counts with the covered part.
            'uniform_mass': the same for even attention: the covered share of the picture.
            'mass_ratio': mass / uniform_mass.
            'pointing': share of mentions where the centre of the most attended cell (the first of equals) is inside.
            'uniform_pointing': the same for a cell chosen blindly: share of cell centres that are inside.
            'by_name': dict from name, sorted, to a dict of the six values above for its mentions.
        All values but n_words are floats, or None where there is no mention.

    Raises:
        ValueError: alphas that do not fit the words or the grid.
    """
    measured = {}
    for item in items:
        alphas = np.asarray(item.alphas, np.float64)
        rows, columns = item.grid
        if alphas.ndim != 2 or alphas.shape[0] < len(item.words) or alphas.shape[1] != rows * columns:
            raise ValueError(f'alphas {alphas.shape} for {len(item.words)} words on a grid of {rows} x {columns}')
        regions = [region for region in item.regions if _clipped(region.rectangle) is not None]
        maps = {}
        for name, start, stop in find_mentions(item.words, [name for region in regions for name in region.names]):
            if name not in maps:
                rectangles = [region.rectangle for region in regions if name in region.names]
                maps[name] = coverage(rectangles, item.grid).ravel(), centres_inside(rectangles, item.grid).ravel()
            covered, inside = maps[name]
            alpha = alphas[start:stop].mean(0)
            measured.setdefault(name, []).append(
                (alpha @ covered, covered.mean(), inside[alpha.argmax()], inside.mean()))
    summary = _summary([row for rows in measured.values() for row in rows])
    return {**summary, 'by_name': {name: _summary(measured[name]) for name in sorted(measured)}}


def _summary(rows):
    mass, uniform_mass, pointing, uniform_pointing = np.mean(rows, axis=0).tolist() if rows else [None] * 4
    return {
        'n_words': len(rows),
        'mass': mass,
        'uniform_mass': uniform_mass,
        'mass_ratio': mass / uniform_mass if rows else None,
        'pointing': pointing,
        'uniform_pointing': uniform_pointing,
    }


def find_mentions(words, names):
    """Finds names in a caption, also in the plural ('s' or 'es' on the last word).

    From left to right; of names that begin at the same word the longest wins, so a 'hot dog' is not a 'dog', and an
    exact name wins over a plural.

    Args:
        words: sequence of str, lower case.
        names: iterable of str; cut into words as captions are.

    Returns:
        list of `Mention` in the order of the words; no word belongs to two.
    """
    patterns = {}
    for name in names:
        patterns[tuple(tokenize(name))] = name
    patterns.pop((), None)
    for pattern, name in list(patterns.items()):
        for ending in ('s', 'es'):
            patterns.setdefault((*pattern[:-1], pattern[-1] + ending), name)
    longest = max(map(len, patterns), default=0)
    words = tuple(words)
    mentions, start = [], 0
    while start < len(words):
        for stop in range(min(start + longest, len(words)), start, -1):
            if words[start:stop] in patterns:
                mentions.append(Mention(patterns[words[start:stop]], start, stop))
                start = stop
                break
        else:
            start += 1
    return mentions


def coverage(rectangles, grid):
    """Computes which part of each cell the union of the rectangles covers, exactly.

    Args:
        rectangles: sequence of (x0, y0, x1, y1), fractions of the picture; parts outside of it are cut off.
        grid: (rows, columns).

    Returns:
        float64 array (rows, columns), from 0 to 1.
    """
    rectangles = [clipped for clipped in map(_clipped, rectangles) if clipped is not None]
    edges = [np.arange(n + 1) / n for n in grid]
    # All edges of cells and rectangles cut the picture into pieces that are inside or outside as a whole.
    ys = np.unique([*edges[0], *(edge for _, y0, _, y1 in rectangles for edge in (y0, y1))])
    xs = np.unique([*edges[1], *(edge for x0, _, x1, _ in rectangles for edge in (x0, x1))])
    areas = np.zeros((len(ys) - 1, len(xs) - 1))
    for x0, y0, x1, y1 in rectangles:
        top, bottom = np.searchsorted(ys, (y0, y1))
        left, right = np.searchsorted(xs, (x0, x1))
        areas[top:bottom, left:right] = np.outer(np.diff(ys[top:bottom + 1]), np.diff(xs[left:right + 1]))
    by_row = np.add.reduceat(areas, np.searchsorted(ys, edges[0][:-1]), axis=0)
    return np.add.reduceat(by_row, np.searchsorted(xs, edges[1][:-1]), axis=1) * (grid[0] * grid[1])


def centres_inside(rectangles, grid):
    """Tells which cells have their centre in one of the rectangles, whose edges belong to them.

    Args:
        rectangles: as in `coverage`.
        grid: as in `coverage`.

    Returns:
        bool array (rows, columns).
    """
    y, x = ((np.arange(n) + 0.5) / n for n in grid)
    inside = np.zeros(grid, bool)
    for x0, y0, x1, y1 in filter(None, map(_clipped, rectangles)):
        inside |= np.outer((y0 <= y) & (y <= y1), (x0 <= x) & (x <= x1))
    return inside


def _clipped(rectangle):
    """Returns the rectangle as floats within the picture, or None if no area is left."""
    x0, y0, x1, y1 = (min(max(float(edge), 0.0), 1.0) for edge in rectangle)
    return (x0, y0, x1, y1) if x0 < x1 and y0 < y1 else None
