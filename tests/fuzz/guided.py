"""The same kinds of cases, but made of bytes that atheris (libFuzzer) chooses for the branches of
drawbench that they reach.

atheris is not among the packages that the tests need: ``pip install atheris``.
"""

import contextlib
import sys
from collections.abc import Callable, Iterator

LONGEST = 4096  # bytes that a case is made of


@contextlib.contextmanager
def instrumented() -> Iterator[None]:
    """What is imported inside tells which of its branches are taken."""
    import atheris

    with atheris.instrument_imports(include=["drawbench"], enable_loader_override=False):
        yield


def lead(attempt: Callable[[bytes], bytes | None], cases: int, number: int = 0) -> None:
    """Try so many cases. When the process ends libFuzzer complains of it, so end it with
    ``os._exit``.

    Raises:
        Exception: what a case raised that may not.
    """
    import atheris

    tried, fault = 0, None

    def one(data: bytes) -> None:
        nonlocal tried, fault
        if tried == cases or fault is not None:
            raise SystemExit  # which atheris passes on
        try:
            tried += attempt(data) is not None  # which it is for bytes that make no case
        except Exception as error:
            fault = error

    # libFuzzer's own limits and signals are off: those of the engine hold.
    flags = [
        f"-seed={number + 1}",
        f"-max_len={LONGEST}",
        "-len_control=0",
        "-timeout=1000",
        "-rss_limit_mb=0",
        "-verbosity=0",
        "-print_final_stats=0",
    ]
    flags += [
        f"-handle_{signal}=0"
        for signal in ("abrt", "bus", "fpe", "ill", "int", "segv", "term", "xfsz", "usr1", "usr2")
    ]
    atheris.Setup([sys.argv[0], *flags], one)
    with contextlib.suppress(SystemExit):
        atheris.Fuzz()
    if fault is not None:
        raise fault
