"""Damaged files of every kind, hostile names and random command lines."""

import contextlib
import functools
import hashlib
import http.server
import io
import json
import pickle
import shutil
import socket
import struct
import sys
import tarfile
import tempfile
import threading
import types
import zipfile
import zlib
from html.parser import HTMLParser
from pathlib import Path

import click
import house_files
import numpy as np
import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st
from PIL import Image
from torch import nn
from torchvision.datasets import CIFAR10

from drawbench import config as configs
from drawbench import data, listing, runs
from drawbench.cli import cli
from drawbench.data import digit_struct
from drawbench.errors import Problem
from drawbench.files import hashed

from .damage import (
    ANY,
    DAMAGE,
    DEEP,
    EDITS,
    JSON,
    LONG_NUMBER,
    NAMES,
    SURROGATE,
    as_json,
    damaged,
    edited,
    spoil,
)
from .limits import MARKER, TALLIES, Hang, Payload, case, cases, check_sentence, drawbench

SMALL = ("--source=digits", "--glimpses=2", "--hidden=3", "--steps=4", "--threads=1")
SCENE = ("--canvas=28", "--clutter=1")
CLASSIFY = ("classify", *SMALL, *SCENE, "--patch=2", "--batch=8", "--run=classifier")
GENERATE = ("generate", *SMALL, "--latent=2", "--batch=8", "--validation-images=10")
JSON_FILES = ("config.json", "result.json", "environment.json")


@pytest.fixture(scope="module", autouse=True)
def offline():
    """Refuse every connection but those to this machine, and leave out figures."""
    real = socket.getaddrinfo

    def local(host, *arguments, **settings):
        if host not in ("localhost", "127.0.0.1"):
            raise OSError("there is no network in these tests")
        return real(host, *arguments, **settings)

    threads = torch.get_num_threads()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(socket, "getaddrinfo", local)
        for kind in ("classifier", "generator"):
            patch.setattr(f"drawbench.tasks.pictures.{kind}_pictures", lambda *_: [])
        patch.delenv("DRAWBENCH_SOURCES", raising=False)
        yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def sound(tmp_path_factory) -> Path:
    """A folder with a classifier, a generator, an unfinished classifier and their data set."""
    folder = tmp_path_factory.mktemp("sound")
    with contextlib.chdir(folder):
        drawbench(*CLASSIFY)
        drawbench(*GENERATE, "--run=generator")
    results = folder / "results" / "runs"
    shutil.copytree(results / "classifier", results / "unfinished")
    (results / "unfinished" / "result.json").unlink()
    return folder


RUNS = Path("results/runs")


# ----------------------------------------------------------------------------- sources and pictures


@functools.cache
def source_files() -> dict[str, bytes]:
    """Small files in the formats of the published ones, by their place in the sources folder."""
    random, files = np.random.default_rng(0), {}
    for part, count in (("train", 20), ("t10k", 6)):
        pixels = random.integers(0, 256, count * 784, dtype=np.uint8).tobytes()
        labels = bytes(number % 10 for number in range(count))
        images = struct.pack(">4i", 2051, count, 28, 28) + pixels
        files[f"MNIST/raw/{part}-images-idx3-ubyte"] = images
        files[f"MNIST/raw/{part}-labels-idx1-ubyte"] = struct.pack(">2i", 2049, count) + labels
    for part in ("train", "valid", "test"):
        lines = [" ".join(map(str, row)) for row in random.integers(0, 2, (3, 784))]
        files[f"binarized_mnist/binarized_mnist_{part}.amat"] = "\n".join(lines).encode()
    return files


