"""train.py --compare: records of several runs, as one table and one picture."""

import json
import os
import pathlib
import xml.etree.ElementTree

import numpy as np
import pytest
from PIL import Image

from core.common.errors import InputError
from core.config.config import Config
from core.runs import compare_runs
from tests.support import scripts
from tests.support.files import snapshot

DATA = {'path': '/data/x', 'encoder': {'encoder': 'vgg19', 'layer': 'conv5_4', 'size': 224,
                                       'resize': 'crop', 'weights_sha256': 'ab' * 32},
        'max_length': 15, 'dataset': 'flickr8k', 'records_sha256': 'cd' * 32}


def training(step, loss, **more):
    return {'kind': 'training', 'step': step, 'epoch': 0, 'time': 1.0, 'loss_per_word': loss,
            'unigram_loss': 5.5, 'captions_per_second': 100.0 + step, **more}


def validation(step, bleu, **more):
    return {'kind': 'validation', 'step': step, 'epoch': step // 10, 'time': 1.0, 'Bleu_4': bleu,
            'CIDEr': 2 * bleu, **more}


ENTRIES = [training(5, 4.0), training(10, 3.5), validation(10, 0.125), training(15, 3.25),
           training(20, 3.0), validation(20, 0.25), training(30, 2.5), validation(30, 0.1875)]


def run(path, entries=ENTRIES, assignments=(), best=None, data=DATA):
    """Make a run directory as train.py leaves it, as far as it is read here."""
    path.mkdir(parents=True)
    Config().override(list(assignments)).save(path / 'config.json', data=data)
    if entries is not None:
        (path / 'metrics.jsonl').write_text(''.join(json.dumps(entry) + '\n' for entry in entries))
    if best:
        (path / 'best').mkdir()
        (path / 'best' / 'best.json').write_text(json.dumps(best))
    return path


def compared(*paths, out=None):
    """Return (the lines that were said, the summary)."""
    said = []
    summary = compare_runs.compare(paths, out, said.append)
    return '\n'.join(said).split('\n'), summary


def test_tables(tmp_path):
    soft = run(tmp_path / 'soft')
    hard = run(tmp_path / 'hard', [training(5, 4.5), validation(5, 0.0625)],
               ['attention=hard', 'selector=false'], data={
        **DATA, 'encoder': {**DATA['encoder'], 'layer': 'conv4_4', 'weights_sha256': 'ef' * 32}})
    lines, summary = compared(soft, hard)
    assert lines == [
        'run   steps  last loss  captions/s  best at step  Bleu_4*   CIDEr',
        '-----------------------------------------------------------------',
        'soft     30      2.500         115            20   0.2500  0.5000',
        'hard      5      4.500         105             5   0.0625  0.1250',
        '',
        'option                  soft          hard',
        '------------------------------------------',
        'selector                true         false',
        'attention               soft          hard',
        'layer                conv5_4       conv4_4',
        'weights_sha256  abababababab  efefefefefef',
        '', 'for the curves: --out FILE.png, FILE.svg or DIR']
    assert summary['differences']['attention'] == {'soft': 'soft', 'hard': 'hard'}
    assert summary['runs'][0]['best_step'] == 20
    assert summary['runs'][1]['best_scores'] == {'Bleu_4': 0.0625, 'CIDEr': 0.125}


def test_many_runs_are_listed_downwards(tmp_path):
    paths = [run(tmp_path / f'run_with_a_long_name_{n}', assignments=[f'alpha_c={n}.5'])
             for n in range(5)]
    lines, _ = compared(*paths)
    assert 'run                     alpha_c' in lines and 'run_with_a_long_name_3      3.5' in lines
    assert max(map(len, lines)) < 100


def test_what_training_kept_as_best_counts(tmp_path):
    """As its metric may not be among the scores of metrics.jsonl any more, or be another one."""
    kept = {'step': 30, 'epoch': 3, 'scores': {'Bleu_4': 0.1875, 'METEOR': 0.5}}
    lines, summary = compared(
        run(tmp_path / 'a', best=kept, assignments=['validation_metric=METEOR']))
    assert lines[0].split()[-3:] == ['step', 'Bleu_4', 'METEOR*']
    assert lines[2].split()[-3:] == ['30', '0.1875', '0.5000']
    by_cider = run(tmp_path / 'b', [validation(1, 0.5, CIDEr=0.25),
                                    validation(2, 0.25, CIDEr=0.75)], ['validation_metric=CIDEr'])
    assert compare_runs.read(by_cider).best_scores()[0] == 2


