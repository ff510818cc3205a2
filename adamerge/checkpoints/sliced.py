"""A checkpoint that stays in its file: names and shapes at once, a tensor's numbers when they are asked for."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import torch
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
class Place:
    """Where a tensor's numbers lie.

    Attributes:
        start: the first byte in the file.
        like: the tensor without numbers.
    """

    file: Path
    start: int
    like: Tensor

    def read(self) -> Tensor:
        """The tensor. It is read, not mapped: a map costs more than a copy, and what of it stays counts as this
        process's memory.

        Raises:
            CheckpointError: the file ends before it.
        """
        numbers = torch.empty(self.like.numel() * self.like.element_size(), dtype=torch.uint8)
        left = memoryview(numbers.numpy())  # type: ignore[arg-type]
        with self.file.open("rb", buffering=0) as file:
            file.seek(self.start)
            while left and (count := file.readinto(left)):
                left = left[count:]
        if left:
            raise CheckpointError(f"{self.file} is damaged: it ends {len(left)} bytes too early.")
        return numbers.view(self.like.dtype).view(self.like.shape)


@dataclass(frozen=True)
class SlicedCheckpoint:
    """A safetensors checkpoint of which no more is in memory than the tensor that was asked for.

    Attributes:
        outline: the checkpoint with tensors without numbers (on the meta device).
        places: where each of its tensors lies.
    """

    outline: Checkpoint
    places: dict[str, Place]

    @property
    def source(self) -> str:
        return self.outline.source

    @cached_property
    def encoder(self) -> State:
        """The image encoder's tensors without numbers, with open_clip's keys. Raises as `Checkpoint.image_encoder`, but
        does not see numbers that are not finite."""
        return self.outline.encoder_tensors()

    @cached_property
    def _keys(self) -> str:
        """Whose names the tensors have."""
        return self.outline.keys

    def tensor(self, key: str) -> Tensor:
        """One tensor of the image encoder in float32, by open_clip's key."""
        if self._keys == "vit":
            return vit_tensor(key, self.outline.state, self.raw).float()
        if self._keys != "hf":
            return self.raw(key).float()
        # Hugging Face keeps query, key and value apart, and may leave the prefix out.
        shape = {key: self.encoder[key]}
        names = [n if n in self.places else HF_CLIP.bare(n) for n in open_clip_to_hf(shape)]
        return hf_to_open_clip({name: self.raw(name) for name in names})[key].float()

    def raw(self, key: str) -> Tensor:
        """One tensor of the outline, as the file has it."""
        return self.places[key].read()

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
    whence: dict[int, Place] = {}
    for file in files:
        check_file(file)
        outlines = dict(_outlines(file))  # first of all: it refuses a damaged file
        starts = _starts(file)
        for key, outline in outlines.items():
            found[key] = outline
            whence[id(outline)] = Place(file, starts[key], outline)
    name = str(path.parent if path.name.endswith(".index.json") else path)
    state, place = the_model_in({"": found}, name, part)
    whole = Checkpoint(state, name, "safetensors", place, stated_beside(path))
    return SlicedCheckpoint(whole, {key: whence[id(value)] for key, value in state.items()})


def _outlines(file: Path) -> Iterator[tuple[str, Tensor]]:
    """(key, tensor without numbers) of a safetensors file."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(file, framework="pt") as opened:
            for name in opened.keys():  # noqa: SIM118 -- it is no mapping
                yield name, opened.get_tensor(name).to("meta")
    except SafetensorError as error:
        raise CheckpointError(f"{file} is damaged or no safetensors file: {error}.") from error


def _starts(file: Path) -> dict[str, int]:
    """The first byte of each tensor: behind eight bytes of the header's length, and the header, in JSON."""
    with file.open("rb") as opened:
        length = int.from_bytes(opened.read(8), "little")
        header = json.loads(opened.read(length))
    return {
        key: 8 + length + entry["data_offsets"][0] for key, entry in header.items() if key != "__metadata__"
    }
