"""Likelihood, KL and bounds: against torch.distributions, numerical integration and models whose
likelihood is known.
"""

import itertools
import math

import pytest
import torch
from torch import Tensor
from torch.autograd import gradcheck
from torch.distributions import Bernoulli, Normal, kl_divergence

from drawbench import likelihood
from drawbench.likelihood import (
    Weights,
    bernoulli_log_likelihood,
    bits_per_dimension,
    entropy_floor,
    gaussian_kl,
    gaussian_log_ratio,
    importance_weighted,
    log_weights,
)
from drawbench.streams import normals


def waves(*shape: int, pace: float = 0.7) -> Tensor:
    """Float64 numbers in [-1, 1] without pattern or randomness."""
    return torch.sin(pace * torch.arange(1, math.prod(shape) + 1, dtype=torch.float64) ** 1.3).view(
        shape
    )


def gauss_hermite(points: int) -> tuple[Tensor, Tensor]:
    """Nodes and weights of an integral over a standard normal, exact for polynomials below degree 2
    points (Golub & Welsch 1969).
    """
    off = torch.arange(1, points, dtype=torch.float64).sqrt()
    nodes, vectors = torch.linalg.eigh(torch.diag(off, 1) + torch.diag(off, -1))
    return nodes, vectors[0].square()


# --- Bernoulli ---


def test_log_likelihood_agrees_with_loops():
    logits, targets = 3 * waves(2, 3, 4, 5), waves(2, 3, 4, 5, pace=1.1) / 2 + 0.5
    for n, found in enumerate(bernoulli_log_likelihood(logits, targets).tolist()):
        wanted = 0.0
        for c, x in zip(logits[n].flatten().tolist(), targets[n].flatten().tolist(), strict=True):
            p = 1 / (1 + math.exp(-c))
            wanted += x * math.log(p) + (1 - x) * math.log(1 - p)
        assert found == pytest.approx(wanted, rel=1e-12)


def test_log_likelihood_of_binary_pixels_agrees_with_torch():
    logits, targets = 3 * waves(4, 1, 3, 3), (waves(4, 1, 3, 3, pace=1.1) > 0).double()
    wanted = Bernoulli(logits=logits).log_prob(targets).flatten(1).sum(1)
    torch.testing.assert_close(bernoulli_log_likelihood(logits, targets), wanted)


def test_all_binary_images_together_have_probability_1():
    images = torch.cartesian_prod(*[torch.tensor([0.0, 1.0], dtype=torch.float64)] * 4).view(
        16, 1, 2, 2
    )
    logits = (2 * waves(1, 1, 2, 2)).expand(16, -1, -1, -1)
    assert bernoulli_log_likelihood(logits, images).exp().sum().item() == pytest.approx(
        1, rel=1e-12
    )


def test_grey_canvas_costs_ln_2_a_pixel():
    found = bernoulli_log_likelihood(
        torch.zeros(3, 1, 28, 28), (waves(3, 1, 28, 28) > 0).float(), torch.float64
    )
    torch.testing.assert_close(
        found, torch.full((3,), -784 * math.log(2), dtype=torch.float64), rtol=1e-7, atol=0
    )


def test_sums_can_be_float64_and_logits_extreme():
    logits = torch.tensor([[1e4, -1e4, 300.0]])
    right, wrong = torch.tensor([[1.0, 0.0, 1.0]]), torch.tensor([[0.0, 1.0, 1.0]])
    assert bernoulli_log_likelihood(logits, right).tolist() == [0.0]
    found = bernoulli_log_likelihood(logits, wrong, torch.float64)
    assert found.dtype == torch.float64 and found.tolist() == [-2e4]
    # Above 2^24 float32 knows even numbers only: an odd sum must not be formed there.
    many, dark = torch.tensor([[2.0**24, 1001.0]]), torch.zeros(1, 2)
    assert bernoulli_log_likelihood(many, dark, torch.float64).tolist() == [-(2**24) - 1001]
    assert bernoulli_log_likelihood(many, dark).tolist() != [-(2**24) - 1001]


@pytest.mark.parametrize("shape", [(2, 1, 3), (1, 1, 3, 3), (2, 1, 3, 1)])
def test_shapes_that_would_broadcast_are_refused(shape):
    with pytest.raises(ValueError, match=r"\(2, 1, 3, 3\).*differ in shape"):
        bernoulli_log_likelihood(torch.zeros(2, 1, 3, 3), torch.zeros(shape))


