"""Versions, devices, and the room on the disks."""

from __future__ import annotations

import os
import platform
import shutil
from collections.abc import Iterator
from importlib import import_module
from importlib.metadata import PackageNotFoundError, metadata, requires, version
from pathlib import Path

import torch
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

from adamerge.diagnosis.findings import Finding
from adamerge.hardware import suited_precision
from adamerge.memory import free_memory_bytes
from adamerge.report.names import memory
from adamerge.settings.commands import PoolSettings

# What a run imports. The other dependencies are checked by their versions alone.
_MODULES = {
    "torch": "torch",
    "torchvision": "torchvision",
    "pytorch-lightning": "pytorch_lightning",
    "open-clip-torch": "open_clip",
    "hydra-core": "hydra",
    "datasets": "datasets",
}


def python_version() -> Iterator[Finding]:
    found, wanted = platform.python_version(), metadata("adamerge")["Requires-Python"]
    if SpecifierSet(wanted).contains(found):
        yield Finding("ok", "python", found)
    else:
        yield Finding("problem", "python", f"{found}; adamerge needs {wanted}", "Use another Python.")


def packages() -> Iterator[Finding]:
    """The dependencies that adamerge declares: there, of a fitting version, and importable where a run needs them."""
    others = []
    for text in requires("adamerge") or []:
        wanted = Requirement(text)
        if wanted.marker is not None and not wanted.marker.evaluate({"extra": ""}):
            continue
        finding = package(wanted)
        if canonicalize_name(wanted.name) in _MODULES or finding.status != "ok":
            yield finding
        else:
            others.append(f"{wanted.name} {finding.text}")
    yield Finding("ok", "other packages", ", ".join(others))


def package(wanted: Requirement) -> Finding:
    """One dependency."""
    advice = f"pip install '{wanted.name}{wanted.specifier}'"
    try:
        found = version(wanted.name)
    except PackageNotFoundError:
        return Finding("problem", wanted.name, "is not installed", advice)
    if not wanted.specifier.contains(found, prereleases=True):
        return Finding("problem", wanted.name, f"{found}; adamerge needs {wanted.specifier}", advice)
    try:
        import_module(_MODULES.get(canonicalize_name(wanted.name), "adamerge"))
    except Exception as error:  # a damaged installation raises anything
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        return Finding("problem", wanted.name, f"{found} cannot be imported: {reason}", f"{advice} anew")
    return Finding("ok", wanted.name, found)


def devices(settings: PoolSettings) -> Iterator[Finding]:
    """Cores and memory, and the accelerator that the trainer asks for."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    free = free_memory_bytes(torch.device("cpu"))
    shown = "memory unknown" if free is None else f"{memory(free)} memory free"
    yield Finding("ok", "machine", f"{cores} cores, {shown}")
    cuda = [
        f"{torch.cuda.get_device_name(i)} ({memory(torch.cuda.mem_get_info(i)[0])} free)"
        for i in range(torch.cuda.device_count())
    ]
    asked = settings.trainer.accelerator
    if asked in ("gpu", "cuda") and not cuda:
        text = f"trainer.accelerator={asked}, but torch {torch.__version__} finds no GPU"
        yield Finding("problem", "device", text, "Choose trainer=cpu, or mend the driver or torch's build.")
    elif cuda:
        yield Finding("ok", "device", ", ".join(cuda))
    else:
        yield Finding("ok", "device", "cpu; no GPU found")
    suited, why = suited_precision(asked)
    asked_for = settings.trainer.precision
    if suited == "32-true" and asked_for == "bf16-mixed":
        text = f"trainer.precision={asked_for}, but {why}: a step takes several times as long"
        yield Finding("warning", "precision", text, "Choose trainer.precision=32-true, or auto.")
    else:
        faster = "; trainer.precision=auto is faster" if suited != asked_for == "32-true" else ""
        yield Finding("ok", "precision", f"{asked_for}; {why}{faster}")


def disk(what: str, folder: Path, need: int) -> Iterator[Finding]:
    """Whether a folder can be written and has room for `need` bytes."""
    place = folder.expanduser().absolute()
    while not place.exists():
        place = place.parent
    if not (place.is_dir() and os.access(place, os.W_OK)):
        yield Finding("problem", what, f"{folder} cannot be written", "Choose a folder of your own.")
        return
    free = shutil.disk_usage(place).free
    text = f"{folder}: {memory(free)} free, about {memory(need)} needed"
    if free < need:
        yield Finding("problem", what, text, "Free some space, or choose a folder on another disk.")
    elif free < 2 * need + (1 << 30):
        yield Finding("warning", what, text, "Free some space before long runs.")
    else:
        yield Finding("ok", what, text)
