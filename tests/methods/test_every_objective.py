"""Every objective of the config group trains a method that has the parts for it; one that has not is refused."""

from __future__ import annotations

import pytest
import torch
from composing import settings
from conftest import make_vit_pool
from methods.test_contract import adapted, build, config

from adamerge.errors import ConfigError
from adamerge.settings import conf_dir

OBJECTIVES = sorted(path.stem for path in (conf_dir() / "objective").glob("*.yaml"))
# What they can train: layer-wise coefficients reach every loss of features and logits, a router that of the tasks.
METHODS = {"task_identity": ("twin",)}
MORE = {
    "labels": ("+method.labels=8",),
    "sum": ("method.objective.terms={agreement: 1.0, alignment: 0.5, entropy: 0.1}",),
}
COMMON = ("adamerging_layerwise", "surgery", "tinting", "wemoe")


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_it_trains_every_method_that_has_the_parts(objective: str) -> None:
    for name in METHODS.get(objective, COMMON):
        words = (f"objective={objective}", *MORE.get(objective, ()))
        start = build(config(name, words), make_vit_pool()).state_dict()
        method = adapted(name, words=words)
        assert any(not torch.equal(value, start[key]) for key, value in method.state_dict().items()), name


@pytest.mark.parametrize(
    ("name", "objective", "why"),
    [
        ("twin", "entropy", "Entropy does not depend on anything that Twin trains"),
        ("tinting_head", "alignment", "Alignment does not depend on anything that Tinting trains"),
        ("surgery", "task_identity", "trains a router of images, which Surgery does not have"),
    ],
)
def test_a_method_without_the_part_is_refused(name: str, objective: str, why: str) -> None:
    with pytest.raises(ConfigError, match=why):
        adapted(name, words=(f"objective={objective}",))


def test_an_objective_leaves_no_option_of_the_default_behind() -> None:
    for name in ("adamerging_layerwise", "adamerging_layerwise_fb", "symerge"):
        assert settings("train", f"method={name}", "objective=alignment_cosine").method.objective == {
            "_target_": "adamerge.objectives.alignment.Alignment",
            "distance": "cosine",
            "reduction": "mean",
            "normalize": False,
        }