def test_the_first_of_equal_scores_is_the_best(tmp_path):
    path = run(
        tmp_path / 'a', [validation(10, 0.25), validation(20, 0.25), validation(30, float('nan'))])
    assert compare_runs.read(path).best_scores()[:2] == (10, 1)


def test_what_was_trained_twice_counts_once(tmp_path):
    """The file is that of a killed run, resumed from step 10, whose old lines stayed."""
    entries = [training(5, 4.0), training(10, 3.5), validation(10, 0.5), training(15, 9.0),
               validation(20, 0.9), validation(10, 0.125), training(12, 3.4), training(15, 3.3),
               training(15, 3.2)]
    curves = compare_runs.read(run(tmp_path / 'a', entries))
    assert curves.points('training', 'loss_per_word') == [(5, 4.0), (10, 3.5), (12, 3.4), (15, 3.2)]
    assert curves.points('validation', 'Bleu_4') == [(10, 0.125)]


def test_the_unfinished_last_line_and_damaged_ones(tmp_path):
    path = run(tmp_path / 'a')
    whole = (path / 'metrics.jsonl').read_text()
    (path / 'metrics.jsonl').write_text(whole + '{"kind": "training", "st')
    curves = compare_runs.read(path)
    assert curves.entries == ENTRIES and curves.unreadable == 0
    (path / 'metrics.jsonl').write_text('\0\0\0\n5\n{"step": "x", "kind": "training"}\n\n' + whole)
    lines, _ = compared(path)
    assert compare_runs.read(path).entries == ENTRIES
    assert 'a: 3 damaged lines of metrics.jsonl are left out' in lines


def test_runs_without_curves(tmp_path):
    paths = [run(tmp_path / 'no-dev', [training(5, 4.0)]), run(tmp_path / 'new', None),
             run(tmp_path / 'old', None, data={**DATA, 'path': None, 'dataset': 'imported'})]
    lines, summary = compared(*paths, out=tmp_path / 'x.png')
    assert 'no-dev: no validation is recorded, so there are no scores' in lines
    assert 'new: nothing is recorded yet' in lines
    assert 'old: imported from elsewhere, without a record of its training' in lines
    assert lines[2].split() == ['no-dev', '5', '4.000', '105', '-']
    assert lines[3].split() == ['new', *'----']
    assert summary['runs'][1]['steps'] is None and (tmp_path / 'x.png').exists()
    with pytest.raises(InputError,
                       match='new, old: nothing is recorded yet, so there is nothing to draw'):
        compared(*paths[1:], out=tmp_path / 'y.png')
    assert not (tmp_path / 'y.png').exists()


@pytest.mark.parametrize(('paths', 'names'), [
    (['/r/soft', '/r/hard'], ['soft', 'hard']),
    (['/r/soft/run', '/r/hard/run'], ['soft', 'hard']),
    (['/r/a/soft', '/r/b/soft', '/r/b/hard'], ['a/soft', 'b/soft', 'b/hard']),
    (['/r/a', '/r/a/b'], ['a', 'a/b']),
    (['/r/a'], ['a']),
])
def test_short_names(paths, names):
    assert compare_runs.short_names(list(map(pathlib.Path, paths))) == names


def test_the_same_run_twice_is_one(tmp_path, monkeypatch):
    run(tmp_path / 'a')
    monkeypatch.chdir(tmp_path)
    _, summary = compared('a', tmp_path / 'a', 'a/../a')
    assert [entry['name'] for entry in summary['runs']] == ['a']


# --------------------------------------------------------------------------------------------------
# pictures


