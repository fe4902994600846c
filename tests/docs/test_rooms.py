"""The rooms of core/: few files each, names that mean one thing, the order of imports."""

import collections
import pathlib
import subprocess
import sys

import pytest

from tests.support.scripts import ROOT

ROOMS = sorted(path.parent for path in (ROOT / 'core').glob('*/__init__.py'))
FILES = sorted((ROOT / 'core').rglob('*.py'))


@pytest.mark.parametrize('room', ROOMS, ids=lambda room: room.name)
def test_a_room_has_three_to_ten_files_and_says_what_it_owns(room):
    assert 3 <= len(list(room.glob('*.py'))) <= 10
    head = (room / '__init__.py').read_text(encoding='utf8')
    assert head.startswith('"""') and len(head.splitlines()) <= 20


def test_names_of_files_are_there_once_and_shadow_nothing():
    names = collections.Counter(path.stem for path in FILES if path.stem != '__init__')
    assert [name for name, uses in names.items() if uses > 1] == []
    assert [name for name in {*names, *(room.name for room in ROOMS)} - {'__main__'}
            if name in sys.stdlib_module_names] == []


def test_no_file_is_longer_than_400_lines():
    files = [*FILES, *(ROOT / 'tests').rglob('*.py'), *(ROOT / 'benchmarks').rglob('*.py')]
    lines = {str(path.relative_to(ROOT)): len(path.read_text(encoding='utf8').splitlines())
             for path in files}
    assert {path: n for path, n in lines.items() if n > 400} == {}


def test_tests_mirror_the_rooms():
    """A folder of tests for each room, and no test that imports a test."""
    # commands are tested in tests/scripts, the reference is what the tests of the model compare
    # with.
    folders = {path.name for path in (ROOT / 'tests').iterdir()}
    assert {room.name for room in ROOMS} - {'commands', 'reference'} <= folders
    for path in (ROOT / 'tests').rglob('*.py'):
        text = path.read_text(encoding='utf8')
        assert ('import test_' not in text.replace("'import test_'", '')
                and '.test_' not in ''.join(line for line in text.splitlines()
                                            if line.startswith(('from tests',
                                                                'import tests')))), path
    for path in (ROOT / 'benchmarks').rglob('*.py'):
        assert 'from tests' not in path.read_text(encoding='utf8'), path


def lint(place):
    program = pathlib.Path(sys.executable).with_name('lint-imports')
    if not program.exists():
        pytest.skip('import-linter is not installed')
    return subprocess.run([program, '--no-logo', '--no-cache'], cwd=place, capture_output=True,
                          text=True, env={'PYTHONPATH': str(place), 'PATH': ''})


@pytest.mark.parametrize(('planted', 'said'), [
    ({}, '1 kept, 0 broken'),
    ({'common': 'import core.common.low',
      'common/low': 'def f():\n    from core.data import high', 'data/high': ''},
     'core.common is not allowed to import core.data'),  # upward, and inside a function
    ({'data/a': 'import core.encoders.b', 'encoders/b': 'import core.data.a'},
     'core.encoders is not allowed to import core.data'),  # a circle
])
def test_the_order_of_imports_is_checked(tmp_path, planted, said):
    """In a package of empty rooms with the contract of this one."""
    (tmp_path / '.importlinter').write_text((ROOT / '.importlinter').read_text(encoding='utf8'),
                                            encoding='utf8')
    (tmp_path / 'core').mkdir()
    (tmp_path / 'core' / '__init__.py').touch()
    (tmp_path / 'core' / '__main__.py').touch()
    for room in ROOMS:
        (tmp_path / 'core' / room.name).mkdir()
        (tmp_path / 'core' / room.name / '__init__.py').touch()
    for name, text in planted.items():
        path = tmp_path / 'core' / (f'{name}.py' if '/' in name else f'{name}/__init__.py')
        path.write_text(text)
    done = lint(tmp_path)
    assert (said in done.stdout
            and (done.returncode == 0) == (not planted)), done.stdout + done.stderr
