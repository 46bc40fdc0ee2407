"""Generated data sets: what is written, that it is the same every time, and that nothing else is
overwritten or believed.
"""

import io
import json
import shutil
import threading
import zipfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from commands import snapshot

from drawbench.data import cards, making, stored
from drawbench.data import digits as sources
from drawbench.data.digits import SPLITS, Source
from drawbench.data.scenes import DIGIT, Digits, Scene, fresh
from drawbench.errors import Problem

CLUTTERED, PAIRS = Scene(canvas=40, clutter=2), Scene(canvas=60, digits=2, clutter=0)
COUNTS = {"train": 12, "validation": 5, "test": 7}


@pytest.fixture(scope="module")
def digits() -> Source:
    return sources.load("digits", Path("unused"))


def write(folder, source, scene=CLUTTERED, dataset="cluttered", seed=0, counts=COUNTS, **options):
    return making.write(folder, scene, source, dataset, seed, counts, **options)


def marked() -> Source:
    """Every pixel of a train digit is 1, of a validation digit 16, of a test digit 25."""
    parts = {}
    for split, size, grey in zip(SPLITS, (30, 10, 20), (1, 16, 25), strict=True):
        images = torch.full((size, DIGIT, DIGIT), grey, dtype=torch.uint8)
        parts[split] = Digits(images, (torch.arange(size) % 10).to(torch.uint8))
    return Source("marked", parts, "digits for a test", "0" * 64)


@pytest.fixture
def folder(tmp_path, digits) -> Path:
    write(tmp_path / "set", digits)
    return tmp_path / "set"


def content(folder: Path) -> dict[str, bytes]:
    paths = [path for path in folder.rglob("*") if path.is_file() and path.suffix != ".lock"]
    return {str(path.relative_to(folder)): path.read_bytes() for path in paths}


# ---- What is written


GOLDEN = {  # SHA-256 of images, labels and boxes
    "cluttered": {
        "train": "629ab615a3bc56ad37403f32c7b525f1d4b66b7b7199c48d2cf69b7c2eba09e2",
        "validation": "e9b55b7ce7ecadcf39eaa5dfb0f8dba1e3d666ba8492c3de16de337f4469d59d",
        "test": "d733cb2058c8f77637230d3da94fae2a93fca087e4b0f05b6770d75f1097c3fc",
    },
    "mnist2": {
        "train": "a9178493caba87879e26b3bba76b8629de8b2eb7c79842c8953258cc61cfd193",
        "validation": "0a5a9b4d54038802a1fd1256608b688f6dc6e3ae963ff76e3bbb01ccb071a08b",
        "test": "e43a97e980db409163c2149da890e3f63689559220aadf08dc982b54af6e6556",
    },
}


@pytest.mark.parametrize(("scene", "dataset"), [(CLUTTERED, "cluttered"), (PAIRS, "mnist2")])
def test_plain_numpy_reads_what_was_written(tmp_path, digits, scene, dataset):
    card = write(tmp_path, digits, scene, dataset)  # an empty folder is taken
    assert card == cards.read(tmp_path) == json.loads((tmp_path / "card.json").read_text())
    assert card["content_sha256"] == GOLDEN[dataset]
    for split, count in COUNTS.items():
        expected = fresh(digits.splits[split], scene, torch.arange(count), 0, "set", split)
        labels = expected.labels[:, 0] if scene.digits == 1 else expected.labels
        path, part = tmp_path / f"{split}.npz", stored.load(tmp_path, split)
        assert part.card == card and part.images.flags.writeable
        with np.load(path, allow_pickle=False) as arrays:
            assert set(arrays) == {"images", "labels", "boxes"}
            for name, values in (expected._asdict() | {"labels": labels}).items():
                assert arrays[name].dtype == values.numpy().dtype
                assert np.array_equal(arrays[name], values)
                assert np.array_equal(getattr(part, name), values)
        with zipfile.ZipFile(path) as archive:  # the time of day would change the bytes
            assert {one.date_time for one in archive.infolist()} == {(1980, 1, 1, 0, 0, 0)}


