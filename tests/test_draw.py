"""DRAW against the paper's equations in loops, one number at a time; then the faults found in
public code; then its bound, and models that extend it.
"""

import math

import formulas
import pytest
import torch
from formulas import (
    binary_images,
    check_gradients,
    linear,
    normal_grid,
    set_weights,
    sigmoid,
    waves,
    zero,
)
from torch import Tensor, nn

from drawbench.attention import WINDOW_MAPS
from drawbench.likelihood import Bernoulli, Gaussian
from drawbench.models import draw_images
from drawbench.models.draw import Draw
from drawbench.models.vae import VAE
from drawbench.streams import normals

READS_AND_WRITES = [(2, 3), (None, None), (3, None), (None, 2)]
START_STATES = ("encoder_hidden", "encoder_cell", "decoder_hidden", "decoder_cell")


def some_model(
    height: int = 5,
    width: int = 7,
    read_patch: int | None = 2,
    write_patch: int | None = 3,
    kind: type[Draw] = Draw,
    **others,
) -> Draw:
    others = {"steps": 3, "hidden": 4, "latent": 2} | others
    patches = {"read_patch": read_patch, "write_patch": write_patch}
    return set_weights(kind(height, width, **patches, **others))


def some_images(batch: int = 2, channels: int = 1, height: int = 5, width: int = 7) -> Tensor:
    return waves(batch, channels, height, width) / 2 + 0.5


def some_noise(batch: int = 2, steps: int = 3, latent: int = 2) -> Tensor:
    return 1.5 * waves(batch, steps, latent, pace=1.1)


# --- the twin: one image, Python numbers ---


def twin(model: Draw, image: list, noise: list) -> list[dict]:
    """Take every step of equations 1-8 for one image[channel][row][column] and
    noise[step][latent].
    """
    weights, (channels, height, width) = model.state_dict(), model.size
    canvas = weights["start_canvas"].tolist()
    h_enc, c_enc, h_dec, c_dec = (weights[f"start_{name}"].tolist() for name in START_STATES)

    def window(name: str, patch: int) -> list[float]:
        numbers = linear(weights, name, h_dec)
        if model.window_map == "bounded":
            numbers = formulas.squash(numbers)
        return formulas.window(numbers, height, width, patch)

    def flat(planes: list) -> list[float]:
        return [x for plane in planes for row in plane for x in row]

    steps = []
    for t in range(model.steps):
        error = combine(lambda x, c: x - sigmoid(c), image, canvas)
        read_window, write_window, patch = None, None, model.read_patch
        glimpse = image + error
        if patch is not None:
            read_window = window("to_read_window", patch)
            glimpse = [formulas.read(plane, read_window, patch) for plane in glimpse]
        h_enc, c_enc = formulas.lstm(weights, "encoder", flat(glimpse) + h_dec, h_enc, c_enc)
        mu, log_sigma = linear(weights, "to_mu", h_enc), linear(weights, "to_log_sigma", h_enc)
        z = [m + math.exp(s) * e for m, s, e in zip(mu, log_sigma, noise[t], strict=True)]
        h_dec, c_dec = formulas.lstm(weights, "decoder", z, h_dec, c_dec)
        numbers, patch = linear(weights, "to_patch", h_dec), model.write_patch
        rows, columns = (height, width) if patch is None else (patch, patch)
        if patch is not None:
            write_window = window("to_write_window", patch)
        drawings = []
        for c in range(channels):
            part = numbers[c * rows * columns : (c + 1) * rows * columns]
            drawing = [part[b * columns : (b + 1) * columns] for b in range(rows)]
            if patch is not None:
                drawing = formulas.write(drawing, write_window, height, width)
            drawings.append(drawing)
        canvas = combine(lambda old, new: old + new, canvas, drawings)
        record = {"canvas": canvas, "mu": mu, "log_sigma": log_sigma}
        steps.append(record | {"read": read_window, "write": write_window})
    return steps


