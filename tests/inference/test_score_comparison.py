"""evaluate.py --compare-scores: what its evaluations are, what it refuses, what it prints."""

import json
import pathlib
import shutil

import pytest

from core.common.errors import InputError
from core.data.data_dir import DataDir
from core.inference.score_comparison import (
    compare_scores,
    comparison_table,
    find,
    save_comparison,
)
from core.metrics.scorer import Scorer, save_results
from tests.support.files import edited_json

WORSE = 'a red a red thing'


@pytest.fixture
def references(sample_data):
    """Return the references of the 8 training images: dict from image id to list of str."""
    train = DataDir(sample_data).split('train')
    return dict(zip(train.image_ids, train.references, strict=True))


@pytest.fixture
def evaluation(sample_data, tmp_path):
    """Return a function that writes an evaluation, `evaluation('soft/seed1', captions)`.

    It is that of a run in tmp_path, of the split 'train' of `sample_data`.
    """
    def write(run, captions, name='train', **info):
        run = tmp_path / run
        place = run / 'evaluation' / name
        place.mkdir(parents=True)
        (run / 'config.json').write_text('{}')
        save_results(place / 'captions.json', captions)
        (place / 'scores.json').write_text(json.dumps(
            {'run': str(run), 'split': 'train', 'data': str(sample_data), **info}))
        return place

    return write


@pytest.fixture
def sets(evaluation, references, quick_meteor):
    """Write runs soft/seed1, soft/seed2 and hard/seed1 to hard/seed3; return their captions.

    Those of soft are references, those of hard are WORSE than them.
    """
    captions = {}
    for n in (1, 2):
        captions[f'soft/seed{n}'] = {image: texts[-n] for image, texts in references.items()}
    for n in (1, 2, 3):
        captions[f'hard/seed{n}'] = {image: ' '.join([WORSE] * n) for image in references}
    for run, texts in captions.items():
        evaluation(run, texts)
    return captions


def test_means_and_deviations_are_of_the_scores_of_the_runs(sets, references, tmp_path):
    result = compare_scores([tmp_path / 'hard'], say=lambda line: None)
    assert result['images'] == 8 and 'differences' not in result
    [one] = result['sets']
    assert one['evaluations'] == [str(tmp_path / 'hard' / f'seed{n}' / 'evaluation' / 'train')
                                  for n in (1, 2, 3)]
    with Scorer(references) as scorer:
        scores = [scorer.score(sets[f'hard/seed{n}']) for n in (1, 2, 3)]
    for name in ('Bleu_1', 'Bleu_4', 'METEOR', 'ROUGE_L', 'CIDEr'):
        values = [row[name] for row in scores]
        mean = sum(values) / 3
        assert one['scores'][name] == values
        assert one['mean'][name] == pytest.approx(mean)
        assert one['standard_deviation'][name] == pytest.approx(
            (sum((value - mean)**2 for value in values) / 2)**0.5)
    assert one['standard_deviation']['Bleu_1'] > 0


