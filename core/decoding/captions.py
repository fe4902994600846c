"""From features to captions: what validation, testing and evaluation all run."""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from core.common.aliases import Session
from core.common.errors import InputError
from core.data.batches import prefetch

if TYPE_CHECKING:
    from core.decoding.search_graphs import Beams, Sampled


class Caption(NamedTuple):
    """The caption of one image.

    Attributes:
        words: list of str, without <END>.
        alphas: (len(words), L) float32, the attention at each word.
        betas: (len(words),) float32, the gate at each word.
        ended: bool, False where the caption was cut at the longest length.
        log_prob: float, the model's log-probability of the words, <END> included; None where it was
            not asked for.
        score: float, what captions are ranked by: log_prob / length**length_penalty.
        probabilities: (len(words),) float32, the model's probability of each word; None where it
            was not asked for.
    """

    words: list[str]
    alphas: np.ndarray
    betas: np.ndarray
    ended: bool
    log_prob: float | None = None
    score: float | None = None
    probabilities: np.ndarray | None = None

    @property
    def text(self) -> str:
        """The words with a space between them."""
        return ' '.join(self.words)


def generate(session: Session, model: Any, found: 'Beams | Sampled', data: Any,
             images: Sequence[int] | np.ndarray | None = None, batch_size: int = 64,
             seed: int = 0) -> Iterator[Caption]:
    """Free-running captions of images, each the best that was found: what `generate_n_best` yields,
    its first.
    """
    for captions in generate_n_best(session, model, found, data, images, batch_size, seed):
        yield captions[0]


def generate_n_best(session: Session, model: Any, found: 'Beams | Sampled', data: Any,
                    images: Sequence[int] | np.ndarray | None = None, batch_size: int = 64,
                    seed: int = 0) -> Iterator[list[Caption]]:
    """Free-running captions of images. A batch is read while the one before it is decoded.

    Args:
        session: tf1.Session with the model's variables.
        model: CaptionGenerator or Ensemble.
        found: Beams of its `build_search` or `build_beam_search`, or Sampled of its
            `build_sampler`.
        data: CaptionData, or whatever reads what the model takes (`image_data.ImageData`).
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
            numbers = images[first : first + batch_size]
            yield numbers, data.read_features(numbers).astype(dtype, copy=False)

    for numbers, features in prefetch(read(), depth=2):
        yield from decode(session, model, found, features, numbers, seed)


def decode(session: Session, model: Any, found: 'Beams | Sampled', inputs: np.ndarray,
           numbers: Sequence[int] | np.ndarray, seed: int = 0) -> list[list[Caption]]:
    """Captions of one batch.

    Args:
        session, model, found, seed: as of `generate_n_best`.
        inputs: (N, ...) what `model.inputs` takes.
        numbers: (N,) int, the images' numbers, which decide with `seed` what is drawn.

    Returns:
        list of N lists of Caption, each best first.

    Raises:
        InputError: attention or scores are not finite.
    """
    result = session.run(found._asdict(), {model.inputs: inputs, model.dropout_seed: (seed, 0),
                                           model.image_numbers: numbers})
    # the best caption of every image has one
    scores = result['scores'][:, 0] if 'scores' in result else 0.0
    if not (np.isfinite(result['alphas']).all() and np.isfinite(scores).all()):
        raise InputError('the attention or the words are not finite: the model diverged in '
                         'training, or the features are broken')
    if result['captions'].ndim == 2:  # one caption an image, of build_sampler
        result = {name: value[:, np.newaxis] for name, value in result.items()}
    slots = range(result['captions'].shape[1])
    return [[_caption(model, {name: value[n, k] for name, value in result.items()}) for k in slots
             if 'scores' not in result or np.isfinite(result['scores'][n, k])]
            for n in range(len(numbers))]


def _caption(model: Any, result: dict[str, Any]) -> Caption:
    """The Caption of one slot of a search."""
    indices = result['captions']
    ends = np.flatnonzero(indices == model.end)
    length = ends[0] if len(ends) else len(indices)
    scored: list[Any] = [float(result[name]) if name in result else None
                         for name in ('log_probs', 'scores')]
    if 'word_log_probs' in result:
        scored.append(np.exp(result['word_log_probs'][:length]))
    return Caption([model.idx_to_word[index] for index in indices[:length]],
                   result['alphas'][:length], result['betas'][:length], bool(len(ends)), *scored)
