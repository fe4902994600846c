"""A run as a SavedModel: the Captioner's sentences, in a process that has TensorFlow alone."""

import dataclasses
import json
import os
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image
from tensorflow.core.protobuf import saved_model_pb2

from core import Captioner
from core.__main__ import main
from core.common.errors import InputError
from core.common.files import read_json
from core.config.decoding import DecodingConfig
from core.inference import saved_model
from core.runs.run_dir import Run
from core.runtime.backend import tf, tf1
from tests.support import scripts, tolerances
from tests.support.changed_runs import changed_run, put
from tests.support.scripts import ROOT

# As a program of anybody's: no module of this project, nor any other that the project needs and
# TensorFlow does not.
PROGRAM = """
import json, sys
for name in ('core', 'PIL', 'tf_keras', 'scipy', 'imageio', 'matplotlib'):
    sys.modules[name] = None
import tensorflow as tf

def plain(value):
    value = value.decode() if isinstance(value, bytes) else value
    return [plain(each) for each in value] if isinstance(value, list) else value

model = tf.saved_model.load(sys.argv[1]).signatures['serving_default']
photos = [open(path, 'rb').read() for path in sys.argv[2:]]
answers = []
for given in (photos, photos[:1], []):
    found = model(image_bytes=tf.constant(given, tf.string))
    answers.append({name: plain(value.numpy().tolist()) for name, value in found.items()})
    answers[-1]['shapes'] = {name: value.shape.as_list() for name, value in found.items()}
try:
    model(image_bytes=tf.constant([photos[0], photos[1][:60]]))
    answers.append('no error')
except tf.errors.InvalidArgumentError as error:
    answers.append(str(error))
print(json.dumps(answers, allow_nan=False))
"""
pytestmark = pytest.mark.usefixtures('quick_sessions')
DECODING = {'beam_width': 3, 'length_penalty': 0.7, 'max_len': 3}


@pytest.fixture(scope='module')
def photos(scene_photos, tmp_path_factory):
    """Return three photos: a drawn scene, a JPEG that EXIF turns, a PNG with transparency."""
    place, random = tmp_path_factory.mktemp('photos'), np.random.default_rng(2)
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(random.integers(0, 256, (5, 7, 3), np.uint8)).resize((90,
                                                                          61)).save(
        place / 'b.jpg', exif=exif)
    Image.fromarray(random.integers(0, 256, (40, 33, 4), np.uint8)).save(place / 'c.png')
    return [scene_photos[0], place / 'b.jpg', place / 'c.png']


@pytest.fixture(scope='module')
def exported(sample_run, tmp_path_factory):
    """Return the directory that the command writes."""
    out = tmp_path_factory.mktemp('export') / 'captioner' / '1'
    done = subprocess.run([sys.executable, '-m', 'core', 'export', sample_run, out, '--beam-width',
                           '3', '--n-best', '2', '--length-penalty', '0.7', '--set', 'max_len=3'],
                          capture_output=True, text=True, cwd=ROOT, timeout=300)
    assert (done.returncode, done.stderr) == (0, '')
    assert len(done.stdout.splitlines()) == 1 and str(out) in done.stdout
    return out


@pytest.fixture(scope='module')
def answers(exported, photos):
    done = subprocess.run([sys.executable, '-I', '-c', PROGRAM, exported, *photos],
                          capture_output=True, text=True, cwd='/', timeout=300)
    assert done.returncode == 0, done.stderr
    assert 'custom gradients' not in done.stderr
    return json.loads(done.stdout)


def serve(directory, photos):
    """Return the outputs for photos as TensorFlow Serving would find them.

    It goes by tags, signature and the tensors' names.
    """
    with tf.Graph().as_default() as graph, tf1.Session(graph=graph) as session:
        loaded = tf1.saved_model.load(session, ['serve'], str(directory))
        signature = loaded.signature_def['serving_default']
        fetches = {name: tensor.name for name, tensor in signature.outputs.items()}
        return session.run(
            fetches, {signature.inputs['image_bytes'].name: [path.read_bytes() for path in photos]})


def same(answer, results):
    """Assert that outputs, as arrays or lists, are the Results of a Captioner."""
    answer = {name: np.asarray(value) for name, value in answer.items() if name != 'shapes'}
    for n, result in enumerate(results):
        for k, caption in enumerate(result.captions):
            one = {name: value[n, k] for name, value in answer.items()}
            text = [each.decode() if isinstance(each, bytes) else each
                    for each in [one['captions'], *one['words']]]
            length = one['lengths']
            assert (text[0], text[1:]) == (caption.text, caption.words
                                           + [''] * (len(text) - 1 - length))
            assert (length, one['ended']) == (len(caption.words), caption.ended)
            np.testing.assert_allclose([one['scores'], one['log_probs']],
                                       [caption.score, caption.log_prob],
                                       rtol=tolerances.AFTER_CONTEXT)
            for name in ('probabilities', 'alphas', 'betas'):
                np.testing.assert_allclose(
                    one[name][:length], getattr(caption, name), atol=tolerances.NEAR_ZERO,
                    rtol=tolerances.ALPHA if name == 'alphas' else tolerances.AFTER_CONTEXT)
                assert not one[name][length:].any()


