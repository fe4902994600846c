"""Published models as sets of option values: `--preset tf2`.

A preset does nothing that `--set` could not.

| preset | source |
| --- | --- |
| tf1 | the TF1 tutorial code that this project descends from; the defaults |
| tf2 | TensorFlow's tutorial "Image captioning with visual attention" (InceptionV3 and GRU) |
| paper-DATASET | arXiv 1502.03044, section 4, and the authors' code; flickr8k, flickr30k or coco |
| paper | the same for the dataset of the data directory; coco where it is none of the three |
| paper[-DATASET]-hard | with hard attention |
"""

from collections.abc import Mapping

from core.common.aliases import Json
from core.common.errors import InputError
from core.common.suggestions import nearest_or_all
from core.config.config import SECTIONS, Config
from core.config.options import Value

Sections = dict[str, dict[str, Value]]  # of Config; 'prepro' has options of prepro.py

_TF1: Sections = {
    'prepro': {'encoder': 'vgg19', 'layer': 'conv5_4', 'image_size': 224, 'resize': 'squash',
               'max_length': 15}}
_TF2: Sections = {
    'prepro': {'encoder': 'inception_v3', 'layer': 'mixed10', 'image_size': 299,
               'resize': 'squash', 'vocab_size': 5000, 'max_length': 50},
    'model': {'dim_embed': 256, 'dim_hidden': 512, 'batch_norm': False, 'feature_layer': 256,
              'initial_state': 'zero', 'attention_activation': 'tanh', 'attention_size': 512,
              'attention_bias': 'both', 'score_bias': True, 'cell': 'gru', 'carry_state': False,
              'cell_input': 'context_word', 'selector': False, 'prev2out': False,
              'ctx2out': False, 'output_size': 512, 'output_activation': 'linear',
              'dropout': False, 'alpha_c': 0.0, 'initializer': 'keras'},
    'training': {'learning_rate': 1e-3, 'update_rule': 'adam', 'clip_norm': 0.0,
                 'batch_size': 64}}
_PAPER: Sections = {
    'prepro': {'encoder': 'vgg19', 'layer': 'conv5_4', 'image_size': 224, 'resize': 'crop',
               'vocab_size': 10000, 'tokens': 'raw',  # the authors' code splits at blanks
               'max_length': 99},  # the authors' maxlen is 100, the end included
    'model': {
        'dim_embed': 512, 'batch_norm': False, 'initial_layers': 2, 'attention_activation': 'tanh',
        'attention_layers': 2, 'attention_bias': 'features', 'score_bias': True, 'forget_bias': 0.0,
        'first_word': 'zero', 'alpha_c': 1.0, 'regularizer_target': 'one', 'initializer': 'authors',
    },
    'training': {'batch_size': 64, 'batch_by': 'one_length', 'clip_norm': 0.0},
}
# 4.3: RMSProp for Flickr8k, Adam for the others. LSTM sizes: 1800 is the authors' for COCO; for
# Flickr they published none, 1000 is the default of their training function. Rates: their Adam has
# .0002 built in (and corrects its bias in a way of its own); their RMSProp has .0001 and a momentum
# of .9, which together move ten times as far as ours do.
_DATASETS: dict[str, Sections] = {
    'flickr8k': {'model': {'dim_hidden': 1000},
                 'training': {'update_rule': 'rmsprop', 'learning_rate': 1e-3}},
    'flickr30k': {'model': {'dim_hidden': 1000},
                  'training': {'update_rule': 'adam', 'learning_rate': 2e-4}},
    'coco': {'model': {'dim_hidden': 1800},
             'training': {'update_rule': 'adam', 'learning_rate': 2e-4}}}
# The authors' code: lambda_e .002, rewards divided by 10, half of the captions with the expected
# context.
_HARD: Sections = {'model': {'attention': 'hard', 'lambda_r': 0.1, 'lambda_e': 0.002,
                             'semi_sampling_p': 0.5}}


def names() -> list[str]:
    """Return all names that `config` takes."""
    papers = ['paper', *(f'paper-{dataset}' for dataset in _DATASETS)]
    return ['tf1', 'tf2', *papers, *(f'{name}-hard' for name in papers)]


def config(name: str, dataset: str | None = None) -> Config:
    """Return the Config of a preset.

    Args:
        name: one of `names()`.
        dataset: of the data directory, as its manifest says, such as 'flickr8k' or 'coco2014';
            decides for 'paper'.

    Raises:
        InputError: no such preset.
    """
    return Config.from_dict({section: _sections(name, dataset).get(section, {})
                             for section in SECTIONS}, where=f'preset {name}')


def prepro(name: str) -> dict[str, Value]:
    """Return prepro.py's options for a preset, as a dict.

    Raises:
        InputError: no such preset.
    """
    return dict(_sections(name, None).get('prepro', {}))


def _sections(name: str, dataset: str | None) -> Sections:
    """Return the options of a preset; arguments and errors as of `config`."""
    if name not in names():
        raise InputError(f'there is no preset {name!r}{nearest_or_all(name, names())}')
    if name in ('tf1', 'tf2'):
        return {'tf1': _TF1, 'tf2': _TF2}[name]
    _, dataset, hard = (resolve(name, dataset) + '-').split('-')[:3]
    return _merged(_PAPER, _DATASETS[dataset], _HARD if hard else {})


def resolve(name: str, dataset: str | None) -> str:
    """Return the name with its dataset: 'paper-hard' on 'flickr8k' is 'paper-flickr8k-hard'.

    The dataset is COCO where none is known.
    """
    if not name.startswith('paper'):
        return name
    base, hard, _ = name.partition('-hard')
    wanted = base.removeprefix('paper').removeprefix('-') or (dataset or '')
    return f'paper-{next((known for known in _DATASETS if wanted.startswith(known)), "coco")}{hard}'


def notes(name: str, dataset: str | None, encoder: Mapping[str, Json],
          tokens: str = 'words') -> list[str]:
    """Return the lines that `train.py --preset` prints: on the preset, on data of another kind.

    Args:
        name, dataset: as of `config`.
        encoder: dict of the EncoderSpec of the features.
        tokens: as `DataDir.tokens`.
    """
    lines = [f'preset {resolve(name, dataset)}']
    wanted = {key.replace('image_size', 'size'): value for key, value in prepro(name).items()
              if key in ('encoder', 'layer', 'image_size', 'resize')}
    other = [f'{key} {encoder[key]}, not {value}' for key, value in wanted.items()
             if encoder[key] != value]
    if other:
        lines.append(f"note: these features are not the preset's: {'; '.join(other)}")
    if tokens != (usual := prepro(name).get('tokens', 'words')):
        lines.append(f"note: these captions are not cut as the preset's: tokens {tokens}, not "
                     f'{usual}')
    return lines


def _merged(*parts: Sections) -> Sections:
    """Return the options of all parts; of an option in several parts, the last value."""
    merged: Sections = {}
    for part in parts:
        for section, values in part.items():
            merged[section] = {**merged.get(section, {}), **values}
    return merged
