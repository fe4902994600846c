"""Command lines: one-line complaints, a short --help, --version, --quiet, --verbose, completion in
shells.
"""

import argparse
import importlib
import os
import sys
from collections.abc import Container
from typing import Any, NoReturn

from core.common.errors import InputError
from core.common.suggestions import did_you_mean
from core.common.terminal import NORMAL, QUIET, VERBOSE, set_level
from core.common.version import __version__


class OneLineParser(argparse.ArgumentParser):
    """An argparse parser whose complaints are one line, like all others, and which takes no
    abbreviations.
    """

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **{'allow_abbrev': False, **options})

    def error(self, message: str) -> NoReturn:
        """Raise InputError."""
        raise InputError(f'{message} (--help shows examples)')


class Parser(OneLineParser):
    """An argparse parser whose --help fits a screen; --help-all shows every option.

    Every script has --version, --quiet and --verbose from here, and completes in shells that
    argcomplete knows.

    Args:
        description: the script's docstring, with examples.
        usage: the line of --help, without the script's name. prog: that name, where it is not the
            file's.

    Attributes:
        settings: names that --set takes, for those who type them as options.
    """

    def __init__(self, description: str, usage: str, prog: str | None = None) -> None:
        super().__init__(prog, description=description, usage=f'%(prog)s {usage}', add_help=False,
                         formatter_class=argparse.RawDescriptionHelpFormatter)
        self._more: set[int] = set()
        self.settings: Container[str] = ()
        general = self.add_argument_group('general')
        general.add_argument('-h', '--help', action=_Help, all_=False, help='this page')
        general.add_argument('--help-all', action=_Help, all_=True,
                             help='every option; also --version, --quiet, --verbose')
        self.more(general.add_argument('--version', action='version',
                                       version=f'show-attend-tell {__version__}'),
                  general.add_argument('-q', '--quiet', action='store_true',
                                       help='errors and what was asked for, no more'),
                  general.add_argument('-v', '--verbose', action='store_true',
                                       help="versions, and what TensorFlow says of itself"))

    def more(self, *actions: Any) -> None:
        """Leave these out of --help; of a group all that it has."""
        for action in actions:
            self._more.update(map(id, getattr(action, '_group_actions', [action])))

    def format_help(self, all_: bool = False) -> str:
        """The text of --help, or of --help-all."""
        hidden = {action: action.help for action in self._actions if id(action) in self._more
                  and not all_}
        groups, usage = self._action_groups, self.usage
        for action in hidden:
            action.help = argparse.SUPPRESS
        # The general options last, as the others are what is looked for.
        self._action_groups = sorted(
            (group for group in groups if not hidden.keys() >= set(group._group_actions)),
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
            setting = name.lstrip('-').replace('-', '_')
            hint = (f'; did you mean --set {setting}=VALUE?' if setting in self.settings else
                    did_you_mean(name, self._known_options(parsed)))
            self.error(f'unknown argument {unknown[0]}{hint}')
        if parsed.quiet and parsed.verbose:
            raise InputError('--quiet and --verbose exclude each other')
        set_level(QUIET if parsed.quiet else VERBOSE if parsed.verbose else NORMAL)
        return parsed

    def _known_options(self, parsed: argparse.Namespace) -> list[str]:
        """Options of this parser, and of the subcommand that was given."""
        chosen = [action.choices[getattr(parsed, action.dest)] for action in self._actions
                  if isinstance(action, argparse._SubParsersAction)
                  and getattr(parsed, action.dest, None)]
        return [option for parser in [self, *chosen] for option in parser._option_string_actions]


def complete(action: Any, module: str, table: str) -> None:
    """Let the shell offer the keys of a table for an option; the table's module is imported when
    the shell asks.
    """
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
