"""Sizes, captions, features and weights for every side of a comparison.

Nothing here imports TensorFlow or PyTorch.

    sizes = Sizes(N=64)
    corpus = Corpus(sizes, lengths=FLICKR8K)
    batches = corpus.batches(8)         # list of (N, T + 1) int32, representative of an epoch
    features = relu_features(sizes, seed=1)       # (N, L, D) float16

Everything follows from seeds, so each process makes its own and nothing large is sent around.
"""

import collections
import dataclasses

import numpy as np

from core.common.errors import InputError
from core.data.batches import Batches
from core.data.data_dir import CaptionData
from core.data.feature_file import ArrayFeatures
from core.data.vocabulary import END, START, tokenize

# How many captions have 0, 1, 2, ... 15 words: the 30,000 captions of Flickr8k's 6000 training
# images (Flickr8k.token.txt, Flickr_8k.trainImages.txt), tokenized by
# core.data.vocabulary.tokenize. prepro.py leaves longer ones out (2,533 of them, 8 %).
FLICKR8K = (0, 0, 15, 125, 340, 854, 1948, 2501, 2917, 3318, 3310, 3134, 2772, 2332, 1864, 1339)
PROTOTYPES = 48  # sentences that the images of the decoding benchmarks have
NOISE = 0.1  # share of their words that another takes the place of, in training


@dataclasses.dataclass(frozen=True)
class Sizes:
    """The sizes of a comparison, in the letters of the project.

    N captions in a batch, L locations, D features, H state, M word vector, T steps, V words.

    The defaults are those of the TF1 model on VGG19's features.
    """

    N: int = 64
    L: int = 196
    D: int = 512
    H: int = 1024
    M: int = 512
    T: int = 16
    V: int = 10000

    def word_to_idx(self):
        """Return a vocabulary of V words."""
        words = ['<NULL>', '<START>', '<END>', '<UNK>', *(f'w{i}' for i in range(4, self.V))]
        return {word: index for index, word in enumerate(words)}

    def model(self):
        """Return the sizes as `CaptionGenerator` names them."""
        return {'dim_feature': (self.L, self.D), 'dim_embed': self.M, 'dim_hidden': self.H,
                'n_time_step': self.T}


def read_lengths(path):
    """Return how many captions of a Flickr8k.token.txt have 0, 1, 2, ... words, as a tuple.

    It takes the place of FLICKR8K.
    """
    try:
        with open(path, encoding='utf8') as file:
            counts = collections.Counter(len(tokenize(line.partition('\t')[2])) for line in file)
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f'{path}: cannot be read ({error}); give Flickr8k.token.txt') from None
    if not any(length for length in counts):
        raise InputError(f'{path}: no line has a caption behind a tab; give Flickr8k.token.txt')
    return tuple(counts[length] for length in range(max(counts) + 1))


def draw_words(random, n, n_words):
    """Draw n word numbers of 4 to n_words - 1, the frequent ones first, by Zipf's law."""
    share = 1 / np.arange(1, n_words - 3)
    return 4 + random.choice(n_words - 4, n, p=share / share.sum()).astype(np.int32)


