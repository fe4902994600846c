"""The house rule of core/model and core/decoding: every tensor that a name hands on has its shape.

Each file has the legend of its letters; each field of a NamedTuple and each public argument that is
a tensor has a shape (or `scalar`, `nest`) beside its name in a docstring.
"""

import ast
import re

import pytest

from tests.support.scripts import ROOT

FILES = [path for room in ('model', 'decoding')
         for path in sorted((ROOT / 'core' / room).glob('*.py')) if path.name != '__init__.py']


def has_shape(name, text):
    """Return whether `text` tells a shape: `name (R, L)`, `name: (R, L)`, `a, name: scalar`."""
    told = (r'`?(?:, `?\w+`?)*(?: and \w+)?:?\s+(?:[a-z]+ ?\(?[\w ]{0,20}\)?[ ,:]*)?'
            r'(?:\(|scalars?\b|nest\b|TensorArray|parts \()')
    return re.search(rf'\b{name}\b{told}', text) is not None


def tensors_without_shape(tree):
    """Return the fields and arguments without a shape in a docstring, as 'where: name'."""
    wrong = []

    def visit(node, of_class, public):
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.ClassDef):
                text = ast.get_docstring(child) or ''
                if 'NamedTuple' in map(ast.unparse, child.bases):
                    fields = [field for field in child.body if isinstance(field, ast.AnnAssign)]
                    wrong.extend(f'{child.name}: {field.target.id}' for field in fields
                                 if is_tensor(field.annotation)
                                 and not has_shape(field.target.id, text))
                visit(child, text, public and not child.name.startswith('_'))
            elif isinstance(child, ast.FunctionDef) and public and (
                    not child.name.startswith('_') or child.name in ('__init__', '__call__')):
                text = (ast.get_docstring(child) or '') + '\n' + of_class
                arguments = [*child.args.args, *child.args.kwonlyargs]
                wrong.extend(f'{child.name}: {argument.arg}' for argument in arguments
                             if argument.arg != 't'  # the step, a scalar everywhere
                             and argument.annotation is not None and is_tensor(argument.annotation)
                             and not has_shape(argument.arg, text))

    visit(tree, '', True)
    return wrong


def is_tensor(annotation):
    return ast.unparse(annotation).strip("'") in ('Tensor', 'Tensor | None')


@pytest.mark.parametrize('path', FILES, ids=lambda path: f'{path.parent.name}/{path.stem}')
def test_every_tensor_has_its_shape_and_every_file_its_legend(path):
    tree = ast.parse(path.read_text(encoding='utf8'))
    assert 'Letters in shapes' in ast.get_docstring(tree)
    assert tensors_without_shape(tree) == []


def test_what_is_missing_is_found():
    tree = ast.parse('class A(NamedTuple):\n    """A.\n\n    Attributes:\n'
                     '        x: (R, L).\n    """\n    x: Tensor\n    y: Tensor\n\n\n'
                     'def f(h: Tensor, c: Tensor, z: Tensor):\n    """Mix h (R, H) and c."""\n')
    assert tensors_without_shape(tree) == ['A: y', 'f: c', 'f: z']
