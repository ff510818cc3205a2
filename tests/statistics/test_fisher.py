"""Fisher information against autograd through a hand-written transformer, one class and one image at a time."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from conftest import make_pool
from fisher_by_hand import fisher_by_hand
from restating import images64, pool64

from adamerge.errors import PoolError
from adamerge.merging import Head, Pool
from adamerge.statistics import fisher
from adamerge.statistics.collected import statistics_in_memory
from adamerge.statistics.fisher import collect_fisher

CPU = torch.device("cpu")


def check(pool: Pool, task: str, count: int = 5, batch_size: int = 64, share: float = 1e-7) -> None:
    images = images64(count)[task]
    found = collect_fisher(
        pool.encoder, pool.expert(task), pool.heads[task], images, device=CPU, batch_size=batch_size
    )
    expected = fisher_by_hand(pool, task, images)
    assert set(found) == set(expected)
    for key, value in expected.items():
        torch.testing.assert_close(found[key], value, rtol=share, atol=share / 1000)


@pytest.mark.parametrize("batch_size", [1, 3, 64])
def test_it_is_the_expected_square_of_each_image_s_gradient(batch_size: int) -> None:
    check(pool64(), "digits", batch_size=batch_size)


def test_images_go_one_at_a_time_where_memory_is_short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fisher, "_AT_ONCE", 1)
    check(pool64(), "digits")


@pytest.mark.parametrize("normalize", [True, False])
def test_a_head_with_a_bias_and_more_classes_than_features(normalize: bool) -> None:
    torch.manual_seed(0)
    head = Head(torch.randn(9, 4).double(), torch.randn(9).double(), normalize)
    pool = pool64()
    check(replace(pool, heads={**pool.heads, "digits": head}), "digits", count=3)


def test_a_certain_expert_is_propagated_in_few_columns() -> None:
    """Of nine classes one or two matter; what is left out is a billionth of the gradient at the feature."""
    torch.manual_seed(0)
    head = Head(60.0 * torch.randn(9, 4).double())
    pool = pool64()
    features = torch.randn(6, 4).double()
    assert fisher._columns(head, features).shape[2] < 4
    check(replace(pool, heads={**pool.heads, "digits": head}), "digits", count=3, share=1e-5)


def test_columns_hold_the_whole_square_of_the_feature_s_gradient() -> None:
    torch.manual_seed(0)
    head, feature = Head(torch.randn(5, 4).double()), torch.randn(1, 4).double().requires_grad_()
    log_p = head.logits(feature).log_softmax(dim=1)[0]
    expected = torch.zeros(4, 4).double()
    for c in range(5):
        slope = torch.autograd.grad(log_p[c], feature, retain_graph=True)[0][0]
        expected += log_p[c].exp().detach() * torch.outer(slope, slope)
    (columns,) = fisher._columns(head, feature.detach())
    torch.testing.assert_close(columns @ columns.t(), expected)


def test_two_classes_by_hand() -> None:
    """One feature w x of one pixel, logits +-f: F = p (1 - p) (2 x)^2 for its weight w."""

    class Line(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.w = torch.nn.Parameter(torch.tensor([[0.7]]).double())

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x.flatten(1) @ self.w

    head = Head(torch.tensor([[1.0], [-1.0]]).double(), normalize=False)
    x = torch.tensor([0.5, -2.0]).double().view(2, 1, 1, 1)
    state = {"w": torch.tensor([[0.7]]).double()}
    found = collect_fisher(Line().to("meta"), state, head, x, device=CPU)
    p = torch.sigmoid(2 * 0.7 * x.flatten())
    torch.testing.assert_close(found["w"].squeeze(), (p * (1 - p) * (2 * x.flatten()) ** 2).mean())


def test_it_works_without_blocks_under_no_grad_and_asks_for_a_head() -> None:
    pool, images = make_pool(), images64()
    with torch.no_grad():
        found = statistics_in_memory(pool, images).fisher("digits", "visual.proj")
    assert found is not None
    assert found.shape == pool.base["visual.proj"].shape
    assert float(found.sum()) > 0
    headless = replace(pool, heads={task: pool.heads[task] for task in ("signs", "scenes")})
    with pytest.raises(PoolError, match="digits has no head"):
        statistics_in_memory(headless, images).fisher("digits", "visual.proj")
