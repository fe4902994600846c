"""The exception for mistakes of the user, and the errors of other libraries in one line."""


class InputError(Exception):
    """Bad input: one line that says what is wrong, where, and what to do.

    The scripts print it without a traceback and exit with status 2.
    """

    def __init__(self, message: object) -> None:
        super().__init__(' '.join(str(message).split()))


def first_line(error: BaseException) -> str:
    """Return the first line of an exception's message, its type where that is empty."""
    return next((line.strip()[:200] for line in str(error).splitlines() if line.strip()),
                type(error).__name__)
