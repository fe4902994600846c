"""Measurement side by side: a process for each side, ratios round by round.

One process is at work at a time.

    with Worker('benchmarks.tensorflow_sides:OursTraining', sizes=Sizes()) as ours, Worker(...):
        seconds = alternate({'ours': lambda k: ours.call('train', k, 8)['seconds'], ...}, rounds=5)
    print(ratio(seconds['other'], seconds['ours']))

A side is a class whose methods do a piece of work and return a dict of numbers, among them
'seconds' and 'items'. Its process lives through all rounds, so libraries start, graphs are built
and memory is touched once, before anything is measured, and one library's threads never wait beside
another's work.
"""

import contextlib
import importlib
import multiprocessing
import os
import pathlib
import platform
import resource
import statistics
import time
import traceback
from importlib import metadata
from typing import NamedTuple

SETTLE = 0.1  # seconds between two sides: threads that spin for more work have gone to sleep
PACKAGES = ('tensorflow', 'torch', 'numpy')


class Ratio(NamedTuple):
    """The median, smallest and largest ratio of the rounds."""

    median: float
    smallest: float
    largest: float

    def __str__(self):
        return f'{self.median:.2f}x ({self.smallest:.2f} to {self.largest:.2f})'


def ratio(first, second):
    """Return the Ratio of two lists of figures of the same rounds."""
    shares = [a / b for a, b in zip(first, second, strict=True)]
    return Ratio(statistics.median(shares), min(shares), max(shares))


def alternate(sides, rounds):
    """Run every side once a round; who begins changes from round to round.

    Args:
        sides: dict of name -> function of the round's number.
        rounds: int.

    Returns:
        dict of name -> list of what the function returned, by round.
    """
    results, names = {name: [] for name in sides}, list(sides)
    for number in range(rounds):
        start = number % len(names)
        for name in names[start:] + names[:start]:
            time.sleep(SETTLE)
            results[name].append(sides[name](number))
    return results


class Worker(contextlib.AbstractContextManager):
    """A side in a process of its own.

    Args:
        factory: 'module:class'. options: what the class is made with.

    Raises:
        RuntimeError: the side failed; its traceback is the message.
    """

    def __init__(self, factory, **options):
        context = multiprocessing.get_context('spawn')
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(theirs, factory, options), daemon=True)
        self._process.start()
        theirs.close()
        try:
            self._answer()  # once the side is built
        except BaseException:
            self.__exit__()
            raise

    def call(self, method, *args, **kwargs):
        """Return the result of the side's method."""
        self._pipe.send((method, args, kwargs))
        return self._answer()

    def _answer(self):
        try:
            failed, value = self._pipe.recv()
        except EOFError:
            self._process.join()
            status = self._process.exitcode
            raise RuntimeError(f'a side ended with status {status}; memory may be short') from None
        if failed:
            raise RuntimeError(value)
        return value

    def __exit__(self, *exception):
        self._pipe.close()  # the side ends when nobody asks any more
        self._process.join(20)
        if self._process.is_alive():
            self._process.kill()
            self._process.join()


def _serve(pipe, factory, options):
    """Build the side in the worker's process, then answer until the pipe closes."""
    os.environ.setdefault('TF_CPP_MIN_LOG_LEVEL', '3')

    def answer(work, *args):
        try:
            pipe.send((False, work(*args)))
        except Exception:
            pipe.send((True, traceback.format_exc()))

    def build():
        module, _, name = factory.partition(':')
        kind = getattr(importlib.import_module(module), name)
        kind.idle_bytes = resident()['VmRSS']  # the library is imported, nothing is built
        side.append(kind(**options))

    def call(method, args, kwargs):
        return getattr(side[0], method)(*args, **kwargs)

    side = []
    answer(build)
    with contextlib.suppress(EOFError, BrokenPipeError):
        while side:
            answer(call, *pipe.recv())


def resident():
    """Return this process's resident memory in bytes: 'VmRSS' now, 'VmHWM' at its peak.

    Not getrusage: its peak begins with that of the process that started this one.
    """
    lines = pathlib.Path('/proc/self/status').read_text(encoding='utf8').splitlines()
    fields = dict(line.split(':', 1) for line in lines)
    return {name: 1024 * int(fields[name].split()[0]) for name in ('VmRSS', 'VmHWM')}


class Others:
    """A record of how busy other programs keep the cores from now on.

    That is whatever this process and its ended children do not use.

    Comparisons suffer unequally: OpenMP, which PyTorch uses, waits for every thread at every step
    of its work.
    """

    def __init__(self):
        self._begun, self._busy, self._own = time.perf_counter(), *self._used()

    @staticmethod
    def _used():
        """Return the seconds of all cores that were not idle, and those of this program.

        Not idle includes what the host takes away.
        """
        words = pathlib.Path('/proc/stat').read_text(encoding='utf8').split()
        fields = [int(word) for word in words[1:9]]
        idle = fields[3] + fields[4]
        own = sum(sum(resource.getrusage(who)[:2])
                  for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
        return (sum(fields) - idle) / os.sysconf('SC_CLK_TCK'), own

    def share(self):
        """Return the share of all cores' time that others used since the beginning."""
        busy, own = self._used()
        spent = (time.perf_counter() - self._begun) * os.cpu_count()
        return max(0.0, (busy - self._busy - (own - self._own)) / spent)


def machine():
    """Return what the figures were measured on: processor, cores, memory, versions, date."""
    processor = platform.processor() or platform.machine()
    with contextlib.suppress(OSError):
        for line in pathlib.Path('/proc/cpuinfo').read_text(encoding='utf8').splitlines():
            if line.startswith('model name'):
                processor = line.partition(':')[2].strip()
                break
    versions = {'python': platform.python_version()}
    for package in PACKAGES:
        with contextlib.suppress(metadata.PackageNotFoundError):
            versions[package] = metadata.version(package)
    return {'processor': processor, 'cores': len(os.sched_getaffinity(0)),
            'memory_gb': round(os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES') / 1e9, 1),
            'versions': versions, 'date': time.strftime('%Y-%m-%d')}


def markdown(header, rows):
    """Return a Markdown table."""
    lines = [header, ['---'] * len(header), *rows]
    return '\n'.join('| ' + ' | '.join(str(cell) for cell in line) + ' |' for line in lines)


def insert(text, name, block):
    """Put `block` between `<!-- benchmarks.run NAME -->` and `<!-- end -->` of a document.

    Returns:
        The new text, or None where the document has no such lines.
    """
    head, begin, rest = text.partition(f'<!-- benchmarks.run {name} -->\n')
    _, end, tail = rest.partition('<!-- end -->')
    return f'{head}{begin}{block}\n{end}{tail}' if begin and end else None
