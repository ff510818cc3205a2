"""FeatCal restated in float64 with a hand-written transformer, its identities, and what is refused."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from restating import DEPTH, HEADS, State, block, embed, expert, images64, pool64
from small_pools import reordered
from torch import Tensor
from torch.nn.functional import layer_norm

import adamerge
from adamerge.errors import PoolError
from adamerge.merging import Pool
from adamerge.methods.adamerging import AdaMerging
from adamerge.rules.emr import Emr
from adamerge.rules.featcal import FeatCal
from adamerge.rules.iso_c import IsoC
from adamerge.rules.linear import TaskArithmetic
from adamerge.rules.lines import Lines
from adamerge.rules.post import followed
from adamerge.rules.rule import Rule
from adamerge.rules.ties import Ties
from adamerge.statistics.collected import Collected, statistics_in_memory

BLOCK = "visual.transformer.resblocks."
QKV = ("q", "k", "v")


def inside(theta: State, index: int, x: Tensor) -> dict[str, Tensor]:
    """What enters each linear of a block, and each norm's tokens before its gain, (n, tokens, inputs)."""
    stem = f"{BLOCK}{index}."
    b = {key.removeprefix(stem): value for key, value in theta.items() if key.startswith(stem)}
    plain = layer_norm(x, (8,))
    y = plain * b["ln_1.weight"] + b["ln_1.bias"]
    q, k, v = (y @ b["attn.in_proj_weight"].T + b["attn.in_proj_bias"]).chunk(3, dim=-1)
    mixed = torch.cat(
        [
            torch.softmax(a @ c.transpose(1, 2) / 2.0, dim=-1) @ d
            for a, c, d in zip(q.chunk(HEADS, -1), k.chunk(HEADS, -1), v.chunk(HEADS, -1), strict=True)
        ],
        dim=-1,
    )
    after = x + mixed @ b["attn.out_proj.weight"].T + b["attn.out_proj.bias"]
    second = layer_norm(after, (8,))
    z = second * b["ln_2.weight"] + b["ln_2.bias"]
    hidden = z @ b["mlp.c_fc.weight"].T + b["mlp.c_fc.bias"]
    hidden = hidden * torch.sigmoid(1.702 * hidden)
    return {
        "ln_1": plain,
        **dict.fromkeys(QKV, y),
        "attn.out_proj": mixed,
        "ln_2": second,
        "mlp.c_fc": z,
        "mlp.c_proj": hidden,
    }


def layer(theta: State, index: int, name: str) -> tuple[Tensor, Tensor]:
    """Weight and bias; query, key and value are rows of one tensor."""
    stem = f"{BLOCK}{index}."
    if name not in QKV:
        return theta[f"{stem}{name}.weight"], theta[f"{stem}{name}.bias"]
    rows = slice(8 * QKV.index(name), 8 * QKV.index(name) + 8)
    return theta[f"{stem}attn.in_proj_weight"][rows], theta[f"{stem}attn.in_proj_bias"][rows]


def tokens_weigh(index: int, name: str, tokens: Tensor) -> Tensor:
    """(n * tokens,) in the order of the tokens."""
    weights = torch.ones(tokens.shape[:2], dtype=torch.float64)
    if index == DEPTH - 1 and name not in ("k", "v"):
        weights[:, 1:] = 0.01
    return weights.flatten()


def by_hand(
    pool: Pool, images: dict[str, Tensor], merged: State, r: float = 0.05, rho: float = 2.2, a: float = 0.25
) -> State:
    """Least squares with one weighted row per token, stacked over the tasks, instead of sums of products."""
    theta = {task: expert(pool, task) for task in pool.names}
    student = {task: embed(merged, images[task]) for task in pool.names}
    own = {task: embed(theta[task], images[task]) for task in pool.names}
    found = dict(merged)
    for index in range(DEPTH):
        entering = {task: inside(merged, index, student[task]) for task in pool.names}
        beside = {task: inside(theta[task], index, own[task]) for task in pool.names}
        new: dict[str, tuple[Tensor, Tensor]] = {}
        for name in entering[pool.names[0]]:
            anchor = [
                b + rho * (m - b)
                for m, b in zip(layer(merged, index, name), layer(pool.base, index, name), strict=True)
            ]
            solve = norm if name.startswith("ln") else linear
            new[name] = solve(index, name, entering, beside, theta, anchor, r, a)
        stem = f"{BLOCK}{index}."
        for which, kind in enumerate(("weight", "bias")):
            found[f"{stem}attn.in_proj_{kind}"] = torch.cat([new[name][which] for name in QKV])
            for name in set(new) - set(QKV):
                found[f"{stem}{name}.{kind}"] = new[name][which]
        student = {task: block(found, index, student[task]) for task in pool.names}
        own = {task: block(theta[task], index, own[task]) for task in pool.names}
    return found


