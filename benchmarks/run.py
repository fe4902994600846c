"""Speed and memory, side by side with the textbook graph and with PyTorch.

    python -m benchmarks.run train --captions Flickr8k.token.txt
    python -m benchmarks.run all --json results.json --write docs/performance.md \
        --plot docs/growth.png
    python -m benchmarks.run --profile

Every side runs in a process of its own, one at a time and in turn (A B A B ...); what counts is the
median ratio of the rounds, with the smallest and the largest. All sides get the same batches,
threads and sizes. Needs PyTorch (`pip install -e .[benchmark]`) for the comparisons with it;
without it they are left out.
"""

import argparse
import contextlib
import importlib.util
import os
import pathlib
import statistics
import sys
import tempfile

from benchmarks import growth, measure
from benchmarks.cases import FLICKR8K, Sizes, read_lengths
from benchmarks.measure import Worker, alternate, markdown, ratio
from core.common import terminal
from core.common.errors import InputError
from core.common.files import replacing, write_json

TF, TORCH = 'benchmarks.tensorflow_sides:', 'benchmarks.pytorch_sides:'
IMAGE = 'benchmarks.image_sides:'
PYTORCH = {'PyTorch': {}, 'PyTorch, projection hoisted': {'hoist_projection': True}}
STATE_STEPS, STATE_LOCATIONS = 150, 16  # of the training before greedy and beam
ALL = ('train', 'memory', 'greedy', 'beam', 'encoder', 'prepro', 'input', 'growth')


