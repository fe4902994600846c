"""Where data and weights are published: the table that `prepro.py --download` and `--weights imagenet` read.

Addresses and MD5s of the weights are those that tf_keras.applications uses (MobileNetV2: it publishes none). No other
publisher here gives a checksum, so none stands here; what `core.download.download` checks instead is in docs/data.md.
"""

import dataclasses

KERAS = 'https://storage.googleapis.com/tensorflow/keras-applications'
COCO = 'http://images.cocodataset.org'  # as its page has it: over https its certificate is that of another host
FLICKR_FORM = 'https://forms.illinois.edu/sec/1713398'


@dataclasses.dataclass(frozen=True)
class Remote:
    """One published file.

    Attributes:
        name: str, of the file in the directory of --to.
        urls: tuple of str; the next is asked where one has the file no more, or cannot be reached.
        md5: str as its publisher gives it, or None.
        unpack: whether it is a zip archive to unpack beside itself.
    """

    name: str
    urls: tuple[str, ...]
    md5: str | None = None
    unpack: bool = False


@dataclasses.dataclass(frozen=True)
class Source:
    """What one NAME of --download stands for.

    Attributes:
        files: tuple of Remote.
        next: str, the command that reads them, with {to} for the directory.
        note: str, what else the user must know, or ''.
    """

    files: tuple[Remote, ...]
    next: str
    note: str = ''


def _coco(year: str) -> Source:
    archives = tuple(Remote(f'{part}{year}.zip', (f'{COCO}/zips/{part}{year}.zip',), unpack=True)
                     for part in ('train', 'val'))
    annotations = f'annotations_trainval{year}.zip'
    return Source((Remote(annotations, (f'{COCO}/annotations/{annotations}',), unpack=True), *archives),
                  f'prepro.py --dataset coco{year} --images {{to}} --captions '
                  f'{{to}}/annotations/captions_train{year}.json {{to}}/annotations/captions_val{year}.json')


def _weights(encoder: str, folder: str, file: str, md5: str | None) -> Source:
    return Source((Remote(file, (f'{KERAS}/{folder}/{file}',), md5),),
                  f'prepro.py --encoder {encoder} --weights {{to}}/{file}')


SOURCES = {
    'coco2014': _coco('2014'),
    'coco2017': _coco('2017'),
    'flickr8k-captions': Source(
        # The publisher's own address first; the second is a copy by Jason Brownlee.
        (Remote('Flickr8k_text.zip', (
            'http://nlp.cs.illinois.edu/HockenmaierGroup/Framing_Image_Description/Flickr8k_text.zip',
            'https://github.com/jbrownlee/Datasets/releases/download/Flickr8k/Flickr8k_text.zip'), unpack=True),),
        'prepro.py --dataset flickr8k --images Flicker8k_Dataset --captions {to}/Flickr8k.token.txt',
        f'the photos are sent on request only: {FLICKR_FORM}'),
    'karpathy': Source(
        (Remote('caption_datasets.zip', ('https://cs.stanford.edu/people/karpathy/deepimagesent/caption_datasets.zip',),
                unpack=True),),
        'prepro.py --dataset karpathy --images COCO --captions {to}/dataset_coco.json',
        'dataset_flickr8k.json and dataset_flickr30k.json beside it are read the same way; the photos come apart'),
    'vgg19': _weights('vgg19', 'vgg19', 'vgg19_weights_tf_dim_ordering_tf_kernels_notop.h5',
                      '253f8cb515780f3b799900260a226db6'),
    'inception_v3': _weights('inception_v3', 'inception_v3',
                             'inception_v3_weights_tf_dim_ordering_tf_kernels_notop.h5',
                             'bcbd6486424b2319ff4ef7d526e38f63'),
    'mobilenet_v2': _weights('mobilenet_v2', 'mobilenet_v2',
                             'mobilenet_v2_weights_tf_dim_ordering_tf_kernels_1.0_224_no_top.h5', None),
    'resnet50': _weights('resnet50', 'resnet', 'resnet50_weights_tf_dim_ordering_tf_kernels_notop.h5',
                         '4d473c1dd8becc155b73f8504c6f6626'),
}
