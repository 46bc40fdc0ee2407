"""Windows drawn over images: from pixels numbered from 1 to the coordinates of ``imshow``, where
the first pixel's centre is 0.
"""

from typing import NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection

from drawbench.attention import Window
from drawbench.figures.style import WINDOW, array


class Rectangle(NamedTuple):
    """In image coordinates, numbered from 0; arrays of one shape, () for a single window."""

    left: np.ndarray
    top: np.ndarray
    width: np.ndarray
    height: np.ndarray


def rectangle(window: Window, patch: int) -> Rectangle:
    """The rectangle that a window's grid spans, from the first filter centre to the last.

    Args:
        window: fields of any one shape, centres in pixels numbered from 1.
        patch: N, filters along a side; for N = 1 the rectangle is a point.

    Returns: Left, top, width and height in ``imshow`` coordinates: the centre of the first pixel is
        (0, 0). Float64.
    """
    centre_x, centre_y, stride = (
        array(field).astype(float) for field in (window.centre_x, window.centre_y, window.stride)
    )
    side = (patch - 1) * stride
    return Rectangle(centre_x - 1 - side / 2, centre_y - 1 - side / 2, side, side)


def pick(window: Window, *index: int) -> Window:
    """One window of many, its fields as numbers."""
    return Window(*(array(field)[index].item() for field in window))


def line_width(variance: float) -> float:
    """Points: a thick border for sharp filters, a thin one for a blur, as in the paper's figure of
    the glimpses.

    Falls with the square root of the filters' standard deviation: 2.4 points at one pixel, 0.6 at
    sixteen.
    """
    return float(np.clip(2.4 * variance**-0.25, 0.5, 3.0))


def sides(
    window: Window, patch: int, view: tuple[float, float, float, float]
) -> tuple[np.ndarray, np.ndarray]:
    """The four sides of a window's rectangle, drawn in to the edge of the view where they lie
    beyond it.

    Args:
        window: one window.
        patch: N.
        view: left, top, right and bottom of what can be seen, ``imshow`` coordinates.

    Returns: (4, 2, 2) segments: left, top, right, bottom, each from (x, y) to (x, y); and (4,)
        bool, which were moved.
    """
    box = rectangle(window, patch)
    true = np.array([box.left, box.top, box.left + box.width, box.top + box.height])
    left, top, right, bottom = shown = np.clip(true, np.tile(view[:2], 2), np.tile(view[2:], 2))
    corners = np.array([(left, bottom), (left, top), (right, top), (right, bottom)])
    return np.stack([corners, np.roll(corners, -1, axis=0)], axis=1), shown != true


class WindowOutline:
    """A window's outline on axes, which can move to the next step.

    Thick for sharp filters; sides that lie outside the view are dotted along its edge.
    """

    def __init__(
        self,
        axes: Axes,
        patch: int,
        view: tuple[float, float, float, float],
        colour: str = WINDOW,
        scale: float = 1.0,
    ):
        self.patch, self.view, self.scale = patch, view, scale
        # A dark edge under all four sides, so that no side's edge crosses another side.
        self.edges = LineCollection([], colors="black", capstyle="projecting", zorder=4)
        self.lines = LineCollection([], colors=colour, capstyle="projecting", zorder=4.1)
        self.centre = axes.plot([], [], ".", color=colour, markersize=2.5 * scale, zorder=4.2)[0]
        axes.add_collection(self.edges, autolim=False)
        axes.add_collection(self.lines, autolim=False)

    def move(self, window: Window) -> None:
        segments, moved = sides(window, self.patch, self.view)
        width = self.scale * line_width(float(window.variance))
        self.edges.set(segments=segments[~moved], linewidths=width + 0.8)
        self.lines.set(
            segments=segments,
            linewidths=width,
            linestyles=[(0, (1, 2)) if far else "-" for far in moved],
        )
        self.lines.set_capstyle(
            "butt" if moved.any() else "projecting"
        )  # projecting dots would run together
        # A grid of one filter, or of stride near 0, has an outline too small to see.
        box = rectangle(window, self.patch)
        x, y = np.clip(
            [box.left + box.width / 2, box.top + box.height / 2], self.view[:2], self.view[2:]
        )
        self.centre.set_data([x], [y])
        self.centre.set_visible(bool(box.width < 2))


def view_of(height: int, width: int, margin: float = 0.06) -> tuple[float, float, float, float]:
    """Left, top, right, bottom of an image with a margin around it (a share of its larger side),
    ``imshow`` coordinates.
    """
    edge = margin * max(height, width)
    return -0.5 - edge, -0.5 - edge, width - 0.5 + edge, height - 0.5 + edge


def show_image(axes: Axes, image: np.ndarray, view: tuple[float, float, float, float]) -> None:
    """An image in the middle of its view; grey marks what lies outside it."""
    axes.imshow(image, vmin=0, vmax=255 if image.dtype == np.uint8 else 1)
    left, top, right, bottom = view
    axes.set(xlim=(left, right), ylim=(bottom, top), facecolor="0.45")
