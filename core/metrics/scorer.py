"""Caption scores: BLEU, METEOR, ROUGE-L, CIDEr as coco-caption has them, and as the paper.

For example:
    references = load_references('captions_val2014.json')
    results = load_results('captions.json')
    with Scorer({image_id: references[image_id] for image_id in results}) as scorer:
        scorer.score(results)          # {'Bleu_1': 0.71, ..., 'METEOR': 0.24, 'CIDEr': 0.85}
        scorer.paper_scores(results)   # {'Bleu_1': 0.70, ...}: another scale, see there

The scores are computed by pycocoevalcap; what is added here is that every caption stays with its
image.
"""

import numbers
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from pycocoevalcap.bleu.bleu import Bleu
from pycocoevalcap.bleu.bleu_scorer import BleuScorer
from pycocoevalcap.cider.cider import Cider
from pycocoevalcap.rouge.rouge import Rouge

from core.common import terminal
from core.common.aliases import ImageId, Json, PathLike, Say
from core.common.errors import InputError
from core.common.files import write_json
from core.data.vocabulary import tokenize_raw
from core.datasets.published_files import is_id, read_listing
from core.metrics import java_tools, spice

METRICS = ('Bleu', 'METEOR', 'ROUGE_L', 'CIDEr')
OPTIONAL = ('SPICE',)  # needs jars that are fetched by hand, see spice.py
PAPER_METRICS = ('Bleu', 'METEOR')


class Scores(NamedTuple):
    """Scores of one set of captions.

    Attributes:
        corpus: dict from the metric's name to a float, the score of all captions together.
        images: dict from the metric's name to a dict from image id to a float. BLEU and METEOR of
            all captions are not the means of these, but come from the summed counts; ROUGE-L and
            CIDEr are the means.
        references, hypotheses: dicts from image id to the tokenized texts that were scored, words
            separated by blanks; one hypothesis an image.
    """

    corpus: dict[str, float]
    images: dict[str, dict[ImageId, float]]
    references: Mapping[ImageId, Sequence[str]]
    hypotheses: Mapping[ImageId, Sequence[str]]


