import json
import os
import subprocess
import sys

import pytest
import torch

from drawbench import config, files, runs
from drawbench.config import Classify
from drawbench.errors import Problem

TENSORS = {
    "a": torch.arange(6, dtype=torch.float32).view(2, 3),
    "step": torch.tensor(7.0),
    "half": torch.ones(3, dtype=torch.bfloat16),
    "none": torch.zeros(0, 4),
    "counts": torch.tensor([1, 2], dtype=torch.int64),
}
FACTS = {"step": 7, "rows": [{"x": 0.1}], "best": None}


@pytest.fixture
def checkpoint(tmp_path):
    path = tmp_path / "one.safetensors"
    runs.save_checkpoint(path, TENSORS, FACTS)
    return path


def test_a_checkpoint_comes_back_bit_by_bit(checkpoint):
    tensors, facts = runs.load_checkpoint(checkpoint)
    assert facts == FACTS
    assert set(tensors) == set(TENSORS)
    for name, tensor in TENSORS.items():
        assert tensors[name].dtype == tensor.dtype
        assert torch.equal(tensors[name], tensor)


def test_plain_safetensors_can_read_it(checkpoint):
    from safetensors.torch import load_file

    assert torch.equal(load_file(checkpoint)["a"], TENSORS["a"])


def test_every_flipped_bit_is_noticed(checkpoint, tmp_path):
    """In every byte of the file, one bit: header, facts and values alike."""
    content = checkpoint.read_bytes()
    path = tmp_path / "flipped.safetensors"
    for position in range(len(content)):
        changed = bytearray(content)
        changed[position] ^= 1 << (position % 8)
        path.write_bytes(changed)
        try:
            tensors, facts = runs.load_checkpoint(path)
        except Problem:
            continue
        # A flip that is not refused may only have touched what carries no meaning, such as a space
        # in the header.
        assert facts == FACTS
        assert all(torch.equal(tensors[name], tensor) for name, tensor in TENSORS.items()), position


def test_every_truncation_is_noticed(checkpoint, tmp_path):
    content = checkpoint.read_bytes()
    path = tmp_path / "short.safetensors"
    for length in range(0, len(content), 7):
        path.write_bytes(content[:length])
        with pytest.raises(Problem, match=r"short\.safetensors"):
            runs.load_checkpoint(path)


def test_a_foreign_safetensors_file_is_named(tmp_path):
    from safetensors.torch import save_file

    save_file({"a": torch.ones(2)}, tmp_path / "foreign.safetensors")
    with pytest.raises(Problem, match="not a checkpoint of drawbench"):
        runs.load_checkpoint(tmp_path / "foreign.safetensors")


def test_a_pickle_is_not_opened(tmp_path):
    class Bomb:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "executed"),)

    torch.save(Bomb(), tmp_path / "bomb.safetensors")
    with pytest.raises(Problem, match="damaged or not a checkpoint"):
        runs.load_checkpoint(tmp_path / "bomb.safetensors")
    assert not (tmp_path / "executed").exists()


# --------------------------------------------------------------------------------------- run folder


@pytest.fixture
def run(tmp_path):
    return runs.Run.create(tmp_path / "runs" / "one", Classify(), command="drawbench classify")


def test_a_run_opens_with_the_configuration_it_was_made_with(run):
    assert runs.Run.open(run.folder).config == Classify()
    environment = files.read_json(run.folder / "environment.json")
    assert environment["torch"] == torch.__version__
    assert environment["command"] == "drawbench classify"


def test_a_run_is_never_overwritten_unasked(run):
    run.write_result({"value": 1})
    with pytest.raises(Problem, match="--force"):
        runs.Run.create(run.folder, Classify())
    assert run.result() == {"value": 1}
    runs.Run.create(run.folder, config.replace(Classify(), glimpses=2), force=True)
    assert not (run.folder / "result.json").exists()
    assert runs.Run.open(run.folder).config.model.glimpses == 2


def test_a_folder_of_something_else_is_never_touched(tmp_path):
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(Problem, match="not a run folder"):
        runs.Run.create(tmp_path, Classify(), force=True)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


def test_force_removes_only_what_a_run_writes(run):
    (run.folder / "notes.txt").write_text("mine")
    runs.Run.create(run.folder, Classify(), force=True)
    assert (run.folder / "notes.txt").read_text() == "mine"


@pytest.mark.parametrize(
    "text", ["", "{", "[]", '{"task": "classify", "model": {"glimpse": 8}}', "null", '{"task": 3}']
)
def test_a_broken_configuration_names_its_file(run, text):
    (run.folder / "config.json").write_text(text)
    with pytest.raises(Problem, match=r"config\.json"):
        runs.Run.open(run.folder)


def test_what_is_no_run_is_said(tmp_path):
    with pytest.raises(Problem, match="there is no run folder"):
        runs.Run.open(tmp_path / "nowhere")
    with pytest.raises(Problem, match=r"no config\.json"):
        runs.Run.open(tmp_path)


