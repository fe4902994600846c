"""From features to captions: the best and the n best, in order, whatever the batches."""

import threading

import numpy as np
import pytest

from core.common.errors import InputError
from core.config.decoding import DecodingConfig
from core.decoding.captions import generate, generate_n_best
from tests.support import tiny_model

MAX_LEN = 6


class Data:
    """Features in memory; `read` says which images were read."""

    def __init__(self, n=7):
        shape = n, tiny_model.L, tiny_model.D
        self.features = np.random.default_rng(8).normal(1.0, 2.0, shape).astype(np.float16)
        self.read = []

    def __len__(self):
        return len(self.features)

    def read_features(self, images):
        self.read.append(list(images))
        return self.features[images]


@pytest.fixture(scope='module')
def made():
    """Return the model, its searches by name, and a session."""
    with tiny_model.tf_graph():
        model = tiny_model.build()
        beam = DecodingConfig(max_len=MAX_LEN, beam_width=3, length_penalty=0.7)
        searches = {
            'greedy': model.build_search(DecodingConfig(max_len=MAX_LEN)),
            'beam': model.build_search(beam, n_best=2),
            'single': model.build_search(beam),
            'sample': model.build_search(DecodingConfig(max_len=MAX_LEN, sample=True, top_k=5)),
            'wide': model.build_search(DecodingConfig(max_len=1, beam_width=20), n_best=20),
        }
        assigned = tiny_model.values(model, seed=1)
        assigned['logits/w_out'] *= 4
        assigned['logits/b_out'][tiny_model.END] += 2.0
        with tiny_model.session(model, assigned) as session:
            yield model, searches, session


def found_by(made, name, images=None, batch_size=3, data=None, **options):
    model, searches, session = made
    return list(generate_n_best(session, model, searches[name], data or Data(), images, batch_size,
                                **options))


def same(first, second):
    assert first.words == second.words and first.ended == second.ended
    np.testing.assert_allclose(first.alphas, second.alphas, rtol=1e-4)
    np.testing.assert_allclose(first.betas, second.betas, rtol=1e-4)


def test_greedy_captions_are_those_of_the_sampler_with_scores(made):
    model, _, session = made
    with model.graph.as_default():
        sampled = tiny_model.sampler(model, MAX_LEN)
    alphas, betas, words = session.run(sampled, {model.features: Data().features})
    for n, (caption,) in enumerate(found_by(made, 'greedy')):
        length = len(caption.words)
        assert [model.idx_to_word[word] for word in words[n, :length]] == caption.words
        np.testing.assert_allclose(caption.alphas, alphas[n, :length], rtol=1e-4)
        np.testing.assert_allclose(caption.betas, betas[n, :length], rtol=1e-4)
        assert caption.score == caption.log_prob < 0


@pytest.mark.parametrize('name', ['greedy', 'beam', 'sample'])
def test_probabilities_of_the_words_make_up_the_captions(made, name):
    cut = 0
    for captions in found_by(made, name):
        for caption in captions:
            assert caption.probabilities.shape == (len(caption.words),)
            product = np.log(caption.probabilities).sum()
            if caption.ended:  # the end has a probability too
                assert product > caption.log_prob
            else:
                cut += 1
                assert product == pytest.approx(caption.log_prob, rel=1e-5)
    assert name != 'sample' or cut


@pytest.mark.parametrize('name', ['greedy', 'beam', 'sample'])
def test_captions_do_not_depend_on_the_batches(made, name):
    whole = found_by(made, name, batch_size=7)
    assert len({len(captions[0].words) for captions in whole}) > 2
    for images, batch_size in ((None, 3), ([5, 0, 6, 2], 1), ([6, 1], 2)):
        found = found_by(made, name, images, batch_size)
        for image, captions in zip(range(7) if images is None else images, found, strict=True):
            for one, expected in zip(captions, whole[image], strict=True):
                same(one, expected)
                assert one.score == pytest.approx(expected.score, rel=1e-4)


def test_samples_follow_the_seed(made):
    first, again, other = (found_by(made, 'sample', seed=seed) for seed in (1, 1, 2))
    assert [c[0].words for c in first] == [c[0].words for c in again] != [c[0].words for c in other]


def test_the_best_of_a_beam_is_the_same_with_fewer_kept(made):
    several, single = found_by(made, 'beam'), found_by(made, 'single')
    for captions, (best,) in zip(several, single, strict=True):
        same(captions[0], best)
        assert len(captions) == 2 and captions[0].score >= captions[1].score
        assert captions[0].words != captions[1].words or captions[0].ended != captions[1].ended
        for caption in captions:
            length = len(caption.words) + caption.ended
            assert caption.score == pytest.approx(caption.log_prob / length**0.7, rel=1e-5)
            assert caption.alphas.shape == (len(caption.words), tiny_model.L)
    model, searches, session = made
    best = generate(session, model, searches['beam'], Data())
    assert [caption.text for caption in best] == [captions[0].text for captions in several]


def test_slots_that_are_not_used_are_left_out(made):
    """One word is written: ten captions can be, of the thirteen words."""
    for captions in found_by(made, 'wide'):
        assert len(captions) == 10 and sum(caption.ended for caption in captions) == 1
        assert len({caption.text for caption in captions}) == 10


def test_the_next_batch_is_read_while_one_is_decoded(made):
    model, searches, session = made
    data, second = Data(), threading.Event()
    plain = data.read_features

    def read_features(images):
        if 3 in images:
            second.set()
        return plain(images)

    data.read_features = read_features
    captions = generate_n_best(session, model, searches['greedy'], data, None, 3)
    next(captions)
    assert second.wait(10)  # although only the first image's caption was taken
    assert len(list(captions)) == 6 and data.read == [[0, 1, 2], [3, 4, 5], [6]]


def test_broken_features_and_diverged_models_are_named(made):
    model, searches, session = made
    data = Data()
    data.features[4, 0, 0] = np.nan
    with pytest.raises(InputError, match='not finite'):
        found_by(made, 'greedy', data=data)
    bias = {v.op.name: v for v in model.variables}['logits/b_out']
    before = session.run(bias)
    bias.load(np.full_like(before, np.nan), session)
    try:
        for name in ('greedy', 'beam'):
            with pytest.raises(InputError, match='not finite'):
                found_by(made, name)
    finally:
        bias.load(before, session)


def test_build_search_refuses_more_captions_than_the_beam_holds(made):
    model = made[0]
    with pytest.raises(ValueError, match='2 captions'):
        model.build_search(DecodingConfig(), n_best=2)
    with pytest.raises(ValueError, match='n_best'):
        model.build_search(DecodingConfig(beam_width=3), n_best=4)
