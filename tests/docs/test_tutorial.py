"""What is saved in docs/tutorial.ipynb.

`make tutorial` runs it, and so does CI; its asserts are its tests.
"""

import base64
import re

import nbformat

from tests.support.scripts import ROOT

NOTEBOOK = ROOT / 'docs' / 'tutorial.ipynb'
PATHS = re.compile(r'/(?:tmp|home|root|work|Users|var|usr)/|\.venv')
CHATTER = re.compile(r'WARNING|Warning|INFO:|oneDNN|cuda|E0000|Traceback', re.IGNORECASE)


def code_cells(path):
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    return [cell for cell in notebook.cells if cell.cell_type == 'code']


def printed(cells):
    """Return all that the cells printed."""
    return ''.join(output.text for cell in cells for output in cell.outputs
                   if output.output_type == 'stream')


def check_notebook(path):
    """Assert that a notebook is as a reader should find it.

    That is run from its beginning, all there, nothing that is not theirs.
    """
    cells = code_cells(path)
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1))
    outputs = [output for cell in cells for output in cell.outputs]
    assert {output.output_type for output in outputs} <= {'stream', 'display_data',
                                                          'execute_result'}
    assert {output.name for output in outputs if output.output_type == 'stream'} == {'stdout'}
    text = printed(cells)
    written = [text, *(cell.source for cell in cells),
               *(output.get('data', {}).get('text/plain', '') for output in outputs)]
    assert not PATHS.search('\n'.join(written)) and not CHATTER.search(text)
    pictures = [output.data['image/png'] for output in outputs
                if 'image/png' in output.get('data', {})]
    assert len(pictures) == 4
    assert all(base64.b64decode(picture).startswith(b'\x89PNG') and len(picture) > 10000
               for picture in pictures)
    for part in ('logits/w_ctx2out', 'beta 0.', 'regulariser =', 'soft attention',
                 'hard, likeliest place', 'distinct captions', 'validation after epoch 5',
                 'baseline = mean reward'):
        assert part in text, part
    assert path.stat().st_size < 2_000_000


def test_saved_outputs():
    check_notebook(NOTEBOOK)


def test_every_equation_is_told():
    cells = nbformat.read(NOTEBOOK, as_version=4).cells
    told = '\n'.join(cell.source for cell in cells if cell.cell_type == 'markdown')
    assert set(map(int, re.findall(r'\\tag\{(\d+)\}', told))) == set(range(1, 11)) - {6}
    assert all(part in told for part in (
        '(eq. 6)', '(eq. 14)', '4.2.1', 'initial_state=relu', 'eq. 11 and 12'))
    checks = sum(len(re.findall(r'^\s*(?:assert|np\.testing)', cell.source, re.MULTILINE))
                 for cell in cells)
    assert checks >= 20
