"""The server of caption.py --serve: its answers over HTTP, and its page in a real browser."""

import base64
import concurrent.futures
import http.client
import io
import json
import pathlib
import re
import signal
import subprocess
import sys
import threading

import numpy as np
import pytest
import waitress
from PIL import Image

from core.inference import server
from core.inference.captioner import Captioner
from tests.support import headless_chromium
from tests.support.scripts import ROOT
from tests.support.tolerances import assert_same_record


@pytest.fixture(scope='module')
def captioner(sample_run):
    with Captioner.load(sample_run, n_best=2, max_len=6) as opened:
        yield opened


@pytest.fixture(scope='module')
def port(captioner):
    """Yield the port of a server in a thread."""
    application = server.Application(captioner, ('127.0.0.1', 'localhost'))
    made = waitress.create_server(application, port=0, threads=server.THREADS, host='127.0.0.1')
    thread = threading.Thread(target=made.run, daemon=True)
    thread.start()
    yield made.effective_port
    made.close()
    application.close()


def ask(port, method='POST', path='/caption?photo=0', body=None, headers=None):
    """Return (status, JSON, headers)."""
    connection = http.client.HTTPConnection('127.0.0.1', port, timeout=60)
    connection.request(method, path, body, headers or {})
    answer = connection.getresponse()
    said = answer.read()
    connection.close()
    if answer.headers['Content-Type'] == 'application/json':
        said = json.loads(said)
    return answer.status, said, answer.headers


def form(*files):
    """Return (body, headers) of a form with (field, name, bytes)."""
    head = '--line\r\nContent-Disposition: form-data; name="{}"; filename="{}"\r\n\r\n'
    parts = [head.format(field, name).encode() + data + b'\r\n' for field, name, data in files]
    body = b''.join([*parts, b'--line--\r\n'])
    return body, {'Content-Type': 'multipart/form-data; boundary=line'}


def test_a_photo_as_the_body(port, captioner, scene_photos):
    status, answer, _ = ask(port, path='/caption?name=a%20b&photo=0',
                            body=scene_photos[0].read_bytes())
    expected = next(captioner.stream([('a b', scene_photos[0])])).to_dict()
    result, = answer['results']
    captions = result.pop('captions'), expected.pop('captions')
    assert status == 200 and result == expected and answer.keys() == {'results'}
    for got, one in zip(*captions, strict=True):
        assert_same_record(got, one)
    _, answer, _ = ask(port, path='/caption', body=scene_photos[0].read_bytes())
    kind, _, encoded = answer['results'][0]['photo'].partition(';base64,')
    view = Image.open(io.BytesIO(base64.b64decode(encoded)))
    assert kind == 'data:image/jpeg' and max(view.size) == server.VIEW_SIDE
    np.testing.assert_allclose(np.asarray(view, float),
                               captioner(scene_photos[0])[0].view(server.VIEW_SIDE), atol=60)


def test_photos_of_a_form_each_with_its_answer(port, captioner, scene_photos):
    status, answer, _ = ask(port, 'POST', '/caption?photo=0', *form(
        ('photo', 'x.png', scene_photos[0].read_bytes()), ('photo', 'no.png', b'nothing'),
        ('photo', '<b>.png', scene_photos[1].read_bytes())))
    assert status == 200
    first, wrong, last = answer['results']
    assert first['caption'] == captioner(scene_photos[0])[0].caption and last['image'] == '<b>.png'
    assert set(wrong) == {'image', 'error'} and 'no.png: not an image' in wrong['error']


def test_many_clients_get_the_answers_to_their_own_photos(port, captioner, scene_photos):
    expected = {path: captioner(path)[0].to_dict()['captions'] for path in scene_photos}
    wanted = scene_photos * 4
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        for path, (status, answer, _) in zip(wanted, pool.map(
                lambda path: ask(port, body=path.read_bytes()), wanted), strict=True):
            assert status == 200
            for got, one in zip(answer['results'][0]['captions'], expected[path], strict=True):
                assert_same_record(got, one)


