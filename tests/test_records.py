"""Run folders read for tables: what is wrong with one is said, the others are used."""

import shutil

import pytest
from made_runs import change, curve, made

from drawbench import records
from drawbench.records import find


def found(*places) -> tuple[list[str], list[str]]:
    said: list[str] = []
    return [record.name for record in find(places, said.append)], said


def test_a_run_and_a_folder_of_runs(tmp_path):
    made(tmp_path / "runs" / "b")
    made(tmp_path / "runs" / "a", seed=1)
    made(tmp_path / "single", seed=2)
    assert found(tmp_path / "runs", tmp_path / "single") == (["a", "b", "single"], [])


def test_settings_that_a_run_does_not_know_are_at_their_defaults(tmp_path):
    folder = made(tmp_path / "run")
    change(folder / "config.json", training={"of_another_version": 7})
    record = records.read(folder, print)
    assert (
        record.settings["distortion"] == 0.0
        and record.settings["of_another_version"] == 7
        and record.seed == 0
    )


BROKEN = {
    "not finished": lambda run: (run / "result.json").unlink(),
    "has no config.json": lambda run: (run / "config.json").unlink(),
    "not valid JSON": lambda run: (run / "result.json").write_text('{"task": "class'),
    "is not a result": lambda run: (run / "result.json").write_text("[]"),
    "lacks value": lambda run: change(run / "result.json", value="much"),
    "lacks low": lambda run: change(run / "result.json", low=float("nan")),
    "with an interval": lambda run: change(run / "result.json", low=4.1),
    "source 'digits' there, 'mnist' here": lambda run: change(run / "result.json", source="digits"),
    "task 'generate' there": lambda run: change(run / "result.json", task="generate"),
    "seed 5 there": lambda run: change(run / "result.json", seed=5),
    "lacks steps": lambda run: change(run / "result.json", steps="many"),
    "patch must be int": lambda run: change(run / "config.json", model={"patch": "12"}),
    "sections": lambda run: change(run / "config.json", data=3),
    "trains a model": lambda run: change(run / "config.json", task="make-data"),
    "cannot be read": lambda run: ((run / "config.json").unlink(), (run / "config.json").mkdir()),
    "larger than": lambda run: (run / "result.json").write_text(" " * (17 << 20)),
}


@pytest.mark.parametrize("said", BROKEN)
def test_a_broken_run_is_one_sentence_and_the_others_stay(tmp_path, said):
    made(tmp_path / "good")
    BROKEN[said](made(tmp_path / "bad", seed=1))
    names, words = found(tmp_path)
    assert names == ["good"] and len(words) == 1
    assert (
        (said in words[0] or said == "cannot be read")
        and "bad" in words[0]
        and "\n" not in words[0]
    )


def test_one_name_and_one_experiment_count_once(tmp_path):
    first = made(tmp_path / "published" / "run")
    shutil.copytree(first, tmp_path / "runs" / "run")
    shutil.copytree(first, tmp_path / "runs" / "copy")
    names, words = found(tmp_path / "published", tmp_path / "runs", first)
    assert names == ["run"]
    assert (
        "no further evidence" in words[0] and "same name" in words[1] and "named twice" in words[2]
    )


def test_a_damaged_table_is_left_out_and_its_run_stays(tmp_path):
    run = made(tmp_path / "run")
    curve(run, "clutter", {0: 1.0, 8: 4.0})
    (run / "error_against_glimpses.csv").write_bytes(b"\xff\xfe\x00 nothing")
    (run / "metrics.csv").write_text("step,validation_error\n100,9\n200,inf\nx,7\n")
    said: list[str] = []
    (record,) = find([tmp_path], said.append)
    assert len(said) == 1 and "error_against_glimpses.csv" in said[0]
    assert record.tables["metrics.csv"]["validation_error"].isna().tolist() == [False, True]
    assert set(record.tables) == {"metrics.csv", "error_against_clutter.csv"}


def test_a_pointer_tells_no_home(tmp_path):
    assert records.read(made(tmp_path / "runs" / "a"), print).pointer == "runs/a"


def test_a_table_with_a_number_of_400_digits_is_left_out(tmp_path):
    folder = made(tmp_path / "run")
    (folder / "error_against_clutter.csv").write_text(
        f"clutter,error,low,high,n\n{'9' * 400},1,1,1,1\n"
    )
    said = []
    assert "error_against_clutter.csv" not in records.read(folder, said.append).tables
    assert "error_against_clutter.csv" in said[0]
