"""A short torture of each kind (``make torture`` is the whole), and that the harness sees what is
wrong.
"""

import shutil
import subprocess
import sys

import pytest
import torch
from torture import campaign, damage, endurance, harness, ranks
from torture.__main__ import BEGIN, END, remember
from torture.harness import RUN, Case, Ended, Tally

from drawbench import runs
from drawbench.files import hashed, read_hashed, write_json

pytestmark = pytest.mark.skipif(
    not sys.platform.startswith("linux"), reason="the harness looks at processes by /proc"
)


@pytest.fixture(scope="module")
def workers():
    with pytest.MonkeyPatch.context() as patch:
        for name, value in campaign.SINGLE.items():
            patch.setenv(name, value)
        patch.delenv("DRAWBENCH_SOURCES", raising=False)
        with campaign.pool(1) as executor:
            executor.submit(campaign.shorten).result()
            yield executor


@pytest.fixture(scope="module")
def references(workers, tmp_path_factory):
    """The uninterrupted runs, without pictures, which take the most time and say the least."""
    return workers.submit(campaign.refer, tmp_path_factory.mktemp("reference"), (False,)).result()


# Cases that are quick and differ: at a moment, at a file, a chain; a full disk, a folder that is
# gone; two at once; a gradient.
CASES = [
    ("kills", 4),
    ("kills", 7),
    ("signals", 5),
    ("signals", 9),
    ("disk", 0),
    ("disk", 8),
    ("locks", 2),
    ("numbers", 3),
]


@pytest.mark.parametrize(("harm", "number"), CASES)
def test_what_is_promised_holds(workers, references, tmp_path, harm, number):
    tally = workers.submit(campaign.one, Case(harm, number), tmp_path, references).result()
    assert not tally.faults
    assert tally.tried >= 1 and tally.identical == tally.resumed >= 1
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "file",
    [
        ("classify", "last"),
        ("generate", "best"),
        ("classify", "result.json"),
        ("data", "train.npz"),
    ],
)
def test_damage_is_noticed(workers, references, tmp_path, file):
    case = Case("damage", damage.FILES.index(file))
    tally = workers.submit(
        campaign.one, case, tmp_path, references, flips=20, cuts=5, resumed=0
    ).result()
    assert not tally.faults
    assert tally.tried == 25


@pytest.mark.slow
@pytest.mark.parametrize(("harm", "size"), [("ranks", {}), ("endurance", {"steps": 8000})])
def test_what_takes_longer_holds(workers, references, tmp_path, harm, size):
    tally = workers.submit(campaign.one, Case(harm, 0), tmp_path, references, **size).result()
    assert not tally.faults and tally.notes


# ------------------------------------------------------------------------------- the harness itself


def one_bit(run):
    """In one weight, with a hash that is right again."""
    tensors, facts = runs.load_checkpoint(run / runs.BEST)
    tensor = next(iter(tensors.values()))
    tensor.view(torch.int32).view(-1)[0] ^= 1
    runs.save_checkpoint(run / runs.BEST, tensors, facts)


def one_digit(run):
    (run / "metrics.csv").write_text((run / "metrics.csv").read_text().replace("1", "2", 1))


def another_value(run):
    write_json(run / "result.json", hashed(read_hashed(run / "result.json") | {"value": 0.0}))


def another_time(run):
    write_json(
        run / "result.json", hashed(read_hashed(run / "result.json") | {"train_seconds": 1e6})
    )


@pytest.mark.parametrize(
    ("change", "seen"),
    [
        (one_bit, [f"tensors of {runs.BEST}"]),
        (one_digit, ["metrics.csv"]),
        (another_value, ["result.json"]),
        (another_time, []),
        (lambda run: (run / "test.npz").unlink(), ["test.npz"]),
    ],
)
def test_the_comparison_sees_any_difference_but_that_of_time(references, tmp_path, change, seen):
    expected = references["classify", False].folder / RUN
    shutil.copytree(expected, tmp_path / "run")
    change(tmp_path / "run")
    assert harness.differences(tmp_path / "run", expected) == seen