def png(width, height):
    buffer = io.BytesIO()
    Image.new('1', (width, height)).save(buffer, 'PNG')
    return buffer.getvalue()


@pytest.mark.parametrize(('method', 'path', 'body', 'headers', 'status', 'part'), [
    ('POST', '/caption', None, {}, 400, 'no photo'),
    ('POST', '/caption', b'GIF89a', {}, 415, 'cannot read image photo'),
    ('POST', '/caption', b'plain text', {}, 415, 'not an image .* are understood'),
    ('POST', '/caption', png(10_000, 6_001), {}, 415, 'its 60,010,000 pixels are more than '
     '60,000,000'), ('POST', '/caption', *form(('other', 'a.png', b'x')), 400, 'field named photo'),
    ('POST', '/caption', *form(*[('photo', 'a.png', b'x')] * 17), 413,
     '17 photos at once; at most 16'), ('POST', '/caption', b'0' * 25_000_001, {}, 413,
                                        'more than 25 MB'),
    ('POST', '/caption', b'x', {'Origin': 'http://elsewhere.example'}, 403, 'elsewhere.example'),
    ('POST', '/caption', b'x', {'Sec-Fetch-Site': 'cross-site'}, 403, 'other sites may not'),
    ('GET', '/', None, {'Host': 'rebound.example'}, 403, '127.0.0.1, localhost only'),
    ('GET', '/caption', None, {}, 405, 'takes POST'), ('POST', '/', b'', {}, 405, 'takes GET'),
    ('GET', '/../caption.py', None, {}, 404, 'there is no')])
def test_what_is_refused_says_why(port, method, path, body, headers, status, part):
    found, answer, sent = ask(port, method, path, body, headers)
    assert found == status and re.search(part, answer['error'])
    assert sent['X-Content-Type-Options'] == 'nosniff'
    assert "default-src 'self'" in sent['Content-Security-Policy']


def test_the_page_of_the_same_origin_and_what_is_served(sample_run, port, captioner):
    status, about, _ = ask(port, 'GET', '/about', headers={'Origin': f'http://127.0.0.1:{port}'})
    assert status == 200 and (about['n_best'], about['beam_width']) == (2, 2)
    assert about['run'] == pathlib.Path(sample_run).name and about['step'] == captioner.step
    for path, (_, kind) in server.PAGES.items():
        status, _, headers = ask(port, 'GET', path)
        assert status == 200 and headers['Content-Type'].startswith(kind)


def test_too_many_are_turned_away_and_an_error_reaches_those_who_wait():
    blocked, sizes = threading.Event(), []

    def decode(pixels):
        sizes.append(len(pixels))
        blocked.wait(60)
        if 13 in pixels:
            raise RuntimeError('broken')
        return [int(one.max()) for one in pixels]

    batcher = server.Batcher(decode, batch_size=4, max_waiting=6)
    first = batcher.submit(np.full((1, 1, 3), 1, np.uint8))
    while not sizes:  # it is being decoded, and waits no more
        pass
    waiting = [batcher.submit(np.full((1, 1, 3), value, np.uint8)) for value in (2, 3, 4, 5, 13, 6)]
    with pytest.raises(server.Refused, match='6 photos are waiting'):
        batcher.submit(np.zeros((1, 1, 3), np.uint8))
    blocked.set()
    assert [future.result(60) for future in (first, *waiting[:4])] == [1, 2, 3, 4, 5]
    for future in waiting[4:]:
        with pytest.raises(RuntimeError, match='broken'):
            future.result(60)
    assert batcher.submit(np.full((1, 1, 3), 9, np.uint8)).result(60) == 9  # it goes on
    batcher.close()
    assert sizes == [1, 4, 2, 1]


# ---- as a user runs it