class Scorer:
    """Scores captions against references that are tokenized once.

    METEOR's process starts with `start` or when it is first needed, and stays for further calls
    until `close`, which leaving a `with` block or Python does by itself.

    Args:
        references: dict from image id to the list of its captions as published (cased, with
            punctuation).

    Raises:
        InputError: no reference at all, images without any, or no Java.
    """

    def __init__(self, references: Mapping[ImageId, Sequence[str]]) -> None:
        if not references:
            raise InputError('no reference captions to score against: check the references file or '
                             'the split')
        without = [image_id for image_id, captions in references.items() if not captions]
        if without:
            raise InputError(f'{_some(without)} without reference captions: leave them out of the '
                             'references')
        self._references = {image_id: list(captions)
                            for image_id, captions in references.items()}
        self._tokenized: dict[ImageId, list[str]] | None = None
        self._meteor = java_tools.Meteor()
        java_tools.find_java()  # better now than after hours of training

    def __enter__(self) -> 'Scorer':
        """Return the scorer itself."""
        return self

    def __exit__(self, *exception: object) -> None:
        """Close the scorer."""
        self.close()

    def start(self) -> None:
        """Start METEOR's process and return at once: it gets ready while other work is done."""
        self._meteor.start()

    def close(self) -> None:
        """End METEOR's process; a later call would start it again."""
        self._meteor.close()

    def score(self, results: Mapping[ImageId, str],
              metrics: Collection[str] = METRICS) -> dict[str, float]:
        """Score as coco-caption: PTB tokens, lower case, no punctuation, BLEU's brevity penalty.

        Args:
            results: dict from image id to one caption (str); its ids are those of the references.
            metrics: names out of `METRICS` and `OPTIONAL`.

        Returns:
            dict from 'Bleu_1' to 'Bleu_4', 'METEOR', 'ROUGE_L' and 'CIDEr' to floats, as far as
            asked for: all from 0 to 1 but CIDEr (in fact CIDEr-D), from 0 to 10. CIDEr weighs words
            by their rarity among the images that are scored, so it depends on which and how many
            these are, and is 0 for a single image.

        Raises:
            InputError: ids missing or without references, an unknown metric, or METEOR's process
                failed.
        """
        return self.score_images(results, metrics).corpus

    def score_images(self, results: Mapping[ImageId, str],
                     metrics: Collection[str] = METRICS) -> Scores:
        """Score as `score` does, with the score of every image besides.

        Returns:
            `Scores`.
        """
        self._check_ids_and_metrics(results, metrics, METRICS + OPTIONAL)
        references, hypotheses = self._tokenize(results)
        return self._compute(references, hypotheses, metrics, _bleu)

    def paper_scores(self, results: Mapping[ImageId, str],
                     metrics: Collection[str] = PAPER_METRICS) -> dict[str, float]:
        """Score as the paper does, to compare with its Table 1 and nothing else.

        Table 1 of "Show, Attend and Tell" scores against the references as published: cased and
        with punctuation, cut at white space only, so that 'bench.' is another word than 'bench';
        and BLEU there has no brevity penalty. METEOR gets the same raw text (and does its own
        tokenizing). Both sides are cut as `tokenize_raw` does, so a model whose words are raw
        tokens is compared like with like. Other papers use coco-caption, which `score` is: on
        people's captions the two differ by up to 3.5 points of BLEU-1, so never mix them.

        Args:
            results: dict from image id to one caption (str); its ids are those of the references.
            metrics: names out of `PAPER_METRICS`.

        Returns:
            dict from 'Bleu_1' to 'Bleu_4' and 'METEOR' to floats from 0 to 1 (the paper prints them
            times 100).

        Raises:
            InputError: as `score`.
        """
        self._check_ids_and_metrics(results, metrics, PAPER_METRICS)
        references = {image_id: [_raw(caption) for caption in captions]
                      for image_id, captions in self._references.items()}
        hypotheses = {image_id: [_raw(results[image_id])] for image_id in self._references}
        return self._compute(references, hypotheses, metrics, _bleu_without_penalty).corpus

    def _check_ids_and_metrics(self, results: Mapping[ImageId, str], metrics: Collection[str],
                               choices: Collection[str]) -> None:
        """Raise InputError for an unknown metric, or other images than the references'."""
        unknown = [metric for metric in metrics if metric not in choices]
        if unknown:
            raise InputError(f'unknown metric {unknown[0]!r}: choose from {", ".join(choices)}')
        missing = [image_id for image_id in self._references if image_id not in results]
        extra = [image_id for image_id in results if image_id not in self._references]
        hint = ''
        if set(map(str, missing)) & set(map(str, extra)):
            hint = ' (ids are numbers on one side and text on the other)'
        if extra:
            raise InputError(f'{_some(extra)} captioned but without references{hint}: '
                             'check that results and references belong to the same images')
        if missing:
            raise InputError(f'{_some(missing)} in the references but not captioned{hint}: '
                             'caption all of them, or leave the others out of the references')

    def _tokenize(self, results: Mapping[ImageId, str],
                  ) -> tuple[dict[ImageId, list[str]], dict[ImageId, list[str]]]:
        """Return references and hypotheses as pycocoevalcap takes them: id -> token strings."""
        hypotheses = [results[image_id] for image_id in self._references]
        # together with the first hypotheses, which saves one start of Java
        if self._tokenized is None:
            texts = [text for captions in self._references.values() for text in captions]
            tokens = java_tools.tokenize(texts + hypotheses)
            if not any(tokens[:len(texts)]):
                raise InputError('the reference captions have no word, only punctuation: check the '
                                 'references file')
            rest = iter(tokens)
            self._tokenized = {image_id: [next(rest) for _ in captions]
                               for image_id, captions in self._references.items()}
            tokens = tokens[len(texts):]
        else:
            tokens = java_tools.tokenize(hypotheses)
        return self._tokenized, {image_id: [text]
                                 for image_id, text in zip(self._references, tokens, strict=True)}

    def _compute(self, references: Mapping[ImageId, Sequence[str]],
                 hypotheses: Mapping[ImageId, list[str]], metrics: Collection[str],
                 bleu: Callable[..., tuple]) -> Scores:
        compute = {
            'Bleu': bleu,
            'METEOR': self._meteor.compute_score,
            'ROUGE_L': Rouge().compute_score,
            'CIDEr': Cider().compute_score,
            'SPICE': spice.compute_score,
        }
        corpus, images = {}, {}
        for metric in metrics:
            total, each = compute[metric](references, hypotheses)
            names = [f'Bleu_{n}' for n in range(1, 5)] if metric == 'Bleu' else [metric]
            totals, rows = (total, each) if metric == 'Bleu' else ([total], [each])
            for name, value, row in zip(names, totals, rows, strict=True):
                corpus[name] = float(value)
                images[name] = {image_id: float(v)
                                for image_id, v in zip(references, row, strict=True)}
        return Scores(corpus, images, references, hypotheses)


