"""What evaluate.py does: captions of a split by a run's best model, scores, pictures."""

import contextlib
import dataclasses
import pathlib
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from core.common import progress
from core.common.aliases import PathLike, Rectangle, Say
from core.common.errors import InputError
from core.common.files import replacing, write_json
from core.config.decoding import DecodingConfig
from core.data.vocabulary import TOKENS
from core.decoding.captions import generate_n_best
from core.inference import faithfulness
from core.metrics import attention_correctness
from core.metrics.object_names import Lexicon, lexicon_of
from core.metrics.scorer import (
    Scorer,
    diversity,
    metric_names,
    save_results,
    score_images,
    score_table,
)
from core.runs.run_ensemble import check_ensemble, make_ensemble
from core.runtime.backend import tf, tf1
from core.runtime.devices import Machine, session_config
from core.runtime.xla import with_working_xla
from core.viewer import attention_pictures, gallery
from core.viewer.caption_record import page_record

if TYPE_CHECKING:
    from core.data.data_dir import DataDir
    from core.data.split import Split
    from core.decoding.captions import Caption
    from core.runs.run_dir import Run

SHOWN = 3  # captions printed beside their references


def evaluate(run: 'Run', data: 'DataDir', split: str, out: PathLike, limit: int | None = None,
             paper_scoring: bool = False, n_pictures: int = 5, image_ids: Sequence[str] = (),
             seed: int = 1, say: Say = print, weights: PathLike | None = None, n_best: int = 1,
             ensemble: 'Sequence[Run]' = (), machine: Machine | None = None,
             synonyms: Mapping[str, Iterable[str]] | None = None, html: PathLike | None = None,
             spice: bool = False, replaced: Sequence[int] | None = None) -> dict[str, Any]:
    """Caption, score and picture a split.

    Args:
        run: Run. data: DataDir with the run's kind of features, for a fine-tuned run with any.
        split: 'train', 'dev' or 'test'.
        out: directory for captions.json, scores.json and pictures/.
        limit: at most so many images, evenly spread over the split; None: all.
        paper_scoring: also score as the paper did.
        n_pictures: attention pictures of random images. image_ids: texts of ids to picture instead.
        seed: of the random choice, and of drawn words and locations.
        say: function that prints a line.
        weights: path of the encoder's weights file, where it moved; only a fine-tuned run needs
            them.
        n_best: captions an image that go into n_best.json, where there is more than one; at most
            `beam_width`.
        ensemble: further Runs, whose probabilities are averaged with the run's.
        machine: Machine, where to decode; None: Machine().
        spice: whether to compute SPICE too, see core.metrics.spice.
        html: directory for a page to look at, see core.viewer.gallery; None: no page.
        synonyms: dict from category to names, for attention correctness
            (`core.metrics.object_names.lexicon_of`).
        replaced: numbers of places that the faithfulness test replaces; empty: its own shares of
            them; None: no test. See core.inference.faithfulness.

    Returns:
        dict, as in scores.json.
    """
    out = pathlib.Path(out)
    selected = run.split(data, split)
    images = np.arange(len(selected))
    if limit is not None and limit < len(images):
        if limit < 1:
            raise InputError(f'--limit must be at least 1, not {limit}')
        images = np.linspace(0, len(images) - 1, limit).round().astype(int)
    pictured = _to_picture(selected, images, n_pictures, image_ids, seed)
    if synonyms is not None and selected.boxes is None:
        raise InputError(f'{data.path}: the {split} images have no boxes, so there is nothing that '
                         '--synonyms could name; leave it out, or make the data with prepro.py '
                         '--instances')
    lexicon = None if selected.boxes is None else lexicon_of(selected.boxes, data.dataset, synonyms)
    if n_best < 1 or n_best > run.config.decoding.beam_width:
        raise InputError('--n-best must be 1 to the width of the beam, '
                         f'{run.config.decoding.beam_width}, not {n_best}; --beam-width widens it')
    if ensemble:
        check_ensemble([run, *ensemble])
    if replaced is not None:
        replaced = faithfulness.check_places(run, replaced, ensemble)
    if html is not None:
        place = gallery.check_directory(html)
        if place in (out.resolve(), *out.resolve().parents):
            raise InputError(f'--html {html}: the results go into {out}; name another directory '
                             'for the page')
    best = run.best().info()
    out.mkdir(parents=True, exist_ok=True)
    of_images: dict[Any, dict[str, float]] = {}
    referenced = {selected.image_ids[i]: selected.references[i] for i in images
                  if selected.references[i]}
    with Scorer(referenced) if referenced else contextlib.nullcontext() as scorer:
        if scorer:  # METEOR's process takes as long to start as many captions
            scorer.start()
        hypotheses = _caption([run, *ensemble], selected, images, split, say, seed, weights,
                              n_best, machine)
        captions = {i: n_captions[0] for i, n_captions in hypotheses.items()}
        results = {selected.image_ids[i]: caption.text for i, caption in captions.items()}
        save_results(out / 'captions.json', results)
        _save_n_best(out / 'n_best.json', selected, hypotheses, n_best)

        scores = {'run': str(run.path), 'step': best and best['step'],
                  'data': str(data.path.absolute()), 'split': split, 'images': len(images),
                  'decoding': changed_decoding(run.config.decoding)}
        if ensemble:
            scores['ensemble'] = [str(other.path) for other in ensemble]
        if run.config.model.attention == 'hard':
            scores['decode_context'] = run.config.model.decode_context
        if scorer:
            scored = {image: results[image] for image in referenced}
            summary, of_images = score_images(scorer, scored, paper_scoring, say,
                                              metric_names(spice))
            scores.update(summary)
        else:
            say('these images have no captions to compare with: no scores')
    scores['diversity'] = diversity(results.values(), _training_captions(run, data, split))
    scores['attention'] = {**_entropy(captions.values()),
                           **_correctness(selected, captions, lexicon)}
    if replaced is not None:
        scores['faithfulness'] = faithfulness.measure(
            run, selected, captions, replaced, _object_words(selected, captions, lexicon), seed,
            weights, machine, say)
    write_json(out / 'scores.json', scores)
    if html is not None:
        scores['page'] = str(
            _write_page(html, run, ensemble, selected, hypotheses, scores, of_images, say, lexicon))
    scores['pictures'] = [
        str(path) for path in _draw(selected, captions, pictured, out / 'pictures', say, lexicon)]
    _show(scores, selected, captions, out, say)
    return scores


