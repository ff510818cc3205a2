"""`convert <file> ... [--out <file>]`: any supported checkpoint to safetensors, published coefficients to JSON."""

from __future__ import annotations

import argparse
from pathlib import Path

from adamerge.console import plain_console
from adamerge.errors import ConfigError


def run(words: list[str]) -> None:
    parser = argparse.ArgumentParser(
        prog="adamerge convert",
        description="Write any checkpoint's image encoder or head as safetensors, its sha256 beside it. "
        "A Python file of published merging coefficients becomes a JSON per table, for start=<file>.",
    )
    parser.add_argument("checkpoint", nargs="+", type=Path, help="file or folder")
    parser.add_argument("--out", type=Path, help="file to write, or folder for tables (one checkpoint only)")
    parser.add_argument("--base", type=Path, help="the base model that an adapter (LoRA) goes onto")
    options = parser.parse_args(words)
    if options.out and len(options.checkpoint) > 1:
        raise ConfigError("--out names one file, but several checkpoints were given.")
    from adamerge.checkpoints.coefficient_tables import convert_tables
    from adamerge.checkpoints.convert import convert

    console = plain_console()
    for source in options.checkpoint:
        if source.suffix == ".py":
            for table in convert_tables(source, options.out):
                console.print(f"{source} -> {table}", highlight=False)
            continue
        console.print(f"{source} -> {convert(source, options.out, options.base)}", highlight=False)
