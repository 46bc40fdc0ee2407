"""Where a classifier errs: clutter on the digit against a loop over pixels, and the command."""

import numpy as np
import pandas as pd
import pytest
import torch
from commands import answer, drawbench, failed

from drawbench import figures
from drawbench.data import digits, scenes
from drawbench.evaluation import mistakes
from drawbench.tasks import open_run


def twin(image: np.ndarray, clean: np.ndarray) -> float:
    """Add up, pixel by pixel, the ink added within 4 pixels of the digit's box."""
    rows, columns = np.nonzero(clean)
    added = 0.0
    for row in range(max(rows.min() - 4, 0), min(rows.max() + 5, clean.shape[0])):
        for column in range(max(columns.min() - 4, 0), min(columns.max() + 5, clean.shape[1])):
            added += float(image[row, column]) - float(clean[row, column])
    return added / float(clean.sum())


def test_clutter_on_a_digit_is_the_ink_added_around_it(tmp_path):
    part = digits.load("digits", tmp_path).splits["test"]
    index = torch.arange(40)
    images, clean = (
        scenes.fresh(part, scenes.Scene(canvas=70, clutter=pieces), index, 3, "t").images[:, None]
        for pieces in (4, 0)
    )
    shares = mistakes.clutter_on_digit(images, clean)
    expected = [
        twin(image[0].numpy(), bare[0].numpy()) for image, bare in zip(images, clean, strict=True)
    ]
    torch.testing.assert_close(shares, torch.tensor(expected, dtype=torch.float64))
    assert (shares == 0).any() and (shares > 0.1).any()
    assert not mistakes.clutter_on_digit(clean, clean).any()


def test_plot_errors_tells_where_a_classifier_errs(classified, datasets, tmp_path):
    run, out = classified[0], tmp_path / "out"
    told = answer("plot", "errors", run, "--count", 5, "--out", out, "--datasets", datasets)
    table = pd.read_csv(out / "errors_by_clutter.csv")
    counts = table.groupby("digits")["n"].sum()
    result = open_run(run).result()
    assert counts["test digits"] == counts["training digits"] == result["n"]
    test = table[table["digits"] == "test digits"]
    assert (test["error"] * test["n"] / 100).sum() == pytest.approx(result["errors"])
    assert test["clutter"].is_monotonic_increasing
    names = ("errors_by_clutter.csv", "figures/errors_by_clutter.png", "figures/errors.png")
    assert told["files"] == [str(out / name) for name in names]
    assert all((out / name).stat().st_size for name in names)


def test_the_surest_mistakes_come_first(classified, datasets):
    from drawbench.cli.training import create
    from drawbench.reporters import Quiet
    from drawbench.tasks import task

    run = open_run(classified[0])
    job = create(run.config, datasets, None, Quiet(), ())
    model = task.best_model(job, run)
    found = mistakes.find(model, job.dataset)
    shown = job.dataset.test.at(found.which)
    with torch.no_grad():
        last = model(shown.images.float() / 255).logits[:, -1].softmax(dim=1)
    assert (last.argmax(dim=1) != shown.labels).all()
    assert last.max(dim=1).values.diff().max() < 1e-6


def test_no_errors_to_tell_apart(generated, datasets):
    failed(drawbench("plot", "errors", generated[0]), "generate", status=2)
    with pytest.raises(ValueError, match="no image was misread"):
        figures.mistakes_sheet(torch.zeros(0, 8, 8), [], torch.zeros(0, 1, 10))
