"""Checkpoints of the TF2 tutorial: imported ones have the tutorial's loss and gradients.

The tutorial's architecture is written here with Keras layers and run eagerly. Its words are numbered as a Keras
Tokenizer does it, so that a wrong order of rows cannot go unnoticed.
"""

import json
import pathlib
import shutil

import numpy as np
import pytest

from core.common.errors import InputError
from core.config.model import ModelConfig
from core.data.vocabulary import END, NULL, SPECIALS, START, UNK, Vocabulary
from core.importers import tf2_tutorial
from core.importers.make_run import make_run
from core.model.caption_generator import CaptionGenerator
from core.runs import run_dir
from core.runtime.backend import tf
from tests.support import tiny_model

tf_keras = pytest.importorskip('tf_keras')

N, L, D, K, M, H, V, T = 3, 5, 7, 9, 6, 11, 13, 4
WORD_INDEX = {'<unk>': 1, 'a': 2, '<start>': 3, '<end>': 4, 'dog': 5, 'red': 6, 'runs': 7, 'on': 8, 'grass': 9,
              'the': 10, 'cat': 11, 'sees': 12, 'rare': 13, '<pad>': 0}
ORDINARY = ['a', 'dog', 'red', 'runs', 'on', 'grass', 'the', 'cat', 'sees']
THEIRS = np.array([[3, 2, 12, 8, 4], [3, 7, 4, 0, 0], [3, 1, 5, 4, 0]])
OURS = np.array([[START, 4, 12, 8, END], [START, 7, END, NULL, NULL], [START, UNK, 5, END, NULL]], np.int32)


def tutorial(k, carry_state=False, images=None, **gru):
    """The tutorial's encoder and decoder with the layers of `k`, tf_keras or keras; `gru` are options of its GRU."""

    class Attention(k.Model):
        def __init__(self):
            super().__init__()
            self.W1, self.W2, self.V = k.layers.Dense(H), k.layers.Dense(H), k.layers.Dense(1)

        def call(self, features, hidden):
            score = self.V(tf.tanh(self.W1(features) + self.W2(hidden[:, tf.newaxis])))
            return tf.reduce_sum(tf.nn.softmax(score, axis=1) * features, axis=1)

    class Encoder(k.Model):
        def __init__(self):
            super().__init__()
            self.fc = k.layers.Dense(K)

        def call(self, features):
            return tf.nn.relu(self.fc(features))

    class Decoder(k.Model):
        def __init__(self):
            super().__init__()
            self.embedding = k.layers.Embedding(V, M)
            self.gru = k.layers.GRU(H, return_sequences=True, return_state=True, **gru)
            self.fc1, self.fc2 = k.layers.Dense(H), k.layers.Dense(V)
            self.attention = Attention()
            if gru.get('dropout'):
                self.dropout = k.layers.Dropout(0.5)

        def call(self, words, features, hidden):
            context = self.attention(features, hidden)
            inputs = tf.concat([context[:, tf.newaxis], self.embedding(words)], axis=-1)
            output, state = self.gru(inputs, initial_state=hidden) if carry_state else self.gru(inputs)
            return self.fc2(self.fc1(output)[:, 0]), state

    encoder, decoder = Encoder(), Decoder()
    decoder(THEIRS[:, :1], encoder(features() if images is None else images), tf.zeros([N, H]))
    random = np.random.default_rng(11)
    for variable in encoder.trainable_variables + decoder.trainable_variables:
        scale = (4.0 if variable is decoder.embedding.embeddings else 1.0 if variable is decoder.fc2.kernel else
                 0.1 if variable is decoder.fc2.bias else 0.5)  # so that captions are of several words
        variable.assign(random.normal(0.0, scale, variable.shape))
    return encoder, decoder


def features():
    return np.random.default_rng(4).normal(0.5, 1.0, (N, L, D)).astype(np.float32)


def tutorial_loss(encoder, decoder, images=None):
    """Sum over steps of the mean over the batch of the masked cross entropy, and its gradients."""
    with tf.GradientTape() as tape:
        annotations, hidden, loss = encoder(features() if images is None else images), tf.zeros([N, H]), 0.0
        for t in range(1, THEIRS.shape[1]):
            logits, hidden = decoder(THEIRS[:, t - 1:t], annotations, hidden)
            losses = tf.nn.sparse_softmax_cross_entropy_with_logits(THEIRS[:, t], logits)
            loss += tf.reduce_mean(losses * tf.cast(THEIRS[:, t] != 0, tf.float32))
    variables = encoder.trainable_variables + decoder.trainable_variables
    gradients = [tf.convert_to_tensor(gradient).numpy() for gradient in tape.gradient(loss, variables)]
    return loss.numpy(), gradients


