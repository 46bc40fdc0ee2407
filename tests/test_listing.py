"""``drawbench runs``: any folder has a row and nothing makes it fail; and completion in a shell."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from commands import MAIN, answer, drawbench, failed, succeeded
from example_runs import change, finished_run

from drawbench import config, listing
from drawbench.errors import Problem
from drawbench.runs import Run


@pytest.fixture
def place(tmp_path) -> Path:
    """Runs in every state, and folders that are none."""
    root = tmp_path / "runs"
    finished_run(root / "good", {"value": 4.0}, learning_rate=0.01)
    finished_run(root / "better", {"value": 3.7}, seed=1)
    finished_run(root / "drawn", {"task": "generate"})
    shutil.copytree(root / "good", root / "young")
    (root / "young" / "result.json").unlink()
    (root / "young" / "metrics.csv").write_text(
        "step,validation_error\n100,9.5\n250,8.5\n400,x\n?,1\n"
    )
    shutil.copytree(root / "good", root / "edited")
    text = (root / "edited" / "result.json").read_text()
    (root / "edited" / "result.json").write_text(text.replace("4.0", "0.1"))
    for name, content in {"binary": b"\xff\0", "list": b"[1]", "deep": b"[" * 100_000}.items():
        (root / name).mkdir()
        (root / name / "config.json").write_bytes(content)
    finished_run(root / "endless", {"model": "swin"})
    text = (root / "endless" / "config.json").read_text()
    (root / "endless" / "config.json").write_text(text.replace('"draw"', '"swin", "windows": NaN'))
    (root / "logs").mkdir()
    (root / ".hidden").mkdir()
    (root / "note.txt").write_text("mine")
    finished_run(root / "newer", {"model": "swin"})  # of another version
    change(root / "newer" / "config.json", model={"model": "swin", "windows": 3})
    return root


def by_name(*words) -> dict[str, dict]:
    return {row["name"]: row for row in answer("runs", *words)["runs"]}


def test_every_run_folder_has_a_row_whatever_is_in_it(place):
    rows = by_name(place)
    assert {name: row["state"] for name, row in rows.items()} == {
        **dict.fromkeys(("good", "better", "drawn", "newer"), "finished"),
        **dict.fromkeys(("edited", "binary", "list", "deep", "endless"), "damaged"),
        "young": "half-done",
    }
    assert all(bool(row["problem"]) == (row["state"] == "damaged") for row in rows.values())
    assert (rows["good"]["value"], rows["good"]["model"], rows["good"]["seed"]) == (4.0, "draw", 0)
    assert (rows["drawn"]["metric"], rows["drawn"]["data"]) == ("nll_bound_nats", "mnist-static")
    young = rows["young"]
    assert (young["metric"], young["value"], young["progress"]) == ("validation_error", 8.5, 0.4)
    assert young["settings"]["learning_rate"] == 0.01
    assert 0 <= young["age"] < 600
    result = succeeded(drawbench("runs", place))
    lines = {line.split()[0]: line for line in result.stdout.splitlines()}
    assert "half-done 40%" in lines[str(place / "young")]
    assert "8.50% (validation)" in lines[str(place / "young")]
    assert "SHA-256" in result.stderr and "binary" in result.stderr


def test_a_run_that_a_process_works_on_is_running(place):
    with Run.open(place / "young").locked():
        assert by_name(place)["young"]["state"] == "running"
    assert by_name(place)["young"]["state"] == "half-done"
    with Run.open(place / "young").locked():  # looking has left the lock to be had
        pass


@pytest.mark.parametrize(
    ("conditions", "names"),
    [
        (["state=finished", "task=classify"], {"good", "better", "newer"}),
        (["value<3.9", "value>0"], {"better"}),
        (["learning_rate=0.01"], {"good", "young", "edited"}),
        (["data=*static"], {"drawn"}),
        (["fixed-train=no", "seed=1"], {"better"}),
        (["seed=7"], set()),
    ],
)
def test_conditions_choose_runs(place, conditions, names):
    words = [word for condition in conditions for word in ("--where", condition)]
    assert set(by_name(place, *words)) == names


def test_runs_are_sorted_and_those_without_the_field_are_last(place):
    words = [place, "--where", "state=finished", "--where", "metric=test*"]
    assert list(by_name(*words, "--sort", "value")) == ["better", "good", "newer"]
    assert list(by_name(*words, "--sort", "value", "--reverse")) == ["good", "newer", "better"]
    assert list(by_name(*words, "--sort", "window-map"))[-1] == "newer"


def test_a_wrong_field_or_condition_is_one_sentence(place):
    failed(drawbench("runs", place, "--where", "mdoel=draw"), "did you mean 'model'")
    failed(drawbench("runs", place, "--where", "value<few"), "FIELD<NUMBER")
    failed(drawbench("runs", place, "--sort", "colour"), "colour")
    assert "There is no run" in succeeded(drawbench("runs", place / "logs")).stdout
    failed(drawbench("runs", place / "nowhere"), "nowhere", status=2)


def test_diff_shows_what_differs_and_nothing_else(place):
    result = answer("runs", "diff", place / "good", place / "better")
    assert result["settings"] == {"learning_rate": [0.01, 0.001], "seed": [0, 1]}
    assert result["results"] == {"value": [4.0, 3.7], "seed": [0, 1]}
    assert result["environment"] == {}
    text = succeeded(drawbench("runs", "diff", place / "good", place / "better")).stdout
    assert "learning_rate" in text and "batch" not in text
    settings = {}
    for name, gain in (("one", 2), ("other", 3)):
        shutil.copytree(place / "good", place / name)
        path = place / name / "config.json"
        settings = json.loads(path.read_text())
        settings["model"] = {"model": "mine:net", "arguments": {"gain": gain}}
        path.write_text(json.dumps(settings))
    text = succeeded(drawbench("runs", "diff", place / "one", place / "other")).stdout
    assert "{'gain': 2}" in text and "{'gain': 3}" in text
    for name in ("one", "other"):
        shutil.rmtree(place / name)
    same = answer("runs", "diff", place / "good", place / "good")
    assert not same["settings"] and not same["results"]
    assert answer("runs", "diff", place / "good", place / "young")["results"]["value"] == [
        4.0,
        None,
    ]
    failed(drawbench("runs", "diff", place / "good", place / "edited"), "SHA-256")
    failed(drawbench("runs", "diff", place / "good", place / "logs"), "config.json")
    failed(drawbench("runs", "diff", place / "good", place / "nowhere"), "no run folder")


def test_a_plain_name_is_that_of_a_run_in_the_usual_places(place, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "results").mkdir()
    place.rename(tmp_path / "results" / "runs")
    assert answer("runs", "good")["runs"][0]["run"] == "results/runs/good"
    assert set(answer("runs", "diff", "good", "better")["settings"]) == {"learning_rate", "seed"}


def test_reading_needs_no_torch(place):
    code = (
        "import sys; from drawbench import listing; from pathlib import Path\n"
        f"print(len(listing.rows([Path({str(place)!r})], print)), 'torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "10 False\n"


def test_an_unknown_field_is_allowed_where_there_is_no_run():
    assert listing.chosen([], ["anything=1"]) == []
    with pytest.raises(Problem, match="FIELD=PATTERN"):
        listing.chosen([], ["anything"])


# ------------------------------------------------------------------------------------- completion


def completed(folder: Path, line: str) -> list[str]:
    """Return what a shell offers for the last word of a command line."""
    words = line.split(" ")
    asked = {"COMP_WORDS": line, "COMP_CWORD": str(len(words) - 1)}
    environment = {**os.environ, **asked, "_DRAWBENCH_COMPLETE": "bash_complete"}
    done = subprocess.run(
        MAIN, cwd=folder, env=environment, capture_output=True, text=True, check=True
    )
    assert done.stderr == ""
    return [item.partition(",")[2] for item in done.stdout.split()]


@pytest.fixture(scope="module")
def home(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("home")
    finished_run(folder / "results" / "runs" / "tram")
    finished_run(folder / "results" / "published" / "train")
    (folder / "results" / "runs" / "logs").mkdir()
    return folder


@pytest.mark.parametrize(
    ("line", "offered"),
    [
        ("drawbench eva", ["evaluate"]),
        ("drawbench evaluate tra", ["train", "tram"]),
        ("drawbench plot tram", ["tram"]),
        ("drawbench runs di", ["diff", "di"]),
        ("drawbench generate --from tr", ["train", "tram"]),
        ("drawbench classify --recipe paper-", ["paper-4", "paper-8"]),
        ("drawbench generate --recipe paper-", ["paper-"]),  # left to the shell: file names
        ("drawbench classify --glim", ["--glimpses"]),
        ("drawbench classify --model conv", ["conv2", "conv6"]),
        ("drawbench nonsense tra", []),
        ("drawbench tables results/pub", ["results/pub"]),
    ],
)
def test_a_shell_completes_commands_options_runs_and_recipes(home, line, offered):
    assert completed(home, line) == offered


def test_completion_loads_nothing_heavy(home):
    code = """
