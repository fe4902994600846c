"""Attention correctness: whether the model looks at what it names.

For a word that names an object of the image, two questions (Liu et al., "Attention Correctness in
Neural Image Captioning", 2017): which share of the attention lies on the object, and does the most
attended place (the "pointing game" of Zhang et al., 2016) hit it? Both are compared with two ways
of not looking at the image: attention spread evenly, which scores well on large objects, and always
the centre, where photographers put them.
"""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from core.common import terminal
from core.common.aliases import Grid, Rectangle
from core.metrics.object_names import Lexicon, lexicon_of

CENTRE_SIGMA = 0.25  # of the centre prior, as a share of the picture's side


class Region(NamedTuple):
    """One object of an image.

    Attributes:
        names: tuple of str, lower case, one or more words each ('traffic light'): the category
            first.
        rectangle: (x0, y0, x1, y1) as fractions from 0 to 1 of the network's square input, origin
            at the top left.
    """

    names: tuple[str, ...]
    rectangle: Rectangle


class Item(NamedTuple):
    """One captioned image.

    Attributes:
        words: sequence of T str.
        alphas: float array (T or more, L), the attention of each word over the L places; further
            rows are ignored.
        grid: (rows, columns) of the places, rows * columns = L, place l in row l // columns.
        regions: sequence of `Region`.
    """

    words: Sequence[str]
    alphas: np.ndarray
    grid: Grid
    regions: Sequence[Region]


def attention_correctness(items: Iterable[Item], lexicon: Lexicon | None = None) -> dict[str, Any]:
    """Measure where the attention lay, over all words that name an object of their image.

    What a word names is the union of the image's objects of the category that the lexicon gives it.
    A name of several words is one mention, with the mean of its words' attention. Objects of no
    area (outside the crop) are no objects. Words that describe ('red' before 'circle') are measured
    on what their noun names, in 'by_class' only.

    Args:
        items: iterable of `Item`.
        lexicon: Lexicon; None: the regions' own names.

    Returns:
        dict:
            'n_words': int, mentions measured.
            'mass': mean share of attention inside the objects; a cell partly covered counts with
                the covered part.
            'uniform_mass': the same for even attention: the covered share of the picture.
            'centre_mass': the same for the attention of `centre_prior`.
            'mass_ratio', 'centre_ratio': mass / uniform_mass, mass / centre_mass.
            'pointing': share of mentions where the centre of the most attended cell (the first of
                equals) is inside.
            'uniform_pointing': the same for a cell chosen blindly: share of cell centres that are
                inside.
            'centre_pointing': the same for the cell in the middle, blindly one of 2 or 4 where the
                grid has no middle.
            'by_name': dict from name, sorted, to a dict of the nine values above for its mentions.
            'by_class': the same by class of the words: the category, or the lexicon's
                `noun_class`; and those of modifiers.
        All values but n_words are floats, or None where there is no mention.

    Raises:
        ValueError: alphas that do not fit the words or the grid.
    """
    items = list(items)
    lexicon = lexicon or lexicon_of([item.regions for item in items])
    mention_rows: list[tuple] = []
    by_name: dict[str, list[tuple]] = {}
    by_class: dict[str, list[tuple]] = {}
    for item in items:
        alphas = np.asarray(item.alphas, np.float64)
        rows, columns = item.grid
        if (alphas.ndim != 2 or alphas.shape[0] < len(item.words)
            or alphas.shape[1] != rows * columns):
            raise ValueError(f'alphas {alphas.shape} for {len(item.words)} words on a grid of '
                             f'{rows} x {columns}')
        objects: dict[str, list[Rectangle]] = {}
        for names, rectangle in item.regions:
            if _clipped(rectangle) is not None:
                objects.setdefault(names[0], []).append(rectangle)
        for mention in lexicon.find(item.words):
            if mention.category not in objects:
                continue
            measure = _measure_on(objects[mention.category], item.grid)
            row = measure(alphas[mention.start:mention.stop].mean(0))
            mention_rows.append(row)
            by_name.setdefault(mention.name, []).append(row)
            by_class.setdefault(lexicon.noun_class or mention.category, []).append(row)
            for place, kind in mention.modifiers:
                by_class.setdefault(kind, []).append(measure(alphas[place]))
    return {
        **_summary(mention_rows),
        'by_name': {name: _summary(by_name[name]) for name in sorted(by_name)},
        'by_class': {name: _summary(by_class[name]) for name in sorted(by_class)},
    }


