"""Tables from run folders: what makes a row, what stays apart, and the same bytes each time."""

import csv
import io
import json
import math
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from made_runs import change, curve, made
from PIL import Image

from drawbench import records, tables
from drawbench.cli import cli
from drawbench.tables.rows import estimate, rows
from drawbench.tables.table import Table

ROOT = Path(__file__).parent.parent
RUNS = ROOT / "results" / "published"


def run(*words) -> Result:
    return CliRunner().invoke(cli, ["tables", *map(str, words)], prog_name="drawbench")


def made_from(place: Path) -> dict[str, Table]:
    return {table.name: table for table in tables.make(records.find([place], print))}


def ours(table: Table) -> list[dict]:
    return [row for row in table.rows if row.get("whose", "ours") == "ours"]


def test_seeds_are_one_row_with_their_t_interval(tmp_path):
    for seed, value in enumerate((3.0, 4.0, 5.0)):
        made(
            tmp_path / f"run{seed}",
            {"value": value, "low": value - 0.3, "high": value + 0.3},
            seed=seed,
            threads=seed + 1,
        )
    (row,) = ours(made_from(tmp_path)["table1_cluttered"])
    half = 4.302652729911275 / math.sqrt(
        3
    )  # the t quantile of 2 degrees of freedom; the standard deviation is 1
    assert (row["error %"], row["low"], row["high"]) == pytest.approx((4.0, 4 - half, 4 + half))
    assert row["seeds"] == 3 and row["interval over"] == "3 seeds (t)"
    assert row["runs or source"].split(", ") == [f"{tmp_path.name}/run{seed}" for seed in range(3)]


def test_one_seed_has_the_interval_over_its_images(tmp_path):
    made(tmp_path / "run")
    (row,) = ours(made_from(tmp_path)["table1_cluttered"])
    assert (row["low"], row["high"], row["interval over"], row["seeds"]) == (
        3.6,
        4.4,
        "10,000 test images",
        1,
    )


def test_an_interval_does_not_go_below_zero():
    assert (
        estimate([{"value": value, "low": 0, "high": 9, "n": 5} for value in (0.1, 3.0)]).low == 0
    )


@pytest.mark.parametrize(
    "setting",
    [
        {"learning_rate": 0.5},
        {"distortion": 0.3},
        {"fixed_train": True},
        {"batch": 64},
        {"window_map": "linear"},
    ],
)
def test_another_setting_is_another_row_that_says_so(tmp_path, setting):
    made(tmp_path / "plain")
    made(tmp_path / "other", seed=1, **setting)
    made_rows = rows(records.find([tmp_path], print))
    assert len(made_rows) == 2 and made_rows[0].notes != made_rows[1].notes
    ((name, value),) = setting.items()
    assert any(name in row.notes or str(value) in row.notes for row in made_rows)


@pytest.mark.parametrize(("steps", "together"), [(1000, 1), (1090, 1), (1110, 2), (500, 2)])
def test_a_time_budget_may_make_a_tenth_of_difference(tmp_path, steps, together):
    made(tmp_path / "a")
    made(tmp_path / "b", {"steps": steps}, seed=1)
    made_rows = rows(records.find([tmp_path], print))
    assert len(made_rows) == together
    assert made_rows[0].steps == (1000 if steps == 1000 else "1,000 to 1,090") or together == 2


def test_what_the_papers_do_not_use_is_told(tmp_path):
    made(tmp_path / "run", distortion=0.5, weight_decay=0.02, start="/home/somebody/runs/first")
    (row,) = ours(made_from(tmp_path)["table1_cluttered"])
    assert (
        row["notes"] == "training digits distorted (0.5), weight decay 0.02, trained on from first"
    )
    assert row["training clutter"] == "fresh"


