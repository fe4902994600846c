"""Solvers over the tiny model, and what they leave behind: for the tests of training."""

import copy
import json

import numpy as np

from core.config.decoding import DecodingConfig
from core.data.data_dir import CaptionData
from core.runtime import devices
from core.runtime.backend import tf, tf1
from core.training import optimization
from core.training.solver import Solver
from tests.support import tiny_model
from tests.support.quick_sessions import as_built
from tests.support.tiny_model import T

# arguments of a Solver, of no graph
NO_OPTIONS = {'say', 'log_path', 'pretrained_model', 'word_vectors'}
QUIET = {'say': lambda line: None, 'decoding': DecodingConfig(max_len=T, decode_batch=4)}
# Options of training that no operation of the graph depends on: they reach it through what is fed.
OUTSIDE_THE_GRAPH = {'n_epochs', 'batch_size', 'batch_by', 'bucket_width', 'captions_per_image',
                     'learning_rate', 'learning_rate_decay', 'learning_rate_schedule',
                     'warmup_steps', 'plateau_patience', 'print_every', 'save_every',
                     'save_minutes', 'keep_checkpoints', 'validate_every', 'validation_metric',
                     'validation_limit', 'patience'}
_built = {}  # the last Solvers that were built, by all that their graphs depend on


class Quick(Solver):
    """A Solver whose graph is used again by the next ones of its kind, and run as it was built.

    To build the graph of a tiny model takes longer than to train it, and to optimize it likewise.
    All that training has learned is in its session and its directory, so that nothing passes from
    one Solver to the next. In processes of their own, with graphs of their own:
    tests/scripts/test_train.py.
    """

    key = None

    def build(self):
        if self._optimization is None and self.key in _built:
            other = _built[self.key]
            self._hypotheses, self._optimization = other._hypotheses, copy.copy(other._optimization)
            self._optimization.options, self._optimization._steps = self.options, len(self.batches)
        super().build()
        if self.key:
            _built[self.key] = self

    def _session(self):
        return tf1.Session(graph=self.model.graph,
                           config=as_built(devices.session_config(self.machine)))


def make(directory, data=None, val_data=None, model_options=None, seed=1, build=tiny_model.build,
         **options):
    """Return a Solver over a tiny model, that of `build`, in a graph of its kind alone.

    Its initial weights are fixed.
    """
    key = None
    if not options.keys() & {'machine', 'decoding'}:
        inside = sorted(item for item in options.items()
                        if item[0] not in {*OUTSIDE_THE_GRAPH, *NO_OPTIONS})
        key = repr((build, model_options, seed, inside, optimization.FIRST_SCALE,
                    optimization.GROWTH_STEPS))
    if key in _built:
        model = _built[key].model
    else:
        while len(_built) > 3:
            del _built[next(iter(_built))]
        with tf.Graph().as_default():
            tf1.set_random_seed(seed)
            model = build(**(model_options or {}))
    options = {'batch_size': 5, 'n_epochs': 3, 'print_every': 2, 'learning_rate': 0.01, **options}
    solver = Quick(model, data or tiny_model.arrays(), val_data, model_path=directory,
                   **{**QUIET, **options})
    solver.key = key
    return solver


def entries(directory):
    """Return what metrics.jsonl says: a list of dicts.

    A last line that is being written is left out.
    """
    path = directory / 'metrics.jsonl'
    lines = path.read_text().splitlines(keepends=True) if path.exists() else []
    return [json.loads(line) for line in lines if line.endswith('\n')]


def metrics(directory):
    """Return `entries` without what depends on the clock."""
    return [{key: value for key, value in entry.items()
             if key not in ('time', 'captions_per_second')} for entry in entries(directory)]


def saved(directory, step):
    """Return all variables of a checkpoint, the optimizer's too, by name."""
    reader = tf.train.load_checkpoint(str(directory / 'checkpoints' / f'step-{step}'))
    return {name: reader.get_tensor(name) for name in reader.get_variable_to_shape_map()}


def assert_same_variables(first, second, step):
    """Assert that two runs have the same variables, bit for bit, the optimizer's too."""
    expected, found = saved(first, step), saved(second, step)
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        np.testing.assert_array_equal(found[name], value, err_msg=name)


def assert_same_run(first, second, step):
    """Assert that training has left the same, but for what depends on the clock."""
    assert_same_variables(first, second, step)
    assert metrics(second) == metrics(first)
    for place in (f'checkpoints/step-{step}.json', 'best/best.json'):
        assert json.loads((second / place).read_text()) == json.loads((first / place).read_text())


class Watched:
    """Features in memory that count what is read, and call `act` at the read of a given number."""

    def __init__(self, array, at=None, act=None):
        self.array, self.shape, self.reads, self.at, self.act = array, array.shape, [], at, act

    def read(self, rows):
        self.reads.append(np.array(rows))
        if len(self.reads) == self.at:
            self.act()
        return self.array[rows]


def watched(data, at=None, act=None):
    made = CaptionData.from_arrays(data, dict(enumerate(tiny_model.WORDS)))
    made.features = Watched(np.asarray(data['features']), at, act)
    return made
