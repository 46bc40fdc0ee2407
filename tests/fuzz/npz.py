"""Generated data sets: their npz files, and the card that says what must be in them."""

import hashlib
import io
import json
import pickle
import zipfile
from pathlib import Path
from typing import NamedTuple

import numpy as np
from hypothesis import strategies as st
from numpy.lib import format as npy

from drawbench.data import sources, store
from drawbench.data.scenes import Scene

from .damage import DAMAGES, NODES, Payload, altered, as_json, hurt
from .engine import MARKER, Kind
from .idx import put_badly

SCENE, COUNTS = Scene(canvas=30, clutter=1), {"train": 3, "validation": 2, "test": 4}
ARRAYS = ("images", "labels", "boxes")


class Case(NamedTuple):
    """``signed``: the card's SHA-256 is that of the damaged file, as a stranger who makes both
    would have it.
    """

    how: str
    array: str
    with_what: object
    signed: bool


DTYPES = [
    "<i2",
    ">i2",
    "|u1",
    "<f4",
    "<f8",
    "<c16",
    "|O",
    "|S3",
    "<U2",
    "<M8[s]",
    "|V4",
    "|b1",
    "<i8",
]
SHAPES = [
    (),
    (0,),
    (4,),
    (1 << 40,),
    (1 << 62, 4),
    (4, 30, 30),
    (4, 1, 4),
    (-1, 4),
    (1 << 31, 1 << 31),
]
HEADERS = [
    "",
    "{",
    "{}",
    "(" * 3000,
    "-" * 9000,
    "'" * 30,
    "{'descr': '|u1', 'fortran_order': False, 'shape': (4,)",
    "{'a': 1L, (",
    "\\",
    "{'descr': '|O', 'fortran_order': False, 'shape': (4,), }",
    "{'descr': [('a', '|u1')]*3, 'fortran_order': 0, 'shape': (4,), }",
    "{'descr': '|u1', 'fortran_order': False, 'shape': (True, '4'), }",
    "{'descr': 7, 'fortran_order': False, 'shape': (4,), }",
    "{'descr': ('|u1', (1 << 40,)), 'fortran_order': False, 'shape': (4,), }",
    "__import__('os').mkdir('../executed')",
    "1 if",
    "\x00",
    "{'descr': [('', '|u1')], 'fortran_order': False, 'shape': (4,), }",
    "{'descr': '|u1', 'fortran_order': False, 'shape': 4, }",
    "{[]: 1}",
    "{'descr': ('|u1', -1), 'fortran_order': False, 'shape': (4,), }",
    "  {\n 1:\n\t2}",
]
MEMBERS = [
    "../../../x",
    "/tmp/drawbench-escaped",
    "images.npy",
    "a/../../images.npy",
    "\\\\x\\y",
    "con.npy",
    "n" * 500,
]
NAME = st.sampled_from(ARRAYS)
CASES = st.one_of(
    st.builds(Case, st.just("bytes"), NAME, DAMAGES, st.booleans()),
    st.builds(Case, st.just("inside"), NAME, DAMAGES, st.just(True)),
    st.builds(Case, st.just("cast"), NAME, st.sampled_from(DTYPES), st.just(True)),
    st.builds(
        Case,
        st.just("promise"),
        NAME,
        st.tuples(st.sampled_from(DTYPES), st.sampled_from(SHAPES)),
        st.just(True),
    ),
    st.builds(
        Case,
        st.just("header"),
        NAME,
        st.sampled_from(HEADERS) | st.text(max_size=30),
        st.just(True),
    ),
    st.builds(
        Case,
        st.sampled_from(
            ["pickle", "missing", "twice", "bomb", "encrypted", "method", "lie", "worst"]
        ),
        NAME,
        st.none(),
        st.just(True),
    ),
    st.builds(Case, st.just("member"), NAME, st.sampled_from(MEMBERS), st.just(True)),
    st.builds(Case, st.just("card"), NAME, NODES, st.booleans()),
    st.builds(Case, st.just("card bytes"), NAME, DAMAGES, st.booleans()),
    st.builds(
        Case,
        st.sampled_from(["place", "card place"]),
        NAME,
        st.sampled_from(["missing", "folder", "loop", "pipe", "endless", "sparse"]),
        st.booleans(),
    ),
)


def prepare(kept: Path, patch) -> tuple[dict[str, bytes], dict, sources.Source]:
    source = sources.load("digits", Path())
    store.write(kept / "set", SCENE, source, "cluttered", 0, COUNTS)
    files = {path.name: path.read_bytes() for path in (kept / "set").iterdir()}
    return files, json.loads(files[store.CARD]), source


