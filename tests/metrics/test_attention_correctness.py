"""Attention correctness on grids small enough to work out by hand."""

import json

import numpy as np
import pytest
from PIL import Image

from benchmarks import grounding as comparison
from core.common.errors import InputError
from core.metrics.attention_correctness import (
    Item,
    Region,
    attention_correctness,
    centre_prior,
    centres_inside,
    class_table,
    coverage,
    named_boxes,
    object_words,
)
from core.metrics.object_names import Lexicon, lexicon_of

VALUES = ['n_words', 'mass', 'uniform_mass', 'centre_mass', 'mass_ratio', 'centre_ratio',
          'pointing', 'uniform_pointing', 'centre_pointing']
DOG = Region(('dog', 'puppy'), (0, 0, 0.75, 0.5))


def test_cells_count_with_their_covered_part():
    # On 2 x 3 cells of 1/3 x 1/2: the rectangle covers x from 1/6 (the middle of column 0) to 2/3
    # (all of column 1), and y from 1/4 (the lower half of row 0) to 1.
    np.testing.assert_allclose(coverage([(1 / 6, 1 / 4, 2 / 3, 1)], (2, 3)),
                               [[0.25, 0.5, 0], [0.5, 1, 0]], atol=1e-12)


def test_overlapping_rectangles_count_once():
    both = [(0, 0, 0.5, 0.5), (0.25, 0.25, 0.75, 0.75)]
    # On one cell: 1/4 + 1/4 - 1/16; on 2 x 2 cells, the second adds a quarter to each of the three
    # other cells.
    np.testing.assert_allclose(coverage(both, (1, 1)), [[0.4375]])
    np.testing.assert_allclose(coverage(both, (2, 2)), [[1, 0.25], [0.25, 0.25]])
    np.testing.assert_allclose(coverage([*both, *both], (2, 2)), [[1, 0.25], [0.25, 0.25]])


def test_coverage_agrees_with_counting_points():
    random = np.random.default_rng(5)
    corners = np.sort(random.uniform(-0.2, 1.2, (7, 2, 2)).round(2), axis=2)
    rectangles = [(x0, y0, x1, y1) for (x0, x1), (y0, y1) in corners * [[1.0], [0.6]]]
    points = (np.arange(700) + 0.5) / 700
    inside = np.zeros((700, 700), bool)
    for x0, y0, x1, y1 in rectangles:
        inside |= np.outer((y0 <= points) & (points < y1), (x0 <= points) & (points < x1))
    counted = inside.reshape(14, 50, 7, 100).mean((1, 3))
    assert 0 < counted.mean() < 1
    np.testing.assert_allclose(coverage(rectangles, (14, 7)), counted, atol=0.03)


def test_rectangles_are_cut_at_the_picture_and_empty_ones_cover_nothing():
    np.testing.assert_allclose(coverage([(-1, -1, 0.5, 2)], (2, 2)), [[1, 0], [1, 0]])
    nothing = [(0.5, 0, 0.5, 1), (0.7, 0.7, 0.2, 0.2), (1.1, 0, 1.5, 1)]
    assert not coverage(nothing, (3, 3)).any() and not centres_inside(nothing, (3, 3)).any()
    assert coverage([(0, 0, 1, 1)], (14, 14)) == pytest.approx(np.ones((14, 14)))


def test_centres():
    # The centres of 2 columns are at 1/4 and 3/4, of 1 row at 1/2; edges belong to the rectangle.
    assert centres_inside([(0.25, 0, 0.7, 0.5)], (1, 2)).tolist() == [[True, False]]
    assert centres_inside([(0.3, 0, 0.7, 1), (0.7, 0.5, 0.75, 1)],
                          (1, 2)).tolist() == [[False, True]]


def test_the_centre_prior_is_a_gaussian_of_a_quarter_of_the_side():
    # P(|z| < 2/3) = .495015 of P(|z| < 2) = .954500 lies on the middle third, .518612; the rest on
    # both sides of it.
    np.testing.assert_allclose(centre_prior((2, 3)), [[0.120347, 0.259306, 0.120347]] * 2,
                               atol=1e-6)
    # On 4 rows: P(|z| < 1) = .682689 on the two in the middle.
    np.testing.assert_allclose(centre_prior((4, 1)).ravel(),
                               [0.142383, 0.357617, 0.357617, 0.142383], atol=1e-6)
    assert centre_prior((14, 7)).shape == (14, 7)
    assert centre_prior((14, 7)).sum() == pytest.approx(1)


