"""A reader of other people's pickles and vocabularies that never executes a pickle.

A pickle is a program: the usual `pickle.load` runs whatever the file says. Old captioning code
keeps its vocabulary and its options in pickles all the same, so here is a reader that knows
numbers, texts, lists, tuples, dicts and `OrderedDict`, written by Python 2 or 3 with any protocol,
and refuses everything else by name.

    words = word_to_idx('word_to_idx.pkl')      # or .json
    options = load('capgen_model.pkl')

The recipe of Python's documentation, `find_class` on `pickle.Unpickler`, keeps programs from
running. But that class is in C and cannot be kept from single instructions: 66 bytes whose key is a
tuple of a tuple twice, and so on sixty times, hang it beyond Ctrl-C; a key of a million nested
tuples is a segmentation fault; a memo place of two thousand million takes all memory. So the recipe
is followed on the same class as the same module has it in Python.
"""

import collections
import io
import pathlib
import pickle
import pickletools
import reprlib
import struct
from collections.abc import Callable, Iterable
from typing import Any, ClassVar

from core.common.aliases import PathLike
from core.common.errors import InputError
from core.common.files import read_json
from core.data.vocabulary import SPECIALS

LARGEST = 64 * 2**20  # bytes; a vocabulary of 100,000 words has 3 MB

Plain = Any  # nested dicts, lists and tuples of texts, numbers, truth values and None

_ALLOWED = b''.join((
    # numbers, truth values, None
    pickle.INT, pickle.LONG, pickle.LONG1, pickle.LONG4, pickle.FLOAT, pickle.BININT,
    pickle.BININT1, pickle.BININT2, pickle.BINFLOAT, pickle.NONE, pickle.NEWTRUE, pickle.NEWFALSE,
    # texts, of Python 2 too
    pickle.STRING, pickle.BINSTRING, pickle.SHORT_BINSTRING, pickle.UNICODE, pickle.BINUNICODE,
    pickle.SHORT_BINUNICODE, pickle.BINUNICODE8, pickle.BINBYTES, pickle.SHORT_BINBYTES,
    pickle.BINBYTES8,
    # lists, tuples, dicts
    pickle.LIST, pickle.EMPTY_LIST, pickle.APPEND, pickle.APPENDS, pickle.TUPLE, pickle.EMPTY_TUPLE,
    pickle.TUPLE1, pickle.TUPLE2, pickle.TUPLE3, pickle.DICT, pickle.EMPTY_DICT, pickle.SETITEM,
    pickle.SETITEMS,
    # OrderedDict; `find_class` sees to it that nothing else gets through
    pickle.GLOBAL, pickle.STACK_GLOBAL, pickle.REDUCE,
    # bookkeeping
    pickle.PROTO, pickle.FRAME, pickle.MARK, pickle.POP, pickle.POP_MARK, pickle.DUP, pickle.PUT,
    pickle.BINPUT, pickle.LONG_BINPUT, pickle.MEMOIZE, pickle.GET, pickle.BINGET,
    pickle.LONG_BINGET, pickle.STOP,
))


class Refused(Exception):
    """An instruction or object in a pickle that is not allowed; the text says which."""


def _check_keys(keys: Iterable) -> None:
    """Raise Refused if the hash of a key could take for ever."""
    for key in keys:
        if not isinstance(key, (str, bytes, int, float)):
            raise Refused(f'a key of type {type(key).__name__}')


def _checked(code: bytes, keys: slice) -> Callable[[Any], None]:
    """Return the handler of an instruction that first checks the keys from the last MARK on."""
    def load(unpickler: Any) -> None:
        _check_keys(unpickler.stack[keys])
        pickle._Unpickler.dispatch[code[0]](unpickler)

    return load


class _Unpickler(pickle._Unpickler):
    """An unpickler that builds plain data only."""

    # So many OrderedDicts and items of them: a file that calls for the same list again and again is
    # a bomb.
    remaining = LARGEST // 16
    # Instructions that are not listed (objects, persistent ids, extensions, buffers) do not exist
    # for it.
    dispatch: ClassVar[dict[int, Callable[[Any], None]]] = {
        **{code: load for code, load in pickle._Unpickler.dispatch.items() if code in _ALLOWED},
        pickle.SETITEM[0]: _checked(pickle.SETITEM, slice(-2, -1)),
        pickle.SETITEMS[0]: _checked(pickle.SETITEMS, slice(0, None, 2)),
        pickle.DICT[0]: _checked(pickle.DICT, slice(0, None, 2))}

    def find_class(self, module: str, name: str) -> Any:
        """Return the one thing that a pickle may call, OrderedDict."""
        if (module, name) == ('collections', 'OrderedDict'):
            return self._ordered_dict
        raise Refused(f'the class or function {module}.{name}')

    def _ordered_dict(self, pairs: Any = ()) -> collections.OrderedDict:
        self.remaining -= 1 + len(pairs)
        if self.remaining < 0:
            raise Refused('too many items')
        pairs = [(key, value) for key, value in pairs]
        _check_keys(key for key, _ in pairs)
        return collections.OrderedDict(pairs)


