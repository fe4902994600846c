"""Attention over the annotation vectors of an image (paper sections 3.1.2 and 4).

    attention = Attention(variables, dim_annotation=512, dim_hidden=1024, options=ModelConfig())
    projected = attention.project(annotations)             # once an image
    w, b = attention.query_weights(projected)
    alpha = attention.alpha(scores(h @ w + b))             # every step, see `attention_kernels`

What is expected (soft attention) and what is drawn (hard attention, see `hard_attention`) differ
only in the weights with which the annotations are summed; a `Sentinel` stands beside them.

Letters in shapes: N images, L locations, K numbers of an annotation, A hidden units of the
attention, H hidden units of the decoder, M numbers of a word vector, R captions.
"""

from typing import TYPE_CHECKING, NamedTuple

from core.common.aliases import Tensor
from core.model import attention_kernels
from core.runtime.backend import cast, matmul, tf

if TYPE_CHECKING:
    from core.config.model import ModelConfig
    from core.runtime.variables import Variables


class Annotations(NamedTuple):
    """The annotation vectors a_i = features * scale + shift of the images (N, L, K).

    Scale and shift are those of batch normalisation and kept apart, so that neither the normalised
    features nor their gradient is ever computed: projection, mean and weighted sum are linear, and
    weights sum to one.

    Attributes:
        features: (N, L, K). In mixed precision they are of 16 bits, and so will be what is
            multiplied with them.
        scale: (K,), or None where nothing is normalised.
        shift: (K,), or None.
    """

    features: Tensor
    scale: Tensor = None
    shift: Tensor = None

    def affine(self, mean: Tensor) -> Tensor:
        """Turn weighted means of the features, mean (..., K), into those of the annotations."""
        return mean if self.scale is None else mean * self.scale + self.shift


class Projected(NamedTuple):
    """What the annotations give to the scores, the same for every word: p of eq. 4.

    Attributes:
        annotations: (N, L, A), p but for `offset`, of the features' type.
        offset: (A,), what p lacks at every location and the query has instead; None: nothing.
    """

    annotations: Tensor
    offset: Tensor


class Attention:
    """The attention's scores: e = w_att . act(p + h W [+ b]) [+ b_att], alpha = softmax(e / temp.).

    p is the projection of the annotations, `attention_layers` - 1 times followed by a tanh layer.

    Variables: `project_features/{w, b, w_1, b_1 ...}` and `attention_layer/{w, b, w_att, b_att}`,
    the biases and the numbered layers where the options ask for them.

    Args:
        variables: Variables. dim_annotation: K. dim_hidden: H.
        options: ModelConfig, of which attention_activation, attention_size, attention_layers,
            attention_bias and score_bias are read.
        temperature: scalar tensor or number.

    Attributes:
        size: A. activation: 'relu' or 'tanh'.
    """

    def __init__(self, variables: 'Variables', dim_annotation: int, dim_hidden: int,
                 options: 'ModelConfig', temperature: Tensor = 1.0) -> None:
        self.size = size = options.attention_size or dim_annotation
        self.temperature, self.activation = temperature, options.attention_activation
        projection = {'w': ([dim_annotation, size], 'projection')}
        if options.attention_bias in ('features', 'both'):
            projection['b'] = ([size], 'zeros')
        for layer in range(1, options.attention_layers):
            projection |= {f'w_{layer}': ([size, size], 'matrix'), f'b_{layer}': ([size], 'zeros')}
        self._n_layers = options.attention_layers
        self._projection = variables.create('project_features', **projection)
        score = {'w': ([dim_hidden, size], 'matrix'), 'w_att': ([size, 1], 'matrix')}
        if options.attention_bias in ('query', 'both'):
            score['b'] = ([size], 'zeros')
        if options.score_bias:
            score['b_att'] = ([1], 'zeros')
        self._score = variables.create('attention_layer', **score)

    def project(self, annotations: Annotations) -> Projected:
        """Compute p of eq. 4 from Annotations (N, L, K), once an image."""
        features, v = annotations.features, self._projection
        w, offset = tf.convert_to_tensor(v['w']), None                              # (K, A)
        # (a * scale + shift) w = a (scale * w) + shift w: no normalised (N, L, K) tensor is made.
        if annotations.scale is not None:
            offset = tf.linalg.matvec(w, annotations.shift, transpose_a=True)       # (A,)
            w *= annotations.scale[:, tf.newaxis]                                   # (K, A)
        if 'b' in v:
            offset = v['b'] if offset is None else offset + v['b']
        flat = tf.reshape(features, [-1, features.shape[2]])                        # (N L, K)
        p = matmul(flat, cast(w, features.dtype))                                   # (N L, A)
        # Biases are added in their own type, as their gradients are sums over all locations.
        if self._n_layers > 1 and offset is not None:
            p, offset = cast(p, offset.dtype) + offset, None
        for layer in range(1, self._n_layers):
            w, b = cast(v[f'w_{layer}'], features.dtype), v[f'b_{layer}']           # (A, A), (A,)
            p = tf.tanh(cast(matmul(p, w), b.dtype) + b)                            # (N L, A)
        p = tf.reshape(cast(p, features.dtype), [-1, features.shape[1], self.size])
        return Projected(p, offset)                                                 # (N, L, A)

    def query_weights(self, projected: Projected) -> tuple[Tensor, Tensor]:
        """Return w (H, A) and b (A,) of the query h w + b; b holds `projected.offset` too.

        That is right for a score of p + q. Another score must leave the offset out here.
        """
        w = tf.convert_to_tensor(self._score['w'])                                  # (H, A)
        b = self._score['b'] if 'b' in self._score else tf.zeros([self.size], w.dtype)
        return w, b if projected.offset is None else b + projected.offset           # (A,)

    def w_att(self) -> Tensor:
        """Return w_att of eq. 4 as (A,)."""
        return self._score['w_att'][:, 0]

    def score_of(self, x: Tensor) -> Tensor:
        """Compute w_att . act(x) (R, 1) of x (R, A), the score of something that is no location."""
        return matmul(attention_kernels.ACTIVATIONS[self.activation](x), self._score['w_att'])

    def logits(self, scores: Tensor) -> Tensor:
        """Return what the softmax of eq. 5 takes of scores (R, ...)."""
        if 'b_att' in self._score:
            scores += self._score['b_att']
        return scores / self.temperature

    def alpha(self, scores: Tensor) -> Tensor:
        """Compute eq. 5, alpha = softmax(scores (R, L) / temperature), whose rows sum to 1."""
        return tf.nn.softmax(self.logits(scores))


