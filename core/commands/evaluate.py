"""RUN DIR -> captions, BLEU/METEOR/ROUGE-L/CIDEr, attention pictures.

examples:
  evaluate.py runs/flickr8k
  evaluate.py runs/flickr8k --split dev --paper-scoring --pictures 10
  evaluate.py runs/flickr8k --beam-width 3 --length-penalty 0.7 --n-best 3 --html pages/flickr8k
  evaluate.py runs/flickr8k --data data/flickr8k_test --split test --out results/test
  evaluate.py runs/flickr8k --beam-width 3 --ensemble runs/flickr8k_b runs/flickr8k_c
  evaluate.py --results captions.json --references captions_val2014.json
  evaluate.py --compare-scores runs/soft --against runs/hard --split dev   # runs over seeds

Captions are written in the COCO result format; the scores' names are those of coco-caption.
"""

import argparse
import dataclasses
import os
import pathlib
from typing import TYPE_CHECKING

from core.common import command_line, terminal
from core.common.errors import InputError
from core.config.decoding import DECODING, DecodingConfig
from core.runtime import machine_options

if TYPE_CHECKING:
    from core.runs.run_dir import Run

# Names of the options in the name of a directory.
SHORT = {'beam_width': 'beam', 'length_penalty': 'penalty', 'min_length': 'min', 'max_len': 'max',
         'no_repeat_ngram': 'norepeat', 'beam_groups': 'groups', 'diversity_penalty': 'diversity',
         'sample_temperature': 'temperature'}


def arguments() -> argparse.Namespace:
    """Return the arguments of the command line."""
    parser = command_line.Parser(__doc__, 'RUN [options]  |  %(prog)s --results FILE --references '
                                 'FILE')
    parser.add_argument('run', metavar='RUN', nargs='?',
                        help='run directory that train.py made, or one that was packed, RUN.zip')
    parser.add_argument('--split', metavar='SPLIT', choices=('train', 'dev', 'test'),
                        help='train, dev or test; default: test where there is one, else dev')
    parser.add_argument('--data', metavar='DATA',
                        help="another data directory, with the run's kind of features")
    parser.add_argument('--out', metavar='DIR',
                        help='default: RUN/evaluation/SPLIT, with other data or decoding a name '
                        'that says so; of RUN.zip in RUN_evaluation')
    parser.add_argument('--html', metavar='DIR',
                        help='also a page of all images to look at: DIR/index.html')
    parser.add_argument('--paper-scoring', action='store_true',
                        help="also the paper's scoring: raw references, no brevity penalty")
    parser.add_argument('--pictures', type=int, metavar='N', default=5,
                        help='attention pictures of N images (5)')
    parser.more(
        parser.add_argument('--spice', action='store_true',
                            help='also SPICE, where its jars are (docs/results.md)'),
        parser.add_argument('--faithfulness', action='store_true',
                            help='also how far words lose probability without the places they '
                            'attend to (docs/attention.md)'),
        parser.add_argument('--faithfulness-places', nargs='+', type=int, metavar='K',
                            help='... with K places replaced; default: 1, 5, 10 and 20 %% of all'),
        parser.add_argument('--picture-ids', nargs='+', metavar='ID', default=(),
                            help='of these images instead'),
        parser.add_argument('--limit', type=int, metavar='N',
                            help='at most N images, evenly spread'),
        parser.add_argument('--seed', type=int, metavar='N', default=1,
                            help='of the choice of pictures, and of drawn words and locations (1)'),
        parser.add_argument('--decode-context', choices=('expected', 'argmax', 'sample'),
                            help="hard attention: the context of a word, instead of the run's "
                            "option decode_context"),
        parser.add_argument('--weights', metavar='FILE',
                            help="fine-tuned runs: the encoder's weights, where they moved"),
        parser.add_argument('--synonyms', metavar='FILE',
                            help="words for the categories of boxes, in CHAIR's format, instead of "
                            "those known for " 'COCO (docs/attention.md)'))
    decoding = parser.add_argument_group("decoding, instead of the run's own options "
                                         "(docs/decoding.md)")
    decoding.add_argument('--beam-width', type=int, metavar='K',
                          help='hypotheses of beam search; 1: greedy')
    decoding.add_argument('--length-penalty', type=float, metavar='A',
                          help='captions are ranked by log-probability / length**A')
    decoding.add_argument('--n-best', type=int, metavar='N', default=1,
                          help='also the N best captions of each image with their scores, in '
                          'n_best.json')
    decoding.add_argument('--ensemble', nargs='+', metavar='RUN2', default=(),
                          help='average the probabilities of RUN and of these runs')
    parser.more(decoding.add_argument('--min-length', type=int, metavar='N',
                                      help='words at least, <END> included'),
                decoding.add_argument('--no-repeat-ngram', type=int, metavar='N',
                                      help='no N words in a row twice in a caption'),
                decoding.add_argument(
        '--set', metavar='NAME=VALUE', action='append', default=[], dest='assignments',
        help='any option of decoding: ' + ', '.join(DECODING)))
    scoring = parser.add_argument_group('scoring captions of anybody')
    scoring.add_argument('--results', metavar='FILE', help='a COCO result file ...')
    scoring.add_argument('--references', metavar='FILE', help='... against a COCO captions file')
    comparing = parser.add_argument_group('comparing runs over seeds (docs/decoding.md)')
    comparing.add_argument('--compare-scores', nargs='+', metavar='DIR', default=(),
                           help='mean and standard deviation of the scores of evaluations, or of '
                           'runs with one evaluation each')
    comparing.add_argument('--against', nargs='+', metavar='DIR', default=(),
                           help='and how far they are from these, with a paired bootstrap over '
                           'images')
    parser.more(comparing.add_argument('--resamples', type=int, metavar='N',
                                       help='of the bootstrap (1000)'))
    parser.more(machine_options.add_arguments(parser, xla=('kernels', 'off', 'all')))
    args = parser.parse_args()
    if args.compare_scores:
        given = command_line.given_options(parser, args, {
            'compare_scores', 'against', 'references', 'split', 'seed', 'resamples', 'out'},
            {'run': 'RUN', 'assignments': '--set'})
        if given:
            raise InputError('--compare-scores takes --against, --references, --split, '
                             f'--resamples, --seed and --out; leave {given[0]} out')
    elif args.against or args.resamples is not None:
        raise InputError('--against and --resamples belong to --compare-scores DIR ...')
    return args


