"""What training says of itself: lines on the terminal, and entries in the journal."""

import time
from typing import TYPE_CHECKING

import numpy as np

from core.common import progress, terminal
from core.common.aliases import Bar
from core.training.metrics_log import Journal
from core.training.optimization import Optimization
from core.training.training_state import TrainingState

if TYPE_CHECKING:
    from core.config.training import TrainingConfig


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
        unigram: `unigram_loss` of the training captions.
        n_captions: of an epoch. n_batches: of an epoch.

    Attributes:
        loss_scale: of the last step, in float16; else None.
    """

    def __init__(self, options: 'TrainingConfig', optimization: Optimization, journal: Journal,
                 unigram: float, n_captions: int, n_batches: int) -> None:
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
        progress.write(bar, f'epoch {state.epoch + 1}/{n_epochs}  step {state.position}/{size}  '
                       f'loss {loss:.3f} a word (unigram model {self._unigram:.3f})  '
                       f'entropy {entropy:.2f}  {speed:.0f} captions/s{time_left}')
        values = {'loss_per_word': loss, 'unigram_loss': self._unigram,
                  'loss_per_caption': state.nll / state.captions, 'attention_entropy': entropy,
                  'learning_rate': self._optimization.learning_rate_at(step, state.rate_factor),
                  **self._optimization.annealed_at(step), 'captions_per_second': speed}
        if self.loss_scale:
            values['loss_scale'] = float(self.loss_scale)
        self._journal.scalars('training', state.step, state.epoch, values)
        state.forget_sums()
        self._since, self._captions = now, 0
