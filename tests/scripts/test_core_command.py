"""The arguments of `python -m core`.

What its commands do is tested with core.importers and core.inference.
"""

import subprocess
import sys

import pytest

from core.__main__ import main
from core.common.errors import InputError
from tests.support.scripts import ROOT, assert_refused


def test_without_a_command_it_shows_help(capsys):
    assert main([]) is None
    printed = capsys.readouterr()
    assert 'export-tf1' in printed.out and 'import' in printed.out and 'examples:' in printed.out


@pytest.mark.parametrize(('arguments', 'part'), [
    (['improt'], 'improt'),
    (['import'], 'SOURCE, --out'),
    (['import', 'x', '--out', 'y', '--kind', 'tf3'], 'tf3'),
    (['import', 'x', '--out', 'y', '--max-length', 'long'], 'long'),
    (['import', 'x', '--out', 'y', '--data', 'd', '--layer', 'l'], 'leave --encoder, --layer'),
    (['export-tf1', 'x'], 'PREFIX'),
    (['export-tf1', 'nowhere', 'x'], 'nowhere: not a run'),
    (['pack'], 'RUN'),
    (['pack', 'nowhere'], 'nowhere: not a run'),
])
def test_wrong_arguments_are_one_error(tmp_path, monkeypatch, arguments, part):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match=part):
        main(arguments)
    assert list(tmp_path.iterdir()) == []


def test_as_a_program():
    command = [sys.executable, '-m', 'core', 'import', 'nowhere', '--vocab', 'v', '--out', 'o']
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, timeout=300)
    assert_refused(done, 'nowhere: not a TensorFlow checkpoint')
    assert not (ROOT / 'o').exists()
