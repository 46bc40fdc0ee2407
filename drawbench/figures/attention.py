"""How the attention works: the grid, the filters, the patch read, and what a write puts back."""

from collections.abc import Sequence

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from drawbench import attention
from drawbench.attention import Window
from drawbench.figures.style import BLUE, RED, WIDTH, WINDOW, array, as_pictures, bare, styled
from drawbench.figures.windows import WindowOutline, show_image, view_of, window_corners


def _as_picture(values: torch.Tensor) -> np.ndarray:
    """Return (C, H, W) as a picture, scaled to its own brightest pixel."""
    picture = as_pictures(values.clamp_min(0)[None])[0]
    return picture / max(picture.max(), 1e-9)


def _draw_filters(axes: Axes, filters: np.ndarray, upright: bool) -> None:
    """Draw the rows of F (N, size) as curves over the pixels, in two colours by turns."""
    pixels = np.arange(filters.shape[1])
    for n, row in enumerate(filters):
        line = (row, pixels) if upright else (pixels, row)
        colour, dash = ((BLUE, "-"), (RED, (0, (3, 1))))[n % 2]
        axes.plot(*line, color=colour, linestyle=dash, linewidth=0.9)
    (axes.set_xlim if upright else axes.set_ylim)(0, 1.1 * filters.max())


@styled
def attention_explained(
    image, windows: Window, patch: int, names: Sequence[str] | None = None
) -> Figure:
    """Show what windows do to an image, as the paper's figures on zooming do: a row per window.

    From left to right: the image with the grid of filter centres and its outline, below it the
    filters F_X, at its right F_Y (each curve is a filter, a distribution over pixels, to the scale
    of the image); the patch read; and the patch written back through the same window. Patch and
    drawing are each scaled to their own brightest pixel.

    Args:
        image: (H, W) or (C, H, W), uint8 or in [0, 1].
        windows: fields of shape (K,), pixels numbered from 1.
        patch: N.
        names: of the windows; by default they are numbered.
    """
    image = torch.as_tensor(array(image))
    image = (image / 255 if image.dtype == torch.uint8 else image).double()
    image = image[None] if image.ndim == 2 else image
    windows = Window(*(torch.as_tensor(array(field)).double().reshape(-1) for field in windows))
    count, (height, width) = len(windows.stride), image.shape[-2:]
    filters = attention.filterbank(windows, height, width, patch)
    patches = attention.read(image.expand(count, -1, -1, -1), windows, patch)
    drawings = attention.write(patches, windows, height, width)

    picture, view = as_pictures(image[None])[0], view_of(height, width)
    side = 1.75  # inches, the larger side of a picture
    scale = side / max(view[2] - view[0], view[3] - view[1])
    wide, tall = scale * (view[2] - view[0]), scale * (view[3] - view[1])
    curve, head, row = 0.42, 0.3, tall + 0.42 + 0.25
    size = (WIDTH, head + count * row)
    figure = Figure(figsize=size)

    def place(x: float, y: float, width: float, height: float) -> Axes:
        """Add axes at inches from the top left."""
        corner = (x / size[0], 1 - (y + height) / size[1])
        return bare(figure.add_axes((*corner, width / size[0], height / size[1])))

    lefts = (0.3, 0.3 + wide + curve + 0.3, WIDTH - 0.15 - wide)
    for k in range(count):
        top, window = head + k * row, Window(*(field[k] for field in windows))
        main = place(lefts[0], top, wide, tall)
        show_image(main, picture, view)
        centres = (window.centre_x, window.centre_y)
        grid = [attention.filter_centres(c, window.stride, patch).numpy() - 1 for c in centres]
        # points: never so large that the dots hide what lies between them
        dot = min(0.5 * float(window.stride) * scale * 72, 3.0)
        points = (axis.ravel() for axis in np.meshgrid(*grid))
        main.plot(*points, ".", color=WINDOW, markersize=dot, markeredgewidth=0, zorder=5)
        corners = window_corners(window, patch)[None]
        WindowOutline(main, view, scale=0.8).move(corners, float(window.variance))
        below = place(lefts[0], top + tall + 0.04, wide, curve)
        beside = place(lefts[0] + wide + 0.04, top, curve, tall)
        _draw_filters(below, filters.x[k].numpy(), upright=False)
        _draw_filters(beside, filters.y[k].numpy(), upright=True)
        below.set(xlim=(view[0], view[2]))
        beside.set(ylim=(view[3], view[1]))
        below.set_ylabel("$F_X$", rotation=0, labelpad=2, va="center", ha="right", fontsize=7)
        place(lefts[1], top, tall, tall).imshow(_as_picture(patches[k]), vmin=0, vmax=1)
        show_image(place(lefts[2], top, wide, tall), _as_picture(drawings[k]), view)
        if k == 0:
            middles = (lefts[0] + wide / 2, lefts[1] + tall / 2, lefts[2] + wide / 2)
            for x, name in zip(middles, ("image, grid, filters", "read", "written"), strict=True):
                spot = (x / size[0], 1 - 0.18 / size[1])
                figure.text(*spot, name, ha="center", va="center")
            beside.set_title("$F_Y$", fontsize=7, pad=2)
        text = (
            f"{names[k] if names else f'window {k + 1}'}: "
            f"centre ({window.centre_x:.1f}, {window.centre_y:.1f}), "
            f"stride $\\delta$ = {window.stride:.2f} pixels,\n"
            f"filter width $\\sigma$ = {window.variance**0.5:.2f} pixels, "
            f"intensity $\\gamma$ = {window.intensity:.2f}"
        )
        spot = (lefts[1] / size[0], 1 - (top + tall + 0.08) / size[1])
        figure.text(*spot, text, ha="left", va="top", fontsize=7)
    return figure
