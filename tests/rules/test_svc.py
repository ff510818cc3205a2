"""SVC restated singular vector by singular vector, and its identities."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from post_by_hand import RULES, close, made
from restating import pool64, tau
from torch import Tensor

import adamerge
from adamerge.merging import Pool
from adamerge.rules.linear import TaskArithmetic
from adamerge.rules.post import followed
from adamerge.rules.rule import Rule
from adamerge.rules.svc import Svc


def svc_by_hand(pool: Pool, rule: Rule, coefficient: float, alpha: float) -> dict[str, Tensor]:
    merged = made(pool, rule)
    found = dict(pool.base)
    for key, vector in merged.items():
        vector = coefficient * vector
        if vector.ndim == 2 and "embedding" not in key:
            u, s, vt = torch.linalg.svd(vector, full_matrices=False)
            for r in range(len(s)):
                answers = [u[:, r] @ tau(pool, task)[key] for task in pool.names]
                strengths = [(u[:, r] @ vector) @ a / max(float(a @ a), 1e-12) for a in answers]
                s[r] /= sum(max(alpha, float(x)) for x in strengths) / len(strengths)
            vector = u @ torch.diag(s) @ vt
        found[key] = pool.base[key] + vector
    return found


@pytest.mark.parametrize(("rule", "coefficient"), RULES)
@pytest.mark.parametrize("alpha", [None, 1.0])
def test_svc_divides_singular_values(rule: Rule, coefficient: float, alpha: float | None) -> None:
    pool = pool64()
    least = 1 / len(pool.names) if alpha is None else alpha
    expected = svc_by_hand(pool, rule, coefficient, least)
    close(followed(rule, [Svc(alpha)])(pool).static(), expected)


def test_svc_of_one_whole_task_vector_is_that_one() -> None:
    pool = pool64(tasks=("digits",))
    close(adamerge.merge(pool, TaskArithmetic(1.0), post="svc"), pool.expert("digits"))


def test_svc_takes_q_k_and_v_together_or_apart() -> None:
    pool = pool64()
    key = "visual.transformer.resblocks.0.attn.in_proj_weight"
    rows = pool.base[key].shape[0] // 3
    single = replace(
        pool,
        base={"q": pool.base[key][:rows]},
        vectors={"q": pool.vectors[key].view(3, 3, -1)[:, 0].contiguous()},
    )
    apart = adamerge.merge(pool, "ties", post=Svc(fused="apart"), top_k=1.0)[key][:rows]
    together = adamerge.merge(pool, "ties", post=Svc(), top_k=1.0)[key][:rows]
    # The sign that most entries elect is of all tensors: with task arithmetic a tensor is alone.
    alone = adamerge.merge(single, TaskArithmetic(0.3), post=Svc())["q"]
    torch.testing.assert_close(
        adamerge.merge(pool, TaskArithmetic(0.3), post=Svc(fused="apart"))[key][:rows], alone
    )
    assert not torch.allclose(apart, together)
