"""What the benchmarks measure on: captions as long as real ones, features, lengths of a file."""

import numpy as np
import pytest

from benchmarks.cases import (
    FLICKR8K,
    Album,
    Corpus,
    Sizes,
    full_captions,
    read_lengths,
    relu_features,
)
from core.common.errors import InputError
from core.data.vocabulary import END, NULL
from tests.support import tiny_model

SIZES = Sizes(**{name: getattr(tiny_model, name) for name in 'NLDHMTV'})


def test_a_corpus_has_the_lengths_of_flickr8k_and_batches_of_one_length_stand_for_it():
    sizes = Sizes(N=16, L=2, D=2, V=50)
    corpus = Corpus(sizes)
    words = np.count_nonzero(corpus.captions, axis=1) - 2
    assert np.bincount(words).tolist() == [0, 0, *FLICKR8K[2:16]] and len(words) == 26769
    assert corpus.captions.max() == 49
    assert corpus.captions[:, 0].tolist() == [tiny_model.START] * 26769
    assert all(caption[n + 1] == END
               for caption, n in zip(corpus.captions[::1000], words[::1000], strict=True))
    batches = corpus.batches(40)
    assert [batch.shape for batch in batches] == [(16, 17)] * 40
    lengths = np.array([np.count_nonzero(batch, axis=1) for batch in batches])
    assert (lengths.max(axis=1) == lengths.min(axis=1)).mean() > 0.95
    assert abs(lengths.mean() - 2 - words.mean()) < 0.15
    again, other = corpus.batches(40), corpus.batches(40, seed=1)
    assert all((a == b).all() for a, b in zip(batches, again, strict=True))
    assert sorted(lengths[:, 0]) == sorted(np.count_nonzero(batch, axis=1)[0] for batch in other)
    assert any((a != b).any() for a, b in zip(batches, other, strict=True))
    mixed = np.array([np.count_nonzero(batch, axis=1) for batch in corpus.batches(40, 'random')])
    assert (mixed.max(axis=1) > mixed.min(axis=1)).all()
    assert abs(mixed.mean() - 2 - words.mean()) < 0.4


def test_captions_that_do_not_fit_are_left_out():
    corpus = Corpus(SIZES, lengths=(0, 2, 3, 4, 50))
    assert np.bincount(np.count_nonzero(corpus.captions, axis=1) - 2).tolist() == [0, 2, 3, 4]
    with pytest.raises(InputError, match='fits into 4 steps'):
        Corpus(SIZES, lengths=(0, 0, 0, 0, 0, 7))


def test_full_captions_and_features():
    captions = full_captions(SIZES)
    assert captions.shape == (tiny_model.N, tiny_model.T + 1)
    assert (captions != NULL).all() and (captions[:, -1] == END).all()
    features = relu_features(SIZES, 1)
    assert features.dtype == np.float16 and features.min() == 0
    assert features.shape == (tiny_model.N, tiny_model.L, tiny_model.D)
    assert 0.3 < (features > 0).mean() < 0.7


def test_an_album_tells_captions_by_its_images():
    album = Album(Sizes(N=64, L=3, D=40, V=50))
    features, captions = album.batch(0)
    shown = features.astype(float).mean(axis=1)
    nearest = np.argsort(((shown[:, None] - shown) ** 2).sum(axis=2), axis=1)[:, 1]
    lengths = np.count_nonzero(captions, axis=1)
    # of 64 images of 48 sentences; by chance a tenth
    assert (lengths == lengths[nearest]).mean() > 0.4
    assert not (album.batch(1)[0] == features).all()


def test_lengths_of_a_token_file(tmp_path):
    path = tmp_path / 'Flickr8k.token.txt'
    path.write_text('a.jpg#0\tA dog runs .\na.jpg#1\tTwo dogs\nb.jpg#0\tA cat sits\n',
                    encoding='utf8')
    assert read_lengths(path) == (0, 0, 1, 2)
    path.write_text('nothing\n', encoding='utf8')
    with pytest.raises(InputError, match='Flickr8k.token.txt'):
        read_lengths(path)
