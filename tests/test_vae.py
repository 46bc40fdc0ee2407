"""The plain variational autoencoder: its equations in loops, its record, its bound against a
likelihood found by integration.
"""

import math

import pytest
import torch
from torch import Tensor
from torch.autograd import gradcheck
from torch.func import functional_call

from drawbench import likelihood
from drawbench.models.vae import VAE
from drawbench.streams import normals


def waves(*shape: int, pace: float = 0.7) -> Tensor:
    """Float64 numbers in [-1, 1] without pattern or randomness."""
    return torch.sin(pace * torch.arange(1, math.prod(shape) + 1, dtype=torch.float64) ** 1.3).view(
        shape
    )


def some_model(
    height: int = 2, width: int = 3, channels: int = 1, hidden: int = 4, latent: int = 2
) -> VAE:
    """In float64, with weights set by formula."""
    model = VAE(height, width, channels, hidden, latent).double()
    with torch.no_grad():
        for n, parameter in enumerate(model.parameters()):
            parameter.copy_(0.6 * waves(*parameter.shape, pace=0.5 + 0.1 * n))
    return model


def some_images(batch: int = 2, channels: int = 1, height: int = 2, width: int = 3) -> Tensor:
    return waves(batch, channels, height, width) / 2 + 0.5


def layer(weights: dict, name: str, inputs: list[float]) -> list[float]:
    """W x + b, one output at a time."""
    rows, bias = weights[f"{name}.weight"].tolist(), weights[f"{name}.bias"].tolist()
    return [
        sum(w * x for w, x in zip(row, inputs, strict=True)) + b
        for row, b in zip(rows, bias, strict=True)
    ]


@pytest.mark.parametrize("channels", [1, 3])
def test_agrees_with_loops(channels):
    model, images, noise = (
        some_model(channels=channels),
        some_images(channels=channels),
        2 * waves(2, 1, 2, pace=1.1),
    )
    found, weights = model(images, noise), model.state_dict()
    for n in range(2):
        hidden = [math.tanh(one) for one in layer(weights, "encoder", images[n].flatten().tolist())]
        mu, log_sigma = layer(weights, "to_mu", hidden), layer(weights, "to_log_sigma", hidden)
        z = [
            m + math.exp(s) * e for m, s, e in zip(mu, log_sigma, noise[n, 0].tolist(), strict=True)
        ]
        logits = layer(
            weights, "to_logits", [math.tanh(one) for one in layer(weights, "decoder", z)]
        )
        assert found.mu[n, 0].tolist() == pytest.approx(mu, rel=1e-12)
        assert found.log_sigma[n, 0].tolist() == pytest.approx(log_sigma, rel=1e-12)
        assert found.logits[n].flatten().tolist() == pytest.approx(logits, rel=1e-12)


def test_gradients():
    model, images, noise = some_model(hidden=2, latent=1), some_images(1), waves(1, 1, 1)
    weights = {
        name: parameter.detach().clone().requires_grad_()
        for name, parameter in model.named_parameters()
    }

    def bound(*values: Tensor) -> Tensor:
        drawing = functional_call(model, dict(zip(weights, values, strict=True)), (images, noise))
        return likelihood.terms(drawing.logits, images, drawing.mu, drawing.log_sigma).bound

    assert gradcheck(bound, tuple(weights.values()))


def test_the_record_is_that_of_draw_with_one_step():
    model, images = some_model(channels=3), some_images(channels=3)
    drawing = model(images, waves(2, 1, 2), keep_canvases=True)
    assert drawing.logits.shape == images.shape
    assert drawing.mu.shape == drawing.log_sigma.shape == (2, 1, 2)
    assert drawing.read_windows is None and drawing.write_windows is None
    assert torch.equal(drawing.canvases[:, -1], drawing.logits)
    sample = model.sample(waves(2, 1, 2), keep_canvases=True)
    assert torch.equal(sample.canvases[:, -1], sample.logits)
    assert (
        model(images, waves(2, 1, 2)).canvases is None
        and model.sample(waves(2, 1, 2)).canvases is None
    )


