"""The training graph: teacher forcing of a Decoder, its loss, and hard attention's bound (paper
4.1).

Used through `CaptionGenerator.build_model`. Letters in shapes as in core/model/decoder.py; a row is
a caption, or with hard attention one of the `n_samples` draws of a caption.
"""

from collections.abc import Callable
from typing import NamedTuple

from core.common.aliases import DType, Tensor
from core.decoding.word_rules import mask_words
from core.model import hard_attention
from core.model.decoder import Decoder
from core.model.deferred_gradients import Deferred, Recorded
from core.model.output_layer import Dropout
from core.runtime.backend import tf


class TrainingOutputs(NamedTuple):
    """What `build_model` computed, beside the loss. T' is the longest caption of the batch (T
    without `mask_padding`).

    Attributes:
        nll: scalar, cross entropy summed over words, divided by the rows, without any regulariser.
        regularizer: scalar, the doubly stochastic term, `alpha_c` included.
        n_words: scalar, words (with <END>) of the captions, each counted once however often it is
            drawn for.
        alphas: (rows, T', L), attention weights.
        betas: (rows, T'), gates.
        mask: (rows, T') 1 where a word carries loss, else 0.
        entropy: scalar, mean entropy of alpha over the words, in nats.
        locations: (rows, T') int32, drawn locations; an empty tuple with soft attention.
        log_probs: (rows, T') log-probability of each target word, 0 at padding.
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


class Steps(NamedTuple):
    """What the loop over the steps records, each (T', rows, ...) after it.

    Attributes:
        h: (H), after the step. context (K), alpha (L), beta (1), location (), query (A), weights
            (L): of StepOutput.
        words: () int32, the words that were fed, where they are drawn inside the loop; else an
            empty tuple.
    """

    h: Tensor
    context: Tensor
    alpha: Tensor
    beta: Tensor
    location: Tensor
    query: Tensor
    weights: Tensor
    words: Tensor


class Unrolled(NamedTuple):
    """Teacher forcing of a batch.

    Attributes:
        steps: Steps of (T', rows, ...).
        losses: (P,), the loss of each real word, smoothed where asked for.
        log_probs: (rows, T').
        alphas: (rows, T', L).
    """

    steps: Steps
    losses: Tensor
    log_probs: Tensor
    alphas: Tensor


class TrainingInputs(NamedTuple):
    """What a training graph reads.

    Attributes:
        features: (N, L, D) of any floating type. captions: (R, T+1) int32, see `CaptionGenerator`.
        dropout_seed: (2,) int32, which all masks and draws follow.
        annealed: dict of scalars by the names of the options that change while training.
    """

    features: Tensor
    captions: Tensor
    dropout_seed: Tensor
    annealed: dict[str, Tensor]


class TrainingGraph:
    """Builds loss and TrainingOutputs of a decoder.

    Args:
        decoder: Decoder. batch: TrainingInputs.
        training, compute_dtype: see `CaptionGenerator.build_model`.
        locations: int32 (R, T), given locations, or None.
        decoding_choice: function that gives what picks the context's weights where nothing is drawn
            for training, see `CaptionGenerator.decoding_choice`.
    """

    def __init__(self, decoder: Decoder, batch: TrainingInputs, training: bool, locations: Tensor,
                 decoding_choice: Callable[[], Callable[..., tuple[Tensor, Tensor]] | None],
                 compute_dtype: DType = None) -> None:
        self.decoder, self.batch, self.options, self.training = decoder, batch, decoder.options, training
        self.decoding_choice, self.compute_dtype = decoding_choice, compute_dtype
        self.drawing = decoder.hard and training and locations is None
        self.n_samples = self.options.n_samples if self.drawing else 1
        self.given = locations

    def build(self) -> tuple[Tensor, TrainingOutputs]:
        """Returns (loss, TrainingOutputs)."""
        decoder, options = self.decoder, self.options
        self._prepare_captions()
        dropout = None
        if self.training and options.dropout:
            dropout = Dropout(self.batch.dropout_seed, options.dropout_rate, self.n_rows,
                              options.dropout_mask == 'sequence')
        self._prepare_images(dropout)
        draws = None
        if self.drawing:
            draws = hard_attention.draws(self.batch.dropout_seed, self.n_steps,
                                         self.n_rows // self.n_samples, self.n_samples,
                                         options.semi_sampling_p, decoder.dtype)
        unrolled = self._unroll(self._chooser(draws), dropout)
        alphas, mask = unrolled.alphas, self.mask
        rows = tf.cast(self.n_rows, decoder.dtype)
        nll = -tf.reduce_sum(unrolled.log_probs) / rows
        regularizer = self._regularizer(alphas, rows)
        entropy = tf.reduce_sum(hard_attention.entropies(alphas) * mask)
        loss = tf.reduce_sum(unrolled.losses) / rows
        if options.alpha_c > 0:
            loss += regularizer
        if draws is not None:
            loss -= tf.cast(self.batch.annealed['lambda_e'], decoder.dtype) * entropy / rows
            loss -= options.lambda_r * self._reinforce(unrolled, draws, dropout) / rows
        n_words = tf.reduce_sum(mask)
        located = unrolled.steps.location
        located = () if isinstance(located, tuple) else tf.transpose(located)
        return loss, TrainingOutputs(nll, regularizer, n_words / self.n_samples, alphas,
                                     tf.transpose(unrolled.steps.beta[:, :, 0]), mask,
                                     entropy / tf.maximum(n_words, 1), located, unrolled.log_probs)

    def _prepare_captions(self) -> None:
        """Inputs (T', rows), targets and mask (rows, T'), the caption of each draw repeated."""
        decoder, options = self.decoder, self.options
        captions = self.batch.captions
        if self.n_samples > 1:
            captions = tf.repeat(captions, self.n_samples, axis=0)
        targets = captions[:, 1:]
        mask = tf.not_equal(targets, decoder.null)
        self.n_steps = tf.constant(decoder.T)
        if options.mask_padding:
            longest = tf.reduce_max(tf.where(mask, tf.range(1, decoder.T + 1)[tf.newaxis], 0))
            self.n_steps = tf.maximum(longest, 1)
            targets, mask = targets[:, :self.n_steps], mask[:, :self.n_steps]
        self.n_rows = tf.shape(captions)[0]
        self.targets, self.mask = targets, tf.cast(mask, decoder.dtype)
        # Vocabulary logits are computed of all real words in one product, of padding none: their
        # (step, row).
        self.real = tf.where(tf.transpose(mask))
        self.inputs = tf.transpose(captions[:, :-1])[:self.n_steps]
        if self.training and options.word_dropout:
            uniform = tf.random.stateless_uniform(tf.shape(self.inputs), self._seed(201))
            kept = tf.reduce_any(tf.equal(self.inputs[..., tf.newaxis],
                                          [decoder.null, decoder.start, decoder.end]), axis=-1)
            dropped = tf.logical_and(uniform < options.word_dropout, tf.logical_not(kept))
            self.inputs = tf.where(dropped, decoder.unknown, self.inputs)

    def _prepare_images(self, dropout: Dropout | None) -> None:
        """The images' Memory, and the rows' first state."""
        annotations = self.decoder.annotations(self.batch.features, self.training,
                                               self.compute_dtype)
        self.memory = self.decoder.attention.memory(annotations)
        n_captions = self.n_rows // tf.shape(annotations.features)[0]
        self.state = tf.nest.map_structure(lambda x: tf.repeat(x, n_captions, axis=0),
                                           self.decoder.initial_state(annotations, dropout))

    def _seed(self, which: int) -> Tensor:
        return tf.random.experimental.stateless_fold_in(self.batch.dropout_seed, which)

    def _chooser(self,
                 draws: hard_attention.Draws | None) -> Callable[..., tuple[Tensor, Tensor]] | None:
        """Function from (step t, alpha) to (weights in the context, locations), or None for soft
        attention.
        """
        decoder = self.decoder
        if self.given is not None:
            if not decoder.hard:
                raise ValueError('locations belong to attention=hard')
            places = tf.transpose(self.given)
            return lambda t, alpha: (hard_attention.weights(alpha, places[t]), places[t])
        if draws is not None:
            def choose(t: Tensor, alpha: Tensor) -> tuple[Tensor, Tensor]:
                location = hard_attention.locate(alpha, draws.uniform[t])
                return hard_attention.weights(alpha, location, draws.sampled), location

            return choose
        return self.decoding_choice()

    def _unroll(self, choose: Callable[..., tuple] | None,
                dropout: Dropout | None = None) -> Unrolled:
        """Run the model's step over all words.

        Args:
            choose: function from (step t, alpha) to (weights in the context, locations), or None.
            dropout: Dropout or None.

        Returns:
            Unrolled.
        """
        decoder, n_steps = self.decoder, self.n_steps
        sampling = self.training and self.options.scheduled_sampling > 0
        given = None if sampling else decoder.word_vectors(self.inputs)
        deferred = Deferred(decoder, self.memory, n_steps, self.n_rows, None if sampling
                            else self.inputs)
        if sampling:  # the first word is <START>: nothing was said before it
            uniform = tf.random.stateless_uniform(tf.shape(self.inputs), self._seed(202))
            own_word = tf.logical_and(uniform < self.batch.annealed['scheduled_sampling'],
                                      tf.range(n_steps)[:, tf.newaxis] > 0)

        def body(t: Tensor, state: Tensor, said: Tensor, arrays: Tensor) -> tuple:
            memory, weights = deferred.at(t)
            vectors, words = None, ()
            if sampling:
                # Constant vectors: the gradient of the embedding is made of `words` after the loop.
                words = tf.where(own_word[t], said, self.inputs[t])
                vectors = tf.stop_gradient(decoder.word_vectors(words))
                share = tf.stop_gradient(weights.word_share(vectors))
                weights = weights._replace(
                    offsets=weights.offsets._replace(inputs=weights.offsets.inputs + share))
            step = decoder.step(memory, weights, state, None, choose
                                and (lambda alpha: choose(t, alpha)))
            if sampling:
                # Words that decoding never writes are not fed either.
                logits = decoder.output(step.state.h, step.context, vectors,
                                        compute_dtype=self.compute_dtype)
                logits = mask_words(logits, decoder.never)
                said = tf.random.stateless_categorical(logits, 1, self._seed(1000 + t), tf.int32)[
                    :, 0]
            kept = Steps(step.state.h, *step[1:], words)
            arrays = tf.nest.map_structure(lambda array, x: array.write(t, x), arrays, kept)
            return t + 1, step.state, said, arrays

        # What a step gives, by its size; 0 stands for a whole number.
        sizes = Steps(decoder.H, decoder.K, decoder.L, 1, () if choose is None else 0,
                      self.memory.projected.shape[2], decoder.L, 0 if sampling else ())
        arrays = tf.nest.map_structure(
            lambda size: tf.TensorArray(decoder.dtype if size else tf.int32, n_steps,
                                        element_shape=[None, size] if size else [None]), sizes)
        said = tf.fill([self.n_rows], decoder.start)
        _, _, _, arrays = tf.while_loop(lambda t, *_: t < n_steps, body,
                                        (tf.constant(0), self.state, said, arrays))
        steps = tf.nest.map_structure(lambda array: array.stack(), arrays)
        before = tf.concat([self.state.h[tf.newaxis], steps.h[:-1]], axis=0)
        deferred.record(Recorded(before, steps.query, steps.weights, steps.context, steps.words))
        return self._score(steps, decoder.word_vectors(steps.words) if sampling else given, dropout)

    def _score(self, steps: Steps, word_vectors: Tensor, dropout: Dropout | None) -> Unrolled:
        """Cross entropy of the real words of the steps (T', rows, ...) -> Unrolled."""
        h, context, x = (tf.gather_nd(part, self.real)
                         for part in (steps.h, steps.context, word_vectors))
        targets, output = tf.gather_nd(tf.transpose(self.targets), self.real), self.decoder.output
        arguments = h, context, x, dropout, self.real[:, 1], self.compute_dtype
        if not (self.training and self.options.label_smoothing):
            losses = cross_entropy = output.cross_entropy(output.hidden(*arguments), targets,
                                                          self.compute_dtype)
        else:
            logits = output(*arguments)
            cross_entropy = losses = tf.nn.sparse_softmax_cross_entropy_with_logits(targets, logits)
            # Against the even distribution over all words: log sum exp minus the mean logit.
            even = tf.reduce_logsumexp(logits, axis=1) - tf.reduce_mean(logits, axis=1)
            losses = (1 - self.options.label_smoothing) * losses + self.options.label_smoothing * even
        shape = tf.stack([self.n_steps, self.n_rows])
        log_probs = tf.transpose(tf.scatter_nd(tf.cast(self.real, tf.int32), -cross_entropy, shape))
        return Unrolled(steps, losses, log_probs, tf.transpose(steps.alpha, [1, 0, 2]))

    def _regularizer(self, alphas: Tensor, rows: Tensor) -> Tensor:
        """Doubly stochastic attention (4.2.1): alpha_c sum_nl (target - sum_t alpha)^2 over alphas
        (rows, T', L).
        """
        decoder, options = self.decoder, self.options
        if options.mask_padding:
            alphas *= self.mask[:, :, tf.newaxis]
        target = 1.0 if options.regularizer_target == 'one' else decoder.T / decoder.L
        total = tf.reduce_sum(tf.square(target - tf.reduce_sum(alphas, axis=1)))
        if options.regularizer_reduction == 'locations':
            rows = decoder.L * self.n_samples
        return options.alpha_c * total / rows

    def _reinforce(self, unrolled: Unrolled, draws: hard_attention.Draws,
                   dropout: Dropout | None) -> Tensor:
        """The sum whose gradient is that of the draws: (log p(y|s,a) - b) d log p(s|a), see
        `hard_attention`.
        """
        decoder, options = self.decoder, self.options
        reward = tf.stop_gradient(hard_attention.rewards(unrolled.log_probs, options.reward))
        updates = []
        if options.baseline == 'moving':
            baseline, update = decoder.moving_baseline(reward, self.mask, draws.sampled)
            updates.append(update)
        elif options.baseline == 'leave_one_out':
            baseline = hard_attention.leave_one_out(reward, options.n_samples)
        elif options.baseline == 'self_critical':
            likeliest = self._unroll(hard_attention.likeliest, dropout)
            baseline = tf.stop_gradient(hard_attention.rewards(likeliest.log_probs, options.reward))
        else:
            baseline = 0.0
        with tf.control_dependencies(updates):
            advantage = reward - baseline
        counted = self.mask * tf.cast(draws.sampled, decoder.dtype)[:, tf.newaxis]
        return hard_attention.surrogate(unrolled.alphas, tf.transpose(unrolled.steps.location),
                                        advantage, counted)
