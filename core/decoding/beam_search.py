"""Beam search over the whole batch, in the graph, given a step function.

An image has K live hypotheses and, apart from them, a pool of the best that ended. In a step every
live hypothesis is extended by every word, and the 2K best extensions are candidates: an end among
the first K of them puts its hypothesis into the pool, and the K best that do not end live on (there
are K, as only one extension of each hypothesis ends). docs/decoding.md has the mathematics and says
what is proven. Letters in shapes as in `search_loop`; K beam_width, P hypotheses of a pool; a group
has W = K / groups of the live ones and a pool of its own.
"""

from typing import NamedTuple

from core.common.aliases import DType, Tensor
from core.decoding.search_loop import Decoding, check_length, put, run_steps
from core.decoding.word_rules import Rules
from core.runtime.backend import tf


class Hypotheses(NamedTuple):
    """The best hypotheses of each image, best first.

    Attributes:
        words: (N, P, max_len) int32; the end word repeats after the end, and stands alone in slots
            that are not used.
        scores: (N, P), log_probs / lengths**length_penalty; -inf in slots that are not used.
        log_probs: (N, P), sum of the log-probabilities of the words up to and including the end
            word.
        lengths: (N, P) int32, words with the end word; max_len where a caption was cut, 0 in slots
            that are not used.
        trace: nest of (N, P, max_len, ...), the steps' traces; after the end the last one repeats.
        word_log_probs: (N, P, max_len), what each word adds to log_probs; 0 after the end.
    """

    words: Tensor
    scores: Tensor
    log_probs: Tensor
    lengths: Tensor
    trace: Tensor
    word_log_probs: Tensor


class _Pool(NamedTuple):
    """Hypotheses that ended, best first: scores, log_probs, lengths (n, P); words, rows (n, P,
    max_len) int32.

    rows: the live slot that the hypothesis had before each word, which is where the step's trace
    lies.
    """

    scores: Tensor
    log_probs: Tensor
    lengths: Tensor
    words: Tensor
    rows: Tensor


class _Live(NamedTuple):
    """The images still searched and their live hypotheses, see `search_loop.run_steps`.

    words: (n K,) int32. state: nest of (n K, ...). total: (n, K), the hypotheses'
    log-probabilities, -inf in slots that are not used. written, rows: (n, K, max_len) int32. kept:
    tuple of a _Pool for each group.
    """

    numbers: Tensor
    over: Tensor
    kept: tuple[_Pool, ...]
    images: Tensor
    words: Tensor
    state: Tensor
    total: Tensor
    written: Tensor
    rows: Tensor


class _Candidates(NamedTuple):
    """The 2W best extensions of a group, best first.

    parents: (n, 2W) int32, places of the extended hypotheses among all live ones. words: (n, 2W)
    int32. value: what they are chosen by; total: their log-probability (n, 2W); both -inf where
    there are fewer.
    """

    parents: Tensor
    words: Tensor
    value: Tensor
    total: Tensor


def beam_search(decoding: Decoding, rules: Rules, max_len: int, beam_width: int = 3,
                length_penalty: float = 0.0, n_best: int | None = None, groups: int = 1,
                diversity_penalty: float = 0.0) -> Hypotheses:
    """The best captions that a beam finds.

    A search goes on until no live hypothesis can enter the pool any more, so what is returned is
    what a search over all `max_len` steps returns. A hypothesis of max_len words is a caption
    without its end word; it is ranked by the same score. A group of one hypothesis (beam_width 1)
    is greedy: it is over where the end word is the likeliest.

    Args:
        decoding: Decoding. rules: Rules. max_len: int, words written at most, the end word
            included.
        beam_width: int, K, live hypotheses of an image.
        length_penalty: A >= 0; captions are ranked by log-probability / length**A, the end word
            counted.
        n_best: P, captions returned; None: K. Fewer end the search sooner, and change none of those
            returned.
        groups: int, divides beam_width; each group is a beam search of its own whose words are
            penalised where earlier groups wrote them at the same step (Vijayakumar et al., arXiv
            1610.02424, Hamming diversity).
        diversity_penalty: taken off a word's log-probability for each such use; it decides which
            hypotheses live, and is no part of any score.

    Returns:
        Hypotheses.
    """
    check_length(max_len, rules)
    if beam_width < 1:
        raise ValueError(f'beam_width must be at least 1, not {beam_width}')
    if length_penalty < 0 or diversity_penalty < 0:
        raise ValueError('length_penalty and diversity_penalty must be at least 0')
    if groups < 1 or beam_width % groups:
        raise ValueError(f'groups must divide beam_width, {beam_width}, not {groups}')
    n_best = beam_width if n_best is None else n_best
    if not 1 <= n_best <= beam_width:
        raise ValueError(f'n_best must be 1 to beam_width, {beam_width}, not {n_best}')
    search = _Search(decoding, rules, max_len, beam_width, length_penalty, n_best, groups,
                     diversity_penalty)
    return search.run()


