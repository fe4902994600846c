"""`Decoder`: the variables, and ONE decoder step that training and decoding share (paper 3.1.2, 4).

    decoder = Decoder(word_to_idx, dim_feature=(196, 512), n_time_step=16, options=ModelConfig())
    decoder.create_variables()
    annotations = decoder.annotations(features)                  # (N, L, K), once an image
    memory = decoder.attention.memory(annotations)
    weights, state = decoder.step_weights(memory), decoder.initial_state(annotations)
    output = decoder.step(memory, weights, state, decoder.word_vectors(words))      # every word
    logits = decoder.output(output.state.h, output.context, decoder.word_vectors(words))

core/reference/equations.py computes the same as the paper writes it, in NumPy: read it first.
docs/model.md says which method is which equation. Letters in shapes: N images, R captions (N, or a
multiple where images have several captions or draws), L locations, D features of a location, K
numbers of an annotation (D, unless `feature_layer` changes it), H hidden units, M numbers of a word
vector, T steps, V words, G gate units, A hidden units of the attention.
"""

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

from core.common.aliases import DType, Tensor, Variable
from core.data.vocabulary import SPECIALS
from core.model import hard_attention
from core.model.attention import Annotations, Attention, Memory
from core.model.cells import GRUCell, LSTMCell
from core.model.output_layer import Dropout, OutputLayer
from core.runtime.backend import cast, matmul, tf
from core.runtime.custom_gradient import with_gradient
from core.runtime.variables import Variables

if TYPE_CHECKING:
    from core.config.model import ModelConfig

NEVER_EMITTED = ('<NULL>', '<START>', '<UNK>')
BATCH_NORM_EPSILON, BATCH_NORM_DECAY = 1e-3, 0.95
STATE_ACTIVATIONS = {'tanh': tf.tanh, 'relu': tf.nn.relu, 'linear': tf.identity}


class Weight(NamedTuple):
    """A matrix (I, O) that is multiplied with at every step, and its transpose (O, I) for the
    gradient, or None.

    To transpose at every step costs more than the product itself for the few rows of a batch.
    """

    matrix: Tensor
    transposed: Tensor = None


class Offsets(NamedTuple):
    """What is added to the products of one step, (R, ...), or of all, (T', R, ...).

    Attributes:
        state: (R, S) or (S,), the biases. inputs: (R, G), the words' share of the gates; None where
            the share is another's to add, or part of `state`, as the cell adds up the shares
            anyway.
        scores: (R, L). scorer: (R, A), see `attention_kernels.Kernels.scores`. context: (R, K), of
            the plain features. The last three are None where no gradient is wanted.
    """

    state: Tensor
    inputs: Tensor = None
    scores: Tensor = None
    scorer: Tensor = None
    context: Tensor = None


class StepWeights(NamedTuple):
    """Weights of the products of a step. G gate units, S = G + A + 1 (G + A without the selector).

    Attributes:
        state: Weight (H, S): the recurrent kernel, the query's and the selector's weights side by
            side.
        words: (M, G). words_bias: (G,). context: Weight (K, G).
        scorer: (A,).
        offsets: Offsets.
    """

    state: Weight
    words: Tensor
    words_bias: Tensor
    context: Weight
    scorer: Tensor
    offsets: Offsets

    def word_share(self, vectors: Tensor) -> Tensor:
        """Word vectors (..., M) -> their share of the gates (..., G)."""
        return all_rows(vectors, self.words) + self.words_bias