def in_our_names(encoder, decoder, arrays):
    """Arrays in the order of the tutorial's variables -> dict by our names, words in our order."""
    attention, gru = decoder.attention, decoder.gru.cell
    names = {
        'feature_layer/w': encoder.fc.kernel, 'feature_layer/b': encoder.fc.bias,
        'project_features/w': attention.W1.kernel, 'project_features/b': attention.W1.bias,
        'attention_layer/w': attention.W2.kernel, 'attention_layer/b': attention.W2.bias,
        'attention_layer/w_att': attention.V.kernel, 'attention_layer/b_att': attention.V.bias,
        'word_embedding/w': decoder.embedding.embeddings, 'gru/kernel': gru.kernel,
        'gru/recurrent_kernel': gru.recurrent_kernel, 'gru/bias': gru.bias,
        'logits/w_h': decoder.fc1.kernel, 'logits/b_h': decoder.fc1.bias,
        'logits/w_out': decoder.fc2.kernel, 'logits/b_out': decoder.fc2.bias,
    }
    variables = encoder.trainable_variables + decoder.trainable_variables
    found = {name: next(array for variable, array in zip(variables, arrays, strict=True) if variable is wanted)
             for name, wanted in names.items()}
    rows = [0, 3, 4, 1] + [WORD_INDEX[word] for word in ORDINARY]
    return found | {'word_embedding/w': found['word_embedding/w'][rows],
                    'logits/w_out': found['logits/w_out'][:, rows], 'logits/b_out': found['logits/b_out'][rows]}


def save(directory, encoder, decoder, k=tf_keras):
    """What the tutorial's CheckpointManager writes after a step of its optimizer."""
    optimizer = k.optimizers.Adam(0.0)
    variables = encoder.trainable_variables + decoder.trainable_variables
    optimizer.apply_gradients([(tf.zeros(variable.shape), variable) for variable in variables])
    checkpoint = tf.train.Checkpoint(encoder=encoder, decoder=decoder, optimizer=optimizer)
    return tf.train.CheckpointManager(checkpoint, str(directory / 'train'), max_to_keep=5).save()


def save_words(directory, content=None, name='words.json'):
    """A vocabulary file; by default the tutorial's tokenizer."""
    if content is None:
        config = {'num_words': V, 'oov_token': '<unk>', 'word_index': json.dumps(WORD_INDEX)}
        content = {'class_name': 'Tokenizer', 'config': config}
    path = directory / name
    path.write_text(content if isinstance(content, str) else json.dumps(content), encoding='utf8')
    return path


@pytest.fixture(scope='module')
def saved(tmp_path_factory):
    """A checkpoint of the tutorial: (prefix, encoder, decoder)."""
    directory = tmp_path_factory.mktemp('tutorial')
    encoder, decoder = tutorial(tf_keras)
    return save(directory, encoder, decoder), encoder, decoder


def build(imported, **changes):
    config = ModelConfig(**{**imported.options, **changes})
    config.check()
    return CaptionGenerator(Vocabulary(imported.words).word_to_idx, (L, D), n_time_step=T, **vars(config))


@pytest.mark.parametrize('carry_state', [False, True])
def test_loss_and_gradients_are_the_tutorials(tmp_path, carry_state):
    encoder, decoder = tutorial(tf_keras, carry_state)
    expected, gradients = tutorial_loss(encoder, decoder)
    gradients = in_our_names(encoder, decoder, gradients)
    imported = tf2_tutorial.read(save(tmp_path, encoder, decoder), save_words(tmp_path))
    with tiny_model.tf_graph():
        model = build(imported, carry_state=carry_state)
        loss = model.build_model()
        computed = tf.gradients(loss, model.variables)
        with tiny_model.session(model, imported.values) as session:
            fetches = [loss, dict(zip([v.op.name for v in model.variables], map(tf.convert_to_tensor, computed),
                                      strict=True))]
            got, got_gradients = session.run(fetches, {model.features: features(), model.captions: OURS})
    assert got == pytest.approx(expected, abs=1e-4)
    assert got_gradients.keys() == gradients.keys()
    for name, gradient in gradients.items():
        assert np.abs(gradient).max() > 1e-6 or name == 'attention_layer/b_att' or not carry_state, name
        np.testing.assert_allclose(got_gradients[name], gradient, atol=1e-4, err_msg=name)


def test_the_state_does_not_reach_the_cell(saved):
    """Without carry_state the recurrent kernel has no influence: that is the tutorial, and not ours to mend."""
    _, encoder, decoder = saved
    gradients = in_our_names(encoder, decoder, tutorial_loss(encoder, decoder)[1])
    assert not gradients['gru/recurrent_kernel'].any()


