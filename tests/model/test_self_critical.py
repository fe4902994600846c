"""The gradient of self-critical training against enumeration of every caption.

As of hard attention three links make the proof. The estimator's mean over all captions is the
gradient of the expected reward (NumPy alone). In every run the model's gradient is that estimator
for the captions it drew. And it draws captions with their probabilities.
"""

import contextlib
import functools
import itertools

import numpy as np
import pytest

from core.model.caption_generator import CaptionGenerator
from core.reference import sample_model
from core.reference.equations import log_softmax, teacher_forcing
from core.reference.finite_differences import differentiate
from core.reference.sample_model import END, NULL, SIZES, START, WORD_TO_IDX, N, T, V
from core.runtime.backend import tf, tf1
from tests.support import tiny_model

NEVER = [NULL, START, WORD_TO_IDX['<UNK>']]
WRITTEN = [word for word in range(V) if word not in NEVER]


@functools.cache
def every_caption():
    """Return all captions of at most T words, (S, T) int32, <NULL> behind the end."""
    captions = {tuple(word if END not in words[:place] else NULL
                      for place, word in enumerate(words))
                for words in itertools.product(WRITTEN, repeat=T)}
    return np.array(sorted(captions), np.int32)


def log_probs_of(v, temperature=1.0):
    """Return log p (N, S) of every caption for every image, among the words that are written."""
    features, _ = sample_model.batch()
    captions = every_caption()
    with_start = np.concatenate([np.full((len(captions), 1), START), captions], axis=1)
    found = []
    for image in range(N):
        told = teacher_forcing(v, np.repeat(features[image:image + 1], len(captions), axis=0),
                               with_start, batch_norm=False)
        scores = told.log_probs / temperature                                # (S, T, V)
        scores[..., NEVER] = -np.inf
        of_words = np.take_along_axis(log_softmax(scores), captions[..., np.newaxis], -1)[..., 0]
        found.append(np.where(captions != NULL, of_words, 0).sum(axis=1))
    return np.stack(found)


