"""Attention over the annotation vectors of an image (paper sections 3.1.2 and 4).

    attention = Attention(variables, dim_annotation=512, dim_hidden=1024, options=ModelConfig())
    memory = attention.memory(annotations)     # once an image
    weight, bias = attention.query_weights(memory)
    alpha = attention.alpha(memory, h @ weight + bias)     # every step
    context = attention.context(memory, alpha)

What is expected (soft attention) and what is drawn (hard attention, see `hard_attention`) differ
only in the weights that `context` is given.
"""

from typing import TYPE_CHECKING, NamedTuple

from core.common.aliases import Tensor
from core.model.attention_kernels import Kernels
from core.runtime.backend import cast, matmul, tf

if TYPE_CHECKING:
    from core.config.model import ModelConfig
    from core.runtime.variables import Variables

DECODED_TOGETHER = 32  # images from which on compiling for their number pays in decoding


class Annotations(NamedTuple):
    """The annotation vectors a_i = features * scale + shift of the images (N, L, K).

    Scale and shift are those of batch normalisation and kept apart, so that neither the normalised
    features nor their gradient is ever computed: projection, mean and weighted sum are linear, and
    weights sum to one.

    Attributes:
        features: (N, L, K). In mixed precision they are of 16 bits, and so will be what is
            multiplied with them.
        scale, shift: (K,), or both None.
    """

    features: Tensor
    scale: Tensor = None
    shift: Tensor = None

    def affine(self, mean: Tensor) -> Tensor:
        """Weighted means of the features (..., K) -> of the annotation vectors."""
        return mean if self.scale is None else mean * self.scale + self.shift


class Memory(NamedTuple):
    """What every step attends to; constant over the steps of a caption.

    Attributes:
        features: (N, L, K), of the annotations.
        projected: (N, L, A), the annotations' share of the attention score, but for `offset`.
        offset: (A,), what is missing in `projected` at every location, or None.
        annotations: Annotations.
    """

    features: Tensor
    projected: Tensor
    offset: Tensor
    annotations: Annotations


