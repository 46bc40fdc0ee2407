"""The attention core against nested loops written from the paper, then its laws, then the faults
found in public code.
"""

import math

import pytest
import torch
from torch import Tensor
from torch.autograd import gradcheck

from drawbench import attention
from drawbench.attention import Window, filterbank, read, window, write

PATCHES = (1, 2, 3, 5, 12)
SIZES = ((7, 7), (6, 9), (8, 5))  # height, width: square and oblong both ways


# --- the twin: DRAW equations 21-29, one number at a time, i and a numbered from 1 ---


def twin_window(
    numbers: list[float], height: int, width: int, patch: int
) -> tuple[float, float, float, float, float]:
    """g_X, g_Y, sigma squared, delta, gamma of five numbers (equations 21-24)."""
    across, down, log_variance, log_stride, log_intensity = numbers
    return (
        (width + 1) / 2 * (across + 1),
        (height + 1) / 2 * (down + 1),
        math.exp(log_variance),
        (max(width, height) - 1) / (patch - 1 if patch > 1 else 1) * math.exp(log_stride),
        math.exp(log_intensity),
    )


def twin_filters(
    centre: float, variance: float, stride: float, patch: int, size: int
) -> list[list[float]]:
    """F[i][a] of one axis (equations 19, 20, 25, 26)."""
    rows = []
    for i in range(1, patch + 1):
        mean = centre + (i - patch / 2 - 0.5) * stride
        row = []
        for a in range(1, size + 1):
            row.append(math.exp(-((a - mean) ** 2) / (2 * variance)))
        total = sum(row)
        rows.append([value / total for value in row])
    return rows


def twin_read(image: list, numbers: list[float], patch: int) -> list:
    """gamma F_Y x F_X^T for every channel of one image, image[channel][row][column] (equation 27)."""
    height, width = len(image[0]), len(image[0][0])
    g_x, g_y, variance, stride, gamma = twin_window(numbers, height, width, patch)
    f_x, f_y = (
        twin_filters(g_x, variance, stride, patch, width),
        twin_filters(g_y, variance, stride, patch, height),
    )
    result = [[[0.0] * patch for _ in range(patch)] for _ in image]
    for channel, plane in enumerate(image):
        for i in range(patch):
            for j in range(patch):
                for b in range(height):
                    for a in range(width):
                        result[channel][i][j] += gamma * f_y[i][b] * plane[b][a] * f_x[j][a]
    return result


def twin_write(patches: list, numbers: list[float], height: int, width: int) -> list:
    """F_Y^T w F_X / gamma for every channel of one patch, patches[channel][i][j] (equation 29)."""
    patch = len(patches[0])
    g_x, g_y, variance, stride, gamma = twin_window(numbers, height, width, patch)
    f_x, f_y = (
        twin_filters(g_x, variance, stride, patch, width),
        twin_filters(g_y, variance, stride, patch, height),
    )
    result = [[[0.0] * width for _ in range(height)] for _ in patches]
    for channel, plane in enumerate(patches):
        for b in range(height):
            for a in range(width):
                for i in range(patch):
                    for j in range(patch):
                        result[channel][b][a] += f_y[i][b] * plane[i][j] * f_x[j][a] / gamma
    return result


# --- inputs, by formula rather than by seed ---


def waves(*shape: int, pace: float = 0.7) -> Tensor:
    """Float64 numbers in [-1, 1] without pattern or randomness."""
    return torch.sin(pace * torch.arange(1, math.prod(shape) + 1, dtype=torch.float64) ** 1.3).view(
        shape
    )


def some_numbers(batch: int = 3) -> Tensor:
    """(batch, 5) of moderate size: windows off the middle, some partly outside, strides below and
    above the image.
    """
    return waves(batch, 5, pace=1.1) * torch.tensor([0.9, 0.9, 1.2, 0.8, 0.6], dtype=torch.float64)


