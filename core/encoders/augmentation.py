"""Random windows and mirror images for training on pixels (fine-tuning of the encoder).

Every choice is a function of the seed, the epoch and the caption's number, so that training that
goes on in the middle of an epoch sees the pictures that it would have seen.
"""

import re
from collections.abc import Mapping
from typing import Any

import numpy as np

from core.runtime.random_streams import RandomStream

# Words that name a side, as `core.data.vocabulary.tokenize` leaves them ("left-hand" is 'left',
# 'hand'; "right's" is 'rights'): a caption with one of them would be wrong of the mirror image.
# 'right' also stands in "right next to", where a mirror image would do no harm; leaving it out
# costs less than telling a model that left is right.
SIDES = frozenset(
    {'left', 'right', 'lefts', 'rights', 'lefthand', 'righthand', 'lefthanded', 'righthanded',
     'lefthander', 'righthander', 'lefty', 'lefties', 'righty', 'leftmost', 'rightmost', 'leftward',
     'rightward', 'leftwards', 'rightwards', 'leftside', 'rightside', 'upperleft', 'upperright',
     'lowerleft', 'lowerright', 'topleft', 'topright', 'bottomleft', 'bottomright'})


class Augmentation:
    """Random windows and mirrorings, of each picture of a batch.

    Args:
        seed: int.
        captions: (C, T + 1) int32, encoded captions.
        word_to_idx: dict of word -> number. A word that the model does not know cannot mislead it.
    """

    def __init__(self, seed: int, captions: np.ndarray, word_to_idx: Mapping[str, int]) -> None:
        self._seed = seed
        sides = [index for word, index in word_to_idx.items() if names_side(word)]
        self.sided = np.asarray(np.isin(captions, sides).any(axis=1))

    def draw(self, captions: np.ndarray, epoch: int) -> dict[str, Any]:
        """Return what is done to the picture of one place in a batch.

        Args:
            captions: numbers of the captions that it serves.
            epoch: int.

        Returns:
            dict: the options `offset` and `flip` of `preprocessing.load`. Mirrored with probability
            1/2, but never where one of the captions names a side.
        """
        # apart from the draws of the batches, which start from (seed, epoch)
        random = np.random.default_rng(
            [self._seed, epoch, int(captions[0]), RandomStream.AUGMENTATION])
        offset, flip = tuple(random.random(2)), random.random() < 0.5
        return {'offset': offset, 'flip': bool(flip and not self.sided[captions].any())}


def names_side(word: str) -> bool:
    """Say whether a word names a side, also one with case and punctuation ('Left-hand,')."""
    return not SIDES.isdisjoint(re.findall(r'\w+', word.lower()))
