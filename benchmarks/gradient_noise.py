"""How noisy is hard attention's gradient on a real model? Norms on one batch of training captions.

    python -m benchmarks.gradient_noise RUN [--data DATA]

RUN is a trained run, usually with soft attention. Each row is a set of options of hard attention on
the same variables and the same captions (the most frequent length): the norm of the gradient of the
attention's variables and of the others, averaged over `--repeats` draws. Where draws hardly change
the norm, it is noise that makes it large.
"""

import argparse
import dataclasses

import numpy as np

from core.common import terminal
from core.model.caption_generator import CaptionGenerator
from core.runs.run_dir import Run
from core.runtime.backend import tf, tf1

CASES = (
    {'attention': 'soft'},
    {'lambda_r': 0.0},
    {'baseline': 'none'},
    {},  # the defaults
    {'reward': 'to_go'},
    {'reward': 'to_go', 'baseline': 'self_critical'},
    {'reward': 'to_go', 'baseline': 'leave_one_out', 'n_samples': 2},
    {'reward': 'to_go', 'baseline': 'self_critical', 'semi_sampling_p': 1.0},
)
WARM_UP = 40  # runs that bring the moving baseline to its value


def measure(run, features, captions, options, repeats):
    """Return (nll, norm of the attention's gradient, norm of the others').

    The model has `options` over the run's.
    """
    settings = {**dataclasses.asdict(run.config.model), **options}
    with tf.Graph().as_default() as graph:
        model = CaptionGenerator(run.vocabulary.word_to_idx, features.shape[1:],
                                 n_time_step=captions.shape[1] - 1, **settings)
        loss = model.build_model()
        trained = [variable for variable in model.variables if variable.trainable]
        gradients = tf1.gradients(loss, trained, unconnected_gradients=tf.UnconnectedGradients.ZERO)
        parts = {True: [], False: []}
        for variable, gradient in zip(trained, gradients, strict=True):
            attention = variable.op.name.split('/')[0] in ('project_features', 'attention_layer')
            parts[attention].append(tf.convert_to_tensor(gradient))
        fetches = (model.nll, tf.linalg.global_norm(parts[True]),
                   tf.linalg.global_norm(parts[False]))
        feeds = {model.inputs: features, model.captions: captions}
        best = run.best(model.variables)
        initialize = tf1.global_variables_initializer()
        with tf1.Session(graph=graph) as session:
            session.run(initialize)
            best.restore(session)
            for _ in range(WARM_UP if model.baseline is not None else 0):
                session.run(loss, feeds)
            return np.mean([session.run(fetches, feeds) for _ in range(repeats)], axis=0)


def main():
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('run', metavar='RUN')
    parser.add_argument('--data', metavar='DATA')
    parser.add_argument('--batch-size', type=int, default=64, metavar='N')
    parser.add_argument('--repeats', type=int, default=6, metavar='N')
    args = parser.parse_args()
    run = Run(args.run)
    data = run.data(args.data).split('train')
    lengths = np.count_nonzero(data.captions, axis=1)
    common = np.flatnonzero(lengths == np.bincount(lengths).argmax())
    chosen = np.random.default_rng(1).choice(common, min(args.batch_size, len(common)),
                                             replace=False)
    features = data.read_features(data.image_idxs[chosen]).astype(np.float32)
    rows = []
    for case in CASES:
        options = {'attention': 'hard', 'decode_context': 'expected', **case}
        nll, attention, others = measure(run, features, data.captions[chosen], options,
                                         args.repeats)
        more = ''.join(f', {key} {value}' for key, value in case.items() if key != 'attention')
        rows.append([options['attention'] + more,
                     *(f'{figure:.1f}' for figure in (nll, attention, others))])
    print(terminal.table(rows, ['attention', 'nats a caption', 'gradient of the attention',
                                'of the rest']))


if __name__ == '__main__':
    terminal.run(main)
