"""Turns any supported checkpoint into safetensors with its provenance."""

from __future__ import annotations

import logging
from pathlib import Path

from adamerge import __version__
from adamerge.checkpoints.heads import tensors_of_head
from adamerge.checkpoints.reading import open_checkpoint
from adamerge.checkpoints.saving import fingerprint, save_tensors
from adamerge.errors import CheckpointError

log = logging.getLogger(__name__)


def convert(source: Path, out: Path | None = None, base: Path | None = None) -> Path:
    """Write the image encoder (open_clip keys, float32) or the head in `source` as safetensors.

    `out` is the source with another suffix by default; a LoRA goes onto its `base`. Metadata says where the tensors
    came from.

    Raises:
        CheckpointError: nothing in it can be converted, or `out` is the source itself.
    """
    checkpoint = open_checkpoint(source)
    keys = checkpoint.keys
    if base is not None:
        if checkpoint.lora is None:
            raise CheckpointError(f"{source} is no adapter, so it goes onto no base.\n  Leave out --base.")
        checkpoint = checkpoint.on(open_checkpoint(base).image_encoder(), str(base))
    tensors = tensors_of_head(checkpoint.head()) if checkpoint.keys == "head" else checkpoint.image_encoder()
    target = out or (
        source / "image_encoder.safetensors" if source.is_dir() else source.with_suffix(".safetensors")
    )
    if target.resolve() == source.resolve():
        raise CheckpointError(f"{source} is safetensors already; name another file to write: --out <file>.")
    metadata = {
        "source": source.name,
        "source_fingerprint": fingerprint(source),
        "source_format": checkpoint.format,
        "source_keys": keys,
        **({} if base is None else {"base_fingerprint": fingerprint(base)}),
        "written_by": f"adamerge {__version__}",
        "format": "pt",
    }
    save_tensors(target, tensors, metadata)
    if checkpoint.stated.facts and target.parent.resolve() != Path(checkpoint.source).parent.resolve():
        log.warning(
            "What is said beside %s (%s) does not come along: copy those files beside %s.",
            source, ", ".join(dict.fromkeys(checkpoint.stated.where.values())), target,
        )  # fmt: skip
    return target
