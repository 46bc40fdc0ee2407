"""The baselines and controls: what each promises alone, and what all promise together."""

import json

import pytest
import torch
import torch.nn.functional as F
from click.testing import CliRunner
from torch import Tensor

from drawbench import attention, config, runs, streams, training
from drawbench.cli import cli
from drawbench.config import CLASSIFIERS, GLIMPSING, Classify
from drawbench.errors import Problem
from drawbench.evaluation import error_rate
from drawbench.evaluation.cost import cost
from drawbench.models.conv2 import TwoLayerConv
from drawbench.models.fc import FullyConnected
from drawbench.models.fixed_glimpses import FixedGlimpseClassifier, grid
from drawbench.models.ram import RecurrentAttention, reinforce
from drawbench.models.random_glimpses import places
from drawbench.models.stn import SpatialTransformer
from drawbench.tasks import classify
from drawbench.tasks.classify import ClassificationTask
from drawbench.training import Quiet, Trainer

SMALL = {
    "canvas": 36,
    "glimpses": 3,
    "patch": 4,
    "hidden": 32,
    "scales": 2,
    "batch": 16,
    "warmup": 0,
    "source": "digits",
}


def settings(name: str, **changes) -> Classify:
    return config.replace(Classify(), model=name, **{**SMALL, **changes})


def scenes(count: int, side: int = 36) -> tuple[Tensor, Tensor]:
    """Images uint8 whose content tells their class: a bright bar whose length and direction are
    those of the class, at changing places.
    """
    images, labels = torch.zeros(count, side, side, dtype=torch.uint8), torch.arange(count) % 10
    for n in range(count):
        top, left, length = 2 + n % 5, 2 + n % 7, 4 + 4 * (n % 5)
        rows, columns = (length, 3) if n % 10 < 5 else (3, length)
        images[n, top : top + rows, left : left + columns] = 200 + n % 50
    return images, labels


class Fixed:
    """The same few samples again and again, for a task to train on."""

    def __init__(self, count: int):
        self.images, self.labels = scenes(count)

    def __len__(self) -> int:
        return len(self.images)

    def to(self, device):
        return self

    def batch(self, first: int, count: int) -> tuple[Tensor, Tensor]:
        which = torch.arange(first, first + count) % len(self)
        return self.images[which], self.labels[which]


class Stored:
    """A validation set."""

    def __init__(self, count: int):
        images, labels = scenes(count)
        self.images, self.labels = images.numpy(), labels.numpy()


def task(name: str, **changes) -> ClassificationTask:
    chosen = settings(name, **changes)
    return ClassificationTask(
        classify.build(chosen), Fixed(32), Stored(40), chosen, torch.device("cpu")
    )


# --- all together ---


@pytest.mark.parametrize("name", CLASSIFIERS)
def test_shapes_and_what_a_model_says_of_itself(name):
    model = classify.build(settings(name)).eval()
    images = error_rate.as_input(scenes(5)[0])
    seen = model(images)
    assert seen.logits.shape == (5, 3 if name in GLIMPSING else 1, 10)
    assert hasattr(model, "glimpses") == (name in GLIMPSING)
    if name in GLIMPSING:
        assert model(images, glimpses=5).logits.shape == (5, 5, 10)
        torch.testing.assert_close(model(images, glimpses=5).logits[:, :3], seen.logits)
    if hasattr(seen, "patches"):
        assert seen.patches.shape == (*seen.logits.shape[:2], 1, 4, 4)


@pytest.mark.parametrize("name", CLASSIFIERS)
def test_an_answer_depends_on_nothing_but_its_image(name):
    """Not on the batch, its size or order, nor on a global generator, which is left alone."""
    model, (images, _) = classify.build(settings(name)), scenes(12)
    before = torch.get_rng_state()
    together = error_rate.predict(model, images, batch=12)
    torch.testing.assert_close(error_rate.predict(model, images, batch=5), together)
    torch.testing.assert_close(error_rate.predict(model, images.flip(0), batch=1).flip(0), together)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("name", [name for name in CLASSIFIERS if name != "draw"])
