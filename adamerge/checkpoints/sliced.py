"""A checkpoint that stays in its file: names and shapes at once, a tensor's numbers when they are asked for."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

from torch import Tensor

from adamerge.architecture import HF_CLIP
from adamerge.checkpoints.contents import the_model_in
from adamerge.checkpoints.keys import hf_to_open_clip, open_clip_to_hf
from adamerge.checkpoints.lora import Adapted
from adamerge.checkpoints.peft_config import CONFIG, WEIGHTS
from adamerge.checkpoints.reading import Checkpoint, State, check_file, located, open_checkpoint, shards_of
from adamerge.checkpoints.stated import stated_beside
from adamerge.checkpoints.vits import vit_tensor
from adamerge.errors import CheckpointError


@dataclass(frozen=True)
class SlicedCheckpoint:
    """A safetensors checkpoint of which no more is in memory than the tensor that was asked for.

    Attributes:
        outline: the checkpoint with tensors without numbers (on the meta device).
        places: {key in `outline`: (file, key in the file)}.
    """

    outline: Checkpoint
    places: dict[str, tuple[Path, str]]

    @property
    def source(self) -> str:
        return self.outline.source

    @cached_property
    def encoder(self) -> State:
        """The image encoder's tensors without numbers, with open_clip's keys. Raises as `Checkpoint.image_encoder`, but
        does not see numbers that are not finite."""
        return self.outline.encoder_tensors()

    def tensor(self, key: str) -> Tensor:
        """One tensor of the image encoder in float32, by open_clip's key."""
        if self.outline.keys == "vit":
            return vit_tensor(key, self.outline.state, self.raw).float()
        if self.outline.keys != "hf":
            return self.raw(key).float()
        # Hugging Face keeps query, key and value apart, and may leave the prefix out.
        shape = {key: self.encoder[key]}
        names = [n if n in self.places else HF_CLIP.bare(n) for n in open_clip_to_hf(shape)]
        return hf_to_open_clip({name: self.raw(name) for name in names})[key].float()

    def raw(self, key: str) -> Tensor:
        """One tensor of the outline, as the file has it."""
        file, name = self.places[key]
        # The file is mapped for this one tensor: what stays mapped counts as this process's memory.
        return next(_tensors(file, [name]))[1]

    def on(self, base: SlicedCheckpoint) -> SlicedCheckpoint:
        """The checkpoint of a whole model, as `Checkpoint.on`."""
        if self.outline.lora is None:
            return self
        adapted = self.outline.lora.on(base.encoder, base.source)
        whole = replace(self.outline, state={**base.encoder, **adapted.beside}, lora=None)
        return _OnBase(whole, {}, base, adapted)


@dataclass(frozen=True)
class _OnBase(SlicedCheckpoint):
    """A LoRA, which is small and in memory, on a base that stays in its file."""

    base: SlicedCheckpoint
    adapted: Adapted

    def tensor(self, key: str) -> Tensor:
        return self.adapted.tensor(key, self.base.tensor(key))


def open_sliced(source: str | Path) -> SlicedCheckpoint | None:
    """A checkpoint's outline; None where its form cannot be read tensor by tensor (anything but safetensors).

    Raises:
        CheckpointError: as `open_checkpoint`.
    """
    path, part = located(source)
    if path.name in WEIGHTS or (path.parent / CONFIG).exists():
        whole = open_checkpoint(source)
        if whole.lora is not None:
            return SlicedCheckpoint(whole, {})
    files = shards_of(path)
    if any(file.suffix != ".safetensors" for file in files):
        return None
    found: State = {}
    whence: dict[int, tuple[Path, str]] = {}
    for file in files:
        check_file(file)
        for key, tensor in _tensors(file):
            found[key] = tensor.to("meta")
            whence[id(found[key])] = (file, key)
    name = str(path.parent if path.name.endswith(".index.json") else path)
    state, place = the_model_in({"": found}, name, part)
    outline = Checkpoint(state, name, "safetensors", place, stated_beside(path))
    return SlicedCheckpoint(outline, {key: whence[id(value)] for key, value in state.items()})


def _tensors(file: Path, names: Sequence[str] | None = None) -> Iterator[tuple[str, Tensor]]:
    """(key, tensor) of a safetensors file; the numbers are read from the disk when they are used."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(file, framework="pt") as opened:
            for name in names or opened.keys():
                yield name, opened.get_tensor(name)
    except SafetensorError as error:
        raise CheckpointError(f"{file} is damaged or no safetensors file: {error}.") from error