@cases(20)
@given(st.sampled_from(sorted(source_files())), ANY)
def test_sources_that_are_not_the_originals_are_refused(name, damage):
    with case("sources: IDX, amat") as folder:
        for file, content in source_files().items():
            (folder / file).parent.mkdir(parents=True, exist_ok=True)
            (folder / file).write_bytes(content)
        spoil(folder / name, damage)
        drawbench("doctor", f"--sources={folder}", "--json")
        if name.endswith("amat"):
            drawbench(*GENERATE, "--source=mnist", "--pixels=static", f"--sources={folder}")
        else:
            drawbench("make-data", "cluttered", "--source=mnist", f"--sources={folder}")
        raise AssertionError("files with another hash than the originals were accepted")


@functools.cache
def boxes_of_houses() -> bytes:
    """A small ``digitStruct.mat`` of SVHN."""
    digits = [house_files.digit(1 + n, 3, 4, 5, 6) for n in range(3)]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "digitStruct.mat")
        house_files.write_digit_struct(path, {"1.png": digits[:1], "2.png": digits})
        return path.read_bytes()


@cases(20)
@given(DAMAGE)
def test_a_damaged_file_of_boxes_is_read_or_refused(damage):
    with case("sources: digitStruct.mat") as folder:
        (folder / "digitStruct.mat").write_bytes(damaged(boxes_of_houses(), damage))
        for house in digit_struct.read(folder / "digitStruct.mat"):
            assert set(house.labels) <= set(range(10)) and np.isfinite(house.boxes).all()


@functools.cache
def pictures() -> dict[str, bytes]:
    """Images in every format that a folder may hold."""
    pixels = np.random.default_rng(0).integers(0, 256, (9, 11, 3), dtype=np.uint8)
    files = {}
    names = "rgb.png clear.png palette.png grey.png photo.jpg cmyk.jpg old.bmp new.webp moving.gif"
    modes = ["RGB", "RGBA", "P", "L", "RGB", "CMYK", "RGB", "RGB", "P"]
    for name, mode in zip(names.split(), modes, strict=True):
        buffer = io.BytesIO()
        form = {"jpg": "jpeg"}.get(name.partition(".")[2], name.partition(".")[2])
        Image.fromarray(pixels).convert(mode).save(buffer, form)
        files[name] = buffer.getvalue()
    return files


def huge_png(width: int, height: int) -> bytes:
    """Return a PNG whose header promises a size that its data do not have."""
    content = pictures()["rgb.png"]
    header = b"IHDR" + struct.pack(">2I", width, height) + content[24:29]
    checksum = struct.pack(">I", zlib.crc32(header))
    return content[:12] + header + checksum + content[33:]


SCRIPT = f"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n(../{MARKER}) (w) file closefile\n"
CONTENTS = (
    SCRIPT.encode(),
    b"<svg xmlns='http://www.w3.org/2000/svg'/>",
    b"",
    huge_png(65_535, 65_535),
    huge_png(0, 9),
    huge_png((1 << 31) - 1, 1),
)
CONTENT = st.tuples(st.just("content"), st.sampled_from(CONTENTS))


@cases(30)
@given(st.sampled_from(sorted(pictures())), ANY | ANY | CONTENT, st.sampled_from(["stop", "skip"]))
def test_image_folders(name, damage, broken):
    with case("image folders") as folder:
        for part in ("train", "test"):
            (folder / "images" / part).mkdir(parents=True)
            for number in range(3):
                place = folder / "images" / part / f"{number}.png"
                place.write_bytes(pictures()["rgb.png"])
        path = folder / "images" / "train" / name
        path.write_bytes(pictures()[name])
        if damage[0] == "content":
            path.write_bytes(damage[1])
        else:
            spoil(path, damage)
        given = {"dataset": "folder", "images": str(folder / "images"), "size": 8, "broken": broken}
        dataset = load_data(configs.Generate, given, folder, check_sentence)
        assert dataset.test.images.shape[1:] == (3, 8, 8)


def load_data(kind, given: dict, folder: Path, say=lambda text: None, download=False):
    settings = configs.merge(kind, {}, given).data
    roots = {"sources_root": folder / "sources", "datasets_root": folder / "datasets"}
    return data.load(settings, seed=0, **roots, download=download, say=say)