class _Search:
    """One `beam_search`; the arguments are checked."""

    def __init__(self, decoding: Decoding, rules: Rules, max_len: int, beam_width: int,
                 length_penalty: float, n_best: int, groups: int, diversity_penalty: float) -> None:
        self.decoding, self.rules, self.max_len, self.length_penalty = decoding, rules, max_len, length_penalty
        self.K, self.P, self.groups, self.diversity_penalty = beam_width, n_best, groups, diversity_penalty
        self.W = beam_width // groups
        self.n_images = tf.shape(decoding.start)[0]

    def run(self) -> Hypotheses:
        """Returns Hypotheses."""
        n, decoding = self.n_images, self.decoding
        written = tf.zeros([n, 1, self.max_len], tf.int32)
        live = _Live(tf.range(n), tf.zeros([n], tf.bool), (), decoding.images, decoding.start,
                     decoding.state, (), written, written)
        pools, (trace, totals) = run_steps(self._advance, live, n, self.max_len)
        pool = pools[0]
        if self.groups > 1:
            joined = tf.nest.map_structure(lambda *parts: tf.concat(parts, axis=1), *pools)
            pool = _best(_distinct(joined), self.P)
        used = pool.lengths > 0
        steps = tf.minimum(tf.range(self.max_len),
                           tf.maximum(pool.lengths - 1, 0)[:, :, tf.newaxis])
        image = tf.range(n)[:, tf.newaxis, tf.newaxis] + tf.zeros_like(steps)
        index = tf.stack([steps, image, tf.gather(pool.rows, steps, batch_dims=2)], axis=3)

        def follow(x: Tensor) -> Tensor:
            found = tf.gather_nd(x, index)
            shape = tf.concat([tf.shape(used), tf.ones([found.shape.rank - 2], tf.int32)], axis=0)
            return tf.where(tf.reshape(used, shape), found, tf.zeros_like(found))

        places, lengths = tf.range(self.max_len), pool.lengths[:, :, tf.newaxis]
        words = tf.where(places < lengths, pool.words, self.rules.end)
        before, whole = follow(totals), pool.log_probs[:, :, tf.newaxis]
        after = tf.where(places + 1 < lengths, tf.concat([before[:, :, 1:], whole], axis=2), whole)
        gained = tf.where(places < lengths, after - before, tf.zeros_like(before))
        return Hypotheses(words, pool.scores, pool.log_probs, pool.lengths,
                          tf.nest.map_structure(follow, trace), gained)

    def _advance(self, t: Tensor, live: _Live) -> tuple[_Live, Tensor]:
        """One step of all groups, see `search_loop.run_steps`."""
        first = not live.kept  # one row an image, which every group starts from
        n_rows = 1 if first else self.K
        n = tf.shape(live.over)[0]
        result = self.decoding.step(live.images, live.words, live.state)
        size, dtype = result.log_probs.shape[-1], result.log_probs.dtype
        if first:
            live = live._replace(total=tf.zeros([n, 1], dtype),
                                 kept=(self._empty_pool(n, dtype),) * self.groups)
        allowed = self.rules.apply(result.log_probs, tf.reshape(live.written, [-1, self.max_len]),
                                   t)
        allowed = tf.reshape(allowed, [-1, n_rows, size])
        uses = tf.zeros([n, size], dtype)
        survivors, pools = [], []
        for group in range(self.groups):
            begin, end = (0, 1) if first else (group * self.W, (group + 1) * self.W)
            penalty = self.diversity_penalty * uses[:, tf.newaxis] if group and self.diversity_penalty else None
            candidates = self._candidates(allowed[:, begin:end], live.total[:, begin:end], penalty,
                                          begin)
            pools.append(self._close(t, live, live.kept[group], candidates))
            survivors.append(self._survivors(candidates))
            if self.diversity_penalty and group + 1 < self.groups:
                uses = self._count(uses, survivors[-1])
        lasting = tf.nest.map_structure(lambda *parts: tf.concat(parts, axis=1), *survivors)
        decided = [self._decided(pool, group.total)
                   for pool, group in zip(pools, survivors, strict=True)]
        over = tf.logical_or(live.over, tf.reduce_all(tf.stack(decided), axis=0))
        rows = tf.reshape(tf.range(n)[:, tf.newaxis] * n_rows + lasting.parents, [-1])
        after = live._replace(
            over=over, kept=tuple(pools), words=tf.reshape(lasting.words, [-1]),
            total=lasting.total, state=tf.nest.map_structure(lambda x: tf.gather(x, rows),
                                                             result.state),
            written=put(tf.gather(live.written, lasting.parents, batch_dims=1), t, lasting.words),
            rows=put(tf.gather(live.rows, lasting.parents, batch_dims=1), t, lasting.parents))

        def by_image(x: Tensor) -> Tensor:
            x = tf.reshape(x, tf.concat([[n, n_rows], tf.shape(x)[1:]], axis=0))
            return tf.repeat(x, self.K, axis=1) if first else x

        # before the step, of the hypothesis that it extends
        recorded = (result.trace, tf.reshape(live.total, [-1]))
        shaped = [tf.ensure_shape(by_image(x), [None, self.K, *x.shape[1:]])
                  for x in tf.nest.flatten(recorded)]
        return after, tf.nest.pack_sequence_as(recorded, shaped)

    def _candidates(self, log_probs: Tensor, total: Tensor, penalty: Tensor,
                    begin: int) -> _Candidates:
        """_Candidates from log_probs (n, w, V), total (n, w), and penalty (n, 1, V) or None."""
        n_hypotheses, size = log_probs.shape[1], log_probs.shape[2]
        value = log_probs if penalty is None else log_probs - penalty
        # First the best words of each hypothesis, then the best of all: the sum needs no (n, w, V)
        # tensor.
        value, words = tf.math.top_k(value, min(2 * self.W, size))
        own = value if penalty is None else tf.gather(log_probs, words, batch_dims=2)
        n_words = words.shape[2]
        value, own = total[:, :, tf.newaxis] + value, total[:, :, tf.newaxis] + own
        value, own, words = (tf.reshape(x, [-1, n_hypotheses * n_words])
                             for x in (value, own, words))
        value, places = tf.math.top_k(value, min(2 * self.W, n_hypotheses * n_words))
        parents = begin + places // n_words
        own, words = (tf.gather(x, places, batch_dims=1) for x in (own, words))
        missing = [[0, 0], [0, 2 * self.W - places.shape[1]]]
        minus_infinity = tf.constant(float('-inf'), value.dtype)
        return _Candidates(tf.pad(parents, missing, constant_values=begin),
                           tf.pad(words, missing, constant_values=self.rules.end),
                           tf.pad(value, missing, constant_values=minus_infinity),
                           tf.pad(own, missing, constant_values=minus_infinity))

    def _survivors(self, candidates: _Candidates) -> _Candidates:
        """The W best _Candidates that do not end."""
        minus_infinity = tf.constant(float('-inf'), candidates.value.dtype)
        going_on = tf.where(tf.equal(candidates.words, self.rules.end), minus_infinity,
                            candidates.value)
        value, places = tf.math.top_k(going_on, self.W)
        lasting = tf.nest.map_structure(lambda x: tf.gather(x, places, batch_dims=1), candidates)
        return lasting._replace(
            value=value, total=tf.where(tf.equal(value, minus_infinity), value, lasting.total))

    def _close(self, t: Tensor, live: _Live, pool: _Pool, candidates: _Candidates) -> _Pool:
        """The pool with the first W candidates that end here; at the last step all of them do."""
        parents, words, _, total = tf.nest.map_structure(lambda x: x[:, : self.W], candidates)
        ending = tf.logical_or(tf.equal(words, self.rules.end), tf.equal(t + 1, self.max_len))
        # Where the search is over nothing could enter but for rounding; in a group of one nothing
        # may.
        closed = tf.logical_or(live.over, self._single(pool))
        ending = tf.logical_and(ending, tf.logical_not(closed)[:, tf.newaxis])
        total = tf.where(ending, total, tf.constant(float('-inf'), total.dtype))
        lengths = tf.where(tf.equal(total, tf.constant(float('-inf'), total.dtype)), 0, t + 1)
        new = _Pool(total / self._norm(t + 1, total.dtype), total, lengths,
                    put(tf.gather(live.written, parents, batch_dims=1), t, words),
                    put(tf.gather(live.rows, parents, batch_dims=1), t, parents))
        return _best(tf.nest.map_structure(lambda *parts: tf.concat(parts, axis=1), pool, new),
                     pool.scores.shape[1])

    def _decided(self, pool: _Pool, total: Tensor) -> Tensor:
        """(n,) bool: no hypothesis with log-probabilities `total` (n, W) can enter the pool any
        more.

        Log-probabilities only fall, and they are divided by at most max_len**A.
        """
        longest = tf.reduce_max(total, axis=1) / self._norm(self.max_len, total.dtype)
        return tf.logical_or(longest <= pool.scores[:, -1], self._single(pool))

    def _single(self, pool: _Pool) -> Tensor:
        """(n,) bool: the group has one hypothesis, as greedy search, and it has ended."""
        return tf.logical_and(self.W == 1, pool.lengths[:, 0] > 0)

    def _norm(self, length: Tensor, dtype: DType) -> Tensor:
        return tf.pow(tf.cast(length, dtype), tf.constant(self.length_penalty, dtype))

    def _count(self, uses: Tensor, survivors: _Candidates) -> Tensor:
        """`uses` (n, V) and one more for each word of the survivors."""
        image = tf.tile(tf.range(tf.shape(uses)[0])[:, tf.newaxis], [1, self.W])
        used = tf.cast(survivors.total > float('-inf'), uses.dtype)
        return tf.tensor_scatter_nd_add(uses, tf.stack([image, survivors.words], axis=2), used)

    def _empty_pool(self, n: Tensor, dtype: DType) -> _Pool:
        size = min(self.P, self.W)
        nothing = tf.fill([n, size], tf.constant(float('-inf'), dtype))
        written = tf.zeros([n, size, self.max_len], tf.int32)
        return _Pool(nothing, nothing, tf.zeros([n, size], tf.int32), written, written)


def _best(pool: _Pool, size: int) -> _Pool:
    """The `size` best of a pool; of equal ones the first."""
    _, places = tf.math.top_k(pool.scores, size)
    return tf.nest.map_structure(lambda x: tf.gather(x, places, batch_dims=1), pool)


def _distinct(pool: _Pool) -> _Pool:
    """A pool without hypotheses that another group found too: they become slots that are not used."""
    same = tf.reduce_all(tf.equal(pool.words[:, :, tf.newaxis], pool.words[:, tf.newaxis]), axis=3)
    same = tf.logical_and(
        same, tf.equal(pool.lengths[:, :, tf.newaxis], pool.lengths[:, tf.newaxis]))
    places = tf.range(tf.shape(pool.lengths)[1])
    again = tf.reduce_any(tf.logical_and(same, places[:, tf.newaxis] > places), axis=2)
    nothing = tf.where(again, tf.constant(float('-inf'), pool.scores.dtype), pool.scores)
    return pool._replace(scores=nothing, log_probs=tf.where(again, nothing, pool.log_probs),
                         lengths=tf.where(again, 0, pool.lengths))
