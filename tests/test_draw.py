"""DRAW against the paper's equations in loops, one number at a time; then the faults found in
public code; then its bound.
"""

import itertools
import math

import pytest
import torch
from torch import Tensor
from torch.autograd import gradcheck
from torch.func import functional_call

from drawbench import attention, likelihood
from drawbench.models.draw import WINDOW_MAPS, Draw
from drawbench.streams import normals

READS_AND_WRITES = [
    (2, 3),
    (None, None),
    (3, None),
    (None, 2),
]  # both, neither, read-only, write-only


def waves(*shape: int, pace: float = 0.7) -> Tensor:
    """Float64 numbers in [-1, 1] without pattern or randomness."""
    return torch.sin(pace * torch.arange(1, math.prod(shape) + 1, dtype=torch.float64) ** 1.3).view(
        shape
    )


def some_model(
    height: int = 5,
    width: int = 7,
    read_patch: int | None = 2,
    write_patch: int | None = 3,
    **others,
) -> Draw:
    """A small model in float64 whose weights are set by formula, the start included."""
    others = {"steps": 3, "hidden": 4, "latent": 2} | others
    model = Draw(height, width, read_patch=read_patch, write_patch=write_patch, **others).double()
    with torch.no_grad():
        for n, parameter in enumerate(model.parameters()):
            parameter.copy_(0.6 * waves(*parameter.shape, pace=0.5 + 0.1 * n))
    return model


def some_images(batch: int = 2, channels: int = 1, height: int = 5, width: int = 7) -> Tensor:
    return waves(batch, channels, height, width) / 2 + 0.5


def some_noise(batch: int = 2, steps: int = 3, latent: int = 2) -> Tensor:
    return 1.5 * waves(batch, steps, latent, pace=1.1)


def zero_(*layers: torch.nn.Module) -> None:
    with torch.no_grad():
        for layer in layers:
            for parameter in layer.parameters():
                parameter.zero_()


# --- the twin: one image, Python numbers, i and a numbered from 1 ---


def sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x))


def dot(row: list[float], column: list[float]) -> float:
    return sum(a * b for a, b in zip(row, column, strict=True))


def linear(weights: dict, name: str, inputs: list[float]) -> list[float]:
    """W(h): a matrix and a bias."""
    rows, bias = weights[f"{name}.weight"].tolist(), weights[f"{name}.bias"].tolist()
    return [dot(row, inputs) + b for row, b in zip(rows, bias, strict=True)]


def lstm(
    weights: dict, name: str, inputs: list[float], hidden: list[float], cell: list[float]
) -> tuple[list[float], list[float]]:
    """One step, gates i, f, g, o in torch's order of rows: ``c = f c + i g``, ``h = o tanh(c)``."""
    w_x, w_h = weights[f"{name}.weight_ih"].tolist(), weights[f"{name}.weight_hh"].tolist()
    b_x, b_h = weights[f"{name}.bias_ih"].tolist(), weights[f"{name}.bias_hh"].tolist()
    size, new_hidden, new_cell = len(hidden), [], []
    for unit in range(size):
        i, f, g, o = (
            dot(w_x[n], inputs) + b_x[n] + dot(w_h[n], hidden) + b_h[n]
            for n in range(unit, 4 * size, size)
        )
        new_cell.append(sigmoid(f) * cell[unit] + sigmoid(i) * math.tanh(g))
        new_hidden.append(sigmoid(o) * math.tanh(new_cell[-1]))
    return new_hidden, new_cell


def twin_window(
    numbers: list[float], window_map: str, height: int, width: int, patch: int
) -> list[float]:
    """g_X, g_Y, sigma squared, delta, gamma (equations 21-24)."""
    if window_map == "bounded":
        numbers = [
            m + r * math.tanh(x / r)
            for x, m, r in zip(numbers, (0, 0, 3, 0, 0), (1.2, 1.2, 2.5, 2, 1), strict=True)
        ]
    stride = (max(width, height) - 1) / (patch - 1) * math.exp(numbers[3])
    return [
        (width + 1) / 2 * (numbers[0] + 1),
        (height + 1) / 2 * (numbers[1] + 1),
        math.exp(numbers[2]),
        stride,
        math.exp(numbers[4]),
    ]


