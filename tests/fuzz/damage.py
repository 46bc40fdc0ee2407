"""Damage as plain data: what Hypothesis draws, prints and makes smaller."""

import copy
import json
import random
import struct
from typing import Any, NamedTuple

from hypothesis import strategies as st

# -------------------------------------------------------------------------------------------- bytes


class Bytes(NamedTuple):
    """One thing done to bytes; ``at`` counts from the start, or from the end where negative."""

    what: str
    at: int
    value: bytes | int


PLACES = st.one_of(st.integers(0, 80), st.integers(-80, -1), st.integers(0, 1 << 20))
WORDS = [
    b"",
    b"\x00",
    b"\xff" * 4,
    b"\xff" * 8,
    b"\x7f\xff\xff\xff",
    b"\x00\x00\x00\x80",
    b"\x00" * 64,
    b"A" * 300,
    b"PK\x03\x04",
    b"\n",
]
WORDS += [
    struct.pack(order + form, number)
    for order in "<>"
    for form in "IQ"
    for number in (1, 255, 1 << 20, 1 << 31)
]
BYTES = st.one_of(
    st.builds(Bytes, st.just("cut"), PLACES, st.just(0)),
    st.builds(Bytes, st.just("flip"), PLACES, st.integers(0, 7)),
    st.builds(
        Bytes,
        st.sampled_from(["put", "insert"]),
        PLACES,
        st.sampled_from(WORDS) | st.binary(min_size=1, max_size=12),
    ),
    st.builds(Bytes, st.just("drop"), PLACES, st.integers(1, 200)),
    st.builds(Bytes, st.just("repeat"), PLACES, st.integers(1, 200)),
    st.builds(
        Bytes,
        st.just("append"),
        st.just(0),
        st.sampled_from(WORDS) | st.binary(min_size=1, max_size=40),
    ),
)
DAMAGES = st.lists(BYTES, min_size=1, max_size=4)


def hurt(content: bytes, damages: list[Bytes]) -> bytes:
    """The bytes after all that was done to them."""
    made = bytearray(content)
    for what, at, value in damages:
        at = at % (len(made) + 1)
        if what == "cut":
            del made[at:]
        elif what == "flip" and at < len(made):
            made[at] ^= 1 << value
        elif what == "put":
            made[at : at + len(value)] = value
        elif what == "insert":
            made[at:at] = value
        elif what == "drop":
            del made[at : at + value]
        elif what == "repeat":
            made[at:at] = made[at : at + value] * 3
        elif what == "append":
            made += value
    return bytes(made)


# --------------------------------------------------------------------------------------------- JSON


class Node(NamedTuple):
    """One thing done to a value inside a nest of tables and lists; ``where`` counts the values,
    depth first.
    """

    what: str
    where: int
    value: Any


HUGE, DEEP, SURROGATE = (
    "@HUGE@",
    "@DEEP@",
    "@SURROGATE@",
)  # stand for what Python's own json would not write
NAMES = [
    "",
    "a",
    "model",
    "task",
    "step",
    "../../x",
    "/etc/passwd",
    "<script>alert(1)</script>",
    "$\\frac{",
    "$x$_",
    "%s{0}",
    "no\nline",
]
NAMES += [
    "nul\x00",
    "\x1b[31m",
    "ü漢😀",
    "a" * 300,
    "CON",
    "auto",
    "mnist",
    "draw",
    "__class__",
    SURROGATE,
]
NUMBERS = [
    0,
    1,
    -1,
    2,
    3,
    255,
    2**31,
    2**63,
    -(2**63) - 1,
    10**18,
    10**30,
    10**400,
    0.5,
    -0.0,
    1e308,
    -1e308,
    5e-324,
]
NUMBERS += [float("nan"), float("inf"), float("-inf"), HUGE]
VALUES = st.one_of(
    st.sampled_from(NUMBERS),
    st.sampled_from(NAMES),
    st.sampled_from([None, True, False, [], {}, [[]], [1, 2], {"a": {}}, [None], DEEP]),
    st.integers(-1000, 1000),
    st.floats(),
    st.text(max_size=8),
)
NODE = st.one_of(
    st.builds(
        Node, st.sampled_from(["replace", "replace", "wrap", "add"]), st.integers(0, 200), VALUES
    ),
    st.builds(Node, st.sampled_from(["delete", "twice"]), st.integers(0, 200), st.none()),
    st.builds(Node, st.just("rename"), st.integers(0, 200), st.sampled_from(NAMES)),
)
NODES = st.lists(NODE, min_size=1, max_size=3)


def walk(value: Any, path: tuple = ()) -> list[tuple]:
    """The paths to all values inside one, itself first."""
    inside = (
        value.items()
        if isinstance(value, dict)
        else enumerate(value)
        if isinstance(value, list)
        else ()
    )
    return [path, *(one for name, part in inside for one in walk(part, (*path, name)))]


def altered(value: Any, nodes: list[Node]) -> Any:
    """A copy of a nest of tables and lists after all that was done to it."""
    root = [copy.deepcopy(value)]
    for what, where, new in nodes:
        new = copy.deepcopy(new)  # the next thing done may be done inside it
        paths = walk(root[0])
        path = paths[where % len(paths)]
        holder: Any = root
        for name in (0, *path)[:-1]:
            holder = holder[name]
        name = (0, *path)[-1]
        if what == "replace":
            holder[name] = new
        elif what == "wrap":
            holder[name] = [holder[name]]
        elif what == "add" and isinstance(holder[name], dict):
            holder[name]["extra"] = new
        elif what == "add" and isinstance(holder[name], list):
            holder[name].append(new)
        elif what == "twice" and isinstance(holder, list):
            holder.append(copy.deepcopy(holder[name]))
        elif what == "delete" and path:
            del holder[name]
        elif what == "rename" and isinstance(holder, dict):
            holder[new] = holder.pop(name)
    return root[0]


def as_json(value: Any) -> bytes:
    """As JSON, with numbers of too many digits, nests too deep and halves of letters where they are
    named.
    """
    text = (
        json.dumps(value)
        .replace(SURROGATE, "\\ud800")
        .replace(f'"{HUGE}"', "7" * 5000)
        .replace(HUGE, "7" * 5000)
    )
    return text.replace(f'"{DEEP}"', "[" * 5000 + "]" * 5000).replace(DEEP, "[").encode()


# ------------------------------------------------------------------------------------------ pickles


class Payload:
    """Pickled, it asks whoever opens it to make a folder."""

    def __init__(self, marker: str):
        self.marker = marker

    def __reduce__(self):
        import os

        return os.mkdir, (self.marker,)


def noise(seed: int, size: int) -> bytes:
    """Bytes that do not compress."""
    return random.Random(seed).randbytes(size)
