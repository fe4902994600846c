"""What draws from one random seed: a number for every use, so that no two uses draw alike.

`tf.random.experimental.stateless_fold_in(seed, stream)` makes a seed of a seed and a number. What
is drawn is then a function of the seed and the stream alone, whatever else a graph draws; that is
what resuming bit for bit rests on, and why a value here never changes.
"""

import enum


class RandomStream(enum.IntEnum):
    """The uses of a seed; those that end in S are followed by a number of their own."""

    DROPOUT_STATE = 0  # dropout of h before the output layer
    DROPOUT_OUTPUT = 1  # dropout of the output layer's hidden units
    OUTPUT_LAYERS = 10  # plus the layer: dropout of extra output layers
    INITIAL_LAYERS = 20  # plus the layer: dropout of extra layers of the first state
    LOCATIONS = 101  # locations of hard attention while training
    SEMI_SAMPLING = 102  # the coin of each caption: its draw, or the expectation
    DECODED_LOCATIONS = 103  # locations of hard attention while decoding
    DECODED_WORDS = 104  # words of a sampled caption
    WORD_DROPOUT = 201  # which input words become <UNK>
    SCHEDULED_SAMPLING = 202  # which input words are the model's own
    SAMPLED_WORDS = 1000  # plus the step: the model's own words
    AUGMENTATION = 0x0F11  # what an augmented photo is shown as