def twin_filters(
    centre: float, variance: float, stride: float, patch: int, size: int
) -> list[list[float]]:
    """F[i][a] (equations 19, 20, 25, 26)."""
    rows = []
    for i in range(1, patch + 1):
        row = [
            math.exp(-((a - (centre + (i - patch / 2 - 0.5) * stride)) ** 2) / (2 * variance))
            for a in range(1, size + 1)
        ]
        rows.append([value / sum(row) for value in row])
    return rows


def twin_read(plane: list[list[float]], window: list[float], patch: int) -> list[float]:
    """gamma F_Y x F_X^T, row by row (equation 27)."""
    f_y = twin_filters(window[1], window[2], window[3], patch, len(plane))
    f_x = twin_filters(window[0], window[2], window[3], patch, len(plane[0]))
    pixels = [(b, a) for b in range(len(plane)) for a in range(len(plane[0]))]
    return [
        window[4] * sum(f_y[i][b] * plane[b][a] * f_x[j][a] for b, a in pixels)
        for i in range(patch)
        for j in range(patch)
    ]


def twin_write(
    values: list[float], window: list[float], patch: int, height: int, width: int
) -> list[list[float]]:
    """F_Y^T w F_X / gamma (equation 29)."""
    f_y, f_x = (
        twin_filters(window[1 - n], window[2], window[3], patch, size)
        for n, size in enumerate((height, width))
    )
    cells = [(i, j) for i in range(patch) for j in range(patch)]
    return [
        [
            sum(f_y[i][b] * values[i * patch + j] * f_x[j][a] for i, j in cells) / window[4]
            for a in range(width)
        ]
        for b in range(height)
    ]


def twin(model: Draw, image: list, noise: list) -> list[dict]:
    """Every step of equations 1-8 for one image[channel][row][column] and noise[step][latent]."""
    weights, (channels, height, width) = model.state_dict(), model.size
    canvas = weights["start_canvas"].tolist()
    h_enc, c_enc, h_dec, c_dec = (weights[f"start_{name}"].tolist() for name in START_STATES)
    steps = []
    for t in range(model.steps):
        error = [
            [
                [image[c][b][a] - sigmoid(canvas[c][b][a]) for a in range(width)]
                for b in range(height)
            ]
            for c in range(channels)
        ]
        read_window, write_window, patch = None, None, model.read_patch
        if patch is None:
            r = [x for plane in image + error for row in plane for x in row]
        else:
            read_window = twin_window(
                linear(weights, "to_read_window", h_dec), model.window_map, height, width, patch
            )
            r = [x for plane in image + error for x in twin_read(plane, read_window, patch)]
        h_enc, c_enc = lstm(weights, "encoder", r + h_dec, h_enc, c_enc)
        mu, log_sigma = linear(weights, "to_mu", h_enc), linear(weights, "to_log_sigma", h_enc)
        z = [m + math.exp(s) * e for m, s, e in zip(mu, log_sigma, noise[t], strict=True)]
        h_dec, c_dec = lstm(weights, "decoder", z, h_dec, c_dec)
        w, patch = linear(weights, "to_patch", h_dec), model.write_patch
        area = height * width if patch is None else patch**2
        if patch is not None:
            write_window = twin_window(
                linear(weights, "to_write_window", h_dec), model.window_map, height, width, patch
            )
        for c in range(channels):
            part = w[c * area : (c + 1) * area]
            if patch is None:
                drawing = [part[b * width : (b + 1) * width] for b in range(height)]
            else:
                drawing = twin_write(part, write_window, patch, height, width)
            canvas[c] = [
                [old + new for old, new in zip(*rows, strict=True)]
                for rows in zip(canvas[c], drawing, strict=True)
            ]
        picture = [[list(row) for row in plane] for plane in canvas]
        steps.append(
            {
                "canvas": picture,
                "mu": mu,
                "log_sigma": log_sigma,
                "read": read_window,
                "write": write_window,
            }
        )
    return steps


START_STATES = ("encoder_hidden", "encoder_cell", "decoder_hidden", "decoder_cell")


def agree(found: Tensor, wanted: list) -> None:
    torch.testing.assert_close(
        found, torch.tensor(wanted, dtype=torch.float64), rtol=1e-10, atol=1e-12
    )


