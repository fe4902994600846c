"""The one JSON form of a caption: of `caption.py --json`, the server and the pages.

docs/captioning.md names the fields. Pages hold the attention as text of one byte a word and place,
which is a fifth of the size; all else is the same.
"""

import base64
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike

from core.common.aliases import Json

if TYPE_CHECKING:
    from core.decoding.captions import Caption


def caption_record(caption: 'Caption', located: bool = False) -> dict[str, Any]:
    """Return a Caption ready for JSON.

    Args:
        caption: Caption.
        located: whether its attention is at one place a word (hard attention, drawn or likeliest).
    """
    return {'caption': caption.text, 'alphas': rounded(caption.alphas, 5),
            'log_prob': caption.log_prob, 'score': caption.score, **_common(caption, located, 5)}


def page_record(caption: 'Caption', located: bool = False,
                boxes: Iterable[tuple[Iterable[int], Sequence[float]]] = ()) -> dict[str, Any]:
    """Return `caption_record` for a page: fewer digits, and 'boxes'.

    Args:
        caption, located: as of `caption_record`.
        boxes: pairs of (places of the words that name it, (x0, y0, x1, y1) in fractions of the
            picture).

    Returns:
        dict of `caption_record` without 'caption', as the words are enough, but that 'alphas' is
        base64 of one byte a word and place, each word's strongest place being 255; and 'boxes' is a
        list of {'words': [...], 'rectangle': [...]}.
    """
    return {'alphas': quantized(caption.alphas), 'log_prob': rounded(caption.log_prob, 4),
            'score': rounded(caption.score, 4), **_common(caption, located, 3),
            'boxes': [{'words': sorted(words), 'rectangle': rounded(rectangle, 3)}
                      for words, rectangle in boxes if words]}


def _common(caption: 'Caption', located: bool, digits: int) -> dict[str, Any]:
    """Return what both records have alike, but for the number of digits."""
    return {
        'words': list(caption.words), 'probabilities': rounded(caption.probabilities, digits),
        'betas': rounded(caption.betas, digits), 'ended': caption.ended,
        'locations': caption.alphas.argmax(axis=1).tolist() if located else None,
    }


def rounded(values: ArrayLike | None, digits: int) -> Json:
    """Return a number or an array as floats of so many digits, for JSON; None stays None."""
    return None if values is None else np.round(np.asarray(values, np.float64), digits).tolist()


def quantized(alphas: np.ndarray) -> str:
    """Return attention (T, L) as base64 of T * L bytes, rows in parts of 255 of their largest."""
    alphas = np.asarray(alphas, np.float64)
    if not alphas.size:
        return ''
    strongest = np.maximum(alphas.max(axis=1, keepdims=True), 1e-12)
    return base64.b64encode((255 * alphas / strongest).round().astype(np.uint8).tobytes()).decode(
        'ascii')
