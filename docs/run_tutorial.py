#!/usr/bin/env python3
"""The run of docs/tutorial.ipynb that keeps its outputs in it: `make tutorial`.

    python docs/run_tutorial.py [OUT.ipynb]      # OUT: write there instead

A cell that fails ends it, and nothing is written.
"""

import pathlib
import sys

import nbformat
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError

from core.common.files import replacing

NOTEBOOK = pathlib.Path(__file__).resolve().parent / 'tutorial.ipynb'


def run(notebook, directory):
    """Execute the cells of a notebook (NotebookNode) in a new kernel; return the notebook.

    The kernel works in `directory`.
    """
    client = NotebookClient(notebook, timeout=1200, kernel_name='python3', coalesce_streams=True,
                            record_timing=False, resources={'metadata': {'path': str(directory)}})
    client.execute()
    # not the version, which is another on every machine
    notebook.metadata['language_info'] = {'name': 'python'}
    return notebook


def main():
    """Run the notebook and save it."""
    out = pathlib.Path(sys.argv[1]) if len(sys.argv) > 1 else NOTEBOOK
    try:
        notebook = run(nbformat.read(NOTEBOOK, as_version=4), NOTEBOOK.parent)
    except CellExecutionError as error:
        sys.exit(f'{NOTEBOOK}: {error}')
    with replacing(out, 'w') as file:
        nbformat.write(notebook, file)
    print(f'{out}: {sum(cell.cell_type == "code" for cell in notebook.cells)} cells were run')


if __name__ == '__main__':
    main()