# ------------------------------------------------------------------------------ generated data sets

ARRAYS = ("images", "labels", "boxes")
HEADERS = (
    "",
    "{",
    "(" * 3000,
    "{'descr': '|O', 'fortran_order': False, 'shape': (4,), }",
    "{'descr': '|u1', 'fortran_order': False, 'shape': (True, '4'), }",
    "{'descr': '|u1', 'fortran_order': False, 'shape': (-1, 4), }",
    "{'descr': '|u1', 'fortran_order': False, 'shape': (1099511627776,), }",
    "{'descr': ('|u1', (1 << 40,)), 'fortran_order': False, 'shape': (4,), }",
    f"__import__('os').mkdir('../{MARKER}')",
)
TYPES = ("<i2", ">i2", "<f8", "<c16", "|S3", "<M8[s]", "|b1", "<i8")
STRUCTURE = st.one_of(
    st.tuples(st.just("header"), st.sampled_from(HEADERS) | st.text(max_size=30)),
    st.tuples(st.just("type"), st.sampled_from(TYPES)),
    st.tuples(st.just("bytes"), DAMAGE),
    st.tuples(st.sampled_from(["pickle", "missing", "largest", "twice", "outside"]), st.none()),
)


def packed(members: list[tuple[str, bytes]]) -> bytes:
    buffer = io.BytesIO()
    with (
        zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive,
        pytest.MonkeyPatch.context(),
    ):
        for name, content in members:
            archive.writestr(name, content)
    return buffer.getvalue()


def headed(header: str, body: bytes = b"\0" * 4) -> bytes:
    """Return the bytes of an array with any header."""
    text = header.encode("utf-8", "replace")[:60_000]
    return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text + body


def restructured(content: bytes, array: str, how: str, argument) -> bytes:
    """Return an npz file with one array changed as no disk would, but a person might."""
    with np.load(io.BytesIO(content)) as archive:
        arrays = {name: archive[name] for name in archive.files}

    def written(values: np.ndarray) -> bytes:
        buffer = io.BytesIO()
        np.save(buffer, values)
        return buffer.getvalue()

    members = {f"{name}.npy": written(values) for name, values in arrays.items()}
    own = f"{array}.npy"
    if how == "header":
        members[own] = headed(argument)
    elif how == "bytes":
        members[own] = damaged(members[own], argument)
    elif how == "type":
        with np.errstate(all="ignore"):
            members[own] = written(arrays[array].astype(argument))
    elif how == "pickle":
        objects = np.full(len(arrays[array]), Payload(), object)
        shape = f"{{'descr': '|O', 'fortran_order': False, 'shape': {objects.shape}, }}"
        members[own] = headed(shape, pickle.dumps(objects))
    elif how == "missing":
        del members[own]
    elif how == "largest":
        values = arrays[array]
        members[own] = written(np.full_like(values, np.iinfo(values.dtype).max))
    elif how == "outside":
        members["../../../escaped"] = b"x"
    extra = [(own, members[own][:-1] + b"\xff")] if how == "twice" else []
    return packed([*members.items(), *extra])


@cases(30)
@given(
    st.tuples(st.just("card.json"), JSON)
    | st.tuples(
        st.sampled_from(["test.npz", "validation.npz"]),
        ANY | st.tuples(st.sampled_from(ARRAYS), STRUCTURE),
    )
)
def test_data_sets(sound, damage):
    name, how = damage
    with case("data sets, cards", sound) as folder:
        place = next((folder / "datasets").glob("*/card.json")).parent
        if how[0] in ARRAYS:  # under a right hash, as a stranger would make it
            content = restructured((place / name).read_bytes(), how[0], *how[1])
            (place / name).write_bytes(content)
            card = json.loads((place / "card.json").read_text())
            card["sha256"][name] = hashlib.sha256(content).hexdigest()
            del card["card_sha256"]
            (place / "card.json").write_text(json.dumps(card))
        else:
            spoil(place / name, how)
        given = {"source": "digits", "canvas": 28, "clutter": 1}
        dataset = load_data(configs.Classify, given, folder)
        assert dataset.test.images.dtype == torch.uint8 and int(dataset.test.labels.max()) <= 9


