"""`Solver`: the training loop, from the first step or from a checkpoint.

    solver = Solver(model, data, val_data, n_epochs=20, model_path='runs/flickr8k')
    solver.train()
    captions = solver.test(val_data)
"""

import contextlib
import dataclasses
import pathlib
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, NoReturn

import numpy as np

from core.common import progress, terminal
from core.common.aliases import DType, PathLike, Say, Session
from core.common.errors import InputError
from core.config.config import Config
from core.config.decoding import DecodingConfig
from core.data import device_features
from core.data.batches import Batches, prefetch
from core.data.data_dir import CaptionData
from core.data.word_vectors import assign_word_vectors
from core.decoding.captions import Caption, generate
from core.decoding.search_loop import Hypotheses
from core.metrics.sentence_rewards import training_rewards
from core.runtime import devices
from core.runtime.backend import tf, tf1
from core.runtime.xla import with_working_xla
from core.training.checkpoints import BestModel, Checkpoints, initialize_from, latest_state
from core.training.interrupts import Interrupts, Stopped
from core.training.metrics_log import Journal, Report, unigram_loss
from core.training.optimization import (
    PRECISIONS,
    Optimization,
    check_training_options,
    diverged,
)
from core.training.training_state import TrainingState
from core.training.validation import Validation

if TYPE_CHECKING:
    from core.data.split import Batchable, Split
    from core.model.caption_generator import CaptionGenerator

Arrays = dict[str, np.ndarray]  # 'features', 'captions', 'image_idxs': the TF1 code's data


@dataclasses.dataclass
class _Run:
    """What one call of `train` works with.

    Attributes:
        session: Session with all variables. state: TrainingState. optimization: Optimization.
        checkpoints: Checkpoints. best: BestModel. journal: Journal. interrupts: Interrupts.
        report: Report. validation: Validation, or None without dev images.
    """

    session: Session
    state: TrainingState
    optimization: Optimization
    checkpoints: Checkpoints
    best: BestModel
    journal: Journal
    interrupts: Interrupts
    report: Report
    validation: Validation | None


