"""Where training starts, and how it goes on, bit for bit, where it stopped."""

import json
import os
import signal
import time

import numpy as np
import pytest

from core.common.errors import InputError
from core.encoders.encoder import TrainableEncoder
from core.metrics.scorer import Scorer
from core.runtime.backend import tf, tf1
from tests.support import tiny_model
from tests.support.solvers import assert_same_run, make, metrics, saved, watched
from tests.support.tiny_model import D, L, M


@pytest.fixture(scope='module')
def uncut(tmp_path_factory):
    """Return a function that trains without a stop, once for each name.

    It returns (directory, state at the end).
    """
    made = {}

    def train(name, *data, **options):
        if name not in made:
            directory = tmp_path_factory.mktemp(name)
            made[name] = directory, make(directory, *data, **options).train()
        return made[name]

    return train


@pytest.mark.parametrize('number', [signal.SIGINT, signal.SIGTERM])
def test_interrupted_training_goes_on_bit_for_bit(uncut, tmp_path, number):
    data = tiny_model.arrays(10)  # 4 batches an epoch
    options = {'model_options': {'alpha_c': 0.5}, 'val_data': tiny_model.arrays(3, seed=2)}
    expected, whole = uncut('interrupted', watched(data), **options)
    handlers = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    # The 6th read is of the second epoch; reading runs ahead of training by a few batches.
    cut = watched(data, 6, lambda: os.kill(os.getpid(), number))
    stopped = make(tmp_path / 'cut', cut, **options)
    with pytest.raises(KeyboardInterrupt):
        stopped.train()
    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == handlers
    state = json.loads(max((tmp_path / 'cut' / 'checkpoints').glob('*.json')).read_text())
    assert 0 < state['step'] < whole['step']
    said = []
    resumed = make(tmp_path / 'cut', watched(data), say=said.append, **options).train()
    assert said[0] == f'going on from step {state["step"]} (epoch {state["epoch"] + 1})'
    assert resumed == whole
    assert_same_run(expected, tmp_path / 'cut', whole['step'])


def test_self_critical_training_goes_on_bit_for_bit(uncut, tmp_path):
    data = tiny_model.arrays(10)
    options = {'model_options': {'self_critical': True, 'dropout_mask': 'sequence', 'alpha_c': 0.5,
                                 'bleu_reward': 0.3},
               'val_data': tiny_model.arrays(3, seed=2), 'batch_by': 'image', 'batch_size': 4,
               'captions_per_image': 2, 'validation_metric': 'CIDEr'}
    expected, whole = uncut('critical', watched(data), **options)
    cut = watched(data, 8, lambda: os.kill(os.getpid(), signal.SIGINT))
    with pytest.raises(KeyboardInterrupt):
        make(tmp_path / 'cut', cut, **options).train()
    state = json.loads(max((tmp_path / 'cut' / 'checkpoints').glob('*.json')).read_text())
    assert 0 < state['step'] < whole['step'] == 15
    assert make(tmp_path / 'cut', watched(data), **options).train() == whole
    assert_same_run(expected, tmp_path / 'cut', whole['step'])
    rewards = [entry['reward'] for entry in metrics(expected) if 'reward' in entry]
    assert len(rewards) > 3 and all(np.isfinite(rewards))


def test_interrupt_is_saved_in_the_middle_of_an_epoch(tmp_path):
    data = tiny_model.arrays(40)  # 16 batches an epoch
    whole = make(tmp_path / 'whole', data, n_epochs=1).train()
    cut = watched(data, 8, lambda: os.kill(os.getpid(), signal.SIGINT))
    with pytest.raises(KeyboardInterrupt):
        make(tmp_path / 'cut', cut, n_epochs=1).train()
    state = json.loads(max((tmp_path / 'cut' / 'checkpoints').glob('*.json')).read_text())
    assert 0 < state['position'] < 16 and state['epoch'] == 0
    rest = watched(data)
    resumed = make(tmp_path / 'cut', rest, n_epochs=1).train()
    assert len(rest.features.reads) == 16 - state['position'] and resumed == whole
    assert_same_run(tmp_path / 'whole', tmp_path / 'cut', 16)