# ---------------------------------------------------------------------- recipes and configurations

KEYS = (
    "glimpses",
    "model",
    "task",
    "learning_rate",
    "steps",
    "seed",
    "batch",
    "a.b.c",
    '"\\u0000"',
)
TOML = (
    "8",
    "-1",
    "true",
    "nan",
    "1e400",
    "9" * 5000,
    '"draw"',
    "'../x'",
    '""',
    "[]",
    "{a = {b = 1}}",
)
TOML += ("1979-05-27", "[" * 900 + "]" * 900, '"' + "x" * 2000 + '"', "__import__('os')")
LINES = st.one_of(
    st.builds("{} = {}".format, st.sampled_from(KEYS), st.sampled_from(TOML)),
    st.sampled_from(["[model]", "[[model]]", "[task]", "[" + "a." * 400 + "a]", "=", "#"]),
    st.text(max_size=12),
)


@cases(40)
@given(
    st.sampled_from(configs.recipes()),
    st.sampled_from([configs.Classify, configs.Generate, configs.MakeData]),
    st.lists(LINES, max_size=1),
    st.integers(0, 30),
    st.just([]) | st.just([]) | DAMAGE,
)
def test_recipes(recipe, kind, lines, at, damage):
    with case("recipes") as folder:
        path = Path(configs.__file__).parent / "recipes" / f"{recipe}.toml"
        text = path.read_text().splitlines()
        text[at % (len(text) + 1) : 0] = lines
        content = damaged("\n".join(text).encode("utf-8", "replace"), damage)
        (folder / "recipe.toml").write_bytes(content)
        check_round_trip(configs.merge(kind, configs.load_recipe("recipe.toml"), {}))


def check_round_trip(config) -> None:
    """Check that what was accepted can be written and read again."""
    written = json.dumps(configs.to_dict(config), allow_nan=False)
    assert configs.from_dict(json.loads(written)) == config


@cases(30)
@given(st.sampled_from(["classifier", "generator"]), JSON)
def test_configurations(sound, name, damage):
    with case("configurations") as folder:
        path = folder / "run" / "config.json"
        path.parent.mkdir()
        shutil.copy(sound / RUNS / name / "config.json", path)
        spoil(path, damage)
        check_round_trip(config := runs.Run.open(path.parent).config)
        recipe = configs.load_recipe(str(path))
        assert configs.merge(configs.TASKS[recipe.pop("task")], recipe, {}) == config


# -------------------------------------------------------------------------- checkpoints and weights

SAFETENSORS = (
    b"[" * 3000,
    b'{"a":{"dtype":"F32","shape":[1099511627776],"data_offsets":[0,4398046511104]}}',
    b'{"a":{"dtype":"U8","shape":[4],"data_offsets":[4,0]}}',
    b'{"__metadata__":{"format":"drawbench checkpoint 1"}}',
)
HEADER = st.tuples(
    st.just("header"),
    st.tuples(st.sampled_from([None, 0, 7, 1 << 40, (1 << 64) - 1]), st.sampled_from(SAFETENSORS)),
)
TENSOR = st.sampled_from(["missing", "nan", "shape", "empty", "float64", "int64"])
STATES = st.one_of(
    ANY,
    HEADER,
    st.tuples(st.just("pickle"), st.none()),
    st.tuples(st.just("facts"), EDITS),
    st.tuples(st.just("tensor"), st.tuples(st.integers(0, 60), TENSOR)),
)


def with_header(length: int | None, header: bytes) -> bytes:
    return struct.pack("<Q", len(header) if length is None else length) + header + b"\1\2\3\4"


