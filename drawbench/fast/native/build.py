"""The kernels, compiled for this machine once, in a second or two, and kept in the user's cache."""

import ctypes
import functools
import hashlib
import os
import platform
import re
import shlex
import shutil
import subprocess
import tempfile
from importlib import resources
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from drawbench import attention

# As long as the processor's: gcc takes longer ones apart, so with 64 on AVX2 a step of the
# classifier takes three times as long.
VECTOR_BYTES = 64 if torch.backends.cpu.get_cpu_capability().startswith("AVX512") else 32
FLAGS = ["-O3", "-march=native", "-std=gnu11", "-fPIC", "-shared", f"-DBYTES={VECTOR_BYTES}"]
FLAGS += ["-fno-math-errno", "-fno-trapping-math"]
_REALS: dict[torch.dtype, tuple[list[str], type]] = {
    torch.float32: ([], ctypes.c_float),
    torch.float64: (["-DDOUBLE"], ctypes.c_double),
}
_PROTOTYPE = re.compile(r"^(void|int) (\w+)\(([^)]*)\)", re.MULTILINE)


class Kernels:
    """The functions of ``kernels.c`` for one type of reals, by name; counts and addresses are plain
    integers, 0 for none. A call raises MemoryError if there is none left.
    """

    shared = True  #: whether the cores share a batch

    def __init__(self, library: ctypes.CDLL, source: str):
        for returns, name, arguments in _PROTOTYPE.findall(source):
            function = getattr(library, name)
            function.argtypes = [ctypes.c_ssize_t] * (arguments.count(",") + 1)
            function.restype = None if returns == "void" else ctypes.c_int
            if returns == "int":
                function.errcheck = _check
            setattr(self, name, function)

    def __getattr__(self, name: str) -> Any:  # only for names that __init__ did not set
        raise AttributeError(f"kernels.c has no function {name}")


def _check(status: int, function: Any, arguments: tuple) -> None:
    if status:
        raise MemoryError(f"there is no memory for {function.__name__}")


def compiler() -> list[str] | None:
    """Return the command of the C compiler, from ``CC`` or the usual names, or None."""
    named = shlex.split(os.environ.get("CC", ""))
    for command in [named] if named else [["cc"], ["gcc"], ["clang"]]:
        if shutil.which(command[0]):
            return command
    return None


