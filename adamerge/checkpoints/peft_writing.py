"""Writes a LoRA of Hugging Face's CLIP as PEFT does: adapter_config.json beside adapter_model.safetensors."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

from adamerge.architecture import HF_CLIP
from adamerge.checkpoints.lora import Factors
from adamerge.checkpoints.peft_config import CONFIG, WEIGHTS
from adamerge.checkpoints.saving import save_tensors
from adamerge.files import atomic_write_text

_WITHIN = "base_model.model."


def write_adapter(
    folder: Path, factors: Mapping[str, Factors], metadata: Mapping[str, str] | None = None, base: str = ""
) -> None:
    """Write a folder that `PeftModel.from_pretrained` lays onto a CLIPVisionModelWithProjection.

    Args:
        factors: by the name of the module there; s is written as alpha / r.
        metadata: what the tensors' file says of its origin.
        base: the model that it is made for, as a name that others can look up.
    """
    tensors = {}
    for module, found in factors.items():
        tensors[f"{_WITHIN}{module}.lora_A.weight"] = found.down
        tensors[f"{_WITHIN}{module}.lora_B.weight"] = found.up
    save_tensors(folder / WEIGHTS[0], tensors, {**(metadata or {}), "format": "pt"})
    atomic_write_text(folder / CONFIG, json.dumps(_config(factors, base), indent=2) + "\n")


def _config(factors: Mapping[str, Factors], base: str) -> dict[str, object]:
    ranks = {module: found.rank for module, found in factors.items()}
    alphas = {module: found.scale * found.rank for module, found in factors.items()}
    rank, alpha = (Counter(values.values()).most_common(1)[0][0] for values in (ranks, alphas))
    return {
        "peft_type": "LORA",
        "task_type": None,
        "base_model_name_or_path": base or None,
        "auto_mapping": {
            "base_model_class": "CLIPVisionModelWithProjection",
            "parent_library": "transformers.models.clip.modeling_clip",
        },
        "r": rank,
        "lora_alpha": alpha,
        "rank_pattern": {re.escape(name): value for name, value in ranks.items() if value != rank},
        "alpha_pattern": {re.escape(name): value for name, value in alphas.items() if value != alpha},
        "target_modules": _targets(list(factors)),
        "bias": "none",
        "modules_to_save": None,
        "fan_in_fan_out": False,
        "use_rslora": False,
        "use_dora": False,
        "lora_dropout": 0.0,
        "init_lora_weights": True,
        "inference_mode": True,
    }


def _targets(modules: list[str]) -> list[str]:
    """Short names where every block has the same modules, as people write them; else each by its whole name."""
    blocks: dict[int | None, set[str]] = {}
    for module in modules:
        blocks.setdefault(HF_CLIP.block_of(module), set()).add(module.rpartition(".")[2])
    (first, *others) = blocks.values()
    alike = None not in blocks and set(blocks) == set(range(len(blocks))) and all(o == first for o in others)
    return sorted(first) if alike else modules
