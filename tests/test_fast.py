"""The fast path against the models' own forward, which is the reference; and who takes it."""

import copy
import types
from functools import partial

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from drawbench import fast, streams
from drawbench.attention import WINDOW_MAPS
from drawbench.fast import draw as fast_draw
from drawbench.fast import forward_for, has_fast_path, native
from drawbench.fast import glimpse as fast_glimpse
from drawbench.models.aligndraw import AlignDraw
from drawbench.models.cnn import SixLayerConv
from drawbench.models.draw import Draw
from drawbench.models.glimpse import GlimpseClassifier
from drawbench.models.glimpses import (
    AffineGlimpse,
    EyeGlimpse,
    FixedGlimpse,
    GaussianGlimpse,
    HardGlimpse,
    RandomGlimpse,
)
from drawbench.models.vae import VAE

needs_kernels = pytest.mark.skipif(
    native.kernels() is None, reason=f"no kernels: {native.why_no_kernels()}"
)
BFLOAT16 = torch.bfloat16


def relative(ours: list[Tensor], theirs: list[Tensor]) -> float:
    """Return the largest distance of two tensors in a list, relative to the second's length."""
    return max(
        float((a.detach().double() - b.detach()).norm() / (b.detach().norm() + 1e-12))
        for a, b in zip(ours, theirs, strict=True)
    )


def whole(gradients: list[Tensor]) -> Tensor:
    return torch.cat([gradient.flatten() for gradient in gradients])


@pytest.fixture
def taken(monkeypatch) -> list[str]:
    """The fast recurrences that ran, so that no test compares a model with itself."""
    names: list[str] = []
    for kind, (by_hand, names_of_inputs) in list(fast._BY_HAND.items()):

        def spy(*arguments, by_hand=by_hand, kind=kind, **named):
            names.append(kind.__name__)
            return by_hand(*arguments, **named)

        monkeypatch.setitem(fast._BY_HAND, kind, (spy, names_of_inputs))
    return names


# --- the generator ---

PATCHES = [(None, None), (None, 3), (2, None), (2, 5), (3, 3), (1, 4)]
SHAPES = [(1, 8, 8), (3, 7, 10)]


def drawer(shape, read_patch, write_patch, dtype=torch.float64, spread=0.2, batch=4, **settings):
    """Return a small model with weights far from zero, so that windows move and change size between
    steps, and its inputs.
    """
    channels, height, width = shape
    sizes = {"steps": 3, "hidden": 7, "latent": 4} | settings
    sizes |= {"read_patch": read_patch, "write_patch": write_patch}
    with streams.seeded(0, "fast drawing"):
        model = shaken(Draw(height, width, channels, **sizes).to(dtype), spread)
        images = torch.rand(batch, *shape, dtype=dtype)
        return model, images, torch.randn(batch, model.steps, model.latent, dtype=dtype)


@torch.no_grad()
def shaken(model: nn.Module, spread: float) -> nn.Module:
    for parameter in model.parameters():
        parameter += torch.randn_like(parameter) * spread
    return model


def parts_of(record) -> list[Tensor]:
    return [record.likelihood.logits, *record.posterior]


def loss_of(record, images, parts=("logits", "latents")) -> Tensor:
    """Return a number that is nonlinear in all that a drawing holds, and differs for mu and log
    sigma and for every step.
    """
    logits, mu, log_sigma = parts_of(record)
    total = logits.new_zeros(())
    if "logits" in parts:
        total = total + F.binary_cross_entropy_with_logits(logits, images, reduction="sum")
    if "latents" in parts:
        weights = torch.arange(1.0, mu.shape[1] + 1, dtype=mu.dtype)[:, None]
        mixed = mu.square() + torch.expm1(2 * log_sigma) + (mu * log_sigma).sin()
        total = total + (weights * mixed).sum()
    return total / len(images)


def outcome(forward, model, images, noise, parts=("logits", "latents")):
    """Return a drawing and the gradient of every parameter, zeros where there is none."""
    record = forward(images, noise)
    loss, weights = loss_of(record, images, parts), list(model.parameters())
    missing = {"allow_unused": True, "materialize_grads": True}
    return parts_of(record), torch.autograd.grad(loss, weights, **missing)


def check_agree(model, images, noise, limit=1e-10, **options):
    """Check that both versions give the same in float64."""
    ours = outcome(forward_for(model), model, images, noise, **options)
    theirs = outcome(model, model, images, noise, **options)
    assert relative(ours[0], theirs[0]) < limit
    assert relative(ours[1], theirs[1]) < limit


@needs_kernels
@pytest.mark.parametrize("window_map", WINDOW_MAPS)
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("read_patch, write_patch", PATCHES)
def test_drawings_and_gradients_equal_the_reference(
    window_map, shape, read_patch, write_patch, taken
):
    check_agree(*drawer(shape, read_patch, write_patch, window_map=window_map))
    # In float32 with calmer weights: those above make some windows so sharp that rounding errors
    # grow in either version.
    patches = (read_patch, write_patch)
    model, images, noise = drawer(shape, *patches, window_map=window_map, spread=0.05)
    truth = outcome(model, model, images, noise)
    model, images, noise = model.float(), images.float(), noise.float()
    values, gradients = outcome(forward_for(model), model, images, noise)
    assert all(value.dtype == torch.float32 for value in values)
    assert relative(values, truth[0]) < 1e-5
    assert relative([whole(gradients)], [whole(truth[1])]) < 1e-5
    assert taken == ["Draw"] * 2


