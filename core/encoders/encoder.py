"""Encoders: from pixels to the annotation vectors a_1 ... a_L of the paper (section 3.1.1).

    spec = describe('vgg19', weights='vgg19_weights_tf_dim_ordering_tf_kernels_notop.h5')
    with Encoder(spec) as encoder:
        pixels = np.stack([preprocessing.load(path, spec.preprocessing) for path in paths])
        features = encoder.encode(pixels)

An `EncoderSpec` says everything that decides what features mean, including the hash of the weights;
it travels with the features and with the trained model, which accept each other only if
`identity()` agrees. A new encoder is one row of `known_encoders`. TensorFlow is imported when the
first graph is made: a misspelt name is known at once.
"""

import dataclasses
import hashlib
import os
import typing
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import DTypeLike

from core.common.aliases import Grid, PathLike, Session, Tensor, Variable
from core.common.errors import InputError
from core.common.suggestions import did_you_mean
from core.encoders import weight_files
from core.encoders.known_encoders import ENCODERS, EncoderRow
from core.encoders.networks import assign
from core.encoders.preprocessing import Preprocessing
from core.runtime.devices import Machine, session_config


@dataclasses.dataclass(frozen=True)
class EncoderSpec:
    """What features are: the encoder, its map, its weights and the preprocessing before it.

    Attributes:
        encoder: str, a name in `ENCODERS`.
        layer: str, the map.
        size: int, side of the input in pixels.
        resize: 'crop' or 'squash', see `Preprocessing`.
        weights: path of the weights file, or 'random'.
        weights_sha256: str, hash of the file's bytes; for random weights, of 'random:<seed>'.
        seed: int, of random weights.
        grid: (rows, columns) of the map; L = rows * columns.
        dim: int, channels of the map, D.
    """

    encoder: str
    layer: str
    size: int
    resize: str
    weights: str
    weights_sha256: str
    seed: int
    grid: Grid
    dim: int

    @property
    def preprocessing(self) -> Preprocessing:
        """The `Preprocessing` that brings pictures to the encoder's input."""
        return Preprocessing(self.size, self.resize)

    def identity(self) -> dict[str, Any]:
        """Return a dict for JSON of what must agree between features and a model.

        Where the weights file lies is left out.
        """
        fields = self.to_dict()
        del fields['weights'], fields['seed']
        return fields

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as a dict ready for JSON."""
        return {**dataclasses.asdict(self), 'grid': list(self.grid)}

    @classmethod
    def from_dict(cls, fields: Mapping[str, Any]) -> 'EncoderSpec':
        """Return the inverse of `to_dict`; raises `InputError` for unknown or missing fields."""
        names = {field.name for field in dataclasses.fields(cls)}
        if wrong := sorted(names ^ set(fields)):
            raise InputError('the description of an encoder has missing or unknown fields: '
                             f'{", ".join(wrong)}')
        return cls(**{**fields, 'grid': tuple(fields['grid'])})


def check_choice(name: str, size: int | None = None, resize: str = 'crop',
                 weights: PathLike = 'random') -> tuple[EncoderRow, int]:
    """Return what `describe` finds out without TensorFlow, which takes seconds to import.

    Returns:
        (the encoder's row of `ENCODERS`, size).

    Raises:
        InputError: an unknown name, a size or resizing that means nothing, or no such file.
    """
    row = _row(name)
    size = row.size if size is None else size
    Preprocessing(size, resize)  # checks both
    _check_file(row, name, os.fspath(weights))
    return row, size


def describe(name: str, layer: str | None = None, size: int | None = None, resize: str = 'crop',
             weights: PathLike = 'random', seed: int = 0) -> EncoderSpec:
    """Check a choice of encoder and complete it.

    Args:
        name: str, a name in `ENCODERS`.
        layer: str or None for the encoder's default; VGG19 has `conv1_1` ... `conv5_4` (after ReLU)
            and the same with `_pre` (before it), the others have the layer names of their Keras
            model.
        size: int or None for the encoder's default: side of the square input in pixels. VGG19 takes
            multiples of the layer's stride (16 for conv5_*), mobilenet_v2 and resnet50 multiples of
            32, inception_v3 75 and more.
        resize: 'crop' or 'squash'.
        weights: path of a weights file, or 'random'.
        seed: int, of random weights.

    Returns:
        `EncoderSpec`.

    Raises:
        InputError: for unknown names, sizes that do not fit, and missing files.
    """
    row, size = check_choice(name, size, resize, weights)
    layer = row.layer if layer is None else layer
    row.network.check_layer(layer, size)
    rows, columns, dim = row.network.shape(layer, size)
    weights = os.fspath(weights)
    digest = _hash(row, name, weights, seed)
    if weights != 'random':  # found again from another working directory
        weights = os.path.abspath(weights)
    return EncoderSpec(name, layer, size, resize, weights, digest, seed, (rows, columns), dim)


def build_encoder(images: Tensor, spec: EncoderSpec) -> tuple[Tensor, Callable[[Session], None]]:
    """Build an encoder in the default graph.

    Args:
        images: uint8 or float tensor (N, size, size, 3), RGB in 0..255, as `preprocessing.load`
            gives.
        spec: `EncoderSpec`.

    Returns:
        (features, restore): float32 tensor (N, L, D), row by row of the map, and a function that
        takes a session and loads the weights into it; it raises `InputError` if the weights file
        does not fit.
    """
    features, restore, _ = _build(images, spec)
    return features, restore


class TrainableEncoder(typing.NamedTuple):
    """An encoder whose last layers are trained.

    Attributes:
        pixels: uint8 tensor (N, size, size, 3), RGB, what it is fed.
        features: float32 tensor (N, L, D).
        restore: function that takes a session and loads the weights of all variables, trained and
            frozen.
        trained: list of variables: kernels, biases, and what scales and shifts batch
            normalisations; they are saved with the best model.
        frozen: list of the encoder's other variables.
    """

    pixels: Tensor
    features: Tensor
    restore: Callable[[Session], None]
    trained: list[Variable]
    frozen: list[Variable]


def build_trainable(images: Tensor, spec: EncoderSpec, first: str) -> TrainableEncoder:
    """Build an encoder of which the layers from `first` on, in the network's order, are trained.

    Batch normalisations run in inference mode and keep their statistics: those of a small batch of
    photos would be worse, and training and decoding see the same features. The frozen variables are
    in no collection of the graph: no optimizer finds them and no checkpoint holds them, as the
    weights file does.

    Args:
        images, spec: as `build_encoder`.
        first: str, name of a layer: for VGG19 conv1_1 ... conv5_4, for the others the layers of
            their Keras model.

    Returns:
        TrainableEncoder, its variables below the scope `encoder`.

    Raises:
        InputError: no such layer, with near ones, or nothing to train from it on.
    """
    from core.runtime.backend import tf1

    places = set(check_trainable(spec, first))
    with tf1.variable_scope('encoder'):
        features, restore, variables = _build(images, spec)
    trained: list[Variable] = []
    frozen: list[Variable] = []
    for place, layer in enumerate(variables):
        for variable in layer:
            (trained if place in places and variable.trainable else frozen).append(variable)
    left_out = {id(variable) for variable in frozen}
    for key in (tf1.GraphKeys.GLOBAL_VARIABLES, tf1.GraphKeys.TRAINABLE_VARIABLES):
        collection = tf1.get_collection_ref(key)
        collection[:] = [variable for variable in collection if id(variable) not in left_out]
    return TrainableEncoder(images, features, restore, trained, frozen)


def check_trainable(spec: EncoderSpec, first: str) -> list[int]:
    """Return the places of the layers that `build_trainable` trains; InputError for none."""
    return _row(spec.encoder).network.tail(first, spec.layer, spec.size)


def _build(images: Tensor,
           spec: EncoderSpec) -> tuple[Tensor, Callable[[Session], None], list[list[Variable]]]:
    """Do what `build_encoder` does, and return the list of lists of variables too."""
    from core.runtime.backend import tf

    row = _row(spec.encoder)
    pixels = tf.cast(images, tf.float32)
    pixels.set_shape((None, spec.size, spec.size, 3))
    maps, variables = row.network.build(row.scale(pixels), spec.layer)
    features = tf.reshape(maps, (-1, spec.grid[0] * spec.grid[1], spec.dim))

    def restore(session: Session) -> None:
        assign(session, variables, _weights(row, spec))

    return features, restore, variables


class Encoder:
    """An encoder with a graph and a session of its own.

    Attributes:
        spec: `EncoderSpec`.
    """

    def __init__(self, spec: EncoderSpec, threads: int = 0, machine: Machine | None = None) -> None:
        """Build the graph and load the weights.

        Args:
            spec: `EncoderSpec`.
            threads: int, threads that the computation may use; 0 leaves it to `machine`.
            machine: Machine, where to compute; None: Machine().

        Raises:
            InputError: if the weights file is missing, has changed or does not fit.
        """
        from core.runtime.backend import tf, tf1

        self.spec = spec
        with tf.Graph().as_default() as graph:
            self._images = tf1.placeholder(tf.uint8, (None, spec.size, spec.size, 3), 'images')
            features, restore = build_encoder(self._images, spec)
            self._features = {np.dtype(np.float32): features,
                              np.dtype(np.float16): tf.cast(features, tf.float16)}
        machine = machine or Machine()
        machine = dataclasses.replace(machine, threads=threads or machine.threads)
        self._session = tf1.Session(graph=graph, config=session_config(machine))
        try:
            restore(self._session)
        except BaseException:
            self.close()
            raise

    def encode(self, images: np.ndarray, dtype: DTypeLike = np.float32) -> np.ndarray:
        """Compute features.

        Args:
            images: uint8 (N, size, size, 3), RGB; not copied where it is contiguous and begins at a
                multiple of 64 bytes.
            dtype: np.float32, or np.float16 for the same numbers rounded in the graph (too large
                ones are infinite).

        Returns:
            (N, L, D) of that type.
        """
        images = np.asarray(images)
        if images.dtype != np.uint8:
            raise TypeError(f'images must be uint8, not {images.dtype}')
        return self._session.run(self._features[np.dtype(dtype)], {self._images: images})

    def close(self) -> None:
        """Release the session; the encoder cannot be used afterwards."""
        self._session.close()

    def __enter__(self) -> 'Encoder':
        return self

    def __exit__(self, *unused: object) -> None:
        self.close()


def _row(name: str) -> EncoderRow:
    if name not in ENCODERS:
        raise InputError(f'unknown encoder {name!r}; there are: '
                         f'{", ".join(ENCODERS)}{did_you_mean(name, ENCODERS)}')
    return ENCODERS[name]


def _check_file(row: EncoderRow, name: str, weights: PathLike) -> None:
    if weights != 'random' and not os.path.isfile(weights):
        raise InputError(f'no weights file {weights}; {name} needs {row.files}, or "random" for a '
                         'try without')


def _hash(row: EncoderRow, name: str, weights: PathLike, seed: int) -> str:
    if weights == 'random':
        return hashlib.sha256(f'random:{seed}'.encode()).hexdigest()
    _check_file(row, name, weights)
    return weight_files.sha256(weights)


def _weights(row: EncoderRow, spec: EncoderSpec) -> list[list[np.ndarray]]:
    if spec.weights == 'random':
        return row.network.random(spec.seed, row.scale)
    if _hash(row, spec.encoder, spec.weights, spec.seed) != spec.weights_sha256:
        raise InputError(f'the weights file {spec.weights} has changed since it was described; '
                         'give the original')
    layers = row.network.layers(spec.size)
    return weight_files.read(spec.weights, layers, spec.encoder, row.matconvnet,
                             bare=row.matconvnet)
