"""Attention over the annotation vectors of an image (paper sections 3.1.2 and 4).

    attention = Attention(variables, dim_annotation=512, dim_hidden=1024, options=ModelConfig())
    memory = attention.memory(annotations)     # once an image
    alpha = attention.alpha(memory, h)         # every step
    context = attention.context(memory, alpha)

What is expected (soft attention) and what is drawn (hard attention, `core.hard`) differ only in the weights that
`context` is given.
"""

from typing import NamedTuple

from core.backend import tf

ACTIVATIONS = {'relu': tf.nn.relu, 'tanh': tf.nn.tanh}


class Memory(NamedTuple):
    """What every step attends to; constant over the steps of a caption.

    Attributes:
        features: (N, L, K), the annotation vectors a_i.
        projected: (N, L, A), their share of the attention score.
    """

    features: object
    projected: object


class Attention:
    """The attention's scores: e = w_att . act(p + h W [+ b]) [+ b_att], alpha = softmax(e / temperature).

    p is the projection of the annotations, `attention_layers` - 1 times followed by a tanh layer. Rows of h may be a
    multiple of the images: R = C N, the rows of image n being n C to n C + C - 1 (several captions or draws of one
    image share its projection).

    Variables: `project_features/{w, b, w_1, b_1 ...}` and `attention_layer/{w, b, w_att, b_att}`, the biases and the
    numbered layers where the options ask for them.

    Args:
        variables: Variables. dim_annotation: K. dim_hidden: H.
        options: ModelConfig, of which attention_activation, attention_size, attention_layers, attention_bias and
            score_bias are read.
        temperature: scalar tensor or number.
    """

    def __init__(self, variables, dim_annotation, dim_hidden, options, temperature=1.0):
        size = options.attention_size or dim_annotation
        self.activation, self.temperature = ACTIVATIONS[options.attention_activation], temperature
        extra = {}
        if options.attention_bias in ('features', 'both'):
            extra['b'] = ([size], 'zeros')
        for layer in range(1, options.attention_layers):
            extra |= {f'w_{layer}': ([size, size], 'matrix'), f'b_{layer}': ([size], 'zeros')}
        self.n_layers = options.attention_layers
        self.projection = variables.create('project_features', w=([dim_annotation, size], 'projection'), **extra)
        extra = {}
        if options.attention_bias in ('query', 'both'):
            extra['b'] = ([size], 'zeros')
        if options.score_bias:
            extra['b_att'] = ([1], 'zeros')
        self.weights = variables.create('attention_layer', w=([dim_hidden, size], 'matrix'),
                                        w_att=([size, 1], 'matrix'), **extra)

    def memory(self, features):
        """The image's share of the score, computed once: annotations (N, L, K) -> Memory."""
        n_locations, dim = features.shape[1], features.shape[2]
        projection = self.projection
        p = tf.matmul(tf.reshape(features, [-1, dim]), projection['w'])
        if 'b' in projection:
            p += projection['b']
        for layer in range(1, self.n_layers):
            p = tf.tanh(tf.matmul(p, projection[f'w_{layer}']) + projection[f'b_{layer}'])
        return Memory(features, tf.reshape(p, [-1, n_locations, p.shape[1]]))

    def alpha(self, memory, h):
        """Eq. 4 and 5: Memory and h (R, H) -> alpha (R, L), each row of which sums to 1."""
        n_locations, size = memory.projected.shape[1], memory.projected.shape[2]
        query = tf.matmul(h, self.weights['w'])
        if 'b' in self.weights:
            query += self.weights['b']
        query = tf.reshape(query, [tf.shape(memory.projected)[0], -1, 1, size])
        hidden = self.activation(memory.projected[:, tf.newaxis] + query)
        scores = tf.reshape(tf.matmul(tf.reshape(hidden, [-1, size]), self.weights['w_att']), [-1, n_locations])
        if 'b_att' in self.weights:
            scores += self.weights['b_att']
        return tf.nn.softmax(scores / self.temperature)

    def context(self, memory, weights):
        """Eq. 6: Memory and weights (R, L) of the locations -> context (R, K), the weighted sum of the annotations."""
        n_locations, dim = memory.features.shape[1], memory.features.shape[2]
        grouped = tf.reshape(weights, [tf.shape(memory.features)[0], -1, n_locations])
        return tf.reshape(tf.matmul(grouped, memory.features), [-1, dim])
