"""The default model as the TF1 tutorials write it, the baseline of the comparisons.

It is the plainest form of the equations.

    with tf.Graph().as_default():
        model = Textbook(n_words=10000)
        train = model.minimize(model.build_model())
        alphas, betas, captions = model.build_sampler(max_len=20)

A Python loop puts every word's step into the graph, all `n_time_step` of them whatever the
captions' lengths. Every step has its own product with the vocabulary and its own cross entropy,
every (N, L, D) intermediate of the attention is a tensor that the backward pass keeps, features
come as float32 through feed_dict. Loss, gradients and greedy captions are those of
`CaptionGenerator` with its default options; names and shapes of the variables too.

Letters in shapes: N images, L locations, D features of a location, H hidden units, M numbers of a
word vector, T steps, V words. Equations and sections are those of arXiv 1502.03044.
"""

import functools

from core.data.vocabulary import END, NULL, START, UNK
from core.runtime.backend import tf, tf1

EPSILON, DECAY = 1e-3, 0.95  # of the batch normalisation


def _scoped(name):
    """Give a method's operations a name scope, for profiles."""
    def decorate(method):
        @functools.wraps(method)
        def scoped(*args, **kwargs):
            with tf1.name_scope(name):
                return method(*args, **kwargs)

        return scoped

    return decorate


