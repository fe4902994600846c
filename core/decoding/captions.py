"""From features to captions: what validation, testing and evaluation all run.

    hypotheses = model.build_search(DecodingConfig(beam_width=3))
    for caption in generate(session, model, hypotheses, data):
        print(caption.text)

Letters in shapes: N images, L locations.
"""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from core.common.aliases import Session
from core.common.errors import InputError
from core.data.batches import prefetch
from core.decoding.search_loop import Hypotheses

if TYPE_CHECKING:
    from core.data.split import Split
    from core.decoding.search_graphs import Searches


class Caption(NamedTuple):
    """One caption of one image.

    Attributes:
        words: list of str, without <END>.
        alphas: (len(words), L) float32, the attention at each word.
        betas: (len(words),) float32, the gate at each word.
        ended: bool, False where the caption was cut at the longest length.
        log_prob: float, the model's log-probability of the words, <END> included.
        score: float, what captions are ranked by: log_prob / length**length_penalty.
        probabilities: (len(words),) float32, the model's probability of each word.
    """

    words: list[str]
    alphas: np.ndarray
    betas: np.ndarray
    ended: bool
    log_prob: float
    score: float
    probabilities: np.ndarray

    @property
    def text(self) -> str:
        """The words with a space between them."""
        return ' '.join(self.words)


def generate(session: Session, model: 'Searches', hypotheses: Hypotheses, data: 'Split',
             images: Sequence[int] | np.ndarray | None = None, batch_size: int = 64,
             seed: int = 0) -> Iterator[Caption]:
    """Yield the best caption of each image, see `generate_n_best`."""
    for captions in generate_n_best(session, model, hypotheses, data, images, batch_size, seed):
        yield captions[0]


def generate_n_best(session: Session, model: 'Searches', hypotheses: Hypotheses, data: 'Split',
                    images: Sequence[int] | np.ndarray | None = None, batch_size: int = 64,
                    seed: int = 0) -> Iterator[list[Caption]]:
    """Yield the captions of each image; a batch is read while the one before it is decoded.

    Args:
        session: tf1.Session with the model's variables.
        model: CaptionGenerator or Ensemble.
        hypotheses: Hypotheses of its `build_search` or `build_beam_search`.
        data: Split that reads what the model takes.
        images: which of its images, by number; None: all.
        batch_size: images decoded together.
        seed: int, of drawn words and locations; what is drawn follows it and the image's number in
            `data`.

    Yields:
        list of Caption, the best first, in the order of `images`.
    """
    images = np.arange(len(data)) if images is None else np.asarray(images)
    dtype = model.inputs.dtype.as_numpy_dtype

    def read() -> Iterator[tuple[np.ndarray, np.ndarray]]:
        for first in range(0, len(images), batch_size):
            numbers = images[first:first + batch_size]
            yield numbers, data.read_features(numbers).astype(dtype, copy=False)

    for numbers, features in prefetch(read(), depth=2):
        yield from decode(session, model, hypotheses, features, numbers, seed)


def decode(session: Session, model: 'Searches', hypotheses: Hypotheses, inputs: np.ndarray,
           numbers: Sequence[int] | np.ndarray, seed: int = 0) -> list[list[Caption]]:
    """Caption one batch.

    Args:
        session, model, hypotheses, seed: as of `generate_n_best`.
        inputs: (N, ...) what `model.inputs` takes.
        numbers: (N,) int, the images' numbers, which decide with `seed` what is drawn.

    Returns:
        list of N lists of Caption, each best first.

    Raises:
        InputError: attention or scores are not finite.
    """
    values = session.run(hypotheses, {model.inputs: inputs, model.dropout_seed: (seed, 0),
                                      model.image_numbers: numbers})
    # Slots that are not used score -inf, but the best caption of every image is there.
    if not (np.isfinite(values.alphas).all() and np.isfinite(values.scores[:, 0]).all()):
        raise InputError('the attention or the words are not finite: the model diverged in '
                         'training, or the features are broken')
    return [[_caption(model, Hypotheses(*(value[image, slot] for value in values)))
             for slot in np.flatnonzero(np.isfinite(values.scores[image]))]
            for image in range(len(numbers))]


def _caption(model: 'Searches', hypothesis: Hypotheses) -> Caption:
    """Return the Caption of one slot of one image."""
    words = hypothesis.captions
    ends = np.flatnonzero(words == model.end)
    length = ends[0] if len(ends) else len(words)
    return Caption(
        [model.idx_to_word[word] for word in words[:length]], hypothesis.alphas[:length],
        hypothesis.betas[:length], bool(len(ends)), float(hypothesis.log_probs),
        float(hypothesis.scores), np.exp(hypothesis.word_log_probs[:length]))
