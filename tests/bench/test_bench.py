"""The benchmark compares like with like: every variant makes the same update."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from checkpoints.formats import MODEL
from safetensors.torch import load_file

from adamerge.__main__ import main
from adamerge.bench import adamerging as bench
from adamerge.bench import harness, rules, surgery, tinting, wemoe
from adamerge.bench.harness import Measurement, machine_rates, measure_in_turn
from adamerge.bench.random_pool import random_files
from adamerge.rules.linear import Individual, WeightAverage
from adamerge.rules.ties import Ties
from adamerge.runs.merging import rule_named, write_merged

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


def test_a_floor_reads_every_file_and_writes_one_and_a_rule_merges_them(tmp_path: Path) -> None:
    base, experts = random_files(tmp_path, MODEL, 3)
    files = rules.Files(base, experts, tmp_path / "merged.safetensors")
    options: dict[str, Any] = {
        "model": MODEL,
        "files": files,
        "rules": {"weight_average": WeightAverage(), "ties": Ties()},
        "write": write_merged,
    }
    assert files.bytes == sum(path.stat().st_size for path in tmp_path.glob("*.safetensors"))
    assert rules.build(rules.FLOOR, options)() == base.stat().st_size
    assert files.merged.read_bytes() == base.read_bytes()
    assert rules.build("weight_average", options)() == files.merged.stat().st_size
    mean = sum(load_file(path)["visual.proj"].double() for path in experts.values()) / 3
    torch.testing.assert_close(load_file(files.merged)["visual.proj"].double(), mean, atol=1e-6, rtol=0)
    assert not (load_file(base)["visual.proj"].double() - mean).abs().max() < 1e-5


def test_what_cannot_be_measured_says_why() -> None:
    assert rules.unmeasured(WeightAverage()) == ""
    assert "one encoder per task" in rules.unmeasured(Individual())
    assert "images" in rules.unmeasured(rule_named("regmean"))


def test_the_warm_up_is_not_measured() -> None:
    for warm_up in (0, 1):
        ran: list[int] = []

        def step(ran: list[int] = ran) -> float:
            ran.append(1)
            return float(len(ran))

        found = harness._timed(step, "x", torch.device("cpu"), 2, warm_up, "32-true")
        assert len(found.seconds) == len(found.processor_seconds) == 2
        assert found.result == len(ran) == 2 + warm_up


def test_bench_rules_from_the_command_line(
    home: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def here(build: Any, variants: Any, options: Any, *rest: Any, **more: Any) -> list[Measurement]:
        return [
            Measurement(v, (2.0 if i else 0.5,), 2**30, 2**20, build(v, options)(), "", (1.0,))
            for i, v in enumerate(variants)
        ]

    monkeypatch.setattr("adamerge.commands.bench_rules.measure_in_turn", here)
    main(["bench", "rules", "rules=[ties]", "tasks=2", "output=found.json"])
    found = json.loads((home / "found.json").read_text())
    assert (found["backbone"], [one["variant"] for one in found["rules"]]) == ("mini", ["floor", "ties"])
    assert found["rules"][1]["of_floor"] == 4.0
    for words, text in (
        (("rules", "rules=[tis]"), "did you mean 'ties'"),
        (("rules", "rules=[emr]"), "keeps one encoder per task"),
        (("surgery", "rules=[ties]"), "measures no rules"),
    ):
        with pytest.raises(SystemExit):
            main(["bench", *words])
        assert text in " ".join(capsys.readouterr().err.split())
