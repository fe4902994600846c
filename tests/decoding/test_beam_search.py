"""Beam search: hand-made tables, a plain Python search, and every sentence of a tiny model."""

import itertools

import numpy as np
import pytest

from core.decoding import beam_search, search_loop
from core.decoding.word_rules import Rules
from core.model.caption_generator import CaptionGenerator
from core.runtime.backend import tf
from tests.support import table_decoder, tiny_model
from tests.support.tolerances import assert_same_but_rounding

END, NEVER = 2, (0, 1)  # words: 0 never written, 1 start, 2 end, the others ordinary


def table(chains, size=7):
    """Return probabilities (1, V, V) from {last word: {next word: probability}}.

    What is left goes to word 0.
    """
    made = np.zeros((1, size, size))
    for last, following in chains.items():
        for word, probability in following.items():
            made[0, last, word] = probability
    made[:, :, 0] = 1 - made.sum(axis=2)
    return made


def search(probabilities, max_len, *arguments, images=None, dtype=np.float64, rules=None,
           **options):
    """Return (Hypotheses, steps taken, rows computed)."""
    rules = Rules(**{'end': END, 'never': NEVER, **(rules or {})})

    def hypotheses(begin):
        return beam_search.beam_search(begin, rules, max_len, *arguments, **options)

    return table_decoder.run(probabilities, hypotheses, images, dtype)


def sentences(found, image=0):
    """Return the words of an image's hypotheses that are used, with the end word."""
    return [words[:length].tolist()
            for words, length in zip(found.captions[image], found.lengths[image], strict=True)
            if length]


# ---- by hand

GARDEN = table({1: {3: 0.5, END: 0.3, 4: 0.2}, 3: {5: 0.9, END: 0.1}, 4: {END: 1.0}, 5: {END: 1.0}})


def test_stopping_at_as_many_ends_as_the_beam_is_wide_would_be_wrong():
    """After two steps two hypotheses have ended, with .3 and .2; the best, .45, ends later."""
    found, steps, _ = search(GARDEN, 6, 2)
    assert sentences(found) == [[3, 5, END], [END]]
    np.testing.assert_allclose(np.exp(found.scores[0]), [0.45, 0.3])
    assert steps == 3
    assert found.captions.tolist() == [[[3, 5] + [END] * 4, [END] * 6]]


def test_the_search_ends_as_soon_as_nothing_can_win():
    certain = table({1: {END: 0.6, 3: 0.25, 4: 0.15}, 3: {3: 0.9, END: 0.1}, 4: {4: 0.9, END: 0.1}})
    best, steps, rows = search(certain, 9, 2, n_best=1)
    assert sentences(best) == [[END]] and (steps, rows) == (1, 1)
    both, steps, rows = search(certain, 9, 2)
    # The second best is [3] * 9, cut, with .25 * .9**8 = .108: to know it takes all steps.
    assert steps == 9 and rows == 1 + 8 * 2
    assert sentences(both) == [[END], [3] * 9]
    np.testing.assert_allclose(np.exp(both.scores[0]), [0.6, 0.25 * 0.9**8])


def test_the_bound_of_the_length_penalty_uses_the_longest_length():
    """.6 in one word against .25 * .9**(n - 1) in n: a mean of logarithms favours the longest."""
    certain = table({1: {END: 0.6, 3: 0.25, 4: 0.15}, 3: {3: 0.9, END: 0.1}, 4: {4: 0.9, END: 0.1}})
    plain, steps, _ = search(certain, 9, 2, 0.0, n_best=1)
    assert steps == 1
    normed, steps, _ = search(certain, 9, 2, 1.0, n_best=1)
    assert sentences(normed) == [[3] * 9] and steps == 9
    assert normed.scores[0, 0] == pytest.approx(np.log(0.25 * 0.9**8) / 9)
    assert normed.log_probs[0, 0] == pytest.approx(np.log(0.25 * 0.9**8))
    # With four words at most log(.25 * ...) / 4 < log(.6): already the first step proves it.
    short, steps, _ = search(table({1: {END: 0.6, 3: 0.1}, 3: {3: 0.9, END: 0.1}}), 4, 2, 1.0,
                             n_best=1)
    assert sentences(short) == [[END]] and steps == 1
    assert plain.scores[0, 0] == pytest.approx(np.log(0.6))


