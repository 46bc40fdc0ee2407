"""The short version of the campaign, always the same cases; and traps that must be among them,
whatever is drawn.
"""

import http.server
import io
import os
import subprocess
import sys
import tarfile
import threading
import zlib
from functools import partial
from pathlib import Path

import pytest
from hypothesis import strategies as st
from made_runs import CLASSIFIER

from drawbench import config
from drawbench.data import network, photographs
from drawbench.errors import Problem

from . import checkpoints, images, npz, records, settings, weights
from .damage import DEEP, HUGE, SURROGATE, Bytes, Node, altered, as_json, hurt, walk
from .engine import MARKER, Hang, Kind, campaign, check_sentence, report, shares
from .kinds import KINDS

CASES = {"records": 12, "page": 5, "commands": 50, "images": 40}  # the others have 60


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_what_is_damaged_is_refused_in_a_sentence(kind, tmp_path):
    tally = campaign(kind, CASES.get(kind.name, 60), tmp_path / "campaign", None)
    assert not tally.failures, "\n".join(tally.failures)
    assert tally.refused or kind.name == "page", report([tally])  # which shows any name
    assert tally.accepted or kind.name == "amat", report([tally])


# ------------------------------------------------------ what would be seen if a promise were broken


def kind_of(attempt) -> Kind:
    return Kind("made up", 1, st.integers(0, 5), lambda kept, patch: None, attempt)


def touch_outside(_, folder, case):
    (folder.parent / f"outside{case}").touch()


def run_payload(_, folder, case):
    (folder.parent / MARKER).touch()


def take_memory(_, folder, case):
    bytearray(2 << 30)


def make_a_speech(_, folder, case):
    raise Problem("x" * 5000)


@pytest.mark.parametrize("attempt", [touch_outside, run_payload, take_memory, make_a_speech])
def test_a_broken_promise_is_noticed(attempt, tmp_path):
    tally = campaign(kind_of(attempt), 3, tmp_path / "campaign", None)
    assert tally.tracebacks == 1 and "case=0" in tally.failures[0]


def test_a_hang_is_noticed(tmp_path, monkeypatch):
    from . import engine

    monkeypatch.setattr(engine, "SECONDS", 0.05)

    def turn(_, folder, case):
        while True:
            try:
                sum(range(1000))
            except Hang:
                return  # swallowed, as a product might

    assert campaign(kind_of(turn), 1, tmp_path / "campaign", None).hangs == 1


def test_coverage_can_lead():
    pytest.importorskip("atheris")
    command = [sys.executable, "-m", "tests.fuzz", "--guided", "--only", "idx", "--cases", "5"]
    done = subprocess.run(command, cwd=Path(__file__).parents[2], capture_output=True, text=True)
    assert done.returncode == 0 and done.stdout.splitlines()[-1].split()[:2] == ["all", "5"], (
        done.stdout + done.stderr
    )


def test_counts_add_up():
    for cases in (20, 1000, 20_000):
        assert sum(shares(KINDS, cases)) == cases and min(shares(KINDS, cases)) >= 1


def test_damage_is_what_it_says():
    assert (
        hurt(b"abcdef", [Bytes("cut", 3, 0), Bytes("append", 0, b"x"), Bytes("flip", 0, 0)])
        == b"`bcx"
    )
    assert (
        hurt(b"abcdef", [Bytes("drop", -3, 2), Bytes("insert", 1, b"--")]) == b"a--bcd"
    )  # places go round
    assert altered({"a": [1, 2]}, [Node("replace", 2, 5), Node("rename", 1, "b")]) == {"b": [5, 2]}
    text = as_json([HUGE, DEEP, SURROGATE])
    assert b"7" * 5000 in text and b"[" * 5000 in text and b"\\ud800" in text


@pytest.mark.parametrize(
    "text", ["", " \n", "one\ntwo", "x" * 5000, "Traceback (most recent call last)"]
)
def test_what_is_no_sentence(text):
    with pytest.raises(AssertionError):
        check_sentence(text)


# -------------------------------------------------------------------------------------------- traps

TRAPS = {
    "settings": [settings.Toml("quickstart", 1, 0, ["a." * 60_000 + "a = 1"], [])],
    "npz": [
        npz.Case("bomb", "images", None, True),
        npz.Case("pickle", "labels", None, True),
        npz.Case("promise", "images", ("|u1", (1 << 40,)), True),
        npz.Case("header", "images", "(" * 3000, True),
        npz.Case("header", "images", "{", True),
        npz.Case("card place", "images", "endless", False),
        npz.Case("place", "images", "pipe", False),
    ],
    "weights": [
        weights.Case("zip", "w.pt", "bomb", None),
        weights.Case("zip", "w.pt", "overlap", None),
        weights.Case("zip", "w.pt", "payload", "inside"),
        weights.Case("old", "w.bin", "payload", "whole"),
        weights.Case("zip", "w.safetensors", "payload", "plain"),
        weights.Case("zip", "w.pt", "value", "keys"),
        weights.Case("zip", "w.pt", "data.pkl", b"t."),
    ],
    "checkpoints": [
        checkpoints.Case("classify", "best.safetensors", "facts text", "[]"),
        checkpoints.Case("generate", "best.safetensors", "facts text", "{"),
        checkpoints.Case("classify", "last.safetensors", "facts", [Node("delete", 1, None)]),
        checkpoints.Case("classify", "last.safetensors", "tensor", (0, "missing")),
        checkpoints.Case("classify", "last.safetensors", "pickle", None),
    ],
    "images": [
        images.Case("film", "film.gif", "content", "eps", "stop"),
        images.Case("folder", "rgb.png", "content", "eps", "stop"),
        images.Case("folder", "rgb.png", "png", (65_535, 65_535, 8, 2), "stop"),
        images.Case("picture", "rgb.png", "content", "eps", "stop"),
    ],
}
BY_NAME = {kind.name: kind for kind in KINDS}


