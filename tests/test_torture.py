"""A short form of every harm (``make torture`` runs them all), and what the harness notices."""

import shutil
import subprocess
import sys

import pytest
import torch
from torture import campaign, checks, damage, endurance, processes, ranks
from torture.__main__ import BEGIN, END, record
from torture.checks import Case, Tally
from torture.endurance import Sample
from torture.processes import RUN, Ended

from drawbench import runs
from drawbench.files import hashed, read_hashed, write_json

pytestmark = [
    pytest.mark.processes,
    pytest.mark.skipif(
        not sys.platform.startswith("linux"), reason="the harness follows processes through /proc"
    ),
]


@pytest.fixture(scope="module")
def workers():
    with campaign.clean_environment(), campaign.pool(1) as executor:
        executor.submit(campaign.shorten).result()
        yield executor


@pytest.fixture(scope="module")
def references(workers, tmp_path_factory):
    """The uninterrupted runs, with blank figures."""
    folder = tmp_path_factory.mktemp("reference")
    return workers.submit(campaign.make_references, folder, (False,)).result()


def damaged_file(*file) -> int:
    """Return the number of the first case of a file; see ``damage.CASES``."""
    return next(n for n, case in enumerate(damage.CASES) if case[: len(file)] == file)


#: Quick cases that differ: at a moment, at a file, a chain; a full disk, a folder that is gone; two
#: processes at once; a gradient; an exported run, links; a launcher's variables, changed images.
QUICK = {
    "kills": (18, 7),
    "signals": (5, 9),
    "disk": (12, 8),
    "locks": (2,),
    "numbers": (3,),
    "shared": (2, 6),
    "surroundings": (0, 4),
}
CASES = [(harm, number, {}) for harm, numbers in QUICK.items() for number in numbers]
CASES += [
    ("damage", damaged_file("classify", "last.safetensors"), {"flips": 2}),
    ("damage", damaged_file("generate", "best.safetensors", True), {"flips": 8}),
    ("damage", damaged_file("classify", "result.json"), {"flips": 8}),
    ("damage", damaged_file("data", "train.npz"), {"flips": 8}),
]
SLOW = [("ranks", 0, {}), ("endurance", 0, {"steps": 8000}), ("surroundings", 2, {})]


@pytest.mark.parametrize(
    ("harm", "number", "size"),
    CASES + [pytest.param(*case, marks=pytest.mark.slow) for case in SLOW],
)
def test_the_promises_hold(workers, references, tmp_path, harm, number, size):
    case = Case(harm, number)
    tally = workers.submit(campaign.run_case, case, tmp_path, references, **size).result()
    assert not tally.faults
    assert tally.tried >= 1 and tally.identical == tally.resumed
    assert not list(tmp_path.iterdir())


# ------------------------------------------------------------------------------- the harness itself


def one_bit(run):
    """Change one weight by a bit, under a hash that is right again."""
    tensors, facts = runs.load_checkpoint(run / runs.BEST)
    tensor = next(iter(tensors.values()))
    tensor.view(torch.int32).view(-1)[0] ^= 1
    runs.save_checkpoint(run / runs.BEST, tensors, facts)


def one_digit(run):
    (run / "metrics.csv").write_text((run / "metrics.csv").read_text().replace("1", "2", 1))


def result_with(**fields):
    def change(run):
        write_json(run / "result.json", hashed(read_hashed(run / "result.json") | fields))

    return change


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (one_bit, [f"tensors of {runs.BEST}"]),
        (one_digit, ["metrics.csv"]),
        (result_with(value=0.0), ["result.json"]),
        (result_with(train_seconds=1e6), []),
        (lambda run: (run / "test.npz").unlink(), ["test.npz"]),
    ],
)
def test_the_comparison_sees_every_difference_except_time(references, tmp_path, change, expected):
    reference = references["classify", False].folder / RUN
    shutil.copytree(reference, tmp_path / "run")
    change(tmp_path / "run")
    assert checks.differences(tmp_path / "run", reference) == expected


