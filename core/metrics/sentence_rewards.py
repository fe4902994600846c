"""Rewards of whole captions for self-critical training: CIDEr-D and BLEU-4 of word numbers.

The scores are those of pycocoevalcap (`Cider`, which is CIDEr-D with sigma 6, and `Bleu` of a
sentence), computed for a batch at once: n-grams are columns of sparse matrices, captions rows.

    rewards = SentenceRewards(references)          # of every training image, <END> included
    reward = rewards(captions, images)             # (R, T) of (N,) images -> (R,) float32

CIDEr-D: Vedantam et al. 2015, arXiv 1411.5726. BLEU: Papineni et al. 2002.

Letters in shapes: I images, C references of all images, N images of a batch, R captions of them
(caption r belongs to image r // (R / N)), T words of a caption at most, G n-grams of one order.
"""

import pathlib
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from scipy import sparse

from core.common.aliases import PathLike
from core.common.errors import InputError
from core.common.files import replacing
from core.data.vocabulary import NULL, SPECIALS, TOKENS

if TYPE_CHECKING:
    from core.config.model import ModelConfig

FILE = 'document_frequencies.npz'  # of a run
ORDERS = (1, 2, 3, 4)
SIGMA = 6.0  # words of difference in length at which CIDEr-D gives exp(-1/2)
TINY, SMALL = 1e-15, 1e-9  # of pycocoevalcap's BLEU, which keep it above zero
BITS = 16  # of a word in the key of an n-gram: four words fill 64 bits


class DocumentFrequencies(NamedTuple):
    """In how many images' references each n-gram occurs.

    Attributes:
        keys: for each order, uint64 (G,), rising: the n-grams.
        counts: for each order, int64 (G,): images.
        n_images: int, I.
    """

    keys: tuple[np.ndarray, ...]
    counts: tuple[np.ndarray, ...]
    n_images: int

    def save(self, path: PathLike) -> None:
        """Write an NPZ file without objects; it appears whole or not at all."""
        arrays = {f'{name}_{order}': array for name in ('keys', 'counts')
                  for order, array in zip(ORDERS, getattr(self, name), strict=True)}
        with replacing(path, 'wb') as file:
            np.savez_compressed(file, n_images=np.int64(self.n_images), **arrays)

    @classmethod
    def load(cls, path: PathLike) -> 'DocumentFrequencies':
        """Read what `save` wrote; raise InputError for anything else."""
        try:
            with np.load(path, allow_pickle=False) as file:
                keys, counts = (tuple(file[f'{name}_{order}'] for order in ORDERS)
                                for name in ('keys', 'counts'))
                return cls(keys, counts, int(file['n_images']))
        except (OSError, ValueError, KeyError, EOFError) as error:
            raise InputError(f'{path}: no document frequencies of n-grams ({error}); delete it, '
                             'and training counts them again') from None

    def equals(self, other: 'DocumentFrequencies') -> bool:
        """Say whether the other counts the same."""
        return self.n_images == other.n_images and all(
            np.array_equal(a, b) for a, b in zip((*self.keys, *self.counts),
                                                 (*other.keys, *other.counts), strict=True))


class _Vectors(NamedTuple):
    """CIDEr-D's vectors of captions for one order.

    Attributes:
        weights: sparse (rows, G), term frequency times inverse document frequency.
        norms: (rows,), of all n-grams, also of those that no reference has.
    """

    weights: sparse.csr_matrix
    norms: np.ndarray


