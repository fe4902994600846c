"""Presets: their values, the size of their models, and that each of them learns."""

import dataclasses

import numpy as np
import pytest

from core.common.errors import InputError
from core.config import presets
from core.config.config import Config
from core.data.batches import Batches
from core.data.data_dir import DataDir
from core.encoders.known_encoders import ENCODERS
from core.model.caption_generator import CaptionGenerator
from core.runtime.backend import tf, tf1
from core.training.optimization import Optimization
from tests.support import tiny_model

PAPER = {'dim_embed': 512, 'batch_norm': False, 'initial_layers': 2, 'attention_activation': 'tanh',
         'attention_layers': 2, 'attention_bias': 'features', 'score_bias': True,
         'forget_bias': 0.0, 'first_word': 'zero', 'alpha_c': 1.0, 'regularizer_target': 'one',
         'initializer': 'authors', 'prev2out': True, 'ctx2out': True, 'selector': True,
         'dropout': True, 'dropout_rate': 0.5, 'cell': 'lstm', 'initial_state': 'tanh',
         'output_layers': 1, 'output_activation': 'tanh', 'temperature': 1.0}
HARD = {'attention': 'hard', 'lambda_e': 0.002, 'semi_sampling_p': 0.5, 'lambda_r': 0.1,
        'reward': 'sequence', 'baseline': 'moving', 'n_samples': 1, 'decode_context': 'expected'}
TF2 = {'dim_embed': 256, 'dim_hidden': 512, 'feature_layer': 256, 'attention_size': 512,
       'output_size': 512, 'batch_norm': False, 'initial_state': 'zero', 'attention': 'soft',
       'attention_activation': 'tanh', 'attention_layers': 1, 'attention_bias': 'both',
       'score_bias': True, 'cell': 'gru', 'carry_state': False, 'cell_input': 'context_word',
       'first_word': 'start', 'selector': False, 'prev2out': False, 'ctx2out': False,
       'output_activation': 'linear', 'output_layers': 1, 'dropout': False, 'alpha_c': 0.0,
       'initializer': 'keras'}
# Optimizer and LSTM of each dataset: 4.3 of the paper and the authors' code.
PER_DATASET = {'flickr8k': ('rmsprop', 1e-3, 1000), 'flickr30k': ('adam', 2e-4, 1000),
               'coco': ('adam', 2e-4, 1800)}
NAMES = ['tf1', 'tf2', *(f'paper{dataset}{hard}' for hard in ('', '-hard')
                         for dataset in ('', '-flickr8k', '-flickr30k', '-coco'))]


def test_names():
    assert presets.names() == NAMES


def test_tf1_is_the_default():
    assert presets.config('tf1') == Config()
    assert presets.prepro('tf1') == {'encoder': 'vgg19', 'layer': 'conv5_4', 'image_size': 224,
                                     'resize': 'squash', 'max_length': 15}


def test_notes_name_the_values_taken_and_features_of_another_kind():
    paper = {'encoder': 'vgg19', 'layer': 'conv5_4', 'size': 224, 'resize': 'crop'}
    assert presets.notes('paper-hard', 'flickr8k', paper, 'raw') == ['preset paper-flickr8k-hard']
    assert presets.notes('paper', 'karpathy', paper, 'raw') == ['preset paper-coco']
    assert presets.notes('paper', 'coco2014', paper) == [
        'preset paper-coco',
        "note: these captions are not cut as the preset's: tokens words, not raw"]
    first, second = presets.notes('tf2', 'coco2014', paper)
    assert first == 'preset tf2'
    assert 'encoder vgg19, not inception_v3' in second and 'resize crop' in second


def test_tf2_is_the_tutorial():
    config = presets.config('tf2')
    assert_options(config.model, TF2)
    assert_options(config.training, {'update_rule': 'adam', 'learning_rate': 1e-3, 'batch_size': 64,
                                     'clip_norm': 0.0, 'weight_decay': 0.0})
    assert presets.prepro('tf2') == {'encoder': 'inception_v3', 'layer': 'mixed10',
                                     'image_size': 299, 'resize': 'squash', 'vocab_size': 5000,
                                     'max_length': 50}


