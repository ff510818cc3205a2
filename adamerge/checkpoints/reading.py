"""Opens a checkpoint of any supported form. Nothing in a file is ever executed."""

from __future__ import annotations

import json
import pickle
import zipfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from torch import Tensor

from adamerge.architecture import HF_CLIP, OPEN_CLIP, kept_names
from adamerge.checkpoints.adapters import adapter_in
from adamerge.checkpoints.contents import the_model_in
from adamerge.checkpoints.heads import head_of, is_head
from adamerge.checkpoints.keys import (
    TEXT_LEFTOVERS,
    hf_clip_to_open_clip,
    hf_to_open_clip,
    is_hf,
    used_by,
)
from adamerge.checkpoints.leftovers import is_text, refuse_adapters, refuse_leftovers, refuse_quantised
from adamerge.checkpoints.lora import Lora
from adamerge.checkpoints.saving import sidecar
from adamerge.checkpoints.stated import SILENT, Stated, stated_beside
from adamerge.checkpoints.trunks import feature_width
from adamerge.checkpoints.unpickling import (
    LEGACY_MAGIC,
    load_legacy_file,
    load_plain_pickle,
    load_torch_file,
    states_in,
)
from adamerge.checkpoints.vits import used_of_vit, vit_names, vit_to_open_clip
from adamerge.checkpoints.weight_files import refuse_unmerged, split_part, weights_in
from adamerge.digests import sha256_of
from adamerge.errors import CheckpointError
from adamerge.merging.head import Head

State = dict[str, Tensor]


@dataclass(frozen=True)
class Checkpoint:
    """An opened checkpoint.

    Attributes:
        state: tensors by key as in the file, without wrappers' prefixes.
        source: where it came from, for messages.
        format: "safetensors", "torch", "pickle" or "state dict".
        place: under which entry and prefix of the file the tensors were found; "" for its top.
        stated: what the configuration files beside it say.
        lora: what it adds to its base, of an adapter; its `state` is what lies beside that, such as a head.
    """

    state: State
    source: str
    format: str
    place: str = ""
    stated: Stated = SILENT
    lora: Lora | None = None

    @property
    def keys(self) -> str:
        """Whose names the tensors have: "open_clip", "hf" (CLIP), "vit" (a plain one), "head", "lora" or "unknown"."""
        if self.lora is not None:
            return "lora"
        if is_hf(self.state):
            return "hf"
        if kept_names(self.state) is not None:
            return "open_clip"
        if vit_names(self.state) is not None:
            return "vit"
        return "head" if is_head(self.state) else "unknown"

    def on(self, encoder: Mapping[str, Tensor], base: str) -> Checkpoint:
        """The checkpoint of a whole model: an adapter laid onto its base; any other is whole already.

        Args:
            encoder: the base's image encoder, open_clip keys.
            base: its name, for messages.

        Raises:
            CheckpointError: the adapter is not of this base.
        """
        if self.lora is None:
            return self
        adapted = self.lora.on(encoder, base)
        state = {key: adapted.tensor(key, value) for key, value in encoder.items()}
        return replace(self, state={**state, **adapted.beside}, lora=None)

    def image_encoder(self, head_is_used: bool = False) -> State:
        """The image encoder in float32 with keys `visual.*`; without `visual.proj` where the file has none.

        Args:
            head_is_used: a head beside it is taken from the same file, and needs no mention.

        Raises:
            CheckpointError: the file holds no image encoder, one that is quantised or has an adapter or classifier of
                its own, tensors that are not understood, or numbers that are not finite.
        """
        encoder = self.encoder_tensors(head_is_used)
        refuse_not_finite([k for k, value in encoder.items() if not value.isfinite().all()], self.source)
        return encoder

    def encoder_tensors(self, head_is_used: bool = False) -> State:
        """The same, whatever its numbers are."""
        if self.lora is not None:
            raise CheckpointError(
                f"{self.source} is a LoRA, which changes a base model and is none by itself.\n"
                "  Give it as an expert, beside checkpoints.base; `convert` takes --base <file>."
            )
        refuse_adapters(self.state, self.source)
        refuse_quantised(self.state, self.source, self.stated.quantisation)
        if self.keys not in _RENAMED:
            some = ", ".join(list(self.state)[:4])
            raise CheckpointError(
                f"{self.source} holds no CLIP image encoder, neither {OPEN_CLIP.patches} (open_clip) nor "
                f"{HF_CLIP.bare(HF_CLIP.patches)} (Hugging Face), and no plain vision transformer of Hugging Face's "
                f"or timm's.\n  It has {some}, ..."
            )
        state = _RENAMED[self.keys](self.state)
        encoder = {key: value.float() for key, value in state.items() if key.startswith(OPEN_CLIP.prefix)}
        width = feature_width(encoder)
        used = used_of_vit(self.state) if self.keys == "vit" else used_by(encoder, self.state)
        refuse_leftovers(self.state, used, self.source, width, head_is_used)
        return encoder

    def whole(self) -> State:
        """Image encoder and text tower with open_clip's keys, in the file's precision; the encoder alone where the file
        has no text.

        Raises:
            CheckpointError: as for the image encoder.
        """
        encoder = self.image_encoder()
        if self.keys == "vit":
            return encoder
        state = hf_clip_to_open_clip(self.state) if self.keys == "hf" else self.state
        return {key: value for key, value in state.items() if key in encoder or is_text(key)}

    def head(self, normalize: bool | None = None) -> Head:
        """A classification head in float32, alone in the file or beside an encoder.

        Args:
            normalize: whether features are brought to length 1 before it; None: as the file says, or as is usual.

        Raises:
            CheckpointError: the file holds no head, several, or more than a linear one; or says otherwise than
                `normalize`.
        """
        return head_of(self.state, self.source, normalize)

    def text_leftovers(self) -> State:
        """The text tensors that the task-vectors checkpoints carry along."""
        return {key: self.state[key] for key in TEXT_LEFTOVERS if key in self.state}


