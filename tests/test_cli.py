"""The drawbench command from end to end: what it prints where, what it writes, and how it says what
is wrong.
"""

import errno
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from click.testing import CliRunner, Result
from PIL import Image
from safetensors.torch import save_file

from drawbench import config, files, runs
from drawbench.cli import COMMANDS, cli
from drawbench.data import store
from drawbench.figures import run as run_figures

ROOT = Path(__file__).parent.parent
MAIN = [sys.executable, "-c", "from drawbench.cli import main; main()"]
# A network and a canvas so small that a whole run takes a second.
TINY = {
    "source": "digits",
    "canvas": 28,
    "clutter": 1,
    "glimpses": 2,
    "patch": 4,
    "hidden": 8,
    "batch": 16,
    "steps": 20,
    "evaluate_every": 10,
    "save_every": 5,
    "threads": 1,
}
RESULT_FIELDS = ["task", "model", "dataset", "source", "metric", "value", "low", "high", "n"]
RESULT_FIELDS += ["seed", "steps", "images_seen", "train_seconds", "command"]


def drawbench(*words, env: dict[str, str] | None = None) -> Result:
    """Run the command inside this process: importing torch again would take seconds."""
    return CliRunner().invoke(cli, [str(word) for word in words], prog_name="drawbench", env=env)


def flags(**settings) -> list[str]:
    return [
        word
        for name, value in settings.items()
        for word in (f"--{name.replace('_', '-')}", str(value))
    ]


def tiny(without: tuple[str, ...] = (), **changes) -> list[str]:
    return flags(
        **{name: value for name, value in {**TINY, **changes}.items() if name not in without}
    )


def succeeded(result: Result) -> Result:
    assert result.exit_code == 0, result.output + repr(result.exception)
    return result


def failed(result: Result, *words: str, status: int | tuple[int, ...] = 1) -> None:
    """One sentence on standard error that names what matters, nothing on standard output, an exit
    status and no traceback.
    """
    assert isinstance(result.exception, SystemExit), result.output + repr(result.exception)
    assert result.exit_code in ((status,) if isinstance(status, int) else status), result.output
    assert result.stdout == ""
    assert "Traceback" not in result.stderr
    lines = result.stderr.strip().splitlines()
    assert [line.startswith("Error: ") for line in lines].count(True) == 1, result.stderr
    assert lines[-1].startswith("Error: "), (
        result.stderr
    )  # the sentence is one line, and the last thing said
    for word in words:
        assert word in lines[-1]


def content(folder: Path) -> dict[str, bytes]:
    """Every file below a folder, but the lock, which holds nothing."""
    files = [path for path in sorted(folder.rglob("*")) if path.is_file() and path.name != ".lock"]
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


@pytest.fixture(scope="module")
def datasets(tmp_path_factory) -> Path:
    """A folder in which the first run makes the tiny data set, once for all tests."""
    return tmp_path_factory.mktemp("datasets")


@pytest.fixture(scope="module")
def finished(tmp_path_factory, datasets) -> tuple[Path, Result]:
    """A finished run and what its command printed, without figures, which take longer than all the
    rest.
    """
    runs_folder = tmp_path_factory.mktemp("runs")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            run_figures,
            "of_classifier",
            lambda *_: [runs_folder / "tiny" / "figures" / "learning_curve.png"],
        )
        return runs_folder / "tiny", drawbench(
            "classify", *tiny(), *flags(runs=runs_folder, run="tiny", datasets=datasets), "--json"
        )


@pytest.fixture
def place(tmp_path, datasets, monkeypatch) -> list[str]:
    """Flags that keep everything a command writes in folders of the test; figures are left out."""
    monkeypatch.setattr(run_figures, "of_classifier", lambda *_: [])
    monkeypatch.chdir(tmp_path)  # what a flag fails to catch must not land in the checkout
    return flags(runs=tmp_path / "runs", datasets=datasets)


@pytest.fixture
def run(tmp_path, finished) -> Path:
    """A copy of the finished run, to be damaged."""
    return Path(shutil.copytree(finished[0], tmp_path / "runs" / "copy"))


def same_run(left: Path, right: Path) -> None:
    """Two run folders hold the same training and the same result, to the bit."""
    for name in ("best.safetensors", "last.safetensors"):
        (tensors, _), (expected, _) = (
            runs.load_checkpoint(folder / name) for folder in (left, right)
        )
        assert tensors.keys() == expected.keys()
        assert all(torch.equal(tensors[key], expected[key]) for key in expected), name
    assert (left / "metrics.csv").read_bytes() == (right / "metrics.csv").read_bytes()
    results = [
        {**files.read_hashed(folder / "result.json"), "train_seconds": 0}
        for folder in (left, right)
    ]
    assert results[0] == results[1]


def used(result: Result, folder: Path) -> config.Classify:
    succeeded(result)
    return runs.Run.open(folder).config


# --------------------------------------------------------------------------------------------- help