def test_entropy_floor():
    """0 for binary pixels, ln 2 at a half, and just what the best possible canvas costs."""
    assert entropy_floor(torch.tensor([[[0.0, 1.0]]])).tolist() == [0.0]
    assert entropy_floor(torch.full((1, 1, 2, 3), 0.5)).item() == pytest.approx(6 * math.log(2))
    grey = waves(3, 1, 4, 5) * 0.49 + 0.5
    floor = entropy_floor(grey)
    torch.testing.assert_close(-bernoulli_log_likelihood(torch.logit(grey), grey), floor)
    assert (-bernoulli_log_likelihood(torch.logit(grey) + 0.01, grey) > floor).all()


def test_bits_per_dimension():
    assert bits_per_dimension(784 * math.log(2), 784) == pytest.approx(1)
    with pytest.raises(ValueError, match="got 0"):
        bits_per_dimension(80.0, 0)


# --- Gaussian ---


def test_kl_agrees_with_torch():
    mu, log_sigma = 2 * waves(3, 4, 5), 2 * waves(3, 4, 5, pace=1.1)
    prior = Normal(torch.zeros_like(mu), torch.ones_like(mu))
    torch.testing.assert_close(
        gaussian_kl(mu, log_sigma), kl_divergence(Normal(mu, log_sigma.exp()), prior)
    )


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(("steps", "latent"), [(1, 1), (64, 100)])
def test_fault_4_kl_of_the_prior_is_exactly_0(steps, latent, dtype):
    """Fault 4: the constant -T/2 in all instead of per latent dimension, as printed in the paper."""
    nothing = torch.zeros(2, steps, latent, dtype=dtype)
    losses = likelihood.terms(
        torch.zeros(2, 1, 3, 3, dtype=dtype), torch.zeros(2, 1, 3, 3, dtype=dtype), nothing, nothing
    )
    assert losses.kl.tolist() == [[0.0] * steps] * 2
    printed = 0.5 * (nothing**2 + (2 * nothing).exp() - 2 * nothing).sum((1, 2)) - steps / 2
    assert (printed[0].item() == 0) == (latent == 1)


def test_kl_is_positive_everywhere_else():
    assert (gaussian_kl(2 * waves(1000), 2 * waves(1000, pace=1.1)) > 0).all()
    tiny = torch.tensor([1e-4, -1e-4], dtype=torch.float64)
    torch.testing.assert_close(
        gaussian_kl(torch.zeros_like(tiny), tiny), tiny.square(), rtol=1e-3, atol=0
    )


def test_log_ratio_agrees_with_torch():
    mu, log_sigma, noise = waves(3, 4, 5), waves(3, 4, 5, pace=1.1), 2 * waves(3, 4, 5, pace=1.3)
    z = mu + log_sigma.exp() * noise
    wanted = Normal(torch.zeros_like(mu), torch.ones_like(mu)).log_prob(z) - Normal(
        mu, log_sigma.exp()
    ).log_prob(z)
    torch.testing.assert_close(gaussian_log_ratio(mu, log_sigma, noise), wanted)
    assert gaussian_log_ratio(torch.zeros_like(mu), torch.zeros_like(mu), noise).abs().max() == 0


def test_mean_of_log_ratio_is_minus_kl():
    mu, log_sigma = 2 * waves(50), waves(50, pace=1.1)
    nodes, weights = gauss_hermite(4)  # a polynomial of degree 2
    mean = (
        weights[:, None]
        * gaussian_log_ratio(mu.expand(4, -1), log_sigma.expand(4, -1), nodes[:, None])
    ).sum(0)
    torch.testing.assert_close(mean, -gaussian_kl(mu, log_sigma))


def test_terms_are_sums_over_latents_and_pixels():
    """Fault 7: means over latents or pixels. Doubling the latents or the pixels doubles the loss;
    nothing depends on the batch.
    """
    logits, targets, mu, log_sigma = (
        waves(2, 1, 3, 4),
        (waves(2, 1, 3, 4) > 0.3).double(),
        waves(2, 5, 3),
        waves(2, 5, 3, pace=1.1),
    )
    once = likelihood.terms(logits, targets, mu, log_sigma)
    twice = likelihood.terms(
        *(torch.cat([one, one], dim=-1) for one in (logits, targets, mu, log_sigma))
    )
    torch.testing.assert_close(twice.kl, 2 * once.kl)
    torch.testing.assert_close(twice.reconstruction, 2 * once.reconstruction)
    torch.testing.assert_close(
        once.bound, once.reconstruction + once.kl[:, 0] + once.kl[:, 1:].sum(1)
    )
    batch = likelihood.terms(
        *(torch.cat([one, one, one]) for one in (logits, targets, mu, log_sigma))
    )
    torch.testing.assert_close(batch.bound, once.bound.repeat(3))
    single = likelihood.terms(
        logits.float(), targets.float(), mu.float(), log_sigma.float(), torch.float64
    )
    assert single.bound.dtype == torch.float64
    torch.testing.assert_close(single.bound, once.bound, rtol=1e-6, atol=0)


