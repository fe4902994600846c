"""The project's scripts as users start them: how to run one, and what a refusal looks like."""

import os
import pathlib
import subprocess
import sys
import tempfile

from tests.support import forked_scripts
from tests.support.files import snapshot
from tests.support.forked_scripts import ROOT


def settings(*assignments):
    """Return --set options."""
    return [part for text in assignments for part in ('--set', text)]


def run(name, *arguments, cwd=None, fresh=False, env=None):
    """Run one of the scripts, or a module; returns what subprocess.run returns, with text.

    In a fork of a process that has imported everything (tests/support/forked_scripts.py), or with
    `fresh` in a Python of its own.

    Args:
        cwd: directory; None: an empty one that is removed afterwards.
        env: dict, variables of the environment beside this process's own.
    """
    if cwd is None:
        with tempfile.TemporaryDirectory() as empty:
            return run(name, *arguments, cwd=empty, fresh=fresh, env=env)
    env = {**os.environ, 'PYTHONWARNINGS': 'default', **(env or {})}
    target = [str(ROOT / name)] if name.endswith('.py') else ['-m', name]
    if not fresh:
        return forked_scripts.run(target[-1], arguments, cwd, env)
    return subprocess.run([sys.executable, *target, *map(str, arguments)], capture_output=True,
                          text=True, cwd=cwd, timeout=300, env=env)


def python(code, *arguments):
    """Run a program's text in a Python of its own, in the repository.

    Returns what subprocess.run returns.
    """
    return subprocess.run([sys.executable, '-c', code, *map(str, arguments)], capture_output=True,
                          text=True, cwd=ROOT, timeout=300)


def run_watched(name, *arguments, cwd):
    """Run as `run` does, in a Python of its own.

    Returns what it returns, and the set of modules that were imported.
    """
    done = subprocess.run([sys.executable, '-X', 'importtime', ROOT / name, *map(str, arguments)],
                          text=True, capture_output=True, timeout=120, cwd=cwd)
    lines = done.stderr.splitlines(keepends=True)
    modules = {line.rpartition('|')[2].strip() for line in lines if line.startswith('import time:')}
    assert 'argparse' in modules
    done.stderr = ''.join(line for line in lines if not line.startswith('import time:'))
    return done, modules


def assert_refuses(name, *arguments, cwd, parts=()):
    """Assert that a script refuses in one line that holds all `parts`.

    It changes neither `cwd` nor a directory that is named.
    """
    named = [argument for argument in arguments
             if isinstance(argument, pathlib.Path) and argument.is_dir()]
    before = snapshot(cwd, *named)
    assert_refused(run(name, *arguments, cwd=cwd), *parts)
    assert snapshot(cwd, *named) == before


def assert_refused(done, *parts):
    """Assert one line on stderr that holds all `parts`, status 2, nothing on stdout."""
    assert done.returncode == 2, (done.stdout, done.stderr)
    assert 'Traceback' not in done.stderr and done.stdout == ''
    assert len(done.stderr.splitlines()) == 1 and ': error: ' in done.stderr, done.stderr
    for part in parts:
        assert str(part) in done.stderr
