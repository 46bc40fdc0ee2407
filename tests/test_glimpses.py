"""What each glimpse promises, and a glimpse of one's own."""

import itertools

import numpy as np
import pytest
import torch
from formulas import set_weights, waves
from torch import Tensor, nn

from drawbench import attention, spatial, streams
from drawbench.attention import Window
from drawbench.models.glimpse import GlimpseClassifier
from drawbench.models.glimpses import (
    AffineGlimpse,
    EyeGlimpse,
    FixedGlimpse,
    GaussianGlimpse,
    Glimpse,
    HardGlimpse,
    RandomGlimpse,
    Transform,
    View,
    grid,
    reinforce,
)

GLIMPSES = {
    "gaussian": lambda: GaussianGlimpse(3),
    "linear": lambda: GaussianGlimpse(3, "linear"),
    "eye": lambda: EyeGlimpse(3, channels=2),
    "affine": lambda: AffineGlimpse(3),
    "fixed": lambda: FixedGlimpse(3, glimpses=3),
    "random": lambda: RandomGlimpse(3),
    "hard": lambda: HardGlimpse(3, scales=2, hidden=6, channels=2),
}
each = pytest.mark.parametrize("name", GLIMPSES)


def some_model(glimpse: Glimpse) -> GlimpseClassifier:
    network = {"glimpses": 3, "hidden": 6, "classes": 4, "channels": 2}
    return set_weights(GlimpseClassifier(glimpse, **network))


def some_images(batch: int = 4) -> Tensor:
    """Return images of 8-bit values."""
    return ((waves(batch, 2, 12, 15) / 2 + 0.5) * 255).round() / 255


# --- all of them ---


@each
def test_every_parameter_gets_a_gradient(name):
    """From the answers after every glimpse and, for a hard glimpse, from the loss that it adds."""
    model, images = some_model(GLIMPSES[name]()), some_images()
    noise = waves(4, model.noise) if model.noise else None
    record = model(images, noise=noise)
    loss = record.logits.square().sum()
    if model.added_loss is not None:
        loss = loss + model.added_loss(record, torch.arange(4))
    loss.backward()
    for parameter in model.parameters():
        assert parameter.grad is not None and torch.isfinite(parameter.grad).all()
        assert (parameter.grad != 0).any()


@each
def test_reading_what_was_chosen_is_what_the_record_holds(name):
    model, images = some_model(GLIMPSES[name]()), some_images()
    record, glimpse = model(images), model.glimpse
    assert record.patches.shape == (4, 3, 2 * glimpse.scales, 3, 3)
    for t in range(3):
        where = type(record.windows)(*(field[:, t] for field in record.windows))
        patch = glimpse.read(images, where)
        torch.testing.assert_close(patch, record.patches[:, t])
        assert glimpse.encode(patch, where).shape == (4, glimpse.inputs(2))
    assert record.patches[0, 0].numel() == glimpse.pixels_per_look(2)


@each
def test_answers_do_not_depend_on_the_batch(name):
    model, images = some_model(GLIMPSES[name]()), some_images(5)
    together, alone = model(images), [model(image[None]) for image in images]
    torch.testing.assert_close(together.logits, torch.cat([one.logits for one in alone]))


# --- outlines ---


def test_corners_of_grids_and_maps_are_where_they_read():
    """A Gaussian outline joins the outermost filter centres, pixels counted from 0; an affine one
    the outer edges of the patch.
    """
    numbers = torch.tensor([[0.2, -0.1, 0.3, -0.4, 0.0]], dtype=torch.float64)
    where = attention.window(numbers, 20, 30, 4)
    across = attention.filter_centres(where.centre_x, where.stride, 4)[0] - 1
    down = attention.filter_centres(where.centre_y, where.stride, 4)[0] - 1
    (left, right), (top, bottom) = across[[0, -1]].tolist(), down[[0, -1]].tolist()
    twin = [[left, top], [right, top], [right, bottom], [left, bottom]]
    corners = GaussianGlimpse(4).corners(where, 20, 30)[0]
    torch.testing.assert_close(corners, torch.tensor(twin, dtype=torch.float64))

    theta = torch.tensor([[[0.4, 0.0, -0.2], [0.0, 0.5, 0.1]]])
    twin = torch.tensor([[5.5, 5.5], [17.5, 5.5], [17.5, 15.5], [5.5, 15.5]])
    torch.testing.assert_close(AffineGlimpse(4).corners(Transform(theta), 20, 30)[0], twin)
    images = torch.zeros(1, 1, 20, 30)
    images[..., 6:16, 6:18] = 1  # all pixels whose centres lie inside
    assert spatial.affine_read(images, theta, 4).min() == 1


