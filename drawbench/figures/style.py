"""One style for every figure, and one way to save: the same bytes each time, never half a file."""

import io
import itertools
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.text import Annotation
from PIL import Image

from drawbench.files import write_atomically

# Okabe & Ito's palette, which readers with any common colour blindness can tell apart.
BLUE, ORANGE, GREEN = "#0072B2", "#E69F00", "#009E73"
RED, PURPLE, SKY = "#D55E00", "#CC79A7", "#56B4E9"
# One colour per model in every figure; networks that see the whole image at once are grey.
MODEL_COLOURS = {
    "draw": BLUE,
    "draw without attention": ORANGE,
    "draw, attention to read only": GREEN,
    "draw, attention to write only": PURPLE,
    "eye": "#8C564B",
    "random": ORANGE,
    "fixed": GREEN,
    "ram": PURPLE,
    "affine": SKY,
    "stn": RED,
    "vae": RED,
    "conv6": "0.15",
    "conv2": "0.45",
    "fc": "0.65",
}
OTHER_COLOURS = ("#44AA99", "#882255", "#999933", "#117733")
DASHES = ("-", (0, (5, 2)), (0, (1, 1.2)), (0, (5, 1, 1, 1)), (0, (8, 2)), (0, (3, 1, 1, 1, 1, 1)))
MARKERS = "osD^vPX*"

# Light against the black of an image; with a dark edge it also shows on white, and in grey.
WINDOW = "#FFB81C"

WIDTH = 6.75  # inches, the text width of a two-column page: font sizes below are those in print
STYLE: dict[Any, Any] = {
    "font.family": "DejaVu Sans",  # ships with matplotlib: the same letters on every machine
    **dict.fromkeys(("font.size", "axes.titlesize", "axes.labelsize"), 8),
    **dict.fromkeys(("xtick.labelsize", "ytick.labelsize", "legend.fontsize"), 7),
    # A text with a halo is drawn without hints, so without them it must be measured.
    "text.hinting": "no_hinting",
    "legend.frameon": False,
    "axes.linewidth": 0.6,
    **dict.fromkeys(("xtick.major.width", "ytick.major.width"), 0.6),
    **dict.fromkeys(("xtick.minor.width", "ytick.minor.width"), 0.4),
    "lines.linewidth": 1.4,
    "lines.markersize": 3.5,
    **dict.fromkeys(("axes.spines.top", "axes.spines.right"), False),
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "0.88",
    "grid.linewidth": 0.5,
    **dict.fromkeys(("figure.dpi", "savefig.dpi"), 200),
    "image.cmap": "gray",
    "image.interpolation": "nearest",
    "pdf.fonttype": 42,
    "svg.hashsalt": "drawbench",
}
# matplotlib's own defaults first, so that no setting of the user's matplotlibrc shines through.
_SETTINGS = {
    name: value for name, value in matplotlib.rcParamsDefault.items() if "backend" not in name
} | STYLE
#: Decorator: build the figure in this style and leave the caller's settings alone.
styled = matplotlib.rc_context(_SETTINGS)

# No dates or versions in the files: the same numbers give the same bytes.
_METADATA = {
    "png": {"Software": None},
    "pdf": {"CreationDate": None, "Producer": None, "Creator": None},
    "svg": {"Date": None, "Creator": None},
}
_MAX_FULL_PNG_BYTES = 500_000  # larger PNGs get a palette
LABEL_HEIGHT = 7.5  # points between neighbouring labels
MARGIN = 1.02  # where labels of curves begin, of the width of the axes
BESIDE = 16.0  # points from the end of a curve to its label that need no line
SWEEPS = 600  # over neighbouring labels; a stack of twenty settles within them


def array(values) -> np.ndarray:
    """Return a tensor on any device, or anything array-like, as a numpy array."""
    if hasattr(values, "detach"):
        values = values.detach().cpu()
        values = values.float() if values.is_floating_point() else values
    return np.asarray(values)


def as_pictures(images) -> np.ndarray:
    """Return images (N, H, W), (N, H, W, 3) or (N, C, H, W) as ``imshow`` takes them."""
    images = array(images)
    if images.ndim == 4 and images.shape[1] in (1, 3) and images.shape[-1] not in (1, 3):
        images = np.moveaxis(images, 1, -1)
    return images[..., 0] if images.ndim == 4 and images.shape[-1] == 1 else images


def bare(axes: Axes) -> Axes:
    """Remove ticks, spines and grid, to make room for a picture."""
    axes.set(xticks=[], yticks=[])
    axes.grid(False)
    axes.spines[:].set_visible(False)
    return axes


def looks(models: Iterable[str]) -> list[dict[str, Any]]:
    """Return the line style of each curve: one colour per model, one dash and marker per curve.

    Args:
        models: the model of each curve; a model may appear several times.
    """
    colours, counts, styles = dict(MODEL_COLOURS), dict[str, int](), []
    for model in models:
        others = len(colours) - len(MODEL_COLOURS)
        colour = colours.setdefault(model, OTHER_COLOURS[others % len(OTHER_COLOURS)])
        number = counts[model] = counts.get(model, -1) + 1
        marker = MARKERS[(list(colours).index(model) + number) % len(MARKERS)]
        hollow = {"markerfacecolor": "white"} if number else {}
        dash = DASHES[number % len(DASHES)]
        styles.append({"color": colour, "linestyle": dash, "marker": marker} | hollow)
    return styles


