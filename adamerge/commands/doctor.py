"""`doctor [options of train]`: checks all that a run needs, and says what to mend. Nothing is started."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, suppress
from functools import partial
from pathlib import Path
from typing import Any

import torch
from rich.text import Text
from torch import Tensor

from adamerge.checkpoints.addresses import locate
from adamerge.console import plain_console
from adamerge.diagnosis.data import task_data
from adamerge.diagnosis.environment import devices, disk, packages, python_version
from adamerge.diagnosis.findings import Finding, guarded
from adamerge.diagnosis.need import enough, memory_need
from adamerge.diagnosis.weights import base_file, expert_file, head_file, text_file
from adamerge.errors import AdamergeError, CheckpointError, RunError
from adamerge.models.clip import activation, image_size
from adamerge.models.likeness import Lookalikes
from adamerge.models.settling import stated_of
from adamerge.progress import image_progress
from adamerge.runs.backbones import device_of, model_of, pictures_for, settled
from adamerge.runs.class_names import check_rows, stated_classes, with_stated_classes
from adamerge.runs.images import open_tasks
from adamerge.runs.weights import checkpoint_places
from adamerge.settings import cache_dir
from adamerge.settings.commands import TrainSettings
from adamerge.settings.mistakes import Mistakes
from adamerge.tasks.images import Pictures
from adamerge.tasks.names import listed
from adamerge.tasks.task import check, check_head

_STYLES = {"ok": "green", "warning": "yellow", "problem": "bold red"}


def run(settings: TrainSettings | None, mistakes: Mistakes) -> None:
    """Print one line per finding.

    Raises:
        RunError: there are problems.
    """
    console = plain_console()
    counts = dict.fromkeys(_STYLES, 0)
    for finding in _findings(settings, mistakes):
        counts[finding.status] += 1
        line = Text(f"{finding.status:<8}", style=_STYLES[finding.status])
        line.append(f" {finding.what}: ", style="bold").append(finding.text, style="not bold")
        console.print(line, soft_wrap=True, highlight=False)
        if finding.advice:
            console.print(Text(f"{'':<9}{finding.advice}"), soft_wrap=True, highlight=False)
    warnings = _counted(counts["warning"], "warning")
    if counts["problem"]:
        raise RunError(f"{_counted(counts['problem'], 'problem')} and {warnings}; what to do stands above.")
    console.print(f"Nothing is in the way of a run; {warnings}.")


def _counted(count: int, noun: str) -> str:
    return f"{count} {noun}{'' if count == 1 else 's'}"


def _findings(settings: TrainSettings | None, mistakes: Mistakes) -> Iterator[Finding]:
    yield from guarded("python", python_version)
    yield from guarded("packages", packages)
    for line in mistakes.lines:
        yield Finding("problem", "config", " ".join(line.split()))
    if settings is None:
        return
    wrong = bool(mistakes.lines)
    yield from guarded("class names", partial(_class_names, settings), wrong)
    with suppress(Exception):  # what is in the way was told just now
        settings = with_stated_classes(settings, _here(settings, checkpoint_places(settings)))
    checks = {
        "config": _config,
        "device": devices,
        "disk": _disks,
        "data": _data,
        "checkpoints": _checkpoints,
        "memory": _memory,
    }
    for what, findings in checks.items():
        yield from guarded(what, partial(findings, settings), wrong)


def _config(settings: TrainSettings) -> Iterator[Finding]:
    """What the lines below are about: with mistakes, the config as far as it can be used."""
    groups: dict[str, Any] = {
        "method": settings.method,
        "rule": settings.rule,
        "backbone": settings.backbone,
        "suite": settings.suite,
    }
    used = ", ".join(f"{group}={section.name}" for group, section in groups.items())
    tasks = ", ".join(settings.suite.tasks)
    yield Finding("ok", "checked with", f"{used}; {_counted(len(settings.suite.tasks), 'task')}: {tasks}")


def _disks(settings: TrainSettings) -> Iterator[Finding]:
    # The merged encoder and the checkpoint to resume from, each once more while it is replaced.
    need = 4 * memory_need(settings).base
    yield from disk("outputs", Path(settings.outputs), need)
    yield from disk("cache", cache_dir(), need)


def _data(settings: TrainSettings) -> Iterator[Finding]:
    size = image_size(model_of(settings.backbone))

    def watch(title: str, pictures: Pictures) -> AbstractContextManager[Callable[[int], None]]:
        return image_progress(title, {title: pictures})

    for name in settings.suite.tasks:
        yield from guarded(f"data {name}", partial(task_data, settings, name, size, watch))


def _checkpoints(settings: TrainSettings) -> Iterator[Finding]:
    paths, model = checkpoint_places(settings), model_of(settings.backbone)
    resize = settings.backbone.resize_positions
    yield from guarded("backbone", partial(_backbone, settings, paths))
    seen = Lookalikes()
    origin: dict[str, Tensor] = {}
    needs_text = settings.checkpoints.heads is None and "text" not in paths
    for name, path in paths.items():
        kind, _, task = name.partition("/")
        checks: dict[str, Any] = {
            "base": partial(
                base_file, model=model, needs_text=needs_text, seen=seen, origin=origin, resize=resize
            ),
            "text": partial(text_file, model=model),
            "experts": partial(
                expert_file,
                task,
                model=model,
                seen=seen,
                origin=origin,
                resize=resize,
                base=paths["base"],
                head_is_used=paths.get(f"heads/{task}") == path,
            ),
            "heads": partial(
                head_file,
                task,
                model=model,
                check_rows=partial(_check_rows, settings, task),
                normalize=settings.checkpoints.normalize,
            ),
        }
        if kind in checks:
            yield from guarded(
                f"{kind.removesuffix('s')} {task}".strip(), partial(_located, settings, path, checks[kind])
            )
    if "experts" not in {name.partition("/")[0] for name in paths}:
        advice = "Give checkpoints.experts=<folder>/{task}.safetensors."
        yield Finding("problem", "experts", "checkpoints.experts is not given", advice)


def _check_rows(settings: TrainSettings, name: str, rows: int) -> None:
    """The rows of a task's head against the data, where that can be opened; else another line tells why not."""
    try:
        (task,) = [
            task for task in (*open_tasks(settings), *open_tasks(settings, unseen=True)) if task.name == name
        ]
        check(task, "test", lambda note: None)
    except AdamergeError:
        return
    check_head(task, rows, from_file=True)
    check_rows(task, _here(settings, checkpoint_places(settings)))