def linear(
    index: int, name: str, entering: dict, beside: dict, theta: dict, anchor: list[Tensor], r: float, a: float
) -> tuple[Tensor, Tensor]:
    rows, answers, shares, inner = [], [], [], []
    for task in theta:
        xs, xe = entering[task][name].flatten(0, 1), beside[task][name].flatten(0, 1)
        w = tokens_weigh(index, name, entering[task][name])
        w = w / w.sum()
        xt = a * xe + (1.0 - a) * xs
        weight, bias = layer(theta[task], index, name)
        f = torch.einsum("n,ni,nj->ij", w, xs, xs).square().sum().sqrt()
        rows.append((w / f).sqrt().unsqueeze(1) * xs)
        answers.append((w / f).sqrt().unsqueeze(1) * (xt @ weight.T))
        shares.append(1.0 / f)
        inner.append((w @ xs, bias + w @ xt @ weight.T))
    ridge = (r + 1e-8) ** 0.5
    rows.append(ridge * torch.eye(rows[0].shape[1], dtype=torch.float64))
    answers.append(r / ridge * anchor[0].T)
    new = torch.linalg.lstsq(torch.cat(rows), torch.cat(answers), driver="gelsd").solution.T
    total = r * anchor[1]
    for share, (mean, answer) in zip(shares, inner, strict=True):
        total = total + share * (answer - new @ mean)
    return new, total / (sum(shares) + r)


def norm(
    index: int, name: str, entering: dict, beside: dict, theta: dict, anchor: list[Tensor], r: float, a: float
) -> tuple[Tensor, Tensor]:
    gains, biases = [], []
    for channel in range(8):
        left = r * torch.eye(2, dtype=torch.float64)
        right = r * torch.stack([each[channel] for each in anchor])
        for task in theta:
            z = entering[task][name][..., channel].flatten()
            w = tokens_weigh(index, name, entering[task][name])
            design = torch.stack([z, torch.ones_like(z)], dim=1)
            gain, bias = (each[channel] for each in layer(theta[task], index, name))
            left = left + design.T @ ((w / w.sum()).unsqueeze(1) * design)
            right = right + design.T @ (w / w.sum() * (gain * z + bias))
        solution = torch.linalg.solve(left, right)
        gains.append(solution[0])
        biases.append(solution[1])
    return torch.stack(gains), torch.stack(biases)


def close(found: State, expected: State, tolerance: float = 1e-6) -> None:
    assert set(found) == set(expected)
    for key, value in expected.items():
        # A coefficient that is one number is one of float32.
        torch.testing.assert_close(found[key], value, rtol=tolerance, atol=tolerance, msg=key)


class Fixed(Rule):
    """One delta that is known to the last bit."""

    gives = "delta"

    def of_tensor(self, key: str, base: Tensor, stack: Tensor) -> Tensor:
        return 0.5 * stack.sum(dim=0, keepdim=True)


@pytest.mark.parametrize("options", [{}, {"r": 0.2, "rho": 1.0, "a": 1.0}, {"r": 0.01, "rho": 1.5, "a": 0.0}])
def test_each_layer_is_least_squares_on_the_calibrated_tokens(options: dict[str, float]) -> None:
    pool, images = pool64(), images64(20)
    named = {{"r": "ridge", "rho": "anchor", "a": "teacher"}[key]: value for key, value in options.items()}
    found = adamerge.merge(pool, Fixed(), post=FeatCal(**named), images=images)
    expected = by_hand(pool, images, Fixed()(pool).static(), **options)
    close(found, expected, 1e-8)
    for key, value in Fixed()(pool).static().items():
        assert torch.allclose(value, found[key]) != key.startswith(BLOCK)


