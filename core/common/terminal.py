"""What the scripts share on the terminal: command lines, one-line errors with exit status 2, progress, numbers.

Exit status of every script: 0; 1 where some of the work could not be done; 2 for bad input, after one line that says
what is wrong; 130 after Ctrl-C. No environment variable is needed; NO_COLOR is honoured.
"""

import argparse
import difflib
import importlib
import os
import signal
import sys
from collections.abc import Callable, Container, Sequence
from typing import Any, NoReturn

from core import __version__
from core.common.errors import InputError

QUIET, NORMAL, VERBOSE = range(3)
_level = NORMAL

PLAIN_BAR = '{desc}: {n_fmt}/{total_fmt} [{elapsed}<{remaining}, {rate_fmt}]'


class OneLineParser(argparse.ArgumentParser):
    """An argparse parser whose complaints are one line, like all others."""

    def error(self, message: str) -> NoReturn:
        """Raise InputError."""
        raise InputError(f'{message} (--help shows examples)')


class Parser(OneLineParser):
    """An argparse parser whose --help fits a screen; --help-all shows every option.

    Every script has --version, --quiet and --verbose from here, and completes in shells that argcomplete knows.

    Args:
        description: the script's docstring, with examples.
        usage: the line of --help, without the script's name. prog: that name, where it is not the file's.

    Attributes:
        settings: names that --set takes, for those who type them as options.
    """

    def __init__(self, description: str, usage: str, prog: str | None = None) -> None:
        super().__init__(prog, description=description, usage=f'%(prog)s {usage}', add_help=False, allow_abbrev=False,
                         formatter_class=argparse.RawDescriptionHelpFormatter)
        self._more: set[int] = set()
        self.settings: Container[str] = ()
        general = self.add_argument_group('general')
        general.add_argument('-h', '--help', action=_Help, all_=False, help='this page')
        general.add_argument('--help-all', action=_Help, all_=True,
                             help='every option; also --version, --quiet, --verbose')
        self.more(
            general.add_argument('--version', action='version', version=f'show-attend-tell {__version__}'),
            general.add_argument('-q', '--quiet', action='store_true', help='errors and what was asked for, no more'),
            general.add_argument('-v', '--verbose', action='store_true',
                                 help="versions, and what TensorFlow says of itself"))

    def more(self, *actions: Any) -> None:
        """Leave these out of --help; of a group all that it has."""
        for action in actions:
            self._more.update(map(id, getattr(action, '_group_actions', [action])))

    def format_help(self, all_: bool = False) -> str:
        """The text of --help, or of --help-all."""
        hidden = {action: action.help for action in self._actions if id(action) in self._more and not all_}
        groups, usage = self._action_groups, self.usage
        for action in hidden:
            action.help = argparse.SUPPRESS
        # The general options last, as the others are what is looked for.
        self._action_groups = sorted((group for group in groups if not hidden.keys() >= set(group._group_actions)),
                                     key=lambda group: group.title == 'general')
        self.usage = None if all_ else usage
        try:
            return super().format_help()
        finally:
            self.usage, self._action_groups = usage, groups
            for action, text in hidden.items():
                action.help = text

    def parse_args(self, args: Any = None, namespace: Any = None) -> Any:
        """As argparse's; sets how much is said."""
        if '_ARGCOMPLETE' in os.environ:  # the shell asks for completions
            import argcomplete

            argcomplete.autocomplete(self)
        # Options may stand between photos; argparse cannot have that beside subcommands.
        subcommands = any(action.nargs == argparse.PARSER for action in self._actions)
        parse = self.parse_known_args if subcommands else self.parse_known_intermixed_args
        parsed, unknown = parse(args, namespace)
        if unknown:
            name = unknown[0].partition('=')[0]
            near = difflib.get_close_matches(name, self._option_string_actions, 1)
            setting = name.lstrip('-').replace('-', '_')
            if setting in self.settings:
                near = [f'--set {setting}=VALUE']
            self.error(f'unknown argument {unknown[0]}' + (f'; did you mean {near[0]}?' if near else ''))
        if parsed.quiet and parsed.verbose:
            raise InputError('--quiet and --verbose exclude each other')
        set_level(QUIET if parsed.quiet else VERBOSE if parsed.verbose else NORMAL)
        return parsed


