"""Other people's models in and out; a run as one file, or a SavedModel for other programs.

examples:
  python -m core import model/lstm/model-20 --vocab word_to_idx.pkl --out runs/tf1
  python -m core import coco.npz --vocab dictionary.pkl --options coco.npz.pkl --out runs/authors
  python -m core import checkpoints/train --vocab tokenizer.json --out runs/tf2
  python -m core export-tf1 runs/flickr8k old/model-1
  python -m core pack runs/flickr8k --out flickr8k.zip
  python -m core export runs/flickr8k captioner/1
  python -m core export runs/flickr8k captioner/2 --beam-width 3 --n-best 3 --length-penalty 0.7

What is imported becomes a run that evaluate.py uses. Pickles are read without being executed. What
is packed is for other users of this project: caption.py takes it as a run. What is exported needs
nothing of this project:
tf.saved_model.load('captioner/1').signatures['serving_default'], or TensorFlow Serving with
--model_base_path=.../captioner. docs/export.md names inputs and outputs.
"""

import argparse
import pathlib
from collections.abc import Sequence
from typing import TypeAlias

from core.common import command_line, terminal
from core.common.errors import InputError
from core.config.decoding import DECODING

Commands: TypeAlias = 'argparse._SubParsersAction[command_line.OneLineParser]'


def _parser() -> command_line.Parser:
    """Return the parser of `python -m core`."""
    parser = command_line.Parser(__doc__ or '', 'COMMAND ...', prog='python -m core')
    commands = parser.add_subparsers(dest='command', metavar='COMMAND',
                                     parser_class=command_line.OneLineParser)
    _add_import(commands)
    export = commands.add_parser('export-tf1',
                                 help="write a run's best model as a checkpoint for the TF1 code")
    export.add_argument('run', metavar='RUN', help='run directory')
    export.add_argument('prefix', metavar='PREFIX', help='path of the new files without endings')
    _add_pack(commands)
    _add_export(commands)
    return parser


def _add_import(commands: Commands) -> None:
    """Add the command `import`."""
    run = commands.add_parser('import', help='make a RUN DIR from a model of other code')
    run.add_argument('source', metavar='SOURCE',
                     help="checkpoint without endings or its directory, or the authors' "
                     '.npz file')
    run.add_argument('--vocab', metavar='FILE',
                     help='its vocabulary: dict of word -> index, pickle or JSON; tf2 also '
                     "the tokenizer's JSON; authors: default dictionary.pkl beside it")
    run.add_argument('--out', metavar='RUN', required=True, help='run directory to make')
    run.add_argument('--kind', choices=('tf1', 'authors', 'tf2'), help='default: seen from SOURCE')
    run.add_argument('--options', metavar='FILE',
                     help="the authors' pickled options; default: SOURCE.pkl")
    run.add_argument('--set', metavar='NAME=VALUE', action='append', default=[], dest='assignments',
                     help="an option that neither the variables nor the authors' options file "
                     "tell, such as prev2out=false; it changes no variable; may be repeated")
    run.add_argument('--data', metavar='DATA',
                     help='data directory with the features that the model takes')
    run.add_argument('--encoder', metavar='NAME',
                     help='or: their encoder (default: the usual one of the kind)')
    run.add_argument('--layer', metavar='NAME', help='and its layer')
    run.add_argument('--image-size', type=int, metavar='PIXELS', help='and the side of its input')
    run.add_argument('--resize', choices=('crop', 'squash'),
                     help='and how images are brought to it')
    run.add_argument('--max-length', type=int, metavar='N',
                     help="words of a caption at most (default: SOURCE's; "
                     'tf1: 15; largest: 1000)')


def _add_pack(commands: Commands) -> None:
    """Add the command `pack`."""
    pack = commands.add_parser('pack', help='write a run as one file for other people, without '
                               'data: model, words, a model card')
    pack.add_argument('run', metavar='RUN', help='run directory')
    pack.add_argument('--out', metavar='FILE', help='archive to write (default: RUN.zip)')
    pack.add_argument('--data-licence', metavar='TEXT',
                      help='licence of the training data, for the card')


