"""Random streams: a number for every use of one random seed, so that no two uses draw alike.

`tf.random.experimental.stateless_fold_in(seed, stream)` makes a seed of a seed and a number. What
is drawn is then a function of the seed and the stream alone, whatever else a graph draws. Resuming
bit for bit rests on that: a run that is stopped and goes on draws what it would have drawn, so the
values are part of what a run is, and never change.
"""

import enum


class RandomStream(enum.IntEnum):
    """The uses of a seed; "plus" says that a use has a stream for each of its parts."""

    DROPOUT_STATE = 0  # dropout of h before the output layer
    DROPOUT_OUTPUT = 1  # dropout of the output layer's hidden units
    OUTPUT_LAYERS = 10  # plus the layer (from 1): dropout of extra output layers
    INITIAL_LAYERS = 20  # plus the layer (from 1): dropout of extra layers of the first state
    LOCATIONS = 101  # locations of hard attention while training
    SEMI_SAMPLING = 102  # the coin of each caption: its drawn locations, or the expectation
    DECODED_LOCATIONS = 103  # locations of hard attention while decoding
    DECODED_WORDS = 104  # words of a sampled caption
    REPLACED_PLACES = 105  # random places of the faithfulness test
    WORD_DROPOUT = 201  # which input words become <UNK>
    SCHEDULED_SAMPLING = 202  # which input words are drawn from the model
    SAMPLED_WORDS = 1000  # plus the step (from 0): the words that the model draws for itself
    AUGMENTATION = 0x0F11  # windows and mirrorings of photos; for NumPy's generators, not folded in