def texts(path):
    """Return what an SVG's comments say: matplotlib notes each text that it draws."""
    parser = xml.etree.ElementTree.XMLParser(
        target=xml.etree.ElementTree.TreeBuilder(insert_comments=True))
    tree = xml.etree.ElementTree.parse(path, parser)
    return [element.text.strip() for element in tree.iter()
            if element.tag is xml.etree.ElementTree.Comment]


def test_svg(tmp_path):
    paths = [run(tmp_path / 'soft'), run(tmp_path / 'hard', [training(5, 4.5)])]
    lines, _ = compared(*paths, out=tmp_path / 'x.svg')
    assert lines[-1] == f'drawn: {tmp_path}/x.svg'
    shown = texts(tmp_path / 'x.svg')
    for text in ('training loss, nats a word', 'dev Bleu_4', 'dev CIDEr', 'step', 'soft', 'hard',
                 'unigram model'):
        assert text in shown, text
    assert 'dev METEOR' not in shown
    first = (tmp_path / 'x.svg').read_bytes()
    compared(*paths, out=tmp_path / 'x.svg')
    assert (tmp_path / 'x.svg').read_bytes() == first  # the same runs are the same bytes


def test_png_has_a_line_of_its_own_colour_for_each_run(tmp_path):
    paths = [run(tmp_path / f'{n}', [training(step, 3.0 + n + step / 10) for step in range(5)])
             for n in range(3)]
    compared(*paths, out=tmp_path / 'x.PNG')
    pixels = np.asarray(Image.open(tmp_path / 'x.PNG').convert('RGB')).reshape(-1, 3).astype(int)
    for colour in compare_runs.COLOURS[:3]:
        wanted = [int(colour[at : at + 2], 16) for at in (1, 3, 5)]
        assert (np.abs(pixels - wanted).max(1) < 8).sum() > 200, colour
    wanted = [int(compare_runs.COLOURS[3][at : at + 2], 16) for at in (1, 3, 5)]
    assert not (np.abs(pixels - wanted).max(1) < 8).any()


def drawn(monkeypatch, *paths, out):
    """Return the axes of the figure that `compare` draws."""
    from matplotlib.figure import Figure

    figures, save = [], Figure.savefig
    monkeypatch.setattr(
        Figure, 'savefig', lambda self, *a, **k: (figures.append(self), save(self, *a, **k)))
    compared(*paths, out=out)
    return figures[0].axes


def test_curves(tmp_path, monkeypatch):
    loss, bleu, cider = drawn(monkeypatch, run(tmp_path / 'a'),
                              run(tmp_path / 'b', [training(7, 2.0)]), out=tmp_path / 'x.png')
    first, second, unigram = loss.get_lines()
    assert first.get_xydata().tolist() == [[5, 4.0], [10, 3.5], [15, 3.25], [20, 3.0], [30, 2.5]]
    # else it would not be seen
    assert second.get_xydata().tolist() == [[7, 2.0]] and second.get_marker() == 'o'
    assert list(unigram.get_ydata()) == [5.5, 5.5]
    scores, star, none = bleu.get_lines()
    assert scores.get_xydata().tolist() == [[10, 0.125], [20, 0.25], [30, 0.1875]]
    assert star.get_xydata().tolist() == [[20, 0.25]] and star.get_marker() == '*'
    assert none.get_xydata().size == 0
    assert cider.get_lines()[1].get_xydata().tolist() == [[20, 0.5]]
    assert loss.get_xlim() == bleu.get_xlim() and loss.get_xlabel() == 'step'


@pytest.mark.parametrize('length', [3, 90])
def test_the_legend_fits(tmp_path, monkeypatch, length):
    """Long names take fewer columns, and lose their beginnings."""
    paths = [run(tmp_path / f'{n}{"x" * length}') for n in range(9)]
    loss, *_ = drawn(monkeypatch, *paths, out=tmp_path / 'x.png')
    figure = loss.get_figure()
    legend, = figure.legends
    box = legend.get_window_extent()
    assert box.x0 >= 0 and box.x1 <= figure.bbox.width
    assert len(legend.get_texts()) == 10
    assert (legend.get_texts()[3].get_text() == '3xxx' if length == 3
            else legend.get_texts()[3].get_text() == '...' + 57 * 'x')