def test_plain_tensorflow_writes_the_captioners_sentences(sample_run, answers, photos):
    with Captioner.load(sample_run, n_best=2, **DECODING) as captioner:
        results = captioner(photos)
    same(answers[0], results)
    same(answers[1], results[:1])
    assert len({result.score for result in results}) == 3  # or the photos were not looked at
    # whole, and cut
    assert len(np.unique(answers[0]['ended'])) == 2 and len(np.unique(answers[0]['lengths'])) > 1


def test_no_photos_and_broken_photos(answers):
    shapes = {'captions': [2], 'words': [2, 3], 'lengths': [2], 'ended': [2], 'scores': [2],
              'log_probs': [2], 'probabilities': [2, 3], 'alphas': [2, 3, 256], 'betas': [2, 3]}
    for answer, n in zip(answers[:3], (3, 1, 0), strict=True):
        assert answer['shapes'] == {name: [n, *shape] for name, shape in shapes.items()}
    assert 'image 1: the JPEG is truncated (no end of image)' in answers[3]


def test_conventions_of_tensorflow_serving(sample_run, exported):
    """One signature, N first everywhere, JSON's types, no Python in the graph.

    `_bytes` ends the name where bytes go in.
    """
    saved = saved_model_pb2.SavedModel.FromString((exported / 'saved_model.pb').read_bytes())
    meta, = saved.meta_graphs
    assert list(meta.meta_info_def.tags) == ['serve']
    assert list(meta.signature_def) == ['serving_default']
    signature = meta.signature_def['serving_default']
    assert signature.method_name == 'tensorflow/serving/predict'
    assert list(signature.inputs) == ['image_bytes']
    assert set(signature.outputs) == set(saved_model.OUTPUTS)
    image = signature.inputs['image_bytes']
    assert image.dtype == tf.string.as_datatype_enum
    assert [dim.size for dim in image.tensor_shape.dim] == [-1]
    for name, tensor in signature.outputs.items():
        assert tf.as_dtype(tensor.dtype) in (tf.string, tf.float32, tf.int32, tf.bool)
        assert not name.endswith('_bytes')
        assert [dim.size for dim in tensor.tensor_shape.dim][:2] == [-1, 2], name
    graph = meta.graph_def
    operations = {
        node.op for nodes in [graph.node, *(each.node_def for each in graph.library.function)]
        for node in nodes}
    assert not {op for op in operations if 'PyFunc' in op or 'XlaLaunch' in op}
    assert 'DecodeJpeg' in operations
    assert str(sample_run.parent).encode() not in (exported / 'saved_model.pb').read_bytes()


def test_what_is_written_beside_the_model(sample_run, exported):
    about = read_json(exported / 'export.json')
    run = Run(sample_run)
    assert (about['run'], about['step']) == ('run', run.best().info()['step'])
    assert {name: about['decoding'][name] for name in DECODING} == DECODING and about['n_best'] == 2
    assert set(about['decoding']) == {*DecodingConfig().__dataclass_fields__}
    assert about['grid'] == [16, 16]
    assert about['encoder'] == json.loads(json.dumps(run.spec.identity()))
    assert sorted(path.name for path in exported.parent.iterdir()) == ['1']
    assert oct(exported.stat().st_mode)[-3:] == '755'


def test_slots_without_a_sentence(sample_run, tmp_path, photos):
    """Two groups that find the same captions leave slots over, which JSON can say too."""
    run = Run(sample_run)
    run.config = run.config.override(
        ['beam_width=4', 'beam_groups=2', 'diversity_penalty=1e-9', 'max_len=5'])
    saved_model.export(run, tmp_path / 'model', n_best=4)
    outputs = serve(tmp_path / 'model', photos)
    json.dumps({name: value.tolist() for name, value in outputs.items() if value.dtype != object},
               allow_nan=False)
    empty = outputs['scores'] == np.finfo(np.float32).min
    assert empty[:, 2:].all() and not empty[:, :2].any()
    assert not outputs['lengths'][empty].any() and not outputs['ended'][empty].any()
    assert set(outputs['captions'][empty]) == {b''}
    assert set(outputs['words'][empty].ravel()) == {b''}
    assert not outputs['alphas'][empty].any() and not outputs['probabilities'][empty].any()


