"""Models and data sets of the user's own: trained, resumed, measured; refused in a sentence."""

import functools
import json
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from commands import (
    GENERATOR,
    MAIN,
    answer,
    content,
    drawbench,
    failed,
    flags,
    same_run,
    succeeded,
    tiny,
)
from safetensors.torch import save_file

from drawbench import runs, tasks
from drawbench.data import stored
from drawbench.errors import Problem
from drawbench.files import read_hashed
from drawbench.models import as_images
from drawbench.user_code import blamed, factory

MODULE = """
from types import SimpleNamespace
import numpy as np
import torch
from torch import nn
from drawbench import Bernoulli, Dataset, Draw, Gaussian, Problem

class Line(nn.Module):
    def __init__(self, height=28, width=28, gain=1.0):
        super().__init__()
        self.gain, size = gain, height * width
        self.line = nn.Linear(size, 10)
        with torch.no_grad():
            self.line.weight.copy_(torch.sin(torch.arange(10.0 * size)).view(10, size))
            self.line.bias.zero_()
    def forward(self, images):
        return self.gain * self.line(images.flatten(1))

class Steps(Line):
    pixels_read, glimpses = 7, 2
    def forward(self, images, glimpses=2):
        last = super().forward(images)
        steps = [-last, last][-glimpses:] + [last] * (glimpses - 2)
        return SimpleNamespace(logits=torch.stack(steps, dim=1))

class Always(Line):
    def forward(self, images):
        return nn.functional.dropout(super().forward(images), 0.5)

class Centred(Line):
    def forward(self, images):
        logits = super().forward(images)
        return logits - logits.mean(0)

class InPlace(Line):
    def forward(self, images):
        return super().forward(images.sub_(0.1307).div_(0.3081))

class Late(Line):
    def forward(self, images):
        images.clamp_(0.1).mul_(2)
        return super().forward(images.resize_(len(images), 1, *images.shape[-2:]))

class Answer(nn.Module):
    def __init__(self, forward):
        super().__init__()
        self.forward = forward

def dropout():
    return nn.Sequential(Line(), nn.Dropout(0.5)).train()

transposed = lambda: Answer(lambda images: torch.zeros(10, len(images)))
def meta():
    with torch.device("meta"):
        return Line()

eleven = lambda: Answer(lambda images: torch.zeros(len(images), 11))
text = lambda: Answer(lambda images: "seven")
whole = lambda: Answer(lambda images: torch.zeros(len(images), 10, dtype=torch.long))
infinite = lambda: Answer(lambda images: torch.zeros(len(images), 10) / 0)
raising = lambda: Answer(lambda images: images @ torch.zeros(3, 3))
silent = lambda: Answer(lambda images: (_ for _ in ()).throw(AssertionError))
needs_more = lambda size: Line()
a_number = lambda: 7
constant = 7

def chatty():
    print("loading my model")
    return Line()

def unmade():
    raise LookupError("no settings\\nfound")

def frozen():
    return Line().requires_grad_(False)

class Constant(nn.Module):
    def forward(self, images):
        return torch.zeros(len(images), 10)

class Noting(Line):
    def get_extra_state(self):
        return {"seen": 3}
    def set_extra_state(self, state):
        pass

class PerImage(Line):
    def added_loss(self, record, labels):
        return record.logits.mean((1, 2))

class Backward(Line):
    def forward(self, images):
        logits = super().forward(images)
        if logits.requires_grad:
            logits.register_hook(self.refuse)
        return logits
    def refuse(self, gradient):
        raise ValueError("only backward")

class Uncopied(Line):
    def __init__(self):
        super().__init__()
        self.scaled = 2 * self.line.weight

class Painter(Draw):
    def __init__(self, height, width, channels, gain=1.0):
        super().__init__(height, width, channels, steps=2, hidden=8, latent=4)
        self.gain = gain
    def forward(self, images, noise, **others):
        return super().forward(self.gain * images, noise, **others)

class Blind(nn.Module):
    steps, latent = 2, 4
    def __init__(self, height, width, channels):
        super().__init__()
        self.painter = Painter(height, width, channels)
    def forward(self, images, noise):
        return self.painter(images, noise)

def without(name):
    def make(**facts):
        model = Painter(**facts)
        delattr(model, name)
        return model
    return make

no_steps, no_latent = without("steps"), without("latent")

class Levels(Draw):
    def __init__(self, height, width, channels):
        sizes = {"steps": 2, "hidden": 8, "latent": 4, "write_patch": None}
        super().__init__(height, width, channels, **sizes, likelihood="logistic")

class Untyped(Painter):
    def forward(self, images, noise):
        record = super().forward(images, noise)
        return SimpleNamespace(terms=lambda images: record.terms(images))

class Raises(Painter):
    def forward(self, images, noise, **others):
        if torch.is_grad_enabled():
            raise ValueError("only in training")
        return super().forward(images, noise, **others)

class NoTerms(Painter):
    def forward(self, images, noise):
        return images

class Shapeless(Painter):
    def forward(self, images, noise):
        record = super().forward(images, noise)
        return record._replace(posterior=Gaussian(*(one[:, :1] for one in record.posterior)))

class Infinite(Painter):
    def forward(self, images, noise):
        return super().forward(images, noise / 0)

def unlabelled():
    images = np.zeros((9, 28, 28), np.uint8)
    return Dataset.from_arrays("unlabelled", images, images, images)

def misshapen():
    return Dataset.from_arrays("misshapen", *3 * [(np.zeros((9, 28, 28)), np.zeros(9, int))])
"""


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """A folder with modules of the user's own, the working folder of all tests here."""
    home = tmp_path_factory.mktemp("user")
    (home / "mymodels.py").write_text(MODULE)
    (home / "broken.py").write_text("import no_such_thing\n")
    (home / "worse.py").write_text("1 / 0\n")
    return home


