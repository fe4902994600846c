"""The paper's protocol from end to end: captions as published are the words, the scoring's too."""

import json

import pytest

from core.data.data_dir import DataDir
from core.metrics.scorer import Scorer
from core.runs.run_dir import Run
from tests.support import scripts
from tests.support.sample_photos import photo

CAPTION = 'A "Red" Dog \u2014 <UNK>, or café\u2028 runs .'
WORDS = ['A', '"Red"', 'Dog', '\u2014', '<UNK>,', 'or', 'café', 'runs', '.']
TRAINING = ['dim_hidden=16', 'dim_embed=8', 'batch_size=10', 'n_epochs=30', 'learning_rate=0.05',
            'dropout=false', 'patience=0']
BLEU = ('Bleu_1', 'Bleu_2', 'Bleu_3', 'Bleu_4')


@pytest.fixture(scope='module')
def place(tmp_path_factory):
    """Return a directory with photos of one caption, raw data of them, and a run."""
    folder = tmp_path_factory.mktemp('raw')
    (folder / 'photos').mkdir()
    listed = [{'id': i, 'file_name': f'{i}.png', 'width': 40, 'height': 36} for i in range(15)]
    for entry in listed:
        photo(folder / 'photos' / entry['file_name'], entry['id'])
    annotations = [{'id': i, 'image_id': i, 'caption': CAPTION} for i in range(15)]
    (folder / 'captions.json').write_text(json.dumps({'images': listed,
                                                      'annotations': annotations}))
    prepare(folder, '--encoder', 'vgg19', '--weights', 'random', '--layer', 'conv1_2',
            '--image-size', '32', '--tokens', 'raw', '--out', 'data')
    done = scripts.run('train.py', 'data', '--out', 'run', *scripts.settings(*TRAINING), cwd=folder)
    assert done.returncode == 0, done.stderr
    return folder


def prepare(folder, *arguments):
    done = scripts.run('prepro.py', '--dataset', 'coco2017', '--images', 'photos', '--captions',
                       'captions.json', *arguments, cwd=folder)
    assert done.returncode == 0, done.stderr


def test_words_are_the_captions_own(place):
    data, run = DataDir(place / 'data'), Run(place / 'run')
    assert sorted(data.vocabulary.idx_to_word[4:]) == sorted(WORDS)
    assert data.tokens == run.tokens == 'raw'


def test_a_caption_that_is_its_reference_is_perfect_in_both_scorings(place):
    done = scripts.run('evaluate.py', 'run', '--out', 'evaluation', '--paper-scoring', cwd=place)
    assert done.returncode == 0, done.stderr
    results = json.loads((place / 'evaluation' / 'captions.json').read_text())
    assert {row['caption'] for row in results} == {' '.join(WORDS)}
    scores = json.loads((place / 'evaluation' / 'scores.json').read_text())
    for scoring in ('paper', 'coco'):
        assert {name: scores[scoring][name] for name in BLEU} == pytest.approx(
            dict.fromkeys(BLEU, 1), abs=1e-6), scoring
        assert scores[scoring]['METEOR'] == pytest.approx(1), scoring
    assert scores['diversity']['novel_share'] == 0
    # Another case is another word to the paper, not to COCO.
    references = {1: [CAPTION]}
    with Scorer(references) as scorer:
        lower = {1: ' '.join(WORDS).lower()}
        assert scorer.paper_scores(lower, ['Bleu'])['Bleu_1'] == pytest.approx(5 / 9)
        assert scorer.score(lower, ['Bleu'])['Bleu_1'] == pytest.approx(1)


def test_like_takes_the_tokens_from_the_run(place):
    prepare(place, '--like', 'run', '--out', 'like')
    like, data = DataDir(place / 'like'), DataDir(place / 'data')
    assert like.tokens == 'raw' and like.vocabulary == data.vocabulary
    assert like.split('train').captions.tolist() == data.split('train').captions.tolist()


def test_other_tokens_are_refused(place):
    arguments = ['--encoder', 'vgg19', '--weights', 'random', '--layer', 'conv1_2', '--image-size',
                 '32', '--out', 'data']
    scripts.assert_refuses(
        'prepro.py', '--dataset', 'coco2017', '--images', 'photos', '--captions', 'captions.json',
        *arguments, cwd=place, parts=["tokens was 'raw', now 'words'"])