def test_gradients():
    arguments = tuple(
        one.requires_grad_()
        for one in (waves(2, 1, 2, 3), waves(2, 2, 2), waves(2, 2, 2, pace=1.1))
    )
    targets, noise = waves(2, 1, 2, 3, pace=0.9) / 2 + 0.5, waves(2, 2, 2, pace=1.3)
    assert gradcheck(
        lambda logits, mu, log_sigma: likelihood.terms(logits, targets, mu, log_sigma).bound,
        arguments,
    )
    assert gradcheck(
        lambda logits, mu, log_sigma: log_weights(logits, targets, mu, log_sigma, noise), arguments
    )


# --- importance weights ---


def test_importance_weighted_agrees_with_a_loop():
    values = 3 * waves(7, 4)
    total = importance_weighted(values)
    for n in range(4):
        w = [math.exp(value) for value in values[:, n].tolist()]
        assert total.log_likelihood[n].item() == pytest.approx(math.log(sum(w) / 7), rel=1e-12)
        assert total.effective_samples[n].item() == pytest.approx(
            sum(w) ** 2 / sum(one**2 for one in w), rel=1e-12
        )


def test_fault_7_another_k_than_was_asked_for():
    """Fault 7: however the samples arrive, K is what was counted."""
    values = 3 * waves(5000, 2)
    whole = importance_weighted(values)
    for size in (7, 128, 4999):
        streamed = importance_weighted(chunk for chunk in values.split(size))
        assert streamed.samples == whole.samples == 5000
        torch.testing.assert_close(
            streamed.log_likelihood, whole.log_likelihood, rtol=0, atol=1e-11
        )
        torch.testing.assert_close(streamed.effective_samples, whole.effective_samples)
    one_by_one, whole = importance_weighted(values[:50].unbind(0)), importance_weighted(values[:50])
    assert one_by_one.samples == 50
    torch.testing.assert_close(one_by_one.log_likelihood, whole.log_likelihood, rtol=0, atol=1e-11)


def test_equal_weights_give_themselves_and_a_sum_is_float64():
    total = importance_weighted(torch.full((50, 3), -87.4) for _ in range(100))
    assert isinstance(total, Weights) and total.log_sum.dtype == torch.float64
    torch.testing.assert_close(
        total.log_likelihood, torch.full((3,), -87.4).double(), rtol=0, atol=1e-11
    )
    torch.testing.assert_close(total.effective_samples, torch.full((3,), 5000.0).double())


def test_log_weights_far_below_what_exp_can_hold():
    total = importance_weighted(torch.tensor([[-5e4], [-5e4 - 1], [-math.inf]]))
    assert total.log_likelihood.item() == pytest.approx(
        -5e4 + math.log((1 + math.exp(-1)) / 3), abs=1e-6
    )
    assert 1 < total.effective_samples.item() < 2


def test_more_samples_keep_no_more_memory():
    total = importance_weighted(torch.zeros(2) for _ in range(100))
    assert [one.shape for one in (total.log_sum, total.log_sum_squares)] == [(2,), (2,)]


@pytest.mark.parametrize("bad", [torch.zeros(0, 3), torch.zeros(2, 3, 4), torch.tensor(1.0), []])
def test_no_weights_or_wrong_weights_are_refused(bad):
    with pytest.raises(ValueError, match="at least 1 sample"):
        importance_weighted(bad)


def test_noise_of_another_shape_is_refused():
    image, posterior = torch.zeros(2, 1, 3, 3), torch.zeros(2, 4, 5)
    with pytest.raises(ValueError, match=r"noise \(2, 1, 5\) and mu \(2, 4, 5\)"):
        log_weights(image, image, posterior, posterior, torch.zeros(2, 1, 5))


# --- one pixel whose likelihood is known: z ~ N(0, 1), p(x = 1 | z) = s(2 z + 0.5), and a posterior
# that is somewhat wrong ---