def test_the_card_tells_the_whole_story(folder, digits):
    card = cards.read(folder)
    assert card["recipe"] == {"canvas": 40, "digits": 1, "clutter": 2, "clutter_size": 8}
    assert (card["dataset"], card["source"], card["seed"]) == ("cluttered", "digits", 0)
    assert card["counts"] == COUNTS and card["source_sha256"] == digits.sha256
    assert "not MNIST" in card["source_note"]
    assert set(card["sha256"]) == {"train.npz", "validation.npz", "test.npz"}
    assert "2 times a random 8x8 crop" in card["rule"] and "disjoint" in card["rule"]
    assert card["command"] == (
        "drawbench make-data cluttered --source digits --canvas 40 --digits 1 --clutter 2 "
        "--clutter-size 8 --data-seed 0 --train 12 --validation 5 --test 7"
    )
    files = {"card.json", "croissant.json", *card["sha256"]}
    assert {path.name for path in folder.iterdir()} == files


def test_the_same_recipe_and_seed_give_the_same_bytes(tmp_path, digits, folder, monkeypatch):
    other = write(tmp_path / "other", digits, seed=1)
    assert other["content_sha256"]["test"] != cards.read(folder)["content_sha256"]["test"]
    monkeypatch.setattr(making, "CHUNK_BYTES", 60_000)  # two scenes at a time
    calls = []
    write(tmp_path / "again", digits, progress=lambda done, total: calls.append((done, total)))
    assert content(tmp_path / "again") == content(folder)
    assert calls == sorted(set(calls)) and calls[-1] == (24, 24)
    assert {total for _, total in calls} == {24}


def test_each_digit_of_a_part_is_the_target_once_and_larger_sets_start_over(tmp_path):
    source = marked()
    for split in SPLITS:  # make each digit recognisable by its own grey
        part = source.splits[split]
        part.images[:] = torch.arange(1, len(part) + 1, dtype=torch.uint8)[:, None, None]
    bare = Scene(canvas=28, clutter=0)
    write(tmp_path / "once", source, bare, counts=None)
    write(tmp_path / "more", source, bare, counts={"train": 75})

    def greys(name, split):
        return stored.load(tmp_path / name, split).images[:, 0, 0].tolist()

    for split, size in zip(SPLITS, (30, 10, 20), strict=True):
        assert sorted(greys("once", split)) == list(range(1, size + 1))
    first, second, rest = np.split(greys("more", "train"), (30, 60))
    assert sorted(first) == sorted(second) == list(range(1, 31))
    assert first.tolist() != second.tolist() and len(set(rest)) == 15


def test_parts_share_no_digit_not_even_in_the_clutter(tmp_path):
    write(tmp_path / "set", marked(), Scene(canvas=30), counts=None)
    for split, grey in zip(SPLITS, (1, 16, 25), strict=True):
        images = stored.load(tmp_path / "set", split).images
        assert (images % grey == 0).all() and images.max() > grey
        assert split != "train" or images.max() <= 9


@pytest.mark.parametrize(
    ("scene", "dataset", "source", "seed", "name"),
    [
        (Scene(), "cluttered", "mnist", 0, "cluttered-100x100-8-mnist"),
        (Scene(canvas=60, clutter=4), "cluttered", "digits", 3, "cluttered-60x60-4-digits-seed3"),
        (Scene(clutter=0, digits=2), "cluttered", "mnist", 0, "cluttered-100x100-0-2digits-mnist"),
        (Scene(clutter_size=10), "cluttered", "mnist", 0, "cluttered-100x100-8of10-mnist"),
        (PAIRS, "mnist2", "mnist", 0, "mnist2-60x60-mnist"),
    ],
)
def test_default_folders(scene, dataset, source, seed, name):
    part = Digits(torch.zeros(3, DIGIT, DIGIT).byte(), torch.zeros(3).byte())
    digits = Source(source, dict.fromkeys(SPLITS, part), "", "")
    assert (
        making.default_folder("datasets", scene, dataset, digits, seed) == Path("datasets") / name
    )
    other = making.default_folder("datasets", scene, dataset, digits, seed, {"train": 9})
    assert other == Path("datasets") / f"{name}-9-3-3"


