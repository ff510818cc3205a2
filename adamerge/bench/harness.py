"""Measures variants of one step in turn, each in a process of its own so that its peak memory is its own."""

from __future__ import annotations

import multiprocessing
import resource
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from statistics import median
from typing import Any

import torch

from adamerge.evaluation.predicting import in_precision
from adamerge.memory import free_memory_bytes, peak_memory_bytes

Step = Callable[[], Any]
Build = Callable[[str, dict[str, Any]], Step]  # (variant, options) -> one step


@dataclass(frozen=True)
class Measurement:
    """One variant: seconds of each measured step, the process's peak memory, and a number to compare results by.

    `processor_seconds` are those that the process's threads worked: beside other work they tell more than the clock.
    """

    variant: str
    seconds: tuple[float, ...]
    peak_memory_bytes: int
    before_bytes: int
    result: float
    failure: str = ""  # why there is no measurement
    processor_seconds: tuple[float, ...] = ()

    @property
    def median_seconds(self) -> float:
        return median(self.seconds)


def measure_in_turn(
    build: Build,
    variants: Sequence[str],
    options: dict[str, Any],
    rounds: int,
    steps: int,
    warm_up: int = 1,
    begin: Callable[[str], None] = lambda variant: None,
) -> list[Measurement]:
    """Run the variants A B A B ... for `rounds` rounds of `steps` steps each (`warm_up` more before them).

    Args:
        begin: told each variant before its process starts.
    """
    context = multiprocessing.get_context("spawn")
    collected: dict[str, list[Measurement]] = {variant: [] for variant in variants}
    for _ in range(rounds):
        for variant in variants:
            begin(variant)
            # An executor, not a Pool: it notices when the variant's process is killed for its memory.
            with ProcessPoolExecutor(1, mp_context=context) as executor:
                collected[variant].append(
                    executor.submit(_measure, build, variant, options, steps, warm_up).result()
                )
    return [_join(runs) for runs in collected.values()]


def _limit_memory() -> None:
    """Let a variant that needs more than there is fail by itself, before the system kills something else."""
    # What can be taken, not what lies idle: the system's cache of files gives way.
    available = free_memory_bytes(torch.device("cpu"))
    if available is not None:
        resource.setrlimit(resource.RLIMIT_DATA, (available, available))


def _measure(
    build: Build, variant: str, options: dict[str, Any], steps: int, warm_up: int = 1
) -> Measurement:
    device = torch.device(options["device"])
    if device.type == "cpu":
        _limit_memory()
    try:
        precision = options.get("precision", "32-true")
        return _timed(build(variant, options), variant, device, steps, warm_up, precision)
    except (MemoryError, RuntimeError) as error:
        if "memory" not in str(error).lower() and not isinstance(error, MemoryError):
            raise
        return Measurement(variant, (), 0, 0, 0.0, "does not fit into this machine's memory")


def _timed(
    step: Step, variant: str, device: torch.device, steps: int, warm_up: int, precision: str
) -> Measurement:
    before = peak_memory_bytes(device)
    seconds, worked = [], []
    result = 0.0
    for index in range(steps + warm_up):
        started, begun = time.perf_counter(), time.process_time()
        with in_precision(precision, device):
            result = float(step())
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        if index >= warm_up:
            seconds.append(time.perf_counter() - started)
            worked.append(time.process_time() - begun)
    peak = peak_memory_bytes(device)
    return Measurement(variant, tuple(seconds), peak, before, result, processor_seconds=tuple(worked))


def _join(runs: list[Measurement]) -> Measurement:
    if failed := [run for run in runs if run.failure]:
        return failed[0]
    seconds = tuple(second for run in runs for second in run.seconds)
    peak = max(run.peak_memory_bytes for run in runs)
    worked = tuple(second for run in runs for second in run.processor_seconds)
    before = max(run.before_bytes for run in runs)
    return Measurement(runs[0].variant, seconds, peak, before, runs[0].result, processor_seconds=worked)


@dataclass(frozen=True)
class Machine:
    """What the machine reached just now: the rates that a floor is computed from."""

    flops_per_second: float
    bytes_per_second: float


def machine_rates(device: torch.device, dtype: torch.dtype = torch.float32) -> Machine:
    """Rate of a large matrix product, and bandwidth of a matrix-vector product too large for any cache."""
    # The tall shapes of a transformer's MLP reach a higher rate than square ones do.
    rows, width = (3200, 768) if device.type == "cpu" else (32768, 4096)
    a = torch.randn(rows, width, device=device, dtype=dtype)
    b = torch.randn(width, 4 * width, device=device, dtype=dtype)
    tall = torch.randn(8, 1 << 24, device=device)
    weights = torch.randn(8, device=device)
    product = _best_seconds(lambda: a @ b, device, repeats=20)
    sweep = _best_seconds(lambda: weights @ tall, device)
    return Machine(2 * rows * width * 4 * width / product, (tall.numel() + tall.shape[1]) * 4 / sweep)


def _best_seconds(work: Step, device: torch.device, repeats: int = 5) -> float:
    best = float("inf")
    for _ in range(repeats + 1):
        started = time.perf_counter()
        work()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        best = min(best, time.perf_counter() - started)
    return best
