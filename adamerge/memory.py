"""Memory that this process or its accelerator has used at most, and what is free."""

from __future__ import annotations

import gc
import os
import resource
import sys
from contextlib import suppress
from pathlib import Path

import torch

_STATUS = Path("/proc/self/status")
_CLEAR = Path("/proc/self/clear_refs")


def peak_memory_bytes(device: torch.device) -> int:
    """Peak memory since the start or `reset_peak`: allocated on the accelerator where there is one, else resident of
    the whole process."""
    if device.type == "cuda":
        return int(torch.cuda.max_memory_allocated(device))
    if _STATUS.exists():
        for line in _STATUS.read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def reset_peak(device: torch.device) -> None:
    """Start a new peak, so that a run in a sweep does not report that of an earlier one. Linux and CUDA only."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    gc.collect()
    with suppress(OSError), _CLEAR.open("w") as file:
        file.write("5")  # 5 resets the high-water mark of the resident size


def free_memory_bytes(device: torch.device) -> int | None:
    """Memory that can still be taken on the accelerator, or by this machine's processes; None where the system does
    not say. A container's limit counts."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    found = [value for value in (_available(), _left_in_container()) if value is not None]
    return min(found, default=None)


def _available(meminfo: Path = Path("/proc/meminfo")) -> int | None:
    if meminfo.exists():
        for line in meminfo.read_text().splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    try:
        return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (ValueError, OSError):
        return None


def _left_in_container(root: Path = Path("/sys/fs/cgroup")) -> int | None:
    """What control groups (version 2, then 1) leave of their limit; page cache can be had back and is not counted."""
    for limit, used, cache in (
        ("memory.max", "memory.current", "inactive_file"),
        ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes", "total_inactive_file"),
    ):
        try:
            top, now = (root / limit).read_text().strip(), int((root / used).read_text())
            stat = dict(
                line.split() for line in (root / limit).with_name("memory.stat").read_text().splitlines()
            )
            if top != "max":
                return max(0, int(top) - now + int(stat.get(cache, 0)))
        except (OSError, ValueError):
            continue
    return None
