"""Opens a checkpoint of any supported form. Nothing in a file is ever executed."""

from __future__ import annotations

import json
import pickle
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from adamerge.checkpoints.keys import TEXT_LEFTOVERS, hf_to_open_clip, is_hf, unwrapped
from adamerge.checkpoints.saving import sha256_of, sidecar
from adamerge.checkpoints.unpickling import (
    LEGACY_MAGIC,
    load_legacy_file,
    load_plain_pickle,
    load_torch_file,
    tensors_of,
)
from adamerge.errors import CheckpointError

State = dict[str, Tensor]
WEIGHT_FILES = (
    "model.safetensors.index.json",
    "pytorch_model.bin.index.json",
    "open_clip_model.safetensors",
    "model.safetensors",
    "open_clip_pytorch_model.bin",
    "pytorch_model.bin",
)


@dataclass(frozen=True)
class Checkpoint:
    """An opened checkpoint.

    Attributes:
        state: tensors by key as in the file, without wrappers' prefixes.
        source: where it came from, for messages.
        format: "safetensors", "torch", "pickle" or "state dict".
    """

    state: State
    source: str
    format: str

    @property
    def keys(self) -> str:
        """Whose names the tensors have: "open_clip", "hf", "head" or "unknown"."""
        if is_hf(self.state):
            return "hf"
        if "visual.conv1.weight" in self.state:
            return "open_clip"
        return "head" if self._head_weight() is not None else "unknown"

    def image_encoder(self) -> State:
        """The image encoder in float32 with keys `visual.*`; without `visual.proj` where the file has none.

        Raises:
            CheckpointError: the file holds no image encoder, or numbers that are not finite.
        """
        if self.keys not in ("open_clip", "hf"):
            some = ", ".join(list(self.state)[:4])
            raise CheckpointError(
                f"{self.source} holds no CLIP image encoder: neither visual.conv1.weight (open_clip) nor "
                f"embeddings.patch_embedding.weight (Hugging Face) is in it.\n  It has {some}, ..."
            )
        state = hf_to_open_clip(self.state) if self.keys == "hf" else self.state
        encoder = {key: value.float() for key, value in state.items() if key.startswith("visual.")}
        if broken := [key for key, value in encoder.items() if not value.isfinite().all()]:
            raise CheckpointError(
                f"{self.source} holds numbers that are not finite in {len(broken)} tensors, e.g. {broken[0]}.\n"
                "  The training that wrote it diverged, or the file is damaged."
            )
        return encoder

    def head(self) -> Tensor:
        """A classification head's weight (classes, d) in float32.

        Raises:
            CheckpointError: the file holds no head.
        """
        weight = self._head_weight()
        if weight is None:
            raise CheckpointError(
                f"{self.source} holds no classification head: a tensor 'weight' (classes, d) is expected."
            )
        return weight.float()

    def text_leftovers(self) -> State:
        """The text tensors that the task-vectors checkpoints carry along."""
        return {key: self.state[key] for key in TEXT_LEFTOVERS if key in self.state}

    def _head_weight(self) -> Tensor | None:
        weight = self.state.get("weight", self.state.get("classification_head.weight"))
        return weight if weight is not None and weight.ndim == 2 else None


def open_checkpoint(source: str | Path | Mapping[str, Tensor]) -> Checkpoint:
    """Open a file or folder (safetensors, torch, pickled module; open_clip or Hugging Face), or take a state dict.

    Raises:
        CheckpointError: it is missing, damaged, of no known form, or names classes that are not on the list.
    """
    if isinstance(source, Mapping):
        return Checkpoint(unwrapped(source), "the state dict given", "state dict")
    path = Path(source).expanduser()
    if path.is_dir():
        path = _weights_in(path)
    if not path.exists():
        raise CheckpointError(f"There is no checkpoint at {path}.")
    if path.name.endswith(".index.json"):
        return _open_shards(path)
    _check_start(path)
    _check_sum(path)
    state, form = _read_safetensors(path) if path.suffix == ".safetensors" else _read_pickled(path)
    return Checkpoint(unwrapped(state), str(path), form)


def _weights_in(folder: Path) -> Path:
    for name in WEIGHT_FILES:
        if (folder / name).exists():
            return folder / name
    raise CheckpointError(f"The folder {folder} holds no weights; expected one of {', '.join(WEIGHT_FILES)}.")


