"""RUN DIR + photos -> sentences, and where the model looked.

examples:
  caption.py runs/flickr8k dog.jpg
  caption.py runs/flickr8k holiday/ 'more/*.png' --beam-width 3 --n-best 3
  caption.py runs/flickr8k dog.jpg --picture dog_attention.png --gif dog.gif
  caption.py runs/flickr8k holiday/ --picture attention/ --json > captions.jsonl
  curl -s https://example.org/cat.jpg | caption.py runs/flickr8k -
  caption.py runs/flickr8k --serve --port 8000

PHOTO is a file, a folder (with those below it), a pattern, or - for an image on standard input.
Exit status: 0; 1 if a photo could not be read; 2 for a mistake in the command; 130 for Ctrl-C.
"""

import argparse
import json
import os
from collections.abc import Sequence
from typing import TYPE_CHECKING

from core.common import command_line, terminal
from core.common.errors import InputError
from core.runtime import machine_options

if TYPE_CHECKING:
    import pathlib

    from core.inference.captioner import Captioner, Result
    from core.inference.photo_files import Targets


def arguments() -> argparse.Namespace:
    """Return the arguments of the command line."""
    parser = command_line.Parser(__doc__, 'RUN PHOTO... [options]  |  RUN --serve')
    parser.add_argument('run', metavar='RUN', nargs='?',
                        help='run directory that train.py made, or one that was packed, RUN.zip')
    parser.add_argument('photos', metavar='PHOTO', nargs='*',
                        help='file, folder, pattern, or - for standard input')
    parser.add_argument('--n-best', type=int, metavar='N', default=1,
                        help='the N best captions of each photo (1)')
    parser.add_argument('--json', action='store_true',
                        help='one JSON object a photo and line: words, probabilities, attention')
    parser.add_argument('--picture', metavar='OUT',
                        help='attention picture: a .png file for one photo, else a folder')
    parser.add_argument('--gif', metavar='OUT',
                        help='animation of the attention: a .gif file, or a folder')
    parser.add_argument('--weights', metavar='FILE',
                        help="the encoder's weights, where they moved since prepro.py")
    parser.more(parser.add_argument('--seed', type=int, metavar='N', default=1,
                                    help='of drawn words and locations (1)'))
    decoding = parser.add_argument_group("decoding, instead of the run's own options "
                                         "(docs/decoding.md)")
    decoding.add_argument('--beam-width', type=int, metavar='K',
                          help='hypotheses of beam search; 1: greedy')
    parser.more(decoding.add_argument('--length-penalty', type=float, metavar='A',
                                      help='captions are ranked by log-probability / length**A'),
                decoding.add_argument('--decode-context', choices=('expected', 'argmax', 'sample'),
                                      help="hard attention: the context of a word, instead of the "
                                      "run's option"), decoding.add_argument(
        '--set', metavar='NAME=VALUE', action='append', default=[], dest='assignments',
        help='any option of decoding (train.py --options lists them)'))
    serving = parser.add_argument_group('a page for the browser (docs/captioning.md)')
    serving.add_argument('--serve', action='store_true',
                         help='caption photos that are dropped on a page')
    serving.add_argument('--port', type=int, metavar='N', default=8000,
                         help='0: any that is free (8000)')
    serving.add_argument('--host', metavar='ADDRESS', default='127.0.0.1',
                         help='to listen at (127.0.0.1: this machine only)')
    parser.more(machine_options.add_arguments(parser))
    return parser.parse_args()


def main() -> int:
    """Parse the arguments and caption the photos."""
    args = arguments()
    check_arguments(args)
    from core.inference import photo_files

    photos = list(photo_files.find(args.photos))
    missing = [path for _, path in photos if not isinstance(path, bytes)
               and not os.path.exists(path)]
    # known now, without the seconds that the model takes
    if missing and len(missing) == len(photos):
        raise InputError(f'no photo {", ".join(map(str, missing[:3]))}'
                         + ('' if len(missing) < 4 else ' ...'))
    pictures = photo_files.Targets(args.picture, '.png', len(photos), '--picture')
    gifs = photo_files.Targets(args.gif, '.gif', len(photos), '--gif')
    from core.runs import run_dir

    run_dir.check_run(args.run)
    machine = machine_options.from_arguments(args)
    from core.inference.captioner import Captioner
    from core.runs.run_dir import Run

    run = Run(args.run)
    run.set_decode_context(args.decode_context)
    run.set_decoding(args.n_best, args.assignments, beam_width=args.beam_width,
                     length_penalty=args.length_penalty)
    with Captioner(run, args.weights, args.n_best, args.seed, machine) as captioner:
        if args.serve:
            from core.inference import server

            server.serve(captioner, args.host, args.port)
            return 0
        return caption(captioner, photos, pictures, gifs, args.json)


def check_arguments(args: argparse.Namespace) -> None:
    """Raise InputError if arguments contradict each other, before anything slow is done."""
    if not args.run:
        raise InputError('name a run and photos: caption.py RUN PHOTO..., or a page to drop them '
                         'on: caption.py RUN --serve')
    if args.serve and (args.photos or args.picture or args.gif or args.json):
        raise InputError('--serve takes its photos from the browser: leave PHOTO, --picture, --gif '
                         'and --json out')
    if not args.serve and not args.photos:
        raise InputError('name photos: caption.py RUN PHOTO..., or a page to drop them on: '
                         'caption.py RUN --serve')
    if args.n_best < 1:
        raise InputError(f'--n-best must be at least 1, not {args.n_best}')
    command_line.check_seed(args.seed)
    if not 0 <= args.port < 65536:
        raise InputError(f'--port must be 0 to 65535, not {args.port}')


def caption(captioner: 'Captioner', photos: 'Sequence[tuple[str, pathlib.Path | bytes]]',
            pictures: 'Targets', gifs: 'Targets', as_json: bool) -> int:
    """Print a result for each photo as it comes, write its pictures; return the exit status."""
    unreadable = unpictured = 0
    for result in captioner.stream(photos):
        if result.error is not None:
            unreadable += 1
            terminal.complain(f'error: {result.error}')
        if as_json:
            print(json.dumps(result.to_dict()), flush=True)
        elif result.error is None:
            show(result)
        if result.error is None:
            try:
                pictures.write(result.name, result.png)
                gifs.write(result.name, result.animation)
            except (InputError, OSError) as error:  # the others go on
                unpictured += 1
                terminal.complain(f'error: no picture of {result.name}: {error}')
    for number, what in ((unreadable, 'could not be read'), (unpictured, 'have no picture')):
        if number:
            terminal.complain(f'{number} of {len(photos)} photos {what}')
    return 1 if unreadable or unpictured else 0


def show(result: 'Result') -> None:
    """Print the captions of one photo, the best first."""
    if len(result.captions) == 1:
        print(f'{result.name}: {result.caption}', flush=True)
        return
    print(f'{result.name}:')
    for each in result.captions:
        print(f'  {each.score:8.3f}  {each.text}', flush=True)


def cli() -> None:
    """Run the installed command sat-caption."""
    terminal.run(main)
