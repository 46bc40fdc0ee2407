"""The figures of classifiers and of sets of runs: what they draw where it can be wrong, and that
files are small, whole and the same each time.
"""

import io
import os
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import matplotlib
import numpy as np
import pandas as pd
import pytest
import torch
from example_runs import curve, finished_run
from matplotlib.collections import LineCollection
from matplotlib.text import Text
from PIL import Image

from drawbench import attention, figures, files, records
from drawbench.attention import Window
from drawbench.errors import Problem
from drawbench.figures import results, style
from drawbench.figures.glimpses import patch_pictures
from drawbench.figures.windows import line_width, visible_sides

PATCH = 4


def window_at(centre_x=10.5, centre_y=10.5, variance=1.0, stride=2.0) -> Window:
    fields = (centre_x, centre_y, variance, stride, 1.0)
    return Window(*(torch.tensor([float(field)]) for field in fields))


def bars(count: int = 3, height: int = 20, width: int = 20) -> torch.Tensor:
    """uint8 (count, H, W): a bright bar on black, elsewhere in each."""
    images = torch.zeros(count, height, width, dtype=torch.uint8)
    for n in range(count):
        images[n, 4 + n % 5 : 12, 3 + n % 7 : 6 + n % 7] = 200
    return images


def looks(images: torch.Tensor, steps: int = 3, classes: int = 10) -> tuple:
    """Logits, patches and outlines: windows that wander and shrink, the first far outside."""
    count, (height, width) = len(images), images.shape[-2:]
    scales = torch.tensor([1.0, 1.0, 2.0, 1.0, 0.5])
    numbers = torch.sin(1.7 * torch.arange(count * steps * 5.0)).view(count, steps, 5) * scales
    numbers[0, 0, 0] = 40.0
    windows = attention.window(numbers, height, width, PATCH)
    pixels = (images[:, None] if images.ndim == 3 else images).float() / 255
    at = [Window(*(field[:, t] for field in windows)) for t in range(steps)]
    patches = torch.stack([attention.read(pixels, window, PATCH) for window in at], dim=1)
    logits = 3 * torch.cos(0.9 * torch.arange(float(count * steps * classes)))
    where = figures.window_outlines(windows, PATCH)
    return logits.view(count, steps, classes), patches, where


def paths_of(images, labels, names=None):
    return figures.glimpse_paths(images, labels, *looks(images), names)


def metrics(rows: int = 6) -> pd.DataFrame:
    number = np.arange(1, rows + 1)
    frame = {"step": 10 * number, "images_seen": 1000 * number, "train_loss": 2.0 / number}
    frame |= {"train_error": 80.0 / number, "validation_error": 60.0 / number}
    return pd.DataFrame(frame | {"learning_rate": 1e-3 * np.linspace(1, 0, rows)})


def errors() -> pd.DataFrame:
    """Two models, the first with two seeds."""
    seeds = (("a", "draw", 0, 0.0), ("a", "draw", 1, 0.5), ("b", "conv6", 0, 2.0))
    rows = [
        (name, model, seed, c, 2 + c / 4 + more, 1.5 + c / 4 + more, 3 + c / 4 + more)
        for name, model, seed, more in seeds
        for c in (0, 4, 8, 16)
    ]
    columns = ["name", "model", "seed", "condition", "error", "low", "high"]
    return pd.DataFrame(rows, columns=columns)


def every_figure() -> dict:
    """One of each, by name."""
    images = bars()
    return {
        "learning": lambda: figures.learning_curves(metrics(), {"chance": 90.0, "paper": 3.36}),
        "montage": lambda: figures.montage(images, [1, 2, 3]),
        "paths": lambda: paths_of(images, torch.tensor([1, 2, 3]))[0],
        "attention": lambda: figures.attention_explained(images[0], window_at(), 5),
        "error": lambda: figures.error_curve(errors(), "clutter", trained_at=8, notes=["a: note"]),
        "confusion": lambda: figures.confusion(90 * np.eye(10, dtype=int) + 1),
        "confusion without errors": lambda: figures.confusion(np.diag([5, 0, 7])),
    }


def frames_of(path) -> tuple[list[int], list[np.ndarray]]:
    """Milliseconds and RGB pixels of each frame."""
    durations, pages = [], []
    with Image.open(path) as animation:
        assert animation.info["loop"] == 0
        for frame in range(animation.n_frames):
            animation.seek(frame)
            durations.append(animation.info["duration"])
            pages.append(np.asarray(animation.convert("RGB")))
    return durations, pages