def _measure_on(rectangles: Sequence[Rectangle], grid: Grid) -> Callable[[np.ndarray], tuple]:
    """Return a function from one word's attention (L,) to its row of `_summary`."""
    covered, inside = coverage(rectangles, grid).ravel(), centres_inside(rectangles, grid)
    middle = inside[np.ix_(*(sorted({(n - 1) // 2, n // 2}) for n in grid))].mean()
    inside, prior = inside.ravel(), centre_prior(grid).ravel()
    return lambda alpha: (alpha @ covered, covered.mean(), prior @ covered, inside[alpha.argmax()],
                          inside.mean(), middle)


def _summary(rows: list) -> dict[str, Any]:
    values: list[Any] = np.mean(rows, axis=0).tolist() if rows else [None] * 6
    mass, uniform_mass, centre_mass, pointing, uniform_pointing, centre_pointing = values
    return {
        'n_words': len(rows),
        'mass': mass,
        'uniform_mass': uniform_mass,
        'centre_mass': centre_mass,
        'mass_ratio': mass / uniform_mass if rows else None,
        'centre_ratio': mass / centre_mass if rows else None,
        'pointing': pointing,
        'uniform_pointing': uniform_pointing,
        'centre_pointing': centre_pointing,
    }


def class_table(result: Mapping[str, Any], most: int = 12) -> str:
    """Return a table of the result of `attention_correctness` by class, the most words first.

    Args:
        result: dict as of `attention_correctness`.
        most: classes shown at most; a last line tells how many more there are.
    """
    ranked = sorted(result['by_class'].items(), key=lambda row: (-row[1]['n_words'], row[0]))
    keys = ('mass', 'uniform_mass', 'centre_mass', 'pointing', 'uniform_pointing',
            'centre_pointing')
    rows = [[name, str(values['n_words']), *(f'{values[key]:.3f}' for key in keys)]
            for name, values in ranked[:most]]
    text = terminal.table(
        rows, ['', 'words', 'in box', 'evenly', 'centre', 'pointing', 'evenly', 'centre'])
    return text + (f'\n({len(ranked) - most} more in scores.json)' if len(ranked) > most else '')


def centre_prior(grid: Grid) -> np.ndarray:
    """Return attention that always lies on the middle of the picture, whatever is on it.

    A two-dimensional Gaussian around the centre with a standard deviation of `CENTRE_SIGMA` of each
    side, integrated over each cell, what falls outside of the picture cut off.

    Args:
        grid: (rows, columns).

    Returns:
        float64 array (rows, columns) of sum 1.
    """
    sides = []
    for n in grid:
        edges = [math.erf((edge / n - 0.5) / (CENTRE_SIGMA * math.sqrt(2)))
                 for edge in range(n + 1)]
        sides.append(np.diff(edges) / (edges[-1] - edges[0]))
    return np.outer(*sides)


def coverage(rectangles: Sequence[Rectangle], grid: Grid) -> np.ndarray:
    """Compute which part of each cell the union of the rectangles covers, exactly.

    Args:
        rectangles: sequence of (x0, y0, x1, y1), fractions of the picture; parts outside of it are
            cut off.
        grid: (rows, columns).

    Returns:
        float64 array (rows, columns), from 0 to 1.
    """
    rectangles = [clipped for clipped in map(_clipped, rectangles) if clipped is not None]
    edges = [np.arange(n + 1) / n for n in grid]
    # All edges of cells and rectangles cut the picture into pieces that are inside or outside as a
    # whole.
    ys = np.unique([*edges[0], *(edge for _, y0, _, y1 in rectangles for edge in (y0, y1))])
    xs = np.unique([*edges[1], *(edge for x0, _, x1, _ in rectangles for edge in (x0, x1))])
    areas = np.zeros((len(ys) - 1, len(xs) - 1))
    for x0, y0, x1, y1 in rectangles:
        top, bottom = np.searchsorted(ys, (y0, y1))
        left, right = np.searchsorted(xs, (x0, x1))
        areas[top:bottom, left:right] = np.outer(np.diff(ys[top:bottom + 1]),
                                                 np.diff(xs[left:right + 1]))
    by_row = np.add.reduceat(areas, np.searchsorted(ys, edges[0][:-1]), axis=0)
    return np.add.reduceat(by_row, np.searchsorted(xs, edges[1][:-1]), axis=1) * (grid[0] * grid[1])


def centres_inside(rectangles: Sequence[Rectangle], grid: Grid) -> np.ndarray:
    """Tell which cells have their centre in one of the rectangles, whose edges belong to them.

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


def _clipped(rectangle: Sequence[float]) -> Rectangle | None:
    """Return the rectangle as floats within the picture, or None if no area is left."""
    x0, y0, x1, y1 = (min(max(float(edge), 0.0), 1.0) for edge in rectangle)
    return (x0, y0, x1, y1) if x0 < x1 and y0 < y1 else None


def named_boxes(words: Sequence[str], boxes: Sequence[tuple[tuple[str, ...], Rectangle]],
                lexicon: Lexicon | None = None) -> list[tuple[set[int], Rectangle]]:
    """Return which words of a caption name which objects of its image.

    Args:
        words: sequence of str.
        boxes: sequence of (names, rectangle), as `Region`.
        lexicon: Lexicon; None: the boxes' own names.

    Returns:
        list of (set of the places of words, rectangle), one a box, in their order.
    """
    places: dict[str, set[int]] = {}
    for mention in (lexicon or lexicon_of([boxes])).find(words):
        places.setdefault(mention.category, set()).update(range(mention.start, mention.stop))
    return [(places.get(names[0], set()), rectangle) for names, rectangle in boxes]


def object_words(words: Sequence[str], boxes: Sequence[tuple[tuple[str, ...], Rectangle]],
                 lexicon: Lexicon | None = None) -> set[int]:
    """Return the places of the words that name an object of their image, as `named_boxes`.

    Objects of no area (outside the crop) are no objects.
    """
    seen = [box for box in boxes if _clipped(box[1]) is not None]
    return set().union(*(places for places, _ in named_boxes(words, seen, lexicon)))
