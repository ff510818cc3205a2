"""`trainer.precision=auto` is settled at once, by what the hardware multiplies in."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from composing import settings

from adamerge.hardware import suited_precision


def hardware(
    monkeypatch: pytest.MonkeyPatch, amx: bool, avx512: bool, gpu: tuple[int, int] | None = None
) -> None:
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: amx, raising=False)
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: avx512, raising=False)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: gpu is not None)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda: gpu)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "a GPU")


@pytest.mark.parametrize(
    ("amx", "avx512", "gpu", "accelerator", "expected"),
    [
        (True, True, None, "auto", "bf16-mixed"),
        (False, True, None, "cpu", "bf16-mixed"),
        (False, False, None, "cpu", "32-true"),
        (False, False, (9, 0), "auto", "bf16-mixed"),
        (False, False, (9, 0), "cpu", "32-true"),
        (False, False, (7, 5), "gpu", "32-true"),
        (True, True, None, "mps", "32-true"),
    ],
)
def test_the_precision_is_that_of_the_hardware(
    monkeypatch: pytest.MonkeyPatch, amx: bool, avx512: bool, gpu: Any, accelerator: str, expected: str
) -> None:
    hardware(monkeypatch, amx, avx512, gpu)
    assert suited_precision(accelerator)[0] == expected
    chosen = settings("train", "trainer.precision=auto", f"trainer.accelerator={accelerator}")
    assert chosen.trainer.precision == expected


def test_a_release_of_torch_that_does_not_know_is_no_promise(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    for question in ("_is_amx_tile_supported", "_is_avx512_bf16_supported"):
        monkeypatch.delattr(torch.cpu, question, raising=False)
    assert suited_precision("auto")[0] == "32-true"


def test_a_precision_that_is_given_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    hardware(monkeypatch, amx=True, avx512=True)
    assert settings("train").trainer.precision == "32-true"
    assert settings("train", "trainer.precision=bf16-mixed").trainer.precision == "bf16-mixed"
