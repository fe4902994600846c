"""Scripts in forks behave as scripts in a Python of their own."""

import os
import subprocess
import sys

import pytest

from tests.support import forked_scripts

SCRIPT = '''
import atexit, os, sys
import numpy as np
atexit.register(lambda: print('at exit'))
print(sys.argv, os.getcwd(), __name__, os.environ.get('COLOUR'), sys.stdin.read())
print('to stderr', file=sys.stderr)
{}
'''


@pytest.mark.parametrize('end', [
    '',
    'sys.exit(3)',
    'sys.exit("what is wrong")',
    'os.kill(os.getpid(), 9)',
    'raise ValueError("oh")',
    'os._exit(5)',
])
def test_the_same_as_a_python_of_its_own(tmp_path, end):
    script = tmp_path / 'script.py'
    script.write_text(SCRIPT.format(end))
    env = {**os.environ, 'COLOUR': 'green'}
    expected = subprocess.run([sys.executable, script, 'a b', '3'], capture_output=True, text=True,
                              cwd=tmp_path, env=env, stdin=subprocess.DEVNULL)
    found = forked_scripts.run(script, ['a b', 3], tmp_path, env)
    assert (found.returncode, found.stdout) == (expected.returncode, expected.stdout)
    lines = [text.splitlines()[:1] + text.splitlines()[-1:]
             for text in (found.stderr, expected.stderr)]
    assert lines[0] == lines[1]  # a traceback in between has the server's lines too


def test_processes_do_not_share_random_numbers_and_do_not_wait_for_ever(tmp_path):
    (tmp_path / 'draw.py').write_text('import numpy as np\nprint(np.random.random())\n')
    numbers = {forked_scripts.run(tmp_path / 'draw.py', [], tmp_path, {}).stdout for _ in range(3)}
    assert len(numbers) == 3
    (tmp_path / 'sleep.py').write_text('import time\ntime.sleep(60)\n')
    with pytest.raises(subprocess.TimeoutExpired):
        forked_scripts.run(tmp_path / 'sleep.py', [], tmp_path, {}, timeout=0.5)
    assert forked_scripts.run(tmp_path / 'draw.py', [], tmp_path, {}).returncode == 0
