"""The paper: the decoder with its attention, the training graph and the gradients. Hands on `CaptionGenerator`.

`decoder.Decoder.step` is the one step of the paper, of `attention`, `cells` and `output_layer`; `hard_attention` has
section 4.1. `training_graph` is the loss; `attention_kernels` and `deferred_gradients` make it fast, no more. Read
`core.reference.equations` first, which is the same mathematics in NumPy.
"""

from typing import Any

__all__ = ['CaptionGenerator']


def __getattr__(name: str) -> Any:
    """`CaptionGenerator`, imported when it is asked for, as what it needs is slow to import."""
    if name == 'CaptionGenerator':
        from core.model.caption_generator import CaptionGenerator

        return CaptionGenerator
    raise AttributeError(f'module {__name__!r} has no attribute {name!r}')
