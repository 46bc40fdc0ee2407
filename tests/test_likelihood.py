"""Likelihood, KL and importance weights: against loops, torch.distributions, numerical integration,
and models whose likelihood is known.
"""

import itertools
import math
from functools import partial

import pytest
import torch
from formulas import binary_images, gauss_hermite, normal_line, set_weights, sigmoid, waves
from torch import Tensor, distributions
from torch.autograd import gradcheck

from drawbench.likelihood import (
    Bernoulli,
    Gaussian,
    Logistic,
    Weights,
    bits_per_dimension,
    entropy_floor,
    importance_weighted,
)
from drawbench.models.draw import Draw, Drawing
from drawbench.models.vae import VAE
from drawbench.streams import normals

# --- Bernoulli ---


def test_log_prob_agrees_with_loops():
    logits, images = 3 * waves(2, 3, 4, 5), waves(2, 3, 4, 5, pace=1.1) / 2 + 0.5
    for n, ours in enumerate(Bernoulli(logits).log_prob(images).tolist()):
        twin = 0.0
        for c, x in zip(logits[n].flatten().tolist(), images[n].flatten().tolist(), strict=True):
            twin += x * math.log(sigmoid(c)) + (1 - x) * math.log(1 - sigmoid(c))
        assert ours == pytest.approx(twin, rel=1e-12)


def test_log_prob_of_binary_pixels_agrees_with_torch():
    logits, images = 3 * waves(4, 1, 3, 3), (waves(4, 1, 3, 3, pace=1.1) > 0).double()
    theirs = distributions.Bernoulli(logits=logits)
    ours = Bernoulli(logits)
    torch.testing.assert_close(ours.log_prob(images), theirs.log_prob(images).flatten(1).sum(1))
    torch.testing.assert_close(ours.mean, theirs.mean)
    torch.testing.assert_close(ours.mean_of(logits[:1]), theirs.mean[:1])


def test_all_binary_images_together_have_probability_1():
    logits = (2 * waves(1, 1, 2, 2)).expand(16, -1, -1, -1)
    total = Bernoulli(logits).log_prob(binary_images(2, 2)).exp().sum()
    assert total.item() == pytest.approx(1, rel=1e-12)


def test_sums_can_be_float64_and_logits_extreme():
    logits = Bernoulli(torch.tensor([[1e4, -1e4, 300.0]]))
    right, wrong = torch.tensor([[1.0, 0.0, 1.0]]), torch.tensor([[0.0, 1.0, 1.0]])
    assert logits.log_prob(right).tolist() == [0.0]
    ours = logits.log_prob(wrong, torch.float64)
    assert ours.dtype == torch.float64 and ours.tolist() == [-2e4]
    # Above 2^24 float32 has even numbers only, so an odd sum must not be formed there.
    many, dark = Bernoulli(torch.tensor([[2.0**24, 1001.0]])), torch.zeros(1, 2)
    assert many.log_prob(dark, torch.float64).tolist() == [-(2**24) - 1001]
    assert many.log_prob(dark).tolist() != [-(2**24) - 1001]


@pytest.mark.parametrize("shape", [(2, 1, 3), (1, 1, 3, 3), (2, 1, 3, 1)])
def test_shapes_that_would_broadcast_are_refused(shape):
    with pytest.raises(ValueError, match=r"\(2, 1, 3, 3\).*differ in shape"):
        Bernoulli(torch.zeros(2, 1, 3, 3)).log_prob(torch.zeros(shape))


def test_entropy_floor():
    """0 for binary pixels, ln 2 at a half, and exactly what the best canvas costs."""
    assert entropy_floor(torch.tensor([[[0.0, 1.0]]])).tolist() == [0.0]
    assert entropy_floor(torch.full((1, 1, 2, 3), 0.5)).item() == pytest.approx(6 * math.log(2))
    grey = waves(3, 1, 4, 5) * 0.49 + 0.5
    floor, best = entropy_floor(grey), torch.logit(grey)
    torch.testing.assert_close(-Bernoulli(best).log_prob(grey), floor)
    assert (-Bernoulli(best + 0.01).log_prob(grey) > floor).all()


