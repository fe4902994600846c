"""Training: it learns, goes on bit for bit where it stopped, and says what is wrong in one line."""

import collections
import json
import os
import signal
import time

import numpy as np
import pytest
import tiny
from tiny import END, NULL, START, D, L, M, T, V

from core import captioning
from core.backend import tf, tf1
from core.config import DecodingConfig
from core.errors import InputError
from core.metrics import Scorer
from core.model import CaptionGenerator
from core.solver import Solver
from core.store import CaptionData

QUIET = {'say': lambda line: None, 'decoding': DecodingConfig(max_len=T, decode_batch=4)}


def make(directory, data=None, val_data=None, model_options=None, seed=1, **options):
    """A Solver over a new tiny model in a graph of its own, with fixed initial weights."""
    with tf.Graph().as_default():
        tf1.set_random_seed(seed)
        model = tiny.build(**(model_options or {}))
    options = {'batch_size': 5, 'n_epochs': 3, 'print_every': 2, 'learning_rate': 0.01, **options}
    return Solver(model, data or tiny.arrays(), val_data, model_path=directory, **{**QUIET, **options})


def metrics(directory):
    """Entries of metrics.jsonl without what depends on the clock."""
    lines = (directory / 'metrics.jsonl').read_text().splitlines()
    return [{key: value for key, value in json.loads(line).items() if key not in ('time', 'captions_per_second')}
            for line in lines]


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
    made = CaptionData.from_arrays(data, dict(enumerate(tiny.WORDS)))
    made.features = Watched(np.asarray(data['features']), at, act)
    return made


@pytest.mark.parametrize('rule', ['adam', 'rmsprop', 'momentum', 'sgd'])
def test_loss_falls_under_every_update_rule(tmp_path, rule):
    rate = {'adam': 0.01, 'rmsprop': 0.03, 'momentum': 0.05, 'sgd': 0.3}[rule]
    solver = make(tmp_path, n_epochs=12, update_rule=rule, learning_rate=rate, print_every=3, save_every=20,
                  model_options={'dropout': False})
    state = solver.train()
    losses = [entry['loss_per_word'] for entry in metrics(tmp_path)]
    assert state['step'] == 12 * 3 and len(losses) == 12
    assert losses[-1] < 0.8 * losses[0]


@pytest.mark.parametrize('number', [signal.SIGINT, signal.SIGTERM])
def test_interrupted_training_goes_on_bit_for_bit(tmp_path, number):
    data = tiny.arrays(10)  # 4 batches an epoch
    options = {'model_options': {'alpha_c': 0.5}, 'val_data': tiny.arrays(3, seed=2)}
    whole = make(tmp_path / 'whole', watched(data), **options).train()
    handlers = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    # The 6th read is of the second epoch; reading runs ahead of training by a few batches.
    stopped = make(tmp_path / 'cut', watched(data, 6, lambda: os.kill(os.getpid(), number)), **options)
    with pytest.raises(KeyboardInterrupt):
        stopped.train()
    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == handlers
    state = json.loads(max((tmp_path / 'cut' / 'checkpoints').glob('*.json')).read_text())
    assert 0 < state['step'] < whole['step']
    said = []
    resumed = make(tmp_path / 'cut', watched(data), say=said.append, **options).train()
    assert said[0] == f'going on from step {state["step"]} (epoch {state["epoch"] + 1})'
    assert resumed == whole
    assert_same_run(tmp_path / 'whole', tmp_path / 'cut', whole['step'])


def test_interrupt_is_saved_in_the_middle_of_an_epoch(tmp_path):
    data = tiny.arrays(40)  # 16 batches an epoch
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
    """A kill loses what came after the last checkpoint; its later lines in metrics.jsonl go as well."""
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


def test_every_caption_once_an_epoch(tmp_path):
    data = watched(tiny.arrays(7, 3))
    make(tmp_path, data, n_epochs=2, batch_size=4).train()
    reads = data.features.reads
    assert len(reads) == 12
    for epoch in (reads[:6], reads[6:]):
        assert collections.Counter(np.concatenate(epoch).tolist()) == dict.fromkeys(range(7), 3)


