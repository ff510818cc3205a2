"""What adapter_config.json says of a LoRA's tensors, and every setting in it that would make them mean something else.

PEFT's layout: adapter_config.json and adapter_model.safetensors (or .bin) in one folder.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from adamerge.errors import CheckpointError

CONFIG = "adapter_config.json"
WEIGHTS = ("adapter_model.safetensors", "adapter_model.bin")
MERGE_IT = (
    "Merge it into the weights where it was made, model.merge_and_unload() in PEFT, and give what that saves."
)

# What the settings that change a LoRA's meaning are called by those who use them.
_OTHER_KINDS = {
    "use_dora": "DoRA",
    "lora_bias": "LoRA with a bias of its own (lora_bias)",
    "layer_replication": "LoRA over replicated layers (layer_replication)",
    "target_parameters": "LoRA on bare parameters (target_parameters)",
    "use_qalora": "QA-LoRA",
    "use_bdlora": "block-diagonal LoRA (use_bdlora)",
    "trainable_token_indices": "trainable tokens",
    "alora_invocation_tokens": "activated LoRA",
}
# They say how it was trained, what it is part of, or what its tensors say themselves.
_NO_MATTER = {
    *("auto_mapping", "base_model_name_or_path", "eva_config", "exclude_modules", "inference_mode", "layers_pattern"),
    *("layers_to_transform", "lora_dropout", "megatron_config", "megatron_core", "merge_weights", "modules_to_save"),
    *("peft_type", "peft_version", "qalora_group_size", "revision", "runtime_config", "target_modules", "task_type"),
}  # fmt: skip
_READ = {
    "r",
    "lora_alpha",
    "use_rslora",
    "rank_pattern",
    "alpha_pattern",
    "bias",
    "enable_lora",
    "fan_in_fan_out",
}
# Other initialisations subtract what they put into the factors from the base's weights.
_KEEP_THE_BASE = (True, False, None, "gaussian", "eva", "orthogonal")


@dataclass(frozen=True)
class LoraConfig:
    """How a LoRA's factors are scaled.

    Attributes:
        rank: r.
        alpha: lora_alpha; the scale is alpha / r.
        rank_stabilised: the scale is alpha / sqrt(r) (rsLoRA, arXiv 2312.03732).
        ranks, alphas: those of some modules, {regular expression of the module's name: value}.
        targets: the names of the adapted modules as they were asked for; empty where that was an expression.
        enabled: loralib's merged linear: which of query, key and value have factors; empty where it is not said.
        base: the model that it was made for, as its author named it; "" where nothing is said.
        model_class: the name of that model's class; "" likewise.
        fan_in_fan_out: said to be on weights stored as (in, out).
        version: of the PEFT that wrote it, such as (0, 21, 2); empty where it does not say, as before 0.18.
    """

    rank: int
    alpha: float
    rank_stabilised: bool = False
    ranks: Mapping[str, int] | None = None
    alphas: Mapping[str, float] | None = None
    targets: tuple[str, ...] = ()
    enabled: tuple[bool, ...] = ()
    base: str = ""
    model_class: str = ""
    fan_in_fan_out: bool = False
    version: tuple[int, ...] = ()

    def rank_of(self, module: str) -> int:
        """r of a module by its name within the adapted model."""
        return int(_by_pattern(self.ranks or {}, module, self.rank))

    def scale_of(self, module: str) -> float:
        """s in delta = s B A."""
        alpha, rank = _by_pattern(self.alphas or {}, module, self.alpha), self.rank_of(module)
        return float(alpha / rank**0.5 if self.rank_stabilised else alpha / rank)


def _by_pattern(patterns: Mapping[str, float], module: str, otherwise: float) -> float:
    """The first pattern that matches a module's name, or the end of it after a dot, decides, as in PEFT."""
    return next(
        (v for pattern, v in patterns.items() if re.match(rf"(.*\.)?({pattern})$", module)), otherwise
    )


def read_config(file: Path) -> LoraConfig:
    """The configuration of a LoRA.

    Raises:
        CheckpointError: no such file, one that is damaged, or one of another kind of adapter.
    """
    content = _content(file)
    _refuse_other_kinds(content, file)
    try:
        mapping, targets = content.get("auto_mapping") or {}, content.get("target_modules") or ()
        config = LoraConfig(
            rank=int(content["r"]),
            alpha=float(content["lora_alpha"]),
            rank_stabilised=bool(content.get("use_rslora")),
            ranks={str(key): int(value) for key, value in (content.get("rank_pattern") or {}).items()},
            alphas={str(key): float(value) for key, value in (content.get("alpha_pattern") or {}).items()},
            targets=() if isinstance(targets, str) else tuple(map(str, targets)),
            enabled=tuple(map(bool, content.get("enable_lora") or ())),
            base=str(content.get("base_model_name_or_path") or ""),
            model_class=str(mapping.get("base_model_class") or ""),
            fan_in_fan_out=bool(content.get("fan_in_fan_out")),
            version=tuple(map(int, re.findall(r"\d+", str(content.get("peft_version") or ""))[:3])),
        )
        for pattern in (*(config.ranks or ()), *(config.alphas or ())):
            re.compile(pattern)
    except KeyError as error:
        raise CheckpointError(f"{file} does not say {error}, without which the scale is unknown.") from error
    except (TypeError, ValueError, AttributeError, re.error) as error:
        raise CheckpointError(f"{file} is no configuration of a LoRA: {error}.") from error
    if min([config.rank, *(config.ranks or {}).values()]) < 1:
        raise CheckpointError(
            f"{file}: ranks of at least 1 are expected, found {config.rank}, {config.ranks}."
        )
    return config


def _content(file: Path) -> dict[str, Any]:
    if not file.exists():
        raise CheckpointError(
            f"{file.parent} holds the tensors of a LoRA, but not their scale: there is no {file.name}.\n"
            '  Put it beside them as PEFT writes it; of another trainer {"r": <rank>, "lora_alpha": <alpha>} suffices.'
        )
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except (ValueError, UnicodeDecodeError) as error:
        raise CheckpointError(f"{file} is no JSON: {error}.") from error
    if not isinstance(content, dict):
        raise CheckpointError(f"{file} is no configuration of a LoRA: a {type(content).__name__}.")
    return content


def _refuse_other_kinds(content: Mapping[str, Any], file: Path) -> None:
    kind = str(content.get("peft_type") or "LORA")
    if kind != "LORA":
        raise other_kind(str(file), f"{kind} (peft_type)")
    for key, value in content.items():
        if not value or key in _NO_MATTER or key in _READ:
            continue
        if key == "init_lora_weights":
            if value not in _KEEP_THE_BASE:
                reason = "begins from changed weights of the base"
                raise other_kind(str(file), f"LoRA that {reason} ({key}={value})")
        elif not (key == "bias" and value in ("none", "all", "lora_only")):
            raise other_kind(str(file), _OTHER_KINDS.get(key, f"LoRA with {key}={json.dumps(value)}"))


def other_kind(source: str, kind: str) -> CheckpointError:
    """The refusal of what is no plain LoRA, by its name."""
    return CheckpointError(
        f"{source} is of an adapter that is not read: {kind}. LoRA alone is read.\n  {MERGE_IT}"
    )
