"""The project's scripts in processes of their own, without TensorFlow's seconds of import in each.

One process (`python tests/support/forked_scripts.py`) imports everything once; each command line
then runs in a fork of it, to the end of its interpreter. Sessions there run graphs as they are
built: to optimize tiny graphs takes longer than to run them. What a fork cannot show (imports,
flags that TensorFlow reads as it is imported, optimized graphs) belongs to tests that start Python
themselves.
"""

import atexit
import functools
import json
import os
import pathlib
import signal
import subprocess
import sys
import tempfile
import threading

ROOT = pathlib.Path(__file__).parents[2]
MODULES = ('core.encoders.encoder', 'core.data.image_data', 'core.data.prepare',
           'core.training.checkpoints', 'core.training.solver', 'core.runs.run_dir',
           'core.inference.evaluation')
_one_at_a_time = threading.Lock()


def run(target, arguments, cwd, env, timeout=300):
    """Run a script or a module as `subprocess.run(..., capture_output=True, text=True)` would.

    Args:
        target: path of a script, or name of a module (what `python -m` takes).
        arguments: iterable; texts are made of it.
        cwd: directory. env: dict, the whole environment.
        timeout: seconds.

    Returns:
        subprocess.CompletedProcess.
    """
    command = [str(target), *map(str, arguments)]
    with tempfile.TemporaryDirectory() as folder, _one_at_a_time:
        server = _server()
        outputs = [os.path.join(folder, name) for name in ('out', 'err')]
        server.stdin.write(json.dumps([command, str(cwd), dict(env), outputs]) + '\n')
        server.stdin.flush()
        child = int(server.stdout.readline())
        killer = threading.Timer(timeout, os.kill, (child, signal.SIGKILL))
        killer.start()
        try:
            status = int(server.stdout.readline())
        except BaseException:
            # As subprocess.run: no process is left behind by a test that is interrupted
            os.kill(child, signal.SIGKILL)
            server.stdout.readline()
            raise
        finally:
            in_time = killer.is_alive()
            killer.cancel()
        if not in_time:
            raise subprocess.TimeoutExpired(command, timeout)
        texts = [pathlib.Path(path).read_text(encoding='utf8', errors='surrogateescape')
                 for path in outputs]
    return subprocess.CompletedProcess(command, status, *texts)


@functools.cache
def _server():
    env = {**os.environ, 'TF_CPP_MIN_LOG_LEVEL': '3', 'PYTHONWARNINGS': 'default'}
    process = subprocess.Popen([sys.executable, __file__], stdin=subprocess.PIPE,
                               stdout=subprocess.PIPE, text=True, cwd=ROOT, env=env)

    def close():
        process.stdin.close()
        process.wait(30)

    atexit.register(close)
    return process


def _serve():
    """Fork a process for each line on stdin; returns the command in a fork.

    None where there are no more lines.
    """
    for line in sys.stdin:
        command, cwd, env, outputs = json.loads(line)
        child = os.fork()
        if not child:
            for descriptor, name in enumerate([os.devnull, *outputs]):
                opened = os.open(name, os.O_RDWR | os.O_CREAT, 0o600)
                os.dup2(opened, descriptor)
                os.close(opened)
            os.chdir(cwd)
            os.environ.clear()
            os.environ.update(env)
            numpy.random.seed()  # a process of its own has numbers of its own
            return command
        os.write(1, f'{child}\n'.encode())
        os.write(1, f'{os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])}\n'.encode())
    return None


if __name__ == '__main__':
    import gc
    import importlib
    import runpy

    import numpy

    sys.path[0] = str(ROOT)
    for module in MODULES:
        importlib.import_module(module)
    from tests.support import quick_sessions

    quick_sessions.install()
    gc.freeze()  # or each fork would end with a second of looking through all that was imported
    command = _serve()
    if command:
        sys.argv = command
        if command[0].endswith('.py'):
            runpy.run_path(command[0], run_name='__main__')
        else:
            # as `python -m`, which has not imported it yet
            sys.modules.pop(f'{command[0]}.__main__', None)
            runpy.run_module(command[0], run_name='__main__', alter_sys=True)
