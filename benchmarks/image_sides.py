"""The sides of comparisons about images: encoder and bare convolutions, prepro.py and encoder."""

import pathlib
import tempfile
import time

import numpy as np
from PIL import Image

from benchmarks import prepro
from benchmarks.tensorflow_sides import config
from core import datasets
from core.encoders.encoder import Encoder, describe
from core.encoders.known_encoders import ENCODERS
from core.runtime.backend import tf, tf1


def pixels(n, size):
    """Return (n, size, size, 3) uint8, noise."""
    return np.random.default_rng(1).integers(256, size=(n, size, size, 3), dtype=np.uint8)


class OurEncoder:
    """VGG19 as prepro.py runs it, from uint8 pixels to features.

    Args:
        threads, n, size: int; images of a batch and their side.
    """

    def __init__(self, threads=2, n=8, size=224):
        self.pixels, self.encoder = pixels(n, size), Encoder(describe('vgg19', size=size), threads)
        self.encode(0)

    def encode(self, number):
        """Encode one batch."""
        begun = time.perf_counter()
        self.encoder.encode(self.pixels)
        return {'seconds': time.perf_counter() - begun, 'items': len(self.pixels)}


class BareConvolutions:
    """The sixteen convolutions of VGG19 with bias, ReLU and pooling, on float32 pixels."""

    def __init__(self, threads=2, n=8, size=224):
        self.pixels = pixels(n, size).astype(np.float32)
        channels, random = 3, np.random.default_rng(2)
        with tf.Graph().as_default() as graph:
            self.input = x = tf1.placeholder(tf.float32, [None, size, size, 3])
            variables = []
            for block, (count, width) in enumerate(ENCODERS['vgg19'].network.blocks):
                if block:
                    x = tf.nn.max_pool2d(x, 2, 2, 'VALID')
                for layer in range(count):
                    kernel = random.standard_normal((3, 3, channels, width), np.float32)
                    kernel *= np.float32(np.sqrt(2 / (9 * channels)))
                    variable = tf1.get_variable(f'kernel_{block}_{layer}', kernel.shape,
                                                use_resource=True)
                    variables.append((variable, kernel))
                    bias = tf1.get_variable(f'bias_{block}_{layer}', [width],
                                            initializer=tf1.zeros_initializer(), use_resource=True)
                    x = tf.nn.conv2d(x, variable, 1, 'SAME')
                    # bias_add: so that it can be fused
                    x, channels = tf.nn.relu(tf.nn.bias_add(x, bias)), width
            self.output, initialize = x, tf1.global_variables_initializer()
        self.session = tf1.Session(graph=graph, config=config(threads))
        self.session.run(initialize)
        self.session.run([variable.initializer for variable, _ in variables],
                         {variable.initializer.inputs[1]: kernel for variable, kernel in variables})
        self.encode(0)

    def encode(self, number):
        """Encode one batch."""
        begun = time.perf_counter()
        self.session.run(self.output, {self.input: self.pixels})
        return {'seconds': time.perf_counter() - begun, 'items': len(self.pixels)}


class Extraction:
    """benchmarks.prepro on images of a directory, or on drawn ones.

    Args:
        directory: path or None. n: int, images. encoder, weights: as for prepro.py.
    """

    def __init__(self, directory=None, n=64, encoder='vgg19', weights='random'):
        if directory is None:
            self._drawn = tempfile.TemporaryDirectory()
            directory = self._drawn.name
            for number, photo in enumerate(pixels(n, 300)):
                path = pathlib.Path(directory) / f'{number:05d}.jpg'
                Image.fromarray(photo).resize((500, 375)).save(path)
        self.spec = describe(encoder, resize='crop', weights=weights)
        self.records = datasets.select(datasets.read('folder', directory), n)
        self.pixels = prepro.read_all(self.records, self.spec.preprocessing)

    def bare(self, number):
        """Return the images a second of the encoder alone."""
        return prepro.bare_rate(self.spec, self.pixels)

    def whole(self, number):
        """Return the images a second of prepro.py."""
        return prepro.prepro_rate(self.spec, self.records)
