"""The figures: what they draw where it can be wrong, and that files are small, whole and the same
each time.
"""

import sys
from itertools import pairwise

import matplotlib
import numpy as np
import pandas as pd
import pytest
import torch
from matplotlib.collections import LineCollection
from PIL import Image

from drawbench import attention, figures, files
from drawbench.attention import Window
from drawbench.errors import Problem
from drawbench.figures import glimpses as glimpse_figures
from drawbench.figures import style
from drawbench.figures.windows import line_width, sides
from drawbench.models.glimpse import Glimpses


def window_of(centre_x=10.5, centre_y=10.5, variance=1.0, stride=2.0, intensity=1.0) -> Window:
    return Window(
        *(torch.tensor(float(field)) for field in (centre_x, centre_y, variance, stride, intensity))
    )


def some_images(count: int = 3, height: int = 20, width: int = 20) -> torch.Tensor:
    """uint8 (count, H, W): a bright bar on black, elsewhere in each."""
    images = torch.zeros(count, height, width, dtype=torch.uint8)
    for n in range(count):
        images[n, 4 + n % 5 : 12, 3 + n % 7 : 6 + n % 7] = 200
    return images


def some_glimpses(
    images: torch.Tensor, steps: int = 3, patch: int = 4, classes: int = 10
) -> Glimpses:
    """What a model might have returned: windows that wander and shrink, one of them far outside."""
    count, (height, width) = len(images), images.shape[-2:]
    numbers = torch.sin(1.7 * torch.arange(count * steps * 5.0)).view(
        count, steps, 5
    ) * torch.tensor([1.0, 1.0, 2.0, 1.0, 0.5])
    numbers[0, 0, 0] = 40.0
    windows = attention.window(numbers, height, width, patch)
    planes = images[:, None] if images.ndim == 3 else images
    pixels = planes.float() / 255
    patches = [
        attention.read(pixels, Window(*(field[:, t] for field in windows)), patch)
        for t in range(steps)
    ]
    logits = 3 * torch.cos(0.9 * torch.arange(float(count * steps * classes))).view(
        count, steps, classes
    )
    return Glimpses(logits, windows, torch.stack(patches, dim=1))


def some_metrics(rows: int = 6) -> pd.DataFrame:
    seen = 1000 * np.arange(1, rows + 1)
    return pd.DataFrame(
        {
            "step": seen // 100,
            "images_seen": seen,
            "train_loss": 2.0 / np.arange(1, rows + 1),
            "validation_error": 60.0 / np.arange(1, rows + 1),
            "learning_rate": 1e-3 * np.linspace(1, 0, rows),
        }
    )


def some_errors() -> pd.DataFrame:
    rows = [
        (c, 2 + c / 4 + m, 1.5 + c / 4 + m, 3 + c / 4 + m, f"model {m}")
        for m in (0, 1)
        for c in (0, 4, 8, 16)
    ]
    return pd.DataFrame(rows, columns=["condition", "error", "low", "high", "model"])


def every_figure() -> dict:
    """One of each, by name."""
    images = some_images()
    return {
        "learning": lambda: figures.learning_curves(
            some_metrics(), {"chance": 90.0, "paper": 3.36}
        ),
        "montage": lambda: figures.montage(images, [1, 2, 3], rows=2, columns=2),
        "paths": lambda: figures.glimpse_paths(
            images, torch.tensor([1, 2, 3]), some_glimpses(images)
        )[0],
        "attention": lambda: figures.attention_explained(
            images[0], Window(*(field[None] for field in window_of())), 5
        ),
        "error": lambda: figures.error_curve(
            some_errors(), "clutter pieces", trained_at=8, references={"paper": 3.36}
        ),
        "confusion": lambda: figures.confusion(
            90 * np.eye(10, dtype=int) + np.arange(100).reshape(10, 10) % 4
        ),
    }


# --- files ---