def _located(settings: TrainSettings, place: str, check: Any) -> Iterator[Finding]:
    yield from check(path=locate(place, settings.backbone.model))


def _backbone(settings: TrainSettings, places: Mapping[str, str]) -> Iterator[Finding]:
    """The backbone against the configuration files beside the weights."""
    paths = _here(settings, places)
    found = settled(settings, paths)
    pictures = pictures_for(found.backbone)
    mean, std = (", ".join(f"{value:.3f}" for value in colour) for colour in (pictures.mean, pictures.std))
    yield Finding(
        "ok",
        "backbone",
        f"{settings.backbone.name}: {pictures.size} px, mean {mean}, deviation {std}, {_activation(found, paths)}",
    )


def _here(settings: TrainSettings, places: Mapping[str, str]) -> dict[str, str]:
    """The files that are on this machine; what is not is told of elsewhere."""
    paths = {}
    for name, place in places.items():
        with suppress(CheckpointError):
            paths[name] = locate(place, settings.backbone.model)
    return paths


def _class_names(settings: TrainSettings) -> Iterator[Finding]:
    """The class names that files beside the weights state, where the config has none."""
    paths = _here(settings, checkpoint_places(settings))
    found = with_stated_classes(settings, paths).suite.catalogue
    for task in settings.suite.tasks:
        if found.get(task) != settings.suite.catalogue.get(task):
            names, where = stated_classes(paths, task)
            yield Finding("ok", f"class names {task}", f"{listed(names)} ({where})")


def _activation(settings: TrainSettings, paths: Mapping[str, str]) -> str:
    """The MLPs' activation, and who says so. Neither shapes nor predictions tell: an expert is about as sure of its
    images with the other one, which costs accuracy in silence."""
    name = "QuickGELU" if activation(model_of(settings.backbone)) == "quick_gelu" else "GELU"
    stated = any("activation" in stated_of(path).facts for path in paths.values())
    return f"{name} ({'as' if stated else 'not'} stated beside the weights)"


def _memory(settings: TrainSettings) -> Iterator[Finding]:
    missing = settings.trainer.accelerator in ("gpu", "cuda") and not torch.cuda.is_available()
    yield from enough(memory_need(settings), torch.device("cpu") if missing else device_of(settings.trainer))