@pytest.mark.parametrize("window_map", WINDOW_MAPS)
@pytest.mark.parametrize(("read_patch", "write_patch"), READS_AND_WRITES)
@pytest.mark.parametrize(("channels", "height", "width"), [(1, 4, 4), (3, 5, 3), (2, 3, 6)])
@torch.no_grad()
def test_agrees_with_the_written_out_equations(
    channels, height, width, read_patch, write_patch, window_map
):
    model = some_model(
        height, width, read_patch, write_patch, channels=channels, window_map=window_map
    )
    images, noise = some_images(2, channels, height, width), some_noise()
    found = model(images, noise, keep_canvases=True)
    for n in range(2):
        steps = twin(model, images[n].tolist(), noise[n].tolist())
        agree(found.canvases[n], [step["canvas"] for step in steps])
        agree(found.logits[n], steps[-1]["canvas"])
        agree(found.mu[n], [step["mu"] for step in steps])
        agree(found.log_sigma[n], [step["log_sigma"] for step in steps])
        for windows, patch, name in (
            (found.read_windows, read_patch, "read"),
            (found.write_windows, write_patch, "write"),
        ):
            assert (windows is None) == (patch is None)
            if windows is not None:
                agree(torch.stack(windows, dim=-1)[n], [step[name] for step in steps])


@pytest.mark.parametrize(("read_patch", "write_patch"), [(2, 2), (None, None)])
def test_gradients(read_patch, write_patch):
    """Of the bound, with respect to every weight, the start included."""
    model = some_model(2, 3, read_patch, write_patch, steps=2, hidden=1, latent=1)
    images, noise = some_images(1, 1, 2, 3), some_noise(1, 2, 1)
    weights = {
        name: parameter.detach().clone().requires_grad_()
        for name, parameter in model.named_parameters()
    }

    def bound(*values: Tensor) -> Tensor:
        drawing = functional_call(model, dict(zip(weights, values, strict=True)), (images, noise))
        return likelihood.terms(drawing.logits, images, drawing.mu, drawing.log_sigma).bound

    assert gradcheck(bound, tuple(weights.values()))


# --- shapes and records ---


@pytest.mark.parametrize(("read_patch", "write_patch"), READS_AND_WRITES)
@pytest.mark.parametrize("channels", [1, 3])
def test_shapes(read_patch, write_patch, channels):
    model = some_model(6, 9, read_patch, write_patch, channels=channels, steps=5)
    seen, drawn = (
        model(some_images(4, channels, 6, 9), some_noise(4, 5)),
        model.sample(some_noise(4, 5), keep_canvases=True),
    )
    assert seen.logits.shape == drawn.logits.shape == (4, channels, 6, 9)
    assert seen.mu.shape == seen.log_sigma.shape == (4, 5, 2)
    assert seen.canvases is None and drawn.canvases.shape == (4, 5, channels, 6, 9)
    for windows, patch in (
        (seen.read_windows, read_patch),
        (seen.write_windows, write_patch),
        (drawn.write_windows, write_patch),
    ):
        assert windows is None if patch is None else {field.shape for field in windows} == {(4, 5)}


def test_the_canvas_is_the_start_and_the_sum_of_the_writes():
    model, images, noise = some_model(channels=2), some_images(2, 2), some_noise()
    drawing = model(images, noise, keep_canvases=True)
    assert torch.equal(drawing.canvases[:, -1], drawing.logits)
    zero_(model.to_patch)
    still = model(images, noise, keep_canvases=True)
    torch.testing.assert_close(still.canvases, model.start_canvas.expand(2, 3, -1, -1, -1))


def test_colour_has_one_window_for_all_channels():
    """Channels with the same patch are drawn alike, and the window maps do not grow with the
    channels.
    """
    model = some_model(channels=3)
    assert model.to_read_window.weight.shape == model.to_write_window.weight.shape == (5, 4)
    with torch.no_grad():
        model.start_canvas.zero_()
        for parameter in model.to_patch.parameters():
            parameter.copy_(parameter[:9].repeat(3, *[1] * (parameter.dim() - 1)))
    picture = model.sample(some_noise()).logits
    torch.testing.assert_close(picture[:, 1:], picture[:, :1].expand(-1, 2, -1, -1))


def test_images_do_not_influence_each_other():
    model, images, noise = some_model(), some_images(3), some_noise(3)
    together = model(images, noise)
    alone = [model(images[n : n + 1], noise[n : n + 1]) for n in range(3)]
    torch.testing.assert_close(together.logits, torch.cat([one.logits for one in alone]))
    torch.testing.assert_close(together.mu, torch.cat([one.mu for one in alone]))


