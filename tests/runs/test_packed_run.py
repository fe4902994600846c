"""A run as one file: its captions are the run's, and nothing of the data is inside."""

import gc
import hashlib
import json
import os
import pathlib
import shutil
import stat
import tempfile
import zipfile

import numpy as np
import pytest

from core import Captioner
from core.__main__ import main
from core.common.errors import InputError
from core.data.data_dir import DataDir
from core.download.catalogue import WEIGHTS
from core.runs import packed_run, training_start
from core.runs.run_dir import Run
from tests.support import scripts
from tests.support.changed_runs import changed_run, put
from tests.support.files import edited_json, snapshot
from tests.support.scripts import ROOT

FIXED = ['CARD.md', 'best/best.json', 'config.json', 'vocabulary.json']


def pack(run, out, *options):
    """Pack by the command line; returns the bytes of the archive."""
    main(['pack', str(run), '--out', str(out), *options])
    return out.read_bytes()


def entries(path):
    """Return what an archive holds: dict of name -> bytes."""
    with zipfile.ZipFile(path) as archive:
        return {info.filename: archive.read(info) for info in archive.infolist()}


def assert_same_captions(one, other, photos):
    """Assert that two runs caption photos alike, bit for bit."""
    answers = []
    for path in (one, other):
        with Captioner.load(path, beam_width=3, n_best=2, max_len=6) as captioner:
            answers.append(captioner(photos))
    for first, second in zip(*answers, strict=True):
        assert [caption.words for caption in first.captions] == [
            caption.words for caption in second.captions]
        for a, b in zip(first.captions, second.captions, strict=True):
            assert (a.log_prob, a.score) == (b.log_prob, b.score)
            np.testing.assert_array_equal(a.alphas, b.alphas)
            np.testing.assert_array_equal(a.betas, b.betas)


# ---- what is inside

def test_captions_are_those_of_the_run(sample_run, packed, scene_photos, quick_sessions):
    assert_same_captions(sample_run, packed, scene_photos[:5])


def test_a_fine_tuned_encoder_travels_in_it(sample_run, scene_photos, tmp_path, quick_sessions):
    def tune(session, variables):
        variable = variables['encoder/conv2_1/bias']
        put(session, variable, session.run(variable) + 0.5)

    changed_run(sample_run, tmp_path / 'run', {'training': {'finetune_from': 'conv2_1'}}, tune)
    pack(tmp_path / 'run', tmp_path / 'tuned.zip')
    assert_same_captions(tmp_path / 'run', tmp_path / 'tuned.zip', scene_photos[:2])
    assert b'trained further, from `conv2_1` on' in entries(tmp_path / 'tuned.zip')['CARD.md']


def test_the_files_and_their_form(sample_run, packed):
    run = Run(sample_run)
    name = run.best().prefix().name
    variables = [f'best/{name}.data-00000-of-00001', f'best/{name}.index']
    contents = entries(packed)
    assert list(contents) == sorted([*FIXED, *variables])
    for part in [*variables, 'vocabulary.json']:
        assert contents[part] == (sample_run / part).read_bytes()
    with zipfile.ZipFile(packed) as archive:
        for info in archive.infolist():
            assert info.compress_type == zipfile.ZIP_STORED
            assert info.date_time == (1980, 1, 1, 0, 0, 0)
            assert info.external_attr >> 16 == stat.S_IFREG | 0o644
    config = json.loads(contents['config.json'])
    expected = run.spec.to_dict()
    assert config['data'] == {
        'path': None, 'encoder': expected, 'max_length': run.max_length, 'tokens': 'words',
        'dataset': 'shapes',
        'records_sha256': run.data_entry['records_sha256'],
        'splits': {split: {'images': counts['images'], 'captions': counts['captions']}
                   for split, counts in run.data().manifest['splits'].items()}}
    assert expected['weights'] == 'random'
    opened = Run(packed)
    assert opened.config == run.config and opened.vocabulary == run.vocabulary
    assert opened.best().info() == run.best().info()


def test_nothing_of_the_data_and_no_path_of_this_machine(sample_run, run_copy, tmp_path):
    """Neither captions, ids nor files of images, nor the place of anything."""
    with edited_json(run_copy / 'config.json') as config:
        config['data']['encoder']['weights'] = '/home/mallory/nets/vgg19.h5'
        config['data']['anything'] = '/home/mallory/notes'
    with edited_json(run_copy / 'best' / 'best.json') as best:
        best['imported'] = {'kind': 'tf1', 'source': '/home/mallory/model-20'}
    content = pack(run_copy, tmp_path / 'x.zip')
    data = Run(sample_run).data()
    texts = ['/home', 'mallory', str(data.path), str(tmp_path), str(ROOT), tempfile.gettempdir(),
             os.path.expanduser('~') + os.sep, 'features.h5']
    n_captions = 0
    for split in data.splits:
        images = data.split(split)
        texts += images.paths + [pathlib.Path(path).name for path in images.paths]
        for references in images.references:
            texts += references
            n_captions += len(references)
    assert n_captions > 13
    assert [text for text in texts if text.encode() in content] == []
    assert json.loads(entries(tmp_path / 'x.zip')['config.json'])['data']['encoder'][
        'weights'] == 'vgg19.h5'


