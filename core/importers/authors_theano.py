"""Models of the paper's authors (kelvinxu/arctic-captions, Theano).

A model is three files: `model.npz`, `model.npz.pkl`, `dictionary.pkl`.

Where their model and ours write the same mathematics differently:
- Gates stand in the order i, f, o, g there, i, j, f, o here; the kernel's rows are [word, context,
  h] in both.
- The output layer has two biases there, of h and of the context, which are added; here it has one.
- Their dropout does not rescale while training, but halves the units afterwards. Ours rescales
  while training, so each matrix that follows a dropout is halved here, which gives the same numbers
  in both phases.
- Dropout on the gates (`use_dropout_lstm`) halves what goes into i, f and o after training: so do
  the columns here.
- Hard attention multiplies scores by `temperature` there, divides them here.
- Word 0 ends a sentence and word 1 is unknown; <NULL> and <START> are no words there, and get a
  probability of about 1e-13 here.
"""

import lzma
import math
import pathlib
import re
import struct
import zipfile
import zlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from core.common.aliases import PathLike
from core.common.errors import InputError, first_line
from core.importers import safe_pickle
from core.importers.imported import MOST_LENGTH, Imported, check_shapes, checked, renumber
from core.importers.safe_pickle import shown
from core.importers.word_tables import arrange

# What their training saves beside the parameters; zipped_params is a pickle, which is never read.
BESIDES = re.compile('history_errs|train_err|valid_err|test_err|zipped_params')
ENCODER = {'name': 'vgg19', 'layer': 'conv5_4', 'size': 224, 'resize': 'crop'}
# Options that shapes do not tell, with the values of the authors' evaluate_coco.py.
ASSUMED = {'prev2out': True, 'attn_type': 'deterministic', 'use_dropout': True,
           'use_dropout_lstm': False, 'alpha_c': 1.0, 'maxlen': 100}
MOST_LAYERS = 100
LARGEST, LONGEST = 2**31, 10**7  # bytes of an entry; length of one of its axes
# What zipfile and NumPy raise for damaged files, ciphers and methods they do not know, and sizes
# that are none.
BROKEN = (ValueError, EOFError, OSError, zipfile.BadZipFile, zlib.error, lzma.LZMAError,
          struct.error, RuntimeError, MemoryError, OverflowError, KeyError, IndexError, TypeError,
          SyntaxError)
GATES = [0, 3, 1, 2]  # i, f, o, g -> i, j, f, o


def read(source: PathLike, vocab: PathLike | None, options: PathLike | None = None) -> Imported:
    """Read a model of the authors' code.

    Args:
        source: path of the .npz file.
        vocab: path of dictionary.pkl, a dict of word -> index, or the same as JSON; None:
            dictionary.pkl beside the model.
        options: path of the pickled options, or the same as JSON; None: `source`.pkl (for
            ..._bestll.npz and ..._epoch_N.npz that of the model they belong to) where it exists,
            else what the shapes tell and `ASSUMED`.

    Returns:
        Imported.

    Raises:
        InputError: a file cannot be read, the model has a part that ours has not, or entries are
            missing, surplus or of a wrong shape, by name.
    """
    source = pathlib.Path(source)
    with _archive(source) as archive:
        settings, notes = _settings(source, archive, options)
        layout = _layout(settings)
        # Of what is not wanted the name is enough: it need not be read, and may be a pickle.
        shapes = {name: _shape(source, archive, name) if name in layout else (None,)
                  for name in archive.files}
        check_shapes(layout, shapes, source, BESIDES)
        entries = {name: _entry(source, archive, name) for name in layout}
    rows, words, more = _words(source, vocab, settings['n_words'])
    return Imported(_options(settings), words, settings['maxlen'] - 1,
                    _values(settings, entries, rows), dict(ENCODER), notes + more)


