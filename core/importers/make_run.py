"""Other people's trained models, brought into a RUN DIR that evaluate.py uses.

| kind | what it is | module |
| --- | --- | --- |
| tf1 | checkpoint of the TF1 code with `word_to_idx.pkl` | `tf1_tutorial`, which also exports |
| authors | `.npz` of the authors' Theano code, its options and dictionary | `authors_theano` |
| tf2 | checkpoint of TensorFlow's tutorial (Keras encoder and decoder) | `tf2_tutorial` |

`python -m core import` calls `make_run`.
"""

import dataclasses
import importlib
import os
import pathlib
import tempfile
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from core.common.aliases import PathLike, Say
from core.common.errors import InputError
from core.config.config import Config
from core.data import data_dir
from core.data.vocabulary import TOKENS, Vocabulary
from core.encoders.encoder import EncoderSpec, describe
from core.encoders.networks import assign
from core.importers.imported import MOST_LENGTH, check_shapes, open_checkpoint
from core.runs.make_model import make_model
from core.runs.run_dir import UNKNOWN
from core.runtime.backend import tf
from core.runtime.devices import CPU, session_config
from core.training.checkpoints import BestModel

if TYPE_CHECKING:
    from core.importers.imported import Imported

KINDS = {'tf1': 'tf1_tutorial', 'authors': 'authors_theano', 'tf2': 'tf2_tutorial'}


def make_run(source: PathLike, vocab: PathLike | None, out: PathLike, *, kind: str | None = None,
             options: PathLike | None = None, data: PathLike | None = None,
             encoder: Mapping[str, Any] | None = None, assignments: Iterable[str] = (),
             max_length: int | None = None, say: Say = print) -> None:
    """Make a new RUN DIR from a foreign model; it appears whole or not at all.

    Args:
        source: checkpoint (path without endings, one of its files, or its directory) or .npz file.
        vocab: the vocabulary file that belongs to it; None: for kind authors the dictionary.pkl
            beside it.
        out: the RUN DIR to make.
        kind: a name in `KINDS`; None: seen from `source`.
        options: the authors' options file, for kind authors.
        data: a DATA DIR whose features the model takes; None: `encoder` says what they are.
        encoder: dict of name, layer, size, resize; what is left out or None is the kind's usual
            one.
        assignments: texts name=value of options that the variables do not tell.
        max_length: words of a caption at most; None: the source's own.
        say: function that prints a line.

    Raises:
        InputError: anything that does not fit, by name; `out` exists.
    """
    out = pathlib.Path(out)
    if out.exists() or out.is_symlink():
        raise InputError(f'{out}: exists already; choose another --out')
    kind, source = detect(source, kind)
    if options and kind != 'authors':
        raise InputError(f'{source}: is of kind {kind}, which has no options file; leave --options '
                         'out')
    if vocab is None and kind != 'authors':
        raise InputError(f'{source}: is of kind {kind}; name its vocabulary with --vocab')
    arguments = (options,) if kind == 'authors' else ()
    imported = importlib.import_module(f'core.importers.{KINDS[kind]}').read(
        source, vocab, *arguments)
    max_length = imported.max_length if max_length is None else max_length
    if max_length < 1:
        raise InputError(f'--max-length must be at least 1, not {max_length}')
    if max_length > MOST_LENGTH:
        raise InputError(f'--max-length must be at most {MOST_LENGTH}, not {max_length}')
    config = Config.from_dict({'model': imported.options}, where=str(source)).override(assignments)
    if config.training != Config().training:
        raise InputError(f'--set {" ".join(assignments)}: an imported run takes options of the '
                         'model and of decoding, none of training')
    features = None
    if data is None:
        spec = _unknown_weights(imported.encoder, encoder or {})
    else:
        features = data_dir.DataDir(data)
        spec = EncoderSpec.from_dict(features.encoder)
    _check_features(imported, spec, source, features)
    vocabulary = Vocabulary(imported.words)
    entry = {'path': None, 'encoder': spec.to_dict(), 'max_length': max_length,
             'tokens': _tokens(kind, imported.words), 'dataset': 'imported',
             'records_sha256': None}

    with tf.Graph().as_default() as graph:
        model = make_model(config, vocabulary, spec, max_length)
        needed = {variable.op.name: tuple(variable.shape.as_list()) for variable in model.variables}
        check_shapes(needed, {name: value.shape for name, value in imported.values.items()}, source)
        with tf.compat.v1.Session(graph=graph, config=session_config(CPU)) as session:
            values = [imported.values[variable.op.name] for variable in model.variables]
            assign(session, [model.variables], [values])
            out.parent.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(dir=out.parent, prefix=f'.{out.name}.') as temporary:
                directory = pathlib.Path(temporary) / out.name
                directory.mkdir()
                config.save(directory / 'config.json', data=entry)
                vocabulary.save(directory / 'vocabulary.json')
                BestModel(directory / 'best', model.variables).save(session, {
                    'step': 0, 'scores': {}, 'imported': {'kind': kind, 'source': str(source)}})
                os.rename(directory, out)
    _report(kind, source, imported, config, spec, out, features, say)


