"""Attention over the annotation vectors of an image (paper sections 3.1.2 and 4).

    attention = SoftAttention(dim_features=512, dim_hidden=1024, activation='relu')
    memory = attention.memory(features)            # once per image
    alpha, context = attention.attend(memory, h)   # every step
"""

from typing import NamedTuple

from core.backend import tf, tf1

ACTIVATIONS = {'relu': tf.nn.relu, 'tanh': tf.nn.tanh}


class Memory(NamedTuple):
    """What every step attends to; constant over the steps of a caption.

    Attributes:
        features: (N, L, D), the annotation vectors a_i.
        projected: (N, L, D), their share of the attention score.
    """

    features: object
    projected: object


class SoftAttention:
    """Deterministic soft attention (4.2): e = w_att . act(a W_proj + h W + b), alpha = softmax(e), z = sum alpha a.

    Variables (created here, once; names of the TF1 code): `project_features/w` (D, D) and
    `attention_layer/{w, b, w_att}` (H, D), (D), (D, 1).
    """

    def __init__(self, dim_features, dim_hidden, activation='relu', dtype=tf.float32):
        if activation not in ACTIVATIONS:
            raise ValueError(f'attention_activation must be one of {", ".join(ACTIVATIONS)}, not {activation!r}')
        self.activation = ACTIVATIONS[activation]

        def glorot(name, shape):
            return tf1.get_variable(name, shape, dtype, initializer=tf1.glorot_uniform_initializer())

        with tf1.variable_scope('project_features', reuse=tf1.AUTO_REUSE, use_resource=True):
            self.w_project = glorot('w', [dim_features, dim_features])
        with tf1.variable_scope('attention_layer', reuse=tf1.AUTO_REUSE, use_resource=True):
            self.w = glorot('w', [dim_hidden, dim_features])
            self.b = tf1.get_variable('b', [dim_features], dtype, initializer=tf1.zeros_initializer())
            self.w_att = glorot('w_att', [dim_features, 1])

    def memory(self, features):
        """The image's share of the score, computed once: features (N, L, D) -> Memory."""
        n_locations, dim = features.shape[1], features.shape[2]
        flat = tf.matmul(tf.reshape(features, [-1, dim]), self.w_project)
        return Memory(features, tf.reshape(flat, [-1, n_locations, dim]))

    def attend(self, memory, h):
        """Eq. 4 to 6: Memory and h (N, H) -> alpha (N, L), which sums to 1, and the expected context z (N, D)."""
        n_locations, dim = memory.features.shape[1], memory.features.shape[2]
        query = tf.matmul(h, self.w) + self.b
        hidden = self.activation(memory.projected + query[:, tf.newaxis])
        scores = tf.reshape(tf.matmul(tf.reshape(hidden, [-1, dim]), self.w_att), [-1, n_locations])
        alpha = tf.nn.softmax(scores)
        context = tf.squeeze(tf.matmul(alpha[:, tf.newaxis], memory.features), 1)
        return alpha, context
