"""`cache` and `cache clear`: what is listed, what goes, and what never does."""

from __future__ import annotations

import os
import re
import time
from pathlib import Path

import numpy as np
import pytest
import torch

import adamerge
from adamerge.__main__ import main
from adamerge.cache_folder import KINDS
from adamerge.checkpoints.cached import cached
from adamerge.tasks.pixels import Pixels

DAY = 86400
HEX = "0123456789abcdef01234567"


@pytest.fixture
def kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache with an entry of several kinds, last used 1, 10, 40 and 90 days ago."""
    monkeypatch.setenv("ADAMERGE_CACHE", str(tmp_path))
    monkeypatch.setenv("COLUMNS", "160")
    put(tmp_path / f"heads/{HEX}.safetensors", 3000, 10)
    put(tmp_path / f"heads/{HEX}.safetensors.sha256", 100, 10)
    put(tmp_path / f"heads/{HEX[::-1]}.safetensors", 500, 1)
    put(tmp_path / f"digests/{HEX}.json", 50, 40)
    put(tmp_path / "zoo/mine/small/base/model.safetensors", 2000, 90)
    put(tmp_path / "zoo/mine/small/base/config.json", 10, 90)
    put(tmp_path / "zoo/mine/small/experts/digits.safetensors", 1000, 90)
    put(tmp_path / "zoo/mine/small/experts/digits.safetensors.sha256", 90, 90)
    put(tmp_path / "zoo/mine/small/experts/signs/adapter_model.safetensors", 70, 2)
    return tmp_path


def put(path: Path, size: int, days: float) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(bytes(size))
    age(path, days)
    return path


def age(path: Path, days: float) -> None:
    os.utime(path, (time.time() - days * DAY,) * 2)


def files(cache: Path) -> set[str]:
    return {str(path.relative_to(cache)) for path in cache.rglob("*") if path.is_file()}


def told(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    main(["cache", *words])
    return capsys.readouterr().out


def refused(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    with pytest.raises(SystemExit) as stop:
        main(["cache", *words])
    assert stop.value.code == 2
    return capsys.readouterr().err


def day(ago: float) -> str:
    return time.strftime("%Y-%m-%d", time.localtime(time.time() - ago * DAY))


def test_the_list_has_kinds_entries_sizes_and_uses(kept: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lines = told(capsys).splitlines()
    assert lines[0] == f"{kept}:"
    rows = {line.split()[0]: " ".join(line.split()[1:]) for line in lines[2:]}
    assert rows["heads"].startswith(f"2 3.6 kB {day(10)} {day(1)} ")
    assert rows["digests"].startswith(f"1 50 B {day(40)} {day(40)} ")
    # The base is one entry, whatever files it has; an expert is one, be it a file with its sum or a folder.
    assert rows["zoo"].startswith(f"3 3.2 kB {day(90)} {day(2)} ")
    assert rows["all"] == "6 6.8 kB"


def test_the_list_fits_a_terminal(
    kept: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    assert max(len(line) for line in told(capsys).splitlines()[1:]) <= 80


def test_reading_is_a_use(kept: Path, capsys: pytest.CaptureFixture[str]) -> None:
    read = kept / f"digests/{HEX}.json"
    os.utime(read, (time.time() - 5 * DAY, read.stat().st_mtime))
    told(capsys, "clear", "kind=digests", "older=30d")
    assert read.exists()


def test_all_that_can_be_made_again_goes_and_the_zoo_stays(
    kept: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    zoo = {file for file in files(kept) if file.startswith("zoo/")}
    said = told(capsys, "clear")
    assert files(kept) == zoo
    assert "heads: removed 2 entries, 3.6 kB\n" in said
    assert f"Removed 3 entries; 3.6 kB freed in {kept}.\n" in said
    assert "zoo: 3 entries, 3.2 kB, left: it is removed with kind=zoo only." in said


def test_conditions_hold_together(kept: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = files(kept)
    told(capsys, "clear", "older=30d", "larger=1kB")
    assert files(kept) == before  # the old one is small, the large one is new
    said = told(capsys, "clear", "older=1w", "larger=3.05kB")
    assert before - files(kept) == {f"heads/{HEX}.safetensors", f"heads/{HEX}.safetensors.sha256"}
    assert "Removed 1 entry; 3.1 kB freed" in said
    said = told(capsys, "clear", "older=900h")
    assert f"digests/{HEX}.json" not in files(kept)
    assert "zoo: 2 entries, 3.1 kB, left" in said  # those that the condition holds for


def test_the_zoo_goes_where_it_is_named(kept: Path, capsys: pytest.CaptureFixture[str]) -> None:
    said = told(capsys, "clear", "kind=zoo,digests", "older=30d")
    assert files(kept) == {
        f"heads/{HEX}.safetensors",
        f"heads/{HEX}.safetensors.sha256",
        f"heads/{HEX[::-1]}.safetensors",
        "zoo/mine/small/experts/signs/adapter_model.safetensors",
    }
    assert "zoo: removed 2 entries, 3.1 kB\n" in said
    assert "left" not in said
    assert not (kept / "zoo/mine/small/base").exists()  # no empty folders
    told(capsys, "clear", "kind=zoo")
    assert list((kept / "zoo").iterdir()) == []


def test_dry_says_the_same_and_removes_nothing(kept: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = files(kept)
    said = told(capsys, "clear", "older=5d", "dry=true")
    assert files(kept) == before
    assert "heads: would remove 1 entry, 3.1 kB" in said
    assert f"Would remove 2 entries; 3.1 kB would be freed in {kept}." in said


def test_foreign_files_and_links_are_left(kept: Path, capsys: pytest.CaptureFixture[str]) -> None:
    outside = put(kept / "outside.safetensors", 9, 50)
    put(kept / "heads/notes.txt", 9, 50)
    put(kept / f"heads/deeper/{HEX}.safetensors", 9, 50)
    put(kept / f"mine/{HEX}.safetensors", 9, 50)
    (kept / f"heads/{'a' * 24}.safetensors").symlink_to(outside)
    told(capsys, "clear")
    assert {file for file in files(kept) if not file.startswith("zoo/")} == {
        *("outside.safetensors", "heads/notes.txt"),
        *(f"heads/deeper/{HEX}.safetensors", f"mine/{HEX}.safetensors"),
    }


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        (f"heads/.{HEX}.safetensors.x1_y2z3w", "heads"),
        (f"pixels/{HEX}.u8x1_y2z3w", "pixels"),
        ("zoo/mine/small/experts/.digits.safetensors.x1_y2z3w", "zoo"),
        ("zoo/mine/small/.base.x1_y2z3w/model.safetensors", "zoo"),
    ],
)
def test_what_is_being_written_is_left_with_all_its_files(
    kept: Path, capsys: pytest.CaptureFixture[str], name: str, kind: str
) -> None:
    before = {*files(kept), name}
    temporary = put(kept / name, 5, 0.5)
    said = told(capsys, "clear", f"kind={kind}", "larger=4B")
    assert "1 entry in use or being written, left" in said
    gone = before - files(kept)
    assert not any("digits" in name and "digits" in file for file in gone)
    assert not any("base" in name and "base" in file for file in gone)
    assert not any(HEX in name and f"{kind}/{HEX}" in file for file in gone)
    # What nobody has written into for a day is a killed process's.
    age(temporary, 1.1)
    assert "left" not in told(capsys, "clear", f"kind={kind}")
    assert not temporary.exists()


def test_pixels_go_with_the_process_that_fills_them_not_before(
    kept: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = kept / "pixels" / HEX
    store = Pixels((2, 4, 4, 3), path)
    store[0] = np.full((4, 4, 3), 7, np.uint8)
    both = {f"pixels/{HEX}.u8", f"pixels/{HEX}.done"}
    assert "pixels: removed 0 entries, 0 B; 1 entry in use or being written, left" in told(
        capsys, "clear", "kind=pixels"
    )
    assert both <= files(kept)
    del store
    again = Pixels((2, 4, 4, 3), path)
    assert again.done.tolist() == [True, False]
    assert (again.values[0] == 7).all()
    del again
    told(capsys, "clear", "kind=pixels")
    assert not both & files(kept)
    # No mark outlives the pixels that it vouches for.
    assert not Pixels((2, 4, 4, 3), path).done.any()


def test_marks_go_before_their_pixels(
    kept: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever stops the removal in between, no pixels look decoded that are not."""
    Pixels((2, 4, 4, 3), kept / "pixels" / HEX)
    gone: list[str] = []
    monkeypatch.setattr(Path, "unlink", lambda path, missing_ok=False: gone.append(path.suffix))
    told(capsys, "clear", "kind=pixels")
    assert gone == [".done", ".u8"]