@pytest.mark.parametrize('hard', [False, True])
@pytest.mark.parametrize('dataset', PER_DATASET)
def test_paper_is_the_authors_code(dataset, hard):
    config = presets.config(f'paper-{dataset}' + '-hard' * hard)
    update_rule, learning_rate, dim_hidden = PER_DATASET[dataset]
    assert_options(config.model, PAPER | {'dim_hidden': dim_hidden}
                   | (HARD if hard else {'attention': 'soft'}))
    assert_options(config.training, {
        'update_rule': update_rule, 'learning_rate': learning_rate, 'batch_size': 64,
        'batch_by': 'one_length', 'clip_norm': 0.0, 'weight_decay': 0.0})
    assert presets.prepro(f'paper-{dataset}') == {'encoder': 'vgg19', 'layer': 'conv5_4',
                                                  'image_size': 224, 'resize': 'crop',
                                                  'vocab_size': 10000, 'tokens': 'raw',
                                                  'max_length': 99}


@pytest.mark.parametrize(('dataset', 'meant'),
                         [('flickr8k', 'flickr8k'), ('flickr30k', 'flickr30k'), ('coco', 'coco'),
                          ('coco2014', 'coco'), ('shapes', 'coco'), (None, 'coco')])
def test_paper_follows_the_dataset(dataset, meant):
    assert presets.config('paper', dataset) == presets.config(f'paper-{meant}')
    assert presets.config('paper-hard', dataset) == presets.config(f'paper-{meant}-hard')
    # A dataset in the name comes first.
    assert presets.config('paper-flickr8k', dataset) == presets.config('paper-flickr8k')


@pytest.mark.parametrize('name', NAMES)
def test_features_are_those_of_a_known_encoder(name):
    options = presets.prepro(name)
    row = ENCODERS[options['encoder']]
    assert (options['layer'], options['image_size']) == (row.layer, row.size)


def test_the_caller_may_change_what_it_is_given():
    presets.prepro('tf2')['encoder'] = 'vgg19'
    assert presets.prepro('tf2')['encoder'] == 'inception_v3'


@pytest.mark.parametrize(('name', 'nearest'),
                         [('tf3', 'tf'), ('paper-cocoa', 'paper-coco'), ('', 'known')])
def test_an_unknown_name(name, nearest):
    for function in (presets.config, presets.prepro):
        with pytest.raises(InputError, match=f'no preset {name!r}.*{nearest}'):
            function(name)


def assert_options(options, expected):
    assert {name: getattr(options, name) for name in expected} == expected


# ---- sizes, from the shapes in a graph that no session runs

def test_parameters_of_tf1(graph):
    D, H, M, V = 512, 1024, 512, 10004
    normalisation, initial, words = 4 * D, 2 * (D + 1) * H, V * M
    attention = D * D + H * D + D + D
    lstm, gate = (M + D + H + 1) * 4 * H, H + 1
    output = (H + 1) * M + D * M + (M + 1) * V
    assert parameters('tf1', D,
                      V) == normalisation + initial + words + attention + lstm + gate + output


def test_parameters_of_tf2(graph):
    """Layer by layer as `model.summary()` counts the tutorial's; 5,001 words."""
    embedding_dim, units, V = 256, 512, 5001
    encoder = dense(2048, embedding_dim)
    attention = dense(embedding_dim, units) + dense(units, units) + dense(units, 1)
    gru = 3 * units * (units + embedding_dim + embedding_dim + 2)
    output = dense(units, units) + dense(units, V)
    assert encoder == 524544 and gru == 1575936 and attention == 394753
    assert parameters('tf2', 2048, V) == encoder + attention + V * embedding_dim + gru + output


