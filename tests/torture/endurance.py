"""20,000 updates with a save after each 50: memory, open files and speed at the end are as at the
start.

Speed is that in CPU time; the clock's is noted beside it. Machines grow slower by themselves, when
they get hot or others work beside
them: a training that slowed is done again, and one that wears out slows every time.
"""

import contextlib
import os
import shutil
import statistics
import time
from pathlib import Path

from . import harness
from .harness import Case, Place, Reference, Tally

COUNT = 1
STEPS, SAVE, MEASURE = 20_000, 50, 500
PATIENCE = 3600  # seconds
MEMORY, SPEED = 0.05, 0.10  # how much they may change
TRIES = 3
FEWEST = 10  # samples, two in each fifth
Samples = list[
    tuple[int, float, float, int, int]
]  # updates, clock and CPU seconds so far, bytes, open files


def run(
    case: Case, place: Place, references: dict[str, Reference], tally: Tally, steps: int = STEPS
) -> None:
    tally.about = f"{case.again} ({steps:,} updates)"
    tally.tried += 1
    words = harness.command("classify", steps=steps, save_every=SAVE, evaluate_every=MEASURE)
    samples = watched(place, words, tally)
    for number in range(2, TRIES + 1):
        if not slowed(samples):
            break
        tally.notes.append(f"it slowed, from {rates(samples)}: done again, for the {number}. time")
        shutil.rmtree(place.run)  # or what the one before left would be taken for its own
        samples = watched(place, words, tally)
    judged(tally, samples)


def watched(place: Place, words: list[str], tally: Tally) -> Samples:
    """The samples of a training, one at every validation; what is wrong with its end goes into the
    tally.
    """
    process = place.start(words, cold=True)
    metrics, rows = place.run / "metrics.csv", 0
    samples: Samples = []
    training = place.run / "result.json"  # there is none while it trains

    def look() -> bool:
        """Take a sample at every validation."""
        nonlocal rows
        found = 0
        with contextlib.suppress(OSError):
            found = metrics.read_bytes().count(b"\n") - 1
        if found > rows:
            rows = found
            with contextlib.suppress(OSError, IndexError):
                samples.append((found, time.monotonic(), process.cpu(), *used(process.pid)))
        return training.exists()

    process.wait_for(look, limit=PATIENCE, pause=0.02)
    ended = process.ended()
    harness.no_traceback(tally, ended)
    tally.check(ended.status == 0, f"exit status {ended.status}: {ended.err[-600:]}")
    tally.check(
        not harness.unsound(place.run) and not harness.strays(place),
        "it left something behind",
        "strays",
    )
    return samples


def used(pid: int) -> tuple[int, int]:
    """Resident memory of a process, bytes, and how many files it has open."""
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE"), len(os.listdir(f"/proc/{pid}/fd"))


def parts(samples: Samples) -> tuple[Samples, Samples]:
    """The second fifth, and the last: in the first, caches fill."""
    fifth = len(samples) // 5
    return samples[fifth : 2 * fifth + 1], samples[-fifth - 1 :]


def speeds(samples: Samples, clock: int) -> tuple[float, float]:
    """Updates in a second, early and at the end, by the clock in that column of the samples."""
    early, late = (
        MEASURE * (part[-1][0] - part[0][0]) / (part[-1][clock] - part[0][clock])
        for part in parts(samples)
    )
    return early, late


def slowed(samples: Samples) -> bool:
    """Whether there are enough samples, and it is slower at the end than it may be."""
    if len(samples) < FEWEST:
        return False
    early, late = speeds(samples, 2)
    return late < (1 - SPEED) * early


def rates(samples: Samples) -> str:
    early, late = speeds(samples, 2)
    return f"{early:.0f} to {late:.0f} updates in a second of CPU time"


def judged(tally: Tally, samples: Samples) -> None:
    """Compare the end with what was early."""
    if not tally.check(len(samples) >= FEWEST, f"only {len(samples)} samples were taken"):
        return
    start, end = parts(samples)
    memory = [statistics.median(sample[3] for sample in part) for part in (start, end)]
    files = [statistics.median(sample[4] for sample in part) for part in (start, end)]
    (early, late), clock = speeds(samples, 2), speeds(samples, 1)
    megabytes = ", ".join(
        f"{sample[3] / 1e6:.0f}" for sample in samples[:: max(1, len(samples) // 10)]
    )
    tally.notes += [
        f"memory {memory[0] / 1e6:.1f} MB early, {memory[1] / 1e6:.1f} MB at the end ({megabytes})",
        f"open files {files[0]:g} early, {files[1]:g} at the end",
        f"updates in a second of CPU time {early:.0f} early, {late:.0f} at the end; by the clock {clock[0]:.0f} and {clock[1]:.0f}",
    ]
    tally.check(
        memory[1] <= (1 + MEMORY) * memory[0],
        f"memory rose from {memory[0] / 1e6:.1f} to {memory[1] / 1e6:.1f} MB",
    )
    tally.check(files[0] == files[1], f"open files went from {files[0]:g} to {files[1]:g}")
    tally.check(not slowed(samples), f"it slowed from {rates(samples)}")
