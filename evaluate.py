#!/usr/bin/env python3
"""RUN DIR -> captions, BLEU/METEOR/ROUGE-L/CIDEr, attention pictures.

examples:
  evaluate.py runs/flickr8k
  evaluate.py runs/flickr8k --split dev --paper-scoring --pictures 10
  evaluate.py runs/flickr8k --data data/flickr8k_test --split test --out results/test
  evaluate.py runs/flickr8k_hard --decode-context sample --out results/drawn
  evaluate.py --results captions.json --references captions_val2014.json

Captions are written in the COCO result format; the scores' names are those of coco-caption.
"""

import argparse
import dataclasses
import pathlib

from core import console
from core.errors import InputError


def arguments():
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('run', metavar='RUN', nargs='?', help='run directory that train.py made')
    parser.add_argument('--split', choices=('train', 'dev', 'test'), help='default: test where there is one, else dev')
    parser.add_argument('--data', metavar='DATA', help="another data directory, with the run's kind of features")
    parser.add_argument('--limit', type=int, metavar='N', help='at most N images, evenly spread')
    parser.add_argument('--out', metavar='DIR', help='default: RUN/evaluation/SPLIT, with --data .../DATA-SPLIT, '
                                                     'with --decode-context .../SPLIT-CONTEXT')
    parser.add_argument('--paper-scoring', action='store_true',
                        help="also the paper's scoring: raw references, no brevity penalty")
    parser.add_argument('--pictures', type=int, metavar='N', default=5, help='attention pictures of N images (5)')
    parser.add_argument('--picture-ids', nargs='+', metavar='ID', default=(), help='of these images instead')
    parser.add_argument('--seed', type=int, default=1, help='of the choice of pictures and of drawn locations (1)')
    parser.add_argument('--decode-context', choices=('expected', 'argmax', 'sample'),
                        help="hard attention: the context of a word, instead of the run's option decode_context")
    parser.add_argument('--weights', metavar='FILE', help="fine-tuned runs: the encoder's weights, where they moved")
    parser.add_argument('--results', metavar='FILE', help="score anybody's COCO result file instead of a run ...")
    parser.add_argument('--references', metavar='FILE', help='... against a COCO captions file')
    return parser.parse_args()


def main():
    """Parse and evaluate."""
    args = arguments()
    if args.results or args.references:
        if args.run or not (args.results and args.references):
            raise InputError('--results FILE and --references FILE go together, without RUN')
        score_file(args)
        return
    if args.seed < 0:
        raise InputError(f'--seed must be at least 0, not {args.seed}')
    if not args.run:
        raise InputError('name a run: evaluate.py RUN, or --results FILE --references FILE')
    from core import evaluation
    from core.runs import Run

    run = Run(args.run)
    if args.weights and not run.finetuned:
        raise InputError(f'--weights belongs to runs with a fine-tuned encoder; {args.run} reads stored features')
    if args.decode_context:
        if run.config.model.attention != 'hard':
            raise InputError(f'--decode-context needs a run of hard attention; {args.run} is soft, with the expected '
                             f'context only')
        model = dataclasses.replace(run.config.model, decode_context=args.decode_context)
        run.config = dataclasses.replace(run.config, model=model)
    data = run.data(args.data)
    split = args.split or ('test' if 'test' in data.splits else 'dev')
    place = f'{data.path.absolute().name}-{split}' if args.data else split
    if args.decode_context:
        place += f'-{args.decode_context}'
    out = pathlib.Path(args.out) if args.out else run.path / 'evaluation' / place
    evaluation.evaluate(run, data, split, out, args.limit, args.paper_scoring, args.pictures, args.picture_ids,
                        args.seed, weights=args.weights)


def score_file(args):
    """--results FILE --references FILE."""
    from core import evaluation, metrics
    from core.files import write_json

    results, references = metrics.load_results(args.results), metrics.load_references(args.references)
    missing = [image for image in results if image not in references]
    if missing:
        raise InputError(f'{args.references}: no captions of {len(missing)} images of {args.results}, for example '
                         f'{missing[0]!r}; give the references of the same images')
    scores = evaluation.score({image: references[image] for image in results}, results, args.paper_scoring)
    print(evaluation.score_table(scores))
    print(f'{len(results)} of the {len(references)} images that have references')
    if args.out:
        pathlib.Path(args.out).mkdir(parents=True, exist_ok=True)
        write_json(pathlib.Path(args.out) / 'scores.json', scores)


def cli():
    """The installed command sat-evaluate."""
    console.run(main)


if __name__ == '__main__':
    cli()
