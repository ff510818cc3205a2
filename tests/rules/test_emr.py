"""EMR by a hand-made case and its identities."""

from __future__ import annotations

import torch
from conftest import TASKS, make_vit_pool
from torch import Tensor

from adamerge.merging import Head, Pool
from adamerge.rules.emr import Emr


def test_by_hand() -> None:
    first = torch.tensor([[1.0, -2.0, 3.0, 0.0], [2.0, -1.0, -3.0, 0.0]])
    second = torch.tensor([[-4.0, 1.0], [1.0, 1.0]])
    heads = {task: Head(torch.ones(2, 1)) for task in "ab"}
    base = {"v": torch.zeros(4), "w": torch.zeros(2)}
    pool = Emr()(Pool(torch.nn.Identity(), base, {"v": first, "w": second}, ("a", "b"), heads))
    # Signs of the sums: v (+, -, 0 -> -, 0 -> -), w (-, +); the largest magnitude among those of that sign:
    # v (2, -2, -3, 0), w (-4, 1).
    masked = {"a": ([2.0, -2.0, 0.0, 0.0], [-4.0, 1.0]), "b": ([2.0, -2.0, -3.0, 0.0], [0.0, 1.0])}
    # Sums of the per-tensor means: a: |tau| 6/4 + 5/2 = 4, masked 4/4 + 5/2 = 3.5; b: 6/4 + 2/2, masked 7/4 + 1/2.
    rescale = {"a": 4.0 / 3.5, "b": 2.5 / 2.25}
    assert pool.by_task
    for row, task in enumerate(("a", "b")):
        for key, expected in zip(("v", "w"), masked[task], strict=True):
            torch.testing.assert_close(pool.vectors[key][row], rescale[task] * torch.tensor(expected))
            torch.testing.assert_close(pool.static(task)[key], rescale[task] * torch.tensor(expected))


def test_one_expert_is_itself() -> None:
    pool = make_vit_pool(tasks=TASKS[:1])
    for key, value in Emr()(pool).static(TASKS[0]).items():
        torch.testing.assert_close(value, pool.expert(TASKS[0])[key])


def test_the_order_of_the_tasks_does_not_matter() -> None:
    pool = make_vit_pool()
    order = [2, 0, 1]
    names = tuple(TASKS[i] for i in order)
    vectors: dict[str, Tensor] = {key: stack[order] for key, stack in pool.vectors.items()}
    other = Emr()(Pool(pool.encoder, pool.base, vectors, names, pool.heads))
    for key, value in Emr()(pool).static("signs").items():
        torch.testing.assert_close(value, other.static("signs")[key])
