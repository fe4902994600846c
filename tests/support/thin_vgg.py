"""VGGs with few channels, and their weights as the published files hold them."""

import h5py
import numpy as np
import scipy.io

from core.encoders.networks import Vgg

# All widths differ.
THIN = {'vgg19': Vgg('vgg19', (2, 2, 4, 4, 4), (5, 6, 7, 8, 9)),
        'vgg16': Vgg('vgg16', (2, 2, 3, 3, 3), (5, 6, 7, 8, 9))}
LAYERS = THIN['vgg19'].layers()


def write_keras(path, arrays, style='keras2', top=False, layers=LAYERS):
    """Write weights as Keras does.

    Keras 1 (bytes), Keras 2 (str), a whole model, or a Keras 1 list cut into pieces.
    """
    text = (lambda name: name.encode()) if style == 'keras1' else str
    with h5py.File(path, 'w') as file:
        root = file.create_group('model_weights') if style == 'model' else file
        names = []
        for number, (layer, values) in enumerate(zip(layers, arrays, strict=True)):
            name = f'block{layer.name[4]}_{layer.name[:4]}{layer.name[6:]}'
            ends = ('W_1:0', 'b_1:0') if style == 'keras1' else ('kernel:0', 'bias:0')
            stored = [f'{name}_{end}' if style == 'keras1' else f'{name}/{end}' for end in ends]
            group = root.create_group(name)
            group.attrs['weight_names'] = [text(each) for each in stored]
            for each, value in zip(stored, values, strict=True):
                group[each] = value
            names.append(name)
            if number == 1:  # a layer without weights, as Keras stores poolings
                root.create_group('pool').attrs['weight_names'] = np.zeros(0, 'S1')
                names.append('pool')
        if top:
            group = root.create_group('fc1')
            group.attrs['weight_names'] = [text('fc1/kernel:0'), text('fc1/bias:0')]
            group.create_dataset('fc1/kernel:0', (441, 11), 'f4')
            group.create_dataset('fc1/bias:0', (11,), 'f4')
            names.append('fc1')
        if style == 'pieces':
            root.attrs['layer_names0'] = [text(name) for name in names[:7]]
            root.attrs['layer_names1'] = [text(name) for name in names[7:]]
        else:
            root.attrs['layer_names'] = [text(name) for name in names]


def cell(*items):
    """Return a MATLAB cell array of one row."""
    made = np.empty((1, len(items)), object)
    for index, item in enumerate(items):
        made[0, index] = item
    return made


def write_matconvnet(path, arrays, nesting, layers=LAYERS):
    """Write weights as MatConvNet does.

    RGB kernels in the first layer, ReLU and pooling layers between. The nesting 'filters' is the
    early one, 'weights' the later, whose fields also come in another order; 'net' wraps the latter
    in a variable `net`.
    """
    made = []
    for number, (layer, (kernel, bias)) in enumerate(zip(layers, arrays, strict=True)):
        if number == 0:
            kernel = kernel[:, :, ::-1]
        if layer.name.endswith('_1') and number:
            made.append({'name': f'pool{number}', 'type': 'pool', 'stride': [2.0, 2.0],
                         'pool': [2.0, 2.0]})
        common = {'stride': [1.0, 1.0], 'pad': [1.0, 1.0, 1.0, 1.0]}
        if nesting == 'filters':
            made.append({'filters': kernel, 'biases': bias[None], **common, 'type': 'conv',
                         'name': layer.name})
        else:
            made.append({'name': layer.name, 'type': 'conv', **common,
                         'weights': cell(kernel, bias[:, None])})
        made.append({'name': 'relu' + layer.name[4:], 'type': 'relu'})
    made.append({'name': 'prob', 'type': 'softmax'})
    mean = np.broadcast_to(np.array([123.68, 116.779, 103.939], np.float32), (4, 4, 3))
    content = cell(*made)
    normalization = {'averageImage': mean}
    if nesting == 'net':
        network = {'layers': content, 'meta': {'normalization': normalization}}
        scipy.io.savemat(path, {'net': network})
    else:
        scipy.io.savemat(path, {'layers': content, 'normalization': normalization})
