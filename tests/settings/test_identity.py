"""The run's identity changes with what changes the numbers, and with nothing else."""

from __future__ import annotations

import pytest
from omegaconf import OmegaConf

from adamerge.settings import run_id

FILES = {"base": "0123"}
BASE = ("train", "suite=real8", "suite.data=/data")


def identity(config) -> str:
    return run_id(config, FILES, "train")


@pytest.mark.parametrize(
    "word",
    [
        "logger=csv",
        "outputs=/elsewhere",
        "workers=3",
        "checkpoint_every=7",
        "evaluation.batch_size=9",
        "trainer.enable_progress_bar=false",
        "++trainer.log_every_n_steps=5",
        "suite.data=/another/disk",
        "suite.data=mnist",
        "checkpoints.base=/elsewhere/base",
        "method.summary=other words",
        "+experiment_name=mine",
        "suite.severity=3",
        "+suite.catalogue.unused={source: {_target_: x}}",
    ],
)
def test_what_changes_no_number_changes_no_identity(compose, word: str) -> None:
    assert identity(compose(*BASE, word)) == identity(compose(*BASE))


@pytest.mark.parametrize(
    "word",
    [
        "seed=1",
        "method=adamerging_taskwise",
        "method.optimizer.lr=0.01",
        "method.schedule.steps=7",
        "trainer.precision=bf16-mixed",
        "trainer.deterministic=true",
        "++trainer.fast_dev_run=true",
        "rule=ties",
        "suite.tasks=[mnist]",
        "suite.tasks=[chars74k,intel_scenes,dtd10,resisc12,mnist,gtsrb,eurosat,stanford_cars]",
        "suite.catalogue.mnist.source.test=other.parquet",
        "suite.corruption=jpeg",
        "backbone=mini",
        "checkpoints.dtype=bfloat16",
    ],
)
def test_what_changes_numbers_changes_the_identity(compose, word: str) -> None:
    assert identity(compose(*BASE, word)) != identity(compose(*BASE))


def test_the_severity_of_a_corruption_counts(compose) -> None:
    corrupted = (*BASE, "suite.corruption=jpeg")
    assert identity(compose(*corrupted, "suite.severity=3")) != identity(compose(*corrupted))


def test_files_count_by_content_and_the_command_counts(compose) -> None:
    config = compose(*BASE)
    ids = {
        run_id(config, FILES, "train"),
        run_id(config, {"base": "9"}, "train"),
        run_id(config, FILES, "merge"),
    }
    assert len(ids) == 3


def test_another_suite(compose) -> None:
    assert identity(compose("train", "suite=mini")) != identity(compose(*BASE))


def test_a_saved_config_has_the_same_identity(compose) -> None:
    config = compose("train")
    saved = OmegaConf.create(OmegaConf.to_yaml(config, resolve=True))
    assert identity(saved) == identity(config)


def test_twelve_hexadecimal_digits(compose) -> None:
    found = identity(compose(*BASE))
    assert len(found) == 12
    assert int(found, 16) >= 0
