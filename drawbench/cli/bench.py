"""``drawbench bench``."""

from pathlib import Path
from typing import Any

import click

from drawbench.cli import options
from drawbench.cli.evaluate import Numbers
from drawbench.config import LARGEST_BATCH

AXES = ("glimpses", "batch", "canvas", "threads", "processes")


@click.command(
    epilog="""\b
Examples:
  drawbench bench                                    all cases: about three minutes on two cores
  drawbench bench generator-paper --against eager    how many times faster than the plain model
  drawbench bench classifier --threads 1 --rounds 20
  drawbench bench generator --glimpses 32 --batch 50 --device cuda
  drawbench bench --growth glimpses --growth batch --out results/bench

\b
Cases, of which a part is all that begin with its name:
  classifier-paper        100x100, 8 glimpses of 12x12, 256 units, batches of 128
  classifier-small        60x60, 4 glimpses, batches of 32
  generator-paper         28x28, 64 steps, 2x2 read and 5x5 written, 256 units, 100 latents, batches of 100
  generator-10            the same in 10 steps
  generator-no-attention  the same in 20 steps, without attention
  generator-small         10 steps, batches of 20
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
    help="Only this; repeat for more.",
)
@click.option(
    "--against",
    type=click.Choice(["eager"]),
    help="Also time the plain model, in turn, and give the ratios.",
)
@click.option(
    "--growth",
    type=click.Choice(AXES),
    multiple=True,
    help="Measure and draw how cost grows with this; repeat for more.",
)
@click.option(
    "--values",
    type=Numbers(),
    help="Of what cost grows with, such as 8,16,32.  [default: doublings]",
)
@click.option(
    "--rounds",
    type=click.IntRange(1),
    default=10,
    show_default=True,
    help="Counted rounds; the median is given.",
)
@click.option(
    "--memory/--no-memory",
    default=True,
    show_default=True,
    help="Measure peak memory, in processes of their own.",
)
@click.option(
    "--batch", type=click.IntRange(1, LARGEST_BATCH), help="Images at a time, in every case."
)
@click.option(
    "--glimpses", type=click.IntRange(1, 4096), help="Steps, in every case that has them."
)
@click.option(
    "--canvas", type=click.IntRange(1, 4096), help="Side of the images, pixels, in every case."
)
@click.option("--threads", type=click.IntRange(1, 1024), help="CPU threads.  [default: all cores]")
@click.option(
    "--device",
    type=click.Choice(["auto", "cpu", "cuda"]),
    default="auto",
    show_default=True,
    help="Where the models run.",
)
@click.option(
    "--out",
    type=options.folder,
    help="Folder for the rows and pictures.  [default: results/bench with --growth, else none]",
)
@options.common
def command(
    cases: tuple[str, ...],
    work: tuple[str, ...],
    against: str | None,
    growth: tuple[str, ...],
    values: list[int] | None,
    rounds: int,
    memory: bool,
    threads: int | None,
    device: str,
    out: Path | None,
    as_json: bool,
    **sizes: int | None,
) -> None:
    """Speed and memory of training, evaluation and data generation.

    Gives images per second; floor %, the share in the step's time of its matrix products alone, in
    the same type of numbers; and the memory that the step adds at its peak. A training step is
    loss, gradient, clipping and Adam; an evaluation the loss alone. Nothing else should run on the
    machine meanwhile.
    """
    _check(growth, values, {**sizes, "threads": threads})
    import torch

    from drawbench import bench, runs
    from drawbench.cli import console
    from drawbench.errors import Problem
    from drawbench.tasks import common

    where = common.device_of(device)
    if threads:
        torch.set_num_threads(threads)
    try:
        chosen = bench.select(cases or (bench.GROWING if growth else ()), **sizes)
    except Problem as error:
        raise click.UsageError(str(error)) from error
    machine = {**runs.environment(), "command": runs.command_line()}
    if where.type == "cpu":
        machine["device"] = "cpu"
    todo = {
        along: bench.growth_plans(chosen, work or ("training",), along, values or bench.AXES[along])
        for along in growth
    }
    todo = todo or {"": bench.plans(chosen, work)}
    if not all(todo.values()):
        raise click.UsageError(
            f"{', '.join(chosen)} and --work {' '.join(work) or 'training'} have nothing in common to measure"
        )
    screen = console.Console()
    rows, paths = {}, []
    for along, plans in todo.items():
        rows[along] = bench.measure(
            plans,
            rounds=rounds,
            against_plain=against is not None,
            memory=memory,
            device=where,
            progress=lambda done, total: screen.progress(done, total, {}),
        )
        if out or along:
            paths += _write(out or Path("results/bench"), rows[along], machine, along)
    text = [_table(rows[along], along) for along in rows]
    text.append(
        f"{machine['processor']}, {machine['threads']} of {machine['cores']} cores, {machine['device']}, torch {machine['torch']}"
    )
    if paths:
        text.append("\n".join(["Written:", *(f"  {path}" for path in paths)]))
    result = {
        "rows": [row for some in rows.values() for row in some],
        "environment": machine,
        "written": [str(path) for path in paths],
    }
    console.emit(result, "\n\n".join(text), as_json)


def _check(growth: tuple[str, ...], values: list[int] | None, given: dict[str, int | None]) -> None:
    """Wrong usage, told before torch is imported."""
    if values and len(growth) != 1:
        raise click.UsageError(
            f"--values are those of one --growth, but {len(growth)} were given; run the command once for each"
        )
    if values and values[0] < 1:
        raise click.UsageError(f"--values must be at least 1, got {values[0]}")
    for along in growth:
        if given.get(along) is not None:
            raise click.UsageError(
                f"--growth {along} varies what --{along} fixes; leave out --{along}, or give --values"
            )


HEADINGS = {
    "case": "case",
    "work": "work",
    "how": "how",
    "images_per_second": "images/s",
    "slowest": "slowest",
    "fastest": "fastest",
    "gflops": "GFLOP/s",
    "floor_percent": "floor %",
    "peak_mb": "peak MB",
    "times": "times plain",
}


def _table(rows: list[dict[str, Any]], along: str) -> str:
    """The rows for people; with the column that cost grows with, if any."""
    from drawbench.cli import console

    shown = []
    for row in rows:
        row = {**row, "how": f"{row['implementation']}, {row['precision']}"}
        if "times_plain" in row:
            row["times"] = (
                "{times_plain:.2f} ({times_plain_low:.2f} - {times_plain_high:.2f})".format(**row)
            )
        names = ["case", "work", *([along] if along else []), *list(HEADINGS)[2:]]
        shown.append(
            {HEADINGS.get(name, name): _figures(row[name]) for name in names if name in row}
        )
    return console.table(shown)


def _figures(value: Any) -> str:
    """Numbers with the digits that matter."""
    if not isinstance(value, float):
        return str(value)
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def _write(
    folder: Path, rows: list[dict[str, Any]], machine: dict[str, Any], along: str
) -> list[Path]:
    """The rows as a table and, with the machine's description, as JSON; and the picture of a
    growth. The paths of all.
    """
    import pandas

    from drawbench import figures, files

    name, frame = f"growth_{along}" if along else "bench", pandas.DataFrame(rows)
    table, record = folder / f"{name}.csv", folder / f"{name}.json"
    files.write_atomically(table, frame.to_csv(index=False, lineterminator="\n").encode())
    files.write_json(record, {"environment": machine, "rows": rows})
    drawn = (
        figures.save(figures.growth(frame, along), folder, name, formats=("png", "pdf"))
        if along
        else []
    )
    return [table, record, *drawn]
