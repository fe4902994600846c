"""Importing `core` and all its modules has no side effects."""

import json

from tests.support.scripts import ROOT, python

PROGRAM = """
import json, logging, os, pkgutil, sys, warnings
import numpy

def state():
    drawn = numpy.random.get_state()
    return {
        'environ': dict(os.environ), 'logging level': logging.getLogger().level,
        'logging handlers': [repr(h) for h in logging.getLogger().handlers],
        'warnings': [repr(f) for f in warnings.filters],
        'numpy random': [drawn[0], drawn[1].tolist(), drawn[2]], 'numpy errors': numpy.geterr(),
        'stdout': repr(sys.stdout), 'stderr': repr(sys.stderr), 'directory': os.getcwd(),
    }

if sys.argv[1] == 'beside tensorflow':
    import tensorflow as tf
    tf.config.set_soft_device_placement(False)
    tf.random.set_seed(3)
    first = float(tf.random.uniform([]))
    tf.random.set_seed(3)
# Their effects are not ours.
import pycocoevalcap, matplotlib.figure, scipy.ndimage, h5py, tqdm, PIL.Image
before = state()
import core
names = ['core'] + [module.name for module in pkgutil.walk_packages(core.__path__, 'core.')]
for name in names:
    __import__(name)
os.dup2(os.open(os.devnull, os.O_WRONLY), 2)  # what TensorFlow says when it computes is not ours
after = state()
import tensorflow as tf
graph = tf.compat.v1.get_default_graph()
report = {
    'names': names, 'changed': [key for key in before if before[key] != after[key]],
    'operations': len(graph.get_operations()), 'eager': tf.executing_eagerly(),
    'v2': tf.compat.v1.resource_variables_enabled() and tf.compat.v1.control_flow_v2_enabled(),
    'sum': float(tf.constant(1.0) + 1),
    'threads': [tf.config.threading.get_intra_op_parallelism_threads(),
                tf.config.threading.get_inter_op_parallelism_threads()],
    'xla': tf.config.optimizer.get_jit(),
}
if sys.argv[1] == 'beside tensorflow':
    report['soft placement'] = tf.config.get_soft_device_placement()
    report['same draw'] = float(tf.random.uniform([])) == first
with open(sys.argv[2], 'w') as file:
    json.dump(report, file)
"""


def run(tmp_path, way):
    done = python(PROGRAM, way, tmp_path / 'report.json')
    assert done.returncode == 0, done.stderr
    return done, json.loads((tmp_path / 'report.json').read_text())


def check_report(report, of_tensorflow=()):
    assert set(report['changed']) <= set(of_tensorflow)
    assert report['operations'] == 0 and report['eager'] and report['v2'] and report['sum'] == 2.0
    assert report['threads'] == [0, 0] and not report['xla']
    modules = ROOT / 'core'
    expected = {'core'} | {'core.' + '.'.join(path.relative_to(modules).with_suffix('').parts)
                           for path in modules.rglob('*.py')}
    assert {name.removesuffix('.__init__')
            for name in expected} - {'core.__init__'} == set(report['names'])


def test_import_prints_nothing_and_changes_nothing(tmp_path):
    done, report = run(tmp_path, 'alone')
    assert done.stdout == '' and done.stderr == ''
    # TensorFlow's own import sets variables of its own; beside an imported TensorFlow nothing may
    # change (below).
    check_report(report, of_tensorflow=('environ', 'warnings'))


def test_import_leaves_a_configured_tensorflow_alone(tmp_path):
    done, report = run(tmp_path, 'beside tensorflow')
    assert done.stdout == ''
    check_report(report)
    assert report['soft placement'] is False and report['same draw']