class StepOutput(NamedTuple):
    """One decoder step.

    Attributes:
        state: the cell's state after the step.
        context: (R, K), the attended annotation, scaled by beta.
        alpha: (R, L), attention weights.
        beta: (R, 1), the gate; ones without `selector`.
        location: (R,) int32, the drawn location of hard attention; an empty tuple with soft
            attention.
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
        variables: after `create_variables`, all of them; cell, attention, output: what they are
            for; embedding: (V, M).
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
        self.V, self.M, self.H, self.T = len(word_to_idx), options.dim_embed, options.dim_hidden, n_time_step
        self.K = options.feature_layer or self.D
        # Dicts of variables, a variable and a MovingBaseline, where the options ask for them.
        self.batch_norm: Any = None
        self.gate: Any = None
        self.feature_layer: Any = None
        self.baseline: Variable = None
        self.moving_baseline: Any = None

    def create_variables(self, temperature: Tensor = 1.0, jit: bool = True) -> None:
        """All variables; with the default options under the names of the TF1 code.

        Args:
            temperature: scalar, of the attention's softmax. jit: XLA compiles the attention's large
                products.
        """
        D, K, H, M, V, options = self.D, self.K, self.H, self.M, self.V, self.options
        variables = Variables(self.dtype, options.initializer)
        if options.batch_norm:
            self.batch_norm = variables.create('conv_featuresbatch_norm', beta=([D], 'zeros'),
                                               gamma=([D], 'ones'), moving_mean=([D], 'zeros'),
                                               moving_variance=([D], 'ones'))
        if options.feature_layer:
            self.feature_layer = variables.create('feature_layer', w=([D, K], 'matrix'),
                                                  b=([K], 'zeros'))
        self.cell = (LSTMCell(variables, M + K, H, options.forget_bias) if options.cell == 'lstm'
                     else GRUCell(variables, M + K, H))
        self.initial = {}
        if options.initial_state != 'zero':
            layers = {f'{kind}_{i}': ([K, K] if kind == 'w' else [K], 'matrix' if kind == 'w'
                                      else 'zeros') for i in range(1, options.initial_layers)
                      for kind in 'wb'}
            for part in self.cell.State._fields:
                layers |= {f'w_{part}': ([K, H], 'matrix'), f'b_{part}': ([H], 'zeros')}
            self.initial = variables.create('initial_lstm', **layers)
        self.embedding = variables.create('word_embedding', w=([V, M], 'words'))['w']
        if options.selector:
            self.gate = variables.create('selector', w=([H, 1], 'matrix'), b=([1], 'zeros'))
        self.output = OutputLayer(variables, H, K, V, options)
        self.attention = Attention(variables, K, H, options, tf.cast(temperature, self.dtype), jit)
        if self.hard and options.baseline == 'moving':
            self.moving_baseline = hard_attention.MovingBaseline(options.reward, self.T, self.dtype)
            self.baseline = self.moving_baseline.variable
        self.variables = variables.created

    def annotations(self, features: Tensor, training: bool = False,
                    compute_dtype: DType = None) -> Annotations:
        """The images' Annotations (N, L, K): batch normalisation and Dense+ReLU where asked for.

        While training, the statistics over images and locations are the batch's, and evaluating the
        result updates the moving ones. They are of the model's own type, whatever that of the
        annotations.

        Args:
            features: (N, L, D) of any floating type. training: bool.
            compute_dtype: of the annotations, and so of what is computed of them; None: the model's
                own.
        """
        features, norm = tf.cast(features, self.dtype), self.batch_norm
        compute_dtype = compute_dtype or self.dtype
        scale: Tensor = None
        shift: Tensor = None
        if norm:
            if not training:
                mean, variance = norm['moving_mean'], norm['moving_variance']
            else:
                # By image first: the first state starts from the same means, so they are computed
                # once.
                mean = tf.reduce_mean(tf.reduce_mean(features, axis=1), axis=0)
                variance = self.attention.kernels.variance(features, mean)
                updates = [
                    moving.assign_sub((moving - tf.stop_gradient(value)) * (1 - BATCH_NORM_DECAY))
                    for moving, value in ((norm['moving_mean'], mean),
                                          (norm['moving_variance'], variance))]
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

    def initial_state(self, annotations: Annotations, dropout: Dropout | None = None) -> Tensor:
        """The cell's first state from the mean annotation (3.1.2). Annotations -> state of (N, H)
        parts.
        """
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
        """Words (...) int32 -> their vectors (..., M); with `first_word` zero, <START> stands for
        zeros.

        Args:
            words: int32. table: (V, M), the embedding, where it is to be read only once.
        """
        vectors = tf.nn.embedding_lookup(self.embedding if table is None else table, words)
        if self.options.first_word == 'zero':
            vectors *= tf.cast(tf.not_equal(words, self.start), self.dtype)[..., tf.newaxis]
        return vectors

    def step_weights(self, memory: Memory) -> StepWeights:
        """The StepWeights for a Memory of the attention; matrices have the type of that."""
        cell, options = self.cell.weights(), self.options
        query, query_bias = self.attention.query_weights(memory)
        # Without a state the kernel is not used, but it has a gradient as every variable: zero.
        recurrent = cell.recurrent_kernel if options.carry_state else 0 * cell.recurrent_kernel
        state, bias = [recurrent, query], [cell.recurrent_bias, query_bias]
        if self.gate:
            state.append(self.gate['w'])
            bias.append(self.gate['b'])
        sizes = [self.M, self.K] if options.cell_input == 'word_context' else [self.K, self.M]
        words, context = tf.split(cell.kernel, sizes)
        if options.cell_input == 'context_word':
            words, context = context, words
        state, words, context = (cast(w, memory.projected.dtype)
                                 for w in (tf.concat(state, axis=1), words, context))
        return StepWeights(Weight(state), words, cell.bias, Weight(context),
                           self.attention.scorer(), Offsets(tf.concat(bias, axis=0)))

    def step(self, memory: Memory, weights: StepWeights, state: Tensor, word_vectors: Tensor,
             choose: Callable[..., tuple] | None = None) -> StepOutput:
        """The one decoder step of training and decoding (eq. 1 to 6 and the gate of 4.2.1).

        Args:
            memory: Memory of the images. weights: StepWeights, of `step_weights`.
            state: of the cell, (R, H). word_vectors: (R, M), of the previous words; None where
                their share of the gates is among the offsets of `weights`.
            choose: function from alpha (R, L) to (weights of the locations in the context (R, L),
                locations); None: the expected context.

        Returns:
            StepOutput.
        """
        offsets = weights.offsets
        from_state = product(state.h, weights.state) + offsets.state
        from_state, query, gate = tf.split(from_state,
                                           [self.cell.n_gates, weights.scorer.shape[0], -1], axis=1)
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


def all_rows(x: Tensor, w: Tensor) -> Tensor:
    """x (..., I) w (I, O) -> (..., O) as one matrix product, so that the gradient of w is one too."""
    if x.shape.rank == 2:
        return matmul(x, w)
    return tf.reshape(matmul(tf.reshape(x, [-1, w.shape[0]]), w),
                      tf.concat([tf.shape(x)[:-1], [w.shape[1]]], 0))


def product(x: Tensor, weight: Weight) -> Tensor:
    """x (R, I) times a Weight (I, O); the gradient reaches x alone."""
    def constant_product(x: Tensor, matrix: Tensor,
                         transposed: Tensor) -> tuple[Tensor, Callable[..., tuple]]:
        return matmul(x, matrix), lambda d: (matmul(d, transposed), None, None)

    return matmul(x, weight.matrix) if weight.transposed is None else with_gradient(constant_product, x, *weight)
