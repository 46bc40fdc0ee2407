"""The generator's figures and films: what they show where it can be wrong, their sizes, and that
they are the same each time.
"""

import matplotlib
import numpy as np
import pandas as pd
import pytest
import torch
from matplotlib.collections import LineCollection, QuadMesh
from PIL import Image

from drawbench import attention, figures
from drawbench.attention import Window
from drawbench.figures import films
from drawbench.figures.style import GREEN, RED
from drawbench.models.draw import Draw


def colour_of(name: str) -> tuple[int, ...]:
    return tuple(int(name[i : i + 2], 16) for i in (1, 3, 5))


def some_pictures(
    count: int = 3, channels: int = 1, height: int = 12, width: int = 12
) -> torch.Tensor:
    """(count, channels, height, width): a soft spot, elsewhere in each and in each channel."""
    y, x = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    spots = [
        [
            torch.exp(-((x - 2 - n % 7) ** 2 + (y - 3 - c - n % 5) ** 2) / 8.0)
            for c in range(channels)
        ]
        for n in range(count)
    ]
    return torch.stack([torch.stack(spot) for spot in spots])


def some_windows(
    count: int, steps: int, height: int = 12, width: int = 12, patch: int = 3
) -> Window:
    """Windows that wander and shrink, the very first far outside."""
    numbers = torch.sin(1.7 * torch.arange(count * steps * 5.0)).view(
        count, steps, 5
    ) * torch.tensor([0.8, 0.8, 1.0, 0.7, 0.3])
    numbers[0, 0, 0] = 40.0
    return attention.window(numbers, height, width, patch)


def some_canvases(
    count: int = 3, steps: int = 5, channels: int = 1, height: int = 12, width: int = 12
) -> torch.Tensor:
    """(count, steps, channels, height, width): from grey to the pictures."""
    share = torch.linspace(0, 1, steps + 1)[1:].view(1, -1, 1, 1, 1)
    return 0.3 * (1 - share) + share * some_pictures(count, channels, height, width)[:, None]


def some_metrics(rows: int = 8, steps: int = 4) -> pd.DataFrame:
    n = np.arange(1, rows + 1)
    bound, kl = 80 + 300.0 / n**2, 25.0 * (1 - 0.5**n)
    frame = {
        "step": 500 * n,
        "images_seen": 50_000 * n,
        "train_bound": bound - 1,
        "validation_bound": bound,
        "validation_reconstruction": bound - kl,
        "validation_kl": kl,
    }
    return pd.DataFrame(frame | {f"kl_{t + 1}": kl * (t + 1) / 10 for t in range(steps)})


def every_figure() -> dict:
    """One of each, by name."""
    pictures, canvases, windows = some_pictures(7), some_canvases(2, 5), some_windows(2, 5)
    return {
        "steps": lambda: figures.steps_panel(canvases, windows, 3, columns=3),
        "steps-without-windows": lambda: figures.steps_panel(canvases, columns=3),
        "samples": lambda: figures.sample_sheet(pictures),
        "nearest": lambda: figures.sample_sheet(pictures, pictures.flip(0)),
        "reconstructions": lambda: figures.reconstruction_panel(
            pictures, 0.5 * pictures, columns=4
        ),
        "interpolation": lambda: figures.interpolation_panel(pictures[:6].view(2, 3, 1, 12, 12)),
        "kl-map": lambda: figures.kl_map(some_metrics()),
        "kl-bars": lambda: figures.kl_per_step_bars([1.0, 2.5, 0.5]),
        "curve": lambda: figures.generator_curve(some_metrics(), {"paper": 80.97}),
    }


def film_of(path) -> tuple[list[int], list[np.ndarray]]:
    """Milliseconds and RGB pixels of each frame."""
    durations, pages = [], []
    with Image.open(path) as film:
        for frame in range(film.n_frames):
            film.seek(frame)
            durations.append(film.info["duration"])
            pages.append(np.asarray(film.convert("RGB")))
    return durations, pages


def has(page: np.ndarray, colour: str) -> bool:
    """Whether a colour is on the page, below the line that explains the colours."""
    return bool((page[22:] == colour_of(colour)).all(-1).any())


# --- files ---