def complete(action: Any, module: str, table: str) -> None:
    """Let the shell offer the keys of a table for an option; the table's module is imported when the shell asks."""
    action.completer = lambda **_: list(getattr(importlib.import_module(module), table))


def check_seed(seed: int) -> None:
    """Refuse what TensorFlow would cut to 32 bits.

    Raises:
        InputError: says what --seed may be.
    """
    if not 0 <= seed < 2**31:
        raise InputError(f'--seed must be 0 to {2**31 - 1}, not {seed}')


class _Help(argparse.Action):
    def __init__(self, option_strings: Any, dest: Any, all_: bool, help: str) -> None:  # noqa: A002
        super().__init__(option_strings, argparse.SUPPRESS, nargs=0, help=help)
        self._all = all_

    def __call__(self, parser: Any, *unused: Any) -> None:
        sys.stdout.write(parser.format_help(self._all))
        parser.exit()


def set_level(level: int) -> None:
    """How much is said: QUIET, NORMAL or VERBOSE. Before TensorFlow is imported, as it reads it then."""
    global _level
    _level = level
    # TensorFlow's C++ notices; set here, in a program of ours, never on `import core`.
    os.environ['TF_CPP_MIN_LOG_LEVEL'] = '0' if level == VERBOSE else '3'
    if level == VERBOSE:
        import platform
        from importlib import metadata

        versions = ', '.join(f'{name} {metadata.version(name)}' for name in ('tensorflow', 'numpy', 'h5py', 'Pillow'))
        say(f'show-attend-tell {__version__}, Python {platform.python_version()}, {versions}, '
            f'{os.cpu_count()} processors')


def say(line: str = '', flush: bool = False) -> None:
    """Print a line that nobody misses with --quiet."""
    if _level != QUIET:
        print(line, flush=flush)


def run(main: Callable[[], int | None]) -> None:
    """Call a script's `main`, turning bad input into one line and status 2, and Ctrl-C into status 130."""
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
    line = f'{os.path.basename(sys.argv[0])}: {line}'
    print(f'\x1b[31m{line}\x1b[0m' if red else line, file=sys.stderr, flush=True)


def progress(total: float | None, what: str, initial: float = 0, unit: str = 'it') -> Any:
    """A tqdm bar on stderr with rate and remaining time; where stderr is no terminal, a line every 10 seconds."""
    terminal = sys.stderr.isatty()
    common = {'total': total, 'desc': what, 'initial': initial, 'unit': unit, 'file': sys.stderr, 'smoothing': 0.1,
              'disable': _level == QUIET}
    from core.common import progress  # tqdm is slow to import, and `--help` shows no bar

    if terminal:
        return progress.tqdm(**common, dynamic_ncols=True, mininterval=0.2)
    return progress.Lines(**common, mininterval=10, bar_format=PLAIN_BAR)


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
    lines = [
        '  '.join([row[0].ljust(widths[0]), *(row[i].rjust(widths[i]) for i in range(1, len(row)))]) for row in rows
    ]
    return '\n'.join([lines[0], '-' * len(lines[0]), *lines[1:]])


def epoch_bar(total: int, what: str, initial: int) -> Any:
    """A bar for training steps; where stderr is no terminal nothing but the lines written to it."""
    from core.common import progress

    return progress.tqdm(total=total, desc=what, initial=initial, unit='step', file=sys.stderr, dynamic_ncols=True,
                     leave=False, disable=_level == QUIET or not sys.stderr.isatty())


def write(bar: Any, line: str) -> None:
    """Print a line above a bar, on stdout; not with --quiet."""
    if _level != QUIET:
        bar.write(line)