def test_greedy_captions_are_the_tutorials(tmp_path, saved):
    prefix, encoder, decoder = saved
    imported = tf2_tutorial.read(prefix, save_words(tmp_path))
    with tiny_model.tf_graph():
        model = build(imported)
        sampled = model.build_sampler(max_len=T)
        with tiny_model.session(model, imported.values) as session:
            captions = session.run(sampled.captions, {model.features: features()})
    ours = {theirs: Vocabulary(imported.words).word_to_idx.get(word) for word, theirs in WORD_INDEX.items()} | {4: END}
    words, hidden, expected = np.full((N, 1), 3), tf.zeros([N, H]), []
    for _ in range(T):
        logits, hidden = decoder(words, encoder(features()), hidden)
        logits = logits.numpy()
        logits[:, [0, 1, 3]] = -np.inf  # padding, the unknown word and the start, which we never write
        words = logits.argmax(axis=1)[:, None]
        expected.append([ours[word] for word in words[:, 0]])
    assert len({word for step in expected for word in step}) > 2  # else this test says little
    for row, caption in enumerate(np.array(expected).T):
        ended = list(caption).index(END) + 1 if END in caption else T
        assert captions[row, :ended].tolist() == caption[:ended].tolist()


@pytest.mark.parametrize('package', ['tf_keras', 'keras'])
def test_both_generations_of_keras(tmp_path, package):
    k = pytest.importorskip(package)
    encoder, decoder = tutorial(k)
    prefix = save(tmp_path, encoder, decoder, k)
    variables = encoder.trainable_variables + decoder.trainable_variables
    expected = in_our_names(encoder, decoder, [variable.numpy() for variable in variables])
    for source in (prefix, f'{prefix}.index', tmp_path / 'train'):
        values = tf2_tutorial.read(source, save_words(tmp_path)).values
        assert values.keys() == expected.keys()
        for name, value in expected.items():
            np.testing.assert_array_equal(values[name], value)
            assert values[name].dtype == np.float32


@pytest.mark.parametrize('package', ['tf_keras', 'keras'])
def test_what_is_no_parameter_does_not_matter(tmp_path, package):
    """Dropout has no parameters; a compiled model's optimizer leads to all of them by a second path."""
    k = pytest.importorskip(package)
    encoder, decoder = tutorial(k)
    expected = tf2_tutorial.read(save(tmp_path, encoder, decoder, k), save_words(tmp_path))
    encoder, decoder = tutorial(k, dropout=0.5, recurrent_dropout=0.5)
    decoder.dropout(tf.ones([2, 2]), training=True)
    decoder.compile('adam', 'mse', metrics=['mae'])
    decoder.optimizer.build(decoder.trainable_variables)
    imported = tf2_tutorial.read(save(tmp_path, encoder, decoder, k), save_words(tmp_path))
    for name, value in expected.values.items():
        np.testing.assert_array_equal(imported.values[name], value)


def test_options(tmp_path, saved):
    imported = tf2_tutorial.read(saved[0], save_words(tmp_path))
    options = ModelConfig(**imported.options)
    assert (options.dim_embed, options.dim_hidden, options.feature_layer) == (M, H, K)
    assert (options.attention_size, options.output_size, options.carry_state) == (H, H, False)
    assert imported.encoder == {'name': 'inception_v3', 'layer': 'mixed10', 'size': 299, 'resize': 'squash'}
    assert any('carry_state' in note for note in imported.notes)


def test_options_are_those_of_the_preset(tmp_path, saved):
    presets = pytest.importorskip('core.config.presets')
    ours = ModelConfig(**tf2_tutorial.read(saved[0], save_words(tmp_path)).options)
    preset = vars(presets.config('tf2').model)
    sizes = {'dim_embed', 'dim_hidden', 'feature_layer', 'attention_size', 'output_size'}
    assert {name: value for name, value in vars(ours).items() if name not in sizes} == {
        name: value for name, value in preset.items() if name not in sizes}


LIST = ['', '[UNK]', 'a', '[START]', '[END]', *[word for word in WORD_INDEX if word in ORDINARY][1:]]


@pytest.mark.parametrize('content', [
    WORD_INDEX,
    {str(number): word for word, number in WORD_INDEX.items()},
    json.dumps(json.dumps({'config': {'num_words': V, 'word_index': json.dumps(WORD_INDEX)}})),
    {'config': {'num_words': None, 'word_index': WORD_INDEX}},
    {word: number for word, number in WORD_INDEX.items() if number},
    {{'<start>': 'startseq', '<end>': 'endseq'}.get(word, word): number for word, number in WORD_INDEX.items()},
    LIST, LIST[1:], '\n'.join(LIST) + '\n', '\r\n'.join(LIST),
], ids=['word_index', 'index_word', 'JSON in JSON', 'tokenizer without limit', 'no padding', 'startseq', 'list',
        'list without padding', 'text', 'text of Windows'])
