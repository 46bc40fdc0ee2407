"""Tables from run folders: what makes a row, what stays apart, and reproducible bytes."""

import csv
import io
import json
import math
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import Result
from commands import drawbench, failed, succeeded
from example_runs import change, curve, finished_run
from PIL import Image

from drawbench import records, tables
from drawbench.tables.rows import estimate, rows
from drawbench.tables.table import Table

ROOT = Path(__file__).parent.parent
RUNS = ROOT / "results" / "published"


def run(*words) -> Result:
    return drawbench("tables", *words)


def tables_of(place: Path) -> dict[str, Table]:
    return {table.name: table for table in tables.make(records.find([place], print))}


def ours(table: Table) -> list[dict]:
    return [row for row in table.rows if row.get("whose", "ours") == "ours"]


def names(rows: list[dict]) -> list[str]:
    return [row["runs or source"].rpartition("/")[2] for row in rows]


# ------------------------------------------------------------------------------------------- rows


def test_seeds_are_one_row_with_their_t_interval(tmp_path):
    for seed, value in enumerate((3.0, 4.0, 5.0)):
        result = {"value": value, "low": value - 0.3, "high": value + 0.3}
        finished_run(tmp_path / f"run{seed}", result, seed=seed)
    (row,) = ours(tables_of(tmp_path)["table1_cluttered"])
    half = 4.302652729911275 / math.sqrt(3)  # t quantile of 2 degrees of freedom, deviation 1
    assert (row["error %"], row["low"], row["high"]) == pytest.approx((4.0, 4 - half, 4 + half))
    assert row["seeds"] == 3 and row["interval over"] == "3 seeds (t)"
    assert row["runs or source"].split(", ") == [f"{tmp_path.name}/run{seed}" for seed in range(3)]


def test_one_seed_has_the_interval_over_its_images(tmp_path):
    finished_run(tmp_path / "run")
    (row,) = ours(tables_of(tmp_path)["table1_cluttered"])
    assert (row["low"], row["high"], row["seeds"]) == (3.6, 4.4, 1)
    assert row["interval over"] == "10,000 test images"


def test_an_interval_stays_within_what_is_possible():
    def interval(metric, *values):
        facts = {"metric": metric, "low": 0, "high": 9, "n": 5}
        return estimate([facts | {"value": value} for value in values])

    assert interval(records.ERROR, 0.1, 3.0).low == 0
    assert interval(records.ERROR, 90.0, 96.0).high == 100
    assert interval(records.BOUND, 90.0, 96.0).high > 100


@pytest.mark.parametrize(
    ("task", "setting"),
    [
        ("classify", {"processes": 2, "threads": 2}),
        ("classify", {"device": "cpu", "graph": True}),
        ("classify", {"checkpoint_every": 7, "evaluate_every": 9}),
        ("generate", {"bound_samples": 5, "iw_samples": 10, "validation_images": 100}),
        ("generate", {"checkpoint_steps": 1}),
    ],
)
def test_machine_and_measuring_make_no_other_row(tmp_path, task, setting):
    finished_run(tmp_path / "plain", {"task": task})
    finished_run(tmp_path / "other", {"task": task}, seed=1, **setting)
    (row,) = rows(records.find([tmp_path], print))
    assert len(row.records) == 2 and row.notes == ""


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *(("learning_rate", 0.5), ("distortion", 0.3), ("fixed_train", True), ("batch", 64)),
        *(("window_map", "linear"), ("precision", "bfloat16")),
    ],
)
def test_another_setting_is_another_row_that_says_so(tmp_path, name, value):
    finished_run(tmp_path / "plain")
    finished_run(tmp_path / "other", seed=1, **{name: value})
    two = rows(records.find([tmp_path], print))
    assert len(two) == 2 and two[0].notes != two[1].notes
    assert any(name in row.notes or str(value) in row.notes for row in two)


