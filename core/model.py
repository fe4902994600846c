"""`CaptionGenerator`: the variables, ONE decoder step, the training graph and the decoding graph.

    with tf.Graph().as_default():
        model = CaptionGenerator(word_to_idx, dim_feature=(196, 512))
        loss = model.build_model()
        alphas, betas, captions = model.build_sampler(max_len=20)

The mathematics is written out, equation by equation, in docs/model.md. Letters in shapes: N images, R captions (N, or
a multiple where images have several captions or draws), L locations, D features of a location, K numbers of an
annotation (D, unless `feature_layer` changes it), H hidden units, M numbers of a word vector, T steps, V words.
"""

from typing import NamedTuple

from core import decoding, hard
from core.attention import Attention
from core.backend import tf, tf1
from core.cells import GRUCell, LSTMCell
from core.config import Config
from core.errors import InputError
from core.output import OutputLayer
from core.text import SPECIALS
from core.training import TrainingGraph
from core.variables import Variables

NEVER_EMITTED = ('<NULL>', '<START>', '<UNK>')
BATCH_NORM_EPSILON, BATCH_NORM_DECAY = 1e-3, 0.95
STATE_ACTIVATIONS = {'tanh': tf.tanh, 'relu': tf.nn.relu, 'linear': tf.identity}


class StepOutput(NamedTuple):
    """One decoder step.

    Attributes:
        state: the cell's state after the step.
        context: (R, K), the attended annotation, scaled by beta.
        alpha: (R, L), attention weights.
        beta: (R, 1), the gate; ones without `selector`.
        location: (R,) int32, the drawn location of hard attention; an empty tuple with soft attention.
    """

    state: object
    context: object
    alpha: object
    beta: object
    location: object


class Sampled(NamedTuple):
    """What `build_sampler` returns.

    Attributes:
        alphas: (N, max_len, L) float, attention weights; one at the location and zero elsewhere where
            `decode_context` takes one location.
        betas: (N, max_len) float, gates.
        captions: (N, max_len) int32, word indices; <END> repeats after the caption's end, and so do its last alpha
            and beta.
    """

    alphas: object
    betas: object
    captions: object


