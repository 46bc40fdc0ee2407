"""The plain variational autoencoder: its equations in loops, its record, its bound against a
likelihood found by integration.
"""

import math

import pytest
import torch
from formulas import binary_images, check_gradients, linear, normal_line, set_weights, waves, zero
from torch import Tensor

from drawbench.models.vae import VAE


def some_model(
    height: int = 2, width: int = 3, channels: int = 1, hidden: int = 4, latent: int = 2
) -> VAE:
    return set_weights(VAE(height, width, channels, hidden, latent))


def some_images(batch: int = 2, channels: int = 1, height: int = 2, width: int = 3) -> Tensor:
    return waves(batch, channels, height, width) / 2 + 0.5


@pytest.mark.parametrize("channels", [1, 3])
def test_agrees_with_loops(channels):
    model, images = some_model(channels=channels), some_images(channels=channels)
    noise, weights = 2 * waves(2, 1, 2, pace=1.1), model.state_dict()
    record = model(images, noise)
    for n in range(2):
        hidden = [math.tanh(x) for x in linear(weights, "encoder", images[n].flatten().tolist())]
        mu, log_sigma = linear(weights, "to_mu", hidden), linear(weights, "to_log_sigma", hidden)
        drawn = noise[n, 0].tolist()
        z = [m + math.exp(s) * e for m, s, e in zip(mu, log_sigma, drawn, strict=True)]
        hidden = [math.tanh(x) for x in linear(weights, "decoder", z)]
        logits = linear(weights, "to_logits", hidden)
        assert record.posterior.mu[n, 0].tolist() == pytest.approx(mu, rel=1e-12)
        assert record.posterior.log_sigma[n, 0].tolist() == pytest.approx(log_sigma, rel=1e-12)
        ours = record.likelihood.logits[n].flatten().tolist()
        assert ours == pytest.approx(logits, rel=1e-12)


def test_gradients():
    model, images, noise = some_model(hidden=2, latent=1), some_images(1), waves(1, 1, 1)
    check_gradients(model, (images, noise), lambda record: record.terms(images).bound)


def test_the_record_is_that_of_draw_with_one_step():
    model, images, noise = some_model(channels=3), some_images(channels=3), waves(2, 1, 2)
    record = model(images, noise, keep_canvases=True)
    sample = model.sample(noise, keep_canvases=True)
    assert record.mean.shape == images.shape
    assert record.posterior.mu.shape == record.posterior.log_sigma.shape == (2, 1, 2)
    assert record.prior is record.read_windows is record.write_windows is None
    for kept in (record, sample):
        assert torch.equal(kept.frames[:, -1], kept.mean)
    assert model(images, noise).frames is None and model.sample(noise).frames is None
    decoded = model.decode(record.posterior.at(noise)).mean
    torch.testing.assert_close(decoded, record.mean)


def test_fault_6_samples_do_not_see_images():
    """Fault 6: where the posterior is the prior, a reconstruction is the sample of the same noise,
    whatever the image.
    """
    model, noise = some_model(), waves(2, 1, 2)
    assert not torch.allclose(model(some_images(), noise).mean, model.sample(noise).mean)
    zero(model.to_mu, model.to_log_sigma)
    for images in (some_images(), 1 - some_images()):
        torch.testing.assert_close(model(images, noise).mean, model.sample(noise).mean)


@torch.no_grad()
def test_mean_weight_is_the_likelihood_and_the_bound_is_below():
    """Two pixels and one latent: all integrals by a fine sum; p(x) over all four images adds to
    1.
    """
    model, (nodes, weights), total = some_model(1, 2, latent=1), normal_line(), 0.0
    noise = nodes[:, None, None]
    prior = model.sample(noise).likelihood
    for image in binary_images(1, 2):
        images = image[None].expand(len(nodes), -1, -1, -1)
        truth = (weights * prior.log_prob(images).exp()).sum().item()
        record = model(images, noise)
        log_w = record.log_weight(images, noise)
        assert (weights * log_w.exp()).sum().item() == pytest.approx(truth, rel=1e-5)
        bound = (weights * record.terms(images).bound).sum().item()
        assert bound > -math.log(truth) + 1e-3
        total += truth
    assert total == pytest.approx(1, rel=1e-9)


def test_wrong_shapes_and_counts_are_named():
    model = some_model()
    with pytest.raises(ValueError, match=r"1 steps, 2 latents.*\(2, 2\)"):
        model(some_images(), waves(2, 2))
    with pytest.raises(ValueError, match=r"images must be \(2, 1, 2, 3\).*\(2, 1, 3, 2\)"):
        model(some_images().mT, waves(2, 1, 2))
    with pytest.raises(ValueError, match="latent 0"):
        VAE(2, 3, latent=0)