class Corpus:
    """Captions of drawn words, with the lengths of a real corpus.

    Captions that do not fit into T steps are left out.

    Args:
        sizes: Sizes. lengths: tuple, how many captions have 0, 1, 2, ... words. seed: int.
    """

    def __init__(self, sizes, lengths=FLICKR8K, seed=1):
        random = np.random.default_rng([seed, 1])
        counts = np.array(lengths[1 : sizes.T])  # <END> takes a step
        if not counts.sum():
            raise InputError(f'no caption of the given lengths fits into {sizes.T} steps')
        self.sizes, self.seed = sizes, seed
        of_each = np.repeat(np.arange(1, len(counts) + 1), counts)
        words = draw_words(random, of_each.sum(), sizes.V)
        self.captions = np.zeros((len(of_each), sizes.T + 1), np.int32)
        self.captions[:, 0] = START
        places = np.arange(sizes.T)[np.newaxis]
        self.captions[:, 1:][places < of_each[:, np.newaxis]] = words
        self.captions[np.arange(len(of_each)), of_each + 1] = END

    def data(self, features):
        """Return the corpus as CaptionData: caption i is of image i modulo those of `features`."""
        n_images = features.shape[0]
        return CaptionData(features, np.arange(n_images), self.captions,
                           np.arange(len(self.captions)) % n_images, list(range(n_images)),
                           [[] for _ in range(n_images)])

    def batches(self, n, order='sorted', seed=0):
        """Return `n` batches that together stand for an epoch, as training would cut it.

        Args:
            n: how many. order: 'sorted', as core.data.batches does it: a batch holds captions of
                one length (but for few), or 'random': captions of any length. seed: of the order in
                which they come.

        Returns:
            list of (N, T + 1) int32.
        """
        size = self.sizes.N
        random = np.random.default_rng([self.seed, 2, seed])
        if order == 'random':
            chosen = random.permutation(len(self.captions))[: n * size].reshape(-1, size)
        else:
            plan = Batches(self.data(ArrayFeatures(np.empty((1, 1, 1)))), size, self.seed).plan(0)
            whole = sorted((piece for piece in plan if len(piece) == size),
                           key=lambda piece: np.count_nonzero(self.captions[piece]))
            # Evenly over the batches by length: the median of each n-th part of the epoch.
            chosen = [whole[i] for i in ((np.arange(n) + 0.5) / n * len(whole)).astype(int)]
            chosen = [chosen[i] for i in random.permutation(n)]
        return [self.captions[index] for index in chosen]


def full_captions(sizes, seed=1):
    """Return (N, T + 1) int32, captions that use all T steps."""
    captions = np.full((sizes.N, sizes.T + 1), END, np.int32)
    captions[:, 0] = START
    captions[:, 1 : sizes.T] = draw_words(np.random.default_rng(seed), sizes.N * (sizes.T - 1),
                                          sizes.V).reshape(sizes.N, -1)
    return captions


def relu_features(sizes, seed, n=None):
    """Return (n or N, L, D) float16, not negative, about half of them zero."""
    drawn = np.random.default_rng([seed, 3]).standard_normal((n or sizes.N, sizes.L, sizes.D),
                                                             np.float32)
    return np.maximum(drawn, 0, out=drawn).astype(np.float16)


class Album:
    """Images that tell their captions, for decoding.

    Each shows one of PROTOTYPES sentences of Flickr8k's lengths.

    Args:
        sizes: Sizes. lengths: as for Corpus. seed: int.
    """

    def __init__(self, sizes, lengths=FLICKR8K, seed=1):
        self.sizes, self.seed = sizes, seed
        random = np.random.default_rng([seed, 4])
        corpus = Corpus(sizes, lengths, seed).captions
        corpus = corpus[np.argsort(np.count_nonzero(corpus, axis=1), kind='stable')]
        middles = (np.arange(PROTOTYPES) + 0.5) / PROTOTYPES * len(corpus)
        self.sentences = corpus[middles.astype(int)]
        self._shown = random.standard_normal((PROTOTYPES, 1, sizes.D), np.float32)

    def batch(self, number):
        """Return features (N, L, D) float16 and captions (N, T + 1).

        Some words of the captions are others than the sentence's.
        """
        sizes, random = self.sizes, np.random.default_rng([self.seed, 5, number])
        which = random.integers(PROTOTYPES, size=sizes.N)
        features = self._shown[which] + random.standard_normal(
            (sizes.N, sizes.L, sizes.D), np.float32)
        captions = self.sentences[which].copy()
        others = (captions > END) & (random.random(captions.shape) < NOISE)
        captions[others] = draw_words(random, others.sum(), sizes.V)
        return np.maximum(features, 0).astype(np.float16), captions
