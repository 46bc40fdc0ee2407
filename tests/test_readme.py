"""What the documentation says is true: its commands, links, numbers and example."""

import csv
import itertools
import json
import re
import runpy
import shlex
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import numpy as np
import pytest
from commands import drawbench, succeeded
from PIL import Image

import drawbench as package
from drawbench import config, published
from drawbench.cli import COMMANDS, cli, sharing, training
from drawbench.data import sources_root
from drawbench.evaluation import paired
from drawbench.training import cooled, plateau

ROOT = Path(__file__).parent.parent
LOG = (ROOT / "results" / "LOG.md").read_text()
README, COMMANDS_PAGE, SPEED_PAGE, PYTHON_PAGE = (
    (ROOT / page).read_text()
    for page in ("README.md", "docs/commands.md", "docs/speed.md", "docs/python.md")
)
ALL_COMMANDS = "\n".join([README, COMMANDS_PAGE, SPEED_PAGE])
PAGES = sorted([ROOT / "README.md", ROOT / "CONTRIBUTING.md", *ROOT.glob("docs/*.md")])
PAGES.append(ROOT / "datasets" / "README.md")
every_page = pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))

# ------------------------------------------------------------------------------------- commands


def commands(text: str) -> Iterator[str]:
    """Yield the drawbench commands of a page, in code blocks and in the text, without comments."""
    fences = re.findall(r"^```(\w*)\n(.*?)^```", text, re.DOTALL | re.MULTILINE)
    blocks = [block for language, block in fences if not language]
    lines = [line for block in blocks for line in re.sub(r" *\\\n *", " ", block).splitlines()]
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
        if word == "--recipe" and value not in (*config.recipes(), "FILE|NAME", "RUN/config.json"):
            return f"there is no recipe {value}"
        kind = getattr(options.get(word), "type", None)
        if isinstance(kind, click.Choice) and ":" not in value and value not in kind.choices:
            return f"{word} cannot be {value}"
    return None


@every_page
def test_every_command_exists_with_its_options(page):
    complaints = {line: complaint(line) for line in commands(page.read_text())}
    assert {line: wrong for line, wrong in complaints.items() if wrong} == {}


WEIGHTED = (
    r"(?:evaluate|predict|plot errors|--from|--start|load_run\(\") ?(results/published/[\w-]+)"
)


def test_what_needs_weights_names_published_runs_that_have_them():
    texts = [path.read_text() for path in [*PAGES, *ROOT.glob("drawbench/cli/*.py")]]
    runs = {run for text in texts for run in re.findall(WEIGHTED, text)}
    assert len(runs) >= 2
    assert {run for run in runs if not (ROOT / run / "best.safetensors").is_file()} == set()


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
    block = "```\ndrawbench report --out x   # why\n. .venv/bin/activate\n```\n"
    page = f"Run `drawbench tables`:\n\n{block}"
    assert list(commands(page)) == ["report --out x", "tables"]


def test_the_page_of_commands_names_every_command():
    assert {line.split()[0] for line in commands(COMMANDS_PAGE)} >= set(COMMANDS)


LONG = {  # command lines of these pages that the tests do not run -> why
    r"(classify|generate) .*--seeds .*|classify --recipe RUN/config.json .*": "tests/test_seeds.py",
    r"(classify|generate) .*--recipe [\w-]+.*": "trains for an hour or more",
    r"classify --glimpses 8|generate|generate --dataset mnist2": "trains for 30 minutes",
    r"(classify|evaluate|resume) .*--processes \d": "tests/test_distributed.py",
    r"classify (--data|--dataset folder --images) DIR": "tests/test_cli.py",
    r".*(fovea|learned_prior|stripes|mymodel):\w+.*": "tests/test_extending.py",
    r"quickstart|make-data (cluttered|captions)": "minutes; tests/test_cli.py",
    r"generate --dataset (captions|cifar10).*": "trains for hours",
    r"reproduce|reproduce (table1|captions|two-digits|table2 .*|.*\.toml)": (
        "days; tests/test_reproduce.py"
    ),
    r"bench .*": "minutes; tests/test_bench.py",
    r"plot explained RUN RUN": "tests/test_explained.py",
    r"demo": "serves until it is stopped; tests/test_demo.py",
}
LINES = list(dict.fromkeys(commands(ALL_COMMANDS)))
SHORT = [line for line in LINES if not any(re.fullmatch(pattern, line) for pattern in LONG)]


