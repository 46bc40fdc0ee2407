"""Everything that is printed: results on standard output, progress and messages on standard error."""

import json
import sys
import time
from typing import Any

import click
from tqdm import tqdm

from drawbench.errors import Problem


def say(text: str) -> None:
    """A message for the person at the keyboard."""
    click.echo(text, err=True)


def clock(seconds: float) -> str:
    """``75`` as ``1:15``, ``3700`` as ``1:01:40``."""
    return tqdm.format_interval(max(0, round(seconds)))


class Console:
    """Shows progress: a bar with time left on a terminal; a line per measurement, and no bar, where output is piped."""

    def __init__(self) -> None:
        self.bar: tqdm | None = None
        self.began = time.perf_counter()
        self.first_step: int | None = None
        self.promised = False

    def say(self, text: str) -> None:
        with tqdm.external_write_mode(file=sys.stderr):
            say(text)

    def progress(self, step: int, total: int, facts: dict[str, float]) -> None:
        if self.bar is None or self.bar.total != total:
            self.close()
            self.bar = tqdm(total=total, initial=step, disable=None, unit="", dynamic_ncols=True, file=sys.stderr, leave=False)
            self.began, self.first_step = time.perf_counter(), step
        self.bar.update(step - self.bar.n)
        if facts:
            self.bar.set_postfix({name: f"{value:.4g}" for name, value in facts.items()}, refresh=False)
            self._promise(step, total)
        if step >= total:
            self.close()

    def _promise(self, step: int, total: int) -> None:
        """Say once, after some seconds of training, how long it will take."""
        elapsed, done = time.perf_counter() - self.began, step - (self.first_step or 0)
        if not self.promised and done and elapsed > 5:
            self.promised = True
            self.say(f"{total - step} of {total} updates to go, about {clock(elapsed / done * (total - step))} at this speed.")

    def row(self, row: dict[str, Any]) -> None:
        shown = {name: value for name, value in row.items() if name not in ("images_seen", "learning_rate")}
        self.say("  ".join(f"{name} {value:g}" if isinstance(value, int) else f"{name} {value:.4g}" for name, value in shown.items()))

    def close(self) -> None:
        if self.bar is not None:
            self.bar.close()
            self.bar = None


def emit(result: dict[str, Any], text: str, as_json: bool) -> None:
    """Print a result: as one JSON object, or as the text made for people."""
    click.echo(json.dumps(result, allow_nan=False) if as_json else text)


def table(rows: list[dict[str, Any]]) -> str:
    """Rows as a plain table."""
    import pandas

    return pandas.DataFrame(rows).to_string(index=False)


def stopped(number: int, folder: Any) -> None:
    """Say how to go on after a signal, and leave with its status."""
    say(f"Stopped; everything is saved. Go on with: drawbench resume {folder}")
    sys.exit(128 + number)


__all__ = ["Console", "Problem", "clock", "emit", "say", "stopped", "table"]
