r"""Images and captions -> DATA DIR (features, captions, vocabulary).

examples:
  prepro.py --dataset flickr8k --images Flicker8k_Dataset --captions Flickr8k.token.txt \
      --encoder vgg19 --weights imagenet --out data/flickr8k
  prepro.py --dataset coco2014 --images coco \
      --captions captions_train2014.json captions_val2014.json \
      --encoder vgg19 --weights imagenet --out data/coco
  prepro.py --preset tf2 --dataset karpathy --images coco --captions dataset_coco.json \
      --weights imagenet --out data/tf2
  prepro.py --dataset folder --images my_photos --like runs/flickr8k --out data/my_photos
  prepro.py --download coco2014 --to data/coco_files

The same command goes on where it was interrupted: finished images are kept.
"""

import argparse
import pathlib
from typing import TYPE_CHECKING

from core.common import command_line, terminal
from core.common.errors import InputError
from core.runtime import machine_options

if TYPE_CHECKING:
    from core.data.vocabulary import Vocabulary
    from core.datasets.records import Record
    from core.encoders.encoder import EncoderSpec


def arguments() -> argparse.Namespace:
    """Return the arguments of the command line."""
    parser = command_line.Parser(__doc__, '--dataset NAME --images DIR --captions FILE --encoder '
                                 'NAME --weights FILE --out DATA')
    data = parser.add_argument_group('dataset')
    dataset = data.add_argument('--dataset', metavar='NAME',
                                help='coco2014, coco2017, karpathy, flickr8k, flickr30k, shapes, '
                                'folder (photos, no captions)')
    data.add_argument('--images', metavar='DIR', help='directory of the images')
    data.add_argument('--captions', nargs='+', metavar='FILE', help='the published caption files')
    data.add_argument('--instances', nargs='+', metavar='FILE',
                      help='COCO instances files, for boxes')
    data.add_argument('--splits', nargs='+', metavar='SPLIT=FILE',
                      help='lists of image names (flickr8k, flickr30k)')
    parser.more(data.add_argument('--split', nargs='+', metavar='SPLIT',
                                  help='keep only these of train, dev, test'),
                data.add_argument('--limit', type=int, metavar='N',
                                  help='at most N images of each split, for small runs'),
                data.add_argument('--draw', metavar='TRAIN,DEV,TEST',
                                  help='shapes: draw so many scenes into --images first'),
                data.add_argument(
        '--seed', type=int, metavar='N', default=1, help='of drawn scenes and random weights (1)'))
    words = parser.add_argument_group('captions')
    words.add_argument('--vocab-size', type=int, metavar='N',
                       help='most frequent words kept (10000)')
    words.add_argument('--tokens', choices=('words', 'raw', 'raw_lower'),
                       help='words: lower case, no punctuation (default); raw: what stands between '
                       'blanks, as the paper; raw_lower: the same in lower case')
    words.add_argument('--min-count', type=int, default=1, metavar='N',
                       help='a word must occur so often (1)')
    words.add_argument('--max-length', type=int, metavar='N',
                       help='captions of more words are not trained on (15)')
    parser.more(words)
    encoder = parser.add_argument_group('encoder')
    name = encoder.add_argument('--encoder', metavar='NAME',
                                help='vgg19, vgg16, inception_v3, resnet50, mobilenet_v2')
    encoder.add_argument('--weights', metavar='FILE',
                         help="its weights (.h5; vgg19, vgg16 also .mat), 'imagenet' to "
                         "fetch them (docs/data.md), or 'random'")
    encoder.add_argument('--preset', metavar='NAME',
                         help='what a published model has, where it is not given: tf1, tf2, paper '
                         '(train.py --options)')
    encoder.add_argument('--like', metavar='RUN',
                         help='encoder, vocabulary and --tokens of a trained run instead')
    parser.more(encoder.add_argument('--layer',
                                     help="map that is attended to (default: the paper's conv5_4, "
                                     "or the last)"),
                encoder.add_argument('--image-size', type=int, metavar='PIXELS',
                                     help="side of the encoder's input"),
                encoder.add_argument('--resize', choices=('crop', 'squash'),
                                     help='crop: short side and centre crop, as the paper '
                                     '(default); squash: as the tutorials'))
    out = parser.add_argument_group('output')
    out.add_argument('--out', metavar='DATA', help='the data directory to make or complete')
    parser.more(out.add_argument(
        '--skip-unreadable', action='store_true', help='leave unreadable images out'))
    fetch = parser.add_argument_group('download, instead of the above (docs/data.md)')
    fetch.add_argument('--download', nargs='+', metavar='NAME',
                       help='coco2014, coco2017, flickr8k-captions, karpathy; vgg19, vgg16, '
                       'inception_v3, mobilenet_v2, resnet50')
    fetch.add_argument('--to', metavar='DIR', help='where to put the files')
    parser.more(machine_options.add_arguments(parser))
    # What the shell offers; wrong names are refused later, with the nearest.
    command_line.complete(dataset, 'core.datasets.formats', 'DATASETS')
    command_line.complete(name, 'core.encoders.known_encoders', 'ENCODERS')
    args = parser.parse_args()
    if args.download is None and args.to is None:
        missing = [f'--{name}' for name in ('dataset', 'images', 'out')
                   if getattr(args, name) is None]
        if missing:
            parser.error(f'the following arguments are required: {", ".join(missing)}')
    else:
        others = [name for name, value in vars(args).items()
                  if name not in ('download', 'to', 'quiet', 'verbose')
                  and value != parser.get_default(name)]
        if args.download is None or args.to is None:
            raise InputError('--download NAME ... and --to DIR go together: what to fetch, and '
                             'where to put it')
        if others:
            raise InputError('--download NAME ... --to DIR stands alone'
                             + (f', without --{others[0].replace("_", "-")}' if others else ''))
    return args


