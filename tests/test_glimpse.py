"""The glimpse network against explicit LSTM equations, then what its interface promises."""

import formulas
import pytest
import torch
from formulas import check_gradients, set_weights, waves
from torch import Tensor, nn

from drawbench import attention
from drawbench.attention import WINDOW_MAPS
from drawbench.models.glimpse import GlimpseClassifier
from drawbench.models.glimpses import GaussianGlimpse


def some_model(window_map: str = "bounded", patch: int = 2, **sizes: int) -> GlimpseClassifier:
    sizes = {"glimpses": 3, "hidden": 4, "classes": 3} | sizes
    return set_weights(GlimpseClassifier(GaussianGlimpse(patch, window_map), **sizes))


def some_images(batch: int = 2, channels: int = 1, height: int = 6, width: int = 7) -> Tensor:
    return waves(batch, channels, height, width) / 2 + 0.5


# --- against the twin ---


def twin(model: GlimpseClassifier, image: list, glimpses: int) -> list[tuple[list, list, list]]:
    """Return logits, window and patch of every step for one image[channel][row][column]."""
    weights, patch = model.state_dict(), model.glimpse.patch
    height, width = len(image[0]), len(image[0][0])
    hidden, cell = weights["start_hidden"].tolist(), weights["start_cell"].tolist()
    steps = []
    for _ in range(glimpses):
        numbers = formulas.linear(weights, "to_window", hidden)
        if model.glimpse.window_map == "bounded":
            numbers = formulas.squash(numbers)
        where = formulas.window(numbers, height, width, patch)
        glimpse = [formulas.read(plane, where, patch) for plane in image]
        flat = [value for plane in glimpse for row in plane for value in row]
        hidden, cell = formulas.lstm(weights, "cell", flat, hidden, cell)
        steps.append((formulas.linear(weights, "classify", hidden), where, glimpse))
    return steps


@pytest.mark.parametrize("window_map", WINDOW_MAPS)
@pytest.mark.parametrize(("channels", "height", "width"), [(1, 6, 6), (1, 5, 8), (3, 7, 4)])
@torch.no_grad()
def test_agrees_with_the_written_out_equations(window_map, channels, height, width):
    model = some_model(window_map, channels=channels)
    images = some_images(2, channels, height, width)
    record = model(images)
    for n, image in enumerate(images.tolist()):
        steps = twin(model, image, 3)
        ours = record.logits[n], torch.stack(record.windows, -1)[n], record.patches[n]
        for tensor, twins in zip(ours, zip(*steps, strict=True), strict=True):
            torch.testing.assert_close(tensor, torch.tensor(twins, dtype=torch.float64))


@pytest.mark.parametrize("window_map", WINDOW_MAPS)
def test_gradients(window_map):
    model = some_model(window_map, glimpses=2, hidden=2, classes=2)
    images = some_images(1, height=4, width=5)
    check_gradients(model, (images,), lambda record: record.logits)


# --- shapes and steps ---


@pytest.mark.parametrize("glimpses", [1, 2, 5])
@pytest.mark.parametrize("channels", [1, 3])
def test_shapes(glimpses, channels):
    model = some_model(channels=channels, glimpses=glimpses, patch=5, classes=7)
    record = model(some_images(4, channels, 9, 6))
    assert record.logits.shape == (4, glimpses, 7)
    assert record.patches.shape == (4, glimpses, channels, 5, 5)
    assert {field.shape for field in record.windows} == {(4, glimpses)}
    assert model.pixels_read == glimpses * channels * 25
    assert model.noise == 0 and model.added_loss is None


def test_the_number_of_glimpses_can_change_at_the_call():
    """What is seen in the first steps does not depend on how many follow."""
    model, images = some_model(glimpses=3), some_images()
    trained, longer, shorter = model(images), model(images, glimpses=6), model(images, glimpses=1)
    assert [record.logits.shape[1] for record in (trained, longer, shorter)] == [3, 6, 1]
    torch.testing.assert_close(longer.logits[:, :3], trained.logits)
    torch.testing.assert_close(longer.logits[:, :1], shorter.logits)
    assert model.glimpses == 3


def test_forward_is_start_and_steps():
    model, images = some_model(channels=2), some_images(3, 2)
    record, state = model(images), model.start(images)
    for t in range(3):
        state, where, patch = model.step(images, state, t)
        torch.testing.assert_close(model.classify(state.hidden), record.logits[:, t])
        torch.testing.assert_close(patch, record.patches[:, t])
        torch.testing.assert_close(attention.read(images, where, 2), record.patches[:, t])


# --- start state, randomness, learning, errors ---


def test_fault_8_the_start_state_is_learned():
    """Fault 8: a start state fixed at zero. Here it steers the first window and receives a
    gradient, cell included.
    """
    model, images = some_model(), some_images()
    record = model(images)
    record.logits.square().sum().backward()
    assert model.start_hidden.grad.abs().min() > 0 and model.start_cell.grad.abs().min() > 0
    with torch.no_grad():
        model.start_hidden.zero_()
        model.start_cell.zero_()
    fixed = model(images)
    assert not torch.allclose(fixed.windows.centre_x[:, 0], record.windows.centre_x[:, 0])
    assert not torch.allclose(fixed.logits[:, -1], record.logits[:, -1])


def test_only_the_first_window_is_the_same_for_every_image():
    windows = some_model()(some_images(3)).windows
    for field in windows:
        assert torch.equal(field[:, 0], field[:1, 0].expand(3))
    assert not torch.allclose(windows.centre_x[0, 1], windows.centre_x[1, 1])


def test_initial_weights_are_drawn_in_a_fixed_order():
    """Seeds of published runs repeat: cell, window map and classifier, the cell scaled for faint
    inputs.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        model = GlimpseClassifier(GaussianGlimpse(2), hidden=4, classes=3)
        torch.manual_seed(3)
        parts = nn.LSTMCell(4, 4), nn.Linear(4, 5), nn.Linear(4, 3)
    assert torch.equal(model.cell.weight_ih, 4 * parts[0].weight_ih)
    assert torch.equal(model.cell.weight_hh, parts[0].weight_hh)
    assert torch.equal(model.to_window.weight, parts[1].weight)
    assert torch.equal(model.classify.bias, parts[2].bias)


@pytest.mark.parametrize("name", ["glimpses", "hidden", "classes", "channels"])
def test_counts_below_one_are_named(name):
    with pytest.raises(ValueError, match=f"at least 1, got .*{name} 0"):
        GlimpseClassifier(**{name: 0})
