"""20,000 updates with 400 saves: memory, open files and speed must not drift.

Speed is measured in CPU time, with the clock's beside it. A machine may slow down by itself, so a
training that slowed is repeated; one that wears out slows every time.
"""

import contextlib
import os
import shutil
import statistics
import time
from pathlib import Path
from typing import NamedTuple

from . import checks
from .checks import Case, Tally
from .processes import Place, Reference, command

COUNT = 1
STEPS, SAVE, EVALUATE = 20_000, 50, 500
TIME_LIMIT = 3600  # seconds
MEMORY, SPEED = 0.05, 0.10  # allowed relative changes
TRIES = 3
FEWEST = 10  # samples, two in each fifth


class Sample(NamedTuple):
    """The state of the process after a validation."""

    rows: int  #: validations so far
    clock: float  #: seconds
    cpu: float  #: seconds
    memory: int  #: bytes, resident
    files: int  #: open


def run(
    case: Case, place: Place, references: dict[str, Reference], tally: Tally, steps: int = STEPS
) -> None:
    tally.about = f"{case.repeat} ({steps:,} updates)"
    tally.tried += 1
    words = command("classify", steps=steps, checkpoint_every=SAVE, evaluate_every=EVALUATE)
    for number in range(1, TRIES + 1):
        samples = watch(place, words, tally)
        if number == TRIES or not slowed(samples):
            break
        tally.notes.append(f"attempt {number} slowed ({rates(samples)}) and was repeated")
        shutil.rmtree(place.run)
    judge(tally, samples)


def watch(place: Place, words: list[str], tally: Tally) -> list[Sample]:
    """Run a training to its end; return a sample at every validation."""
    process = place.start(words, cold=True)
    metrics, result = place.run / "metrics.csv", place.run / "result.json"
    samples: list[Sample] = []

    def look() -> bool:
        rows = 0
        with contextlib.suppress(OSError):
            rows = metrics.read_bytes().count(b"\n") - 1
        if rows > (samples[-1].rows if samples else 0):
            with contextlib.suppress(OSError, IndexError):
                folder = Path(f"/proc/{process.pid}")
                pages = int((folder / "statm").read_text().split()[1])
                memory, files = pages * os.sysconf("SC_PAGE_SIZE"), len(os.listdir(folder / "fd"))
                samples.append(Sample(rows, time.monotonic(), process.cpu(), memory, files))
        return result.exists()

    process.wait_for(look, limit=TIME_LIMIT, pause=0.02)
    checks.succeeded(tally, process.ended())
    clean = not checks.unsound(place.run) and not checks.strays(place)
    tally.check(clean, "it left something behind", "strays")
    return samples


def parts(samples: list[Sample]) -> tuple[list[Sample], list[Sample]]:
    """Return the second and the last fifth; caches fill during the first."""
    fifth = len(samples) // 5
    return samples[fifth : 2 * fifth + 1], samples[-fifth - 1 :]


def speeds(samples: list[Sample], clock: str) -> list[float]:
    """Return updates per second early and late, by ``cpu`` or ``clock``."""
    return [
        EVALUATE
        * (part[-1].rows - part[0].rows)
        / (getattr(part[-1], clock) - getattr(part[0], clock))
        for part in parts(samples)
    ]


def slowed(samples: list[Sample]) -> bool:
    if len(samples) < FEWEST:
        return False
    early, late = speeds(samples, "cpu")
    return late < (1 - SPEED) * early


def rates(samples: list[Sample]) -> str:
    early, late = speeds(samples, "cpu")
    return f"{early:.0f} updates per CPU second early, {late:.0f} late"


def judge(tally: Tally, samples: list[Sample]) -> None:
    """Compare the end with the beginning."""
    if not tally.check(len(samples) >= FEWEST, f"only {len(samples)} samples were taken"):
        return
    memory = [statistics.median(sample.memory for sample in part) for part in parts(samples)]
    files = [statistics.median(sample.files for sample in part) for part in parts(samples)]
    megabytes = f"memory {memory[0] / 1e6:.1f} MB early, {memory[1] / 1e6:.1f} MB late"
    opened = f"open files {files[0]:g} early, {files[1]:g} late"
    early, late = speeds(samples, "clock")
    tally.notes += [megabytes, opened, f"{rates(samples)}; by the clock {early:.0f} and {late:.0f}"]
    tally.check(memory[1] <= (1 + MEMORY) * memory[0], f"memory rose: {megabytes}")
    tally.check(files[0] == files[1], f"files stay open: {opened}")
    tally.check(not slowed(samples), f"it slowed: {rates(samples)}")
