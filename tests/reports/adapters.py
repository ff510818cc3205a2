"""Reports of adapters: LoRA as PEFT writes it, and what is no LoRA."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from reports.files import DIGITS, base, expert, on_mini
from reports.report import BASE, Report
from safetensors.torch import save_file
from torch import Tensor

from adamerge.checkpoints import open_clip_to_hf

Change = Callable[[dict[str, Tensor], dict[str, Any]], object]
STEM = "base_model.model."
FC1 = f"{STEM}vision_model.encoder.layers.0.mlp.fc1"


def digits(home: Path, change: Change = lambda tensors, config: None) -> Path:
    """The digits expert as an adapter of full rank on mini's base: s B A is the task vector."""
    tensors: dict[str, Tensor] = {}
    before, after = open_clip_to_hf(base()), open_clip_to_hf(expert())
    for key, value in after.items():
        delta = value.float() - before[key].float()
        module = key.removesuffix(".weight")
        if ".layers." in key and delta.ndim == 2:
            left, spectrum, right = torch.linalg.svd(delta, full_matrices=False)
            tensors[f"{STEM}{module}.lora_A.weight"] = right
            tensors[f"{STEM}{module}.lora_B.weight"] = left * spectrum
        else:
            tensors[STEM + key] = value.float()
    config: dict[str, Any] = {"peft_type": "LORA", "r": 128, "lora_alpha": 128, "bias": "all"}
    change(tensors, config)
    folder = home / "adapter"
    folder.mkdir()
    save_file({k: v.contiguous() for k, v in tensors.items()}, folder / "adapter_model.safetensors")
    if config:
        (folder / "adapter_config.json").write_text(json.dumps(config))
    return folder


def changed(change: Change) -> Callable[[Path], Path]:
    return lambda home: digits(home, change)


def refused(name: str, change: Change, *says: str) -> list[Report]:
    """An adapter that merge, its streaming and doctor refuse alike."""
    commands = {"merge": ["evaluate=false"], "doctor": [], "train": ["method=task_arithmetic"]}
    return [
        Report(
            f"{command}: {name}",
            lambda home, c=command, w=words: on_mini(*w, command=c, digits=changed(change)(home)),  # type: ignore[misc]
            says=says,
        )
        for command, words in commands.items()
    ]


def beyond(tensors: dict[str, Tensor], config: dict[str, Any]) -> None:
    for side in "AB":
        tensors[f"{FC1.replace('.0.', '.9.')}.lora_{side}.weight"] = tensors[f"{FC1}.lora_{side}.weight"]


REPORTS = [
    Report("a LoRA is an expert", lambda home: on_mini(digits=digits(home)), exit=0, average=DIGITS),
    Report(
        "merge evaluate=false: a LoRA",
        lambda home: on_mini("evaluate=false", digits=digits(home)),
        exit=0,
        says=("was written tensor by tensor",),
    ),
    Report(
        "doctor: a LoRA",
        lambda home: on_mini(command="doctor", digits=digits(home)),
        exit=0,
        says=("LoRA of rank 128 in safetensors", "moved by"),
    ),
    Report(
        "evaluate: a LoRA",
        lambda home: ["evaluate", *on_mini(f"checkpoint={digits(home)}")[1:]],
        exit=0,
        says=("98.6",),
    ),
    Report(
        "convert: a LoRA onto its base",
        lambda home: [
            "convert",
            str(digits(home)),
            "--base",
            str(BASE),
            "--out",
            str(home / "x.safetensors"),
        ],
        exit=0,
    ),
    Report("convert: a LoRA without its base", lambda home: ["convert", str(digits(home))], says=("--base",)),
    Report(
        "a LoRA as the base",
        lambda home: on_mini(f"checkpoints.base={digits(home)}"),
        says=("is a LoRA, which changes a base model",),
    ),
    *refused("DoRA", lambda tensors, config: config.update(use_dora=True), "DoRA", "merge_and_unload"),
    *refused("VeRA", lambda tensors, config: config.update(peft_type="VERA"), "VERA", "LoRA alone is read"),
    *refused(
        "no adapter_config.json", lambda tensors, config: config.clear(), "adapter_config.json", "lora_alpha"
    ),
    *refused("a target that the base has not", beyond, "layers.9.mlp.fc1", "does not have"),
    *refused("another rank than its tensors have", lambda tensors, config: config.update(r=64), "rank 64"),
]