def test_checkpoints_inside_an_epoch_and_entries_after_them(tmp_path):
    """A kill loses what came after the last checkpoint.

    Its later lines in metrics.jsonl go as well.
    """
    whole = make(tmp_path / 'whole', save_minutes=1e-9, keep_checkpoints=100).train()
    make(tmp_path / 'cut', save_minutes=1e-9, keep_checkpoints=100).train()
    for path in (tmp_path / 'cut' / 'checkpoints').iterdir():
        if int(path.name.split('.')[0].split('-')[1]) > 4:
            path.unlink()
    assert {entry['step'] for entry in metrics(tmp_path / 'cut')} == {2, 3, 4, 6, 8, 9}
    assert make(tmp_path / 'cut', save_minutes=1e-9, keep_checkpoints=100).train() == whole
    assert_same_run(tmp_path / 'whole', tmp_path / 'cut', whole['step'])


def test_finished_training_stays_finished_and_more_epochs_go_on(tmp_path):
    first = make(tmp_path, n_epochs=2).train()
    said = []
    assert make(tmp_path, n_epochs=2, say=said.append).train() == first
    assert 'training is complete: all epochs are done; step 6' in said[-1]


def test_more_epochs_go_on_from_a_finished_run(tmp_path):
    make(tmp_path / 'a', n_epochs=2).train()
    longer = make(tmp_path / 'a', n_epochs=3).train()
    whole = make(tmp_path / 'b', n_epochs=3).train()
    assert longer == whole
    assert_same_run(tmp_path / 'b', tmp_path / 'a', 9)


def test_pretrained_model(tmp_path):
    make(tmp_path / 'first', seed=3).train()
    prefix = tmp_path / 'first' / 'checkpoints' / 'step-9'
    make(tmp_path / 'second', learning_rate=0.0, n_epochs=1, pretrained_model=prefix).train()
    expected, found = saved(tmp_path / 'first', 9), saved(tmp_path / 'second', 3)
    np.testing.assert_array_equal(found['logits/w_out'], expected['logits/w_out'])
    with pytest.raises(InputError, match='not a TensorFlow checkpoint'):
        make(tmp_path / 'third', pretrained_model=tmp_path / 'nothing').train()


def test_checkpoint_of_another_model_is_refused(tmp_path):
    make(tmp_path, n_epochs=1).train()
    with pytest.raises(InputError, match='does not fit this model'):
        make(tmp_path, n_epochs=2, model_options={'dim_hidden': 12}).train()
    with pytest.raises(InputError, match='does not fit this model'):
        make(tmp_path, n_epochs=2, update_rule='momentum').train()


def test_a_solver_trains_on_after_an_interrupt(tmp_path):
    data = tiny_model.arrays()
    solver = make(tmp_path, watched(data, 1, lambda: signal.raise_signal(signal.SIGINT)),
                  n_epochs=2)
    with pytest.raises(KeyboardInterrupt):
        solver.train()
    assert solver.train()['epoch'] == 2


EVERYTHING = {'model_options': {'attention': 'hard', 'n_samples': 2, 'alpha_c': 0.5},
              'batch_by': 'one_length', 'batch_size': 4, 'learning_rate_schedule': 'plateau',
              'learning_rate_decay': 0.5, 'warmup_steps': 5, 'weight_decay': 0.01,
              'weight_averaging': 0.9, 'anneal_epochs': 2.5, 'lambda_e_start': 0.05,
              'temperature_start': 2.0}


def test_with_everything_on_training_goes_on_bit_for_bit(tmp_path):
    """Stopped in the middle of the last epoch.

    The rate was lowered before, and the annealing is under way.
    """
    data, dev = tiny_model.arrays(10), tiny_model.arrays(3, seed=2)
    # no score gets better
    options = {**EVERYTHING, 'val_data': dev, 'learning_rate': 1e-4, 'print_every': 1}
    solver = make(tmp_path / 'whole', watched(data), **options)
    n_batches, whole = len(solver.batches), solver.train()
    cut = watched(data, 2 * n_batches + 3, lambda: os.kill(os.getpid(), signal.SIGTERM))
    stopped = make(tmp_path / 'cut', cut, **options)
    with pytest.raises(KeyboardInterrupt):
        stopped.train()
    path = max((tmp_path / 'cut' / 'checkpoints').glob('*.json'),
               key=lambda path: int(path.stem.split('-')[1]))
    state = json.loads(path.read_text())
    assert state['epoch'] == 2 and 0 < state['position'] < n_batches and state['rate_factor'] == 0.5
    resumed = make(tmp_path / 'cut', watched(data), **options).train()
    assert resumed == whole and whole['rate_factor'] < 0.5
    assert_same_run(tmp_path / 'whole', tmp_path / 'cut', whole['step'])
    names = saved(tmp_path / 'whole', whole['step']).keys()
    assert {'hard_attention/baseline', 'weight_averaging/logits/w_out',
            'logits/w_out/Adam'} <= names
    steps = [entry for entry in metrics(tmp_path / 'whole') if entry['kind'] == 'training']
    shares = np.minimum(np.arange(3 * n_batches) / (2.5 * n_batches), 1)
    np.testing.assert_allclose([entry['temperature'] for entry in steps], 2 - shares)
    np.testing.assert_allclose([entry['lambda_e'] for entry in steps], 0.05 - 0.048 * shares,
                               rtol=1e-6)
    rates = [entry['learning_rate'] for entry in steps]
    np.testing.assert_allclose(rates[:6], 1e-4 * np.array([0.2, 0.4, 0.6, 0.8, 1, 1]))
    assert rates[-1] == pytest.approx(0.5e-4)


