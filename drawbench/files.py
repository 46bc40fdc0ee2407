"""Files that are there whole or not at all."""

import contextlib
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
