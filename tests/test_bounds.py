"""Bounds measured over many images: nothing is counted twice, left out or averaged too early."""

import math
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch

from drawbench.data.batch import Batch
from drawbench.errors import Problem
from drawbench.evaluation import bounds
from drawbench.models import as_images
from drawbench.models.draw import Draw
from drawbench.models.vae import VAE

PIXELS = 6 * 5


def model(kind=Draw, steps=3):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        drawer = kind(6, 5, steps=steps, hidden=7, latent=4, read_patch=2, write_patch=3)
        # livelier than the initial weights, so that every term matters
        for parameter in drawer.parameters():
            torch.nn.init.normal_(parameter, std=0.4)
    return drawer


def pictures(count=23, condition=None):
    generator = torch.Generator().manual_seed(1)
    images = torch.randint(0, 2, (count, 1, 6, 5), generator=generator, dtype=torch.uint8)
    return Batch(255 * images, condition=condition)


@torch.no_grad()
def test_the_bound_agrees_with_a_loop_over_images_and_samples():
    drawer, data = model(), pictures(5)
    measured = bounds.bound(drawer, data, samples=3, seed=9, batch=2)
    for n in range(5):
        x = data.images[n : n + 1].float() / 255
        values, reconstructions, kls = [], [], []
        for sample in range(3):
            record = drawer(x, bounds.noise(torch.tensor([n]), 3, 4, 9, "bound", sample))
            p = torch.sigmoid(record.likelihood.logits.double())
            reconstructions.append(-(x * p.log() + (1 - x) * (1 - p).log()).sum().item())
            mu, sigma = record.posterior.mu.double(), record.posterior.log_sigma.double().exp()
            kls.append((0.5 * (mu**2 + sigma**2 - 2 * sigma.log() - 1)).sum(-1)[0].numpy())
            values.append(reconstructions[-1] + kls[-1].sum())
        assert measured.reconstruction[n] == pytest.approx(np.mean(reconstructions), rel=1e-5)
        assert measured.kl[n] == pytest.approx(np.mean(kls, axis=0), rel=1e-4)
        assert measured.per_image[n] == pytest.approx(np.mean(values), rel=1e-5)
        assert measured.sample_variance[n] == pytest.approx(np.var(values, ddof=1), rel=1e-2)
    assert measured.value == pytest.approx(measured.per_image.mean(), rel=1e-12)


class Conditional(Draw):
    """Starts from another canvas for every class."""

    def start(self, batch_size, condition=None):
        state = super().start(batch_size)
        return state._replace(canvas=state.canvas + condition[:, None, None, None])


class Recorded(NamedTuple):
    """A record of another kind, with ``terms`` and ``log_weight`` alone."""

    inner: Any

    def terms(self, images, dtype=None):
        terms = self.inner.terms(images, dtype)
        return terms._replace(reconstruction=2 * terms.reconstruction)

    def log_weight(self, images, noise):
        return 2 * self.inner.log_weight(images, noise)


class Other(Draw):
    def forward(self, *inputs, **options):
        return Recorded(super().forward(*inputs, **options))


@pytest.mark.parametrize("measure", [bounds.bound, bounds.importance_weighted])
def test_conditions_go_with_their_images(measure):
    labels = torch.arange(23.0)
    together = measure(model(Conditional), pictures(23, labels), samples=2, batch=7).per_image
    chosen = torch.tensor([22, 3])
    some = measure(model(Conditional), pictures(23, labels), samples=2, index=chosen)
    assert some.per_image == pytest.approx(together[[22, 3]], rel=1e-5)
    wrong = measure(model(Conditional), pictures(23, labels.flip(0)), samples=2).per_image
    assert not np.allclose(wrong, together)


def test_the_record_owns_the_objective():
    ours, theirs = (bounds.bound(model(kind), pictures()) for kind in (Other, Draw))
    assert ours.reconstruction == pytest.approx(2 * theirs.reconstruction)
    assert ours.kl == pytest.approx(theirs.kl)
    measure = bounds.importance_weighted
    ours, theirs = (measure(model(kind), pictures(), samples=1) for kind in (Other, Draw))
    assert ours.per_image == pytest.approx(2 * theirs.per_image)


@pytest.mark.parametrize("measure", [bounds.bound, bounds.importance_weighted])
def test_a_measurement_is_a_function_of_its_seed(measure):
    drawer, data = model(), pictures()
    whole = measure(drawer, data, samples=2, batch=100).per_image
    assert np.array_equal(measure(drawer, data, samples=2, batch=100).per_image, whole)
    assert not np.allclose(measure(drawer, data, samples=2, seed=1).per_image, whole)


