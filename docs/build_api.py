#!/usr/bin/env python3
"""The API reference in docs/api, made of the docstrings of `core` by pdoc: `make docs`.

Every warning is an error.

The first page lists the rooms of `core` in the order of the data, each room's page its modules.
"""

import importlib
import inspect
import pathlib
import pkgutil
import shutil
import sys
import warnings

import pdoc

import core

# In the order of CONTRIBUTING.md's tree: what all need, then from photos to captions, then the
# command lines.
ROOMS = ('common', 'config', 'runtime', 'reference', 'datasets', 'download', 'encoders', 'data',
         'decoding', 'model', 'metrics', 'viewer', 'training', 'runs', 'importers', 'inference',
         'commands')


def modules_of(package):
    """Return the names of a package's public modules without its own, sorted."""
    return sorted(module.name for module in pkgutil.iter_modules(package.__path__)
                  if module.name[0] != '_')


def table(parent, names):
    """Return a Markdown table of modules below `parent` (str): name, first line of docstring."""
    lines = [inspect.getdoc(sys.modules[f'{parent}.{name}']).partition('\n')[0] for name in names]
    rows = [f'| `{parent}.{name}` | {line} |' for name, line in zip(names, lines, strict=True)]
    return '\n'.join(['', '', '| | |', '| --- | --- |', *rows])


def build(out):
    """Write the pages of all public modules of `core` into the directory `out`.

    Returns the modules' names.
    """
    if sorted(ROOMS) != modules_of(core):
        sys.exit(f'ROOMS in {__file__} are not those of core: '
                 f'{", ".join({*ROOMS} ^ {*modules_of(core)})}')
    names = ['core', *(module.name for module in pkgutil.walk_packages(core.__path__, 'core.')
                       if not any(part.startswith('_') for part in module.name.split('.')))]
    for name in names:  # first, as what libraries warn of at their import is not ours
        importlib.import_module(name)
    # pdoc would show what __all__ names and nothing else, and cannot see what is imported only when
    # it is asked for.
    for name in names:
        vars(sys.modules[name]).pop('__all__', None)
    for room in ROOMS:
        package = sys.modules[f'core.{room}']
        package.__doc__ = inspect.getdoc(package) + table(f'core.{room}', modules_of(package))
    core.__doc__ = inspect.getdoc(core) + table('core', ROOMS)
    core.__all__ = ROOMS  # their order beside the page
    pdoc.render.configure(docformat='google', footer_text=f'show-attend-tell {core.__version__}')
    shutil.rmtree(out, ignore_errors=True)
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        pdoc.pdoc('core', output_directory=out)
    missing = [name for name in names
               if not out.joinpath(*name.split('.')).with_suffix('.html').is_file()]
    if missing:
        sys.exit(f'no page was made for {", ".join(missing)}')
    return names


if __name__ == '__main__':
    target = pathlib.Path(__file__).parent / 'api'
    print(f'{len(build(target))} modules: {target / "index.html"}')
