"""How the attention works: the grid, the filters, the patch read and what a write puts back."""

import numpy as np
import torch
from matplotlib.figure import Figure

from drawbench import attention
from drawbench.attention import Window
from drawbench.figures.style import BLUE, RED, WIDTH, WINDOW, array, as_pictures, bare, styled
from drawbench.figures.windows import WindowOutline, pick, show_image, view_of


def _as_picture(values: torch.Tensor) -> np.ndarray:
    """(C, H, W) as a picture, scaled to its own brightest pixel."""
    picture = np.moveaxis(values.clamp_min(0).numpy(), 0, -1)
    return (
        (picture / max(picture.max(), 1e-9)).squeeze(-1)
        if picture.shape[-1] == 1
        else picture / max(picture.max(), 1e-9)
    )


def _draw_filters(axes, filters: np.ndarray, upright: bool) -> None:
    """The rows of F (N, size) as curves over the pixels, beside the image they lie on, in two
    shades in turn.
    """
    pixels = np.arange(filters.shape[1])
    for n, row in enumerate(filters):
        line = (row, pixels) if upright else (pixels, row)
        axes.plot(
            *line,
            color=BLUE if n % 2 == 0 else RED,
            linewidth=0.9,
            linestyle="-" if n % 2 == 0 else (0, (3, 1)),
        )
    (axes.set_xlim if upright else axes.set_ylim)(0, 1.1 * filters.max())


@styled
def attention_explained(image, windows: Window, patch: int) -> Figure:
    """What chosen windows do to an image, as the paper's figures on zooming explain it: a row for
    each window.

    From left to right: the image with the grid of filter centres and its outline, below it the
    filters F_X, at its right F_Y (each curve one filter, a distribution over pixels, on the pixels'
    own scale); the patch read; and the patch written back through the same window. Patch and
    drawing are each scaled to their own brightest pixel.

    Args:
        image: (H, W) or (C, H, W), uint8 or in [0, 1].
        windows: fields of shape (K,), pixels numbered from 1.
        patch: N.
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

    def place(x: float, y: float, width: float, height: float):
        """Axes from inches, y downwards from the top."""
        return figure.add_axes(
            (x / size[0], 1 - (y + height) / size[1], width / size[0], height / size[1])
        )

    lefts = (0.3, 0.3 + wide + curve + 0.3, WIDTH - 0.15 - wide)
    for k in range(count):
        top, window = head + k * row, pick(windows, k)
        main = bare(place(lefts[0], top, wide, tall))
        show_image(main, picture, view)
        columns, rows = (attention.filter_centres(centre[k], windows.stride[k], patch).numpy() - 1
                         for centre in (windows.centre_x, windows.centre_y))  # fmt: skip
        dot = min(
            0.5 * window.stride * scale * 72, 3.0
        )  # points: never so large that the dots hide what lies between
        main.plot(
            *(grid.ravel() for grid in np.meshgrid(columns, rows)),
            ".",
            color=WINDOW,
            markersize=dot,
            markeredgewidth=0,
            zorder=3,
        )
        WindowOutline(main, patch, view, scale=0.8).move(window)
        below, beside = (
            bare(place(lefts[0], top + tall + 0.04, wide, curve)),
            bare(place(lefts[0] + wide + 0.04, top, curve, tall)),
        )
        _draw_filters(below, filters.x[k].numpy(), upright=False)
        _draw_filters(beside, filters.y[k].numpy(), upright=True)
        below.set(xlim=(view[0], view[2]))
        beside.set(ylim=(view[3], view[1]))
        below.set_ylabel("$F_X$", rotation=0, labelpad=2, va="center", ha="right", fontsize=7)
        middle = bare(place(lefts[1], top, tall, tall))
        middle.imshow(_as_picture(patches[k]), vmin=0, vmax=1)
        show_image(bare(place(lefts[2], top, wide, tall)), _as_picture(drawings[k]), view)
        if k == 0:
            heads = ("image, grid, filters", "read", "written back")
            for x, name in zip(
                (lefts[0] + wide / 2, lefts[1] + tall / 2, lefts[2] + wide / 2), heads, strict=True
            ):
                figure.text(x / size[0], 1 - 0.18 / size[1], name, ha="center", va="center")
            beside.set_title("$F_Y$", fontsize=7, pad=2)
        text = (f"window {k + 1}: centre ({window.centre_x:.1f}, {window.centre_y:.1f}), stride $\\delta$ = {window.stride:.2f} pixels,\n"
                f"filter width $\\sigma$ = {window.variance**0.5:.2f} pixels, intensity $\\gamma$ = {window.intensity:.2f}")  # fmt: skip
        figure.text(
            lefts[1] / size[0],
            1 - (top + tall + 0.08) / size[1],
            text,
            ha="left",
            va="top",
            fontsize=7,
        )
    return figure
