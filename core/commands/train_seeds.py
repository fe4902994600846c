"""`train.py --seeds 1,2,3`: one recipe over seeds, RUN/seed1, RUN/seed2 ... one after the other.

Each training is a process of its own, forked before anything of TensorFlow is there, and does what
`train.py DATA --out RUN/seedN --set seed=N` does: the same numbers bit for bit, the same resuming.
"""

import argparse
import contextlib
import os
import pathlib
import signal
import sys
import threading
from collections.abc import Sequence
from typing import Any

from core.common import terminal
from core.common.errors import InputError

LAST_SEED = 2**31 - 1
SIGNALS = (signal.SIGINT, signal.SIGTERM)


def read_seeds(args: argparse.Namespace) -> list[int]:
    """Return the numbers of --seeds, free of contradictions with the other arguments.

    Raises:
        InputError: no number, a negative or too large one, one twice, or an argument that --seeds
            cannot have beside it.
    """
    if args.resume:
        raise InputError('--resume RUN goes on with one run, without --seeds; the command that '
                         'began with --seeds goes on with all of them')
    if any(text.partition('=')[0].strip() == 'seed' for text in args.assignments):
        raise InputError('--seeds names the seeds, leave --seed and --set seed=... out')
    seeds = []
    for text in args.seeds.split(','):
        text = text.strip()
        if not (text.isascii() and text.isdecimal()) or int(text) > LAST_SEED:
            raise InputError(f'--seeds {args.seeds}: {text!r} is no seed; give numbers from 0 to '
                             f'{LAST_SEED}, for example --seeds 1,2,3')
        if int(text) in seeds:
            raise InputError(f'--seeds {args.seeds}: {int(text)} is there twice; a second run of a '
                             'seed would be the first one again')
        seeds.append(int(text))
    return seeds


def of_seed(args: argparse.Namespace, seed: int) -> argparse.Namespace:
    """Return the arguments of the training with one seed.

    A --pretrained-model that was itself trained with --seeds stands for its run of that seed.

    Raises:
        InputError: that has no such run.
    """
    from core.runs.run_dir import seed_directories

    pretrained = args.pretrained_model
    if pretrained and not (pathlib.Path(pretrained) / 'config.json').exists():
        runs = seed_directories(pretrained)
        if runs:
            pretrained = str(pathlib.Path(pretrained) / f'seed{seed}')
            if pathlib.Path(pretrained) not in runs:
                raise InputError(f'--pretrained-model {args.pretrained_model}: holds '
                                 f'{", ".join(run.name for run in runs)}, but no seed{seed}')
    one = {'seeds': None, 'out': str(pathlib.Path(args.out) / f'seed{seed}'),
           'assignments': [*args.assignments, f'seed={seed}'], 'pretrained_model': pretrained}
    return argparse.Namespace(**{**vars(args), **one})


def check(runs: Sequence[argparse.Namespace]) -> None:
    """Raise InputError if one of the runs cannot go on with these options.

    Each training checks its own; but that of the last seed should not fail after those of the
    others.
    """
    from core.commands.train import configuration, dataset_of
    from core.runs.run_dir import Run, check_options

    out = pathlib.Path(runs[0].out).parent
    if (out / 'config.json').exists() or (out / 'manifest.json').exists():
        raise InputError(f'{out}: is itself a run or a data directory; with --seeds, --out names a '
                         'directory for the runs seed1, seed2 ...')
    for one in runs:
        path, pretrained = pathlib.Path(one.out), None
        begun = [*path.glob('checkpoints/step-*.json'), *path.glob('best/best.json')]
        if not (path / 'config.json').exists() or not begun:
            continue
        start = one.pretrained_model
        if start and (pathlib.Path(start) / 'config.json').exists():
            pretrained = Run(start)
        check_options(path, Run(path).config, configuration(one, dataset_of(one.data), pretrained))


def train_seeds(args: argparse.Namespace) -> int:
    """Train with one seed after the other; finished ones say so and are left as they are.

    Ctrl-C and SIGTERM are passed on to the training, which saves, and end the command; so does the
    first training that fails.

    Returns:
        int, the status of the command; in the process of a training that of this one.
    """
    from core.commands.train import train

    runs = [of_seed(args, seed) for seed in args.seeds]
    check(runs)
    for number, (seed, one) in enumerate(zip(args.seeds, runs, strict=True), 1):
        terminal.say(f'seed {seed}, {number} of {len(runs)}: {one.out}', flush=True)
        training = _Training()
        if not training.process:
            train(one)
            return 0
        status = training.wait()
        if status < 0 and not training.interrupted:
            terminal.complain(f'the training of {one.out} was killed by '
                              f'{signal.Signals(-status).name}; the same command goes on')
            return 1
        if training.interrupted and (status <= 0 and number < len(runs) or status < 0):
            raise KeyboardInterrupt  # no training was there to say so
        if status:
            return status
    terminal.say(f'next: python evaluate.py {args.out}/seedN for every seed, then python '
                 f'evaluate.py --compare-scores {args.out}')
    return 0


class _Training:
    """A process of its own, as `os.fork` makes one.

    Attributes:
        process: its number; 0 in that process. interrupted: bool, whether a signal came meanwhile.
    """

    def __init__(self) -> None:
        self.interrupted, self._previous = False, {}
        # No signal between: it would be lost, or come twice
        signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
        alive, held = os.pipe()
        for stream in (sys.stdout, sys.stderr):
            stream.flush()  # what is left there would be printed by both
        self.process = os.fork()
        if self.process:
            os.close(alive)
            self._held = held
            for number in SIGNALS:
                self._previous[number] = signal.signal(number, self._pass_on)
            self._previous[signal.SIGTSTP] = signal.signal(signal.SIGTSTP, self._pause)
        else:
            os.close(held)
            os.setpgrp()  # the terminal's Ctrl-C and Ctrl-Z come through the other process alone
            threading.Thread(target=_end_with, args=(alive,), daemon=True).start()
        signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)

    def wait(self) -> int:
        """Return the process's status when it has ended; negative: the signal that killed it."""
        try:
            return os.waitstatus_to_exitcode(os.waitpid(self.process, 0)[1])
        finally:
            for number, handler in self._previous.items():
                signal.signal(number, handler)
            os.close(self._held)

    def _pass_on(self, number: int, frame: Any) -> None:
        self.interrupted = True
        self._send(number)

    def _pause(self, number: int, frame: Any) -> None:
        self._send(signal.SIGSTOP)
        os.kill(os.getpid(), signal.SIGSTOP)  # until SIGCONT
        self._send(signal.SIGCONT)

    def _send(self, number: int) -> None:
        with contextlib.suppress(ProcessLookupError):  # it has just ended
            os.kill(self.process, number)


def _end_with(alive: int) -> None:
    """Have the training save and end when the process that began it was killed."""
    os.read(alive, 1)  # nothing is ever written: it returns when the other end is gone
    os.kill(os.getpid(), signal.SIGTERM)