class SentenceRewards:
    """Rewards of captions of training images.

    Args:
        references: I lists of captions, each a sequence of word numbers from 1 to 65535, with
            <END> where it counts as a word. Words that a model cannot write need numbers too, as
            CIDEr-D counts them.
        frequencies: DocumentFrequencies; None: those of the references.
        bleu_share: share of BLEU-4 in the reward; the rest is CIDEr-D.

    Attributes:
        frequencies: DocumentFrequencies.
        bleu_share: float.

    Raises:
        InputError: an image without a reference, or more words than a key can hold.
    """

    def __init__(self, references: Sequence[Sequence[Sequence[int]]],
                 frequencies: DocumentFrequencies | None = None, bleu_share: float = 0.0) -> None:
        counts = np.array([len(captions) for captions in references], np.int64)     # (I,)
        if not counts.size or not counts.all():
            raise InputError('self_critical: every training image needs a reference, and image '
                             f'number {int(np.argmin(counts)) if counts.size else 0} has none')
        captions = _padded([caption for of_image in references for caption in of_image])  # (C, T)
        if captions.max() >= 1 << BITS:
            raise InputError(f'self_critical: the references have {captions.max()} different '
                             f'words; at most {(1 << BITS) - 1} can be told apart')
        self.bleu_share = bleu_share
        self._first = np.concatenate([[0], np.cumsum(counts)])                      # (I + 1,)
        image_of = np.repeat(np.arange(len(counts)), counts)                        # (C,)
        grams = [_n_grams(captions, order) for order in ORDERS]
        self.frequencies = frequencies or _frequencies(grams, image_of, len(counts))
        # log(I / images): of an n-gram that no reference has, the last, log I.
        self._rarity = [np.log(self.frequencies.n_images) - np.log(np.maximum([*of_order, 1], 1))
                        for of_order in self.frequencies.counts]
        self._lengths = np.count_nonzero(captions, axis=1)                          # (C,)
        matrices = [self._columns(order, *gram, len(captions))
                    for order, gram in zip(ORDERS, grams, strict=True)]
        self._vectors = [self._weighed(place, matrix) for place, matrix in enumerate(matrices)]
        self._most = [_largest_of_images(self._known(place, matrix), self._first)
                      for place, matrix in enumerate(matrices)] if bleu_share else []

    def __call__(self, captions: np.ndarray, images: np.ndarray) -> np.ndarray:
        """Return the rewards (R,) float32.

        Args:
            captions: (R, T) int, word numbers, <NULL> behind the end. images: (N,) int, numbers of
                the training images.
        """
        reward = np.zeros(len(captions))                                            # (R,)
        if self.bleu_share < 1:
            reward += (1 - self.bleu_share) * self.cider(captions, images)
        if self.bleu_share:
            reward += self.bleu_share * self.bleu(captions, images)[:, 3]
        return reward.astype(np.float32)

    def cider(self, captions: np.ndarray, images: np.ndarray) -> np.ndarray:
        """Return CIDEr-D (R,) float64 in 0 to 10; arguments as of a call."""
        rows = np.repeat(images, len(captions) // len(images))                      # (R,)
        counts = self._first[rows + 1] - self._first[rows]                          # (R,)
        # One pair for every caption and every reference of its image.
        caption = np.repeat(np.arange(len(captions)), counts)                       # (pairs,)
        within = np.arange(len(caption)) - np.repeat(np.cumsum(counts) - counts, counts)
        reference = self._first[rows][caption] + within                             # (pairs,)
        total = np.zeros(len(caption))
        for place, order in enumerate(ORDERS):
            written = self._weighed(
                place, self._columns(order, *_n_grams(captions, order), len(captions)))
            referred = self._vectors[place].weights[reference]                      # (pairs, G)
            shared = written.weights[caption].minimum(referred).multiply(referred).sum(axis=1)
            norms = written.norms[caption] * self._vectors[place].norms[reference]  # (pairs,)
            total += np.asarray(shared)[:, 0] / np.where(norms > 0, norms, 1)
        # pycocoevalcap takes the number of bigrams for the length.
        bigrams = [np.maximum(lengths - 1, 0) for lengths in
                   (np.count_nonzero(captions, axis=1), self._lengths)]
        delta = (bigrams[0][caption] - bigrams[1][reference]).astype(np.float64)
        total *= np.exp(-delta**2 / (2 * SIGMA**2))
        return 10 * np.bincount(caption, total, len(captions)) / counts / len(ORDERS)

    def bleu(self, captions: np.ndarray, images: np.ndarray) -> np.ndarray:
        """Return BLEU-1 to BLEU-4 of each caption, (R, 4) float64; arguments as of a call.

        The reference length is the nearest, the shorter of two as near.
        """
        if not self._most:
            raise ValueError('BLEU needs bleu_share above 0')
        rows = np.repeat(images, len(captions) // len(images))                      # (R,)
        lengths = np.count_nonzero(captions, axis=1)                                # (R,)
        product, scores = np.ones(len(captions)), []
        for place, order in enumerate(ORDERS):
            matrix = self._known(
                place, self._columns(order, *_n_grams(captions, order), len(captions)))
            correct = np.asarray(matrix.minimum(self._most[place][rows]).sum(axis=1))[:, 0]
            product = product * (correct + TINY) / (np.maximum(lengths - order + 1, 0) + SMALL)
            scores.append(product ** (1 / order))
        nearest = np.array([_nearest(self._lengths[self._first[image]:self._first[image + 1]], n)
                            for image, n in zip(rows, lengths, strict=True)])       # (R,)
        ratio = (lengths + TINY) / (nearest + SMALL)
        penalty = np.where(ratio < 1, np.exp(1 - 1 / ratio), 1.0)
        return np.stack(scores, axis=1) * penalty[:, np.newaxis]

    # ---- n-grams as columns

    def _columns(self, order: int, rows: np.ndarray, keys: np.ndarray,
                 n_rows: int) -> sparse.csr_matrix:
        """Return how often each n-gram occurs in each caption, (n_rows, G and more).

        The n-grams that `frequencies` does not know have the columns behind G.

        Args:
            order: int. rows, keys: (n-grams,), caption and key of each. n_rows: int.
        """
        known = self.frequencies.keys[order - 1]                                    # (G,)
        columns = np.minimum(np.searchsorted(known, keys), max(len(known) - 1, 0))
        unknown = known[columns] != keys if len(known) else np.ones(len(keys), bool)
        new, numbers = np.unique(keys[unknown], return_inverse=True)
        columns[unknown] = len(known) + numbers
        return sparse.csr_matrix((np.ones(len(keys)), (rows, columns)),
                                 (n_rows, len(known) + len(new)))

    def _known(self, place: int, counts: sparse.csr_matrix) -> sparse.csr_matrix:
        """Return the columns (rows, G) of n-grams that the references have."""
        return counts[:, :len(self.frequencies.keys[place])]

    def _weighed(self, place: int, counts: sparse.csr_matrix) -> _Vectors:
        """Return CIDEr-D's vectors of captions, whose n-grams are counted (rows, G and more)."""
        rarity = self._rarity[place]                                                # (G + 1,)
        weights = counts.copy()
        weights.data *= rarity[np.minimum(weights.indices, len(rarity) - 1)]
        norms = np.sqrt(np.add.reduceat(np.append(weights.data**2, 0), weights.indptr[:-1])
                        * (np.diff(weights.indptr) > 0))                            # (rows,)
        return _Vectors(self._known(place, weights), norms)


def training_rewards(references: Sequence[Sequence[str]], word_to_idx: Mapping[str, int],
                     options: 'ModelConfig', run: PathLike,
                     tokens: str = 'words') -> SentenceRewards | None:
    """Return the SentenceRewards of training images, whose document frequencies a run keeps.

    None without `self_critical`.

    Args:
        references: I lists of raw captions. word_to_idx: dict of the model's words.
        options: ModelConfig, of which self_critical and bleu_reward are read.
        run: directory, in which FILE is written where it is missing.
        tokens: str, how captions are cut, a name in `core.data.vocabulary.TOKENS`.

    Raises:
        InputError: FILE counts other captions than these.
    """
    if not options.self_critical:
        return None
    path = pathlib.Path(run) / FILE
    rewards = SentenceRewards(numbered(references, word_to_idx, tokens),
                              bleu_share=options.bleu_reward)
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        rewards.frequencies.save(path)
    elif not rewards.frequencies.equals(DocumentFrequencies.load(path)):
        raise InputError(f'{path}: counts the n-grams of other captions than the training data '
                         'have; go on with the data that this run began with, or begin a new run')
    return rewards


def numbered(references: Sequence[Sequence[str]], word_to_idx: Mapping[str, int],
             tokens: str = 'words') -> list[list[list[int]]]:
    """Return the references of images as word numbers, <END> behind each.

    Words that the model does not have get numbers behind its own, a number each: no drawn caption
    can have them, and CIDEr-D counts them as the words they are.

    Args:
        references: I lists of texts, of which those without a word are left out.
        word_to_idx: dict of the model's words. tokens: as of `training_rewards`.
    """
    others: dict[str, int] = {}
    own = {word: index for word, index in word_to_idx.items() if word not in SPECIALS}

    def number(word: str) -> int:
        index = own.get(word)
        return others.setdefault(word, len(word_to_idx) + len(others)) if index is None else index

    end = word_to_idx['<END>']
    return [[[*map(number, words), end] for words in map(TOKENS[tokens], texts) if words]
            for texts in references]


def _padded(captions: Sequence[Sequence[int]]) -> np.ndarray:
    """Return captions of different lengths as one array (C, T) int64, zeros behind each."""
    padded = np.zeros((len(captions), max(len(caption) for caption in captions)), np.int64)
    for row, caption in zip(padded, captions, strict=True):
        row[:len(caption)] = caption
    return padded


def _nearest(lengths: np.ndarray, length: int) -> int:
    """Return the nearest of `lengths` (n,), the shorter of two as near."""
    return min(lengths.tolist(), key=lambda other: (abs(other - length), other))


def _n_grams(captions: np.ndarray, order: int) -> tuple[np.ndarray, np.ndarray]:
    """Return (row (n,) int64, key (n,) uint64) of every n-gram of captions (rows, T)."""
    n_places = captions.shape[1] - order + 1
    if n_places < 1:
        return np.zeros(0, np.int64), np.zeros(0, np.uint64)
    words = captions.astype(np.uint64)
    keys = np.zeros((len(words), n_places), np.uint64)
    for place in range(order):
        keys |= words[:, place:place + n_places] << np.uint64(BITS * place)
    # Padding follows the words, so an n-gram whose last word is one has none.
    rows, columns = np.nonzero(captions[:, order - 1:] != NULL)
    return rows, keys[rows, columns]


def _frequencies(grams: Sequence[tuple[np.ndarray, np.ndarray]], image_of: np.ndarray,
                 n_images: int) -> DocumentFrequencies:
    """Count in how many images each n-gram occurs.

    Args:
        grams: of each order (caption (n,), key (n,)). image_of: (C,), the image of each caption.
        n_images: I.
    """
    keys, counts = [], []
    for rows, of_order in grams:
        distinct, numbers = np.unique(of_order, return_inverse=True)                # (G,)
        pairs = np.unique(image_of[rows] * max(len(distinct), 1) + numbers)  # once an image
        keys.append(distinct)
        counts.append(np.bincount(pairs % max(len(distinct), 1), minlength=len(distinct)))
    return DocumentFrequencies(tuple(keys), tuple(counts), n_images)


def _largest_of_images(counts: sparse.csr_matrix, first: np.ndarray) -> sparse.csr_matrix:
    """Return the largest count of each n-gram in one reference of an image, (I, G).

    Args:
        counts: (C, G). first: (I + 1,), where each image's references begin.
    """
    entries = counts.tocoo()
    image = np.searchsorted(first, entries.row, side='right') - 1
    order = np.lexsort((entries.data, entries.col, image))
    image, column, value = image[order], entries.col[order], entries.data[order]
    last = np.append((np.diff(image) != 0) | (np.diff(column) != 0), True)  # the largest of equals
    return sparse.csr_matrix((value[last], (image[last], column[last])),
                             (len(first) - 1, counts.shape[1]))
