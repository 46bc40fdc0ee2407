import builtins
import json
import os
import subprocess
import sys

import pytest
import torch
from safetensors.torch import load_file, save_file

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


def same(tensors, facts):
    kinds = {name: (tensor.dtype, tensor.tolist()) for name, tensor in tensors.items()}
    expected = {name: (tensor.dtype, tensor.tolist()) for name, tensor in TENSORS.items()}
    return facts == FACTS and kinds == expected


def test_a_checkpoint_is_restored_bit_by_bit(checkpoint):
    assert same(*runs.load_checkpoint(checkpoint))
    assert same(load_file(checkpoint), FACTS)  # any safetensors reader can


def test_every_flipped_byte_is_detected(checkpoint):
    """One bit in every byte of the file: header, facts and values alike."""
    content = checkpoint.read_bytes()
    for position in range(len(content)):
        changed = bytearray(content)
        changed[position] ^= 1 << (position % 8)
        checkpoint.write_bytes(changed)
        try:
            loaded = runs.load_checkpoint(checkpoint)
        except Problem:
            continue
        assert same(*loaded), position  # only bytes without meaning, such as a space, may pass


def test_every_truncation_is_detected(checkpoint):
    content = checkpoint.read_bytes()
    for length in range(0, len(content), 7):
        checkpoint.write_bytes(content[:length])
        with pytest.raises(Problem, match=r"one\.safetensors"):
            runs.load_checkpoint(checkpoint)


def test_a_foreign_safetensors_file_is_refused(tmp_path):
    save_file({"a": torch.ones(2)}, tmp_path / "foreign.safetensors")
    with pytest.raises(Problem, match="not a drawbench checkpoint"):
        runs.load_checkpoint(tmp_path / "foreign.safetensors")


def test_a_pickle_is_never_executed(tmp_path):
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


def writers(run):
    """Everything that writes into a run folder."""
    return [
        lambda: run.save_state(TENSORS, FACTS),
        lambda: run.save_best(TENSORS, FACTS),
        lambda: run.write_metrics([{"step": 1}]),
        lambda: run.write_result({"value": 1}),
    ]


def finish(run):
    for write in writers(run):
        write()
    return run


def full(*_):
    raise OSError(28, "No space left on device")


def test_a_run_opens_with_its_configuration(run):
    assert runs.Run.open(run.folder).config == Classify()
    environment = files.read_json(run.folder / "environment.json")
    assert environment["torch"] == torch.__version__
    assert environment["command"] == "drawbench classify"


@pytest.mark.parametrize(
    ("asked", "device"), [("auto", "NVIDIA H100"), ("cuda", "NVIDIA H100"), ("cpu", "cpu")]
)
def test_the_device_is_the_one_that_trains(tmp_path, monkeypatch, asked, device):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "NVIDIA H100")
    run = runs.Run.create(tmp_path / "run", config.replace(Classify(), device=asked))
    assert json.loads((run.folder / "environment.json").read_text())["device"] == device


def test_a_run_is_never_replaced_without_force(run):
    run.write_result({"value": 1})
    with pytest.raises(Problem, match="--force"):
        runs.Run.create(run.folder, Classify())
    assert run.result() == {"value": 1}
    (run.folder / "notes.txt").write_text("mine")
    runs.Run.create(run.folder, config.replace(Classify(), glimpses=2), force=True)
    assert not (run.folder / "result.json").exists()
    assert (run.folder / "notes.txt").read_text() == "mine"
    assert runs.Run.open(run.folder).config.model.glimpses == 2


def test_a_folder_of_something_else_is_never_touched(tmp_path):
    with pytest.raises(Problem, match="there is no run folder"):
        runs.Run.open(tmp_path / "nowhere")
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(Problem, match=r"no config\.json"):
        runs.Run.open(tmp_path)
    with pytest.raises(Problem, match="not a run folder"):
        runs.Run.create(tmp_path, Classify(), force=True)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


