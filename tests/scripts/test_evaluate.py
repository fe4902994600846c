"""evaluate.py as a user runs it."""

import functools
import json
import shutil

import pytest

from core.data.data_dir import DataDir
from tests.support import scripts
from tests.support.files import edited_json, snapshot
from tests.support.scripts import assert_refused


@pytest.fixture
def refused(tmp_path):
    """Return a function that sees evaluate.py refuse and change nothing.

    It is `refused(*arguments, parts=[])`.
    """
    return functools.partial(scripts.assert_refuses, 'evaluate.py', cwd=tmp_path)


def evaluate(*arguments, fresh=False):
    done = scripts.run('evaluate.py', *arguments, fresh=fresh)
    assert done.returncode == 0, done.stderr
    return done.stdout


def without_captions(data):
    """Remove the reference captions from a DATA DIR, so that nothing is scored."""
    with edited_json(data / 'annotations.json') as annotations:
        for image in annotations:
            image['captions'] = []
    return data


def test_twice_the_same_and_complete(sample_data, sample_run, scenes, data_copy, tmp_path):
    """In processes, with graphs as users have them; the second time without slow METEOR."""
    test = DataDir(sample_data).split('test')
    output = evaluate(sample_run, '--out', tmp_path / 'a', '--paper-scoring', '--pictures', '1',
                      fresh=True)
    assert 'COCO scoring' in output and "paper's scoring" in output
    evaluate(sample_run, '--data', without_captions(data_copy), '--out', tmp_path / 'b',
             '--pictures', '1', fresh=True)
    first, second = ((tmp_path / name / 'captions.json').read_bytes() for name in 'ab')
    assert first == second
    results = json.loads((tmp_path / 'a' / 'captions.json').read_text())
    assert [set(entry) for entry in results] == [{'image_id', 'caption'}] * len(test)
    assert {entry['image_id'] for entry in results} == set(test.image_ids)
    scores = json.loads((tmp_path / 'a' / 'scores.json').read_text())
    assert set(scores['coco']) == {'Bleu_1', 'Bleu_2', 'Bleu_3', 'Bleu_4', 'METEOR', 'ROUGE_L',
                                   'CIDEr'}
    assert (scores['split'], scores['images']) == ('test', len(test))
    assert set(scores['paper']) == {'Bleu_1', 'Bleu_2', 'Bleu_3', 'Bleu_4', 'METEOR'}
    assert len(list((tmp_path / 'a' / 'pictures').glob('*.png'))) == 1
    again = json.loads((tmp_path / 'b' / 'scores.json').read_text())
    assert again.keys() == scores.keys() - {'coco', 'paper'} and again['attention']['entropy'] > 0
    for name in again.keys() - {'data', 'pictures'}:
        assert again[name] == scores[name], name

    # The same captions scored as a file of anybody's give the same figures.
    references = next((scenes / 'annotations').glob('captions_test.json'))
    evaluate('--results', tmp_path / 'a' / 'captions.json', '--references', references, '--out',
             tmp_path / 'c')
    assert json.loads((tmp_path / 'c' / 'scores.json').read_text())['coco'] == scores['coco']


def test_other_data_limit_and_chosen_pictures(sample_data, sample_run, tmp_path):
    data = tmp_path / 'held back'
    shutil.copytree(sample_data, data)
    train = DataDir(without_captions(data)).split('train')
    chosen = train.image_ids[0]
    evaluate(sample_run, '--data', data, '--split', 'train', '--limit', '2', '--picture-ids',
             chosen, '--out', tmp_path / 'out')
    results = json.loads((tmp_path / 'out' / 'captions.json').read_text())
    assert [entry['image_id'] for entry in results] == [train.image_ids[0], train.image_ids[-1]]
    assert len(list((tmp_path / 'out' / 'pictures').iterdir())) == 1


@pytest.fixture(scope='module')
def photos(sample_run, scenes, tmp_path_factory):
    """Return a DATA DIR of photos without captions, so that nothing is scored."""
    from core import datasets
    from core.data import prepare
    from core.runs.run_dir import Run

    run, place = Run(sample_run), tmp_path_factory.mktemp('photos')
    shutil.copytree(scenes / 'images', place / 'photos')
    prepare.prepare(datasets.read('folder', place / 'photos'), run.encoder(), place / 'data',
                    'folder', vocabulary=run.vocabulary, say=lambda line: None)
    return place / 'data'


def test_photos_without_captions(sample_run, photos, tmp_path):
    output = evaluate(sample_run, '--data', photos, '--pictures', '0', '--out', tmp_path / 'out')
    assert 'no captions to compare with' in output
    assert len(json.loads((tmp_path / 'out' / 'captions.json').read_text())) == 13
    assert 'coco' not in json.loads((tmp_path / 'out' / 'scores.json').read_text())


