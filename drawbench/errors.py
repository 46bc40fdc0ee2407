"""The one exception that a user is meant to read."""


class Problem(Exception):
    """Something the user can act on: one sentence that names what disagrees, the values met, and what to do next.

    The command line prints the message alone and exits with status 1; ``--debug`` shows the traceback.
    """
