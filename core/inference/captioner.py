"""From photos to sentences, for programs and notebooks: a trained run held open.

    from core import Captioner

    with Captioner.load('runs/flickr8k', beam_width=3) as captioner:
        for result in captioner(['dog.jpg', 'beach.png']):
            print(result.name, result.caption)
        captioner('dog.jpg')[0].show()      # in a notebook: the attention picture

Pixels, features, words and attention are computed in one graph, whose session stays open. Several
captioners live in one process, each with a graph of its own, and each may be called from many
threads at once.
"""

import collections
import concurrent.futures
import dataclasses
import itertools
import os
import pathlib
import threading
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from core.common.aliases import Grid, PathLike
from core.common.errors import InputError
from core.decoding.captions import decode
from core.encoders.photos import UnreadableImage
from core.encoders.preprocessing import load
from core.runs.run_dir import Run
from core.runtime.backend import tf, tf1
from core.runtime.devices import Machine, session_config
from core.viewer.caption_record import caption_record

if TYPE_CHECKING:
    from core.decoding.captions import Caption
    from core.encoders.photos import Photo

    Named = tuple[str, Photo | Exception]  # the exception: why there is no photo to read

# photos computed together: fewer waste the processor, more only let the first answer wait
BATCH = 16


@dataclasses.dataclass(frozen=True, eq=False)
class Result:
    """The captions of one photo, or why there are none.

    Attributes:
        name: str, the photo's path, or 'photo 1', 'photo 2' ... for what has none.
        captions: list of core.decoding.captions.Caption, best first; empty where the photo could
            not be read.
        grid: (rows, cols) of the attention; place l is in row l // cols.
        picks_locations: bool, whether each word's attention is one location (hard attention,
            decode_context sample or argmax).
        error: UnreadableImage, or None. Only `Captioner.stream` gives such a result.
        photo: what was captioned: path, bytes, array or PIL image.
        preprocessing: core.encoders.preprocessing.Preprocessing of the encoder.
    """

    name: str
    captions: 'list[Caption]'
    grid: Grid
    picks_locations: bool
    error: InputError | None = None
    photo: Any = dataclasses.field(default=None, repr=False)
    preprocessing: Any = dataclasses.field(default=None, repr=False)

    @property
    def best(self) -> 'Caption':
        """Return the best Caption.

        It has `words`, `alphas`, `betas`, `probabilities`, `log_prob` and `score`.
        """
        return self.captions[0]

    @property
    def caption(self) -> str:
        """Return the best caption as a text."""
        return self.best.text

    @property
    def words(self) -> list[str]:
        """Return the best caption's words, a list of str."""
        return self.best.words

    @property
    def alphas(self) -> np.ndarray:
        """Return the best caption's attention, (len(words), L) float32."""
        return self.best.alphas

    @property
    def score(self) -> float | None:
        """Return the best caption's score: log-probability / length**length_penalty."""
        return self.best.score

    def view(self, side: int = 320) -> np.ndarray:
        """Return the part of the photo that the encoder sees, (h, w, 3) uint8.

        Its longer side has `side` pixels.
        """
        from core.viewer import attention_pictures

        return attention_pictures.view(self.photo, self.preprocessing, side)

    def picture(self, number: int = 0) -> np.ndarray:
        """Return the attention picture of caption `number`, (H, W, 3) uint8.

        See core/viewer/attention_pictures.py.
        """
        from core.viewer import attention_pictures

        return attention_pictures.attention_picture(self.view(), self.captions[number], self.grid,
                                                    name=os.path.basename(self.name))

    def png(self, number: int = 0) -> bytes:
        """Return the attention picture as the bytes of a PNG file."""
        from core.viewer import attention_pictures

        return attention_pictures.png(self.picture(number))

    def animation(self, number: int = 0) -> bytes:
        """Return the bytes of a GIF in which the attention moves over the photo, word by word."""
        from core.viewer import attention_pictures

        return attention_pictures.animation(self.view(), self.captions[number], self.grid)

    def show(self) -> Any:
        """Return the attention picture as a PIL image, which a notebook displays."""
        from PIL import Image

        return Image.fromarray(self.picture())

    def to_dict(self) -> dict[str, Any]:
        """Return a dict ready for JSON, the line of `caption.py --json`.

        docs/captioning.md names the fields.
        """
        if self.error is not None:
            return {'image': self.name, 'error': str(self.error)}
        return {'image': self.name, 'caption': self.caption, 'grid': list(self.grid),
                'captions': [
            caption_record(caption, self.picks_locations) for caption in self.captions]}


