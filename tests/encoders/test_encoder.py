"""Encoders against Keras' own networks; random weights; descriptions that do not fit."""

import dataclasses
import json

import numpy as np
import pytest
import scipy.io

from core.common.errors import InputError
from core.encoders import networks, preprocessing
from core.encoders.encoder import Encoder, EncoderSpec, build_encoder, describe
from core.encoders.known_encoders import ENCODERS
from core.runtime.backend import tf, tf1
from tests.support import quick_sessions
from tests.support.thin_vgg import THIN, write_keras, write_matconvnet

# Network, its default layer, and how many convolutions it has.
VGGS = [('vgg19', 'conv5_4', 16), ('vgg16', 'conv5_3', 13)]


@pytest.fixture(scope='module', autouse=True)
def quick():
    """Grappler takes longer than these small graphs run."""
    with pytest.MonkeyPatch.context() as patch:
        quick_sessions.install(patch)
        yield


def pictures(count, size, seed=0):
    """Random pictures, each of another coarseness, so that they differ as photos do."""
    generator = np.random.default_rng(seed)
    return networks._dead_leaves(generator, count, size).astype(np.uint8)


def encode(spec, batch):
    with Encoder(spec) as encoder:
        return encoder.encode(batch)


@pytest.fixture(scope='module', params=VGGS, ids=[name for name, *_ in VGGS])
def vgg_file(request, tmp_path_factory):
    """Return a row of VGGS, the VGG's weights as tf_keras wrote them, two pictures, their maps."""
    import tf_keras

    name, *_ = request.param
    network = ENCODERS[name].network
    path = tmp_path_factory.mktemp(name) / f'{name}_notop.h5'
    batch = np.random.default_rng(5).integers(0, 256, (2, 32, 32, 3), np.uint8)
    generator = np.random.default_rng(6)
    with tf.Graph().as_default() as graph, tf1.Session(graph=graph) as session:
        model = getattr(tf_keras.applications, name.upper())(
            include_top=False, weights=None, input_shape=(32, 32, 3))
        layers = [layer for layer in model.layers if layer.weights]
        values = [[kernel, generator.normal(0, 0.3, bias.shape)]
                  for kernel, bias in network.random(4)]
        networks.assign(session, [layer.weights for layer in layers], values)
        model.save_weights(str(path))
        after = {layer: keras.output
                 for layer, keras in zip(network.convolutions, layers, strict=True)}
        before = {f'{layer}_pre': output.op.inputs[0] for layer, output in after.items()}
        inputs = getattr(tf_keras.applications, name).preprocess_input(batch.astype(np.float32))
        maps = session.run({**after, **before}, {model.input: inputs})
    return request.param, path, batch, maps


def test_every_map_of_a_vgg_equals_that_of_keras(vgg_file, graph):
    (network, default, convolutions), path, batch, expected = vgg_file
    base = describe(network, f'{default}_pre', 32, weights=path)
    built = {}
    for name in expected:
        rows, columns, dim = ENCODERS[network].network.shape(name, 32)
        spec = dataclasses.replace(base, layer=name, grid=(rows, columns), dim=dim)
        # the towers share their variables
        with tf1.variable_scope('encoder', reuse=tf1.AUTO_REUSE):
            built[name], restore = build_encoder(tf.constant(batch), spec)
    assert len(built) == len(tf1.global_variables()) == 2 * convolutions
    with tf1.Session(graph=graph) as session:
        restore(session)
        features = session.run(built)
    for name, map_ in expected.items():
        scale = np.abs(map_).max()
        assert features[name].shape == (2, map_.shape[1] * map_.shape[2], map_.shape[3])
        assert np.abs(features[name].reshape(map_.shape) - map_).max() < 1e-5 * scale, name
    assert (expected['conv4_2_pre'] < 0).any() and (expected['conv4_2'] >= 0).all()


def test_encoder_reads_the_file_itself(vgg_file):
    (network, default, _), path, batch, expected = vgg_file
    spec = describe(network, size=32, weights=path)
    assert (spec.layer, spec.grid, spec.dim) == (default, (2, 2), 512)
    assert np.allclose(encode(spec, batch).reshape(2, 2, 2, 512), expected[default], rtol=1e-4,
                       atol=1e-5)


