"""The drawbench command from end to end: what it prints where, what it writes, what it refuses."""

import errno
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from commands import (
    CLASSIFIER,
    GENERATOR,
    MAIN,
    answer,
    content,
    drawbench,
    failed,
    flags,
    same_run,
    snapshot,
    succeeded,
    tiny,
)
from PIL import Image
from safetensors.torch import save_file

from drawbench import config, fast, files, runs
from drawbench.cli import COMMANDS
from drawbench.evaluation import paired
from drawbench.fast import native

ROOT = Path(__file__).parent.parent
CONTRACT = "task model dataset source metric value low high n seed steps images_seen "
CONTRACT += "train_seconds command"


@pytest.fixture
def run(tmp_path, classified) -> Path:
    """A copy of the finished classifier, to be damaged."""
    return Path(shutil.copytree(classified[0], tmp_path / "runs" / "copy"))


@pytest.fixture
def drawn(tmp_path, generated) -> Path:
    """A copy of the finished generator."""
    return Path(shutil.copytree(generated[0], tmp_path / "runs" / "drawn"))


def classify(place, *words, **changes):
    return drawbench("classify", *tiny(**changes), *place, *words)


def configuration(folder: Path):
    return runs.Run.open(folder).config


# --------------------------------------------------------------------------------------------- help


@pytest.mark.parametrize("name", [*COMMANDS, "plot runs", "plot attention", "plot errors"])
def test_every_command_has_help_with_an_example(name):
    result = succeeded(drawbench(*name.split(), "--help"))
    assert "Usage: drawbench " + name in result.stdout
    examples = result.stdout[result.stdout.find("Example") :]
    assert name not in COMMANDS or f"  drawbench {name}" in examples
    assert result.stderr == ""
    assert max(len(line) for line in result.stdout.splitlines()) <= 110


