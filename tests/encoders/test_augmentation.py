"""What augmentation draws: windows, and mirror images where no caption names a side."""

import numpy as np

from core.data.vocabulary import tokenize
from core.encoders.augmentation import SIDES, Augmentation


def test_half_of_the_pictures_are_mirrored_but_none_whose_caption_names_a_side():
    words = {'<NULL>': 0, '<START>': 1, '<END>': 2, '<UNK>': 3, 'dog': 4, 'left': 5, 'rightmost': 6,
             'bright': 7}
    captions = np.array([[1, 4, 2, 0], [1, 4, 5, 2], [1, 7, 4, 2], [1, 6, 2, 0]])
    augmentation = Augmentation(3, captions, words)
    flips = {n: np.mean([augmentation.draw(np.array([n]), epoch)['flip'] for epoch in range(400)])
             for n in range(4)}
    assert flips[1] == flips[3] == 0
    assert 0.4 < flips[0] < 0.6 and 0.4 < flips[2] < 0.6
    assert not any(augmentation.draw(np.array([0, 1, 2]), epoch)['flip'] for epoch in range(50))
    offsets = np.array([augmentation.draw(np.array([0]), epoch)['offset'] for epoch in range(400)])
    assert offsets.min() < 0.02 and offsets.max() > 0.98 and abs(np.corrcoef(offsets.T)[0, 1]) < 0.2
    assert np.abs(offsets.mean(0) - 0.5).max() < 0.05


def test_draws_are_of_the_seed_the_epoch_and_the_first_caption():
    def draw(seed=3, epoch=0, numbers=(0, 1)):
        augmentation = Augmentation(seed, np.zeros((3, 4), np.int32), {'<NULL>': 0})
        return augmentation.draw(np.array(numbers), epoch)['offset']

    assert draw() == draw() == draw(numbers=(0, 2))
    assert len({draw(), draw(seed=4), draw(epoch=1), draw(numbers=(1, 0))}) == 4


def test_sides_are_words_as_captions_have_them():
    assert all(tokenize(word) == [word] for word in SIDES)
    for caption in ("the dog on the LEFT", 'a left-handed batter', "the right's wing",
                    'the top-right corner'):
        assert SIDES & set(tokenize(caption)), caption
    for caption in ('a bright upright lamp', 'leftovers'):
        assert not SIDES & set(tokenize(caption)), caption


def test_raw_tokens_name_sides_too():
    named = ['left', 'Left,', '"RIGHT', 'left-handed', "right's", 'top-right.']
    others = ['bright', 'Leftovers', '.', 'upright,']
    words = {word: number for number, word in enumerate([*named, *others])}
    augmentation = Augmentation(1, np.arange(len(words))[:, np.newaxis], words)
    assert augmentation.sided.tolist() == [True] * len(named) + [False] * len(others)