def test_runs_of_earlier_versions_share_rows_with_new_ones(tmp_path):
    """Earlier versions stored the settings of all models, two of them under other names."""
    finished_run(tmp_path / "new", {"model": "conv6", "glimpses": None})
    old = finished_run(tmp_path / "old", {"model": "conv6", "glimpses": None}, seed=1)
    stored = json.loads((old / "config.json").read_text())
    data, model, training = stored["data"], stored["model"], stored["training"]
    training["average"] = training.pop("ema_decay")
    training["save_every"] = training.pop("checkpoint_every")
    training |= {name: data.pop(name) for name in ("fixed_train", "distortion")}
    model |= {"glimpses": 8, "deviation": 0.15}
    (old / "config.json").write_text(json.dumps(stored))
    (row,) = rows(records.find([tmp_path], print))
    assert len(row.records) == 2


@pytest.mark.parametrize(("steps", "together"), [(1000, 1), (1090, 1), (1110, 2), (500, 2)])
def test_runs_of_nearly_the_same_length_share_a_row(tmp_path, steps, together):
    finished_run(tmp_path / "a")
    finished_run(tmp_path / "b", {"steps": steps}, seed=1)
    result = rows(records.find([tmp_path], print))
    assert len(result) == together
    if together == 1:
        assert result[0].updates == (1000 if steps == 1000 else "1,000 to 1,090")


@pytest.mark.parametrize(("limit", "together"), [(2000, 1), (3000, 2)])
def test_runs_until_a_plateau_share_a_row_where_their_limits_are_alike(tmp_path, limit, together):
    finished_run(tmp_path / "a", {"steps": 1000}, plateau=0.3, steps=2000)
    finished_run(tmp_path / "b", {"steps": 1500}, plateau=0.3, steps=limit, seed=1)
    result = rows(records.find([tmp_path], print))
    assert len(result) == together
    assert result[0].updates == ("1,000 to 1,500" if together == 1 else 1000)


def test_what_departs_from_the_paper_is_noted(tmp_path):
    changes = {"distortion": 0.5, "weight_decay": 0.02, "intermediate": 0.3}
    finished_run(tmp_path / "run", start="/home/somebody/runs/first", **changes)
    (row,) = ours(tables_of(tmp_path)["table1_cluttered"])
    assert row["notes"] == (
        "training digits distorted (0.5), initialized from first, weight decay 0.02, "
        "loss at earlier glimpses (0.3)"
    )


@pytest.mark.parametrize(
    ("model", "settings", "notes"),
    [
        ("draw", {"hidden": 640, "read_patch": 5}, "640 units, reads 5x5"),
        ("draw", {"hidden": 256, "read_patch": 2}, ""),
        ("aligndraw", {"hidden": 300, "read_patch": 8}, ""),  # its own defaults
        ("vae", {"hidden": 256}, "256 units"),
    ],
)
def test_sizes_are_noted_where_they_are_not_the_models_own(tmp_path, model, settings, notes):
    result = {"task": "generate", "model": model}
    folder = finished_run(tmp_path / "run", result, **settings)
    (row,) = rows([records.read(folder, print)])
    assert row.notes == notes


def test_durations_are_those_of_the_first_device(tmp_path):
    for seed, (device, seconds) in enumerate((("cpu", 100), ("some GPU", 4), ("cpu", 300))):
        run = finished_run(tmp_path / str(seed), {"train_seconds": seconds}, seed=seed)
        (run / "environment.json").write_text(json.dumps({"device": device}))
    (row,) = rows([records.read(folder, print) for folder in sorted(tmp_path.iterdir())])
    assert len(row.records) == 3 and row.mean("train_seconds") == pytest.approx(404 / 3)
    assert row.device == "cpu" and row.timed.mean("train_seconds") == 200


# ----------------------------------------------------------------------------------------- tables


