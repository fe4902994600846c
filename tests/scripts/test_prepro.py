"""prepro.py as its users run it: wrong input, kills, two at once."""

import json
import os
import signal
import subprocess
import sys
import time

import h5py
import numpy as np
import pytest

from core import datasets
from core.data import data_dir, feature_file, prepare
from core.data.data_dir import DataDir
from core.encoders.encoder import describe
from tests.support import scripts
from tests.support.files import assert_same_data, snapshot
from tests.support.sample_photos import photo
from tests.support.scripts import ROOT

N_IMAGES, BLOCKED = 150, 110
ENCODER = ['--encoder', 'vgg19', '--weights', 'random', '--layer', 'conv1_2', '--image-size', '32']

PUBLISHED = 'mobilenet_v2_weights_tf_dim_ordering_tf_kernels_1.0_224_no_top.h5'
FOLDER = ['--dataset', 'coco2017', '--images', 'photos', '--captions', 'captions.json', '--out',
          'out']
WRONG = {
    'no encoder': ([*FOLDER], 'name the --encoder and its --weights'),
    'no weights': ([*FOLDER, '--encoder', 'vgg19'], 'name the --encoder and its --weights'),
    'unknown encoder': ([*FOLDER, *ENCODER, '--encoder', 'vgg91'], "unknown encoder 'vgg91'"),
    'unknown layer': ([*FOLDER, *ENCODER, '--layer', 'conv9_9'], 'conv9_9'),
    'size that does not fit': ([*FOLDER, *ENCODER, '--layer', 'conv5_4', '--image-size', '50'],
                               'multiple of 16'),
    'negative size': ([*FOLDER, *ENCODER, '--image-size', '-32'], '-32'),
    'weights missing': ([*FOLDER, *ENCODER, '--weights', 'gone.h5'], 'no weights file gone.h5'),
    'weights of another network': ([*FOLDER, *ENCODER, '--weights', 'other.h5'], 'other.h5'),
    'weights that are none': ([*FOLDER, *ENCODER, '--weights', 'captions.json'], 'captions.json'),
    'unknown dataset': ([*FOLDER, *ENCODER, '--dataset', 'coco2018'],
                        "there is no dataset 'coco2018'"),
    'images missing': ([*FOLDER, *ENCODER, '--images', 'gone'], 'gone: is not a directory'),
    'captions missing': ([*FOLDER, *ENCODER, '--captions', 'gone.json'],
                         'gone.json: cannot be read'),
    'no captions': ([*FOLDER[:4], '--out', 'out', *ENCODER], 'no captions file given'),
    'captions that are none': ([*FOLDER, *ENCODER, '--captions', 'photos/0.png'], 'photos/0.png'),
    'captions of a folder': ([*FOLDER, *ENCODER, '--dataset', 'folder'],
                             "dataset 'folder' takes no captions"),
    'folder without vocabulary': (['--dataset', 'folder', *FOLDER[2:4], '--out', 'out', *ENCODER],
                                  'check that the training split has captions'),
    'splits without file': ([*FOLDER, *ENCODER, '--splits', 'train'], '--splits takes SPLIT=FILE'),
    'splits of coco': ([*FOLDER, *ENCODER, '--splits', 'train=a'], 'takes no split lists'),
    'unknown split': ([*FOLDER, *ENCODER, '--split', 'val'], "there is no split 'val'"),
    'limit': ([*FOLDER, *ENCODER, '--limit', '0'], 'the limit is 0'),
    'vocab size': ([*FOLDER, *ENCODER, '--vocab-size', '0'], 'vocab-size must be at least 1'),
    'min count': ([*FOLDER, *ENCODER, '--min-count', '99'], 'no word occurs at least 99 times'),
    'max length': ([*FOLDER, *ENCODER, '--max-length', '0'], 'max-length must be at least 1'),
    'draw into another dataset': ([*FOLDER, *ENCODER, '--draw', '1,1,1'],
                                  '--draw belongs to --dataset shapes'),
    'draw two numbers': (['--dataset', 'shapes', '--images', 'new', '--out', 'out',
                          *ENCODER, '--draw', '3,4'],
                         '--draw 3,4: expected three numbers'),
    'draw words': (['--dataset', 'shapes', '--images', 'new', '--out', 'out',
                    *ENCODER, '--draw', 'a,b,c'],
                   'expected three numbers'),
    'draw negative': (['--dataset', 'shapes', '--images', 'new', '--out', 'out', *ENCODER,
                       '--draw=-1,2,2'], '-1'),
    'draw but bad length': (['--dataset', 'shapes', '--images', 'new', '--out', 'out',
                             *ENCODER, '--draw', '3,1,1',
                             '--max-length', '0'], 'max-length'),
    'draw into photos': (['--dataset', 'shapes', '--images', 'photos', '--out', 'out',
                          *ENCODER, '--draw', '3,1,1'],
                         'photos: exists and is no drawn dataset'),
    'like no run': ([*FOLDER, '--like', 'photos'], 'photos: not a run'),
    'unknown preset': ([*FOLDER, '--preset', 'tf3'], "no preset 'tf3'"),
    'preset without weights': ([*FOLDER, '--preset', 'tf1'],
                               'name the --encoder and its --weights'),
    'like and preset': ([*FOLDER, '--like', 'photos', '--preset', 'tf2'],
                        '--preset and --like exclude'),
    'like and encoder': ([*FOLDER, '--like', 'photos', '--encoder', 'vgg19'],
                         '--encoder and --like exclude'),
    'like and tokens': ([*FOLDER, '--like', 'photos', '--tokens', 'raw'],
                        '--tokens and --like exclude'),
    'download unknown': (['--download', 'vgg91', '--to', 'new'],
                         "--download vgg91: not known; did you mean vgg19?"),
    'download and more': (['--download', 'vgg19', '--to', 'new', '--limit', '3'],
                          'stands alone, without --limit'),
    'download to nowhere': (['--download', 'vgg19'],
                            '--download NAME ... and --to DIR go together'),
    'to without download': (['--to', 'new', *FOLDER, *ENCODER],
                            '--download NAME ... and --to DIR go together'),
    'download without network': (['--download', 'karpathy', '--to', '../new'],
                                 'put caption_datasets.zip (https://cs.stanford.edu/people/karpathy/deepimagesent/'
                                 'caption_datasets.zip), got elsewhere, into ../new'),
    'imagenet without network': ([*FOLDER, *ENCODER, '--weights', 'imagenet'],
                                 'cannot be fetched (no network, or the server is down: '
                                 'storage.googleapis.com: '),
    'imagenet of another kind': ([*FOLDER, '--encoder', 'mobilenet_v2', '--weights', 'imagenet'],
                                 f'{PUBLISHED} is not a Keras .h5 file'),
    'out is a file': ([*FOLDER, *ENCODER, '--out', 'captions.json'], 'captions.json: is a file'),
    'out is below a file': ([*FOLDER, *ENCODER, '--out', 'captions.json/out'], 'captions.json/out'),
    'out is in use': ([*FOLDER, *ENCODER, '--out', 'photos'],
                      'photos: not empty and not made by prepro.py'),
}


