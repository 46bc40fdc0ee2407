"""A run stopped in any way and resumed is bit-identical to one that never stopped.

Real processes are stopped by real signals at random instants. Being cut off while writing matters
most and is hit least, so that is done inside this process too: at every file that a run puts in
place.
"""

import json
import os
import random
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import commands
import pytest
from commands import drawbench, succeeded

from drawbench import runs
from drawbench.cli import cli

STEPS = 400  # enough to be caught in the middle, also on a fast machine
LENGTHS = {"run": "one", "steps": STEPS, "evaluate_every": 70, "checkpoint_every": 15}
LONG = ["classify", *commands.tiny(**LENGTHS)]
SHORT = ["classify", *commands.tiny(run="one", steps=6, evaluate_every=4, checkpoint_every=3)]
RUN = Path("results/runs/one")  # below the working directory of a test


class Process:
    """A command in a process of its own, in the working directory."""

    def __init__(self, *words: str):
        self.process = subprocess.Popen(
            [*commands.MAIN, *words], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )

    def wait_for(self, happened, seconds: float = 120) -> None:
        until = time.monotonic() + seconds
        while not happened():
            assert self.process.poll() is None, self.process.communicate()
            assert time.monotonic() < until, "the run did not get going"
            time.sleep(0.01)

    def ended(self) -> tuple[int, str, str]:
        out, err = self.process.communicate(timeout=120)
        return self.process.returncode, out, err

    def stop(self, number: int) -> tuple[int, str, str]:
        self.process.send_signal(number)
        self.process.send_signal(signal.SIGCONT)
        return self.ended()


@contextmanager
def started(*words: str) -> Iterator[Process]:
    process = Process(*words)
    try:
        yield process
    finally:
        if process.process.poll() is None:
            process.process.kill()
            process.process.communicate()


def checkpoint_step() -> int:
    """Return the step of the last checkpoint, 0 if there is none."""
    try:
        return runs.load_checkpoint(RUN / runs.LAST)[1]["step"]
    except runs.Problem:
        return 0


def same_run(left: Path, right: Path) -> None:
    """Check that two run folders hold the same training and the same result, to the bit."""
    commands.same_run(left, right)
    for name in (runs.BEST, runs.LAST):
        facts, expected = (runs.load_checkpoint(folder / name)[1] for folder in (left, right))
        assert commands.timeless(facts) == commands.timeless(expected)
    assert not [path for path in left.glob(".*") if path.name != ".lock"]


