"""`CaptionGenerator`: the variables, ONE decoder step, the training graph and the decoding graph.

    with tf.Graph().as_default():
        model = CaptionGenerator(word_to_idx, dim_feature=(196, 512))
        loss = model.build_model()
        alphas, betas, captions = model.build_sampler(max_len=20)

The mathematics is written out, equation by equation, in docs/model.md. Letters in shapes: N images or captions,
L locations, D features of a location, H hidden units, M numbers of a word vector, T steps, V words.
"""

from typing import NamedTuple

from core import decoding
from core.attention import SoftAttention
from core.backend import tf, tf1
from core.text import SPECIALS

NEVER_EMITTED = ('<NULL>', '<START>', '<UNK>')
BATCH_NORM_EPSILON, BATCH_NORM_DECAY = 1e-3, 0.95


class LSTMState(NamedTuple):
    """Memory cell c and hidden state h, both (N, H)."""

    c: object
    h: object


class StepOutput(NamedTuple):
    """One decoder step.

    Attributes:
        state: LSTMState after the step.
        context: (N, D), the attended features, scaled by beta.
        alpha: (N, L), attention weights.
        beta: (N, 1), the gate; ones without `selector`.
    """

    state: object
    context: object
    alpha: object
    beta: object


class TrainingOutputs(NamedTuple):
    """What `build_model` computed, beside the loss.

    Attributes:
        nll: scalar, cross entropy summed over words, divided by N, without the regulariser.
        regularizer: scalar, the doubly stochastic term divided by N, `alpha_c` included.
        n_words: scalar, words (with <END>) that carry loss.
        alphas: (N, T', L), attention weights; T' is the longest caption of the batch (n_time_step without
            `mask_padding`).
        betas: (N, T'), gates.
        mask: (N, T') 1 where a word carries loss, else 0.
    """

    nll: object
    regularizer: object
    n_words: object
    alphas: object
    betas: object
    mask: object


class Sampled(NamedTuple):
    """What `build_sampler` returns.

    Attributes:
        alphas: (N, max_len, L) float, attention weights.
        betas: (N, max_len) float, gates.
        captions: (N, max_len) int32, word indices; <END> repeats after the caption's end, and so do its last alpha
            and beta.
    """

    alphas: object
    betas: object
    captions: object