class Solver:
    """Trains a CaptionGenerator.

    Args:
        model: CaptionGenerator, in a graph of its own.
        data: Split to train on, or the TF1 code's dict of arrays ('features', 'captions',
            'image_idxs').
        val_data: the same, to validate on by free-running decoding; None: no validation.
        model_path: directory for checkpoints, the best model and metrics.jsonl; training goes on
            from what is there.
        log_path: directory for TensorBoard, or None.
        pretrained_model: checkpoint, or directory of a run, whose (best) model training starts
            from; None: a new one.
        word_vectors: (numbers of words (n,), their vectors (n, M)) that training starts from, or
            None; see `core.data.word_vectors`.
        decoding: DecodingConfig.
        machine: core.runtime.devices.Machine, where to train; None: Machine().
        say: function that prints a line.
        options: the options of `core.config.training.TrainingConfig`, such as n_epochs, batch_size,
            update_rule, learning_rate, print_every, save_every. For the same initial weights in
            every process, also call `tf.compat.v1.set_random_seed` before the model is made.

    Raises:
        InputError: an unknown option, with the nearest name, or a bad value; data that do not fit
            the model.
    """

    def __init__(self, model: 'CaptionGenerator', data: 'Split | Arrays',
                 val_data: 'Split | Arrays | None' = None, *, model_path: PathLike = 'model',
                 log_path: PathLike | None = None, pretrained_model: PathLike | None = None,
                 word_vectors: tuple[np.ndarray, np.ndarray] | None = None,
                 decoding: DecodingConfig | None = None, machine: devices.Machine | None = None,
                 say: Say = print, **options: object) -> None:
        self.options = Config.from_dict({'training': options}, where='Solver').training
        self.model, self.decoding, self.say = model, decoding or DecodingConfig(), say
        self.machine = machine or devices.Machine()
        self.data = self._checked(data, 'data')
        self.val_data = None if val_data is None else self._checked(val_data, 'val_data')
        self.model_path, self.log_path = pathlib.Path(model_path), log_path
        self.pretrained_model, self.word_vectors = pretrained_model, word_vectors
        check_training_options(self.options, model)
        self.batches = self._batches(self.data, model.inputs.dtype.as_numpy_dtype)
        if not len(self.batches):
            raise InputError('there is no training caption: raise --max-length, or look at the '
                             'split')
        self._hypotheses: Hypotheses | None = None
        self._optimization: Optimization | None = None
        self._resident: device_features.ResidentFeatures | None = None

    def _checked(self, data: 'Split | Arrays', name: str) -> 'Split':
        """Return the data as a Split; raise InputError if it does not fit the model."""
        model = self.model
        split = CaptionData.from_arrays(data, model.idx_to_word) if isinstance(data, dict) else data
        sizes, captions = tuple(split.features.shape[1:]), split.captions
        if sizes != (model.L, model.D):
            raise InputError(f'{name}: features are {sizes}, the model expects {model.L, model.D}')
        if captions.shape[1] != model.T + 1:
            raise InputError(f'{name}: captions have {captions.shape[1]} places, the model expects '
                             f'{model.T + 1} (n_time_step + 1)')
        if captions.size and captions.max() >= model.V:
            raise InputError(f'{name}: captions use word {captions.max()}, the model has {model.V} '
                             'words')
        return split

    def _batches(self, data: 'Batchable', dtype: DType) -> Batches:
        options = self.options
        return Batches(data, options.batch_size, options.seed, batch_by=options.batch_by,
                       bucket_width=options.bucket_width,
                       captions_per_image=options.captions_per_image, dtype=dtype)

    # ---- graph

    def build(self) -> None:
        """Add loss, optimizer and search to the model's graph; `train` calls this where needed."""
        if self._optimization is not None:
            return
        model = self.model
        rewards = training_rewards(self.data.references, model.word_to_idx, model.options,
                                   self.model_path, self.data.tokens)
        with model.graph.as_default():
            self._search()
            self._keep_features()
            loss = model.build_model(features=self._resident and self._resident.features,
                                     compute_dtype=PRECISIONS[self.options.precision],
                                     jit=self._jit(), rewards=rewards)
            self._optimization = Optimization(model, loss, self.options, len(self.batches))

    def _keep_features(self) -> None:
        """Have batches hold image numbers, where the features are to stay on the device."""
        stored, dtype = self.data.stored, self.model.inputs.dtype
        if not stored and self.machine.features_on_device == 'on':
            raise InputError('--features-on-device on: fine-tuning reads images, there are no '
                             'features to keep')
        size = device_features.ResidentFeatures.size(self.data, dtype)
        if stored and device_features.keeps_features(self.machine, size):
            self.say(f'features of {len(self.data)} images stay on the device: '
                     f'{terminal.size_text(size)}')
            self._resident = device_features.ResidentFeatures(self.data, dtype)
            self.batches = self._batches(self._resident, np.int64)

    def _search(self) -> Hypotheses:
        """Return the Hypotheses that the model's search finds; build it at first."""
        if self._hypotheses is None:
            if self.model.jit or self.machine.xla == 'all':
                dtype = PRECISIONS[self.options.precision]
                self.machine = with_working_xla(self.machine, dtype, self.say)
            with self.model.graph.as_default():
                self._hypotheses = self.model.build_search(self.decoding, jit=self._jit())
        return self._hypotheses

    def _jit(self) -> bool:
        return self.model.jit and self.machine.xla != 'off'

    def _session(self) -> Session:
        return tf1.Session(graph=self.model.graph, config=devices.session_config(self.machine))

    def _best_model(self) -> BestModel:
        """Return the BestModel over all that decoding needs, an encoder's trained part too."""
        return BestModel(self.model_path / 'best', self.model.saved)

    def _load_encoder(self, session: Session) -> None:
        """Load an encoder from its weights file: checkpoints hold its trained part alone."""
        if self.model.encoder:
            self.model.encoder.restore(session)

    # ---- training

    def train(self) -> dict[str, object]:
        """Train until all epochs are done or validations stop getting better.

        Training goes on from the last checkpoint in `model_path`, bit for bit. SIGINT and SIGTERM
        end the step that runs, save a checkpoint and raise KeyboardInterrupt. A validation ends at
        once, and is done again when training goes on.

        Returns:
            dict: the state of training: step, epoch, best_score, best_step ...
        """
        if self.options.learning_rate_schedule == 'plateau' and self.val_data is None:
            raise InputError('learning_rate_schedule=plateau follows the validations, and there is '
                             'no dev split; choose another schedule')
        directory = self.model_path / 'checkpoints'
        saved = latest_state(directory)
        state = TrainingState.from_dict(saved or {})
        if saved and self._finished(state):
            self._say_finished(state)
            return saved
        # Made first: what validation lacks is told now, not after an epoch.
        validation = None if self.val_data is None else Validation(
            self.val_data, self.options, self.decoding, self.say)
        self.build()
        optimization = self._optimization
        assert optimization
        with self.model.graph.as_default():
            checkpoints = Checkpoints(directory, tf1.global_variables(),
                                      self.options.keep_checkpoints)
            best, initialize = self._best_model(), tf1.global_variables_initializer()
        with contextlib.ExitStack() as stack:
            if validation:
                stack.callback(validation.close)
            session = stack.enter_context(self._session())
            interrupts = stack.enter_context(Interrupts())
            if self._resident:
                self._resident.load(session)
            if saved:
                self._load_encoder(session)
                checkpoints.restore(session, saved)
                self.say(f'going on from step {state.step} (epoch {state.epoch + 1})')
            else:
                session.run(initialize)
                self._begin(session, optimization)
            journal = Journal(self.model_path, self.log_path, state.step)
            stack.callback(journal.close)
            unigram = (None if self.model.options.self_critical else
                       unigram_loss(self.data.captions, self.model.null))
            report = Report(self.options, optimization, journal, unigram,
                            len(self.data.captions), len(self.batches))
            self._loop(_Run(session, state, optimization, checkpoints, best, journal, interrupts,
                            report, validation))
        return state.to_dict()

    def _begin(self, session: Session, optimization: Optimization) -> None:
        """Put the variables of a new run where training starts."""
        model = self.model
        self._load_encoder(session)
        if self.pretrained_model:
            prefix = pathlib.Path(self.pretrained_model)
            if prefix.is_dir():
                prefix = BestModel(prefix / 'best').prefix()
            initialize_from(session, prefix, model.variables)
            # What was fine-tuned there goes on from there, the rest of the encoder from its weights
            # file.
            names = tf.train.load_checkpoint(str(prefix)).get_variable_to_shape_map()
            trained = model.encoder.trained if model.encoder else ()
            tuned = [variable for variable in trained if variable.op.name in names]
            if tuned:
                initialize_from(session, prefix, tuned)
        if self.word_vectors is not None:
            assign_word_vectors(session, model.embedding, *self.word_vectors)
        if optimization.averages:
            optimization.averages.begin(session)

    def _averaged(self, run: _Run) -> contextlib.AbstractContextManager:
        """While active, have the variables be the averages of `weight_averaging`, if asked for."""
        averages = run.optimization.averages
        return averages.used(run.session) if averages else contextlib.nullcontext()

    def _loop(self, run: _Run) -> None:
        """Train epoch after epoch, validating and saving between them."""
        options, state = self.options, run.state
        while not self._finished(state):
            self._epoch(run)
            if not run.session.run(run.optimization.healthy):
                self._diverged(state.step)
            state.epoch, state.position = state.epoch + 1, 0
            last = state.epoch == options.n_epochs
            if run.validation and (last or state.epoch % options.validate_every == 0):
                self._validate(run, run.validation)
            elif not run.validation:  # nothing to choose by: the newest model is the best
                with self._averaged(run):
                    run.best.save(run.session, {'step': state.step, 'epoch': state.epoch,
                                                'scores': {}})
            if self._finished(state) or state.epoch % options.save_every == 0:
                self._save(run)
        self._say_finished(state)

    def _validate(self, run: _Run, validation: Validation) -> None:
        try:
            with self._averaged(run):
                validation.run(run.session, self.model, self._search(), run.interrupts, run.state,
                               run.best, run.journal)
        except Stopped:
            # Saved as after the epoch's last step, so that the validation comes next.
            run.state.epoch, run.state.position = run.state.epoch - 1, len(self.batches)
            self._stop(run)

    def _save(self, run: _Run) -> None:
        """Save a checkpoint, but never one that training could not go on from."""
        if not run.session.run(run.optimization.healthy):
            self._diverged(run.state.step)
        run.checkpoints.save(run.session, run.state.to_dict())

    def _stop(self, run: _Run) -> NoReturn:
        """End training after an interrupt, with a checkpoint."""
        self._save(run)
        self.say(f'saved at step {run.state.step}; the same command goes on from there')
        raise KeyboardInterrupt

    def _diverged(self, step: int) -> NoReturn:
        raise InputError(f'training diverged: the loss or a variable is not finite at step {step}; '
                         'lower learning_rate or clip_norm; the last checkpoint is kept')

    def _finished(self, state: TrainingState) -> bool:
        """Say whether all epochs are done, or `patience` validations in a row were no better."""
        patience = self.options.patience
        return state.epoch >= self.options.n_epochs or bool(patience) and state.waited >= patience

    def _say_finished(self, state: TrainingState) -> None:
        options = self.options
        reason = ('all epochs are done' if state.epoch >= options.n_epochs else
                  f'no better {options.validation_metric} in {state.waited} validations')
        best = ''
        if state.best_step:
            best = (f', best {options.validation_metric} {state.best_score:.4f} at step '
                    f'{state.best_step}')
        self.say(f'training is complete: {reason}; step {state.step}{best}')

    def _epoch(self, run: _Run) -> None:
        """Train from state.position to the end of the epoch."""
        model, options, state = self.model, self.options, run.state
        optimization, outputs = run.optimization, self.model.outputs
        assert outputs
        fetches = {'train': optimization.train_op, 'nll': model.nll, 'words': outputs.n_words,
                   'entropy': outputs.entropy, 'norm': optimization.gradient_norm,
                   'reward': outputs.reward}
        if optimization.loss_scale:
            fetches['scale'] = optimization.loss_scale.value
        inputs = self._resident.numbers if self._resident else model.inputs
        saved = time.monotonic()
        run.report.begin()
        with progress.epoch_bar(len(self.batches), f'epoch {state.epoch + 1}/{options.n_epochs}',
                                state.position) as bar:
            # Batches are a function of seed and epoch: a resumed run takes the rest of the same.
            for batch in prefetch(self.batches.epoch(state.epoch, state.position)):
                result = run.session.run(fetches, {
                    inputs: batch.features, model.captions: batch.captions,
                    # Masks and draws follow from seed and step, so a resumed run draws the same.
                    model.dropout_seed: (options.seed, state.step),
                    model.image_numbers: batch.images,
                    **optimization.feeds(state.step, state.rate_factor)})
                if diverged(result['nll'], result['norm'], result.get('scale')):
                    self._diverged(state.step + 1)
                run.report.loss_scale = result.get('scale')
                state.add(len(batch.index), float(result['nll']), round(float(result['words'])),
                          float(result['entropy']), float(result['reward'] or 0))
                run.report.add(len(batch.index))
                bar.update()
                if state.step % options.print_every == 0:
                    run.report.write(state, bar)
                due = options.save_minutes and time.monotonic() - saved > 60 * options.save_minutes
                if run.interrupts.came:
                    self._stop(run)
                if due:
                    self._save(run)
                    saved = time.monotonic()
            if state.words:  # what was not reported yet, so that a short epoch shows its loss too
                run.report.write(state, bar)

    # ---- test

    def test(self, data: 'Split | Arrays | None' = None,
             images: Sequence[int] | None = None) -> list[Caption]:
        """Caption images with the best model.

        Args:
            data: Split or dict of arrays; None: val_data.
            images: which of its images, by number; None: all.

        Returns:
            list of Caption.
        """
        split = self.val_data if data is None else self._checked(data, 'data')
        if split is None:
            raise InputError('test: there are no val_data to caption; give data')
        hypotheses = self._search()
        with self.model.graph.as_default(), self._session() as session:
            self._load_encoder(session)
            self._best_model().restore(session)
            return list(generate(session, self.model, hypotheses, split, images,
                                 self.decoding.decode_batch))
