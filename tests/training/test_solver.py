"""Training: it learns, keeps the best model, and reports what it does.

What is wrong is said in one line.
"""

import collections
import json

import numpy as np
import pytest

from core.common.errors import InputError
from core.data.data_dir import CaptionData
from core.decoding.captions import generate
from core.model.caption_generator import CaptionGenerator
from core.reference.equations import teacher_forcing
from core.runtime.backend import tf
from core.training.metrics_log import unigram_loss
from tests.support import tiny_model
from tests.support.java_log import logged_java, meteor_processes
from tests.support.solvers import make, metrics, saved, watched
from tests.support.tiny_model import END, NULL, START, D, L, M, T, V


def test_loss_falls(tmp_path):
    """What each update rule does in a step, in numbers: test_optimization."""
    state = make(tmp_path, n_epochs=12, print_every=3, save_every=20,
                 model_options={'dropout': False}).train()
    losses = [entry['loss_per_word'] for entry in metrics(tmp_path)]
    assert state['step'] == 12 * 3 and len(losses) == 12
    assert losses[-1] < 0.8 * losses[0]


def test_every_caption_once_an_epoch(tmp_path):
    data = watched(tiny_model.arrays(7, 3))
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
        solver = make(directory, n_epochs=1, batch_size=50, update_rule='sgd', learning_rate=1.0,
                      clip_norm=clip, model_options={'dropout': False})
        with tiny_model.session(solver.model) as session:
            before = {name: v for name, v in tiny_model.fetch(session, solver.model).items()
                      if 'moving' not in name}
        state = solver.train()
        after = saved(directory, state['step'])
        moved[clip] = np.sqrt(sum(((after[name] - value)**2).sum()
                                  for name, value in before.items()))
    assert moved[0.01] == pytest.approx(0.01, rel=1e-2)
    assert moved[0.0] > 0.1 and moved[0.0] == pytest.approx(moved[1e6], rel=1e-5)


def test_training_uses_the_schedule(tmp_path):
    """3 batches an epoch. The schedules themselves: test_optimization."""
    make(tmp_path, learning_rate_schedule='exponential', learning_rate_decay=0.5,
         print_every=3).train()
    assert [entry['learning_rate'] for entry in metrics(tmp_path)] == pytest.approx(
        [0.01, 0.005, 0.0025])


def test_unigram_loss():
    captions = np.array([[START, 4, 4, 5, END],
                         [START, 4, END, NULL, NULL],
                         [START, END, NULL, NULL, NULL]])
    # 7 words are predicted: 4 three times, 5 once, <END> three times.
    expected = -(6 * np.log(3 / 7) + np.log(1 / 7)) / 7
    assert unigram_loss(captions, NULL) == pytest.approx(expected)


def test_reported_losses_are_those_of_the_steps(tmp_path):
    """With a rate of nothing and no dropout the loss stays that of the initial model.

    However it is printed.
    """
    options = {'learning_rate': 0.0, 'n_epochs': 1, 'model_options': {'dropout': False},
               'batch_size': 12}
    solver = make(tmp_path / 'a', print_every=1, **options)
    data = tiny_model.arrays()
    with tiny_model.session(solver.model) as session:
        expected = teacher_forcing(tiny_model.fetch(session, solver.model),
                                   data['features'][data['image_idxs']], data['captions'])
    solver.train()
    entry, = metrics(tmp_path / 'a')
    words = np.count_nonzero(data['captions'][:, 1:])
    assert entry['loss_per_word'] == pytest.approx(expected.nll * 12 / words, rel=1e-4)
    assert entry['loss_per_caption'] == pytest.approx(expected.nll, rel=1e-4)
    make(tmp_path / 'b', print_every=1, **{**options, 'batch_size': 100}).train()
    assert metrics(tmp_path / 'b')[0]['loss_per_caption'] == pytest.approx(expected.nll, rel=1e-4)


def test_early_stopping_keeps_the_best_model(tmp_path):
    """With a rate of nothing only the moving statistics change.

    So validations soon stop getting better.
    """
    said, data = [], (tiny_model.arrays(), tiny_model.arrays(3, seed=2))
    options = {'learning_rate': 0.0, 'n_epochs': 9, 'patience': 2, 'validation_metric': 'CIDEr',
               'model_options': {'dropout': False}}
    state = make(tmp_path, *data, say=said.append, **options).train()
    validations = [entry for entry in metrics(tmp_path) if entry['kind'] == 'validation']
    scores = [entry['CIDEr'] for entry in validations]
    best_epoch = 1 + int(np.argmax(scores))
    assert [entry['epoch'] for entry in validations] == list(range(1, best_epoch + 3))
    assert best_epoch < 7
    assert (state['epoch'], state['best_step'], state['waited']) == (
        best_epoch + 2, 3 * best_epoch, 2)
    assert 'no better CIDEr in 2 validations' in said[-1]
    best = json.loads((tmp_path / 'best' / 'best.json').read_text())
    assert best['step'] == 3 * best_epoch and best['epoch'] == best_epoch
    assert {'Bleu_4', 'CIDEr', 'ROUGE_L'} <= best['scores'].keys()
    assert state['best_score'] == best['scores']['CIDEr'] == max(scores)
    assert make(tmp_path, *data, **options).train() == state


