"""The plain formulation of the training graph, which core.model.deferred_gradients and
attention_kernels must equal.

Every step is written from the equations of docs/model.md, one after the other, with nothing merged,
nothing moved out of the loop and TensorFlow's own gradients throughout.
"""

from core.decoding.word_rules import mask_words
from core.model.training_graph import Steps, TrainingGraph, Unrolled
from core.runtime.backend import tf
from tests.support.tiny_model import M, T

ACTIVATIONS = {'relu': tf.nn.relu, 'tanh': tf.tanh, 'linear': tf.identity}


class PlainTraining(TrainingGraph):
    """Loss and TrainingOutputs as TrainingGraph gives them; needs a batch whose longest caption has
    T words.
    """

    def _prepare_images(self, dropout):
        decoder, options = self.decoder, self.options
        self.v = {variable.op.name: variable for variable in decoder.variables}
        a = tf.cast(self.batch.features, decoder.dtype)
        if options.batch_norm:
            mean, variance = tf.nn.moments(a, [0, 1])
            a = ((a - mean) / tf.sqrt(variance + 1e-3) * self.v['conv_featuresbatch_norm/gamma']
                 + self.v['conv_featuresbatch_norm/beta'])
        if options.feature_layer:
            a = tf.nn.relu(tf.einsum('nld,dk->nlk', a, self.v['feature_layer/w'])
                           + self.v['feature_layer/b'])
        x, n_captions = tf.reduce_mean(a, axis=1), self.n_rows // tf.shape(a)[0]
        for layer in range(1, options.initial_layers):
            x = tf.nn.relu(x @ self.v[f'initial_lstm/w_{layer}']
                           + self.v[f'initial_lstm/b_{layer}'])
            x = dropout(x, 20 + layer) if dropout else x
        self.a, self.first = tf.repeat(a, n_captions, axis=0), {}
        for part in ('h', 'c') if options.cell == 'lstm' else ('h',):
            first = tf.zeros([tf.shape(a)[0], decoder.H], decoder.dtype)
            if options.initial_state != 'zero':
                first = ACTIVATIONS[options.initial_state](
                    x @ self.v[f'initial_lstm/w_{part}'] + self.v[f'initial_lstm/b_{part}'])
            self.first[part] = tf.repeat(first, n_captions, axis=0)

    def _scores(self, h):
        v, options = self.v, self.options
        p = tf.einsum('nlk,ka->nla', self.a, v['project_features/w']) + v.get(
            'project_features/b', 0)
        for layer in range(1, options.attention_layers):
            w, b = v[f'project_features/w_{layer}'], v[f'project_features/b_{layer}']
            p = tf.tanh(tf.einsum('nla,ab->nlb', p, w) + b)
        query = h @ v['attention_layer/w'] + v.get('attention_layer/b', 0)
        hidden = ACTIVATIONS[options.attention_activation](p + query[:, tf.newaxis])
        return tf.einsum('nla,ao->nl', hidden,
                         v['attention_layer/w_att']) + v.get('attention_layer/b_att', 0)

    def _cell(self, x, state):
        v, h = self.v, state['h']
        if self.options.cell == 'lstm':
            gates = tf.concat([x, h],
                              1) @ v['lstm/basic_lstm_cell/kernel'] + v['lstm/basic_lstm_cell/bias']
            i, j, f, o = tf.split(gates, 4, axis=1)
            c = tf.sigmoid(f + self.options.forget_bias) * state['c'] + tf.sigmoid(i) * tf.tanh(j)
            return {'h': tf.sigmoid(o) * tf.tanh(c), 'c': c}
        h = h if self.options.carry_state else tf.zeros_like(h)
        x_z, x_r, x_h = tf.split(x @ v['gru/kernel'] + v['gru/bias'][0], 3, axis=1)
        h_z, h_r, h_h = tf.split(h @ v['gru/recurrent_kernel'] + v['gru/bias'][1], 3, axis=1)
        z = tf.sigmoid(x_z + h_z)
        return {'h': z * h + (1 - z) * tf.tanh(x_h + tf.sigmoid(x_r + h_r) * h_h)}

    def _score(self, steps, word_vectors, dropout):
        h, context, x = (tf.gather_nd(part, self.real)
                         for part in (steps.h, steps.context, word_vectors))
        logits = self.decoder.output(h, context, x, dropout, self.real[:, 1])
        log_p = tf.nn.log_softmax(logits)
        words = tf.one_hot(tf.gather_nd(tf.transpose(self.targets), self.real), self.decoder.V,
                           dtype=logits.dtype)
        chosen = tf.reduce_sum(words * log_p, axis=1)
        smoothing = self.options.label_smoothing if self.training else 0
        losses = -(1 - smoothing) * chosen - smoothing * tf.reduce_mean(log_p, axis=1)
        log_probs = tf.scatter_nd(self.real, chosen, tf.cast([self.n_steps, self.n_rows], tf.int64))
        return Unrolled(steps, losses, tf.transpose(log_probs),
                        tf.transpose(steps.alpha, [1, 0, 2]))

    def _unroll(self, choose, dropout=None):
        decoder, options, v = self.decoder, self.options, self.v
        sampling = self.training and options.scheduled_sampling > 0
        if sampling:
            uniform = tf.random.stateless_uniform(tf.shape(self.inputs), self._seed(202))
        state, steps, fed = self.first, [], []
        said = None
        for t in range(T):
            words = self.inputs[t]
            if sampling and t:
                words = tf.where(uniform[t] < self.batch.annealed['scheduled_sampling'], said,
                                 words)
            x = tf.nn.embedding_lookup(v['word_embedding/w'], words)
            if options.first_word == 'zero':
                x = tf.where(tf.equal(words, decoder.start)[:, tf.newaxis], tf.zeros([], x.dtype),
                             x)
            temperature = tf.cast(self.batch.annealed['temperature'], decoder.dtype)
            alpha = tf.nn.softmax(self._scores(state['h']) / temperature)
            weights, location = choose(t, alpha) if choose else (alpha, ())
            z = tf.reduce_sum(weights[:, :, tf.newaxis] * self.a, axis=1)
            beta = tf.ones_like(alpha[:, :1])
            if options.selector:
                beta = tf.sigmoid(state['h'] @ v['selector/w'] + v['selector/b'])
                z *= beta
            state = self._cell(
                tf.concat([x, z] if options.cell_input == 'word_context' else [z, x], 1), state)
            if sampling:
                logits = mask_words(decoder.output(state['h'], z, x), decoder.never)
                said = tf.random.stateless_categorical(logits, 1, self._seed(1000 + t), tf.int32)[
                    :, 0]
            steps.append(Steps(state['h'], z, alpha, beta, location, (), (), ()))
            fed.append(tf.reshape(x, [-1, M]))
        stacked = tf.nest.map_structure(lambda *parts: tf.stack(parts), *steps)
        return self._score(stacked, tf.stack(fed), dropout)


def build(model, training=True, locations=None):
    """(loss, TrainingOutputs) of the plain formulation."""
    return PlainTraining(model, model.training_inputs(), training, locations,
                         model.decoding_choice).build()