def test_every_model_learns_a_few_images_by_heart(name):
    overfit = task(name, batch=32, patch=8, hidden=64)
    model = overfit.model
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    for step in range(400 if name == "ram" else 200):
        loss, facts = overfit.loss(overfit.batch(32 * step, 32))
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        if facts["error"] == 0 and facts["loss"] < 0.1:
            break
    images, labels = overfit.train.batch(0, 32)
    answers = error_rate.predict(model, images)[:, -1].argmax(-1)
    assert (answers != labels).sum() <= 3


@pytest.mark.parametrize("name", CLASSIFIERS)
def test_every_parameter_gets_a_gradient(name):
    one = task(name)
    one.loss(one.batch(0, 16))[0].backward()
    assert all(
        parameter.grad is not None and torch.isfinite(parameter.grad).all()
        for parameter in one.model.parameters()
    )


@pytest.mark.parametrize("name", [name for name in CLASSIFIERS if name != "draw"])
def test_every_recipe_is_that_of_its_model_and_the_common_task(name):
    recipe = config.load_recipe(name)
    assert recipe["model"]["model"] == name
    assert recipe["data"] == config.load_recipe("paper-8")["data"]
    if name in GLIMPSING:
        assert (recipe["model"]["glimpses"], recipe["model"]["patch"]) == (8, 12)


@pytest.mark.parametrize("name", ["ram", "conv2"])
def test_the_command_reports_the_cost_and_what_drawing_places_changes(name, tmp_path):
    tiny = {
        **SMALL,
        "canvas": 28,
        "clutter": 0,
        "model": name,
        "steps": 2,
        "evaluate_every": 2,
        "batch": 4,
        "threads": 1,
    }
    words = [
        str(word) for key, value in tiny.items() for word in (f"--{key.replace('_', '-')}", value)
    ]
    made = CliRunner().invoke(
        cli, ["classify", *words, "--datasets", str(tmp_path), "--runs", str(tmp_path / "runs")]
    )
    assert made.exit_code == 0, made.output
    folder = (
        tmp_path / "runs" / ("classify-ram-3-seed0" if name == "ram" else "classify-conv2-seed0")
    )
    found = json.loads((folder / "result.json").read_text())
    assert (
        f"{found['parameters']:,} parameters; for each image {found['pixels_read']:,} pixels read and"
        in made.output
    )
    assert found["glimpses"] == (3 if name == "ram" else None)
    assert ("sampled_error" in found) == ("with places drawn %" in made.output) == (name == "ram")


# --- what an answer costs ---


def lstm(inputs: int, hidden: int) -> int:
    return (inputs + hidden) * 4 * hidden


def gaussian(side: int, patch: int) -> int:
    return patch * side * side + patch * side * patch


T, N, U, A = 3, 4, 32, 36  # glimpses, patch, hidden, canvas of SMALL
MULTIPLY_ADDS = {
    "draw": T * (5 * U + gaussian(A, N) + lstm(N * N, U) + 10 * U),
    "affine": T * (6 * U + lstm(N * N, U) + 10 * U),
    "random": T * (3 * U + gaussian(A, N) + lstm(N * N + 2, U) + 10 * U),
    "fixed": T * (gaussian(A, N) + lstm(N * N, U) + 10 * U),
    "ram": T * (2 * N * N * 128 + 2 * 128 + 256 * U + lstm(U, U) + 2 * U + U + 10 * U),
    "stn": 25 * (14**2 * 20 + 3**2 * 20 * 20)
    + 20 * 50
    + 50 * 6
    + 9 * (4**2 * 32 + 2**2 * 32 * 64)
    + 64 * U
    + 10 * U,
    "fc": A * A * U + U * U + 10 * U,
    "conv2": 6 * 6 * 8 * (100 + U) + 10 * U,
    "conv6": 18**2 * 25 * 16
    + 9 * (9**2 * (16 * 32 + 32 * 32) + 5**2 * (32 * 64 + 64 * 64) + 3**2 * 64 * 128)
    + 10 * 128,
}


