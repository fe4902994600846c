"""Attention correctness on grids small enough to work out by hand."""

import numpy as np
import pytest

from core.grounding import Item, Mention, Region, attention_correctness, centres_inside, coverage, find_mentions

DOG = Region(('dog', 'puppy'), (0, 0, 0.75, 0.5))


def test_cells_count_with_their_covered_part():
    # On 2 x 3 cells of 1/3 x 1/2: the rectangle covers x from 1/6 (the middle of column 0) to 2/3 (all of column 1),
    # and y from 1/4 (the lower half of row 0) to 1.
    np.testing.assert_allclose(coverage([(1 / 6, 1 / 4, 2 / 3, 1)], (2, 3)), [[0.25, 0.5, 0], [0.5, 1, 0]], atol=1e-12)


def test_overlapping_rectangles_count_once():
    both = [(0, 0, 0.5, 0.5), (0.25, 0.25, 0.75, 0.75)]
    # On one cell: 1/4 + 1/4 - 1/16; on 2 x 2 cells, the second adds a quarter to each of the three other cells.
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
    assert centres_inside([(0.3, 0, 0.7, 1), (0.7, 0.5, 0.75, 1)], (1, 2)).tolist() == [[False, True]]


def test_one_caption_by_hand():
    # On 2 x 2 cells DOG covers all of cell 0 and half of cell 1, whose centre (.75, .25) is just inside.
    alphas = np.array([[0, 0, 0, 1], [0.5, 0.2, 0.3, 0.0], [1, 0, 0, 0], [0.1, 0.2, 0.3, 0.4]], np.float32)
    result = attention_correctness([Item(('a', 'dog', 'chases', 'dogs'), alphas, (2, 2), (DOG,))])
    # 'dog': .5 + .2 / 2 = .6, hit. 'dogs': .1 + .2 / 2 = .2, no hit (cell 3). Even attention: (1 + .5) / 4.
    values = {'n_words': 2, 'mass': 0.4, 'uniform_mass': 0.375, 'mass_ratio': 0.4 / 0.375, 'pointing': 0.5,
              'uniform_pointing': 0.5}
    assert {key: result[key] for key in values} == pytest.approx(values)
    assert list(result) == [*values, 'by_name'] and result['by_name'] == {'dog': pytest.approx(values)}


def test_objects_of_one_name_are_one_region_and_names_are_kept_apart():
    regions = (
        Region(('person', 'man'), (0, 0, 0.5, 0.5)),
        Region(('person', 'woman'), (0.5, 0.5, 1, 1)),
        Region(('frisbee',), (1, 0, 1, 1)),  # no area: cut off by the crop
    )
    even = np.full((5, 4), 0.25)
    words = ('man', 'persons', 'woman', 'frisbee', 'dog')
    result = attention_correctness([Item(words, even, (2, 2), regions), Item(('frisbee',), even, (2, 2), ())])
    assert list(result['by_name']) == ['man', 'person', 'woman']
    assert [row['mass'] for row in result['by_name'].values()] == pytest.approx([0.25, 0.5, 0.25])
    assert result['n_words'] == 3 and result['mass_ratio'] == pytest.approx(1)
    # Of equal cells the first is the most attended: the man's.
    assert [row['pointing'] for row in result['by_name'].values()] == [1, 1, 0]


def test_a_name_of_two_words_is_one_mention_with_their_mean_attention():
    light = Region(('traffic light',), (0, 0, 1, 0.5))
    alphas = np.array([[0, 1], [1, 0], [0.4, 0.6]])  # on 2 rows, 1 column
    result = attention_correctness([Item(('red', 'traffic', 'lights'), alphas, (2, 1), (light,))])
    # Mean of rows 1 and 2: (.7, .3).
    assert result['n_words'] == 1 and result['mass'] == pytest.approx(0.7) and result['pointing'] == 1
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
        assert result == {'n_words': 0, 'mass': None, 'uniform_mass': None, 'mass_ratio': None, 'pointing': None,
                          'uniform_pointing': None, 'by_name': {}}


@pytest.mark.parametrize(('words', 'names', 'found'), [
    ('two dogs and a bus', ['dog', 'bus'], [('dog', 1, 2), ('bus', 4, 5)]),
    ('buses boxes dishes', ['bus', 'box', 'dish'], [('bus', 0, 1), ('box', 1, 2), ('dish', 2, 3)]),
    ('a hot dog by a dog', ['dog', 'hot dog'], [('hot dog', 1, 3), ('dog', 5, 6)]),
    ('hot', ['dog', 'hot dog'], []),
    ('a big hot', ['hot dog', 'big hot dog'], []),
    ('traffic light traffic lights', ['traffic light'], [('traffic light', 0, 2), ('traffic light', 2, 4)]),
    ('her glasses', ['glass', 'glasses'], [('glasses', 1, 2)]),
    ('a t shirt', ['T-shirt'], [('T-shirt', 1, 3)]),
    ('a dogma', ['dog', ''], []),
    ('', ['dog'], []),
    ('a dog', [], []),
])
def test_names_in_captions(words, names, found):
    assert find_mentions(words.split(), names) == [Mention(*mention) for mention in found]
