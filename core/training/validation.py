"""Validation: captions of the dev images, their scores, and which model is the best so far."""

import time
from typing import TYPE_CHECKING, Any

from core.common.aliases import Say, Session
from core.common.errors import InputError
from core.data.vocabulary import tokenize
from core.decoding.captions import generate
from core.metrics.scorer import Scorer
from core.training.interrupts import Interrupts
from core.training.schedules import plateau_factor
from core.training.training_state import TrainingState

if TYPE_CHECKING:
    from core.config.decoding import DecodingConfig
    from core.config.training import TrainingConfig
    from core.data.split import Split
    from core.decoding.search_loop import Hypotheses
    from core.model.caption_generator import CaptionGenerator
    from core.training.checkpoints import BestModel
    from core.training.metrics_log import Journal

# What the metric of the option `validation_metric` is computed by.
METRICS = {'Bleu_4': 'Bleu', 'METEOR': 'METEOR', 'CIDEr': 'CIDEr', 'ROUGE_L': 'ROUGE_L'}
NO_SCORE = 1e-6  # BLEU-4 without any four words in a row is some 1e-11, which orders nothing


def takes_the_place(score: float, best: float | None) -> tuple[bool, bool]:
    """Say whether a validation's model takes the best one's place, and whether it is better.

    Where no score is above nothing yet, the later model takes the place without being better.
    """
    better = best is None or max(score, NO_SCORE) > max(best, NO_SCORE)
    return better or max(score, best or 0.0) <= NO_SCORE, better


class Validation:
    """Captions the dev images by free-running decoding, as the paper stops on BLEU (4.3).

    Args:
        data: Split of the dev images. options: TrainingConfig. decoding: DecodingConfig.
        say: function that prints a line.

    Raises:
        InputError: no dev image has a caption to compare with.
    """

    def __init__(self, data: 'Split', options: 'TrainingConfig', decoding: 'DecodingConfig',
                 say: Say) -> None:
        self._data, self._options, self._decoding, self._say = data, options, decoding, say
        # Images whose references hold no word cannot be scored: COCO scoring, which this is however
        # captions are cut, knows neither case nor punctuation.
        images = [i for i in range(len(data)) if any(tokenize(text) for text in data.references[i])]
        if not images:
            raise InputError('validation: no dev image has a caption; add captions, or make data '
                             'without a dev split')
        self._images = images[:options.validation_limit or len(images)]
        self._scorer = Scorer({data.image_ids[i]: data.references[i] for i in self._images})

    def close(self) -> None:
        """End METEOR's process."""
        self._scorer.close()

    def run(self, session: Session, model: 'CaptionGenerator', hypotheses: 'Hypotheses',
            interrupts: Interrupts, state: TrainingState, best: 'BestModel',
            journal: 'Journal') -> None:
        """Score the model, and save it as the best one if it is.

        Args:
            session: with the model's variables. model: CaptionGenerator.
            hypotheses: Hypotheses of its search. interrupts: Interrupts; one ends this at once.
            state: TrainingState, whose best score, waiting and rate factor change.
            best: BestModel. journal: Journal.

        Raises:
            Stopped: a signal came.
        """
        options, data, images, begun = self._options, self._data, self._images, time.monotonic()
        metrics = {'Bleu', 'CIDEr', 'ROUGE_L', METRICS[options.validation_metric]}
        if 'METEOR' in metrics:  # its process takes as long to start as many captions
            self._scorer.start()
        with interrupts.at_once():
            captions = list(generate(session, model, hypotheses, data, images,
                                     self._decoding.decode_batch))
            results = {data.image_ids[i]: caption.text
                       for i, caption in zip(images, captions, strict=True)}
            scores = self._scorer.score(results, sorted(metrics))
        score = scores[options.validation_metric]
        replaced, better = takes_the_place(score, state.best_score)
        if replaced:
            state.best_score, state.best_step = score, state.step
            best.save(session, {'step': state.step, 'epoch': state.epoch, 'scores': scores})
        state.waited = 0 if better else state.waited + 1
        self._lower_the_rate(state)
        self._report(state, scores, better, time.monotonic() - begun)
        journal.scalars('validation', state.step, state.epoch,
                        {**scores, 'distinct_captions': len(set(results.values()))})
        shown = list(zip(images, captions, strict=True))[:options.tensorboard_images]
        journal.captions(state.step, data, shown)

    def _lower_the_rate(self, state: TrainingState) -> None:
        """Lower the learning rate of schedule plateau, after `plateau_patience` validations."""
        options = self._options
        factor = plateau_factor(options, state.rate_factor, state.waited)
        if factor != state.rate_factor:
            state.rate_factor = factor
            self._say(f'no better {options.validation_metric} in {state.waited} validations: '
                      f'learning rate times {options.learning_rate_decay}')

    def _report(self, state: TrainingState, scores: dict[str, Any], better: bool,
                seconds: float) -> None:
        listed = '  '.join(f'{name} {value:.4f}' for name, value in sorted(scores.items()))
        best = 'best so far' if better else f'best so far {state.best_score:.4f}'
        self._say(f'validation after epoch {state.epoch}: {listed}  ({best})  {seconds:.0f} s')