def test_two_sets(sets, tmp_path):
    lines = []
    result = compare_scores([tmp_path / 'soft'], [tmp_path / 'hard'], n_resamples=500, seed=4,
                            say=lines.append)
    assert 'scoring 5 evaluations of 8 images' in lines[0]
    first, second = result['sets']
    for name, entry in result['differences'].items():
        assert entry['difference'] == pytest.approx(first['mean'][name] - second['mean'][name],
                                                    abs=1e-9), name
        # the stand-in finds METEOR the same everywhere
        assert (entry['p'] == 1) if name == 'METEOR' else (entry['low'] > 0 and entry['p'] < 0.01)
    table = comparison_table(result)
    assert f'A: 2 evaluations, {first["evaluations"][0]}, {first["evaluations"][1]}' in table
    assert f'{second["evaluations"][0]} ... {second["evaluations"][2]}' in table
    assert 'paired bootstrap over images, 500 resamples, seed 4' in table and '8 images' in table
    row = next(line for line in table.splitlines() if line.startswith('Bleu_1'))
    entry = result['differences']['Bleu_1']
    assert row.split() == [
        'Bleu_1', f'{100 * first["mean"]["Bleu_1"]:.2f}',
        f'{100 * first["standard_deviation"]["Bleu_1"]:.2f}',
        f'{100 * second["mean"]["Bleu_1"]:.2f}',
        f'{100 * second["standard_deviation"]["Bleu_1"]:.2f}', f'{100 * entry["difference"]:+.2f}',
        f'{100 * entry["low"]:+.2f}', 'to', f'{100 * entry["high"]:+.2f}', f'{entry["p"]:.3f}']
    for place, file in ((tmp_path / 'x' / 'mine.json', tmp_path / 'x' / 'mine.json'),
                        (tmp_path / 'y', tmp_path / 'y' / 'comparison.json')):
        assert save_comparison(place, result) == file
        assert json.loads(file.read_text()) == result


def test_a_set_against_itself(sets, tmp_path):
    lines = []
    result = compare_scores([tmp_path / 'soft'], [tmp_path / 'soft'], n_resamples=100,
                            say=lines.append)
    assert 'scoring 2 evaluations' in lines[0]
    for entry in result['differences'].values():
        assert entry == {'difference': 0, 'low': 0, 'high': 0, 'p': 1}


def test_one_run_has_no_deviation(sets, tmp_path):
    result = compare_scores([tmp_path / 'soft' / 'seed1'], say=lambda line: None)
    assert set(result['sets'][0]['standard_deviation'].values()) == {None}
    table = comparison_table(result)
    assert 'scores: 1 evaluation, ' in table and table.count(' -\n') >= 6


def test_the_order_of_images_in_the_files_does_not_matter(sets, evaluation, tmp_path):
    backwards = dict(reversed(sets['soft/seed1'].items()))
    place = evaluation('backwards', backwards)
    result = compare_scores([tmp_path / 'soft' / 'seed1'], [place], say=lambda line: None)
    assert {entry['p'] for entry in result['differences'].values()} == {1}


# ---- what a path may be

def test_an_evaluation_a_run_and_runs_over_seeds(evaluation, tmp_path):
    captions = {1: 'a'}
    places = [evaluation(f'runs/seed{n}', captions) for n in (1, 2, 10)]
    (tmp_path / 'runs' / 'seedling').mkdir()
    assert find(places[0]) == [places[0]]
    assert find(tmp_path / 'runs' / 'seed2') == [places[1]]
    assert find(str(tmp_path / 'runs')) == places  # 10 after 2
    other = evaluation('runs/seed2', captions, 'dev-beam3', split='dev')
    assert find(tmp_path / 'runs' / 'seed2', 'dev') == [other]
    assert find(tmp_path / 'runs' / 'seed2', 'train') == [places[1]]
    with pytest.raises(InputError, match='holds the evaluations dev-beam3, train; name one'):
        find(tmp_path / 'runs')
    with pytest.raises(InputError, match='seed1: no evaluation of the split dev yet; make one: '
                                         'evaluate.py .*seed1 --split dev'):
        find(tmp_path / 'runs', 'dev')
    with pytest.raises(InputError, match='nowhere: no such directory'):
        find(tmp_path / 'nowhere')
    with pytest.raises(InputError, match='no evaluation here'):
        find(tmp_path)


def test_explicit_evaluations_of_another_split_are_refused(evaluation):
    place = evaluation('run', {1: 'a'})
    with pytest.raises(InputError, match='is of the split train, not dev'):
        compare_scores([place], split='dev')


# ---- what does not go together

def test_other_images_are_named(sets, evaluation, references, tmp_path):
    fewer = dict(list(sets['soft/seed1'].items())[:-2])
    place = evaluation('limited', fewer, 'train-limit6')
    lost = repr(list(references)[-2])
    for paths in ([tmp_path / 'soft', place], [place, tmp_path / 'soft']):
        with pytest.raises(InputError, match=f'not of the same images: 2 of .*example {lost}'):
            compare_scores(paths)
    with pytest.raises(InputError, match='not of the same images'):
        compare_scores([tmp_path / 'soft'], [place])


