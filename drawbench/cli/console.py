"""Everything that is printed: results on standard output, all else on standard error."""

import contextlib
import json
import os
import shlex
import shutil
import sys
import time
from collections.abc import Iterator, Sequence
from contextvars import ContextVar
from pathlib import Path
from typing import Any, TextIO

import click
from tqdm import tqdm

from drawbench.reporters import Quiet, Reporter

UNITS = {"loss": "", "error": "%", "bound": " nats", "kl": " nats"}  # by a metric's last word


def reserve_standard_streams() -> None:
    """Open the null device for standard streams that were closed, as by ``2>&-``.

    Otherwise the next file to be opened takes the number of a closed stream, and whatever a library
    prints there would end up in the file.
    """
    while (descriptor := os.open(os.devnull, os.O_RDWR)) <= 2:
        pass
    os.close(descriptor)
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, mode))  # noqa: SIM115 - open until the end


def say(text: str) -> None:
    """Print a message for the user."""
    click.echo(text, err=True)


def width() -> int:
    """Return the columns of the terminal, 80 where there is none."""
    return shutil.get_terminal_size().columns


def clock(seconds: float) -> str:
    """Return ``1:15`` for 75 seconds, ``1:01:40`` for 3700."""
    return tqdm.format_interval(max(0, round(seconds)))


def joined(parts: Sequence[str], gap: str = "   ") -> str:
    """Join parts in lines that fit the terminal, indented from the second on."""
    lines = [parts[0]]
    for part in parts[1:]:
        if len(lines[-1]) + len(gap) + len(part) <= width():
            lines[-1] += gap + part
        else:
            lines.append("  " + part)
    return "\n".join(lines)


class Console(Reporter):
    """A reporter for the terminal: a progress bar with the time left, and a line per validation.

    There is no bar where standard error is not a terminal.
    """

    def __init__(self) -> None:
        self.bar: tqdm | None = None
        self.start = time.perf_counter()
        self.first_step = 0
        self.duration_said = False
        self.speed: list[str] = []  # images per second and time left, in words

    def say(self, text: str) -> None:
        if sys.stderr is None:
            return
        with tqdm.external_write_mode(file=sys.stderr):
            say(text)

    def progress(self, step: int, total: int, facts: dict[str, float]) -> None:
        if sys.stderr is None:
            return
        if self.bar is None or self.bar.total != total:
            self.close()
            self.bar = tqdm(
                total=total,
                initial=step,
                disable=None,
                unit="",
                dynamic_ncols=True,
                file=sys.stderr,
                leave=False,
            )
            self.start, self.first_step = time.perf_counter(), step
        self.bar.update(step - self.bar.n)
        if facts:
            shown = {name: f"{value:.4g}" for name, value in facts.items()}
            self.bar.set_postfix(shown, refresh=False)
            self._estimate(step, total, facts["images/s"])
        if step >= total:
            self.close()

    def _estimate(self, step: int, total: int, speed: float) -> None:
        """Estimate the time left; say it once, after some seconds of training."""
        elapsed, done = time.perf_counter() - self.start, step - self.first_step
        if not done:
            return
        left = clock(elapsed / done * (total - step))
        self.speed = [f"{speed:,.0f} images/s", f"{left} left"]
        if not self.duration_said and elapsed > 5:
            self.duration_said = True
            self.say(f"{total - step} of {total} updates to go, about {left} at this speed.")

    def row(self, row: dict[str, Any]) -> None:
        """Print the metrics of a validation, the speed and the time left."""
        parts = [f"update {row['step']}"]
        for name, value in row.items():
            unit = UNITS.get(name.rpartition("_")[2])
            if unit is not None:
                number = f"{value:.2f}" if unit == " nats" else f"{value:.3g}"
                parts.append(f"{name.replace('_', ' ')} {number}{unit}")
        self.say(joined([*parts, *self.speed]))

    def close(self) -> None:
        if self.bar is not None:
            self.bar.close()
            self.bar = None


def screen(quiet: bool) -> Reporter:
    """Return the reporter for the terminal, or one that prints nothing."""
    return Quiet() if quiet else Console()


_results: ContextVar[TextIO | None] = ContextVar("results", default=None)


@contextlib.contextmanager
def reserved_for_result(as_json: bool) -> Iterator[None]:
    """Keep standard output for the one JSON object of :func:`emit`: what others print meanwhile,
    such as a user's own code, goes to standard error.
    """
    if not as_json or sys.stderr is None:
        yield
        return
    token = _results.set(sys.stdout)
    try:
        with contextlib.redirect_stdout(sys.stderr):
            yield
    finally:
        _results.reset(token)


def emit(result: dict[str, Any], text: str, as_json: bool) -> None:
    """Print a result: as one JSON object, or as text for people."""
    # The bytes of a folder's name need not be text.
    line = json.dumps(result, allow_nan=False) if as_json else text
    click.echo(line.encode("utf-8", "replace").decode(), file=_results.get())


def table(rows: list[dict[str, Any]]) -> str:
    """Return rows as a table, or as lists of names and values if the terminal is too narrow."""
    import pandas

    text = pandas.DataFrame(rows).to_string(index=False, na_rep="")
    if max(map(len, text.splitlines())) <= width():
        return text
    names = max(len(name) for row in rows for name in row)
    lists = ["\n".join(f"{name:<{names}}  {row[name]}" for name in row) for row in rows]
    return "\n\n".join(lists)


def columns(rows: list[dict[str, str]]) -> str:
    """Return rows with columns as wide as their content: such a list is read by eye or ``grep``."""
    lines = [dict(zip(rows[0], rows[0], strict=True)), *rows]
    widths = {name: max(len(line[name]) for line in lines) for name in rows[0]}
    padded = ("  ".join(line[name].ljust(widths[name]) for name in line) for line in lines)
    return "\n".join(line.rstrip() for line in padded)


def how_to_call() -> str | None:
    """Return the line for this shell that puts ``drawbench`` on the path; None if it is there."""
    folder = Path(sys.prefix) / ("Scripts" if os.name == "nt" else "bin")
    if shutil.which("drawbench") or not (folder / "activate").exists():
        return None
    shell = Path(os.environ.get("SHELL", "")).name
    suffix = {"fish": ".fish", "csh": ".csh", "tcsh": ".csh", "pwsh": ".ps1"}.get(shell, "")
    if os.name == "nt":
        return str(folder / "Activate.ps1")
    script = shlex.quote(os.path.relpath(folder / f"activate{suffix}"))
    return f"source {script}" if suffix else f". {script}"


def this_command() -> str:
    """Return how this program was started, for commands that can be pasted."""
    program = Path(sys.argv[0])
    if program.name == "__main__.py":
        return "python -m drawbench"
    if program.suffix == ".py":
        return f"python {os.path.relpath(program)}"
    return program.name if shutil.which(program.name) else os.path.relpath(program)
