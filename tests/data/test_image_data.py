"""Fine-tuning: which layers learn, that all else is as with stored features, augmentation."""

import dataclasses
import json
import os
import shutil
import signal

import numpy as np
import pytest

from core.common.errors import InputError
from core.config.config import Config
from core.config.decoding import DecodingConfig
from core.data import image_data
from core.data.data_dir import DataDir
from core.decoding.captions import generate
from core.encoders import preprocessing
from core.encoders.augmentation import Augmentation
from core.encoders.encoder import Encoder, EncoderSpec, build_trainable, check_trainable, describe
from core.runs import run_dir
from core.runs.make_model import check_finetuning
from core.runtime.backend import tf, tf1
from core.training.solver import Solver
from tests.support import quick_sessions
from tests.support.sample_dirs import TINY_RUN
from tests.support.tolerances import summed

OPTIONS = [*TINY_RUN, 'finetune_from=conv2_1', 'augment=false', 'dropout=false', 'print_every=1']


@pytest.fixture(scope='module', autouse=True)
def quick():
    """Grappler takes longer than these small graphs run."""
    with pytest.MonkeyPatch.context() as patch:
        quick_sessions.install(patch)
        yield


@pytest.fixture(scope='module')
def spec(sample_data):
    return EncoderSpec.from_dict(DataDir(sample_data).encoder)


# ---- which layers learn


@pytest.mark.parametrize(('name', 'layer', 'first', 'expected'),
                         [('vgg19', 'conv2_2', 'conv2_1',
                           ['conv2_1/kernel', 'conv2_1/bias', 'conv2_2/kernel', 'conv2_2/bias']),
                          ('vgg19', 'conv2_1_pre', 'conv1_2',
                           ['conv1_2/kernel', 'conv1_2/bias', 'conv2_1/kernel', 'conv2_1/bias']),
                          ('mobilenet_v2', 'block_1_project_BN', 'block_1_depthwise',
                           ['block_1_depthwise/depthwise_kernel', 'block_1_depthwise_BN/gamma',
                            'block_1_depthwise_BN/beta', 'block_1_project/kernel',
                            'block_1_project_BN/gamma', 'block_1_project_BN/beta'])])
def test_the_layers_from_the_one_named_on_learn_and_no_other(name, layer, first, expected):
    described = describe(name, layer, 32)
    pictures = np.random.default_rng(1).integers(0, 256, (4, 32, 32, 3), np.uint8)
    with tf.Graph().as_default() as graph:
        pixels = tf1.placeholder(tf.uint8, (None, 32, 32, 3))
        encoder = build_trainable(pixels, described, first)
        assert [v.op.name.removeprefix('encoder/') for v in encoder.trained] == expected
        assert [v.op.name for v in tf1.trainable_variables()] == [
            v.op.name for v in encoder.trained]
        loss = tf.reduce_mean(tf.square(
            encoder.features - tf.random.stateless_normal(tf.shape(encoder.features), [1, 2])))
        gradients = tf1.gradients(loss, encoder.trained)
        step = tf1.train.GradientDescentOptimizer(0.1).minimize(loss)
        assert {v.op.name for v in tf1.global_variables()} == {v.op.name for v in encoder.trained}
        assert encoder.frozen and not tf1.get_collection(tf1.GraphKeys.UPDATE_OPS)
        with tf1.Session(graph=graph) as session:
            encoder.restore(session)
            before = session.run(encoder.trained), session.run(encoder.frozen)
            for gradient in session.run(gradients, {pixels: pictures}):
                assert np.abs(gradient).max() > 0
            for _ in range(2):
                session.run(step, {pixels: pictures})
            for old, new in zip(before[0], session.run(encoder.trained), strict=True):
                assert not np.array_equal(old, new)
            for old, new in zip(before[1], session.run(encoder.frozen), strict=True):
                np.testing.assert_array_equal(new, old)


def test_the_encoder_begins_as_the_encoder_that_made_the_features(sample_data, spec):
    data = image_data.ImageData(DataDir(sample_data).split('train'), spec)
    pictures = data.read_features([0, 3])
    with Encoder(spec) as encoder:
        expected = encoder.encode(pictures)
    with tf.Graph().as_default() as graph:
        pixels = tf1.placeholder(tf.uint8, (None, 32, 32, 3))
        encoder = build_trainable(pixels, spec, 'conv2_2')
        with tf1.Session(graph=graph) as session:
            encoder.restore(session)
            # another graph, with other fused operations
            features = session.run(encoder.features, {pixels: pictures})
    np.testing.assert_allclose(features, expected, rtol=summed(9 * 128),
                               atol=summed(9 * 128) * expected.max())


