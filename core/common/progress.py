"""Progress on stderr: tqdm's bars on a terminal, whole lines where the output is a file or a pipe.

    with progress.bar(len(images), 'captioning', unit='image') as shown:
        shown.update()
"""

import functools
import sys
from collections.abc import Callable
from typing import TextIO

from core.common import terminal
from core.common.aliases import Bar

PLAIN_BAR = '{desc}: {n_fmt}/{total_fmt} [{elapsed}<{remaining}, {rate_fmt}]'


def bar(total: float | None, what: str, initial: float = 0, unit: str = 'it') -> Bar:
    """Return a tqdm bar with rate and remaining time.

    Where stderr is no terminal, it prints a line every 10 seconds.

    Args:
        total: of the work, in `unit`s; None where that is unknown. what: is done, in a word or two.
        initial: part of `total` that was done before. unit: its name.
    """
    options = {'total': total, 'desc': what, 'initial': initial, 'unit': unit, 'file': sys.stderr,
               'smoothing': 0.1, 'disable': terminal.quiet()}
    if sys.stderr.isatty():
        return _tqdm()(**options, dynamic_ncols=True, mininterval=0.2)
    return _lines()(**options, bar_format=PLAIN_BAR, mininterval=10)


def epoch_bar(total: int, what: str, initial: int) -> Bar:
    """Return a bar for training steps; where stderr is no terminal, it shows nothing.

    Lines that `write` gets are printed all the same. Arguments as of `bar`.
    """
    hidden = terminal.quiet() or not sys.stderr.isatty()
    return _tqdm()(total=total, desc=what, initial=initial, unit='step', file=sys.stderr,
                   dynamic_ncols=True, leave=False, disable=hidden)


def write(shown: Bar, line: str) -> None:
    """Print a line above a bar, on stdout; not with --quiet."""
    if not terminal.quiet():
        shown.write(line)


def complain(line: str) -> None:
    """Print a line on stderr, above the bar where one is shown; with --quiet too."""
    if sys.stderr.isatty():
        _tqdm().write(line, file=sys.stderr)
    else:
        print(line, file=sys.stderr, flush=True)


def _tqdm() -> type[Bar]:
    """Return the class of tqdm, which is slow to import: `--help` shows no bar."""
    from tqdm import tqdm

    return tqdm


@functools.cache
def _lines() -> type[Bar]:
    """Return a class of bars for files and pipes: whole lines, none of them overwritten."""
    class Lines(_tqdm()):  # type: ignore[misc]
        """tqdm with a line for each state, and one for where it ended."""

        @staticmethod
        def status_printer(file: TextIO) -> Callable[[str], None]:
            """Return the function that prints one state."""
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
