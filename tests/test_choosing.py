"""The scale that is chosen is the one whose merge the judge finds best, where that is known beforehand."""

from __future__ import annotations

import pytest
import torch
from conftest import make_vit_pool

from adamerge.evaluation.choosing import best, by_experts, by_labels, scaled, tried
from adamerge.evaluation.predicting import Passes, predict_logits
from adamerge.methods.static import experts
from adamerge.rules.linear import TaskArithmetic
from adamerge.tasks.images import ImageSet
from adamerge.tracking.results import Tried

PASSES = Passes(device=torch.device("cpu"), batch_size=32)
GRID = (0.0, 0.5, 1.0, 2.0, 4.0)


def _one_task() -> tuple[object, dict[str, ImageSet], torch.Tensor]:
    """A pool of one expert, whose own merge at scale 1 is the expert itself; images; the expert's probabilities."""
    pool = make_vit_pool(tasks=("digits",), spread=1.0)
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randint(256, (200, 3, 4, 4), generator=generator).to(torch.uint8)
    images = {"digits": ImageSet.of(pixels)}
    certain = predict_logits(experts(pool), images, **PASSES)["digits"].softmax(dim=-1)
    return pool, images, certain


@pytest.mark.parametrize("by", ["label_free", "labels"])
def test_of_one_expert_the_scale_is_1(by: str) -> None:
    pool, images, certain = _one_task()
    own = certain.argmax(dim=-1)
    judge = by_experts({"digits": certain}) if by == "label_free" else by_labels({"digits": own})
    ruled = TaskArithmetic(0.3)(pool)  # type: ignore[arg-type]
    found = tried(((scale, scaled(ruled, scale)) for scale in GRID), images, judge, PASSES)
    assert [one.scale for one in found] == list(GRID)
    assert best(found).scale == 1.0
    # The merge is the expert: it is always right, and as right as the expert is certain.
    at_1 = found[2].score
    assert at_1 == pytest.approx(
        float(certain.double().max(dim=1).values.mean()) if by == "label_free" else 1.0
    )
    # At 0 it is the base, judged by hand.
    base = predict_logits(experts(pool), images, **PASSES)["digits"].argmax(-1)  # type: ignore[arg-type]
    assert torch.equal(base, own)
    assert all(one.score < at_1 for one in found if one.scale != 1.0)


def test_the_score_is_the_mean_over_tasks_and_of_equals_the_least_scale_is_taken() -> None:
    pool = make_vit_pool(tasks=("signs", "digits"))
    pixels = torch.randint(256, (8, 3, 4, 4), generator=torch.Generator().manual_seed(1)).to(torch.uint8)
    images = {"signs": ImageSet.of(pixels), "digits": ImageSet.of(pixels[:4])}
    fixed = {"signs": 0.25, "digits": 0.75}
    ruled = TaskArithmetic(0.3)(pool)
    merges = ((scale, scaled(ruled, scale)) for scale in (0.2, 0.1, 0.3))
    found = tried(merges, images, lambda task, predicted: fixed[task], PASSES)
    assert [one.score for one in found] == [0.5] * 3
    assert found[0].tasks == fixed
    assert best(found).scale == 0.1
    assert best([*found, Tried(2.0, 0.51, {})]).scale == 2.0
