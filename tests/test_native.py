"""The kernels: that they are built, kept and dispensable; the functions that the models' tests do
not reach; shares of a batch.
"""

import math
import os
import platform
import subprocess
import sys
import textwrap
import threading
from functools import partial

import pytest
import torch
from torch import Tensor

from drawbench import streams
from drawbench.fast import native
from drawbench.fast.native import build, shards

needs_kernels = pytest.mark.skipif(
    native.kernels() is None, reason=f"no kernels: {native.why_no_kernels()}"
)


@pytest.mark.skipif(
    build.compiler() is None and not os.environ.get("CI"), reason="there is no C compiler"
)
def test_there_are_kernels_where_there_is_a_compiler():
    """Without them the tests of the fast path would be skipped and nobody would notice."""
    for dtype in (torch.float32, torch.float64):
        assert native.kernels(dtype) is not None, native.why_no_kernels(dtype)
        assert native.why_no_kernels(dtype) is None


@pytest.fixture
def fresh(monkeypatch, tmp_path):
    """Forget loaded kernels and use an empty cache."""
    build.build.cache_clear()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    yield tmp_path / "drawbench"
    build.build.cache_clear()


@needs_kernels
def test_they_are_compiled_once_and_kept(fresh, monkeypatch):
    assert native.kernels() is not None
    (library,) = fresh.iterdir()
    build.build.cache_clear()
    monkeypatch.setattr(build, "_compile", lambda *_: pytest.fail("compiled again"))
    assert native.kernels() is not None
    assert list(fresh.iterdir()) == [library]
    assert (fresh.stat().st_mode & 0o077) == 0


@pytest.mark.parametrize(
    "variable, value, reason",
    [
        ("CC", "no-such-compiler", "no C compiler"),
        ("CC", "false", "the C compiler failed: false"),  # is there, and fails
        ("DRAWBENCH_NATIVE", "0", "DRAWBENCH_NATIVE=0"),
    ],
)
def test_why_there_are_none_is_said(fresh, monkeypatch, variable, value, reason):
    monkeypatch.setenv(variable, value)
    assert native.kernels() is None
    assert reason in native.why_no_kernels()


@needs_kernels
@pytest.mark.parametrize("obstacle", ["file", "open to others"])
def test_without_a_cache_they_are_compiled_for_this_process_alone(
    fresh, monkeypatch, tmp_path, obstacle
):
    """Nothing is kept in, or run from, a folder that others can write to."""
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    monkeypatch.setattr(build.tempfile, "tempdir", str(temporary))
    if obstacle == "file":
        fresh.write_text("in the way")
    else:
        fresh.mkdir()
        fresh.chmod(0o777)
    assert native.kernels() is not None and native.why_no_kernels() is None
    assert not list(temporary.iterdir())
    assert fresh.is_file() or not list(fresh.iterdir())

    build.build.cache_clear()
    monkeypatch.setattr(build.tempfile, "tempdir", str(temporary / "missing"))
    assert native.kernels() is None
    assert str(temporary / "missing") in native.why_no_kernels()


def step(kernels, sums: Tensor, cell: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return gates, cell and state after one step of an LSTM."""
    gates, (after, squashed, hidden) = torch.empty_like(sums), cell.new_empty(3, *cell.shape)
    at = [tensor.data_ptr() for tensor in (sums, gates, cell, after, squashed, hidden)]
    kernels.lstm_forward(*cell.shape, 0, at[0], 0, *at[1:], cell.shape[1], 0, 0)
    return gates, after, hidden


@needs_kernels
@pytest.mark.parametrize("dtype, tolerance", [(torch.float32, 1e-5), (torch.float64, 1e-13)])
def test_gates_against_a_cell_of_torch(dtype, tolerance):
    """One step over the whole range of inputs, also where units do not fill a vector."""
    kernels, draw = native.kernels(dtype), streams.stream(0, "gates")
    for batch, units in ((1, 1), (3, 16), (5, 37)):
        sums = torch.randn(batch, 4 * units, dtype=dtype, generator=draw) * 30
        cell = torch.randn(batch, units, dtype=dtype, generator=draw)
        enter, keep, candidate, leave = sums.chunk(4, 1)
        truth = keep.sigmoid() * cell + enter.sigmoid() * candidate.tanh()
        _, after, hidden = step(kernels, sums, cell)
        close = partial(torch.testing.assert_close, rtol=tolerance, atol=tolerance)
        close(after, truth)
        close(hidden, leave.sigmoid() * truth.tanh())


@needs_kernels
def test_bfloat16_is_rounded_to_the_nearest_as_torch_does():
    kernels, draw = native.kernels(), streams.stream(0, "rounding")
    ties = torch.tensor([[1 + 2**-8, 1 + 3 * 2**-8, 0.0, -0.0]])
    values = torch.cat([torch.randn(1, 1000, generator=draw), ties], 1)
    packed = torch.empty(values.shape, dtype=torch.bfloat16)
    lines = build.padded_lines(values)
    kernels.canvas_pack(1, 1, values.shape[1], lines.data_ptr(), 1, packed.data_ptr())
    assert torch.equal(packed, values.bfloat16())  # ties to even among them
    back = build.padded_lines(torch.zeros_like(values))
    kernels.canvas_add(1, 1, values.shape[1], packed.data_ptr(), 1, back.data_ptr())
    assert torch.equal(back[:, : values.shape[1]], packed.float())


@needs_kernels
def test_not_a_number_stays_one():
    """A kernel that swallowed it would hide a broken training."""
    after = step(native.kernels(), torch.full((1, 4), math.nan), torch.zeros(1, 1))
    assert all(tensor.isnan().all() for tensor in after)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another C library")
def test_freed_memory_is_kept():
    """In a process of its own: what other tests allocate decides where a block comes from."""
    code = """
        import resource
        from drawbench.fast import native

        def page_faults():
            before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
            for _ in range(3):
                blocks = [b"x" * (20 << 20), b"x" * (40 << 20)]
                blocks.clear()
            return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

        native.keep_freed_memory()
        page_faults()
        print(page_faults())
    """
    command = [sys.executable, "-c", textwrap.dedent(code)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert int(done.stdout) < 1000  # of 46,080 pages; without the call 30,723


def test_shares_are_nearly_equal_and_not_too_small():
    assert shards.shares(100, 2) == [slice(0, 50), slice(50, 100)]
    assert shards.shares(100, 3) == [slice(0, 33), slice(33, 66), slice(66, 100)]
    assert shards.shares(10, 4) == [slice(0, 10)]
    assert shards.shares(1, 1) == [slice(0, 1)]


def test_jobs_run_at_the_same_time_and_keep_their_order():
    meeting, threads = threading.Barrier(3, timeout=30), torch.get_num_threads()
    weight = torch.ones(2, requires_grad=True)

    def job(number):
        meeting.wait()  # nobody passes alone
        return number, torch.get_num_threads(), (weight * number).requires_grad

    with torch.no_grad():
        answers = shards.in_parallel([partial(job, number) for number in range(3)])
    assert answers == [(n, 1, False) for n in range(3)]
    assert torch.get_num_threads() == threads
    with pytest.raises(ZeroDivisionError):
        shards.in_parallel([lambda: 1, lambda: 1 // 0])
    assert torch.get_num_threads() == threads
