"""What a person meets on the page of evaluate.py --html, in a real Chromium."""

import functools
import re
import shutil

import numpy as np
import pytest

from core.viewer import attention_pictures, caption_record, gallery
from tests.support import headless_chromium, sample_gallery
from tests.support.sample_gallery import CAPTIONS, GREY, GRID, HOSTILE, caption, record, records


@pytest.fixture(scope='module')
def written(tmp_path_factory):
    place = tmp_path_factory.mktemp('pages') / 'a page #1 %20'
    assert sample_gallery.write(place) == ['1 of 6 photos are not on the page, for example: 1.jpg: '
                                           'gone']
    return place


@pytest.fixture(scope='module')
def chromium():
    with headless_chromium.launched() as opened:
        yield opened


@pytest.fixture(scope='module')
def visit(chromium, written):
    return functools.partial(headless_chromium.page, chromium, (written / 'index.html').as_uri())


def card(opened, number):
    return opened.locator('.card').filter(has=opened.locator(f'a[href="#{number}"]'))


def names(opened):
    return [int(link.get_attribute('href')[1:]) for link in opened.locator('.photo').all()]


def still(opened, frame):
    opened.wait_for_function('frame => frame.querySelector("canvas").dataset.state === "still"',
                             arg=frame.element_handle())
    return headless_chromium.pixels(frame)


def assert_lit(seen, alpha):
    """The pixels are those of the attention pictures; rounded corners aside."""
    flat = np.full(seen.shape, 180, np.uint8)
    expected = attention_pictures.light(flat,
                                        attention_pictures.smooth(alpha, GRID, seen.shape[:2]))
    difference = np.abs(seen.astype(int) - expected)[12:-12, 12:-12]
    assert difference.max() <= 5, difference.max()


# ---- what is looked at

def test_arrow_keys_light_the_places_of_words(visit):
    words = caption(CAPTIONS[0])
    with visit() as opened:
        card(opened, 0).locator('.photo').click()
        frame = opened.locator('.frame')
        assert (still(opened, frame)[20:-20, 20:-20] >= 178).all()
        for t, word in enumerate(words.words):
            opened.keyboard.press('ArrowRight')
            assert_lit(still(opened, frame), words.alphas[t])
            assert opened.evaluate('document.activeElement.textContent') == word
            readout = opened.locator('.readout').inner_text()
            assert [word, f'{words.probabilities[t]:.2f}', f'{words.betas[t]:.2f}'] == [
                part for part in readout.split() if part == word or part[:1].isdigit()]
        for key, t in (('ArrowRight', 3), ('Home', 0), ('End', 3), ('ArrowLeft', 2)):
            opened.keyboard.press(key)
            assert_lit(still(opened, frame), words.alphas[t])
        opened.keyboard.press('Home')
        opened.keyboard.press('ArrowLeft')
        assert (still(opened, frame)[20:-20, 20:-20] >= 178).all()


def test_light_moves_and_arrives_where_motion_is_welcome(visit):
    with visit(reduced_motion='no-preference') as opened:
        card(opened, 0).locator('.photo').click()
        # Watched from inside the page: on a busy machine the light arrives before it is asked.
        opened.evaluate('''() => {
            window.states = [];
            const watch = () => document.querySelectorAll('.frame canvas').forEach(
                canvas => window.states.push(canvas.dataset.state));
            new MutationObserver(watch).observe(document.querySelector('.frame'), {
                subtree: true, childList: true, attributeFilter: ['data-state']});
        }''')
        opened.keyboard.press('ArrowRight')
        opened.wait_for_function('window.states.at(-1) === "still"')
        assert opened.evaluate('window.states[0]') == 'moving'
        assert_lit(still(opened, opened.locator('.frame')), caption(CAPTIONS[0]).alphas[0])
        opened.keyboard.press('p')
        opened.wait_for_function('document.querySelectorAll(".word")[2].classList.contains("lit")')
        opened.keyboard.press('p')
        assert opened.locator('.play').inner_text() == 'Play'


