"""A small page of made-up captions, hostile ones among them."""

import numpy as np

from core.common.errors import InputError
from core.decoding.captions import Caption
from core.viewer import caption_record, gallery

GRID = ROWS, COLS = 3, 4
SCORES = ('Bleu_4', 'METEOR', 'CIDEr')
GREY = np.full((240, 240, 3), 180, np.uint8)
HOSTILE = ('<img/src=x/onerror=window.hacked=1></script><script>window.hacked=2</script> '
           '<b>&amp;\u2028\ud800')
CAPTIONS = ['a black dog runs', 'two men ride bikes', 'a dog sleeps', '', 'a red bus', HOSTILE]


def caption(text, first=0, ended=True):
    """Return a Caption whose word t looks at place first + 5 t, a little at all others.

    Its probabilities and gates rise.
    """
    words = text.split()
    alphas = np.full((len(words), ROWS * COLS), 0.02, np.float32)
    alphas[np.arange(len(words)), (first + 5 * np.arange(len(words))) % (ROWS * COLS)] = 0.78
    rising = 0.1 + 0.8 * np.arange(len(words)) / max(len(words), 1)
    return Caption(words, alphas, rising, ended, -3.5 - first, -1.25 - first, 1 - rising)


def record(number, text, **changes):
    captions = [caption(text), caption(f'maybe {text}', 1, ended=False)]
    boxes = [({1, 2}, (0.25, 0.5, 0.75, 1.0))] if number == 2 else ()
    return {'image': f'{number}.jpg', 'caption': text, 'grid': GRID,
            'references': [f'Reference {number}: A zebra.'],
            'scores': {name: (number * 3 % 7) / 10 + i for i, name in enumerate(SCORES)},
            'captions': [caption_record.page_record(one, located=False, boxes=boxes)
                         for one in captions], **changes}


def records():
    made = [record(number, text) for number, text in enumerate(CAPTIONS)]
    made[5].update(image=HOSTILE, references=[HOSTILE])
    made[4]['captions'] = [caption_record.page_record(caption('a red bus', 3), located=True)]
    del made[2]['scores']['CIDEr']
    made[4]['references'] = []
    return made


def photo(number):
    if number == 1:
        raise InputError('1.jpg: gone')
    return GREY


INFO = {
    'title': HOSTILE,
    'step': 7,
    'coco': {'Bleu_4': 0.25, 'METEOR': 0.5, 'CIDEr': 1.5},
    'boxes': True,
    'decoding': {'beam_width': 3},
    'decode_context': 'sample',
    'attention': {'entropy': 1.5, 'uniform_entropy': 2.5, 'n_words': 3, 'mass': 0.5,
                  'uniform_mass': 0.25},
}


def write(place):
    """Write the page of `records()` to `place`; returns what was said."""
    lines = []
    gallery.write(place, INFO, records(), photo, lines.append)
    return lines
