"""`pretrain`: a small CLIP, vision and text tower, where no public weights serve."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import torch
from omegaconf import DictConfig

from adamerge.checkpoints import fingerprint
from adamerge.console import plain_console
from adamerge.models.clip import build_clip, tokenizer
from adamerge.models.local_dir import CONFIG, save_local_dir
from adamerge.runs.folder import at_work_in, start_folder, train_in
from adamerge.runs.inputs import Inputs
from adamerge.runs.loading import model_of, pictures_for
from adamerge.runs.mirroring import mirrored
from adamerge.settings import instantiate, validate
from adamerge.tasks.labeled import Captioned
from adamerge.tracking.recorded import Weights, write_lineage
from adamerge.training.making import Pretraining


def run(cfg: DictConfig) -> None:
    validate(cfg)
    console = plain_console()
    target = Path(cfg.folder)
    if (target / CONFIG).exists():
        console.print(f"There is a base model at {target} already. Delete it, or choose folder=<another>.")
        return
    model = model_of(cfg)
    inputs = Inputs(cfg, {}, ("train",))
    tasks = inputs.tasks
    torch.manual_seed(cfg.seed)
    clip = build_clip(model).train()
    pictures = pictures_for(cfg)
    module = Pretraining(clip, tokenizer(model), pictures, instantiate(cfg.optimizer), cfg.steps, cfg.warmup)
    data = Captioned(tasks, cfg.batch_size, cfg.steps, pictures.size, cfg.seed)
    identity = inputs.identity("pretrain")
    lineage = inputs.lineage(identity)
    folder = Path(cfg.outputs) / cfg.suite.name / "pretrain" / identity.id
    console.print(
        f"Pre-training {cfg.backbone.name} on {len(tasks)} tasks for {cfg.steps} steps; journal in {folder}"
    )
    with at_work_in(folder):
        start_folder(cfg, folder, lineage)
        with mirrored(cfg, folder) as mirrors:
            train_in(folder, cfg, module, data, cfg.steps, mirrors)
            state = {key: value.half() for key, value in clip.state_dict().items()}
            save_local_dir(target, state, model, pictures)
            made = {"base": Weights(str(target), fingerprint(target))}
            write_lineage(folder, replace(lineage, makes=made))
    console.print(f"Base model: {target}")
