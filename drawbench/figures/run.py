"""All figures of one run, into its folder."""

import contextlib
from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor, nn

from drawbench.data.pictures import Pictures
from drawbench.errors import Problem
from drawbench.evaluation import bounds
from drawbench.evaluation.error_rate import as_input
from drawbench.figures import curves, drawings, films, glimpses
from drawbench.figures.style import save
from drawbench.models import Generator
from drawbench.models.draw import Draw
from drawbench.runs import Run

# DRAW, Table 1: shown beside our curve where the task is the paper's.
PAPER_TEST_ERROR = {4: 4.18, 8: 3.36}


def of_classifier(run: Run, model: nn.Module, images, labels) -> list[Path]:
    """Learning curve, confusion, glimpse paths and a film of a classifier's run.

    Args:
        images, labels: uint8 (N, H, W) and (N,) from the test file; the first sixteen are shown.

    Returns:
        The files written.

    Raises:
        Problem: ``metrics.csv`` or ``result.json`` is missing or holds something else.
    """
    paths: list[Path] = []
    with _content_of(run.folder / "metrics.csv"):
        metrics = run.metrics()
        paths += save(
            curves.learning_curves(metrics, _references(run, metrics["validation_error"].max())),
            run.figures,
            "learning_curve",
        )
    with _content_of(run.folder / "result.json"):
        paths += save(curves.confusion(run.result()["confusion"]), run.figures, "confusion")
    shown, names = images[:16], labels[:16]
    with torch.no_grad():
        seen = model(as_input(shown, next(model.parameters()).device))
    if hasattr(seen, "windows"):
        for number, sheet in enumerate(glimpses.glimpse_paths(shown, names, seen), start=1):
            paths += save(sheet, run.figures, f"glimpses_{number}")
        paths.append(glimpses.glimpse_film(shown, names, seen, run.figures / "glimpses.gif"))
    return paths


# DRAW, Table 2, binarised MNIST: bounds in nats, shown beside our curve where the data are the
# paper's.
PAPER_BOUND = {"both": 80.97, "none": 87.40}
INTERPOLATIONS, BETWEEN = 4, 9  # rows, and pictures in a row with both ends


def of_generator(run: Run, model: Generator, data: Pictures, pictures: int) -> list[Path]:
    """Learning curve, KL of the steps over training, and everything of :func:`of_drawings`, of a
    generator's run.

    Returns:
        The files written.

    Raises:
        Problem: ``metrics.csv`` or ``result.json`` is missing or holds something else.
    """
    paths: list[Path] = []
    settings = run.config.model
    paper = (
        PAPER_BOUND.get(settings.attention)
        if settings.model == "draw" and data.name == "mnist-static"
        else None
    )
    with _content_of(run.folder / "metrics.csv"):
        metrics = run.metrics()
        paths += save(
            curves.generator_curve(metrics, {} if paper is None else {"paper, test": paper}),
            run.figures,
            "learning_curve",
        )
        paths += save(drawings.kl_map(metrics), run.figures, "kl_over_training")
    with _content_of(run.folder / "result.json"):
        paths += save(
            drawings.kl_per_step_bars(run.result()["kl_per_step"]), run.figures, "kl_per_step"
        )
    return paths + of_drawings(model, data, run.figures, pictures)


