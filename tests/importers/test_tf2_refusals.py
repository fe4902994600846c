"""Checkpoints and vocabularies of the TF2 tutorial that are damaged or another's."""

import pathlib
import shutil

import numpy as np
import pytest
import tf_keras

from core.common.errors import InputError
from core.importers import tf2_tutorial
from core.runtime.backend import tf
from tests.support.tf2_tutorial_model import H, V, save, save_words, tutorial


@pytest.mark.parametrize(('content', 'message'), [
    ({'a': 2, '<end>': 4}, 'none of its words is <START>'),
    ({'a': 2, '<start>': 3}, 'none of its words is <END>'),
    ({'<start>': 3, '<end>': 4}, 'no ordinary words'),
    ({'a': 2, 'b': 2, '<start>': 3, '<end>': 4}, 'same number 2'),
    ({'a': 'two'}, "'a' has the number 'two'"),
    ({'a': [[1]]}, "'a' has the number a value of type list"),
    ({'\u00b2': 'a'}, "has the number 'a', not a whole number"),
    ({'a' * 10**6: None}, r"'a{5,20}\.\.\.a{5,20}' has the number nothing"),
    ({'config': {'num_words': 3}}, 'a tokenizer without word_index'),
    ([1, 2], 'neither a tokenizer'),
    (['a', 'dog'], 'must begin as get_vocabulary'),
    (['', '[UNK]', *map(str, range(V))], 'the model has 13 rows'),
    ('a\ndog\n', 'must begin as get_vocabulary'),
])
def test_vocabularies_that_are_refused(tmp_path, tf2_checkpoint, content, message):
    with pytest.raises(InputError, match=message):
        tf2_tutorial.read(tf2_checkpoint[0], save_words(tmp_path, content))


def test_files_that_are_refused(tmp_path, tf2_checkpoint):
    with pytest.raises(InputError, match='save tokenizer.to_json'):
        tf2_tutorial.read(tf2_checkpoint[0], None)
    with pytest.raises(InputError, match='cannot be read'):
        tf2_tutorial.read(tf2_checkpoint[0], tmp_path / 'none.json')
    (tmp_path / 'tokenizer.pkl').write_bytes(b'\x80\x04\x95\xff\xfe')
    with pytest.raises(InputError, match='neither JSON nor text'):
        tf2_tutorial.read(tf2_checkpoint[0], tmp_path / 'tokenizer.pkl')
    with pytest.raises(InputError, match='no checkpoint in this directory'):
        tf2_tutorial.read(tmp_path, save_words(tmp_path))


def test_other_checkpoints_are_refused(tmp_path):
    words = save_words(tmp_path)
    other = tf.train.Checkpoint(model=tf_keras.layers.Dense(2),
                                decoder=tf.Module()).save(str(tmp_path / 'other'))
    with pytest.raises(InputError, match="no object 'encoder' but decoder, model"):
        tf2_tutorial.read(other, words)


class Reader:
    """A checkpoint reader whose object graph is `graph`, or an error."""

    def __init__(self, graph):
        self.graph = graph

    def has_tensor(self, name):
        return True

    def get_tensor(self, name):
        if isinstance(self.graph, Exception):
            raise self.graph
        return self.graph


@pytest.mark.parametrize('graph', [
    b'', b'\xff\xff no graph', np.zeros(3), 7, IndexError('Read less bytes than requested'),
    RuntimeError(),
    # node 0 has the children encoder and decoder, which are nodes 1 and 9: there is no node 9
    b'\x0a\x1a\x0a\x0b\x08\x01\x12\x07encoder\x0a\x0b\x08\x09\x12\x07decoder\x0a\x00',
])
def test_damaged_object_graphs(graph):
    with pytest.raises(InputError,
                       match='m: its object graph cannot be read, the checkpoint is damaged'):
        tf2_tutorial._places('m', Reader(graph))


def test_a_data_file_that_was_cut(tmp_path, tf2_checkpoint):
    copied = tmp_path / 'train'
    shutil.copytree(pathlib.Path(tf2_checkpoint[0]).parent, copied)
    prefix = copied / pathlib.Path(tf2_checkpoint[0]).name
    data = copied / f'{prefix.name}.data-00000-of-00001'
    data.write_bytes(data.read_bytes()[:100])
    with pytest.raises(InputError, match='the checkpoint is damaged'):
        tf2_tutorial.read(prefix, save_words(tmp_path))


def test_missing_surplus_and_wrong_variables_are_named(tmp_path):
    encoder, decoder = tutorial(tf_keras)
    decoder.fc2 = tf_keras.layers.Dense(V + 1)
    decoder.fc2.build((None, H))
    decoder.attention.V = tf_keras.layers.Dense(1, use_bias=False)
    decoder.attention.V.build((None, H))
    decoder.norm = tf_keras.layers.BatchNormalization()
    decoder.norm.build((None, H))
    with pytest.raises(InputError) as error:
        tf2_tutorial.read(save(tmp_path, encoder, decoder), save_words(tmp_path))
    message = str(error.value)
    assert 'missing: decoder/attention/V/bias [1]' in message
    assert 'surplus: ' in message and 'decoder/norm/gamma [11]' in message
    assert 'decoder/fc2/kernel [11, 14] instead of [11, 13]' in message


def test_a_gru_that_resets_before_is_refused(tmp_path):
    encoder, decoder = tutorial(tf_keras, reset_after=False)
    with pytest.raises(InputError, match='reset_after=False'):
        tf2_tutorial.read(save(tmp_path, encoder, decoder), save_words(tmp_path))