@pytest.mark.parametrize(('arguments', 'parts'), [
    ([], ['evaluate.py RUN']),
    (['nowhere'], ['nowhere', 'not a run']),
    (['--results', 'a.json'], ['go together']),
    (['--results', 'a.json', '--references', 'b.json'], ['a.json']),
    (['nowhere', '--results', 'a.json', '--references', 'b.json'], ['without RUN']),
    (['--compare-scores', 'nowhere'], ['nowhere: no such directory', 'evaluate.py RUN']),
    (['run', '--compare-scores', 'a'], ['leave RUN out']),
    (['--compare-scores', 'a', '--beam-width', '3'], ['leave --beam-width out']),
    (['--compare-scores', 'a', '--results', 'b.json'], ['leave --results out']),
    (['--compare-scores', 'a', '--seed', '-1'], ['--seed must be 0 to']),
    (['--against', 'a'], ['--against and --resamples belong to --compare-scores']),
    (['run', '--resamples', '200'], ['--against and --resamples belong to --compare-scores']),
])
def test_wrong_arguments(refused, arguments, parts):
    refused(*arguments, parts=parts)


@pytest.mark.parametrize(('arguments', 'parts'), [
    (['--limit', '0'], ['--limit must be at least 1']),
    (['--picture-ids', '77', '78'], ['77, 78', 'not among']),
    (['--pictures', '-1'], ['--pictures must be at least 0']),
    (['--data', 'nowhere'], ['no such data directory']),
    (['--weights', 'a.h5'], ['--weights belongs to runs with a fine-tuned encoder']),
    (['--faithfulness-places', '3'], ['--faithfulness-places', 'give both']),
    (['--faithfulness', '--faithfulness-places', '3', '257'], ['must be 1 to the 256', '257']),
])
def test_wrong_choices(refused, sample_run, arguments, parts):
    refused(sample_run, *arguments, parts=parts)


def test_features_of_another_encoder_are_refused(refused, sample_dirs, sample_run):
    for layer, seed, part in (('conv2_1', 1, "layer 'conv2_1' instead of 'conv2_2'"),
                              ('conv2_2', 2, 'weights_sha256')):
        refused(sample_run, '--data', sample_dirs.data(layer, seed),
                parts=['not what the run', part])


def test_the_context_of_hard_attention_is_chosen_and_recorded(run_copy, photos):
    # the variables are those of soft attention
    with edited_json(run_copy / 'config.json') as config:
        config['model']['attention'] = 'hard'
    places = {'expected': f'evaluation/{photos.name}-test',
              'argmax': f'evaluation/{photos.name}-test-argmax',
              'sample': f'evaluation/{photos.name}-test-sample', 'again': 'again'}
    places = {name: run_copy / place for name, place in places.items()}
    entropies, captions, pictures = {}, {}, {}
    for name, place in places.items():
        context = {'again': 'sample'}.get(name, name)
        output = evaluate(run_copy, '--data', photos, '--pictures', '1',
                          *(['--decode-context', context] if name != 'expected' else []),
                          *(['--out', place] if name == 'again' else []))
        scores = json.loads((place / 'scores.json').read_text())
        assert scores['decode_context'] == context and f'(context: {context})' in output
        entropies[name] = scores['attention']['entropy']
        captions[name] = (place / 'captions.json').read_bytes()
        pictures[name] = [path.read_bytes() for path in (place / 'pictures').iterdir()]
        assert len(pictures[name]) == 1
    assert entropies['argmax'] == entropies['sample'] == 0 < entropies['expected']
    assert captions['sample'] == captions['again']
    assert pictures['sample'] == pictures['again'] != pictures['expected']


def test_soft_runs_have_no_other_context(refused, sample_run):
    refused(sample_run, '--decode-context', 'sample',
            parts=['--decode-context needs a run of hard attention'])


def test_imported_runs_are_told_what_they_need(refused, run_copy, photos):
    run = run_copy
    with edited_json(run / 'config.json') as config:
        config['data'].update(path=None, records_sha256=None)
        config['data']['encoder'].update(weights='unknown', weights_sha256='unknown')
    refused(run, parts=['an imported run has no data of its own', '--data DATA'])
    assert_refused(scripts.run('train.py', '--resume', run), '--pretrained-model')
    evaluate(run, '--data', photos, '--pictures', '0')
    place = run / 'evaluation' / f'{photos.name}-test'
    assert 'novel_share' not in json.loads((place / 'scores.json').read_text())['diversity']