def combine(function, ones: list, others: list) -> list:
    """Apply a function to each pair of numbers of two images."""
    if not isinstance(ones, list):
        return function(ones, others)
    return [combine(function, *pair) for pair in zip(ones, others, strict=True)]


def agree(ours: Tensor, twins: list) -> None:
    twins = torch.tensor(twins, dtype=torch.float64)
    torch.testing.assert_close(ours, twins, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("window_map", WINDOW_MAPS)
@pytest.mark.parametrize(("read_patch", "write_patch"), READS_AND_WRITES)
@pytest.mark.parametrize(("channels", "height", "width"), [(1, 4, 4), (3, 5, 3), (2, 3, 6)])
@torch.no_grad()
def test_agrees_with_the_written_out_equations(
    channels, height, width, read_patch, write_patch, window_map
):
    settings = {"channels": channels, "window_map": window_map}
    model = some_model(height, width, read_patch, write_patch, **settings)
    images, noise = some_images(2, channels, height, width), some_noise()
    record = model(images, noise, keep_canvases=True)
    for n in range(2):
        steps = twin(model, images[n].tolist(), noise[n].tolist())
        agree(record.canvases[n], [step["canvas"] for step in steps])
        agree(record.likelihood.logits[n], steps[-1]["canvas"])
        agree(record.posterior.mu[n], [step["mu"] for step in steps])
        agree(record.posterior.log_sigma[n], [step["log_sigma"] for step in steps])
        for windows, patch, name in (
            (record.read_windows, read_patch, "read"),
            (record.write_windows, write_patch, "write"),
        ):
            assert (windows is None) == (patch is None)
            if windows is not None:
                agree(torch.stack(windows, dim=-1)[n], [step[name] for step in steps])


@pytest.mark.parametrize(("read_patch", "write_patch"), [(2, 2), (None, None)])
def test_gradients(read_patch, write_patch):
    """Of the bound, with respect to every weight, the start included."""
    model = some_model(2, 3, read_patch, write_patch, steps=2, hidden=1, latent=1)
    images, noise = some_images(1, 1, 2, 3), some_noise(1, 2, 1)
    check_gradients(model, (images, noise), lambda record: record.terms(images).bound)


# --- shapes and records ---


@pytest.mark.parametrize(("read_patch", "write_patch"), READS_AND_WRITES)
@pytest.mark.parametrize("channels", [1, 3])
def test_shapes(read_patch, write_patch, channels):
    model = some_model(6, 9, read_patch, write_patch, channels=channels, steps=5)
    record = model(some_images(4, channels, 6, 9), some_noise(4, 5))
    sample = model.sample(some_noise(4, 5), keep_canvases=True)
    assert record.mean.shape == sample.mean.shape == (4, channels, 6, 9)
    assert record.posterior.mu.shape == record.posterior.log_sigma.shape == (4, 5, 2)
    assert record.prior is None and record.canvases is None and record.frames is None
    assert sample.frames.shape == (4, 5, channels, 6, 9)
    assert torch.equal(sample.frames[:, -1], sample.mean)
    for windows, patch in (
        (record.read_windows, read_patch),
        (record.write_windows, write_patch),
        (sample.write_windows, write_patch),
    ):
        assert windows is None if patch is None else {field.shape for field in windows} == {(4, 5)}


def test_forward_is_start_and_steps():
    model, images, noise = some_model(), some_images(), some_noise()
    record, state = model(images, noise, keep_canvases=True), model.start(2)
    for t in range(3):
        state, step = model.step(images, state, noise[:, t])
        torch.testing.assert_close(state.canvas, record.canvases[:, t])
        torch.testing.assert_close(step.posterior.mu, record.posterior.mu[:, t])
        torch.testing.assert_close(step.write_window.stride, record.write_windows.stride[:, t])


def test_decoding_the_latents_of_a_reconstruction_draws_it_again():
    model, images, noise = some_model(), some_images(), some_noise()
    record = model(images, noise, keep_canvases=True)
    decoded = model.decode(record.posterior.at(noise), keep_canvases=True)
    torch.testing.assert_close(decoded.frames, record.frames)
    torch.testing.assert_close(model.decode(noise).mean, model.sample(noise).mean)


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
    picture = model.sample(some_noise()).mean
    torch.testing.assert_close(picture[:, 1:], picture[:, :1].expand(-1, 2, -1, -1))


def test_first_windows_cover_the_whole_image():
    """Initial weights of the window maps are small, so the first grid spans the image, whatever the
    state is.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = Draw(28, 28, steps=2, hidden=32, latent=3)
    windows = model(torch.zeros(1, 1, 28, 28), torch.zeros(1, 2, 3)).write_windows
    torch.testing.assert_close(windows.centre_x, torch.full((1, 2), 14.5), rtol=0, atol=1.0)
    torch.testing.assert_close(windows.stride, torch.full((1, 2), 27 / 4), rtol=0.05, atol=0)


# --- the faults of public code ---


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
    moved, unmoved = after.write_windows, before.write_windows
    torch.testing.assert_close(moved.centre_y[:, 0], unmoved.centre_y[:, 0] + 0.3 * 3)
    torch.testing.assert_close(moved.centre_x[:, 0], unmoved.centre_x[:, 0])
    torch.testing.assert_close(after.posterior.mu[:, 0], before.posterior.mu[:, 0])

    with torch.no_grad():
        model.to_write_window.bias[1] -= 0.3
        model.to_read_window.bias[0] += 0.3
    moved, unmoved = model(images, noise).read_windows, before.read_windows
    torch.testing.assert_close(moved.centre_x[:, 0], unmoved.centre_x[:, 0] + 0.3 * 4)
    torch.testing.assert_close(moved.centre_y[:, 0], unmoved.centre_y[:, 0])
    # the writer never asks the reader
    torch.testing.assert_close(model.sample(noise).mean, some_model().sample(noise).mean)


def test_fault_3_read_from_the_old_decoder_and_write_from_the_new():
    """The first read window comes from the learned start; the write window of the same step already
    depends on the latents.
    """
    record = some_model()(some_images(), some_noise())
    for field in record.read_windows:
        assert torch.equal(field[0, 0], field[1, 0])
    centre = record.write_windows.centre_x[:, 0]
    assert not torch.allclose(centre[0], centre[1])


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
        assert torch.equal(after.canvases[:, :t], before.canvases[:, :t])
        assert torch.equal(after.posterior.mu[:, : t + 1], before.posterior.mu[:, : t + 1])
        for step in range(t, 3):
            assert not torch.allclose(after.canvases[:, step], before.canvases[:, step], atol=1e-6)


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
    images = some_images()
    assert not torch.allclose(model(images, noise).mean, model(1 - images, noise).mean)
    zero(model.to_mu, model.to_log_sigma)
    for some in (images, 1 - images):
        canvases = model(some, noise, keep_canvases=True).canvases
        torch.testing.assert_close(canvases, sample.canvases)
    zero(model.encoder)
    assert torch.equal(model.sample(noise).mean, sample.mean)


def test_fault_8_everything_before_the_first_step_is_learned():
    """Fault 8: a start fixed at zero, so that the drawing starts from grey."""
    model, images, noise = some_model(), some_images(), some_noise()
    before = model(images, noise)
    before.terms(images).bound.sum().backward()
    parameters = dict(model.named_parameters())
    for name in ("start_canvas", *(f"start_{name}" for name in START_STATES)):
        assert parameters[name].grad.abs().min() > 0, name
        other = some_model()
        with torch.no_grad():
            dict(other.named_parameters())[name].zero_()
        assert not torch.allclose(other(images, noise).mean, before.mean), name


# --- what it costs ---


@pytest.mark.parametrize(("read_patch", "write_patch"), READS_AND_WRITES)
def test_zero_weights_cost_ln_2_a_pixel(read_patch, write_patch):
    model = some_model(28, 20, read_patch, write_patch, channels=3)
    zero(model)
    images, noise = (some_images(2, 3, 28, 20) > 0.5).double(), some_noise()
    losses = model(images, noise).terms(images)
    assert losses.kl.abs().max() == 0
    assert losses.bound.tolist() == pytest.approx([3 * 28 * 20 * math.log(2)] * 2, rel=1e-7)


class LearnedPrior(Draw):
    """The prior of each step is a map of the decoder's state."""

    def __init__(self, *sizes, **others):
        super().__init__(*sizes, **others)
        self.to_prior = nn.Linear(self.decoder.hidden_size, 2 * self.latent)

    def prior(self, state):
        return Gaussian(*self.to_prior(state.decoder.hidden).chunk(2, dim=1))


@pytest.mark.parametrize("kind", [Draw, LearnedPrior])
@pytest.mark.parametrize(("read_patch", "write_patch"), [(2, 2), (None, None)])
@torch.no_grad()
def test_mean_weight_is_the_likelihood_and_the_bound_is_below(read_patch, write_patch, kind):
    """Two pixels, two steps, one latent: integrating over what the decoder draws alone gives p(x).

    The encoder's weights must have exactly that mean, and the mean bound lie below; all four images
    together have probability 1. Shared noise, a wrong constant, a posterior or a prior that is not
    the one sampled from: each would break it.
    """
    sizes = {"steps": 2, "hidden": 2, "latent": 1}
    model, (noise, mass) = some_model(1, 2, read_patch, write_patch, kind, **sizes), normal_grid()
    sample, total = model.sample(noise), 0.0
    for image in binary_images(1, 2):
        images = image[None].expand(len(noise), -1, -1, -1)
        truth = (mass * sample.likelihood.log_prob(images).exp()).sum().item()
        record = model(images, noise)
        log_w = record.log_weight(images, noise)
        assert (mass * log_w.exp()).sum().item() == pytest.approx(truth, rel=1e-4)
        bound = (mass * record.terms(images).bound).sum().item()
        assert bound == pytest.approx(-(mass * log_w).sum().item(), rel=1e-6)
        assert bound > -math.log(truth) + 1e-3
        total += truth
    assert total == pytest.approx(1, rel=1e-9)


# --- models that extend it ---


def test_a_learned_prior_changes_samples_weights_and_kl_but_no_reconstruction():
    plain, learned = some_model(), some_model(kind=LearnedPrior)
    learned.load_state_dict(plain.state_dict(), strict=False)
    images, noise = some_images(), some_noise()
    ours, theirs = learned(images, noise), plain(images, noise)
    torch.testing.assert_close(ours.mean, theirs.mean)
    torch.testing.assert_close(learned.decode(noise).mean, plain.decode(noise).mean)
    assert not torch.allclose(learned.sample(noise).mean, plain.sample(noise).mean)
    assert ours.prior.mu.shape == (2, 3, 2)
    torch.testing.assert_close(ours.terms(images).kl, ours.posterior.kl(ours.prior).sum(-1))
    ours.terms(images).bound.sum().backward()
    assert learned.to_prior.weight.grad.abs().min() > 0
    zero(learned.to_prior)
    torch.testing.assert_close(learned.sample(noise).mean, plain.sample(noise).mean)
    torch.testing.assert_close(learned(images, noise).terms(images), theirs.terms(images))


class Told(LearnedPrior):
    """A model that is told a class: it shifts every latent and the prior."""

    def __init__(self, *sizes, **others):
        super().__init__(*sizes, **others)
        self.embed = nn.Embedding(10, self.latent)

    def start(self, batch_size, condition=None):
        return super().start(batch_size)._replace(condition=self.embed(condition))

    def prior(self, state):
        prior = super().prior(state)
        return prior._replace(mu=prior.mu + state.condition)

    def write_latent(self, state, latent):
        return super().write_latent(state, latent + state.condition)


@pytest.mark.parametrize("segment", [None, 2])
def test_a_condition_reaches_every_step_prior_and_sample(segment):
    model, images, noise = some_model(kind=Told), some_images(), some_noise()
    labels = torch.tensor([3, 7])
    record = model(images, noise, labels, segment=segment)
    assert not torch.allclose(record.mean, model(images, noise, labels.flip(0)).mean)
    for draw in (model.sample, model.decode):
        together = draw(noise, labels).mean
        assert not torch.allclose(together, draw(noise, labels.flip(0)).mean)
        alone = [draw(noise[n : n + 1], labels[n : n + 1]).mean for n in range(2)]
        torch.testing.assert_close(together, torch.cat(alone))
    record.terms(images).bound.sum().backward()
    assert (model.embed.weight.grad.abs().sum(1) > 0).nonzero().flatten().tolist() == [3, 7]
    same = draw_images(model, images, noise, labels)
    torch.testing.assert_close(same.terms(images), record.terms(images))


def test_a_condition_that_the_model_does_not_take_is_refused():
    model = some_model()
    inputs = ((some_images(), some_noise()), (some_noise(),), (some_noise(),))
    for call, given in zip((model, model.sample, model.decode), inputs, strict=True):
        with pytest.raises(ValueError, match="Draw takes no condition"):
            call(*given, torch.zeros(2))


class Doubled(Bernoulli):
    """Every pixel counts twice."""

    def log_prob(self, images, dtype=None):
        return 2 * super().log_prob(images, dtype)


class OtherPixels(Draw):
    def likelihood(self, canvas):
        return Doubled(canvas)


def test_the_distribution_of_pixels_can_be_replaced():
    model, images = some_model(kind=OtherPixels), some_images()
    ours = model(images, some_noise()).terms(images)
    theirs = some_model()(images, some_noise()).terms(images)
    torch.testing.assert_close(ours.reconstruction, 2 * theirs.reconstruction)
    assert isinstance(model.sample(some_noise()).likelihood, Doubled)


# --- learning and errors ---


def test_a_forward_pass_uses_no_random_numbers():
    model, before = some_model(), torch.get_rng_state()
    first, second = (model(some_images(), some_noise()).mean for _ in range(2))
    model.sample(some_noise())
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(first, second)


@pytest.mark.parametrize("model", [some_model(), VAE(5, 7, hidden=4, latent=2)])
@torch.no_grad()
def test_under_autocast_the_record_is_float32(model):
    """Half precision is for matrix products; what the bound is made of stays wide."""
    images, noise = some_images().float(), some_noise(steps=model.steps).float()
    exact = set_weights(model).float()(images, noise)
    with torch.autocast("cpu", torch.bfloat16):
        rounded = model(images, noise)
    for ours, wide in (
        (rounded.likelihood.logits, exact.likelihood.logits),
        (rounded.posterior.mu, exact.posterior.mu),
        (rounded.posterior.log_sigma, exact.posterior.log_sigma),
    ):
        assert ours.dtype == torch.float32 and not torch.equal(ours, wide)
        torch.testing.assert_close(ours, wide, rtol=0.05, atol=0.05)


@pytest.mark.parametrize(("read_patch", "write_patch"), [(3, 3), (None, None)])
def test_a_toy_problem_is_learned(read_patch, write_patch):
    """Left half or right half: ln 2 would be perfect; a grey canvas, and the best that needs no
    latent, cost 16 ln 2.
    """
    images = torch.zeros(2, 1, 4, 4)
    images[0, ..., :2] = images[1, ..., 2:] = 1
    model = some_model(4, 4, read_patch, write_patch, steps=2, hidden=8).float()
    optimizer = torch.optim.Adam(model.parameters(), lr=0.03)
    bounds = []
    for step in range(50):
        noise = normals(torch.arange(2), 2 * 2, 0, "train", step).view(2, 2, 2).float()
        losses = model(images, noise).terms(images)
        optimizer.zero_grad()
        losses.bound.mean().backward()
        optimizer.step()
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
