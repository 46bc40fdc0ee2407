"""The attention core against nested loops written from the paper, then its laws, then the faults
found in public code.
"""

import math

import formulas
import pytest
import torch
from formulas import waves
from torch import Tensor
from torch.autograd import gradcheck

from drawbench import attention
from drawbench.attention import Window, filterbank, read, window, write

PATCHES = (1, 2, 3, 5, 12)
SIZES = ((7, 7), (6, 9), (8, 5))  # height, width: square and oblong both ways


def some_numbers(batch: int = 3) -> Tensor:
    """Return (batch, 5): windows off the middle, some partly outside, strides below and above the
    image.
    """
    return waves(batch, 5, pace=1.1) * torch.tensor([0.9, 0.9, 1.2, 0.8, 0.6], dtype=torch.float64)


def centred(height, width, patch, log_variance=0.0, log_stride=0.0) -> Window:
    """Return the grid in the middle of the image."""
    numbers = torch.tensor([[0.0, 0.0, log_variance, log_stride, 0.0]], dtype=torch.float64)
    return window(numbers, height, width, patch)


def window_of(centre_x, centre_y, variance, stride, intensity=1.0) -> Window:
    """Return a window for a batch of one, given in pixels."""
    fields = (centre_x, centre_y, variance, stride, intensity)
    return Window(*(torch.tensor([field], dtype=torch.float64) for field in fields))


def loop_filters(centre, variance, stride, pixels: range, steps: range, right=True) -> Tensor:
    """Return filters (N, size) with a chosen numbering of pixels and filters, without a guard
    against empty rows.

    ``range(1, size + 1)`` and ``range(1, N + 1)`` with the right exponent are the paper; the tests
    of faults ask for others.
    """
    patch = len(steps)
    rows = torch.zeros(patch, len(pixels), dtype=torch.float64)
    for row, i in enumerate(steps):
        for column, a in enumerate(pixels):
            distance = a - (centre + (i - patch / 2 - 0.5) * stride)
            power = distance**2 / (2 * variance) if right else (distance / (2 * variance)) ** 2
            rows[row, column] = math.exp(-power)
    return rows / rows.sum(dim=1, keepdim=True).clamp_min(1e-8)


# --- against the twin ---


