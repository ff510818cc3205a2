"""From a checked config to the objects it names: tasks, images, heads, pool."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig, OmegaConf
from torch import Tensor

from adamerge.checkpoints import fingerprint
from adamerge.checkpoints.cached import cached
from adamerge.checkpoints.places import RANDOM, check_there, locate
from adamerge.errors import CheckpointError, ConfigError
from adamerge.merging import Pool
from adamerge.models.blocks import recompute_blocks
from adamerge.models.clip import Model, at_size, image_size
from adamerge.models.pictures import PictureRules
from adamerge.models.pool import open_pool
from adamerge.models.pretrained import RandomExperts, build_heads, pretrained_state
from adamerge.models.settling import picture_rules, settle, stated_of
from adamerge.models.start import start_file
from adamerge.settings import cache_dir, instantiate
from adamerge.settings.patterns import fill
from adamerge.tasks.chosen import Corrupted, Sample, Validation
from adamerge.tasks.corruptions import Corruption
from adamerge.tasks.images import ImageSet, Pictures
from adamerge.tasks.picture import READING
from adamerge.tasks.protocol import AdaptOn
from adamerge.tasks.task import Task, build_tasks, check

_THREADS = 4


def model_of(cfg: DictConfig) -> Model:
    """The backbone's open_clip model name or configuration."""
    model, size = named_model(cfg), cfg.backbone.get("image_size")
    return model if size is None else at_size(model, size)


def named_model(cfg: DictConfig) -> Model:
    """The same before another image size is asked for: open_clip publishes weights by its name."""
    model = cfg.backbone.model
    return model if isinstance(model, str) else OmegaConf.to_container(model, resolve=True)  # type: ignore[return-value]


def pictures_for(cfg: DictConfig) -> PictureRules:
    """How the backbone wants its pictures."""
    return picture_rules(model_of(cfg), cfg.backbone.get("mean"), cfg.backbone.get("std"))


def settled(cfg: DictConfig, paths: Mapping[str, str]) -> DictConfig:
    """The config with what its backbone leaves open taken from the files beside the weights.

    Raises:
        PoolError: files that contradict the backbone or each other.
    """
    stated = {
        {"base": "the base"}.get(name, name.removeprefix("experts/")): stated_of(path)
        for name, path in paths.items()
        if name == "base" or name.startswith("experts/")
    }
    given = (cfg.backbone.get("mean"), cfg.backbone.get("std"))
    resizes = cfg.backbone.get("resize_positions", False)
    found = settle(model_of(cfg), stated, *given, resize_positions=resizes)
    values: dict[str, Any] = {"mean": list(found.pictures.mean), "std": list(found.pictures.std)}
    if not isinstance(named_model(cfg), str):
        values["model"] = found.model
    result = cfg.copy()
    for key, value in values.items():
        OmegaConf.update(result, f"backbone.{key}", value, force_add=True)
    return result


def device_of(cfg: DictConfig) -> torch.device:
    """Where Lightning will train with these trainer options."""
    accelerator = cfg.trainer.get("accelerator", "auto")
    if accelerator in ("gpu", "cuda") and not torch.cuda.is_available():
        raise ConfigError(
            f"trainer.accelerator={accelerator}: there is no CUDA device here.\n  Give trainer.accelerator=cpu."
        )
    if accelerator != "mps" and accelerator != "cpu" and torch.cuda.is_available():
        return torch.device("cuda", torch.cuda.current_device())
    if accelerator == "mps":
        return torch.device("mps")
    return torch.device("cpu")


def open_tasks(cfg: DictConfig, unseen: bool = False) -> list[Task]:
    """The suite's tasks, or those that are evaluated without an expert."""
    catalogue = OmegaConf.to_container(cfg.suite.catalogue, resolve=True)
    names = cfg.suite.get("unseen", []) if unseen else cfg.suite.tasks
    tasks = build_tasks(list(names), catalogue, instantiate)  # type: ignore[arg-type]
    if cfg.suite.get("validation"):
        tasks = [replace(task, source=Validation(task.source), sizes={}) for task in tasks]
    if (limit := cfg.suite.get("limit")) is not None:
        tasks = [replace(task, source=Sample(task.source, limit), sizes={}) for task in tasks]
    return tasks


@dataclass(frozen=True)
class Data:
    """One split of the suite. The labels are kept apart from the images: only evaluation asks for them."""

    tasks: tuple[Task, ...]
    images: dict[str, ImageSet]
    labels: dict[str, Tensor | None]


def corruption_of(cfg: DictConfig) -> Corruption | None:
    """What is done to the suite's test pictures."""
    name = cfg.suite.get("corruption")
    if name is None:
        return None
    return Corruption(name, cfg.suite.get("severity", 2), cfg.suite.get("strengths", "auto"))


