"""Everything that is printed: results on standard output, progress and messages on standard error."""

import json
import sys
import time
from typing import Any

import click
from tqdm import tqdm


def say(text: str) -> None:
    """A message for the person at the keyboard."""
    click.echo(text, err=True)


def clock(seconds: float) -> str:
    """``75`` as ``1:15``, ``3700`` as ``1:01:40``."""
    return tqdm.format_interval(max(0, round(seconds)))


UNITS = {
    "loss": "",
    "error": " %",
    "bound": " nats",
    "kl": " nats",
}  # what is told of a measurement, by the last part of its name


class Console:
    """Shows progress: a bar with time left on a terminal; a line per measurement, and no bar, where
    output is piped.
    """

    def __init__(self) -> None:
        self.bar: tqdm | None = None
        self.began = time.perf_counter()
        self.first_step: int | None = None
        self.promised = False
        self.latest: list[str] = []  # speed and time left, in words

    def say(self, text: str) -> None:
        with tqdm.external_write_mode(file=sys.stderr):
            say(text)

    def progress(self, step: int, total: int, facts: dict[str, float]) -> None:
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
            self.began, self.first_step = time.perf_counter(), step
        self.bar.update(step - self.bar.n)
        if facts:
            self.bar.set_postfix(
                {name: f"{value:.4g}" for name, value in facts.items()}, refresh=False
            )
            self._look_ahead(step, total, facts)
        if step >= total:
            self.close()

    def _look_ahead(self, step: int, total: int, facts: dict[str, float]) -> None:
        """Keep the speed and the time left; after some seconds of training say once how long it
        will take.
        """
        elapsed, done = time.perf_counter() - self.began, step - (self.first_step or 0)
        if not done:
            return
        left = elapsed / done * (total - step)
        self.latest = [f"{facts['images/s']:,.0f} images/s", f"{clock(left)} left"]
        if not self.promised and elapsed > 5:
            self.promised = True
            self.say(f"{total - step} of {total} updates to go, about {clock(left)} at this speed.")

    def row(self, row: dict[str, Any]) -> None:
        """One line for a measurement: the step, what was measured, the speed and the time left."""
        parts = [f"update {row['step']}"]
        for name, value in row.items():
            unit = UNITS.get(name.rpartition("_")[2])
            if unit is not None:
                parts.append(
                    f"{name.replace('_', ' ')} {value:{'.2f' if unit == ' nats' else '.3g'}}{unit}"
                )
        self.say("   ".join([*parts, *self.latest]))

    def close(self) -> None:
        if self.bar is not None:
            self.bar.close()
            self.bar = None


def emit(result: dict[str, Any], text: str, as_json: bool) -> None:
    """Print a result: as one JSON object, or as the text made for people."""
    # The bytes of a folder's name need not be text.
    click.echo(
        json.dumps(result, allow_nan=False) if as_json else text.encode("utf-8", "replace").decode()
    )


def table(rows: list[dict[str, Any]]) -> str:
    """Rows as a plain table."""
    import pandas

    return pandas.DataFrame(rows).to_string(index=False, na_rep="")


def stopped(number: int, folder: Any) -> None:
    """Say how to go on after a signal, and leave with its status."""
    say(f"Stopped; everything is saved. Go on with: drawbench resume {folder}")
    sys.exit(128 + number)