class CaptionGenerator:
    """Caption generator with soft or hard attention (Xu et al. 2015, arXiv 1502.03044) over convolutional features.

    Args:
        word_to_idx: dict of word -> index, 0 to V-1, with '<NULL>', '<START>', '<END>' (and usually '<UNK>').
        dim_feature: (L, D), locations and features of a location.
        dim_embed: M. dim_hidden: H.
        n_time_step: T, words of a training caption at most, <END> included.
        prev2out, ctx2out: the previous word and the context feed the output layer (eq. 7).
        alpha_c: weight of the doubly stochastic regulariser (4.2.1).
        selector: the gate beta scales the context (4.2.1).
        dropout: dropout while training.
        features: float32 tensor (N, L, D) to use in the place of the placeholder, for an encoder in the same graph.
        dtype: of variables and computation.
        options: every other option of `core.config.ModelConfig`, where each is documented; the defaults give the
            model of the TF1 code.

    Attributes:
        features: placeholder (N, L, D) float32, or the tensor given.
        inputs: what a batch's features are fed to: `features`, unless an encoder's pixels come before it.
        captions: placeholder (R, T+1) int32: <START> words <END> <NULL>... R = N, or C N with the captions of
            image n in rows n C to n C + C - 1.
        dropout_seed: (2,) int32. Fresh numbers in every run, unless fed: equal seeds give equal dropout masks,
            locations and sampled words.
        annealed: dict of scalar placeholders with the options' values as defaults: 'temperature', with hard
            attention 'lambda_e', and 'scheduled_sampling' where that option is not 0.
        baseline: the variable of the moving baseline of hard attention (4.1), or None.
        loss, nll, outputs: after `build_model`, the scalars and the TrainingOutputs.

    Raises:
        ValueError: an unknown option, one out of its range, options that do not fit together, or a special word
            missing from `word_to_idx`.
    """

    def __init__(self, word_to_idx, dim_feature=(196, 512), dim_embed=512, dim_hidden=1024, n_time_step=16,
                 prev2out=True, ctx2out=True, alpha_c=0.0, selector=True, dropout=True, *, features=None,
                 dtype=tf.float32, **options):
        options |= {'dim_embed': dim_embed, 'dim_hidden': dim_hidden, 'prev2out': prev2out, 'ctx2out': ctx2out,
                    'alpha_c': alpha_c, 'selector': selector, 'dropout': dropout}
        try:
            self.options = Config.from_dict({'model': options}, where='CaptionGenerator').model
        except InputError as error:
            raise ValueError(str(error)) from None
        for word in SPECIALS[:3]:
            if word not in word_to_idx:
                raise ValueError(f'word_to_idx lacks the special word {word}')
        if sorted(word_to_idx.values()) != list(range(len(word_to_idx))):
            raise ValueError(f'word_to_idx must number its {len(word_to_idx)} words from 0 without gaps')
        if self.options.word_dropout and '<UNK>' not in word_to_idx:
            raise ValueError('word_dropout puts <UNK> in the place of words; word_to_idx lacks it')
        for name, value in (('dim_feature', min(dim_feature)), ('n_time_step', n_time_step)):
            if value < 1:
                raise ValueError(f'{name} must be at least 1, not {value}')
        self.word_to_idx = dict(word_to_idx)
        self.idx_to_word = {index: word for word, index in word_to_idx.items()}
        self.null, self.start, self.end = (word_to_idx[word] for word in SPECIALS[:3])
        self.never = [word_to_idx[word] for word in NEVER_EMITTED if word in word_to_idx]
        self.L, self.D = dim_feature
        self.V, self.M, self.H, self.T = len(word_to_idx), dim_embed, dim_hidden, n_time_step
        self.K = self.options.feature_layer or self.D
        self.hard, self.dtype = self.options.attention == 'hard', dtype
        if features is None:
            features = tf1.placeholder(tf.float32, [None, self.L, self.D], name='features')
        self.features = self.inputs = features
        self.captions = tf1.placeholder(tf.int32, [None, self.T + 1], name='captions')
        fresh = tf1.random.uniform([2], maxval=2**31 - 1, dtype=tf.int32)
        self.dropout_seed = tf1.placeholder_with_default(fresh, [2], name='dropout_seed')
        self.graph = self.features.graph
        self.loss = self.nll = self.outputs = None
        annealed = ['temperature'] + ['lambda_e'] * self.hard + ['scheduled_sampling'] * bool(
            self.options.scheduled_sampling)
        self.annealed = {name: tf1.placeholder_with_default(getattr(self.options, name), [], name=name)
                         for name in annealed}
        self._create_variables()

    def _create_variables(self):
        """All variables; with the default options under the names of the TF1 code."""
        D, K, H, M, V, options = self.D, self.K, self.H, self.M, self.V, self.options
        variables = Variables(self.dtype, options.initializer)
        self.batch_norm = self.gate = self.feature_layer = self.baseline = self.moving_baseline = None
        if options.batch_norm:
            self.batch_norm = variables.create('conv_featuresbatch_norm', beta=([D], 'zeros'), gamma=([D], 'ones'),
                                               moving_mean=([D], 'zeros'), moving_variance=([D], 'ones'))
        if options.feature_layer:
            self.feature_layer = variables.create('feature_layer', w=([D, K], 'matrix'), b=([K], 'zeros'))
        self.cell = (LSTMCell(variables, M + K, H, options.forget_bias) if options.cell == 'lstm' else
                     GRUCell(variables, M + K, H))
        self.initial = {}
        if options.initial_state != 'zero':
            layers = {f'{kind}_{i}': ([K, K] if kind == 'w' else [K], 'matrix' if kind == 'w' else 'zeros')
                      for i in range(1, options.initial_layers) for kind in 'wb'}
            for part in self.cell.State._fields:
                layers |= {f'w_{part}': ([K, H], 'matrix'), f'b_{part}': ([H], 'zeros')}
            self.initial = variables.create('initial_lstm', **layers)
        self.embedding = variables.create('word_embedding', w=([V, M], 'words'))['w']
        if options.selector:
            self.gate = variables.create('selector', w=([H, 1], 'matrix'), b=([1], 'zeros'))
        self.output = OutputLayer(variables, H, K, V, options)
        self.attention = Attention(variables, K, H, options, tf.cast(self.annealed['temperature'], self.dtype))
        if self.hard and options.baseline == 'moving':
            self.moving_baseline = hard.MovingBaseline(options.reward, self.T, self.dtype)
            self.baseline = self.moving_baseline.variable
        self.variables = variables.created

    # ---- the pieces, each the transcription of one equation

    def _annotations(self, training):
        """Features (N, L, D) -> annotation vectors (N, L, K): batch normalisation and Dense+ReLU where asked for.

        While training, the statistics over images and locations are the batch's, and evaluating the result updates
        the moving ones.
        """
        features, norm = tf.cast(self.features, self.dtype), self.batch_norm
        if norm:
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
            features = features * scale + (norm['beta'] - mean * scale)
        if self.feature_layer:
            flat = tf.matmul(tf.reshape(features, [-1, self.D]), self.feature_layer['w']) + self.feature_layer['b']
            features = tf.reshape(tf.nn.relu(flat), [-1, self.L, self.K])
        return features

    def _initial_state(self, annotations, dropout=None):
        """The cell's first state from the mean annotation (3.1.2). Annotations (N, L, K) -> state of (N, H) parts."""
        options, initial, x = self.options, self.initial, tf.reduce_mean(annotations, axis=1)
        if options.initial_state == 'zero':
            zeros = tf.zeros([tf.shape(annotations)[0], self.H], self.dtype)
            return self.cell.State(*[zeros for _ in self.cell.State._fields])
        for layer in range(1, options.initial_layers):
            x = tf.nn.relu(tf.matmul(x, initial[f'w_{layer}']) + initial[f'b_{layer}'])
            x = dropout(x, 20 + layer) if dropout else x
        activation = STATE_ACTIVATIONS[options.initial_state]
        return self.cell.State(*[activation(tf.matmul(x, initial[f'w_{part}']) + initial[f'b_{part}'])
                                 for part in self.cell.State._fields])

    def _word_vectors(self, words):
        """Words (...) int32 -> their vectors (..., M); with `first_word` zero, <START> stands for zeros."""
        vectors = tf.nn.embedding_lookup(self.embedding, words)
        if self.options.first_word == 'zero':
            vectors *= tf.cast(tf.not_equal(words, self.start), self.dtype)[..., tf.newaxis]
        return vectors

    def step(self, memory, state, word_vectors, choose=None):
        """The one decoder step of training and decoding (eq. 1 to 6 and the gate of 4.2.1).

        Args:
            memory: Memory of the images. state: of the cell, (R, H). word_vectors: (R, M), of the previous words.
            choose: function from alpha (R, L) to (weights of the locations in the context (R, L), locations); None:
                the expected context.

        Returns:
            StepOutput.
        """
        alpha = self.attention.alpha(memory, state.h)
        weights, location = choose(alpha) if choose else (alpha, ())
        context = self.attention.context(memory, weights)
        if self.gate:
            beta = tf.sigmoid(tf.matmul(state.h, self.gate['w']) + self.gate['b'])
            context *= beta
        else:
            beta = tf.ones_like(alpha[:, :1])
        order = [word_vectors, context] if self.options.cell_input == 'word_context' else [context, word_vectors]
        before = state if self.options.carry_state else tf.nest.map_structure(tf.zeros_like, state)
        return StepOutput(self.cell.step(tf.concat(order, axis=1), before), context, alpha, beta, location)

    def step_sizes(self, located):
        """The sizes of what `step` gives for a row, as a StepOutput of ints; 0 stands for one whole number."""
        return StepOutput(self.cell.State(*[self.H for _ in self.cell.State._fields]), self.K, self.L, 1,
                          0 if located else ())

    def decoding_choice(self):
        """Function from (step t, alpha) to (weights in the context, locations) by `decode_context`; None: expected.

        Drawn locations follow `dropout_seed`.
        """
        kind = self.options.decode_context
        if kind == 'argmax':
            return hard.likeliest
        if kind == 'sample':
            fold_in = tf.random.experimental.stateless_fold_in

            def choose(t, alpha):
                seed = fold_in(fold_in(self.dropout_seed, 103), t)
                uniform = tf.random.stateless_uniform(tf.shape(alpha)[:1], seed, dtype=alpha.dtype)
                location = hard.locate(alpha, uniform)
                return hard.weights(alpha, location), location

            return choose
        return None

    # ---- the graphs

    def build_model(self, training=True, locations=None):
        """The training graph under teacher forcing; its gradient is the training gradient, hard attention's too.

        Args:
            training: False gives the loss without dropout, draws and word noise, with the moving statistics of batch
                normalisation, and with the context of `decode_context`.
            locations: int32 (R, T), attend to these locations instead of drawn ones (hard attention). The loss is
                then that of the words alone: one pass, without the terms of the bound.

        Returns:
            Scalar loss: cross entropy summed over words, divided by R, plus the regularisers. Padding carries none.
        """
        with tf1.name_scope('training' if training else 'loss'):
            self.loss, self.outputs = TrainingGraph(self, training, locations).build()
            self.nll = self.outputs.nll
        return self.loss

    def build_sampler(self, max_len=20):
        """The greedy decoding graph; <NULL>, <START> and <UNK> are never emitted.

        Returns:
            Sampled(alphas (N, max_len, L), betas (N, max_len), captions (N, max_len)).
        """
        with tf1.name_scope('sampler'):
            step, state, start = self.decoding()
            decoded = decoding.greedy(step, state, start, self.end, max_len, self.never)
            alphas, betas = decoded.trace
        return Sampled(alphas, betas[:, :, 0], decoded.words)

    def decoding(self):
        """What every search of core.decoding starts from.

        Returns:
            (step function, state before the first word, first words (N,)); the steps' trace is (alpha (N, L), beta
            (N, 1)). The step function takes rows in multiples of the images, as `step` does.
        """
        annotations = self._annotations(training=False)
        memory, choice, n = self.attention.memory(annotations), self.decoding_choice(), tf.shape(annotations)[0]

        def step(words, state):
            state, taken = state
            # Rows of captions that have ended stand still: the step's number is the largest.
            choose = choice and (lambda alpha: choice(tf.reduce_max(taken), alpha))
            word_vectors = self._word_vectors(words)
            result = self.step(memory, state, word_vectors, choose)
            logits = self.output(result.state.h, result.context, word_vectors)
            shown = tf.one_hot(result.location, self.L, dtype=self.dtype) if choice else result.alpha
            return decoding.Step(tf.nn.log_softmax(logits), (result.state, taken + 1), (shown, result.beta))

        return step, (self._initial_state(annotations), tf.zeros([n], tf.int32)), tf.fill([n], self.start)
