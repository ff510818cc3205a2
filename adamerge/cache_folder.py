"""Where what was computed once is kept on this machine."""

from __future__ import annotations

import os
from pathlib import Path


def cache_dir() -> Path:
    """$ADAMERGE_CACHE, or adamerge below the user's cache folder."""
    if chosen := os.environ.get("ADAMERGE_CACHE"):
        return Path(chosen).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "adamerge"
