"""The faithfulness test: do the words depend on the places that the attention shows?

    falls = measure(run, data, captions, n_places=[2, 10, 20, 39])
    falls['words']['falls'][0]['most']['mean']      # nats a word, 2 most attended places replaced

A run is told its own captions word by word, without dropout and with the context of
`decode_context`. For every word, k places of the image get the image's mean feature in the place of
their own, and the word is told again: by how much does its log-probability fall? The k places are
those of the largest alpha, those of the least, and k random ones. (Erasure as in Serrano and Smith,
"Is Attention Interpretable?", 2019; here of features and not of weights.)

The features are replaced at that one step: the state before it comes from the intact image. The
step is the model's own on the altered features, so scores and alpha are computed anew, and the
attention may turn to places that are left.

Letters in shapes: N images, L locations, D features of a location, K numbers of an annotation, A
hidden units of the attention, T' steps, C variants of a word: (2 + DRAWS) choices of places with
each number of them, R = C N rows (row r is of image r // C), W words.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from core.common import progress, terminal
from core.common.aliases import PathLike, Say, Tensor
from core.common.errors import InputError
from core.data.batches import prefetch
from core.decoding.sampling import uniforms
from core.model.attention_kernels import Scores, WeightedSum
from core.runtime.backend import tf, tf1
from core.runtime.devices import Machine, session_config
from core.runtime.random_streams import RandomStream
from core.runtime.xla import with_working_xla

if TYPE_CHECKING:
    from core.data.split import Split
    from core.decoding.captions import Caption
    from core.model.caption_generator import CaptionGenerator
    from core.model.decoder import StepFunctions
    from core.runs.run_dir import Run

SHARES = 0.01, 0.05, 0.1, 0.2  # of the locations that are replaced, where nobody says how many
DRAWS = 5  # random choices of places for each word
ROWS = 1024  # variants computed together: some hundred MB with 10,000 words
CHOICES = 'most', 'random', 'least'


def check_places(run: 'Run', n_places: Sequence[int] = (), ensemble: 'Sequence[Run]' = (),
                 ) -> list[int]:
    """Return how many places the test replaces, checked before any work is done.

    Args:
        run: Run. n_places: numbers of places; empty: `SHARES` of all, at least one.
        ensemble: further Runs that caption together with `run`.

    Raises:
        InputError: a number of places that the run does not have, or an ensemble.
    """
    if ensemble:
        raise InputError(f'--faithfulness tests the attention of one model; {run.path} captions '
                         f'together with {", ".join(str(other.path) for other in ensemble)}: leave '
                         '--ensemble out and test each by itself')
    rows, columns = run.spec.grid
    n_all = rows * columns
    for k in n_places:
        if not 1 <= k <= n_all:
            raise InputError(f'--faithfulness-places must be 1 to the {n_all} places of '
                             f'{run.path}, not {k}')
    return sorted({*n_places} or {max(1, round(share * n_all)) for share in SHARES})


def measure(run: 'Run', data: 'Split', captions: 'Mapping[int, Caption]', n_places: Sequence[int],
            object_words: Mapping[int, set[int]] | None = None, seed: int = 1,
            weights: PathLike | None = None, machine: Machine | None = None,
            say: Say = print) -> dict[str, Any]:
    """Measure by how much the words' log-probabilities fall where places are replaced.

    Args:
        run: Run, whose captions these are. data: Split that reads what its model takes.
        captions: image number in `data` -> Caption. <END> is not told: it is no word.
        n_places: numbers of places to replace, see `check_places`.
        object_words: image number -> places of the words that name an object of the image; None:
            not known.
        seed: of the random places, and of drawn locations as in decoding.
        weights: path of the encoder's weights file, where it moved; only of fine-tuned runs.
        machine: Machine, where to compute; None: Machine().
        say: function that prints a line.

    Returns:
        dict: 'locations', L; 'random_draws', the random choices whose mean 'random' is; 'words',
        the summary of all words; 'object_words', that of those, where known. A summary is a dict
        of 'n_words', 'log_prob', the mean in nats with intact features, and 'falls', a list of
        dicts: 'k', and for 'most', 'random', 'least' and 'most_minus_random' 'mean' and
        'standard_error', see `mean_over_words`.
    """
    words = {image: caption.words for image, caption in captions.items() if caption.words}
    say(f'faithfulness: replacing {", ".join(map(str, n_places))} places at '
        f'{sum(map(len, words.values()))} words')
    log_probs, falls, images, named = [], [], [], []
    for image, told, fallen in _told(run, data, words, n_places, seed, weights, machine):
        log_probs.append(told)                                                      # (T,)
        falls.append(fallen)                                            # (T, choices, n_places)
        images.append(np.full(len(told), image))
        names = object_words[image] if object_words is not None else ()
        named.append(np.isin(np.arange(len(told)), list(names)))
    columns = [np.concatenate(parts) if parts else np.zeros((0, *shape)) for parts, shape in (
        (log_probs, ()), (falls, (len(CHOICES), len(n_places))), (images, ()), (named, ()))]
    rows, columns_of_grid = run.spec.grid
    result = {'locations': rows * columns_of_grid, 'random_draws': DRAWS,
              'words': _summary(n_places, *columns[:3])}
    if object_words is not None:
        chosen = columns[3].astype(bool)
        result['object_words'] = _summary(n_places, *(column[chosen] for column in columns[:3]))
    return result


def _told(run: 'Run', data: 'Split', words: Mapping[int, Sequence[str]], n_places: Sequence[int],
          seed: int, weights: PathLike | None, machine: Machine | None,
          ) -> Iterator[tuple[int, np.ndarray, np.ndarray]]:
    """Yield (image, log-probabilities (T,), falls (T, CHOICES, n_places)) of every image."""
    if not words:
        return
    # Captions of one length together: no step is taken for padding.
    images = np.array(sorted(words, key=lambda image: (len(words[image]), image)))
    with tf.Graph().as_default() as graph:
        model = run.make_model(weights)
        test = build(model, n_places, run.config.decoding.max_len)
        dtype, size = model.inputs.dtype.as_numpy_dtype, max(1, ROWS // test.n_variants)

        def read() -> Iterator[tuple[np.ndarray, np.ndarray]]:
            for first in range(0, len(images), size):
                batch = images[first:first + size]
                yield batch, data.read_features(batch).astype(dtype, copy=False)

        machine = with_working_xla(machine or Machine(), say=lambda line: None)  # said before
        with (tf1.Session(graph=graph, config=session_config(machine)) as session,
              progress.bar(len(images), 'faithfulness', unit='image') as bar):
            run.restore(session, model)
            for batch, features in prefetch(read(), depth=2):
                log_probs, altered = session.run(
                    [test.log_probs, test.altered],
                    {test.words: encoded([words[image] for image in batch], model),
                     model.inputs: features, model.image_numbers: batch,
                     model.dropout_seed: (seed, 0)})
                falls = log_probs[:, :, np.newaxis].astype(np.float64) - altered    # (N, T', C)
                falls = falls.reshape(*log_probs.shape, 2 + DRAWS, len(n_places))
                most, least, drawn = falls[:, :, 0], falls[:, :, 1], falls[:, :, 2:].mean(axis=2)
                falls = np.stack([most, drawn, least], axis=2)      # (N, T', choices, n_places)
                for image, told, fallen in zip(batch, log_probs, falls, strict=True):
                    n_words = len(words[image])
                    yield int(image), told[:n_words], fallen[:n_words]
                bar.update(len(batch))


def encoded(captions: Sequence[Sequence[str]], model: 'CaptionGenerator') -> np.ndarray:
    """Return captions as int32 (N, T'), <NULL> behind the shorter ones."""
    numbers = np.full((len(captions), max(map(len, captions))), model.null, np.int32)
    for row, words in zip(numbers, captions, strict=True):
        row[:len(words)] = [model.word_to_idx[word] for word in words]
    return numbers


# ---- the graph


class FaithfulnessGraph(NamedTuple):
    """The placeholder and the results of the test.

    Variants: the k most attended places for each k, then the k least attended, then DRAWS times k
    random ones.

    Attributes:
        words: placeholder int32 (N, T'), the captions.
        alphas: (N, T', L), of the intact features.
        log_probs: (N, T'), of the words with the intact features.
        replaced: bool (N, T', C, L), the places that were replaced.
        altered: (N, T', C), log-probabilities of the words with these replaced.
        n_variants: int, C.
    """

    words: Tensor
    alphas: Tensor
    log_probs: Tensor
    replaced: Tensor
    altered: Tensor
    n_variants: int


def build(model: 'CaptionGenerator', n_places: Sequence[int], max_len: int) -> FaithfulnessGraph:
    """Build the graph of the test: every word once intact, and in C variants from that state.

    Args:
        model: CaptionGenerator. n_places: numbers of places to replace.
        max_len: T' at most, as in decoding: drawn locations are then the same.
    """
    L, n_variants = model.L, (2 + DRAWS) * len(n_places)
    words = tf1.placeholder(tf.int32, [None, None], 'words')                        # (N, T')
    features = tf.cast(model.features, model.dtype)                                 # (N, L, D)
    mean = tf.reduce_mean(features, axis=1, keepdims=True)                          # (N, 1, D)
    # The mean feature is one more location: all that is once an image is computed of each location
    # by itself, so that altered images need nothing new but a choice among L + 1 locations.
    functions = model.step_functions(model.annotations(tf.concat([features, mean], axis=1)))
    intact = functions.of_images(tuple(x[:, :L] for x in functions.images))
    n_images, n_steps = tf.shape(words)[0], tf.shape(words)[1]
    fed = tf.concat([tf.fill([n_images, 1], model.start), words[:, :-1]], axis=1)   # (N, T')
    noise = tf.reshape(
        uniforms(model.dropout_seed, RandomStream.REPLACED_PLACES, model.image_numbers,
                 max_len * (1 + DRAWS) * L), [-1, max_len, 1 + DRAWS, L])
    drawing = model.options.decode_context == 'sample'
    weights = model.decoding_weights(model.location_draws(max_len) if drawing else None)

    def spread(nest: Tensor) -> Tensor:
        return tf.nest.map_structure(lambda x: tf.repeat(x, n_variants, axis=0), nest)

    def told(functions: 'StepFunctions', state: Tensor, from_words: Tensor, t: Tensor,
             words: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor, Tensor]:
        """Return (state, alpha (R, L), log-probability (R,)) of the second of two words (R,)."""
        state, step = model.step(functions, state, from_words, t, weights)
        logits = model.output(step.h, step.context, model.word_vectors(words[0]))   # (R, V)
        return state, step.alpha, -tf.nn.sparse_softmax_cross_entropy_with_logits(words[1], logits)

    def body(t: Tensor, state: Tensor, kept: tuple) -> tuple:
        pair = fed[:, t], words[:, t]
        from_words = functions.from_words(pair[0])                                  # (N, G)
        after, alpha, log_prob = told(intact, state, from_words, t, pair)
        replaced = tf.reshape(replaced_places(alpha, noise[:, t], n_places),
                              [n_images, n_variants, L])
        *_, altered = told(_altered(functions, replaced), spread(state), spread(from_words), t,
                           spread(pair))                                            # (R,)
        new = alpha, log_prob, replaced, tf.reshape(altered, [-1, n_variants])
        return t + 1, after, tuple(array.write(t, x) for array, x in zip(kept, new, strict=True))

    kept = tuple(tf.TensorArray(dtype, n_steps, element_shape=[None, *shape]) for dtype, shape in (
        (model.dtype, [L]), (model.dtype, []), (tf.bool, [n_variants, L]),
        (model.dtype, [n_variants])))
    _, _, kept = tf.while_loop(lambda t, *_: t < n_steps, body,
                               (tf.constant(0), model.initial_state(intact.annotations), kept))

    def by_image(array: Tensor) -> Tensor:
        x = array.stack()                                                           # (T', N, ...)
        return tf.transpose(x, [1, 0, *range(2, x.shape.rank)])

    alphas, log_probs, replaced, altered = map(by_image, kept)
    return FaithfulnessGraph(words, alphas, log_probs, replaced, altered, n_variants)


def replaced_places(alpha: Tensor, noise: Tensor, n_places: Sequence[int]) -> Tensor:
    """Choose the places of every variant.

    Args:
        alpha: (N, L). Equal weights have a random order, so that no corner of the image is
            preferred.
        noise: (N, 1 + DRAWS, L) uniform. n_places: numbers of places.

    Returns:
        bool (N, 2 + DRAWS, len(n_places), L): most and least attended places, then random ones,
        which of one draw are among those of the same draw for a larger number.
    """
    shuffled = tf.argsort(noise[:, 0])                                              # (N, L)
    order = tf.argsort(tf.gather(alpha, shuffled, batch_dims=1), direction='DESCENDING',
                       stable=True)
    rank = tf.argsort(tf.gather(shuffled, order, batch_dims=1))[:, tf.newaxis]      # (N, 1, L)
    ranks = tf.concat([rank, alpha.shape[1] - 1 - rank, tf.argsort(noise[:, 1:])], axis=1)
    return ranks[:, :, tf.newaxis] < tf.constant(list(n_places))[:, tf.newaxis]


def _altered(functions: 'StepFunctions', replaced: Tensor) -> 'StepFunctions':
    """Return the StepFunctions of images with replaced places, C for every image.

    What depends on h_{t-1} and on single locations is computed once an image.

    Args:
        functions: StepFunctions of L + 1 locations, the last of which takes the others' place.
        replaced: bool (N, C, L).
    """
    n_variants = replaced.shape[1]
    changed: dict[str, Any] = {
        'from_h': lambda h: tf.repeat(functions.from_h(h[::n_variants]), n_variants, axis=0),
        'scores': _AlteredScores(functions.scores, replaced),
        'weighted_sum': _AlteredSum(functions.weighted_sum, replaced)}
    return functions._replace(**changed)


class _AlteredScores:
    """Scores of altered images: a location's score is of its feature alone, so it is chosen.

    `constants` are the altered images, for a step of one's own that reads them whole.
    """

    def __init__(self, scores: Scores, replaced: Tensor) -> None:
        self._scores, self._replaced, self.dtype = scores, replaced, scores.dtype

    @property
    def constants(self) -> tuple[Tensor, ...]:
        return _chosen(self._replaced, self._scores.constants[0]), self._scores.constants[1]

    def __call__(self, query: Tensor) -> Tensor:
        """Compute e (R, L) of query (R, A), whose rows of one image are equal."""
        e = self._scores(query[::self._replaced.shape[1]])                          # (N, L + 1)
        return _chosen(self._replaced, e[..., tf.newaxis])[..., 0]


class _AlteredSum:
    """Weighted sum over altered images: replaced places give their weights to the mean feature.

    `constants` as of `_AlteredScores`.
    """

    def __init__(self, weighted_sum: WeightedSum, replaced: Tensor) -> None:
        self._sum, self._replaced, self.dtype = weighted_sum, replaced, weighted_sum.dtype

    @property
    def constants(self) -> tuple[Tensor, ...]:
        return (_chosen(self._replaced, self._sum.constants[0]),)

    def __call__(self, weights: Tensor) -> Tensor:
        """Compute weights (R, L) -> (R, K)."""
        replaced = tf.reshape(self._replaced, tf.shape(weights))                    # (R, L)
        zeros = tf.zeros_like(weights)
        of_mean = tf.reduce_sum(tf.where(replaced, weights, zeros), axis=1, keepdims=True)
        return self._sum(tf.concat([tf.where(replaced, zeros, weights), of_mean], axis=1))


def _chosen(replaced: Tensor, x: Tensor) -> Tensor:
    """Choose each location's own or the last one's: bool (N, C, L), (N, L + 1, S) -> (R, L, S)."""
    chosen = tf.where(replaced[..., tf.newaxis], x[:, tf.newaxis, -1:], x[:, tf.newaxis, :-1])
    return tf.reshape(chosen, [-1, *chosen.shape[2:]])


# ---- the figures


def _summary(n_places: Sequence[int], log_probs: np.ndarray, falls: np.ndarray,
             images: np.ndarray) -> dict[str, Any]:
    """Return the summary of words that `measure` describes.

    Args:
        n_places: numbers of places. log_probs: (W,). falls: (W, CHOICES, n_places).
        images: (W,), the image of each word.
    """
    rows = []
    for column, k in enumerate(n_places):
        values = {choice: falls[:, i, column] for i, choice in enumerate(CHOICES)}
        values['most_minus_random'] = values['most'] - values['random']
        rows.append({'k': int(k), **{name: mean_over_words(value, images)
                                     for name, value in values.items()}})
    return {'n_words': len(log_probs),
            'log_prob': float(np.mean(log_probs, dtype=float)) if len(log_probs) else None,
            'falls': rows}


def mean_over_words(values: np.ndarray, images: np.ndarray) -> dict[str, float | None]:
    """Return the mean over words, and its standard error where images are what was drawn.

    Words of one caption hang together, so the error is that of a ratio of sums over images.

    Args:
        values: (W,). images: (W,), the image of each word.

    Returns:
        dict of 'mean', None without words, and 'standard_error', None with fewer than two images.
    """
    if not len(values):
        return {'mean': None, 'standard_error': None}
    mean = float(np.mean(values))
    _, image = np.unique(images, return_inverse=True)
    residuals = np.bincount(image, values - mean)
    n = len(residuals)
    error = np.sqrt(n / (n - 1) * (residuals**2).sum()) / len(values) if n > 1 else None
    return {'mean': mean, 'standard_error': None if error is None else float(error)}


def table(result: Mapping[str, Any]) -> str:
    """Return a table of the result of `measure`, a row for each number of places."""
    def cell(value: Mapping[str, float | None]) -> str:
        if value['mean'] is None:
            return '-'
        error = value['standard_error']
        return f'{value["mean"]:.3f}' + ('' if error is None else f' ± {error:.3f}')

    rows = [[f'{kind}, {row["k"]} places', *(cell(row[choice]) for choice in CHOICES)]
            for key, kind in (('words', 'all'), ('object_words', 'naming an object'))
            if key in result for row in result[key]['falls']]
    return terminal.table(rows, ['words', *(f'{choice} attended' if choice != 'random' else choice
                                            for choice in CHOICES)])
