"""The convolutional networks behind the encoders: layers, graph, and random weights.

A network offers:

- `check_layer(layer, size)`: raises `InputError` for layers and input sizes that it does not have;
- `shape(layer, size)`: (rows, columns, channels) of a layer's map;
- `layers(size)`: its layers with weights, all of them, as a list of `weight_files.Layer`;
- `build(pixels, layer)`: the graph; returns the map (N, rows, columns, channels) and the variables,
  a list of lists in the order of `layers`, which may end early where later layers are not needed;
- `tail(first, layer, size)`: places in `layers` of what is trained when `layer` is fine-tuned from
  `first` on;
- `random(seed, scale)`: weights in the same order; `scale` turns RGB in 0..255 into the network's
  input.

Networks are built inside the default graph, whichever it is. TensorFlow is imported when the first
is built, so that wrong names and sizes are found without it.
"""

import contextlib
import functools
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import numpy as np

from core.common.aliases import Session, Tensor, Variable
from core.common.errors import InputError
from core.common.suggestions import near
from core.encoders.weight_files import Layer
from core.runtime.devices import CPU, session_config

KerasModel = Any  # tf_keras.Model, which publishes no types

_PRE = '_pre'  # marks the map of a convolution before its ReLU


def assign(session: Session, variables: Sequence[Sequence[Variable]],
           weights: Sequence[Sequence[np.ndarray]]) -> None:
    """Initialise variables to given values, without adding to the graph or to its constants.

    Args:
        session: session of the variables' graph.
        variables: list of lists of variables.
        weights: list of lists of arrays of the same shapes; lists beyond those of `variables` are
            not used.
    """
    pairs = []
    for layer, values in zip(variables, weights, strict=False):
        for variable, value in zip(layer, values, strict=True):
            pairs.append((variable, value))
    session.run(  # at once, as each run with new fetches costs a graph optimisation
        [variable.initializer for variable, _ in pairs],
        {variable.initializer.inputs[1]: value for variable, value in pairs},
    )


@contextlib.contextmanager
def _without_notices() -> Iterator[None]:
    """Silence the notice of a deprecated function of TensorFlow's that tf_keras uses."""
    from core.runtime.backend import tf

    logger = tf.get_logger()
    level = logger.level
    logger.setLevel('ERROR')
    try:
        yield
    finally:
        logger.setLevel(level)


def _unknown_layer(network: str, layer: str, names: Iterable[str], default: str) -> InputError:
    proposals = near(layer, names, 4, 0.3) or list(names)[-4:]
    return InputError(f'{network} has no map called {layer!r}; near it: {", ".join(proposals)}; '
                      f'the default is {default}')


def _tail(network: str, first: str, layer: str, names: Sequence[str],
          weighted: Sequence[str]) -> list[int]:
    """Return the places in `weighted` of the layers at `first` or after it in `names`.

    Args:
        network: str, its name. first: str. layer: str, the map.
        names: list of the names of all layers that the map is computed by, in the network's order.
        weighted: list of the names of the network's layers with weights.
    """
    trainable = [name for name in names if name in set(weighted)]
    if first not in names:
        proposals = near(first, names, 4, 0.3) or trainable[-4:]
        raise InputError(f'finetune_from: {network} has no layer {first!r} before its map {layer}; '
                         f'near it: {", ".join(proposals)}')
    chosen = set(names[names.index(first):])
    places = [place for place, name in enumerate(weighted) if name in chosen]
    if not places:
        raise InputError(f'finetune_from: from {first} on {network} has nothing to train up to its '
                         f'map {layer}; the last layers with weights: {", ".join(trainable[-4:])}')
    return places


