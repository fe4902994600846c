"""What `evaluate.py --compare-scores` does: scores over seeds, and two sets of runs, by image.

    compare_scores(['runs/soft/seed1/evaluation/dev', 'runs/soft/seed2/evaluation/dev'],
                   ['runs/hard/seed1/evaluation/dev', 'runs/hard/seed2/evaluation/dev'])

Captions are read from evaluations and scored anew, image by image; no model is loaded.
"""

import dataclasses
import pathlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from core.common import terminal
from core.common.aliases import ImageId, PathLike, Say
from core.common.errors import InputError
from core.common.files import read_json, write_json
from core.data.data_dir import DataDir
from core.metrics import significance
from core.metrics.scorer import Scorer, load_references, load_results
from core.runs.run_dir import Run, seed_directories

References = Mapping[ImageId, Sequence[str]]


@dataclasses.dataclass(frozen=True)
class Evaluation:
    """What one evaluation left.

    Attributes:
        path: pathlib.Path of its directory.
        captions: dict from image id to caption, of captions.json.
        info: dict of scores.json; {} where there is none.
    """

    path: pathlib.Path
    captions: dict[ImageId, str]
    info: dict[str, Any]


def compare_scores(first: Sequence[PathLike], second: Sequence[PathLike] = (),
                   references: PathLike | None = None, split: str | None = None,
                   n_resamples: int = significance.N_RESAMPLES, seed: int = 1,
                   say: Say = print) -> dict[str, Any]:
    """Score a set of evaluations, or compare two.

    Args:
        first, second: directories of evaluations, or runs that hold one, or directories of such
            runs, as `train.py --seeds` makes; `second` may be empty.
        references: a COCO captions file; None: the captions of the runs' data.
        split: 'train', 'dev' or 'test', of which all evaluations must be; chooses among a run's.
        n_resamples, seed: of the bootstrap.
        say: function that prints a line.

    Returns:
        dict: 'images' (int), 'sets', a list of one or two dicts of 'evaluations' (list of str),
        'scores' (dict name -> list of floats, one an evaluation), 'mean' and 'standard_deviation'
        (dict name -> float, the latter None for one evaluation); and of two sets 'differences'
        (dict name -> dict of `core.metrics.significance.Difference`), 'resamples' and 'seed'.
        METEOR's scores are those of all images, its difference is between means of image scores.

    Raises:
        InputError: no evaluation there, evaluations of different images or references, one named
            twice, or references that cannot be found.
    """
    sets = [[read(place, split) for path in paths for place in find(path, split)]
            for paths in (first, second) if paths]
    for chosen in sets:
        _check_once(chosen)
    evaluations = [evaluation for chosen in sets for evaluation in chosen]
    check_images(evaluations)
    known = (_of_file(references, evaluations[0]) if references
             else _of_data(evaluations))
    if len(sets) > 1:  # what the bootstrap would refuse, before anything slow
        significance.check_resamples(n_resamples, seed)
    n_scored = len({evaluation.path.resolve() for evaluation in evaluations})
    say(f'scoring {n_scored} evaluation{"s" * (n_scored > 1)} of {len(known)} images (METEOR takes '
        'some seconds to start)')
    scored: dict[pathlib.Path, Any] = {}
    with Scorer(known) as scorer:
        scorer.start()
        for evaluation in evaluations:
            place = evaluation.path.resolve()
            if place not in scored:  # one may be in both sets
                scores = scorer.score_images({image: evaluation.captions[image] for image in known})
                scored[place] = scores.corpus, significance.statistics_of(scores)
    of_sets = [[scored[evaluation.path.resolve()] for evaluation in chosen] for chosen in sets]
    result: dict[str, Any] = {
        'images': len(known), 'references': references and str(references),
        'sets': [_summary(chosen, [corpus for corpus, _ in scores])
                 for chosen, scores in zip(sets, of_sets, strict=True)]}
    if len(sets) > 1:
        one, other = ([statistics for _, statistics in scores] for scores in of_sets)
        differences = significance.compare(one, other, n_resamples, seed)
        result.update(differences={name: row._asdict() for name, row in differences.items()},
                      resamples=n_resamples, seed=seed)
    return result


