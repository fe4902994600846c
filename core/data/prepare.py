"""What prepro.py does: records and an encoder in, a complete DATA DIR out.

Images are decoded by threads, encoded by the graph and written by another thread, all at the same
time; only a few batches are in memory at any moment.
"""

import collections
import concurrent.futures
import contextlib
import hashlib
import json
import math
import os
import pathlib
import shutil
import sys
import time
from collections.abc import Generator, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from core.common import files, progress, terminal
from core.common.aliases import PathLike, Say
from core.common.errors import InputError
from core.common.files import write_json
from core.common.version import __version__
from core.data import data_dir, feature_file
from core.data.vocabulary import TOKENS, Vocabulary
from core.datasets.records import SPLITS
from core.encoders.photos import UnreadableImage
from core.encoders.preprocessing import box_to_input, load

if TYPE_CHECKING:
    from core.data.vocabulary import Vocabulary
    from core.datasets.records import Record
    from core.encoders.encoder import Encoder, EncoderSpec
    from core.encoders.preprocessing import Preprocessing
    from core.runtime.devices import Machine

BATCH = 32
AHEAD = 4  # batches that are decoded or wait for the encoder
# Images that a thread decodes at a time: one by one, threads cost more than small images.
PIECE = 8


def prepare(records: 'Sequence[Record]', spec: 'EncoderSpec', out: PathLike, dataset: str,
            vocab_size: int = 10000, min_count: int = 1, max_length: int = 15,
            skip_unreadable: bool = False, vocabulary: 'Vocabulary | None' = None, say: Say = print,
            machine: 'Machine | None' = None, tokens: str = 'words') -> dict[str, Any]:
    """Make or complete the DATA DIR `out`.

    Args:
        records: list of Record.
        spec: EncoderSpec.
        out: directory; made where missing. What an earlier, interrupted call finished is kept.
        dataset: str, the dataset's name, for the manifest.
        vocab_size, min_count: the most frequent words of training captions, and how often a word
            must occur.
        max_length: captions of more words are left out of training, never out of the references.
        skip_unreadable: leave unreadable images out instead of refusing.
        vocabulary: Vocabulary to use instead of counting the training captions.
        say: function that prints a line.
        machine: Machine, where to encode; None: Machine().
        tokens: how captions are cut into words, a name in `core.data.vocabulary.TOKENS`.

    Returns:
        dict, the manifest.

    Raises:
        InputError: unreadable images (all of them named), too little disk space, or `out` holds
            something else. What can be known before the first image leaves nothing behind.
    """
    out = pathlib.Path(out)
    check_vocabulary_options(vocab_size, min_count, max_length)
    plan = _plan(records, spec, dataset, vocab_size, min_count, max_length, vocabulary, tokens)
    with _writing(out):
        data_dir.check_plan(out, plan)
        if (out / 'manifest.json').exists():
            manifest = files.read_json(out / 'manifest.json')
            if skip_unreadable or not manifest['unreadable']:
                say(f'{out} is complete: {_counts(manifest)}')
                return manifest
        words = _words(records, tokens)
        if vocabulary is None:
            # an error now rather than after the last image
            _build_vocabulary(records, words, plan)
        n_bytes = 2 * len(records) * spec.grid[0] * spec.grid[1] * spec.dim
        say(f'{len(records)} images x {spec.grid[0]}x{spec.grid[1]} locations x {spec.dim} float16 '
            f'from {spec.encoder} {spec.layer}: {terminal.size_text(n_bytes)} in {out}')
        path = out / 'features.h5'
        _check_room(path, n_bytes)
        # Before anything is written: the weights may turn out to be those of another network.
        with _encoder(spec, path, machine) as encoder:
            out.mkdir(parents=True, exist_ok=True)
            with files.lock(out, 'prepro.py'):
                return _complete(records, words, encoder, spec, out, plan, skip_unreadable,
                                 vocabulary, say)


def _encoder(spec: 'EncoderSpec', path: pathlib.Path, machine: 'Machine | None',
             ) -> 'contextlib.AbstractContextManager[Encoder | None]':
    """Return the encoder as a context; of None where every image is encoded already."""
    if path.exists() and feature_file.FeatureFile(path).done().all():
        return contextlib.nullcontext()
    # TensorFlow is imported only when there is work for it
    from core.encoders.encoder import Encoder

    return Encoder(spec, machine=machine)