@pytest.mark.parametrize("name", [*COMMANDS, "plot runs", "plot attention"])
def test_every_command_has_help_with_an_example(name):
    result = succeeded(drawbench(*name.split(), "--help"))
    assert "Usage: drawbench " + name in result.stdout
    assert (
        name not in COMMANDS
        or f"  drawbench {name}" in result.stdout[result.stdout.index("Example") :]
    )
    assert result.stderr == ""
    assert max(len(line) for line in result.stdout.splitlines()) <= 110


def test_the_list_of_commands_loads_no_torch():
    code = "import sys\nfrom drawbench.cli import main\ntry: main()\nfinally: print('torch' in sys.modules, file=sys.stderr)"
    done = subprocess.run([sys.executable, "-c", code, "--help"], capture_output=True, text=True)
    assert (done.returncode, done.stderr.strip()) == (0, "False")
    assert all(name in done.stdout for name in COMMANDS)


def test_the_launcher_of_a_checkout_is_the_command():
    done = subprocess.run(
        [sys.executable, "cli.py", "--version"], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 0
    assert done.stdout.startswith("drawbench ")


def test_a_long_word_is_not_repeated_whole():
    failed(drawbench("classify", "--canvas", "9" * 5000), "--canvas", "999 ... 999", status=2)


def test_wrong_usage_is_status_2():
    assert drawbench("clasify").exit_code == 2
    assert drawbench("classify", "--glimpse").exit_code == 2
    assert drawbench("classify", "extra").exit_code == 2
    assert drawbench("evaluate").exit_code == 2


# ---------------------------------------------------------------------------------------- make-data


@pytest.mark.parametrize(("dataset", "digits"), [("cluttered", 1), ("mnist2", 2)])
def test_make_data_writes_a_set_that_plain_numpy_reads(tmp_path, dataset, digits):
    words = flags(
        source="digits", canvas=40, train=8, validation=3, test=5, seed=4, out=tmp_path / "set"
    )
    result = succeeded(drawbench("make-data", dataset, *words, "--json"))
    card = json.loads(result.stdout)
    assert card.pop("folder") == str(tmp_path / "set")
    assert card == json.loads((tmp_path / "set" / "card.json").read_text())
    assert (card["seed"], card["counts"]) == (4, {"train": 8, "validation": 3, "test": 5})
    with np.load(tmp_path / "set" / "test.npz", allow_pickle=False) as arrays:
        assert arrays["images"].shape == (5, 40, 40)
        assert arrays["boxes"].shape == (5, digits, 4)
    with Image.open(tmp_path / "set" / "montage.png") as montage:
        assert min(montage.size) > 100


def test_make_data_keeps_what_is_there(tmp_path):
    words = [
        "make-data",
        "cluttered",
        *flags(source="digits", canvas=28, train=4, validation=4, test=4, out=tmp_path / "set"),
    ]
    succeeded(drawbench(*words))
    before = content(tmp_path / "set")
    assert "kept" in succeeded(drawbench(*words)).stderr
    failed(drawbench(*words, "--seed", 1), "another data set", "--force")
    assert content(tmp_path / "set") == before
    succeeded(drawbench(*words, "--seed", 1, "--force"))
    assert content(tmp_path / "set") != before


def test_make_data_never_takes_the_folder_of_a_run(run):
    before = content(run)
    failed(
        drawbench("make-data", "cluttered", *flags(source="digits", canvas=28, test=4, out=run)),
        "a run",
    )
    assert content(run) == before


@pytest.mark.parametrize(
    ("words", "names"),
    [
        (["--canvas", 27], ["canvas", "28", "27"]),
        (["--canvas", 0], ["canvas", "28"]),
        (["--canvas", 5000], ["canvas", "4096"]),
        (["--clutter", -1], ["clutter", "-1"]),
        (["--clutter-size", 29], ["clutter_size", "28"]),
        (["--digits", 0], ["digits", "0"]),
        (["--train", 0], ["--train", "0"]),
        (["--test", -3], ["--test", "-3"]),
        (["--seed", -1], ["--seed", "-1"]),
        (["--canvas", "wide"], ["--canvas", "wide"]),
        (["--recipe", "cluttered-80"], ["cluttered-80", "did you mean 'cluttered-60'"]),
    ],
)
def test_make_data_refuses_what_cannot_be_made(tmp_path, words, names):
    failed(
        drawbench(
            "make-data", "cluttered", "--source", "digits", *words, "--out", tmp_path / "set"
        ),
        *names,
        status=2,
    )
    assert not any(tmp_path.iterdir())


# ----------------------------------------------------------------------------------------- classify


def test_json_is_one_object_on_standard_output_and_nothing_else(finished):
    folder, result = finished
    printed = json.loads(succeeded(result).stdout)  # refuses a second object
    assert result.stdout.count("\n") == 1
    assert printed.pop("run") == str(folder)
    assert printed == files.read_hashed(folder / "result.json")
    assert "validation error" in result.stderr  # progress, for people


def test_the_result_has_every_field_of_the_contract(finished):
    result = json.loads((finished[0] / "result.json").read_text())
    assert set(RESULT_FIELDS) <= set(result)
    assert (result["task"], result["model"], result["source"], result["metric"]) == (
        "classify",
        "draw",
        "digits",
        "test_error_percent",
    )
    assert (result["n"], result["seed"], result["steps"], result["images_seen"]) == (
        400,
        0,
        20,
        320,
    )
    assert 0 <= result["low"] <= result["value"] <= result["high"] <= 100
    assert result["value"] == 100 * result["errors"] / result["n"]
    assert result["command"].startswith("drawbench")
    assert np.sum(result["confusion"]) == 400


def test_a_run_folder_holds_everything(finished):
    folder, _ = finished
    assert {
        "config.json",
        "environment.json",
        "metrics.csv",
        "result.json",
        "last.safetensors",
        "best.safetensors",
    } <= set(content(folder))
    assert not list(folder.glob(".*.tmp"))
    settings = json.loads((folder / "config.json").read_text())
    flat = {
        name: value
        for section in settings.values()
        if isinstance(section, dict)
        for name, value in section.items()
    }
    assert flat.items() >= TINY.items()
    assert list(pd.read_csv(folder / "metrics.csv")["step"]) == [10, 20]
    assert {"python", "torch", "commit", "device", "threads", "command"} <= set(
        json.loads((folder / "environment.json").read_text())
    )


def test_what_a_person_reads_names_the_number_and_its_doubt(place):
    text = succeeded(drawbench("classify", *tiny(), *place)).stdout
    assert "test error %" in text
    assert "95 % interval" in text
    assert "not MNIST" in text
    assert str(Path("runs") / "classify-draw-2-seed0") in text


def test_the_same_command_gives_the_same_run(finished, place, tmp_path):
    succeeded(drawbench("classify", *tiny(), *place, "--run", "again"))
    first, again = content(finished[0]), content(tmp_path / "runs" / "again")
    assert first["metrics.csv"] == again["metrics.csv"]
    results = [
        {**files.read_hashed(folder / "result.json"), "train_seconds": 0}
        for folder in (finished[0], tmp_path / "runs" / "again")
    ]
    assert results[0] == results[1]
    tensors = [
        runs.load_checkpoint(folder / "best.safetensors")[0]
        for folder in (finished[0], tmp_path / "runs" / "again")
    ]
    assert all(torch.equal(tensors[0][name], tensors[1][name]) for name in tensors[0])


def test_another_seed_gives_another_run(finished, place, tmp_path):
    succeeded(drawbench("classify", *tiny(), *place, "--run", "other", "--seed", 1))
    assert (
        content(finished[0])["metrics.csv"] != content(tmp_path / "runs" / "other")["metrics.csv"]
    )


def test_stored_training_images_can_be_used(place, tmp_path):
    result = succeeded(
        drawbench("classify", *tiny(steps=2), *place, "--fixed-train", "--run", "fixed", "--json")
    )
    assert json.loads(result.stdout)["clutter"] == "fixed"


def test_flag_before_environment_before_recipe_before_default(place, tmp_path):
    recipe = tmp_path / "mine.toml"
    recipe.write_text("[model]\nglimpses = 3\n[training]\nbatch = 8\nsteps = 2\nseed = 5\n")
    environment = {"DRAWBENCH_CLASSIFY_GLIMPSES": "1", "DRAWBENCH_CLASSIFY_BATCH": "4"}
    words = ["classify", *tiny(without=("glimpses", "batch", "steps")), *place, "--run", "one"]
    folder = tmp_path / "runs" / "one"

    all_four = used(drawbench(*words, *flags(recipe=recipe, batch=2), env=environment), folder)
    assert (all_four.training.batch, all_four.model.glimpses, all_four.training.seed) == (2, 1, 5)
    assert all_four.training.warmup == config.Training().warmup
    no_flag = used(drawbench(*words, *flags(recipe=recipe), "--force", env=environment), folder)
    assert (no_flag.training.batch, no_flag.model.glimpses) == (4, 1)
    only_recipe = used(drawbench(*words, *flags(recipe=recipe), "--force"), folder)
    assert (only_recipe.training.batch, only_recipe.model.glimpses) == (8, 3)


def test_a_length_given_replaces_the_length_of_the_recipe(place, tmp_path):
    recipe = tmp_path / "long.toml"
    recipe.write_text("[training]\ntime_budget = 60.0\n")
    chosen = used(
        drawbench("classify", *tiny(steps=2), *place, "--recipe", recipe, "--run", "short"),
        tmp_path / "runs" / "short",
    )
    assert chosen.training.steps == 2


def test_epochs_become_steps(place, tmp_path):
    words = [*tiny(without=("steps", "evaluate_every")), "--epochs", 0.02]
    chosen = used(
        drawbench("classify", *words, *place, "--run", "epochs"), tmp_path / "runs" / "epochs"
    )
    assert (chosen.training.steps, chosen.training.epochs) == (
        2,
        None,
    )  # 0.02 of 1197 digits in batches of 16


# ---- what is wrong with a setting


@pytest.mark.parametrize(
    ("recipe", "names"),
    [
        ("[model]\nglimpse = 4\n", ["glimpse", "did you mean 'glimpses'"]),
        ("[training]\nlearning-rate = 0.1\n", ["did you mean 'learning_rate'"]),
        ("[modle]\nglimpses = 4\n", ["modle", "did you mean 'model'"]),
        ("[model]\nglimpses = 4.5\n", ["glimpses", "int", "4.5"]),
        ("[model]\nglimpses = true\n", ["glimpses", "int"]),
        ("[model]\nglimpses = '4'\n", ["glimpses", "int"]),
        ("[model]\nmodel = 'drow'\n", ["drow", "did you mean 'draw'"]),
        ("[training]\nlearning_rate = nan\n", ["learning_rate", "nan"]),
        ("[training]\nbatch = 0\n", ["batch", "at least 1"]),
        ("model = 3\n", ["model", "section"]),
        ("[model\n", ["TOML"]),
        ("\0", ["TOML"]),
        ("[data]\nclutter = -1\n", ["clutter", "-1"]),
    ],
)
def test_a_wrong_recipe_is_named_before_anything_is_done(place, tmp_path, recipe, names):
    (tmp_path / "mine.toml").write_text(recipe)
    words = tiny(without=("glimpses", "batch", "clutter"))
    failed(
        drawbench("classify", *words, *place, "--recipe", tmp_path / "mine.toml"), *names, status=2
    )
    assert [path.name for path in tmp_path.iterdir()] == ["mine.toml"]


@pytest.mark.parametrize("recipe", ["paper8", "nowhere.toml", "/"])
def test_a_missing_recipe_says_which_there_are(place, recipe):
    failed(
        drawbench("classify", *tiny(), *place, "--recipe", recipe),
        "there is no recipe",
        "paper-8",
        status=2,
    )


@pytest.mark.parametrize(
    ("words", "names"),
    [
        (["--glimpses", "many"], ["--glimpses", "many"]),
        (["--glimpses", 0], ["glimpses", "at least 1"]),
        (["--glimpses", 2.5], ["--glimpses", "2.5"]),
        (["--canvas", 20], ["canvas", "28", "20"]),
        (["--clutter", -2], ["clutter", "-2"]),
        (["--batch", 0], ["batch", "at least 1"]),
        (["--steps", 0], ["steps", "at least 1"]),
        (["--steps", -5], ["steps", "-5"]),
        (["--learning-rate", "nan"], ["learning_rate", "nan"]),
        (["--learning-rate", -1], ["learning_rate", "-1"]),
        (["--seed", -1], ["seed", "-1"]),
        (["--threads", 0], ["threads", "at least 1"]),
        (["--threads", 100_000], ["threads", "at most 1024"]),
        (["--model", "drow"], ["--model", "drow"]),
        (["--device", "tpu"], ["--device", "tpu"]),
        (["--source", "cifar"], ["--source", "cifar"]),
    ],
)
def test_a_wrong_setting_is_wrong_usage(place, tmp_path, words, names):
    failed(drawbench("classify", *tiny(), *words, *place), *names, status=2)
    assert not any(tmp_path.iterdir())


@pytest.mark.parametrize(
    "words",
    [["--epochs", "inf"], ["--time-budget", "inf"], ["--epochs", "nan"], ["--time-budget", 0]],
)
def test_a_length_without_end_is_refused(place, tmp_path, words):
    failed(
        drawbench("classify", *tiny(without=("steps",)), *words, *place),
        words[0][2:].replace("-", "_"),
        status=(1, 2),
    )
    assert not any(tmp_path.iterdir())


@pytest.mark.parametrize(
    "words", [["--epochs", 1], ["--time-budget", 1], ["--epochs", 1, "--time-budget", 1]]
)
def test_two_lengths_at_once_are_one_too_many(place, tmp_path, words):
    failed(
        drawbench("classify", *tiny(), *words, *place),
        "one length",
        "--steps",
        words[0],
        status=(1, 2),
    )
    assert not any(tmp_path.iterdir())


def test_a_recipe_with_two_lengths_is_refused(place, tmp_path):
    (tmp_path / "mine.toml").write_text("[training]\nsteps = 5\nepochs = 1\n")
    failed(
        drawbench(
            "classify", *tiny(without=("steps",)), *place, "--recipe", tmp_path / "mine.toml"
        ),
        "--steps and --epochs",
        status=2,
    )


def test_a_wrong_environment_is_wrong_usage(place):
    environment = {"DRAWBENCH_CLASSIFY_GLIMPSES": "several"}
    failed(
        drawbench("classify", *tiny(without=("glimpses",)), *place, env=environment),
        "several",
        status=2,
    )


def test_cuda_that_is_not_there_is_said(place, tmp_path, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    failed(
        drawbench("classify", *tiny(), *place, "--device", "cuda"), "--device cuda", "--device auto"
    )
    assert not any(tmp_path.iterdir())


def test_a_classifier_names_one_digit(place, tmp_path):
    recipe = tmp_path / "pairs.toml"
    recipe.write_text("[data]\ndigits = 2\n")
    failed(drawbench("classify", *tiny(), *place, "--recipe", recipe), "one digit")


def test_a_recipe_of_another_command_is_named(place):
    failed(
        drawbench("classify", *tiny(), *place, "--recipe", "mnist2"), "drawbench generate", status=2
    )


@pytest.mark.parametrize("name", ["a/b", "../up", "", ".", "..", ".hidden", "/tmp/absolute"])
def test_a_run_name_is_one_word(place, tmp_path, name):
    failed(drawbench("classify", *tiny(), *place, "--run", name), "--runs DIR", status=(1, 2))
    assert not any(tmp_path.iterdir())


def test_a_run_name_may_be_too_long_for_the_disk(place, tmp_path):
    failed(drawbench("classify", *tiny(), *place, "--run", 300 * "x"), "too long")


# ---- what is there already


def test_an_existing_run_is_kept_without_force(place, run):
    before = content(run)
    failed(drawbench("classify", *tiny(), *place, "--run", run.name), "drawbench resume", "--force")
    assert content(run) == before


def test_force_starts_a_run_anew_and_keeps_no_measurement_of_the_old(place, run):
    (run / "notes.txt").write_text("mine")
    (run / "error_against_clutter.csv").write_text("of the old weights")
    (run / "figures" / "old.png").write_bytes(b"")
    succeeded(drawbench("classify", *tiny(steps=2), *place, "--run", run.name, "--force"))
    left = content(run)
    assert left["notes.txt"] == b"mine"
    assert "error_against_clutter.csv" not in left
    assert "figures/old.png" not in left
    assert json.loads(left["result.json"])["steps"] == 2


def test_a_run_without_a_name_takes_a_free_one(place, tmp_path):
    for expected in ("classify-draw-2-seed0", "classify-draw-2-seed0-2"):
        assert (
            Path(
                json.loads(
                    succeeded(drawbench("classify", *tiny(steps=1), *place, "--json")).stdout
                )["run"]
            ).name
            == expected
        )


@pytest.mark.parametrize(
    "name", ["thesis.tex", ".hidden", "environment.json", "figures/drawing.png"]
)
@pytest.mark.parametrize("force", [[], ["--force"]])
def test_a_folder_of_something_else_is_never_touched(place, tmp_path, name, force):
    other = tmp_path / "runs" / "other"
    (other / name).parent.mkdir(parents=True)
    (other / name).write_text("years of work")
    failed(
        drawbench("classify", *tiny(), *place, "--run", "other", *force),
        "not a run folder",
        "--run",
    )
    assert content(other) == {name: b"years of work"}


def test_a_file_in_the_way_is_said(place, tmp_path):
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / "file").write_text("mine")
    failed(drawbench("classify", *tiny(), *place, "--run", "file"), "not a run folder")
    failed(
        drawbench("classify", *tiny(), *place, "--runs", tmp_path / "runs" / "file"),
        "file",
        status=(1, 2),
    )
    assert (tmp_path / "runs" / "file").read_text() == "mine"


def test_force_does_not_take_a_folder_from_a_process_that_works_in_it(place, run):
    before = content(run)
    with runs.Run.open(run).locked():
        failed(
            drawbench("classify", *tiny(), *place, "--run", run.name, "--force"), "another process"
        )
    assert content(run) == before


# ---- disks


@pytest.fixture
def disk(monkeypatch):
    """Make the disk fail, by an error number, for files whose name holds a word. (Permissions would
    not stop a superuser.)
    """
    real = os.replace

    def fail(number: int, word: str) -> None:
        def replace(source, target, **words):
            if word in Path(target).name:
                raise OSError(number, os.strerror(number), str(target))
            return real(source, target, **words)

        monkeypatch.setattr(os, "replace", replace)

    return fail


@pytest.mark.parametrize(
    "name", ["config.json", "best.safetensors", "last.safetensors", "metrics.csv", "result.json"]
)
@pytest.mark.parametrize(
    ("number", "words"), [(errno.EROFS, "Read-only"), (errno.ENOSPC, "No space left")]
)
def test_a_disk_that_refuses_is_said(place, disk, tmp_path, name, number, words):
    disk(number, name)
    failed(drawbench("classify", *tiny(), *place, "--run", "one"), words, name)
    assert not [path for path in content(tmp_path / "runs") if path.endswith(".tmp")]


def test_a_disk_that_refuses_curves_and_figures_is_said(run, datasets, disk):
    before = content(run)
    disk(errno.EROFS, "error_against")
    failed(
        drawbench("evaluate", run, "--glimpses", 1, "--datasets", datasets),
        "Read-only",
        "error_against",
    )
    disk(errno.EROFS, "learning_curve")
    failed(drawbench("plot", run, "--datasets", datasets), "Read-only", "learning_curve")
    assert content(run) == before


def test_a_full_disk_loses_nothing_and_the_run_goes_on_later(
    place, finished, tmp_path, disk, monkeypatch
):
    with monkeypatch.context():
        disk(errno.ENOSPC, "metrics.csv")
        failed(drawbench("classify", *tiny(), *place, "--run", "one"), "No space left")
    monkeypatch.undo()
    monkeypatch.setattr(run_figures, "of_classifier", lambda *_: [])
    succeeded(drawbench("resume", tmp_path / "runs" / "one", *place[2:]))
    assert (tmp_path / "runs" / "one" / "metrics.csv").read_bytes() == (
        finished[0] / "metrics.csv"
    ).read_bytes()


def test_a_read_only_place_for_runs_is_said_before_the_training(place, tmp_path, monkeypatch):
    real = Path.mkdir

    def mkdir(self, *words, **more):
        if "runs" in self.parts:
            raise OSError(errno.EROFS, "Read-only file system", str(self))
        return real(self, *words, **more)

    monkeypatch.setattr(Path, "mkdir", mkdir)
    failed(drawbench("classify", *tiny(), *place), "Read-only file system", "--runs DIR")
    assert not (tmp_path / "runs").exists()


# --------------------------------------------------------------------------- evaluate, plot, doctor


def test_evaluate_gives_the_number_of_the_run(finished, place):
    folder, _ = finished
    before = content(folder)
    result = json.loads((folder / "result.json").read_text())
    for batch in (400, 37):
        measured = json.loads(
            succeeded(drawbench("evaluate", folder, *place[2:], "--json", "--batch", batch)).stdout
        )
        for name in (
            "metric",
            "value",
            "low",
            "high",
            "n",
            "errors",
            "per_class_error",
            "confusion",
        ):
            assert measured[name] == result[name]
        assert measured["curves"] == {}
    text = succeeded(drawbench("evaluate", folder, *place[2:])).stdout
    assert f"{result['value']:.2f} %" in text
    assert content(folder) == before


def test_compare_measures_what_a_run_does_not_say(finished, run, datasets, tmp_path):
    kept = (run / "test.npz").read_bytes()
    (run / "test.npz").unlink()
    answer = succeeded(drawbench("compare", finished[0], run, "--datasets", datasets, "--json"))
    found = json.loads(answer.stdout)
    assert found["difference"] == 0 and found["p"] == 1 and "measuring it" in answer.stderr
    assert found["values"][0] == json.loads((run / "result.json").read_text())["value"]
    assert (run / "test.npz").read_bytes() == kept


def test_evaluate_outside_the_training_conditions(run, place):
    words = [*flags(clutter="0,1", canvas="28..32..4", glimpses="1..3"), "--json"]
    measured = json.loads(succeeded(drawbench("evaluate", run, *place[2:], *words)).stdout)
    expected = {"clutter": [0, 1], "canvas": [28, 32], "glimpses": [1, 2, 3]}
    for condition, values in expected.items():
        rows = measured["curves"][condition]
        assert [row[condition] for row in rows] == values
        # In the condition of the training these are the images of the test file, so it is the same
        # error, not one like it.
        trained = next(row for row in rows if row[condition] == TINY[condition])
        assert trained["error"] == measured["value"]
        assert [trained[name] for name in ("low", "high", "n")] == [
            measured[name] for name in ("low", "high", "n")
        ]
        table = pd.read_csv(run / f"error_against_{condition}.csv")
        assert table.to_dict("records") == rows
        with Image.open(run / "figures" / f"error_against_{condition}.png") as picture:
            assert min(picture.size) > 100


@pytest.mark.parametrize(
    ("words", "names", "status"),
    [
        (["--clutter", -1], ["--clutter", "-1"], 2),
        (["--glimpses", 0], ["--glimpses", "0"], 2),
        (["--glimpses", "1..x"], ["1..x"], 2),
        (["--glimpses", "8..1"], ["8..1"], 2),
        (["--glimpses", ""], ["--glimpses"], 2),
        (["--canvas", 20], ["canvas", "28", "20"], (1, 2)),
        (["--batch", 0], ["--batch"], 2),
    ],
)
def test_evaluate_refuses_what_cannot_be_measured(run, place, words, names, status):
    before = content(run)
    failed(drawbench("evaluate", run, *place[2:], *words), *names, status=status)
    assert content(run) == before


def test_plot_draws_everything_of_a_run(run, datasets):
    figures = json.loads(
        succeeded(drawbench("plot", run, "--datasets", datasets, "--json")).stdout
    )["figures"][str(run)]
    names = {Path(path).name for path in figures}
    assert {"learning_curve.png", "confusion.png", "glimpses_1.png", "glimpses.gif"} <= names
    for path in figures:
        assert Path(path).parent == run / "figures"
        with Image.open(path) as picture:
            assert getattr(picture, "n_frames", 1) == (
                TINY["glimpses"] if path.endswith(".gif") else 1
            )


def test_plot_attention_explains_a_window(tmp_path):
    out = tmp_path / "made" / "zoom.png"
    result = succeeded(
        drawbench("plot", "attention", *flags(window="0.2,-0.3,0,-1,0", patch=3, out=out), "--json")
    )
    assert json.loads(result.stdout) == {"figures": [str(out)]}
    with Image.open(out) as picture:
        assert min(picture.size) > 100


@pytest.mark.parametrize(
    ("words", "names", "status"),
    [
        (["--window", "1,2,3"], ["1,2,3", "five numbers"], 2),
        (["--window", "0,0,0,0,nan"], ["five numbers"], 2),
        (["--window", "0,0,0,0,inf"], ["five numbers"], 2),
        (["--patch", 0], ["--patch"], 2),
        (["--out", "zoom.docx"], [".png", "zoom.docx"], 2),
        (["--image", "nowhere.png"], ["nowhere.png", "No such file"], 1),
        (["--image", "text.png"], ["text.png", "not a picture"], 1),
    ],
)
def test_plot_attention_refuses_what_cannot_be_drawn(tmp_path, monkeypatch, words, names, status):
    monkeypatch.chdir(tmp_path)
    Path("text.png").write_text("not a picture at all")
    failed(drawbench("plot", "attention", *words), *names, status=status)
    assert [path.name for path in tmp_path.iterdir()] == ["text.png"]


def test_doctor_tells_what_is_there_and_what_to_do(tmp_path):
    text = succeeded(drawbench("doctor", "--sources", tmp_path)).stdout
    assert all(
        word in text
        for word in (
            "python",
            "torch",
            "cpu",
            "mnist",
            "digits",
            "missing",
            "verified",
            str(tmp_path),
        )
    )
    found = json.loads(succeeded(drawbench("doctor", "--sources", tmp_path, "--json")).stdout)
    states = {source["name"]: source["state"] for source in found["data"]}
    assert (states["digits"], states["mnist"]) == ("verified", "missing")
    assert all(source["advice"] for source in found["data"] if source["state"] == "missing")
    assert not any(tmp_path.iterdir())


def test_doctor_names_a_damaged_file(tmp_path):
    raw = tmp_path / "MNIST" / "raw"
    raw.mkdir(parents=True)
    for name in (
        "train-images-idx3-ubyte",
        "train-labels-idx1-ubyte",
        "t10k-images-idx3-ubyte",
        "t10k-labels-idx1-ubyte",
    ):
        (raw / name).write_bytes(b"garbled")
    found = json.loads(succeeded(drawbench("doctor", *flags(sources=tmp_path), "--json")).stdout)
    assert (
        next(source["state"] for source in found["data"] if source["name"] == "mnist") == "damaged"
    )


# --------------------------------------------------------------------------- run folders gone wrong

READERS = ["evaluate", "resume", "plot"]


@pytest.mark.parametrize("command", READERS)
def test_a_run_that_is_not_there_is_said(place, tmp_path, command):
    failed(drawbench(command, tmp_path / "nowhere", *place[2:]), "no run folder", "nowhere")
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "thesis.tex").write_text("years of work")
    failed(drawbench(command, tmp_path / "other", *place[2:]), "not a run folder")
    failed(drawbench(command, tmp_path / "other" / "thesis.tex", *place[2:]), "thesis.tex")
    assert content(tmp_path) == {"other/thesis.tex": b"years of work"}