class Benchmarks:
    """The comparisons: each method of ALL measures one.

    It notes its figures in `results` and its table in `tables`.

    Args:
        args: of the command line. sizes: Sizes. lengths: see cases.Corpus.
    """

    def __init__(self, args, sizes, lengths):
        self.args, self.sizes, self.lengths = args, sizes, lengths
        self.results, self.tables, self._stack = {}, {}, contextlib.ExitStack()
        self.torch = importlib.util.find_spec('torch') is not None
        self._state = args.weights

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        self._stack.close()

    def _workers(self, stack, factories):
        """Return workers of (factory, options) by name, the sides of one comparison."""
        usual = {'threads': self.args.threads}
        return {name: stack.enter_context(Worker(factory, **{**usual, **options}))
                for name, (factory, options) in factories.items()}

    def _training_sides(self, sizes):
        options = {'sizes': sizes, 'lengths': self.lengths}
        sides = {'ours': (TF + 'OursTraining', options),
                 'textbook': (TF + 'TextbookTraining', options)}
        if self.torch:
            sides |= {name: (TORCH + 'TorchTraining', {**options, **more})
                      for name, more in PYTORCH.items()}
        return sides

    def _compared(self, rates, unit):
        """Return figures for JSON, and cells for the table: rates, then our ratios to others."""
        rows, figures = [], {'unit': unit, 'rates': rates, 'ratios': {}}
        for name, values in rates.items():
            if name == 'ours':
                rows.append([name, f'{statistics.median(values):.1f}', ''])
                continue
            figures['ratios'][name] = ratio(rates['ours'], values)._asdict()
            rows.append([name, f'{statistics.median(values):.1f}',
                         str(ratio(rates['ours'], values))])
        return figures, rows

    def _tell(self, name, header, rows):
        self.tables[name] = markdown(header, rows)
        print(f'\n{name}\n\n{self.tables[name]}', flush=True)

    # ---- training

    def train(self):
        """Measure captions a second."""
        args, rows, started = self.args, [], []
        for n in args.batch_sizes:
            sizes = Sizes(**{**vars(self.sizes), 'N': n})
            steps = max(1, args.steps * 64 // n)
            with contextlib.ExitStack() as stack:
                workers = self._workers(stack, self._training_sides(sizes))
                for order in args.batches:
                    rates = _rates(alternate(_sides(workers, 'train', steps, order), args.rounds))
                    figures, found = self._compared(rates, 'captions/s')
                    self.results[f'train N {n} {order}'] = {**figures, 'steps': steps}
                    rows += [[n, order, *row] for row in found]
                for name in ('ours', 'textbook'):
                    start = workers[name].call('start')
                    self.results[f'start N {n} {name}'] = start
                    started.append([n, name, f'{start["build"]:.1f}', f'{start["first"]:.1f}',
                                    start['nodes']])
        self._tell('train', ['N', 'batches', 'side', 'captions/s', 'ours is faster by'], rows)
        self._tell('start', ['N', 'side', 'graph build, s', 'first step, s', 'nodes'], started)

    def memory(self):
        """Measure the peak resident memory of training, each time in a fresh process."""
        peaks, above = {}, {}
        for _ in range(min(self.args.rounds, 2)):
            for name, side in self._training_sides(self.sizes).items():
                with contextlib.ExitStack() as stack:
                    worker = self._workers(stack, {name: side})[name]
                    worker.call('train', 0, self.args.steps)
                    measured = worker.call('memory')
                peaks.setdefault(name, []).append(measured['peak'] / 1e9)
                above.setdefault(name, []).append((measured['peak'] - measured['idle']) / 1e9)
        self.results['memory'] = {'N': self.sizes.N, 'unit': 'GB', 'peak': peaks,
                                  'above_idle': above}
        rows = []
        for name in peaks:
            cells = []
            for measured in (peaks, above):
                share = '' if name == 'ours' else str(ratio(measured['ours'], measured[name]))
                cells += [f'{max(measured[name]):.2f}', share]
            rows.append([name, *cells])
        self._tell('memory', ['side', 'peak, GB', "ours' share", 'above the idle process, GB',
                              "ours' share"], rows)

    def input(self):
        """Measure how long training waits for its batches."""
        with Worker(TF + 'InputWaiting', sizes=self.sizes, threads=self.args.threads,
                    lengths=self.lengths) as worker:
            waits = [worker.call('waiting', 4 * self.args.steps, 16 * self.sizes.N)
                     for _ in range(2)]
        shares = [each['waiting'] / each['seconds'] for each in waits]
        self.results['input'] = {'waiting_share': shares, 'runs': waits}
        self._tell('input', ['run', 'steps', 'seconds', 'waiting for batches', 'share'],
                   [[k + 1, 4 * self.args.steps, f'{each["seconds"]:.1f}',
                     f'{1000 * each["waiting"]:.1f} ms', f'{100 * share:.2f} %']
                    for k, (each, share) in enumerate(zip(waits, shares, strict=True))])

    # ---- decoding

    def _weights(self):
        """Return the path of weights with which captions end as real ones; made once."""
        if self._state is None or not pathlib.Path(self._state).exists():
            if self._state is None:
                directory = self._stack.enter_context(tempfile.TemporaryDirectory())
                self._state = os.path.join(directory, 'weights.npz')
            sizes = Sizes(**{**vars(self.sizes), 'L': min(STATE_LOCATIONS, self.sizes.L)})
            with Worker(TF + 'CommonState', sizes=sizes, threads=self.args.threads,
                        lengths=self.lengths) as worker:
                self.results['state'] = worker.call('learn', STATE_STEPS, self._state, self.lengths)
        return self._state

    def greedy(self):
        """Measure images a second of greedy search."""
        rows = []
        for case, never_end in (('captions end', False), ('worst case: nothing ends', True)):
            options = {'sizes': self.sizes, 'weights': self._weights(), 'never_end': never_end,
                       'lengths': self.lengths}
            with contextlib.ExitStack() as stack:
                workers = self._workers(stack, {'ours': (TF + 'OursDecoding', options),
                                                'textbook': (TF + 'TextbookDecoding', options)})
                answers = alternate(_sides(workers, 'decode'), 2 * self.args.rounds)
            figures, sides = self._compared(_rates(answers), 'images/s')
            told = _captions(answers)
            same = sum(a == b for a, b in zip(told['ours'], told['textbook'], strict=True))
            figures |= {'mean_length': _mean_length(told['ours']), 'same_captions': same,
                        'images': len(told['ours'])}
            self.results[f'greedy, {case}'] = figures
            rows += [[case, f'{figures["mean_length"]:.1f}', *side,
                      f'{same} of {len(told["ours"])}'] for side in sides]
        self._tell('greedy', ['case', 'mean length with end', 'side', 'images/s',
                              'ours is faster by', 'same captions'], rows)

    def beam(self):
        """Measure images a second of beam search, beside one image at a time in Python."""
        if not self.torch:
            return print('beam: left out, PyTorch is not installed')
        width, n_images = self.args.beam_width, min(self.args.beam_images, self.sizes.N)
        options = {'sizes': self.sizes, 'weights': self._weights(), 'beam_width': width,
                   'lengths': self.lengths}
        with contextlib.ExitStack() as stack:
            ours = self._workers(stack, {'ours': (TF + 'OursDecoding', options)})
            workers = self._workers(stack, {name: (TORCH + 'TorchBeam', {**options, **more})
                                            for name, more in PYTORCH.items()})
            answers = alternate(_sides(ours, 'decode') | _sides(workers, 'decode', n_images),
                                self.args.rounds)
        figures, sides = self._compared(_rates(answers), 'images/s')
        told = _captions(answers, n_images)
        rows = []
        for name, *cells in sides:
            same = sum(a == b for a, b in zip(told['ours'], told[name], strict=True))
            figures.setdefault('same_captions', {})[name] = same
            rows.append([name, *cells, f'{same} of {len(told[name])}',
                         f'{_mean_length(told[name]):.1f}'])
        self.results[f'beam {width}'] = {**figures, 'images': len(told['ours'])}
        self._tell('beam', ['side', 'images/s', 'ours is faster by', 'same sentence',
                            'mean length with end'], rows)
        return None

    # ---- images

    def encoder(self):
        """Measure VGG19 beside bare convolutions."""
        with contextlib.ExitStack() as stack:
            workers = self._workers(stack, {'ours': (IMAGE + 'OurEncoder', {}),
                                            'bare tf.nn.conv2d': (IMAGE + 'BareConvolutions', {})})
            rates = _rates(alternate(_sides(workers, 'encode'), self.args.rounds))
        self.results['encoder'], rows = self._compared(rates, 'images/s')
        self._tell('encoder', ['side', 'images/s', 'ours is faster by'], rows)

    def prepro(self):
        """Measure prepro.py beside the bare encoder."""
        with Worker(IMAGE + 'Extraction', directory=self.args.images) as worker:
            rates = alternate({'ours': lambda k: worker.call('whole', k),
                               'encoder alone': lambda k: worker.call('bare', k)},
                              min(self.args.rounds, 3))
        self.results['prepro'], rows = self._compared(rates, 'images/s')
        self._tell('prepro', ['side', 'images/s', 'prepro.py is faster by'], rows)

    # ---- where the time goes

    def growth(self):
        """Measure times over sizes."""
        results = growth.measure(self.sizes, self.args.threads, steps=3)
        self.results['growth'] = results
        self.tables['growth'] = growth.table(results)
        print(f'\ngrowth\n\n{self.tables["growth"]}', flush=True)
        if self.args.plot:
            growth.plot(results, self.args.plot)

    def profile(self):
        """Profile one training step by kind of operation and by name scope."""
        options = {'sizes': self.sizes, 'lengths': self.lengths}
        for name, factory in (('ours', 'OursTraining'), ('textbook', 'TextbookTraining')):
            with contextlib.ExitStack() as stack:
                worker = self._workers(stack, {name: (TF + factory, options)})[name]
                profile = worker.call('profile')
            self.results[f'profile {name}'] = profile
            rows = []
            for op, place in zip(profile['ops'][:14], profile['scopes'][:14], strict=False):
                rows.append([op[0], f'{100 * op[1]:.1f} %', op[2], place[0],
                             f'{100 * place[1]:.1f} %', place[2]])
            self._tell(f'profile {name}',
                       ['operation', 'share', 'calls', 'scope', 'share', 'calls'], rows)
            print(f'\n{1000 * profile["seconds"]:.0f} ms traced; the operations, which run beside '
                  f'each other, take {1000 * profile["op_seconds"]:.0f} ms')


def _sides(workers, method, *args):
    """Return what `alternate` runs: each worker's method, with the round's number and `args`."""
    return {name: lambda number, worker=worker: worker.call(method, number, *args)
            for name, worker in workers.items()}


def _rates(answers):
    """Return the items a second of what the sides returned."""
    return {name: [each['items'] / each['seconds'] for each in results]
            for name, results in answers.items()}


def _captions(answers, n=None):
    return {name: [caption for each in results for caption in each['captions'][:n]]
            for name, results in answers.items()}


def _mean_length(captions):
    return sum(map(len, captions)) / len(captions)


def _sizes(assignments):
    """Return Sizes with texts such as `N=64` applied."""
    sizes = vars(Sizes()).copy()
    for text in assignments:
        name, _, value = text.partition('=')
        if name not in sizes or not value.isdigit() or int(value) < 1:
            raise InputError(f'--size {text}: expected LETTER=N, for example H=512, one of '
                             f'{", ".join(sizes)}')
        sizes[name] = int(value)
    return Sizes(**sizes)


def _arguments():
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('what', nargs='*', metavar='WHAT', help=f'{", ".join(ALL)}, or all')
    parser.add_argument('--profile', action='store_true',
                        help='one step by operation, through the tracer')
    parser.add_argument('--rounds', type=int, default=5, metavar='N')
    parser.add_argument('--steps', type=int, default=4, metavar='N',
                        help='training steps a round at N 64')
    parser.add_argument('--threads', type=int, default=2, metavar='N', help='of every side (2)')
    parser.add_argument('--batch-sizes', type=int, nargs='+', default=[64, 128], metavar='N',
                        help='of train (64 128)')
    parser.add_argument('--batches', nargs='+', default=['sorted'], choices=['sorted', 'random'],
                        help='one length a batch, as the project trains, or captions as they come '
                        '(sorted)')
    parser.add_argument('--captions', metavar='FILE',
                        help='Flickr8k.token.txt, for its lengths; default: the lengths of its '
                        'training captions, which are in benchmarks/cases.py')
    parser.add_argument('--size', action='append', default=[], metavar='LETTER=N',
                        help='another size, as H=512')
    parser.add_argument('--beam-width', type=int, default=3, metavar='K')
    parser.add_argument('--beam-images', type=int, default=16, metavar='N',
                        help='images a round for PyTorch (16)')
    parser.add_argument('--weights', metavar='NPZ',
                        help='of greedy and beam: used if there, else written; default: made anew')
    parser.add_argument('--images', metavar='DIR', help='photos for prepro; default: noise')
    parser.add_argument('--json', metavar='FILE', help='write all figures')
    parser.add_argument('--write', metavar='FILE',
                        help='put the tables into this document, between its lines '
                        '<!-- benchmarks.run NAME --> and <!-- end -->')
    parser.add_argument('--plot', metavar='PNG', help='plot of growth')
    args = parser.parse_args()
    if min(args.rounds, args.steps, args.threads, args.beam_width, args.beam_images,
           *args.batch_sizes) < 1:
        raise InputError('--rounds, --steps, --threads, --batch-sizes and --beam-... must be at '
                         'least 1')
    for what in args.what:
        if what not in (*ALL, 'all'):
            raise InputError(f'{what}: no such benchmark; there are {", ".join(ALL)}, and all')
    if not args.what and not args.profile:
        raise InputError(
            f'nothing to measure: name one of {", ".join(ALL)}, all, or give --profile')
    if args.write and not pathlib.Path(args.write).exists():
        raise InputError(f'--write {args.write}: there is no such document')
    return args


def _write(path, tables, note):
    """Put tables into a document; name those that it has no place for."""
    text = pathlib.Path(path).read_text(encoding='utf8')
    for name, block in {**tables, 'machine': note}.items():
        text = measure.insert(text, name, block) or print(f'{path} has no place for {name}') or text
    with replacing(path) as file:
        file.write(text)


def main():
    """Parse the arguments, measure, print and write."""
    args = _arguments()
    sizes = _sizes(args.size)
    lengths = read_lengths(args.captions) if args.captions else FLICKR8K
    machine, command = measure.machine(), ' '.join(['python -m benchmarks.run', *sys.argv[1:]])
    note = (f'`{command}` · {machine["date"]} · {machine["processor"]}, {machine["cores"]} cores, '
            f'{args.threads} threads, {machine["memory_gb"]} GB · '
            + ', '.join(f'{k} {v}' for k, v in machine['versions'].items()))
    print(note, flush=True)
    others = measure.Others()
    with Benchmarks(args, sizes, lengths) as benchmarks:
        for what in ALL if 'all' in args.what else dict.fromkeys(args.what):
            getattr(benchmarks, what)()
        if args.profile:
            benchmarks.profile()
        machine['other_programs'] = round(others.share(), 3)
        beside = f'other programs took {100 * machine["other_programs"]:.0f} % of the cores'
        advice = '; measure again when the machine is idle' if others.share() > 0.05 else ''
        print(f'\n{beside}{advice}')
        if args.json:
            write_json(pathlib.Path(args.json),
                       {'command': command, 'machine': machine, 'sizes': vars(sizes),
                        'rounds': args.rounds, **benchmarks.results})
        if args.write:
            _write(args.write, benchmarks.tables, f'{note} · {beside}')


if __name__ == '__main__':
    terminal.run(main)