def _complete(records: 'Sequence[Record]', words: list[list[list[str]]], encoder: 'Encoder | None',
              spec: 'EncoderSpec', out: pathlib.Path, plan: dict[str, Any], skip_unreadable: bool,
              vocabulary: 'Vocabulary | None', say: Say) -> dict[str, Any]:
    """Do what is left to do in `out`, which is locked."""
    data_dir.write_plan(out, plan)
    data_dir.remove_leftovers(out)
    path = out / 'features.h5'
    if not path.exists():
        feature_file.FeatureFile.create(path, (len(records), spec.grid[0] * spec.grid[1], spec.dim))
    features = feature_file.FeatureFile(path)
    unreadable, rate = _extract(records, encoder, features, say)
    if unreadable and (not skip_unreadable or len(unreadable) == len(records)):
        raise InputError(_unreadable_text(unreadable))
    manifest = _annotate(records, words, spec, out, plan, unreadable, vocabulary, rate, say)
    say(f'{out} is complete: {_counts(manifest)}')
    return manifest


def check_vocabulary_options(vocab_size: int, min_count: int, max_length: int) -> None:
    """Raise InputError for numbers below 1."""
    for name, value in (('vocab-size', vocab_size), ('min-count', min_count),
                        ('max-length', max_length)):
        if value < 1:
            raise InputError(f'{name} must be at least 1, not {value}')


@contextlib.contextmanager
def _writing(out: pathlib.Path) -> Iterator[None]:
    """Turn what the system says of a full disk, no directory and the like into one line."""
    try:
        yield
    except BrokenPipeError:  # of `say`: our reader went away
        raise
    except OSError as error:
        raise InputError(f'{out}: cannot write there ({error}); make room and run the same command '
                         'again, finished images are kept, or choose another --out') from None


def _check_room(path: pathlib.Path, n_bytes: int) -> None:
    """Raise InputError for features that the disk cannot hold.

    What an earlier call wrote of them counts as there.
    """
    n_written = path.stat().st_blocks * 512 if path.exists() else 0
    place = next(parent for parent in path.absolute().parents if parent.exists())
    free = shutil.disk_usage(place).free
    if n_bytes - n_written > 0.98 * free:
        raise InputError(f'{path.parent}: {terminal.size_text(n_bytes - n_written)} needed, '
                         f'{terminal.size_text(free)} free; make room, choose another --out or use '
                         '--limit')


def _plan(records: 'Sequence[Record]', spec: 'EncoderSpec', dataset: str, vocab_size: int,
          min_count: int, max_length: int, vocabulary: 'Vocabulary | None',
          tokens: str) -> dict[str, Any]:
    """Return what decides the contents of a DATA DIR."""
    digest = hashlib.sha256()
    for record in records:
        line = [record.image_id, record.path.name, record.split, record.captions, record.boxes
                and [(b.names, b.x, b.y, b.width, b.height) for b in record.boxes], record.size]
        digest.update(json.dumps(line).encode())
    known = (hashlib.sha256(json.dumps(vocabulary.idx_to_word).encode()).hexdigest() if vocabulary
             else None)
    return {'dataset': dataset, 'images': len(records), 'records_sha256': digest.hexdigest(),
            **spec.identity(), 'vocab_size': vocab_size, 'min_count': min_count,
            'max_length': max_length, 'vocabulary_sha256': known, 'tokens': tokens}


