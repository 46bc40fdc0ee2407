"""The one exception that a user is meant to read, and what its sentence is made of."""


def one_line(text: str) -> str:
    """A text with every letter escaped that cannot be seen: names of files may hold line feeds, or
    orders to a terminal.
    """
    return "".join(
        letter if letter.isprintable() else letter.encode("unicode_escape").decode()
        for letter in text
    )


def reason(error: BaseException) -> str:
    """Why something failed, in a few words on one line, for the sentence of a :class:`Problem`."""
    if isinstance(error, KeyError):
        return f"it lacks {error}"
    if isinstance(error, UnicodeDecodeError):
        return "it is not text"
    return " ".join(str(error).split())[:500] or type(error).__name__


class Problem(Exception):
    """Something the user can act on: one sentence that names what disagrees, the values met, and
    what to do next.

    The command line prints the message alone and exits with status 1; ``--debug`` shows the
    traceback.
    """

    def __init__(self, sentence: str):
        super().__init__(one_line(sentence))