def test_other_digits_and_other_tasks_have_tables_of_their_own(tmp_path):
    made(tmp_path / "real")
    made(tmp_path / "embedded", {"dataset": "cluttered-100x100-8-digits", "source": "digits"})
    made(tmp_path / "small", {"dataset": "cluttered-60x60-4-mnist"})
    for name, dataset in (
        ("static", "mnist-static"),
        ("dynamic", "mnist-dynamic"),
        ("two", "mnist2-fixed"),
        ("photos", "cifar10"),
    ):
        made(tmp_path / name, {"task": "generate", "dataset": dataset, "source": "mnist"})
    found = made_from(tmp_path)
    assert [row["runs or source"] for row in ours(found["table1_cluttered"])] == [
        f"{tmp_path.name}/real"
    ]
    assert [row["runs or source"] for row in ours(found["table2_binarised_mnist"])] == [
        f"{tmp_path.name}/static"
    ]
    assert "not comparable" in found["classification_cluttered-100x100-8-digits"].note
    assert (
        len(ours(found["likelihood_mnist-dynamic"]))
        == len(found["likelihood_mnist-dynamic"].rows)
        == 1
    )
    assert {
        "two_digits_fixed",
        "likelihood_cifar10",
        "classification_cluttered-60x60-4-mnist",
    } <= set(found)
    assert found["classification_cluttered-60x60-4-mnist"].rows[0]["whose"] == "published"


def test_robustness_is_wide_to_read_and_long_with_intervals_in_the_csv(tmp_path):
    for seed in (0, 1):
        curve(made(tmp_path / f"run{seed}", seed=seed), "clutter", {0: 1.0 + seed, 8: 4.0})
    curve(made(tmp_path / "far", glimpses=4), "clutter", {8: 5.0, 32: 40.0})
    table = made_from(tmp_path)["robustness_clutter"]
    assert [
        (row["clutter"], row["error %"], row["seeds"]) for row in table.rows if row["seeds"] == 2
    ] == [(0, 1.5, 2), (8, 4.0, 2)]
    shown = table.shown()
    assert (
        list(shown.columns[3:6]) == ["0", "8", "32"]
        and "-" in shown["32"].tolist()
        and "low" in table.csv().splitlines()[0]
    )


def test_cost_counts_the_training_it_started_from(tmp_path):
    made(tmp_path / "first", {"train_seconds": 600.0})
    made(
        tmp_path / "second",
        {"train_seconds": 300.0, "pixels_read": 77, "multiply_adds": 5_000},
        start="x/first",
        seed=1,
    )
    made(tmp_path / "lost", start="elsewhere", seed=2)
    cost = {
        row["runs or source"].rpartition("/")[2]: row for row in made_from(tmp_path)["cost"].rows
    }
    assert [cost[name]["minutes with its start"] for name in ("first", "second", "lost")] == [
        10,
        15,
        None,
    ]
    assert cost["second"]["pixels read"] == 77 and cost["second"]["multiply-adds"] == 5000
    assert cost["first"]["multiply-adds"] is None


def typeset(folder: Path, *texts: str) -> str:
    """What pdflatex says of these texts in a document."""
    packages = r"\documentclass{article}\usepackage{booktabs,graphicx}"
    (folder / "all.tex").write_text(
        "\n".join([packages, r"\begin{document}", *texts, r"\end{document}"]), encoding="utf-8"
    )
    done = subprocess.run(
        ["pdflatex", "-interaction=nonstopmode", "all.tex"],
        cwd=folder,
        capture_output=True,
        text=True,
        errors="replace",
    )
    assert (folder / "all.pdf").is_file(), done.stdout
    return done.stdout


@pytest.mark.skipif(not shutil.which("pdflatex"), reason="pdflatex is not here")
def test_latex_sets_every_table_and_none_sticks_out(tmp_path):
    said = typeset(tmp_path, *(table.latex() for table in made_from(RUNS).values()))
    assert "! " not in said and "Overfull" not in said


def test_the_number_of_a_table_is_that_of_the_paper():
    latex = Table("t", "Table 1: errors", "A note.", [{"a": 1}]).latex()
    assert r"\caption{errors (Table 1 of the paper). A note.}" in latex


def test_names_stay_in_their_cells(tmp_path):
    hostile = r"a|b \input{x} <script>alert(1)</script> `q` 100%_&#"
    table = Table(
        "t",
        hostile,
        "",
        [{"model": hostile, "value": 1.5, "missing": None}, {"model": "b\nc", "value": None}],
    )
    line = table.markdown().splitlines()[4]
    assert (
        line.replace("\\|", "").count("|") == 3
        and "<script" not in table.markdown()
        and "missing" not in table.markdown()
    )
    latex = table.latex()
    assert (
        r"\textbackslash{}input\{x\}" in latex
        and r"100\%\_\&\#" in latex
        and r"\input" not in latex.replace(r"\textbackslash{}input", "")
    )
    if shutil.which("pdflatex"):
        assert "! " not in typeset(tmp_path, latex)
    read = list(csv.DictReader(io.StringIO(table.csv())))
    assert read[0] == {"model": hostile, "value": "1.5"} and read[1]["value"] == ""


