"""Show, Attend and Tell in TensorFlow graph mode. Importing this package has no side effects.

    from core import Captioner      # a trained run for photos; imports TensorFlow
"""

from typing import TYPE_CHECKING

from core.common.version import __version__

if TYPE_CHECKING:
    from core.inference.captioner import Captioner

__all__ = ['Captioner', '__version__']


def __getattr__(name: str) -> object:
    """Import `Captioner` where it is asked for."""
    if name == 'Captioner':
        from core.inference.captioner import Captioner

        return Captioner
    raise AttributeError(f'module {__name__!r} has no attribute {name!r}')