@pytest.mark.parametrize("name", every_figure())
def test_every_figure_is_small_whole_and_the_same_each_time(name, tmp_path):
    before = dict(matplotlib.rcParams)
    make = every_figure()[name]
    figure = make()
    (first,), (again,) = (
        figures.save(one, tmp_path, stem) for one, stem in ((figure, "first"), (make(), "again"))
    )
    assert first.read_bytes() == again.read_bytes()
    assert first.stat().st_size <= 500_000
    assert dict(matplotlib.rcParams) == before
    assert figure.get_figwidth() <= 6.76
    assert figure.get_figheight() <= 9.01
    texts = figure.texts + [
        text
        for axes in figure.axes
        for text in (*axes.texts, axes.title, axes.xaxis.label, axes.yaxis.label)
    ]
    for text in texts:
        if text.get_text():  # none is cut off
            box = text.get_window_extent()
            assert figure.bbox.x0 - 1 <= box.x0 <= box.x1 <= figure.bbox.x1 + 1, text.get_text()
            assert figure.bbox.y0 - 1 <= box.y0 <= box.y1 <= figure.bbox.y1 + 1, text.get_text()


@pytest.mark.parametrize("size", [(1, 1, 12, 12), (1, 3, 60, 60), (3, 3, 14, 22)])
def test_any_size_is_drawn(size, tmp_path):
    pictures = some_pictures(*size)
    figures.save(figures.sample_sheet(pictures), tmp_path, "samples")
    figures.save(figures.sample_sheet(pictures, pictures), tmp_path, "nearest")
    figures.save(figures.reconstruction_panel(pictures, pictures), tmp_path, "reconstructions")
    figures.save(
        figures.interpolation_panel(torch.stack([pictures, pictures], 1)), tmp_path, "interpolation"
    )
    windows = some_windows(size[0], 1, *size[2:])
    figures.save(figures.steps_panel(pictures[:, None], windows, 3), tmp_path, "steps")


def test_the_records_of_a_model_are_drawn(tmp_path):
    model = Draw(12, 12, steps=4, hidden=8, latent=2, read_patch=2, write_patch=3)
    noise = torch.sin(torch.arange(2 * 4 * 2.0)).view(2, 4, 2)
    with torch.no_grad():
        seen, drawn = (
            model(some_pictures(2), noise, keep_canvases=True),
            model.sample(noise, keep_canvases=True),
        )
    figures.save(
        figures.steps_panel(drawn.canvases.sigmoid(), drawn.write_windows, 3), tmp_path, "steps"
    )
    figures.drawing_film(tmp_path / "drawing.gif", drawn.canvases.sigmoid(), drawn.write_windows, 3)
    windows = (seen.read_windows, seen.write_windows)
    figures.reconstruction_film(
        tmp_path / "again.gif", some_pictures(2), seen.canvases.sigmoid(), *windows, 2, 3
    )


# --- contents ---


@pytest.mark.parametrize(
    ("steps", "columns", "shown"),
    [(64, 4, [1, 22, 43, 64]), (3, 2, [1, 3]), (3, 10, [1, 2, 3]), (1, 10, [1])],
)
def test_steps_are_spread_from_the_first_to_the_last(steps, columns, shown):
    figure = figures.steps_panel(some_canvases(2, steps), columns=columns)
    assert len(figure.axes) == 2 * len(shown)
    titles = [axes.get_title() for axes in figure.axes[: len(shown)]]
    assert titles == [f"step {shown[0]}", *map(str, shown[1:])]
    assert not any(axes.get_title() for axes in figure.axes[len(shown) :])


def test_steps_show_each_canvas_with_its_own_window():
    canvases, windows = some_canvases(2, 5), some_windows(2, 5)
    figure = figures.steps_panel(canvases, windows, 3, columns=3)
    for axes, (n, t) in zip(figure.axes, [(n, t) for n in (0, 1) for t in (0, 2, 4)], strict=True):
        assert axes.images[0].get_array().tolist() == canvases[n, t, 0].tolist()
        corners = np.concatenate(
            [c for c in axes.collections if isinstance(c, LineCollection)][-1].get_segments()
        )
        box = figures.rectangle(Window(*(field[n, t] for field in windows)), 3)
        left, top, right, bottom = films.view_of(12, 12)
        wanted = np.clip(
            [box.left, box.top, box.left + box.width, box.top + box.height],
            [left, top] * 2,
            [right, bottom] * 2,
        )
        assert [*corners.min(0), *corners.max(0)] == pytest.approx(wanted, abs=1e-5)