@pytest.mark.parametrize(('name', 'layer', 'first', 'part'), [
    ('vgg19', 'conv4_4', 'conv4_5', "no layer 'conv4_5' before its map conv4_4; near it: conv4_4"),
    ('vgg19', 'conv4_4', 'conv5_1', 'no layer .*near it: .*conv4_1'),
    ('mobilenet_v2', 'block_1_project_BN', 'block_1_depth_wise', 'near it: block_1_depthwise'),
    ('mobilenet_v2', 'block_1_project_BN', 'block_2_expand', 'no layer'),
    ('mobilenet_v2', 'block_1_expand_relu', 'block_1_expand_relu', 'nothing to train '
     '.*block_1_expand_BN')])
def test_layers_that_cannot_be_trained_are_refused_by_name(name, layer, first, part):
    with pytest.raises(InputError, match=part):
        check_trainable(describe(name, layer, 32), first)


# ---- the same as stored features where nothing is changed


@pytest.fixture(scope='module')
def trained(sample_data, sample_run, tmp_path_factory):
    """metrics.jsonl of three runs from one decoder: stored features, rate 0, and fine-tuning."""
    place, data = tmp_path_factory.mktemp('runs'), DataDir(sample_data)
    losses = {}
    start = run_dir.Run(sample_run).best().prefix()
    # A low rate, as Adam's first steps would make much of the differences of rounding.
    for name, options in (('stored', ['finetune_from=', 'learning_rate=1e-3']),
                          ('rate 0', ['finetune_rate=0', 'learning_rate=1e-3']),
                          ('tuned', ['finetune_rate=1', 'n_epochs=6'])):
        train(place / name, data, options, pretrained_model=start)
        entries = [json.loads(line)
                   for line in (place / name / 'metrics.jsonl').read_text().splitlines()]
        losses[name] = [e['loss_per_word'] for e in entries if e['kind'] == 'training']
    return place, losses


def train(out, data, assignments, **more):
    config = Config().override([*OPTIONS, *assignments])
    with run_dir.create(out, config, data), tf.Graph().as_default():
        tf1.set_random_seed(1)
        run = run_dir.Run(out)
        model = run.make_model()
        solver = Solver(model, run.training_split(data), run.split(data, 'dev'), model_path=out,
                        decoding=config.decoding, say=lambda line: None, **more,
                        **dataclasses.asdict(config.training))
        return solver.train()


def test_with_rate_zero_the_loss_is_that_of_stored_features(trained):
    _, losses = trained
    assert len(losses['stored']) == len(losses['rate 0']) == 5
    np.testing.assert_allclose(losses['rate 0'], losses['stored'], rtol=5e-4)  # float16 on the disk
    assert losses['rate 0'][0] == pytest.approx(losses['stored'][0],
                                                rel=1e-5) != losses['stored'][1]


def test_with_rate_zero_the_encoder_stays_and_else_it_moves(trained, spec):
    place, _ = trained
    with tf.Graph().as_default() as graph, tf1.Session(graph=graph) as session:
        encoder = build_trainable(tf1.placeholder(tf.uint8, (None, 32, 32, 3)), spec, 'conv2_1')
        encoder.restore(session)
        initial = {v.op.name: session.run(v) for v in encoder.trained}
    for name in ('rate 0', 'tuned'):
        best = tf.train.load_checkpoint(str(run_dir.Run(place / name).best().prefix()))
        assert {key for key in best.get_variable_to_shape_map()
                if key.startswith('encoder/')} == initial.keys()
        for key, value in initial.items():
            assert np.array_equal(best.get_tensor(key), value) == (name == 'rate 0')


def test_the_loss_falls_and_the_run_evaluates(sample_data, trained):
    place, losses = trained
    assert np.mean(losses['tuned'][-5:]) < 0.9 * losses['tuned'][0]
    run, data = run_dir.Run(place / 'tuned'), DataDir(sample_data)
    captions = decoded(run, data)
    assert len(captions) == 3 and any(caption.words for caption in captions)


def decoded(run, data):
    with tf.Graph().as_default() as graph:
        model = run.make_model()
        hypotheses = model.build_search(DecodingConfig(max_len=10))
        with tf1.Session(graph=graph) as session:
            assert run.restore(session, model)['step'] > 0
            return list(generate(session, model, hypotheses, run.split(data, 'dev')))


def test_decoding_reads_the_images_and_the_tuned_encoder(sample_dirs, sample_data, trained,
                                                         tmp_path):
    """Read images and tuned variables, not stored features and those of before training."""
    run = run_dir.Run(trained[0] / 'tuned')
    expected = np.concatenate([c.alphas for c in decoded(run, DataDir(sample_data))])
    # of another kind, which a run of stored features would refuse
    other = DataDir(sample_dirs.data('conv1_2'))
    assert run.data(other.path).path == other.path
    np.testing.assert_array_equal(np.concatenate([c.alphas for c in decoded(run, other)]), expected)
    with tf.Graph().as_default() as graph:
        model = run.make_model()
        hypotheses = model.build_search(DecodingConfig(max_len=10))
        with tf1.Session(graph=graph) as session:
            run.restore(session, model)
            model.encoder.restore(session)
            data = run.split(DataDir(sample_data), 'dev')
            untuned = np.concatenate([c.alphas for c in generate(session, model, hypotheses, data)])
    assert untuned.shape != expected.shape or not np.allclose(untuned, expected, atol=1e-3)


