"""The figures and animations of generators: what they show where it can be wrong, their sizes, and
that they are the same each time. Then the pictures of a run, for models that lack this or that.
"""

import itertools
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import test_figures
import torch
from matplotlib.collections import LineCollection, QuadMesh
from PIL import Image
from test_figures import frames_of, window_at
from torch import Tensor, nn

from drawbench import attention, figures
from drawbench.attention import Window
from drawbench.data.dataset import Dataset
from drawbench.evaluation import drawings
from drawbench.figures import animations
from drawbench.figures.style import GREEN, RED
from drawbench.figures.windows import Outlines
from drawbench.models.cnn import Answer
from drawbench.models.draw import Draw
from drawbench.models.glimpse import GlimpseClassifier
from drawbench.models.vae import VAE
from drawbench.tasks import pictures


def spots(count: int = 3, channels: int = 1, height: int = 12, width: int = 12) -> Tensor:
    """(count, channels, height, width): a soft spot, elsewhere in each and in each channel."""
    y, x = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    images = [
        torch.exp(-((x - 2 - n % 7) ** 2 + (y - 3 - c - n % 5) ** 2) / 8.0)
        for n in range(count)
        for c in range(channels)
    ]
    return torch.stack(images).view(count, channels, height, width)


def windows(count: int, steps: int, height: int = 12, width: int = 12, patch: int = 3) -> Outlines:
    """Windows that wander and shrink, the first far outside."""
    scales = torch.tensor([0.8, 0.8, 1.0, 0.7, 0.3])
    numbers = torch.sin(1.7 * torch.arange(count * steps * 5.0)).view(count, steps, 5) * scales
    numbers[0, 0, 0] = 40.0
    where = figures.window_outlines(attention.window(numbers, height, width, patch), patch)
    assert where is not None
    return where


def canvases(
    count: int = 3, steps: int = 5, channels: int = 1, height: int = 12, width: int = 12
) -> Tensor:
    """(count, steps, channels, height, width): from grey to the pictures."""
    share = torch.linspace(0, 1, steps + 1)[1:].view(1, -1, 1, 1, 1)
    return 0.3 * (1 - share) + share * spots(count, channels, height, width)[:, None]


def metrics(rows: int = 8, steps: int = 4) -> pd.DataFrame:
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
    images, frames, where = spots(7), canvases(2, 5), windows(2, 5)
    return {
        "steps": lambda: figures.steps_panel(frames, where),
        "steps-without-windows": lambda: figures.steps_panel(frames),
        "samples": lambda: figures.sample_sheet(images),
        "nearest": lambda: figures.sample_sheet(images, images.flip(0)),
        "reconstructions": lambda: figures.reconstruction_panel(images, 0.5 * images),
        "interpolation": lambda: figures.interpolation_panel(images[:6].view(2, 3, 1, 12, 12)),
        "kl-map": lambda: figures.kl_map(metrics()),
        "kl-bars": lambda: figures.kl_per_step_bars([1.0, 2.5, 0.5]),
        "curve": lambda: figures.generator_curve(metrics(), {"paper": 80.97}),
    }


EVERY = test_figures.every_figure() | every_figure()  # those of classifiers too


def has(page: np.ndarray, colour: str) -> bool:
    """Whether a colour is on the page, below the line that explains the colours."""
    wanted = [int(colour[i : i + 2], 16) for i in (1, 3, 5)]
    return bool((page[animations._HEAD :] == wanted).all(-1).any())


# --- figures ---


@pytest.mark.parametrize("name", EVERY)
def test_every_figure_is_small_whole_and_the_same_each_time(name, tmp_path):
    figure = EVERY[name]()
    (first,) = figures.save(figure, tmp_path / "new" / "folder", name)
    (second,) = figures.save(figure, tmp_path, "second")
    (remade,) = figures.save(EVERY[name](), tmp_path, "remade")
    assert first == tmp_path / "new" / "folder" / f"{name}.png"
    assert first.read_bytes() == second.read_bytes() == remade.read_bytes()
    assert first.stat().st_size <= 500_000
    with Image.open(first) as picture:
        assert "Software" not in picture.info
        assert len(np.unique(np.asarray(picture))) > 2  # something is drawn
    names = sorted(path.name for path in tmp_path.iterdir())
    assert names == ["new", "remade.png", "second.png"]  # no temporary file stays
    assert figure.get_figwidth() <= 6.76
    assert figure.get_figheight() <= 9.01
    if name not in every_figure():
        return
    texts = list(figure.texts)
    for axes in figure.axes:
        texts += [*axes.texts, axes.title, axes.xaxis.label, axes.yaxis.label]
    for text in texts:
        if text.get_text():  # none is cut off
            box = text.get_window_extent()
            assert figure.bbox.x0 - 1 <= box.x0 <= box.x1 <= figure.bbox.x1 + 1, text.get_text()
            assert figure.bbox.y0 - 1 <= box.y0 <= box.y1 <= figure.bbox.y1 + 1, text.get_text()


