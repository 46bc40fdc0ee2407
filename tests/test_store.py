"""Generated data sets: what is written, that it is the same every time, and that nothing else is
overwritten or believed.
"""

import io
import json
import shutil
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch

from drawbench.data import sources, store
from drawbench.data.scenes import DIGIT, Digits, Scene, fresh
from drawbench.data.sources import SPLITS, Source
from drawbench.errors import Problem

CLUTTERED, PAIRS = Scene(canvas=40, clutter=2), Scene(canvas=60, digits=2, clutter=0)
COUNTS = {"train": 12, "validation": 5, "test": 7}


@pytest.fixture(scope="module")
def digits() -> Source:
    return sources.load("digits", Path("unused"))


def marked(split_sizes=(30, 10, 20)) -> Source:
    """Parts that betray themselves: every pixel of a train digit is 1, of a validation digit 16, of
    a test digit 25.
    """
    parts = {}
    for split, size, grey in zip(SPLITS, split_sizes, (1, 16, 25), strict=True):
        parts[split] = Digits(
            torch.full((size, DIGIT, DIGIT), grey, dtype=torch.uint8),
            (torch.arange(size) % 10).to(torch.uint8),
        )
    return Source("marked", parts, "digits for a test", "0" * 64)


@pytest.fixture
def stored(tmp_path, digits) -> Path:
    store.write(tmp_path / "set", CLUTTERED, digits, "cluttered", 0, COUNTS)
    return tmp_path / "set"


