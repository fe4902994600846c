"""A tiny model with odd sizes, so that no two dimensions can be confused, and data for it."""

import contextlib
import typing

import numpy as np

from core.data.vocabulary import SPECIALS
from core.model.caption_generator import CaptionGenerator
from core.runtime.backend import tf, tf1
from tests.support.quick_sessions import as_built

N, L, D, H, M, T, V = 3, 5, 7, 11, 6, 4, 13
WORDS = [*SPECIALS, 'a', 'red', 'blue', 'circle', 'square', 'dog', 'runs', 'over', 'grass']
WORD_TO_IDX = {word: index for index, word in enumerate(WORDS)}
NULL, START, END, UNK = range(4)


def build(**options):
    """Build the tiny CaptionGenerator in the default graph.

    Without XLA if not told, as compiling takes longest here.
    """
    sizes = {'dim_feature': (L, D), 'dim_embed': M, 'dim_hidden': H, 'n_time_step': T, 'jit': False}
    return CaptionGenerator(WORD_TO_IDX, **{**sizes, **options})


class Sampled(typing.NamedTuple):
    """What `build_sampler` returns, with names."""

    alphas: object
    betas: object
    captions: object


def sampler(model, *arguments, **options):
    """Return `model.build_sampler(...)` as a Sampled."""
    return Sampled(*model.build_sampler(*arguments, **options))


def tf_graph():
    """Return a context with a fresh default graph."""
    return tf.Graph().as_default()


def batch():
    """Return features (N, L, D) float32 and captions (N, T + 1) int32.

    The captions have three lengths, the longest of T words.
    """
    features = np.random.default_rng(3).normal(1.0, 2.0, (N, L, D)).astype(np.float32)
    captions = [[START, 4, 9, END, NULL], [START, 5, 7, 10, END], [START, 12, END, NULL, NULL]]
    return features, np.array(captions, np.int32)


def values(model, seed=5):
    """Draw float64 values for every variable of a model, by name.

    None of them is zero, variances are positive.
    """
    random = np.random.default_rng(seed)
    drawn = {}
    for variable in sorted(model.variables, key=lambda v: v.op.name):
        shape = variable.shape.as_list()
        drawn[variable.op.name] = (random.uniform(0.5, 3.0, shape) if 'variance' in variable.op.name
                                   else random.normal(0.0, 0.5, shape))
    return drawn


@contextlib.contextmanager
def session(model, assigned=None):
    """Give a session with initialised variables, set to `assigned` (name -> array) if given."""
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
            opened.run(variable.initializer,
                       {variable.initializer.inputs[1]: assigned[variable.op.name]})


def fetch(opened, model):
    """Return the values of the model's variables by name."""
    return {variable.op.name: opened.run(variable) for variable in model.variables}


def arrays(n_images=6, per_image=2, seed=1):
    """Return the TF1 code's dict of arrays: images whose features tell their captions.

    The captions have 2 to T words.
    """
    random = np.random.default_rng(seed)
    features = random.normal(0.0, 1.0, (n_images, L, D)).astype(np.float32)
    captions = np.full((n_images * per_image, T + 1), NULL, np.int32)
    for caption in captions:
        length = random.integers(1, T)
        caption[0], caption[length + 1] = START, END
        caption[1:length + 1] = random.integers(4, V, length)
    return {'features': features, 'captions': captions,
            'image_idxs': np.repeat(np.arange(n_images), per_image)}