@pytest.mark.parametrize("name", CLASSIFIERS)
def test_multiply_adds_are_those_of_the_equations(name):
    model = classify.build(settings(name))
    price = cost(model, A, A)
    assert price.multiply_adds == MULTIPLY_ADDS[name]
    assert price.parameters == sum(parameter.numel() for parameter in model.parameters())
    assert model.training


def test_pixels_are_counted_as_in_the_paper():
    """DRAW, Table 1: 4 glimpses of 12x12 are 576 pixels, RAM's with four scales 2,304, a whole
    image 10,000.
    """
    for name, pixels in [
        ("draw", 576),
        ("affine", 576),
        ("random", 576),
        ("fixed", 576),
        ("ram", 2304),
        ("conv2", 10000),
        ("stn", 10000),
    ]:
        model = classify.build(settings(name, canvas=100, glimpses=4, patch=12, scales=4))
        assert cost(model, 100, 100).pixels_read == pixels


# --- controls ---


def test_random_places_are_a_function_of_the_content():
    images = error_rate.as_input(scenes(40)[0])
    drawn = places(images, 6)
    assert drawn.shape == (40, 6, 2)
    assert torch.equal(places(images[7:9], 6), drawn[7:9])
    assert torch.equal(places(images, 3), drawn[:, :3])
    assert not torch.equal(drawn[0], drawn[1])
    one_grey_level = images.clone()
    one_grey_level[0, 0, -1, -1] += 1 / 255
    assert not torch.equal(places(one_grey_level, 6)[0], drawn[0])


