"""Runs of another precision are no further seeds of a run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from adamerge.report.collect import flat_config


def flat(folder: Path, **sections: Any) -> dict[str, Any]:
    (folder / "config.yaml").write_text(
        yaml.safe_dump({"seed": 0, "method": {"name": "surgery"}, **sections})
    )
    return flat_config(folder / "config.yaml")


@pytest.mark.parametrize("section", ["trainer", "evaluation"])
def test_a_precision_tells_runs_apart(section: str, tmp_path: Path) -> None:
    plain = flat(tmp_path)
    assert (
        flat(tmp_path, **{section: {"precision": "32-true", "batch_size": 5, "accelerator": "cpu"}}) == plain
    )
    narrow = flat(tmp_path, **{section: {"precision": "bf16-mixed"}})
    assert narrow == {**plain, f"{section}.precision": "bf16-mixed"}
