"""The baselines compute what this project computes, and the benchmarks measure what they say."""

import importlib.util
import json
import math
import os
import subprocess
import sys
import time

import numpy as np
import pytest

from benchmarks import growth, op_profile
from benchmarks.cases import FLICKR8K, Album, Corpus, Sizes, full_captions, read_lengths, relu_features
from benchmarks.measure import Others, Worker, alternate, insert, markdown, ratio, resident
from benchmarks.textbook import Textbook, until_end
from core.common.errors import InputError
from core.data.vocabulary import END, NULL
from core.reference.equations import teacher_forcing
from core.runtime.backend import tf, tf1
from tests.support import tiny_model
from tests.support.scripts import ROOT, assert_refused

SIZES = Sizes(**{name: getattr(tiny_model, name) for name in 'NLDHMTV'})
LENGTHS = (0, 3, 5, 2)


def textbook(**options):
    return Textbook(tiny_model.V, **SIZES.model(), **options)


def textbook_session(model, values):
    session = tf1.Session(graph=model.features.graph)
    with model.features.graph.as_default():
        session.run(tf1.global_variables_initializer())
    session.run([variable.initializer for variable in model.variables.values()],
                {variable.initializer.inputs[1]: values[name] for name, variable in model.variables.items()})
    return session


def feeds(model):
    features, captions = tiny_model.batch()
    return {model.features: features, model.captions: captions}


def ours(alpha_c, training=True):
    """Loss, gradients and moving statistics of CaptionGenerator, and the values of its variables."""
    with tiny_model.tf_graph():
        model = tiny_model.build(dropout=False, alpha_c=alpha_c, dtype=tf.float64)
        loss, values = model.build_model(training), tiny_model.values(model)
        trained = [variable for variable in model.variables if variable.trainable]
        gradients = [tf.convert_to_tensor(gradient) for gradient in tf1.gradients(loss, trained)]
        with tiny_model.session(model, values) as session:
            found = session.run((loss, gradients), feeds(model))
            after = tiny_model.fetch(session, model)
    return found[0], dict(zip((v.op.name for v in trained), found[1], strict=True)), after, values


# ---- the textbook graph

def test_the_textbook_has_the_loss_and_every_gradient_of_the_model():
    loss, gradients, after, values = ours(alpha_c=0.7)
    with tiny_model.tf_graph():
        model = textbook(dropout=False, alpha_c=0.7, dtype=tf.float64)
        built = model.build_model()
        found = [tf.convert_to_tensor(g) for g in tf1.gradients(built, [model.variables[name] for name in gradients])]
    assert {name: v.shape.as_list() for name, v in model.variables.items()} == {
        name: list(value.shape) for name, value in values.items()}
    with textbook_session(model, values) as session:
        its_loss, its_gradients = session.run((built, found), feeds(model))
        statistics = session.run({name: v for name, v in model.variables.items() if 'moving' in name})
    np.testing.assert_allclose(its_loss, loss, rtol=1e-12)
    for (name, gradient), other in zip(gradients.items(), its_gradients, strict=True):
        np.testing.assert_allclose(other, gradient, rtol=1e-9, atol=1e-12 + 1e-9 * abs(gradient).max(), err_msg=name)
    for name, value in statistics.items():
        np.testing.assert_allclose(value, after[name], rtol=1e-12, err_msg=name)


def test_the_textbook_writes_the_captions_of_the_sampler():
    with tiny_model.tf_graph():
        model = tiny_model.build(dtype=tf.float64)
        sampled, values = model.build_sampler(9), tiny_model.values(model, seed=10)
        with tiny_model.session(model, values) as session:
            alphas, _, captions = session.run(sampled, {model.features: tiny_model.batch()[0]})
    with tiny_model.tf_graph():
        model = textbook(dtype=tf.float64)
        its = model.build_sampler(9)
    with textbook_session(model, values) as session:
        its_alphas, _, its_captions = session.run(its, {model.features: tiny_model.batch()[0]})
    assert [len(until_end(caption)) for caption in captions] == [9, 2, 6]
    for k in range(tiny_model.N):
        assert until_end(its_captions[k]) == until_end(captions[k])
        n = len(until_end(captions[k]))
        np.testing.assert_allclose(its_alphas[k, :n], alphas[k, :n], rtol=1e-9, atol=1e-12)