def test_bits_per_dimension():
    assert bits_per_dimension(784 * math.log(2), 784) == pytest.approx(1)
    with pytest.raises(ValueError, match="got 0"):
        bits_per_dimension(80.0, 0)


# --- discretised logistic ---

LEVELS = torch.arange(256, dtype=torch.float64) / 255


def logistic_of(location, scale) -> Logistic:
    """Return pixels (B, 1, 1, 1) with these locations and a scale."""
    location = torch.as_tensor(location, dtype=torch.float64).reshape(-1, 1, 1, 1)
    return Logistic(
        Logistic.canvas_of(location), torch.tensor([math.log(scale)], dtype=torch.float64)
    )


def every_level(location: float, scale: float) -> Tensor:
    """Return the log-probabilities of the 256 levels of one pixel."""
    return logistic_of([location] * 256, scale).log_prob(LEVELS.view(-1, 1, 1, 1))


def test_logistic_agrees_with_loops():
    """The definition as it stands, where nothing cancels yet: two channels, each its own scale."""
    canvas, log_scale = 2 * waves(2, 2, 3, 4), torch.tensor([-1.0, -2.5]).double()
    images = torch.round(255 * (waves(2, 2, 3, 4, pace=1.1) * 0.6 + 0.5).clamp(0, 1)) / 255
    assert {0.0, 1.0} <= set(images.flatten().tolist())
    for n, ours in enumerate(Logistic(canvas, log_scale).log_prob(images).tolist()):
        twin = 0.0
        for channel in range(2):
            s = math.exp(log_scale[channel].item())
            planes = (part[n, channel].flatten().tolist() for part in (canvas, images))
            for c, x in zip(*planes, strict=True):
                m = 0.5 + c / 4
                upper = 1.0 if x == 1 else sigmoid((x + 1 / 510 - m) / s)
                lower = 0.0 if x == 0 else sigmoid((x - 1 / 510 - m) / s)
                twin += math.log(upper - lower)
        assert ours == pytest.approx(twin, rel=1e-9)


@pytest.mark.parametrize("location", [-2.0, 0.0, 0.001, 0.37, 1.0, 3.0])
@pytest.mark.parametrize("scale", [1e-4, 1 / 255, 0.1, 3.0, 100.0])
def test_the_256_levels_of_a_pixel_have_probability_1_and_its_mean(location, scale):
    log_p = every_level(location, scale)
    assert log_p.logsumexp(0).item() == pytest.approx(0, abs=1e-9)
    mean = logistic_of(location, scale).mean.item()
    assert (log_p.exp() * LEVELS).sum().item() == pytest.approx(mean, abs=1 / 510)
    if scale > 1 / 255:
        assert (log_p.exp() * LEVELS).sum().item() == pytest.approx(mean, abs=1e-4)


def test_limits_of_the_logistic():
    """A tiny scale chooses a level, a huge one the two ends; a far location the nearer end; in
    between a level's probability is the density times 1/255."""
    assert every_level(100 / 255, 1e-5)[100].item() == pytest.approx(0, abs=1e-9)
    ends = every_level(0.5, 1e6).exp()
    assert ends[[0, -1]].tolist() == pytest.approx([0.5, 0.5], abs=1e-6)
    assert every_level(-50.0, 0.1)[0] == pytest.approx(0, abs=1e-200)
    assert every_level(50.0, 0.1)[-1] == pytest.approx(0, abs=1e-200)
    x = torch.tensor(0.4)
    density = sigmoid((x - 0.3) / 0.2) * (1 - sigmoid((x - 0.3) / 0.2)) / 0.2
    assert every_level(0.3, 0.2)[102].exp().item() == pytest.approx(density / 255, rel=1e-4)
    black = torch.zeros(1, 1, 1, 1).double()
    far = logistic_of([9.0], 0.01).log_prob(black).item()  # e^-900 underflows
    assert far == pytest.approx((1 / 510 - 9) / 0.01, rel=1e-9)
    grey = torch.full((1, 1, 2, 2), 0.4)
    wide = Logistic(torch.zeros(1, 1, 2, 2), torch.tensor([30.0])).log_prob(grey)
    assert wide.item() == pytest.approx(-4 * (30 + math.log(4 * 255)), rel=1e-6)  # float32