class Vgg:
    """VGG16 or VGG19 (Simonyan & Zisserman, 2015) of bare `tf.nn.conv2d`, up to a layer.

    Layers are `conv1_1` ... `conv5_4` (VGG16: `conv5_3`), each after its ReLU and before the
    pooling that may follow, and the same names with `_pre` for the maps before the ReLU. Five
    blocks of 64, 128, 256, 512 and 512 channels; four poolings before block 5, so that conv5_* of
    a 224 x 224 image is 14 x 14.
    """

    def __init__(self, name: str, depths: Sequence[int],
                 channels: Sequence[int] = (64, 128, 256, 512, 512)) -> None:
        """Describe a network.

        Args:
            name: str, 'vgg16' or 'vgg19'.
            depths: ints, the convolutions of each block: (2, 2, 3, 3, 3) or (2, 2, 4, 4, 4).
            channels: ints, those of each block.
        """
        self.name = name
        self.blocks = tuple(zip(depths, channels, strict=True))
        self.convolutions = [f'conv{b}_{i}' for b, (n, _) in enumerate(self.blocks, 1)
                             for i in range(1, n + 1)]

    def check_layer(self, layer: str, size: int) -> None:
        """Raise `InputError` unless the layer exists and the size is a multiple of its stride."""
        if layer.removesuffix(_PRE) not in self.convolutions:
            names = [name + end for name in self.convolutions for end in ('', _PRE)]
            raise _unknown_layer(self.name, layer, names, self.convolutions[-1])
        stride = 2 ** (int(layer[4]) - 1)
        if size < 1 or size % stride:
            raise InputError(f'size {size} does not fit {self.name} {layer}: it must be a multiple '
                             f'of {stride}')

    def shape(self, layer: str, size: int) -> tuple[int, int, int]:
        """Return (rows, columns, channels) of the layer's map for a size x size image."""
        block = int(layer[4])
        side = size // 2 ** (block - 1)
        return side, side, self.blocks[block - 1][1]

    def layers(self, size: int | None = None) -> list[Layer]:
        """Return all convolutions with the shapes of kernel and bias."""
        widths = [width for n, width in self.blocks for _ in range(n)]
        return [
            Layer(name, 'conv2d', ((3, 3, before, width), (width,)))
            for name, before, width in zip(self.convolutions, [3, *widths], widths, strict=False)
        ]

    def tail(self, first: str, layer: str, size: int | None = None) -> list[int]:
        """Return the places in `layers` of the convolutions from `first` up to the map.

        Raises:
            InputError: no such layer before the map, with near ones.
        """
        names = self.convolutions[: self.convolutions.index(layer.removesuffix(_PRE)) + 1]
        return _tail(self.name, first, layer, names, self.convolutions)

    def build(self, pixels: Tensor, layer: str) -> tuple[Tensor, list[list[Variable]]]:
        """Return the graph up to `layer`.

        Args:
            pixels: float32 (N, size, size, 3), BGR minus the mean.
            layer: str, checked by `check_layer`.

        Returns:
            The map (N, rows, columns, channels) and the list of [kernel, bias] variables of the
            convolutions built.
        """
        from core.runtime.backend import tf, tf1

        variables: list[list[Variable]] = []
        x = pixels
        for conv in self.layers():
            if conv.name.endswith('_1') and variables:
                x = tf.nn.max_pool2d(x, 2, 2, 'VALID')
            with tf1.variable_scope(conv.name):
                kernel, bias = (
                    tf1.get_variable(name, shape, tf.float32, tf1.zeros_initializer(),
                                     use_resource=True)
                    for name, shape in zip(('kernel', 'bias'), conv.shapes, strict=True))
                variables.append([kernel, bias])
                x = tf.nn.bias_add(tf.nn.conv2d(x, kernel, 1, 'SAME'), bias)
                if layer == conv.name + _PRE:
                    break
                x = tf.nn.relu(x)
                if layer == conv.name:
                    break
        return x, variables

    def random(self, seed: int,
               scale: Callable[[Tensor], Tensor] | None = None) -> list[list[np.ndarray]]:
        """Return seeded kernels that keep images apart through all layers; biases are zero.

        He's initialisation alone would not: a ReLU's outputs have a positive mean, which many
        layers amplify until all images and places look alike. So each kernel tap beyond the first
        layer sums to zero over its inputs, which removes the mean wherever it is, borders included,
        and its variance is that of an input whose mean is removed: 1 / (fan_in * Var relu(z)), z
        standard normal. The first layer sees pixels of standard deviation near 64, and divides by
        it, so features are of order one.
        """
        generator = np.random.default_rng(seed)
        variance = 0.5 - 0.5 / np.pi  # of relu(z)
        weights = []
        for number, conv in enumerate(self.layers()):
            shape, bias = conv.shapes
            kernel = generator.standard_normal(shape, np.float32)
            fan_in = np.prod(shape[:3])
            if number:
                kernel -= kernel.mean(2, keepdims=True)
                kernel /= np.sqrt(fan_in * variance)
            else:
                kernel /= 64 * np.sqrt(fan_in)
            weights.append([kernel, np.zeros(bias, np.float32)])
        return weights


