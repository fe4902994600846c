"""Reading encoder weights from other people's files: Keras `.h5` and MatConvNet `.mat`.

All readers take what the network expects, a list of `Layer` in the network's order, and return the
arrays of each layer in TensorFlow's layout, kernels (height, width, in, out), or raise an
`InputError` that names the first layer that differs. Nothing is assigned here, and no Keras is
needed.
"""

import hashlib
import os
import re
import typing
from collections.abc import Iterable, Sequence
from typing import Any

import h5py
import numpy as np

from core.common.aliases import PathLike
from core.common.errors import InputError

_HDF5 = b'\x89HDF\r\n\x1a\n'


class Layer(typing.NamedTuple):
    """One layer with weights, as the network expects it.

    Attributes:
        name: str, the layer's name in the network.
        kind: str, its Keras class in snake case ('conv2d', 'batch_normalization').
        shapes: tuple of shapes (tuples of int), in the order in which Keras lists the layer's
            weights.
    """

    name: str
    kind: str
    shapes: tuple[tuple[int, ...], ...]


def sha256(path: PathLike) -> str:
    """Return the SHA-256 of a file's bytes as a hexadecimal str."""
    digest = hashlib.sha256()
    try:
        with open(path, 'rb') as file:
            while block := file.read(1 << 20):
                digest.update(block)
    except OSError as error:
        raise InputError(f'cannot read weights file {path}: {error.strerror}') from error
    return digest.hexdigest()


def read(path: PathLike, layers: Sequence[Layer], network: str, matconvnet: bool = False,
         bare: bool = False) -> list[list[np.ndarray]]:
    """Read the weights of a network from a file, whose format is recognised by its first bytes.

    Args:
        path: str, the file.
        layers: list of `Layer`, all that the network has.
        network: str, its name in messages.
        matconvnet: bool, whether a MatConvNet `.mat` is known to exist for this network.
        bare: bool, whether more layers in the file than in the network are fine whatever they are;
            by default only dense layers (a classifier on top) are.

    Returns:
        List (one item a layer) of lists of float32 arrays.

    Raises:
        InputError: if the file is damaged or belongs to another network.
    """
    try:
        with open(path, 'rb') as file:
            head = file.read(520)
    except OSError as error:
        raise InputError(f'cannot read weights file {path}: {error.strerror}') from error
    if head.startswith(_HDF5):
        return read_keras(path, layers, network, bare)
    if head.startswith(b'MATLAB') or str(path).endswith('.mat'):
        if not matconvnet:
            raise InputError(f'{path} is a MATLAB file, but {network} needs a Keras .h5 file of '
                             'weights')
        if head[512:].startswith(_HDF5):
            raise InputError(f'{path} is a MATLAB 7.3 file; save it with -v7, or use the published '
                             'file')
        return read_matconvnet(path, layers, network)
    formats = 'a Keras .h5 or a MatConvNet .mat file' if matconvnet else 'a Keras .h5 file'
    raise InputError(f'{path} is not {formats} of weights for {network} (wrong or damaged file)')


# --------------------------------------------------------------------------------------------------
# Keras


def read_keras(path: PathLike, layers: Sequence[Layer], network: str,
               bare: bool = False) -> list[list[np.ndarray]]:
    """Read a Keras weights file or whole-model file; arguments and result as `read`.

    Keras 1 and 2 (and tf-keras) list layers and weights in the attributes `layer_names` and
    `weight_names`, as bytes or str, in the root or, in whole-model files, in the group
    `model_weights`. Keras 3's `.weights.h5` has one group a layer, named after the layer or after
    its class with a counter, with its arrays in `vars/0`, `vars/1`, ... Layers are matched by name
    if the file has all the network's names, else by order.
    """
    try:
        with h5py.File(path, 'r') as file:
            root = file.get('model_weights', file)
            if 'layer_names' in root.attrs or 'layer_names0' in root.attrs:
                stored = _attribute_layout(path, root, layers)
            else:
                stored = _group_layout(path, root, layers, network)
            _compare(path, stored, layers, network, bare)
            return [[np.asarray(array, np.float32) for array in arrays]
                    for _, arrays in stored[: len(layers)]]
    except (OSError, KeyError, RuntimeError, ValueError) as error:
        raise InputError(f'{path} is damaged or is no Keras weights file ({error}); fetch it '
                         'again') from error


def _attribute_layout(path: PathLike, root: h5py.Group,
                      layers: Sequence[Layer]) -> list[tuple[str, list]]:
    if _text(root.attrs.get('backend', 'tensorflow')) == 'theano':
        raise InputError(f'{path} was written by Theano, whose kernels are flipped; use the '
                         'TensorFlow file')
    stored = []
    for name in _names(root, 'layer_names'):
        group = root[name]
        arrays = [group[weight] for weight in _names(group, 'weight_names')]
        if arrays:
            stored.append((name, arrays))
    by_name = dict(stored)
    if all(layer.name in by_name for layer in layers):
        names = {layer.name for layer in layers}
        rest = [(name, arrays) for name, arrays in stored if name not in names]
        return [(layer.name, by_name[layer.name]) for layer in layers] + rest
    return stored


