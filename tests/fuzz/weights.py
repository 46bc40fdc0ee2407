"""The weights of a stranger's network: safetensors, and what ``torch.save`` writes in its new and
its old form.
"""

import io
import pickle
import struct
import sys
import tarfile
import types
import zipfile
from pathlib import Path
from typing import NamedTuple

import torch
from hypothesis import strategies as st
from safetensors.torch import save
from torch import nn

from drawbench.tasks import user_model as own

from .checkpoints import HEADERS, LENGTHS
from .damage import DAMAGES, Payload, hurt, noise
from .engine import Kind, payload_marker
from .idx import put_badly

GUEST = "fuzzed_guest"
NETWORK = {"0.weight": torch.ones(10, 4), "0.bias": torch.zeros(10)}


class Case(NamedTuple):
    form: str
    name: str
    how: str
    with_what: object


VALUES = {
    "number": 7,
    "list": [torch.ones(2)],
    "nested": {"model": NETWORK},
    "keys": {1: torch.ones(2), None: torch.ones(2)},
    "text": {"0.weight": "x"},
    "none": None,
    "sparse": {**NETWORK, "0.bias": torch.zeros(10).to_sparse()},
    "expanded": {**NETWORK, "0.bias": torch.zeros(1).expand(1 << 40)},
    "wide": {**NETWORK, "0.weight": torch.zeros(1).expand(10, 4)},
    "complex": {**NETWORK, "0.bias": torch.zeros(10, dtype=torch.complex64)},
    "meta": {**NETWORK, "0.bias": torch.zeros(10, device="meta")},
    "parameter": {**NETWORK, "0.bias": nn.Parameter(torch.zeros(10))},
    "nan": {**NETWORK, "0.bias": torch.full((10,), float("nan"))},
    "hostile": {"../../x": torch.ones(1), "<b>\n": torch.ones(1), "a" * 5000: torch.ones(1)},
}
PICKLES = [
    b"\x80\x02.",
    b"\x80\x02}.",
    b"\x80\x02]q\x00(h\x00e.",
    b"\x80\x02N.",
    b"\x80\x02}(K\x01K\x02u.",
    b"\x80\x02X\xff\xff\xff\x7fa.",
    b"\x80\x02\x8b\xff\xff\xff\x7f.",
    b"\x80\x02Q.",
    b"cos\nsystem\n(S'touch executed'\ntR.",
    b"\x80\x02ctorch._utils\n_rebuild_tensor_v2\n(tR.",
    b"\x80\x02ccollections\nOrderedDict\n)R.",
    b"\x80\x02ctorch.storage\n_load_from_bytes\n(C\x01atR.",
    b"\x80\x02cbuiltins\neval\n(S'1'\ntR.",
    b"\x80\x02" + b"(" * 5000 + b".",
    b"\x80\x02" + b"]" * 5000 + b"a" * 4999 + b".",
    b"\x80\x05\x95\xff\xff\xff\xff\xff\xff\xff\x7f.",
    b"\x80\xff.",
    b"t.",
    b"0.",
]
FORM, NAME = (
    st.sampled_from(["zip", "old", "safetensors"]),
    st.sampled_from(["w.pt", "w.safetensors", "w.bin", "w"]),
)
CASES = st.one_of(
    st.builds(Case, FORM, NAME, st.just("bytes"), DAMAGES),
    st.builds(Case, FORM, NAME, st.just("bytes"), DAMAGES),
    st.builds(Case, st.just("zip"), NAME, st.just("member"), st.tuples(st.integers(0, 8), DAMAGES)),
    st.builds(
        Case,
        st.just("zip"),
        NAME,
        st.just("data.pkl"),
        st.sampled_from(PICKLES) | st.binary(max_size=12),
    ),
    st.builds(Case, st.just("old"), NAME, st.just("pickle"), st.sampled_from(PICKLES)),
    st.builds(
        Case, st.sampled_from(["zip", "old"]), NAME, st.just("value"), st.sampled_from(list(VALUES))
    ),
    st.builds(Case, FORM, NAME, st.just("payload"), st.sampled_from(["whole", "inside", "plain"])),
    st.builds(
        Case,
        st.just("zip"),
        NAME,
        st.sampled_from(["bomb", "overlap", "escape", "twice", "tar", "encrypted", "script"]),
        st.none(),
    ),
    st.builds(
        Case,
        FORM,
        NAME,
        st.just("header"),
        st.tuples(st.sampled_from([None, *LENGTHS]), st.sampled_from(HEADERS)),
    ),
    st.builds(
        Case,
        FORM,
        NAME,
        st.sampled_from(["missing", "folder", "loop", "pipe", "endless"]),
        st.none(),
    ),
)