def _archive(source: PathLike) -> np.lib.npyio.NpzFile:
    try:
        archive = np.load(source, allow_pickle=False)
    except OSError as error:
        raise InputError(f'{source}: cannot be read ({error.strerror or error}); give the .npz '
                         'file of the model') from None
    except BROKEN as error:
        raise InputError(
            f'{source}: not a NumPy .npz file, or a damaged one ({first_line(error)})') from None
    if not isinstance(archive, np.lib.npyio.NpzFile):
        raise InputError(f'{source}: one array, not the .npz file of a model')
    return archive


def _shape(source: PathLike, archive: np.lib.npyio.NpzFile, name: str) -> tuple[int, ...]:
    """Return the shape of an entry, reading nothing but its header.

    Raises:
        InputError: it has no header, is not made of numbers, or is larger than any model's.
    """
    assert archive.zip is not None  # None once closed
    try:
        names = archive.zip.namelist()
        member = archive.zip.getinfo(name if name in names else f'{name}.npy')
        with archive.zip.open(member) as file:
            version = np.lib.format.read_magic(file)
            header = (np.lib.format.read_array_header_1_0 if version == (1, 0)
                      else np.lib.format.read_array_header_2_0)
            shape, _, dtype = header(file)
    except BROKEN as error:
        raise InputError(f'{source}: entry {name} cannot be read ({first_line(error)})') from None
    if dtype.kind not in 'fiu':
        raise InputError(f'{source}: entry {name} cannot be read, it is not made of numbers')
    if len(shape) > 2 or not all(1 <= size <= LONGEST for size in shape):
        raise InputError(f'{source}: entry {name} has {len(shape)} dimensions or a size that no '
                         'model has')
    size = math.prod(shape) * dtype.itemsize
    if size > min(LARGEST, member.file_size):
        raise InputError(f'{source}: entry {name} calls for {size} bytes, of which '
                         f'{member.file_size} are there; at most {LARGEST} are read')
    return shape


def _entry(source: PathLike, archive: np.lib.npyio.NpzFile, name: str) -> np.ndarray:
    try:
        value = archive[name]
    except BROKEN as error:
        raise InputError(f'{source}: entry {name} cannot be read ({first_line(error)})') from None
    return checked(value, name, source).reshape(value.shape)


# ---- options

def _settings(source: PathLike, archive: np.lib.npyio.NpzFile,
              path: PathLike | None) -> tuple[dict[str, Any], list[str]]:
    """Return the authors' options with the sizes: (dict, notes)."""
    names, shapes = set(archive.files), {}
    for name in ('Wemb', 'decoder_U', 'decoder_Wc_att'):
        if name not in names:
            raise InputError(f"{source}: not a model of the authors' code, it lacks the entry "
                             f"{name}")
        shapes[name] = _shape(source, archive, name)
        if len(shapes[name]) != 2:
            raise InputError(f'{source}: entry {name} has the shape {list(shapes[name])}, not two '
                             'dimensions')
    told = {'n_words': shapes['Wemb'][0], 'dim_word': shapes['Wemb'][1],
            'dim': shapes['decoder_U'][0], 'ctx_dim': shapes['decoder_Wc_att'][0],
            'n_layers_att': _layers(names, r'decoder_W_att_(\d+)'),
            'n_layers_init': _layers(names, r'ff_init_(\d+)_W'),
            'n_layers_out': _layers(names, r'ff_logit_h(\d+)_W'),
            'n_layers_lstm': _layers(names, r'decoder_(\d+)_U'),
            'ctx2out': 'ff_logit_ctx_W' in names, 'selector': 'decoder_W_sel' in names,
            'lstm_encoder': 'encoder_W' in names}
    settings = {**ASSUMED, **told}
    path = pathlib.Path(path) if path else _beside(pathlib.Path(source))
    if path is None:
        assumed = ', '.join(f'{name}={value}' for name, value in ASSUMED.items())
        notes = [f'no options file: sizes and layers from the shapes, and {assumed} as in '
                 'evaluate_coco.py; if that is wrong, give them as JSON with --options']
    else:
        stored, notes = _read_options(path), []
        for name in [*settings, 'temperature', 'semi_sampling_p', 'alpha_entropy_c']:
            if stored.get(name) is not None:
                settings[name] = _typed(path, name, stored[name], settings.get(name, 1.0))
        absent = [f'{name}={ASSUMED[name]}' for name in ASSUMED if stored.get(name) is None]
        if absent:
            notes.append(f'{path.name} lacks options; assumed: {", ".join(absent)}')
    _refuse(source, settings)
    if settings['use_dropout_lstm']:
        notes.append('use_dropout_lstm: captions are the same, but further training has no dropout '
                     'on the gates')
    if settings['attn_type'] == 'stochastic':
        notes.append('hard attention: captions are the same, but further training follows the '
                     'paper (4.1), whose ' "reward and scales are not those of the authors' code")
    return settings, notes