def test_other_digits_and_other_tasks_have_their_own_tables(tmp_path):
    finished_run(tmp_path / "real")
    embedded = {"dataset": "cluttered-100x100-8-digits", "source": "digits"}
    finished_run(tmp_path / "embedded", embedded)
    finished_run(tmp_path / "small", {"dataset": "cluttered-60x60-4-mnist"})
    datasets = dict(static="mnist-static", dynamic="mnist-dynamic", two="mnist2-fixed")
    for name, dataset in {**datasets, "photos": "cifar10"}.items():
        finished_run(tmp_path / name, {"task": "generate", "dataset": dataset})
    every = tables_of(tmp_path)
    assert names(ours(every["table1_cluttered"])) == ["real"]
    assert names(ours(every["table2_binarised_mnist"])) == ["static"]
    assert "not comparable" in every["classification_cluttered-100x100-8-digits"].note
    assert names(every["likelihood_mnist-dynamic"].rows) == ["dynamic"]
    assert {"two_digits_fixed", "likelihood_cifar10"} <= set(every)
    assert every["classification_cluttered-60x60-4-mnist"].rows[0]["whose"] == "published"


def test_classes_with_names_have_a_table_of_their_own(tmp_path):
    facts = {
        "classes": ["cat", "dog"],
        "per_class_error": [10.0, None],
        "confusion": [[9, 1], [0, 0]],
    }
    finished_run(tmp_path / "one", facts | {"dataset": "folder-pets"})
    digits = facts | {"classes": [str(n) for n in range(10)]}
    finished_run(tmp_path / "digits", digits)
    (table,) = [table for name, table in tables_of(tmp_path).items() if name.startswith("classes")]
    (column,) = [name for name in table.rows[0] if name.startswith("draw")]
    assert table.name == "classes_folder-pets"
    assert table.rows == [
        {"class": "cat", "images": 10, column: 10.0},
        {"class": "dog", "images": 0, column: None},
    ]


def test_sets_of_one_name_with_other_classes_have_tables_of_their_own(tmp_path):
    for number, classes in enumerate((["cat", "dog"], ["axe", "zoo"], ["axe", "yak", "zoo"])):
        count = len(classes)
        facts = {
            "dataset": "folder-photos",
            "test_sha256": str(number),
            "classes": classes,
            "per_class_error": [float(n) for n in range(count)],
            "confusion": [[1] * count] * count,
        }
        finished_run(tmp_path / str(number), facts)
    strange = {"dataset": "folder-photos", "classes": ["cat", "dog"], "per_class_error": [1.0, 2.0]}
    finished_run(tmp_path / "partial", {**strange, "test_sha256": "p"})
    for n, odd in enumerate(({"confusion": [1, 2]}, {"confusion": [["a"], ["b"]]})):
        finished_run(tmp_path / f"odd{n}", strange | odd | {"test_sha256": f"o{n}"})
    words = {"confusion": [[1, 0], [0, 1]], "per_class_error": ["a", "b"], "test_sha256": "w"}
    finished_run(tmp_path / "words", strange | words)
    tables = [t for name, t in tables_of(tmp_path).items() if name.startswith("classes_")]
    found = [[row["class"] for row in table.rows] for table in tables]
    assert sorted(found) == [["axe", "yak", "zoo"], ["axe", "zoo"], ["cat", "dog"]]
    assert all(list(row.values())[2] == n for table in tables for n, row in enumerate(table.rows))


def test_a_likelihood_of_256_levels_has_a_table_of_its_own_with_bits(tmp_path):
    photos = {"task": "generate", "dataset": "cifar10"}
    finished_run(tmp_path / "bernoulli", photos)
    finished_run(tmp_path / "levels", photos | {"bits_per_dimension": 4.5}, likelihood="logistic")
    every = tables_of(tmp_path)
    assert names(every["likelihood_cifar10"].rows) == ["bernoulli"]
    assert "bits/dim" not in every["likelihood_cifar10"].rows[0]
    (row,) = ours(every["likelihood_cifar10-logistic"])
    assert row["bits/dim"] == 4.5
    theirs = every["likelihood_cifar10-logistic"].rows[:-1]
    assert {row["model"] for row in theirs} >= {"ConvDRAW"} and theirs[0]["bound"] is None
    assert "bits/dim" in every["likelihood_cifar10-logistic"].shown()