def saved(value: object, form: str) -> bytes:
    buffer = io.BytesIO()
    if form == "safetensors":
        return save(value)  # type: ignore[arg-type]
    torch.save(value, buffer, _use_new_zipfile_serialization=form == "zip")
    return buffer.getvalue()


def network() -> nn.Module:
    return nn.Sequential(nn.Linear(4, 10))


def prepare(kept: Path, patch) -> dict[str, bytes]:
    module = types.ModuleType(GUEST)
    module.network = network  # type: ignore[attr-defined]
    patch.setitem(sys.modules, GUEST, module)
    return {form: saved(NETWORK, form) for form in ("zip", "old", "safetensors")}


def attempt(files: dict[str, bytes], folder: Path, case: Case) -> None:
    path, content, what = folder / case.name, files[case.form], case.with_what
    marker = str(payload_marker(folder))
    if case.how == "bytes":
        path.write_bytes(hurt(content, what))  # type: ignore[arg-type]
    elif case.how == "value":
        path.write_bytes(saved(VALUES[str(what)], case.form))
    elif case.how == "payload":
        harmful: object = (
            Payload(marker) if what != "inside" else {**NETWORK, "0.bias": Payload(marker)}
        )
        path.write_bytes(
            pickle.dumps(harmful)
            if what == "plain" or case.form == "safetensors"
            else saved(harmful, case.form)
        )
    elif case.how == "header":
        length, header = what  # type: ignore[misc]
        path.write_bytes(
            struct.pack("<Q", len(header) if length is None else length)
            + header
            + b"\x01\x02\x03\x04"
        )
    elif case.how == "pickle":
        path.write_bytes(what + content[len(what) :])  # type: ignore[arg-type, operator]
    elif case.how in ("missing", "folder", "loop", "pipe", "endless"):
        put_badly(path, case.how, None, content)
    else:
        path.write_bytes(rezipped(content, case))
    guest = own.load_guest(f"{GUEST}:network", path)
    assert guest.network[0].bias.shape == (10,)  # type: ignore[index]


def rezipped(content: bytes, case: Case) -> bytes:
    """An archive of ``torch.save`` packed anew with something wrong in it."""
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        members = [(name, archive.read(name)) for name in archive.namelist()]
    buffer, how = io.BytesIO(), case.how
    stem = members[0][0].partition("/")[0]
    if how == "tar":
        with tarfile.open(fileobj=buffer, mode="w") as packed:
            for name in ("../../escaped", "storages", "tensors", "pickle"):
                packed.addfile(tarfile.TarInfo(name), io.BytesIO())
        return buffer.getvalue()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as made:
        for number, (name, held) in enumerate(members):
            if how == "member" and number == case.with_what[0] % len(members):  # type: ignore[index]
                held = hurt(held, case.with_what[1])  # type: ignore[index]
            elif how == "data.pkl" and name.endswith("data.pkl"):
                held = case.with_what  # type: ignore[assignment]
            elif how == "bomb" and "/data/" in name:
                made.writestr(name, bytes(32 << 20), zipfile.ZIP_DEFLATED, 1)
                continue
            made.writestr(name, held)
            if how == "twice":
                made.writestr(name, noise(0, len(held)))
        if how == "escape":
            made.writestr("../../../escaped", b"x")
            made.writestr("/tmp/drawbench-escaped", b"x")
        if how == "script":
            made.writestr(f"{stem}/constants.pkl", b"\x80\x02).")
            made.writestr(f"{stem}/code/__torch__.py", b"1 / 0")
    whole = buffer.getvalue()
    first = whole.find(b"PK\x01\x02")
    if how == "encrypted":
        whole = whole[: first + 8] + b"\x01\x00" + whole[first + 10 :]
    if how == "overlap":  # every entry says that it lies where the first one does
        offset = first
        while (offset := whole.find(b"PK\x01\x02", offset)) >= 0:
            whole = whole[: offset + 42] + bytes(4) + whole[offset + 46 :]
            offset += 4
    return whole


KIND = Kind("weights", 10, CASES, prepare, attempt)