def main() -> None:
    """Parse the arguments and evaluate, or score a file."""
    args = arguments()
    if args.compare_scores:
        compare_sets(args)
        return
    if args.results or args.references:
        if args.run or not (args.results and args.references):
            raise InputError('--results FILE and --references FILE go together, without RUN')
        if args.html:
            raise InputError('--html makes a page of a RUN, with its attention; leave it out '
                             'beside --results')
        score_file(args)
        return
    command_line.check_seed(args.seed)
    if args.faithfulness_places and not args.faithfulness:
        raise InputError('--faithfulness-places says how many places --faithfulness replaces; give '
                         'both')
    if not args.run:
        raise InputError('name a run: evaluate.py RUN, or --results FILE --references FILE')
    decoding_assignments(args)  # a misspelt option is known before TensorFlow is there
    from core.runs import run_dir

    for path in [args.run, *args.ensemble]:
        run_dir.check_run(path)
    machine = machine_options.from_arguments(args)
    synonyms = None
    if args.synonyms:
        from core.metrics.coco_object_names import read_synonyms

        synonyms = read_synonyms(args.synonyms)
    from core.inference import evaluation
    from core.metrics.scorer import score_table
    from core.runs.run_dir import Run

    run = Run(args.run)
    if args.weights and not run.finetuned:
        raise InputError(f'--weights belongs to runs with a fine-tuned encoder; {args.run} reads '
                         'stored features')
    others = [Run(path) for path in args.ensemble]
    run.set_decode_context(args.decode_context)
    for one in others:
        if one.config.model.attention == 'hard':
            one.set_decode_context(args.decode_context)
    own = run.config.decoding
    run.config = run.config.override(decoding_assignments(args), where='decoding')
    data = run.data(args.data)
    split = args.split or ('test' if 'test' in data.splits else 'dev')
    place = f'{data.path.absolute().name}-{split}' if args.data else split
    place += decoding_place(args, own, run)
    home = run.path / 'evaluation'
    if run.folder != run.path:  # a packed run
        home = run.path.with_name(f'{run.path.stem}_evaluation')
    out = pathlib.Path(args.out) if args.out else home / place
    scores = evaluation.evaluate(
        run, data, split, out, args.limit, args.paper_scoring, args.pictures, args.picture_ids,
        args.seed, weights=args.weights, n_best=args.n_best, ensemble=others, machine=machine,
        synonyms=synonyms, html=args.html, spice=args.spice, say=terminal.say,
        replaced=(args.faithfulness_places or ()) if args.faithfulness else None)
    if args.quiet and 'coco' in scores:
        print(score_table(scores))


