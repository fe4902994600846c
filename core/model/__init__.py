"""The paper: the decoder, its attention, the loss and the gradients. Hands on `CaptionGenerator`.

`decoder.Decoder.step` is the one step of training and decoding, made of `attention`, `cells` and
`output_layer`; `hard_attention` has the parts of section 4.1. `training_graph` is the loop over the
words and the loss, `caption_generator` adds placeholders and searches. `attention_kernels` and
`deferred_gradients` make it fast. Read `core.reference.equations` first: the same in NumPy.
"""

from typing import Any

__all__ = ['CaptionGenerator']


def __getattr__(name: str) -> Any:
    """Import `CaptionGenerator` when it is asked for, as what it needs is slow to import."""
    if name == 'CaptionGenerator':
        from core.model.caption_generator import CaptionGenerator

        return CaptionGenerator
    raise AttributeError(f'module {__name__!r} has no attribute {name!r}')