# ---- What is refused


def test_the_same_set_is_kept(folder, digits):
    before, said = snapshot(folder), []
    assert write(folder, digits, say=said.append) == cards.read(folder)
    assert len(said) == 1 and "kept" in said[0] and snapshot(folder) == before


def test_a_file_far_larger_than_the_card_says_is_not_read_through(folder):
    with (folder / "test.npz").open("wb") as file:
        file.truncate(1 << 40)  # which takes no place, but would take an hour
    with pytest.raises(Problem, match="not computed for"):
        stored.load(folder, "test")


def test_the_same_set_but_damaged_is_not_kept(folder, digits):
    flip(folder / "test.npz")
    with pytest.raises(Problem, match=r"test\.npz is damaged.*--force"):
        write(folder, digits)
    write(folder, digits, force=True)
    assert len(stored.load(folder, "test").images) == 7


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"seed": 1}, "seed 0 instead of 1"),
        ({"scene": Scene(canvas=41, clutter=2)}, "canvas 40 instead of 41"),
        ({"counts": COUNTS | {"test": 8}}, "test images .* instead of 8"),
    ],
)
def test_another_set_is_replaced_only_by_force_and_other_files_stay(folder, digits, change, named):
    (folder / "montage.png").write_bytes(b"old")
    (folder / "my notes.txt").write_text("mine")
    before = content(folder)
    with pytest.raises(Problem, match=f"another data set: {named}.*--force"):
        write(folder, digits, **change)
    assert content(folder) == before
    card = write(folder, digits, **change, force=True)
    assert cards.read(folder) == card
    assert len(stored.load(folder, "test").images) == card["counts"]["test"]
    assert (folder / "my notes.txt").read_text() == "mine" and not (folder / "montage.png").exists()


@pytest.mark.parametrize(
    ("name", "text"),
    [("thesis.tex", r"thesis\.tex"), ("train.npz", "not a complete data set")],
)
def test_a_folder_with_anything_else_is_refused(tmp_path, digits, name, text):
    (tmp_path / name).write_text("{}")
    with pytest.raises(Problem, match=f"{text}.*--force"):
        write(tmp_path, digits)
    assert content(tmp_path) == {name: b"{}"}
    write(tmp_path, digits, force=True)
    assert name == "train.npz" or (tmp_path / name).read_text() == "{}"
    assert len(stored.load(tmp_path, "train").images) == 12


def test_a_file_in_the_way_is_refused_even_by_force(tmp_path, digits):
    (tmp_path / "set").write_text("mine")
    for force in (False, True):
        with pytest.raises(Problem):
            write(tmp_path / "set", digits, force=force)
    with pytest.raises(Problem, match="could not be written"):  # no folder can be made in a file
        write(tmp_path / "set" / "in", digits)
    assert content(tmp_path) == {"set": b"mine"}


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), KeyboardInterrupt()])
@pytest.mark.parametrize("step", ["_write_part", "_move"])
def test_an_interrupted_write_leaves_nothing_and_loses_nothing(
    tmp_path, digits, folder, monkeypatch, step, error
):
    def fail(*_):
        raise error

    before = content(tmp_path)
    monkeypatch.setattr(making, step, fail)
    for place, force in ((tmp_path / "new", False), (folder, True)):
        with pytest.raises((Problem, KeyboardInterrupt)) as raised:
            write(place, digits, seed=1, force=force)
        if isinstance(error, OSError):
            assert error.strerror in str(raised.value) and "--out" in str(raised.value)
    assert content(tmp_path) == before and not (tmp_path / "new").exists()


def test_what_a_killed_writer_left_is_removed(tmp_path, digits):
    for name in (".set.partial", ".sets.partial"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "train.npz").write_bytes(b"half")
    write(tmp_path / "set", digits)
    assert {path.name for path in tmp_path.iterdir()} == {"set", ".sets.partial", ".set.lock"}


