"""Attention correctness of several evaluations: a table, and one image's attention pictures.

    python -m benchmarks.grounding soft=runs/soft/evaluation/test hard=runs/hard/evaluation/test \
        "hard, argmax"=runs/hard/evaluation/test-argmax --image 20000017 \
        --picture docs/attention_soft_hard.png

Each is a directory that evaluate.py wrote for images with boxes, with `--picture-ids 20000017` for
the picture. docs/attention.md has the table, the picture, and all commands.
"""

import argparse
import pathlib

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from core.common import terminal
from core.common.errors import InputError
from core.common.files import read_json, replacing
from core.viewer.attention_pictures import png

MEASURES = {'n_words': 'mentions', 'mass': 'in the object', 'uniform_mass': 'spread evenly',
            'centre_mass': 'centre', 'pointing': 'pointing hits', 'uniform_pointing': 'anywhere',
            'centre_pointing': 'the centre'}
LABEL = 34  # pixels above a picture


def read(path):
    """Return the 'attention' of an evaluation's scores.json.

    Raises:
        InputError: no word was measured.
    """
    attention = read_json(pathlib.Path(path) / 'scores.json').get('attention', {})
    if not attention.get('n_words') or 'by_class' not in attention:
        raise InputError(f'{path}: no attention correctness in its scores.json; run evaluate.py on '
                         'data with boxes')
    return attention


def markdown(attentions, most=8):
    """Return the table: a row for each evaluation, of all names and of each class of words.

    Args:
        attentions: dict from a title to what `read` returns.
        most: classes shown, those of the most words first; one that is all names has no row of its
            own.
    """
    counts = {}
    for attention in attentions.values():
        for name, values in attention['by_class'].items():
            counts[name] = counts.get(name, 0) + values['n_words']
    total = {title: {key: attention[key] for key in MEASURES}
             for title, attention in attentions.items()}
    rows = {'all names': total}
    for name in sorted(counts, key=lambda name: (-counts[name], name))[:most]:
        figures = {title: {key: attention['by_class'][name][key] for key in MEASURES}
                   for title, attention in attentions.items() if name in attention['by_class']}
        if figures == total:
            rows = {f'{name} (all names)' if row == 'all names' else row: values
                    for row, values in rows.items()}
        else:
            rows[name] = figures
    lines = ['| words | attention | ' + ' | '.join(MEASURES.values()) + ' |',
             '| --- ' * (len(MEASURES) + 2) + '|']
    for name, figures in rows.items():
        for title, values in figures.items():
            cells = [str(values[key]) if key == 'n_words' else f'{values[key]:.3f}'
                     for key in MEASURES]
            lines.append(f'| {name} | {title} | ' + ' | '.join(cells) + ' |')
            name = ''
    return '\n'.join(lines)


def stacked(places, image):
    """Return the attention pictures of one image below each other, each under its title.

    Args:
        places: dict from a title to the directory of an evaluation.
        image: text of the image's id.

    Returns:
        (H, W, 3) uint8.
    """
    parts = []
    for title, place in places.items():
        path = pathlib.Path(place) / 'pictures' / f'{image}.png'
        if not path.exists():
            raise InputError(f'{path}: there is no such picture; run evaluate.py with '
                             f'--picture-ids {image}')
        picture = Image.open(path).convert('RGB')
        part = Image.new('RGB', (picture.width, picture.height + LABEL), 'white')
        part.paste(picture, (0, LABEL))
        ImageDraw.Draw(part).text((8, 8), title, fill=(30, 60, 140),
                                  font=ImageFont.load_default(20))
        parts.append(np.asarray(part))
    whole = np.full((sum(map(len, parts)), max(part.shape[1] for part in parts), 3), 255, np.uint8)
    top = 0
    for part in parts:
        whole[top:top + len(part), :part.shape[1]] = part
        top += len(part)
    return whole


def main():
    """Parse the arguments, print the table and write the picture."""
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('evaluations', metavar='NAME=DIR', nargs='+')
    parser.add_argument('--image', metavar='ID', help='the image of the picture')
    parser.add_argument('--picture', metavar='PNG', help='where to write it')
    args = parser.parse_args()
    if bool(args.image) != bool(args.picture):
        raise InputError('--image ID and --picture PNG go together')
    places = {}
    for text in args.evaluations:
        name, equals, path = text.partition('=')
        if not equals:
            raise InputError(f'{text}: expected NAME=DIR, for example '
                             'soft=runs/soft/evaluation/test')
        places[name] = path
    print(markdown({name: read(path) for name, path in places.items()}))
    if args.picture:
        with replacing(args.picture, 'wb') as file:
            file.write(png(stacked(places, args.image)))
        print(f'picture: {args.picture}')


if __name__ == '__main__':
    terminal.run(main)
