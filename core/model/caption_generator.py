"""`CaptionGenerator`: the variables, ONE decoder step, the training graph and the decoding graph.

    with tf.Graph().as_default():
        model = CaptionGenerator(word_to_idx, dim_feature=(196, 512))
        loss = model.build_model()
        alphas, betas, captions = model.build_sampler(max_len=20)

The mathematics is written out, equation by equation, in docs/model.md. Letters in shapes: N images, R captions (N, or
a multiple where images have several captions or draws), L locations, D features of a location, K numbers of an
annotation (D, unless `feature_layer` changes it), H hidden units, M numbers of a word vector, T steps, V words.
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from core.common.aliases import DType, Session, Tensor, Variable
from core.common.errors import InputError
from core.config.config import Config
from core.data.vocabulary import SPECIALS
from core.decoding.sampling import uniforms
from core.decoding.search_graphs import LOCATION_DRAWS, Searches
from core.decoding.search_loop import Decoding, Step
from core.model import hard_attention
from core.model.attention import Annotations, Attention, Memory
from core.model.cells import GRUCell, LSTMCell
from core.model.deferred_gradients import StepWeights, product, step_weights
from core.model.output_layer import Dropout, OutputLayer
from core.model.training_graph import TrainingGraph
from core.runtime.backend import cast, matmul, tf, tf1
from core.runtime.variables import Variables

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
        query: (R, A), what the hidden state asks the attention.
        weights: (R, L), of the locations in the context: alpha, or one at the drawn location.
    """

    state: Tensor
    context: Tensor
    alpha: Tensor
    beta: Tensor
    location: Tensor
    query: Tensor
    weights: Tensor