def with_notes(width: float, height: float, notes: Sequence[str]) -> Figure:
    """Return an empty figure, inches, made taller by lines of notes below."""
    foot = 0.13 * len(notes)
    total = height + foot
    engine = ConstrainedLayoutEngine(rect=(0, foot / total, 1, height / total))
    figure = Figure(figsize=(width, total), layout=engine)
    if notes:
        figure.text(0.01, 0.02, "\n".join(notes), fontsize=6.5, va="bottom", parse_math=False)
    return figure


def settle(figure: Figure) -> Figure:
    """Lay the figure out once and freeze it: a second iteration would move things by a hair."""
    figure.draw_without_rendering()
    figure.set_layout_engine(None)  # "none" leaves a placeholder, and every file is drawn twice
    return figure


def annotate(axes: Axes, text: str, place: tuple, offset: tuple, **style: Any) -> None:
    """Write a small text at a place in the data, moved by an offset in points."""
    style.setdefault("color", "0.2")
    axes.annotate(text, place, offset, textcoords="offset points", fontsize=7, **style)


def label_end(axes: Axes, x: float, y: float, text: str, colour: Any) -> None:
    """Write the name of a curve in the right margin, at the height of its end; call
    :func:`separate_labels` once all are there.
    """
    leader = {"arrowstyle": "-", "color": colour, "linewidth": 0.6, "shrinkA": 0, "shrinkB": 0}
    leader |= {"relpos": (0, 0.5), "linestyle": (0, (1, 1.5))}
    axes.annotate(
        text,
        (x, y),
        (MARGIN, y),
        textcoords=axes.get_yaxis_transform(),
        va="center",
        color=colour,
        fontsize=7,
        parse_math=False,
        arrowprops=leader,
        gid="end",
    )


def separate_labels(axes: Axes) -> None:
    """Move labels in the margin up or down until none overlap; the layout must be settled.

    A dotted line leads from a label to the end of its curve, unless that is beside it.
    """
    labels = [text for text in axes.texts if isinstance(text, Annotation) and text.get_gid()]
    labels.sort(key=lambda label: label.xy[1])
    figure = axes.get_figure(root=True)
    if not labels or figure is None:
        return
    scale = 72 / figure.dpi  # points per dot
    across, ends = (axes.transData.transform([label.xy for label in labels]) * scale).T
    margin = axes.transAxes.transform((MARGIN, 0))[0] * scale
    places = ends.copy()
    for _ in range(SWEEPS):  # two that touch share the way apart, until all have settled
        for lower, upper in itertools.pairwise(range(len(labels))):
            lacking = LABEL_HEIGHT - (places[upper] - places[lower])
            if lacking > 0:
                places[lower] -= lacking / 2
                places[upper] += lacking / 2
    heights = axes.transAxes.inverted().transform(np.c_[across, places] / scale)[:, 1]
    for label, x, end, place, height in zip(labels, across, ends, places, heights, strict=True):
        label.anncoords = axes.transAxes  # a height in the data would change with their scale
        label.xyann = (MARGIN, height)
        beside = margin - x <= BESIDE and abs(place - end) <= LABEL_HEIGHT / 2
        if label.arrow_patch is not None:
            label.arrow_patch.set_visible(not beside)


def _with_palette(png: bytes) -> bytes:
    """Return the same picture with 128 colours: a third of the size, and no visible change."""
    small = io.BytesIO()
    with Image.open(io.BytesIO(png)) as picture:
        flat = picture.convert("RGB").quantize(128, dither=Image.Dither.NONE)
        flat.save(small, "png", optimize=True)
    return small.getvalue()


def save(
    figure: Figure, folder: Path | str, name: str, formats: Iterable[str] = ("png",)
) -> list[Path]:
    """Write a figure as ``folder/name.<format>`` and return the paths.

    The bytes depend on the figure alone, and each file is replaced whole or not at all.

    Args:
        figure: any figure of this package.
        folder: created if missing.
        name: file name without extension.
        formats: of ``"png"``, ``"pdf"``, ``"svg"``.

    Raises:
        ValueError: for an unknown format.
    """
    folder, paths = Path(folder), []
    for form in formats:
        content = as_bytes(figure, form)
        folder.mkdir(parents=True, exist_ok=True)
        paths.append(folder / f"{name}.{form}")
        write_atomically(paths[-1], content)
    return paths


@styled
def as_bytes(figure: Figure, form: str) -> bytes:
    """Return a figure as the content of a file; a PNG above 500 kB is reduced to a palette.

    Raises:
        ValueError: for an unknown format.
    """
    if form not in _METADATA:
        raise ValueError(f"a figure can be saved as {', '.join(_METADATA)}, got {form!r}")
    buffer = io.BytesIO()
    figure.savefig(buffer, format=form, metadata=_METADATA[form])
    content = buffer.getvalue()
    large = form == "png" and len(content) > _MAX_FULL_PNG_BYTES
    return _with_palette(content) if large else content