def suite_adapts_on(cfg: DictConfig) -> AdaptOn:
    """The images that the suite offers to adapt on."""
    given = cfg.suite.get("adapt_on", "test")
    plain: Any = OmegaConf.to_container(given) if isinstance(given, DictConfig) else given
    return AdaptOn.of(plain)


def suite_name(cfg: DictConfig) -> str:
    """The suite with its corruption, as it is reported: "mini", "mini, motion_blur 2"."""
    corruption, split = corruption_of(cfg), cfg.suite.get("test_split", "test")
    parts = [cfg.suite.name, *([] if corruption is None else [str(corruption)])]
    parts += [] if split == "test" else [f"split {split}"]
    parts += ["validation"] if cfg.suite.get("validation") else []
    parts += [f"{cfg.suite.limit} images"] if cfg.suite.get("limit") else []
    cut = suite_adapts_on(cfg)
    if cut.share is not None:  # another set of images is scored
        parts.append(f"unseen {1 - cut.share:.4g} of test" + (f", cut {cut.cut}" if cut.cut else ""))
    return ", ".join(parts)


def open_data(cfg: DictConfig, tasks: list[Task], split: str = "test") -> Data:
    """The images and labels of a split; the test images are corrupted where the suite says so."""
    size = image_size(model_of(cfg))
    corruption = corruption_of(cfg) if split == "test" else None
    for task in tasks:
        check(task, split)
    keep = cfg.suite.get("decode_cache", False)
    images = {
        task.name: image_set(
            task.source.images(split),
            size,
            corruption,
            kept_at(task, split, size, corruption) if keep else None,
            task.name,
        )
        for task in tasks
    }
    labels = {task.name: task.source.labels(split) for task in tasks}
    as_tensors = {name: None if array is None else torch.as_tensor(array) for name, array in labels.items()}
    return Data(tuple(tasks), images, as_tensors)


def image_set(
    pictures: Pictures,
    size: int,
    corruption: Corruption | None = None,
    kept: Path | None = None,
    task: str | None = None,
) -> ImageSet:
    """The pictures at the model's resolution, corrupted at it or before, as the corruption says."""
    if corruption is not None and corruption.at_source:
        return ImageSet(Corrupted(pictures, corruption), size, None, kept, task)
    return ImageSet(pictures, size, corruption, kept, task)


def kept_at(task: Task, split: str, size: int, corruption: Corruption | None = None) -> Path:
    """Where a split's decoded pictures lie."""
    made_of = f"{task.source.identity(split)} {size} {corruption} reading {READING}"
    return cache_dir() / "pixels" / hashlib.sha256(made_of.encode()).hexdigest()[:24]


def checkpoint_paths(cfg: DictConfig, experts_exist: bool = True) -> dict[str, str]:
    """Every file the run reads weights from: {"base": path, "experts/<task>": path, "heads/<task>", "start"}.

    Raises:
        CheckpointError: files that are not on this machine, all of them, or that cannot be fetched.
    """
    places = checkpoint_places(cfg)
    paths: dict[str, str] = {}
    missing: list[str] = []
    for name, place in places.items():
        try:
            path = locate(place, named_model(cfg), cfg.get("download", False))
            if (experts_exist or not name.startswith("experts/")) and not path.startswith(RANDOM):
                check_there(path)
            paths[name] = path
        except CheckpointError as error:
            if cfg.get("download") and place.startswith(("hf-hub:", "open_clip:")):
                raise  # without a network every further place would take half a minute to say the same
            missing.append(str(error))
    if missing:
        raise CheckpointError(_missing(missing, len(places), cfg.checkpoints.get("origin", "")))
    return paths


def _missing(texts: list[str], of: int, origin: str) -> str:
    lines = [f"{len(texts)} of {of} weight files are missing."]
    lines += [f"  {text.splitlines()[0]}" for text in texts]
    advice = dict.fromkeys(line.strip() for text in texts for line in text.splitlines()[1:])
    return "\n".join([*lines, *(f"  {line}" for line in (*advice, origin) if line)])