def load(path: PathLike) -> Plain:
    """Read a pickle of plain data: dicts, lists, tuples, texts, numbers, truth values, None.

    Texts of Python 2 are read as UTF-8, or as Latin-1 where they are not UTF-8.

    Raises:
        InputError: no such file, not a pickle, too large, or it holds anything else (named);
            nothing is executed.
    """
    data = _bytes(path)
    try:
        try:
            return _Unpickler(io.BytesIO(data), encoding='utf-8').load()
        except UnicodeDecodeError:
            return _Unpickler(io.BytesIO(data), encoding='latin-1').load()
    except Refused as error:
        raise InputError(f'{path}: this pickle holds {error}, which is not read, as it could run a '
                         'program; only dicts, lists, texts and numbers are. Save it as JSON where '
                         'you trust it') from None
    except KeyError as error:
        raise InputError(
            f'{path}: not a pickle of plain data ({_instruction(error.args[0])} is not read, as it '
            'could run a program); save it as JSON where you trust it') from None
    # A damaged file can end in almost any of these.
    except (pickle.UnpicklingError, EOFError, ValueError, TypeError, IndexError, AttributeError,
            OverflowError, MemoryError, RecursionError, AssertionError, struct.error) as error:
        raise InputError(
            f'{path}: not a readable pickle ({type(error).__name__}: {error})') from None


def _instruction(code: object) -> str:
    named = pickletools.code2op  # type: ignore[attr-defined]  # typeshed leaves it out
    known = named.get(chr(code)) if isinstance(code, int) else None
    return f'the instruction {known.name if known else repr(code)}'


def _bytes(path: PathLike) -> bytes:
    path = pathlib.Path(path)
    try:
        if path.stat().st_size > LARGEST:
            raise InputError(f'{path}: {path.stat().st_size} bytes are too many for a vocabulary '
                             'or options')
        return path.read_bytes()
    except OSError as error:
        raise InputError(f'{path}: cannot be read ({error.strerror})') from None


def load_any(path: PathLike) -> Plain:
    """Read a pickle or a JSON file, whichever its content is."""
    is_json = _bytes(path).lstrip(b'\xef\xbb\xbf \t\r\n')[:1] in (b'{', b'[')
    return read_json(path, 'give a JSON file or a pickle') if is_json else load(path)


def word_to_idx(path: PathLike, first: int = 0) -> dict[str, int]:
    """Read a dict of word -> index: a pickle, a JSON file, or a vocabulary.json of ours.

    Args:
        path: the file.
        first: the smallest index; they must go on from there without gaps.

    Raises:
        InputError: not such a dict; an index twice or a gap.
    """
    content = load_any(path)
    if isinstance(content, dict) and isinstance(content.get('words'), list) and 'format' in content:
        content = _numbered(content['words'], path)
    if not isinstance(content, dict) or not content:
        raise InputError(f'{path}: holds {_kind(content)} instead of a dict of word -> index')
    for word, index in content.items():
        if not isinstance(word, str) or isinstance(index, bool) or not isinstance(index, int):
            raise InputError(f'{path}: a word_to_idx maps texts to whole numbers, not '
                             f'{_kind(word)} to {_kind(index)}')
    owners: dict[int, str] = {}
    for word, index in content.items():
        if index in owners:
            raise InputError(f'{path}: the words {shown(owners[index])} and {shown(word)} have the '
                             f'same index {shown(index)}')
        owners[index] = word
    for index in range(first, first + len(owners)):
        if index not in owners:
            raise InputError(f'{path}: no word has the index {index}; the {len(owners)} indices '
                             f'must go from {first} to {first + len(owners) - 1} without gaps')
    return dict(content)


def _numbered(words: Plain, path: PathLike) -> Plain:
    if not all(isinstance(word, str) for word in words) or len(set(words)) != len(words):
        raise InputError(f'{path}: its words must be distinct texts, beginning with '
                         f'{" ".join(SPECIALS)}')
    return {word: index for index, word in enumerate(words)}


def shown(value: object) -> str:
    """Return a value of somebody's file for a message: short, whatever it is.

    Numbers and texts as Python writes them, of all else the type: it may be nested or large without
    end.
    """
    small = (isinstance(value, (bool, float, str, bytes)) or isinstance(value, int)
             and abs(value) < 10**18)
    return reprlib.repr(value) if small else _kind(value)


def _kind(value: object) -> str:
    return 'nothing' if value is None else f'a value of type {type(value).__name__}'