def test_help_loads_nothing_heavy():
    code = f"""
import sys
from click.testing import CliRunner
from drawbench.cli import cli
for words in [[], *([name] for name in {list(COMMANDS)})]:
    assert CliRunner().invoke(cli, [*words, "--help"]).exit_code == 0
print([name for name in ("torch", "numpy", "pandas", "matplotlib") if name in sys.modules])
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.stdout, done.stderr) == ("[]\n", "")


@pytest.mark.parametrize("command", [["cli.py"], ["-m", "drawbench"]])
def test_the_launchers_are_the_command(command):
    words = [sys.executable, *command, "--version"]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.startswith("drawbench ")


def section(text: str, title: str) -> str:
    """Return a section of a help text, on one line."""
    lines = text[text.index(f"\n{title}:\n") + 1 :].split("\n\n")[0]
    return " ".join(lines.split())


def test_help_groups_the_settings():
    groups = {"Training": "--seed", "Machine": "--threads", "Model": "--hidden"}
    groups |= {"Measuring": "--evaluate-every", "Data": "--data-seed"}
    for command in ("classify", "generate", "quickstart"):
        text = succeeded(drawbench(command, "--help")).stdout
        assert all(option in section(text, title) for title, option in groups.items())


@pytest.mark.parametrize(
    ("words", "there", "absent"),
    [
        ("classify --model conv6", "--model", "--glimpses --patch --deviation --images"),
        ("classify --model=ram", "--deviation", "--window-map"),
        ("classify --dataset folder", "--images --size", "--canvas --clutter"),
        ("generate --model vae", "--latent", "--glimpses --attention"),
        ("generate --dataset svhn", "--pixels", "--source"),
        ("classify --recipe conv2", "--hidden", "--glimpses"),
    ],
)
def test_help_lists_what_the_chosen_model_and_data_set_have(words, there, absent):
    command, *named = words.split()
    text = succeeded(drawbench(command, *named, "--help")).stdout
    options = set(re.findall(r"^  (--[\w-]+)", text, re.MULTILINE))
    assert set(there.split()) <= options
    assert not set(absent.split()) & options
    assert " only)" not in text  # which models have a setting is said where none is named
    assert " only)" in succeeded(drawbench(command, "--help")).stdout


@pytest.mark.parametrize(
    ("words", "recipe"), [("quickstart", "quickstart"), ("classify --recipe paper-4", "paper-4")]
)
def test_help_shows_the_defaults_of_the_recipe(words, recipe):
    text = succeeded(drawbench(*words.split(), "--help")).stdout
    settings = config.load_recipe(recipe)
    model, training = section(text, "Model"), section(text, "Training")
    for name in ("glimpses", "patch", "hidden"):
        line = model[model.index(f"--{name} ") :]
        assert line[line.index("[default: ") :].startswith(f"[default: {settings['model'][name]}]")
    assert f"[default: {settings['training']['learning_rate']}]" in training


def test_wrong_usage_is_status_2():
    failed(drawbench("clasify"), "did you mean 'classify'", status=2)
    failed(drawbench("classify", "--canvas", "9" * 5000), "--canvas", "999 ... 999", status=2)
    for words in (["classify", "--glimpse"], ["classify", "extra"], ["evaluate"]):
        assert drawbench(*words).exit_code == 2


# ---------------------------------------------------------------------------------------- make-data


@pytest.mark.parametrize(("dataset", "digits"), [("cluttered", 1), ("mnist2", 2)])
def test_make_data_writes_a_set_that_plain_numpy_reads(tmp_path, dataset, digits):
    counts = {"train": 8, "validation": 3, "test": 5}
    words = flags(source="digits", canvas=40, seed=4, out=tmp_path / "set", **counts)
    card = answer("make-data", dataset, *words)
    assert card.pop("folder") == str(tmp_path / "set")
    assert card == json.loads((tmp_path / "set" / "card.json").read_text())
    assert (card["seed"], card["counts"]) == (4, counts)
    with np.load(tmp_path / "set" / "test.npz", allow_pickle=False) as arrays:
        assert arrays["images"].shape == (5, 40, 40)
        assert arrays["boxes"].shape == (5, digits, 4)
    with Image.open(tmp_path / "set" / "montage.png") as montage:
        assert min(montage.size) > 100


def test_make_data_keeps_what_is_there(tmp_path, run):
    counts = dict.fromkeys(("train", "validation", "test"), 4)
    words = ["make-data", "cluttered", *flags(source="digits", canvas=28, **counts), "--out"]
    succeeded(drawbench(*words, tmp_path / "set"))
    before = content(tmp_path / "set"), content(run)
    assert "kept" in succeeded(drawbench(*words, tmp_path / "set")).stderr
    failed(drawbench(*words, tmp_path / "set", "--seed", 1), "another data set", "--force")
    failed(drawbench(*words, run), "a run")
    assert (content(tmp_path / "set"), content(run)) == before
    succeeded(drawbench(*words, tmp_path / "set", "--seed", 1, "--force"))
    assert content(tmp_path / "set") != before[0]
    (tmp_path / "set" / "png").mkdir()
    replaced = content(tmp_path / "set")
    failed(drawbench(*words, tmp_path / "set", "--force"), "holds pictures already")
    assert content(tmp_path / "set") == replaced


def test_make_data_writes_into_the_working_folder(tmp_path, monkeypatch):
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    words = flags(source="digits", canvas=40, train=2, validation=2, test=2, out=".")
    answer("make-data", "mnist2", *words)
    assert "kept" in succeeded(drawbench("make-data", "mnist2", *words)).stderr
    assert {"card.json", "test.npz"} < {path.name for path in (tmp_path / "here").iterdir()}


def test_a_training_says_what_to_do_about_a_damaged_set(place, tmp_path):
    sets = [*place[:2], "--datasets", tmp_path / "sets"]
    answer("classify", *tiny(steps=1), *sets)
    (damaged,) = (tmp_path / "sets").rglob("test.npz")
    damaged.write_bytes(b"cut short")
    again = f"make-data --out {damaged.parent} --force, or remove the folder"
    failed(classify(sets), "is damaged", again)
    (damaged.parent / "card.json").unlink()
    failed(classify(sets), "choose another folder with --datasets, or remove it")


SETS = {  # other than the usual ones in every way, and what trains on them
    "cluttered": (
        dict(source="digits", canvas=36, clutter=3, clutter_size=6, data_seed=2, train=30, test=20),
        "classify",
    ),
    "mnist2": (dict(source="digits", canvas=44, clutter=1, seed=3, test=15), "generate"),
    "captions": (dict(source="digits", seed=3, test=15, held_out=5), "generate"),
}


@pytest.mark.parametrize("dataset", SETS)
def test_the_command_that_make_data_names_trains_on_that_set(tmp_path, dataset, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["drawbench/__main__.py"])  # as a user starts it
    options, task = SETS[dataset]
    place = tmp_path / "my set"
    made = succeeded(drawbench("make-data", dataset, *flags(out=place, **options))).stdout
    (line,) = re.findall(r"Next: python -m drawbench (.*)", made)
    assert shlex.split(line) == [task, "--data", str(place)]
    size = {"steps": 4, "evaluate_every": 4, "hidden": 8, "glimpses": 2, "threads": 1}
    size |= {"figures": False}
    words = [*shlex.split(line), *flags(**size), *(["--fixed-train"] if task == "classify" else [])]
    result = answer(*words)
    card = json.loads((place / "card.json").read_text())
    assert (result["n"], result["source"]) == (card["counts"]["test"], "digits")
    assert "-".join(str(number) for number in card["counts"].values()) in result["dataset"]
    stored = configuration(Path(result["run"])).data
    made_with = {**card["recipe"], "source": "digits", "data_seed": card["seed"]}
    assert {name: vars(stored)[name] for name in made_with.keys() & vars(stored)} == {
        name: made_with[name] for name in made_with.keys() & vars(stored)
    }
    # Every other command finds the set, wherever it is.
    moved = place.rename(tmp_path / "elsewhere")
    failed(drawbench("evaluate", result["run"]), "holds no data set", "--data FOLDER")
    again = answer("evaluate", result["run"], "--data", moved)
    assert again["value"] == pytest.approx(result["value"])


def test_a_set_is_not_mixed_up_with_others(tmp_path, classified):
    options = flags(source="digits", canvas=36, clutter=3, train=30)
    words = ["make-data", "cluttered", *options, "--datasets", tmp_path]
    folder = Path(answer(*words)["folder"])
    assert folder.name == "cluttered-36x36-3-digits-30-200-400"
    usual = answer("make-data", "cluttered", *options[:-2], "--datasets", tmp_path)["folder"]
    assert Path(usual).name == "cluttered-36x36-3-digits"  # made beside, neither in the other's way
    train = ["classify", "--data", folder, *flags(steps=4, glimpses=2, figures=False)]
    failed(
        drawbench(*train, "--canvas", 40), "--canvas 40 contradicts", "has --canvas 36", status=2
    )
    failed(drawbench(*train, "--data-seed", 1), "--data-seed 1 contradicts", status=2)
    failed(drawbench(*train, "--dataset", "mnist"), "data is a setting of", status=2)
    failed(drawbench("classify", "--data", tmp_path / "none"), "holds no data set")
    pairs = answer("make-data", "mnist2", *flags(source="digits", test=9), "--datasets", tmp_path)
    failed(drawbench("classify", "--data", pairs["folder"]), "drawbench generate --data")
    failed(drawbench("plot", classified[0], "--data", folder), "a run on a folder", status=2)
    told = answer("make-data", "captions", *flags(source="digits", test=9), "--datasets", tmp_path)
    failed(drawbench("classify", "--data", told["folder"]), "captions, not cluttered", "generate")
    words = ["generate", "--dataset", "captions", "--model", "aligndraw", "--data"]
    failed(drawbench(*words, folder), "cluttered, not captions", "classify --data")


def test_one_name_for_the_seed_of_the_data(tmp_path, monkeypatch):
    words = ["make-data", "cluttered", *flags(source="digits", canvas=28, train=4, test=4)]
    sets = [answer(*words, flag, 5, "--out", tmp_path / flag) for flag in ("--seed", "--data-seed")]
    for variable in ("DRAWBENCH_MAKE_DATA_SEED", "DRAWBENCH_MAKE_DATA_DATA_SEED"):
        monkeypatch.setenv(variable, "5")
        sets.append(answer(*words, "--out", tmp_path / variable))
        monkeypatch.delenv(variable)
    assert {json.dumps(one["content_sha256"]) for one in sets} == {
        json.dumps(sets[0]["content_sha256"])
    }


# ------------------------------------------------------------------------------- classify, generate


@pytest.mark.parametrize("fixture", ["classified", "generated"])
def test_json_is_one_object_with_the_fields_of_the_contract(fixture, request):
    folder, result = request.getfixturevalue(fixture)
    printed = json.loads(succeeded(result).stdout)  # refuses a second object
    assert result.stdout.count("\n") == 1
    assert printed.pop("run") == str(folder)
    assert printed == files.read_hashed(folder / "result.json")
    assert "validation" in result.stderr  # progress, for people
    assert set(CONTRACT.split()) <= set(printed)
    assert printed["low"] <= printed["value"] <= printed["high"]
    settings = CLASSIFIER if fixture == "classified" else GENERATOR
    steps, seen = settings["steps"], settings["steps"] * settings["batch"]
    names = ("n", "seed", "steps", "images_seen")
    assert [printed[name] for name in names] == [400, 0, steps, seen]
    if fixture == "classified":
        assert printed["metric"] == "test_error_percent"
        assert printed["value"] == 100 * printed["errors"] / 400
        assert np.sum(printed["confusion"]) == 400


def test_a_run_folder_holds_everything(classified, generated):
    for folder, settings in ((classified[0], CLASSIFIER), (generated[0], GENERATOR)):
        names = "config.json environment.json metrics.csv result.json test.npz"
        assert set(names.split()) | {runs.LAST, runs.BEST} <= set(content(folder))
        assert not list(folder.glob(".*.tmp"))
        stored = config.stored_settings(json.loads((folder / "config.json").read_text()))
        expected = {**settings, "figures": settings is GENERATOR}
        expected.pop("pictures", None)
        assert stored.items() >= expected.items()
        steps = [settings["evaluate_every"], settings["steps"]]
        assert list(pd.read_csv(folder / "metrics.csv")["step"]) == steps
        facts = {"python", "torch", "commit", "device", "threads", "command"}
        assert facts <= set(json.loads((folder / "environment.json").read_text()))
    names = "learning_curve kl_over_training kl_per_step samples sample_steps reconstructions"
    figures = {f"{name}.png" for name in [*names.split(), "interpolations"]}
    figures |= {"samples.gif", "reconstructions.gif"}
    sizes = {path.name: path.stat().st_size for path in (generated[0] / "figures").iterdir()}
    assert figures <= set(sizes) and max(sizes.values()) < 500_000


def test_the_same_command_makes_the_same_run_and_another_seed_another(classified, place, tmp_path):
    succeeded(classify(place, "--run", "again"))
    same_run(tmp_path / "runs" / "again", classified[0])
    succeeded(classify(place, "--run", "other", "--seed", 1))
    other = (tmp_path / "runs" / "other" / "metrics.csv").read_bytes()
    assert other != (classified[0] / "metrics.csv").read_bytes()


def test_flag_before_environment_before_recipe_before_default(place, tmp_path):
    recipe = "[model]\nglimpses = 3\n[training]\nbatch = 8\ntime_budget = 60.0\nseed = 5\n"
    (tmp_path / "mine.toml").write_text(recipe)
    environment = {"DRAWBENCH_CLASSIFY_GLIMPSES": "1", "DRAWBENCH_CLASSIFY_BATCH": "4"}
    words = ["classify", *tiny(glimpses=None, batch=None, steps=2), *place]
    words += ["--recipe", "mine.toml", "--run", "one", "--force"]
    lines = [(["--batch", 2], environment), ([], environment), ([], None)]
    for (more, env), expected in zip(lines, [(2, 1), (4, 1), (8, 3)], strict=True):
        succeeded(drawbench(*words, *more, env=env))
        chosen = configuration(tmp_path / "runs" / "one")
        assert (chosen.training.batch, chosen.model.glimpses) == expected
        assert (chosen.training.seed, chosen.training.warmup) == (5, config.Training().warmup)
        assert (chosen.training.steps, chosen.training.time_budget) == (2, None)


@pytest.mark.parametrize(
    ("base", "command", "recipes"),
    [(CLASSIFIER, "classify", ["paper-8"]), (GENERATOR, "generate", [])],
)
def test_without_a_length_it_says_how_long_and_what_else(
    place, monkeypatch, base, command, recipes
):
    monkeypatch.setattr("drawbench.training._steps_in", lambda minutes, *_: int(minutes) // 10)
    said = succeeded(drawbench(command, *tiny(base, steps=None), *place)).stderr
    (hint,) = (line for line in said.splitlines() if "No length given" in line)
    assert "30 minutes" in hint and "Published results take hours" in hint
    assert [name for name in config.recipes() if f"--recipe {name}" in hint] == recipes


def test_settings_of_the_command_line_are_used(place):
    words = ["--fixed-train", "--precision", "bfloat16"]
    folder = Path(answer("classify", *tiny(steps=2), *place, *words)["run"])
    chosen = configuration(folder)
    assert (chosen.data.fixed_train, chosen.training.precision) == (True, "bfloat16")
    words = tiny(GENERATOR, glimpses=None, pictures=1)
    result = answer("generate", *words, *place, "--no-attention", "--glimpses", 1)
    assert result["attention"] == "none" and "no-attention" in result["run"]


def test_tensorboard_is_written_or_said_to_be_missing_before_the_training(place, monkeypatch):
    pytest.importorskip("tensorboard")
    folder = Path(answer("classify", *tiny(steps=2), *place, "--tensorboard")["run"])
    assert list((folder / "tensorboard").glob("events.out.tfevents.*"))
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    failed(classify(place, "--tensorboard", steps=2), "tensorboard package")
    assert list(folder.parent.iterdir()) == [folder]


def pictures(folder: Path, classes=("",), each: int = 12, mode: str = "RGB") -> Path:
    """Write a folder of random pictures, with a subfolder for each class."""
    generator = np.random.default_rng(0)
    for name in classes:
        (folder / name).mkdir(parents=True, exist_ok=True)
        for number in range(each):
            pixels = generator.integers(0, 256, (20, 24, 3), dtype=np.uint8)
            Image.fromarray(pixels).convert(mode).save(folder / name / f"{number:02}.png")
    return folder


def test_a_folder_is_classified_in_colour_into_its_own_classes(place, tmp_path):
    folder = pictures(tmp_path / "photos", ("cat", "dog", "eel"), each=10)
    words = [*flags(dataset="folder", images=folder, size=16), *place]
    given = tiny(source=None, canvas=None, clutter=None)
    result = answer("classify", *given, *words)
    assert (result["n"], result["chance_error"]) == (3, pytest.approx(100 * 2 / 3))
    assert np.shape(result["confusion"]) == (3, 3)
    assert result["pixels_read"] == 3 * 2 * 4 * 4
    folder.rename(tmp_path / "moved")
    failed(drawbench("evaluate", result["run"], *place[2:]), "photos")
    moved = ["--images", tmp_path / "moved"]
    assert answer("evaluate", result["run"], *place[2:], *moved)["errors"] == result["errors"]
    failed(classify(place, "--images", tmp_path), "images", "folder", status=2)
    inside = [*flags(dataset="folder", images=tmp_path, size=16), *place]
    for seeds in ([], ["--seeds", "0"]):
        failed(drawbench("classify", *given, *inside, *seeds), "lies in the folder of images")


def test_a_folder_of_pictures_is_drawn(place, tmp_path):
    folder = pictures(tmp_path / "photos")
    words = ["generate", *tiny(GENERATOR, source=None, batch=2, pictures=1), *place]
    words += flags(dataset="folder", images=folder, size=8)
    result = answer(*words)
    assert result["image"] == "3x8x8"
    assert result["entropy_floor"] < result["value"]
    for path in folder.iterdir():
        Image.open(path).rotate(180).save(path)
    assert "not those" in succeeded(drawbench("evaluate", result["run"], *place[2:])).stderr
    pictures(folder, mode="L")
    failed(drawbench("evaluate", result["run"], *place[2:]), "3x8x8", "1x8x8")
    pictures(folder)
    (folder / "05.png").write_bytes(b"not a picture")
    failed(drawbench(*words), "05.png")
    for number in range(6, 12):
        (folder / f"{number:02}.png").unlink()
    done = succeeded(drawbench(*words, "--broken", "skip"))
    assert "05.png" in done.stderr and "none: one image" in done.stdout  # instead of an interval


# ---- what is wrong with a setting


MAKE = "make-data cluttered --source digits --out set"
WRONG_USAGE = {
    f"{MAKE} --canvas 27": ["canvas", "28", "27"],
    f"{MAKE} --test -3": ["--test", "-3"],
    f"{MAKE} --recipe cluttered-80": ["cluttered-80", "did you mean 'cluttered-60'"],
    "classify --glimpses many": ["--glimpses", "many"],
    "classify --canvas 20": ["canvas", "28", "20"],
    "classify --model drow": ["--model", "drow"],
    "classify --epochs 1": ["one length", "--steps", "--epochs"],
    "classify --recipe mnist2": ["drawbench generate"],
    # What the chosen model or data set lacks: the sentence names those that have it.
    "classify --model conv6 --deviation 0.1": ["deviation", "ram", "conv6"],
    "classify --images photos": ["images is a setting of folder; cluttered has none"],
    "generate --model vae": ["glimpses is a setting of draw and aligndraw; vae has none"],
    "generate --no-attention --attention read": ["contradict"],
    "generate --out x": ["--from"],
    "generate --recipe paper-8": ["drawbench classify"],
    "plot attention --window 1,2,3": ["1,2,3", "five numbers"],
    "plot attention --window 0,0,0,0,nan": ["five numbers"],
    "plot attention --out zoom.docx": [".png", "zoom.docx"],
}
PROBLEMS = {
    "generate --pixels static": ["static"],
    "plot attention --image nowhere.png": ["nowhere.png"],
    "plot attention --image text.png": ["text.png"],
}


@pytest.mark.parametrize("line", WRONG_USAGE | PROBLEMS)
def test_what_cannot_be_done_is_one_sentence_and_nothing_is_written(place, tmp_path, line):
    (tmp_path / "text.png").write_text("not a picture at all")
    command, *words = line.split()
    base = {"classify": CLASSIFIER, "generate": GENERATOR}.get(command)
    given = [] if base is None else [*tiny(base), *place]
    names, status = (WRONG_USAGE | PROBLEMS)[line], 2 if line in WRONG_USAGE else 1
    failed(drawbench(command, *given, *words), *names, status=status)
    assert [path.name for path in tmp_path.iterdir()] == ["text.png"]


@pytest.mark.parametrize(
    ("recipe", "names"),
    [
        ("[model]\nglimpse = 4\n", ["glimpse", "did you mean 'glimpses'"]),
        ("[model\n", ["TOML"]),
        (None, ["there is no recipe", "paper-8"]),
        ("task = 'generate'\n", ["drawbench generate"]),
    ],
)
def test_a_wrong_recipe_is_named_before_anything_is_done(place, tmp_path, recipe, names):
    if recipe is not None:
        (tmp_path / "mine.toml").write_text(recipe)
    before = content(tmp_path)
    failed(classify(place, "--recipe", "mine.toml"), *names, status=2)
    assert content(tmp_path) == before


def test_a_wrong_environment_and_a_missing_gpu_are_said(place, tmp_path, monkeypatch):
    words = ["classify", *tiny(glimpses=None), *place]
    failed(drawbench(*words, env={"DRAWBENCH_CLASSIFY_GLIMPSES": "several"}), "several", status=2)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    failed(drawbench(*words, "--device", "cuda"), "--device cuda", "--device auto")
    assert not any(tmp_path.iterdir())


# ---- what is there already


@pytest.mark.parametrize("name", ["a/b", "../up", "", ".", "..", ".hidden", "/tmp/absolute"])
def test_a_run_name_is_one_word(place, tmp_path, name):
    failed(classify(place, "--run", name), "--runs DIR", status=(1, 2))
    assert not any(tmp_path.iterdir())


def test_a_run_has_a_path_in_utf_8(place, tmp_path):
    failed(classify(place, "--run", os.fsdecode(b"u\xff")), "path in UTF-8")
    assert not any(tmp_path.iterdir())


def test_a_run_that_is_not_there_cannot_be_started_from(place, tmp_path):
    failed(classify(place, "--start", tmp_path / "none", "--run", "new"), "no run folder")
    assert not (tmp_path / "runs" / "new").exists()


def test_what_cannot_be_started_from_costs_no_run(place, run, tmp_path):
    before = content(run)
    failed(
        classify(place, "--run", run.name, "--force", "--start", run), "cannot start from itself"
    )
    small = answer("classify", *tiny(steps=1, patch=5), *place, "--run", "small")["run"]
    misfit = classify(place, "--run", run.name, "--force", "--start", small)
    failed(misfit, "the weights to start from do not fit")
    assert content(run) == before
    failed(classify(place, "--run", "new", "--start", small), "do not fit")
    assert not (tmp_path / "runs" / "new").exists()


def test_logs_is_no_name_of_a_run(place):
    failed(classify(place, "--run", "logs"), "no run can be called logs")
    failed(classify(place, "--run", "logs", "--seeds", "0"), "no run can be called logs")


def test_an_option_comes_from_a_variable_of_its_name(place, tmp_path, monkeypatch):
    monkeypatch.setenv("DRAWBENCH_CLASSIFY_RUN", "mine")
    monkeypatch.setenv("DRAWBENCH_CLASSIFY_JSON", "1")
    result = json.loads(succeeded(classify(place)).stdout)
    assert Path(result["run"]).name == "mine"
    monkeypatch.setenv("DRAWBENCH_RUNS_LIST_WHERE", "state=half-done")
    assert "There is no such run" in succeeded(drawbench("runs", tmp_path / "runs")).stdout


def test_quickstart_replaces_no_run_of_the_users(run):
    before = content(run)
    words = ["quickstart", "--run", run.name, "--runs", run.parent, "--steps", 2]
    failed(drawbench(*words), "already holds a run; choose another")
    assert content(run) == before


@pytest.mark.parametrize("command", ["tables", "runs", "report"])
def test_a_model_of_the_package_goes_by_its_name(command, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert "glimpse-8" in succeeded(drawbench(command, "glimpse-8", "--json")).stdout


def test_an_existing_run_is_kept_without_force(place, run):
    before = content(run)
    failed(classify(place, "--run", run.name), "already holds a run; choose another", "--force")
    with runs.Run.open(run).locked():
        failed(classify(place, "--run", run.name, "--force"), "another process")
    assert content(run) == before


def test_force_starts_a_run_anew_and_keeps_no_measurement_of_the_old(place, run):
    (run / "notes.txt").write_text("mine")
    (run / "error_against_clutter.csv").write_text("of the old weights")
    (run / "figures" / "old.png").write_bytes(b"")
    succeeded(classify(place, "--run", run.name, "--force", steps=2))
    left = content(run)
    assert left["notes.txt"] == b"mine"
    assert not {"error_against_clutter.csv", "figures/old.png"} & set(left)
    assert json.loads(left["result.json"])["steps"] == 2


def test_a_run_without_a_name_takes_a_free_one(place, tmp_path):
    text = succeeded(classify(place, steps=1)).stdout
    for words in ("test error %", "95% interval", "not MNIST"):
        assert words in text
    stem = "classify-draw-2-cluttered-28x28-1-digits-seed0"
    assert f"Run folder: {tmp_path / 'runs' / stem}\n" in text
    assert answer("classify", *tiny(steps=1), *place)["run"].endswith(f"{stem}-2")


@pytest.mark.parametrize("name", ["thesis.tex", ".hidden", "environment.json", "figures/a.png"])
@pytest.mark.parametrize("force", [[], ["--force"]])
def test_a_folder_of_something_else_is_never_touched(place, tmp_path, name, force):
    other = tmp_path / "runs" / "other"
    (other / name).parent.mkdir(parents=True)
    (other / name).write_text("years of work")
    failed(classify(place, "--run", "other", *force), "not a run folder", "--run")
    assert content(other) == {name: b"years of work"}


def test_a_file_in_the_way_is_said(place, tmp_path):
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / "file").write_text("mine")
    failed(classify(place, "--run", "file"), "not a run folder")
    failed(classify([*place, "--runs", tmp_path / "runs" / "file"]), "file", status=(1, 2))
    failed(classify(place, "--run", 300 * "x"), "too long")
    assert (tmp_path / "runs" / "file").read_text() == "mine"


# ---- disks


@pytest.fixture
def disk(monkeypatch):
    """A function that makes the disk refuse files whose name holds a word, by an error number.
    (Permissions would not stop a superuser.)
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
def test_a_disk_that_refuses_is_said_and_the_run_goes_on_later(
    place, classified, disk, tmp_path, name, number, words
):
    disk(number, name)
    failed(classify(place, "--run", "one"), words, name)
    folder = tmp_path / "runs" / "one"
    assert not list(folder.rglob("*.tmp"))
    if name != "config.json":
        disk(0, "no such file")
        succeeded(drawbench("resume", folder, *place[2:]))
        same_run(folder, classified[0])