@pytest.mark.parametrize("name", every_figure())
def test_every_figure_renders_small_and_the_same_each_time(name, tmp_path):
    make = every_figure()[name]
    figure = make()
    (first,) = figures.save(figure, tmp_path / "new" / "folder", name)
    (again,) = figures.save(figure, tmp_path, "again")
    (anew,) = figures.save(make(), tmp_path, "anew")
    assert first == tmp_path / "new" / "folder" / f"{name}.png"
    assert first.read_bytes() == again.read_bytes() == anew.read_bytes()
    assert first.stat().st_size <= 500_000
    with Image.open(first) as picture:
        assert "Software" not in picture.info
        assert len(np.unique(np.asarray(picture))) > 2  # something is drawn
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "again.png",
        "anew.png",
        "new",
    ]  # no temporary file stays


def test_vector_formats_are_the_same_each_time(tmp_path):
    make = every_figure()["error"]
    first = figures.save(make(), tmp_path, "first", formats=("pdf", "svg"))
    second = figures.save(make(), tmp_path, "second", formats=("pdf", "svg"))
    assert [path.suffix for path in first] == [".pdf", ".svg"]
    for one, other in zip(first, second, strict=True):
        assert one.read_bytes() == other.read_bytes()
    assert b"CreationDate" not in first[0].read_bytes()


def test_a_large_png_is_reduced_to_a_palette(tmp_path):
    noise = torch.randint(
        0, 256, (64, 60, 60), generator=torch.Generator().manual_seed(0), dtype=torch.uint8
    )
    (path,) = figures.save(figures.montage(noise), tmp_path, "noise")
    with Image.open(path) as picture:
        assert picture.mode == "P"
    assert path.stat().st_size < 2_000_000  # of noise; the data sets have far less


def test_a_failed_write_keeps_the_old_file(tmp_path, monkeypatch):
    (tmp_path / "figure.png").write_bytes(b"old")
    monkeypatch.setattr(files.os, "replace", lambda *_: (_ for _ in ()).throw(OSError("disk full")))
    with pytest.raises(Problem, match="disk full"):
        figures.save(every_figure()["montage"](), tmp_path, "figure")
    assert [path.name for path in tmp_path.iterdir()] == ["figure.png"]
    assert (tmp_path / "figure.png").read_bytes() == b"old"


def test_an_unknown_format_is_named(tmp_path):
    with pytest.raises(ValueError, match="png, pdf, svg, got 'bmp'"):
        figures.save(every_figure()["montage"](), tmp_path, "figure", formats=("bmp",))


def test_no_global_state_is_left(tmp_path):
    before = dict(matplotlib.rcParams)
    pyplot_was_there = "matplotlib.pyplot" in sys.modules
    for name, make in every_figure().items():
        figures.save(make(), tmp_path, name)
    assert dict(matplotlib.rcParams) == before
    assert ("matplotlib.pyplot" in sys.modules) == pyplot_was_there
    if pyplot_was_there:
        assert sys.modules["matplotlib.pyplot"].get_fignums() == []


def test_the_callers_settings_change_nothing(tmp_path):
    (plain,) = figures.save(every_figure()["error"](), tmp_path, "plain")
    with matplotlib.rc_context({"font.size": 30, "axes.grid": False, "lines.linewidth": 9}):
        (other,) = figures.save(every_figure()["error"](), tmp_path, "other")
    assert plain.read_bytes() == other.read_bytes()


# --- windows: pixels numbered from 1 to imshow's coordinates ---


def test_a_rectangle_spans_the_grid():
    # Centres at 6.5, 8.5, 10.5, 12.5, 14.5 numbered from 1, so at 5.5 .. 13.5 numbered from 0; rows
    # 2 higher.
    assert figures.rectangle(window_of(10.5, 8.5, stride=2.0), 5) == (5.5, 3.5, 8.0, 8.0)


@pytest.mark.parametrize("patch", [2, 3, 12])
@pytest.mark.parametrize(("height", "width"), [(20, 20), (15, 28)])
def test_the_starting_grid_covers_the_image_from_pixel_centre_to_pixel_centre(height, width, patch):
    """Five zeros: centred, and as long as the larger side."""
    left, top, across, down = figures.rectangle(
        attention.window(torch.zeros(5), height, width, patch), patch
    )
    larger = max(height, width) - 1
    assert (across, down) == pytest.approx((larger, larger), abs=1e-4)
    assert (left, top) == pytest.approx(
        ((width - 1 - larger) / 2, (height - 1 - larger) / 2), abs=1e-4
    )


