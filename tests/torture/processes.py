"""Commands in processes of their own, and the blows that strike them."""

import contextlib
import fcntl
import itertools
import os
import random
import shutil
import signal
import sys
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import drawbench

ROOT = Path(drawbench.__file__).resolve().parents[1]
RUN = Path("results/runs/one")  # below the folder of a case
RESUME = ["resume", str(RUN)]
LIMIT = 600  # seconds until a command counts as hung, generous for busy machines

_COMMON = {"source": "digits", "run": "one", "glimpses": 2, "hidden": 8, "threads": 1}
_LENGTH = {"steps": 180, "evaluate-every": 30, "checkpoint-every": 5}
_CLASSIFY = {"canvas": 28, "clutter": 1, "patch": 4, "batch": 16}
_GENERATE = {"latent": 4, "batch": 15, "validation-images": 21, "iw-samples": 2, "iw-images": 5}
SETTINGS: dict[str, dict[str, Any]] = {
    "classify": _COMMON | _LENGTH | _CLASSIFY,
    "generate": _COMMON | _LENGTH | _GENERATE,
}
TASKS = tuple(SETTINGS)


def command(task: str, **changes: Any) -> list[str]:
    """Return the command line of a training of about two seconds."""
    settings = SETTINGS[task] | {name.replace("_", "-"): value for name, value in changes.items()}
    return [task, *(f"--{name}={value}" for name, value in settings.items())]


@dataclass(frozen=True)
class Ended:
    """A finished command: exit status (negative for a signal), output, CPU seconds."""

    status: int
    out: str
    err: str
    seconds: float

    @property
    def last_line(self) -> str:
        return (self.err.strip().splitlines() or [""])[-1]


class Process:
    """A running command."""

    def __init__(self, pid: int, pipes: tuple[int, int], log: Path):
        self.pid, self._pipes, self._log = pid, pipes, log
        self._ended: Ended | None = None

    def cpu(self) -> float:
        """Return the CPU seconds of its main thread, which measure progress on a busy machine."""
        with contextlib.suppress(OSError, IndexError, ValueError):
            return int(Path(f"/proc/{self.pid}/schedstat").read_text().split()[0]) / 1e9
        return 0.0

    def alive(self) -> bool:
        if self._ended is None:
            pid, status, usage = os.wait4(self.pid, os.WNOHANG)
            if pid:
                out, err = (_drain(pipe) for pipe in self._pipes)
                seconds = usage.ru_utime + usage.ru_stime
                self._ended = Ended(os.waitstatus_to_exitcode(status), out, err, seconds)
                with self._log.open("a") as log:
                    log.write(f"status {self._ended.status}\n{out}\n{err}")
        return self._ended is None

    def send(self, number: int) -> None:
        if self.alive():
            os.kill(self.pid, number)

    def wait_for(self, event: Callable[[], Any], limit: float = LIMIT, pause: float = 3e-3) -> bool:
        """Return whether ``event()`` came true while the process lived; kill it at the limit."""
        until = time.monotonic() + limit
        while self.alive():
            if event():
                return True
            if time.monotonic() > until:
                self.send(signal.SIGKILL)
            time.sleep(pause)
        return False

    def ended(self) -> Ended:
        """Wait for its end. A command that hangs is killed, which its status shows."""
        self.wait_for(lambda: False, pause=0.01)
        assert self._ended is not None
        return self._ended


def _drain(pipe: int) -> str:
    """Read a pipe. It stays open while somebody might still write, whom closing it would kill."""
    parts = []
    with contextlib.suppress(BlockingIOError):
        while part := os.read(pipe, 1 << 16):
            parts.append(part)
        os.close(pipe)
    return b"".join(parts).decode(errors="replace")