def test_a_disk_that_refuses_curves_and_figures_is_said(run, datasets, disk):
    before = content(run)
    disk(errno.EROFS, "error_against")
    words = ["evaluate", run, "--glimpses", 1, "--datasets", datasets]
    failed(drawbench(*words), "Read-only", "error_against")
    disk(errno.EROFS, "learning_curve")
    failed(drawbench("plot", run, "--datasets", datasets), "Read-only", "learning_curve")
    assert content(run) == before


# ------------------------------------------------------------------------- finished runs and copies

COPIES = {"run": None, "copy": [], "half": ["--half"], "bare": ["--no-weights"]}
NAMES = [f"{task} {name}" for task in ("classify", "generate") for name in COPIES]


@pytest.fixture(scope="module")
def copies(classified, generated, datasets, tmp_path_factory) -> dict[str, Path]:
    """Finished runs of both kinds, and every kind of exported copy."""
    home = tmp_path_factory.mktemp("copies")
    published = ROOT / "results" / "published"
    originals = {"classify run": classified[0], "generate run": generated[0]}
    originals |= {f"published {name}": published / name for name in ("draw-4", "draw-20")}
    folders = {name: shutil.copytree(folder, home / name) for name, folder in originals.items()}
    for name in NAMES:
        if name not in folders:
            task, kind = name.split()
            words = [originals[f"{task} run"], home / name, "--datasets", datasets, *COPIES[kind]]
            succeeded(drawbench("export", *words))
            folders[name] = home / name
    return folders