def test_corners_of_a_hard_glimpse_enclose_each_scale():
    glimpse = HardGlimpse(2, scales=3, hidden=4)
    place = torch.tensor([[0.1, -0.2]])
    view = View(torch.zeros(1, 1, 30, 40), torch.zeros(1, 4), 0, None)
    where = glimpse.choose(torch.atanh(place), view)
    for scale in range(3):
        corners = glimpse.corners(where, 30, 40, scale)[0]
        (left, top), (right, bottom) = (corners[[0, 2]] + 0.5).int().tolist()
        assert right - left == bottom - top == 2 << scale
        images = torch.zeros(1, 1, 30, 40)
        images[..., top:bottom, left:right] = 1
        assert glimpse.read(images, where)[0, scale].min() == 1


# --- Gaussian, affine, fixed and random glimpses ---


@pytest.mark.parametrize("kind", [GaussianGlimpse, AffineGlimpse])
def test_the_maps_differ_and_only_one_is_bounded(kind):
    numbers = torch.full((1, kind.numbers), 4.0)
    view = View(torch.zeros(1, 1, 11, 11), None, 0, None)
    linear, bounded = (kind(3, name).choose(numbers, view)[0] for name in ("linear", "bounded"))
    limit = 6 * (1.2 + 1) if kind is GaussianGlimpse else 1.9
    assert linear.flatten()[0] == (6 * (4 + 1) if kind is GaussianGlimpse else 5)
    assert bounded.flatten()[0] < limit


def test_random_places_are_a_function_of_the_content():
    images, glimpse = some_images(40), RandomGlimpse()
    places = glimpse.draw(images, 6)
    assert places.shape == (40, 6, 2)
    assert torch.equal(glimpse.draw(images[7:9], 6), places[7:9])
    assert torch.equal(glimpse.draw(images, 3), places[:, :3])
    assert not torch.equal(places[0], places[1])
    one_grey_level = images.clone()
    one_grey_level[0, 0, -1, -1] += 1 / 255
    assert not torch.equal(glimpse.draw(one_grey_level, 6)[0], places[0])