def _layers(names: Iterable[str], pattern: str) -> int:
    return 1 + sum(re.fullmatch(pattern, name) is not None for name in names)


def _beside(source: pathlib.Path) -> pathlib.Path | None:
    """Return the options file that belongs to a model, or None."""
    stem = re.sub(r'_(bestll|epoch_\d+)\.npz$', '', source.name)
    for name in (f'{source.name}.pkl', f'{stem}.pkl', f'{stem}.npz.pkl'):
        if source.with_name(name).is_file():
            return source.with_name(name)
    return None


def _read_options(path: PathLike) -> dict[str, Any]:
    options = safe_pickle.load_any(path)
    if not isinstance(options, dict):
        raise InputError(f"{path}: holds {type(options).__name__}, not the dict of options of the "
                         "authors' code")
    return options


def _typed(path: PathLike, name: str, value: Any, like: Any) -> Any:
    """Return `value` in the type of `like`: pickles of Python 2 hold bytes, and 0 for False."""
    value = value.decode('latin1') if isinstance(value, bytes) else value
    wanted = {str: 'a text', bool: 'true or false', int: 'a whole number',
              float: 'a finite number'}[type(like)]
    number = isinstance(value, (int, float)) and abs(value) < 2**53
    if isinstance(like, str):
        fits = isinstance(value, str)
    elif isinstance(like, bool):
        fits = value in ('True', 'False') or number and value in (0, 1)
    else:
        fits = number and (isinstance(like, float) or value == int(value))
    if not fits:
        raise InputError(f'{path}: option {name} is {shown(value)}, not {wanted}')
    # bool('False') would be true
    return value in ('True', 1) if isinstance(like, bool) else type(like)(value)


def _refuse(source: PathLike, settings: dict[str, Any]) -> None:
    hard, layers = settings['attn_type'] == 'stochastic', [name for name in settings
                                                           if name.startswith('n_layers_')]
    odd = [f'{name}={settings[name]}' for name in layers if not 1 <= settings[name] <= MOST_LAYERS]
    for wrong, message in (
        (odd, f'{", ".join(odd)}: must be from 1 to {MOST_LAYERS}'),
        (settings['lstm_encoder'], 'lstm_encoder: an LSTM over the features is not part of our '
         'model'), (settings['n_layers_lstm'] > 1, f'n_layers_lstm={settings["n_layers_lstm"]}: '
                    'our decoder has one LSTM layer'),
        (settings['attn_type'] not in ('deterministic', 'stochastic'),
         f'attn_type={shown(settings["attn_type"])}: known are deterministic and stochastic'),
        (hard and not 0 < settings.get('temperature', 1.0) <= 100,
         f'temperature={settings.get("temperature")}: must be above 0 and at most 100'),
        (settings['maxlen'] < 2, f'maxlen={settings["maxlen"]}: leaves no caption'),
        (settings['maxlen'] > MOST_LENGTH, f'maxlen={settings["maxlen"]}: must be at most '
         f'{MOST_LENGTH}')):
        if wrong:
            raise InputError(f'{source}: cannot be imported; {message}')


