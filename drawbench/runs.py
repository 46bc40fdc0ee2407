"""Run folders and checkpoints.

A run folder holds one training: ``config.json``, ``environment.json``, ``metrics.csv``,
``result.json``, checkpoints and ``figures/``. Every file is replaced in one step, so a reader, or a
run that was killed, finds the old content or the new one. A run with a ``result.json`` is finished:
it is never trained again and its weights are never replaced.

A checkpoint is a safetensors file: tensors and text, nothing that could be executed. Its text holds
a SHA-256 of all the content, which is checked before a value is used.

Of several processes only the first reads and writes; the others get what it read.
"""

import contextlib
import hashlib
import json
import os
import platform
import shlex
import shutil
import stat
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import filelock
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load as safetensors_load
from safetensors.torch import save as safetensors_save
from torch import Tensor

from drawbench import config as configs
from drawbench import distributed, fast, files, pretrained
from drawbench.config.fields import nearest
from drawbench.errors import Problem, reason
from drawbench.fast import native

FORMAT = "drawbench checkpoint 1"
LAST, PREVIOUS, BEST = "last.safetensors", "previous.safetensors", "best.safetensors"
FRESH = f".fresh-{LAST}"  # the next LAST, until it takes its place
RESULT = "result.json"
CURVES = tuple(f"error_against_{condition}.csv" for condition in ("clutter", "canvas", "glimpses"))
FILES = (  # all that a run writes beside figures; config.json last, which makes the folder a run
    *("environment.json", "metrics.csv", RESULT, "test.npz", "timing.csv", *CURVES),
    *(LAST, FRESH, PREVIOUS, BEST, "config.json"),
)
Checkpoint = tuple[dict[str, Tensor], dict[str, Any]]  # and what else there is to know, as JSON


# -------------------------------------------------------------------------------------- checkpoints


