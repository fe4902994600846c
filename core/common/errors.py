"""The one exception that stands for a mistake of the user's, not of the program's; others' errors
in one line.
"""


class InputError(Exception):
    """Bad input: one line that says what is wrong, where, and what to do.

    The scripts print it without a traceback and exit with status 2.
    """

    def __init__(self, message: object) -> None:
        super().__init__(' '.join(str(message).split()))


def first_line(error: BaseException) -> str:
    """What an exception says, in one short line; its type where it says nothing."""
    return next((line.strip()[:200] for line in str(error).splitlines() if line.strip()),
                type(error).__name__)
