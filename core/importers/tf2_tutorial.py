"""Checkpoints of TensorFlow's tutorial "Image captioning with visual attention".

Its encoder is InceptionV3, its decoder a GRU.

`tf.train.Checkpoint(encoder=..., decoder=..., optimizer=...)` describes its objects in a graph of
its own, whose edges are the attributes of the objects: encoder -> fc -> kernel. A variable is
stored once, under one of the paths that lead to it. With Keras 2 that is its place in the model,
with Keras 3 often one in the optimizer, so the graph is walked instead of guessing names.

The tutorial calls its GRU without an initial state: every step starts from zeros, and the state of
one step reaches the next through the attention alone. That is `carry_state=false`; copies of the
tutorial that give `initial_state=hidden` need `carry_state=true`.

Its loss is the sum over steps of the mean over the batch of the masked cross entropy, as ours
without regulariser. What it prints is that divided by the columns of the padded captions, which
count padding and <start>.
"""

import json
import pathlib
import re
from collections.abc import Mapping
from typing import Any

from core.common.aliases import Json, PathLike
from core.common.errors import InputError, first_line
from core.importers.imported import (
    CheckpointReader,
    Imported,
    check_shapes,
    open_checkpoint,
    renumber,
    tensors,
)
from core.importers.safe_pickle import shown
from core.importers.word_tables import arrange
from core.runtime.backend import tf
from core.training.checkpoints import UNREADABLE

ENCODER = {'name': 'inception_v3', 'layer': 'mixed10', 'size': 299, 'resize': 'squash'}
MAX_LENGTH = 50  # of the tutorial's captions on COCO; the checkpoint does not tell
# What the words of `core.data.vocabulary.SPECIALS` are called, the likelier name first; padding is
# always number 0.
NAMES = {
    '<NULL>': ('<pad>', '', '<PAD>', '[PAD]'),
    '<START>': ('<start>', 'startseq', '[START]', '<START>', '<sos>', '<s>'),
    '<END>': ('<end>', 'endseq', '[END]', '<END>', '<eos>', '</s>'),
    '<UNK>': ('<unk>', '[UNK]', '<UNK>', 'UNK'),
}
# Place in the object graph -> our variable and its shape.
LAYOUT = {
    'encoder/fc/kernel': ('feature_layer/w', 'DK'),
    'encoder/fc/bias': ('feature_layer/b', 'K'),
    'decoder/attention/W1/kernel': ('project_features/w', 'KA'),
    'decoder/attention/W1/bias': ('project_features/b', 'A'),
    'decoder/attention/W2/kernel': ('attention_layer/w', 'HA'),
    'decoder/attention/W2/bias': ('attention_layer/b', 'A'),
    'decoder/attention/V/kernel': ('attention_layer/w_att', 'A1'),
    'decoder/attention/V/bias': ('attention_layer/b_att', '1'),
    'decoder/embedding/embeddings': ('word_embedding/w', 'VM'),
    'decoder/gru/cell/kernel': ('gru/kernel', 'XG'),
    'decoder/gru/cell/recurrent_kernel': ('gru/recurrent_kernel', 'HG'),
    'decoder/gru/cell/bias': ('gru/bias', '2G'),
    'decoder/fc1/kernel': ('logits/w_h', 'HO'),
    'decoder/fc1/bias': ('logits/b_h', 'O'),
    'decoder/fc2/kernel': ('logits/w_out', 'OV'),
    'decoder/fc2/bias': ('logits/b_out', 'V'),
}


def read(source: PathLike, vocab: PathLike) -> Imported:
    """Read a checkpoint of the tutorial.

    Args:
        source: the checkpoint's path without .index, or the directory of a CheckpointManager (its
            latest one).
        vocab: path of the vocabulary: `tokenizer.to_json()`, its word_index or index_word as JSON,
            the list of a TextVectorization layer's `get_vocabulary()` as JSON, or that list as
            text, one word a line.

    Returns:
        Imported.

    Raises:
        InputError: a file cannot be read, or variables are missing, surplus or of a wrong shape, by
            name.
    """
    source = _prefix(pathlib.Path(source))
    reader = open_checkpoint(source)
    shapes = reader.get_variable_to_shape_map()
    places = {place: key for place, key in _places(source, reader).items() if key in shapes}
    place_shapes = {place: tuple(shapes[key]) for place, key in places.items()}
    sizes = _sizes(source, place_shapes)
    expected = {place: tuple(int(size) if size.isdigit() else sizes[size] for size in shape)
                for place, (_, shape) in LAYOUT.items()}
    check_shapes(expected, place_shapes, source)
    stored = tensors(reader, [places[place] for place in LAYOUT], source)
    values = {name: stored[places[place]] for place, (name, _) in LAYOUT.items()}

    rows, words, notes = _words(vocab, sizes['V'])
    renumber(values, rows)
    notes.append(f'captions of at most {MAX_LENGTH} words: the checkpoint does not tell the length')
    notes.append('carry_state=false as in the tutorial, whose GRU starts every step from zeros; '
                 'set carry_state=true if your copy calls it with initial_state')
    return Imported(_options(sizes), words, MAX_LENGTH, values, dict(ENCODER), notes)


