"""Progress bars of tqdm, and one for where the output is no terminal; `core.common.terminal` imports this when needed."""

from collections.abc import Callable
from typing import Any

from tqdm import tqdm


class Lines(tqdm):
    """Progress for files and pipes: whole lines, none of them overwritten, and one for where it ended."""

    @staticmethod
    def status_printer(file: Any) -> Callable[[str], None]:
        """The function that prints one state."""
        def print_line(line: str) -> None:
            file.write(f'{line}\n')
            file.flush()

        return print_line

    def close(self) -> None:
        """Print the last state, unless it was printed, and end."""
        if not getattr(self, 'disable', True) and self.n != self.last_print_n:
            self.refresh()
        self.sp = None  # without it tqdm ends no line of its own
        super().close()
