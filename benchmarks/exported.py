"""An exported model in a Python with TensorFlow alone: is it equal, and how quick?

    python -m core export RUN DIR --beam-width 3 --n-best 3
    python -m venv tf; tf/bin/pip install tensorflow
    python -m benchmarks.exported RUN DIR PHOTOS --beam-width 3 --n-best 3 --python tf/bin/python

The photos (JPEG or PNG) are captioned by that Python and here by `core.Captioner` with the same
options; sentences, log-probabilities and attention are compared. Without --python this one is used,
isolated (-I), from another directory.
"""

import argparse
import json
import pathlib
import subprocess
import sys
import tempfile

import numpy as np

from core.common import terminal
from core.common.errors import InputError
from core.inference import photo_files
from core.inference.captioner import Captioner

LOADER = '''
import json, os, sys, time
os.environ['TF_CPP_MIN_LOG_LEVEL'] = '3'
import tensorflow as tf
try:
    import core
except ImportError:
    pass
else:
    sys.exit('this Python has the project')
directory, out, *paths = sys.argv[1:]
began = time.perf_counter()
model = tf.saved_model.load(directory)
serve = model.signatures['serving_default']
times = {'load': time.perf_counter() - began}
data = [open(path, 'rb').read() for path in paths]
def timed(name, photos, rounds):
    best = float('inf')
    for _ in range(rounds):
        began = time.perf_counter()
        found = serve(image_bytes=tf.constant(photos))
        best = min(best, time.perf_counter() - began)
    times[name] = best
    return found
timed('first call, one photo', data[:1], 1)
timed('one photo', data[:1], 10)
found = timed('all photos', data, 3)
captions = [[text.decode() for text in row] for row in found['captions'].numpy()]
found = {name: value.numpy().tolist() for name, value in found.items()
         if name not in ('captions', 'words')} | {'captions': captions}
json.dump({'times': times, 'found': found}, open(out, 'w'))
'''


def outside(python, directory, paths):
    """Return (seconds by name, outputs) of the exported model in another Python."""
    with tempfile.TemporaryDirectory() as place:
        out = pathlib.Path(place) / 'out.json'
        done = subprocess.run([python, '-I', '-c', LOADER, str(directory.resolve()), str(out),
                               *map(str, paths)], cwd=place, capture_output=True, text=True)
        if done.returncode:
            raise InputError(f'{python}: {(done.stderr.strip().splitlines() or ["failed"])[-1]}')
        answer = json.loads(out.read_text())
    return answer['times'], answer['found']


def main():
    """Parse the arguments, compare and print."""
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('run', metavar='RUN')
    parser.add_argument('directory', metavar='DIR', type=pathlib.Path)
    parser.add_argument('photos', metavar='PHOTOS', nargs='+')
    parser.add_argument('--beam-width', type=int, default=1)
    parser.add_argument('--n-best', type=int, default=1)
    parser.add_argument('--python', default=sys.executable)
    args = parser.parse_args()
    paths = [path.resolve() for _, path in photo_files.find(args.photos)]
    model = args.directory / '1' if (args.directory / '1').is_dir() else args.directory
    times, found = outside(args.python, model, paths)
    with Captioner.load(args.run, n_best=args.n_best, beam_width=args.beam_width) as captioner:
        expected = captioner(paths)
    same, total, log_prob, alpha = 0, 0, 0.0, 0.0
    for n, result in enumerate(expected):
        for k, caption in enumerate(result.captions):
            total += 1
            if found['captions'][n][k] == caption.text:
                same += 1
                log_prob = max(log_prob, abs(found['log_probs'][n][k] - caption.log_prob))
                alphas = np.array(found['alphas'][n][k])[:len(caption.words)]
                alpha = max(alpha, float(np.abs(alphas - caption.alphas).max(initial=0)))
    size = sum(path.stat().st_size for path in args.directory.rglob('*') if path.is_file())
    print(terminal.table([
        ('sentences equal', f'{same} of {total}'),
        ('largest difference of a log-probability', f'{log_prob:.1e}'),
        ('of an attention weight', f'{alpha:.1e}'),
        ('size', terminal.size_text(size)),
        *((f'{name}, s', f'{seconds:.3f}') for name, seconds in times.items()),
    ], [f'{len(paths)} photos', '']))
    return int(same != total)


if __name__ == '__main__':
    terminal.run(main)
