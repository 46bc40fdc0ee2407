"""The one exception that a user is meant to read."""


def one_line(text: str) -> str:
    """A text with every letter escaped that cannot be seen: names of files may hold line feeds, or orders to a terminal."""
    return "".join(letter if letter.isprintable() else letter.encode("unicode_escape").decode() for letter in text)


class Problem(Exception):
    """Something the user can act on: one sentence that names what disagrees, the values met, and what to do next.

    The command line prints the message alone and exits with status 1; ``--debug`` shows the traceback.
    """

    def __init__(self, sentence: str):
        super().__init__(one_line(sentence))
