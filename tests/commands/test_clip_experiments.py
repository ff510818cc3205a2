"""The experiments with the published benchmarks are valid as they stand, before anything is downloaded."""

from __future__ import annotations

import re

import pytest
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf, open_dict

from adamerge.commands.assemble import checkpoint_places
from adamerge.report.published import every_row
from adamerge.settings import conf_dir, register_resolvers, validate

NAMES = sorted(
    path.stem for path in (conf_dir() / "experiment").glob("*.yaml") if re.search(r"vit|_exp\d", path.stem)
)
FILES = {"task_vectors": "finetuned.pt", "tall_masks": "nonlinear_finetuned.pt", "fusion_bench": "clip-vit"}


@pytest.mark.parametrize("name", NAMES)
def test_an_experiment_is_valid_and_names_its_files(name: str) -> None:
    register_resolvers()
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        cfg = compose("train", [f"experiment={name}"], return_hydra_config=True)
    methods = OmegaConf.select(cfg, "hydra.sweeper.params.method").split(",")
    with open_dict(cfg):
        del cfg["hydra"]
    validate(cfg)
    places = checkpoint_places(cfg)
    assert all(FILES[cfg.checkpoints.name] in places[f"experts/{task}"] for task in cfg.suite.tasks)
    assert len({place for key, place in places.items() if key.startswith("experts/")}) == len(cfg.suite.tasks)
    assert set(methods) <= {path.stem for path in (conf_dir() / "method").glob("*.yaml")}
    # Something was published for these tasks and this backbone.
    tables = [table for table, _ in every_row() if set(table["tasks"]) == set(cfg.suite.tasks)]
    assert cfg.backbone.name in {table["backbone"] for table in tables}


def test_there_are_the_papers_tables() -> None:
    assert len(NAMES) == 10
