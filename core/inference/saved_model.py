"""One SavedModel from the bytes of photos to sentences, for programs without this project.

    python -m core export RUN DIR

Decoding of JPEG and PNG, preprocessing, encoder, decoder, search and words are all inside the
graph, as operations of TensorFlow alone. docs/export.md shows how to load it, by TensorFlow Serving
too.
"""

import dataclasses
import os
import pathlib
import shutil
import tempfile
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from core.common.aliases import PathLike, Session, Tensor, Variable
from core.common.errors import InputError
from core.config.decoding import DecodingConfig

if TYPE_CHECKING:
    from core.decoding.search_loop import Hypotheses
    from core.model.caption_generator import CaptionGenerator
    from core.runs.run_dir import Run

Signature = dict[str, dict[str, Tensor]]  # 'inputs' and 'outputs' -> name -> tensor

# by TensorFlow Serving's convention the suffix says that the strings are no text
INPUT = 'image_bytes'
# Of N photos, P captions each, T words, L places; everything is numbers, texts or booleans that
# JSON can hold.
OUTPUTS = {'captions': 'string (N, P): the sentences of each image, best first',
           'words': "string (N, P, T): their words; '' after the end",
           'lengths': 'int32 (N, P): how many words',
           'ended': 'bool (N, P): false where a sentence was cut at T words, and in slots without '
           'a sentence',
           'scores': 'float32 (N, P): log_probs / length**length_penalty; -3.4e38 in slots without '
           'a sentence',
           'log_probs': "float32 (N, P): the model's log-probability of the sentence, its end "
           "included; -3.4e38 as above",
           'probabilities': "float32 (N, P, T): the model's probability of each word; 0 after the "
           "end",
           'alphas': 'float32 (N, P, T, L): attention at each word, row by row of the grid; 0 '
           'after the end', 'betas': 'float32 (N, P, T): gate at each word; 0 after the end'}


def export(run: 'Run', directory: PathLike, weights: PathLike | None = None, n_best: int = 1,
           seed: int = 0) -> dict[str, Any]:
    """Write a run's best model, encoder included, as a SavedModel.

    Args:
        run: Run; its `config.decoding` says how captions are searched for.
        directory: path to make; it must be missing or empty. It appears when it is complete.
        weights: path of the encoder's weights file, where it moved.
        n_best: captions an image; a beam that is narrower is made as wide.
        seed: int, of words and locations that are drawn; they follow it and the image's place in
            the call.

    Returns:
        dict, what `export.json` in the directory holds.

    Raises:
        InputError: the directory is in use, the run has no model or a diverged one, or the weights
            are missing or others.
    """
    from core.runtime.backend import tf, tf1
    from core.runtime.devices import Machine, session_config

    directory = check_directory(directory)
    options = run.config.decoding
    if n_best < 1:
        raise InputError(f'--n-best must be at least 1, not {n_best}')
    if n_best > options.beam_width:
        options = dataclasses.replace(options, beam_width=n_best)
        options.check_combination(f'--n-best {n_best}')
    with tf.Graph().as_default() as graph:
        signature, variables, restore = _build(run, weights, options, n_best, seed)
        with tf1.Session(graph=graph, config=session_config(Machine(device='cpu'))) as session:
            step = (restore(session) or {}).get('step')
            _try(session, signature)
            # What training alone reads, hard attention's baseline, has no value. The collection,
            # which loaders read, names what is saved; those of a fine-tuned encoder that are frozen
            # were in none.
            without = set(session.run(tf1.report_uninitialized_variables(variables)).tolist())
            variables = [variable for variable in variables
                         if variable.op.name.encode() not in without]
            graph.get_collection_ref(tf1.GraphKeys.GLOBAL_VARIABLES)[:] = variables
            about = _about(run, step, options, n_best, seed)
            _write(session, signature, variables, directory, about)
    return about