def _add_export(commands: Commands) -> None:
    """Add the command `export`."""
    parser = commands.add_parser('export', help='write a run, encoder included, as a SavedModel')
    parser.add_argument('run', metavar='RUN', help='run directory that train.py made')
    parser.add_argument('directory', metavar='DIR', help='directory to make')
    parser.add_argument('--beam-width', type=int, metavar='K',
                        help='hypotheses of beam search; 1: greedy')
    parser.add_argument('--n-best', type=int, metavar='N', default=1,
                        help='captions of each photo (1)')
    parser.add_argument('--length-penalty', type=float, metavar='A',
                        help='captions are ranked by log-probability / length**A')
    parser.add_argument('--set', metavar='NAME=VALUE', action='append', default=[],
                        dest='assignments', help='any option of decoding: ' + ', '.join(DECODING))
    parser.add_argument('--decode-context', choices=('expected', 'argmax', 'sample'),
                        help="hard attention: the context of a word, instead of the run's option "
                        "decode_context")
    parser.add_argument('--seed', type=int, default=1, help='of drawn words and locations (1)')
    parser.add_argument('--weights', metavar='FILE', help="the encoder's weights, where they moved")


def main(arguments: Sequence[str] | None = None) -> None:
    """Parse and convert."""
    parser = _parser()
    args = parser.parse_args(arguments)
    if args.command is None:
        parser.print_help()
    elif args.command == 'import':
        import_run(args)
    elif args.command == 'pack':
        pack_run(args)
    elif args.command == 'export':
        export_run(args)
    else:
        from core.importers import tf1_tutorial
        from core.runs.run_dir import Run

        tf1_tutorial.export(Run(args.run), args.prefix)


def import_run(args: argparse.Namespace) -> None:
    """Make a RUN DIR of a model of other code: `python -m core import`."""
    encoder = {'name': args.encoder, 'layer': args.layer, 'size': args.image_size,
               'resize': args.resize}
    if args.data and any(value is not None for value in encoder.values()):
        raise InputError('--data says what the features are: leave --encoder, --layer, '
                         '--image-size and --resize out')
    from core.importers.make_run import make_run

    make_run(args.source, args.vocab, args.out, kind=args.kind, options=args.options,
             data=args.data, encoder=encoder, assignments=args.assignments,
             max_length=args.max_length)


def pack_run(args: argparse.Namespace) -> None:
    """Write a run as one archive: `python -m core pack`."""
    from core.runs import packed_run
    from core.runs.run_dir import Run, check_run

    check_run(args.run)
    out = packed_run.check_out(args.out or packed_run.default_out(args.run))
    about = packed_run.pack(Run(args.run), out, args.data_licence)
    terminal.say(f'{out}: the model of step {about["step"]}, {terminal.size_text(about["bytes"])}; '
                 f'python caption.py {out} PHOTO')
    if about['weights'] not in packed_run.NO_FILE:
        terminal.say(f'not inside: the weights of the encoder, {about["weights"]}; CARD.md in it '
                     'says how to get them')


def export_run(args: argparse.Namespace) -> None:
    """Write a run as a SavedModel: `python -m core export`."""
    for text in args.assignments:
        if text.partition('=')[0].strip() not in DECODING:
            raise InputError(f'--set {text}: only options of decoding can be set here: '
                             f'{", ".join(DECODING)}')
    command_line.check_seed(args.seed)
    from core.inference import saved_model
    from core.runs.run_dir import Run, check_run

    saved_model.check_directory(args.directory)
    check_run(args.run)
    run = Run(args.run)
    run.set_decode_context(args.decode_context)
    run.set_decoding(args.n_best, args.assignments, beam_width=args.beam_width,
                     length_penalty=args.length_penalty)
    about = saved_model.export(run, args.directory, args.weights, args.n_best, args.seed)
    size = sum(path.stat().st_size for path in pathlib.Path(args.directory).rglob('*')
               if path.is_file())
    terminal.say(f'{args.directory}: the model of step {about["step"]}, '
                 f'{terminal.size_text(size)}; {saved_model.INPUT} -> '
                 f'{", ".join(saved_model.OUTPUTS)}')


if __name__ == '__main__':
    terminal.run(main)