def with_tensor(tensors: dict, number: int, how: str) -> dict:
    """Return the tensors with one of them changed."""
    name = sorted(tensors)[number % len(tensors)]
    changes = {
        "nan": lambda tensor: tensor * float("nan"),
        "shape": lambda tensor: torch.zeros(*tensor.shape, 2),
        "empty": lambda tensor: torch.zeros(0),
        "float64": lambda tensor: tensor.double(),
        "int64": lambda tensor: tensor.long(),
    }
    if how == "missing":
        return {key: tensor for key, tensor in tensors.items() if key != name}
    return tensors | {name: changes[how](tensors[name])}


def spoil_checkpoint(path: Path, damage: tuple) -> None:
    """Damage a checkpoint; its facts and tensors under a right hash, as a stranger would."""
    how, argument = damage
    if how == "header":
        path.write_bytes(with_header(*argument))
    elif how == "pickle":
        torch.save(Payload(), path)
    elif how in ("facts", "tensor"):
        tensors, facts = runs.load_checkpoint(path)
        if how == "facts":
            facts = edited(facts, argument)
        else:
            tensors = with_tensor(tensors, *argument)
        with contextlib.suppress(ValueError, TypeError, AttributeError, UnicodeError):
            runs.save_checkpoint(path, tensors, facts)  # not all facts can be written
    else:
        spoil(path, damage)


@cases(20)
@example("classifier", ("bytes", []))
@example("generator", ("bytes", []))
@given(st.sampled_from(["classifier", "generator"]), STATES)
def test_best_weights(sound, name, damage):
    with case("checkpoints: weights", sound) as folder:
        spoil_checkpoint(RUNS / name / runs.BEST, damage)
        drawbench("evaluate", RUNS / name, "--json")
        if damage[0] in ("bytes", "place"):
            tensors, _ = runs.load_checkpoint(folder / RUNS / name / runs.BEST)
            others, _ = runs.load_checkpoint(sound / RUNS / name / runs.BEST)
            assert all(torch.equal(tensors[key], others[key]) for key in others)
        return
    assert damage != ("bytes", []), "sound weights are refused"


@cases(7)
@given(STATES)
def test_states_to_resume_from(sound, damage):
    with case("checkpoints: states", sound):
        spoil_checkpoint(RUNS / "unfinished" / runs.LAST, damage)
        drawbench("resume", RUNS / "unfinished")


PICKLES = (
    f"cos\nsystem\n(S'touch ../{MARKER}'\ntR.".encode(),
    b"\x80\x02X\xff\xff\xff\x7fa.",
    b"t.",
)
NETWORK = {"1.weight": torch.ones(10, 784), "1.bias": torch.zeros(10)}
VALUES = {
    "sound": NETWORK,
    "list": [torch.ones(2)],
    "payload": {**NETWORK, "1.bias": Payload()},
    "hostile": {"../../x": torch.ones(1), "<b>\n": torch.ones(1), "a" * 5000: torch.ones(1)},
}


@pytest.fixture(scope="module")
def guest():
    """A module with somebody's own network."""
    module = types.ModuleType("fuzzed_guest")
    module.network = lambda: nn.Sequential(nn.Flatten(), nn.Linear(784, 10))
    sys.modules["fuzzed_guest"] = module
    yield "fuzzed_guest:network"
    del sys.modules["fuzzed_guest"]


@cases(15)
@example("w.pt", ("value", "sound"))
@given(
    st.sampled_from(["w.pt", "w.safetensors"]),
    st.one_of(
        ANY,
        HEADER,
        st.tuples(st.just("pickle"), st.sampled_from(PICKLES)),
        st.tuples(st.just("value"), st.sampled_from(sorted(VALUES))),
    ),
)
def test_weights_of_your_own_models(sound, guest, name, damage):
    with case("weights", sound) as folder:
        path, (how, argument) = folder / name, damage
        torch.save(VALUES[argument] if how == "value" else NETWORK, path)
        if how == "header":
            path.write_bytes(with_header(*argument))
        elif how == "pickle":
            path.write_bytes(argument)
        elif how != "value":
            spoil(path, damage)
        where = ("--source=digits", *SCENE, "--run=guest", "--json")
        drawbench("evaluate", f"--model={guest}", f"--weights={path}", *where)
        return
    assert (name, *damage) != ("w.pt", "value", "sound"), "sound weights are refused"


