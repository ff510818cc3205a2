"""The experiments with the published benchmarks are valid as they stand, before anything is downloaded."""

from __future__ import annotations

import re
from typing import Any

import pytest
from composing import opened
from hydra import compose
from omegaconf import OmegaConf, open_dict

from adamerge.commands.composed import settings_of
from adamerge.report.published import every_row
from adamerge.runs.weights import checkpoint_places
from adamerge.settings import conf_dir
from adamerge.settings.groups import method_names

NAMES = sorted(
    path.stem for path in (conf_dir() / "experiment").glob("*.yaml") if re.search(r"vit|_exp\d", path.stem)
)
FILES = {"task_vectors": "finetuned.pt", "tall_masks": "nonlinear_finetuned.pt", "fusion_bench": "clip-vit"}


# Presets with FusionBench's numbers; every other that is trained has the papers'.
FUSION_BENCH = {path.stem for path in (conf_dir() / "method").glob("*_fb.yaml")} | {"e_wemoe"}
STATIC = {path.stem for path in (conf_dir() / "rule").glob("*.yaml")}


def composed(*words: str) -> tuple[Any, list[str]]:
    """The settings, and the methods that the experiment sweeps."""
    with opened():
        cfg = compose("train", list(words), return_hydra_config=True)
    methods = OmegaConf.select(cfg, "hydra.sweeper.params.method").split(",")
    with open_dict(cfg):
        del cfg["hydra"]
    return settings_of(cfg, "train"), methods


@pytest.mark.parametrize("name", NAMES)
def test_an_experiment_is_valid_and_names_its_files(name: str) -> None:
    cfg, methods = composed(f"experiment={name}")
    places = checkpoint_places(cfg)
    assert all(FILES[cfg.checkpoints.name] in places[f"experts/{task}"] for task in cfg.suite.tasks)
    assert len({place for key, place in places.items() if key.startswith("experts/")}) == len(cfg.suite.tasks)
    assert set(methods) <= set(method_names())
    # Something was published for these tasks and this backbone.
    tables = [table for table, _ in every_row() if set(table["tasks"]) == set(cfg.suite.tasks)]
    assert cfg.backbone.name in {table["backbone"] for table in tables}


@pytest.mark.parametrize("name", ["eight_vitb32", "fourteen_vitb16", "twenty_vitl14", "generalisation_exp1"])
@pytest.mark.parametrize("family", ["task_vectors", "tall_masks", "tinting", "fusion_bench"])
def test_experts_and_presets_belong_together(name: str, family: str) -> None:
    _, methods = composed(f"experiment={name}", f"checkpoints={family}")
    trained = set(methods) - STATIC
    assert trained
    assert trained <= FUSION_BENCH if family == "fusion_bench" else not trained & FUSION_BENCH


def test_there_are_the_papers_tables() -> None:
    assert len(NAMES) == 12
    sizes = {
        f"{suite}_{b}" for suite in ("eight", "fourteen", "twenty") for b in ("vitb32", "vitb16", "vitl14")
    }
    assert sizes < set(NAMES)
