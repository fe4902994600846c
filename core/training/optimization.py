"""What a training step does to the variables: optimizers, clipping, weight decay, averages.

    optimization = Optimization(model, loss, options, steps_per_epoch=100)  # in its graph
    session.run(optimization.train_op, {..., **optimization.feeds(step)})

Whatever changes in the course of training is a function of the step, or kept in variables or in the
checkpoint's state: training that goes on from a checkpoint does what it would have done.
"""

import contextlib
import math
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from core.common.aliases import Operation, Session, Tensor, Variable
from core.common.errors import InputError
from core.runtime.backend import tf, tf1
from core.training.schedules import annealed_at, averaging_decay_at, learning_rate_at

if TYPE_CHECKING:
    from core.config.training import TrainingConfig
    from core.model.caption_generator import CaptionGenerator

# The option `precision` as `compute_dtype` of `build_model`.
PRECISIONS = {'float32': None, 'bfloat16': tf.bfloat16, 'float16': tf.float16}
FIRST_SCALE, LEAST_SCALE, GROWTH_STEPS = 2.0**15, 1.0, 2000  # of the loss in float16


def check_training_options(options: 'TrainingConfig', model: 'CaptionGenerator') -> None:
    """Raise InputError for training options that do nothing with this model.

    Args:
        options: TrainingConfig. model: CaptionGenerator.

    Raises:
        InputError: names the options and the way out.
    """
    starts = {'lambda_e': options.lambda_e_start, 'temperature': options.temperature_start}
    for name, start in starts.items():
        if start and not options.anneal_epochs:
            raise InputError(f'{name}_start needs anneal_epochs, the epochs that the way to {name} '
                             'takes')
        if start and name not in model.annealed:
            raise InputError(f'{name}_start needs attention=hard; soft attention has no {name}')
    plateau = options.learning_rate_schedule == 'plateau'
    if plateau and 0 < options.patience <= options.plateau_patience:
        raise InputError('training would stop (patience) before learning_rate_schedule=plateau '
                         'lowers the rate (plateau_patience); set a larger patience')
    if options.anneal_epochs and not annealed_at(options, model, 0, 1):
        raise InputError('anneal_epochs has nothing to anneal: set lambda_e_start, '
                         'temperature_start or scheduled_sampling, or leave it out')
    if model.options.self_critical:
        if options.batch_by != 'image':
            raise InputError('self_critical draws several captions of an image; set batch_by=image '
                             'and captions_per_image, how many')
        if model.options.sentence_baseline == 'leave_one_out' and options.captions_per_image < 2:
            raise InputError('sentence_baseline=leave_one_out needs captions_per_image of 2 or '
                             'more')


def diverged(nll: float, norm: float, scale: float | None = None) -> bool:
    """Say whether training cannot go on after a step.

    Args:
        nll: the step's loss. norm: its `gradient_norm`.
        scale: in float16, the `loss_scale` it had.
    """
    if not math.isfinite(nll):
        return True
    # A step whose scaled gradients were too large for float16 was skipped, which does no harm as
    # long as there is a scale left to halve.
    return not math.isfinite(norm) and not (scale and scale / 2 > LEAST_SCALE)


