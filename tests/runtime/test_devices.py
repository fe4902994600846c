"""The machine: which device, what is refused, XLA, and features in the device's memory; all that a
CPU can show.
"""

import functools
import json

import numpy as np
import pytest

from core.common.errors import InputError
from core.config.training import TrainingConfig
from core.data import device_features
from core.data.data_dir import CaptionData
from core.data.device_features import ResidentFeatures
from core.runtime import devices, xla
from core.runtime.backend import tf, tf1
from core.runtime.devices import CPU, Machine, session_config
from core.training.optimization import PRECISIONS, Optimization
from tests.support import scripts, tiny_model
from tests.support.low_precision import skip_where_it_crashes
from tests.support.sample_dirs import TINY_RUN
from tests.support.solvers import assert_same_variables, make
from tests.support.tiny_model import D, L

NO_GPU = not devices.gpu_names()
TWO = ['Tesla', 'Quadro']


# ---- which device

@pytest.mark.parametrize(('values', 'said'), [
    ({'device': 'tpu'}, '--device tpu: expected auto, cpu, gpu or gpu:N'),
    ({'device': 'gpu:'}, 'expected auto'), ({'device': 'gpu:-1'}, 'expected auto'),
    ({'threads': -1}, '--threads must be at least 0'), ({'xla': 'some'}, '--xla some'),
    ({'features_on_device': 'lots'}, 'auto, off, on or a number of GiB'),
    ({'features_on_device': '-1'}, 'number of GiB'),
    ({'features_on_device': 'nan'}, 'number of GiB')])
def test_values_that_mean_nothing(values, said):
    with pytest.raises(InputError, match=said):
        Machine(**values)


@pytest.mark.parametrize(('device', 'gpus', 'number'),
                         [('auto', [], None), ('auto', TWO, 0), ('cpu', TWO, None), ('gpu', TWO, 0),
                          ('gpu:0', TWO, 0), ('gpu:1', TWO, 1)])
def test_the_device_that_is_used(device, gpus, number):
    machine = Machine(device)
    machine.check_device(gpus)
    config = session_config(machine, gpus)
    assert machine.gpu(gpus) == number
    assert config.allow_soft_placement and config.gpu_options.allow_growth
    assert config.gpu_options.visible_device_list == ('' if number is None else str(number))
    assert dict(config.device_count) == ({'GPU': 0} if number is None else {})
    assert machine.note(gpus) == ('' if number is None else f'on gpu:{number} ({gpus[number]})')


def test_a_gpu_that_is_not_there():
    with pytest.raises(InputError,
                       match=r"--device gpu:2: there is only gpu:0 \(Tesla\), gpu:1 \(Quadro\)"):
        Machine('gpu:2').check_device(TWO)
    with pytest.raises(InputError,
                       match=r"--device gpu: .*TensorFlow.* CUDA.*pip install -e '\.\[gpu\]'"):
        session_config(Machine('gpu'), [])


def test_what_has_no_place_on_the_device_runs_on_the_cpu():
    with tf.Graph().as_default() as graph, tf1.device('/gpu:0'):
        total = tf.reduce_sum(tf.ones([3, 5]) @ tf.ones([5, 2]))
    with tf1.Session(graph=graph, config=session_config(CPU)) as session:
        assert session.run(total) == 30
        assert [device.device_type for device in session.list_devices()] == ['CPU']


def test_threads():
    config = session_config(Machine('cpu', threads=3))
    assert (config.intra_op_parallelism_threads, config.inter_op_parallelism_threads) == (3, 3)
    assert session_config(CPU).intra_op_parallelism_threads == 0  # TensorFlow's own choice


def test_settings_need_no_tensorflow_and_change_nothing():
    done = scripts.python('import os, sys; before = dict(os.environ); from core.runtime import '
                          'devices; devices.Machine("gpu:1"); print("tensorflow" in sys.modules, '
                          'before == dict(os.environ))')
    assert done.stdout == 'False True\n', done.stderr


@pytest.mark.skipif(not NO_GPU, reason='there is a GPU here')
@pytest.mark.parametrize(
    'arguments', [['train.py', 'sample_data', '--out', 'run-g', '--device', 'gpu'],
                  ['evaluate.py', 'sample_run', '--device', 'gpu:1'],
                  ['prepro.py', '--dataset', 'shapes', '--draw', '3,1,1', '--images', 'scenes-g',
                   '--encoder', 'vgg19', '--weights', 'random', '--out', 'data-g', '--device',
                   'gpu']], ids=lambda arguments: arguments[0])
