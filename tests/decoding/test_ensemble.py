"""Ensembles: one model with itself, two against NumPy, and runs restored side by side."""

import dataclasses
import json
import shutil

import numpy as np
import pytest

from core.common.errors import InputError
from core.config.decoding import DecodingConfig
from core.decoding import ensemble
from core.decoding.captions import generate_n_best
from core.model.caption_generator import CaptionGenerator
from core.runs import run_ensemble
from core.runs.run_dir import Run
from core.runtime.backend import tf, tf1
from tests.support import tiny_model
from tests.support.tolerances import AFTER_CONTEXT


def members(*options, **more):
    """Return CaptionGenerators under scopes of their own over the first one's features.

    A dict of options for each.
    """
    made = []
    for number, chosen in enumerate(options):
        with tf1.variable_scope(f'model_{number}'):
            shared = made[0].features if made else None
            made.append(tiny_model.build(dtype=tf.float64, features=shared, **chosen, **more))
    return made


def plain_values(model, seed):
    """Draw `tiny_model.values` by the variables' names without their scope."""
    drawn = {}
    random = np.random.default_rng(seed)
    for variable in sorted(model.variables, key=lambda v: v.op.name):
        shape = variable.shape.as_list()
        drawn[variable.op.name] = (random.uniform(0.5, 2.0, shape) if 'variance' in variable.op.name
                                   else random.normal(0, 0.5, shape))
    return drawn


@pytest.mark.parametrize('options', [{}, {'attention': 'hard', 'decode_context': 'sample'}],
                         ids=['soft', 'sample'])
def test_a_model_with_itself_is_the_model(graph, options):
    model = tiny_model.build(dtype=tf.float64, **options)
    both = ensemble.Ensemble([model, model])
    pairs = [(what.build_sampler(6), what.build_beam_search(3, 6, 0.7),
              what.build_sampler(6, sample=True)) for what in (model, both)]
    with tiny_model.session(model, tiny_model.values(model)) as session:
        alone, together = session.run(pairs, {model.features: tiny_model.batch()[0],
                                              model.dropout_seed: (1, 2)})
    tf.nest.map_structure(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-9), alone, together)


def test_two_models_are_the_mean_of_their_probabilities(graph):
    """Every step of the ensemble's caption against NumPy, from the models' own steps."""
    models = members({}, {'dim_hidden': 9, 'cell': 'gru', 'selector': False})
    both = ensemble.Ensemble(models)
    found = both.build_search(DecodingConfig(max_len=5))
    steps = []
    for model in models:
        begin = model.decoding(5)
        state, words = begin.state, begin.start
        for t in range(5):
            result = begin.step(begin.images, words, state)
            steps.append((result.log_probs, result.alpha, result.beta))
            state, words = result.state, found.captions[:, 0, t]
    assigned = {}
    for seed, model in enumerate(models):
        assigned |= plain_values(model, seed)
    with tf1.Session() as session:
        session.run(tf1.global_variables_initializer())
        for model in models:
            tiny_model.assign(session, model, assigned)
        beams, taken = session.run((found, steps), {both.features: tiny_model.batch()[0]})
    total = np.zeros(tiny_model.N)
    for t in range(5):
        first, first_alpha, first_beta = taken[t]
        second, second_alpha, second_beta = taken[5 + t]
        assert np.abs(first - second).max() > 0.1
        mean = np.log((np.exp(first) + np.exp(second)) / 2)
        mean[:, both.never] = -np.inf
        live = beams.lengths[:, 0] > t
        np.testing.assert_array_equal(beams.captions[live, 0, t], mean.argmax(axis=1)[live])
        total += np.where(live, mean.max(axis=1), 0)
        np.testing.assert_allclose(beams.alphas[live, 0, t],
                                   (first_alpha + second_alpha)[live] / 2, rtol=1e-9)
        np.testing.assert_allclose(beams.betas[live, 0, t],
                                   (first_beta + second_beta)[live] / 2, rtol=1e-9)
    np.testing.assert_allclose(beams.log_probs[:, 0], total, rtol=1e-9)


def test_models_that_do_not_fit_are_refused(graph):
    first = tiny_model.build()
    with tf1.variable_scope('b'):
        turned = {word: (i + 1) % 4 if i < 4 else i for word, i in tiny_model.WORD_TO_IDX.items()}
        other_words = CaptionGenerator(turned, (tiny_model.L, tiny_model.D), 4, 5, 3,
                                       features=first.features)
    with tf1.variable_scope('c'):
        own_features = tiny_model.build(dim_hidden=3)
    for models, message in (([], 'needs a model'), ([first, other_words], 'vocabulary'),
                            ([first, own_features], 'one tensor')):
        with pytest.raises(ValueError, match=message):
            ensemble.Ensemble(models)