@pytest.mark.parametrize("size", [(1, 1, 12, 12), (1, 3, 60, 60), (3, 3, 14, 22)])
def test_any_size_is_drawn(size, tmp_path):
    images = spots(*size)
    where = windows(size[0], 1, *size[2:])
    for figure in (
        figures.sample_sheet(images),
        figures.sample_sheet(images, images),
        figures.reconstruction_panel(images, images),
        figures.interpolation_panel(torch.stack([images, images], 1)),
        figures.steps_panel(images[:, None], where),
    ):
        figures.save(figure, tmp_path, "any")


@pytest.mark.parametrize(("steps", "shown"), [(64, range(1, 65, 7)), (3, [1, 2, 3]), (1, [1])])
def test_steps_are_spread_from_the_first_to_the_last(steps, shown):
    figure = figures.steps_panel(canvases(2, steps))
    assert len(figure.axes) == 2 * len(shown)
    titles = [axes.get_title() for axes in figure.axes]
    assert titles == [f"step {shown[0]}", *map(str, shown[1:])] + [""] * len(shown)


def test_steps_show_each_canvas_with_its_own_window():
    frames, where = canvases(2, 19), windows(2, 19)
    figure = figures.steps_panel(frames, where)
    left, top, right, bottom = animations.view_of(12, 12)
    shown = itertools.product((0, 1), range(0, 19, 2))
    for axes, (n, t) in zip(figure.axes, shown, strict=True):
        assert axes.images[0].get_array().tolist() == frames[n, t, 0].tolist()
        lines = [c for c in axes.collections if isinstance(c, LineCollection)][-1]
        drawn = np.concatenate(lines.get_segments())
        corners = np.clip(where.corners[n, t, 0], (left, top), (right, bottom))
        expected = [*corners.min(axis=0), *corners.max(axis=0)]
        assert [*drawn.min(0), *drawn.max(0)] == pytest.approx(expected, abs=1e-5)


def test_sheets_put_every_sample_beside_its_nearest():
    images = spots(7)
    (alone,) = figures.sample_sheet(images).axes
    (paired,) = (figure := figures.sample_sheet(images, 0.5 * images)).axes
    assert len(alone.patches) == 0
    assert len(paired.patches) == 7  # a frame per training image, none for empty places
    assert "nearest" in figure.texts[0].get_text()
    whole = paired.images[0].get_array()
    for n, frame in enumerate(paired.patches):
        left, top = (round(value + 0.3) for value in frame.get_xy())
        left += (whole[top + 6, left] == 1).all()  # a frame may be less than a pixel wide
        inside = whole[top : top + 12, left : left + 12, 0]
        assert inside.max() == pytest.approx(0.5 * images[n].max().item(), abs=1e-3)


def test_a_sheet_keeps_the_order_and_every_pixel():
    images = spots(5, 3)
    whole = np.asarray(figures.sample_sheet(images).axes[0].images[0].get_array())
    assert whole.shape == (2 * 13 + 1, 3 * 13 + 1, 3)
    for n in range(5):
        top, left = 1 + n // 3 * 13, 1 + n % 3 * 13
        cell = whole[top : top + 12, left : left + 12]
        assert cell.tolist() == images[n].movedim(0, -1).tolist()
    assert (whole[14:26, 27:39] == 1).all()  # the empty place is white


def test_reconstructions_lie_below_their_images():
    images = spots(9)
    (axes,) = figures.reconstruction_panel(images, 0.5 * images).axes
    assert [text.get_text() for text in axes.texts] == ["image", "drawing"] * 2
    whole = np.asarray(axes.images[0].get_array())[..., 0]
    assert whole[1:13, 1:13].tolist() == images[0, 0].tolist()
    assert whole[14:26, 1:13].tolist() == (0.5 * images[0, 0]).tolist()