def test_what_is_not_run_is_on_these_pages():
    assert all(any(re.fullmatch(pattern, line) for line in LINES) for pattern in LONG)
    assert len(SHORT) >= 14


@pytest.fixture
def checkout(tmp_path, monkeypatch, classified, generated) -> Path:
    """A checkout with finished runs in its usual places; what is written lands in a copy."""
    (tmp_path / "results" / "runs").mkdir(parents=True)
    (tmp_path / "results" / "published").symlink_to(ROOT / "results" / "published")
    for name, (run, _) in (("classify", classified), ("generate", generated)):
        shutil.copytree(run, tmp_path / "results" / "runs" / name)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("line", SHORT)
def test_a_short_command_runs_as_printed(line, checkout, datasets):
    task = "generate" if re.search("--from|--samples", line) else "classify"
    if "results/published" in line and not list(sources_root().glob("MNIST/raw/*")):
        pytest.skip("needs MNIST")
    if line in ("tables", "report"):  # tests/test_published.py makes those of all published runs
        (checkout / "results" / "published").unlink()
    Image.fromarray(np.eye(28, dtype=np.uint8) * 255).save(checkout / "picture.png")
    words = line.replace("RUN", f"results/runs/{task}").replace("FOLDER", "copy")
    words = words.replace("IMAGE", "picture.png")
    if f"results/runs/{task}" in words and not re.match("generate|export|predict", words):
        words += f" --datasets {datasets}"
    succeeded(drawbench(*shlex.split(words)))


@pytest.mark.parametrize(
    "line", [line for line in LINES if line.split()[0] in ("classify", "generate")]
)
def test_a_training_is_accepted_as_printed(line, checkout, monkeypatch):
    if line in SHORT or any(
        why in ("tests/test_cli.py", "tests/test_seeds.py") and re.fullmatch(pattern, line)
        for pattern, why in LONG.items()
    ):
        return
    monkeypatch.setattr(sharing, "start", lambda *_: None)  # no other processes
    configs: list = []
    monkeypatch.setattr(training, "start", lambda config, **_: configs.append(config))
    succeeded(drawbench(*shlex.split(line.replace("DIR", "."))))
    assert len(configs) == 1


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


FILL = runpy.run_path(str(ROOT / "docs" / "readme.py"))
COLUMNS = FILL["CELLS"].keys() | {"model", "data", "run"}
RESULT_ROWS = [row for table in tables(README) for row in table if "run" in row]


@pytest.mark.parametrize(
    "row", RESULT_ROWS, ids=lambda row: f"{row.get('model', '')}-{row['run'][:24]}"
)
def test_published_numbers_are_those_of_the_package(row):
    assert set(row) <= COLUMNS
    if row["run"] == "published":
        name = row["model"].partition(",")[0]
        name += ", 12x12" if name == "Differentiable RAM" else ""
        text = row.get("error %") or row["bound"]
        looks = int(row.get("glimpses") or row["steps"])
        entries = [entry for entry in published.load()["results"] if entry["model"] == name]
        assert (text, looks) in {(str(entry["value"]), entry["glimpses"]) for entry in entries}
        return
    assert re.findall(r"\]\(([^)]+)\)", row["run"])


def test_the_tables_are_filled_from_the_committed_results():
    assert FILL["fill"](README) == README, "run: make tables"


def test_all_result_tables_are_found():
    ours = [row for row in RESULT_ROWS if row["run"] != "published"]
    assert len(ours) >= 18 and len(RESULT_ROWS) - len(ours) >= 4


