"""The glimpse classifier against explicit LSTM equations, then what its interface promises."""

import pytest
import torch
from torch import Tensor
from torch.autograd import gradcheck
from torch.func import functional_call

from drawbench import attention
from drawbench.models.glimpse import WINDOW_MAPS, GlimpseClassifier


def waves(*shape: int, pace: float = 0.7) -> Tensor:
    """Float64 numbers in [-1, 1] without pattern or randomness."""
    count = torch.Size(shape).numel()
    return torch.sin(pace * torch.arange(1, count + 1, dtype=torch.float64) ** 1.3).view(shape)


def some_model(window_map: str = "bounded", channels: int = 1, **sizes: int) -> GlimpseClassifier:
    """A small model in float64 whose weights are set by formula, the start state included."""
    sizes = {"glimpses": 3, "patch": 2, "hidden": 4, "classes": 3} | sizes
    model = GlimpseClassifier(channels=channels, window_map=window_map, **sizes).double()
    with torch.no_grad():
        for n, parameter in enumerate(model.parameters()):
            parameter.copy_(0.6 * waves(*parameter.shape, pace=0.5 + 0.1 * n))
    return model


def some_images(batch: int = 2, channels: int = 1, height: int = 6, width: int = 7) -> Tensor:
    return waves(batch, channels, height, width) / 2 + 0.5


# --- against the twin ---


def sigmoid(x: Tensor) -> Tensor:
    return 1 / (1 + torch.exp(-x))


def twin(
    model: GlimpseClassifier, image: Tensor, glimpses: int
) -> list[tuple[Tensor, attention.Window, Tensor]]:
    """Logits, window and patch of every step for one image (C, H, W), the LSTM written out gate by
    gate.

    ``i, f, g, o`` in torch's order of rows; ``c = f c + i g``, ``h = o tanh(c)``.
    """
    weights, size = dict(model.named_parameters()), model.cell.hidden_size
    hidden, cell = weights["start_hidden"], weights["start_cell"]
    steps = []
    for _ in range(glimpses):
        numbers = weights["to_window.weight"] @ hidden + weights["to_window.bias"]
        if model.window_map == "bounded":
            middle, radius = torch.tensor(
                [[0, 0, 3, 0, 0], [1.2, 1.2, 2.5, 2, 1]], dtype=torch.float64
            )
            numbers = middle + radius * torch.tanh(numbers / radius)
        where = attention.window(numbers[None], *image.shape[-2:], model.patch)
        patch = attention.read(image[None], where, model.patch)[0]
        gates = []
        for gate in range(4):
            rows = slice(gate * size, (gate + 1) * size)
            gates.append(
                weights["cell.weight_ih"][rows] @ patch.reshape(-1)
                + weights["cell.bias_ih"][rows]
                + weights["cell.weight_hh"][rows] @ hidden
                + weights["cell.bias_hh"][rows]
            )
        cell = sigmoid(gates[1]) * cell + sigmoid(gates[0]) * torch.tanh(gates[2])
        hidden = sigmoid(gates[3]) * torch.tanh(cell)
        steps.append((weights["classify.weight"] @ hidden + weights["classify.bias"], where, patch))
    return steps


@pytest.mark.parametrize("window_map", WINDOW_MAPS)
@pytest.mark.parametrize(("channels", "height", "width"), [(1, 6, 6), (1, 5, 8), (3, 7, 4)])
def test_agrees_with_the_written_out_equations(window_map, channels, height, width):
    model, images = some_model(window_map, channels), some_images(2, channels, height, width)
    with torch.no_grad():
        found = model(images)
        for n, image in enumerate(images):
            for t, (logits, where, patch) in enumerate(twin(model, image, 3)):
                torch.testing.assert_close(found.logits[n, t], logits)
                torch.testing.assert_close(found.patches[n, t], patch)
                for field, wanted in zip(found.windows, where, strict=True):
                    torch.testing.assert_close(field[n, t], wanted[0])


@pytest.mark.parametrize("window_map", WINDOW_MAPS)
def test_gradients(window_map):
    model = some_model(window_map, glimpses=2, hidden=2, classes=2)
    weights = {
        name: parameter.detach().clone().requires_grad_()
        for name, parameter in model.named_parameters()
    }

    def logits(*values: Tensor) -> Tensor:
        return functional_call(
            model, dict(zip(weights, values, strict=True)), some_images(1, height=4, width=5)
        ).logits

    assert gradcheck(logits, tuple(weights.values()))


# --- shapes and steps ---


@pytest.mark.parametrize("glimpses", [1, 2, 5])
@pytest.mark.parametrize("channels", [1, 3])
def test_shapes(glimpses, channels):
    model = some_model(channels=channels, glimpses=glimpses, patch=5, classes=7)
    seen = model(some_images(4, channels, 9, 6))
    assert seen.logits.shape == (4, glimpses, 7)
    assert seen.patches.shape == (4, glimpses, channels, 5, 5)
    assert {field.shape for field in seen.windows} == {(4, glimpses)}


