"""`Decoder`: the variables, and ONE decoder step that training and decoding share (paper 3.1.2, 4).

    decoder = Decoder(word_to_idx, dim_feature=(196, 512), n_time_step=16, options=ModelConfig())
    decoder.create_variables()
    annotations = decoder.annotations(features)                         # once an image
    functions = decoder.step_functions(annotations)
    state = decoder.initial_state(annotations)
    state, step = decoder.step(functions, state, functions.from_words(words))    # every word
    logits = decoder.output(step.h, step.context, decoder.word_vectors(words))

core/reference/equations.py computes the same as the paper writes it, in NumPy: read it first.
docs/model.md says which method is which equation.

Letters in shapes: N images, R rows: captions, draws or hypotheses (N, or a multiple where an image
has several; row r belongs to image r // (R / N)), L locations, D features of a location, K numbers
of an annotation (D, unless `feature_layer` changes it), H hidden units, M numbers of a word vector,
T steps, V words, G gate units, A hidden units of the attention, S = G + A + 1 units that the hidden
state feeds (H more with `sentinel`, 1 less without `selector`).
"""

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

from core.common.aliases import DType, Tensor, Variable
from core.data.vocabulary import SPECIALS
from core.model import attention_kernels, hard_attention
from core.model.attention import Annotations, Attention, Projected, Sentinel
from core.model.attention_kernels import Scores, WeightedSum, compiled
from core.model.cells import CellWeights, GRUCell, LSTMCell
from core.model.deferred_gradients import Product, StepFunction, WordProduct, look_up
from core.model.hard_attention import ContextWeights
from core.model.output_layer import Dropout, OutputLayer
from core.runtime.backend import cast, matmul, tf
from core.runtime.random_streams import RandomStream
from core.runtime.variables import Variables

if TYPE_CHECKING:
    from core.config.model import ModelConfig

NEVER_EMITTED = ('<NULL>', '<START>', '<UNK>')
BATCH_NORM_EPSILON, BATCH_NORM_DECAY = 1e-3, 0.95
STATE_ACTIVATIONS = {'tanh': tf.tanh, 'relu': tf.nn.relu, 'linear': tf.identity}


class StepFunctions(NamedTuple):
    """All that `Decoder.step` computes with constants.

    Attributes:
        from_words: WordProduct, words (R,) -> what they give the gates (R, G), and with `sentinel`
            its gate (R, G + H).
        from_h: Product, h (R, H) -> (R, S): what it gives the gates, the query, and beta or the
            sentinel.
        scores: Scores, query (R, A) -> (R, L).
        weighted_sum: WeightedSum, weights of the locations (R, L) -> (R, K).
        from_context: Product, context (R, K) -> what it gives the gates (R, G), with their bias.
        annotations: Annotations of the images.
        offset: (A,), what p of the scores lacks and the query has instead (batch normalisation), or
            None.
        others: dict of name -> StepFunction, what an extension of the step needs besides; of
            weights, as decoding takes images away from the others alone.
    """

    from_words: WordProduct
    from_h: Product
    scores: Scores
    weighted_sum: WeightedSum
    from_context: Product
    annotations: Annotations
    offset: Tensor
    others: dict[str, StepFunction]

    def replaced(self, replace: Callable[[StepFunction], Any]) -> 'StepFunctions':
        """Return the same with `replace(function)` for each function."""
        fields: dict[str, Any] = {
            name: replace(function) for name, function in self._asdict().items()
            if name not in ('annotations', 'offset', 'others')}
        others = {name: replace(function) for name, function in self.others.items()}
        return self._replace(**fields, others=others)

    def projected(self) -> Tensor:
        """Return p of eq. 4 (N, L, A), whole, of the model's own type: for terms of one's own."""
        p = cast(self.scores.constants[0], self.scores.dtype)
        return p if self.offset is None else p + self.offset

    def annotation_vectors(self) -> Tensor:
        """Return the a_i (N, L, K), normalised, of the model's own type: for terms of one's own."""
        return self.annotations.affine(
            cast(self.weighted_sum.constants[0], self.weighted_sum.dtype))

    @property
    def images(self) -> tuple[Tensor, Tensor]:
        """What is of the images here: p without offset (N, L, A), features (N, L, K)."""
        return self.scores.constants[0], self.weighted_sum.constants[0]

    def of_images(self, images: tuple[Tensor, Tensor]) -> 'StepFunctions':
        """Return the same functions of other images, or of fewer: a tuple such as `images`."""
        projected, features = images
        return self._replace(scores=self.scores.of_images(projected),
                             weighted_sum=self.weighted_sum.of_images(features),
                             annotations=self.annotations._replace(features=features))