def test_what_cannot_be_removed_is_said_and_the_rest_goes(
    kept: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    unlink = Path.unlink

    def stubborn(path: Path, missing_ok: bool = False) -> None:
        if path.name == f"{HEX[::-1]}.safetensors":
            raise PermissionError(13, "Permission denied", str(path))
        unlink(path, missing_ok)

    monkeypatch.setattr(Path, "unlink", stubborn)
    with pytest.raises(SystemExit):
        main(["cache", "clear"])
    said = capsys.readouterr()
    assert "Removed 2 entries; 3.1 kB freed" in said.out
    assert (
        f"Not everything could be removed.\n  {kept}/heads/{HEX[::-1]}.safetensors: Permission denied."
        in (said.err)
    )


def test_an_empty_cache_is_none(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ADAMERGE_CACHE", str(tmp_path / "none"))
    assert told(capsys) == f"Nothing is kept in {tmp_path}/none yet.\n"
    assert "Removed 0 entries; 0 B freed" in told(capsys, "clear")
    assert not (tmp_path / "none").exists()
    (tmp_path / "none").write_text("")
    assert "is a file.\n  Set ADAMERGE_CACHE to a folder." in refused(capsys)


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (("cler",), "cache does not know 'cler'; did you mean 'clear'?"),
        (("older=3d",), "cache does not know 'older=3d'; `cache` lists, `cache clear` removes."),
        (("clear", "kind=head"), "kind: there is no kind 'head'; did you mean 'heads'?"),
        (("clear", "kind=../x"), "kind: there is no kind '../x'; there is digests, heads, "),
        (("clear", "heads"), "there is no 'heads'; there is kind, older, larger, dry."),
        (("clear", "oldr=3d"), "there is no 'oldr'; did you mean 'older'?"),
        (("clear", "older"), "'older' has no value; give older=<value>."),
        (("clear", "older="), "'older' has no value; give older=<value>."),
        (
            ("clear", "older=3"),
            "older=3 is not understood; give a number and its unit, such as 30d: h, d or w.",
        ),
        (("clear", "older=-3d"), "older=-3d is not understood"),
        (("clear", "older=3m"), "older=3m is not understood"),
        (("clear", "larger=5"), "larger=5 is not understood; give a number and its unit, such as 500MB:"),
        (("clear", "larger=nanGB"), "larger=nanGB is not understood"),
        (("clear", "dry=yes"), "dry=yes: give true or false."),
        (("clear", "older=1d", "older=2d"), "older is given twice; give it once."),
    ],
)
def test_a_wrong_word_is_a_sentence_and_removes_nothing(
    kept: Path, capsys: pytest.CaptureFixture[str], words: tuple[str, ...], text: str
) -> None:
    before = files(kept)
    said = refused(capsys, *words)
    assert said.startswith("ConfigError: ")
    assert text in said
    assert files(kept) == before