def test_gradients_are_clipped(tmp_path):
    """Under plain gradient descent one step moves the weights by rate times the clipped norm."""
    moved = {}
    for clip in (0.0, 0.01, 1e6):
        directory = tmp_path / str(clip)
        solver = make(directory, n_epochs=1, batch_size=50, update_rule='sgd', learning_rate=1.0, clip_norm=clip,
                      model_options={'dropout': False})
        with tiny.session(solver.model) as session:
            before = {name: v for name, v in tiny.fetch(session, solver.model).items() if 'moving' not in name}
        state = solver.train()
        after = saved(directory, state['step'])
        moved[clip] = np.sqrt(sum(((after[name] - value)**2).sum() for name, value in before.items()))
    assert moved[0.01] == pytest.approx(0.01, rel=1e-2)
    assert moved[0.0] > 0.1 and moved[0.0] == pytest.approx(moved[1e6], rel=1e-5)


def test_learning_rate_schedules(tmp_path):
    steps = (0, 2, 3, 5, 6)  # 3 batches an epoch
    rates = {schedule: [make(tmp_path, learning_rate_schedule=schedule, learning_rate=0.8, learning_rate_decay=0.5,
                             n_epochs=2).learning_rate_at(step) for step in steps]
             for schedule in ('constant', 'exponential', 'cosine')}
    assert rates['constant'] == [0.8] * 5
    assert rates['exponential'] == pytest.approx([0.8, 0.8, 0.4, 0.4, 0.2])
    assert rates['cosine'] == pytest.approx([0.8, 0.4 * (1 + np.cos(np.pi / 3)), 0.4,
                                             0.4 * (1 + np.cos(np.pi * 5 / 6)), 0.0])


def test_training_uses_the_schedule(tmp_path):
    make(tmp_path, learning_rate_schedule='exponential', learning_rate_decay=0.5, print_every=3).train()
    assert [entry['learning_rate'] for entry in metrics(tmp_path)] == pytest.approx([0.01, 0.005, 0.0025])


def test_unigram_loss(tmp_path):
    captions = np.array([[START, 4, 4, 5, END], [START, 4, END, NULL, NULL], [START, END, NULL, NULL, NULL]])
    data = {'features': np.zeros((1, L, D)), 'captions': captions, 'image_idxs': np.zeros(3, int)}
    # 7 words are predicted: 4 three times, 5 once, <END> three times.
    expected = -(6 * np.log(3 / 7) + np.log(1 / 7)) / 7
    assert make(tmp_path, data).unigram_loss() == pytest.approx(expected)


def test_reported_losses_are_those_of_the_steps(tmp_path):
    """With a rate of nothing and no dropout the loss of an epoch is that of the initial model, however printed."""
    options = {'learning_rate': 0.0, 'n_epochs': 1, 'model_options': {'dropout': False}, 'batch_size': 12}
    solver = make(tmp_path / 'a', print_every=1, **options)
    data = tiny.arrays()
    with tiny.session(solver.model) as session:
        expected = tiny.transcription(tiny.fetch(session, solver.model), data['features'][data['image_idxs']],
                                      data['captions'])
    solver.train()
    entry, = metrics(tmp_path / 'a')
    words = np.count_nonzero(data['captions'][:, 1:])
    assert entry['loss_per_word'] == pytest.approx(expected['nll'] * 12 / words, rel=1e-4)
    assert entry['loss_per_caption'] == pytest.approx(expected['nll'], rel=1e-4)
    make(tmp_path / 'b', print_every=1, **{**options, 'batch_size': 100}).train()
    assert metrics(tmp_path / 'b')[0]['loss_per_caption'] == pytest.approx(expected['nll'], rel=1e-4)


def test_early_stopping_keeps_the_best_model(tmp_path):
    """With a rate of nothing only the moving statistics change, so validations soon stop getting better."""
    said = []
    solver = make(tmp_path, tiny.arrays(), tiny.arrays(3, seed=2), learning_rate=0.0, n_epochs=9, patience=2,
                  validation_metric='CIDEr', say=said.append, model_options={'dropout': False})
    state = solver.train()
    validations = [entry for entry in metrics(tmp_path) if entry['kind'] == 'validation']
    scores = [entry['CIDEr'] for entry in validations]
    best_epoch = 1 + int(np.argmax(scores))
    assert [entry['epoch'] for entry in validations] == list(range(1, best_epoch + 3)) and best_epoch < 7
    assert (state['epoch'], state['best_step'], state['waited']) == (best_epoch + 2, 3 * best_epoch, 2)
    assert 'no better CIDEr in 2 validations' in said[-1]
    best = json.loads((tmp_path / 'best' / 'best.json').read_text())
    assert best['step'] == 3 * best_epoch and best['epoch'] == best_epoch
    assert {'Bleu_4', 'CIDEr', 'ROUGE_L'} <= best['scores'].keys()
    assert state['best_score'] == best['scores']['CIDEr'] == max(scores)
    again = make(tmp_path, tiny.arrays(), tiny.arrays(3, seed=2), learning_rate=0.0, n_epochs=9, patience=2,
                 validation_metric='CIDEr', model_options={'dropout': False}).train()
    assert again == state


