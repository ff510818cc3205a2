"""The model card of an export goes to strangers: it says where nothing lies on the machine it comes from."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import yaml

from adamerge.export.card import Exported, card
from adamerge.merging import Head
from adamerge.settings.paths import PACKAGE
from adamerge.tracking.run_record import Weights

CONFIG = {
    "seed": 3,
    "outputs": "/scratch/me secret/outputs",
    "suite": {"data": "~/data of mine", "tasks": ["digits", "signs"], "name": "a/b"},
    "checkpoints": {
        "base": "local-dir:/scratch/me secret/base",
        "experts": "/scratch/me secret/experts/{task}.safetensors",
        "irrelevant": [str(PACKAGE / "zoo/mini/base"), "hf-hub:owner/name/file", "https://example.org/x"],
        "root": "~",
    },
}


def written(config: object, folder: Path) -> str:
    exported = Exported(
        name="ties",
        rule="ties",
        backbone="mini",
        run_id="0123",
        seed=3,
        format="safetensors",
        task=None,
        heads={"digits": Head(torch.ones(2, 2))},
        parts=(),
        sources={"base": Weights("/scratch/me secret/base/model.safetensors", "abc")},
        config=yaml.safe_dump(config, sort_keys=False),
        results=None,
    )
    return card(exported, folder)


def test_no_folder_of_the_machine_is_in_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/elsewhere")
    (tmp_path / "a.safetensors").write_bytes(b"")
    text = written(CONFIG, tmp_path)
    for place in ("/scratch", "secret", "of mine/", "~", str(tmp_path), str(PACKAGE)):
        assert place not in text, place


def test_the_config_in_it_says_everything_else(tmp_path: Path) -> None:
    text = written(CONFIG, tmp_path)
    shown = yaml.safe_load(text.split("```yaml\n")[1].split("```")[0])
    assert shown == {
        "seed": 3,
        "outputs": "<folder>/outputs",
        "suite": {"data": "<folder>/data of mine", "tasks": ["digits", "signs"], "name": "a/b"},
        "checkpoints": {
            "base": "local-dir:<folder>/base",
            "experts": "<folder>/{task}.safetensors",
            "irrelevant": ["<adamerge>/zoo/mini/base", "hf-hub:owner/name/file", "https://example.org/x"],
            "root": "<folder>/",
        },
    }