@pytest.mark.parametrize("seed", [0, 1])
def test_a_second_writer_waits_and_takes_what_the_first_made(tmp_path, digits, monkeypatch, seed):
    started, waiting = threading.Event(), threading.Event()
    move = making._move

    def slow(*arguments):
        started.set()
        assert waiting.wait(30)
        move(*arguments)

    monkeypatch.setattr(making, "_move", slow)

    def hear(sentence):
        assert "Waiting" in sentence
        waiting.set()

    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(write, tmp_path / "set", digits)
        assert started.wait(30)
        second = pool.submit(write, tmp_path / "set", digits, seed=seed, say=hear)
        if seed:
            with pytest.raises(Problem, match="another data set"):
                second.result()
        else:
            assert second.result() == first.result()
    assert first.result() == cards.read(tmp_path / "set")


@pytest.mark.parametrize("name", ["set", ".set.lock", ".set.partial"])
def test_nothing_is_written_through_a_link(tmp_path, digits, name):
    outside = tmp_path / "outside"
    outside.mkdir()
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / name).symlink_to(outside)
    for force in (False, True):
        with pytest.raises(Problem, match="is a link"):
            write(tmp_path / "in" / "set", digits, force=force)
    assert list(outside.iterdir()) == []


def test_links_in_the_place_of_files_are_replaced(folder, digits):
    outside = folder.parent / "outside"
    outside.write_bytes(b"mine")
    for name in ("card.json", "test.npz", "montage.png"):
        (folder / name).unlink(missing_ok=True)
        (folder / name).symlink_to(outside)
    write(folder, digits, force=True)
    assert outside.read_bytes() == b"mine" and len(stored.load(folder, "test").images) == 7


def test_a_linked_data_set_is_read(folder, digits):
    (folder.parent / "link").symlink_to(folder)
    assert write(folder.parent / "link", digits) == cards.read(folder)


def test_a_set_half_replaced_does_not_look_complete(folder, digits, monkeypatch):
    replaced = making.os.replace

    def fail_at_the_second(source, target):
        if target.name == "validation.npz":
            raise OSError(5, "Input/output error")
        replaced(source, target)

    monkeypatch.setattr(making.os, "replace", fail_at_the_second)
    with pytest.raises(Problem, match="Input/output error"):
        write(folder, digits, seed=1, force=True)
    with pytest.raises(Problem, match="no data set"):
        stored.load(folder, "train")


# ---- What is not believed


def flip(path: Path) -> None:
    changed = bytearray(path.read_bytes())
    changed[len(changed) // 2] ^= 1
    path.write_bytes(changed)


DAMAGE = {
    "flip": flip,
    "truncate": lambda path: path.write_bytes(path.read_bytes()[:-100]),
    "empty": lambda path: path.write_bytes(b""),
    "delete": Path.unlink,
    "other part": lambda path: shutil.copy(path.with_name("train.npz"), path),
}


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE)
def test_a_damaged_file_is_noticed(folder, damage):
    damage(folder / "test.npz")
    for verify in (True, False):
        with pytest.raises(Problem, match=r"test\.npz.*--force") as problem:
            stored.load(folder, "test", verify=verify)
        assert "\n" not in str(problem.value)
    assert len(stored.load(folder, "train").images) == 12


