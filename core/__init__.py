"""Show, Attend and Tell in TensorFlow graph mode. Importing this package has no side effects.

    from core import Captioner      # a trained run for photos; TensorFlow is imported here, not before
"""

from typing import Any

from core.common.version import __version__

__all__ = ['Captioner', '__version__']


def __getattr__(name: str) -> Any:
    if name == 'Captioner':
        from core.inference.captioner import Captioner

        return Captioner
    raise AttributeError(f'module {__name__!r} has no attribute {name!r}')
