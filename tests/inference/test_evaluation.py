"""Scores, pictures and correctness as evaluate.py computes them, on a tiny trained run."""

import json
import os
import time

import numpy as np
import pytest
from PIL import Image

from core.common.errors import InputError
from core.decoding.captions import Caption
from core.inference import evaluation
from core.metrics.scorer import Scorer, load_results, score_table
from core.runs.run_dir import Run
from tests.support.java_log import logged_java, meteor_processes


@pytest.fixture(scope='module')
def evaluated(sample_run, tmp_path_factory):
    run, lines = Run(sample_run), []
    out = tmp_path_factory.mktemp('evaluated')
    scores = evaluation.evaluate(run, run.data(), 'dev', out, n_pictures=2, paper_scoring=True,
                                 say=lines.append)
    return run, out, scores, lines


def test_each_image_is_captioned_once_in_the_coco_format(evaluated):
    run, out, scores, _ = evaluated
    results = json.loads((out / 'captions.json').read_text())
    assert [row['image_id'] for row in results] == run.data().split('dev').image_ids
    assert all(set(row) == {'image_id', 'caption'} for row in results)
    assert scores['images'] == len(results)


def test_scores_are_those_of_the_results_file(evaluated):
    run, out, scores, _ = evaluated
    data = run.data().split('dev')
    references = dict(zip(data.image_ids, data.references, strict=True))
    with Scorer(references) as scorer:  # METEOR too: tests/scripts/test_evaluate.py
        expected = scorer.score(load_results(out / 'captions.json'), ('Bleu', 'ROUGE_L', 'CIDEr'))
    assert set(scores['coco']) == {'Bleu_1', 'Bleu_2', 'Bleu_3', 'Bleu_4', 'METEOR', 'ROUGE_L',
                                   'CIDEr'}
    assert {name: scores['coco'][name] for name in expected} == pytest.approx(expected, abs=1e-9)
    assert set(scores['paper']) == {'Bleu_1', 'Bleu_2', 'Bleu_3', 'Bleu_4', 'METEOR'}
    saved = json.loads((out / 'scores.json').read_text())
    assert saved['coco'] == scores['coco'] and saved['step'] == scores['step'] > 0


def test_pictures_are_readable_and_named(evaluated):
    _, out, scores, lines = evaluated
    assert len(scores['pictures']) == 2
    for path in scores['pictures']:
        picture = np.asarray(Image.open(path))
        assert picture.ndim == 3 and picture.std() > 10
        assert any(path in line for line in lines)


def test_shapes_have_attention_correctness_and_diversity(evaluated):
    run, _, scores, lines = evaluated
    attention = scores['attention']
    if attention['n_words']:  # a tiny model may never name an object
        assert 0 < attention['uniform_mass'] < 1 and 0 <= attention['mass'] <= 1
        assert any('attention correctness' in line for line in lines)
    assert scores['diversity']['captions'] == scores['images']
    assert 'novel_share' in scores['diversity']


def test_entropy_of_the_attention_is_measured_over_words():
    even, sharp = np.full((2, 4), 0.25), np.eye(4)[:1]
    captions = [Caption(words, alphas, np.ones(len(words)), True, -1.0, -1.0, np.ones(len(words)))
                for words, alphas in ((['a', 'dog'], even), ([], np.zeros((0, 4))),
                                      (['dog'], sharp))]
    entropy = evaluation._entropy(captions)
    assert entropy == {'entropy': pytest.approx(2 / 3 * np.log(4)),
                       'uniform_entropy': pytest.approx(np.log(4))}
    assert evaluation._entropy(captions[1:2]) == {'entropy': None, 'uniform_entropy': None}


