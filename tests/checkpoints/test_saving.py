"""Atomic saves, sums, identities, conversion."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from checkpoints.formats import save_head_pickle, save_task_vectors_pickle, vision_state
from safetensors import safe_open

from adamerge.__main__ import main
from adamerge.checkpoints import fingerprint, open_checkpoint, save_tensors
from adamerge.digests import sha256_of
from adamerge.errors import CheckpointError, RunError
from adamerge.files import atomic_write_text, write_atomically


def test_a_full_disk_leaves_the_last_version_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "last.ckpt"
    atomic_write_text(path, "good")

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(RunError, match="disk is full(.|\n)*last version is intact"):
        atomic_write_text(path, "new")
    assert path.read_text() == "good"
    assert [p.name for p in tmp_path.iterdir()] == ["last.ckpt"]
    with pytest.raises(RunError, match="nothing was written"):
        atomic_write_text(tmp_path / "first.ckpt", "new")


def test_an_error_in_the_block_leaves_the_last_version(tmp_path: Path) -> None:
    path = tmp_path / "a"
    atomic_write_text(path, "good")
    with pytest.raises(ZeroDivisionError), write_atomically(path) as file:
        file.write(b"half" * (1 // 0))
    assert path.read_text() == "good"
    assert len(list(tmp_path.iterdir())) == 1


def test_the_sum_beside_the_file_is_the_file_s(tmp_path: Path) -> None:
    digest = save_tensors(tmp_path / "a.safetensors", {"w": torch.arange(3.0)}, {"note": "x"})
    assert digest == sha256_of(tmp_path / "a.safetensors")
    assert (tmp_path / "a.safetensors.sha256").read_text() == f"{digest}  a.safetensors\n"


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setenv("ADAMERGE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("adamerge.digests._SETTLED_NS", -1)
    return tmp_path / "cache"


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> Any:
    """The files that were read for their digest."""
    read: list[str] = []

    def seen(file: Path) -> str:
        read.append(file.name)
        return sha256_of(file)

    monkeypatch.setattr("adamerge.digests.sha256_of", seen)
    return read


def test_one_byte_anywhere_in_a_large_file_makes_another_fingerprint(tmp_path: Path, cache: Path) -> None:
    (folder := tmp_path / "model").mkdir()
    small, large = folder / "small.pt", folder / "large.pt"
    small.write_bytes(b"a")
    content = bytearray(65 << 20)
    large.write_bytes(content)
    found = {fingerprint(large), fingerprint(small), fingerprint(folder)}
    assert sha256_of(large) in found
    for place in (1 << 21, 40 << 20):  # neither in the first, the middle nor the last MiB
        content[place] = 1
        large.write_bytes(content)
        found |= {fingerprint(large), fingerprint(folder)}
    assert len(found) == 3 + 2 * 2


def test_an_unchanged_file_is_read_once_and_a_changed_one_again(
    tmp_path: Path, cache: Path, reads: Any
) -> None:
    file = tmp_path / "a.pt"
    file.write_bytes(b"one")
    times = os.stat(file)
    first = fingerprint(file)
    assert fingerprint(file) == first == sha256_of(file)
    assert reads == ["a.pt"]
    # Of the same size, and with the time of the old file, as `cp -p` and `rsync -t` leave it.
    file.write_bytes(b"two")
    os.utime(file, ns=(times.st_atime_ns, times.st_mtime_ns))
    assert fingerprint(file) == sha256_of(file) != first
    os.utime(file)  # touched, with the same content
    assert fingerprint(file) == sha256_of(file)


def test_a_file_that_has_only_just_changed_is_read_again(
    tmp_path: Path, cache: Path, reads: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("adamerge.digests._SETTLED_NS", 60_000_000_000)
    (tmp_path / "a.pt").write_bytes(b"one")
    assert fingerprint(tmp_path / "a.pt") == fingerprint(tmp_path / "a.pt")
    assert len(reads) == 2


@pytest.mark.parametrize("damage", ["", "{", '{"of": 1}', "[]"])
def test_a_memory_that_is_damaged_or_cannot_be_written_makes_it_slower_only(
    tmp_path: Path, cache: Path, damage: str
) -> None:
    file = tmp_path / "a.pt"
    file.write_bytes(b"one")
    assert fingerprint(file) == sha256_of(file)
    (memory,) = (cache / "digests").iterdir()
    memory.write_text(damage)
    assert fingerprint(file) == sha256_of(file)
    shutil.rmtree(cache)
    cache.write_text("a file in the folder's place")
    assert fingerprint(file) == sha256_of(file)


def _younger(file: Any) -> None:
    time.sleep(0.02)  # more than the grain of the file system's clock
    os.utime(file)


def test_a_sum_beside_the_file_serves_while_it_is_not_older_than_the_file(
    tmp_path: Path, cache: Path, reads: Any
) -> None:
    path = tmp_path / "a.safetensors"
    digest = save_tensors(path, {"w": torch.arange(3.0)})
    _younger(tmp_path / "a.safetensors.sha256")
    assert fingerprint(path) == digest
    assert reads == []
    time.sleep(0.02)
    path.write_bytes(b"another file under the old sum")
    assert fingerprint(path) == sha256_of(path) != digest
    (tmp_path / "a.safetensors.sha256").write_text("no sum\n")
    assert fingerprint(path) == sha256_of(path)


def test_the_hub_s_name_of_a_file_is_its_fingerprint(tmp_path: Path, cache: Path, reads: Any) -> None:
    content = b"weights"
    digest = hashlib.sha256(content).hexdigest()
    blob, link = tmp_path / "blobs" / digest, tmp_path / "snapshots" / "main" / "model.safetensors"
    for folder in (blob.parent, link.parent):
        folder.mkdir(parents=True)
    blob.write_bytes(content)
    time.sleep(0.02)  # more than the grain of the file system's clock
    link.symlink_to(blob)
    assert fingerprint(link) == digest
    assert reads == []
    time.sleep(0.02)
    link.write_bytes(b"written through the link")
    assert fingerprint(link) == sha256_of(blob) != digest


def test_an_index_of_several_files_stands_for_all_of_them(tmp_path: Path, cache: Path) -> None:
    index = tmp_path / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": {"a": "1.safetensors", "b": "2.safetensors"}}))
    for name in "12":
        (tmp_path / f"{name}.safetensors").write_bytes(name.encode())
    before = fingerprint(index), fingerprint(tmp_path)
    (tmp_path / "2.safetensors").write_bytes(b"3")
    assert fingerprint(index) != before[0]
    assert fingerprint(tmp_path) != before[1]
    (tmp_path / "2.safetensors").unlink()
    with pytest.raises(CheckpointError, match=r"not there, e.g. 2.safetensors"):
        fingerprint(index)


@pytest.mark.parametrize("form", ["zip", "legacy", "plain"])
def test_convert_writes_safetensors_with_provenance(
    tmp_path: Path, form: str, capsys: pytest.CaptureFixture[str]
) -> None:
    source = tmp_path / "finetuned.pt"
    save_task_vectors_pickle(source, vision_state(), vision="VisualTransformer", form=form)
    main(["convert", str(source)])
    target = tmp_path / "finetuned.safetensors"
    encoder = open_checkpoint(target).image_encoder()
    assert all(torch.equal(encoder[key], value) for key, value in vision_state().items())
    with safe_open(target, "pt") as file:
        metadata = file.metadata()
    assert metadata["source"] == "finetuned.pt"
    assert metadata["source_fingerprint"] == sha256_of(source)
    assert metadata["source_keys"] == "open_clip"
    assert json.dumps(metadata).count(str(tmp_path)) == 0


def test_convert_a_head(tmp_path: Path) -> None:
    weight = torch.randn(4, 8)
    save_head_pickle(tmp_path / "head_DTD.pt", weight)
    main(["convert", str(tmp_path / "head_DTD.pt"), "--out", str(tmp_path / "dtd.safetensors")])
    assert torch.equal(open_checkpoint(tmp_path / "dtd.safetensors").head().weight, weight)


def test_convert_does_not_overwrite_its_source(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    save_tensors(tmp_path / "a.safetensors", vision_state())
    with pytest.raises(SystemExit) as stop:
        main(["convert", str(tmp_path / "a.safetensors")])
    assert stop.value.code == 2
    assert "--out" in capsys.readouterr().err
