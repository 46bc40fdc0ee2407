"""MNIST's format, with a known SHA-256 (mnist) and without one (fashion), and the list of hashes
beside it.
"""

import functools
import hashlib
import os
import struct
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from hypothesis import strategies as st

from drawbench.data import network, sources

from .damage import DAMAGES, hurt
from .engine import Kind

FILES = (
    "train-images-idx3-ubyte",
    "train-labels-idx1-ubyte",
    "t10k-images-idx3-ubyte",
    "t10k-labels-idx1-ubyte",
)
COUNTS = dict(zip(FILES, (20, 20, 6, 6), strict=True))
SUMS = "SHA256SUMS"


class Case(NamedTuple):
    family: str
    file: str
    how: str
    with_what: object


HEADER = st.tuples(
    st.sampled_from([2051, 2049, 2050, 0, -1, 1 << 30]),
    st.sampled_from([0, -1, 6, 20, 21, (1 << 31) - 1, -(1 << 31)]),
)
CASES = st.one_of(
    st.builds(
        Case,
        st.sampled_from(["mnist", "fashion", "auto"]),
        st.sampled_from(FILES),
        st.just("bytes"),
        DAMAGES,
    ),
    st.builds(Case, st.just("fashion"), st.just(SUMS), st.just("bytes"), DAMAGES),
    st.builds(Case, st.just("fashion"), st.just(SUMS), st.just("text"), st.text(max_size=60)),
    st.builds(
        Case,
        st.sampled_from(["mnist", "fashion"]),
        st.sampled_from(FILES),
        st.just("header"),
        HEADER,
    ),
    st.builds(
        Case,
        st.sampled_from(["mnist", "fashion"]),
        st.sampled_from(FILES),
        st.just("other"),
        st.sampled_from(FILES),
    ),
    st.builds(
        Case,
        st.sampled_from(["mnist", "fashion", "auto"]),
        st.sampled_from([*FILES, SUMS]),
        st.sampled_from(["missing", "folder", "loop", "pipe", "endless", "packed", "sparse"]),
        st.none(),
    ),
)


def idx(file: str) -> bytes:
    count, random = COUNTS[file], np.random.default_rng(FILES.index(file))
    if "images" in file:
        return (
            struct.pack(">4i", 2051, count, 28, 28)
            + random.integers(0, 256, count * 784, dtype=np.uint8).tobytes()
        )
    return (
        struct.pack(">2i", 2049, count)
        + (random.permutation(count) % 10).astype(np.uint8).tobytes()
    )


def prepare(kept: Path, patch) -> dict[str, bytes]:
    files = {file: idx(file) for file in FILES}
    pins = {file: hashlib.sha256(content).hexdigest() for file, content in files.items()}
    patch.setattr(sources, "_FILES", COUNTS)
    patch.setattr(sources, "VALIDATION", 5)
    families = {
        name: sources._Family(name, family.folder, family.note, pins if name == "mnist" else {})
        for name, family in sources._FAMILIES.items()
    }
    patch.setattr(sources, "_FAMILIES", families)
    patch.setattr(network, "answers", lambda urls: False)
    patch.setattr(sources, "_embedded_digits", functools.cache(sources._embedded_digits))
    return files | {SUMS: "".join(f"{digest}  {file}\n" for file, digest in pins.items()).encode()}


def put_badly(path: Path, how: str, with_what: object, content: bytes) -> None:
    """A file that is damaged, or something that is no file in its place."""
    if how == "bytes":
        path.write_bytes(hurt(content, with_what))  # type: ignore[arg-type]
    elif how == "folder":
        path.mkdir()
    elif how == "loop":
        path.symlink_to(path)
    elif how == "pipe":
        os.mkfifo(path)
    elif how == "endless":
        path.symlink_to("/dev/zero")
    elif how == "packed":
        path.with_name(path.name + ".gz").write_bytes(b"\x1f\x8b")
    elif how == "sparse":
        path.write_bytes(content)
        os.truncate(path, 1 << 36)


def attempt(files: dict[str, bytes], folder: Path, case: Case) -> None:
    raw = folder / "sources" / {"fashion": "FashionMNIST"}.get(case.family, "MNIST") / "raw"
    raw.mkdir(parents=True)
    for file, content in files.items():
        path = raw / file
        if file != case.file:
            path.write_bytes(content)
        elif case.how == "text":
            path.write_text(str(case.with_what), encoding="utf-8")
        elif case.how == "header":
            path.write_bytes(struct.pack(">2i", *case.with_what) + content[8:])  # type: ignore[misc]
        elif case.how == "other":
            path.write_bytes(files[str(case.with_what)])
        else:
            put_badly(path, case.how, case.with_what, content)
    for finding in sources.survey(folder / "sources"):
        assert finding.state in ("verified", "unverified", "missing", "damaged")
    found = sources.load(case.family, folder / "sources", download=False, warn=lambda text: None)
    wanted = {split: len(part) for split, part in found.splits.items()}
    assert wanted == {"train": 15, "validation": 5, "test": 6}
    if case.family != "fashion":  # what has a known hash is accepted only as it was
        images = np.frombuffer(files[FILES[2]], np.uint8, offset=16).reshape(-1, 28, 28)
        assert np.array_equal(found.splits["test"].images, images)
    assert all(
        int(part.labels.max()) <= 9 and part.images.dtype == torch.uint8
        for part in found.splits.values()
    )


KIND = Kind("idx", 10, CASES, prepare, attempt)