def paper_scores(results: Mapping[ImageId, str], references: Mapping[ImageId, Sequence[str]],
                 metrics: Collection[str] = PAPER_METRICS) -> dict[str, float]:
    """Score `results` against `references` as the paper does: see `Scorer.paper_scores`."""
    with Scorer(references) as scorer:
        return scorer.paper_scores(results, metrics)


def metric_names(with_spice: bool) -> tuple[str, ...]:
    """Return the metrics to compute; raise InputError if SPICE lacks its jars."""
    if with_spice:
        spice.find()
    return METRICS + (OPTIONAL if with_spice else ())


def score(scorer: Scorer, results: Mapping[ImageId, str], paper_scoring: bool, say: Say = print,
          metrics: Collection[str] = METRICS) -> dict[str, dict[str, float]]:
    """Score results, a dict by image id, as a `Scorer` does.

    Returns:
        dict: 'coco' -> COCO metric names -> float, and with `paper_scoring` 'paper' likewise.
    """
    return score_images(scorer, results, paper_scoring, say, metrics)[0]


def score_images(scorer: Scorer, results: Mapping[ImageId, str], paper_scoring: bool,
                 say: Say = print, metrics: Collection[str] = METRICS,
                 ) -> tuple[dict[str, dict[str, float]], dict[ImageId, dict[str, float]]]:
    """Score as `score` does, with the COCO scores of every image besides.

    Returns:
        (dict as of `score`, dict of image id -> COCO metric names -> float).
    """
    say('scoring (METEOR takes some seconds to start)')
    coco = scorer.score_images(results, metrics)
    scores = {'coco': coco.corpus}
    if paper_scoring:
        scores['paper'] = scorer.paper_scores(results)
    return scores, {image: {name: row[image] for name, row in coco.images.items()}
                    for image in results}


def score_table(scores: Mapping[str, Mapping[str, float]]) -> str:
    """Return the table of `score`'s result; each column says how it was scored."""
    columns = [('COCO scoring', scores['coco'])]
    if 'paper' in scores:
        columns.append(("paper's scoring", scores['paper']))
    rows = []
    for name in scores['coco']:
        rows.append([name] + [
            f'{100 * values[name]:.2f}' if name in values else '-' for _, values in columns])
    return terminal.table(rows, ['x 100'] + [title for title, _ in columns])


def _raw(caption: str) -> str:
    """Return a caption's raw tokens with blanks between."""
    return ' '.join(tokenize_raw(caption))


def _bleu(references: Mapping[ImageId, Sequence[str]],
          hypotheses: Mapping[ImageId, list[str]]) -> tuple:
    return Bleu(4).compute_score(references, hypotheses, verbose=0)


def _bleu_without_penalty(references: Mapping[ImageId, Sequence[str]],
                          hypotheses: Mapping[ImageId, list[str]]) -> tuple:
    """Compute BLEU as `_bleu`, but against references of length 0: every hypothesis is longer."""
    scorer = BleuScorer(n=4, special_reflen=0)
    for image_id in references:
        scorer += (hypotheses[image_id][0], references[image_id])
    return scorer.compute_score(option='closest', verbose=0)


def _some(ids: Collection) -> str:
    """Return e.g. '7 images (1, 2, 3, ...)'."""
    names = ', '.join(map(repr, list(ids)[:3])) + (', ...' if len(ids) > 3 else '')
    return f'{len(ids)} image{"s" if len(ids) > 1 else ""} ({names})'