def _summary(chosen: Sequence[Evaluation], scores: Sequence[Mapping[str, float]],
             ) -> dict[str, Any]:
    """Return the entry of a set in the result of `compare_scores`."""
    columns = {name: [corpus[name] for corpus in scores] for name in scores[0]}
    both = {name: significance.mean_and_deviation(values) for name, values in columns.items()}
    return {'evaluations': [str(evaluation.path) for evaluation in chosen], 'scores': columns,
            'mean': {name: mean for name, (mean, _) in both.items()},
            'standard_deviation': {name: deviation for name, (_, deviation) in both.items()}}


# ---- evaluations on disk

def find(path: PathLike, split: str | None = None) -> list[pathlib.Path]:
    """Return the directories of evaluations that a path names.

    Args:
        path: an evaluation, a run that holds one (of the split), or a directory of such runs
            seed1, seed2 ... split: None: any.

    Raises:
        InputError: it is none of these, or a run has no evaluation or several.
    """
    path = pathlib.Path(path)
    if (path / 'captions.json').exists():
        return [path]
    if (path / 'config.json').exists():
        return [_only_evaluation(path, split)]
    runs = seed_directories(path)
    if runs:
        return [_only_evaluation(run, split) for run in runs]
    raise InputError(f'{path}: ' + ('no evaluation here (no captions.json), no run, and no runs '
                                    'seed1, seed2 ...' if path.is_dir() else 'no such directory')
                     + '; evaluate.py RUN makes the evaluation RUN/evaluation/SPLIT')


def _only_evaluation(run: pathlib.Path, split: str | None) -> pathlib.Path:
    found = [place.parent for place in sorted((run / 'evaluation').glob('*/captions.json'))]
    if split:
        found = [place for place in found if _info(place).get('split') == split]
    if not found:
        raise InputError(f'{run}: no evaluation{f" of the split {split}" if split else ""} yet; '
                         f'make one: evaluate.py {run}{f" --split {split}" if split else ""}')
    if len(found) > 1:
        raise InputError(f'{run}: holds the evaluations {", ".join(p.name for p in found)}; name '
                         f'one, for example {found[0]}')
    return found[0]


def _info(place: pathlib.Path) -> dict[str, Any]:
    """Return the dict of an evaluation's scores.json; {} where there is none."""
    if not (place / 'scores.json').exists():
        return {}
    info = read_json(place / 'scores.json', 'evaluate again')
    if not isinstance(info, dict):
        raise InputError(f'{place / "scores.json"}: was not written by evaluate.py; evaluate again')
    return info


def read(place: pathlib.Path, split: str | None = None) -> Evaluation:
    """Return the Evaluation in a directory.

    Raises:
        InputError: captions.json or scores.json are damaged, or of another split.
    """
    info = _info(place)
    if split and info.get('split', split) != split:
        raise InputError(f'{place}: is of the split {info["split"]}, not {split}')
    return Evaluation(place, load_results(place / 'captions.json'), info)


def _check_once(chosen: Iterable[Evaluation]) -> None:
    """Raise InputError if a set holds an evaluation twice, which would make it look certain."""
    seen = set()
    for evaluation in chosen:
        place = evaluation.path.resolve()
        if place in seen:
            raise InputError(f'{evaluation.path}: named twice in one set; name every run once')
        seen.add(place)


def check_images(evaluations: Sequence[Evaluation]) -> None:
    """Raise InputError unless all evaluations have captions of the same images."""
    one = evaluations[0]
    if not one.captions:
        raise InputError(f'{one.path / "captions.json"}: holds no caption')
    for other in evaluations[1:]:
        for here, there in ((other, one), (one, other)):
            more = [image for image in here.captions if image not in there.captions]
            if more:
                raise InputError(
                    f'{other.path} and {one.path} are not of the same images: {len(more)} of '
                    f'{here.path} are not in {there.path}, for example {more[0]!r}; compare '
                    'evaluations of one split, with the same --limit')


# ---- references

def _of_file(path: PathLike, evaluation: Evaluation) -> References:
    """Return the references in a COCO captions file of the images of an evaluation."""
    references = load_references(path)
    missing = [image for image in evaluation.captions if image not in references]
    if missing:
        raise InputError(f'{path}: no captions of {len(missing)} images of {evaluation.path}, for '
                         f'example {missing[0]!r}; give the references of the same images')
    return {image: references[image] for image in evaluation.captions}


