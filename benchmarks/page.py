"""How large the page of `evaluate.py --html` is and how quick in a headless Chromium.

    python evaluate.py RUN --split dev --beam-width 3 --n-best 3 --html DIR
    python -m benchmarks.page DIR --search dog

Prints medians with the smallest and largest of the rounds. A search or a sort counts until the
browser has drawn it.
"""

import argparse
import pathlib
import shutil
import statistics
import time

from core.common import terminal
from core.common.errors import InputError

PROGRAMS = ('chromium', 'chromium-browser', 'google-chrome')
READY = '''[...document.querySelectorAll(".card img")].slice(0, 10)
    .filter(image => image.complete && image.naturalWidth).length === 10'''
# The time that setting a control takes, until the next picture is drawn.
SET = '''async ([id, value]) => {
    const control = document.getElementById(id), began = performance.now();
    control.value = value;
    control.dispatchEvent(new Event('input', {bubbles: true}));
    document.body.offsetHeight;
    await new Promise(done => requestAnimationFrame(() => setTimeout(done, 0)));
    return performance.now() - began;
}'''


def size(directory, *parts):
    """Return the bytes of the files of a directory."""
    return sum(path.stat().st_size for path in directory.joinpath(*parts).rglob('*')
               if path.is_file())


def summary(values, digits=0):
    """Return 'median (smallest to largest)'."""
    median, low, high = statistics.median(values), min(values), max(values)
    return f'{median:.{digits}f} ({low:.{digits}f} to {high:.{digits}f})'


def measure(browser, address, word, rounds):
    """Return the rows of the table."""
    opened, searched, sorted_, shown = [], [], [], []
    for _ in range(rounds):
        context = browser.new_context(viewport={'width': 1400, 'height': 950})
        page = context.new_page()
        began = time.perf_counter()
        page.goto(address)
        page.wait_for_function(READY)
        opened.append(time.perf_counter() - began)
        searched += [page.evaluate(SET, ['search', text]) for text in (word, '')]
        sorted_ += [page.evaluate(SET, ['sort', name]) for name in ('CIDEr', 'METEOR')]
        began = time.perf_counter()
        page.locator('.card .photo').nth(3).click()
        page.locator('#view .word').first.wait_for()
        shown.append(time.perf_counter() - began)
        heap = page.evaluate('performance.memory.usedJSHeapSize')
        context.close()
    return [('open, until ten photos stand, s', summary(opened, 2)),
            (f'search "{word}" and back, ms', summary(searched)),
            ('sort, ms', summary(sorted_)),
            ('open one image, s', summary(shown, 2)),
            ('JavaScript memory', terminal.size_text(heap))]


def main():
    """Parse the arguments, measure and print."""
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('directory', metavar='DIR', type=pathlib.Path)
    parser.add_argument('--search', default='dog', metavar='WORD')
    parser.add_argument('--rounds', type=int, default=5)
    args = parser.parse_args()
    from playwright.sync_api import sync_playwright

    program = next(filter(None, map(shutil.which, PROGRAMS)), None)
    if program is None:
        raise InputError(f'needs a Chromium on PATH: {", ".join(PROGRAMS)}')
    with sync_playwright() as running:
        browser = running.chromium.launch(executable_path=program, args=['--no-sandbox'])
        rows = measure(browser, (args.directory / 'index.html').resolve().as_uri(), args.search,
                       args.rounds)
        browser.close()
    whole, photos, data = (terminal.size_text(size(args.directory, *parts))
                           for parts in ((), ('photos',), ('data',)))
    print(terminal.table([('size', whole), ('of which photos, data', f'{photos}, {data}'), *rows],
                         ['', '']))


if __name__ == '__main__':
    terminal.run(main)