def test_first_windows_lie_over_the_whole_image():
    """Fresh weights of the window maps are small, so the first grid spans the image, whatever the
    state.
    """
    torch_state = torch.get_rng_state()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = Draw(28, 28, steps=2, hidden=32, latent=3)
        windows = model(torch.zeros(1, 1, 28, 28), torch.zeros(1, 2, 3)).write_windows
    assert torch.equal(torch.get_rng_state(), torch_state)
    torch.testing.assert_close(windows.centre_x, torch.full((1, 2), 14.5), rtol=0, atol=1.0)
    torch.testing.assert_close(windows.stride, torch.full((1, 2), 27 / 4), rtol=0.05, atol=0)


# --- the faults of public code ---


@pytest.mark.parametrize("patch", [2, 3])
def test_faults_1_and_9_a_centred_window_is_symmetric(patch):
    """Faults 1 and 9: filters numbered from 0, pixels numbered from 0. Windows in the middle treat
    an image and its mirror alike.
    """
    model = some_model(read_patch=patch, write_patch=patch)
    zero_(model.to_read_window, model.to_write_window)
    images, hidden = some_images(), waves(2, 4)
    for axis in (2, 3):
        straight, mirrored = (
            model._read(one, one / 2, hidden)[0].view(2, 2, patch, patch)
            for one in (images, images.flip(axis))
        )
        torch.testing.assert_close(mirrored, straight.flip(axis))
    with torch.no_grad():
        model.to_patch.weight.zero_()
        model.to_patch.bias.fill_(1.0)
    drawing, _ = model._write(hidden)
    torch.testing.assert_close(drawing, drawing.flip(2).flip(3))
    assert drawing.sum().item() == pytest.approx(2 * patch**2)  # every row of filters is there


@pytest.mark.parametrize("variance", [1.0, 4.0, 9.0])
def test_fault_2_the_variance_is_that_of_what_is_written(variance):
    """Fault 2: the square over the whole quotient. A dot written with variance 4 must have a second
    moment of 4, not of 32.
    """
    model = some_model(1, 61, write_patch=1)
    zero_(model.to_patch, model.to_write_window)
    with torch.no_grad():
        model.to_patch.bias.fill_(1.0)
        model.to_write_window.bias[2] = math.log(variance)
    drawing, window = model._write(waves(1, 4))
    pixels = torch.arange(1, 62, dtype=torch.float64)
    assert (
        drawing[0, 0, 0] * (pixels - window.centre_x[0]).square()
    ).sum().item() == pytest.approx(variance, rel=1e-6)


def test_fault_3_reading_and_writing_have_maps_of_their_own():
    """Fault 3: one shared map; rows from the column's centre. Each map moves its own window, and
    each centre its own axis.
    """
    model, images, noise = some_model(), some_images(), some_noise()
    before = model(images, noise)
    with torch.no_grad():
        model.to_write_window.bias[1] += 0.3
    after = model(images, noise)
    assert torch.equal(after.read_windows.centre_y[:, 0], before.read_windows.centre_y[:, 0])
    torch.testing.assert_close(
        after.write_windows.centre_y[:, 0], before.write_windows.centre_y[:, 0] + 0.3 * 3
    )
    torch.testing.assert_close(
        after.write_windows.centre_x[:, 0], before.write_windows.centre_x[:, 0]
    )
    torch.testing.assert_close(after.mu[:, 0], before.mu[:, 0])

    with torch.no_grad():
        model.to_write_window.bias[1] -= 0.3
        model.to_read_window.bias[0] += 0.3
    after = model(images, noise)
    torch.testing.assert_close(
        after.read_windows.centre_x[:, 0], before.read_windows.centre_x[:, 0] + 0.3 * 4
    )
    torch.testing.assert_close(
        after.read_windows.centre_y[:, 0], before.read_windows.centre_y[:, 0]
    )
    torch.testing.assert_close(
        model.sample(noise).logits, some_model().sample(noise).logits
    )  # the writer never asks the reader