def test_weights_of_the_other_vgg_are_refused(vgg_file):
    (network, *_), path, *_ = vgg_file
    other = {'vgg16': 'vgg19', 'vgg19': 'vgg16'}[network]
    with pytest.raises(InputError, match=f'does not fit {other}: layer conv[34]_'):
        Encoder(describe(other, size=32, weights=path))


@pytest.mark.parametrize('name', [name for name, *_ in VGGS])
def test_default_map_is_that_of_the_paper(name, graph):
    spec = describe(name)
    assert (spec.size, spec.resize, spec.grid, spec.dim) == (224, 'crop', (14, 14), 512)
    features, _ = build_encoder(tf1.placeholder(tf.uint8, (None, 224, 224, 3)), spec)
    assert features.shape.as_list() == [None, 196, 512] and features.dtype == tf.float32


def test_only_the_layers_needed_are_built(graph):
    spec = describe('vgg19', 'conv2_1', 32)
    build_encoder(tf1.placeholder(tf.uint8, (None, 32, 32, 3)), spec)
    assert len(tf1.global_variables()) == 6


@pytest.fixture
def thin(monkeypatch):
    """Give VGGs few channels, so that files and graphs are small."""
    for name, network in THIN.items():
        monkeypatch.setitem(ENCODERS, name, ENCODERS[name]._replace(network=network))


@pytest.mark.parametrize('network', list(THIN))
def test_mat_and_h5_of_the_same_weights_give_the_same_features(network, thin, tmp_path):
    arrays = [[kernel, bias + 0.1] for kernel, bias in THIN[network].random(2)]
    layers = THIN[network].layers()
    batch = pictures(3, 48)
    features = {}
    for name in ('notop.h5', 'top.h5', 'filters.mat', 'weights.mat'):
        path = tmp_path / name
        if name.endswith('.mat'):
            write_matconvnet(path, arrays, name[:-4], layers)
        else:
            write_keras(path, arrays, top=name == 'top.h5', layers=layers)
        features[name] = encode(describe(network, size=48, weights=path), batch)
    assert features['notop.h5'].shape == (3, 9, 9) and features['notop.h5'].std() > 0.01
    for other in features.values():
        assert np.array_equal(other, features['notop.h5'])


def test_mat_kernels_meet_rgb(thin, tmp_path):
    # A net that only looks at red: in MatConvNet's order red is channel 0 of the first layer.
    arrays = [[np.zeros_like(kernel), bias] for kernel, bias in THIN['vgg19'].random(0)]
    arrays[0][0][1, 1, 2, 0] = 1  # in the graph's order, blue first
    write_matconvnet(tmp_path / 'red.mat', arrays, 'weights')
    kernel = scipy.io.loadmat(tmp_path / 'red.mat')['layers'][0, 0]['weights'][0, 0][0, 0]
    assert kernel[1, 1, :, 0].tolist() == [1, 0, 0]
    spec = describe('vgg19', 'conv1_1_pre', 16, weights=tmp_path / 'red.mat')
    batch = np.zeros((1, 16, 16, 3), np.uint8)
    batch[..., 0] = 200
    assert np.allclose(encode(spec, batch)[..., 0], 200 - 123.68)


def spread(features):
    """Return the shares of the features' energy that differ between images, and between places."""
    energy = (features**2).mean((0, 1)).sum()
    return features.var(0).mean(0).sum() / energy, features.var(1).mean(0).sum() / energy


@pytest.mark.parametrize('layer', ['conv1_2', 'conv3_3', 'conv5_4'])
def test_random_vgg19_keeps_images_and_places_apart(layer):
    features = encode(describe('vgg19', layer, 96, seed=1), pictures(8, 96))
    images_apart, places_apart = spread(features)
    assert images_apart > 0.4 and places_apart > 0.4
    assert 0.1 < features.std() < 10 and (features.max((0, 1)) > 0).all()


