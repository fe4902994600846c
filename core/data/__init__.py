"""The DATA DIR: made by prepro.py, read in batches. Hands on `DataDir`.

`prepare` is prepro.py, `data_dir` and `feature_file` are the files, `vocabulary` the words,
`batches` what training reads. With a fine-tuned encoder `image_data` reads photos in the place of
features.
"""

from typing import Any

__all__ = ['DataDir']


def __getattr__(name: str) -> Any:
    """Import `DataDir` when it is asked for, as what it needs is slow to import."""
    if name == 'DataDir':
        from core.data.data_dir import DataDir

        return DataDir
    raise AttributeError(f'module {__name__!r} has no attribute {name!r}')
