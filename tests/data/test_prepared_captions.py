"""What prepro.py writes of captions: words, numbers, the ways to cut them."""

import shutil

import numpy as np
import pytest

from core.common.errors import InputError
from core.data.data_dir import DataDir
from core.data.vocabulary import Vocabulary
from core.datasets.records import Record
from core.encoders.encoder import describe
from tests.support.files import data_contents, edited_json
from tests.support.prepared import make, records_in
from tests.support.sample_photos import photo


@pytest.fixture(scope='module')
def spec():
    return describe('vgg19', 'conv1_2', 32, seed=3)


class TestCaptions:
    """What is written of captions, with numbers worked out by hand."""

    RECORDS = [  # (split, captions)
        ('train', ('A red dog runs.', 'a Dog!')),
        ('dev', ('a zebra', 'a dog')),
        ('train', ('...', 'a big red dog runs very fast', 'RED-dog')),
        ('test', ()),
        ('train', ()),
    ]

    def make(self, tmp_path, spec, **options):
        (tmp_path / 'photos').mkdir(exist_ok=True)
        records = [Record(i, photo(tmp_path / 'photos' / f'{i}.png', i), captions, split)
                   for i, (split, captions) in enumerate(self.RECORDS)]
        lines = []
        manifest = make(records, spec, tmp_path / 'data', lines, **{'max_length': 4, **options})
        return manifest, DataDir(tmp_path / 'data'), lines

    def test_by_hand(self, tmp_path, spec):
        manifest, data, lines = self.make(tmp_path, spec)
        # dog 4, a 3, red 3, runs 2, then big, fast, very: too long captions count for the
        # vocabulary, dev does not.
        assert data.vocabulary.idx_to_word[4:] == ['dog', 'a', 'red', 'runs', 'big', 'fast', 'very']
        train, dev, test = (data.split(split) for split in ('train', 'dev', 'test'))
        assert train.captions.tolist() == [[1, 5, 6, 4, 7, 2], [1, 5, 4, 2, 0, 0],
                                           [1, 6, 4, 2, 0, 0]]
        assert train.image_idxs.tolist() == [0, 0, 1]
        assert dev.captions.tolist() == [[1, 5, 3, 2, 0, 0], [1, 5, 4, 2, 0, 0]]  # zebra is unknown
        assert dev.image_idxs.tolist() == [0, 0]
        assert test.captions.shape == (0, 6) and test.image_ids == [3]
        assert train.captions.dtype == train.image_idxs.dtype == np.int32
        assert [list(captions) for split, captions in self.RECORDS
                if split == 'train'] == train.references
        assert manifest['splits'] == {
            'train': {'images': 3, 'captions': 3, 'too_long': 1, 'empty': 1},
            'dev': {'images': 1, 'captions': 2, 'too_long': 0, 'empty': 0},
            'test': {'images': 1, 'captions': 0, 'too_long': 0, 'empty': 0}}
        assert manifest['vocabulary'] == {'words': 11, 'vocab_size': 100, 'min_count': 1}
        assert ('train: 3 captions; 1 of more than 4 words and 1 without words are not trained on'
                in '\n'.join(lines))

    def test_vocab_size_and_min_count(self, tmp_path, spec):
        assert self.make(tmp_path, spec, vocab_size=2)[1].vocabulary.idx_to_word[4:] == ['dog', 'a']
        shutil.rmtree(tmp_path / 'data')
        data = self.make(tmp_path, spec, min_count=2)[1]
        assert data.vocabulary.idx_to_word[4:] == ['dog', 'a', 'red', 'runs']

    def test_a_given_vocabulary_is_kept(self, tmp_path, spec):
        vocabulary = Vocabulary(['zebra', 'a'])
        data = self.make(tmp_path, spec, vocabulary=vocabulary)[1]
        assert data.vocabulary == vocabulary
        assert data.split('dev').captions.tolist() == [[1, 5, 4, 2, 0, 0], [1, 5, 3, 2, 0, 0]]

    def test_raw_tokens(self, tmp_path, spec):
        manifest, data, _ = self.make(tmp_path, spec, tokens='raw')
        assert manifest['tokens'] == data.tokens == 'raw'
        assert data.vocabulary.idx_to_word[4:] == [
            'a', 'dog', 'red', '...', 'A', 'Dog!', 'RED-dog', 'big', 'fast', 'runs', 'runs.',
            'very']
        train = data.split('train')
        assert [data.vocabulary.decode(caption) for caption in train.captions] == [
            'A red dog runs.', 'a Dog!', '...', 'RED-dog']
        assert data.vocabulary.decode(data.split('dev').captions[1]) == 'a dog'
        # Only punctuation is a caption too.
        assert manifest['splits']['train'] == {'images': 3, 'captions': 4, 'too_long': 1,
                                               'empty': 0}

    def test_raw_tokens_in_lower_case(self, tmp_path, spec):
        data = self.make(tmp_path, spec, tokens='raw_lower')[1]
        assert [data.vocabulary.decode(caption) for caption in data.split('train').captions] == [
            'a red dog runs.', 'a dog!', '...', 'red-dog']


def test_data_from_before_there_was_a_choice_have_words(tmp_path, spec):
    records = records_in(tmp_path / 'photos', 4)
    make(records, spec, tmp_path / 'data')
    for name in ('plan.json', 'manifest.json'):
        with edited_json(tmp_path / 'data' / name) as entries:
            assert entries.pop('tokens') == 'words'
    before = data_contents(tmp_path / 'data')
    assert DataDir(tmp_path / 'data').tokens == 'words'
    make(records, spec, tmp_path / 'data')
    with pytest.raises(InputError, match="tokens was 'words', now 'raw_lower'"):
        make(records, spec, tmp_path / 'data', tokens='raw_lower')
    assert data_contents(tmp_path / 'data') == before


@pytest.mark.parametrize('tokens', ['letters', ['raw'], None])
def test_an_unknown_way_to_cut_is_refused(tmp_path, spec, tokens):
    make(records_in(tmp_path / 'photos', 4), spec, tmp_path / 'data')
    with edited_json(tmp_path / 'data' / 'manifest.json') as manifest:
        manifest['tokens'] = tokens
    with pytest.raises(InputError, match='manifest.json: has captions cut in an unknown way'):
        DataDir(tmp_path / 'data')