import os, sys
os.environ |= {"COMP_WORDS": "drawbench evaluate tra", "COMP_CWORD": "2"}
os.environ["_DRAWBENCH_COMPLETE"] = "bash_complete"
from drawbench.cli import main
try:
    main()
except SystemExit:
    print([name for name in ("torch", "numpy", "pandas", "matplotlib") if name in sys.modules])
"""
    words = [sys.executable, "-c", code]
    done = subprocess.run(words, cwd=home, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"


@pytest.mark.skipif(shutil.which("bash") is None, reason="there is no bash")
def test_the_line_of_the_readme_switches_completion_on(home, tmp_path):
    launcher = tmp_path / "drawbench"
    launcher.write_text(f'#!/bin/sh\nexec {" ".join(MAIN)} "$@"\n')
    launcher.chmod(0o755)
    script = (
        'eval "$(_DRAWBENCH_COMPLETE=bash_source drawbench)"\n'
        "COMP_WORDS=(drawbench evaluate tra) COMP_CWORD=2\n"
        '_drawbench_completion drawbench tra evaluate\necho "${COMPREPLY[@]}"\n'
    )
    environment = os.environ | {"PATH": f"{tmp_path}:{os.environ['PATH']}"}
    words = ["bash", "--norc", "-c", script]
    done = subprocess.run(words, cwd=home, env=environment, capture_output=True, text=True)
    if "not supported for Bash versions older" in done.stderr:
        pytest.skip("an old bash")
    assert done.stdout.split() == ["train", "tram"], done.stderr


# ------------------------------------------------------------------------- a run as its own recipe


def test_a_run_is_a_recipe_of_its_own(place):
    run = place / "good"
    sections = config.load_recipe(str(run / "config.json"))
    assert sections["task"] == "classify"
    assert sections["training"] == {"steps": 1000, "learning_rate": 0.01}
    again = config.merge(config.Classify, {k: v for k, v in sections.items() if k != "task"}, {})
    assert again == config.from_dict(json.loads((run / "config.json").read_text()))
    assert config.load_recipe(str(run)) == sections
    for name in ("binary", "list", "deep", "newer"):
        with pytest.raises(Problem, match="is not the configuration of a run"):
            config.load_recipe(str(place / name / "config.json"))