@pytest.fixture(autouse=True)
def place(home, place, tmp_path, monkeypatch):
    monkeypatch.chdir(home)
    monkeypatch.setattr(sys, "path", list(sys.path))
    yield place
    for name in ("mymodels", "broken", "worse"):
        sys.modules.pop(name, None)


TEST_FILE = flags(source="digits", canvas=28, clutter=1)
# Trained by the commands: options of our models do not apply.
OWN = {"hidden": None, "glimpses": None, "patch": None, "latent": None}
CLASSIFY = ["classify", "--model", "mymodels:Line", "--set", "gain=0.5", *tiny(**OWN)]
GENERATE = ["generate", "--model", "mymodels:Painter", *tiny(GENERATOR, **OWN)]
GENERATE += ["--pixels", "threshold", "--set", "gain=0.5"]


@pytest.fixture(scope="module")
def trained(home, datasets, tmp_path_factory):
    """A function that trains with some words, once for all tests, and returns the run folder."""
    places = flags(runs=tmp_path_factory.mktemp("runs"), datasets=datasets)
    return functools.cache(lambda *words: Path(answer(*words, *places)["run"]))


def evaluate(name, place, *more, run=drawbench):
    return run("evaluate", "--model", name, *TEST_FILE, *place, *more)


# -------------------------------------------------------------------------------- trained like ours


@pytest.mark.processes
@pytest.mark.parametrize("words", [CLASSIFY, GENERATE], ids=["classify", "generate"])
def test_an_interrupted_training_ends_the_same_to_the_bit(words, trained, place, tmp_path):
    """A real process is stopped by a real signal in the middle, and resumed here."""
    long = [*words, *flags(steps=150, evaluate_every=75, checkpoint_every=5)]
    succeeded(drawbench(*long, *place, "--run", "whole"))
    folder, places = tmp_path / "runs" / "stopped", [*place, "--run", "stopped"]
    process = subprocess.Popen([*MAIN, *long, *places], stderr=subprocess.PIPE, text=True)
    while not (folder / runs.LAST).exists() and process.poll() is None:
        time.sleep(0.01)
    process.send_signal(signal.SIGTERM)
    _, said = process.communicate(timeout=120)
    assert process.returncode == 143, said
    assert f"drawbench resume {folder}" in said.strip().splitlines()[-1]
    assert not (folder / "result.json").exists()
    failed(drawbench("resume", folder, *place[2:]), "--trust mymodels")
    succeeded(drawbench("resume", folder, *place[2:], "--trust", "mymodels"))
    same_run(folder, tmp_path / "runs" / "whole")


