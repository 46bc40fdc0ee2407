"""A folder of images to learn, a film of a run for the page, and the picture that ``plot
attention`` is given.
"""

import functools
import io
import os
import struct
import zlib
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

import numpy as np
from hypothesis import strategies as st
from PIL import Image

from drawbench import report
from drawbench.cli import plot
from drawbench.data import photographs
from drawbench.errors import Problem

from .damage import DAMAGES, hurt
from .engine import MARKER, Kind, check_sentence
from .idx import put_badly

SIDE = 6


class Case(NamedTuple):
    reader: str
    image: str
    how: str
    with_what: object
    broken: str


def encoded(form: str, mode: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    dots = np.random.default_rng(0).integers(0, 256, (9, 11, 4), dtype=np.uint8)
    image = (
        Image.fromarray((dots[..., 0].astype(np.int32) * 257).astype(np.uint16))
        if mode == "I;16"
        else Image.fromarray(dots).convert(mode)
    )
    image.save(buffer, form, **options)  # type: ignore[arg-type]
    return buffer.getvalue()


def valid() -> dict[str, bytes]:
    frames = [Image.new("P", (11, 9), number) for number in range(3)]
    film = io.BytesIO()
    frames[0].save(film, "gif", save_all=True, append_images=frames[1:], duration=50)
    exif = Image.Exif()
    exif[0x0112] = 6
    return {
        "rgb.png": encoded("png", "RGB"),
        "clear.png": encoded("png", "RGBA"),
        "palette.png": encoded("png", "P"),
        "deep.png": encoded("png", "I;16"),
        "photo.jpg": encoded("jpeg", "RGB", exif=exif.tobytes()),
        "progressive.jpeg": encoded("jpeg", "RGB", progressive=True),
        "cmyk.jpg": encoded("jpeg", "CMYK"),
        "film.gif": film.getvalue(),
        "old.bmp": encoded("bmp", "RGB"),
        "new.webp": encoded("webp", "RGB"),
        "grey.png": encoded("png", "L"),
    }


def png(width: int, height: int, depth: int, colour: int, body: bytes, extra: bytes = b"") -> bytes:
    """A PNG with any header, its checksums right."""

    def chunk(name: bytes, content: bytes) -> bytes:
        return (
            struct.pack(">I", len(content))
            + name
            + content
            + struct.pack(">I", zlib.crc32(name + content))
        )

    header = struct.pack(">2I5B", width & 0xFFFFFFFF, height & 0xFFFFFFFF, depth, colour, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + extra
        + chunk(b"IDAT", body)
        + chunk(b"IEND", b"")
    )


@functools.cache
def packed_zeros() -> bytes:
    """A hundred megabytes in half of one."""
    return zlib.compress(bytes(100 << 20), 1)


EPS = f"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n%%EndComments\n(../{MARKER}) (w) file closefile showpage\n%%EOF\n".encode()
OTHERS = {
    "eps": EPS,
    "svg": b"<svg xmlns='http://www.w3.org/2000/svg'/>",
    "pdf": b"%PDF-1.4\n%%EOF",
    "ppm": b"P6 99999 99999 255\n",
    "xbm": b"#define w 9\n",
    "tiff": b"II*\x00\x08\x00\x00\x00\x00\x00",
    "fits": b"SIMPLE  =                    T" + b" " * 3000,
    "empty": b"",
    "text": b"hello" * 99,
}
SIZES = [0, 1, 2, 100, 8193, 65_535, 1 << 16, (1 << 31) - 1, (1 << 32) - 1]
NAMES = list(valid())
READER, BROKEN = (
    st.sampled_from(["folder", "folder", "folder", "film", "picture"]),
    st.sampled_from(["stop", "skip"]),
)
CASES = st.one_of(
    st.builds(Case, READER, st.sampled_from(NAMES), st.just("bytes"), DAMAGES, BROKEN),
    st.builds(Case, READER, st.just("film.gif"), st.just("bytes"), DAMAGES, BROKEN),
    st.builds(
        Case,
        READER,
        st.just("rgb.png"),
        st.just("png"),
        st.tuples(
            st.sampled_from(SIZES),
            st.sampled_from(SIZES),
            st.sampled_from([1, 8, 16, 7]),
            st.integers(0, 7),
        ),
        BROKEN,
    ),
    st.builds(
        Case,
        READER,
        st.sampled_from(["film.gif", "old.bmp", "new.webp"]),
        st.just("size"),
        st.tuples(st.sampled_from(SIZES), st.sampled_from(SIZES)),
        BROKEN,
    ),
    st.builds(
        Case,
        READER,
        st.sampled_from(NAMES),
        st.just("content"),
        st.sampled_from(list(OTHERS)),
        BROKEN,
    ),
    st.builds(
        Case,
        READER,
        st.just("rgb.png"),
        st.just("chunk"),
        st.sampled_from([b"zTXt", b"iCCP", b"iTXt", b"eXIf", b"tRNS", b"PLTE", b"gAMA"]),
        BROKEN,
    ),
    st.builds(
        Case,
        READER,
        st.sampled_from(NAMES),
        st.sampled_from(["missing", "folder", "loop", "pipe", "endless", "sparse", "outside"]),
        st.none(),
        BROKEN,
    ),
    st.builds(
        Case,
        st.just("folder"),
        st.sampled_from(NAMES),
        st.just("name"),
        st.sampled_from(
            [
                b"\xff\xfe.png",
                b"a\nb.png",
                b"x" * 200 + b".png",
                b"<b>.png",
                "漢\u202e.png".encode(),
            ]
        ),
        BROKEN,
    ),
)


def prepare(kept: Path, patch) -> tuple[dict[str, bytes], Path]:
    secret = kept / "secret.png"
    secret.write_bytes(valid()["rgb.png"])
    return valid(), secret


def attempt(ready: tuple[dict[str, bytes], Path], folder: Path, case: Case) -> None:
    files, secret = ready
    place, content, what = folder / "images", files[case.image], case.with_what
    for part in ("train", "test"):
        (place / part).mkdir(parents=True)
        for number in range(2):
            (place / part / f"{number}.png").write_bytes(files["rgb.png"])
    path = place / "train" / case.image
    if case.how == "bytes":
        path.write_bytes(hurt(content, what))  # type: ignore[arg-type]
    elif case.how == "png":
        width, height, depth, colour = what  # type: ignore[misc]
        path.write_bytes(png(width, height, depth, colour, zlib.compress(bytes(100_000))))
    elif case.how == "size":
        offset, form = {"film.gif": (6, "<2H"), "old.bmp": (18, "<2I"), "new.webp": (26, "<2H")}[
            case.image
        ]
        most = 0xFFFF if form == "<2H" else 0xFFFFFFFF
        numbers = struct.pack(form, *(min(number, most) for number in what))  # type: ignore[union-attr]
        path.write_bytes(content[:offset] + numbers + content[offset + len(numbers) :])
    elif case.how == "content":
        path.write_bytes(OTHERS[str(what)])
    elif case.how == "chunk":
        bomb = packed_zeros() if what in (b"zTXt", b"iCCP", b"iTXt") else bytes(7)
        words = {
            b"zTXt": b"k\x00\x00",
            b"iCCP": b"k\x00\x00",
            b"iTXt": b"k\x00\x01\x00\x00\x00",
        }.get(what, b"")  # type: ignore[call-overload]
        extra = (
            struct.pack(">I", len(words + bomb))
            + what
            + words
            + bomb
            + struct.pack(">I", zlib.crc32(what + words + bomb))
        )  # type: ignore[operator]
        path.write_bytes(png(11, 9, 8, 2, zlib.compress(bytes(1000)), extra))
    elif case.how == "outside":
        path.symlink_to(secret)
    elif case.how == "name":
        with open(os.fsencode(place / "train") + b"/" + what, "wb") as file:  # type: ignore[operator]
            file.write(content[:-9])
    else:
        put_badly(path, case.how, what, content)
    said: list[str] = []
    if case.reader == "folder":
        found = photographs.folder(place, SIDE, case.broken, 0, said.append)
        assert all(images.shape[1:] == (3, SIDE, SIDE) for images in found.parts.values())
    elif case.reader == "picture":
        assert plot._picture(path).ndim == 3
    else:
        run: Any = SimpleNamespace(
            result={"task": "classify", "value": 1.0},
            pointer="runs/run",
            picture=lambda name: path if path.is_file() else None,
        )
        films = report.films([run], said.append)
        assert all(len(film.frames) <= report.FRAMES for film in films) and (
            films or said or not path.is_file()
        )
    for sentence in said:
        check_sentence(sentence)
    if case.reader == "film" and any(sentence.startswith("Left out") for sentence in said):
        raise Problem(said[0])


KIND = Kind("images", 12, CASES, prepare, attempt)
