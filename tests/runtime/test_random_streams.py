"""Random streams: one number for each use of a seed."""

import collections

from core.runtime.random_streams import RandomStream

# first and last number added to a stream, for more layers and words than a captioner has
PARTS = {RandomStream.OUTPUT_LAYERS: (1, 9), RandomStream.INITIAL_LAYERS: (1, 9),
         RandomStream.SAMPLED_WORDS: (0, 2000)}


def test_values_are_those_that_older_runs_drew_with():
    assert {stream.name: stream.value for stream in RandomStream} == {
        'DROPOUT_STATE': 0, 'DROPOUT_OUTPUT': 1, 'OUTPUT_LAYERS': 10, 'INITIAL_LAYERS': 20,
        'LOCATIONS': 101, 'SEMI_SAMPLING': 102, 'DECODED_LOCATIONS': 103, 'DECODED_WORDS': 104,
        'REPLACED_PLACES': 105, 'WORD_DROPOUT': 201, 'SCHEDULED_SAMPLING': 202,
        'SAMPLED_WORDS': 1000, 'AUGMENTATION': 0x0F11}


def test_no_name_is_another_of_the_same_value():
    assert len(RandomStream) == len(RandomStream.__members__)


def test_streams_of_layers_and_steps_run_into_no_other():
    uses = collections.Counter()
    for stream in RandomStream:
        first, last = PARTS.get(stream, (0, 0))
        uses.update(range(stream + first, stream + last + 1))
    assert sum(uses.values()) == len(RandomStream) - len(PARTS) + 9 + 9 + 2001
    assert [number for number, n in uses.items() if n > 1] == []
