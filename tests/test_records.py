"""Reading run folders: what is wrong with one is said, and the others are used."""

import json
import shutil

import pytest
from example_runs import CLASSIFIER, GENERATOR, change, curve, finished_run

from drawbench import config, records
from drawbench.errors import Problem


def names_in(*places) -> tuple[list[str], list[str]]:
    messages: list[str] = []
    return [record.name for record in records.find(places, messages.append)], messages


def test_a_run_and_a_folder_of_runs(tmp_path):
    finished_run(tmp_path / "runs" / "b")
    finished_run(tmp_path / "runs" / "a", seed=1)
    finished_run(tmp_path / "single", seed=2)
    assert names_in(tmp_path / "runs", tmp_path / "single") == (["a", "b", "single"], [])


def test_settings_missing_in_an_old_run_have_their_defaults(tmp_path):
    folder = finished_run(tmp_path / "run")
    change(folder / "config.json", training={"of_another_version": 7})
    record = records.read(folder, print)
    assert record.settings["distortion"] == 0.0 and record.settings["of_another_version"] == 7
    assert record.seed == 0
    assert record.pointer == f"{tmp_path.name}/run"  # no path of anybody's home


def test_a_measured_model_is_a_record_without_training(tmp_path):
    folder = finished_run(tmp_path / "run")
    measured = config.merge(config.MeasureModel, {}, {"model": "mine:network"})
    (folder / "config.json").write_text(json.dumps(config.to_dict(measured)))
    unknown = dict.fromkeys(("seed", "steps", "images_seen", "train_seconds", "glimpses"))
    change(folder / "result.json", model="mine:network", **unknown)
    record = records.read(folder, pytest.fail)
    assert record.settings["model"] == record.result["model"] == "mine:network"


BROKEN = {
    "not finished": lambda run: (run / "result.json").unlink(),
    "has no config.json": lambda run: (run / "config.json").unlink(),
    "not valid JSON": lambda run: (run / "result.json").write_text('{"task": "class'),
    "is not a result": lambda run: (run / "result.json").write_text("[]"),
    "value must be a number": lambda run: change(run / "result.json", value="much"),
    "low must be a number": lambda run: change(run / "result.json", low=float("nan")),
    "the interval": lambda run: change(run / "result.json", low=4.1),
    "source is 'digits' there": lambda run: change(run / "result.json", source="digits"),
    "result lacks bound_samples": lambda run: change(run / "result.json", task="generate"),
    "seed is 5 there": lambda run: change(run / "result.json", seed=5),
    "steps must be a number": lambda run: change(run / "result.json", steps="many"),
    "patch must be int": lambda run: change(run / "config.json", model={"patch": "12"}),
    "data must be a section": lambda run: change(run / "config.json", data=3),
    "of a data set": lambda run: (run / "config.json").write_text(
        json.dumps(config.to_dict(config.MakeData()))
    ),
    "config.json": lambda run: ((run / "config.json").unlink(), (run / "config.json").mkdir()),
    "larger than": lambda run: (run / "result.json").write_text(" " * (17 << 20)),
}


@pytest.mark.parametrize("words", BROKEN)
def test_a_broken_run_is_one_sentence_and_the_others_stay(tmp_path, words):
    finished_run(tmp_path / "good")
    BROKEN[words](finished_run(tmp_path / "bad", seed=1))
    names, messages = names_in(tmp_path)
    assert names == ["good"] and len(messages) == 1
    assert words in messages[0] and "bad" in messages[0] and "\n" not in messages[0]


@pytest.mark.parametrize("result", [CLASSIFIER, GENERATOR])
def test_the_schema_accepts_results_and_names_what_is_wrong(result):
    records.check_result(result | {"of_another_version": [1]})
    for name, field in records.FIELDS.items():
        if field.required and field.task in ("", result["task"]):
            with pytest.raises(Problem, match=f"lacks {name}"):
                records.check_result({key: value for key, value in result.items() if key != name})
        else:
            records.check_result(result | {name: None})
        with pytest.raises(Problem, match=f"{name} must be a {field.kind}"):
            records.check_result(result | {name: {}})


@pytest.mark.parametrize(
    "changes", [{"value": 101.0, "high": 102.0}, {"n": 0}, {"metric": records.BOUND}]
)
def test_the_schema_refuses_contradictions(changes):
    with pytest.raises(Problem):
        records.check_result(CLASSIFIER | changes)


def test_a_copy_of_a_run_is_no_further_evidence(tmp_path):
    first = finished_run(tmp_path / "published" / "run")
    shutil.copytree(first, tmp_path / "runs" / "run")
    shutil.copytree(first, tmp_path / "runs" / "copy")
    finished_run(tmp_path / "runs" / "elsewhere", processes=2, threads=3)
    names, messages = names_in(tmp_path / "published", tmp_path / "runs", first)
    assert names == ["run"]
    reasons = ("no further evidence", "no further evidence", "has the name of", "named twice")
    for words, message in zip(reasons, messages, strict=True):
        assert words in message


def test_a_damaged_table_is_left_out_and_its_run_stays(tmp_path):
    run = finished_run(tmp_path / "run")
    curve(run, "clutter", {0: 1.0, 8: 4.0})
    (run / "error_against_glimpses.csv").write_bytes(b"\xff\xfe\x00 nothing")
    (run / "error_against_canvas.csv").write_text(f"canvas,error,low,high,n\n{'9' * 400},1,1,1,1\n")
    (run / "metrics.csv").write_text("step,validation_error\n100,9\n200,inf\nx,7\n")
    messages: list[str] = []
    (record,) = records.find([tmp_path], messages.append)
    assert any("glimpses" in message for message in messages)
    canvas = record.tables.pop("error_against_canvas.csv", None)  # older pandas reads the number
    assert any("canvas" in message for message in messages) if canvas is None else canvas.empty
    assert record.tables["metrics.csv"]["validation_error"].isna().tolist() == [False, True]
    assert set(record.tables) == {"metrics.csv", "error_against_clutter.csv"}
