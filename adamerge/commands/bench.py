"""`bench <method>`: seconds and memory of a step against the straightforward formulation, and the floor."""

from __future__ import annotations

from importlib import import_module
from typing import Any

import torch
from rich.table import Table

from adamerge.bench.harness import Measurement, machine_rates, measure_in_turn
from adamerge.console import plain_console
from adamerge.errors import ConfigError
from adamerge.report.names import memory
from adamerge.runs.backbones import model_of
from adamerge.settings.commands import BenchSettings

BENCHES = ("adamerging", "surgery", "tinting", "wemoe")


def run(settings: BenchSettings) -> None:
    if settings.name not in BENCHES:
        raise ConfigError(f"name: no benchmark '{settings.name}'; there is {', '.join(BENCHES)}.")
    if settings.device.startswith("cuda") and not torch.cuda.is_available():
        raise ConfigError("device: there is no CUDA device here; use device=cpu.")
    bench = import_module(f"adamerge.bench.{settings.name}")
    options: dict[str, Any] = settings.model_dump(include={"tasks", "batch_size", "classes", "device"})
    options |= {"model": model_of(settings.backbone), "dtype": getattr(torch, settings.dtype)}
    console = plain_console()
    console.print(
        f"{settings.backbone.name}, random weights, {settings.tasks} tasks x "
        f"{settings.batch_size} images, {settings.dtype} task vectors, "
        f"{settings.device}, {torch.get_num_threads()} threads, torch {torch.__version__}",
        highlight=False,
    )
    machine = machine_rates(torch.device(settings.device))
    operations, moved = bench.floor(options)
    with console.status("measuring ..."):
        measured = measure_in_turn(bench.build, bench.VARIANTS, options, settings.rounds, settings.steps)
    console.print(_table(measured))
    console.print(
        f"floor: {operations / 1e12:.2f} TFLOP at {machine.flops_per_second / 1e9:.0f} GFLOP/s = "
        f"{operations / machine.flops_per_second:.2f} s, and {moved / 2**30:.2f} GiB at "
        f"{machine.bytes_per_second / 1e9:.1f} GB/s = {moved / machine.bytes_per_second:.2f} s",
        highlight=False,
    )


def _table(measured: list[Measurement]) -> Table:
    ours = measured[0]
    table = Table(
        "variant", "seconds per step (median)", "min-max", "peak memory", "before the steps", "time", "loss"
    )
    for m in measured:
        if m.failure:
            table.add_row(m.variant, m.failure, "", "", "", "", "")
            continue
        spread = f"{min(m.seconds):.3g}-{max(m.seconds):.3g}"
        table.add_row(
            m.variant,
            f"{m.median_seconds:.3g}",
            spread,
            memory(m.peak_memory_bytes),
            memory(m.before_bytes),
            f"{m.median_seconds / ours.median_seconds:.3g} x" if ours.seconds else "",
            f"{m.result:.5f}",
        )
    return table