def changed_decoding(decoding: DecodingConfig) -> dict[str, Any]:
    """Return the decoding options that decide captions and are not at their default."""
    default = DecodingConfig()
    return {name: value for name, value in dataclasses.asdict(decoding).items()
            if name != 'decode_batch' and value != getattr(default, name)}


def _caption(runs: 'Sequence[Run]', data: 'Split', images: np.ndarray, split: str, say: Say,
             seed: int, weights: PathLike | None, n_best: int,
             machine: Machine | None) -> 'dict[int, list[Caption]]':
    """Return the captions by the best models of the runs: image number -> list, best first."""
    options = runs[0].config.decoding
    with tf.Graph().as_default() as graph:
        model: Any = make_ensemble(runs) if len(runs) > 1 else runs[0].make_model(weights)
        machine = with_working_xla(machine or Machine(), say=say)
        search = model.build_search(options, n_best, jit=None if machine.xla != 'off' else False)
        with tf1.Session(graph=graph, config=session_config(machine)) as session:
            infos = model.restore(session) if len(runs) > 1 else [runs[0].restore(session, model)]
            steps = ', '.join(str(info['step']) for info in infos)
            share = '' if len(images) == len(data) else f'of {len(data)} '
            say(f'captioning {len(images)} {share}{split} images with the '
                f'model{"s" * (len(runs) > 1)} of step {steps}')
            captions_of = {}
            with progress.bar(len(images), 'captioning', unit='image') as bar:
                results = generate_n_best(session, model, search, data, images,
                                          options.decode_batch, seed)
                for image, captions in zip(images, results, strict=True):
                    captions_of[int(image)] = captions
                    bar.update()
    return captions_of


def _save_n_best(path: pathlib.Path, data: 'Split', hypotheses: 'Mapping[int, list[Caption]]',
                 n_best: int) -> None:
    """Write the n best captions of each image with their scores.

    Without any, an earlier evaluation's file is removed.
    """
    if n_best == 1:
        path.unlink(missing_ok=True)
        return
    write_json(path, [{'image_id': data.image_ids[image],
                       'captions': [{'caption': caption.text, 'score': caption.score,
                                     'log_prob': caption.log_prob, 'ended': caption.ended}
                                    for caption in captions]}
                      for image, captions in hypotheses.items()])


