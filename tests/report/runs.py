"""Finished run folders as small as they can be, with everything that a report shows."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

TASKS = ("digits", "signs", "scenes", "aerial")
LAYERS = (
    "visual.proj", "visual.conv1.weight", "visual.transformer.resblocks.10.mlp.weight",
    "visual.transformer.resblocks.2.mlp.weight", "visual.ln_post.weight",
)  # fmt: skip


OBJECTIVES = {"Entropy": "entropy (nats)", "Alignment": "distance to the expert (mean absolute difference)"}


def write_run(
    root: Path,
    method: str,
    seed: int = 0,
    accuracy: float | None = 0.6,
    *,
    tasks: Sequence[str] = TASKS,
    layers: Sequence[str] = LAYERS,
    steps: int = 30,
    objective: str = "Entropy",
    suite: str = "mini",
    **model: Any,
) -> Path:
    """`accuracy` is that of the first task, each further one has a little less; None is without labels."""
    folder = root / f"run-{len(list(root.glob('run-*'))):03d}"
    folder.mkdir(parents=True)
    config = {
        "seed": seed, "suite": {"name": suite}, "backbone": {"name": "small"}, "rule": {"name": "none"},
        "method": {"name": method, "model": model, "objective": {"_target_": f"adamerge.objectives.any.{objective}"}},
    }  # fmt: skip
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    results = _results(method, seed, accuracy, tasks, steps, suite) | {"objective": OBJECTIVES.get(objective)}
    (folder / "results.json").write_text(json.dumps(results))
    records = [
        {"step": i, "loss": 2.0, **{f"loss/{t}": 1 / (i + 1 + j) for j, t in enumerate(tasks)}}
        for i in range(steps)
    ]
    (folder / "journal.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    values = [[0.1 * seed + 0.03 * i + 0.01 * j for j in range(len(tasks))] for i in range(len(layers))]
    table = {"layers": list(layers), "tasks": list(tasks), "values": values}
    (folder / "coefficients.json").write_text(json.dumps(table))
    return folder


def _results(
    method: str, seed: int, accuracy: float | None, tasks: Sequence[str], steps: int, suite: str
) -> dict[str, Any]:
    shares = [None if accuracy is None else accuracy - 0.01 * i for i in range(len(tasks))]
    known = accuracy is not None
    return {
        "schema": 1, "run_id": "x", "command": "train", "method": method, "rule": "none", "suite": suite,
        "backbone": "small", "seed": seed, "steps": steps, "trainable_parameters": 12 + 1000 * len(method),
        "versions": {}, "device": "cpu", "seconds": {"prepare": 1.0, "adapt": 2.0 + seed, "evaluate": 3.0},
        "peak_memory_bytes": 2**30,
        "tasks": {
            task: {
                "accuracy": share, "n": 10, "expert": 0.9 if known else None, "agreement": 0.5,
                "pretrained": 0.3 if known else None, "normalized": share / 0.9 if share is not None else None,
            }
            for task, share in zip(tasks, shares, strict=True)
        },
        "baselines": {
            name: {
                "accuracy": dict.fromkeys(tasks, value if known else None),
                "agreement": dict.fromkeys(tasks, value),
            }
            for name, value in (("pretrained", 0.3), ("individual", 0.9))
        },
    }  # fmt: skip


def write_representations(folder: Path, task: str = TASKS[0]) -> None:
    points = {
        name: [[0.1 * i, 0.2 * i + shift] for i in range(9)]
        for name, shift in (("merged", 0.5), ("expert", 0))
    }
    content = {"task": task, "distance": dict.fromkeys(TASKS, 0.123), "points": points}
    (folder / "representations.json").write_text(json.dumps(content))
