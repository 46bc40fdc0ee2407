"""Models by name: what all classifiers and generators promise, what they cost, and how a model of
one's own is built.
"""

import json
from pathlib import Path

import pytest
import torch
from formulas import waves
from safetensors.torch import load_file
from torch.utils._python_dispatch import TorchDispatchMode

from drawbench import config, models, pretrained
from drawbench.evaluation.cost import cost
from drawbench.models.draw import Draw
from drawbench.models.glimpse import GlimpseClassifier
from drawbench.models.vae import VAE

GLIMPSING = ("draw", "eye", "affine", "random", "fixed", "ram")
SIZES = {"glimpses": 3, "patch": 4, "hidden": 32}
WINDOW = {"window_clip": 10.0, "window_map": "bounded"}
RAM = {"scales": 2, "deviation": 0.15, "reinforce": 0.1}
ARGUMENTS = SIZES | WINDOW | RAM | {"supersample": 2, "filters": 12}
TAKES = {
    **dict.fromkeys(("draw", "eye"), (*SIZES, *WINDOW)),
    "affine": (*SIZES, *WINDOW, "supersample"),
    "random": (*SIZES, "window_clip"),
    "fixed": (*SIZES,),
    "ram": (*SIZES, *RAM),
    "stn": ("patch", "hidden", "supersample", "filters"),
    "fc": ("hidden",),
    "conv2": ("hidden",),
    "conv6": (),
}
PUBLISHED = Path(__file__).parent.parent / "results" / "published"


def build(name: str, side: int = 36, channels: int = 1, **changes):
    arguments = {key: (ARGUMENTS | changes)[key] for key in TAKES[name]}
    facts = {"channels": channels, "height": side, "width": side, "classes": 10}
    return models.make(models.CLASSIFIERS[name], arguments, facts)


def test_the_models_are_those_of_the_settings():
    assert set(models.CLASSIFIERS) == set(TAKES)
    facts, images = {"channels": 2, "height": 40, "width": 36}, waves(1, 2, 40, 36).float()
    for name, factory in models.CLASSIFIERS.items():
        section = config.replace(config.Classify(), model=name).model
        model = models.make(factory, section.arguments, facts | {"classes": 7})
        assert model(images).logits.shape[::2] == (1, 7)
    for name, factory in models.GENERATORS.items():
        section = config.replace(config.Generate(), model=name).model
        model = models.make(factory, section.arguments, facts)
        noise = torch.zeros(1, model.steps, model.latent)
        caption = torch.zeros(1, 5, dtype=torch.int64) if name == "aligndraw" else None
        assert models.draw_images(model, images, noise, caption).mean.shape == images.shape


@pytest.mark.parametrize("name", TAKES)
@pytest.mark.parametrize("channels", [1, 3])
def test_what_a_classifier_says_of_itself(name, channels):
    model, images = build(name, channels=channels).eval(), waves(5, channels, 36, 36).float()
    record = model(images)
    assert record.logits.shape == (5, 3 if name in GLIMPSING else 1, 10)
    assert hasattr(model, "glimpses") == (name in GLIMPSING)
    assert bool(getattr(model, "noise", 0)) == (name == "ram")
    if name in GLIMPSING:
        assert model(images, glimpses=5).logits.shape == (5, 5, 10)
        torch.testing.assert_close(model(images, glimpses=5).logits[:, :3], record.logits)
    if hasattr(record, "patches"):
        corners = model.glimpse.corners(record.windows, 36, 36)
        assert corners.shape == (*record.logits.shape[:2], 4, 2)


class Hosted(TorchDispatchMode):
    """Collects what would make a GPU wait for the host, or the host for a GPU."""

    WAITS = ("lift_fresh", "_local_scalar_dense", "nonzero")

    def __init__(self):
        super().__init__()
        self.found = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if func.__name__.startswith(self.WAITS):
            self.found.append(func.__name__)
        return func(*args, **(kwargs or {}))


def test_what_waits_is_found():
    with Hosted() as hosted:
        line = torch.tensor([1.0, 2.0])
        line.new_tensor([1.0])
        (line > 1).nonzero().sum().item()
    assert len(hosted.found) == 4


@pytest.mark.parametrize("name", [*TAKES, *models.GENERATORS])
def test_a_pass_takes_nothing_from_the_host(name):
    """On a GPU a tensor made of Python's numbers, or a number read back, makes an update wait, and
    no such update can be recorded.
    """
    if name in ("random", "aligndraw"):
        pytest.skip("it hashes images, or checks the numbers of words, and is never recorded")
    images = waves(2, 1, 36, 36).float()
    if name in TAKES:
        model = build(name)
        noise = torch.zeros(2, getattr(model, "noise", 0))
        with Hosted() as hosted:
            record = model(images, noise=noise) if noise.shape[1] else model(images)
            record.logits.sum().backward()
    else:
        facts = {"channels": 1, "height": 36, "width": 36}
        section = config.replace(config.Generate(), model=name).model
        model = models.make(models.GENERATORS[name], section.arguments, facts)
        noise = torch.zeros(2, model.steps, model.latent)
        caption = torch.zeros(2, 5, dtype=torch.int64) if name == "aligndraw" else None
        with Hosted() as hosted:
            models.draw_images(model, images, noise, caption).mean.sum().backward()
    assert hosted.found == []