def one_pixel(noise: Tensor, pixel: float = 1.0) -> tuple[Tensor, ...]:
    """Logits, targets, mu, log sigma and noise for noise (n,)."""
    mu, log_sigma = torch.full_like(noise, 0.3), torch.full_like(noise, -0.2)
    logits = 2 * (mu + log_sigma.exp() * noise) + 0.5
    image, step = (len(noise), 1, 1, 1), (len(noise), 1, 1)
    return (
        logits.view(image),
        torch.full(image, pixel).double(),
        mu.view(step),
        log_sigma.view(step),
        noise.view(step),
    )


def one_pixel_truth(pixel: float = 1.0) -> float:
    """p(x), by integration over the prior."""
    nodes, weights = gauss_hermite(100)
    bright = (weights * torch.sigmoid(2 * nodes + 0.5)).sum().item()
    return bright if pixel == 1 else 1 - bright


@pytest.mark.parametrize("pixel", [0.0, 1.0])
def test_the_bound_lies_below_the_truth_and_the_weights_are_unbiased(pixel):
    """``E[w] = p(x)`` exactly and ``E[log w] = -E[Lx + Lz] < log p(x)``, by integration over the
    noise.
    """
    nodes, weights = gauss_hermite(100)
    logits, targets, mu, log_sigma, noise = one_pixel(nodes, pixel)
    log_w = log_weights(logits, targets, mu, log_sigma, noise)
    assert (weights * log_w.exp()).sum().item() == pytest.approx(one_pixel_truth(pixel), rel=1e-6)
    bound = -(weights * likelihood.terms(logits, targets, mu, log_sigma).bound).sum().item()
    assert bound == pytest.approx((weights * log_w).sum().item(), rel=1e-9)
    assert bound < math.log(one_pixel_truth(pixel)) - 0.01


def test_the_importance_weighted_bound_closes_like_1_over_k():
    """``log p - E[IW_K] -> Var(w) / (2 K p^2)``, rising all the way from the single-sample bound.

    The mean of w / p - 1 is known to be 0, so taking it off leaves the expectation as it is and
    most of the noise away.
    """
    nodes, weights = gauss_hermite(100)
    truth = one_pixel_truth()
    w = log_weights(*one_pixel(nodes)).exp()
    limit = ((weights * w.square()).sum().item() / truth**2 - 1) / 2
    log_w = log_weights(*one_pixel(normals(torch.arange(1 << 18), 1, 0, "1/K")[:, 0]))
    gaps = []
    for samples in (1, 2, 4, 8, 16, 32, 64):
        total = importance_weighted(log_w.view(samples, -1))
        surplus = (total.log_likelihood.exp() / truth).mean().item() - 1
        gaps.append(math.log(truth) - (total.log_likelihood.mean().item() - surplus))
    single = math.log(truth) - (weights * w.log()).sum().item()
    assert gaps[0] == pytest.approx(single, rel=0.02)
    assert all(0 < later < earlier for earlier, later in itertools.pairwise(gaps))
    for samples, gap in zip((16, 32, 64), gaps[4:], strict=True):
        assert samples * gap == pytest.approx(limit, rel=0.1)


def test_shared_noise_is_not_a_bound():
    """Fault 5, in numbers: two steps that share one noise but are weighed as if each had its own.

    With fresh noise the mean weight is p(x), and the probabilities of all images add to 1; with
    shared noise they do not.
    """
    nodes, weights = gauss_hermite(40)
    fresh = torch.cartesian_prod(nodes, nodes)[:, None].view(-1, 2, 1)
    area = (weights[:, None] * weights).flatten()
    shared = nodes[:, None, None].expand(-1, 2, 1)

    def total_probability(noise: Tensor, weights: Tensor) -> float:
        total = 0.0
        for pixel in (0.0, 1.0):
            mu, log_sigma = (
                torch.full_like(noise, 0.3 * (2 * pixel - 1)),
                torch.full_like(noise, -0.1),
            )
            logits = (mu + log_sigma.exp() * noise).sum(1).view(-1, 1, 1, 1)
            log_w = log_weights(logits, torch.full_like(logits, pixel), mu, log_sigma, noise)
            total += (weights * log_w.exp()).sum().item()
        return total

    assert total_probability(fresh, area) == pytest.approx(1, abs=1e-6)
    assert abs(total_probability(shared, weights) - 1) > 0.02