def test_sheets_put_every_sample_beside_its_nearest():
    pictures = some_pictures(7)
    (alone,) = figures.sample_sheet(pictures).axes
    (paired,) = (figure := figures.sample_sheet(pictures, 0.5 * pictures)).axes
    assert len(alone.patches) == 0
    assert len(paired.patches) == 7  # a frame for each training image, none for empty places
    assert "nearest" in figure.texts[0].get_text()
    whole = paired.images[0].get_array()
    for n, frame in enumerate(paired.patches):
        left, top = (round(value + 0.3) for value in frame.get_xy())
        left, top = (
            left + (whole[top + 6, left] == 1).all(),
            top,
        )  # a frame may be less than a pixel wide
        inside = whole[top : top + 12, left : left + 12, 0]
        assert inside.max() == pytest.approx(0.5 * pictures[n].max().item(), abs=1e-3)


def test_a_sheet_keeps_the_order_and_every_pixel():
    pictures = some_pictures(5, 3)
    whole = figures.sample_sheet(pictures, columns=2).axes[0].images[0].get_array()
    assert whole.shape == (3 * 13 + 1, 2 * 13 + 1, 3)
    for n in range(5):
        top, left = 1 + n // 2 * 13, 1 + n % 2 * 13
        assert (
            np.asarray(whole[top : top + 12, left : left + 12]).tolist()
            == pictures[n].movedim(0, -1).tolist()
        )
    assert (whole[27:39, 14:26] == 1).all()  # the empty place is white


def test_reconstructions_lie_below_their_images():
    pictures = some_pictures(5)
    (axes,) = figures.reconstruction_panel(pictures, 0.5 * pictures, columns=3).axes
    assert [text.get_text() for text in axes.texts] == ["image", "drawing"] * 2
    whole = np.asarray(axes.images[0].get_array())[..., 0]
    assert whole[14:26, 1:13].tolist() == (0.5 * pictures[0, 0]).tolist()
    assert whole[1:13, 1:13].tolist() == pictures[0, 0].tolist()


def test_an_interpolation_frames_its_ends():
    (axes,) = (
        figure := figures.interpolation_panel(
            some_pictures(8).view(2, 4, 1, 12, 12), ends="two images"
        )
    ).axes
    assert len(axes.patches) == 4
    assert "two images" in figure.texts[0].get_text()


@pytest.mark.parametrize(("rows", "steps"), [(8, 4), (8, 1), (1, 64)])
def test_the_map_has_a_row_for_each_step_and_a_column_for_each_evaluation(rows, steps):
    frame = some_metrics(rows, steps)
    figure = figures.kl_map(frame.sample(frac=1, random_state=0))
    axes, bar = figure.axes
    (mesh,) = (c for c in axes.collections if isinstance(c, QuadMesh))
    assert mesh.get_array().shape == (steps, rows)
    assert mesh.get_array()[-1].tolist() == frame[f"kl_{steps}"].tolist()
    assert axes.get_ylim() == (0.5, steps + 0.5)
    assert "nats" in bar.get_ylabel()
    assert "updates" in axes.get_xlabel()


def test_the_map_skips_what_is_missing_and_takes_the_later_of_two():
    frame = pd.concat([some_metrics(3), some_metrics(3).iloc[[1]].assign(kl_1=7.0)])
    frame.iloc[0, frame.columns.get_loc("kl_2")] = np.nan
    (mesh,) = (c for c in figures.kl_map(frame).axes[0].collections if isinstance(c, QuadMesh))
    assert mesh.get_array().shape == (4, 2)
    assert mesh.get_array()[0, 0] == 7.0


def test_an_early_burst_does_not_take_all_shades():
    frame = some_metrics(20)
    frame.loc[0, "kl_1"] = 900.0
    figure = figures.kl_map(frame)
    assert figure.axes[0].collections[0].norm.vmax == pytest.approx(frame["kl_4"].max())