def write_coco(folder, n_images, name='captions.json'):
    """Write `n_images` noise pictures in folder/photos, and their COCO captions."""
    (folder / 'photos').mkdir(parents=True)
    listed = [{'id': i, 'file_name': f'{i}.png', 'width': 40, 'height': 36}
              for i in range(n_images)]
    for entry in listed:
        photo(folder / 'photos' / entry['file_name'], entry['id'])
    annotations = [{'id': 2 * i + k, 'image_id': i, 'caption': f'picture {i % 7} of {k} dogs'}
                   for i in range(n_images) for k in range(2)]
    (folder / name).write_text(json.dumps({'images': listed, 'annotations': annotations}))


@pytest.fixture(scope='module')
def place(tmp_path_factory):
    """Return a directory to work in, with what WRONG's cases name, and the environment.

    The environment has no network, and a cache of weights.
    """
    folder = tmp_path_factory.mktemp('wrong')
    write_coco(folder / 'work', 20)
    with h5py.File(folder / 'work' / 'other.h5', 'w') as file:
        file.attrs['layer_names'] = np.array([b'dense'])
        file.create_group('dense').attrs['weight_names'] = np.array([b'kernel'])
        file['dense']['kernel'] = np.zeros((3, 4), np.float32)
    cached = folder / 'cache' / 'show-attend-tell'
    cached.mkdir(parents=True)
    (cached / PUBLISHED).write_text('no weights')
    # No network on any machine: nobody is at the port that all connections shall go through.
    return folder / 'work', {
        'XDG_CACHE_HOME': str(folder / 'cache'), 'no_proxy': '',
        **dict.fromkeys(('http_proxy', 'https_proxy', 'all_proxy'), 'http://127.0.0.1:9')}


@pytest.mark.parametrize('name', WRONG)
def test_wrong_input_is_one_line_and_leaves_nothing(place, name):
    (work, env), (arguments, part) = place, WRONG[name]
    before = snapshot(work)
    done = scripts.run('prepro.py', *arguments, cwd=work, env=env)
    assert 'Traceback' not in done.stderr
    assert done.returncode == 2, done.stderr
    assert done.stderr.startswith('prepro.py: error: ')
    assert done.stderr.count('\n') == 1 and done.stderr.endswith('\n')
    assert part in done.stderr
    assert snapshot(work) == before


def test_help_lists_the_options():
    done = scripts.run('prepro.py', '--help-all')
    assert (done.returncode, done.stderr) == (0, '')
    for option in ('--dataset', '--skip-unreadable', '--like', '--image-size'):
        assert option in done.stdout


