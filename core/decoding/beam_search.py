"""Beam search over the whole batch, in the graph, given a step function.

An image has K live hypotheses and, apart from them, a pool of the best that ended. In a step every
live hypothesis is extended by every word, and the 2K best extensions are candidates: an end among
the first K of them puts its hypothesis into the pool, and the K best that do not end live on (there
are K, as only one extension of each hypothesis ends). docs/decoding.md has the mathematics and says
what is proven.

Letters in shapes as in `search_loop`: N images, n of them still computed, V words, L locations; K
beam_width, P hypotheses of a pool; a group has W = K / groups of the live ones and a pool of its
own.
"""

from typing import NamedTuple

from core.common.aliases import DType, Tensor
from core.decoding.search_loop import (
    Decoding,
    Hypotheses,
    NextWord,
    check_length,
    run_steps,
    with_word,
)
from core.decoding.word_rules import Rules
from core.runtime.backend import tf


class _Pool(NamedTuple):
    """Hypotheses of an image that ended, best first.

    Attributes:
        scores: (n, P). log_probs: (n, P). lengths: (n, P) int32. words: (n, P, max_len) int32.
        slots: (n, P, max_len) int32, the live slot that the hypothesis had before each word, which
            is where the step's attention lies.
    """

    scores: Tensor
    log_probs: Tensor
    lengths: Tensor
    words: Tensor
    slots: Tensor


class _Live(NamedTuple):
    """The images still searched and their live hypotheses, see `search_loop.run_steps`.

    Attributes:
        numbers: (n,) int32. over: (n,) bool. result: a _Pool for each group.
        images: nest of (n, ...).
        words: (n K,) int32, written last. state: nest of (n K, ...).
        total: (n, K), the hypotheses' log-probabilities, -inf in slots that are not used.
        written: (n, K, max_len) int32. slots: (n, K, max_len) int32, as in _Pool.
    """

    numbers: Tensor
    over: Tensor
    result: tuple[_Pool, ...]
    images: Tensor
    words: Tensor
    state: Tensor
    total: Tensor
    written: Tensor
    slots: Tensor


class _Candidates(NamedTuple):
    """The 2W best extensions of a group, best first.

    Attributes:
        parents: (n, 2W) int32, slots of the extended hypotheses among all live ones.
        words: (n, 2W) int32.
        value: (n, 2W), what they are chosen by; -inf where there are fewer.
        total: (n, 2W), their log-probability; -inf where there are fewer.
    """

    parents: Tensor
    words: Tensor
    value: Tensor
    total: Tensor