@pytest.mark.parametrize(
    ("text", "changed"),
    [
        ("27.66", "27.65"),
        ("83.43–84.33", "83.43–84.34"),
        ("| 1,152 | 4.4 million", "| 1,153 | 4.5 million"),
        ("**3.67**", "**3.66**"),
    ],
)
def test_a_changed_number_is_filled_again(text, changed):
    assert text in README and FILL["fill"](README.replace(text, changed)) == README


# --------------------------------------------------------------------------- numbers in the text


def value(folder: str, field: str = "value") -> float:
    return FILL["read"](f"results/published/{folder}")[field]


def mean(folder: str) -> float:
    """Return the mean of two seeds."""
    results = [FILL["read"](f"results/published/{name}") for name in (folder, f"{folder}-seed1")]
    return FILL["mean"](results, "value")


def minutes(*folders: str) -> list[float]:
    return [value(folder, "train_seconds") / 60 for folder in folders]


def read_right(field: str) -> float:
    return FILL["read"]("results/published/aligndraw-captions")[field]["value"]


def paper(model: str) -> float:
    (entry,) = (entry for entry in published.load()["results"] if entry["model"] == model)
    return float(entry["value"])


EYES = ("eye-4", "eye-8-more")
SEEDS = ("draw-8-decay", "draw-8-decay-seed1", "draw-8-decay-seed2")


def against(folder: str, *others: str) -> list[Any]:
    """Return the paired comparisons of a run with others."""
    load = [paired.load(ROOT / "results" / "published" / name) for name in (folder, *others)]
    return [paired.compare(load[0], other) for other in load[1:]]


def looks_once(*others: str) -> list[Any]:
    """Return the paired comparisons of both seeds of the spatial transformer with others."""
    return [one for seed in ("stn", "stn-seed1") for one in against(seed, *others)]


def affine_glimpses() -> list[Any]:
    """Return the paired comparisons of both seeds of affine glimpses with those of DRAW."""
    return [one for seed in ("affine", "affine-seed1") for one in against(seed, *SEEDS)]


def rise(folder: str, updates: int) -> list[float]:
    """Return over how many last updates validation rose, from what, and to what."""
    with open(ROOT / "results" / "published" / folder / "metrics.csv") as file:
        rows = {int(row["step"]): float(row["validation_error"]) for row in csv.DictReader(file)}
    return [updates, rows[max(rows) - updates], rows[max(rows)]]


def last_row(folder: str) -> dict[str, str]:
    """Return the last row of the metrics of a run."""
    with open(ROOT / "results" / "published" / folder / "metrics.csv") as file:
        return list(csv.DictReader(file))[-1]


def length_now(folder: str) -> int:
    """Return how long today's rule would have trained a run, up to its limit."""
    run = ROOT / "results" / "published" / folder
    with open(run / "metrics.csv") as file:
        rows = [
            {"step": int(row["step"]), "validation_error": float(row["validation_error"])}
            for row in csv.DictReader(file)
        ]
    settings = json.loads((run / "config.json").read_text())["training"]
    fall = plateau(rows, "validation_error", settings["plateau"], settings["steps"])
    return min(cooled(fall), settings["steps"])


def equal_images(folder: str, column: str) -> float:
    """Return a cell of the table of errors at equal images, of the row that a run is in."""
    with open(ROOT / "results" / "tables" / "equal_images.csv") as file:
        (cell,) = (
            row[column]
            for row in csv.DictReader(file)
            if f"published/{folder}" in row["runs or source"].split(", ")
        )
    return float(cell)


def certain(comparisons: list[Any]) -> list[Any]:
    """Return comparisons, of each of which the text says p < 0.0001."""
    assert all(one.p < 0.0001 for one in comparisons)
    return comparisons