def main() -> None:
    """Parse the arguments, read the data set and extract its features."""
    args = arguments()
    if args.download:
        from core.download import download

        download.download(args.download, args.to, say=terminal.say)
        return
    set_defaults(args)
    machine = machine_options.from_arguments(args)
    from core import datasets
    from core.data import prepare
    from core.datasets import formats
    from core.runs import run_dir

    formats.check_dataset_name(args.dataset)
    if args.like:
        for name in ('encoder', 'layer', 'image_size', 'resize', 'tokens'):
            if getattr(args, name) is not None:
                raise InputError(f'--{name.replace("_", "-")} and --like exclude each other: the '
                                 'run decides')
        run_dir.check_run(args.like)
    elif not args.encoder or not args.weights:
        raise InputError("name the --encoder and its --weights FILE (or 'imagenet' to fetch them, "
                         "'random' for a try " 'without); --preset NAME stands for the --encoder, '
                         '--like RUN for both')
    prepare.check_vocabulary_options(args.vocab_size, args.min_count, args.max_length)
    splits = None
    if args.splits:
        pairs = [text.partition('=') for text in args.splits]
        if any(not file for _, _, file in pairs):
            raise InputError('--splits takes SPLIT=FILE, for example '
                             'train=Flickr_8k.trainImages.txt')
        splits = {split: file for split, _, file in pairs}
    if not args.like:
        from core.encoders.encoder import check_choice

        check_choice(args.encoder, args.image_size, args.resize or 'crop',
                     'random' if args.weights == 'imagenet' else args.weights)

    def read() -> 'list[Record]':
        records = datasets.read(args.dataset, args.images, args.captions, splits, args.instances)
        return datasets.select(records, args.limit, args.split)

    # Bad lists are known before TensorFlow, which `words_and_encoder` imports; scenes are drawn
    # only where it succeeds.
    records = [] if args.draw else read()
    if args.weights == 'imagenet':
        args.weights = imagenet(args)
    vocabulary, tokens, spec = words_and_encoder(args)
    if args.draw:
        draw_scenes(args)
        records = read()
    prepare.prepare(records, spec, pathlib.Path(args.out), args.dataset, args.vocab_size,
                    args.min_count, args.max_length, args.skip_unreadable, vocabulary, terminal.say,
                    machine, tokens)


def imagenet(args: argparse.Namespace) -> str:
    """Return the path of the published weights for --weights imagenet; fetch missing ones."""
    from core.common import files
    from core.download import imagenet_weights

    encoder = args.encoder
    if args.like:
        try:
            encoder = files.read_json(pathlib.Path(args.like) / 'config.json')['data']['encoder'][
                'encoder']
        except (KeyError, TypeError):
            raise InputError(
                f'{args.like}: its config.json names no encoder; give --weights FILE') from None
    return str(imagenet_weights.fetch(encoder, say=terminal.say))


def words_and_encoder(args: argparse.Namespace) -> 'tuple[Vocabulary | None, str, EncoderSpec]':
    """Return (Vocabulary of the run of --like, else None; name of the tokens; EncoderSpec)."""
    if args.like:
        from core.runs.run_dir import Run

        run = Run(args.like)
        return run.vocabulary, run.tokens, run.encoder(args.weights)
    from core.encoders.encoder import describe

    return None, args.tokens or 'words', describe(args.encoder, args.layer, args.image_size,
                                                  args.resize or 'crop', args.weights, args.seed)


def set_defaults(args: argparse.Namespace) -> None:
    """Fill in the options that are not named: from --preset, else the general defaults."""
    if args.preset:
        if args.like:
            raise InputError('--preset and --like exclude each other: the run decides')
        from core.config import presets

        defaults = presets.prepro(args.preset)
        # the layers and sizes of another encoder
        if args.encoder not in (None, defaults.get('encoder')):
            defaults = {name: value for name, value in defaults.items()
                        if name not in ('layer', 'image_size')}
        for name, value in defaults.items():
            if getattr(args, name) is None:
                setattr(args, name, value)
    if args.vocab_size is None:
        args.vocab_size = 10000
    if args.max_length is None:
        args.max_length = 15


def draw_scenes(args: argparse.Namespace) -> None:
    """Make the scenes of the data set `shapes` for --draw, unless they are there already."""
    from core.datasets import shapes

    if args.dataset != 'shapes':
        raise InputError('--draw belongs to --dataset shapes')
    try:
        counts = [int(number) for number in args.draw.split(',')]
        n_train, n_dev, n_test = counts
    except ValueError:
        raise InputError(f'--draw {args.draw}: expected three numbers, for example --draw '
                         '2000,200,200') from None
    shapes.draw(args.images, n_train, n_dev, n_test, seed=args.seed)


def cli() -> None:
    """Run the installed command sat-prepro."""
    terminal.run(main)