def _prefix(source: pathlib.Path) -> pathlib.Path:
    if source.is_dir():
        latest = tf.train.latest_checkpoint(str(source))
        if latest is None:
            raise InputError(f'{source}: no checkpoint in this directory; give the path of its '
                             '.index file without the ending')
        return pathlib.Path(latest)
    return source.with_suffix('') if source.suffix == '.index' else source


# ---- variables

def _places(source: PathLike, reader: CheckpointReader) -> dict[str, str]:
    """Return the key in the checkpoint of every parameter, by its place in the object graph.

    Parameters are those of encoder and decoder.

    Raises:
        InputError: no object graph, a damaged one, or one without encoder and decoder.
    """
    from google.protobuf.message import DecodeError

    try:
        return _walked(source, reader)
    except (*UNREADABLE, DecodeError, KeyError, TypeError) as error:
        raise InputError(f'{source}: its object graph cannot be read, the checkpoint is damaged '
                         f'({first_line(error)})') from None


def _walked(source: PathLike, reader: CheckpointReader) -> dict[str, str]:
    """Return what `_places` does, of an undamaged checkpoint."""
    from tensorflow.core.protobuf.trackable_object_graph_pb2 import TrackableObjectGraph

    if not reader.has_tensor('_CHECKPOINTABLE_OBJECT_GRAPH'):
        raise InputError(f'{source}: not a checkpoint of tf.train.Checkpoint (no object graph in '
                         'it)')
    graph = TrackableObjectGraph.FromString(reader.get_tensor('_CHECKPOINTABLE_OBJECT_GRAPH'))
    children = {child.local_name: child.node_id for child in graph.nodes[0].children}
    for name in ('encoder', 'decoder'):
        if name not in children:
            raise InputError(f'{source}: not a checkpoint of the tutorial, it has no object '
                             f'{name!r} but {", ".join(sorted(children)) or "nothing"}')
    places, seen = {}, set()
    queue = [(name, children[name]) for name in ('encoder', 'decoder')]
    for place, node in queue:  # breadth first, so that each object gets its shortest place
        if node in seen:
            continue
        seen.add(node)
        for attribute in graph.nodes[node].attributes:
            places[place] = attribute.checkpoint_key
        # Keras lists layers and variables once more under names with an underscore or a dash: those
        # come last.
        for child in sorted(graph.nodes[node].children, key=_is_listing):
            if child.local_name not in ('optimizer', '_optimizer'):  # a compiled model's
                queue.append((f'{place}/{_plain(child.local_name)}', child.node_id))
    return places


def _is_listing(child: Any) -> bool:
    return child.local_name.startswith('_') or '-' in child.local_name


def _plain(name: str) -> str:
    """Return an attribute's name without the underscore of Keras 3.

    Keras 3 keeps `kernel` and `embeddings` in attributes `_kernel` and `_embeddings`.
    """
    return name[1:] if name in ('_kernel', '_embeddings') else name


def _sizes(source: PathLike, shapes: Mapping[str, Any]) -> dict[str, Any]:
    """Return the size of each letter of `LAYOUT`, read at one place each.

    Raises:
        InputError: the cell is not that of the tutorial.
    """
    if len(shapes.get('decoder/gru/cell/bias', (2, 0))) == 1:
        raise InputError(f'{source}: decoder/gru/cell/bias has one dimension: a GRU with '
                         'reset_after=False, which is not the cell of the tutorial')
    sizes = {}
    for letter, place, axis in (
        ('D', 'encoder/fc/kernel', 0), ('K', 'encoder/fc/kernel', 1),
        ('A', 'decoder/attention/W1/kernel', 1), ('H', 'decoder/attention/W2/kernel', 0),
        ('V', 'decoder/embedding/embeddings', 0), ('M', 'decoder/embedding/embeddings', 1),
        ('O', 'decoder/fc1/kernel', 1)):
        shape = shapes.get(place, ())
        # What is not to be had admits any size: `check_shapes` names the place.
        sizes[letter] = shape[axis] if axis < len(shape) else None
    K, M = sizes['K'], sizes['M']
    return {**sizes, 'X': None if K is None or M is None else K + M, 'G': sizes['H']
            and 3 * sizes['H']}


def _options(sizes: Mapping[str, Any]) -> dict[str, Any]:
    """Return the options of ModelConfig, a dict."""
    return {'dim_embed': sizes['M'], 'dim_hidden': sizes['H'], 'prev2out': False, 'ctx2out': False,
            'alpha_c': 0.0, 'selector': False, 'dropout': False, 'batch_norm': False,
            'feature_layer': sizes['K'], 'initial_state': 'zero', 'attention_activation': 'tanh',
            'attention_size': sizes['A'], 'attention_bias': 'both', 'score_bias': True,
            'cell': 'gru', 'cell_input': 'context_word', 'carry_state': False,
            'output_size': sizes['O'], 'output_activation': 'linear', 'initializer': 'keras'}


