"""20,000 updates with a save after each 50: memory, open files and speed at the end are as at the start.

Speed is that in CPU time, which does not depend on what else the machine does; the clock's is noted beside it.
"""

import contextlib
import os
import statistics
import time
from pathlib import Path

from . import harness
from .harness import Case, Place, Reference, Tally

COUNT = 1
STEPS, SAVE, MEASURE = 20_000, 50, 500
PATIENCE = 3600  # seconds
MEMORY, SPEED = 0.05, 0.10  # how much they may change


def run(case: Case, place: Place, references: dict[str, Reference], tally: Tally, steps: int = STEPS) -> None:
    tally.about = f"{case.again} ({steps:,} updates)"
    tally.tried += 1
    process = place.start(harness.command("classify", steps=steps, save_every=SAVE, evaluate_every=MEASURE), cold=True)
    metrics, samples, rows = place.run / "metrics.csv", [], 0
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
    tally.check(not harness.unsound(place.run) and not harness.strays(place), "it left something behind", "strays")
    judged(tally, samples)


def used(pid: int) -> tuple[int, int]:
    """Resident memory of a process, bytes, and how many files it has open."""
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE"), len(os.listdir(f"/proc/{pid}/fd"))


def judged(tally: Tally, samples: list[tuple[int, float, float, int, int]]) -> None:
    """Compare the last fifth with the second fifth: in the first, caches fill."""
    fifth = len(samples) // 5
    if not tally.check(fifth >= 2, f"only {len(samples)} samples were taken"):
        return
    start, end = samples[fifth : 2 * fifth + 1], samples[-fifth - 1 :]
    memory = [statistics.median(sample[3] for sample in part) for part in (start, end)]
    files = [statistics.median(sample[4] for sample in part) for part in (start, end)]
    clock, cpu = ([MEASURE * (part[-1][0] - part[0][0]) / (part[-1][k] - part[0][k]) for part in (start, end)] for k in (1, 2))
    megabytes = ", ".join(f"{sample[3] / 1e6:.0f}" for sample in samples[:: max(1, fifth // 2)])
    tally.notes += [
        f"memory {memory[0] / 1e6:.1f} MB early, {memory[1] / 1e6:.1f} MB at the end ({megabytes})",
        f"open files {files[0]:g} early, {files[1]:g} at the end",
        f"updates in a second of CPU time {cpu[0]:.0f} early, {cpu[1]:.0f} at the end; by the clock {clock[0]:.0f} and {clock[1]:.0f}",
    ]
    tally.check(memory[1] <= (1 + MEMORY) * memory[0], f"memory rose from {memory[0] / 1e6:.1f} to {memory[1] / 1e6:.1f} MB")
    tally.check(files[0] == files[1], f"open files went from {files[0]:g} to {files[1]:g}")
    tally.check(cpu[1] >= (1 - SPEED) * cpu[0], f"it slowed from {cpu[0]:.0f} to {cpu[1]:.0f} updates in a second of CPU time")
