"""Scores against values by hand or published; captions and their images; files; diversity."""

import collections
import json
import math
import os

import numpy as np
import pytest

from core.common.errors import InputError
from core.data.vocabulary import tokenize_raw
from core.metrics.scorer import (
    Scorer,
    coco_results,
    diversity,
    load_references,
    load_results,
    paper_scores,
    save_results,
    score,
    score_images,
)

BLEU = ('Bleu_1', 'Bleu_2', 'Bleu_3', 'Bleu_4')
NO_METEOR = ('Bleu', 'ROUGE_L', 'CIDEr')
LINGUISTIC = {  # image id -> (caption, references); ids of both kinds
    1: ('a dog runs on the grass', ['A dog runs on the grass.', 'The brown dog is running.']),
    'two.jpg': ('two men ride bikes', ['Two men riding bikes', 'Men on bicycles.']),
    3: ('a cat', ['The cat sleeps on a red sofa.', 'A cat sleeping', 'cat']),
    4: ('people at a table eat pizza', ["A family eats pizza at a table; it's big!"]),
}


@pytest.fixture(scope='module')
def scorer():
    with Scorer({image_id: references for image_id, (_,
                                                     references) in LINGUISTIC.items()}) as scorer:
        yield scorer


@pytest.fixture
def captions():
    return {image_id: caption for image_id, (caption, _) in LINGUISTIC.items()}


def test_bleu_of_a_corpus_by_hand():
    references = {1: ['The cat is on the mat.', 'There is a cat on the mat.'],
                  2: ['A dog runs fast.']}
    results = {1: 'the the the the the the the', 2: 'a dog'}
    scores = Scorer(references).score_images(results, ['Bleu'])
    # Image 1 is the example of the BLEU paper (Papineni et al., 2002): 'the' counts at most twice,
    # so 2/7, and no bigram of 6. Image 2: 2/2 and 1/1. Together 4/9 and 1/7. Lengths: 7 + 2 against
    # the closest references' 7 + 4, so the penalty is exp(1 - 11/9).
    penalty = math.exp(1 - 11 / 9)
    assert scores.corpus['Bleu_1'] == pytest.approx(4 / 9 * penalty, rel=1e-6)
    assert scores.corpus['Bleu_2'] == pytest.approx(math.sqrt(4 / 9 / 7) * penalty, rel=1e-6)
    assert scores.corpus['Bleu_3'] == pytest.approx(0, abs=1e-4)
    assert scores.images['Bleu_1'] == pytest.approx({1: 2 / 7, 2: math.exp(1 - 4 / 2)}, rel=1e-6)


def test_paper_bleu_by_hand():
    references = {1: ['A man sits on a bench.', 'A man on a bench'], 2: ['Two dogs, running']}
    results = {1: 'a man on a bench', 2: 'Two dogs'}
    paper = paper_scores(results, references, ['Bleu'])
    # Raw words. Image 1: 'a' matches once ('A' does not count, so 1 of 2), 'man', 'on', 'bench':
    # 4/5; bigrams 'man on', 'on a', 'a bench' of 4. Image 2: 'Two' of 2 ('dogs,' is another word);
    # no bigram of 1. No penalty.
    assert paper['Bleu_1'] == pytest.approx(5 / 7, rel=1e-6)
    assert paper['Bleu_2'] == pytest.approx(math.sqrt(5 / 7 * 3 / 5), rel=1e-6)
    coco = Scorer(references).score(results, ['Bleu'])
    # coco-caption: every word matches; 7 words against 5 + 3.
    assert coco['Bleu_1'] == pytest.approx(math.exp(1 - 8 / 7), rel=1e-6)


def test_raw_captions_of_a_model_are_compared_like_with_like():
    references = {1: ['A man , on a "bench" .', 'Someone sits .'],
                  2: ['Two  dogs,\trunning\u2028fast .\n'], 3: ['Le cafe\u0301\x00 noir !\ud800']}
    results = {1: 'A man , on a "bench" .', 2: ' '.join(tokenize_raw(references[2][0])),
               3: ' '.join(tokenize_raw(references[3][0]))}
    assert results[3] == 'Le café noir !'
    with Scorer(references) as scorer:
        perfect = scorer.paper_scores(results)
        lower = scorer.paper_scores({image: text.lower() for image, text in results.items()})
        stopped = scorer.paper_scores({**results, 1: 'A man , on a "bench"'}, ['Bleu'])
    assert {name: perfect[name] for name in BLEU} == pytest.approx(dict.fromkeys(BLEU, 1))
    assert perfect['METEOR'] == pytest.approx(1)
    # Of 16 words, 'A', 'Two', 'Le' are others in lower case.
    assert lower['Bleu_1'] == pytest.approx(13 / 16)
    assert stopped['Bleu_1'] == pytest.approx(1)  # no penalty for what is missing