# --- files ---


def test_vector_formats_are_the_same_each_time(tmp_path):
    make = every_figure()["error"]
    first = figures.save(make(), tmp_path, "first", formats=("pdf", "svg"))
    second = figures.save(make(), tmp_path, "second", formats=("pdf", "svg"))
    assert [path.suffix for path in first] == [".pdf", ".svg"]
    for one, other in zip(first, second, strict=True):
        assert one.read_bytes() == other.read_bytes()
    assert b"CreationDate" not in first[0].read_bytes()


def test_a_large_png_is_reduced_to_a_palette(tmp_path):
    random = torch.Generator().manual_seed(0)
    noise = torch.randint(0, 256, (64, 60, 60), generator=random, dtype=torch.uint8)
    (path,) = figures.save(figures.montage(noise), tmp_path, "noise")
    with Image.open(path) as picture:
        assert picture.mode == "P"
    assert path.stat().st_size < 2_000_000  # noise; data sets take far less


def test_a_failed_write_keeps_the_old_file(tmp_path, monkeypatch):
    (tmp_path / "figure.png").write_bytes(b"old")
    monkeypatch.setattr(files.os, "replace", lambda *_: (_ for _ in ()).throw(OSError("disk full")))
    with pytest.raises(Problem, match="disk full"):
        figures.save(every_figure()["montage"](), tmp_path, "figure")
    assert [path.name for path in tmp_path.iterdir()] == ["figure.png"]
    assert (tmp_path / "figure.png").read_bytes() == b"old"


def test_no_global_state_is_left(tmp_path):
    before = dict(matplotlib.rcParams)
    pyplot_imported = "matplotlib.pyplot" in sys.modules
    for name, make in every_figure().items():
        figures.save(make(), tmp_path, name)
    assert dict(matplotlib.rcParams) == before
    assert ("matplotlib.pyplot" in sys.modules) == pyplot_imported


HOSTILE = """
backend: pdf
image.origin: lower
image.aspect: auto
savefig.bbox: tight
savefig.facecolor: yellow
savefig.format: pdf
savefig.transparent: True
font.family: serif
font.size: 30
text.usetex: True
text.color: red
axes.facecolor: black
axes.prop_cycle: cycler('color', ['m', 'c'])
axes.xmargin: 0.4
axes.formatter.useoffset: False
lines.linewidth: 9
lines.antialiased: False
path.sketch: 1, 100, 2
xtick.direction: in
legend.loc: center
figure.autolayout: True
figure.subplot.left: 0.4
mathtext.fontset: stix
errorbar.capsize: 9
"""


@pytest.mark.processes
def test_the_settings_of_the_user_change_nothing(tmp_path):
    """A matplotlibrc in the working folder, in a process of its own, at building and at saving."""
    (tmp_path / "matplotlibrc").write_text(HOSTILE)
    program = (
        "import test_figures as t, matplotlib; from drawbench import figures\n"
        "assert matplotlib.rcParams['image.origin'] == 'lower'\n"
        "for name, make in t.every_figure().items(): figures.save(make(), 'there', name)\n"
    )
    environment = os.environ | {"MPLBACKEND": "svg", "PYTHONPATH": str(Path(__file__).parent)}
    command = [sys.executable, "-c", program]
    subprocess.run(command, cwd=tmp_path, env=environment, check=True, timeout=300)
    for name, make in every_figure().items():
        (path,) = figures.save(make(), tmp_path / "here", name)
        assert path.read_bytes() == (tmp_path / "there" / path.name).read_bytes(), name


# --- windows: polygons in the coordinates of imshow ---


def test_corners_span_the_grid():
    # Centres at 6.5, 8.5, 10.5, 12.5, 14.5 numbered from 1, so 5.5 .. 13.5 from 0; rows 2 higher.
    corners = figures.window_corners(window_at(10.5, 8.5, stride=2.0), 5)[0]
    assert corners.tolist() == [[5.5, 11.5], [5.5, 3.5], [13.5, 3.5], [13.5, 11.5]]
    point = figures.window_corners(window_at(3.0, 4.0), 1)
    assert point.tolist() == [[[2.0, 3.0]] * 4]  # a single filter


