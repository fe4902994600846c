"""The model in plain NumPy, each line beside its equation in arXiv 1502.03044: read this first.

    told = teacher_forcing(v, features, captions, alpha_c=1.0)
    told.loss, told.alphas[0, 2]        # where the model looks for the third word of caption 0

Everything is float64 and computed as it is written: nothing is merged, moved or saved for later.
Where it is not the paper's, the line says so; docs/model.md lists these differences.
`step` is one word, soft attention or hard (with a `location`); `teacher_forcing` is a caption.
Keyword options have the names of `CaptionGenerator`'s and mean the same; `variants` has the others.
The variables are a dict `v` of arrays by name, see docs/model.md.

Letters in shapes: N images with a caption each, L locations, D features of a location, H hidden
units, M numbers of a word vector, T steps, V words. The dots of (..., L) are N, or N and S where S
sequences of locations are walked.
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np

NULL = 0  # the word that fills captions up
EPSILON, DECAY = 1e-3, 0.95  # of the batch normalisation

Weights = Mapping[str, np.ndarray]


class Step(NamedTuple):
    """What one step of the decoder gives.

    Attributes:
        h: (..., H). c: (..., H). log_alpha: (..., L). beta: (...,). log_probs: (..., V).
    """

    h: np.ndarray
    c: np.ndarray
    log_alpha: np.ndarray
    beta: np.ndarray
    log_probs: np.ndarray


class Told(NamedTuple):
    """What the model says of captions that it is told word by word; at padding, 0.

    Attributes:
        log_probs: (..., T, V), of every word, at padding too. words: (..., T), of the caption's.
        alphas: (..., T, L), at padding too. betas: (..., T), at padding too.
        entropy: (..., T), of alpha.
        draws: (..., T), log alpha of the location that was looked at; 0 for soft attention.
        probability: (...,), of the sequence of locations; steps of padding count here.
        penalty: (...,), the doubly stochastic regulariser.
    """

    log_probs: np.ndarray
    words: np.ndarray
    alphas: np.ndarray
    betas: np.ndarray
    entropy: np.ndarray
    draws: np.ndarray
    probability: np.ndarray
    penalty: np.ndarray

    @property
    def nll(self) -> float:
        """Cross entropy, summed over words, mean over captions (of one path)."""
        return -self.words.sum() / len(self.words)

    @property
    def regularizer(self) -> float:
        """Mean penalty of a caption (of one path)."""
        return self.penalty.sum() / len(self.penalty)

    @property
    def loss(self) -> float:
        """What soft attention minimises (eq. 14)."""
        return self.nll + self.regularizer


def sigmoid(x: np.ndarray) -> np.ndarray:
    """Compute the logistic function."""
    return 1 / (1 + np.exp(-x))


def log_softmax(x: np.ndarray) -> np.ndarray:
    """Compute log softmax along the last axis."""
    x = x - x.max(axis=-1, keepdims=True)
    return x - np.log(np.exp(x).sum(axis=-1, keepdims=True))


def relu(x: np.ndarray) -> np.ndarray:
    """Return what is positive of x."""
    return np.maximum(x, 0)


ACTIVATIONS: dict[str, Callable[[np.ndarray], np.ndarray]] = {'relu': relu, 'tanh': np.tanh}


def normalised(v: Weights, a: np.ndarray, training: bool = True) -> np.ndarray:
    """Batch-normalise features (N, L, D); while training, by mean and variance of the batch."""
    if training:
        mean, variance = a.mean(axis=(0, 1)), a.var(axis=(0, 1))                    # (D,) each
    else:
        mean, variance = (v[f'conv_featuresbatch_norm/moving_{name}']
                          for name in ('mean', 'variance'))
    a = (a - mean) / np.sqrt(variance + EPSILON)
    return a * v['conv_featuresbatch_norm/gamma'] + v['conv_featuresbatch_norm/beta']


def moving_statistics(v: Weights, features: np.ndarray) -> dict[str, np.ndarray]:
    """Return `moving_mean` and `moving_variance` (D,) after a training step on (N, L, D)."""
    a = np.asarray(features, np.float64)
    batch = {'moving_mean': a.mean(axis=(0, 1)), 'moving_variance': a.var(axis=(0, 1))}
    return {name: DECAY * v[f'conv_featuresbatch_norm/{name}'] + (1 - DECAY) * value
            for name, value in batch.items()}


def first_state(v: Weights, a: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Compute h and c (..., H) before the first word, of the annotations a (..., L, D)."""
    # 3.1.2: h_0 = f_init,h(mean of a_i), c_0 = f_init,c(mean of a_i)
    mean = a.mean(axis=-2)                                                          # (..., D)
    h = np.tanh(mean @ v['initial_lstm/w_h'] + v['initial_lstm/b_h'])               # (..., H)
    c = np.tanh(mean @ v['initial_lstm/w_c'] + v['initial_lstm/b_c'])               # (..., H)
    return h, c