def test_word_vectors_are_set_once_at_the_start(tmp_path):
    matrix = np.random.default_rng(0).normal(size=(2, M)).astype(np.float32)
    options = {'word_vectors': ([12, 5], matrix), 'weight_averaging': 0.9}
    make(tmp_path / 'kept', learning_rate=0.0, n_epochs=1, **options).train()
    kept = saved(tmp_path / 'kept', 3)
    np.testing.assert_array_equal(kept['word_embedding/w'][[12, 5]], matrix)
    np.testing.assert_allclose(kept['weight_averaging/word_embedding/w'], kept['word_embedding/w'],
                               rtol=1e-6)
    make(tmp_path / 'first', n_epochs=1, **options).train()
    trained = saved(tmp_path / 'first', 3)['word_embedding/w']
    assert np.abs(trained[[12, 5]] - matrix).max() > 1e-3
    # Going on, with or without them, goes on from the trained ones.
    make(tmp_path / 'first', n_epochs=2, **options).train()
    make(tmp_path / 'whole', n_epochs=2, **options).train()
    assert_same_run(tmp_path / 'whole', tmp_path / 'first', 6)


def test_word_vectors_stay_where_they_are_not_trained(tmp_path):
    matrix = np.ones((2, M), np.float32)
    make(tmp_path, n_epochs=1, word_vectors=([12, 5], matrix), train_embedding=False,
         weight_decay=0.1).train()
    np.testing.assert_array_equal(saved(tmp_path, 3)['word_embedding/w'][[12, 5]], matrix)


def test_word_vectors_of_another_size(tmp_path):
    with pytest.raises(InputError, match='set dim_embed'):
        make(tmp_path, word_vectors=([4], np.ones((1, M + 1)))).train()


def test_hard_attention_starts_from_the_best_model_of_a_soft_run(tmp_path):
    """Named by its directory; word vectors come after it."""
    dev = tiny_model.arrays(3, seed=2)
    state = make(tmp_path / 'soft', val_data=dev, seed=3).train()
    matrix = np.ones((1, M), np.float32)
    make(tmp_path / 'hard', learning_rate=0.0, n_epochs=1, pretrained_model=tmp_path / 'soft',
         word_vectors=([4], matrix), model_options={'attention': 'hard'}).train()
    best = tf.train.load_checkpoint(str(tmp_path / 'soft' / 'best' / f'step-{state["best_step"]}'))
    found = saved(tmp_path / 'hard', 3)
    for name in best.get_variable_to_shape_map():
        if 'moving' not in name and name != 'word_embedding/w':
            np.testing.assert_array_equal(found[name], best.get_tensor(name), err_msg=name)
    expected = best.get_tensor('word_embedding/w')
    expected[4] = 1
    np.testing.assert_array_equal(found['word_embedding/w'], expected)
    with pytest.raises(InputError, match='no trained model here yet'):
        make(tmp_path / 'other', pretrained_model=tmp_path).train()


def with_toy_encoder():
    """Build a model with an encoder of two matrices, of which the first is frozen."""
    pixels = tf1.placeholder(tf.uint8, [None, L, D])
    with tf1.variable_scope('encoder', use_resource=True):
        frozen = tf1.get_variable('frozen', [D, D], collections=['frozen'], trainable=False)
        trained = tf1.get_variable('trained', [D, D])

    def restore(session):
        for variable, factor in ((frozen, 0.01), (trained, 1.0)):
            session.run(variable.initializer, {variable.initializer.inputs[1]: factor * np.eye(D)})

    features = tf.cast(pixels, tf.float32) @ frozen @ trained
    encoder = TrainableEncoder(pixels, features, restore, [trained], [frozen])
    return tiny_model.build(encoder=encoder)