class Textbook:
    """Soft attention, LSTM, gate and deep output, each step written out.

    Args:
        n_words: V; words 0 to 3 are <NULL>, <START>, <END>, <UNK>.
        dim_feature: (L, D). dim_embed: M. dim_hidden: H. n_time_step: T.
        alpha_c: weight of the doubly stochastic regulariser (4.2.1).
        dropout: dropout of one half on h and on the output layer while training.
        dtype: of variables and computation.

    Attributes:
        features: placeholder (N, L, D) float32. captions: placeholder (N, T + 1) int32.
        variables: dict of name -> variable.
    """

    def __init__(self, n_words, dim_feature=(196, 512), dim_embed=512, dim_hidden=1024,
                 n_time_step=16, alpha_c=1.0, dropout=True, dtype=tf.float32):
        (self.L, self.D), self.M, self.H = dim_feature, dim_embed, dim_hidden
        self.T, self.V = n_time_step, n_words
        self.alpha_c, self.dropout, self.dtype = alpha_c, dropout, dtype
        self.features = tf1.placeholder(tf.float32, [None, self.L, self.D], name='features')
        self.captions = tf1.placeholder(tf.int32, [None, self.T + 1], name='captions')
        self.variables = self._variables()

    def _variables(self):
        D, H, M, V = self.D, self.H, self.M, self.V
        glorot = tf1.glorot_uniform_initializer()
        zeros, ones = tf1.zeros_initializer(), tf1.ones_initializer()
        specs = {
            'conv_featuresbatch_norm/beta': ([D], zeros),
            'conv_featuresbatch_norm/gamma': ([D], ones),
            'conv_featuresbatch_norm/moving_mean': ([D], zeros),
            'conv_featuresbatch_norm/moving_variance': ([D], ones),
            'initial_lstm/w_h': ([D, H], glorot), 'initial_lstm/b_h': ([H], zeros),
            'initial_lstm/w_c': ([D, H], glorot), 'initial_lstm/b_c': ([H], zeros),
            'word_embedding/w': ([V, M], tf1.random_uniform_initializer(-1.0, 1.0)),
            'project_features/w': ([D, D], glorot),
            'attention_layer/w': ([H, D], glorot), 'attention_layer/b': ([D], zeros),
            'attention_layer/w_att': ([D, 1], glorot),
            'selector/w': ([H, 1], glorot), 'selector/b': ([1], zeros),
            'lstm/basic_lstm_cell/kernel': ([M + D + H, 4 * H], glorot),
            'lstm/basic_lstm_cell/bias': ([4 * H], zeros),
            'logits/w_h': ([H, M], glorot), 'logits/b_h': ([M], zeros),
            'logits/w_ctx2out': ([D, M], glorot),
            'logits/w_out': ([M, V], glorot), 'logits/b_out': ([V], zeros),
        }
        return {name: tf1.get_variable(name, shape, self.dtype, initializer=initializer,
                                       use_resource=True, trainable='moving_' not in name)
                for name, (shape, initializer) in specs.items()}

    # ---- the equations

    @_scoped('features')
    def _normalised(self, training):
        """Return features (N, L, D), batch-normalised; while training by the batch's statistics."""
        features, v = tf.cast(self.features, self.dtype), self.variables
        mean, variance = (v[f'conv_featuresbatch_norm/moving_{name}']
                          for name in ('mean', 'variance'))
        if training:
            moving = (mean, variance)
            mean, variance = tf.nn.moments(features, axes=[0, 1])
            updates = [average.assign(average * DECAY + value * (1 - DECAY))
                       for average, value in zip(moving, (mean, variance), strict=True)]
            with tf.control_dependencies(updates):
                mean, variance = tf.identity(mean), tf.identity(variance)
        return tf.nn.batch_normalization(features, mean, variance,
                                         v['conv_featuresbatch_norm/beta'],
                                         v['conv_featuresbatch_norm/gamma'], EPSILON)

    @_scoped('initial_state')
    def _initial_state(self, features):
        """Return c and h (N, H) from the mean feature (3.1.2)."""
        v, mean = self.variables, tf.reduce_mean(features, axis=1)
        return tuple(tf.tanh(tf.matmul(mean, v[f'initial_lstm/w_{part}'])
                             + v[f'initial_lstm/b_{part}']) for part in 'ch')

    @_scoped('features')
    def _projected(self, features):
        """Return the features' share of the score (N, L, D)."""
        flat = tf.matmul(tf.reshape(features, [-1, self.D]), self.variables['project_features/w'])
        return tf.reshape(flat, [-1, self.L, self.D])

    @_scoped('attention')
    def _attend(self, features, projected, h):
        """Return alpha (N, L) and context (N, D) by eq. 4 to 6."""
        v = self.variables
        query = tf.matmul(h, v['attention_layer/w']) + v['attention_layer/b']
        hidden = tf.nn.relu(projected + tf.expand_dims(query, 1))
        scores = tf.matmul(tf.reshape(hidden, [-1, self.D]), v['attention_layer/w_att'])
        alpha = tf.nn.softmax(tf.reshape(scores, [-1, self.L]))
        return alpha, tf.reduce_sum(features * tf.expand_dims(alpha, 2), axis=1)

    @_scoped('gate')
    def _gate(self, context, h):
        """Return the context scaled by beta, and beta (N, 1) (4.2.1)."""
        beta = tf.sigmoid(tf.matmul(h, self.variables['selector/w']) + self.variables['selector/b'])
        return beta * context, beta

    @_scoped('lstm')
    def _lstm(self, word, context, c, h):
        """Return c and h by eq. 1 to 3, gate order i, j, f, o, forget bias 1."""
        v = self.variables
        gates = tf.matmul(tf.concat([word, context, h], 1), v['lstm/basic_lstm_cell/kernel'])
        i, j, f, o = tf.split(gates + v['lstm/basic_lstm_cell/bias'], 4, axis=1)
        c = tf.sigmoid(f + 1.0) * c + tf.sigmoid(i) * tf.tanh(j)
        return c, tf.sigmoid(o) * tf.tanh(c)

    @_scoped('output')
    def _logits(self, word, h, context, dropout=False):
        """Return logits (N, V) by eq. 7."""
        v = self.variables
        if dropout:
            h = tf.nn.dropout(h, rate=0.5)
        hidden = (tf.matmul(h, v['logits/w_h']) + v['logits/b_h']
                  + tf.matmul(context, v['logits/w_ctx2out']) + word)
        hidden = tf.tanh(hidden)
        if dropout:
            hidden = tf.nn.dropout(hidden, rate=0.5)
        return tf.matmul(hidden, v['logits/w_out']) + v['logits/b_out']

    # ---- the graphs

    def build_model(self):
        """Return the scalar loss: cross entropy summed over words, over N, plus the regulariser."""
        n = tf.cast(tf.shape(self.captions)[0], self.dtype)
        inputs, targets = self.captions[:, :-1], self.captions[:, 1:]
        mask = tf.cast(tf.not_equal(targets, NULL), self.dtype)
        features = self._normalised(training=True)
        projected, (c, h) = self._projected(features), self._initial_state(features)
        words = tf.nn.embedding_lookup(self.variables['word_embedding/w'], inputs)
        loss, alphas = 0.0, []
        for t in range(self.T):
            alpha, context = self._attend(features, projected, h)
            alphas.append(alpha)
            context, _ = self._gate(context, h)
            c, h = self._lstm(words[:, t], context, c, h)
            logits = self._logits(words[:, t], h, context, self.dropout)
            cross_entropy = tf.nn.sparse_softmax_cross_entropy_with_logits(targets[:, t], logits)
            loss += tf.reduce_sum(cross_entropy * mask[:, t])
        if self.alpha_c > 0:
            attended = tf.reduce_sum(tf.stack(alphas, 1) * tf.expand_dims(mask, 2), axis=1)
            loss += self.alpha_c * tf.reduce_sum((self.T / self.L - attended) ** 2)
        return loss / n

    def minimize(self, loss, learning_rate=1e-3):
        """Return the operation of a step of Adam."""
        return tf1.train.AdamOptimizer(learning_rate).minimize(loss)

    def build_sampler(self, max_len=20):
        """Build greedy captions: always `max_len` steps, whether captions have ended or not.

        Returns:
            (alphas (N, max_len, L), betas (N, max_len), captions (N, max_len) int32); what follows
            <END> means nothing. <NULL>, <START> and <UNK> are not written.
        """
        features = self._normalised(training=False)
        projected, (c, h) = self._projected(features), self._initial_state(features)
        never = tf.reduce_sum(tf.one_hot([NULL, START, UNK], self.V, dtype=self.dtype), 0) * -1e9
        said, alphas, betas, captions = tf.fill([tf.shape(features)[0]], START), [], [], []
        for _ in range(max_len):
            word = tf.nn.embedding_lookup(self.variables['word_embedding/w'], said)
            alpha, context = self._attend(features, projected, h)
            context, beta = self._gate(context, h)
            c, h = self._lstm(word, context, c, h)
            said = tf.argmax(self._logits(word, h, context) + never, axis=1, output_type=tf.int32)
            alphas.append(alpha)
            betas.append(beta[:, 0])
            captions.append(said)
        return tf.stack(alphas, 1), tf.stack(betas, 1), tf.stack(captions, 1)


def until_end(caption):
    """Return the words of a caption (max_len,) up to and with <END>, as a list."""
    words = [int(word) for word in caption]
    return words[: words.index(END) + 1] if END in words else words