# ------------------------------------------------------------------------------------ finished runs


@cases(6)
@given(
    st.sampled_from(["classifier", "generator"]),
    st.tuples(st.sampled_from(JSON_FILES), JSON) | st.tuples(st.just("metrics.csv"), ANY),
)
def test_finished_runs_in_tables(sound, name, damage):
    file, how = damage
    with case("results, metrics", sound):
        spoil(RUNS / name / file, how)
        rows = listing.rows([Path(RUNS)], check_sentence)
        json.dumps(rows, allow_nan=False)
        assert len(rows) in (2, 3)  # a run whose config.json is no file is no run
        assert all(row["problem"] or row["settings"] for row in rows)
        result = drawbench("tables", RUNS, "--out=tables")
        for line in result.stderr.splitlines():
            check_sentence(line)


@cases(20)
@given(ANY | st.tuples(st.just("structure"), STRUCTURE))
def test_outcomes_on_test_images(sound, damage):
    with case("test outcomes", sound) as folder:
        path = folder / RUNS / "classifier" / "test.npz"
        if damage[0] == "structure":
            with np.load(path) as archive:
                array = next(name for name in archive.files if archive[name].size > 100)
            path.write_bytes(restructured(path.read_bytes(), array, *damage[1]))
        else:
            spoil(path, damage)
        shutil.copytree(folder / RUNS / "unfinished", folder / RUNS / "second")
        shutil.copy(
            folder / RUNS / "generator" / ".." / "classifier" / "result.json", RUNS / "second"
        )
        result = json.loads(
            drawbench("compare", RUNS / "classifier", RUNS / "second", "--json").stdout
        )
        if damage[0] == "bytes":
            assert result["difference"] == 0


# ------------------------------------------------------------------------------ names in the report

TRICKS = (
    "<script>alert(1)</script>",
    "<img src=x onerror=alert(1)>",
    '" onmouseover="alert(1)',
    "' onclick='x",
    "</style><style>*{}</style>",
    "<!--",
    "{{ 7 * 7 }}",
    "{% raw %}",
    "<svg/onload=alert(1)>",
    "&#60;b&#62;",
    "</title>",
    "</td></tr></table>",
    "<base href=//x>",
    "\u2028",
    "$\\frac{$",
    "<b",
)
WORD = st.lists(st.sampled_from(TRICKS) | st.text(max_size=5), min_size=1, max_size=3).map("".join)
FIELDS = ("model", "dataset", "command", "commit", "processor", "torch", "folder")


class Elements(HTMLParser):
    """The elements of a page with the names of their attributes, and its scripts and styles."""

    def __init__(self, page: str):
        super().__init__()
        self.elements: list[tuple] = []
        self.scripts: list[str] = []
        self.feed(page)
        self.close()

    def handle_starttag(self, tag, attributes):
        self.elements.append((tag, *(name for name, _ in attributes)))
        links = [value or "" for name, value in attributes if name in ("src", "href")]
        assert all(link.startswith(("data:image/png;base64,", "#", "https://")) for link in links)

    def handle_data(self, data):
        if self.elements and self.elements[-1][0] in ("script", "style"):
            self.scripts.append(data)

    def handle_comment(self, data):
        raise AssertionError(f"a comment from a name: {data!r}")


