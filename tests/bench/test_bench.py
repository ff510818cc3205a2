"""The benchmark compares like with like: every variant makes the same update."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from checkpoints.formats import MODEL

from adamerge.bench import adamerging as bench
from adamerge.bench import surgery, tinting, wemoe
from adamerge.bench.harness import Measurement, machine_rates, measure_in_turn

OPTIONS = {
    "model": MODEL, "device": "cpu", "tasks": 3, "classes": 4, "batch_size": 2, "dtype": torch.float32,
}  # fmt: skip


@pytest.mark.parametrize("variant", bench.VARIANTS[1:])
def test_variants_make_the_same_updates(variant: Any) -> None:
    ours, theirs = bench.build(bench.VARIANTS[0], OPTIONS), bench.build(variant, OPTIONS)
    for _ in range(3):
        assert ours() == pytest.approx(theirs(), rel=1e-4)


PAIRS = [
    (surgery, surgery.VARIANTS[2]),
    (tinting, tinting.VARIANTS[1]),
    *((wemoe, variant) for variant in wemoe.VARIANTS[1:]),
]


@pytest.mark.parametrize(("module", "variant"), PAIRS)
def test_variants_of_other_methods_make_the_same_updates(module: Any, variant: Any) -> None:
    ours, theirs = module.build(module.VARIANTS[0], OPTIONS), module.build(variant, OPTIONS)
    for _ in range(3):
        assert ours() == pytest.approx(theirs(), rel=1e-4)


@pytest.mark.parametrize("module", [surgery, tinting, wemoe])
def test_floors_are_counted_on_the_shapes(module: Any) -> None:
    operations, moved = module.floor(OPTIONS)
    assert operations > 0
    assert moved > 0
    doubled, _ = module.floor({**OPTIONS, "batch_size": 2 * OPTIONS["batch_size"]})
    assert doubled == 2 * operations


def test_the_floor_counts_each_byte_once() -> None:
    operations, moved = bench.floor(OPTIONS)
    pool = bench.random_pool(OPTIONS)
    elements = sum(value.numel() for value in pool.base.values())
    assert moved == elements * 4 * (2 * 3 + 3)
    single, _ = bench.floor({**OPTIONS, "batch_size": 1, "tasks": 1})
    assert operations == 6 * single


def _greedy(variant: str, options: dict) -> object:
    raise MemoryError


def test_each_variant_runs_in_its_own_process_and_may_fail_for_memory() -> None:
    measured = measure_in_turn(bench.build, bench.VARIANTS[:1], OPTIONS, rounds=1, steps=2)
    assert len(measured[0].seconds) == 2
    assert measured[0].peak_memory_bytes >= measured[0].before_bytes > 0


def test_a_variant_without_memory_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    from adamerge.bench import harness

    monkeypatch.setattr(harness, "_limit_memory", lambda: None)
    failed = harness._measure(_greedy, "greedy", {"device": "cpu"}, 1)  # type: ignore[arg-type]
    assert isinstance(failed, Measurement)
    assert "memory" in failed.failure


def test_rates_are_positive() -> None:
    rates = machine_rates(torch.device("cpu"))
    assert rates.flops_per_second > 1e8
    assert rates.bytes_per_second > 1e7
