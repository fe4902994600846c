"""Is the gradient of hard attention that of paper 4.1? What do its options do to its variance?

    python -m benchmarks.hard_gradient [--draws 100000] [--quick]

A tiny model (3 locations, captions of 3 and 2 words) has 27 sequences of locations, so the expected
gradient and its variance are known exactly, from `core.reference`, which shares no line with the
model. Each case draws the model's own training gradient, in float64, until `--draws` captions and
an expected error of 1.25 % are reached, and compares every variable: the relative error of the mean
(|mean - exact| / |exact|, to be below 5 %) and the distance in standard errors (|mean - exact| /
sqrt(sum of variances / runs), to be below 4). The largest single element's distance is shown too.
Exit status 1 if a variable fails. `--quick`: fewer draws; only standard errors count.
"""

import argparse
import functools
import os
import time

import numpy as np

if __name__ == '__main__':  # silences TensorFlow's C++ notices; too late once it is imported
    os.environ.setdefault('TF_CPP_MIN_LOG_LEVEL', '3')
from core.common import terminal  # noqa: E402
from core.model.caption_generator import CaptionGenerator  # noqa: E402
from core.reference import sample_model  # noqa: E402
from core.reference.location_paths import PLAIN, Enumeration  # noqa: E402
from core.reference.sample_model import exact  # noqa: E402
from core.runtime.backend import tf, tf1  # noqa: E402

REPEATS = 250  # times that each caption stands in a run's batch
WARM_UP = 80  # runs that bring the moving baseline to its stationary value: 0.9 ** 80 is 2e-4
N_OTHERS = 20
EXPECTED_ERROR, WORST_ERROR, WORST_DISTANCE = 0.0125, 0.05, 4.0
WALK_OPTIONS = ('alpha_c', 'temperature', 'batch_norm', 'attention_activation')
PAPER = {'baseline': 'moving', 'semi_sampling_p': 0.5, 'lambda_e': 0.1}


class Gradients:
    """The model's training gradient as one vector in the order of `v`, in a session of its own.

    Args:
        v: values of the trainable variables by name.
        options: of CaptionGenerator.
    """

    def __init__(self, v, **options):
        with tf.Graph().as_default() as graph:
            self.model = CaptionGenerator(sample_model.WORD_TO_IDX, **sample_model.SIZES,
                                          attention='hard', dropout=False, dtype=tf.float64,
                                          **{**PLAIN, 'batch_norm': False, **options})
            loss = self.model.build_model()
            by_name = {variable.op.name: variable for variable in tf1.trainable_variables()}
            missing = set(by_name) ^ set(v)
            if missing:
                raise ValueError(f'the enumeration and the model differ in {sorted(missing)}')
            found = tf1.gradients(loss, [by_name[name] for name in v])
            self.gradient = tf.concat([tf.reshape(tf.convert_to_tensor(part), [-1])
                                       for part in found], axis=0)
            config = tf1.ConfigProto()  # optimizing so small a graph costs more than it saves
            config.graph_options.rewrite_options.disable_meta_optimizer = True
            self.session = tf1.Session(graph=graph, config=config)
            self.session.run(tf1.global_variables_initializer())
            for name, value in v.items():
                assign = by_name[name].initializer
                self.session.run(assign, {assign.inputs[1]: value})

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        self.session.close()

    def run(self, seed, repeats=1, fetch=None, feed=None):
        """Return the gradient (P,) for the batch of the enumeration, `repeats` times over.

        With `fetch`, (P,) and its value.
        """
        features, captions = sample_model.batch()
        feed = {self.model.inputs: np.repeat(features, repeats, axis=0),
                self.model.captions: np.repeat(captions, repeats, axis=0),
                self.model.dropout_seed: seed, **(feed or {})}
        if fetch is None:
            return self.session.run(self.gradient, feed)
        return tuple(self.session.run([self.gradient, fetch], feed))

    def runs(self, n_runs, repeats, seed=1):
        """Return gradients (n_runs, P) of independent runs; the moving baseline is stationary."""
        for k in range(WARM_UP if self.model.baseline is not None else 0):
            self.run((k, seed + 1), repeats)
        return np.stack([self.run((k, seed), repeats) for k in range(n_runs)])


def cases():
    """Return the options of every case.

    All combinations for the table of variances, then those that need more.
    """
    estimators = [('none', 1), ('none', 4), ('moving', 1), ('moving', 4), ('leave_one_out', 4),
                  ('self_critical', 1)]
    grid = [{'reward': reward, 'baseline': baseline, 'n_samples': n_samples, 'semi_sampling_p': p}
            for p in (1.0, 0.5) for reward in ('sequence', 'to_go')
            for baseline, n_samples in estimators]
    return grid + [
        PAPER,
        {'lambda_e': 0.1},
        {'reward': 'to_go', 'baseline': 'leave_one_out', 'n_samples': 4, 'semi_sampling_p': 0.5,
         'lambda_e': 0.1},
        {'reward': 'to_go', 'baseline': 'moving', 'lambda_r': 0.25, 'lambda_e': 0.1, 'alpha_c': 0.5,
         'temperature': 0.5, 'semi_sampling_p': 0.3},
        {'batch_norm': True, 'baseline': 'moving', 'attention_activation': 'tanh', 'lambda_e': 0.1,
         'alpha_c': 0.5},
        {'semi_sampling_p': 0.0},
    ]