@pytest.mark.parametrize("patch", [2, 3, 12])
@pytest.mark.parametrize(("height", "width"), [(20, 20), (15, 28)])
def test_the_starting_grid_covers_the_image_from_pixel_centre_to_pixel_centre(height, width, patch):
    corners = figures.window_corners(attention.window(torch.zeros(5), height, width, patch), patch)
    larger = max(height, width) - 1
    middle = [(width - 1) / 2, (height - 1) / 2]
    assert corners.mean(axis=0) == pytest.approx(middle, abs=1e-4)
    assert np.ptp(corners, axis=0) == pytest.approx([larger, larger], abs=1e-4)


def test_corners_frame_what_a_sharp_window_reads():
    image = torch.zeros(1, 1, 20, 20)
    image[0, 0, 6:9, 11:14] = 1  # rows 6..8, columns 11..13, numbered from 0
    window = window_at(13.0, 8.0, variance=1e-3, stride=1.0)
    assert attention.read(image, window, 3).min() == 1
    corners = figures.window_corners(window, 3)[0]
    assert [*corners.min(axis=0), *corners.max(axis=0)] == [11, 6, 13, 8]


VIEW = (-1.5, -1.5, 20.5, 20.5)


def box(left, top, right, bottom) -> np.ndarray:
    return np.array([(left, bottom), (left, top), (right, top), (right, bottom)], float)


def test_sides_beyond_the_view_lie_on_its_edge():
    sides, beyond = visible_sides(box(14, 5, 22, 13), VIEW)
    drawn = [[[14, 13], [14, 5]], [[14, 5], [20.5, 5]], [[20.5, 13], [14, 13]]]
    assert sorted(sides[~beyond].tolist()) == sorted(drawn)
    assert sides[beyond].tolist() == [[[20.5, 5], [20.5, 13]]]


def test_a_polygon_inside_the_view_is_itself_and_one_around_it_is_its_edge():
    tilted = np.array([(3, 9), (8, 2), (14, 6), (9, 13)], float)
    sides, beyond = visible_sides(tilted, VIEW)
    assert sides[:, 0].tolist() == tilted.tolist()
    assert not beyond.any()
    sides, beyond = visible_sides(box(-90, -90, 90, 90), VIEW)
    assert beyond.all()
    assert {tuple(point) for point in sides[:, 0]} == {tuple(p) for p in box(*VIEW)}


@pytest.mark.parametrize("turn", [0.0, 0.3, 1.1])
def test_clipping_keeps_the_area_in_view(turn):
    """Against a count of points of a fine grid that lie in both."""
    rotation = np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
    polygon = box(-9, -6, 9, 6) @ rotation.T + (17, 12)
    x, y = visible_sides(polygon, VIEW)[0][:, 0].T
    area = abs(np.sum(x * np.roll(y, -1) - y * np.roll(x, -1))) / 2
    axis = np.linspace(-1.5, 20.5, 441)
    points = (np.stack(np.meshgrid(axis, axis), -1) - (17, 12)) @ rotation
    inside = (np.abs(points[..., 0]) < 9) & (np.abs(points[..., 1]) < 6)
    assert area == pytest.approx(inside.mean() * 22**2, rel=0.01)


def test_a_polygon_outside_the_view_collapses_onto_its_edge():
    sides, beyond = visible_sides(box(100, 5, 110, 13), VIEW)
    assert beyond.all()
    assert set(sides[..., 0].ravel()) == {20.5}


def test_sharper_filters_have_thicker_borders():
    widths = [line_width(variance) for variance in (0.5, 1.0, 4.0, 20.0, 200.0)]
    assert widths == sorted(set(widths), reverse=True)
    assert line_width(1e-9) == 3.0
    assert line_width(1e9) == 0.5


def outlines_in(figure) -> list[np.ndarray]:
    """The sides of the outline on each image of a figure."""
    collections = [[c for c in a.collections if isinstance(c, LineCollection)] for a in figure.axes]
    return [np.array(lines[-1].get_segments()) for lines in collections if lines]