@pytest.mark.parametrize("words", [CLASSIFY, GENERATE], ids=["classify", "generate"])
def test_every_command_takes_the_run_of_a_users_model(words, trained, place, tmp_path):
    run = trained(*words)
    result, before = read_hashed(run / "result.json"), content(run)
    configuration = json.loads((run / "config.json").read_text())
    assert configuration["model"]["arguments"] == {"gain": 0.5}
    again = answer("evaluate", run, *place[2:], "--trust", "mymodels")
    assert again["value"] == pytest.approx(result["value"], rel=1e-6)
    assert "finished" in succeeded(drawbench("resume", run)).stderr
    succeeded(drawbench("tables", run, "--out", tmp_path / "out"))
    tables = [path.read_text() for path in (tmp_path / "out" / "tables").glob("*.csv")]
    assert any(words[2] in table for table in tables)
    half = ["--half", *place[2:], "--trust", "mymodels"]
    assert answer("export", run, tmp_path / "half", *half)["weights"] == "float16"
    succeeded(drawbench("export", run, tmp_path / "copy"))
    assert answer("compare", run, tmp_path / "copy")["p"] == 1
    assert content(run) == before


def test_weights_keep_the_names_of_the_network(trained):
    weights, _ = runs.Run.open(trained(*CLASSIFY)).load_best()
    assert sorted(weights) == ["line.bias", "line.weight"]
    model = tasks.load_run(trained(*CLASSIFY), trusted=["mymodels"]).model
    own = factory("mymodels:Line", ["mymodels"])(gain=0.5)
    own.load_state_dict(weights)
    images = torch.rand(3, 1, 28, 28, generator=torch.Generator().manual_seed(0))
    assert torch.equal(model(images).logits[:, -1], own(images))


def test_a_generator_that_cannot_sample_says_so(place, tmp_path):
    words = ["generate", "--model", "mymodels:Blind", *tiny(GENERATOR, **OWN), *place]
    folder = answer(*words, "--pixels", "threshold")["run"]
    failed(drawbench("generate", "--from", folder), "--trust mymodels")
    refused = drawbench("generate", "--from", folder, "--trust", "mymodels")
    failed(refused, "mymodels:Blind", "cannot draw without an image")


def test_what_raises_in_training_only_is_a_sentence(place):
    words = ["generate", "--model", "mymodels:Raises", *tiny(GENERATOR, **OWN), *place]
    refused = drawbench(*words, "--pixels", "threshold")
    failed(refused, "mymodels:Raises raised ValueError: only in training")


def test_a_generator_says_what_it_looks_through_and_what_its_pixels_are(place):
    given = [*tiny(GENERATOR, **OWN), *place]
    result = answer("generate", "--model", "mymodels:Levels", *given, "--pixels", "intensity")
    assert (result["attention"], result["likelihood"]) == ("read", "logistic")
    assert result["bits_per_dimension"] > 0 and "entropy_floor" not in result
    blind = ["generate", "--model", "mymodels:Blind", *given, "--pixels", "threshold"]
    result = answer(*blind, "--run", "blind")
    assert (result["attention"], result["likelihood"]) == (None, "bernoulli")


def test_a_classifier_of_steps_is_measured_with_other_numbers_of_them(place):
    words = ["classify", "--model", "mymodels:Steps", *tiny(**OWN), *place]
    result = answer(*words)
    assert (result["glimpses"], result["pixels_read"]) == (2, 7)
    assert len(result["errors_after_glimpse"]) == 2
    measuring = ["--glimpses", "1..3", "--trust", "mymodels", *place[2:]]
    rows = answer("evaluate", result["run"], *measuring)["curves"]["glimpses"]
    assert [row["glimpses"] for row in rows] == [1, 2, 3]
    assert rows[1]["error"] == result["value"]


def test_quickstart_takes_a_users_model(place):
    words = ["--model", "mymodels:Line", *flags(canvas=28, clutter=1, steps=2), *place]
    assert answer("quickstart", *words)["model"] == "mymodels:Line"