@pytest.mark.parametrize(
    ("name", "case"), [(name, case) for name, cases in TRAPS.items() for case in cases], ids=str
)
def test_a_trap_is_refused(name, case, tmp_path):
    kind = BY_NAME[name]
    tally = campaign(
        Kind(name, 1, st.just(case), kind.prepare, kind.attempt), 1, tmp_path / "campaign", None
    )
    assert tally.refused == 1 and not tally.failures, tally.failures


def test_a_table_with_columns_without_end_is_left_out(tmp_path):
    case, kind = (
        records.Case("classifier", "metrics.csv", "bytes", [Bytes("insert", 0, b"," * 2_000_000)]),
        BY_NAME["records"],
    )
    tally = campaign(
        Kind("records", 1, st.just(case), kind.prepare, kind.attempt),
        1,
        tmp_path / "campaign",
        None,
    )
    assert tally.refused == 1 and not tally.failures, tally.failures


def place_of(value, name: str) -> int:
    """The number of the value of that name in a nest of tables."""
    return next(number for number, path in enumerate(walk(value)) if path[-1:] == (name,))


def test_a_name_that_looks_like_mathematics_is_drawn_as_it_stands(tmp_path):
    node = Node("replace", place_of(CLASSIFIER | {"seed": 0}, "model"), "$\\frac{$")
    case, kind = (
        records.Case("classifier", "result.json", "nodes", [node], drawn=True),
        BY_NAME["records"],
    )
    tally = campaign(
        Kind("records", 1, st.just(case), kind.prepare, kind.attempt),
        1,
        tmp_path / "campaign",
        None,
    )
    assert tally.accepted == 1 and not tally.failures, tally.failures


def test_weights_of_another_size_take_no_memory(tmp_path):
    """The settings of a stranger promise a network of 68 GB; the weights beside them are small."""
    node = Node(
        "replace", place_of(config.to_dict(checkpoints.CONFIGS["classify"]), "hidden"), 65_536
    )
    case, kind = (
        checkpoints.Case("classify", "best.safetensors", "config", [node]),
        BY_NAME["checkpoints"],
    )
    tally = campaign(
        Kind("checkpoints", 1, st.just(case), kind.prepare, kind.attempt),
        1,
        tmp_path / "campaign",
        None,
    )
    assert tally.refused == 1 and not tally.failures, tally.failures


@pytest.mark.parametrize("size", [(8192, 8192, 8, 6), (8192, 8192, 16, 0)])
def test_the_largest_image_that_is_read_takes_less_than_a_gigabyte(size, tmp_path):
    """A transparent one, and one of 16 bits, which are decoded more than once."""
    width, height, depth, colour = size
    packer = zlib.compressobj(1)
    row = bytes(1 + width * (4 if colour == 6 else 2))
    body = b"".join([*(packer.compress(row * 64) for _ in range(height // 64)), packer.flush()])

    def attempt(_, folder, case):
        (folder / "large.png").write_bytes(images.png(width, height, depth, colour, body))
        assert photographs._picture(folder / "large.png", 8).size == (width, height)

    tally = campaign(
        Kind("large", 1, st.just(0), lambda kept, patch: None, attempt),
        1,
        tmp_path / "campaign",
        None,
    )
    assert tally.accepted == 1, tally.failures


# ---------------------------------------------------------------------------------------- downloads


@pytest.fixture
def hostile_server(tmp_path, monkeypatch):
    """A server that gives, as CIFAR-10, an archive whose names lead out of the folder it is
    unpacked in.
    """
    from torchvision.datasets import CIFAR10

    archive = tmp_path / "server" / CIFAR10.filename
    archive.parent.mkdir()
    with tarfile.open(archive, "w:gz") as packed:
        for name in (
            "../../../escaped",
            str(tmp_path / "escaped"),
            f"{CIFAR10.base_folder}/../../escaped",
        ):
            entry = tarfile.TarInfo(name)
            entry.size = 4
            packed.addfile(entry, io.BytesIO(b"evil"))
        link = tarfile.TarInfo(f"{CIFAR10.base_folder}/link")
        link.type, link.linkname = tarfile.SYMTYPE, str(tmp_path)
        packed.addfile(link)
    handler = partial(http.server.SimpleHTTPRequestHandler, directory=archive.parent)
    monkeypatch.setattr(handler.func, "log_message", lambda *_: None)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        monkeypatch.setattr(CIFAR10, "url", f"http://127.0.0.1:{server.server_port}/{archive.name}")
        monkeypatch.setattr(network, "answers", lambda urls: True)
        yield tmp_path
        server.shutdown()


def test_an_archive_that_is_not_the_original_is_never_unpacked(hostile_server):
    root = hostile_server / "deep" / "deeper" / "sources"
    with pytest.raises(Problem, match="could not be downloaded"):
        photographs.cifar10(root)
    assert not [path for path in hostile_server.rglob("*escaped*")]
    assert os.listdir(root) == [], "nothing of it is kept"
