"""Atomic saves, sums, identities, conversion."""

from __future__ import annotations

import errno
import json

import pytest
import torch
from checkpoints.formats import save_head_pickle, save_task_vectors_pickle, vision_state
from safetensors import safe_open

from adamerge.__main__ import main
from adamerge.checkpoints import fingerprint, open_checkpoint, save_tensors
from adamerge.checkpoints.atomic import atomic_write_text, write_atomically
from adamerge.checkpoints.saving import sha256_of
from adamerge.errors import RunError


def test_a_full_disk_leaves_the_last_version_and_nothing_else(tmp_path, monkeypatch):
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


def test_an_error_in_the_block_leaves_the_last_version(tmp_path):
    path = tmp_path / "a"
    atomic_write_text(path, "good")
    with pytest.raises(ZeroDivisionError), write_atomically(path) as file:
        file.write(b"half" * (1 // 0))
    assert path.read_text() == "good"
    assert len(list(tmp_path.iterdir())) == 1


def test_the_sum_beside_the_file_is_the_file_s(tmp_path):
    digest = save_tensors(tmp_path / "a.safetensors", {"w": torch.arange(3.0)}, {"note": "x"})
    assert digest == sha256_of(tmp_path / "a.safetensors")
    assert (tmp_path / "a.safetensors.sha256").read_text() == f"{digest}  a.safetensors\n"


def test_fingerprints_tell_contents_apart(tmp_path, monkeypatch):
    monkeypatch.setattr("adamerge.checkpoints.saving._WHOLE", 1000)
    monkeypatch.setattr("adamerge.checkpoints.saving._SAMPLE", 100)
    small, large = tmp_path / "small.pt", tmp_path / "large.pt"
    small.write_bytes(b"a" * 10)
    large.write_bytes(b"a" * 5000)
    first = {fingerprint(small), fingerprint(large), fingerprint(tmp_path)}
    assert len(first) == 3
    large.write_bytes(b"a" * 4999 + b"b")
    small.write_bytes(b"b" * 10)
    assert not first & {fingerprint(small), fingerprint(large), fingerprint(tmp_path)}


@pytest.mark.parametrize("form", ["zip", "legacy", "plain"])
def test_convert_writes_safetensors_with_provenance(tmp_path, form, capsys):
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


def test_convert_a_head(tmp_path):
    weight = torch.randn(4, 8)
    save_head_pickle(tmp_path / "head_DTD.pt", weight)
    main(["convert", str(tmp_path / "head_DTD.pt"), "--out", str(tmp_path / "dtd.safetensors")])
    assert torch.equal(open_checkpoint(tmp_path / "dtd.safetensors").head().weight, weight)


def test_convert_does_not_overwrite_its_source(tmp_path, capsys):
    save_tensors(tmp_path / "a.safetensors", vision_state())
    with pytest.raises(SystemExit) as stop:
        main(["convert", str(tmp_path / "a.safetensors")])
    assert stop.value.code == 2
    assert "--out" in capsys.readouterr().err
