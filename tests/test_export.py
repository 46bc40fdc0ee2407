"""``drawbench export``: what a copy holds, and that its result is that of its weights."""

import shutil

import pytest
import torch
from commands import answer, content, drawbench, failed, flags, succeeded

from drawbench import runs


@pytest.fixture(scope="module")
def run(generated):
    folder, result = generated
    succeeded(result)
    return folder


@pytest.fixture(scope="module")
def data(datasets):
    return flags(datasets=datasets)


def test_a_copy_has_all_but_the_states(run, tmp_path):
    result = answer("export", run, tmp_path / "copy")
    names = {path.name for path in (tmp_path / "copy").iterdir()}
    assert {"config.json", "environment.json", "metrics.csv", "result.json"} < names
    assert {"best.safetensors", "figures"} < names
    assert not names & {"last.safetensors", "previous.safetensors", ".lock"}
    assert result["value"] == runs.Run.open(run).result()["value"]


def test_half_precision_halves_the_weights_and_is_measured(run, data, tmp_path):
    copy = tmp_path / "half"
    result = answer("export", run, copy, "--half", *data)
    assert result["weights"] == "float16"
    tensors, facts = runs.Run.open(copy).load_best()
    saved = (run / "best.safetensors").stat().st_size - result["weights_bytes"]
    assert saved == pytest.approx(2 * sum(tensor.numel() for tensor in tensors.values()), rel=0.02)
    assert all(tensor.dtype == torch.float16 for tensor in tensors.values())
    assert facts["size"] == [1, 28, 28]
    value = runs.Run.open(run).result()["value"]
    assert result["value"] != value
    assert result["value"] == pytest.approx(value, rel=1e-2)
    again = answer("evaluate", copy, *data)
    assert again["value"] == pytest.approx(result["value"], rel=1e-6)


def test_a_copy_without_weights_is_a_row_of_the_tables(run, tmp_path):
    copy, out = tmp_path / "row", tmp_path / "out"
    result = answer("export", run, copy, "--no-weights")
    assert result["weights_bytes"] == 0 and not list(copy.glob("*.safetensors"))
    succeeded(drawbench("tables", copy, "--out", out))
    assert any("row" in path.read_text() for path in (out / "tables").glob("likelihood*.csv"))
    failed(drawbench("export", run, tmp_path / "none", "--no-weights", "--half"), status=2)


def test_the_card_names_the_copy_as_it_is_called(run, tmp_path, monkeypatch):
    answer("export", run, tmp_path / "my_run of today")
    card = (tmp_path / "my_run of today" / "README.md").read_text()
    assert 'load_run("my_run of today")' in card
    assert "drawbench evaluate 'my_run of today'" in card


def test_advice_about_a_damaged_copy_can_be_followed(run, tmp_path):
    answer("export", run, tmp_path / "copy")
    (tmp_path / "copy" / "test.npz").write_bytes(b"cut short")
    failed(drawbench("compare", tmp_path / "copy", run), "take it from the original of this copy")
    (tmp_path / "copy" / "result.json").write_text('{"value": 0}')
    failed(drawbench("resume", tmp_path / "copy"), "take it from the original of this copy")


def test_an_existing_folder_is_left_alone(run, tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "letter.txt").write_text("dear reader")
    before = content(tmp_path / "mine")
    failed(drawbench("export", run, tmp_path / "mine"), "mine is not empty: name another folder")
    assert content(tmp_path / "mine") == before
    failed(drawbench("export", run, run), "is not empty: name another folder")


def test_a_run_without_a_result_is_refused(run, tmp_path):
    shutil.copytree(run, tmp_path / "young")
    (tmp_path / "young" / "result.json").unlink()
    failed(drawbench("export", tmp_path / "young", tmp_path / "copy"), "result.json")
    assert not (tmp_path / "copy").exists()


def test_a_copy_that_cannot_be_measured_is_removed(run, tmp_path, monkeypatch):
    monkeypatch.setattr("drawbench.tasks.create", lambda *_, **__: 1 / 0)
    assert drawbench("export", run, tmp_path / "copy", "--half").exit_code == 1
    assert not (tmp_path / "copy").exists()


def test_a_copy_takes_nothing_through_a_link(run, tmp_path):
    (tmp_path / "private.txt").write_text("of the user")
    shutil.copytree(run, tmp_path / "stranger")
    (tmp_path / "stranger" / "notes.txt").symlink_to(tmp_path / "private.txt")
    (tmp_path / "stranger" / "figures" / "all.png").symlink_to(tmp_path / "private.txt")
    answer("export", tmp_path / "stranger", tmp_path / "copy")
    assert b"of the user" not in content(tmp_path / "copy").values()