def test_coco_scoring_knows_neither_case_nor_punctuation_of_raw_captions():
    references = {1: ['A man , on a "bench" .'], 2: ['Two dogs, running .']}
    raw = {image: texts[0] for image, texts in references.items()}
    plain = {1: 'a man on a bench', 2: 'two dogs running'}
    with Scorer(references) as scorer:
        scores = scorer.score_images(raw)
        assert scorer.score_images(plain) == scores
        nothing = scorer.score_images({**raw, 2: '. , "'})
    assert {name: scores.corpus[name] for name in BLEU[:3]} == pytest.approx(
        dict.fromkeys(BLEU[:3], 1))
    assert scores.corpus['METEOR'] == scores.corpus['ROUGE_L'] == pytest.approx(1)
    for metric, values in nothing.images.items():  # a caption of punctuation has no word
        assert values[1] == pytest.approx(scores.images[metric][1]) and values[2] < 1e-6, metric


def test_paper_bleu_has_no_brevity_penalty():
    references = {1: ['a dog runs fast over the green grass'], 2: ['two men ride bikes']}
    short = {1: 'a dog runs fast', 2: 'two men ride bikes'}
    coco, paper = Scorer(references).score(short, ['Bleu']), paper_scores(
        short, references, ['Bleu'])
    for n in range(1, 5):
        assert paper[f'Bleu_{n}'] == pytest.approx(1)
        assert coco[f'Bleu_{n}'] == pytest.approx(math.exp(1 - 12 / 8))
    assert set(paper_scores({1: '', 2: ''}, references, ['Bleu']).values()) == {0}


def test_rouge_l_by_hand():
    # 1, 2: Lin (2004), section 3.1: 'police killed the gunman' scores .75 against 'police kill the
    # gunman' (LCS 3 of       4 on both sides) and .5 against 'the gunman kill police' (LCS 'the
    # gunman'). 3: LCS 2, P 1, R 1/2: (1 + 1.2^2) P R / (R + 1.2^2 P) = 1.22 / 1.94. 4: the best P
    # (2/3, of the first) and the best R (1, of the second) of any reference.
    references = {1: ['police kill the gunman'], 2: ['the gunman kill police'],
                  3: ['a black dog runs'], 4: ['a red cat sits here', 'cat']}
    results = {1: 'police killed the gunman', 2: 'police killed the gunman', 3: 'a dog',
               4: 'blue cat sits'}
    by_hand = {1: 0.75, 2: 0.5, 3: 1.22 / 1.94, 4: 2.44 * 2 / 3 / (1 + 1.44 * 2 / 3)}
    scores = Scorer(references).score_images(results, ['ROUGE_L'])
    assert scores.images['ROUGE_L'] == pytest.approx(by_hand)
    assert scores.corpus['ROUGE_L'] == pytest.approx(sum(by_hand.values()) / 4)


def test_cider_by_hand():
    references = {1: ['red dog runs home'], 2: ['blue cat sits']}
    scores = Scorer(references).score_images({1: 'red dog', 2: 'blue cat sits'}, ['CIDEr'])
    # Every n-gram is in one image of two, so all weigh log 2, which cancels in the cosines. Image
    # 1: n = 1: 2 of 4 words, 2 / (sqrt 2 * sqrt 4); n = 2: 1 of 3 pairs, 1 / sqrt 3; n = 3, 4:
    # none.          Two words too short: exp(-2^2 / (2 * 6^2)). Image 2: 1 for n = 1, 2, 3 and none
    # for 4.
    first = 10 / 4 * (1 / math.sqrt(2) + 1 / math.sqrt(3)) * math.exp(-4 / 72)
    assert scores.images['CIDEr'] == pytest.approx({1: first, 2: 7.5})
    assert scores.corpus['CIDEr'] == pytest.approx((first + 7.5) / 2)


