r"""DATA DIR -> RUN DIR: train a captioner.

examples:
  train.py data/flickr8k --out runs/flickr8k
  train.py data/flickr8k --out runs/small --set dim_hidden=512 --set learning_rate=4e-4
  train.py data/flickr8k --out runs/mobilenet --config data/recipes/flickr8k_mobilenet.json
  train.py data/flickr8k --out runs/paper --preset paper-hard
  train.py data/flickr8k --out runs/tuned --pretrained-model runs/flickr8k --finetune-from conv5_1 \
      --set learning_rate=1e-4 --set batch_by=image
  train.py data/flickr8k --out runs/soft --seeds 1,2,3
  train.py --compare runs/soft runs/hard --out compare.png

The same command goes on where it stopped. Ctrl-C saves first.
Watch with: tensorboard --logdir RUN/tensorboard
"""

import argparse
import dataclasses
import json
import pathlib
from typing import TYPE_CHECKING

from core.common import command_line, terminal
from core.common.aliases import Json
from core.common.errors import InputError
from core.common.files import read_json
from core.config.config import Config, options
from core.runtime import machine_options
from core.runtime.devices import Machine

if TYPE_CHECKING:
    import numpy as np

    from core.data.data_dir import DataDir
    from core.data.split import Split
    from core.model.caption_generator import CaptionGenerator
    from core.runs.run_dir import Run
    from core.training.solver import Solver


def arguments() -> argparse.Namespace:
    """Return the arguments of the command line, free of contradictions."""
    parser = command_line.Parser(__doc__ or '', 'DATA --out RUN [options]  |  --resume RUN  |  '
                                 '--compare RUN...  |  --options')
    parser.settings = {name for _, name, *_ in options()}
    parser.add_argument('data', metavar='DATA', nargs='?',
                        help='data directory that prepro.py made')
    parser.add_argument('--out', metavar='RUN', help='run directory to make or to go on with')
    parser.add_argument('--resume', metavar='RUN',
                        help='go on with a run, with the data and options it has')
    parser.add_argument('--preset', metavar='NAME',
                        help='options of a published model; --options lists the names')
    parser.add_argument('--config', metavar='FILE',
                        help='JSON file of options (see data/recipes), over the preset')
    parser.add_argument('--set', metavar='NAME=VALUE', action='append', default=[],
                        dest='assignments',
                        help='one option, over those of --config; may be repeated')
    parser.add_argument('--seed', type=int, metavar='N',
                        help='of weights, order, dropout and draws: --set seed=N')
    parser.add_argument('--seeds', metavar='N,N,...',
                        help='train once with each of these seeds, into RUN/seedN')
    parser.add_argument('--options', action='store_true',
                        help='list the presets and the options with their values, and stop')
    parser.more(parser.add_argument('--all', action='store_true', help='with --options: also those '
                                    'that only published checkpoints need'))
    parser.add_argument('--compare', metavar='RUN', nargs='+',
                        help='instead of training: best scores of runs, and the options they '
                        'differ in; with --out FILE.png, FILE.svg or DIR their curves')
    start = parser.add_argument_group('starting from something')
    start.add_argument('--pretrained-model', metavar='CHECKPOINT',
                       help='the variables of a checkpoint, or of the best model of a run '
                       'directory, whose model options then hold unless --preset, --config or '
                       '--set say otherwise')
    start.add_argument('--word-vectors', metavar='FILE',
                       help='these word vectors (GloVe, word2vec)')
    start.add_argument('--finetune-from', metavar='LAYER',
                       help='train the encoder too, from this layer on (option finetune_from); '
                       'reads the images')
    parser.more(start.add_argument('--weights', metavar='FILE',
                                   help="with --finetune-from: the encoder's weights, where they "
                                   'moved since prepro.py'),
                machine_options.add_arguments(parser, xla=('kernels', 'off', 'all'), features=True))
    args = parser.parse_args()
    if args.compare:
        others = command_line.given_options(parser, args, {'compare', 'out'},
                                            {'data': 'DATA', 'assignments': '--set'})
        if others:
            raise InputError(f'--compare RUN ... [--out FILE] stands alone, without {others[0]}')
        return args
    if args.seed is not None:
        args.assignments.append(f'seed={args.seed}')
    if args.finetune_from is not None:
        args.assignments.append(f'finetune_from={json.dumps(args.finetune_from)}')
    check_arguments(args)
    if args.seeds is not None:
        from core.commands.train_seeds import read_seeds

        args.seeds = read_seeds(args)
    return args