def test_length_counts_the_end_word():
    found, *_ = search(GARDEN, 6, 3, 0.5)
    expected = sorted([np.log(0.45) / 3**0.5, np.log(0.3), np.log(0.2) / 2**0.5,
                       np.log(0.05) / 2**0.5], reverse=True)
    np.testing.assert_allclose(found.scores[0], expected[:3])
    assert sentences(found) == [[3, 5, END], [4, END], [END]]


def test_running_out_of_steps():
    """Captions without an end are ranked with the others, by the words that they have."""
    found, *_ = search(GARDEN, 2, 2)
    assert sentences(found) == [[3, 5], [END]]
    np.testing.assert_allclose(np.exp(found.scores[0]), [0.45, 0.3])
    assert found.lengths.tolist() == [[2, 1]]
    one, *_ = search(GARDEN, 1, 2)
    assert sentences(one) == [[3], [END]]


def test_slots_without_a_sentence_say_so():
    found, steps, _ = search(table({1: {3: 0.5, END: 0.5}, 3: {END: 1.0}}), 5, 4)
    assert sentences(found) == [[END], [3, END]]
    assert found.scores[0, 2:].tolist() == found.log_probs[0, 2:].tolist() == [-np.inf] * 2
    assert found.lengths[0, 2:].tolist() == [0, 0] and (found.captions[0, 2:] == END).all()
    assert not found.betas[0, 2:].any()
    assert steps == 2  # then nothing lives


def test_attention_and_gates_follow_the_parents():
    found, *_ = search(GARDEN, 5, 3)
    assert sentences(found) == [[3, 5, END], [END], [4, END]]
    assert found.betas.tolist() == [[[1, 13, 135, 135, 135], [1] * 5, [1, 14, 14, 14, 14]]]
    assert found.alphas.shape == (1, 3, 5, 1)


def test_an_end_counts_only_among_the_first_of_the_candidates():
    """Width 1 is greedy: the end (.3) is second at the first step."""
    assert sentences(search(GARDEN, 6, 1)[0]) == [[3, 5, END]]


def test_the_first_step_has_one_row_an_image_and_searches_that_are_over_leave():
    three = np.concatenate([table({1: {END: 0.9, 3: 0.1}, 3: {END: 1.0}}),
                            table({1: {3: 1.0}, 3: {4: 1.0}, 4: {END: 1.0}}),
                            table({1: {3: 1.0}, 3: {3: 0.9, END: 0.1}})])
    found, steps, rows = search(three, 5, 2, n_best=1)
    assert [sentences(found, image) for image in range(3)] == [[[END]], [[3, 4, END]], [[3] * 5]]
    assert steps == 5 and rows == 3 + 2 * (2 + 2 + 1 + 1)
    assert found.alphas[:, 0, :, 0].tolist() == [[0] * 5, [1] * 5, [2] * 5]


# ---- diverse groups

FORK = table({1: {3: 0.5, 4: 0.3, 5: 0.15, END: 0.05}, 3: {6: 0.6, 4: 0.4}, 4: {6: 0.9, 3: 0.1},
              5: {END: 1.0}, 6: {END: 1.0}})