def content(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


# ---- What is written


@pytest.mark.parametrize(("scene", "dataset"), [(CLUTTERED, "cluttered"), (PAIRS, "mnist2")])
def test_plain_numpy_reads_what_was_written(tmp_path, digits, scene, dataset):
    card = store.write(tmp_path / "set", scene, digits, dataset, 3, COUNTS)
    assert (
        card
        == store.card(tmp_path / "set")
        == json.loads((tmp_path / "set" / "card.json").read_text())
    )
    for split, count in COUNTS.items():
        expected = fresh(digits.splits[split], scene, torch.arange(count), 3, "set", split)
        with np.load(tmp_path / "set" / f"{split}.npz", allow_pickle=False) as arrays:
            assert set(arrays) == {"images", "labels", "boxes"}
            assert [arrays[name].dtype for name in ("images", "labels", "boxes")] == [
                np.uint8,
                np.uint8,
                np.int16,
            ]
            assert arrays["labels"].shape == ((count,) if scene.digits == 1 else (count, 2))
            assert arrays["boxes"].shape == (count, scene.digits, 4)
            assert np.array_equal(arrays["images"], expected.images)
            assert np.array_equal(arrays["labels"].reshape(count, -1), expected.labels)
            assert np.array_equal(arrays["boxes"], expected.boxes)
        loaded = store.load(tmp_path / "set", split)
        assert np.array_equal(loaded.images, expected.images) and np.array_equal(
            loaded.boxes, expected.boxes
        )
        assert loaded.card == card and loaded.images.flags.writeable


def test_the_card_tells_the_whole_story(stored, digits):
    card = store.card(stored)
    assert card["recipe"] == {"canvas": 40, "digits": 1, "clutter": 2, "clutter_size": 8}
    assert (card["dataset"], card["source"], card["seed"], card["counts"]) == (
        "cluttered",
        "digits",
        0,
        COUNTS,
    )
    assert "not MNIST" in card["source_note"] and card["source_sha256"] == digits.sha256
    assert set(card["sha256"]) == {"train.npz", "validation.npz", "test.npz"}
    assert "2 times a random 8x8 crop" in card["rule"] and "disjoint" in card["rule"]
    expected = "drawbench make-data cluttered --source digits --canvas 40 --digits 1 --clutter 2 --clutter-size 8 --seed 0"
    assert card["command"] == f"{expected} --train 12 --validation 5 --test 7"
    assert {path.name for path in stored.iterdir()} == {
        "card.json",
        "train.npz",
        "validation.npz",
        "test.npz",
    }


def test_the_same_recipe_and_seed_give_the_same_bytes(tmp_path, digits, stored):
    store.write(tmp_path / "again", CLUTTERED, digits, "cluttered", 0, COUNTS)
    assert content(tmp_path / "again") == content(stored)
    other = store.write(tmp_path / "other", CLUTTERED, digits, "cluttered", 1, COUNTS)
    assert other["content_sha256"]["test"] != store.card(stored)["content_sha256"]["test"]


def test_golden_pixel_content(stored):
    assert store.card(stored)["content_sha256"] == {
        "train": "629ab615a3bc56ad37403f32c7b525f1d4b66b7b7199c48d2cf69b7c2eba09e2",
        "validation": "e9b55b7ce7ecadcf39eaa5dfb0f8dba1e3d666ba8492c3de16de337f4469d59d",
        "test": "d733cb2058c8f77637230d3da94fae2a93fca087e4b0f05b6770d75f1097c3fc",
    }


def test_golden_pixel_content_of_pairs(tmp_path, digits):
    assert store.write(tmp_path / "set", PAIRS, digits, "mnist2", 0, COUNTS)["content_sha256"] == {
        "train": "a9178493caba87879e26b3bba76b8629de8b2eb7c79842c8953258cc61cfd193",
        "validation": "0a5a9b4d54038802a1fd1256608b688f6dc6e3ae963ff76e3bbb01ccb071a08b",
        "test": "e43a97e980db409163c2149da890e3f63689559220aadf08dc982b54af6e6556",
    }


def test_no_time_of_day_is_stored(stored):
    with zipfile.ZipFile(stored / "test.npz") as archive:
        assert {entry.date_time for entry in archive.infolist()} == {(1980, 1, 1, 0, 0, 0)}


def test_the_size_of_a_chunk_does_not_matter(tmp_path, digits, stored, monkeypatch):
    monkeypatch.setattr(store, "_CHUNK_BYTES", 60_000)  # two scenes at a time
    store.write(tmp_path / "again", CLUTTERED, digits, "cluttered", 0, COUNTS)
    assert content(tmp_path / "again") == content(stored)


def test_each_digit_of_a_part_is_the_target_once_and_larger_sets_start_over(tmp_path):
    source = marked()
    for split in SPLITS:  # make each digit recognisable by its own grey
        part = source.splits[split]
        part.images[:] = torch.arange(1, len(part) + 1, dtype=torch.uint8)[:, None, None]
    bare = Scene(canvas=28, clutter=0)
    store.write(tmp_path / "once", bare, source, "cluttered", 0)
    store.write(tmp_path / "more", bare, source, "cluttered", 0, {"train": 75})
    for split, size in zip(SPLITS, (30, 10, 20), strict=True):
        assert sorted(store.load(tmp_path / "once", split).images[:, 0, 0].tolist()) == list(
            range(1, size + 1)
        )
    shown = store.load(tmp_path / "more", "train").images[:, 0, 0].tolist()
    assert (
        sorted(shown[:30]) == sorted(shown[30:60]) == list(range(1, 31))
        and shown[:30] != shown[30:60]
    )
    assert len(set(shown[60:])) == 15


def test_parts_share_no_digit_not_even_in_the_clutter(tmp_path):
    store.write(tmp_path / "set", Scene(canvas=30), marked(), "cluttered", 0)
    for split, grey in zip(SPLITS, (1, 16, 25), strict=True):
        images = store.load(tmp_path / "set", split).images
        assert (
            (images % grey == 0).all()
            and images.max() > grey
            and (split != "train" or images.max() <= 9)
        )


def test_progress_runs_from_the_first_to_the_last_scene(tmp_path, digits, monkeypatch):
    monkeypatch.setattr(store, "_CHUNK_BYTES", 60_000)
    calls = []
    store.write(
        tmp_path / "set",
        CLUTTERED,
        digits,
        "cluttered",
        0,
        COUNTS,
        progress=lambda done, total: calls.append((done, total)),
    )
    assert [done for done, _ in calls] == sorted({done for done, _ in calls})
    assert calls[-1] == (24, 24) and {total for _, total in calls} == {24}


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
    assert store.default_folder("datasets", scene, dataset, source, seed) == Path("datasets") / name


# ---- What is refused


@pytest.mark.parametrize("count", [0, -5, 2.0, True])
def test_counts_must_be_positive(tmp_path, digits, count):
    with pytest.raises(Problem, match="at least 1 scene"):
        store.write(tmp_path / "set", CLUTTERED, digits, "cluttered", 0, {"test": count})
    with pytest.raises(Problem, match="no part 'valid'"):
        store.write(tmp_path / "set", CLUTTERED, digits, "cluttered", 0, {"valid": 5})
    assert list(tmp_path.iterdir()) == []


def test_the_same_set_is_kept(stored, digits):
    before, said = {path: path.stat().st_mtime_ns for path in stored.iterdir()}, []
    card = store.write(stored, CLUTTERED, digits, "cluttered", 0, COUNTS, say=said.append)
    assert card == store.card(stored) and len(said) == 1 and "kept" in said[0]
    assert {path: path.stat().st_mtime_ns for path in stored.iterdir()} == before


def test_a_file_far_larger_than_the_card_says_is_not_read_through(stored):
    with (stored / "test.npz").open("wb") as file:
        file.truncate(1 << 40)  # which takes no place, but would take an hour
    with pytest.raises(Problem, match="not worth computing"):
        store.load(stored, "test")


def test_the_same_set_but_damaged_is_not_kept(stored, digits):
    flip(stored / "test.npz")
    with pytest.raises(Problem, match=r"test\.npz is damaged.*--force"):
        store.write(stored, CLUTTERED, digits, "cluttered", 0, COUNTS)
    store.write(stored, CLUTTERED, digits, "cluttered", 0, COUNTS, force=True)
    assert len(store.load(stored, "test").images) == 7


@pytest.mark.parametrize(
    "change",
    [
        {"seed": 1},
        {"scene": Scene(canvas=41, clutter=2)},
        {"counts": COUNTS | {"test": 8}},
        {"dataset": "x"},
    ],
)
def test_another_set_is_replaced_only_by_force_and_other_files_stay(stored, digits, change):
    arguments = {
        "scene": CLUTTERED,
        "source": digits,
        "dataset": "cluttered",
        "seed": 0,
        "counts": COUNTS,
    } | change
    (stored / "montage.png").write_bytes(b"old")
    (stored / "my notes.txt").write_text("mine")
    before = content(stored)
    with pytest.raises(
        Problem, match=r"another data set \(cluttered 40x40 from digits, seed 0\).*--force"
    ):
        store.write(stored, **arguments)
    assert content(stored) == before
    card = store.write(stored, **arguments, force=True)
    assert (
        store.card(stored) == card
        and len(store.load(stored, "test").images) == card["counts"]["test"]
    )
    assert (stored / "my notes.txt").read_text() == "mine" and not (stored / "montage.png").exists()


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("config.json", "a run"),
        ("result.json", "a run"),
        ("thesis.tex", r"thesis\.tex"),
        ("train.npz", "not a complete data set"),
    ],
)
def test_a_folder_with_anything_else_is_refused(tmp_path, digits, name, text):
    (tmp_path / name).write_text("{}")
    with pytest.raises(Problem, match=f"{text}.*--force"):
        store.write(tmp_path, CLUTTERED, digits, "cluttered", 0, COUNTS)
    assert content(tmp_path) == {name: b"{}"}
    store.write(tmp_path, CLUTTERED, digits, "cluttered", 0, COUNTS, force=True)
    assert name == "train.npz" or (tmp_path / name).read_text() == "{}"
    assert len(store.load(tmp_path, "train").images) == 12


