"""The text files of the published binarised MNIST, which have a known SHA-256."""

import hashlib
from pathlib import Path
from typing import NamedTuple

import numpy as np
from hypothesis import strategies as st

from drawbench.data import binarized, network

from .damage import DAMAGES
from .engine import Kind
from .idx import put_badly

PARTS = {
    "train": "binarized_mnist_train.amat",
    "validation": "binarized_mnist_valid.amat",
    "test": "binarized_mnist_test.amat",
}
COUNTS = dict(zip(PARTS.values(), (4, 2, 3), strict=True))


class Case(NamedTuple):
    file: str
    how: str
    with_what: object


FILES = st.sampled_from(list(PARTS.values()))
CASES = st.one_of(
    st.builds(Case, FILES, st.just("bytes"), DAMAGES),
    st.builds(Case, FILES, st.just("other"), FILES),
    st.builds(
        Case,
        FILES,
        st.sampled_from(["missing", "folder", "loop", "pipe", "endless", "sparse"]),
        st.none(),
    ),
    st.builds(
        Case,
        FILES,
        st.just("text"),
        st.sampled_from(["2 ", "0.5 ", "nan ", "1\n", "-1 ", "é ", "0  "]),
    ),
)


def prepare(kept: Path, patch) -> dict[str, bytes]:
    files = {}
    for seed, (file, count) in enumerate(COUNTS.items()):
        pixels = np.random.default_rng(seed).integers(0, 2, (count, 784))
        files[file] = "".join(" ".join(map(str, row)) + "\n" for row in pixels).encode()
    patch.setattr(binarized, "_COUNTS", COUNTS)
    patch.setattr(
        binarized,
        "SHA256",
        {file: hashlib.sha256(content).hexdigest() for file, content in files.items()},
    )
    patch.setattr(network, "answers", lambda urls: False)
    return files


def attempt(files: dict[str, bytes], folder: Path, case: Case) -> None:
    raw = folder / "sources" / binarized.FOLDER
    raw.mkdir(parents=True)
    for file, content in files.items():
        if file != case.file:
            (raw / file).write_bytes(content)
        elif case.how == "other":
            (raw / file).write_bytes(files[str(case.with_what)])
        elif case.how == "text":
            (raw / file).write_bytes(
                (content.decode().replace("0 ", str(case.with_what), 1)).encode()
            )
        else:
            put_badly(raw / file, case.how, case.with_what, content)
    found = binarized.load(folder / "sources", download=False)
    for part, file in PARTS.items():  # accepted only as it was
        assert np.array_equal(
            found[part].flatten(),
            np.frombuffer(files[file].replace(b"\n", b" "), np.uint8)[::2] % 2 * np.uint8(255),
        )


KIND = Kind("amat", 8, CASES, prepare, attempt)