def test_captions_have_a_line_for_each_measure_and_a_table_of_their_own(tmp_path):
    def estimate(value: float) -> dict[str, float]:
        return {"value": value, "low": value - 1, "high": value + 1, "n": 2000}

    facts = {"task": "generate", "model": "aligndraw", "dataset": "captions-fixed"}
    for seed, shift in enumerate((0.0, 2.0)):
        measured = {"held_out": estimate(92.0 + shift), "read": estimate(80.0 + shift)}
        finished_run(tmp_path / f"run{seed}", {**facts, **measured}, seed=seed)
    finished_run(tmp_path / "longer", {**facts, "steps": 9000, "held_out": estimate(70.0)})
    every = tables_of(tmp_path)
    assert not any("likelihood" in name for name in every)
    lines = [(row["measure"], row["captions"]) for row in every["captions_fixed"].rows]
    both = [
        ("bound (nats)", "seen"),
        ("bound (nats)", "held out"),
        ("drawings read right (%)", "seen"),
    ]
    assert lines == both + both[:2]
    seen, held_out, read, _, alone = every["captions_fixed"].rows
    assert (seen["value"], held_out["value"], read["value"]) == (90.0, 93.0, 81.0)
    assert held_out["interval over"] == "2 seeds (t)" and held_out["seeds"] == 2
    assert (alone["low"], alone["high"]) == (69.0, 71.0)
    assert alone["interval over"] == "2,000 test images"


def test_robustness_is_wide_to_read_and_long_with_intervals_in_the_csv(tmp_path):
    for seed in (0, 1):
        folder = finished_run(tmp_path / f"run{seed}", seed=seed)
        curve(folder, "clutter", {0: 1.0 + seed, 8: 4.0})
    curve(finished_run(tmp_path / "far", glimpses=4), "clutter", {8: 5.0, 32: 40.0})
    table = tables_of(tmp_path)["robustness_clutter"]
    both = [row for row in table.rows if row["seeds"] == 2]
    assert [(row["clutter"], row["error %"]) for row in both] == [(0, 1.5), (8, 4.0)]
    shown = table.shown()
    assert list(shown.columns[3:6]) == ["0", "8", "32"] and "-" in shown["32"].tolist()
    assert "low" in table.csv().splitlines()[0]


def test_errors_at_equal_images_are_the_validations_before(tmp_path):
    """By hand: of two seeds the mean; a validation up to a tenth early counts; no start."""
    for seed, errors in enumerate(((9.0, 6.0, 5.0, 4.0), (8.0, 7.0, 6.0, 4.5))):
        seen = (460_000, 1_000_000, 1_500_000, 2_100_000)
        lines = [f"{n},{n},{error}" for n, error in zip(seen, errors, strict=True)]
        folder = finished_run(tmp_path / f"run{seed}", seed=seed)
        text = "\n".join(["step,images_seen,validation_error", *lines, ""])
        (folder / "metrics.csv").write_text(text)
        again = finished_run(tmp_path / f"more{seed}", seed=seed, start="run0")
        (again / "metrics.csv").write_text(text)
    first, second = tables_of(tmp_path)["equal_images"].rows
    assert [first[f"{n} M"] for n in ("0.5", "1", "2", "4", "8")] == [8.5, 6.5, None, None, None]
    assert (first["at the end"], first["last quarter"]) == pytest.approx((4.25, 1.25))
    assert (first["million images"], first["seeds"]) == (2.1, 2)
    assert second["0.5 M"] is None and second["at the end"] == 4.25


