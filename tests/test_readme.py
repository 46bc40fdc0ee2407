"""What the documentation says is true: its commands, links, numbers and example."""

import csv
import itertools
import json
import re
import runpy
import shlex
import statistics
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
import scipy.stats

import drawbench
from drawbench import config, published
from drawbench.cli import COMMANDS, cli

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
PAGES = sorted([ROOT / "README.md", ROOT / "CONTRIBUTING.md", *ROOT.glob("docs/*.md")])
PAGES.append(ROOT / "datasets" / "README.md")
every_page = pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))

# ------------------------------------------------------------------------------------- commands


def commands(text: str) -> Iterator[str]:
    """Yield the drawbench commands of a page, in code blocks and in the text, without comments."""
    blocks = re.findall(r"^```\n(.*?)^```", text, re.DOTALL | re.MULTILINE)
    lines = [line for block in blocks for line in block.replace("\\\n", " ").splitlines()]
    text = re.sub(r"^```.*?^```", "", text, flags=re.DOTALL | re.MULTILINE)
    lines += [" ".join(code.split()) for code in re.findall(r"`([^`]+)`", text)]
    for line in lines:
        if match := re.match(r"(?:drawbench|torchrun .*-- cli\.py) +([a-z].*)", line):
            yield re.split(r"\s#|\s{3,}", match[1])[0].strip()


def complaint(line: str) -> str | None:
    """Return what is wrong with the words after ``drawbench``, or None."""
    name, *words = shlex.split(line)
    context = click.Context(cli)
    command = cli.get_command(context, name)
    if command is None:
        return f"there is no command {name}"
    if isinstance(command, click.Group):
        inner = words[0] if words and words[0] in command.commands else command.default
        command, words = command.commands[inner], words[words[:1] == [inner] :]
    options = {
        flag: param for param in command.params for flag in (*param.opts, *param.secondary_opts)
    }
    for word, value in itertools.pairwise([*words, ""]):
        if not word.startswith("--"):
            continue
        if word not in options and word != "--help":
            return f"{name} has no option {word}"
        if word == "--recipe" and value not in (*config.recipes(), "FILE|NAME"):
            return f"there is no recipe {value}"
        kind = getattr(options.get(word), "type", None)
        if isinstance(kind, click.Choice) and ":" not in value and value not in kind.choices:
            return f"{word} cannot be {value}"
    return None


@every_page
def test_every_command_exists_with_its_options(page):
    complaints = {line: complaint(line) for line in commands(page.read_text())}
    assert {line: wrong for line, wrong in complaints.items() if wrong} == {}


@pytest.mark.parametrize(
    ("line", "wrong"),
    [
        ("train --recipe paper-8", "there is no command train"),
        ("classify --glances 8", "classify has no option --glances"),
        ("classify --recipe paper-9", "there is no recipe paper-9"),
        ("generate --dataset mnist3", "--dataset cannot be mnist3"),
        ("plot attention --patches 3", "plot has no option --patches"),
        ("classify --model fovea:network --set patch=8", None),
        ("plot RUN", None),
    ],
)
def test_a_wrong_command_is_noticed(line, wrong):
    assert complaint(line) == wrong


def test_commands_are_found_in_blocks_and_in_the_text():
    page = "Run `drawbench tables`:\n\n```\ndrawbench report --out x   # why\n. .venv/bin/activate\n```\n"
    assert list(commands(page)) == ["report --out x", "tables"]


def test_the_readme_names_every_command():
    assert {line.split()[0] for line in commands(README)} >= set(COMMANDS)


# ---------------------------------------------------------------------------------------- links


@every_page
def test_every_link_leads_somewhere(page):
    text = re.sub(r"```.*?```", "", page.read_text(), flags=re.DOTALL)
    headings = {
        re.sub(r"[^\w\- ]", "", line.lstrip("# ")).strip().lower().replace(" ", "-")
        for line in text.splitlines()
        if line.startswith("#")
    }
    for target in re.findall(r"\]\(([^)]+)\)", text):
        path, _, anchor = target.partition("#")
        if path.startswith("http"):
            continue
        assert (page.parent / path).exists(), f"{page} links to {target}"
        assert path or anchor in headings, f"{page} links to {target}"


# -------------------------------------------------------------------------------------- numbers


def tables(text: str) -> Iterator[list[dict[str, str]]]:
    """Yield the tables of a page as rows by column, without bold type."""
    for block in re.findall(r"(?:^\|.*\n)+", text, re.MULTILINE):
        head, _, *rows = (
            [cell.strip().strip("*") for cell in line.strip("|").split("|")]
            for line in block.splitlines()
        )
        yield [dict(zip(head, row, strict=True)) for row in rows]


