"""The options of the machine on a command line: --device, --threads, --xla and the like."""

import argparse
import dataclasses
import os
from collections.abc import Sequence

from core.runtime.devices import CLUSTERING, FEATURE_SHARE, Machine


def prepare_environment(machine: Machine) -> None:
    """Set the environment variables that `xla` needs; to be called before TensorFlow's import."""
    if machine.xla == 'all':
        flags = os.environ.get('TF_XLA_FLAGS', '')
        missing = [flag for flag in CLUSTERING if flag not in flags]
        os.environ['TF_XLA_FLAGS'] = ' '.join([flags, *missing]).strip()


def add_arguments(parser: argparse.ArgumentParser, xla: Sequence[str] = (),
                  features: bool = False) -> argparse._ArgumentGroup:
    """Add the options of the machine to an argparse parser.

    Args:
        parser: ArgumentParser.
        xla: the choices of --xla, the default first; empty: no such option.
        features: with --features-on-device.

    Returns:
        The group of the options.
    """
    group = parser.add_argument_group('machine', 'not recorded in the run (docs/gpu.md)')
    group.add_argument('--device', default='auto', metavar='auto|cpu|gpu|gpu:N',
                       help='default: the first GPU if there is one')
    group.add_argument('--threads', type=int, default=0, metavar='N',
                       help="default: TensorFlow's own choice")
    if xla:
        means = {'off': 'nothing', 'kernels': "the attention's large products",
                 'all': 'and all that is element-wise'}
        group.add_argument('--xla', choices=xla, default=xla[0], help='what XLA compiles; '
                           + ', '.join(f'{choice}: {means[choice]}' for choice in xla)
                           + f'; default: {xla[0]}')
    if features:
        group.add_argument('--features-on-device', default='auto', metavar='auto|off|on|GIB',
                           help="keep the training features in the device's memory: where they "
                           f"take at most GIB of it; auto: {100 * FEATURE_SHARE:.0f} %% of a "
                           "GPU, never on the CPU")
    return group


def from_arguments(args: argparse.Namespace) -> Machine:
    """Return the Machine of the parsed options; for scripts, before TensorFlow is imported.

    Raises:
        InputError: a value that means nothing, or a GPU that the machine lacks.
    """
    names = [field.name for field in dataclasses.fields(Machine)]
    machine = Machine(**{name: getattr(args, name) for name in names if hasattr(args, name)})
    prepare_environment(machine)
    if machine.device.startswith('gpu'):  # the others need no look, and no TensorFlow
        machine.check_device()
    return machine
