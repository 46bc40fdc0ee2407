"""Bring your own model: the example of the README, and every way in which a stranger's network can
be wrong.
"""

import json
import re
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from test_cli import drawbench, failed, succeeded

from drawbench import runs
from drawbench.data import store
from drawbench.evaluation import error_rate
from drawbench.files import read_hashed
from drawbench.tasks import user_model as own

README = (Path(__file__).parent.parent / "README.md").read_text()
MODELS = """
import torch
from torch import nn
from typing import NamedTuple

class Record(NamedTuple):
    logits: torch.Tensor

class Of(nn.Module):
    def __init__(self, answer):
        super().__init__()
        self.answer = answer
    def forward(self, images):
        return self.answer(images)

class Line(nn.Module):
    def __init__(self):
        super().__init__()
        self.line = nn.Linear(784, 10)
        with torch.no_grad():
            self.line.weight.copy_(torch.sin(torch.arange(7840.0)).view(10, 784))
            self.line.bias.zero_()
    def forward(self, images):
        return self.line(images.flatten(1))

class Steps(Line):
    pixels_read = 7
    def forward(self, images):
        last = super().forward(images)
        return Record(torch.stack([-last, last], dim=1))

class Always(Line):
    def forward(self, images):
        return nn.functional.dropout(super().forward(images), 0.5)

class Batch(Line):
    def forward(self, images):
        logits = super().forward(images)
        return logits - logits.mean(0)

def dropout():
    return nn.Sequential(Line(), nn.Dropout(0.5)).train()

def transposed():
    return Of(lambda images: torch.zeros(10, len(images)))

def eleven():
    return Of(lambda images: torch.zeros(len(images), 11))

def text():
    return Of(lambda images: "seven")

def whole():
    return Of(lambda images: torch.zeros(len(images), 10, dtype=torch.long))

def infinite():
    return Of(lambda images: torch.zeros(len(images), 10) / 0)

def raising():
    return Of(lambda images: images @ torch.zeros(3, 3))

def silent():
    return Of(lambda images: (_ for _ in ()).throw(AssertionError))

def unmade():
    raise LookupError("no settings\\nfound")

def a_number():
    return 7

needs_more = lambda size: Line()
constant = 7
"""


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A working folder with a module of models, and words that name the small test file."""
    (tmp_path / "mymodels.py").write_text(MODELS)
    (tmp_path / "broken.py").write_text("import no_such_thing\n")
    (tmp_path / "worse.py").write_text("1 / 0\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    for name in ("mymodels", "broken", "worse", "mymodel"):
        sys.modules.pop(name, None)
    yield ["--source", "digits", "--canvas", 28, "--clutter", 0, "--runs", tmp_path / "runs"]
    for name in ("mymodels", "mymodel"):
        sys.modules.pop(name, None)


def evaluate(name, place, *more):
    return drawbench("evaluate", "--model", name, *place, *more)


def test_a_network_is_measured_as_every_other(place, tmp_path):
    found = json.loads(succeeded(evaluate("mymodels:Line", place, "--json")).stdout)
    folder = tmp_path / "runs" / "evaluate-mymodels-Line"
    assert read_hashed(folder / "result.json") == {
        name: value for name, value in found.items() if name != "run"
    }
    test = store.load("datasets/cluttered-28x28-0-digits", "test")
    weight = torch.sin(torch.arange(7840.0)).view(10, 784)
    answers = (error_rate.as_input(test.images).flatten(1) @ weight.T).argmax(1).numpy()
    assert (found["errors"], found["n"]) == (
        int((answers != np.asarray(test.labels)).sum()),
        len(test.images),
    )
    assert (found["parameters"], found["pixels_read"], found["multiply_adds"]) == (7850, 784, 7840)
    assert (found["task"], found["model"], found["dataset"]) == (
        "classify",
        "mymodels:Line",
        "cluttered-28x28-0-digits",
    )
    assert found["low"] < found["value"] < found["high"] and found["metric"] == "test_error_percent"
    assert {"source", "seed", "steps", "images_seen", "train_seconds", "command"} <= found.keys()
    config = runs.Run.open(folder).config
    assert (config.task, config.data.source, config.data.canvas, config.model.weights) == (
        "evaluate",
        "digits",
        28,
        None,
    )
    assert (folder / "figures" / "confusion.png").is_file() and (
        folder / "environment.json"
    ).is_file()


def test_a_record_with_steps_answers_with_the_last(place):
    line = json.loads(succeeded(evaluate("mymodels:Line", place, "--json")).stdout)
    steps = json.loads(succeeded(evaluate("mymodels:Steps", place, "--json")).stdout)
    assert (steps["value"], steps["pixels_read"]) == (line["value"], 7)
    assert len(steps["errors_after_glimpse"]) == 2


def test_a_model_left_in_training_mode_is_set_right(place):
    succeeded(evaluate("mymodels:dropout", place))


@pytest.mark.parametrize(
    ("name", "words"),
    {
        "mymodels:transposed": [
            "mymodels:transposed",
            "(10, 16)",
            "(16, 1, 28, 28)",
            "logits (16, 10)",
        ],
        "mymodels:eleven": ["(16, 11)", "logits (16, 10)"],
        "mymodels:text": ["gave str", "logits (16, 10)"],
        "mymodels:whole": ["torch.int64", "floating-point"],
        "mymodels:infinite": ["not finite"],
        "mymodels:raising": [
            "mymodels:raising called with images (16, 1, 28, 28) raised RuntimeError"
        ],
        "mymodels:silent": ["raised AssertionError"],
        "mymodels:unmade": ["mymodels:unmade raised LookupError: no settings found"],
        "mymodels:a_number": ["gave something of type int", "torch.nn.Module"],
        "mymodels:needs_more": ["mymodels:needs_more raised TypeError", "size"],
        "mymodels:constant": ["mymodels:constant is of type int", "cannot be called"],
        "mymodels:nothing": ["module mymodels has no 'nothing'"],
        "mymodels:Always": ["answers differently when it is asked twice", "dropout"],
        "mymodels:Batch": ["about an image alone than among 16", "statistics of the batch"],
        "nomodels:Line": ["there is no module 'nomodels'"],
        "mymodels.deeper:Line": ["'mymodels.deeper'"],
        "broken:Line": ["module broken cannot be imported", "no_such_thing"],
        "worse:Line": ["module worse cannot be imported", "ZeroDivisionError"],
        "mymodels": ["module:factory", "'mymodels'"],
        "mymodels.py:": ["module:factory"],
        "../mymodels:Line": ["module:factory"],
    }.items(),
)
def test_what_is_wrong_with_a_network_is_said_in_a_sentence(place, tmp_path, name, words):
    failed(evaluate(name, place), *words)
    assert not (tmp_path / "runs").exists()


# --- weights ---


def weights() -> dict[str, torch.Tensor]:
    return {
        "line.weight": torch.cos(torch.arange(7840.0)).view(10, 784),
        "line.bias": torch.arange(10.0),
    }


def test_weights_of_either_kind_are_loaded(place, tmp_path):
    save_file(weights(), tmp_path / "line.safetensors")
    torch.save(weights(), tmp_path / "line.pt")
    values = [
        json.loads(
            succeeded(
                evaluate("mymodels:Line", place, "--weights", tmp_path / file, "--json")
            ).stdout
        )["confusion"]
        for file in ("line.safetensors", "line.pt")
    ]
    assert (
        values[0]
        == values[1]
        != json.loads(succeeded(evaluate("mymodels:Line", place, "--json")).stdout)["confusion"]
    )
    config = runs.Run.open(tmp_path / "runs" / "evaluate-mymodels-Line").config
    assert (
        config.model.weights.endswith("line.safetensors") and len(config.model.weights_sha256) == 64
    )


class Evil:
    """Runs when it is unpickled."""

    def __reduce__(self):
        return (exec, ("raise SystemExit('ran')",))


def damaged(path: Path, kind: str) -> None:
    good = {"safetensors": save_file, "pt": lambda tensors, file: torch.save(tensors, file)}[
        path.suffix[1:]
    ]
    match kind:
        case "evil":
            torch.save({"line.weight": Evil()}, path)
        case "empty":
            path.write_bytes(b"")
        case "text":
            path.write_text("weights")
        case "cut":
            good(weights(), path)
            path.write_bytes(path.read_bytes()[:-900])
        case "flipped":
            good(weights(), path)
            content = bytearray(path.read_bytes())
            content[len(content) // 2] ^= 1
            path.write_bytes(content)
        case "list":
            torch.save([1, 2], path)
        case "misfit":
            good({"line.weight": torch.zeros(10, 783), "line.bias": torch.zeros(10)}, path)


@pytest.mark.parametrize(
    ("file", "kind", "words"),
    [
        ("w.pt", "evil", ["w.pt", "would have to be run"]),
        ("w.pt", "empty", ["w.pt", "damaged"]),
        ("w.pt", "text", ["w.pt"]),
        ("w.pt", "cut", ["w.pt", "damaged"]),
        ("w.pt", "flipped", ["w.pt is damaged: the checksum"]),
        ("w.pt", "list", ["does not hold tensors by name"]),
        ("w.pt", "misfit", ["do not fit mymodels:Line", "783"]),
        ("w.pt", "missing", ["there is no file of weights"]),
        ("w.safetensors", "empty", ["w.safetensors", "damaged"]),
        ("w.safetensors", "cut", ["w.safetensors", "damaged"]),
        ("w.safetensors", "misfit", ["do not fit", "783"]),
    ],
)
def test_bad_weights_are_named_and_nothing_in_them_runs(place, tmp_path, file, kind, words):
    damaged(tmp_path / file, kind)
    failed(evaluate("mymodels:Line", place, "--weights", tmp_path / file), *words)


# --- usage ---


@pytest.mark.parametrize(
    ("words", "named"),
    [
        ([], "a run to measure again, or --model"),
        (["somewhere", "--model", "mymodels:Line"], "not both"),
        (["--model", "mymodels:Line", "--glimpses", 3], "--glimpses does not go with --model"),
        (["--model", "mymodels:Line", "--canvas", "60,100"], "one number, got 2"),
        (["--model", "mymodels:Line", "--canvas", 20], "canvas must be at least 28"),
        (["somewhere", "--weights", "w.pt"], "--weights goes with --model only"),
    ],
)
def test_wrong_usage(place, words, named):
    result = drawbench("evaluate", *words)
    assert result.exit_code == 2 and named in " ".join(result.stderr.split())


def test_a_name_that_is_taken(place, tmp_path):
    succeeded(evaluate("mymodels:Line", place, "--run", "mine"))
    failed(evaluate("mymodels:Line", place, "--run", "mine"), "holds a run already", "--force")
    succeeded(evaluate("mymodels:Steps", place, "--run", "mine", "--force"))
    assert (
        json.loads((tmp_path / "runs" / "mine" / "result.json").read_text())["model"]
        == "mymodels:Steps"
    )
    failed(drawbench("resume", tmp_path / "runs" / "mine"), "trains nothing")


def test_the_example_of_the_readme_runs(place, tmp_path):
    (code,) = (
        block
        for block in re.findall(r"```python\n(.*?)```", README, re.DOTALL)
        if "# mymodel.py" in block
    )
    (tmp_path / "mymodel.py").write_text(code)
    assert "drawbench evaluate --model mymodel:network --weights mymodel.safetensors" in README
    guest = own.load_guest("mymodel:network")
    save_file(guest.network.state_dict(), tmp_path / "mymodel.safetensors")
    found = json.loads(
        succeeded(
            evaluate("mymodel:network", place, "--weights", "mymodel.safetensors", "--json")
        ).stdout
    )
    assert found["model"] == "mymodel:network" and found["n"] == 400
