"""Mixed precision: near float32 by the format's own error.

In float32 is what must be, and float32 itself is untouched.
"""

import functools
import json

import numpy as np
import pytest

from core.common.errors import InputError
from core.config.training import TrainingConfig
from core.runtime.backend import tf, tf1
from core.training import optimization
from core.training.optimization import Optimization
from tests.support import tiny_model
from tests.support.low_precision import skip_where_it_crashes
from tests.support.model_cases import CASES
from tests.support.solvers import assert_same_run, make, metrics, saved
from tests.support.tiny_model import T

EPSILON = {tf.bfloat16: 2.0**-8, tf.float16: 2.0**-11}  # relative rounding error of one number
LOW = tuple(EPSILON)
NEAR = {name: CASES[name] for name in (
    'default', 'tanh', 'gru without a state', 'narrow attention', 'feature layer', 'deep output')}
NEAR['hard'] = {'attention': 'hard', 'lambda_e': 0.3, 'baseline': 'none'}


@functools.cache
def loss_and_gradients(compute_dtype, jit, name):
    """Return [loss, nll], and the gradients of all trained variables as one vector.

    The model has the options NEAR[name].
    """
    options = NEAR[name]
    with tf.Graph().as_default():
        model = tiny_model.build(jit=jit, **options)
        loss = model.build_model(compute_dtype=compute_dtype)
        trained = [variable for variable in model.variables if variable.trainable]
        gradients = tf1.gradients(loss, trained)
        gradients = [tf.convert_to_tensor(gradient) for gradient in gradients
                     if gradient is not None]
        assert {gradient.dtype for gradient in gradients} == {tf.float32}
        features, captions = tiny_model.batch()
        with tiny_model.session(model, tiny_model.values(model)) as session:
            losses, found = session.run([[loss, model.nll], gradients],
                                        {model.features: features, model.captions: captions,
                                         model.dropout_seed: (3, 4)})
    return np.array(losses), np.concatenate([gradient.ravel() for gradient in found])


@pytest.mark.parametrize('dtype', LOW, ids=lambda dtype: dtype.name)
@pytest.mark.parametrize(('name', 'jit'), [(name, False) for name in NEAR] + [('default', True)])
def test_loss_and_gradients_are_near_those_of_float32(name, jit, dtype):
    skip_where_it_crashes(dtype)
    (losses, gradients), (low_losses, low_gradients) = (loss_and_gradients(d, jit, name)
                                                        for d in (None, dtype))
    assert np.isfinite(low_gradients).all() and (low_losses != losses).all()
    assert (np.abs(low_losses - losses) < EPSILON[dtype] * np.abs(losses)).all()
    error = np.linalg.norm(low_gradients - gradients) / np.linalg.norm(gradients)
    assert EPSILON[dtype] / 100 < error < 4 * EPSILON[dtype]


def operations(graph):
    """Generate pairs of operation and the names of its attributes' types.

    They are those of the graph and all its functions. Without the sums in gradients of products,
    which are over the axes that were broadcast, here none.
    """
    definition = graph.as_graph_def()
    inner = (node for function in definition.library.function for node in function.node_def)
    for node in [*definition.node, *inner]:
        if 'MatMul_grad/Sum' not in node.name:
            yield node.op, {tf.dtypes.as_dtype(value.type).name for value in node.attr.values()
                            if value.type}


@pytest.mark.parametrize('precision', ['bfloat16', 'float16'])
@pytest.mark.parametrize('options', [
    {},
    {'attention': 'hard', 'cell': 'gru', 'attention_layers': 2, 'feature_layer': 9,
     'initial_layers': 2, 'output_layers': 2},
])
def test_products_are_low_and_the_rest_is_float32(graph, precision, options):
    model = tiny_model.build(alpha_c=1.0, jit=False, **options)
    loss = model.build_model(compute_dtype=optimization.PRECISIONS[precision])
    Optimization(model, loss, TrainingConfig(precision=precision, weight_decay=0.1), 3)
    low = {op for op, types in operations(graph) if precision in types}
    assert {'MatMul', 'BatchMatMulV2', 'Cast'} <= low
    exact = ('Softmax', 'SparseSoftmax', 'LogSoftmax', 'ResourceApply', 'Exp', 'Log', 'Rsqrt',
             'Sum', 'Mean', 'Sigmoid', 'VarHandle', 'ReadVar', 'Assign', 'TensorListReserve',
             'TensorListStack')
    assert {op for op in low if op.startswith(exact)} == set()
    # Products in float32: statistics and bias of batch normalisation, gradient of the attention's
    # vector.
    products = [types for op, types in operations(graph)
                if op in ('MatMul', 'BatchMatMulV2', 'BatchMatMulV3')]
    assert sum('float32' in types and precision not in types for types in products) < 16
    counters = {tf.int64} if precision == 'float16' else set()
    assert {variable.dtype for variable in tf1.global_variables()} == {tf.float32} | counters


