"""`CaptionGenerator`: a Decoder with its placeholders, the training graph and the decoding graphs.

    with tf.Graph().as_default():
        model = CaptionGenerator(word_to_idx, dim_feature=(196, 512))
        loss = model.build_model()
        alphas, betas, captions = model.build_sampler(max_len=20)

What a step computes is in core/model/decoder.py, where the letters of the shapes are explained too.
"""

from collections.abc import Callable, Mapping
from typing import Any

from core.common.aliases import DType, Session, Tensor, Variable
from core.common.errors import InputError
from core.config.config import Config
from core.decoding.sampling import uniforms
from core.decoding.search_graphs import LOCATION_DRAWS, Searches
from core.decoding.search_loop import Decoding, Step
from core.model import hard_attention
from core.model.decoder import Decoder
from core.model.training_graph import TrainingGraph, TrainingInputs
from core.runtime.backend import tf, tf1


class CaptionGenerator(Decoder, Searches):
    """Caption generator with soft or hard attention (Xu et al. 2015, arXiv 1502.03044) over
    convolutional features.

    Args:
        word_to_idx: dict of word -> index, 0 to V-1, with '<NULL>', '<START>', '<END>' (and usually
            '<UNK>').
        dim_feature: (L, D), locations and features of a location.
        dim_embed: M. dim_hidden: H.
        n_time_step: T, words of a training caption at most, <END> included.
        prev2out, ctx2out: the previous word and the context feed the output layer (eq. 7).
        alpha_c: weight of the doubly stochastic regulariser (4.2.1).
        selector: the gate beta scales the context (4.2.1).
        dropout: dropout while training.
        features: float32 tensor (N, L, D) to use in the place of the placeholder, for an encoder in
            the same graph.
        dtype: of variables and computation.
        jit: XLA compiles the attention's large products (`attention_kernels`).
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
        baseline: the variable of the moving baseline of hard attention (4.1), or None.
        loss, nll, outputs: after `build_model`, the scalars and the TrainingOutputs.
        before: after `build_model` in float16, dict of references (`ref()`) to the variables that a
            training step changes by itself (moving statistics and baseline) -> their values before
            it, for a step that is to be undone; else empty.

    Raises:
        ValueError: an unknown option, one out of its range, options that do not fit together, or a
            special word missing from `word_to_idx`.
    """

    # Of a model on top of its encoder alone, see `core.runs.build_model`.
    encoder_variables: list[Variable]
    encoder_saved: list[Variable]
    restore_encoder: Callable[[Session], None]

    def __init__(self, word_to_idx: Mapping[str, int], dim_feature: tuple[int, int] = (196, 512),
                 dim_embed: int = 512, dim_hidden: int = 1024, n_time_step: int = 16,
                 prev2out: bool = True, ctx2out: bool = True, alpha_c: float = 0.0,
                 selector: bool = True, dropout: bool = True, *, features: Tensor = None,
                 dtype: DType = tf.float32, jit: bool = True, **options: Any) -> None:
        options |= {'dim_embed': dim_embed, 'dim_hidden': dim_hidden, 'prev2out': prev2out,
                    'ctx2out': ctx2out, 'alpha_c': alpha_c, 'selector': selector,
                    'dropout': dropout}
        try:
            checked = Config.from_dict({'model': options}, where='CaptionGenerator').model
        except InputError as error:
            raise ValueError(str(error)) from None
        super().__init__(word_to_idx, dim_feature, n_time_step, checked, dtype)
        if features is None:
            features = tf1.placeholder(tf.float32, [None, self.L, self.D], name='features')
        self.features = self.inputs = features
        self.captions = tf1.placeholder(tf.int32, [None, self.T + 1], name='captions')
        fresh = tf1.random.uniform([2], maxval=2**31 - 1, dtype=tf.int32)
        self.dropout_seed = tf1.placeholder_with_default(fresh, [2], name='dropout_seed')
        self.image_numbers = tf1.placeholder_with_default(tf.range(tf.shape(features)[0]), [None],
                                                          'image_numbers')
        self.graph = self.features.graph
        self.loss = self.nll = None
        self.outputs: Any = None  # TrainingOutputs, once built
        self.before: dict[Any, Tensor] = {}
        annealed = ['temperature'] + ['lambda_e'] * self.hard + ['scheduled_sampling'] * bool(
            self.options.scheduled_sampling)
        self.annealed = {name: tf1.placeholder_with_default(getattr(self.options, name), [],
                                                            name=name) for name in annealed}
        self.create_variables(self.annealed['temperature'], jit)

    def decoding_choice(self,
                        uniform: Tensor = None) -> Callable[..., tuple[Tensor, Tensor]] | None:
        """Function from (step t, alpha) to (weights in the context, locations) by `decode_context`;
        None: expected.

        Args:
            uniform: (n, T') in [0, 1), what decides the drawn locations of the n images; None:
                `location_draws` of all images and steps of training.
        """
        kind = self.options.decode_context
        if kind == 'argmax':
            return hard_attention.likeliest
        if kind == 'sample':
            if uniform is None:
                uniform = self.location_draws(self.T)

            def choose(t: Tensor, alpha: Tensor) -> tuple[Tensor, Tensor]:
                # The rows of an image share its number, so that a caption's score is a function of
                # its words.
                n_rows = tf.shape(alpha)[0] // tf.shape(uniform)[0]
                location = hard_attention.locate(alpha, tf.repeat(uniform[:, t], n_rows))
                return hard_attention.weights(alpha, location), location

            return choose
        return None

    def location_draws(self, n_steps: Tensor) -> Tensor:
        """Uniform numbers (N, n_steps) that decide drawn locations, see
        `core.decoding.sampling.uniforms`.
        """
        return uniforms(self.dropout_seed, LOCATION_DRAWS, self.image_numbers, n_steps, self.dtype)

    def build_model(self, training: bool = True, locations: Tensor = None, *,
                    features: Tensor = None, compute_dtype: DType = None,
                    jit: bool | None = None) -> Tensor:
        """The training graph under teacher forcing; its gradient is the training gradient, hard
        attention's too.

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
            jit: False: no XLA here, whatever the model was made with; True: with it; None: as the
                model was made.

        Returns:
            Scalar loss: cross entropy summed over words, divided by R, plus the regularisers.
            Padding carries none.
        """
        if jit is not None:
            self.attention.compile(jit)
        with tf1.name_scope('training' if training else 'loss'):
            self.before = self._values_before() if training and compute_dtype == tf.float16 else {}
            with tf.control_dependencies(list(self.before.values())):
                graph = TrainingGraph(self, self.training_inputs(features), training, locations,
                                      self.decoding_choice, compute_dtype)
                self.loss, self.outputs = graph.build()
            self.nll = self.outputs.nll
        return self.loss

    def training_inputs(self, features: Tensor = None) -> TrainingInputs:
        """What the training graph reads: `features` (N, L, D), or where that is None, those of the
        model.
        """
        return TrainingInputs(self.features if features is None else features, self.captions,
                              self.dropout_seed, self.annealed)

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
            Decoding; the steps' trace is (alpha (R, L), beta (R, 1)).
        """
        annotations = self.annotations(self.features)
        memory, n = self.attention.memory(annotations), tf.shape(self.features)[0]
        drawn = self.options.decode_context == 'sample'
        images = {'features': memory.features, 'projected': memory.projected}
        if drawn:
            images['uniform'] = self.location_draws(max_len)
        weights = self.step_weights(memory)

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
        return Decoding(step, images, (self.initial_state(annotations), tf.zeros([n], tf.int32)),
                        start)