def decoding_assignments(args: argparse.Namespace) -> list[str]:
    """Return the options of decoding on the command line as name=value texts."""
    for text in args.assignments:
        if text.partition('=')[0].strip() not in DECODING:
            raise InputError(f'--set {text}: evaluate.py sets options of decoding only: '
                             f'{", ".join(DECODING)}')
    options = [(name, getattr(args, name)) for name in (
        'beam_width', 'length_penalty', 'min_length', 'no_repeat_ngram')]
    return [f'{name}={value}' for name, value in options if value is not None] + args.assignments


def decoding_place(args: argparse.Namespace, own: DecodingConfig, run: 'Run') -> str:
    """Return how the default directory's name tells options that are not the run's own.

    Another result gets another place.
    """
    parts = [args.decode_context] if args.decode_context else []
    if args.limit is not None:
        parts.append(f'limit{args.limit}')
    for name, value in dataclasses.asdict(run.config.decoding).items():
        if name != 'decode_batch' and value != getattr(own, name):
            parts.append(SHORT.get(name, name) + ('' if value is True else str(value)))
    drawn = run.config.decoding.sample or run.config.model.decode_context == 'sample'
    if drawn and args.seed != 1:
        parts.append(f'seed{args.seed}')
    if args.ensemble:
        home = run.path.absolute().parent
        parts += [
            'with', *(os.path.relpath(path, home).replace(os.sep, '_') for path in args.ensemble)]
    return ''.join(f'-{part}' for part in parts)


def score_file(args: argparse.Namespace) -> None:
    """Score --results FILE against --references FILE."""
    from core.common.files import write_json
    from core.metrics.scorer import (
        Scorer,
        load_references,
        load_results,
        metric_names,
        score,
        score_table,
    )

    results, references = load_results(args.results), load_references(args.references)
    missing = [image for image in results if image not in references]
    if missing:
        raise InputError(f'{args.references}: no captions of {len(missing)} images of '
                         f'{args.results}, for example {missing[0]!r}; give the references of the '
                         'same images')
    with Scorer({image: references[image] for image in results}) as scorer:
        scorer.start()
        scores = score(scorer, results, args.paper_scoring, terminal.say, metric_names(args.spice))
    print(score_table(scores))
    print(f'{len(results)} of the {len(references)} images that have references')
    if args.out:
        pathlib.Path(args.out).mkdir(parents=True, exist_ok=True)
        write_json(pathlib.Path(args.out) / 'scores.json', scores)


def compare_sets(args: argparse.Namespace) -> None:
    """Print the scores of --compare-scores, and how far they are from those of --against."""
    command_line.check_seed(args.seed)
    from core.inference import score_comparison
    from core.metrics.significance import N_RESAMPLES

    result = score_comparison.compare_scores(
        args.compare_scores, args.against, args.references, args.split,
        N_RESAMPLES if args.resamples is None else args.resamples, args.seed, terminal.say)
    print(score_comparison.comparison_table(result))
    if args.out:
        terminal.say(f'as JSON: {score_comparison.save_comparison(args.out, result)}')


def cli() -> None:
    """Run the installed command sat-evaluate."""
    terminal.run(main)
