"""The one exception for what a user can put right, and what others say in one line."""


class InputError(ValueError):
    """Bad input: the message is one line that says what is wrong, where, and what was expected.

    The command line prints it without a traceback and exits with code 2.
    """


def first_line(error: BaseException) -> str:
    """What an error says; its name where it says nothing, as Python's own MemoryError does."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]
