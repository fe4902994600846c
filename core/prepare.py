"""What prepro.py does: records and an encoder in, a complete DATA DIR out.

Images are decoded by threads, encoded by the graph and written by another thread, all at the same time; only a few
batches are in memory at any moment.
"""

import collections
import concurrent.futures
import contextlib
import hashlib
import json
import os
import pathlib
import shutil
import time

import numpy as np

from core import __version__, console, images, store, text
from core.datasets import SPLITS
from core.errors import InputError
from core.files import write_json

BATCH = 32


def prepare(records, spec, out, dataset, vocab_size=10000, min_count=1, max_length=15, skip_unreadable=False,
            vocabulary=None, say=print):
    """Make or complete the DATA DIR `out`.

    Args:
        records: list of Record.
        spec: EncoderSpec.
        out: directory; made where missing. What an earlier, interrupted call finished is kept.
        dataset: str, the dataset's name, for the manifest.
        vocab_size, min_count: the most frequent words of training captions, and how often a word must occur.
        max_length: captions of more words are left out of training, never out of the references.
        skip_unreadable: leave unreadable images out instead of refusing.
        vocabulary: Vocabulary to use instead of counting the training captions.
        say: function that prints a line.

    Returns:
        dict, the manifest.

    Raises:
        InputError: unreadable images (all of them named), too little disk space, or `out` holds something else. What
            can be known before the first image leaves nothing behind.
    """
    out = pathlib.Path(out)
    check(vocab_size, min_count, max_length)
    plan = _plan(records, spec, dataset, vocab_size, min_count, max_length, vocabulary)
    with _writing(out):
        store.check_plan(out, plan)
        if (out / 'manifest.json').exists():
            manifest = store.read_json(out / 'manifest.json')
            if skip_unreadable or not manifest['unreadable']:
                say(f'{out} is complete: {_counts(manifest)}')
                return manifest
        if vocabulary is None:
            _build_vocabulary(records, map(_tokens, records), plan)  # an error now rather than after the last image
        n_bytes = 2 * len(records) * spec.grid[0] * spec.grid[1] * spec.dim
        say(f'{len(records)} images x {spec.grid[0]}x{spec.grid[1]} locations x {spec.dim} float16 from '
            f'{spec.encoder} {spec.layer}: {console.size_text(n_bytes)} in {out}')
        path = out / 'features.h5'
        _check_room(path, n_bytes)
        # Before anything is written: the weights may turn out to be those of another network.
        with _encoder(spec, path) as encoder:
            out.mkdir(parents=True, exist_ok=True)
            with store.lock(out, 'prepro.py'):
                return _complete(records, encoder, spec, out, plan, skip_unreadable, vocabulary, say)


def _encoder(spec, path):
    """The encoder as a context; of None where every image is encoded already."""
    if path.exists() and store.FeatureFile(path).done().all():
        return contextlib.nullcontext()
    from core.encoders import Encoder  # TensorFlow is imported only when there is work for it

    return Encoder(spec)


def _complete(records, encoder, spec, out, plan, skip_unreadable, vocabulary, say):
    """Do what is left to do in `out`, which is locked."""
    store.write_plan(out, plan)
    store.remove_leftovers(out)
    path = out / 'features.h5'
    if not path.exists():
        store.FeatureFile.create(path, (len(records), spec.grid[0] * spec.grid[1], spec.dim))
    features = store.FeatureFile(path, writable=True)
    try:
        unreadable, rate = _extract(records, encoder, features, say)
    finally:
        features.close()
    if unreadable and (not skip_unreadable or len(unreadable) == len(records)):
        raise InputError(_unreadable_text(unreadable))
    manifest = _annotate(records, spec, out, plan, unreadable, vocabulary, rate, say)
    say(f'{out} is complete: {_counts(manifest)}')
    return manifest


def check(vocab_size, min_count, max_length):
    """Raises InputError for numbers below 1."""
    for name, value in (('vocab-size', vocab_size), ('min-count', min_count), ('max-length', max_length)):
        if value < 1:
            raise InputError(f'{name} must be at least 1, not {value}')


