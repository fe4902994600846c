"""Checkpoints of the TF1 code that this project descends from: in (`read`) and out (`export`).

Its names and shapes are those of our default model. What differs between versions of TensorFlow is
the name of the LSTM's variables; rows [word, context, h] and columns i, j, f, o of the kernel are
the same in all of them:

| TensorFlow | cell | variables, inside scope lstm, rnn or RNN |
| --- | --- | --- |
| to 0.12 | BasicLSTMCell | BasicLSTMCell/Linear/{Matrix,Bias} |
| to 0.12 | LSTMCell | LSTMCell/{W_0,B} |
| 1.0, 1.1 | BasicLSTMCell | basic_lstm_cell/{weights,biases} |
| 1.0, 1.1 | LSTMCell | lstm_cell/{weights,biases} |
| from 1.2 | BasicLSTMCell, LSTMCell | basic_lstm_cell/{kernel,bias}, lstm_cell/{kernel,bias} |
"""

import collections
import json
import os
import pathlib
import re
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from core.common.aliases import PathLike, Say
from core.common.errors import InputError
from core.common.files import replacing, write_json
from core.config.model import ModelConfig
from core.data.vocabulary import SPECIALS
from core.importers import imported, safe_pickle
from core.importers.imported import Imported
from core.runtime.backend import tf, tf1
from core.runtime.devices import CPU, session_config

if TYPE_CHECKING:
    from core.runs.run_dir import Run

KERNEL, BIAS = 'lstm/basic_lstm_cell/kernel', 'lstm/basic_lstm_cell/bias'
_NORM = 'conv_featuresbatch_norm/'
# Letters: D features of a location, H hidden units, M numbers of a word vector, V words, 1.
SHAPES = {f'{_NORM}beta': 'D', f'{_NORM}gamma': 'D', f'{_NORM}moving_mean': 'D',
          f'{_NORM}moving_variance': 'D', 'initial_lstm/w_h': 'DH', 'initial_lstm/b_h': 'H',
          'initial_lstm/w_c': 'DH', 'initial_lstm/b_c': 'H', 'word_embedding/w': 'VM',
          'project_features/w': 'DD', 'attention_layer/w': 'HD', 'attention_layer/b': 'D',
          'attention_layer/w_att': 'D1', 'selector/w': 'H1', 'selector/b': '1', 'logits/w_h': 'HM',
          'logits/b_h': 'M', 'logits/w_ctx2out': 'DM', 'logits/w_out': 'MV', 'logits/b_out': 'V'}

_CELL = re.compile(
    r'(?:[^/]+/)*(?:lstm|LSTM|rnn|RNN|basic_lstm_cell|lstm_cell|BasicLSTMCell|LSTMCell)/'
    r'(?:Linear/)?(?:(?P<kernel>kernel|weights|Matrix|W_0)|(?P<bias>bias|biases|Bias|B))')
_NORMS = re.compile(
    r'(?:[^/]+/)*(?:\w*batch_norm|\w*BatchNorm|\w*batch_normalization)/'
    r'(beta|gamma|moving_mean|moving_variance)')


def read(source: str, vocab: PathLike) -> Imported:
    """Read a checkpoint of the TF1 code.

    Args:
        source: str, path of the checkpoint without endings.
        vocab: file of the dict word -> index, pickle or JSON.

    Returns:
        Imported; `prev2out` leaves no trace in the variables and has its default.

    Raises:
        InputError: not such a checkpoint, with the names of all variables that are missing, surplus
            or wrongly shaped; or a vocabulary that does not belong to it.
    """
    reader = imported.open_checkpoint(source)
    file_shapes = {name: tuple(shape)
                   for name, shape in sorted(reader.get_variable_to_shape_map().items())}
    theirs = _our_names(file_shapes, source)
    shapes = {ours: file_shapes[name] for ours, name in theirs.items()}
    options, sizes = _options(shapes)
    imported.check_shapes(_expected(options, sizes), shapes, source)
    values = imported.tensors(reader, [theirs[name] for name in _expected(options, sizes)], source)
    values = {name: values[theirs[name]] for name in _expected(options, sizes)}

    words, rows = _words(vocab)
    if len(words) + 3 + (rows[3] is not None) != sizes['V']:
        raise InputError(f'{vocab}: {len(words) + 3 + (rows[3] is not None)} words, but the model '
                         f'of {source} has {sizes["V"]}; give the vocabulary that it was trained '
                         'with')
    imported.renumber(values, rows)
    notes = ['prev2out cannot be seen from the variables; the default is true, as in the TF1 code: '
             '--set prev2out=false where the model was made without']
    if rows[3] is None:
        notes.append('the vocabulary has no <UNK>: an entry was added that is never written')
    if theirs[KERNEL] != KERNEL:
        notes.append(f'the cell is read from {theirs[KERNEL]}')
    encoder = {'name': 'vgg19', 'layer': 'conv5_4', 'size': 224, 'resize': 'squash'}
    return Imported(options, words, 15, values, encoder, notes)


