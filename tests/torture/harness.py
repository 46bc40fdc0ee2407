"""What all harms share: commands in processes of their own, blows that strike them, and the
comparison of run folders.
"""

import contextlib
import fcntl
import itertools
import json
import os
import random
import shutil
import signal
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
RUN = Path("results/runs/one")  # below the folder of a case
LIMIT = 900  # seconds after which a command counts as hung; long, for busy machines

_SMALL = {"source": "digits", "run": "one", "glimpses": 2, "hidden": 8, "threads": 1}
_LENGTHS = {"steps": 180, "evaluate-every": 30, "save-every": 5}
SETTINGS: dict[str, dict[str, Any]] = {
    "classify": _SMALL | _LENGTHS | {"canvas": 28, "clutter": 1, "patch": 4, "batch": 16},
    "generate": _SMALL
    | _LENGTHS
    | {"latent": 4, "batch": 15, "validation-images": 21, "iw-samples": 2, "iw-images": 5},
}
TASKS = tuple(SETTINGS)


def command(task: str, **changes: Any) -> list[str]:
    """The command line of a training that takes a second or two."""
    settings = SETTINGS[task] | {name.replace("_", "-"): value for name, value in changes.items()}
    return [task, *(f"--{name}={value}" for name, value in settings.items())]


RESUME = ["resume", str(RUN)]


# ---------------------------------------------------------------------------------- what is counted


@dataclass(frozen=True)
class Case:
    """One of a harm's cases."""

    harm: str
    number: int
    seed: int = 0

    def chance(self) -> random.Random:
        """All that is random in this case."""
        return random.Random(f"{self.harm} {self.seed} {self.number}")

    @property
    def pictures(self) -> bool:
        """Whether its processes draw figures, which take most of the time of so short a run: those
        of every fourth pair do.
        """
        return self.number // 2 % 4 == 0

    @property
    def cold(self) -> bool:
        """Whether its first process is ``python cli.py`` from the very beginning, as in every
        eighth pair.
        """
        return self.number // 2 % 8 == 0

    @property
    def again(self) -> str:
        return f"python -m tests.torture --only {self.harm} --seed {self.seed} --case {self.number}"


