"""Options of CaptionGenerator at the tiny model's sizes.

The presets, and a case for every way to compute.
"""

from core.config import presets
from tests.support.tiny_model import D, H, M, V

VARIABLES = {  # of the default model, as the TF1 code names them
    'conv_featuresbatch_norm/beta': [D], 'conv_featuresbatch_norm/gamma': [D],
    'conv_featuresbatch_norm/moving_mean': [D], 'conv_featuresbatch_norm/moving_variance': [D],
    'initial_lstm/w_h': [D, H], 'initial_lstm/b_h': [H],
    'initial_lstm/w_c': [D, H], 'initial_lstm/b_c': [H],
    'word_embedding/w': [V, M], 'project_features/w': [D, D],
    'attention_layer/w': [H, D], 'attention_layer/b': [D], 'attention_layer/w_att': [D, 1],
    'selector/w': [H, 1], 'selector/b': [1],
    'lstm/basic_lstm_cell/kernel': [M + D + H, 4 * H], 'lstm/basic_lstm_cell/bias': [4 * H],
    'logits/w_h': [H, M], 'logits/b_h': [M], 'logits/w_out': [M, V], 'logits/b_out': [V],
    'logits/w_ctx2out': [D, M],
}
PAPER = presets.config('paper').to_dict()['model']
TF2 = presets.config('tf2').to_dict()['model']
SMALL = {'dim_embed': M, 'dim_hidden': H, 'output_size': 0, 'attention_size': 0}


def sized(options, **more):
    """Return a preset's options with sizes of the tiny model."""
    small = {**options, **SMALL}
    for name, size in (('output_size', 9), ('attention_size', 8), ('feature_layer', 10)):
        small[name] = size if options[name] else 0
    return {**small, **more}


HARD = {'attention': 'hard', 'lambda_e': 0.3, 'lambda_r': 0.7}
CASES = {
    'default': {'alpha_c': 0.7},
    'tanh': {'attention_activation': 'tanh', 'alpha_c': 0.7},
    'no gate': {'selector': False},
    'sentinel': {'sentinel': True, 'selector': False, 'alpha_c': 0.7},
    'no deep output': {'prev2out': False, 'ctx2out': False},
    'deep output': {'output_layers': 3},
    'gru': {'cell': 'gru', 'alpha_c': 0.3},
    'gru without a state': {'cell': 'gru', 'carry_state': False, 'initial_state': 'zero'},
    'context first': {'cell_input': 'context_word', 'first_word': 'zero'},
    'narrow attention': {'attention_size': 4, 'attention_layers': 3, 'attention_bias': 'both',
                         'score_bias': True, 'temperature': 1.75},
    'feature layer': {'feature_layer': 9, 'attention_activation': 'tanh'},
    'initial layers': {'initial_layers': 3, 'initial_state': 'relu', 'batch_norm': False},
    'paper': sized(PAPER),
    'tf2': sized(TF2),
    'padding counts': {'mask_padding': False, 'alpha_c': 0.7},
    'sequence masks': {'dropout_mask': 'sequence', 'label_smoothing': 0.1},
    'word dropout': {'word_dropout': 0.4},
    'scheduled sampling': {'scheduled_sampling': 0.6},
    'scheduled sampling, gru, zero': {'scheduled_sampling': 0.6, 'cell': 'gru',
                                      'first_word': 'zero'},
    'hard': {**HARD, 'alpha_c': 0.4},
    'hard, tanh, gru, no gate': {**HARD, 'attention_activation': 'tanh', 'cell': 'gru',
                                 'selector': False},
    'hard, samples': {**HARD, 'n_samples': 3, 'baseline': 'leave_one_out', 'reward': 'to_go',
                      'temperature': 0.6},
    'hard, self-critical': {**HARD, 'baseline': 'self_critical', 'semi_sampling_p': 1.0,
                            'n_samples': 2},
}