@torch.no_grad()
def of_drawings(
    model: Generator, data: Pictures, folder: Path, pictures: int, seed: int = 0
) -> list[Path]:
    """What a generator draws: samples with the nearest training pictures, reconstructions,
    interpolations, steps and films.

    Args: pictures: how many samples, and how many test images drawn again, evenly spaced over the
        test set. seed: of the noise; the same seed gives the same pictures.

    Returns:
        The files written.
    """
    device = next(model.parameters()).device
    patches = (model.read_patch, model.write_patch) if isinstance(model, Draw) else (None, None)
    latents = bounds.noise(
        torch.arange(pictures, device=device), model.steps, model.latent, seed, "sample"
    )
    drawn = model.sample(latents, keep_canvases=True)
    samples, canvases = _seen(drawn.logits), _seen(drawn.canvases)
    paths = save(drawings.sample_sheet(samples, nearest(samples, data)), folder, "samples")
    paths += save(
        drawings.steps_panel(canvases[:6], _first(drawn.write_windows, 6), patches[1]),
        folder,
        "sample_steps",
    )
    paths.append(
        films.drawing_film(
            folder / "samples.gif", canvases, _first(drawn.write_windows), patches[1]
        )
    )

    index = bounds.evenly(len(data.test), pictures)
    images = bounds.as_images(data.test[index], device)
    again = model(
        images,
        bounds.noise(index.to(device), model.steps, model.latent, seed, "reconstruction"),
        keep_canvases=True,
    )
    remade = _seen(again.canvases)
    paths += save(
        drawings.reconstruction_panel(images.cpu(), _seen(again.logits)), folder, "reconstructions"
    )
    windows = (_first(again.read_windows, 8), _first(again.write_windows, 8))
    paths.append(
        films.reconstruction_film(
            folder / "reconstructions.gif", images[:8].cpu(), remade[:8], *windows, *patches
        )
    )
    if len(data.test) > 1:
        paths += save(
            drawings.interpolation_panel(interpolations(model, data)), folder, "interpolations"
        )
    return paths


def _seen(canvas: Tensor | None) -> Tensor:
    """What a canvas shows, on the CPU."""
    assert canvas is not None
    return torch.sigmoid(canvas).cpu()


def _first(windows, count: int | None = None):
    """The windows of the first images on the CPU, or None where there are none."""
    return None if windows is None else type(windows)(*(field[:count].cpu() for field in windows))


def nearest(samples: Tensor, data: Pictures) -> Tensor:
    """For each picture the training picture at the smallest Euclidean distance: (B, C, H, W), both
    in [0, 1].

    A model that copies shows itself beside it. Where training pictures are made as they are needed,
    those of the first epoch count.
    """
    best, found = torch.full((len(samples),), torch.inf), torch.zeros_like(samples)
    for first in range(0, len(data.train), CHUNK):
        some = bounds.as_images(data.train.batch(first, min(CHUNK, len(data.train) - first)))
        distance, which = torch.cdist(samples.flatten(1), some.flatten(1)).min(dim=1)
        closer = distance < best
        best[closer], found[closer] = distance[closer], some[which[closer]]
    return found


@torch.no_grad()
def interpolations(model: Generator, data: Pictures) -> Tensor:
    """Rows of pictures (R, S, C, H, W) from one test image to another, on the straight line between
    their latents.

    The latents of an image are the posterior means, each step's given those before; both ends are
    drawn by the decoder alone too. There must be two test images at least.
    """
    device = next(model.parameters()).device
    images = bounds.as_images(data.test[bounds.evenly(len(data.test), 2 * INTERPOLATIONS)], device)
    rows = len(images) // 2
    latents = model(images, torch.zeros(len(images), model.steps, model.latent, device=device)).mu
    share = torch.linspace(0, 1, BETWEEN, device=device)[None, :, None, None]
    # Row r goes from image r to image r + rows: the test set may be sorted by class, and neighbours
    # would be alike.
    between = torch.lerp(latents[:rows, None], latents[rows : 2 * rows, None], share)
    drawn = torch.sigmoid(model.sample(between.flatten(0, 1)).logits)
    return drawn.view(rows, BETWEEN, *data.size).cpu()


CHUNK = 2000  # training pictures compared at a time


@contextlib.contextmanager
def _content_of(path: Path) -> Iterator[None]:
    """Name the file where its content, though readable, is not what a run writes."""
    try:
        yield
    except (KeyError, TypeError, ValueError) as error:
        raise Problem(
            f"{path} is not what a run writes ({error!r}); write it again: drawbench resume {path.parent}"
        ) from error


def _references(run: Run, worst: float) -> dict[str, float]:
    """Lines to hold the curve against: chance if the curve comes near it, and the paper's number if
    this is the paper's task.
    """
    data, model = run.config.data, run.config.model
    looks = model.glimpses if model.model == "draw" else None
    references = {"chance": 90.0} if worst > 30 else {}
    if (
        data.source == "mnist"
        and (data.canvas, data.clutter) == (100, 8)
        and looks in PAPER_TEST_ERROR
    ):
        references[f"paper, {looks} glimpses, test"] = PAPER_TEST_ERROR[looks]
    return references