class KerasNetwork:
    """A network of `tf_keras.applications` without its top, built in the default v1 graph.

    tf_keras is imported when it is first needed. Its global session is neither used nor set.
    """

    def __init__(self, application: str, default: str, stride: int = 1, smallest: int = 32) -> None:
        """Describe a network.

        Args:
            application: str, name of the function in `tf_keras.applications`.
            default: str, name of the last map.
            stride: int, input sizes must be its multiples.
            smallest: int, smallest input size.
        """
        self.name, self.default, self.stride, self.smallest = application, default, stride, smallest

    def check_layer(self, layer: str, size: int) -> None:
        """Raise `InputError` unless the size fits and the layer exists and is a map."""
        if size < self.smallest or size % self.stride:
            raise InputError(f'size {size} does not fit {self.name}: it must be a multiple of '
                             f'{self.stride} of at least {self.smallest}')
        maps = self._maps(size)
        if layer not in maps:
            raise _unknown_layer(self.name, layer, list(maps), self.default)

    def shape(self, layer: str, size: int) -> tuple[int, int, int]:
        """Return (rows, columns, channels) of the layer's map for a size x size image."""
        return self._maps(size)[layer]

    def layers(self, size: int) -> list[Layer]:
        """Return all layers with weights, in Keras' order."""
        return self._survey(size)[1]

    @functools.lru_cache(maxsize=8)  # noqa: B019 - the networks are a module's constants
    def tail(self, first: str, layer: str, size: int) -> list[int]:
        """Return the places in `layers` of those from `first` on that the map is computed by.

        Of parallel branches all that Keras lists after `first` belong to it.

        Raises:
            InputError: no such layer before the map, with near ones, or nothing to train after it.
        """
        import tf_keras

        from core.runtime.backend import tf

        with tf.Graph().as_default():
            model = self._model(size)
            needed = {part.name for part in tf_keras.Model(model.inputs,
                                                           model.get_layer(layer).output).layers}
            names = [part.name for part in model.layers if part.name in needed]
        return _tail(self.name, first, layer, names, [part.name for part in self.layers(size)])

    def _maps(self, size: int) -> dict[str, tuple[int, int, int]]:
        return self._survey(size)[0]

    @functools.lru_cache(maxsize=8)  # noqa: B019 - the networks are a module's constants
    def _survey(self, size: int) -> tuple[dict[str, tuple[int, int, int]], list[Layer]]:
        """Return the maps by name, and the layers with weights, by building the network once."""
        from core.runtime.backend import tf

        with tf.Graph().as_default():
            model = self._model(size)
            maps = {}
            for layer in model.layers[1:]:
                shape = layer.output.shape.as_list()
                if len(shape) == 4 and None not in shape[1:]:
                    maps[layer.name] = tuple(shape[1:])
            return maps, [Layer(layer.name, _snake(type(layer).__name__),
                                tuple(tuple(w.shape.as_list()) for w in layer.weights))
                          for layer in model.layers if layer.weights]

    def _model(self, size: int) -> KerasModel:
        with _without_notices():
            import tf_keras

            application = getattr(tf_keras.applications, self.name)
            return application(include_top=False, weights=None, input_shape=(size, size, 3))

    def build(self, pixels: Tensor, layer: str) -> tuple[Tensor, list[list[Variable]]]:
        """Return the graph in inference mode; the variables are those of the whole network."""
        import tf_keras

        model = self._model(int(pixels.shape[1]))
        part = tf_keras.Model(model.inputs, model.get_layer(layer).output)
        return part(pixels, training=False), [each.weights for each in model.layers if each.weights]

    def random(self, seed: int, scale: Callable[[Tensor], Tensor]) -> list[list[np.ndarray]]:
        """Return seeded He-normal kernels, batch normalisations set to seeded pictures' statistics.

        Without the statistics, deep features of such networks overflow float16 or are alike for all
        images. The pictures always have the same size, so the weights depend on nothing but the
        seed.

        Args:
            seed: int.
            scale: function from RGB in 0..255 to what the network takes.
        """
        from core.runtime.backend import tf, tf1

        generator = np.random.default_rng(seed)
        pictures = _dead_leaves(generator, 16, 160)
        # On the CPU, so that the statistics do not depend on the machine's GPU.
        with tf.Graph().as_default() as graph, tf1.Session(graph=graph,
                                                           config=session_config(CPU)) as session:
            model = self._model(pictures.shape[1])
            for layer in model.layers:
                if 'BatchNorm' in type(layer).__name__:
                    layer.momentum = 0.0  # so that one pass replaces the statistics
            built = {id(update) for update in model.updates}
            with _without_notices():
                model(scale(tf.constant(pictures)), training=True)
            updates = [update for update in model.updates if id(update) not in built]
            session.run(tf1.global_variables_initializer())
            kernels = [variable for variable in model.weights if 'kernel' in variable.name]
            assign(session, [kernels], [[_he_normal(generator, kernel) for kernel in kernels]])
            session.run(updates)
            return session.run([layer.weights for layer in model.layers if layer.weights])


def _dead_leaves(generator: np.random.Generator, count: int, size: int) -> np.ndarray:
    """Draw overlapping rectangles of all scales and colours: statistics like those of photos.

    Returns:
        float32 (count, size, size, 3), RGB in 0..255.
    """
    pictures = np.zeros((count, size, size, 3), np.float32)
    for picture in pictures:
        picture[:] = generator.uniform(0, 255, 3)
        for side in sorted(size / generator.uniform(1, 30, 150), reverse=True):
            y, x = generator.uniform(-side, size, 2)
            height, width = side * generator.uniform(0.3, 1, 2)
            top, left = max(int(y), 0), max(int(x), 0)
            picture[top : max(int(y + height), 0),
                    left : max(int(x + width), 0)] = generator.uniform(0, 255, 3)
    return pictures


def _he_normal(generator: np.random.Generator, variable: Variable) -> np.ndarray:
    shape = variable.shape.as_list()
    fan_in = np.prod(shape[:2] if 'depthwise' in variable.name.rsplit('/', 1)[-1] else shape[:-1])
    return (generator.standard_normal(shape) * np.sqrt(2 / fan_in)).astype(np.float32)


def _snake(name: str) -> str:
    """Return the name of a class in Keras' files: DepthwiseConv2D -> depthwise_conv2d."""
    name = re.sub(r'\W+', '', name)
    name = re.sub('(.)([A-Z][a-z]+)', r'\1_\2', name)
    return re.sub('([a-z])([A-Z])', r'\1_\2', name).lower()
