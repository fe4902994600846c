"""Which validation's model is the best one; validations as a whole are tested in test_solver.py."""

from core.training.validation import takes_the_place


def test_scores_of_nothing_order_no_models():
    """BLEU-4 of captions without any four words in a row: the later model counts.

    It is not better, so patience goes on.
    """
    assert takes_the_place(0.0, None) == (True, True)
    assert takes_the_place(3e-13, 4.6e-11) == takes_the_place(4.6e-11, 3e-13) == (True, False)
    assert takes_the_place(0.2, 4.6e-11) == takes_the_place(0.2, 0.1) == (True, True)
    for worse in ((0.1, 0.2), (0.2, 0.2), (1e-12, 0.2)):
        assert takes_the_place(*worse) == (False, False)