# ---- resume


def test_interrupted_fine_tuning_goes_on_bit_for_bit(sample_data, tmp_path, monkeypatch):
    data, options = DataDir(sample_data), ['augment=true', 'dropout=true', 'n_epochs=3',
                                           'finetune_rate=1']
    whole = train(tmp_path / 'whole', data, options)
    reads, original = [], image_data.ImageData.read_batch

    def read_batch(self, *arguments):
        reads.append(arguments)
        if len(reads) == 7:
            os.kill(os.getpid(), signal.SIGINT)
        return original(self, *arguments)

    monkeypatch.setattr(image_data.ImageData, 'read_batch', read_batch)
    with pytest.raises(KeyboardInterrupt):
        train(tmp_path / 'cut', data, options)
    assert {epoch for _, _, epoch in reads} >= {0, 1}
    state = train(tmp_path / 'cut', data, options)
    assert state == whole and len(reads) < 2 * state['step']
    readers = [
        tf.train.load_checkpoint(str(tmp_path / name / 'checkpoints' / f'step-{state["step"]}'))
        for name in ('whole', 'cut')]
    names = readers[0].get_variable_to_shape_map()
    assert any(name.startswith('encoder/conv2_1/kernel/') for name in names)  # the optimizer's
    assert not any('conv1_1' in name for name in names)
    for name in names:
        np.testing.assert_array_equal(readers[1].get_tensor(name), readers[0].get_tensor(name),
                                      err_msg=name)


# ---- pictures


def test_pictures_are_those_that_the_features_were_made_of(sample_data, spec):
    plain = DataDir(sample_data).split('train')
    data = image_data.ImageData(plain, spec)
    assert data.features.shape == (len(plain), 256, 128) == (len(data), *plain.features.shape[1:])
    pictures = data.read_features([2, 0, 2])
    assert pictures.dtype == np.uint8 and pictures.shape == (3, 32, 32, 3)
    for picture, image in zip(pictures, (2, 0, 2), strict=True):
        np.testing.assert_array_equal(picture,
                                      preprocessing.load(plain.paths[image], spec.preprocessing))
    np.testing.assert_array_equal(data.read_batch(np.arange(6), np.array([2, 0, 2]), 5), pictures)


def test_augmented_pictures_depend_on_seed_epoch_and_caption_alone(sample_data, spec):
    plain = DataDir(sample_data).split('train')
    words = DataDir(sample_data).vocabulary.word_to_idx

    def read(seed, epoch, numbers):
        data = image_data.ImageData(plain, spec, Augmentation(seed, plain.captions, words))
        return data.read_batch(np.array(numbers), plain.image_idxs[numbers], epoch)

    first = read(1, 0, [3, 4, 7])
    np.testing.assert_array_equal(read(1, 0, [7, 9, 3])[[2, 0]], first[[0, 2]])
    for other in (read(2, 0, [3, 4, 7]), read(1, 1, [3, 4, 7])):
        assert not np.array_equal(other, first)
    assert not np.array_equal(
        image_data.ImageData(plain, spec).read_features(plain.image_idxs[[3, 4, 7]]), first)
    # Several captions of one picture: the first number decides.
    data = image_data.ImageData(plain, spec, Augmentation(1, plain.captions, words))
    np.testing.assert_array_equal(data.read_batch(np.array([3, 8, 4, 9, 7, 2]),
                                                  plain.image_idxs[[3, 4, 7]], 0)[:2], first[:2])


def test_missing_images_are_named(sample_data, scenes, spec, tmp_path):
    shutil.copytree(sample_data, tmp_path / 'data')
    place = tmp_path / 'data' / 'annotations.json'
    place.write_text(place.read_text().replace(str(scenes), str(tmp_path / 'moved')))
    with pytest.raises(InputError,
                       match='8 of 8 image files are gone, for example .*moved.*prepro.py'):
        image_data.ImageData(DataDir(tmp_path / 'data').split('train'), spec)


def test_boxes_are_left_out_where_they_were_measured_on_another_part_of_the_photo(
    sample_data, spec):
    data = DataDir(sample_data).split('train')
    assert image_data.ImageData(data, spec).boxes == data.boxes is not None
    assert image_data.ImageData(data, dataclasses.replace(spec, resize='squash')).boxes is None


def test_check_misses_weights_and_layer(spec, tmp_path):
    check_finetuning(spec, 'conv2_2')
    with pytest.raises(InputError, match='conv2_1'):
        check_finetuning(spec, 'conv2_11')
    (tmp_path / 'other.h5').write_text('x')
    with pytest.raises(InputError, match='not the weights that the data were made with'):
        check_finetuning(spec, 'conv2_2', tmp_path / 'other.h5')