def test_gradients_of_the_logistic():
    images = torch.round(255 * (waves(2, 2, 2, 3, pace=1.1) * 0.7 + 0.5).clamp(0, 1)) / 255
    inputs = (2 * waves(2, 2, 2, 3), torch.tensor([-1.0, -2.5]).double())
    inputs = tuple(one.requires_grad_() for one in inputs)
    assert gradcheck(lambda *parts: Logistic(*parts).log_prob(images), inputs)
    assert gradcheck(lambda *parts: Logistic(*parts).mean, inputs)


def test_a_canvas_has_the_mean_that_it_is_made_of():
    mean = torch.tensor([[0.2, 0.5], [0.7, 0.9]]).double()
    assert torch.allclose(Bernoulli(Bernoulli.canvas_of(mean)).mean, mean)
    sharp = Logistic(Logistic.canvas_of(mean)[None, None], torch.tensor([-6.0]).double())
    torch.testing.assert_close(sharp.mean[0, 0], mean, rtol=0, atol=1e-9)


@torch.no_grad()
@pytest.mark.parametrize("kind", [VAE, partial(Draw, steps=1)])
def test_one_pixel_of_256_levels_with_a_known_likelihood(kind):
    """One grey pixel, one latent, one step: over all levels p(x), integrated over z, adds to 1; the
    mean weight is p(x), and the bound lies above -log p(x)."""
    model = set_weights(kind(1, 1, hidden=3, latent=1, likelihood="logistic"))
    nodes, weights = normal_line()
    noise, total = nodes[:, None, None], 0.0
    prior = model.sample(noise).likelihood
    for level in LEVELS.tolist():
        images = torch.full((len(nodes), 1, 1, 1), level).double()
        truth = (weights * prior.log_prob(images).exp()).sum().item()
        total += truth
        if level in (0.0, 51 / 255, 1.0):
            record = model(images, noise)
            log_w = record.log_weight(images, noise)
            assert (weights * log_w.exp()).sum().item() == pytest.approx(truth, rel=1e-5)
            assert (weights * record.terms(images).bound).sum().item() > -math.log(truth) + 1e-4
    assert total == pytest.approx(1, rel=1e-9)


# --- Gaussian ---

POSTERIOR = Gaussian(2 * waves(3, 4, 5), waves(3, 4, 5, pace=1.1))
PRIOR = Gaussian(waves(3, 4, 5, pace=0.9), 0.8 * waves(3, 4, 5, pace=1.7))


def kl_twin(mu: float, log_sigma: float, prior_mu: float, prior_log_sigma: float) -> float:
    """Return the KL of two normal distributions in the order of a textbook."""
    variance, prior_variance = math.exp(2 * log_sigma), math.exp(2 * prior_log_sigma)
    gap = (mu - prior_mu) ** 2
    return prior_log_sigma - log_sigma + (variance + gap) / (2 * prior_variance) - 0.5


def in_torch(gaussian: Gaussian | None) -> distributions.Normal:
    if gaussian is None:
        return distributions.Normal(torch.zeros(3, 4, 5).double(), 1.0)
    return distributions.Normal(gaussian.mu, gaussian.log_sigma.exp())


@pytest.mark.parametrize("prior", [None, PRIOR], ids=["standard", "learned"])
def test_kl_agrees_with_loops_and_with_torch(prior):
    ours = POSTERIOR.kl(prior)
    standard = Gaussian(torch.zeros(3, 4, 5), torch.zeros(3, 4, 5))
    numbers = (*POSTERIOR, *(prior or standard))
    for value, *row in zip(
        ours.flatten().tolist(), *(part.flatten().tolist() for part in numbers), strict=True
    ):
        assert value == pytest.approx(kl_twin(*row), rel=1e-10)
    theirs = distributions.kl_divergence(in_torch(POSTERIOR), in_torch(prior))
    torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize("prior", [None, PRIOR], ids=["standard", "learned"])
