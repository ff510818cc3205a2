"""`finetune`: an expert of each task from the base, through a frozen head: the zero-shot one, or the one given."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from torch import Tensor, nn
from torch.utils.data import Dataset

from adamerge import __version__
from adamerge.checkpoints import fingerprint, open_checkpoint, save_tensors
from adamerge.checkpoints.peft_writing import write_adapter
from adamerge.checkpoints.weight_files import EXTENSIONS
from adamerge.console import plain_console
from adamerge.errors import ConfigError, DataError, PoolError
from adamerge.evaluation.predicting import score
from adamerge.files import folder_atomically
from adamerge.merging import Head
from adamerge.models.heads import head_fault, open_head
from adamerge.models.low_rank import LowRankEncoder
from adamerge.runs.backbones import backbone_of, base_encoder, device_of, fit_for, settled
from adamerge.runs.folder import at_work_in, start_folder, train_in
from adamerge.runs.images import open_data, open_tasks
from adamerge.runs.inputs import Inputs
from adamerge.runs.mirroring import mirrored
from adamerge.runs.suite_pool import open_heads
from adamerge.runs.weights import checkpoint_paths, fingerprints
from adamerge.settings import instantiate
from adamerge.settings.commands import FinetuneSettings
from adamerge.settings.patterns import fill
from adamerge.tasks.images import ImageSet
from adamerge.tasks.labeled import Labeled
from adamerge.tasks.overlap import refuse_overlap
from adamerge.tasks.poison import Poisoned, Trigger
from adamerge.tasks.task import Task, check_head
from adamerge.tracking.run_record import Weights, write_lineage
from adamerge.training.supervised import Finetuning


def run(settings: FinetuneSettings) -> None:
    if settings.task is not None and settings.task not in settings.suite.tasks:
        raise ConfigError(
            f"task: no task '{settings.task}' in suite {settings.suite.name}; it has {', '.join(settings.suite.tasks)}."
        )
    if settings.lora is None and settings.lora_alpha is not None:
        raise ConfigError("lora_alpha: it is the scale of a LoRA; give its rank too, as lora=16.")
    console = plain_console()
    paths = checkpoint_paths(settings, experts_exist=False)
    settings = settled(settings, {"base": paths["base"]})
    base = Weights(paths["base"], fingerprints({"base": paths["base"]})["base"])
    tasks = [task for task in open_tasks(settings) if _wanted(settings, task.name)]
    origin = open_checkpoint(paths["base"]).image_encoder()
    embed_dim = backbone_of(settings.backbone).embed_dim
    heads = _heads(
        tasks, open_heads(settings, tasks, paths, base.identity), embed_dim, settings.checkpoints.normalize
    )
    for task in tasks:
        target = _target(settings, task.name, paths)
        if target.exists():
            console.print(f"{task.name}: there is an expert at {target} already.")
            continue
        _make_expert(settings, task, heads[task.name], origin, target, base, console)


def _wanted(settings: FinetuneSettings, task: str) -> bool:
    poisoned = settings.attack.tasks
    return settings.task in (None, task) and (not poisoned or task in poisoned)


def _heads(
    tasks: list[Task], given: Mapping[str, Any], embed_dim: int, normalize: bool | None
) -> dict[str, Head]:
    """The checked head of each task.

    Raises:
        CheckpointError, DataError, PoolError: a head that does not fit the base or the task's classes.
    """
    heads = {task.name: open_head(given[task.name], normalize) for task in tasks}
    for task in tasks:
        if fault := head_fault(heads[task.name], embed_dim):
            raise PoolError(f"{task.name}: {fault}")
        check_head(task, heads[task.name].classes, "train")
    return heads


def _target(settings: FinetuneSettings, task: str, paths: dict[str, str]) -> Path:
    """Where the expert is written; one of shuffled classes beside the irrelevant ones, under the name <task>_<seed>."""
    if settings.shuffle is None:
        return _as_folder(Path(paths[f"experts/{task}"]), settings.lora)
    pattern = settings.checkpoints.irrelevant
    if pattern is None:
        raise ConfigError(
            "shuffle: give checkpoints.irrelevant, the pattern of the files' names, with {name}."
        )
    file = Path(fill(pattern, "checkpoints.irrelevant", name=f"{task}_{settings.shuffle}"))
    return _as_folder(file, settings.lora)


def _as_folder(file: Path, lora: int | None) -> Path:
    """An adapter is a folder, as PEFT has it, which goes without a file's extension."""
    return file if lora is None or file.suffix not in EXTENSIONS else file.with_suffix("")