def test_the_textbook_trains_with_dropout():
    with tiny_model.tf_graph() as graph:
        model = textbook()
        loss = model.build_model()
        train = model.minimize(loss, learning_rate=0.0)
        before = sum('random_uniform' in op.name for op in graph.get_operations())
        initialize = tf1.global_variables_initializer()
    assert before >= 2 * tiny_model.T
    with tf1.Session(graph=graph) as session:
        session.run(initialize)
        losses = {float(session.run((train, loss), feeds(model))[1]) for _ in range(3)}
    assert len(losses) == 3


def test_until_end():
    assert until_end(np.array([5, 4, END, 7])) == [5, 4, END]
    assert until_end([5, 4]) == [5, 4]


# ---- PyTorch

needs_torch = pytest.mark.skipif(importlib.util.find_spec('torch') is None,
                                 reason='the benchmark extra is not installed')


def captioner(values, **options):
    """A PyTorch captioner in a process of its own."""
    return Worker('pytorch_side:Checked', n_words=tiny_model.V, values=values, **SIZES.model(), **options)


@needs_torch
@pytest.mark.parametrize('hoisted', [False, True])
def test_pytorch_has_the_loss_and_every_gradient_of_the_model(hoisted):
    loss, gradients, _, values = ours(alpha_c=0.7)
    with captioner(values, alpha_c=0.7, dropout=0.0, hoist_projection=hoisted) as worker:
        its_loss, its_gradients = worker.call('gradients', *tiny_model.batch())
    for name in ('lstm/basic_lstm_cell/kernel', 'lstm/basic_lstm_cell/bias'):
        i, j, f, o = np.split(gradients[name], 4, axis=-1)
        gradients[name] = np.concatenate([i, f, j, o], axis=-1)
    np.testing.assert_allclose(its_loss, loss, rtol=1e-12)
    assert set(its_gradients) == set(gradients)
    for name, gradient in gradients.items():
        np.testing.assert_allclose(its_gradients[name], gradient, rtol=1e-9, atol=1e-12 + 1e-9 * abs(gradient).max(),
                                   err_msg=name)


@needs_torch
@pytest.mark.parametrize('hoisted', [False, True])
def test_pytorch_beam_search_finds_sentences_by_their_log_probabilities(hoisted):
    with tiny_model.tf_graph():
        values = tiny_model.values(tiny_model.build(dtype=tf.float64))
    max_len, image = 3, tiny_model.batch()[0][1]
    # By brute force: every sentence of at most three words, scored by the equations in NumPy.
    real = [word for word in range(tiny_model.V) if word not in (NULL, tiny_model.START, tiny_model.UNK)]
    others = [word for word in real if word != END]
    sentences = [[END], *([a, END] for a in others), *([a, b, c] for a in others for b in others for c in real)]
    captions = np.zeros((len(sentences), max_len + 1), np.int32)
    captions[:, 0] = tiny_model.START
    for row, sentence in zip(captions, sentences, strict=True):
        row[1 : len(sentence) + 1] = sentence
    told = teacher_forcing(values, np.repeat(image[np.newaxis], len(sentences), axis=0), captions,
                                    training=False)
    scores = [told.log_probs[k, range(len(s)), s].sum() for k, s in enumerate(sentences)]
    best = int(np.argmax(scores))
    with captioner(values, hoist_projection=hoisted) as worker:
        words, score = worker.call('beam', image, len(sentences), max_len)
        assert words == sentences[best]
        np.testing.assert_allclose(score, scores[best], rtol=1e-9)
        words, score = worker.call('beam', image, 2, max_len)
        np.testing.assert_allclose(score, scores[sentences.index(words)], rtol=1e-9)


# ---- what is measured on