def report_page(folder: Path, names: dict[str, str]) -> Elements:
    """Return the report of two runs, one of which has these names."""
    run = folder / RUNS / "classifier"
    for file in ("result.json", "environment.json"):
        fields = json.loads((run / file).read_text())
        fields |= {name: value for name, value in names.items() if name in fields}
        fields.pop("sha256", None)
        (run / file).write_text(json.dumps(hashed(fields)))
    name = (
        names["folder"].replace("/", "|").replace("\0", "|").encode()[:90].decode("utf-8", "ignore")
    )
    run.rename(run.with_name(f"r{name.strip('.') or 'x'}"))
    shutil.rmtree(folder / RUNS / "unfinished")
    drawbench("report", RUNS, "--out=page.html")
    return Elements(Path("page.html").read_text())


@pytest.fixture(scope="module")
def plain_page(sound, tmp_path_factory) -> Elements:
    folder = tmp_path_factory.mktemp("plain") / "case"
    shutil.copytree(sound, folder)
    with contextlib.chdir(folder):
        return report_page(folder, dict.fromkeys(FIELDS, "plain"))


@cases(5)
@given(st.fixed_dictionaries({}, optional={field: WORD for field in FIELDS}).filter(bool))
def test_names_in_the_report_make_no_elements(sound, plain_page, names):
    with case("names in the report", sound) as folder:
        page = report_page(folder, dict.fromkeys(FIELDS, "plain") | names)
        assert page.scripts == plain_page.scripts
        assert page.elements == plain_page.elements


# ------------------------------------------------------------------------------------ command lines

LONG = ("quickstart", "bench", "demo", "reproduce")  # they work without files of yours


def commands(group: click.Group, words: tuple[str, ...] = ()) -> dict[tuple, click.Command]:
    """Return all commands by the words that call them."""
    context, by_words = click.Context(group), {}
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        if isinstance(command, click.Group):
            by_words |= commands(command, (*words, name))
        elif name not in LONG:
            by_words[*words, name] = command
    return by_words


COMMANDS = commands(cli)
NUMBERS = ("1", "0", "-1", "28", str(2**31), str(10**30), "9" * 5000, "1e3", "", " 4", "٣", "1.5")
NUMBERS += ("nan", "inf", "1e400", "0..8..4", "3..1", "0..9999999999", "1,,2", "0,0,99999,0,0")
# No folder can be made below a file, so a command that is about to work fails before it does.
PATHS = (
    "results/runs/classifier",
    "results/runs/generator",
    "file",
    "file/below",
    "",
    ".",
    "-",
    "ü",
)
PATHS += ("a" * 300, "x\udcff", "<script>", "/dev/null", "results/runs/classifier/config.json")
WORDS = ("", "x", "a:b", "json:loads", "no.such:thing", "../x", "a/b", ".hidden", "-x", "x" * 300)
WORDS += ("paper-8", "%s", "x\udcff", "a\nb", *NAMES[:6])


def values(option: click.Parameter) -> st.SearchStrategy[str]:
    kind = option.type
    if isinstance(kind, click.Choice):
        return st.sampled_from([*map(str, kind.choices), "", "no-such"])
    if isinstance(kind, click.Path):
        return st.sampled_from(PATHS)
    if kind.name.startswith(("integer", "float", "numbers", "five")):
        return st.sampled_from(NUMBERS)
    return st.sampled_from(WORDS + PATHS)


def options(option: click.Parameter) -> st.SearchStrategy[tuple[str, ...]]:
    if isinstance(option, click.Argument):
        most = 2 if option.nargs == -1 else 1
        return st.lists(values(option), min_size=1, max_size=most).map(tuple)
    names = st.sampled_from([*option.opts, *option.secondary_opts])
    if option.is_flag or option.count:
        return st.tuples(names)
    return st.builds(lambda name, value: (f"{name}={value}",), names, values(option))