def test_fault_3_read_from_the_old_decoder_and_write_from_the_new():
    """The first read window comes from the learned start; the write window of the same step already
    knows the latent.
    """
    drawing = some_model()(some_images(), some_noise())
    for field in drawing.read_windows:
        assert torch.equal(field[0, 0], field[1, 0])
    assert not torch.allclose(
        drawing.write_windows.centre_x[0, 0], drawing.write_windows.centre_x[1, 0]
    )


def test_fault_4_a_posterior_that_is_the_prior_costs_exactly_0():
    """Fault 4: a KL constant of -T/2 in all."""
    model, images, noise = some_model(latent=5), some_images(), some_noise(latent=5)
    zero_(model.to_mu, model.to_log_sigma)
    drawing = model(images, noise)
    losses = likelihood.terms(drawing.logits, images, drawing.mu, drawing.log_sigma)
    assert losses.kl.tolist() == [[0.0] * 3] * 2
    log_w = likelihood.log_weights(drawing.logits, images, drawing.mu, drawing.log_sigma, noise)
    torch.testing.assert_close(log_w, -losses.reconstruction, rtol=1e-15, atol=0)


def test_fault_5_every_step_has_noise_of_its_own():
    """Fault 5: one noise tensor for all steps. Each step's noise changes that step's canvas and
    none before it.
    """
    model, images, noise = some_model(), some_images(), some_noise()
    before = model(images, noise, keep_canvases=True)
    for t in range(3):
        other = noise.clone()
        other[:, t] += 0.5
        after = model(images, other, keep_canvases=True)
        torch.testing.assert_close(after.canvases[:, :t], before.canvases[:, :t], rtol=0, atol=0)
        torch.testing.assert_close(after.mu[:, : t + 1], before.mu[:, : t + 1], rtol=0, atol=0)
        for step in range(t, 3):
            assert not torch.allclose(after.canvases[:, step], before.canvases[:, step], atol=1e-6)
    steps = normals(torch.arange(4), 3 * 2, 0, "noise").view(4, 3, 2)
    assert not torch.isclose(steps[:, :1], steps[:, 1:]).any()


@pytest.mark.parametrize("shape", [(2, 2), (2, 1, 2), (2, 3, 1), (1, 3, 2), (2, 4, 2)])
def test_fault_5_noise_that_would_be_shared_is_refused(shape):
    with pytest.raises(ValueError, match="noise"):
        some_model()(some_images(), torch.zeros(shape, dtype=torch.float64))


@pytest.mark.parametrize(("read_patch", "write_patch"), READS_AND_WRITES)
def test_fault_6_samples_see_no_image_and_no_encoder(read_patch, write_patch):
    """Fault 6: samples that are reconstructions. Where the posterior is the prior, and only there,
    both are the same drawing.
    """
    model, noise = some_model(read_patch=read_patch, write_patch=write_patch), some_noise()
    sample = model.sample(noise, keep_canvases=True)
    assert not torch.allclose(
        model(some_images(), noise).logits, model(1 - some_images(), noise).logits
    )
    zero_(model.to_mu, model.to_log_sigma)
    for images in (some_images(), 1 - some_images()):
        torch.testing.assert_close(
            model(images, noise, keep_canvases=True).canvases, sample.canvases
        )
    zero_(model.encoder)
    assert torch.equal(model.sample(noise).logits, sample.logits)


def test_fault_7_batch_size_does_not_matter_with_noise_by_image():
    """Fault 7: means of batch means, dropped or padded batches. 11 images in batches of 4 leave one
    of 3.
    """
    model, images = some_model(), (some_images(11) > 0.5).double()

    def bounds(size: int) -> Tensor:
        parts = []
        for index in torch.arange(11).split(size):
            noise = normals(index, 3 * 2, 0, "noise").view(-1, 3, 2)
            drawing = model(images[index], noise)
            parts.append(
                likelihood.terms(
                    drawing.logits, images[index], drawing.mu, drawing.log_sigma, torch.float64
                ).bound
            )
        return torch.cat(parts)

    whole = bounds(11)
    for size in (1, 4):
        torch.testing.assert_close(bounds(size), whole, rtol=1e-12, atol=0)