@dataclass
class Tally:
    """What came of some cases.

    Attributes: tried: harms done. resumed, identical: runs that were gone on with to the end; and
        of those, the ones that ended as if nothing had happened. tracebacks, silent, lost, strays:
        tracebacks; wrong weights or data taken without a word; checkpoints that were there and are
            not, or do not open; temporary files that are still there after the next start.
        faults: a sentence for each thing that is not as promised, these and others.
        notes: what was measured or left out.
        about: what the case at hand does, for the sentence.
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

    COUNTS = ("tried", "resumed", "identical", "tracebacks", "silent", "lost", "strays")

    def add(self, other: "Tally") -> None:
        for name in self.COUNTS:
            setattr(self, name, getattr(self, name) + getattr(other, name))
        self.faults += other.faults
        self.notes += other.notes

    def fault(self, what: str, kind: str = "") -> None:
        """Note something that is not as promised; ``kind`` is the count that it belongs to, if any."""
        if kind:
            setattr(self, kind, getattr(self, kind) + 1)
        self.faults.append(f"{self.about}: {what}")

    def check(self, right: bool, what: str, kind: str = "") -> bool:
        if not right:
            self.fault(what, kind)
        return right


@dataclass(frozen=True)
class Reference:
    """An uninterrupted run, to compare with.

    Attributes: folder: the place it was made in. seconds: of CPU time that the command took, the
        libraries loaded already, and ``cold``, with loading them. operations: what it did to its
        files, in order: opened to write, renamed, removed, made.
    """

    folder: Path
    seconds: float
    cold: float
    operations: list[str]


# ---------------------------------------------------------------------------------------- processes


@dataclass(frozen=True)
class Ended:
    """A command that has ended: its exit status, negative for a signal, what it wrote, and its CPU
    seconds.
    """

    status: int
    out: str
    err: str
    seconds: float

    @property
    def last_line(self) -> str:
        return (self.err.strip().splitlines() or [""])[-1]


class Process:
    """A command in a process of its own."""

    def __init__(self, pid: int, pipes: tuple[int, int], log: Path):
        self.pid, self._pipes, self._log = pid, pipes, log
        self._ended: Ended | None = None

    def cpu(self) -> float:
        """The CPU seconds of its main thread so far: where it is in its life, whatever else the
        machine does.
        """
        with contextlib.suppress(OSError, IndexError, ValueError):
            return int(Path(f"/proc/{self.pid}/schedstat").read_text().split()[0]) / 1e9
        return 0.0

    def alive(self) -> bool:
        if self._ended is None:
            pid, status, used = os.wait4(self.pid, os.WNOHANG)
            if pid:
                out, err = (_all_of(pipe) for pipe in self._pipes)
                self._ended = Ended(
                    os.waitstatus_to_exitcode(status), out, err, used.ru_utime + used.ru_stime
                )
                self._log.write_text(
                    f"{self._log.read_text()}status {self._ended.status}\n{out}\n{err}"
                )
        return self._ended is None

    def send(self, number: int) -> None:
        if self.alive():
            os.kill(self.pid, number)

    def wait_for(
        self, happened: Callable[[], Any], limit: float = LIMIT, pause: float = 0.003
    ) -> bool:
        """Whether it happens while the process lives, which is ``limit`` seconds at most."""
        until = time.monotonic() + limit
        while self.alive():
            if happened():
                return True
            if time.monotonic() > until:
                self.send(signal.SIGKILL)
            time.sleep(pause)
        return False

    def ended(self) -> Ended:
        """Wait for its end; what hangs is killed, which its status tells."""
        self.wait_for(lambda: False, pause=0.01)
        assert self._ended is not None
        return self._ended


def _all_of(pipe: int) -> str:
    """What was written into a pipe. It is closed unless somebody may still write into it, who would
    be killed by that.
    """
    parts = []
    with contextlib.suppress(BlockingIOError):
        while part := os.read(pipe, 1 << 16):
            parts.append(part)
        os.close(pipe)
    return b"".join(parts).decode(errors="replace")


class Place:
    """An empty folder, the working directory of all commands that a case starts."""

    def __init__(self, folder: Path, pictures: bool = True):
        self.folder, self.pictures = folder, pictures
        self.run = folder / RUN
        self._started = itertools.count(1)
        folder.mkdir(parents=True)

    def start(
        self, words: list[str], *, cold: bool = False, before: Callable[[], object] | None = None
    ) -> Process:
        """Start a command.

        Args: cold: as ``python cli.py``. Else the process is a fork of this one, which has loaded
            the libraries already: a real process
                that runs the real command, without the seconds that loading takes.
            before: called in the new process first.
        """
        number = next(self._started)
        logs = (
            self.folder.parent / f"{self.folder.name}.logs"
        )  # beside it: the folder itself may become unwritable
        logs.mkdir(exist_ok=True)
        (logs / f"{number}.log").write_text(" ".join(words) + "\n")
        # What it prints goes into pipes, which a full disk does not touch; they take more than any
        # command prints.
        (out, to_out), (err, to_err) = os.pipe(), os.pipe()
        for pipe in (out, err):
            os.set_blocking(pipe, False)
            fcntl.fcntl(pipe, fcntl.F_SETPIPE_SZ, 1 << 18)
        sys.stdout.flush(), sys.stderr.flush()
        if pid := os.fork():
            os.close(to_out), os.close(to_err)
            return Process(pid, (out, err), logs / f"{number}.log")
        try:
            os.setsid()
            os.chdir(self.folder)
            for target, source in ((0, os.open(os.devnull, os.O_RDONLY)), (1, to_out), (2, to_err)):
                os.dup2(source, target)
            for caught in (signal.SIGINT, signal.SIGTERM, signal.SIGCHLD):
                signal.signal(caught, signal.SIG_DFL)
            if before is not None:
                before()
            if cold:
                os.environ["PYTHONPATH"] = str(ROOT)
                os.execv(sys.executable, [sys.executable, str(ROOT / "cli.py"), *words])
            signal.signal(signal.SIGINT, signal.SIG_IGN)  # until there is somebody to hear it
            if not self.pictures:
                draw_nothing()
            _become(words)
        finally:
            os._exit(70)

    def call(self, words: list[str], **how: Any) -> Ended:
        """Start a command and wait for its end."""
        return self.start(words, **how).ended()

    def apart(self, function: Callable[[], Any]) -> Any:
        """What a function gives, as JSON, called in a process of its own in this folder."""
        answer = self.folder.parent / f"{self.folder.name}.answer"
        pid = os.fork()
        if not pid:
            try:
                os.chdir(self.folder)
                with open(os.devnull, "w") as nothing, contextlib.redirect_stderr(nothing):
                    answer.write_text(json.dumps(function()))
            except BaseException as error:
                answer.write_text(json.dumps({"error": repr(error)}))
            finally:
                os._exit(0)
        os.waitpid(pid, 0)
        given = json.loads(answer.read_text())
        if isinstance(given, dict) and "error" in given:
            raise RuntimeError(given["error"])
        return given


def draw_nothing() -> None:
    """Leave figures out in this process."""
    from drawbench.figures import run

    run.of_classifier = run.of_generator = lambda *_: []  # type: ignore[assignment]


def _become(words: list[str]) -> None:
    """Be ``python cli.py WORDS``, to the last."""
    import traceback

    from drawbench.cli import main

    status = 0
    sys.argv = [str(ROOT / "cli.py"), *words]
    sys.orig_argv[:] = [sys.executable, *sys.argv]
    try:
        signal.signal(signal.SIGINT, signal.default_int_handler)
        main()
    except SystemExit as end:
        status = end.code if isinstance(end.code, int) else int(end.code is not None)
    except KeyboardInterrupt:
        traceback.print_exc()
        status = 130
    except BaseException:
        traceback.print_exc()
        status = 1
    with contextlib.suppress(OSError, ValueError):
        sys.stdout.flush(), sys.stderr.flush()
    os._exit(status)


# -------------------------------------------------------------------------------------------- blows


def at_operation(nth: int, act: Callable[[str, str], object]) -> Callable[[], None]:
    """What makes a process call ``act(kind, path)`` before its n-th change of a file below its
    working directory; 0: before each.

    By an audit hook of the interpreter: nothing in the product knows of it.
    """
    kinds = {"open": "write", "os.rename": "rename", "os.remove": "remove", "os.mkdir": "make"}

    def install() -> None:
        here, count = os.getcwd() + os.sep, itertools.count(1)

        def hook(event: str, arguments: tuple) -> None:
            if event not in kinds or isinstance(arguments[0], int):
                return
            if event == "open" and not (
                isinstance(arguments[2], int)
                and arguments[2] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)
            ):
                return
            path = os.path.abspath(os.fsdecode(arguments[0]))
            if path.startswith(here) and (next(count) == nth or nth == 0):
                act(kinds[event], path)

        sys.addaudithook(hook)

    return install


@dataclass(frozen=True)
class Blow:
    """Where in its life a process is struck, and by what.

    Attributes: signals: one after the other. share: of its CPU time, 0 .. 1; or nth: the number of
        the operation on its files before which it is struck, and if ``half``, with half of the file
        written that
            is about to take its place.
        cold: the process is ``python cli.py`` from its beginning.
        gap: seconds, or operations, between signals.
    """

    signals: tuple[int, ...]
    share: float = 0.0
    nth: int = 0
    half: bool = False
    cold: bool = False
    gap: float = 0.0

    def __str__(self) -> str:
        names = " and ".join(signal.Signals(number).name for number in self.signals)
        if self.nth:
            return (
                f"{names} before file operation {self.nth}{', half written' if self.half else ''}"
            )
        return f"{names} after {100 * self.share:.1f} % of its {'whole ' if self.cold else ''}life"


def draw(
    chance: random.Random,
    reference: Reference,
    signals: tuple[int, ...],
    *,
    longest: float = 1.0,
    cold: bool = False,
) -> Blow:
    """A blow anywhere in the first ``longest`` of a process's life: as often at a moment as at a
    file.
    """
    if cold or chance.random() < 0.5:
        return Blow(signals, share=longest * chance.random(), cold=cold, gap=chance.uniform(0, 0.3))
    nth = chance.randint(1, max(1, int(longest * len(reference.operations))))
    return Blow(
        signals,
        nth=nth,
        half=signals == (signal.SIGKILL,) and chance.random() < 0.5,
        gap=chance.randint(0, 3),
    )


def struck(place: Place, words: list[str], reference: Reference, blow: Blow) -> tuple[Ended, bool]:
    """Run a command and strike it. Whether it was, before it ended by itself, is told with its end."""
    if blow.nth:
        mark = place.folder.parent / f"{place.folder.name}.struck"
        mark.unlink(missing_ok=True)
        due, seen, at = iter(blow.signals), 0, blow.nth

        def act(kind: str, path: str) -> None:
            nonlocal seen, at
            seen += 1
            number = next(due, None) if seen == at else None
            if number is None:
                return
            at += 1 + int(blow.gap)
            if (
                blow.half and kind == "rename" and path.endswith(".tmp")
            ):  # as if it had been written so far
                os.truncate(path, os.path.getsize(path) // 2)
            mark.touch()
            os.kill(os.getpid(), number)

        return place.call(words, before=at_operation(0, act)), mark.exists()
    process = place.start(words, cold=blow.cold)
    after = blow.share * (reference.cold if blow.cold else reference.seconds)
    if not process.wait_for(lambda: process.cpu() >= after):
        return process.ended(), False
    for number in blow.signals:
        process.send(number)
        time.sleep(blow.gap if len(blow.signals) > 1 else 0)
    return process.ended(), True


# --------------------------------------------------------------------------------------- comparison


def differences(run: Path, expected: Path, ranks: bool = False) -> list[str]:
    """In what two finished run folders differ; timing alone may.

    Compared to the bit: weights, optimiser state and what else is in the checkpoints,
    ``metrics.csv``, ``result.json``, the losses of each test image, the configuration, and every
    figure. Excepted: ``seconds`` in the states, ``train_seconds`` in ``result.json``. The state
    before the last is the one before the last save, which an interruption moves; it has to be
    sound.
    """
    from drawbench import runs

    found = []
    for name in (runs.BEST, runs.LAST):
        try:
            (tensors, facts), (others, other_facts) = (
                runs.load_checkpoint(folder / name) for folder in (run, expected)
            )
        except runs.Problem as problem:
            return [str(problem)]
        if tensors.keys() != others.keys() or any(
            _bits(tensors[key]) != _bits(others[key]) for key in others
        ):
            found.append(f"tensors of {name}")
        if facts | {"seconds": 0} != other_facts | {"seconds": 0}:
            found.append(f"facts of {name}")
    found += [path for path in unsound(run) if path not in found]
    names = ["metrics.csv", "config.json", "test.npz"] + [
        f"figures/{path.name}" for path in (expected / "figures").glob("*")
    ]
    found += [
        name
        for name in names
        if not (run / name).is_file() or (run / name).read_bytes() != (expected / name).read_bytes()
    ]
    results = [json.loads((folder / "result.json").read_text()) for folder in (run, expected)]
    plain = [
        {**result, "train_seconds": 0, "sha256": ""} for result in results
    ]  # whose hash is over train_seconds too
    if plain[0] != plain[1]:
        found.append("result.json")
    return found


def _bits(tensor: Any) -> tuple:
    return tensor.dtype, tuple(tensor.shape), tensor.numpy().tobytes()


def unsound(run: Path) -> list[str]:
    """The checkpoints of a run folder that are there and do not open."""
    from drawbench import runs

    found = []
    for name in (runs.FRESH, runs.LAST, runs.PREVIOUS, runs.BEST):
        if (run / name).exists():
            try:
                runs.load_checkpoint(run / name)
            except runs.Problem as problem:
                found.append(str(problem))
    return found


def saved_step(run: Path) -> int:
    """The step of the newest sound state, -1 if there is none."""
    from drawbench import runs

    for name in (runs.FRESH, runs.LAST, runs.PREVIOUS):
        with contextlib.suppress(runs.Problem):
            return runs.load_checkpoint(run / name)[1]["step"]
    return -1


def strays(place: Place) -> list[str]:
    """Temporary files and folders, wherever they are."""
    found = [path for path in place.folder.rglob(".*") if path.name != ".lock"]
    return [
        str(path.relative_to(place.folder))
        for path in found
        if not any(path.is_relative_to(other) for other in found if other != path)
    ]


def said_once(tally: Tally, ended: Ended, statuses: tuple[int, ...] = (1, 2)) -> bool:
    """Hold a command that could not go on to what is promised: one sentence, at the end, and no
    traceback.
    """
    return all(
        [
            no_traceback(tally, ended),
            tally.check(
                ended.status in statuses, f"exit status {ended.status}: {ended.err[-600:]}"
            ),
            tally.check(
                ended.err.count("Error: ") == 1 and ended.last_line.startswith("Error: "),
                f"not one error: {ended.err[-600:]}",
            ),
        ]
    )


def no_traceback(tally: Tally, ended: Ended) -> bool:
    bad = any(word in ended.out + ended.err for word in ("Traceback", "Exception ignored"))
    return tally.check(not bad, f"a traceback: {ended.err[-1500:]}", "tracebacks")


def intact(tally: Tally, place: Place, before: int = -1) -> None:
    """Nothing that was saved is lost: each checkpoint that is there opens, and the newest is not
    older than it was.
    """
    for what in unsound(place.run):
        tally.fault(what, "lost")
    now = saved_step(place.run)
    tally.check(
        now >= before,
        f"the newest state is of step {now}, and there was one of step {before}",
        "lost",
    )


def onwards(tally: Tally, place: Place, words: list[str]) -> list[str]:
    """The command that goes on with a run; where there is none yet, it was refused in a sentence,
    and the first one is given again.
    """
    if (place.run / "config.json").exists():
        return RESUME
    said_once(tally, place.call(RESUME))
    return words


def finish(tally: Tally, place: Place, words: list[str], reference: Reference, **how: Any) -> None:
    """Go on to the end, and compare."""
    tally.resumed += 1
    ended = place.call(onwards(tally, place, words), **how)
    no_traceback(tally, ended)
    if not tally.check(
        ended.status == 0, f"going on ended with status {ended.status}: {ended.err[-600:]}"
    ):
        return
    if left := strays(place):
        tally.fault(f"left behind: {', '.join(left)}", "strays")
    if different := differences(place.run, reference.folder / RUN):
        tally.fault(f"not the same in {', '.join(different)}")
    else:
        tally.identical += 1


def refer(folder: Path, task: str, pictures: bool) -> Reference:
    """Make the uninterrupted run of a task."""
    place, log = Place(folder, pictures), folder.parent / f"{folder.name}.operations"
    descriptor = os.open(log, os.O_CREAT | os.O_WRONLY | os.O_APPEND)
    ended = place.call(
        command(task),
        before=at_operation(
            0, lambda kind, path: os.write(descriptor, f"{kind} {path}\n".encode())
        ),
    )
    os.close(descriptor)
    if ended.status:
        raise RuntimeError(f"the uninterrupted run failed: {ended.err}")
    return Reference(folder, ended.seconds, ended.seconds, log.read_text().splitlines())


@contextlib.contextmanager
def fresh_place(folder: Path, pictures: bool, tally: Tally) -> Iterator[Place]:
    """A place that is removed at the end, unless something was wrong with it."""
    place, faults = Place(folder, pictures), len(tally.faults)
    try:
        yield place
    finally:
        if len(tally.faults) == faults:
            for path in folder.parent.glob(f"{folder.name}*"):
                shutil.rmtree(path, ignore_errors=True) if path.is_dir() else path.unlink()


def emptied(place: Place) -> None:
    """Start again in an empty folder."""
    shutil.rmtree(place.folder)
    place.folder.mkdir()
