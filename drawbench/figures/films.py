"""Films of a generator: canvases that draw themselves, and images looked at and drawn again.

Frames are built as indices into one palette, so that flat colour stays flat and a GIF stays small.
"""

import io
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import NamedTuple

import matplotlib
import numpy as np
from matplotlib.colors import to_rgb
from PIL import Image, ImageDraw, ImageFont

from drawbench.attention import Window
from drawbench.figures.drawings import channels_last, check_windows, spread
from drawbench.figures.style import FILM_LIMIT, GREEN, RED, STYLE
from drawbench.figures.windows import line_width, pick, sides, view_of
from drawbench.files import write_atomically


class _Side(NamedTuple):
    """One of the pictures that stand side by side for each image."""

    pictures: np.ndarray  #: (B, T, H, W, C)
    windows: Window | None  #: fields (B, T)
    patch: int | None
    colour: str
    name: str  #: what its window does, for the legend


class _Ink(NamedTuple):
    """Indices into the palette of what is not a picture."""

    grey: int  #: the first of five, from black to white
    colours: dict[str, int]

    @property
    def white(self) -> int:
        return self.grey + 4


def _steadied(pictures: np.ndarray, slack: float) -> np.ndarray:
    """(parts, B, T, H, W, C), but each pixel as it was until it is ``slack`` away, except at the
    last step.

    A canvas changes a little everywhere at every step, and a film pays for each pixel that changes.
    """
    steady = pictures.copy()
    for t in range(1, pictures.shape[2] - 1):
        stays = np.abs(pictures[:, :, t] - steady[:, :, t - 1]).max(-1) < slack
        steady[:, :, t][stays] = steady[:, :, t - 1][stays]
    return steady