@contextmanager
def working_in(folder: Path, datasets: Path) -> Iterator[None]:
    """Work in a folder, for equal commands."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv("DRAWBENCH_CLASSIFY_DATASETS", str(datasets))
        patch.setenv("DRAWBENCH_RESUME_DATASETS", str(datasets))
        yield


@pytest.fixture(autouse=True)
def place(tmp_path, datasets):
    with working_in(tmp_path, datasets):
        yield


@pytest.fixture(scope="module")
def long_run(tmp_path_factory, datasets) -> Path:
    with working_in(folder := tmp_path_factory.mktemp("long"), datasets):
        succeeded(drawbench(*LONG))
    return folder / RUN


@pytest.fixture(scope="module")
def short_run(tmp_path_factory, datasets, classified) -> tuple[Path, list[str]]:
    """Return a run, and the names of the files that it puts in place, in order.

    ``classified`` has made the data set before.
    """
    folder = tmp_path_factory.mktemp("short")
    with working_in(folder, datasets), killed_at(0, False) as names:
        succeeded(drawbench(*SHORT))
    return folder / RUN, names


# ----------------------------------------------------------------------------------- real processes


def interrupted(words: list[str], number: int, status: int) -> None:
    """Run a command, stop it by a signal a little later, and check what is promised."""
    before = checkpoint_step()
    with started(*words) as process:
        process.wait_for(lambda: checkpoint_step() > before)
        if number == signal.SIGTERM:  # a second process is refused while the first works
            process.process.send_signal(signal.SIGSTOP)  # or it might end before the second asks
            for other in (["resume", str(RUN)], [*LONG, "--force"]):
                commands.failed(drawbench(*other), "another process")
        returned, out, err = process.stop(number)
    assert returned == status, err
    assert out == ""
    last_line = err.strip().splitlines()[-1]
    assert last_line == f"Stopped; everything is saved. Resume with: drawbench resume {RUN}"
    assert "Traceback" not in err
    assert before < checkpoint_step() < STEPS
    assert not (RUN / "result.json").exists()


def test_signals_save_and_name_the_command_that_resumes(long_run):
    interrupted(LONG, signal.SIGINT, 130)
    interrupted(["resume", str(RUN), "--json"], signal.SIGTERM, 143)
    result = json.loads(succeeded(drawbench("resume", str(RUN), "--json")).stdout)
    assert result["steps"] == STEPS
    same_run(RUN, long_run)


def killed_again_and_again(command: list[str], kills: int, chance: random.Random) -> None:
    """Start a command, kill it, resume it, kill it ...: each time a little further on."""
    for _ in range(kills):
        before = checkpoint_step()
        with started(*command) as process:
            process.wait_for(lambda before=before: checkpoint_step() > before)
            time.sleep(chance.uniform(0, 0.2))
            assert process.stop(signal.SIGKILL)[0] == -signal.SIGKILL
        command = ["resume", str(RUN)]


@pytest.mark.processes
def test_a_run_killed_again_and_again_is_bit_identical(long_run):
    killed_again_and_again(LONG, 2, random.Random())  # other instants each time, on purpose
    assert not (RUN / "result.json").exists()
    assert (RUN / ".lock").exists()  # left by a dead process, and no obstacle
    succeeded(drawbench("resume", str(RUN)))
    same_run(RUN, long_run)


@pytest.mark.slow
@pytest.mark.parametrize("number", range(2))
def test_a_run_killed_many_times_is_bit_identical(long_run, number):
    killed_again_and_again(LONG, 4, random.Random(number))
    with started("resume", str(RUN)) as process:
        returned, out, err = process.ended()
    assert returned == 0, err
    assert "test error %" in out
    same_run(RUN, long_run)


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("delay", [0.0, 0.2, 0.5, 1.0, 2.0, 3.0, 4.0])
def test_a_signal_at_any_time_leaves_a_folder_that_can_be_used(delay, number):
    """While Python starts, while data are read, in training: an ordinary end and a sound folder."""
    with started(*LONG) as process:
        time.sleep(delay)
        returned, _, err = process.stop(number)
    if (RUN / "config.json").exists():
        assert returned in (
            (0, 128 + number) if (RUN / "result.json").exists() else (128 + number, -number)
        ), err
        assert "Traceback" not in err
        succeeded(drawbench("resume", str(RUN)))
    else:  # before our first line runs, Python itself answers
        assert returned in (128 + number, -number, 1), err
        succeeded(drawbench(*SHORT))


# ------------------------------------------------------------------ cut off at every file it writes


class Killed(BaseException):
    """Caught by no code of ours, as if the process had died."""


@contextmanager
def killed_at(nth: int, before: bool) -> Iterator[list[str]]:
    """Die at the n-th file that is put in place, right before or after; yield the names so far."""
    real, names = os.replace, []

    def replace(source, target, **words):
        names.append(Path(target).name)
        if len(names) == nth and before:
            raise Killed
        real(source, target, **words)
        if len(names) == nth:
            raise Killed

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "replace", replace)
        yield names


def run_until_killed(words: list[str], nth: int, before: bool) -> None:
    with killed_at(nth, before), pytest.raises(Killed):
        # Not through CliRunner, which turns every exception into a result.
        cli.main(words, prog_name="drawbench", standalone_mode=False)


@pytest.mark.parametrize("before", [True, False], ids=["before", "after"])
def test_a_run_cut_off_at_any_file_is_bit_identical(short_run, before):
    expected, writes = short_run
    assert (
        {*runs.FILES}
        >= {*writes}
        >= {
            *("config.json", "environment.json", "metrics.csv", runs.RESULT),
            *(runs.BEST, runs.LAST, runs.PREVIOUS),
        }
    )
    for nth in range(1, len(writes) + 1):
        shutil.rmtree("results", ignore_errors=True)
        run_until_killed(SHORT, nth, before)
        if (RUN / "config.json").exists():
            succeeded(drawbench("resume", str(RUN)))
        else:  # it died before there was a run: nothing to resume, and no obstacle to a new start
            commands.failed(drawbench("resume", str(RUN)), "not a run folder")
            succeeded(drawbench(*SHORT))
        same_run(RUN, expected)


def run_until_second_save(writes: list[str]) -> None:
    _, second, *_ = [nth for nth, name in enumerate(writes, start=1) if name == runs.LAST]
    run_until_killed(SHORT, second, False)
    assert 0 < checkpoint_step() < 6


def test_a_resume_from_a_damaged_state_that_is_cut_off_loses_nothing_more(short_run):
    """The damaged state must not replace the sound one before it: one is sound at any moment."""
    expected, writes = short_run
    run_until_second_save(writes)
    (RUN / runs.LAST).write_bytes(b"rubbish")
    shutil.copytree("results", "broken")
    for nth in range(1, 9):
        shutil.rmtree("results")
        shutil.copytree("broken", "results")
        run_until_killed(["resume", str(RUN)], nth, False)
        succeeded(drawbench("resume", str(RUN)))
        same_run(RUN, expected)


@pytest.mark.parametrize("lost", [(), (runs.LAST,), (runs.LAST, runs.PREVIOUS)])
def test_resuming_a_finished_run_changes_nothing(short_run, lost):
    """Without states, as in an exported copy, it must not be trained from scratch."""
    shutil.copytree(short_run[0], RUN)
    for name in lost:
        (RUN / name).unlink()
    before = {path.name: path.read_bytes() for path in RUN.glob("*.*")}
    for _ in range(2):
        assert "test error %" in succeeded(drawbench("resume", str(RUN))).stdout
    assert before == {path.name: path.read_bytes() for path in RUN.glob("*.*")}


def test_a_run_moved_elsewhere_can_be_resumed(short_run):
    expected, writes = short_run
    run_until_second_save(writes)
    Path("results").rename("archive")
    succeeded(drawbench("resume", "archive/runs/one"))
    same_run(Path("archive/runs/one"), expected)


def test_a_strangers_run_leads_no_command_out_of_its_folder(short_run, datasets):
    run_until_second_save(short_run[1])
    outside = Path("outside")
    outside.mkdir()
    (outside / "thesis.tex").write_text("years of work")
    read = {"config.json", runs.LAST, runs.PREVIOUS, runs.BEST, runs.RESULT}
    for name in set(runs.FILES) - read:
        (RUN / name).unlink(missing_ok=True)
        (RUN / name).symlink_to((outside / "thesis.tex").absolute())
    for folder in ("figures", "tensorboard"):
        shutil.rmtree(RUN / folder, ignore_errors=True)
        (RUN / folder).symlink_to(outside.absolute())
        commands.failed(drawbench("resume", str(RUN), "--tensorboard"), f"{folder} is a link")
        (RUN / folder).unlink()
    succeeded(drawbench("resume", str(RUN)))
    words = ["evaluate", str(RUN), "--datasets", str(datasets), "--clutter", "0", "--glimpses", "1"]
    succeeded(drawbench(*words))
    assert [(path.name, path.read_text()) for path in outside.iterdir()] == [
        ("thesis.tex", "years of work")
    ]
