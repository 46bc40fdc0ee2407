"""Files that are there whole or not at all."""

import contextlib
import hashlib
import json
import os
from pathlib import Path
from typing import Any

from drawbench.errors import Problem


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
        raise Problem(f"cannot write {path}: {error.strerror or error}; what was there before is untouched") from error


def write_json(path: Path, value: Any) -> None:
    """Write JSON that a person can read, atomically."""
    write_atomically(path, (json.dumps(value, indent=2, allow_nan=False) + "\n").encode())


def read_json(path: Path, largest: int = 16 << 20) -> Any:
    """Read a JSON file.

    Raises:
        Problem: it is missing, too large, or not JSON.
    """
    try:
        if path.stat().st_size > largest:
            raise Problem(f"{path} is larger than {largest >> 20} MB, which no such file should be")
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise Problem(f"{path} is missing") from error
    except OSError as error:
        raise Problem(f"{path} cannot be read: {error.strerror or error}") from error
    except (ValueError, RecursionError) as error:
        raise Problem(f"{path} is not valid JSON: {error}") from error


def hashed(value: dict[str, Any]) -> dict[str, Any]:
    """The same with ``sha256`` of all its other content, for :func:`read_hashed`."""
    return value | {"sha256": _digest(value)}


def read_hashed(path: Path) -> Any:
    """Read a JSON file and hold it against its ``sha256``, which is left out of what is given; one without, as of old, is taken as it is.

    Raises:
        Problem: it is missing, not JSON, or was changed since it was written.
    """
    value = read_json(path)
    if not isinstance(value, dict) or "sha256" not in value:
        return value
    told = value.pop("sha256")
    if told != _digest(value):
        raise Problem(
            f"{path} is damaged or was changed by hand: its content does not match its SHA-256; have it written again: "
            f"drawbench resume {path.parent}"
        )
    return value


def _digest(value: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps({**value, "sha256": None}, sort_keys=True, allow_nan=False).encode()).hexdigest()
