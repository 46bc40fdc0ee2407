"""One of two processes is killed, or the one that started both; then ``resume``."""

import contextlib
import os
import signal
import time
from pathlib import Path

from . import checks
from .checks import Case, Tally
from .processes import LIMIT, TASKS, Place, Reference, command

COUNT = 2
SOON = 30  # seconds
VICTIMS: tuple[int | None, ...] = (0, 1, None)  # ranks; None is the process that starts both


def run(case: Case, place: Place, references: dict[str, Reference], tally: Tally) -> None:
    chance, task = case.chance(), TASKS[case.number % 2]
    words = [*command(task), "--processes=2"]
    tally.about = f"{case.repeat} ({task}, two processes undisturbed)"
    ended = place.call(words, cold=True)
    if not checks.succeeded(tally, ended):
        return
    expected = Reference(place.folder, ended.seconds, ended.seconds, [])
    for number, victim in enumerate(VICTIMS):
        whom = "the process that started both" if victim is None else f"process {victim}"
        tally.about = f"{case.repeat} ({task}, {whom} is killed)"
        tally.tried += 1
        other = Place(place.folder.with_name(f"{place.folder.name}-{number}"))
        seconds = kill(other, words, victim, chance.uniform(0, 0.3), tally)
        tally.notes.append(f"after {whom} was killed the others ended within {seconds:.1f} s")
        checks.intact(tally, other)
        checks.finish(tally, other, words, expected, cold=True)


def kill(place: Place, words: list[str], victim: int | None, delay: float, tally: Tally) -> float:
    """Kill a process once there is a state; return the seconds until the others are gone."""
    process = place.start(words, cold=True)
    process.wait_for(lambda: (place.run / "last.safetensors").exists())
    time.sleep(delay)
    ranks = children(process.pid)
    tally.check(sorted(ranks) == [0, 1], f"there are processes {sorted(ranks)}")
    begin = time.monotonic()
    with contextlib.suppress(ProcessLookupError, KeyError):
        os.kill(process.pid if victim is None else ranks[victim], signal.SIGKILL)
    ended = process.ended()
    while any(lives(pid) for pid in ranks.values()) and time.monotonic() - begin < LIMIT:
        time.sleep(0.05)
    seconds = time.monotonic() - begin
    tally.check(seconds < SOON, f"the others took {seconds:.0f} s to end")
    if victim is not None:
        checks.explained(tally, ended, (1,))
        reason = any(words in ended.err for words in ("lost the others", "SIGKILL", "was killed"))
        tally.check(reason, f"the reason is missing: {ended.err[-300:]}")
    return seconds


def _state(folder: Path) -> tuple[str, int]:
    """Return the state of a process and its parent."""
    state, parent, *_ = (folder / "stat").read_text().rpartition(")")[2].split()
    return state, int(parent)


def lives(pid: int) -> bool:
    """Return whether a process exists and has not ended."""
    try:
        return _state(Path(f"/proc/{pid}"))[0] not in "ZX"
    except OSError:
        return False


def children(pid: int) -> dict[int, int]:
    """Return the processes of a training by their rank."""
    by_rank = {}
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError, ValueError, StopIteration):
            if _state(folder)[1] == pid:
                variables = (folder / "environ").read_bytes().split(b"\0")
                rank = next(word for word in variables if word.startswith(b"RANK="))
                by_rank[int(rank.removeprefix(b"RANK="))] = int(folder.name)
    return by_rank
