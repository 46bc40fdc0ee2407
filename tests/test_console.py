"""What is printed fits the terminal, and needs none."""

import json
import shlex
import subprocess
import sys

import pytest
from commands import tiny

from drawbench.cli import console

ROW = {
    "step": 240_000,
    "images_seen": 30_720_000,
    "train_loss": 0.123456,
    "train_error": 3.456,
    "gradient_norm": 1.5,
    "validation_loss": 0.234567,
    "validation_error": 3.567,
    "validation_bound": 123.456,
    "validation_kl": 26.123,
    "learning_rate": 1e-3,
}


@pytest.fixture(params=[40, 80, 200])
def columns(request, monkeypatch):
    monkeypatch.setenv("COLUMNS", str(request.param))
    return request.param


def test_a_row_of_metrics_fits_the_terminal_and_drops_nothing(columns, capsys):
    screen = console.Console()
    screen.speed = ["1,234 images/s", "1:01:40 left"]
    screen.row(ROW)
    lines = capsys.readouterr().err.splitlines()
    assert max(map(len, lines)) <= columns
    assert (len(lines) == 1) == (columns == 200)
    expected = ["update 240000", "train loss 0.123", "train error 3.46%", "validation loss 0.235"]
    expected += ["validation error 3.57%", "validation bound 123.46 nats", "1:01:40 left"]
    for part in expected:
        assert part in "\n".join(lines)


@pytest.mark.parametrize("count", [1, 3])
def test_a_table_fits_the_terminal_and_drops_nothing(columns, count):
    rows = [{f"column {k}": f"value {k * 11}" for k in range(10, 21)} for _ in range(count)]
    lines = console.table(rows).splitlines()
    assert max(map(len, lines)) <= columns
    assert len(lines) == (count + 1 if columns == 200 else 12 * count - 1)
    for name, value in rows[0].items():
        assert sum(name in line for line in lines) == (1 if columns == 200 else count)
        assert sum(value in line for line in lines) == count


@pytest.mark.parametrize(
    ("shell", "line"),
    [
        ("/bin/bash", ". my\\ env/bin/activate"),
        ("/usr/bin/fish", "source my\\ env/bin/activate.fish"),
        ("/bin/tcsh", "source my\\ env/bin/activate.csh"),
        ("", ". my\\ env/bin/activate"),
    ],
)
def test_the_line_that_puts_the_command_on_the_path_suits_the_shell(
    shell, line, tmp_path, monkeypatch
):
    (tmp_path / "my env" / "bin").mkdir(parents=True)
    for suffix in ("", ".fish", ".csh"):
        (tmp_path / "my env" / "bin" / f"activate{suffix}").touch()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.prefix", str(tmp_path / "my env"))
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("SHELL", shell)
    assert shlex.split(console.how_to_call()) == shlex.split(line)
    (tmp_path / "drawbench").write_text("#!/bin/sh\n")
    (tmp_path / "drawbench").chmod(0o755)
    assert console.how_to_call() is None


def test_times_are_written_as_on_a_clock():
    assert [console.clock(s) for s in (75, 3700, -1)] == ["01:15", "1:01:40", "00:00"]


def test_the_console_works_without_standard_error(monkeypatch):
    monkeypatch.setattr(sys, "stderr", None)
    screen = console.Console()
    screen.say("hello")
    for step in (1, 2):
        screen.progress(step, 2, {"loss": 1.0, "images/s": 10.0})
    screen.row(ROW)
    screen.close()


@pytest.mark.processes
@pytest.mark.parametrize("closed", ["2>&-", "<&- 2>&-"])
def test_a_command_runs_without_standard_error(tmp_path, closed):
    words = " ".join(tiny(steps=4, evaluate_every=2, checkpoint_every=1))
    program = f'{sys.executable} -c "from drawbench.cli import main; main()"'
    command = f"{program} classify {words} --run one --json {closed}"
    pipes = {"stdout": subprocess.PIPE, "text": True, "timeout": 300}
    done = subprocess.run(["sh", "-c", command], cwd=tmp_path, check=True, **pipes)
    assert json.loads(done.stdout)["steps"] == 4
    metrics = (tmp_path / "results/runs/one/metrics.csv").read_text().splitlines()
    assert len(metrics) == 3 and metrics[0].startswith("step,")


def test_closed_standard_streams_are_reserved(tmp_path):
    """Or a library that prints to stream 2 would print into the file that was opened first."""
    code = """
import os
import sys
from drawbench.cli import console
console.reserve_standard_streams()
with open("file", "w") as file:
    os.write(2, b"of a library")
assert sys.stdin.buffer.read() == b""
"""
    command = f"{sys.executable} -c '{code}' <&- >&- 2>&-"
    subprocess.run(["sh", "-c", command], cwd=tmp_path, check=True)
    assert (tmp_path / "file").read_text() == ""
