"""Random damage, drawn and shrunk by hypothesis."""

import contextlib
import copy
import json
import os
import struct
from pathlib import Path
from typing import Any

from hypothesis import strategies as st

from drawbench.files import hashed

# -------------------------------------------------------------------------------------------- bytes

PLACES = st.one_of(st.integers(0, 80), st.integers(-80, -1), st.integers(0, 1 << 20))
WORDS = [b"\0", b"\xff" * 8, b"\0" * 64, b"A" * 300, b"PK\x03\x04", b"\n", b"7" * 5000, b"[" * 5000]
WORDS += [struct.pack(f"{end}Q", number) for end in "<>" for number in (1, 1 << 20, 1 << 31)]
CONTENT = st.sampled_from(WORDS) | st.binary(min_size=1, max_size=12)
BYTES = st.one_of(
    st.tuples(st.just("cut"), PLACES, st.just(b"")),
    st.tuples(st.sampled_from(["overwrite", "insert"]), PLACES, CONTENT),
    st.tuples(st.just("drop"), PLACES, st.binary(min_size=1, max_size=200)),
)
DAMAGE = st.lists(BYTES, min_size=1, max_size=3)


def damaged(content: bytes, damage: list[tuple[str, int, bytes]]) -> bytes:
    """Return the bytes after cuts, overwritten, inserted and dropped parts; places wrap around."""
    result = bytearray(content)
    for what, at, value in damage:
        at %= len(result) + 1
        end = {"cut": len(result), "insert": at}.get(what, at + len(value))
        result[at:end] = b"" if what in ("cut", "drop") else value
    return bytes(result)


# --------------------------------------------------------------------------------------------- JSON

LONG_NUMBER, DEEP, SURROGATE = "@NUMBER@", "@DEEP@", "@SURROGATE@"  # json.dumps cannot write these
NAMES = ["", "a", "../../x", "/etc/passwd", "<script>alert(1)</script>", "$\\frac{", "%s{0}"]
NAMES += ["no\nline", "nul\0", "\x1b[31m", "ü漢😀", "a" * 300, "mnist", "draw", SURROGATE]
NUMBERS = [0, 1, -1, 2, 255, 2**31, 2**63, 10**30, 0.5, 1e308, -1e308, 5e-324, LONG_NUMBER]
NUMBERS += [float("nan"), float("inf"), float("-inf")]
VALUES = st.one_of(
    st.sampled_from(NUMBERS),
    st.sampled_from(NAMES),
    st.sampled_from([None, True, [], {}, [[]], [1, 2], {"a": {}}, DEEP]),
    st.text(max_size=8),
)
EDITS = st.lists(
    st.tuples(st.sampled_from(["replace", "delete", "rename"]), st.integers(0, 200), VALUES),
    min_size=1,
    max_size=3,
)


def _walk(value: Any, path: tuple = ()) -> list[tuple]:
    """Return the paths to all values inside a nest of tables and lists."""
    parts: Any = ()
    if isinstance(value, dict | list):
        parts = value.items() if isinstance(value, dict) else enumerate(value)
    return [path, *(found for key, part in parts for found in _walk(part, (*path, key)))]


def edited(value: Any, edits: list[tuple[str, int, Any]]) -> Any:
    """Return a copy after values were replaced, deleted or renamed, each found by its number."""
    root = [copy.deepcopy(value)]
    for what, number, new in edits:
        paths = _walk(root)[1:]
        *above, key = paths[number % len(paths)] if paths else (0,)
        holder: Any = root
        for step in above:
            holder = holder[step]
        if what == "rename" and isinstance(holder, dict):
            holder[str(new)] = holder.pop(key)
        elif what == "delete" and holder is not root:
            del holder[key]
        elif holder:
            holder[key] = copy.deepcopy(new)
    return root[0] if root else None


def as_json(value: Any) -> bytes:
    """Return JSON, with what ``json.dumps`` would not write put in for its placeholders."""
    text = json.dumps(value)
    for placeholder, replacement in (
        (f'"{LONG_NUMBER}"', "7" * 5000),
        (f'"{DEEP}"', "[" * 5000 + "]" * 5000),
        (SURROGATE, "\\ud800"),
    ):
        text = text.replace(placeholder, replacement)
    return text.encode()


# ------------------------------------------------------------------------------------------- places

PLACE = st.sampled_from(["missing", "folder", "loop", "pipe", "endless", "sparse"])


def misplace(path: Path, how: str) -> None:
    """Put something that is no sound file where a file should be."""
    content = path.read_bytes()
    path.unlink()
    if how == "folder":
        path.mkdir()
    elif how == "loop":
        path.symlink_to(path)
    elif how == "pipe":
        os.mkfifo(path)
    elif how == "endless":
        path.symlink_to("/dev/zero")
    elif how == "sparse":
        path.write_bytes(content)
        os.truncate(path, 1 << 36)


#: Damage to any file, and to JSON files: ``(how, argument)`` for :func:`spoil`.
ANY = st.tuples(st.just("bytes"), DAMAGE) | st.tuples(st.just("place"), PLACE)
JSON = ANY | st.tuples(st.just("edits"), EDITS)


def spoil(path: Path, damage: tuple[str, Any]) -> None:
    """Damage a file on the disk; edited fields are sealed again, as a stranger would."""
    how, argument = damage
    if how == "place":
        misplace(path, argument)
    elif how == "bytes":
        path.write_bytes(damaged(path.read_bytes(), argument))
    else:
        value = json.loads(path.read_text())
        text = as_json(edited({key: value[key] for key in value if key != "sha256"}, argument))
        with contextlib.suppress(ValueError, RecursionError, TypeError, AttributeError):
            if isinstance(value.get("sha256"), str):
                text = json.dumps(hashed(json.loads(text))).encode()
        path.write_bytes(text)
