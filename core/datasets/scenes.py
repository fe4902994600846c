"""Scenes of the `shapes` dataset before they are drawn: what lies where, and what is true of it.

Lengths are shares of the picture's side. An object is described by the square of half-side `radius`
around its centre; what is drawn never leaves that square.

When one object lies left of, right of, above or below another: between their squares there is a gap
of at least `MARGIN` in that direction, and the centres are at least `DOMINANCE` times as far apart
in it as across it. Pairs that lie aslant have no relation, and no caption gives them one.
"""

import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    import numpy as np

T = TypeVar('T')

SHAPES = {
    'circle': ('disc',),
    'square': (),
    'triangle': (),
    'star': (),
    'cross': ('plus',),
    'heart': (),
    'diamond': ('rhombus',),
}
COLOURS = {
    'red': (214, 40, 40),
    'green': (44, 160, 60),
    'blue': (38, 84, 200),
    'yellow': (246, 214, 30),
    'purple': (140, 60, 180),
    'orange': (248, 130, 24),
}
SIZES = {'large': ('big',), 'small': ('little', 'tiny')}
RADII = {'large': (0.16, 0.19), 'small': (0.08, 0.095)}
RELATIONS = {
    'left': ('to the left of', 'left of'),
    'right': ('to the right of', 'right of'),
    'above': ('above',),
    'below': ('below', 'under'),
}
OPPOSITE = {'left': 'right', 'right': 'left', 'above': 'below', 'below': 'above'}
PLACES = {(0, 0): ('in the top left corner',), (1, 0): ('at the top',),
          (2, 0): ('in the top right corner',), (0, 1): ('on the left',),
          (1, 1): ('in the middle', 'in the center'), (2, 1): ('on the right',),
          (0, 2): ('in the bottom left corner',), (1, 2): ('at the bottom',),
          (2, 2): ('in the bottom right corner',)}
MARGIN = 0.03
DOMINANCE = 1.5
CAPTIONS_PER_SCENE = 5

_EDGE = 0.02  # free space between an object's square and the edge of the picture
_PLACE_CENTRES = (0.22, 0.5, 0.78)
_USUAL = 0.75  # probability of the first of several words for the same thing


@dataclasses.dataclass(frozen=True)
class Thing:
    """One object of a scene.

    Attributes:
        shape, colour, size: str, keys of `SHAPES`, `COLOURS`, `SIZES`.
        x, y, radius: float, centre and half-side of its square in shares of the picture's side.
        angle: float, degrees that it is turned by.
    """

    shape: str
    colour: str
    size: str
    x: float
    y: float
    radius: float
    angle: float

    @property
    def cell(self) -> tuple[int, int]:
        """The (column, row) of the centre in a grid of 3 by 3."""
        return min(int(self.x * 3), 2), min(int(self.y * 3), 2)


def key(scene: Sequence[Thing]) -> tuple:
    """Return what makes two scenes the same to a describer: objects and cells, in any order."""
    return tuple(sorted((thing.shape, thing.colour, thing.size, thing.cell) for thing in scene))


def relation(a: Thing, b: Thing) -> str | None:
    """Return where `a` lies as seen from `b`: 'left', 'right', 'above', 'below' or None.

    The module's docstring says when it is which.
    """
    dx, dy = b.x - a.x, b.y - a.y
    if max(abs(dx), abs(dy)) < a.radius + b.radius + MARGIN:
        return None
    if abs(dx) >= DOMINANCE * abs(dy):
        return 'left' if dx > 0 else 'right'
    if abs(dy) >= DOMINANCE * abs(dx):
        return 'above' if dy > 0 else 'below'
    return None


def sample(rng: 'np.random.Generator') -> tuple[Thing, ...]:
    """Draw a scene of one (1 in 5), two (1 in 2) or three objects of different shapes.

    Args:
        rng: np.random.Generator.

    Returns:
        tuple of Thing, no two overlapping; of two or three objects, at least one pair has a
        relation.
    """
    u = rng.random()
    n_things = 1 if u < 0.2 else 2 if u < 0.7 else 3
    shapes = _distinct(rng, list(SHAPES), n_things)
    looks = [(shape, _pick(rng, list(COLOURS)), _pick(rng, list(SIZES)), _between(rng, -8, 8))
             for shape in shapes]
    while True:
        scene = tuple(_place(rng, *look, alone=n_things == 1) for look in looks)
        if _apart(scene) and (n_things == 1 or related_pairs(scene)):
            return scene


def related_pairs(scene: Sequence[Thing]) -> list[tuple[Thing, Thing, str]]:
    """Return [(a, b, relation of a to b)] of all ordered pairs that have one."""
    return [(a, b, where) for a in scene for b in scene
            if a is not b and (where := relation(a, b))]