def test_an_interpolation_frames_its_ends():
    figure = figures.interpolation_panel(spots(8).view(2, 4, 1, 12, 12))
    assert len(figure.axes[0].patches) == 4
    assert "two images" in figure.texts[0].get_text()


@pytest.mark.parametrize(("rows", "steps"), [(8, 4), (8, 1), (1, 64)])
def test_the_map_has_a_row_per_step_and_a_column_per_evaluation(rows, steps):
    frame = metrics(rows, steps)
    axes, bar = figures.kl_map(frame.sample(frac=1, random_state=0)).axes
    (mesh,) = (c for c in axes.collections if isinstance(c, QuadMesh))
    assert mesh.get_array().shape == (steps, rows)
    assert mesh.get_array()[-1].tolist() == frame[f"kl_{steps}"].tolist()
    assert axes.get_ylim() == (0.5, steps + 0.5)
    assert "nats" in bar.get_ylabel()
    assert "updates" in axes.get_xlabel()


def test_the_map_skips_what_is_missing_and_takes_the_later_of_two():
    frame = pd.concat([metrics(3), metrics(3).iloc[[1]].assign(kl_1=7.0)])
    frame.iloc[0, frame.columns.get_loc("kl_2")] = np.nan
    (mesh,) = (c for c in figures.kl_map(frame).axes[0].collections if isinstance(c, QuadMesh))
    assert mesh.get_array().shape == (4, 2)
    assert mesh.get_array()[0, 0] == 7.0


def test_an_early_burst_does_not_take_all_shades():
    frame = metrics(20)
    frame.loc[0, "kl_1"] = 900.0
    figure = figures.kl_map(frame)
    assert figure.axes[0].collections[0].norm.vmax == pytest.approx(frame["kl_4"].max())


def test_bars_name_their_sum():
    axes = figures.kl_per_step_bars(torch.tensor([1.0, 2.5, 0.5])).axes[0]
    assert [bar.get_height() for bar in axes.patches] == [1.0, 2.5, 0.5]
    assert axes.get_title("right") == "all steps: 4.00 nats"
    assert len(figures.kl_per_step_bars([1.0]).axes[0].patches) == 1


def test_the_curve_shows_the_end_of_training_and_all_of_the_kl():
    frame = metrics(20)
    frame.loc[4, "train_bound"] = np.nan
    bound, reconstruction, kl = figures.generator_curve(frame, {"paper": 75.0}).axes
    assert bound.lines[0].get_ydata().tolist() == frame["train_bound"].dropna().tolist()
    assert bound.lines[1].get_ydata().tolist() == frame["validation_bound"].tolist()
    low, high = bound.get_ylim()
    assert low < 75.0  # the reference is visible
    assert 90 < high < 110  # the start, at 380, is not
    assert reconstruction.get_ylim()[1] < 110
    assert kl.get_ylim()[0] == 0
    assert kl.get_ylim()[1] > 1.05 * frame["validation_kl"].max()
    assert bound.get_title("right").endswith(f"best: {frame['validation_bound'].min():.2f} nats")
    names = [text.get_text() for text in bound.get_legend().get_texts()]
    assert names == ["training", "validation"]
    assert [text.get_text() for text in bound.texts] == ["paper: 75 nats"]


@pytest.mark.parametrize(
    "awkward", [{"rows": 1}, {"validation_bound": np.nan}, {"train_bound": np.nan}]
)
def test_curves_of_awkward_runs(awkward):
    frame = metrics(awkward.get("rows", 6)).assign(**awkward)
    for axes in figures.generator_curve(frame, {"paper": 80.97}).axes:
        assert axes.get_xlim()[0] == 0
        assert axes.get_xlim()[1] * 1000 >= frame["images_seen"].max()


# --- animations ---


def test_an_animation_has_a_frame_per_step_and_a_long_last_one_without_windows(tmp_path):
    def animate():
        path = tmp_path / "new" / "drawing.gif"
        facts = (canvases(3, 15), windows(3, 15))
        return figures.drawing_animation(path, *facts)

    path = animate()
    first = path.read_bytes()
    durations, pages = frames_of(path)
    assert durations == [400] * 15 + [2000]
    assert [has(page, RED) for page in pages] == [True] * 15 + [False]
    assert animate().read_bytes() == first
    assert len(first) <= 500_000