@pytest.mark.parametrize(('penalty', 'expected'), [
    (0.1, [[3, 6, END]]),  # log .5 - .1 is still above log .3: the second group writes the same
    # First word: log .5 - 1 < log .3; then log .9 - 1 < log .1? no: 6 again
    (1.0, [[3, 6, END], [4, 6, END]]),
    # Log .9 - 3 < log .1, then 6 is free again, as the first group has ended
    (3.0, [[3, 6, END], [4, 3, 6]]),
])
def test_diverse_groups_by_hand(penalty, expected):
    found, *_ = search(FORK, 3, 2, groups=2, diversity_penalty=penalty)
    assert sorted(sentences(found)) == sorted(expected)
    for words, log_prob, score in zip(sentences(found), found.log_probs[0], found.scores[0],
                                      strict=False):
        own = sum(np.log(FORK[0, a, b]) for a, b in itertools.pairwise([1, *words]))
        assert log_prob == score == pytest.approx(own)
    assert (found.scores[0, len(expected):] == -np.inf).all()


# ---- against plain Python

CASES = [
    (1, 0.0, {}, {}),
    (1, 0.8, {}, {}),
    (2, 0.0, {}, {}),
    (3, 0.7, {}, {}),
    (4, 2.0, {}, {}),
    (3, 0.0, {}, {'min_length': 4}),
    (4, 0.7, {}, {'no_repeat_ngram': 2, 'min_length': 3}),
    (3, 0.5, {}, {'no_repeat_ngram': 1, 'min_length': 7}),
    (4, 0.0, {'groups': 2, 'diversity_penalty': 0.7}, {}),
    (6, 0.9, {'groups': 3, 'diversity_penalty': 0.4}, {}),
    (3, 0.6, {'groups': 3, 'diversity_penalty': 0.5}, {'no_repeat_ngram': 2}),
]


@pytest.mark.parametrize(('width', 'length_penalty', 'options', 'rules'), CASES)
def test_equal_to_a_plain_search_over_all_steps(width, length_penalty, options, rules):
    n_images, size, max_len = 25, 6, 7
    probabilities = table_decoder.random_table(n_images, size, seed=width)
    rules = {'end': END, 'never': NEVER, **rules}
    whole, steps, _ = search(probabilities, max_len, width, length_penalty, rules=rules, **options)
    best, fewer, _ = search(probabilities, max_len, width, length_penalty, rules=rules, n_best=1,
                            **options)
    assert fewer <= steps
    for image in range(n_images):
        log_table = np.log(probabilities[image])
        expected = table_decoder.beam_search(
            lambda sentence, log_table=log_table: log_table[[1, *sentence][-1]], size,
            Rules(**rules), max_len, width, length_penalty, **options)
        assert sentences(whole, image) == [list(hypothesis[2]) for hypothesis in expected][:width]
        np.testing.assert_allclose(whole.scores[image][:len(expected)],
                                   [h[0] for h in expected][:width], rtol=1e-12)
        np.testing.assert_allclose(whole.log_probs[image][:len(expected)],
                                   [h[1] for h in expected][:width], rtol=1e-12)
        assert sentences(best, image) == [list(expected[0][2])]


@pytest.mark.parametrize('options', [{}, {'groups': 2, 'diversity_penalty': 0.7}, {'n_best': 1}],
                         ids=['beam', 'groups', 'best'])
def test_result_does_not_depend_on_batch_mates(options):
    probabilities = table_decoder.random_table(9, 6, seed=11)
    together, *_ = search(probabilities, 9, 4, 0.6, **options)
    for image in (0, 4, 8):
        alone, *_ = search(probabilities, 9, 4, 0.6, images=[image], **options)
        tf.nest.map_structure(lambda a, b, i=image: assert_same_but_rounding(a[0], b[i], 10), alone,
                              together)
    reverse, *_ = search(probabilities, 9, 4, 0.6, images=list(range(9))[::-1], **options)
    tf.nest.map_structure(lambda a, b: assert_same_but_rounding(a[::-1], b, 10), reverse, together)


@pytest.mark.parametrize('rules', [{}, {'min_length': 4, 'no_repeat_ngram': 2}],
                         ids=['plain', 'rules'])
