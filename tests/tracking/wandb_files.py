"""Reads the file that W&B writes offline: protobuf records in LevelDB's log format, behind a header of seven bytes."""

from __future__ import annotations

import json
import struct
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from wandb.proto import wandb_internal_pb2

Record: Any = wandb_internal_pb2.Record  # type: ignore[attr-defined]  # generated when it is imported
_BLOCK = 32768
_HEADER = struct.Struct("<IHB")  # checksum, length, type: 1 whole, 2 first, 3 middle, 4 last


@dataclass
class Written:
    """What W&B knows of a run."""

    run: Any = None
    config: dict[str, Any] = field(default_factory=dict)
    history: list[dict[str, Any]] = field(default_factory=list)
    summary: dict[str, Any] = field(default_factory=dict)
    metrics: dict[str, Any] = field(default_factory=dict)
    artifacts: dict[str, Any] = field(default_factory=dict)
    used: list[Any] = field(default_factory=list)
    exit_code: int | None = None


def _records(path: Path) -> list[Any]:
    data = path.read_bytes()
    assert data[:4] == b":W&B"
    found, at, parts = [], 7, b""
    while at + _HEADER.size <= len(data):
        if _BLOCK - at % _BLOCK < _HEADER.size:
            at += _BLOCK - at % _BLOCK
            continue
        _, length, kind = _HEADER.unpack_from(data, at)
        at += _HEADER.size
        parts += data[at : at + length]
        at += length
        if kind in (1, 4):
            found.append(Record.FromString(parts))
            parts = b""
    return found


def _items(updates: Any) -> dict[str, Any]:
    return {item.key or "/".join(item.nested_key): json.loads(item.value_json) for item in updates}


def read(path: Path) -> Written:
    written = Written()
    for record in _records(path):
        kind = record.WhichOneof("record_type")
        if kind == "run":
            written.run = record.run
            written.config |= _items(record.run.config.update)
        elif kind == "config":
            written.config |= _items(record.config.update)
        elif kind == "history":
            written.history.append(_items(record.history.item))
        elif kind == "summary":
            written.summary |= _items(record.summary.update)
        elif kind == "metric":
            written.metrics[record.metric.name or record.metric.glob_name] = record.metric
        elif kind == "artifact":
            written.artifacts[record.artifact.name] = record.artifact
        elif kind == "use_artifact":
            written.used.append(record.use_artifact)
        elif kind == "exit":
            written.exit_code = record.exit.exit_code
    return written