def _training_captions(run: 'Run', data: 'DataDir', split: str) -> list[str] | None:
    """Return the captions that the run was trained on, as the model writes them.

    None for the split 'train' itself, and where the run's data are gone.
    """
    if split == 'train':
        return None
    try:
        own = data if str(data.path.absolute()) == run.data_entry['path'] else run.data()
        references = own.split('train').references
    except InputError:
        return None
    return [' '.join(TOKENS[run.tokens](text)) for texts in references for text in texts]


def _entropy(captions: 'Iterable[Caption]') -> dict[str, float | None]:
    """Return how spread the attention is.

    Returns:
        dict: 'entropy', mean over the words of the entropy of alpha in nats, and 'uniform_entropy',
        that of even attention, log L; both None where no caption has a word. Drawn locations
        (`decode_context`) have entropy 0.
    """
    alphas = [caption.alphas for caption in captions if len(caption.alphas)]
    if not alphas:
        return {'entropy': None, 'uniform_entropy': None}
    rows = np.concatenate(alphas).astype(np.float64)
    entropies = -(rows * np.log(np.maximum(rows, 1e-300))).sum(axis=1)
    return {'entropy': float(entropies.mean()), 'uniform_entropy': float(np.log(rows.shape[1]))}


def _correctness(data: 'Split', captions: 'Mapping[int, Caption]',
                 lexicon: Lexicon | None) -> dict[str, Any]:
    """Return the attention correctness where the data have boxes, else nothing."""
    if data.boxes is None or data.encoder is None:
        return {}
    grid = tuple(data.encoder['grid'])
    return attention_correctness.attention_correctness(
        (attention_correctness.Item(caption.words, caption.alphas, grid,
                                    [attention_correctness.Region(*box)
                                     for box in data.boxes[image]])
         for image, caption in captions.items()), lexicon)


def _object_words(data: 'Split', captions: 'Mapping[int, Caption]',
                  lexicon: Lexicon | None) -> dict[int, set[int]] | None:
    """Return the places of the words that name an object of their image; None without boxes."""
    if data.boxes is None:
        return None
    return {image: attention_correctness.object_words(caption.words, data.boxes[image], lexicon)
            for image, caption in captions.items()}


def _to_picture(data: 'Split', images: np.ndarray, n_pictures: int, image_ids: Sequence[str],
                seed: int) -> list[int]:
    """Return the image numbers to draw, checked before any work is done."""
    if image_ids:
        by_id = {str(data.image_ids[i]): int(i) for i in images}
        missing = [image for image in image_ids if image not in by_id]
        if missing:
            raise InputError(f'--picture-ids: {", ".join(missing[:5])} not among the {len(images)} '
                             'images evaluated')
        return [by_id[image] for image in image_ids]
    if n_pictures < 0:
        raise InputError(f'--pictures must be at least 0, not {n_pictures}')
    random = np.random.default_rng(seed)
    return sorted(
        int(i) for i in random.choice(images, min(n_pictures, len(images)), replace=False))


def _draw(data: 'Split', captions: 'Mapping[int, Caption]', images: Iterable[int],
          directory: pathlib.Path, say: Say, lexicon: Lexicon | None = None) -> list[pathlib.Path]:
    """Write the attention pictures and yield their paths."""
    directory.mkdir(parents=True, exist_ok=True)
    for old in directory.glob('*.png'):  # of an earlier evaluation into the same place
        old.unlink()
    paths, names = [], set()
    for image in images:
        caption = captions[image]
        try:
            picture = attention_pictures.picture_of(data, image, caption,
                                                    _named_boxes(data, image, caption, lexicon))
        except InputError as error:
            say(f'no picture: {error}')
            continue
        name = re.sub(r'[^\w.-]', '_', str(data.image_ids[image]))
        if name.lower() in names:  # ids that differ in other characters or in case only
            name = f'{name}-{image}'
        names.add(name.lower())
        paths.append(directory / f'{name}.png')
        with replacing(paths[-1], 'wb') as file:
            file.write(attention_pictures.png(picture))
    return paths


