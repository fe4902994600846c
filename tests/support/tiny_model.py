"""A tiny model with odd sizes, so that no two dimensions can be confused; data for it; its mathematics in NumPy."""

import contextlib

import numpy as np

from core.data.vocabulary import SPECIALS
from core.model.caption_generator import CaptionGenerator
from core.runtime.backend import tf, tf1

N, L, D, H, M, T, V = 3, 5, 7, 11, 6, 4, 13
WORDS = [*SPECIALS, 'a', 'red', 'blue', 'circle', 'square', 'dog', 'runs', 'over', 'grass']
WORD_TO_IDX = {word: index for index, word in enumerate(WORDS)}
NULL, START, END, UNK = range(4)


def build(**options):
    """The tiny CaptionGenerator in the default graph."""
    sizes = {'dim_feature': (L, D), 'dim_embed': M, 'dim_hidden': H, 'n_time_step': T}
    return CaptionGenerator(WORD_TO_IDX, **{**sizes, **options})


def tf_graph():
    """A context with a fresh default graph."""
    return tf.Graph().as_default()


def batch():
    """Features (N, L, D) float32 and captions (N, T + 1) int32 of three lengths, the longest of T words."""
    features = np.random.default_rng(3).normal(1.0, 2.0, (N, L, D)).astype(np.float32)
    captions = [[START, 4, 9, END, NULL], [START, 5, 7, 10, END], [START, 12, END, NULL, NULL]]
    return features, np.array(captions, np.int32)


def values(model, seed=5):
    """Random float64 values for every variable of a model, by name; none of them zero, variances positive."""
    random = np.random.default_rng(seed)
    drawn = {}
    for variable in sorted(model.variables, key=lambda v: v.op.name):
        shape = variable.shape.as_list()
        drawn[variable.op.name] = (random.uniform(0.5, 3.0, shape) if 'variance' in variable.op.name else
                                   random.normal(0.0, 0.5, shape))
    return drawn


def as_built(config=None):
    """A session's ConfigProto (changed in place) without Grappler, which takes longer than tiny graphs run."""
    config = config or tf1.ConfigProto()
    config.graph_options.rewrite_options.disable_meta_optimizer = True
    return config


@contextlib.contextmanager
def session(model, assigned=None):
    """A session with initialised variables, set to `assigned` (name -> array) where given."""
    with model.graph.as_default():
        initialize = tf1.global_variables_initializer()
    with tf1.Session(graph=model.graph, config=as_built()) as opened:
        opened.run(initialize)
        assign(opened, model, assigned or {})
        yield opened


def assign(opened, model, assigned):
    """Set variables of a model by name."""
    for variable in model.variables:
        if variable.op.name in assigned:
            opened.run(variable.initializer, {variable.initializer.inputs[1]: assigned[variable.op.name]})


def fetch(opened, model):
    """Values of the model's variables by name."""
    return {variable.op.name: opened.run(variable) for variable in model.variables}


def arrays(n_images=6, per_image=2, seed=1):
    """The TF1 code's dict of arrays: images whose features tell their captions, which have 2 to T words."""
    random = np.random.default_rng(seed)
    features = random.normal(0.0, 1.0, (n_images, L, D)).astype(np.float32)
    captions = np.full((n_images * per_image, T + 1), NULL, np.int32)
    for caption in captions:
        length = random.integers(1, T)
        caption[0], caption[length + 1] = START, END
        caption[1:length + 1] = random.integers(4, V, length)
    return {'features': features, 'captions': captions, 'image_idxs': np.repeat(np.arange(n_images), per_image)}


# ---- the equations of the default model, in float64

def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def log_softmax(x):
    x = x - x.max(axis=-1, keepdims=True)
    return x - np.log(np.exp(x).sum(axis=-1, keepdims=True))


def transcription(v, features, captions, *, activation='relu', selector=True, prev2out=True, ctx2out=True,
                  alpha_c=0.0, mask_padding=True, training=True):
    """Teacher forcing of captions (N, T + 1), equation by equation; `v` is a dict of variables by TF1 name.

    Returns:
        dict: nll, regularizer, loss, alphas (N, T, L), betas (N, T), log_probs (N, T, V), and the batch
        normalisation's moving statistics after the step.
    """
    act = {'relu': lambda x: np.maximum(x, 0), 'tanh': np.tanh}[activation]
    a = features.astype(np.float64)
    n, n_locations, _ = a.shape
    bn = {key: v[f'conv_featuresbatch_norm/{key}'] for key in ('beta', 'gamma', 'moving_mean', 'moving_variance')}
    mean, variance = bn['moving_mean'], bn['moving_variance']
    if training:
        mean, variance = a.mean(axis=(0, 1)), a.var(axis=(0, 1))
    a = (a - mean) / np.sqrt(variance + 1e-3) * bn['gamma'] + bn['beta']

    h = np.tanh(a.mean(axis=1) @ v['initial_lstm/w_h'] + v['initial_lstm/b_h'])
    c = np.tanh(a.mean(axis=1) @ v['initial_lstm/w_c'] + v['initial_lstm/b_c'])
    n_steps = captions.shape[1] - 1
    alphas, betas, log_probs = [], [], []
    for t in range(n_steps):
        word = v['word_embedding/w'][captions[:, t]]
        query = h @ v['attention_layer/w'] + v['attention_layer/b']
        e = (act(a @ v['project_features/w'] + query[:, None, :]) @ v['attention_layer/w_att'])[:, :, 0]
        alpha = np.exp(log_softmax(e))
        context = (alpha[:, :, None] * a).sum(axis=1)
        beta = sigmoid(h @ v['selector/w'] + v['selector/b']) if selector else np.ones((n, 1))
        context = beta * context
        gates = (np.concatenate([word, context, h], axis=1) @ v['lstm/basic_lstm_cell/kernel']
                 + v['lstm/basic_lstm_cell/bias'])
        i, j, f, o = np.split(gates, 4, axis=1)
        c = sigmoid(f + 1) * c + sigmoid(i) * np.tanh(j)
        h = sigmoid(o) * np.tanh(c)
        hidden = h @ v['logits/w_h'] + v['logits/b_h']
        if ctx2out:
            hidden = hidden + context @ v['logits/w_ctx2out']
        if prev2out:
            hidden = hidden + word
        log_probs.append(log_softmax(np.tanh(hidden) @ v['logits/w_out'] + v['logits/b_out']))
        alphas.append(alpha)
        betas.append(beta[:, 0])
    alphas, betas, log_probs = (np.stack(x, axis=1) for x in (alphas, betas, log_probs))

    targets = captions[:, 1:]
    real = targets != NULL
    nll = -sum(log_probs[k, t, targets[k, t]] for k, t in zip(*np.nonzero(real), strict=True)) / n
    counted = alphas * real[:, :, None] if mask_padding else alphas
    regularizer = alpha_c * ((n_steps / n_locations - counted.sum(axis=1))**2).sum() / n
    return {
        'nll': nll, 'regularizer': regularizer, 'loss': nll + regularizer, 'alphas': alphas, 'betas': betas,
        'log_probs': log_probs,
        'moving_mean': 0.95 * bn['moving_mean'] + 0.05 * mean,
        'moving_variance': 0.95 * bn['moving_variance'] + 0.05 * variance,
    }
