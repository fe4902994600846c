"""Batches of captions of nearly equal length, shuffled, and read ahead of the training step.

    batches = Batches(data, batch_size=64, seed=1)
    for batch in prefetch(batches.epoch(0)):
        session.run(train, {model.inputs: batch.features, model.captions: batch.captions})
"""

import queue
import threading
from collections.abc import Iterable, Iterator
from typing import NamedTuple, TypeVar, cast

import numpy as np

from core.common.aliases import DType
from core.common.errors import InputError
from core.data.split import Batchable

T = TypeVar('T')


class Batch(NamedTuple):
    """One batch of R captions of N images.

    R is N, or C times N with the captions of image i in rows i C to i C + C - 1.

    Attributes:
        features: (N, L, D) of the Batches' dtype, or (N, size, size, 3) uint8 pixels.
        captions: (R, T + 1) int32.
        index: (R,) int, which captions of the data these are.
        images: (N,) int, which images.
    """

    features: np.ndarray
    captions: np.ndarray
    index: np.ndarray  # type: ignore[assignment]  # hides tuple's method, which nobody needs here
    images: np.ndarray


class Batches:
    """The batches of each epoch: every caption once, in an order of `seed` and epoch alone.

    So training can go on in the middle of an epoch. The number of batches is the same every epoch.
    By `batch_by`:

    - 'sorted': captions are sorted by length with ties in random order, cut into batches, and the
      batches shuffled. A batch's captions have one length, but for the few batches at the borders
      between lengths; one batch an epoch is incomplete.
    - 'one_length': a batch never mixes lengths (paper, 4.3). The rest of each length is a smaller
      batch.
    - 'bucket': the same with buckets of `bucket_width` lengths: 1 to bucket_width words (with
      <END>), and so on.
    - 'image': whole images, `captions_per_image` captions of each, so that their features are read
      and projected once. What is left of an image's captions is batched with equally many of other
      images.

    Args:
        data: Batchable.
        batch_size: captions in a batch; the incomplete ones are smaller.
        seed: int.
        batch_by, bucket_width, captions_per_image: see above.
        dtype: of the features, what the model takes (`model.inputs`).

    Raises:
        InputError: captions_per_image does not fit into batch_size.
    """

    def __init__(self, data: Batchable, batch_size: int, seed: int, *, batch_by: str = 'sorted',
                 bucket_width: int = 4, captions_per_image: int = 5,
                 dtype: DType = np.float32) -> None:
        if batch_by == 'image' and captions_per_image > batch_size:
            raise InputError(f'batch_size counts captions: {batch_size} do not hold the '
                             f'{captions_per_image} captions of one image; raise batch_size or '
                             'lower captions_per_image')
        self.data, self.batch_size, self.seed, self.batch_by = data, batch_size, seed, batch_by
        self.bucket_width = 1 if batch_by == 'one_length' else bucket_width
        self.captions_per_image, self.dtype = captions_per_image, dtype
        self.lengths = np.count_nonzero(data.captions, axis=1)
        self._n_batches = len(self.plan(0))

    def __len__(self) -> int:
        """Return the number of batches in an epoch."""
        return self._n_batches

    def plan(self, epoch: int) -> list[np.ndarray]:
        """Return the epoch's batches: arrays of caption numbers, (R,) or with 'image' (N, C)."""
        random = np.random.default_rng([self.seed, epoch])
        shuffled = random.permutation(len(self.lengths))
        if self.batch_by == 'image':
            pieces = self._by_image(shuffled, random)
        elif self.batch_by == 'sorted':
            pieces = _cut(_grouped(shuffled, self.lengths)[0], self.batch_size)
        else:  # <START> is no word
            order, starts = _grouped(shuffled, (self.lengths - 2) // self.bucket_width)
            pieces = [piece for group in np.split(order, starts[1:])
                      for piece in _cut(group, self.batch_size)]
        return [pieces[i] for i in random.permutation(len(pieces))]

    def _by_image(self, shuffled: np.ndarray, random: np.random.Generator) -> list[np.ndarray]:
        """Return chunks of the captions of one image, batched with chunks of the same size."""
        most = self.captions_per_image
        order, starts = _grouped(shuffled, self.data.image_idxs)
        counts = np.diff(np.append(starts, len(order)))
        n_chunks = -(-counts // most)
        number = np.arange(n_chunks.sum()) - np.repeat(np.cumsum(n_chunks) - n_chunks, n_chunks)
        first = np.repeat(starts, n_chunks) + most * number
        size = np.minimum(most, np.repeat(counts, n_chunks) - most * number)
        pieces = []
        for captions in np.unique(size):
            chunks = random.permutation(first[size == captions])
            pieces += _cut(order[chunks[:, np.newaxis] + np.arange(captions)],
                           self.batch_size // captions)
        return pieces

    def epoch(self, epoch: int, start: int = 0) -> Iterator[Batch]:
        """Yield the epoch's batches as Batch, from batch number `start` on."""
        for piece in self.plan(epoch)[start:]:
            index = piece.reshape(-1)
            images = self.data.image_idxs[piece if piece.ndim == 1 else piece[:, 0]]
            features = self.data.read_batch(index, images, epoch)
            yield Batch(features.astype(self.dtype, copy=False), self.data.captions[index], index,
                        images)


def _grouped(shuffled: np.ndarray, keys: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return `shuffled` by rising key, in its own order within one, and where each key begins."""
    order = shuffled[np.argsort(keys[shuffled], kind='stable')]
    return order, np.unique(keys[order], return_index=True)[1]


def _cut(order: np.ndarray, size: int) -> list[np.ndarray]:
    return [order[i : i + size] for i in range(0, len(order), size)]


def prefetch(items: Iterable[T], depth: int = 4) -> Iterator[T]:
    """Iterate over `items` in a thread, at most `depth` of them ahead.

    An exception there is raised here.
    """
    waiting: queue.Queue[tuple[object, BaseException | None]] = queue.Queue(depth)
    stopped = threading.Event()
    end = object()

    def put(item: tuple[object, BaseException | None]) -> None:
        while not stopped.is_set():
            try:
                return waiting.put(item, timeout=0.1)
            except queue.Full:
                continue
        return None

    def work() -> None:
        try:
            for item in items:
                put((item, None))
                if stopped.is_set():
                    return
            put((end, None))
        except BaseException as error:  # raised in the consumer's thread, whatever it is
            put((end, error))

    thread = threading.Thread(target=work, name='prefetch', daemon=True)
    thread.start()
    try:
        while True:
            item, error = waiting.get()
            if error is not None:
                raise error
            if item is end:
                return
            yield cast(T, item)
    finally:
        stopped.set()
        thread.join()
