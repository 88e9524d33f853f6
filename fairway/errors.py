"""The one exception a user is meant to read: a single sentence that names the file, key or line.

Stages print it without a traceback and exit with status 1; everything else is a bug and keeps its traceback.
"""


class InputError(Exception):
    """Something the user gave is wrong: the message says where, what was expected, and what to do."""