@pytest.mark.parametrize("name", [*NAMES, "published draw-4", "published draw-20"])
def test_resuming_a_finished_run_changes_nothing(copies, name):
    before = snapshot(copies[name])
    result = succeeded(drawbench("resume", copies[name]))
    assert "is finished" in result.stderr
    value = json.loads((copies[name] / "result.json").read_text())["value"]
    assert f"{value:.2f}" in result.stdout
    assert answer("resume", copies[name])["value"] == value
    assert snapshot(copies[name]) == before


@pytest.mark.parametrize("name", [name for name in NAMES if not name.endswith("run")])
def test_an_exported_copy_is_measured_and_stays_as_it_is(copies, name, datasets, tmp_path):
    folder, task, before = copies[name], name.split()[0], snapshot(copies[name])
    words = ["evaluate", folder, "--datasets", datasets]
    words += ["--glimpses", "1,2"] if task == "classify" else ["--samples", 2, "--images", 5]
    if name.endswith("bare"):
        failed(drawbench(*words), "left out of a copy")
    else:
        said = succeeded(drawbench(*words)).stderr
        assert "stays as it is" in said
        succeeded(drawbench(*words, "--out", tmp_path / "out"))
        assert (tmp_path / "out" / "test.npz").is_file()
        assert (tmp_path / "out" / "evaluation.json").is_file()
    assert answer("compare", folder, copies[f"{task} run"])["n"] == 400
    assert snapshot(folder) == before


