"""Files that are there whole or not at all."""

import contextlib
import errno
import hashlib
import json
import math
import os
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from drawbench.errors import Problem

if TYPE_CHECKING:
    import numpy as np


def write_atomically(path: Path, content: bytes) -> None:
    """Replace a file's content in one step; on return it is on the disk.

    Raises:
        Problem: the disk is full, the folder is read-only or gone; the old file is untouched.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(temporary, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError as error:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise Problem(
            f"cannot write {path}: {error.strerror or error}; what was there before is untouched"
        ) from error


def write_json(path: Path, value: Any) -> None:
    """Write JSON that a person can read, atomically."""
    write_atomically(path, (json.dumps(value, indent=2, allow_nan=False) + "\n").encode())


def plain(path: Path) -> Path:
    """The path of a file that can be read to its end: no pipe, which would be waited for, and no
    device, which may have none.

    Raises:
        OSError: it is one of these, or a folder, or is not there.
    """
    path.stat()  # which tells what is not there from what is something else
    if not path.is_file():
        raise OSError(errno.EINVAL, "it is not a plain file", str(path))
    return path


def read_text(path: Path, largest: int = 16 << 20) -> str:
    """A text file that is not to be larger than so many bytes.

    Raises:
        OSError: it cannot be read.
        ValueError: it is larger, or not text.
    """
    if plain(path).stat().st_size > largest:
        raise ValueError(f"it is larger than {largest >> 20} MB, which no such file should be")
    return path.read_text(encoding="utf-8")


def parse_json(text: str) -> Any:
    """What a JSON text says.

    Raises:
        ValueError: it is not JSON, or is nested without end.
    """
    try:
        return json.loads(text)
    except RecursionError as error:
        raise ValueError("it is nested too deep") from error


def printable(value: Any) -> Any:
    """What JSON can hold, with halves of letters (bytes of a file's name that are no text)
    replaced: they cannot be printed.
    """
    return parse_json(json.dumps(value, ensure_ascii=False).encode("utf-8", "replace").decode())


def read_json(path: Path) -> Any:
    """Read a JSON file.

    Raises:
        Problem: it is missing, too large, or not JSON.
    """
    try:
        return parse_json(read_text(path))
    except FileNotFoundError as error:
        raise Problem(f"{path} is missing") from error
    except OSError as error:
        raise Problem(f"{path} cannot be read: {error.strerror or error}") from error
    except ValueError as error:
        raise Problem(f"{path} is not valid JSON: {error}") from error


def read_array(
    archive: zipfile.ZipFile, name: str, check: Callable[["np.dtype", tuple[int, ...]], object]
) -> "np.ndarray":
    """One array of an npz file; memory is taken after its promises were found to agree with the
    file and with ``check``.

    Args:
        check: called with type and shape; raises ValueError where they are not right.

    Raises: ValueError, KeyError and what :mod:`zipfile` and :mod:`zlib` raise: it is not there, or
        damaged, or not right.
    """
    from numpy.lib import format as npy

    entry = archive.getinfo(f"{name}.npy")
    with archive.open(entry) as stream:
        dtype, shape = _array_header(stream)
        size = stream.tell() + dtype.itemsize * math.prod(shape)
    check(dtype, shape)
    # Deflate cannot shrink by more than 1032: a few bytes that promise more are a lie or a trap.
    if entry.file_size != size or entry.file_size > 1_032 * entry.compress_size + 1_024:
        raise ValueError(
            f"{name} claims {entry.file_size:,} bytes in {entry.compress_size:,}, expected {size:,}"
        )
    with archive.open(entry) as stream:
        return npy.read_array(stream, allow_pickle=False)


def _array_header(stream: IO[bytes]) -> tuple["np.dtype", tuple[int, ...]]:
    from numpy.lib import format as npy

    try:
        if npy.read_magic(stream) != (1, 0):
            raise ValueError("it is in another version of numpy's format")
        shape, fortran, dtype = npy.read_array_header_1_0(stream)
    except OSError:
        raise
    # the header is parsed as Python, and a broken one raises nearly anything: TokenError,
    # MemoryError ...
    except Exception as error:
        raise ValueError(f"its header cannot be read: {type(error).__name__}") from error
    if fortran or min(shape, default=0) < 0:
        raise ValueError(f"its header says {'columns first' if fortran else shape}")
    return dtype, shape


def hashed(value: dict[str, Any]) -> dict[str, Any]:
    """The same with ``sha256`` of all its other content, for :func:`read_hashed`."""
    return value | {"sha256": _digest(value)}


def read_hashed(path: Path) -> Any:
    """Read a JSON file and hold it against its ``sha256``, which is left out of what is given;
    anything but a table is given as it is.

    Raises:
        Problem: it is missing, not JSON, or was changed since it was written.
    """
    value = read_json(path)
    if not isinstance(value, dict):
        return value
    if value.pop("sha256", None) != _digest(value):
        raise Problem(
            f"{path} is damaged or was changed by hand: its content does not match its SHA-256; have it written again: "
            f"drawbench resume {path.parent}"
        )
    return value


def _digest(value: dict[str, Any]) -> str:
    return hashlib.sha256(
        json.dumps({**value, "sha256": None}, sort_keys=True).encode()
    ).hexdigest()