class Sentinel:
    """Visual sentinel: a vector of what the decoder knows, beside those of the image.

    Adaptive attention, Lu et al. 2017, arXiv 1612.01887, with the attention where Xu et al. have
    it, before the cell, so that it sees h_{t-1} and c_{t-1} (there it stands behind the cell):

        s_t    = sigmoid(W_x E y_{t-1} + W_h h_{t-1}) * tanh(c_{t-1})       their eq. 9, 10
        beta_t = weight of all locations in softmax([e_t, e_s]),            their eq. 12, 1 - beta
                 e_s = w_att . act(W_score s_t + h_{t-1} W + b)
        z_t    = beta_t sum_i alpha_ti a_i + (1 - beta_t) W_context s_t     their eq. 11

    Variables `sentinel/{w_x, w_h, w_score, w_context}` (M, H), (H, H), (H, A), (H, K).

    Args:
        variables: Variables. dim_embed: M. dim_hidden: H. dim_annotation: K. attention: Attention.

    Attributes:
        w_x: (M, H). w_h: (H, H).
    """

    def __init__(self, variables: 'Variables', dim_embed: int, dim_hidden: int, dim_annotation: int,
                 attention: Attention) -> None:
        self._attention, self._sizes = attention, [attention.size, dim_annotation]
        v = variables.create(
            'sentinel', w_x=([dim_embed, dim_hidden], 'matrix'),
            w_h=([dim_hidden, dim_hidden], 'matrix'),
            w_score=([dim_hidden, attention.size], 'matrix'),
            w_context=([dim_hidden, dim_annotation], 'matrix'))
        self.w_x, self.w_h = v['w_x'], v['w_h']
        self._w_score, self._w_context = v['w_score'], v['w_context']

    def weights(self, projected: Projected) -> tuple[Tensor, Tensor]:
        """Return w (H, A + K) and b (A + K,) of s_t w + b: W_score s_t, and W_context s_t.

        Args:
            projected: Projected of the images, whose offset is in the queries and not for s_t.
        """
        w = tf.concat([self._w_score, self._w_context], axis=1)                     # (H, A + K)
        bias = tf.zeros([w.shape[1]], w.dtype)
        if projected.offset is not None:
            # `mix` adds the query, which holds the offset of the locations.
            bias = tf.concat([-projected.offset, bias[self._sizes[0]:]], axis=0)    # (A + K,)
        return w, bias

    def vector(self, gate: Tensor, c: Tensor) -> Tensor:
        """Compute s_t (R, H).

        Args:
            gate: (R, H), W_x E y_{t-1} + W_h h_{t-1}. c: (R, H), the memory cell.
        """
        return tf.sigmoid(gate) * tf.tanh(c)

    def mix(self, of_sentinel: Tensor, query: Tensor, scores: Tensor,
            context: Tensor) -> tuple[Tensor, Tensor]:
        """Weigh the image's context against the sentinel.

        Args:
            of_sentinel: (R, A + K), s_t w + b of `weights`. query: (R, A). scores: (R, L), e_t.
            context: (R, K), sum_i alpha_ti a_i.

        Returns:
            (z_t (R, K), beta_t (R, 1)).
        """
        key, annotation = tf.split(of_sentinel, self._sizes, axis=1)                # (R, A), (R, K)
        e = self._attention.logits(self._attention.score_of(key + query))           # (R, 1)
        # The weight of all locations together in a softmax over them and the sentinel.
        total = tf.reduce_logsumexp(self._attention.logits(scores), axis=1, keepdims=True)
        beta = tf.sigmoid(total - e)                                                # (R, 1)
        return beta * context + (1 - beta) * annotation, beta
