"""Step functions made of tables of probabilities, and searches in plain Python.

The best sentences of the tables are known.
"""

import numpy as np

from core.decoding import search_loop
from core.runtime.backend import tf, tf1
from tests.support.quick_sessions import as_built


class Table:
    """p(next word | image, last word) as a core.decoding.search_loop.Decoding.

    It is in the default graph.

    Args:
        probabilities: (I, V, V): image, last word, next word.
        images: which of them, in the order of the batch.

    A step's beta (R,) int32 has as digits the words fed so far, its alpha (R, 1) int32 the number
    of the image; `taken` is a variable (2,) that counts the steps taken and the rows computed.
    """

    def __init__(self, probabilities, images=None, dtype=np.float64):
        with np.errstate(divide='ignore'):
            self.log_table = np.log(probabilities).astype(dtype)
        images = range(len(probabilities)) if images is None else images
        self.images = np.array(images, np.int32)
        self.taken = tf1.get_variable('taken', [2], tf.int32, initializer=tf1.zeros_initializer(),
                                      use_resource=True)

    def decoding(self, start=1):
        def step(images, words, state):
            n_rows = tf.shape(words)[0]
            image = tf.repeat(images['image'], n_rows // tf.shape(images['image'])[0])
            with tf.control_dependencies([self.taken.assign_add([1, n_rows])]):
                rows = tf.gather_nd(self.log_table, tf.stack([image, words], axis=1))
            history = state['history'] * 10 + words  # digits of the words fed so far
            return search_loop.NextWord(rows, {'history': history}, alpha=image[:, tf.newaxis],
                                        beta=history)

        n = len(self.images)
        return search_loop.Decoding(step, {'image': tf.constant(self.images)},
                                    {'history': tf.zeros([n], tf.int32)}, tf.fill([n], start))

    def run(self, search):
        """Evaluate what `search`, a function of the Decoding, returns.

        Returns (values, steps taken, rows).
        """
        built = search(self.decoding())
        with tf1.Session(config=as_built()) as session:
            session.run(tf1.global_variables_initializer())
            values = session.run(built)
            return values, *session.run(self.taken).tolist()


def run(probabilities, search, images=None, dtype=np.float64):
    """Run `Table(probabilities, images).run(search)` in a graph of its own."""
    with tf.Graph().as_default():
        return Table(probabilities, images, dtype).run(search)


def single(probabilities, search, images=None):
    """Run a search that writes one caption an image: its Hypotheses have no axis for more."""
    found, *counts = run(probabilities, search, images)
    assert found.captions.shape[1] == 1
    return type(found)(*(value[:, 0] for value in found)), *counts


def random_table(n_images, size, seed, sharpness=1.5):
    """Draw probabilities (n_images, size, size) with clear winners."""
    logits = sharpness * np.random.default_rng(seed).normal(size=(n_images, size, size))
    return np.exp(logits) / np.exp(logits).sum(axis=2, keepdims=True)


def allowed(sentence, word, rules, size):
    """Return whether `word` may follow the words of `sentence`, by plain reading."""
    def fits(word):
        if word in rules.never:
            return False
        if word == rules.end:
            return len(sentence) + 1 >= rules.min_length
        grown = [*sentence, word]
        n = rules.no_repeat_ngram
        grams = [tuple(grown[i:i + n]) for i in range(len(grown) - n + 1)] if n else []
        return not grams or grams[-1] not in grams[:-1]

    return fits(word) or word == rules.end and not any(fits(other) for other in range(size))


def beam_search(log_next, size, rules, max_len, width, length_penalty, groups=1,
                diversity_penalty=0.0):
    """Search as core.decoding.beam_search does, in plain Python, over all max_len steps.

    Only greedy stops early.

    Args:
        log_next: function from a tuple of words to log-probabilities (size,).

    Returns:
        list of (score, log_prob, sentence), best first, the sentence with its end word.
    """
    W = width // groups
    live = [[(0.0, ())] for _ in range(groups)]
    pools = [[] for _ in range(groups)]
    for t in range(max_len):
        uses = np.zeros(size)
        for group in range(groups):
            candidates = []
            for total, sentence in live[group]:
                log_probs = log_next(sentence)
                for word in range(size):
                    if allowed(sentence, word, rules, size):
                        log_prob = total + log_probs[word]
                        penalty = diversity_penalty * uses[word]
                        candidates.append((log_prob - penalty, log_prob, (*sentence, word)))
            candidates.sort(key=lambda c: -c[0])
            done = W == 1 and pools[group]
            for _, total, sentence in candidates[:W]:
                if (sentence[-1] == rules.end or t + 1 == max_len) and not done:
                    pools[group].append((total / (t + 1)**length_penalty, total, sentence))
            live[group] = [(total, sentence) for _, total, sentence in candidates
                           if sentence[-1] != rules.end][:W]
            for _, sentence in live[group]:
                uses[sentence[-1]] += 1
    found = {}
    for pool in pools:
        for hypothesis in sorted(pool, key=lambda h: -h[0])[:W]:
            found.setdefault(hypothesis[2], hypothesis)
    return sorted(found.values(), key=lambda h: -h[0])
