"""What `train.py --compare` shows: curves, scores and differing options of several runs.

    compare(['runs/soft', 'runs/hard'], out='compare.png')

Needs the runs' config.json, metrics.jsonl and best.json only: no data, no checkpoints, no
TensorFlow.
"""

import dataclasses
import json
import math
import pathlib
import statistics
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from core.common import files, terminal
from core.common.aliases import Json, PathLike, Say
from core.common.errors import InputError
from core.common.files import replacing, write_json
from core.data.data_dir import tokens_of
from core.runs import run_dir

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# in order of interest
SCORES = ('Bleu_4', 'METEOR', 'CIDEr', 'ROUGE_L', 'SPICE', 'Bleu_1', 'Bleu_2', 'Bleu_3')
PLOTTED = 5  # of them at most, beside the loss
# Okabe and Ito's colours, which colour-blind readers tell apart, without the yellow that is pale on
# white.
COLOURS = ('#0072B2', '#D55E00', '#009E73', '#CC79A7', '#56B4E9', '#E69F00', '#000000')
STYLES = ('-', '--', ':', '-.')
ENTRIES = {'dataset': 'dataset', 'data': 'path', 'records_sha256': 'records_sha256',
           'max_length': 'max_length'}
ENCODER = ('encoder', 'layer', 'size', 'resize', 'weights_sha256')


@dataclasses.dataclass
class Curves:
    """The record of a run's training.

    Attributes:
        path: pathlib.Path.
        options: dict name -> value, of the model, training, decoding and data.
        entries: list of dicts of metrics.jsonl, steps rising: what was trained twice counts as it
            was the last time.
        best: dict of best.json ('step', 'epoch', 'scores'), or {}.
        imported: bool, whether it comes from elsewhere.
        unreadable: int, lines of metrics.jsonl that are damaged; the last one, of a run that was
            stopped, is not counted.
    """

    path: pathlib.Path
    options: dict[str, Any]
    entries: list[dict[str, Any]]
    best: dict[str, Any]
    imported: bool
    unreadable: int

    def points(self, kind: str, name: str) -> list[tuple[int, float]]:
        """Return [(step, value), ...] of one number; kind is 'training' or 'validation'."""
        return [(entry['step'], entry[name]) for entry in self.entries
                if entry['kind'] == kind and _is_number(entry.get(name))]

    def best_scores(self) -> tuple[int | None, int | None, dict[str, float]]:
        """Return (step, epoch, dict of scores) of the best model.

        Without validation it is (None, None, {}).
        """
        scores = self.best.get('scores')
        if isinstance(scores, dict) and any(_is_number(value) for value in scores.values()):
            return self.best.get('step'), self.best.get('epoch'), scores
        metric = self.options.get('validation_metric', '')
        scored = [entry for entry in self.entries if entry['kind'] == 'validation'
                  and _is_number(entry.get(metric))]
        if not scored:
            return None, None, {}
        # the first of equals, as in training
        entry = max(scored, key=lambda entry: (entry[metric], -entry['step']))
        return entry['step'], entry.get('epoch'), {name: entry[name] for name in SCORES
                                                   if _is_number(entry.get(name))}