@pytest.mark.parametrize(
    "text", ["", "{", "[]", '{"task": "classify", "model": {"glimpse": 8}}', "null", '{"task": 3}']
)
def test_a_broken_configuration_names_its_file(run, text):
    (run.folder / "config.json").write_text(text)
    with pytest.raises(Problem, match=r"config\.json"):
        runs.Run.open(run.folder)


def test_a_damaged_last_state_falls_back_to_the_one_before(run):
    messages = []
    assert run.load_state(messages.append) is None
    run.save_state(TENSORS, {"step": 1})
    run.save_state(TENSORS, {"step": 2})
    assert run.load_state(messages.append)[1] == {"step": 2}
    assert not messages
    (run.folder / runs.LAST).write_bytes(b"rubbish")
    assert run.load_state(messages.append)[1] == {"step": 1}
    assert "taking the one before" in messages[0]
    run.save_state(TENSORS, {"step": 3})
    states = [run.folder / name for name in (runs.PREVIOUS, runs.LAST)]
    steps = [runs.load_checkpoint(path)[1]["step"] for path in states]
    assert steps == [1, 3], "the damaged one must not replace the sound one"
    for path in states:
        path.write_bytes(b"rubbish")
    with pytest.raises(Problem, match=r"no checkpoint .* is sound"):
        run.load_state(messages.append)


def test_a_failed_save_keeps_the_old_state(run, monkeypatch):
    run.save_state(TENSORS, {"step": 1})
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(Problem, match="No space left"):
        run.save_state(TENSORS, {"step": 2})
    assert run.load_state(print)[1] == {"step": 1}
    assert not list(run.folder.glob(".*.tmp"))


def test_weights_of_another_configuration_are_refused(run):
    run.save_best(TENSORS, {"step": 1, "config": config.to_dict(run.config)})
    assert run.load_best()[1]["step"] == 1
    run.save_config(config.replace(run.config, clutter=4))
    with pytest.raises(Problem, match=r"another configuration than .*config\.json"):
        run.load_best()


@pytest.mark.parametrize("text", ["", "[]", "{", '{"comma'])
def test_a_broken_environment_file_costs_no_result(run, text):
    assert run.command == "drawbench classify"
    (run.folder / "environment.json").write_text(text)
    assert run.command == ""


# ------------------------------------------------------------------------------------ finished runs


@pytest.mark.parametrize("sound", [True, False])
def test_the_weights_of_a_finished_run_are_never_replaced(run, sound):
    assert not run.finished
    finish(run)
    if not sound:
        (run.folder / "result.json").write_text("{")
    before = {path.name: path.read_bytes() for path in run.folder.glob("*.safetensors")}
    assert run.finished and runs.Run.open(run.folder).finished
    for save in writers(run)[:2]:
        with pytest.raises(Problem, match=r"is finished: .* never trained again .* --force"):
            save()
    assert before == {path.name: path.read_bytes() for path in run.folder.glob("*.safetensors")}
    assert run.load_state(pytest.fail)[1] == FACTS, "reading stays possible"
    (run.folder / runs.LAST).unlink()
    with pytest.raises(Problem, match="is finished"):  # no fresh start either
        run.load_state(pytest.fail)
    run.write_result({"value": 2})  # measuring again is allowed
    assert not runs.Run.create(run.folder, Classify(), force=True).finished


@pytest.mark.parametrize("load", [runs.Run.load_best, runs.Run.metrics])
def test_what_is_missing_is_trained_or_lost(run, load):
    with pytest.raises(Problem, match="train it first: drawbench resume"):
        load(run)
    run.write_result({"value": 1})
    with pytest.raises(Problem, match=r"was lost, .*again with the command in its result\.json"):
        load(run)