def array_bytes(array: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    npy.write_array(
        buffer, array, version=(1, 0), allow_pickle=True
    )  # it writes the trap; nothing is read with it
    return buffer.getvalue()


def headed(header: str, body: bytes = b"\x00" * 4, magic: bytes = b"\x93NUMPY\x01\x00") -> bytes:
    """An array's bytes with any header."""
    text = header.encode("utf-8", "replace")[:60_000]
    return magic + len(text).to_bytes(2, "little") + text + body


def packed(members: list[tuple[str, bytes]], method: int = zipfile.ZIP_DEFLATED) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", method) as archive:
        for name, content in members:
            archive.writestr(name, content)
    return buffer.getvalue()


def rewritten(content: bytes, case: Case) -> bytes:
    """An npz file with one of its arrays changed in a way that a damaged disk does not, but a
    person might.
    """
    with np.load(io.BytesIO(content)) as found:
        arrays = {name: found[name] for name in found.files}
    name, how, what = case.array, case.how, case.with_what
    parts = {f"{key}.npy": array_bytes(array) for key, array in arrays.items()}
    own = f"{name}.npy"
    if how == "inside":
        parts[own] = hurt(parts[own], what)  # type: ignore[arg-type]
    elif how == "cast":
        with np.errstate(all="ignore"):
            parts[own] = array_bytes(arrays[name].astype(str(what)))
    elif how == "promise":
        dtype, shape = what  # type: ignore[misc]
        parts[own] = headed(
            f"{{'descr': '{dtype}', 'fortran_order': False, 'shape': {shape}, }}\n", b"\x00" * 100
        )
    elif how == "header":
        parts[own] = headed(str(what))
    elif how == "pickle":
        payload = np.empty(len(arrays[name]), object)
        payload[:] = [Payload(f"../{MARKER}")] * len(payload)
        parts[own] = headed(
            f"{{'descr': '|O', 'fortran_order': False, 'shape': {payload.shape}, }}\n",
            pickle.dumps(payload),
        )
    elif how == "missing":
        del parts[own]
    elif how == "worst":
        parts[own] = array_bytes(np.full_like(arrays[name], np.iinfo(arrays[name].dtype).max))
    elif how == "bomb":
        array = arrays[name]
        parts[own] = headed(
            f"{{'descr': '{array.dtype.str}', 'fortran_order': False, 'shape': {(1 << 24, *array.shape[1:])}, }}\n",
            bytes(1 << 24),
        )
    members = list(parts.items())
    if how == "twice":
        members.append((own, parts[own][:-1] + b"\xff"))
    if how == "member":
        members.append((str(what), b"escaped"))
    made = packed(members)
    first = made.find(b"PK\x01\x02")
    if how == "encrypted":
        made = made[: first + 8] + b"\x01\x00" + made[first + 10 :]
    elif how == "method":
        made = made[: first + 10] + b"\x0c\x00" + made[first + 12 :]
    elif how == "lie":  # the directory of the archive promises 4 GB
        made = made[: first + 24] + b"\xfe\xff\xff\xff" + made[first + 28 :]
    return made


def attempt(ready: tuple[dict[str, bytes], dict, sources.Source], folder: Path, case: Case) -> None:
    files, card, source = dict(ready[0]), ready[1], ready[2]
    place, target = folder / "set", "test.npz"
    if case.how == "bytes":
        files[target] = hurt(files[target], case.with_what)  # type: ignore[arg-type]
    elif not case.how.startswith(("card", "place")):
        files[target] = rewritten(files[target], case)
    if case.signed:
        card = {
            **card,
            "sha256": {**card["sha256"], target: hashlib.sha256(files[target]).hexdigest()},
        }
    files[store.CARD] = as_json(altered(card, case.with_what) if case.how == "card" else card)  # type: ignore[arg-type]
    if case.how == "card bytes":
        files[store.CARD] = hurt(files[store.CARD], case.with_what)  # type: ignore[arg-type]
    place.mkdir()
    for name, content in files.items():
        if (case.how, name) in (("place", target), ("card place", store.CARD)):
            put_badly(place / name, str(case.with_what), None, content)
        else:
            (place / name).write_bytes(content)
    with np.errstate(all="ignore"):
        found = store.load(place, "test")
        count = found.card["counts"]["test"]
        assert (
            found.images.dtype == np.uint8
            and len(found.images) == len(found.labels) == len(found.boxes) == count
        )
        assert found.labels.max() <= 9 and found.boxes[..., 2:].min() == 28
        assert (
            store.write(place, SCENE, source, "cluttered", 0, COUNTS)["counts"] == COUNTS
        )  # kept, if it is what is asked for


KIND = Kind("npz", 16, CASES, prepare, attempt)