class CaptionGenerator:
    """Soft-attention caption generator (Xu et al. 2015, arXiv 1502.03044) over convolutional features.

    Args:
        word_to_idx: dict of word -> index, 0 to V-1, with '<NULL>', '<START>', '<END>' (and usually '<UNK>').
        dim_feature: (L, D), locations and features of a location.
        dim_embed: M. dim_hidden: H.
        n_time_step: T, words of a training caption at most, <END> included.
        prev2out, ctx2out: the previous word and the context feed the output layer (eq. 7).
        alpha_c: weight of the doubly stochastic regulariser (4.2.1).
        selector: the gate beta scales the context (4.2.1).
        dropout: dropout on h and on the output layer while training.
        dropout_rate: share of units set to zero.
        attention_activation: 'relu' or 'tanh'.
        mask_padding: padding steps do not count in the regulariser; False gives the TF1 code's sum, where they do.
        dtype: of variables and computation.

    Attributes:
        features: placeholder (N, L, D) float32.
        captions: placeholder (N, T+1) int32: <START> words <END> <NULL>...
        dropout_seed: (2,) int32. Fresh numbers in every run, unless fed: equal seeds give equal dropout masks.
        loss, nll, outputs: after `build_model`, the scalars and the TrainingOutputs.

    Raises:
        ValueError: an option out of its range, or a special word missing from `word_to_idx`.
    """

    def __init__(self, word_to_idx, dim_feature=(196, 512), dim_embed=512, dim_hidden=1024, n_time_step=16,
                 prev2out=True, ctx2out=True, alpha_c=0.0, selector=True, dropout=True, *, dropout_rate=0.5,
                 attention_activation='relu', mask_padding=True, dtype=tf.float32):
        for word in SPECIALS[:3]:
            if word not in word_to_idx:
                raise ValueError(f'word_to_idx lacks the special word {word}')
        if sorted(word_to_idx.values()) != list(range(len(word_to_idx))):
            raise ValueError(f'word_to_idx must number its {len(word_to_idx)} words from 0 without gaps')
        for name, value in (('dim_feature', min(dim_feature)), ('dim_embed', dim_embed), ('dim_hidden', dim_hidden),
                            ('n_time_step', n_time_step)):
            if value < 1:
                raise ValueError(f'{name} must be at least 1, not {value}')
        if alpha_c < 0:
            raise ValueError(f'alpha_c must be at least 0, not {alpha_c}')
        if not 0 <= dropout_rate < 1:
            raise ValueError(f'dropout_rate must be at least 0 and below 1, not {dropout_rate}')
        self.word_to_idx = dict(word_to_idx)
        self.idx_to_word = {index: word for word, index in word_to_idx.items()}
        self.null, self.start, self.end = (word_to_idx[word] for word in SPECIALS[:3])
        self.never = [word_to_idx[word] for word in NEVER_EMITTED if word in word_to_idx]
        self.L, self.D = dim_feature
        self.V, self.M, self.H, self.T = len(word_to_idx), dim_embed, dim_hidden, n_time_step
        self.prev2out, self.ctx2out, self.selector = prev2out, ctx2out, selector
        self.alpha_c, self.mask_padding = alpha_c, mask_padding
        self.dropout_rate = dropout_rate if dropout else 0.0
        self.dtype = dtype

        self.features = tf1.placeholder(tf.float32, [None, self.L, self.D], name='features')
        self.captions = tf1.placeholder(tf.int32, [None, self.T + 1], name='captions')
        fresh = tf1.random.uniform([2], maxval=2**31 - 1, dtype=tf.int32)
        self.dropout_seed = tf1.placeholder_with_default(fresh, [2], name='dropout_seed')
        self.graph = self.features.graph
        self.loss = self.nll = self.outputs = None
        self.attention = SoftAttention(self.D, self.H, attention_activation, dtype)
        self._create_variables()

    def _create_variables(self):
        """All variables but the attention's, under the names of the TF1 code."""
        glorot, zeros, ones = tf1.glorot_uniform_initializer(), tf1.zeros_initializer(), tf1.ones_initializer()
        created = []

        def variables(scope, /, **specs):
            with tf1.variable_scope(scope, reuse=tf1.AUTO_REUSE, use_resource=True):
                named = {
                    name: tf1.get_variable(name, shape, self.dtype, initializer=initializer,
                                           trainable=not name.startswith('moving_'))
                    for name, (shape, initializer) in specs.items()
                }
            created.extend(named.values())
            return named

        D, H, M, V = self.D, self.H, self.M, self.V
        self.batch_norm = variables('conv_featuresbatch_norm', beta=([D], zeros), gamma=([D], ones),
                                    moving_mean=([D], zeros), moving_variance=([D], ones))
        self.initial = variables('initial_lstm', w_h=([D, H], glorot), b_h=([H], zeros),
                                 w_c=([D, H], glorot), b_c=([H], zeros))
        self.embedding = variables('word_embedding', w=([V, M], tf1.random_uniform_initializer(-1.0, 1.0)))['w']
        self.gate = variables('selector', w=([H, 1], glorot), b=([1], zeros)) if self.selector else None
        self.lstm = variables('lstm/basic_lstm_cell', kernel=([M + D + H, 4 * H], glorot), bias=([4 * H], zeros))
        context = {'w_ctx2out': ([D, M], glorot)} if self.ctx2out else {}
        self.output = variables('logits', w_h=([H, M], glorot), b_h=([M], zeros), w_out=([M, V], glorot),
                                b_out=([V], zeros), **context)
        attention = self.attention
        self.variables = created + [attention.w_project, attention.w, attention.b, attention.w_att]

    # ---- the pieces, each the transcription of one equation

    def _normalize(self, training):
        """Batch normalisation of the features (N, L, D) over images and locations.

        While training, the statistics are the batch's and evaluating the result updates the moving ones.
        """
        features, norm = tf.cast(self.features, self.dtype), self.batch_norm
        if not training:
            mean, variance = norm['moving_mean'], norm['moving_variance']
        else:
            mean, variance = tf.nn.moments(features, axes=[0, 1])
            updates = [
                moving.assign_sub((moving - tf.stop_gradient(value)) * (1 - BATCH_NORM_DECAY))
                for moving, value in ((norm['moving_mean'], mean), (norm['moving_variance'], variance))
            ]
            with tf.control_dependencies(updates):
                features = tf.identity(features)
        scale = norm['gamma'] * tf.math.rsqrt(variance + BATCH_NORM_EPSILON)
        return features * scale + (norm['beta'] - mean * scale)

    def _initial_state(self, features):
        """c_0 and h_0: tanh of affine maps of the mean annotation (3.1.2). Features (N, L, D) -> LSTMState."""
        mean, initial = tf.reduce_mean(features, axis=1), self.initial
        h = tf.tanh(tf.matmul(mean, initial['w_h']) + initial['b_h'])
        c = tf.tanh(tf.matmul(mean, initial['w_c']) + initial['b_c'])
        return LSTMState(c, h)

    def _lstm_step(self, inputs, state):
        """Eq. 1 to 3 with gate order i, j, f, o and forget bias 1. Inputs (N, M+D), LSTMState -> LSTMState."""
        gates = tf.matmul(tf.concat([inputs, state.h], axis=1), self.lstm['kernel']) + self.lstm['bias']
        i, j, f, o = tf.split(gates, 4, axis=1)
        c = state.c * tf.sigmoid(f + 1.0) + tf.sigmoid(i) * tf.tanh(j)
        return LSTMState(c, tf.tanh(c) * tf.sigmoid(o))

    def step(self, memory, state, word_vectors):
        """The one decoder step of training and decoding (eq. 1 to 6 and the gate of 4.2.1).

        Args:
            memory: Memory of the images. state: LSTMState. word_vectors: (N, M), of the previous words.

        Returns:
            StepOutput.
        """
        alpha, context = self.attention.attend(memory, state.h)
        if self.selector:
            beta = tf.sigmoid(tf.matmul(state.h, self.gate['w']) + self.gate['b'])
            context *= beta
        else:
            beta = tf.ones_like(alpha[:, :1])
        state = self._lstm_step(tf.concat([word_vectors, context], axis=1), state)
        return StepOutput(state, context, alpha, beta)

    def logits(self, h, context, word_vectors, dropout=False):
        """Deep output layer, eq. 7, for any number R of rows.

        Args:
            h: (R, H). context: (R, D). word_vectors: (R, M). dropout: as while training.

        Returns:
            (R, V), unnormalised.
        """
        output = self.output
        hidden = tf.matmul(self._dropped(h, 0, dropout), output['w_h']) + output['b_h']
        if self.ctx2out:
            hidden += tf.matmul(context, output['w_ctx2out'])
        if self.prev2out:
            hidden += word_vectors
        hidden = self._dropped(tf.tanh(hidden), 1, dropout)
        return tf.matmul(hidden, output['w_out']) + output['b_out']

    def _dropped(self, x, which, dropout):
        if not dropout or not self.dropout_rate:
            return x
        seed = tf.random.experimental.stateless_fold_in(self.dropout_seed, which)
        return tf.nn.experimental.stateless_dropout(x, self.dropout_rate, seed)

    # ---- the graphs

    def build_model(self, training=True):
        """The training graph under teacher forcing.

        Args:
            training: False gives the loss without dropout and with the moving statistics of batch normalisation.

        Returns:
            Scalar loss: cross entropy summed over words, plus the regulariser, divided by N. Padding carries none.
        """
        with tf1.name_scope('training' if training else 'loss'):
            features = self._normalize(training)
            memory, state = self.attention.memory(features), self._initial_state(features)
            targets = self.captions[:, 1:]
            mask = tf.not_equal(targets, self.null)
            n_steps = tf.constant(self.T)
            if self.mask_padding:
                longest = tf.reduce_max(tf.where(mask, tf.range(1, self.T + 1)[tf.newaxis], 0))
                n_steps = tf.maximum(longest, 1)
                targets, mask = targets[:, :n_steps], mask[:, :n_steps]
            inputs = tf.transpose(self.captions[:, :-1])[:n_steps]
            word_vectors = tf.nn.embedding_lookup(self.embedding, inputs)  # (T', N, M)
            steps = self._unroll(memory, state, word_vectors, n_steps)

            # Vocabulary logits of all real words in one product, none of padding.
            real = tf.where(tf.transpose(mask))
            h, context, x = (tf.gather_nd(rows, real) for rows in (steps.state.h, steps.context, word_vectors))
            logits = self.logits(h, context, x, dropout=training)
            losses = tf.nn.sparse_softmax_cross_entropy_with_logits(tf.gather_nd(tf.transpose(targets), real), logits)

            batch = tf.cast(tf.shape(features)[0], self.dtype)
            mask = tf.cast(mask, self.dtype)
            alphas = tf.transpose(steps.alpha, [1, 0, 2])
            self.nll = tf.reduce_sum(losses) / batch
            regularizer = self._regularizer(alphas, mask) / batch
            self.loss = self.nll + regularizer if self.alpha_c > 0 else self.nll
            self.outputs = TrainingOutputs(self.nll, regularizer, tf.reduce_sum(mask), alphas,
                                           tf.transpose(steps.beta[:, :, 0]), mask)
        return self.loss

    def _unroll(self, memory, state, word_vectors, n_steps):
        """Run `step` over word_vectors (T', N, M); returns StepOutput with (T', N, ...) in every place."""
        words = tf.TensorArray(self.dtype, n_steps, element_shape=[None, self.M]).unstack(word_vectors)
        shapes = StepOutput(LSTMState(self.H, self.H), self.D, self.L, 1)
        arrays = tf.nest.map_structure(
            lambda size: tf.TensorArray(self.dtype, n_steps, element_shape=[None, size]), shapes
        )

        def body(t, state, arrays):
            result = self.step(memory, state, words.read(t))
            arrays = tf.nest.map_structure(lambda array, value: array.write(t, value), arrays, result)
            return t + 1, result.state, arrays

        _, _, arrays = tf.while_loop(lambda t, *_: t < n_steps, body, (tf.constant(0), state, arrays))
        return tf.nest.map_structure(lambda array: array.stack(), arrays)

    def _regularizer(self, alphas, mask):
        """Doubly stochastic attention (4.2.1): alpha_c sum_nl (T/L - sum_t alpha)^2 over alphas (N, T', L)."""
        if self.mask_padding:
            alphas *= mask[:, :, tf.newaxis]
        totals = tf.reduce_sum(alphas, axis=1)
        return self.alpha_c * tf.reduce_sum(tf.square(self.T / self.L - totals))

    def build_sampler(self, max_len=20):
        """The greedy decoding graph; <NULL>, <START> and <UNK> are never emitted.

        Returns:
            Sampled(alphas (N, max_len, L), betas (N, max_len), captions (N, max_len)).
        """
        with tf1.name_scope('sampler'):
            features = self._normalize(training=False)
            memory = self.attention.memory(features)
            start = tf.fill([tf.shape(features)[0]], self.start)
            decoded = decoding.greedy(self._decoding_step(memory), self._initial_state(features), start, self.end,
                                      max_len, self.never)
            alphas, betas = decoded.trace
        return Sampled(alphas, betas[:, :, 0], decoded.words)

    def _decoding_step(self, memory):
        """`step` and `logits` as the step function that core.decoding asks for."""

        def step(words, state):
            word_vectors = tf.nn.embedding_lookup(self.embedding, words)
            result = self.step(memory, state, word_vectors)
            logits = self.logits(result.state.h, result.context, word_vectors)
            return decoding.Step(tf.nn.log_softmax(logits), result.state, (result.alpha, result.beta))

        return step
