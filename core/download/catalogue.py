"""Addresses of published data and weights, for `prepro.py --download` and `--weights imagenet`.

Addresses and MD5s of the weights are those that tf_keras.applications uses (MobileNetV2: it
publishes none). No publisher of data sets gives a checksum; what `core.download.download` checks
instead is in docs/data.md.
"""

import dataclasses

KERAS = 'https://storage.googleapis.com/tensorflow/keras-applications'
# as its page has it: over https its certificate is that of another host
COCO = 'http://images.cocodataset.org'
HOCKENMAIER = 'http://nlp.cs.illinois.edu/HockenmaierGroup'  # publishers of Flickr8k
FLICKR_FORM = 'https://forms.illinois.edu/sec/1713398'


@dataclasses.dataclass(frozen=True)
class Archive:
    """One published zip archive, to be unpacked beside itself.

    Attributes:
        name: str, of the file in the directory of --to.
        urls: tuple of str; the next is asked where one has the file no more, or cannot be reached.
    """

    name: str
    urls: tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class Source:
    """A data set: what one NAME of --download stands for.

    Attributes:
        files: tuple of Archive.
        next: str, the command that reads them, with {to} for the directory.
        note: str, what else the user must know, or ''.
    """

    files: tuple[Archive, ...]
    next: str
    note: str = ''


@dataclasses.dataclass(frozen=True)
class Weights:
    """The ImageNet weights of one encoder.

    Attributes:
        url: str, whose last part is the file's name.
        md5: str as its publisher gives it, or None.
    """

    url: str
    md5: str | None

    @property
    def name(self) -> str:
        """The file's name."""
        return self.url.rpartition('/')[2]


def _coco(year: str) -> Source:
    """Return the Source of COCO 2014 or 2017: photos, captions and boxes of train and val."""
    archives = tuple(Archive(f'{part}{year}.zip', (f'{COCO}/zips/{part}{year}.zip',))
                     for part in ('train', 'val'))
    annotations = f'annotations_trainval{year}.zip'
    return Source((Archive(annotations, (f'{COCO}/annotations/{annotations}',)), *archives),
                  f'prepro.py --dataset coco{year} --images {{to}} --captions '
                  f'{{to}}/annotations/captions_train{year}.json '
                  f'{{to}}/annotations/captions_val{year}.json')


SOURCES = {
    'coco2014': _coco('2014'),
    'coco2017': _coco('2017'),
    'flickr8k-captions': Source(
        # The publisher's own address first; the second is a copy by Jason Brownlee.
        (Archive('Flickr8k_text.zip', (
            f'{HOCKENMAIER}/Framing_Image_Description/Flickr8k_text.zip',
            'https://github.com/jbrownlee/Datasets/releases/download/Flickr8k/Flickr8k_text.zip')),),
        'prepro.py --dataset flickr8k --images Flicker8k_Dataset '
        '--captions {to}/Flickr8k.token.txt',
        f'the photos are sent on request only: {FLICKR_FORM}'),
    'karpathy': Source(
        (Archive('caption_datasets.zip',
                 ('https://cs.stanford.edu/people/karpathy/deepimagesent/caption_datasets.zip',)),),
        'prepro.py --dataset karpathy --images COCO --captions {to}/dataset_coco.json',
        'dataset_flickr8k.json and dataset_flickr30k.json beside it are read the same way; '
        'the photos come apart'),
}
WEIGHTS = {
    'vgg19': Weights(
        f'{KERAS}/vgg19/vgg19_weights_tf_dim_ordering_tf_kernels_notop.h5',
        '253f8cb515780f3b799900260a226db6'),
    'vgg16': Weights(
        f'{KERAS}/vgg16/vgg16_weights_tf_dim_ordering_tf_kernels_notop.h5',
        '6d6bbae143d832006294945121d1f1fc'),
    'inception_v3': Weights(
        f'{KERAS}/inception_v3/inception_v3_weights_tf_dim_ordering_tf_kernels_notop.h5',
        'bcbd6486424b2319ff4ef7d526e38f63'),
    'mobilenet_v2': Weights(
        f'{KERAS}/mobilenet_v2/'
        'mobilenet_v2_weights_tf_dim_ordering_tf_kernels_1.0_224_no_top.h5', None),
    'resnet50': Weights(
        f'{KERAS}/resnet/resnet50_weights_tf_dim_ordering_tf_kernels_notop.h5',
        '4d473c1dd8becc155b73f8504c6f6626'),
}
