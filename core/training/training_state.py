"""Where training stands: what a checkpoint holds beside the variables.

With it a killed run goes on bit for bit.
"""

import dataclasses
from typing import Any

from core.common.errors import InputError


@dataclasses.dataclass
class TrainingState:
    """All that training changes outside the graph.

    Attributes:
        step: steps taken. epoch: epochs done. position: batches done of the epoch that runs.
        best_score, best_step: of the best validation so far and its step; None before the first.
        waited: validations since the last better one.
        rate_factor: share of the learning rate that schedule plateau has left.
        nll, entropy, reward, words, captions: sums since the last report: nats, nats times words,
            what drawn captions earned, and how many of each.
    """

    step: int = 0
    epoch: int = 0
    position: int = 0
    best_score: float | None = None
    best_step: int | None = None
    waited: int = 0
    rate_factor: float = 1.0
    nll: float = 0.0
    entropy: float = 0.0
    reward: float = 0.0
    words: int = 0
    captions: int = 0

    def add(self, n_captions: int, nll: float, n_words: int, entropy: float,
            reward: float = 0.0) -> None:
        """Count a step.

        Args:
            n_captions, n_words: of the batch. nll: cross entropy of a caption, in nats. entropy: of
                alpha, mean over the words, in nats. reward: of a drawn caption.
        """
        self.step += 1
        self.position += 1
        self.captions += n_captions
        self.nll += nll * n_captions
        self.words += n_words
        self.entropy += entropy * n_words
        self.reward += reward * n_captions

    def forget_sums(self) -> None:
        """Begin the sums again, after a report."""
        self.nll, self.entropy, self.reward, self.words, self.captions = 0.0, 0.0, 0.0, 0, 0

    def to_dict(self) -> dict[str, Any]:
        """Return a dict for JSON; `from_dict` is the way back."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, values: Any) -> 'TrainingState':
        """Return the inverse of `to_dict`.

        Raises:
            InputError: not what `to_dict` gave.
        """
        try:
            return cls(**values)
        except TypeError as error:
            raise InputError(f'the state of a checkpoint is damaged ({error}); delete the newest '
                             'checkpoint') from None
