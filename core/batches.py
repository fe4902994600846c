"""Batches of captions of nearly equal length, shuffled, and read ahead of the training step.

    batches = Batches(data, batch_size=64, seed=1)
    for batch in prefetch(batches.epoch(0)):
        session.run(train, {model.features: batch.features, model.captions: batch.captions})
"""

import queue
import threading
from typing import NamedTuple

import numpy as np


class Batch(NamedTuple):
    """One batch.

    Attributes:
        features: (N, L, D) float32.
        captions: (N, T + 1) int32.
        index: (N,) int, which captions of the data these are.
    """

    features: np.ndarray
    captions: np.ndarray
    index: np.ndarray


class Batches:
    """Every caption of a CaptionData exactly once an epoch (4.3: batches hold captions of one length).

    Captions are sorted by length with ties in random order, cut into batches, and the batches shuffled: a batch's
    captions have one length, but for the few batches at the borders between lengths, and little padding is computed.
    The order depends on `seed` and the epoch's number only, so training can go on in the middle of an epoch.

    Args:
        data: CaptionData.
        batch_size: captions in a batch; an epoch's one incomplete batch is smaller.
        seed: int.
    """

    def __init__(self, data, batch_size, seed):
        self.data, self.batch_size, self.seed = data, batch_size, seed
        self.lengths = np.count_nonzero(data.captions, axis=1)

    def __len__(self):
        """Batches in an epoch."""
        return -(-len(self.lengths) // self.batch_size)

    def plan(self, epoch):
        """The epoch's batches as a list of arrays of caption numbers."""
        random = np.random.default_rng([self.seed, epoch])
        shuffled = random.permutation(len(self.lengths))
        order = shuffled[np.argsort(self.lengths[shuffled], kind='stable')]
        pieces = [order[i : i + self.batch_size] for i in range(0, len(order), self.batch_size)]
        return [pieces[i] for i in random.permutation(len(pieces))]

    def epoch(self, epoch, start=0):
        """Yields the epoch's batches as Batch, from batch number `start` on."""
        for index in self.plan(epoch)[start:]:
            features = self.data.read_features(self.data.image_idxs[index])
            yield Batch(features.astype(np.float32), self.data.captions[index], index)


def prefetch(items, depth=4):
    """Iterate over `items` in a thread, at most `depth` of them ahead; an exception there is raised here."""
    waiting, stopped = queue.Queue(depth), threading.Event()
    end = object()

    def put(item):
        while not stopped.is_set():
            try:
                return waiting.put(item, timeout=0.1)
            except queue.Full:
                continue
        return None

    def work():
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
            yield item
    finally:
        stopped.set()
        thread.join()
