"""Which file of a folder holds the weights, and which part of a file is meant."""

from __future__ import annotations

import logging
import re
from pathlib import Path

from adamerge.checkpoints.leftovers import unmerged
from adamerge.checkpoints.peft_config import CONFIG, WEIGHTS
from adamerge.errors import CheckpointError

log = logging.getLogger(__name__)
EXTENSIONS = (".safetensors", ".pt", ".pth", ".ckpt", ".bin", ".pkl")
WEIGHT_FILES = (
    "model.safetensors.index.json",
    "pytorch_model.bin.index.json",
    "open_clip_model.safetensors",
    "model.safetensors",
    "open_clip_pytorch_model.bin",
    "pytorch_model.bin",
)
# What trainers leave beside a model, and the parts of a sharded one.
_NO_MODEL = re.compile(
    r"(optimizer|scheduler|scaler|training_args|rng_state.*|trainer_state)\..+|.+-\d+-of-\d+\..+"
)


def split_part(place: str) -> tuple[str, str]:
    """("run.ckpt", "ema") of "run.ckpt::ema"; the second is empty for a whole file."""
    file, _, part = place.partition("::")
    return file, part


def weights_in(folder: Path) -> Path:
    """The file (or the index of the shards) that holds a folder's weights. Of several, that of a usual name, and said.

    Raises:
        CheckpointError: none, several of which none has a usual name, or an adapter beside whole weights.
    """
    usual = [name for name in (*WEIGHT_FILES, *WEIGHTS) if (folder / name).exists()]
    if usual:
        refuse_unmerged(folder / usual[0])
    models = sorted(
        p.name for p in folder.iterdir() if p.suffix in EXTENSIONS and not _NO_MODEL.fullmatch(p.name)
    )
    if usual:
        if others := [name for name in models if name != usual[0]]:
            log.warning(
                "%s holds several weight files: taken is %s, not %s.", folder, usual[0], ", ".join(others)
            )
        return folder / usual[0]
    if len(models) == 1:
        return folder / models[0]
    if models:
        raise CheckpointError(
            f"{folder} holds several weight files: {', '.join(models)}.\n  Name one of them."
        )
    expected = WEIGHTS if (folder / CONFIG).exists() else WEIGHT_FILES
    raise CheckpointError(f"The folder {folder} holds no weights; expected one of {', '.join(expected)}.")


def refuse_unmerged(file: Path) -> None:
    """Raise a CheckpointError where an adapter lies beside a file of a usual name, which it is meant for."""
    found = [name for name in (CONFIG, *WEIGHTS) if (file.parent / name).exists()]
    if found and file.name in WEIGHT_FILES:
        raise unmerged(str(file.parent), found)
