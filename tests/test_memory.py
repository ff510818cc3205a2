"""The peak is that of the run at hand."""

from __future__ import annotations

import sys

import pytest
import torch

from adamerge.memory import peak_memory_bytes, reset_peak

CPU = torch.device("cpu")


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux lets a process reset its high-water mark")
def test_a_reset_forgets_an_earlier_peak() -> None:
    large = torch.ones(64 << 20)  # 256 MiB
    peak = peak_memory_bytes(CPU)
    del large
    reset_peak(CPU)
    after = peak_memory_bytes(CPU)
    assert after < peak - (200 << 20)
    large = torch.ones(64 << 20)
    assert peak_memory_bytes(CPU) > after + (200 << 20)
    del large
