"""How a config differs from its preset: whatever can change a number is named, and nothing else."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from adamerge.commands.presets import deviations

Compose = Callable[..., Any]
EIGHT = ("suite=eight", "checkpoints=task_vectors", "backbone=vit_b_32")


@pytest.mark.parametrize(
    "words",
    [
        ("method=adamerging_layerwise", "seed=3", "workers=2", "download=true", "record=false", "suite.origin=folders"),
        ("method=adamerging_layerwise_pp", "trainer.accelerator=cpu", "evaluation.batch_size=7"),
        ("method=ties", "suite.tasks=[mnist,dtd]", "suite.unseen=[svhn]", "checkpoints.root=elsewhere"),
        ("method=ties", "evaluation.keep_predictions=false"),
        ("method=surgery", "rule=weight_average", "suite.corruption=jpeg", "suite.limit=10"),
        ("method=task_arithmetic", "suite.strengths=cifar", "suite.chooser=labels", "eval_every=5"),
        ("method=symerge", "suite=mini", "checkpoints=mini", "backbone=mini"),
    ],
)  # fmt: skip
def test_where_how_and_with_what_seed_a_run_goes_is_no_deviation(settings: Compose, words: Any) -> None:
    assert deviations(settings("train", *EIGHT, *words)) == {}


@pytest.mark.parametrize(
    ("words", "wanted"),
    [
        (["method.schedule.steps=50"], {"method.schedule.steps": (50, 500)}),
        (["method.schedule.feed=persistent"], {"method.schedule.feed": ("persistent", "resample")}),
        (["method.optimizer.lr=0.05"], {"method.optimizer.lr": (0.05, 1e-3)}),
        (["+method.optimizer.weight_decay=0.1"], {"method.optimizer.weight_decay": (0.1, None)}),
        (["method.objective.eps=1e-8"], {"method.objective.eps": (1e-8, 0.0)}),
        (["method=ties", "rule.reference_size=null"], {"rule.reference_size": (None, 113448705)}),
        (["method=ties", "rule.top_k=0.9"], {"rule.top_k": (0.9, 0.2)}),
        (["suite.prior=0.2"], {"method.model.start": (0.2, 0.3), "suite.prior": (0.2, 0.3)}),
        (["+suite.steps=50"], {"method.schedule.steps": (50, 500), "suite.steps": (50, None)}),
        (["checkpoints.dtype=bfloat16"], {"checkpoints.dtype": ("bfloat16", "float32")}),
        (["trainer.precision=bf16-mixed"], {"trainer.precision": ("bf16-mixed", "32-true")}),
        (["suite.catalogue.mnist.templates=['a {}.']"], {}),
        (["suite.irrelevant=[mnist_1]"], {"suite.irrelevant": (["mnist_1"], [])}),
        (["suite.adapt_images=8"], {"suite.adapt_images": (8, None)}),
        (["suite.adapt_on=train"], {"suite.adapt_on": ("train", "test")}),
        (["method=twin", "method.adapt_on=test"], {"method.adapt_on": ("test", "validation")}),
        (["stream=class_by_class"], {"stream.order": ("class_by_class", "independent")}),
        (["stream=mixed_tasks"], {"stream.mixed_tasks": (True, False)}),
        (["+attack.tasks=[mnist]"], {"attack.tasks": (["mnist"], [])}),
    ],
)
def test_what_can_change_a_number_is_named(settings: Compose, words: list[str], wanted: Any) -> None:
    found = deviations(settings("train", *EIGHT, *words))
    if "templates" in words[0]:
        assert list(found) == ["suite.catalogue.mnist.templates"]
    else:
        assert found == wanted


def test_a_method_of_ones_own_has_no_preset(settings: Compose) -> None:
    assert deviations(settings("train", *EIGHT, "method.name=mine")) == {"method": ("mine", None)}
