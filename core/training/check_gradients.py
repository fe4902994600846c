"""`check_gradients`: whether the gradients of a changed model are right, for who changes it.

    with tf.Graph().as_default():
        model = CaptionGenerator(words, (5, 7), 6, 11, 4, dtype=tf.float64, sentinel=True, ...)
        worst = check_gradients(model)          # {variable's name: relative error}

Three gradients of the same loss are compared: the fast one of training, TensorFlow's own of the
loop (`build_model(plain=True)`), and differences of the loss itself. A term that is missing in the
first shows against the second; an operation whose own gradient is wrong shows against the third.
What it cannot see is a loss that is not the one you mean: compare that with NumPy. A kink, of ReLU,
may lie at a place that is moved: try attention_activation='tanh' or another seed.

Letters in shapes: N images, L locations, D features of a location, T steps.
"""

from typing import Any

import numpy as np

from core.common.aliases import Session, Variable
from core.model.caption_generator import CaptionGenerator
from core.runtime.backend import tf, tf1

STEP = 1e-5  # of a difference: its error is about the square, or rounding (1e-16) divided by it
PLACES = 12  # of each variable that are moved, at most
FLOOR = 1e-4  # gradients smaller than this share of the largest are compared with that


def check_gradients(model: CaptionGenerator, n_images: int = 3, seed: int = 0) -> dict[str, float]:
    """Compare a model's gradients: fast, plain and by differences.

    On random weights and data, with two captions of each image, as rows are not images.

    Hard attention is given locations: its training gradient is an estimate, not the derivative of
    a loss, and docs/hard_attention.md tells how that is proven.

    Args:
        model: CaptionGenerator of a small size, made with dtype=tf.float64. Its loss is built anew.
        n_images: N. seed: of data, weights, dropout masks and the places that are moved.

    Returns:
        dict of each trained variable's name -> the largest error, relative to the variable's
        largest gradient. Of a right model all are below 1e-5.

    Raises:
        ValueError: the model does not compute in float64, where differences mean nothing.
    """
    if model.dtype != tf.float64:
        raise ValueError('check_gradients needs a model made with dtype=tf.float64: in float32 the '
                         'differences of a loss are mostly rounding')
    random = np.random.default_rng(seed)
    trained = [variable for variable in model.variables if variable.trainable]
    with model.graph.as_default():
        locations = None
        if model.hard:
            locations = tf.constant(random.integers(0, model.L, (2 * n_images, model.T)), tf.int32)
        losses = [model.build_model(locations=locations, plain=plain) for plain in (False, True)]
        gradients = [[tf.convert_to_tensor(gradient) for gradient in tf1.gradients(
            loss, trained, unconnected_gradients=tf.UnconnectedGradients.ZERO)] for loss in losses]
        initialize = tf1.global_variables_initializer()
    feeds = _data(model, n_images, random)
    with tf1.Session(graph=model.graph) as session:
        session.run(initialize)
        for variable in model.variables:
            shape = variable.shape.as_list()
            value = random.normal(0, 0.5, shape)
            _assign(session, variable, np.abs(value) + 0.5 if 'variance' in variable.op.name
                    else value)
        fast, plain = session.run(gradients, feeds)
        scale = max(np.abs(value).max() for value in plain)
        worst = {}
        for variable, one, other in zip(trained, fast, plain, strict=True):
            largest = max(np.abs(other).max(), FLOOR * scale)
            error = np.abs(one - other).max()
            for place in random.permutation(other.size)[:PLACES]:
                index = np.unravel_index(place, other.shape)
                difference = _difference(session, losses[1], variable, index, feeds)
                error = max(error, abs(other[index] - difference))
            worst[variable.op.name] = float(error / largest)
    return worst


def _data(model: CaptionGenerator, n_images: int, random: np.random.Generator) -> dict[Any, Any]:
    """Return feeds of random features (N, L, D) and captions (2 N, T + 1) of all lengths."""
    captions = np.full((2 * n_images, model.T + 1), model.null, np.int32)
    ordinary = [word for word in range(model.V)
                if word not in (model.null, model.start, model.end)]
    for number, caption in enumerate(captions):
        length = max(1, model.T - number % model.T)
        caption[0], caption[length] = model.start, model.end
        caption[1:length] = random.choice(ordinary, length - 1)
    features = random.normal(1, 2, (n_images, model.L, model.D))
    return {model.features: features, model.captions: captions, model.dropout_seed: (3, 4)}


def _difference(session: Session, loss: Any, variable: Variable, index: tuple[Any, ...],
                feeds: dict[Any, Any]) -> float:
    """Return the central difference of the loss by one number of a variable."""
    value = session.run(variable)
    ends = []
    for sign in (1, -1):
        moved = value.copy()
        moved[index] += sign * STEP
        _assign(session, variable, moved)
        ends.append(session.run(loss, feeds))
    _assign(session, variable, value)
    return (ends[0] - ends[1]) / (2 * STEP)


def _assign(session: Session, variable: Variable, value: np.ndarray) -> None:
    session.run(variable.initializer, {variable.initializer.inputs[1]: value})
