"""``drawbench models``."""

import click

from drawbench.cli import options


@click.command(
    epilog="""\b
Examples:
  drawbench models
  drawbench plot glimpse-8                a model's name stands for a run everywhere
  drawbench generate --from draw-mnist --out pictures
"""
)
@options.common
def command(as_json: bool) -> None:
    """List the trained models that come with drawbench."""
    from drawbench import pretrained, records
    from drawbench.cli import console

    rows = []
    for name, entry in pretrained.models().items():
        folder = pretrained.HOME / name
        result = records.read(folder, console.say).result
        fields = ("task", "dataset", "metric", "value", "low", "high", "n", "parameters")
        row = {"name": name, **entry} | {field: result.get(field) for field in fields}
        rows.append(row | {"card": str(folder / "README.md")})
    lines = []
    for row in rows:
        unit = "% error" if row["metric"] == records.ERROR else " nats"
        measured = f"{row['value']:.2f}{unit} ({row['low']:.2f}-{row['high']:.2f})"
        lines += [f"{row['name']}: {row['about']}", f"  {measured} on {row['dataset']}"]
        lines += [f"  card: {row['card']}", ""]
    lines.append("Use a name as a run: drawbench plot glimpse-8, generate --from draw-mnist.")
    console.emit({"models": rows}, "\n".join(lines), as_json)