@needs_kernels
@pytest.mark.parametrize("window_map", WINDOW_MAPS)
@pytest.mark.parametrize("read_patch, write_patch", [(None, 3), (2, None), (2, 5)])
def test_clipping_each_image_equals_the_reference(window_map, read_patch, write_patch):
    settings = {"window_map": window_map, "window_clip": 1e-2}
    model, images, noise = drawer(SHAPES[1], read_patch, write_patch, **settings)
    check_agree(model, images, noise)
    clipped = outcome(forward_for(model), model, images, noise)[1]
    model.window_clip = None
    free = outcome(forward_for(model), model, images, noise)[1]
    assert relative([whole(clipped)], [whole(free)]) > 1e-3  # or nothing was clipped


@needs_kernels
@pytest.mark.parametrize("window_map", WINDOW_MAPS)
@pytest.mark.parametrize("size", [3.0, 1e5])
def test_windows_beyond_every_limit_equal_the_reference(window_map, size):
    """Grids outside the image, filters far too sharp or too wide: the limits hold, and the gradient
    beyond them is 0.
    """
    model, images, noise = drawer(SHAPES[1], 2, 3, window_map=window_map)
    signs = torch.cartesian_prod(*[torch.tensor([-1.0, 1.0], dtype=torch.float64)] * 5)
    with torch.no_grad():
        for layer in (model.to_read_window, model.to_write_window):
            # each number is one of the first five units
            layer.weight.copy_(torch.eye(5, 7, dtype=torch.float64) * size)
    for sign in signs[::5]:
        with torch.no_grad():
            model.start_decoder_hidden.copy_(F.pad(sign, (0, 2)))
        ours = outcome(forward_for(model), model, images, noise)
        theirs = outcome(model, model, images, noise)
        # Over all parameters together: where filters are one pixel sharp, some gradients are
        # nothing but rounding errors.
        assert relative(ours[0], theirs[0]) < 1e-10
        assert relative([whole(ours[1])], [whole(theirs[1])]) < 1e-9
    model, images, noise = model.float(), images.float(), noise.float()
    for dtype in (torch.float32, BFLOAT16):
        values, gradients = outcome(forward_for(model, dtype), model, images, noise)
        assert all(torch.isfinite(part).all() for part in (*values, *gradients))


@needs_kernels
@pytest.mark.parametrize("parts", [("logits",), ("latents",)])
@pytest.mark.parametrize("read_patch, write_patch", [(None, None), (2, 3)])
def test_either_part_of_the_loss_alone(parts, read_patch, write_patch):
    check_agree(*drawer(SHAPES[0], read_patch, write_patch), parts=parts)


@needs_kernels
@pytest.mark.parametrize("settings", [{"steps": 1}, {"hidden": 1}, {"latent": 1}, {"batch": 1}])
@pytest.mark.parametrize("patch", [2, None])
def test_counts_of_one(settings, patch):
    check_agree(*drawer((1, 6, 6), patch, patch, **settings))


LARGER = {"spread": 0.05, "steps": 6, "hidden": 64, "latent": 16, "batch": 16}


@needs_kernels
@pytest.mark.parametrize("read_patch, write_patch", [(None, None), (None, 5), (2, None), (2, 5)])
def test_bfloat16_products_stay_close(read_patch, write_patch):
    model, images, noise = drawer((1, 20, 20), read_patch, write_patch, torch.float32, **LARGER)
    exact = outcome(forward_for(model), model, images, noise)
    rough = outcome(forward_for(model, BFLOAT16), model, images, noise)
    assert all(part.dtype == torch.float32 for part in (*rough[0], *rough[1]))
    assert relative(rough[0], exact[0]) < 0.02
    assert F.cosine_similarity(whole(exact[1]), whole(rough[1]), dim=0) > 0.999
    assert not torch.equal(whole(exact[1]), whole(rough[1]))  # or the option does nothing


@needs_kernels
def test_bfloat16_is_more_exact_than_the_reference_under_autocast():
    model, images, noise = drawer((1, 20, 20), 2, 5, torch.float32, **LARGER)
    truth = whole(outcome(model, model, images, noise)[1])
    rough = whole(outcome(forward_for(model, BFLOAT16), model, images, noise)[1])
    with torch.autocast("cpu", BFLOAT16):
        cast = whole(outcome(model, model, images, noise)[1])
        inside = whole(outcome(forward_for(model), model, images, noise)[1])
    assert relative([rough], [truth]) < relative([cast], [truth])
    assert relative([inside], [truth]) < 1e-5  # the caller's autocast does not reach in


@needs_kernels
@pytest.mark.parametrize("read_patch, write_patch", [(None, None), (2, 2)])
def test_gradcheck(read_patch, write_patch):
    """Against finite differences, through the parameters themselves."""
    sizes = {"batch": 2, "steps": 2, "hidden": 2, "latent": 1}
    model, images, noise = drawer((2, 3, 4), read_patch, write_patch, **sizes)

    def values(*_):
        return tuple(parts_of(forward_for(model)(images, noise)))

    assert torch.autograd.gradcheck(values, list(model.parameters()), fast_mode=True)


