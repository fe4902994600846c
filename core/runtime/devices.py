"""Where graphs run: device, threads, XLA, and what is kept in the device's memory; for every session of the project.

    machine = Machine(device='gpu', xla='kernels')
    machine.check()                                     # InputError where there is no GPU
    with tf1.Session(graph=graph, config=session_config(machine)) as session: ...

These are settings of the machine: a run does not record them, and another machine may go on with it. Nothing here
imports TensorFlow before it is needed, so that `--help` stays quick. docs/gpu.md tells what a user types.
"""

import argparse
import dataclasses
import os
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from core.common.aliases import DType, Say, Session
from core.common.errors import InputError

if TYPE_CHECKING:
    import numpy as np

    from core.data.data_dir import CaptionData

GIB = 2**30
FEATURE_SHARE = 0.5  # of the GPU's memory, that `auto` may fill with features; the rest is for training
# What XLA takes of the whole graph: on the CPU too, but element-wise operations and reductions only. With all it could
# take, it draws other random numbers, and sizes that are known only at run time make TensorFlow 2.21 fail.
CLUSTERING = '--tf_xla_cpu_global_jit', '--tf_xla_ops_to_cluster=FUSIBLE'


@dataclasses.dataclass(frozen=True)
class Machine:
    """Settings of this machine.

    Attributes:
        device: 'auto' (the first GPU if there is one), 'cpu', 'gpu' (the first) or 'gpu:N'.
        threads: of an operation, and operations at a time; 0: TensorFlow's own choice.
        xla: 'off', 'kernels' (the attention's large products of training are compiled) or 'all' (and the element-wise
            operations and reductions of the whole graph; needs `prepare_environment`).
        features_on_device: features of the training images in the device's memory: 'off', 'on', 'auto' (on a GPU
            where they fill at most `FEATURE_SHARE` of it), or a number of GiB that they may fill.

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
        if self.features_on_device not in ('auto', 'off', 'on') and _gibibytes(self.features_on_device) is None:
            raise InputError(f'--features-on-device {self.features_on_device}: expected auto, off, on or a number of '
                             f'GiB')

    def check(self, gpus: Sequence[str] | None = None) -> None:
        """Refuse a GPU that is not there.

        Args:
            gpus: list of the GPUs' names; None: what TensorFlow sees.

        Raises:
            InputError: says what there is, and the way out.
        """
        self.gpu(gpus)

    def gpu(self, gpus: Sequence[str] | None = None) -> int | None:
        """The number of the GPU to use, None for the CPU; arguments and errors as of `check`."""
        if self.device == 'cpu':
            return None
        gpus = gpu_names() if gpus is None else gpus
        number = int(self.device.partition(':')[2] or 0)
        if number < len(gpus):
            return number
        if self.device == 'auto':
            return None
        raise InputError(f'--device {self.device}: ' + (
            f'there is only {", ".join(f"gpu:{i} ({name})" for i, name in enumerate(gpus))}' if gpus else
            f'{_without_gpu()}; or choose --device cpu'))

    def note(self, gpus: Sequence[str] | None = None) -> str:
        """One line that names the GPU in use, '' on the CPU."""
        gpus = gpu_names() if gpus is None and self.device != 'cpu' else gpus
        number = self.gpu(gpus)
        return '' if number is None or gpus is None else f'on gpu:{number} ({gpus[number]})'


CPU = Machine('cpu')


def session_config(machine: Machine | None = None, gpus: Sequence[str] | None = None) -> Any:
    """The tf1.ConfigProto of every session.

    Args:
        machine: Machine, or None for Machine(). gpus: see `Machine.check`.

    Returns:
        ConfigProto. A GPU's memory is taken as it is needed, one GPU is used and the others are left alone. What has
        no implementation for GPUs runs on the CPU.

    Raises:
        InputError: the asked device is not there.
        ValueError: `xla` is 'all', and `prepare_environment` was not called.
    """
    from core.runtime.backend import tf1

    machine = machine or Machine()
    number = machine.gpu(gpus)
    config = tf1.ConfigProto(allow_soft_placement=True, intra_op_parallelism_threads=machine.threads,
                             inter_op_parallelism_threads=machine.threads)
    config.gpu_options.allow_growth = True
    if number is None:
        config.device_count['GPU'] = 0
    else:
        config.gpu_options.visible_device_list = str(number)
    if machine.xla == 'all':
        if not all(flag in os.environ.get('TF_XLA_FLAGS', '') for flag in CLUSTERING):
            raise ValueError("xla='all' needs prepare_environment(machine) before TensorFlow is imported")
        config.graph_options.optimizer_options.global_jit_level = tf1.OptimizerOptions.ON_2
    return config


def gpu_names() -> list[str]:
    """Names of the GPUs that TensorFlow sees, in its order."""
    from core.runtime.backend import tf

    return [tf.config.experimental.get_device_details(gpu).get('device_name', gpu.name)
            for gpu in tf.config.list_physical_devices('GPU')]


def _without_gpu() -> str:
    """Why there may be no GPU, and what helps."""
    from core.runtime.backend import tf

    if not tf.test.is_built_with_cuda():
        return (f'this TensorFlow {tf.__version__} was built without CUDA; on Linux, '
                f"pip install -e '.[gpu]' brings one with it")
    return (f'TensorFlow {tf.__version__} is built with CUDA, but sees no GPU: look whether nvidia-smi lists one, and '
            f"install the CUDA libraries, pip install -e '.[gpu]'")


# ---- XLA

def prepare_environment(machine: Machine) -> None:
    """For scripts, before TensorFlow is imported: what `xla` needs to be told there."""
    if machine.xla == 'all':
        flags = os.environ.get('TF_XLA_FLAGS', '')
        os.environ['TF_XLA_FLAGS'] = ' '.join([flags, *(flag for flag in CLUSTERING if flag not in flags)]).strip()


def with_working_xla(machine: Machine, dtype: DType = None, say: Say = print) -> Machine:
    """The Machine, or where XLA does not work the same without it, after a line that says so.

    Args:
        machine: Machine. dtype: of the products, see `compile_failure`. say: function that prints a line.
    """
    failure = machine.xla != 'off' and compile_failure(machine, dtype)
    if not failure:
        return machine
    say(f'going on without XLA, which does not compile here: {failure}')
    return dataclasses.replace(machine, xla='off')


_failures: dict[tuple[str, str], str] = {}  # (device, dtype name) -> what XLA said, '' where it compiles


def compile_failure(machine: Machine | None = None, dtype: DType = None) -> str:
    """Why XLA cannot compile the attention's products on this machine, in one line; '' where it can.

    Args:
        machine: Machine. dtype: of the products; None: float32.
    """
    from core.model.attention_kernels import Kernels
    from core.runtime.backend import tf, tf1

    machine, dtype = machine or Machine(), dtype or tf.float32
    machine = dataclasses.replace(machine, xla='kernels')
    if (machine.device, dtype.name) not in _failures:
        with tf.Graph().as_default() as graph:
            p, q, w = (tf1.placeholder_with_default(tf.ones(shape, dtype), shape)
                       for shape in ((1, 2, 3), (1, 1, 3), (3,)))
            scores = Kernels('tanh', jit=True).scores(p, q, w)
            with tf1.Session(graph=graph, config=session_config(machine)) as session:
                try:
                    session.run(scores)
                    failure = ''
                except tf.errors.OpError as error:
                    failure = next(iter(error.message.splitlines()), '') or type(error).__name__
        _failures[machine.device, dtype.name] = failure[:200]
    return _failures[machine.device, dtype.name]


# ---- features in the device's memory

def _gibibytes(text: str) -> float | None:
    try:
        number = float(text)
    except ValueError:
        return None
    return number if 0 <= number < float('inf') else None


def keeps_features(machine: Machine, n_bytes: int) -> bool:
    """Whether features of so many bytes are to be kept in the device's memory.

    Args:
        machine: Machine. n_bytes: int.

    Returns:
        bool; with 'on' always True.
    """
    choice = machine.features_on_device
    if choice in ('on', 'off'):
        return choice == 'on'
    if choice == 'auto':
        return machine.gpu() is not None and n_bytes <= FEATURE_SHARE * memory(machine)
    return n_bytes <= (_gibibytes(choice) or 0) * GIB


def memory(machine: Machine) -> int:
    """Bytes of the machine's GPU that a session can take; of the CPU a number without meaning."""
    from core.runtime.backend import tf, tf1

    kind = 'CPU' if machine.gpu() is None else 'GPU'
    with tf.Graph().as_default(), tf1.Session(config=session_config(machine)) as session:
        return next(d.memory_limit_bytes for d in session.list_devices() if d.device_type == kind)