# ---- words

def _words(path: PathLike, n_rows: int) -> tuple[list[int | None], list[str], list[str]]:
    """Return (the row of each of our words, ordinary words, notes), in our order."""
    if path is None:
        raise InputError('a checkpoint of the tutorial has no words in it: save '
                         'tokenizer.to_json() to a file and name it with --vocab')
    known = _numbered(pathlib.Path(path), n_rows)
    special = {}
    for ours, names in NAMES.items():
        numbers = {word: number for number, word in known.items() if word in names}
        if ours == '<NULL>':
            numbers = {word: number for word, number in numbers.items() if number == 0}
        special[ours] = next((numbers[name] for name in names if name in numbers), None)
    if 0 not in known:  # a Keras Tokenizer numbers its words from 1 and leaves 0 to padding
        special['<NULL>'] = 0
    for ours in ('<START>', '<END>'):
        if special[ours] is None:
            raise InputError(f'{path}: none of its words is {ours}; known names are '
                             f'{", ".join(NAMES[ours])}')
    ordinary = [number for number in range(n_rows) if number not in special.values()]
    if not any(number in known for number in ordinary):
        raise InputError(f'{path}: has no ordinary words; give the vocabulary that the model was '
                         'trained with')
    words, notes = arrange(known, ordinary)
    if special['<UNK>'] is None:
        notes.append('the vocabulary has no word for unknown ones; <UNK> gets a probability of '
                     'about 1e-13')
    return [*special.values(), *ordinary], words, notes


def _numbered(path: pathlib.Path, n_rows: int) -> dict[int, str]:
    """Return the words of the rows that have one, by number."""
    try:
        text = path.read_text(encoding='utf-8-sig')
    except OSError as error:
        raise InputError(f'{path}: cannot be read ({error.strerror}); save tokenizer.to_json() to '
                         'a file') from None
    except UnicodeDecodeError:
        raise InputError(
            f'{path}: neither JSON nor text; save tokenizer.to_json() to a file') from None
    content = _parsed(text)
    if isinstance(content, dict) and isinstance(content.get('config'), dict):
        return _tokenizer(path, content['config'], n_rows)
    if isinstance(content, dict):
        return _dictionary(path, content, n_rows)
    if content is None:
        content = text.removesuffix('\n').split('\n')
        content = [line.removesuffix('\r') for line in content]
    if not isinstance(content, list) or not all(isinstance(word, str) for word in content):
        raise InputError(f'{path}: neither a tokenizer, a dict of word -> number nor a list of '
                         'words')
    return _listed(path, content, n_rows)


def _parsed(text: str) -> Json:
    """Return the JSON in `text`, or None; unpack JSON inside a JSON string."""
    try:
        content = json.loads(text)
        return json.loads(content) if isinstance(content, str) else content
    except (ValueError, RecursionError):
        return None


def _tokenizer(path: PathLike, config: Json, n_rows: int) -> dict[int, str]:
    """Return the words in a `Tokenizer.to_json()`, by number.

    Words from `num_words` on were never shown to the model.
    """
    index = config.get('word_index')
    index = _parsed(index) if isinstance(index, str) else index
    if not isinstance(index, dict):
        raise InputError(f'{path}: a tokenizer without word_index; save tokenizer.to_json() to a '
                         'file')
    limit = config.get('num_words')
    return _dictionary(path, index, min(n_rows, limit) if isinstance(limit, int) and limit > 0
                       else n_rows)


def _dictionary(path: PathLike, content: Json, limit: int) -> dict[int, str]:
    """Return the words below `limit` by number.

    The content is a dict of word -> number, or of number -> word as JSON has it.
    """
    if content and all(isinstance(word, str) and re.fullmatch('[0-9]{1,12}', number)
                       for number, word in content.items()):
        content = {word: int(number) for number, word in content.items()}
    known: dict[int, str] = {}
    for word, number in content.items():
        if isinstance(number, bool) or not isinstance(number, int) or number < 0:
            raise InputError(f'{path}: the word {shown(word)} has the number {shown(number)}, not '
                             'a whole number')
        if number >= limit:
            continue
        if number in known:
            raise InputError(f'{path}: the words {shown(known[number])} and {shown(word)} have the '
                             f'same number {number}')
        known[number] = word
    return known


def _listed(path: PathLike, words: Json, n_rows: int) -> dict[int, str]:
    """Return the words of a `get_vocabulary()` by number: '' for padding, '[UNK]', then words.

    The padding at the front may be missing.
    """
    first = 1 if words and words[0] in NAMES['<UNK>'] else 0
    if not first and (not words or words[0] not in NAMES['<NULL>']):
        raise InputError(f"{path}: a list of words must begin as get_vocabulary() does, with '' "
                         "for padding and '[UNK]'")
    if first + len(words) > n_rows:
        raise InputError(f'{path}: {len(words)} words, but the model has {n_rows} rows; give the '
                         'vocabulary that it was trained with')
    return {first + number: word for number, word in enumerate(words)}