def _of_data(evaluations: Sequence[Evaluation]) -> References:
    """Return the references in the data of the evaluations' runs, where there are any.

    Raises:
        InputError: the data are gone or have no such images, or not all of the same references.
    """
    read_data: dict[tuple[pathlib.Path, str], References] = {}
    known: dict[ImageId, list[str]] | None = None
    for evaluation in evaluations:
        try:
            data, split = _data_of(evaluation)
            key = data.path.resolve(), split
            if key not in read_data:
                selected = data.split(split)
                read_data[key] = dict(zip(selected.image_ids, selected.references, strict=True))
        except InputError as error:
            raise InputError(f'{evaluation.path}: its references are not to be had ({error}); name '
                             'them: --references FILE, a COCO captions file') from None
        everything = read_data[key]
        strange = [image for image in evaluation.captions if image not in everything]
        if strange:
            raise InputError(f'{evaluation.path}: {len(strange)} of its images are not of the '
                             f'split {split} of {data.path}, for example {strange[0]!r}; name the '
                             'references: --references FILE, a COCO captions file')
        mine = {image: list(everything[image]) for image in evaluations[0].captions}
        known = mine if known is None else known
        different = [image for image in mine if mine[image] != known[image]]
        if different:
            raise InputError(f'{evaluation.path} and {evaluations[0].path} have other references '
                             f'for {len(different)} images, for example {different[0]!r}; name '
                             'those to score against: --references FILE, a COCO captions file')
    referenced = {image: texts for image, texts in (known or {}).items() if texts}
    if not referenced:
        raise InputError(f'{evaluations[0].path}: its images have no captions to compare with; '
                         'name some: --references FILE, a COCO captions file')
    return referenced


def _data_of(evaluation: Evaluation) -> tuple[DataDir, str]:
    """Return the DataDir and the split of an evaluation."""
    split, place = evaluation.info.get('split'), evaluation.info.get('data')
    if not split:
        raise InputError(f'no {evaluation.path / "scores.json"} that names a split')
    if place and pathlib.Path(place).is_dir():
        return DataDir(place), split
    # An evaluation inside its run is found wherever the run was moved to.
    home = evaluation.path.resolve().parent.parent
    run = Run(home if (home / 'config.json').exists() else evaluation.info.get('run', home))
    return run.data(), split


# ---- what is shown

def comparison_table(result: Mapping[str, Any]) -> str:
    """Return the table of a result of `compare_scores`, with what its columns are."""
    sets = result['sets']
    names = ['A', 'B'] if len(sets) > 1 else ['']
    header, rows = ['x 100'], [[name] for name in sets[0]['mean']]
    for name, one in zip(names, sets, strict=True):
        header += [f'{name} mean'.strip(), 'sd']
        for row in rows:
            deviation = one['standard_deviation'][row[0]]
            row += [f'{100 * one["mean"][row[0]]:.2f}',
                    '-' if deviation is None else f'{100 * deviation:.2f}']
    lines = [f'{name or "scores"}: {len(one["evaluations"])} evaluation'
             f'{"s" * (len(one["evaluations"]) > 1)}, {_first_and_last(one["evaluations"])}'
             for name, one in zip(names, sets, strict=True)]
    if len(sets) > 1:
        header += ['A - B', '95 % interval', 'p']
        for row in rows:
            entry = result['differences'][row[0]]
            row += [f'{100 * entry["difference"]:+.2f}',
                    f'{100 * entry["low"]:+.2f} to {100 * entry["high"]:+.2f}', f'{entry["p"]:.3f}']
    lines += ['', terminal.table(rows, header), '',
              f'{result["images"]} images; sd: over the evaluations of a set (n - 1)']
    if len(sets) > 1:
        lines += [f'interval and two-sided p: paired bootstrap over images, {result["resamples"]} '
                  f'resamples, seed {result["seed"]}',
                  "METEOR's difference is between means of the images' scores, its means are of "
                  'the score of all images']
    return '\n'.join(lines)


def _first_and_last(paths: Sequence[str]) -> str:
    return ', '.join(paths) if len(paths) < 3 else f'{paths[0]} ... {paths[-1]}'


def save_comparison(path: PathLike, result: Mapping[str, Any]) -> pathlib.Path:
    """Write a result of `compare_scores`; return the file's path.

    Args:
        path: a file *.json, or the directory for comparison.json.
    """
    path = pathlib.Path(path)
    if path.suffix != '.json':
        path = path / 'comparison.json'
    path.parent.mkdir(parents=True, exist_ok=True)
    write_json(path, dict(result))
    return path