def test_the_way_captions_are_cut_travels_in_it(run_copy, tmp_path):
    with edited_json(run_copy / 'config.json') as content:
        content['data']['tokens'] = 'raw'
    pack(run_copy, tmp_path / 'raw.zip')
    assert Run(tmp_path / 'raw.zip').tokens == 'raw'


def test_equal_runs_give_equal_bytes(sample_run, packed, run_copy, tmp_path, monkeypatch):
    for path in run_copy.rglob('*'):
        os.utime(path, (1, 1))
    (run_copy / 'notes.txt').write_text('mine')
    assert pack(run_copy, tmp_path / 'again.zip') == packed.read_bytes()
    assert pack(packed, tmp_path / 'packed_again.zip') == packed.read_bytes()
    monkeypatch.chdir(run_copy)
    main(['pack', '.'])  # beside the run
    assert (tmp_path / 'run.zip').read_bytes() == packed.read_bytes()


def test_unpacked_by_any_program_it_is_a_run(packed, tmp_path, sample_data, sample_run):
    with zipfile.ZipFile(packed) as archive:
        archive.extractall(tmp_path / 'run')
    run = Run(tmp_path / 'run')
    assert run.config == Run(sample_run).config and run.best().prefix().name.startswith('step-')
    assert run.data(sample_data).path == sample_data
    assert pack(tmp_path / 'run', tmp_path / 'again.zip') == packed.read_bytes()


# ---- the card

def test_the_card(sample_run, packed):
    card = entries(packed)['CARD.md'].decode()
    run, scores = Run(sample_run), Run(sample_run).best().info()['scores']
    for line in ('# A captioner of photos, trained on shapes', '- train: 8 images, ',
                 '- dev: 3 images, ', '- `dim_hidden`: 12', '- `learning_rate`: 0.01',
                 '- `beam_width`: 1', '- vgg19, layer `conv2_2`: 16 x 16 places of 128 numbers',
                 '- weights: random, drawn with seed 1; no file is needed',
                 '- licence of the data: not stated; ask who trained it',
                 f'- words: {len(run.vocabulary)}, ', '## Intended use and limits', '0.1.0'):
        assert line in card, line
    for name, value in scores.items():
        assert f'| {name} | {value:.4f} |' in card
    assert 'print_every' not in card and 'sample_temperature' not in card


def test_the_card_counts_the_numbers_of_the_model(sample_run, packed):
    from core.runtime.backend import tf

    with tf.Graph().as_default():
        model = Run(sample_run).make_model()
        expected = sum(variable.shape.num_elements() for variable in model.saved)
    assert f'- numbers in its checkpoint: {expected}\n' in entries(packed)['CARD.md'].decode()


def test_the_card_says_how_to_get_published_weights(run_copy, tmp_path):
    with edited_json(run_copy / 'config.json') as config:
        config['data']['encoder'].update(weights=f'/nets/{WEIGHTS["vgg19"].name}',
                                         weights_sha256='ab' * 32)
    pack(run_copy, tmp_path / 'x.zip', '--data-licence', 'CC BY 4.0,\nby `somebody`')
    card = entries(tmp_path / 'x.zip')['CARD.md'].decode()
    assert f'prepro.py --download vgg19 --to .`, which fetches {WEIGHTS["vgg19"].url}' in card
    assert f'their SHA-256: {"ab" * 32}\n' in card
    assert "- licence of the data: CC BY 4.0, by 'somebody'\n" in card


def test_data_that_are_gone_leave_the_number_of_captions(run_copy, tmp_path):
    with edited_json(run_copy / 'config.json') as config:
        config['data']['path'] = str(tmp_path / 'gone')
    pack(run_copy, tmp_path / 'x.zip')
    card = entries(tmp_path / 'x.zip')['CARD.md'].decode()
    assert f'- training captions: {Run(run_copy).vocabulary.counts[2]}\n' in card
    assert '- dev: ' not in card


# ---- where it is used

