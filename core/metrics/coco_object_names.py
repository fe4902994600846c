"""Which words of captions name which of COCO's 80 categories.

After the synonym list published with CHAIR (Rohrbach, Hendricks, Burns, Darrell and Saenko, "Object
Hallucination in Image Captioning", 2018; github.com/LisaAnne/Hallucination, data/synonyms.txt):
every name here stands in that list under the same category. `SYNONYMS` leaves out a fifth of its
names: its misspellings, words that captions hardly use, and adjectives such as "male". The whole
file can be given instead, see `read_synonyms`.
"""

from core.common.aliases import PathLike
from core.common.errors import InputError
from core.datasets.published_files import read_lines

EXPECTED = 'one category a line, its name first, then its synonyms, with commas between'

SYNONYMS = {category: tuple(filter(None, names.split(', '))) for category, names in {
    'person': (
        'man, woman, boy, girl, people, child, children, kid, baby, guy, lady, gentleman, adult, '
        'teenager, mother, father, sister, bride, groom, worker, chef, baker, officer, policeman, '
        'cop, soldier, doctor, student, driver, passenger, traveler, rider, biker, bicyclist, '
        'cowboy, hunter, shopper, walker, camper, player, pitcher, skier, snowboarder, skater, '
        'skateboarder'),
    'bicycle': 'bike, unicycle, trike',
    'car': 'automobile, van, minivan, sedan, suv, hatchback, jeep, coupe, cab, taxi, taxicab, limo',
    'motorcycle': 'motorbike, motor bike, motor cycle, scooter, moped',
    'airplane': 'plane, air plane, aircraft, jet, jetliner, biplane, seaplane',
    'bus': 'minibus, trolley',
    'train': 'locomotive, caboose',
    'truck': 'pickup, lorry, firetruck',
    'boat': (
        'ship, sailboat, motorboat, speedboat, rowboat, houseboat, lifeboat, tugboat, dinghy, '
        'canoe, kayak, yacht, catamaran, ferry, barge, vessel, watercraft'),
    'traffic light': 'traffic signal, street light, streetlight, stop light, stoplight',
    'fire hydrant': 'hydrant',
    'stop sign': '',
    'parking meter': '',
    'bench': 'pew',
    'bird': (
        'duck, mallard, goose, gosling, swan, gull, seagull, pigeon, parrot, parakeet, cockatiel, '
        'cockatoo, macaw, owl, ostrich, pelican, flamingo, heron, egret, cormorant, crow, raven, '
        'robin, sparrow, finch, hummingbird, woodpecker, peacock, turkey, rooster, pheasant, '
        'falcon, osprey, vulture, puffin, seabird'),
    'cat': 'kitten, tabby, feline',
    'dog': (
        'puppy, pup, doggy, mutt, canine, hound, beagle, bulldog, chihuahua, collie, corgi, '
        'dachshund, doberman, greyhound, husky, labrador, pitbull, poodle, pug, retriever, '
        'rottweiler, schnauzer, sheepdog, spaniel, terrier'),
    'horse': 'pony, foal, colt, mare, stallion, mustang, racehorse',
    'sheep': 'lamb, ram, ewe, goat',
    'cow': 'cattle, calf, bull, ox, oxen, heifer, buffalo, bison',
    'elephant': '',
    'bear': 'panda',
    'zebra': '',
    'giraffe': '',
    'backpack': 'knapsack',
    'umbrella': '',
    'handbag': 'purse, wallet, briefcase',
    'tie': 'bow tie, bow',
    'suitcase': 'suit case, luggage',
    'frisbee': '',
    'skis': 'ski',
    'snowboard': '',
    'sports ball': 'ball',
    'kite': '',
    'baseball bat': '',
    'baseball glove': '',
    'skateboard': '',
    'surfboard': 'longboard, wakeboard',
    'tennis racket': 'racket',
    'bottle': '',
    'wine glass': '',
    'cup': '',
    'fork': '',
    'knife': 'pocketknife',
    'spoon': '',
    'bowl': 'container',
    'banana': '',
    'apple': '',
    'sandwich': 'burger, hamburger, cheeseburger',
    'orange': '',
    'broccoli': '',
    'carrot': '',
    'hot dog': '',
    'pizza': '',
    'donut': 'doughnut, bagel',
    'cake': 'cupcake, cheesecake, pancake',
    'chair': 'seat, stool',
    'couch': 'sofa, loveseat, recliner, futon',
    'potted plant': 'houseplant',
    'bed': '',
    'dining table': 'table, desk',
    'toilet': 'urinal, commode, potty',
    'tv': 'television, monitor',
    'laptop': 'laptop computer, computer, notebook, netbook, macbook',
    'mouse': '',
    'remote': '',
    'keyboard': '',
    'cell phone': 'cellphone, mobile phone, smartphone, telephone, phone, iphone',
    'microwave': '',
    'oven': 'stove, stovetop, stove top oven',
    'toaster': '',
    'sink': '',
    'refrigerator': 'fridge, freezer',
    'book': '',
    'clock': '',
    'vase': '',
    'scissors': '',
    'teddy bear': 'teddybear',
    'hair drier': 'hairdryer',
    'toothbrush': '',
}.items()}

