"""Suggestions for misspelt names: one wording for all messages."""

import difflib
from collections.abc import Iterable


def near(name: object, known: Iterable[str], n: int = 1, cutoff: float = 0.6) -> list[str]:
    """Return the `n` names of `known` most like `name`, best first; empty where none is near."""
    return difflib.get_close_matches(str(name), list(known), n, cutoff)


def did_you_mean(name: object, known: Iterable[str], otherwise: str = '') -> str:
    """Return '; did you mean X?' for a misspelt name, or `otherwise` where nothing is near."""
    close = near(name, known)
    return f'; did you mean {close[0]}?' if close else otherwise


def nearest_or_all(name: object, known: Iterable[str]) -> str:
    """Return '; did you mean X?' for a misspelt name, or '; known: A, B' if nothing is near."""
    known = list(known)
    return did_you_mean(name, known, f'; known: {", ".join(known)}')
