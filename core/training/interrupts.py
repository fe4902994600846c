"""SIGINT and SIGTERM while training: noted until the step is done, or obeyed at once."""

import contextlib
import signal
import threading
from collections.abc import Iterator
from typing import Any


class Stopped(KeyboardInterrupt):
    """An interrupt inside `Interrupts.at_once`."""


class Interrupts:
    """While active, the first signal is only noted; a second one ends the program as usual.

    Signals reach the main thread alone: in others nothing is changed.

    Attributes:
        came: bool, whether a signal came.
    """

    def __init__(self) -> None:
        self.came, self._at_once = False, False
        self._previous: dict[int, Any] = {}

    def __enter__(self) -> 'Interrupts':
        """Take over the signals."""
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                self._previous[number] = signal.signal(number, self._note)
        return self

    def __exit__(self, *exception: object) -> None:
        """Give the signals back."""
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def _note(self, number: int, frame: Any) -> None:
        self.came = True
        signal.signal(number, self._previous[number])
        if self._at_once:
            raise Stopped

    @contextlib.contextmanager
    def at_once(self) -> Iterator[None]:
        """While active, have a signal raise `Stopped`, as one does that came before.

        For what is done again when training goes on, such as a validation.
        """
        self._at_once = True
        try:
            if self.came:
                raise Stopped
            yield
        finally:
            self._at_once = False