CLAIMS = {  # what the text says, with a group for each number -> the numbers
    r"8 glimpses at 100x100 MNIST in clutter, (\d+) minutes": lambda: minutes("draw-8"),
    r"DRAW on binarised MNIST, (\d+) minutes": lambda: minutes("draw-20"),
    r"`draw-4` \(add its (\d+) minutes\)": lambda: minutes("draw-4"),
    r"the same for every image give ([\d.]+)% errors, and windows at random places"
    r" ([\d.]+)%": lambda: [
        mean(name) for name in ("fixed", "random") if mean("random") > mean("fc")
    ],
    r"affine glimpses, each number the mean of 4x4 samples, make ([\d.]+) to ([\d.]+) points more"
    r" errors than DRAW's, each of two seeds against each of three \(p at most"
    r" ([\d.]+)\)": lambda: [
        *(f(one.difference for one in affine_glimpses()) for f in (min, max)),
        max(one.p for one in affine_glimpses()),
    ],
    r"the first after (two) thirds of DRAW's images": lambda: [
        3 * value("affine", "images_seen") / value(SEEDS[0], "images_seen")
    ],
    r"in its last ([\d,]+) updates validation rose from ([\d.]+) to ([\d.]+)%\)": lambda: rise(
        "affine-seed1", 5000
    ),
    r"a spatial transformer makes ([\d.]+) to ([\d.]+) points fewer errors than each of three seeds"
    r" of DRAW's network \(p at most ([\d.]+)\)": lambda: [
        *(f(-one.difference for one in looks_once(*SEEDS)) for f in (min, max)),
        max(one.p for one in looks_once(*SEEDS)),
    ],
    r"With a smaller network to choose, it made ([\d.]+)%": lambda: [
        float(re.findall(r"\*\*stn\*\*[^*]*\*\*([\d.]+)%\*\*", LOG)[0])
    ],
    r"`eye-4` and `eye-8-more`, which had distorted digits, make ([\d.]+) to ([\d.]+) points fewer"
    r" errors than it \(p < 0.0001\)": lambda: [
        f(one.difference for one in certain(looks_once(*EYES))) for f in (min, max)
    ],
    r"makes ([\d.]+) and ([\d.]+) points fewer than its two seeds \(p = ([\d.]+) and"
    r" ([\d.]+)\)": lambda: [
        *(one.difference for one in looks_once("eye-8")),
        *(one.p for one in looks_once("eye-8")),
    ],
    r"would give these two ([\d,]+) and ([\d,]+) updates instead of ([\d,]+) and"
    r" ([\d,]+)\)": lambda: [
        *map(length_now, ("affine", "ram")),
        *(value(name, "steps") for name in ("affine", "ram")),
    ],
    r"with that of `eye-8` (\d+) minutes instead of (\d+)\.": lambda: [
        sum(minutes("eye-8", "eye-4")),
        *minutes("conv6"),
    ],
    r"\(by ([\d.]+) to ([\d.]+) points in the last quarter of their training\)": lambda: [
        f(
            equal_images(name, "last quarter")
            for name in ("stn", "affine", "ram", "fixed", "conv2", "fc", "random")
        )
        for f in (min, max)
    ],
    r"which aliases, they made ([\d.]+)%": lambda: [
        float(re.findall(r"\| affine \| 0 \| ([\d.]+) ", LOG)[0])
    ],
    r"beats every kind of attention here\*\*: ([\d.]+)%,": lambda: [
        (value("conv6") + value("conv6-seed1")) / 2
    ],
    r"distorted training digits and (three) times the images, have ([\d.]+)% and ([\d.]+)%"
    r" \(paired tests by `compare`: p < 0.0001\)": lambda: [
        (value("eye-8", "images_seen") + value("eye-4", "images_seen"))
        / value("conv6", "images_seen"),
        *(value(name) for name in EYES if certain(against(name, "conv6", "conv6-seed1"))),
    ],
    r"makes do with (a third) of the multiply-adds and reads (\d+) numbers": lambda: [
        value("conv6", "multiply_adds") / value("eye-4", "multiply_adds"),
        value("eye-4", "pixels_read"),
    ],
    r"at (ten) times the multiply-adds": lambda: [
        value("stn", "multiply_adds") / value(SEEDS[0], "multiply_adds")
    ],
    r"same numbers better, at ([\d.]+) times the multiply-adds": lambda: [
        value("eye-8", "multiply_adds") / value(SEEDS[0], "multiply_adds")
    ],
    r"from `eye-8` \(add its (\d+) minutes\)": lambda: minutes("eye-8"),
    r"as well as eight \(a paired test gives p = ([\d.]+)\)": lambda: [
        one.p for one in against("eye-4", "eye-8-more")
    ],
    r"after four of its looks `eye-8` itself has ([\d.]+)%": lambda: [
        FILL["read"]("results/published/eye-8")["errors_after_glimpse"][3] / 100
    ],
    r"training \(([\d,]+) updates\)": lambda: [value("draw-8-decay", "steps")],
    r"without windows has ([\d.]+) times the parameters": lambda: [
        value("draw-20-no-attention", "parameters") / value("draw-20", "parameters")
    ],
    r"weight decay and (\d+) passes over the training images": lambda: [
        value("draw-64-no-attention", "images_seen") / 50_000
    ],
    r"256 units that read 2x2, (\d+) passes end ([\d.]+) nats above the paper's number": lambda: [
        value("draw-64", "images_seen") / 50_000,
        value("draw-64") - paper("DRAW"),
    ],
    r"that is ([\d.]+) nats better than without attention, where weights decayed"
    r" \(p < 0.0001\)": lambda: [
        one.difference for one in certain(against("draw-64-no-attention", "draw-64"))
    ],
    r"a training bound of ([\d.]+) nats": lambda: [float(last_row("draw-64")["train_bound"])],
    r"level with the paper's ([\d.]+): after (\d+) passes with 400 units": lambda: [
        paper("DRAW"),
        value("draw-64-wide", "images_seen") / 50_000,
    ],
    r"and (\d+) passes followed": lambda: [value("draw-64-640", "images_seen") / 50_000],
    r"the network ends ([\d.]+) nats higher": lambda: [
        one.difference for one in certain(against("draw-64-wide-more", "draw-64-640"))
    ],
    r"so its standard error is ([\d.]+) nats \(([\d.]+) of the two digits\)": lambda: [
        value("draw-20", "iw_standard_error"),
        value("draw-two-digits", "iw_standard_error"),
    ],
    r"attention is worth ([\d.]+) nats in (\d+) steps"
    r" \(in the paper, ([\d.]+) in (\d+)\)": lambda: [
        value("draw-20-no-attention") - value("draw-20"),
        value("draw-20", "glimpses"),
        paper("DRAW without attention") - paper("DRAW"),
        64,
    ],
    r"uses ([\d,]+) samples of each of ([\d,]+) test images"
    r" \(([\d,]+) of the two digits\)": lambda: [
        value("draw-20", "iw_samples"),
        value("draw-20", "iw_images"),
        value("draw-two-digits", "iw_images"),
    ],
    r"so ([\d,]+) is a cross-entropy above a floor of ([\d,]+) nats": lambda: [
        value("draw-photographs", name) for name in ("value", "entropy_floor")
    ],
    r"a likelihood: ([\d.]+) bits per dimension": lambda: [
        value("draw-photographs-levels", "bits_per_dimension")
    ],
    r"in ([\d.]+)% of drawings from captions as in training"
    r" and in ([\d.]+)% from such held-out ones": lambda: [
        read_right("read"),
        read_right("held_out_read"),
    ],
    r"\(64 steps, 400 units\) ([\d,]+) updates of either are (\d+) and (\d+) minutes": lambda: [
        value("draw-photographs-64", "steps"),
        *minutes("draw-photographs-64", "draw-photographs-64-levels"),
    ],
    r"as many updates as above: ([\d.]+) bits per dimension": lambda: [
        value("draw-photographs-64-levels", "bits_per_dimension")
    ],
    r"results of ([\d,]+) kills": lambda: [
        json.loads((ROOT / "results/torture.json").read_text())["kills"]["tried"]
    ],
}
WORDS = {"a third": "3", "two": "2", "three": "3", "ten": "10"}
SETTINGS = {  # numbers in the text of the results that are no results
    "100x100", "8 pieces", "8 glimpses", "1,000", "10,000 test images", "95%",
    "60x60", "12,000 JPEGs", "32x32", "256 levels", "reads 2x2", "64 steps", "20 steps", "H100",
    "H200", "640 units", "read 5x5",    "30% of the updates", "4,000 updates", "4x4 samples",
}  # fmt: skip