def test_best_model_is_the_one_validated_and_test_reads_it(tmp_path):
    data = tiny.arrays(4, 1)
    solver = make(tmp_path, data, data, n_epochs=60, learning_rate=0.02, batch_size=4, validate_every=20, patience=0,
                  print_every=50, model_options={'dropout': False}, validation_metric='ROUGE_L')
    state = solver.train()
    captions = solver.test()
    assert state['best_score'] > 0.9
    references = CaptionData.from_arrays(data, dict(enumerate(tiny.WORDS))).references
    exact = sum(caption.text == texts[0] for caption, texts in zip(captions, references, strict=True))
    assert exact >= 3
    for caption in captions:
        assert caption.alphas.shape == (len(caption.words), L) and caption.betas.shape == (len(caption.words),)
    assert [c.text for c in solver.test(images=[2, 0])] == [captions[2].text, captions[0].text]
    assert [c.text for c in make(tmp_path, data).test(data)] == [c.text for c in captions]


def test_pretrained_model(tmp_path):
    make(tmp_path / 'first', seed=3).train()
    prefix = tmp_path / 'first' / 'checkpoints' / 'step-9'
    make(tmp_path / 'second', learning_rate=0.0, n_epochs=1, pretrained_model=prefix).train()
    expected, found = saved(tmp_path / 'first', 9), saved(tmp_path / 'second', 3)
    np.testing.assert_array_equal(found['logits/w_out'], expected['logits/w_out'])
    with pytest.raises(InputError, match='not a TensorFlow checkpoint'):
        make(tmp_path / 'third', pretrained_model=tmp_path / 'nothing').train()


def test_not_a_number(tmp_path):
    data = tiny.arrays()
    data['features'][2, 1, 1] = np.inf
    with pytest.raises(InputError, match='not finite at step [123]; lower learning_rate'):
        make(tmp_path, data, n_epochs=1).train()
    assert not list((tmp_path / 'checkpoints').glob('*'))


@pytest.mark.parametrize(('option', 'hint'), [
    ('learning_rat', "did you mean 'learning_rate'"), ('epochs', "did you mean 'n_epochs'"),
    ('zzz', 'known: n_epochs'),
])
def test_unknown_options_name_the_nearest(tmp_path, option, hint):
    with pytest.raises(InputError, match=hint):
        make(tmp_path, **{option: 1})


@pytest.mark.parametrize(('option', 'value'), [
    ('update_rule', 'adamax'), ('batch_size', 0), ('learning_rate_schedule', 'linear'), ('n_epochs', 0),
    ('learning_rate', 'fast'), ('validation_metric', 'SPICE'), ('batch_size', 2.5),
])
def test_bad_values(tmp_path, option, value):
    with pytest.raises(InputError, match=option):
        make(tmp_path, **{option: value})


@pytest.mark.parametrize(('change', 'message'), [
    ({'features': np.zeros((6, L + 1, D))}, 'the model expects'),
    ({'captions': np.ones((12, T + 2), int)}, f'the model expects {T + 1}'),
    ({'captions': np.full((12, T + 1), V)}, f'use word {V}, the model has {V} words'),
    ({'captions': np.zeros((0, T + 1), int), 'image_idxs': np.zeros(0, int)}, 'no training caption'),
])
def test_data_that_do_not_fit(tmp_path, change, message):
    with pytest.raises(InputError, match=message):
        make(tmp_path, {**tiny.arrays(), 'references': [['a']] * 6, **change})


def test_data_without_a_key_and_dev_data_without_captions(tmp_path):
    data = tiny.arrays()
    del data['image_idxs']
    with pytest.raises(InputError, match="lacks 'image_idxs'"):
        make(tmp_path, data)
    with pytest.raises(InputError, match='no dev image has a caption'):
        make(tmp_path, val_data={**tiny.arrays(), 'references': [[]] * 6}, n_epochs=1).train()


