"""`convert <checkpoint> [<checkpoint> ...] [--out <file>]`: any supported checkpoint to safetensors."""

from __future__ import annotations

import argparse
from pathlib import Path

from rich.console import Console

from adamerge.errors import ConfigError


def run(words: list[str]) -> None:
    parser = argparse.ArgumentParser(
        prog="adamerge convert",
        description="Write any checkpoint's image encoder or head as safetensors, its sha256 beside it.",
    )
    parser.add_argument("checkpoint", nargs="+", type=Path, help="file or folder")
    parser.add_argument("--out", type=Path, help="file to write (one checkpoint only)")
    options = parser.parse_args(words)
    if options.out and len(options.checkpoint) > 1:
        raise ConfigError("--out names one file, but several checkpoints were given.")
    from adamerge.checkpoints.convert import convert

    console = Console()
    for source in options.checkpoint:
        console.print(f"{source} -> {convert(source, options.out)}", highlight=False)