def test_log_ratio_agrees_with_torch(prior):
    noise = 2 * waves(3, 4, 5, pace=1.3)
    z = POSTERIOR.at(noise)
    torch.testing.assert_close(z, POSTERIOR.mu + torch.exp(POSTERIOR.log_sigma) * noise)
    theirs = in_torch(prior).log_prob(z) - in_torch(POSTERIOR).log_prob(z)
    torch.testing.assert_close(POSTERIOR.log_ratio(noise, prior), theirs)


@pytest.mark.parametrize("prior", [None, PRIOR], ids=["standard", "learned"])
def test_mean_of_log_ratio_is_minus_kl(prior):
    nodes, weights = gauss_hermite(4)  # a polynomial of degree 2
    ratios = torch.stack(
        [POSTERIOR.log_ratio(torch.full_like(POSTERIOR.mu, node), prior) for node in nodes]
    )
    mean = (weights[:, None, None, None] * ratios).sum(0)
    torch.testing.assert_close(mean, -POSTERIOR.kl(prior))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(("steps", "latent"), [(1, 1), (64, 100)])
def test_fault_4_kl_of_equals_is_exactly_0(steps, latent, dtype):
    """Fault 4: the constant -T/2 in all instead of per latent dimension, as the paper prints it."""
    zeros = torch.zeros(2, steps, latent, dtype=dtype)
    assert Gaussian(zeros, zeros).kl().sum(-1).tolist() == [[0.0] * steps] * 2
    printed = 0.5 * (zeros**2 + (2 * zeros).exp() - 2 * zeros).sum((1, 2)) - steps / 2
    assert (printed[0].item() == 0) == (latent == 1)
    same = Gaussian(waves(2, steps, latent).to(dtype), waves(2, steps, latent).to(dtype))
    assert same.kl(same).abs().max() == 0
    assert same.log_ratio(waves(2, steps, latent, pace=1.3).to(dtype), same).abs().max() == 0


def test_kl_is_positive_everywhere_else():
    posterior = Gaussian(2 * waves(1000), 2 * waves(1000, pace=1.1))
    assert (posterior.kl() > 0).all()
    assert (posterior.kl(Gaussian(waves(1000, pace=0.9), waves(1000, pace=1.3))) > 0).all()
    tiny = torch.tensor([1e-4, -1e-4], dtype=torch.float64)
    torch.testing.assert_close(
        Gaussian(torch.zeros_like(tiny), tiny).kl(), tiny.square(), rtol=1e-3, atol=0
    )


# --- the objective ---


def drawing(*parts: Tensor) -> Drawing:
    """Make a record from logits, mu, log sigma and, for a learned prior, its mu and log sigma."""
    prior = Gaussian(*parts[3:]) if parts[3:] else None
    return Drawing(Bernoulli(parts[0]), Gaussian(*parts[1:3]), prior)


def parts(learned_prior: bool) -> list[Tensor]:
    paces = (0.7, 0.7, 1.1, 0.9, 1.7)[: 5 if learned_prior else 3]
    shapes = [(2, 1, 3, 4)] + [(2, 5, 3)] * 4
    return [waves(*shape, pace=pace) for shape, pace in zip(shapes, paces, strict=False)]


@pytest.mark.parametrize("learned_prior", [False, True])
def test_terms_are_sums_over_latents_and_pixels(learned_prior):
    """Fault 7: means over latents or pixels. Twice the latents or pixels cost twice as much, and
    nothing depends on the batch.
    """
    some, images = parts(learned_prior), (waves(2, 1, 3, 4) > 0.3).double()
    once = drawing(*some).terms(images)
    twice = drawing(*(torch.cat([one, one], dim=-1) for one in some)).terms(
        torch.cat([images, images], dim=-1)
    )
    torch.testing.assert_close(twice.kl, 2 * once.kl)
    torch.testing.assert_close(twice.reconstruction, 2 * once.reconstruction)
    torch.testing.assert_close(once.bound, once.reconstruction + once.kl.sum(1))
    batch = drawing(*(torch.cat([one] * 3) for one in some)).terms(torch.cat([images] * 3))
    torch.testing.assert_close(batch.bound, once.bound.repeat(3))
    single = drawing(*(one.float() for one in some)).terms(images.float(), torch.float64)
    assert single.bound.dtype == torch.float64
    torch.testing.assert_close(single.bound, once.bound, rtol=1e-6, atol=0)