def test_a_rectangle_frames_what_a_sharp_window_reads():
    image = torch.zeros(1, 1, 20, 20)
    image[0, 0, 6:9, 11:14] = 1  # rows 6..8, columns 11..13, numbered from 0
    window = Window(*(field[None] for field in window_of(13.0, 8.0, variance=1e-3, stride=1.0)))
    assert attention.read(image, window, 3).min() == 1
    left, top, width, height = (value.item() for value in figures.rectangle(window, 3))
    assert (left, top, left + width, top + height) == (11, 6, 13, 8)


def test_rectangles_of_a_batch_keep_its_shape():
    windows = some_glimpses(some_images()).windows
    assert {field.shape for field in figures.rectangle(windows, 4)} == {(3, 3)}


def test_a_single_filter_is_a_point():
    assert figures.rectangle(window_of(3.0, 4.0), 1) == (2.0, 3.0, 0.0, 0.0)


def test_sides_beyond_the_view_are_moved_to_its_edge():
    view = (-1.5, -1.5, 20.5, 20.5)
    segments, moved = sides(
        window_of(19.0, 10.0, stride=2.0), 5, view
    )  # columns 14 .. 22, rows 5 .. 13
    assert moved.tolist() == [False, False, True, False]  # left, top, right, bottom
    left, top, right, bottom = segments
    assert left.tolist() == [[14, 13], [14, 5]]
    assert top.tolist() == [[14, 5], [20.5, 5]]
    assert right.tolist() == [[20.5, 5], [20.5, 13]]
    assert bottom.tolist() == [[20.5, 13], [14, 13]]


def test_sharper_filters_have_thicker_borders():
    widths = [line_width(variance) for variance in (0.5, 1.0, 4.0, 20.0, 200.0)]
    assert widths == sorted(widths, reverse=True)
    assert len(set(widths)) == 5
    assert line_width(1e-9) == 3.0
    assert line_width(1e9) == 0.5


def test_paths_draw_each_window_where_it_was():
    images = some_images(1)
    seen = some_glimpses(images)
    (figure,) = figures.glimpse_paths(images, [1], seen)
    outlines = [
        [c for c in axes.collections if isinstance(c, LineCollection)] for axes in figure.axes
    ]
    drawn = [found[-1].get_segments() for found in outlines if found]
    assert len(drawn) == 3  # a panel for each step
    for t in (1, 2):
        box = figures.rectangle(Window(*(field[0, t] for field in seen.windows)), 4)
        inside = np.clip(
            [box.left, box.top, box.left + box.width, box.top + box.height], -0.5 - 1.2, 19.5 + 1.2
        )
        corners = np.concatenate(drawn[t])
        assert [*corners.min(0), *corners.max(0)] == pytest.approx(inside)


# --- contents ---


@pytest.mark.parametrize(("count", "sheets"), [(1, 1), (2, 1), (3, 2), (7, 2)])
def test_sheets_hold_all_images_asked_for(count, sheets):
    images = some_images(count)
    drawn = figures.glimpse_paths(
        images, torch.arange(count), some_glimpses(images, steps=1), most=4, per_sheet=2
    )
    assert len(drawn) == sheets
    assert sum(len(figure.axes) for figure in drawn) == 3 * min(count, 4)


def test_colour_and_oblong_images_are_drawn(tmp_path):
    images = torch.stack([some_images(2, 14, 22)] * 3, dim=1)
    (sheet,) = figures.glimpse_paths(images, [1, 2], some_glimpses(images, steps=2))
    figures.save(sheet, tmp_path, "sheet")
    figures.save(
        figures.montage(images.movedim(1, -1), [[1, 2], [3, 4]], 1, 2), tmp_path, "montage"
    )
    figures.save(
        figures.attention_explained(
            images[0].float() / 255, Window(*(f[None] for f in window_of())), 3
        ),
        tmp_path,
        "attention",
    )
    figures.glimpse_film(images, [1, 2], some_glimpses(images, steps=2), tmp_path / "film.gif")