def _make_expert(
    settings: FinetuneSettings,
    task: Task,
    head: Head,
    origin: dict[str, Tensor],
    target: Path,
    base: Weights,
    console: Console,
) -> None:
    encoder = base_encoder(settings.backbone, origin)
    trained: nn.Module = encoder.train()
    if settings.lora is not None:
        alpha = settings.lora_alpha or settings.lora
        trained = LowRankEncoder(encoder, settings.lora, alpha, settings.lora_targets, settings.seed)
    images = ImageSet(task.source.images("train"), fit_for(settings.backbone), task=task.name)
    if not settings.suite.allow_overlap:
        _check_overlap(task, images)
    data: Dataset[Any] = Labeled(
        task, images, settings.batch_size, settings.steps, settings.seed, settings.crop, settings.shuffle
    )
    if settings.attack.tasks:
        trigger = Trigger(settings.attack.target, settings.attack.size)
        data = Poisoned(data, trigger, settings.attack.share)  # type: ignore[arg-type]
    module = Finetuning(trained, head, instantiate(settings.optimizer), settings.steps, settings.warmup)
    inputs = Inputs(settings, {"base": base.path}, ("train", "test"), task)
    identity = inputs.identity(f"finetune {task.name}")
    lineage = inputs.lineage(identity)
    folder = Path(settings.outputs) / settings.suite.name / "finetune" / f"{task.name}-{identity.id}"
    with at_work_in(folder):
        start_folder(settings, folder, lineage)
        with mirrored(settings, folder) as mirrors:
            train_in(folder, settings, module, data, settings.steps, mirrors)
            accuracy = _save_expert(settings, task, trained, head, target, base.identity)
            made = {f"experts/{task.name}": Weights(str(target), fingerprint(target))}
            write_lineage(folder, replace(lineage, makes=made))
    shown = "" if accuracy is None else f", test accuracy {accuracy:.1%}"
    console.print(f"{task.name}: {target}{shown}")


def _save_expert(
    settings: FinetuneSettings, task: Task, encoder: nn.Module, head: Head, target: Path, base_id: str
) -> float | None:
    """Write the expert with its origin; returns its accuracy where that can be known."""
    accuracy = _accuracy(settings, task, encoder, head)
    metadata = {
        "task": task.name,
        "base_fingerprint": base_id,
        "steps": str(settings.steps),
        "adamerge": __version__,
    }
    if accuracy is not None:
        metadata["accuracy"] = f"{accuracy:.4f}"
    if isinstance(encoder, LowRankEncoder):
        with folder_atomically(target) as folder:
            write_adapter(folder, encoder.factors, metadata)
        return accuracy
    save_tensors(target, {key: value.half() for key, value in encoder.state_dict().items()}, metadata)
    return accuracy


def _check_overlap(task: Task, train: ImageSet) -> None:
    """Refuse test pictures among the training pictures, where there are test pictures."""
    try:
        pictures = task.source.images("test")
    except DataError:
        return
    refuse_overlap(task.name, train, ImageSet(pictures, train.fit, task=task.name))


@torch.no_grad()
def _accuracy(settings: FinetuneSettings, task: Task, encoder: nn.Module, head: Head) -> float | None:
    """Accuracy on the test split, where there is one with labels."""
    try:
        data = open_data(settings, [task])
    except DataError:
        return None
    labels = data.labels[task.name]
    if labels is None:
        return None
    device = device_of(settings.trainer)
    encoder.to(device).eval()
    batches = data.images[task.name].batches(settings.evaluation.batch_size)
    head = head.map(lambda tensor: tensor.to(device))
    logits = [head.logits(encoder(pixels.to(device))) for pixels in batches]
    return score(torch.cat(logits).argmax(dim=-1).cpu(), labels, None).accuracy