class Place:
    """A new folder: the working directory of the commands of a case."""

    def __init__(self, folder: Path, pictures: bool = True):
        self.folder, self.pictures = folder, pictures
        self.run = folder / RUN
        self.logs = folder.with_name(f"{folder.name}.logs")  # the folder itself may be sealed
        self._numbers = itertools.count(1)
        folder.mkdir(parents=True)
        self.logs.mkdir(exist_ok=True)

    def fill(self, other: Path) -> None:
        """Replace the content of the folder by a copy of another."""
        shutil.rmtree(self.folder)
        shutil.copytree(other, self.folder, symlinks=True)

    def start(
        self, words: list[str], *, cold: bool = False, before: Callable[[], object] | None = None
    ) -> Process:
        """Start a command.

        Args:
            cold: start ``python cli.py``. Otherwise fork this process, which has loaded the
                libraries already: the real command, without the seconds that loading takes.
            before: called first in the new process.
        """
        log = self.logs / f"{next(self._numbers)}.log"
        log.write_text(" ".join(words) + "\n")
        # Output goes into pipes, which a full disk does not affect and no command can fill.
        (out, to_out), (err, to_err) = os.pipe(), os.pipe()
        for pipe in (out, err):
            os.set_blocking(pipe, False)
            fcntl.fcntl(pipe, fcntl.F_SETPIPE_SZ, 1 << 18)
        sys.stdout.flush(), sys.stderr.flush()
        if pid := os.fork():
            os.close(to_out), os.close(to_err)
            return Process(pid, (out, err), log)
        try:
            os.setsid()
            os.chdir(self.folder)
            for target, source in ((0, os.open(os.devnull, os.O_RDONLY)), (1, to_out), (2, to_err)):
                os.dup2(source, target)
            for number in (signal.SIGINT, signal.SIGTERM, signal.SIGCHLD):
                signal.signal(number, signal.SIG_DFL)
            if before is not None:
                before()
            if cold:
                os.environ["PYTHONPATH"] = str(ROOT)
                os.execv(sys.executable, [sys.executable, str(ROOT / "cli.py"), *words])
            if not self.pictures:
                _draw_blanks()
            _become(words)
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(70)

    def call(self, words: list[str], **how: Any) -> Ended:
        """Run a command to its end."""
        return self.start(words, **how).ended()


def _draw_blanks() -> None:
    """Leave all figures empty in this process: drawing is half of so short a command's time."""
    from matplotlib.figure import Figure

    Figure.draw = lambda figure, renderer: None
    Figure.get_tightbbox = lambda figure, *_, **__: figure.bbox_inches


def _become(words: list[str]) -> None:
    """Be ``python cli.py WORDS``."""
    from drawbench.cli import main

    status = 0
    sys.argv = [str(ROOT / "cli.py"), *words]
    sys.orig_argv[:] = [sys.executable, *sys.argv]
    try:
        signal.signal(signal.SIGINT, signal.default_int_handler)
        main()
    except SystemExit as end:
        status = end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException as error:
        traceback.print_exc()
        status = 130 if isinstance(error, KeyboardInterrupt) else 1
    with contextlib.suppress(OSError, ValueError):
        sys.stdout.flush(), sys.stderr.flush()
    os._exit(status)


# -------------------------------------------------------------------------------------------- blows


@dataclass(frozen=True)
class Reference:
    """An uninterrupted run to compare with.

    Attributes:
        folder: the place it was made in.
        seconds: CPU time of its command with the libraries loaded.
        cold: CPU time including the loading.
        operations: its file operations in order, such as ``"rename /path"``.
    """

    folder: Path
    seconds: float
    cold: float
    operations: list[str]

    def numbers(self, *parts: str) -> list[int]:
        """Return the numbers (from 1) of the operations whose text contains all ``parts``."""
        numbered = enumerate(self.operations, start=1)
        return [number for number, text in numbered if all(part in text for part in parts)]

    def training(self, share: float) -> int:
        """Return an operation of the training itself, after this share of its saves."""
        saves = self.numbers("rename", "/last.safetensors")
        return saves[int(share * len(saves))]


