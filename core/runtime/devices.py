"""The machine that graphs run on: device, threads, XLA, features in the device's memory.

    machine = Machine(device='gpu', xla='kernels')
    machine.check_device()                              # InputError where there is no GPU
    with tf1.Session(graph=graph, config=session_config(machine)) as session: ...

These are settings of the machine: a run does not record them, and another machine may go on with
it. Nothing here imports TensorFlow before it is needed, so that `--help` stays quick. docs/gpu.md
tells what a user types.
"""

import dataclasses
import os
import re
from collections.abc import Sequence

from core.common.aliases import ConfigProto
from core.common.errors import InputError

GIB = 2**30
# share of the GPU's memory that `auto` may fill with features; the rest is for training
FEATURE_SHARE = 0.5
# What XLA takes of the whole graph: on the CPU too, but element-wise operations and reductions
# only. With all it could take, it draws other random numbers, and sizes that are known only at run
# time make TensorFlow 2.21 fail.
CLUSTERING = '--tf_xla_cpu_global_jit', '--tf_xla_ops_to_cluster=FUSIBLE'


@dataclasses.dataclass(frozen=True)
class Machine:
    """Settings of this machine.

    Attributes:
        device: 'auto' (the first GPU if there is one), 'cpu', 'gpu' (the first) or 'gpu:N'.
        threads: of an operation, and operations at a time; 0: TensorFlow's own choice.
        xla: 'off', 'kernels' (the attention's large products of training are compiled) or 'all'
            (and the element-wise operations and reductions of the whole graph; needs
            `prepare_environment`).
        features_on_device: features of the training images in the device's memory: 'off', 'on',
            'auto' (on a GPU where they fill at most `FEATURE_SHARE` of it), or a number of GiB that
            they may fill.

    Raises:
        InputError: a value that means nothing.
    """

    device: str = 'auto'
    threads: int = 0
    xla: str = 'kernels'
    features_on_device: str = 'auto'

    def __post_init__(self) -> None:
        if not re.fullmatch(r'auto|cpu|gpu(:\d+)?', self.device):
            raise InputError(f'--device {self.device}: expected auto, cpu, gpu or gpu:N')
        if self.threads < 0:
            raise InputError(f'--threads must be at least 0, not {self.threads}')
        if self.xla not in ('off', 'kernels', 'all'):
            raise InputError(f'--xla {self.xla}: expected off, kernels or all')
        known = self.features_on_device in ('auto', 'off', 'on')
        if not known and gibibytes(self.features_on_device) is None:
            raise InputError(f'--features-on-device {self.features_on_device}: expected auto, off, '
                             'on or a number of GiB')

    def check_device(self, gpus: Sequence[str] | None = None) -> None:
        """Raise InputError if the machine lacks the device; it says which GPUs there are.

        Args:
            gpus: list of the GPUs' names; None: what TensorFlow sees.
        """
        self.gpu(gpus)

    def gpu(self, gpus: Sequence[str] | None = None) -> int | None:
        """Return the number of the GPU to use, None for the CPU.

        Arguments and errors as of `check_device`.
        """
        if self.device == 'cpu':
            return None
        gpus = gpu_names() if gpus is None else gpus
        number = int(self.device.partition(':')[2] or 0)
        if number < len(gpus):
            return number
        if self.device == 'auto':
            return None
        names = ', '.join(f'gpu:{i} ({name})' for i, name in enumerate(gpus))
        raise InputError(f'--device {self.device}: ' + (
            f'there is only {names}' if gpus else f'{_without_gpu()}; or choose --device cpu'))

    def note(self, gpus: Sequence[str] | None = None) -> str:
        """Return a line that names the GPU in use, '' on the CPU."""
        gpus = gpu_names() if gpus is None and self.device != 'cpu' else gpus
        number = self.gpu(gpus)
        return '' if number is None or gpus is None else f'on gpu:{number} ({gpus[number]})'


CPU = Machine('cpu')


def session_config(machine: Machine | None = None,
                   gpus: Sequence[str] | None = None) -> ConfigProto:
    """Return the tf1.ConfigProto of every session.

    Args:
        machine: Machine, or None for Machine(). gpus: see `Machine.check_device`.

    Returns:
        ConfigProto. A GPU's memory is taken as it is needed, one GPU is used and the others are
        left alone. What has no implementation for GPUs runs on the CPU.

    Raises:
        InputError: the machine lacks the device.
        ValueError: `xla` is 'all', and `prepare_environment` was not called.
    """
    from core.runtime.backend import tf1

    machine = machine or Machine()
    number = machine.gpu(gpus)
    config = tf1.ConfigProto(allow_soft_placement=True,
                             intra_op_parallelism_threads=machine.threads,
                             inter_op_parallelism_threads=machine.threads)
    config.gpu_options.allow_growth = True
    if number is None:
        config.device_count['GPU'] = 0
    else:
        config.gpu_options.visible_device_list = str(number)
    if machine.xla == 'all':
        if not all(flag in os.environ.get('TF_XLA_FLAGS', '') for flag in CLUSTERING):
            raise ValueError("xla='all' needs prepare_environment(machine) before TensorFlow is "
                             "imported")
        config.graph_options.optimizer_options.global_jit_level = tf1.OptimizerOptions.ON_2
    return config


def gpu_names() -> list[str]:
    """Return the names of the GPUs that TensorFlow sees, in its order."""
    from core.runtime.backend import tf

    return [tf.config.experimental.get_device_details(gpu).get('device_name', gpu.name)
            for gpu in tf.config.list_physical_devices('GPU')]


def _without_gpu() -> str:
    """Return why there may be no GPU, and what helps."""
    from core.runtime.backend import tf

    if not tf.test.is_built_with_cuda():
        return (f'this TensorFlow {tf.__version__} was built without CUDA; on Linux, '
                f"pip install -e '.[gpu]' brings one with it")
    return (f'TensorFlow {tf.__version__} is built with CUDA, but sees no GPU: look whether '
            f"nvidia-smi lists one, and install the CUDA libraries, pip install -e '.[gpu]'")


def gibibytes(text: str) -> float | None:
    """Return a number of GiB, or None where the text is none."""
    try:
        number = float(text)
    except ValueError:
        return None
    return number if 0 <= number < float('inf') else None
