"""Which words of a caption name which category: synonyms, plurals, compounds, descriptions.

    lexicon = lexicon_of(data.boxes, 'coco2014')
    lexicon.find(['two', 'men', 'eat', 'hot', 'dogs'])  # 'men' for person, 'hot dogs' for hot dog
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from core.common.aliases import Boxes
from core.common.errors import InputError
from core.data.vocabulary import tokenize
from core.datasets import scenes
from core.metrics import coco_object_names

COCO = ('coco2014', 'coco2017', 'karpathy')  # the datasets whose categories are COCO's
# Also at the end of a word: women, grandchildren.
IRREGULAR = {'man': 'men', 'child': 'children', 'person': 'people', 'mouse': 'mice',
             'goose': 'geese', 'ox': 'oxen', 'foot': 'feet', 'tooth': 'teeth'}


class Mention(NamedTuple):
    """A name in a caption: words `start` to `stop` (exclusive) name objects of `category`.

    Attributes:
        name: str, the name as the lexicon has it, in the singular where the caption has the plural.
        start, stop: int.
        category: str.
        modifiers: tuple of (place, class): the words directly before that describe the object, as
            (2, 'colour').
    """

    name: str
    start: int
    stop: int
    category: str
    modifiers: tuple[tuple[int, str], ...] = ()


class Lexicon:
    """The names of categories of objects, and how they are found in captions.

    Args:
        categories: dict from category to an iterable of its other names, lower case, of one or more
            words each; all are cut into words as captions are. Of equal names a category's own
            counts, then the first.
        compounds: dict from a phrase to the category that it names, or None where it names none
            ('train station').
        apart: dict from a name to a word: the name is none in captions that hold the word.
        modifiers: dict from a word to its class: before a name, it describes the object named.
        noun_class: str, the class of all names; None: each category is a class of its own.
    """

    def __init__(self, categories: Mapping[str, Iterable[str]],
                 compounds: Mapping[str, str | None] | None = None,
                 apart: Mapping[str, str] | None = None, modifiers: Mapping[str, str] | None = None,
                 noun_class: str | None = None) -> None:
        self.apart, self.modifiers, self.noun_class = apart or {}, modifiers or {}, noun_class
        pairs: list[tuple[str, str | None]] = [(category, category) for category in categories]
        pairs += [(name, category) for category, names in categories.items() for name in names]
        pairs += list((compounds or {}).items())
        self._patterns: dict[tuple[str, ...], tuple[str, str | None]] = {}
        for name, category in pairs:
            self._patterns.setdefault(tuple(tokenize(name)), (name, category))
        self._patterns.pop((), None)
        for pattern, named in list(self._patterns.items()):  # after all exact names, which win
            for plural in plurals(pattern[-1]):
                self._patterns.setdefault((*pattern[:-1], plural), named)
        self._longest = max(map(len, self._patterns), default=0)

    def find(self, words: Sequence[str]) -> list[Mention]:
        """Find the names of objects in a caption, in the singular or the plural.

        From left to right; of names that begin at the same word the longest wins, so a 'hot dog' is
        not a 'dog'. Case and punctuation do not count, whichever way the words were cut: 'Dogs,' is
        a dog, and 'T-shirt' one word that has the name 't shirt'.

        Args:
            words: sequence of str.

        Returns:
            list of `Mention` in the order of the words; no word belongs to two, but one that holds
            two names ('cat/dog').
        """
        parts = [(place, part) for place, word in enumerate(words) for part in tokenize(word)]
        places = [place for place, _ in parts]
        return [mention._replace(
            start=places[mention.start], stop=places[mention.stop - 1] + 1,
            modifiers=tuple((places[place], kind) for place, kind in mention.modifiers))
            for mention in self._find(tuple(part for _, part in parts))]

    def _find(self, words: tuple[str, ...]) -> list[Mention]:
        """Find names as `find`, in words as `tokenize` cuts them."""
        mentions, start = [], 0
        while start < len(words):
            for stop in range(min(start + self._longest, len(words)), start, -1):
                if words[start:stop] in self._patterns:
                    name, category = self._patterns[words[start:stop]]
                    if category is not None and self.apart.get(name) not in words:
                        mentions.append(
                            Mention(name, start, stop, category, self._before(words, start)))
                    start = stop
                    break
            else:
                start += 1
        return mentions

    def _before(self, words: tuple[str, ...], start: int) -> tuple[tuple[int, str], ...]:
        """Return ((place, class), ...) of the modifiers that end where a name starts."""
        first = start
        while first and words[first - 1] in self.modifiers:
            first -= 1
        return tuple((place, self.modifiers[words[place]]) for place in range(first, start))


def plurals(word: str) -> list[str]:
    """Return the forms that an English noun's plural may have.

    The likely and the odd: 'bus' has 'buss' and 'buses'.
    """
    forms = [word + 's']
    if word.endswith(('s', 'x', 'z', 'ch', 'sh', 'o')):  # 'skies' are no skis
        forms.append(word + 'es')
    forms += [word.removesuffix(end) + plural for end, plural in IRREGULAR.items()
              if word.endswith(end)]
    forms += [word.removesuffix(end) + plural
              for end, plural in (('y', 'ies'), ('fe', 'ves'), ('f', 'ves')) if word.endswith(end)]
    return forms


def lexicon_of(boxes: Boxes, dataset: str = '',
               synonyms: Mapping[str, Iterable[str]] | None = None) -> Lexicon:
    """Return the Lexicon for the objects of a split.

    The boxes' own names always count. To COCO's categories the names of `coco_object_names` are
    added, to those of drawn scenes the words for colours and sizes. Categories of which the split
    has no box are in the lexicon all the same: 'hot dog' is no dog in photos without hot dogs
    either.

    Args:
        boxes: list of lists of (names, rectangle), names being a tuple: the category, then its
            synonyms.
        dataset: as `DataDir.dataset`.
        synonyms: dict from category to names (`coco_object_names.read_synonyms`), for any dataset,
            in the place of `coco_object_names.SYNONYMS`.

    Raises:
        InputError: `synonyms` has none of the boxes' categories.
    """
    categories: dict[str, dict[str, None]] = {}
    for category, *names in sorted({names for image in boxes for names, _ in image}):
        categories.setdefault(category, {}).update(dict.fromkeys(names))
    if synonyms is not None and categories and not categories.keys() & synonyms.keys():
        some = ', '.join(list(categories)[:3])
        raise InputError(f'the list of synonyms has none of the categories of these data ({some} '
                         '...): each line must begin with the name of a category')
    coco = dataset in COCO
    for category in coco_object_names.SYNONYMS if coco else ():
        categories.setdefault(category, {})
    for category, others in (synonyms or (coco_object_names.SYNONYMS if coco else {})).items():
        categories.setdefault(category, {}).update(dict.fromkeys(others))
    if coco:
        return Lexicon(categories, coco_object_names.COMPOUNDS, coco_object_names.APART)
    if dataset == 'shapes':
        sizes = [size for names in scenes.SIZES.items() for size in (names[0], *names[1])]
        return Lexicon(categories, modifiers={**dict.fromkeys(scenes.COLOURS, 'colour'),
                                              **dict.fromkeys(sizes, 'size')}, noun_class='shape')
    return Lexicon(categories)