WRONG_DATA = {
    "mymodels:unlabelled": ["has no labels"],
    "mymodels:misshapen": ["part of misshapen", "uint8", "float64"],
    "mymodels:unmade": ["raised LookupError: no settings found"],
    "mymodels:a_number": ["returned int", "Dataset"],
    "mymodels:nothing": ["no function or class 'nothing'"],
}


def test_json_is_one_object_whatever_the_users_code_prints(place):
    result = evaluate("mymodels:chatty", place, "--json")
    assert "loading my model" in result.stderr
    assert json.loads(result.stdout)["model"] == "mymodels:chatty"


@pytest.mark.parametrize(("name", "words"), WRONG_DATA.items())
def test_a_wrong_data_set_is_a_sentence(place, tmp_path, name, words):
    failed(drawbench("classify", "--dataset", name, "--steps", 1, *place), *words)
    assert not (tmp_path / "runs").exists()


# ---------------------------------------------------------------------------------- what is trusted


@pytest.mark.parametrize("command", ["resume", "evaluate", "plot", "compare", "export"])
def test_the_run_of_a_stranger_imports_nothing(trained, tmp_path, command):
    run = Path(shutil.copytree(trained(*CLASSIFY), tmp_path / "run"))
    text = (run / "config.json").read_text()
    (run / "config.json").write_text(text.replace("mymodels:Line", "worse:Line"))
    (run / "best.safetensors").unlink()  # with the configuration in it
    if command == "resume":
        (run / "result.json").unlink()
    (run / "test.npz").unlink()
    others = {"compare": [run], "export": [tmp_path / "copy", "--half"]}.get(command, [])
    result = drawbench(command, run, *others)
    assert result.exit_code == 1
    assert "Traceback" not in result.stderr
    assert "worse" not in sys.modules


@pytest.mark.parametrize("name", ["mymodels:Line", "mymodels"])
def test_trust_is_for_a_module_or_for_one_factory_in_it(name):
    assert factory("mymodels:Line", [name]).__name__ == "Line"
    with pytest.raises(Problem, match="--trust mymodels"):
        factory("mymodels:Line", ["mymodels:Steps"])


def test_what_a_users_code_raises_is_its_own():
    with pytest.raises(Problem, match=r"mine raised SystemExit: 3 \(--debug"), blamed("mine"):
        raise SystemExit(3)
    with pytest.raises(Problem, match=r"^kept$"), blamed("mine"):
        raise Problem("kept")


# ------------------------------------------------------------------------------------ what is wrong

WRONG_CLASSIFIERS = {
    "mymodels:meta": ["meta device"],
    "mymodels:transposed": ["(10, 16)", "(16, 1, 28, 28)", "logits (16, 10)"],
    "mymodels:eleven": ["(16, 11)", "logits (16, 10)"],
    "mymodels:text": ["returned str", "logits (16, 10)"],
    "mymodels:whole": ["torch.int64", "floats"],
    "mymodels:infinite": ["not finite"],
    "mymodels:raising": ["called with images (16, 1, 28, 28), raised RuntimeError"],
    "mymodels:silent": ["raised AssertionError"],
    "mymodels:unmade": ["raised LookupError: no settings found"],
    "mymodels:a_number": ["type int", "torch.nn.Module"],
    "mymodels:needs_more": ["raised TypeError", "size"],
    "mymodels:constant": ["no function or class 'constant'"],
    "mymodels:nothing": ["no function or class 'nothing'"],
    "mymodels:Always": ["answers differently when it is asked twice", "dropout"],
    "mymodels:Centred": ["an image alone than among 16", "batch statistics"],
    "nomodels:Line": ["there is no module 'nomodels'"],
    "mymodels.deeper:Line": ["'mymodels.deeper'"],
    "broken:Line": ["module broken cannot be imported", "no_such_thing"],
    "worse:Line": ["module worse cannot be imported", "ZeroDivisionError"],
    "mymodels.py:": ["module:factory"],
    "../mymodels:Line": ["module:factory"],
}


