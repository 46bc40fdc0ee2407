"""``--log``: TensorBoard, and the trackers of docs/trackers.md with stubs for their servers."""

import json
import re
import sys
from pathlib import Path
from types import SimpleNamespace
from unittest.mock import MagicMock

import commands
import numpy as np
import pytest
from commands import GENERATOR, answer, drawbench, failed, succeeded, tiny

DOCS = (Path(__file__).parent.parent / "docs" / "trackers.md").read_text()
EXAMPLES = dict(re.findall(r"as `(\w+)\.py`:\n\n```python\n(.*?)```", DOCS, re.DOTALL))


@pytest.fixture
def example(place, tmp_path, monkeypatch):
    """Write an example of the page, with a stub of the package that it imports."""

    def write(name: str) -> MagicMock:
        (tmp_path / f"{name}.py").write_text(EXAMPLES[name])
        package = re.search(r"^import (\w+)", EXAMPLES[name])[1]
        stub = MagicMock()
        monkeypatch.setitem(sys.modules, package, stub)
        monkeypatch.delitem(sys.modules, name, raising=False)
        monkeypatch.syspath_prepend(tmp_path)
        return stub

    return write


def test_the_page_has_two_examples():
    assert set(EXAMPLES) == {"wandb_log", "trackio_log"}


def test_a_tracker_receives_rows_pictures_histograms_and_the_result(example, place, classified):
    wandb = example("wandb_log")
    words = [*place, "--log", "wandb_log:Tracker", "--run", "seen"]
    result = answer("classify", *tiny(), *words)
    folder = Path(result["run"])
    wandb.init.assert_called_once()
    given = wandb.init.call_args.kwargs
    assert given["id"] == "seen"
    assert given["config"] == json.loads((folder / "config.json").read_text())
    logged = [(call.args[0], call.kwargs["step"]) for call in wandb.init().log.call_args_list]
    assert [step for _, step in logged] == [10, 10, 20, 20]
    assert logged[0][0]["validation_error"] > 0 and logged[0][0]["seconds"] > 0
    assert {"glimpses", "window/centre_x", "window/stride"} <= set(logged[1][0])
    picture = wandb.Image.call_args.args[0]
    assert picture.dtype == np.uint8 and picture.ndim == 3 and picture.std() > 10
    assert all(np.isfinite(call.args[0]).all() for call in wandb.Histogram.call_args_list)
    summary = wandb.init().summary.update.call_args.args[0]
    assert summary == {"value": result["value"], "metric": "test_error_percent"}
    wandb.init().finish.assert_called_once_with()
    commands.same_run(folder, classified[0])  # looking changes nothing


def test_a_generator_shows_samples_and_reconstructions(example, place):
    wandb = example("wandb_log")
    words = tiny(GENERATOR, steps=2, evaluate_every=2)
    answer("generate", *words, *place, "--log", "wandb_log:Tracker")
    views = wandb.init().log.call_args.args[0]
    assert {"samples", "reconstructions", "read/stride", "write/centre_y"} <= set(views)


def test_the_second_example_and_quiet(example, place):
    trackio = example("trackio_log")
    words = [*tiny(steps=2), *place, "--log", "trackio_log:Tracker", "--quiet", "--json"]
    result = succeeded(drawbench("classify", *words))
    assert result.stderr == "" and json.loads(result.stdout)["steps"] == 2
    assert [call.kwargs["step"] for call in trackio.log.call_args_list] == [2]
    trackio.finish.assert_called_once_with()


def test_tensorboard_gets_pictures_and_histograms_of_a_run(place):
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    run = Path(answer("classify", *tiny(steps=2), *place, "--log", "tensorboard")["run"])
    events = accumulator.EventAccumulator(str(run / "tensorboard")).Reload()
    assert [image.step for image in events.Images("glimpses")] == [2]
    assert events.Images("glimpses")[0].width > 200
    assert events.Histograms("window/variance")[0].histogram_value.min > 0
    assert "seconds" in events.Tags()["scalars"]


def test_a_tracker_that_is_none_is_one_sentence(place, tmp_path, monkeypatch):
    (tmp_path / "odd_log.py").write_text("def number(folder, config): return 3\nTracker = 1 / 1\n")
    monkeypatch.delitem(sys.modules, "odd_log", raising=False)
    for name, words in {
        "odd_log:number": "not a drawbench.Reporter",
        "odd_log:missing": "no function or class",
        "no_log:Tracker": "no module",
    }.items():
        failed(drawbench("classify", *tiny(steps=2), *place, "--log", name), words)
    failed(drawbench("classify", *tiny(), *place, "--log", "wandb"), "--log", status=2)
    assert not (tmp_path / "runs").exists()


def test_of_several_processes_the_first_alone_reports(monkeypatch, tmp_path):
    from drawbench.cli import training

    monkeypatch.setattr("drawbench.distributed.rank", lambda: 1)
    screen = SimpleNamespace()
    assert training.listeners(screen, tmp_path, ("tensorboard",), None) is screen