def test_checkpoint_of_another_model_is_refused(tmp_path):
    make(tmp_path, n_epochs=1).train()
    with pytest.raises(InputError, match='does not fit this model'):
        make(tmp_path, n_epochs=2, model_options={'dim_hidden': 12}).train()
    with pytest.raises(InputError, match='does not fit this model'):
        make(tmp_path, n_epochs=2, update_rule='momentum').train()


def test_test_before_training(tmp_path):
    with pytest.raises(InputError, match='no trained model here yet'):
        make(tmp_path).test(tiny.arrays())


def test_default_sizes_of_the_tf1_code_are_positional(graph):
    model = CaptionGenerator(tiny.WORD_TO_IDX, (L, D), M, 8, T, False, False, 1.0, False, False)
    options = model.options
    assert (options.prev2out, options.ctx2out, options.alpha_c, options.selector, options.dropout) == (
        False, False, 1.0, False, False)


def test_a_solver_trains_on_after_an_interrupt(tmp_path):
    data = tiny.arrays()
    solver = make(tmp_path, watched(data, 1, lambda: signal.raise_signal(signal.SIGINT)), n_epochs=2)
    with pytest.raises(KeyboardInterrupt):
        solver.train()
    assert solver.train()['epoch'] == 2


def test_broken_variables_are_never_saved(tmp_path):
    with pytest.raises(InputError, match='not finite'):
        make(tmp_path, tiny.arrays(), tiny.arrays(3, seed=2), learning_rate=3e38, update_rule='sgd', clip_norm=0.0,
             n_epochs=1, batch_size=12).train()
    assert not list((tmp_path / 'checkpoints').glob('*')) and not (tmp_path / 'best').exists()


# ---- the training rules together

EVERYTHING = {
    'model_options': {'attention': 'hard', 'n_samples': 2, 'alpha_c': 0.5}, 'batch_by': 'one_length', 'batch_size': 4,
    'learning_rate_schedule': 'plateau', 'learning_rate_decay': 0.5, 'warmup_steps': 5, 'weight_decay': 0.01,
    'weight_averaging': 0.9, 'anneal_epochs': 2.5, 'lambda_e_start': 0.05, 'temperature_start': 2.0,
}


def test_with_everything_on_training_goes_on_bit_for_bit(tmp_path):
    """Stopped in the middle of the last epoch, after the rate was lowered and with the annealing under way."""
    data, dev = tiny.arrays(10), tiny.arrays(3, seed=2)
    options = {**EVERYTHING, 'val_data': dev, 'learning_rate': 1e-4, 'print_every': 1}  # no score gets better
    solver = make(tmp_path / 'whole', watched(data), **options)
    n_batches, whole = len(solver.batches), solver.train()
    stopped = make(tmp_path / 'cut', watched(data, 2 * n_batches + 3, lambda: os.kill(os.getpid(), signal.SIGTERM)),
                   **options)
    with pytest.raises(KeyboardInterrupt):
        stopped.train()
    path = max((tmp_path / 'cut' / 'checkpoints').glob('*.json'), key=lambda path: int(path.stem.split('-')[1]))
    state = json.loads(path.read_text())
    assert state['epoch'] == 2 and 0 < state['position'] < n_batches and state['rate_factor'] == 0.5
    resumed = make(tmp_path / 'cut', watched(data), **options).train()
    assert resumed == whole and whole['rate_factor'] < 0.5
    assert_same_run(tmp_path / 'whole', tmp_path / 'cut', whole['step'])
    names = saved(tmp_path / 'whole', whole['step']).keys()
    assert {'hard_attention/baseline', 'weight_averaging/logits/w_out', 'logits/w_out/Adam'} <= names
    steps = [entry for entry in metrics(tmp_path / 'whole') if entry['kind'] == 'training']
    shares = np.minimum(np.arange(3 * n_batches) / (2.5 * n_batches), 1)
    np.testing.assert_allclose([entry['temperature'] for entry in steps], 2 - shares)
    np.testing.assert_allclose([entry['lambda_e'] for entry in steps], 0.05 - 0.048 * shares, rtol=1e-6)
    rates = [entry['learning_rate'] for entry in steps]
    np.testing.assert_allclose(rates[:6], 1e-4 * np.array([0.2, 0.4, 0.6, 0.8, 1, 1]))
    assert rates[-1] == pytest.approx(0.5e-4)


