"""The fast recurrence of DRAW against the plain model, which is the reference."""

import pytest
import torch
import torch.nn.functional as F

from drawbench import streams
from drawbench.fast import draw as draw_fast
from drawbench.fast import native
from drawbench.fast.draw import fast_drawing
from drawbench.models.draw import WINDOW_MAPS, Draw

PATCHES = [(None, None), (None, 3), (2, None), (2, 5), (3, 3), (1, 4)]
SHAPES = [(1, 8, 8), (3, 7, 10)]


def model_and_inputs(
    shape, read_patch, write_patch, dtype=torch.float64, spread=0.2, batch=4, **settings
):
    """A small model with weights far from zero, so that windows move and change size between steps."""
    channels, height, width = shape
    sizes = {"steps": 3, "hidden": 7, "latent": 4} | settings
    with streams.seeded(0, "fast drawing"):
        model = Draw(
            height, width, channels, read_patch=read_patch, write_patch=write_patch, **sizes
        ).to(dtype)
        with torch.no_grad():
            for parameter in model.parameters():
                parameter += torch.randn_like(parameter) * spread
        return (
            model,
            torch.rand(batch, *shape, dtype=dtype),
            torch.randn(batch, sizes["steps"], sizes["latent"], dtype=dtype),
        )


def split(batch, parts):
    """Shares of a batch that is too small to be shared out otherwise."""
    return [slice(batch * k // parts, batch * (k + 1) // parts) for k in range(parts)]


def loss(drawing, images, parts=("logits", "latents")):
    """Nonlinear in all that a drawing holds, and unlike for mu and log sigma and for every step."""
    total = drawing.logits.new_zeros(())
    if "logits" in parts:
        total = total + F.binary_cross_entropy_with_logits(drawing.logits, images, reduction="sum")
    if "latents" in parts:
        weights = torch.arange(1.0, drawing.mu.shape[1] + 1, dtype=drawing.mu.dtype)[:, None]
        mu, log_sigma = drawing.mu, drawing.log_sigma
        total = (
            total
            + (weights * (mu.square() + torch.expm1(2 * log_sigma) + (mu * log_sigma).sin())).sum()
        )
    return total / len(images)


def outcome(draw, model, images, noise, *options, parts=("logits", "latents")):
    """The drawing and the gradient of every parameter, zeros where the loss does not depend on it."""
    drawing = draw(*((model,) if draw is fast_drawing else ()), images, noise, *options)
    gradients = torch.autograd.grad(
        loss(drawing, images, parts),
        list(model.parameters()),
        allow_unused=True,
        materialize_grads=True,
    )
    return drawing[:3], gradients


def relative(ours, theirs):
    """The largest distance of two tensors in a list, as a share of the second's length."""
    return max(
        float((a.detach().double() - b.detach()).norm() / (b.detach().norm() + 1e-12))
        for a, b in zip(ours, theirs, strict=True)
    )


def whole(gradients):
    return torch.cat([gradient.flatten() for gradient in gradients])


def agree(model, images, noise, **options):
    """Whether both versions give the same in float64."""
    ours, theirs = (
        outcome(fast_drawing, model, images, noise, **options),
        outcome(model, model, images, noise, **options),
    )
    return relative(ours[0], theirs[0]) < 1e-10 and relative(ours[1], theirs[1]) < 1e-10


@pytest.mark.parametrize("window_map", WINDOW_MAPS)
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("read_patch, write_patch", PATCHES)
def test_values_and_gradients_equal_the_reference(window_map, shape, read_patch, write_patch):
    model, images, noise = model_and_inputs(shape, read_patch, write_patch, window_map=window_map)
    truth = outcome(model, model, images, noise)
    ours = outcome(fast_drawing, model, images, noise)
    assert relative(ours[0], truth[0]) < 1e-10
    assert relative(ours[1], truth[1]) < 1e-10

    # In float32 with calmer weights: those above make some windows so sharp that roundings grow in
    # either version.
    model, images, noise = model_and_inputs(
        shape, read_patch, write_patch, window_map=window_map, spread=0.05
    )
    truth = outcome(model, model, images, noise)
    values, gradients = outcome(fast_drawing, model.float(), images.float(), noise.float())
    assert all(value.dtype == torch.float32 for value in values)
    assert relative(values, truth[0]) < 1e-5
    assert relative([whole(gradients)], [whole(truth[1])]) < 1e-5


@pytest.mark.parametrize("window_map", WINDOW_MAPS)
@pytest.mark.parametrize("read_patch, write_patch", [(None, 3), (2, None), (2, 5)])
def test_clipping_each_image_equals_the_reference(window_map, read_patch, write_patch):
    model, images, noise = model_and_inputs(
        SHAPES[1], read_patch, write_patch, window_map=window_map, window_clip=1e-2
    )
    assert agree(model, images, noise)
    clipped = outcome(fast_drawing, model, images, noise)[1]
    model.window_clip = None
    assert (
        relative([whole(clipped)], [whole(outcome(fast_drawing, model, images, noise)[1])]) > 1e-3
    )  # or nothing was clipped


@pytest.mark.parametrize("window_map", WINDOW_MAPS)
@pytest.mark.parametrize("size", [3.0, 1e5])
def test_windows_beyond_every_limit_equal_the_reference(window_map, size):
    """Grids outside the image, filters far too sharp or too wide: the limits hold, and the gradient
    beyond them is 0.
    """
    model, images, noise = model_and_inputs(SHAPES[1], 2, 3, window_map=window_map)
    signs = torch.cartesian_prod(*[torch.tensor([-1.0, 1.0], dtype=torch.float64)] * 5)
    with torch.no_grad():
        for layer in (model.to_read_window, model.to_write_window):
            layer.weight.copy_(
                torch.eye(5, 7, dtype=torch.float64) * size
            )  # each number is one of the first five units
    for sign in signs[::5]:
        with torch.no_grad():
            model.start_decoder_hidden.copy_(F.pad(sign, (0, 2)))
        ours, theirs = (
            outcome(fast_drawing, model, images, noise),
            outcome(model, model, images, noise),
        )
        # Over all parameters together: where filters are one pixel sharp, some gradients are
        # nothing but rounding.
        assert relative(ours[0], theirs[0]) < 1e-10
        assert relative([whole(ours[1])], [whole(theirs[1])]) < 1e-9
    model, images, noise = model.float(), images.float(), noise.float()
    for products in (torch.float32, torch.bfloat16):
        drawing, gradients = outcome(fast_drawing, model, images, noise, products)
        assert all(torch.isfinite(part).all() for part in (*drawing, *gradients))


@pytest.mark.parametrize("parts", [("logits",), ("latents",)])
@pytest.mark.parametrize("read_patch, write_patch", [(None, None), (2, 3)])
def test_either_part_of_the_loss_alone(parts, read_patch, write_patch):
    assert agree(*model_and_inputs(SHAPES[0], read_patch, write_patch), parts=parts)


@pytest.mark.parametrize("settings", [{"steps": 1}, {"hidden": 1}, {"latent": 1}, {"batch": 1}])
def test_counts_of_one(settings):
    assert agree(*model_and_inputs((1, 6, 6), 2, 2, **settings))
    assert agree(*model_and_inputs((1, 6, 6), None, None, **settings))


@pytest.mark.parametrize("read_patch, write_patch", [(None, None), (None, 5), (2, None), (2, 5)])
def test_bfloat16_products_stay_close(read_patch, write_patch):
    sizes = {
        "dtype": torch.float32,
        "spread": 0.05,
        "steps": 6,
        "hidden": 64,
        "latent": 16,
        "batch": 16,
    }
    model, images, noise = model_and_inputs((1, 20, 20), read_patch, write_patch, **sizes)
    exact, rough = (
        outcome(fast_drawing, model, images, noise),
        outcome(fast_drawing, model, images, noise, torch.bfloat16),
    )
    assert all(part.dtype == torch.float32 for part in (*rough[0], *rough[1]))
    assert relative(rough[0], exact[0]) < 0.02
    assert F.cosine_similarity(whole(exact[1]), whole(rough[1]), dim=0) > 0.999
    assert not torch.equal(whole(exact[1]), whole(rough[1]))  # or the option does nothing


def test_bfloat16_is_as_exact_as_the_reference_under_autocast():
    sizes = {
        "dtype": torch.float32,
        "spread": 0.05,
        "steps": 6,
        "hidden": 64,
        "latent": 16,
        "batch": 16,
    }
    model, images, noise = model_and_inputs((1, 20, 20), 2, 5, **sizes)
    truth = outcome(model, model, images, noise)
    rough = outcome(fast_drawing, model, images, noise, torch.bfloat16)
    with torch.autocast("cpu", torch.bfloat16):
        cast = outcome(model, model, images, noise)
        inside = outcome(fast_drawing, model, images, noise)
    assert relative([whole(rough[1])], [whole(truth[1])]) < relative(
        [whole(cast[1])], [whole(truth[1])]
    )
    if native.kernels() is not None:
        assert (
            relative([whole(inside[1])], [whole(truth[1])]) < 1e-5
        )  # the caller's autocast does not reach in


@pytest.mark.parametrize("read_patch, write_patch", [(None, None), (2, 2)])
def test_gradcheck(read_patch, write_patch):
    """Against finite differences, by way of the parameters themselves."""
    model, images, noise = model_and_inputs(
        (2, 3, 4), read_patch, write_patch, batch=2, steps=2, hidden=2, latent=1
    )
    parameters = list(model.parameters())

    def values(*_):
        return fast_drawing(model, images, noise)[:3]

    assert torch.autograd.gradcheck(values, parameters, fast_mode=True)


@pytest.mark.parametrize("segment", [1, 2, 3, 4, 7])
@pytest.mark.parametrize("read_patch, write_patch", [(None, None), (2, None), (2, 5)])
def test_steps_computed_again_change_nothing(read_patch, write_patch, segment):
    """Segments of equal and of unequal length, and of more steps than there are; in the reference
    too.
    """
    model, images, noise = model_and_inputs(
        SHAPES[1], read_patch, write_patch, steps=4, window_clip=1e-2
    )
    truth = outcome(model, model, images, noise)
    for draw, options in ((fast_drawing, (torch.float32, segment)), (model, (False, segment))):
        ours = outcome(draw, model, images, noise, *options)
        assert relative(ours[0], truth[0]) < 1e-10
        assert relative(ours[1], truth[1]) < 1e-10


def test_shares_of_a_batch_add_up_to_the_whole(monkeypatch):
    """With as many cores as there are: each takes some images, and the clip still knows how many
    there are in all.
    """
    model, images, noise = model_and_inputs(SHAPES[1], 2, 5, batch=7, window_clip=1e-3)
    truth = outcome(model, model, images, noise)
    for cores in (2, 3, 7):
        monkeypatch.setattr(draw_fast, "shares", lambda batch, cores=cores: split(batch, cores))
        ours = outcome(fast_drawing, model, images, noise)
        assert relative(ours[0], truth[0]) < 1e-10
        assert relative(ours[1], truth[1]) < 1e-10


def test_without_kernels_the_reference_draws(monkeypatch):
    model, images, noise = model_and_inputs(SHAPES[0], 2, 5)
    monkeypatch.setattr(draw_fast, "kernels", lambda dtype: None)
    truth = outcome(model, model, images, noise)
    for options in ((), (torch.float32, 2)):
        ours = outcome(fast_drawing, model, images, noise, *options)
        assert relative(ours[0], truth[0]) < 1e-12
        assert relative(ours[1], truth[1]) < 1e-12
    rough = outcome(fast_drawing, model.float(), images.float(), noise.float(), torch.bfloat16)
    assert all(part.dtype == torch.float32 for part in rough[0])
    assert 1e-6 < relative(rough[0], truth[0]) < 0.1


def test_again_gives_the_same_bits():
    model, images, noise = model_and_inputs(SHAPES[0], 2, 5, torch.float32)
    for products in (torch.float32, torch.bfloat16):
        (first, first_gradients), (again, again_gradients) = (
            outcome(fast_drawing, model, images, noise, products) for _ in range(2)
        )
        assert all(
            torch.equal(a, b)
            for a, b in zip((*first, *first_gradients), (*again, *again_gradients), strict=True)
        )


def test_a_second_pass_back_gives_the_same_bits():
    model, images, noise = model_and_inputs(SHAPES[0], 2, 5, torch.float32)
    total = loss(fast_drawing(model, images, noise), images)
    first = torch.autograd.grad(total, list(model.parameters()), retain_graph=True)
    assert torch.equal(whole(first), whole(torch.autograd.grad(total, list(model.parameters()))))


def test_faults_are_named():
    model, images, noise = model_and_inputs(SHAPES[0], 2, 5)
    for wrong in (
        (images, noise[:, :2]),
        (images, noise[:, 0]),
        (images[:, :, :7], noise),
        (images[:2], noise),
    ):
        with pytest.raises(ValueError) as ours:
            fast_drawing(model, *wrong)
        with pytest.raises(ValueError) as theirs:
            model(*wrong)
        assert str(ours.value) == str(theirs.value)
    with pytest.raises(ValueError, match="parameters only"):
        fast_drawing(model, images.requires_grad_(), noise)
    with pytest.raises(ValueError, match="bfloat16"):
        fast_drawing(model, images.detach(), noise, torch.float16)