def test_one_caption_by_hand():
    # On 2 x 2 cells DOG covers all of cell 0 and half of cell 1, whose centre (.75, .25) is just
    # inside.
    alphas = np.array([[0, 0, 0, 1], [0.5, 0.2, 0.3, 0.0], [1, 0, 0, 0], [0.1, 0.2, 0.3, 0.4]],
                      np.float32)
    result = attention_correctness([Item(('a', 'dog', 'chases', 'dogs'), alphas, (2, 2), (DOG,))])
    # 'dog': .5 + .2 / 2 = .6, hit. 'dogs': .1 + .2 / 2 = .2, no hit (cell 3). Even attention: (1 +
    # .5) / 4. The prior is even on four cells, and all four are around the middle.
    values = {'n_words': 2, 'mass': 0.4, 'uniform_mass': 0.375, 'centre_mass': 0.375,
              'mass_ratio': 0.4 / 0.375, 'centre_ratio': 0.4 / 0.375, 'pointing': 0.5,
              'uniform_pointing': 0.5, 'centre_pointing': 0.5}
    assert {key: result[key] for key in values} == pytest.approx(values)
    assert list(result) == [*VALUES, 'by_name', 'by_class'] and list(values) == VALUES
    assert result['by_name'] == result['by_class'] == {'dog': pytest.approx(values)}


def test_both_baselines_by_hand():
    # 3 x 3 cells. The cat covers the middle cell, the dog the left column.
    regions = (Region(('cat',), (1 / 3, 1 / 3, 2 / 3, 2 / 3)), Region(('dog',), (0, 0, 1 / 3, 1)))
    # the middle, the upper right corner, the middle of the left column
    alphas = np.eye(9)[[4, 2, 3]]
    result = attention_correctness([Item(('cat', 'cat', 'dog'), alphas, (3, 3), regions)])
    cat, dog = result['by_class']['cat'], result['by_class']['dog']
    assert (cat['mass'], cat['pointing'], cat['centre_pointing']) == (pytest.approx(0.5), 0.5, 1)
    assert cat['uniform_mass'] == cat['uniform_pointing'] == pytest.approx(1 / 9)
    assert cat['centre_mass'] == pytest.approx(0.518612**2, abs=1e-6)
    assert (dog['mass'], dog['pointing'], dog['centre_pointing']) == (pytest.approx(1), 1, 0)
    assert dog['uniform_mass'] == dog['uniform_pointing'] == pytest.approx(1 / 3)
    assert dog['centre_mass'] == pytest.approx(0.240694, abs=1e-6)
    assert dog['centre_ratio'] == pytest.approx(1 / 0.240694, abs=1e-4)
    # All three words together: means over words, not over classes.
    assert result['centre_pointing'] == result['pointing'] == pytest.approx(2 / 3)
    assert result['mass_ratio'] == pytest.approx((2 / 3) / (5 / 27))


def test_centre_pointing_without_a_cell_in_the_middle():
    # On 2 rows of 3 cells the middle lies between cells 1 and 4; the box holds the centre of cell 1
    # only.
    result = attention_correctness(
        [Item(('dog',), np.eye(6)[:1], (2, 3), (Region(('dog',), (0, 0, 1, 0.5)),))])
    assert result['centre_pointing'] == 0.5


def test_objects_of_one_category_are_one_region_and_names_are_kept_apart():
    regions = (
        Region(('person', 'man'), (0, 0, 0.5, 0.5)),
        Region(('person', 'man'), (0.5, 0.5, 1, 1)),
        Region(('frisbee',), (1, 0, 1, 1)),  # no area: cut off by the crop
        Region(('tie',), (0, 0, 1, 0.5)),
    )
    even = np.full((5, 4), 0.25)
    words = ('man', 'persons', 'tie', 'frisbee', 'dog')
    result = attention_correctness(
        [Item(words, even, (2, 2), regions), Item(('frisbee',), even, (2, 2), ())])
    assert list(result['by_name']) == ['man', 'person', 'tie']
    assert [row['mass'] for row in result['by_name'].values()] == pytest.approx([0.5, 0.5, 0.5])
    assert {name: row['n_words'] for name, row in result['by_class'].items()} == {
        'person': 2, 'tie': 1}
    assert result['n_words'] == 3 and result['mass_ratio'] == pytest.approx(1)
    # Of equal cells the first is the most attended.
    assert [row['pointing'] for row in result['by_name'].values()] == [1, 1, 1]