class ResidentFeatures:
    """A split of a CaptionData whose features lie in the device's memory, so that batches hold image numbers instead.

    In the place of the data for `core.data.batches.Batches`: `read_features` gives the numbers themselves.

    Args:
        data: CaptionData. dtype: of the features, that of `model.inputs`.
        most: numbers in one variable at most; TensorFlow counts those of some operations on GPUs in 32 bits.

    Attributes:
        numbers: placeholder (N,) int64, to be fed what `read_features` gives.
        features: (N, L, D), those of `numbers`.
        captions, image_idxs: of the data.
    """

    def __init__(self, data: 'CaptionData', dtype: DType, most: int = 2**30) -> None:
        from core.runtime.backend import tf, tf1

        self._data, self._dtype = data, dtype
        self.captions, self.image_idxs = data.captions, data.image_idxs
        shape = data.features.shape[1:]
        self._rows = max(most // (shape[0] * shape[1]), 1)  # of a variable
        self.numbers = tf1.placeholder(tf.int64, [None], 'image_numbers')
        self._piece = tf1.placeholder(dtype, [None, *shape])
        self._parts, self._put = [], []
        for start in range(0, len(data), self._rows):
            n_rows = min(self._rows, len(data) - start)
            # In no collection: checkpoints do not hold it.
            part = tf1.Variable(lambda n=n_rows: tf.zeros([n, *shape], dtype), trainable=False, collections=[],
                                use_resource=True, name='features_on_device')
            here = tf.clip_by_value(self.numbers - start, 0, n_rows - 1)
            found = part.sparse_read(here)
            later = (self.numbers >= start)[:, tf.newaxis, tf.newaxis]
            self.features: Any = tf.where(later, found, self.features) if start else found
            self._parts.append(part)
            self._put.append(tf1.scatter_update(part, here, self._piece).op)

    @staticmethod
    def size(data: 'CaptionData', dtype: DType) -> int:
        """Bytes that the features of a CaptionData will take."""
        return len(data) * data.features.shape[1] * data.features.shape[2] * dtype.size

    def __len__(self) -> int:
        """The number of images."""
        return len(self._data)

    def read_features(self, images: 'Sequence[int] | np.ndarray') -> 'np.ndarray':
        """(N,) int64, the numbers."""
        import numpy as np

        return np.asarray(images, np.int64)

    def load(self, session: Session, piece: int = 256) -> None:
        """Copy all features to the device, `piece` images at a time.

        Raises:
            InputError: they do not fit.
        """
        import numpy as np

        from core.runtime.backend import tf

        try:
            session.run([part.initializer for part in self._parts])
            for number, put in enumerate(self._put):
                stop = min((number + 1) * self._rows, len(self))
                for first in range(number * self._rows, stop, piece):
                    numbers = np.arange(first, min(first + piece, stop))
                    features = self._data.read_features(numbers).astype(self._dtype.as_numpy_dtype, copy=False)
                    session.run(put, {self.numbers: numbers, self._piece: features})
        except tf.errors.ResourceExhaustedError:
            size = self.size(self._data, self._dtype) / GIB
            raise InputError(f'--features-on-device: the features, {size:.1f} GiB, do not fit into the memory of the '
                             f'device; set it to off') from None


# ---- the command line

def add_arguments(parser: argparse.ArgumentParser, xla: Sequence[str] = (), features: bool = False) -> Any:
    """The options of the machine for an argparse parser.

    Args:
        parser: ArgumentParser. xla: the choices of --xla, the default first; empty: no such option.
        features: with --features-on-device.

    Returns:
        The group of the options.
    """
    group = parser.add_argument_group('machine', 'not recorded in the run (docs/gpu.md)')
    group.add_argument('--device', default='auto', metavar='auto|cpu|gpu|gpu:N',
                       help='default: the first GPU if there is one')
    group.add_argument('--threads', type=int, default=0, metavar='N', help="default: TensorFlow's own choice")
    if xla:
        means = {'off': 'nothing', 'kernels': "the attention's large products", 'all': 'and all that is element-wise'}
        group.add_argument('--xla', choices=xla, default=xla[0], help='what XLA compiles; ' + ', '.join(
            f'{choice}: {means[choice]}' for choice in xla) + f'; default: {xla[0]}')
    if features:
        group.add_argument('--features-on-device', default='auto', metavar='auto|off|on|GIB',
                           help=f"keep the training features in the device's memory: where they take at most GIB of "
                                f'it; auto: {100 * FEATURE_SHARE:.0f} %% of a GPU, never on the CPU')
    return group


def from_arguments(args: argparse.Namespace) -> Machine:
    """The Machine of the parsed options; for scripts, before TensorFlow is imported.

    Raises:
        InputError: a value that means nothing, or a GPU asked for that is not there.
    """
    names = [field.name for field in dataclasses.fields(Machine)]
    machine = Machine(**{name: getattr(args, name) for name in names if hasattr(args, name)})
    prepare_environment(machine)
    if machine.device.startswith('gpu'):  # the others need no look, and no TensorFlow
        machine.check()
    return machine