@pytest.mark.parametrize("rule", [TaskArithmetic(0.3), Ties(0.4), IsoC()])
def test_behind_any_rule_and_about_any_origin(rule: Rule) -> None:
    """The anchor is seen from the pre-trained base, whatever the rule merges about."""
    pool, images = pool64(), images64(12)
    for origin in ("base", "average"):
        merged = adamerge.merge(pool, rule, origin=origin)
        close(
            adamerge.merge(pool, rule, post="featcal", images=images, origin=origin),
            by_hand(pool, images, merged),
            1e-5,
        )


def test_more_images_than_a_pass_holds_and_tasks_of_unlike_numbers() -> None:
    pool, images = pool64(), images64(70)
    images = {task: x[: 70 - 30 * i] for i, (task, x) in enumerate(images.items())}
    found = adamerge.merge(pool, Fixed(), post="featcal", images=images)
    close(found, by_hand(pool, images, Fixed()(pool).static()), 1e-8)


@pytest.mark.parametrize("teacher", [0.0, 0.25, 1.0])
def test_a_merge_that_is_its_expert_stays_it(teacher: float) -> None:
    alone, images = pool64(tasks=("digits",)), images64(30)
    found = adamerge.merge(alone, TaskArithmetic(1.0), post=FeatCal(0.05, 1.0, teacher), images=images)
    close(found, expert(alone, "digits"))


def test_the_order_of_tasks_makes_no_difference() -> None:
    pool, images = pool64(), images64(6)
    turned = reordered(pool, range(len(pool.names))[::-1])
    found = [adamerge.merge(each, Fixed(), post="featcal", images=images) for each in (pool, turned)]
    close(found[0], found[1], 1e-9)


def test_tensors_that_no_expert_changed_stay() -> None:
    """Adapters on attention alone: the rest of the block is the base's, and what follows is calibrated beside it."""
    pool, images = pool64(), images64(6)
    kept = {key: stack for key, stack in pool.vectors.items() if "attn.in_proj" in key or "ln_1.bias" in key}
    some = replace(pool, vectors=kept)
    found = adamerge.merge(some, Fixed(), post="featcal", images=images)
    # The first block's fused weight, and its bias beside it, depend on nothing else that is calibrated.
    expected = by_hand(some, images, Fixed()(some).static())
    for key, value in found.items():
        if "attn.in_proj" not in key:
            assert torch.equal(value, Fixed()(some).static()[key]), key
        elif "resblocks.0" in key:
            torch.testing.assert_close(value, expected[key], rtol=1e-8, atol=1e-8)


def test_it_gives_one_vector_and_coefficients_start_at_it() -> None:
    pool, images = pool64(), images64(6)
    seen = statistics_in_memory(pool, images)
    ruled = followed(TaskArithmetic(0.3), [FeatCal()])(pool, statistics=seen)
    assert ruled.names == ("merged",)
    close(AdaMerging(ruled, start=None, clamp=False).double().merged_state_dict(), ruled.static())
    close(ruled.static(), adamerge.merge(pool, TaskArithmetic(0.3), post="featcal", images=images))
    # A post-rule behind it changes the calibrated merge as that of a rule with one vector.
    chain = followed(TaskArithmetic(0.3), [FeatCal(), Lines()])(pool, statistics=seen)
    assert chain.names == ("merged",)
    assert chain.coefficients.number == 1.0


def test_what_makes_no_sense_is_refused() -> None:
    pool, images = pool64(), images64(2)
    with pytest.raises(ValueError, match="ridge"):
        FeatCal(ridge=0.0)
    with pytest.raises(ValueError, match="teacher"):
        FeatCal(teacher=1.5)
    with pytest.raises(PoolError, match=r"learns from unlabeled images.*\n.*post="):
        adamerge.merge(pool, "ties", post="featcal")
    with pytest.raises(PoolError, match="scenes has none"):
        adamerge.merge(pool, "ties", post="featcal", images={t: images[t] for t in ("signs", "digits")})
    with pytest.raises(PoolError, match="keeps one per task"):
        followed(Emr(), [FeatCal()])
    with pytest.raises(PoolError, match="these statistics keep none"):
        followed(Ties(), [FeatCal()])(pool, statistics=Collected(lambda kind: {}))
