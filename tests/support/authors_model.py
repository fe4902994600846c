"""The authors' Theano model in NumPy, float64, in its own layout.

Their code is kelvinxu/arctic-captions, capgen.py. Parameters carry the names of the authors' .npz
files, gates stand in their order i, f, o, g, word 0 ends a sentence and word 1 is unknown, so that
nothing here shares an assumption with `core`. Theirs is dropout without rescaling: units are kept
with probability 1/2 in training and all are halved afterwards, which is the case transcribed here.
"""

import numpy as np

OPTIONS = {'attn_type': 'deterministic', 'n_layers_att': 2, 'n_layers_out': 1, 'n_layers_lstm': 1,
           'n_layers_init': 2, 'lstm_encoder': False, 'prev2out': True, 'ctx2out': True,
           'selector': True, 'use_dropout': True, 'use_dropout_lstm': False, 'alpha_c': 1.0,
           'maxlen': 100, 'dataset': 'coco'}
PLAIN = {'n_layers_att': 1, 'n_layers_init': 1, 'n_layers_out': 2, 'selector': False,
         'prev2out': False, 'ctx2out': False, 'use_dropout': False}

# Of random parameters with which the words of a caption depend on each other and on the image.
SCALES = {'Wemb': 4.0, 'decoder_W': 2.0, 'ff_logit_W': 2.0, 'ff_logit_b': 0.2}


def draw(options, n_words, dim_word, dim, ctx_dim, seed=29):
    """Draw float32 parameters of the sizes that `options` ask for, none of them zero.

    The dict has the names of the .npz files.
    """
    random = np.random.default_rng(seed)
    shapes = {
        'Wemb': (n_words, dim_word),
        **_ff('ff_state', ctx_dim, dim), **_ff('ff_memory', ctx_dim, dim),
        'decoder_W': (dim_word, 4 * dim), 'decoder_U': (dim, 4 * dim), 'decoder_b': (4 * dim,),
        'decoder_Wc': (ctx_dim, 4 * dim),
        'decoder_Wc_att': (ctx_dim, ctx_dim), 'decoder_Wd_att': (dim, ctx_dim),
        'decoder_b_att': (ctx_dim,), 'decoder_U_att': (ctx_dim, 1), 'decoder_c_tt': (1,),
        **_ff('ff_logit_lstm', dim, dim_word), **_ff('ff_logit', dim_word, n_words),
    }
    for layer in range(1, options['n_layers_init']):
        shapes |= _ff(f'ff_init_{layer}', ctx_dim, ctx_dim)
    for layer in range(1, options['n_layers_att']):
        shapes |= {f'decoder_W_att_{layer}': (ctx_dim, ctx_dim),
                   f'decoder_b_att_{layer}': (ctx_dim,)}
    for layer in range(1, options['n_layers_out']):
        shapes |= _ff(f'ff_logit_h{layer}', dim_word, dim_word)
    if options['selector']:
        shapes |= {'decoder_W_sel': (dim, 1), 'decoder_b_sel': ()}
    if options['ctx2out']:
        shapes |= _ff('ff_logit_ctx', ctx_dim, dim_word)
    return {name: np.float32(random.normal(0.0, 0.5 * SCALES.get(name, 1.0), shape))
            for name, shape in shapes.items()}


def _ff(prefix, n_in, n_out):
    return {f'{prefix}_W': (n_in, n_out), f'{prefix}_b': (n_out,)}


def run(parameters, options, context, words, locations=None):
    """Compute teacher forcing after training.

    Args:
        parameters: dict in the .npz layout. options: dict as the authors pickle it.
        context: (N, L, ctx_dim). words: (T, N) int, column by column a caption: words, 0, then
            anything.
        locations: (T, N) int, the location that hard attention looks at in each step, or None: the
            expected context.

    Returns:
        log-probabilities (T, N, n_words) and alphas (T, N, L).
    """
    p = {name: value.astype(np.float64) for name, value in parameters.items()}
    context = context.astype(np.float64)
    half = 0.5 if options['use_dropout'] else 1.0
    gates_half = 0.5 if options['use_dropout_lstm'] else 1.0
    n_examples, n_locations, _ = context.shape
    dim = p['decoder_U'].shape[0]

    summary = context.mean(axis=1)
    for layer in range(1, options['n_layers_init']):
        summary = summary @ p[f'ff_init_{layer}_W'] + p[f'ff_init_{layer}_b']
        summary = half * np.maximum(summary, 0.0)
    state = np.tanh(summary @ p['ff_state_W'] + p['ff_state_b'])
    memory = np.tanh(summary @ p['ff_memory_W'] + p['ff_memory_b'])

    projected = context @ p['decoder_Wc_att'] + p['decoder_b_att']
    for layer in range(1, options['n_layers_att']):
        projected = np.tanh(projected @ p[f'decoder_W_att_{layer}'] + p[f'decoder_b_att_{layer}'])

    emitted = p['Wemb'][words]
    previous = np.concatenate([np.zeros_like(emitted[:1]), emitted[:-1]])
    log_probs, alphas = [], []
    for t, word in enumerate(previous):
        hidden = np.tanh(projected + (state @ p['decoder_Wd_att'])[:, None])
        score = (hidden @ p['decoder_U_att'] + p['decoder_c_tt'])[:, :, 0]
        if options['attn_type'] == 'stochastic':
            score = options.get('temperature', 1.0) * score
        alpha = np.exp(score - score.max(axis=1, keepdims=True))
        alpha /= alpha.sum(axis=1, keepdims=True)
        weight = alpha if locations is None else np.eye(n_locations)[locations[t]]
        attended = (context * weight[:, :, None]).sum(axis=1)
        if options['selector']:
            attended = attended * _sigmoid(state @ p['decoder_W_sel'] + p['decoder_b_sel'])

        gates = (state @ p['decoder_U'] + word @ p['decoder_W'] + p['decoder_b']
                 + attended @ p['decoder_Wc'])
        i, f, o, g = (gates[:, k * dim:(k + 1) * dim] for k in range(4))
        i, f, o = (_sigmoid(gates_half * gate) for gate in (i, f, o))
        memory = f * memory + i * np.tanh(g)
        state = o * np.tanh(memory)

        output = half * state @ p['ff_logit_lstm_W'] + p['ff_logit_lstm_b']
        if options['prev2out']:
            output = output + word
        if options['ctx2out']:
            output = output + attended @ p['ff_logit_ctx_W'] + p['ff_logit_ctx_b']
        output = half * np.tanh(output)
        for layer in range(1, options['n_layers_out']):
            output = output @ p[f'ff_logit_h{layer}_W'] + p[f'ff_logit_h{layer}_b']
            output = half * np.maximum(output, 0.0)
        logits = output @ p['ff_logit_W'] + p['ff_logit_b']
        logits = logits - logits.max(axis=1, keepdims=True)
        log_probs.append(logits - np.log(np.exp(logits).sum(axis=1, keepdims=True)))
        alphas.append(alpha)
    return np.stack(log_probs), np.stack(alphas)


def _sigmoid(x):
    return 1.0 / (1.0 + np.exp(-x))