@contextlib.contextmanager
def _writing(out):
    """Turn what the system says of a disk that is full, a place that is no directory and the like into one line."""
    try:
        yield
    except BrokenPipeError:  # of `say`: our reader went away
        raise
    except OSError as error:
        raise InputError(f'{out}: cannot write there ({error}); make room and run the same command again, finished '
                         f'images are kept, or choose another --out') from None


def _check_room(path, n_bytes):
    """Refuse features that the disk cannot hold; what an earlier call wrote of them counts as there."""
    there = path.stat().st_blocks * 512 if path.exists() else 0
    place = next(parent for parent in path.absolute().parents if parent.exists())
    free = shutil.disk_usage(place).free
    if n_bytes - there > 0.98 * free:
        raise InputError(f'{path.parent}: {console.size_text(n_bytes - there)} needed, {console.size_text(free)} '
                         f'free; make room, choose another --out or use --limit')


def _plan(records, spec, dataset, vocab_size, min_count, max_length, vocabulary):
    """What decides the contents of a DATA DIR."""
    digest = hashlib.sha256()
    for record in records:
        line = [record.image_id, record.path.name, record.split, record.captions,
                record.boxes and [(b.names, b.x, b.y, b.width, b.height) for b in record.boxes], record.size]
        digest.update(json.dumps(line).encode())
    words = hashlib.sha256(json.dumps(vocabulary.idx_to_word).encode()).hexdigest() if vocabulary else None
    return {'dataset': dataset, 'images': len(records), 'records_sha256': digest.hexdigest(), **spec.identity(),
            'vocab_size': vocab_size, 'min_count': min_count, 'max_length': max_length, 'vocabulary_sha256': words}


def _extract(records, encoder, features, say):
    """Encode every record that is not done; returns ({row: reason} of unreadable images, images per second)."""
    waiting = collections.deque(np.flatnonzero(~features.done()))
    if not len(waiting):
        return {}, None
    n_done = len(records) - len(waiting)
    if n_done:
        say(f'{n_done} images were encoded before and are kept')
    unreadable, begun, encoded = {}, None, 0

    def decode(row):
        try:
            return row, images.load(records[row].path, encoder.spec.preprocessing), None
        except images.UnreadableImage as error:
            return row, None, str(error)

    n_threads = os.cpu_count() or 1
    with (
        concurrent.futures.ThreadPoolExecutor(n_threads, 'decode') as decoders,
        concurrent.futures.ThreadPoolExecutor(1, 'write') as writer,
        console.progress(len(records), 'encoding', initial=n_done, unit='image') as bar,
    ):
        decoding, writing = collections.deque(), collections.deque()
        try:
            while waiting or decoding:
                while waiting and len(decoding) < 4 * BATCH:
                    decoding.append(decoders.submit(decode, waiting.popleft()))
                rows, pixels = [], []
                while decoding and len(rows) < BATCH:
                    row, picture, reason = decoding.popleft().result()
                    if reason:
                        unreadable[int(row)] = reason
                        bar.update()
                    else:
                        rows.append(row)
                        pixels.append(picture)
                if not rows:
                    continue
                encoded_batch = encoder.encode(np.stack(pixels))
                if begun is None:  # the first batch also pays for building and tracing
                    begun = time.perf_counter()
                else:
                    encoded += len(rows)
                writing.append(writer.submit(features.write, rows, encoded_batch))
                while len(writing) > 2 or writing and writing[0].done():
                    writing.popleft().result()
                bar.update(len(rows))
            for write in writing:
                write.result()
        except BaseException:
            decoders.shutdown(wait=False, cancel_futures=True)
            raise
    rate = encoded / (time.perf_counter() - begun) if encoded else None
    return unreadable, rate


def _unreadable_text(unreadable):
    shown = '; '.join(list(unreadable.values())[:20])
    more = f'; and {len(unreadable) - 20} more' if len(unreadable) > 20 else ''
    what = 'image' if len(unreadable) == 1 else 'images'
    return (f'{len(unreadable)} {what} cannot be read: {shown}{more}. Repair them and run the same command again (the '
            f'others are kept), or leave them out with --skip-unreadable')


