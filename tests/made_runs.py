"""Run folders made up for tests: what a finished run leaves behind, without having trained."""

import json
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from drawbench import config
from drawbench.evaluation.paired import BOUND, ERROR, Outcomes
from drawbench.files import hashed, write_json

CLASSIFIER = {
    "task": "classify",
    "model": "draw",
    "dataset": "cluttered-100x100-8-mnist",
    "source": "mnist",
    "metric": ERROR,
    "value": 4.0,
    "low": 3.6,
    "high": 4.4,
    "n": 10_000,
    "steps": 1000,
    "images_seen": 128_000,
    "train_seconds": 60.0,
    "glimpses": 8,
    "parameters": 416_015,
    "clutter": "fresh",
    "command": "drawbench classify",
}
GENERATOR = CLASSIFIER | {
    "task": "generate",
    "dataset": "mnist-static",
    "metric": BOUND,
    "value": 90.0,
    "low": 89.0,
    "high": 91.0,
    "pixels": "static",
    "kl": 25.0,
    "kl_per_step": [15.0, 10.0],
    "glimpses": 2,
}


def made(folder: Path, result: dict[str, Any] | None = None, **settings: Any) -> Path:
    """A finished run: a classifier's on real digits, or what ``result`` says otherwise, with these
    settings.
    """
    about = (GENERATOR if (result or {}).get("task") == "generate" else CLASSIFIER) | (result or {})
    kind = config.TASKS[about["task"]]
    given = {
        "source": about["source"],
        "glimpses": about["glimpses"],
        "steps": about["steps"],
        **settings,
    }
    chosen = config.merge(kind, {}, given)
    (folder / "figures").mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps(config.to_dict(chosen)))
    (folder / "environment.json").write_text(
        json.dumps({"processor": "abacus", "threads": 1, "device": "cpu", "commit": "c0ffee"})
    )
    write_json(folder / "result.json", hashed(about | {"seed": chosen.training.seed}))
    return folder


def change(path: Path, **fields: Any) -> None:
    """Other values in a JSON file, under a hash of its own if it had one."""
    value = json.loads(path.read_text()) | fields
    path.write_text(json.dumps(hashed(value) if "sha256" in value else value))


def curve(folder: Path, condition: str, errors: dict[int, float]) -> None:
    """Errors outside the training conditions, as ``evaluate`` writes them."""
    lines = [
        f"{value},{error},{error - 0.5},{error + 0.5},10000" for value, error in errors.items()
    ]
    (folder / f"error_against_{condition}.csv").write_text(
        "\n".join([f"{condition},error,low,high,n", *lines, ""])
    )


def film(folder: Path, name: str = "glimpses.gif", frames: int = 5) -> Path:
    """A film of a square that moves."""
    pages = []
    for k in range(frames):
        dots = np.full((40, 60), 255, np.uint8)
        dots[10:20, 5 + k : 15 + k] = 0
        pages.append(Image.fromarray(dots))
    path = folder / "figures" / name
    pages[0].save(path, save_all=True, append_images=pages[1:], duration=50)
    return path


def outcomes(folder: Path, losses, metric: str = ERROR, test: str = "a" * 64) -> None:
    """What a model lost on each test image."""
    Outcomes(metric, test, np.asarray(losses, np.uint8 if metric == ERROR else np.float32)).save(
        folder
    )