def test_annealed_values_reach_the_model(tmp_path):
    """A temperature so high that alpha is even: the entropy that is reported is log L, later less."""
    options = {'anneal_epochs': 1.0, 'temperature_start': 1e6, 'print_every': 1, 'batch_size': 4}
    make(tmp_path, n_epochs=2, model_options={'batch_norm': False, 'temperature': 0.05}, **options).train()
    steps = metrics(tmp_path)
    assert steps[0]['attention_entropy'] == pytest.approx(np.log(L), abs=1e-6)
    assert steps[-1]['temperature'] == 0.05 and steps[-1]['attention_entropy'] < np.log(L) - 0.1


def test_entropy_of_the_steps_is_reported(tmp_path, capsys):
    options = {'learning_rate': 0.0, 'n_epochs': 1, 'model_options': {'dropout': False}, 'batch_size': 12}
    solver, data = make(tmp_path, **options), tiny.arrays()
    with tiny.session(solver.model) as session:
        expected = tiny.transcription(tiny.fetch(session, solver.model), data['features'][data['image_idxs']],
                                      data['captions'])
    solver.train()
    real = data['captions'][:, 1:] != NULL
    entropy = -(expected['alphas'] * np.log(expected['alphas'])).sum(axis=2)[real].mean()
    entry, = metrics(tmp_path)
    assert entry['attention_entropy'] == pytest.approx(entropy, rel=1e-4) and 'temperature' not in entry
    assert f'  entropy {entropy:.2f}  ' in ''.join(capsys.readouterr())


def test_a_checkpoint_without_the_newer_entries_goes_on(tmp_path):
    whole = make(tmp_path / 'a', n_epochs=2).train()
    make(tmp_path / 'b', n_epochs=1).train()
    path = tmp_path / 'b' / 'checkpoints' / 'step-3.json'
    state = json.loads(path.read_text())
    del state['rate_factor'], state['entropy']
    path.write_text(json.dumps(state))
    assert make(tmp_path / 'b', n_epochs=2).train() == whole


def test_plateau_needs_validations(tmp_path):
    with pytest.raises(InputError, match='plateau follows the validations'):
        make(tmp_path, learning_rate_schedule='plateau').train()


def test_the_best_model_is_the_averages_and_training_goes_on_from_the_raw_ones(tmp_path):
    dev = tiny.arrays(3, seed=2)
    make(tmp_path / 'plain', val_data=dev, n_epochs=2, validate_every=1).train()
    solver = make(tmp_path / 'averaged', val_data=dev, n_epochs=2, weight_averaging=0.9)
    state = solver.train()
    raw, kept = saved(tmp_path / 'plain', 6), saved(tmp_path / 'averaged', 6)
    for name, value in raw.items():  # validation in between left no trace
        np.testing.assert_array_equal(kept[name], value, err_msg=name)
    best = tf.train.load_checkpoint(str(tmp_path / 'averaged' / 'best' / f'step-{state["best_step"]}'))
    at_best = saved(tmp_path / 'averaged', state['best_step'])
    for name in best.get_variable_to_shape_map():
        source = name if 'moving' in name else f'weight_averaging/{name}'
        np.testing.assert_array_equal(best.get_tensor(name), at_best[source], err_msg=name)
    assert np.abs(best.get_tensor('logits/w_out') - at_best['logits/w_out']).max() > 1e-3
    # What was validated is what `test` sees.
    captions_seen = solver.test(dev)
    with tiny.session(solver.model, {n: best.get_tensor(n) for n in best.get_variable_to_shape_map()}) as session:
        expected = list(captioning.generate(session, solver.model, solver._sampled, solver.val_data))
    assert [c.words for c in captions_seen] == [c.words for c in expected]
    for found, wanted in zip(captions_seen, expected, strict=True):
        np.testing.assert_allclose(found.alphas, wanted.alphas, rtol=1e-6)


def test_averages_without_validation_are_kept_too(tmp_path):
    make(tmp_path, n_epochs=1, weight_averaging=0.9).train()
    best = tf.train.load_checkpoint(str(tmp_path / 'best' / 'step-3'))
    np.testing.assert_array_equal(best.get_tensor('logits/w_out'), saved(tmp_path, 3)['weight_averaging/logits/w_out'])


