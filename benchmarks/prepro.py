"""How fast prepro.py extracts: the share of the bare encoder's rate that is left.

    python -m benchmarks.prepro --images DIR --encoder mobilenet_v2 --weights FILE \
        [--n-images 512] [--rounds 5]

The bare encoder runs the same batches from memory: no file is read, decoded or written. Both are
measured in turn, round by round, on the same images, without building the graph and the first
batch; the median ratio counts.
"""

import argparse
import contextlib
import io
import pathlib
import statistics
import tempfile
import time

from core import datasets
from core.common import terminal
from core.data import prepare
from core.data.vocabulary import Vocabulary
from core.encoders.encoder import Encoder, describe
from core.encoders.preprocessing import RESIZES, load


def read_all(records, preprocessing):
    """Return the pixels of all images, where TensorFlow takes them without a copy.

    This is the bare encoder at its best.
    """
    pixels = prepare.aligned((len(records), preprocessing.size, preprocessing.size, 3))
    for record, target in zip(records, pixels, strict=True):
        target[:] = load(record.path, preprocessing)
    return pixels


def bare_rate(spec, pixels):
    """Return the images per second of the encoder alone."""
    batches = [pixels[i : i + prepare.BATCH] for i in range(0, len(pixels), prepare.BATCH)]
    with Encoder(spec) as encoder:
        encoder.encode(batches[0])
        begun = time.perf_counter()
        for batch in batches[1:]:
            encoder.encode(batch)
        return (len(pixels) - len(batches[0])) / (time.perf_counter() - begun)


def prepro_rate(spec, records):
    """Return the images per second of the whole extraction, as prepro.py itself reports it."""
    with tempfile.TemporaryDirectory() as directory, contextlib.redirect_stderr(io.StringIO()):
        manifest = prepare.prepare(records, spec, pathlib.Path(directory) / 'data', 'folder',
                                   say=lambda line: None, vocabulary=Vocabulary(['photo']))
        return manifest['images_per_second']


def main():
    """Parse the arguments, measure and print."""
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--images', required=True, metavar='DIR')
    parser.add_argument('--encoder', default='vgg19')
    parser.add_argument('--weights', default='random', metavar='FILE')
    parser.add_argument('--resize', default='crop', choices=RESIZES)
    parser.add_argument('--n-images', type=int, default=512, metavar='N')
    parser.add_argument('--rounds', type=int, default=5, metavar='N')
    args = parser.parse_args()
    spec = describe(args.encoder, resize=args.resize, weights=args.weights)
    records = datasets.select(datasets.read('folder', args.images), args.n_images)
    pixels = read_all(records, spec.preprocessing)
    rows, ratios = [], []
    for number in range(1, args.rounds + 1):
        bare, whole = bare_rate(spec, pixels), prepro_rate(spec, records)
        ratios.append(whole / bare)
        rows.append([number, f'{bare:.1f}', f'{whole:.1f}', f'{ratios[-1]:.3f}'])
    print(terminal.table(rows, ['round', 'bare images/s', 'prepro images/s', 'ratio']))
    print(f'{args.encoder}, {len(records)} images: median ratio {statistics.median(ratios):.3f} '
          f'({min(ratios):.3f} to {max(ratios):.3f})')


if __name__ == '__main__':
    terminal.run(main)