def cider_d(results, references):
    """Compute CIDEr-D by its formula (Vedantam et al., 2015, section 7), with dense vectors."""
    def grams(text, n):
        words = text.split()
        return collections.Counter(tuple(words[i:i + n]) for i in range(len(words) - n + 1))

    scores = np.zeros(len(references))
    for n in range(1, 5):
        vocabulary = sorted({gram for i in references for text in [*references[i], results[i]]
                             for gram in grams(text, n)})
        df = np.array([sum(any(gram in grams(text, n) for text in texts)
                           for texts in references.values()) for gram in vocabulary])
        idf = np.log(len(references)) - np.log(np.maximum(df, 1))

        def vector(text, n=n, vocabulary=vocabulary, idf=idf):
            counts = grams(text, n)
            return np.array([counts[gram] for gram in vocabulary], float) * idf

        for row, (image_id, texts) in enumerate(references.items()):
            hypothesis = vector(results[image_id])
            for text in texts:
                reference = vector(text)
                norms = np.linalg.norm(hypothesis) * np.linalg.norm(reference)
                cosine = np.minimum(hypothesis, reference) @ reference / norms if norms else 0
                gap = len(results[image_id].split()) - len(text.split())
                scores[row] += 10 / 4 / len(texts) * cosine * math.exp(-gap ** 2 / (2 * 6 ** 2))
    return scores


def test_cider_by_its_formula():
    references = {1: ['a dog runs on grass', 'the dog runs'],
                  2: ['a cat sleeps on a sofa', 'cat on sofa'],
                  3: ['a dog and a cat play', 'two animals play on grass', 'a dog plays']}
    results = {1: 'a dog dog runs on a sofa', 2: 'a cat sleeps on a sofa', 3: 'a zebra and a cat'}
    scores = Scorer(references).score_images(results, ['CIDEr'])
    assert list(scores.images['CIDEr'].values()) == pytest.approx(cider_d(results, references))


def test_all_metrics_under_their_names(scorer, captions):
    environment = dict(os.environ)
    scores = scorer.score_images(captions)
    assert list(scores.corpus) == ['Bleu_1', 'Bleu_2', 'Bleu_3', 'Bleu_4', 'METEOR', 'ROUGE_L',
                                   'CIDEr']
    assert all(type(value) is float for value in scores.corpus.values())
    assert all(list(row) == list(LINGUISTIC) for row in scores.images.values())
    assert scores.images['METEOR'][1] == pytest.approx(1)
    # again, with the references and the process kept
    assert scorer.score(captions) == scores.corpus
    reordered = dict(reversed(captions.items()))
    assert scorer.score_images(reordered) == scores
    assert dict(os.environ) == environment


def test_paper_scores_of_all_its_metrics(scorer, captions):
    scores = scorer.paper_scores(captions)
    assert list(scores) == ['Bleu_1', 'Bleu_2', 'Bleu_3', 'Bleu_4', 'METEOR']
    # METEOR lower-cases by itself, but keeps full stops: a caption without them is no longer a
    # perfect match.
    assert 0 < scores['METEOR'] < scorer.score(captions, ['METEOR'])['METEOR']


@pytest.mark.parametrize(
    'hostile', ['a\rdog', 'a\u2028dog', 'a\ndog\n', '', '"a" \'dog\' ``', '\U0001f600 \U0001f415',
                'a ||| dog |||', 'dog ' * 1000],
    ids=['return', 'U+2028', 'newline', 'empty', 'quotes', 'emoji', 'separator', 'long'])
def test_a_hostile_caption_leaves_the_others_alone(scorer, captions, hostile):
    before = scorer.score_images(captions)
    after = scorer.score_images({**captions, 'two.jpg': hostile})
    for metric, row in before.images.items():
        assert {i: v for i, v in after.images[metric].items() if i != 'two.jpg'} == \
               {i: v for i, v in row.items() if i != 'two.jpg'}
    assert scorer.score_images(captions) == before


def test_hostile_references_stay_with_their_image():
    hostile = ['a\rdog', 'a\u2028dog', 'a\ndog', '', '...', '\U0001f600', '||| a', '"dog"']
    references = {i: [text, f'word{i} dog'] for i, text in enumerate(hostile)}
    scores = Scorer(references).score_images({i: f'word{i} dog' for i in references}, NO_METEOR)
    assert set(scores.images['Bleu_2'].values()) == {scores.images['Bleu_2'][0]}
    assert scores.images['Bleu_2'][0] == pytest.approx(1)
    assert set(scores.images['ROUGE_L'].values()) == {1}


def test_captions_and_references_of_other_images(scorer, captions):
    with pytest.raises(
        InputError, match=r"5 images \('1', '5', '6', \.\.\.\) captioned but without references:"):
        scorer.score({**captions, **dict.fromkeys('15678', 'a dog')})
    with pytest.raises(
        InputError, match=r"3 images \('1', '3', '4'\) captioned .* \(ids are numbers on one side"):
        scorer.score({str(image_id): caption for image_id, caption in captions.items()})
    with pytest.raises(InputError,
                       match=r'3 images \(1, 3, 4\) in the references but not captioned:'):
        scorer.score({'two.jpg': 'a dog'})
    with pytest.raises(InputError, match="'SPIDER': choose from Bleu, METEOR"):
        scorer.score(captions, ['SPIDER'])
    with pytest.raises(InputError, match="'CIDEr': choose from Bleu, METEOR"):
        scorer.paper_scores(captions, ['CIDEr'])