def test_a_file_in_the_way_is_refused_even_by_force(tmp_path, digits):
    (tmp_path / "set").write_text("mine")
    for force in (False, True):
        with pytest.raises(Problem):
            store.write(tmp_path / "set", CLUTTERED, digits, "cluttered", 0, COUNTS, force=force)
    assert content(tmp_path) == {"set": b"mine"}


def test_an_empty_folder_is_taken(tmp_path, digits):
    store.write(tmp_path, CLUTTERED, digits, "cluttered", 0, COUNTS)
    assert len(store.load(tmp_path, "test").labels) == 7


@pytest.mark.parametrize(
    "error",
    [
        OSError(28, "No space left on device"),
        PermissionError(13, "Permission denied"),
        KeyboardInterrupt(),
    ],
)
@pytest.mark.parametrize("step", ["_write_part", "_move"])
def test_an_interrupted_write_leaves_nothing_and_loses_nothing(
    tmp_path, digits, stored, monkeypatch, step, error
):
    def fail(*_):
        raise error

    before = content(tmp_path)
    monkeypatch.setattr(store, step, fail)
    for folder, force in ((tmp_path / "new", False), (stored, True)):
        with pytest.raises((Problem, KeyboardInterrupt)) as raised:
            store.write(folder, CLUTTERED, digits, "cluttered", 1, COUNTS, force=force)
        if isinstance(error, OSError):
            assert error.strerror in str(raised.value) and "--out" in str(raised.value)
    assert content(tmp_path) == before and not (tmp_path / "new").exists()


