"""Photos a second of `caption.py --serve` with many clients, beside caption.py's own rate.

Both take the same photos.

    python -m benchmarks.serving RUN PHOTOS --clients 8 --rounds 3 --beam-width 3

The two sides take turns; each is a process of its own, as a user starts it. A rate leaves the start
out: of caption.py it counts from its first line to its last, of the server from the first request
of all clients to the last answer. The latency of the first answer is measured apart: from the
request to the answer of a server that has just said where it listens. Prints medians with the
smallest and largest round.
"""

import argparse
import concurrent.futures
import http.client
import itertools
import pathlib
import re
import statistics
import subprocess
import sys
import threading
import time

from core.common import terminal
from core.common.errors import InputError
from core.inference import photo_files

ROOT = pathlib.Path(__file__).parents[1]


def command(run, *arguments):
    """Return the process of a caption.py."""
    return subprocess.Popen([sys.executable, str(ROOT / 'caption.py'), run, *arguments],
                            stdout=subprocess.PIPE, text=True)


def batch_rate(run, paths, options):
    """Return (photos a second, seconds to the first line) of caption.py --json."""
    began = time.perf_counter()
    process = command(run, *map(str, paths), '--json', *options)
    times = [time.perf_counter() for _ in process.stdout]
    if process.wait() or len(times) != len(paths):
        raise InputError(f'caption.py gave {len(times)} results for {len(paths)} photos')
    return (len(times) - 1) / (times[-1] - times[0]), times[0] - began


def post(port, data):
    """Return the seconds until the answer to one photo, as the page asks for it."""
    began = time.perf_counter()
    connection = http.client.HTTPConnection('127.0.0.1', port, timeout=120)
    connection.request('POST', '/caption', data)
    answer = connection.getresponse()
    said = answer.read()
    connection.close()
    if answer.status != 200:
        raise InputError(f'the server said {answer.status}: {said[:200]}')
    return time.perf_counter() - began


def served(run, files, clients, options):
    """Measure the server.

    Returns:
        (photos a second, list of latencies, seconds to the server's address, latency of the first
        answer).
    """
    began = time.perf_counter()
    process = command(run, '--serve', '--port', '0', *options)
    try:
        port = int(re.search(r':(\d+)/', process.stdout.readline())[1])
        ready = time.perf_counter() - began
        first = post(port, files[0])
        waiting, lock = iter(files), threading.Lock()

        def client(_):
            """Post as one browser does: the next photo when the last is answered."""
            latencies = []
            while True:
                with lock:
                    data = next(waiting, None)
                if data is None:
                    return latencies
                latencies.append(post(port, data))

        began = time.perf_counter()
        with concurrent.futures.ThreadPoolExecutor(clients) as pool:
            latencies = list(itertools.chain(*pool.map(client, range(clients))))
        return len(files) / (time.perf_counter() - began), latencies, ready, first
    finally:
        process.terminate()
        process.wait()


def summary(values, digits=1):
    """Return 'median (smallest to largest)'."""
    median, low, high = statistics.median(values), min(values), max(values)
    return f'{median:.{digits}f} ({low:.{digits}f} to {high:.{digits}f})'


def main():
    """Parse the arguments, measure and print."""
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('run', metavar='RUN')
    parser.add_argument('photos', metavar='PHOTOS', nargs='+', help='files or folders')
    parser.add_argument('--clients', type=int, default=8)
    parser.add_argument('--rounds', type=int, default=3)
    parser.add_argument('--repeat', type=int, default=4, help='times that the photos are sent (4)')
    parser.add_argument('--beam-width', default='3')
    args = parser.parse_args()
    options = ['--beam-width', args.beam_width]
    paths = [path for _, path in photo_files.find(args.photos)]
    files = [path.read_bytes() for path in paths] * args.repeat
    rows = []
    for number in range(args.rounds):
        alone = batch_rate(args.run, paths, options)
        rows.append((*alone, *served(args.run, files, args.clients, options)))
        print(f'round {number + 1}: caption.py {rows[-1][0]:.1f}, --serve {rows[-1][2]:.1f} '
              'photos/s', flush=True)
    batch, to_first, rate, latencies, ready, first = zip(*rows, strict=True)
    every = sorted(itertools.chain(*latencies))
    print(terminal.table([
        ('caption.py, photos/s', summary(batch)),
        (f'--serve with {args.clients} clients, photos/s', summary(rate)),
        ('--serve / caption.py', summary([a / b for a, b in zip(rate, batch, strict=True)], 2)),
        ('latency with them, median, s', f'{statistics.median(every):.3f}'),
        ('latency with them, 95 of 100 below, s', f'{every[int(0.95 * len(every))]:.3f}'),
        ('first answer of a fresh server, s', summary(first, 3)),
        ('start to address, s', summary(ready)),
        ('start of caption.py to first sentence, s', summary(to_first)),
    ], [f'{len(paths)} photos', '']))


if __name__ == '__main__':
    terminal.run(main)