def test_an_exported_copy_is_plotted_elsewhere(copies, datasets, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    copy = copies["classify copy"]
    before = snapshot(copy)
    words = ["plot", copy, "--datasets", datasets]
    for place, out in (("results/figures", []), ("mine", ["--out", "mine"])):
        figures = answer(*words, *out)["figures"][str(copy)]
        assert {Path(path).parent for path in figures} == {Path(place) / copy.name}
        assert all(Path(path).is_file() for path in figures)
    assert snapshot(copy) == before


def test_a_run_of_a_gpu_is_measured_anywhere(run, place, tmp_path):
    """Its settings for training are not those of this machine."""
    settings = files.read_json(run / "config.json")
    settings["training"] |= {"device": "cuda", "precision": "tf32", "graph": True}
    files.write_json(run / "config.json", settings)
    tensors, facts = runs.load_checkpoint(run / runs.BEST)
    runs.save_checkpoint(run / runs.BEST, tensors, {**facts, "config": settings})
    result = files.read_hashed(run / "result.json")
    again = answer("evaluate", run, *place[2:])
    assert (again["errors"], again["n"]) == (result["errors"], result["n"])
    answer("plot", run, *place[2:])
    answer("export", run, tmp_path / "half", "--half", *place[2:])


def test_an_export_never_replaces_anything(copies, tmp_path):
    (tmp_path / "kept").mkdir()
    (tmp_path / "kept" / "letter.txt").write_text("dear reader")
    words = ["export", copies["classify run"], tmp_path / "kept"]
    failed(drawbench(*words), "kept is not empty: name another folder for the copy")


def test_a_copy_without_outcomes_is_compared_and_left_as_it_is(copies, datasets, tmp_path):
    copy, own = (
        Path(shutil.copytree(copies[f"classify {name}"], tmp_path / name))
        for name in ("copy", "run")
    )
    kept = (own / "test.npz").read_bytes()
    for folder in (copy, own):
        (folder / "test.npz").unlink()
    before = snapshot(copy)
    result = succeeded(drawbench("compare", own, copy, "--datasets", datasets, "--json"))
    assert json.loads(result.stdout).items() >= {"difference": 0, "p": 1}.items()
    assert "measuring" in result.stderr
    assert snapshot(copy) == before and (own / "test.npz").read_bytes() == kept


def test_a_read_only_run_is_measured_and_left_as_it_is(run, datasets, monkeypatch):
    monkeypatch.setattr(os, "access", lambda path, mode: mode != os.W_OK)
    before = snapshot(run)
    result = succeeded(drawbench("evaluate", run, "--glimpses", 1, "--datasets", datasets))
    assert "stays as it is" in result.stderr
    assert snapshot(run) == before


@pytest.mark.parametrize("lost", ["metrics.csv result.json", "result.json", ""])
def test_resuming_writes_lost_and_damaged_tables_again(place, run, lost):
    before = content(run)
    (run / "result.json").write_bytes(before["result.json"][:-9])
    for name in lost.split():
        (run / name).unlink()
    succeeded(drawbench("resume", run, *place[2:]))
    after = content(run)
    assert after["metrics.csv"] == before["metrics.csv"]
    assert json.loads(after["result.json"])["value"] == json.loads(before["result.json"])["value"]


# ----------------------------------------------------------------------------------------- evaluate


@pytest.mark.parametrize("fixture", ["classified", "generated"])
def test_evaluate_measures_the_number_of_the_run(fixture, place, request):
    folder = request.getfixturevalue(fixture)[0]
    before, result = content(folder), files.read_hashed(folder / "result.json")
    for batch in (400, 37):
        again = answer("evaluate", folder, *place[2:], "--batch", batch)
        assert again["value"] == pytest.approx(result["value"], rel=1e-6)
        for name in ("n", "errors", "per_class_error", "confusion"):
            assert again.get(name) == result.get(name)
    text = succeeded(drawbench("evaluate", folder, *place[2:])).stdout
    assert f"{result['value']:.2f}" in text
    assert content(folder) == before


def test_evaluate_writes_into_no_other_run(run, place, tmp_path):
    other = Path(answer("classify", *tiny(steps=1), *place, "--run", "other")["run"])
    before = content(other)
    refused = drawbench("evaluate", run, *place[2:], "--out", other)
    failed(refused, "is another run, which stays as it is")
    assert content(other) == before


def test_evaluate_on_other_images_leaves_the_outcomes_of_the_run(run, place, tmp_path):
    stored = files.read_hashed(run / "result.json")
    assert stored["test_sha256"] == paired.load(run).test_sha256
    runs.Run.open(run).write_result(stored | {"test_sha256": "0" * 64})  # as of other images
    before = content(run)
    said = succeeded(drawbench("evaluate", run, *place[2:])).stderr
    assert "are not those of" in said and "give --out" in said
    succeeded(drawbench("evaluate", run, *place[2:], "--glimpses", 2))
    assert content(run) == before
    succeeded(drawbench("evaluate", run, *place[2:], "--out", tmp_path / "out"))
    assert (tmp_path / "out" / "test.npz").exists() and content(run) == before


def test_evaluate_outside_the_training_conditions_adds_to_what_was_measured(run, place):
    words = flags(clutter="0,1", canvas="28..32..4", glimpses="1..3")
    measured = answer("evaluate", run, *place[2:], *words)
    expected = {"clutter": [0, 1], "canvas": [28, 32], "glimpses": [1, 2, 3]}
    for condition, values in expected.items():
        rows = measured["curves"][condition]
        assert [row[condition] for row in rows] == values
        # In the condition of training the images are those of the test file.
        (trained,) = (row for row in rows if row[condition] == CLASSIFIER[condition])
        names = {"error": "value", "low": "low", "high": "high", "n": "n"}
        assert all(trained[name] == measured[value] for name, value in names.items())
        assert pd.read_csv(run / f"error_against_{condition}.csv").to_dict("records") == rows
        with Image.open(run / "figures" / f"error_against_{condition}.png") as picture:
            assert min(picture.size) > 100
    table = run / "error_against_clutter.csv"
    answer("evaluate", run, *place[2:], "--clutter", "1,2")
    assert list(pd.read_csv(table)["clutter"]) == [0, 1, 2]
    assert pd.read_csv(table).to_dict("records")[:2] == measured["curves"]["clutter"]
    table.write_bytes(b"\xff\n,,,\0")  # damaged: a new one is begun
    answer("evaluate", run, *place[2:], "--clutter", 2)
    assert list(pd.read_csv(table)["clutter"]) == [2]
    table.write_text(table.read_text() + "x,1,1,1,1\n")
    answer("evaluate", run, *place[2:], "--clutter", 1)
    assert list(pd.read_csv(table)["clutter"]) == [1, 2]


def test_evaluate_samples_a_generator_more_often(generated, place):
    words = ["--samples", 3, "--images", 50, "--bound-samples", 2]
    result = answer("evaluate", generated[0], *place[2:], *words)
    assert (result["iw_samples"], result["iw_images"], result["bound_samples"]) == (3, 50, 2)
    assert result["sampling_error"] > 0
    stored = files.read_hashed(generated[0] / "result.json")
    assert stored["iw_bound"] == result["iw_bound"] and stored["bound_samples"] == 1


@pytest.mark.parametrize(
    ("words", "names"),
    [
        ("--glimpses 1..x", ["1..x"]),
        ("--glimpses 8..1", ["8..1"]),
        ("--canvas 20", ["canvas", "28", "20"]),
        ("--samples 3", ["--samples", "classify"]),
        ("--images 5.5", ["--images"]),
    ],
)
def test_evaluate_refuses_what_cannot_be_measured(run, place, words, names):
    before = content(run)
    failed(drawbench("evaluate", run, *place[2:], *words.split()), *names, status=2)
    assert content(run) == before


def test_conditions_that_a_model_does_not_have_are_refused(place, generated):
    given = tiny(model="conv2", glimpses=None, patch=None, steps=2)
    folder = answer("classify", *given, *place)["run"]
    words = ["evaluate", folder, *place[2:], "--glimpses", 3]
    failed(drawbench(*words), "glimpses", "clutter, canvas", status=2)
    words = ["evaluate", generated[0], *place[2:]]
    failed(drawbench(*words, "--clutter", 3), "--clutter", "generate", status=2)
    failed(drawbench(*words, "--images", 5), "--samples", status=2)


# ---------------------------------------------------------------------------------- generate --from


def test_from_draws_other_samples_without_data_and_overwrites_nothing(drawn, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    before = content(drawn)
    words = ["generate", "--from", drawn, "--pictures", 4]
    for seed in ([], ["--seed", 3]):
        figures = answer(*words, *seed)["figures"]
        assert [Path(path).parent for path in figures] == [drawn / "figures"] * 3
    after = content(drawn)
    assert {name: after[name] for name in before} == before
    names = {Path(name).stem for name in after.keys() - before.keys()}
    kinds = ("samples", "sample_steps")
    assert names == {f"{kind}-seed{seed}" for kind in kinds for seed in (0, 3)}
    answer(*words, "--seed", 3, "--out", tmp_path / "again")
    for name, data in content(tmp_path / "again").items():
        assert data == after[f"figures/{name}"]
    assert after["figures/samples-seed0.png"] != after["figures/samples-seed3.png"]
    assert not (tmp_path / "datasets").exists()


def test_from_takes_a_trained_generator_as_it_is(drawn, run, tmp_path):
    failed(drawbench("generate", "--from", drawn, "--glimpses", 3), "--glimpses", status=2)
    failed(drawbench("generate", "--from", drawn, "--run", "new"), "--run", status=2)
    failed(drawbench("generate", "--from", tmp_path / "nothing"), "nothing")
    failed(drawbench("generate", "--from", run), "'classify'")
    failed(drawbench("generate", "--from", drawn, "--seed", -1), "seed", "-1", status=2)
    failed(drawbench("generate", "--from", drawn, "--set", "a=1"), "--set", status=2)
    glimpses = {"DRAWBENCH_GENERATE_GLIMPSES": "3"}  # for trainings
    words = ["generate", "--from", drawn, "--out", tmp_path / "out"]
    succeeded(drawbench(*words, env=glimpses))


# ------------------------------------------------------------------------------------- plot, doctor


def test_a_run_without_figures_is_plotted_later(run, datasets):
    assert not list(run.rglob("*.png"))
    figures = answer("plot", run, "--datasets", datasets)["figures"][str(run)]
    names = {path.relative_to(run / "figures").name for path in map(Path, figures)}
    assert {"learning_curve.png", "confusion.png", "glimpses_1.png", "glimpses.gif"} <= names
    for path in figures:
        with Image.open(path) as picture:
            frames = CLASSIFIER["glimpses"] if path.endswith(".gif") else 1
            assert getattr(picture, "n_frames", 1) == frames


CURVES = "images_seen,train_loss,validation_error,learning_rate\nx,y,z,w\n"
DAMAGED_TABLES = {
    "result.json": [None, "", "{}", "[]", '{"confusion": "none"}', '{"confusion": [[1, 2]]}'],
    "metrics.csv": [None, "", "\0\0", "a,b\n1,2\n", "step\nx\n", CURVES],
}


@pytest.mark.parametrize(
    ("name", "text"), [(name, text) for name, texts in DAMAGED_TABLES.items() for text in texts]
)
def test_plot_names_a_file_that_is_missing_or_damaged(run, datasets, name, text):
    (run / name).unlink()
    if text is not None:
        (run / name).write_text(text)
    failed(drawbench("plot", run, "--datasets", datasets), name)


def test_plot_attention_explains_a_window(tmp_path):
    out = tmp_path / "new" / "zoom.png"
    words = flags(window="0.2,-0.3,0,-1,0", patch=3, out=out)
    assert answer("plot", "attention", *words) == {"figures": [str(out)]}
    with Image.open(out) as picture:
        assert min(picture.size) > 100


@pytest.mark.parametrize(("kernels", "said"), [(object(), "compiled"), (None, "need Triton")])
def test_doctor_tells_whether_a_gpu_has_kernels(tmp_path, monkeypatch, kernels, said):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda index: "some GPU")
    monkeypatch.setattr(native, "gpu_kernels", lambda dtype, device: kernels)
    text = succeeded(drawbench("doctor", "--sources", tmp_path)).stdout
    (line,) = (line for line in text.splitlines() if line.startswith("  gpu kernels"))
    assert said in line and "cuda:0        some GPU" in text
    assert answer("doctor", "--sources", tmp_path)["gpu_kernels"] is (kernels is not None)


@pytest.mark.parametrize(("has_it", "said"), [(True, "in the CPU"), (False, "computes in float32")])
def test_doctor_tells_whether_the_cpu_has_bfloat16(tmp_path, monkeypatch, has_it, said):
    monkeypatch.setattr(fast, "_cpu_multiplies_bfloat16", lambda: has_it)
    text = succeeded(drawbench("doctor", "--sources", tmp_path)).stdout
    (line,) = (line for line in text.splitlines() if line.startswith("  bfloat16"))
    assert said in line and answer("doctor", "--sources", tmp_path)["bfloat16"] is has_it


def test_doctor_lists_what_is_there_and_what_to_do(tmp_path):
    text = succeeded(drawbench("doctor", "--sources", tmp_path)).stdout
    for word in ("python", "torch", "cpu", "mnist", "digits", "missing", "verified", str(tmp_path)):
        assert word in text
    result = answer("doctor", "--sources", tmp_path)
    assert set(result["extras"]) == {"demo", "onnx", "slurm", "svhn", "tensorboard"}
    assert set(result["extras"]["onnx"]) == {"onnx", "onnxruntime", "onnxscript"}
    sources = result["data"]
    states = {source["name"]: source["state"] for source in sources}
    assert (states["digits"], states["mnist"]) == ("verified", "missing")
    assert all(source["advice"] for source in sources if source["state"] == "missing")
    assert not any(tmp_path.iterdir())
    raw = tmp_path / "MNIST" / "raw"
    raw.mkdir(parents=True)
    for name in ("train-images-idx3", "train-labels-idx1", "t10k-images-idx3", "t10k-labels-idx1"):
        (raw / f"{name}-ubyte").write_bytes(b"garbled")
    sources = answer("doctor", "--sources", tmp_path)["data"]
    assert next(each["state"] for each in sources if each["name"] == "mnist") == "damaged"


# --------------------------------------------------------------------------- run folders gone wrong

READERS = ["evaluate", "plot", "resume"]


def read(command, run, place):
    """Run a command on a run that is not finished, so that resume has to read it."""
    if command == "resume" and run.is_dir():
        (run / "result.json").unlink(missing_ok=True)
    before = content(run) if run.is_dir() else None
    result = drawbench(command, run, *place[2:])
    assert before is None or content(run) == before
    return result


@pytest.mark.parametrize("command", READERS)
def test_a_run_that_is_not_there_is_said(place, tmp_path, command):
    failed(read(command, tmp_path / "nowhere", place), "no run folder", "nowhere")
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "thesis.tex").write_text("years of work")
    failed(read(command, tmp_path / "other", place), "not a run folder")
    failed(read(command, tmp_path / "other" / "thesis.tex", place), "thesis.tex")
    assert content(tmp_path) == {"other/thesis.tex": b"years of work"}
    result = drawbench(command, tmp_path / "nowhere", "--debug")
    assert not isinstance(result.exception, SystemExit) and "no run" in str(result.exception)