@pytest.mark.parametrize("segment", [1, 2, 3, 4, 7])
@pytest.mark.parametrize("read_patch, write_patch", [(None, None), (2, None), (2, 5)])
def test_recomputed_steps_change_nothing(read_patch, write_patch, segment):
    """Segments of equal and of unequal length, and of more steps than there are; in the reference
    too.
    """
    model, images, noise = drawer(SHAPES[1], read_patch, write_patch, steps=4, window_clip=1e-2)
    truth = outcome(model, model, images, noise)
    for forward in (forward_for(model, segment=segment), partial(model, segment=segment)):
        ours = outcome(forward, model, images, noise)
        assert relative(ours[0], truth[0]) < 1e-10
        assert relative(ours[1], truth[1]) < 1e-10


def divide(batch: int, parts: int) -> list[slice]:
    """Divide a batch that is too small to be shared otherwise."""
    return [slice(batch * k // parts, batch * (k + 1) // parts) for k in range(parts)]


@needs_kernels
@pytest.mark.parametrize("cores", [2, 3, 7])
def test_shares_of_a_batch_add_up_to_the_whole(monkeypatch, cores):
    """Each core takes some images, and the clip still knows how many there are in all."""
    shares = partial(divide, parts=cores)
    monkeypatch.setattr(fast_draw, "shares", shares)
    monkeypatch.setattr(fast_glimpse, "shares", shares)
    check_agree(*drawer(SHAPES[1], 2, 5, batch=7, window_clip=1e-3))
    for glimpse in BY_HAND:
        model, images = classifier("bounded", LOOKED_AT[2], window_clip=1e-2, glimpse=glimpse)
        truth = classifier_gradients(model, model(images).logits, True)
        ours = classifier_gradients(model, forward_for(model)(images).logits, True)
        assert relative([whole(ours)], [whole(truth)]) < 1e-10


@needs_kernels
def test_again_gives_the_same_bits():
    model, images, noise = drawer(SHAPES[0], 2, 5, torch.float32)
    for dtype in (torch.float32, BFLOAT16):
        first, again = (outcome(forward_for(model, dtype), model, images, noise) for _ in range(2))
        for ours, theirs in zip((*first[0], *first[1]), (*again[0], *again[1]), strict=True):
            assert torch.equal(ours, theirs)


@needs_kernels
@pytest.mark.parametrize("patch", [None, 3])
@pytest.mark.parametrize("dtype", [torch.float32, BFLOAT16])
def test_without_gradients_all_steps_share_a_place_and_give_the_same_bits(patch, dtype):
    model, images, noise = drawer(SHAPES[1], patch, patch, torch.float32)
    kept = forward_for(model, dtype)(images, noise)
    with torch.no_grad():
        shared = forward_for(model, dtype)(images, noise)
    for ours, theirs in zip(parts_of(shared), parts_of(kept), strict=True):
        assert torch.equal(ours, theirs)
    for glimpse in BY_HAND:
        model, images = classifier("bounded", LOOKED_AT[2], torch.float32, glimpse=glimpse)
        kept = forward_for(model, dtype)(images).logits
        with torch.no_grad():
            assert torch.equal(forward_for(model, dtype)(images).logits, kept)


@needs_kernels
def test_a_second_backward_pass_gives_the_same_bits():
    model, images, noise = drawer(SHAPES[0], 2, 5, torch.float32)
    total = loss_of(forward_for(model)(images, noise), images)
    first = torch.autograd.grad(total, list(model.parameters()), retain_graph=True)
    assert torch.equal(whole(first), whole(torch.autograd.grad(total, list(model.parameters()))))


def test_wrong_shapes_are_named_as_by_the_reference():
    model, images, noise = drawer(SHAPES[0], 2, 5)
    wrong = [(images, noise[:, :2]), (images, noise[:, 0]), (images[:, :, :7], noise)]
    for inputs in (*wrong, (images[:2], noise)):
        with pytest.raises(ValueError) as ours:
            forward_for(model)(*inputs)
        with pytest.raises(ValueError) as theirs:
            model(*inputs)
        assert str(ours.value) == str(theirs.value)
    with pytest.raises(ValueError, match="bfloat16, got torch"):
        forward_for(model, torch.float16)


# --- pixels of 256 levels ---


def levels(shape, read_patch, write_patch, log_scale=-1.5, **settings):
    """Return a model of logistic pixels, a scale for each channel, and its inputs."""
    inputs = drawer(shape, read_patch, write_patch, likelihood="logistic", **settings)
    model, images, noise = inputs
    with torch.no_grad():
        model.log_scale.copy_(torch.linspace(log_scale, log_scale + 0.5, len(model.log_scale)))
    return model, (images * 255).round() / 255, noise


def bounded(forward, model, *inputs):
    """Return canvas and posterior of a drawing, and the gradient of every parameter."""
    record = forward(*inputs)
    loss = record.terms(inputs[0]).bound.mean()
    return [record.likelihood.canvas, *record.posterior], list(
        torch.autograd.grad(loss, list(model.parameters()))
    )


@needs_kernels
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("read_patch, write_patch", PATCHES)
def test_logistic_pixels_equal_the_reference(shape, read_patch, write_patch, taken):
    for log_scale in (-4.0, -1.5, 1.0):
        model, *inputs = levels(shape, read_patch, write_patch, log_scale)
        truth = bounded(model, model, *inputs)
        for segment in (None, 2):
            ours = bounded(forward_for(model, segment=segment), model, *inputs)
            assert relative(ours[0], truth[0]) < 1e-10
            assert relative([whole(ours[1])], [whole(truth[1])]) < 1e-10
    assert taken == ["Draw"] * 6


@needs_kernels
def test_logistic_pixels_in_shares_and_single_precision(monkeypatch):
    model, *inputs = levels(SHAPES[1], 2, 3, batch=7)
    truth = bounded(model, model, *inputs)
    monkeypatch.setattr(fast_draw, "shares", partial(divide, parts=3))
    ours = bounded(forward_for(model), model, *inputs)
    assert relative([whole(ours[1])], [whole(truth[1])]) < 1e-10
    model, *inputs = levels(SHAPES[1], 2, 3, spread=0.05)
    truth = bounded(model, model, *inputs)
    single = [tensor.float() for tensor in inputs]
    ours = bounded(forward_for(model.float()), model, *single)
    assert relative(ours[0], truth[0]) < 1e-5
    assert relative([whole(ours[1])], [whole(truth[1])]) < 1e-4


@needs_kernels
@pytest.mark.parametrize("log_scale", [-12.0, -7.0, 6.0])
@pytest.mark.parametrize("patch", [None, 3])
def test_logistic_pixels_of_any_scale_stay_finite(log_scale, patch):
    """Sharper than a level, or wider than all of them: nothing overflows in single precision."""
    model, *inputs = levels(SHAPES[1], patch, patch, log_scale, dtype=torch.float32)
    with torch.no_grad():
        model.start_canvas.mul_(50)
    values, gradients = bounded(forward_for(model), model, *inputs)
    assert all(part.isfinite().all() for part in (*values, *gradients))


# --- the generator that draws from captions ---


def captioned(shape, read_patch, write_patch, dtype=torch.float64, spread=0.2, batch=4, **settings):
    """Return a small model whose words matter, and its inputs."""
    channels, height, width = shape
    sizes = {"steps": 3, "hidden": 7, "latent": 4, "words": 3, "alignment": 5, "vocabulary": 6}
    sizes |= {"read_patch": read_patch, "write_patch": write_patch} | settings
    with streams.seeded(0, "fast captions"):
        model = shaken(AlignDraw(height, width, channels, **sizes).to(dtype), spread)
        noise = torch.randn(batch, model.steps, model.latent, dtype=dtype)
        return model, torch.rand(batch, *shape, dtype=dtype), noise, torch.randint(6, (batch, 5))


def told(forward, model, *inputs):
    """Return a drawing from captions, its prior, and the gradient of every parameter."""
    record = forward(*inputs)
    values = [*parts_of(record), *record.prior]
    loss = record.terms(inputs[0]).bound.mean() + record.prior.mu.exp().mean()
    missing = {"allow_unused": True, "materialize_grads": True}
    return values, list(torch.autograd.grad(loss, list(model.parameters()), **missing))


@needs_kernels
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("read_patch, write_patch", PATCHES)
def test_drawings_from_captions_equal_the_reference(shape, read_patch, write_patch, taken):
    model, *inputs = captioned(shape, read_patch, write_patch, window_clip=1e-2)
    truth = told(model, model, *inputs)
    assert all(gradient.abs().sum() > 0 for gradient in truth[1])
    for segment in (None, 2):  # of unequal length
        ours = told(forward_for(model, segment=segment), model, *inputs)
        assert relative(ours[0], truth[0]) < 1e-10
        assert relative(ours[1], truth[1]) < 1e-10
    assert taken == ["AlignDraw"] * 2


@needs_kernels
@pytest.mark.parametrize(
    "settings",
    [{"steps": 1}, {"words": 1}, {"alignment": 1}, {"batch": 1}, {"words": 40, "alignment": 70}],
)
def test_any_counts_of_what_captions_need(settings):
    """Below, at and above the width of a vector, at which the kernels' loops take another road."""
    model, *inputs = captioned(SHAPES[0], 2, 3, **settings)
    ours, truth = (told(forward, model, *inputs) for forward in (forward_for(model), model))
    assert relative(ours[0], truth[0]) < 1e-10
    assert relative([whole(ours[1])], [whole(truth[1])]) < 1e-10


@needs_kernels
@pytest.mark.parametrize("cores", [2, 3])
def test_shares_of_captions_add_up_to_the_whole(cores, monkeypatch):
    monkeypatch.setattr(fast_draw, "shares", partial(divide, parts=cores))
    model, *inputs = captioned(SHAPES[0], 2, 3, batch=7)
    ours, truth = (told(forward, model, *inputs) for forward in (forward_for(model), model))
    assert relative([*ours[0], whole(ours[1])], [*truth[0], whole(truth[1])]) < 1e-10


@needs_kernels
def test_captions_through_finite_differences():
    sizes = {"batch": 2, "steps": 2, "hidden": 2, "latent": 1, "words": 2, "alignment": 2}
    model, *inputs = captioned((1, 3, 4), 2, 2, **sizes)

    def values(*_):
        record = forward_for(model)(*inputs)
        return (*parts_of(record), *record.prior)

    assert torch.autograd.gradcheck(values, list(model.parameters()), fast_mode=True)


@needs_kernels
@pytest.mark.parametrize("dtype", [torch.float32, BFLOAT16])
def test_captions_without_gradients_and_again_give_the_same_bits(dtype):
    model, *inputs = captioned(SHAPES[1], 2, 3, torch.float32)
    kept, again = (told(forward_for(model, dtype), model, *inputs) for _ in range(2))
    assert all(map(torch.equal, (*kept[0], *kept[1]), (*again[0], *again[1])))
    with torch.no_grad():
        record = forward_for(model, dtype)(*inputs)
    assert all(map(torch.equal, [*parts_of(record), *record.prior], kept[0]))


@needs_kernels
def test_bfloat16_products_of_captions_point_the_same_way():
    settings = {"words": 16, "alignment": 32} | LARGER
    model, *inputs = captioned((1, 20, 20), 4, 4, torch.float32, **settings)
    exact, rough = (
        whole(told(forward_for(model, dtype), model, *inputs)[1])
        for dtype in (torch.float32, BFLOAT16)
    )
    assert F.cosine_similarity(exact, rough, dim=0) > 0.999
    assert not torch.equal(exact, rough)  # or the option does nothing


@needs_kernels
def test_scores_far_apart_stay_finite():
    """One word takes all, as a softmax in the reference does: nothing overflows."""
    model, *inputs = captioned(SHAPES[0], 2, 3, torch.float32)
    with torch.no_grad():
        model.to_score.weight.mul_(1e4)
    ours, truth = (told(forward, model, *inputs) for forward in (forward_for(model), model))
    assert all(part.isfinite().all() for part in (*ours[0], *ours[1]))
    assert relative(ours[0], truth[0]) < 1e-4


# --- the classifier ---

LOOKED_AT = [(1, 30, 30), (1, 40, 25), (3, 25, 40)]


# Each from the side of a patch, the window map and channels.
BY_HAND = {
    "gaussian": lambda patch, window_map, channels: GaussianGlimpse(patch, window_map),
    "eye": EyeGlimpse,
    "affine": lambda patch, window_map, channels: AffineGlimpse(patch, window_map),
    "averaged": lambda patch, window_map, channels: AffineGlimpse(patch, window_map, 3),
    "fixed": lambda patch, window_map, channels: FixedGlimpse(patch, 3),
    "random": lambda patch, window_map, channels: RandomGlimpse(patch),
}
each_by_hand = pytest.mark.parametrize("glimpse", BY_HAND)


def classifier(
    window_map,
    shape,
    dtype=torch.float64,
    spread=0.2,
    patch=5,
    batch=7,
    glimpse="gaussian",
    **others,
):
    channels, height, width = shape
    sizes = {"glimpses": 4, "hidden": 16, "channels": channels} | others
    with streams.seeded(0, "fast"):
        looks = BY_HAND[glimpse](patch, window_map, channels)
        model = GlimpseClassifier(looks, **sizes).to(dtype)
        return shaken(model, spread), torch.rand(batch, channels, height, width, dtype=dtype)


def classifier_gradients(model, logits, every_step):
    labels = torch.arange(len(logits)) % 10
    if every_step:
        loss = F.cross_entropy(logits.flatten(0, 1), labels.repeat_interleave(logits.shape[1]))
    else:
        loss = F.cross_entropy(logits[:, -1], labels)
    return torch.autograd.grad(loss, list(model.parameters()))


@needs_kernels
@pytest.mark.parametrize("window_map", WINDOW_MAPS)
@pytest.mark.parametrize("shape", LOOKED_AT)
@pytest.mark.parametrize("every_step", [False, True])
@each_by_hand
def test_answers_and_gradients_equal_the_reference(window_map, shape, every_step, glimpse, taken):
    # The slope of a bilinear sample jumps from pixel to pixel: in single precision, some are beyond
    # the jump, in the reference too.
    # An eye sums most numbers; in vectors of 32 bytes, half as many sums are kept apart.
    single = {"affine": 2e-3, "averaged": 2e-3, "eye": 2e-5}.get(glimpse, 1e-5)
    for dtype, spread, limit in ((torch.float64, 0.2, 1e-10), (torch.float32, 0.05, single)):
        model, images = classifier(window_map, shape, spread=spread, glimpse=glimpse)
        plain = model(images).logits
        truth = classifier_gradients(model, plain, every_step)
        model, images = model.to(dtype), images.to(dtype)
        record = forward_for(model)(images)
        assert record.windows is None and record.patches is None
        ours = classifier_gradients(model, record.logits, every_step)
        assert relative([record.logits], [plain]) < limit
        assert relative([whole(ours)], [whole(truth)]) < limit
    assert taken == ["GlimpseClassifier"] * 2


@needs_kernels
@pytest.mark.parametrize("limit", [1e-3, 1e-2])
@each_by_hand
def test_clipping_each_image_of_a_classifier_equals_the_reference(limit, glimpse):
    model, images = classifier("bounded", LOOKED_AT[0], window_clip=limit, glimpse=glimpse)

    def ours():
        return whole(classifier_gradients(model, forward_for(model)(images).logits, False))

    theirs = whole(classifier_gradients(model, model(images).logits, False))
    clipped = ours()
    assert relative([clipped], [theirs]) < 1e-10
    model.window_clip = None
    unchanged = relative([clipped], [ours()]) <= 1e-3
    assert unchanged == (glimpse == "fixed")  # where nothing is chosen; else nothing was clipped


@needs_kernels
@pytest.mark.parametrize("patch, glimpses", [(1, 1), (2, 3), (7, 2)])
@each_by_hand
def test_any_patch_and_any_number_of_glimpses(patch, glimpses, glimpse):
    model, images = classifier("bounded", (1, 20, 31), patch=patch, hidden=8, glimpse=glimpse)
    ours, theirs = forward_for(model)(images, glimpses).logits, model(images, glimpses).logits
    assert ours.shape == (7, glimpses, 10)
    gradients = [whole(classifier_gradients(model, logits, True)) for logits in (ours, theirs)]
    assert relative(gradients[:1], gradients[1:]) < 1e-10


@needs_kernels
@each_by_hand
def test_bfloat16_products_of_a_classifier_point_the_same_way(glimpse):
    model, noise = classifier("bounded", (1, 15, 15), torch.float32, spread=0.05, glimpse=glimpse)
    # Smooth, since slopes between pixels of noise turn round with every step aside.
    images = F.interpolate(noise, size=(60, 60), mode="bilinear")
    exact, rough = (
        whole(classifier_gradients(model, forward_for(model, dtype)(images).logits, False))
        for dtype in (torch.float32, BFLOAT16)
    )
    assert F.cosine_similarity(exact, rough, dim=0) > 0.995
    assert not torch.equal(exact, rough)  # or the option does nothing


@needs_kernels
@pytest.mark.parametrize("window_map", WINDOW_MAPS)
@pytest.mark.parametrize("size", [1e3, 1e30])
def test_extreme_windows_stay_finite(window_map, size):
    model, images = classifier(window_map, LOOKED_AT[0], torch.float32)
    for signs in torch.cartesian_prod(*[torch.tensor([-1.0, 1.0])] * 5):
        with torch.no_grad():
            model.to_window.bias.copy_(size * signs)
        logits = forward_for(model)(images).logits
        assert torch.isfinite(logits).all()
        assert whole(classifier_gradients(model, logits, True)).isfinite().all()


@needs_kernels
@pytest.mark.parametrize("window_map", WINDOW_MAPS)
@pytest.mark.parametrize("size", [1e3, 1e30])
def test_affine_maps_far_outside_read_nothing(window_map, size):
    model, images = classifier(window_map, LOOKED_AT[2], torch.float32, glimpse="averaged")
    for signs in torch.cartesian_prod(*[torch.tensor([-1.0, 1.0])] * 6):
        with torch.no_grad():
            model.to_window.bias.copy_(size * signs)
        logits = forward_for(model)(images).logits
        assert torch.isfinite(logits).all()
        assert window_map == "bounded" or torch.equal(logits, forward_for(model)(0 * images).logits)
        assert whole(classifier_gradients(model, logits, True)).isfinite().all()


# --- hard glimpses, which have a loss of their own ---


def hard(shape, dtype=torch.float64, batch=7, spread=0.2, **settings):
    """Return a small model, images, and the noise that its places are drawn from."""
    with streams.seeded(0, "fast hard"):
        looks = HardGlimpse(3, 3, hidden=16, channels=shape[0], reinforce=0.7)
        sizes = {"glimpses": 4, "hidden": 16, "channels": shape[0]} | settings
        model = shaken(GlimpseClassifier(looks, **sizes).to(dtype), spread)
        images = torch.rand(batch, *shape, dtype=dtype)
        return model, images, torch.randn(batch, model.noise, dtype=dtype)


def hard_outcome(forward, model, images, noise):
    """Return all that a record holds, and the gradient of every parameter."""
    record, labels = forward(images, noise=noise), torch.arange(len(images)) % 10
    loss = F.cross_entropy(record.logits[:, -1], labels) + model.added_loss(record, labels)
    gradients = torch.autograd.grad(loss, list(model.parameters()))
    return [record.logits, *record.windows], gradients


@needs_kernels
@pytest.mark.parametrize("shape", LOOKED_AT)
@pytest.mark.parametrize("drawn", [True, False])
@pytest.mark.parametrize("clip", [None, 1e-4])
def test_hard_glimpses_and_their_loss_equal_the_reference(shape, drawn, clip, taken):
    model, images, noise = hard(shape, window_clip=clip)
    noise = noise if drawn else None
    ours, theirs = (hard_outcome(f, model, images, noise) for f in (forward_for(model), model))
    # Without noise every place is its mean, so log p is exactly 0 in one and may be 1e-33 in both.
    assert all(torch.allclose(a, b, 1e-10, 1e-12) for a, b in zip(ours[0], theirs[0], strict=True))
    for a, b in zip(ours[1], theirs[1], strict=True):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-13)
    assert taken == ["GlimpseClassifier"]


@needs_kernels
@pytest.mark.parametrize("cores", [2, 3])
def test_shares_of_hard_glimpses_add_up_to_the_whole(cores, monkeypatch):
    monkeypatch.setattr(fast_glimpse, "shares", partial(divide, parts=cores))
    inputs = hard(LOOKED_AT[2])
    ours, theirs = (hard_outcome(f, *inputs) for f in (forward_for(inputs[0]), inputs[0]))
    assert relative(ours[0], theirs[0]) < 1e-10 and relative(ours[1], theirs[1]) < 1e-9


@needs_kernels
@pytest.mark.parametrize("glimpse", [*BY_HAND, "hard"])
def test_any_precision_of_a_model_takes_bfloat16_products(glimpse):
    shape = LOOKED_AT[1]
    model, images = (
        hard(shape)[:2] if glimpse == "hard" else classifier("bounded", shape, glimpse=glimpse)
    )
    assert forward_for(model, BFLOAT16)(images).logits.dtype == torch.float64


@needs_kernels
@pytest.mark.parametrize("glimpse", BY_HAND)
def test_no_images_give_no_answers(glimpse):
    model, _ = classifier("bounded", LOOKED_AT[0], glimpse=glimpse, window_clip=0.1)
    answers = forward_for(model)(torch.zeros(0, 1, 30, 30).double()).logits
    answers.sum().backward()
    assert answers.shape == (0, 4, 10)


@needs_kernels
def test_cores_take_over_the_inference_mode(monkeypatch):
    monkeypatch.setattr(fast_glimpse, "shares", partial(divide, parts=2))
    model, images = classifier("bounded", LOOKED_AT[0])
    with torch.inference_mode():
        answers = forward_for(model)(images).logits
    torch.testing.assert_close(answers, model(images).logits)


@needs_kernels
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize("glimpse", ["gaussian", "affine"])
def test_a_broken_window_is_not_read_as_if_nothing_were_there(glimpse, value):
    model, images = classifier("linear", LOOKED_AT[0], glimpse=glimpse)
    with torch.no_grad():
        model.to_window.bias[0] = value
    clamped = glimpse == "gaussian" and value > 0  # as the reference does
    assert forward_for(model)(images).logits.isfinite().all() == clamped


@needs_kernels
def test_hard_glimpses_of_bytes_in_bfloat16_and_without_gradients():
    model, _, noise = hard(LOOKED_AT[0], torch.float32, spread=0.05)
    images = pixels(7, 1, 30, 30)
    exact, rough = (
        hard_outcome(forward_for(model, dtype), model, images, noise)
        for dtype in (torch.float32, BFLOAT16)
    )
    truth = hard_outcome(model, model, images.float() / 255, noise)
    assert relative(exact[0], truth[0]) < 1e-5
    assert relative([whole(exact[1])], [whole(truth[1])]) < 1e-5
    assert F.cosine_similarity(whole(exact[1]), whole(rough[1]), dim=0) > 0.99
    assert not torch.equal(whole(exact[1]), whole(rough[1]))
    with torch.no_grad():
        again = forward_for(model, BFLOAT16)(images, noise=noise)
    assert all(map(torch.equal, [again.logits, *again.windows], rough[0]))


@needs_kernels
@pytest.mark.parametrize("frozen", ["glimpse", "glimpse.what", "to_window"])
def test_frozen_layers_of_a_hard_glimpse_get_no_gradient(frozen):
    model, images, noise = hard(LOOKED_AT[0])
    model.get_submodule(frozen).requires_grad_(False)
    forward_for(model)(images, noise=noise).logits.sum().backward()
    assert all(one.grad is None for one in model.get_submodule(frozen).parameters())
    assert model.to_window.weight.grad is None  # only the model's own loss moves the places
    assert model.glimpse.expect.weight.grad is None
    assert model.cell.weight_ih.grad.abs().sum() > 0


@needs_kernels
def test_a_hard_glimpse_is_differentiated_as_it_was_and_hooks_run_once():
    model, images, noise = hard(LOOKED_AT[0])
    _, truth = hard_outcome(model, model, images, noise)
    places = [name for name, _ in model.named_parameters()]
    half = model.glimpse.what.weight.register_hook(lambda gradient: gradient / 2)
    _, halved = hard_outcome(forward_for(model), model, images, noise)
    half.remove()
    for name, ours, theirs in zip(places, halved, truth, strict=True):
        torch.testing.assert_close(ours, theirs / 2 if name == "glimpse.what.weight" else theirs)
    record = forward_for(model)(images, noise=noise)
    with torch.no_grad():
        model.glimpse.join.weight.neg_()
    loss = F.cross_entropy(record.logits[:, -1], torch.arange(7))
    loss = loss + model.added_loss(record, torch.arange(7))
    again = torch.autograd.grad(loss, list(model.parameters()))
    assert relative([whole(again)], [whole(truth)]) < 1e-9


# --- who takes the fast path, and what the others compute ---


def pixels(*shape: int) -> Tensor:
    return torch.randint(0, 256, shape, generator=streams.stream(0, "bytes"), dtype=torch.uint8)


MODELS = {
    "draw": lambda: drawer((1, 30, 30), 2, 5)[0],
    "vae": lambda: VAE(30, 30, hidden=8, latent=4).double(),
    "classifier": lambda: classifier("bounded", (1, 30, 30))[0],
    "eye": lambda: classifier("bounded", (1, 30, 30), glimpse="eye")[0],
    "affine": lambda: classifier("bounded", (1, 30, 30), glimpse="averaged")[0],
    "conv6": lambda: SixLayerConv().double(),
}


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("kernels", [True, False])
@torch.no_grad()
def test_bytes_are_read_as_zero_to_one_with_and_without_kernels(name, kernels, monkeypatch):
    model, images = MODELS[name](), pixels(6, 30, 30)
    if not kernels:
        monkeypatch.setattr(fast, "kernels", lambda dtype: None)
    inputs = (torch.rand(6, model.steps, 4).double(),) if hasattr(model, "latent") else ()
    ours = forward_for(model)(images, *inputs)
    theirs = model(images[:, None].double() / 255, *inputs)
    logits = [getattr(record, "likelihood", record).logits for record in (ours, theirs)]
    torch.testing.assert_close(*logits)


class OwnRead(GaussianGlimpse):
    def read(self, images, where):
        return 0 * super().read(images, where)


class OwnEncode(EyeGlimpse):
    def encode(self, patch, where):
        return 0 * super().encode(patch, where)


class OwnStep(GlimpseClassifier):
    def step(self, images, state, t, noise=None):
        return super().step(0 * images, state, t, noise)


class OwnPrior(Draw):
    def prior(self, state):
        return None


class OwnCell(nn.LSTMCell):
    def forward(self, inputs, state):
        return super().forward(0 * inputs, state)


def changed(model: nn.Module, **parts) -> nn.Module:
    for name, part in parts.items():
        setattr(model, name, part)
    return model


def hooked(model: nn.Module, part: str) -> nn.Module:
    model.get_submodule(part).register_forward_hook(lambda module, inputs, output: 0 * output)
    return model


def patched(model: GlimpseClassifier) -> GlimpseClassifier:
    model.glimpse.read = types.MethodType(OwnRead.read, OwnRead(5))
    return model


def look(glimpse: nn.Module | None = None, kind: type = GlimpseClassifier) -> nn.Module:
    return kind(glimpse or GaussianGlimpse(5), glimpses=2, hidden=8)


def eye(features: int, **first: int) -> EyeGlimpse:
    second = nn.Conv2d(features, 32, 3, stride=2, padding=1)
    return changed(EyeGlimpse(5), first=nn.Conv2d(1, features, 3, **first), second=second)


def draw(kind: type = Draw) -> nn.Module:
    return kind(30, 30, steps=2, hidden=8, latent=4)


def drawn_from_captions() -> AlignDraw:
    sizes = {"vocabulary": 6, "words": 3, "alignment": 5}
    return AlignDraw(30, 30, steps=2, hidden=8, latent=4, **sizes)


OTHERS = {
    "glimpse": lambda: look(OwnRead(5)),
    "eye": lambda: look(OwnEncode(5)),
    "layer of an eye": lambda: look(eye(16, padding=2, dilation=2)),
    "features of an eye": lambda: look(eye(17, padding=1)),  # no whole number of vectors
    "layer of a hard glimpse": lambda: look(
        changed(HardGlimpse(5, 1, hidden=8), where=nn.Sequential(nn.Linear(2, 128)))
    ),
    "step": lambda: look(kind=OwnStep),
    "prior": lambda: draw(OwnPrior),
    "cell": lambda: changed(look(), cell=OwnCell(25, 8)),
    "decoder": lambda: changed(draw(), decoder=OwnCell(4, 8)),
    "layer": lambda: changed(draw(), to_mu=nn.Sequential(nn.Linear(8, 4), nn.Tanh())),
    "bias of a query": lambda: changed(drawn_from_captions(), to_query=nn.Linear(8, 5)),
    "no bias": lambda: changed(look(), to_window=nn.Linear(8, 5, bias=False)),
    "hook": lambda: hooked(look(), "to_window"),
    "hook on a map": lambda: hooked(draw(), "to_patch"),
    "method of an object": lambda: patched(look()),
    "vae": lambda: VAE(30, 30, hidden=8, latent=4),
}


@pytest.mark.parametrize("name", OTHERS)
@pytest.mark.parametrize("training", [True, False])
def test_a_model_with_a_part_of_its_own_runs_its_own_equations(name, training, taken):
    """In training and measuring, it computes what its own forward does, to the bit."""
    with streams.seeded(0, "own"):
        model, images = OTHERS[name]().train(training), torch.rand(4, 1, 30, 30)
        shaken(model, 0.2)
        noise = torch.randn(4, model.steps, 4) if hasattr(model, "latent") else None
    inputs = (images,) if noise is None else (images, noise)
    inputs += (torch.arange(20).view(4, 5) % 6,) if getattr(model, "conditional", False) else ()
    assert not has_fast_path(model)
    ours, theirs = (
        getattr(record, "likelihood", record).logits
        for record in (forward_for(model)(*inputs), model(*inputs))
    )
    assert torch.equal(ours, theirs) and not taken


def test_the_exact_models_have_a_fast_path_and_so_have_copies():
    replaced = changed(draw(), decoder=nn.LSTMCell(4, 8))
    for model in (look(), look(EyeGlimpse(5)), draw(), replaced, drawn_from_captions()):
        assert has_fast_path(model) and has_fast_path(copy.deepcopy(model))
    weighted = draw()
    nn.utils.parametrizations.weight_norm(weighted.to_mu)
    assert not has_fast_path(weighted)


def test_what_the_fast_path_cannot_do_the_model_does(taken):
    """Gradients to the inputs, and canvases."""
    model, images, noise = drawer(SHAPES[0], 2, 5)
    assert forward_for(model)(images, noise, keep_canvases=True).canvases is not None
    (slope,) = torch.autograd.grad(
        forward_for(model)(images.requires_grad_(), noise).likelihood.logits.sum(), images
    )
    assert slope.abs().sum() > 0 and not taken


@pytest.mark.parametrize("name", MODELS)
def test_bfloat16_reaches_every_model(name):
    """The products of a model without a fast path are bfloat16 too, watched by a hook (which itself
    keeps the others from the fast path).
    """
    model = MODELS[name]().float()
    dtypes = []
    exact = getattr(model, "to_window", None)
    for part in model.modules():
        if isinstance(part, (nn.Linear, nn.Conv2d)) and part is not exact:
            part.register_forward_hook(lambda module, inputs, output: dtypes.append(output.dtype))
    inputs = (torch.rand(6, model.steps, 4),) if hasattr(model, "latent") else ()
    for dtype in (BFLOAT16, torch.float32):
        dtypes.clear()
        forward_for(model, dtype)(pixels(6, 1, 30, 30), *inputs)
        expected = {dtype} if name != "draw" else {dtype, torch.float32}  # its windows are exact
        assert dtypes and set(dtypes) <= expected and dtype in dtypes


def test_a_segment_is_ignored_where_there_are_no_steps_to_recompute():
    model, images = MODELS["vae"](), pixels(6, 1, 30, 30)
    noise = torch.rand(6, 1, 4).double()
    ours, theirs = (forward_for(model, segment=part)(images, noise).mean for part in (2, None))
    assert torch.equal(ours, theirs)
