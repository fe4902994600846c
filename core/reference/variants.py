"""The options of the model that `equations` does not have, in the same plain NumPy.

    told = teacher_forcing(v, features, captions, options=ModelConfig(cell='gru'))

GRU, other first states, feature layer, more layers, another order of the cell's input: what the
presets and other people's checkpoints need. Letters in shapes as in `equations`; K numbers of an
annotation, A hidden units of the attention.
"""

from typing import TYPE_CHECKING

import numpy as np

from core.reference import equations
from core.reference.equations import (
    ACTIVATIONS,
    Step,
    Told,
    Weights,
    log_softmax,
    normalised,
    relu,
    sigmoid,
)

if TYPE_CHECKING:
    from core.config.model import ModelConfig

START = 1  # the word that captions begin with
OUTPUTS = {**ACTIVATIONS, 'linear': lambda x: x}


def teacher_forcing(v: Weights, features: np.ndarray, captions: np.ndarray, options: 'ModelConfig',
                    training: bool = True) -> Told:
    """Tell a model with any options the true words, without dropout and draws; soft attention.

    Args:
        v: variables by name. features: (N, L, D). captions: (N, T + 1) int.
        options: ModelConfig. training: batch normalisation by the batch's own statistics.
    """
    a = np.asarray(features, np.float64)
    if options.batch_norm:
        a = normalised(v, a, training)
    if options.feature_layer:
        a = relu(a @ v['feature_layer/w'] + v['feature_layer/b'])                   # (N, L, K)
    v = dict(v)
    if options.first_word == 'zero':
        v['word_embedding/w'] = v['word_embedding/w'].copy()
        v['word_embedding/w'][START] = 0
    told = equations.teacher_forcing(
        v, a, captions, batch_norm=False, alpha_c=options.alpha_c,
        mask_padding=options.mask_padding, options=options,
        first_state=lambda v, a: first_state(v, a, options), step=step)
    return _with_target(told, captions, options)


def _with_target(told: Told, captions: np.ndarray, options: 'ModelConfig') -> Told:
    """Return Told with the penalty of `regularizer_target` and `regularizer_reduction`."""
    is_real = (captions[:, 1:] != equations.NULL)[..., np.newaxis]
    total = (told.alphas * (is_real if options.mask_padding else 1)).sum(axis=1)    # (N, L)
    T, L = told.alphas.shape[1:]
    target = 1 if options.regularizer_target == 'one' else T / L
    penalty = options.alpha_c * ((target - total)**2).sum(axis=1)                   # (N,)
    if options.regularizer_reduction == 'locations':  # the mean over these, the sum over captions
        penalty *= len(captions) / L
    return told._replace(penalty=penalty)


def first_state(v: Weights, a: np.ndarray,
                options: 'ModelConfig') -> tuple[np.ndarray, np.ndarray]:
    """Compute h and c (N, H) of annotations a (N, L, K); c is zeros where the cell has none."""
    x = a.mean(axis=1)                                                              # (N, K)
    for layer in range(1, options.initial_layers):
        x = relu(x @ v[f'initial_lstm/w_{layer}'] + v[f'initial_lstm/b_{layer}'])   # (N, K)
    parts = []
    for part in 'hc':
        if f'initial_lstm/w_{part}' in v:
            y = x @ v[f'initial_lstm/w_{part}'] + v[f'initial_lstm/b_{part}']       # (N, H)
            parts.append(OUTPUTS[options.initial_state](y))
        else:
            parts.append(np.zeros([len(a), options.dim_hidden]))
    return parts[0], parts[1]


def step(v: Weights, a: np.ndarray, word: np.ndarray, h: np.ndarray, c: np.ndarray,
         location: None = None, *, options: 'ModelConfig') -> Step:
    """Go from one word to the probabilities of the next, as `equations.step`.

    Args:
        v: variables by name. a: (N, L, K). word: (N, M). h, c: (N, H). location: None.
        options: ModelConfig.
    """
    act = ACTIVATIONS[options.attention_activation]
    # Eq. 4 and 5; the features may go through more layers, and biases may stand elsewhere
    p = a @ v['project_features/w'] + v.get('project_features/b', 0)                # (N, L, A)
    for layer in range(1, options.attention_layers):
        p = np.tanh(p @ v[f'project_features/w_{layer}'] + v[f'project_features/b_{layer}'])
    query = h @ v['attention_layer/w'] + v.get('attention_layer/b', 0)              # (N, A)
    e = (act(p + query[:, np.newaxis]) @ v['attention_layer/w_att'])[..., 0]        # (N, L)
    log_alpha = log_softmax((e + v.get('attention_layer/b_att', 0)) / options.temperature)
    z = (np.exp(log_alpha)[..., np.newaxis] * a).sum(axis=1)                        # (N, K)
    beta = np.ones(len(a))                                                          # (N,)
    if options.selector:
        beta = sigmoid(h @ v['selector/w'] + v['selector/b'])[:, 0]
        z = beta[:, np.newaxis] * z
    x = [word, z] if options.cell_input == 'word_context' else [z, word]
    h, c = cell(v, np.concatenate(x, axis=1), h, c, options)
    # Eq. 7, with more ReLU layers where asked for
    output = h @ v['logits/w_h'] + v['logits/b_h']
    if options.ctx2out:
        output = output + z @ v['logits/w_ctx2out']
    if options.prev2out:
        output = output + word
    output = OUTPUTS[options.output_activation](output)
    for layer in range(1, options.output_layers):
        output = relu(output @ v[f'logits/w_{layer}'] + v[f'logits/b_{layer}'])
    log_probs = log_softmax(output @ v['logits/w_out'] + v['logits/b_out'])         # (N, V)
    return Step(h, c, log_alpha, beta, log_probs)


def cell(v: Weights, x: np.ndarray, h: np.ndarray, c: np.ndarray,
         options: 'ModelConfig') -> tuple[np.ndarray, np.ndarray]:
    """Take one step of the LSTM, or of the GRU as Keras has it: x (N, M + K) -> h, c (N, H)."""
    if options.cell == 'lstm':
        gates = (np.concatenate([x, h], axis=1) @ v['lstm/basic_lstm_cell/kernel']
                 + v['lstm/basic_lstm_cell/bias'])                                  # (N, 4H)
        i, j, f, o = np.split(gates, 4, axis=1)
        c = sigmoid(f + options.forget_bias) * c + sigmoid(i) * np.tanh(j)
        return sigmoid(o) * np.tanh(c), c
    h = h if options.carry_state else np.zeros_like(h)
    x_z, x_r, x_h = np.split(x @ v['gru/kernel'] + v['gru/bias'][0], 3, axis=1)     # (N, H) each
    h_z, h_r, h_h = np.split(h @ v['gru/recurrent_kernel'] + v['gru/bias'][1], 3, axis=1)
    z = sigmoid(x_z + h_z)
    return z * h + (1 - z) * np.tanh(x_h + sigmoid(x_r + h_r) * h_h), c