def test_batches_by_image_give_the_same_loss(tmp_path):
    """Features projected once an image, and every caption counted once."""
    data = tiny.arrays(6, 3)
    data = {key: value[:-1] if key != 'features' else value for key, value in data.items()}  # one image with 2
    options = {'learning_rate': 0.0, 'n_epochs': 1, 'print_every': 99,
               'model_options': {'dropout': False, 'batch_norm': False}}
    make(tmp_path / 'a', data, batch_size=5, **options).train()
    watch = watched(data)
    make(tmp_path / 'b', watch, batch_size=7, batch_by='image', captions_per_image=3, **options).train()
    assert sorted(map(len, watch.features.reads)) == [1, 1, 2, 2]
    sorted_entry, image_entry = (metrics(tmp_path / which)[-1] for which in 'ab')
    assert image_entry['loss_per_caption'] == pytest.approx(sorted_entry['loss_per_caption'], rel=1e-5)
    assert image_entry['loss_per_word'] == pytest.approx(sorted_entry['loss_per_word'], rel=1e-5)


# ---- where training starts

def test_word_vectors_are_set_once_at_the_start(tmp_path):
    matrix = np.random.default_rng(0).normal(size=(2, M)).astype(np.float32)
    options = {'word_vectors': ([12, 5], matrix), 'weight_averaging': 0.9}
    make(tmp_path / 'kept', learning_rate=0.0, n_epochs=1, **options).train()
    kept = saved(tmp_path / 'kept', 3)
    np.testing.assert_array_equal(kept['word_embedding/w'][[12, 5]], matrix)
    np.testing.assert_allclose(kept['weight_averaging/word_embedding/w'], kept['word_embedding/w'], rtol=1e-6)
    make(tmp_path / 'first', n_epochs=1, **options).train()
    trained = saved(tmp_path / 'first', 3)['word_embedding/w']
    assert np.abs(trained[[12, 5]] - matrix).max() > 1e-3
    # Going on, with or without them, goes on from the trained ones.
    make(tmp_path / 'first', n_epochs=2, **options).train()
    make(tmp_path / 'whole', n_epochs=2, **options).train()
    assert_same_run(tmp_path / 'whole', tmp_path / 'first', 6)


def test_word_vectors_stay_where_they_are_not_trained(tmp_path):
    matrix = np.ones((2, M), np.float32)
    make(tmp_path, n_epochs=1, word_vectors=([12, 5], matrix), train_embedding=False, weight_decay=0.1).train()
    np.testing.assert_array_equal(saved(tmp_path, 3)['word_embedding/w'][[12, 5]], matrix)


def test_word_vectors_of_another_size(tmp_path):
    with pytest.raises(InputError, match='set dim_embed'):
        make(tmp_path, word_vectors=([4], np.ones((1, M + 1)))).train()


def test_hard_attention_starts_from_the_best_model_of_a_soft_run(tmp_path):
    """Named by its directory; word vectors come after it."""
    dev = tiny.arrays(3, seed=2)
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


def tunable(directory, data, val_data=None, **options):
    """A Solver over a model with a toy encoder: two matrices, of which the first is frozen."""
    with tf.Graph().as_default():
        tf1.set_random_seed(1)
        pixels = tf1.placeholder(tf.uint8, [None, L, D])
        with tf1.variable_scope('encoder', use_resource=True):
            frozen = tf1.get_variable('frozen', [D, D], collections=['frozen'], trainable=False)
            trained = tf1.get_variable('trained', [D, D])
        model = tiny.build(features=tf.cast(pixels, tf.float32) @ frozen @ trained)
        model.inputs, model.encoder_variables, model.encoder_saved = pixels, [trained], [trained]

        def restore(session):
            for variable, factor in ((frozen, 0.01), (trained, 1.0)):
                session.run(variable.initializer, {variable.initializer.inputs[1]: factor * np.eye(D)})

        model.restore_encoder = restore
    options = {'batch_size': 5, 'n_epochs': 1, 'learning_rate': 0.01, **options}
    return Solver(model, data, val_data, model_path=directory, **{**QUIET, **options})