def test_forms_of_the_vocabulary(tmp_path, saved, content):
    expected = tf2_tutorial.read(saved[0], save_words(tmp_path))
    imported = tf2_tutorial.read(saved[0], save_words(tmp_path, content, 'other'))
    assert imported.words == expected.words == ORDINARY
    for name, value in expected.values.items():
        np.testing.assert_array_equal(imported.values[name], value)


def test_rows_that_were_never_used_keep_their_share(tmp_path, saved):
    """Tokenizer(num_words=n) shows the model words below n only; its embedding has n + 1 rows in the tutorial."""
    config = {'num_words': V - 1, 'word_index': json.dumps(WORD_INDEX)}
    imported = tf2_tutorial.read(saved[0], save_words(tmp_path, {'config': config}))
    assert imported.words == [*ORDINARY[:-1], '<unused-12>']
    assert any('1 rows of the model have no word' in note and '12' in note for note in imported.notes)
    full = tf2_tutorial.read(saved[0], save_words(tmp_path))
    np.testing.assert_array_equal(imported.values['logits/b_out'], full.values['logits/b_out'])


def test_without_a_word_for_unknown_ones(tmp_path, saved):
    words = {'you' if word == '<unk>' else word: number for word, number in WORD_INDEX.items()}
    imported = tf2_tutorial.read(saved[0], save_words(tmp_path, words))
    full = tf2_tutorial.read(saved[0], save_words(tmp_path)).values
    assert imported.words == ['you', *ORDINARY]
    assert imported.values['logits/b_out'][UNK] == -30.0 and not imported.values['word_embedding/w'][UNK].any()
    np.testing.assert_array_equal(imported.values['logits/b_out'][len(SPECIALS):],
                                  full['logits/b_out'][[UNK, *range(len(SPECIALS), V)]])
    assert any('<UNK> gets a probability of about 1e-13' in note for note in imported.notes)


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
def test_vocabularies_that_are_refused(tmp_path, saved, content, message):
    with pytest.raises(InputError, match=message):
        tf2_tutorial.read(saved[0], save_words(tmp_path, content))


def test_files_that_are_refused(tmp_path, saved):
    with pytest.raises(InputError, match='save tokenizer.to_json'):
        tf2_tutorial.read(saved[0], None)
    with pytest.raises(InputError, match='cannot be read'):
        tf2_tutorial.read(saved[0], tmp_path / 'none.json')
    (tmp_path / 'tokenizer.pkl').write_bytes(b'\x80\x04\x95\xff\xfe')
    with pytest.raises(InputError, match='neither JSON nor text'):
        tf2_tutorial.read(saved[0], tmp_path / 'tokenizer.pkl')
    with pytest.raises(InputError, match='no checkpoint in this directory'):
        tf2_tutorial.read(tmp_path, save_words(tmp_path))


def test_other_checkpoints_are_refused(tmp_path):
    words = save_words(tmp_path)
    other = tf.train.Checkpoint(model=tf_keras.layers.Dense(2), decoder=tf.Module()).save(str(tmp_path / 'other'))
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
    b'', b'\xff\xff no graph', np.zeros(3), 7, IndexError('Read less bytes than requested'), RuntimeError(),
    # node 0 has the children encoder and decoder, which are nodes 1 and 9: there is no node 9
    b'\x0a\x1a\x0a\x0b\x08\x01\x12\x07encoder\x0a\x0b\x08\x09\x12\x07decoder\x0a\x00',
])
def test_damaged_object_graphs(graph):
    with pytest.raises(InputError, match='m: its object graph cannot be read, the checkpoint is damaged'):
        tf2_tutorial._places('m', Reader(graph))


def test_a_data_file_that_was_cut(tmp_path, saved):
    copied = tmp_path / 'train'
    shutil.copytree(pathlib.Path(saved[0]).parent, copied)
    prefix = copied / pathlib.Path(saved[0]).name
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


def test_a_run_of_it(tmp_path):
    """The whole way: the tutorial's files in, a RUN DIR out that gives the tutorial's loss; carry_state as told."""
    images = np.random.default_rng(4).normal(0.1, 0.2, (N, 4, 512)).astype(np.float32)
    encoder, decoder = tutorial(tf_keras, carry_state=True, images=images)
    lines = []
    make_run(save(tmp_path, encoder, decoder), save_words(tmp_path), tmp_path / 'run',
             encoder={'name': 'vgg19', 'layer': 'conv5_4', 'size': 32}, assignments=['carry_state=true'],
             max_length=T - 1, say=lines.append)
    assert any('kind tf2' in line for line in lines)
    run = run_dir.Run(tmp_path / 'run')
    with tiny_model.tf_graph():
        model = run.build_model()
        loss = model.build_model(training=False)
        with tiny_model.session(model) as session:
            run.restore(session, model)
            got = session.run(loss, {model.features: images, model.captions: OURS})
    assert got == pytest.approx(tutorial_loss(encoder, decoder, images)[0], abs=1e-4)
