"""One page with everything that finished runs show: headlines, tables, figures, animations. A
single file that needs no network.

Names of runs, models and files are chosen by users: the template escapes every one of them, and the
page's own policy allows no script but the one whose hash it states.
"""

import base64
import hashlib
import io
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from PIL import Image, ImageSequence

from drawbench import published, tables
from drawbench.errors import one_line
from drawbench.figures import results, style
from drawbench.records import Record
from drawbench.tables import classification, likelihood
from drawbench.tables.rows import Row, rows
from drawbench.tables.table import Table

HERE = Path(__file__).parent
ANIMATIONS = {  # file -> a word for the selector, and the title
    "glimpses.gif": ("glimpses", "Where the network looks in test images, and what it answers"),
    "samples.gif": ("samples", "Drawing from noise, step by step"),
    "reconstructions.gif": ("reconstructions", "Test images, drawn again step by step"),
}
MAX_FRAMES = 32  # of an animation on the page
COLOURS = 64  # of a frame; animations have about as many
MAX_COLOURS = 256  # of a palette
MAX_FILE_PIXELS, MAX_FILE_FRAMES = 1 << 23, 5000  # of an animation that is read
MAX_ANIMATION_BYTES = 6_000_000  # of all animations: what a phone still opens without waiting
METRIC_COLUMNS = ("error %", "bound", "-log p")  # shown second
NOTE_COLUMNS = ("notes", "runs or source")  # shown in small print below the model


class Animation(NamedTuple):
    """An animation as pictures to step through."""

    choice: str  #: in the selector
    title: str
    frames: list[str]  #: data URIs
    size: tuple[int, int]  #: width and height, pixels


def page(records: list[Record], say: Callable[[str], object]) -> str:
    """Return the page as HTML; the same runs give the same text.

    Args:
        say: receives a sentence about each picture that cannot be read or finds no room.
    """
    options: Any = {"autoescape": True, "trim_blocks": True, "lstrip_blocks": True}
    environment = Environment(loader=FileSystemLoader(HERE), undefined=StrictUndefined, **options)
    css, script = ((HERE / name).read_text(encoding="utf-8") for name in ("page.css", "page.js"))
    figures = [
        {"name": name, "caption": caption, "picture": _uri(style.as_bytes(figure, "png"))}
        for name, caption, figure in results.make(records, say)
    ]
    return environment.get_template("page.html").render(
        css=css,
        script=script,
        script_hash=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
        headlines=headlines(records),
        tables=[_table(table) for table in tables.make(records)],
        figures=figures,
        animations=animations(records, say),
        runs=[_run(record) for record in records],
    )


def headlines(records: list[Record]) -> list[dict[str, str]]:
    """Return the best numbers per data set: of DRAW and, if it is another model, of all models."""
    cards = []
    for dataset in sorted({record.result["dataset"] for record in records}, key=_by_importance):
        group = rows(record for record in records if record.result["dataset"] == dataset)
        group.sort(key=lambda row: row.estimate().value)
        best = [row for row in group if row.first.result["model"] == "draw"][:1] or group[:1]
        best += group[:1] if group[0] is not best[0] else []
        cards += [_headline(row, dataset) for row in best]
    return cards


def _by_importance(dataset: str) -> tuple[bool, bool, str]:
    return dataset != classification.PAPER, dataset != likelihood.PAPER, dataset


def _headline(row: Row, dataset: str) -> dict[str, str]:
    classifies = row.first.result["task"] == "classify"
    estimate, unit = row.estimate(), "%" if classifies else " nats"
    count = "" if row.glimpses is None else f", {row.glimpses} "
    looks = count and count + ("glimpses" if classifies else "steps")
    metric, name = ("error", "Differentiable RAM") if classifies else ("bound", "DRAW")
    paper = [
        float(entry["value"])
        for entry in published.results(dataset)
        if entry["metric"] == metric and entry["model"].startswith(name)
    ]
    seeds = sorted(record.result["value"] for record in row.records)
    interval = f"95% interval {estimate.low:.2f} to {estimate.high:.2f}"
    if len(seeds) > 1:
        interval = f"{len(seeds)} seeds, {seeds[0]:.2f} to {seeds[-1]:.2f}"
    return {
        "value": f"{estimate.value:.2f}{unit}",
        "what": f"{'test error' if classifies else 'bound'}: {row.model}{looks}",
        "dataset": dataset,
        "interval": interval,
        "paper": f"the paper: {min(paper):.2f}{unit}" if paper and row.model == "draw" else "",
    }