def compare(paths: Sequence[PathLike], out: PathLike | None = None,
            say: Say = print) -> dict[str, Any]:
    """Print the tables of best scores and differing options; draw the curves if `out` is set.

    Args:
        paths: run directories, one or more.
        out: a file ending in .png or .svg; or a directory, which gets compare.png, compare.svg and
            compare.json; or None.
        say: function that prints.

    Returns:
        dict: what compare.json holds, 'runs' and 'differences'.

    Raises:
        InputError: a path is no run, `out` has another ending, or nothing is recorded that could be
            drawn.
    """
    places = {pathlib.Path(path).resolve(): path for path in paths}
    out = None if out is None else pathlib.Path(out)
    pictures = _pictures(out)  # a wrong ending is known before anything is read
    curves = [read(path) for path in places.values()]
    names = short_names(list(places))
    if pictures and not any(run.entries for run in curves):
        raise InputError(
            f'{", ".join(names)}: nothing is recorded yet, so there is nothing to draw')
    differences = differing(curves)
    say(terminal.table(*_score_table(names, curves)))
    for name, run in zip(names, curves, strict=True):
        for note in _notes(run):
            say(f'{name}: {note}')
    if len(curves) > 1:
        say('')
        if differences:
            say(_option_table(names, differences))
        else:
            say('the options are the same')
    summary = {'runs': [_summary(name, run) for name, run in zip(names, curves, strict=True)],
               'differences': {option: dict(zip(names, values, strict=True))
                               for option, values in differences.items()}}
    if pictures:
        draw(names, curves, pictures)
        if out is not None and out not in pictures:
            write_json(out / 'compare.json', _finite(summary))
        say(f'\ndrawn: {", ".join(map(str, pictures))}')
    else:
        say('\nfor the curves: --out FILE.png, FILE.svg or DIR')
    return summary


def read(path: PathLike) -> Curves:
    """Return the Curves of a run directory.

    Raises:
        InputError: not a run, or its config.json is damaged.
    """
    path = pathlib.Path(path)
    run_dir.check_run(path, packed=False)
    sections = files.read_json(path / 'config.json')
    if (not isinstance(sections, dict) or not all(
        isinstance(section, dict) for section in sections.values())):
        raise InputError(f'{path / "config.json"}: not a configuration of this program')
    data = sections.pop('data', {})
    options = {}
    for section in sections.values():
        options.update(section)
    encoder = data.get('encoder') if isinstance(data.get('encoder'), dict) else {}
    options.update((name, data.get(key)) for name, key in ENTRIES.items())
    options['tokens'] = tokens_of(data)
    options.update((name, encoder.get(name)) for name in ENCODER)
    entries, unreadable = _read_entries(path / 'metrics.jsonl')
    best = path / 'best' / 'best.json'
    best = files.read_json(best) if best.exists() else {}
    return Curves(path, options, entries, best if isinstance(best, dict) else {},
                  data.get('path') is None, unreadable)


def _read_entries(path: pathlib.Path) -> tuple[list[dict[str, Any]], int]:
    """Return (entries, number of damaged lines) of a metrics.jsonl.

    An entry replaces earlier entries of its own step and of later steps.
    """
    try:
        lines = path.read_text(encoding='utf8', errors='replace').split('\n')
    except FileNotFoundError:
        return [], 0
    entries: list[dict[str, Any]] = []
    unreadable = 0
    for number, line in enumerate(lines):
        try:
            entry = json.loads(line)
            if (not isinstance(entry['step'], int) or abs(entry['step']) > 2**53
                or not isinstance(entry['kind'], str)):
                raise TypeError
        except (ValueError, KeyError, TypeError, RecursionError):
            unreadable += number < len(lines) - 1 and bool(line.strip())
            continue
        if entries and entries[-1]['step'] >= entry['step']:
            entries = [old for old in entries if old['step'] < entry['step'] or
                       (old['step'] == entry['step'] and old['kind'] != entry['kind'])]
        entries.append(entry)
    return entries, unreadable


def differing(curves: Sequence[Curves]) -> dict[str, list]:
    """Return the options that are not the same in all runs: option -> list of values, one a run."""
    table = {name: [run.options.get(name) for run in curves] for name in dict.fromkeys(
        name for run in curves for name in run.options)}
    return {name: values for name, values in table.items()
            if any(value != values[0] for value in values)}


def short_names(paths: Sequence[pathlib.Path]) -> list[str]:
    """Return short names for distinct, absolute paths.

    A name leaves out the folders that all paths begin with and all end with.
    """
    parts = [list(path.parts) for path in paths]
    if len(parts) == 1:
        return [parts[0][-1]]
    while all(len(each) > 1 for each in parts) and len({each[0] for each in parts}) == 1:
        parts = [each[1:] for each in parts]
    while all(len(each) > 1 for each in parts) and len({each[-1] for each in parts}) == 1:
        parts = [each[:-1] for each in parts]
    return ['/'.join(each) for each in parts]


