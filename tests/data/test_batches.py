"""Batches: which captions, in what order, and read ahead by a thread."""

import itertools
import threading
import time

import numpy as np
import pytest

from core.common.errors import InputError
from core.data.batches import Batches, prefetch
from core.data.data_dir import CaptionData
from core.data.feature_file import ArrayFeatures

WORDS = [3, 1, 2, 3, 1, 2, 3, 1, 3, 2, 2]  # of the captions below, without <START> and <END>
# lengths [2, 2, 2], [1, 1, 1], [2, 3, 3], [3, 3]
EPOCH_0 = [[10, 5, 2], [7, 4, 1], [9, 0, 8], [6, 3]]
EPOCH_1 = [[10, 6, 0], [3, 8], [7, 4, 1], [2, 5, 9]]


def data_of(words, n_images=4, seed=0):
    """Captions of so many words; the features of image i are all i, stored the other way round."""
    captions = np.zeros((len(words), 7), np.int32)
    for row, length in zip(captions, words, strict=True):
        row[:length + 2] = [1, *range(4, 4 + length), 2]
    images = np.random.default_rng(seed).integers(0, n_images, len(words))
    array = np.arange(n_images, dtype=np.float16)[::-1, None, None] * np.ones(
        (1, 5, 3), np.float16)
    rows = np.arange(n_images)[::-1]
    return CaptionData(ArrayFeatures(array), rows, captions, images, list(range(n_images)),
                       [[]] * n_images)


def numbers(batches, epoch=0, start=0):
    return [batch.index.tolist() for batch in batches.epoch(epoch, start)]


def test_exact_batches():
    batches = Batches(data_of(WORDS), batch_size=3, seed=1)
    assert len(batches) == 4
    assert numbers(batches) == EPOCH_0
    assert numbers(batches, epoch=1) == EPOCH_1


def test_a_batch_holds_the_captions_and_the_features_of_their_images():
    data = data_of(WORDS)
    for batch in Batches(data, 3, 1).epoch(0):
        assert batch.captions.dtype == np.int32 and batch.features.dtype == np.float32
        np.testing.assert_array_equal(batch.captions, data.captions[batch.index])
        assert batch.features.shape == (len(batch.index), 5, 3)
        np.testing.assert_array_equal(batch.features[:, 4, 2], data.image_idxs[batch.index])