def test_all_mistakes_are_told_at_once(kept: Path, capsys: pytest.CaptureFixture[str]) -> None:
    said = refused(capsys, "clear", "kind=x", "older=x", "larger=x", "dry=x", "x=x")
    assert len(said.splitlines()) == 6


def test_help_names_the_folder_and_every_kind(kept: Path, capsys: pytest.CaptureFixture[str]) -> None:
    said = told(capsys, "clear", "--help")
    assert str(kept) in said
    assert all(kind in said for kind in KINDS)


def test_every_folder_that_is_written_into_is_a_kind() -> None:
    package = Path(adamerge.__file__).parent
    sources = [path.read_text(encoding="utf-8") for path in package.rglob("*.py")]
    yamls = [path.read_text(encoding="utf-8") for path in (package.parent / "conf").rglob("*.yaml")]
    named = {name for text in sources for name in re.findall(r'cache_dir\(\) / "(\w+)"', text)}
    assert named | {name for text in yamls for name in re.findall(r"\$\{cache:\}/(\w+)/", text)} == set(KINDS)


def test_what_was_cleared_is_made_again(kept: Path, capsys: pytest.CaptureFixture[str]) -> None:
    made: list[int] = []

    def make() -> dict[str, torch.Tensor]:
        made.append(1)
        return {"x": torch.ones(2)}

    for times in (1, 1):
        cached(kept / "statistics", {"of": "this"}, make)
        assert len(made) == times
    said = told(capsys, "clear", "kind=statistics")
    assert "statistics: removed 1 entry" in said
    assert not any(file.startswith("statistics/") for file in files(kept))
    assert cached(kept / "statistics", {"of": "this"}, make)["x"].tolist() == [1, 1]
    assert len(made) == 2
