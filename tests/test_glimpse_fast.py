"""The fast recurrence against the plain model, which is the reference."""

import pytest
import torch
import torch.nn.functional as F

from drawbench import streams
from drawbench.fast import glimpse as glimpse_fast
from drawbench.fast.glimpse import fast_logits
from drawbench.models.glimpse import WINDOW_MAPS, GlimpseClassifier

SHAPES = [(1, 30, 30), (1, 40, 25), (3, 25, 40)]


def model_and_images(window_map, shape, dtype=torch.float64, spread=0.2, **sizes):
    """A small model with weights far from zero, so that windows move and change size between steps."""
    channels, height, width = shape
    with streams.seeded(0, "fast"):
        model = GlimpseClassifier(
            glimpses=4, patch=5, hidden=16, channels=channels, window_map=window_map, **sizes
        ).to(dtype)
        with torch.no_grad():
            for parameter in model.parameters():
                parameter += torch.randn_like(parameter) * spread
        return model, torch.rand(6, channels, height, width, dtype=dtype)


def gradients(model, logits, every_step):
    labels = torch.arange(len(logits)) % 10
    if every_step:
        loss = F.cross_entropy(logits.flatten(0, 1), labels.repeat_interleave(logits.shape[1]))
    else:
        loss = F.cross_entropy(logits[:, -1], labels)
    return torch.autograd.grad(loss, list(model.parameters()))


def relative(ours, theirs):
    """The distance of two gradients over all parameters, as a share of the second's length."""
    ours, theirs = (
        torch.cat([part.detach().flatten() for part in parts]) for parts in (ours, theirs)
    )
    return float((ours - theirs).norm() / theirs.norm())


@pytest.mark.parametrize("window_map", WINDOW_MAPS)
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("every_step", [False, True])
def test_values_and_gradients_equal_the_reference(window_map, shape, every_step):
    model, images = model_and_images(window_map, shape)
    fast, plain = fast_logits(model, images), model(images).logits
    truth = gradients(model, plain, every_step)
    assert relative([fast], [plain]) < 1e-10
    assert relative(gradients(model, fast, every_step), truth) < 1e-10

    # In float32 with calmer weights: those above make some windows chaotic, so that roundings grow
    # to 1e-4 in either version.
    model, images = model_and_images(window_map, shape, spread=0.05)
    truth = gradients(model, model(images).logits, every_step)
    model, images = model.float(), images.float()
    ours = [
        gradient.double() for gradient in gradients(model, fast_logits(model, images), every_step)
    ]
    assert relative(ours, truth) < 1e-5


@pytest.mark.parametrize("limit", [1e-3, 1e-2])
def test_clipping_each_image_equals_the_reference(limit):
    model, images = model_and_images("bounded", SHAPES[0], window_clip=limit)
    ours, theirs = (
        gradients(model, fast_logits(model, images), False),
        gradients(model, model(images).logits, False),
    )
    assert relative(ours, theirs) < 1e-10
    model.window_clip = None
    assert (
        relative(ours, gradients(model, fast_logits(model, images), False)) > 1e-3
    )  # or nothing was clipped


@pytest.mark.parametrize("patch, glimpses", [(1, 1), (2, 3), (7, 2)])
def test_any_patch_and_any_number_of_glimpses(patch, glimpses):
    with streams.seeded(1, "fast"):
        model = GlimpseClassifier(glimpses=2, patch=patch, hidden=8).double()
        images = torch.rand(3, 1, 20, 31, dtype=torch.float64)
    fast, plain = fast_logits(model, images, glimpses), model(images, glimpses).logits
    assert fast.shape == (3, glimpses, 10)
    assert relative(gradients(model, fast, True), gradients(model, plain, True)) < 1e-10


def test_bytes_are_read_as_zero_to_one():
    model, _ = model_and_images("bounded", SHAPES[0])
    pixels = torch.randint(
        0, 256, (6, 1, 30, 30), generator=streams.stream(0, "bytes"), dtype=torch.uint8
    )
    torch.testing.assert_close(fast_logits(model, pixels), model(pixels.double() / 255).logits)


def test_bfloat16_products_point_the_same_way():
    model, images = model_and_images("bounded", (1, 60, 60), torch.float32, spread=0.05)
    exact = torch.cat([g.flatten() for g in gradients(model, fast_logits(model, images), False)])
    rough = torch.cat(
        [
            g.flatten()
            for g in gradients(model, fast_logits(model, images, products=torch.bfloat16), False)
        ]
    )
    assert F.cosine_similarity(exact, rough, dim=0) > 0.999
    assert not torch.equal(exact, rough)  # or the option does nothing


def test_shares_of_a_batch_add_up_to_the_whole(monkeypatch):
    model, images = model_and_images("bounded", SHAPES[2], window_clip=1e-2)
    truth = gradients(model, model(images).logits, True)
    for cores in (2, 3, 6):
        parts = [slice(6 * k // cores, 6 * (k + 1) // cores) for k in range(cores)]
        monkeypatch.setattr(glimpse_fast, "shares", lambda batch, parts=parts: parts)
        assert relative(gradients(model, fast_logits(model, images), True), truth) < 1e-10


def test_without_kernels_the_reference_looks(monkeypatch):
    model, images = model_and_images("bounded", SHAPES[0])
    pixels = (images * 255).round().to(torch.uint8)
    monkeypatch.setattr(glimpse_fast, "kernels", lambda dtype: None)
    truth = model(pixels.double() / 255).logits
    torch.testing.assert_close(fast_logits(model, pixels), truth)
    rough = fast_logits(model.float(), pixels, products=torch.bfloat16)
    assert rough.dtype == torch.float32
    assert 1e-6 < relative([rough], [truth]) < 0.1


@pytest.mark.parametrize("window_map", WINDOW_MAPS)
@pytest.mark.parametrize("size", [1e3, 1e30])
def test_extreme_windows_stay_finite(window_map, size):
    """Grids far outside the image, filters far too sharp or too wide: the limits hold, and nothing
    is infinite.
    """
    model, images = model_and_images(window_map, SHAPES[0], torch.float32)
    for signs in torch.cartesian_prod(*[torch.tensor([-1.0, 1.0])] * 5):
        with torch.no_grad():
            model.to_window.bias.copy_(size * signs)
        logits = fast_logits(model, images)
        assert torch.isfinite(logits).all()
        assert all(torch.isfinite(g).all() for g in gradients(model, logits, True))