DAMAGE = {
    "empty": lambda content: b"",
    "cut": lambda content: content[: len(content) // 2],
    "flipped": lambda content: content[:-3] + bytes([content[-3] ^ 4]) + content[-2:],
    "garbled": lambda content: bytes(range(250)),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_damaged_weights_are_never_used(place, run, classified, damage):
    """The best ones are refused; the state before the last one leads to the same run."""
    best, last = run / runs.BEST, run / runs.LAST
    sound = best.read_bytes()
    best.write_bytes(DAMAGE[damage](sound))
    for command in ("evaluate", "plot"):
        failed(read(command, run, place), runs.BEST, "damaged")
    best.write_bytes(sound)
    last.write_bytes(DAMAGE[damage](last.read_bytes()))
    (run / "result.json").unlink()
    said = succeeded(drawbench("resume", run, *place[2:])).stderr
    assert runs.LAST in said
    assert "taking the one before" in said
    same_run(run, classified[0])


def test_weights_that_are_foreign_or_missing_are_said(place, run):
    save_file({"weight": torch.ones(3)}, run / runs.BEST)
    failed(read("evaluate", run, place), runs.BEST, "not a drawbench checkpoint")
    (run / runs.BEST).unlink()
    for command in ("evaluate", "plot"):
        failed(read(command, run, place), f"no {runs.BEST}", "train the run again")
    (run / "result.json").unlink()
    failed(read("evaluate", run, place), f"no {runs.BEST} yet", "drawbench resume")
    for name in (runs.LAST, runs.PREVIOUS):
        (run / name).write_bytes(b"rubbish")
    failed(read("resume", run, place), "no checkpoint", "--force")
    (run / "config.json").write_text('{"task": "classify", "model": {"glimpse": 8}}')
    for command in READERS:
        failed(read(command, run, place), run.name)


def test_a_data_set_is_said_to_be_damaged_or_made_where_it_is_missing(place, run, tmp_path):
    words = ["--datasets", tmp_path / "elsewhere"]
    measured = succeeded(drawbench("evaluate", run, *words, "--json"))
    assert "Making" in measured.stderr
    assert json.loads(measured.stdout)["value"] == runs.Run.open(run).result()["value"]
    test = tmp_path / "elsewhere" / "cluttered-28x28-1-digits" / "test.npz"
    test.write_bytes(test.read_bytes()[:-100])
    for command in READERS:
        failed(read(command, run, ["", "", *words]), "test.npz", "damaged")


# --------------------------------------------------------------------------------------- quickstart


@pytest.mark.slow
def test_quickstart_is_the_whole_tour(tmp_path):
    words = flags(steps=60, threads=1, runs=tmp_path / "runs", datasets=tmp_path / "datasets")
    command = [*MAIN, "quickstart", *words]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    for word in ("test error %", "95% interval", "majority class %", "chance %", "glimpses.gif"):
        assert word in done.stdout
    assert "What to try next" in done.stderr
    animation = tmp_path / "runs" / "quickstart" / "figures" / "glimpses.gif"
    assert animation.stat().st_size > 1000
