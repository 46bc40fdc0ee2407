"""The drawbench command in tests: trainings of a second, and what every answer must look like."""

import json
import sys
from pathlib import Path
from typing import Any

import torch
from click.testing import CliRunner, Result

from drawbench import files, runs
from drawbench.cli import cli

MAIN = [sys.executable, "-m", "drawbench"]
_TRAINING = {"source": "digits", "steps": 20, "evaluate_every": 10, "checkpoint_every": 5}
_TRAINING |= {"hidden": 8, "glimpses": 2, "threads": 1, "figures": False}  # they take seconds
CLASSIFIER = _TRAINING | {"canvas": 28, "clutter": 1, "patch": 4, "batch": 16}
GENERATOR = _TRAINING | {"latent": 4, "batch": 20, "steps": 4, "evaluate_every": 2}
GENERATOR |= {"validation_images": 20, "pictures": 4}


def drawbench(*words: Any, env: dict[str, str] | None = None) -> Result:
    """Run the command inside this process: importing torch again would take seconds."""
    return CliRunner().invoke(cli, [str(word) for word in words], prog_name="drawbench", env=env)


def flags(**settings: Any) -> list[str]:
    """Return options; those that are None are left out, and a truth is a word of its own."""
    words = []
    for name, value in settings.items():
        word = name.replace("_", "-")
        if isinstance(value, bool):
            words.append(f"--{word}" if value else f"--no-{word}")
        elif value is not None:
            words += [f"--{word}", str(value)]
    return words


def tiny(base: dict[str, Any] = CLASSIFIER, **changes: Any) -> list[str]:
    """Return the options of a training of a second."""
    return flags(**{**base, **changes})


def succeeded(result: Result) -> Result:
    assert result.exit_code == 0, result.output + repr(result.exception)
    return result


def answer(*words: Any) -> dict[str, Any]:
    """Run the command with ``--json`` and return the one object that it prints."""
    return json.loads(succeeded(drawbench(*words, "--json")).stdout)


def failed(result: Result, *words: str, status: int | tuple[int, ...] = 1) -> None:
    """Check for one sentence with these words, last on standard error, and nothing else."""
    assert isinstance(result.exception, SystemExit), result.output + repr(result.exception)
    assert result.exit_code in ((status,) if isinstance(status, int) else status), result.output
    assert result.stdout == ""
    assert "Traceback" not in result.stderr
    lines = result.stderr.strip().splitlines()
    assert [line.startswith("Error: ") for line in lines].count(True) == 1, result.stderr
    assert lines[-1].startswith("Error: "), result.stderr
    for word in words:
        assert word in lines[-1], lines[-1]


def content(folder: Path) -> dict[str, bytes]:
    """Return every file below a folder but the lock, which holds nothing."""
    paths = [path for path in sorted(folder.rglob("*")) if path.is_file() and path.name != ".lock"]
    return {str(path.relative_to(folder)): path.read_bytes() for path in paths}


def snapshot(folder: Path) -> dict[str, Any]:
    """Return every path below a folder with its content and time of change: nothing was written
    between two equal ones, so that the folder may be read-only.
    """
    return {
        str(path): (path.stat().st_mtime_ns, path.read_bytes() if path.is_file() else None)
        for path in [folder, *folder.rglob("*")]
    }


def metrics(folder: Path) -> str:
    """Return ``metrics.csv`` without its column of seconds, which are measured."""
    lines = [line.split(",") for line in (folder / "metrics.csv").read_text().splitlines()]
    column = lines[0].index("seconds") if "seconds" in lines[0] else len(lines[0])
    return "\n".join(",".join(line[:column] + line[column + 1 :]) for line in lines)


def timeless(facts: dict[str, Any]) -> dict[str, Any]:
    """Return the facts of a checkpoint without what is measured by a clock."""
    rows = [{k: v for k, v in row.items() if k != "seconds"} for row in facts.get("rows", [])]
    return {**facts, "seconds": 0, "rows": rows}


def same_run(left: Path, right: Path) -> None:
    """Check that two run folders hold the same training and the same result, to the bit."""
    for name in (runs.BEST, runs.LAST):
        (tensors, _), (expected, _) = (
            runs.load_checkpoint(folder / name) for folder in (left, right)
        )
        assert tensors.keys() == expected.keys()
        assert all(torch.equal(tensors[key], expected[key]) for key in expected), name
    assert metrics(left) == metrics(right)
    results = [files.read_hashed(folder / "result.json") for folder in (left, right)]
    for result in results:
        del result["train_seconds"], result["command"]
    assert results[0] == results[1]
