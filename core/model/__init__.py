"""The paper: the decoder with its attention, the training graph and the gradients. Hands on
`CaptionGenerator`.

`decoder.Decoder.step` is the one step of the paper, of `attention`, `cells` and `output_layer`;
`hard_attention` has the parts of section 4.1, which `training_graph`, the loss, puts together.
`attention_kernels` computes the score of eq. 4 and the sum of eq. 6; `deferred_gradients` changes
the speed only. Read `core.reference.equations` first, which is the same mathematics in NumPy.
"""

from typing import Any

__all__ = ['CaptionGenerator']


def __getattr__(name: str) -> Any:
    """`CaptionGenerator`, imported when it is asked for, as what it needs is slow to import."""
    if name == 'CaptionGenerator':
        from core.model.caption_generator import CaptionGenerator

        return CaptionGenerator
    raise AttributeError(f'module {__name__!r} has no attribute {name!r}')
