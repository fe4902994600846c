"""Progress on stderr: tqdm's bars on a terminal, whole lines where the output is a file or a pipe.

    with progress.bar(len(images), 'captioning', unit='image') as shown:
        shown.update()
"""

import functools
import sys
from collections.abc import Callable
from typing import Any

from core.common import terminal

PLAIN_BAR = '{desc}: {n_fmt}/{total_fmt} [{elapsed}<{remaining}, {rate_fmt}]'


def bar(total: float | None, what: str, initial: float = 0, unit: str = 'it') -> Any:
    """A tqdm bar with rate and remaining time; where stderr is no terminal, a line every 10
    seconds.
    """
    tty = sys.stderr.isatty()
    kind = _tqdm() if tty else _lines()
    form = {'dynamic_ncols': True, 'mininterval': 0.2} if tty else {'mininterval': 10, 'bar_format': PLAIN_BAR}
    return kind(total=total, desc=what, initial=initial, unit=unit, file=sys.stderr, smoothing=0.1,
                disable=terminal.quiet(), **form)


def epoch_bar(total: int, what: str, initial: int) -> Any:
    """A bar for training steps; where stderr is no terminal nothing but the lines written to it."""
    return _tqdm()(total=total, desc=what, initial=initial, unit='step', file=sys.stderr,
                   dynamic_ncols=True, leave=False, disable=terminal.quiet()
                   or not sys.stderr.isatty())


def write(shown: Any, line: str) -> None:
    """Print a line above a bar, on stdout; not with --quiet."""
    if not terminal.quiet():
        shown.write(line)


def complain(line: str) -> None:
    """Print a line on stderr, above the bar where one is shown; with --quiet too."""
    if sys.stderr.isatty():
        _tqdm().write(line, file=sys.stderr)
    else:
        print(line, file=sys.stderr, flush=True)


def _tqdm() -> Any:
    """The class of tqdm, which is slow to import: `--help` shows no bar."""
    from tqdm import tqdm

    return tqdm


@functools.cache
def _lines() -> Any:
    """tqdm for files and pipes: whole lines, none of them overwritten, and one for where it ended."""
    class Lines(_tqdm()):  # type: ignore[misc]
        @staticmethod
        def status_printer(file: Any) -> Callable[[str], None]:
            """The function that prints one state."""
            def print_line(line: str) -> None:
                file.write(f'{line}\n')
                file.flush()

            return print_line

        def close(self) -> None:
            """Print the last state, unless it was printed, and end."""
            if not getattr(self, 'disable', True) and self.n != self.last_print_n:
                self.refresh()
            self.sp = None  # without it tqdm ends no line of its own
            super().close()

    return Lines
