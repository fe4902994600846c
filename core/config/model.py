"""Options of the model and its loss."""

import dataclasses
import functools

from core.common.errors import InputError
from core.config.options import option

# makes the options that presets and importers alone need
published = functools.partial(option, compatibility=True)
BASELINES = ('none', 'moving', 'leave_one_out', 'self_critical')


@dataclasses.dataclass(frozen=True)
class ModelConfig:
    """The model and its loss; the defaults are those of the TF1 model.

    `docs/model.md` maps each option to its equation.
    """

    dim_embed: int = option(512, 'size M of a word vector', minimum=1)
    dim_hidden: int = option(1024, 'size H of the decoder state', minimum=1)
    prev2out: bool = option(True, 'the previous word feeds the output layer (eq. 7)')
    ctx2out: bool = option(True, 'the context feeds the output layer (eq. 7)')
    # The lambda of eq. 14, for which the paper gives no number: 1 as in the authors' code, for all
    # who train with train.py; the signature of `CaptionGenerator` has 0, that of the TF1 code, on
    # which callers rely.
    alpha_c: float = option(1.0, 'weight of the doubly stochastic regulariser (4.2.1)', minimum=0)
    selector: bool = option(True, 'gate beta scales the context (4.2.1)')
    dropout: bool = option(True, 'dropout on h, the output layer and extra initial layers while '
                           'training')
    # features
    batch_norm: bool = option(True, 'features are batch-normalised')
    feature_layer: int = option(0, 'size of a Dense+ReLU layer over the features before all else; '
                                '0: none', minimum=0)
    # initial state
    initial_state: str = option('tanh', 'c_0 and h_0 from the mean feature',
                                choices=('tanh', 'linear', 'relu', 'zero'))
    # attention
    attention: str = option('soft', 'expected context (4.2) or drawn locations (4.1)',
                            choices=('soft', 'hard'))
    attention_activation: str = option('relu', 'non-linearity of the attention',
                                       choices=('relu', 'tanh'))
    attention_size: int = option(
        0, 'hidden units of the attention; 0: as many as the features have', minimum=0)
    attention_layers: int = option(1, 'projections of the features; each after the first adds a '
                                   'tanh layer', minimum=1)
    sentinel: bool = option(False, 'a visual sentinel beside the locations (adaptive attention, '
                            'Lu et al. 2017)')
    # cell
    cell: str = option('lstm', 'recurrent cell', choices=('lstm', 'gru'))
    forget_bias: float = option(1.0, 'added to the forget gate of the LSTM')
    # output
    output_size: int = option(0, 'hidden units of the output layer; 0: dim_embed', minimum=0)
    output_activation: str = option('tanh', "of the output layer (tanh: the authors' code; eq. 7 "
                                    'has none)',
                                    choices=('tanh', 'linear'))
    # loss
    mask_padding: bool = option(True, 'padding steps do not count in the regulariser (the TF1 code '
                                'counts them)')
    dropout_rate: float = option(0.5, 'share of units that dropout sets to zero', minimum=0,
                                 maximum=0.95)
    dropout_mask: str = option('step', 'a new mask at every step, or one for the whole sequence '
                               '(variational)', choices=('step', 'sequence'))
    word_dropout: float = option(0.0, 'share of input words that become <UNK> while training',
                                 minimum=0, maximum=0.9)
    label_smoothing: float = option(0.0, 'share of the target spread over all words', minimum=0,
                                    maximum=0.9)
    scheduled_sampling: float = option(0.0, "share of input words drawn from the model's own "
                                       "distribution", minimum=0, maximum=1)
    # self-critical sequence training (docs/model.md)
    self_critical: bool = option(False, 'captions are drawn and trained by what they earn in '
                                 'CIDEr-D, no longer by the references word for word')
    bleu_reward: float = option(0.0, 'share of BLEU-4 in what a drawn caption earns', minimum=0,
                                maximum=1)
    draw_temperature: float = option(1.0, 'captions are drawn from softmax(logits / temperature), '
                                     'and made likelier there', minimum=0.01)
    sentence_baseline: str = option(
        'leave_one_out', "subtracted from what a drawn caption earns: the mean of the image's "
        'others, or what greedy decoding earns', choices=('leave_one_out', 'greedy'))
    # hard attention (4.1); reward to_go, baselines but `moving`, and temperature are later ideas
    lambda_r: float = option(1.0, 'weight of the REINFORCE term', minimum=0)
    lambda_e: float = option(0.002, 'weight of the entropy of alpha', minimum=0)
    semi_sampling_p: float = option(0.5, 'probability, a caption, of using the drawn locations',
                                    minimum=0, maximum=1)
    n_samples: int = option(1, 'Monte Carlo samples a caption', minimum=1)
    reward: str = option('sequence', 'of a draw: log p of the whole caption, or of what follows '
                         'the draw', choices=('sequence', 'to_go'))
    baseline: str = option('moving', 'subtracted from the reward', choices=BASELINES)
    temperature: float = option(1.0, 'alpha = softmax(e / temperature)', minimum=0.01)
    decode_context: str = option('expected', 'context while decoding: expected, the likeliest '
                                 'location, or drawn', choices=('expected', 'argmax', 'sample'))
    # compatibility with published checkpoints
    initial_layers: int = published(1, 'layers of the initial state; all but the last are ReLU '
                                    'with dropout', minimum=1)
    attention_bias: str = published('query', 'what has a bias inside the attention',
                                    choices=('query', 'features', 'both'))
    score_bias: bool = published(False, 'a bias on the score (the softmax cancels it)')
    cell_input: str = published('word_context', 'order of the input of the cell',
                                choices=('word_context', 'context_word'))
    carry_state: bool = published(True, 'the cell starts from the last state; false: from zeros, '
                                  'as the TF2 tutorial')
    first_word: str = published('start', 'word vector at the first step: that of <START>, or zeros',
                                choices=('start', 'zero'))
    output_layers: int = published(1, 'hidden layers of the output; each after the first is ReLU '
                                   'with dropout', minimum=1)
    initializer: str = published('tf1', 'how variables begin', choices=('tf1', 'authors', 'keras'))
    regularizer_target: str = published('length', 'what sum_t alpha of a location should be: '
                                        'n_time_step / L, or one', choices=('length', 'one'))
    regularizer_reduction: str = published('examples', "sum over locations, mean over examples; "
                                           "locations: the other way round, as the authors' code",
                                           choices=('examples', 'locations'))

    def check_combination(self, where: str = 'configuration') -> None:
        """Raise InputError if options do not fit together.

        Raises:
            InputError: names the options and the way out.
        """
        for wrong, message in (
            (self.prev2out and self.output_size not in (0, self.dim_embed),
             'prev2out adds the word vector to the output layer, so output_size must be 0 or '
             'dim_embed; or set prev2out=false'),
            (self.initial_state == 'zero' and self.initial_layers > 1,
             'initial_state=zero has no layers; set initial_layers=1'),
            (not self.carry_state and (self.cell != 'gru' or self.initial_state != 'zero'),
             'carry_state=false needs cell=gru and initial_state=zero'),
            (self.cell == 'gru' and self.forget_bias != 1.0, 'forget_bias belongs to cell=lstm; '
             'with cell=gru it must stay 1.0'),
            (self.sentinel and self.attention == 'hard',
             'sentinel needs attention=soft: it shares the weights of the locations'),
            (self.sentinel and self.selector,
             'sentinel takes the place of the gate beta; set selector=false'),
            (self.sentinel and self.cell != 'lstm',
             'sentinel needs cell=lstm: it shows what the memory cell holds'),
            (self.attention == 'soft' and self.n_samples > 1, 'n_samples needs attention=hard; '
             'soft attention draws nothing'),
            (self.attention == 'soft' and self.decode_context != 'expected',
             'decode_context needs attention=hard; soft attention has the expected context only'),
            (self.baseline == 'leave_one_out' and self.n_samples < 2, 'baseline=leave_one_out '
             'needs n_samples of 2 or more'),
            (self.attention == 'hard' and self.scheduled_sampling > 0,
             'scheduled_sampling and attention=hard exclude each other: words drawn inside the '
             'caption would bias the gradient of the locations'),
            (self.self_critical and self.attention == 'hard', 'self_critical needs attention=soft: '
             'locations that are drawn too would need a gradient of their own'),
            (self.self_critical and self.scheduled_sampling > 0, 'self_critical draws every word; '
             'set scheduled_sampling=0'),
            (self.self_critical and self.word_dropout > 0, 'self_critical needs word_dropout=0: '
             'the words that are drawn are those that are fed'),
            (self.self_critical and self.label_smoothing > 0, 'self_critical has no target to '
             'smooth; set label_smoothing=0'),
            (self.self_critical and self.dropout and self.dropout_mask == 'step',
             'self_critical draws a caption under the mask that its gradient has; set '
             'dropout_mask=sequence or dropout=false'),
            (not self.dropout and self.dropout_mask == 'sequence', 'dropout_mask=sequence needs '
             'dropout=true')):
            if wrong:
                raise InputError(f'{where}: {message}')