def label(options):
    """Return a case in words."""
    shown = {'reward': 'sequence', 'baseline': 'none', 'n_samples': 1, 'semi_sampling_p': 1.0,
             **options}
    names = [shown.pop('reward'), shown.pop('baseline')]
    return ', '.join([*names, *(str(x) if name == 'attention_activation' else f'{name} {x:g}'
                                for name, x in shown.items())])


def measure(options, draws, expected_error, repeats=REPEATS):
    """Measure one case by Monte Carlo beside the enumeration.

    Returns:
        dict: draws; variables, of name -> (relative error, distance, largest element's distance);
        variance and exact_variance, the traces of one caption's covariance.
    """
    walk_options = {name: options[name] for name in WALK_OPTIONS if name in options}
    drawn = PLAIN | {name: value for name, value in options.items() if name not in WALK_OPTIONS}
    enumerated = exact(**walk_options)
    mean, variance = enumerated.moments(**drawn)
    means, variances = enumerated.named(mean), enumerated.named(variance)
    needed = max(variances[name].sum() / (means[name]**2).sum() for name in means)
    needed /= expected_error**2
    per_run = repeats * sample_model.N
    n_runs = max(2, int(np.ceil(max(draws, needed) / per_run)))
    with Gradients(enumerated.v, **options) as gradients:
        found = gradients.runs(n_runs, repeats)
    spread = found.var(axis=0, ddof=1)
    difference = enumerated.named(found.mean(axis=0) - mean)
    error = enumerated.named(spread / n_runs)
    compared = {}
    for name, gap in difference.items():
        # Without draws only rounding is left: the enumeration's error (1e-9) must not blow it up.
        floor = 1e-7 * np.linalg.norm(means[name])
        compared[name] = (np.linalg.norm(gap) / np.linalg.norm(means[name]),
                          np.linalg.norm(gap) / np.sqrt(error[name].sum() + floor**2),
                          (abs(gap) / np.sqrt(error[name] + floor**2)).max())
    return {'draws': n_runs * per_run, 'variables': compared, 'variance': spread.sum() * per_run,
            'exact_variance': variance.sum()}


@functools.cache
def others():
    """Return enumerations of random models of the same size, beside the one drawn from."""
    return [Enumeration(sample_model.variables(seed), *sample_model.batch(), batch_norm=False)
            for seed in range(N_OTHERS)]


def typical(options):
    """Return the median over `others` of the exact variance's share of the plain one.

    None for options of the walk.
    """
    if not set(options) <= set(PLAIN):
        return None
    return np.median([enumerated.moments(**{**PLAIN, **options})[1].sum()
                      / enumerated.moments(**PLAIN)[1].sum() for enumerated in others()])


def markdown(rows, header):
    """Return a Markdown table."""
    return '\n'.join('| ' + ' | '.join(map(str, row)) + ' |'
                     for row in [header, ['---'] * len(header), *rows])


def main():
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--draws', type=int, default=100000, metavar='N',
                        help='captions drawn a case, at least')
    parser.add_argument('--quick', action='store_true', help='10,000 draws a case')
    args = parser.parse_args()
    draws, expected_error = (10000, np.inf) if args.quick else (args.draws, EXPECTED_ERROR)
    begun, failed, summary, table, plain = time.perf_counter(), [], [], [], None
    for number, options in enumerate(cases(), 1):
        found, name = measure(options, draws, expected_error), label(options)
        print(f'\n{number}. {name}: {found["draws"]:,} draws')
        rows = [[variable, f'{error:.2%}', f'{distance:.2f}', f'{element:.2f}']
                for variable, (error, distance, element) in found['variables'].items()]
        print(terminal.table(rows, ['variable', 'relative error', 'standard errors',
                                    'largest element']), flush=True)
        worst = [max(x[i] for x in found['variables'].values()) for i in range(3)]
        if worst[1] >= WORST_DISTANCE or (worst[0] >= WORST_ERROR and not args.quick):
            failed.append(name)
        summary.append([name, f'{found["draws"]:,}', f'{worst[0]:.2%}', f'{worst[1]:.2f}',
                        f'{worst[2]:.2f}'])
        plain = plain or found
        median = typical(options)
        shares = [f'{found[key]:.2f} | {found[key] / plain[key]:.4f}'
                  for key in ('variance', 'exact_variance')]
        table.append([name, *shares, '' if median is None else f'{median:.4f}'])
    print('\nThe worst variable of each case\n')
    print(markdown(summary, ['reward, baseline', 'draws', 'relative error', 'standard errors',
                             'largest element']))
    print('\nVariance of the gradient of one caption: trace of its covariance, and its share of '
          'the first case\n')
    print(f'(last column: median share, exact, over {N_OTHERS} random models)\n')
    print(markdown(table, ['reward, baseline', 'measured', 'share', 'exact', 'share', 'median']))
    print(f'\n{len(summary)} cases in {time.perf_counter() - begun:.0f} s; '
          + (f'FAILED: {"; ".join(failed)}' if failed else 'all within bounds'))
    return 1 if failed else 0


if __name__ == '__main__':
    terminal.run(main)