def _machine() -> str:
    """Describe what code for this machine depends on: machines may share a cache."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    about = {line for line in lines if line.startswith(("flags", "Features", "model name"))}
    return "\n".join([platform.system(), platform.machine(), platform.processor(), *sorted(about)])


def _cache() -> Path:
    """Return the folder that keeps compiled kernels. Nobody else may write there, since its content
    is executed.

    Raises:
        OSError: it cannot be written, or others can write there.
    """
    base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    folder = base / "drawbench"
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    about = folder.stat()
    if hasattr(os, "getuid") and (about.st_uid != os.getuid() or about.st_mode & 0o022):
        raise OSError(f"{folder} can be written by others")
    return folder


def _compile(command: list[str], source: str, target: Path) -> None:
    """Compile in a folder beside the target, then move the library there, so that no other process
    ever sees half of it.
    """
    with tempfile.TemporaryDirectory(dir=target.parent) as folder:
        code, library = Path(folder, "kernels.c"), Path(folder, "kernels.so")
        code.write_text(source)
        words = [*command, str(code), "-o", str(library), "-lm"]
        subprocess.run(words, check=True, capture_output=True, timeout=120)
        library.replace(target)


def _load(command: list[str], source: str, folder: Path) -> Kernels:
    """Load the kernels from a folder, compiling them if they are not there."""
    text = "\n".join([*command, source, _machine()])
    target = folder / f"kernels-{hashlib.blake2b(text.encode(), digest_size=12).hexdigest()}.so"
    if not target.is_file():
        _compile(command, source, target)
    return Kernels(ctypes.CDLL(str(target)), source)


class _Built(NamedTuple):
    kernels: Kernels | None
    reason: str | None  # why there are none


@functools.cache
def build(dtype: torch.dtype) -> _Built:
    """Load or compile the kernels for a dtype, once per process."""
    if os.environ.get("DRAWBENCH_NATIVE") == "0":
        return _Built(None, "DRAWBENCH_NATIVE=0 turns them off")
    if dtype not in _REALS:
        return _Built(None, f"there are none for {dtype}")
    if (cc := compiler()) is None:
        return _Built(None, "no C compiler: install gcc or clang, or set CC")
    source = resources.files("drawbench.fast.native").joinpath("kernels.c").read_text()
    command = [*cc, *FLAGS, *_REALS[dtype][0]]
    try:
        try:
            return _Built(_load(command, source, _cache()), None)
        except OSError:  # compile for this process alone
            with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
                return _Built(_load(command, source, Path(folder)), None)
    except subprocess.SubprocessError as error:
        output = getattr(error, "stderr", None) or b""
        lines = output.decode(errors="replace").split("\n")
        return _Built(None, f"the C compiler failed: {' '.join(cc)}: {lines[0] or error}")
    except (OSError, RuntimeError) as error:
        return _Built(None, f"neither the cache nor a temporary folder can hold them: {error}")


def kernels(dtype: torch.dtype = torch.float32) -> Kernels | None:
    """Return the kernels for a dtype (float32 or float64), or None; see :func:`why_no_kernels`."""
    return build(dtype).kernels


def why_no_kernels(dtype: torch.dtype = torch.float32) -> str | None:
    """Return why :func:`kernels` has none: ``DRAWBENCH_NATIVE=0``, no C compiler, a compiler that
    fails, or no folder that can be written. None where it has some.
    """
    return build(dtype).reason


# -------------------------------------------------------------------------------- their arguments


class Map:
    """The structure ``Map`` of ``kernels.c``: what all windows of one map share. A ``clip``
    (:func:`drawbench.attention.clip_gradient`) is that of one image of the batch; 0 for none.
    """

    def __init__(
        self, height: int, width: int, patch: int, bounded: bool, clip: float, dtype: torch.dtype
    ):
        real: Any = _REALS[dtype][1]
        numbers = real * len(attention.PARAMETERS)
        counts = [(name, ctypes.c_ssize_t) for name in ("height", "width", "patch", "bounded")]
        ranges = [(name, numbers) for name in ("middle", "radius", "limit")]
        fields = {"_fields_": [*counts, *ranges, ("clip", real)]}
        structure: Any = type("Map", (ctypes.Structure,), fields)
        centre, scale = attention.CENTRE_LIMIT, attention.LOG_SCALE_LIMIT
        limits = (centre, centre, attention.LOG_VARIANCE_LIMIT, scale, scale)
        values = (attention.SQUASH_MIDDLE, attention.SQUASH_RADIUS, limits)
        three = [numbers(*row) for row in values]
        self.structure = structure(height, width, patch, int(bounded), *three, clip)
        self._as_parameter_ = ctypes.addressof(self.structure)  # what a function of C receives


def padded(length: int, dtype: torch.dtype) -> int:
    """Return the length of a line that is padded to whole vectors."""
    lanes = VECTOR_BYTES // dtype.itemsize
    return -(-length // lanes) * lanes


def room(*shape: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """Allocate a tensor whose lines, the last dimension, are padded to whole vectors."""
    return torch.empty(*shape[:-1], padded(shape[-1], dtype), dtype=dtype, device=device)


def padded_lines(images: Tensor) -> Tensor:
    """Copy (..., W) to a tensor whose lines are padded with zeros."""
    lines = room(*images.shape, dtype=images.dtype, device=images.device).zero_()
    lines[..., : images.shape[-1]] = images
    return lines


def addresses(tensor: Tensor, count: int) -> list[int]:
    """Return where the parts of a tensor along its first dimension begin."""
    step = tensor.stride(0) * tensor.element_size()
    return [tensor.data_ptr() + step * k for k in range(count)]
