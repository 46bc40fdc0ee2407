"""Folders of finished runs, written without training."""

import json
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from drawbench import config
from drawbench.evaluation.paired import Outcomes
from drawbench.files import hashed, write_json
from drawbench.records import BOUND, ERROR

CLASSIFIER: dict[str, Any] = {
    **dict(task="classify", model="draw", dataset="cluttered-100x100-8-mnist", source="mnist"),
    **dict(metric=ERROR, value=4.0, low=3.6, high=4.4, n=10_000),
    **dict(steps=1000, images_seen=128_000, train_seconds=60.0, command="drawbench classify"),
    **dict(glimpses=8, parameters=416_015, clutter="fresh"),
}
GENERATOR: dict[str, Any] = {
    **CLASSIFIER,
    **dict(task="generate", dataset="mnist-static", pixels="static", glimpses=2),
    **dict(metric=BOUND, value=90.0, low=89.0, high=91.0, bound_samples=1),
    **dict(reconstruction=65.0, kl=25.0, kl_per_step=[15.0, 10.0]),
}


def finished_run(folder: Path, result: dict[str, Any] | None = None, **settings: Any) -> Path:
    """Write a finished run: a classifier's on MNIST unless ``result`` says otherwise."""
    result = result or {}
    result = (GENERATOR if result.get("task") == "generate" else CLASSIFIER) | result
    kind = config.TASKS[result["task"]]
    given = {"model": result["model"], "source": result["source"], "steps": result["steps"]}
    known = config.CLASSIFIERS if kind is config.Classify else config.GENERATORS
    if result["model"] not in known:
        del given["model"]
    if result["model"] not in known or hasattr(known[result["model"]], "glimpses"):
        given["glimpses"] = result["glimpses"]
    chosen = config.merge(kind, {}, given | settings)
    (folder / "figures").mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps(config.to_dict(chosen)))
    (folder / "environment.json").write_text(
        json.dumps({"processor": "abacus", "threads": 1, "device": "cpu", "commit": "c0ffee"})
    )
    write_json(folder / "result.json", hashed(result | {"seed": chosen.training.seed}))
    return folder


def change(path: Path, **fields: Any) -> None:
    """Change fields of a JSON file; a hash it had is computed again."""
    value = json.loads(path.read_text()) | fields
    path.write_text(json.dumps(hashed(value) if "sha256" in value else value))


def curve(folder: Path, condition: str, errors: dict[int, float]) -> None:
    """Write test errors against a condition, as ``evaluate`` does."""
    lines = [
        f"{value},{error},{error - 0.5},{error + 0.5},10000" for value, error in errors.items()
    ]
    text = "\n".join([f"{condition},error,low,high,n", *lines, ""])
    (folder / f"error_against_{condition}.csv").write_text(text)


def animation(folder: Path, name: str = "glimpses.gif", frames: int = 5) -> Path:
    """Write an animation of a moving square."""
    pages = []
    for k in range(frames):
        pixels = np.full((40, 60), 255, np.uint8)
        pixels[10:20, 5 + k : 15 + k] = 0
        pages.append(Image.fromarray(pixels))
    path = folder / "figures" / name
    pages[0].save(path, save_all=True, append_images=pages[1:], duration=50)
    return path


def outcomes(folder: Path, losses, metric: str = ERROR, test: str = "a" * 64) -> None:
    """Write the loss of each test image."""
    kind = np.uint8 if metric == ERROR else np.float32
    Outcomes(metric, test, np.asarray(losses, kind)).save(folder)
