"""Files as the authors' code leaves them, of random parameters.

Captions are in their numbers and in ours.
"""

import pickle

import numpy as np

from core.config.model import ModelConfig
from core.data.vocabulary import END, NULL, START, UNK, Vocabulary
from core.model.caption_generator import CaptionGenerator
from tests.support import authors_model

N, L, D, H, M, T, N_WORDS = 3, 5, 7, 11, 6, 4, 13
DICTIONARY = {'<eos>': 0, 'UNK': 1, 'a': 2, 'dog': 3, '.': 4, 'Red': 5, 'runs': 6, 'on': 8,
              'grass': 9, 'rare': 13}
# Their captions, a column each: words, 0, padding.
# Ours follow word by word: theirs 0 ends, theirs w from 2 is w + 2.
WORDS = np.array([[2, 5, 12], [3, 0, 1], [9, 0, 6], [0, 0, 0]])
OURS = np.array([[START, 4, 5, 11, END], [START, 7, END, NULL, NULL], [START, 14, UNK, 8, END]],
                np.int32)
LOCATIONS = np.array([[0, 4, 2], [3, 3, 1], [1, 0, 4], [2, 2, 0]])
VARIANTS = {
    'the options of evaluate_coco.py': {},
    'no options': authors_model.PLAIN,
    'three layers everywhere': {'n_layers_att': 3, 'n_layers_init': 3, 'n_layers_out': 3,
                                'selector': False},
    'dropout on the gates': {'use_dropout_lstm': True, 'ctx2out': False},
    'hard attention': {'attn_type': 'stochastic', 'temperature': 2.0, 'semi_sampling_p': 0.25,
                       'alpha_entropy_c': 0.5},
}


def save(directory, changes=(), drop=(), ctx_dim=D, **more):
    """Write model.npz with its pickles; returns (path, parameters, options).

    `drop` and `more` are entries.
    """
    options = {**authors_model.OPTIONS, 'n_words': N_WORDS, 'dim_word': M, 'dim': H,
               'ctx_dim': ctx_dim, **dict(changes)}
    parameters = authors_model.draw(options, N_WORDS, M, H, ctx_dim)
    entries = {name: value for name, value in {**parameters, **more}.items() if name not in drop}
    path = directory / 'model.npz'
    np.savez(path, history_errs=[[3.0, 4.0]], train_err=1.0, valid_err=np.zeros(3), test_err=2.0,
             **entries)
    (directory / 'model.npz.pkl').write_bytes(pickle.dumps(options, protocol=0))
    (directory / 'dictionary.pkl').write_bytes(pickle.dumps(DICTIONARY, protocol=2))
    return path, parameters, options


def build(imported):
    """Build the CaptionGenerator of an import, in the default graph."""
    vocabulary = Vocabulary(imported.words)
    config = ModelConfig(**imported.options)
    config.check_combination()
    model = CaptionGenerator(vocabulary.word_to_idx, (L, D), n_time_step=T, **vars(config))
    assert {v.op.name: tuple(v.shape) for v in model.variables} == {
        name: value.shape for name, value in imported.values.items()}
    return model


def context():
    return np.random.default_rng(4).normal(0.5, 1.0, (N, L, D)).astype(np.float32)