def test_damaged_runs(sample_run, tmp_path):
    for place, text, part in (('config.json', '[', 'is not JSON'),
                              ('vocabulary.json', '[', 'vocabulary.json'),
                              ('best/best.json', None, 'no trained model here yet')):
        run = tmp_path / part.replace(' ', '-')
        shutil.copytree(sample_run, run)
        if text is None:
            (run / place).unlink()
        else:
            (run / place).write_text(text)
        before = snapshot(run)
        done = scripts.run('evaluate.py', run)
        assert done.returncode == 2 and 'Traceback' not in done.stderr and part in done.stderr
        assert {path: value for path, value in snapshot(run).items()
                if 'evaluation' not in path} == before


def test_faithfulness_is_written_and_shown(sample_run, data_copy, photos, tmp_path):
    output = evaluate(sample_run, '--data', without_captions(data_copy), '--pictures', '0', '--out',
                      tmp_path / 'a', '--faithfulness')
    result = json.loads((tmp_path / 'a' / 'scores.json').read_text())['faithfulness']
    assert (result['locations'], result['random_draws']) == (256, 5)
    assert result['words']['n_words'] > 0 > result['words']['log_prob']
    assert result['object_words']['n_words'] < result['words']['n_words']
    assert [row['k'] for row in result['words']['falls']] == [3, 13, 26, 51]
    assert 'most attended' in output and f'{result["words"]["falls"][1]["most"]["mean"]:.3f} ±' in (
        next(line for line in output.splitlines() if line.startswith('all, 13 places')))

    evaluate(sample_run, '--data', photos, '--limit', '2', '--pictures', '0', '--out',
             tmp_path / 'b', '--beam-width', '2', '--faithfulness', '--faithfulness-places', '256',
             '1')
    result = json.loads((tmp_path / 'b' / 'scores.json').read_text())['faithfulness']
    falls = result['words']['falls']
    assert [row['k'] for row in falls] == [1, 256] and 'object_words' not in result
    # with all places replaced it is all the same which were chosen
    assert falls[1]['most'] == falls[1]['random'] == falls[1]['least']
    assert falls[0]['most'] != falls[0]['least']


# ---- decoding

def outcome(place):
    """Return (captions by image, scores.json, n_best.json or None) of an evaluation."""
    captions = {row['image_id']: row['caption']
                for row in json.loads((place / 'captions.json').read_text())}
    best = place / 'n_best.json'
    n_best = json.loads(best.read_text()) if best.exists() else None
    return captions, json.loads((place / 'scores.json').read_text()), n_best


def test_other_decoding_goes_elsewhere_and_is_recorded(run_copy, photos):
    name, common = photos.name, ('--data', photos, '--pictures', '0')
    evaluate(run_copy, *common)
    evaluate(run_copy, *common, '--beam-width', '3', '--length-penalty', '0.7', '--n-best', '2')
    evaluate(run_copy, *common, *scripts.settings('beam_width=4', 'beam_groups=2',
                                                  'diversity_penalty=0.5'), '--min-length', '3',
             '--no-repeat-ngram', '2', '--n-best', '4')
    evaluate(run_copy, *common, *scripts.settings('sample=true', 'top_k=4', 'max_len=5'), '--seed',
             '3')
    places = {'': {}, '-beam3-penalty0.7': {'beam_width': 3, 'length_penalty': 0.7},
              '-min3-norepeat2-beam4-groups2-diversity0.5': {'beam_width': 4, 'beam_groups': 2,
                                                             'diversity_penalty': 0.5,
                                                             'min_length': 3, 'no_repeat_ngram': 2},
              '-max5-sample-top_k4-seed3': {'sample': True, 'top_k': 4, 'max_len': 5}}
    found = sorted(place.name for place in (run_copy / 'evaluation').iterdir())
    assert found == sorted(f'{name}-test{place}' for place in places)
    for place, options in places.items():
        captions, scores, best = outcome(run_copy / 'evaluation' / f'{name}-test{place}')
        assert scores['decoding'] == options and len(captions) == 13
        width = {'beam_width': 1, **options}['beam_width']
        assert (best is None) == (width == 1)
        for row in best or []:
            assert row['captions'][0]['caption'] == captions[row['image_id']]
            ranked = [caption['score'] for caption in row['captions']]
            assert ranked == sorted(ranked, reverse=True) and 1 <= len(ranked) <= width
            for caption in row['captions']:
                length = len(caption['caption'].split()) + caption['ended']
                assert length >= {'min_length': 0, **options}['min_length'] - 1e-9
                assert caption['score'] == pytest.approx(
                    caption['log_prob'] / length**{'length_penalty': 0.0,
                                                   **options}['length_penalty'], rel=1e-5)
                if 'no_repeat_ngram' in options:
                    words = caption['caption'].split()
                    assert len({*zip(words, words[1:], strict=False)}) == max(len(words) - 1, 0)
        if 'max_len' in options:
            assert max(len(text.split()) for text in captions.values()) <= 5

    # The same place evaluated again without --n-best must not keep the old list.
    evaluate(run_copy, *common, '--beam-width', '3', '--length-penalty', '0.7')
    again, _, best = outcome(run_copy / 'evaluation' / f'{name}-test-beam3-penalty0.7')
    assert best is None