def test_other_batch_sizes_are_drawn_over_captions(tmp_path, monkeypatch):
    loss, *_ = drawn(monkeypatch, run(tmp_path / 'a', [training(10, 3.0)]),
                     run(tmp_path / 'b', [training(10, 3.0)], ['batch_size=16']),
                     out=tmp_path / 'x.png')
    assert [line.get_xydata().tolist() for line in loss.get_lines()[:2]] == [
        [[640, 3.0]], [[160, 3.0]]]
    assert loss.get_xlabel() == 'captions read'


def test_numbers_that_are_none(tmp_path, monkeypatch):
    entries = [training(1, 3.0), training(2, float('nan')), training(3, float('inf')),
               training(4, 2.0)]
    scores = {'Bleu_4': float('nan'), 'CIDEr': 0.5}
    path = run(tmp_path / 'a', entries, best={'step': 4, 'epoch': 0, 'scores': scores})
    loss, = drawn(monkeypatch, path, out=tmp_path / 'pictures')
    assert loss.get_lines()[0].get_xydata().tolist() == [[1, 3.0], [4, 2.0]]
    json.loads((tmp_path / 'pictures' / 'compare.json').read_text(), parse_constant=pytest.fail)


def test_a_directory_gets_all(tmp_path):
    out = tmp_path / 'new' / 'x'
    _, summary = compared(run(tmp_path / 'a'), run(tmp_path / 'b', assignments=['seed=2']), out=out)
    assert sorted(os.listdir(out)) == ['compare.json', 'compare.png', 'compare.svg']
    assert json.loads((out / 'compare.json').read_text()) == summary
    assert summary['differences'] == {'seed': {'a': 1, 'b': 2}}


@pytest.mark.parametrize(('out', 'part'), [
    ('x.jpg', 'name a file that ends in .png or .svg, or a directory'),
    ('nowhere/x.png', 'there is no directory'),
    ('a', 'is a run; with --compare, --out is where the picture goes'),
    ('a/metrics.jsonl', 'name a file that ends in .png or .svg'),
])
def test_places_that_are_refused(tmp_path, out, part):
    path = run(tmp_path / 'a')
    before = snapshot(tmp_path)
    with pytest.raises(InputError, match=part):
        compared(path, out=tmp_path / out)
    assert snapshot(tmp_path) == before


def test_no_run(tmp_path):
    with pytest.raises(InputError, match='gone: not a run, there is no such directory'):
        compared(run(tmp_path / 'a'), tmp_path / 'gone')
    (tmp_path / 'a' / 'config.json').write_text('[1]')
    with pytest.raises(InputError, match='config.json: not a configuration of this program'):
        compared(tmp_path / 'a')


# --------------------------------------------------------------------------------------------------
# train.py


def train(*arguments, cwd):
    done, modules = scripts.run_watched('train.py', *arguments, cwd=cwd)
    assert not modules & {'tensorflow', 'tf_keras', 'keras'}
    return done.returncode, done.stdout, done.stderr.splitlines()


def test_the_command(tmp_path):
    run(tmp_path / 'soft')
    run(tmp_path / 'hard', assignments=['attention=hard'])
    status, output, errors = train('--compare', 'soft', 'hard', '--out', 'x.png', cwd=tmp_path)
    assert (status, errors) == (0, [])
    assert output.startswith('run ')
    assert output.endswith('\ndrawn: x.png\n')
    assert Image.open(tmp_path / 'x.png').size[0] > 1000
    status, output, errors = train('--compare', 'soft', '--set', 'seed=2', cwd=tmp_path)
    assert (status, output) == (2, '')
    assert errors == ['train.py: error: --compare RUN ... [--out FILE] stands alone, without --set']
    status, _, errors = train('--compare', 'soft', 'gone', cwd=tmp_path)
    assert status == 2
    assert (errors == ['train.py: error: gone: not a run, there is no such directory; train.py '
                       'DATA --out gone makes one'])


def test_a_run_of_train_py(sample_run):
    """A real one, tiny."""
    lines, summary = compared(sample_run)
    assert summary['runs'][0]['steps'] > 0 and summary['runs'][0]['best_scores'], lines