def test_hovering_over_words_and_leaving(visit):
    alphas = caption(CAPTIONS[0]).alphas
    with visit() as opened:
        words = card(opened, 0).locator('.caption span')
        words.nth(2).hover()
        holder = card(opened, 0).locator('.holder')
        assert_lit(still(opened, holder), alphas[2])
        opened.mouse.move(2, 2)
        opened.wait_for_function('!document.querySelector(".photo canvas")')

        card(opened, 0).locator('.photo').click()
        opened.keyboard.press('ArrowRight')
        opened.locator('.word').nth(3).hover()
        assert_lit(still(opened, opened.locator('.frame')), alphas[3])
        opened.locator('.readout').hover()
        assert_lit(still(opened, opened.locator('.frame')), alphas[0])


def test_a_word_of_a_card_opens_lit_and_the_photo_puts_it_out(visit):
    with visit() as opened:
        card(opened, 0).locator('.caption span').nth(1).click()
        assert opened.locator('.word.lit').inner_text() == 'black'
        opened.locator('.frame').click()
        assert opened.locator('.word.lit').count() == 0


def test_other_captions(visit):
    with visit() as opened:
        card(opened, 0).locator('.photo').click()
        opened.keyboard.press('End')
        opened.keyboard.press('ArrowDown')
        assert opened.locator('.sentence').inner_text().split() == [
            'maybe', *CAPTIONS[0].split(), '…']
        assert_lit(still(opened, opened.locator('.frame')),
                   caption('maybe ' + CAPTIONS[0], 1).alphas[3])
        assert opened.locator('.candidate').nth(1).inner_text().split()[-1] == '−2.25'
        opened.locator('.candidate').first.click()
        assert opened.locator('.sentence').inner_text().split() == CAPTIONS[0].split()
        assert opened.locator('.candidate[aria-pressed=true]').count() == 1


def test_boxes_and_drawn_locations(visit):
    with visit() as opened:
        card(opened, 2).locator('.photo').click()
        for t in range(3):
            opened.keyboard.press('ArrowRight')
            assert opened.locator('.marks .box').count() == (t in (1, 2)), t
            assert opened.locator('.marks .location').count() == 0
        assert opened.locator('.word.named').all_inner_texts() == ['dog', 'sleeps']
        box, frame = (opened.locator(name).bounding_box() for name in ('.marks .box', '.frame'))
        assert (box['x'] - frame['x']) / frame['width'] == pytest.approx(0.25, abs=0.01)
        assert (box['y'] - frame['y']) / frame['height'] == pytest.approx(0.5, abs=0.01)
        assert box['width'] / frame['width'] == pytest.approx(0.5, abs=0.01)

        opened.keyboard.press('Escape')
        card(opened, 4).locator('.photo').click()
        opened.keyboard.press('ArrowRight')  # place 3: first row, last column
        mark, frame = (opened.locator(name).bounding_box()
                       for name in ('.marks .location', '.frame'))
        assert (mark['x'] - frame['x']) / frame['width'] == pytest.approx(3 / 4, abs=0.01)
        assert mark['y'] == pytest.approx(frame['y'], abs=1)
        assert mark['height'] / frame['height'] == pytest.approx(1 / 3, abs=0.01)


# ---- the gallery

def test_search(visit):
    with visit() as opened:
        search = opened.locator('#search')
        for text, scope, expected in (
            ('dog', 'all', [0, 2]), ('dog', 'references', []), ('DO SLEEPS', 'caption', [2]),
            ('og', 'all', []), ('zebra', 'all', [0, 1, 2, 3]), ('zebra', 'caption', []),
            ('zebra -dog', 'all', [1, 3]), ('4.jpg', 'all', [4]), ('', 'all', list(range(6)))):
            opened.locator('#scope').select_option(scope)
            search.fill(text)
            assert names(opened) == expected, text
            assert opened.locator('#count').inner_text().startswith(f'{len(expected)} of 6 images')
        search.fill('dog')
        assert card(opened, 0).locator('.hit').text_content() == 'dog'


