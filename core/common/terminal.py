"""Output of the scripts: how much of it, errors in one line, sizes, durations, tables.

Exit status of every script: 0; 1 where some of the work could not be done; 2 for bad input, after
one line that says what is wrong; 130 after Ctrl-C. No environment variable is needed; NO_COLOR is
honoured.
"""

import io
import os
import signal
import sys
from collections.abc import Callable, Sequence

from core.common.errors import InputError
from core.common.version import __version__

QUIET, NORMAL, VERBOSE = range(3)
_level = NORMAL


def set_level(level: int) -> None:
    """Set how much is said: QUIET, NORMAL or VERBOSE.

    To be called before TensorFlow is imported, which reads the level then.
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
    """Return whether the script was called with --quiet."""
    return _level == QUIET


def say(line: str = '', flush: bool = False) -> None:
    """Print a line, unless the script was called with --quiet."""
    if not quiet():
        print(line, flush=flush)


def run(main: Callable[[], int | None]) -> None:
    """Call a script's `main` and exit with its status.

    InputError and OSError become one line and status 2, Ctrl-C becomes status 130.

    Args:
        main: returns the status; None is 0.
    """
    set_level(NORMAL)
    # A caption must not end a program on a terminal that cannot show it.
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
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
    """Print what went wrong on stderr, after the script's name; in red on a terminal."""
    red = (sys.stderr.isatty() and not os.environ.get('NO_COLOR')
           and os.environ.get('TERM') != 'dumb')
    # python -m core: the package's name
    program = os.path.basename(sys.argv[0].removesuffix('/__main__.py'))
    line = f'{program}: {line}'
    print(f'\x1b[31m{line}\x1b[0m' if red else line, file=sys.stderr, flush=True)


def size_text(n_bytes: float) -> str:
    """Return a size in words: 1234567890 -> '1.23 GB'."""
    for unit in ('B', 'kB', 'MB', 'GB'):
        if n_bytes < 1000:
            return f'{n_bytes:.3g} {unit}'
        n_bytes /= 1000
    return f'{n_bytes:.3g} TB'


def duration(seconds: float) -> str:
    """Return a duration in words: 5025 -> '1 h 24 min'."""
    minutes = round(seconds / 60)
    if minutes >= 60:
        return f'{minutes // 60} h {minutes % 60} min'
    return f'{minutes} min' if minutes else f'{max(round(seconds), 1)} s'


def table(rows: Sequence[Sequence[str]], header: Sequence[str]) -> str:
    """Return a plain text table: first column to the left, the others to the right."""
    rows = [[str(cell) for cell in row] for row in [header, *rows]]
    widths = [max(len(row[i]) for row in rows) for i in range(len(header))]
    lines = ['  '.join([row[0].ljust(widths[0]),
                        *(row[i].rjust(widths[i]) for i in range(1, len(row)))]) for row in rows]
    return '\n'.join([lines[0], '-' * len(lines[0]), *lines[1:]])