def test_best_model_is_the_one_validated_and_test_reads_it(tmp_path):
    data = tiny_model.arrays(4, 1)
    solver = make(tmp_path, data, data, n_epochs=60, learning_rate=0.02, batch_size=4,
                  validate_every=20, patience=0, print_every=50, model_options={'dropout': False},
                  validation_metric='ROUGE_L')
    state = solver.train()
    captions = solver.test()
    assert state['best_score'] > 0.9
    references = CaptionData.from_arrays(data, dict(enumerate(tiny_model.WORDS))).references
    exact = sum(caption.text == texts[0]
                for caption, texts in zip(captions, references, strict=True))
    assert exact >= 3
    for caption in captions:
        assert caption.alphas.shape == (len(caption.words), L)
        assert caption.betas.shape == (len(caption.words),)
    assert [c.text for c in solver.test(images=[2, 0])] == [captions[2].text, captions[0].text]
    assert [c.text for c in make(tmp_path, data).test(data)] == [c.text for c in captions]


def test_not_a_number(tmp_path):
    data = tiny_model.arrays()
    data['features'][2, 1, 1] = np.inf
    with pytest.raises(InputError, match='not finite at step [123]; lower learning_rate'):
        make(tmp_path, data, n_epochs=1).train()
    assert not list((tmp_path / 'checkpoints').glob('*'))


@pytest.mark.parametrize(('option', 'hint'), [
    ('learning_rat', 'did you mean learning_rate'),
    ('epochs', 'did you mean n_epochs'),
    ('zzz', 'known: n_epochs'),
])
def test_unknown_options_name_the_nearest(tmp_path, option, hint):
    with pytest.raises(InputError, match=hint):
        make(tmp_path, **{option: 1})


@pytest.mark.parametrize(('option', 'value'), [
    ('update_rule', 'adamax'),
    ('batch_size', 0),
    ('learning_rate_schedule', 'linear'),
    ('n_epochs', 0),
    ('learning_rate', 'fast'),
    ('validation_metric', 'SPICE'),
    ('batch_size', 2.5),
])
def test_bad_values(tmp_path, option, value):
    with pytest.raises(InputError, match=option):
        make(tmp_path, **{option: value})


@pytest.mark.parametrize(('change', 'message'), [
    ({'features': np.zeros((6, L + 1, D))}, 'the model expects'),
    ({'captions': np.ones((12, T + 2), int)}, f'the model expects {T + 1}'),
    ({'captions': np.full((12, T + 1), V)}, f'use word {V}, the model has {V} words'),
    ({'captions': np.zeros((0, T + 1), int), 'image_idxs': np.zeros(0, int)},
     'no training caption'),
])
def test_data_that_do_not_fit(tmp_path, change, message):
    with pytest.raises(InputError, match=message):
        make(tmp_path, {**tiny_model.arrays(), 'references': [['a']] * 6, **change})


def test_data_without_a_key_and_dev_data_without_captions(tmp_path):
    data = tiny_model.arrays()
    del data['image_idxs']
    with pytest.raises(InputError, match="lacks 'image_idxs'"):
        make(tmp_path, data)
    with pytest.raises(InputError, match='no dev image has a caption'):
        make(tmp_path, val_data={**tiny_model.arrays(), 'references': [[]] * 6}, n_epochs=1).train()


def test_test_before_training(tmp_path):
    with pytest.raises(InputError, match='no trained model here yet'):
        make(tmp_path).test(tiny_model.arrays())


def test_default_sizes_of_the_tf1_code_are_positional(graph):
    values = (False, False, 1.0, False, False)
    options = CaptionGenerator(tiny_model.WORD_TO_IDX, (L, D), M, 8, T, *values).options
    assert (options.prev2out, options.ctx2out, options.alpha_c, options.selector,
            options.dropout) == values


def test_broken_variables_are_never_saved(tmp_path):
    solver = make(tmp_path, tiny_model.arrays(), tiny_model.arrays(3, seed=2), learning_rate=3e38,
                  update_rule='sgd', clip_norm=0.0, n_epochs=1, batch_size=12)
    with pytest.raises(InputError, match='not finite'):
        solver.train()
    assert not list((tmp_path / 'checkpoints').glob('*')) and not (tmp_path / 'best').exists()


def test_annealed_values_reach_the_model(tmp_path):
    """A temperature so high that alpha is even: the entropy reported is log L, later less."""
    options = {'anneal_epochs': 1.0, 'temperature_start': 1e6, 'print_every': 1, 'batch_size': 4}
    make(tmp_path, n_epochs=2, model_options={'batch_norm': False, 'temperature': 0.05},
         **options).train()
    steps = metrics(tmp_path)
    assert steps[0]['attention_entropy'] == pytest.approx(np.log(L), abs=1e-6)
    assert steps[-1]['temperature'] == 0.05 and steps[-1]['attention_entropy'] < np.log(L) - 0.1


