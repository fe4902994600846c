"""What the scripts say on the terminal: how much, one-line errors with exit status 2, sizes,
durations, tables.

Exit status of every script: 0; 1 where some of the work could not be done; 2 for bad input, after
one line that says what is wrong; 130 after Ctrl-C. No environment variable is needed; NO_COLOR is
honoured.
"""

import os
import signal
import sys
from collections.abc import Callable, Sequence
from typing import Any

from core.common.errors import InputError
from core.common.version import __version__

QUIET, NORMAL, VERBOSE = range(3)
_level = NORMAL


def set_level(level: int) -> None:
    """How much is said: QUIET, NORMAL or VERBOSE. Before TensorFlow is imported, as it reads it
    then.
    """
    global _level
    _level = level
    # TensorFlow's C++ notices; set here, in a program of ours, never on `import core`.
    os.environ['TF_CPP_MIN_LOG_LEVEL'] = '0' if level == VERBOSE else '3'
    if level == VERBOSE:
        import platform
        from importlib import metadata

        versions = ', '.join(f'{name} {metadata.version(name)}'
                             for name in ('tensorflow', 'numpy', 'h5py', 'Pillow'))
        say(f'show-attend-tell {__version__}, Python {platform.python_version()}, {versions}, '
            f'{os.cpu_count()} processors')


def quiet() -> bool:
    """Whether --quiet was given."""
    return _level == QUIET


def say(line: str = '', flush: bool = False) -> None:
    """Print a line that nobody misses with --quiet."""
    if not quiet():
        print(line, flush=flush)


def run(main: Callable[[], int | None]) -> None:
    """Call a script's `main`, turning bad input into one line and status 2, and Ctrl-C into status
    130.
    """
    set_level(NORMAL)
    stream: Any  # TextIO lacks what the real streams have
    # A caption must not end a program on a terminal that cannot show it.
    for stream in filter(None, (sys.stdout, sys.stderr)):
        stream.reconfigure(errors='backslashreplace')
    try:
        status = main() or 0
    except InputError as error:
        complain(f'error: {error}')
        status = 2
    except KeyboardInterrupt:
        print('interrupted', file=sys.stderr)
        status = 128 + signal.SIGINT
    except BrokenPipeError:
        # The reader of our output went away (`| head`): no more can be said, not even at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        status = 1
    except OSError as error:
        where = f'{error.filename}: ' if error.filename else ''
        complain(f'error: {where}{error.strerror or error}')
        status = 2
    sys.exit(status)


def complain(line: str) -> None:
    """Print a line about what went wrong on stderr, after the script's name; in red on a terminal."""
    red = sys.stderr.isatty() and not os.environ.get('NO_COLOR') and os.environ.get('TERM') != 'dumb'
    # python -m core: the package's name
    program = os.path.basename(sys.argv[0].removesuffix('/__main__.py'))
    line = f'{program}: {line}'
    print(f'\x1b[31m{line}\x1b[0m' if red else line, file=sys.stderr, flush=True)


def size_text(n_bytes: float) -> str:
    """1234567890 -> '1.23 GB'."""
    for unit in ('B', 'kB', 'MB', 'GB'):
        if n_bytes < 1000:
            return f'{n_bytes:.3g} {unit}'
        n_bytes /= 1000
    return f'{n_bytes:.3g} TB'


def duration(seconds: float) -> str:
    """5025 -> '1 h 24 min'."""
    minutes = round(seconds / 60)
    if minutes >= 60:
        return f'{minutes // 60} h {minutes % 60} min'
    return f'{minutes} min' if minutes else f'{max(round(seconds), 1)} s'


def table(rows: Sequence[Sequence[str]], header: Sequence[str]) -> str:
    """Lines of a plain text table: first column to the left, the others to the right."""
    rows = [[str(cell) for cell in row] for row in [header, *rows]]
    widths = [max(len(row[i]) for row in rows) for i in range(len(header))]
    lines = ['  '.join([row[0].ljust(widths[0]),
                        *(row[i].rjust(widths[i]) for i in range(1, len(row)))]) for row in rows]
    return '\n'.join([lines[0], '-' * len(lines[0]), *lines[1:]])


