"""A headless Chromium for tests of pages; they skip where there is none."""

import contextlib
import io
import shutil

import numpy as np
import pytest
from PIL import Image

PROGRAMS = ('chromium', 'chromium-browser', 'google-chrome', 'google-chrome-stable')


@contextlib.contextmanager
def launched():
    """Give a playwright Browser."""
    playwright = pytest.importorskip('playwright.sync_api',
                                     reason='needs playwright (pip install playwright)')
    program = next(filter(None, map(shutil.which, PROGRAMS)), None)
    if program is None:
        pytest.skip(f'needs a Chromium on PATH: {", ".join(PROGRAMS)}')
    with playwright.sync_playwright() as running:
        browser = running.chromium.launch(executable_path=program, args=['--no-sandbox'])
        try:
            yield browser
        finally:
            browser.close()


@contextlib.contextmanager
def page(browser, address, expected_errors=(), **options):
    """Give a page at an address, still (reduced motion).

    It fails where the browser's console shows an error.

    Args:
        expected_errors: parts of messages that may be there. options: of playwright's new_context.
    """
    usual = {'reduced_motion': 'reduce', 'viewport': {'width': 1200, 'height': 900}}
    context = browser.new_context(**{**usual, **options})
    context.set_default_timeout(10_000)
    opened, errors = context.new_page(), []
    own = (address.partition('://')[0] + '://', 'data:', 'blob:')

    def on_console(message):
        if message.type in ('error', 'warning'):
            errors.append(message.text)

    def on_dialog(dialog):
        errors.append(f'dialog {dialog.message}')
        dialog.dismiss()

    def on_request(request):
        if '://' in request.url and not request.url.startswith(own):
            errors.append(f'asks {request.url}')

    opened.on('console', on_console)
    opened.on('pageerror', lambda error: errors.append(str(error)))
    opened.on('dialog', on_dialog)
    opened.on('request', on_request)
    try:
        opened.goto(address)
        yield opened
        unexpected = [error for error in errors
                      if not any(part in error for part in expected_errors)]
        assert unexpected == []
    finally:
        context.close()


def pixels(locator):
    """Return what an element looks like: (h, w, 3) uint8."""
    return np.asarray(Image.open(io.BytesIO(locator.screenshot())).convert('RGB'))


def scrolls_sideways(opened):
    """Return whether the page, or the dialog open on it, is wider than the window."""
    return opened.evaluate('''() => [
        document.documentElement, ...document.querySelectorAll('dialog[open]')]
        .some(element => element.scrollWidth > Math.min(innerWidth, element.clientWidth))''')
