"""KnOTS with TIES restated entry by entry on the joint decomposition, on experts of low rank made by hand."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from small_pools import State, added, close, pool_of, taus, the_order_of_tasks_does_not_matter
from torch import Tensor

import adamerge
from adamerge.merging import Pool
from adamerge.rules.knots import Knots

FUSED = "visual.transformer.resblocks.0.attn.in_proj_weight"
OUT = "visual.transformer.resblocks.0.attn.out_proj.weight"
BIAS = "visual.transformer.resblocks.0.attn.out_proj.bias"


def lora(rank: int = 2, tasks: int = 3, keys: dict[str, int] | None = None, seed: int = 0) -> Pool:
    """Experts B_t A_t; a fused tensor has a product for each of query, key and value."""
    generator = torch.Generator().manual_seed(seed)

    def random(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    tensors: dict[str, Any] = {}
    for key, parts in ({FUSED: 3, OUT: 1} if keys is None else keys).items():
        tensors[key] = [
            torch.cat([random(9, rank) @ random(rank, 8) for _ in range(parts)]).tolist()
            for _ in range(tasks)
        ]
    return pool_of(**tensors)


def parts_of(key: str, matrix: Tensor, fused: str) -> list[Tensor]:
    return [matrix[:9], matrix[9:18], matrix[18:]] if key == FUSED and fused == "apart" else [matrix]


def by_hand(pool: Pool, top_k: float, scale: float, aggregate: str, fused: str = "apart") -> State:
    """All coordinates of a task in one list; each entry's fate by itself."""
    lists: list[list[float]] = [[] for _ in pool.names]
    lefts: dict[tuple[str, int], Tensor] = {}
    for key, vectors in taus(pool).items():
        split = [parts_of(key, vector, fused) for vector in vectors]
        for i in range(len(split[0])):
            if split[0][i].ndim < 2:
                for t in range(len(split)):
                    lists[t] += split[t][i].tolist()
                continue
            left, values, right = torch.linalg.svd(torch.cat([s[i] for s in split], 1), full_matrices=False)
            k = int((values > 1e-5).sum())
            lefts[key, i] = left[:, :k]
            width = split[0][i].shape[1]
            for t in range(len(split)):
                own = values[:k, None] * right[:k, t * width : (t + 1) * width]
                lists[t] += own.flatten().tolist()
    dropped = len(lists[0]) - int(top_k * len(lists[0]))  # the last of them is the threshold, and kept
    kept = []
    for each in lists:
        cut = sorted(map(abs, each))[dropped - 1]
        kept.append([x if abs(x) >= cut else 0.0 for x in each])
    merged = []
    for entries in zip(*kept, strict=True):
        sign = 1 if sum(entries) > 0 else -1
        agreeing = [x for x in entries if x * sign > 0] or [0.0]
        value = {"sum": sum(agreeing), "mean": sum(agreeing) / len(agreeing), "max": max(agreeing, key=abs)}
        merged.append(scale * value[aggregate])
    return added(pool, _back(pool, torch.tensor(merged, dtype=torch.float64), lefts, fused))


def _back(pool: Pool, merged: Tensor, lefts: dict[tuple[str, int], Tensor], fused: str) -> State:
    change: State = {}
    for key, vectors in taus(pool).items():
        found = []
        for i, part in enumerate(parts_of(key, vectors[0], fused)):
            left = lefts.get((key, i))
            size = part.numel() if left is None else left.shape[1] * part.shape[1]
            own, merged = merged[:size], merged[size:]
            found.append(own if left is None else left @ own.view(-1, part.shape[1]))
        change[key] = torch.cat(found)
    assert not len(merged)
    return change


@pytest.mark.parametrize("aggregate", ["mean", "sum", "max"])
@pytest.mark.parametrize(("top_k", "fused"), [(0.2, "apart"), (0.55, "together"), (0.2, "together")])
def test_it_is_ties_on_the_common_coordinates(aggregate: str, top_k: float, fused: str) -> None:
    pool = lora()
    found = adamerge.merge(pool, "knots", top_k=top_k, scale=0.7, aggregate=aggregate, fused=fused)
    close(found, by_hand(pool, top_k, 0.7, aggregate, fused))


def test_full_rank_and_tensors_that_are_no_matrix_come_along() -> None:
    pool = lora(rank=8, keys={OUT: 1})
    torch.manual_seed(4)
    bias = torch.randn(3, 9, dtype=torch.float64)
    pool = replace(
        pool,
        base={**pool.base, BIAS: torch.ones(9, dtype=torch.float64)},
        vectors={**pool.vectors, BIAS: bias},
    )
    close(adamerge.merge(pool, "knots"), by_hand(pool, 0.2, 0.6, "mean"))


def test_nothing_trimmed_and_all_added_is_ties_of_one_and_one_expert_is_itself() -> None:
    alone = lora(tasks=1)
    close(
        adamerge.merge(alone, "knots", top_k=1.0, scale=1.0),
        added(alone, {k: v[0] for k, v in taus(alone).items()}),
    )
    # Equal experts agree everywhere: their mean is theirs.
    same = replace(alone, names=("a", "b"), vectors={k: v.expand(2, -1) for k, v in alone.vectors.items()})
    close(
        adamerge.merge(same, "knots", top_k=1.0, scale=1.0),
        adamerge.merge(alone, "knots", top_k=1.0, scale=1.0),
    )


def test_a_rotation_of_the_outputs_rotates_the_merge() -> None:
    """The coordinates are the experts' own: how the outputs are numbered or turned makes no difference. TIES itself, in
    the entries of the matrix, has no such property."""
    pool = lora(keys={OUT: 1})
    torch.manual_seed(2)
    turn = torch.linalg.qr(torch.randn(9, 9, dtype=torch.float64)).Q
    turned = replace(pool, vectors={OUT: (turn @ pool.vectors[OUT].view(3, 9, 8)).flatten(1)})
    for rule, same in (("knots", True), ("ties", False)):
        found = adamerge.merge(turned, rule)[OUT]
        assert torch.allclose(found, turn @ adamerge.merge(pool, rule)[OUT], atol=1e-6) == same


def test_the_order_of_tasks_and_what_is_learned_on() -> None:
    the_order_of_tasks_does_not_matter(lora(), "knots")
    ruled = Knots()(lora())
    assert ruled.names == ("a", "b", "c")
    # Each task's vector keeps to the directions of the pool.
    for vector in ruled.vectors[OUT]:
        assert torch.linalg.matrix_rank(vector.view(9, 8)) <= 6


def test_shares_out_of_range_are_refused() -> None:
    for top_k in (0.0, 1.5):
        with pytest.raises(ValueError, match="top_k"):
            Knots(top_k=top_k)