def test_entropy_is_reported_with_boxes_and_without(evaluated, quick_meteor, tmp_path):
    run, _, scores, lines = evaluated
    entropy, even = (scores['attention'][name] for name in ('entropy', 'uniform_entropy'))
    assert 0 < entropy <= even == pytest.approx(np.log(256))
    assert any('entropy of the attention' in line for line in lines)
    data = run.data()
    for image in data._images:
        image['boxes'] = None
    plain = evaluation.evaluate(run, data, 'dev', tmp_path / 'out', n_pictures=0,
                                say=lambda line: None)['attention']
    assert plain == {name: scores['attention'][name] for name in ('entropy', 'uniform_entropy')}


def test_table_labels_both_ways_of_scoring():
    both = {'coco': {'Bleu_1': 0.5, 'CIDEr': 0.25}, 'paper': {'Bleu_1': 0.625}}
    lines = score_table(both).split('\n')
    assert 'COCO scoring' in lines[0] and "paper's scoring" in lines[0]
    assert lines[2].split() == ['Bleu_1', '50.00', '62.50']
    assert lines[3].split() == ['CIDEr', '25.00', '-']


def test_bad_choices_are_refused_before_any_work(evaluated, tmp_path):
    run, *_ = evaluated
    for options, message in (({'image_ids': ['no-such']}, 'no-such'),
                             ({'n_pictures': -1}, '--pictures'), ({'limit': 0}, '--limit')):
        with pytest.raises(InputError, match=message):
            evaluation.evaluate(run, run.data(), 'dev', tmp_path / 'out', say=lambda line: None,
                                **options)
    assert not (tmp_path / 'out').exists()


def test_pictures_of_like_named_photos_do_not_overwrite_each_other(
    sample_run, scene_photos, tmp_path):
    from core.data.data_dir import DataDir
    from core.data.prepare import prepare
    from core.datasets.folder import read

    run = Run(sample_run)
    (tmp_path / 'photos').mkdir()
    for name in ('IMG_1.png', 'IMG_1.PNG', '\N{DOG FACE}.png', '\N{CAT FACE}.png'):
        (tmp_path / 'photos' / name).write_bytes(scene_photos[0].read_bytes())
    prepare(read(tmp_path / 'photos', None, None, None), run.spec, tmp_path / 'data', 'folder',
            vocabulary=run.vocabulary, say=lambda line: None)
    scores = evaluation.evaluate(run, DataDir(tmp_path / 'data'), 'test', tmp_path / 'out',
                                 n_pictures=4, say=lambda line: None)
    assert len(list((tmp_path / 'out' / 'pictures').iterdir())) == len(set(scores['pictures'])) == 4
    assert 'coco' not in scores


def waiting_for(condition, seconds=30):
    deadline = time.monotonic() + seconds
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.05)
    return condition()


def test_one_meteor_starts_before_the_captions_are_made_and_ends_with_the_scores(
    sample_run, tmp_path, monkeypatch):
    run, log, running = Run(sample_run), logged_java(tmp_path, monkeypatch, stand_in=True), []

    def say(line):
        if line.startswith('captioning'):
            running.append(waiting_for(lambda: log.exists() and len(meteor_processes(log)) == 1))

    evaluation.evaluate(run, run.data(), 'dev', tmp_path / 'out', n_pictures=0, paper_scoring=True,
                        say=say)
    assert running == [True]
    (meteor,) = meteor_processes(log)
    with pytest.raises(ProcessLookupError):
        os.kill(meteor, 0)


@pytest.mark.parametrize('error', [KeyboardInterrupt, InputError])
def test_no_meteor_is_left_behind_by_an_evaluation_that_fails(sample_run, tmp_path, monkeypatch,
                                                              error):
    run, log = Run(sample_run), logged_java(tmp_path, monkeypatch, stand_in=True)

    def say(line):
        assert waiting_for(lambda: log.exists() and meteor_processes(log))
        raise error('stopped here')

    with pytest.raises(error):
        evaluation.evaluate(run, run.data(), 'dev', tmp_path / 'out', say=say)
    (meteor,) = meteor_processes(log)
    with pytest.raises(ProcessLookupError):
        os.kill(meteor, 0)
