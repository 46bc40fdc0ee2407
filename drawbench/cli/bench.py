"""``drawbench bench``."""

from pathlib import Path
from typing import Any

import click

from drawbench.cli import options

MAX_SIZE, MAX_THREADS = 4096, 1024
ONLY_FLOAT32 = "bfloat16 is left out: this CPU does not multiply it."


@click.command(
    epilog="""\b
Examples:
  drawbench bench                                    all cases: about three minutes on two cores
  drawbench bench generator-paper --against eager    speed-up over the plain model
  drawbench bench classifier --threads 1 --rounds 20
  drawbench bench generator --glimpses 32 --batch 50 --device cuda
  drawbench bench --against eager --out results/bench/two-cores
  drawbench bench generator-paper --growth --out results/bench/two-cores

\b
Cases; the word before the dash selects all cases of that part:
  classifier-paper        100x100, 8 glimpses of 12x12, 256 units, batches of 128
  classifier-eye          the same with a convolutional eye
  classifier-small        60x60, 4 glimpses, batches of 32
  generator-paper         28x28, 64 steps, reads 2x2, writes 5x5, 256 units, 100 latents,
                          batches of 100
  generator-10            the same in 10 steps
  generator-no-attention  the same in 20 steps, without attention
  generator-small         10 steps, batches of 20
  generator-captions      alignDRAW: 60x60, 32 steps of 8x8, 300 units, captions of 12 words
  data-cluttered-100      fresh scenes, 8 pieces of clutter, batches of 1,000
  data-cluttered-60       the same on 60x60, 4 pieces
  data-mnist2             two digits on 60x60
"""
)
@click.argument("cases", nargs=-1, metavar="[CASE|PART]...")
@click.option(
    "--work",
    type=click.Choice(["training", "evaluation", "data"]),
    multiple=True,
    help="Measure only this; can be repeated.",
)
@click.option(
    "--against",
    type=click.Choice(["eager", "compile", "processes"]),
    multiple=True,
    help="Also time the plain model in float32 and under bfloat16 autocast: as it is, through "
    "torch.compile (minutes for 64 steps), or in a process for each thread. Can be repeated.",
)
@click.option("--rounds", type=click.IntRange(1), default=10, help="Rounds that count.")
@click.option("--memory/--no-memory", default=True, help="Measure peak memory, in fresh processes.")
@click.option("--batch", type=click.IntRange(1, 2**24), help="Images in a batch, in every case.")
@click.option("--glimpses", type=click.IntRange(1, MAX_SIZE), help="Steps, in cases that have any.")
@click.option("--canvas", type=click.IntRange(1, MAX_SIZE), help="Side of the images, pixels.")
@click.option("--threads", type=click.IntRange(1, MAX_THREADS), help="CPU threads.  [default: all]")
@click.option(
    "--device",
    type=click.Choice(["auto", "cpu", "cuda"]),
    default="auto",
    help="Where the models run.",
)
@click.option(
    "--growth",
    is_flag=True,
    help="Instead, measure how time and memory of the fast training step grow with steps, batch, "
    "canvas and processes.",
)
@click.option(
    "--precision",
    type=click.Choice(["float32", "bfloat16"]),
    default="float32",
    help="With --growth: precision of the matrix products.",
)
@click.option(
    "--out",
    type=options.folder,
    help="Also write the rows to bench.csv and bench.json; with --growth, to growth.csv and a "
    "figure.",
)
@options.common
def command(
    cases: tuple[str, ...],
    work: tuple[str, ...],
    against: tuple[str, ...],
    rounds: int,
    memory: bool,
    threads: int | None,
    device: str,
    growth: bool,
    precision: str,
    out: Path | None,
    as_json: bool,
    **sizes: int | None,
) -> None:
    """Measure the speed and memory of training, evaluation and data generation.

    Prints images per second; "floor %", the share of the time that the step's matrix products alone
    would take in the same precision; and the peak memory that the step adds. A training step is
    loss, gradient, clipping and Adam; an evaluation is the loss alone. Leave the machine otherwise
    idle.
    """
    import torch

    from drawbench import bench, files, runs
    from drawbench.cli import console
    from drawbench.errors import Problem
    from drawbench.tasks import common

    where = common.device_of(device)
    if threads:
        torch.set_num_threads(threads)
    try:
        selected = bench.select(cases, **sizes)
    except Problem as error:
        raise click.UsageError(str(error)) from error
    for name in ("work", "against", "memory", "device") if growth else ("precision",):
        if options.on_command_line(name):
            why = "does not go with" if growth else "goes with"
            raise click.UsageError(f"--{name} {why} --growth")
    if growth:
        _growth(selected, precision, rounds, out, as_json)
        return
    plans = bench.plans(selected, work)
    if not plans:
        raise click.UsageError(f"--work {' '.join(work)} is no work of {', '.join(selected)}")
    machine = {**runs.environment(), "command": runs.command_line()}
    if where.type == "cpu":
        machine["device"] = "cpu"
    screen = console.Console()
    rows = bench.measure(
        plans,
        rounds=rounds,
        against=against,
        memory=memory,
        device=where,
        progress=lambda done, total: screen.progress(done, total, {}),
    )
    screen.close()
    paths = []
    if out:
        import pandas

        paths = [out / "bench.csv", out / "bench.json"]
        table = pandas.DataFrame(rows).to_csv(index=False, lineterminator="\n")
        files.write_atomically(paths[0], table.encode())
        files.write_json(paths[1], {"environment": machine, "rows": rows})
    cores = f"{machine['threads']} of {machine['cores']} cores"
    text = [
        console.table([_shown(row) for row in rows]),
        f"{machine['processor']}, {cores}, {machine['device']}, torch {machine['torch']}",
        *([] if machine["device"] != "cpu" or machine["bfloat16"] else [ONLY_FLOAT32]),
        *(f"Wrote {path}" for path in paths),
    ]
    written = [str(path) for path in paths]
    result = {"rows": rows, "environment": machine, "written": written}
    console.emit(result, "\n\n".join(text), as_json)


