"""What cases count, and how run folders and the ends of commands are judged."""

import contextlib
import csv
import json
import random
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from drawbench import runs
from drawbench.errors import Problem

from .processes import RESUME, RUN, Ended, Place, Reference

COUNTS = {  # of a tally, with their headings
    "tried": "tried",
    "resumed": "resumed",
    "identical": "ended bit-identical",
    "tracebacks": "tracebacks",
    "silent": "silent corruptions",
    "lost": "lost checkpoints",
    "strays": "stray files",
}


@dataclass(frozen=True)
class Case:
    """One case of a harm."""

    harm: str
    number: int
    seed: int = 0

    def chance(self) -> random.Random:
        """Return the source of everything random in this case."""
        return random.Random(f"{self.harm} {self.seed} {self.number}")

    @property
    def whole(self) -> bool:
        """Whether it draws figures, half of so short a run, and starts as ``python cli.py``."""
        return self.number // 2 % 8 == 0

    @property
    def repeat(self) -> str:
        return f"python -m tests.torture --only {self.harm} --seed {self.seed} --case {self.number}"


@dataclass
class Tally:
    """The outcome of some cases.

    Attributes:
        tried: faults injected.
        resumed: runs carried on to their end afterwards.
        identical: of those, the ones that ended bit-identical.
        tracebacks: tracebacks shown.
        silent: wrong weights or data accepted without a word.
        lost: checkpoints that have disappeared or do not open.
        strays: temporary files left after the next start.
        faults: a sentence for each broken promise, of these kinds and others.
        notes: measurements, and what was left out.
        about: what the present case does, for those sentences.
    """

    tried: int = 0
    resumed: int = 0
    identical: int = 0
    tracebacks: int = 0
    silent: int = 0
    lost: int = 0
    strays: int = 0
    faults: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    about: str = ""

    def add(self, other: "Tally") -> None:
        for name in (*COUNTS, "faults", "notes"):
            setattr(self, name, getattr(self, name) + getattr(other, name))

    def fault(self, sentence: str, kind: str = "") -> None:
        """Enter a broken promise, and count it if it is of one of the counted kinds."""
        if kind:
            setattr(self, kind, getattr(self, kind) + 1)
        self.faults.append(f"{self.about}: {sentence}")

    def check(self, holds: bool, sentence: str, kind: str = "") -> bool:
        if not holds:
            self.fault(sentence, kind)
        return holds


# ------------------------------------------------------------------------------------- run folders


def differences(run: Path, expected: Path) -> list[str]:
    """List how two finished run folders differ beyond timing.

    Compared bit for bit: weights, optimizer state and everything else in the checkpoints,
    ``metrics.csv``, ``result.json``, the losses of each test image, the configuration and every
    figure. Excepted are the seconds in checkpoints, ``metrics.csv`` and ``result.json``. The state
    before the last one differs after an interruption; it only has to open.
    """
    different = []
    for name in (runs.BEST, runs.LAST):
        try:
            (tensors, facts), (others, other_facts) = (
                runs.load_checkpoint(folder / name) for folder in (run, expected)
            )
        except Problem as problem:
            return [str(problem)]
        if _bits(tensors) != _bits(others):
            different.append(f"tensors of {name}")
        if timeless(facts) != timeless(other_facts):
            different.append(f"facts of {name}")
    different += unsound(run)
    if metrics(run) != metrics(expected):
        different.append("metrics.csv")
    names = ["config.json", "test.npz"]
    names += [f"figures/{path.name}" for path in (expected / "figures").glob("*")]
    for name in names:
        if (
            not (run / name).is_file()
            or (run / name).read_bytes() != (expected / name).read_bytes()
        ):
            different.append(name)
    first, second = (json.loads((folder / "result.json").read_text()) for folder in (run, expected))
    same_time = {"train_seconds": 0, "sha256": ""}  # the hash covers train_seconds too
    if first | same_time != second | same_time:
        different.append("result.json")
    return different


def metrics(run: Path) -> list[dict[str, str]]:
    """Return the rows of ``metrics.csv`` without their seconds; none where it is missing."""
    with (
        contextlib.suppress(OSError),
        open(run / "metrics.csv", newline="", errors="replace") as file,
    ):
        return [{**row, "seconds": ""} for row in csv.DictReader(file)]
    return []


