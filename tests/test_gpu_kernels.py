"""The kernels of a GPU (Triton) against those of the CPU, in Triton's interpreter; and that they
compile for a GPU, which takes none.
"""

import importlib.util
import os
import subprocess
import sys
from types import SimpleNamespace

import pytest
import torch

from drawbench import fast
from drawbench.fast import native
from drawbench.models.draw import Draw
from drawbench.models.glimpse import GlimpseClassifier

needs_triton = pytest.mark.skipif(
    importlib.util.find_spec("triton") is None, reason="there is no Triton"
)

# One recurrence, computed with either's kernels. Triton asks for its interpreter when the kernels
# are defined, so this is a process of its own.
COMPARE = """
import sys
import torch
from drawbench import streams
from drawbench.fast import native
from drawbench.fast.draw import fast_drawing
from drawbench.fast.native.gpu import GpuKernels
from drawbench.models.draw import Draw

SIZES = dict(height=10, width=9, steps=2, hidden=20, latent=7, read_patch=2, write_patch=5)
CASES = [
    {},
    {"read_patch": None, "write_patch": None},
    {"window_map": "bounded", "window_clip": 0.01, "channels": 3, "height": 17},
    {"window_clip": 0.02, "write_patch": 1},
]
for case in CASES:
    for real, product in ((torch.float64, torch.float64), (torch.float32, torch.bfloat16)):
        if product == torch.bfloat16 and case:
            continue
        with streams.seeded(0, "gpu kernels"):
            model = Draw(**SIZES | case).to(real)
            for parameter in model.parameters():
                parameter.data += 0.1 * torch.randn_like(parameter)
            images = torch.rand(3, *model.size, dtype=real)
            noise = torch.randn(3, 2, 7, dtype=real)
        results = []
        for kernels in (native.kernels(real), GpuKernels(real, torch.device("cpu"))):
            model.zero_grad()
            drawing = fast_drawing(model, kernels, product, images, noise)
            loss = drawing.terms(images).bound.mean()
            loss.backward()
            results.append([loss.detach(), *(p.grad.clone() for p in model.parameters())])
        far = max(float((a - b).norm() / (b.norm() + 1e-9)) for a, b in zip(*results))
        limit = 1e-10 if product == torch.float64 else 0.02
        assert far < limit, (case, real, product, far)
        print("equal")
"""


@pytest.mark.processes
@needs_triton
@pytest.mark.skipif(native.kernels() is None, reason="no kernels to compare with")
def test_the_kernels_of_a_gpu_equal_those_of_the_cpu():
    """With windows and without, bounded, clipped, in colour, rounded, of one filter."""
    environment = {**os.environ, "TRITON_INTERPRET": "1", "CUDA_VISIBLE_DEVICES": ""}
    command = [sys.executable, "-W", "ignore", "-c", COMPARE]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=300)
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.split() == ["equal"] * 5


@needs_triton
@pytest.mark.slow
@pytest.mark.parametrize("name", ["read_backward", "write_forward", "lstm_backward"])
def test_they_compile_for_a_gpu(name):
    """What the interpreter lets pass and the compiler does not, such as a change of type."""
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    from drawbench.fast.native import triton_kernels

    constants = {"N": 5, "BOUNDED": True, "REAL": triton.language.float32, "SIZE": 256}
    constants |= {"TYPE": triton.language.bfloat16, "HAS_FULL": True, "SOURCES": 3}
    constants |= {"TALL": 16, "HIGH": 32, "WIDE": 32}
    kernel = getattr(triton_kernels, name)
    kinds, given = {}, {}
    for place, parameter in enumerate(kernel.params):
        known = constants.get(parameter.name)
        kinds[parameter.name] = "i64" if known is None else "constexpr"
        if parameter.name == "clip":
            kinds["clip"] = "fp32"
        if known is not None:
            given[(place,)] = known
    made = triton.compile(ASTSource(kernel, kinds, given), target=GPUTarget("cuda", 90, 32))
    assert made.asm["cubin"]


def test_a_gpu_computes_draw_by_hand_and_nothing_else(monkeypatch):
    """A model on a device that is not there: only its type, size and pixels decide."""
    monkeypatch.setattr(fast, "gpu_kernels", lambda dtype, device: (dtype, device))
    there = SimpleNamespace(dtype=torch.float32, device=torch.device("cuda"))
    small = {"steps": 2, "hidden": 4, "latent": 2}
    assert fast._kernels_for(Draw(28, 28, **small), there) == (torch.float32, there.device)
    assert fast._kernels_for(Draw(28, 100, **small), there) is None
    assert fast._kernels_for(Draw(28, 28, likelihood="logistic", **small), there) is None
    assert fast._kernels_for(GlimpseClassifier(glimpses=2), there) is None


def test_without_a_compiler_or_in_double_precision_a_gpu_has_no_kernels(monkeypatch):
    device = torch.device("cuda")
    native.gpu_kernels.cache_clear()
    assert native.gpu_kernels(torch.float64, device) is None
    monkeypatch.setattr(native, "compiler", lambda: None)
    assert native.gpu_kernels(torch.float32, device) is None
    native.gpu_kernels.cache_clear()