def _group_layout(path: PathLike, root: h5py.Group, layers: Sequence[Layer],
                  network: str) -> list[tuple[str, list]]:
    if 'layers' not in root:
        raise InputError(f'{path} holds no Keras layers: is it a file of weights for {network}?')
    groups = {key: group['vars'] for key, group in root['layers'].items() if 'vars' in group}
    by_name = {_text(group.attrs['name']): group for group in groups.values()
               if 'name' in group.attrs}
    if not all(layer.name in by_name for layer in layers):
        by_name = {}
        counts: dict[str, int] = {}
        for layer in layers:
            number = counts[layer.kind] = counts.get(layer.kind, -1) + 1
            key = layer.kind if number == 0 else f'{layer.kind}_{number}'
            if key in groups:
                by_name[layer.name] = groups[key]
    return [
        (layer.name, [by_name[layer.name][index] for index in sorted(by_name[layer.name], key=int)])
        for layer in layers
        if layer.name in by_name
    ]


def _text(value: bytes | str) -> str:
    return value.decode('utf8') if isinstance(value, bytes) else str(value)


def _names(group: h5py.Group, attribute: str) -> list[str]:
    """Return a list attribute; Keras cuts long ones into `attribute0`, `attribute1`, ..."""
    if attribute in group.attrs:
        return [_text(name) for name in group.attrs[attribute]]
    names, part = [], 0
    while f'{attribute}{part}' in group.attrs:
        names += [_text(name) for name in group.attrs[f'{attribute}{part}']]
        part += 1
    return names


# --------------------------------------------------------------------------------------------------
# MatConvNet


def read_matconvnet(path: PathLike, layers: Sequence[Layer],
                    network: str) -> list[list[np.ndarray]]:
    """Read a MatConvNet network of plain convolutions; arguments and result as `read`.

    Two nestings are published: early files give each convolution the fields `filters` and `biases`,
    later ones a cell `weights` with the two arrays; the fields' order differs as well, so they are
    found by name. The layers lie in the variable `layers`, or in the field of that name of a
    variable `net`.

    MatConvNet keeps kernels as (height, width, in, out): its converter transposes Caffe's and turns
    the first layer's channels from BGR to RGB, and it feeds RGB minus its average image (123.68,
    116.779, 103.939). The graph feeds BGR, as Caffe and Keras do, so here the first layer's
    channels are turned back. (Much code that reads these files also swaps the kernels' height and
    width, and so computes the features of another network.)
    """
    import scipy.io

    try:
        content = scipy.io.loadmat(os.fspath(path))
    except Exception as error:  # scipy raises almost any type on damaged files
        raise InputError(
            f'{path} is damaged or is no MATLAB file ({error}); fetch it again') from error
    cell = content.get('layers')
    if cell is None and 'net' in content:
        net = _struct(content['net'])
        cell = net['layers'] if net is not None and 'layers' in net.dtype.names else None
    if cell is None:
        raise InputError(f'{path} holds no MatConvNet layers: is it a file of weights for '
                         f'{network}?')
    stored: list[tuple[str, list]] = []
    for item in np.asarray(cell, object).ravel():
        struct = _struct(item)
        if struct is None or struct.dtype.names is None:
            continue
        fields = struct.dtype.names
        if 'filters' in fields:
            arrays = [struct['filters'], struct['biases']]
        elif 'weights' in fields:
            arrays = list(np.asarray(struct['weights'], object).ravel())
        else:
            continue
        if len(arrays) != 2:
            continue
        kernel, bias = (np.asarray(_innermost(array), np.float32) for array in arrays)
        name = (str(_innermost(struct['name']).ravel()[0]) if 'name' in fields
                else f'layer {len(stored)}')
        stored.append((name, [kernel, bias.ravel()]))
    _compare(path, stored, layers, network, bare=True)
    arrays = [list(arrays) for _, arrays in stored[: len(layers)]]
    arrays[0][0] = np.ascontiguousarray(arrays[0][0][:, :, ::-1, :])
    return arrays


def _innermost(value: Any) -> Any:
    """Return the numeric or text array inside cells of one element."""
    value = np.asarray(value)
    while value.dtype == object and value.size == 1:
        value = np.asarray(value.ravel()[0])
    return value


def _struct(value: Any) -> Any:
    """Return the one record inside a MATLAB struct array or a cell that holds one, or None."""
    value = _innermost(value)
    return value.ravel()[0] if value.dtype.names and value.size == 1 else None


# --------------------------------------------------------------------------------------------------
# checking


def _compare(path: PathLike, stored: list[tuple[str, list]], layers: Sequence[Layer], network: str,
             bare: bool) -> None:
    """Raise `InputError` unless the stored layers have the shapes of the network's."""
    for position, layer in enumerate(layers):
        if position >= len(stored):
            raise InputError(f'{path} does not fit {network}: it has {len(stored)} layers with '
                             f'weights, but {len(layers)} are needed ({layer.name} is missing)')
        name, arrays = stored[position]
        shapes = tuple(tuple(array.shape) for array in arrays)
        if shapes != layer.shapes:
            raise InputError(f'{path} does not fit {network}: layer {layer.name} needs shapes '
                             f'{_show(layer.shapes)}, the file has {_show(shapes)} in {name}')
    extra = stored[len(layers) :]
    if not bare:
        for name, arrays in extra:
            if any(len(array.shape) > 2 for array in arrays) or re.search('conv', name):
                raise InputError(f'{path} does not fit {network}: it has the further layer {name}; '
                                 'is it of a larger network?')


def _show(shapes: Iterable[Sequence[int]]) -> str:
    return ' and '.join('x'.join(map(str, shape)) for shape in shapes) or 'none'
