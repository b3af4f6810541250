"""The one exception for what a user can put right."""


class InputError(ValueError):
    """Bad input: the message is one line that says what is wrong, where, and what was expected.

    The command line prints it without a traceback and exits with code 2.
    """
