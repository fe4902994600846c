"""The project's scripts as users start them: how to run one, and what a refusal looks like."""

import os
import pathlib
import subprocess
import sys
import tempfile

from tests.support import forked_scripts

ROOT = pathlib.Path(__file__).parents[2]


def settings(*assignments):
    """--set options."""
    return [part for text in assignments for part in ('--set', text)]


def run(name, *arguments, cwd=None, fresh=False):
    """Run one of the scripts, or a module; returns what subprocess.run returns, with text.

    In a fork of a process that has imported everything (tests/support/forked_scripts.py), or with `fresh` in a Python
    of its own.
    """
    cwd, env = cwd or tempfile.gettempdir(), {**os.environ, 'PYTHONWARNINGS': 'default'}
    target = [str(ROOT / name)] if name.endswith('.py') else ['-m', name]
    if not fresh:
        return forked_scripts.run(target[-1], arguments, cwd, env)
    return subprocess.run([sys.executable, *target, *map(str, arguments)], capture_output=True, text=True, cwd=cwd,
                          timeout=300, env=env)


def assert_refused(done, *parts):
    """One line on stderr that holds all `parts`, status 2, nothing on stdout."""
    assert done.returncode == 2, (done.stdout, done.stderr)
    assert 'Traceback' not in done.stderr and done.stdout == ''
    assert len(done.stderr.splitlines()) == 1 and ': error: ' in done.stderr, done.stderr
    for part in parts:
        assert str(part) in done.stderr
