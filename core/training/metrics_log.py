"""What a training run tells: lines on the terminal, metrics.jsonl for programs, TensorBoard."""

import json
import pathlib
import time
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

import numpy as np

from core.common import progress, terminal
from core.common.aliases import Bar, PathLike
from core.common.files import replacing
from core.runtime.backend import tf, tf1
from core.training.optimization import Optimization
from core.training.training_state import TrainingState
from core.viewer import attention_pictures

if TYPE_CHECKING:
    from core.config.training import TrainingConfig
    from core.data.split import Split
    from core.decoding.captions import Caption


class Journal:
    """Writes RUN/metrics.jsonl, an object a line, and TensorBoard events.

    Args:
        directory: of metrics.jsonl.
        log_path: directory of the events, or None.
        step: where training goes on; entries of later steps, left by a run that was killed, are
            dropped.
    """

    def __init__(self, directory: PathLike, log_path: PathLike | None, step: int) -> None:
        self.path = pathlib.Path(directory) / 'metrics.jsonl'
        self.path.parent.mkdir(parents=True, exist_ok=True)
        entries = []
        if self.path.exists():
            for line in self.path.read_text(encoding='utf8').split('\n'):
                try:
                    entry = json.loads(line)
                except ValueError:  # the last line of a killed run, or an empty one
                    continue
                if entry['step'] <= step:
                    entries.append(line + '\n')
        with replacing(self.path) as file:
            file.writelines(entries)
        self._writer = None
        if log_path is not None:
            with tf.Graph().as_default():
                self._writer = tf1.summary.FileWriter(str(log_path))
            # Tells TensorBoard to forget events of later steps as well.
            self._writer.add_session_log(tf1.SessionLog(status=tf1.SessionLog.START), step + 1)

    def scalars(self, kind: str, step: int, epoch: int, values: Mapping[str, float]) -> None:
        """Record numbers at a step: `kind` is 'training' or 'validation'."""
        entry = {'kind': kind, 'step': step, 'epoch': epoch, 'time': round(time.time(), 3),
                 **values}
        with open(self.path, 'a', encoding='utf8') as file:
            file.write(json.dumps(entry) + '\n')
        if self._writer:
            summary = tf1.Summary(
                value=[tf1.Summary.Value(tag=f'{kind}/{name}', simple_value=float(value))
                       for name, value in values.items()])
            self._writer.add_summary(summary, step)
            self._writer.flush()

    def captions(self, step: int, data: 'Split',
                 captioned: 'Iterable[tuple[int, Caption]]') -> None:
        """Show captions in TensorBoard: the sentence, and the attention on the photo.

        Args:
            step: int. data: Split. captioned: pairs of (image number, Caption).
        """
        if not self._writer:
            return
        values = []
        for place, (image, caption) in enumerate(captioned):
            text = f'{caption.text}\n\nreferences: ' + ' | '.join(data.references[image])
            metadata = tf1.SummaryMetadata(
                plugin_data=tf1.SummaryMetadata.PluginData(plugin_name='text'))
            values.append(
                tf1.Summary.Value(tag=f'captions/{place}', metadata=metadata,
                                  tensor=tf1.make_tensor_proto(np.array([text.encode()], object))))
            picture = attention_pictures.safe_picture(data, image, caption)
            if picture is not None:
                height, width = picture.shape[:2]
                values.append(tf1.Summary.Value(
                    tag=f'attention/{place}',
                    image=tf1.Summary.Image(height=height, width=width, colorspace=3,
                                            encoded_image_string=attention_pictures.png(picture))))
        self._writer.add_summary(tf1.Summary(value=values), step)
        self._writer.flush()

    def close(self) -> None:
        """Close the events file."""
        if self._writer:
            self._writer.close()


def unigram_loss(captions: np.ndarray, null: int) -> float:
    """Return the loss, in nats a word, of the best model that knows words' frequencies alone.

    A captioner must beat it.

    Args:
        captions: (R, T+1) int, which begin with <START>. null: number of <NULL>.
    """
    words = captions[:, 1:]
    counts = np.bincount(words[words != null])
    shares = counts[counts > 0] / counts.sum()
    return float(-(shares * np.log(shares)).sum())


class Report:
    """Means over the steps since the last report, and how fast they were.

    Args:
        options: TrainingConfig. optimization: Optimization. journal: Journal.
        unigram: `unigram_loss` of the training captions; None where captions are drawn.
        n_captions: of an epoch. n_batches: of an epoch.

    Attributes:
        loss_scale: of the last step, in float16; else None.
    """

    def __init__(self, options: 'TrainingConfig', optimization: Optimization, journal: Journal,
                 unigram: float | None, n_captions: int, n_batches: int) -> None:
        self._options, self._optimization, self._journal = options, optimization, journal
        self._unigram, self._n_captions, self._n_batches = unigram, n_captions, n_batches
        self.loss_scale: float | None = None

    def begin(self) -> None:
        """Begin to take the time, at the beginning of an epoch."""
        self._since, self._captions = time.monotonic(), 0

    def add(self, n_captions: int) -> None:
        """Count the captions of a step."""
        self._captions += n_captions

    def write(self, state: TrainingState, bar: Bar) -> None:
        """Print and record the means, and what held in the last step; then begin anew.

        Args:
            state: TrainingState, whose sums are forgotten. bar: the progress bar.
        """
        now = time.monotonic()
        speed = self._captions / max(now - self._since, 1e-9)                       # captions/s
        loss, entropy, step = state.nll / state.words, state.entropy / state.words, state.step - 1
        n_epochs, size = self._options.n_epochs, self._n_batches
        n_left = (n_epochs - state.epoch - state.position / size) * self._n_captions
        left = n_left / max(speed, 1e-9)                                            # seconds
        time_left = f'  {terminal.duration(left)} left without validation' if left > 0 else ''
        if self._unigram is None:
            reward = state.reward / state.captions
            means, values = f'reward {reward:.3f} a drawn caption', {'reward': reward}
        else:
            means = f'loss {loss:.3f} a word (unigram model {self._unigram:.3f})'
            values = {'unigram_loss': self._unigram}
        progress.write(bar, f'epoch {state.epoch + 1}/{n_epochs}  step {state.position}/{size}  '
                       f'{means}  entropy {entropy:.2f}  {speed:.0f} captions/s{time_left}')
        values |= {'loss_per_word': loss,
                  'loss_per_caption': state.nll / state.captions, 'attention_entropy': entropy,
                  'learning_rate': self._optimization.learning_rate_at(step, state.rate_factor),
                  **self._optimization.annealed_at(step), 'captions_per_second': speed}
        if self.loss_scale:
            values['loss_scale'] = float(self.loss_scale)
        self._journal.scalars('training', state.step, state.epoch, values)
        state.forget_sums()
        self._since, self._captions = now, 0
