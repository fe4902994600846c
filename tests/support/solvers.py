"""Solvers over the tiny model, and what they leave behind: for the tests of training."""

import json

import numpy as np

from core.config.decoding import DecodingConfig
from core.data.data_dir import CaptionData
from core.runtime import devices
from core.runtime.backend import tf, tf1
from core.training.solver import Solver
from tests.support import tiny_model
from tests.support.quick_sessions import as_built
from tests.support.tiny_model import T

QUIET = {'say': lambda line: None, 'decoding': DecodingConfig(max_len=T, decode_batch=4)}


class Quick(Solver):
    """A Solver whose sessions leave graphs as they are: optimising one takes longer than training a tiny model.

    Runs of train.py are optimised; see test_train_cli.
    """

    def _session(self):
        return tf1.Session(graph=self.model.graph, config=as_built(devices.session_config(self.machine)))


def make(directory, data=None, val_data=None, model_options=None, seed=1, **options):
    """A Solver over a new tiny model in a graph of its own, with fixed initial weights."""
    with tf.Graph().as_default():
        tf1.set_random_seed(seed)
        model = tiny_model.build(**(model_options or {}))
    options = {'batch_size': 5, 'n_epochs': 3, 'print_every': 2, 'learning_rate': 0.01, **options}
    return Quick(model, data or tiny_model.arrays(), val_data, model_path=directory, **{**QUIET, **options})


def entries(directory):
    """What metrics.jsonl says: a list of dicts. A last line that is being written is left out."""
    path = directory / 'metrics.jsonl'
    lines = path.read_text().splitlines(keepends=True) if path.exists() else []
    return [json.loads(line) for line in lines if line.endswith('\n')]


def metrics(directory):
    """`entries` without what depends on the clock."""
    return [{key: value for key, value in entry.items() if key not in ('time', 'captions_per_second')}
            for entry in entries(directory)]


def saved(directory, step):
    """All variables of a checkpoint, the optimizer's too, by name."""
    reader = tf.train.load_checkpoint(str(directory / 'checkpoints' / f'step-{step}'))
    return {name: reader.get_tensor(name) for name in reader.get_variable_to_shape_map()}


def assert_same_run(first, second, step):
    expected, found = saved(first, step), saved(second, step)
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        np.testing.assert_array_equal(found[name], value, err_msg=name)
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
