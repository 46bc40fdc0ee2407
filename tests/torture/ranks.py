"""One process of two killed, or the one that started both: the others end soon and say so, and
``resume`` goes on.
"""

import contextlib
import os
import signal
import time
from pathlib import Path

from . import harness
from .harness import RUN, Case, Ended, Place, Reference, Tally

COUNT = 2
SOON = 30  # seconds
VICTIMS: tuple[int | None, ...] = (0, 1, None)  # the rank; None: the process that starts both


def run(case: Case, place: Place, references: dict[str, Reference], tally: Tally) -> None:
    chance, task = case.chance(), harness.TASKS[case.number % 2]
    words = [*harness.command(task), "--processes=2"]
    tally.about = f"{case.again} ({task}, two processes undisturbed)"
    ended = place.call(words, cold=True)
    if not tally.check(ended.status == 0, f"exit status {ended.status}: {ended.err[-600:]}"):
        return
    expected = Reference(place.folder, ended.seconds, ended.seconds, [])
    for number, victim in enumerate(VICTIMS):
        whom = "the process that started both" if victim is None else f"process {victim}"
        tally.about = f"{case.again} ({task}, {whom} of two is killed)"
        tally.tried += 1
        other = Place(place.folder.parent / f"{place.folder.name}-{number}")
        seconds = killed(other, words, victim, chance.uniform(0, 0.3), tally)
        tally.notes.append(f"after {whom} was killed the others ended within {seconds:.1f} s")
        harness.intact(tally, other)
        harness.finish(tally, other, words, expected, cold=True)


def killed(place: Place, words: list[str], victim: int | None, delay: float, tally: Tally) -> float:
    """Kill one of a training's processes once there is a state; the seconds until the others are
    gone.
    """
    process = place.start(words, cold=True)
    process.wait_for(lambda: (place.folder / RUN / "last.safetensors").exists())
    time.sleep(delay)
    ranks = children(process.pid)
    tally.check(sorted(ranks) == [0, 1], f"there are processes {sorted(ranks)}")
    begin = time.monotonic()
    with contextlib.suppress(ProcessLookupError, KeyError):
        os.kill(process.pid if victim is None else ranks[victim], signal.SIGKILL)
    ended: Ended = process.ended()
    while any(lives(pid) for pid in ranks.values()) and time.monotonic() - begin < harness.LIMIT:
        time.sleep(0.05)
    seconds = time.monotonic() - begin
    tally.check(seconds < SOON, f"the others took {seconds:.0f} s to end")
    if victim is not None:
        harness.said_once(tally, ended, (1,))
        tally.check(
            "has lost the others" in ended.err or "SIGKILL" in ended.err,
            f"the reason is not said: {ended.err[-300:]}",
        )
    return seconds


def _stat(folder: Path) -> tuple[str, int]:
    """The state of a process, and its parent."""
    state, parent, *_ = (folder / "stat").read_text().rpartition(")")[2].split()
    return state, int(parent)


def lives(pid: int) -> bool:
    """Whether a process is there and has not ended."""
    try:
        return _stat(Path(f"/proc/{pid}"))[0] not in "ZX"
    except OSError:
        return False


def children(pid: int) -> dict[int, int]:
    """The processes of a training by their rank."""
    found = {}
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError, ValueError, StopIteration):
            if _stat(folder)[1] == pid:
                environment = (folder / "environ").read_bytes().split(b"\0")
                rank = next(word for word in environment if word.startswith(b"RANK="))
                found[int(rank.removeprefix(b"RANK="))] = int(folder.name)
    return found
