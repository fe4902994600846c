"""The sides at tiny sizes, and the command that measures them."""

import json
import subprocess
import sys
import types

import pytest

from benchmarks.cases import Sizes
from core.runtime.backend import tf, tf1
from tests.support import tiny_model
from tests.support.scripts import ROOT, assert_refused

SIZES = Sizes(**{name: getattr(tiny_model, name) for name in 'NLDHMTV'})
LENGTHS = (0, 3, 5, 2)


def test_both_graphs_train_decode_and_are_traced(tmp_path, monkeypatch):
    from benchmarks import tensorflow_sides as sides

    for kind in (sides.OursTraining, sides.TextbookTraining):
        monkeypatch.setattr(kind, 'idle_bytes', 1, raising=False)
        side = kind(SIZES, lengths=LENGTHS)
        before = side.session.run(side.graph.get_collection(tf1.GraphKeys.TRAINABLE_VARIABLES))
        done = side.train(0, 2)
        after = side.session.run(side.graph.get_collection(tf1.GraphKeys.TRAINABLE_VARIABLES))
        assert done['items'] == 2 * tiny_model.N and done['seconds'] > 0
        assert all((a != b).any() for a, b in zip(before, after, strict=True))
        assert side.memory()['peak'] > side.memory()['idle'] == 1 and side.start()['nodes'] > 100
        assert any('MatMul' in name for name, _, _ in side.profile()['ops'])
        side.close()
    state = tmp_path / 'weights.npz'
    sides.CommonState(SIZES, lengths=LENGTHS).learn(3, state, LENGTHS)
    ours, plain = (kind(SIZES, weights=state, max_len=6, lengths=LENGTHS).decode(1)
                   for kind in (sides.OursDecoding, sides.TextbookDecoding))
    assert ours['captions'] == plain['captions'] and ours['items'] == tiny_model.N
    endless = sides.OursDecoding(SIZES, weights=state, never_end=True, max_len=6,
                                 lengths=LENGTHS).decode(1)
    assert [len(caption) for caption in endless['captions']] == [6] * tiny_model.N


def test_waiting_for_input_is_measured_on_a_features_file(monkeypatch):
    from benchmarks import tensorflow_sides as sides

    side = sides.InputWaiting(SIZES, lengths=(0, 30, 50, 20))
    waits = side.waiting(5, 10)
    assert 0 < waits['waiting'] < waits['seconds']

    # With a clock of its own: of 0.13 s a step, 0.1 s are spent waiting.
    clock = types.SimpleNamespace(now=0.0)
    clock.perf_counter, run = lambda: clock.now, side.session.run

    def after(seconds, result):
        clock.now += seconds
        return result

    monkeypatch.setattr(sides, 'time', clock)
    monkeypatch.setattr(sides, 'prefetch', lambda batches: (after(0.1, batch) for batch in batches))
    monkeypatch.setattr(side.session, 'run', lambda *given: after(0.03, run(*given)))
    waits = side.waiting(5, 10)
    assert (waits['waiting'], waits['seconds']) == pytest.approx((0.5, 0.65))


# ---- the command

def command(*arguments):
    return subprocess.run([sys.executable, '-m', 'benchmarks.run', *map(str, arguments)],
                          capture_output=True, text=True, cwd=ROOT, timeout=300)


def test_the_command_measures_prints_and_writes(tmp_path):
    document = tmp_path / 'performance.md'
    document.write_text('<!-- benchmarks.run machine -->\n<!-- end -->\n'
                        '<!-- benchmarks.run input -->\n<!-- end -->\n', encoding='utf8')
    sizes = [part for name, value in vars(SIZES).items() for part in ('--size', f'{name}={value}')]
    done = command('input', *sizes, '--steps', 1, '--json', tmp_path / 'found.json',
                   '--write', document)
    assert done.returncode == 0, done.stderr
    results = json.loads((tmp_path / 'found.json').read_text(encoding='utf8'))
    assert results['sizes'] == vars(SIZES) and len(results['input']['waiting_share']) == 2
    assert results['machine']['versions']['tensorflow'] == tf.__version__
    assert results['machine']['cores'] > 0
    table = [line for line in done.stdout.splitlines() if line.startswith('|')]
    assert len(table) == 4 and '\n'.join(table) in document.read_text(encoding='utf8')
    assert 'other programs took' in done.stdout and 0 <= results['machine']['other_programs'] <= 1
    assert results['machine']['processor'] in document.read_text(encoding='utf8')


@pytest.mark.parametrize('arguments, parts', [
    ([], ['nothing to measure', 'train', '--profile']),
    (['trian'], ['trian', 'train']),
    (['train', '--size', 'Q=3'], ['--size Q=3', 'N, L, D']),
    (['train', '--rounds', '0'], ['--rounds']),
    (['train', '--captions', 'missing.txt'], ['missing.txt', 'Flickr8k.token.txt']),
    (['train', '--write', 'missing.md'], ['missing.md']),
])
def test_refusals(arguments, parts):
    assert_refused(command(*arguments), *parts)