def _options(settings: dict[str, Any]) -> dict[str, Any]:
    """Return the options of ModelConfig, a dict."""
    options = {'dim_embed': settings['dim_word'], 'dim_hidden': settings['dim'],
               'prev2out': settings['prev2out'], 'ctx2out': settings['ctx2out'],
               'alpha_c': settings['alpha_c'], 'selector': settings['selector'],
               'dropout': settings['use_dropout'], 'batch_norm': False,
               'initial_layers': settings['n_layers_init'], 'attention_activation': 'tanh',
               'attention_layers': settings['n_layers_att'], 'attention_bias': 'features',
               'score_bias': True, 'forget_bias': 0.0, 'first_word': 'zero',
               'output_layers': settings['n_layers_out'], 'initializer': 'authors',
               'regularizer_target': 'one', 'regularizer_reduction': 'locations'}
    if settings['attn_type'] == 'stochastic':
        options |= {
            'attention': 'hard', 'lambda_e': settings.get('alpha_entropy_c', 0.002),
            'semi_sampling_p': settings.get('semi_sampling_p', 0.5),
            'temperature': 1.0 / settings.get('temperature', 1.0),
        }
    return options


# ---- parameters

def _layout(settings: dict[str, Any]) -> dict[str, tuple[int, ...]]:
    """Return the shape of every entry that a model of these options has, by name."""
    n_words, m, h, d = (settings[name] for name in ('n_words', 'dim_word', 'dim', 'ctx_dim'))
    matrices = {'ff_state': (d, h), 'ff_memory': (d, h), 'ff_logit_lstm': (h, m),
                'ff_logit': (m, n_words)}
    matrices |= {f'ff_init_{layer}': (d, d) for layer in range(1, settings['n_layers_init'])}
    matrices |= {f'ff_logit_h{layer}': (m, m) for layer in range(1, settings['n_layers_out'])}
    if settings['ctx2out']:
        matrices['ff_logit_ctx'] = (d, m)
    layout = {'Wemb': (n_words, m), 'decoder_W': (m, 4 * h), 'decoder_U': (h, 4 * h),
              'decoder_b': (4 * h,), 'decoder_Wc': (d, 4 * h), 'decoder_Wc_att': (d, d),
              'decoder_Wd_att': (h, d), 'decoder_b_att': (d,), 'decoder_U_att': (d, 1),
              'decoder_c_tt': (1,)}
    for name, shape in matrices.items():
        layout |= {f'{name}_W': shape, f'{name}_b': shape[1:]}
    for layer in range(1, settings['n_layers_att']):
        layout |= {f'decoder_W_att_{layer}': (d, d), f'decoder_b_att_{layer}': (d,)}
    if settings['selector']:
        layout |= {'decoder_W_sel': (h, 1), 'decoder_b_sel': ()}
    return layout


