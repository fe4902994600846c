"""A run held open for photos: the captions are those of evaluate.py, whatever form a photo has."""

import concurrent.futures
import json
import os
import shutil

import numpy as np
import pytest
from PIL import Image

from core import Captioner
from core.common.errors import InputError
from core.data.data_dir import DataDir
from core.decoding.captions import generate_n_best
from core.encoders.photos import UnreadableImage
from core.runs.run_dir import Run
from core.runtime.backend import tf, tf1
from tests.support.tolerances import assert_same_caption


@pytest.fixture(scope='module')
def captioner(sample_run):
    with Captioner.load(sample_run, beam_width=3, n_best=2, max_len=6) as opened:
        yield opened


@pytest.fixture(scope='module')
def paths(scene_photos):
    return scene_photos


def test_captions_are_those_of_the_stored_features(sample_run, captioner, paths):
    run = Run(sample_run)
    data = run.data().split('train')
    with tf.Graph().as_default() as graph:
        model = run.make_model()
        search = model.build_search(captioner.config, 2)
        with tf1.Session(graph=graph) as session:
            run.restore(session, model)
            expected = list(generate_n_best(session, model, search, data))
    for result, captions in zip(captioner(data.paths), expected, strict=True):
        assert len(result.captions) == len(captions) == 2
        for one, other in zip(result.captions, captions, strict=True):
            assert_same_caption(one, other)
    # or nothing were compared
    assert len({result.best.log_prob for result in captioner(data.paths)}) == len(data)


def test_a_photo_in_every_form(captioner, paths):
    pixels = np.asarray(Image.open(paths[0]).convert('RGB'))
    expected, = captioner(paths[0])
    assert expected.name == str(paths[0])
    for photo in (str(paths[0]), paths[0].read_bytes(), pixels, Image.fromarray(pixels),
                  [paths[0]]):
        result, = captioner(photo)
        assert_same_caption(result.best, expected.best)
        np.testing.assert_array_equal(result.view(), expected.view())
    assert captioner(pixels)[0].name == 'photo 1' and captioner([]) == []


def test_results_come_in_order_and_name_what_cannot_be_read(captioner, paths, tmp_path):
    (tmp_path / 'broken.png').write_bytes(paths[0].read_bytes()[:60])
    photos = [*paths[:4], tmp_path / 'gone.png', paths[4], tmp_path / 'broken.png',
              ('mine', paths[5].read_bytes())]
    for batch_size in (1, 3, 16):
        results = list(captioner.stream(photos, batch_size))
        assert [result.name for result in results] == [*map(str, photos[:-1]), 'mine']
        assert [result.error is None for result in results] == [True] * 4 + [
            False, True, False, True]
        for result, path in zip(results, [*paths[:4], None, paths[4], None, paths[5]], strict=True):
            if path:
                assert_same_caption(result.best, captioner(path)[0].best)
    assert 'gone.png' in results[4].to_dict()['error'] and results[4].captions == []
    with pytest.raises(UnreadableImage, match='gone.png'):
        captioner(photos)
    nameless = list(captioner.stream([b'no image']))
    assert 'photo 1' in str(nameless[0].error)


def test_the_first_photo_does_not_wait_for_the_last(captioner, paths):
    taken = []

    def endless():
        while True:
            taken.append(paths[0])
            yield paths[0]

    stream = captioner.stream(endless(), batch_size=2)
    next(stream)
    assert len(taken) < 10
    stream.close()


def test_the_json_record(captioner, paths):
    result, = captioner(paths[0])
    record = json.loads(json.dumps(result.to_dict()))
    assert set(record) == {'image', 'caption', 'grid', 'captions'}
    assert (record['image'], record['caption']) == (str(paths[0]), result.caption)
    for fields, caption in zip(record['captions'], result.captions, strict=True):
        assert fields['words'] == caption.words and fields['caption'] == caption.text
        assert len(fields['alphas']) == len(caption.words)
        np.testing.assert_allclose(fields['alphas'], caption.alphas, atol=6e-6)
        np.testing.assert_allclose(fields['betas'], caption.betas, atol=6e-6)
        np.testing.assert_allclose(fields['probabilities'], caption.probabilities, atol=6e-6)
        assert (fields['score'], fields['log_prob'], fields['ended']) == (
            caption.score, caption.log_prob, caption.ended)
        assert fields['locations'] is None
    assert len(record['captions'][0]['alphas'][0]) == record['grid'][0] * record['grid'][1]