def test_the_command_writes_every_kind_of_file_and_the_same_bytes(tmp_path):
    first, second = tmp_path / "a", tmp_path / "b"
    for out in (first, second):
        done = run(RUNS, "--out", out, "--json")
        assert done.exit_code == 0, done.output
    files = [Path(path) for path in json.loads(done.stdout)["files"]]
    assert {path.suffix for path in files} == {".csv", ".md", ".tex", ".pdf", ".png"} and all(
        path.is_file() for path in files
    )
    assert {path.stem for path in files} >= {
        "table1_cluttered",
        "table2_binarised_mnist",
        "table3_settings",
        "cost",
        "kl_per_step",
    }
    for path in files:
        other = first / path.relative_to(second)
        assert other.read_bytes() == path.read_bytes() and path.stat().st_size < 500_000, path
        assert str(ROOT).encode() not in path.read_bytes()
    with Image.open(second / "figures" / "error_against_clutter.png") as picture:
        assert picture.width > 600


def test_the_committed_tables_are_those_of_the_committed_runs():
    for table in made_from(RUNS).values():
        for ending, text in (
            ("csv", table.csv()),
            ("md", table.markdown()),
            ("tex", table.latex()),
        ):
            path = ROOT / "results" / "tables" / f"{table.name}.{ending}"
            assert path.is_file() and path.read_text() == text, f"{path} is old: make tables"


def test_a_broken_run_is_told_and_the_rest_is_made(tmp_path):
    made(tmp_path / "runs" / "good")
    (made(tmp_path / "runs" / "half", seed=1) / "result.json").unlink()
    done = run(tmp_path / "runs", "--out", tmp_path)
    assert (
        done.exit_code == 0
        and "half is not finished" in done.stderr
        and len(done.stderr.splitlines()) == 1
    )
    assert "runs/good" in (tmp_path / "tables" / "table1_cluttered.csv").read_text()
    change(tmp_path / "runs" / "good" / "result.json", value=99)
    nothing = run(tmp_path / "runs", "--out", tmp_path)
    assert (
        nothing.exit_code == 1
        and "no finished run" in nothing.stderr.splitlines()[-1]
        and nothing.stdout == ""
    )


def test_a_data_set_may_be_called_anything(tmp_path):
    made(tmp_path / "runs" / "run", {"dataset": "../../x/y <b>"})
    assert run(tmp_path / "runs", "--out", tmp_path / "out").exit_code == 0
    assert len(list((tmp_path / "out" / "tables").glob("classification_..-..-x-y-b-*.csv"))) == 1


def test_what_is_left_from_other_runs_is_told(tmp_path):
    made(tmp_path / "runs" / "good")
    (tmp_path / "tables").mkdir()
    (tmp_path / "tables" / "of_old.csv").write_text("x")
    done = run(tmp_path / "runs", "--out", tmp_path)
    assert "of_old.csv" in done.stderr and (tmp_path / "tables" / "of_old.csv").is_file()


def test_a_damaged_picture_is_told(tmp_path):
    folder = made(tmp_path / "runs" / "good")
    (folder / "figures" / "glimpses_1.png").write_bytes(b"no picture")
    done = run(tmp_path / "runs", "--out", tmp_path)
    assert (
        done.exit_code == 0
        and "glimpses_1.png" in done.stderr
        and not (tmp_path / "figures" / "glimpse_paths.png").exists()
    )


def test_tables_and_report_do_not_load_torch(tmp_path):
    made(tmp_path / "runs" / "run")
    code = (
        "import sys\nfrom drawbench.cli import cli\n"
        f"for words in (['tables', {str(tmp_path / 'runs')!r}, '--out', {str(tmp_path)!r}], "
        f"['report', {str(tmp_path / 'runs')!r}, '--out', {str(tmp_path / 'page.html')!r}]):\n"
        "    cli(words, standalone_mode=False)\n"
        "assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT, stdout=subprocess.DEVNULL)