@pytest.mark.parametrize('hard', ['', '-hard'])
@pytest.mark.parametrize('dataset', PER_DATASET)
def test_parameters_of_paper(graph, dataset, hard):
    """The authors' parameters, one by one; two more words and one bias less make ours."""
    n_words, ctx_dim, dim_word, dim = 10000, 512, 512, PER_DATASET[dataset][2]
    decoder = (dim_word + dim + 1) * 4 * dim + ctx_dim * 4 * dim
    attention = ctx_dim * ctx_dim + dim * ctx_dim + ctx_dim + dense(ctx_dim, ctx_dim) + ctx_dim + 1
    initial = dense(ctx_dim, ctx_dim) + 2 * dense(ctx_dim, dim)
    readout = dense(dim, dim_word) + dense(ctx_dim, dim_word) + dense(dim_word, n_words)
    theirs = n_words * dim_word + decoder + attention + dim + 1 + initial + readout
    ours = theirs + 2 * (dim_word + dim_word + 1) - dim_word
    assert parameters(f'paper-{dataset}{hard}', ctx_dim, n_words + 2) == ours


def dense(n_in, n_out):
    return (n_in + 1) * n_out


def parameters(name, dim_feature, n_words):
    """Numbers in the model's variables."""
    words = {word: index for index, word in enumerate(tiny_model.WORDS)}
    words |= {f'word{index}': index for index in range(len(words), n_words)}
    options = dataclasses.asdict(presets.config(name).model)
    model = CaptionGenerator(words, (4, dim_feature), n_time_step=16, **options)
    return sum(variable.shape.num_elements() for variable in model.variables)


# ---- learning

SIZES = {'dim_hidden': 48, 'dim_embed': 32, 'feature_layer': 32, 'attention_size': 32,
         'output_size': 32}
# The presets' rates are for models of millions of parameters and tens of thousands of steps.
# With sizes and rates replaced, flickr30k is coco.
RATES = {'tf1': 5e-3, 'tf2': 5e-3, 'paper-flickr8k': 5e-3, 'paper-flickr8k-hard': 5e-3,
         'paper-coco': 1e-2, 'paper-coco-hard': 1e-2}


@pytest.mark.slow
@pytest.mark.parametrize('name', RATES)
def test_every_preset_learns(sample_dirs, name):
    """Small models on drawn scenes; all options but sizes and rates are the preset's."""
    losses = train(sample_dirs.data('conv4_4'), presets.config(name), RATES[name], 200)
    assert np.isfinite(losses).all()
    assert np.mean(losses[-20:]) < 0.7 * np.mean(losses[:20])


def train(place, config, learning_rate, n_steps):
    """Nats a word in every step; the regulariser cannot vanish where a caption is shorter than the
    locations are many.

    Every eighth feature is used, which keeps the steps fast.
    """
    sizes = {option: size for option, size in SIZES.items() if getattr(config.model, option)}
    data_dir = DataDir(place)
    data, words = data_dir.split('train'), data_dir.vocabulary.word_to_idx
    training = dataclasses.replace(config.training, learning_rate=learning_rate, batch_size=16)
    with tf.Graph().as_default():
        tf1.set_random_seed(1)
        model = CaptionGenerator(words, data.read_features([0])[0, :, ::8].shape,
                                 n_time_step=data.captions.shape[1] - 1,
                                 **{**dataclasses.asdict(config.model), **sizes})
        loss = model.build_model()
        batches = Batches(data, training.batch_size, 1, batch_by=training.batch_by)
        optimization = Optimization(model, loss, training, len(batches))
        losses = []
        with tiny_model.session(model) as session:
            while len(losses) < n_steps:
                for batch in batches.epoch(len(losses) // len(batches)):
                    nll, n, _ = session.run(
                        [model.nll, model.outputs.n_words, optimization.train_op],
                        {model.inputs: batch.features[:, :, ::8], model.captions: batch.captions,
                         model.dropout_seed: (1, len(losses)), **optimization.feeds(len(losses))})
                    losses.append(nll * len(batch.index) / n)
    return np.array(losses)
