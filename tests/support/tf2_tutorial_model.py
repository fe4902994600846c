"""The TF2 tutorial's architecture, written with Keras layers and run eagerly, and its checkpoints.

Its words are numbered as a Keras Tokenizer does it, so that a wrong order of rows cannot go
unnoticed.
"""

import json

import numpy as np
import tf_keras

from core.config.model import ModelConfig
from core.data.vocabulary import END, NULL, START, UNK, Vocabulary
from core.model.caption_generator import CaptionGenerator
from core.runtime.backend import tf

N, L, D, K, M, H, V, T = 3, 5, 7, 9, 6, 11, 13, 4
WORD_INDEX = {'<unk>': 1, 'a': 2, '<start>': 3, '<end>': 4, 'dog': 5, 'red': 6, 'runs': 7, 'on': 8,
              'grass': 9, 'the': 10, 'cat': 11, 'sees': 12, 'rare': 13, '<pad>': 0}
ORDINARY = ['a', 'dog', 'red', 'runs', 'on', 'grass', 'the', 'cat', 'sees']
THEIRS = np.array([[3, 2, 12, 8, 4], [3, 7, 4, 0, 0], [3, 1, 5, 4, 0]])
OURS = np.array([[START, 4, 12, 8, END], [START, 7, END, NULL, NULL], [START, UNK, 5, END, NULL]],
                np.int32)


def tutorial(k, carry_state=False, images=None, **gru):
    """Return the tutorial's encoder and decoder with the layers of `k`, tf_keras or keras.

    `gru` are options of its GRU.
    """

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
            output, state = (self.gru(inputs, initial_state=hidden) if carry_state
                             else self.gru(inputs))
            return self.fc2(self.fc1(output)[:, 0]), state

    encoder, decoder = Encoder(), Decoder()
    decoder(THEIRS[:, :1], encoder(features() if images is None else images), tf.zeros([N, H]))
    random = np.random.default_rng(11)
    # So that captions are of several words.
    scales = ((decoder.embedding.embeddings, 4.0), (decoder.fc2.kernel, 1.0),
              (decoder.fc2.bias, 0.1))
    for variable in encoder.trainable_variables + decoder.trainable_variables:
        scale = next((scale for part, scale in scales if variable is part), 0.5)
        variable.assign(random.normal(0.0, scale, variable.shape))
    return encoder, decoder


def features():
    return np.random.default_rng(4).normal(0.5, 1.0, (N, L, D)).astype(np.float32)


def tutorial_loss(encoder, decoder, images=None):
    """Return the tutorial's loss and its gradients.

    Sum over steps of the mean over the batch of the masked cross entropy.
    """
    with tf.GradientTape() as tape:
        annotations = encoder(features() if images is None else images)
        hidden, loss = tf.zeros([N, H]), 0.0
        for t in range(1, THEIRS.shape[1]):
            logits, hidden = decoder(THEIRS[:, t - 1:t], annotations, hidden)
            losses = tf.nn.sparse_softmax_cross_entropy_with_logits(THEIRS[:, t], logits)
            loss += tf.reduce_mean(losses * tf.cast(THEIRS[:, t] != 0, tf.float32))
    variables = encoder.trainable_variables + decoder.trainable_variables
    gradients = [tf.convert_to_tensor(gradient).numpy()
                 for gradient in tape.gradient(loss, variables)]
    return loss.numpy(), gradients


def in_our_names(encoder, decoder, arrays):
    """Return arrays of the tutorial's variables as a dict by our names, words in our order."""
    attention, gru = decoder.attention, decoder.gru.cell
    names = {
        'feature_layer/w': encoder.fc.kernel, 'feature_layer/b': encoder.fc.bias,
        'project_features/w': attention.W1.kernel, 'project_features/b': attention.W1.bias,
        'attention_layer/w': attention.W2.kernel, 'attention_layer/b': attention.W2.bias,
        'attention_layer/w_att': attention.V.kernel, 'attention_layer/b_att': attention.V.bias,
        'word_embedding/w': decoder.embedding.embeddings,
        'gru/kernel': gru.kernel, 'gru/recurrent_kernel': gru.recurrent_kernel,
        'gru/bias': gru.bias,
        'logits/w_h': decoder.fc1.kernel, 'logits/b_h': decoder.fc1.bias,
        'logits/w_out': decoder.fc2.kernel, 'logits/b_out': decoder.fc2.bias,
    }
    variables = encoder.trainable_variables + decoder.trainable_variables
    found = {name: next(array for variable, array in zip(variables, arrays, strict=True)
                        if variable is wanted)
             for name, wanted in names.items()}
    rows = [0, 3, 4, 1] + [WORD_INDEX[word] for word in ORDINARY]
    return found | {'word_embedding/w': found['word_embedding/w'][rows],
                    'logits/w_out': found['logits/w_out'][:, rows],
                    'logits/b_out': found['logits/b_out'][rows]}


def save(directory, encoder, decoder, k=tf_keras):
    """Write what the tutorial's CheckpointManager does after a step of its optimizer."""
    optimizer = k.optimizers.Adam(0.0)
    variables = encoder.trainable_variables + decoder.trainable_variables
    optimizer.apply_gradients([(tf.zeros(variable.shape), variable) for variable in variables])
    checkpoint = tf.train.Checkpoint(encoder=encoder, decoder=decoder, optimizer=optimizer)
    return tf.train.CheckpointManager(checkpoint, str(directory / 'train'), max_to_keep=5).save()


def save_words(directory, content=None, name='words.json'):
    """Write a vocabulary file; by default the tutorial's tokenizer."""
    if content is None:
        config = {'num_words': V, 'oov_token': '<unk>', 'word_index': json.dumps(WORD_INDEX)}
        content = {'class_name': 'Tokenizer', 'config': config}
    path = directory / name
    path.write_text(content if isinstance(content, str) else json.dumps(content), encoding='utf8')
    return path


def build(imported, **changes):
    config = ModelConfig(**{**imported.options, **changes})
    config.check_combination()
    return CaptionGenerator(Vocabulary(imported.words).word_to_idx, (L, D), n_time_step=T,
                            **vars(config))