@pytest.mark.parametrize(("name", "words"), WRONG_CLASSIFIERS.items())
def test_a_wrong_classifier_is_a_sentence(place, tmp_path, name, words):
    failed(evaluate(name, place), *words)
    failed(drawbench("classify", "--model", name, *tiny(**OWN), *place), *words)
    assert not (tmp_path / "runs").exists()


UNTRAINABLE = {
    "mymodels:frozen": ["no weights to train"],
    "mymodels:Constant": ["no weights to train"],
    "mymodels:Noting": ["cannot be saved: _extra_state is of type dict"],
    "mymodels:PerImage": ["mymodels:PerImage raised RuntimeError", "scalar"],
    "mymodels:Backward": ["mymodels:Backward raised ValueError: only backward"],
    "mymodels:Uncopied": ["mymodels:Uncopied raised RuntimeError", "deepcopy"],
}


@pytest.mark.parametrize(("name", "words"), UNTRAINABLE.items())
def test_what_cannot_be_trained_is_a_sentence(place, tmp_path, name, words):
    refused = drawbench("classify", "--model", name, *tiny(**OWN), *place)
    failed(refused, *words)
    assert not (tmp_path / "runs").exists()


WRONG_GENERATORS = {
    "mymodels:no_steps": ["'steps'"],
    "mymodels:no_latent": ["'latent'"],
    "mymodels:NoTerms": ["raised AttributeError", "terms"],
    "mymodels:Untyped": ["raised TypeError", "positional argument"],
    "mymodels:Levels": ["pixels of 256 levels", "black or white"],
    "mymodels:Shapeless": ["terms of shapes", "(16, 2)"],
    "mymodels:Infinite": ["not finite"],
    "mymodels:unmade": ["raised LookupError"],
    "mymodels:a_number": ["torch.nn.Module"],
    "mymodels:Line": ["'steps'"],
}


@pytest.mark.parametrize(("name", "words"), WRONG_GENERATORS.items())
def test_a_wrong_generator_is_a_sentence(place, tmp_path, name, words):
    given = tiny(GENERATOR, **OWN)
    refused = drawbench("generate", "--model", name, *given, "--pixels", "threshold", *place)
    failed(refused, *words)
    assert not (tmp_path / "runs").exists()


def test_a_wrong_argument_is_named(place):
    words = ["classify", "--model", "mymodels:Line", *tiny(**OWN), *place]
    failed(drawbench(*words, "--set", "depth=3"), "mymodels:Line raised TypeError", "depth")
    failed(drawbench(*words, "--set", "gain"), "NAME=VALUE", status=2)
    failed(drawbench(*words, "--set", "gain=inf"), "gain", "finite", status=2)
    failed(drawbench(*words, "--patch", 3), "--set patch", status=2)
    failed(drawbench("classify", *tiny(), *place, "--set", "gain=1"), "draw", status=2)


# ------------------------------------------------------------- a network that was trained elsewhere


def test_a_network_is_measured_like_every_other(place, tmp_path, datasets):
    result = evaluate("mymodels:Line", place, run=answer)
    folder = tmp_path / "runs" / "evaluate-mymodels-Line"
    assert read_hashed(folder / "result.json") | {"run": str(folder)} == result
    test = stored.load(datasets / "cluttered-28x28-1-digits", "test")
    weight = torch.sin(torch.arange(7840.0)).view(10, 784)
    answers = (as_images(torch.from_numpy(test.images)).flatten(1) @ weight.T).argmax(1).numpy()
    errors = int((answers != np.asarray(test.labels)).sum())
    assert (result["errors"], result["n"]) == (errors, len(test.images))
    costs = (result["parameters"], result["pixels_read"], result["multiply_adds"])
    assert costs == (7850, 784, 7840)
    assert (result["task"], result["dataset"]) == ("classify", "cluttered-28x28-1-digits")
    assert result["low"] < result["value"] < result["high"]
    config = runs.Run.open(folder).config
    assert (config.task, config.data.canvas, config.model.weights) == ("evaluate", 28, None)
    assert (folder / "figures" / "confusion.png").is_file()
    failed(drawbench("resume", folder), "trains nothing")
    failed(evaluate("mymodels:Line", place, "--run", folder.name), "a run; choose another name")
    again = "--run", folder.name, "--force"
    steps = evaluate("mymodels:Steps", place, *again, run=answer)
    assert (steps["value"], steps["pixels_read"]) == (result["value"], 7)
    succeeded(evaluate("mymodels:dropout", place))  # left in training mode; it is set right
    for name in ("InPlace", "Late"):  # what a network does to its input is its own affair
        succeeded(evaluate(f"mymodels:{name}", place))


