"""Gradients of the weights made once for all steps, after the loop over them, instead of at every
step.

The loop over T' steps multiplies with weights that are the same at every step. Differentiated as it
stands, every step would add its share to a gradient as large as the weight. Instead, the weights
are constants inside the loop, and each product x_t W has an offset from outside (`Offsets`), zero
or what is known beforehand. The gradient of the offsets holds d_t of all steps, so that dW = sum_t
x_t' d_t is one product after the loop, with the x_t which the loop has recorded. `Deferred` ties
the two together. The gradients are those of the plain formulation; the tests compare.

In mixed precision the matrices are of 16 bits, those of `step_weights` and the memory's; products
with them are computed so, and everything else, what is recorded and the offsets too, is of the
model's own type.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

from core.common.aliases import Tensor
from core.model.attention import Memory
from core.model.decoder import Decoder, Offsets, StepWeights, Weight, all_rows
from core.runtime.backend import matmul, tf, tf1
from core.runtime.custom_gradient import with_gradient


class Recorded(NamedTuple):
    """What the loop has recorded of all steps, (T', R, ...).

    Attributes:
        h: (H), before the step. query: (A). weights: (L), of the locations. context: (K), as it
            entered the cell.
        words: () int32, that were fed, where they are drawn inside the loop; else an empty tuple.
    """

    h: Tensor
    query: Tensor
    weights: Tensor
    context: Tensor
    words: Tensor


def _hidden(x: Tensor) -> Tensor:
    """The bits of a float tensor, for a loop to read.

    A loop gives every float that it reads a gradient, zeros of its size where there is none; to
    integers none.
    """
    return tf.bitcast(x, {2: tf.uint16, 4: tf.uint32, 8: tf.uint64}[x.dtype.size])


class Deferred:
    """The constants of a loop, and its offsets, whose gradients become those of weights, word
    vectors and features.

    Args:
        decoder: Decoder. memory: Memory.
        n_steps, n_rows: scalar tensors, T' and R.
        words: (T', R) int32 that are fed, or None where words are drawn inside the loop.
    """

    def __init__(self, decoder: Decoder, memory: Memory, n_steps: Tensor, n_rows: Tensor,
                 words: Tensor = None) -> None:
        self._decoder, self._n_images = decoder, tf.shape(memory.projected)[0]
        self.recorded: Any = None  # Recorded, once the loop is built
        weights = decoder.step_weights(memory)

        def zeros(size: Tensor) -> Tensor:
            return tf.zeros([n_steps, n_rows, size], decoder.dtype)

        if words is None:
            def replay(table: Tensor, words: Tensor, bias: Tensor) -> Tensor:
                fed = decoder.word_vectors(self.recorded.words, table)
                return weights._replace(words=words, words_bias=bias).word_share(fed)

            inputs = self._tie(replay, zeros(weights.words.shape[1]), decoder.embedding,
                               weights.words, weights.words_bias)
        else:
            # A batch has the same words many times: their share of the gates is computed once.
            distinct, places = tf.unique(tf.reshape(words, [-1]))
            shares = tf.gather(weights.word_share(decoder.word_vectors(distinct)), places)
            inputs = tf.reshape(shares, [n_steps, n_rows, weights.words.shape[1]])
        scores, scorer = self._tie_scores(zeros(decoder.L), zeros(weights.scorer.shape[0]),
                                          memory.projected, weights.scorer)
        state = zeros(weights.state.matrix.shape[1]) + weights.offsets.state
        if decoder.cell.adds and words is not None:
            state, inputs = tf.concat([inputs, state[:, :, decoder.cell.n_gates:]], axis=2), None
        state = self._tie(lambda w: all_rows(self.recorded.h, w), state, weights.state.matrix)

        def for_context(offset: Tensor) -> Tensor:
            return self._tie(lambda w: all_rows(self.recorded.context, w), offset,
                             weights.context.matrix)

        offsets = Offsets(
            state=for_context(state) if inputs is None else state,
            inputs=None if inputs is None else for_context(inputs), scores=scores, scorer=scorer,
            context=self._tie(self._weighted_sums, zeros(decoder.K), memory.features))
        self._offsets = Offsets(
            *[x if x is None else tf.TensorArray(decoder.dtype, n_steps,
                                                 element_shape=x.shape[1:]).unstack(x)
              for x in offsets])
        nothing: Any = ()  # offsets are read one step at a time
        weights = weights._replace(offsets=nothing, **{
            name: Weight(weight.matrix, tf.transpose(weight.matrix))
            for name, weight in (('state', weights.state), ('context', weights.context))})
        self._memory, self._weights = memory, tf.nest.map_structure(_hidden, weights)
        self._types = tf.nest.map_structure(lambda x: x.dtype.base_dtype, weights)
        self._images = _hidden(memory.features), _hidden(memory.projected)

    def at(self, t: Tensor) -> tuple[Memory, StepWeights]:
        """Inside the loop: (Memory, StepWeights) of step t."""
        memory = self._memory._replace(
            features=tf.bitcast(self._images[0], self._memory.features.dtype),
            projected=tf.bitcast(self._images[1], self._memory.projected.dtype))
        weights = tf.nest.map_structure(tf.bitcast, self._weights, self._types)
        offsets = Offsets(*[array if array is None else array.read(t) for array in self._offsets])
        return memory, weights._replace(offsets=offsets)

    def record(self, recorded: Recorded) -> None:
        """Take the Recorded of the loop, which must be known before gradients are asked for."""
        # Constants: what depends on them inside the loop has its gradient there.
        self.recorded = tf.nest.map_structure(tf.stop_gradient, recorded)

    def _tie(self, replay: Callable[..., Tensor], offset: Tensor, *sources: Tensor) -> Tensor:
        """`offset`, the gradient of whose first columns also reaches `sources` as that of
        replay(*sources) would.
        """
        def tied(offset: Tensor, *sources: Tensor) -> tuple[Tensor, Callable[..., tuple]]:
            def gradient(d: Tensor) -> tuple:
                again = replay(*sources)
                found = tf1.gradients(again, sources, grad_ys=d[:, :, :again.shape[2]])
                return (d, *map(tf.convert_to_tensor, found))

            return tf.identity(offset), gradient

        return with_gradient(tied, offset, *sources)

    def _tie_scores(self, scores: Tensor, scorer: Tensor, projected: Tensor,
                    weight: Tensor) -> tuple[Tensor, Tensor]:
        def tied(scores: Tensor, scorer: Tensor, projected: Tensor,
                 weight: Tensor) -> tuple[tuple, Callable[..., tuple]]:
            def gradient(d_scores: Tensor, d_scorer: Tensor) -> tuple:
                queries, d, taps = (self._by_image(x)
                                    for x in (self.recorded.query, d_scores, d_scorer))
                return (d_scores, d_scorer,
                        *self._decoder.attention.kernels.score_gradients(
                    projected, weight, queries, d, taps))

            return (tf.identity(scores), tf.identity(scorer)), gradient

        return with_gradient(tied, scores, scorer, projected, weight)

    def _by_image(self, x: Tensor) -> Tensor:
        """(T', R, ...) -> (T' C, N, ...)."""
        size = x.shape[2]
        x = tf.reshape(x, [tf.shape(x)[0], self._n_images, -1, size])
        return tf.reshape(tf.transpose(x, [0, 2, 1, 3]), [-1, self._n_images, size])

    def _weighted_sums(self, features: Tensor) -> Tensor:
        """What the loop computes as context, of all steps: one product an image."""
        weights, n, size = self.recorded.weights, self._n_images, features.shape[2]
        n_steps, n_locations = tf.shape(weights)[0], features.shape[1]
        weights = tf.reshape(weights, [n_steps, n, -1, n_locations])
        weights = tf.reshape(tf.transpose(weights, [1, 0, 2, 3]), [n, -1, n_locations])
        sums = tf.reshape(matmul(weights, features), [n, n_steps, -1, size])
        return tf.reshape(tf.transpose(sums, [1, 0, 2, 3]), [n_steps, -1, size])
