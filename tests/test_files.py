import json
import os
import stat

import pytest

from drawbench import files
from drawbench.errors import Problem


@pytest.fixture
def outside(tmp_path):
    """A file of the user's that no run may touch."""
    path = tmp_path / "outside" / "thesis.tex"
    path.parent.mkdir()
    path.write_text("years of work")
    yield path
    assert path.read_text() == "years of work"
    assert [child.name for child in path.parent.iterdir()] == ["thesis.tex"]


def test_a_write_replaces_the_file_and_leaves_nothing_else(tmp_path):
    path = tmp_path / "new" / "one.txt"
    for content in (b"first", b"second"):
        files.write_atomically(path, content)
        assert path.read_bytes() == content
    assert [child.name for child in path.parent.iterdir()] == ["one.txt"]
    umask = os.umask(0)
    os.umask(umask)
    assert stat.S_IMODE(path.stat().st_mode) == 0o666 & ~umask


@pytest.mark.parametrize("fails", ["fsync", "replace"])
def test_a_failed_write_keeps_the_old_content(tmp_path, monkeypatch, fails):
    path = tmp_path / "one.txt"
    files.write_atomically(path, b"first")

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, fails, full)
    with pytest.raises(Problem, match=r"one\.txt: No space left on device; the previous content"):
        files.write_atomically(path, b"second")
    assert path.read_bytes() == b"first"
    assert list(tmp_path.iterdir()) == [path]


def test_a_write_replaces_a_link_and_not_its_target(tmp_path, outside):
    path = tmp_path / "one.txt"
    path.symlink_to(outside)
    files.write_atomically(path, b"mine")
    assert path.read_bytes() == b"mine" and not path.is_symlink()


def test_a_temporary_file_is_never_opened_through_a_link(tmp_path, outside, monkeypatch):
    monkeypatch.setattr(files.secrets, "token_hex", lambda _: "guessed")
    (tmp_path / ".one.txt.guessed.tmp").symlink_to(outside)
    with pytest.raises(Problem, match="File exists"):
        files.write_atomically(tmp_path / "one.txt", b"mine")


def test_a_path_inside_may_not_pass_a_link(tmp_path, outside):
    folder = tmp_path / "folder"
    (folder / "real").mkdir(parents=True)
    (folder / "real" / "link").symlink_to(outside.parent)
    (tmp_path / "named-by-the-user").symlink_to(folder)
    for root in (folder, tmp_path / "named-by-the-user"):
        assert files.check_inside(root / "real" / "new", root) == root / "real" / "new"
        for path in ("real/link", "real/link/thesis.tex"):
            with pytest.raises(Problem, match=r"real/link is a link"):
                files.check_inside(root / path, root)
    with pytest.raises(ValueError):
        files.check_inside(outside, folder)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (None, "is missing"),
        (b"{", "is not valid JSON"),
        (b"\xff\xfe", "is not valid JSON"),
        (b"[" * 100_000, "is not valid JSON: it is nested too deeply"),
        (b" " * ((16 << 20) + 1), "is not valid JSON: it is larger than 16 MB"),
        ("pipe", "cannot be read"),  # and not waited for
    ],
)
def test_json_that_cannot_be_read_names_its_file(tmp_path, content, reason):
    path = tmp_path / "one.json"
    if content == "pipe":
        os.mkfifo(path)
    elif content is not None:
        path.write_bytes(content)
    with pytest.raises(Problem, match=rf"one\.json {reason}"):
        files.read_json(path)


def test_a_hash_covers_every_field(tmp_path):
    path = tmp_path / "one.json"
    fields = {"value": 12.5, "nested": {"list": [1, 2]}, "text": "a"}
    files.write_json(path, files.hashed(fields))
    assert files.read_hashed(path) == fields
    stored = json.loads(path.read_text())
    for changed in ({"value": 12.6}, {"text": "b"}, {"more": 1}, {"sha256": None}):
        path.write_text(json.dumps(stored | changed))
        with pytest.raises(Problem, match="does not match its SHA-256"):
            files.read_hashed(path)


def test_printable_text_has_no_lone_surrogates():
    text = os.fsdecode(b"caf\xe9")
    assert files.printable({"name": text, "n": 1}) == {"name": "caf?", "n": 1}
