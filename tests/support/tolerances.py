"""How far apart the same result may lie when it was computed otherwise.

In another batch, with another number of threads, graph or processor. Where the processor, the
batch, the threads and the graph are the same, tests want every bit and need nothing of this.
"""

import numpy as np

# the largest step between neighbours of float16, relative to them (10 bits after the first)
FLOAT16_UNIT = 2**-10
# alphas, betas and probabilities are rounded to 5 digits in JSON, so a boundary moves them by this
JSON_UNIT = 1e-5

# Features are kept and fed as float16. Another order of summation flips a rounding, which moves a
# feature by one unit, and alpha, through the attention's scores, by one in its numerator and one in
# its denominator. Measured: 5e-4 with ONEDNN_MAX_CPU_ISA=AVX2 and without; 1.2e-3 where one feature
# in a hundred of the sample run was moved by hand.
ALPHA = 2 * FLOAT16_UNIT
# All else sees the features through the context, a mean over the sample run's 256 places, in which
# single roundings shrink by the root of that. Measured for log-probabilities and betas, every
# feature moved by hand: 1.2e-5 and 3.3e-5.
AFTER_CONTEXT = ALPHA / 256**0.5
# Numbers near 0 are differences of sums near 1, known to some units of float32, 1.2e-7.
NEAR_ZERO = 1e-6


def summed(n_terms, dtype=np.float32):
    """Return how far a sum of n terms may differ, relative to the sum of their sizes.

    At most by n roundings, in whatever order.
    """
    return n_terms * float(np.finfo(dtype).eps)


def assert_same_but_rounding(found, expected, n_terms):
    """Assert one shape and equal whole numbers, others equal but for rounding.

    They are sums of `n_terms` in their dtype.
    """
    found, expected = np.asarray(found), np.asarray(expected)
    if found.dtype.kind == 'f':
        tolerance = summed(n_terms, found.dtype)
        np.testing.assert_allclose(found, expected, rtol=tolerance, atol=tolerance)
    else:
        np.testing.assert_array_equal(found, expected)


def assert_same_features(found, expected, n_terms):
    """Assert that float16 features are one encoder's.

    Sums of `n_terms` in float32, of which each may round to a neighbour.
    """
    found, expected = (np.asarray(values, np.float32) for values in (found, expected))
    np.testing.assert_allclose(found, expected, rtol=FLOAT16_UNIT + summed(n_terms),
                               atol=summed(n_terms) * np.abs(expected).max())


def assert_same_caption(found, expected):
    """Assert that Captions are of one photo: same words, numbers as near as features allow.

    The sample run's words have a margin: its two best captions of a photo are 3 apart in
    log-probability at least, where the roundings move 1e-4.
    """
    assert found.words == expected.words and found.ended == expected.ended
    for name in ('alphas', 'betas', 'probabilities', 'log_prob', 'score'):
        np.testing.assert_allclose(getattr(found, name), getattr(expected, name), atol=NEAR_ZERO,
                                   err_msg=name, rtol=ALPHA if name == 'alphas' else AFTER_CONTEXT)


def assert_same_record(found, expected):
    """Assert that captions as in JSON are of one photo.

    All that is no float is equal, floats as in `assert_same_caption`.
    """
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        if name in ('alphas', 'betas', 'probabilities', 'log_prob', 'score'):
            np.testing.assert_allclose(found[name], value, atol=NEAR_ZERO + JSON_UNIT, err_msg=name,
                                       rtol=ALPHA if name == 'alphas' else AFTER_CONTEXT)
        else:
            assert found[name] == value, name