def test_bars_name_their_sum():
    axes = figures.kl_per_step_bars(torch.tensor([1.0, 2.5, 0.5])).axes[0]
    assert [bar.get_height() for bar in axes.patches] == [1.0, 2.5, 0.5]
    assert axes.get_title("right") == "all steps: 4.00 nats"
    assert len(figures.kl_per_step_bars([1.0]).axes[0].patches) == 1


def test_the_curve_shows_the_end_of_training():
    metrics = some_metrics(20)
    metrics.loc[4, "train_bound"] = np.nan
    bound, reconstruction, kl = figures.generator_curve(metrics, {"paper": 75.0}).axes
    assert bound.lines[0].get_ydata().tolist() == metrics["train_bound"].dropna().tolist()
    assert bound.lines[1].get_ydata().tolist() == metrics["validation_bound"].tolist()
    low, high = bound.get_ylim()
    assert low < 75.0  # the reference is seen
    assert 90 < high < 110  # the start, at 380, is not
    assert reconstruction.get_ylim()[1] < 110
    assert kl.get_ylim()[0] == 0
    assert bound.get_title("right").endswith(f"best: {metrics['validation_bound'].min():.2f} nats")
    assert [text.get_text() for text in bound.get_legend().get_texts()] == [
        "training",
        "validation",
    ]
    assert [text.get_text() for text in bound.texts] == ["paper: 75 nats"]


@pytest.mark.parametrize(
    "awkward", [{"rows": 1}, {"validation_bound": np.nan}, {"train_bound": np.nan}]
)
def test_curves_of_awkward_runs(awkward):
    metrics = some_metrics(awkward.get("rows", 6)).assign(**awkward)
    for axes in figures.generator_curve(metrics, {"paper": 80.97}).axes:
        assert axes.get_xlim()[0] == 0
        assert axes.get_xlim()[1] * 1000 >= metrics["images_seen"].max()


# --- films ---


def test_a_film_has_a_frame_for_each_step_and_a_long_last_one_without_windows(tmp_path):
    canvases, windows = some_canvases(3, 5), some_windows(3, 5)
    path = figures.drawing_film(
        tmp_path / "new" / "film.gif", canvases, windows, 3, hold=2.5, seconds=1.0
    )
    first = path.read_bytes()
    durations, pages = film_of(path)
    assert durations == [200] * 5 + [2500]
    assert [has(page, RED) for page in pages] == [True] * 5 + [False]
    with Image.open(path) as film:
        assert film.info["loop"] == 0
    assert (
        figures.drawing_film(path, canvases, windows, 3, hold=2.5, seconds=1.0).read_bytes()
        == first
    )
    assert len(first) <= 500_000


def test_a_film_without_windows_ends_with_its_last_step(tmp_path):
    durations, pages = film_of(figures.drawing_film(tmp_path / "film.gif", some_canvases(2, 4)))
    assert durations == [500, 500, 500, 2000]
    assert not any(has(page, RED) for page in pages)


def test_a_film_of_one_step(tmp_path):
    windows = some_windows(1, 1)
    assert film_of(figures.drawing_film(tmp_path / "film.gif", some_canvases(1, 1), windows, 3))[
        0
    ] == [500, 2000]
    assert film_of(figures.drawing_film(tmp_path / "still.gif", some_canvases(1, 1)))[0] in (
        [2000],
        [],
    )  # one frame has no time


def test_the_last_frame_holds_the_pictures(tmp_path):
    """Each pixel as a square, in greys no farther than a shade from the true ones."""
    canvases = some_canvases(1, 3)
    page = film_of(figures.drawing_film(tmp_path / "film.gif", canvases, some_windows(1, 3), 3))[1][
        -1
    ]
    scale = round(280 / 12)
    stage = films._Stage(
        [films._Side(canvases.movedim(2, -1).numpy(), some_windows(1, 3), 3, RED, "writes")],
        1,
        scale,
        32,
    )
    x, y = stage.places[0][0]
    found = page[y : y + 12 * scale, x : x + 12 * scale, 0].reshape(12, scale, 12, scale)
    assert (found == found[:, :1, :, :1]).all()
    assert np.abs(found[:, 0, :, 0] / 255 - canvases[0, -1, 0].numpy()).max() < 0.6 / 31


