"""SPICE's jars, those that are missing, and what Java is given and gives back.

The jars of its parser cannot be had here, so a small program stands for Java.
"""

import pytest

from core.common.errors import InputError
from core.metrics import java_tools, spice
from core.metrics.scorer import Scorer

PROGRAM = '''#!/usr/bin/env python3
import json, sys
_, memory, _, jar, asked, _, answered, _ = sys.argv
assert memory == '-Xmx8G' and jar.endswith('spice-1.0.jar')
rows = json.load(open(asked))
if rows[0]['test'] == 'fail':
    sys.exit('java.lang.Error: no memory')
def score(row):
    shared = set(row['test'].split()) & set(' '.join(row['refs']).split())
    return float('nan') if row['test'] == 'odd' else len(shared) / 10
json.dump([{'image_id': row['image_id'], 'scores': {'All': {'f': score(row)}}}
           for row in rows[::-1]], open(answered, 'w'))
'''


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """With empty jars, and the program in Java's place."""
    (tmp_path / 'lib').mkdir()
    for name in ('spice-1.0.jar', *(f'lib/{name}' for name in spice.PARSER)):
        (tmp_path / name).touch()
    program = tmp_path / 'java'
    program.write_text(PROGRAM)
    program.chmod(0o755)
    monkeypatch.setattr(java_tools, 'find_java', lambda: str(program))
    return tmp_path


def test_missing_jars_are_named(folder):
    (folder / 'lib' / spice.PARSER[1]).unlink()
    with pytest.raises(InputError,
                       match=rf'SPICE needs {spice.PARSER[1]}, .*{spice.ADDRESS}.*{folder}/lib'):
        spice.find(folder)


def test_scores_stay_with_their_images(folder):
    references = {'b': ['a dog runs', 'the dog'], 7: ['a red boat'], 'x': ['a cat']}
    mean, each = spice.compute_score(
        references, {'x': ['odd'], 'b': ['the dog sits'], 7: ['a red red boat']}, folder)
    assert each == [0.2, 0.3, 0.0] and mean == pytest.approx(0.5 / 3)


def test_what_java_said_is_said(folder):
    with pytest.raises(InputError,
                       match='SPICE failed; it said: java.lang.Error: no memory .*--spice'):
        spice.compute_score({1: ['a']}, {1: ['fail']}, folder)


def test_a_scorer_asks_for_it(folder, monkeypatch):
    real = spice.find
    monkeypatch.setattr(spice, 'find', lambda unused=None: real(folder))
    tokens = iter([['a dog runs', 'the dog runs']])
    monkeypatch.setattr(java_tools, 'tokenize', lambda texts: next(tokens))
    with Scorer({3: ['A dog runs.']}) as scorer:
        assert scorer.score({3: 'the dog runs'}, ('SPICE',)) == {'SPICE': pytest.approx(0.2)}