# --- what an answer costs ---


def lstm(inputs: int, hidden: int) -> int:
    return (inputs + hidden) * 4 * hidden


def gaussian(side: int, patch: int) -> int:
    return patch * side * side + patch * side * patch


T, N, U, A = 3, 4, 32, 36  # glimpses, patch, hidden, canvas
MULTIPLY_ADDS = {
    "draw": T * (5 * U + gaussian(A, N) + lstm(N * N, U) + 10 * U),
    "eye": T * (5 * U + gaussian(A, N) + 10 * U)
    + T * (N * N * 16 * 9 + N * N // 4 * 32 * 16 * 9 + lstm(N * N + 8 * N * N + 5, U)),
    "affine": T * (6 * U + lstm(N * N, U) + 10 * U),
    "random": T * (3 * U + gaussian(A, N) + lstm(N * N + 2, U) + 10 * U),
    "fixed": T * (gaussian(A, N) + lstm(N * N, U) + 10 * U),
    "ram": T * (2 * N * N * 128 + 2 * 128 + 256 * U + lstm(U, U) + 2 * U + U + 10 * U),
    "stn": 25 * (14**2 * 12 + 3**2 * 12 * 12)
    + 12 * 30
    + 30 * 6
    + 9 * (4**2 * 32 + 2**2 * 32 * 64)
    + 64 * U
    + 10 * U,
    "fc": A * A * U + U * U + 10 * U,
    "conv2": 6 * 6 * 8 * (100 + U) + 10 * U,
    "conv6": 18**2 * 25 * 16
    + 9 * (9**2 * (16 * 32 + 32 * 32) + 5**2 * (32 * 64 + 64 * 64) + 3**2 * 64 * 128)
    + 10 * 128,
}


@pytest.mark.parametrize("name", TAKES)
def test_multiply_adds_are_those_of_the_equations(name):
    model = build(name)
    price = cost(model, A, A)
    assert price.multiply_adds == MULTIPLY_ADDS[name]
    assert price.parameters == sum(parameter.numel() for parameter in model.parameters())
    assert model.training


def test_pixels_are_counted_as_in_the_paper():
    """DRAW, Table 1: 4 glimpses of 12x12 are 576 pixels, RAM's with four scales 2,304, a whole
    image 10,000.
    """
    pixels = dict.fromkeys(("draw", "affine", "random", "fixed"), 576)
    for name, count in {**pixels, "ram": 2304, "conv2": 10000, "stn": 10000}.items():
        model = build(name, side=100, glimpses=4, patch=12, scales=4)
        assert cost(model, 100, 100).pixels_read == count


# --- committed weights, and a model of one's own ---


def test_committed_glimpse_weights_still_load():
    weights = load_file(pretrained.HOME / "glimpse-8" / "best.safetensors")
    build("eye", glimpses=8, patch=12, hidden=256).load_state_dict(weights)


@pytest.mark.parametrize("folder", [pretrained.HOME / "draw-mnist", PUBLISHED / "draw-64-640"])
def test_committed_generator_weights_still_load(folder):
    section = json.loads((folder / "config.json").read_text())["model"]
    arguments = {key: section[key] for key in section if key != "model"}
    weights = load_file(folder / "best.safetensors")
    channels, height, width = weights["start_canvas"].shape
    facts = {"channels": channels, "height": height, "width": width}
    models.make(models.GENERATORS["draw"], arguments, facts).load_state_dict(weights)


class Mine(GlimpseClassifier):
    def __init__(self, extra, **others):
        super().__init__(**others)
        self.extra = extra


class Blank(VAE):
    pass


def test_facts_reach_whoever_takes_them():
    facts = {"channels": 3, "height": 20, "width": 30, "classes": 7}
    mine = models.make(Mine, {"extra": 5, "glimpses": 2}, facts)
    assert (mine.extra, mine.channels, mine.classify.out_features) == (5, 3, 7)
    assert models.make(Blank, {"latent": 2}, facts).size == (3, 20, 30)
    assert models.make(lambda height: Draw(height, 9), {}, facts).size == (1, 20, 9)
    received = {}
    models.make(lambda **named: received.update(named), {"glimpses": 2}, facts)
    assert received == {"glimpses": 2, **facts}


def test_a_condition_is_passed_on_only_where_there_is_one():
    def model(*arguments):
        return len(arguments)

    assert models.draw_images(model, None, None) == 2
    assert models.draw_images(model, None, None, torch.zeros(1)) == 3