def test_paths_draw_each_window_where_it_was():
    images = bars(1)
    where = looks(images)[2]
    (figure,) = paths_of(images, [1])
    sides = outlines_in(figure)
    assert len(sides) == 3  # a panel per step
    for t in (1, 2):
        corners = np.clip(where.corners[0, t, 0], -0.5 - 1.2, 19.5 + 1.2)
        drawn = sides[t].reshape(-1, 2)
        expected = [*corners.min(axis=0), *corners.max(axis=0)]
        assert [*drawn.min(axis=0), *drawn.max(axis=0)] == pytest.approx(expected)


def test_any_outline_is_drawn_at_every_scale(tmp_path):
    """Tilted, at two scales whose patches lie side by side, without filters."""
    images = bars(2)
    tilted = np.array([(3, 9), (8, 2), (14, 6), (9, 13)], float)
    corners = np.broadcast_to(np.stack([tilted, tilted / 2]), (2, 3, 2, 4, 2))
    logits, patches, _ = looks(images)
    where = figures.outlines(corners)
    facts = (images, [1, 2], logits, torch.cat([patches, patches], dim=2), where)
    (figure,) = figures.glimpse_paths(*facts)
    assert {len(sides) for sides in outlines_in(figure)} == {8}
    assert figure.axes[1].images[0].get_array().shape[:2] == (PATCH, 2 * PATCH)
    figures.glimpse_animation(tmp_path / "glimpses.gif", *facts)
    with pytest.raises(ValueError, match=r"\(B, T, 4, 2\) or .* got \(2, 4, 2\)"):
        figures.outlines(corners[0, 0])


# --- contents ---


@pytest.mark.parametrize(("count", "sheets"), [(1, 1), (4, 1), (5, 2), (8, 2)])
def test_sheets_hold_all_images(count, sheets):
    pages = paths_of(bars(count), torch.arange(count))
    assert len(pages) == sheets
    assert sum(len(figure.axes) for figure in pages) == 3 * 3 * count


def test_colour_and_oblong_images_are_drawn(tmp_path):
    images = torch.stack([bars(2, 14, 22)] * 3, dim=1)
    (sheet,) = paths_of(images, [1, 2], names=[f"class ${n}" for n in range(10)])
    figures.save(sheet, tmp_path, "sheet")
    labels = [[1, 2], [3, 4]]
    figures.save(figures.montage(images.movedim(1, -1), labels), tmp_path, "montage")
    explained = figures.attention_explained(images[0].float() / 255, window_at(), 3)
    figures.save(explained, tmp_path, "attention")
    figures.glimpse_animation(tmp_path / "glimpses.gif", images, [1, 2], *looks(images))


def test_probabilities_and_verdicts_are_those_of_the_logits():
    images = bars(1)
    logits = looks(images)[0][0, -1]
    guess, probabilities = logits.argmax().item(), logits.softmax(-1)
    for label, mark in ((guess, "\N{CHECK MARK}"), ((guess + 1) % 10, "\N{BALLOT X}")):
        (figure,) = paths_of(images, [label])
        panel = figure.axes[-1]
        heights = [bar.get_height() for bar in panel.patches]
        assert heights == pytest.approx(probabilities.tolist(), abs=1e-6)
        assert panel.get_title() == f"{guess} {mark} {100 * probabilities.max():.0f}%"
        assert [text.get_text() for text in panel.texts] == [str(label)]


def test_a_patch_is_scaled_to_its_brightest_pixel_and_scales_lie_side_by_side():
    patch = np.array([[[0.0, 0.1], [0.2, 0.05]]])
    assert patch_pictures(patch, 1)[..., 0] == pytest.approx(np.array([[0.0, 0.5], [1.0, 0.25]]))
    assert not patch_pictures(np.zeros((1, 2, 2)), 1).any()
    colour = patch_pictures(np.arange(24.0).reshape(6, 2, 2), 3)  # two scales of three channels
    assert colour.shape == (2, 4, 3)
    assert (23 * colour[0, 2]).tolist() == pytest.approx([12, 16, 20])


def test_the_glimpse_animation_has_a_frame_per_glimpse(tmp_path):
    images = bars(5)

    def animate(path: Path) -> Path:
        facts = (images, torch.arange(5), *looks(images, steps=4))
        return figures.glimpse_animation(path, *facts)

    path = animate(tmp_path / "new" / "glimpses.gif")
    first, (durations, pages) = path.read_bytes(), frames_of(path)
    assert durations == [700, 700, 700, 2800]  # time to look at the answer
    assert all((one != other).any() for one, other in pairwise(pages))
    assert len(first) <= 500_000
    assert animate(path).read_bytes() == first


