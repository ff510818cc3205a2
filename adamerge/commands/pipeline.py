"""The one way from a config to a finished run folder, for `train` and `merge` alike."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from importlib.metadata import version
from pathlib import Path

import torch
from omegaconf import DictConfig, OmegaConf
from rich.console import Console

from adamerge.cache import cached
from adamerge.checkpoints import save_tensors
from adamerge.checkpoints.atomic import atomic_write_text
from adamerge.commands.adapt import adapt
from adamerge.commands.assemble import Data, device_of, suite_name
from adamerge.commands.progress import image_progress
from adamerge.commands.run import Run, open_run
from adamerge.commands.run_folder import start_folder
from adamerge.commands.trained import run_in, save_heads, trained_method
from adamerge.evaluation import predict, score
from adamerge.memory import peak_memory_bytes
from adamerge.merging import Pool
from adamerge.methods import Method, Static
from adamerge.report.summary import finish
from adamerge.rules import Individual, Pretrained, WeightAverage
from adamerge.settings import cache_dir, validate
from adamerge.tracking.journal import Journal
from adamerge.tracking.results import Reference, Results, TaskResult, read_results


def baselines(run: Run) -> dict[str, Callable[[Pool], Pool]]:
    """What every run is compared with. The names are those of the rules."""
    return {
        "pretrained": Pretrained(),
        "weight_average": WeightAverage(),
        "task_arithmetic": run.arithmetic,
        "individual": Individual(),
    }


def execute(cfg: DictConfig) -> Results:
    """Merge, adapt, evaluate, record. A finished run is shown, an interrupted one goes on."""
    validate(cfg)
    run = open_run(cfg)
    console = Console()
    if (run.folder / "results.json").exists():
        results = read_results(run.folder)
        finish(run.folder, results, console, again=True)
        return results
    start_folder(cfg, run.folder)
    console.print(f"[bold]{run.name}[/] on {suite_name(cfg)}, run {run.id}", highlight=False)
    started = time.perf_counter()
    pool, data = run.open()
    method = run.build(pool)
    prepared = time.perf_counter()
    recorded = adapt(run, method, pool, data, console)
    adapted = time.perf_counter()
    save_parts(run.folder, method)
    save_heads(run.folder, pool.heads, {task.name: task.classes for task in data.tasks})
    results = evaluate(run, method, pool, data)
    seconds = {
        "prepare": prepared - started,
        "adapt": recorded + sum(r["seconds"] for r in Journal(run.folder / "journal.jsonl").read()),
        "evaluate": time.perf_counter() - adapted,
    }
    results = replace(results, seconds={name: round(value, 3) for name, value in seconds.items()})
    finish(run.folder, results, console)
    return results


def save_parts(folder: Path, method: Method) -> None:
    """What was trained, the merged encoder where there is one, and the coefficients as plain numbers."""
    if trained := method.state_dict():
        save_tensors(folder / "state.safetensors", trained)
    if method.one_encoder:
        save_tensors(folder / "merged.safetensors", method.merged_state_dict())
    if table := method.coefficients():
        layers = list(next(iter(table.values())))
        values = [[table[task][layer] for task in table] for layer in layers]
        content = {"layers": layers, "tasks": list(table), "values": values}
        atomic_write_text(folder / "coefficients.json", json.dumps(content) + "\n")


def evaluate(run: Run, method: Method, pool: Pool, data: Data) -> Results:
    """Accuracy and agreement of the method and of what it is compared with."""
    cfg = run.cfg
    device = device_of(cfg)
    predictions = _baseline_predictions(run, pool, data)
    with image_progress(f"Evaluating {run.name}", data.images) as progress:
        predicted = predict(
            method, data.images, device=device, batch_size=cfg.evaluation.batch_size, progress=progress
        )
    experts = predictions["individual"]
    baselines = {name: _reference(by_task, experts, data) for name, by_task in predictions.items()}
    own = _reference(predicted, experts, data)
    tasks = {task: _task_result(task, own, baselines, len(images)) for task, images in data.images.items()}
    schedule = cfg.method.schedule
    return Results(
        run_id=run.id,
        command="train" if method.trainable_count() else "merge",
        method=run.name,
        rule=cfg.rule.name,
        suite=suite_name(cfg),
        backbone=cfg.backbone.name,
        seed=cfg.seed,
        steps=schedule.steps if schedule is not None else 0,
        trainable_parameters=method.trainable_count(),
        seconds={},
        peak_memory_bytes=peak_memory_bytes(device),
        tasks=tasks,
        versions=versions(),
        device=device_name(device),
        baselines=baselines,
    )


def _baseline_predictions(run: Run, pool: Pool, data: Data) -> dict[str, dict[str, torch.Tensor]]:
    """Predictions that depend on the checkpoints and images only: computed once per machine."""
    cfg, rules = run.cfg, baselines(run)
    shared = {
        "kind": "predictions",
        "files": run.files,
        "backbone": OmegaConf.to_container(cfg.backbone, resolve=True),
        "dtype": cfg.checkpoints.dtype,
        "images": {task: images.digest() for task, images in data.images.items()},
        "prompts": {} if cfg.checkpoints.heads else {task.name: task.prompts() for task in data.tasks},
    }

    def make(name: str) -> dict[str, torch.Tensor]:
        with image_progress(f"Evaluating {name}", data.images) as progress:
            return predict(
                Static(rules[name](pool)),
                data.images,
                device=device_of(cfg),
                batch_size=cfg.evaluation.batch_size,
                progress=progress,
            )

    folder = cache_dir() / "predictions"
    return {
        name: cached(folder, {**shared, "baseline": repr(rule)}, partial(make, name))
        for name, rule in rules.items()
    }


def _reference(predicted: dict[str, torch.Tensor], experts: dict[str, torch.Tensor], data: Data) -> Reference:
    scores = {task: score(predicted[task], data.labels[task], experts[task]) for task in data.images}
    return Reference(
        {task: s.accuracy for task, s in scores.items()}, {task: s.agreement for task, s in scores.items()}
    )


def _task_result(task: str, own: Reference, baselines: dict[str, Reference], n: int) -> TaskResult:
    accuracy, expert = own.accuracy[task], baselines["individual"].accuracy[task]
    return TaskResult(
        accuracy=accuracy,
        n=n,
        expert=expert,
        pretrained=baselines["pretrained"].accuracy[task],
        normalized=accuracy / expert if accuracy is not None and expert else None,
        agreement=own.agreement[task],
    )


def versions() -> dict[str, str]:
    names = ("adamerge", "torch", "torchvision", "pytorch-lightning", "open_clip_torch", "numpy")
    return {name: version(name) for name in names}


def device_name(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type


def load_method(folder: Path) -> tuple[Run, Method, Pool, Data]:
    """A finished run's method with its trained parts, ready to evaluate."""
    run = run_in(folder)
    pool, data = run.open()
    return run, trained_method(run, folder, pool), pool, data
