"""All randomness, named.

Nothing in drawbench uses a global generator. A random number is a pure function of a seed, a name
and, where many are needed at once, an index, never of what ran before. So resuming is exact, and
neither the number of processes nor the evaluation batch size changes a result.

There are two kinds:

* :func:`stream` returns an ordinary ``torch.Generator`` for things drawn once (initial weights, the
  order of an epoch);
* :func:`integers` and :func:`normals` return counter-based numbers for each index of a tensor: row
  ``n`` is the same alone, in a batch of 128, on a GPU and in another process.
"""

import contextlib
import hashlib
from collections.abc import Iterator

import torch
from torch import Tensor

_MASK_64 = (1 << 64) - 1
_GOLDEN = 0x9E3779B97F4A7C15


def _signed(word: int) -> int:
    """Reinterpret 64 bits as a signed integer, which is what torch's int64 holds."""
    word &= _MASK_64
    return word - (1 << 64) if word >> 63 else word


def key(seed: int, *name: str | int) -> int:
    """Return a 64-bit key for ``(seed, *name)``; different names have unrelated keys.

    >>> key(0, "order", 3) == key(0, "order", 3)
    True
    >>> key(0, "order", 3) == key(0, "order", 4)
    False
    """
    words = repr((int(seed), *name)).encode()
    return int.from_bytes(hashlib.blake2b(words, digest_size=8).digest(), "little")


def stream(seed: int, *name: str | int) -> torch.Generator:
    """Return a CPU generator whose numbers depend on ``(seed, *name)`` only."""
    return torch.Generator().manual_seed(_signed(key(seed, *name)))


def permutation(n: int, seed: int, *name: str | int) -> Tensor:
    """Return a random order of ``0..n-1``, int64 (n,).

    It sorts the numbers by 64 random bits each. ``torch.randperm`` does not promise the same order
    in the next version of torch, but generated data sets promise the same bytes.
    """
    counter = torch.arange(1, n + 1) * _signed(_GOLDEN)
    return torch.argsort(_mix(_mix(counter + _signed(key(seed, *name)))), stable=True)


def _shift_right(x: Tensor, by: int) -> Tensor:
    """Shift logically; torch's own ``>>`` on int64 copies the sign bit."""
    return (x >> by) & ((1 << (64 - by)) - 1)


def _mix(x: Tensor) -> Tensor:
    """Apply the finaliser of SplitMix64 (Steele, Lea & Flood 2014) in wrapping int64 arithmetic,
    which is the same on every device.
    """
    x = (x ^ _shift_right(x, 30)) * _signed(0xBF58476D1CE4E5B9)
    x = (x ^ _shift_right(x, 27)) * _signed(0x94D049BB133111EB)
    return x ^ _shift_right(x, 31)


def integers(index: Tensor, highs: list[int], seed: int, *name: str | int) -> Tensor:
    """Return independent uniform integers for every index.

    Args:
        index: int64 (n,), which rows; any order, repeats allowed.
        highs: upper limits (exclusive), one for each column.
        seed, name: which family of numbers.

    Returns:
        int64 (n, len(highs)), column ``j`` uniform on ``0 .. highs[j] - 1``. Row ``n`` depends on
        ``index[n]`` alone. The rounding bias is below ``high / 2**32``.

    Raises:
        ValueError: an upper limit below 1 or above 2**31.
    """
    for high in highs:
        if not 1 <= high <= 1 << 31:
            raise ValueError(f"an upper limit for random integers must be in 1..2**31, got {high}")
    columns = torch.arange(len(highs), device=index.device)
    # One mix for the row, one for the column: no two (row, column) pairs share a counter, whatever
    # the number of columns.
    rows = _mix((index + 1) * _signed(_GOLDEN) + _signed(key(seed, *name)))
    words = _mix(rows[:, None] + (columns + 1) * _signed(_GOLDEN))
    limits = torch.tensor(highs, dtype=torch.int64).to(index.device, non_blocking=True)
    return (_shift_right(words, 32) * limits) >> 32


def exact_device(device: torch.device) -> torch.device:
    """Return where to compute in float64 for a device: the CPU for ``mps``, which has none."""
    return torch.device("cpu") if device.type == "mps" else device


def fingerprint(images: Tensor) -> Tensor:
    """Hash the content of each image, so that random numbers can be a function of it: int64 (B,).

    The sum over pixels of their 8-bit values, each times its own random 64 bits. Different images
    have different hashes but for about one pair in 2^63; a hash says nothing about what its image
    shows.

    Args:
        images: (B, ...) in [0, 1], made from 8-bit values.
    """
    values = (images.detach().float() * 255).round().long().flatten(1)
    counter = torch.arange(1, values.shape[1] + 1, device=images.device)
    return (values * _mix(counter * _signed(_GOLDEN))).sum(dim=1)


@contextlib.contextmanager
def seeded(seed: int, *name: str | int) -> Iterator[None]:
    """Seed torch's global generator inside a ``with`` block, and restore it afterwards.

    For building modules: torch draws initial weights from the global generator.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(_signed(key(seed, *name)))
        yield


def normals(index: Tensor, count: int, seed: int, *name: str | int) -> Tensor:
    """Return independent standard normal numbers for every index: a generator's noise, by image.

    Box & Muller 1958 on counter-based uniforms of 53 bits: ``sqrt(-2 ln u) cos(2 pi v)`` and
    ``sqrt(-2 ln u) sin(2 pi v)`` with ``u`` in (0, 1] and ``v`` in [0, 1). No value is infinite;
    the largest possible is 8.57.

    Args:
        index: int64 (n,), which rows; any order, repeats allowed.
        count: numbers in a row. A shorter row is not the beginning of a longer one.
        seed, name: which family of numbers. Where an image needs several samples, put the sample's
            number into the name.

    Returns:
        float64 (n, count). Row ``n`` depends on ``index[n]`` alone (and the last bits on the
        device's logarithm and cosine).

    Raises:
        ValueError: a count below 1.
    """
    if count < 1:
        raise ValueError(f"a row of random numbers needs at least 1, got {count}")
    pairs = (count + 1) // 2
    columns = torch.arange(2 * pairs, device=index.device)
    rows = _mix((index + 1) * _signed(_GOLDEN) + _signed(key(seed, *name)))
    # Each half is mixed as a contiguous tensor: for strided ones torch may take another path, with
    # other last bits.
    for_radius, for_angle = (
        _shift_right(_mix(rows[:, None] + (half + 1) * _signed(_GOLDEN)), 11)
        for half in columns.split(pairs)
    )
    radius = torch.sqrt(-2 * torch.log((for_radius + 1).double() * 2.0**-53))
    angle = for_angle.double() * (2 * torch.pi * 2.0**-53)
    return torch.cat([radius * torch.cos(angle), radius * torch.sin(angle)], dim=1)[:, :count]
