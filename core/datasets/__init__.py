"""One reader for each published data set, all yielding the same `Record`. Hands on `read` and `select`."""

from core.datasets.formats import read, select

__all__ = ['read', 'select']
