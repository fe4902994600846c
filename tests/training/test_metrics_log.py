"""metrics.jsonl and the TensorBoard events."""

import numpy as np
import pytest

from core.data.data_dir import CaptionData
from core.data.feature_file import ArrayFeatures
from core.decoding.captions import Caption
from core.runtime.backend import tf, tf1
from core.training.metrics_log import Journal
from tests.support.solvers import entries
from tests.support.tiny_model import L


def events(directory):
    """Return the summary values by (tag, step)."""
    found = {}
    for path in sorted(directory.glob('events.*')):
        for event in tf1.train.summary_iterator(str(path)):
            for value in event.summary.value:
                found[value.tag, event.step] = value
    return found


@pytest.fixture
def data(tmp_path):
    """Return two images of which one has a photo."""
    from PIL import Image

    photo = tmp_path / 'photo.png'
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (40, 60, 3), np.uint8)).save(photo)
    encoder = {'size': 32, 'resize': 'crop', 'grid': [1, L]}
    return CaptionData(ArrayFeatures(np.zeros((2, L, 2))), [0, 1], np.zeros((0, 3)), [],
                       ['one', 'two'], [['A dog.', 'dogs run'], ['nothing']],
                       [str(photo), str(tmp_path / 'gone.png')], None, encoder)


def caption(*words):
    n = len(words)
    return Caption(list(words), np.full((n, L), 1 / L), np.ones(n), True, -1.0, -1.0, np.ones(n))


def test_scalars_in_both_places(tmp_path):
    journal = Journal(tmp_path / 'run', tmp_path / 'tb', 0)
    journal.scalars('training', 5, 1, {'loss_per_word': 2.5})
    journal.scalars('validation', 6, 2, {'Bleu_4': 0.25})
    journal.close()
    first, second = entries(tmp_path / 'run')
    assert (first['kind'], first['step'], first['epoch'], first['loss_per_word']) == (
        'training', 5, 1, 2.5)
    assert (second['kind'], second['step'], second['Bleu_4']) == ('validation', 6, 0.25)
    assert first['time'] > 1e9
    found = events(tmp_path / 'tb')
    assert found['training/loss_per_word', 5].simple_value == 2.5
    assert found['validation/Bleu_4', 6].simple_value == 0.25


def test_without_tensorboard(tmp_path, data):
    journal = Journal(tmp_path / 'run', None, 0)
    journal.scalars('training', 1, 0, {'x': 1})
    journal.captions(1, data, [(0, caption('a'))])
    journal.close()
    assert [path.name for path in (tmp_path / 'run').iterdir()] == ['metrics.jsonl']


def test_captions_and_attention(tmp_path, data):
    journal = Journal(tmp_path / 'run', tmp_path / 'tb', 0)
    journal.captions(7, data, [(0, caption('a', 'dog')), (1, caption('x'))])
    journal.close()
    found = events(tmp_path / 'tb')
    text = tf.make_ndarray(found['captions/0', 7].tensor)[0].decode()
    assert text == 'a dog\n\nreferences: A dog. | dogs run'
    assert found['captions/0', 7].metadata.plugin_data.plugin_name == 'text'
    image = found['attention/0', 7].image
    pixels = tf.io.decode_png(image.encoded_image_string).numpy()
    assert pixels.shape == (image.height, image.width, 3)
    assert ('captions/1', 7) in found and ('attention/1', 7) not in found  # its photo is gone


def test_going_on_drops_later_and_broken_lines(tmp_path):
    journal = Journal(tmp_path, None, 0)
    for step in (1, 2, 3, 4):
        journal.scalars('training', step, 0, {'x': step})
    journal.close()
    with open(tmp_path / 'metrics.jsonl', 'a') as file:
        file.write('{"kind": "training", "st')
    Journal(tmp_path, None, 3).close()
    assert [entry['step'] for entry in entries(tmp_path)] == [1, 2, 3]
    Journal(tmp_path, None, 0).close()
    assert entries(tmp_path) == []


def test_going_on_tells_tensorboard_to_forget(tmp_path):
    Journal(tmp_path / 'run', tmp_path / 'tb', 41).close()
    path, = (tmp_path / 'tb').glob('events.*')
    starts = [event.step for event in tf1.train.summary_iterator(str(path))
              if event.session_log.status == tf1.SessionLog.START]
    assert starts == [42]
