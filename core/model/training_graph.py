"""The training graph: teacher forcing of a Decoder, its loss, hard attention's bound (4.1).

Used through `CaptionGenerator.build_model`. With `self_critical` captions are drawn, not given.

Letters in shapes as in core/model/decoder.py; a row is a caption, or with hard attention one of the
`n_samples` draws of a caption. R rows, T' steps that are taken, P real words of all captions.
"""

from collections.abc import Callable
from typing import NamedTuple

from core.common.aliases import DType, Tensor
from core.decoding.self_critical import SelfCritic
from core.decoding.word_rules import mask_words
from core.model import hard_attention
from core.model.decoder import Decoder, Step, StepFunctions
from core.model.deferred_gradients import DeferredGradients, PlainGradients
from core.model.hard_attention import ContextWeights, Draws
from core.model.output_layer import Dropout
from core.runtime.backend import tf
from core.runtime.random_streams import RandomStream


class TrainingInputs(NamedTuple):
    """What a training graph reads.

    Attributes:
        features: (N, L, D) of any floating type.
        captions: int32 (R, T+1), or where they are drawn for (R / n_samples, T+1).
        dropout_seed: (2,) int32, which all masks and draws follow.
        annealed: dict of scalars by the names of the options that change while training.
    """

    features: Tensor
    captions: Tensor
    dropout_seed: Tensor
    annealed: dict[str, Tensor]


class TrainingOutputs(NamedTuple):
    """What `build_model` computed, beside the loss.

    T' is the longest caption of the batch (T without `mask_padding`).

    Attributes:
        nll: scalar, cross entropy summed over words, divided by R, without any regulariser.
        regularizer: scalar, the doubly stochastic term, `alpha_c` included.
        n_words: scalar, words (with <END>) of the captions, each counted once however often it is
            drawn for.
        alphas: (R, T', L), attention weights.
        betas: (R, T'), gates.
        mask: (R, T') 1 where a word carries loss, else 0.
        entropy: scalar, mean entropy of alpha over the words, in nats.
        locations: (R, T') int32, those looked at; an empty tuple with the expected context.
        log_probs: (R, T') log-probability of each target word, 0 at padding.
        reward: scalar, what the drawn captions earn in the mean; an empty tuple where none are
            drawn.
    """

    nll: Tensor
    regularizer: Tensor
    n_words: Tensor
    alphas: Tensor
    betas: Tensor
    mask: Tensor
    entropy: Tensor
    locations: Tensor
    log_probs: Tensor
    reward: Tensor


class CaptionBatch(NamedTuple):
    """The captions of a batch, as the steps take them.

    Attributes:
        n_steps: scalar, T'.
        n_rows: scalar, R.
        inputs: (T', R) int32, the word that each step is fed.
        targets: (R, T') int32, the word that it must tell.
        mask: (R, T') 1 where a word carries loss, 0 at padding; of the model's type.
        real: (P, 2) int64, step and row of the words that carry loss.
    """

    n_steps: Tensor
    n_rows: Tensor
    inputs: Tensor
    targets: Tensor
    mask: Tensor
    real: Tensor


class Unrolled(NamedTuple):
    """The steps of a batch, with what they say of its words.

    Attributes:
        steps: Step of (T', R, ...).
        losses: (P,), the loss of each real word, smoothed where asked for.
        log_probs: (R, T').
    """

    steps: Step
    losses: Tensor
    log_probs: Tensor


