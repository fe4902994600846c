"""The structure of a training step as TensorFlow's tracer sees it: products and bytes, never times.

What makes the step fast and small is lost easily and without a wrong number anywhere: a weight's
gradient that moves into the loop, an (N, L, A) tensor of every step, a product over padding. Each
of these changes a number here. How many operations of other kinds there are is the business of each
version of TensorFlow, and is not counted.
"""

import functools
import math
import re
from typing import NamedTuple

import numpy as np

from core.config.training import TrainingConfig
from core.data.vocabulary import SPECIALS
from core.model.caption_generator import CaptionGenerator
from core.runtime.backend import tf, tf1
from core.training.optimization import Optimization

N, L, D, H, M, V, T = 4, 60, 52, 44, 28, 230, 9
A, K, G, S = D, D, 4 * H, 4 * H + D + 1
LARGE = N * L * A * 4  # bytes of one float32 tensor of all locations
# Operations that make no new tensor.
HANDED_ON = {'Bitcast', 'Enter', 'Exit', 'EnsureShape', 'Identity', 'Merge', 'NextIteration',
             'Reshape', 'Switch', 'TensorListGetItem', 'TensorListPopBack', 'ReadVariableOp',
             '_Arg'}
LABEL = re.compile(r' = (\w+)\((.*)\)')  # '[memory] name = Kind(inputs)'


class Node(NamedTuple):
    """One execution of an operation.

    Its inputs' names, its outputs' shapes, and bytes of the largest new output.
    """

    name: str
    kind: str
    inputs: list
    shapes: dict
    size: int


@functools.cache
def traced(steps, padded=0):
    """Return the Nodes of one training step whose captions have `steps` words.

    `padded` of them have one word less.
    """
    with tf.Graph().as_default() as graph:
        words = {word: i for i, word in enumerate([*SPECIALS, *(f'w{i}' for i in range(V - 4))])}
        model = CaptionGenerator(words, (L, D), M, H, T, alpha_c=1.0)
        optimization = Optimization(model, model.build_model(), TrainingConfig(), 10)
        captions = np.zeros((N, T + 1), np.int32)
        captions[:, 0], captions[:, 1:steps], captions[:, steps] = 1, 7, 2
        captions[:padded, steps - 1], captions[:padded, steps] = 2, 0
        feeds = {model.features: np.ones((N, L, D)), model.captions: captions,
                 **optimization.feeds(0)}
        fetches = (optimization.train_op, optimization.gradient_norm, model.nll,
                   model.outputs.entropy)
        with tf1.Session(graph=graph) as session:
            session.run(tf1.global_variables_initializer())
            metadata = tf1.RunMetadata()
            session.run(fetches, feeds, tf1.RunOptions(trace_level=tf1.RunOptions.FULL_TRACE),
                        metadata)
    nodes = []
    for device in metadata.step_stats.dev_stats:
        for stats in device.node_stats:
            found = LABEL.search(stats.timeline_label)
            outputs = {output.slot: output.tensor_description for output in stats.output}
            shapes = {slot: [dim.size for dim in output.shape.dim]
                      for slot, output in outputs.items()}
            size = max((math.prod(shapes[slot]) * tf.as_dtype(output.dtype).size
                        for slot, output in outputs.items()
                        if tf.as_dtype(output.dtype).is_floating), default=0)
            kind, inputs = (found[1], found[2].split(', ')) if found else (stats.node_name, [])
            size *= kind not in HANDED_ON
            nodes.append(Node(stats.node_name, kind, inputs, shapes, size))
    return nodes


def count(nodes, kind):
    """Count how often operations whose kind contains `kind` were executed."""
    return sum(kind in node.kind for node in nodes)


def multiplications(nodes):
    """Return the floating point operations of all matrix products.

    Those inside compiled functions do not count.
    """
    shapes = {node.name: node.shapes for node in nodes}
    total = 0
    for node in nodes:
        if 'MatMul' in node.kind:
            name, _, port = node.inputs[0].partition(':')
            given = shapes[name].get(int(port or 0)) or next(iter(shapes[name].values()))
            made = node.shapes[0]
            inner = math.prod(given) // math.prod(made[:-1])
            total += 2 * math.prod(made) * inner
    return total


def expected_multiplications(steps, n_words):
    """Return what the equations need at least, given that features have no gradient."""
    projection = N * L * D * A + D * A
    first = 2 * N * D * H
    words = 2 * M * G  # <START> and the one word of all captions
    output = n_words * (H * M + K * M + M * V)
    recurrent = steps * N * (H * S + K * G)
    # Forward, gradient of the input, gradient of the weight; features have no gradient, but the
    # shift has.
    bias = n_words * V  # its gradient is a product too
    return 2 * (2 * projection + D * A + 3 * (first + words + output + recurrent) + bias)


def test_products_of_a_step():
    """Two products forward and two backward a step at most.

    No weight has its gradient inside the loop.
    """
    assert count(traced(8), 'MatMul') - count(traced(4), 'MatMul') <= 4 * 4


def test_no_product_more_than_the_equations_need():
    """No weight twice, no word twice, no step of padding, no gradient of the features."""
    for steps in (4, 8):
        found = multiplications(traced(steps))
        assert 0.98 <= found / expected_multiplications(steps, N * steps) <= 1.001


def test_no_vocabulary_logits_of_padding():
    saved = multiplications(traced(8)) - multiplications(traced(8, padded=3))
    # <END> is one more word that is fed, where a caption is shorter than others.
    assert saved == 2 * 3 * (3 * (H * M + K * M + M * V) + V - M * G)


def test_no_tensor_of_all_locations_at_every_step():
    short, long = ([node for node in traced(steps) if node.size >= LARGE] for steps in (4, 8))
    assert len(long) - len(short) == 1, [node.name for node in long]  # the block of four steps
    assert all(len(node.shapes[0]) < 4 for node in long)


def test_bytes_of_a_step():
    """What a step allocates is a small multiple of what it computes.

    That is the state, the gates and the attention of its rows.
    """
    growth = (sum(node.size for node in traced(8)) - sum(node.size for node in traced(4))) / 4
    assert growth <= 24 * 4 * N * (S + G + L + K)
