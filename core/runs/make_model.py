"""The model of a run's options, on stored features or on top of its encoder.

    model = make_model(config, vocabulary, spec, max_length)

Letters in shapes: N images, L locations, D features of a location.
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


def make_model(config: 'Config', vocabulary: 'Vocabulary', spec: 'EncoderSpec',
               max_length: int) -> CaptionGenerator:
    """Build the CaptionGenerator of a run in the default graph.

    It is fed float16 features, as they are stored (`model.inputs`); with the option `finetune_from`
    it stands on the encoder and is fed pixels, see `make_finetuned`.

    Args:
        config: Config. vocabulary: Vocabulary. spec: EncoderSpec of the features.
        max_length: words of a caption at most.
    """
    options = dataclasses.asdict(config.model)
    if config.training.finetune_from:
        return make_finetuned(options, vocabulary.word_to_idx, spec, max_length,
                               config.training.finetune_from)
    # Features are fed as they are stored: half the bytes to copy, and the cast in the graph is
    # quicker than NumPy's.
    stored = tf1.placeholder(tf.float16, [None, *_dim_feature(spec)], 'stored_features')
    return CaptionGenerator(vocabulary.word_to_idx, _dim_feature(spec), n_time_step=max_length + 1,
                            features=tf.cast(stored, tf.float32), inputs=stored, **options)


def make_captioner(config: 'Config', vocabulary: 'Vocabulary', spec: 'EncoderSpec',
                   max_length: int,
                   pixels: Tensor) -> tuple[CaptionGenerator, Callable[[Session], None]]:
    """Build encoder and model in one, in the default graph: from pixels to captions.

    Args:
        config, vocabulary, spec, max_length: as of `make_model`; `spec` with the weights' present
            path.
        pixels: uint8 tensor (N, size, size, 3), RGB.

    Returns:
        (model, restore): CaptionGenerator whose `inputs` are `pixels`; function of a session that
        loads the encoder's weights file.
    """
    options = dataclasses.asdict(config.model)
    if config.training.finetune_from:
        model = make_finetuned(options, vocabulary.word_to_idx, spec, max_length,
                                config.training.finetune_from, pixels)
        assert model.encoder
        return model, model.encoder.restore
    features, restore = encoder.build_encoder(pixels, spec)
    # As stored features are, so that captions are those of evaluate.py.
    stored = tf.cast(features, tf.float16)
    model = CaptionGenerator(vocabulary.word_to_idx, _dim_feature(spec), n_time_step=max_length + 1,
                             features=tf.cast(stored, tf.float32), inputs=pixels, **options)
    return model, restore


def check_finetuning(spec: 'EncoderSpec', first: str, weights: PathLike | None = None) -> None:
    """Raise InputError if an encoder cannot be fine-tuned, before any graph is built.

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


def make_finetuned(options: Mapping[str, Any], word_to_idx: Mapping[str, int], spec: 'EncoderSpec',
                   max_length: int, first: str, pixels: Tensor = None) -> CaptionGenerator:
    """Build a CaptionGenerator on top of the encoder, in the default graph.

    Its `encoder` is a TrainableEncoder, whose `restore` is to be called in every session, before a
    checkpoint is restored over it.

    Args:
        options: dict of the options of ModelConfig.
        word_to_idx: dict. spec: EncoderSpec with the weights' present path.
        max_length: words of a caption at most.
        first: str, the first layer of the encoder that is trained.
        pixels: uint8 tensor (N, size, size, 3) to read instead of a placeholder.

    Raises:
        InputError: no layer `first`.
    """
    if pixels is None:
        pixels = tf1.placeholder(tf.uint8, (None, spec.size, spec.size, 3), 'images')
    return CaptionGenerator(word_to_idx, _dim_feature(spec), n_time_step=max_length + 1,
                            encoder=encoder.build_trainable(pixels, spec, first), **options)


def _dim_feature(spec: 'EncoderSpec') -> tuple[int, int]:
    """Return (L, D) of an encoder's features."""
    return spec.grid[0] * spec.grid[1], spec.dim