def captions(scene: Sequence[Thing], rng: 'np.random.Generator') -> list[str]:
    """Return CAPTIONS_PER_SCENE different true sentences about the scene, 5 to 14 words each."""
    tell = (_tell_one, _tell_two, _tell_three)[len(scene) - 1]
    said: list[str] = []
    while len(said) < CAPTIONS_PER_SCENE:
        sentence = tell(scene, rng)
        sentence = sentence[0].upper() + sentence[1:] + '.'
        if sentence not in said:
            said.append(sentence)
    return said


def _tell_one(scene: Sequence[Thing], rng: 'np.random.Generator') -> str:
    """Draw a sentence about a scene of one object, in lower case and without a full stop."""
    thing, = scene
    place = _usually(rng, PLACES[thing.cell])
    form = rng.random()
    if form < 0.5:
        return f'{_a(rng, thing)} {place}'
    if form < 0.8:
        return f'there is {_a(rng, thing)} {place}'
    return f'the {_name(rng, thing, sized=rng.random() < 0.5)} is {place}'


def _tell_two(scene: Sequence[Thing], rng: 'np.random.Generator') -> str:
    """Draw a sentence about a scene of two objects."""
    a, b, where = _pick(rng, related_pairs(scene))
    form = rng.random()
    if form < 0.6:
        return f'{_a(rng, a)} {_usually(rng, RELATIONS[where])} {_a(rng, b)}'
    if form < 0.8:
        return (f'the {_name(rng, a, sized=False)} is {_usually(rng, RELATIONS[where])} '
                f'the {_name(rng, b, sized=False)}')
    return f'{_a(rng, a)} and {_a(rng, b)}'


def _tell_three(scene: Sequence[Thing], rng: 'np.random.Generator') -> str:
    """Draw a sentence about a scene of three objects."""
    if rng.random() < 0.7:
        a, b, c = _distinct(rng, list(scene), 3)
        sized = rng.random() < 0.6
        return f'{_a(rng, a, sized)}, {_a(rng, b, sized)} and {_a(rng, c, sized)}'
    a, b, where = _pick(rng, related_pairs(scene))
    return (f'three shapes with {_a(rng, a, False)} {_usually(rng, RELATIONS[where])} '
            f'{_a(rng, b, False)}')


def _name(rng: 'np.random.Generator', thing: Thing, sized: bool) -> str:
    """Draw the words for an object, with its size or without."""
    shape = _usually(rng, (thing.shape, *SHAPES[thing.shape]))
    size = _usually(rng, (thing.size, *SIZES[thing.size]))
    return f'{size} {thing.colour} {shape}' if sized else f'{thing.colour} {shape}'


def _a(rng: 'np.random.Generator', thing: Thing, sized: bool = True) -> str:
    """Draw the words for an object with its article."""
    name = _name(rng, thing, sized)
    return f'{"an" if name[0] in "aeiou" else "a"} {name}'


def _place(rng: 'np.random.Generator', shape: str, colour: str, size: str, angle: float,
           alone: bool) -> Thing:
    """Draw where an object lies and how large it is."""
    radius = _between(rng, *RADII[size])
    low, high = radius + _EDGE, 1 - radius - _EDGE
    if alone:
        # Well inside one of the nine places, so that a name such as 'in the top left corner' leaves
        # no doubt.
        x, y = (min(max(_pick(rng, _PLACE_CENTRES) + _between(rng, -0.05, 0.05), low), high)
                for _ in range(2))
    else:
        x, y = _between(rng, low, high), _between(rng, low, high)
    return Thing(shape, colour, size, x, y, radius, angle)


def _apart(scene: Sequence[Thing]) -> bool:
    """Return whether there is a gap of `MARGIN` between the squares of any two objects."""
    return all(max(abs(a.x - b.x), abs(a.y - b.y)) >= a.radius + b.radius + MARGIN
               for i, a in enumerate(scene) for b in scene[:i])


# Only rng.random() is used: its stream of numbers is the plainest promise that NumPy's generators
# make.
def _between(rng: 'np.random.Generator', low: float, high: float) -> float:
    """Draw a number in [low, high)."""
    return low + (high - low) * rng.random()


def _pick(rng: 'np.random.Generator', choices: Sequence[T]) -> T:
    """Draw one of the choices, each as likely."""
    return choices[int(rng.random() * len(choices))]


def _distinct(rng: 'np.random.Generator', choices: Sequence[T], n: int) -> list[T]:
    """Draw n different ones of the choices, in random order."""
    rest = list(choices)
    return [rest.pop(int(rng.random() * len(rest))) for _ in range(n)]


def _usually(rng: 'np.random.Generator', words: Sequence[str]) -> str:
    """Draw one of several words for the same thing, most often the first."""
    if len(words) == 1 or rng.random() < _USUAL:
        return words[0]
    return _pick(rng, words[1:])
