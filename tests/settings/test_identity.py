"""The run's identity changes with what changes the numbers, and with nothing else."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from omegaconf import DictConfig, OmegaConf

from adamerge.commands.composed import settings_of
from adamerge.settings import identify
from adamerge.settings.check import validate
from adamerge.settings.commands import TrainSettings, as_yaml
from adamerge.settings.sections import SuiteSection

FILES = {"base": "0123"}
BASE = ("train", "suite=real8", "suite.data=/data")


PICTURES = {"mnist": {"test": "4567"}}


MINE = "class Mine:\n    def __init__(self, pool, **options: object) -> None: ...\n"


def plain(config: DictConfig) -> Any:
    return OmegaConf.to_container(config, resolve=True)


def identity(config: Any, command: Any = "train", files: Any = FILES, pictures: Any = PICTURES) -> str:
    settings: Any = settings_of(config, "train") if isinstance(config, DictConfig) else config
    return identify(settings, command, files, pictures).id


@pytest.mark.parametrize(
    "word",
    [
        "logger=csv",
        "name=mine",
        "evaluation.keep_predictions=false",
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
        "suite.catalogue.mnist.source.test=other.parquet",
        "+suite.catalogue.mnist.licence=none",
        "+suite.limit=null",
        "+suite.unseen=[]",
        "rerun=true",
        "suite.prior=0.10",
        "method.schedule.steps=120",
        "++method.labels=null",
        "+suite.catalogue.unused={source: {_target_: x}}",
        "choose=prior",
        "+rule.grid=[0.1]",
    ],
)
def test_what_changes_no_number_changes_no_identity(compose: Any, word: str) -> None:
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
        "suite.catalogue.mnist.classes=[a,b]",
        "suite.corruption=jpeg",
        "suite.limit=9",
        "record=false",
        "backbone=mini",
        "checkpoints.dtype=bfloat16",
        "checkpoints.dtype=int4",
    ],
)
def test_what_changes_numbers_changes_the_identity(compose: Any, word: str) -> None:
    assert identity(compose(*BASE, word)) != identity(compose(*BASE))


def test_a_choice_and_what_it_chooses_from_count(compose: Any) -> None:
    words = ("train", "method=tsv_m", "suite=mini")
    ids = [
        identity(compose(*words, *more))
        for more in (
            (),
            ("choose=label_free",),
            ("choose=labels",),
            ("choose={by: labels, images: 8}",),
            ("choose={by: labels, grid: [0.5, 1.5]}",),
            ("choose=labels", "rule.grid=[0.5]"),
        )
    ]
    assert len(set(ids)) == len(ids)
    assert identity(compose(*words, "choose=labels", "rule.grid=[0.5, 1.5]")) == ids[4]
    assert identity(compose(*words, "choose={by: labels}")) == ids[2]


def test_the_severity_of_a_corruption_counts(compose: Any) -> None:
    corrupted = (*BASE, "suite.corruption=jpeg")
    assert identity(compose(*corrupted, "suite.severity=3")) != identity(compose(*corrupted))


def test_files_count_by_content_and_the_command_counts(compose: Any) -> None:
    config = compose(*BASE)
    ids = {
        identity(config),
        identity(config, files={"base": "9"}),
        identity(config, command="merge"),
        identity(config, pictures={"mnist": {"test": "9"}}),
        identity(config, pictures={"mnist": {"test": "4567", "train": "4567"}}),
    }
    assert len(ids) == 5


def test_one_number_in_two_spellings_is_one_run(compose: Any) -> None:
    words = ("train", "method=task_arithmetic", "suite=real8", "suite.data=/data")
    ids = {identity(compose(*words, f"++rule.scale={scale}")) for scale in ("1", "1.0", "1e0")}
    assert len(ids) == 1
    assert identity(compose(*words, "++rule.scale=1.1")) not in ids


def test_an_option_that_is_added_later_changes_no_identity_at_its_default(compose: Any) -> None:
    before = identity(compose(*BASE))

    class Later(SuiteSection):
        protocol: str = "transductive"

    class LaterSettings(TrainSettings):
        suite: Later

    def later(*words: str) -> str:
        return identity(validate(plain(compose(*BASE, *words)), LaterSettings))

    assert later("+suite.protocol=transductive") == later() == before
    assert later("+suite.protocol=inductive") != before


def test_the_source_of_a_module_of_the_user_s_counts(
    compose: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = tmp_path / "mine_identity"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "method.py").write_text("from . import helper\nimport beside_identity\n" + MINE)
    (package / "helper.py").write_text("x = 1\n")
    (tmp_path / "beside_identity.py").write_text("def f():\n    import json, numpy\n")
    (tmp_path / "unrelated.py").write_text("")
    monkeypatch.syspath_prepend(tmp_path)
    config = compose(*BASE, "method.model._target_=mine_identity.method.Mine")
    monkeypatch.setenv("ADAMERGE_MODULES", "mine_identity")
    kept: Any = settings_of(config, "train")
    found = identify(kept, "train", FILES, PICTURES)
    modules = {"mine_identity", "mine_identity.method", "mine_identity.helper", "beside_identity"}
    assert set(found.code) == {"adamerge", *modules}
    for changed in ("mine_identity/helper.py", "beside_identity.py"):
        (tmp_path / changed).write_text("x = 2\n")
        again = identify(kept, "train", FILES, PICTURES)
        assert again.id != found.id
        assert again.settings == found.settings
        found = again


def test_the_version_counts(compose: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    before = identity(compose(*BASE))
    monkeypatch.setattr("adamerge.settings.code.__version__", "9")
    assert identity(compose(*BASE)) != before


def test_another_suite(compose: Any) -> None:
    assert identity(compose("train", "suite=mini")) != identity(compose(*BASE))


def test_a_saved_config_has_the_same_identity(compose: Any) -> None:
    settings = settings_of(compose("train"), "train")
    saved = validate(yaml.safe_load(as_yaml(settings)), TrainSettings)
    assert saved == settings
    assert identity(saved) == identity(settings)


def test_twelve_hexadecimal_digits(compose: Any) -> None:
    found = identity(compose(*BASE))
    assert len(found) == 12
    assert int(found, 16) >= 0
