"""What may come of a damaged input.

A case may end in a result or in a :class:`~drawbench.errors.Problem` of one line; within
:data:`SECONDS`; with no more than :data:`MEMORY` beyond what was held before; with nothing written
outside its folder; with nothing from a file executed.
"""

import contextlib
import os
import resource
import shutil
import signal
import tempfile
import warnings
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from click.testing import CliRunner, Result
from hypothesis import settings

from drawbench.cli import cli
from drawbench.errors import Problem

SECONDS = 10  # of CPU time
MEMORY = 1 << 30  # bytes
LONGEST = 3000  # characters of a clear sentence
MARKER = "executed"  # made beside the folder of a case by any payload that is run
CAMPAIGN = 120  # times as many cases as in the usual tests


@dataclass
class Tally:
    """The outcome of the cases of a kind."""

    cases: int = 0
    refused: int = 0
    peak: int = 0  # bytes beyond what was held before


TALLIES: dict[str, Tally] = defaultdict(Tally)


class Hang(Exception):
    """A case exceeded its time."""


class Payload:
    """Runs a command when it is unpickled."""

    def __reduce__(self):
        return os.system, (f"touch ../{MARKER}",)


def cases(count: int) -> Callable:
    """Return hypothesis settings: so many cases, always the same; in a campaign many more."""
    campaign = settings.get_current_profile_name() == "campaign"
    profile = settings.get_profile("campaign" if campaign else "fuzz")
    return settings(profile, max_examples=count * CAMPAIGN if campaign else count)


def _size(name: str) -> int | None:
    """Return a size of this process in bytes, on Linux."""
    with contextlib.suppress(OSError):
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith(f"{name}:"):
                return int(line.split()[1]) * 1024
    return None


@contextlib.contextmanager
def limited() -> Iterator[None]:
    """Limit time and memory inside; a case that catches :class:`Hang` raises it at the end."""
    hangs = 0

    def stop(*_) -> None:
        nonlocal hangs
        hangs += 1
        raise Hang(f"more than {SECONDS} s")

    virtual, (soft, hard) = _size("VmSize"), resource.getrlimit(resource.RLIMIT_AS)
    handler = signal.signal(signal.SIGPROF, stop)
    if virtual is not None:
        resource.setrlimit(resource.RLIMIT_AS, (virtual + MEMORY, hard))
    signal.setitimer(signal.ITIMER_PROF, SECONDS)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, handler)
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))
    if hangs:
        raise Hang(f"more than {SECONDS} s")


@contextlib.contextmanager
def case(kind: str, template: Path | None = None) -> Iterator[Path]:
    """Enter the folder of a case, a copy of ``template``; a Problem raised inside is a refusal."""
    tally, before = TALLIES[kind], Path.cwd()
    with tempfile.TemporaryDirectory(prefix="drawbench-fuzz-") as root:
        folder = Path(root) / "case"
        shutil.copytree(template, folder, symlinks=True) if template else folder.mkdir()
        os.chdir(folder)
        with contextlib.suppress(OSError):
            Path("/proc/self/clear_refs").write_text("5")  # forget the peak so far
        held = _size("VmRSS") or 0
        tally.cases += 1
        try:
            with limited(), warnings.catch_warnings():
                warnings.simplefilter("ignore")
                yield folder
        except Problem as problem:
            check_sentence(str(problem))
            tally.refused += 1
        finally:
            os.chdir(before)
        tally.peak = max(tally.peak, (_size("VmHWM") or held) - held)
        assert os.listdir(root) == ["case"], f"written outside: {os.listdir(root)}"


def check_sentence(text: str) -> None:
    """Check for one line that a person can read."""
    assert text.strip() and "\n" not in text and "\r" not in text, f"not one line: {text[:500]!r}"
    assert "Traceback" not in text and len(text) <= LONGEST, f"not clear: {text[:500]!r}"


def drawbench(*words: object, **how) -> Result:
    """Run a command in this process.

    Raises:
        Problem: it failed as promised: status 1 or 2, one sentence on standard error, no output.
    """
    result = CliRunner().invoke(cli, [str(word) for word in words], prog_name="drawbench", **how)
    if not (result.exception is None or isinstance(result.exception, SystemExit)):
        raise result.exception
    if result.exit_code == 0:
        return result
    sentences = [line for line in result.stderr.splitlines() if line.startswith("Error: ")]
    assert result.exit_code in (1, 2), f"exit status {result.exit_code}"
    assert "Traceback" not in result.output and len(sentences) <= 1, result.output[-2000:]
    assert sentences or result.stderr.startswith("Usage:"), result.output[-2000:]
    assert result.stdout == "", f"a failed command printed {result.stdout[:300]!r}"
    raise Problem(sentences[0] if sentences else "wrong usage")
