"""Downloads: verified, whole or not at all, and never waited for without end."""

import hashlib
import time
import urllib.error
import urllib.request

import pytest
from servers import no_network, serve

from drawbench.data import fetch
from drawbench.data.fetch import Original
from drawbench.errors import Problem

BODIES = {"a": b"first" * 1000, "b": b"second"}


ORIGINALS = [
    Original("a", ("http://x/a",), hashlib.sha256(BODIES["a"]).hexdigest(), 5000),
    Original("b", ("http://x/b",), hashlib.md5(BODIES["b"]).hexdigest()),
]


def get(root, **options):
    fetch.fetch("things", root, root / "deep" / "er", ORIGINALS, **options)
    return {path.name: path.read_bytes() for path in (root / "deep" / "er").iterdir()}


def test_files_land_whole_and_progress_is_told(tmp_path, monkeypatch):
    serve(monkeypatch, BODIES)
    monkeypatch.setattr(fetch, "PIECE", 2000)
    told = []
    assert get(tmp_path, progress=lambda done, total: told.append((done, total))) == BODIES
    assert told == [(2000, 5000), (4000, 5000), (5000, 5000)]


def test_a_file_that_is_there_is_kept(tmp_path, monkeypatch):
    serve(monkeypatch, BODIES)
    (tmp_path / "deep" / "er").mkdir(parents=True)
    (tmp_path / "deep" / "er" / "a").write_bytes(b"mine")
    assert get(tmp_path) == BODIES | {"a": b"mine"}


@pytest.mark.parametrize(
    ("body", "text"),
    [
        (b"<html>gone</html>", "b is not the original .*MD5"),
        (urllib.error.URLError("reset\nby peer"), "could not be downloaded .*reset by peer"),
        (KeyboardInterrupt(), None),
    ],
)
@pytest.mark.parametrize("existing", [False, True])
def test_half_a_download_leaves_nothing(tmp_path, monkeypatch, body, text, existing):
    serve(monkeypatch, BODIES | {"b": body})
    if existing:
        (tmp_path / "deep" / "er").mkdir(parents=True)
    with pytest.raises((Problem, KeyboardInterrupt), match=text) as raised:
        get(tmp_path)
    assert "\n" not in str(raised.value)
    left = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert left == [] and (tmp_path / "deep").exists() == existing


def test_no_more_is_read_than_one_byte_beyond_the_expected_length(tmp_path, monkeypatch):
    serve(monkeypatch, BODIES | {"a": bytes(100_000_000)})
    with pytest.raises(Problem, match="5,001 bytes"):
        get(tmp_path)


def test_unpacking_that_fails_leaves_nothing(tmp_path, monkeypatch):
    serve(monkeypatch, BODIES)

    def fail(folder):
        assert {path.name for path in folder.iterdir()} == set(BODIES)
        raise OSError(28, "No space left on device")

    with pytest.raises(Problem, match="No space left"):
        get(tmp_path, unpack=fail)
    assert list(tmp_path.iterdir()) == []


def test_the_next_server_is_asked_where_one_fails(tmp_path, monkeypatch):
    bodies = {"bad": b"x", "broken": OSError("broken"), "good": b"yes"}
    serve(monkeypatch, bodies)
    urls = tuple(f"http://x/{name}" for name in bodies)
    original = Original("file", urls, hashlib.md5(b"yes").hexdigest())
    fetch.fetch("thing", tmp_path, tmp_path / "to", [original])
    assert (tmp_path / "to" / "file").read_bytes() == b"yes"


@pytest.mark.parametrize("link", ["deep", "deep/er"])
def test_nothing_is_written_through_a_link_out_of_the_folder(tmp_path, monkeypatch, link):
    requests = serve(monkeypatch, BODIES)
    (tmp_path / "outside").mkdir()
    root = tmp_path / "root"
    (root / link).parent.mkdir(parents=True)
    (root / link).symlink_to(tmp_path / "outside")
    with pytest.raises(Problem, match="is a link"):
        get(root)
    assert list((tmp_path / "outside").iterdir()) == [] and not requests


def test_no_server_and_a_server_that_knows_no_head(tmp_path, monkeypatch):
    no_network(monkeypatch)
    with pytest.raises(Problem, match="no server could be reached"):
        get(tmp_path)
    assert list(tmp_path.iterdir()) == []
    serve(monkeypatch, {})
    assert fetch.reachable(["http://x/a"])


def test_a_silent_network_is_not_waited_for_long(monkeypatch):
    def silent(*_, **__):
        time.sleep(20)
        raise OSError("nobody waits for this any more")

    monkeypatch.setattr(fetch, "TIMEOUT", 0.1)
    monkeypatch.setattr(urllib.request, "urlopen", silent)
    start = time.monotonic()
    assert not fetch.reachable(["http://x/a", "http://y/a"])
    assert time.monotonic() - start < 10
