#!/usr/bin/env python3
"""The API reference in docs/api, made of the docstrings of `core` by pdoc: `make docs`. Every warning is an error."""

import importlib
import pathlib
import pkgutil
import shutil
import sys
import warnings

import pdoc

import core


def build(out):
    """Write the pages of all public modules of `core` into the directory `out`; returns the modules' names."""
    names = ['core', *(module.name for module in pkgutil.walk_packages(core.__path__, 'core.')
                       if not any(part.startswith('_') for part in module.name.split('.')))]
    for name in names:  # first, as what libraries warn of at their import is not ours
        importlib.import_module(name)
    # pdoc would show what __all__ names and nothing else, and cannot see what is imported only when it is asked for.
    for name in names:
        vars(sys.modules[name]).pop('__all__', None)
    pdoc.render.configure(docformat='google', footer_text=f'show-attend-tell {core.__version__}')
    shutil.rmtree(out, ignore_errors=True)
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        pdoc.pdoc('core', output_directory=out)
    missing = [name for name in names if not out.joinpath(*name.split('.')).with_suffix('.html').is_file()]
    if missing:
        sys.exit(f'no page was made for {", ".join(missing)}')
    return names


if __name__ == '__main__':
    target = pathlib.Path(__file__).parent / 'api'
    print(f'{len(build(target))} modules: {target / "index.html"}')
