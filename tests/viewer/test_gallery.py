"""The page of evaluate.py --html as it is written; test_viewer_in_browser.py looks at it."""

import base64
import json
import re
import shutil

import numpy as np
import pytest

from core.common.errors import InputError
from core.inference import evaluation
from core.metrics.scorer import Scorer
from core.runs.run_dir import Run
from core.viewer import caption_record, gallery
from tests.support import sample_gallery, scripts
from tests.support.files import snapshot
from tests.support.sample_gallery import GREY, INFO, photo, records
from tests.support.scripts import assert_refused


@pytest.fixture(scope='module')
def written(tmp_path_factory):
    place = tmp_path_factory.mktemp('pages') / 'a page #1 %20'
    assert sample_gallery.write(place) == ['1 of 6 photos are not on the page, for example: 1.jpg: '
                                           'gone']
    return place


# ---- what is written

def test_nothing_outside_is_asked_for_and_nothing_parsed(written):
    for path in [gallery.ASSETS / name for name in (*gallery.FILES, 'page.html')]:
        text = path.read_text(encoding='utf8')
        assert (not re.search(r'https?://|//[a-z]+\.|innerHTML|outerHTML|insertAdjacent|document\.write|eval\(|fetch\(',
                             text)), path
        assert len(text.splitlines()) <= 400
    for path in (written / 'data').iterdir():
        assert '<' not in path.read_text(encoding='ascii')
    assert sorted(path.name for path in (written / 'photos').iterdir()) == [
        f'0000{n}.jpg' for n in (0, 2, 3, 4, 5)]


def test_attention_in_bytes():
    alphas = np.array([[0.5, 0.25, 0.25, 0], [0.25, 0.25, 0.25, 0.25]], np.float32)
    assert list(base64.b64decode(caption_record.quantized(alphas))) == [
        255, 128, 128, 0, 255, 255, 255, 255]
    assert caption_record.quantized(np.zeros((0, 4))) == ''


def test_an_earlier_page_is_replaced_and_nothing_else(tmp_path):
    place = tmp_path / 'page'
    gallery.write(place, INFO, records(), photo, lambda line: None)
    gallery.write(place, {'title': 'new'}, records()[:2], photo, lambda line: None)
    assert '"title":"new"' in (place / 'data' / 'records.js').read_text()
    assert [path.name for path in (place / 'photos').iterdir()] == ['00000.jpg']
    assert [path.name for path in tmp_path.iterdir()] == ['page']
    assert place.stat().st_mode & 0o777 == 0o755

    for foreign in ('notes.txt', 'photos/mine.png', 'data/deep/er.js'):
        (place / foreign).parent.mkdir(exist_ok=True)
        (place / foreign).write_text('mine')
        before = snapshot(tmp_path)
        with pytest.raises(InputError, match='no part of an earlier page'):
            gallery.write(place, INFO, records(), photo)
        assert snapshot(tmp_path) == before
        (place / foreign).unlink()
    shutil.rmtree(place / 'data' / 'deep')
    gallery.write(place, INFO, records(), photo, lambda line: None)


def test_directories_of_others_are_refused(tmp_path):
    (tmp_path / 'site').mkdir()
    (tmp_path / 'site' / 'index.html').write_text('<h1>mine</h1>')
    (tmp_path / 'file').write_text('')
    for name, complaint in (('site', 'not an earlier page'), ('file', 'is a file')):
        with pytest.raises(InputError, match=complaint):
            gallery.write(tmp_path / name, INFO, records(), photo)
    (tmp_path / 'empty').mkdir()
    gallery.write(tmp_path / 'empty', INFO, records(), photo, lambda line: None)
    gallery.write(tmp_path / 'new' / 'deeper', INFO, records(), photo, lambda line: None)


@pytest.mark.parametrize('error', [KeyboardInterrupt, MemoryError])
def test_an_interrupted_page_leaves_the_old_one(tmp_path, error):
    gallery.write(tmp_path / 'page', INFO, records(), photo, lambda line: None)
    before = snapshot(tmp_path)

    def stopped(number):
        if number == 3:
            raise error
        return GREY

    with pytest.raises(error):
        gallery.write(tmp_path / 'page', INFO, records(), stopped)
    with pytest.raises(error):
        gallery.write(tmp_path / 'none', INFO, records(), stopped)
    assert snapshot(tmp_path) == before


def test_a_page_that_cannot_be_put_in_place_leaves_the_old_one(tmp_path, monkeypatch):
    gallery.write(tmp_path / 'page', INFO, records(), photo, lambda line: None)
    before, replace = snapshot(tmp_path), gallery.os.replace

    def failing(source, target):
        if target == tmp_path / 'page' and '.new-' in source.name:
            raise OSError(28, 'No space left on device')
        replace(source, target)

    monkeypatch.setattr(gallery.os, 'replace', failing)
    with pytest.raises(InputError, match='No space left'):
        gallery.write(tmp_path / 'page', INFO, records(), photo, lambda line: None)
    assert snapshot(tmp_path) == before


# ---- from an evaluation