def check_directory(path: PathLike) -> pathlib.Path:
    """Return the path of a directory that is missing or empty.

    Raises:
        InputError: it holds something, or cannot be made.
    """
    path = pathlib.Path(path)
    if path.exists() and (not path.is_dir() or any(path.iterdir())):
        raise InputError(f'{path}: not empty; name a directory that is to be made, for TensorFlow '
                         'Serving NAME/VERSION, for example captioner/1')
    above = next(parent for parent in path.absolute().parents if parent.exists())
    if not above.is_dir() or not os.access(above, os.W_OK | os.X_OK):
        raise InputError(f'{path}: cannot be made, as {above} is no directory to write in')
    return path


def _build(run: 'Run', weights: PathLike | None, options: DecodingConfig, n_best: int, seed: int,
           ) -> tuple[Signature, list[Variable], Callable[[Session], dict[str, Any]]]:
    """Build the graph: return (inputs and outputs, all variables, restore).

    The first is the signature's {'inputs': {name: tensor}, 'outputs': {name: tensor}}.
    """
    from core.encoders import graph_preprocessing
    from core.runtime.backend import tf, tf1

    variables = []

    def remember(create: Callable[..., Variable], **arguments: Any) -> Variable:
        variables.append(create(**arguments))
        return variables[-1]

    with tf.variable_creator_scope(remember):
        files = tf1.placeholder(tf.string, [None], INPUT)
        with tf1.name_scope('images'):
            pixels, n = graph_preprocessing.load(files, run.spec.preprocessing), tf.shape(files)[0]
            # Convolutions do not take an empty batch; the one picture that stands for it has no
            # outputs.
            pixels = tf.cond(n > 0, lambda: pixels,
                             lambda: tf.zeros([1, *pixels.shape[1:]], tf.uint8))
            pixels = tf.ensure_shape(pixels, [None, *pixels.shape[1:]])
        model, restore = run.make_captioner(pixels, weights)
        # XLA is not everywhere where a SavedModel is, and compiles anew for every number of images.
        model.dropout_seed = tf.constant([seed, 0])
        hypotheses = model.build_search(options, n_best, jit=False)
        with tf1.name_scope('outputs'):
            outputs = {name: x[:n] for name, x in _outputs(model, hypotheses).items()}
    return {'inputs': {INPUT: files}, 'outputs': outputs}, variables, restore


def _outputs(model: 'CaptionGenerator', hypotheses: 'Hypotheses') -> dict[str, Tensor]:
    """Return the tensors of OUTPUTS of a search."""
    from core.runtime.backend import tf

    used = hypotheses.lengths > 0
    ended = tf.logical_and(used, tf.equal(hypotheses.captions[:, :, -1], model.end))
    lengths = hypotheses.lengths - tf.cast(ended, tf.int32)
    places = tf.range(hypotheses.captions.shape[2])
    written = places < lengths[:, :, tf.newaxis]
    vocabulary = tf.constant(
        [model.idx_to_word[index].encode('utf8', 'replace') for index in range(model.V)])
    words = tf.where(written, tf.gather(vocabulary, hypotheses.captions), '')
    spaced = tf.where(tf.logical_and(written, places > 0), tf.strings.join([' ', words]), words)
    lowest = tf.float32.min  # JSON has no infinity

    def number(x: Tensor, valid: Tensor, otherwise: float = 0.0) -> Tensor:
        return tf.where(valid, tf.cast(x, tf.float32), otherwise)

    return {'captions': tf.strings.reduce_join(spaced, axis=2), 'words': words, 'lengths': lengths,
            'ended': ended, 'scores': number(hypotheses.scores, used, lowest),
            'log_probs': number(hypotheses.log_probs, used, lowest),
            'probabilities': number(tf.exp(hypotheses.word_log_probs), written),
            'alphas': number(hypotheses.alphas, written[..., tf.newaxis]),
            'betas': number(hypotheses.betas, written)}