def _extract(records: 'Sequence[Record]', encoder: Any, features: feature_file.FeatureFile,
             say: Say) -> tuple[dict[int, str], float | None]:
    """Encode every record that is not done.

    Returns:
        ({row: reason} of unreadable images, images per second or None).
    """
    waiting = np.flatnonzero(~features.done())
    if not len(waiting):
        return {}, None
    n_done = len(records) - len(waiting)
    if n_done:
        say(f'{n_done} images were encoded before and are kept')
    unreadable, start, n_encoded = {}, None, 0
    with (
        concurrent.futures.ThreadPoolExecutor(1, 'write') as writer,
        contextlib.closing(_decoded(records, waiting, encoder.spec.preprocessing)) as batches,
        progress.bar(len(records), 'encoding', initial=n_done, unit='image') as bar,
    ):
        writing: collections.deque[concurrent.futures.Future] = collections.deque()
        for batch, pixels, reasons in batches:
            unreadable.update(reasons)
            rows = batch
            if reasons:
                good = [place for place, row in enumerate(batch) if int(row) not in reasons]
                rows, pixels = batch[good], pixels[good]
            if len(rows):
                features_of_batch = encoder.encode(pixels, np.float16)
                if start is None:  # the first batch also pays for building and tracing
                    start = time.perf_counter()
                else:
                    n_encoded += len(rows)
                writing.append(writer.submit(features.write, rows, features_of_batch))
                while len(writing) > 2 or writing and writing[0].done():
                    writing.popleft().result()
            bar.update(len(batch))
        for write in writing:
            write.result()
    rate = (n_encoded / (time.perf_counter() - start) if start is not None and n_encoded
            else None)
    return unreadable, rate


def _decoded(records: 'Sequence[Record]', rows: np.ndarray, preprocessing: 'Preprocessing',
             ) -> Generator[tuple[np.ndarray, np.ndarray, dict[int, str]], None, None]:
    """Decode the images of `rows` with all cores, into memory that is used again.

    Yields:
        (rows of a batch, pixels uint8 (n, size, size, 3), dict of row -> reason of the unreadable
        ones, whose pixels mean nothing). The pixels hold until the next batch is asked for.
    """
    batches = [rows[i : i + BATCH] for i in range(0, len(rows), BATCH)]
    size = preprocessing.size
    memory = [aligned((BATCH, size, size, 3)) for _ in range(min(AHEAD, len(batches)))]

    def decode(piece: np.ndarray, pixels: np.ndarray) -> dict[int, str]:
        reasons = {}
        for row, target in zip(piece, pixels, strict=True):
            try:
                target[:] = load(records[row].path, preprocessing)
            except UnreadableImage as error:
                reasons[int(row)] = str(error)
        return reasons

    def begin(number: int) -> list[concurrent.futures.Future]:
        batch, pixels = batches[number], memory[number % AHEAD]
        return [
            decoders.submit(decode, batch[i : i + PIECE], pixels[i : i + PIECE][: len(batch) - i])
            for i in range(0, len(batch), PIECE)]

    with concurrent.futures.ThreadPoolExecutor(os.cpu_count() or 1, 'decode') as decoders:
        try:
            decoding = collections.deque(map(begin, range(len(memory))))
            for number, batch in enumerate(batches):
                reasons = {}
                for piece in decoding.popleft():
                    reasons.update(piece.result())
                yield batch, memory[number % AHEAD][: len(batch)], reasons
                if number + AHEAD < len(batches):
                    decoding.append(begin(number + AHEAD))
        except BaseException:
            decoders.shutdown(wait=False, cancel_futures=True)
            raise


def aligned(shape: tuple[int, ...]) -> np.ndarray:
    """Return a uint8 array, not initialised, that begins at a multiple of 64 bytes.

    TensorFlow takes it without a copy.
    """
    n_bytes = math.prod(shape)
    spare = np.empty(n_bytes + 63, np.uint8)
    start = -spare.ctypes.data % 64
    return spare[start : start + n_bytes].reshape(shape)


def _unreadable_text(unreadable: dict[int, str]) -> str:
    examples = '; '.join(list(unreadable.values())[:20])
    more = f'; and {len(unreadable) - 20} more' if len(unreadable) > 20 else ''
    what = 'image' if len(unreadable) == 1 else 'images'
    return (f'{len(unreadable)} {what} cannot be read: {examples}{more}. Repair them and run the '
            'same command again (the others are kept), or leave them out with --skip-unreadable')