def test_the_glimpse_animation_keeps_its_colours(tmp_path):
    """A palette fitted to the pixels loses the few red ones."""
    images = bars(2)
    logits, *rest = looks(images, steps=1)
    right, wrong = logits[0, 0].argmax().item(), (logits[1, 0].argmax().item() + 1) % 10
    path = figures.glimpse_animation(tmp_path / "g.gif", images, [right, wrong], logits, *rest)
    with Image.open(path) as animation:
        colours = {colour for _, colour in animation.convert("RGB").getcolors(100_000)}
    for name in (style.BLUE, style.RED, style.WINDOW):
        assert tuple(int(name[i : i + 2], 16) for i in (1, 3, 5)) in colours


def test_learning_curves_show_the_numbers_passed():
    frame = metrics()
    frame.loc[2, "validation_error"] = np.nan  # not every row has been evaluated
    loss, rate, error = figures.learning_curves(frame, {"chance": 90.0}).axes
    names = ("train_loss", "learning_rate", "train_error", "validation_error")
    for line, name in zip([*loss.lines, *rate.lines, *error.lines], names, strict=False):
        assert line.get_ydata().tolist() == frame[name].dropna().tolist()
    assert error.lines[1].get_xdata()[-1] == 6.0  # thousands
    assert "thousands" in error.get_xlabel()
    assert error.get_yscale() == "log"
    assert error.get_title("right").endswith("best: 10.00%")
    assert [text.get_text() for text in error.texts] == ["chance: 90%"]
    older = figures.learning_curves(frame.drop(columns="train_error"), {}).axes[2]
    assert older.get_legend() is None


def test_no_curve_ends_in_a_mean_over_few_updates():
    frame = metrics()
    frame.loc[5, "images_seen"] = 5010
    loss, _, error = figures.learning_curves(frame, {}).axes
    ends = [line.get_ydata().tolist() for line in (loss.lines[0], *error.lines[:2])]
    train, wrong, valid = frame["train_loss"], frame["train_error"], frame["validation_error"]
    assert ends == [train[:5].tolist(), wrong[:5].tolist(), valid.tolist()]


@pytest.mark.parametrize("values", [[0.0, 50.0], [np.nan, np.nan], [3.0, 3.0]])
def test_learning_curves_of_awkward_runs(values, tmp_path):
    frame = metrics(2).assign(validation_error=values, train_error=values)
    figure = figures.learning_curves(frame, {})
    figures.save(figure, tmp_path, "curve")
    assert figure.axes[2].get_yscale() == "linear"


def test_the_name_of_a_line_at_the_top_does_not_meet_the_title():
    frame = metrics().assign(validation_error=np.linspace(75, 12, 6), train_error=75.0)
    error = figures.learning_curves(frame, {"chance": 90.0}).axes[2]
    assert error.get_ylim()[1] < 100  # so that there is no room above the line
    (name,) = error.texts
    assert name.get_window_extent().y1 <= error.get_window_extent().y1


def test_the_mark_of_training_is_whole_without_a_title_beside_it():
    figure = figures.error_curve(errors().query("name == 'b'").drop(columns="name"), "x", 8)
    (mark,) = figure.axes[0].texts
    assert mark.get_text() == "as trained"
    assert mark.get_window_extent().y1 <= figure.bbox.y1


def texts(axes) -> list[str]:
    return [text.get_text() for text in axes.texts]


def test_error_curves_are_means_over_seeds_with_the_seeds_beside_them():
    (axes,) = figures.error_curve(errors(), "clutter pieces", trained_at=8).axes
    assert any(list(line.get_xdata()) == [8, 8] for line in axes.lines)
    assert texts(axes) == ["a", "b", "as trained"]
    assert axes.get_xlabel() == "clutter pieces"
    points, mean = axes.lines[:2]
    assert points.get_linestyle() == "None"
    assert sorted(points.get_ydata()) == sorted(errors().query("name == 'a'")["error"])
    assert list(mean.get_ydata()) == pytest.approx([2.25, 3.25, 4.25, 6.25])
    assert {line.get_color() for line in axes.lines[:2]} == {style.BLUE}  # of draw, everywhere
    (alone,) = figures.error_curve(errors().query("name == 'b'").drop(columns="name"), "x").axes
    assert len(alone.collections) == 1  # the intervals of a single seed
    assert texts(alone) == []