def close(ours: Tensor, twin: list) -> None:
    twin = torch.tensor(twin, dtype=torch.float64)
    torch.testing.assert_close(ours, twin, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("patch", PATCHES)
@pytest.mark.parametrize(("height", "width"), SIZES)
def test_windows_and_filters_agree_with_loops(height, width, patch):
    numbers = some_numbers()
    where = window(numbers, height, width, patch)
    bank = filterbank(where, height, width, patch)
    for n, row in enumerate(numbers.tolist()):
        g_x, g_y, variance, stride, gamma = formulas.window(row, height, width, patch)
        close(torch.stack(where, -1)[n], [g_x, g_y, variance, stride, gamma])
        close(bank.x[n], formulas.filters(g_x, variance, stride, patch, width))
        close(bank.y[n], formulas.filters(g_y, variance, stride, patch, height))


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("patch", PATCHES)
@pytest.mark.parametrize(("height", "width"), SIZES)
def test_reading_and_writing_agree_with_loops(height, width, patch, channels):
    numbers, images = some_numbers(2), waves(2, channels, height, width)
    where, patches = window(numbers, height, width, patch), waves(2, channels, patch, patch)
    glimpses, drawings = read(images, where, patch), write(patches, where, height, width)
    for n, row in enumerate(numbers.tolist()):
        twin = formulas.window(row, height, width, patch)
        close(glimpses[n], [formulas.read(plane, twin, patch) for plane in images[n].tolist()])
        planes = patches[n].tolist()
        close(drawings[n], [formulas.write(plane, twin, height, width) for plane in planes])


def test_squash_agrees_with_loops():
    numbers = torch.cat([some_numbers(4), 1e3 * some_numbers(4)])
    close(attention.squash(numbers), [formulas.squash(row) for row in numbers.tolist()])


# --- laws ---


@pytest.mark.parametrize("patch", PATCHES)
def test_filters_are_distributions_over_pixels(patch):
    # the second half far outside, very sharp or very blurred
    numbers = torch.cat([some_numbers(), 30 * some_numbers()])
    for filters in filterbank(window(numbers, 9, 6, patch), 9, 6, patch):
        assert (filters >= 0).all()
        torch.testing.assert_close(filters.sum(-1), torch.ones(6, patch, dtype=torch.float64))


def test_filter_centres_are_evenly_spaced_about_the_centre():
    centres = attention.filter_centres(torch.tensor([4.0, 10.0]), torch.tensor([2.0, 0.5]), 4)
    assert centres.tolist() == [[1.0, 3.0, 5.0, 7.0], [9.25, 9.75, 10.25, 10.75]]


def test_a_grid_of_one_filter_ignores_the_stride():
    small, large = (filterbank(window_of(4.0, 3.0, 1.5, stride), 6, 9, 1) for stride in (0.1, 50.0))
    assert torch.equal(small.x, large.x)
    assert torch.equal(small.y, large.y)


def test_a_sharp_grid_of_unit_stride_copies_pixels():
    images = waves(1, 2, 7, 9)
    # Filters at columns 4..6 and rows 2..4, numbered from 1.
    patches = read(images, window_of(5.0, 3.0, 1e-3, 1.0, intensity=2.0), 3)
    torch.testing.assert_close(patches, 2 * images[:, :, 1:4, 3:6])


def test_a_flat_image_reads_as_its_value_times_intensity():
    flat = torch.full((3, 1, 6, 9), 0.25, dtype=torch.float64)
    patches = read(flat, window(some_numbers(), 6, 9, 5), 5)
    wanted = 0.25 * some_numbers()[:, 4].exp()
    torch.testing.assert_close(patches, wanted[:, None, None, None].expand(3, 1, 5, 5))


def test_a_write_spreads_the_patch_and_keeps_its_sum():
    patches = waves(3, 2, 5, 5)
    drawing = write(patches, window(some_numbers(), 6, 9, 5), 6, 9)
    wanted = patches.sum((-1, -2)) / some_numbers()[:, 4].exp()[:, None]
    torch.testing.assert_close(drawing.sum((-1, -2)), wanted)


@pytest.mark.parametrize("patch", PATCHES)
def test_writing_is_the_adjoint_of_reading(patch):
    """<write(p), x> gamma = <p, read(x)> / gamma: both use the same filters, transposed."""
    images, patches = waves(3, 2, 6, 9), waves(3, 2, patch, patch, pace=0.3)
    where = window(some_numbers(), 6, 9, patch)
    written = (write(patches, where, 6, 9) * images).sum((1, 2, 3)) * where.intensity
    seen = (patches * read(images, where, patch)).sum((1, 2, 3)) / where.intensity
    torch.testing.assert_close(written, seen, rtol=1e-11, atol=1e-12)


@pytest.mark.parametrize("patch", [1, 2, 5])
def test_reading_follows_a_moved_image(patch):
    """Away from the border, image and window moved together read the same."""
    image = torch.zeros(1, 1, 60, 50, dtype=torch.float64)
    image[..., 22:32, 18:30] = waves(10, 12)
    here = window_of(24.3, 27.1, 1.7, 2.4)
    there = here._replace(centre_x=here.centre_x + 6, centre_y=here.centre_y - 5)
    moved = image.roll((-5, 6), dims=(-2, -1))
    close = torch.testing.assert_close
    close(read(moved, there, patch), read(image, here, patch), rtol=1e-9, atol=1e-12)


def test_a_transposed_image_reads_transposed():
    images, where = waves(3, 2, 6, 9), window(some_numbers(), 6, 9, 4)
    turned = where._replace(centre_x=where.centre_y, centre_y=where.centre_x)
    torch.testing.assert_close(read(images.mT, turned, 4), read(images, where, 4).mT)


def test_squash_keeps_its_range_and_unit_slope():
    extreme = attention.squash(torch.tensor([[1e30] * 5, [-1e30] * 5], dtype=torch.float64))
    assert extreme[0].tolist() == pytest.approx([1.2, 1.2, 5.5, 2.0, 1.0])
    assert extreme[1].tolist() == pytest.approx([-1.2, -1.2, 0.5, -2.0, -1.0])
    small = torch.full((1, 5), 1e-6, dtype=torch.float64)
    slope = (attention.squash(small) - attention.squash(-small)) / 2e-6
    torch.testing.assert_close(slope, torch.ones_like(slope))


# --- faults found in public code ---


@pytest.mark.parametrize("patch", [2, 3, 5, 12])
@pytest.mark.parametrize("size", [7, 8])
def test_fault_1_filters_are_numbered_from_one(patch, size):
    """Fault 1: filters numbered 0..N-1 in the paper's formula for 1..N shift the window by a
    stride.
    """
    where = centred(size, size, patch, log_variance=0.4, log_stride=-0.7)
    centre, stride, variance = where.centre_x.item(), where.stride.item(), where.variance.item()
    core = filterbank(where, size, size, patch).x[0]
    right = loop_filters(centre, variance, stride, range(1, size + 1), range(1, patch + 1))
    wrong = loop_filters(centre, variance, stride, range(1, size + 1), range(patch))
    torch.testing.assert_close(core, right)
    torch.testing.assert_close(core, core.flip(0, 1))  # a centred grid has no side
    assert (core - wrong).abs().max() > 0.05
    assert (wrong - wrong.flip(0, 1)).abs().max() > 0.05


def test_fault_1_both_rows_of_a_two_by_two_grid_lie_inside():
    """Fault 1: at N = 2 and full stride one of the two filters falls off the image and its row is
    all zero.
    """
    where = centred(28, 28, 2)
    assert attention.filter_centres(where.centre_x, where.stride, 2).tolist() == [[1.0, 28.0]]
    core = filterbank(where, 28, 28, 2).x[0]
    assert core.argmax(-1).tolist() == [0, 27]
    wrong = loop_filters(14.5, 1.0, 27.0, range(1, 29), range(2))
    assert wrong[0].sum() < 1e-6  # its centre is pixel -26
    assert (core - wrong).abs().max() > 0.5


@pytest.mark.parametrize("variance", [0.3, 1.0, 2.5])
def test_fault_2_the_exponent_divides_by_twice_the_variance(variance):
    """Fault 2: exp(-((a - mu) / (2 s2))^2) for exp(-(a - mu)^2 / (2 s2))."""
    core = filterbank(window_of(5.0, 5.0, variance, 1.0), 9, 9, 1).x[0, 0]  # the centre is a pixel
    assert (core[5] / core[4]).item() == pytest.approx(math.exp(-1 / (2 * variance)), rel=1e-12)
    assert (core[6] / core[4]).item() == pytest.approx(math.exp(-4 / (2 * variance)), rel=1e-12)
    wrong = loop_filters(5.0, variance, 1.0, range(1, 10), range(1, 2), right=False)[0]
    assert (wrong[5] / wrong[4]).item() == pytest.approx(math.exp(-((1 / (2 * variance)) ** 2)))
    assert (core - wrong).abs().max() > 0.02


def test_fault_3_rows_and_columns_have_their_own_centres():
    """Fault 3: F_Y built from mu_X. Each axis must follow its own centre only, on an oblong image
    too.
    """
    where = window_of(2.5, 6.0, 0.8, 1.5)
    core = filterbank(where, 9, 9, 3)
    moved_x = filterbank(where._replace(centre_x=where.centre_x + 2), 9, 9, 3)
    moved_y = filterbank(where._replace(centre_y=where.centre_y - 3), 9, 9, 3)
    assert torch.equal(core.y, moved_x.y)
    assert torch.equal(core.x, moved_y.x)
    assert not torch.allclose(core.x, moved_x.x)
    assert not torch.allclose(core.y, moved_y.y)
    wrong = loop_filters(where.centre_x.item(), 0.8, 1.5, range(1, 10), range(1, 4))
    right = loop_filters(where.centre_y.item(), 0.8, 1.5, range(1, 10), range(1, 4))
    torch.testing.assert_close(core.y[0], right)
    assert (core.y[0] - wrong).abs().max() > 0.2


def test_fault_3_write_uses_the_window_it_is_given():
    """Fault 3: one attention map for reading and writing. The two calls share no state."""
    images = waves(1, 1, 8, 8)
    reading, writing = window_of(3.0, 3.0, 0.5, 1.0), window_of(6.0, 5.0, 0.5, 1.0, intensity=2.0)
    patches = read(images, reading, 3)
    drawing = write(patches, writing, 8, 8)
    f_x = loop_filters(6.0, 0.5, 1.0, range(1, 9), range(1, 4))
    f_y = loop_filters(5.0, 0.5, 1.0, range(1, 9), range(1, 4))
    torch.testing.assert_close(drawing[0, 0], f_y.T @ patches[0, 0] @ f_x / 2)
    assert not torch.allclose(drawing, write(patches, reading, 8, 8))


@pytest.mark.parametrize("patch", PATCHES)
@pytest.mark.parametrize(("height", "width"), SIZES)
def test_fault_9_a_centred_grid_is_symmetric_under_a_flip(height, width, patch):
    """Fault 9: pixels numbered from 0 with centres numbered from 1 put every window one pixel
    off.
    """
    where = centred(height, width, patch, log_variance=0.3, log_stride=-0.5)
    core = filterbank(where, height, width, patch)
    torch.testing.assert_close(core.x, core.x.flip(1, 2))
    torch.testing.assert_close(core.y, core.y.flip(1, 2))
    images = waves(1, 2, height, width)
    for axis in (-1, -2):
        flipped = read(images.flip(axis), where, patch)
        torch.testing.assert_close(flipped, read(images, where, patch).flip(axis))
    variance, stride = where.variance.item(), where.stride.item()
    wrong = loop_filters(where.centre_x.item(), variance, stride, range(width), range(1, patch + 1))
    assert (wrong - wrong.flip(0, 1)).abs().max() > 0.05
    assert (core.x[0] - wrong).abs().max() > 0.05


# --- gradients ---


def leaf(values: Tensor) -> Tensor:
    return values.clone().requires_grad_()


def test_gradients_of_window_and_squash():
    assert gradcheck(attention.squash, (leaf(some_numbers()),))
    assert gradcheck(lambda numbers: tuple(window(numbers, 6, 9, 3)), (leaf(some_numbers()),))


@pytest.mark.parametrize("patch", [1, 2, 3])
def test_gradients_of_the_filterbank(patch):
    fields = [leaf(field) for field in window(some_numbers(2), 4, 5, patch)]
    if patch == 1:
        fields[3] = fields[3].detach()  # no effect: its gradient is an exact 0
    assert gradcheck(lambda *fields: tuple(filterbank(Window(*fields), 4, 5, patch)), fields)


@pytest.mark.parametrize("patch", [1, 2, 3])
def test_gradients_of_read_and_write(patch):
    numbers, images = leaf(some_numbers(1)), leaf(waves(1, 2, 3, 4))
    patches = leaf(waves(1, 2, patch, patch))

    def both(numbers: Tensor, images: Tensor, patches: Tensor) -> tuple[Tensor, Tensor]:
        where = window(numbers, 3, 4, patch)
        return read(images, where, patch), write(patches, where, 3, 4)

    assert gradcheck(both, (numbers, images, patches))


# --- hard inputs ---

FARTHEST = torch.finfo(torch.float32).max
EXTREMES = (-FARTHEST, -1e30, -20.0, 0.0, 0.37, 20.0, FARTHEST)


@pytest.mark.parametrize(
    ("height", "width", "patch"), [(5, 4, 1), (5, 4, 2), (4, 5, 3), (100, 100, 12)]
)
@pytest.mark.parametrize("squash", [False, True], ids=["linear", "bounded"])
def test_any_finite_numbers_give_finite_values_and_gradients(height, width, patch, squash):
    values = EXTREMES if height < 10 else EXTREMES[::2]
    numbers = torch.cartesian_prod(*[torch.tensor(values)] * 5).requires_grad_()  # all combinations
    images, patches = waves(1, 1, height, width).float() + 1, torch.ones(1, 1, patch, patch)
    where = window(attention.squash(numbers) if squash else numbers, height, width, patch)
    seen, drawn = read(images, where, patch), write(patches, where, height, width)
    for found in (*where, seen, drawn):
        assert found.isfinite().all()
    (gradient,) = torch.autograd.grad(seen.sum() + drawn.square().sum(), numbers)
    assert gradient.isfinite().all()


def test_a_grid_far_outside_reads_the_border():
    image = torch.arange(12.0).view(1, 1, 3, 4)
    where = window(torch.tensor([[1e30, -1e30, -1e30, -5.0, 0.0]]), 3, 4, 2)
    assert read(image, where, 2).flatten().tolist() == [3.0] * 4  # the top right pixel


def test_half_precision_windows_are_widened_inside():
    """The filters of a bfloat16 window are those of the same numbers in float32, rounded once."""
    where = window_of(12.5, 70.0, 1.5, 7.5)
    narrow, wide = (
        Window(*(field.to(dtype) for field in where)) for dtype in (torch.bfloat16, torch.float32)
    )
    banks = (filterbank(one, 100, 100, 5) for one in (narrow, wide))
    for ours, exact in zip(*banks, strict=True):
        assert torch.equal(ours, exact.bfloat16())
    patches = torch.ones(1, 1, 5, 5).bfloat16()
    assert read(torch.ones(1, 1, 100, 100).bfloat16(), narrow, 5).dtype == torch.bfloat16
    assert write(patches, narrow, 100, 100).dtype == torch.bfloat16


def test_autocast_rounds_neither_windows_nor_patches():
    layer, hidden = torch.nn.Linear(4, 5), waves(2, 4).float()
    images = waves(2, 1, 30, 30).float()
    with torch.no_grad():
        exact = attention.raw_numbers(layer, hidden, None)
        where = window(exact, 30, 30, 3)
        with torch.autocast("cpu", torch.bfloat16):
            assert torch.equal(attention.raw_numbers(layer, hidden, None), exact)
            assert torch.equal(window(exact, 30, 30, 3).stride, where.stride)
            rounded = read(images, where, 3), write(images[..., :3, :3], where, 30, 30)
        assert torch.equal(rounded[0], read(images, where, 3))
        assert torch.equal(rounded[1], write(images[..., :3, :3], where, 30, 30))


def test_the_gradient_of_each_image_is_clipped_and_keeps_its_direction():
    numbers = leaf(some_numbers(4))
    slopes = torch.tensor([1e3, 1e-3, 2.0, 0.0], dtype=torch.float64)[:, None] * waves(4, 5)
    (attention.clip_gradient(numbers, 1.0) * slopes).sum().backward()
    limits = slopes.norm(dim=1).clamp(max=1 / 4)  # the loss is taken to be a mean over 4 images
    torch.testing.assert_close(numbers.grad.norm(dim=1), limits)
    shares = limits / slopes.norm(dim=1)
    torch.testing.assert_close(numbers.grad[:3], slopes[:3] * shares[:3, None])


def test_dtypes_are_kept():
    for dtype in (torch.float32, torch.float64):
        where = window(some_numbers().to(dtype), 6, 9, 3)
        assert read(waves(3, 1, 6, 9).to(dtype), where, 3).dtype == dtype
        assert write(waves(3, 1, 3, 3).to(dtype), where, 6, 9).dtype == dtype


def test_window_keeps_leading_dimensions():
    where = window(waves(2, 7, 5), 6, 9, 3)
    assert {field.shape for field in where} == {(2, 7)}


def test_wrong_shapes_are_named():
    with pytest.raises(ValueError, match=r"needs 5 numbers .*got a last dimension of 4"):
        window(torch.zeros(2, 4), 6, 9, 3)
    for sizes, names in [((0, 9, 3), "height 0"), ((6, -1, 3), "width -1"), ((6, 9, 0), "patch 0")]:
        with pytest.raises(ValueError, match=f"at least 1 pixel, got .*{names}"):
            window(torch.zeros(2, 5), *sizes)