def _write_page(directory: PathLike, run: 'Run', ensemble: 'Sequence[Run]', data: 'Split',
                hypotheses: 'Mapping[int, list[Caption]]', scores: dict[str, Any],
                of_images: Mapping[Any, dict[str, float]], say: Say,
                lexicon: Lexicon | None) -> pathlib.Path:
    """Write the page of an evaluation; return the path of its index.html."""
    info = {name: scores[name] for name in gallery.INFO if name in scores}
    info['title'] = f'{"/".join(run.path.absolute().parts[-2:])}, {scores["split"]}'
    if ensemble:
        info['ensemble'] = [other.path.absolute().name for other in ensemble]
    info['boxes'] = data.boxes is not None
    # An ensemble's attention is the mean of its members', which is at no one place.
    located = not ensemble and scores.get('decode_context', 'expected') != 'expected'
    numbers = list(hypotheses)

    def records() -> Iterator[dict[str, Any]]:
        for image, captions in hypotheses.items():
            yield {'image': str(data.image_ids[image]), 'caption': captions[0].text,
                   'grid': run.spec.grid, 'references': [' '.join(text.split())
                                                         for text in data.references[image]],
                   'scores': of_images.get(data.image_ids[image], {}),
                   'captions': [page_record(caption, located,
                                            _named_boxes(data, image, caption, lexicon))
                                for caption in captions]}

    def photo(number: int) -> np.ndarray:
        if data.paths is None:
            raise InputError('the data name no photos')
        return attention_pictures.view(data.paths[numbers[number]], run.spec.preprocessing,
                                       gallery.SIDE)

    with progress.bar(len(numbers), 'page', unit='image') as bar:
        def counted() -> Iterator[dict[str, Any]]:
            for record in records():
                yield record
                bar.update()

        return gallery.write(directory, info, counted(), photo, say)


def _named_boxes(data: 'Split', image: int, caption: 'Caption',
                 lexicon: Lexicon | None = None) -> list[tuple[set[int], Rectangle]]:
    """Return (places of the words that name it, rectangle) for each box of an image."""
    return ([] if data.boxes is None else attention_correctness.named_boxes(
        caption.words, data.boxes[image], lexicon))


def _show(scores: dict[str, Any], data: 'Split', captions: 'Mapping[int, Caption]',
          out: pathlib.Path, say: Say) -> None:
    """Print the figures that a person wants to see first."""
    say('')
    for image in list(captions)[:SHOWN]:
        say(f'{data.image_ids[image]}: {captions[image].text}')
        for text in data.references[image][:2]:
            say(f'    reference: {" ".join(text.split())}')
    say('')
    if 'coco' in scores:
        say(score_table(scores))
        say('')
    diversity = scores['diversity']
    say(f'{diversity["distinct"]} distinct captions over {diversity["captions"]} images, '
        f'{diversity["vocabulary"]} words used, {diversity["mean_length"]:.1f} words a caption'
        + (f', {100 * diversity["novel_share"]:.0f} % not among the training captions'
           if 'novel_share' in diversity else ''))
    attention = scores['attention']
    if attention['entropy'] is not None:
        say(f'entropy of the attention: {attention["entropy"]:.2f} nats a word, '
            f'{attention["uniform_entropy"]:.2f} if spread evenly' + (
                f' (context: {scores["decode_context"]})' if 'decode_context' in scores else ''))
    if attention.get('n_words'):
        say(f'attention correctness over {attention["n_words"]} words that name an object: '
            f'{attention["mass"]:.3f} of the attention inside its box, '
            f'{attention["uniform_mass"]:.3f} if spread evenly ({attention["mass_ratio"]:.2f}x), '
            f'{attention["centre_mass"]:.3f} if always around the centre; pointing hits '
            f'{attention["pointing"]:.3f} (evenly: {attention["uniform_pointing"]:.3f}, centre: '
            f'{attention["centre_pointing"]:.3f})')
        say(attention_correctness.class_table(attention))
    if 'faithfulness' in scores:
        say("fall of the words' log-probability, in nats a word, with places replaced by the mean "
            'feature:')
        say(faithfulness.table(scores['faithfulness']))
    say(f'captions and scores: {out / "captions.json"}, {out / "scores.json"}')
    if (out / 'n_best.json').exists():
        say(f'the n best captions of each image: {out / "n_best.json"}')
    if 'page' in scores:
        say(f'page to look at, in any browser: {scores["page"]}')
    for path in scores['pictures']:
        say(f'attention picture: {path}')
