"""Every classifier as the classification task trains it: its loss, its noise, its resumption."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from drawbench import config, models, runs, streams, training
from drawbench.config import Classify
from drawbench.data.dataset import Dataset
from drawbench.evaluation import error_rate
from drawbench.reporters import Quiet
from drawbench.tasks import classify
from drawbench.training import Trainer

SMALL = {"patch": 8, "hidden": 64, "glimpses": 3, "scales": 2, "window_clip": 10.0}
NAMES = sorted(models.CLASSIFIERS)


def scenes(count: int, side: int = 36) -> tuple[np.ndarray, np.ndarray]:
    """Return images whose content determines their class: a bright bar with the length and the
    direction of the class, at changing places.
    """
    images, labels = np.zeros((count, side, side), np.uint8), np.arange(count) % 10
    for n in range(count):
        top, left, length = 2 + n % 5, 2 + n % 7, 4 + 4 * (n % 5)
        rows, columns = (length, 3) if n % 10 < 5 else (3, length)
        images[n, top : top + rows, left : left + columns] = 200 + n % 50
    return images, labels


def task(name: str, **changes) -> classify.Classify:
    settings = config.replace(Classify(), model=name)
    known = {key: value for key, value in SMALL.items() if hasattr(settings.model, key)}
    settings = config.replace(settings, **{"batch": 16, "warmup": 0} | known | changes)
    bars = Dataset.from_arrays("bars", scenes(32), scenes(10), scenes(10))
    facts = {"channels": 1, "height": 36, "width": 36, "classes": 10}
    with streams.seeded(settings.training.seed, "weights"):
        factory = models.CLASSIFIERS[name]
        model = models.make(factory, settings.model.arguments, facts)
    return classify.Classify(settings, bars, model, torch.device("cpu"))


@pytest.mark.parametrize("name", NAMES)
def test_every_parameter_gets_a_gradient(name):
    one = task(name)
    one.loss(one.batch(0, 16))[0].backward()
    for parameter in one.model.parameters():
        assert parameter.grad is not None and torch.isfinite(parameter.grad).all()


@pytest.mark.parametrize("name", NAMES)
def test_every_model_learns_a_few_images_by_heart(name):
    one = task(name, batch=32)
    optimizer = torch.optim.Adam(one.model.parameters(), lr=3e-3)
    for step in range(400):
        loss, metrics = one.loss(one.batch(32 * step, 32))
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(one.model.parameters(), 1.0)
        optimizer.step()
        if metrics["error"] == 0 and metrics["loss"] < 0.03:
            break
    images, labels = scenes(32)
    answers = error_rate.predict(one.model, images)[:, -1].argmax(-1)
    # chance is 29 of 32; places that are drawn at random learn slowly
    assert (answers.numpy() != labels).sum() <= (10 if name == "ram" else 3)


def test_a_hard_glimpse_adds_its_loss():
    one = task("ram", reinforce=0.3)
    (images, labels, _), noise = one.batch(5, 16)
    record = one.model(images.float() / 255, noise=noise)
    cross_entropy = F.cross_entropy(record.logits[:, -1], labels)
    loss = cross_entropy + one.model.added_loss(record, labels)
    assert one.model.glimpse.reinforce == 0.3
    torch.testing.assert_close(one.loss(one.batch(5, 16))[0], loss)


def test_noise_is_a_function_of_the_sample_number():
    one = task("ram")
    whole = one.batch(0, 40)[1]
    assert whole.shape == (40, one.model.noise)
    assert torch.equal(one.batch(13, 5)[1], whole[13:18])
    assert not torch.equal(task("ram", seed=1).batch(0, 40)[1], whole)
    assert task("conv2").batch(0, 4)[1] is None


class StopAfter(training.StopFlag):
    """A signal before the n-th check."""

    def __init__(self, checks: int):
        super().__init__()
        self.left = checks

    def check(self) -> None:
        self.left -= 1
        if self.left < 0:
            self.number = 15
        super().check()


def fit(folder, checks: int | None = None) -> dict[str, Tensor]:
    """Train for 8 updates, from the last checkpoint if there is one; return the final state."""
    one = task("ram", steps=8, evaluate_every=4, checkpoint_every=3, hidden=16)
    run = runs.Run.open(folder) if folder.exists() else runs.Run.create(folder, one.config)
    trainer = Trainer(one, run, Quiet())
    trainer.restore()
    try:
        trainer.fit(training.StopFlag() if checks is None else StopAfter(checks))
    except training.Interrupted:
        return {}
    return runs.load_checkpoint(folder / runs.LAST)[0]


@pytest.mark.parametrize("checks", [2, 5, 7])
def test_resuming_hard_attention_is_the_same_to_the_bit(tmp_path, checks):
    whole = fit(tmp_path / "whole")
    assert fit(tmp_path / "parts", checks) == {}
    parts = fit(tmp_path / "parts")
    assert whole and whole.keys() == parts.keys()
    assert all(torch.equal(whole[name], parts[name]) for name in whole)
