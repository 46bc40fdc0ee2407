"""``drawbench export``: what a copy holds, and that it measures like what it is."""

import json
import shutil

import pytest
import torch
from test_cli import content, drawbench, failed, flags, succeeded
from test_cli_generate import tiny

from drawbench import runs


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    home = tmp_path_factory.mktemp("export")
    return flags(sources=home / "sources", datasets=home / "datasets"), home


@pytest.fixture(scope="module")
def run(place):
    where, home = place
    succeeded(drawbench("generate", *tiny(), *where, "--runs", home / "runs", "--run", "one"))
    return home / "runs" / "one"


def test_a_copy_has_all_but_the_states_and_measures_the_same(run, place, tmp_path):
    answer = json.loads(succeeded(drawbench("export", run, tmp_path / "copy", "--json")).stdout)
    names = {path.name for path in (tmp_path / "copy").iterdir()}
    assert {
        "config.json",
        "environment.json",
        "metrics.csv",
        "result.json",
        "best.safetensors",
        "figures",
    } <= names
    assert not names & {"last.safetensors", "previous.safetensors", ".lock"}
    assert answer["value"] == json.loads((run / "result.json").read_text())["value"]
    again = json.loads(
        succeeded(drawbench("evaluate", tmp_path / "copy", *place[0], "--json")).stdout
    )
    assert again["value"] == pytest.approx(answer["value"], rel=1e-6)


def test_half_precision_halves_the_weights_and_is_measured(run, place, tmp_path):
    answer = json.loads(
        succeeded(drawbench("export", run, tmp_path / "half", "--half", *place[0], "--json")).stdout
    )
    assert answer["weights"] == "float16"
    tensors, facts = runs.Run.open(tmp_path / "half").load_best()
    saved = (run / "best.safetensors").stat().st_size - answer["weights_bytes"]
    assert saved == pytest.approx(2 * sum(tensor.numel() for tensor in tensors.values()), rel=0.02)
    assert all(tensor.dtype == torch.float16 for tensor in tensors.values())
    assert facts["size"] == [1, 28, 28]
    truth = json.loads((run / "result.json").read_text())
    assert answer["value"] != truth["value"]
    assert answer["value"] == pytest.approx(truth["value"], rel=1e-2)
    again = json.loads(
        succeeded(drawbench("evaluate", tmp_path / "half", *place[0], "--json")).stdout
    )
    assert again["value"] == pytest.approx(answer["value"], rel=1e-6)


def test_a_copy_without_weights_is_a_row_of_the_tables_and_says_what_it_lacks(run, place, tmp_path):
    answer = json.loads(
        succeeded(drawbench("export", run, tmp_path / "row", "--no-weights", "--json")).stdout
    )
    assert answer["weights_bytes"] == 0 and not list((tmp_path / "row").glob("*.safetensors"))
    assert answer["value"] == json.loads((run / "result.json").read_text())["value"]
    succeeded(drawbench("tables", tmp_path / "row", "--out", tmp_path / "out"))
    assert any(
        "row" in table.read_text()
        for table in (tmp_path / "out" / "tables").glob("likelihood*.csv")
    )
    failed(drawbench("evaluate", tmp_path / "row", *place[0]), "left out of a copy")
    failed(
        drawbench("export", run, tmp_path / "none", "--no-weights", "--half"), "--half", status=2
    )


def test_what_is_there_is_left_alone(run, tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "letter.txt").write_text("dear reader")
    before = content(tmp_path / "mine")
    failed(drawbench("export", run, tmp_path / "mine"), "is there and is not a run folder")
    assert content(tmp_path / "mine") == before
    shutil.copytree(run, tmp_path / "other")
    failed(drawbench("export", run, tmp_path / "other"), "holds a run already")


def test_a_run_without_a_result_is_named(run, tmp_path):
    shutil.copytree(run, tmp_path / "young")
    (tmp_path / "young" / "result.json").unlink()
    failed(drawbench("export", tmp_path / "young", tmp_path / "copy"), "result.json")
    assert not (tmp_path / "copy").exists()