def test_a_corpus_has_the_lengths_of_flickr8k_and_batches_of_one_length_stand_for_it():
    sizes = Sizes(N=16, L=2, D=2, V=50)
    corpus = Corpus(sizes)
    words = np.count_nonzero(corpus.captions, axis=1) - 2
    assert np.bincount(words).tolist() == [0, 0, *FLICKR8K[2:16]] and len(words) == 26769
    assert corpus.captions.max() == 49 and corpus.captions[:, 0].tolist() == [tiny_model.START] * 26769
    assert all(caption[n + 1] == END for caption, n in zip(corpus.captions[::1000], words[::1000], strict=True))
    batches = corpus.batches(40)
    assert [batch.shape for batch in batches] == [(16, 17)] * 40
    lengths = np.array([np.count_nonzero(batch, axis=1) for batch in batches])
    assert (lengths.max(axis=1) == lengths.min(axis=1)).mean() > 0.95
    assert abs(lengths.mean() - 2 - words.mean()) < 0.15
    again, other = corpus.batches(40), corpus.batches(40, seed=1)
    assert all((a == b).all() for a, b in zip(batches, again, strict=True))
    assert sorted(lengths[:, 0]) == sorted(np.count_nonzero(batch, axis=1)[0] for batch in other)
    assert any((a != b).any() for a, b in zip(batches, other, strict=True))
    mixed = np.array([np.count_nonzero(batch, axis=1) for batch in corpus.batches(40, 'random')])
    assert (mixed.max(axis=1) > mixed.min(axis=1)).all() and abs(mixed.mean() - 2 - words.mean()) < 0.4


def test_captions_that_do_not_fit_are_left_out():
    corpus = Corpus(SIZES, lengths=(0, 2, 3, 4, 50))
    assert np.bincount(np.count_nonzero(corpus.captions, axis=1) - 2).tolist() == [0, 2, 3, 4]
    with pytest.raises(InputError, match='fits into 4 steps'):
        Corpus(SIZES, lengths=(0, 0, 0, 0, 0, 7))


def test_full_captions_and_features():
    captions = full_captions(SIZES)
    assert captions.shape == (tiny_model.N, tiny_model.T + 1)
    assert (captions != NULL).all() and (captions[:, -1] == END).all()
    features = relu_features(SIZES, 1)
    assert features.dtype == np.float16 and features.min() == 0
    assert features.shape == (tiny_model.N, tiny_model.L, tiny_model.D)
    assert 0.3 < (features > 0).mean() < 0.7


def test_an_album_tells_captions_by_its_images():
    album = Album(Sizes(N=64, L=3, D=40, V=50))
    features, captions = album.batch(0)
    shown = features.astype(float).mean(axis=1)
    nearest = np.argsort(((shown[:, None] - shown) ** 2).sum(axis=2), axis=1)[:, 1]
    lengths = np.count_nonzero(captions, axis=1)
    assert (lengths == lengths[nearest]).mean() > 0.4  # of 64 images of 48 sentences; by chance a tenth
    assert not (album.batch(1)[0] == features).all()


def test_lengths_of_a_token_file(tmp_path):
    path = tmp_path / 'Flickr8k.token.txt'
    path.write_text('a.jpg#0\tA dog runs .\na.jpg#1\tTwo dogs\nb.jpg#0\tA cat sits\n', encoding='utf8')
    assert read_lengths(path) == (0, 0, 1, 2)
    path.write_text('nothing\n', encoding='utf8')
    with pytest.raises(InputError, match='Flickr8k.token.txt'):
        read_lengths(path)


# ---- measuring

def test_sides_alternate_and_ratios_are_taken_round_by_round(monkeypatch):
    monkeypatch.setattr('benchmarks.measure.SETTLE', 0)
    order = []
    found = alternate({name: lambda k, name=name: order.append((k, name)) or 10 * k for name in 'ab'}, 3)
    assert order == [(0, 'a'), (0, 'b'), (1, 'b'), (1, 'a'), (2, 'a'), (2, 'b')] and found == {
        'a': [0, 10, 20], 'b': [0, 10, 20]}
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
    assert after['VmHWM'] > during['VmRSS'] - 1_000_000 > after['VmRSS'] + 70_000_000  # the kernel counts in lumps


def test_others_are_told_from_this_program():
    others = Others()
    until = time.perf_counter() + 1
    while time.perf_counter() < until:
        pass
    own = others.share()
    process = subprocess.Popen([sys.executable, '-c', 'while True: pass'])
    try:
        time.sleep(2)
        assert others.share() > own + 0.3 / os.cpu_count()
    finally:
        process.kill()
        process.wait()
    assert others.share() < own + 0.3 / os.cpu_count()  # it was a child of this program's