def test_an_evaluation_twice_in_a_set(sets, tmp_path):
    with pytest.raises(InputError, match='named twice in one set'):
        compare_scores([tmp_path / 'soft', tmp_path / 'soft' / 'seed2'])


def test_other_references_are_named(sets, evaluation, references, data_copy, tmp_path):
    with edited_json(data_copy / 'annotations.json') as annotations:
        image = next(image for image in annotations if image['split'] == 'train')
        image['captions'][0] += ' indeed'
    place = evaluation('other', sets['soft/seed1'], data=str(data_copy))
    with pytest.raises(InputError, match=f'other references for 1 images, .* {image["id"]!r}'):
        compare_scores([tmp_path / 'soft'], [place])
    # a file of references is for all of them
    file = tmp_path / 'references.json'
    file.write_text(json.dumps({'annotations': [
        {'image_id': image, 'caption': text} for image, texts in references.items()
        for text in texts]}))
    result = compare_scores([tmp_path / 'soft'], [place], file, say=lambda line: None)
    assert result['references'] == str(file)
    assert result['sets'][0]['scores']['Bleu_1'][0] == result['sets'][1]['scores']['Bleu_1'][0]
    file.write_text(json.dumps({'annotations': [{'image_id': 'x', 'caption': 'a'}]}))
    with pytest.raises(InputError, match='no captions of 8 images'):
        compare_scores([tmp_path / 'soft'], [place], file)


def test_references_that_are_not_there(sets, evaluation, data_copy, tmp_path):
    captions = sets['soft/seed1']
    with pytest.raises(InputError, match='not to be had .*--references FILE'):
        compare_scores([evaluation('moved', captions, data=str(tmp_path / 'gone'))])
    place = evaluation('bare', captions)
    (place / 'scores.json').unlink()
    with pytest.raises(InputError, match='names a split.*--references FILE'):
        compare_scores([place])
    with pytest.raises(InputError, match='1 of its images are not of the split train'):
        compare_scores([evaluation('stranger', {**captions, 'unknown': 'a'})])
    with edited_json(data_copy / 'annotations.json') as annotations:
        for image in annotations:
            image['captions'] = []
    with pytest.raises(InputError, match='have no captions to compare with'):
        compare_scores([evaluation('silent', captions, data=str(data_copy))])
    with pytest.raises(InputError, match='holds no caption'):
        compare_scores([evaluation('empty', {})])


def test_images_without_references_are_left_out(sets, evaluation, data_copy):
    with edited_json(data_copy / 'annotations.json') as annotations:
        next(image for image in annotations if image['split'] == 'train')['captions'] = []
    place = evaluation('some', sets['soft/seed1'], data=str(data_copy))
    assert compare_scores([place], say=lambda line: None)['images'] == 7


def test_an_evaluation_of_before_its_data_were_noted(sets, sample_run, tmp_path):
    """Then the data are those of the run that it lies in, wherever that was moved to."""
    run = pathlib.Path(shutil.copytree(sample_run, tmp_path / 'moved'))
    place = run / 'evaluation' / 'train'
    place.mkdir(parents=True)
    save_results(place / 'captions.json', sets['soft/seed1'])
    (place / 'scores.json').write_text(json.dumps({'run': 'runs/before', 'split': 'train'}))
    assert compare_scores([run], say=lambda line: None)['images'] == 8


def test_too_few_resamples_are_refused_before_anything_is_scored(sets, tmp_path):
    with pytest.raises(InputError, match='at least 100 resamples, not 5'):
        compare_scores([tmp_path / 'soft'], [tmp_path / 'hard'], n_resamples=5,
                       say=lambda line: pytest.fail('scored'))