def test_probabilities_and_verdicts_are_those_of_the_logits():
    images = some_images(1)
    seen = some_glimpses(images, steps=1)
    guess, chances = seen.logits[0, 0].argmax().item(), seen.logits[0, 0].softmax(-1)
    for label, mark in ((guess, "\N{CHECK MARK}"), ((guess + 1) % 10, "\N{BALLOT X}")):
        (figure,) = figures.glimpse_paths(images, [label], seen)
        bars = figure.axes[-1]
        assert [bar.get_height() for bar in bars.patches] == pytest.approx(
            chances.tolist(), abs=1e-6
        )
        assert bars.get_title() == f"{guess} {mark} {100 * chances.max():.0f} %"
        assert [text.get_text() for text in bars.texts] == [str(label)]


def test_a_patch_is_scaled_to_its_brightest_filter():
    patch = glimpse_figures._as_patch(np.array([[[0.0, 0.1], [0.2, 0.05]]]))
    assert patch.tolist() == pytest.approx(np.array([[0.0, 0.5], [1.0, 0.25]]))
    assert not glimpse_figures._as_patch(np.zeros((1, 2, 2))).any()


def test_the_film_has_a_frame_for_each_glimpse(tmp_path):
    images = some_images(5)
    path = figures.glimpse_film(
        images,
        torch.arange(5),
        some_glimpses(images, steps=4),
        tmp_path / "new" / "film.gif",
        milliseconds=300,
    )
    first = path.read_bytes()
    durations, pages = [], []
    with Image.open(path) as film:
        assert film.n_frames == 4
        assert film.info["loop"] == 0
        for frame in range(4):
            film.seek(frame)
            durations.append(film.info["duration"])
            pages.append(np.asarray(film.convert("RGB")))
    assert durations == [300, 300, 300, 1200]  # time to look at the answer
    assert all((one != other).any() for one, other in pairwise(pages))
    assert len(first) <= 500_000
    figures.glimpse_film(
        images, torch.arange(5), some_glimpses(images, steps=4), path, milliseconds=300
    )
    assert path.read_bytes() == first


def test_the_film_keeps_its_colours(tmp_path):
    """A palette fitted to the pixels loses the few red ones."""
    images = some_images(2)
    seen = some_glimpses(images, steps=1)
    labels = [
        seen.logits[0, 0].argmax().item(),
        (seen.logits[1, 0].argmax().item() + 1) % 10,
    ]  # one right, one wrong
    with Image.open(figures.glimpse_film(images, labels, seen, tmp_path / "film.gif")) as film:
        found = {colour for _, colour in film.convert("RGB").getcolors(100_000)}
    for colour in (style.BLUE, style.RED, style.WINDOW):
        wanted = np.array([int(colour[i : i + 2], 16) for i in (1, 3, 5)])
        assert min(np.abs(wanted - other).max() for other in found) <= 2


def test_curves_show_the_numbers_given():
    metrics = some_metrics()
    metrics.loc[2, "validation_error"] = np.nan  # not every row has been evaluated
    figure = figures.learning_curves(metrics, {"chance": 90.0})
    loss, rate, error = figure.axes
    assert loss.lines[0].get_ydata().tolist() == metrics["train_loss"].tolist()
    assert rate.lines[0].get_ydata().tolist() == metrics["learning_rate"].tolist()
    assert error.lines[0].get_ydata().tolist() == metrics["validation_error"].dropna().tolist()
    assert error.lines[0].get_xdata()[-1] == 6.0  # thousands
    assert "thousands" in error.get_xlabel()
    assert error.get_yscale() == "log"
    assert error.get_title("right").endswith("best: 10.00 %")
    assert [text.get_text() for text in error.texts] == ["chance: 90 %"]