def _score_table(names: Sequence[str],
                 curves: Sequence[Curves]) -> tuple[list[list[str]], list[str]]:
    """Return (rows, header) of the runs' lengths, losses and best scores.

    `*` marks the score that picks the best model.
    """
    best = [run.best_scores() for run in curves]
    shown = [name for name in SCORES if any(name in scores for _, _, scores in best)]
    metrics = {run.options.get('validation_metric') for run in curves}
    rows = []
    for name, run, (step, _, scores) in zip(names, curves, best, strict=True):
        losses, speeds = run.points('training', 'loss_per_word'), run.points(
            'training', 'captions_per_second')
        rows.append([name, run.entries[-1]['step'] if run.entries else '-', f'{losses[-1][1]:.3f}'
                     if losses else '-', f'{statistics.median(value for _, value in speeds):.0f}'
                     if speeds else '-', '-' if step is None else str(step),
                     *(
            f'{scores[score]:.4f}' if _is_number(scores.get(score)) else '-' for score in shown)])
    return rows, ['run', 'steps', 'last loss', 'captions/s', 'best at step',
                  *(score + '*' * (score in metrics) for score in shown)]


def _option_table(names: Sequence[str], differences: Mapping[str, list]) -> str:
    """Return the table of options: runs across or down, whichever is narrower."""
    down = [['option', *names], *(
        [option, *map(_shown, values)] for option, values in differences.items())]
    across = [['run', *down[0][1:]], *down[1:]]
    tables = [terminal.table(rows[1:], rows[0]) for rows in (down, list(zip(*across, strict=True)))]
    return min(tables, key=lambda text: max(map(len, text.split('\n'))))


def _notes(run: Curves) -> Iterator[str]:
    if run.imported:
        yield 'imported from elsewhere, without a record of its training'
    elif not run.entries:
        yield 'nothing is recorded yet'
    elif not any(entry['kind'] == 'validation' for entry in run.entries):
        yield 'no validation is recorded, so there are no scores'
    if run.unreadable:
        yield f'{run.unreadable} damaged lines of metrics.jsonl are left out'


def _summary(name: str, run: Curves) -> dict[str, Any]:
    step, epoch, scores = run.best_scores()
    losses = run.points('training', 'loss_per_word')
    return {'name': name, 'path': str(run.path.resolve()), 'steps': run.entries[-1]['step']
            if run.entries else None, 'last_loss_per_word': losses[-1][1] if losses else None,
            'best_step': step, 'best_epoch': epoch, 'best_scores': scores}


def _pictures(out: pathlib.Path | None) -> list[pathlib.Path]:
    """Return the files to draw."""
    if out is None:
        return []
    if out.suffix.lower() in ('.png', '.svg') and not out.is_dir():
        if not out.parent.is_dir():
            raise InputError(f'--out {out}: there is no directory {out.parent}')
        return [out]
    if (out.suffix and not out.is_dir()) or out.is_file():
        raise InputError(f'--out {out}: with --compare, name a file that ends in .png or .svg, or '
                         'a directory')
    if (out / 'config.json').exists():
        raise InputError(f'--out {out}: is a run; with --compare, --out is where the picture goes')
    return [out / 'compare.png', out / 'compare.svg']