def step(v: Weights, a: np.ndarray, word: np.ndarray, h: np.ndarray, c: np.ndarray,
         location: np.ndarray | None = None, *, attention_activation: str = 'relu',
         temperature: float = 1.0, selector: bool = True, sentinel: bool = False,
         prev2out: bool = True, ctx2out: bool = True) -> Step:
    """Go from one word to the probabilities of the next: the whole decoder.

    Args:
        v: variables by name. a: annotation vectors (..., L, D).
        word: (..., M), E y_{t-1}. h, c: (..., H), of step t - 1.
        location: (...,) int, where hard attention looks; None: everywhere, as alpha says (soft).
        attention_activation: 'relu' or 'tanh'. temperature: of alpha.
        selector: with the gate beta. sentinel: with the visual sentinel (Lu et al. 2017).
        prev2out, ctx2out: whether the word and the context reach the output directly.
    """
    act = ACTIVATIONS[attention_activation]
    # Eq. 4: e_i = f_att(a_i, h_{t-1})
    query = h @ v['attention_layer/w'] + v['attention_layer/b']                     # (..., D)
    hidden = act(a @ v['project_features/w'] + query[..., np.newaxis, :])           # (..., L, D)
    e = (hidden @ v['attention_layer/w_att'])[..., 0]                               # (..., L)
    # Eq. 5: alpha = softmax(e)
    log_alpha = log_softmax(e / temperature)                                        # (..., L)
    # Eq. 13: z = sum_i alpha_i a_i (soft). Eq. 9: z = a_s of one location s, drawn by eq. 8 (hard)
    weights = np.exp(log_alpha) if location is None else np.eye(a.shape[-2])[location]
    z = (weights[..., np.newaxis] * a).sum(axis=-2)                                 # (..., D)
    # Section 4.2.1: the gate beta = sigmoid(f_beta(h_{t-1})) scales z
    beta = np.ones(h.shape[:-1])                                                    # (...,)
    if selector:
        beta = sigmoid(h @ v['selector/w'] + v['selector/b'])[..., 0]               # (...,)
    z = beta[..., np.newaxis] * z                                                   # (..., D)
    # Lu et al. 2017: a vector s of what the cell knows takes part in the softmax
    if sentinel:
        s = sigmoid(word @ v['sentinel/w_x'] + h @ v['sentinel/w_h']) * np.tanh(c)  # (..., H)
        e_s = act(s @ v['sentinel/w_score'] + query) @ v['attention_layer/w_att']   # (..., 1)
        all_e = np.concatenate([e, e_s], axis=-1) / temperature                     # (..., L + 1)
        share = np.exp(log_softmax(all_e))[..., -1:]                                # (..., 1)
        z = (1 - share) * z + share * (s @ v['sentinel/w_context'])                 # (..., D)
        beta = 1 - share[..., 0]                                                    # (...,)
    # Eq. 1: input gate i, candidate j (the paper's g), forget gate f, output gate o, of the word,
    # the context and the state (the paper stacks E y_{t-1}, h_{t-1}, z_t)
    M, D = word.shape[-1], z.shape[-1]
    of_word, of_z, of_h = np.split(v['lstm/basic_lstm_cell/kernel'], [M, M + D])    # (M|D|H, 4H)
    gates = word @ of_word + z @ of_z + h @ of_h + v['lstm/basic_lstm_cell/bias']   # (..., 4H)
    i, j, f, o = np.split(gates, 4, axis=-1)                                        # (..., H) each
    # Eq. 2 and 3: the memory cell, and what it shows of it; it forgets little at first (+ 1, which
    # the paper has not)
    c = sigmoid(f + 1) * c + sigmoid(i) * np.tanh(j)                                # (..., H)
    h = sigmoid(o) * np.tanh(c)                                                     # (..., H)
    # Eq. 7: p(y_t) ~ exp(L_o (E y_{t-1} + L_h h_t + L_z z_t)); the authors' code has the tanh, too
    output = h @ v['logits/w_h'] + v['logits/b_h']                                  # (..., M)
    if ctx2out:
        output = output + z @ v['logits/w_ctx2out']
    if prev2out:
        output = output + word
    log_probs = log_softmax(np.tanh(output) @ v['logits/w_out'] + v['logits/b_out'])    # (..., V)
    return Step(h, c, log_alpha, beta, log_probs)


