"""`bench rules`: seconds and peak memory of static rules from file to file, beside the floor of the same minutes."""

from __future__ import annotations

import json
import platform
import tempfile
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from statistics import median
from typing import Any

import torch
from rich.table import Table

from adamerge.bench.harness import Measurement, measure_in_turn
from adamerge.bench.random_pool import random_files
from adamerge.bench.rules import FLOOR, Files, build, unmeasured
from adamerge.console import plain_console
from adamerge.errors import ConfigError, PoolError
from adamerge.files import atomic_write_text
from adamerge.report.names import memory
from adamerge.runs.backbones import model_of
from adamerge.runs.merging import rule_named, write_merged
from adamerge.settings.commands import BenchSettings
from adamerge.settings.groups import NO_RULE, choices
from adamerge.settings.sections import BackboneSection
from adamerge.tracking.provenance import versions


def run(settings: BenchSettings, backbone: BackboneSection, processor: str) -> None:
    """Measure each rule in a process of its own, the floor before and behind them, and say so.

    Raises:
        ConfigError: a rule that there is not, or that cannot be measured; another device than the processor.
    """
    if settings.device != "cpu":
        raise ConfigError("device: a merge from file to file works on the processor; leave it out.")
    rules, left = _rules(settings.rules)
    console = plain_console()
    model = model_of(backbone)
    with tempfile.TemporaryDirectory(prefix="adamerge-bench-") as folder:
        base, experts = random_files(Path(folder), model, settings.tasks)
        files = Files(base, experts, Path(folder) / "merged.safetensors")
        console.print(
            f"{backbone.name}, random weights: {memory(files.bytes)} in {1 + settings.tasks} files, the base and "
            f"{settings.tasks} experts, to one of {memory(base.stat().st_size)}; {torch.get_num_threads()} threads, "
            f"torch {torch.__version__}",
            highlight=False,
        )
        options = {"device": "cpu", "files": files, "model": model, "rules": rules, "write": write_merged}
        with console.status("measuring ...") as status:
            measured = measure_in_turn(
                build,
                [FLOOR, *rules],
                options,
                settings.rounds,
                settings.steps,
                warm_up=0,
                begin=lambda variant: status.update(f"measuring {variant} ..."),
            )
        size = files.bytes
    console.print(_table(measured))
    console.print(
        "floor: every file read once, one written; processor: seconds that the threads worked",
        highlight=False,
    )
    for name, why in left.items():
        console.print(f"not measured: {name}, which {why}", highlight=False)
    if settings.output is not None:
        facts = {
            "settings": settings.model_dump(exclude={"output"}),
            "backbone": backbone.name,
            "bytes_read": size,
            "machine": {"processor": processor, "threads": torch.get_num_threads()},
            "versions": {"python": platform.python_version(), **versions()},
            "rules": [_facts(one, measured[0]) for one in measured],
            "not_measured": left,
        }
        atomic_write_text(Path(settings.output), json.dumps(facts, indent=2) + "\n")


def _rules(names: Sequence[str] | None) -> tuple[dict[str, Any], dict[str, str]]:
    """The rules to measure, and why others are not; one that was asked for by name must be measured."""
    given = [name for name in choices("rule") if name != NO_RULE] if names is None else names
    try:
        made = {name: rule_named(name) for name in given}
    except PoolError as error:
        raise ConfigError(f"rules: {error}") from error
    left = {name: why for name, rule in made.items() if (why := unmeasured(rule))}
    if names is not None and left:
        raise ConfigError("rules: " + "; ".join(f"{name} {why}" for name, why in left.items()) + ".")
    return {name: rule for name, rule in made.items() if name not in left}, left


def _facts(one: Measurement, floor: Measurement) -> dict[str, Any]:
    known = {} if one.failure else {"median_seconds": one.median_seconds, "of_floor": _ratio(one, floor)}
    return asdict(one) | known


def _ratio(one: Measurement, floor: Measurement) -> float:
    return one.median_seconds / floor.median_seconds


def _table(measured: Sequence[Measurement]) -> Table:
    table = Table(*("rule", "seconds", "of the floor", "processor", "of the floor", "peak memory", "before"))
    floor = measured[0]
    for one in sorted(measured, key=lambda m: median(m.seconds) if m.seconds else float("inf")):
        if one.failure:
            table.add_row(one.variant, one.failure)
            continue
        worked = median(one.processor_seconds)
        table.add_row(
            one.variant,
            f"{one.median_seconds:.3g}",
            f"{_ratio(one, floor):.3g} x",
            f"{worked:.3g} s",
            f"{worked / median(floor.processor_seconds):.3g} x",
            memory(one.peak_memory_bytes),
            memory(one.before_bytes),
        )
    return table