def prose(text: str) -> str:
    """Return a page without code, tables, links and pictures, in one line."""
    text = re.sub(r"^```.*?^```|^\|.*?$", "", text, flags=re.DOTALL | re.MULTILINE)
    text = re.sub(r"!?\[([^\]]*)\]\([^)]*\)", r"\1", text)
    return " ".join(text.split())


@pytest.mark.parametrize("claim", CLAIMS)
def test_numbers_in_the_text_are_those_committed(claim):
    found = re.findall(claim, " ".join(README.split()))
    assert len(found) == 1, f"the README no longer says this once: {claim}"
    numbers = found[0] if isinstance(found[0], tuple) else found
    pairs = zip((WORDS.get(text, text) for text in numbers), CLAIMS[claim](), strict=True)
    assert all(agrees(text, value) for text, value in pairs)


def test_every_number_in_the_text_of_the_results_is_checked():
    section = README[README.index("## Results") : README.index("## Extend")]
    text = prose(section)
    for claim in CLAIMS:
        text = re.sub(claim, "", text)
    for words in SETTINGS:
        text = text.replace(words, "")
    text = re.sub(r"`[^`]*`|Table \d|\(\w+ (&|et) [\w.]+ \d{4}\)|CIFAR-10", "", text)
    assert re.findall(r"[^ ]* ?[^ ]*\d[\d.,]*[^ ]* ?[^ ]*", text) == []


