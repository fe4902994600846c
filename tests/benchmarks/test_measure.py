"""Measurement side by side: workers, ratios, memory, other programs, the documents' tables."""

import math
import os
import subprocess
import sys
import time

import numpy as np
import pytest

from benchmarks import growth, op_profile
from benchmarks.measure import Others, Worker, alternate, insert, markdown, ratio, resident
from core.runtime.backend import tf, tf1


def test_sides_alternate_and_ratios_are_taken_round_by_round(monkeypatch):
    monkeypatch.setattr('benchmarks.measure.SETTLE', 0)
    order = []
    sides = {name: lambda k, name=name: order.append((k, name)) or 10 * k for name in 'ab'}
    answers = alternate(sides, 3)
    assert order == [(0, 'a'), (0, 'b'), (1, 'b'), (1, 'a'), (2, 'a'), (2, 'b')]
    assert answers == {'a': [0, 10, 20], 'b': [0, 10, 20]}
    assert ratio([4, 9, 2], [2, 3, 2]) == (2, 1, 3)
    assert str(ratio([4, 9, 2], [2, 3, 2])) == '2.00x (1.00 to 3.00)'


def test_a_worker_is_a_process_that_remembers_and_tells_of_failures():
    with Worker('collections:Counter', a=5) as worker:
        process = worker._process.pid
        assert process != os.getpid()
        worker.call('update', 'ab')
        assert worker.call('most_common', n=1) == [('a', 6)]
        with pytest.raises(RuntimeError, match="Counter.*'missing'"):
            worker.call('missing')
        assert worker.call('total') == 7
    with pytest.raises(ProcessLookupError):
        os.kill(process, 0)
    with pytest.raises(RuntimeError, match="'collections' has no attribute 'Count'"):
        Worker('collections:Count')


def test_resident_memory_sees_what_is_touched_and_given_back():
    before = resident()
    taken = np.ones(80_000_000 // 8)
    during = resident()
    del taken
    assert during['VmRSS'] - before['VmRSS'] > 70_000_000
    after = resident()
    # the kernel counts in lumps
    assert after['VmHWM'] > during['VmRSS'] - 1_000_000 > after['VmRSS'] + 70_000_000


def test_tables_are_put_into_documents():
    table = markdown(['a', 'b'], [[1, 'x']])
    assert table == '| a | b |\n| --- | --- |\n| 1 | x |'
    text = 'one\n<!-- benchmarks.run train -->\nold\n<!-- end -->\ntwo <!-- end -->\n'
    assert insert(text, 'train', 'new') == text.replace('old', 'new')
    assert insert(text, 'tr', 'new') is None and insert('train', 'train', 'new') is None


def test_the_share_of_others_is_what_is_busy_and_not_ones_own(monkeypatch):
    # seconds of all cores, and of this program
    used = iter([(100.0, 7.0), (103.0, 8.0), (103.5, 11.0)])
    clock = iter([50.0, 54.0, 54.0])
    monkeypatch.setattr(Others, '_used', staticmethod(lambda: next(used)))
    monkeypatch.setattr('benchmarks.measure.time.perf_counter', lambda: next(clock))
    monkeypatch.setattr('benchmarks.measure.os.cpu_count', lambda: 4)
    others = Others()
    assert others.share() == pytest.approx((3.0 - 1.0) / (4.0 * 4)) and others.share() == 0


def test_a_child_is_this_programs_own_from_its_end_on():
    """In seconds of processors, which do not depend on what else the machine does."""
    busy, own = Others._used()
    until = time.process_time() + 0.3
    while time.process_time() < until:
        pass
    busy_after, own_after = Others._used()
    # the kernel counts all cores in hundredths
    assert own_after - own >= 0.3 and busy_after - busy > 0.2
    spin = 'import time\nwhile time.process_time() < 0.5: pass\nprint(flush=True)\ninput()'
    child = subprocess.Popen([sys.executable, '-c', spin], stdin=subprocess.PIPE,
                             stdout=subprocess.PIPE)
    child.stdout.readline()
    busy, own = Others._used()
    assert busy - busy_after > 0.4 and own - own_after < 0.3
    child.communicate(b'\n')
    assert Others._used()[1] - own > 0.4


def test_a_profile_sums_up_a_real_trace():
    with tf.Graph().as_default() as graph:
        with tf1.name_scope('layer_3/inner'):
            x = tf1.placeholder(tf.float32, [None, 400])
            y = tf.matmul(x, tf.random.uniform([400, 400], seed=1))
        called = tf.function(lambda x: tf.matmul(tf.tanh(x), x, transpose_a=True),
                             experimental_attributes={'_noinline': True})
        y = called(y)
    with tf1.Session(graph=graph) as session:
        metadata = tf1.RunMetadata()
        session.run(y, {x: np.ones((300, 400), np.float32)},
                    tf1.RunOptions(trace_level=tf1.RunOptions.FULL_TRACE), metadata)
    shares = op_profile.shares(metadata.step_stats)
    assert math.isclose(sum(share for _, share, _ in shares['ops']), 1)
    assert math.isclose(sum(share for _, share, _ in shares['scopes']), 1)
    names = {name for name, _, _ in shares['ops']}
    assert shares['op_seconds'] > 0
    assert sum(n for name, _, n in shares['ops'] if 'MatMul' in name) == 2
    assert 'Tanh' in names or '_MklTanh' in names, 'the operations of a function count'
    assert 'PartitionedCall' not in names, 'its call would count them twice'
    assert any(name == 'layer/inner' for name, _, _ in shares['scopes'])
    assert op_profile.scope('a/b_3/b/c/d/e') == 'a/b/c' and op_profile.scope('x_1') == 'x'


def test_growth_is_a_table_and_a_plot(tmp_path):
    results = {'N': {'ours': [(1, 0.5), (2, 0.75)], 'textbook': [(1, 1.0), (2, 2.0)]},
               'K': {'ours': [(1, 0.1)]}}
    assert growth.table(results).splitlines()[2:] == [
        '| captions in a batch N | a training step, ours | 1: 500 · 2: 750 |',
        '| captions in a batch N | a training step, textbook | 1: 1000 · 2: 2000 |',
        '| beam width K | a word of beam search, ours | 1: 100 |']
    growth.plot(results, tmp_path / 'growth.png')
    assert (tmp_path / 'growth.png').read_bytes().startswith(b'\x89PNG')