# CHAIR's rules for pairs of words: what the pair names, None where it is none of the categories.
_YOUNG_AND_OLD = ('bird', 'cat', 'dog', 'horse', 'sheep', 'cow', 'elephant', 'bear', 'zebra',
                  'giraffe')
COMPOUNDS = {
    **{f'{age} {animal}': animal for age in ('baby', 'adult') for animal in _YOUNG_AND_OLD},
    **{f'{age} {animal}': None for age in ('baby', 'adult') for animal in ('animal', 'cub')},
    'passenger jet': 'airplane',
    'passenger train': 'train',
    'toilet seat': 'toilet',
    # Further ones of this program's own, in the same spirit.
    'passenger plane': 'airplane',
    'passenger bus': 'bus',
    'carrot cake': 'cake',
    'computer mouse': 'mouse',
    'computer keyboard': 'keyboard',
    'computer monitor': 'tv',
    'computer desk': 'dining table',
    **dict.fromkeys(('train station', 'train track', 'train platform', 'bus stop', 'bus station',
                     'ski slope', 'ski lift', 'ski pole', 'ski resort', 'toilet paper',
                     'table tennis', 'orange juice', 'dog house', 'bird house', 'phone booth')),
}
APART = {'seat': 'toilet'}  # the seat of a toilet is no chair (CHAIR)


def read_synonyms(path: PathLike) -> dict[str, tuple[str, ...]]:
    """Read a list of synonyms in the format of the published one.

    Args:
        path: text file, a category a line: its name, then its synonyms, with commas between. Case,
            blanks around names, empty lines and names that stand twice in a line do not matter.

    Returns:
        dict from category to a tuple of str, lower case, in the order of the file.

    Raises:
        InputError: not readable or empty; a line that begins with no name; a name under two
            categories.
    """
    categories: dict[str, tuple[str, ...]] = {}
    first: dict[str, int] = {}
    for number, line in read_lines(path, EXPECTED):
        names = [' '.join(name.lower().split()) for name in line.split(',')]
        if not names[0]:
            raise InputError(f'{path}, line {number}: no category before the first comma; expected '
                             f'{EXPECTED}')
        for name in filter(None, dict.fromkeys(names)):
            if name in first:
                raise InputError(
                    f'{path}, line {number}: {name!r} stands in line {first[name]} already; a name '
                    'belongs to one category, take it out of the other')
        first.update(dict.fromkeys(filter(None, names), number))
        categories[names[0]] = tuple(filter(None, dict.fromkeys(names[1:])))
    if not categories:
        raise InputError(f'{path}: is empty; expected {EXPECTED}')
    return categories
