"""From features to captions: what validation, testing and evaluation all run."""

from typing import NamedTuple

import numpy as np

from core.batches import prefetch
from core.errors import InputError


class Caption(NamedTuple):
    """The caption of one image.

    Attributes:
        words: list of str, without <END>.
        alphas: (len(words), L) float32, the attention at each word.
        betas: (len(words),) float32, the gate at each word.
        ended: bool, False where the caption was cut at the longest length.
    """

    words: list
    alphas: np.ndarray
    betas: np.ndarray
    ended: bool

    @property
    def text(self):
        """The words with a space between them."""
        return ' '.join(self.words)


def generate(session, model, sampled, data, images=None, batch_size=64, seed=0):
    """Free-running captions of images.

    Args:
        session: tf1.Session with the model's variables.
        model: CaptionGenerator. sampled: Sampled, what its `build_sampler` returned.
        data: CaptionData, or whatever reads what the model takes (`finetune.ImageData`).
        images: which of its images, by number; None: all.
        batch_size: images decoded together.
        seed: int, of drawn locations (`decode_context='sample'`); the same for the same seed and batches.

    Yields:
        Caption, in the order of `images`.
    """
    images = np.arange(len(data)) if images is None else np.asarray(images)

    def read():
        for first in range(0, len(images), batch_size):
            features = data.read_features(images[first : first + batch_size])
            # Pixels stay uint8, their placeholder's type.
            yield features if features.dtype == np.uint8 else features.astype(np.float32)

    for number, features in enumerate(prefetch(read(), depth=2)):
        result = session.run(sampled, {model.inputs: features, model.dropout_seed: (seed, number)})
        if not np.isfinite(result.alphas).all():
            raise InputError('the attention is not finite: the model diverged in training, or the features are broken')
        for alphas, betas, indices in zip(*result, strict=True):
            ends = np.flatnonzero(indices == model.end)
            length = ends[0] if len(ends) else len(indices)
            words = [model.idx_to_word[index] for index in indices[:length]]
            yield Caption(words, alphas[:length], betas[:length], bool(len(ends)))