class CaptionGenerator(Searches):
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
        jit: XLA compiles the attention's large products (`core.model.attention_kernels`).
        options: every other option of `core.config.model.ModelConfig`, where each is documented; the defaults give the
            model of the TF1 code.

    Attributes:
        features: placeholder (N, L, D) float32, or the tensor given.
        inputs: what a batch's features are fed to: `features`, unless an encoder's pixels come before it.
        captions: placeholder (R, T+1) int32: <START> words <END> <NULL>... R = N, or C N with the captions of
            image n in rows n C to n C + C - 1.
        dropout_seed: (2,) int32. Fresh numbers in every run, unless fed: equal seeds give equal dropout masks,
            locations and sampled words.
        image_numbers: (N,) int32, 0 to N - 1 unless fed: what decoding draws for an image follows its number here and
            `dropout_seed`, whatever its place in the batch.
        annealed: dict of scalar placeholders with the options' values as defaults: 'temperature', with hard
            attention 'lambda_e', and 'scheduled_sampling' where that option is not 0.
        baseline: the variable of the moving baseline of hard attention (4.1), or None.
        loss, nll, outputs: after `build_model`, the scalars and the TrainingOutputs.
        before: after `build_model` in float16, dict of references (`ref()`) to the variables that a training step
            changes by itself (moving statistics and baseline) -> their values before it, for a step that is to be
            undone; else empty.

    Raises:
        ValueError: an unknown option, one out of its range, options that do not fit together, or a special word
            missing from `word_to_idx`.
    """

    # Of a model on top of its encoder alone, see `core.runs.build_model.build_model`.
    encoder_variables: list[Variable]
    encoder_saved: list[Variable]
    restore_encoder: Callable[[Session], None]

    def __init__(self, word_to_idx: Mapping[str, int], dim_feature: tuple[int, int] = (196, 512), dim_embed: int = 512,
                 dim_hidden: int = 1024, n_time_step: int = 16, prev2out: bool = True, ctx2out: bool = True,
                 alpha_c: float = 0.0, selector: bool = True, dropout: bool = True, *, features: Tensor = None,
                 dtype: DType = tf.float32, jit: bool = True, **options: Any) -> None:
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
        self.image_numbers = tf1.placeholder_with_default(tf.range(tf.shape(features)[0]), [None], 'image_numbers')
        self.graph = self.features.graph
        self.loss = self.nll = None
        self.outputs: Any = None  # TrainingOutputs, once built
        self.before: dict[Any, Tensor] = {}
        annealed = ['temperature'] + ['lambda_e'] * self.hard + ['scheduled_sampling'] * bool(
            self.options.scheduled_sampling)
        self.annealed = {name: tf1.placeholder_with_default(getattr(self.options, name), [], name=name)
                         for name in annealed}
        self._create_variables(jit)

    def _create_variables(self, jit: bool) -> None:
        """All variables; with the default options under the names of the TF1 code."""
        D, K, H, M, V, options = self.D, self.K, self.H, self.M, self.V, self.options
        variables = Variables(self.dtype, options.initializer)
        # Dicts of variables, a variable and a MovingBaseline, where the options ask for them.
        self.batch_norm: Any = None
        self.gate: Any = None
        self.feature_layer: Any = None
        self.baseline: Variable = None
        self.moving_baseline: Any = None
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
        self.attention = Attention(variables, K, H, options, tf.cast(self.annealed['temperature'], self.dtype), jit)
        if self.hard and options.baseline == 'moving':
            self.moving_baseline = hard_attention.MovingBaseline(options.reward, self.T, self.dtype)
            self.baseline = self.moving_baseline.variable
        self.variables = variables.created

    # ---- the pieces, each the transcription of one equation

    def _annotations(self, training: bool, features: Tensor = None, compute_dtype: DType = None) -> Annotations:
        """The images' Annotations (N, L, K): batch normalisation and Dense+ReLU where asked for.

        While training, the statistics over images and locations are the batch's, and evaluating the result updates
        the moving ones. They are of the model's own type, whatever that of the annotations.

        Args:
            training: bool. features: (N, L, D) to use in the place of `self.features`, or None.
            compute_dtype: of the annotations, and so of what is computed of them; None: the model's own.
        """
        features, norm = tf.cast(self.features if features is None else features, self.dtype), self.batch_norm
        compute_dtype = compute_dtype or self.dtype
        scale: Tensor = None
        shift: Tensor = None
        if norm:
            if not training:
                mean, variance = norm['moving_mean'], norm['moving_variance']
            else:
                # By image first: the first state starts from the same means, so they are computed once.
                mean = tf.reduce_mean(tf.reduce_mean(features, axis=1), axis=0)
                variance = self.attention.kernels.variance(features, mean)
                updates = [
                    moving.assign_sub((moving - tf.stop_gradient(value)) * (1 - BATCH_NORM_DECAY))
                    for moving, value in ((norm['moving_mean'], mean), (norm['moving_variance'], variance))
                ]
                with tf.control_dependencies(updates):
                    mean = tf.identity(mean)
            scale = norm['gamma'] * tf.math.rsqrt(variance + BATCH_NORM_EPSILON)
            shift = norm['beta'] - mean * scale
        features = cast(features, compute_dtype)
        if not self.feature_layer:
            return Annotations(features, scale, shift)
        w, b = tf.convert_to_tensor(self.feature_layer['w']), self.feature_layer['b']
        if norm:
            w, b = w * scale[:, tf.newaxis], b + tf.linalg.matvec(w, shift, transpose_a=True)
        # The bias is added in its own type, as its gradient is a sum over all locations.
        flat = cast(matmul(tf.reshape(features, [-1, self.D]), cast(w, compute_dtype)), self.dtype)
        flat = cast(tf.nn.relu(flat + b), compute_dtype)
        return Annotations(tf.reshape(flat, [-1, self.L, self.K]))

    def _initial_state(self, annotations: Annotations, dropout: Dropout | None = None) -> Tensor:
        """The cell's first state from the mean annotation (3.1.2). Annotations -> state of (N, H) parts."""
        options, initial = self.options, self.initial
        if options.initial_state == 'zero':
            zeros = tf.zeros([tf.shape(annotations.features)[0], self.H], self.dtype)
            return self.cell.State(*[zeros for _ in self.cell.State._fields])
        compute_dtype = annotations.features.dtype

        def affine(x: Tensor, which: int | str) -> Tensor:
            return matmul(x, cast(initial[f'w_{which}'], compute_dtype)) + initial[f'b_{which}']

        x = annotations.affine(tf.reduce_mean(cast(annotations.features, self.dtype), axis=1))
        for layer in range(1, options.initial_layers):
            x = tf.nn.relu(affine(x, layer))
            x = dropout(x, 20 + layer) if dropout else x
        activation = STATE_ACTIVATIONS[options.initial_state]
        return self.cell.State(*[activation(affine(x, part)) for part in self.cell.State._fields])

    def word_vectors(self, words: Tensor, table: Tensor = None) -> Tensor:
        """Words (...) int32 -> their vectors (..., M); with `first_word` zero, <START> stands for zeros.

        Args:
            words: int32. table: (V, M), the embedding, where it is to be read only once.
        """
        vectors = tf.nn.embedding_lookup(self.embedding if table is None else table, words)
        if self.options.first_word == 'zero':
            vectors *= tf.cast(tf.not_equal(words, self.start), self.dtype)[..., tf.newaxis]
        return vectors

    def step(self, memory: Memory, weights: StepWeights, state: Tensor, word_vectors: Tensor,
             choose: Callable[..., tuple] | None = None) -> StepOutput:
        """The one decoder step of training and decoding (eq. 1 to 6 and the gate of 4.2.1).

        Args:
            memory: Memory of the images. weights: StepWeights, see `core.model.deferred_gradients`.
            state: of the cell, (R, H). word_vectors: (R, M), of the previous words; None where their share of the
                gates is among the offsets of `weights`.
            choose: function from alpha (R, L) to (weights of the locations in the context (R, L), locations); None:
                the expected context.

        Returns:
            StepOutput.
        """
        offsets = weights.offsets
        from_state = product(state.h, weights.state) + offsets.state
        from_state, query, gate = tf.split(from_state, [self.cell.n_gates, weights.scorer.shape[0], -1], axis=1)
        alpha = self.attention.alpha(memory, query, weights.scorer, offsets.scorer, offsets.scores)
        chosen, location = choose(alpha) if choose else (alpha, ())
        context = self.attention.context(memory, chosen, offsets.context)
        beta = tf.sigmoid(gate) if self.gate else tf.ones_like(alpha[:, :1])
        if self.gate:
            context *= beta
        from_inputs = product(context, weights.context)
        if word_vectors is not None:
            from_inputs += weights.word_share(word_vectors)
        elif offsets.inputs is not None:
            from_inputs += offsets.inputs
        before = state if self.options.carry_state else tf.nest.map_structure(tf.zeros_like, state)
        after = self.cell.step(from_inputs, from_state, before)
        return StepOutput(after, context, alpha, beta, location, query, chosen)

    def decoding_choice(self, uniform: Tensor = None) -> Callable[..., tuple[Tensor, Tensor]] | None:
        """Function from (step t, alpha) to (weights in the context, locations) by `decode_context`; None: expected.

        Args:
            uniform: (n, T') in [0, 1), what decides the drawn locations of the n images; None: `location_draws` of
                all images and steps of training.
        """
        kind = self.options.decode_context
        if kind == 'argmax':
            return hard_attention.likeliest
        if kind == 'sample':
            if uniform is None:
                uniform = self.location_draws(self.T)

            def choose(t: Tensor, alpha: Tensor) -> tuple[Tensor, Tensor]:
                # The rows of an image share its number, so that a caption's score is a function of its words.
                location = hard_attention.locate(alpha, tf.repeat(uniform[:, t], tf.shape(alpha)[0] // tf.shape(uniform)[0]))
                return hard_attention.weights(alpha, location), location

            return choose
        return None

    def location_draws(self, n_steps: Tensor) -> Tensor:
        """Uniform numbers (N, n_steps) that decide drawn locations, see `core.decoding.sampling.uniforms`."""
        return uniforms(self.dropout_seed, LOCATION_DRAWS, self.image_numbers, n_steps, self.dtype)

    # ---- the graphs

    def build_model(self, training: bool = True, locations: Tensor = None, *, features: Tensor = None,
                    compute_dtype: DType = None, jit: bool | None = None) -> Tensor:
        """The training graph under teacher forcing; its gradient is the training gradient, hard attention's too.

        Args:
            training: False gives the loss without dropout, draws and word noise, with the moving statistics of batch
                normalisation, and with the context of `decode_context`.
            locations: int32 (R, T), attend to these locations instead of drawn ones (hard attention). The loss is
                then that of the words alone: one pass, without the terms of the bound.
            features: (N, L, D) of any floating type to use in the place of `self.features`, or None.
            compute_dtype: tf.bfloat16 or tf.float16 for mixed precision, in which the products with matrices and
                features are computed; variables, states, statistics, softmaxes and losses keep the model's own type.
                What is decoded is not affected. None: `dtype` throughout. With float16 see also `before`.
            jit: False: no XLA here, whatever the model was made with; True: with it; None: as the model was made.

        Returns:
            Scalar loss: cross entropy summed over words, divided by R, plus the regularisers. Padding carries none.
        """
        if jit is not None:
            self.attention.compile(jit)
        with tf1.name_scope('training' if training else 'loss'):
            self.before = self._values_before() if training and compute_dtype == tf.float16 else {}
            with tf.control_dependencies(list(self.before.values())):
                graph = TrainingGraph(self, training, locations, features, compute_dtype)
                self.loss, self.outputs = graph.build()
            self.nll = self.outputs.nll
        return self.loss

    def _values_before(self) -> dict[Any, Tensor]:
        """What `before` holds: the moving statistics and the moving baseline, read."""
        untrained = [variable for variable in self.variables if not variable.trainable]
        if self.baseline is not None:
            untrained.append(self.baseline)
        return {variable.ref(): variable.read_value() for variable in untrained}

    def decoding(self, max_len: int = 20) -> Decoding:
        """What every search of `core.decoding.search_graphs` starts from.

        Args:
            max_len: steps that can be taken.

        Returns:
            core.decoding.search_loop.Decoding; the steps' trace is (alpha (R, L), beta (R, 1)).
        """
        annotations = self._annotations(training=False)
        memory, n = self.attention.memory(annotations), tf.shape(self.features)[0]
        drawn = self.options.decode_context == 'sample'
        images = {'features': memory.features, 'projected': memory.projected}
        if drawn:
            images['uniform'] = self.location_draws(max_len)
        weights = step_weights(self, memory)

        def step(images: Tensor, words: Tensor, state: Tensor) -> Step:
            state, taken = state
            choice = self.decoding_choice(images.get('uniform'))
            choose = choice and (lambda alpha: choice(taken[0], alpha))
            here = memory._replace(features=images['features'], projected=images['projected'])
            word_vectors = self.word_vectors(words)
            result = self.step(here, weights, state, word_vectors, choose)
            logits = self.output(result.state.h, result.context, word_vectors)
            shown = tf.one_hot(result.location, self.L, dtype=self.dtype) if choice else result.alpha
            return Step(tf.nn.log_softmax(logits), (result.state, taken + 1), (shown, result.beta))

        start = tf.fill([n], self.start)
        return Decoding(step, images, (self._initial_state(annotations), tf.zeros([n], tf.int32)), start)