def test_the_number_of_glimpses_can_change_at_the_call():
    """What was seen in the first steps does not depend on how many follow."""
    model, images = some_model(glimpses=3), some_images()
    trained, longer, shorter = model(images), model(images, glimpses=6), model(images, glimpses=1)
    assert [seen.logits.shape[1] for seen in (trained, longer, shorter)] == [3, 6, 1]
    torch.testing.assert_close(longer.logits[:, :3], trained.logits)
    torch.testing.assert_close(longer.logits[:, :1], shorter.logits)
    assert model.glimpses == 3


@pytest.mark.parametrize("window_map", WINDOW_MAPS)
def test_the_windows_returned_are_those_that_were_read_through(window_map):
    model, images = some_model(window_map, channels=2), some_images(3, 2)
    seen = model(images)
    for t in range(3):
        where = attention.Window(*(field[:, t] for field in seen.windows))
        torch.testing.assert_close(attention.read(images, where, model.patch), seen.patches[:, t])


def test_images_do_not_influence_each_other():
    model, images = some_model(), some_images(3)
    together = model(images).logits
    alone = torch.cat([model(image[None]).logits for image in images])
    torch.testing.assert_close(together, alone)


def test_the_maps_differ_and_only_one_is_bounded():
    bounded, linear = (some_model(window_map) for window_map in ("bounded", "linear"))
    for model in (bounded, linear):
        with torch.no_grad():
            model.to_window.bias.fill_(4.0)
    hidden = torch.zeros(1, 4, dtype=torch.float64)
    assert linear.look(hidden, 11, 11).centre_x.item() == pytest.approx(6 * (4 + 1))
    assert bounded.look(hidden, 11, 11).centre_x.item() < 6 * (1.2 + 1)
    assert linear.look(hidden, 11, 11).intensity.log().item() == pytest.approx(4)
    assert bounded.look(hidden, 11, 11).intensity.log().item() < 1


# --- start state, randomness, learning, errors ---


def test_fault_8_the_start_state_is_learned():
    """Fault 8: a start state fixed at zero. Here it steers the first window and receives a
    gradient, cell included.
    """
    model, images = some_model(), some_images()
    parameters = dict(model.named_parameters())
    assert {"start_hidden", "start_cell"} <= parameters.keys()
    seen = model(images)
    seen.logits.square().sum().backward()
    assert parameters["start_hidden"].grad.abs().min() > 0
    assert parameters["start_cell"].grad.abs().min() > 0

    wrong = some_model()
    with torch.no_grad():
        wrong.start_hidden.zero_()
        wrong.start_cell.zero_()
    fixed = wrong(images)
    assert not torch.allclose(fixed.windows.centre_x[:, 0], seen.windows.centre_x[:, 0])
    assert not torch.allclose(fixed.logits[:, -1], seen.logits[:, -1])


def test_the_first_window_is_the_same_for_every_image():
    windows = some_model()(some_images(3)).windows
    for field in windows:
        assert torch.equal(field[:, 0], field[:1, 0].expand(3))
    assert not torch.allclose(
        windows.centre_x[0, 1], windows.centre_x[1, 1]
    )  # the second depends on what was seen


def test_a_forward_pass_uses_no_random_numbers():
    model, images = some_model(), some_images()
    before = torch.get_rng_state()
    first, second = model(images).logits, model(images).logits
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(first, second)


def test_a_toy_problem_is_learned():
    """Find out on which side a bright blob lies, from two glimpses; weights set by formula, so
    nothing is left to chance.
    """
    images, labels = torch.zeros(16, 1, 12, 12), torch.arange(16) % 2
    for n in range(16):
        column = 1 + n // 8 if n % 2 == 0 else 8 + n // 8
        images[n, 0, n // 2 : n // 2 + 3, column : column + 3] = 1
    model = some_model(glimpses=2, patch=4, hidden=16, classes=2).float()
    optimiser = torch.optim.Adam(model.parameters(), lr=0.02)
    losses = []
    for _ in range(40):
        loss = torch.nn.functional.cross_entropy(model(images).logits[:, -1], labels)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    assert losses[-1] < 0.1 * losses[0]
    assert model(images).logits[:, -1].argmax(-1).tolist() == labels.tolist()


@pytest.mark.parametrize("name", ["glimpses", "patch", "hidden", "classes", "channels"])
def test_counts_below_one_are_named(name):
    with pytest.raises(ValueError, match=f"at least 1, got .*{name} 0"):
        GlimpseClassifier(**{name: 0})


def test_an_unknown_map_is_named():
    with pytest.raises(ValueError, match=r"window_map must be one of .*'linear'.*got 'quadratic'"):
        GlimpseClassifier(window_map="quadratic")