def test_random_places_are_uniform():
    counter = torch.arange(20000)
    images = torch.stack([counter // 255 % 255, counter % 255], dim=1).view(-1, 1, 1, 2) / 255
    drawn = places(images, 2).flatten(1)
    assert drawn.min() >= -1 and drawn.max() < 1
    assert (
        drawn.mean(0).abs().max() < 4 / (3 * 20000) ** 0.5
    )  # standard deviation of the uniform is 1/sqrt 3
    torch.testing.assert_close(
        drawn.T.cov(), torch.eye(4, dtype=torch.float64) / 3, atol=0.01, rtol=0
    )


def test_a_random_glimpse_lies_where_it_was_drawn():
    model, images = classify.build(settings("random")), error_rate.as_input(scenes(3)[0])
    windows = model(images).windows
    torch.testing.assert_close(
        windows.centre_x, (A + 1) / 2 * (places(images, T)[..., 0].float() + 1)
    )
    torch.testing.assert_close(
        windows.centre_y, (A + 1) / 2 * (places(images, T)[..., 1].float() + 1)
    )


def test_fixed_windows_are_the_same_for_every_image_and_learned():
    one = task("fixed")
    windows = one.model(error_rate.as_input(scenes(4)[0])).windows
    assert all(torch.equal(field, field[:1].expand(4, -1)) for field in windows)
    one.loss(one.batch(0, 16))[0].backward()
    assert (one.model.numbers.grad != 0).all()


def test_the_first_fixed_windows_share_the_image_out():
    where = attention.window(attention.bound(grid(9)), 90, 90, 12)
    assert (
        len(set(zip(where.centre_x.round().tolist(), where.centre_y.round().tolist(), strict=True)))
        == 9
    )
    torch.testing.assert_close(where.centre_x.mean(), torch.tensor(45.5))
    torch.testing.assert_close(where.centre_y.mean(), torch.tensor(45.5))
    again = FixedGlimpseClassifier(glimpses=2, patch=3, hidden=4)(
        torch.zeros(1, 1, 20, 20), glimpses=5
    ).windows
    assert torch.equal(again.centre_x[:, 2:4], again.centre_x[:, :2])


# --- hard attention ---


def test_reinforce_is_the_gradient_of_the_expected_reward():
    """One place from N(m, s^2) and the reward 1 - (l - 1)^2: the expected reward is 1 - (m - 1)^2 -
    s^2, its slope -2 (m - 1). The expectation is taken exactly, by Gauss-Hermite quadrature.
    """
    import numpy as np

    nodes, weights = (torch.from_numpy(values) for values in np.polynomial.hermite_e.hermegauss(20))
    weights = weights / weights.sum()
    m, s = torch.tensor(0.3, dtype=torch.float64, requires_grad=True), 0.4
    for baseline in (0.0, 0.7, -3.0):
        drawn = (m + s * nodes).detach()
        log_probability = -0.5 * ((drawn - m) / s).square()
        reward = 1 - (drawn - 1).square()
        each = [
            reinforce(
                log_probability[n : n + 1, None],
                reward[n : n + 1],
                torch.full((1, 1), baseline, dtype=torch.float64),
            )
            for n in range(len(nodes))
        ]
        (slope,) = torch.autograd.grad(torch.stack(each) @ weights, m)
        assert slope.item() == pytest.approx(2 * (0.3 - 1))  # of the negative, which is descended


def test_a_good_baseline_lowers_the_variance_and_keeps_the_mean():
    """Two choices with probability p and 1 - p, enumerated, over two steps that share the reward."""
    theta = torch.tensor(0.4, dtype=torch.float64, requires_grad=True)
    p = torch.sigmoid(theta)
    outcomes = [(a, b) for a in (0, 1) for b in (0, 1)]
    chance = torch.stack([(p if a else 1 - p) * (p if b else 1 - p) for a, b in outcomes])
    rewards = torch.tensor([0.0, 1.0, 1.0, 5.0], dtype=torch.float64)
    (truth,) = torch.autograd.grad(-(chance * rewards).sum(), theta, retain_graph=True)
    spreads = []
    for baseline in (0.0, 2.0):
        slopes = []
        for (a, b), reward in zip(outcomes, rewards, strict=True):
            log_probability = torch.stack([(p if choice else 1 - p).log() for choice in (a, b)])[
                None
            ]
            loss = reinforce(
                log_probability, reward[None], torch.full((1, 2), baseline, dtype=torch.float64)
            )
            slopes.append(torch.autograd.grad(loss, theta, retain_graph=True)[0])
        mean = (chance.detach() * torch.stack(slopes)).sum()
        torch.testing.assert_close(mean, truth)
        spreads.append(float((chance.detach() * (torch.stack(slopes) - mean).square()).sum()))
    assert spreads[1] < spreads[0]


def test_what_is_added_trains_places_and_baseline_and_leaves_the_answer_to_the_cross_entropy():
    model, (images, labels) = (
        RecurrentAttention(glimpses=2, patch=4, scales=2, hidden=16),
        scenes(8),
    )
    noise = streams.normals(torch.arange(8), model.noise, 0, "test").float()
    seen = model(error_rate.as_input(images), noise=noise)
    model.added_loss(seen, labels).backward()
    gradients = {name: parameter.grad for name, parameter in model.named_parameters()}
    assert gradients["classify.weight"] is None
    assert (
        gradients["to_place.weight"].abs().sum() > 0 and gradients["expect.weight"].abs().sum() > 0
    )
    reward = (seen.logits[:, -1].argmax(-1) == labels).float()
    surprise = (seen.baseline - reward[:, None]).square().mean()
    torch.testing.assert_close(
        model.added_loss(seen, labels),
        0.1 * reinforce(seen.log_probability, reward, seen.baseline) + surprise,
    )


def test_the_loss_is_the_hybrid_one():
    one = task("ram", reinforce=0.3)
    batch = one.batch(5, 16)
    seen = one.model(error_rate.as_input(batch[0]), noise=batch[2])
    wanted = F.cross_entropy(seen.logits[:, -1], batch[1]) + one.model.added_loss(seen, batch[1])
    assert one.model.weight == 0.3
    torch.testing.assert_close(one.loss(batch)[0], wanted)


def test_noise_is_a_function_of_the_sample_number():
    one = task("ram")
    whole = one.batch(0, 40)[2]
    assert whole.shape == (40, one.model.noise)
    assert torch.equal(one.batch(13, 5)[2], whole[13:18])
    assert not torch.equal(task("ram", seed=1).batch(0, 40)[2], whole)
    assert len(task("conv2").batch(0, 4)) == 2


def test_the_mean_is_looked_at_where_there_is_no_noise():
    model, images = (
        RecurrentAttention(glimpses=2, patch=4, scales=2, hidden=16),
        error_rate.as_input(scenes(4)[0]),
    )
    mean, still = model(images), model(images, noise=torch.zeros(4, 4))
    torch.testing.assert_close(mean.logits, still.logits)
    moved = model(images, noise=torch.ones(4, 4))
    torch.testing.assert_close(
        moved.windows.centre_x[:, 0] - mean.windows.centre_x[:, 0],
        torch.full((4,), (A + 1) / 2 * 0.15),
    )
    assert moved.log_probability[:, 0].tolist() == pytest.approx(
        [-1.0] * 4
    )  # one deviation away in two directions
    for t in range(2):
        left, top = (
            int((moved_to[0, t] - 1.5 + 0.5).floor()) - 1
            for moved_to in (moved.windows.centre_x, moved.windows.centre_y)
        )
        torch.testing.assert_close(
            moved.patches[0, t], images[0, :, top : top + 4, left : left + 4]
        )


def test_sampled_prediction_does_not_depend_on_the_batch():
    model, (images, _) = RecurrentAttention(glimpses=2, patch=4, scales=2, hidden=16), scenes(9)
    noise = streams.normals(torch.arange(9), model.noise, 0, "test").float()
    together = error_rate.predict(model, images, noise=noise)
    torch.testing.assert_close(error_rate.predict(model, images, noise=noise, batch=4), together)
    assert not torch.equal(error_rate.predict(model, images), together)


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
    chosen = settings("ram", steps=8, evaluate_every=4, save_every=3, hidden=16)
    run = runs.Run.open(folder) if folder.exists() else runs.Run.create(folder, chosen)
    trainer = Trainer(
        ClassificationTask(
            classify.build(chosen), Fixed(32), Stored(10), chosen, torch.device("cpu")
        ),
        run,
        Quiet(),
    )
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


# --- errors ---


@pytest.mark.parametrize("name", ["fc", "conv2", "stn"])
def test_another_canvas_is_refused_where_layers_are_fully_connected(name):
    model = classify.build(settings(name))
    with pytest.raises(Problem, match="made for images of 36x36 pixels, not of 40x36"):
        model(torch.zeros(1, 1, 40, 36))


def test_images_too_small_are_named():
    with pytest.raises(ValueError, match=r"10x10 need an image at least as large, got 9x20"):
        TwoLayerConv((9, 20))
    with pytest.raises(ValueError, match=r"at least 32x32 .*got 30x100"):
        SpatialTransformer((30, 100))
    with pytest.raises(ValueError, match=r"patch of at least 4, got .*3"):
        SpatialTransformer((100, 100), patch=3)
    with pytest.raises(ValueError, match="at least 1"):
        FullyConnected((0, 5))
    with pytest.raises(ValueError, match="positive, got 0"):
        RecurrentAttention(deviation=0)
    with pytest.raises(Problem, match="at least 32x32"):
        classify.build(settings("stn", canvas=30))


@pytest.mark.parametrize("name", ["stn", "conv2", "conv6", "fc"])
def test_one_look_has_no_number_of_glimpses(name):
    with pytest.raises(Problem, match="whole image, once"):
        classify.against_glimpses(classify.build(settings(name)), Stored(4), [1, 2], lambda: None)