def checkpoint_places(cfg: DictConfig) -> dict[str, str]:
    """The places of those files as the config names them, which may be on the hub."""
    paths = {"base": str(cfg.checkpoints.base)}
    if (text := cfg.checkpoints.get("text")) is not None:
        paths["text"] = str(text)
    for kind in ("experts", "heads"):
        pattern = cfg.checkpoints.get(kind)
        if pattern is not None:
            tasks = [*cfg.suite.tasks, *(cfg.suite.get("unseen", []) if kind == "heads" else [])]
            names = cfg.checkpoints.get("names") or {}
            paths |= {
                f"{kind}/{task}": _path_of(pattern, task, kind, names.get(task, task)) for task in tasks
            }
    for name in cfg.suite.get("irrelevant", []):
        paths[f"experts/{name}"] = fill(_pattern(cfg, "irrelevant"), "checkpoints.irrelevant", name=name)
    for task in attacked(cfg):
        paths[f"experts/{task}"] = poisoned_path(cfg, task)
    if cfg.get("start") is not None:
        paths["start"] = str(start_file(cfg.start))
    return paths


def attacked(cfg: DictConfig) -> list[str]:
    """The tasks whose expert has a backdoor."""
    attack = cfg.get("attack")
    return list(attack.tasks) if attack and attack.get("tasks") else []


def poisoned_path(cfg: DictConfig, task: str) -> str:
    """The file of a task's expert with a backdoor."""
    pattern, attack = _pattern(cfg, "poisoned"), cfg.attack
    return fill(pattern, "checkpoints.poisoned", task=task, target=attack.target, size=attack.size)


def _pattern(cfg: DictConfig, kind: str) -> str:
    pattern = cfg.checkpoints.get(kind)
    if pattern is None:
        raise ConfigError(f"checkpoints.{kind} has no value; give the pattern of the files' names.")
    return str(pattern)


def _path_of(pattern: str | Mapping[str, str], task: str, kind: str, name: str) -> str:
    """`name` is the family's spelling of the task in a pattern."""
    if isinstance(pattern, str):
        return fill(pattern, f"checkpoints.{kind}", task=name)
    if task not in pattern:
        raise ConfigError(
            f"checkpoints.{kind} has no entry for task '{task}'.\n"
            f"  Give +checkpoints.{kind}.{task}=<file>, or a pattern such as 'folder/{{task}}.safetensors'."
        )
    return str(pattern[task])


def fingerprints(paths: Mapping[str, str]) -> dict[str, str]:
    """Content ids of the weight files; `random:<seed>` stands for itself."""
    with ThreadPoolExecutor(_THREADS) as threads:
        return dict(zip(paths, threads.map(_content, paths.values()), strict=True))


def _content(path: str) -> str:
    return path if path.startswith(RANDOM) else fingerprint(path)


def open_heads(cfg: DictConfig, tasks: list[Task], paths: Mapping[str, str], base_id: str) -> dict[str, Any]:
    """Head files where the config names them, else zero-shot heads from prompts (cached on disk)."""
    given = {name.removeprefix("heads/"): path for name, path in paths.items() if name.startswith("heads/")}
    if given:
        return given
    model = model_of(cfg)
    prompts = {task.name: task.prompts() for task in tasks}

    source = "text" if "text" in paths else "base"
    tower_id = fingerprints({source: paths[source]})[source] if source == "text" else base_id

    def make() -> dict[str, Tensor]:
        return build_heads(pretrained_state(paths[source], model), model, prompts)

    # One file for the suite: a head is small, and every run of the suite needs all of them.
    made_from = {"base": tower_id, "model": model, "prompts": prompts, "kind": "zero-shot heads"}
    return cached(cache_dir() / "heads", made_from, make)


def open_suite_pool(
    cfg: DictConfig, tasks: list[Task], paths: Mapping[str, str], ids: Mapping[str, str]
) -> Pool:
    return pool_with_heads(cfg, paths, open_heads(cfg, tasks, paths, ids["base"]))


def pool_with_heads(
    cfg: DictConfig, paths: Mapping[str, str], heads: Mapping[str, Any], dtype: torch.dtype | None = None
) -> Pool:
    """The checked pool of the suite's tasks with these heads; the tasks' data are not looked at.

    `dtype` is that of the task vectors, where it is another than the config's.
    """
    model = model_of(cfg)
    base: Any = paths["base"]
    without_task = list(cfg.suite.get("irrelevant", []))
    experts: Mapping[str, Any] = {
        task: paths[f"experts/{task}"] for task in [*cfg.suite.tasks, *without_task]
    }
    if base.startswith(RANDOM):
        base = pretrained_state(base, model)
        experts = RandomExperts(base, experts)
    dtype = dtype or getattr(torch, cfg.checkpoints.get("dtype", "float32"))
    pool = open_pool(
        base,
        experts,
        heads,
        backbone=model,
        dtype=dtype,
        without_task=without_task,
        pictures=pictures_for(cfg),
        resize_positions=cfg.backbone.get("resize_positions", False),
    )
    if cfg.get("activation_checkpointing"):
        recompute_blocks(pool.encoder)
    return pool
