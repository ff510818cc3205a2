"""`finetune`: an expert of each task from the base, through a frozen head: the zero-shot one, or the one given."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig
from rich.console import Console
from torch import Tensor
from torch.utils.data import Dataset

from adamerge import __version__
from adamerge.checkpoints import fingerprint, open_checkpoint, save_tensors
from adamerge.console import plain_console
from adamerge.errors import ConfigError, DataError, PoolError
from adamerge.evaluation.predicting import score
from adamerge.merging import Head
from adamerge.models.clip import ImageEncoder, build_clip, image_size
from adamerge.models.heads import head_fault, open_head
from adamerge.models.pool import check_encoder
from adamerge.models.positions import resized
from adamerge.runs.folder import at_work_in, start_folder, train_in
from adamerge.runs.inputs import Inputs
from adamerge.runs.loading import (
    attacked,
    checkpoint_paths,
    device_of,
    fingerprints,
    model_of,
    open_data,
    open_heads,
    open_tasks,
    pictures_for,
    settled,
)
from adamerge.runs.mirroring import mirrored
from adamerge.settings import instantiate, validate
from adamerge.settings.patterns import fill
from adamerge.tasks.images import ImageSet
from adamerge.tasks.labeled import Labeled
from adamerge.tasks.overlap import refuse_overlap
from adamerge.tasks.poison import Poisoned, Trigger
from adamerge.tasks.task import Task, check_head
from adamerge.tracking.recorded import Weights, write_lineage
from adamerge.training.making import Finetuning


def run(cfg: DictConfig) -> None:
    validate(cfg)
    if cfg.task is not None and cfg.task not in cfg.suite.tasks:
        raise ConfigError(
            f"task: no task '{cfg.task}' in suite {cfg.suite.name}; it has {', '.join(cfg.suite.tasks)}."
        )
    console = plain_console()
    paths = checkpoint_paths(cfg, experts_exist=False)
    cfg = settled(cfg, {"base": paths["base"]})
    base = Weights(paths["base"], fingerprints({"base": paths["base"]})["base"])
    tasks = open_tasks(cfg)
    origin = open_checkpoint(paths["base"]).image_encoder()
    heads = _heads(tasks, open_heads(cfg, tasks, paths, base.identity), origin)
    for task in tasks:
        if cfg.task not in (None, task.name) or (attacked(cfg) and task.name not in attacked(cfg)):
            continue
        target = _target(cfg, task.name, paths)
        if target.exists():
            console.print(f"{task.name}: there is an expert at {target} already.")
            continue
        _make_expert(cfg, task, heads[task.name], origin, target, base, console)


def _heads(tasks: list[Task], given: Mapping[str, Any], origin: Mapping[str, Tensor]) -> dict[str, Head]:
    """The checked head of each task.

    Raises:
        CheckpointError, DataError, PoolError: a head that does not fit the base or the task's classes.
    """
    heads = {task.name: open_head(given[task.name]) for task in tasks}
    for task in tasks:
        if fault := head_fault(heads[task.name], origin["visual.proj"].shape[1]):
            raise PoolError(f"{task.name}: {fault}")
        check_head(task, heads[task.name].classes, "train")
    return heads


def _target(cfg: DictConfig, task: str, paths: dict[str, str]) -> Path:
    """Where the expert is written; one of shuffled classes beside the irrelevant ones, under the name <task>_<seed>."""
    if cfg.shuffle is None:
        return Path(paths[f"experts/{task}"])
    if cfg.checkpoints.get("irrelevant") is None:
        raise ConfigError(
            "shuffle: give checkpoints.irrelevant, the pattern of the files' names, with {name}."
        )
    return Path(fill(cfg.checkpoints.irrelevant, "checkpoints.irrelevant", name=f"{task}_{cfg.shuffle}"))


def _make_expert(
    cfg: DictConfig,
    task: Task,
    head: Head,
    origin: dict[str, Tensor],
    target: Path,
    base: Weights,
    console: Console,
) -> None:
    model = model_of(cfg)
    encoder = ImageEncoder(build_clip(model).visual, pictures_for(cfg))
    if cfg.backbone.get("resize_positions"):
        origin = resized(origin, encoder)
    check_encoder("the base model", origin, encoder.state_dict(), "the backbone")
    encoder.load_state_dict(origin)
    images = ImageSet(task.source.images("train"), image_size(model), task=task.name)
    if not cfg.suite.get("allow_overlap"):
        _check_overlap(task, images)
    data: Dataset[Any] = Labeled(task, images, cfg.batch_size, cfg.steps, cfg.seed, cfg.crop, cfg.shuffle)
    if attacked(cfg):
        trigger = Trigger(cfg.attack.target, cfg.attack.size)
        data = Poisoned(data, trigger, cfg.attack.share)  # type: ignore[arg-type]
    module = Finetuning(encoder.train(), head, instantiate(cfg.optimizer), cfg.steps, cfg.warmup)
    inputs = Inputs(cfg, {"base": base.path}, ("train", "test"), task)
    identity = inputs.identity(f"finetune {task.name}")
    lineage = inputs.lineage(identity)
    folder = Path(cfg.outputs) / cfg.suite.name / "finetune" / f"{task.name}-{identity.id}"
    with at_work_in(folder):
        start_folder(cfg, folder, lineage)
        with mirrored(cfg, folder) as mirrors:
            train_in(folder, cfg, module, data, cfg.steps, mirrors)
            accuracy = _save_expert(cfg, task, encoder, head, target, base.identity)
            made = {f"experts/{task.name}": Weights(str(target), fingerprint(target))}
            write_lineage(folder, replace(lineage, makes=made))
    shown = "" if accuracy is None else f", test accuracy {accuracy:.1%}"
    console.print(f"{task.name}: {target}{shown}")


def _save_expert(
    cfg: DictConfig, task: Task, encoder: ImageEncoder, head: Head, target: Path, base_id: str
) -> float | None:
    """Write the expert with its origin; returns its accuracy where that can be known."""
    accuracy = _accuracy(cfg, task, encoder, head)
    metadata = {
        "task": task.name,
        "base_fingerprint": base_id,
        "steps": str(cfg.steps),
        "adamerge": __version__,
    }
    if accuracy is not None:
        metadata["accuracy"] = f"{accuracy:.4f}"
    save_tensors(target, {key: value.half() for key, value in encoder.state_dict().items()}, metadata)
    return accuracy


def _check_overlap(task: Task, train: ImageSet) -> None:
    """Refuse test pictures among the training pictures, where there are test pictures."""
    try:
        pictures = task.source.images("test")
    except DataError:
        return
    refuse_overlap(task.name, train, ImageSet(pictures, train.size, task=task.name))


@torch.no_grad()
def _accuracy(cfg: DictConfig, task: Task, encoder: ImageEncoder, head: Head) -> float | None:
    """Accuracy on the test split, where there is one with labels."""
    try:
        data = open_data(cfg, [task])
    except DataError:
        return None
    labels = data.labels[task.name]
    if labels is None:
        return None
    device = device_of(cfg)
    encoder.to(device).eval()
    batches = data.images[task.name].batches(cfg.evaluation.batch_size)
    head = head.map(lambda tensor: tensor.to(device))
    logits = [head.logits(encoder(pixels.to(device))) for pixels in batches]
    return score(torch.cat(logits).argmax(dim=-1).cpu(), labels, None).accuracy
