"""One style for every figure, and one way to write them: the same bytes each time, never half a
file.
"""

import io
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from PIL import Image

from drawbench.files import write_atomically

# Okabe & Ito's colours: told apart under every common colour blindness. Lines differ in dash and
# marker too, so that they can be told apart in grey.
BLUE, ORANGE, GREEN, RED, PURPLE, SKY = (
    "#0072B2",
    "#E69F00",
    "#009E73",
    "#D55E00",
    "#CC79A7",
    "#56B4E9",
)
LINES = (
    {"color": BLUE, "linestyle": "-", "marker": "o"},
    {"color": RED, "linestyle": "--", "marker": "s"},
    {"color": GREEN, "linestyle": "-.", "marker": "^"},
    {"color": PURPLE, "linestyle": (0, (1, 1)), "marker": "D"},
    {"color": ORANGE, "linestyle": (0, (5, 1, 1, 1, 1, 1)), "marker": "v"},
    {"color": SKY, "linestyle": (0, (8, 2)), "marker": "P"},
)


def lines(count: int) -> list[dict[str, Any]]:
    """A line for each of ``count`` curves; beyond six they come again with hollow markers, beyond
    twelve with those of their neighbour.
    """
    made = []
    for number in range(count):
        again, which = divmod(number, len(LINES))
        line = LINES[which] | {"marker": LINES[(which + again // 2) % len(LINES)]["marker"]}
        made.append(line | {"markerfacecolor": "white"} if again % 2 else line)
    return made


# Light against the black of an image, and with a dark edge against the white of a digit: a window
# is seen on both, in grey too.
WINDOW = "#FFB81C"

# inches: the text width of a two-column page, so that the font sizes below are those in print
WIDTH = 6.75
STYLE: dict[Any, Any] = {  # matplotlib's own type for the keys is a list of every setting there is
    "font.family": "DejaVu Sans",  # comes with matplotlib: the same letters on every machine
    "font.size": 8,
    "axes.titlesize": 8,
    "axes.labelsize": 8,
    "xtick.labelsize": 7,
    "ytick.labelsize": 7,
    "legend.fontsize": 7,
    "legend.frameon": False,
    "axes.linewidth": 0.6,
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "xtick.minor.width": 0.4,
    "ytick.minor.width": 0.4,
    "lines.linewidth": 1.4,
    "lines.markersize": 3.5,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "0.88",
    "grid.linewidth": 0.5,
    "figure.dpi": 200,
    "savefig.dpi": 200,
    "image.cmap": "gray",
    "image.interpolation": "nearest",
    "pdf.fonttype": 42,
    "svg.hashsalt": "drawbench",
}
#: Decorator: build the figure in this style, whatever the caller's settings, and leave those alone.
styled = matplotlib.rc_context(STYLE)

# Dates and versions out of the files, so that the same numbers give the same bytes.
_METADATA = {
    "png": {"Software": None},
    "pdf": {"CreationDate": None, "Producer": None, "Creator": None},
    "svg": {"Date": None, "Creator": None},
}
_PNG_LIMIT = 500_000  # bytes
FILM_LIMIT = 500_000  # bytes


def array(values) -> np.ndarray:
    """A numpy array of a tensor on any device, or of anything array-like."""
    if hasattr(values, "detach"):
        values = values.detach().cpu()
        values = values.float() if values.is_floating_point() else values
    return np.asarray(values)


def as_pictures(images) -> np.ndarray:
    """Images for ``imshow``: (N, H, W) or (N, H, W, 3), from those or from a model's (N, C, H, W)."""
    images = array(images)
    if images.ndim == 4 and images.shape[1] in (1, 3) and images.shape[-1] not in (1, 3):
        images = np.moveaxis(images, 1, -1)
    return images[..., 0] if images.ndim == 4 and images.shape[-1] == 1 else images


def bare(axes: Axes) -> Axes:
    """Without ticks, spines and grid: a place for a picture."""
    axes.set(xticks=[], yticks=[])
    axes.grid(False)
    axes.spines[:].set_visible(False)
    return axes


LEGEND_LINE = 0.15  # inches that a line of a legend takes


def legend_height(labels: Iterable[str]) -> float:
    """Inches that :func:`legend_below` needs for labels of one line or more."""
    return LEGEND_LINE * (1 + sum(1 + label.count("\n") for label in labels))


def legend_below(figure: Figure, axes: Axes) -> None:
    """The names of many curves under them, where they hide nothing."""
    handles, labels = axes.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower left", handlelength=3.5)


def settle(figure: Figure) -> Figure:
    """Lay the figure out once and keep it so: the layout is found by iteration, and a second run
    would move things by a hair.
    """
    figure.draw_without_rendering()
    figure.set_layout_engine("none")
    return figure


def _with_fewer_colours(png: bytes) -> bytes:
    """The same picture with a palette of 128 colours: about a third of the size, and no difference
    to the eye in such figures.
    """
    small = io.BytesIO()
    with Image.open(io.BytesIO(png)) as picture:
        picture.convert("RGB").quantize(128, dither=Image.Dither.NONE).save(
            small, "png", optimize=True
        )
    return small.getvalue()


def save(
    figure: Figure, folder: Path | str, name: str, formats: Iterable[str] = ("png",)
) -> list[Path]:
    """Write a figure as ``folder/name.<format>``.

    The bytes depend on the figure alone (no date, no version), and a file is replaced whole or not
    at all. A PNG above 500 kB is reduced to a palette.

    Args:
        figure: any figure of this package.
        folder: made if missing.
        name: file name without ending.
        formats: of ``"png"``, ``"pdf"``, ``"svg"``.

    Returns:
        The paths written, in the order of ``formats``.

    Raises:
        ValueError: an unknown format.
    """
    folder, paths = Path(folder), []
    for form in formats:
        content = as_bytes(figure, form)
        folder.mkdir(parents=True, exist_ok=True)
        paths.append(folder / f"{name}.{form}")
        write_atomically(paths[-1], content)
    return paths


def as_bytes(figure: Figure, form: str) -> bytes:
    """A figure as the content of a file, which depends on the figure alone; a PNG above 500 kB is
    reduced to a palette.

    Raises:
        ValueError: an unknown format.
    """
    if form not in _METADATA:
        raise ValueError(f"a figure can be saved as {', '.join(_METADATA)}, got {form!r}")
    buffer = io.BytesIO()
    with matplotlib.rc_context(STYLE):
        figure.savefig(buffer, format=form, metadata=_METADATA[form])
    content = buffer.getvalue()
    return _with_fewer_colours(content) if form == "png" and len(content) > _PNG_LIMIT else content