def test_a_read_only_run_can_be_opened_and_measured(run, monkeypatch):
    """Opening for writing is refused by a patch, because root could write in any folder."""
    finish(run)

    def refusing(real, writes):
        def call(path, how="r", *args, **kwargs):
            if writes(how) and str(path).startswith(str(run.folder)):
                raise OSError(30, "Read-only file system", str(path))
            return real(path, how, *args, **kwargs)

        return call

    flags = os.O_CREAT | os.O_WRONLY | os.O_RDWR
    monkeypatch.setattr(builtins, "open", refusing(open, lambda mode: set(mode) & set("wxa+")))
    monkeypatch.setattr(os, "open", refusing(os.open, lambda how: how & flags))
    monkeypatch.setattr(os, "access", lambda path, mode: mode != os.W_OK)
    opened = runs.Run.open(run.folder)
    assert opened.load_best()[1] == FACTS
    assert opened.result() == {"value": 1} and opened.finished and not opened.writable
    assert opened.metrics().step.tolist() == [1]
    for write in writers(opened)[2:]:
        with pytest.raises(Problem, match=r"cannot write .*: Read-only file system"):
            write()
    with pytest.raises(Problem, match=r"cannot write in .*Read-only"), opened.locked():
        pass


# -------------------------------------------------------------------------------------------- links


@pytest.fixture
def outside(tmp_path):
    """A file of the user's that no run may touch."""
    path = tmp_path / "outside" / ".thesis.tmp"
    path.parent.mkdir()
    path.write_text("years of work")
    yield path
    assert path.read_text() == "years of work"
    assert [child.name for child in path.parent.iterdir()] == [path.name]


@pytest.mark.parametrize("name", runs.FILES)
def test_no_file_is_written_through_a_link(run, outside, name):
    target = outside
    if name == "config.json":
        target = outside.parent.parent / name
        files.write_json(target, config.to_dict(Classify()))
    before = target.read_bytes()
    (run.folder / name).unlink(missing_ok=True)
    (run.folder / name).symlink_to(target)
    if name != runs.RESULT:  # with that it counts as finished
        finish(run)
    with run.locked():
        pass
    runs.Run.create(run.folder, config.replace(Classify(), seed=1), force=True)
    assert target.read_bytes() == before
    assert not (run.folder / name).is_symlink()


@pytest.mark.parametrize("name", ["figures", "tensorboard"])
def test_a_folder_that_is_a_link_is_refused(run, outside, name):
    folder = run.folder / name
    if folder.exists():
        folder.rmdir()
    folder.symlink_to(outside.parent)
    with pytest.raises(Problem, match=f"{name} is a link"):
        run.subfolder(name)
    with pytest.raises(Problem, match=f"{name} is a link"):
        runs.Run.create(run.folder, Classify(), force=True)


def test_a_folder_with_nothing_but_a_link_is_not_vacant(tmp_path):
    (tmp_path / "one").mkdir()
    (tmp_path / "one" / "figures").symlink_to(tmp_path)
    with pytest.raises(Problem, match="is not a run folder"):
        runs.Run.create(tmp_path / "one", Classify())


@pytest.mark.parametrize("link", [os.symlink, os.link])
def test_a_lock_file_that_is_a_link_is_refused(run, outside, link):
    (run.folder / ".lock").unlink(missing_ok=True)
    link(outside, run.folder / ".lock")
    with pytest.raises(Problem, match=r"\.lock is no lock file, but a link"), run.locked():
        pass


def test_a_copy_follows_no_link(run, outside, tmp_path):
    run.save_best(TENSORS, FACTS)
    run.write_result({"value": 1})
    (run.folder / "notes.txt").symlink_to(outside)
    (run.folder / "more").symlink_to(outside.parent)
    copy = run.copy_to(tmp_path / "copy", half=True)
    assert {path.name for path in copy.folder.iterdir()} == {
        *("config.json", "environment.json", "result.json", "best.safetensors", "figures")
    }
    assert copy.finished and copy.result() == {"value": 1, "weights": "float16"}


def test_a_copy_that_fails_leaves_nothing(run, tmp_path, monkeypatch):
    run.save_best(TENSORS, FACTS)
    run.write_result({"value": 1})
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(Problem, match=r"cannot copy .*one to .*copy: .*No space left"):
        run.copy_to(tmp_path / "copy")
    assert not (tmp_path / "copy").exists()


# -------------------------------------------------------------------------------------------- locks


