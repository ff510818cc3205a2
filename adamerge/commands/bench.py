"""`bench <method>`: seconds and memory of a step against the straightforward formulation, and the floor."""

from __future__ import annotations

import json
import platform
from dataclasses import asdict
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
from rich.table import Table

from adamerge.bench.harness import Machine, Measurement, machine_rates, measure_in_turn
from adamerge.commands import bench_rules
from adamerge.console import plain_console
from adamerge.errors import ConfigError
from adamerge.files import atomic_write_text
from adamerge.report.names import memory
from adamerge.runs.backbones import model_of
from adamerge.settings.commands import BenchSettings
from adamerge.settings.groups import choices
from adamerge.settings.inherited import inherited
from adamerge.settings.sections import BackboneSection
from adamerge.tracking.provenance import versions

RULES = "rules"
BENCHES = ("adamerging", RULES, "surgery", "tinting", "wemoe")


def run(settings: BenchSettings) -> None:
    """Measure, and print a table.

    Raises:
        ConfigError: a benchmark that there is not, or options that are not its own.
    """
    if settings.name not in BENCHES:
        raise ConfigError(f"name: no benchmark '{settings.name}'; there is {', '.join(BENCHES)}.")
    backbone = settings.backbone or _backbone("mini" if settings.name == RULES else "vit_b_32")
    if settings.name == RULES:
        bench_rules.run(settings, backbone, processor())
        return
    if settings.rules is not None:
        raise ConfigError(f"rules: bench {settings.name} measures no rules; leave it out, or bench rules.")
    _of_method(settings, backbone)


def _backbone(name: str) -> BackboneSection:
    return BackboneSection.model_validate(inherited(choices("backbone")[name]))


def _of_method(settings: BenchSettings, backbone: BackboneSection) -> None:
    if settings.device.startswith("cuda") and not torch.cuda.is_available():
        raise ConfigError("device: there is no CUDA device here; use device=cpu.")
    bench = import_module(f"adamerge.bench.{settings.name}")
    options: dict[str, Any] = settings.model_dump(
        include={"tasks", "batch_size", "classes", "device", "precision"}
    )
    options |= {"model": model_of(backbone), "dtype": getattr(torch, settings.dtype)}
    console = plain_console()
    console.print(
        f"{backbone.name}, random weights, {settings.tasks} tasks x "
        f"{settings.batch_size} images, {settings.dtype} task vectors, {settings.precision}, "
        f"{settings.device}, {torch.get_num_threads()} threads, torch {torch.__version__}",
        highlight=False,
    )
    narrow = settings.precision == "bf16-mixed"
    machine = machine_rates(torch.device(settings.device), torch.bfloat16 if narrow else torch.float32)
    operations, moved = bench.floor(options)
    floor = (operations / machine.flops_per_second, moved / machine.bytes_per_second)
    with console.status("measuring ..."):
        measured = measure_in_turn(bench.build, bench.VARIANTS, options, settings.rounds, settings.steps)
    console.print(_table(measured, sum(floor)))
    console.print(
        f"floor: {operations / 1e12:.2f} TFLOP at {machine.flops_per_second / 1e9:.0f} GFLOP/s = "
        f"{floor[0]:.2f} s, and {moved / 2**30:.2f} GiB at "
        f"{machine.bytes_per_second / 1e9:.1f} GB/s = {floor[1]:.2f} s",
        highlight=False,
    )
    if settings.output is not None:
        facts = _facts(settings, backbone, machine, operations, moved, measured)
        atomic_write_text(Path(settings.output), json.dumps(facts, indent=2) + "\n")


def _facts(
    settings: BenchSettings,
    backbone: BackboneSection,
    machine: Machine,
    operations: float,
    moved: float,
    measured: list[Measurement],
) -> dict[str, Any]:
    """What two measurements must agree on to be compared, and the measurement."""
    return {
        "settings": settings.model_dump(exclude={"output"}) | {"backbone": backbone.model_dump()},
        "machine": {
            "processor": processor(),
            "threads": torch.get_num_threads(),
            **({"gpu": torch.cuda.get_device_name()} if settings.device != "cpu" else {}),
            **asdict(machine),
        },
        "versions": {
            "python": platform.python_version(),
            **versions(),
        },
        "floor": {
            "operations": operations,
            "bytes": moved,
            "seconds": operations / machine.flops_per_second + moved / machine.bytes_per_second,
        },
        "variants": [
            asdict(m) | {"median_seconds": m.median_seconds if m.seconds else None} for m in measured
        ],
    }


def processor() -> str:
    """The processor's name as the system gives it."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:  # not Linux
        return platform.processor()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor()


def _table(measured: list[Measurement], floor: float) -> Table:
    ours = measured[0]
    table = Table(
        *("variant", "seconds per step (median)", "min-max", "of the floor", "peak memory"),
        *("before the steps", "time", "loss"),
    )
    for m in measured:
        if m.failure:
            table.add_row(m.variant, m.failure, *[""] * 6)
            continue
        spread = f"{min(m.seconds):.3g}-{max(m.seconds):.3g}"
        table.add_row(
            m.variant,
            f"{m.median_seconds:.3g}",
            spread,
            f"{m.median_seconds / floor:.3g} x",
            memory(m.peak_memory_bytes),
            memory(m.before_bytes),
            f"{m.median_seconds / ours.median_seconds:.3g} x" if ours.seconds else "",
            f"{m.result:.5f}",
        )
    return table
