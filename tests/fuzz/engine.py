"""What may come of a damaged input, and a campaign of many.

Of every case is asked: a valid result, or a :class:`drawbench.errors.Problem` of one line; within
:data:`SECONDS`; with no more than :data:`MEMORY` beyond what was held before; nothing written
outside the folder of the case; nothing in a file run.
"""

import contextlib
import faulthandler
import os
import resource
import shutil
import signal
import sys
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, Verbosity, given, seed, settings
from hypothesis.strategies import SearchStrategy

from drawbench.errors import Problem

SECONDS = 10.0  # of computing; a busy machine gets WAITING of them by the clock
WAITING = 30.0
# seconds after which a campaign's process ends itself: it hangs where Python's signals do not reach
STUCK = 60
MEMORY = 1 << 30  # bytes
LONGEST = 3000  # letters of a clear sentence


@dataclass(frozen=True)
class Kind:
    """A kind of input.

    Attributes: share: of the cases of a campaign, relative to the others. cases: what is done to a
        valid input; plain data, so that a failure prints what it was. prepare: called once with an
        empty folder and a MonkeyPatch; makes the valid inputs and gives what ``attempt`` needs.
        attempt: called with that, the empty folder of the case, and the case: writes the damaged
        input there and reads it. Raises
            Problem where it is refused, AssertionError where what was read is not valid.
    """

    name: str
    share: int
    cases: SearchStrategy
    prepare: Callable[[Path, pytest.MonkeyPatch], Any]
    attempt: Callable[[Any, Path, Any], None]


@dataclass
class Tally:
    """What became of the cases of a kind."""

    kind: str
    cases: int = 0
    refused: int = 0
    accepted: int = 0
    tracebacks: int = 0  # distinct ones, each told in ``failures``
    hangs: int = 0
    peak: int = 0  # bytes beyond what was held before the first case
    seconds: float = 0.0
    failures: list[str] = field(default_factory=list)


class Hang(Exception):
    """A case took longer than it may."""


# ------------------------------------------------------------------------------------------- limits


def _status(name: str) -> int | None:
    """A size of this process in bytes, from Linux' ``/proc``."""
    with contextlib.suppress(OSError):
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith(f"{name}:"):
                return int(line.split()[1]) * 1024
    return None


@contextlib.contextmanager
def limited_memory() -> Iterator[None]:
    """Inside, no more than :data:`MEMORY` can be had beyond what is held, touched or not: asking
    for more raises.
    """
    held, (soft, hard) = _status("VmSize"), resource.getrlimit(resource.RLIMIT_AS)
    if held is None:
        yield
        return
    resource.setrlimit(resource.RLIMIT_AS, (held + MEMORY, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))


@contextlib.contextmanager
def limited_time() -> Iterator[None]:
    """Inside, a case that takes too long raises :class:`Hang`, or does so at its end if that was
    caught.
    """

    def stop(*_) -> None:
        raise Hang(f"it took longer than {SECONDS:g} s")

    timers = {
        signal.SIGPROF: (signal.ITIMER_PROF, SECONDS),
        signal.SIGALRM: (signal.ITIMER_REAL, WAITING),
    }
    before = {number: signal.signal(number, stop) for number in timers}
    began = time.process_time()
    for timer, seconds in timers.values():
        signal.setitimer(timer, seconds)
    try:
        yield
    finally:
        for number, (timer, _) in timers.items():
            signal.setitimer(timer, 0)
            signal.signal(number, before[number])
    if time.process_time() - began > SECONDS:
        raise Hang(f"it took {time.process_time() - began:.0f} s")


def check_sentence(text: str) -> None:
    """One line that a person can read."""
    assert text.strip() and "\n" not in text and "\r" not in text, f"not one line: {text[:500]!r}"
    assert "Traceback" not in text and len(text) <= LONGEST, (
        f"not a clear sentence: {len(text)} letters, {text[:500]!r}"
    )


# ----------------------------------------------------------------------------------------- campaign


MARKER = "executed"  # what every payload that is run makes, beside the folder of the case


def payload_marker(case: Path) -> Path:
    """Where the payloads of a case would leave their mark."""
    return case.parent / MARKER


def campaign(
    kind: Kind,
    cases: int,
    root: Path,
    number: int | None = 0,
    watch: bool = False,
    lead: Callable[[Callable, int], object] | None = None,
) -> Tally:
    """Run so many cases of a kind.

    Args: root: an empty folder. number: the seed; None takes the same cases always, whatever the
        version of Python hashes. watch: end the process if a case hangs outside of Python; only for
        a process of its own. lead: called with what makes a case of bytes and tries it, and with
        how many; without it Hypothesis chooses.
    """
    tally, here, began = Tally(kind.name), Path.cwd(), time.perf_counter()
    kept, case_folder = root / "kept", root / "case"
    kept.mkdir(parents=True)
    try:
        with pytest.MonkeyPatch.context() as patch, warnings.catch_warnings():
            warnings.simplefilter("ignore")
            ready = kind.prepare(kept, patch)
            outside = set(os.listdir(root)) | {"case"}
            base = _start_of_peak()
            with limited_memory():
                _run(kind, cases, number, watch, tally, ready, case_folder, outside, lead)
            tally.peak = max(0, (_status("VmHWM") or base) - base)
    finally:
        os.chdir(here)
    tally.seconds = time.perf_counter() - began
    return tally


