"""Animations: canvases that draw themselves, images read and redrawn, and glimpses that wander.

Frames are built as indices into one palette, so that flat colour stays flat and a GIF stays small.
"""

import io
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import NamedTuple

import matplotlib
import numpy as np
from matplotlib.colors import to_rgb
from PIL import Image, ImageDraw, ImageFont

from drawbench.figures.drawings import channels_last, check_outlines, spread
from drawbench.figures.glimpses import panels, verdict
from drawbench.figures.style import BLUE, GREEN, RED, STYLE, WINDOW, array
from drawbench.figures.windows import Outlines, View, line_width, view_of, visible_sides
from drawbench.files import write_atomically

MAX_BYTES = 500_000  # of an animation
SECONDS, HOLD = 6.0, 2.0  # that a drawing takes, and that the finished pictures stay
MILLISECONDS = 700  # per glimpse; the last one stays four times as long
COLUMNS = 4  # images side by side; half as many pairs
_LEVELS = 5  # from an ink to white, for the edges of letters
_HEAD = 24  # dots of the line above the pictures
_LETTERS, _LINE = 11, 16  # dots: of the words of captions, and from line to line


class _Ink:
    """A palette for some pictures, and for what is drawn over and beside them.

    Attributes:
        pictures: indices, each like one of the pictures without its channels.
        palette: (K, 3) uint8.
    """

    def __init__(self, pictures: Sequence[np.ndarray], shades: int, colours: Sequence[str]):
        self.pictures, colour_table = _indexed(pictures, shades)
        inks = ["black", "0.75", "0.45", *dict.fromkeys(colours)]
        ramps = [np.linspace(to_rgb(ink), (1, 1, 1), _LEVELS) for ink in inks]
        self.first = {ink: len(colour_table) + _LEVELS * k for k, ink in enumerate(inks)}
        ramp = np.rint(255 * np.vstack(ramps)).astype(np.uint8)
        self.palette = np.concatenate([colour_table, ramp])

    @property
    def white(self) -> int:
        return self.first["black"] + _LEVELS - 1


