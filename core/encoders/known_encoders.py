"""The encoders that `--encoder` names, a row each: a new one goes here.

    row = ENCODERS['vgg19']
    row.layer                       # 'conv5_4', the map of the paper
    inputs = row.scale(pixels)      # float RGB in 0..255 -> what the network takes

A network that Keras lacks is a class in `networks`.
"""

import typing
from collections.abc import Callable

from core.common.aliases import Tensor
from core.encoders.networks import KerasNetwork, Vgg

# Mean of ImageNet in the order of Caffe and Keras, blue first.
BGR_MEAN = (103.939, 116.779, 123.68)


def caffe(pixels: Tensor) -> Tensor:
    """Turn RGB in 0..255 into BGR minus the mean, as networks trained in Caffe take it."""
    from core.runtime.backend import tf

    return tf.reverse(pixels, [-1]) - tf.constant(BGR_MEAN)  # five times faster than [..., ::-1]


def unit(pixels: Tensor) -> Tensor:
    """Turn RGB in 0..255 into RGB in [-1, 1]."""
    return pixels / 127.5 - 1.0


class EncoderRow(typing.NamedTuple):
    """One row of `ENCODERS`.

    Attributes:
        network: an object with the methods that `networks` lists.
        layer: str, the default map.
        size: int, the default side of the input in pixels.
        scale: function from float RGB in 0..255 to the network's input: `caffe` or `unit`.
        files: str, the published weight files, for messages.
        matconvnet: bool, whether MatConvNet's `.mat` is understood.
    """

    network: Vgg | KerasNetwork
    layer: str
    size: int
    scale: Callable[[Tensor], Tensor]
    files: str
    matconvnet: bool = False


ENCODERS = {
    'vgg19': EncoderRow(
        Vgg('vgg19', (2, 2, 4, 4, 4)),
        'conv5_4',
        224,
        caffe,
        'vgg19_weights_tf_dim_ordering_tf_kernels_notop.h5 or imagenet-vgg-verydeep-19.mat',
        matconvnet=True,
    ),
    'vgg16': EncoderRow(
        Vgg('vgg16', (2, 2, 3, 3, 3)),
        'conv5_3',
        224,
        caffe,
        'vgg16_weights_tf_dim_ordering_tf_kernels_notop.h5 or imagenet-vgg-verydeep-16.mat',
        matconvnet=True,
    ),
    'inception_v3': EncoderRow(
        KerasNetwork('InceptionV3', 'mixed10', smallest=75),
        'mixed10',
        299,
        unit,
        'inception_v3_weights_tf_dim_ordering_tf_kernels_notop.h5',
    ),
    'resnet50': EncoderRow(
        KerasNetwork('ResNet50', 'conv5_block3_out', stride=32),
        'conv5_block3_out',
        224,
        caffe,
        'resnet50_weights_tf_dim_ordering_tf_kernels_notop.h5',
    ),
    'mobilenet_v2': EncoderRow(
        KerasNetwork('MobileNetV2', 'out_relu', stride=32),
        'out_relu',
        224,
        unit,
        'mobilenet_v2_weights_tf_dim_ordering_tf_kernels_1.0_224_no_top.h5',
    ),
}
