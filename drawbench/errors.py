"""The exception that a user is meant to read, and helpers for its text."""


def one_line(text: str) -> str:
    """Escape every character that cannot be printed.

    Names of files may contain line feeds or control sequences for a terminal.
    """
    return "".join(
        char if char.isprintable() else char.encode("unicode_escape").decode() for char in text
    )


def reason(error: BaseException) -> str:
    """Return why something failed, in a few words on one line."""
    if isinstance(error, KeyError):
        return f"it lacks {error}"
    if isinstance(error, UnicodeDecodeError):
        return "it is not text"
    return " ".join(str(error).split())[:500] or type(error).__name__


class Problem(Exception):
    """A problem that the user can act on, in one sentence.

    The sentence names what disagrees, the values met and what to do next. The command line prints
    it and exits with status 1; ``--debug`` shows the traceback.
    """

    def __init__(self, sentence: str):
        super().__init__(one_line(sentence))