def test_words_that_describe_are_measured_on_what_their_noun_names():
    lexicon = Lexicon({'circle': (), 'star': ()},
                      modifiers={'red': 'colour', 'blue': 'colour', 'big': 'size'},
                      noun_class='shape')
    words = ('a', 'big', 'red', 'circle', 'and', 'a', 'blue', 'star', 'red')
    alphas = np.full((9, 2), 0.5)
    alphas[1], alphas[2], alphas[3], alphas[7] = (0.9, 0.1), (0.2, 0.8), (0.6, 0.4), (0.7, 0.3)
    circle = Region(('circle',), (0, 0, 0.5, 1))  # the left of two cells; no star is there
    result = attention_correctness([Item(words, alphas, (1, 2), (circle,))], lexicon)
    assert {name: (row['n_words'], row['mass'], row['pointing'])
            for name, row in result['by_class'].items()} == {'size': (1, 0.9, 1),
                                                             'colour': (1, pytest.approx(0.2), 0),
                                                             'shape': (1, pytest.approx(0.6), 1)}
    assert (result['n_words'], result['mass']) == (1, pytest.approx(0.6))  # names only
    assert list(result['by_name']) == ['circle']


def test_coco_words_on_coco_boxes():
    """Measure listed words on their category's boxes; a compound is not its last word."""
    dog, man = (0, 0, 0.5, 1), (0.5, 0, 1, 1)
    boxes = [[(('dog',), dog), (('person',), man)]]
    words = ('two', 'men', 'eat', 'hot', 'dogs', 'near', 'puppies')
    alphas = np.full((7, 2), 0.5)
    alphas[1], alphas[6] = (0.25, 0.75), (0.625, 0.375)
    regions = [Region(*box) for box in boxes[0]]
    result = attention_correctness([Item(words, alphas, (1, 2), regions)],
                                   lexicon_of(boxes, 'coco2014'))
    assert {name: (row['n_words'], row['mass']) for name, row in result['by_class'].items()} == {
        'dog': (1, 0.625), 'person': (1, 0.75)}
    assert list(result['by_name']) == ['man', 'puppy']
    # Without COCO's words only the categories' names count, and 'hot dogs' are dogs: nothing says
    # otherwise.
    plain = attention_correctness([Item(words, alphas, (1, 2), [Region(*box) for box in boxes[0]])])
    assert {name: row['n_words'] for name, row in plain['by_class'].items()} == {'dog': 1}


def test_boxes_of_words():
    person = ('person', 'man')
    boxes = [(person, (0, 0, 1, 1)), (('traffic light',), (0, 0, 0.5, 1)), (person, (0, 0, 0, 1))]
    words = ('man', 'by', 'traffic', 'lights', 'and', 'people')
    assert named_boxes(words, boxes) == [({0, 5}, (0, 0, 1, 1)), ({2, 3}, (0, 0, 0.5, 1)),
                                         ({0, 5}, (0, 0, 0, 1))]
    kept_apart = named_boxes(('hot', 'dog'), [(('dog',), (0, 0, 1, 1))],
                             Lexicon({'dog': (), 'hot dog': ()}))
    assert kept_apart == [(set(), (0, 0, 1, 1))]


def test_words_of_objects_outside_the_crop_name_no_object():
    words = ('a', 'hot', 'dog', 'by', 'a', 'cat')
    boxes = [(('hot dog',), (0.5, 0, 1, 1)), (('cat',), (1, 0, 1.5, 1))]
    assert object_words(words, boxes) == {1, 2}
    assert object_words(words, boxes[1:]) == object_words(words, []) == set()