class Optimization:
    """The operation of a training step.

    Gradients of all trained variables are clipped together. The model's variables are trained by
    the optimizer that the options name; the encoder's (`model.encoder`, where there is any) by
    another of the same kind with `finetune_rate` of the rate. Weight decay takes rate *
    weight_decay of every matrix away, apart from the gradient (Loshchilov & Hutter, arXiv
    1711.05101); biases and batch normalisation are left alone.

    With the option `precision` float16 gradients are those of the loss times a factor, see
    `LossScale`, and a step whose gradients are not finite is skipped: all variables, the
    optimizer's and all averages too, stay as they were.

    Args:
        model: CaptionGenerator. loss: what its `build_model` returned, in the default graph; called
            with the `compute_dtype` that the option `precision` means (`PRECISIONS`).
        options: TrainingConfig. steps_per_epoch: int.

    Attributes:
        variables: list of trained variables.
        train_op: operation. gradient_norm: scalar, the global norm before clipping.
        averages: Averages, or None without `weight_averaging`.
        loss_scale: LossScale, or None but in float16.
        healthy: bool, whether all variables are finite.
    """

    def __init__(self, model: 'CaptionGenerator', loss: Tensor, options: 'TrainingConfig',
                 steps_per_epoch: int) -> None:
        self.options, self._model, self._steps = options, model, steps_per_epoch
        self._rate = tf1.placeholder(tf.float32, [], 'learning_rate')
        trainable = {variable.ref() for variable in tf1.trainable_variables()}
        decoder = [variable for variable in model.variables if variable.ref() in trainable]
        if not options.train_embedding:
            decoder = [variable for variable in decoder if variable is not model.embedding]
        encoder = list(model.encoder.trained) if model.encoder else []
        self.variables = decoder + encoder

        # In float16, small gradients survive in the loss times a factor; in others there is none.
        self.loss_scale = LossScale() if options.precision == 'float16' else None
        scaled = self.loss_scale.times(loss) if self.loss_scale else loss
        gradients = [_dense(gradient, variable) for gradient, variable in zip(
            tf1.gradients(scaled, self.variables), self.variables, strict=True)]
        if self.loss_scale:
            gradients = [self.loss_scale.undone(gradient) for gradient in gradients]
        # Clipped all together: the direction of the step stays what it was.
        self.gradient_norm = tf.linalg.global_norm(gradients)
        if options.clip_norm:
            gradients, _ = tf.clip_by_global_norm(gradients, options.clip_norm, self.gradient_norm)
        self.averages: Averages | None = None
        # Loss and gradients are complete before any variable changes.
        with tf.control_dependencies([loss, *tf.nest.flatten(model.outputs), *gradients]):
            if self.loss_scale:
                self.train_op = self._step_unless_overflown(gradients, decoder, encoder,
                                                            self.loss_scale)
            else:
                self.train_op = self._step(gradients, decoder, encoder)
        # Also false where the squares overflow: such weights are finite, what they compute is not.
        self.healthy = tf.math.is_finite(tf.linalg.global_norm([*model.variables, *encoder]))

    def _step(self, gradients: Sequence[Tensor], decoder: Sequence[Variable],
              encoder: Sequence[Variable]) -> Operation:
        """Return the operation that changes the variables."""
        options, finetune_rate = self.options, self._rate * self.options.finetune_rate
        # The decay first, and apart from the gradient, which would scale it by its own history.
        decays = self._decays(decoder, self._rate) + self._decays(encoder, finetune_rate)
        with tf.control_dependencies(decays):
            pairs = list(zip(gradients, self.variables, strict=True))
            # The model's first: its optimizer's own variables keep their names, whether an encoder
            # is there or not.
            steps = [_optimizer(options, self._rate).apply_gradients(pairs[:len(decoder)])]
            if encoder:
                steps.append(_optimizer(options, finetune_rate).apply_gradients(
                    pairs[len(decoder):]))
        step = tf.group(*steps)
        if options.weight_averaging:
            with tf.control_dependencies(steps):
                self.averages = Averages(self.variables)
            step = self.averages.update
        return step

    def _step_unless_overflown(self, gradients: Sequence[Tensor], decoder: Sequence[Variable],
                               encoder: Sequence[Variable], loss_scale: 'LossScale') -> Operation:
        """Return the same where all gradients are finite; else all is as it was before the step."""
        # The forward pass has moved these already: a step that is skipped puts them back.
        before = [(reference.deref(), value) for reference, value in self._model.before.items()]

        def take() -> Tensor:
            with tf.control_dependencies([self._step(gradients, decoder, encoder)]):
                return tf.constant(True)

        def skip() -> Tensor:
            with tf.control_dependencies(
                [variable.assign(value, read_value=False) for variable, value in before]):
                return tf.constant(False)

        # Read before the branch, which may change what is read.
        with tf.control_dependencies([value for _, value in before]):
            finite = tf.math.is_finite(self.gradient_norm)
        taken = tf.cond(finite, take, skip)
        return tf.group(taken, loss_scale.update(finite))

    def _decays(self, variables: Sequence[Variable], rate: Tensor) -> list[Operation]:
        """Return operations that take rate * weight_decay of every matrix away."""
        if not self.options.weight_decay:
            return []
        share = rate * self.options.weight_decay
        return [variable.assign_sub(tf.cast(share, variable.dtype) * variable.read_value(),
                                    read_value=False) for variable in variables
                if _is_matrix(variable)]

    def learning_rate_at(self, step: int, factor: float = 1.0) -> float:
        """Return the learning rate of a step, see `schedules.learning_rate_at`."""
        return learning_rate_at(self.options, step, self._steps, factor)

    def annealed_at(self, step: int) -> dict[str, float]:
        """Return the annealed quantities of a step, see `schedules.annealed_at`."""
        return annealed_at(self.options, self._model, step, self._steps)

    def feeds(self, step: int, factor: float = 1.0) -> dict[Tensor, float]:
        """Return what `train_op` must be fed with besides the batch: placeholder -> value.

        Args:
            step: int. factor: of the learning rate, see `schedules.plateau_factor`.
        """
        values = {self._rate: self.learning_rate_at(step, factor)}
        if self.averages:
            values[self.averages.decay] = averaging_decay_at(self.options, step)
        return values | {self._model.annealed[name]: value
                      for name, value in self.annealed_at(step).items()}


