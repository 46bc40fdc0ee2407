"""SVHN's full format in small: photographs, and a ``digitStruct.mat`` of the same structure."""

import csv
import shutil
from collections import defaultdict
from pathlib import Path

import numpy as np
from PIL import Image

FIELDS = ("height", "label", "left", "top", "width")
Digits = list[dict[str, float]]  # label, left, top, width and height of each digit


def write_digit_struct(path: Path, houses: dict[str, Digits]) -> None:
    """Write a MATLAB 7.3 file as MATLAB does: references into ``#refs#``, a number alone where a
    house has one digit, a column of references where it has several.
    """
    import h5py

    with h5py.File(path, "w", userblock_size=512) as file:
        refs, struct = file.create_group("#refs#"), file.create_group("digitStruct")
        struct.attrs["MATLAB_class"] = np.bytes_("struct")

        def number(value: float) -> "h5py.Dataset":
            data = refs.create_dataset(f"n{len(refs)}", data=np.array([[float(value)]]))
            data.attrs["MATLAB_class"] = np.bytes_("double")
            return data

        columns: dict[str, list] = {"name": [], "bbox": []}
        for name, digits in houses.items():
            codes = np.array([[ord(char)] for char in name], np.uint16)
            text, box = (
                refs.create_dataset(f"c{len(refs)}", data=codes),
                refs.create_group(f"b{len(refs)}"),
            )
            text.attrs["MATLAB_class"] = np.bytes_("char")
            box.attrs["MATLAB_class"] = np.bytes_("struct")
            for field in FIELDS:
                if len(digits) == 1:
                    box[field] = np.array([[float(digits[0][field])]])
                else:
                    rows = [[number(digit[field]).ref] for digit in digits]
                    box.create_dataset(field, data=np.array(rows, h5py.ref_dtype))
            columns["name"].append([text.ref])
            columns["bbox"].append([box.ref])
        for field, rows in columns.items():
            struct.create_dataset(field, data=np.array(rows, h5py.ref_dtype))
    with path.open("r+b") as stream:
        header = "MATLAB 7.3 MAT-file, Platform: GLNXA64, Created on: Mon Nov 21 2011 HDF5 schema"
        stream.write(f"{header:<116}".encode() + bytes(8) + b"\x00\x02IM")


def digit(label: int, left: float, top: float, width: float, height: float) -> dict[str, float]:
    return {"label": label, "left": left, "top": top, "width": width, "height": height}


def houses(folder: Path, count: int, seed: int = 0) -> dict[str, Digits]:
    """Write photographs of noise, 1.png .. N.png, and their file; house n has 1 + n % 3 digits."""
    folder.mkdir(parents=True)
    random, known = np.random.default_rng(seed), {}
    for n in range(count):
        height, width = (int(side) for side in random.integers(20, 90, 2))
        pixels = random.integers(0, 256, (height, width, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{n + 1}.png")
        wide = (width - 8) // 3
        known[f"{n + 1}.png"] = [
            digit(1 + (n + k) % 10, 4 + k * wide, 5, wide - 1, height - 9) for k in range(1 + n % 3)
        ]
    write_digit_struct(folder / "digitStruct.mat", known)
    return known


def sample(published: Path, folder: Path, count: int = 256) -> dict[str, Digits]:
    """Lay out some of the published photographs, whose boxes are in ``boxes.csv``."""
    folder.mkdir(parents=True)
    known: dict[str, Digits] = defaultdict(list)
    with (published / "boxes.csv").open() as stream:
        for row in csv.DictReader(stream):
            sides = (float(row[side]) for side in ("left", "top", "width", "height"))
            known[row["file"]].append(digit(int(row["label"]) or 10, *sides))
    known = dict(list(known.items())[:count])
    for name in known:
        shutil.copy(published / name, folder / name)
    write_digit_struct(folder / "digitStruct.mat", known)
    return known
