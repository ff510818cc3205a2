"""`pretrain`: a small CLIP, vision and text tower, where no public weights serve."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import torch

from adamerge.checkpoints import fingerprint
from adamerge.console import plain_console
from adamerge.models.clip import build_clip, tokenizer
from adamerge.models.local_dir import CONFIG, save_local_dir
from adamerge.runs.backbones import model_of, pictures_for
from adamerge.runs.folder import at_work_in, start_folder, train_in
from adamerge.runs.inputs import Inputs
from adamerge.runs.mirroring import mirrored
from adamerge.settings import instantiate
from adamerge.settings.commands import PretrainSettings
from adamerge.tasks.labeled import Captioned
from adamerge.tracking.run_record import Weights, write_lineage
from adamerge.training.supervised import Pretraining


def run(settings: PretrainSettings) -> None:
    console = plain_console()
    target = Path(settings.folder)
    if (target / CONFIG).exists():
        console.print(f"There is a base model at {target} already. Delete it, or choose folder=<another>.")
        return
    model = model_of(settings.backbone)
    inputs = Inputs(settings, {}, ("train",))
    tasks = inputs.tasks
    torch.manual_seed(settings.seed)
    clip = build_clip(model).train()
    pictures = pictures_for(settings.backbone)
    module = Pretraining(
        clip, tokenizer(model), pictures, instantiate(settings.optimizer), settings.steps, settings.warmup
    )
    data = Captioned(tasks, settings.batch_size, settings.steps, pictures.size, settings.seed)
    identity = inputs.identity("pretrain")
    lineage = inputs.lineage(identity)
    folder = Path(settings.outputs) / settings.suite.name / "pretrain" / identity.id
    console.print(
        f"Pre-training {settings.backbone.name} on {len(tasks)} tasks for {settings.steps} steps; journal in {folder}"
    )
    with at_work_in(folder):
        start_folder(settings, folder, lineage)
        with mirrored(settings, folder) as mirrors:
            train_in(folder, settings, module, data, settings.steps, mirrors)
            state = {key: value.half() for key, value in clip.state_dict().items()}
            save_local_dir(target, state, model, pictures)
            made = {"base": Weights(str(target), fingerprint(target))}
            write_lineage(folder, replace(lineage, makes=made))
    console.print(f"Base model: {target}")