def _values(settings: dict[str, Any], p: Mapping[str, np.ndarray],
            rows: Sequence[int | None]) -> dict[str, np.ndarray]:
    """Return our variables by name, from their entries `p`.

    `rows` lists their number of each of our words, as `renumber` takes it.
    """
    half = np.float32(0.5 if settings['use_dropout'] else 1.0)
    extra = range(1, settings['n_layers_init'])
    after = {layer: half if layer > 1 else np.float32(1.0) for layer in extra}
    values = {'word_embedding/w': p['Wemb']}
    for layer in extra:
        values[f'initial_lstm/w_{layer}'] = p[f'ff_init_{layer}_W'] * after[layer]
        values[f'initial_lstm/b_{layer}'] = p[f'ff_init_{layer}_b']
    last = half if extra else np.float32(1.0)
    for ours, theirs in (('h', 'ff_state'), ('c', 'ff_memory')):
        values[f'initial_lstm/w_{ours}'] = p[f'{theirs}_W'] * last
        values[f'initial_lstm/b_{ours}'] = p[f'{theirs}_b']

    values['project_features/w'] = p['decoder_Wc_att']
    values['project_features/b'] = p['decoder_b_att']
    for layer in range(1, settings['n_layers_att']):
        values[f'project_features/w_{layer}'] = p[f'decoder_W_att_{layer}']
        values[f'project_features/b_{layer}'] = p[f'decoder_b_att_{layer}']
    values['attention_layer/w'] = p['decoder_Wd_att']
    values['attention_layer/w_att'] = p['decoder_U_att']
    values['attention_layer/b_att'] = p['decoder_c_tt']
    if settings['selector']:
        values['selector/w'] = p['decoder_W_sel']
        values['selector/b'] = p['decoder_b_sel'].reshape(1)

    kernel = np.concatenate([p['decoder_W'], p['decoder_Wc'], p['decoder_U']])
    values['lstm/basic_lstm_cell/kernel'] = _gates(kernel, settings)
    values['lstm/basic_lstm_cell/bias'] = _gates(p['decoder_b'], settings)

    values['logits/w_h'] = p['ff_logit_lstm_W'] * half
    values['logits/b_h'] = p['ff_logit_lstm_b']
    if settings['ctx2out']:
        values['logits/w_ctx2out'] = p['ff_logit_ctx_W']
        values['logits/b_h'] = values['logits/b_h'] + p['ff_logit_ctx_b']
    for layer in range(1, settings['n_layers_out']):
        values[f'logits/w_{layer}'] = p[f'ff_logit_h{layer}_W'] * half
        values[f'logits/b_{layer}'] = p[f'ff_logit_h{layer}_b']
    values['logits/w_out'] = p['ff_logit_W'] * half
    values['logits/b_out'] = p['ff_logit_b']
    renumber(values, rows)
    return values


def _gates(x: np.ndarray, settings: dict[str, Any]) -> np.ndarray:
    """Reorder the last axis from the gates i, f, o, g to i, j, f, o."""
    parts = np.split(x, 4, axis=-1)
    if settings['use_dropout_lstm']:
        parts = [part * np.float32(0.5) for part in parts[:3]] + parts[3:]
    return np.concatenate([parts[gate] for gate in GATES], axis=-1)


# ---- words

def _words(source: pathlib.Path, vocab: PathLike | None,
           n_words: int) -> tuple[list[int | None], list[str], list[str]]:
    """Return (their number of each of our words, ordinary words, notes), in our order."""
    path = pathlib.Path(vocab) if vocab else source.with_name('dictionary.pkl')
    if not vocab and not path.is_file():
        raise InputError(f'{source}: no dictionary.pkl beside it; name it with --vocab')
    dictionary = safe_pickle.load_any(path)
    if not isinstance(dictionary, dict):
        raise InputError(f'{path}: holds {type(dictionary).__name__}, not a dict of word -> index')
    known: dict[int, str] = {}
    for word, index in dictionary.items():
        whole = isinstance(index, int) or isinstance(index, float) and index.is_integer()
        if isinstance(index, bool) or not whole:
            raise InputError(f'{path}: the word {shown(word)} has the index {shown(index)}, not a '
                             'whole number')
        word = word.decode('utf8', 'replace') if isinstance(word, bytes) else word
        index = int(index)
        if not isinstance(word, str):
            raise InputError(f'{path}: {shown(word)} is not a word, but the number {shown(index)} '
                             'belongs to it')
        if not 2 <= index < n_words:  # <eos> and UNK, and rarer words than the model knows
            continue
        if index in known:
            raise InputError(f'{path}: the words {shown(known[index])} and {shown(word)} have the '
                             f'same index {index}')
        known[index] = word
    if not known:
        raise InputError(f'{path}: no word with an index from 2 to {n_words - 1}; give the '
                         'dictionary.pkl that the model was trained with')
    words, notes = arrange(known, range(2, n_words))
    return [None, None, 0, 1, *range(2, n_words)], words, notes
