"""`CaptionGenerator`: a Decoder with its placeholders, the training graph and the decoding graphs.

    with tf.Graph().as_default():
        model = CaptionGenerator(word_to_idx, dim_feature=(196, 512))
        loss = model.build_model()
        alphas, betas, captions = model.build_sampler(max_len=20)

What a step computes is in core/model/decoder.py.

Letters in shapes: N images, R captions, L locations, D features of a location, T steps, M numbers
of a word vector, H hidden units, V words.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from core.common.aliases import DType, Tensor, Variable
from core.common.errors import InputError
from core.config.config import Config
from core.decoding.sampling import uniforms
from core.decoding.search_graphs import Searches
from core.decoding.search_loop import Decoding, NextWord, greedy
from core.decoding.self_critical import Rewards, SelfCritic
from core.decoding.word_rules import Rules
from core.model import hard_attention
from core.model.decoder import Decoder
from core.model.hard_attention import ContextWeights
from core.model.training_graph import TrainingGraph, TrainingInputs, TrainingOutputs
from core.runtime.backend import tf, tf1
from core.runtime.random_streams import RandomStream

if TYPE_CHECKING:
    from core.encoders.encoder import TrainableEncoder

# Decoding has batches of many sizes, as images leave it. XLA compiles each size once, which pays
# from this many images on.
DECODED_TOGETHER = 32


class CaptionGenerator(Decoder, Searches):
    """Caption generator with soft or hard attention over convolutional features.

    Xu et al. 2015, arXiv 1502.03044.

    Args:
        word_to_idx: dict of word -> index, 0 to V-1, with '<NULL>', '<START>', '<END>' (and usually
            '<UNK>').
        dim_feature: (L, D), locations and features of a location.
        dim_embed: M. dim_hidden: H.
        n_time_step: T, words of a training caption at most, <END> included.
        prev2out, ctx2out: the previous word and the context feed the output layer (eq. 7).
        alpha_c: weight of the doubly stochastic regulariser (4.2.1). 0 here, as in the signature of
            the TF1 code; train.py's default is 1 (`ModelConfig`).
        selector: the gate beta scales the context (4.2.1).
        dropout: dropout while training.
        features: float32 tensor (N, L, D) to use in the place of the placeholder.
        inputs: (N, ...), what a batch's features are fed to, where `features` are computed of it.
        encoder: TrainableEncoder, in the place of both: the model stands on it and trains it.
        dtype: of variables and computation.
        jit: XLA compiles the attention's large products (`attention_kernels`), in every graph that
            is not built with another `jit`.
        options: every other option of `core.config.model.ModelConfig`, where each is documented;
            the defaults give the model of the TF1 code.

    Attributes:
        features: placeholder (N, L, D) float32, or the tensor given.
        inputs: what a batch's features are fed to: `features`, unless an encoder's pixels come
            before it.
        captions: placeholder (R, T+1) int32: <START> words <END> <NULL>... R = N, or C N with the
            captions of image n in rows n C to n C + C - 1.
        dropout_seed: (2,) int32. Fresh numbers in every run, unless fed: equal seeds give equal
            dropout masks, locations and sampled words.
        image_numbers: (N,) int32, 0 to N - 1 unless fed: what decoding draws for an image follows
            its number here and `dropout_seed`, whatever its place in the batch.
        annealed: dict of scalar placeholders with the options' values as defaults: 'temperature',
            with hard attention 'lambda_e', and 'scheduled_sampling' where that option is not 0.
        encoder: TrainableEncoder, or None.
        saved: variables that a trained model consists of: the decoder's and the encoder's trained.
        baseline: the variable of the moving baseline of hard attention (4.1), or None.
        loss, nll, outputs: after `build_model`, the scalars and the TrainingOutputs.
        before: after `build_model` in float16, dict of references (`ref()`) to the variables that a
            training step changes by itself (moving statistics and baseline) -> their values before
            it, for a step that is to be undone; else empty.

    Raises:
        ValueError: an unknown option, one out of its range, options that do not fit together, or a
            special word missing from `word_to_idx`.
    """

    def __init__(self, word_to_idx: Mapping[str, int], dim_feature: tuple[int, int] = (196, 512),
                 dim_embed: int = 512, dim_hidden: int = 1024, n_time_step: int = 16,
                 prev2out: bool = True, ctx2out: bool = True, alpha_c: float = 0.0,
                 selector: bool = True, dropout: bool = True, *, features: Tensor = None,
                 inputs: Tensor = None, encoder: 'TrainableEncoder | None' = None,
                 dtype: DType = tf.float32, jit: bool = True, **options: Any) -> None:
        options |= {'dim_embed': dim_embed, 'dim_hidden': dim_hidden, 'prev2out': prev2out,
                    'ctx2out': ctx2out, 'alpha_c': alpha_c, 'selector': selector,
                    'dropout': dropout}
        try:
            checked = Config.from_dict({'model': options}, where='CaptionGenerator').model
        except InputError as error:
            raise ValueError(str(error)) from None
        super().__init__(word_to_idx, dim_feature, n_time_step, checked, dtype)
        self.encoder, self.jit = encoder, jit
        if encoder is not None:
            features, inputs = encoder.features, encoder.pixels
        elif features is None:
            features = tf1.placeholder(tf.float32, [None, self.L, self.D], name='features')
        self.features = features                                                    # (N, L, D)
        self.inputs = features if inputs is None else inputs
        self.captions = tf1.placeholder(tf.int32, [None, self.T + 1], name='captions')
        fresh = tf1.random.uniform([2], maxval=2**31 - 1, dtype=tf.int32)
        self.dropout_seed = tf1.placeholder_with_default(fresh, [2], name='dropout_seed')
        self.image_numbers = tf1.placeholder_with_default(
            tf.range(tf.shape(features)[0]), [None], 'image_numbers')               # (N,)
        self.graph = self.features.graph
        self.loss: Tensor = None
        self.nll: Tensor = None
        self.outputs: TrainingOutputs | None = None
        self.before: dict[Any, Tensor] = {}  # keys are what variable.ref() returns
        annealed = ['temperature'] + ['lambda_e'] * self.hard
        if self.options.scheduled_sampling:
            annealed.append('scheduled_sampling')
        self.annealed = {name: tf1.placeholder_with_default(getattr(self.options, name), [], name)
                         for name in annealed}
        self.create_variables(self.annealed['temperature'])

    @property
    def saved(self) -> list[Variable]:
        """Variables that a trained model consists of."""
        return [*self.variables, *(self.encoder.trained if self.encoder else ())]

    # ---- training

    def build_model(self, training: bool = True, locations: Tensor = None, *,
                    features: Tensor = None, compute_dtype: DType = None, jit: bool | None = None,
                    plain: bool = False, rewards: Rewards | None = None) -> Tensor:
        """Build the training graph under teacher forcing.

        Its gradient is the training gradient, hard attention's too.

        Args:
            training: False gives the loss without dropout, draws and word noise, with the moving
                statistics of batch normalisation, and with the context of `decode_context`.
            locations: int32 (R, T), attend to these locations instead of drawn ones (hard
                attention). The loss is then that of the words alone: one pass, without the terms of
                the bound.
            features: (N, L, D) of any floating type to use in the place of `self.features`, or
                None.
            compute_dtype: tf.bfloat16 or tf.float16 for mixed precision, in which the products with
                matrices and features are computed; variables, states, statistics, softmaxes and
                losses keep the model's own type. What is decoded is not affected. None: `dtype`
                throughout. With float16 see also `before`.
            jit: XLA here, or not; None: as the model was made.
            plain: TensorFlow's own gradient of the loop over the words in the place of
                `deferred_gradients`: the same numbers, in more time and memory.
            rewards: with `self_critical` while training, what a drawn caption earns; `captions`
                then says only how many are drawn for an image, and `image_numbers` has to be fed.

        Returns:
            Scalar loss: cross entropy summed over words, divided by R, plus the regularisers.
            Padding carries none. With `self_critical` it is a number without a meaning of its own,
            whose gradient is minus that of the expected reward.
        """
        critical = training and self.options.self_critical
        if critical != (rewards is not None):
            raise ValueError('rewards belong to training with self_critical=true, which needs them')
        if locations is not None and not self.hard:
            raise ValueError('locations belong to attention=hard')
        with tf1.name_scope('training' if training else 'loss'):
            self.before = (self._values_before()
                           if training and compute_dtype == tf.float16 else {})
            with tf.control_dependencies(list(self.before.values())):
                weights = (self.decoding_weights() if locations is None
                           else hard_attention.at(locations))
                jit = self.jit if jit is None else jit
                graph = TrainingGraph(
                    self, self.training_inputs(features), weights, training, compute_dtype, jit,
                    plain, self._critic(rewards, features, jit) if rewards else None)
                self.loss, self.outputs = graph.build(drawing=locations is None)
            self.nll = self.outputs.nll
        return self.loss

    def training_inputs(self, features: Tensor = None) -> TrainingInputs:
        """Return what the training graph reads.

        Args:
            features: (N, L, D); None: those of the model.
        """
        return TrainingInputs(self.features if features is None else features, self.captions,
                              self.dropout_seed, self.annealed)

    def _critic(self, rewards: Rewards, features: Tensor, jit: bool) -> SelfCritic:
        """Return the SelfCritic that the option `sentence_baseline` asks for."""
        written = None
        if self.options.sentence_baseline == 'greedy':
            rules = Rules(self.end, self.never)
            written = greedy(self.decoding(self.T, jit, features), rules, self.T).captions[:, 0]
        return SelfCritic(rewards, self.image_numbers, written, self.end, self.null)

    def _values_before(self) -> dict[Any, Tensor]:
        """Read the moving statistics and the moving baseline, for `before`."""
        untrained = [variable for variable in self.variables if not variable.trainable]
        if self.baseline is not None:
            untrained.append(self.baseline)
        return {variable.ref(): variable.read_value() for variable in untrained}

    # ---- decoding

    def decoding_weights(self, uniform: Tensor = None) -> ContextWeights:
        """Return the ContextWeights that the option `decode_context` asks for.

        Args:
            uniform: (n, T') in [0, 1), what decides the drawn locations of the n images; None:
                `location_draws` of all images and steps of training.
        """
        kind = self.options.decode_context
        if kind == 'argmax':
            return hard_attention.likeliest
        if kind == 'sample':
            return hard_attention.drawn_of_images(
                self.location_draws(self.T) if uniform is None else uniform)
        return hard_attention.expected

    def location_draws(self, n_steps: Tensor) -> Tensor:
        """Return uniform numbers (N, n_steps), n_steps a scalar, that decide drawn locations."""
        return uniforms(self.dropout_seed, RandomStream.DECODED_LOCATIONS, self.image_numbers,
                        n_steps, self.dtype)

    def decoding(self, max_len: int = 20, jit: bool | None = None,
                 features: Tensor = None) -> Decoding:
        """Return what every search of `core.decoding.search_graphs` starts from.

        Args:
            max_len: steps that can be taken. jit: XLA, or not; None: as the model was made.
            features: (N, L, D); None: those of the model.
        """
        annotations = self.annotations(self.features if features is None else features)
        functions = self.step_functions(annotations, self.jit if jit is None else jit,
                                        DECODED_TOGETHER)
        n_images = tf.shape(annotations.features)[0]
        images = {'attended': functions.images}
        if self.options.decode_context == 'sample':
            images['uniform'] = self.location_draws(max_len)                        # (N, max_len)

        def step(images: Tensor, words: Tensor, state: Tensor) -> NextWord:
            state, taken = state  # the cell's, and how many steps were taken (R,): all as many
            here = functions.of_images(images['attended'])
            state, result = self.step(here, state, here.from_words(words), taken[0],
                                      self.decoding_weights(images.get('uniform')))
            logits = self.output(result.h, result.context, self.word_vectors(words))    # (R, V)
            # Shown is where the model looked: alpha, or the one place of hard attention.
            return NextWord(tf.nn.log_softmax(logits), (state, taken + 1), result.weights,
                            result.beta[:, 0])

        state = self.initial_state(annotations), tf.zeros([n_images], tf.int32)
        return Decoding(step, images, state, tf.fill([n_images], self.start))