def test_a_damaged_last_state_gives_the_one_before_and_says_so(run):
    said = []
    assert run.load_state(said.append) is None
    run.save_state(TENSORS, {"step": 1})
    run.save_state(TENSORS, {"step": 2})
    assert run.load_state(said.append)[1] == {"step": 2}
    assert not said
    (run.folder / runs.LAST).write_bytes(b"rubbish")
    assert run.load_state(said.append)[1] == {"step": 1}
    assert "taking the one before" in said[0]
    run.save_state(TENSORS, {"step": 3})
    assert [
        runs.load_checkpoint(run.folder / name)[1]["step"] for name in (runs.PREVIOUS, runs.LAST)
    ] == [1, 3], "the damaged one is gone"
    for name in (runs.PREVIOUS, runs.LAST):
        (run.folder / name).write_bytes(b"rubbish")
    with pytest.raises(Problem, match=r"no checkpoint .* is sound"):
        run.load_state(said.append)


def test_a_failed_save_keeps_the_old_state(run, monkeypatch):
    run.save_state(TENSORS, {"step": 1})

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(Problem, match="No space left"):
        run.save_state(TENSORS, {"step": 2})
    assert run.load_state(print)[1] == {"step": 1}
    assert not list(run.folder.glob(".*.tmp"))


def test_two_cannot_work_on_one_run(run):
    with (
        run.locked(),
        pytest.raises(Problem, match="another process"),
        runs.Run.open(run.folder).locked(),
    ):
        pass
    with run.locked():  # free again
        pass


def test_the_lock_of_a_dead_process_does_not_block(run):
    code = f"""
import os
from pathlib import Path
from drawbench.runs import Run
Run.open(Path({str(run.folder)!r})).locked().__enter__()
os._exit(9)
"""
    assert subprocess.run([sys.executable, "-c", code]).returncode == 9
    with run.locked():
        pass


def test_strays_of_a_killed_writer_are_cleared(run):
    (run.folder / ".result.json.123.tmp").write_text("half")
    with run.locked():
        assert not (run.folder / ".result.json.123.tmp").exists()


# --------------------------------------------------------------------------- what the torture found


def test_what_a_killed_process_left_is_removed_at_the_next_start(run):
    strays = [run.folder / ".config.json.1.tmp", run.figures / ".learning_curve.png.1.tmp"]
    for stray in strays:
        stray.write_text("half")
    (run.figures / "mine.tmp").write_text("whole")
    with run.locked():
        assert not any(stray.exists() for stray in strays)
    assert (run.figures / "mine.tmp").exists()


def test_a_folder_that_is_gone_is_said_and_not_made_again(run, tmp_path):
    run.save_state(TENSORS, FACTS)
    run.folder.rename(tmp_path / "away")
    writers = [
        lambda: run.save_state(TENSORS, FACTS),
        lambda: run.save_best(TENSORS, FACTS),
        lambda: run.write_metrics([{"step": 1}]),
        lambda: run.write_result({"value": 1}),
    ]
    for write in writers:
        with pytest.raises(Problem, match=r"one is gone: .* drawbench resume"):
            write()
    assert not run.folder.exists()
    (tmp_path / "away").rename(run.folder)
    assert run.load_state(pytest.fail)[1] == FACTS


def test_a_folder_that_goes_while_figures_are_drawn_is_said_too(run, tmp_path):
    with pytest.raises(Problem, match="is gone"), run.locked():
        run.folder.rename(tmp_path / "away")
        run.figures.mkdir(parents=True)  # as who saves a figure does


def test_of_two_that_make_a_run_at_once_the_first_has_it(tmp_path, monkeypatch):
    """The second looked when there was none yet, and comes to write when the first has written, or
    is just at it.
    """
    folder, other = tmp_path / "one", config.replace(Classify(), seed=1)

    def slow():
        monkeypatch.undo()
        runs.Run.create(folder, Classify())
        return {}

    monkeypatch.setattr(runs, "environment", slow)
    with pytest.raises(Problem, match="holds a run already"):
        runs.Run.create(folder, other)
    assert runs.Run.open(folder).config == Classify()


def test_a_result_that_was_altered_is_not_taken(run):
    run.write_result(
        {"value": 12.5, "confusion": [[1, 2], [3, 4]], "command": "drawbench classify"}
    )
    path, expected = run.folder / "result.json", run.result()
    assert expected == {
        "value": 12.5,
        "confusion": [[1, 2], [3, 4]],
        "command": "drawbench classify",
    }
    content = path.read_bytes()
    refused = 0
    for position in range(len(content)):
        changed = bytearray(content)
        changed[position] ^= 1
        path.write_bytes(changed)
        try:
            found = run.result()
        except Problem as problem:
            assert "result.json" in str(problem)
            refused += 1
        else:  # only where a space was hit
            assert found == expected, position
    assert refused > len(content) - 40


@pytest.mark.parametrize(
    "value",
    [{"value": 1}, {"value": 1, "sha256": None}, {"value": float("nan"), "sha256": "0" * 64}, {}],
)
def test_a_result_without_its_hash_is_not_taken(run, value):
    (run.folder / "result.json").write_text(json.dumps(value))
    with pytest.raises(Problem, match="does not match its SHA-256"):
        run.result()


def test_weights_are_not_taken_under_another_configuration(run):
    run.save_best(TENSORS, {"step": 1, "config": config.to_dict(run.config)})
    assert run.load_best()[1]["step"] == 1
    run.save_config(config.replace(run.config, clutter=4))
    with pytest.raises(Problem, match=r"another configuration than .*config\.json"):
        run.load_best()


@pytest.mark.parametrize("text", ["", "[]", "{", '{"comma'])
def test_a_broken_description_of_the_machine_costs_no_result(run, text):
    assert run.command == "drawbench classify"
    (run.folder / "environment.json").write_text(text)
    assert run.command == ""