def test_hard_attention_and_drawn_words(sample_run, tmp_path, photos):
    """What is drawn follows the seed alone: twice the same, and the Captioner's."""
    changed_run(sample_run, tmp_path / 'run', {'model': {'attention': 'hard'}})
    main(['export', str(tmp_path / 'run'), str(tmp_path / 'model'), '--decode-context', 'sample',
          '--seed', '3', *scripts.settings('sample=true', 'max_len=7')])
    drawn, again = (serve(tmp_path / 'model', photos) for _ in range(2))
    for name, value in drawn.items():
        np.testing.assert_array_equal(value, again[name])
    alphas, written = drawn['alphas'], np.arange(7) < drawn['lengths'][..., np.newaxis]
    np.testing.assert_array_equal(alphas.max(axis=-1), written)  # one location a word
    np.testing.assert_array_equal(alphas.sum(axis=-1), written)
    run = Run(tmp_path / 'run')
    model = dataclasses.replace(run.config.model, decode_context='sample')
    run.config = dataclasses.replace(run.config, model=model).override(['sample=true', 'max_len=7'])
    with Captioner(run, seed=3) as captioner:
        same(drawn, captioner(photos))
        captioner.seed = 4
        others = captioner(photos)
    assert [result.words for result in others] != [[word.decode() for word in words[0] if word]
                                                   for words in drawn['words']]


def test_a_fine_tuned_encoder(sample_run, exported, answers, tmp_path, photos):
    def tune(session, variables):
        variable = variables['encoder/conv2_1/bias']
        put(session, variable, session.run(variable) + 0.5)

    run = changed_run(sample_run, tmp_path / 'run',
                      {'training': {'finetune_from': 'conv2_1'}, 'decoding': DECODING}, tune)
    saved_model.export(run, tmp_path / 'model', n_best=2)
    loaded = tf.saved_model.load(str(tmp_path / 'model'))
    written = tf.train.list_variables(str(tmp_path / 'model' / 'variables' / 'variables'))
    assert ({variable.name.removesuffix(':0') for variable in loaded.variables}
            == {name for name, _ in written})
    model = loaded.signatures['serving_default']
    answer = model(image_bytes=[path.read_bytes() for path in photos])
    outputs = {name: value.numpy() for name, value in answer.items()}
    # the tuned encoder's, not the file's
    assert np.abs(outputs['scores'] - answers[0]['scores']).min() > 1e-3
    with Captioner(run, n_best=2) as captioner:
        same(outputs, captioner(photos))


# ---- what is refused


def refused(arguments, *parts, kind=InputError):
    with pytest.raises(kind) as caught:
        main(['export', *(str(each) for each in arguments)])
    for part in parts:
        assert part in str(caught.value)


def test_directories_in_use(sample_run, tmp_path):
    (tmp_path / 'used').mkdir()
    (tmp_path / 'used' / 'mine').write_text('kept')
    (tmp_path / 'file').write_text('kept')
    for name in ('used', 'file'):
        refused([sample_run, tmp_path / name], name, 'not empty')
    refused([sample_run, tmp_path / 'file' / 'a' / 'model'], 'no directory to write in')
    assert (tmp_path / 'used' / 'mine').read_text() == (tmp_path / 'file').read_text() == 'kept'
    assert sorted(os.listdir(tmp_path)) == ['file', 'used']


@pytest.mark.parametrize(('arguments', 'part'), [
    (['--decode-context', 'argmax'], 'hard attention'),
    (['--set', 'n_epochs=3'], 'only options of decoding'),
    (['--set', 'beam_widht=3'], 'only options of decoding'),
    (['--n-best', '0'], '--n-best must be at least 1'),
    (['--beam-width', '2', '--n-best', '3'], '--n-best 3 needs a beam at least as wide, not 2'),
    (['--length-penalty', '0.5'], 'length_penalty needs beam_width'),
    (['--seed', '-1'], '--seed must be'),
    (['--weights', 'gone.h5'], 'gone.h5'),
    (['--beam', '2', 'more'], 'did you mean --beam-width'),
])
def test_wrong_choices(sample_run, tmp_path, arguments, part):
    refused([sample_run, tmp_path / 'out', *arguments], part)
    assert os.listdir(tmp_path) == []


def test_no_run_or_a_diverged_one(sample_run, tmp_path):
    refused([tmp_path / 'nowhere', tmp_path / 'out'], 'nowhere', 'not a run')
    run = changed_run(sample_run, tmp_path / 'run', {},
                      lambda session, variables: put(session, variables['logits/b_out'], np.nan))
    refused([run.path, tmp_path / 'out'], 'not finite')
    assert os.listdir(tmp_path) == ['run']


def test_help_comes_without_tensorflow():
    code = ("import sys; sys.argv = ['core', '--help']; import core.__main__\n"
            "try: core.__main__.main()\n"
            "except SystemExit: pass\n"
            "assert not {'tensorflow', 'PIL', 'numpy'} & set(sys.modules), 'slow'")
    done = scripts.python(code)
    assert (done.returncode, done.stderr) == (0, '')
    assert 'python -m core export runs/flickr8k captioner/1' in done.stdout
    assert len(done.stdout.splitlines()) <= 45
