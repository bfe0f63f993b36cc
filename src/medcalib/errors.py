"""The error a user can cause."""

__all__ = ["UserError"]


class UserError(ValueError):
    """A mistake in what the user gave: a name, a file, a key, a value.

    The message is one sentence that names the file, key or case and says what to do. The command lines print it without
    a traceback and exit with code 2.
    """
