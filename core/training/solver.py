"""`Solver`: sessions, optimizer, training loop, validation, checkpoints and resume.

    solver = Solver(model, data, val_data, n_epochs=20, learning_rate=1e-3, model_path='runs/flickr8k')
    solver.train()
    captions = solver.test(val_data)
"""

import contextlib
import pathlib
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NoReturn

import numpy as np

from core.common import progress, terminal
from core.common.aliases import DType, PathLike, Say, Session
from core.common.errors import InputError
from core.config.config import Config
from core.config.decoding import DecodingConfig
from core.data import device_features
from core.data.batches import Batches, prefetch
from core.data.data_dir import CaptionData
from core.data.vocabulary import tokenize
from core.data.word_vectors import assign_word_vectors
from core.decoding.captions import Caption, generate
from core.metrics.scorer import Scorer
from core.runtime import devices
from core.runtime.backend import tf, tf1
from core.runtime.xla import with_working_xla
from core.training.checkpoints import BestModel, Checkpoints, initialize_from, latest_state, replaces
from core.training.interrupts import Interrupts, Stopped
from core.training.metrics_log import Journal
from core.training.optimization import PRECISIONS, Optimization, check, diverged
from core.training.schedules import plateau_factor
from core.training.training_state import TrainingState

if TYPE_CHECKING:
    from core.model.caption_generator import CaptionGenerator

SCORES = {'Bleu_4': 'Bleu', 'METEOR': 'METEOR', 'CIDEr': 'CIDEr', 'ROUGE_L': 'ROUGE_L'}