def centred(
    height: int, width: int, patch: int, log_variance: float = 0.0, log_stride: float = 0.0
) -> Window:
    """The grid in the middle of the image."""
    numbers = torch.tensor([[0.0, 0.0, log_variance, log_stride, 0.0]], dtype=torch.float64)
    return window(numbers, height, width, patch)


def window_of(
    centre_x: float, centre_y: float, variance: float, stride: float, intensity: float = 1.0
) -> Window:
    """A window for a batch of one, given in pixels."""
    return Window(
        *(
            torch.tensor([field], dtype=torch.float64)
            for field in (centre_x, centre_y, variance, stride, intensity)
        )
    )


def loop_filters(
    centre: float,
    variance: float,
    stride: float,
    pixels: range,
    steps: range,
    exponent: str = "right",
) -> Tensor:
    """Filters with a chosen numbering of pixels and of filters, (N, size), and no guard against an
    empty row.

    ``range(1, size + 1)`` and ``range(1, N + 1)`` with the right exponent are the paper; the fault
    tests ask for others.
    """
    patch = len(steps)
    rows = torch.zeros(patch, len(pixels), dtype=torch.float64)
    for row, i in enumerate(steps):
        for column, a in enumerate(pixels):
            distance = a - (centre + (i - patch / 2 - 0.5) * stride)
            power = (
                distance**2 / (2 * variance)
                if exponent == "right"
                else (distance / (2 * variance)) ** 2
            )
            rows[row, column] = math.exp(-power)
    return rows / rows.sum(dim=1, keepdim=True).clamp_min(1e-8)


# --- against the twin ---


