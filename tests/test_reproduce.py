"""Studies, their plan, and the command that carries one out."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from click.testing import CliRunner

from drawbench import studies
from drawbench.cli import cli
from drawbench.data import sources_root
from drawbench.errors import Problem
from drawbench.runs import load_checkpoint

SCENES = {
    "source": "digits", "canvas": 32, "clutter": 1, "glimpses": 2, "patch": 4, "hidden": 8,
    "threads": 1, "warmup": 5, "figures": False,
}  # fmt: skip
RUN = '[[run]]\nname = "a"\ntask = "classify"\nrecipe = "quickstart"\n'


def write_study(folder: Path, **steps: int) -> Path:
    """Write a study of two runs, the second of which starts from the first."""
    first = {**SCENES, "steps": steps.get("first", 20)}
    second = {**SCENES, "steps": steps.get("second", 20), "distortion": 0.5}
    words = "\n".join(
        f'[[run]]\nname = "{name}"\ntask = "classify"\nrecipe = "quickstart"\n{more}\n'
        f"[run.settings]\n"
        + "\n".join(f"{key} = {json.dumps(value)}" for key, value in settings.items())
        for name, settings, more in (
            ("second", second, 'start = "first"'),
            ("first", first, 'evaluate = { clutter = "0..2" }'),
        )
    )
    path = folder / "study.toml"
    path.write_text(words + "\n")
    return path


def words_for(folder: Path, study: Path, *more: str) -> list[str]:
    places = ["--runs", folder / "runs", "--datasets", folder / "data", "--out", folder / "out"]
    return ["reproduce", str(study), *map(str, places), *more]


def reproduce(folder: Path, study: Path, *more: str):
    return CliRunner().invoke(cli, words_for(folder, study, *more), prog_name="drawbench")


@pytest.fixture(scope="module")
def carried_out(tmp_path_factory):
    folder = tmp_path_factory.mktemp("reproduce")
    study = write_study(folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DRAWBENCH_CLASSIFY_HIDDEN", "9")  # which no run of a study takes
        return folder, study, reproduce(folder, study, "--jobs", "2", "--json")


@pytest.mark.parametrize("name", [*studies.names(), "all"])
def test_every_study_of_the_package_can_be_planned(name, tmp_path):
    plan = studies.plan(studies.load(name), tmp_path, Path("results/published"))
    assert plan and len({job.name for job in plan}) == len(plan)
    assert all(job.state == "to do" and job.config.training.steps for job in plan)
    names = [job.name for job in plan]
    assert all(names.index(job.start) < names.index(job.name) for job in plan if job.start)


@pytest.mark.parametrize(
    ("study", "some"),
    [("all", {"eye-4", "draw-8-decay-seed2"}), ("results/photographs.toml", {"photographs-draw"})],
)
def test_a_published_run_of_a_study_has_the_settings_that_the_study_gives(study, some):
    published = Path("results/published")  # planning refuses a folder with other settings
    plan = studies.plan(studies.load(study), published, published)
    assert {job.name: job.state for job in plan if job.state != "finished"} == {}
    assert some <= {job.name for job in plan}


@pytest.mark.parametrize(
    ("own", "number", "names"),
    [
        ("[1]", None, {"a": 1}),
        ("[1]", 3, {"a": 1, "a-seed0": 0, "a-seed2": 2}),
        ("[2, 0]", None, {"a": 2, "a-seed0": 0}),
        ("[2, 0]", 1, {"a": 2}),
    ],
)
def test_the_first_seed_of_a_study_has_the_folder_without_a_number(tmp_path, own, number, names):
    (tmp_path / "study.toml").write_text(f"{RUN}seeds = {own}\n")
    runs = studies.load(str(tmp_path / "study.toml"))
    plan = studies.plan(runs, tmp_path, tmp_path, seeds=number)
    assert {job.name: job.settings["seed"] for job in plan} == names


def test_only_what_a_cpu_trained_tells_core_minutes(tmp_path):
    plan = studies.plan(studies.load("table2"), tmp_path, Path("results/published"))
    minutes = {job.name: job.minutes for job in plan}
    assert minutes["draw-20"] > 0 and minutes["draw-64-wide"] is None


def test_all_is_every_run_once_with_all_seeds_and_conditions(tmp_path):
    runs = {run["name"]: run for run in studies.load("all")}
    assert runs["draw"]["seeds"] == [0, 1, 2] and "clutter" in runs["draw"]["evaluate"]


def test_a_study_is_carried_out_and_its_tables_are_made(carried_out):
    folder, _, result = carried_out
    assert result.exit_code == 0, result.stderr
    report = json.loads(result.stdout)
    assert [row["state"] for row in report["runs"]] == ["finished", "finished"]
    assert (folder / "runs/first/error_against_clutter.csv").is_file()
    config = json.loads((folder / "runs/second/config.json").read_text())
    assert config["training"]["start"] == str(folder / "runs/first")
    assert any(path.endswith(".md") for path in report["files"])


def test_what_is_finished_is_not_done_again(carried_out):
    folder, study, _ = carried_out
    before = {path: path.stat().st_mtime_ns for path in (folder / "runs").rglob("*.safetensors")}
    result = reproduce(folder, study)
    assert result.exit_code == 0 and "0 of 2 runs to train" in result.stderr
    assert all(path.stat().st_mtime_ns == time for path, time in before.items())


def test_a_dry_run_writes_nothing(tmp_path):
    result = reproduce(
        tmp_path, write_study(tmp_path), "--dry-run", "--only", "second", "--seeds", "2"
    )
    assert result.exit_code == 0 and "4 of 4 runs to train" in result.stdout
    assert result.stderr == ""
    assert not (tmp_path / "runs").exists()


def test_another_run_in_a_folder_is_refused(carried_out, tmp_path):
    folder, _, _ = carried_out
    result = reproduce(folder, write_study(tmp_path, first=30))
    assert result.exit_code == 1 and "steps is 20" in result.stderr.replace("\n", " ")


WRONG_STUDIES = {
    b"\xff\xfe[\0": "not valid TOML",
    b"title = 3": r"no \[\[run\]\]",
    b"run = [1]": "a table",
    RUN.replace('task = "classify"\n', ""): "needs a 'task'",
    RUN + "sedes = [1]": "did you mean 'seeds'",
    RUN.replace("classify", "evaluate"): "trains nothing",
    RUN + "seeds = [0, 1]\n" + RUN.replace('"a"', '"a-seed1"'): "would have the folder a-seed1",
    RUN.replace("quickstart", "quickstar"): "did you mean 'quickstart'",
    RUN.replace("quickstart", "mnist"): "not one of drawbench classify",
    RUN.replace('"a"', '".."'): "one plain word",
    RUN + RUN: "more than once",
    RUN + 'seeds = "x"': "seeds such as",
    RUN + "seeds = [0, 0]": "each once",
    RUN + "seeds = [-1]": "seeds such as",
    RUN + "seeds = [true]": "seeds such as",
    RUN + "start = 3": "the name of another run",
    RUN + 'start = "b"': "no run of it",
    RUN + 'start = "a"': "starts from itself",
    RUN + 'settings = "x"': "settings such as",
    RUN + "settings = { seed = 3 }": "its seeds in seeds",
    RUN + "settings = { cluter = 3 }": "run a: .*did you mean 'clutter'",
    RUN + 'settings = { steps = "x" }': "run a: steps must be",
    RUN + "evaluate = 3": "under conditions such as",
    RUN + 'evaluate = { cluter = "1" }': "did you mean 'clutter'",
    RUN + 'evaluate = { clutter = "0...4" }': "clutter '0...4' is not a list of whole numbers",
    RUN.replace("classify", "generate").replace("quickstart", "mnist")
    + 'evaluate = { clutter = "1" }': "cannot be measured against 'clutter'$",
}


@pytest.mark.parametrize("content", WRONG_STUDIES, ids=range(len(WRONG_STUDIES)))
def test_a_wrong_study_is_one_sentence(tmp_path, content):
    path = tmp_path / "study.toml"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(Problem, match=WRONG_STUDIES[content]):
        studies.plan(studies.load(str(path)), tmp_path, tmp_path)
    assert os.listdir(tmp_path) == ["study.toml"]


@pytest.mark.parametrize("settings", ['model = "evil:net"', 'dataset = "evil:data"'])
def test_a_study_imports_no_module_that_is_not_trusted(tmp_path, monkeypatch, settings):
    monkeypatch.chdir(tmp_path)
    Path("evil.py").write_text("open('imported', 'w').close()\n")
    study = tmp_path / "study.toml"
    study.write_text(
        f'[[run]]\nname = "a"\ntask = "classify"\nrecipe = "cluttered-100"\n'
        f"settings = {{ steps = 1, {settings} }}\n"
    )
    refused = reproduce(tmp_path, study)
    assert refused.exit_code == 1 and "add --trust evil" in refused.stderr
    assert not Path("imported").exists() and not (tmp_path / "runs").exists()


def test_a_scale_is_a_number(tmp_path):
    refused = reproduce(tmp_path, write_study(tmp_path), "--scale", "nan")
    assert refused.exit_code == 2 and "--scale is a number above 0" in refused.stderr


def test_a_study_is_not_changed_by_the_environment(carried_out, monkeypatch):
    monkeypatch.setenv("DRAWBENCH_CLASSIFY_HIDDEN", "9")
    monkeypatch.setenv("DRAWBENCH_SOURCES", str(sources_root()))
    assert "DRAWBENCH_CLASSIFY_HIDDEN" not in studies.environment()
    assert studies.environment()["DRAWBENCH_SOURCES"] == str(sources_root())
    settings = json.loads((carried_out[0] / "runs" / "first" / "config.json").read_text())
    assert settings["model"]["hidden"] == 8


def test_a_study_may_have_a_byte_order_mark(tmp_path):
    (tmp_path / "study.toml").write_bytes(b"\xef\xbb\xbf" + RUN.encode())
    (job,) = studies.plan(studies.load(str(tmp_path / "study.toml")), tmp_path, tmp_path)
    assert job.name == "a"


@pytest.mark.processes
def test_a_failing_run_does_not_stop_the_others(tmp_path):
    study = write_study(tmp_path, second=10)
    text = (
        study.read_text()
        .replace('start = "first"', "")
        .replace('evaluate = { clutter = "0..2" }', "")
    )
    study.write_text(text + 'precision = "tf32"\n')  # of the first run, which is listed last
    result = reproduce(tmp_path, study, "--json", "--jobs", "2")
    assert result.exit_code == 1 and "1 of 2 runs failed: first" in result.stderr
    states = {row["run"]: row["state"] for row in json.loads(result.stdout)["runs"]}
    assert states == {"first": "to do", "second": "finished"}


@pytest.mark.slow
def test_a_rehearsal_shrinks_the_lengths_and_its_tables_say_so(tmp_path):
    study = write_study(tmp_path, first=1000, second=1000)
    result = reproduce(tmp_path, study, "--scale", "0.01", "--only", "first", "--json")
    assert result.exit_code == 0, result.stderr
    config = json.loads((tmp_path / "runs/rehearsal-0.01/first/config.json").read_text())
    assert config["training"]["steps"] == 10
    notes = [
        Path(path).read_text()
        for path in json.loads(result.stdout)["files"]
        if path.endswith(".md")
    ]
    assert notes and all("Rehearsal at 0.01" in note for note in notes)


@pytest.mark.slow
def test_stopped_and_started_again_it_ends_the_same(carried_out, tmp_path):
    whole, _, _ = carried_out
    study = write_study(tmp_path)
    command = [sys.executable, "-m", "drawbench", *words_for(tmp_path, study)]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, env=os.environ)
    deadline = time.monotonic() + 120
    while not (tmp_path / "runs/first/config.json").is_file() and time.monotonic() < deadline:
        time.sleep(0.02)
    process.send_signal(signal.SIGTERM)
    _, message = process.communicate(timeout=120)
    assert process.returncode == 143 and b"same command" in message
    assert reproduce(tmp_path, study).exit_code == 0
    for name in ("first", "second"):
        ours, theirs = (
            load_checkpoint(folder / "runs" / name / "best.safetensors")[0]
            for folder in (tmp_path, whole)
        )
        assert all(ours[key].equal(theirs[key]) for key in theirs)


def test_an_unknown_study_gets_a_suggestion():
    with pytest.raises(Problem, match="did you mean 'table1'"):
        studies.load("tabel1")


@pytest.mark.slow
def test_the_rehearsal_of_everything(tmp_path):
    """Every run behind a published number, ten updates long, is trained, measured, tabulated."""
    if not list(sources_root().glob("MNIST/raw/*")):
        pytest.skip("needs MNIST")
    places = [f"--{name}={tmp_path / name}" for name in ("runs", "datasets", "out")]
    result = CliRunner().invoke(cli, ["reproduce", "all", "--scale=1e-5", "--json", *places])
    assert result.exit_code == 0, result.stderr
    report = json.loads(result.stdout)
    assert {row["state"] for row in report["runs"]} == {"finished"} and not report["failures"]
    tables = {Path(path).stem for path in report["files"] if path.endswith(".md")}
    assert {"table1_cluttered", "table2_binarised_mnist", "robustness_clutter"} <= tables
    for path in report["files"]:
        assert not path.endswith(".md") or "Rehearsal at 1e-05" in Path(path).read_text()
