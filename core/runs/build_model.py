"""The model of a run's options, on stored features or on top of its encoder.

    model = build_model(config, vocabulary, spec, max_length)
"""

import dataclasses
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from core.common.aliases import PathLike, Session, Tensor
from core.common.errors import InputError
from core.encoders import encoder
from core.model.caption_generator import CaptionGenerator
from core.runtime.backend import tf, tf1

if TYPE_CHECKING:
    from core.config.config import Config
    from core.data.vocabulary import Vocabulary
    from core.encoders.encoder import EncoderSpec


def build_model(config: 'Config', vocabulary: 'Vocabulary', spec: 'EncoderSpec',
                max_length: int) -> CaptionGenerator:
    """A CaptionGenerator for features of `spec` and captions of at most `max_length` words, in the
    default graph.

    It is fed float16 features, as they are stored (`model.inputs`); with the option `finetune_from`
    it stands on the encoder and is fed pixels, see `build_finetuned`.
    """
    rows, cols = spec.grid
    options = dataclasses.asdict(config.model)
    if config.training.finetune_from:
        return build_finetuned(options, vocabulary.word_to_idx, spec, max_length,
                               config.training.finetune_from)
    # Features are fed as they are stored: half the bytes to copy, and the cast in the graph is
    # quicker than NumPy's.
    stored = tf1.placeholder(tf.float16, [None, rows * cols, spec.dim], 'stored_features')
    model = CaptionGenerator(vocabulary.word_to_idx, (rows * cols, spec.dim), n_time_step=max_length
                             + 1, features=tf.cast(stored, tf.float32), **options)
    model.inputs = stored
    return model


def build_captioner(config: 'Config', vocabulary: 'Vocabulary', spec: 'EncoderSpec',
                    max_length: int,
                    pixels: Tensor) -> tuple[CaptionGenerator, Callable[[Session], None]]:
    """Encoder and model in one, in the default graph: from pixels to what captions are decoded
    with.

    Args:
        config, vocabulary, spec, max_length: as of `build_model`; `spec` with the weights' present
            path.
        pixels: uint8 tensor (N, size, size, 3), RGB.

    Returns:
        (model, restore): CaptionGenerator whose `inputs` are `pixels`; function of a session that
        loads the encoder's weights file.
    """
    options = dataclasses.asdict(config.model)
    if config.training.finetune_from:
        model = build_finetuned(options, vocabulary.word_to_idx, spec, max_length,
                                config.training.finetune_from, pixels)
        return model, model.restore_encoder
    features, restore = encoder.build(pixels, spec)
    # as stored features are, so that captions are those of evaluate.py
    stored = tf.cast(features, tf.float16)
    model = CaptionGenerator(vocabulary.word_to_idx, (spec.grid[0] * spec.grid[1], spec.dim),
                             n_time_step=max_length + 1, features=tf.cast(stored, tf.float32),
                             **options)
    model.inputs = pixels
    return model, restore


def check_finetuning(spec: 'EncoderSpec', first: str, weights: PathLike | None = None) -> None:
    """Miss the layer or the weights now, rather than when the graph is built.

    Args:
        spec: EncoderSpec of the data. first: str, the first layer to train. weights: path where the
            file lies now.

    Raises:
        InputError: no such layer, with near ones; no weights, or others than those of the data.
    """
    found = encoder.describe(spec.encoder, spec.layer, spec.size, spec.resize, weights
                             or spec.weights, spec.seed)
    if found.identity() != spec.identity():
        raise InputError(f'{weights or spec.weights}: not the weights that the data were made '
                         'with; name these: --weights FILE')
    encoder.check_trainable(spec, first)


def build_finetuned(options: Mapping[str, Any], word_to_idx: Mapping[str, int], spec: 'EncoderSpec',
                    max_length: int, first: str, pixels: Tensor = None) -> CaptionGenerator:
    """A CaptionGenerator on top of the encoder, in the default graph.

    Args:
        options: dict of the options of ModelConfig.
        word_to_idx: dict. spec: EncoderSpec with the weights' present path. max_length: words of a
            caption at most.
        first: str, the first layer of the encoder that is trained.
        pixels: uint8 tensor (N, size, size, 3) to read instead of a placeholder.

    Returns:
        CaptionGenerator with these attributes more:
            inputs: `pixels`, or a placeholder (N, size, size, 3) uint8 to be fed instead of
            features. encoder_variables: the encoder's trained variables. encoder_saved: those to be
            kept with the best model. restore_encoder: function of a session that loads the weights
            file into ALL the encoder's variables; call
                it in every session, before a checkpoint is restored over it.

    Raises:
        InputError: no layer `first`.
    """
    if pixels is None:
        pixels = tf1.placeholder(tf.uint8, (None, spec.size, spec.size, 3), 'images')
    tower = encoder.build_trainable(pixels, spec, first)
    model = CaptionGenerator(word_to_idx, (spec.grid[0] * spec.grid[1], spec.dim),
                             n_time_step=max_length + 1, features=tower.features, **options)
    model.inputs = pixels
    model.encoder_variables = model.encoder_saved = tower.trained
    model.restore_encoder = tower.restore
    return model