def draw(names: Sequence[str], curves: Sequence[Curves], files: Iterable[pathlib.Path]) -> None:
    """Draw loss and scores over steps, a panel each, into files whose endings say the format.

    Runs of different batch sizes are drawn over captions read (steps times batch size) instead.
    Stars mark the best models.
    """
    import matplotlib
    from matplotlib.figure import Figure  # without pyplot no display is looked for
    from matplotlib.ticker import EngFormatter

    scores = [score for score in SCORES if any(run.points('validation', score)
                                               for run in curves)][:PLOTTED]
    panels = [('training', 'loss_per_word', 'training loss, nats a word'),
              *(('validation', score, f'dev {score}') for score in scores)]
    columns = min(3, len(panels))
    rows = math.ceil(len(panels) / columns)
    sizes = {run.options['batch_size'] for run in curves}
    scales = [run.options['batch_size'] if len(sizes) > 1 else 1 for run in curves]
    end = max(run.entries[-1]['step'] * scale for run, scale in zip(curves, scales, strict=True)
              if run.entries)
    with matplotlib.rc_context(
        {'font.size': 10, 'axes.spines.top': False, 'axes.spines.right': False,
         'axes.titlelocation': 'left', 'svg.hashsalt': 'compare'}):
        figure = Figure(figsize=(max(5.5, 4.2 * columns), 3.2 * rows + 0.5), dpi=120,
                        layout='constrained')
        grid = figure.subplots(rows, columns, squeeze=False).ravel()
        for axes, (kind, name, title) in zip(grid, panels, strict=False):
            for number, (label, run, scale) in enumerate(zip(names, curves, scales, strict=True)):
                _curve(axes, label, run, (kind, name), number, scale)
            axes.set_title(title)
            axes.grid(alpha=0.25)
            axes.set_xlabel('captions read' if len(sizes) > 1 else 'step')
            axes.set_xlim(0, 1.03 * end)
            axes.xaxis.set_major_formatter(EngFormatter(sep=''))
        unigram = {round(value, 3) for run in curves
                   for _, value in run.points('training', 'unigram_loss')[-1:]}
        if len(unigram) == 1:
            grid[0].axhline(unigram.pop(), color='0.55', linewidth=1, linestyle=(0, (1, 2)),
                            gid='unigram model')
        for axes in grid[len(panels):]:
            axes.set_axis_off()
        # by hand: matplotlib leaves out '_names'
        lines = [line for line in grid[0].lines if line.get_gid()]
        labels = [line.get_gid().encode('utf8', 'replace').decode() for line in lines]
        labels = [label if len(label) <= 60 else f'...{label[-57:]}' for label in labels]
        wide = 0.09 * (6 + max(map(len, labels)))  # inches of a column at this size of type
        columns = max(1, min(len(labels), int(figure.get_figwidth() / wide)))
        legend = figure.legend(lines, [' '] * len(labels), loc='outside lower center',
                               frameon=False, ncols=columns)
        for text, label in zip(legend.get_texts(), labels, strict=True):
            text.set_parse_math(False)
            text.set_text(label)
        for path in files:
            path.parent.mkdir(parents=True, exist_ok=True)
            kind = path.suffix.lower()[1:]
            with replacing(path, 'wb') as file:
                figure.savefig(file, format=kind, metadata={'Date': None} if kind == 'svg'
                               else None)


def _curve(axes: 'Axes', label: str, run: Curves, what: tuple[str, str], number: int,
           scale: float) -> None:
    """Draw one run's line in one panel.

    Its label is registered for the legend even where the panel has no point of it.
    """
    points, validation = run.points(*what), what[0] == 'validation'
    steps, values = [step * scale for step, _ in points], [value for _, value in points]
    look: dict[str, Any] = {
        'color': COLOURS[number % len(COLOURS)],
        'linestyle': STYLES[number // len(COLOURS) % len(STYLES)]}
    dots = len(points) == 1 or (validation and len(points) <= 40)
    axes.plot(steps, values, linewidth=1.6, marker='o' if dots else None, markersize=3.5, gid=label,
              **look)
    best, _, _ = run.best_scores()
    if validation and best in dict(points):
        axes.plot(best * scale, dict(points)[best], marker='*', markersize=11, color=look['color'],
                  markeredgecolor='white', markeredgewidth=0.8)


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def _finite(value: Json) -> Json:
    """Return the value with None for infinities and NaN, which JSON lacks."""
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _shown(value: object) -> str:
    """Return an option's value for the table: hashes by their beginning."""
    if value is None or value == '':
        return '-'
    text = str(value).lower() if isinstance(value, bool) else str(value)
    return text[:12] if len(text) == 64 and set(text) <= set('0123456789abcdef') else text
