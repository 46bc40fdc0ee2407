"""Files that are complete or absent, and reading that a hostile file cannot turn into a trap."""

import contextlib
import errno
import hashlib
import json
import math
import os
import secrets
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from drawbench.errors import Problem

if TYPE_CHECKING:
    import numpy as np

MAX_TEXT_BYTES = 16 << 20


def write_atomically(path: Path, content: bytes) -> None:
    """Replace a file's content in one step; on return it is on the disk.

    A link named ``path`` is replaced, and its target left alone.

    Raises:
        Problem: the disk is full, or the folder is read-only or gone; the old file is unchanged.
    """
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(temporary, "xb") as file:  # x: never through a link that lies in wait
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError as error:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise Problem(
            f"cannot write {path}: {error.strerror or error}; the previous content is unchanged"
        ) from error


def write_json(path: Path, value: Any) -> None:
    """Write indented JSON, atomically."""
    write_atomically(path, (json.dumps(value, indent=2, allow_nan=False) + "\n").encode())


def replace(path: Path, target: Path) -> None:
    """Move a file to ``target``, over what is there.

    Raises:
        Problem: the system does not allow it.
    """
    try:
        os.replace(path, target)
    except OSError as error:
        raise Problem(f"cannot write {target}: {error.strerror or error}") from error


def check_inside(path: Path, folder: Path) -> Path:
    """Return ``path``, which lies in ``folder``, unless a link on the way leads elsewhere.

    The folder itself may be a link, because the user named it; what lies in it may come from a
    stranger, and a link there could lead a write or a removal to any file of the user.

    Raises:
        Problem: ``path``, or a folder between it and ``folder``, is a link.
    """
    step = folder
    for part in path.relative_to(folder).parts:
        step = step / part
        if step.is_symlink():
            raise Problem(
                f"{step} is a link, and drawbench writes nothing through a link out of {folder}; "
                "remove the link, or put a real file or folder in its place"
            )
    return path


def plain(path: Path) -> Path:
    """Return the path of a regular file: a pipe or a device could be read without end.

    Raises:
        OSError: it is missing, or no regular file.
    """
    path.stat()  # raises what tells a missing file from a special one
    if not path.is_file():
        raise OSError(errno.EINVAL, "it is not a plain file", str(path))
    return path


def read_text(path: Path, max_bytes: int = MAX_TEXT_BYTES) -> str:
    """Read a text file, with or without a byte-order mark.

    Raises:
        OSError: it cannot be read.
        ValueError: it is larger than ``max_bytes``, or not UTF-8.
    """
    if plain(path).stat().st_size > max_bytes:
        raise ValueError(f"it is larger than {max_bytes >> 20} MB, too large for such a file")
    return path.read_text(encoding="utf-8-sig")


def parse_json(text: str) -> Any:
    """Parse JSON.

    Raises:
        ValueError: it is not JSON, or nested too deeply.
    """
    try:
        return json.loads(text)
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error


def printable(value: Any) -> Any:
    """Return a JSON value with lone surrogates (from file names that are no text) replaced."""
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
    """Read one array of an npz file, whose header is checked before memory is allocated.

    Args:
        check: called with type and shape; raises ValueError if they are wrong.

    Raises:
        ValueError, KeyError, and what :mod:`zipfile` and :mod:`zlib` raise: the array is missing,
            damaged, or not as ``check`` wants it.
    """
    from numpy.lib import format as npy

    entry = archive.getinfo(f"{name}.npy")
    with archive.open(entry) as stream:
        try:
            if npy.read_magic(stream) != (1, 0):
                raise ValueError("it is in another version of numpy's format")
            shape, fortran, dtype = npy.read_array_header_1_0(stream)
        except OSError:
            raise
        except Exception as error:  # it is parsed as Python: TokenError, MemoryError, anything
            raise ValueError(f"its header cannot be read: {type(error).__name__}") from error
        size = stream.tell() + dtype.itemsize * math.prod(shape)
    if fortran or min(shape, default=0) < 0:
        raise ValueError(f"its header says {'columns first' if fortran else shape}")
    check(dtype, shape)
    # Deflate compresses by at most 1032: an entry that claims more is damaged or a bomb.
    if entry.file_size != size or entry.file_size > 1_032 * entry.compress_size + 1_024:
        raise ValueError(
            f"{name} claims {entry.file_size:,} bytes in {entry.compress_size:,}, expected {size:,}"
        )
    with archive.open(entry) as stream:
        return npy.read_array(stream, allow_pickle=False)


def hashed(value: dict[str, Any]) -> dict[str, Any]:
    """Return the fields with ``sha256``, the hash of all others, for :func:`read_hashed`."""
    return value | {"sha256": _digest(value)}


def read_hashed(path: Path) -> Any:
    """Read a JSON file and check its ``sha256``, which is left out of the returned fields.

    Anything but a table of fields is returned unchecked.

    Raises:
        Problem: it is missing, not JSON, or was changed since it was written.
    """
    value = read_json(path)
    if not isinstance(value, dict):
        return value
    if value.pop("sha256", None) != _digest(value):
        resumable = (path.parent / "last.safetensors").exists()
        regenerate = f"regenerate it with: drawbench resume {path.parent}"
        raise Problem(
            f"{path} is damaged or was edited: its content does not match its SHA-256; "
            + (regenerate if resumable else "take it from the original of this copy again")
        )
    return value


def _digest(value: dict[str, Any]) -> str:
    text = json.dumps({**value, "sha256": None}, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def version_of(package: str) -> str:
    """Return the version of an installed package; of one that is not, these words."""
    import importlib.metadata

    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:  # such as ours, run from a checkout in place
        return "not installed"