# Each family's tensors under open_clip's names.
_RENAMED: dict[str, Callable[[State], State]] = {
    "open_clip": dict,
    "hf": hf_to_open_clip,
    "vit": vit_to_open_clip,
}


def refuse_not_finite(broken: Sequence[str], source: str) -> None:
    """Raise a CheckpointError where tensors hold numbers that are not finite.

    Args:
        broken: the keys of those tensors.
    """
    if broken:
        raise CheckpointError(
            f"{source} holds numbers that are not finite in {len(broken)} tensors, e.g. {broken[0]}.\n"
            "  The training that wrote it diverged, or the file is damaged."
        )


def open_checkpoint(source: str | Path | Mapping[str, Tensor]) -> Checkpoint:
    """Open a file or folder (safetensors, torch, pickled module; open_clip or Hugging Face), or take a state dict.

    `<file>::<name>` is one of several models in a file, such as `run.ckpt::ema`.

    Raises:
        CheckpointError: it is missing, damaged, of no known form, or names classes that are not on the list.
    """
    if isinstance(source, Mapping):
        what = "the state dict given"
        state, place = the_model_in({"": dict(source)}, what)
        return Checkpoint(state, what, "state dict", place)
    path, part = located(source)
    entries, form = _read_shards(path) if path.name.endswith(".index.json") else _read_file(path)
    name = str(path.parent if path.name.endswith(".index.json") else path)
    if (lora := adapter_in(entries, path, name, part)) is not None:
        form = f"LoRA of rank {lora.ranks} in {form}"
        return Checkpoint(lora.beside(), name, form, part, stated_beside(path), lora)
    state, place = the_model_in(entries, name, part)
    return Checkpoint(state, name, form, place, stated_beside(path))


def located(source: str | Path) -> tuple[Path, str]:
    """(the file or the index of the shards, which of several models in it) of a place.

    Raises:
        CheckpointError: there is none, or an adapter lies beside it.
    """
    file, part = split_part(str(source))
    path = Path(file).expanduser()
    if path.is_dir():
        path = weights_in(path)
    if not path.exists():
        raise CheckpointError(f"There is no checkpoint at {path}.")
    refuse_unmerged(path)
    return path, part


def check_file(path: Path) -> None:
    """Raise a CheckpointError for a file that is something else entirely, or not what its sha256 says."""
    _check_start(path)
    _check_sum(path)


def open_tensors(path: Path) -> State:
    """The tensors of a safetensors file under the names that they have in it.

    Raises:
        CheckpointError: it is missing or damaged.
    """
    if not path.exists():
        raise CheckpointError(f"There is no file {path}.")
    _check_sum(path)
    return _read_safetensors(path)


def _read_file(path: Path) -> tuple[dict[str, State], str]:
    check_file(path)
    if path.suffix == ".safetensors":
        return {"": _read_safetensors(path)}, "safetensors"
    return _read_pickled(path)


def shards_of(index: Path) -> list[Path]:
    """The files that an index of shards names, as Hugging Face splits large models; any other file is its own.

    Raises:
        CheckpointError: a damaged index, or shards that are not there.
    """
    if not index.name.endswith(".index.json"):
        return [index]
    try:
        names = sorted(set(json.loads(index.read_text())["weight_map"].values()))
    except (ValueError, KeyError, AttributeError) as error:
        raise CheckpointError(f"{index} is no index of shards: {error}.") from error
    if outside := [name for name in names if Path(name).name != name]:
        raise CheckpointError(f"{index} names a shard outside its folder: {outside[0]}.")
    if missing := [name for name in names if not (index.parent / name).exists()]:
        raise CheckpointError(f"{index} names {len(names)} shards; missing: {', '.join(missing)}.")
    return [index.parent / name for name in names]


def _read_shards(index: Path) -> tuple[dict[str, State], str]:
    joined: dict[str, State] = {}
    form = ""
    for file in shards_of(index):
        entries, form = _read_file(file)
        for entry, state in entries.items():
            joined.setdefault(entry, {}).update(state)
    return joined, form


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


def _read_safetensors(path: Path) -> State:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(path)
    except SafetensorError as error:
        raise CheckpointError(f"{path} is damaged or no safetensors file: {error}.") from error


def _read_pickled(path: Path) -> tuple[dict[str, State], str]:
    if _is_torchscript(path):
        raise CheckpointError(
            f"{path} is a TorchScript archive, which holds code. It was not opened.\n"
            "  Load it with open_clip, save its state dict, and give that; or use checkpoints.base=open_clip:openai."
        )
    loaded, form = _load_pickled(path)
    entries = states_in(loaded)
    if not entries:
        raise CheckpointError(
            f"{path} holds a {type(loaded).__name__} without tensors, not a model or state dict."
        )
    return entries, form


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