def coco_results(results: Mapping[Any, str]) -> list[dict[str, Any]]:
    """Return dict id -> caption as COCO's list of {'image_id': ..., 'caption': ...}."""
    # NumPy's integers, of ids that come from an array, are not JSON's.
    return [{'image_id': int(image_id) if isinstance(image_id, numbers.Integral) else image_id,
             'caption': caption} for image_id, caption in results.items()]


def save_results(path: PathLike, results: Mapping[ImageId, str]) -> None:
    """Write dict id -> caption in the COCO result format; the file appears whole or not at all."""
    write_json(path, coco_results(results), indent=None)


def load_results(path: PathLike) -> dict[ImageId, str]:
    """Read captions in the COCO result format.

    Returns:
        dict from image id (int or str, as in the file) to caption, in the file's order.

    Raises:
        InputError: no such file, another format, or two captions for one image.
    """
    expected = 'the COCO result format [{"image_id": 1, "caption": "a dog"}]'
    rows = read_listing(path, expected)
    if not isinstance(rows, list):
        raise InputError(f'{path}: is not a list; expected {expected}')
    results = {}
    for number, row in enumerate(rows, 1):
        image_id, caption = _id_and_caption(path, f'entry {number}', row, expected)
        if image_id in results:
            raise InputError(f'{path}, entry {number}: second caption of image_id {image_id!r}; '
                             'keep one an image')
        results[image_id] = caption
    return results


def load_references(path: PathLike) -> dict[ImageId, list[str]]:
    """Read the captions of a COCO captions file (its 'annotations').

    Returns:
        dict from image id (int or str, as in the file) to a list of str; images that nobody
        described are not in it.

    Raises:
        InputError: no such file, or another format.
    """
    expected = 'a COCO captions file {"annotations": [{"image_id": 1, "caption": "A dog."}]}'
    references: dict[ImageId, list[str]] = {}
    for number, row in enumerate(read_listing(path, expected, 'annotations')['annotations'], 1):
        image_id, caption = _id_and_caption(path, f'annotation {number}', row, expected)
        references.setdefault(image_id, []).append(caption)
    return references


def _id_and_caption(path: PathLike, where: str, row: object,
                    expected: str) -> tuple[ImageId, str]:
    image_id: Json = row.get('image_id') if isinstance(row, dict) else None
    caption: Json = row.get('caption') if isinstance(row, dict) else None
    if not is_id(image_id):
        raise InputError(f'{path}, {where}: has no "image_id" that is a whole number or text; '
                         f'expected {expected}')
    if not isinstance(caption, str):
        raise InputError(f'{path}, {where}, image_id {image_id!r}: has no "caption" that is text; '
                         f'expected {expected}')
    return image_id, caption


def diversity(captions: Iterable[str],
              training_captions: Iterable[str] | None = None) -> dict[str, float]:
    """Measure how much captions differ among themselves and from those learnt from.

    Words are what white space separates, so give captions as the model writes them, and training
    captions cut in the same way (`core.data.vocabulary.TOKENS`).

    Args:
        captions: iterable of str, one for each image.
        training_captions: iterable of str, or None.

    Returns:
        dict: 'captions' (int), 'distinct' (int, different captions), 'distinct_share' (of all
        captions), 'vocabulary' (int, different words), 'mean_length' (words a caption),
        'distinct_1' and 'distinct_2' (different words and word pairs, as shares of all words and
        pairs; Li et al., 2016), and with `training_captions` 'novel_share' (of all captions, those
        that are not a training caption). Shares are from 0 to 1, and 0 of nothing is 0.
    """
    sentences = [tuple(caption.split()) for caption in captions]
    words = [word for sentence in sentences for word in sentence]
    pairs = [pair for sentence in sentences for pair in zip(sentence, sentence[1:], strict=False)]
    measures = {
        'captions': len(sentences),
        'distinct': len(set(sentences)),
        'distinct_share': _share(len(set(sentences)), sentences),
        'vocabulary': len(set(words)),
        'mean_length': _share(len(words), sentences),
        'distinct_1': _share(len(set(words)), words),
        'distinct_2': _share(len(set(pairs)), pairs),
    }
    if training_captions is not None:
        training = {tuple(caption.split()) for caption in training_captions}
        measures['novel_share'] = _share(sum(sentence not in training for sentence in sentences),
                                         sentences)
    return measures


def _share(count: int, everything: Collection) -> float:
    return count / len(everything) if everything else 0.0
