"""Files that are hostile, broken or something else: refused with a reason, and nothing of them runs."""

from __future__ import annotations

import os
import pickle
import struct
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch
from checkpoints.formats import vision_state
from safetensors.torch import save_file

from adamerge.checkpoints import open_checkpoint, save_tensors
from adamerge.errors import CheckpointError


class Call:
    """Pickles to a call of any function."""

    def __init__(self, function: Any, *arguments: Any) -> None:
        self.call = (function, arguments)

    def __reduce__(self) -> Any:
        return self.call


def touch(path: Path) -> Call:
    return Call(os.system, f"touch {path}")


def stack_global(module: str, name: str, *arguments: str) -> bytes:
    """A protocol 4 pickle of module.name(*arguments), for names that cannot be pickled normally."""

    def text(word: str) -> bytes:
        return b"\x8c" + bytes([len(word)]) + word.encode()

    packed = b"(" + b"".join(text(a) for a in arguments) + b"t"
    return b"\x80\x04" + text(module) + text(name) + b"\x93" + packed + b"R."


@pytest.mark.parametrize("form", ["zip", "legacy", "plain"])
@pytest.mark.parametrize("inside", ["top", "state dict"])
def test_a_call_in_a_pickle_does_not_run(tmp_path: Path, form: str, inside: str) -> None:
    sentinel = tmp_path / "ran"
    payload = (
        touch(sentinel) if inside == "top" else {"visual.conv1.weight": torch.zeros(1), "x": touch(sentinel)}
    )
    path = tmp_path / "expert.pt"
    if form == "plain":
        path.write_bytes(pickle.dumps(payload))
    else:
        torch.save(payload, path, _use_new_zipfile_serialization=form == "zip")
    with pytest.raises(CheckpointError, match="system") as refused:
        open_checkpoint(path)
    assert "Nothing of the file was run" in str(refused.value)
    assert not sentinel.exists()


@pytest.mark.parametrize(
    ("module", "name"),
    [
        ("builtins", "eval"),
        ("builtins", "exec"),
        ("builtins", "getattr"),
        ("functools", "partial"),
        ("subprocess", "Popen"),
        ("torch.nn.modules.module", "os.system"),
        ("torch.storage", "torch.os.system"),
        ("collections", "OrderedDict.__init__.__globals__"),
        ("open_clip.model", "os.system"),
        ("open_clip.model", "load_openai_model"),
        ("src.modeling", "torch.load"),
        ("torch.hub", "load"),
        ("numpy.core.multiarray", "_reconstruct"),
    ],
)
def test_names_off_the_list_are_refused(tmp_path: Path, module: str, name: str) -> None:
    path = tmp_path / "expert.pt"
    path.write_bytes(stack_global(module, name, "touch " + str(tmp_path / "ran")))
    with pytest.raises(CheckpointError, match="was not opened|names"):
        open_checkpoint(path)
    assert not (tmp_path / "ran").exists()


def test_storage_bytes_inside_a_plain_pickle_are_opened_safely(tmp_path: Path) -> None:
    """torch.storage._load_from_bytes runs torch.load: its bytes may hide a second pickle."""
    inner = tmp_path / "inner.pt"
    torch.save(touch(tmp_path / "ran"), inner)
    payload = pickle.dumps(Call(torch.storage._load_from_bytes, inner.read_bytes()))
    (tmp_path / "outer.pt").write_bytes(payload)
    with pytest.raises(CheckpointError):
        open_checkpoint(tmp_path / "outer.pt")
    assert not (tmp_path / "ran").exists()


def test_state_given_to_an_allowed_function_leaves_no_mark(tmp_path: Path) -> None:
    """BUILD on a function would set its attributes: the functions handed out are made anew for each file."""
    rebuild = torch._utils._rebuild_tensor_v2
    before = dict(vars(rebuild))
    # c torch._utils _rebuild_tensor_v2, then state (None, {"__wrapped__": "x"}) by BUILD.
    body = (
        b"\x80\x02ctorch._utils\n_rebuild_tensor_v2\n(N}(X\x0b\x00\x00\x00__wrapped__X\x01\x00\x00\x00xuTb."
    )
    (tmp_path / "a.pt").write_bytes(body.replace(b"uTb", b"utb"))
    with pytest.raises(CheckpointError):
        open_checkpoint(tmp_path / "a.pt")
    assert vars(rebuild) == before


BROKEN = {
    "empty": (b"", "is empty"),
    "lfs": (b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 5\n", "Git LFS pointer"),
    "html": (b"<!DOCTYPE html><html>Quota exceeded</html>", "web page"),
    "noise": (bytes(range(256)) * 8, "damaged"),
    "text": (b"these are not weights", "damaged"),
    "number": (pickle.dumps(3), "without tensors"),
    "huge": (b"\x80\x04\x8e" + struct.pack("<Q", 1 << 60) + b"x.", "damaged"),
}


@pytest.mark.parametrize("kind", BROKEN)
def test_what_is_no_checkpoint_is_named(tmp_path: Path, kind: Any) -> None:
    content, message = BROKEN[kind]
    path = tmp_path / "expert.pt"
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match=message) as error:
        open_checkpoint(path)
    assert str(path) in str(error.value)


def test_a_truncated_file(tmp_path: Path) -> None:
    torch.save(vision_state(), tmp_path / "a.pt")
    save_file(vision_state(), tmp_path / "a.safetensors")
    for name in ("a.pt", "a.safetensors"):
        content = (tmp_path / name).read_bytes()
        (tmp_path / name).write_bytes(content[: len(content) // 2])
        with pytest.raises(CheckpointError, match="damaged"):
            open_checkpoint(tmp_path / name)


def test_a_flipped_byte_is_noticed_by_the_sum_beside_the_file(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    save_tensors(path, vision_state())
    open_checkpoint(path)
    content = bytearray(path.read_bytes())
    content[-5] ^= 1
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match="sha256"):
        open_checkpoint(path)


def test_a_torchscript_archive_is_not_opened(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "ViT-B-32.pt", "w") as archive:
        archive.writestr("archive/constants.pkl", b"\x80\x02).")
        archive.writestr("archive/code/model.py", b"def f(): pass")
    with pytest.raises(CheckpointError, match="TorchScript"):
        open_checkpoint(tmp_path / "ViT-B-32.pt")


def test_shards_outside_the_folder_are_refused(tmp_path: Path) -> None:
    (tmp_path / "model.safetensors.index.json").write_text('{"weight_map": {"a": "../secret.safetensors"}}')
    with pytest.raises(CheckpointError, match="outside its folder"):
        open_checkpoint(tmp_path)


def test_missing_files_folders_and_shards(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="no checkpoint at"):
        open_checkpoint(tmp_path / "nothing.pt")
    with pytest.raises(CheckpointError, match="holds no weights"):
        open_checkpoint(tmp_path)
    (tmp_path / "model.safetensors.index.json").write_text('{"weight_map": {"a": "b.safetensors"}}')
    with pytest.raises(CheckpointError, match="missing: b.safetensors"):
        open_checkpoint(tmp_path)


def test_numbers_that_are_not_finite_and_foreign_tensors() -> None:
    state = vision_state()
    state["visual.proj"][0, 0] = float("inf")
    with pytest.raises(CheckpointError, match=r"not finite in 1 tensors, e.g. visual.proj"):
        open_checkpoint(state).image_encoder()
    with pytest.raises(CheckpointError, match="no CLIP image encoder"):
        open_checkpoint({"layer1.weight": torch.zeros(1)}).image_encoder()
    with pytest.raises(CheckpointError, match="no classification head"):
        open_checkpoint(vision_state()).head()
