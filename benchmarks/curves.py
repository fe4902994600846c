"""Curves of training runs, side by side: loss a word, entropy of the attention, and a dev score.

    python -m benchmarks.curves soft=runs/flickr8k hard=runs/flickr8k_hard --out curves.png
"""

import argparse
import json
import pathlib

from core.common import terminal
from core.common.errors import InputError
from core.common.files import replacing

PANELS = (('training', 'loss_per_word', 'loss, nats a word'),
          ('training', 'attention_entropy', 'entropy of alpha, nats'),
          ('validation', None, 'dev {}'))


def read(path):
    """Return the entries of a run's metrics.jsonl, a list of dicts."""
    path = pathlib.Path(path) / 'metrics.jsonl'
    try:
        lines = path.read_text(encoding='utf8').splitlines()
    except OSError as error:
        raise InputError(f'{path}: cannot be read ({error.strerror}); name run directories of '
                         'train.py') from None
    return [json.loads(line) for line in lines]


def main():
    """Parse the arguments and draw."""
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('runs', metavar='NAME=RUN', nargs='+')
    parser.add_argument('--metric', default='Bleu_4', help='the dev score (Bleu_4)')
    parser.add_argument('--out', required=True, metavar='PNG')
    args = parser.parse_args()

    from matplotlib.figure import Figure

    runs = {}
    for text in args.runs:
        name, equals, path = text.partition('=')
        if not equals:
            raise InputError(f'{text}: expected NAME=RUN, for example soft=runs/flickr8k')
        runs[name] = read(path)
    figure = Figure(figsize=(12, 3.4), dpi=100, layout='constrained')
    for axes, (kind, key, title) in zip(figure.subplots(1, 3), PANELS, strict=True):
        for name, entries in runs.items():
            points = [(e['step'], e[key or args.metric]) for e in entries
                      if e['kind'] == kind and (key or args.metric) in e]
            steps, values = zip(*points, strict=True) if points else ((), ())
            axes.plot(steps, values, marker='o' if key is None else None, markersize=4, label=name)
        axes.set_title(title.format(args.metric), fontsize=10)
        axes.set_xlabel('step')
        axes.grid(alpha=0.3)
    figure.axes[0].legend(fontsize=9)
    with replacing(pathlib.Path(args.out), 'wb') as file:
        figure.savefig(file, format='png')
    for name, entries in runs.items():
        scores = [f'{e[args.metric]:.4f}' for e in entries
                  if e['kind'] == 'validation' and args.metric in e]
        print(f'{name}: {args.metric} after each validation: {" ".join(scores)}')


if __name__ == '__main__':
    terminal.run(main)