def _annotate(records, spec, out, plan, unreadable, vocabulary, rate, say):
    """Write vocabulary, captions and annotations, then the manifest that makes the directory complete."""
    for reason in unreadable.values():
        say(f'left out: {reason}')
    readable = [row not in unreadable for row in range(len(records))]
    tokens = {row: _tokens(record) for row, record in enumerate(records) if readable[row]}
    if vocabulary is None:
        vocabulary = _build_vocabulary([records[row] for row in tokens], tokens.values(), plan)
    # Until all files fit together again the directory is not complete.
    (out / 'manifest.json').unlink(missing_ok=True)
    vocabulary.save(out / 'vocabulary.json')

    captions_of, counts = {}, {}
    for split in SPLITS:
        rows = [row for row in tokens if records[row].split == split]
        captions, image_idxs, too_long, empty = [], [], 0, 0
        for image, row in enumerate(rows):
            for words in tokens[row]:
                if not words:
                    empty += 1
                elif len(words) > plan['max_length']:
                    too_long += 1
                else:
                    captions.append(vocabulary.encode(words, plan['max_length']))
                    image_idxs.append(image)
        shape = (len(captions), plan['max_length'] + 2)
        captions_of[split] = (np.asarray(captions, np.int32).reshape(shape), image_idxs)
        counts[split] = {'images': len(rows), 'captions': len(captions), 'too_long': too_long, 'empty': empty}
        if too_long or empty:
            say(f'{split}: {len(captions)} captions; {too_long} of more than {plan["max_length"]} words and {empty} '
                f'without words are not trained on (they stay among the references)')
    missing = [split for split in SPLITS if not counts[split]['images']]
    if missing and counts['train']['images']:
        say(f'no image is in the split {" or ".join(missing)}')
    if counts['train']['images'] and not counts['train']['captions']:
        say('no training caption is left: raise --max-length to train on these data')
    store.write_captions(out / 'captions.h5', captions_of)
    write_json(out / 'annotations.json', [
        {
            'id': record.image_id, 'file': str(pathlib.Path(record.path).absolute()), 'split': record.split,
            'captions': list(record.captions), 'boxes': _boxes(record, spec),
            **({} if readable[row] else {'unreadable': True}),
        }
        for row, record in enumerate(records)
    ], indent=None)
    manifest = {
        'format': store.FORMAT, 'made_by': f'show-attend-tell {__version__}', 'dataset': plan['dataset'],
        'records_sha256': plan['records_sha256'], 'encoder': spec.to_dict(), 'splits': counts,
        'max_length': plan['max_length'],
        'vocabulary': {'words': len(vocabulary), 'vocab_size': plan['vocab_size'], 'min_count': plan['min_count']},
        'unreadable': {str(records[row].path): reason for row, reason in unreadable.items()},
        'images_per_second': rate and round(rate, 2),
    }
    write_json(out / 'manifest.json', manifest)
    return manifest


def _tokens(record):
    return [text.tokenize(caption) for caption in record.captions]


def _build_vocabulary(records, tokens, plan):
    """Vocabulary of the training captions that have words; `tokens` holds the token lists of each record."""
    training = [words for record, captions in zip(records, tokens, strict=True) if record.split == 'train'
                for words in captions if words]
    return text.Vocabulary.build(training, plan['vocab_size'], plan['min_count'])


def _boxes(record, spec):
    """The record's boxes in fractions of the network's input; None where they are not known."""
    if record.boxes is None or record.size is None:
        return None
    return [
        {'names': list(box.names),
         'box': images.box_to_input((box.x, box.y, box.width, box.height), record.size, spec.preprocessing)}
        for box in record.boxes
    ]


def _counts(manifest):
    parts = [f'{c["images"]} {split} images with {c["captions"]} captions'
             for split, c in manifest['splits'].items() if c['images']]
    rate = manifest.get('images_per_second')
    return f'{", ".join(parts)}; {manifest["vocabulary"]["words"]} words' + (
        f'; {rate:.1f} images/s without start-up' if rate else '')
