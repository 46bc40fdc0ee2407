"""The pictures that explain DRAW: which drawings change their mind, and what the figures show."""

import shutil
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from commands import answer, drawbench, failed
from matplotlib.patches import Rectangle

from drawbench.errors import Problem
from drawbench.figures.explained import Drawn, readings, side_by_side
from drawbench.runs import Run
from drawbench.tasks import explained


def one_hot(answers, sure=0.95):
    """Return probabilities (B, T, 3) of these answers (B, T)."""
    answers = np.asarray(answers)
    return np.where(answers[..., None] == np.arange(3), sure, (1 - sure) / 2)


def test_drawings_that_change_their_mind_come_latest_change_first():
    read = one_hot([[0, 0, 0, 0], [1, 0, 0, 0], [0, 1, 2, 0], [2, 2, 1, 1], [0, 0, 0, 1]])
    assert explained.changes_of_mind(read).tolist() == [2, 4, 3, 1]
    unsure = read.copy()
    unsure[2, 2] = [0.3, 0.3, 0.4]  # a moment in between is no other mind
    unsure[4, 3] = [0.2, 0.5, 0.3]  # and a last answer that is unsure is none
    assert explained.changes_of_mind(unsure).tolist() == [2, 3, 1]
    assert explained.changes_of_mind(one_hot([[0, 0], [1, 1]])).tolist() == []


def test_every_canvas_is_read_by_itself():
    frames = torch.linspace(0, 1, 5 * 4).view(5, 4, 1, 1, 1)

    def reader(pictures):
        return torch.cat([pictures.flatten(1), 1 - pictures.flatten(1)], dim=1).log()

    read = explained.probabilities(reader, frames)
    torch.testing.assert_close(read[..., 0], frames[..., 0, 0, 0])


def canvases(count=2, steps=9):
    return torch.rand(count, steps, 1, 6, 6, generator=torch.Generator().manual_seed(0))


def test_steps_of_both_models_are_side_by_side():
    figure = side_by_side(Drawn("left", canvases()), Drawn("right", canvases(steps=3)))
    titles = [axes.get_title() for axes in figure.axes if axes.get_title()]
    assert titles == ["step 1", "2", "4", "5", "6", "8", "9", "step 1", "2", "3"]
    assert len(figure.axes) == 2 * (7 + 3)
    places = [axes.get_position().x0 for axes in figure.axes]
    assert max(places[:14]) < 0.5 < min(places[14:]) + 0.05
    assert [text.get_text() for text in figure.texts] == ["left", "right"]
    with pytest.raises(ValueError, match="got 2 drawings on the left, 1 on the right"):
        side_by_side(Drawn("left", canvases()), Drawn("right", canvases(count=1)))


def test_the_strip_says_what_is_read_how_surely_and_where_that_changes():
    read = one_hot([[0, 0, 2], [1, 1, 1]])
    read[0, 0] = [0.6, 0.3, 0.1]
    figure = readings(canvases(steps=3), read, "abc")
    strips = [axes for axes in figure.axes if axes.texts]
    assert [[text.get_text() for text in axes.texts] for axes in strips] == [
        list("aac"),
        list("bbb"),
    ]
    assert [len(axes.lines) for axes in strips] == [1, 0]
    assert strips[0].lines[0].get_xdata()[0] == pytest.approx(2, abs=0.05)
    alphas = [patch.get_alpha() for patch in strips[0].patches if isinstance(patch, Rectangle)]
    assert alphas == pytest.approx([0.36, 0.95**2, 0.95**2])
    with pytest.raises(ValueError, match=r"probabilities must be .*\(2, 3, 3\), got \(2, 3, 2\)"):
        readings(canvases(steps=3), read[..., :2], "abc")


def test_the_command_draws_and_counts(generated, classified, tmp_path, monkeypatch):
    monkeypatch.setattr(explained, "SAMPLES", 12)
    monkeypatch.setattr(explained, "SURE", 0.0)
    monkeypatch.setattr(explained, "RESTED", 0.0)
    run, reader = str(generated[0]), str(classified[0])
    failed(drawbench("plot", "explained", run, run, "--reader", reader), "both are called tiny")
    other = shutil.copytree(run, tmp_path / "other")
    result = answer("plot", "explained", run, other, "--reader", reader, "--out", tmp_path)
    names = {path.rsplit("/", 1)[1] for path in result["figures"]}
    assert {"explained_steps.png", "explained_windows.png", "explained_kl.png"} <= names
    assert 0 <= result["changed_after_half_percent"][generated[0].name] <= 100
    blind, told = SimpleNamespace(), SimpleNamespace(conditional=True, sample=None)
    for model, why in ((blind, "cannot sample"), (told, "draws from a condition")):
        with pytest.raises(Problem, match=why):
            explained.draw([Run.open(Path(run))], [model], None, tmp_path)
    refused = drawbench("plot", "explained", run, reader)
    failed(refused, "which draws nothing", status=2)