def test_two_processes_cannot_work_on_one_run(run):
    with (
        run.locked(),
        pytest.raises(Problem, match="another process is working on"),
        runs.Run.open(run.folder).locked(),
    ):
        pass
    with run.locked():  # free again
        pass


def test_the_lock_of_a_dead_process_does_not_block(run):
    code = (
        "import os\nfrom pathlib import Path\nfrom drawbench.runs import Run\n"
        f"Run.open(Path({str(run.folder)!r})).locked().__enter__()\nos._exit(9)"
    )
    assert subprocess.run([sys.executable, "-c", code]).returncode == 9
    with run.locked():
        pass


def test_temporary_files_of_a_killed_process_are_removed_at_the_next_start(run):
    strays = [run.folder / ".config.json.1.tmp", run.figures / ".learning_curve.png.1.tmp"]
    for stray in strays:
        stray.write_text("half")
    (run.figures / "mine.tmp").write_text("whole")
    with run.locked():
        assert not any(stray.exists() for stray in strays)
    assert (run.figures / "mine.tmp").exists()


def test_a_folder_that_disappears_is_reported_and_not_made_again(run, tmp_path):
    run.save_state(TENSORS, FACTS)
    run.folder.rename(tmp_path / "away")
    for write in writers(run):
        with pytest.raises(Problem, match=r"one has disappeared: .* drawbench resume"):
            write()
    assert not run.folder.exists()
    (tmp_path / "away").rename(run.folder)
    assert run.load_state(pytest.fail)[1] == FACTS


def test_a_folder_that_disappears_while_figures_are_drawn_is_reported_too(run, tmp_path):
    with pytest.raises(Problem, match="has disappeared"), run.locked():
        run.folder.rename(tmp_path / "away")
        run.figures.mkdir(parents=True)  # as saving a figure does


def test_of_two_that_make_a_run_at_once_the_first_gets_it(tmp_path, monkeypatch):
    """The second checks while there is none, and comes to write when the first has written."""
    folder, other = tmp_path / "one", config.replace(Classify(), seed=1)

    def slow():
        monkeypatch.undo()
        runs.Run.create(folder, Classify())
        return {}

    monkeypatch.setattr(runs, "environment", slow)
    with pytest.raises(Problem, match="already holds a run"):
        runs.Run.create(folder, other)
    assert runs.Run.open(folder).config == Classify()


# ------------------------------------------------------------------------------------------ results


def test_every_changed_byte_of_a_result_is_detected(run):
    result = {"value": 12.5, "confusion": [[1, 2], [3, 4]], "command": "drawbench classify"}
    run.write_result(result)
    path = run.folder / "result.json"
    assert run.result() == result
    content = path.read_bytes()
    passed = 0
    for position in range(len(content)):
        path.write_bytes(
            content[:position] + bytes([content[position] ^ 1]) + content[position + 1 :]
        )
        try:
            assert run.result() == result, position  # only white space may pass
            passed += 1
        except Problem as problem:
            assert "result.json" in str(problem)
    assert passed < 40


@pytest.mark.parametrize(
    "value",
    [{"value": 1}, {"value": 1, "sha256": None}, {"value": float("nan"), "sha256": "0" * 64}, {}],
)
def test_a_result_without_its_hash_is_refused(run, value):
    (run.folder / "result.json").write_text(json.dumps(value))
    with pytest.raises(Problem, match="does not match its SHA-256"):
        run.result()


def test_only_a_repository_that_tracks_the_package_gives_the_commit(tmp_path):
    def git(*words):
        command = ["git", "-C", tmp_path, "-c", "user.name=a", "-c", "user.email=a@b", *words]
        subprocess.run(command, check=True, capture_output=True)

    file, other = tmp_path / "package.py", tmp_path / "other.py"
    file.touch(), other.touch()
    assert runs._commit(file) is None, "no repository"
    git("init")
    git("add", "other.py")
    git("commit", "-m", "first")
    assert runs._commit(file) is None, "a repository of something else"
    commit = runs._commit(other)
    assert commit and len(commit) == 12
    other.write_text("changed")
    assert runs._commit(other) == f"{commit}-dirty"