class Captioner:
    """A run's best model on top of its encoder, ready for photos.

    Args:
        run: core.runs.run_dir.Run.
        weights: path of the encoder's weights file; None: where it was when the run was trained.
        n_best: captions a photo; a beam that is narrower is made as wide.
        seed: int, of what is drawn (sampled words, hard attention's locations): it follows the seed
            and the photo's place in the call.
        machine: core.runtime.devices.Machine, where to compute; None: Machine().

    Attributes:
        run: that. config: DecodingConfig in use. spec: EncoderSpec. n_best: int. step: int, the
            model's training step.

    Raises:
        InputError: the run has no model, or the weights are missing or others.
    """

    def __init__(self, run: Run, weights: PathLike | None = None, n_best: int = 1, seed: int = 0,
                 machine: Machine | None = None) -> None:
        if not isinstance(seed, int) or not 0 <= seed < 2**31:
            raise InputError(f'seed must be a whole number from 0 to {2**31 - 1}, not {seed}')
        if n_best < 1:
            raise InputError(f'n_best must be at least 1, not {n_best}')
        options = run.config.decoding
        if n_best > options.beam_width:
            options = dataclasses.replace(options, beam_width=n_best)
            options.check_combination('n_best')
        self.run, self.config, self.spec = run, options, run.spec
        self.n_best, self.seed = n_best, seed
        model = run.config.model
        self._picks_locations = model.attention == 'hard' and model.decode_context != 'expected'
        self._running, self._idle = 0, threading.Condition()
        with tf.Graph().as_default() as graph:
            pixels = tf1.placeholder(tf.uint8, (None, run.spec.size, run.spec.size, 3), 'images')
            self._model, restore = run.make_captioner(pixels, weights)
            # Compiling a size takes longer than what it saves on the few photos that are computed
            # together here.
            self._search = self._model.build_search(options, n_best, jit=False)
        self._session = tf1.Session(graph=graph, config=session_config(machine or Machine()))
        try:
            with graph.as_default():
                self.step = restore(self._session).get('step')
        except BaseException:
            self.close()
            raise

    @classmethod
    def load(cls, path: PathLike, weights: PathLike | None = None, n_best: int = 1, seed: int = 0,
             machine: Machine | None = None, **decoding: Any) -> 'Captioner':
        """Return the Captioner of a run directory.

        Args:
            path: the directory that train.py made, or `python -m core import`; or the archive of
                `python -m core pack`.
            weights, n_best, seed, machine: see the class.
            decoding: options of DecodingConfig instead of the run's own, for example beam_width=3.

        Raises:
            InputError: no run there, an unknown option, or as the class.
        """
        run = Run(path)
        sections = run.config.to_dict()
        sections['decoding'].update(decoding)
        run.config = type(run.config).from_dict(sections, where='decoding')
        return cls(run, weights, n_best, seed, machine)

    def __call__(self, photos: 'Photo | Sequence[Photo]') -> list[Result]:
        """Return the captions of photos.

        Args:
            photos: one photo or a list of photos. A photo is a path, the bytes of an image file, an
                array, uint8 (h, w, 3) or (h, w), or a PIL image.

        Returns:
            list of Result, one a photo, also for a single photo.

        Raises:
            UnreadableImage: a photo cannot be read; names it.
            ValueError: the captioner is closed.
        """
        files = str, os.PathLike, bytes, bytearray, memoryview, np.ndarray
        one = isinstance(photos, files) or hasattr(photos, 'convert')
        batch: Any = [photos] if one else photos
        results = list(self.stream(batch))
        for result in results:
            if result.error is not None:
                raise result.error
        return results

    def stream(self, photos: 'Iterable[Photo | Named]',
               batch_size: int = BATCH) -> Iterator[Result]:
        """Yield a Result for each photo, in their order, while later ones are read.

        Args:
            photos: iterable of photos, see `__call__`; or pairs (name, photo), or (name, exception)
                for what is known to be unreadable. batch_size: int, photos computed together; the
                first come alone, so that an answer is there soon.
        """
        if batch_size < 1:
            raise ValueError(f'batch_size must be at least 1, not {batch_size}')
        with concurrent.futures.ThreadPoolExecutor(os.cpu_count() or 1, 'decode') as pool:
            numbered = enumerate(photos)
            sizes = itertools.chain((1,), itertools.repeat(batch_size))
            waiting: collections.deque[list[tuple]] = collections.deque()

            def read_ahead() -> None:
                batch = [(number, *named(photo, number))
                         for number, photo in itertools.islice(numbered, next(sizes))]
                if batch:
                    waiting.append([(number, name, photo, pool.submit(self.read, photo, name))
                                    for number, name, photo in batch])

            try:
                for _ in range(3):
                    read_ahead()
                while waiting:
                    batch = waiting.popleft()
                    read_ahead()
                    yield from self._batch([(*rest, _outcome(future)) for *rest, future in batch])
            finally:
                pool.shutdown(wait=True, cancel_futures=True)

    def read(self, photo: 'Photo | Exception', name: str | None = None) -> np.ndarray:
        """Return the encoder's input for a photo, (size, size, 3) uint8.

        Raises:
            UnreadableImage: the photo cannot be read; names it `name`.
        """
        try:
            if isinstance(photo, Exception):
                raise photo
            # A pipe would block until somebody writes into it, and a device may never end.
            if (isinstance(photo, (str, os.PathLike)) and os.path.exists(photo)
                and not os.path.isfile(photo)):
                raise UnreadableImage(str(photo), 'it is no regular file')
            return load(photo, self.spec.preprocessing)
        except UnreadableImage as error:
            raise UnreadableImage(name or error.source, error.reason) from error

    def decode(self, pixels: np.ndarray,
               numbers: np.ndarray | None = None) -> 'list[list[Caption]]':
        """Return the captions of pictures from `read`.

        Args:
            pixels: (N, size, size, 3) uint8. numbers: (N,) int that decide with the seed what is
                drawn; None: 0 to N - 1.

        Returns:
            list of N lists of Caption, best first.

        Raises:
            ValueError: the captioner is closed.
        """
        numbers = np.arange(len(pixels)) if numbers is None else numbers
        with self._idle:
            session = self._session
            if session is None:
                raise ValueError('this captioner is closed')
            self._running += 1
        try:
            return decode(session, self._model, self._search, pixels, numbers, self.seed)
        finally:
            with self._idle:
                self._running -= 1
                self._idle.notify_all()

    def result(self, name: str, captions: 'list[Caption]', photo: 'Photo | Exception | None',
               error: InputError | None = None) -> Result:
        """Return the Result of one photo, see there."""
        return Result(name, captions, self.spec.grid, self._picks_locations, error, photo,
                      self.spec.preprocessing)

    def _batch(self, batch: Sequence[tuple[int, str, Any, Any]]) -> Iterator[Result]:
        """Yield the Results of [(number, name, photo, pixels or exception)], in their order."""
        readable = [(number, pixels) for number, _, _, pixels in batch
                    if not isinstance(pixels, Exception)]
        captions: Iterator[list[Caption]] = iter(())
        if readable:
            numbers, pixels = zip(*readable, strict=True)
            captions = iter(self.decode(np.stack(pixels), np.array(numbers)))
        for _, name, photo, pixels in batch:
            if isinstance(pixels, InputError):
                yield self.result(name, [], photo, pixels)
            else:
                yield self.result(name, next(captions), photo)

    def close(self) -> None:
        """Release the session, after the photos in work; no call is possible afterwards."""
        with self._idle:
            session, self._session = self._session, None
            self._idle.wait_for(lambda: not self._running)
        if session is not None:
            session.close()

    def __enter__(self) -> 'Captioner':
        return self

    def __exit__(self, *unused: object) -> None:
        self.close()


def named(photo: 'Photo | Named', number: int) -> 'Named':
    """Return (name, photo) of what `Captioner.stream` takes."""
    if isinstance(photo, tuple):
        return photo
    if isinstance(photo, (str, os.PathLike)):
        return str(pathlib.Path(photo)), photo
    return f'photo {number + 1}', photo


def _outcome(future: concurrent.futures.Future) -> Any:
    try:
        return future.result()
    except InputError as error:
        return error