def check_arguments(args: argparse.Namespace) -> None:
    """Raise InputError if arguments contradict each other, before anything slow is done."""
    if args.options:
        if args.resume or args.pretrained_model:
            raise InputError('--options lists what --preset, --config and --set give; leave '
                             '--resume and --pretrained-model out (a run has its options in '
                             'config.json)')
        return
    if args.all:
        raise InputError('--all belongs to --options, and has no effect without it')
    if args.resume and (args.out or args.config or args.data or args.preset):
        raise InputError('--resume RUN takes data and options from the run: leave DATA, --out, '
                         '--preset and --config out')
    if args.resume and (args.pretrained_model or args.word_vectors):
        raise InputError('--resume RUN goes on with the variables of the run: leave '
                         '--pretrained-model and --word-vectors out')
    if not args.resume and not (args.data and args.out):
        raise InputError('name the data and the run: train.py DATA --out RUN, or train.py --resume '
                         'RUN')
    if args.word_vectors and args.pretrained_model:
        raise InputError('--word-vectors and --pretrained-model exclude each other: the model has '
                         'its own vectors')


def main() -> int:
    """Train, or show what --compare and --options ask for; return the status."""
    args = arguments()
    if args.compare:
        from core.runs.compare_runs import compare

        compare(args.compare, args.out)
        return 0
    if args.options:
        show_options(configuration(args, dataset_of(args.data)), args.all)
        return 0
    if args.seeds:
        from core.commands.train_seeds import train_seeds

        return train_seeds(args)
    train(args)
    return 0


def train(args: argparse.Namespace) -> None:
    """Prepare the run, build its model and train it."""
    start = prepare(args)
    from core.runs import run_dir
    from core.runtime.backend import tf

    with run_dir.create(start.path, start.config, start.data), tf.Graph().as_default():
        solver = build(args, run_dir.Run(start.path), start)
        solver.train()
    terminal.say(f'next: python evaluate.py {start.path}, or python caption.py {start.path} PHOTO')


@dataclasses.dataclass
class Start:
    """What a training starts with.

    Attributes:
        path: str, the RUN DIR. config: Config. data: DataDir. machine: Machine.
        pretrained: Run whose best model it starts from; None: --pretrained-model may name a
            checkpoint.
        vectors: (numbers of words, their vectors) to start from, or None.
    """

    path: str
    config: Config
    data: 'DataDir'
    machine: Machine
    pretrained: 'Run | None'
    vectors: 'tuple[np.ndarray, np.ndarray] | None'


def prepare(args: argparse.Namespace) -> Start:
    """Open the data, settle the options and check everything that training needs.

    Raises:
        InputError: a mistake in the arguments, the options or the data; nothing is written yet.
    """
    if not args.resume and not args.pretrained_model:
        configuration(args, None)  # a misspelt option is known before TensorFlow is there
    from core.data.data_dir import DataDir
    from core.runs import run_dir, training_start

    # Before TensorFlow, which takes seconds to import.
    data = None if args.resume else DataDir(args.data)
    if args.resume:
        run_dir.check_run(args.resume, packed=False)
    machine = machine_options.from_arguments(args)

    path, source, config = args.out, args.data, None
    if args.resume:
        run = training_start.resumable_run(args.resume)
        path, source = args.resume, run.data_entry['path']
        config = run.config.override(args.assignments)
    data = data or DataDir(source)
    from core.training.checkpoints import latest_state

    fresh = latest_state(pathlib.Path(path) / 'checkpoints') is None
    # Also where training goes on, as the options of the model come from there.
    pretrained = (training_start.pretrained_run(args.pretrained_model, data, fresh)
                  if args.pretrained_model else None)
    config = config or configuration(args, data.dataset, pretrained)
    if pretrained:
        training_start.check_pretrained(args.pretrained_model, pretrained, config, data)
    training_start.check_data(source, data, config, args.weights)
    vectors = None
    if fresh and args.word_vectors:
        vectors = training_start.read_word_vectors(args.word_vectors, data.vocabulary,
                                                   config.model.dim_embed)
    return Start(path, config, data, machine, pretrained, vectors)