@pytest.mark.parametrize("learned_prior", [False, True])
def test_gradients(learned_prior):
    some = [one.requires_grad_() for one in parts(learned_prior)]
    images, noise = waves(2, 1, 3, 4, pace=0.9) / 2 + 0.5, waves(2, 5, 3, pace=1.3)
    assert gradcheck(lambda *inputs: drawing(*inputs).terms(images).bound, some)
    assert gradcheck(lambda *inputs: drawing(*inputs).log_weight(images, noise), some)


def test_noise_of_another_shape_is_refused():
    with pytest.raises(ValueError, match=r"noise \(2, 1, 3\) and posterior \(2, 5, 3\)"):
        drawing(*parts(False)).log_weight(waves(2, 1, 3, 4), torch.zeros(2, 1, 3))


# --- importance weights ---


def test_importance_weighted_agrees_with_a_loop():
    values = 3 * waves(7, 4)
    total = importance_weighted(values)
    for n in range(4):
        w = [math.exp(value) for value in values[:, n].tolist()]
        assert total.log_likelihood[n].item() == pytest.approx(math.log(sum(w) / 7), rel=1e-12)
        effective = sum(w) ** 2 / sum(one**2 for one in w)
        assert total.effective_samples[n].item() == pytest.approx(effective, rel=1e-12)


def test_fault_7_k_is_what_was_counted():
    """Fault 7: another K than was asked for. However the samples arrive, K is what was counted."""
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


def test_equal_weights_are_their_mean_and_sums_are_float64():
    total = importance_weighted(torch.full((50, 3), -87.4) for _ in range(100))
    assert isinstance(total, Weights) and total.log_sum.dtype == torch.float64
    assert total.log_sum.shape == total.log_sum_squares.shape == (3,)  # whatever K is
    assert total.log_likelihood.tolist() == pytest.approx([-87.4] * 3, rel=1e-7)
    assert total.effective_samples.tolist() == pytest.approx([5000.0] * 3)


def test_log_weights_far_below_what_exp_can_hold():
    total = importance_weighted(torch.tensor([[-5e4], [-5e4 - 1], [-math.inf]]))
    truth = -5e4 + math.log((1 + math.exp(-1)) / 3)
    assert total.log_likelihood.item() == pytest.approx(truth, abs=1e-6)
    assert 1 < total.effective_samples.item() < 2


@pytest.mark.parametrize("bad", [torch.zeros(0, 3), torch.zeros(2, 3, 4), torch.tensor(1.0), []])
def test_no_weights_or_wrong_weights_are_refused(bad):
    with pytest.raises(ValueError, match="at least 1 sample"):
        importance_weighted(bad)


# --- one pixel whose likelihood is known: z ~ p(z), p(x = 1 | z) = s(2 z + 0.5), and a posterior
# that is somewhat wrong ---

PRIORS = {"standard": (0.0, 0.0), "learned": (0.4, -0.5)}  # mu, log sigma


def one_pixel(
    noise: Tensor, pixel: float = 1.0, prior: tuple[float, float] = (0.0, 0.0)
) -> tuple[Drawing, Tensor, Tensor]:
    """Return a drawing, its images and its noise, for noise (n,)."""
    step = noise.view(-1, 1, 1)
    posterior = Gaussian(torch.full_like(step, 0.3), torch.full_like(step, -0.2))
    learned = None if prior == (0, 0) else Gaussian(*(torch.full_like(step, p) for p in prior))
    logits = (2 * posterior.at(step) + 0.5)[..., None]
    return Drawing(Bernoulli(logits), posterior, learned), torch.full_like(logits, pixel), step


