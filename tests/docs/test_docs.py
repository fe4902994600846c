"""README, docs and docstrings: what they name exists, and their commands parse."""

import argparse
import ast
import functools
import importlib
import json
import re
import shlex
import tokenize

import pytest

from core.config import config
from tests.support.scripts import ROOT

PAGES = [*sorted(ROOT.glob('*.md')), *sorted((ROOT / 'docs').glob('*.md'))]
SCRIPTS = ('prepro', 'train', 'evaluate', 'caption')
# what their paths name is in the repository
ROOMS = ('core', 'tests', 'docs', 'benchmarks', 'data/recipes', '.ci')
OPTION = re.compile(r'(?<![\w-])(--[a-z][a-z-]*)')
FENCE = re.compile(r'^```(\w*)\n(.*?)^```', re.MULTILINE | re.DOTALL)
SETTINGS = {name for _, name, *_ in config.options()}
MADE = {'docs/api', 'docs/api/index.html'}  # by make docs


def code_of(page):
    """Return ([(language, text)] of the fenced blocks, list of inline code) of a page."""
    text = page.read_text(encoding='utf8')
    return FENCE.findall(text), re.findall(r'`([^`\n]+)`', FENCE.sub('', text))


def commands():
    """Return (page, command line) of every command of ours.

    They are those of shell blocks and of the scripts' own examples.
    """
    blocks = [(page.name, block) for page in PAGES for language, block in code_of(page)[0]
              if language in ('sh', 'bash')]
    blocks += [(f'{name}.py', importlib.import_module(f'core.commands.{name}').__doc__)
               for name in SCRIPTS]
    for where, block in blocks:
        for line in block.replace('\\\n', ' ').splitlines():
            for part in re.split(r'\s(?:\||&&|;|>)\s', line):
                if re.match(r'\s*(?:\S*python3? |sat-\w+ |\w+\.py )', part):
                    yield where, part.strip()


class Seen(Exception):
    """The exception that carries the parser of a script."""


@functools.cache
def parser(script):
    """Return the ArgumentParser of a script."""
    def stop(self, *unused):
        raise Seen(self)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(argparse.ArgumentParser, 'parse_known_args', stop)
        with pytest.raises(Seen) as seen:
            importlib.import_module(f'core.commands.{script}').arguments()
    return seen.value.args[0]


@functools.cache
def options_of(program):
    """Return the options of a script, or of a module that `python -m` runs: set of str."""
    if program in SCRIPTS:
        return {option for action in parser(program)._actions for option in action.option_strings}
    source = module_file(program).read_text(encoding='utf8')
    options = set(re.findall(r"add_argument\(\s*(?:'-\w', )?'(--[a-z-]+)'", source))
    if 'devices.add_arguments(' in source:
        options |= options_of_devices()
    return options | {'--help'}


@functools.cache
def options_of_devices():
    from core.runtime import machine_options

    empty = argparse.ArgumentParser()
    machine_options.add_arguments(empty, xla=('kernels', 'off'), features=True)
    return {option for action in empty._actions for option in action.option_strings}


def module_file(name):
    """Return the file of a module of ours by its dotted name; None if there is none."""
    path = ROOT.joinpath(*name.split('.'))
    files = [path / '__main__.py', path / '__init__.py', path.with_suffix('.py')]
    return next((file for file in files if file.is_file()), None)


def program_of(words):
    """Return the name of the script or module of ours that a command runs, and its arguments.

    (None, ()) for other programs.
    """
    words = list(words)
    while words and (re.fullmatch(r'(.*/)?python3?', words[0]) or words[0] in ('do', 'time')):
        words.pop(0)
    if len(words) > 1 and words[0] == '-m':
        return (words[1], words[2:]) if module_file(words[1].partition('.')[0]) else (None, ())
    if words and words[0].removesuffix('.py') in SCRIPTS and words[0].endswith('.py'):
        return words[0].removesuffix('.py'), words[1:]
    if words and words[0].removeprefix('sat-') in SCRIPTS:
        return words[0].removeprefix('sat-'), words[1:]
    return None, ()


def test_commands_are_taken_by_their_parsers(monkeypatch):
    """Each command is parsed as the script itself would do it.

    Where something is left out, its options are looked up.
    """
    monkeypatch.setenv('TF_CPP_MIN_LOG_LEVEL', '3')  # put back afterwards: a parser may set it
    wrong, n_parsed = [], 0
    for page, command in commands():
        program, arguments = program_of(shlex.split(command, comments=True))
        if program is None:
            continue
        if program not in SCRIPTS and not module_file(program):
            wrong.append(f'{page}: {command}: no module {program}')
            continue
        if program not in SCRIPTS or '...' in command:
            unknown = {word.partition('=')[0] for word in arguments
                       if word.startswith('--')} - options_of(program)
            wrong += [f'{page}: {command}: {option}' for option in unknown]
            continue
        monkeypatch.setattr('sys.argv', [f'{program}.py', *arguments])
        try:
            importlib.import_module(f'core.commands.{program}').arguments()
            n_parsed += 1
        except (Exception, SystemExit) as error:
            wrong.append(f'{page}: {command}: {error}')
    assert not wrong, '\n'.join(wrong)
    assert n_parsed > 20


