"""Names of objects in captions: synonyms, plurals, compounds, words that describe."""

import pytest

from core.common.errors import InputError
from core.metrics.object_names import Lexicon, Mention, lexicon_of


def mentions(lexicon, text):
    return lexicon.find(text.split())


def found(lexicon, text):
    return [(mention.name, mention.start, mention.stop) for mention in mentions(lexicon, text)]


@pytest.mark.parametrize(('words', 'names', 'expected'), [
    ('two dogs and a bus', ['dog', 'bus'], [('dog', 1, 2), ('bus', 4, 5)]),
    ('buses boxes dishes', ['bus', 'box', 'dish'], [('bus', 0, 1), ('box', 1, 2), ('dish', 2, 3)]),
    ('a hot dog by a dog', ['dog', 'hot dog'], [('hot dog', 1, 3), ('dog', 5, 6)]),
    ('hot', ['dog', 'hot dog'], []), ('a big hot', ['hot dog', 'big hot dog'], []),
    ('traffic light traffic lights', ['traffic light'],
     [('traffic light', 0, 2), ('traffic light', 2, 4)]),
    ('her glasses', ['glass', 'glasses'], [('glasses', 1, 2)]),
    ('a t shirt', ['T-shirt'], [('T-shirt', 1, 3)]), ('a dogma', ['dog', ''], []),
    ('', ['dog'], []), ('a dog', [], []), ('men women people children',
                                           ['man', 'woman', 'person', 'child'],
                                           [('man', 0, 1), ('woman', 1, 2), ('person', 2, 3),
                                            ('child', 3, 4)]),
    ('policemen and grandchildren', ['policeman', 'grandchild'],
     [('policeman', 0, 1), ('grandchild', 2, 3)]),
    ('knives mice geese oxen puppies', ['knife', 'mouse', 'goose', 'ox', 'puppy'],
     [('knife', 0, 1), ('mouse', 1, 2), ('goose', 2, 3), ('ox', 3, 4), ('puppy', 4, 5)]),
    ('baseball bats wine glasses butter knives', ['baseball bat', 'wine glass', 'butter knife'],
     [('baseball bat', 0, 2), ('wine glass', 2, 4), ('butter knife', 4, 6)]),
    ('cloudy skies', ['ski'], []), ('sheep and giraffes', ['sheep', 'giraffe'],
                                    [('sheep', 0, 1), ('giraffe', 2, 3)])])
def test_names_in_captions(words, names, expected):
    assert found(Lexicon(dict.fromkeys(names, ())), words) == expected


@pytest.mark.parametrize(('words', 'names', 'expected'), [
    ('Two Dogs, a "BUS" .', ['dog', 'bus'], [('dog', 1, 2), ('bus', 3, 4)]),
    ('. ( Hot -- dog!', ['dog', 'hot dog'], [('hot dog', 2, 5)]),
    ('A T-shirt .', ['t-shirt'], [('t-shirt', 1, 2)]),
    ('cat/dog', ['cat', 'dog'], [('cat', 0, 1), ('dog', 0, 1)]),
    ('... . !', ['dog'], [])])
def test_names_in_raw_captions(words, names, expected):
    assert found(Lexicon(dict.fromkeys(names, ())), words) == expected


def test_modifiers_of_raw_words_have_their_places():
    lexicon = Lexicon({'ball': ()}, modifiers={'red': 'colour', 'small': 'size'},
                      apart={'ball': 'glass'})
    assert mentions(lexicon, '" A small, RED Balls .') == [
        Mention('ball', 4, 5, 'ball', ((2, 'size'), (3, 'colour')))]
    assert mentions(lexicon, 'A Ball of Glass.') == []


def test_a_mention_knows_its_category_and_what_describes_it():
    lexicon = Lexicon({'person': ('man',), 'sports ball': ('ball',)},
                      modifiers={'red': 'colour', 'small': 'size'})
    assert mentions(lexicon, 'a red man with small red balls') == [
        Mention('man', 2, 3, 'person', ((1, 'colour'),)),
        Mention('ball', 6, 7, 'sports ball', ((4, 'size'), (5, 'colour')))]