def test_it_counts_tracebacks_strays_and_what_is_lost(references, tmp_path):
    tally, place = Tally(about="here"), harness.Place(tmp_path / "place")
    harness.said_once(
        tally, Ended(1, "", 'Traceback (most recent call last):\n  File "cli.py"\nError: x\n', 0.0)
    )
    assert tally.tracebacks == 1 and tally.faults[0].startswith("here: a traceback")
    harness.said_once(tally, Ended(1, "", "Error: x\nError: x\n", 0.0))
    harness.said_once(tally, Ended(0, "", "Error: x\n", 0.0))
    assert len(tally.faults) == 3
    shutil.copytree(references["classify", False].folder, place.folder, dirs_exist_ok=True)
    (place.folder / "datasets" / ".set.0.partial").mkdir()
    assert harness.strays(place) == ["datasets/.set.0.partial"]
    steps = campaign.SHORTEST["steps"]
    harness.intact(tally, place, before=steps)
    assert tally.lost == 0
    (place.run / runs.LAST).write_bytes(b"rubbish")
    (place.run / runs.PREVIOUS).unlink()
    harness.intact(tally, place, before=steps)
    assert tally.lost == 2  # one does not open, and there is no other of so late a step


@pytest.mark.parametrize(
    ("wear", "said"),
    [
        ({}, None),
        ({"memory": 2e6}, "memory rose"),
        ({"memory": 4e5}, None),
        ({"files": 1}, "open files went"),
        ({"seconds": 0.01}, "it slowed"),
    ],
)
def test_wear_is_seen(wear, said):
    """Forty samples; from the second fifth to the last, memory of 300 MB grows by 32 times what is
    given.
    """
    tally, samples, cpu = Tally(), [], 0.0
    for row in range(1, 41):
        cpu += 1 + wear.get("seconds", 0) * row
        samples.append(
            (
                row,
                2 * cpu,
                cpu,
                int(3e8 + wear.get("memory", 0) * row),
                9 + wear.get("files", 0) * (row // 20),
            )
        )
    endurance.judged(tally, samples)
    assert (
        [fault.partition(": ")[2].startswith(said) for fault in tally.faults] == [True]
        if said
        else not tally.faults
    )
    assert len(tally.notes) == 3


def test_a_training_that_slowed_is_done_again_in_an_empty_folder(monkeypatch, tmp_path):
    place, tally, done = harness.Place(tmp_path / "place"), Tally(), []

    def watched(place, words, tally):
        assert not place.run.exists()
        place.run.mkdir(parents=True)
        done.append(words)
        seconds = [row * (1 + row if len(done) == 1 else 1) for row in range(1, 41)]
        return [(row, time, time, 300_000_000, 9) for row, time in enumerate(seconds, start=1)]

    monkeypatch.setattr(endurance, "watched", watched)
    endurance.run(Case("endurance", 0), place, {}, tally)
    assert len(done) == 2 and not tally.faults and "done again" in tally.notes[0]


def test_the_processes_of_a_training_are_found_by_their_rank():
    """By what the system tells of them."""
    code = """
import os, subprocess, sys
started = [subprocess.Popen(["sleep", "60"], env={**os.environ, "RANK": str(rank)}) for rank in (1, 0)]
print(*(process.pid for process in started), flush=True)
sys.stdin.read()
for process in started:
    process.kill()
"""
    with subprocess.Popen(
        [sys.executable, "-S", "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as parent:
        first, zeroth = (int(pid) for pid in parent.stdout.readline().split())
        assert ranks.children(parent.pid) == {0: zeroth, 1: first}
        assert ranks.lives(zeroth)
        parent.stdin.close()
        parent.wait(timeout=60)
        assert not ranks.lives(parent.pid)


def test_the_figures_of_a_part_replace_those_of_that_part(tmp_path):
    file, page = tmp_path / "torture.json", tmp_path / "page.md"
    page.write_text(f"before\n{BEGIN}\nold\n{END}\nafter\n")
    remember({"kills": Tally(tried=3, identical=3), "disk": Tally(tried=1)}, 0, file, page)
    remember({"disk": Tally(tried=2, notes=["a note"])}, 5, file, page)
    text = page.read_text()
    assert text.startswith("before\n") and text.endswith(f"{END}\nafter\n") and "old" not in text
    assert "| **all** | 5 | 0 | 3 |" in text and "a note" in text and "seed 5" in text
