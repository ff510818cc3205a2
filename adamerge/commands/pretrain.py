"""`pretrain`: a small CLIP, vision and text tower, where no public weights serve."""

from __future__ import annotations

from pathlib import Path

import torch
from omegaconf import DictConfig

from adamerge.checkpoints import fingerprint
from adamerge.commands.assemble import model_of, open_tasks, pictures_for
from adamerge.commands.mirroring import mirrored
from adamerge.commands.run_folder import start_folder, train_in
from adamerge.models.clip import build_clip, tokenizer
from adamerge.models.local_dir import CONFIG, save_local_dir
from adamerge.report.console import plain_console
from adamerge.settings import instantiate, run_id, validate
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
    tasks = open_tasks(cfg)
    torch.manual_seed(cfg.seed)
    clip = build_clip(model).train()
    pictures = pictures_for(cfg)
    module = Pretraining(clip, tokenizer(model), pictures, instantiate(cfg.optimizer), cfg.steps, cfg.warmup)
    data = Captioned(tasks, cfg.batch_size, cfg.steps, pictures.size, cfg.seed)
    folder = Path(cfg.outputs) / cfg.suite.name / "pretrain" / run_id(cfg, {}, "pretrain")
    start_folder(cfg, folder, {})
    console.print(
        f"Pre-training {cfg.backbone.name} on {len(tasks)} tasks for {cfg.steps} steps; journal in {folder}"
    )
    with mirrored(cfg, folder) as mirrors:
        train_in(folder, cfg, module, data, cfg.steps, mirrors)
        save_local_dir(
            target, {key: value.half() for key, value in clip.state_dict().items()}, model, pictures
        )
        write_lineage(folder, {}, {"base": Weights(str(target), fingerprint(target))})
    console.print(f"Base model: {target}")