class Solver:
    """Trains a CaptionGenerator.

    Args:
        model: CaptionGenerator, in a graph of its own.
        data: CaptionData to train on, or the TF1 code's dict of arrays ('features', 'captions',
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

    def __init__(self, model: 'CaptionGenerator', data: Any, val_data: Any = None, *,
                 model_path: PathLike = 'model', log_path: PathLike | None = None,
                 pretrained_model: PathLike | None = None,
                 word_vectors: tuple[np.ndarray, np.ndarray] | None = None,
                 decoding: DecodingConfig | None = None, machine: devices.Machine | None = None,
                 say: Say = print, **options: Any) -> None:
        self.options = Config.from_dict({'training': options}, where='Solver').training
        self.model, self.decoding, self.say = model, decoding or DecodingConfig(), say
        self.machine = machine or devices.Machine()
        self._resident: device_features.ResidentFeatures | None = None
        self.data, self.val_data = self._checked(data, 'data'), self._checked(val_data, 'val_data')
        self.model_path, self.log_path = pathlib.Path(model_path), log_path
        self.pretrained_model, self.word_vectors = pretrained_model, word_vectors
        check(self.options, model)
        self.batches = self._batches(self.data, model.inputs.dtype.as_numpy_dtype)
        if not len(self.batches):
            raise InputError('there is no training caption: raise --max-length, or look at the '
                             'split')
        # Hypotheses, Optimization and Scorer, once they are made.
        self._hypotheses: Any = None
        self._optimization: Any = None
        self._scorer: Any = None
        self._scale: float | None = None
        self._interrupts = Interrupts()

    def _checked(self, data: Any, name: str) -> Any:
        if data is None:
            return None
        if isinstance(data, dict):
            data = CaptionData.from_arrays(data, self.model.idx_to_word)
        expected = (self.model.L, self.model.D)
        if tuple(data.features.shape[1:]) != expected:
            raise InputError(f'{name}: features are {data.features.shape[1:]}, the model expects '
                             f'{expected}')
        if data.captions.shape[1] != self.model.T + 1:
            raise InputError(f'{name}: captions have {data.captions.shape[1]} places, the model '
                             f'expects {self.model.T + 1} (n_time_step + 1)')
        if data.captions.size and data.captions.max() >= self.model.V:
            raise InputError(f'{name}: captions use word {data.captions.max()}, the model has '
                             f'{self.model.V} words')
        return data

    def _batches(self, data: Any, dtype: DType) -> Batches:
        options = self.options
        return Batches(data, options.batch_size, options.seed, batch_by=options.batch_by,
                       bucket_width=options.bucket_width,
                       captions_per_image=options.captions_per_image, dtype=dtype)

    # ---- graph

    def build(self) -> None:
        """Add loss, optimizer and sampler to the model's graph; called by `train` and `test` where
        needed.
        """
        if self._optimization is not None:
            return
        compute_dtype = PRECISIONS[self.options.precision]
        with self.model.graph.as_default():
            self._build_search()
            self._keep_features()
            loss = self.model.build_model(features=self._resident and self._resident.features,
                                          compute_dtype=compute_dtype, jit=self._jit())
            self._optimization = Optimization(self.model, loss, self.options, len(self.batches))

    def _keep_features(self) -> None:
        """Batches of image numbers instead of features, where these are to stay on the device."""
        stored, dtype = not hasattr(self.data, 'read_batch'), self.model.inputs.dtype
        if not stored and self.machine.features_on_device == 'on':
            raise InputError('--features-on-device on: fine-tuning reads images, there are no '
                             'features to keep')
        size = device_features.ResidentFeatures.size(self.data, dtype)
        if stored and device_features.keeps_features(self.machine, size):
            self.say(f'features of {len(self.data)} images stay on the device: '
                     f'{terminal.size_text(size)}')
            self._resident = device_features.ResidentFeatures(self.data, dtype)
            self.batches = self._batches(self._resident, np.int64)

    def _session(self) -> Session:
        return tf1.Session(graph=self.model.graph, config=devices.session_config(self.machine))

    def _build_search(self) -> None:
        if self._hypotheses is None:
            if self.model.jit or self.machine.xla == 'all':
                dtype = PRECISIONS[self.options.precision]
                self.machine = with_working_xla(self.machine, dtype, self.say)
            with self.model.graph.as_default():
                self._hypotheses = self.model.build_search(self.decoding, jit=self._jit())

    def _jit(self) -> bool:
        return self.model.jit and self.machine.xla != 'off'

    def _best_model(self) -> BestModel:
        """Return the BestModel over all that decoding needs, an encoder's trained part too."""
        return BestModel(self.model_path / 'best', self.model.saved)

    def _load_encoder(self, session: Session) -> None:
        """Load an encoder from its weights file: checkpoints hold its trained part alone."""
        if self.model.encoder:
            self.model.encoder.restore(session)

    def unigram_loss(self) -> float:
        """Nats a word of the best model that knows only how frequent words are: what a captioner
        must beat.
        """
        words = self.data.captions[:, 1:]
        counts = np.bincount(words[words != self.model.null])
        shares = counts[counts > 0] / counts.sum()
        return float(-(shares * np.log(shares)).sum())

    # ---- training

    def train(self) -> dict[str, Any]:
        """Train until `n_epochs` are done or validations stop getting better, going on from the
        last checkpoint.

        SIGINT and SIGTERM end the step that runs, save a checkpoint and raise KeyboardInterrupt. A
        validation ends at once, and is done again when training goes on.

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
        if self.val_data is not None:  # what validation needs is missed now, not after an epoch
            self._validated = self._images_to_validate()
            self._scorer = Scorer(
                {self.val_data.image_ids[i]: self.val_data.references[i] for i in self._validated})
        self.build()
        with self.model.graph.as_default():
            checkpoints = Checkpoints(directory, tf1.global_variables(),
                                      self.options.keep_checkpoints)
            self._best = self._best_model()
            initialize = tf1.global_variables_initializer()
        with self._session() as session, Interrupts() as self._interrupts:
            if self._resident:
                self._resident.load(session)
            if saved:
                self._load_encoder(session)
                checkpoints.restore(session, saved)
                self.say(f'going on from step {state.step} (epoch {state.epoch + 1})')
            else:
                session.run(initialize)
                self._begin(session)
            self._journal = Journal(self.model_path, self.log_path, state.step)
            try:
                self._loop(session, state, checkpoints)
            finally:
                self._journal.close()
                if self._scorer:
                    self._scorer.close()
                    self._scorer = None
        return state.to_dict()

    def _begin(self, session: Session) -> None:
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
            there = tf.train.load_checkpoint(str(prefix)).get_variable_to_shape_map()
            trained = model.encoder.trained if model.encoder else ()
            tuned = [variable for variable in trained if variable.op.name in there]
            if tuned:
                initialize_from(session, prefix, tuned)
        if self.word_vectors is not None:
            assign_word_vectors(session, model.embedding, *self.word_vectors)
        if self._optimization.averages:
            self._optimization.averages.begin(session)

    def _averaged(self, session: Session) -> contextlib.AbstractContextManager:
        """While active, the variables are the averages of `weight_averaging`, where that is asked
        for.
        """
        averages = self._optimization.averages
        return averages.used(session) if averages else contextlib.nullcontext()

    def _loop(self, session: Session, state: TrainingState, checkpoints: Checkpoints) -> None:
        options, unigram = self.options, self.unigram_loss()
        while not self._finished(state):
            self._epoch(session, state, checkpoints, unigram)
            if not session.run(self._optimization.healthy):
                self._diverged(state.step)
            state.epoch, state.position = state.epoch + 1, 0
            last = state.epoch == options.n_epochs
            if self.val_data is not None and (last or state.epoch % options.validate_every == 0):
                try:
                    with self._averaged(session):
                        self._validate(session, state)
                except Stopped:  # saved as after the epoch's last step, so that the validation comes next
                    state.epoch, state.position = state.epoch - 1, len(self.batches)
                    self._stop(session, state, checkpoints)
            elif self.val_data is None:
                with self._averaged(session):
                    self._best.save(
                        session, {'step': state.step, 'epoch': state.epoch, 'scores': {}})
            if self._finished(state) or state.epoch % options.save_every == 0:
                self._save(session, state, checkpoints)
        self._say_finished(state)

    def _save(self, session: Session, state: TrainingState, checkpoints: Checkpoints) -> None:
        """Save a checkpoint, but never one that training could not go on from."""
        if not session.run(self._optimization.healthy):
            self._diverged(state.step)
        checkpoints.save(session, state.to_dict())

    def _stop(self, session: Session, state: TrainingState, checkpoints: Checkpoints) -> NoReturn:
        """End training after an interrupt, with a checkpoint."""
        self._save(session, state, checkpoints)
        self.say(f'saved at step {state.step}; the same command goes on from there')
        raise KeyboardInterrupt

    def _diverged(self, step: int) -> NoReturn:
        raise InputError(f'training diverged: the loss or a variable is not finite at step {step}; '
                         'lower learning_rate or clip_norm; the last checkpoint is kept')

    def _finished(self, state: TrainingState) -> bool:
        options = self.options
        return state.epoch >= options.n_epochs or bool(options.patience) and state.waited >= options.patience

    def _say_finished(self, state: TrainingState) -> None:
        options = self.options
        reason = ('all epochs are done' if state.epoch >= options.n_epochs else
                  f'no better {options.validation_metric} in {state.waited} validations')
        self.say(f'training is complete: {reason}; step {state.step}' + (
            f', best {options.validation_metric} {state.best_score:.4f} at step {state.best_step}'
            if state.best_step else ''))

    def _epoch(self, session: Session, state: TrainingState, checkpoints: Checkpoints,
               unigram: float) -> None:
        """Train from state.position to the end of the epoch."""
        model, options, optimization = self.model, self.options, self._optimization
        fetches = {'train': optimization.train_op, 'nll': model.nll, 'words': model.outputs.n_words,
                   'entropy': model.outputs.entropy, 'norm': optimization.gradient_norm}
        if optimization.loss_scale:
            fetches['scale'] = optimization.loss_scale.value
        inputs = self._resident.numbers if self._resident else model.inputs
        saved = printed = time.monotonic()
        printed_captions = 0
        with progress.epoch_bar(len(self.batches), f'epoch {state.epoch + 1}/{options.n_epochs}',
                                state.position) as bar:
            for batch in prefetch(self.batches.epoch(state.epoch, state.position)):
                result = session.run(fetches, {
                    inputs: batch.features, model.captions: batch.captions,
                    # Masks and draws depend on the step alone, so a resumed run draws the same.
                    model.dropout_seed: (options.seed, state.step),
                    **optimization.feeds(state.step, state.rate_factor),
                })
                if diverged(result['nll'], result['norm'], result.get('scale')):
                    self._diverged(state.step + 1)
                self._scale = result.get('scale')
                state.add(len(batch.index), float(result['nll']), round(float(result['words'])),
                          float(result['entropy']))
                printed_captions += len(batch.index)
                bar.update()
                if state.step % options.print_every == 0:
                    now = time.monotonic()
                    self._report(state, unigram, printed_captions / (now - printed), bar)
                    printed, printed_captions = now, 0
                due = options.save_minutes and time.monotonic() - saved > 60 * options.save_minutes
                if self._interrupts.came:
                    self._stop(session, state, checkpoints)
                if due:
                    self._save(session, state, checkpoints)
                    saved = time.monotonic()
            if state.words:  # what was not reported yet, so that a short epoch shows its loss too
                self._report(
                    state, unigram, printed_captions / max(time.monotonic() - printed, 1e-9), bar)

    def _report(self, state: TrainingState, unigram: float, speed: float, bar: Any) -> None:
        """Print and record the means over the steps since the last report, and what held in the
        last of them.
        """
        loss, entropy, step = state.nll / state.words, state.entropy / state.words, state.step - 1
        n_epochs, size = self.options.n_epochs, len(self.batches)
        left = (n_epochs - state.epoch - state.position / size) * len(self.data.captions) / max(
            speed, 1e-9)
        progress.write(bar, f'epoch {state.epoch + 1}/{n_epochs}  step {state.position}/{size}  '
                       f'loss {loss:.3f} a word (unigram model {unigram:.3f})  entropy '
                       f'{entropy:.2f}  {speed:.0f} captions/s'
                       + (
            f'  {terminal.duration(left)} left without validation' if left > 0 else ''))
        self._journal.scalars('training', state.step, state.epoch, {
            'loss_per_word': loss, 'unigram_loss': unigram,
            'loss_per_caption': state.nll / state.captions, 'attention_entropy': entropy,
            'learning_rate': self._optimization.learning_rate_at(step, state.rate_factor),
            **self._optimization.annealed_at(step), 'captions_per_second': speed,
            **({'loss_scale': float(self._scale)} if self._scale else {})})
        state.forget_sums()

    # ---- validation and test

    def _images_to_validate(self) -> list[int]:
        """Numbers of the dev images whose references have words, `validation_limit` of them."""
        data = self.val_data
        images = [i for i in range(len(data)) if any(tokenize(text) for text in data.references[i])]
        if not images:
            raise InputError('validation: no dev image has a caption; add captions, or make data '
                             'without a dev split')
        return images[: self.options.validation_limit or len(images)]

    def _validate(self, session: Session, state: TrainingState) -> None:
        options, data = self.options, self.val_data
        images, begun = self._validated, time.monotonic()
        metrics = {'Bleu', 'CIDEr', 'ROUGE_L', SCORES[options.validation_metric]}
        if 'METEOR' in metrics:  # its process takes as long to start as many captions
            self._scorer.start()
        with self._interrupts.at_once():
            captions = list(generate(session, self.model, self._hypotheses, data, images,
                                     self.decoding.decode_batch))
            results = {data.image_ids[i]: caption.text
                       for i, caption in zip(images, captions, strict=True)}
            scores = self._scorer.score(results, sorted(metrics))
        score = scores[options.validation_metric]
        replaced, better = replaces(score, state.best_score)
        if replaced:
            state.best_score, state.best_step = score, state.step
            self._best.save(session, {'step': state.step, 'epoch': state.epoch, 'scores': scores})
        state.waited = 0 if better else state.waited + 1
        factor = plateau_factor(options, state.rate_factor, state.waited)
        if factor != state.rate_factor:
            state.rate_factor = factor
            self.say(f'no better {options.validation_metric} in {state.waited} validations: '
                     f'learning rate times {options.learning_rate_decay}')
        self.say(f'validation after epoch {state.epoch}: ' + '  '.join(
            f'{name} {value:.4f}' for name, value in sorted(scores.items())) + (
                '  (best so far)' if better else f'  (best so far {state.best_score:.4f})')
            + f'  {time.monotonic() - begun:.0f} s')
        self._journal.scalars('validation', state.step, state.epoch,
                              {**scores, 'distinct_captions': len(set(results.values()))})
        shown = list(zip(images, captions, strict=True))[: options.tensorboard_images]
        self._journal.captions(state.step, data, shown)

    def test(self, data: Any = None, images: Sequence[int] | None = None) -> list[Caption]:
        """Captions of the best model.

        Args:
            data: CaptionData or dict of arrays; None: val_data.
            images: which of its images, by number; None: all.

        Returns:
            list of Caption.
        """
        data = self.val_data if data is None else self._checked(data, 'data')
        self._build_search()
        with self.model.graph.as_default(), self._session() as session:
            self._load_encoder(session)
            self._best_model().restore(session)
            return list(generate(session, self.model, self._hypotheses, data, images,
                                 self.decoding.decode_batch))
