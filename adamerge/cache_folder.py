"""Where what was computed once is kept on this machine, and what is kept there."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Kind:
    """A folder of the cache.

    Args:
        holds: what lies in it, and who uses it.
        again: whether a run that needs an entry makes it again by itself.
        in_place: whether processes write into its files as they lie there, under `cache_locks`.
    """

    holds: str
    again: bool = True
    in_place: bool = False


KINDS = {
    "digests": Kind("sha256 of files and pictures: run ids"),
    "heads": Kind("heads from prompts or training pictures: every run"),
    "pixels": Kind("decoded pictures: suite.decode_cache", in_place=True),
    "predictions": Kind("of base and experts: every evaluated run"),
    "representations": Kind("features of frozen encoders: every run, surgery"),
    "routing": Kind("merges that mass looks into: routing=mass"),
    "statistics": Kind("of unlabeled images: regmean, fisher, aim"),
    "zoo": Kind("bases and experts of pretrain and finetune", again=False),
}


def cache_dir() -> Path:
    """$ADAMERGE_CACHE, or adamerge below the user's cache folder."""
    if chosen := os.environ.get("ADAMERGE_CACHE"):
        return Path(chosen).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "adamerge"