def _indexed(pictures: Sequence[np.ndarray], shades: int) -> tuple[list[np.ndarray], np.ndarray]:
    """Return pictures (..., H, W, C) in [0, 1] as indices (..., H, W) into colours (K, 3), uint8.

    K is ``shades`` for greys; for colours up to three times as many, fitted to the pictures.
    """
    if pictures[0].shape[-1] == 1:
        greys = np.rint(np.linspace(0, 255, shades)).astype(np.uint8)
        levels = [np.rint(part[..., 0] * (shades - 1)).astype(np.uint8) for part in pictures]
        return levels, np.repeat(greys[:, None], 3, axis=1)
    pixels = np.rint(255 * np.concatenate([part.reshape(-1, 3) for part in pictures]))
    pixels = pixels.astype(np.uint8)
    sample = Image.fromarray(pixels[None, :: 1 + len(pixels) // 20_000].copy())
    method, plain = Image.Quantize.MEDIANCUT, Image.Dither.NONE
    table = sample.quantize(3 * shades, method=method, kmeans=2, dither=plain)
    indices = np.asarray(Image.fromarray(pixels[None]).quantize(palette=table, dither=plain))[0]
    colours = np.array(table.getpalette(), np.uint8).reshape(-1, 3)[: 3 * shades]
    ends = np.cumsum([part[..., 0].size for part in pictures])[:-1]
    split = np.split(indices, ends)
    return [i.reshape(p.shape[:-1]) for i, p in zip(split, pictures, strict=True)], colours


def _steady(canvases: np.ndarray, slack: float) -> np.ndarray:
    """Return canvases (B, T, H, W, C) where a pixel changes only by ``slack`` or more at a time.

    A canvas changes a little everywhere at every step, and a GIF pays for each pixel that changes.
    The last step is exact.
    """
    steady = canvases.copy()
    for t in range(1, canvases.shape[1] - 1):
        keep = np.abs(canvases[:, t] - steady[:, t - 1]).max(-1) < slack
        steady[:, t][keep] = steady[:, t - 1][keep]
    return steady


@cache
def _font(size: int, bold: bool = False) -> ImageFont.FreeTypeFont:
    """Return the font of the figures, ``size`` dots high."""
    name = STYLE["font.family"].replace(" ", "") + ("-Bold" if bold else "") + ".ttf"
    return ImageFont.truetype(str(Path(matplotlib.get_data_path()) / "fonts" / "ttf" / name), size)


def _write(
    page: np.ndarray, x: int, y: int, text: str, ink: int, size: int = 13, bold: bool = False
) -> int:
    """Write text on white from x, centred on y; return the x behind it."""
    font = _font(size, bold)
    wide = min(int(np.ceil(font.getlength(text))) + 1, page.shape[1] - x)
    top = max(y - size, 0)
    mask = Image.new("L", (wide, 2 * size), 255)
    ImageDraw.Draw(mask).text((0, y - top), text, fill=0, font=font, anchor="lm")
    levels = np.rint(np.asarray(mask) / 255 * (_LEVELS - 1)).astype(np.uint8)
    area = page[top : top + 2 * size, x : x + wide]
    levels = levels[: area.shape[0]]
    area[levels < _LEVELS - 1] = ink + levels[levels < _LEVELS - 1]
    return x + wide


def _draw_outline(page, polygons, variance, view: View, origin, scale: float, ink: int) -> None:
    """Draw outlines (K, 4, 2) on the picture with its top left corner at ``origin``.

    A pixel of the picture is ``scale`` dots wide.
    """
    thick = 0.9 * max(1.0, scale * (view[3] - view[1]) / 112) * line_width(variance)
    for polygon in polygons:
        sides, beyond = visible_sides(polygon, view)
        tiny = np.ptp(sides, axis=(0, 1)).max() * scale < 3
        width = max(3 if tiny else 1, round(thick))
        brush = np.arange(width)
        ends = np.array(origin) + (sides + 0.5) * scale
        for (start, end), dotted in zip(ends, beyond, strict=True):
            along = np.linspace(0, 1, int(np.ceil(np.abs(end - start).max())) + 1)[:, None]
            dots = np.rint(start + along * (end - start) - width / 2).astype(int)
            if dotted:
                dots = dots[np.arange(len(dots)) // max(width, 2) % 3 == 0]
            x, y = (dots[:, axis, None] + brush for axis in (0, 1))
            rows, columns = np.clip(y, 0, len(page) - 1), np.clip(x, 0, page.shape[1] - 1)
            page[rows[:, :, None], columns[:, None, :]] = ink


class _Side(NamedTuple):
    """One of the pictures that stand side by side for each image."""

    pictures: np.ndarray  #: (B, T, H, W, C)
    where: Outlines | None
    colour: str
    name: str  #: what its window does, for the legend


class Caption(NamedTuple):
    """What a picture was drawn from."""

    words: Sequence[str]  #: K of them
    weights: np.ndarray  #: (T, K), how much each step attended to each word


def _wrapped(words: Sequence[str], wide: int) -> list[tuple[int, int, int]]:
    """Return line, first dot and length of each word, in lines ``wide`` dots long."""
    places, line, x = [], 0, 0
    for word in words:
        length = int(np.ceil(_font(_LETTERS).getlength(word)))
        if x and x + length > wide:
            line, x = line + 1, 0
        places.append((line, x, length))
        x += length + _LETTERS // 2
    return places


class _DrawingStage:
    """The pages of canvases: where each picture stands, and what it looks like at a step."""

    def __init__(
        self,
        parts: Sequence[_Side],
        columns: int,
        scale: int,
        shades: int,
        captions: Sequence[Caption] = (),
    ):
        count, self.steps, height, width = parts[0].pictures.shape[:4]
        steady = [_steady(side.pictures, 0.8 / (shades - 1)) for side in parts]
        lights = [WINDOW] if captions else []
        self.ink = _Ink(steady, shades, [side.colour for side in parts] + lights)
        self.parts, self.scale = parts, scale
        self.attends = any(side.where is not None for side in parts)
        self.view = view_of(height, width, margin=0.06 if self.attends else 0.0)
        edge = int(np.ceil(scale * (-0.5 - self.view[0]))) + 2  # dots where windows may show
        across, down = len(parts) * (width * scale + 2 * edge), height * scale + 2 * edge
        self.captions = [(one, _wrapped(one.words, across - 2 * edge)) for one in captions]
        self.below = height * scale + edge + _LETTERS  # from a picture's top to its first line
        lines = [1 + line for _, places in self.captions for line, _, _ in places]
        down += _LINE * max(lines) + _LETTERS // 2 if lines else 0
        apart = 8 if len(parts) > 1 else 0
        rows, columns = -(-count // columns), min(columns, count)
        legend = sum(30 + 8 * len(side.name) for side in parts if side.where is not None)
        wide = max(columns * across + (columns - 1) * apart, 130 + legend)
        self.size = (_HEAD + rows * (down + apart), wide)
        self.corners = [
            (n % columns * (across + apart) + edge, _HEAD + n // columns * (down + apart) + edge)
            for n in range(count)
        ]
        self.apart = across // len(parts)  # from one part to the next

    def page(self, t: int, outlines: bool = True) -> np.ndarray:
        """Return (rows, columns) uint8 indices: the page after step t, counted from 0."""
        page = np.full(self.size, self.ink.white, np.uint8)
        self._draw_head(page, t)
        for k, (side, pictures) in enumerate(zip(self.parts, self.ink.pictures, strict=True)):
            large = pictures[:, t].repeat(self.scale, axis=1).repeat(self.scale, axis=2)
            for n, (x, y) in enumerate(self.corners):
                x += k * self.apart
                page[y : y + large.shape[1], x : x + large.shape[2]] = large[n]
                if outlines and side.where is not None:
                    where, ink = side.where.at(n, t), self.ink.first[side.colour]
                    _draw_outline(page, *where, self.view, (x, y), self.scale, ink)
        for corner, (caption, places) in zip(self.corners, self.captions, strict=False):
            self._draw_caption(page, corner, caption, caption.weights[t], places)
        return page

    def _draw_caption(self, page, corner, caption, weights, places) -> None:
        """Write the words, each on a ground as bright as the weight that the step gives it."""
        for word, weight, (line, x, length) in zip(caption.words, weights, places, strict=True):
            left, middle = corner[0] + x, corner[1] + self.below + line * _LINE
            light = self.ink.first[WINDOW] + round((1 - float(weight)) * (_LEVELS - 1))
            ground = (
                slice(middle - _LINE // 2, middle + _LINE // 2),
                slice(left - 2, left + length + 2),
            )
            page[ground] = light
            _write(page, left, middle, word, self.ink.first["black"], _LETTERS)

    def _draw_head(self, page: np.ndarray, t: int) -> None:
        """Write the step and what the colours mean, over a bar that grows with the steps."""
        middle, black = _HEAD // 2 - 2, self.ink.first["black"]
        _write(page, 4, middle, f"step {t + 1} of {self.steps}", black)
        x = 130
        for side in self.parts:
            if side.where is not None:
                page[middle - 5 : middle + 5, x : x + 10] = self.ink.first[side.colour]
                x = _write(page, x + 15, middle, side.name, black) + 14
        end = round(self.size[1] * (t + 1) / self.steps)
        page[_HEAD - 4 : _HEAD - 2, :end] = self.ink.first["0.75"]


def _encode(pages: Sequence[np.ndarray], ink: _Ink, durations: Sequence[int]) -> bytes:
    """Return pages as a looping GIF."""
    frames = [Image.fromarray(page) for page in pages]
    for frame in frames:
        frame.putpalette(ink.palette.tobytes())
    buffer = io.BytesIO()
    shown = {"duration": list(durations), "loop": 0, "optimize": True, "disposal": 1}
    frames[0].save(buffer, "gif", save_all=True, append_images=frames[1:], **shown)
    return buffer.getvalue()


def _save_smaller(
    path: Path | str, attempt: Callable[..., bytes], choices: Sequence[tuple[int, ...]]
) -> Path:
    """Write the first choice whose GIF is within :data:`MAX_BYTES`, or else the last one."""
    path = Path(path)
    for choice in choices:
        content = attempt(*choice)
        if len(content) <= MAX_BYTES:
            break
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, content)
    return path


def _drawing(path: Path | str, parts: Sequence[_Side], captions: Sequence[Caption] = ()) -> Path:
    """Write canvases as an animation: the best one that the limit allows.

    Each page is a step; where there are windows, a last page without them follows. Shades give way
    to the limit first, then steps in between, then size.
    """
    columns = min(COLUMNS // len(parts), len(parts[0].pictures))
    side = max(parts[0].pictures.shape[2:4])
    best = max(1, round(min(360, 760 / (columns * len(parts))) / side))
    smaller, half = min(best, -(-3 * best // 4)), max(1, best // 2)

    def attempt(scale: int, shades: int, skip: int) -> bytes:
        stage = _DrawingStage(parts, columns, scale, shades, captions)
        shown = spread(stage.steps, -(-stage.steps // skip))
        pages = [stage.page(t) for t in shown]
        pages += [stage.page(stage.steps - 1, outlines=False)] if stage.attends else []
        # milliseconds; GIF counts in hundredths of a second
        pause = 10 * int(np.clip(round(100 * SECONDS / len(shown)), 4, 50))
        durations = [pause] * (len(pages) - 1) + [round(1000 * HOLD)]
        return _encode(pages, stage.ink, durations)

    choices = [(best, 32, 1), (best, 20, 1), (smaller, 20, 1), (smaller, 16, 1), (smaller, 16, 2)]
    choices += [(half, 16, 1), (half, 16, 2), (half, 12, 4), (1, 12, 4), (1, 8, 8)]
    return _save_smaller(path, attempt, choices)


def drawing_animation(path: Path | str, canvases, writes: Outlines | None = None) -> Path:
    """Write an animation of canvases that draw themselves, with the outline of where each step
    writes.

    Args:
        path: of the GIF, written whole or not at all.
        canvases: (B, T, C, H, W) in [0, 1].
        writes: outlines (B, T); None for a model that writes without attention.

    Returns:
        The path, of at most 500 kB: shades, then steps in between, then size give way to that.

    Raises:
        ValueError: for another shape or values outside [0, 1].
    """
    pictures = channels_last(canvases, "B, T, C, H, W", "canvases")
    check_outlines(writes, pictures.shape[:2], "writes")
    return _drawing(path, [_Side(pictures, writes, RED, "writes here")])


def caption_animation(
    path: Path | str, canvases, captions: Sequence[Caption], writes: Outlines | None = None
) -> Path:
    """Write an animation of canvases that draw themselves, each over its caption, whose words light
    up as they are attended to.

    Args:
        path, canvases, writes: as for :func:`drawing_animation`.
        captions: B of them.
    """
    pictures = channels_last(canvases, "B, T, C, H, W", "canvases")
    check_outlines(writes, pictures.shape[:2], "writes")
    return _drawing(path, [_Side(pictures, writes, RED, "writes here")], captions)


def reconstruction_animation(
    path: Path | str,
    images,
    canvases,
    reads: Outlines | None = None,
    writes: Outlines | None = None,
) -> Path:
    """Write an animation of images, each beside its canvas: reading is green, writing is red.

    Args:
        path: of the GIF, written whole or not at all.
        images: (B, C, H, W) in [0, 1], what was to be drawn.
        canvases: (B, T, C, H, W) in [0, 1].
        reads, writes: outlines (B, T); None for a side without attention.

    Raises:
        ValueError: for another shape or values outside [0, 1].
    """
    pictures = channels_last(canvases, "B, T, C, H, W", "canvases")
    inputs = channels_last(images, "B, C, H, W", "images")
    if (len(inputs), *inputs.shape[1:]) != (len(pictures), *pictures.shape[2:]):
        shapes = f"{inputs.shape} and {pictures.shape} (channels last)"
        raise ValueError(f"images and canvases must show the same images, got {shapes}")
    check_outlines(reads, pictures.shape[:2], "reads")
    check_outlines(writes, pictures.shape[:2], "writes")
    still = np.broadcast_to(inputs[:, None], pictures.shape)
    parts = [_Side(still, reads, GREEN, "reads here"), _Side(pictures, writes, RED, "writes here")]
    return _drawing(path, parts)


class _GlimpseStage:
    """The pages of glimpses: image and outline, the patch at its right, and the guess."""

    def __init__(
        self, pictures, labels, probabilities, patches, where: Outlines, names, side, shades
    ):
        self.labels = None if labels is None else array(labels)
        self.where, self.names = where, names
        self.probabilities = probabilities
        height, width = pictures.shape[1:3]
        self.scale = side / max(height, width)
        size = (round(width * self.scale), round(height * self.scale))
        large = np.stack([_resized(picture, size) for picture in pictures])
        repeat = max(1, round(side / 2 / patches.shape[-3]))
        patches = patches.repeat(repeat, axis=-3).repeat(repeat, axis=-2)
        self.ink = _Ink([large, patches], shades, (WINDOW, BLUE, RED))
        self.view = view_of(height, width)
        self.edge = int(np.ceil(self.scale * (-0.5 - self.view[0])))
        self.letters = max(9, side // 11)
        beside = max(patches.shape[-2], 5 * self.letters) + 16
        self.cell = (size[0] + 2 * self.edge + beside, size[1] + 2 * self.edge + 8)
        self.columns = min(COLUMNS, len(pictures))
        rows = -(-len(pictures) // self.columns)
        self.size = (_HEAD + rows * self.cell[1], self.columns * self.cell[0])

    def page(self, t: int) -> np.ndarray:
        """Return (rows, columns) uint8 indices: the page after glimpse t, counted from 0."""
        page = np.full(self.size, self.ink.white, np.uint8)
        guesses, steps = self.probabilities[:, t].argmax(-1), self.probabilities.shape[1]
        head = f"glimpse {t + 1} of {steps}"
        if self.labels is not None:
            right = int((guesses == self.labels).sum())
            head += f": {right} of {len(self.labels)} correct"
        _write(page, 4, _HEAD // 2 - 2, head, self.ink.first["black"])
        page[_HEAD - 4 : _HEAD - 2, : self.size[1] * (t + 1) // steps] = self.ink.first["0.75"]
        images, patches = self.ink.pictures
        for n, image in enumerate(images):
            left = n % self.columns * self.cell[0] + 4
            top, edge = n // self.columns * self.cell[1] + _HEAD, self.edge
            high, wide = image.shape
            grey = self.ink.first["0.45"]
            page[top : top + high + 2 * edge, left : left + wide + 2 * edge] = grey
            page[top + edge : top + edge + high, left + edge : left + edge + wide] = image
            origin, window = (left + edge, top + edge), self.ink.first[WINDOW]
            _draw_outline(page, *self.where.at(n, t), self.view, origin, self.scale, window)
            x, patch = left + wide + 2 * edge + 6, patches[n, t]
            page[top : top + patch.shape[0], x : x + patch.shape[1]] = patch
            guess = int(guesses[n])
            label = None if self.labels is None else int(self.labels[n])
            mark, colour = verdict(guess, label)
            y, ink = top + patch.shape[0] + self.letters, self.ink.first[colour]
            _write(page, x, y, f"{self.names[guess]} {mark}".strip(), ink, self.letters, bold=True)
            share = f"{100 * self.probabilities[n, t, guess]:.0f}%"
            y += round(1.5 * self.letters)
            _write(page, x, y, share, ink, max(9, round(0.8 * self.letters)))
        return page


def _resized(picture: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Return a picture (H, W, C) in [0, 1] at another size (width, height)."""
    planes = [Image.fromarray(picture[..., c].astype(np.float32)) for c in range(picture.shape[-1])]
    planes = [plane.resize(size, Image.Resampling.BICUBIC) for plane in planes]
    return np.clip(np.stack([np.asarray(plane) for plane in planes], axis=-1), 0, 1)


def glimpse_animation(
    path: Path | str, images, labels, logits, patches, where: Outlines, names=None
) -> Path:
    """Write an animation of glimpses: the window at each step, the patch it shows, and the guess.

    Args:
        path: of the GIF, written whole or not at all.
        images, labels, logits, patches, where, names: as for
            :func:`drawbench.figures.glimpse_paths`.

    Returns:
        The path. There is a frame per glimpse and at most 500 kB: shades and size give way to that.
    """
    pictures, probabilities, patches, names = panels(images, logits, patches, names)
    pictures = pictures / 255 if pictures.dtype == np.uint8 else pictures
    pictures = pictures[..., None] if pictures.ndim == 3 else pictures
    steps = probabilities.shape[1]
    durations = [MILLISECONDS] * (steps - 1) + [4 * MILLISECONDS]

    def attempt(side: int, shades: int) -> bytes:
        facts = (pictures, labels, probabilities, patches, where, names)
        stage = _GlimpseStage(*facts, side, shades)
        return _encode([stage.page(t) for t in range(steps)], stage.ink, durations)

    choices = [(180, 24), (180, 16), (150, 16), (120, 16), (100, 12), (75, 8), (50, 6)]
    return _save_smaller(path, attempt, choices)
