"""Reports of pictures and class names: folders, orders, orientation, depth, damage."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image
from reports.inputs import DIGITS, Picture, digit_folders, on_folders
from reports.report import Report

WORDS = f"+suite.catalogue.digits.classes=[{','.join(DIGITS)}]"
RIGHT = 0.94  # of these fifty pictures, in whatever form they come


def merged(data: Path, *more: str) -> list[str]:
    return ["merge", *on_folders(data, "suite.prior=1.0", *more)]


def _turned(picture: Picture, path: Path) -> None:
    """Lying on its side, with a tag that says so."""
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(np.rot90(picture).copy()).save(path, exif=exif)


def _sixteen_bits(picture: Picture, path: Path) -> None:
    grey = np.asarray(Image.fromarray(picture).convert("L"))
    Image.fromarray(grey.astype(np.uint16) * 257).save(path)


def _floats(picture: Picture, path: Path) -> None:
    grey = np.asarray(Image.fromarray(picture).convert("L"))
    Image.fromarray(grey.astype(np.float32)).save(path.with_suffix(".tif"))


def _left_behind(data: Path) -> Path:
    """What macOS, Jupyter and a network disk add; and the pictures of one class behind a link."""
    digits = digit_folders(data, 5) / "digits"
    for folder in ("__MACOSX", "zero/.ipynb_checkpoints", "one/@eaDir"):
        (digits / folder).mkdir()
        (digits / folder / "x.png").write_bytes((digits / "two" / "000.png").read_bytes())
    (digits / "one" / "._000.png").write_bytes(b"\0\5\x16\7")
    (digits / "three").rename(data / "elsewhere")
    (digits / "three").mkdir()
    (digits / "three" / "batch1").symlink_to(data / "elsewhere")
    return data


def _sick(data: Path) -> Path:
    digits = digit_folders(data, 5, name=lambda label: f"class_{label}") / "digits"
    (digits / "class_3" / "000.png").write_bytes((digits / "class_4" / "001.png").read_bytes())
    file = digits / "class_7" / "002.png"
    file.write_bytes(file.read_bytes()[:-40])
    return data


REPORTS = [
    Report(
        "words that are the folders' names but for a capital, in another order",
        lambda home: merged(digit_folders(home / "data", 5, name=lambda label: DIGITS[label].title()), WORDS),
        exit=0,
        says_not=("by position",),
        average=RIGHT,
    ),
    Report(
        "folders that are numbers, of one and two digits",
        lambda home: merged(digit_folders(home / "data", 5, name=lambda label: str(label + 2)), WORDS),
        exit=0,
        says=("paired by position: zero -> 2, one -> 3",),
        average=RIGHT,
    ),
    Report(
        "words of which some are the folders' names, elsewhere",
        lambda home: merged(
            digit_folders(home / "data", 5),
            f"+suite.catalogue.digits.classes=[{','.join((*DIGITS[:9], '9'))}]",
        ),
        says=("DataError: suite.catalogue.digits.classes: ", "stands where the data has"),
    ),
    Report(
        "pictures that a tag turns",
        lambda home: merged(digit_folders(home / "data", 5, save=_turned), WORDS),
        exit=0,
        average=RIGHT,
    ),
    Report(
        "pictures of 16 bits",
        lambda home: merged(digit_folders(home / "data", 5, save=_sixteen_bits), WORDS),
        exit=0,
        average=RIGHT,
    ),
    Report(
        "pictures of floats",
        lambda home: merged(digit_folders(home / "data", 5, save=_floats), WORDS),
        says=("Task 'digits': ", "000.tif holds 32-bit floats from 0 to 2", "Save it with 8 or 16 bits"),
    ),
    Report(
        "folders with what other programs leave there, and a link",
        lambda home: merged(_left_behind(home / "data"), WORDS),
        exit=0,
        says=("5 pictures in folders inside the class folders count for the class",),
        average=RIGHT,
    ),
    Report(
        "a path with brackets",
        lambda home: merged(digit_folders(home / "data", 5), WORDS, "outputs='out [v1]'"),
        exit=0,
        says=("run folder: out [v1]/",),
    ),
    Report(
        "a damaged picture among sound ones",
        lambda home: merged(_sick(home / "data"), WORDS),
        says=("DataError: Task 'digits': ", "class_7/002.png cannot be read as a picture"),
    ),
    Report(
        "doctor on a damaged picture, a picture in two classes and words that name nothing",
        lambda home: ["doctor", *on_folders(_sick(home / "data"), WORDS)],
        says=(
            "1 of 50 pictures cannot be used: ",
            "class_7/002.png cannot be read as a picture",
            "2 pictures are in different classes with the same bytes, e.g. ",
            "by position: zero -> class_0 (5), one -> class_1 (5)",
        ),
    ),
]
