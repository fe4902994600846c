"""The best models of several runs as one captioner.

    with tf.Graph().as_default():
        ensemble = make_ensemble([Run('runs/a'), Run('runs/b')])
        beams = ensemble.build_beam_search(beam_width=3)
        ...
        ensemble.restore(session)
"""

import dataclasses
from collections.abc import Sequence
from typing import Any

from core.common.aliases import Session
from core.common.errors import InputError, first_line
from core.decoding.ensemble import Ensemble
from core.model.caption_generator import CaptionGenerator
from core.runs.run_dir import UNKNOWN, Run
from core.runtime.backend import tf, tf1
from core.training.checkpoints import UNREADABLE


class RunEnsemble(Ensemble):
    """The Ensemble of the best models of runs.

    Args:
        runs: list of Run. models: their CaptionGenerators, the variables of each under `scopes[i]`.
        scopes: list of str.
    """

    models: Sequence[CaptionGenerator]

    def __init__(self, runs: Sequence[Run], models: Sequence[CaptionGenerator],
                 scopes: Sequence[str]) -> None:
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
            named = {variable.op.name.removeprefix(f'{scope}/'): variable
                     for variable in model.variables}
            try:
                shapes = tf.train.load_checkpoint(prefix).get_variable_to_shape_map()
                wrong = [name for name, variable in named.items()
                         if shapes.get(name) != variable.shape.as_list()]
                if wrong:
                    raise InputError(f'{prefix}: does not fit the options of {run.path}: '
                                     f'{", ".join(wrong)}')
                with self.graph.as_default():
                    tf1.train.Saver(named).restore(session, prefix)
            except UNREADABLE as error:
                raise InputError(f'{prefix}: cannot be read ({first_line(error)})') from None
            infos.append(run.best().info() or {})
        return infos


def check_ensemble(runs: Sequence[Run]) -> None:
    """Raise InputError for runs that cannot caption together; needs no graph.

    Raises:
        InputError: names the run and what is different.
    """
    first = runs[0]
    for run in runs:
        if run.finetuned:
            raise InputError(f'{run.path}: its encoder was fine-tuned, so it does not read the '
                             'features that the others of the ensemble read; leave it out')
    for run in runs[1:]:
        if run.vocabulary != first.vocabulary:
            raise InputError(f'{run.path}: has another vocabulary than {first.path}; only runs of '
                             'one vocabulary can caption together')
        mine, other = run.spec.identity(), first.spec.identity()
        different = [f'{name} {mine[name]!r} instead of {other[name]!r}' for name in other
                     if mine[name] != other[name] and UNKNOWN not in (mine[name], other[name])]
        if different:
            raise InputError(f'{run.path}: was trained on other features than {first.path}: '
                             f'{"; ".join(different)}')


def make_ensemble(runs: Sequence[Run]) -> RunEnsemble:
    """Return the RunEnsemble of several runs, in the default graph."""
    check_ensemble(runs)
    models: list[CaptionGenerator] = []
    scopes = [f'model_{number}' for number in range(len(runs))]
    for run, scope in zip(runs, scopes, strict=True):
        rows, cols = run.spec.grid
        with tf1.variable_scope(scope):
            models.append(
                CaptionGenerator(run.vocabulary.word_to_idx, (rows * cols, run.spec.dim),
                                 n_time_step=run.max_length + 1, features=models[0].features,
                                 **dataclasses.asdict(run.config.model)) if models
                else run.make_model())
    return RunEnsemble(runs, models, scopes)