def _table(table: Table) -> dict[str, Any]:
    """Return what the template shows of a table: the metric second, notes in small print."""
    shown, rows_, numeric = table.shown(), table.wide or table.rows, table.numeric()
    metric = [name for name in METRIC_COLUMNS if name in shown]
    hidden = ("whose", *NOTE_COLUMNS)
    others = [name for name in list(shown)[1:] if name not in (*metric, *hidden)]
    columns = [next(iter(shown)), *metric, *others]
    notes = [name for name in NOTE_COLUMNS if name in shown]
    lines = []
    for (_, cells), row in zip(shown.iterrows(), rows_, strict=True):
        small = [cells[name] for name in notes if cells[name] != "-"]
        ours = row.get("whose") != "published"
        lines.append({"cells": cells[columns].tolist(), "notes": small, "ours": ours})
    return {
        "name": table.name,
        "title": table.title,
        "note": table.note,
        "columns": columns,
        "numeric": [numeric[name] for name in columns],
        "rows": lines,
    }


def _uri(png: bytes) -> str:
    return f"data:image/png;base64,{base64.b64encode(png).decode()}"


def animations(records: list[Record], say: Callable[[str], object]) -> list[Animation]:
    """Return the animations of the runs, the best runs first, as far as there is room."""
    chosen: list[Animation] = []
    room = MAX_ANIMATION_BYTES

    def quality(record: Record) -> tuple:
        return record.result["task"], record.result["value"], record.pointer

    for record in sorted(records, key=quality):
        for file, (word, title) in ANIMATIONS.items():
            if (path := record.picture(file)) is None:
                continue
            try:
                frames, shape = decode(path)
            except Exception as error:  # a broken file makes Pillow raise nearly anything
                kind = type(error).__name__
                say(f"Skipped {one_line(str(path))}: this animation cannot be read ({kind}).")
                continue
            size = sum(map(len, frames))
            if size > room:
                say(f"Skipped {one_line(str(path))}: better runs' animations fill the page.")
                continue
            room -= size
            name = record.pointer
            chosen.append(Animation(f"{name}, {word}", f"{title}: {name}", frames, shape))
    return chosen


def decode(path: Path) -> tuple[list[str], tuple[int, int]]:
    """Return the frames of a GIF, :data:`MAX_FRAMES` at most with first and last, and their size.

    Raises:
        OSError, ValueError: if it cannot be read.
    """
    # Only GIF: Pillow tells formats by content, and for one of them (EPS) starts another program.
    with Image.open(path, formats=("GIF",)) as animation:
        count = getattr(animation, "n_frames", 1)
        if animation.width * animation.height > MAX_FILE_PIXELS or count > MAX_FILE_FRAMES:
            size = f"{animation.width}x{animation.height} pixels and {count} frames"
            raise ValueError(f"{size} are too many")
        steps = min(count, MAX_FRAMES)
        shown = {round(k * (count - 1) / max(1, steps - 1)) for k in range(steps)}
        numbered = enumerate(ImageSequence.Iterator(animation))
        pictures = [frame.convert("RGB") for number, frame in numbered if number in shown]
        shape = animation.size
    palette, frames = _palette(pictures), []
    for picture in pictures:
        png = io.BytesIO()
        # Choosing a palette takes ten times as long as using one.
        few = {"palette": palette} if palette else {"colors": COLOURS}
        # The highest level takes twice as long for a sixth fewer bytes.
        picture.quantize(**few, dither=Image.Dither.NONE).save(png, "png", compress_level=7)
        frames.append(_uri(png.getvalue()))
    return frames, shape


def _palette(pictures: list[Image.Image]) -> Image.Image | None:
    """Return a picture with all colours of some RGB pictures, or None if they are too many."""
    colours: set[Any] = set()
    for picture in pictures:
        counted = picture.getcolors(MAX_COLOURS)  # None if there are more
        colours.update(colour for _, colour in counted or ())
        if counted is None or len(colours) > MAX_COLOURS:
            return None
    palette = Image.new("P", (1, 1))
    palette.putpalette([value for colour in sorted(colours) for value in colour])
    return palette


def _run(record: Record) -> dict[str, Any]:
    """Return what the page says of a run: enough to repeat it."""
    result, machine = record.result, record.environment
    unit = "%" if result["metric"] == "test_error_percent" else " nats"
    value = f"{result['value']:.2f}{unit} ({result['low']:.2f} to {result['high']:.2f})"
    threads, torch = machine.get("threads", "-"), machine.get("torch", "-")
    facts = {
        "result": f"{value}, {int(result['n']):,} test images of {result['dataset']}",
        "command": without_folders(str(result.get("command") or "-")),
        "seed": record.seed,
        "commit": machine.get("commit") or "-",
        "machine": f"{machine.get('processor', '-')}, {threads} threads, torch {torch}",
    }
    return {"name": record.pointer, "facts": facts}


def without_folders(command: str) -> str:
    """Return a command line with the last part of each absolute path only: pages are shared."""
    return re.sub(r"(?<![^\s=:'\"])~?/(?:[^\s/'\"]+/)+", "", command)