def _annotate(records: 'Sequence[Record]', words: list[list[list[str]]], spec: 'EncoderSpec',
              out: pathlib.Path, plan: dict[str, Any], unreadable: dict[int, str],
              vocabulary: 'Vocabulary | None', rate: float | None, say: Say) -> dict[str, Any]:
    """Write vocabulary, captions and annotations, then the manifest that calls them complete."""
    for reason in unreadable.values():
        say(f'left out: {reason}')
    readable = [row not in unreadable for row in range(len(records))]
    if vocabulary is None:
        rows = [row for row in range(len(records)) if readable[row]]
        vocabulary = _build_vocabulary([records[row] for row in rows],
                                       [words[row] for row in rows], plan)
    # Until all files fit together again the directory is not complete.
    (out / 'manifest.json').unlink(missing_ok=True)
    vocabulary.save(out / 'vocabulary.json')

    captions_of, counts = {}, {}
    for split in SPLITS:
        rows = [row for row in range(len(records)) if readable[row] and records[row].split == split]
        captions, image_idxs, too_long, empty = [], [], 0, 0
        for image, row in enumerate(rows):
            for caption in words[row]:
                if not caption:
                    empty += 1
                elif len(caption) > plan['max_length']:
                    too_long += 1
                else:
                    captions.append(vocabulary.encode(caption, plan['max_length']))
                    image_idxs.append(image)
        shape = (len(captions), plan['max_length'] + 2)
        captions_of[split] = (np.asarray(captions, np.int32).reshape(shape), image_idxs)
        counts[split] = {'images': len(rows), 'captions': len(captions), 'too_long': too_long,
                         'empty': empty}
        if too_long or empty:
            say(f'{split}: {len(captions)} captions; {too_long} of more than {plan["max_length"]} '
                f'words and {empty} without words are not trained on (they stay among the '
                'references)')
    missing = [split for split in SPLITS if not counts[split]['images']]
    if missing and counts['train']['images']:
        say(f'no image is in the split {" or ".join(missing)}')
    if counts['train']['images'] and not counts['train']['captions']:
        say('no training caption is left: raise --max-length to train on these data')
    data_dir.write_captions(out / 'captions.h5', captions_of)
    write_json(out / 'annotations.json', [{'id': record.image_id,
                                           'file': str(pathlib.Path(record.path).absolute()),
                                           'split': record.split, 'captions': list(record.captions),
                                           'boxes': _boxes(record, spec),
                                           **({} if readable[row] else {'unreadable': True})}
                                          for row, record in enumerate(records)], indent=None)
    manifest = {
        'format': data_dir.FORMAT, 'made_by': f'show-attend-tell {__version__}',
        'dataset': plan['dataset'], 'records_sha256': plan['records_sha256'],
        'encoder': spec.to_dict(), 'splits': counts, 'max_length': plan['max_length'],
        'tokens': plan['tokens'],
        'vocabulary': {'words': len(vocabulary), 'vocab_size': plan['vocab_size'],
                       'min_count': plan['min_count']},
        'unreadable': {str(records[row].path): reason for row, reason in unreadable.items()},
        'images_per_second': rate and round(rate, 2)}
    write_json(out / 'manifest.json', manifest)
    return manifest


def _words(records: 'Sequence[Record]', tokens: str) -> list[list[list[str]]]:
    """Return the token lists of each record's captions, cut by the function of that name.

    Equal words are one object, as all stay while images are encoded.
    """
    return [[[sys.intern(word) for word in TOKENS[tokens](caption)] for caption in record.captions]
            for record in records]


def _build_vocabulary(records: 'Sequence[Record]', words: list[list[list[str]]],
                      plan: dict[str, Any]) -> 'Vocabulary':
    """Return the Vocabulary of the training captions that have words.

    `words` holds the token lists of each record.
    """
    training = [caption for record, captions in zip(records, words, strict=True)
                if record.split == 'train' for caption in captions if caption]
    return Vocabulary.build(training, plan['vocab_size'], plan['min_count'])


def _boxes(record: 'Record', spec: 'EncoderSpec') -> list[dict[str, Any]] | None:
    """Return the record's boxes in fractions of the network's input; None where not known."""
    if record.boxes is None or record.size is None:
        return None
    return [{'names': list(box.names), 'box': box_to_input((box.x, box.y, box.width, box.height),
                                                           record.size, spec.preprocessing)}
            for box in record.boxes]


def _counts(manifest: dict[str, Any]) -> str:
    parts = [f'{c["images"]} {split} images with {c["captions"]} captions'
             for split, c in manifest['splits'].items() if c['images']]
    rate = manifest.get('images_per_second')
    return f'{", ".join(parts)}; {manifest["vocabulary"]["words"]} words' + (
        f'; {rate:.1f} images/s without start-up' if rate else '')