def test_a_rectangle_lies_where_the_window_is():
    """Centres 3 .. 9 of pixels numbered from 1 are the columns 2 .. 8: their middles at 2.5 and 8.5
    pixels from the edge.
    """
    window = Window(*(torch.tensor(field) for field in (6.0, 7.0, 1.0, 3.0, 1.0)))
    page = np.zeros((130, 130), np.uint8)
    films._draw_window(
        page, window, 3, films.view_of(12, 12), (5, 4), 10, 1, thick=0.4
    )  # a line of one dot
    rows, columns = np.nonzero(page)
    assert (columns.min(), columns.max()) == pytest.approx((5 + 25, 5 + 85), abs=1)
    assert (rows.min(), rows.max()) == pytest.approx((4 + 35, 4 + 95), abs=1)
    assert page[50:80, 45:75].sum() == 0  # an outline, not an area


def test_a_window_far_outside_is_dotted_and_one_without_size_a_dot():
    view, outside = (
        films.view_of(12, 12),
        Window(*(torch.tensor(f) for f in (500.0, 6.0, 1.0, 2.0, 1.0))),
    )
    page = np.zeros((140, 140), np.uint8)
    films._draw_window(page, outside, 3, view, (10, 10), 10, 1, thick=0.4)
    along = page[:, page.any(0)].any(1)
    assert 0.2 < along[np.flatnonzero(along)[0] : np.flatnonzero(along)[-1]].mean() < 0.8
    page = np.zeros((140, 140), np.uint8)
    films._draw_window(
        page, outside._replace(centre_x=torch.tensor(6.0)), 1, view, (10, 10), 10, 1, thick=0.4
    )
    assert page.sum() == 9


def test_sharper_filters_have_thicker_borders():
    inked = []
    for variance in (0.5, 4.0, 200.0):
        page = np.zeros((140, 140), np.uint8)
        window = Window(*(torch.tensor(f) for f in (6.0, 6.0, variance, 3.0, 1.0)))
        films._draw_window(page, window, 3, films.view_of(12, 12), (10, 10), 10, 1, thick=1.0)
        inked.append(page.sum())
    assert inked[0] > inked[1] > inked[2]


def test_a_reconstruction_film_reads_green_and_writes_red(tmp_path):
    images, canvases, windows = some_pictures(2), some_canvases(2, 4), some_windows(2, 4)
    both = figures.reconstruction_film(
        tmp_path / "both.gif", images, canvases, windows, windows, 2, 3
    )
    only = figures.reconstruction_film(
        tmp_path / "only.gif", images, canvases, None, windows, None, 3
    )
    for path, read in ((both, True), (only, False)):
        durations, pages = film_of(path)
        assert len(durations) == 5
        assert durations[-1] == 2000
        assert [has(page, GREEN) for page in pages] == [read] * 4 + [False]
        assert [has(page, RED) for page in pages] == [True] * 4 + [False]


def test_the_largest_film_of_the_paper_is_small_enough(tmp_path):
    """64 steps of 16 digits: canvases whose every pixel changes at every step are harder than any
    drawing.
    """
    canvases = some_canvases(16, 64, 1, 28, 28)
    path = figures.drawing_film(tmp_path / "film.gif", canvases, some_windows(16, 64, 28, 28, 5), 5)
    assert path.stat().st_size <= 500_000
    with Image.open(path) as film:
        assert film.n_frames >= 33
        assert min(film.size) >= 16 * 20


def test_a_film_gives_way_to_its_limit(tmp_path, monkeypatch):
    canvases, windows = some_canvases(4, 16, 3), some_windows(4, 16)
    large = figures.drawing_film(tmp_path / "large.gif", canvases, windows, 3)
    limit = large.stat().st_size // 4
    monkeypatch.setattr(films, "FILM_LIMIT", limit)
    small = figures.drawing_film(tmp_path / "small.gif", canvases, windows, 3)
    assert small.stat().st_size <= limit
    assert film_of(small)[0][-1] == 2000


