"""Weight files of every published layout give back the same arrays; others do not."""

import h5py
import numpy as np
import pytest
import scipy.io

from core.common.errors import InputError
from core.encoders import weight_files
from tests.support.thin_vgg import LAYERS, write_keras, write_matconvnet


@pytest.fixture
def arrays():
    generator = np.random.default_rng(3)
    return [[generator.normal(size=shape).astype(np.float32) for shape in layer.shapes]
            for layer in LAYERS]


def same(read, arrays):
    return len(read) == len(arrays) and all(
        a.dtype == np.float32 and np.array_equal(a, b)
        for layer, expected in zip(read, arrays, strict=True)
        for a, b in zip(layer, expected, strict=True)
    )


@pytest.mark.parametrize('top', [False, True])
@pytest.mark.parametrize('style', ['keras1', 'keras2', 'model', 'pieces'])
def test_keras_layouts(tmp_path, arrays, style, top):
    write_keras(tmp_path / 'w.h5', arrays, style, top)
    assert same(weight_files.read(tmp_path / 'w.h5', LAYERS, 'vgg19'), arrays)


@pytest.mark.parametrize('nesting', ['filters', 'weights', 'net'])
def test_matconvnet_nestings(tmp_path, arrays, nesting):
    write_matconvnet(tmp_path / 'w.mat', arrays, nesting)
    assert same(weight_files.read(tmp_path / 'w.mat', LAYERS, 'vgg19', matconvnet=True), arrays)


@pytest.mark.parametrize('module', ['keras', 'tf_keras'])
@pytest.mark.parametrize('end', ['.weights.h5', '.h5'])
@pytest.mark.filterwarnings('ignore')
def test_files_that_keras_itself_writes(tmp_path, arrays, module, end):
    keras = pytest.importorskip(module)
    x = inputs = keras.Input((16, 16, 3))
    convolutions = []
    for values in arrays:
        convolutions.append(keras.layers.Conv2D(len(values[1]), 3, padding='same'))
        x = convolutions[-1](x)
    model = keras.Model(inputs, x)
    for layer, values in zip(convolutions, arrays, strict=True):
        layer.set_weights(values)
    path = str(tmp_path / f'w{end}')
    model.save_weights(path) if end == '.weights.h5' else model.save(path)
    assert same(weight_files.read(path, LAYERS, 'vgg19'), arrays)


def test_layers_are_found_by_name_in_any_order(tmp_path, arrays):
    layers = [weight_files.Layer('one', 'conv2d', ((2, 2),)),
              weight_files.Layer('two', 'conv2d', ((2, 2),))]
    with h5py.File(tmp_path / 'w.h5', 'w') as file:
        for number, name in enumerate(('two', 'one')):
            file.create_group(name).attrs['weight_names'] = ['kernel']
            file[name]['kernel'] = np.full((2, 2), number)
        file.attrs['layer_names'] = ['two', 'one']
    one, two = weight_files.read(tmp_path / 'w.h5', layers, 'net')
    assert one[0][0, 0] == 1 and two[0][0, 0] == 0


def refused(path, match, **options):
    with pytest.raises(InputError, match=match) as caught:
        weight_files.read(path, LAYERS, 'vgg19', **options)
    assert str(path) in str(caught.value) and '\n' not in str(caught.value)


def test_another_network(tmp_path, arrays):
    path = tmp_path / 'w.h5'
    vgg16 = [layer for layer in LAYERS if layer.name not in ('conv3_4', 'conv4_4', 'conv5_4')]
    write_keras(path, [[np.zeros(shape) for shape in layer.shapes] for layer in vgg16],
                layers=vgg16)
    refused(path, 'conv3_4 needs shapes 3x3x7x7 and 7, the file has 3x3x7x8 and 8 in block4_conv1')
    write_keras(path, arrays[:15], layers=LAYERS[:15])
    refused(path, '15 layers with weights, but 16 are needed .conv5_4 is missing')
    more = weight_files.Layer('conv6_1', 'conv2d', ((3, 3, 9, 9), (9,)))
    write_keras(path, [*arrays, [np.zeros(shape) for shape in more.shapes]], layers=[*LAYERS, more])
    refused(path, 'further layer block6_conv1')


def test_theano_kernels(tmp_path, arrays):
    write_keras(tmp_path / 'w.h5', arrays)
    with h5py.File(tmp_path / 'w.h5', 'a') as file:
        file.attrs['backend'] = b'theano'
    refused(tmp_path / 'w.h5', 'Theano')


def test_damaged_and_foreign_files(tmp_path, arrays):
    path = tmp_path / 'w.h5'
    refused(path, 'No such file')
    write_keras(path, arrays)
    whole = path.read_bytes()
    for size in (600, len(whole) // 2, len(whole) - 100):
        path.write_bytes(whole[:size])
        refused(path, 'damaged')
    path.write_text('<html>404 Not Found</html>')
    refused(path, 'is not a Keras .h5 file')
    path.write_bytes(b'')
    refused(path, 'is not a Keras .h5 or a MatConvNet .mat', matconvnet=True)
    with h5py.File(path, 'w') as file:
        file['data'] = [1, 2]
    refused(path, 'no Keras layers')


def test_damaged_and_foreign_mat_files(tmp_path, arrays):
    path = tmp_path / 'w.mat'
    write_matconvnet(path, arrays, 'weights')
    refused(path, 'needs a Keras .h5')
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    refused(path, 'damaged', matconvnet=True)
    scipy.io.savemat(path, {'x': np.zeros(3)})
    refused(path, 'no MatConvNet layers', matconvnet=True)
    path.write_bytes(b'MATLAB 7.3 MAT-file'.ljust(512) + b'\x89HDF\r\n\x1a\n')
    refused(path, '7.3', matconvnet=True)


def test_hash_is_of_the_bytes(tmp_path):
    (tmp_path / 'w').write_bytes(b'abc')
    digest = 'ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad'
    assert weight_files.sha256(tmp_path / 'w') == digest
    with pytest.raises(InputError, match='No such file'):
        weight_files.sha256(tmp_path / 'x')