def teacher_forcing(v: Weights, features: np.ndarray, captions: np.ndarray,
                    locations: np.ndarray | None = None, *, batch_norm: bool = True,
                    training: bool = True, alpha_c: float = 0.0, mask_padding: bool = True,
                    first_state: Callable[..., Any] = first_state,
                    step: Callable[..., Step] = step, **options: Any) -> Told:
    """Tell the model the true words, whatever it would have said itself.

    Args:
        v: variables by name. features: (N, L, D).
        captions: (N, T + 1) int: <START> words <END> and <NULL> to the end.
        locations: (S, T) int, sequences that every caption walks; None: soft attention.
        batch_norm: normalise the features. training: by the batch's own statistics.
        alpha_c, mask_padding: of the regulariser; without the mask, steps of padding count in it.
        first_state, step: the functions above, or others in their places (`variants`).
        options: of `step`.

    Returns:
        Told, whose dots are N, or with locations N and S.
    """
    a = np.asarray(features, np.float64)                                            # (N, L, D)
    if batch_norm:
        a = normalised(v, a, training)
    h, c = first_state(v, a)                                                        # (N, H) each
    if locations is not None:  # one more axis, for the sequence
        a, captions = a[:, np.newaxis], captions[:, np.newaxis]
        h, c = (np.repeat(x[:, np.newaxis], len(locations), axis=1) for x in (h, c))
    inputs, targets = captions[..., :-1], captions[..., 1:]                         # (..., T)
    steps, draws = [], []
    for t in range(inputs.shape[-1]):
        word = v['word_embedding/w'][inputs[..., t]]                                # (..., M)
        location = None if locations is None else locations[:, t]                   # (S,)
        one = step(v, a, word, h, c, location, **options)
        h, c, drawn = one.h, one.c, np.zeros_like(one.beta)
        if location is not None:
            drawn = one.log_alpha[..., np.arange(len(location)), location]          # (N, S)
        steps.append(one)
        draws.append(drawn)
    log_alphas = np.stack([one.log_alpha for one in steps], axis=-2)                # (..., T, L)
    log_probs = np.stack([one.log_probs for one in steps], axis=-2)                 # (..., T, V)
    betas = np.stack([one.beta for one in steps], axis=-1)                          # (..., T)
    alphas, drawn = np.exp(log_alphas), np.stack(draws, axis=-1)

    is_real = targets != NULL                                                       # (..., T)
    words = np.take_along_axis(log_probs, targets[..., np.newaxis], axis=-1)[..., 0]
    entropy = -(alphas * log_alphas).sum(axis=-1)                                   # (..., T)
    # Section 4.2.1: sum_i (1 - sum_t alpha_ti)^2, so that every place gets its share; T words have
    # T/L for each of L places, which here stands for the 1
    counted = alphas * is_real[..., np.newaxis] if mask_padding else alphas
    T, L = alphas.shape[-2:]
    penalty = alpha_c * ((T / L - counted.sum(axis=-2))**2).sum(axis=-1)            # (...,)
    return Told(log_probs, words * is_real, alphas, betas, entropy * is_real, drawn * is_real,
                np.exp(drawn.sum(axis=-1)), penalty)