def test_error_curves_in_two_panels_share_their_scale_and_their_styles():
    frame = errors().assign(panel=lambda f: np.where(f["name"] == "a", "main", "others"))
    left, right = figures.error_curve(frame, "clutter").axes
    assert (left.get_title("left"), right.get_title("left")) == ("main", "others")
    assert left.get_ylim() == right.get_ylim()


def test_an_interval_that_reaches_zero_leaves_the_axis_logarithmic():
    numbers = {"condition": [0, 8], "error": [1.0, 50.0], "low": [0.0, 49.0], "high": [9.0, 51.0]}
    (axes,) = figures.error_curve(pd.DataFrame(numbers), "clutter").axes
    assert axes.get_yscale() == "log"
    assert axes.get_ylim()[0] == pytest.approx(0.8)


def test_each_model_keeps_its_colour_and_curves_stay_apart_in_grey():
    styles = style.looks(["draw", "conv6", "draw", "mine", "yours", "draw"])
    assert [s["color"] for s in styles if s["color"] == style.BLUE] == [style.BLUE] * 3
    assert styles[0] == style.looks(["conv6", "draw"])[1]
    assert len({s["color"] for s in styles}) == 4
    many = style.looks(["draw"] * 6)
    assert len({(str(s["linestyle"]), s["marker"]) for s in many}) == 6


def test_labels_at_curve_ends_do_not_overlap():
    steps = {f"model {n}": [3.0, 2.0 + 0.001 * n] for n in range(5)}
    figure = figures.kl_lines(steps, list(steps))
    figure.draw_without_rendering()  # or texts have the extent of an earlier drawing
    heights = sorted(Text.get_window_extent(text).y0 for text in figure.axes[0].texts)
    gaps = [high - low for low, high in pairwise(heights)]
    assert min(gaps) * 72 / figure.dpi > 7


def test_labels_are_in_the_margin_and_lines_lead_to_ends_that_are_not_beside_them():
    long, short = (
        pd.DataFrame({"step": [1, 2, n], "validation_bound": [9, 4, end]})
        for n, end in ((99, 3.4), (3, 3.0))
    )
    frames, references = {"one with a long name": long, "b": short}, {"paper": 2.0}
    (axes,) = figures.bound_curves(frames, references, ["draw", "vae"]).axes
    axes.get_figure().draw_without_rendering()
    right, labels = axes.get_window_extent().x1, {text.get_text(): text for text in axes.texts}
    spans = {name: Text.get_window_extent(text) for name, text in labels.items()}
    assert min(span.x0 for span in spans.values()) > right
    assert spans["paper: 2.00"].y0 < spans["b"].y0 < spans["one with a long name"].y0
    led_to = {name: text.arrow_patch.get_visible() for name, text in labels.items()}
    assert led_to == {"one with a long name": True, "b": True, "paper: 2.00": False}


def test_confusion_shades_errors_only():
    matrix = 900 * np.eye(3, dtype=int)
    matrix[0, 2] = 100
    axes = figures.confusion(matrix, ["a", "b", "c"]).axes[0]
    shades = np.ma.filled(axes.images[0].get_array().astype(float), np.nan)
    assert np.isnan(np.diagonal(shades)).all()
    assert shades[0, 2] == pytest.approx(10.0)
    assert "100 errors in 2800 images" in axes.get_title()
    cells = {tuple(text.get_position()): text.get_text() for text in axes.texts}
    right = dict.fromkeys([(1, 1), (2, 2)], "900\n100.0%")
    assert cells == {(0, 0): "900\n90.0%", (2, 0): "100\n10.0%"} | right


def test_bounds_are_cut_to_what_can_be_told_apart():
    steps = np.arange(100, 2100, 100)
    frames = {
        name: pd.DataFrame({"step": steps, "validation_bound": end + 60 * np.exp(-steps / 150)})
        for name, end in (("a", 85), ("b", 90))
    }
    (axes,) = figures.bound_curves(frames, {"paper": 80.97}, ["draw", "vae"]).axes
    low, high = axes.get_ylim()
    assert low < 80.97 and 90 < high < 100
    assert texts(axes) == ["a", "b", "paper: 80.97"]
    assert all(tick == int(tick) for tick in axes.get_xticks())