@pytest.mark.parametrize("patch", PATCHES)
@pytest.mark.parametrize(("height", "width"), SIZES)
def test_filterbank_agrees_with_loops(height, width, patch):
    numbers = some_numbers()
    filters = filterbank(window(numbers, height, width, patch), height, width, patch)
    assert filters.y.shape == (3, patch, height)
    assert filters.x.shape == (3, patch, width)
    for n, row in enumerate(numbers.tolist()):
        g_x, g_y, variance, stride, _ = twin_window(row, height, width, patch)
        f_x = torch.tensor(twin_filters(g_x, variance, stride, patch, width), dtype=torch.float64)
        f_y = torch.tensor(twin_filters(g_y, variance, stride, patch, height), dtype=torch.float64)
        torch.testing.assert_close(filters.x[n], f_x, rtol=1e-10, atol=1e-12)
        torch.testing.assert_close(filters.y[n], f_y, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("patch", PATCHES)
@pytest.mark.parametrize(("height", "width"), SIZES)
def test_read_agrees_with_loops(height, width, patch, channels):
    numbers, images = some_numbers(2), waves(2, channels, height, width)
    found = read(images, window(numbers, height, width, patch), patch)
    wanted = [
        twin_read(image, row, patch)
        for image, row in zip(images.tolist(), numbers.tolist(), strict=True)
    ]
    torch.testing.assert_close(
        found, torch.tensor(wanted, dtype=torch.float64), rtol=1e-10, atol=1e-12
    )


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("patch", PATCHES)
@pytest.mark.parametrize(("height", "width"), SIZES)
def test_write_agrees_with_loops(height, width, patch, channels):
    numbers, patches = some_numbers(2), waves(2, channels, patch, patch)
    found = write(patches, window(numbers, height, width, patch), height, width)
    wanted = [
        twin_write(piece, row, height, width)
        for piece, row in zip(patches.tolist(), numbers.tolist(), strict=True)
    ]
    torch.testing.assert_close(
        found, torch.tensor(wanted, dtype=torch.float64), rtol=1e-10, atol=1e-12
    )


@pytest.mark.parametrize("patch", PATCHES)
def test_window_agrees_with_the_paper(patch):
    numbers = some_numbers()
    found = window(numbers, 6, 9, patch)
    for n, row in enumerate(numbers.tolist()):
        assert [field[n].item() for field in found] == pytest.approx(
            twin_window(row, 6, 9, patch), rel=1e-12
        )


def test_bound_agrees_with_loops():
    numbers = torch.cat([some_numbers(4), 1e3 * some_numbers(4)])
    middles, radii = (0, 0, 3, 0, 0), (1.2, 1.2, 2.5, 2, 1)
    for found, row in zip(attention.bound(numbers).tolist(), numbers.tolist(), strict=True):
        wanted = [
            m + r * math.tanh(value / r) for value, m, r in zip(row, middles, radii, strict=True)
        ]
        assert found == pytest.approx(wanted, rel=1e-12)


# --- laws ---


@pytest.mark.parametrize("patch", PATCHES)
def test_filters_are_distributions_over_pixels(patch):
    numbers = torch.cat(
        [some_numbers(), 30 * some_numbers()]
    )  # the second half far outside, very sharp or very blurred
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
    patches = read(
        torch.full((3, 1, 6, 9), 0.25, dtype=torch.float64), window(some_numbers(), 6, 9, 5), 5
    )
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
    torch.testing.assert_close(
        read(moved, there, patch), read(image, here, patch), rtol=1e-9, atol=1e-12
    )


def test_a_transposed_image_reads_transposed():
    images, where = waves(3, 2, 6, 9), window(some_numbers(), 6, 9, 4)
    turned = where._replace(centre_x=where.centre_y, centre_y=where.centre_x)
    torch.testing.assert_close(read(images.mT, turned, 4), read(images, where, 4).mT)


def test_bound_keeps_its_promised_range_and_unit_slope():
    extreme = attention.bound(torch.tensor([[1e30] * 5, [-1e30] * 5], dtype=torch.float64))
    assert extreme[0].tolist() == pytest.approx([1.2, 1.2, 5.5, 2.0, 1.0])
    assert extreme[1].tolist() == pytest.approx([-1.2, -1.2, 0.5, -2.0, -1.0])
    small = torch.full((1, 5), 1e-6, dtype=torch.float64)
    slope = (attention.bound(small) - attention.bound(-small)) / 2e-6
    torch.testing.assert_close(slope, torch.ones_like(slope))


# --- the faults of public code (numbers as in the project's facts sheet) ---


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
    wrong = loop_filters(5.0, variance, 1.0, range(1, 10), range(1, 2), exponent="wrong")[0]
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
    """Fault 9: pixels numbered from 0 with centres numbered from 1 put every window half a pixel
    off.
    """
    where = centred(height, width, patch, log_variance=0.3, log_stride=-0.5)
    core = filterbank(where, height, width, patch)
    torch.testing.assert_close(core.x, core.x.flip(1, 2))
    torch.testing.assert_close(core.y, core.y.flip(1, 2))
    images = waves(1, 2, height, width)
    torch.testing.assert_close(
        read(images.flip(-1), where, patch), read(images, where, patch).flip(-1)
    )
    torch.testing.assert_close(
        read(images.flip(-2), where, patch), read(images, where, patch).flip(-2)
    )

    variance, stride = where.variance.item(), where.stride.item()
    wrong = loop_filters(where.centre_x.item(), variance, stride, range(width), range(1, patch + 1))
    assert (wrong - wrong.flip(0, 1)).abs().max() > 0.05
    assert (core.x[0] - wrong).abs().max() > 0.05


# --- gradients ---


def leaf(values: Tensor) -> Tensor:
    return values.clone().requires_grad_()


def test_gradients_of_window_and_bound():
    assert gradcheck(attention.bound, (leaf(some_numbers()),))
    assert gradcheck(lambda numbers: tuple(window(numbers, 6, 9, 3)), (leaf(some_numbers()),))


@pytest.mark.parametrize("patch", [1, 2, 3])
def test_gradients_of_the_filterbank(patch):
    fields = [leaf(field) for field in window(some_numbers(2), 4, 5, patch)]
    if patch == 1:
        fields[3] = fields[3].detach()  # no effect: its gradient is an exact 0
    assert gradcheck(lambda *fields: tuple(filterbank(Window(*fields), 4, 5, patch)), fields)


@pytest.mark.parametrize("patch", [1, 2, 3])
def test_gradients_of_read_and_write(patch):
    numbers, images, patches = (
        leaf(some_numbers(1)),
        leaf(waves(1, 2, 3, 4)),
        leaf(waves(1, 2, patch, patch)),
    )
    assert gradcheck(
        lambda numbers, images: read(images, window(numbers, 3, 4, patch), patch), (numbers, images)
    )
    assert gradcheck(
        lambda numbers, patches: write(patches, window(numbers, 3, 4, patch), 3, 4),
        (numbers, patches),
    )


# --- hard inputs ---

FARTHEST = torch.finfo(torch.float32).max
EXTREMES = (-FARTHEST, -1e30, -20.0, 0.0, 0.37, 20.0, FARTHEST)


@pytest.mark.parametrize(
    ("height", "width", "patch"), [(5, 4, 1), (5, 4, 2), (4, 5, 3), (100, 100, 12)]
)
@pytest.mark.parametrize("squash", [False, True], ids=["linear", "bounded"])
def test_any_finite_numbers_give_finite_values_and_gradients(height, width, patch, squash):
    values = EXTREMES if height < 10 else EXTREMES[::2]
    numbers = torch.cartesian_prod(
        *[torch.tensor(values)] * 5
    ).requires_grad_()  # every combination
    images, patches = (
        torch.rand(1, 1, height, width, generator=torch.Generator().manual_seed(0)),
        torch.ones(1, 1, patch, patch),
    )
    where = window(attention.bound(numbers) if squash else numbers, height, width, patch)
    seen, drawn = read(images, where, patch), write(patches, where, height, width)
    for found in (*where, seen, drawn):
        assert found.isfinite().all()
    (gradient,) = torch.autograd.grad(seen.sum() + drawn.square().sum(), numbers)
    assert gradient.isfinite().all()


def test_a_grid_far_outside_reads_the_border():
    image = torch.arange(12.0).view(1, 1, 3, 4)
    where = window(torch.tensor([[1e30, -1e30, -1e30, -5.0, 0.0]]), 3, 4, 2)
    assert read(image, where, 2).flatten().tolist() == [3.0] * 4  # the top right pixel


@pytest.mark.parametrize("patch", PATCHES)
def test_bfloat16_is_close_to_float32(patch):
    numbers = some_numbers().bfloat16()
    numbers[:, 2] += (
        2  # filters of some pixels: bfloat16 places a centre to within 1/16 of a pixel here
    )
    images, patches = (
        (waves(3, 2, 28, 20) / 2 + 0.5).bfloat16(),
        (waves(3, 2, patch, patch) / 2 + 0.5).bfloat16(),
    )
    where = window(numbers, 28, 20, patch)
    filters, seen, drawn = (
        filterbank(where, 28, 20, patch),
        read(images, where, patch),
        write(patches, where, 28, 20),
    )
    assert {tensor.dtype for tensor in (*where, *filters, seen, drawn)} == {torch.bfloat16}

    exact = window(numbers.float(), 28, 20, patch)
    wanted = filterbank(exact, 28, 20, patch)
    torch.testing.assert_close(filters.y.float(), wanted.y, rtol=0.05, atol=0.01)
    torch.testing.assert_close(filters.x.float(), wanted.x, rtol=0.05, atol=0.01)
    torch.testing.assert_close(
        seen.float(), read(images.float(), exact, patch), rtol=0.03, atol=0.02
    )
    torch.testing.assert_close(
        drawn.float(), write(patches.float(), exact, 28, 20), rtol=0.05, atol=0.02
    )


def test_half_precision_windows_are_widened_inside():
    """The filters of a bfloat16 window are those of the same numbers in float32, rounded once."""
    where = window_of(12.5, 70.0, 1.5, 7.5)
    narrow, wide = (
        Window(*(field.bfloat16() for field in where)),
        Window(*(field.float() for field in where)),
    )
    for found, wanted in zip(
        filterbank(narrow, 100, 100, 5), filterbank(wide, 100, 100, 5), strict=True
    ):
        assert torch.equal(found, wanted.bfloat16())


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