def test_tables_are_put_into_documents():
    table = markdown(['a', 'b'], [[1, 'x']])
    assert table == '| a | b |\n| --- | --- |\n| 1 | x |'
    text = 'one\n<!-- benchmarks.run train -->\nold\n<!-- end -->\ntwo <!-- end -->\n'
    assert insert(text, 'train', 'new') == text.replace('old', 'new')
    assert insert(text, 'tr', 'new') is None and insert('train', 'train', 'new') is None


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
        session.run(y, {x: np.ones((300, 400), np.float32)}, tf1.RunOptions(trace_level=tf1.RunOptions.FULL_TRACE),
                    metadata)
    found = op_profile.shares(metadata.step_stats)
    assert math.isclose(sum(share for _, share, _ in found['ops']), 1)
    assert math.isclose(sum(share for _, share, _ in found['scopes']), 1)
    names = {name for name, _, _ in found['ops']}
    assert found['op_seconds'] > 0 and sum(n for name, _, n in found['ops'] if 'MatMul' in name) == 2
    assert 'Tanh' in names or '_MklTanh' in names, 'the operations of a function count'
    assert 'PartitionedCall' not in names, 'its call would count them twice'
    assert any(name == 'layer/inner' for name, _, _ in found['scopes'])
    assert op_profile.scope('a/b_3/b/c/d/e') == 'a/b/c' and op_profile.scope('x_1') == 'x'


# ---- the sides, at tiny sizes

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
    endless = sides.OursDecoding(SIZES, weights=state, never_end=True, max_len=6, lengths=LENGTHS).decode(1)
    assert [len(caption) for caption in endless['captions']] == [6] * tiny_model.N


def test_waiting_for_input_is_measured_on_a_features_file(monkeypatch):
    from benchmarks import tensorflow_sides as sides

    side = sides.InputWaiting(SIZES, lengths=(0, 30, 50, 20))
    found = side.waiting(5, 10)
    assert 0 < found['waiting'] < found['seconds']

    def slow(batches):  # each takes 0.1 s
        for batch in batches:
            sides.time.sleep(0.1)
            yield batch

    monkeypatch.setattr(sides, 'prefetch', slow)
    found = side.waiting(5, 10)
    assert 0.5 <= found['waiting'] <= found['seconds'] < found['waiting'] + 0.5


@needs_torch
def test_pytorch_trains_every_parameter():
    with Worker('pytorch_side:Trained', sizes=SIZES, lengths=LENGTHS) as worker:
        before = worker.call('parameters')
        assert worker.call('train', 0, 2)['items'] == 2 * tiny_model.N
        assert all((a != b).any() for a, b in zip(before, worker.call('parameters'), strict=True))
        assert worker.call('memory')['peak'] > worker.call('memory')['idle'] > 1e8


def test_growth_is_a_table_and_a_plot(tmp_path):
    found = {'N': {'ours': [(1, 0.5), (2, 0.75)], 'textbook': [(1, 1.0), (2, 2.0)]}, 'K': {'ours': [(1, 0.1)]}}
    assert growth.table(found).splitlines()[2:] == [
        '| captions in a batch N | a training step, ours | 1: 500 · 2: 750 |',
        '| captions in a batch N | a training step, textbook | 1: 1000 · 2: 2000 |',
        '| beam width K | a word of beam search, ours | 1: 100 |']
    growth.plot(found, tmp_path / 'growth.png')
    assert (tmp_path / 'growth.png').read_bytes().startswith(b'\x89PNG')


# ---- the command

def command(*arguments):
    return subprocess.run([sys.executable, '-m', 'benchmarks.run', *map(str, arguments)], capture_output=True,
                          text=True, cwd=ROOT, timeout=300)


def test_the_command_measures_prints_and_writes(tmp_path):
    document = tmp_path / 'performance.md'
    document.write_text('<!-- benchmarks.run machine -->\n<!-- end -->\n<!-- benchmarks.run input -->\n<!-- end -->\n',
                        encoding='utf8')
    sizes = [part for name, value in vars(SIZES).items() for part in ('--size', f'{name}={value}')]
    done = command('input', *sizes, '--steps', 1, '--json', tmp_path / 'found.json', '--write', document)
    assert done.returncode == 0, done.stderr
    found = json.loads((tmp_path / 'found.json').read_text(encoding='utf8'))
    assert found['sizes'] == vars(SIZES) and len(found['input']['waiting_share']) == 2
    assert found['machine']['versions']['tensorflow'] == tf.__version__ and found['machine']['cores'] > 0
    table = [line for line in done.stdout.splitlines() if line.startswith('|')]
    assert len(table) == 4 and '\n'.join(table) in document.read_text(encoding='utf8')
    assert 'other programs took' in done.stdout and 0 <= found['machine']['other_programs'] <= 1
    assert found['machine']['processor'] in document.read_text(encoding='utf8')


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
