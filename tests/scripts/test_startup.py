"""Late imports of the scripts: help and wrong arguments come without TensorFlow."""

import os
import re
import subprocess
import sys

import pytest

from tests.support import scripts
from tests.support.scripts import ROOT

SLOW = {'tensorflow', 'tf_keras', 'keras', 'matplotlib', 'pycocoevalcap'}
FLICKR = ['--dataset', 'flickr8k', '--images', '.', '--encoder', 'mobilenet_v2', '--out', 'x']


@pytest.mark.parametrize('script', ['prepro.py', 'train.py', 'evaluate.py', 'caption.py'])
def test_help_imports_nothing_slow(script, tmp_path):
    done, modules = scripts.run_watched(script, '--help', cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, '')
    assert not modules & {*SLOW, 'h5py', 'tqdm', 'PIL', 'numpy'}
    assert len(modules) < 200  # 120 and 0.2 s; TensorFlow alone brings thousands and seconds


@pytest.mark.parametrize(('script', 'arguments', 'part'), [
    ('prepro.py', [], 'required'), ('prepro.py',
                                    [*FLICKR, '--weights', 'random', '--encoder', 'vgg91'],
                                    "unknown encoder 'vgg91'"),
    ('prepro.py', [*FLICKR, '--weights', 'gone.h5'], 'no weights file gone.h5'),
    ('prepro.py', [*FLICKR, '--weights', 'random', '--image-size', '-3'], '-3'),
    ('prepro.py', [*FLICKR, '--weights', 'random', '--captions', 'gone.txt'], 'gone.txt'),
    ('prepro.py', [*FLICKR[:4], '--out', 'x', '--like', 'nowhere'], 'nowhere: not a run'),
    ('prepro.py', [*FLICKR, '--weights', 'random', '--min-count', '0'], 'min-count'),
    ('train.py', [], 'name the data and the run'),
    ('train.py', ['nowhere', '--out', 'x'], 'no such data directory'),
    ('train.py', ['--resume', 'nowhere'], 'nowhere: not a run'),
    ('train.py', ['data', '--n-epochs', '3'], 'did you mean --set n_epochs=VALUE'),
    ('prepro.py', ['--download', 'vgg19'], '--download NAME ... and --to DIR go together'),
    ('prepro.py', ['--dataset', 'coco', '--images', '.', '--out', 'x'], 'did you mean coco'),
    ('train.py', ['nowhere', '--out', 'x', '--set', 'dim_hiden=5'], "did you mean dim_hidden"),
    ('evaluate.py', [], 'name a run'), ('evaluate.py', ['nowhere'], 'nowhere: not a run'),
    ('evaluate.py', ['nowhere', '--set', 'n_epochs=1'], 'sets options of decoding only'),
    ('evaluate.py', ['--compare-scores', 'nowhere'], 'nowhere: no such directory'),
    ('train.py', ['nowhere', '--out', 'x', '--seeds', '1,1'], '1 is there twice'),
    ('evaluate.py', ['--results', 'gone.json', '--references', 'gone.json'], 'gone.json')])
def test_wrong_arguments_are_known_without_tensorflow(script, arguments, part, tmp_path):
    done, modules = scripts.run_watched(script, *arguments, cwd=tmp_path)
    assert done.returncode == 2 and part in done.stderr.splitlines()[-1]
    assert not modules & {'tensorflow', 'tf_keras', 'keras', 'matplotlib'}
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize('script', ['prepro.py', 'train.py', 'evaluate.py', 'caption.py'])
def test_help_fits_a_screen_and_help_all_shows_everything(script):
    short, whole = (scripts.run(script, option).stdout for option in ('--help', '--help-all'))
    assert len(short.splitlines()) <= 60 and 'examples:' in short  # at 80 columns
    options = {text: set(re.findall(r'--[a-z][a-z0-9-]+', text)) for text in (short, whole)}
    assert options[short] < options[whole] >= {'--quiet', '--verbose', '--version', '--seed',
                                               '--device', '--weights'}


def test_completion_in_a_shell(tmp_path):
    """What the shell asks argcomplete for, and without importing anything slow."""
    def completed(script, line):
        out = tmp_path / 'out'
        out.write_text('')
        environment = {**os.environ, '_ARGCOMPLETE': '1', 'COMP_LINE': line,
                       'COMP_POINT': str(len(line)), '_ARGCOMPLETE_STDOUT_FILENAME': str(out),
                       '_ARGCOMPLETE_IFS': '\n'}
        subprocess.run([sys.executable, ROOT / script], env=environment, cwd=tmp_path, timeout=60)
        return set(map(str.strip, out.read_text().split('\n')))

    assert {'--beam-width'} == completed('caption.py', 'caption.py run --beam-w')
    assert {'train', 'dev', 'test'} <= completed('evaluate.py', 'evaluate.py run --split ')
    assert {'--out', '--options'} == completed('train.py', 'train.py data --o')
    assert {'vgg19', 'mobilenet_v2'} <= completed('prepro.py', 'prepro.py --encoder ')
    assert {'coco2014', 'coco2017'} == completed('prepro.py', 'prepro.py --dataset coco')
    assert {'crop', 'squash'} <= completed('prepro.py', 'prepro.py --resize ')
