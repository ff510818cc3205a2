"""Evaluation without a run: calibration and scores against their definitions, worked out here by other means."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from composing import settings as composed
from conftest import TASKS, make_vit_pool
from hypothesis import given, settings
from hypothesis import strategies as st

from adamerge.evaluation import baselines
from adamerge.evaluation.predicting import Passes, calibration, predict_logits
from adamerge.evaluation.references import UNKNOWN, compared_on, read_references, write_references
from adamerge.evaluation.scoring import scored
from adamerge.merging import Head
from adamerge.methods.static import Static
from adamerge.rules.linear import TaskArithmetic
from adamerge.settings.identity import identify
from adamerge.tasks.images import ImageSet
from adamerge.tasks.protocol import Parts


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 300), st.integers(2, 12), st.floats(0.1, 20.0), st.integers(0, 1000))
def test_calibration_is_that_of_its_definitions(n: int, classes: int, scale: float, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    logits = scale * torch.randn(n, classes, generator=generator)
    labels = torch.randint(classes, (n,), generator=generator)
    found = calibration(logits, labels)
    assert found is not None
    x = logits.double().numpy()
    p = np.exp(x - x.max(axis=1, keepdims=True))
    p /= p.sum(axis=1, keepdims=True)
    sure, right = p.max(axis=1), p.argmax(axis=1) == labels.numpy()
    # Bins [0, 1/15), [1/15, 2/15), ..., [14/15, 1]; the gap of each weighs as many images as it has.
    place = np.digitize(sure, np.linspace(0, 1, 16)[1:-1])
    ece = sum(abs(right[place == b].sum() - sure[place == b].sum()) for b in range(15)) / n
    target = np.eye(classes)[labels.numpy()]
    assert found.ece == pytest.approx(ece, abs=1e-5)
    assert found.nll == pytest.approx(-np.log(p[target == 1]).mean(), rel=1e-6)
    assert found.brier == pytest.approx(((p - target) ** 2).sum(axis=1).mean(), rel=1e-6)


def test_the_extremes() -> None:
    labels = torch.tensor([0, 1, 1, 0])
    sure = 100 * torch.nn.functional.one_hot(labels, 2).float()
    right, wrong = calibration(sure, labels), calibration(sure, 1 - labels)
    assert right is not None
    assert wrong is not None
    assert (right.ece, right.nll, right.brier) == pytest.approx((0, 0, 0), abs=1e-6)
    assert (wrong.ece, wrong.nll, wrong.brier) == pytest.approx((1, 100, 2), abs=1e-6)
    even = calibration(torch.zeros(4, 2), labels)
    assert even is not None
    assert (even.ece, even.nll, even.brier) == pytest.approx((0, np.log(2), 0.5), abs=1e-6)


def test_a_certainty_of_one_belongs_to_the_last_bin() -> None:
    """Certain and wrong beside 0.95 and right: |1 right - 1.95 certain| of two images, in one bin."""
    logits = torch.tensor([[100.0, 0.0], [0.0, 0.0]])
    logits[1, 0] = torch.tensor(0.95 / 0.05).log()
    found = calibration(logits, torch.tensor([1, 0]))
    assert found is not None
    assert found.ece == pytest.approx(0.475, abs=1e-6)


def test_without_labels_there_is_none() -> None:
    assert calibration(torch.zeros(4, 2), None) is None


PASSES = Passes(device=torch.device("cpu"), batch_size=8)


def test_scores_of_a_pool_need_no_run(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pool = make_vit_pool()
    generator = torch.Generator().manual_seed(0)
    pixels = {task: torch.randint(256, (12, 3, 4, 4), generator=generator).to(torch.uint8) for task in TASKS}
    images = {task: ImageSet.of(values) for task, values in pixels.items()}
    rules = baselines.baselines(TaskArithmetic(0.3))
    found = baselines.predict_baselines(pool, images, rules, {"weights": "these"}, PASSES)
    logits = predict_logits(Static(TaskArithmetic(0.3)(pool)), images, **PASSES)
    labels = {"signs": torch.arange(12) % 4, "digits": None, "scenes": None}
    rows = torch.tensor([0, 2, 3, 7])
    parts = {
        "signs": Parts(rows, adapted=rows[:1], held_out=rows[1:]),
        "digits": Parts(rows),
        "scenes": Parts(rows),
    }
    result = scored(logits, found, labels, parts)
    own, expert = logits["signs"].argmax(-1)[rows], found.experts["signs"][rows]
    right = own == labels["signs"][rows]
    task = result.tasks["signs"]
    assert (task.accuracy, task.agreement, task.n) == (
        right.double().mean(),
        (own == expert).double().mean(),
        4,
    )
    assert (result.adapted["signs"].accuracy, result.adapted["signs"].n) == (right[:1].double().mean(), 1)
    assert (result.held_out["signs"].accuracy, result.held_out["signs"].n) == (right[1:].double().mean(), 3)
    assert set(result.adapted) == {"signs"}
    assert result.tasks["digits"].accuracy is None
    # The arithmetic of the references is the model itself.
    assert result.baselines["task_arithmetic"].accuracy["signs"] == task.accuracy
    assert set(result.baselines) == {"pretrained", "weight_average", "task_arithmetic", "individual"}

    # A second time nothing passes through an encoder; of other encoders everything does.
    def fail(*args: Any, **kwargs: Any) -> None:
        raise AssertionError("predicted again")

    monkeypatch.setattr(baselines, "predict_logits", fail)
    again = baselines.predict_baselines(pool, images, rules, {"weights": "these"}, PASSES)
    assert all(torch.equal(again.certain[t], found.certain[t]) for t in TASKS)
    with pytest.raises(AssertionError, match="again"):
        baselines.predict_baselines(pool, images, rules, {"weights": "others"}, PASSES)

    # A folder gives them back of the same pictures and heads, and of no others.
    on = compared_on(images, pool.heads)
    write_references(home, found, on)
    kept = read_references(home, {"signs": on["signs"]})
    assert torch.equal(kept.experts["signs"], found.experts["signs"])
    assert torch.equal(kept.certain["signs"], found.certain["signs"])
    assert set(kept.experts) == {"signs"}
    others = {task: ImageSet.of(values.flip(0)) for task, values in pixels.items()}
    assert read_references(home, compared_on(others, pool.heads)) is UNKNOWN


def test_evaluation_in_bfloat16_is_a_run_of_its_own_with_heads_in_full_precision() -> None:
    plain, narrow = composed("train"), composed("train", "evaluation.precision=bf16-mixed")
    assert identify(plain, "train", {}, {}).id != identify(narrow, "train", {}, {}).id
    features = torch.randn(5, 8)
    head = Head(100 * torch.randn(3, 8))
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(head.logits(features), head.logits(features.float()))
        inside = head.logits(features)
    assert torch.equal(inside, head.logits(features))
    assert inside.dtype == torch.float32