def test_errors_against_images_skip_what_a_log_axis_cannot_show():
    seen = np.array([1e5, 2e5, 4e5])
    frame = pd.DataFrame({"images_seen": seen, "validation_error": [20.0, 10.0, 0.0]})
    other = frame.assign(validation_error=[30.0, np.nan, 5.0])
    perfect = frame.assign(validation_error=0.0)
    (axes,) = figures.error_against_images({"a": [frame, other, perfect]}, ["draw"]).axes
    first, second = axes.lines
    assert first.get_xydata().tolist() == [[0.1, 20.0], [0.2, 10.0]]
    assert second.get_xydata().tolist() == [[0.1, 30.0], [0.4, 5.0]]
    assert second.get_color() == first.get_color() and second.get_alpha() < 1
    assert texts(axes) == ["a"]


def test_a_long_name_at_the_end_of_a_curve_is_not_cut_off():
    name = "draw without attention, 64 steps (b)"
    picture = style.as_bytes(figures.kl_lines({name: [1.0] * 64}, ["draw"]), "png")
    with Image.open(io.BytesIO(picture)) as image:
        dark = np.flatnonzero((np.asarray(image.convert("L")) < 200).any(axis=0))
    assert dark.max() < image.width - 4


def test_kl_of_several_models_names_the_sum():
    (axes,) = figures.kl_lines({"a": [3.0, 2.0], "b": [1.0, 1.0, 1.0]}, ["draw", "vae"]).axes
    assert texts(axes) == ["a: 5.0 nats", "b: 3.0 nats"]


NOTHING = pd.DataFrame({"step": [1], "validation_bound": [np.nan]})


@pytest.mark.parametrize(
    ("draw", "message"),
    [
        (lambda: figures.learning_curves(metrics(0), {}), "no rows yet"),
        (lambda: figures.error_curve(errors().iloc[:0], "clutter"), "no rows"),
        (lambda: figures.confusion(np.ones((2, 3), int)), r"shape \(2, 3\) and 2 names"),
        (lambda: figures.confusion(np.ones((2, 2), int), ["a"]), "and 1 names"),
        (lambda: figures.kl_lines({"a": []}, ["draw"]), "nothing to plot"),
        (lambda: figures.bound_curves({"a": NOTHING}, {}, ["draw"]), "nothing to plot"),
        (lambda: figures.save(figures.montage(bars()), ".", "x", ("bmp",)), "png, pdf, svg"),
    ],
)
def test_what_cannot_be_drawn_is_named(draw, message):
    with pytest.raises(ValueError, match=message):
        draw()


# --- figures of finished runs ---


def test_the_main_panel_has_the_best_run_of_each_model(tmp_path):
    """Seven runs of four models; names are the users' own, dollars and all."""
    values = {"draw": (4.0, 5.0, 6.0), "fixed": (15.0,), "conv6": (1.5,), "ram": (9.0, 10.0)}
    for model, numbers in values.items():
        for number, value in enumerate(numbers):
            result = {"model": model, "value": value, "low": value - 1, "high": value + 1}
            result["glimpses"] = None if model == "conv6" else 8
            rate = 0.001 * (number + 1)
            folder = finished_run(tmp_path / f"{model}$-{number}", result, learning_rate=rate)
            curve(folder, "clutter", {0: value / 2, 8: value})
    runs = records.find([tmp_path], print)
    (named,) = results.make(runs, print)
    assert named.name == "error_against_clutter"
    main, others = named.figure.axes
    first = [text.split(" (")[0] for text in texts(main)[:3]]
    assert first == ["conv6", "draw, 8 glimpses", "fixed, 8 glimpses"]  # ordered by error
    assert len(texts(others)) - 1 == 4
    figures.save(named.figure, tmp_path / "figures", "errors")


def test_a_picture_of_a_run_that_cannot_be_read_is_skipped(tmp_path):
    folder = finished_run(tmp_path / "run", {"task": "generate"})
    (folder / "figures" / "samples.png").write_bytes(b"\x89PNG and no more")
    messages: list[str] = []
    figures_made = results.make(records.find([tmp_path], print), messages.append)
    assert [named.name for named in figures_made] == ["kl_per_step"]
    assert "samples.png" in messages[0]