def test_fault_8_all_that_is_there_before_the_first_step_is_learned():
    """Fault 8: a start fixed at zero, so that the drawing starts from grey."""
    model, images, noise = some_model(), some_images(), some_noise()
    before = model(images, noise)
    likelihood.terms(before.logits, images, before.mu, before.log_sigma).bound.sum().backward()
    parameters = dict(model.named_parameters())
    for name in ("start_canvas", *(f"start_{name}" for name in START_STATES)):
        assert parameters[name].grad.abs().min() > 0, name
        other = some_model()
        with torch.no_grad():
            dict(other.named_parameters())[name].zero_()
        assert not torch.allclose(other(images, noise).logits, before.logits), name
    assert model.start_canvas.shape == (1, 5, 7)


# --- what it costs ---


@pytest.mark.parametrize(("read_patch", "write_patch"), READS_AND_WRITES)
def test_zero_weights_cost_ln_2_a_pixel(read_patch, write_patch):
    model = some_model(28, 20, read_patch, write_patch, channels=3)
    zero_(model)
    images, noise = (some_images(2, 3, 28, 20) > 0.5).double(), some_noise()
    drawing = model(images, noise)
    losses = likelihood.terms(drawing.logits, images, drawing.mu, drawing.log_sigma)
    assert losses.kl.abs().max() == 0
    torch.testing.assert_close(
        losses.bound, torch.full((2,), 3 * 28 * 20 * math.log(2)).double(), rtol=1e-7, atol=0
    )


def grid(points: int = 161, reach: float = 9.0) -> tuple[Tensor, Tensor]:
    """Noise (points^2, 2 steps, 1 latent) and the probability of each, for integrals over two
    standard normals.
    """
    line = torch.linspace(-reach, reach, points, dtype=torch.float64)
    density = torch.exp(-0.5 * line.square()) * (line[1] - line[0]) / math.sqrt(2 * math.pi)
    return torch.cartesian_prod(line, line).view(-1, 2, 1), (density[:, None] * density).flatten()


@pytest.mark.parametrize(("read_patch", "write_patch"), [(2, 2), (None, None)])
@torch.no_grad()
def test_mean_weight_is_the_likelihood_and_the_bound_is_below(read_patch, write_patch):
    """Two pixels, two steps, one latent: p(x) is known by integration over what the decoder draws
    alone.

    The encoder's weights must have just that mean, and the mean bound lie below; all four images
    together have probability 1.
    A shared noise, a wrong constant, a posterior that is not the one sampled from: each would break
        it.
    """
    model, (noise, mass) = (
        some_model(1, 2, read_patch, write_patch, steps=2, hidden=2, latent=1),
        grid(),
    )
    prior, total = model.sample(noise).logits, 0.0
    for image in torch.cartesian_prod(*[torch.tensor([0.0, 1.0], dtype=torch.float64)] * 2):
        images = image.view(1, 1, 1, 2).expand(len(noise), -1, -1, -1)
        truth = (mass * likelihood.bernoulli_log_likelihood(prior, images).exp()).sum().item()
        drawing = model(images, noise)
        log_w = likelihood.log_weights(drawing.logits, images, drawing.mu, drawing.log_sigma, noise)
        assert (mass * log_w.exp()).sum().item() == pytest.approx(truth, rel=1e-4)
        bound = (
            (mass * likelihood.terms(drawing.logits, images, drawing.mu, drawing.log_sigma).bound)
            .sum()
            .item()
        )
        assert bound == pytest.approx(-(mass * log_w).sum().item(), rel=1e-6)
        assert bound > -math.log(truth) + 1e-3
        total += truth
    assert total == pytest.approx(1, rel=1e-9)


@torch.no_grad()
def test_importance_weighting_closes_the_gap():
    """More samples, a mean bound nearer to the truth and never beyond it; 16 samples leave at most
    a tenth of the gap.
    """
    model, (noise, mass) = some_model(1, 2, 2, 2, steps=2, hidden=2, latent=1), grid(61)
    images = torch.tensor([1.0, 0.0], dtype=torch.float64).view(1, 1, 1, 2)
    prior = likelihood.bernoulli_log_likelihood(
        model.sample(noise).logits, images.expand(len(noise), -1, -1, -1)
    )
    truth = math.log((mass * prior.exp()).sum().item())
    noise = normals(torch.arange(1 << 15), 2, 0, "noise").view(-1, 2, 1)
    images = images.expand(len(noise), -1, -1, -1)
    drawing = model(images, noise)
    log_w = likelihood.log_weights(drawing.logits, images, drawing.mu, drawing.log_sigma, noise)
    gaps = []
    for samples in (1, 2, 4, 16):
        total = likelihood.importance_weighted(log_w.view(samples, -1))
        surplus = (
            total.log_likelihood - truth
        ).exp().mean().item() - 1  # its mean is 0, and so most of the noise goes
        gaps.append(truth - total.log_likelihood.mean().item() + surplus)
    assert all(0 < later < earlier for earlier, later in itertools.pairwise(gaps))
    assert gaps[-1] < 0.1 * gaps[0]