def test_an_evaluation_writes_its_page(sample_run, tmp_path):
    run, lines = Run(sample_run), []
    run.config = run.config.override(['beam_width=3'], where='decoding')
    data = run.data()
    ours = [image for image in data._images if image['split'] == 'dev']
    # all words of the model, so it has some score
    ours[0]['captions'] = [' '.join(run.vocabulary.word_to_idx)]
    ours[1]['captions'] = ['zebra']
    scores = evaluation.evaluate(run, data, 'dev', tmp_path / 'out', n_pictures=0, n_best=2,
                                 say=lines.append, html=tmp_path / 'page')
    assert any(str(tmp_path / 'page' / 'index.html') in line for line in lines)
    dev = data.split('dev')
    text = (tmp_path / 'page' / 'data' / 'records.js').read_text()
    info, rows = json.loads(f'[{text.removeprefix("PAGE.start(").removesuffix(");" + chr(10))}]')
    assert info['coco'] == scores['coco']
    assert info['title'] == f'{run.path.parent.name}/{run.path.name}, dev'
    assert [row['image'] for row in rows] == [str(image) for image in dev.image_ids]
    assert [row['references'] for row in rows] == [list(references)
                                                   for references in dev.references]
    with Scorer(dict(zip(dev.image_ids, dev.references, strict=True))) as scorer:
        expected = scorer.score_images({i: row['caption']
                                        for i, row in zip(dev.image_ids, rows, strict=True)}).images
    for image, row in zip(dev.image_ids, rows, strict=True):
        assert row['scores'] == pytest.approx(
            {name: values[image] for name, values in expected.items()}, abs=1e-4)
    assert rows[0]['scores'] != rows[1]['scores']
    pages = attention_of(tmp_path / 'page')
    n_best = json.loads((tmp_path / 'out' / 'n_best.json').read_text())
    assert [[' '.join(c['words']) for c in captions] for captions in pages] == [
        [c['caption'] for c in entry['captions']] for entry in n_best]
    for one in (one for captions in pages for one in captions):
        assert len(base64.b64decode(one['alphas'])) == len(one['words']) * 256
        # The probabilities of the words and of <END> make the caption's.
        assert np.sum(np.log(np.maximum(one['probabilities'], 5e-4))) >= one['log_prob'] - 0.1
    assert len(list((tmp_path / 'page' / 'photos').iterdir())) == len(dev)


def attention_of(place):
    text = (place / 'data' / 'attention-0000.js').read_text()
    return json.loads(f'[{text.removeprefix("PAGE.attention(").removesuffix(");" + chr(10))}]')[1]


def test_hard_attention_without_references_boxes_and_some_photos(sample_run, tmp_path):
    shutil.copytree(sample_run, tmp_path / 'run')
    config = json.loads((tmp_path / 'run' / 'config.json').read_text())
    config['model'].update(attention='hard', decode_context='argmax')
    (tmp_path / 'run' / 'config.json').write_text(json.dumps(config))
    run, lines = Run(tmp_path / 'run'), []
    data = run.data()
    for image in data._images:
        image.update(boxes=None, captions=[])
    data._images[-1]['file'] = str(tmp_path / 'gone.png')
    split, options = data._images[-1]['split'], {'n_pictures': 0, 'say': lines.append}
    evaluation.evaluate(run, data, split, tmp_path / 'out', html=tmp_path / 'page', **options)
    assert any('1 of 2 photos are not on the page' in line and 'gone.png' in line for line in lines)
    assert '"decode_context":"argmax"' in (tmp_path / 'page' / 'data' / 'records.js').read_text()
    for (one,) in attention_of(tmp_path / 'page'):
        alphas = np.frombuffer(base64.b64decode(one['alphas']), np.uint8).reshape(
            len(one['words']), -1)
        assert one['words']
        assert one['locations'] == alphas.argmax(axis=1).tolist()
        assert one['boxes'] == []
        assert (np.sort(alphas, axis=1)[:, -2:] == [0, 255]).all()

    evaluation.evaluate(run, data, split, tmp_path / 'out', limit=1, ensemble=[run],
                        html=tmp_path / 'page', **options)
    (captions,) = attention_of(tmp_path / 'page')
    assert captions[0]['locations'] is None  # a mean of several is at no one place


def test_scored_files_have_no_page():
    done = scripts.run('evaluate.py', '--results', 'a.json', '--references', 'b.json', '--html',
                       'page')
    assert_refused(done, '--html makes a page of a RUN')


def test_a_place_for_the_page_is_refused_before_any_work(sample_run, tmp_path):
    run = Run(sample_run)
    (tmp_path / 'mine').mkdir()
    (tmp_path / 'mine' / 'notes.txt').write_text('')
    for html, complaint in (('mine', 'not an earlier page'), ('.', 'not an earlier page'),
                            ('out', 'the results go into')):
        with pytest.raises(InputError, match=complaint):
            evaluation.evaluate(run, run.data(), 'dev', tmp_path / 'out', say=print,
                                html=tmp_path / html)
    assert not (tmp_path / 'out').exists()