def test_random_places_are_uniform():
    counter = torch.arange(20000)
    images = torch.stack([counter // 255 % 255, counter % 255], dim=1).view(-1, 1, 1, 2) / 255
    places = RandomGlimpse().draw(images, 2).flatten(1)
    assert places.min() >= -1 and places.max() < 1
    # the standard deviation of the uniform is 1/sqrt 3
    assert places.mean(0).abs().max() < 4 / (3 * 20000) ** 0.5
    covariance = torch.eye(4, dtype=torch.float64) / 3
    torch.testing.assert_close(places.T.cov(), covariance, atol=0.01, rtol=0)


def test_a_random_glimpse_lies_where_it_was_drawn_and_a_step_alone_finds_the_place():
    model, images = some_model(RandomGlimpse(3)), some_images()
    record, places = model(images), model.glimpse.draw(images, 3)
    torch.testing.assert_close(record.windows.place, places)
    torch.testing.assert_close(record.windows.centre_x, 8 * (places[..., 0] + 1))
    torch.testing.assert_close(record.windows.centre_y, 6.5 * (places[..., 1] + 1))
    where = model.step(images, model.start(images), 2)[1]
    torch.testing.assert_close(where.place, places[:, 2])


def test_fixed_windows_are_the_same_for_every_image_and_repeat():
    model, images = some_model(FixedGlimpse(3, glimpses=2)), some_images()
    windows = model(images, glimpses=5).windows
    assert all(torch.equal(field, field[:1].expand(4, -1)) for field in windows)
    assert torch.equal(windows.centre_x[:, 2:4], windows.centre_x[:, :2])
    assert model.to_window is None


def test_the_first_fixed_windows_divide_the_image_among_them():
    where = attention.window(attention.squash(grid(9)), 90, 90, 12)
    centres = zip(where.centre_x.round().tolist(), where.centre_y.round().tolist(), strict=True)
    assert len(set(centres)) == 9
    for centre in (where.centre_x, where.centre_y):
        torch.testing.assert_close(centre.mean(), torch.tensor(45.5))


# --- hard attention ---


def test_reinforce_is_the_gradient_of_the_expected_reward():
    """One place from N(m, s^2) and the reward 1 - (l - 1)^2: the expected reward is 1 - (m - 1)^2 -
    s^2, its slope -2 (m - 1). The expectation is exact, by Gauss-Hermite quadrature.
    """
    nodes, weights = (torch.from_numpy(values) for values in np.polynomial.hermite_e.hermegauss(20))
    weights = weights / weights.sum()
    m, s = torch.tensor(0.3, dtype=torch.float64, requires_grad=True), 0.4
    places = (m + s * nodes).detach()
    log_probability, reward = -0.5 * ((places - m) / s).square(), 1 - (places - 1).square()
    for baseline in (0.0, 0.7, -3.0):
        expected = torch.full((1, 1), baseline, dtype=torch.float64)
        each = [
            reinforce(log_probability[n : n + 1, None], reward[n : n + 1], expected)
            for n in range(len(nodes))
        ]
        (slope,) = torch.autograd.grad(torch.stack(each) @ weights, m, retain_graph=True)
        assert slope.item() == pytest.approx(2 * (0.3 - 1))  # of minus the reward


def test_a_good_baseline_lowers_the_variance_and_keeps_the_mean():
    """Two choices with probability p and 1 - p, enumerated; two steps that share the reward."""
    theta = torch.tensor(0.4, dtype=torch.float64, requires_grad=True)
    p = torch.sigmoid(theta)
    outcomes = [(a, b) for a in (0, 1) for b in (0, 1)]
    chance = torch.stack([(p if a else 1 - p) * (p if b else 1 - p) for a, b in outcomes])
    rewards = torch.tensor([0.0, 1.0, 1.0, 5.0], dtype=torch.float64)
    (truth,) = torch.autograd.grad(-(chance * rewards).sum(), theta, retain_graph=True)
    variances = []
    for baseline in (0.0, 2.0):
        slopes = []
        for choices, reward in zip(outcomes, rewards, strict=True):
            log_probability = torch.stack([(p if one else 1 - p).log() for one in choices])[None]
            expected = torch.full((1, 2), baseline, dtype=torch.float64)
            loss = reinforce(log_probability, reward[None], expected)
            slopes.append(torch.autograd.grad(loss, theta, retain_graph=True)[0])
        mean = (chance.detach() * torch.stack(slopes)).sum()
        torch.testing.assert_close(mean, truth)
        spread = (torch.stack(slopes) - mean).square()
        variances.append(float((chance.detach() * spread).sum()))
    assert variances[1] < variances[0]


def test_an_eye_sees_the_raw_patch_its_features_and_the_numbers_of_the_window():
    glimpse, images = set_weights(EyeGlimpse(4, channels=2)), some_images(2)
    numbers = waves(2, 5)
    where = glimpse.choose(numbers, View(images, numbers, 0, None))
    patch = glimpse.read(images, where)
    torch.testing.assert_close(patch, GaussianGlimpse(4).read(images, Window(*where[:5])))
    raw, features, window = glimpse.encode(patch, where).split([2 * 16, 32 * 4, 5], dim=1)
    assert torch.equal(raw, patch.flatten(1)) and torch.equal(window, numbers)
    first = convolve(patch[0], glimpse.first, 1)
    torch.testing.assert_close(features[0], convolve(first, glimpse.second, 2).flatten())


def convolve(image: Tensor, layer: nn.Conv2d, stride: int) -> Tensor:
    """A 3x3 convolution with a border of zeros and a ReLU, pixel by pixel."""
    side = image.shape[-1]
    result = image.new_zeros(layer.out_channels, -(-side // stride), -(-side // stride))
    for o, y, x in itertools.product(*map(range, result.shape)):
        total = layer.bias[o]
        for c, dy, dx in itertools.product(range(image.shape[0]), range(-1, 2), range(-1, 2)):
            row, column = y * stride + dy, x * stride + dx
            if 0 <= row < side and 0 <= column < side:
                total = total + layer.weight[o, c, dy + 1, dx + 1] * image[c, row, column]
        result[o, y, x] = total.clamp(min=0)
    return result


@pytest.fixture
def hard() -> GlimpseClassifier:
    with streams.seeded(0, "hard"):
        return GlimpseClassifier(HardGlimpse(4, scales=2, hidden=16), glimpses=2, hidden=16)


def test_the_added_loss_trains_places_and_baseline_but_not_the_answer(hard):
    images, labels = some_images(8)[:, :1].float(), torch.arange(8)
    record = hard(images, noise=streams.normals(torch.arange(8), hard.noise, 0, "test").float())
    loss = hard.added_loss(record, labels)
    where, reward = record.windows, (record.logits[:, -1].argmax(-1) == labels).float()
    surprise = (where.baseline - reward[:, None]).square().mean()
    places = reinforce(where.log_probability, reward, where.baseline)
    torch.testing.assert_close(loss, 0.1 * places + surprise)
    loss.backward()
    gradients = {name: parameter.grad for name, parameter in hard.named_parameters()}
    assert gradients["classify.weight"] is None
    assert gradients["to_window.weight"].abs().sum() > 0
    assert gradients["glimpse.expect.weight"].abs().sum() > 0


def test_the_baseline_sends_no_gradient_into_the_state(hard):
    record = hard(some_images(3)[:, :1].float(), noise=torch.ones(3, 4))
    record.windows.baseline.sum().backward()
    assert hard.cell.weight_hh.grad is None and hard.start_hidden.grad is None


def test_without_noise_a_hard_glimpse_looks_at_the_mean(hard):
    images = some_images(3)[:, :1].float()
    mean, still = hard(images), hard(images, noise=torch.zeros(3, 4))
    torch.testing.assert_close(mean.logits, still.logits)
    moved = hard(images, noise=torch.ones(3, 4)).windows
    shift = moved.place[:, 0] - mean.windows.place[:, 0]
    torch.testing.assert_close(shift, torch.full((3, 2), 0.15))
    # one deviation away in two directions
    assert moved.log_probability[:, 0].tolist() == pytest.approx([-1.0] * 3)
    crop = spatial.crops(images, mean.windows.place[:, 1], 4, 2).flatten(1, 2)
    torch.testing.assert_close(mean.patches[:, 1], crop)


# --- a glimpse of one's own ---


class Pooled(Glimpse):
    """The whole image, averaged to N x N, however often one looks; and where it was "seen"."""

    numbers = 1

    def choose(self, numbers, view):
        return attention.Filters(numbers, numbers * view.step)

    def read(self, images, where):
        pooled = torch.nn.functional.adaptive_avg_pool2d(images, self.patch)
        return pooled * where.y[:, :, None, None]

    def encode(self, patch, where):
        return torch.cat([patch.flatten(1), where.x], dim=1)

    def inputs(self, channels):
        return super().inputs(channels) + 1


def test_a_new_glimpse_needs_choose_and_read_alone():
    model, images = some_model(Pooled(2)), some_images()
    record = model(images)
    pooled = torch.nn.functional.adaptive_avg_pool2d(images, 2)[:, None]
    torch.testing.assert_close(record.patches, pooled * record.windows.y[..., None, None])
    assert record.windows.x.shape == (4, 3, 1) and (record.windows.x[:, 0] == 0).all()
    assert model.pixels_read == 3 * 2 * 4


@pytest.mark.parametrize("kind", [GaussianGlimpse, AffineGlimpse])
def test_an_unknown_window_map_is_named(kind):
    with pytest.raises(ValueError, match=r"window_map must be one of .*'linear'.*got 'quadratic'"):
        kind(window_map="quadratic")


def test_impossible_sizes_are_named():
    for kind in (GaussianGlimpse, AffineGlimpse, FixedGlimpse, RandomGlimpse, HardGlimpse):
        with pytest.raises(ValueError, match="at least 1, got patch 0"):
            kind(patch=0)
    with pytest.raises(ValueError, match="positive, got 0"):
        HardGlimpse(deviation=0)