def tunable(directory, data, val_data=None, **options):
    return make(directory, data, val_data, build=with_toy_encoder, **{'n_epochs': 1, **options})


def test_a_tuned_encoder_is_trained_kept_and_started_from(tmp_path):
    data, dev = tiny_model.arrays(), tiny_model.arrays(3, seed=2)
    for arrays in (data, dev):
        arrays['features'] = np.random.default_rng(0).integers(
            0, 256, arrays['features'].shape, np.uint8)
    solver = tunable(tmp_path / 'a', data, dev, n_epochs=2, finetune_rate=0.5)
    state = solver.train()
    kept = saved(tmp_path / 'a', 6)
    moved = np.abs(kept['encoder/trained'] - np.eye(D)).max()
    assert 0 < moved <= 6 * 0.005 * 1.5
    assert 'encoder/frozen' not in kept
    assert 'encoder/trained/Adam' in kept
    best = tf.train.load_checkpoint(str(tmp_path / 'a' / 'best' / f'step-{state["best_step"]}'))
    assert 'encoder/trained' in best.get_variable_to_shape_map()
    again = tunable(tmp_path / 'a', data, finetune_rate=0.5)
    assert [c.text for c in again.test(dev)] == [c.text for c in solver.test(dev)]
    tunable(tmp_path / 'b', data, pretrained_model=tmp_path / 'a', finetune_rate=0.0).train()
    np.testing.assert_array_equal(saved(tmp_path / 'b', 3)['encoder/trained'],
                                  best.get_tensor('encoder/trained'))
    # From a model on stored features: the encoder is the one of its weights file.
    make(tmp_path / 'stored', n_epochs=1).train()
    tunable(tmp_path / 'c', data, pretrained_model=tmp_path / 'stored', finetune_rate=0.0,
            learning_rate=0.0).train()
    found = saved(tmp_path / 'c', 3)
    np.testing.assert_array_equal(found['encoder/trained'], np.eye(D, dtype=np.float32))
    np.testing.assert_array_equal(found['logits/w_out'],
                                  saved(tmp_path / 'stored', 3)['logits/w_out'])


@pytest.mark.parametrize('at', [1, 3, 4])
def test_an_interrupt_ends_a_validation_at_once_and_it_is_done_again(uncut, tmp_path, at):
    """Two batches of dev images a validation, read number `at` of which brings the signal."""
    data, dev = tiny_model.arrays(10), tiny_model.arrays(7, seed=2)
    options = {'model_options': {'alpha_c': 0.5}, 'weight_averaging': 0.9, 'patience': 9}
    expected, whole = uncut('validated', watched(data), dev, **options)
    n_batches = whole['step'] // 3
    dev_data, said = watched(dev, at, lambda: os.kill(os.getpid(), signal.SIGINT)), []
    with pytest.raises(KeyboardInterrupt):
        make(tmp_path / 'cut', watched(data), dev_data, say=said.append, **options).train()
    done = (at - 1) // 2
    step = n_batches * (done + 1)
    assert said[-1] == f'saved at step {step}; the same command goes on from there'
    assert sum(line.startswith('validation after') for line in said) == done
    assert len(dev_data.features.reads) <= 2 * done + 2  # none of a later validation
    said.clear()
    make(tmp_path / 'cut', watched(data), dev, say=said.append, **options).train()
    assert said[0].startswith(f'going on from step {step}')
    assert 'validation after' in said[1]
    assert_same_run(expected, tmp_path / 'cut', whole['step'])


@pytest.mark.parametrize('number', [signal.SIGINT, signal.SIGTERM])
def test_an_interrupt_while_scores_are_computed_is_one_too(uncut, tmp_path, number):
    data, dev = tiny_model.arrays(10), tiny_model.arrays(4, seed=2)
    expected, whole = uncut('scored', data, dev, n_epochs=2)
    solver = make(tmp_path / 'cut', data, dev, n_epochs=2)

    class Slow(Scorer):
        def score(self, *arguments):
            os.kill(os.getpid(), number)
            time.sleep(600)

    with pytest.MonkeyPatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr('core.training.validation.Scorer', Slow)
        begun = time.monotonic()
        solver.train()
    assert time.monotonic() - begun < 500
    make(tmp_path / 'cut', data, dev, n_epochs=2).train()
    assert_same_run(expected, tmp_path / 'cut', whole['step'])