def test_entropy_of_the_steps_is_reported(tmp_path, capsys):
    options = {'learning_rate': 0.0, 'n_epochs': 1, 'model_options': {'dropout': False},
               'batch_size': 12}
    solver, data = make(tmp_path, **options), tiny_model.arrays()
    with tiny_model.session(solver.model) as session:
        expected = teacher_forcing(tiny_model.fetch(session, solver.model),
                                   data['features'][data['image_idxs']], data['captions'])
    solver.train()
    real = data['captions'][:, 1:] != NULL
    entropy = -(expected.alphas * np.log(expected.alphas)).sum(axis=2)[real].mean()
    entry, = metrics(tmp_path)
    assert entry['attention_entropy'] == pytest.approx(entropy, rel=1e-4)
    assert 'temperature' not in entry
    assert f'  entropy {entropy:.2f}  ' in ''.join(capsys.readouterr())


def test_plateau_needs_validations(tmp_path):
    with pytest.raises(InputError, match='plateau follows the validations'):
        make(tmp_path, learning_rate_schedule='plateau').train()


def test_the_best_model_is_the_averages_and_training_goes_on_from_the_raw_ones(tmp_path):
    dev = tiny_model.arrays(3, seed=2)
    make(tmp_path / 'plain', val_data=dev, n_epochs=2, validate_every=1).train()
    solver = make(tmp_path / 'averaged', val_data=dev, n_epochs=2, weight_averaging=0.9)
    state = solver.train()
    raw, kept = saved(tmp_path / 'plain', 6), saved(tmp_path / 'averaged', 6)
    for name, value in raw.items():  # validation in between left no trace
        np.testing.assert_array_equal(kept[name], value, err_msg=name)
    prefix = tmp_path / 'averaged' / 'best' / f'step-{state["best_step"]}'
    best = tf.train.load_checkpoint(str(prefix))
    at_best = saved(tmp_path / 'averaged', state['best_step'])
    for name in best.get_variable_to_shape_map():
        source = name if 'moving' in name else f'weight_averaging/{name}'
        np.testing.assert_array_equal(best.get_tensor(name), at_best[source], err_msg=name)
    assert np.abs(best.get_tensor('logits/w_out') - at_best['logits/w_out']).max() > 1e-3
    # What was validated is what `test` sees.
    captions_seen = solver.test(dev)
    values = {name: best.get_tensor(name) for name in best.get_variable_to_shape_map()}
    with tiny_model.session(solver.model, values) as session:
        expected = list(generate(session, solver.model, solver._hypotheses, solver.val_data))
    assert [c.words for c in captions_seen] == [c.words for c in expected]
    for found, wanted in zip(captions_seen, expected, strict=True):
        np.testing.assert_allclose(found.alphas, wanted.alphas, rtol=1e-6)


def test_averages_without_validation_are_kept_too(tmp_path):
    make(tmp_path, n_epochs=1, weight_averaging=0.9).train()
    best = tf.train.load_checkpoint(str(tmp_path / 'best' / 'step-3'))
    np.testing.assert_array_equal(best.get_tensor('logits/w_out'),
                                  saved(tmp_path, 3)['weight_averaging/logits/w_out'])


def test_batches_by_image_give_the_same_loss(tmp_path):
    """Features projected once an image, and every caption counted once."""
    data = tiny_model.arrays(6, 3)
    # one image with 2
    data = {key: value[:-1] if key != 'features' else value for key, value in data.items()}
    options = {'learning_rate': 0.0, 'n_epochs': 1, 'print_every': 99,
               'model_options': {'dropout': False, 'batch_norm': False}}
    make(tmp_path / 'a', data, batch_size=5, **options).train()
    watch = watched(data)
    make(tmp_path / 'b', watch, batch_size=7, batch_by='image', captions_per_image=3,
         **options).train()
    assert sorted(map(len, watch.features.reads)) == [1, 1, 2, 2]
    sorted_entry, image_entry = (metrics(tmp_path / which)[-1] for which in 'ab')
    assert image_entry['loss_per_caption'] == pytest.approx(sorted_entry['loss_per_caption'],
                                                            rel=1e-5)
    assert image_entry['loss_per_word'] == pytest.approx(sorted_entry['loss_per_word'], rel=1e-5)


def test_one_meteor_serves_all_validations(tmp_path, monkeypatch):
    log = logged_java(tmp_path, monkeypatch, stand_in=True)
    make(tmp_path / 'run', tiny_model.arrays(10), tiny_model.arrays(4, seed=2),
         validation_metric='METEOR').train()
    scores = [entry['METEOR'] for entry in metrics(tmp_path / 'run') if 'METEOR' in entry]
    assert scores == [0.5] * 3
    assert len(meteor_processes(log)) == 1