def test_no_more_pictures_than_asked_for(tmp_path):
    canvases = some_canvases(6, 2)
    shown = [
        Image.open(figures.drawing_film(tmp_path / f"{most}.gif", canvases, columns=3, most=most))
        for most in (3, 6)
    ]
    heights = [film.size[1] for film in shown]
    for film in shown:
        film.close()
    assert heights[1] - 20 == 2 * (heights[0] - 20)


# --- what cannot be drawn is named ---


def test_wrong_shapes_are_named(tmp_path):
    path, pictures, canvases, windows = (
        tmp_path / "film.gif",
        some_pictures(3),
        some_canvases(3, 5),
        some_windows(3, 4),
    )
    with pytest.raises(
        ValueError,
        match=r"canvases must be \(B, T, C, H, W\) with 1 or 3 channels, got \(3, 1, 12, 12\)",
    ):
        figures.steps_panel(pictures)
    with pytest.raises(ValueError, match=r"samples must be \(B, C, H, W\) .* got \(3, 2, 12, 12\)"):
        figures.sample_sheet(torch.zeros(3, 2, 12, 12))
    with pytest.raises(ValueError, match=r"canvases must lie in \[0, 1\].*sigmoid"):
        figures.drawing_film(path, 9 * canvases - 4)
    with pytest.raises(ValueError, match=r"must lie in \[0, 1\], got nan"):
        figures.sample_sheet(pictures * np.nan)
    for draw in (figures.steps_panel, lambda *given: figures.drawing_film(path, *given)):
        with pytest.raises(
            ValueError, match=r"\(B, T\) = \(3, 5\) like the canvases, got \(3, 4\)"
        ):
            draw(canvases, windows, 3)
        with pytest.raises(ValueError, match="side of their patch"):
            draw(canvases, some_windows(3, 5))
    with pytest.raises(ValueError, match=r"read_windows must be \(B, T\)"):
        figures.reconstruction_film(path, pictures, canvases, windows, None, 3, None)
    with pytest.raises(ValueError, match="images must be those of the canvases"):
        figures.reconstruction_film(path, pictures[:2], canvases)
    with pytest.raises(ValueError, match="samples and nearest must have one shape"):
        figures.sample_sheet(pictures, pictures[:2])
    with pytest.raises(ValueError, match="images and reconstructions must have one shape"):
        figures.reconstruction_panel(pictures, some_pictures(3, 3))
    with pytest.raises(ValueError, match="two ends at least"):
        figures.interpolation_panel(pictures[:, None])
    with pytest.raises(ValueError, match=r"kl must be \(T,\).* got shape \(2, 2\)"):
        figures.kl_per_step_bars(np.ones((2, 2)))
    assert list(tmp_path.iterdir()) == []


def test_counts_below_the_least_are_named(tmp_path):
    pictures, canvases = some_pictures(3), some_canvases()
    with pytest.raises(ValueError, match="at least 2 columns, got 1"):
        figures.steps_panel(canvases, columns=1)
    for draw in (
        figures.sample_sheet,
        lambda *given, **more: figures.reconstruction_panel(*given, *given, **more),
    ):
        with pytest.raises(ValueError, match="at least 1 column, got 0"):
            draw(pictures, columns=0)
    with pytest.raises(ValueError, match="at least 1 canvas in 1 column, got 0 in 4"):
        figures.drawing_film(tmp_path / "film.gif", canvases, most=0)


def test_frames_without_what_is_needed_are_named():
    metrics = some_metrics()
    with pytest.raises(ValueError, match="no rows yet"):
        figures.generator_curve(metrics.iloc[:0])
    with pytest.raises(ValueError, match="lack train_bound, validation_kl"):
        figures.generator_curve(metrics.drop(columns=["train_bound", "validation_kl"]))
    for without in ("step", "kl_2", ["kl_1", "kl_2", "kl_3", "kl_4"]):
        with pytest.raises(ValueError, match=r"columns step and kl_1 \.\. kl_T"):
            figures.kl_map(metrics.drop(columns=without))
    with pytest.raises(ValueError, match="no row"):
        figures.kl_map(metrics.assign(kl_1=np.nan))