def test_pictures_of_a_result(captioner, paths):
    result, = captioner(paths[0])
    assert result.show().size[::-1] == result.picture().shape[:2]
    assert result.png().startswith(b'\x89PNG') and result.animation().startswith(b'GIF8')
    assert result.view(50).shape == (50, 50, 3)


def test_many_threads_and_several_captioners(sample_run, captioner, paths):
    expected = [captioner(path)[0] for path in paths]
    with Captioner.load(sample_run,
                        max_len=3) as other, concurrent.futures.ThreadPoolExecutor(8) as pool:
        cut = pool.submit(other, paths)
        for result, first in zip(pool.map(lambda path: captioner(path)[0], paths * 3), expected * 3,
                                 strict=True):
            assert_same_caption(result.best, first.best)
        assert all(len(result.words) <= 3 for result in cut.result())


def test_closed_and_wrong(sample_run, paths, tmp_path):
    with Captioner.load(sample_run) as opened:
        assert opened.n_best == 1 and opened.config == Run(sample_run).config.decoding
    with pytest.raises(ValueError, match='closed'):
        opened(paths[0])
    opened.close()
    with pytest.raises(InputError, match="did you mean beam_width"):
        Captioner.load(sample_run, beam_with=3)
    with pytest.raises(InputError, match='n_best must be at least 1'):
        Captioner.load(sample_run, n_best=0)
    with pytest.raises(InputError, match='sample=true needs beam_width=1'):
        Captioner.load(sample_run, n_best=2, sample=True)
    with pytest.raises(InputError, match='not a run'):
        Captioner.load(tmp_path)
    with pytest.raises(InputError, match='seed must be'):
        Captioner.load(sample_run, seed=-1)


def test_what_is_no_regular_file_is_not_opened(captioner, paths, tmp_path):
    os.mkfifo(tmp_path / 'pipe.png')
    results = list(captioner.stream([tmp_path / 'pipe.png', '/dev/zero', tmp_path, paths[0]]))
    assert [('no regular file' in str(result.error)) for result in results] == [
        True, True, True, False]


def test_closing_waits_for_what_is_being_decoded(sample_run, paths):
    opened = Captioner.load(sample_run, max_len=6)
    pixels = np.stack([opened.read(paths[0])] * 200)
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        decoding = pool.submit(opened.decode, pixels)
        while not opened._running:
            pass
        opened.close()
        assert decoding.done() and len(decoding.result()) == 200
    with pytest.raises(ValueError, match='closed'):
        opened.decode(pixels)


def test_samples_follow_seed_and_place(sample_run, paths):
    def sampled(seed, photos):
        with Captioner.load(sample_run, seed=seed, sample=True, max_len=6) as opened:
            return [result.caption for result in opened.stream(photos, 4)]

    first = sampled(1, [paths[0]] * 9)
    assert len(set(first)) > 1 and first == sampled(1, [paths[0]] * 9) != sampled(2, [paths[0]] * 9)


def test_weights_that_moved_are_asked_for(sample_run, tmp_path):
    run = tmp_path / 'run'
    shutil.copytree(sample_run, run)
    config = json.loads((run / 'config.json').read_text())
    config['data']['encoder']['weights'] = str(tmp_path / 'gone.h5')
    (run / 'config.json').write_text(json.dumps(config))
    with pytest.raises(InputError,
                       match=r'weights of its vgg19 are gone from .*gone\.h5.*--weights FILE'):
        Captioner.load(run)
    # What is named must be what the run was trained with; the random weights have the hash of their
    # seed.
    config['data']['encoder']['weights_sha256'] = '0' * 64
    config['data']['encoder']['weights'] = 'random'
    (run / 'config.json').write_text(json.dumps(config))
    with pytest.raises(InputError, match='weights_sha256'):
        Captioner.load(run)


def test_drawn_locations_are_named(sample_data, sample_run, tmp_path, paths):
    run = tmp_path / 'run'
    shutil.copytree(sample_run, run)
    config = json.loads((run / 'config.json').read_text())
    config['model'].update(attention='hard', decode_context='sample')
    (run / 'config.json').write_text(json.dumps(config))
    with Captioner.load(run, max_len=5) as opened:
        for fields, caption in zip(opened(paths[0])[0].to_dict()['captions'],
                                   opened(paths[0])[0].captions, strict=True):
            places = np.array(fields['locations'])
            assert places.shape == (len(caption.words),)
            assert (caption.alphas[np.arange(len(places)), places] == 1).all()
        assert DataDir(sample_data).encoder['grid'] == opened(paths[0])[0].to_dict()['grid']
