"""Rewards of captions against pycocoevalcap's own scorers."""

import os
import pathlib

import numpy as np
import pytest
from pycocoevalcap.bleu.bleu import Bleu
from pycocoevalcap.cider.cider import Cider

from core.common.errors import InputError
from core.config.model import ModelConfig
from core.data.vocabulary import SPECIALS, tokenize
from core.datasets.flickr import read_flickr8k
from core.metrics.sentence_rewards import (
    FILE,
    DocumentFrequencies,
    SentenceRewards,
    numbered,
    training_rewards,
)

END = SPECIALS.index('<END>')
WORDS = {word: index for index, word in enumerate([*SPECIALS, 'a', 'red', 'dog', 'runs', 'home'])}
TEXTS = [['A red dog runs.', 'a dog, a dog'], ['Home!', 'a cat runs home', 'a red cat']]


def references(n_images=40, seed=1, n_words=9):
    """Return lists of 1 to 5 captions of 1 to 12 words and <END>, in which words repeat."""
    random = np.random.default_rng(seed)
    return [[[*random.integers(3, 3 + n_words, random.integers(1, 13)).tolist(), END]
             for _ in range(random.integers(1, 6))] for _ in range(n_images)]


def written(of_images, seed=2, length=14):
    """Return captions (2 images, length): of each image a changed reference and any one, some cut.

    Some hold words that no reference has, one is empty, one is a single word.
    """
    random = np.random.default_rng(seed)
    captions = np.zeros((2 * len(of_images), length), np.int64)
    for row, caption in enumerate(captions):
        source = of_images[row // 2] if row % 2 else of_images[random.integers(len(of_images))]
        words = [word if random.random() < 0.8 else int(random.integers(2, 30))
                 for word in source[random.integers(len(source))]][:random.integers(1, length)]
        caption[:len(words)] = words
    captions[0] = 0
    captions[1] = [5] + [0] * (length - 1)
    return captions


def by_pycocoevalcap(of_images, captions, images):
    """Return (CIDEr-D (R,), BLEU-1 to 4 (R, 4)) of pycocoevalcap, by all images' references."""
    def text(caption):
        return ' '.join(str(word) for word in caption if word)

    cider, bleu = np.zeros(len(captions)), np.zeros((len(captions), 4))
    per_image = len(captions) // len(images)
    everything = {image: [text(caption) for caption in texts]
                  for image, texts in enumerate(of_images)}
    for turn in range(per_image):  # an image once in each call, as its scorers want it
        rows = np.arange(turn, len(captions), per_image)
        results = {image: [''] for image in everything}
        results |= {int(image): [text(captions[row])]
                    for image, row in zip(images, rows, strict=True)}
        _, scores = Cider().compute_score(everything, results)
        _, bleus = Bleu(4).compute_score(everything, results, verbose=0)
        cider[rows] = scores[images]
        bleu[rows] = np.transpose(bleus)[images]
    return cider, bleu


@pytest.mark.parametrize('images', [np.arange(40), np.array([7, 3, 31])], ids=['all', 'some'])
def test_equal_to_pycocoevalcap(images):
    of_images = references()
    rewards = SentenceRewards(of_images, bleu_share=0.25)
    captions = written(of_images).reshape(40, 2, -1)[images].reshape(2 * len(images), -1)
    cider, bleu = by_pycocoevalcap(of_images, captions, images)
    assert cider.max() > 2 and (bleu[:, 3] > 0.1).any()
    np.testing.assert_allclose(rewards.cider(captions, images), cider, rtol=0, atol=1e-12)
    np.testing.assert_allclose(rewards.bleu(captions, images), bleu, rtol=0, atol=1e-12)
    reward = rewards(captions, images)
    assert reward.dtype == np.float32
    np.testing.assert_allclose(reward, 0.75 * cider + 0.25 * bleu[:, 3], rtol=1e-6, atol=1e-7)


def test_equal_to_pycocoevalcap_on_flickr8k():
    if 'SAT_SHARED' not in os.environ:
        pytest.skip('SAT_SHARED names no directory of real photos and captions')
    folder = pathlib.Path(os.environ['SAT_SHARED']) / 'data' / 'flickr8k'
    records = read_flickr8k(folder / 'images', [folder / 'Flickr8k.token.txt'],
                          {'train': folder / 'Flickr_8k.trainImages.txt'})
    texts = [list(record.captions) for record in records if record.split == 'train'][:1500]
    known = sorted({word for captions in texts for text in captions for word in tokenize(text)})
    words = [*SPECIALS, *known[::2]]  # the others are unknown to the model
    of_images = numbered(texts, {word: index for index, word in enumerate(words)})
    captions = written(of_images, length=20)
    images = np.arange(len(texts))
    cider, bleu = by_pycocoevalcap(of_images, captions, images)
    rewards = SentenceRewards(of_images, bleu_share=1.0)
    np.testing.assert_allclose(rewards.cider(captions, images), cider, rtol=0, atol=1e-9)
    np.testing.assert_allclose(rewards.bleu(captions, images), bleu, rtol=0, atol=1e-9)


def test_the_end_counts_as_a_word():
    # 'a dog' and 'a dog <END>': the second has three n-grams more in common with the reference.
    rewards = SentenceRewards([[[4, 6, END]], [[5, 7, END]], [[8, 5, END]]])
    cut, ended = rewards(np.array([[4, 6, 0], [4, 6, END]]), np.array([0]))
    assert ended == pytest.approx(10 * 3 / 4) and cut < 0.8 * ended


def test_references_as_numbers():
    dog, cat = WORDS['dog'], len(WORDS)
    assert numbered(TEXTS, WORDS) == [
        [[4, 5, dog, 7, END], [4, dog, 4, dog, END]],
        [[8, END], [4, cat, 7, 8, END], [4, 5, cat, END]]]
    assert numbered([['A Dog .']], {**WORDS, 'Dog': 9, '.': 10}, 'raw') == [[[11, 9, 10, END]]]
    # A text spelt like a special word is text: its letters are words of no model.
    assert numbered([['<END>', '...']], WORDS) == [[[len(WORDS), END]]]


def test_document_frequencies_stay_with_the_run(tmp_path):
    options = ModelConfig(self_critical=True, dropout=False, bleu_reward=0.5)
    first = training_rewards(TEXTS, WORDS, options, tmp_path / 'run')
    kept = DocumentFrequencies.load(tmp_path / 'run' / FILE)
    assert kept.n_images == 2 and kept.equals(first.frequencies)
    # of 'a', 'red', 'dog', 'runs', 'home', <END>, 'cat', in the order of the words' numbers
    np.testing.assert_array_equal(kept.keys[0], [END, 4, 5, 6, 7, 8, 9])
    np.testing.assert_array_equal(kept.counts[0], [2, 2, 2, 1, 2, 1, 1])
    again = training_rewards(TEXTS, WORDS, options, tmp_path / 'run')
    captions, images = np.array([[4, 6, 4, END], [5, 0, 0, 0]]), np.array([0, 1])
    np.testing.assert_array_equal(again(captions, images), first(captions, images))
    with pytest.raises(InputError, match='other captions than the training data'):
        training_rewards([TEXTS[0], ['a dog']], WORDS, options, tmp_path / 'run')
    (tmp_path / 'run' / FILE).write_bytes(b'PK no archive')
    with pytest.raises(InputError, match='no document frequencies'):
        training_rewards(TEXTS, WORDS, options, tmp_path / 'run')
    assert training_rewards(TEXTS, WORDS, ModelConfig(), tmp_path / 'other') is None
    assert not (tmp_path / 'other').exists()


def test_every_image_needs_a_reference():
    with pytest.raises(InputError, match='image number 1 has none'):
        SentenceRewards([[[4, END]], []])


def test_words_that_a_key_cannot_hold_are_refused():
    with pytest.raises(InputError, match='65536 different words'):
        SentenceRewards([[[1 << 16, END]]])
