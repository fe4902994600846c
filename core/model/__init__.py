"""The paper: the decoder with its attention, the training graph and the gradients. Hands on `CaptionGenerator`."""

from typing import Any

__all__ = ['CaptionGenerator']


def __getattr__(name: str) -> Any:
    """`CaptionGenerator`, imported when it is asked for, as what it needs is slow to import."""
    if name == 'CaptionGenerator':
        from core.model.caption_generator import CaptionGenerator

        return CaptionGenerator
    raise AttributeError(f'module {__name__!r} has no attribute {name!r}')
