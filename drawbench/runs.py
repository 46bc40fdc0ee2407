"""Run folders and checkpoints.

A run folder holds everything about one training: ``config.json``, ``environment.json``,
``metrics.csv``, ``result.json``, checkpoints and ``figures/``. Whatever is written replaces the old
file in one step, so a reader (or a run that was killed) finds the old content or the new, never
half of it.

A checkpoint is a plain safetensors file: tensors and text, nothing that could run. Its text carries
a SHA-256 over all of its content, which is checked before a single value is used.

Where several processes work together, the first alone reads and writes; the others get what it
read.
"""

import contextlib
import fcntl
import hashlib
import json
import os
import platform
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load as safetensors_load
from safetensors.torch import save as safetensors_save
from torch import Tensor

from drawbench import config as configs
from drawbench import distributed
from drawbench.errors import Problem
from drawbench.fast import native
from drawbench.files import (
    hashed,
    parse_json,
    plain,
    read_hashed,
    read_json,
    write_atomically,
    write_json,
)

FORMAT = "drawbench checkpoint 1"
LAST, PREVIOUS, BEST = "last.safetensors", "previous.safetensors", "best.safetensors"
FRESH = f".fresh-{LAST}"  # the next LAST, until it takes its place


# -------------------------------------------------------------------------------------- checkpoints


def _digest(tensors: dict[str, Tensor], facts: str) -> str:
    """SHA-256 over names, types, shapes and values of all tensors, and over the facts."""
    total = hashlib.sha256(facts.encode())
    for name in sorted(tensors):
        tensor = tensors[name]
        total.update(f"\n{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        total.update(
            tensor.contiguous().view(torch.uint8).numpy()
            if tensor.ndim
            else tensor.reshape(1).view(torch.uint8).numpy()
        )
    return total.hexdigest()


def save_checkpoint(path: Path, tensors: dict[str, Tensor], facts: dict[str, Any]) -> None:
    """Write tensors and facts (anything JSON can hold), with their hash, atomically."""
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    text = json.dumps(facts)
    metadata = {"format": FORMAT, "facts": text, "sha256": _digest(tensors, text)}
    write_atomically(path, safetensors_save(tensors, metadata=metadata))