def test_an_animation_without_windows_ends_with_its_last_step(tmp_path):
    path = figures.drawing_animation(tmp_path / "drawing.gif", canvases(2, 4))
    durations, pages = frames_of(path)
    assert durations == [500, 500, 500, 2000]
    assert not any(has(page, RED) for page in pages)


def test_the_last_frame_holds_the_pictures(tmp_path):
    """Each pixel as a square, in greys no farther than a shade from the true ones."""
    frames, where = canvases(1, 3), windows(1, 3)
    page = frames_of(figures.drawing_animation(tmp_path / "drawing.gif", frames, where))[1][-1]
    part = animations._Side(frames.movedim(2, -1).numpy(), where, RED, "writes")
    scale = round(360 / 12)
    ((x, y),) = animations._DrawingStage([part], 1, scale, 32).corners
    cell = page[y : y + 12 * scale, x : x + 12 * scale, 0].reshape(12, scale, 12, scale)
    assert (cell == cell[:, :1, :, :1]).all()
    assert np.abs(cell[:, 0, :, 0] / 255 - frames[0, -1, 0].numpy()).max() < 0.6 / 31


def outline(window: Window, patch: int, size: int = 140, scale: float = 10.0) -> np.ndarray:
    """The page with the outline of one window, on a picture of 12x12 pixels at (5, 4)."""
    page = np.zeros((size, size), np.uint8)
    where = figures.window_outlines(Window(*(f[None] for f in window)), patch)
    assert where is not None
    view = animations.view_of(12, 12)
    animations._draw_outline(page, *where.at(0, 0), view, (5, 4), scale, 1)
    return page


def test_an_outline_lies_where_the_window_is():
    """Centres at columns 3 .. 9 and rows 4 .. 10, numbered from 1; a pixel is 10 dots wide."""
    page = outline(window_at(6.0, 7.0, 256.0, 3.0), 3)
    rows, columns = np.nonzero(page)
    assert (columns.min(), columns.max()) == pytest.approx((5 + 25, 5 + 85), abs=1)
    assert (rows.min(), rows.max()) == pytest.approx((4 + 35, 4 + 95), abs=1)
    assert page[50:80, 45:75].sum() == 0  # an outline, not an area


def test_a_window_far_outside_is_dotted_and_one_without_size_a_dot():
    page = outline(window_at(500.0, 6.0, 1.0, 2.0), 3)
    along = page[:, page.any(0)].any(1)
    assert 0.2 < along[np.flatnonzero(along)[0] : np.flatnonzero(along)[-1]].mean() < 0.9
    assert outline(window_at(6.0, 6.0, 1e4, 2.0), 1).sum() == 9


def test_a_reconstruction_reads_green_and_writes_red(tmp_path):
    facts, where = (spots(2), canvases(2, 4)), windows(2, 4)
    both = figures.reconstruction_animation(tmp_path / "both.gif", *facts, where, where)
    only = figures.reconstruction_animation(tmp_path / "only.gif", *facts, None, where)
    for path, reads in ((both, True), (only, False)):
        durations, pages = frames_of(path)
        assert len(durations) == 5
        assert durations[-1] == 2000
        assert [has(page, GREEN) for page in pages] == [reads] * 4 + [False]
        assert [has(page, RED) for page in pages] == [True] * 4 + [False]


def test_the_longest_animation_of_the_paper_is_small_enough(tmp_path):
    """64 steps of 16 digits whose every pixel changes at every step: harder than any drawing."""
    facts = (canvases(16, 64, 1, 28, 28), windows(16, 64, 28, 28, 5))
    path = figures.drawing_animation(tmp_path / "drawing.gif", *facts)
    assert path.stat().st_size <= 500_000
    with Image.open(path) as animation:
        assert animation.n_frames >= 17
        assert min(animation.size) >= 16 * 20