# --- learning and errors ---


def test_a_forward_pass_uses_no_random_numbers():
    model, before = some_model(), torch.get_rng_state()
    first, second = (model(some_images(), some_noise()).logits for _ in range(2))
    model.sample(some_noise())
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(first, second)


@torch.no_grad()
def test_under_autocast_the_record_is_float32():
    """Half precision is for matrix products; what the bound is made of stays wide."""
    model, images, noise = some_model().float(), some_images().float(), some_noise().float()
    exact = model(images, noise)
    with torch.autocast("cpu", torch.bfloat16):
        drawing = model(images, noise)
    for found, wanted in zip(drawing[:3], exact[:3], strict=True):
        assert found.dtype == torch.float32
        torch.testing.assert_close(found, wanted, rtol=0.05, atol=0.05)


def test_a_clipped_window_draws_the_same_and_learns_less():
    free, clipped = some_model(), some_model(window_clip=1e-6)
    gradients = []
    for model in (free, clipped):
        model(some_images(), some_noise()).logits.square().sum().backward()
        gradients.append(model.to_write_window.bias.grad.norm().item())
    assert torch.equal(
        free(some_images(), some_noise()).logits, clipped(some_images(), some_noise()).logits
    )
    assert (
        gradients[1] <= 3e-6 < gradients[0]
    )  # three steps, two images with half of the limit each


@pytest.mark.parametrize(("read_patch", "write_patch"), [(3, 3), (None, None)])
def test_a_toy_problem_is_learned(read_patch, write_patch):
    """Left half or right half: ln 2 would be perfect; a grey canvas, and the best that needs no
    latent, cost 16 ln 2.
    """
    images = torch.zeros(2, 1, 4, 4)
    images[0, ..., :2] = images[1, ..., 2:] = 1
    model = some_model(4, 4, read_patch, write_patch, steps=2, hidden=8).float()
    optimiser = torch.optim.Adam(model.parameters(), lr=0.03)
    bounds = []
    for step in range(50):
        noise = normals(torch.arange(2), 2 * 2, 0, "train", step).view(2, 2, 2).float()
        drawing = model(images, noise)
        losses = likelihood.terms(drawing.logits, images, drawing.mu, drawing.log_sigma)
        optimiser.zero_grad()
        losses.bound.mean().backward()
        optimiser.step()
        bounds.append(losses.bound.mean().item())
    assert sum(bounds[-10:]) / 10 < 0.8 * 16 * math.log(2)
    assert losses.kl.sum(1).mean().item() > 0.3


COUNTS = ["height", "width", "channels", "steps", "hidden", "latent", "read_patch", "write_patch"]


@pytest.mark.parametrize("name", COUNTS)
def test_counts_below_one_are_named(name):
    with pytest.raises(ValueError, match=f"at least 1, got .*{name} 0"):
        Draw(**{"height": 4, "width": 4} | {name: 0})


def test_an_unknown_map_is_named():
    with pytest.raises(ValueError, match=r"window_map must be one of .*'linear'.*got 'quadratic'"):
        Draw(4, 4, window_map="quadratic")


def test_images_of_another_size_are_named():
    with pytest.raises(ValueError, match=r"images must be \(2, 1, 5, 7\).*\(2, 1, 7, 5\)"):
        some_model()(some_images().mT, some_noise())


def test_the_maps_differ_and_only_one_is_bounded():
    linear_map, bounded = (some_model(window_map=window_map) for window_map in WINDOW_MAPS)
    for model in (linear_map, bounded):
        with torch.no_grad():
            model.to_write_window.bias.fill_(4.0)
            model.to_write_window.weight.zero_()
    limit = attention.BOUND_RADIUS[0]
    assert linear_map.sample(some_noise()).write_windows.centre_x.max().item() == pytest.approx(
        4 * (4 + 1)
    )
    assert bounded.sample(some_noise()).write_windows.centre_x.max().item() < 4 * (limit + 1)