def one_pixel_truth(pixel: float, prior: tuple[float, float] = (0.0, 0.0)) -> float:
    """Return p(x), by integration over the prior."""
    nodes, weights = gauss_hermite(100)
    z = prior[0] + math.exp(prior[1]) * nodes
    bright = (weights * torch.sigmoid(2 * z + 0.5)).sum().item()
    return bright if pixel == 1 else 1 - bright


@pytest.mark.parametrize("prior", PRIORS.values(), ids=PRIORS)
@pytest.mark.parametrize("pixel", [0.0, 1.0])
def test_the_bound_lies_below_the_truth_and_the_weights_are_unbiased(pixel, prior):
    """``E[w] = p(x)`` exactly and ``E[log w] = -E[Lx + Lz] < log p(x)``, by integration over the
    noise.
    """
    nodes, weights = gauss_hermite(100)
    record, images, noise = one_pixel(nodes, pixel, prior)
    log_w, truth = record.log_weight(images, noise), one_pixel_truth(pixel, prior)
    assert (weights * log_w.exp()).sum().item() == pytest.approx(truth, rel=1e-6)
    bound = -(weights * record.terms(images).bound).sum().item()
    assert bound == pytest.approx((weights * log_w).sum().item(), rel=1e-9)
    assert bound < math.log(truth) - 0.01


def test_the_importance_weighted_bound_closes_like_1_over_k():
    """``log p - E[IW_K] -> Var(w) / (2 K p^2)``, rising all the way from the single-sample bound.

    The mean of w / p - 1 is known to be 0, so subtracting it keeps the expectation and removes most
    of the noise.
    """
    nodes, weights = gauss_hermite(100)
    truth = one_pixel_truth(1.0)
    record, images, noise = one_pixel(nodes)
    w = record.log_weight(images, noise).exp()
    limit = ((weights * w.square()).sum().item() / truth**2 - 1) / 2
    record, images, noise = one_pixel(normals(torch.arange(1 << 18), 1, 0, "1/K")[:, 0])
    log_w, gaps = record.log_weight(images, noise), []
    for samples in (1, 2, 4, 8, 16, 32, 64):
        total = importance_weighted(log_w.view(samples, -1))
        surplus = (total.log_likelihood.exp() / truth).mean().item() - 1
        gaps.append(math.log(truth) - (total.log_likelihood.mean().item() - surplus))
    single = math.log(truth) - (weights * w.log()).sum().item()
    assert gaps[0] == pytest.approx(single, rel=0.02)
    assert all(0 < later < earlier for earlier, later in itertools.pairwise(gaps))
    for samples, gap in zip((16, 32, 64), gaps[4:], strict=True):
        assert samples * gap == pytest.approx(limit, rel=0.1)


def test_fault_5_shared_noise_is_not_a_bound():
    """Fault 5, in numbers: two steps that share one noise but are weighted as if each had its own.

    With fresh noise the mean weight is p(x), and the probabilities of all images add to 1; with
    shared noise they do not.
    """
    nodes, weights = gauss_hermite(40)
    fresh = torch.cartesian_prod(nodes, nodes).view(-1, 2, 1)
    shared = nodes[:, None, None].expand(-1, 2, 1)

    def total_probability(noise: Tensor, weights: Tensor) -> float:
        total = 0.0
        for pixel in (0.0, 1.0):
            mu = torch.full_like(noise, 0.3 * (2 * pixel - 1))
            posterior = Gaussian(mu, torch.full_like(noise, -0.1))
            logits = posterior.at(noise).sum(1).view(-1, 1, 1, 1)
            images = torch.full_like(logits, pixel)
            log_w = Drawing(Bernoulli(logits), posterior).log_weight(images, noise)
            total += (weights * log_w.exp()).sum().item()
        return total

    area = (weights[:, None] * weights).flatten()
    assert total_probability(fresh, area) == pytest.approx(1, abs=1e-6)
    assert abs(total_probability(shared, weights) - 1) > 0.02
