"""``--seeds``: the runs of a row by one command, which also continues them."""

import json
import os
import signal
import subprocess
import time
from pathlib import Path

import pytest
from commands import MAIN, drawbench, failed, flags, same_run, succeeded, tiny

from drawbench import config, files, studies
from drawbench.cli import batch

OWN = """
import torch
from drawbench.models.cnn import Answer


class network(torch.nn.Module):
    def __init__(self, height, width, classes):
        super().__init__()
        self.layer = torch.nn.Linear(height * width, classes)

    def forward(self, images):
        return self.layer(images.flatten(1))
"""
SHORT = {"steps": 6, "evaluate_every": 3, "checkpoint_every": 1, "figures": False}


@pytest.fixture(scope="module")
def row(tmp_path_factory, datasets):
    """Two seeds, without a number of steps, the second of them damaged in its result afterwards."""
    folder = tmp_path_factory.mktemp("row")
    places = flags(runs=folder, run="row", datasets=datasets)
    words = [*tiny(**{**SHORT, "steps": None}), *places, "--epochs", "0.02", "--seeds", "0,3"]
    return folder, words, drawbench("classify", *words, "--json")


@pytest.mark.slow
def test_every_seed_has_a_run_of_its_own_and_they_are_alike(row):
    folder, _, result = row
    report = json.loads(succeeded(result).stdout)
    assert [each["state"] for each in report["runs"]] == ["finished", "finished"]
    assert [Path(each["run"]).name for each in report["runs"]] == ["row", "row-seed3"]
    settings = [
        json.loads((folder / name / "config.json").read_text()) for name in ("row", "row-seed3")
    ]
    seeds = [each["training"].pop("seed") for each in settings]
    assert seeds == [0, 3] and settings[0] == settings[1]
    values = [each["value"] for each in report["results"]]
    assert report["mean"]["value"] == pytest.approx(sum(values) / 2)
    assert report["failures"] == {}


@pytest.mark.slow
def test_the_same_command_does_nothing_again_and_finishes_what_is_not(row):
    folder, words, _ = row
    before = (folder / "row" / "result.json").stat().st_mtime_ns
    assert "Training" not in succeeded(drawbench("classify", *words)).stderr
    (folder / "row-seed3" / "result.json").unlink()
    said = succeeded(drawbench("classify", *words)).stderr
    assert "Resuming row-seed3" in said and "Training" not in said
    assert (folder / "row" / "result.json").stat().st_mtime_ns == before
    other = [word if word != "4" else "5" for word in words]
    failed(drawbench("classify", *other), "holds another run", "patch")
    assert succeeded(drawbench("classify", *words, "--quiet")).stderr == ""


@pytest.mark.slow
def test_one_that_fails_stops_no_other(row, tmp_path, datasets):
    (tmp_path / "runs" / "row").mkdir(parents=True)
    (tmp_path / "runs" / "row" / "letter.txt").write_text("dear reader")
    places = flags(runs=tmp_path / "runs", run="row", datasets=datasets)
    result = drawbench("classify", *tiny(**SHORT), *places, "--seeds", "0..1", "--json")
    assert result.exit_code == 1
    assert "1 of 2 runs failed: row (status 1, Error: " in result.stderr
    assert "not a run folder" in result.stderr
    report = json.loads(result.stdout)
    assert [each["state"] for each in report["runs"]] == ["to do", "finished"]
    assert len(report["results"]) == 1


@pytest.mark.slow
def test_a_run_of_a_row_is_that_of_the_plain_command(row, tmp_path, datasets):
    folder, _, _ = row
    steps = config.load_recipe(str(folder / "row"))["training"]["steps"]
    places = flags(runs=tmp_path, run="alone", datasets=datasets, seed=3)
    succeeded(drawbench("classify", *tiny(**{**SHORT, "steps": steps}), *places))
    (tmp_path / "alone" / "test.npz").unlink()
    alone, in_row = tmp_path / "alone", folder / "row-seed3"
    assert files.read_json(alone / "config.json") == files.read_json(in_row / "config.json")
    same_run(alone, in_row)


def test_what_does_not_go_with_seeds_is_wrong_usage(tmp_path):
    failed(drawbench("classify", "--seeds", "0..1", "--seed", 3), "--seed contradict", status=2)
    failed(drawbench("classify", "--seeds", "few"), "few", status=2)
    failed(drawbench("classify", "--jobs", "2"), "give --seeds too", status=2)
    failed(drawbench("generate", "--seeds", "0..1", "--from", tmp_path), "--seeds", status=2)


def test_the_settings_become_options_again(tmp_path):
    run = {"name": "mine", "task": "generate", "recipe": None, "seeds": [0], "start": None}
    settings = {"model": "m:net", "arguments": {"gain": 2.5, "deep": True}, "graph": False}
    (job,) = studies.plan([run | {"settings": settings, "evaluate": {}}], tmp_path, tmp_path)
    words = " ".join(studies.arguments(job))
    assert words.startswith(f"generate --run mine --runs {tmp_path} --model m:net")
    assert "--set gain=2.5 --set deep=True" in words and "--no-graph" in words
    assert words.endswith("--seed 0") and "--recipe" not in words
    assert batch._name(config.Generate()) == "generate-draw-64-mnist"


@pytest.mark.processes
def test_a_row_on_a_stored_set_of_an_own_model_goes_on(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "rownet.py").write_text(OWN)
    scene = flags(source="digits", canvas=30, clutter=1, train=9, validation=9, test=9)
    succeeded(drawbench("make-data", "cluttered", *scene, "--out", "set"))
    words = ["--model", "rownet:network", "--data", "set", *flags(threads=1, batch=4, **SHORT)]
    words = ["classify", *words, "--run", "row", "--seeds"]
    succeeded(drawbench(*words, "0"))
    (tmp_path / "results" / "runs" / "row" / "result.json").unlink()
    said = succeeded(drawbench(*words, "0..1")).stderr
    assert "Resuming row " in said and "Training row-seed1" in said
    (config,) = {
        json.dumps(json.loads(path.read_text())["data"])
        for path in tmp_path.glob("results/runs/row*/config.json")
    }
    assert json.loads(config)["canvas"] == 30


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGHUP])
@pytest.mark.slow
def test_a_signal_stops_all_and_the_same_command_continues(tmp_path, datasets, number):
    places = flags(runs=tmp_path / "runs", run="row", datasets=datasets)
    given = tiny(**{**SHORT, "steps": 3000, "evaluate_every": 3000})
    words = [*MAIN, "classify", *given, *places, "--seeds", "0..1", "--jobs", "2"]
    environment = os.environ | {"DRAWBENCH_CLASSIFY_SEEDS": "0..1"}  # the runs must not take it
    process = subprocess.Popen(
        words,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
        preexec_fn=lambda: signal.signal(signal.SIGHUP, signal.SIG_DFL),  # even under nohup
    )
    states = [tmp_path / "runs" / name / "last.safetensors" for name in ("row", "row-seed1")]
    until = time.monotonic() + 300
    while not all(path.exists() for path in states) and time.monotonic() < until:
        time.sleep(0.05)
    process.send_signal(number)
    _, said = process.communicate(timeout=300)
    assert process.returncode == 128 + number and "Continue with the same command" in said
    assert not [path for path in tmp_path.glob("runs/*/result.json")]
    done = subprocess.run(words, capture_output=True, text=True, env=environment)
    assert done.returncode == 0 and done.stderr.count("Resuming") == 2, done.stderr