def is_tf1(names: Iterable[str]) -> bool:
    """Return whether variables of these names look like the TF1 model's."""
    return len(set(names) & set(SHAPES)) >= len(SHAPES) // 4


def _our_names(shapes: Mapping[str, Sequence[int]], where: str) -> dict[str, str]:
    """Return the file's names by ours; a variable that we have no name for keeps its own."""
    ours: dict[str, str] = {}
    for name in shapes:
        cell, norm = _CELL.fullmatch(name), _NORMS.fullmatch(name)
        new = name
        if cell:
            new = KERNEL if cell['kernel'] else BIAS
        elif norm:
            new = _NORM + norm[1]
        if new in ours:
            raise InputError(f'{where}: both {ours[new]} and {name} would be {new}; a model of one '
                             'LSTM layer and one batch normalisation is read')
        ours[new] = name
    return ours


def _options(shapes: Mapping[str, Sequence[int]]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the options of ModelConfig and the sizes, as the variables show them.

    Sizes are a dict of letter -> int or None.
    """
    # By majority, so that one variable of a wrong shape is reported alone.
    votes: dict[str, collections.Counter] = collections.defaultdict(collections.Counter)
    for name, letters in SHAPES.items():
        if len(shapes.get(name, ())) == len(letters):
            for letter, size in zip(letters, shapes[name], strict=True):
                votes[letter][size] += 1
    for size in shapes.get(BIAS, ()):
        if size % 4 == 0:
            votes['H'][size // 4] += 1
    sizes = {letter: votes[letter].most_common(1)[0][0] if votes[letter] else None
             for letter in 'DHMV'}
    options = {
        'selector': any(name.startswith('selector/') for name in shapes),
        'ctx2out': 'logits/w_ctx2out' in shapes,
        'batch_norm': any(name.startswith(_NORM) for name in shapes),
        'dim_embed': sizes['M'], 'dim_hidden': sizes['H'],
    }
    return options, sizes


def _expected(options: Mapping[str, Any], sizes: Mapping[str, Any]) -> dict[str, tuple]:
    """Return the shapes of the TF1 model by name, None for an unknown size."""
    sizes = {**sizes, '1': 1}
    left_out = tuple(
        prefix for option, prefix in (('selector', 'selector/'), ('ctx2out', 'logits/w_ctx2out'),
                                      ('batch_norm', _NORM)) if not options[option])
    shapes = {name: tuple(sizes[letter] for letter in letters) for name, letters in SHAPES.items()
              if not name.startswith(left_out)}
    M, D, H = sizes['M'], sizes['D'], sizes['H']
    gates = H and 4 * H
    return {**shapes, KERNEL: (M + D + H if M and D and H else None, gates), BIAS: (gates,)}


def _words(vocab: PathLike) -> tuple[list[str], list[int | None]]:
    """Return the ordinary words in the order of their index, and `rows` for `renumber`."""
    numbers = safe_pickle.word_to_idx(vocab)
    for word in SPECIALS[:3]:
        if word not in numbers:
            raise InputError(
                f'{vocab}: lacks the word {word}; give the word_to_idx of the TF1 code')
    words = sorted((word for word in numbers if word not in SPECIALS), key=numbers.__getitem__)
    imported.check_words(words, vocab)
    return words, [numbers.get(word) for word in SPECIALS] + [numbers[word] for word in words]


# ---- out

WORDS = '-word_to_idx.json'
# The old code has these options too, or they play no part in decoding; all others must have their
# defaults.
FREE = {'dim_embed', 'dim_hidden', 'prev2out', 'ctx2out', 'alpha_c', 'selector', 'dropout',
        'dropout_rate', 'dropout_mask', 'attention', 'attention_size', 'output_size', 'initializer',
        'mask_padding', 'regularizer_target', 'regularizer_reduction', 'word_dropout',
        'label_smoothing', 'scheduled_sampling', 'lambda_r', 'lambda_e', 'semi_sampling_p',
        'n_samples', 'reward', 'baseline', 'self_critical', 'bleu_reward', 'draw_temperature',
        'sentence_baseline'}


def export(run: 'Run', prefix: PathLike, say: Say = print) -> None:
    """Write a run's best model as a checkpoint of the TF1 code.

    The TF1 code restores it with tf.train.Saver, from TensorFlow 0.12.

    PREFIX.index, PREFIX.data-..., PREFIX-word_to_idx.json, and the state file `checkpoint` where
    the directory has none. The TF1 code builds its own graph, so there is no .meta file; optimizer
    slots are not written either.

    Args:
        run: Run. prefix: path without endings. say: function that prints a line.

    Raises:
        InputError: the run's model is not that of the TF1 code, with the options in question; or
            the files exist.
    """
    prefix = pathlib.Path(prefix)
    place, name = prefix.parent, prefix.name
    _refuse(run)
    _refuse_place(prefix)
    with tf.Graph().as_default() as graph:
        model = run.make_model()
        shapes = {variable.op.name: tuple(variable.shape.as_list()) for variable in model.variables}
        imported.check_shapes(_expected(*_options(shapes)), shapes, run.path)
        saver = tf1.train.Saver(model.variables)
        with tf1.Session(graph=graph, config=session_config(CPU)) as session:
            run.restore(session, model)
            place.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(dir=place, prefix=f'.{name}.') as temporary:
                try:
                    saver.save(session, os.path.join(temporary, name), write_meta_graph=False,
                               write_state=False)
                except tf.errors.OpError as error:
                    raise InputError(f'{place}: cannot write a checkpoint '
                                     f'({str(error).splitlines()[0]})') from None
                write_json(os.path.join(temporary, name + WORDS), model.word_to_idx, indent=0)
                # Words, data, index: the index is what calls a checkpoint complete.
                for file in sorted(os.listdir(temporary)):
                    os.replace(os.path.join(temporary, file), place / file)
    if not (place / 'checkpoint').exists():
        with replacing(place / 'checkpoint') as state:
            quoted = json.dumps(name, ensure_ascii=False)
            state.write(f'model_checkpoint_path: {quoted}\nall_model_checkpoint_paths: {quoted}\n')
    options = run.config.model
    say(f'{prefix}: for CaptionGenerator(word_to_idx, dim_feature=[{model.L}, {model.D}], '
        f'dim_embed={model.M}, dim_hidden={model.H}, n_time_step={model.T}, '
        f'prev2out={options.prev2out}, ctx2out={options.ctx2out}, selector={options.selector}) of '
        f'the TF1 code; words: {prefix}{WORDS}')
    say('the TF1 code may also write <UNK>, which evaluate.py never does')


def _refuse_place(prefix: pathlib.Path) -> None:
    """Raise InputError if PREFIX is no name for new files."""
    if not prefix.name or prefix.is_dir():
        raise InputError(f'{prefix}: is a directory; add a name for the files, for example '
                         f'{prefix / "model"}')
    if prefix.parent.is_dir():
        for path in sorted(prefix.parent.iterdir()):
            if path.name.startswith(f'{prefix.name}.') or path.name == prefix.name + WORDS:
                raise InputError(f'{path}: exists already; choose another PREFIX')


def _refuse(run: 'Run') -> None:
    """Raise InputError if the decoder is not that of the TF1 code."""
    options, default = vars(run.config.model), ModelConfig()
    other = [f'{name}={_json(value)}' for name, value in options.items()
             if name not in FREE and value != getattr(default, name)]
    for name, same in (('attention_size', run.spec.dim), ('output_size', options['dim_embed'])):
        if options[name] not in (0, same):
            other.append(f'{name}={options[name]}')
    if run.finetuned:
        other.append(f'finetune_from={run.config.training.finetune_from}')
    if other:
        raise InputError(f'{run.path}: the TF1 code has no {", ".join(other)}; only runs with the '
                         'default of these options can be exported')


def _json(value: object) -> object:
    return str(value).lower() if isinstance(value, bool) else value
