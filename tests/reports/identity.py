"""Reports of one run taken for another: other pictures, labels, weights or code under the same command."""

from __future__ import annotations

import shutil
from contextlib import ExitStack
from pathlib import Path

from reports.inputs import digit_folders, on_folders
from reports.report import EXPERTS, Report

from adamerge.__main__ import main
from adamerge.digests import sha256_of
from adamerge.tracking.lock import locked


def _merge(home: Path, *more: str) -> list[str]:
    return ["merge", *on_folders(digit_folders(home / "data", 3), "trainer.enable_progress_bar=false", *more)]


def _swapped(home: Path) -> list[str]:
    words = _merge(home)
    main(words)
    eight, five, kept = (home / "data/digits" / name for name in ("eight", "five", "kept"))
    eight.rename(kept), five.rename(eight), kept.rename(five)
    return words


def _moved(home: Path) -> list[str]:
    main(_merge(home))
    shutil.move(home / "data", home / "elsewhere")
    for picture in (home / "elsewhere").rglob("*.png"):
        picture.touch()
    return ["merge", *on_folders(home / "elsewhere")]


def _fewer_after_an_interruption(home: Path) -> list[str]:
    words = ["train", *_merge(home, "method.schedule.steps=2")[1:]]
    main(words)
    (folder,) = home.glob("outputs/folders/adamerging_layerwise/*")
    (folder / "results.json").unlink()  # as a run that was stopped after its two steps
    next((home / "data/digits/one").iterdir()).unlink()
    return words


def _another_expert_under_the_name(home: Path) -> list[str]:
    expert = home / "expert.safetensors"
    shutil.copyfile(EXPERTS / "digits.safetensors", expert)
    words = _merge(home, f"checkpoints.experts={{digits: '{expert}'}}")
    main(words)
    shutil.copyfile(EXPERTS / "signs.safetensors", expert)
    assert sha256_of(expert) != sha256_of(EXPERTS / "digits.safetensors")
    return words


_HELD = ExitStack()  # until the tests end


def _in_use(home: Path) -> list[str]:
    words = _merge(home)
    main(words)
    (folder,) = home.glob("outputs/*/*/*")
    _HELD.enter_context(locked(folder))
    return [*words, "rerun=true"]


REPORTS = [
    Report(
        "two class folders swapped, the same command again",
        _swapped,
        exit=0,
        says=(
            "The same command has finished on other pictures or labels of digits, test",
            "is left as it is",
        ),
        says_not=("finished already",),
    ),
    Report(
        "the data moved and touched, the same pictures",
        _moved,
        exit=0,
        says=("This run is finished already",),
    ),
    Report(
        "a picture deleted while a run was interrupted",
        _fewer_after_an_interruption,
        exit=0,
        says=(
            "The same command was interrupted after 2 steps on other pictures or labels of digits, test",
            "(30 then, 29 now)",
        ),
        says_not=("goes on from",),
    ),
    Report(
        "another expert under the old name",
        _another_expert_under_the_name,
        exit=0,
        says=("The same command has finished on other weights: experts/digits",),
    ),
    Report(
        "the same run in two terminals",
        _in_use,
        exit=2,
        says=("is in use by another run: process", "since"),
    ),
]