class TrainingGraph:
    """Builds loss and TrainingOutputs of a decoder.

    Args:
        decoder: Decoder. inputs: TrainingInputs.
        context_weights: ContextWeights where nothing is drawn for training.
        training, compute_dtype, jit, plain: see `CaptionGenerator.build_model`.
        critic: SelfCritic, with which captions are drawn; None: they are given.
    """

    def __init__(self, decoder: Decoder, inputs: TrainingInputs, context_weights: ContextWeights,
                 training: bool = True, compute_dtype: DType = None, jit: bool = False,
                 plain: bool = False, critic: SelfCritic | None = None) -> None:
        self.decoder, self.inputs, self.options = decoder, inputs, decoder.options
        self.context_weights, self.training, self.jit = context_weights, training, jit
        self.compute_dtype, self.critic = compute_dtype, critic
        self.gradients = PlainGradients if plain else DeferredGradients

    def build(self, drawing: bool = True) -> tuple[Tensor, TrainingOutputs]:
        """Build the graph.

        Args:
            drawing: hard attention draws its locations while training; False: `context_weights`
                has them.

        Returns:
            (loss, TrainingOutputs).
        """
        decoder, options = self.decoder, self.options
        drawing = drawing and decoder.hard and self.training
        n_samples = options.n_samples if drawing else 1
        captions = self._caption_batch(n_samples)
        dropout = self._dropout(captions.n_rows)
        annotations = decoder.annotations(self.inputs.features, self.training, self.compute_dtype,
                                          self.jit)
        functions = decoder.step_functions(annotations, self.jit)
        # The captions of an image, and the draws of a caption, begin with the same state.
        rows_of_image = captions.n_rows // tf.shape(annotations.features)[0]
        state = tf.nest.map_structure(lambda x: tf.repeat(x, rows_of_image, axis=0),
                                      decoder.initial_state(annotations, dropout))
        draws, context_weights = None, self.context_weights
        if drawing:
            draws = hard_attention.draws(
                self.inputs.dropout_seed, captions.n_steps, captions.n_rows // n_samples, n_samples,
                options.semi_sampling_p, decoder.dtype)
            context_weights = hard_attention.drawn(draws.uniform, draws.sampled)

        def unrolled_with(weights: ContextWeights) -> Unrolled:
            return self._unrolled(captions, functions, state, weights, dropout)

        if self.critic is not None:  # -(r(w) - b) log p(w), see core/decoding/self_critical.py
            captions, unrolled = self._drawn(self.critic, captions, functions, state, dropout)
            earned = self.critic(captions.targets, decoder.dtype)                   # (R,) each
            losses = unrolled.losses * tf.gather(earned.advantage, captions.real[:, 1])  # (P,)
            reward = tf.reduce_mean(earned.reward)
        else:
            unrolled = unrolled_with(context_weights)
            losses, reward = unrolled.losses, ()                                    # (P,)
        rows = tf.cast(captions.n_rows, decoder.dtype)
        alphas = tf.transpose(unrolled.steps.alpha, [1, 0, 2])                      # (R, T', L)
        # Eq. 14: L_d = -log p(y | x) + lambda sum_i (1 - sum_t alpha_ti)^2, where the 1 is what
        # `_regularizer` says
        nll = -tf.reduce_sum(unrolled.log_probs) / rows
        loss = tf.reduce_sum(losses) / rows
        regularizer = self._regularizer(captions, alphas, n_samples)
        if options.alpha_c > 0:
            loss += regularizer
        n_words = tf.reduce_sum(captions.mask)
        entropy = tf.reduce_sum(hard_attention.entropies(alphas) * captions.mask)
        if draws is not None:
            # Eq. 12, with the entropy and the baseline that the paper adds behind it
            loss -= tf.cast(self.inputs.annealed['lambda_e'], decoder.dtype) * entropy / rows
            reinforce = self._reinforce(captions, unrolled, alphas, draws, unrolled_with)
            loss -= options.lambda_r * reinforce / rows
        locations = unrolled.steps.location
        return loss, TrainingOutputs(
            nll, regularizer, n_words / n_samples, alphas,
            betas=tf.transpose(unrolled.steps.beta[:, :, 0]), mask=captions.mask,
            entropy=entropy / tf.maximum(n_words, 1),
            locations=() if isinstance(locations, tuple) else tf.transpose(locations),
            log_probs=unrolled.log_probs, reward=reward)

    # ---- what the steps begin with

    def _caption_batch(self, n_samples: int) -> CaptionBatch:
        """Return the CaptionBatch, each caption repeated for its draws."""
        decoder, options, captions = self.decoder, self.options, self.inputs.captions
        if n_samples > 1:
            captions = tf.repeat(captions, n_samples, axis=0)                       # (R, T+1)
        targets = captions[:, 1:]                                                   # (R, T)
        is_real = tf.not_equal(targets, decoder.null)                               # (R, T)
        n_steps = tf.constant(decoder.T)
        if options.mask_padding and not self.critic:  # no step is taken for padding
            lengths = tf.where(is_real, tf.range(1, decoder.T + 1)[tf.newaxis], 0)  # (R, T)
            n_steps = tf.maximum(tf.reduce_max(lengths), 1)                         # T'
            targets, is_real = targets[:, :n_steps], is_real[:, :n_steps]           # (R, T')
        inputs = tf.transpose(captions[:, :-1])[:n_steps]                           # (T', R)
        if self.training and options.word_dropout:
            inputs = self._with_unknown_words(inputs)
        return CaptionBatch(n_steps, tf.shape(captions)[0], inputs, targets,
                            tf.cast(is_real, decoder.dtype), tf.where(tf.transpose(is_real)))

    def _with_unknown_words(self, words: Tensor) -> Tensor:
        """Put <UNK> in the place of some words (T', R), never of <NULL>, <START> or <END>."""
        decoder = self.decoder
        uniform = tf.random.stateless_uniform(tf.shape(words),
                                              self._seed(RandomStream.WORD_DROPOUT))
        special = tf.equal(words[..., tf.newaxis], [decoder.null, decoder.start, decoder.end])
        replaced = tf.logical_and(uniform < self.options.word_dropout,
                                  tf.logical_not(tf.reduce_any(special, axis=-1)))  # (T', R)
        return tf.where(replaced, decoder.unknown, words)

    def _dropout(self, n_rows: Tensor) -> Dropout | None:
        if not (self.training and self.options.dropout):
            return None
        return Dropout(self.inputs.dropout_seed, self.options.dropout_rate, n_rows,
                       self.options.dropout_mask == 'sequence')

    def _seed(self, stream: int) -> Tensor:
        return tf.random.experimental.stateless_fold_in(self.inputs.dropout_seed, stream)

    # ---- the steps

    def _unrolled(self, captions: CaptionBatch, functions: StepFunctions, state: Tensor,
                  context_weights: ContextWeights, dropout: Dropout | None) -> Unrolled:
        """Take the decoder's step for all words, and compare what it says with the captions."""
        if self.training and self.options.scheduled_sampling:
            uniform = tf.random.stateless_uniform(tf.shape(captions.inputs),
                                                  self._seed(RandomStream.SCHEDULED_SAMPLING))
            own_word = uniform < self.inputs.annealed['scheduled_sampling']         # (T', R)
            steps, words, _ = self._sampling_loop(captions, functions, state, context_weights,
                                                  own_word)
        else:
            steps = self._loop(captions, functions, state, context_weights)
            words = captions.inputs
        return self._score(captions, steps, self.decoder.word_vectors(words), dropout)

    def _drawn(self, critic: SelfCritic, captions: CaptionBatch, functions: StepFunctions,
               state: Tensor, dropout: Dropout | None) -> tuple[CaptionBatch, Unrolled]:
        """Draw captions, as many as there are: returns them, and what was said of their words."""
        own_word = tf.fill(tf.shape(captions.inputs), True)                         # (T, R)
        steps, words, said = self._sampling_loop(captions, functions, state, self.context_weights,
                                                 own_word, dropout)
        targets = critic.captions(tf.transpose(said))                               # (R, T)
        is_real = tf.not_equal(targets, self.decoder.null)                          # (R, T)
        drawn = captions._replace(
            inputs=words, targets=targets, mask=tf.cast(is_real, self.decoder.dtype),
            real=tf.where(tf.transpose(is_real)))
        return drawn, self._score(drawn, steps, self.decoder.word_vectors(words), dropout)

    def _loop(self, captions: CaptionBatch, functions: StepFunctions, state: Tensor,
              context_weights: ContextWeights) -> Step:
        """Feed the captions' words: returns Step of (T', R, ...)."""
        gradients = self.gradients(functions, captions.n_steps, captions.n_rows)
        # The words are known beforehand: their products are made before the loop, all at once.
        from_words = functions.from_words.of_all(captions.inputs)                   # (T', R, G)
        from_words = tf.TensorArray(from_words.dtype, captions.n_steps,
                                    element_shape=from_words.shape[1:]).unstack(from_words)

        def body(t: Tensor, state: Tensor, kept: Step, records: tuple) -> tuple:
            state, step = self.decoder.step(gradients.at(t), state, from_words.read(t), t,
                                            context_weights)
            kept = tf.nest.map_structure(lambda array, x: array.write(t, x), kept, step)
            return t + 1, state, kept, gradients.write(t, records)

        kept = self._arrays(captions.n_steps, context_weights)
        _, _, kept, records = tf.while_loop(
            lambda t, *_: t < captions.n_steps, body,
            (tf.constant(0), state, kept, gradients.records()))
        gradients.finish(records)
        return tf.nest.map_structure(lambda array: array.stack(), kept)             # (T', R, ...)

    def _sampling_loop(self, captions: CaptionBatch, functions: StepFunctions, state: Tensor,
                       context_weights: ContextWeights, own_word: Tensor,
                       dropout: Dropout | None = None) -> tuple[Step, Tensor, Tensor]:
        """Feed the model's own words in the place of some (Bengio et al. 2015, arXiv 1506.03099).

        Args:
            own_word: (T', R) bool, where the word drawn at the step before is fed; the first word
                is <START>, as nothing was said before it.
            dropout: Dropout under which words are drawn, of one mask a caption, or None.

        Returns:
            (Step of (T', R, ...), words (T', R) int32 that were fed, those that were drawn).
        """
        decoder, n_steps = self.decoder, captions.n_steps
        gradients = self.gradients(functions, n_steps, captions.n_rows)
        temperature = self.options.draw_temperature if self.critic else 1.0

        def body(t: Tensor, state: Tensor, said: Tensor, kept: tuple, records: tuple) -> tuple:
            here = gradients.at(t)
            own = tf.logical_and(own_word[t], t > 0)                                # (R,)
            words = tf.where(own, said, captions.inputs[t])                         # (R,)
            state, step = decoder.step(here, state, here.from_words(words), t, context_weights)
            vectors = tf.stop_gradient(decoder.word_vectors(words))                 # (R, M)
            logits = decoder.output(step.h, step.context, vectors, dropout,
                                    tf.range(captions.n_rows), self.compute_dtype)  # (R, V)
            # Words that decoding never writes are not fed either.
            said = tf.random.stateless_categorical(
                mask_words(logits / temperature, decoder.never), 1,
                self._seed(RandomStream.SAMPLED_WORDS + t), tf.int32)[:, 0]         # (R,)
            kept = tf.nest.map_structure(lambda array, x: array.write(t, x), kept,
                                         (step, words, said))
            return t + 1, state, said, kept, gradients.write(t, records)

        words, said = (tf.TensorArray(tf.int32, n_steps, element_shape=[None]) for _ in range(2))
        kept = self._arrays(n_steps, context_weights), words, said
        start = tf.fill([captions.n_rows], decoder.start)
        _, _, _, kept, records = tf.while_loop(
            lambda t, *_: t < n_steps, body,
            (tf.constant(0), state, start, kept, gradients.records()))
        gradients.finish(records)
        return tf.nest.map_structure(lambda array: array.stack(), kept)

    def _arrays(self, n_steps: Tensor, context_weights: ContextWeights) -> Step:
        """Return TensorArrays for the Step of every t."""
        decoder = self.decoder

        def array(size: int) -> Tensor:
            return tf.TensorArray(decoder.dtype, n_steps, element_shape=[None, size])

        location: Tensor = ()
        if context_weights is not hard_attention.expected:
            location = tf.TensorArray(tf.int32, n_steps, element_shape=[None])
        return Step(h=array(decoder.H), context=array(decoder.K), alpha=array(decoder.L),
                    beta=array(1), weights=array(decoder.L), location=location)

    # ---- the loss

    def _score(self, captions: CaptionBatch, steps: Step, word_vectors: Tensor,
               dropout: Dropout | None) -> Unrolled:
        """Return the Unrolled of steps (T', R, ...) that were fed word_vectors (T', R, M)."""
        output, real = self.decoder.output, captions.real
        # The logits of all real words are one product, and padding has none.
        h, context, vectors = (tf.gather_nd(x, real)                                # (P, ...) each
                               for x in (steps.h, steps.context, word_vectors))
        targets = tf.gather_nd(tf.transpose(captions.targets), real)                # (P,)
        arguments = h, context, vectors, dropout, real[:, 1], self.compute_dtype
        smoothing = self.options.label_smoothing if self.training else 0
        if self.critic:  # drawn among the words that decoding may write
            logits = output(*arguments) / self.options.draw_temperature             # (P, V)
            logits = mask_words(logits, self.decoder.never)
            losses = cross_entropy = tf.nn.sparse_softmax_cross_entropy_with_logits(targets, logits)
        elif not smoothing:
            cross_entropy = output.cross_entropy(output.hidden(*arguments), targets,
                                                 self.compute_dtype)                # (P,)
            losses = cross_entropy
        else:
            logits = output(*arguments)                                             # (P, V)
            cross_entropy = tf.nn.sparse_softmax_cross_entropy_with_logits(targets, logits)
            # Against the even distribution over all words: log sum exp minus the mean logit.
            even = tf.reduce_logsumexp(logits, axis=1) - tf.reduce_mean(logits, axis=1)
            losses = (1 - smoothing) * cross_entropy + smoothing * even             # (P,)
        shape = tf.stack([captions.n_steps, captions.n_rows])
        log_probs = tf.scatter_nd(tf.cast(real, tf.int32), -cross_entropy, shape)   # (T', R)
        return Unrolled(steps, losses, tf.transpose(log_probs))

    def _regularizer(self, captions: CaptionBatch, alphas: Tensor, n_samples: int) -> Tensor:
        """Doubly stochastic attention (4.2.1): alpha_c sum_i (target - sum_t alpha_ti)^2, a row."""
        decoder, options = self.decoder, self.options
        if options.mask_padding:
            alphas *= captions.mask[:, :, tf.newaxis]                               # (R, T', L)
        # What a location gets of T words in the mean; the paper's 1 asks for as many words as there
        # are locations.
        target = 1.0 if options.regularizer_target == 'one' else decoder.T / decoder.L
        total = tf.reduce_sum(tf.square(target - tf.reduce_sum(alphas, axis=1)))
        if options.regularizer_reduction == 'locations':
            return options.alpha_c * total / (decoder.L * n_samples)
        return options.alpha_c * total / tf.cast(captions.n_rows, decoder.dtype)

    def _reinforce(self, captions: CaptionBatch, unrolled: Unrolled, alphas: Tensor, draws: Draws,
                   unrolled_with: Callable[[ContextWeights], Unrolled]) -> Tensor:
        """Return the sum whose gradient is (log p(y|s,a) - b) d log p(s|a), of eq. 11 and 12.

        See `hard_attention`; `unrolled_with` takes the steps once more, with other ContextWeights.
        """
        decoder, options = self.decoder, self.options
        reward = tf.stop_gradient(hard_attention.rewards(unrolled.log_probs, options.reward))
        updates = []
        if options.baseline == 'moving':
            baseline, update = decoder.moving_baseline(reward, captions.mask, draws.sampled)
            updates.append(update)
        elif options.baseline == 'leave_one_out':
            baseline = hard_attention.leave_one_out(reward, options.n_samples)
        elif options.baseline == 'self_critical':
            likeliest = unrolled_with(hard_attention.likeliest)
            baseline = tf.stop_gradient(
                hard_attention.rewards(likeliest.log_probs, options.reward))
        else:
            baseline = 0.0
        with tf.control_dependencies(updates):
            advantage = reward - baseline                                           # (R, T')
        counted = captions.mask * tf.cast(draws.sampled, decoder.dtype)[:, tf.newaxis]
        return hard_attention.surrogate(alphas, tf.transpose(unrolled.steps.location), advantage,
                                        counted)