def test_sorting_and_the_range(visit):
    figures = {number: record['scores'].get('CIDEr') for number, record in enumerate(records())}
    falling = sorted((n for n in figures if n != 2), key=lambda n: -figures[n])
    with visit() as opened:
        opened.locator('#sort').select_option('CIDEr')
        assert names(opened) == [*falling, 2]  # which has no CIDEr
        opened.locator('#direction').click()
        assert names(opened) == [*falling[::-1], 2]
        mean = np.mean([100 * figures[n] for n in falling])
        assert f'mean CIDEr {mean:.1f}' in opened.locator('#count').inner_text()
        opened.locator('#low').focus()
        for _ in range(20):
            opened.keyboard.press('ArrowRight')
        middle = (figures[falling[0]] + figures[falling[-1]]) / 2
        assert names(opened) == [n for n in falling[::-1] if figures[n] >= middle]
        opened.locator('#sort').select_option('length')
        assert names(opened)[-1] == 3 and opened.locator('#low').input_value() == '0'
        opened.locator('#sort').select_option('name')
        assert names(opened)[-5:] == [0, 1, 2, 3, 4]


def test_scores_and_references_are_shown(visit):
    with visit() as opened:
        assert ('25.0' in opened.locator('#scores').inner_text()
                and '150.0' in opened.locator('#scores').inner_text())
        assert 'METEOR 130.0' in card(opened, 1).text_content()
        card(opened, 1).locator('.photo').click()
        assert opened.locator('#opened-references li').all_inner_texts() == [
            'Reference 1: A zebra.']
        assert opened.locator('#opened-scores dd').all_inner_texts() == ['30.0', '130.0', '230.0']


def test_keyboard_alone(visit):
    with visit() as opened:
        def focused():
            return opened.evaluate('document.activeElement.getAttribute("href")')

        opened.keyboard.press('/')
        opened.keyboard.type('zebra')
        for _ in range(12):
            opened.keyboard.press('Tab')
            if focused() == '#0':
                break
        assert focused() == '#0'
        outlined = card(opened, 0).evaluate('card => getComputedStyle(card).boxShadow')
        assert outlined != card(opened, 1).evaluate('card => getComputedStyle(card).boxShadow')
        opened.keyboard.press('ArrowRight')
        assert focused() == '#1'
        opened.keyboard.press('ArrowLeft')
        opened.keyboard.press('Enter')
        assert opened.locator('#opened-name').inner_text() == '0.jpg'
        opened.keyboard.press('PageDown')
        assert (opened.locator('#opened-place').inner_text() == '2 of 4'
                and opened.url.endswith('#1'))
        opened.keyboard.press('ArrowRight')
        assert opened.evaluate('document.activeElement.textContent') == 'two'
        assert opened.evaluate('getComputedStyle(document.activeElement).outlineStyle') == 'solid'
        opened.keyboard.press('Escape')
        # The browser tells the page later that the dialog was closed, and the page moves the focus.
        opened.wait_for_function('document.activeElement.getAttribute("href") === "#1"')
        assert not opened.locator('dialog').is_visible()


def test_everything_to_press_has_a_name(visit):
    with visit() as opened:
        card(opened, 0).locator('.photo').click()
        nameless = opened.evaluate('''() => [
            ...document.querySelectorAll('button, a, input, select')].filter(
            e => !(e.ariaLabel || e.textContent.trim() || e.closest('label'))).map(
            e => e.outerHTML)''')
        assert nameless == []


@pytest.mark.parametrize('number', range(len(CAPTIONS)))
def test_a_phone(visit, number):
    with visit(viewport={'width': 360, 'height': 640}, has_touch=True, is_mobile=True) as opened:
        opened.locator('#sort').select_option('METEOR')
        opened.locator('summary').click()
        assert not headless_chromium.scrolls_sideways(opened)
        card(opened, number).locator('.photo').tap()
        assert opened.locator('dialog').bounding_box()['width'] == 360
        if CAPTIONS[number]:
            opened.locator('.word').first.tap()
            if number not in (1, 4):
                assert_lit(still(opened, opened.locator('.frame')), caption('x', 0).alphas[0])
            assert opened.locator('.word.lit').count() == 1
        assert not headless_chromium.scrolls_sideways(opened)


def test_light_and_dark(visit):
    def ground(opened):
        return sum(map(int, re.findall(
            r'\d+', opened.evaluate('getComputedStyle(document.body).backgroundColor'))))

    with visit(color_scheme='dark') as opened:
        assert ground(opened) < 150
        opened.locator('#theme').click()
        assert ground(opened) > 600
        opened.reload()
        assert ground(opened) > 600 and 'light' in opened.locator('#theme').inner_text()
        opened.locator('#theme').click()
        opened.emulate_media(color_scheme='light')
        assert ground(opened) < 150
    with visit(color_scheme='light') as opened:
        assert ground(opened) > 600