def header(shape, descr="|u1") -> bytes:
    stream, layout = io.BytesIO(), {"descr": descr, "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(stream, layout)
    return stream.getvalue()


def boxes(*box) -> bytes:
    return header((7, 1, 4), "<i2") + np.tile(np.array(box, "<i2"), 7).tobytes()


GOOD = {
    "images": header((7, 40, 40)) + bytes(range(200)) * 56,
    "labels": header((7,)) + bytes(7),
    "boxes": boxes(0, 0, 28, 28),
}


def pack(path: Path, **change: bytes | None) -> None:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, body in (GOOD | change).items():
            if body is not None:
                archive.writestr(f"{name}.npy", body)


WRONG = {
    "a label of ten": ({"labels": header((7,)) + b"\x0a" * 7}, "label is 10"),
    "a claim of a terabyte": ({"images": header((10**6, 1000, 1000)) + b"x"}, "the card says"),
    "fewer bytes than claimed": ({"images": header((7, 40, 40)) + b"x"}, "claims"),
    "more bytes than claimed": ({"labels": header((7,)) + bytes(9)}, "claims"),
    "another type": ({"labels": header((7,), "<f8") + bytes(56)}, "float64"),
    "a pickle": ({"labels": header((7,), "|O") + bytes(56)}, "object"),
    "another shape": ({"labels": header((7, 1)) + bytes(7)}, r"\(7, 1\)"),
    "no array": ({"labels": b"hello"}, "damaged"),
    "a box outside": ({"boxes": boxes(13, 0, 28, 28)}, "not a 28x28 digit"),
    "a lost array": ({"boxes": None}, "boxes"),
}


@pytest.mark.parametrize(("change", "text"), WRONG.values(), ids=WRONG)
def test_arrays_that_are_not_what_the_card_says_are_refused(folder, change, text):
    pack(folder / "test.npz")
    assert len(stored.load(folder, "test", verify=False).images) == 7
    pack(folder / "test.npz", **change)
    with pytest.raises(Problem, match=text) as problem:
        stored.load(folder, "test", verify=False)
    assert "--force" in str(problem.value) and "\n" not in str(problem.value)


def test_a_bomb_takes_no_memory(folder, monkeypatch):
    """Card and header agree on a terabyte, and so does the directory of the zip file; only the few
    bytes in it do not.
    """
    card = json.loads((folder / "card.json").read_text())
    card["counts"]["test"], card["recipe"]["canvas"] = 1_000_000, 1_000
    del card["card_sha256"]  # a trap would come with a right one, or with none
    (folder / "card.json").write_text(json.dumps(card))
    pack(folder / "test.npz", images=header((1_000_000, 1_000, 1_000)) + bytes(1_000))
    promised = zipfile.ZipFile.getinfo

    def lie(archive, name):
        entry = promised(archive, name)
        entry.file_size = 10**12 + len(header((1_000_000, 1_000, 1_000)))
        return entry

    monkeypatch.setattr(zipfile.ZipFile, "getinfo", lie)
    monkeypatch.setattr(making.npy, "read_array", lambda *_, **__: pytest.fail("memory was taken"))
    with pytest.raises(Problem, match="claims 1,000,000,000,"):
        stored.load(folder, "test", verify=False)


@pytest.mark.parametrize(
    "change",
    [
        {"format": "other"},
        {"version": 99},
        {"counts": {"train": 1}},
        {"counts": COUNTS | {"test": 0}},
        {"counts": COUNTS | {"test": "7"}},
        {"recipe": {"canvas": 20, "digits": 1, "clutter": 0, "clutter_size": 8}},
        {"recipe": {"canvas": 40.5, "digits": 1, "clutter": 0, "clutter_size": 8}},
        {"recipe": {"size": 3}},
        {"recipe": None},
        {"sha256": {}},
        {"sha256": "abc"},
        {"command": 3},
    ],
    ids=str,
)
def test_a_wrong_card_is_refused(folder, digits, change):
    path = folder / "card.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    for use in (lambda: stored.load(folder, "test"), lambda: write(folder, digits)):
        with pytest.raises(Problem, match=r"card\.json is not a data set's card"):
            use()


@pytest.mark.parametrize("text", ["", "{", "[]", "null", "\x00", "[" * 100_000])
def test_a_garbled_card_is_refused(folder, text):
    (folder / "card.json").write_text(text)
    with pytest.raises(Problem, match="not a data set's card"):
        cards.read(folder)


def test_no_data_set(folder, tmp_path):
    for place in (tmp_path / "none", folder / "card.json"):
        with pytest.raises(Problem, match="make-data"):
            stored.load(place, "test")


@pytest.mark.parametrize("field", ["rule", "command", "source_note", "card_sha256"])
def test_a_change_anywhere_in_a_card_is_noticed(folder, field):
    path = folder / "card.json"
    path.write_text(path.read_text().replace(f'"{field}": "', f'"{field}": "x', 1))
    with pytest.raises(Problem, match="its own SHA-256"):
        cards.read(folder)
    path.write_text(path.read_text().replace('"card_sha256"', '"card_sha257"'))
    with pytest.raises(Problem, match="other fields"):
        cards.read(folder)