def test_tracebacks_strays_and_losses_are_counted(references, tmp_path):
    tally, place = Tally(about="here"), processes.Place(tmp_path / "place")
    trace = 'Traceback (most recent call last):\n  File "cli.py"\nError: x\n'
    checks.explained(tally, Ended(1, "", trace, 0.0))
    assert tally.tracebacks == 1 and tally.faults[0].startswith("here: a traceback")
    checks.explained(tally, Ended(1, "", "Error: x\nError: x\n", 0.0))
    checks.explained(tally, Ended(0, "", "Error: x\n", 0.0))
    assert len(tally.faults) == 3
    place.fill(references["classify", False].folder)
    (place.folder / "datasets" / ".set.0.partial").mkdir()
    assert checks.strays(place) == ["datasets/.set.0.partial"]
    steps = campaign.SHORTEST["steps"]
    checks.intact(tally, place, before=steps)
    assert tally.lost == 0
    (place.run / runs.LAST).write_bytes(b"rubbish")
    (place.run / runs.PREVIOUS).unlink()
    checks.intact(tally, place, before=steps)
    assert tally.lost == 2  # one does not open, and there is none of that step


def samples(memory: float = 0, files: int = 0, slowing: float = 0) -> list[Sample]:
    """Return forty samples of a process that wears out at these rates per sample."""
    rows, cpu = [], 0.0
    for row in range(1, 41):
        cpu += 1 + slowing * row
        held = int(3e8 + memory * row)
        rows.append(Sample(row, 2 * cpu, cpu, held, 9 + files * (row // 20)))
    return rows


@pytest.mark.parametrize(
    ("wear", "fault"),
    [
        ({}, None),
        ({"memory": 2e6}, "memory rose"),
        ({"memory": 4e5}, None),
        ({"files": 1}, "files stay open"),
        ({"slowing": 0.01}, "it slowed"),
    ],
)
def test_wear_is_seen(wear, fault):
    tally = Tally()
    endurance.judge(tally, samples(**wear))
    assert len(tally.faults) == (fault is not None) and len(tally.notes) == 3
    assert fault is None or tally.faults[0].partition(": ")[2].startswith(fault)


def test_a_training_that_slowed_is_repeated_in_an_empty_folder(monkeypatch, tmp_path):
    place, tally, commands = processes.Place(tmp_path / "place"), Tally(), []

    def watch(place, words, tally):
        assert not place.run.exists()
        place.run.mkdir(parents=True)
        commands.append(words)
        return samples(slowing=1.0 if len(commands) == 1 else 0.0)

    monkeypatch.setattr(endurance, "watch", watch)
    endurance.run(Case("endurance", 0), place, {}, tally)
    assert len(commands) == 2 and not tally.faults and "repeated" in tally.notes[0]


def test_the_processes_of_a_training_are_found_by_their_rank():
    code = """
import os, subprocess, sys
ranks = [{**os.environ, "RANK": rank} for rank in "10"]
pipes = dict.fromkeys(("stdin", "stdout"), subprocess.PIPE)
command = ["sh", "-c", "echo; read line"]
children = [subprocess.Popen(command, env=variables, **pipes) for variables in ranks]
for child in children:
    child.stdout.readline()  # it has its variables now, which is after it has its number
print(*(child.pid for child in children), flush=True)
sys.stdin.read()
for child in children:
    child.kill()
"""
    command, pipe = [sys.executable, "-S", "-c", code], subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True) as parent:
        first, zeroth = (int(pid) for pid in parent.stdout.readline().split())
        assert ranks.children(parent.pid) == {0: zeroth, 1: first}
        assert ranks.lives(zeroth)
        parent.stdin.close()
        parent.wait(timeout=60)
        assert not ranks.lives(parent.pid)


def test_new_figures_replace_those_of_the_same_harm(tmp_path):
    file, page = tmp_path / "torture.json", tmp_path / "page.md"
    page.write_text(f"before\n{BEGIN}\nold\n{END}\nafter\n")
    record({"kills": Tally(tried=3, identical=3), "disk": Tally(tried=1)}, 0, file, page)
    record({"disk": Tally(tried=2, notes=["a note"])}, 5, file, page)
    text = page.read_text()
    assert text.startswith("before\n") and text.endswith(f"{END}\nafter\n") and "old" not in text
    assert "| **all** | 5 | 0 | 3 |" in text and "a note" in text and "seed 5" in text