@pytest.mark.parametrize('length_penalty', [0.0, 0.7])
def test_width_one_is_greedy(rules, length_penalty):
    probabilities = table_decoder.random_table(20, 6, seed=3)
    found, *_ = search(probabilities, 8, 1, length_penalty, rules=rules)
    greedy, *_ = table_decoder.single(
        probabilities, lambda begin: search_loop.greedy(begin, Rules(END, NEVER, **rules), 8))
    np.testing.assert_array_equal(found.captions[:, 0], greedy.captions)
    np.testing.assert_allclose(found.log_probs[:, 0], greedy.scores, rtol=1e-12)
    np.testing.assert_array_equal(found.lengths[:, 0], greedy.lengths)
    np.testing.assert_array_equal(found.betas[:, 0], greedy.betas)


@pytest.mark.parametrize(('options', 'message'), [
    ({'beam_width': 0}, 'beam_width'),
    ({'length_penalty': -1.0}, 'length_penalty'),
    ({'n_best': 0}, 'n_best'),
    ({'n_best': 3}, 'n_best'),
    ({'groups': 3}, 'groups'),
    ({'groups': 0}, 'groups'),
    ({'diversity_penalty': -0.1}, 'diversity_penalty'),
    ({'rules': {'min_length': 9}}, 'min_length'),
])
def test_options_out_of_range(options, message):
    with pytest.raises(ValueError, match=message):
        search(GARDEN, 4, **{'beam_width': 2, **options})


# ---- every sentence of a tiny model

WORDS = {word: index for index, word in enumerate(
    ['<NULL>', '<START>', '<END>', '<UNK>', 'a', 'b', 'c'])}
T = 4


def every_sentence():
    """Return words (S, T), padded by <NULL>: all that end within T words, and all of T words."""
    rows = [[*words, END] for length in range(T)
            for words in itertools.product((4, 5, 6), repeat=length)]
    rows += [list(words) for words in itertools.product((4, 5, 6), repeat=T)]
    return np.array([row + [0] * (T - len(row)) for row in rows])


ALL = every_sentence()
LENGTHS = (ALL != 0).sum(axis=1)


def kept(min_length, ngram):
    """Return which of all sentences the rules admit."""
    def fits(words, length):
        grams = [tuple(words[i:i + ngram]) for i in range(length - ngram + 1)] if ngram else []
        return length >= min_length and len(set(grams)) == len(grams)

    return np.array([fits(words, length)
                     for words, length in zip(ALL.tolist(), LENGTHS, strict=True)])


KINDS = {
    'soft': {},
    'gru': {'cell': 'gru', 'attention_activation': 'tanh', 'selector': False},
    'expected': {'attention': 'hard', 'decode_context': 'expected'},
    'argmax': {'attention': 'hard', 'decode_context': 'argmax'},
    'sample': {'attention': 'hard', 'decode_context': 'sample'},
}