def _try(session: Session, signature: Signature) -> None:
    """Caption one picture, so that nothing is written that cannot run."""
    import io

    import numpy as np
    from PIL import Image

    file = io.BytesIO()
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (9, 7, 3), np.uint8)).save(
        file, 'PNG')
    outputs = session.run(signature['outputs'], {signature['inputs'][INPUT]: [file.getvalue()]})
    if not (np.isfinite(outputs['alphas']).all() and np.isfinite(outputs['log_probs']).all()):
        raise InputError(
            'the attention or the words are not finite: the model diverged in training')


def _about(run: 'Run', step: int | None, options: DecodingConfig, n_best: int,
           seed: int) -> dict[str, Any]:
    """Return the contents of `export.json`."""
    import PIL

    from core.runtime.backend import tf

    return {'run': run.path.absolute().name, 'step': step, 'encoder': run.spec.identity(),
            'grid': list(run.spec.grid), 'vocabulary_size': len(run.vocabulary),
            'decoding': dataclasses.asdict(options), 'n_best': n_best,
            'attention': run.config.model.attention,
            'decode_context': run.config.model.decode_context, 'seed': seed,
            'signature': 'serving_default',
            'inputs': {INPUT: 'string (N,): bytes of JPEG and PNG files'}, 'outputs': OUTPUTS,
            'tensorflow': tf.__version__, 'resizing_of_pillow': PIL.__version__}


def _write(session: Session, signature: Signature, variables: Sequence[Variable],
           directory: pathlib.Path, about: dict[str, Any]) -> None:
    """Write the SavedModel beside its place, then give it its name."""
    from core.common.errors import first_line
    from core.common.files import write_json
    from core.runtime.backend import tf, tf1

    temporary = None
    try:
        directory.parent.mkdir(parents=True, exist_ok=True)
        temporary = tempfile.mkdtemp(dir=directory.parent, prefix=f'.{directory.name}.')
        builder = tf1.saved_model.Builder(temporary)
        builder.add_meta_graph_and_variables(
            session, [tf.saved_model.SERVING],
            {tf.saved_model.DEFAULT_SERVING_SIGNATURE_DEF_KEY: _definition(signature)},
            strip_default_attrs=True, saver=tf1.train.Saver(variables))
        builder.save()
        _forget_gradients(pathlib.Path(temporary) / 'saved_model.pb')
        write_json(pathlib.Path(temporary) / 'export.json', about)
        os.chmod(temporary, 0o755)
        os.rename(temporary, directory)
    except (OSError, tf.errors.OpError) as error:
        raise InputError(f'{directory}: cannot be written ({first_line(error)}); make room, or '
                         'name another') from None
    finally:
        if temporary:
            shutil.rmtree(temporary, ignore_errors=True)


def _definition(signature: Signature) -> Any:
    """Return the SignatureDef. (TensorFlow's own function for it prints a notice.)"""
    from tensorflow.core.protobuf import meta_graph_pb2

    from core.runtime.backend import tf1

    described = {kind: {name: meta_graph_pb2.TensorInfo(name=tensor.name,
                                                        dtype=tensor.dtype.as_datatype_enum,
                                                        tensor_shape=tensor.shape.as_proto())
                        for name, tensor in tensors.items()} for kind, tensors in signature.items()}
    return tf1.saved_model.build_signature_def(**described,
                                               method_name='tensorflow/serving/predict')


def _forget_gradients(path: pathlib.Path) -> None:
    """Remove the names of the model's own gradients from a saved_model.pb.

    The loader would warn of them.
    """
    from tensorflow.core.protobuf import saved_model_pb2

    saved = saved_model_pb2.SavedModel.FromString(path.read_bytes())
    graph = saved.meta_graphs[0].graph_def
    for nodes in [graph.node, *(function.node_def for function in graph.library.function)]:
        for node in nodes:
            node.attr.pop('_gradient_op_type', None)
    path.write_bytes(saved.SerializeToString(deterministic=True))