@st.composite
def command_lines(draw) -> list[str]:
    words = draw(st.sampled_from(sorted(COMMANDS)))
    parameters = [
        option
        for option in COMMANDS[words].params
        if option.name not in ("help", "debug", "processes", "runs", "datasets", "out")
    ]
    parts = [draw(options(option)) for option in parameters if isinstance(option, click.Argument)]
    parts += draw(st.lists(st.sampled_from(parameters).flatmap(options), max_size=4))
    parts += draw(
        st.lists(st.sampled_from([("--",), ("--no-such",), ("--json",), ("-1",)]), max_size=1)
    )
    parts = draw(st.permutations(parts))
    have = {option.name for option in COMMANDS[words].params if isinstance(option, click.Option)}
    # The page of report is a file, which it replaces as it should; below a file there can be none.
    places = {"runs": "file", "datasets": "file", "out": "file/below"}
    fixed = [f"--{name}={place}" for name, place in places.items() if name in have]
    return [*words, *fixed, *(word for part in parts for word in part)]


@cases(30)
@given(command_lines())
def test_command_lines(sound, words):
    with case("command lines", sound) as folder:
        (folder / "file").write_text("mine")
        try:
            result = drawbench(*words)
            if "--json" in words and result.stdout.startswith("{"):
                json.loads(result.stdout)
        finally:
            assert (folder / "file").read_text() == "mine"


# ---------------------------------------------------------------------------------------- downloads


def test_an_archive_that_is_not_the_original_is_never_unpacked(tmp_path, monkeypatch):
    """A server gives, as CIFAR-10, an archive with names that lead out of the folder."""
    archive = tmp_path / "server" / CIFAR10.filename
    archive.parent.mkdir()
    with tarfile.open(archive, "w:gz") as packed_files:
        for name in ("../../../escaped", str(tmp_path / "escaped"), "a/../../escaped"):
            packed_files.addfile(tarfile.TarInfo(name))
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=archive.parent)
    monkeypatch.setattr(handler.func, "log_message", lambda *_: None)
    folder = tmp_path / "deep" / "deeper"
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        monkeypatch.setattr(CIFAR10, "url", f"http://127.0.0.1:{server.server_port}/{archive.name}")
        with pytest.raises(Problem, match="download"):
            load_data(configs.Generate, {"dataset": "cifar10"}, folder, download=True)
        server.shutdown()
    assert not list(tmp_path.rglob("*escaped*"))
    assert not list(folder.rglob("*.gz")), "nothing of it is kept"


# ------------------------------------------------------------------- the harness notices violations


def talk():
    raise Problem("x" * 5000)


@pytest.mark.parametrize(
    "violation",
    [
        lambda: Path("../outside").touch(),
        lambda: pickle.loads(pickle.dumps(Payload())),
        lambda: bytearray(2 << 30),
        talk,
    ],
    ids=["writes outside", "runs a payload", "takes memory", "talks"],
)
def test_a_violation_is_noticed(violation):
    with pytest.raises((AssertionError, MemoryError)), case("violations"):
        violation()
    del TALLIES["violations"]


def test_a_hang_is_noticed(monkeypatch):
    monkeypatch.setattr("fuzz.limits.SECONDS", 0.05)
    with pytest.raises(Hang), case("violations"):
        while True:
            try:
                sum(range(1000))
            except Hang:
                break  # swallowed, as a program might
    del TALLIES["violations"]


def test_damage_is_what_it_says():
    assert damaged(b"abcdef", [("cut", 3, b""), ("insert", 0, b"x")]) == b"xabc"
    assert damaged(b"abcdef", [("drop", -3, b"--"), ("overwrite", 1, b"?")]) == b"a?cd"
    assert edited({"a": [1, 2]}, [("replace", 3, 5), ("rename", 1, "b")]) == {"b": [1, 5]}
    text = as_json([LONG_NUMBER, DEEP, SURROGATE])
    assert b"7" * 5000 in text and b"[" * 5000 in text and b"\\ud800" in text


@pytest.mark.parametrize("text", ["", " \n", "one\ntwo", "x" * 5000, "Traceback (most recent"])
def test_an_unclear_sentence_is_noticed(text):
    with pytest.raises(AssertionError):
        check_sentence(text)