class Step(NamedTuple):
    """What one step gives, and what a loop over the steps keeps of it.

    Attributes:
        h: (R, H), the hidden state after the step.
        context: (R, K), z_t: the annotations summed and scaled by beta, or mixed with the sentinel.
        alpha: (R, L), attention weights.
        beta: (R, 1), the gate, or 1 minus the sentinel's weight; ones without either.
        weights: (R, L), of the locations in the context: alpha, or one at a single location.
        location: (R,) int32, the location of hard attention, drawn also where semi-sampling has
            alpha take its place; an empty tuple with the expected context.
    """

    h: Tensor
    context: Tensor
    alpha: Tensor
    beta: Tensor
    weights: Tensor
    location: Tensor


class Decoder:
    """The variables of a caption generator, and what is computed of them.

    Args:
        word_to_idx: dict of word -> index, 0 to V-1, with '<NULL>', '<START>', '<END>' (and usually
            '<UNK>').
        dim_feature: (L, D). n_time_step: T.
        options: ModelConfig.
        dtype: of variables and computation.

    Attributes:
        word_to_idx, idx_to_word: dicts. null, start, end, unknown: numbers of the special words,
            the last None where there is none. never: list of the numbers of words that are never
            written.
        L, D, K, H, M, T, V: the sizes. hard: whether the attention is hard.
        variables: after `create_variables`, all of them but the baseline; cell, attention, output:
            what they are for; embedding: (V, M).
        baseline: the variable of the moving baseline of hard attention (4.1), or None.

    Raises:
        ValueError: options that do not fit together, or a special word missing from `word_to_idx`.
    """

    cell: LSTMCell | GRUCell
    attention: Attention
    output: OutputLayer
    embedding: Variable
    variables: list[Variable]

    def __init__(self, word_to_idx: Mapping[str, int], dim_feature: tuple[int, int],
                 n_time_step: int, options: 'ModelConfig', dtype: DType = tf.float32) -> None:
        for word in SPECIALS[:3]:
            if word not in word_to_idx:
                raise ValueError(f'word_to_idx lacks the special word {word}')
        if sorted(word_to_idx.values()) != list(range(len(word_to_idx))):
            raise ValueError(f'word_to_idx must number its {len(word_to_idx)} words from 0 without '
                             'gaps')
        if options.word_dropout and '<UNK>' not in word_to_idx:
            raise ValueError('word_dropout puts <UNK> in the place of words; word_to_idx lacks it')
        for name, value in (('dim_feature', min(dim_feature)), ('n_time_step', n_time_step)):
            if value < 1:
                raise ValueError(f'{name} must be at least 1, not {value}')
        self.options, self.dtype, self.hard = options, dtype, options.attention == 'hard'
        self.word_to_idx = dict(word_to_idx)
        self.idx_to_word = {index: word for word, index in word_to_idx.items()}
        self.null, self.start, self.end = (word_to_idx[word] for word in SPECIALS[:3])
        self.unknown = word_to_idx.get('<UNK>')
        self.never = [word_to_idx[word] for word in NEVER_EMITTED if word in word_to_idx]
        self.L, self.D = dim_feature
        self.V, self.T = len(word_to_idx), n_time_step
        self.M, self.H = options.dim_embed, options.dim_hidden
        self.K = options.feature_layer or self.D
        # Dicts of variables, a variable and a MovingBaseline, where the options ask for them.
        self.batch_norm: Any = None
        self.gate: Any = None
        self.feature_layer: Any = None
        self.baseline: Variable = None
        self.moving_baseline: Any = None
        self.sentinel: Sentinel | None = None

    def create_variables(self, temperature: Tensor = 1.0) -> None:
        """Create all variables; with the default options under the names of the TF1 code.

        Args:
            temperature: scalar, of the attention's softmax.
        """
        D, K, H, M, V, options = self.D, self.K, self.H, self.M, self.V, self.options
        variables = Variables(self.dtype, options.initializer)
        if options.batch_norm:
            self.batch_norm = variables.create(
                'conv_featuresbatch_norm', beta=([D], 'zeros'), gamma=([D], 'ones'),
                moving_mean=([D], 'zeros'), moving_variance=([D], 'ones'))
        if options.feature_layer:
            self.feature_layer = variables.create('feature_layer', w=([D, K], 'matrix'),
                                                  b=([K], 'zeros'))
        self.cell = (LSTMCell(variables, M + K, H, options.forget_bias)
                     if options.cell == 'lstm' else GRUCell(variables, M + K, H))
        self.initial = {}
        if options.initial_state != 'zero':
            layers: dict[str, Any] = {}
            for layer in range(1, options.initial_layers):
                layers |= {f'w_{layer}': ([K, K], 'matrix'), f'b_{layer}': ([K], 'zeros')}
            for part in self.cell.State._fields:
                layers |= {f'w_{part}': ([K, H], 'matrix'), f'b_{part}': ([H], 'zeros')}
            self.initial = variables.create('initial_lstm', **layers)
        self.embedding = variables.create('word_embedding', w=([V, M], 'words'))['w']
        if options.selector:
            self.gate = variables.create('selector', w=([H, 1], 'matrix'), b=([1], 'zeros'))
        self.output = OutputLayer(variables, H, K, V, options)
        self.attention = Attention(variables, K, H, options, tf.cast(temperature, self.dtype))
        if options.sentinel:
            self.sentinel = Sentinel(variables, M, H, K, self.attention)
        if self.hard and options.baseline == 'moving':
            self.moving_baseline = hard_attention.MovingBaseline(options.reward, self.T, self.dtype)
            self.baseline = self.moving_baseline.variable
        self.variables = variables.created

    # ---- once an image

    def annotations(self, features: Tensor, training: bool = False, compute_dtype: DType = None,
                    jit: bool = False) -> Annotations:
        """Return the images' Annotations: batch normalisation and Dense+ReLU where asked for.

        While training, the statistics over images and locations are the batch's, and evaluating the
        result updates the moving ones. They are of the model's own type, whatever that of the
        annotations.

        Args:
            features: (N, L, D) of any floating type. training: bool.
            compute_dtype: of the annotations, and so of what is computed of them; None: the model's
                own.
            jit: XLA compiles the variance of the features.
        """
        features = tf.cast(features, self.dtype)                                    # (N, L, D)
        scale, shift = self._normalisation(features, training, jit)                 # (D,) each
        features = cast(features, compute_dtype or self.dtype)
        if not self.feature_layer:
            return Annotations(features, scale, shift)
        w, b = tf.convert_to_tensor(self.feature_layer['w']), self.feature_layer['b']
        if scale is not None:  # (a * scale + shift) w + b, without a normalised (N, L, D) tensor
            w, b = w * scale[:, tf.newaxis], b + tf.linalg.matvec(w, shift, transpose_a=True)
        flat = matmul(tf.reshape(features, [-1, self.D]), cast(w, features.dtype))  # (N L, K)
        # The bias is added in its own type, as its gradient is a sum over all locations.
        flat = tf.nn.relu(cast(flat, self.dtype) + b)                               # (N L, K)
        flat = cast(flat, features.dtype)
        return Annotations(tf.reshape(flat, [-1, features.shape[1], self.K]))

    def _normalisation(self, features: Tensor, training: bool,
                       jit: bool) -> tuple[Tensor, Tensor]:
        """Return scale and shift (D,) of the batch normalisation, or None twice without it."""
        v = self.batch_norm
        if not v:
            return None, None
        if not training:
            mean, variance = v['moving_mean'], v['moving_variance']
        else:
            # By image first: the first state starts from the same means, so they are shared.
            mean = tf.reduce_mean(tf.reduce_mean(features, axis=1), axis=0)         # (D,)
            variance = compiled(attention_kernels.variance, jit)(features, mean)    # (D,)
            updates = [
                moving.assign_sub((moving - tf.stop_gradient(batch)) * (1 - BATCH_NORM_DECAY))
                for moving, batch in ((v['moving_mean'], mean), (v['moving_variance'], variance))]
            with tf.control_dependencies(updates):
                mean = tf.identity(mean)
        scale = v['gamma'] * tf.math.rsqrt(variance + BATCH_NORM_EPSILON)           # (D,)
        return scale, v['beta'] - mean * scale                                      # (D,) each

    def initial_state(self, annotations: Annotations, dropout: Dropout | None = None) -> Tensor:
        """Compute the cell's first state, of (N, H) parts, from the mean annotation (3.1.2).

        Args:
            annotations: Annotations. dropout: Dropout, of the extra layers while training.
        """
        options, v = self.options, self.initial
        if options.initial_state == 'zero':
            zeros = tf.zeros([tf.shape(annotations.features)[0], self.H], self.dtype)
            return self.cell.State(*[zeros for _ in self.cell.State._fields])

        def affine(x: Tensor, name: int | str) -> Tensor:
            return matmul(x, cast(v[f'w_{name}'], annotations.features.dtype)) + v[f'b_{name}']

        mean = tf.reduce_mean(cast(annotations.features, self.dtype), axis=1)       # (N, K)
        x = annotations.affine(mean)                                                # (N, K)
        for layer in range(1, options.initial_layers):
            x = tf.nn.relu(affine(x, layer))                                        # (N, K)
            x = dropout(x, RandomStream.INITIAL_LAYERS + layer) if dropout else x
        # 3.1.2: c_0 = f_init,c(mean of a_i), h_0 = f_init,h(mean of a_i)
        activation = STATE_ACTIVATIONS[options.initial_state]
        return self.cell.State(*[activation(affine(x, part)) for part in self.cell.State._fields])

    def step_functions(self, annotations: Annotations, jit: bool = False,
                       least: int = 0) -> StepFunctions:
        """Return the StepFunctions of images; products have the type of the annotations.

        Args:
            annotations: Annotations. jit, least: see `attention_kernels.Scores`.
        """
        cell, dtype = self.cell.weights(), annotations.features.dtype
        projected = self.attention.project(annotations)         # p (N, L, A), its offset (A,)
        if self.options.cell_input == 'word_context':
            of_word, of_context = tf.split(cell.kernel, [self.M, self.K])           # (M, G), (K, G)
        else:
            of_context, of_word = tf.split(cell.kernel, [self.K, self.M])
        others: dict[str, StepFunction] = {}
        if self.sentinel:
            of_word = tf.concat([of_word, self.sentinel.w_x], axis=1)               # (M, G + H)
            w, b = self.sentinel.weights(projected)                                 # (H, A + K)
            others['sentinel'] = Product(cast(w, dtype), b)
        return StepFunctions(
            from_words=WordProduct(tf.convert_to_tensor(self.embedding), cast(of_word, dtype),
                            self._zero_word()),
            from_h=self._from_h(cell, projected, dtype),
            scores=Scores(projected.annotations, self.attention.w_att(),
                          self.attention.activation, jit, least),
            weighted_sum=WeightedSum(annotations.features, self.dtype, jit, least),
            from_context=Product(cast(of_context, dtype), cell.bias),
            annotations=annotations, offset=projected.offset, others=others)

    def _from_h(self, cell: CellWeights, projected: Projected, dtype: DType) -> Product:
        """Return the one product of all that h is multiplied with, (R, H) -> (R, S)."""
        query, query_bias = self.attention.query_weights(projected)                 # (H, A), (A,)
        # Without a state the kernel is not used, but it has a gradient as every variable: zero.
        recurrent = (cell.recurrent_kernel if self.options.carry_state
                     else 0 * cell.recurrent_kernel)                                # (H, G)
        matrices, biases = [recurrent, query], [cell.recurrent_bias, query_bias]
        if self.gate:
            matrices.append(self.gate['w'])                                         # (H, 1)
            biases.append(self.gate['b'])
        if self.sentinel:
            matrices.append(self.sentinel.w_h)                                      # (H, H)
            biases.append(tf.zeros([self.H], self.dtype))
        return Product(cast(tf.concat(matrices, axis=1), dtype), tf.concat(biases, axis=0))

    def _split(self, from_h: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Take from_h (R, S) apart: for the gates (R, G), query (R, A), and what is left."""
        return tf.split(from_h, [self.cell.n_gates, self.attention.size, -1], axis=1)

    # ---- every word

    def step(self, functions: StepFunctions, state: Tensor, from_words: Tensor, t: Tensor = 0,
             context_weights: ContextWeights = hard_attention.expected) -> tuple[Tensor, Step]:
        """Take the one step of training and decoding: eq. 1 to 6, 8, 9, 13 and the gate of 4.2.1.

        Args:
            functions: StepFunctions of the images, of `step_functions`.
            state: of the cell, parts (R, H).
            from_words: (R, G), what the previous words give the gates: `functions.from_words`;
                with `sentinel` (R, G + H), the sentinel's gate behind them.
            t: scalar, the step. context_weights: ContextWeights; soft attention: `expected`.

        Returns:
            (the cell's state after the step, Step).
        """
        # All that h_{t-1} is multiplied with is one product, and is taken apart behind it.
        # `rest` is the input of beta, or W_h h of the sentinel, or nothing.
        from_h, query, rest = self._split(functions.from_h(state.h))        # (R, G), (R, A), (R, .)
        # Eq. 4: e_ti = f_att(a_i, h_{t-1});  eq. 5: alpha_t = softmax(e_t)
        scores = functions.scores(query)                                            # (R, L)
        alpha = self.attention.alpha(scores)                                        # (R, L)
        # Eq. 13 (soft): z_t = sum_i alpha_ti a_i;  eq. 8, 9 (hard): z_t = a_s, s ~ alpha_t
        weights, location = context_weights(t, alpha)                               # (R, L), (R,)
        context = functions.annotations.affine(functions.weighted_sum(weights))     # (R, K)
        beta = tf.ones_like(alpha[:, :1])                                           # (R, 1)
        if self.gate:
            # 4.2.1: beta_t = sigmoid(f_beta(h_{t-1})) scales z_t
            beta = tf.sigmoid(rest)                                                 # (R, 1)
            context *= beta
        if self.sentinel:
            # Lu et al. 2017: z_t = beta_t z_t + (1 - beta_t) of the sentinel
            from_words, of_word = tf.split(from_words, [self.cell.n_gates, -1], axis=1)
            vector = self.sentinel.vector(of_word + rest, state.c)                  # (R, H)
            context, beta = self.sentinel.mix(functions.others['sentinel'](vector), query, scores,
                                              context)                              # (R, K), (R, 1)
        # Eq. 1 to 3: the cell on [E y_{t-1}, z_t, h_{t-1}]
        before = state if self.options.carry_state else tf.nest.map_structure(tf.zeros_like, state)
        state = self.cell.step(from_words + functions.from_context(context), from_h, before)
        return state, Step(state.h, context, alpha, beta, weights, location)

    def word_vectors(self, words: Tensor) -> Tensor:
        """Return E y: words (...) int32 -> (..., M); with `first_word` zero, zeros for <START>."""
        return look_up(self.embedding, words, self._zero_word())

    def _zero_word(self) -> int | None:
        return self.start if self.options.first_word == 'zero' else None
