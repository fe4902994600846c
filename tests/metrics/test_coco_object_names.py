"""The words for COCO's 80 categories, and lists of one's own."""

import pytest

from core.common.errors import InputError
from core.metrics import coco_object_names
from core.metrics.coco_object_names import APART, COMPOUNDS, SYNONYMS, read_synonyms
from core.metrics.object_names import lexicon_of

BOXES = [[((category,), (0, 0, 1, 1)) for category in SYNONYMS]]


def category(text):
    return [mention.category for mention in lexicon_of(BOXES, 'coco2017').find(text.split())]


def test_eighty_categories_and_no_name_twice():
    assert len(SYNONYMS) == 80
    names = [*SYNONYMS, *(name for names in SYNONYMS.values() for name in names)]
    assert len(names) == len(set(names))
    assert all(name == ' '.join(name.lower().split()) for name in [*names, *COMPOUNDS, *APART])
    assert set(COMPOUNDS.values()) <= {*SYNONYMS, None} and not set(COMPOUNDS) & set(names)


@pytest.mark.parametrize(('text', 'expected'), [
    ('a man and two women', ['person', 'person']),
    ('people watching children', ['person', 'person']),
    ('a hot dog next to a dog', ['hot dog', 'dog']),
    ('a teddy bear and a bear', ['teddy bear', 'bear']),
    ('a baby with a baby bear', ['person', 'bear']),
    ('a baby animal', []),
    ('a toilet seat', ['toilet']),
    ('the seat on the toilet', ['toilet']),
    ('cattle geese sheep and goats', ['cow', 'bird', 'sheep', 'sheep']),
    ('knives and wine glasses', ['knife', 'wine glass']),
    ('a glass', []),
    ('a passenger train at a train station', ['train']),
    ('a player at a bus stop', ['person']),
    ('skiers on a ski slope under grey skies', ['person']),
    ('a man in a bow tie', ['person', 'tie']),
    ('a stove top oven', ['oven']),
    ('traffic lights and street lights', ['traffic light', 'traffic light']),
])
def test_what_words_name(text, expected):
    assert category(text) == expected


def test_a_list_is_read_however_its_blanks_lie(tmp_path):
    path = tmp_path / 'synonyms.txt'
    path.write_text('Person, girl, Boy,  motor  man, girl\n\nstop sign\ncow, cattle, bison '
                    '\ncake,,pie,\n')
    assert read_synonyms(path) == {'person': ('girl', 'boy', 'motor man'), 'stop sign': (),
                                   'cow': ('cattle', 'bison'), 'cake': ('pie',)}


@pytest.mark.parametrize(('text', 'parts'), [
    ('dog, pup\n\ncat, pup\n', ['line 3', "'pup'", 'line 1']),
    ('dog, pup\ndog, hound\n', ['line 2', "'dog'", 'line 1']),
    ('dog\n, pup\n', ['line 2', 'no category']),
    ('\n \n', ['is empty', coco_object_names.EXPECTED]),
])
def test_damaged_lists(tmp_path, text, parts):
    path = tmp_path / 'synonyms.txt'
    path.write_text(text)
    with pytest.raises(InputError) as caught:
        read_synonyms(path)
    assert all(part in str(caught.value) for part in [str(path), *parts])


def test_a_missing_list():
    with pytest.raises(InputError, match='nowhere.txt: cannot be read'):
        read_synonyms('nowhere.txt')
