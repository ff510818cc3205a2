"""Post-rules restated entry by entry, their identities, and what is refused."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

import pytest
import torch
from conftest import make_pool
from restating import DEPTH, pool64, tau
from torch import Tensor

import adamerge
from adamerge.errors import PoolError
from adamerge.merging import Pool
from adamerge.methods.adamerging import AdaMerging
from adamerge.rules.emr import Emr
from adamerge.rules.linear import Pretrained, TaskArithmetic, WeightAverage
from adamerge.rules.lines import Lines
from adamerge.rules.post import followed
from adamerge.rules.rule import Rule
from adamerge.rules.svc import Svc
from adamerge.rules.ties import Ties


class Delta(Rule):
    """A rule that gives one merged vector."""

    gives = "delta"

    def of_tensor(self, key: str, base: Tensor, stack: Tensor) -> Tensor:
        return 0.7 * stack.sum(dim=0, keepdim=True)


def made(pool: Pool, rule: Rule) -> dict[str, Tensor]:
    """sum_t v_t of what a rule makes of each tensor."""
    return {key: stack.sum(dim=0).view(pool.base[key].shape) for key, stack in rule(pool).vectors.items()}


def lines_by_hand(pool: Pool, rule: Rule, beta: float) -> dict[str, Tensor]:
    merged = made(pool, rule)
    sums: dict[str, Tensor] = {
        key: torch.stack([tau(pool, task)[key] for task in pool.names]).sum(dim=0) for key in pool.vectors
    }
    norms = [sum(float(tensor.abs().sum()) for tensor in of.values()) for of in (sums, merged)]
    alpha = norms[0] / norms[1] / len(pool.names)
    found = dict(pool.base)
    for key, vector in merged.items():
        block = re.search(r"resblocks\.(\d+)\.", key)
        scale = alpha + (beta * int(block[1]) / (DEPTH - 1) if block else 0.0)
        found[key] = pool.base[key] + scale * vector
    return found


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


def close(found: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    assert set(found) == set(expected)
    for key, value in expected.items():
        # A coefficient that is one number is one of float32.
        torch.testing.assert_close(found[key], value, rtol=1e-6, atol=1e-7)


RULES: list[tuple[Rule, float]] = [(TaskArithmetic(0.3), 0.3), (Ties(0.4), 0.3), (Delta(), 1.0)]


@pytest.mark.parametrize(("rule", "coefficient"), RULES)
@pytest.mark.parametrize("beta", [0.0, 0.8])
def test_lines_scales_block_by_block(rule: Rule, coefficient: float, beta: float) -> None:
    pool = pool64()
    close(followed(rule, [Lines(beta)])(pool).static(), lines_by_hand(pool, rule, beta))


@pytest.mark.parametrize(("rule", "coefficient"), RULES)
@pytest.mark.parametrize("alpha", [None, 1.0])
def test_svc_divides_singular_values(rule: Rule, coefficient: float, alpha: float | None) -> None:
    pool = pool64()
    least = 1 / len(pool.names) if alpha is None else alpha
    expected = svc_by_hand(pool, rule, coefficient, least)
    close(followed(rule, [Svc(alpha)])(pool).static(), expected)


def test_lines_without_slope_is_the_average_and_does_not_ask_for_the_rule_s_scale() -> None:
    pool = pool64()
    for rule in (TaskArithmetic(0.3), TaskArithmetic(2.0), WeightAverage()):
        close(adamerge.merge(pool, rule, post=Lines(0.0)), adamerge.merge(pool, "weight_average"))


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


@pytest.mark.parametrize("post", [Lines(0.4), Svc()])
def test_coefficients_are_learned_on_as_many_vectors_and_start_at_the_merge(post: Any) -> None:
    pool = pool64()
    for rule, names in ((Ties(), pool.names), (Delta(), ("merged",))):
        ruled = followed(rule, [post])(pool)
        assert ruled.names == names
        close(AdaMerging(ruled, start=None, clamp=False).double().merged_state_dict(), ruled.static())


def test_a_chain_is_one_after_the_other() -> None:
    pool = pool64()
    first = followed(Ties(), [Lines(0.4)])
    expected = svc_by_hand(pool, first, 0.3, 1 / 3)
    close(followed(Ties(), [Lines(0.4), Svc()])(pool).static(), expected)


@pytest.mark.parametrize("post", [Lines(), Svc()])
def test_what_makes_no_sense_is_refused(post: Any) -> None:
    pool = pool64()
    with pytest.raises(PoolError, match="keeps one per task"):
        followed(Emr(), [post])
    with pytest.raises(PoolError, match="coefficient 0"):
        adamerge.merge(pool, Pretrained(), post=post)


def test_lines_needs_blocks_and_vectors_that_do_not_sum_to_zero() -> None:
    with pytest.raises(PoolError, match="the encoder has none"):
        adamerge.merge(make_pool(), "ties", post="lines")
    with pytest.raises(PoolError, match="origin=average"):
        adamerge.merge(pool64(), "ties", post="lines", origin="average")
    with pytest.raises(ValueError, match="alpha"):
        Svc(alpha=0.0)


class TestOrigin:
    def test_the_base_is_the_mean_of_the_experts_and_the_vectors_sum_to_zero(self) -> None:
        pool = pool64()
        ruled = TaskArithmetic()(pool, origin="average")
        for key, value in ruled.base.items():
            mean = sum(pool.expert(task)[key] for task in pool.names) / len(pool.names)
            torch.testing.assert_close(value, mean)
        for stack in ruled.vectors.values():
            torch.testing.assert_close(stack.sum(dim=0), torch.zeros_like(stack[0]), atol=1e-12, rtol=0.0)
        for task in pool.names:
            close(ruled.expert(task), pool.expert(task))

    def test_ties_about_the_average_by_hand(self) -> None:
        """As if the experts' mean were the base that they were fine-tuned from."""
        pool = pool64()
        mean = adamerge.merge(pool, "weight_average")
        # Formed alike: the last digit decides at the threshold.
        vectors = {key: stack - stack.mean(dim=0) for key, stack in pool.vectors.items()}
        expected = Ties()(replace(pool, base=mean, vectors=vectors)).static()
        close(adamerge.merge(pool, "ties", origin="average"), expected)

    def test_one_expert_is_its_own_average(self) -> None:
        with pytest.raises(PoolError, match="the average of one expert"):
            adamerge.merge(pool64(tasks=("digits",)), "ties", origin="average")