def test_references_that_cannot_be_scored_against():
    with pytest.raises(InputError, match='no reference captions'):
        Scorer({})
    with pytest.raises(InputError, match=r"1 image \('b.jpg'\) without reference captions"):
        Scorer({'a.jpg': ['a dog'], 'b.jpg': []})
    with pytest.raises(InputError, match='no word, only punctuation'):
        Scorer({1: ['...'], 2: ['', '!']}).score({1: 'a', 2: 'b'}, NO_METEOR)


def test_results_to_a_file_and_back(tmp_path):
    results = {7: 'a "dog"', 'x.jpg': 'caf\u00e9 \u2028 \U0001f600', np.int64(3): ''}
    path = tmp_path / 'new' / 'captions.json'
    path.parent.mkdir()
    save_results(path, results)
    assert json.loads(path.read_text())[0] == {'image_id': 7, 'caption': 'a "dog"'}
    assert load_results(path) == results
    assert [type(image_id) for image_id in load_results(path)] == [int, str, int]
    assert [row['image_id'] for row in coco_results(results)] == [7, 'x.jpg', 3]
    with pytest.raises(TypeError):
        save_results(path, {1: object()})
    # a failed write leaves the old file, and nothing beside it
    assert load_results(path) == results
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize(('text', 'complaint'), [
    ('{"image_id": 1}', 'is not a list'),
    ('[{"image_id": 1, "caption": "a"}, {"image_id": 1, "caption": "b"}]',
     'entry 2: second caption of image_id 1'), ('[{"image_id": 1}]', 'entry 1, image_id 1: has no '
                                                '"caption"'),
    ('[{"caption": "a"}]', 'entry 1: has no "image_id"'),
    ('[{"image_id": 1.5, "caption": "a"}]', 'entry 1: has no "image_id"'),
    ('[{"image_id": true, "caption": "a"}]', 'entry 1: has no "image_id"'),
    ('["a dog"]', 'entry 1: has no "image_id"'), ('[', 'is not JSON'), (None, 'cannot be read')])
def test_malformed_results(tmp_path, text, complaint):
    path = tmp_path / 'captions.json'
    if text is not None:
        path.write_text(text)
    with pytest.raises(InputError, match=complaint) as error:
        load_results(path)
    assert str(path) in str(error.value)


def test_references_from_a_coco_file(tmp_path):
    path = tmp_path / 'captions.json'
    rows = [{'image_id': 2, 'id': 1, 'caption': 'A dog.'}, {'image_id': 1, 'caption': 'A cat.'},
            {'image_id': 2, 'caption': 'Dogs'}]
    path.write_text(json.dumps({'images': [{'id': 9}], 'annotations': rows}))
    assert load_references(path) == {2: ['A dog.', 'Dogs'], 1: ['A cat.']}
    for text, complaint in (
        ('[]', "no list of objects 'annotations'"),
        ('{"annotations": [{"image_id": 1, "caption": 5}]}', 'annotation 1, image_id 1: has no'),
        ('{"annotations": [{"caption": "a"}]}', 'annotation 1: has no "image_id"')):
        path.write_text(text)
        with pytest.raises(InputError, match=complaint):
            load_references(path)


def test_diversity_by_hand():
    measures = diversity(['a dog runs', 'a  dog runs', 'a cat', ''], ['a dog runs', 'a dog'])
    # 8 words, of which a, dog, runs, cat differ; 5 pairs, of which a-dog, dog-runs, a-cat differ.
    assert measures == {'captions': 4, 'distinct': 3, 'distinct_share': 0.75, 'vocabulary': 4,
                        'mean_length': 2.0, 'distinct_1': 0.5, 'distinct_2': 0.6,
                        'novel_share': 0.5}
    assert 'novel_share' not in diversity(['a'])
    assert set(diversity([], []).values()) == {0}


def test_scores_of_every_image_by_name(scorer, captions):
    lines = []
    summary, of_images = score_images(scorer, captions, paper_scoring=True, say=lines.append)
    assert summary == score(scorer, captions, paper_scoring=True, say=lines.append)
    assert len(lines) == 2
    assert list(of_images) == list(captions)
    expected = scorer.score_images(captions).images
    for image_id, row in of_images.items():
        assert row == {name: expected[name][image_id] for name in summary['coco']}
    # not one for another
    assert len({tuple(row.values()) for row in of_images.values()}) == len(captions)