def test_an_animation_gives_way_to_its_limit(tmp_path, monkeypatch):
    facts = (canvases(4, 16, 3), windows(4, 16))
    large = figures.drawing_animation(tmp_path / "large.gif", *facts).stat().st_size
    monkeypatch.setattr(animations, "MAX_BYTES", large // 4)
    small = figures.drawing_animation(tmp_path / "small.gif", *facts)
    assert small.stat().st_size <= large // 4
    assert frames_of(small)[0][-1] == 2000


# --- what cannot be drawn is named ---


@pytest.mark.parametrize(
    ("draw", "message"),
    [
        (lambda _: figures.steps_panel(spots(3)), r"\(B, T, C, H, W\) .* got \(3, 1, 12, 12\)"),
        (lambda _: figures.sample_sheet(torch.zeros(3, 2, 12, 12)), r"got \(3, 2, 12, 12\)"),
        (lambda p: figures.drawing_animation(p, 9 * canvases() - 4), r"\[0, 1\].*probabilities"),
        (lambda _: figures.sample_sheet(spots(3) * np.nan), r"lie in \[0, 1\], got nan"),
        (lambda _: figures.steps_panel(canvases(3, 5), windows(3, 4)), r"\(3, 5\) .* got \(3, 4\)"),
        (
            lambda p: figures.reconstruction_animation(p, spots(3), canvases(3, 5), windows(3, 4)),
            r"reads must be \(B, T\)",
        ),
        (
            lambda p: figures.reconstruction_animation(p, spots(2), canvases(3, 5)),
            "must show the same images",
        ),
        (lambda _: figures.sample_sheet(spots(3), spots(2)), "nearest must have one shape"),
        (lambda _: figures.reconstruction_panel(spots(3), spots(3, 3)), "must have one shape"),
        (lambda _: figures.interpolation_panel(spots(3)[:, None]), "at least two ends"),
        (lambda _: figures.kl_per_step_bars(np.ones((2, 2))), r"\(T,\).* got shape \(2, 2\)"),
        (lambda _: figures.generator_curve(metrics().iloc[:0], {}), "no rows yet"),
        (
            lambda _: figures.generator_curve(metrics().drop(columns=["train_bound"]), {}),
            "lack train_bound; they have step",
        ),
        (lambda _: figures.kl_map(metrics().drop(columns="step")), r"kl_1 \.\. kl_T"),
        (lambda _: figures.kl_map(metrics().drop(columns="kl_2")), r"kl_1 \.\. kl_T"),
        (lambda _: figures.kl_map(metrics().assign(kl_1=np.nan)), "no row"),
    ],
)
def test_what_cannot_be_drawn_is_named(draw, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        draw(tmp_path / "animation.gif")
    assert list(tmp_path.iterdir()) == []


# --- computed from models ---


def digits(classes: bool = False, condition: bool = False, size: int = 12) -> Dataset:
    """A data set of spots."""
    images = (255 * spots(24, 1, size, size)).round().byte()
    labels = torch.arange(24) % 3 if classes else None
    told = torch.arange(24.0)[:, None] if condition else None
    part = (images, labels, told)
    return Dataset.from_arrays("spots", part, part, part)


def draw(**options) -> Draw:
    torch.manual_seed(0)
    sizes = {"steps": 3, "hidden": 8, "latent": 2, "read_patch": 2, "write_patch": 3}
    return Draw(12, 12, **(sizes | options))


def names(paths) -> set[str]:
    assert all(path.is_file() for path in paths)
    return {path.name for path in paths}


SAMPLES = {"samples.png", "sample_steps.png", "samples.gif"}


def test_samples_need_no_data_and_seeds_do_not_overwrite_each_other(tmp_path):
    model = draw()
    assert names(pictures.draw_samples(model, None, tmp_path, 4, 0)) == SAMPLES
    first = (tmp_path / "samples.png").read_bytes()
    more = names(pictures.draw_samples(model, None, tmp_path, 4, 3, suffix="-seed3"))
    assert more == {"samples-seed3.png", "sample_steps-seed3.png", "samples-seed3.gif"}
    assert (tmp_path / "samples.png").read_bytes() == first
    assert (tmp_path / "samples-seed3.png").read_bytes() != first


def run_in(folder, frame: pd.DataFrame, **model) -> SimpleNamespace:
    """What pictures need of a run."""
    config = SimpleNamespace(model=SimpleNamespace(**({"model": "draw"} | model)))
    facts = {"folder": folder, "figures": folder / "figures", "config": config}
    return SimpleNamespace(**facts, metrics=lambda: frame)


class Bare(nn.Module):
    """A generator whose record has a likelihood but nothing to show."""

    steps, latent, size = 2, 1, (1, 12, 12)

    def __init__(self):
        super().__init__()
        self.gain = nn.Parameter(torch.ones(1))

    def forward(self, images, noise):
        return SimpleNamespace()


class Conditional(Bare):
    """A generator told a number; its record has a mean and frames but neither windows nor a
    posterior.
    """

    def sample(self, noise, condition):
        shift = condition[:, None, :, None, None] * self.gain
        frames = torch.sigmoid(noise[..., None, None] + shift).expand(-1, -1, 1, 12, 12)
        return SimpleNamespace(mean=frames[:, -1], frames=frames)

    def forward(self, images, noise, condition):
        return self.sample(noise, condition)


CURVES = {f"{name}.png" for name in ("learning_curve", "kl_over_training", "kl_per_step")}
SEVERAL_FRAMES = {"sample_steps.png", "samples.gif", "reconstructions.gif"}
ALL = CURVES | SAMPLES | {"reconstructions.png", "reconstructions.gif", "interpolations.png"}


@pytest.mark.parametrize(
    ("make", "condition", "missing"),
    [
        (draw, False, set()),
        (lambda: draw(read_patch=None, write_patch=None), False, set()),
        (lambda: VAE(12, 12, hidden=8, latent=2), False, SEVERAL_FRAMES),
        (Conditional, True, {"interpolations.png"}),
        (Bare, False, ALL - CURVES),
    ],
    ids=["draw", "no attention", "vae", "conditional", "bare"],
)
def test_every_generator_gets_the_pictures_it_can(make, condition, missing, tmp_path):
    """A VAE has one frame, which is no animation."""
    dataset = digits(condition=condition)
    result = {"kl_per_step": [1.0, 2.0]}
    paths = pictures.generator_pictures(run_in(tmp_path, metrics()), make(), dataset, result, 4)
    assert names(paths) == ALL - missing


class Plain(nn.Module):
    """A classifier that looks at the whole image."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(144, 3)

    def forward(self, images):
        return Answer(self.layer(images.flatten(1))[:, None])


@pytest.mark.parametrize("name", ["gaussian", "affine", "fixed", "random", "hard", "plain"])
def test_every_classifier_gets_the_pictures_it_can(name, tmp_path):
    from drawbench.models import glimpses

    kinds = {
        "gaussian": lambda: glimpses.GaussianGlimpse(4),
        "affine": lambda: glimpses.AffineGlimpse(4),
        "fixed": lambda: glimpses.FixedGlimpse(4, glimpses=2),
        "random": lambda: glimpses.RandomGlimpse(4),
        "hard": lambda: glimpses.HardGlimpse(4, scales=2, hidden=8),
    }
    make = kinds.get(name)
    model = GlimpseClassifier(make(), glimpses=2, hidden=8, classes=3) if make else Plain()
    rows = {"step": [1, 2], "images_seen": [10, 20], "train_loss": 1.0, "validation_error": 50.0}
    frame = pd.DataFrame(rows | {"learning_rate": 0.1})
    result = {"confusion": [[8, 0, 0], [0, 8, 0], [1, 0, 7]]}
    run = run_in(tmp_path, frame, glimpses=2)
    paths = pictures.classifier_pictures(run, model, digits(classes=True), result)
    sheets = {f"glimpses_{n}.png" for n in (1, 2, 3, 4)} | {"glimpses.gif"}
    basic = {"learning_curve.png", "confusion.png"}
    assert names(paths) == (basic if name == "plain" else basic | sheets)


def test_the_nearest_image_is_the_nearest():
    dataset, images = digits(), spots(24)
    blurred = 0.9 * images[[5, 2]] + 0.05
    near = drawings.nearest(blurred, dataset.train)
    for one, other in zip(near, images[[5, 2]], strict=True):
        assert (one - other).abs().max() < 1 / 255


def test_interpolations_end_at_the_decoded_posterior_means():
    model, images = draw(), (255 * spots(4)).byte()
    rows = drawings.interpolations(model, images, points=3)
    assert rows is not None
    with torch.no_grad():
        zeros = torch.zeros(4, model.steps, model.latent)
        ends = model(images.float() / 255, zeros).mean
    assert rows.shape == (2, 3, 1, 12, 12)
    torch.testing.assert_close(rows[:, 0], ends[:2])
    torch.testing.assert_close(rows[:, -1], ends[2:])


def test_samples_are_a_function_of_their_seed():
    model = draw()
    one, same, other, fewer = (
        drawings.samples(model, count, seed).images
        for count, seed in ((3, 1), (3, 1), (3, 2), (2, 1))
    )
    assert torch.equal(one, same)
    assert not torch.equal(one, other)
    torch.testing.assert_close(fewer, one[:2])
