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

from .campaign import HARMS, campaign, choose
from .checks import COUNTS, Case, Tally
from .processes import ROOT

BEGIN, END = "<!-- torture: begin -->", "<!-- torture: end -->"


def facts(seed: int) -> dict[str, str | int]:
    """Return the commit, date and machine of a campaign."""
    describe = ["describe", "--always", "--dirty", "--abbrev=12", "--exclude=*"]
    commit = subprocess.run(["git", "-C", str(ROOT), *describe], capture_output=True, text=True)
    system = f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores"
    return {
        "date": time.strftime("%Y-%m-%d"),
        "commit": commit.stdout.strip() or "unknown",
        "machine": f"{system}, Python {platform.python_version()}, torch {version('torch')}",
        "seed": seed,
    }


def table(record: dict[str, dict]) -> str:
    """Return the counts as a Markdown table with a sum, and the notes below."""
    lines = ["| harm | " + " | ".join(COUNTS.values()) + " |", "|---|" + "---:|" * len(COUNTS)]
    rows = {HARMS[harm].title: counts for harm, counts in record.items()}
    rows["**all**"] = {name: sum(counts[name] for counts in record.values()) for name in COUNTS}
    for title, counts in rows.items():
        lines.append(f"| {title} | " + " | ".join(f"{counts[name]:,}" for name in COUNTS) + " |")
    origins = {
        "commit {commit}, {date}, seed {seed}; {machine}".format(**run) for run in record.values()
    }
    notes = [
        f"- {HARMS[harm].title}: {note}"
        for harm, run in record.items()
        for note in sorted(set(run["notes"]))
    ]
    return "\n".join([*lines, "", *sorted(origins), *([""] if notes else []), *notes])


def with_facts(tallies: dict[str, Tally], seed: int) -> dict[str, dict]:
    about = facts(seed)
    runs = {harm: asdict(tally) | about for harm, tally in tallies.items()}
    return {
        harm: {key: value for key, value in run.items() if key not in ("about", "faults")}
        for harm, run in runs.items()
    }


def record(tallies: dict[str, Tally], seed: int, file: Path, page: Path) -> None:
    """Replace the figures of these harms in the JSON file and in the page's marked section."""
    runs = json.loads(file.read_text()) if file.exists() else {}
    runs |= with_facts(tallies, seed)
    runs = {harm: runs[harm] for harm in HARMS if harm in runs}
    file.write_text(json.dumps(runs, indent=2) + "\n")
    before, _, rest = page.read_text().partition(BEGIN)
    page.write_text(f"{before}{BEGIN}\n{table(runs)}\n{END}{rest.partition(END)[2]}")


@click.command(epilog="A fault prints the command that repeats its case, and its folder is kept.")
@click.option("--only", help=f"Some harms: {','.join(HARMS)}.  [default: all]")
@click.option("--share", default=1.0, show_default=True, help="Of the cases; 0.05: a quick look.")
@click.option("--seed", default=0, show_default=True, help="Seed of everything random.")
@click.option("--case", "number", type=int, help="Run one case of the harm given by --only.")
@click.option("--workers", default=1, show_default=True, help="Cases at a time.")
@click.option(
    "--record",
    "recording",
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
    share: float,
    seed: int,
    number: int | None,
    workers: int,
    recording: bool,
    folder: Path | None,
) -> None:
    """Inject the faults of docs/reliability.md into drawbench and count which promises hold."""
    if not sys.platform.startswith("linux"):
        raise click.UsageError("the harness follows processes through /proc, which is Linux only")
    harms = only.split(",") if only else list(HARMS)
    if unknown := [harm for harm in harms if harm not in HARMS]:
        raise click.UsageError(f"there is no harm {unknown[0]!r}; choose from {', '.join(HARMS)}")
    if number is not None and len(harms) != 1:
        raise click.UsageError("--case needs the one harm that it is of: add --only HARM")
    folder = folder or Path(tempfile.mkdtemp(prefix="drawbench-torture-"))
    folder.mkdir(parents=True, exist_ok=True)
    cases = choose(harms, share, seed) if number is None else [Case(harms[0], number, seed)]
    begin = time.monotonic()
    tallies = campaign(cases, folder.resolve(), workers, lambda text: click.echo(text, err=True))
    click.echo(table(with_facts(tallies, seed)))
    click.echo(f"\n{time.monotonic() - begin:.0f} seconds")
    if recording:
        page = ROOT / "docs" / "reliability.md"
        record(tallies, seed, ROOT / "results" / "torture.json", page)
    if faults := [fault for tally in tallies.values() for fault in tally.faults]:
        for fault in faults:
            click.echo(f"FAULT {fault}", err=True)
        raise SystemExit(f"{len(faults)} faults; their folders are in {folder}")
    shutil.rmtree(folder)


if __name__ == "__main__":
    main()