def test_seeds_of_random_weights():
    batch = pictures(2, 32)
    one, again, other = (describe('vgg19', 'conv2_2', 32, seed=seed) for seed in (1, 1, 2))
    assert np.array_equal(encode(one, batch), encode(again, batch))
    assert not np.allclose(encode(one, batch), encode(other, batch))
    assert one.identity() == again.identity() != other.identity()


@pytest.fixture(scope='module')
def mobilenet():
    """Random weights of MobileNetV2 and its layers."""
    row = ENCODERS['mobilenet_v2']
    return row.network.layers(96), row.network.random(7, row.scale)


def test_mobilenet_equals_keras(mobilenet, tmp_path):
    import tf_keras

    batch = pictures(4, 96)
    path = tmp_path / 'mobilenet.h5'
    with tf.Graph().as_default() as graph, tf1.Session(graph=graph) as session:
        model = tf_keras.applications.MobileNetV2(include_top=False, weights=None,
                                                  input_shape=(96, 96, 3))
        networks.assign(session, [layer.weights for layer in model.layers if layer.weights],
                        mobilenet[1])
        model.save_weights(str(path))
        inputs = tf_keras.applications.mobilenet_v2.preprocess_input(batch.astype(np.float32))
        middle = model.get_layer('block_6_expand_relu').output
        last, middle = session.run([model.output, middle], {model.input: inputs})
    spec = describe('mobilenet_v2', size=96, weights=path)
    assert (spec.grid, spec.dim, spec.layer) == ((3, 3), 1280, 'out_relu')
    features = encode(spec, batch)
    assert np.allclose(features.reshape(last.shape), last, atol=1e-3) and features.std() > 0.1
    assert min(spread(features)) > 0.3
    spec = describe('mobilenet_v2', 'block_6_expand_relu', 96, weights=path)
    assert np.allclose(encode(spec, batch).reshape(middle.shape), middle, atol=1e-3)


@pytest.mark.parametrize('name', list(ENCODERS))
def test_pixels_are_scaled_as_keras_does(name, graph):
    import tf_keras

    pixels = np.random.default_rng(1).integers(0, 256, (1, 4, 4, 3)).astype(np.float32)
    expected = getattr(tf_keras.applications, name).preprocess_input(pixels.copy())
    with tf1.Session(graph=graph) as session:
        assert np.allclose(session.run(ENCODERS[name].scale(tf.constant(pixels))), expected,
                           atol=1e-4)


def test_wrong_weights_for_an_encoder(mobilenet, thin, tmp_path):
    write_keras(tmp_path / 'thin.h5', THIN['vgg19'].random(0))
    spec = describe('mobilenet_v2', size=96, weights=tmp_path / 'thin.h5')
    with pytest.raises(InputError,
                       match='does not fit mobilenet_v2: layer Conv1 needs shapes 3x3x3x32'):
        Encoder(spec)
    spec = describe('vgg19', size=32, weights=tmp_path / 'thin.h5')
    write_keras(tmp_path / 'thin.h5', THIN['vgg19'].random(1))
    with pytest.raises(InputError, match='changed'):
        Encoder(spec)
    with pytest.raises(InputError, match='imagenet-vgg-verydeep-19.mat'):
        describe('vgg19', weights=tmp_path / 'missing.h5')


@pytest.mark.parametrize(('name', 'file', 'shape'), [
    ('mobilenet_v2', 'mobilenet_v2_1.0_224_no_top.h5', (8, 49, 1280)),
    ('vgg16', 'vgg16_no_top.h5', (8, 196, 512))])
def test_real_weights_on_real_photos(name, file, shape, shared):
    spec = describe(name, weights=shared / 'weights' / file)
    paths = sorted((shared / 'data/coco-mini/train2017').glob('*.jpg'))[:8]
    batch = np.stack([preprocessing.load(path, spec.preprocessing) for path in paths])
    features = encode(spec, batch)
    assert features.shape == shape
    assert features.dtype == np.float32
    assert np.isfinite(features).all()
    assert min(spread(features)) > 0.3
    # Trained features hardly notice a mirror: an image is nearer to its own than to any other
    # image.
    means, mirrored = features.mean(1), encode(spec, batch[:, :, ::-1]).mean(1)
    assert (np.linalg.norm(means[:, None] - mirrored[None],
                           axis=-1).argmin(1) == np.arange(8)).all()