def test_cost_includes_the_run_that_the_weights_came_from(tmp_path):
    finished_run(tmp_path / "first", {"train_seconds": 600.0})
    measured = {"train_seconds": 300.0, "pixels_read": 77, "multiply_adds": 5_000}
    finished_run(tmp_path / "second", measured, start="x/first", seed=1)
    finished_run(tmp_path / "lost", start="elsewhere", seed=2)
    table = tables_of(tmp_path)["cost"]
    cost = dict(zip(names(table.rows), table.rows, strict=True))
    minutes = [cost[name]["minutes with start"] for name in ("first", "second", "lost")]
    assert minutes == [10, 15, None]
    assert cost["second"]["pixels read"] == 77 and cost["second"]["multiply-adds"] == 5000
    assert cost["first"]["multiply-adds"] is None


def test_steps_of_a_generator_are_called_glimpses(tmp_path):
    finished_run(tmp_path / "run", {"task": "generate"})
    for table in tables_of(tmp_path).values():
        assert "steps" not in table.shown().columns
        assert all(row["glimpses"] == 2 for row in ours(table)), table.name


# ------------------------------------------------------------------------------------------ faces


def typeset(folder: Path, *texts: str) -> str:
    """Return what pdflatex prints for a document of these texts."""
    packages = r"\documentclass{article}\usepackage{booktabs,graphicx}"
    (folder / "all.tex").write_text(
        "\n".join([packages, r"\begin{document}", *texts, r"\end{document}"]), encoding="utf-8"
    )
    command = ["pdflatex", "-interaction=nonstopmode", "all.tex"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, errors="replace")
    assert (folder / "all.pdf").is_file(), done.stdout
    return done.stdout


@pytest.mark.skipif(not shutil.which("pdflatex"), reason="needs pdflatex")
def test_latex_accepts_every_table_and_none_is_too_wide(tmp_path):
    output = typeset(tmp_path, *(table.latex() for table in tables_of(RUNS).values()))
    assert "! " not in output and "Overfull" not in output


def test_latex_has_the_columns_of_a_paper_and_marks_for_notes(tmp_path):
    finished_run(tmp_path / "plain")
    finished_run(tmp_path / "distorted", {"value": 3.7}, distortion=0.5)
    latex = tables_of(tmp_path)["table1_cluttered"].latex()
    assert r"model & glimpses & error \% & 95\% interval & seeds \\" in latex
    assert r"drawbench draw & 8 & 4.00 & 3.60--4.40 & 1 \\" in latex
    assert r"drawbench draw\textsuperscript{b} & 8 & 3.70" in latex
    assert "b: training digits distorted (0.5)." in latex
    assert (
        r"\caption{100x100 cluttered translated MNIST, test error (Table 1 of the paper)." in latex
    )


def test_hostile_names_stay_in_their_cells(tmp_path):
    hostile = r"a|b \input{x} <script>alert(1)</script> `q` 100%_&#"
    rows = [{"model": hostile, "value": 1.5, "missing": None}, {"model": "b\nc", "value": None}]
    table = Table("t", hostile, "", rows)
    markdown, latex = table.markdown(), table.latex()
    assert markdown.splitlines()[4].replace("\\|", "").count("|") == 3
    assert "<script" not in markdown and "missing" not in markdown
    assert r"\textbackslash{}input\{x\}" in latex and r"100\%\_\&\#" in latex
    assert r"\input" not in latex.replace(r"\textbackslash{}input", "")
    if shutil.which("pdflatex"):
        assert "! " not in typeset(tmp_path, latex)
    lines = list(csv.DictReader(io.StringIO(table.csv())))
    assert lines[0] == {"model": hostile, "value": "1.5"} and lines[1]["value"] == ""


# ---------------------------------------------------------------------------------------- command