@pytest.mark.parametrize("command", READERS)
@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        '{"task": "generate"}',
        '{"task": "make-data"}',
        '{"task": "classify"}',
        '{"task": "classify", "model": {"glimpse": 8}}',
        '{"name": "a package of another tool"}',
    ],
)
def test_a_foreign_config_is_said(place, run, command, text):
    (run / "config.json").write_text(text)
    before = content(run)
    failed(drawbench(command, run, *place[2:]), run.name)
    assert content(run) == before


@pytest.mark.parametrize("command", READERS)
def test_weights_of_another_model_are_said(place, run, command):
    settings = json.loads((run / "config.json").read_text())
    settings["model"]["hidden"] = 9
    (run / "config.json").write_text(json.dumps(settings))
    before = content(run)
    failed(drawbench(command, run, *place[2:]), "config")
    assert content(run) == before


DAMAGE = {
    "empty": lambda content: b"",
    "cut": lambda content: content[: len(content) // 2],
    "flipped": lambda content: content[:-3] + bytes([content[-3] ^ 4]) + content[-2:],
    "garbled": lambda content: os.urandom(400),
}


@pytest.mark.parametrize("command", ["evaluate", "plot"])
@pytest.mark.parametrize("damage", DAMAGE)
def test_damaged_weights_are_never_measured(place, run, command, damage):
    path = run / "best.safetensors"
    path.write_bytes(DAMAGE[damage](path.read_bytes()))
    before = content(run)
    failed(drawbench(command, run, *place[2:]), "best.safetensors", "damaged")
    assert content(run) == before


@pytest.mark.parametrize("name", ["best.safetensors", "last.safetensors"])
def test_a_foreign_safetensors_file_is_said(place, run, name):
    save_file({"weight": torch.ones(3)}, run / name)
    result = drawbench("evaluate" if name.startswith("best") else "resume", run, *place[2:])
    if name.startswith("best"):
        failed(result, name, "not a checkpoint of drawbench")
    else:
        assert "not a checkpoint of drawbench" in succeeded(result).stderr


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_state_gives_the_one_before_and_the_same_run(place, run, finished, damage):
    path = run / "last.safetensors"
    path.write_bytes(DAMAGE[damage](path.read_bytes()))
    result = succeeded(drawbench("resume", run, *place[2:]))
    assert "last.safetensors" in result.stderr
    assert "taking the one before" in result.stderr
    same_run(run, finished[0])


def test_without_a_sound_state_nothing_is_overwritten(place, run):
    for name in ("last.safetensors", "previous.safetensors"):
        (run / name).write_bytes(b"rubbish")
    before = content(run)
    failed(drawbench("resume", run, *place[2:]), "no checkpoint", "--force")
    assert content(run) == before


@pytest.mark.parametrize("command", ["evaluate", "plot"])
def test_a_run_without_weights_says_how_to_go_on(place, run, command):
    (run / "best.safetensors").unlink()
    failed(drawbench(command, run, *place[2:]), "no best.safetensors", "train it again")
    (run / "result.json").unlink()  # as in a run that is not finished
    failed(drawbench(command, run, *place[2:]), "no best.safetensors yet", "drawbench resume")


FOREIGN = {
    "result.json": [None, "", "{", "{}", "[]", '{"confusion": "none"}', '{"confusion": [[1, 2]]}'],
    "metrics.csv": [
        None,
        "",
        "\0\0",
        "a,b\n1,2\n",
        "step\nx\n",
        "images_seen,train_loss,validation_error,learning_rate\nx,y,z,w\n",
    ],
}


@pytest.mark.parametrize(
    ("name", "text"), [(name, text) for name, texts in FOREIGN.items() for text in texts]
)
def test_plot_names_a_file_that_is_missing_or_damaged(run, datasets, name, text):
    (run / name).unlink()
    if text is not None:
        (run / name).write_text(text)
    failed(drawbench("plot", run, "--datasets", datasets), name)


def test_resuming_a_finished_run_writes_lost_tables_again(place, run):
    before = content(run)
    for name in ("metrics.csv", "result.json"):
        (run / name).unlink()
    succeeded(drawbench("resume", run, *place[2:]))
    after = content(run)
    assert after["metrics.csv"] == before["metrics.csv"]
    assert json.loads(after["result.json"])["value"] == json.loads(before["result.json"])["value"]


def test_a_damaged_data_set_is_said(place, run, datasets, tmp_path):
    copy = Path(shutil.copytree(datasets, tmp_path / "datasets"))
    (test_file := next(copy.glob("*/test.npz"))).write_bytes(test_file.read_bytes()[:-100])
    for command in READERS:
        failed(drawbench(command, run, "--datasets", copy), "test.npz", "damaged")


def test_a_missing_data_set_is_made_on_the_way(run, place, tmp_path):
    measured = succeeded(drawbench("evaluate", run, "--datasets", tmp_path / "elsewhere", "--json"))
    assert "Making" in measured.stderr
    assert store.card(next((tmp_path / "elsewhere").iterdir()))["counts"]["test"] == 400
    assert (
        json.loads(measured.stdout)["value"]
        == json.loads((run / "result.json").read_text())["value"]
    )


def test_debug_shows_the_traceback(tmp_path):
    result = drawbench("evaluate", tmp_path / "nowhere", "--debug")
    assert not isinstance(result.exception, SystemExit)
    assert "no run folder" in str(result.exception)


# --------------------------------------------------------------------------------------- quickstart


@pytest.mark.slow
def test_quickstart_is_the_whole_tour(tmp_path):
    words = [
        "quickstart",
        *flags(steps=60, threads=1, runs=tmp_path / "runs", datasets=tmp_path / "datasets"),
    ]
    done = subprocess.run([*MAIN, *words], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert all(
        word in done.stdout
        for word in (
            "test error %",
            "95 % interval",
            "majority class %",
            "chance %",
            "glimpses.gif",
        )
    )
    assert "What to try next" in done.stderr
    assert (tmp_path / "runs" / "quickstart" / "figures" / "glimpses.gif").stat().st_size > 1000