def test_options_named_in_the_text_exist():
    """`script.py --option` must be that script's option.

    An option alone must be one of any program of ours.
    """
    everybody = set().union(*map(options_of, SCRIPTS), options_of_devices(), *(
        options_of('.'.join(path.relative_to(ROOT).with_suffix('').parts))
        for folder in ('core', 'benchmarks') for path in (ROOT / folder).rglob('*.py')))
    wrong = []
    for page in PAGES:
        for code in code_of(page)[1]:
            program, _ = program_of(code.split())
            if program is None and not code.startswith('--'):
                continue
            known = everybody if program is None else options_of(program)
            wrong += [f'{page.name}: `{code}`: {option}' for option in OPTION.findall(code)
                      if option not in known]
    assert not wrong, '\n'.join(wrong)


def test_names_given_to_set_are_options():
    wrong = [f'{page.name}: {name}' for page in PAGES
             for name in re.findall(r'--set (\w+)=', page.read_text(encoding='utf8'))
             if name not in SETTINGS | {'name'}]
    assert not wrong


def anchors(page):
    """Return the anchors of a page's headings, as the usual hosts make them."""
    headings = re.findall(r'^#+ +(.+)$', FENCE.sub('', page.read_text(encoding='utf8')),
                          re.MULTILINE)
    return {re.sub(r'[^\w\- ]', '', heading.lower()).strip().replace(' ', '-')
            for heading in headings}


def test_links_lead_somewhere():
    wrong, n_links = [], 0
    for page in PAGES:
        for target in re.findall(r'\]\(([^)\s]+)\)',
                                 FENCE.sub('', page.read_text(encoding='utf8'))):
            if re.match(r'[a-z]+:', target):
                continue
            n_links += 1
            path, _, anchor = target.partition('#')
            file = page.parent / path if path else page
            if not file.exists() or anchor and file.suffix == '.md' and anchor not in anchors(file):
                wrong.append(f'{page.name}: {target}')
    assert not wrong and n_links > 20, wrong


def test_paths_named_in_the_text_exist():
    wrong = []
    for page in PAGES:
        blocks, inline = code_of(page)
        for code in [*inline, *(text for _, text in blocks)]:
            for path in re.findall(r'(?<![\w./<-])[\w.{}*-]+(?:/[\w.{}*-]+)*', code):
                path = path.rstrip('.')
                named = path.startswith(tuple(f'{room}/' for room in ROOMS)) or (
                    '/' not in path and path.endswith(('.py', '.md')) and code == path)
                places = (ROOT, page.parent, ROOT / 'core')
                if (named and path not in MADE
                    and not any(list(place.glob(path)) for place in places)):
                    wrong.append(f'{page.name}: {path}')
    assert not wrong, '\n'.join(wrong)


# ---- the rooms, as CONTRIBUTING.md and the API reference show them

def test_the_tree_of_contributing_is_that_of_core():
    """The tree has the rooms in the order of `make docs`, and the contract of `make lint`."""
    tree, order = (text for language, text in code_of(ROOT / 'CONTRIBUTING.md')[0] if not language)
    shown = re.findall(r'^    (\w+)/ ', tree, re.MULTILINE)
    assert sorted(shown) == sorted(path.parent.name
                                   for path in (ROOT / 'core').glob('*/__init__.py'))
    source = (ROOT / 'docs' / 'build_api.py').read_text(encoding='utf8')
    [listed] = re.findall(r"^ROOMS = (\([^)]*\))", source, re.MULTILINE)
    assert shown == list(ast.literal_eval(listed))
    layers = (ROOT / '.importlinter').read_text(encoding='utf8').partition('layers =')[2]
    assert [set(re.findall(r'\w+', line)) for line in order.splitlines()] == [
        set(re.findall(r'\w+', line)) for line in layers.splitlines() if line.strip()]


