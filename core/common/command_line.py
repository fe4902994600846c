"""Command lines: one-line complaints, a short --help, completion in shells.

Every script has --version, --quiet and --verbose from here.
"""

import argparse
import importlib
import os
import sys
from collections.abc import Container, Mapping, Sequence
from typing import Any, NoReturn

from core.common.errors import InputError
from core.common.suggestions import did_you_mean
from core.common.terminal import NORMAL, QUIET, VERBOSE, set_level
from core.common.version import __version__


class OneLineParser(argparse.ArgumentParser):
    """An argparse parser whose complaints are one line; it takes no abbreviations.

    Args:
        args, options: of argparse.ArgumentParser.
    """

    def __init__(self, *args: Any, **options: Any) -> None:  # what argparse takes is its own affair
        super().__init__(*args, **{'allow_abbrev': False, **options})

    def error(self, message: str) -> NoReturn:
        """Raise InputError."""
        raise InputError(f'{message} (--help shows examples)')


class Parser(OneLineParser):
    """An argparse parser whose --help fits a screen; --help-all shows every option.

    It has --version, --quiet and --verbose, and completes in shells that argcomplete knows.

    Args:
        description: the script's docstring, with examples.
        usage: the line of --help, without the script's name.
        prog: that name, where it is not the file's.

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

    def more(self, *actions: argparse.Action | argparse._ActionsContainer) -> None:
        """Leave options out of --help, of a group all that it has; --help-all shows them."""
        for action in actions:
            self._more.update(map(id, getattr(action, '_group_actions', [action])))

    def format_help(self, all_: bool = False) -> str:
        """Return the text of --help, or with `all_` of --help-all."""
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

    def parse_args(self, args: Sequence[str] | None = None,  # type: ignore[override]
                   namespace: argparse.Namespace | None = None) -> argparse.Namespace:
        """Parse as argparse does, and set how much the script says.

        Raises:
            InputError: an unknown argument, with the nearest known one.
        """
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
        """Return the options of this parser and of the chosen subcommand."""
        chosen = [action.choices[getattr(parsed, action.dest)] for action in self._actions
                  if isinstance(action, argparse._SubParsersAction)
                  and getattr(parsed, action.dest, None)]
        return [option for parser in [self, *chosen] for option in parser._option_string_actions]


def complete(action: argparse.Action, module: str, table: str) -> None:
    """Let the shell offer the keys of a table for an option.

    Args:
        action: the option. module: of the table, imported when the shell asks. table: its name.
    """
    # argcomplete looks for this attribute
    action.completer = (  # type: ignore[attr-defined]
        lambda **_: list(getattr(importlib.import_module(module), table)))


def given_options(parser: Parser, args: argparse.Namespace, apart: Container[str],
                  names: Mapping[str, str]) -> list[str]:
    """Return the arguments that were given, but for those that any command takes.

    Args:
        parser: what parsed them. args: the parsed arguments. apart: names in `args` to leave out.
        names: name in `args` -> what the user types, where that is not `--name`.
    """
    return [names.get(name, f'--{name.replace("_", "-")}') for name, value in vars(args).items()
            if name not in apart and name not in ('quiet', 'verbose')
            and value != parser.get_default(name)]


def check_seed(seed: int) -> None:
    """Raise InputError for a seed that TensorFlow would cut to 32 bits."""
    if not 0 <= seed < 2**31:
        raise InputError(f'--seed must be 0 to {2**31 - 1}, not {seed}')


class _Help(argparse.Action):
    """The action of --help, or with `all_` of --help-all."""

    def __init__(self, option_strings: Sequence[str], dest: str, all_: bool, help: str) -> None:
        super().__init__(option_strings, argparse.SUPPRESS, nargs=0, help=help)
        self._all = all_

    def __call__(self, parser: argparse.ArgumentParser, *unused: object) -> None:
        assert isinstance(parser, Parser)
        sys.stdout.write(parser.format_help(self._all))
        parser.exit()