def test_the_command_writes_every_kind_of_file_with_the_same_bytes(tmp_path):
    first, second = tmp_path / "a", tmp_path / "b"
    for out in (first, second):
        done = succeeded(run(RUNS, "--out", out, "--json"))
    files = [Path(path) for path in json.loads(done.stdout)["files"]]
    assert {path.suffix for path in files} == {".csv", ".md", ".tex", ".pdf", ".png"}
    stems = {"table1_cluttered", "table2_binarised_mnist", "table3_settings", "cost", "kl_per_step"}
    assert {path.stem for path in files} >= stems
    for path in files:
        other = first / path.relative_to(second)
        assert other.read_bytes() == path.read_bytes() and path.stat().st_size < 500_000, path
        assert str(ROOT).encode() not in path.read_bytes()
    with Image.open(second / "figures" / "error_against_clutter.png") as picture:
        assert picture.width > 600


def test_the_committed_tables_are_those_of_the_committed_runs():
    for table in tables_of(RUNS).values():
        texts = {"csv": table.csv(), "md": table.markdown(), "tex": table.latex()}
        for ending, text in texts.items():
            path = ROOT / "results" / "tables" / f"{table.name}.{ending}"
            assert path.is_file() and path.read_text() == text, f"out of date: {path}; make tables"


def test_a_broken_run_is_reported_and_the_others_are_used(tmp_path):
    finished_run(tmp_path / "runs" / "good")
    (finished_run(tmp_path / "runs" / "half", seed=1) / "result.json").unlink()
    done = run(tmp_path / "runs", "--out", tmp_path)
    assert done.exit_code == 0 and len(done.stderr.splitlines()) == 1
    assert "half is not finished" in done.stderr
    assert "runs/good" in (tmp_path / "tables" / "table1_cluttered.csv").read_text()
    change(tmp_path / "runs" / "good" / "result.json", value=99)
    failed(run(tmp_path / "runs", "--out", tmp_path), "no finished run")


def test_a_data_set_may_have_any_name(tmp_path):
    finished_run(tmp_path / "runs" / "run", {"dataset": "../../x/y <b>"})
    assert run(tmp_path / "runs", "--out", tmp_path / "out").exit_code == 0
    assert len(list((tmp_path / "out" / "tables").glob("classification_..-..-x-y-b-*.csv"))) == 1


def test_files_left_from_other_runs_are_reported(tmp_path):
    finished_run(tmp_path / "runs" / "good")
    (tmp_path / "tables").mkdir()
    (tmp_path / "tables" / "stale.csv").write_text("x")
    done = run(tmp_path / "runs", "--out", tmp_path)
    assert "stale.csv" in done.stderr and (tmp_path / "tables" / "stale.csv").is_file()


def test_a_damaged_picture_is_reported(tmp_path):
    folder = finished_run(tmp_path / "runs" / "good")
    (folder / "figures" / "glimpses_1.png").write_bytes(b"no picture")
    done = run(tmp_path / "runs", "--out", tmp_path)
    assert done.exit_code == 0 and "glimpses_1.png" in done.stderr
    assert not (tmp_path / "figures" / "glimpse_paths.png").exists()


def test_tables_and_report_do_not_load_torch(tmp_path):
    finished_run(tmp_path / "runs" / "run")
    code = (
        "import sys\nfrom drawbench.cli import cli\n"
        f"for words in (['tables', {str(tmp_path / 'runs')!r}, '--out', {str(tmp_path)!r}], "
        f"['report', {str(tmp_path / 'runs')!r}, '--out', {str(tmp_path / 'page.html')!r}]):\n"
        "    cli(words, standalone_mode=False)\n"
        "assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT, stdout=subprocess.DEVNULL)


def test_committed_curves_pass_through_the_committed_values():
    """A curve of other weights, such as those before rounding, would not."""
    checked = 0
    for record in records.find([RUNS], lambda sentence: None):
        trained_at = record.settings | {"glimpses": record.result["glimpses"]}
        for condition in ("clutter", "canvas", "glimpses"):
            curve = record.tables.get(f"error_against_{condition}.csv")
            if curve is None:
                continue
            (row,) = curve[curve[condition] == trained_at[condition]].to_dict("records")
            assert (row["error"], row["n"]) == (record.result["value"], record.result["n"])
            checked += 1
    assert checked > 30