def test_decoding_and_float32_have_no_16_bits(graph):
    model = tiny_model.build()
    model.build_model(compute_dtype=tf.float32)
    tiny_model.sampler(model, T)
    model.build_beam_search(2, T)
    assert not any({'half', 'float16', 'bfloat16'} & types for _, types in operations(graph))


def test_float32_is_what_it_is_without_the_option():
    plain, asked = (loss_and_gradients(dtype, False, 'default') for dtype in (None, tf.float32))
    for a, b in zip(plain, asked, strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize('precision', ['bfloat16', 'float16'])
def test_one_batch_can_be_overfitted(graph, precision):
    skip_where_it_crashes(precision)
    tf1.set_random_seed(2)
    model = tiny_model.build(dropout=False, alpha_c=0.1)
    loss = model.build_model(compute_dtype=optimization.PRECISIONS[precision])
    training = Optimization(model, loss, TrainingConfig(precision=precision, learning_rate=0.01), 1)
    sampled = tiny_model.sampler(model, T)
    features, captions = tiny_model.batch()
    feeds = {model.features: features, model.captions: captions, **training.feeds(0)}
    with tiny_model.session(model) as session:
        begin = session.run(model.nll, feeds)
        for _ in range(250):
            session.run(training.train_op, feeds)
        end, words = session.run((model.nll, sampled.captions), feeds)
    assert begin > 5 and end < 0.1
    for written, caption in zip(words, captions[:, 1:], strict=True):
        real = caption[caption != tiny_model.NULL]
        np.testing.assert_array_equal(written[: len(real)], real)


# ---- training

def scales(directory):
    """Return what is recorded of the scale."""
    return [entry['loss_scale'] for entry in metrics(directory) if 'loss_scale' in entry]


def test_training_goes_on_exactly_with_skipped_steps_and_growth(tmp_path, monkeypatch):
    monkeypatch.setattr(optimization, 'FIRST_SCALE', 2.0**30)  # too large for float16 at first
    monkeypatch.setattr(optimization, 'GROWTH_STEPS', 3)
    options = {'precision': 'float16', 'weight_averaging': 0.5, 'save_minutes': 1e-9,
               'keep_checkpoints': 100, 'batch_by': 'image', 'captions_per_image': 2, 'n_epochs': 6,
               'print_every': 1, 'model_options': {'attention': 'hard', 'alpha_c': 0.5}}
    whole = make(tmp_path / 'whole', tiny_model.arrays(10), **options).train()
    found = scales(tmp_path / 'whole')
    assert len(found) == whole['step'] and found[0] == 2.0**30
    ratios = np.array(found[1:]) / found[:-1]
    assert set(ratios) == {0.5, 1.0, 2.0}  # halved, kept and doubled in the course of it
    middle = 1 + int(np.flatnonzero(ratios == 0.5)[2])  # where steps are being skipped
    make(tmp_path / 'cut', tiny_model.arrays(10), **options).train()
    for path in (tmp_path / 'cut' / 'checkpoints').iterdir():
        if int(path.name.split('.')[0].split('-')[1]) > middle:
            path.unlink()
    before, after = (saved(tmp_path / 'whole', step) for step in (middle, middle + 1))
    changed = {name for name in before if not np.array_equal(before[name], after[name])}
    assert changed == {'loss_scale/factor'}
    assert make(tmp_path / 'cut', tiny_model.arrays(10), **options).train() == whole
    assert_same_run(tmp_path / 'whole', tmp_path / 'cut', whole['step'])


def test_training_stops_where_no_scale_helps(tmp_path, monkeypatch):
    monkeypatch.setattr(optimization, 'FIRST_SCALE', 8.0)
    # a gradient beyond float16, a finite loss
    options = {'precision': 'float16', 'model_options': {'alpha_c': 1e9}}
    with pytest.raises(InputError, match='diverged.* at step 3;'):  # 8, 4, 2
        make(tmp_path, **options).train()


@pytest.mark.parametrize('precision', ['float32', 'bfloat16', 'float16'])
def test_training_stops_where_the_loss_is_not_finite(tmp_path, precision):
    skip_where_it_crashes(precision)
    data = tiny_model.arrays()
    data['features'][:] = np.nan
    with pytest.raises(InputError, match='diverged.* at step 1;'):
        make(tmp_path, data, precision=precision).train()


@pytest.mark.parametrize('precision', ['bfloat16', 'float16'])
def test_training_in_low_precision_follows_that_in_float32(tmp_path, precision):
    skip_where_it_crashes(precision)
    for name in ('float32', precision):
        make(tmp_path / name, precision=name, n_epochs=2, model_options={'dropout': False}).train()
    first, second = ([entry['loss_per_word'] for entry in metrics(tmp_path / name)]
                     for name in ('float32', precision))
    np.testing.assert_allclose(second, first, rtol=4 * EPSILON[getattr(tf, precision)])
    assert second != first
    assert json.loads((tmp_path / precision / 'best' / 'best.json').read_text())['step'] == 6
    best = tf.train.load_checkpoint(str(tmp_path / precision / 'best' / 'step-6'))
    names = set(best.get_variable_to_shape_map())
    assert not any('loss_scale' in name for name in names)