def test_two_encoders_at_once_leave_the_process_alone():
    from tf_keras.src import backend

    user = backend._SESSION.session
    batch = pictures(2, 32)
    vgg = Encoder(describe('vgg19', 'conv2_2', 32), threads=1)
    other = Encoder(describe('vgg19', 'conv2_1', 32, seed=3), threads=1)
    first = vgg.encode(batch)
    assert other.encode(batch).shape == (2, 256, 128)
    other.close()
    assert np.array_equal(vgg.encode(batch), first)
    vgg.close()
    assert tf.executing_eagerly() and backend._SESSION.session is user
    with pytest.raises(TypeError, match='uint8'):
        vgg.encode(batch / 255)


def test_a_spec_goes_to_json_and_back():
    spec = describe('vgg19', 'conv5_3', 448, 'squash', seed=4)
    assert (spec.grid, spec.dim) == ((28, 28), 512)
    assert EncoderSpec.from_dict(json.loads(json.dumps(spec.to_dict()))) == spec
    assert spec.preprocessing == preprocessing.Preprocessing(448, 'squash')
    assert set(spec.identity()) == {'encoder', 'layer', 'size', 'resize', 'weights_sha256', 'grid',
                                    'dim'}
    with pytest.raises(InputError, match='colour'):
        EncoderSpec.from_dict({**spec.to_dict(), 'colour': 1})


def test_the_path_of_the_weights_is_no_part_of_the_identity(tmp_path):
    for name in ('a.h5', 'b.h5'):
        (tmp_path / name).write_bytes(b'same')
    one, two = (describe('vgg19', weights=tmp_path / name) for name in ('a.h5', 'b.h5'))
    assert one != two and one.identity() == two.identity()
    (tmp_path / 'b.h5').write_bytes(b'other')
    assert describe('vgg19', weights=tmp_path / 'b.h5').identity() != one.identity()


def test_weights_are_found_again_from_another_directory(tmp_path, monkeypatch):
    (tmp_path / 'a.h5').write_bytes(b'same')
    monkeypatch.chdir(tmp_path)
    assert describe('vgg19', weights='a.h5').weights == str(tmp_path / 'a.h5')
    assert describe('vgg19', weights='random').weights == 'random'


@pytest.mark.parametrize(('choice', 'message'), [
    ({'name': 'vgg91'}, 'did you mean vgg19'),
    ({'name': 'vgg19', 'layer': 'conv5_5'}, 'near it: .*conv5_4'),
    ({'name': 'vgg19', 'size': 230}, 'multiple of 16'),
    ({'name': 'vgg19', 'size': -16}, 'positive'),
    ({'name': 'vgg19', 'resize': 'pad'}, 'crop, squash'),
    ({'name': 'mobilenet_v2', 'size': 100}, 'multiple of 32'),
    ({'name': 'mobilenet_v2', 'layer': 'block_6_expand_rellu', 'size': 96},
     'near it: block_6_expand_relu'), ({'name': 'inception_v3', 'size': 74}, 'at least 75')])
def test_choices_that_do_not_exist(choice, message):
    with pytest.raises(InputError, match=message) as caught:
        describe(**choice)
    assert '\n' not in str(caught.value)


@pytest.mark.parametrize(('name', 'size', 'grid'), [
    ('inception_v3', 299, (8, 8)), ('resnet50', 224, (7, 7)), ('resnet50', 64, (2, 2))])
def test_the_other_encoders(name, size, grid):
    spec = describe(name, size=size)
    assert (spec.grid, spec.dim) == (grid, 2048)


def test_half_precision_is_the_same_numbers_rounded():
    spec, batch = describe('vgg19', 'conv1_2', 32, seed=1), pictures(3, 32)
    with Encoder(spec) as encoder:
        half, whole = encoder.encode(batch, np.float16), encoder.encode(batch)
    assert (half.dtype, whole.dtype) == (np.float16, np.float32)
    assert np.array_equal(half, whole.astype(np.float16)) and not np.array_equal(half, whole)