@pytest.fixture(scope='module')
def address(sample_run, tmp_path_factory):
    """Yield the address of caption.py --serve, ended by Ctrl-C."""
    code = ('import signal, sys; signal.signal(signal.SIGINT, signal.default_int_handler)\n'
            f'sys.path.insert(0, {str(ROOT)!r}); sys.argv[0] = "caption.py"\n'
            'from core.commands import caption; caption.cli()')
    process = subprocess.Popen([sys.executable, '-c', code, sample_run, '--serve', '--port', '0',
                                '--n-best', '2'], stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                               text=True, cwd=tmp_path_factory.mktemp('serve'))
    match = re.search(r'http://127\.0\.0\.1:\d+/', process.stdout.readline())
    assert match, process.stderr.read()
    yield match[0]
    process.send_signal(signal.SIGINT)
    rest, errors = process.communicate(timeout=60)
    assert (process.returncode, rest, errors) == (0, 'ended\n', '')


@pytest.fixture(scope='module')
def browser():
    with headless_chromium.launched() as opened:
        yield opened


DROP = '''([name, data]) => {
    const bytes = Uint8Array.from(atob(data), letter => letter.charCodeAt(0));
    const moved = new DataTransfer();
    moved.items.add(new File([bytes], name, {type: 'image/png'}));
    window.dispatchEvent(new %s);
}'''


def send(page, path, how):

    event = {'drop': "DragEvent('drop', {dataTransfer: moved, cancelable: true})",
             'paste': "ClipboardEvent('paste', {clipboardData: moved})"}[how]
    page.evaluate(DROP % event, [path.name, base64.b64encode(path.read_bytes()).decode()])


def test_drop_read_and_step_through_the_words(browser, address, scene_photos, tmp_path):
    """Drop, paste and choice; words change the overlay; by keyboard; at phone width."""
    odd = tmp_path / '<img src=x onerror=alert(1)>.png'
    odd.write_bytes(scene_photos[1].read_bytes())
    (tmp_path / 'no.png').write_bytes(b'no image')
    for options in ({'color_scheme': 'light'},
                    {'color_scheme': 'dark', 'viewport': {'width': 360, 'height': 740}}):
        with headless_chromium.page(browser, address, **options) as page:
            page.locator('#limits:not(:empty)').wait_for()
            send(page, scene_photos[0], 'drop')
            result = page.locator('article').first
            result.locator('.word').first.wait_for()
            assert result.locator('.candidate').count() == 2
            frame = result.locator('.frame')
            seen = [headless_chromium.pixels(frame)]
            page.locator('article .attention').first.focus()
            for _ in range(2):
                page.keyboard.press('ArrowRight')
                seen.append(headless_chromium.pixels(frame))
            assert (np.abs(seen[1].astype(int) - seen[0]) > 20).mean() > 0.1
            lit = result.locator('.word.lit')
            assert lit.count() == 1 and lit.inner_text() == result.locator('.shown').inner_text()
            send(page, odd, 'paste')
            page.set_input_files('#choose', [scene_photos[2], tmp_path / 'no.png'])
            page.locator('article .notice').wait_for()
            page.locator('article .word').first.wait_for()
            assert page.locator('h2', has_text='<img src=x').count() == 1
            assert 'no.png: not an image' in page.locator('article .notice').inner_text()
            page.locator('#status:empty').wait_for(state='attached')
            assert page.locator('article').count() == 4
            assert page.locator('article .sentence').count() == 3
            page.locator('article', has=page.locator('.notice')).get_by_role('button').click()
            assert page.locator('article').count() == 3
            assert not headless_chromium.scrolls_sideways(page)


def test_two_browsers_at_once(browser, address, scene_photos):
    with headless_chromium.page(browser, address) as one, headless_chromium.page(browser,
                                                                                 address) as two:
        for page in (one, two):
            page.set_input_files('#choose', scene_photos[:5])
        for page in (one, two):
            page.locator('article .sentence').nth(4).wait_for()
        for path in scene_photos[:5]:
            texts = [page.locator(f'article[aria-label="{path.name}"] .sentence').inner_text()
                     for page in (one, two)]
            assert texts[0] == texts[1] != ''


def test_a_port_in_use_is_said(captioner, port):
    with pytest.raises(server.InputError, match=f'--port {port}.*--port 0'):
        server.serve(captioner, port=port, say=lambda *args, **options: None)