def test_zero_weights_cost_ln_2_a_pixel_exactly():
    drawer = model()
    for parameter in drawer.parameters():
        torch.nn.init.zeros_(parameter)
    measured = bounds.bound(drawer, pictures(), samples=2)
    assert measured.per_image == pytest.approx(np.full(23, PIXELS * math.log(2)), rel=1e-7)
    assert (measured.kl == 0).all() and measured.kl.shape == (23, 3)
    assert measured.standard_error < 1e-12 and measured.sampling_error == 0
    weighted = bounds.importance_weighted(drawer, pictures(), samples=7)
    assert weighted.per_image == pytest.approx(np.full(23, PIXELS * math.log(2)), rel=1e-7)
    assert weighted.effective == pytest.approx(np.full(23, 7.0))


def test_one_weight_is_the_single_sample_bound_in_expectation_and_more_are_tighter():
    drawer, data, measure = model(), pictures(8), bounds.importance_weighted
    repeats = [measure(drawer, data, samples=1, seed=seed).per_image for seed in range(60)]
    singles = bounds.bound(drawer, data, samples=60)
    spread = np.std(repeats, axis=0, ddof=1) / math.sqrt(60) + np.sqrt(singles.sample_variance / 60)
    assert (abs(np.mean(repeats, axis=0) - singles.per_image) < 5 * spread).all()
    few, many = (measure(drawer, data, samples=k).value for k in (10, 300))
    assert singles.value > few > many


def test_a_known_likelihood_lies_below_the_bound_and_is_approached():
    """A decoder that ignores its latents has log p(x) in closed form, whatever the posterior says:
    the gap is exactly the KL.
    """
    vae = VAE(6, 5, hidden=8, latent=2)
    with torch.no_grad():
        vae.decoder.weight.zero_()
        vae.to_logits.bias.copy_(torch.linspace(-2, 2, PIXELS))
    data = pictures(6)
    with torch.no_grad():
        blank = vae.decode(torch.zeros(6, 1, 2)).likelihood
        truth = -blank.log_prob(as_images(data.images), torch.float64).numpy()
    single = bounds.bound(vae, data, samples=4)
    assert single.reconstruction == pytest.approx(truth, rel=1e-6)
    assert (single.per_image > truth).all()
    assert single.per_image - single.kl[:, 0] == pytest.approx(truth, rel=1e-6)
    gap = bounds.importance_weighted(vae, data, samples=2000).value - truth.mean()
    assert abs(gap) < 0.2 * (single.value - truth.mean())


def test_the_two_errors_mean_what_they_say():
    drawer, data = model(), pictures()
    measured = [bounds.bound(drawer, data, samples=5, seed=seed) for seed in range(40)]
    # Over other noise, the value of the same images scatters by the sampling error.
    expected = np.mean([one.sampling_error for one in measured])
    assert np.std([one.value for one in measured], ddof=1) == pytest.approx(expected, rel=0.4)
    one = measured[0]
    assert one.standard_error == pytest.approx(np.std(one.per_image, ddof=1) / math.sqrt(23))
    reach = 1.96 * one.standard_error
    assert one.interval == pytest.approx((one.value - reach, one.value + reach), rel=1e-5)
    assert bounds.bound(drawer, data).sampling_error is None


@pytest.mark.parametrize("measure", [bounds.bound, bounds.importance_weighted])
def test_one_image_has_no_standard_error(measure):
    measured = measure(model(), pictures(1), samples=1)
    assert measured.standard_error is None and math.isfinite(measured.value)
    if measure is bounds.bound:
        assert measured.interval is None and measured.n == 1


def test_evenly_spaced_images_cover_the_set_once():
    assert bounds.evenly(10, 4).tolist() == [0, 2, 5, 7]
    assert all(bounds.evenly(10, count).tolist() == list(range(10)) for count in (None, 10, 99))
    chosen = bounds.evenly(10_000, 977)
    assert len(chosen.unique()) == 977 and chosen.min() == 0
    assert chosen.diff().max() - chosen.diff().min() <= 1


@pytest.mark.parametrize("measure", [bounds.bound, bounds.importance_weighted])
def test_bad_requests_and_broken_weights_are_named(measure):
    with pytest.raises(Problem, match="at least 1"):
        measure(model(), pictures(), samples=0)
    broken = model()
    with torch.no_grad():
        broken.to_patch.bias.fill_(math.nan)
    with pytest.raises(Problem, match="not finite"):
        measure(broken, pictures(), samples=1)


@pytest.mark.parametrize("measure", [bounds.bound, bounds.importance_weighted])
def test_progress_counts_to_its_end_and_a_check_can_stop(measure):
    told = []
    measure(model(), pictures(), samples=3, batch=10, progress=lambda *counts: told.append(counts))
    assert told[-1] == (69, 69) and [done for done, _ in told] == sorted({done for done, _ in told})

    class Stop(Exception):
        pass

    def check():
        raise Stop

    with pytest.raises(Stop):
        measure(model(), pictures(), samples=3, check=check)