def _indexed(pictures: np.ndarray, shades: int) -> tuple[np.ndarray, np.ndarray]:
    """Pictures (parts, B, T, H, W, C) as indices (parts, B, T, H, W) into colours (K, 3), uint8.

    K is ``shades`` for greys; for colours up to three times as many, those that fit the pictures
    best.
    """
    pictures = _steadied(pictures, 0.8 / (shades - 1))
    if pictures.shape[-1] == 1:
        greys = np.rint(np.linspace(0, 255, shades)).astype(np.uint8)
        return np.rint(pictures[..., 0] * (shades - 1)).astype(np.uint8), np.repeat(
            greys[:, None], 3, axis=1
        )
    pixels = np.rint(255 * pictures).astype(np.uint8)
    flat = pixels.reshape(1, -1, 3)
    some = Image.fromarray(
        flat[:, :: 1 + flat.shape[1] // 20_000].copy()
    )  # enough to choose colours by
    chosen = some.quantize(
        3 * shades, method=Image.Quantize.MEDIANCUT, kmeans=2, dither=Image.Dither.NONE
    )
    fitted = Image.fromarray(pixels.reshape(-1, *pixels.shape[-2:])).quantize(
        palette=chosen, dither=Image.Dither.NONE
    )
    colours = np.array(fitted.getpalette(), np.uint8).reshape(-1, 3)[: 3 * shades]
    return np.asarray(fitted).reshape(pixels.shape[:-1]), colours


@cache
def _font(size: int) -> ImageFont.FreeTypeFont:
    """The letters of the figures, ``size`` dots high."""
    letters = f"{STYLE['font.family'].replace(' ', '')}.ttf"
    return ImageFont.truetype(
        str(Path(matplotlib.get_data_path()) / "fonts" / "ttf" / letters), size
    )


def _write_text(page: np.ndarray, x: int, middle: int, text: str, ink: _Ink) -> int:
    """Black letters on the white of the page; gives the x behind them."""
    letters = Image.new("L", (page.shape[1], 2 * middle), 255)
    draw = ImageDraw.Draw(letters)
    draw.text((x, middle), text, fill=0, font=_font(11), anchor="lm")
    levels = np.rint(np.asarray(letters) / 255 * 4).astype(np.uint8)
    written = levels < 4
    page[: 2 * middle][written] = ink.grey + levels[written]
    return x + int(np.ceil(draw.textlength(text, font=_font(11))))


def _draw_window(
    page: np.ndarray,
    window: Window,
    patch: int,
    view,
    origin: tuple[int, int],
    scale: float,
    colour: int,
    thick: float,
) -> None:
    """The outline of a window on the picture whose top left corner is at ``origin`` (x, y) of the
    page, ``scale`` dots to a pixel.
    """
    segments, moved = sides(window, patch, view)
    tiny = np.ptp(segments, axis=(0, 1)).max() * scale < 3
    width = max(3 if tiny else 1, round(thick * line_width(float(window.variance))))
    corners = np.rint(np.array(origin) + (segments + 0.5) * scale - width / 2).astype(
        int
    )  # imshow's -0.5 is the picture's corner
    for k, (ends, far) in enumerate(zip(corners, moved, strict=True)):
        (left, top), (right, bottom) = np.clip([ends.min(0), ends.max(0) + width], 0, None)
        line = page[top:bottom, left:right]
        if k % 2 == 0:  # left and right: upright
            line = line.T
        dots = np.arange(line.shape[1]) // max(width, 2) % 3 == 0
        line[:, dots | (not far)] = colour


class _Stage:
    """The page of a film: where each picture stands, and what it looks like at a step."""

    def __init__(self, parts: Sequence[_Side], columns: int, scale: int, shades: int):
        count, self.steps, height, width = parts[0].pictures.shape[:4]
        both, colours = _indexed(np.stack([side.pictures for side in parts]), shades)
        greys = np.rint(255 * np.linspace([0] * 3, [1] * 3, 5)).astype(np.uint8)
        inks = np.rint(255 * np.array([to_rgb(RED), to_rgb(GREEN), to_rgb("0.75")])).astype(
            np.uint8
        )
        self.palette = np.concatenate([colours, greys, inks])
        first = len(colours)
        self.ink = _Ink(first, {RED: first + 5, GREEN: first + 6, "bar": first + 7})
        self.indices, self.parts, self.scale = both, parts, scale

        attends = any(side.windows is not None for side in parts)
        self.view = view_of(height, width, margin=0.06 if attends else 0.0)
        edge = (
            int(np.ceil(scale * (-0.5 - self.view[0]))) + 2
        )  # dots around a picture, in which windows may show
        across, down = len(parts) * (width * scale + 2 * edge), height * scale + 2 * edge
        apart = 6 if len(parts) > 1 else 0
        rows, columns = -(-count // columns), min(columns, count)
        self.head = 20
        legend = sum(30 + 6 * len(side.name) for side in parts if side.windows is not None)
        self.size = (
            self.head + rows * (down + apart),
            max(columns * across + (columns - 1) * apart, 110 + legend),
        )
        self.places = [
            [
                (
                    n % columns * (across + apart) + k * across // len(parts) + edge,
                    self.head + n // columns * (down + apart) + edge,
                )
                for n in range(count)
            ]
            for k in range(len(parts))
        ]

    def page(self, t: int, with_windows: bool) -> np.ndarray:
        """(rows, columns) uint8 indices: the page after step t, counted from 0."""
        page = np.full(self.size, self.ink.white, np.uint8)
        self._draw_head(page, t)
        for side, places, pictures in zip(self.parts, self.places, self.indices, strict=True):
            large = pictures[:, t].repeat(self.scale, axis=1).repeat(self.scale, axis=2)
            for n, (x, y) in enumerate(places):
                page[y : y + large.shape[1], x : x + large.shape[2]] = large[n]
                if with_windows and side.windows is not None and side.patch is not None:
                    colour, thick = (
                        self.ink.colours[side.colour],
                        0.9 * max(1.0, max(large.shape[1:]) / 112),
                    )
                    _draw_window(
                        page,
                        pick(side.windows, n, t),
                        side.patch,
                        self.view,
                        (x, y),
                        self.scale,
                        colour,
                        thick,
                    )
        return page

    def _draw_head(self, page: np.ndarray, t: int) -> None:
        """The number of the step, what the colours mean, and a bar that grows with the steps."""
        middle = self.head // 2 - 1
        _write_text(page, 4, middle, f"step {t + 1} of {self.steps}", self.ink)
        x = 110
        for side in self.parts:
            if side.windows is not None:
                page[middle - 4 : middle + 5, x : x + 9] = self.ink.colours[side.colour]
                x = _write_text(page, x + 13, middle, side.name, self.ink) + 12
        page[self.head - 3 : self.head - 1, : round(self.size[1] * (t + 1) / self.steps)] = (
            self.ink.colours["bar"]
        )


def _film(
    parts: Sequence[_Side],
    columns: int,
    scale: int,
    seconds: float,
    hold: float,
    shades: int,
    skip: int,
) -> bytes:
    """A GIF of a page each ``skip`` steps, and of the last canvases without windows, which stay
    ``hold`` seconds.
    """
    stage = _Stage(parts, columns, scale, shades)
    shown = spread(stage.steps, -(-stage.steps // skip))
    pause = 10 * int(
        np.clip(round(100 * seconds / len(shown)), 4, 50)
    )  # milliseconds; GIF counts in hundredths
    last = 10 * max(round(100 * hold), 1)
    attends = any(side.windows is not None for side in parts)

    def pages() -> Iterator[Image.Image]:
        for t in shown:
            yield _as_image(stage.page(t, with_windows=True), stage.palette)
        if attends:  # else this page has been shown
            yield _as_image(stage.page(stage.steps - 1, with_windows=False), stage.palette)

    durations = [pause] * (len(shown) if attends else len(shown) - 1) + [last]
    frames = list(pages())
    buffer = io.BytesIO()
    frames[0].save(
        buffer,
        "gif",
        save_all=True,
        append_images=frames[1:],
        duration=durations,
        loop=0,
        optimize=True,
        disposal=1,
    )
    return buffer.getvalue()


def _as_image(page: np.ndarray, palette: np.ndarray) -> Image.Image:
    image = Image.fromarray(page)
    image.putpalette(palette.tobytes())
    return image


def _write_film(
    path: Path | str, parts: Sequence[_Side], columns: int, seconds: float, hold: float
) -> Path:
    """The best film that the limit allows: shades give way first, then steps between, then size."""
    path = Path(path)
    columns = min(columns, len(parts[0].pictures))
    side = max(parts[0].pictures.shape[2:4])
    best = max(1, round(min(280, 480 / columns, 760 / (columns * len(parts))) / side))
    less = max(
        1, min(best, max(best - 1, -(-72 // side)))
    )  # no picture smaller than 72 dots, if it can be helped
    half = max(1, best // 2)
    tries = [
        (best, 32, 1),
        (less, 32, 1),
        (less, 20, 1),
        (best, 20, 2),
        (less, 20, 2),
        (half, 16, 2),
        (half, 12, 4),
        (1, 12, 4),
        (1, 8, 8),
    ]
    size = cost = 0.0
    for scale, shades, skip in tries:
        dearness = (
            scale**1.2 * shades**0.3 / skip**0.75
        )  # as measured; saves the tries that are far too large
        if (
            cost
            and size * dearness / cost > 1.3 * FILM_LIMIT
            and (scale, shades, skip) != tries[-1]
        ):
            continue
        content = _film(parts, columns, scale, seconds, hold, shades, skip)
        if len(content) <= FILM_LIMIT:
            break
        size, cost = len(content), dearness
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, content)
    return path


def drawing_film(
    path: Path | str,
    canvases,
    write_windows: Window | None = None,
    write_patch: int | None = None,
    hold: float = 2.0,
    seconds: float = 6.0,
    columns: int = 4,
    most: int = 16,
) -> Path:
    """A film of canvases that draw themselves, with the rectangle in which each step writes.

    The border is the thicker the sharper the filters; a side beyond the view is dotted along its
    edge.

    Args:
        path: of the GIF to write, whole or not at all.
        canvases: (B, T, C, H, W) in [0, 1], the sigmoid of c_1 .. c_T.
        write_windows: fields of shape (B, T); None for a model that writes without attention.
        write_patch: side of the patch that is written.
        hold: how long the finished pictures stay, without rectangles, seconds.
        seconds: how long the drawing takes, as far as a step then lasts from 0.04 to 0.5 seconds.
        columns: canvases beside each other.
        most: show no more canvases than this.

    Returns: The path. The film has at most 500 kB: shades, then steps between, then size give way
        to that.

    Raises:
        ValueError: another shape, or values beyond [0, 1].
    """
    pictures = channels_last(canvases, "B, T, C, H, W", "canvases")
    check_windows(write_windows, write_patch, pictures.shape[:2], "write_windows")
    if min(columns, most) < 1:
        raise ValueError(f"a film shows at least 1 canvas in 1 column, got {most} in {columns}")
    return _write_film(
        path,
        [_Side(pictures[:most], write_windows, write_patch, RED, "writes here")],
        columns,
        seconds,
        hold,
    )


def reconstruction_film(
    path: Path | str,
    images,
    canvases,
    read_windows: Window | None = None,
    write_windows: Window | None = None,
    read_patch: int | None = None,
    write_patch: int | None = None,
    hold: float = 2.0,
    seconds: float = 6.0,
    columns: int = 4,
    most: int = 16,
) -> Path:
    """A film of images and, at the right of each, its canvas: where each step reads (green) and
    where it writes (red).

    Args:
        path: of the GIF to write, whole or not at all.
        images: (B, C, H, W) in [0, 1], what was to be drawn.
        canvases: (B, T, C, H, W) in [0, 1], the sigmoid of c_1 .. c_T.
        read_windows, write_windows: fields of shape (B, T); None for a side without attention.
        read_patch, write_patch: sides of the patches that are read and written.
        hold, seconds, columns, most: as for :func:`drawing_film`, of pairs.

    Returns:
        The path. The film has at most 500 kB.

    Raises:
        ValueError: another shape, or values beyond [0, 1].
    """
    pictures, inputs = (
        channels_last(canvases, "B, T, C, H, W", "canvases"),
        channels_last(images, "B, C, H, W", "images"),
    )
    if (len(inputs), *inputs.shape[1:]) != (len(pictures), *pictures.shape[2:]):
        raise ValueError(
            f"images must be those of the canvases, got {inputs.shape} for {pictures.shape} (channels last)"
        )
    check_windows(read_windows, read_patch, pictures.shape[:2], "read_windows")
    check_windows(write_windows, write_patch, pictures.shape[:2], "write_windows")
    if min(columns, most) < 1:
        raise ValueError(f"a film shows at least 1 pair in 1 column, got {most} in {columns}")
    pictures = pictures[:most]
    inputs = np.broadcast_to(inputs[:most, None], pictures.shape)
    parts = [
        _Side(inputs, read_windows, read_patch, GREEN, "reads here"),
        _Side(pictures, write_windows, write_patch, RED, "writes here"),
    ]
    return _write_film(path, parts, columns, seconds, hold)