def test_the_scripts_refuse_a_gpu_that_is_not_there(sample_data, sample_run, tmp_path, arguments):
    samples = {'sample_data': sample_data, 'sample_run': sample_run}
    scripts.assert_refuses(
        *(samples.get(part, part) for part in arguments), cwd=tmp_path,
        parts=[arguments[-1], 'TensorFlow', "pip install -e '.[gpu]'", '--device cpu'])


def test_a_run_does_not_record_the_machine(sample_data, sample_run, tmp_path):
    """The same training as the plain command's, bit for bit, from features that stay in memory."""
    plain, run = sample_run, tmp_path / 'run'
    done = scripts.run('train.py', sample_data, '--out', run, *scripts.settings(*TINY_RUN),
                       '--device', 'cpu', '--features-on-device', 'on')
    assert done.returncode == 0, done.stderr
    assert 'features of 8 images stay on the device: 524 kB' in done.stdout
    assert json.loads((run / 'config.json').read_text()) == json.loads(
        (plain / 'config.json').read_text())
    state = json.loads(next((run / 'checkpoints').glob('*.json')).read_text())
    assert_same_variables(plain, run, state['step'])


# ---- placement, by TensorFlow's own list of its kernels

def without_gpu_kernel(graph):
    """Operations of a graph and its functions that have no kernel for GPUs for their types."""
    from tensorflow.python.framework import kernels

    @functools.cache
    def kernels_of(operation):
        return kernels.get_registered_kernels_for_op(operation).kernel

    def fits(node, kernel):
        for constraint in kernel.constraint:
            value = node.attr[constraint.name]
            types = [value.type] if value.type else value.list.type
            if any(kind not in constraint.allowed_values.list.type for kind in types):
                return False
        return kernel.device_type in ('GPU', 'DEFAULT')

    definition, missing = graph.as_graph_def(), set()
    functions = [function for function in definition.library.function
                 if not function.attr['_XlaMustCompile'].b]
    for node in [*definition.node, *(node for function in functions for node in function.node_def)]:
        rows = kernels_of(node.op)
        # Those without any are replaced by others before they run; placeholders and calls need
        # none.
        if (rows and node.op not in ('Placeholder', 'PartitionedCall', 'StatefulPartitionedCall')
                and not any(fits(node, kernel) for kernel in rows)):
            missing.add((node.op, node.name))
    return missing


@pytest.mark.skipif(not tf.test.is_built_with_cuda(),
                    reason='TensorFlow without CUDA lists no kernels for it')
@pytest.mark.parametrize('precision', PRECISIONS)
@pytest.mark.parametrize(
    'options', [{}, {'attention': 'hard', 'cell': 'gru', 'attention_activation': 'tanh'}])
def test_every_operation_has_a_kernel_for_gpus(graph, precision, options):
    resident = ResidentFeatures(data(), tf.float16)
    model = tiny_model.build(**options)
    loss = model.build_model(features=resident.features, compute_dtype=PRECISIONS[precision])
    Optimization(model, loss, TrainingConfig(precision=precision, weight_averaging=0.9), 3)
    model.build_beam_search(2, 4)
    assert without_gpu_kernel(graph) == set()
    tf1.get_variable('whole_numbers', [], tf.int32, use_resource=True)  # which have none
    assert {op for op, _ in without_gpu_kernel(graph)} == {'VarHandleOp'}


# ---- XLA

def test_a_graph_is_compiled_or_not_as_it_is_built(graph):
    model = tiny_model.build(jit=True)

    def compiled():
        return sum(function.attr['_XlaMustCompile'].b
                   for function in graph.as_graph_def().library.function)

    model.build_model(jit=False)
    model.build_sampler(3, jit=False)
    assert compiled() == 0
    model.build_sampler(3)
    decoding = compiled()
    model.build_model()
    assert 0 < decoding < compiled()


@pytest.mark.parametrize('dtype', [None, tf.bfloat16, tf.float16])
def test_xla_compiles_here(dtype):
    skip_where_it_crashes(dtype)
    machine, said = Machine('cpu'), []
    assert xla.compile_failure(machine, dtype) == ''
    assert xla.with_working_xla(machine, dtype, said.append) is machine and said == []


def test_training_goes_on_where_xla_does_not_compile(tmp_path, monkeypatch):
    monkeypatch.setitem(xla._failures, ('cpu', 'float32'), 'no libdevice')
    said = []
    solver = make(tmp_path, n_epochs=1, machine=CPU, model_options={'jit': True}, say=said.append)
    solver.train()
    assert said[0] == 'going on without XLA, which does not compile here: no libdevice'
    assert solver.machine == Machine('cpu', xla='off')
    functions = solver.model.graph.as_graph_def().library.function
    assert not any(function.attr['_XlaMustCompile'].b for function in functions)


