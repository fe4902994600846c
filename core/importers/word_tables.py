"""Names for the rows of other people's word tables."""

from collections.abc import Iterable, Mapping

from core.data.vocabulary import SPECIALS

_SHOWN = 5  # row numbers that a note spells out


def arrange(known: Mapping[int, str], indices: Iterable[int]) -> tuple[list[str], list[str]]:
    """Return names for the ordinary words of a model.

    Rows without a word take part in the softmax, so they are kept, as '<unused-17>'. Our tokenizer
    makes no such word, and the model, which never saw it, hardly writes it.

    Args:
        known: dict of index -> word. indices: those of the ordinary words, in the order wanted.

    Returns:
        list of distinct non-empty str, one for each index; list of notes.
    """
    taken = set(SPECIALS)
    words, unused = [], []
    for index in indices:
        word = known.get(index)
        if not isinstance(word, str) or not word or word in taken:
            word = f'<unused-{index}>'
            while word in taken:
                word += '_'
            unused.append(index)
        taken.add(word)
        words.append(word)
    if not unused:
        return words, []
    shown = ', '.join(map(str, unused[:_SHOWN])) + (', ...' if len(unused) > _SHOWN else '')
    return words, [f'{len(unused)} rows of the model have no word; kept as <unused-N>, N = {shown}']