def _growth(
    cases: dict[str, Any], precision: str, rounds: int, out: Path | None, as_json: bool
) -> None:
    """Measure how a step of each case grows; print a table, and write it with a figure."""
    import pandas

    from drawbench import bench, figures, files, runs
    from drawbench.cli import console

    cases = {name: case for name, case in cases.items() if "training" in case.works}
    if not cases:
        raise click.UsageError("--growth measures training: name a case that has any")
    screen = console.Console()
    rows, written = [], []
    for name, case in cases.items():
        rows += bench.growth.measure(
            name,
            case,
            precision=precision,
            rounds=rounds,
            progress=lambda done, total: screen.progress(done, total, {}),
        )
    screen.close()
    table = pandas.DataFrame(rows)
    if out:
        written = [out / "growth.csv"]
        files.write_atomically(written[0], table.to_csv(index=False, lineterminator="\n").encode())
        for name, part in table.groupby("case"):
            written += figures.save(figures.growth_panels(part), out, f"growth-{name}")
    shown = [
        {
            "case": row["case"],
            "axis": row["axis"],
            "value": str(row["value"]),
            "ms": _number(1e3 * row["seconds"]),
            "off the line %": f"{row['off_percent']:+.1f}",
            "peak MB": _number(row.get("peak_mb", "")),
        }
        for row in rows
    ]
    text = "\n\n".join([console.table(shown), *(f"Wrote {path}" for path in written)])
    result = {"rows": rows, "environment": runs.environment(), "written": [*map(str, written)]}
    console.emit(result, text, as_json)


HEADINGS = {
    "case": "case",
    "work": "work",
    "contender": "contender",
    "images_per_second": "images/s",
    "slowest": "slowest",
    "fastest": "fastest",
    "gflops": "GFLOP/s",
    "floor_percent": "floor %",
    "peak_mb": "peak MB",
    "times_plain": "x plain",
    "times_autocast": "x autocast",
    "times_compiled": "x compiled",
    "times_processes": "x processes",
}


def _shown(row: dict[str, Any]) -> dict[str, str]:
    """Return a row as people read it."""
    cells = {**row, "contender": f"{row['implementation']}, {row['precision']}"}
    for name in row:
        if name.startswith("times_") and name in HEADINGS:
            low, high = row[f"{name}_low"], row[f"{name}_high"]
            cells[name] = f"{row[name]:.2f} ({low:.2f}-{high:.2f})"
    return {heading: _number(cells[name]) for name, heading in HEADINGS.items() if name in cells}


def _number(value: Any) -> str:
    """Format a number with the digits that matter."""
    if not isinstance(value, float):
        return str(value)
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"