def test_weights_beside_the_archive_are_found(run_copy, tmp_path):
    with edited_json(run_copy / 'config.json') as config:
        config['data']['encoder'].update(weights='/gone/net.h5',
                                         weights_sha256=hashlib.sha256(b'net').hexdigest())
    pack(run_copy, tmp_path / 'x.zip')
    run, beside = Run(tmp_path / 'x.zip'), tmp_path / 'net.h5'
    with pytest.raises(InputError, match=f'x.zip: the weights of its vgg19 are not at {beside}; '
                       'name the file'):
        run.encoder()
    beside.write_bytes(b'net')
    assert run.encoder().weights == str(beside)
    beside.write_bytes(b'another')
    with pytest.raises(InputError, match='weights_sha256'):
        run.encoder()


def test_what_was_unpacked_goes_with_the_run(packed, tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, 'tempdir', str(tmp_path))
    run = Run(packed)
    assert run.folder.parent == tmp_path and (run.folder / 'config.json').is_file()
    del run
    gc.collect()
    assert list(tmp_path.iterdir()) == []
    (tmp_path / 'x.zip').write_bytes(packed.read_bytes()[:-30])
    with pytest.raises(InputError):
        Run(tmp_path / 'x.zip')
    assert [path.name for path in tmp_path.iterdir()] == ['x.zip']


def test_a_training_may_start_from_it_and_none_goes_on(packed, sample_data):
    data = DataDir(sample_data)
    run = training_start.pretrained_run(packed, data, needed=True)
    assert run.best().info()['step'] > 0
    with pytest.raises(InputError, match='a packed run has no data of its own; .*--data DATA'):
        run.data()
    scripts.assert_refuses('train.py', '--resume', packed, cwd=packed.parent,
                           parts=['neither data nor a record of its training'])
    scripts.assert_refuses('train.py', '--compare', packed, cwd=packed.parent,
                           parts=['neither data nor a record of its training'])


def test_the_scripts_take_it(packed, sample_run, sample_data, scene_photos, tmp_path,
                             quick_meteor):
    out = tmp_path / 'scenes.zip'
    done = scripts.run('core', 'pack', sample_run, '--out', out, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    assert f'{out}: the model of step ' in done.stdout
    said = []
    for run in (sample_run, out):
        done = scripts.run('caption.py', run, *scene_photos[:3], '--json')
        assert done.returncode == 0, done.stderr
        said.append(done.stdout)
    assert said[0] == said[1] and said[0].count('\n') == 3
    results = []
    for run in (sample_run, out):
        place = tmp_path / f'{run.stem}_results'
        arguments = ['--data', sample_data, '--pictures', '0']
        if run == sample_run:
            arguments += ['--out', place]
        else:
            place = tmp_path / 'scenes_evaluation' / f'{sample_data.name}-test'
        done = scripts.run('evaluate.py', run, *arguments)
        assert done.returncode == 0, done.stderr
        results.append((place / 'captions.json').read_bytes())
    assert results[0] == results[1]


def test_unpacking_into_a_place_of_ones_own(packed, tmp_path):
    (tmp_path / 'mine').mkdir()
    packed_run.unpack(packed, tmp_path / 'mine')
    found = {str(path.relative_to(tmp_path / 'mine')): path.read_bytes()
             for path in (tmp_path / 'mine').rglob('*') if path.is_file()}
    assert found == entries(packed)


# ---- what is not packed

def refused(message, run, out, *options):
    before = snapshot(out.parent)
    with pytest.raises(InputError, match=message) as caught:
        main(['pack', str(run), '--out', str(out), *options])
    assert '\n' not in str(caught.value) and snapshot(out.parent) == before


def test_another_file_is_not_replaced(sample_run, packed, tmp_path):
    (tmp_path / 'x.zip').write_bytes(b'mine')
    refused('x.zip: exists already, with another content', sample_run, tmp_path / 'x.zip')
    shutil.copy(packed, tmp_path / 'same.zip')
    assert pack(sample_run, tmp_path / 'same.zip') == packed.read_bytes()
    refused('exists already', sample_run, tmp_path / 'same.zip', '--data-licence', 'CC0')
    refused('ends in .zip', sample_run, tmp_path / 'x.tar')
    refused('not a run', tmp_path / 'nowhere', tmp_path / 'y.zip')


def test_runs_without_a_sound_model(sample_run, run_copy, tmp_path):
    data = next((run_copy / 'best').glob('step-*.data-*'))
    content = data.read_bytes()
    data.write_bytes(content[:40] + bytes([content[40] ^ 1]) + content[41:])
    refused('cannot be read, it is damaged', run_copy, tmp_path / 'x.zip')
    data.unlink()
    refused('cannot be read, it is damaged', run_copy, tmp_path / 'x.zip')
    shutil.rmtree(run_copy / 'best')
    refused('no trained model here yet', run_copy, tmp_path / 'x.zip')
    changed_run(sample_run, tmp_path / 'diverged', {},
                lambda session, variables: put(session, variables['logits/b_out'], np.nan))
    refused('b_out is not finite', tmp_path / 'diverged', tmp_path / 'x.zip')