def test_what_a_killed_writer_left_is_removed_and_what_a_living_one_has_is_not(tmp_path, digits):
    dead, alive, other = (
        tmp_path / name for name in (".set.0.partial", ".set.1.partial", ".sets.2.partial")
    )
    for folder in (dead, alive, other):
        folder.mkdir()
        (folder / "train.npz").write_bytes(b"half")
    with store._locked(alive) as ours:
        assert ours
        store.write(tmp_path / "set", CLUTTERED, digits, "cluttered", 0, COUNTS)
    assert {path.name for path in tmp_path.iterdir()} == {"set", alive.name, other.name}


def test_of_two_that_write_one_set_at_once_both_have_it(tmp_path, digits, monkeypatch):
    """The other is done at the moment that this one wants to put its own in place; another set
    there would be refused as ever.
    """
    move = store._move

    def late(seed):
        def second(*arguments):
            monkeypatch.setattr(store, "_move", move)
            store.write(tmp_path / "set", CLUTTERED, digits, "cluttered", seed, COUNTS)
            move(*arguments)

        monkeypatch.setattr(store, "_move", second)
        return store.write(tmp_path / "set", CLUTTERED, digits, "cluttered", 0, COUNTS)

    assert late(0) == store.card(tmp_path / "set")
    store.load(tmp_path / "set", "test")
    shutil.rmtree(tmp_path / "set")
    with pytest.raises(Problem, match="another data set"):
        late(1)
    assert [path.name for path in tmp_path.iterdir()] == ["set"]


def test_a_set_half_replaced_does_not_look_complete(stored, digits, monkeypatch):
    replaced = store.os.replace

    def fail_at_the_second(source, target):
        if target.name == "validation.npz":
            raise OSError(5, "Input/output error")
        replaced(source, target)

    monkeypatch.setattr(store.os, "replace", fail_at_the_second)
    with pytest.raises(Problem, match="Input/output error"):
        store.write(stored, CLUTTERED, digits, "cluttered", 1, COUNTS, force=True)
    with pytest.raises(Problem, match="no data set"):
        store.load(stored, "train")


def test_a_place_where_no_folder_can_be_made(tmp_path, digits):
    (tmp_path / "file").write_text("")
    with pytest.raises(Problem, match="could not be written"):
        store.write(tmp_path / "file" / "set", CLUTTERED, digits, "cluttered", 0, COUNTS)


# ---- What is not believed


def flip(path: Path) -> None:
    changed = bytearray(path.read_bytes())
    changed[len(changed) // 2] ^= 1
    path.write_bytes(changed)


@pytest.mark.parametrize("damage", ["flip", "truncate", "empty", "delete", "other part"])
def test_a_damaged_file_is_noticed(stored, damage):
    path = stored / "test.npz"
    match damage:
        case "flip":
            flip(path)
        case "truncate":
            path.write_bytes(path.read_bytes()[:-100])
        case "empty":
            path.write_bytes(b"")
        case "delete":
            path.unlink()
        case "other part":
            shutil.copy(stored / "train.npz", path)
    with pytest.raises(Problem, match=r"test\.npz.*--force") as problem:
        store.load(stored, "test")
    assert "\n" not in str(problem.value)
    with pytest.raises(Problem, match=r"test\.npz.*--force"):
        store.load(stored, "test", verify=False)
    assert len(store.load(stored, "train").images) == 12


def header(shape, descr="|u1") -> bytes:
    stream = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        stream, {"descr": descr, "fortran_order": False, "shape": shape}
    )
    return stream.getvalue()