def beam_search(decoding: Decoding, rules: Rules, max_len: int, beam_width: int = 3,
                length_penalty: float = 0.0, n_best: int | None = None, groups: int = 1,
                diversity_penalty: float = 0.0) -> Hypotheses:
    """Find the best captions that a beam finds.

    A search goes on until no live hypothesis can enter the pool any more, so what is returned is
    what a search over all `max_len` steps returns. A hypothesis of max_len words is a caption
    without its end word; it is ranked by the same score. A group of one hypothesis (beam_width 1)
    is greedy: it is over where the end word is the likeliest.

    Args:
        decoding: Decoding. rules: Rules.
        max_len: int, words written at most, the end word included.
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
                 length_penalty: float, n_best: int, groups: int,
                 diversity_penalty: float) -> None:
        self.decoding, self.rules, self.max_len = decoding, rules, max_len
        self.length_penalty, self.diversity_penalty = length_penalty, diversity_penalty
        self.K, self.P, self.groups, self.W = beam_width, n_best, groups, beam_width // groups
        self.n_images = tf.shape(decoding.start)[0]

    def run(self) -> Hypotheses:
        """Run the search."""
        n, decoding = self.n_images, self.decoding
        written = tf.zeros([n, 1, self.max_len], tf.int32)
        live = _Live(
            numbers=tf.range(n), over=tf.zeros([n], tf.bool), result=(), images=decoding.images,
            words=decoding.start, state=decoding.state, total=(), written=written, slots=written)
        pools, recorded = run_steps(self._advance, live, n, self.max_len)
        pool = pools[0]
        if self.groups > 1:
            joined = tf.nest.map_structure(lambda *parts: tf.concat(parts, axis=1), *pools)
            pool = _best(_distinct(joined), self.P)
        return self._hypotheses(pool, *recorded)

    # ---- one step

    def _advance(self, t: Tensor, live: _Live, first: bool) -> tuple[_Live, Tensor]:
        """Take one step of all groups, see `search_loop.run_steps`."""
        n_slots = 1 if first else self.K  # at first one row an image, which every group extends
        n = tf.shape(live.over)[0]
        new = self.decoding.step(live.images, live.words, live.state)
        size, dtype = new.log_probs.shape[-1], new.log_probs.dtype
        if first:
            live = live._replace(total=tf.zeros([n, 1], dtype),
                                 result=(self._empty_pool(n, dtype),) * self.groups)
        allowed = self.rules.apply(new.log_probs, tf.reshape(live.written, [-1, self.max_len]), t)
        allowed = tf.reshape(allowed, [-1, n_slots, size])                          # (n, K, V)
        survivors, pools = self._survivors_and_pools(t, live, allowed, first)
        totals = tf.split(survivors.total, self.groups, axis=1)                     # (n, W) each
        decided = [self._decided(*pair) for pair in zip(pools, totals, strict=True)]
        over = tf.logical_or(live.over, tf.reduce_all(tf.stack(decided), axis=0))   # (n,)
        # Survivor k moves into slot k, with the state of the slot that it descends from.
        rows = tf.reshape(tf.range(n)[:, tf.newaxis] * n_slots + survivors.parents, [-1])
        after = live._replace(
            over=over, result=tuple(pools), total=survivors.total,
            words=tf.reshape(survivors.words, [-1]),                                # (n K,)
            state=tf.nest.map_structure(lambda x: tf.gather(x, rows), new.state),   # (n K, ...)
            written=self._extended(live.written, t, survivors.parents, survivors.words),
            slots=self._extended(live.slots, t, survivors.parents, survivors.parents))
        return after, self._by_slot(new, live.total, n, n_slots)

    def _survivors_and_pools(self, t: Tensor, live: _Live, allowed: Tensor,
                             first: bool) -> tuple[_Candidates, list[_Pool]]:
        """Choose what lives on and what has ended, group after group.

        Args:
            t: scalar. live: _Live. allowed: (n, K, V), log-probabilities by the rules.
            first: whether `allowed` has one slot, which every group extends.

        Returns:
            (_Candidates of all groups (n, K), list of a _Pool for each group).
        """
        uses = tf.zeros([tf.shape(allowed)[0], allowed.shape[2]], allowed.dtype)    # (n, V)
        survivors, pools = [], []
        for group in range(self.groups):
            begin, end = (0, 1) if first else (group * self.W, (group + 1) * self.W)
            penalty = None
            if group and self.diversity_penalty:
                penalty = self.diversity_penalty * uses[:, tf.newaxis]              # (n, 1, V)
            candidates = self._candidates(allowed[:, begin:end], live.total[:, begin:end], penalty,
                                          begin)
            pools.append(self._with_ended(t, live, live.result[group], candidates))
            survivors.append(self._survivors(candidates))
            if self.diversity_penalty and group + 1 < self.groups:
                uses = self._count(uses, survivors[-1])
        return tf.nest.map_structure(lambda *parts: tf.concat(parts, axis=1), *survivors), pools

    def _candidates(self, log_probs: Tensor, total: Tensor, penalty: Tensor,
                    begin: int) -> _Candidates:
        """Find the 2W best extensions of a group.

        Args:
            log_probs: (n, w, V) of its w hypotheses. total: (n, w). penalty: (n, 1, V) or None.
            begin: the group's first slot.
        """
        n_hypotheses, size = log_probs.shape[1], log_probs.shape[2]
        value = log_probs if penalty is None else log_probs - penalty               # (n, w, V)
        # First the best words of each hypothesis, then the best of all: no sum of size (n, w, V).
        value, words = tf.math.top_k(value, min(2 * self.W, size))                  # (n, w, 2W)
        gain = value if penalty is None else tf.gather(log_probs, words, batch_dims=2)
        n_words = words.shape[2]
        value, gain = total[:, :, tf.newaxis] + value, total[:, :, tf.newaxis] + gain
        value, gain, words = (tf.reshape(x, [-1, n_hypotheses * n_words])           # (n, w 2W)
                              for x in (value, gain, words))
        value, places = tf.math.top_k(value, min(2 * self.W, n_hypotheses * n_words))   # (n, 2W)
        gain, words = (tf.gather(x, places, batch_dims=1) for x in (gain, words))
        missing = [[0, 0], [0, 2 * self.W - places.shape[1]]]
        minus_infinity = tf.constant(float('-inf'), value.dtype)
        return _Candidates(
            tf.pad(begin + places // n_words, missing, constant_values=begin),
            tf.pad(words, missing, constant_values=self.rules.end),
            tf.pad(value, missing, constant_values=minus_infinity),
            tf.pad(gain, missing, constant_values=minus_infinity))

    def _survivors(self, candidates: _Candidates) -> _Candidates:
        """Return the W best _Candidates that do not end."""
        minus_infinity = tf.constant(float('-inf'), candidates.value.dtype)
        ends = tf.equal(candidates.words, self.rules.end)                           # (n, 2W)
        value, places = tf.math.top_k(tf.where(ends, minus_infinity, candidates.value), self.W)
        best = tf.nest.map_structure(lambda x: tf.gather(x, places, batch_dims=1), candidates)
        return best._replace(
            value=value, total=tf.where(tf.equal(value, minus_infinity), value, best.total))

    def _with_ended(self, t: Tensor, live: _Live, pool: _Pool, candidates: _Candidates) -> _Pool:
        """Return the pool with the first W candidates that end here; at the last step all do."""
        parents, words, _, total = tf.nest.map_structure(lambda x: x[:, :self.W], candidates)
        ending = tf.logical_or(tf.equal(words, self.rules.end), tf.equal(t + 1, self.max_len))
        # Where the search is over nothing could enter but for rounding; in a group of one nothing
        # may.
        closed = tf.logical_or(live.over, self._single_has_ended(pool))             # (n,)
        ending = tf.logical_and(ending, tf.logical_not(closed)[:, tf.newaxis])      # (n, W)
        minus_infinity = tf.constant(float('-inf'), total.dtype)
        total = tf.where(ending, total, minus_infinity)                             # (n, W)
        new = _Pool(
            total / self._norm(t + 1, total.dtype), total,
            tf.where(tf.equal(total, minus_infinity), 0, t + 1),
            self._extended(live.written, t, parents, words),
            self._extended(live.slots, t, parents, parents))
        joined = tf.nest.map_structure(lambda *parts: tf.concat(parts, axis=1), pool, new)
        return _best(joined, pool.scores.shape[1])

    def _extended(self, written: Tensor, t: Tensor, parents: Tensor, words: Tensor) -> Tensor:
        """Return the parents' rows of `written` (n, K, max_len) with `words` (n, W) at place t."""
        return with_word(tf.gather(written, parents, batch_dims=1), t, words)

    def _decided(self, pool: _Pool, total: Tensor) -> Tensor:
        """Return (n,) bool, whether no hypothesis can enter the pool any more.

        Log-probabilities only fall, and they are divided by at most max_len**A.

        Args:
            pool: _Pool. total: (n, W), the live hypotheses' log-probabilities.
        """
        bound = tf.reduce_max(total, axis=1) / self._norm(self.max_len, total.dtype)    # (n,)
        return tf.logical_or(bound <= pool.scores[:, -1], self._single_has_ended(pool))

    def _single_has_ended(self, pool: _Pool) -> Tensor:
        """Return (n,) bool, whether a group of one hypothesis, which is greedy, has ended."""
        return tf.logical_and(self.W == 1, pool.lengths[:, 0] > 0)

    def _norm(self, length: Tensor, dtype: DType) -> Tensor:
        return tf.pow(tf.cast(length, dtype), tf.constant(self.length_penalty, dtype))

    def _count(self, uses: Tensor, survivors: _Candidates) -> Tensor:
        """Return `uses` (n, V) and one more for each word of the survivors."""
        image = tf.tile(tf.range(tf.shape(uses)[0])[:, tf.newaxis], [1, self.W])    # (n, W)
        used = tf.cast(survivors.total > float('-inf'), uses.dtype)
        return tf.tensor_scatter_nd_add(uses, tf.stack([image, survivors.words], axis=2), used)

    def _by_slot(self, new: NextWord, total: Tensor, n: Tensor, n_slots: int) -> Tensor:
        """Return what is recorded of a step: alpha, beta and the total before it, (n, K, ...)."""
        def by_slot(x: Tensor) -> Tensor:
            rows = tf.reshape(x, tf.concat([[n, n_slots], tf.shape(x)[1:]], axis=0))
            rows = rows if n_slots == self.K else tf.repeat(rows, self.K, axis=1)
            return tf.ensure_shape(rows, [None, self.K, *x.shape[1:]])

        recorded = new.alpha, new.beta, tf.reshape(total, [-1])
        return tf.nest.map_structure(by_slot, recorded)

    # ---- before and after the steps

    def _empty_pool(self, n: Tensor, dtype: DType) -> _Pool:
        size = min(self.P, self.W)
        nothing = tf.fill([n, size], tf.constant(float('-inf'), dtype))
        written = tf.zeros([n, size, self.max_len], tf.int32)
        return _Pool(nothing, nothing, tf.zeros([n, size], tf.int32), written, written)

    def _hypotheses(self, pool: _Pool, alpha: Tensor, beta: Tensor, totals: Tensor) -> Hypotheses:
        """Return the Hypotheses of a pool, whose slots tell where each step's record lies.

        Args:
            pool: _Pool of all N images.
            alpha: (steps, N, K, L). beta: (steps, N, K).
            totals: (steps, N, K), log-probabilities before each step.
        """
        used = pool.lengths > 0                                                     # (N, P)
        steps = tf.minimum(tf.range(self.max_len),
                           tf.maximum(pool.lengths - 1, 0)[:, :, tf.newaxis])  # (N, P, max_len)
        image = tf.range(self.n_images)[:, tf.newaxis, tf.newaxis] + tf.zeros_like(steps)
        slot = tf.gather(pool.slots, steps, batch_dims=2)                       # (N, P, max_len)
        index = tf.stack([steps, image, slot], axis=3)                          # (N, P, max_len, 3)

        def follow(x: Tensor) -> Tensor:
            """Follow the hypotheses through x (steps, N, K, ...) -> (N, P, max_len, ...)."""
            followed = tf.gather_nd(x, index)
            ones = tf.ones([followed.shape.rank - 2], tf.int32)
            is_used = tf.reshape(used, tf.concat([tf.shape(used), ones], axis=0))
            return tf.where(is_used, followed, tf.zeros_like(followed))

        places, lengths = tf.range(self.max_len), pool.lengths[:, :, tf.newaxis]
        before, whole = follow(totals), pool.log_probs[:, :, tf.newaxis]
        after = tf.where(places + 1 < lengths, tf.concat([before[:, :, 1:], whole], axis=2), whole)
        gain = tf.where(places < lengths, after - before, tf.zeros_like(before))
        return Hypotheses(
            tf.where(places < lengths, pool.words, self.rules.end), pool.scores, follow(alpha),
            follow(beta), pool.log_probs, pool.lengths, gain)


def _best(pool: _Pool, size: int) -> _Pool:
    """Return the `size` best of a pool; of equal ones the first."""
    _, places = tf.math.top_k(pool.scores, size)
    return tf.nest.map_structure(lambda x: tf.gather(x, places, batch_dims=1), pool)


def _distinct(pool: _Pool) -> _Pool:
    """Turn hypotheses that another group found too into slots that are not used."""
    same = tf.reduce_all(tf.equal(pool.words[:, :, tf.newaxis], pool.words[:, tf.newaxis]), axis=3)
    same = tf.logical_and(same, tf.equal(pool.lengths[:, :, tf.newaxis],
                                         pool.lengths[:, tf.newaxis]))              # (N, P, P)
    places = tf.range(tf.shape(pool.lengths)[1])
    again = tf.reduce_any(tf.logical_and(same, places[:, tf.newaxis] > places), axis=2)
    nothing = tf.where(again, tf.constant(float('-inf'), pool.scores.dtype), pool.scores)
    return pool._replace(scores=nothing, log_probs=tf.where(again, nothing, pool.log_probs),
                         lengths=tf.where(again, 0, pool.lengths))