@pytest.mark.parametrize('n_captions, size', [(1, 64), (64, 64), (65, 64), (1000, 64), (13, 1)])
def test_every_caption_once_an_epoch(n_captions, size):
    words = np.random.default_rng(2).integers(1, 6, n_captions)
    batches = Batches(data_of(words), size, seed=3)
    for epoch in range(3):
        plan = numbers(batches, epoch)
        assert sorted(itertools.chain.from_iterable(plan)) == list(range(n_captions))
        assert len(plan) == len(batches) == -(-n_captions // size)
        sizes = sorted(map(len, plan))
        assert sizes[1:] == [size] * (len(plan) - 1) and 0 < sizes[0] <= size


def test_lengths_in_a_batch_are_equal_but_at_the_borders():
    words = np.random.default_rng(2).integers(1, 6, 2000)
    plan = Batches(data_of(words), 64, seed=3).plan(0)
    mixed = [index for index in plan if len(set(words[index])) > 1]
    assert len(mixed) <= 4  # one for each border between 5 lengths
    assert all(np.ptp(words[index]) <= 1 for index in mixed)


def test_long_and_short_batches_are_mixed():
    words = np.random.default_rng(2).integers(1, 6, 2000)
    means = [words[index].mean() for index in Batches(data_of(words), 64, seed=3).plan(0)]
    assert means != sorted(means) and means != sorted(means, reverse=True)


def test_captions_of_one_length_meet_others_each_epoch():
    batches = Batches(data_of([2] * 200), 20, seed=5)
    together = [{frozenset(index.tolist()) for index in batches.plan(epoch)} for epoch in range(2)]
    assert not together[0] & together[1]


def test_the_order_depends_on_seed_and_epoch_only():
    data = data_of(WORDS * 10)
    mine = Batches(data, 3, seed=7)
    plans = [numbers(mine, epoch) for epoch in range(3)]
    again = Batches(data, 3, seed=7)
    assert [numbers(again, epoch) for epoch in (2, 0, 1)] == [plans[2], plans[0], plans[1]]
    assert plans[0] != plans[1] != plans[2] != plans[0]
    assert numbers(Batches(data, 3, seed=8)) != plans[0]


def test_an_epoch_goes_on_from_its_middle():
    batches = Batches(data_of(WORDS), 3, seed=1)
    whole = numbers(batches, 4)
    for start in range(len(batches) + 1):
        assert numbers(batches, 4, start) == whole[start:]


def covered(plan):
    return sorted(number for index in plan for number in np.ravel(index).tolist())


@pytest.mark.parametrize(('options', 'bucket'), [
    ({'batch_by': 'one_length', 'bucket_width': 3}, lambda words: words),
    ({'batch_by': 'bucket', 'bucket_width': 1}, lambda words: words),
    # A caption of n words has n + 1 with <END>: buckets of 1 to 2, 3 to 4, 5 to 6.
    ({'batch_by': 'bucket', 'bucket_width': 2}, lambda words: words // 2),
])
def test_batches_of_one_length_or_bucket_only(options, bucket):
    words = np.random.default_rng(2).integers(0, 6, 1000)
    batches = Batches(data_of(words), 64, 3, **options)
    keys = bucket(words)
    expected = sum(-(-count // 64) for count in np.unique(keys, return_counts=True)[1])
    plans = [batches.plan(epoch) for epoch in range(3)]
    for plan in plans:
        assert covered(plan) == list(range(1000)) and len(plan) == len(batches) == expected
        for key in np.unique(keys):
            sizes = sorted(len(index) for index in plan if keys[index[0]] == key)
            assert sizes[1:] == [64] * (len(sizes) - 1)  # one smaller batch at most
        assert all(len(set(keys[index])) == 1 for index in plan)
        order = [keys[index[0]] for index in plan]
        assert order != sorted(order)
    assert any(len(set(words[index])) > 1 for index in plans[0]) == (
        bucket(np.array([2, 3]))[0] == bucket(3))
    first, second = ({frozenset(index.tolist()) for index in plan} for plan in plans[:2])
    assert not first & second
    again = Batches(data_of(words), 64, 3, **options)
    assert [index.tolist() for index in again.plan(2)] == [index.tolist() for index in plans[2]]


def test_captions_of_a_bucket_are_shuffled():
    """In a bucket no order by length is left, other than with 'sorted'."""
    words = np.random.default_rng(2).integers(2, 4, 600)  # 3 or 4 words with <END>: one bucket of 2
    plan = Batches(data_of(words), 20, 3, batch_by='bucket', bucket_width=2).plan(0)
    assert all(len(set(words[index])) == 2 for index in plan)


@pytest.fixture
def uneven():
    """Images 0 to 9 with 0, 1, 2, ... captions, in random order."""
    images = np.random.default_rng(0).permutation(np.repeat(np.arange(10), np.arange(10)))
    data = data_of(np.random.default_rng(2).integers(1, 6, len(images)), n_images=10)
    data.image_idxs = images
    return data


def test_batches_by_image(uneven):
    # Images of n captions: n // 3 chunks of 3 and one of n % 3.
    batches = Batches(uneven, 7, seed=3, batch_by='image', captions_per_image=3)
    # 12 chunks of 3, two a batch: 6; 3 chunks of 1 in one batch; 3 chunks of 2, three a batch: 1.
    assert len(batches) == 6 + 1 + 1
    seen = []
    for epoch in range(3):
        sizes = []
        items = list(batches.epoch(epoch))
        assert len(items) == len(batches)
        assert sorted(np.concatenate([batch.index for batch in items]).tolist()) == list(range(45))
        for batch in items:
            n, per_image = len(batch.features), len(batch.index) // len(batch.features)
            sizes.append((n, per_image))
            assert len(batch.index) == n * per_image <= 7
            np.testing.assert_array_equal(batch.captions, uneven.captions[batch.index])
            # The features of image i, which are all i, stand for rows i C to i C + C - 1.
            np.testing.assert_array_equal(np.repeat(batch.features[:, 4, 2], per_image),
                                          uneven.image_idxs[batch.index])
            assert batch.features.shape == (n, 5, 3) and batch.features.dtype == np.float32
        assert sorted(sizes) == [(2, 3)] * 6 + [(3, 1), (3, 2)]
        seen.append([batch.index.tolist() for batch in items])
    again = Batches(uneven, 7, seed=3, batch_by='image', captions_per_image=3)
    assert numbers(again, 2) == seen[2] and numbers(again, 1, start=5) == seen[1][5:]
    assert seen[0] != seen[1]
    together = [{frozenset(chunk) for index in plan
                 for chunk in zip(*[iter(index)] * 3, strict=False)} for plan in seen]
    assert together[0] != together[1]  # an image's captions are drawn into chunks anew


def test_images_that_meet_in_a_batch_change(uneven):
    uneven.image_idxs = np.repeat(np.arange(9), 5)
    batches = Batches(uneven, 15, seed=3, batch_by='image', captions_per_image=5)
    met = [{frozenset(uneven.image_idxs[np.ravel(index)].tolist()) for index in batches.plan(epoch)}
           for epoch in range(2)]
    assert met[0] != met[1] and all(len(images) == 3 for images in met[0])


def test_a_batch_must_hold_the_captions_of_an_image(uneven):
    with pytest.raises(InputError, match='batch_size counts captions: 4 do not hold the 5'):
        Batches(uneven, 4, 1, batch_by='image', captions_per_image=5)
    assert len(Batches(uneven, 4, 1, batch_by='one_length', captions_per_image=5))


@pytest.mark.parametrize('batch_by', ['sorted', 'one_length', 'bucket', 'image'])
def test_no_captions_make_no_batches(batch_by):
    assert len(Batches(data_of([]), 8, 1, batch_by=batch_by)) == 0


def test_pixels_are_asked_for_with_epoch_and_captions_and_stay_bytes(uneven):
    """As `image_data.ImageData` gives them, whose augmentation depends on both."""
    requests = []

    def read_batch(captions, images, epoch):
        requests.append((captions.tolist(), images.tolist(), epoch))
        return np.zeros((len(images), 8, 8, 3), np.uint8)

    uneven.read_batch = read_batch
    batches = list(
        Batches(uneven, 7, seed=3, batch_by='image', captions_per_image=3, dtype=np.uint8).epoch(4))
    assert all(batch.features.dtype == np.uint8 for batch in batches)
    for batch, (captions, images, epoch) in zip(batches, requests, strict=True):
        assert captions == batch.index.tolist() and epoch == 4
        assert images == uneven.image_idxs[batch.index][:: len(captions) // len(images)].tolist()


def test_prefetch_keeps_order():
    assert list(prefetch(range(200), depth=3)) == list(range(200))
    assert list(prefetch([])) == []
    assert list(prefetch([None, None])) == [None, None]


@pytest.mark.parametrize('error', [ValueError('broken file'), KeyboardInterrupt()])
def test_prefetch_raises_what_its_thread_met_after_what_came_before(error):
    def items():
        yield 1
        yield 2
        raise error

    stream = prefetch(items())
    assert [next(stream), next(stream)] == [1, 2]
    with pytest.raises(type(error)) as caught:
        next(stream)
    assert caught.value is error
    assert not threads()


def threads():
    return [thread for thread in threading.enumerate() if thread.name == 'prefetch']


def settled(read):
    """Return the value of `read()` once it has not changed for a while."""
    value, since = read(), time.monotonic()
    while time.monotonic() - since < 0.3:
        time.sleep(0.01)
        if read() != value:
            value, since = read(), time.monotonic()
    return value


def test_prefetch_reads_ahead_but_not_further_than_its_depth():
    produced = []

    def items():
        for number in range(1000):
            produced.append(number)
            yield number

    stream = prefetch(items(), depth=3)
    assert not produced  # nothing happens before it is asked for
    for consumed in range(1, 4):
        next(stream)
        # `depth` wait, and one is in the thread's hand
        assert 3 <= settled(lambda: len(produced)) - consumed <= 4
    stream.close()


@pytest.mark.parametrize('after', [1, 5])
def test_a_consumer_that_stops_ends_the_thread(after):
    stream = prefetch(itertools.count(), depth=2)
    for _ in range(after):
        next(stream)
    assert len(threads()) == 1
    began = time.monotonic()
    stream.close()
    assert not threads() and time.monotonic() - began < 5


def test_a_consumer_that_fails_ends_the_thread():
    with pytest.raises(ZeroDivisionError):
        for number in prefetch(itertools.count(), depth=2):
            1 / (number - 3)
    del number
    deadline = time.monotonic() + 5
    while threads() and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not threads()