@pytest.mark.parametrize(('arguments', 'expected'), [
    ([], (None, None, None, None, 10000, 15, None)),
    (['--preset', 'tf2'], ('inception_v3', 'mixed10', 299, 'squash', 5000, 50, None)),
    (['--preset', 'paper'], ('vgg19', 'conv5_4', 224, 'crop', 10000, 99, 'raw')),
    (['--preset', 'tf2', '--layer', 'mixed9', '--vocab-size', '7', '--max-length', '9'],
     ('inception_v3', 'mixed9', 299, 'squash', 7, 9, None)),
    (['--preset', 'tf2', '--encoder', 'vgg19', '--resize', 'crop'],
     ('vgg19', None, None, 'crop', 5000, 50, None)),
    (['--preset', 'paper', '--tokens', 'words'],
     ('vgg19', 'conv5_4', 224, 'crop', 10000, 99, 'words'))])
def test_presets_fill_in_what_was_not_given(monkeypatch, arguments, expected):
    from core.commands import prepro

    monkeypatch.setattr(sys, 'argv', ['prepro.py', *FOLDER, *arguments])
    args = prepro.arguments()
    prepro.set_defaults(args)
    names = ('encoder', 'layer', 'image_size', 'resize', 'vocab_size', 'max_length',
             'tokens')
    assert tuple(getattr(args, name) for name in names) == expected


def test_usage_errors_are_status_2():
    done = scripts.run('prepro.py', '--dataset', 'coco2017')
    assert done.returncode == 2 and 'Traceback' not in done.stderr
    assert done.stderr.splitlines()[-1].startswith('prepro.py: error: the following arguments are '
                                                   'required')


def start(folder, out):
    return subprocess.Popen(
        [sys.executable, ROOT / 'prepro.py', '--dataset', 'coco2017', '--images', 'photos',
         '--captions', 'captions.json', *ENCODER, '--max-length', '5', '--out', out], cwd=folder,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def done(path):
    return feature_file.FeatureFile(path).done() if path.exists() else np.zeros(N_IMAGES, bool)


def test_kill_in_the_middle_and_go_on(tmp_path):
    """A pipe that nobody writes to stops it at one image; the same command completes it."""
    write_coco(tmp_path, N_IMAGES)
    blocked = tmp_path / 'photos' / f'{BLOCKED}.png'
    picture = blocked.read_bytes()
    records = datasets.read('coco2017', tmp_path / 'photos', tmp_path / 'captions.json')
    prepare.prepare(records, describe('vgg19', 'conv1_2', 32, seed=1), tmp_path / 'whole',
                    'coco2017', max_length=5)

    blocked.unlink()
    os.mkfifo(blocked)
    features = tmp_path / 'out' / 'features.h5'
    first = start(tmp_path, 'out')
    try:
        deadline = time.monotonic() + 300
        while done(features).sum() < 96 and time.monotonic() < deadline and first.poll() is None:
            time.sleep(0.02)
        before = done(features)
        assert 96 <= before.sum() < N_IMAGES
        second = start(tmp_path, 'out')
        _, errors = second.communicate(timeout=300)
        assert second.returncode == 2
        assert (errors == 'prepro.py: error: out: another prepro.py is at work here; wait for it '
                'or stop it\n')
        with pytest.raises(data_dir.InputError,
                           match='has not finished here; run the same prepro.py command again'):
            DataDir(tmp_path / 'out')
    finally:
        first.send_signal(signal.SIGKILL)
        first.communicate()
    assert first.returncode == -signal.SIGKILL
    assert (done(features) == before).all()
    rows = np.flatnonzero(before)
    kept = feature_file.FeatureFile(features).read(rows)
    (tmp_path / 'out' / '.captions.h5.left').write_text('as a kill while a file is replaced leaves')

    # Whoever decoded a finished image again would stumble over these.
    blocked.unlink()
    blocked.write_bytes(picture)
    for row in rows:
        (tmp_path / 'photos' / f'{row}.png').write_text('gone')
    again = start(tmp_path, 'out')
    output, errors = again.communicate(timeout=300)
    assert again.returncode == 0, errors
    assert f'{len(rows)} images were encoded before and are kept' in output
    # Not a terminal: whole lines, the first where it went on, the last complete, and nothing else
    # on stderr.
    assert '\r' not in errors and '\n\n' not in errors
    assert all(line.startswith('encoding: ') for line in errors.splitlines())
    assert errors.splitlines()[0].startswith(f'encoding: {len(rows)}/{N_IMAGES} ')
    assert errors.splitlines()[-1].startswith(f'encoding: {N_IMAGES}/{N_IMAGES} ')
    np.testing.assert_array_equal(feature_file.FeatureFile(features).read(rows), kept)
    assert_same_data(tmp_path / 'out', tmp_path / 'whole')