def test_what_xla_takes_of_the_whole_graph_computes_the_same():
    with pytest.raises(ValueError, match='prepare_environment'):
        session_config(Machine('cpu', xla='all'))
    # In a process of its own, as TensorFlow reads its settings once.
    done = scripts.python(ALL_OF_THE_GRAPH)
    assert done.returncode == 0, done.stderr
    clusters, *results = json.loads(done.stdout.splitlines()[-1])
    assert clusters > 5
    np.testing.assert_allclose(*results, rtol=1e-5)


ALL_OF_THE_GRAPH = '''
import json, sys
sys.path.insert(0, '.')
from core.runtime.devices import Machine, session_config
from core.runtime.machine_options import prepare_environment
machine = Machine('cpu', xla='all')
prepare_environment(machine)
from tests.support import tiny_model
from core.runtime.backend import tf, tf1
results = []
for machine in (machine, Machine('cpu')):
    with tf.Graph().as_default():
        tf1.set_random_seed(1)
        model = tiny_model.build(jit=False)
        loss = model.build_model()
        (gradient,) = tf1.gradients(loss, [model.output.variables['w_h']])
        features, captions = tiny_model.batch()
        feeds = {model.features: features, model.captions: captions, model.dropout_seed: (1, 2)}
        with tf1.Session(config=session_config(machine)) as session:
            session.run(tf1.global_variables_initializer())
            metadata = tf1.RunMetadata()
            options = tf1.RunOptions(output_partition_graphs=True)
            values = session.run([loss, tf.norm(gradient)], feeds, options, metadata)
            results.append([float(value) for value in values])
            operations = [node.op for part in metadata.partition_graphs for node in part.node]
            if machine.xla == 'all':
                clusters = operations.count('_XlaRun')
print(json.dumps([clusters, *results]))
'''


# ---- features in the device's memory

def data(n_images=10):
    return CaptionData.from_arrays(tiny_model.arrays(n_images), dict(enumerate(tiny_model.WORDS)))


@pytest.mark.parametrize('options', [
    {'batch_by': 'image', 'captions_per_image': 2}, {'precision': 'float16', 'batch_by': 'image'},
], ids=lambda options: '-'.join(map(str, options.values())))
def test_training_is_that_of_fed_features_bit_for_bit(tmp_path, options):
    states = [make(tmp_path / choice, tiny_model.arrays(10), n_epochs=2,
                   val_data=tiny_model.arrays(3, seed=2),
                   machine=Machine('cpu', features_on_device=choice), **options).train()
              for choice in ('off', 'on')]
    assert states[0] == states[1]
    assert_same_variables(tmp_path / 'off', tmp_path / 'on', states[0]['step'])


@pytest.mark.parametrize('rows', [1, 3, 4, 10])
@pytest.mark.parametrize('dtype', [tf.float16, tf.float32])
def test_features_in_several_variables(graph, rows, dtype):
    arrays = data()
    resident = ResidentFeatures(arrays, dtype, most=rows * L * D + L * D - 1)
    numbers = np.array([9, 0, 3, 3, 5, 2, 4, 8])
    with tf1.Session(config=session_config(CPU)) as session:
        resident.load(session, piece=2)
        feeds = {resident.numbers: resident.read_batch(numbers, numbers, 0)}
        features = session.run(resident.features, feeds)
    assert len(resident._parts) == -(-10 // rows) and tf1.global_variables() == []
    expected = arrays.read_features(numbers).astype(dtype.as_numpy_dtype)
    np.testing.assert_array_equal(features, expected)


def test_whether_features_are_kept():
    def kept(choice, n_bytes):
        return device_features.keeps_features(Machine('cpu', features_on_device=choice), n_bytes)

    assert kept('on', 1e15) and not kept('off', 1) and not kept('auto', 1)  # auto: never on the CPU
    assert kept('0.5', 2**29) and not kept('0.5', 2**29 + 1) and not kept('0', 1)
    assert ResidentFeatures.size(data(), tf.float16) == 10 * L * D * 2
    assert device_features.memory(CPU) > 0


def test_fine_tuning_has_no_features_to_keep(tmp_path):
    solver = make(tmp_path, machine=Machine('cpu', features_on_device='on'))
    solver.data.stored = False  # as ImageData says
    with pytest.raises(InputError, match='fine-tuning reads images'):
        solver.build()