@pytest.mark.parametrize("errors", [[0.0, 50.0], [np.nan, np.nan], [3.0, 3.0]])
def test_curves_of_awkward_runs(errors, tmp_path):
    metrics = some_metrics(2).assign(validation_error=errors)
    figure = figures.learning_curves(metrics)
    figures.save(figure, tmp_path, "curve")
    assert figure.axes[2].get_yscale() == "linear"


def test_error_curves_mark_the_training_condition():
    figure = figures.error_curve(some_errors(), "clutter pieces", trained_at=8)
    assert any(list(line.get_xdata()) == [8, 8] for line in figure.axes[0].lines)
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["model 0", "model 1"]
    assert figure.axes[0].get_xlabel() == "clutter pieces"
    single = figures.error_curve(
        some_errors().query("model == 'model 0'").drop(columns="model"), "clutter pieces"
    )
    assert not single.legends


def test_confusion_shades_errors_only():
    matrix = 900 * np.eye(3, dtype=int)
    matrix[0, 2] = 100
    axes = figures.confusion(matrix, ["a", "b", "c"]).axes[0]
    shades = axes.images[0].get_array()
    assert np.isnan(np.ma.filled(shades.astype(float), np.nan)[[0, 1, 2], [0, 1, 2]]).all()
    assert shades[0, 2] == pytest.approx(10.0)
    assert "100 errors in 2800 images" in axes.get_title()
    texts = {tuple(text.get_position()): text.get_text() for text in axes.texts}
    assert texts == {
        (0, 0): "900\n90.0 %",
        (2, 0): "100\n10.0 %",
        (1, 1): "900\n100.0 %",
        (2, 2): "900\n100.0 %",
    }


def test_a_confusion_without_errors_or_without_a_class_is_drawn(tmp_path):
    figures.save(figures.confusion(np.diag([5, 0, 7])), tmp_path, "confusion")


def test_what_cannot_be_drawn_is_named():
    with pytest.raises(ValueError, match="no rows yet"):
        figures.learning_curves(some_metrics(0))
    with pytest.raises(ValueError, match="no rows"):
        figures.error_curve(some_errors().iloc[:0], "clutter")
    with pytest.raises(ValueError, match=r"shape \(2, 3\) and 2 names"):
        figures.confusion(np.ones((2, 3), dtype=int))
    with pytest.raises(ValueError, match="and 1 names"):
        figures.confusion(np.ones((2, 2), dtype=int), ["a"])


def test_an_interval_that_reaches_zero_leaves_the_axis_logarithmic():
    frame = pd.DataFrame(
        {"condition": [0, 8], "error": [1.0, 50.0], "low": [0.0, 49.0], "high": [9.0, 51.0]}
    )
    axes = figures.error_curve(frame, "clutter").axes[0]
    assert axes.get_yscale() == "log" and axes.get_ylim()[0] == pytest.approx(0.4)


def test_many_models_stay_apart_in_grey():
    shapes = [
        (line["marker"], str(line["linestyle"]), line.get("markerfacecolor"))
        for line in style.lines(30)
    ]
    assert len(set(shapes)) == 30


def test_bounds_of_several_models_are_cut_to_what_can_be_told_apart():
    steps = np.arange(100, 2100, 100)
    frames = {
        name: pd.DataFrame({"step": steps, "validation_bound": end + 60 * np.exp(-steps / 150)})
        for name, end in (("a", 85), ("b", 90))
    }
    figure = figures.bound_curves(frames, {"paper": 80.97})
    low, high = figure.axes[0].get_ylim()
    assert (
        low < 80.97
        and 90 < high < 100
        and [text.get_text() for text in figure.legends[0].get_texts()] == ["a", "b"]
    )
    with pytest.raises(ValueError, match="nothing to plot"):
        figures.bound_curves({"a": frames["a"].assign(validation_bound=np.nan)})


def test_kl_of_several_models_names_the_sum():
    figure = figures.kl_lines({"a": [3.0, 2.0], "b": [1.0, 1.0, 1.0]})
    assert [text.get_text() for text in figure.legends[0].get_texts()] == [
        "a, 5.0 nats in all",
        "b, 3.0 nats in all",
    ]
    with pytest.raises(ValueError, match="nothing to plot"):
        figures.kl_lines({"a": []})