# ---- runs

def changed_run(source, place, scale):
    """Return a copy of a run whose variables are others."""
    shutil.copytree(source, place)
    run = Run(place)
    with tf.Graph().as_default() as graph, tf1.Session(graph=graph) as session:
        model = run.make_model()
        info = run.restore(session, model)
        random = np.random.default_rng(1)
        for variable in model.variables:
            value = session.run(variable)
            variable.load(value + scale * random.uniform(0, 1, value.shape), session)
        run.best(model.variables).save(session, info)
    return Run(place)


def captions_of(model, restore, data, images=None, **options):
    """Return what `generate_n_best` gives for a built model."""
    found = model.build_search(DecodingConfig(beam_width=3, max_len=8), n_best=2)
    with tf1.Session(graph=model.graph) as session:
        restore(session)
        return list(generate_n_best(session, model, found, data, images, batch_size=2, **options))


def test_runs_are_restored_side_by_side(sample_run, tmp_path):
    run, other = Run(sample_run), changed_run(sample_run, tmp_path / 'other', 0.3)
    data = run.data().split('dev')
    with tf.Graph().as_default():
        model = run.make_model()
        alone = captions_of(model, lambda session: run.restore(session, model), data)
    made = {'alone': alone}
    for name, runs in (('self', [run, run]), ('both', [run, other]), ('reverse', [other, run])):
        with tf.Graph().as_default():
            built = run_ensemble.make_ensemble(runs)
            made[name] = captions_of(built, built.restore, data)
    texts, log_probs = ({name: [[getattr(caption, field) for caption in captions]
                                for captions in found] for name, found in made.items()}
                        for field in ('text', 'log_prob'))
    for name, again in (('self', 'alone'), ('both', 'reverse')):  # in graphs of their own
        assert texts[name] == texts[again]
        np.testing.assert_allclose(log_probs[name], log_probs[again], rtol=AFTER_CONTEXT)
    assert not np.allclose(log_probs['both'], log_probs['self'], rtol=10 * AFTER_CONTEXT)
    with tf.Graph().as_default():
        built = run_ensemble.make_ensemble([run, other])
        with tf1.Session() as session:
            infos = built.restore(session)
            values = [tiny_model.fetch(session, model) for model in built.models]
    assert [info['step'] for info in infos] == [run.best().info()['step']] * 2
    assert values[0].keys() == {f'model_0/{name.removeprefix("model_1/")}' for name in values[1]}
    for one, value in zip((run, other), values, strict=True):
        reader = tf.train.load_checkpoint(str(one.best().prefix()))
        for name, found in value.items():
            np.testing.assert_array_equal(found, reader.get_tensor(name.split('/', 1)[1]))


def test_runs_that_do_not_fit_are_refused(sample_run, tmp_path):
    run = Run(sample_run)

    def copied(name, change):
        place = tmp_path / name
        shutil.copytree(sample_run, place)
        change(place)
        return Run(place)

    def other_words(place):
        words = json.loads((place / 'vocabulary.json').read_text())
        words['words'][-1] += 'x'
        (place / 'vocabulary.json').write_text(json.dumps(words))

    def other_features(place):
        config = json.loads((place / 'config.json').read_text())
        config['data']['encoder']['weights_sha256'] = '0'
        (place / 'config.json').write_text(json.dumps(config))

    for name, change, message in (('words', other_words, 'another vocabulary'),
                                  ('features', other_features, 'other features.*weights_sha256')):
        with pytest.raises(InputError, match=f'{name}.*{message}'):
            run_ensemble.check_ensemble([run, copied(name, change)])
    tuned = Run(sample_run)
    training = dataclasses.replace(tuned.config.training, finetune_from='conv2_2')
    tuned.config = dataclasses.replace(tuned.config, training=training)
    with pytest.raises(InputError, match='fine-tuned'):
        run_ensemble.check_ensemble([run, tuned])
    run_ensemble.check_ensemble([run, run])


def test_a_run_whose_options_do_not_fit_its_model_says_so(sample_run, tmp_path):
    run = Run(sample_run)
    other = Run(sample_run)
    other.config = other.config.override(['dim_hidden=13'])
    with tf.Graph().as_default():
        built = run_ensemble.make_ensemble([run, other])
        with tf1.Session() as session, pytest.raises(InputError, match='does not fit the options'):
            built.restore(session)
