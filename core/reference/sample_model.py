"""A model so small that all 27 sequences of locations of a caption can be walked."""

import functools
from typing import Any

import numpy as np

from core.reference.location_paths import Enumeration

N, L, D, H, M, T, V = 2, 3, 5, 4, 3, 3, 9
NULL, START, END = 0, 1, 2
WORDS = ['<NULL>', '<START>', '<END>', '<UNK>', 'a', 'red', 'dog', 'runs', 'home']
WORD_TO_IDX = {word: index for index, word in enumerate(WORDS)}
# Arguments of CaptionGenerator.
SIZES = {'dim_feature': (L, D), 'dim_embed': M, 'dim_hidden': H, 'n_time_step': T}
SHAPES = {'initial_lstm/w_h': (D, H), 'initial_lstm/b_h': (H,), 'initial_lstm/w_c': (D, H),
          'initial_lstm/b_c': (H,), 'word_embedding/w': (V, M), 'project_features/w': (D, D),
          'attention_layer/w': (H, D), 'attention_layer/b': (D,), 'attention_layer/w_att': (D, 1),
          'selector/w': (H, 1), 'selector/b': (1,),
          'lstm/basic_lstm_cell/kernel': (M + D + H, 4 * H), 'lstm/basic_lstm_cell/bias': (4 * H,),
          'logits/w_h': (H, M), 'logits/b_h': (M,), 'logits/w_ctx2out': (D, M),
          'logits/w_out': (M, V), 'logits/b_out': (V,)}
BATCH_NORM = {'conv_featuresbatch_norm/beta': (D,), 'conv_featuresbatch_norm/gamma': (D,)}


def variables(seed: int = 109, batch_norm: bool = False) -> dict[str, np.ndarray]:
    """Draw values of the trainable variables by name: locations shall matter to the words."""
    random = np.random.default_rng(seed)
    shapes = {**SHAPES, **(BATCH_NORM if batch_norm else {})}
    return {name: random.normal(0.0, 0.8, shape) for name, shape in sorted(shapes.items())}


def batch() -> tuple[np.ndarray, np.ndarray]:
    """Return features (N, L, D) and captions (N, T + 1) of T and T - 1 words."""
    features = np.random.default_rng(11).normal(0.0, 1.5, (N, L, D)).astype(np.float32)
    return features, np.array([[START, 6, 8, END], [START, 5, END, NULL]], np.int32)


@functools.cache
def exact(batch_norm: bool = False, **options: Any) -> Enumeration:
    """Return the Enumeration of the batch, made once, as it takes a second.

    Args:
        options: of `equations.teacher_forcing`.
    """
    return Enumeration(variables(batch_norm=batch_norm), *batch(), batch_norm=batch_norm, **options)