def pack(path: Path, members: dict[str, bytes]) -> None:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, body in members.items():
            archive.writestr(f"{name}.npy", body)


def good() -> dict[str, bytes]:
    boxes = np.tile(np.array([0, 0, 28, 28], "<i2"), (7, 1, 1))
    return {
        "images": header((7, 40, 40)) + bytes(range(200)) * 56,
        "labels": header((7,)) + bytes(7),
        "boxes": header((7, 1, 4), "<i2") + boxes.tobytes(),
    }


WRONG = {
    "a label of ten": ({"labels": header((7,)) + b"\x0a" * 7}, "label is 10"),
    "a claim of a terabyte": ({"images": header((10**6, 1000, 1000)) + b"x"}, "the card says"),
    "fewer bytes than claimed": ({"images": header((7, 40, 40)) + b"x"}, "claims"),
    "more bytes than claimed": ({"labels": header((7,)) + bytes(9)}, "claims"),
    "another type": ({"labels": header((7,), "<f8") + bytes(56)}, "float64"),
    "a pickle": ({"labels": header((7,), "|O") + bytes(56)}, "object"),
    "another shape": ({"labels": header((7, 1)) + bytes(7)}, r"\(7, 1\)"),
    "no array": ({"labels": b"hello"}, "damaged"),
    "a box outside": (
        {
            "boxes": header((7, 1, 4), "<i2")
            + np.tile(np.array([13, 0, 28, 28], "<i2"), (7, 1)).tobytes()
        },
        "not a 28x28 digit",
    ),
    "a lost array": ({"boxes": None}, "boxes"),
}


@pytest.mark.parametrize(("change", "text"), WRONG.values(), ids=WRONG)
def test_arrays_that_are_not_what_the_card_says_are_refused(stored, change, text):
    pack(stored / "test.npz", good())
    assert len(store.load(stored, "test", verify=False).images) == 7
    pack(
        stored / "test.npz",
        {name: body for name, body in (good() | change).items() if body is not None},
    )
    with pytest.raises(Problem, match=text) as problem:
        store.load(stored, "test", verify=False)
    assert "--force" in str(problem.value) and "\n" not in str(problem.value)


def test_a_bomb_takes_no_memory(stored, monkeypatch):
    """Card and header agree on a terabyte, and so does the directory of the zip file; only the few
    bytes in it do not.
    """
    card = json.loads((stored / "card.json").read_text())
    card["counts"]["test"], card["recipe"]["canvas"] = 1_000_000, 1_000
    (stored / "card.json").write_text(json.dumps(card))
    pack(stored / "test.npz", good() | {"images": header((1_000_000, 1_000, 1_000)) + bytes(1_000)})
    promised = zipfile.ZipFile.getinfo

    def lie(archive, name):
        entry = promised(archive, name)
        entry.file_size = 10**12 + len(header((1_000_000, 1_000, 1_000)))
        return entry

    monkeypatch.setattr(zipfile.ZipFile, "getinfo", lie)
    monkeypatch.setattr(store.npy, "read_array", lambda *_, **__: pytest.fail("memory was taken"))
    with pytest.raises(Problem, match="claims 1,000,000,000,"):
        store.load(stored, "test", verify=False)


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
def test_a_wrong_card_is_refused(stored, digits, change):
    path = stored / "card.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(Problem, match=r"card\.json is not a data set's card"):
        store.load(stored, "test")
    with pytest.raises(Problem, match=r"card\.json is not a data set's card"):
        store.write(stored, CLUTTERED, digits, "cluttered", 0, COUNTS)


@pytest.mark.parametrize("text", ["", "{", "[]", "3", "null", "\x00", "[" * 100_000])
def test_a_garbled_card_is_refused(stored, text):
    (stored / "card.json").write_text(text)
    with pytest.raises(Problem, match="not a data set's card"):
        store.card(stored)


def test_no_data_set_and_no_such_part(stored, tmp_path):
    for folder in (tmp_path / "none", stored / "card.json"):
        with pytest.raises(Problem, match="make-data"):
            store.load(folder, "test")
    with pytest.raises(Problem, match="no part 'valid': choose one of train, validation, test"):
        store.load(stored, "valid")