@pytest.mark.parametrize('kind', KINDS)
def test_a_wide_beam_finds_the_true_best_sentences_of_the_model(graph, kind):
    """Scores, each word's and the caption's, and attention are those of the training graph."""
    model = CaptionGenerator(WORDS, (tiny_model.L, tiny_model.D), tiny_model.M, tiny_model.H, T,
                             dtype=tf.float64, **KINDS[kind])
    model.build_model(training=False)
    width = len(ALL)
    rules = [(0.0, {}), (0.7, {}), (2.0, {'min_length': 3}), (0.7, {'no_repeat_ngram': 3}),
             (0.0, {'min_length': 2, 'no_repeat_ngram': 2})]
    if kind != 'soft':
        rules = rules[3:4]
    searches = [model.build_beam_search(width, T, penalty, **rule) for penalty, rule in rules]
    narrow = model.build_beam_search(3, T, 0.7)
    one, sampler = model.build_beam_search(1, T), tiny_model.sampler(model, T)
    assigned = tiny_model.values(model, seed=2)
    assigned['logits/b_out'][END] += 0.8
    n, features = 2, tiny_model.batch()[0][:2]
    captions = np.concatenate([np.full((len(ALL), 1), 1), ALL], axis=1).astype(np.int32)
    feeds = {model.features: features, model.captions: np.tile(captions, (n, 1)),
             model.dropout_seed: (1, 2)}
    with tiny_model.session(model, assigned) as session:
        found, few, single, greedy = session.run((searches, narrow, one, sampler), feeds)
        forced = session.run(model.outputs, feeds)
    by_word = forced.log_probs.reshape(n, len(ALL), T)
    log_probs = by_word.sum(axis=2)
    alphas = forced.alphas.reshape(n, len(ALL), T, tiny_model.L)
    for (penalty, rule), beams in zip(rules, found, strict=True):
        admitted = np.flatnonzero(kept(rule.get('min_length', 0), rule.get('no_repeat_ngram', 0)))
        for image in range(n):
            scores = log_probs[image, admitted] / LENGTHS[admitted]**penalty
            order = admitted[np.argsort(-scores)]
            m = len(order)
            assert np.isfinite(beams.scores[image]).sum() == m
            np.testing.assert_allclose(beams.scores[image, :m], np.sort(scores)[::-1], rtol=1e-10)
            np.testing.assert_allclose(beams.log_probs[image, :m], log_probs[image, order],
                                       rtol=1e-10)
            np.testing.assert_array_equal(
                np.where(beams.captions[image, :m] == END, 0, beams.captions[image, :m]),
                np.where(ALL[order] == END, 0, ALL[order]))
            np.testing.assert_array_equal(beams.lengths[image, :m], LENGTHS[order])
            np.testing.assert_allclose(beams.word_log_probs[image, :m], by_word[image, order],
                                       atol=1e-10)
            assert not beams.word_log_probs[image, m:].any()
            if not model.hard:
                for slot in (0, 5, m - 1):
                    length = LENGTHS[order[slot]]
                    np.testing.assert_allclose(beams.alphas[image, slot, :length],
                                               alphas[image, order[slot], :length], rtol=1e-10)
    assert few.captions.shape == few.betas.shape == (n, 3, T)
    assert few.alphas.shape == (n, 3, T, tiny_model.L)
    for name, value in greedy._asdict().items():
        np.testing.assert_allclose(getattr(single, name)[:, 0], value, rtol=1e-12)


@pytest.mark.parametrize(('dtype', 'tolerance'), [(tf.float64, 1e-12), (tf.float32, 1e-4)])
def test_results_of_the_model_do_not_depend_on_batch_mates(graph, dtype, tolerance):
    """In float64 to rounding; in float32 the words."""
    model = tiny_model.build(dtype=dtype, alpha_c=0.5)
    graphs = (tiny_model.sampler(model, 9), tiny_model.sampler(model, 9, sample=True),
              model.build_beam_search(3, 9, 0.7))
    features = np.random.default_rng(8).normal(1.0, 2.0, (10, tiny_model.L, tiny_model.D))
    assigned = tiny_model.values(model, seed=1)
    assigned['logits/w_out'] *= 4
    assigned['logits/b_out'][END] += 2.0  # captions of many lengths
    with tiny_model.session(model, assigned) as session:
        def run(images):
            return session.run(graphs, {model.features: features[images],
                                        model.image_numbers: images, model.dropout_seed: (3, 4)})

        together = run(np.arange(10))
        for found in together:
            assert len(set((found.captions == END).sum(axis=-1).reshape(-1).tolist())) > 2
        for images in ([0], [7], [9, 2, 5]):
            for alone, whole in zip(run(images), together, strict=True):
                np.testing.assert_array_equal(alone.captions, whole.captions[images])
                for name, value in alone._asdict().items():
                    np.testing.assert_allclose(value, getattr(whole, name)[images], rtol=tolerance,
                                               atol=tolerance)