def at_operation(nth: int, act: Callable[[str, str], object]) -> Callable[[], None]:
    """Return what makes a process call ``act(kind, path)`` before its n-th file operation.

    Operations below the working directory count; 0 stands for each of them. An audit hook of the
    interpreter does it, so the product knows nothing of it.
    """
    kinds = {"open": "write", "os.rename": "rename", "os.remove": "remove", "os.mkdir": "make"}
    writing = os.O_WRONLY | os.O_RDWR | os.O_CREAT

    def install() -> None:
        here, count = os.getcwd() + os.sep, itertools.count(1)

        def hook(event: str, arguments: tuple) -> None:
            if event not in kinds or isinstance(arguments[0], int):
                return
            flags = arguments[2] if event == "open" else writing
            if not isinstance(flags, int) or not flags & writing:
                return
            path = os.path.abspath(os.fsdecode(arguments[0]))
            if path.startswith(here) and (next(count) == nth or nth == 0):
                act(kinds[event], path)

        sys.addaudithook(hook)

    return install


@dataclass(frozen=True)
class Blow:
    """Where in its life a process is struck, and by which signals.

    Attributes:
        signals: sent one after the other.
        share: of its CPU time, 0 .. 1; used unless ``nth`` is given.
        nth: the file operation before which it is struck.
        half: cut the file that is about to take its place in half first.
        cold: the process is ``python cli.py``.
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
            half = ", half written" if self.half else ""
            return f"{names} before file operation {self.nth}{half}"
        return f"{names} after {self.share:.1%} of its {'whole ' if self.cold else ''}life"


def random_blow(
    chance: random.Random,
    reference: Reference,
    signals: tuple[int, ...],
    *,
    longest: float = 1.0,
    cold: bool = False,
) -> Blow:
    """Choose a blow in the first ``longest`` of a life: at a moment or at a file, equally often."""
    if cold or chance.random() < 0.5:
        return Blow(signals, share=longest * chance.random(), cold=cold, gap=chance.uniform(0, 0.3))
    nth = chance.randint(1, max(1, int(longest * len(reference.operations))))
    half = signals == (signal.SIGKILL,) and chance.random() < 0.5
    return Blow(signals, nth=nth, half=half, gap=chance.randint(0, 3))


def strike(place: Place, words: list[str], reference: Reference, blow: Blow) -> tuple[Ended, bool]:
    """Run a command and strike it; return its end and whether the blow came before it."""
    if blow.nth:
        return _strike_at_file(place, words, blow)
    process = place.start(words, cold=blow.cold)
    after = blow.share * (reference.cold if blow.cold else reference.seconds)
    if not process.wait_for(lambda: process.cpu() >= after):
        return process.ended(), False
    for number in blow.signals:
        process.send(number)
        time.sleep(blow.gap if len(blow.signals) > 1 else 0)
    return process.ended(), True


def _strike_at_file(place: Place, words: list[str], blow: Blow) -> tuple[Ended, bool]:
    mark = place.logs / "struck"
    mark.unlink(missing_ok=True)
    due, count, at = iter(blow.signals), 0, blow.nth

    def act(kind: str, path: str) -> None:
        nonlocal count, at
        count += 1
        number = next(due, None) if count == at else None
        if number is None:
            return
        at += 1 + int(blow.gap)
        if blow.half and kind == "rename" and path.endswith(".tmp"):
            os.truncate(path, os.path.getsize(path) // 2)
        mark.touch()
        os.kill(os.getpid(), number)

    return place.call(words, before=at_operation(0, act)), mark.exists()


def interrupt(place: Place, words: list[str], reference: Reference, share: float = 0.6) -> Ended:
    """Start a training and kill it after this share of its saves."""
    blow = Blow((signal.SIGKILL,), nth=reference.training(share))
    return strike(place, words, reference, blow)[0]