def test_fault_6_samples_do_not_see_images():
    """Fault 6: where the posterior is the prior, a reconstruction is the sample of the same noise,
    whatever the image.
    """
    model, noise = some_model(), waves(2, 1, 2)
    assert not torch.allclose(model(some_images(), noise).logits, model.sample(noise).logits)
    with torch.no_grad():
        for map in (model.to_mu, model.to_log_sigma):
            map.weight.zero_()
            map.bias.zero_()
    for images in (some_images(), 1 - some_images()):
        torch.testing.assert_close(model(images, noise).logits, model.sample(noise).logits)


def test_zero_weights_cost_ln_2_a_pixel():
    model = some_model(28, 28)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
    images = (some_images(3, height=28, width=28) > 0.5).double()
    drawing = model(images, waves(3, 1, 2))
    losses = likelihood.terms(drawing.logits, images, drawing.mu, drawing.log_sigma)
    assert losses.kl.tolist() == [[0.0]] * 3
    torch.testing.assert_close(
        losses.bound, torch.full((3,), 784 * math.log(2)).double(), rtol=1e-7, atol=0
    )


def test_mean_weight_is_the_likelihood_and_the_bound_is_below():
    """Two pixels and one latent: all integrals by a fine sum over z; p(x) over all four images adds
    to 1.
    """
    model = some_model(1, 2, latent=1)
    z = torch.linspace(-9, 9, 2001, dtype=torch.float64)
    density = torch.exp(-0.5 * z.square()) * (z[1] - z[0]) / math.sqrt(2 * math.pi)
    noise, total = z[:, None, None], 0.0
    with torch.no_grad():
        prior = model.sample(noise).logits
        for image in torch.cartesian_prod(*[torch.tensor([0.0, 1.0], dtype=torch.float64)] * 2):
            images = image.view(1, 1, 1, 2).expand(2001, -1, -1, -1)
            truth = (
                (density * likelihood.bernoulli_log_likelihood(prior, images).exp()).sum().item()
            )
            drawing = model(images, noise)
            log_w = likelihood.log_weights(
                drawing.logits, images, drawing.mu, drawing.log_sigma, noise
            )
            assert (density * log_w.exp()).sum().item() == pytest.approx(truth, rel=1e-5)
            bound = (
                (
                    density
                    * likelihood.terms(drawing.logits, images, drawing.mu, drawing.log_sigma).bound
                )
                .sum()
                .item()
            )
            assert bound > -math.log(truth) + 1e-3
            total += truth
    assert total == pytest.approx(1, rel=1e-9)


@torch.no_grad()
def test_under_autocast_the_record_is_float32():
    model, images, noise = some_model().float(), some_images().float(), waves(2, 1, 2).float()
    exact = model(images, noise)
    with torch.autocast("cpu", torch.bfloat16):
        drawing = model(images, noise)
    for found, wanted in zip(drawing[:3], exact[:3], strict=True):
        assert found.dtype == torch.float32
        torch.testing.assert_close(found, wanted, rtol=0.05, atol=0.05)


def test_batches_do_not_matter():
    model, images = some_model(), some_images(11)
    noise = normals(torch.arange(11), 2, 0, "noise").view(11, 1, 2)
    together = model(images, noise)
    for size in (1, 4):
        index = torch.arange(11).split(size)
        parts = [
            model(images[part], normals(part, 2, 0, "noise").view(-1, 1, 2)).logits
            for part in index
        ]
        torch.testing.assert_close(torch.cat(parts), together.logits)


def test_wrong_shapes_and_counts_are_named():
    model = some_model()
    with pytest.raises(ValueError, match=r"1 steps, 2 latents.*\(2, 2\)"):
        model(some_images(), waves(2, 2))
    with pytest.raises(ValueError, match=r"images must be \(2, 1, 2, 3\).*\(2, 1, 3, 2\)"):
        model(some_images().mT, waves(2, 1, 2))
    with pytest.raises(ValueError, match="latent 0"):
        VAE(2, 3, latent=0)