def _open_shards(index: Path) -> Checkpoint:
    """Weights in several files, as Hugging Face splits large models."""
    try:
        names = sorted(set(json.loads(index.read_text())["weight_map"].values()))
    except (ValueError, KeyError, AttributeError) as error:
        raise CheckpointError(f"{index} is no index of shards: {error}.") from error
    if outside := [name for name in names if Path(name).name != name]:
        raise CheckpointError(f"{index} names a shard outside its folder: {outside[0]}.")
    if missing := [name for name in names if not (index.parent / name).exists()]:
        raise CheckpointError(f"{index} names {len(names)} shards; missing: {', '.join(missing)}.")
    shards = [open_checkpoint(index.parent / name) for name in names]
    state = {key: value for shard in shards for key, value in shard.state.items()}
    return Checkpoint(state, str(index.parent), shards[0].format)


def _check_start(path: Path) -> None:
    """Files that are something else entirely, by their first bytes."""
    with path.open("rb") as file:
        start = file.read(64)
    if not start:
        raise CheckpointError(f"{path} is empty.")
    if start.startswith(b"version https://git-lfs"):
        raise CheckpointError(
            f"{path} is a Git LFS pointer, not the weights.\n  Run `git lfs pull` in its repository."
        )
    if start.lstrip().lower().startswith((b"<!doctype", b"<html")):
        raise CheckpointError(
            f"{path} is a web page, not a checkpoint: the download went wrong. Fetch it again."
        )


def _check_sum(path: Path) -> None:
    """safetensors does not notice a flipped byte; the sha256 beside the file does."""
    beside = sidecar(path)
    if beside.exists() and beside.read_text().split()[0] != sha256_of(path):
        raise CheckpointError(
            f"{path} is damaged: its sha256 is not the one in {beside.name}.\n"
            "  Make or fetch it again; if you changed it on purpose, delete that file."
        )


def _read_safetensors(path: Path) -> tuple[State, str]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(path), "safetensors"
    except SafetensorError as error:
        raise CheckpointError(f"{path} is damaged or no safetensors file: {error}.") from error


def _read_pickled(path: Path) -> tuple[State, str]:
    if _is_torchscript(path):
        raise CheckpointError(
            f"{path} is a TorchScript archive, which holds code. It was not opened.\n"
            "  Load it with open_clip, save its state dict, and give that; or use checkpoints.base=open_clip:openai."
        )
    loaded, form = _load_pickled(path)
    state = tensors_of(loaded)
    if not state:
        raise CheckpointError(
            f"{path} holds a {type(loaded).__name__} without tensors, not a model or state dict."
        )
    return state, form


def _load_pickled(path: Path) -> tuple[Any, str]:
    """torch's formats first; what is none of them may be a plain pickle."""
    try:
        return load_torch_file(path), "torch"
    except CheckpointError:
        raise
    except Exception as torch_error:  # torch raises many kinds for a file it cannot read
        if zipfile.is_zipfile(path):
            raise CheckpointError(f"{path} is damaged: {_first_line(torch_error)}") from torch_error
        try:
            loaded = load_plain_pickle(path)
            legacy = isinstance(loaded, int) and loaded == LEGACY_MAGIC
            return (load_legacy_file(path), "torch") if legacy else (loaded, "pickle")
        except CheckpointError:
            raise
        except _UNREADABLE as error:
            raise CheckpointError(
                f"{path} is damaged, or no checkpoint of a known form (safetensors, torch.save, pickle): "
                f"{_first_line(error)}"
            ) from error


# What unpickling bytes that are no pickle, or a damaged one, may raise.
_UNREADABLE = (pickle.UnpicklingError, EOFError, LookupError, TypeError, ValueError, AttributeError, ArithmeticError,
               RuntimeError, MemoryError, AssertionError, ImportError)  # fmt: skip


def _first_line(error: BaseException) -> str:
    text = str(error).strip()
    return text.splitlines()[0] if text else type(error).__name__


def _is_torchscript(path: Path) -> bool:
    if not zipfile.is_zipfile(path):
        return False
    with zipfile.ZipFile(path) as archive:
        return any(name.split("/")[-1] == "constants.pkl" for name in archive.namelist())
