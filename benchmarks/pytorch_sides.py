"""The sides of the comparisons that run in PyTorch; see benchmarks.tensorflow_sides."""

import time

import numpy as np
import torch

from benchmarks.cases import FLICKR8K, Album, Corpus, full_captions, relu_features
from benchmarks.measure import resident
from benchmarks.pytorch_captioner import Captioner, beam_search


class TorchTraining:
    """Training steps with Adam.

    Args:
        sizes: Sizes. threads: int. hoist_projection: see Captioner. lengths: see cases.Corpus.
    """

    def __init__(self, sizes, threads=2, hoist_projection=False, lengths=FLICKR8K):
        torch.set_num_threads(threads)
        torch.manual_seed(1)
        self.sizes, self.corpus = sizes, Corpus(sizes, lengths)
        self.model = Captioner(sizes.V, **sizes.model(), hoist_projection=hoist_projection)
        self.optimizer = torch.optim.Adam(self.model.parameters(), lr=1e-3)
        self._images = [torch.from_numpy(relu_features(sizes, seed).astype(np.float32))
                        for seed in (1, 2)]
        self._step = 0
        begun = time.perf_counter()
        self._run(full_captions(sizes))
        self.first_seconds = time.perf_counter() - begun

    def _run(self, captions):
        self._step += 1
        self.optimizer.zero_grad()
        loss = self.model(self._images[self._step % 2], torch.from_numpy(captions.astype(np.int64)))
        loss.backward()
        self.optimizer.step()
        return loss.item()

    def train(self, number, steps, order='sorted'):
        """Run `steps` steps on batches that stand for an epoch; `number` is the round."""
        batches = self.corpus.batches(steps, order, number)
        begun = time.perf_counter()
        for captions in batches:
            loss = self._run(captions)
        seconds = time.perf_counter() - begun
        assert np.isfinite(loss), loss
        return {'seconds': seconds, 'items': steps * self.sizes.N}

    def memory(self):
        """Return bytes: 'idle' after the import, 'peak' since the process began."""
        return {'idle': self.idle_bytes, 'peak': resident()['VmHWM']}


class TorchBeam:
    """Beam search of an Album's images, one after the other.

    Args:
        sizes, threads, weights, beam_width, max_len, lengths: see tensorflow_sides.Decoding.
        hoist_projection: see Captioner.
    """

    def __init__(self, sizes, threads, weights, beam_width, max_len=20, hoist_projection=False,
                 lengths=FLICKR8K):
        torch.set_num_threads(threads)
        self.album, self.beam_width, self.max_len = Album(sizes, lengths), beam_width, max_len
        self.model = Captioner(sizes.V, **sizes.model(), hoist_projection=hoist_projection)
        with np.load(weights) as values:
            self.model.load(dict(values))
        self.model.eval()
        self.decode(0, 2)

    def decode(self, number, n_images):
        """Return captions of the first `n_images` of batch `number`.

        See tensorflow_sides.Decoding.
        """
        images = torch.from_numpy(self.album.batch(number)[0][:n_images].astype(np.float32))
        begun = time.perf_counter()
        captions = [beam_search(self.model, image, self.beam_width, self.max_len)[0]
                    for image in images]
        return {'seconds': time.perf_counter() - begun, 'items': len(captions),
                'captions': captions}