def test_a_tuned_encoder_is_trained_kept_and_started_from(tmp_path):
    data, dev = tiny.arrays(), tiny.arrays(3, seed=2)
    for arrays in (data, dev):
        arrays['features'] = np.random.default_rng(0).integers(0, 256, arrays['features'].shape, np.uint8)
    solver = tunable(tmp_path / 'a', data, dev, n_epochs=2, finetune_rate=0.5)
    state = solver.train()
    kept = saved(tmp_path / 'a', 6)
    moved = np.abs(kept['encoder/trained'] - np.eye(D)).max()
    assert 0 < moved <= 6 * 0.005 * 1.5 and 'encoder/frozen' not in kept and 'encoder/trained/Adam' in kept
    best = tf.train.load_checkpoint(str(tmp_path / 'a' / 'best' / f'step-{state["best_step"]}'))
    assert 'encoder/trained' in best.get_variable_to_shape_map()
    assert [c.text for c in tunable(tmp_path / 'a', data).test(dev)] == [c.text for c in solver.test(dev)]
    tunable(tmp_path / 'b', data, pretrained_model=tmp_path / 'a', finetune_rate=0.0).train()
    np.testing.assert_array_equal(saved(tmp_path / 'b', 3)['encoder/trained'], best.get_tensor('encoder/trained'))
    # From a model on stored features: the encoder is the one of its weights file.
    make(tmp_path / 'stored', n_epochs=1).train()
    tunable(tmp_path / 'c', data, pretrained_model=tmp_path / 'stored', finetune_rate=0.0, learning_rate=0.0).train()
    found = saved(tmp_path / 'c', 3)
    np.testing.assert_array_equal(found['encoder/trained'], np.eye(D, dtype=np.float32))
    np.testing.assert_array_equal(found['logits/w_out'], saved(tmp_path / 'stored', 3)['logits/w_out'])


@pytest.mark.parametrize('at', [1, 3, 4])
def test_an_interrupt_ends_a_validation_at_once_and_it_is_done_again(tmp_path, at):
    """Two batches of dev images a validation, read number `at` of which brings the signal."""
    data, dev = tiny.arrays(10), tiny.arrays(7, seed=2)
    options = {'model_options': {'alpha_c': 0.5}, 'weight_averaging': 0.9, 'patience': 9}
    whole = make(tmp_path / 'whole', watched(data), dev, **options).train()
    n_batches = whole['step'] // 3
    dev_data, said = watched(dev, at, lambda: os.kill(os.getpid(), signal.SIGINT)), []
    with pytest.raises(KeyboardInterrupt):
        make(tmp_path / 'cut', watched(data), dev_data, say=said.append, **options).train()
    done = (at - 1) // 2
    assert said[-1] == f'saved at step {n_batches * (done + 1)}; the same command goes on from there'
    assert sum(line.startswith('validation after') for line in said) == done
    assert len(dev_data.features.reads) <= 2 * done + 2  # none of a later validation
    said.clear()
    make(tmp_path / 'cut', watched(data), dev, say=said.append, **options).train()
    assert said[0].startswith(f'going on from step {n_batches * (done + 1)}') and 'validation after' in said[1]
    assert_same_run(tmp_path / 'whole', tmp_path / 'cut', whole['step'])


@pytest.mark.parametrize('number', [signal.SIGINT, signal.SIGTERM])
def test_an_interrupt_while_scores_are_computed_is_one_too(tmp_path, number):
    data, dev = tiny.arrays(10), tiny.arrays(4, seed=2)
    whole = make(tmp_path / 'whole', data, dev, n_epochs=2).train()
    solver = make(tmp_path / 'cut', data, dev, n_epochs=2)

    class Slow(Scorer):
        def score(self, *arguments):
            os.kill(os.getpid(), number)
            time.sleep(60)

    with pytest.MonkeyPatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr('core.solver.Scorer', Slow)
        begun = time.monotonic()
        solver.train()
    assert time.monotonic() - begun < 50
    make(tmp_path / 'cut', data, dev, n_epochs=2).train()
    assert_same_run(tmp_path / 'whole', tmp_path / 'cut', whole['step'])


def test_one_meteor_serves_all_validations(tmp_path, monkeypatch):
    log = tiny.logged_java(tmp_path, monkeypatch)
    make(tmp_path / 'run', tiny.arrays(10), tiny.arrays(4, seed=2), validation_metric='METEOR').train()
    assert [json.loads(line)['METEOR'] >= 0 for line in (tmp_path / 'run' / 'metrics.jsonl').read_text().splitlines()
            if 'METEOR' in line] == [True] * 3
    assert len(tiny.meteor_processes(log)) == 1
