"""`pretrain`: a small CLIP, vision and text tower, where no public weights serve."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from omegaconf import DictConfig
from rich.console import Console

from adamerge.checkpoints import save_tensors
from adamerge.checkpoints.atomic import atomic_write_text
from adamerge.commands.assemble import model_of, open_tasks
from adamerge.commands.run_folder import start_folder, train_in
from adamerge.models.clip import MEAN, STD, build_clip, image_size, model_config, tokenizer
from adamerge.settings import instantiate, run_id, validate
from adamerge.tasks.labeled import Captioned
from adamerge.training.making import Pretraining


def run(cfg: DictConfig) -> None:
    validate(cfg)
    console = Console()
    target = Path(cfg.folder)
    if (target / "open_clip_config.json").exists():
        console.print(f"There is a base model at {target} already. Delete it, or choose folder=<another>.")
        return
    model = model_of(cfg)
    tasks = open_tasks(cfg)
    torch.manual_seed(cfg.seed)
    clip = build_clip(model).train()
    module = Pretraining(clip, tokenizer(model), instantiate(cfg.optimizer), cfg.steps, cfg.warmup)
    data = Captioned(tasks, cfg.batch_size, cfg.steps, image_size(model), cfg.seed)
    folder = Path(cfg.outputs) / cfg.suite.name / "pretrain" / run_id(cfg, {}, "pretrain")
    start_folder(cfg, folder)
    console.print(
        f"Pre-training {cfg.backbone.name} on {len(tasks)} tasks for {cfg.steps} steps; journal in {folder}"
    )
    train_in(folder, cfg, module, data, cfg.steps)
    save_clip(target, clip, model_config(model))
    console.print(f"Base model: {target}")


def save_clip(folder: Path, clip: torch.nn.Module, config: dict[str, object]) -> None:
    """Write an open_clip `local-dir` folder in half precision. The config comes last: it marks the folder complete."""
    save_tensors(folder / "open_clip_model.safetensors", {k: v.half() for k, v in clip.state_dict().items()})
    preprocess = {"mean": MEAN, "std": STD, "interpolation": "bicubic", "resize_mode": "shortest"}
    text = json.dumps({"model_cfg": config, "preprocess_cfg": preprocess}, indent=2)
    atomic_write_text(folder / "open_clip_config.json", text + "\n")