def test_table_by_class():
    regions = (Region(('cat',), (0, 0, 0.5, 1)), Region(('dog',), (0.5, 0, 1, 1)),
               Region(('owl',), (0, 0, 1, 1)))
    item = Item(('cat', 'dog', 'dog', 'owl'), np.array([[0.75, 0.25]] * 4), (1, 2), regions)
    result = attention_correctness([item])
    lines = class_table(result).split('\n')
    assert lines[0].split() == ['words', 'in', 'box', 'evenly', 'centre', 'pointing', 'evenly',
                                'centre']
    assert lines[2].split() == ['dog', '2', '0.250', '0.500', '0.500', '0.000', '0.500', '0.500']
    assert [line.split()[0] for line in lines[3:]] == ['cat', 'owl']
    assert [line.split()[0] for line in class_table(result, most=2).split('\n')[2:]] == ['dog',
                                                                                         'cat',
                                                                                         '(1']


def test_a_name_of_two_words_is_one_mention_with_their_mean_attention():
    light = Region(('traffic light',), (0, 0, 1, 0.5))
    alphas = np.array([[0, 1], [1, 0], [0.4, 0.6]])  # on 2 rows, 1 column
    result = attention_correctness([Item(('red', 'traffic', 'lights'), alphas, (2, 1), (light,))])
    # Mean of rows 1 and 2: (.7, .3).
    assert result['n_words'] == 1
    assert result['mass'] == pytest.approx(0.7)
    assert result['pointing'] == 1
    assert list(result['by_name']) == ['traffic light']


def test_alphas_may_be_longer_than_the_caption_and_must_fit_otherwise():
    item = Item(('dog',), np.full((20, 4), 0.25, np.float16), (2, 2), (DOG,))
    assert attention_correctness([item])['mass'] == pytest.approx(0.375)
    for alphas in (np.zeros((0, 4)), np.zeros((1, 5)), np.zeros(4)):
        with pytest.raises(ValueError, match='2 x 2'):
            attention_correctness([item._replace(alphas=alphas)])


def test_no_mention_gives_no_values():
    item = Item(('a', 'cat'), np.full((2, 4), 0.25), (2, 2), (DOG,))
    for result in (attention_correctness([]), attention_correctness([item])):
        assert result == {**dict.fromkeys(VALUES), 'n_words': 0, 'by_name': {}, 'by_class': {}}


def test_comparison_of_evaluations(tmp_path):
    def evaluation(name, attention, colour):
        values = dict.fromkeys(VALUES, 0.125)
        names = {**values, 'n_words': 20, 'mass': attention}
        shade = {**values, 'n_words': 30, 'mass': colour}
        by_class = {'shape': dict(names), 'colour': shade}
        (tmp_path / name / 'pictures').mkdir(parents=True)
        (tmp_path / name / 'scores.json').write_text(
            json.dumps({'attention': {**names, 'by_class': by_class}}))
        Image.new('RGB', (10 * len(name), 30),
                  (0, 0, len(name))).save(tmp_path / name / 'pictures' / '7.png')
        return tmp_path / name

    places = {name: evaluation(name, *values)
              for name, values in (('soft', (0.25, 0.5)), ('hard', (0.375, 0.625)))}
    attentions = {name: comparison.read(path) for name, path in places.items()}
    lines = [[cell.strip() for cell in line.split('|')[1:5]]
             for line in comparison.markdown(attentions).split('\n')]
    # 'shape' is all there is, so it needs no rows of its own.
    assert lines[2:] == [['shape (all names)', 'soft', '20', '0.250'], ['', 'hard', '20', '0.375'],
                         ['colour', 'soft', '30', '0.500'], ['', 'hard', '30', '0.625']]

    whole = comparison.stacked({'a': places['soft'], 'b': tmp_path / 'hard'}, '7')
    assert whole.shape == (2 * (30 + comparison.LABEL), 40, 3)
    assert (whole[-30:, :40] == (0, 0, 4)).all()
    assert (whole[comparison.LABEL:comparison.LABEL + 30] == (0, 0, 4)).all()
    with pytest.raises(InputError, match='--picture-ids 8'):
        comparison.stacked(places, '8')
    (tmp_path / 'soft' / 'scores.json').write_text('{"attention": {"entropy": 1.0}}')
    with pytest.raises(InputError, match='no attention correctness'):
        comparison.read(places['soft'])
