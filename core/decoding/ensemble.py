"""Several models that caption together: their probabilities are averaged at every word, in one graph.

    with tf.Graph().as_default():
        ensemble = build([Run('runs/a'), Run('runs/b')])
        beams = ensemble.build_beam_search(beam_width=3)
        ...
        ensemble.restore(session)

p(y_t) is the mean of the models' p(y_t), and the score of a caption the sum of log p(y_t). The attention and the gates
shown are the means of the models' own.
"""

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

from core.common.aliases import Session, Tensor
from core.common.errors import InputError
from core.decoding.search_graphs import Searches
from core.decoding.search_loop import Decoding, Step
from core.model.caption_generator import CaptionGenerator
from core.runs.run_dir import UNKNOWN, Run
from core.runtime.backend import tf, tf1
from core.training.checkpoints import UNREADABLE, first_line


class Ensemble(Searches):
    """Models that read the same features and write the same words; decodes as a CaptionGenerator does.

    Args:
        models: CaptionGenerators in one graph, of one vocabulary and one number of locations L; all but the first
            were given the first one's `features`.

    Attributes:
        models: those. inputs, features, graph, word_to_idx, idx_to_word, end, never: of the first.
        dropout_seed, image_numbers: of the first; drawn locations of all models follow them.

    Raises:
        ValueError: the models do not fit together.
    """

    def __init__(self, models: Sequence[CaptionGenerator]) -> None:
        self.models = list(models)
        if not self.models:
            raise ValueError('an ensemble needs a model')
        first = self.models[0]
        for model in self.models[1:]:
            if model.word_to_idx != first.word_to_idx or model.L != first.L:
                raise ValueError('the models of an ensemble must have one vocabulary and one number of locations')
            if model.features is not first.features:
                raise ValueError('the models of an ensemble must read one tensor: give features=first.features')
            model.dropout_seed, model.image_numbers = first.dropout_seed, first.image_numbers
        self.inputs, self.features, self.graph = first.inputs, first.features, first.graph
        self.word_to_idx, self.idx_to_word = first.word_to_idx, first.idx_to_word
        self.end, self.never = first.end, first.never
        self.dropout_seed, self.image_numbers = first.dropout_seed, first.image_numbers

    def decoding(self, max_len: int = 20) -> Decoding:
        """One core.decoding.search_loop.Decoding of the models' own: log of the mean probability, mean alpha and beta."""
        members = [model.decoding(max_len) for model in self.models]

        def step(images: Tensor, words: Tensor, state: Tensor) -> Step:
            steps = [member.step(*arguments) for member, *arguments in zip(
                members, images, [words] * len(members), state, strict=True)]
            log_probs = tf.reduce_logsumexp(tf.stack([s.log_probs for s in steps]), axis=0) - math.log(len(steps))
            trace = tf.nest.map_structure(lambda *parts: tf.add_n(parts) / len(parts), *(s.trace for s in steps))
            return Step(log_probs, tuple(s.state for s in steps), trace)

        return Decoding(step, tuple(member.images for member in members), tuple(member.state for member in members),
                        members[0].start)


class RunEnsemble(Ensemble):
    """The Ensemble of the best models of runs.

    Args:
        runs: list of core.runs.run_dir.Run. models: their CaptionGenerators, the variables of each under `scopes[i]`.
        scopes: list of str.
    """

    def __init__(self, runs: Sequence[Run], models: Sequence[CaptionGenerator], scopes: Sequence[str]) -> None:
        super().__init__(models)
        self.runs, self.scopes = list(runs), list(scopes)

    def restore(self, session: Session) -> list[dict[str, Any]]:
        """Load every run's best model; returns the list of what was saved with each.

        Raises:
            InputError: a run has no model, or one that does not fit its options.
        """
        infos: list[dict[str, Any]] = []
        for run, model, scope in zip(self.runs, self.models, self.scopes, strict=True):
            prefix = str(run.best().prefix())
            named = {variable.op.name.removeprefix(f'{scope}/'): variable for variable in model.variables}
            try:
                shapes = tf.train.load_checkpoint(prefix).get_variable_to_shape_map()
                wrong = [name for name, variable in named.items() if shapes.get(name) != variable.shape.as_list()]
                if wrong:
                    raise InputError(f'{prefix}: does not fit the options of {run.path}: {", ".join(wrong)}')
                with self.graph.as_default():
                    tf1.train.Saver(named).restore(session, prefix)
            except UNREADABLE as error:
                raise InputError(f'{prefix}: cannot be read ({first_line(error)})') from None
            infos.append(run.best().info() or {})
        return infos


def check(runs: Sequence[Run]) -> None:
    """Refuse runs that cannot caption together; needs no graph.

    Raises:
        InputError: names the run and what is different.
    """
    first = runs[0]
    for run in runs:
        if run.finetuned:
            raise InputError(f'{run.path}: its encoder was fine-tuned, so it does not read the features that the '
                             f'others of the ensemble read; leave it out')
    for run in runs[1:]:
        if run.vocabulary != first.vocabulary:
            raise InputError(f'{run.path}: has another vocabulary than {first.path}; only runs of one vocabulary can '
                             f'caption together')
        mine, other = run.spec.identity(), first.spec.identity()
        different = [f'{name} {mine[name]!r} instead of {other[name]!r}' for name in other
                     if mine[name] != other[name] and UNKNOWN not in (mine[name], other[name])]
        if different:
            raise InputError(f'{run.path}: was trained on other features than {first.path}: {"; ".join(different)}')


def build(runs: Sequence[Run]) -> RunEnsemble:
    """The RunEnsemble of several runs, in the default graph."""
    check(runs)
    models: list[CaptionGenerator] = []
    scopes = [f'model_{number}' for number in range(len(runs))]
    for run, scope in zip(runs, scopes, strict=True):
        rows, cols = run.spec.grid
        with tf1.variable_scope(scope):
            models.append(CaptionGenerator(
                run.vocabulary.word_to_idx, (rows * cols, run.spec.dim), n_time_step=run.max_length + 1,
                features=models[0].features, **dataclasses.asdict(run.config.model)) if models else run.build_model())
    return RunEnsemble(runs, models, scopes)