def test_the_table_of_captions_is_the_committed_one():
    result = FILL["read"]("results/published/aligndraw-captions")
    (table,) = (
        rows
        for rows in tables((ROOT / "docs" / "explained.md").read_text())
        if "captions" in rows[0]
    )
    kinds = {"as in training": "", "held out": "held_out", "of another image": "wrong_condition"}
    assert [row["captions"] for row in table] == list(kinds)
    for row in table:
        kind, cells = kinds[row["captions"]], list(row.values())
        bound = result[kind] if kind else result
        expected = [bound[name] for name in ("value", "low", "high")]
        if kind != "wrong_condition":
            prefix = f"{kind}_" if kind else ""
            expected += [result[f"{prefix}read"][name] for name in ("value", "low", "high")]
            expected += [result[f"{prefix}real_read"]["value"]]
        numbers = [number for cell in cells[1:] for number in cell.split("-") if number]
        assert all(map(agrees, numbers, expected)) and len(numbers) == len(expected)


SPEEDS = {  # columns of the tables of speed: precision and field of bench.csv
    f"{short} {title}": (precision, field)
    for short, precision in (("f32", "float32"), ("bf16", "bfloat16"))
    for title, field in (
        ("images/s", "images_per_second"),
        ("share", "floor_percent"),
        *((f"/ {other}", f"times_{other}") for other in ("plain", "autocast", "processes")),
    )
}


@pytest.mark.parametrize("cores", ["two cores", "one core", "AVX2"])
def test_the_speeds_are_those_committed(cores):
    with open(ROOT / "results" / "bench" / cores.lower().replace(" ", "-") / "bench.csv") as file:
        rows = [row for row in csv.DictReader(file) if row["implementation"] == "fast"]
    measured = {(row["case"], row["precision"]): row for row in rows}
    (table,) = (table for table in tables(SPEED_PAGE) if cores in table[0])
    assert len(table) == len({case for case, _ in measured})
    for row in table:
        case = row.pop(cores).split("`")[1]
        for title, cell in row.items():
            precision, field = SPEEDS[title]
            assert agrees(cell, float(measured[case, precision][field])), (case, title)


# -------------------------------------------------------------------------------------- example


def test_the_example_runs(tmp_path, capsys):
    (code,) = re.findall(r"```python\n(.*?)```", PYTHON_PAGE, re.DOTALL)
    (tmp_path / "example.py").write_text(code)
    runpy.run_path(str(tmp_path / "example.py"))
    assert "% wrong, 95% interval" in capsys.readouterr().out


def test_every_public_name_can_be_had():
    for name in package.__all__:
        assert getattr(package, name) is not None
