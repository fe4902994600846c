"""Visual sentinel: a vector of what the decoder knows, to look at where the image tells nothing.

Adaptive attention, Lu et al. 2017, arXiv 1612.01887, with the attention where Xu et al. have it,
before the cell, so that it sees h_{t-1} and c_{t-1} (Lu et al. attend behind it, with h_t and c_t):

    s_t    = sigmoid(W_x E y_{t-1} + W_h h_{t-1}) * tanh(c_{t-1})       their eq. 9, 10
    beta_t = share of the locations in softmax([e_t, e_s]),             their eq. 12; 1 - beta there
             e_s = w_att . act(W_s s_t + h_{t-1} W + b)
    z_t    = beta_t sum_i alpha_ti a_i + (1 - beta_t) W_z s_t           their eq. 11

Letters in shapes: R captions, H hidden units, M numbers of a word vector, A hidden units of the
attention, K numbers of an annotation, L locations.
"""

from typing import TYPE_CHECKING

from core.common.aliases import DType, Tensor
from core.model.attention import Attention, Projected
from core.model.step_functions import Product
from core.runtime.backend import cast, tf

if TYPE_CHECKING:
    from core.runtime.variables import Variables


class Sentinel:
    """The sentinel's variables, `sentinel/{w_x, w_h, w_score, w_context}`, and its equations.

    Their shapes are (M, H), (H, H), (H, A) and (H, K): the last turns it into an annotation.

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

    def product(self, projected: Projected, dtype: DType) -> Product:
        """Return the product with s_t (R, H) -> (R, A + K): its share of the score, and W_z s_t.

        Args:
            projected: Projected of the images, whose offset is in the queries and not for s_t.
            dtype: of the product.
        """
        w = tf.concat([self._w_score, self._w_context], axis=1)                     # (H, A + K)
        bias = tf.zeros([w.shape[1]], w.dtype)
        if projected.offset is not None:
            bias = tf.concat([-projected.offset, bias[self._sizes[0]:]], axis=0)    # (A + K,)
        return Product(cast(w, dtype), bias)

    def vector(self, gate: Tensor, c: Tensor) -> Tensor:
        """Compute s_t of the gate's input W_x E y + W_h h and the memory cell, all (R, H)."""
        return tf.sigmoid(gate) * tf.tanh(c)

    def mix(self, of_sentinel: Tensor, query: Tensor, scores: Tensor,
            context: Tensor) -> tuple[Tensor, Tensor]:
        """Weigh the image's context against the sentinel.

        Args:
            of_sentinel: (R, A + K), of `product`. query: (R, A). scores: (R, L), e_t.
            context: (R, K), sum_i alpha_ti a_i.

        Returns:
            (z_t (R, K), beta_t (R, 1)).
        """
        share, annotation = tf.split(of_sentinel, self._sizes, axis=1)              # (R, A), (R, K)
        e = self._attention.logits(self._attention.score_of(share + query))         # (R, 1)
        # The locations' share of a softmax over them and the sentinel.
        total = tf.reduce_logsumexp(self._attention.logits(scores), axis=1, keepdims=True)
        beta = tf.sigmoid(total - e)                                                # (R, 1)
        return beta * context + (1 - beta) * annotation, beta
