"""The one exception that stands for a mistake of the user's, not of the program's."""


class InputError(Exception):
    """Bad input: one line that says what is wrong, where, and what to do.

    The scripts print it without a traceback and exit with status 2.
    """

    def __init__(self, message: object) -> None:
        super().__init__(' '.join(str(message).split()))