def load_checkpoint(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Read what :func:`save_checkpoint` wrote.

    Raises:
        Problem: the file is missing, cut off, altered in any bit, or not one of ours.
    """
    try:
        with safe_open(
            plain(path), "pt"
        ):  # does its header go with its length? Before all of it is in memory
            content = path.read_bytes()
    except OSError as error:
        raise Problem(f"checkpoint {path} cannot be read: {error.strerror or error}") from error
    except SafetensorError as error:
        raise Problem(f"checkpoint {path} is damaged or not a checkpoint: {error}") from error
    try:
        tensors = safetensors_load(content)
        length = int.from_bytes(content[:8], "little")
        metadata = json.loads(content[8 : 8 + length]).get("__metadata__", {})
    except (SafetensorError, ValueError, KeyError, AttributeError, RecursionError) as error:
        raise Problem(f"checkpoint {path} is damaged or not a checkpoint: {error}") from error
    if metadata.get("format") != FORMAT:
        raise Problem(
            f"{path} is a safetensors file, but not a checkpoint of drawbench ({FORMAT!r})"
        )
    if metadata.get("sha256") != _digest(tensors, metadata.get("facts", "")):
        raise Problem(f"checkpoint {path} is damaged: its content does not match its SHA-256")
    try:
        facts = parse_json(metadata["facts"])
    except (KeyError, ValueError) as error:
        raise Problem(
            f"checkpoint {path} is damaged or not a checkpoint: what it says of itself is not JSON"
        ) from error
    if not isinstance(facts, dict):
        raise Problem(
            f"checkpoint {path} is damaged or not a checkpoint: what it says of itself is not a table"
        )
    return tensors, facts


# --------------------------------------------------------------------------------------- run folder


class Run:
    """A run folder. Make one with :meth:`create`, find one with :meth:`open`."""

    def __init__(self, folder: Path, config: Any):
        self.folder = folder
        self.config = config

    @property
    def name(self) -> str:
        return self.folder.name

    @property
    def figures(self) -> Path:
        return self.folder / "figures"

    @classmethod
    @distributed.by_first
    def create(cls, folder: Path, config: Any, *, command: str = "", force: bool = False) -> "Run":
        """Make a run folder.

        Args:
            command: the command line, for the record.
            force: empty a folder that holds a run of ours; anything else is never touched.

        Raises:
            Problem: the folder holds something and may not be emptied.
        """
        refuse_taken(folder, force)
        about = {
            **environment(),
            "command": command,
        }  # takes its time, so before there is a folder that a signal could leave half made
        try:
            (folder / "figures").mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise Problem(
                f"cannot make run folder {folder}: {error.strerror or error}; choose a writable one with --runs DIR"
            ) from error
        run = cls(folder, config)
        with run.locked():  # or a process that works there would go on in an emptied folder
            refuse_taken(folder, force)  # another process may have made a run there in the meantime
            _empty(folder)
            write_json(folder / "environment.json", about)
            run.save_config(
                config
            )  # last: with it the folder is a complete run, which can be resumed
        return run

    @classmethod
    @distributed.by_first
    def open(cls, folder: Path) -> "Run":
        """An existing run folder.

        Raises:
            Problem: there is none, or its configuration is not valid.
        """
        if not folder.is_dir():
            raise Problem(f"there is no run folder {folder}")
        if not (folder / "config.json").is_file():
            raise Problem(f"{folder} is not a run folder: it has no config.json")
        try:
            return cls(folder, configs.from_dict(read_json(folder / "config.json")))
        except Problem as error:
            raise Problem(f"{folder / 'config.json'}: {error}") from error

    def save_config(self, config: Any) -> None:
        self.config = config
        write_json(self.folder / "config.json", configs.to_dict(config))

    def _check_there(self) -> None:
        """Nothing, if the folder is still there: what is written under its name later would be no
        run.

        Raises:
            Problem: it is not.
        """
        if not (self.folder / "config.json").is_file():
            raise Problem(
                f"the run folder {self.folder} is gone: it was moved or removed while this command worked on it; "
                f"put it back and go on with: drawbench resume {self.folder}"
            )

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the folder against other commands. The system releases the lock of a process that
        dies.

        Raises:
            Problem: another process holds it, it cannot be written, or it is gone at the end.
        """
        if distributed.rank():  # the first process holds it for all
            yield
            return
        try:
            file = open(self.folder / ".lock", "w")  # noqa: SIM115 - it is closed by the with below
        except OSError as error:
            raise Problem(f"cannot write in {self.folder}: {error.strerror or error}") from error
        with file:
            _lock(file, self.folder)
            for folder in (self.folder, self.figures):
                for stray in folder.glob(
                    ".*.tmp"
                ):  # left by a writer that was killed: the lock says it is gone
                    stray.unlink(missing_ok=True)
            yield
            self._check_there()

    # -- state of training

    @distributed.by_first
    def save_state(self, tensors: dict[str, Tensor], facts: dict[str, Any]) -> None:
        """Save the state to go on from; the one before is kept beside it until the next save."""
        self._check_there()
        save_checkpoint(self.folder / FRESH, tensors, facts)
        self._put_in_place()

    def _put_in_place(self) -> None:
        last = self.folder / LAST
        if last.exists():
            _replace(last, self.folder / PREVIOUS)
        _replace(self.folder / FRESH, last)

    @distributed.by_first
    def load_state(self, warn) -> tuple[dict[str, Tensor], dict[str, Any]] | None:
        """The newest sound state, or None if none was ever saved.

        A damaged one is passed over, and ``warn`` is told.

        Raises:
            Problem: there are states, but none is sound.
        """
        found = [
            path
            for path in (self.folder / name for name in (FRESH, LAST, PREVIOUS))
            if path.exists()
        ]
        for path in found:
            try:
                state = load_checkpoint(path)
            except Problem as error:
                warn(f"{error}; taking the one before")
                continue
            if path.name == FRESH:  # the process that wrote it was killed before the last move
                self._put_in_place()
            elif (
                path.name == PREVIOUS
            ):  # or the next save would put the damaged one in the place of this
                _replace(path, self.folder / LAST)
            return state
        if found:
            raise Problem(f"no checkpoint in {self.folder} is sound; start again with --force")
        return None

    @distributed.by_first
    def save_best(self, tensors: dict[str, Tensor], facts: dict[str, Any]) -> None:
        """Save the weights that did best on validation so far; with ``config`` in the facts they
        are never taken for another's.
        """
        self._check_there()
        save_checkpoint(self.folder / BEST, tensors, facts)

    @distributed.by_first
    def load_best(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """The weights that did best on validation.

        Raises: Problem: they are not there yet, or lost, or damaged, or were trained with another
            configuration.
        """
        if (self.folder / BEST).exists():
            tensors, facts = load_checkpoint(self.folder / BEST)
            if "config" in facts and configs.from_dict(facts["config"]) != self.config:
                raise Problem(
                    f"{self.folder / BEST} was trained with another configuration than {self.folder / 'config.json'} says, "
                    "which was changed or damaged since; put the right one back"
                )
            return tensors, facts
        if (self.folder / "result.json").exists():
            raise Problem(
                f"{self.folder} has no {BEST}: it was lost, or left out of a copy; train it again: the command is in its result.json, "
                "and wants --force"
            )
        raise Problem(
            f"{self.folder} has no {BEST} yet; train it first: drawbench resume {self.folder}"
        )

    def copy_to(self, folder: Path, *, half: bool = False, weights: bool = True) -> "Run":
        """A copy to keep or share: everything but the states that training would go on from.

        Args: folder: must not be there, or be empty. half: round the weights to half precision,
            which makes them half as large; what was measured is then to be measured again. weights:
            copy them; a copy without is numbers and pictures only.

        Raises: Problem: there is something, the run has no result, or a weight is too large for
            half precision.
        """
        refuse_taken(folder, force=False)
        result = self.result()
        tensors, facts = self.load_best() if weights else ({}, {})
        if half:
            tensors = {
                name: tensor.half() if tensor.is_floating_point() else tensor
                for name, tensor in tensors.items()
            }
            if not all(torch.isfinite(tensor).all() for tensor in tensors.values()):
                raise Problem(
                    f"a weight of {self.folder} is too large for half precision; leave out --half"
                )
            result |= {"weights": "float16"}
        states = (".*", FRESH, LAST, PREVIOUS, BEST)
        shutil.copytree(
            self.folder, folder, ignore=shutil.ignore_patterns(*states), dirs_exist_ok=True
        )
        if weights:
            save_checkpoint(folder / BEST, tensors, facts)
        copy = Run(folder, self.config)
        copy.write_result(result)
        return copy

    # -- measurements

    @distributed.by_first
    def write_metrics(self, rows: list[dict[str, Any]]) -> None:
        """Write ``metrics.csv``, one row per validation."""
        import pandas

        self._check_there()
        write_atomically(
            self.folder / "metrics.csv",
            pandas.DataFrame(rows).to_csv(index=False, lineterminator="\n").encode(),
        )

    def metrics(self):
        """``metrics.csv`` as a pandas frame.

        Raises:
            Problem: it is missing or not a table.
        """
        import pandas

        try:
            return pandas.read_csv(plain(self.folder / "metrics.csv"))
        except FileNotFoundError as error:
            raise Problem(
                f"{self.folder} has no metrics.csv yet; train it first: drawbench resume {self.folder}"
            ) from error
        except (ValueError, OSError) as error:  # pandas' own errors are ValueErrors
            raise Problem(f"{self.folder / 'metrics.csv'} is not a table: {error}") from error

    def write_result(self, result: dict[str, Any]) -> None:
        """Write ``result.json``, with its hash."""
        self._check_there()
        write_json(self.folder / "result.json", hashed(result))

    def result(self) -> dict[str, Any]:
        """``result.json``.

        Raises: Problem: it is missing, damaged or not a table of fields, or was changed since it
            was written.
        """
        found = read_hashed(self.folder / "result.json")
        if not isinstance(found, dict):
            raise Problem(
                f"{self.folder / 'result.json'} is not a result: it must be a table of fields"
            )
        return found

    @property
    def command(self) -> str:
        """The command line that made it; empty where that is lost, which is no reason to lose the
        result as well.
        """
        try:
            told = read_json(self.folder / "environment.json")
        except Problem:
            return ""
        return str(told.get("command", "")) if isinstance(told, dict) else ""


def _replace(path: Path, other: Path) -> None:
    """Put a file in the place of another.

    Raises:
        Problem: the system does not let us.
    """
    try:
        os.replace(path, other)
    except OSError as error:
        raise Problem(f"cannot write {other}: {error.strerror or error}") from error


def _lock(file: IO[str], folder: Path) -> None:
    """Lock a run folder by its lock file.

    Raises: Problem: another process has it, and not only for the moment in which it finds the
        folder taken.
    """
    until = time.monotonic() + 1
    while True:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except OSError as error:
            if time.monotonic() > until:
                raise Problem(
                    f"another process is working on {folder}; wait for it or stop it"
                ) from error
        time.sleep(0.05)


@distributed.by_first
def refuse_taken(folder: Path, force: bool) -> None:
    """Nothing, if a run may be made in ``folder``.

    Raises:
        Problem: it holds a run and ``force`` is not set, or it holds something else.
    """
    if not folder.exists() or (folder.is_dir() and _is_free(folder)):
        return
    if not (folder / "config.json").is_file():
        raise Problem(f"{folder} is there and is not a run folder; choose another with --run NAME")
    if not force:
        raise Problem(
            f"{folder} holds a run already; go on with it: drawbench resume {folder}, "
            "choose another name with --run NAME, or replace it with --force"
        )


def _is_free(folder: Path) -> bool:
    """Whether a folder is empty, or holds only what a process leaves that was killed while it made
    a run.
    """
    names = {
        path.name
        for path in folder.iterdir()
        if not (path.name.startswith(".") and path.name.endswith(".tmp"))
    } - {".lock"}
    return (
        names <= {"figures", "environment.json"}
        and names != {"environment.json"}
        and not any((folder / "figures").glob("*"))
    )


CURVES = tuple(f"error_against_{condition}.csv" for condition in ("clutter", "canvas", "glimpses"))
OURS = (
    "environment.json",
    "metrics.csv",
    "result.json",
    "test.npz",
    "timing.csv",
    LAST,
    FRESH,
    PREVIOUS,
    BEST,
    *CURVES,
    "config.json",
)


def _empty(folder: Path) -> None:
    """Remove the files that a run writes, and no others."""
    for path in [folder / name for name in OURS] + [
        p for p in (folder / "figures").glob("*") if p.is_file()
    ]:
        path.unlink(missing_ok=True)


def environment() -> dict[str, Any]:
    """What a reader needs to know about the machine to repeat a run."""
    return {
        "python": platform.python_version(),
        "torch": torch.__version__,
        "platform": platform.platform(),
        "processor": _processor(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "kernels": "none" if native.kernels() is None else "compiled",
        "device": torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu",
        "commit": _commit(),
    }


def _processor() -> str:
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()


def _commit() -> str | None:
    """The commit of the checkout the package lies in, marked if files were changed; None outside a
    checkout.
    """
    folder = Path(__file__).parent
    with contextlib.suppress(OSError, subprocess.SubprocessError):
        command = [
            "git",
            "-C",
            str(folder),
            "describe",
            "--always",
            "--dirty",
            "--abbrev=12",
            "--exclude=*",
        ]
        answer = subprocess.run(command, capture_output=True, text=True, timeout=10)
        return answer.stdout.strip() or None
    return None


def command_line() -> str:
    """The command as typed, for the record."""
    import shlex

    return shlex.join(["drawbench", *sys.argv[1:]])
