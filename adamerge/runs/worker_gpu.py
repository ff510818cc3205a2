"""One GPU per job where a launcher runs several jobs at a time: each worker process claims a slot and keeps it."""

from __future__ import annotations

import os
from collections.abc import Sequence
from itertools import count
from pathlib import Path
from typing import IO

_held: list[IO[bytes]] = []  # open files whose locks last as long as this process


def claim(folder: Path, devices: Sequence[str]) -> str:
    """The device of the first free slot; with more processes than devices, each device has several slots."""
    import fcntl

    for place in count():
        turn, index = divmod(place, len(devices))
        file = (folder / f"gpu-{index}-{turn}").open("wb")
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.close()
            continue
        _held.append(file)
        return devices[index]
    raise AssertionError("there is no end of slots")


def take_gpu(folder: Path) -> None:
    """In a worker process of a sweep on this machine: see one GPU only, before anything uses one.

    `folder` is the sweep's; on another machine (SLURM) it does not exist, and the scheduler gives the GPU.
    """
    if _held or not folder.is_dir() or os.name == "nt":
        return
    devices = visible_devices()
    if len(devices) > 1:
        os.environ["CUDA_VISIBLE_DEVICES"] = claim(folder, devices)


def visible_devices() -> list[str]:
    """The GPUs that this process may see, as CUDA_VISIBLE_DEVICES names them."""
    named = os.environ.get("CUDA_VISIBLE_DEVICES")
    if named is not None:
        return [name for name in named.split(",") if name.strip()]
    import torch

    return [str(index) for index in range(torch.cuda.device_count())]