def test_the_runs_own_decoding_is_the_default(run_copy, photos):
    with edited_json(run_copy / 'config.json') as config:
        config['decoding'].update(beam_width=3, length_penalty=0.5)
    evaluate(run_copy, '--data', photos, '--pictures', '0')
    evaluate(run_copy, '--data', photos, '--pictures', '0', '--beam-width', '1', '--length-penalty',
             '0')
    place = run_copy / 'evaluation' / f'{photos.name}-test'
    assert outcome(place)[1]['decoding'] == {'beam_width': 3, 'length_penalty': 0.5}
    assert outcome(place.with_name(f'{photos.name}-test-beam1-penalty0.0'))[1]['decoding'] == {}


def test_an_ensemble_of_a_run_with_itself_is_the_run(sample_run, run_copy, photos, tmp_path):
    twin = tmp_path / 'runs' / 'twin'
    shutil.copytree(sample_run, twin)
    common = ('--data', photos, '--pictures', '0', '--beam-width', '2')
    evaluate(run_copy, *common)
    output = evaluate(run_copy, *common, '--ensemble', twin, run_copy)
    assert 'with the models of step ' in output
    alone, together = (outcome(run_copy / 'evaluation' / f'{photos.name}-test-beam2{place}')
                       for place in ('', '-with-runs_twin-run'))
    assert alone[0] == together[0] and 'ensemble' not in alone[1]
    assert together[1]['ensemble'] == [str(twin), str(run_copy)]


@pytest.mark.parametrize(('arguments', 'parts'), [
    (['--beam-width', '0'], ['beam_width must be at least 1']),
    (['--length-penalty', '0.7'], ['length_penalty needs beam_width']),
    (['--min-length', '30'], ['min_length=30', 'max_len=20']),
    (['--n-best', '2'], ['--n-best must be 1 to the width of the beam, 1', '--beam-width']),
    (['--set', 'sample=true', '--beam-width', '2'], ['sample=true needs beam_width=1']),
    (['--set', 'dim_hidden=5'], ['options of decoding only', 'beam_width']),
    (['--ensemble', 'nowhere'], ['nowhere', 'not a run']),
    (['--ensemble', '{run}', '--faithfulness'], ['--faithfulness tests the attention of one model',
                                                 '{run}']),
])
def test_decoding_that_does_not_fit_is_refused(refused, sample_run, arguments, parts):
    refused(sample_run, *(argument.format(run=sample_run) for argument in arguments),
            parts=[part.format(run=sample_run) for part in parts])


def test_runs_of_other_words_do_not_caption_together(refused, sample_run, run_copy):
    with edited_json(run_copy / 'vocabulary.json') as vocabulary:
        vocabulary['words'][-1] += 'x'
    refused(sample_run, '--ensemble', run_copy, parts=['another vocabulary'])


# ---- runs over seeds

def test_runs_over_seeds_are_compared(sample_run, sample_data, quick_meteor, tmp_path):
    """From train.py's directories of runs to the table and its JSON, as a shell's * names them."""
    for name in ('soft/seed1', 'soft/seed2', 'other/seed1'):
        shutil.copytree(sample_run, tmp_path / name)
        evaluate(tmp_path / name, '--split', 'train', '--pictures', '0', '--min-length',
                 str(len(name)), '--out', tmp_path / name / 'evaluation' / 'train-x')
    soft = sorted((tmp_path / 'soft').glob('seed*/evaluation/train-x'))
    output = evaluate('--compare-scores', *soft, '--against', tmp_path / 'other', '--resamples',
                      '100', '--seed', '3', '--out', tmp_path / 'out', '-q')
    lines = output.splitlines()
    assert lines[0] == f'A: 2 evaluations, {soft[0]}, {soft[1]}'
    assert '100 resamples, seed 3' in output and 'as JSON' not in output
    result = json.loads((tmp_path / 'out' / 'comparison.json').read_text())
    assert result['images'] == 8 and result['references'] is None
    scores = json.loads((soft[0] / 'scores.json').read_text())
    assert scores['data'] == str(sample_data)
    # what was scored at the evaluation, exactly
    assert {name: row[0] for name, row in result['sets'][0]['scores'].items()} == scores['coco']
    output = evaluate('--compare-scores', tmp_path / 'soft')
    assert 'scoring 2 evaluations of 8 images' in output and 'bootstrap' not in output