def agrees(text: str, value: float) -> bool:
    """Return whether a printed number is a value, rounded to the digits that are printed."""
    number, _, unit = text.replace(",", "").rstrip("x%").partition(" ")
    scale = {"": 1.0, "million": 1e6}[unit]
    digits = len(number.partition(".")[2])
    return abs(float(number) - value / scale) <= 0.5 * 10**-digits + 1e-9


def interval(results: list[dict]) -> tuple[float, float]:
    """Return the 95% interval: a result's own; for several seeds, the t-interval of their mean."""
    if len(results) == 1:
        return results[0]["low"], results[0]["high"]
    values = [result["value"] for result in results]
    error = statistics.stdev(values) / len(values) ** 0.5
    reach = float(scipy.stats.t.ppf(0.975, len(values) - 1)) * error
    return statistics.mean(values) - reach, statistics.mean(values) + reach


FIELDS = {  # column -> field of result.json; of several seeds the mean
    "glimpses": "glimpses",
    "steps": "glimpses",
    "pixels read": "pixels_read",
    "multiply-adds": "multiply_adds",
    "parameters": "parameters",
    "error %": "value",
    "bound": "value",
    "KL": "kl",
    "importance-weighted": "iw_bound",
}
WORDS = {"model", "data", "run", "seeds", "minutes", "95% interval"}
RESULT_ROWS = [row for table in tables(README) for row in table if "run" in row]


def check_ours(row: dict[str, str], results: list[dict]) -> None:
    for column, text in row.items():
        if column in FIELDS and text:
            assert agrees(text, statistics.mean(result[FIELDS[column]] for result in results))
    for text, value in zip(row["95% interval"].split("–"), interval(results), strict=True):
        assert agrees(text, value)
    if "seeds" in row:
        assert len({result["seed"] for result in results}) == int(row["seeds"])
    if "minutes" in row:
        assert agrees(row["minutes"], results[0]["train_seconds"] / 60)


@pytest.mark.parametrize(
    "row", RESULT_ROWS, ids=lambda row: f"{row.get('model', '')}-{row['run'][:24]}"
)
def test_the_results_are_those_committed(row):
    assert set(row) <= FIELDS.keys() | WORDS
    if row["run"] == "published":
        name = row["model"].partition(",")[0]
        name += ", 12x12" if name == "Differentiable RAM" else ""
        text = row.get("error %") or row["bound"]
        looks = int(row.get("glimpses") or row["steps"])
        entries = [entry for entry in published.load()["results"] if entry["model"] == name]
        assert (text, looks) in {(str(entry["value"]), entry["glimpses"]) for entry in entries}
        return
    folders = re.findall(r"\]\(([^)]+)\)", row["run"])
    check_ours(row, [json.loads((ROOT / folder / "result.json").read_text()) for folder in folders])


def test_all_result_tables_are_found():
    ours = [row for row in RESULT_ROWS if row["run"] != "published"]
    assert (len(RESULT_ROWS), len(ours)) == (22, 18)


def test_a_changed_result_is_noticed():
    (row,) = (row for row in RESULT_ROWS if "draw-20)" in row["run"])
    results = [json.loads((ROOT / "results/published/draw-20/result.json").read_text())]
    check_ours(row, results)
    for column, text in (("KL", "27.65"), ("bound", "83.89"), ("95% interval", "83.43–84.34")):
        with pytest.raises(AssertionError):
            check_ours(row | {column: text}, results)


def test_the_speeds_are_those_committed():
    with open(ROOT / "results" / "bench" / "two-cores" / "bench.csv") as file:
        rows = [row for row in csv.DictReader(file) if row["work"] == "training"]
    measured = {(row["case"], row["implementation"], row["precision"]): row for row in rows}
    (table,) = (table for table in tables(README) if "training step" in table[0])
    lines = re.findall(r"^\| `([\w-]+)`: [^|]*\|(.*)\|$", README, re.MULTILINE)
    assert len(lines) == len(table) == 4
    for case, cells in lines:
        expected = [float(measured[case, "plain", "float32"]["images_per_second"])]
        for precision in ("float32", "bfloat16"):
            fast = measured[case, "fast", precision]
            expected += [float(fast["times_plain"]), float(fast["floor_percent"])]
        assert all(map(agrees, (cell.strip() for cell in cells.split("|")), expected)), case


# -------------------------------------------------------------------------------------- example


def test_the_example_runs(tmp_path, capsys):
    (code,) = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    (tmp_path / "example.py").write_text(code)
    runpy.run_path(str(tmp_path / "example.py"))
    assert "% wrong, 95% interval" in capsys.readouterr().out


def test_every_public_name_can_be_had():
    for name in drawbench.__all__:
        assert getattr(drawbench, name) is not None
