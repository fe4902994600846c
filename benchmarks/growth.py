"""How the time of a step grows with the sizes: tables and a plot."""

from dataclasses import replace

from benchmarks.measure import Worker, markdown
from core.common.files import replacing

POINTS = {'N': (32, 64, 128), 'L': (49, 196, 392), 'T': (4, 8, 16), 'H': (256, 512, 1024),
          'V': (2500, 10000, 20000)}
WIDTHS = (1, 3, 5)
TITLES = {'N': 'captions in a batch N', 'L': 'locations L', 'T': 'steps T', 'H': 'state H',
          'V': 'words V', 'K': 'beam width K'}


def measure(sizes, threads, steps, points=None, widths=WIDTHS, max_len=20):
    """Measure the seconds of a training step and of one word of a beam search.

    The step is on captions of T words, and the search never ends.

    Args:
        sizes: Sizes, of which one at a time is changed. threads: int. steps: timed steps a point;
            the median counts.
        points: dict of letter -> values, or None: POINTS. widths: values of K.

    Returns:
        dict of letter -> side ('ours', 'textbook') -> list of (value, seconds).
    """
    results, known = {}, {}
    workers = {side: Worker('benchmarks.tensorflow_sides:Growth', side=side, threads=threads)
               for side in ('ours', 'textbook')}
    try:
        for letter, values in (POINTS if points is None else points).items():
            results[letter] = {side: [] for side in workers}
            for value in values:
                changed = replace(sizes, **{letter: value})
                for side, worker in workers.items():
                    if (side, changed) not in known:  # all sizes as they are belong to every letter
                        known[side, changed] = worker.call('step', changed, steps)
                    results[letter][side].append((value, known[side, changed]))
        if widths:
            seconds = [workers['ours'].call('beam', sizes, width, max_len, steps)
                       for width in widths]
            results['K'] = {'ours': list(zip(widths, seconds, strict=True))}
    finally:
        for worker in workers.values():
            worker.__exit__()
    return results


def table(results):
    """Return the Markdown table of what `measure` found, in milliseconds."""
    rows = []
    for letter, sides in results.items():
        what = 'a word of beam search' if letter == 'K' else 'a training step'
        for side, points in sides.items():
            times = ' · '.join(f'{value}: {1000 * seconds:.0f}' for value, seconds in points)
            rows.append([TITLES[letter], f'{what}, {side}', times])
    return markdown(['what grows', 'time of', 'ms'], rows)


def plot(results, path):
    """Return a PNG with a panel for each letter.

    The dashed line is proportional to the size, through the largest.
    """
    from matplotlib.figure import Figure

    rows = -(-len(results) // 3)
    figure = Figure(figsize=(12, 3.2 * rows), dpi=100, layout='constrained')
    for place, (letter, sides) in enumerate(results.items(), 1):
        axes = figure.add_subplot(rows, 3, place)
        for side, points in sides.items():
            values, seconds = zip(*points, strict=True)
            line, = axes.plot(values, [1000 * each for each in seconds], marker='o', label=side)
            axes.plot([0, values[-1]], [0, 1000 * seconds[-1]], '--', linewidth=0.8,
                      color=line.get_color(), alpha=0.5)
        axes.set_xlim(left=0)
        axes.set_ylim(bottom=0)
        axes.set_xticks(values)
        axes.set_title(TITLES[letter], fontsize=10)
        axes.set_ylabel('ms a word of beam search' if letter == 'K' else 'ms a training step',
                        fontsize=9)
        axes.grid(alpha=0.3)
        axes.legend(fontsize=9)
    with replacing(path, 'wb') as file:
        figure.savefig(file, format='png')