def _digest(tensors: dict[str, Tensor], facts: str) -> str:
    """Return the SHA-256 of all tensors' names, types, shapes and values, and of the facts."""
    total = hashlib.sha256(facts.encode())
    for name, tensor in sorted(tensors.items()):
        total.update(f"\n{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        total.update(tensor.contiguous().reshape(-1).view(torch.uint8).numpy())
    return total.hexdigest()


def save_checkpoint(path: Path, tensors: dict[str, Tensor], facts: dict[str, Any]) -> None:
    """Write tensors and facts (any JSON) with their hash, atomically.

    Names that share their memory, such as those of tied weights, are stored once each.
    """
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    memory = Counter(tensor.untyped_storage().data_ptr() for tensor in tensors.values())
    tensors = {
        name: tensor.clone() if memory[tensor.untyped_storage().data_ptr()] > 1 else tensor
        for name, tensor in tensors.items()
    }
    text = json.dumps(facts)
    metadata = {"format": FORMAT, "facts": text, "sha256": _digest(tensors, text)}
    files.write_atomically(path, safetensors_save(tensors, metadata=metadata))


def load_checkpoint(path: Path) -> Checkpoint:
    """Read a file of :func:`save_checkpoint`.

    Raises:
        Problem: it is missing, truncated, changed in any bit, or not one of ours.
    """
    try:
        # Check the header against the length before the whole file is in memory.
        with safe_open(files.plain(path), "pt"):
            content = path.read_bytes()
        tensors = safetensors_load(content)
        length = int.from_bytes(content[:8], "little")
        metadata = json.loads(content[8 : 8 + length]).get("__metadata__") or {}
    except (SafetensorError, ValueError, KeyError, AttributeError, RecursionError) as error:
        raise Problem(f"checkpoint {path} is damaged or not a checkpoint: {error}") from error
    except (OSError, RuntimeError) as error:  # torch's own for a file that disappears meanwhile
        raise Problem(f"checkpoint {path} cannot be read: {reason(error)}") from error
    if metadata.get("format") != FORMAT:
        raise Problem(f"{path} is a safetensors file, but not a drawbench checkpoint ({FORMAT!r})")
    if metadata.get("sha256") != _digest(tensors, metadata.get("facts", "")):
        raise Problem(f"checkpoint {path} is damaged: its content does not match its SHA-256")
    try:
        return tensors, dict(files.parse_json(metadata["facts"]))
    except (KeyError, ValueError, TypeError) as error:
        raise Problem(f"checkpoint {path} is damaged: its facts are not a table") from error


# --------------------------------------------------------------------------------------- run folder


class Run:
    """A run folder: make one with :meth:`create`, open one with :meth:`open`."""

    def __init__(self, folder: Path, config: Any):
        self.folder = folder
        self.config = config
        self._figures: Path | None = None

    @property
    def name(self) -> str:
        return Path(os.path.abspath(self.folder)).name  # "." has none of its own

    @property
    def figures(self) -> Path:
        """Where figures go: into the folder, unless it is in the package or another was set."""
        return self._figures or pretrained.figures_of(self.folder) or self.subfolder("figures")

    @figures.setter
    def figures(self, folder: Path) -> None:
        self._figures = folder

    def subfolder(self, name: str) -> Path:
        """Return the path of a folder in the run folder; raise `Problem` if it is a link."""
        return files.check_inside(self.folder / name, self.folder)

    @property
    def finished(self) -> bool:
        """Whether the run has a result, sound or damaged, on this process's machine."""
        return os.path.lexists(self.folder / RESULT)

    @property
    def writable(self) -> bool:
        """Whether files can be written in the folder; runs can be shared read-only."""
        return os.access(self.folder, os.W_OK)

    @classmethod
    @distributed.by_first
    def create(cls, folder: Path, config: Any, *, command: str = "", force: bool = False) -> "Run":
        """Make a run folder.

        Args:
            command: the command line, for the record.
            force: empty a folder that holds a run; a folder of anything else is never touched.

        Raises:
            Problem: the folder is not empty and may not be emptied, or cannot be written.
        """
        check_available(folder, force)
        # Slow, so it comes before there is a folder that a signal could leave incomplete.
        about = {**environment(), "command": command}
        asked = getattr(getattr(config, "training", None), "device", None)  # none of MeasureModel
        if asked in ("cpu", "mps"):
            about["device"] = asked  # whatever else the machine has
        run = cls(folder, config)
        try:
            run.figures.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise Problem(
                f"cannot make run folder {folder}: {error.strerror or error}; "
                "choose a writable one with --runs DIR"
            ) from error
        with run.locked():  # or a process that works there would continue in an emptied folder
            check_available(folder, force)  # another process may have made a run there by now
            run._empty()
            files.write_json(folder / "environment.json", about)
            run.save_config(config)  # last: with it the folder is a run that can be resumed
        return run

    @classmethod
    @distributed.by_first
    def open(cls, folder: Path) -> "Run":
        """Open a run folder, or the pretrained model of that name.

        Raises:
            Problem: there is none, or its configuration is not valid.
        """
        folder = pretrained.find(folder)
        if not folder.is_dir():
            hint = nearest(str(folder), pretrained.models())
            raise Problem(f"there is no run folder {folder}{hint}")
        path = folder / "config.json"
        if not path.is_file():
            raise Problem(f"{folder} is not a run folder: it has no config.json")
        try:
            return cls(folder, configs.from_dict(files.read_json(path)))
        except Problem as error:
            raise Problem(f"{path}: {error}") from error

    def save_config(self, config: Any) -> None:
        """Write ``config.json``."""
        self.config = config
        files.write_json(self.folder / "config.json", configs.to_dict(config))

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the folder against other commands; the system releases the lock of a dead process.

        Raises:
            Problem: another process holds it, it cannot be written, or it has disappeared by the
                end.
        """
        if distributed.rank():  # the first process holds it for all
            yield
            return
        lock = _acquire(self.folder)
        try:
            for folder in (self.folder, self.figures):
                for stray in folder.glob(".*.tmp"):  # its writer was killed: it held no lock
                    stray.unlink(missing_ok=True)
            yield
            self._check_exists()
        finally:
            lock.release()

    def _check_exists(self) -> None:
        if not (self.folder / "config.json").is_file():
            raise Problem(
                f"the run folder {self.folder} has disappeared: it was moved or removed while this "
                f"command used it; put it back and resume with: drawbench resume {self.folder}"
            )

    @distributed.by_first
    def check_unfinished(self) -> None:
        """Raise `Problem` if the run is finished: its weights are final."""
        if self.finished:
            raise Problem(
                f"{self.folder} is finished: it is never trained again and its weights are never "
                "replaced; train a new one with another --run NAME, or replace it with --force"
            )

    def _empty(self) -> None:
        """Remove the files that a run writes, and no others."""
        figures = [path for path in self.figures.glob("*") if path.is_file()]
        events = self.subfolder("tensorboard").glob("events.out.tfevents.*")
        for path in [*figures, *events, *(self.folder / name for name in FILES)]:
            path.unlink(missing_ok=True)

    # -- training state

    def _save(self, name: str, tensors: dict[str, Tensor], facts: dict[str, Any]) -> None:
        self._check_exists()
        self.check_unfinished()
        save_checkpoint(self.folder / name, tensors, facts)

    @distributed.by_first
    def save_state(self, tensors: dict[str, Tensor], facts: dict[str, Any]) -> None:
        """Save the state to resume from; the one before is kept until the next save.

        Raises:
            Problem: the run is finished or has disappeared, or the folder cannot be written.
        """
        self._save(FRESH, tensors, facts)
        self._rotate()

    def _rotate(self) -> None:
        """Make FRESH the last state, and the last one the previous."""
        last = self.folder / LAST
        if last.exists():
            files.replace(last, self.folder / PREVIOUS)
        files.replace(self.folder / FRESH, last)

    @distributed.by_first
    def load_state(self, warn: Callable[[str], object]) -> Checkpoint | None:
        """Return the newest sound state, or None if none was saved.

        Args:
            warn: called with a sentence for each damaged state, which is skipped.

        Raises:
            Problem: there are states, but none is sound; or there is none and the run is finished,
                so that training from scratch would replace its weights.
        """
        names = (FRESH, LAST, PREVIOUS)
        states = [path for name in names if (path := self.folder / name).exists()]
        for path in states:
            try:
                state = load_checkpoint(path)
            except Problem as error:
                warn(f"{error}; taking the one before")
                continue
            if path.name == FRESH:  # its writer was killed before the last move
                self._rotate()
            elif path.name == PREVIOUS:  # or the next save would replace it by the damaged one
                files.replace(path, self.folder / LAST)
            return state
        if states:
            raise Problem(f"no checkpoint in {self.folder} is sound; start again with --force")
        self.check_unfinished()
        return None

    @distributed.by_first
    def save_best(self, tensors: dict[str, Tensor], facts: dict[str, Any]) -> None:
        """Save the weights with the best validation so far.

        Args:
            facts: with ``config``, which :meth:`load_best` compares with the run's.

        Raises:
            Problem: the run is finished or has disappeared, or the folder cannot be written.
        """
        self._save(BEST, tensors, facts)

    @distributed.by_first
    def load_best(self) -> Checkpoint:
        """Return the weights with the best validation, and their facts.

        Raises:
            Problem: they are missing, damaged, or were trained with another configuration.
        """
        path = self.folder / BEST
        if not path.exists():
            raise self._missing(BEST)
        tensors, facts = load_checkpoint(path)
        if "config" in facts and configs.from_dict(facts["config"]) != self.config:
            raise Problem(
                f"{path} was trained with another configuration than "
                f"{self.folder / 'config.json'}, which was changed or damaged; restore it"
            )
        return tensors, facts

    def _missing(self, name: str) -> Problem:
        """Return the problem of a file that training writes."""
        if self.finished:
            return Problem(
                f"{self.folder} has no {name}: it was lost, or left out of a copy; train the run "
                f"again with the command in its {RESULT} and --force"
            )
        return Problem(
            f"{self.folder} has no {name} yet; train it first: drawbench resume {self.folder}"
        )

    def copy_to(self, folder: Path, *, half: bool = False, weights: bool = True) -> "Run":
        """Copy a finished run to keep or share: everything but links and training states.

        Args:
            folder: must be absent or empty.
            half: round the weights to half precision, after which the copy should be measured.
            weights: copy them; without, the copy has numbers and figures only.

        Raises:
            Problem: the folder is not empty, the run has no result, or a weight overflows in half
                precision.
        """
        if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
            raise Problem(f"{folder} is not empty: name another folder for the copy")
        result = self.result()
        tensors, facts = self.load_best() if weights else ({}, {})
        if half:
            for name, tensor in tensors.items():
                tensors[name] = tensor.half() if tensor.is_floating_point() else tensor
                if not tensors[name].isfinite().all():
                    raise Problem(
                        f"a weight of {self.folder} is too large for half precision; "
                        "leave out --half"
                    )
            result |= {"weights": "float16"}
        copy = Run(folder, self.config)
        try:
            shutil.copytree(self.folder, folder, ignore=_not_to_share, dirs_exist_ok=True)
            if weights:
                save_checkpoint(folder / BEST, tensors, facts)
            copy.write_result(result)
        except (OSError, Problem) as error:  # shutil.Error is an OSError with a list of reasons
            shutil.rmtree(folder, ignore_errors=True)
            why = error.args[0][0][2] if isinstance(error, shutil.Error) else error
            raise Problem(f"cannot copy {self.folder} to {folder}: {why}") from error
        return copy

    # -- measurements

    @distributed.by_first
    def write_metrics(self, rows: list[dict[str, Any]]) -> None:
        """Write ``metrics.csv``, one row per validation."""
        import pandas

        self._check_exists()
        text = pandas.DataFrame(rows).to_csv(index=False, lineterminator="\n")
        files.write_atomically(self.folder / "metrics.csv", text.encode())

    def metrics(self):
        """Return ``metrics.csv`` as a pandas frame.

        Raises:
            Problem: it is missing or not a table.
        """
        import pandas

        path = self.folder / "metrics.csv"
        try:
            return pandas.read_csv(files.plain(path))
        except FileNotFoundError as error:
            raise self._missing(path.name) from error
        except (ValueError, OSError) as error:  # pandas' own errors are ValueErrors
            raise Problem(f"{path} is not a table: {error}") from error

    def write_result(self, result: dict[str, Any]) -> None:
        """Write ``result.json`` with its hash: from then on the run is finished."""
        self._check_exists()
        files.write_json(self.folder / RESULT, files.hashed(result))

    def result(self) -> dict[str, Any]:
        """Return ``result.json``.

        Raises:
            Problem: it is missing, damaged, not a table of fields, or was edited.
        """
        result = files.read_hashed(self.folder / RESULT)
        if not isinstance(result, dict):
            raise Problem(f"{self.folder / RESULT} is not a result: it must be a table of fields")
        return result

    @property
    def command(self) -> str:
        """The command line that made the run, or an empty string where it is lost."""
        try:
            return str(files.read_json(self.folder / "environment.json").get("command", ""))
        except (Problem, AttributeError):  # it may hold any JSON
            return ""


def _not_to_share(folder: str, names: list[str]) -> set[str]:
    """Return the names that a shared copy leaves out; a link could carry any file of the user."""
    return {
        name
        for name in names
        if name in (LAST, PREVIOUS, BEST) or name[0] == "." or Path(folder, name).is_symlink()
    }


def _acquire(folder: Path) -> filelock.BaseFileLock:
    """Lock a run folder; raise `Problem` if another process holds it for more than a moment."""
    path = folder / ".lock"
    # Some versions of filelock empty the file that they lock, under whatever other names it has.
    if os.path.lexists(path):
        status = path.lstat()
        if not stat.S_ISREG(status.st_mode) or status.st_nlink > 1:
            raise Problem(f"{path} is no lock file, but a link or a folder; remove it")
    lock = filelock.FileLock(path, timeout=1)
    try:
        lock.acquire()
    except filelock.Timeout as error:
        raise Problem(f"another process is working on {folder}; wait for it or stop it") from error
    except OSError as error:
        raise Problem(f"cannot write in {folder}: {error.strerror or error}") from error
    return lock


@distributed.by_first
def check_available(folder: Path, force: bool) -> None:
    """Check that a run may be made in ``folder``.

    Raises:
        Problem: it holds a run and ``force`` is not set, or it holds something else.
    """
    if not folder.exists() or (folder.is_dir() and _is_vacant(folder)):
        return
    if not (folder / "config.json").is_file():
        raise Problem(f"{folder} exists and is not a run folder; choose another with --run NAME")
    if not force:
        finished = os.path.lexists(folder / RESULT)
        resume = "" if finished else f"resume it with: drawbench resume {folder}, "
        raise Problem(
            f"{folder} already holds a run; {resume}choose another name with --run NAME, or "
            "replace it with --force"
        )


def _is_vacant(folder: Path) -> bool:
    """Whether a folder is empty, or holds only what a process left that was killed in create."""
    names = {path.name for path in folder.iterdir() if not path.match(".*.tmp")} - {".lock"}
    return (
        names <= {"figures", "environment.json"}
        and names != {"environment.json"}
        and not (folder / "figures").is_symlink()
        and not any((folder / "figures").glob("*"))
    )


# -------------------------------------------------------------------------------------- environment


def environment() -> dict[str, Any]:
    """Return what a reader must know of the machine and the versions to repeat a run."""
    return {
        "python": platform.python_version(),
        "torch": torch.__version__,
        "platform": platform.platform(),
        "processor": _processor(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "kernels": "none" if native.kernels() is None else "compiled",
        "bfloat16": fast.multiplies_bfloat16(),
        "device": torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu",
        "commit": _commit(Path(__file__)),
    }


def _processor() -> str:
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()


def _commit(file: Path) -> str | None:
    """Return the commit of the repository that tracks a file, marked if files were changed.

    None where it is tracked by none: an installed package may lie in somebody else's repository.
    """

    def git(*words: str) -> str:
        command = ["git", "-C", str(file.parent), *words]
        return subprocess.run(
            command, capture_output=True, text=True, timeout=10, check=True
        ).stdout.strip()

    with contextlib.suppress(OSError, subprocess.SubprocessError):
        git("ls-files", "--error-unmatch", file.name)
        return git("describe", "--always", "--dirty", "--abbrev=12", "--exclude=*") or None
    return None


def command_line() -> str:
    """Return the command as typed, for the record."""
    return shlex.join(["drawbench", *sys.argv[1:]])
