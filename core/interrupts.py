"""SIGINT and SIGTERM while training: noted until the step is done, or ending what can be done again."""

import contextlib
import signal
import threading


class Stopped(KeyboardInterrupt):
    """An interrupt inside `Interrupts.at_once`."""


class Interrupts:
    """While active, the first of these signals is only noted; a second one ends the program as usual.

    Signals reach the main thread alone: in others nothing is changed.

    Attributes:
        came: bool, whether a signal came.
    """

    def __init__(self):
        self.came, self._at_once, self._previous = False, False, {}

    def __enter__(self):
        """Takes over the signals."""
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                self._previous[number] = signal.signal(number, self._note)
        return self

    def __exit__(self, *exception):
        """Gives the signals back."""
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def _note(self, number, frame):
        self.came = True
        signal.signal(number, self._previous[number])
        if self._at_once:
            raise Stopped

    @contextlib.contextmanager
    def at_once(self):
        """While active, a signal raises `Stopped` where it comes, as one does that came before."""
        self._at_once = True
        try:
            if self.came:
                raise Stopped
            yield
        finally:
            self._at_once = False