class Attention:
    """The attention's scores: e = w_att . act(p + h W [+ b]) [+ b_att], alpha = softmax(e /
    temperature).

    p is the projection of the annotations, `attention_layers` - 1 times followed by a tanh layer.
    Rows may be a multiple of the images: R = C N, the rows of image n being n C to n C + C - 1
    (several captions or draws of one image share its projection).

    Variables: `project_features/{w, b, w_1, b_1 ...}` and `attention_layer/{w, b, w_att, b_att}`,
    the biases and the numbered layers where the options ask for them.

    Args:
        variables: Variables. dim_annotation: K. dim_hidden: H.
        options: ModelConfig, of which attention_activation, attention_size, attention_layers,
            attention_bias and score_bias are read.
        temperature: scalar tensor or number.
        jit: XLA compiles the large products, see `attention_kernels`.
    """

    def __init__(self, variables: 'Variables', dim_annotation: int, dim_hidden: int,
                 options: 'ModelConfig', temperature: Tensor = 1.0, jit: bool = True) -> None:
        size = options.attention_size or dim_annotation
        self.temperature, self._activation = temperature, options.attention_activation
        self.compile(jit)
        extra = {}
        if options.attention_bias in ('features', 'both'):
            extra['b'] = ([size], 'zeros')
        for layer in range(1, options.attention_layers):
            extra |= {f'w_{layer}': ([size, size], 'matrix'), f'b_{layer}': ([size], 'zeros')}
        self.n_layers = options.attention_layers
        self.projection = variables.create('project_features',
                                           w=([dim_annotation, size], 'projection'), **extra)
        extra = {}
        if options.attention_bias in ('query', 'both'):
            extra['b'] = ([size], 'zeros')
        if options.score_bias:
            extra['b_att'] = ([1], 'zeros')
        self.weights = variables.create('attention_layer', w=([dim_hidden, size], 'matrix'),
                                        w_att=([size, 1], 'matrix'), **extra)

    def compile(self, jit: bool) -> None:
        """From here on, XLA compiles the large products, or does not (attribute `jit`)."""
        self.jit, self.kernels = jit, Kernels(self._activation, jit)
        # Decoding has batches of many sizes, as images leave it; each is compiled once, which few
        # images do not pay.
        self.decoding_kernels = Kernels(self._activation, jit, DECODED_TOGETHER)

    def memory(self, annotations: Annotations) -> Memory:
        """The image's share of the score, computed once: Annotations (N, L, K) -> Memory."""
        features, projection = annotations.features, self.projection
        n_locations, dim = features.shape[1], features.shape[2]
        w, offset = tf.convert_to_tensor(projection['w']), None
        if annotations.scale is not None:
            offset = tf.linalg.matvec(w, annotations.shift, transpose_a=True)
            w *= annotations.scale[:, tf.newaxis]
        if 'b' in projection:
            offset = projection['b'] if offset is None else offset + projection['b']
        p = matmul(tf.reshape(features, [-1, dim]), cast(w, features.dtype))
        # Biases are added in their own type, as their gradients are sums over all locations.
        if self.n_layers > 1 and offset is not None:
            p, offset = cast(p, offset.dtype) + offset, None
        for layer in range(1, self.n_layers):
            w, b = cast(projection[f'w_{layer}'], features.dtype), projection[f'b_{layer}']
            p = tf.tanh(cast(matmul(p, w), b.dtype) + b)
        p = cast(p, features.dtype)
        return Memory(features, tf.reshape(p, [-1, n_locations, p.shape[1]]), offset, annotations)

    def query_weights(self, memory: Memory) -> tuple[Tensor, Tensor]:
        """(w (H, A), b (A,)) of the query h w + b; b holds what `memory.projected` lacks."""
        w = tf.convert_to_tensor(self.weights['w'])
        bias = self.weights['b'] if 'b' in self.weights else tf.zeros([w.shape[1]], w.dtype)
        return w, bias if memory.offset is None else bias + memory.offset

    def scorer(self) -> Tensor:
        """w_att as (A,)."""
        return self.weights['w_att'][:, 0]

    def alpha(self, memory: Memory, query: Tensor, scorer: Tensor = None, tap: Tensor = None,
              offset: Tensor = None) -> Tensor:
        """Eq. 4 and 5: alpha (R, L), each row of which sums to 1.

        Gradients reach the query, `tap` and `offset`; those of `memory` and `scorer` are made from
        these after the loop over the steps, see `deferred_gradients`.

        Args:
            memory: Memory. query: (R, A). scorer: `scorer()`, read once for all steps.
            tap: (R, A), see `Kernels.scores`. offset: (R, L) to add to the scores.
        """
        n, size = tf.shape(memory.projected)[0], memory.projected.shape[2]
        grouped = [None if x is None else tf.reshape(x, [n, -1, size]) for x in (query, tap)]
        kernels = self.decoding_kernels if tap is None else self.kernels
        scores = kernels.scores(memory.projected, grouped[0], self.scorer() if scorer is None
                                else scorer, grouped[1])
        scores = tf.reshape(scores, [-1, memory.projected.shape[1]])
        if offset is not None:
            scores += offset
        if 'b_att' in self.weights:
            scores += self.weights['b_att']
        return tf.nn.softmax(scores / self.temperature)

    def context(self, memory: Memory, weights: Tensor, offset: Tensor = None) -> Tensor:
        """Eq. 6: the weighted sum of the annotations (R, K); gradients reach the weights and
        `offset`.

        Args:
            memory: Memory. weights: (R, L) of the locations, which sum to 1. offset: (R, K) to add.
        """
        n_locations, dim = memory.features.shape[1], memory.features.shape[2]
        grouped = tf.reshape(weights, [tf.shape(memory.features)[0], -1, n_locations])
        kernels = self.decoding_kernels if offset is None else self.kernels
        summed = tf.reshape(kernels.weighted_sum(grouped, memory.features), [-1, dim])
        return memory.annotations.affine(summed if offset is None else summed + offset)