def test_texts_of_strangers_stay_texts(visit):
    with visit() as opened:
        card(opened, 5).locator('.photo').click()
        shown = HOSTILE.split('\u2028')[0]
        assert opened.locator('h1').text_content().startswith(shown)
        assert opened.locator('#opened-name').text_content().startswith(shown)
        assert opened.locator('#opened-references li').text_content().startswith(shown)
        assert '</script><script>' in opened.locator('.sentence').text_content()
        assert card(opened, 5).locator('.caption').text_content().startswith(shown)
        opened.keyboard.press('ArrowDown')
        opened.locator('.word').nth(1).click()
        assert opened.evaluate('window.hacked') is None
        assert opened.locator('img[src="x"]').count() == 0


def test_what_is_missing_is_said_and_the_others_go_on(chromium, written, tmp_path):
    shutil.copytree(written, tmp_path / 'page')
    (tmp_path / 'page' / 'photos' / '00002.jpg').unlink()
    address = (tmp_path / 'page' / 'index.html').as_uri()
    with headless_chromium.page(chromium, address, ['ERR_FILE_NOT_FOUND']) as opened:
        opened.wait_for_function('document.querySelectorAll(".card .missing").length === 2')
        for number in (1, 2):
            assert 'photo missing' in card(opened, number).text_content()
            card(opened, number).locator('.photo').click()
            opened.locator('.frame .missing').wait_for()
            opened.keyboard.press('ArrowRight')
            assert opened.locator('.word.lit').count() == 1
            opened.keyboard.press('Escape')
    (tmp_path / 'page' / 'data' / 'attention-0000.js').unlink()
    with headless_chromium.page(chromium, address, ['ERR_FILE_NOT_FOUND']) as opened:
        card(opened, 0).locator('.photo').click()
        assert 'data/attention-0000.js is missing' in opened.locator('[role=alert]').inner_text()


def test_without_scores_references_and_gate(chromium, tmp_path):
    bare = caption('a dog')._replace(betas=np.ones(2), probabilities=None, score=None,
                                     log_prob=None)
    rows = [{'image': 'x', 'caption': 'a dog', 'references': [], 'scores': {}, 'grid': GRID,
             'captions': [caption_record.page_record(bare)]}]
    index = gallery.write(tmp_path / 'page', {'title': 'photos'}, rows, lambda number: GREY)
    with headless_chromium.page(chromium, index.as_uri()) as opened:
        assert not opened.locator('#scores').is_visible()
        assert opened.locator('#sort option').all_inner_texts() == [
            'order of the split', 'name', 'words']
        opened.locator('.photo').click()
        opened.keyboard.press('ArrowRight')
        assert opened.locator('.gate').count() == opened.locator('.meter:visible').count() == 0
        assert (not opened.locator('.n-best').is_visible()
                and not opened.locator('#opened-references').is_visible())


def test_cards_are_made_as_one_scrolls_and_attention_loaded_as_one_looks(chromium, tmp_path):
    rows = [record(number, f'a dog {number}') for number in range(150)]
    index = gallery.write(tmp_path / 'page', {'title': 'many'}, rows, lambda number: GREY[:16, :16])
    with headless_chromium.page(chromium, f'{index.as_uri()}#149') as opened:
        # an address names its image
        assert opened.locator('#opened-name').inner_text() == '149.jpg'
        scripts = opened.locator('script[src^="data/attention"]')
        assert [script.get_attribute('src')
                for script in scripts.all()] == ['data/attention-0004.js']
        opened.keyboard.press('ArrowRight')
        opened.keyboard.press('End')
        assert opened.locator('.word.lit').inner_text() == '149'
    with headless_chromium.page(chromium, f'{index.as_uri()}#40') as opened:
        opened.locator('.word').last.click()
        assert opened.locator('.word.lit').inner_text() == '40'
    with headless_chromium.page(chromium, index.as_uri()) as opened:
        assert opened.locator('.card').count() < 130
        for _ in range(30):
            opened.mouse.wheel(0, 4000)
            opened.wait_for_timeout(30)
        assert opened.locator('.card').count() == 150
