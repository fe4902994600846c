"""Training features that stay in the device's memory.

    if keeps_features(machine, ResidentFeatures.size(data, tf.float16)):
        resident = ResidentFeatures(data, tf.float16)   # in the model's graph, for the data
        resident.load(session)
"""

from typing import TYPE_CHECKING

from core.common.aliases import DType, Session, Tensor
from core.common.errors import InputError
from core.runtime.devices import FEATURE_SHARE, GIB, Machine, gibibytes, session_config

if TYPE_CHECKING:
    import numpy as np

    from core.data.split import Split


def keeps_features(machine: Machine, n_bytes: int) -> bool:
    """Say whether features of so many bytes are to be kept in the device's memory.

    Args:
        machine: Machine, whose `features_on_device` decides; with 'on' they always are.
        n_bytes: int.
    """
    choice = machine.features_on_device
    if choice in ('on', 'off'):
        return choice == 'on'
    if choice == 'auto':
        return machine.gpu() is not None and n_bytes <= FEATURE_SHARE * memory(machine)
    return n_bytes <= (gibibytes(choice) or 0) * GIB


def memory(machine: Machine) -> int:
    """Return the bytes of the GPU that a session can take; of the CPU a number without meaning."""
    from core.runtime.backend import tf, tf1

    kind = 'CPU' if machine.gpu() is None else 'GPU'
    with tf.Graph().as_default(), tf1.Session(config=session_config(machine)) as session:
        return next(d.memory_limit_bytes for d in session.list_devices() if d.device_type == kind)


class ResidentFeatures:
    """A split whose features lie in the device's memory: batches hold image numbers instead.

    In the place of the data for `batches.Batches`: `read_batch` gives the numbers themselves.

    Args:
        data: Split of stored features.
        dtype: of the features, that of `model.inputs`.
        most: numbers in one variable at most; TensorFlow counts those of some operations on GPUs in
            32 bits.

    Attributes:
        numbers: placeholder (N,) int64, to be fed what `read_batch` gives.
        features: (N, L, D), those of `numbers`.
        captions, image_idxs: of the data.
    """

    def __init__(self, data: 'Split', dtype: DType, most: int = 2**30) -> None:
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
            part = tf1.Variable(lambda n=n_rows: tf.zeros([n, *shape], dtype), trainable=False,
                                collections=[], use_resource=True, name='features_on_device')
            rows = tf.clip_by_value(self.numbers - start, 0, n_rows - 1)
            values = part.sparse_read(rows)
            later = (self.numbers >= start)[:, tf.newaxis, tf.newaxis]
            self.features: Tensor = tf.where(later, values, self.features) if start else values
            self._parts.append(part)
            self._put.append(tf1.scatter_update(part, rows, self._piece).op)

    @staticmethod
    def size(data: 'Split', dtype: DType) -> int:
        """Return the bytes that the features of a Split will take."""
        return len(data) * data.features.shape[1] * data.features.shape[2] * dtype.size

    def __len__(self) -> int:
        """Return the number of images."""
        return len(self._data)

    def read_batch(self, captions: 'np.ndarray', images: 'np.ndarray',
                   epoch: int) -> 'np.ndarray':
        """Return the numbers (N,) int64 of a training batch, see `split.Batchable`."""
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
                    features = self._data.read_features(numbers).astype(
                        self._dtype.as_numpy_dtype, copy=False)
                    session.run(put, {self.numbers: numbers, self._piece: features})
        except tf.errors.ResourceExhaustedError:
            size = self.size(self._data, self._dtype) / GIB
            raise InputError(f'--features-on-device: the features, {size:.1f} GiB, do not fit into '
                             'the memory of the device; set it to off') from None
