"""``python -m tests.torture``."""

import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path

import click

from . import harness
from .campaign import HARMS, SINGLE, campaign, chosen
from .harness import Case, Tally

BEGIN, END = "<!-- torture: begin -->", "<!-- torture: end -->"
TITLES = {
    "kills": "killed (SIGKILL)",
    "signals": "stopped (SIGTERM, SIGINT), chains of five",
    "disk": "disk full, failing, read-only, gone",
    "damage": "files cut short or changed in a byte",
    "locks": "two processes on one folder",
    "numbers": "NaN and infinity",
    "ranks": "one process of two killed",
    "endurance": "20,000 steps, a save every 50",
}
HEADS = {
    "tried": "tried",
    "resumed": "gone on with",
    "identical": "ended bit-identical",
    "tracebacks": "tracebacks",
    "silent": "silent corruptions",
    "lost": "lost checkpoints",
    "strays": "stray files",
}


# ------------------------------------------------------------------------------------- what is told


def facts(seed: int) -> dict[str, str | int]:
    """Where and of what the figures are."""
    asked = [
        "git",
        "-C",
        str(harness.ROOT),
        "describe",
        "--always",
        "--dirty",
        "--abbrev=12",
        "--exclude=*",
    ]
    commit = subprocess.run(asked, capture_output=True, text=True).stdout.strip()
    machine = f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}, torch {version('torch')}"
    return {
        "date": time.strftime("%Y-%m-%d"),
        "commit": commit or "unknown",
        "machine": machine,
        "seed": seed,
    }


def table(record: dict[str, dict]) -> str:
    """The counts as Markdown, with a sum, and what was noted below."""
    lines = ["| harm | " + " | ".join(HEADS.values()) + " |", "|---|" + "---:|" * len(HEADS)]
    rows = {TITLES[harm]: found for harm, found in record.items()}
    rows["**all**"] = {name: sum(found[name] for found in record.values()) for name in HEADS}
    for title, found in rows.items():
        lines.append(f"| {title} | " + " | ".join(f"{found[name]:,}" for name in HEADS) + " |")
    whens = {
        f"commit {found['commit']}, {found['date']}, seed {found['seed']}; {found['machine']}"
        for found in record.values()
    }
    notes = [
        f"- {TITLES[harm]}: {note}"
        for harm, found in record.items()
        for note in sorted(set(found["notes"]))
    ]
    return "\n".join([*lines, "", *sorted(whens), *([""] if notes else []), *notes])


def remember(tallies: dict[str, Tally], seed: int, file: Path, page: Path) -> None:
    """Put the figures of these harms in place of older ones: in the JSON file, and in the page
    between two marks.
    """
    record = json.loads(file.read_text()) if file.exists() else {}
    record |= {harm: {**_plain(tally), **facts(seed)} for harm, tally in tallies.items()}
    record = {harm: record[harm] for harm in HARMS if harm in record}
    file.write_text(json.dumps(record, indent=2) + "\n")
    before, _, rest = page.read_text().partition(BEGIN)
    page.write_text(f"{before}{BEGIN}\n{table(record)}\n{END}{rest.partition(END)[2]}")


def _plain(tally: Tally) -> dict:
    return {name: value for name, value in asdict(tally).items() if name != "about"}


@click.command(
    epilog="A fault prints its case, the command that repeats it, and leaves its folder for inspection."
)
@click.option("--only", help=f"Some harms: {','.join(HARMS)}.  [default: all]")
@click.option("--kills", default=200, show_default=True, help="How many times to kill.")
@click.option("--share", default=1.0, show_default=True, help="Of all cases: 0.05 is a quick look.")
@click.option("--seed", default=0, show_default=True, help="Of all that is random.")
@click.option("--case", "number", type=int, help="One case of the harm of --only, again.")
@click.option("--workers", default=2, show_default=True, help="Cases at a time.")
@click.option(
    "--out", type=click.Path(path_type=Path), help="Write the counts here: .md, else JSON."
)
@click.option(
    "--record",
    is_flag=True,
    help="Put the counts into results/torture.json and docs/reliability.md.",
)
@click.option(
    "--folder",
    type=click.Path(path_type=Path),
    help="Where to work.  [default: a temporary folder]",
)
def main(
    only: str | None,
    kills: int,
    share: float,
    seed: int,
    number: int | None,
    workers: int,
    out: Path | None,
    record: bool,
    folder: Path | None,
) -> None:
    """Hurt drawbench in every way that docs/reliability.md speaks of, and count what holds."""
    if not sys.platform.startswith("linux"):
        raise click.UsageError("the harness looks at processes by /proc, which is Linux's")
    harms = only.split(",") if only else list(HARMS)
    if unknown := [harm for harm in harms if harm not in HARMS]:
        raise click.UsageError(f"there is no harm {unknown[0]!r}; there are {', '.join(HARMS)}")
    if number is not None and len(harms) != 1:
        raise click.UsageError("--case is one of a single harm: name it with --only")
    folder = folder or Path(tempfile.mkdtemp(prefix="drawbench-torture-"))
    folder.mkdir(parents=True, exist_ok=True)
    cases = chosen(harms, kills, share, seed) if number is None else [Case(harms[0], number, seed)]
    os.environ |= SINGLE
    os.environ.pop("DRAWBENCH_SOURCES", None)
    begin = time.monotonic()
    tallies = campaign(cases, folder, workers, lambda text: click.echo(text, err=True))
    told = {harm: {**_plain(tally), **facts(seed)} for harm, tally in tallies.items()}
    click.echo(table(told))
    click.echo(f"\n{time.monotonic() - begin:.0f} seconds")
    if out is not None:
        out.write_text((table(told) if out.suffix == ".md" else json.dumps(told, indent=2)) + "\n")
    if record:
        remember(
            tallies,
            seed,
            harness.ROOT / "results" / "torture.json",
            harness.ROOT / "docs" / "reliability.md",
        )
    faults = [fault for tally in tallies.values() for fault in tally.faults]
    for fault in faults:
        click.echo(f"FAULT {fault}", err=True)
    if faults:
        click.echo(f"{len(faults)} faults; the folders are in {folder}", err=True)
        sys.exit(1)
    shutil.rmtree(folder)


if __name__ == "__main__":
    main()
