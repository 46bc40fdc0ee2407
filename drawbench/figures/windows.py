"""Outlines of windows over images, as polygons in ``imshow`` coordinates: the centre of the first
pixel is (0, 0).
"""

from typing import NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection

from drawbench.attention import Window
from drawbench.figures.style import WINDOW, array

View = tuple[float, float, float, float]  # left, top, right, bottom


class Outlines(NamedTuple):
    """Where a model looked or wrote: T steps for B images, K polygons each."""

    corners: np.ndarray  #: (B, T, K, 4, 2), x and y in pixels numbered from 0
    variance: np.ndarray | None = None  #: (B, T), of the filters in pixels squared; sets line width

    def at(self, n: int, t: int) -> tuple[np.ndarray, float]:
        """Return the polygons (K, 4, 2) of one step of one image and the variance."""
        return self.corners[n, t], 1.0 if self.variance is None else float(self.variance[n, t])

    def part(self, images: slice) -> "Outlines":
        """Return the outlines of some of the images."""
        variance = None if self.variance is None else self.variance[images]
        return Outlines(self.corners[images], variance)


def outlines(corners, variance=None) -> Outlines:
    """Return corners (B, T, 4, 2), or (B, T, K, 4, 2) for K scales, as :class:`Outlines`.

    Args:
        corners: x and y in pixels numbered from 0, around the outline.
        variance: (B, T), of the filters in pixels squared, or None where there are no filters.

    Raises:
        ValueError: for another shape.
    """
    polygons = array(corners).astype(float)
    if polygons.ndim not in (4, 5) or polygons.shape[-2:] != (4, 2):
        raise ValueError(f"corners must be (B, T, 4, 2) or (B, T, K, 4, 2), got {polygons.shape}")
    polygons = polygons[:, :, None] if polygons.ndim == 4 else polygons
    return Outlines(polygons, None if variance is None else array(variance).astype(float))


def window_corners(window: Window, patch: int) -> np.ndarray:
    """Return the corners (..., 4, 2) of the grid of Gaussian windows, first to last filter centre.

    Args:
        window: fields of any one shape (...), centres in pixels numbered from 1.
        patch: N, filters along a side; for N = 1 all corners coincide.
    """
    x, y, stride = (
        array(f).astype(float) for f in (window.centre_x, window.centre_y, window.stride)
    )
    half = (patch - 1) * stride / 2
    left, top, right, bottom = x - 1 - half, y - 1 - half, x - 1 + half, y - 1 + half
    corners = ((left, bottom), (left, top), (right, top), (right, bottom))
    return np.stack([np.stack(corner, axis=-1) for corner in corners], axis=-2)


def window_outlines(window: Window | None, patch: int | None) -> Outlines | None:
    """Return the outlines of Gaussian windows with fields (B, T); None without windows."""
    if window is None or patch is None:
        return None
    return outlines(window_corners(window, patch), window.variance)


def line_width(variance: float) -> float:
    """Return a border in points: thick for sharp filters, thin for a blur, as in the paper.

    Falls with the square root of the standard deviation: 2.4 points at one pixel, 0.6 at sixteen.
    """
    return float(np.clip(2.4 * variance**-0.25, 0.5, 3.0))


def visible_sides(polygon: np.ndarray, view: View) -> tuple[np.ndarray, np.ndarray]:
    """Clip a polygon to the view (Sutherland & Hodgman 1974).

    Args:
        polygon: (K, 2), x and y.
        view: the visible rectangle, ``imshow`` coordinates.

    Returns:
        Sides (S, 2, 2), each from (x, y) to (x, y), and (S,) bool: which of them lie on the edge of
        the view because the polygon continues beyond it. A polygon outside the view collapses onto
        the edge.
    """
    points = [(np.asarray(point, float), False) for point in polygon]
    for axis, sign, limit in ((0, 1, view[0]), (1, 1, view[1]), (0, -1, view[2]), (1, -1, view[3])):
        clipped = []
        for k, (start, on_edge) in enumerate(points):
            end = points[(k + 1) % len(points)][0]
            before, after = sign * (start[axis] - limit), sign * (end[axis] - limit)
            if before >= 0:
                clipped.append((start, on_edge))
            if (before >= 0) != (after >= 0):
                crossing = start + (end - start) * before / (before - after)
                clipped.append((crossing, on_edge or before >= 0))
        points = clipped
    if not points:
        points = [(np.clip(point, view[:2], view[2:]), True) for point in polygon]
    starts = np.array([point for point, _ in points])
    sides = np.stack([starts, np.roll(starts, -1, axis=0)], axis=1)
    return sides, np.array([far for _, far in points])


class WindowOutline:
    """The outlines of one step on axes; they can move to the next step.

    The border is thick for sharp filters; where a window leaves the view, the edge is dotted.
    """

    def __init__(self, axes: Axes, view: View, colour: str = WINDOW, scale: float = 1.0):
        self.view, self.scale = view, scale
        # Dark edges lie under all sides, so that no side's edge crosses another side.
        self.edges = LineCollection([], colors="black", capstyle="projecting", zorder=4)
        self.lines = LineCollection([], colors=colour, capstyle="projecting", zorder=4.1)
        self.centre = axes.plot([], [], ".", color=colour, markersize=2.5 * scale, zorder=4.2)[0]
        axes.add_collection(self.edges, autolim=False)
        axes.add_collection(self.lines, autolim=False)

    def move(self, polygons: np.ndarray, variance: float = 1.0) -> None:
        """Show polygons (K, 4, 2) with the border of this variance."""
        parts = zip(*(visible_sides(polygon, self.view) for polygon in polygons), strict=True)
        segments, beyond = map(np.concatenate, parts)
        width = self.scale * line_width(variance)
        self.edges.set(segments=segments[~beyond], linewidths=width + 0.8)
        dashes = [(0, (1, 2)) if far else "-" for far in beyond]
        self.lines.set(segments=segments, linewidths=width, linestyles=dashes)
        self.lines.set_capstyle("butt" if beyond.any() else "projecting")  # else dots run together
        # An outline of less than two pixels is too small to see.
        tiny = [polygon.mean(axis=0) for polygon in polygons if np.ptp(polygon, axis=0).max() < 2]
        self.centre.set_data(*np.clip(tiny, self.view[:2], self.view[2:]).T if tiny else ([], []))


def view_of(height: int, width: int, margin: float = 0.06) -> View:
    """Return the rectangle of an image with a margin, a share of its larger side, around it."""
    edge = margin * max(height, width)
    return -0.5 - edge, -0.5 - edge, width - 0.5 + edge, height - 0.5 + edge


def show_image(axes: Axes, image: np.ndarray, view: View) -> None:
    """Show an image in the middle of its view; what lies outside it is grey."""
    axes.imshow(image, vmin=0, vmax=255 if image.dtype == np.uint8 else 1)
    left, top, right, bottom = view
    axes.set(xlim=(left, right), ylim=(bottom, top), facecolor="0.45")