def _start_of_peak() -> int:
    """Forget the highest memory so far, where the system lets us; the memory held now."""
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")
    return _status("VmRSS") or 0


def _run(
    kind: Kind,
    cases: int,
    number: int | None,
    watch: bool,
    tally: Tally,
    ready: Any,
    folder: Path,
    outside: set[str],
    lead: Callable[[Callable, int], object] | None,
) -> None:
    seen: Counter[str] = Counter()

    def one(case: Any) -> None:
        if watch:
            faulthandler.dump_traceback_later(STUCK, exit=True)
        try:
            attempt(case)
        finally:
            if watch:
                faulthandler.cancel_dump_traceback_later()

    def attempt(case: Any) -> None:
        os.chdir(folder.parent)
        _clear(folder)
        folder.mkdir()
        os.chdir(folder)  # what a relative name fails to catch must not land elsewhere
        tally.cases += 1
        refused = False
        try:
            with limited_time():
                kind.attempt(ready, folder, case)
        except Problem as problem:
            check_sentence(str(problem))
            refused = True
        assert not payload_marker(folder).exists(), "a payload was run"
        strays = set(os.listdir(folder.parent)) - outside
        assert not strays, f"written outside of the folder: {strays}"
        seen["refused" if refused else "accepted"] += 1

    decorated = settings(
        max_examples=cases,
        derandomize=number is None,
        database=None,
        deadline=None,
        suppress_health_check=list(HealthCheck),
        phases=[Phase.generate, Phase.shrink],
        verbosity=Verbosity.normal,
        report_multiple_bugs=True,
    )(given(kind.cases)(one))
    if number is not None:
        decorated = seed(number)(decorated)
    try:
        if lead is None:
            decorated()
        else:
            lead(decorated.hypothesis.fuzz_one_input, cases)
    except Exception as error:
        for fault in error.exceptions if isinstance(error, ExceptionGroup) else [error]:
            tally.hangs += isinstance(fault, Hang)
            tally.tracebacks += not isinstance(fault, Hang)
            tally.failures.append(_told(kind, fault))
    tally.refused, tally.accepted = seen["refused"], seen["accepted"]


def _clear(folder: Path) -> None:
    if folder.exists():
        for path in [folder, *folder.rglob("*")]:
            if path.is_dir() and not path.is_symlink():
                path.chmod(0o700)
        shutil.rmtree(folder)
    payload_marker(folder).unlink(missing_ok=True)


def _told(kind: Kind, error: BaseException) -> str:
    """A failure with its minimal example, which Hypothesis notes on the exception."""
    frames = traceback.format_list(traceback.extract_tb(error.__traceback__)[-6:])
    notes = "\n".join(getattr(error, "__notes__", ()))
    return f"[{kind.name}] {type(error).__name__}: {str(error)[:600]}\n{notes[:3000]}\n{''.join(frames)}"


def report(tallies: list[Tally]) -> str:
    """The counts as a table."""
    lines = ["kind          cases  refused  accepted  tracebacks  hangs  peak MiB  seconds"]
    total = Tally("all")
    for tally in tallies:
        for name in ("cases", "refused", "accepted", "tracebacks", "hangs", "seconds"):
            setattr(total, name, getattr(total, name) + getattr(tally, name))
        total.peak = max(total.peak, tally.peak)
    for tally in [*tallies, total]:
        counts = f"{tally.cases:>7,}  {tally.refused:>7,}  {tally.accepted:>8,}  {tally.tracebacks:>10}  {tally.hangs:>5}"
        lines.append(
            f"{tally.kind:<11}{counts}  {tally.peak / 2**20:>8,.0f}  {tally.seconds:>7.0f}"
        )
    return "\n".join(lines)


def shares(kinds: list[Kind], cases: int) -> list[int]:
    """How many cases each kind gets: ``cases`` in all, each at least one."""
    total, given_out, made = sum(kind.share for kind in kinds), 0, []
    for place, kind in enumerate(kinds):
        rest = cases - given_out
        made.append(max(1, rest if place == len(kinds) - 1 else cases * kind.share // total))
        given_out += made[-1]
    return made


if sys.platform != "linux":  # limits and peaks are read from Linux' /proc
    warnings.warn("memory is neither limited nor measured on this system", stacklevel=1)
