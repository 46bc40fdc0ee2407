"""One page with everything that finished runs tell: tables, figures, films. A single file that
needs no network.

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

from drawbench import tables
from drawbench.errors import one_line
from drawbench.figures import results, style
from drawbench.figures.results import Drawn
from drawbench.records import Record
from drawbench.tables.table import Table

HERE = Path(__file__).parent
FILMS = {
    "glimpses.gif": "Where the network looks at sixteen test images, and what it thinks",
    "samples.gif": "Drawings from nothing, step by step",
    "reconstructions.gif": "Test images, and their drawings step by step",
}
FRAMES = 32  # of a film at most
COLOURS = 64  # of a frame: films have about as many
LARGEST, MOST_FRAMES = 1 << 23, 5000  # dots of a frame, and frames, of a film that is read
FILM_BYTES = 6_000_000  # of all films together: what a phone still opens without waiting


class Film(NamedTuple):
    """A film as pictures to step through."""

    title: str
    frames: list[str]  #: data URIs
    size: tuple[int, int]  #: width, height, dots


def page(records: list[Record], say: Callable[[str], object]) -> str:
    """The page as HTML; the same runs give the same text.

    Args:
        say: is told of pictures that cannot be read and of films that find no room.
    """
    environment = Environment(
        loader=FileSystemLoader(HERE),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    css, script = ((HERE / name).read_text(encoding="utf-8") for name in ("page.css", "page.js"))
    return environment.get_template("page.html").render(
        css=css,
        script=script,
        script_hash=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
        tables=[_table(table) for table in tables.make(records)],
        figures=[
            (drawn.name, drawn.caption, _figure(drawn)) for drawn in results.make(records, say)
        ],
        films=films(records, say),
        runs=[_run(record) for record in records],
    )


def _table(table: Table) -> dict[str, Any]:
    """What the template shows of a table."""
    shown = table.shown()
    about = {
        "name": table.name,
        "title": table.title,
        "note": table.note,
        "columns": list(shown),
        "numeric": table.numeric(),
    }
    return {
        **about,
        "rows": shown.to_numpy().tolist(),
        "ours": [row.get("whose") != "published" for row in table.wide or table.rows],
    }


def _figure(drawn: Drawn) -> str:
    """A figure as a data URI."""
    return _uri(style.as_bytes(drawn.figure, "png"))


def _uri(png: bytes) -> str:
    return f"data:image/png;base64,{base64.b64encode(png).decode()}"


def films(records: list[Record], say: Callable[[str], object]) -> list[Film]:
    """The films of the runs, the best runs first, as far as there is room."""
    found: list[Film] = []
    room = FILM_BYTES
    for record in sorted(
        records, key=lambda record: (record.result["task"], record.result["value"], record.pointer)
    ):
        for file, words in FILMS.items():
            if (path := record.picture(file)) is None:
                continue
            try:
                film = decode(path, f"{words}: {record.pointer}")
            except Exception as error:  # a broken file makes Pillow raise nearly anything
                say(
                    f"Left out: {one_line(str(path))} is not a film that can be read ({type(error).__name__})."
                )
                continue
            taken = sum(map(len, film.frames))
            if taken > room:
                say(f"Left out: {one_line(str(path))}, because the films before it fill the page.")
                continue
            room -= taken
            found.append(film)
    return found


def decode(path: Path, title: str) -> Film:
    """The frames of a film, :data:`FRAMES` at most, always the first and the last.

    Raises:
        OSError, ValueError: it cannot be read.
    """
    with Image.open(
        path, formats=("GIF",)
    ) as film:  # Pillow knows formats by content, and one (EPS) starts another program
        count = getattr(film, "n_frames", 1)
        if film.width * film.height > LARGEST or count > MOST_FRAMES:
            raise ValueError(f"{film.width}x{film.height} dots and {count} frames are too many")
        shown = (
            {round(k * (count - 1) / max(1, FRAMES - 1)) for k in range(FRAMES)}
            if count > FRAMES
            else set(range(count))
        )
        frames = []
        for number, frame in enumerate(ImageSequence.Iterator(film)):
            if number in shown:
                png = io.BytesIO()
                frame.convert("RGB").quantize(COLOURS, dither=Image.Dither.NONE).save(
                    png, "png", optimize=True
                )
                frames.append(_uri(png.getvalue()))
        return Film(title, frames, film.size)


def _run(record: Record) -> dict[str, Any]:
    """What the page says of a run: enough to repeat it."""
    result, machine = record.result, record.environment
    value = f"{result['value']:.2f} {'%' if result['metric'] == 'test_error_percent' else 'nats'}"
    told = {
        "result": f"{value} ({result['low']:.2f} - {result['high']:.2f}), {int(result['n']):,} test images of {result['dataset']}",
        "command": without_folders(str(result.get("command") or "-")),
        "seed": record.seed,
        "commit": machine.get("commit") or "-",
        "machine": f"{machine.get('processor', '-')}, {machine.get('threads', '-')} threads, torch {machine.get('torch', '-')}",
    }
    return {"name": record.pointer, "told": told}


def without_folders(command: str) -> str:
    """A command line whose absolute paths keep their last part only: the page may go to others."""
    return re.sub(r"(?<![^\s=:'\"])~?/(?:[^\s/'\"]+/)+", "", command)