def test_imports_of_the_tutorial_are_there():
    cells = json.loads((ROOT / 'docs' / 'tutorial.ipynb').read_text(encoding='utf8'))['cells']
    code = '\n'.join(''.join(cell['source']) for cell in cells if cell['cell_type'] == 'code')
    named = [f'{node.module}.{alias.name}' for node in ast.walk(ast.parse(code))
             if isinstance(node, ast.ImportFrom) and node.module.startswith('core')
             for alias in node.names]
    assert [name for name in named if not resolves(name)] == [] and len(named) > 10


# ---- docstrings; that there is one everywhere is ruff's to see

@functools.cache
def modules():
    """Return the syntax trees of all of core by module name."""
    trees = {}
    for path in sorted((ROOT / 'core').rglob('*.py')):
        parts = path.relative_to(ROOT).with_suffix('').parts
        with tokenize.open(path) as file:
            trees['.'.join(parts[:-1] if parts[-1] == '__init__'
                           else parts)] = ast.parse(file.read())
    return trees


@functools.cache
def names_in(module):
    """Return the names that a module has: set of 'name' and 'Class.member'."""
    names = set()

    def visit(body, prefix=''):
        for node in body:
            if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
                names.add(prefix + node.name)
                if isinstance(node, ast.ClassDef):
                    visit(node.body, f'{node.name}.')
                    for inner in ast.walk(node):  # attributes set in methods
                        if isinstance(inner, ast.Attribute) and isinstance(inner.ctx, ast.Store):
                            names.add(f'{node.name}.{inner.attr}')
            elif isinstance(node, (ast.Import, ast.ImportFrom)):
                names.update(alias.asname or alias.name for alias in node.names)
            else:
                names.update(prefix + inner.id for inner in ast.walk(node)
                             if isinstance(inner, ast.Name) and isinstance(inner.ctx, ast.Store))

    tree = modules()[module]
    visit(tree.body)
    for node in tree.body:  # what a room hands on when it is asked for it
        if isinstance(node, ast.Assign) and getattr(node.targets[0], 'id', '') == '__all__':
            names.update(ast.literal_eval(node.value))
    return names


def resolves(dotted):
    """Return whether core.module.Name.member exists."""
    parts = dotted.split('.')
    for n in range(len(parts), 0, -1):
        module = '.'.join(parts[:n])
        if module in modules():
            rest = parts[n:]
            return not rest or '.'.join(rest[:2]) in names_in(module)
    return False


def test_names_of_core_in_docs_and_docstrings_exist():
    texts = {page.name: page.read_text(encoding='utf8') for page in PAGES}
    for module, tree in modules().items():
        texts[module] = '\n'.join(ast.get_docstring(node) or '' for node in ast.walk(tree)
                                  if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef)))
    wrong, n_names = [], 0
    for where, text in texts.items():
        for name in re.findall(r'(?<![\w./])core(?:\.\w+)+', text):
            n_names += 1
            if not resolves(name) and not name.endswith('.py'):
                wrong.append(f'{where}: {name}')
        for module, names in re.findall(r'^\s*from (core[\w.]*) import ([\w, ]+)$', text,
                                        re.MULTILINE):
            wrong += [f'{where}: {module}.{name}' for name in re.split(r', *', names)
                      if not resolves(f'{module}.{name.split()[0]}')]
    assert not wrong and n_names > 50, '\n'.join(wrong)


def documented(docstring):
    """Return the names at the beginnings of lines of a docstring's Args section: list of str."""
    section = re.search(r'^Args:\n((?:(?: +.*)?\n?)*)', docstring, re.MULTILINE)
    lines = section[1].splitlines() if section else []
    matches = [re.match(r' {4}([\w*]+(?:, [\w*]+)*): ', line) for line in lines]
    return [name.lstrip('*') for match in matches if match for name in match[1].split(', ')]


def parameters(node):
    """Return the parameters of a function or a class; None for a base class's."""
    if isinstance(node, ast.ClassDef):
        constructor = next((inner for inner in node.body if isinstance(inner, ast.FunctionDef)
                            and inner.name == '__init__'), None)
        if constructor is None:
            fields = {inner.target.id for inner in node.body if isinstance(inner, ast.AnnAssign)}
            return fields or None
        node = constructor
    args = node.args
    return {arg.arg for arg in [*args.posonlyargs, *args.args, *args.kwonlyargs, args.vararg,
                                args.kwarg] if arg}


def test_documented_arguments_are_arguments():
    wrong, n_names = [], 0
    for module, tree in modules().items():
        for node in ast.walk(tree):
            if not isinstance(node, (ast.ClassDef, ast.FunctionDef)):
                continue
            named, taken = documented(ast.get_docstring(node) or ''), parameters(node)
            n_names += len(named)
            if taken is not None:
                wrong += [f'{module}: {node.name}: {name}' for name in named if name not in taken]
    assert not wrong and n_names > 300, (n_names, wrong)