def detect(source: PathLike, kind: str | None = None) -> tuple[str, str]:
    """Return what a source is: (kind, str of its path as the importer takes it).

    Raises:
        InputError: none of `KINDS`, with what was found there.
    """
    if kind is not None and kind not in KINDS:
        raise InputError(f'unknown kind {kind!r}; there are: {", ".join(KINDS)}')
    path = pathlib.Path(source)
    if path.is_file() and (path.suffix == '.npz' or kind == 'authors'):
        if kind not in (None, 'authors'):
            raise InputError(f'{path}: a .npz file is of kind authors, not {kind}')
        return 'authors', str(path)
    if kind == 'authors':
        raise InputError(f'{path}: no such .npz file')
    prefix = _prefix(path)
    if kind is not None:
        return kind, prefix
    names = open_checkpoint(prefix).get_variable_to_shape_map()
    if '_CHECKPOINTABLE_OBJECT_GRAPH' in names:
        return 'tf2', prefix
    from core.importers.tf1_tutorial import is_tf1

    if is_tf1(names):
        return 'tf1', prefix
    raise InputError(f'{prefix}: neither a checkpoint of the TF1 code nor of the TF2 tutorial; it '
                     f'holds, for example, {", ".join(sorted(names)[:5])}')


def _tokens(kind: str, words: Iterable[str]) -> str:
    """Return how captions are cut to get such words, a name in `TOKENS`.

    The tutorials remove punctuation and case. The authors' code splits captions at blanks, whatever
    was done to them before; that is seen from its words.
    """
    own = [word for word in words if not word.startswith('<unused-')]
    names = ('words', 'raw_lower') if kind == 'authors' else ()
    return next((name for name in names if all(TOKENS[name](word) == [word] for word in own)),
                'raw' if kind == 'authors' else 'words')


def _prefix(path: pathlib.Path) -> str:
    """Return the checkpoint that a path means, without ending."""
    if (path / 'config.json').exists() and (path / 'vocabulary.json').exists():
        raise InputError(f'{path}: is a run of this program already; use it with evaluate.py')
    if not path.is_dir():
        for ending in ('.index', '.meta'):
            if path.name.endswith(ending):
                return str(path)[:-len(ending)]
        return str(path).partition('.data-00000-of-')[0]
    checkpoints = sorted(index.name[:-len('.index')] for index in path.glob('*.index'))
    state = tf.train.get_checkpoint_state(str(path))
    latest = pathlib.Path(state.model_checkpoint_path) if state else None
    # By its name first: the path may be that of another machine. Before TensorFlow 0.12 there was
    # no .index file.
    for prefix in (path / latest.name, latest) if latest else ():
        if prefix.is_file() or prefix.with_name(f'{prefix.name}.index').is_file():
            return str(prefix)
    if len(checkpoints) == 1:
        return str(path / checkpoints[0])
    raise InputError(f'{path}: ' + (
        f'holds several checkpoints; name one: {", ".join(checkpoints)}' if checkpoints
        else 'no checkpoint (no .index file) in this directory'))


def _unknown_weights(usual: Mapping[str, Any], chosen: Mapping[str, Any]) -> EncoderSpec:
    """Return the EncoderSpec of the features that the model takes, of unknown weights."""
    chosen = {key: value for key, value in chosen.items() if value is not None}
    # the usual layer and size belong to the usual encoder
    if chosen.get('name', usual['name']) != usual['name']:
        usual = {'resize': usual['resize']}
    spec = describe(**{**usual, **chosen}, weights='random')
    return dataclasses.replace(spec, weights=UNKNOWN, weights_sha256=UNKNOWN)


def _check_features(imported: 'Imported', spec: EncoderSpec, source: PathLike,
                    data: data_dir.DataDir | None) -> None:
    """Raise InputError if the model does not take features of `spec`."""
    values = imported.values
    name = next(n for n in ('feature_layer/w', 'conv_featuresbatch_norm/beta', 'project_features/w')
                if n in values)
    dim = values[name].shape[0]
    if dim != spec.dim:
        where = (f'those of {data.path} have {spec.dim}; give the right --data' if data
                 else f'{spec.encoder} {spec.layer} has {spec.dim}; name theirs with --encoder and '
                 '--layer, or --data')
        raise InputError(f'{source}: was trained on features of {dim} numbers a location, {where}')


def _report(kind: str, source: PathLike, imported: 'Imported', config: Config, spec: EncoderSpec,
            out: PathLike, data: data_dir.DataDir | None, say: Say) -> None:
    """Print what the new run holds, and the command to go on with."""
    for note in imported.notes:
        say(f'note: {note}')
    rows, columns = spec.grid
    model = config.model
    say(f'{source}, kind {kind}: {len(imported.words)} words, dim_embed={model.dim_embed}, '
        f'dim_hidden={model.dim_hidden}, cell={model.cell}; features {spec.encoder} {spec.layer} '
        f'{rows}x{columns}x{spec.dim}, images {spec.resize} to {spec.size}; captions cut into '
        f'tokens {_tokens(kind, imported.words)}')
    place = data.path if data else f"DATA, made by prepro.py ... --like {out} --weights FILE"
    say(f'next: python evaluate.py {out} --data {place}')
