#!/usr/bin/env python3
"""DATA DIR -> RUN DIR: train a captioner.

examples:
  train.py data/flickr8k --out runs/flickr8k
  train.py data/flickr8k --out runs/small --set dim_hidden=512 --set learning_rate=4e-4
  train.py data/flickr8k --out runs/mobilenet --config data/recipes/flickr8k_mobilenet.json

The same command goes on where it stopped. Ctrl-C saves first. Watch with: tensorboard --logdir RUN/tensorboard
"""

import argparse
import dataclasses

from core import console
from core.errors import InputError


def arguments():
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('data', metavar='DATA', nargs='?', help='data directory that prepro.py made')
    parser.add_argument('--out', metavar='RUN', help='run directory to make or to go on with')
    parser.add_argument('--resume', metavar='RUN', help='go on with a run, with the data and options it has')
    parser.add_argument('--config', metavar='FILE', help='JSON file of options (see data/recipes)')
    parser.add_argument('--set', metavar='NAME=VALUE', action='append', default=[], dest='assignments',
                        help='one option, over those of --config; may be repeated')
    parser.add_argument('--pretrained-model', metavar='CHECKPOINT', help='start from the variables of a checkpoint')
    parser.add_argument('--options', action='store_true', help='list all options with their defaults, and stop')
    return parser.parse_args()


def main():
    """Parse, open the data, build the model, train."""
    args = arguments()
    from core.config import Config, options

    if args.options:
        for section, name, kind, default, help, choices in options():
            text = f'{help}' + (f' ({", ".join(choices)})' if choices else '')
            print(f'{section:9} {name:22} {kind:5} {default!s:9} {text}')
        return
    if args.resume and (args.out or args.config or args.data):
        raise InputError('--resume RUN takes data and options from the run: leave DATA, --out and --config out')
    if not args.resume and not (args.data and args.out):
        raise InputError('name the data and the run: train.py DATA --out RUN, or train.py --resume RUN')
    config = Config.load(args.config) if args.config else Config()

    from core import runs, store
    from core.backend import tf
    from core.solver import Solver

    if args.resume:
        run = runs.Run(args.resume)
        config, args.data, args.out = run.config, run.data_entry['path'], args.resume
    config = config.override(args.assignments)
    data = store.DataDir(args.data)
    train_data = data.split('train')
    val_data = data.split('dev') if 'dev' in data.splits else None
    if not len(train_data.captions):
        raise InputError(f'{args.data}: no training caption; make the data with a larger --max-length')
    with runs.create(args.out, config, data), tf.Graph().as_default():
        run = runs.Run(args.out)
        tf.compat.v1.set_random_seed(config.training.seed)
        model = run.build_model()
        print(f'{len(train_data)} images, {len(train_data.captions)} captions, {model.V} words, features '
              f'{model.L}x{model.D}; {sum(v.shape.num_elements() for v in model.variables):,} numbers to learn')
        if val_data is None:
            print('no dev split: training without validation, the last model counts as the best')
        solver = Solver(model, train_data, val_data, model_path=run.path, log_path=run.path / 'tensorboard',
                        pretrained_model=args.pretrained_model, decoding=config.decoding,
                        **dataclasses.asdict(config.training))
        solver.train()
    print(f'next: python evaluate.py {args.out}')


def cli():
    """The installed command sat-train."""
    console.run(main)


if __name__ == '__main__':
    cli()