def rewards(captions, images):
    """Return a reward (R,) float32 of captions (R, T) that tells every one from every other."""
    of_image = np.repeat(images, len(captions) // len(images))
    return np.cos(captions @ [1.3, 2.9, 4.1] + of_image).astype(np.float32)


@functools.cache
def exact(temperature=1.0):
    """Return (log p (N, S), its gradient (N S, P), rewards (N, S)) of the sample model."""
    v = sample_model.variables()
    log_probs = log_probs_of(v, temperature)
    gradient = differentiate(lambda v: log_probs_of(v, temperature).reshape(-1), v)
    earned = np.stack([rewards(every_caption(), np.array([image])) for image in range(N)])
    return log_probs, gradient, earned.astype(np.float64)


class Drawn:
    """A model in float64 whose drawn captions are seen.

    Attributes:
        model: CaptionGenerator. session: with the values of `sample_model`.
        seen: the captions (R, T) of which rewards were asked for in the last run.
    """

    def __init__(self, stack, **options):
        stack.enter_context(tf.Graph().as_default())
        v = sample_model.variables()
        self.model = CaptionGenerator(
            WORD_TO_IDX, **SIZES, self_critical=True, dtype=tf.float64,
            **{'batch_norm': False, 'jit': False, 'dropout': False, **options})
        self.seen = []
        self.loss = self.model.build_model(rewards=self.rewards)
        by_name = {variable.op.name: variable for variable in tf1.trainable_variables()}
        assert set(by_name) == set(v)
        found = tf1.gradients(self.loss, [by_name[name] for name in v])
        self._gradient = tf.concat([tf.reshape(tf.convert_to_tensor(part), [-1])
                                    for part in found], axis=0)
        self.session = stack.enter_context(tiny_model.session(self.model, v))

    def rewards(self, captions, images):
        """Note the captions and return their rewards; greedy ones come after the drawn ones."""
        self.seen.append(captions)
        return rewards(captions, images)

    @property
    def captions(self):
        """The captions (R, T) drawn in the last run; greedy ones are fewer."""
        return max(self.seen, key=len)

    def run(self, seed, n_captions, fetch=()):
        """Return (gradient (P,), `fetch`) of n_captions captions an image."""
        features, captions = sample_model.batch()
        self.seen.clear()
        return self.session.run((self._gradient, fetch), {
            self.model.inputs: features, self.model.dropout_seed: seed,
            self.model.image_numbers: np.arange(N),
            self.model.captions: np.repeat(captions, n_captions, axis=0)})


@pytest.fixture
def drawn():
    """Return a function of options that makes a Drawn."""
    with contextlib.ExitStack() as stack:
        yield functools.partial(Drawn, stack)


def numbers(captions):
    """Return the number (R,) of each caption in `every_caption`."""
    place = {tuple(caption): number for number, caption in enumerate(every_caption().tolist())}
    return np.array([place[tuple(caption)] for caption in captions.tolist()])


# ---- first link: NumPy alone

def test_the_estimator_has_the_gradient_of_the_expected_reward_as_mean():
    log_probs, slopes, earned = exact()
    probability = np.exp(log_probs)                                                 # (N, S)
    np.testing.assert_allclose(probability.sum(axis=1), 1, rtol=1e-12)
    expected = differentiate(lambda v: np.array([
        (np.exp(log_probs_of(v)) * earned).sum() / N]), sample_model.variables())[0]
    slopes = slopes.reshape(N, len(every_caption()), -1)
    for baseline in (0.0, 0.7):
        mean = np.einsum('ns,nsp->p', probability * (earned - baseline), slopes) / N
        np.testing.assert_allclose(mean, expected, rtol=0, atol=1e-8 * np.linalg.norm(expected))
    # Leave one out, of two captions: all pairs, each with the other's reward as its baseline.
    pairs = probability[:, :, None] * probability[:, None]                          # (N, S, S)
    advantage = earned[:, :, None] - earned[:, None]
    mean = np.einsum('nst,nsp->p', pairs * advantage, slopes) / N
    np.testing.assert_allclose(mean, expected, rtol=0, atol=1e-8 * np.linalg.norm(expected))


# ---- second link: the model, run by run

@pytest.mark.parametrize(('baseline', 'n_captions', 'temperature', 'seed'), [
    ('leave_one_out', 4, 1.0, 1), ('leave_one_out', 4, 0.5, 2), ('leave_one_out', 1, 1.0, 3),
    ('greedy', 3, 0.5, 4)])
def test_every_run_is_the_estimator_for_its_captions(drawn, baseline, n_captions, temperature,
                                                     seed):
    log_probs, slopes, earned = exact(temperature)
    model = drawn(sentence_baseline=baseline, draw_temperature=temperature)
    outputs = model.model.outputs
    gradient, out = model.run((seed, 7), n_captions, outputs._asdict())
    rows = np.repeat(np.arange(N), n_captions)
    number = numbers(model.captions)                                                # (R,)
    reward = earned[rows, number]
    if n_captions == 1:
        baseline_of = reward  # nothing to compare with
    elif baseline == 'greedy':
        baseline_of = np.repeat(earned[np.arange(N), greedy_captions()], n_captions)
    else:
        grouped = reward.reshape(N, n_captions)
        others = (grouped.sum(axis=1, keepdims=True) - grouped) / (n_captions - 1)
        baseline_of = others.reshape(-1)
    slope = slopes.reshape(N, len(every_caption()), -1)[rows, number]               # (R, P)
    expected = -((reward - baseline_of)[:, None] * slope).sum(axis=0) / len(rows)
    scale = max(np.linalg.norm(expected), 1e-3)
    np.testing.assert_allclose(gradient, expected, rtol=0, atol=1e-6 * scale)
    np.testing.assert_allclose(out['reward'], reward.mean(), rtol=1e-6)
    np.testing.assert_allclose(out['log_probs'].sum(axis=1), log_probs[rows, number], atol=1e-9)
    np.testing.assert_array_equal(out['mask'], model.captions != NULL)
    assert out['n_words'] == np.count_nonzero(model.captions)


def greedy_captions():
    """Return the number (N,) in `every_caption` of what greedy decoding writes."""
    features, _ = sample_model.batch()
    v = sample_model.variables()
    written = np.full((N, T + 1), NULL)
    written[:, 0] = START
    for t in range(T):
        told = teacher_forcing(v, features, written, batch_norm=False).log_probs[:, t].copy()
        told[:, NEVER] = -np.inf
        ended = (written == END).any(axis=1)
        written[:, t + 1] = np.where(ended, NULL, told.argmax(axis=1))
    return numbers(written[:, 1:])


def test_plain_and_deferred_gradients_are_the_same():
    found = []
    for plain in (False, True):
        with tf.Graph().as_default():
            model = CaptionGenerator(WORD_TO_IDX, **SIZES, self_critical=True, dtype=tf.float64,
                                     jit=False, alpha_c=0.5, dropout_mask='sequence')
            loss = model.build_model(rewards=rewards, plain=plain)
            gradient = tf1.gradients(loss, tf1.trainable_variables())
            with tiny_model.session(model, sample_model.variables(batch_norm=True)) as session:
                features, captions = sample_model.batch()
                found.append(session.run([tf.convert_to_tensor(part) for part in gradient], {
                    model.inputs: features, model.dropout_seed: (5, 6),
                    model.captions: np.repeat(captions, 3, axis=0)}))
    for one, other in zip(*found, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-9, atol=1e-12)


# ---- third link: how captions are drawn

@pytest.mark.parametrize('temperature', [1.0, 0.5])
def test_captions_are_drawn_with_their_probabilities(drawn, temperature):
    repeats = 20000
    model = drawn(draw_temperature=temperature)
    model.run((3, 4), repeats)
    log_probs, _, _ = exact(temperature)
    for image, number in enumerate(numbers(model.captions).reshape(N, repeats)):
        expected = np.exp(log_probs[image]) * repeats
        counted = expected >= 5
        difference = np.bincount(number, minlength=len(expected)) - expected
        chi_square = (difference[counted]**2 / expected[counted]).sum()
        freedom = counted.sum() - 1
        assert freedom > 8
        assert chi_square < freedom + 4 * np.sqrt(2 * freedom)


def test_a_caption_is_drawn_under_the_mask_that_its_gradient_has(drawn):
    # With the mask of one draw of dropout, log p of what is drawn is what its frequency tells.
    repeats = 4000
    model = drawn(dropout=True, dropout_mask='sequence')
    _, log_probs = model.run((8, 9), repeats, model.model.outputs.log_probs)
    # Importance weights have mean 1 only if captions come from the distribution that is told:
    # E[1 / p(w)] over draws is the number of captions, each of which has its own mask here.
    first = model.captions[:, 0]
    inverse = np.exp(-log_probs[:, 0])
    mean, error = inverse.mean(), inverse.std() / np.sqrt(len(inverse))
    assert abs(mean - len(WRITTEN)) < 4 * error
    assert set(first) == set(WRITTEN)


# ---- what does not fit

@pytest.mark.parametrize(('options', 'message'), [
    ({'attention': 'hard'}, 'attention=soft'),
    ({'scheduled_sampling': 0.2}, 'scheduled_sampling=0'),
    ({'word_dropout': 0.1}, 'word_dropout=0'),
    ({'label_smoothing': 0.1}, 'label_smoothing=0'),
    ({'dropout_mask': 'step'}, 'dropout_mask=sequence'),
])
def test_what_does_not_fit_is_refused_by_name(options, message):
    with tf.Graph().as_default(), pytest.raises(ValueError, match=message):
        CaptionGenerator(WORD_TO_IDX, **SIZES, self_critical=True,
                         **{'dropout_mask': 'sequence', **options})


def test_rewards_and_self_critical_belong_together():
    with tf.Graph().as_default():
        model = CaptionGenerator(WORD_TO_IDX, **SIZES, self_critical=True, dropout=False)
        with pytest.raises(ValueError, match='rewards'):
            model.build_model()
        model.build_model(training=False)  # the loss of given captions needs none
    with tf.Graph().as_default():
        model = CaptionGenerator(WORD_TO_IDX, **SIZES)
        with pytest.raises(ValueError, match='rewards'):
            model.build_model(rewards=rewards)