def build(args: argparse.Namespace, run: 'Run', start: Start) -> 'Solver':
    """Build a run's model in the default graph; return the Solver that trains it."""
    from core.runtime.backend import tf
    from core.training.solver import Solver

    config, data, pretrained = run.config, start.data, start.pretrained
    train_data = run.training_split(data)
    val_data = run.split(data, 'dev') if 'dev' in data.splits else None
    tf.compat.v1.set_random_seed(config.training.seed)
    model = run.make_model(args.weights)
    describe_training(args.preset, start, train_data, model)
    if where := start.machine.note():
        terminal.say(f'training {where}')
    if val_data is None:
        terminal.say('no dev split: training without validation, the last model counts as the '
                     'best')
    return Solver(
        model, train_data, val_data, model_path=run.path, log_path=run.path / 'tensorboard',
        pretrained_model=pretrained.best().prefix() if pretrained else args.pretrained_model,
        decoding=config.decoding, machine=start.machine, say=terminal.say,
        word_vectors=start.vectors, **dataclasses.asdict(config.training))


def describe_training(preset: str | None, start: Start, train_data: 'Split',
                      model: 'CaptionGenerator') -> None:
    """Print the sizes of data and model, what the preset departs from, options without effect."""
    from core.config import presets

    config, data = start.config, start.data
    first = config.training.finetune_from
    learnt = [*(variable for variable in model.variables if variable.trainable),
              *(model.encoder.trained if model.encoder else ())]
    if not config.training.train_embedding:
        learnt = [variable for variable in learnt if variable is not model.embedding]
    if preset:
        terminal.say('\n'.join(presets.notes(preset, data.dataset, data.encoder, data.tokens)))
    if idle := config.idle():
        terminal.say(f'without effect here: {", ".join(idle)}')
    n_learnt = sum(v.shape.num_elements() for v in learnt)
    terminal.say(f'{len(train_data)} images, {len(train_data.captions)} captions, {model.V} words, '
                 f'features {model.L}x{model.D}; {n_learnt:,} numbers to learn'
                 + (f', the encoder from {first} on among them' if first else ''))
    # Adam keeps two more numbers for each, RMSProp and momentum one or two; the best model is kept
    # without.
    n_bytes = 4 * n_learnt * (3 * config.training.keep_checkpoints + 1)
    terminal.say(f'checkpoints and the best model take up to {terminal.size_text(n_bytes)} in '
                 f'{start.path}')


def configuration(args: argparse.Namespace, dataset: str | None,
                  pretrained: 'Run | None' = None) -> Config:
    """Return the Config: preset (or the pretrained run's model), then --config, then --set."""
    from core.config import presets

    config = Config()
    if args.preset:
        config = presets.config(args.preset, dataset)
    elif pretrained:
        config = dataclasses.replace(config, model=pretrained.config.model)
    if args.config:
        config = Config.from_dict(merged_options(config.to_dict(), args.config), where=args.config)
    return config.override(args.assignments)


def merged_options(sections: dict[str, Json], path: str) -> Json:
    """Return the options of `sections` (dict of dicts), overridden by those of a JSON file."""
    named = read_json(path, 'see data/recipes for examples')
    if not isinstance(named, dict):
        return named  # for Config.from_dict to refuse
    merged = dict(sections)
    for section, values in named.items():
        merged[section] = ({**sections.get(section, {}), **values} if isinstance(values, dict)
                           else values)
    return merged


def dataset_of(data: str | None) -> str | None:
    """Return the data set's name in a manifest, for preset paper; None without DATA."""
    if data is None:
        return None
    return read_json(pathlib.Path(data) / 'manifest.json').get('dataset')


def show_options(config: Config, all_: bool = False) -> None:
    """Print what --options shows: the presets, and the options with their values in `config`.

    Args:
        all_: also those that only published checkpoints need.
    """
    from core.config import presets
    print(f'presets: {", ".join(presets.names())}')
    listed = [row for row in options() if all_ or not row.compatibility]
    for row in listed:
        value = getattr(getattr(config, row.section), row.name)
        text = row.help + (f' ({", ".join(row.choices)})' if row.choices else '')
        print(f'{row.section:9} {row.name:22} {row.type_name:5} {value!s:9} {text}')
    if not all_:
        hidden = len(list(options())) - len(listed)
        print(f'{hidden} more are hidden, which only published checkpoints need: --options --all '
              'shows them')


def cli() -> None:
    """Run the installed command sat-train."""
    terminal.run(main)