def weights() -> dict[str, torch.Tensor]:
    values = torch.cos(torch.arange(7840.0)).view(10, 784)
    return {"line.weight": values, "line.bias": torch.arange(10.0)}


def test_weights_of_either_kind_are_loaded(place, tmp_path):
    save_file(weights(), tmp_path / "line.safetensors")
    torch.save(weights(), tmp_path / "line.pt")
    # The content decides, not the name.
    shutil.copy(tmp_path / "line.safetensors", tmp_path / "line.bin")
    shutil.copy(tmp_path / "line.pt", tmp_path / "swapped.safetensors")
    names = ("line.safetensors", "line.pt", "line.bin", "swapped.safetensors")
    files = [["--weights", tmp_path / name] for name in names]
    one, *others, untrained = (
        evaluate("mymodels:Line", place, *words, run=answer) for words in (*files, [])
    )
    assert all(other["confusion"] == one["confusion"] for other in others)
    assert one["confusion"] != untrained["confusion"]
    settings = runs.Run.open(Path(one["run"])).config.model
    assert settings.weights.endswith("line.safetensors")
    assert len(settings.weights_sha256) == 64


class Evil:
    """Runs when it is unpickled."""

    def __reduce__(self):
        return (exec, ("raise SystemExit('ran')",))


def flipped(path: Path) -> None:
    torch.save(weights(), path)
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def cut(path: Path) -> None:
    save = {".pt": torch.save, ".safetensors": save_file}[path.suffix]
    save(weights(), path)
    path.write_bytes(path.read_bytes()[:-900])


MISFIT = {"line.weight": torch.zeros(10, 783), "line.bias": torch.zeros(10)}
BAD_WEIGHTS = {
    "evil.pt": (lambda path: torch.save({"w": Evil()}, path), ["would have to be run"]),
    "empty.pt": (lambda path: path.write_bytes(b""), ["damaged"]),
    "cut.pt": (cut, ["damaged"]),
    "flipped.pt": (flipped, ["damaged", "checksum"]),
    "list.pt": (lambda path: torch.save([1, 2], path), ["does not hold tensors by name"]),
    "misfit.pt": (lambda path: torch.save(MISFIT, path), ["do not fit mymodels:Line", "783"]),
    "missing.pt": (lambda path: None, ["there is no file of weights"]),
    "cut.safetensors": (cut, ["damaged"]),
}


@pytest.mark.parametrize("file", BAD_WEIGHTS)
def test_bad_weights_are_named_and_nothing_in_them_runs(place, tmp_path, file):
    write, words = BAD_WEIGHTS[file]
    write(tmp_path / file)
    failed(evaluate("mymodels:Line", place, "--weights", tmp_path / file), *words)


OWN_MODEL = "--model mymodels:Line"
WRONG_USAGE = {
    "": "a run to measure again, or --model",
    f"somewhere {OWN_MODEL}": "not both",
    f"{OWN_MODEL} --glimpses 3": "--glimpses does not go with --model",
    f"{OWN_MODEL} --samples 3": "--samples does not go with --model",
    f"{OWN_MODEL} --processes 2": "--processes does not go with --model",
    "somewhere --force": "--force goes with --model only",
    f"{OWN_MODEL} --canvas 60,100": "one number, got 2",
    f"{OWN_MODEL} --canvas 20": "canvas must be at least 28",
    "--model mymodels": "module:factory",
    "somewhere --weights w.pt": "--weights goes with --model only",
    "somewhere --run name": "--run goes with --model only",
}


@pytest.mark.parametrize("words", WRONG_USAGE)
def test_wrong_usage_of_evaluate_is_named(words):
    result = drawbench("evaluate", *words.split())
    assert result.exit_code == 2
    assert WRONG_USAGE[words] in " ".join(result.stderr.split())
