"""A merged encoder as one LoRA on its base, where what the merge changed has low rank.

A merge of LoRA experts with merging coefficients has at most the sum of their ranks (TIES and others that drop entries
do not keep it low).
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from adamerge.architecture import HF_CLIP, OPEN_CLIP
from adamerge.checkpoints.lora import Factors
from adamerge.checkpoints.peft_writing import write_adapter
from adamerge.checkpoints.vits import is_plain
from adamerge.errors import PoolError
from adamerge.export.hf import vision_state

State = Mapping[str, Tensor]
_SAFE = "format=open_clip and format=safetensors write the whole encoder."
_HINT = "format=hf and format=safetensors write the whole encoder."


def write_peft(folder: Path, encoder: State, base: State, named: str) -> None:
    """Write an adapter for CLIPVisionModelWithProjection: base + adapter is the merged encoder up to rounding.

    Args:
        encoder: the merged encoder, open_clip keys.
        base: the base's encoder.
        named: the base's public name; "" for none.

    Raises:
        PoolError: the merge changed more than matrices of low rank, or is none of Hugging Face's CLIP.
    """
    if OPEN_CLIP.patches not in encoder:
        raise PoolError(f"format=peft writes adapters of CLIP, and this is a trunk of timm's.\n  {_SAFE}")
    if is_plain(encoder):
        raise PoolError(
            "format=peft writes adapters of CLIP, and this is a plain vision transformer.\n"
            "  format=hf, format=timm and format=safetensors write the whole encoder."
        )
    factors = _factors(vision_state(encoder), vision_state(base))
    if not factors:
        raise PoolError("The merged encoder is the base: there is nothing for an adapter to hold.")
    write_adapter(folder, factors, base=named)


def _factors(merged: State, base: State) -> dict[str, Factors]:
    factors = {}
    for key, value in merged.items():
        delta, module = value.float() - base[key].float(), key.removesuffix(".weight")
        noise = 4 * torch.finfo(torch.float32).eps * float(base[key].abs().max())
        if float(delta.abs().max()) <= noise:
            continue
        if not (delta.ndim == 2 and HF_CLIP.block_of(key) is not None) and key != HF_CLIP.projection:
            raise PoolError(
                f"The merge changed {key}, which is no matrix of an attention or MLP, so it is no LoRA.\n  {_HINT}"
            )
        left, spectrum, right = torch.linalg.svd(delta, full_matrices=False)
        # What rounding alone leaves in the spectrum of a sum of numbers as large as the base's.
        rank = int((spectrum > noise * sum(side**0.5 for side in delta.shape)).sum())
        if rank * sum(delta.shape) >= delta.numel():
            raise PoolError(
                f"What the merge changed in {key} {tuple(delta.shape)} has rank {rank}: as factors it would be no "
                f"smaller.\n  {_HINT}"
            )
        factors[module] = Factors(left[:, :rank] * spectrum[:rank], right[:rank], 1.0)
    return factors