def test_a_categorys_own_name_wins_over_anothers_synonym_then_the_first():
    lexicon = Lexicon({'bird': ('crow', 'crane'), 'crow': (), 'machine': ('crane',)})
    assert [(m.name, m.category) for m in lexicon.find(['crows', 'crane'])] == [
        ('crow', 'crow'), ('crane', 'bird')]


def test_compounds_and_words_that_keep_apart():
    lexicon = Lexicon(
        {'chair': ('seat',), 'toilet': (), 'bear': (), 'plate': (), 'person': ('baby',)},
        {'toilet seat': 'toilet', 'home plate': None, 'baby bear': 'bear'}, {'seat': 'toilet'})
    assert found(lexicon, 'a toilet seat') == [('toilet seat', 1, 3)]
    assert lexicon.find(['toilet', 'seats'])[0].category == 'toilet'
    assert found(lexicon, 'the seat of the toilet') == [('toilet', 4, 5)]
    assert found(lexicon, 'the seat of the car') == [('seat', 1, 2)]
    assert found(lexicon, 'at home plate a plate') == [('plate', 4, 5)]
    assert [m.category for m in mentions(lexicon, 'a baby and a baby bear')] == ['person', 'bear']


PEOPLE = [
    [(('person',), (0, 0, 1, 1))], [(('dog', 'puppy'), (0, 0, 1, 1)), (('person',), (0, 0, 0, 1))]]


def test_the_words_of_coco_belong_to_cocos_datasets():
    for dataset in ('coco2014', 'coco2017', 'karpathy'):
        assert found(lexicon_of(PEOPLE, dataset), 'women feed a puppy') == [
            ('woman', 0, 1), ('puppy', 3, 4)]
    assert found(lexicon_of(PEOPLE, 'shapes'), 'women feed a puppy') == [('puppy', 3, 4)]
    # Categories without a box in these data are known, so that a compound is not its last word; so
    # are the rules.
    for text in ('a hot dog', 'at a bus stop', 'some train tracks'):
        assert not [m for m in mentions(lexicon_of(PEOPLE, 'coco2014'), text)
                    if m.category != 'hot dog']
    assert [m.category for m in mentions(lexicon_of(PEOPLE, 'coco2014'),
                                         'a baby elephant')] == ['elephant']


def test_colours_and_sizes_belong_to_drawn_scenes():
    boxes = [[(('circle', 'disc'), (0, 0, 1, 1))]]
    lexicon = lexicon_of(boxes, 'shapes')
    assert mentions(lexicon, 'a tiny purple disc') == [
        Mention('disc', 3, 4, 'circle', ((1, 'size'), (2, 'colour')))]
    assert lexicon.noun_class == 'shape'
    assert mentions(lexicon_of(boxes, 'coco2017'),
                    'a purple disc') == [Mention('disc', 2, 3, 'circle')]


def test_a_list_of_ones_own_replaces_cocos():
    lexicon = lexicon_of(PEOPLE, 'coco2014', {'person': ('astronaut',), 'cat': ('moggy',)})
    assert found(lexicon, 'an astronaut a woman a person a moggy a puppy') == [
        ('astronaut', 1, 2), ('person', 5, 6), ('moggy', 7, 8), ('puppy', 9, 10)]
    # no list makes it a dog
    assert [mention.category for mention in mentions(lexicon, 'a hot dog')] == ['hot dog']
    assert found(lexicon_of(PEOPLE, 'shapes', {'person': ('astronaut',)}),
                 'an astronaut') == [('astronaut', 1, 2)]
    with pytest.raises(InputError, match=r'none of the categories of these data \(dog, person'):
        lexicon_of(PEOPLE, 'coco2014', {'cat': ('moggy',)})