class LossScale:
    """The factor on the loss that keeps small gradients from vanishing in float16.

    Micikevicius et al. 2017, arXiv 1710.03740. It is halved after every step whose gradients are
    not finite, and doubled after `GROWTH_STEPS` steps in a row whose gradients are. Factor and
    count are variables, so that checkpoints hold them.

    Attributes:
        value: scalar float32, the factor of the step.
    """

    def __init__(self) -> None:
        with tf1.variable_scope('loss_scale', reuse=tf1.AUTO_REUSE, use_resource=True):
            self._scale = tf1.get_variable('factor', [], tf.float32,
                                           tf1.constant_initializer(FIRST_SCALE), trainable=False)
            self._good = tf1.get_variable('good_steps', [], tf.int64, tf1.zeros_initializer(),
                                          trainable=False)
        self.value = self._scale.read_value()

    def times(self, loss: Tensor) -> Tensor:
        """Return the loss whose gradients `undone` takes."""
        return loss * tf.cast(self.value, loss.dtype)

    def undone(self, gradient: Tensor) -> Tensor:
        """Return the gradient of the loss from that of the scaled one."""
        # Exact, as the factor is a power of two.
        return gradient / tf.cast(self.value, gradient.dtype)

    def update(self, finite: Tensor) -> Operation:
        """Return the operation that sets factor and count after a step.

        It comes after the control dependencies around.

        Args:
            finite: scalar bool, whether the step's gradients were finite.
        """
        good = self._good.read_value() + 1
        grown = good >= GROWTH_STEPS
        # Beyond the largest float32 there is no gradient to win.
        doubled = tf.where(tf.math.is_finite(2 * self.value), 2 * self.value, self.value)
        halved = tf.maximum(self.value / 2, LEAST_SCALE)
        scale = tf.where(finite, tf.where(grown, doubled, self.value), halved)
        good = tf.where(tf.logical_and(finite, tf.logical_not(grown)), good, 0)
        return tf.group(self._scale.assign(scale, read_value=False),
                        self._good.assign(good, read_value=False))


class Averages:
    """Moving averages of variables over the steps, with which a model is validated and kept.

    tf.train.ExponentialMovingAverage has the update alone: it lacks beginning at the values that a
    pretrained model has put there, and taking the variables' place for a while. The averages are
    kept in variables of their own, which checkpoints hold too.

    Args:
        variables: list. The update that is made here comes after the control dependencies around.

    Attributes:
        decay: placeholder, the share of the old average. update: operation, moves the averages.
    """

    def __init__(self, variables: Sequence[Variable]) -> None:
        self._variables = variables
        # All but the update outside of what it is made in, which may be the branch of a condition.
        with tf.init_scope(), tf1.variable_scope('weight_averaging', reuse=tf1.AUTO_REUSE,
                                                 use_resource=True):
            self.decay = tf1.placeholder(tf.float32, [], 'averaging_decay')
            self._averages = [tf1.get_variable(v.op.name, v.shape, v.dtype, tf1.zeros_initializer(),
                                               trainable=False) for v in variables]
        pairs = list(zip(self._averages, variables, strict=True))
        self.update = tf.group(*[
            average.assign_sub(
                tf.cast(1 - self.decay, v.dtype) * (average.read_value() - v.read_value()),
                read_value=False) for average, v in pairs])
        with tf.init_scope():
            self._begin = tf.group(*[average.assign(v.read_value(), read_value=False)
                                     for average, v in pairs])
            self._use = tf.group(*[v.assign(average.read_value(), read_value=False)
                                   for average, v in pairs])
            self._values = [tf1.placeholder(v.dtype, v.shape) for v in variables]
            self._give_back = tf.group(*[v.assign(x, read_value=False)
                                         for v, x in zip(variables, self._values, strict=True)])

    def begin(self, session: Session) -> None:
        """Begin at the variables' values: once, when training begins."""
        session.run(self._begin)

    @contextlib.contextmanager
    def used(self, session: Session) -> Iterator[None]:
        """While active, have the variables take the averages' values."""
        values = session.run(self._variables)
        session.run(self._use)
        try:
            yield
        finally:
            session.run(self._give_back, dict(zip(self._values, values, strict=True)))


def _dense(gradient: Tensor, variable: Variable) -> Tensor:
    """Return the gradient as a tensor; zeros for a variable that the loss does not reach."""
    # The norm of a sparse gradient would count a word's rows one by one, not their sum.
    return tf.zeros_like(variable) if gradient is None else tf.convert_to_tensor(gradient)


def _is_matrix(variable: Variable) -> bool:
    """Say whether weight decay is for a variable: not for biases, nor scales."""
    # The bias of the GRU has two rows, and is none the less a bias.
    return variable.shape.rank >= 2 and variable.op.name.rpartition('/')[2] != 'bias'


def _optimizer(options: 'TrainingConfig', rate: Tensor) -> Any:
    """Return the tf.train.Optimizer that `update_rule` names (4.3: RMSProp and Adam)."""
    return {
        'adam': lambda: tf1.train.AdamOptimizer(rate),
        'rmsprop': lambda: tf1.train.RMSPropOptimizer(rate),
        'momentum': lambda: tf1.train.MomentumOptimizer(rate, options.momentum),
        'sgd': lambda: tf1.train.GradientDescentOptimizer(rate),
    }[options.update_rule]()
