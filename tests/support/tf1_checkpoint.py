"""A checkpoint of the TF1 code with its vocabulary, and its greedy decoder."""

import pickle

import numpy as np

from core.reference.equations import teacher_forcing
from core.runtime.backend import tf, tf1

# Features as in sample_data: vgg19 conv2_2 of 32x32 pixels. The tutorial's vocabulary has no <UNK>.
D, H, M, L = 128, 11, 6, 256
WORD_TO_IDX = {'<NULL>': 0, '<START>': 1, '<END>': 2, 'red': 3, 'a': 4, 'dog': 5, 'runs': 6,
               'over': 7, 'grass': 8}
V = len(WORD_TO_IDX)
ENCODER = {'name': 'vgg19', 'layer': 'conv2_2', 'size': 32, 'resize': 'crop'}
# Written out, so that a change of our names or shapes is seen here.
NAMES = {
    'conv_featuresbatch_norm/beta': (D,), 'conv_featuresbatch_norm/gamma': (D,),
    'conv_featuresbatch_norm/moving_mean': (D,), 'conv_featuresbatch_norm/moving_variance': (D,),
    'initial_lstm/w_h': (D, H), 'initial_lstm/b_h': (H,),
    'initial_lstm/w_c': (D, H), 'initial_lstm/b_c': (H,),
    'word_embedding/w': (V, M), 'project_features/w': (D, D),
    'attention_layer/w': (H, D), 'attention_layer/b': (D,), 'attention_layer/w_att': (D, 1),
    'selector/w': (H, 1), 'selector/b': (1,),
    'lstm/basic_lstm_cell/kernel': (M + D + H, 4 * H), 'lstm/basic_lstm_cell/bias': (4 * H,),
    'logits/w_h': (H, M), 'logits/b_h': (M,), 'logits/w_out': (M, V), 'logits/b_out': (V,),
    'logits/w_ctx2out': (D, M),
}
KERNEL, BIAS = 'lstm/basic_lstm_cell/kernel', 'lstm/basic_lstm_cell/bias'


def draw(seed=46):
    """Draw values of a TF1 model, float32, that write captions of several lengths."""
    random = np.random.default_rng(seed)
    values = {name: random.normal(0, 0.3, shape).astype(np.float32)
              for name, shape in NAMES.items()}
    values['conv_featuresbatch_norm/moving_variance'] = random.uniform(0.5, 2, D).astype(np.float32)
    values['word_embedding/w'] *= 5
    values['logits/w_out'] *= 5
    values['logits/w_h'] *= 4
    values['logits/w_ctx2out'] *= 0.5
    values[KERNEL] *= 2
    # never <NULL> or <START>, as a trained model; <END> now and then
    values['logits/b_out'][:3] = [-20, -20, 0]
    return values


def features(n=6):
    return np.random.default_rng(1).normal(0, 1, (n, L, D)).astype(np.float32)


def write(path, values, slots=True, version=tf1.train.SaverDef.V2):
    """Write a TF1 checkpoint: ref variables, and with `slots` what Adam and a counter add."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tf.Graph().as_default():
        variables = [tf1.get_variable(name, initializer=value, use_resource=False)
                     for name, value in values.items()]
        if slots:
            step = tf1.train.get_or_create_global_step()
            some = [v for v in variables if v.dtype.base_dtype == tf.float32][:3]
            loss = tf.add_n([tf.reduce_sum(tf.square(v)) for v in some])
            tf1.train.AdamOptimizer(0.0).minimize(loss, global_step=step, var_list=some)
        with tf1.Session() as session:
            session.run(tf1.global_variables_initializer())
            return tf1.train.Saver(write_version=version).save(session, str(path))


def write_words(path, word_to_idx=None):
    path.write_bytes(pickle.dumps(word_to_idx or WORD_TO_IDX, 0))
    return path


def decode(values, a, max_len=8):
    """Decode as the TF1 code's greedy decoder, in float64: words, alphas, betas.

    The equations are those of core.reference.
    """
    captions = np.full((len(a), max_len + 1), WORD_TO_IDX['<START>'])
    for t in range(max_len):
        found = teacher_forcing(values, a, captions[:, :t + 2], training=False)
        captions[:, t + 1] = found.log_probs[:, t].argmax(axis=1)
    return captions[:, 1:], found.alphas, found.betas


def variables_of(prefix):
    reader = tf.train.load_checkpoint(str(prefix))
    return {name: reader.get_tensor(name) for name in reader.get_variable_to_shape_map()}
