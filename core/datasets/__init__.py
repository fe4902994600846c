"""One reader for each published data set, all with the same `Record`; `read` and `select`.

A new data set is a reader in a module of its own and one row of `formats.DATASETS`.
"""

from core.datasets.formats import read, select

__all__ = ['read', 'select']
