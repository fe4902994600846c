"""CARD.md of a packed run: what the model is, was trained on and is good for, for who gets it."""

import dataclasses
from collections.abc import Iterator
from typing import Any

from core.common.version import __version__
from core.config.config import Config
from core.data.vocabulary import END, Vocabulary
from core.download.catalogue import WEIGHTS

# Options that a reader looks for; the others are listed where they are not at their default.
ALWAYS = {'model': ('attention', 'cell', 'dim_embed', 'dim_hidden'),
          'training': ('n_epochs', 'batch_size', 'update_rule', 'learning_rate', 'seed'),
          'decoding': ('beam_width', 'length_penalty', 'max_len')}
# They say nothing of the model.
NEVER = ('decode_batch', 'print_every', 'save_every', 'save_minutes', 'keep_checkpoints',
         'tensorboard_images')

TITLE = """\
# A captioner of photos, trained on {dataset}

It writes a sentence about a photo and shows where it looked at each word: Show, Attend and Tell
(Xu et al., 2015) with {attention} attention, packed by show-attend-tell {version}.

    python caption.py THIS.zip PHOTO

or, from Python, `core.Captioner.load('THIS.zip')('PHOTO')`. Unpacked into a folder it is an
ordinary run directory, for `evaluate.py` for example.
"""
LIMITS = """\
## Intended use and limits

For research, teaching and trying out. Its sentences are guesses: objects, their numbers and colours
and what people do are often wrong, and nothing in a sentence says so. It knows the words above and
photos like those it was trained on, and repeats the habits and prejudices of the people who wrote
their captions, about gender, age and origin among others. It is not for decisions about people, nor
the only description of a photo for somebody who cannot see it. The attention shows which places
weighed how much in a word; it does not prove why the word was chosen.
"""


def card(config: Config, data: dict[str, Any], best: dict[str, Any], vocabulary: Vocabulary,
         n_numbers: int, data_licence: str | None = None) -> str:
    """Return the text of CARD.md, which follows from its arguments alone.

    Args:
        config: Config. data, best: the packed run's entry 'data' and best.json, as dicts.
        vocabulary: Vocabulary. n_numbers: int, of the best model's checkpoint.
        data_licence: text, one line; None: not stated.
    """
    sections = [
        TITLE.format(dataset=_line(data['dataset'] or 'unknown data'), version=__version__,
                     attention=config.model.attention),
        '\n'.join(['## Encoder', '', *_encoder(config, data['encoder'])]),
        '\n'.join(['## Model', '', f'- words: {len(vocabulary)}, the four specials included',
                   f'- numbers in its checkpoint: {n_numbers}', *_options(config, 'model')]),
        '\n'.join(['## Training data', '', *_data(data, vocabulary, data_licence)]),
        '\n'.join(['## Training', '', *_training(config, best)]),
        '\n'.join(['## Scores', '', *_scores(config, best), '', 'Decoding, then and by default:',
                   '', *_options(config, 'decoding')]),
        LIMITS]
    return '\n\n'.join(section.rstrip('\n') for section in sections) + '\n'


def _encoder(config: Config, encoder: dict[str, Any]) -> Iterator[str]:
    """Yield the lines on the encoder and how to get its weights."""
    rows, columns = encoder['grid']
    yield (f'- {encoder["encoder"]}, layer `{_line(encoder["layer"])}`: {rows} x {columns} places '
           f'of {encoder["dim"]} numbers')
    yield f'- photos are brought to {encoder["size"]} pixels by `{encoder["resize"]}`'
    name = _line(encoder['weights'])
    published = WEIGHTS.get(encoder['encoder'])
    if name == 'random':
        yield f'- weights: random, drawn with seed {encoder["seed"]}; no file is needed'
    elif name == 'unknown':
        yield ('- weights: not recorded by the code that the model comes from; name its file: '
               '`--weights FILE`')
    else:
        yield (f'- weights: `{name}`, not inside; put it beside the archive, or name it: '
               '`--weights FILE`')
        yield f'- their SHA-256: {_line(encoder["weights_sha256"])}'
        if published and name == published.name:
            yield (f'- to be had by `python prepro.py --download {encoder["encoder"]} --to .`, '
                   f'which fetches {published.url}')
        else:
            yield '- to be had from who gave you this archive'
    if config.training.finetune_from:
        yield (f'- trained further, from `{_line(config.training.finetune_from)}` on: these layers '
               'are inside, those before them are in the file of the weights')


def _data(data: dict[str, Any], vocabulary: Vocabulary, licence: str | None) -> Iterator[str]:
    """Yield the lines on the data set."""
    yield f'- data set: {_line(data["dataset"] or "unknown")}'
    for split, counts in data['splits'].items():
        yield f'- {_line(split)}: {counts["images"]} images, {counts["captions"]} captions'
    if not data['splits'] and vocabulary.counts:
        yield f'- training captions: {vocabulary.counts[END]}'
    yield f'- words of a training caption: {data["max_length"]} at most'
    if data['records_sha256']:
        yield f'- SHA-256 of the list of images and captions: {_line(data["records_sha256"])}'
    yield '- licence of the data: ' + (_line(licence or '') or 'not stated; ask who trained it')
    yield '- none of the images, features or captions are in this archive'


def _training(config: Config, best: dict[str, Any]) -> Iterator[str]:
    """Yield the lines on the training."""
    if 'imported' in best:
        yield f'Elsewhere: imported from a checkpoint of kind {_line(best["imported"]["kind"])}.'
        return
    yield from _options(config, 'training')


def _scores(config: Config, best: dict[str, Any]) -> Iterator[str]:
    """Yield the scores of the best model on the dev images."""
    of = f'the model of step {best["step"]}'
    if 'epoch' in best:
        of += f', epoch {_line(best["epoch"])}'
    if not best['scores']:
        yield f'None: {of} was not validated.'
        return
    limit = config.training.validation_limit
    yield (f'On the {f"first {limit} " if limit else ""}dev images, which also chose it '
           f'(by {config.training.validation_metric}), {of} has:')
    yield ''
    yield '| score | value |'
    yield '| --- | --- |'
    for name, value in sorted(best['scores'].items()):
        yield f'| {_line(name)} | {value:.4f} |'


def _options(config: Config, section: str) -> Iterator[str]:
    """Yield a line for each option that matters of a section of the options."""
    always = ALWAYS[section]
    options, default = getattr(config, section), getattr(Config(), section)
    for name, value in dataclasses.asdict(options).items():
        if name not in NEVER and (name in always or value != getattr(default, name)):
            text = str(value).lower() if isinstance(value, bool) else value
            yield f'- `{name}`: {_line(text)}'


def _line(value: object) -> str:
    """Return a value in one line of Markdown, whatever it was given."""
    return ' '.join(str(value).replace('`', "'").split())
