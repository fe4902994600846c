"""Several models that caption together: at every word the mean of their probabilities.

    ensemble = Ensemble([first, second])        # CaptionGenerators in one graph
    hypotheses = ensemble.build_beam_search(beam_width=3)

p(y_t) is the mean of the models' p(y_t), and the score of a caption the sum of log p(y_t). The
attention and the gates shown are the means of the models' own. Of runs, see
`core.runs.run_ensemble`.

Letters in shapes: R rows (captions of one step), L locations, V words.
"""

import math
from collections.abc import Sequence

from core.common.aliases import Tensor
from core.decoding.search_graphs import Searches
from core.decoding.search_loop import Decoding, NextWord
from core.runtime.backend import tf


class Ensemble(Searches):
    """Models that read the same features and write the same words, decoding as one.

    Args:
        models: CaptionGenerators in one graph, of one vocabulary and one number of locations L; all
            but the first were given the first one's `features`.

    Attributes:
        models: those. inputs, features, graph, word_to_idx, idx_to_word, end, never: of the first.
        dropout_seed, image_numbers: of the first; drawn locations of all models follow them.

    Raises:
        ValueError: the models do not fit together.
    """

    models: Sequence[Searches]

    def __init__(self, models: Sequence[Searches]) -> None:
        self.models = list(models)
        if not self.models:
            raise ValueError('an ensemble needs a model')
        first = self.models[0]
        for model in self.models[1:]:
            if model.word_to_idx != first.word_to_idx or model.L != first.L:
                raise ValueError('the models of an ensemble must have one vocabulary and one '
                                 'number of locations')
            if model.features is not first.features:
                raise ValueError('the models of an ensemble must read one tensor: give '
                                 'features=first.features')
            model.dropout_seed, model.image_numbers = first.dropout_seed, first.image_numbers
        self.inputs, self.features, self.graph = first.inputs, first.features, first.graph
        self.word_to_idx, self.idx_to_word = first.word_to_idx, first.idx_to_word
        self.end, self.never = first.end, first.never
        self.dropout_seed, self.image_numbers = first.dropout_seed, first.image_numbers

    def decoding(self, max_len: int = 20, jit: bool | None = None) -> Decoding:
        """Return one Decoding of the models' own: log of the mean probability, mean alpha and beta.

        Args:
            max_len: steps that can be taken. jit: XLA, or not; None: as each model was made.
        """
        members = [model.decoding(max_len, jit) for model in self.models]

        def step(images: Tensor, words: Tensor, state: Tensor) -> NextWord:
            new = [member.step(*arguments) for member, *arguments in zip(
                members, images, [words] * len(members), state, strict=True)]
            log_probs = tf.stack([each.log_probs for each in new])                  # (models, R, V)
            return NextWord(tf.reduce_logsumexp(log_probs, axis=0) - math.log(len(new)),    # (R, V)
                            tuple(each.state for each in new),
                            tf.add_n([each.alpha for each in new]) / len(new),      # (R, L)
                            tf.add_n([each.beta for each in new]) / len(new))       # (R,)

        return Decoding(step, tuple(member.images for member in members),
                        tuple(member.state for member in members), members[0].start)