def timeless(facts: dict[str, Any]) -> dict[str, Any]:
    """Return the facts of a checkpoint without what is measured by a clock."""
    rows = [{**row, "seconds": 0} for row in facts.get("rows", [])]
    return {**facts, "seconds": 0, "rows": rows}


def _bits(tensors: dict[str, Any]) -> dict[str, tuple]:
    return {name: (t.dtype, tuple(t.shape), t.numpy().tobytes()) for name, t in tensors.items()}


def unsound(run: Path) -> list[str]:
    """Return a sentence for each checkpoint of a run folder that does not open."""
    sentences = []
    for name in (runs.FRESH, runs.LAST, runs.PREVIOUS, runs.BEST):
        if (run / name).exists():
            try:
                runs.load_checkpoint(run / name)
            except Problem as problem:
                sentences.append(str(problem))
    return sentences


def saved_step(run: Path) -> int:
    """Return the step of the newest sound state, -1 if there is none."""
    for name in (runs.FRESH, runs.LAST, runs.PREVIOUS):
        with contextlib.suppress(Problem):
            return runs.load_checkpoint(run / name)[1]["step"]
    return -1


def strays(place: Place) -> list[str]:
    """List temporary files and folders, wherever they are."""
    hidden = [path for path in place.folder.rglob(".*") if not path.name.endswith(".lock")]
    outermost = [path for path in hidden if not any(other in path.parents for other in hidden)]
    return [str(path.relative_to(place.folder)) for path in outermost]


def snapshot(folder: Path) -> dict[str, bytes]:
    """Return the content of every file below a folder, by relative path."""
    files = (path for path in sorted(folder.rglob("*")) if path.is_file())
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


# ------------------------------------------------------------------------------- ends of commands


def explained(tally: Tally, ended: Ended, statuses: tuple[int, ...] = (1, 2)) -> bool:
    """Check that a command failed as promised: one sentence at the end and no traceback."""
    one = ended.err.count("Error: ") == 1 and ended.last_line.startswith("Error: ")
    right = ended.status in statuses
    return all(
        [
            no_traceback(tally, ended),
            tally.check(right, f"exit status {ended.status}: {ended.err[-600:]}"),
            tally.check(one, f"not one error: {ended.err[-600:]}"),
        ]
    )


def no_traceback(tally: Tally, ended: Ended) -> bool:
    bad = any(word in ended.out + ended.err for word in ("Traceback", "Exception ignored"))
    return tally.check(not bad, f"a traceback: {ended.err[-1500:]}", "tracebacks")


def succeeded(tally: Tally, ended: Ended) -> bool:
    no_traceback(tally, ended)
    return tally.check(ended.status == 0, f"exit status {ended.status}: {ended.err[-600:]}")


def intact(tally: Tally, place: Place, before: int = -1) -> None:
    """Check that no saved state is lost: all open, and the newest is no older than ``before``."""
    for sentence in unsound(place.run):
        tally.fault(sentence, "lost")
    now = saved_step(place.run)
    tally.check(now >= before, f"the newest state is of step {now}, not {before}", "lost")


def next_command(tally: Tally, place: Place, words: list[str]) -> list[str]:
    """Return the command that carries a run on.

    Where there is no run yet, ``resume`` has to say so, and the first command is given again.
    """
    if (place.run / "config.json").exists():
        return RESUME
    explained(tally, place.call(RESUME))
    return words


def finish(tally: Tally, place: Place, words: list[str], reference: Reference, **how: Any) -> None:
    """Carry a run on to its end and compare it with the reference."""
    ended = place.call(next_command(tally, place, words), **how)
    compare(tally, place, ended, reference)


def compare(tally: Tally, place: Place, ended: Ended, reference: Reference) -> None:
    """Count a run that was carried on: it must have ended like the reference."""
    tally.resumed += 1
    if not succeeded(tally, ended):
        return
    if left := strays(place):
        tally.fault(f"left behind: {', '.join(left)}", "strays")
    different = differences(place.run, reference.folder / RUN)
    if tally.check(not different, f"differs in {', '.join(different)}", "silent"):
        tally.identical += 1
